//! What a TPM answers, taken apart (TPM 2.0 Library, part 2 for the structures, part 3 for the commands). Pure; every byte
//! is accounted for. The bytes are hostile: whoever runs the VM runs its TPM.

use super::TpmError;

/// Success.
const RC_SUCCESS: u32 = 0;
/// RC_YIELDED, RC_TESTING, RC_RETRY: the same command is to be sent again.
const RC_AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];
/// TPM_GENERATED_VALUE: what a restricted key signs begins with it only if the TPM made it.
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;
const ALG_SHA256: u16 = 0x000b;
const ALG_RSASSA: u16 = 0x0014;
/// The acknowledgement of an empty-password session: empty nonce, continueSession, empty HMAC (part 1, 19.4).
const PASSWORD_SESSION: [u8; 5] = [0, 0, 1, 0, 0];

/// A reader over a structure. Big-endian.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], TpmError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(TpmError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16, TpmError> {
        self.take(2)?.try_into().map(u16::from_be_bytes).map_err(|_| TpmError::Malformed)
    }

    fn u32(&mut self) -> Result<u32, TpmError> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| TpmError::Malformed)
    }

    /// A TPM2B: u16 length, then that many bytes.
    fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn end(&self) -> Result<(), TpmError> {
        if self.0.is_empty() { Ok(()) } else { Err(TpmError::Malformed) }
    }
}

/// The length that a response's first ten bytes promise, themselves included.
pub fn promised(header: &[u8; 10]) -> Result<usize, TpmError> {
    let mut reader = Reader(header);
    reader.u16()?;
    usize::try_from(reader.u32()?).map_err(|_| TpmError::Malformed)
}

/// What follows the header of a whole response; `None` when the TPM asks to send the command again.
pub fn body(response: &[u8]) -> Result<Option<&[u8]>, TpmError> {
    let (header, body) = response.split_first_chunk::<10>().ok_or(TpmError::Malformed)?;
    let mut code = Reader(header);
    code.take(6)?;
    match code.u32()? {
        RC_SUCCESS if promised(header)? == response.len() => Ok(Some(body)),
        RC_SUCCESS => Err(TpmError::Malformed),
        again if RC_AGAIN.contains(&again) => Ok(None),
        refused => Err(TpmError::Response(refused)),
    }
}

/// The parameters in the body of a command with one empty-password session.
pub fn parameters(body: &[u8]) -> Result<&[u8], TpmError> {
    let mut reader = Reader(body);
    let length = usize::try_from(reader.u32()?).map_err(|_| TpmError::Malformed)?;
    let parameters = reader.take(length)?;
    if reader.0 == PASSWORD_SESSION { Ok(parameters) } else { Err(TpmError::Malformed) }
}

/// Handle and TPMT_PUBLIC in the body of CreatePrimary. What the TPM says of the key's making is passed over.
pub fn created(body: &[u8]) -> Result<(u32, &[u8]), TpmError> {
    let (handle, rest) = body.split_first_chunk::<4>().ok_or(TpmError::Malformed)?;
    let public = Reader(parameters(rest)?).sized()?;
    Ok((u32::from_be_bytes(*handle), public))
}

/// The one value in a PCR_Read body, for the TPML_PCR_SELECTION that was asked for.
pub fn pcr(body: &[u8], selection: &[u8]) -> Result<[u8; 32], TpmError> {
    let mut reader = Reader(body);
    reader.take(4)?; // update counter
    if reader.take(selection.len())? != selection || reader.u32()? != 1 {
        return Err(TpmError::Malformed);
    }
    let value = reader.sized()?.try_into().map_err(|_| TpmError::Malformed)?;
    reader.end()?;
    Ok(value)
}

/// TPMS_ATTEST and TPMT_SIGNATURE in the parameters of Quote.
pub fn quoted(parameters: &[u8]) -> Result<(&[u8], &[u8]), TpmError> {
    let mut reader = Reader(parameters);
    let attest = reader.sized()?;
    Ok((attest, reader.0))
}

/// extraData of a TPMS_ATTEST that is a quote: the qualifying data that it was made over.
pub fn qualifying_data(attest: &[u8]) -> Result<&[u8], TpmError> {
    let mut reader = Reader(attest);
    if reader.u32()? != GENERATED || reader.u16()? != ST_ATTEST_QUOTE {
        return Err(TpmError::Malformed);
    }
    reader.sized()?; // qualified name of the signer
    reader.sized()
}

/// The bare number of a TPMT_SIGNATURE that is RSASSA with SHA-256.
pub fn rsassa(signature: &[u8]) -> Result<&[u8], TpmError> {
    let mut reader = Reader(signature);
    if reader.u16()? != ALG_RSASSA || reader.u16()? != ALG_SHA256 {
        return Err(TpmError::Malformed);
    }
    let number = reader.sized()?;
    reader.end()?;
    Ok(number)
}

