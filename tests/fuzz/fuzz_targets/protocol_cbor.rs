//! The decoder below every message: one value, one encoding; and the reader of arrays, whatever it is asked for.
#![no_main]

use inwit_protocol::cbor::{Items, decode, encode};
use libfuzzer_sys::fuzz_target;

fn first() -> [Vec<u8>; 2] {
    let array = b"\x87\x65label\x18\x20\xf5\xf6\x43abc\x82\x01\x02\x39\x01\x00".to_vec();
    let deep = [vec![0x81; 8], vec![0]].concat();
    [array, deep]
}

fn read(mut items: Items, depth: usize) {
    while items.left() > 0 {
        // The number of elements left stands in for a choice of type.
        let _ = match (items.left() + depth) % 6 {
            0 => items.text(20).map(drop),
            1 => items.bytes(20).map(drop),
            2 => items.unsigned().map(drop),
            3 => items.boolean().map(drop),
            4 => items.optional_bytes(20).map(drop),
            _ => items.items().map(|inner| read(inner, depth + 1)),
        };
    }
    assert!(items.end().is_ok());
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(value) = decode(input, "input") {
        assert_eq!(encode(&value), input);
        if let Ok(items) = Items::of(value, "input") {
            read(items, 0);
        }
    }
});
