//! The little of DER that simulated certificates are written with. Writes what it is told and reads nothing.

use time::OffsetDateTime;

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let bytes = length.to_be_bytes();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(bytes[7]),
        0x80..=0xff => out.extend([0x81, bytes[7]]),
        _ => out.extend([0x82, bytes[6], bytes[7]]),
    }
    [out, content.to_vec()].concat()
}

pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub fn oid(arcs: &[u32]) -> Vec<u8> {
    let [first, second, rest @ ..] = arcs else { panic!("an object identifier has two arcs at least") };
    let mut content = vec![u8::try_from(first * 40 + second).unwrap()];
    for arc in rest {
        let mut digits = vec![(arc & 0x7f) as u8];
        let mut left = arc >> 7;
        while left > 0 {
            digits.push(0x80 | (left & 0x7f) as u8);
            left >>= 7;
        }
        content.extend(digits.iter().rev());
    }
    tlv(6, &content)
}

/// INTEGER from 0 to 255.
pub fn int(value: u8) -> Vec<u8> {
    if value < 0x80 { tlv(2, &[value]) } else { tlv(2, &[0, value]) }
}

pub fn utc(at: u64) -> Vec<u8> {
    let time = OffsetDateTime::from_unix_timestamp(at.try_into().unwrap()).unwrap();
    let (date, clock) = (time.date(), time.time());
    let year = date.year() - 2000;
    let month = u8::from(date.month());
    let text =
        format!("{year:02}{month:02}{:02}{:02}{:02}{:02}Z", date.day(), clock.hour(), clock.minute(), clock.second());
    tlv(0x17, text.as_bytes())
}

pub fn name(common: &str) -> Vec<u8> {
    let attribute = seq(&[&oid(&[2, 5, 4, 3]), &tlv(0x0c, common.as_bytes())]);
    seq(&[&tlv(0x31, &attribute)])
}

pub fn extension(arcs: &[u32], critical: &[u8], value: &[u8]) -> Vec<u8> {
    seq(&[&oid(arcs), critical, &tlv(4, value)])
}

pub const CRITICAL: &[u8] = &[1, 1, 0xff];

pub fn bits(content: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], content].concat())
}

/// A DER block as PEM.
pub fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for three in der.chunks(3) {
        let number = three.iter().chain(&[0, 0]).take(3).fold(0usize, |number, byte| number << 8 | usize::from(*byte));
        let digit = |place: usize| char::from(DIGITS[number >> (18 - 6 * place) & 63]);
        (0..4).for_each(|place| text.push(if place <= three.len() { digit(place) } else { '=' }));
        if text.len() % 65 > 60 {
            text.push('\n');
        }
    }
    format!("{text}\n-----END {label}-----\n").into_bytes()
}
