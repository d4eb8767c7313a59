//! A small DER writer for the certificates and lists of the simulated hardware.
//!
//! It exists because AMD's RSASSA-PSS certificates carry an algorithm identifier that no certificate builder on ring
//! writes, and for Intel's extension of the PCK certificate. It trusts its caller (our own code) for well-formed content; it never reads DER and never meets foreign
//! bytes.

use time::OffsetDateTime;

use super::HardwareError;

pub(super) const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const IA5_STRING: u8 = 0x16;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Tag of the constructed, context-specific element `[number]` (explicit tagging). `number` below 31.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One element: tag, definite length in the shortest form, content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = Vec::with_capacity(content.len() + 2 + significant.len());
    out.push(tag);
    match significant.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        // At most eight length bytes on any machine, so the count fits the low bits.
        long => {
            out.push(0x80 | (long.len() as u8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// SEQUENCE of already encoded elements.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// SET holding one already encoded element, which needs no ordering.
pub(super) fn set_of_one(part: &[u8]) -> Vec<u8> {
    element(SET, part)
}

/// OBJECT IDENTIFIER from its arcs. The first two arcs share one byte (X.690 section 8.19.4).
pub(super) fn object(arcs: &[u64]) -> Vec<u8> {
    let mut content = Vec::new();
    if let [first, second, rest @ ..] = arcs {
        push_base128(&mut content, first * 40 + second);
        rest.iter().for_each(|arc| push_base128(&mut content, *arc));
    }
    element(OBJECT_IDENTIFIER, &content)
}

fn push_base128(out: &mut Vec<u8>, arc: u64) {
    let groups = (1..10).filter(|group| arc >> (7 * group) != 0).max().unwrap_or(0);
    for group in (0..=groups).rev() {
        let more = if group == 0 { 0 } else { 0x80 };
        out.push(((arc >> (7 * group)) & 0x7f) as u8 | more);
    }
}

/// INTEGER of a non-negative number, with the leading zero that keeps it positive.
pub(super) fn integer(value: u64) -> Vec<u8> {
    let mut content: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    if content.first().is_none_or(|byte| *byte >= 0x80) {
        content.insert(0, 0);
    }
    element(INTEGER, &content)
}

/// BIT STRING of whole bytes.
pub(super) fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// UTCTime up to the year 2049, GeneralizedTime after it (RFC 5280 section 4.1.2.5).
pub(super) fn time(unix_seconds: u64) -> Result<Vec<u8>, HardwareError> {
    let date = calendar(unix_seconds)?;
    let tail = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(date.month()),
        date.day(),
        date.hour(),
        date.minute(),
        date.second()
    );
    Ok(if date.year() < 2050 {
        element(UTC_TIME, format!("{:02}{tail}", date.year() % 100).as_bytes())
    } else {
        element(GENERALIZED_TIME, format!("{:04}{tail}", date.year()).as_bytes())
    })
}

/// The calendar date of `unix_seconds`, refused beyond the year 9999 that certificates can express.
pub(super) fn calendar(unix_seconds: u64) -> Result<OffsetDateTime, HardwareError> {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(HardwareError::Time(unix_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        assert_eq!(element(4, &[7; 127])[..3], [4, 127, 7]);
        assert_eq!(element(4, &[7; 128])[..4], [4, 0x81, 128, 7]);
        assert_eq!(element(4, &[7; 300])[..5], [4, 0x82, 1, 44, 7]);
        assert_eq!(element(5, &[]), [5, 0]);
    }

    #[test]
    fn integers_stay_positive() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(0x7f), [2, 1, 0x7f]);
        assert_eq!(integer(0xdb), [2, 2, 0, 0xdb]);
        assert_eq!(integer(65_537), [2, 3, 1, 0, 1]);
    }

    #[test]
    fn object_identifiers_match_known_encodings() {
        assert_eq!(object(&[1, 2, 840, 113_549, 1, 1, 10]), [6, 9, 42, 134, 72, 134, 247, 13, 1, 1, 10]);
        // AMD's arc as it stands in its certificates.
        assert_eq!(object(&[1, 3, 6, 1, 4, 1, 3704, 1, 4]), [6, 9, 0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1, 4]);
    }

    #[test]
    fn dates_change_form_in_2050() {
        assert_eq!(time(1_680_549_823).unwrap(), [&[0x17, 13][..], b"230403192343Z"].concat());
        assert_eq!(time(2_524_608_000).unwrap(), [&[0x18, 15][..], b"20500101000000Z"].concat());
        assert!(matches!(time(u64::MAX), Err(HardwareError::Time(_))));
    }
}
