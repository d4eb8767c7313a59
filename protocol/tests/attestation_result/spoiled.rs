//! Claims sets that are not what a Verifier writes: other encodings of the same claims, and claims that are missing, twice,
//! elsewhere, unknown, or of another type or value. Each must be refused, whoever signed it.

use super::{result, say};
use ciborium::Value;
use inwit_protocol::cbor::{self, ParseError};
use inwit_protocol::result::AttestationResult;
use inwit_protocol::signed::Statement;

type Claims = Vec<(Value, Value)>;

/// A fault at one item of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The head takes so many bytes more than it has to.
    Wide(usize),
    /// Length or count left open, and ended by a break.
    Indefinite,
}

/// Encodes with `fault` at the item number `countdown`, counted from the outside in; `false` if it does not apply there.
fn encode_faulty(value: &Value, fault: Fault, countdown: &mut i64, out: &mut Vec<u8>) -> bool {
    let here = *countdown == 0;
    *countdown -= 1;
    let (major, argument) = match value {
        Value::Integer(number) => match i128::from(*number) {
            number if number < 0 => (1, u64::try_from(-1 - number).unwrap()),
            number => (0, u64::try_from(number).unwrap()),
        },
        Value::Bytes(bytes) => (2, bytes.len() as u64),
        Value::Text(text) => (3, text.len() as u64),
        Value::Array(items) => (4, items.len() as u64),
        Value::Map(entries) => (5, entries.len() as u64),
        other => panic!("{other:?}"),
    };
    let shortest = [24, 1 << 8, 1 << 16, 1 << 32].iter().filter(|limit| argument >= **limit).count();
    let mut applied = !here;
    let mut width = shortest;
    let mut open = false;
    match fault {
        Fault::Wide(by) if here && shortest + by <= 4 => (width, applied) = (shortest + by, true),
        Fault::Indefinite if here && major >= 2 => (open, applied) = (true, true),
        _ => {}
    }
    let bytes = argument.to_be_bytes();
    match (open, width) {
        (true, _) => out.push((major << 5) | 31),
        (false, 0) => out.push((major << 5) | bytes[7]),
        (false, width) => {
            out.push((major << 5) | (23 + u8::try_from(width).unwrap()));
            out.extend(&bytes[8 - (1 << (width - 1))..]);
        }
    }
    let mut inner = |value: &Value, out: &mut Vec<u8>| encode_faulty(value, fault, countdown, out);
    match value {
        Value::Bytes(content) if open => {
            applied &= encode_faulty(&Value::Bytes(content.clone()), Fault::None, &mut -1, out)
        }
        Value::Text(content) if open => {
            applied &= encode_faulty(&Value::Text(content.clone()), Fault::None, &mut -1, out)
        }
        Value::Bytes(content) => out.extend(content),
        Value::Text(content) => out.extend(content.as_bytes()),
        Value::Array(items) => items.iter().for_each(|item| applied &= inner(item, out)),
        Value::Map(entries) => entries.iter().for_each(|(key, value)| applied &= inner(key, out) & inner(value, out)),
        _ => {}
    }
    if open {
        out.push(0xff);
    }
    applied
}

#[test]
fn no_second_encoding_of_the_same_claims_is_read() {
    let payload = result().encode();
    let claims: Value = ciborium::from_reader(&payload[..]).unwrap();
    let mut plain = Vec::new();
    assert!(encode_faulty(&claims, Fault::None, &mut -1, &mut plain));
    assert_eq!(plain, payload, "the spoiling encoder writes what the product writes");
    let mut refused = 0;
    for number in 0..200 {
        for fault in [Fault::Wide(1), Fault::Wide(2), Fault::Wide(3), Fault::Wide(4), Fault::Indefinite] {
            let (mut countdown, mut bytes) = (number, Vec::new());
            let applied = encode_faulty(&claims, fault, &mut countdown, &mut bytes);
            if countdown >= 0 || !applied {
                continue;
            }
            assert!(AttestationResult::parse(&bytes).is_err(), "{fault:?} at item {number}");
            refused += 1;
        }
    }
    assert!(refused > 200, "{refused} faults were tried");
    for length in 0..payload.len() {
        assert!(AttestationResult::parse(&payload[..length]).is_err(), "cut to {length}");
    }
    for byte in [0x00, 0xf6, 0xff, 0xa0] {
        assert!(AttestationResult::parse(&[&payload[..], &[byte]].concat()).is_err(), "followed by {byte:02x}");
    }
    say(&format!("second encodings refused: {refused}"));
}

