//! What was verified once is not verified again, and nobody can tell but by the time it takes: at every moment a root that has
//! seen quotes before says what a fresh one says, and a spoilt quote after a good one is refused as it is before.

mod evidence_support;

use evidence_support::intel::{Intel, NOW, Platform as Chip, Revoked, Td};
use evidence_support::{evidence, tdx, vectors_or_say};
use inwit_authority::evidence::{Claims, Endorsements, TdxClaims, TdxPart, TdxRoot, authenticate};
use inwit_protocol::evidence::Platform;
use inwit_protocol::refusal::{Refusal, RefusalCode};

const DAY: u64 = 86_400;

fn claims(quote: &[u8], by: &Endorsements, at: u64) -> Result<TdxClaims, Refusal> {
    match authenticate(&evidence(Platform::Tdx, quote.to_vec(), vec![], vec![]), by, at)?.claims() {
        Claims::Tdx(claims) => Ok(TdxClaims::clone(claims)),
        other => panic!("{other:?}"),
    }
}

fn endorsed(root: &TdxRoot) -> Endorsements {
    Endorsements { tdx: vec![root.clone()], ..Endorsements::default() }
}

/// Every second at which something that the root holds begins or ends, the one before and the one after, and some between.
fn moments(root: &TdxRoot) -> Vec<u64> {
    let ends = root.dated().into_iter().flat_map(|dated| [dated.from, dated.until]);
    let mut moments: Vec<u64> = ends
        .flat_map(|end| [end.saturating_sub(1), end, end + 1, end.saturating_sub(5 * DAY), end + 5 * DAY])
        .collect();
    moments.extend([0, NOW, u64::MAX / 2, u64::MAX]);
    moments.sort_unstable();
    moments.dedup();
    moments
}

/// Asks one root at all of these times, forwards and backwards, and a fresh one each time.
fn never_differs(name: &str, quotes: &[&[u8]], fresh: impl Fn() -> TdxRoot) -> usize {
    let warm = fresh();
    let moments = moments(&warm);
    let (mut good, mut bad) = (0, 0);
    for at in moments.iter().chain(moments.iter().rev()) {
        for quote in quotes {
            let expected = claims(quote, &endorsed(&fresh()), *at);
            if expected.is_ok() {
                good += 1
            } else {
                bad += 1
            }
            assert_eq!(claims(quote, &endorsed(&warm), *at), expected, "{name} at {at}");
        }
    }
    assert!(good > 0 && bad > 0, "{name}: {good} authentic, {bad} not");
    good + bad
}

#[test]
fn at_every_time_a_warm_root_says_what_a_fresh_one_says() {
    let chips = [
        Chip::default(),
        Chip { pck_until: (2026, 6, 10), ca_until: (2026, 6, 8), ..Chip::default() },
        Chip { root_until: (2026, 6, 7), signer_until: (2026, 6, 9), ..Chip::default() },
        Chip { lists_until: [(2026, 6, 5), (2026, 6, 12)], ..Chip::default() },
        Chip { qe_current: ["2026-05-25T00:00:00Z", "2026-06-04T00:00:00Z"], ..Chip::default() },
    ];
    for (number, chip) in chips.iter().enumerate() {
        let intel = Intel::new(chip);
        let quote = intel.quote(&Td::default());
        never_differs(&format!("chip {number}"), &[&quote], || {
            TdxRoot::new(&intel.root, &[TdxPart::Collateral(&intel.collateral)]).unwrap()
        });
    }
}

#[test]
fn sets_of_collateral_take_turns_at_their_dates() {
    let first = Chip { current: ["2026-05-01T00:00:00Z", "2026-06-03T00:00:00Z"], ..Chip::default() };
    let second = Chip {
        current: ["2026-05-30T00:00:00Z", "2026-06-19T00:00:00Z"],
        status: "OutOfDate",
        evaluation: 21,
        ..Chip::default()
    };
    let intel = Intel::new(&first);
    let (quote, other) = (intel.quote(&Td::default()), intel.quote(&Td { mrtd: [9; 48], ..Td::default() }));
    let later = intel.collateral(&second);
    never_differs("two sets", &[&quote, &other], || {
        let parts = [TdxPart::Collateral(&intel.collateral), TdxPart::Collateral(&later)];
        TdxRoot::new(&intel.root, &parts).unwrap()
    });
}

#[test]
fn a_warm_root_refuses_what_a_fresh_one_refuses() {
    let intel = Intel::new(&Chip::default());
    let (quote, by) = (intel.quote(&Td::default()), intel.endorsements());
    let good = claims(&quote, &by, NOW).unwrap();
    for position in (0..quote.len()).step_by(3) {
        let mut spoilt = quote.clone();
        spoilt[position] ^= 0x10;
        let fresh = claims(&spoilt, &intel.endorsements(), NOW);
        assert!(fresh.is_err(), "byte {position}");
        assert_eq!(claims(&spoilt, &by, NOW), fresh, "byte {position}");
        assert_eq!(claims(&quote, &by, NOW).as_ref(), Ok(&good));
    }
}

#[test]
fn a_root_knows_nothing_of_what_another_has_verified() {
    let revoked = Intel::new(&Chip { revoked: Revoked::Pck, ..Chip::default() });
    let quote = revoked.quote(&Td::default());
    let (other, by) = (Intel::new(&Chip::default()), revoked.endorsements());
    assert!(claims(&other.quote(&Td::default()), &other.endorsements(), NOW).is_ok());
    assert!(claims(&quote, &other.endorsements(), NOW).is_err());
    assert!(claims(&quote, &by, NOW).is_err());
}

#[test]
fn what_another_set_under_the_same_root_revokes_is_revoked_for_a_warm_one() {
    let intel = Intel::new(&Chip::default());
    let quote = intel.quote(&Td::default());
    let good = TdxRoot::new(&intel.root, &[TdxPart::Collateral(&intel.collateral)]).unwrap();
    let list = intel.list_with_the_chip();
    let revoking = TdxRoot::new(&intel.root, &[TdxPart::List(&list)]).unwrap();
    let under = |roots: &[&TdxRoot]| {
        let tdx = roots.iter().copied().cloned().collect();
        claims(&quote, &Endorsements { tdx, ..Endorsements::default() }, NOW)
    };
    let alone = under(&[&good]).unwrap();
    for _ in 0..2 {
        for both in [[&good, &revoking], [&revoking, &good]] {
            assert_eq!(under(&both).unwrap_err().code, RefusalCode::EndorsementRevoked);
        }
        assert_eq!(under(&[&good]).as_ref(), Ok(&alone));
    }
}

#[test]
fn real_collateral_is_no_different() {
    let Some(vectors) = vectors_or_say(2, "times of real TDX collateral") else { return };
    for name in ["cf77a6e91e48", "4b23198ac885"] {
        let vector = tdx::named(&vectors, name);
        let intel = tdx::intel_root(&vector.collateral);
        let fresh = || TdxRoot::new(&intel, &[TdxPart::Collateral(&vector.collateral)]).unwrap();
        assert!(never_differs(name, &[&vector.quote], fresh) > 100);
    }
}
