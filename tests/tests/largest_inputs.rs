//! The largest input of each kind that a Verifier reads, in the shape that would cost the most: each is either judged or
//! refused, and what is too long is refused before it is read. Time is not asserted; the fuzz targets have a limit for it.

use std::sync::{Arc, LazyLock};

use inwit_authority::evidence::{Endorsements, Product, SnpRoot, TdxPart, TdxRoot, authenticate};
use inwit_measurements::eventlog::{EventLog, LogError, MAX_EVENTS, MAX_LOG_BYTES, encode_ccel};
use inwit_measurements::sha384;
use inwit_measurements::tdx::Event;
use inwit_protocol::evidence::{AgentRegister, BLOB_LIMIT, EVENT_LOG_LIMIT, Evidence, Platform};
use inwit_protocol::refusal::RefusalCode;
use inwit_tests::hardware::{AmdTestRoot, IntelTestRoot, SnpMachine, TdxMachine};
use serde_json::{Value, json};

/// 2026-11-22 12:00:00 UTC.
const NOW: u64 = 1_795_348_800;
/// Longest collateral document, in bytes.
const DOCUMENT: usize = 1 << 20;

static TD: LazyLock<TdxMachine> = LazyLock::new(|| {
    let root = Arc::new(IntelTestRoot::generate(NOW).unwrap());
    TdxMachine::new(&root, [0x4d; 48], [[0; 48]; 4]).unwrap()
});

static CHIP: LazyLock<SnpMachine> =
    LazyLock::new(|| SnpMachine::new(&Arc::new(AmdTestRoot::generate(NOW).unwrap()), [0x4d; 48]).unwrap());

fn tdx(event_log: Vec<u8>) -> Evidence {
    let quote = TD.quote(&[0x5a; 64]).unwrap();
    Evidence { platform: Platform::Tdx, quote, endorsements: vec![], event_log, agent_register: AgentRegister::Absent }
}

fn snp(endorsements: Vec<u8>) -> Evidence {
    let quote = CHIP.report(&[0x5a; 64], 0).unwrap().to_vec();
    Evidence { platform: Platform::Snp, quote, endorsements, event_log: vec![], agent_register: AgentRegister::Absent }
}

fn refusal(evidence: &Evidence, by: &Endorsements) -> Option<RefusalCode> {
    authenticate(evidence, by, NOW).err().map(|refusal| refusal.code)
}

fn under(document: &[u8]) -> Result<Endorsements, String> {
    let root = TdxRoot::new(TD.root.root_der(), &[TdxPart::Collateral(document)]).map_err(|error| error.to_string())?;
    Ok(Endorsements { tdx: vec![root], ..Endorsements::default() })
}

/// Collateral whose TCB info has this many levels that the platform does not reach, before the one that it does.
fn collateral_with_levels(number: usize) -> Vec<u8> {
    let genuine = TD.collateral().unwrap();
    let mut info: Value = serde_json::from_str(&genuine.tcb_info).unwrap();
    let met = info["tcbLevels"][0].take();
    let mut beyond = met.clone();
    beyond["tcb"]["pcesvn"] = json!(u16::MAX);
    let mut levels = vec![beyond; number];
    levels.push(met);
    info["tcbLevels"] = json!(levels);
    let collateral = TD.collateral_that_says(info.to_string(), genuine.qe_identity).unwrap();
    serde_json::to_vec(&collateral).unwrap()
}

#[test]
fn json_nested_to_its_limit_is_refused() {
    for open in [&b"["[..], b"{\"a\":", b"{\"tcb_info\":["] {
        let deep = open.repeat(DOCUMENT / open.len());
        assert!(under(&deep).is_err());
        for part in [TdxPart::TcbInfo(&deep), TdxPart::QeIdentity(&deep)] {
            assert!(TdxRoot::new(TD.root.root_der(), &[part]).is_err());
        }
        let inside = String::from_utf8(open.repeat(DOCUMENT / 4 / open.len())).unwrap();
        let collateral = TD.collateral_that_says(inside, TD.collateral().unwrap().qe_identity).unwrap();
        assert!(under(&serde_json::to_vec(&collateral).unwrap()).is_err());
    }
}

#[test]
fn tcb_levels_are_searched_to_the_last_that_fits() {
    // Collateral carries freshly made signatures, whose DER is a few bytes longer or shorter from one call to the next.
    let fits = |number: &usize| collateral_with_levels(*number).len() <= DOCUMENT - 64;
    let one_more = (collateral_with_levels(1_000).len() - collateral_with_levels(0).len()) / 1_000;
    let fitting = (0..=DOCUMENT / one_more).rev().find(fits).unwrap();
    let largest = collateral_with_levels(fitting);
    assert!(fitting > 500 && largest.len() <= DOCUMENT, "{fitting} levels");
    assert_eq!(refusal(&tdx(vec![]), &under(&largest).unwrap()), None);
    assert!(under(&collateral_with_levels(10_000)).unwrap_err().contains("too long"));
}

