//! Every state that a simulated platform, quoting enclave, TD or piece of collateral can be in, judged twice: by
//! `authenticate` and by another verifier, whole. Where they do not agree the table says so and why.

mod evidence_support;

use evidence_support::intel::{ATTRIBUTES, CURRENT, Enclave, Intel, NOW, Platform as Chip, Revoked, Td, XFAM};
use evidence_support::judge::judge;
use evidence_support::{evidence, tdx, vectors_or_say};
use inwit_authority::evidence::{Claims, Endorsements, TdxClaims, authenticate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};

/// How the two stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    /// The same status and advisories, or both refuse.
    Same,
    /// They refuse what we call authentic and leave to the appraisal.
    Refuse,
    /// They accept, with this status.
    Accept(&'static str),
}
use Theirs::{Accept, Refuse, Same};

const GONE: (i32, u8, u8) = (2026, 5, 31);
const PAST: [&str; 2] = ["2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"];
const COMING: [&str; 2] = ["2026-06-02T00:00:00Z", "2026-07-01T00:00:00Z"];

fn claims(quote: &[u8], by: &Endorsements, at: u64) -> Result<TdxClaims, Refusal> {
    match authenticate(&evidence(Platform::Tdx, quote.to_vec(), vec![], vec![]), by, at)?.claims() {
        Claims::Tdx(claims) => Ok(TdxClaims::clone(claims)),
        other => panic!("{other:?}"),
    }
}

/// Judges one case by both and compares.
fn compare(name: &str, chip: &Chip, td: &Td, ours: Result<&str, RefusalCode>, theirs: Theirs) {
    let intel = Intel::new(chip);
    let quote = intel.quote(td);
    let found = claims(&quote, &intel.endorsements(), NOW);
    match (&found, ours) {
        (Ok(found), Ok(status)) => assert_eq!(found.tcb_status.text(), status, "{name}"),
        (Err(refusal), Err(code)) => assert_eq!(refusal.code, code, "{name}: {refusal}"),
        (found, expected) => panic!("{name}: {found:?}, not {expected:?}"),
    }
    let judged = judge(&intel.root, &quote, &intel.collateral, NOW);
    match (theirs, &judged, found) {
        (Same, Ok((status, advisories)), Ok(found)) => {
            assert_eq!((status.as_str(), advisories), (found.tcb_status.text(), &found.advisory_ids), "{name}");
        }
        (Same, Err(_), Err(_)) | (Refuse, Err(_), Ok(_)) => {}
        (Accept(expected), Ok((status, _)), _) => assert_eq!(status, expected, "{name}"),
        (theirs, judged, found) => panic!("{name}: expected of them {theirs:?}, found {judged:?}; ours {found:?}"),
    }
}

/// What differs, the platform, the TD, our verdict, theirs.
type Case<'a> = (&'a str, Chip, Td, Result<&'a str, RefusalCode>, Theirs);

