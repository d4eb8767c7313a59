//! A TPM 2.0 client of seven commands over the kernel's resource manager (`/dev/tpmrm0`) or a TPM's unix socket. It takes
//! the place of a C stack of megabytes. Big-endian throughout (TPM 2.0 Library, part 3). The TPM's answers are parsed
//! as hostile: a vTPM is made by whoever runs it.

pub mod response;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest response, in bytes.
const RESPONSE_LIMIT: usize = 4_096;
/// Tries of one command that the TPM asks to resubmit.
const TRIES: u32 = 50;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for a TPM on a socket.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);

const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const RH_OWNER: u32 = 0x4000_0001;
const RH_ENDORSEMENT: u32 = 0x4000_000b;
const RS_PW: u32 = 0x4000_0009;
const CC_CREATE_PRIMARY: u32 = 0x0131;
const CC_NV_READ: u32 = 0x014e;
const CC_QUOTE: u32 = 0x0158;
const CC_FLUSH_CONTEXT: u32 = 0x0165;
const CC_NV_READ_PUBLIC: u32 = 0x0169;
const CC_PCR_READ: u32 = 0x017e;
const CC_PCR_EXTEND: u32 = 0x0182;
/// TPM_RC_HANDLE for the first handle: there is no such object.
const RC_NO_SUCH_HANDLE: u32 = 0x018b;
/// Most bytes asked for in one NV_Read: less than the buffer (TPM_PT_NV_BUFFER_MAX) of any TPM known, 768 and up.
const NV_CHUNK: u16 = 512;
const ALG_SHA256: u16 = 0x000b;
const ALG_NULL: u16 = 0x0010;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ECC_NIST_P256: u16 = 0x0003;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign: a key that signs only what the TPM made.
const ATTESTATION_KEY_ATTRIBUTES: u32 = 0x0005_0072;

/// What went wrong with a TPM.
#[derive(Debug)]
pub enum TpmError {
    /// The device failed.
    Io(io::Error),
    /// The TPM refused, with its response code.
    Response(u32),
    /// It kept asking to resubmit.
    Busy,
    /// Its answer does not parse.
    Malformed,
    /// Its quote was made over other data than it was asked for.
    Echo,
}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Response(code) => write!(f, "response code {code:#x}"),
            Self::Busy => f.write_str("it stays busy"),
            Self::Malformed => f.write_str("its answer does not parse"),
            Self::Echo => f.write_str("the quote does not hold the data that was asked for"),
        }
    }
}

impl From<io::Error> for TpmError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

enum Transport {
    Device(File),
    Socket(UnixStream),
}

/// An open TPM.
pub struct Tpm(Transport);

/// A key that was loaded, and must be flushed.
pub struct LoadedKey {
    /// Its handle, for as long as it is loaded.
    pub handle: u32,
    /// TPMT_PUBLIC as the TPM gave it.
    pub public: Vec<u8>,
}

/// A TPM2B of a short byte string.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

/// TPML_PCR_SELECTION of one bank, SHA-256.
fn selection(bitmap: [u8; 3]) -> Vec<u8> {
    [&1u32.to_be_bytes()[..], &ALG_SHA256.to_be_bytes(), &[3], &bitmap].concat()
}

