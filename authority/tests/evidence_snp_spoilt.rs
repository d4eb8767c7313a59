//! Systematic spoiling. Good reports, real and simulated, one of each product, with one thing changed at a time: every byte
//! of report and certificates, every named field, every part of a certificate made anew under the test root, and every
//! second encoding that we could think of. What is still accepted must say exactly the same, and is listed with its reason.

mod evidence_support;

#[path = "evidence_snp_spoilt/certificates.rs"]
mod certificates;
#[path = "evidence_snp_spoilt/encodings.rs"]
mod encodings;

use std::io::Write;
use std::sync::LazyLock;

use evidence_support::amd::{Amd, NOW};
use evidence_support::snp::{GENOA_5, GUID_ASK, GUID_VCEK, GUID_VLEK, MILAN_2, MILAN_3, TURIN_5, VECTORS, VLEK, table};
use evidence_support::{evidence, read, vectors_or_say};
use inwit_authority::evidence::{Claims, Endorsements, Product, SnpClaims, SnpRoot, authenticate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::Refusal;

static MILAN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Milan));
static GENOA: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Genoa));
static TURIN: LazyLock<Amd> = LazyLock::new(|| Amd::new(Product::Turin));

/// A good report with everything that authenticates it.
struct Good {
    name: String,
    product: Product,
    report: Vec<u8>,
    guid: u128,
    vek: Vec<u8>,
    ask: Vec<u8>,
    ark: Vec<u8>,
    at: u64,
}

/// What authentication gives: everything that is said, or the refusal.
type Outcome = Result<(SnpClaims, Vec<u8>), Refusal>;

impl Good {
    fn simulated(amd: &Amd) -> Self {
        let vek = amd.issue(&amd.vcek_fields());
        Self {
            name: format!("simulated {}", amd.product),
            product: amd.product,
            report: vek.report(&amd.body(&[0xda; 64], &[0x4d; 48])),
            guid: GUID_VCEK,
            vek: vek.der,
            ask: amd.ask_der.clone(),
            ark: amd.ark_der.clone(),
            at: NOW,
        }
    }

    fn root(&self) -> Endorsements {
        let root = SnpRoot::new(self.product, &self.ark, std::slice::from_ref(&self.ask), &[]).unwrap();
        Endorsements { snp: vec![root], ..Endorsements::default() }
    }

    fn table(&self) -> Vec<u8> {
        table(&[(self.guid, &self.vek)])
    }

