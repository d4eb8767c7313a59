//! A TDX quote with everything beside it hostile too: parts are the time (u64 big-endian), the root, collateral, event
//! log, quote. The first inputs are real ones, so that changes reach the quote verification library.
#![no_main]

use inwit_authority::evidence::{Endorsements, TdxPart, TdxRoot, authenticate};
use inwit_fuzz::{joined, parts, vector};
use inwit_protocol::evidence::{AgentRegister, Evidence, Platform};
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const FOLDERS: [&str; 4] =
    ["00b2526ab190-UpToDate", "0c699dd4533f-UpToDate", "b789d779386f-OutOfDate", "cf77a6e91e48-UpToDate"];

fn first() -> Vec<Vec<u8>> {
    let of = |folder: &str| {
        let file = |name: &str| vector(&format!("_tdx-assembled/{folder}/{name}"));
        let (quote, collateral) = (file("quote.bin"), file("collateral.json"));
        let at: u64 = String::from_utf8(file("verify-at.txt")).ok()?.trim().parse().ok()?;
        let pem = quote.windows(11).position(|window| window == b"-----BEGIN ")?;
        let root = CertificateDer::pem_slice_iter(&quote[pem..]).filter_map(Result::ok).last()?;
        Some(joined(&[&at.to_be_bytes(), &root, &collateral, &[], &quote]))
    };
    FOLDERS.into_iter().filter_map(of).collect()
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    let [at, root, collateral, log, quote] = parts(input);
    let part = [TdxPart::Collateral(collateral)];
    let documents: &[TdxPart<'_>] = if collateral.is_empty() { &[] } else { &part };
    let by = Endorsements { tdx: TdxRoot::new(root, documents).into_iter().collect(), ..Endorsements::default() };
    let evidence = Evidence {
        platform: Platform::Tdx,
        quote: quote.to_vec(),
        endorsements: vec![],
        event_log: log.to_vec(),
        agent_register: AgentRegister::Rtmr(3),
    };
    let _ = authenticate(&evidence, &by, at.try_into().map_or(0, u64::from_be_bytes));
});