impl Tpm {
    /// Opens a device file, or connects to a socket that speaks raw TPM commands.
    pub fn open(path: &Path) -> Result<Self, TpmError> {
        if std::fs::metadata(path)?.file_type().is_socket() {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(SOCKET_TIMEOUT))?;
            return Ok(Self(Transport::Socket(stream)));
        }
        Ok(Self(Transport::Device(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    /// The value of a PCR of the SHA-256 bank.
    pub fn pcr_read(&mut self, number: u8) -> Result<[u8; 32], TpmError> {
        let mut bitmap = [0; 3];
        let byte = bitmap.get_mut(usize::from(number >> 3)).ok_or(TpmError::Malformed)?;
        *byte = 1 << (number & 7);
        let selection = selection(bitmap);
        response::pcr(&self.exchange(CC_PCR_READ, &[], None, &selection)?, &selection)
    }

    /// The values of PCRs 0 to 23 of the SHA-256 bank, in order.
    pub fn pcrs(&mut self) -> Result<[[u8; 32]; 24], TpmError> {
        let mut pcrs = [[0; 32]; 24];
        for (number, pcr) in (0u8..).zip(&mut pcrs) {
            *pcr = self.pcr_read(number)?;
        }
        Ok(pcrs)
    }

    /// Extends a PCR of the SHA-256 bank.
    pub fn pcr_extend(&mut self, number: u8, digest: &[u8; 32]) -> Result<(), TpmError> {
        let digests = [&1u32.to_be_bytes()[..], &ALG_SHA256.to_be_bytes(), digest].concat();
        let body = self.exchange(CC_PCR_EXTEND, &u32::from(number).to_be_bytes(), Some(()), &digests)?;
        response::parameters(&body).map(|_| ())
    }

    /// The attestation key: an ECDSA P-256 primary of the endorsement hierarchy. The same TPM gives the same key each
    /// time, since a primary is derived from the hierarchy's seed and this template.
    pub fn create_attestation_key(&mut self) -> Result<LoadedKey, TpmError> {
        let template = [
            &ALG_ECC.to_be_bytes()[..],
            &ALG_SHA256.to_be_bytes(),
            &ATTESTATION_KEY_ATTRIBUTES.to_be_bytes(),
            &sized(&[]),             // no policy
            &ALG_NULL.to_be_bytes(), // no symmetric cipher: not a parent
            &ALG_ECDSA.to_be_bytes(),
            &ALG_SHA256.to_be_bytes(),
            &ECC_NIST_P256.to_be_bytes(),
            &ALG_NULL.to_be_bytes(), // no key derivation
            &sized(&[]),
            &sized(&[]),
        ]
        .concat();
        let parameters = [
            sized(&[sized(&[]), sized(&[])].concat()), // sensitive: no authorisation value, no data
            sized(&template),
            sized(&[]),
            0u32.to_be_bytes().to_vec(), // no creation PCRs
        ]
        .concat();
        let body = self.exchange(CC_CREATE_PRIMARY, &RH_ENDORSEMENT.to_be_bytes(), Some(()), &parameters)?;
        response::created(&body).map(|(handle, public)| LoadedKey { handle, public: public.to_vec() })
    }

    /// (TPMS_ATTEST, TPMT_SIGNATURE) over PCRs 0 to 23 of the SHA-256 bank, with 32 bytes of qualifying data, by the key
    /// at `handle` in its own scheme.
    pub fn quote(&mut self, handle: u32, qualifying: &[u8; 32]) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let parameters = [sized(qualifying), ALG_NULL.to_be_bytes().to_vec(), selection([0xff; 3])].concat();
        let body = self.exchange(CC_QUOTE, &handle.to_be_bytes(), Some(()), &parameters)?;
        let (attest, signature) = response::quoted(response::parameters(&body)?)?;
        if response::qualifying_data(attest)? != qualifying {
            return Err(TpmError::Echo);
        }
        Ok((attest.to_vec(), signature.to_vec()))
    }

    /// Unloads a key.
    pub fn flush(&mut self, key: &LoadedKey) -> Result<(), TpmError> {
        self.exchange(CC_FLUSH_CONTEXT, &[], None, &key.handle.to_be_bytes()).map(|_| ())
    }

    /// The size in bytes of an NV index; `None` when there is no such index.
    pub fn nv_size(&mut self, index: u32) -> Result<Option<u16>, TpmError> {
        match self.exchange(CC_NV_READ_PUBLIC, &index.to_be_bytes(), None, &[]) {
            Ok(body) => response::nv_size(&body, index).map(Some),
            Err(TpmError::Response(RC_NO_SUCH_HANDLE)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first `size` bytes of an NV index, read as its owner, whose password is empty.
    pub fn nv_read(&mut self, index: u32, size: u16) -> Result<Vec<u8>, TpmError> {
        let handles = [RH_OWNER.to_be_bytes(), index.to_be_bytes()].concat();
        let mut data = Vec::with_capacity(size.into());
        for offset in (0..size).step_by(NV_CHUNK.into()) {
            let asked = NV_CHUNK.min(size.saturating_sub(offset));
            let parameters = [asked.to_be_bytes(), offset.to_be_bytes()].concat();
            let body = self.exchange(CC_NV_READ, &handles, Some(()), &parameters)?;
            data.extend_from_slice(response::nv_data(response::parameters(&body)?, asked)?);
        }
        Ok(data)
    }

    /// One command with at most one empty-password session; resubmits as long as the TPM says so; gives what follows the header.
    fn exchange(
        &mut self,
        code: u32,
        handles: &[u8],
        authorised: Option<()>,
        parameters: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let session = match authorised {
            // handle, empty nonce, no attributes, empty password: nine bytes
            Some(()) => [&9u32.to_be_bytes()[..], &RS_PW.to_be_bytes(), &[0; 5]].concat(),
            None => Vec::new(),
        };
        let tag = if authorised.is_some() { ST_SESSIONS } else { ST_NO_SESSIONS };
        let body = [handles, &session, parameters].concat();
        let size = u32::try_from(body.len().saturating_add(10)).map_err(|_| TpmError::Malformed)?;
        let command = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), &body].concat();
        for _ in 0..TRIES {
            if let Some(body) = response::body(&self.transmit(&command)?)? {
                return Ok(body.to_vec());
            }
            std::thread::sleep(PAUSE);
        }
        Err(TpmError::Busy)
    }

    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, TpmError> {
        let mut response = vec![0; RESPONSE_LIMIT];
        let length = match &mut self.0 {
            Transport::Device(device) => {
                device.write_all(command)?;
                device.read(&mut response)? // the driver gives one whole response per read
            }
            Transport::Socket(socket) => {
                socket.write_all(command)?;
                let (header, rest) = response.split_first_chunk_mut::<10>().ok_or(TpmError::Malformed)?;
                socket.read_exact(header)?;
                let promised = response::promised(header)?;
                let body =
                    promised.checked_sub(10).and_then(|length| rest.get_mut(..length)).ok_or(TpmError::Malformed)?;
                socket.read_exact(body)?;
                promised
            }
        };
        response.truncate(length);
        Ok(response)
    }
}
