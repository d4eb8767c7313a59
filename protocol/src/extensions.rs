//! What webpki does not judge of a leaf certificate: that its subject alternative names are all readable and hold exactly one
//! URI (WC-1, SV-1), and that its key usage is critical, lets it sign data, and lets it sign no certificates or lists (SV-4). A bounded walk over DER that looks at
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
const MAX_ELEMENTS: usize = 256;
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

/// An extension: whether it is critical, and its value.
struct Extension<'a> {
    critical: bool,
    value: &'a [u8],
}

/// An extension of a certificate, if it has it once.
fn extension<'a>(certificate: &'a [u8], identifier: &[u8]) -> Option<Extension<'a>> {
    let (_, to_be_signed) = elements(only(certificate, SEQUENCE)?)?.into_iter().next()?;
    let (_, wrapped) = elements(to_be_signed)?.into_iter().find(|(tag, _)| *tag == EXTENSIONS)?;
    let mut found = None;
    for (_, extension) in elements(only(wrapped, SEQUENCE)?)? {
        let parts = elements(extension)?;
        let extension = match parts.as_slice() {
            [(OBJECT_IDENTIFIER, name), (OCTET_STRING, value)] if *name == identifier => {
                Extension { critical: false, value }
            }
            // DER: true is all ones, and false is not written.
            [(OBJECT_IDENTIFIER, name), (BOOLEAN, [0xff]), (OCTET_STRING, value)] if *name == identifier => {
                Extension { critical: true, value }
            }
            _ => continue,
        };
        if found.replace(extension).is_some() {
            return None;
        }
    }
    found
}

/// The one URI among the subject alternative names. `None` if there is none, more than one, or anything unreadable.
pub(crate) fn only_uri(certificate: &[u8]) -> Option<&str> {
    let names = elements(only(extension(certificate, SUBJECT_ALT_NAME)?.value, SEQUENCE)?)?;
    let mut uris = names.iter().filter(|(tag, _)| *tag == URI_NAME);
    match (uris.next(), uris.next()) {
        (Some((_, uri)), None) if uri.is_ascii() => std::str::from_utf8(uri).ok(),
        _ => None,
    }
}

/// Whether key usage is present and critical, lets the key sign data, and does not let it sign certificates or lists.
pub(crate) fn signs_data_and_no_certificates(certificate: &[u8]) -> bool {
    let usage = extension(certificate, KEY_USAGE).filter(|usage| usage.critical);
    let usage = usage.and_then(|usage| only(usage.value, BIT_STRING));
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
            let _ = signs_data_and_no_certificates(&bytes);
        }
    }

    /// A DER element of any length below 65,536.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head = match length {
            0..=127 => vec![tag, length as u8],
            128..=255 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [head, content.to_vec()].concat()
    }

    /// A certificate of nothing but these extensions: (identifier, critical, value).
    fn certificate(extensions: &[(&[u8], bool, Vec<u8>)]) -> Vec<u8> {
        let list = extensions.iter().map(|(name, critical, value)| {
            let critical = if *critical { der(BOOLEAN, &[0xff]) } else { vec![] };
            der(SEQUENCE, &[der(OBJECT_IDENTIFIER, name), critical, der(OCTET_STRING, value)].concat())
        });
        let list = list.collect::<Vec<_>>().concat();
        der(SEQUENCE, &der(SEQUENCE, &der(EXTENSIONS, &der(SEQUENCE, &list))))
    }

    #[test]
    fn one_uri_is_found_whatever_its_length_and_company() {
        for length in [3, 120, 300, 1_900] {
            let uri = "u".repeat(length);
            let names = [der(0x82, b"dns.example"), der(URI_NAME, uri.as_bytes()), der(0x87, &[127, 0, 0, 1])].concat();
            let one = certificate(&[(SUBJECT_ALT_NAME, true, der(SEQUENCE, &names))]);
            assert_eq!(only_uri(&one), Some(uri.as_str()));
        }
        let two = [der(URI_NAME, b"a"), der(URI_NAME, b"b")].concat();
        assert_eq!(only_uri(&certificate(&[(SUBJECT_ALT_NAME, false, der(SEQUENCE, &two))])), None);
        let once = || (SUBJECT_ALT_NAME, false, der(SEQUENCE, &der(URI_NAME, b"a")));
        assert_eq!(only_uri(&certificate(&[once(), once()])), None, "the extension stands twice");
        assert_eq!(only_uri(&certificate(&[])), None);
    }

    #[test]
    fn key_usage_must_be_critical_and_fit() {
        let usage = |critical, bits| certificate(&[(KEY_USAGE, critical, der(BIT_STRING, &[0, bits]))]);
        assert!(signs_data_and_no_certificates(&usage(true, DIGITAL_SIGNATURE)));
        assert!(
            signs_data_and_no_certificates(&usage(true, DIGITAL_SIGNATURE | 0x08)),
            "key agreement may stand beside it"
        );
        for certificate in
            [usage(false, DIGITAL_SIGNATURE), usage(true, 0x20), usage(true, 0x84), usage(true, 0x82), certificate(&[])]
        {
            assert!(!signs_data_and_no_certificates(&certificate));
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