/// Every map and array inside of a value, by its path of positions.
fn containers(value: &Value, path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    let inner: Vec<&Value> = match value {
        Value::Map(entries) => entries.iter().map(|(_, value)| value).collect(),
        Value::Array(items) => items.iter().collect(),
        _ => return,
    };
    found.push(path.clone());
    for (position, value) in inner.into_iter().enumerate() {
        path.push(position);
        containers(value, path, found);
        path.pop();
    }
}

fn inside<'v>(mut value: &'v mut Value, path: &[usize]) -> &'v mut Value {
    for position in path {
        value = match value {
            Value::Map(entries) => &mut entries[*position].1,
            Value::Array(items) => &mut items[*position],
            other => panic!("{other:?}"),
        };
    }
    value
}

/// Values of every other type, and of other lengths.
fn others(value: &Value) -> Vec<Value> {
    let all = vec![
        Value::Null,
        Value::Bool(true),
        Value::from(7),
        Value::from(-7),
        Value::from(u64::MAX),
        Value::Text("x".repeat(3_000)),
        Value::Text("~".into()),
        Value::Bytes(vec![7; 31]),
        Value::Bytes(vec![7; 2_000]),
        Value::Array(vec![]),
        Value::Map(vec![]),
        Value::Tag(0, Box::new(value.clone())),
        Value::Float(0.0),
    ];
    // Another number, and another text where any text will do, are another statement and not a spoiled one.
    let same_kind = |other: &Value| match (value, other) {
        (Value::Integer(_), Value::Integer(other)) => {
            i128::from(*other) == 7 || i128::from(*other) == i128::from(u64::MAX)
        }
        (Value::Text(_), Value::Text(other)) => other.len() == 1,
        _ => false,
    };
    all.into_iter().filter(|other| !same_kind(other)).collect()
}

#[test]
fn a_claim_that_is_missing_doubled_moved_unknown_or_of_another_type_is_refused() {
    let payload = result().encode();
    let claims: Value = ciborium::from_reader(&payload[..]).unwrap();
    let encapsulation = Value::from(-77_002);
    let mut paths = Vec::new();
    containers(&claims, &mut Vec::new(), &mut paths);
    assert_eq!(paths.len(), 8, "claims, submods, appraisal, cnf, COSE_Key, vector, policy ids, verifier");
    let refuse = |spoiled: &Value, what: String| {
        assert!(AttestationResult::parse(&cbor::encode(spoiled)).is_err(), "{what}");
    };
    let mut count = 0;
    for path in &paths {
        let mut length = 0;
        if let Value::Map(entries) = inside(&mut claims.clone(), path) {
            length = entries.len();
            for (number, (key, value)) in entries.iter().enumerate() {
                let mut spoil = |what: &str, by: &dyn Fn(&mut Claims)| {
                    let mut spoiled = claims.clone();
                    by(inside(&mut spoiled, path).as_map_mut().unwrap());
                    refuse(&spoiled, format!("{what} {key:?} in {path:?}"));
                    count += 1;
                };
                if *key != encapsulation {
                    spoil("missing", &|entries| drop(entries.remove(number)));
                }
                spoil("doubled", &|entries| entries.insert(number, (key.clone(), value.clone())));
                if entries.len() > 1 {
                    spoil("moved", &|entries| entries.rotate_left(1));
                }
                for unknown in [
                    Value::from(5),
                    Value::from(11),
                    Value::from(70_000),
                    Value::from(-80_000),
                    Value::Text("x".into()),
                ] {
                    spoil("unknown beside", &|entries| entries.insert(number, (unknown.clone(), value.clone())));
                    spoil("unknown after", &|entries| entries.push((unknown.clone(), value.clone())));
                }
                for other in others(value) {
                    spoil("other value of", &|entries| entries[number].1 = other.clone());
                }
            }
        }
        if let Value::Array(items) = inside(&mut claims.clone(), path) {
            length = items.len();
            for number in 0..items.len() {
                for spoil in 0..3 {
                    let mut spoiled = claims.clone();
                    let items = inside(&mut spoiled, path).as_array_mut().unwrap();
                    match spoil {
                        0 => drop(items.remove(number)),
                        1 => items.insert(number, items[number].clone()),
                        _ => items.rotate_left(1),
                    }
                    refuse(&spoiled, format!("policy id {number}"));
                    count += 1;
                }
            }
        }
        assert!(length > 0);
    }
    say(&format!("spoiled claims sets refused: {count}"));
}

