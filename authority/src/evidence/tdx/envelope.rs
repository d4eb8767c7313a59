//! The outer form of a TDX quote, version 4 and 5 (TDX DCAP quote format; integers little-endian). Every byte has its place,
//! but for zero padding, which configfs really returns. Names the parts and believes none of them.

use thiserror::Error;

use crate::evidence::fields::{FieldError, Fields};

const QUOTE: &str = "the TDX quote";
const SIGNATURE_DATA: &str = "the signature data of the TDX quote";
const CERTIFICATION: &str = "the certification data of the TDX quote";
const ECDSA_P256: u16 = 2;
const TEE_TDX: u32 = 0x81;
/// Intel's quoting enclave vendor.
const VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
const BODY_1_0: (u16, u32) = (2, 584);
const BODY_1_5: (u16, u32) = (3, 648);
const BODY_1_5_EXTENDED: (u16, u32) = (4, 885);
/// Certification data: the QE's report, and within it the PCK chain in PEM.
const QE_REPORT_CERTIFICATION: u16 = 6;
const PCK_CHAIN: u16 = 5;

/// Why bytes are not a TDX quote that can be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum EnvelopeError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("quote version {0} is not a TDX quote's (4 and 5 are)")]
    Version(u16),
    #[error("the quote is not from a TD (TEE type {0:#x})")]
    Tee(u32),
    #[error("attestation key type {0} is not ECDSA P-256")]
    KeyType(u16),
    #[error("the quoting enclave is not Intel's")]
    Vendor,
    #[error("TD body type {0} of {1} bytes is not known here (2 of 584, 3 of 648 and 4 of 885 are)")]
    Body(u16, u32),
    #[error("certification data of type {0} does not hold the PCK certificate chain: have the host provide type 5")]
    Certification(u16),
    #[error("a length in the TDX quote is out of range")]
    Length,
}

/// The parts of a quote.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) version: u16,
    /// Header and body, with the body's description in version 5: what the attestation key signed.
    pub(crate) signed: &'a [u8],
    /// TD report body of 584 or 648 bytes.
    pub(crate) body: &'a [u8],
    /// r ‖ s over `signed`.
    pub(crate) signature: &'a [u8; 64],
    /// x ‖ y.
    pub(crate) attestation_key: &'a [u8; 64],
    /// REPORT body of the quoting enclave, and r ‖ s over it.
    pub(crate) enclave_report: &'a [u8; 384],
    pub(crate) enclave_signature: &'a [u8; 64],
    /// What the quoting enclave's report data covers beside the attestation key.
    pub(crate) authentication_data: &'a [u8],
    /// PCK certificate, its issuer and the root, PEM as the quote carries it.
    pub(crate) pck_chain: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut fields = Fields::of(bytes, QUOTE);
        let version = fields.u16_le()?;
        if !matches!(version, 4 | 5) {
            return Err(EnvelopeError::Version(version));
        }
        match fields.u16_le()? {
            ECDSA_P256 => {}
            other => return Err(EnvelopeError::KeyType(other)),
        }
        match fields.u32_le()? {
            TEE_TDX => {}
            other => return Err(EnvelopeError::Tee(other)),
        }
        fields.block(4)?; // SVNs of QE and PCE in older texts, reserved in newer ones; signed either way
        if fields.array()? != VENDOR {
            return Err(EnvelopeError::Vendor);
        }
        fields.block(20)?; // user data of the quoting enclave
        let (kind, size) = if version == 5 { (fields.u16_le()?, fields.u32_le()?) } else { BODY_1_0 };
        if ![BODY_1_0, BODY_1_5, BODY_1_5_EXTENDED].contains(&(kind, size)) {
            return Err(EnvelopeError::Body(kind, size));
        }
        let body = fields.block(length(size)?)?;
        let after = fields.remainder().len();
        let signed = bytes.len().checked_sub(after).and_then(|length| bytes.get(..length));
        let signature_length = length(fields.u32_le()?)?;
        let mut data = Fields::of(fields.block(signature_length)?, SIGNATURE_DATA);
        let padding = fields.remainder().len();
        fields.zeros(padding)?;
        let (signature, attestation_key) = (exactly(data.block(64)?)?, exactly(data.block(64)?)?);
        let certification = certified(&mut data, QE_REPORT_CERTIFICATION)?;
        data.end()?;
        let mut certification = Fields::of(certification, CERTIFICATION);
        let (enclave_report, enclave_signature) =
            (exactly(certification.block(384)?)?, exactly(certification.block(64)?)?);
        let count = usize::from(certification.u16_le()?);
        let authentication_data = certification.block(count)?;
        let pck_chain = certified(&mut certification, PCK_CHAIN)?;
        certification.end()?;
        Ok(Self {
            version,
            signed: signed.ok_or(EnvelopeError::Length)?,
            body,
            signature,
            attestation_key,
            enclave_report,
            enclave_signature,
            authentication_data,
            pck_chain,
        })
    }
}

