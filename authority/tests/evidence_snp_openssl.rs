//! An independent judge: the `openssl` program verifies the chain and the signature of every real report and of simulated
//! ones, good and spoilt. Where it refuses, we refuse; and where we accept, it accepts. It looks at chains and signatures
//! only, so what we refuse for other reasons is not asked of it.

mod evidence_support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use evidence_support::amd::{Amd, NOW};
use evidence_support::der::{seq, tlv};
use evidence_support::snp::{self, GUID_VCEK, GUID_VLEK, VECTORS, table};
use evidence_support::{evidence, read, vectors_or_say};
use inwit_authority::evidence::{Endorsements, Product, SnpRoot, authenticate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use tempfile::TempDir;

/// Something to be judged, as files and as bytes.
#[derive(Clone)]
struct Case {
    report: Vec<u8>,
    guid: u128,
    vek: Vec<u8>,
    ask: Vec<u8>,
    ark: Vec<u8>,
    product: Product,
    at: u64,
}

fn openssl(folder: &Path, arguments: &[&str]) -> bool {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    output.status.success()
}

/// Whether the judge is here. Where everything has to run, its absence is a failure.
fn judge_or_say(missed: usize) -> bool {
    let here = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !here {
        assert!(std::env::var_os("INWIT_WORLD").is_none_or(|value| value != "required"), "install openssl");
        say(&format!("NOT RUN: {missed} reports judged by openssl (no such program)"));
    }
    here
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// INTEGER from a number in little-endian, as a signature in DER has it.
fn integer(little: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = little.iter().rev().copied().skip_while(|byte| *byte == 0).collect();
    let sign: &[u8] = if digits.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    tlv(2, &[sign, &digits].concat())
}

impl Case {
    /// The judge's verdict: chain at the time, then the signature over the first 2A0h bytes with the VEK's key.
    fn by_openssl(&self) -> bool {
        let folder = TempDir::new().unwrap();
        let folder = folder.path();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
        for (name, der) in [("ark", &self.ark), ("ask", &self.ask), ("vek", &self.vek)] {
            write(&format!("{name}.der"), der);
            let arguments = ["x509", "-inform", "der", "-in", &format!("{name}.der"), "-out", &format!("{name}.pem")];
            if !openssl(folder, &arguments) {
                return false;
            }
        }
        let at = self.at.to_string();
        let chain = ["verify", "-CAfile", "ark.pem", "-untrusted", "ask.pem", "-attime", &at, "vek.pem"];
        write("signed", &self.report[..0x2a0]);
        write("signature", &seq(&[&integer(&self.report[0x2a0..0x2e8]), &integer(&self.report[0x2e8..0x330])]));
        openssl(folder, &chain)
            && openssl(folder, &["x509", "-in", "vek.pem", "-pubkey", "-noout", "-out", "key.pem"])
            && openssl(folder, &["dgst", "-sha384", "-verify", "key.pem", "-signature", "signature", "signed"])
    }

    fn by_us(&self) -> Result<(), Refusal> {
        let loaded = SnpRoot::new(self.product, &self.ark, std::slice::from_ref(&self.ask), &[]);
        let root = loaded.map_err(|error| Refusal::new(RefusalCode::ChainUntrusted, error))?;
        let by = Endorsements { snp: vec![root], ..Endorsements::default() };
        let table = table(&[(self.guid, &self.vek)]);
        authenticate(&evidence(Platform::Snp, self.report.clone(), table, vec![]), &by, self.at).map(|_| ())
    }

    fn flipped(&self, part: impl Fn(&mut Self) -> &mut Vec<u8>, position: usize) -> Self {
        let mut case = self.clone();
        part(&mut case)[position] ^= 1 << (position % 8);
        case
    }

    /// Faults of signature and chain, of which both must find every one.
    fn spoilt(&self) -> Vec<(String, Self)> {
        let mut all = Vec::new();
        for position in [0x010, 0x050, 0x090, 0x0bf, 0x0c0, 0x140, 0x15f, 0x2a0, 0x2cf, 0x2e8, 0x317] {
            all.push((format!("report byte {position:#x}"), self.flipped(|case| &mut case.report, position)));
        }
        // Near the end lies the signature, before it what is signed: names, key, patch levels.
        for part in 1..8 {
            let (vek, ask, ark) = (self.vek.len(), self.ask.len(), self.ark.len());
            all.push((format!("VEK part {part}"), self.flipped(|case| &mut case.vek, vek * part / 8)));
            all.push((format!("ASK part {part}"), self.flipped(|case| &mut case.ask, ask * part / 8)));
            all.push((format!("ARK part {part}"), self.flipped(|case| &mut case.ark, ark * part / 8)));
        }
        for at in [0, 4_000_000_000] {
            all.push((format!("at {at}"), Self { at, ..self.clone() }));
        }
        all.push(("R and S zero".into(), {
            let mut case = self.clone();
            case.report[0x2a0..].fill(0);
            case
        }));
        all
    }

    /// Both verdicts on this and on every spoilt form of it; gives how many were compared.
    fn compare(&self, name: &str) -> usize {
        self.by_us().unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert!(self.by_openssl(), "{name}: openssl refuses");
        let all = self.spoilt();
        for (what, case) in &all {
            assert!(case.by_us().is_err(), "{name}: we accept a change of {what}");
            // The root is given to the judge as trusted, and openssl believes a trusted one without its own signature.
            let believed = what.starts_with("ARK part");
            assert!(believed || !case.by_openssl(), "{name}: openssl accepts a change of {what}");
        }
        all.len() + 1
    }
}

fn real(vectors: &Path, index: usize) -> Case {
    let vector = &VECTORS[index];
    let file = |kind: &str| {
        read(vectors.join("_amd-roots").join(format!("{}-{kind}.der", vector.product.name().to_lowercase())))
    };
    Case {
        report: vector.report(vectors),
        guid: if vector.vlek { GUID_VLEK } else { GUID_VCEK },
        vek: vector.certificate(vectors),
        ask: file(if vector.vlek { "asvk" } else { "ask" }),
        ark: file("ark"),
        product: vector.product,
        at: vector.times(vectors).0,
    }
}

#[test]
fn openssl_says_the_same_of_every_real_report() {
    let Some(vectors) = vectors_or_say(VECTORS.len(), "real SNP reports judged by openssl") else { return };
    if !judge_or_say(VECTORS.len()) {
        return;
    }
    let compared: usize = std::thread::scope(|scope| {
        let vectors = &vectors;
        let judged = (0..VECTORS.len())
            .map(|index| scope.spawn(move || real(vectors, index).compare(VECTORS[index].folder)))
            .collect::<Vec<_>>();
        judged.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    say(&format!("SNP reports: {compared} verdicts compared with openssl's"));
    // A genuine certificate of another product, chip or kind under a report is a bad signature to openssl as well.
    for (report, other) in [(snp::MILAN_3, snp::MILAN_2), (snp::GENOA_3, snp::GENOA_5), (snp::VLEK, snp::MILAN_3)] {
        let (case, other) = (real(&vectors, report), real(&vectors, other));
        let mixed = Case { report: case.report, ..other };
        assert!(mixed.by_us().is_err() && !mixed.by_openssl(), "{}", VECTORS[report].folder);
    }
    let (milan, genoa) = (real(&vectors, snp::MILAN_3), real(&vectors, snp::GENOA_3));
    let foreign = Case { ask: genoa.ask.clone(), ..milan.clone() };
    assert!(foreign.by_us().is_err() && !foreign.by_openssl(), "the ASK of another product");
    let foreign = Case { ark: genoa.ark, ..milan };
    assert!(foreign.by_us().is_err() && !foreign.by_openssl(), "the ARK of another product");
}

#[test]
fn openssl_says_the_same_of_simulated_reports() {
    if !judge_or_say(3) {
        return;
    }
    for product in [Product::Milan, Product::Genoa, Product::Turin] {
        let amd = Amd::new(product);
        let vek = amd.issue(&amd.vcek_fields());
        let case = Case {
            report: vek.report(&amd.body(&[0xda; 64], &[0x4d; 48])),
            guid: GUID_VCEK,
            vek: vek.der,
            ask: amd.ask_der.clone(),
            ark: amd.ark_der.clone(),
            product,
            at: NOW,
        };
        case.compare(product.name());
        let namesake = Amd::new(product);
        let foreign = Case { ark: namesake.ark_der, ..case };
        assert!(foreign.by_us().is_err() && !foreign.by_openssl(), "a self-made ARK of the same name");
    }
}