    /// The good one's claims, from a fresh root.
    fn claims(&self) -> (SnpClaims, Vec<u8>) {
        outcome(&self.report, &self.table(), &self.root(), self.at).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

fn outcome(report: &[u8], table: &[u8], by: &Endorsements, at: u64) -> Outcome {
    let authentic = authenticate(&evidence(Platform::Snp, report.to_vec(), table.to_vec(), vec![]), by, at)?;
    let Claims::Snp(claims) = authentic.claims() else { panic!("{:?}", authentic.claims()) };
    Ok((SnpClaims::clone(claims), authentic.data().to_vec()))
}

fn simulated() -> Vec<Good> {
    [&*MILAN, &*GENOA, &*TURIN].map(Good::simulated).into()
}

/// Real ones: of each product, of the versions 2, 3 and 5, and under a VLEK.
fn real() -> Vec<Good> {
    let Some(vectors) = vectors_or_say(5, "real SNP reports to spoil") else { return vec![] };
    let good = |index: usize| {
        let vector = &VECTORS[index];
        let file = |kind: &str| {
            let product = vector.product.name().to_lowercase();
            read(vectors.join("_amd-roots").join(format!("{product}-{kind}.der")))
        };
        Good {
            name: vector.folder.to_owned(),
            product: vector.product,
            report: vector.report(&vectors),
            guid: if vector.vlek { GUID_VLEK } else { GUID_VCEK },
            vek: vector.certificate(&vectors),
            ask: file(if vector.vlek { "asvk" } else { "ask" }),
            ark: file("ark"),
            at: vector.times(&vectors).0,
        }
    };
    [MILAN_2, MILAN_3, GENOA_5, TURIN_5, VLEK].map(good).into()
}

/// Past the test harness, which swallows what a passing test prints.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Fields of a report by offset and length (firmware ABI 56860, ATTESTATION_REPORT), all that there are.
const FIELDS: [(&str, usize, usize); 37] = [
    ("VERSION", 0x000, 4),
    ("GUEST_SVN", 0x004, 4),
    ("POLICY", 0x008, 8),
    ("FAMILY_ID", 0x010, 16),
    ("IMAGE_ID", 0x020, 16),
    ("VMPL", 0x030, 4),
    ("SIGNATURE_ALGO", 0x034, 4),
    ("CURRENT_TCB", 0x038, 8),
    ("PLATFORM_INFO", 0x040, 8),
    ("SIGNING_KEY", 0x048, 4),
    ("reserved 4C", 0x04c, 4),
    ("REPORT_DATA", 0x050, 64),
    ("MEASUREMENT", 0x090, 48),
    ("HOST_DATA", 0x0c0, 32),
    ("ID_KEY_DIGEST", 0x0e0, 48),
    ("AUTHOR_KEY_DIGEST", 0x110, 48),
    ("REPORT_ID", 0x140, 32),
    ("REPORT_ID_MA", 0x160, 32),
    ("REPORTED_TCB", 0x180, 8),
    ("CPUID", 0x188, 3),
    ("reserved 18B", 0x18b, 21),
    ("CHIP_ID", 0x1a0, 64),
    ("COMMITTED_TCB", 0x1e0, 8),
    ("CURRENT version", 0x1e8, 3),
    ("reserved 1EB", 0x1eb, 1),
    ("COMMITTED version", 0x1ec, 3),
    ("reserved 1EF", 0x1ef, 1),
    ("LAUNCH_TCB", 0x1f0, 8),
    ("LAUNCH_MIT_VECTOR", 0x1f8, 8),
    ("CURRENT_MIT_VECTOR", 0x200, 8),
    ("reserved 208", 0x208, 152),
    ("R", 0x2a0, 48),
    ("R padding", 0x2d0, 24),
    ("S", 0x2e8, 48),
    ("S padding", 0x318, 24),
    ("reserved 330", 0x330, 368),
    ("whole signature", 0x2a0, 512),
];

#[test]
fn no_bit_and_no_field_of_a_report_can_be_changed() {
    let mut changes = 0_u32;
    for good in real().iter().chain(&simulated()) {
        let (by, table) = (good.root(), good.table());
        let refused = |spoilt: &[u8], what: &str| {
            assert!(outcome(spoilt, &table, &by, good.at).is_err(), "{}: {what} may be changed", good.name);
        };
        // Warm, so that nothing is refused for a chain that could not be verified.
        assert!(outcome(&good.report, &table, &by, good.at).is_ok(), "{}", good.name);
        for position in 0..good.report.len() {
            let scalars = (0x2a0..0x2d0).contains(&position) || (0x2e8..0x318).contains(&position);
            let bits = if position < 0x2a0 || scalars { position % 8..position % 8 + 1 } else { 0..8 };
            for bit in bits {
                let mut spoilt = good.report.clone();
                spoilt[position] ^= 1 << bit;
                refused(&spoilt, &format!("bit {bit} of byte {position:#x}"));
                changes += 1;
            }
        }
        for (name, offset, length) in FIELDS {
            for filling in [0x00, 0xff] {
                let mut spoilt = good.report.clone();
                spoilt[offset..offset + length].fill(filling);
                if spoilt != good.report {
                    refused(&spoilt, &format!("{name} to {filling:#04x}"));
                    changes += 1;
                }
            }
        }
        assert!(outcome(&good.report, &table, &by, good.at).is_ok(), "{}: still good", good.name);
    }
    let fields: usize = FIELDS[..36].iter().map(|(_, _, length)| length).sum();
    assert_eq!(fields, 1_184, "a byte of the report belongs to no field");
    say(&format!("SNP reports: {changes} changes of bits and fields, all refused"));
}