fn all(name: &str, cases: &[Case<'_>]) {
    for (case, chip, td, ours, theirs) in cases {
        compare(&format!("{name}: {case}"), chip, td, *ours, *theirs);
    }
}

fn chip() -> Chip {
    Chip::default()
}

fn td() -> Td {
    Td::default()
}

fn with(enclave: Enclave) -> Td {
    Td { enclave, ..td() }
}

fn enclave() -> Enclave {
    td().enclave
}

#[test]
fn the_platforms_status_is_the_same() {
    let chip = |status| Chip { status, advisories: &["INTEL-SA-00615", "INTEL-SA-00828"], ..chip() };
    for status in [
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ] {
        compare(status, &chip(status), &td(), Ok(status), Same);
    }
    let zero = [0; 16];
    let level = |sgx, pce, tdx, status| (sgx, pce, tdx, status);
    let unsorted = vec![
        level(3, 11, zero, "OutOfDate"),
        level(5, 11, [9; 16], "UpToDate"),
        level(5, 9, zero, "ConfigurationNeeded"),
    ];
    let untrue = vec![level(5, 11, zero, "TDRelaunchAdvised")];
    all(
        "platform",
        &[
            ("revoked", chip("Revoked"), td(), Err(RefusalCode::TcbTooOld), Same),
            ("below all", Chip { svn: 4, ..self::chip() }, td(), Err(RefusalCode::TcbTooOld), Same),
            ("levels out of order", Chip { levels: unsorted, ..self::chip() }, td(), Ok("ConfigurationNeeded"), Same),
            (
                "a status for quotes only",
                Chip { levels: untrue, ..self::chip() },
                td(),
                Err(RefusalCode::ChainUntrusted),
                Same,
            ),
            // They take the TCB info by FMSPC alone.
            (
                "PCEID",
                Chip { pce_id: [0, 1], ..self::chip() },
                td(),
                Err(RefusalCode::ChainUntrusted),
                Accept("UpToDate"),
            ),
        ],
    );
}

#[test]
fn the_quoting_enclave_is_judged_the_same() {
    let chain = Err(RefusalCode::ChainUntrusted);
    let old = Err(RefusalCode::TcbTooOld);
    let key = Err(RefusalCode::QuoteSignature);
    let chip = |qe_status| Chip { qe_status, ..chip() };
    all(
        "enclave",
        &[
            ("vendor", chip("UpToDate"), with(Enclave { vendor: 0, ..enclave() }), chain, Same),
            ("MRSIGNER", chip("UpToDate"), with(Enclave { signer: 0xab, ..enclave() }), chain, Same),
            ("ISVPRODID", chip("UpToDate"), with(Enclave { product: 1, ..enclave() }), chain, Same),
            ("MISCSELECT", chip("UpToDate"), with(Enclave { misc_select: 1, ..enclave() }), chain, Same),
            ("ATTRIBUTES", chip("UpToDate"), with(Enclave { attributes: 4, ..enclave() }), chain, Same),
            ("ISVSVN", chip("UpToDate"), with(Enclave { isvsvn: 3, ..enclave() }), old, Same),
            ("another key", chip("UpToDate"), with(Enclave { key_digest: 1, ..enclave() }), key, Same),
            ("out of date", chip("OutOfDate"), td(), Ok("OutOfDate"), Same),
            ("revoked", chip("Revoked"), td(), old, Same),
            // No status of an enclave, says Intel's algorithm; they let it count as current.
            ("status", chip("ConfigurationNeeded"), td(), chain, Accept("UpToDate")),
            // They look at the first half only.
            ("report data", chip("UpToDate"), Td { qe_tail: 1, ..td() }, key, Accept("UpToDate")),
        ],
    );
    let unmasked = Chip { qe_mask: 0xfd, ..self::chip() };
    let debug = with(Enclave { attributes: 2, ..enclave() });
    compare("enclave: debug", &unmasked, &debug, Err(RefusalCode::DebugEnabled), Same);
    let configured = Chip { status: "ConfigurationNeeded", ..chip("OutOfDate") };
    compare("enclave: converged", &configured, &td(), Ok("OutOfDateConfigurationNeeded"), Same);
}

#[test]
fn the_module_is_judged_the_same() {
    let modules = vec![(3, vec![(3, "UpToDate"), (1, "OutOfDate")]), (1, vec![(2, "Revoked")])];
    let chip = Chip { modules, ..chip() };
    let svn = |svns: [u8; 3]| {
        let mut all = [0; 16];
        all[..3].copy_from_slice(&svns);
        Td { tee_tcb_svn: all, ..td() }
    };
    let hardening = Chip { status: "SWHardeningNeeded", ..chip.clone() };
    let both = Chip { status: "ConfigurationAndSWHardeningNeeded", ..chip.clone() };
    let demanding = |status| {
        (
            5,
            11,
            {
                let mut all = [0; 16];
                all[..3].copy_from_slice(&[9, 9, 2]);
                all
            },
            status,
        )
    };
    let skipping = Chip { levels: vec![demanding("UpToDate")], ..chip.clone() };
    let old = Err(RefusalCode::TcbTooOld);
    let chain = Err(RefusalCode::ChainUntrusted);
    let missing = Err(RefusalCode::EndorsementMissing);
    all(
        "module",
        &[
            ("current", chip.clone(), svn([3, 3, 0]), Ok("UpToDate"), Same),
            ("newer", chip.clone(), svn([9, 3, 0]), Ok("UpToDate"), Same),
            ("below all", chip.clone(), svn([0, 3, 0]), old, Same),
            ("revoked", chip.clone(), svn([2, 1, 0]), old, Same),
            ("unknown version", chip.clone(), svn([3, 4, 0]), missing, Same),
            ("without a version", chip.clone(), td(), Ok("UpToDate"), Same),
            ("components 0 and 1 are its own business", skipping.clone(), svn([3, 3, 2]), Ok("UpToDate"), Same),
            ("component 2 is not", skipping.clone(), svn([3, 3, 1]), old, Same),
            ("components of one without a version", skipping, svn([8, 0, 2]), old, Same),
            ("signer", chip.clone(), Td { seam_signer: 1, ..svn([3, 3, 0]) }, chain, Same),
            ("attributes", chip.clone(), Td { seam_attributes: 1, ..svn([3, 3, 0]) }, chain, Same),
            (
                "in development",
                Chip { module_attributes: 1, ..self::chip() },
                Td { seam_attributes: 1, ..td() },
                Err(RefusalCode::DebugEnabled),
                Accept("UpToDate"), // they compare, and we also demand zeros as Intel's library does
            ),
        ],
    );
    // Intel's library sorts a module's levels as it does a platform's; they take the first that is reached.
    let unsorted = Chip { modules: vec![(3, vec![(1, "OutOfDate"), (3, "UpToDate")])], ..self::chip() };
    compare("module: out of order", &unsorted, &svn([3, 3, 0]), Ok("UpToDate"), Accept("OutOfDate"));
    compare("module: old", &chip, &svn([2, 3, 0]), Ok("OutOfDate"), Same);
    compare("module: old, hardening", &hardening, &svn([2, 3, 0]), Ok("OutOfDate"), Same);
    compare("module: old, both", &both, &svn([2, 3, 0]), Ok("OutOfDateConfigurationNeeded"), Same);
}

#[test]
fn what_runs_now_counts_beside_what_was_launched() {
    let modules = vec![(3, vec![(5, "UpToDate"), (3, "OutOfDate"), (1, "Revoked")])];
    let chip = Chip { modules, ..chip() };
    let svns = |launch: [u8; 3], now: [u8; 3]| {
        let fill = |svns: [u8; 3]| {
            let mut all = [0; 16];
            all[..3].copy_from_slice(&svns);
            all
        };
        Td { tee_tcb_svn: fill(launch), later: Some((fill(now), 0)), ..td() }
    };
    let of = |status| Chip { status, ..chip.clone() };
    let third = |third, status| {
        (
            5,
            11,
            {
                let mut all = [0; 16];
                all[2] = third;
                all
            },
            status,
        )
    };
    let platform = Chip { levels: vec![third(4, "UpToDate"), third(2, "OutOfDate")], ..chip.clone() };
    let old = Err(RefusalCode::TcbTooOld);
    all(
        "1.5",
        &[
            ("current", chip.clone(), svns([5, 3, 0], [5, 3, 0]), Ok("UpToDate"), Same),
            ("updated", chip.clone(), svns([3, 3, 0], [5, 3, 0]), Ok("TDRelaunchAdvised"), Same),
            ("not updated", chip.clone(), svns([3, 3, 0], [3, 3, 0]), Ok("OutOfDate"), Same),
            ("now revoked", chip.clone(), svns([5, 3, 0], [1, 3, 0]), old, Same),
            ("launched on a revoked one", chip.clone(), svns([1, 3, 0], [5, 3, 0]), old, Same),
            ("now below all", chip.clone(), svns([5, 3, 0], [0, 3, 0]), old, Same),
            ("now unknown", chip.clone(), svns([5, 3, 0], [5, 9, 0]), Err(RefusalCode::EndorsementMissing), Same),
            (
                "updated and misconfigured",
                of("ConfigurationNeeded"),
                svns([3, 3, 0], [5, 3, 0]),
                Ok("TDRelaunchAdvisedConfigurationNeeded"),
                Same,
            ),
            ("updated on an old platform", of("OutOfDate"), svns([3, 3, 0], [5, 3, 0]), Ok("OutOfDate"), Same),
            // Intel's text advises a relaunch for an old module alone; they do for any old part that is new now.
            (
                "the platform was updated",
                platform,
                svns([5, 3, 2], [5, 3, 4]),
                Ok("OutOfDate"),
                Accept("TDRelaunchAdvised"),
            ),
            ("with a service TD", chip.clone(), Td { later: Some(([0; 16], 7)), ..td() }, Ok("UpToDate"), Same),
        ],
    );
}

#[test]
fn modes_are_for_the_appraisal_and_some_are_not_for_them() {
    let of = |attributes| Td { attributes, ..td() };
    let later = |attributes| Td { later: Some(([0; 16], 0)), ..of(attributes) };
    all(
        "mode",
        &[
            ("debug", chip(), of(ATTRIBUTES | 1), Ok("UpToDate"), Same),
            ("profiling", chip(), of(ATTRIBUTES | 1 << 5), Ok("UpToDate"), Same),
            ("XFAM", chip(), Td { xfam: XFAM | 1 << 40, ..td() }, Ok("UpToDate"), Same),
            ("service TD extension", chip(), later(ATTRIBUTES | 1 << 17), Ok("UpToDate"), Same),
            ("service TD extension in 1.0", chip(), of(ATTRIBUTES | 1 << 17), Ok("UpToDate"), Refuse),
            ("SEPT_VE_DISABLE off", chip(), of(0), Ok("UpToDate"), Refuse),
            ("migratable", chip(), of(ATTRIBUTES | 1 << 29), Ok("UpToDate"), Refuse),
            ("reserved", chip(), of(ATTRIBUTES | 1 << 40), Ok("UpToDate"), Refuse),
        ],
    );
}

#[test]
fn everything_dated_is_refused_when_it_is_late_or_early() {
    let expired = Err(RefusalCode::EndorsementExpired);
    all(
        "date",
        &[
            ("PCK", Chip { pck_until: GONE, ..chip() }, td(), expired, Same),
            ("PCK CA", Chip { ca_until: GONE, ..chip() }, td(), expired, Same),
            ("signer", Chip { signer_until: GONE, ..chip() }, td(), expired, Same),
            ("list of the root", Chip { lists_until: [GONE, (2035, 1, 1)], ..chip() }, td(), expired, Same),
            ("list of the CA", Chip { lists_until: [(2035, 1, 1), GONE], ..chip() }, td(), expired, Same),
            ("TCB info", Chip { current: PAST, ..chip() }, td(), expired, Same),
            ("TCB info to come", Chip { current: COMING, ..chip() }, td(), expired, Same),
            ("QE identity", Chip { qe_current: PAST, ..chip() }, td(), expired, Same),
            ("QE identity to come", Chip { qe_current: COMING, ..chip() }, td(), expired, Same),
            ("in the wrong order", Chip { current: [CURRENT[1], CURRENT[0]], ..chip() }, td(), expired, Same),
            // Nobody issued the root's dates but itself; Intel's library looks at them, they do not.
            ("root", Chip { root_until: GONE, ..chip() }, td(), expired, Accept("UpToDate")),
        ],
    );
}

#[test]
fn everybodys_certificate_can_be_revoked() {
    let revoked = Err(RefusalCode::EndorsementRevoked);
    for of in [Revoked::Pck, Revoked::Ca, Revoked::Signer, Revoked::Root] {
        compare(&format!("{of:?}"), &Chip { revoked: of, ..chip() }, &td(), revoked, Same);
    }
}

/// Every real quote that has collateral of its own, by both.
#[test]
fn real_quotes_are_judged_the_same_but_for_one() {
    let Some(vectors) = vectors_or_say(12, "real TDX quotes before another verifier") else { return };
    let (mut agreed, mut refused) = (0, 0);
    for vector in tdx::all(&vectors).into_iter().chain(tdx::phala(&vectors)) {
        let name = vector.name();
        let ours = claims(&vector.quote, &vector.endorsements(), vector.at);
        let root = tdx::intel_root(&vector.collateral);
        match (judge(&root, &vector.quote, &vector.collateral, vector.at), ours) {
            (Ok((status, advisories)), Ok(ours)) => {
                assert_eq!((status.as_str(), &advisories), (ours.tcb_status.text(), &ours.advisory_ids), "{name}");
                agreed += 1;
            }
            // Named for a status that it does not have: one component is below every level of its collateral.
            (Err(reason), Err(refusal)) => {
                assert_eq!((name.as_str(), refusal.code), ("tdx_quote_outdated", RefusalCode::TcbTooOld), "{reason}");
                refused += 1;
            }
            // An access by the host can be turned into an exception: authentic here, and for the appraisal to refuse.
            (Err(reason), Ok(ours)) => {
                assert!(
                    reason.contains("SEPT_VE_DISABLE") && !ours.td_attributes.sept_ve_disable(),
                    "{name}: {reason}"
                );
            }
            (Ok(theirs), Err(refusal)) => panic!("{name}: they found {theirs:?}, we {refusal}"),
        }
    }
    assert_eq!((agreed, refused), (10, 1));
}
