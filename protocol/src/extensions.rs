//! What webpki does not judge of a leaf certificate: that its subject alternative names are all readable and hold exactly one
//! URI (WC-1, SV-1), and that its key usage lets it sign and nothing more (SV-4). A bounded walk over DER that looks at
//! nothing else; a certificate that it cannot walk is refused.

/// DER tags that are met on the way (X.690 §8; RFC 5280 §4.1, §4.2.1.3, §4.2.1.6).
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
const BOOLEAN: u8 = 0x01;
const OBJECT_IDENTIFIER: u8 = 0x06;
const EXTENSIONS: u8 = 0xa3;
const URI_NAME: u8 = 0x86;
/// Content of 2.5.29.17 and 2.5.29.15.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// Most elements of one level that are walked over.
const MAX_ELEMENTS: usize = 64;
/// Bits of KeyUsage, most significant first: digitalSignature, and keyCertSign with cRLSign.
const DIGITAL_SIGNATURE: u8 = 0x80;
const CERTIFICATE_SIGNING: u8 = 0x06;

/// One tag-length-value and what follows it. Lengths are definite and of at most three bytes.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |value, &byte| value << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Every element of a constructed value; `None` if they do not fill it.
fn elements(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let (tag, content, rest) = element(bytes)?;
        list.push((tag, content));
        bytes = rest;
        if list.len() > MAX_ELEMENTS {
            return None;
        }
    }
    Some(list)
}

/// The content of a value that is one element of this tag and nothing more.
fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    match element(bytes)? {
        (found, content, []) if found == tag => Some(content),
        _ => None,
    }
}

/// The value of an extension of a certificate, if it has it once.
fn extension<'a>(certificate: &'a [u8], identifier: &[u8]) -> Option<&'a [u8]> {
    let (_, to_be_signed) = elements(only(certificate, SEQUENCE)?)?.into_iter().next()?;
    let (_, wrapped) = elements(to_be_signed)?.into_iter().find(|(tag, _)| *tag == EXTENSIONS)?;
    let mut found = None;
    for (_, extension) in elements(only(wrapped, SEQUENCE)?)? {
        let parts = elements(extension)?;
        let value = match parts.as_slice() {
            [(OBJECT_IDENTIFIER, name), (OCTET_STRING, value)] if *name == identifier => value,
            [(OBJECT_IDENTIFIER, name), (BOOLEAN, _), (OCTET_STRING, value)] if *name == identifier => value,
            _ => continue,
        };
        if found.replace(*value).is_some() {
            return None;
        }
    }
    found
}

/// The one URI among the subject alternative names. `None` if there is none, more than one, or anything unreadable.
pub(crate) fn only_uri(certificate: &[u8]) -> Option<&str> {
    let names = elements(only(extension(certificate, SUBJECT_ALT_NAME)?, SEQUENCE)?)?;
    let mut uris = names.iter().filter(|(tag, _)| *tag == URI_NAME);
    match (uris.next(), uris.next()) {
        (Some((_, uri)), None) if uri.is_ascii() => std::str::from_utf8(uri).ok(),
        _ => None,
    }
}

/// Whether key usage is present, lets the key sign data, and does not let it sign certificates or revocation lists.
pub(crate) fn signs_data_only(certificate: &[u8]) -> bool {
    let usage = extension(certificate, KEY_USAGE).and_then(|value| only(value, BIT_STRING));
    // The first byte counts unused bits.
    matches!(usage, Some([_, bits, ..]) if bits & DIGITAL_SIGNATURE != 0 && bits & CERTIFICATE_SIGNING == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = only_uri(&bytes);
            let _ = signs_data_only(&bytes);
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in
            [&[0x30, 0x02, 0x00][..], &[0x30, 0x80, 0, 0], &[0x30, 0x84, 0, 0, 0, 0], &[0x30, 0x83, 0xff, 0xff, 0xff]]
        {
            assert!(element(bytes).is_none(), "{bytes:02x?}");
        }
    }
}
