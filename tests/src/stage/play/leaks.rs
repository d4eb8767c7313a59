//! The search for confidential things in what the host saw: the forms in which a text may hide, itself tried on planted leaks.

/// The forms in which a leaked text may hide.
pub(super) fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![("raw", secret.to_vec()), ("hex", hex.into_bytes())];
    // In base64 a text looks different at each of three alignments; its whole groups of three bytes do not.
    forms.extend((0..3).map(|skip| ("base64", base64(secret.get(skip..).unwrap_or_default()))));
    forms
}

/// Standard base64 of the whole three-byte groups.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        [18, 12, 6, 0].map(|shift| ALPHABET.get(bits >> shift & 63).copied().unwrap_or_default())
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The search that clears the host is itself tried on planted leaks.
    #[test]
    fn a_planted_leak_is_found_in_every_form() {
        let secret = b"a secret of thirty bytes long.";
        let planted = [
            secret.to_vec(),
            secret.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect(),
            b"YSBzZWNyZXQgb2YgdGhpcnR5IGJ5dGVzIGxvbmcu".to_vec(),
        ];
        for leak in planted {
            let seen = [b"noise".as_slice(), &leak, b"noise"].concat();
            assert!(forms(secret).iter().any(|(_, form)| seen.windows(form.len()).any(|window| window == form)));
        }
        assert!(!forms(secret).iter().any(|(_, form)| {
            b"nothing here at all, only noise, and more noise".windows(form.len()).any(|window| window == form)
        }));
    }
}
