//! The PCK chain in a quote, in the one form that Intel's quote library writes it in: each certificate in lines of 64
//! characters, line feeds only, nothing before, between or after, and at the end one zero byte or none (RFC 7468 §3,
//! "strict"; all quotes that were looked at are so). Nobody signs this text, so that another way to write the same chain
//! would be a second quote with the same meaning.

use thiserror::Error;

/// Certificates of a chain: PCK, its issuer, the root.
const LENGTH: usize = 3;
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----\n";
const END: &[u8] = b"-----END CERTIFICATE-----\n";
const LINE: usize = 64;

/// Why text is not a PCK chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PemError {
    #[error("the certification data of the quote is no PEM text")]
    NoText,
    #[error("the PCK chain of the quote is not exactly PCK certificate, issuer and root")]
    Count,
    #[error("the PCK chain of the quote is not written as Intel's quote library writes it")]
    Form,
}

/// The certificates in DER, leaf first.
pub(super) fn chain(text: &[u8]) -> Result<[Vec<u8>; LENGTH], PemError> {
    if !text.starts_with(BEGIN.trim_ascii_end()) {
        return Err(PemError::NoText);
    }
    let mut rest = text.strip_suffix(b"\0").unwrap_or(text);
    let mut chain = Vec::with_capacity(LENGTH);
    while !rest.is_empty() {
        if chain.len() == LENGTH {
            return Err(if rest.starts_with(BEGIN) { PemError::Count } else { PemError::Form });
        }
        let (der, after) = certificate(rest)?;
        chain.push(der);
        rest = after;
    }
    chain.try_into().map_err(|_| PemError::Count)
}

/// One certificate, and what follows it.
fn certificate(text: &[u8]) -> Result<(Vec<u8>, &[u8]), PemError> {
    let mut rest = text.strip_prefix(BEGIN).ok_or(PemError::Form)?;
    let mut digits = Vec::with_capacity(rest.len());
    loop {
        if let Some(after) = rest.strip_prefix(END) {
            return Ok((base64(&digits).ok_or(PemError::Form)?, after));
        }
        // Every line but the last is full: a short one followed by another is another way to write the same.
        if !digits.len().is_multiple_of(LINE) {
            return Err(PemError::Form);
        }
        let end = rest.iter().take(LINE.saturating_add(1)).position(|byte| *byte == b'\n').ok_or(PemError::Form)?;
        let (line, after) = rest.split_at_checked(end).ok_or(PemError::Form)?;
        if line.is_empty() {
            return Err(PemError::Form);
        }
        digits.extend_from_slice(line);
        rest = after.strip_prefix(b"\n").ok_or(PemError::Form)?;
    }
}

/// Base 64 with its padding, in its one form: bits that no byte takes must be zero (RFC 4648 §3.5).
fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let (groups, []) = digits.as_chunks::<4>() else { return None };
    let (last, full) = groups.split_last()?;
    let mut out = Vec::with_capacity(digits.len());
    for group in full {
        out.extend_from_slice(&three(group)?);
    }
    match last {
        [a, b, b'=', b'='] => match three(&[*a, *b, b'A', b'A'])? {
            [first, 0, 0] => out.push(first),
            _ => return None,
        },
        [a, b, c, b'='] => match three(&[*a, *b, *c, b'A'])? {
            [first, second, 0] => out.extend([first, second]),
            _ => return None,
        },
        group => out.extend_from_slice(&three(group)?),
    }
    Some(out)
}

fn three(group: &[u8; 4]) -> Option<[u8; 3]> {
    let mut bits = 0u32;
    for digit in group {
        let value = match digit {
            b'A'..=b'Z' => digit.checked_sub(b'A')?,
            b'a'..=b'z' => digit.checked_sub(b'a')?.checked_add(26)?,
            b'0'..=b'9' => digit.checked_sub(b'0')?.checked_add(52)?,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
    }
    let [_, out @ ..] = bits.to_be_bytes();
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x509_parser::pem::Pem;

    use super::*;

    fn encoded(der: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits: String = der
            .chunks(3)
            .flat_map(|bytes| {
                let bits =
                    bytes.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
                let digit = move |at: usize| {
                    let value = DIGITS[(bits >> (18 - 6 * at)) as usize & 63] as char;
                    if at <= bytes.len() { value } else { '=' }
                };
                (0..4).map(digit).collect::<Vec<_>>()
            })
            .collect();
        let lines: Vec<&str> = digits.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    proptest! {
        #[test]
        fn every_chain_is_read_as_another_reader_reads_it(
            ders in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 3),
            nul: bool,
        ) {
            let text: String = ders.iter().map(|der| encoded(der)).collect();
            let others: Vec<Vec<u8>> =
                Pem::iter_from_buffer(text.as_bytes()).map(|block| block.unwrap().contents).collect();
            prop_assert_eq!(&others, &ders);
            let text = if nul { text + "\0" } else { text };
            prop_assert_eq!(chain(text.as_bytes()).unwrap().to_vec(), ders);
        }

        #[test]
        fn any_other_text_of_the_same_chain_is_refused(position in 0usize..500, byte: u8, insert: bool) {
            let ders = [vec![1; 100], vec![2; 48], vec![3; 50]];
            let mut text = ders.iter().map(|der| encoded(der)).collect::<String>().into_bytes();
            let position = position % text.len();
            let good = text.clone();
            if insert { text.insert(position, byte) } else { text[position] = byte }
            if text != good && let Ok(read) = chain(&text) {
                prop_assert_ne!(read, ders);
            }
            let _ = chain(good.get(position..).unwrap());
        }
    }

    #[test]
    fn each_second_form_is_refused_by_name() {
        let good: String = [[1; 100], [2; 100], [3; 100]].iter().map(|der| encoded(der)).collect();
        assert!(chain(good.as_bytes()).is_ok());
        let ends = "-----END CERTIFICATE-----\n";
        for (other, error) in [
            (String::new(), PemError::NoText),
            ("\n".to_owned() + &good, PemError::NoText),
            (good.replace('\n', "\r\n"), PemError::Form),
            (good.replacen(ends, "-----END CERTIFICATE-----\n\n", 1), PemError::Form),
            (good.replacen(ends, "-----END CERTIFICATE-----\ntext\n", 1), PemError::Form),
            (good.trim_end().to_owned(), PemError::Form),
            (good.clone() + "\n", PemError::Form),
            (good.clone() + "\0\0", PemError::Form),
            (good.replacen("AQEB", "AQ\nEB", 1), PemError::Form),
            (good.replacen("AQEB", "AQ EB", 1), PemError::Form),
            (good.replacen("AQ==", "AR==", 1), PemError::Form),
            (good.replacen("AQ==", "AQ", 1), PemError::Form),
            (good.replacen("CERTIFICATE", "certificate", 2), PemError::NoText),
            (good.clone() + &encoded(&[4; 9]), PemError::Count),
            (encoded(&[1; 9]), PemError::Count),
        ] {
            assert_eq!(chain(other.as_bytes()), Err(error), "{other}");
        }
    }
}