#[test]
fn values_that_a_claim_does_not_have_are_refused() {
    let good: Value = ciborium::from_reader(&result().encode()[..]).unwrap();
    let spoil = |path: &[Value], value: Value| {
        let mut claims = good.clone();
        let mut at = &mut claims;
        for key in path {
            let entries = at.as_map_mut().unwrap();
            at = &mut entries.iter_mut().find(|(found, _)| found == key).unwrap().1;
        }
        *at = value;
        AttestationResult::parse(&cbor::encode(&claims))
    };
    let appraisal = [Value::from(266), Value::Text("snp".into())];
    let within =
        |path: &[i64]| [&appraisal[..], &path.iter().map(|key| Value::from(*key)).collect::<Vec<_>>()].concat();
    // A status that is not the vector's, better or worse.
    for status in [0, 1, -1, 3, 32, 96] {
        assert!(spoil(&within(&[1_000]), Value::from(status)).is_err(), "status {status}");
    }
    // Values of other claims, of other tiers, and what every claim may have and no result of ours says.
    for (number, value) in [(0, 3), (2, 99), (4, -1), (4, 33), (5, 3), (5, 1), (7, -97), (4, 128)] {
        assert!(spoil(&within(&[1_001, number]), Value::from(value)).is_err(), "{value} under {number}");
    }
    assert!(spoil(&within(&[1_001, 0]), Value::from(2)).is_ok(), "a value that the claim has");
    let id = |text: String| {
        Value::Array(vec![
            Value::Text(text),
            Value::Text(format!("inwit:workload:sha256:{}", "04".repeat(32))),
            Value::Text("inwit:reference-values:r".into()),
        ])
    };
    assert!(spoil(&within(&[1_003]), id(format!("inwit:policy:sha256:{}", "a5".repeat(32)))).is_ok());
    for digest in ["A5".repeat(32), "a5".repeat(31), format!("{}a", "a5".repeat(32)), "+5".repeat(32)] {
        assert!(spoil(&within(&[1_003]), id(format!("inwit:policy:sha256:{digest}"))).is_err(), "{digest}");
    }
    assert!(spoil(&within(&[8, 1, 1]), Value::from(1)).is_err(), "an OKP key");
    assert!(spoil(&within(&[8, 1, -1]), Value::from(2)).is_err(), "P-384");
    for profile in ["tag:ietf.org,2026:rats/ear#02", "tag:github.com,2023:veraison/ear"] {
        let refused = spoil(&[Value::from(265)], Value::Text(profile.into()));
        assert_eq!(refused, Err(ParseError::Label("attestation result")), "{profile}");
    }
    assert!(spoil(&[Value::from(2)], Value::Text("https://demo.example/payments".into())).is_err());
    let mut renamed = good.clone();
    for (key, value) in renamed.as_map_mut().unwrap() {
        if *key == Value::from(266) {
            value.as_map_mut().unwrap()[0].0 = Value::Text("sgx".into());
        }
    }
    assert!(AttestationResult::parse(&cbor::encode(&renamed)).is_err(), "a platform that there is not");
}