/// The data size in a NV_ReadPublic body, which must speak of `index`.
pub fn nv_size(body: &[u8], index: u32) -> Result<u16, TpmError> {
    let mut reader = Reader(body);
    let mut public = Reader(reader.sized()?);
    reader.sized()?; // the index's Name
    reader.end()?;
    if public.u32()? != index {
        return Err(TpmError::Malformed);
    }
    public.take(6)?; // name algorithm, attributes
    public.sized()?; // policy
    let size = public.u16()?;
    public.end()?;
    Ok(size)
}

/// The data in the parameters of NV_Read: as much as was asked for.
pub fn nv_data(parameters: &[u8], asked: u16) -> Result<&[u8], TpmError> {
    let mut reader = Reader(parameters);
    let data = reader.sized()?;
    reader.end()?;
    if data.len() == usize::from(asked) { Ok(data) } else { Err(TpmError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len().checked_add(10).unwrap()).unwrap();
        [&[0x80, 1][..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_response_is_as_long_as_it_says() {
        let good = response(0, b"body");
        assert_eq!(body(&good).unwrap(), Some(&b"body"[..]));
        for end in 0..good.len() {
            assert!(matches!(body(&good[..end]), Err(TpmError::Malformed)), "cut at {end}");
        }
        assert!(matches!(body(&[good, vec![0]].concat()), Err(TpmError::Malformed)));
        assert_eq!(body(&response(0x922, b"")).unwrap(), None);
        assert!(matches!(body(&response(0x18b, b"")), Err(TpmError::Response(0x18b))));
    }

    #[test]
    fn a_session_and_what_follows_it_are_counted() {
        let good = [&[0, 0, 0, 2, 7, 8][..], &PASSWORD_SESSION].concat();
        assert_eq!(parameters(&good).unwrap(), [7, 8]);
        for end in 0..good.len() {
            assert!(parameters(&good[..end]).is_err(), "cut at {end}");
        }
        assert!(parameters(&[good, vec![0]].concat()).is_err());
    }

    /// An answer that is cut or that goes on is not the structure any more.
    #[track_caller]
    fn exactly(good: &[u8], error: impl Fn(&[u8]) -> Option<TpmError>) {
        assert!(error(good).is_none());
        for end in 0..good.len() {
            assert!(matches!(error(&good[..end]), Some(TpmError::Malformed)), "cut at {end}");
        }
        assert!(error(&[good, &[0]].concat()).is_some(), "a byte more");
    }

    #[test]
    fn structures_are_read_to_their_last_byte() {
        let selection = [0, 0, 0, 1, 0, 0x0b, 3, 0, 0x80, 0];
        let value = [&[0; 4][..], &selection, &[0, 0, 0, 1, 0, 32], &[9; 32]].concat();
        exactly(&value, |bytes| pcr(bytes, &selection).err());
        assert!(pcr(&value, &[0; 10]).is_err(), "another PCR");
        let signature = [&[0, 0x14, 0, 0x0b, 1, 0][..], &[5; 256]].concat();
        exactly(&signature, |bytes| rsassa(bytes).err());
        assert_eq!(rsassa(&signature).unwrap(), [5; 256]);
        assert!(rsassa(&[&[0, 0x18][..], &signature[2..]].concat()).is_err(), "another algorithm");
        let public = [&0x0140_0001u32.to_be_bytes()[..], &[0, 0x0b, 0, 0, 0, 0, 0, 2, 1, 1, 7, 0xa9]].concat();
        let index = [&[0, u8::try_from(public.len()).unwrap()][..], &public, &[0, 3, 0, 0x0b, 6]].concat();
        exactly(&index, |bytes| nv_size(bytes, 0x0140_0001).err());
        assert_eq!(nv_size(&index, 0x0140_0001).unwrap(), 0x7a9);
        assert!(nv_size(&index, 0x0140_0002).is_err(), "another index");
        exactly(&[0, 2, 4, 4], |bytes| nv_data(bytes, 2).err());
        assert!(nv_data(&[0, 2, 4, 4], 3).is_err(), "less than was asked for");
    }

    #[test]
    fn a_quote_names_what_it_was_made_over() {
        let attest = [&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 1, 7, 0, 3][..], b"abc", &[0; 40]].concat();
        assert_eq!(qualifying_data(&attest).unwrap(), b"abc");
        for (offset, value) in [(0, 0), (5, 0x17), (10, 200)] {
            let mut other = attest.clone();
            other[offset] = value;
            assert!(qualifying_data(&other).is_err(), "byte {offset}");
        }
        let answer = [&[0, 54][..], &attest, b"signature"].concat();
        assert_eq!(quoted(&answer).unwrap(), (&attest[..], &b"signature"[..]));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), asked: u16, index: u32) {
            let _ = body(&bytes);
            let _ = parameters(&bytes);
            let _ = created(&bytes);
            let _ = pcr(&bytes, &[0; 10]);
            let _ = quoted(&bytes);
            let _ = qualifying_data(&bytes);
            let _ = rsassa(&bytes);
            let _ = nv_size(&bytes, index);
            let _ = nv_data(&bytes, asked);
        }
    }
}
