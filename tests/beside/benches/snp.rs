//! SNP appraisals per CPU-second: `authenticate` with nothing remembered (cold) and with the chain remembered (warm), beside
//! the `sev` crate 8.0.0 and the bare P-384 verification of two providers, in one run on one simulated chip under a test
//! root with RSA-4096 keys like AMD's. Time is this thread's CPU time, so a busy machine does not change the figures much.
//!
//! The two do not do the same work, to our disadvantage. `sev` skips: dates, revocation lists, basic constraints and key
//! usage, whether the report's chip, patch levels, product and kind of key are those of the certificate, reserved fields
//! and the signature's padding; and it verifies the report that it would have written, not the bytes that came.
//!
//! `just bench-beside snp`. Asserts outcomes, never times.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput};
use inwit_authority::evidence::{Endorsements, Product, SnpRoot, authenticate};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use nix::time::{ClockId, clock_gettime};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

#[path = "../../../authority/tests/evidence_support/amd.rs"]
#[allow(dead_code, unreachable_pub)]
mod amd;
#[path = "../../../authority/tests/evidence_support/der.rs"]
#[allow(dead_code, unreachable_pub)]
mod der;

use amd::{Amd, NOW};

/// CPU time of the measuring thread.
struct ThreadTime;

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    Duration::from(now)
}

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        thread_time()
    }

    fn end(&self, start: Duration) -> Duration {
        thread_time() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_secs_f64() * 1e9
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// One chip's report, as Evidence and apart.
struct Chip {
    amd: Amd,
    vcek: Vec<u8>,
    report: Vec<u8>,
    evidence: Evidence,
}

impl Chip {
    fn new() -> Self {
        let amd = Amd::of_bits(Product::Milan, 4_096);
        let vek = amd.issue(&amd.vcek_fields());
        let report = vek.report(&amd.body(&[0xda; 64], &[0x4d; 48]));
        let evidence = Evidence {
            platform: Platform::Snp,
            quote: report.clone(),
            endorsements: table(&vek.der),
            event_log: vec![],
            agent_register: AgentRegister::Absent,
        };
        Self { amd, vcek: vek.der, report, evidence }
    }

    fn endorsements(&self) -> Endorsements {
        let intermediates = [self.amd.ask_der.clone(), self.amd.asvk_der.clone()];
        let list = self.amd.list(NOW - amd::DAY, NOW + amd::DAY, &[9]);
        let root = SnpRoot::new(Product::Milan, &self.amd.ark_der, &intermediates, &[list]).expect("a good root");
        Endorsements { snp: vec![root], ..Endorsements::default() }
    }
}

/// A host's certificate table that holds a VCEK.
fn table(vcek: &[u8]) -> Vec<u8> {
    let guid = 0x63da_758d_e664_4564_adc5_f4b9_3be8_accd_u128;
    let length = u32::try_from(vcek.len()).expect("short");
    [&guid.to_be_bytes()[..], &48u32.to_le_bytes(), &length.to_le_bytes(), &[0; 24], vcek].concat()
}

fn ours(chip: &Chip, c: &mut Criterion<ThreadTime>) {
    let mut group = c.benchmark_group("snp");
    group.throughput(Throughput::Elements(1));
    group.bench_function("authenticate, cold", |b| {
        let judge = |by: Endorsements| authenticate(black_box(&chip.evidence), &by, NOW).expect("authentic");
        b.iter_batched(|| chip.endorsements(), judge, BatchSize::SmallInput);
    });
    let by = chip.endorsements();
    group.bench_function("authenticate, warm", |b| {
        b.iter(|| authenticate(black_box(&chip.evidence), &by, NOW).expect("authentic"));
    });
    group.finish();
}

fn of_sev(chip: &Chip, c: &mut Criterion<ThreadTime>) {
    let certificate = |der: &[u8]| Certificate::from_der(der).expect("a certificate");
    let mut group = c.benchmark_group("snp");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sev 8.0.0, whole chain", |b| {
        b.iter(|| {
            let report = AttestationReport::from_bytes(black_box(&chip.report)).expect("a report");
            let (ark, ask) = (certificate(&chip.amd.ark_der), certificate(&chip.amd.ask_der));
            let chain = Chain { ca: ca::Chain { ark, ask }, vek: certificate(&chip.vcek) };
            (&chain, &report).verify().expect("verified");
        });
    });
    let vek = certificate(&chip.vcek);
    group.bench_function("sev 8.0.0, report alone", |b| {
        b.iter(|| {
            let report = AttestationReport::from_bytes(black_box(&chip.report)).expect("a report");
            (&vek, &report).verify().expect("verified");
        });
    });
    group.finish();
}

/// The floor: one verification of the report's signature, whatever else is done.
fn floor(chip: &Chip, c: &mut Criterion<ThreadTime>) {
    let point = certificate_point(&chip.vcek);
    let scalar = |offset: usize| chip.report[offset..offset + 48].iter().rev().copied().collect::<Vec<u8>>();
    let (message, signature) = (&chip.report[..0x2a0], [scalar(0x2a0), scalar(0x2e8)].concat());
    let mut group = c.benchmark_group("P-384");
    group.throughput(Throughput::Elements(1));
    group.bench_function("aws-lc-rs", |b| {
        use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point);
        b.iter(|| key.verify(black_box(message), &signature).expect("verified"));
    });
    group.bench_function("ring", |b| {
        use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point);
        b.iter(|| key.verify(black_box(message), &signature).expect("verified"));
    });
    group.finish();
}

fn certificate_point(der: &[u8]) -> Vec<u8> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).expect("a certificate");
    certificate.public_key().subject_public_key.data.to_vec()
}

fn main() {
    let chip = Chip::new();
    let mut criterion = Criterion::default().with_measurement(ThreadTime).configure_from_args();
    ours(&chip, &mut criterion);
    of_sev(&chip, &mut criterion);
    floor(&chip, &mut criterion);
    criterion.final_summary();
}