/// Certification data, which must be of this type.
fn certified<'a>(fields: &mut Fields<'a>, expected: u16) -> Result<&'a [u8], EnvelopeError> {
    match fields.u16_le()? {
        kind if kind == expected => {}
        other => return Err(EnvelopeError::Certification(other)),
    }
    let size = length(fields.u32_le()?)?;
    Ok(fields.block(size)?)
}

fn exactly<const N: usize>(block: &[u8]) -> Result<&[u8; N], EnvelopeError> {
    block.try_into().map_err(|_| EnvelopeError::Length)
}

fn length(value: u32) -> Result<usize, EnvelopeError> {
    usize::try_from(value).map_err(|_| EnvelopeError::Length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certification(chain: &[u8]) -> Vec<u8> {
        let length = u32::try_from(chain.len()).unwrap();
        [&[0; 448][..], &3u16.to_le_bytes(), b"abc", &5u16.to_le_bytes(), &length.to_le_bytes(), chain].concat()
    }

    fn quote(version: u16, body: &[u8], certification: &[u8]) -> Vec<u8> {
        let inner = u32::try_from(certification.len()).unwrap();
        let signature = [&[0; 128][..], &6u16.to_le_bytes(), &inner.to_le_bytes(), certification].concat();
        let outer = u32::try_from(signature.len()).unwrap();
        let header = [&version.to_le_bytes()[..], &2u16.to_le_bytes(), &0x81u32.to_le_bytes(), &[0; 4], &VENDOR];
        [&header.concat()[..], &[0; 20], body, &outer.to_le_bytes(), &signature].concat()
    }

    fn body_5(kind: u16, size: u32) -> Vec<u8> {
        let bytes = vec![0; usize::try_from(size).unwrap()];
        [&kind.to_le_bytes()[..], &size.to_le_bytes(), &bytes].concat()
    }

    #[test]
    fn both_versions_are_read_and_zero_padding_is_cut() {
        let inner = certification(b"chain");
        for bytes in [quote(4, &[0; 584], &inner), quote(5, &body_5(2, 584), &inner), quote(5, &body_5(3, 648), &inner)]
        {
            assert_eq!(Envelope::parse(&bytes).unwrap().pck_chain, b"chain");
            let padded = [&bytes[..], &[0; 99]].concat();
            let (padded, bare) = (Envelope::parse(&padded).unwrap(), Envelope::parse(&bytes).unwrap());
            assert_eq!((padded.signed, padded.body), (bare.signed, bare.body));
            assert!(bare.signed.ends_with(bare.body) && bytes.starts_with(bare.signed));
            let spoilt = [&bytes[..], &[0; 99], &[1]].concat();
            let error = Envelope::parse(&spoilt).err();
            assert_eq!(error, Some(EnvelopeError::Field(FieldError::Reserved(QUOTE))));
            assert!(Envelope::parse(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn bytes_hidden_inside_of_a_counted_part_are_found() {
        let hidden = [certification(b"chain"), vec![0]].concat();
        let error = Envelope::parse(&quote(4, &[0; 584], &hidden)).err();
        assert_eq!(error, Some(EnvelopeError::Field(FieldError::Trailing(CERTIFICATION))));
    }

    #[test]
    fn other_formats_are_named() {
        let inner = certification(b"chain");
        let good = quote(4, &[0; 584], &inner);
        for (offset, value, error) in [
            (0, 3, EnvelopeError::Version(3)),
            (2, 3, EnvelopeError::KeyType(3)),
            (4, 0, EnvelopeError::Tee(0)),
            (12, 0, EnvelopeError::Vendor),
            (764, 7, EnvelopeError::Certification(7)),
        ] {
            let mut bytes = good.clone();
            bytes[offset] = value;
            assert_eq!(Envelope::parse(&bytes).err(), Some(error), "byte {offset}");
        }
        let error = Envelope::parse(&quote(5, &body_5(4, 884), &inner)).err();
        assert_eq!(error, Some(EnvelopeError::Body(4, 884)));
    }

    proptest! {
        #[test]
        fn damaged_quotes_never_panic(position in 0usize..1_500, value: u8, cut in 0usize..1_500) {
            let mut bytes = quote(5, &body_5(3, 648), &certification(b"chain"));
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
            let _ = Envelope::parse(&bytes);
            let _ = Envelope::parse(bytes.get(..cut).unwrap_or_default());
        }
    }
}