#[test]
fn a_log_of_the_smallest_records_is_read_to_its_limit() {
    let record = |number: u32| Event {
        index: number % 4 + 1,
        event_type: 0x8000_000b,
        digest: sha384(b""),
        data: Vec::new(),
        description: String::new(),
    };
    let length = encode_ccel(&[record(0), record(1)]).len() - encode_ccel(&[record(0)]).len();
    let number = (EVENT_LOG_LIMIT - encode_ccel(&[]).len()) / length;
    let log = encode_ccel(&(0..u32::try_from(number).unwrap()).map(record).collect::<Vec<_>>());
    assert!(log.len() <= EVENT_LOG_LIMIT && number > 1_500, "{number} records in {} bytes", log.len());
    let by = under(TD.collateral_json().unwrap().as_bytes()).unwrap();
    assert_eq!(refusal(&tdx(log), &by), Some(RefusalCode::EventLogMismatch));

    let header = encode_ccel(&[]);
    let tail = encode_ccel(&[record(0)]).split_off(header.len());
    let many = [header, tail.repeat(MAX_EVENTS + 1)].concat();
    assert!(many.len() <= MAX_LOG_BYTES);
    assert_eq!(EventLog::parse(&many).err(), Some(LogError::TooMany));
    assert_eq!(EventLog::parse(&vec![0; MAX_LOG_BYTES + 1]).err(), Some(LogError::TooLarge(MAX_LOG_BYTES + 1)));
}

#[test]
fn a_full_certificate_table_is_searched_and_a_fuller_one_refused() {
    let genuine = CHIP.certificate_table();
    let list = CHIP.root.crl_der().unwrap();
    let root = SnpRoot::new(Product::Milan, CHIP.root.ark_der(), &[CHIP.root.ask_der().to_vec()], &[list]).unwrap();
    let by = Endorsements { snp: vec![root], ..Endorsements::default() };
    // Entries of names that nobody knows, each of the whole table, before the genuine ones, which move behind them.
    let table = |unknown: u32| {
        let shift = |at: usize| {
            let number = u32::from_le_bytes(genuine[at..at + 4].try_into().unwrap());
            [&(number + 24 * unknown).to_le_bytes()[..], &genuine[at + 4..at + 8]].concat()
        };
        let length = u32::try_from(BLOB_LIMIT).unwrap().to_le_bytes();
        let unknown = [&[9; 16][..], &[0; 4], &length].concat().repeat(unknown.try_into().unwrap());
        let known = (0..3).flat_map(|entry| [&genuine[entry * 24..][..16], &shift(entry * 24 + 16)].concat());
        let mut table = [unknown, known.collect(), genuine[72..].to_vec()].concat();
        table.resize(BLOB_LIMIT, 0);
        table
    };
    assert_eq!(refusal(&snp(table(13)), &by), None);
    assert_eq!(refusal(&snp(table(14)), &by), Some(RefusalCode::Malformed));
    assert_eq!(
        refusal(&snp([[9; 16].as_slice(), &[0; 8]].concat().repeat(BLOB_LIMIT / 24)), &by),
        Some(RefusalCode::Malformed)
    );
}

#[test]
fn a_long_revocation_list_is_searched() {
    let from = NOW - 86_400;
    let others: Vec<u64> = (0..100_000).map(|number| (1 << 40) + number).collect();
    for (serials, code) in [
        (others.clone(), None),
        ([others, vec![CHIP.root.ask_serial()]].concat(), Some(RefusalCode::EndorsementRevoked)),
    ] {
        let list = CHIP.root.crl_der_revoking(from, from + 30 * 86_400, &serials).unwrap();
        let root = SnpRoot::new(Product::Milan, CHIP.root.ark_der(), &[CHIP.root.ask_der().to_vec()], &[list]).unwrap();
        let by = Endorsements { snp: vec![root], ..Endorsements::default() };
        assert_eq!(refusal(&snp(CHIP.certificate_table()), &by), code);
    }
}

#[test]
fn evidence_with_every_part_at_its_limit_is_read_and_one_byte_more_is_not() {
    let evidence = |quote, endorsements, log| Evidence {
        platform: Platform::Snp,
        quote: vec![0; quote],
        endorsements: vec![1; endorsements],
        event_log: vec![2; log],
        agent_register: AgentRegister::Pcr(15),
    };
    let whole = evidence(BLOB_LIMIT, BLOB_LIMIT, EVENT_LOG_LIMIT);
    assert_eq!(Evidence::parse(&whole.encode()).unwrap(), whole);
    assert_eq!(refusal(&whole, &Endorsements::default()), Some(RefusalCode::Malformed));
    for (quote, endorsements, log) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let longer = evidence(BLOB_LIMIT + quote, BLOB_LIMIT + endorsements, EVENT_LOG_LIMIT + log);
        assert!(Evidence::parse(&longer.encode()).is_err());
    }
    // An array in an array, and so on; and counts of elements and bytes that nothing follows.
    let deep = vec![0x81; 200_000];
    for hostile in [&deep[..], &[&[0x9b][..], &[0xff; 8]].concat(), &[&[0x5a][..], &[0xff; 4]].concat()] {
        assert!(Evidence::parse(hostile).is_err());
    }
}
