//! What a paravisor does to a TPM before its guest starts: makes the attestation key in it and an NV index that only the
//! platform can write (TPM 2.0 Library, part 3; big-endian). It holds the platform hierarchy, whose password is empty until
//! the guest's firmware sets another one. Never part of a product binary.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::HardwareError;
use crate::world::swtpm::Swtpm;

const CC_EVICT_CONTROL: u32 = 0x0120;
const CC_NV_UNDEFINE_SPACE: u32 = 0x0122;
const CC_NV_DEFINE_SPACE: u32 = 0x012a;
const CC_CREATE_PRIMARY: u32 = 0x0131;
const CC_NV_WRITE: u32 = 0x0137;
const CC_SHUTDOWN: u32 = 0x0145;
/// Hierarchies, which are handles as well.
pub const OWNER: u32 = 0x4000_0001;
const ENDORSEMENT: u32 = 0x4000_000b;
/// The hierarchy of whoever makes the machine.
pub const PLATFORM: u32 = 0x4000_000c;
const PASSWORD: u32 = 0x4000_0009;
const RETRY: u32 = 0x922;
/// Bytes written at once: less than the TPM's buffer.
const CHUNK: usize = 512;
/// TPMT_PUBLIC of Azure's attestation key: RSA-2048, RSASSA with SHA-256, fixedTPM, fixedParent, sensitiveDataOrigin,
/// userWithAuth, restricted, sign; neither policy nor symmetric cipher, the default exponent, nothing unique.
const ATTESTATION_KEY: [u8; 24] =
    [0, 1, 0, 0x0b, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x14, 0, 0x0b, 8, 0, 0, 0, 0, 0, 0, 0];
/// ppwrite, ppread, ownerread, authread, no_da, platformcreate (part 2, 13.4).
const NV_ATTRIBUTES: u32 = 1 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 25 | 1 << 30;

/// A connection to a TPM with the rights of its maker.
#[derive(Debug)]
pub struct Maker(UnixStream);

impl Maker {
    /// Connects to a TPM that is served to processes.
    pub fn connect(tpm: &Swtpm) -> Result<Self, HardwareError> {
        let stream = tpm.connect().map_err(|error| HardwareError::Tpm("to connect", error.to_string()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(|source| io_error(tpm.socket(), source))?;
        Ok(Self(stream))
    }

    /// Makes the attestation key and keeps it under a persistent handle; gives its modulus.
    pub fn make_attestation_key(&mut self, persistent: u32) -> Result<Vec<u8>, HardwareError> {
        let sensitive = [0, 4, 0, 0, 0, 0];
        let parameters = [&sensitive[..], &[0, 24], &ATTESTATION_KEY, &[0, 0], &[0; 4]].concat();
        let made = self.must("to make a key", CC_CREATE_PRIMARY, &[ENDORSEMENT], &parameters)?;
        let (handle, rest) = made.split_first_chunk::<4>().ok_or_else(|| malformed("a key"))?;
        // Length of the parameters, TPM2B_PUBLIC; the modulus is its end.
        let length = rest.get(4..6).and_then(|length| length.try_into().ok()).map(u16::from_be_bytes);
        let public = length.and_then(|length| rest.get(6..6 + usize::from(length)));
        let modulus = public.and_then(|public| public.last_chunk::<256>()).ok_or_else(|| malformed("a key"))?;
        let handle = u32::from_be_bytes(*handle);
        self.must("to keep a key", CC_EVICT_CONTROL, &[OWNER, handle], &persistent.to_be_bytes())?;
        Ok(modulus.to_vec())
    }

    /// Defines an NV index that the platform alone can write, and fills it.
    pub fn define_for_the_platform(&mut self, index: u32, content: &[u8]) -> Result<(), HardwareError> {
        let size = u16::try_from(content.len()).map_err(|_| malformed("a size"))?;
        let public = [&index.to_be_bytes()[..], &[0, 0x0b], &NV_ATTRIBUTES.to_be_bytes(), &[0, 0], &size.to_be_bytes()];
        let parameters = [&[0, 0, 0, 14][..], &public.concat()].concat();
        self.must("to define an NV index", CC_NV_DEFINE_SPACE, &[PLATFORM], &parameters)?;
        for (number, chunk) in content.chunks(CHUNK).enumerate() {
            let offset = u16::try_from(number * CHUNK).map_err(|_| malformed("an offset"))?;
            if let Err(code) = self.write(PLATFORM, index, offset, chunk)? {
                return Err(HardwareError::Tpm("to write an NV index", format!("{code:#x}")));
            }
        }
        Ok(())
    }

    /// Writes a part of an NV index with the rights of a hierarchy; the TPM's response code where it refuses.
    pub fn write(&mut self, by: u32, index: u32, offset: u16, chunk: &[u8]) -> Result<Result<(), u32>, HardwareError> {
        let length = u16::try_from(chunk.len()).map_err(|_| malformed("a chunk"))?;
        let parameters = [&length.to_be_bytes()[..], chunk, &offset.to_be_bytes()].concat();
        Ok(self.command(CC_NV_WRITE, &[by, index], &parameters)?.map(|_| ()))
    }

    /// Removes an NV index with the rights of a hierarchy; the TPM's response code where it refuses.
    pub fn undefine(&mut self, by: u32, index: u32) -> Result<Result<(), u32>, HardwareError> {
        Ok(self.command(CC_NV_UNDEFINE_SPACE, &[by, index], &[])?.map(|_| ()))
    }

    /// Says that power goes away: what is not said counts as an attack on the TPM's passwords.
    pub fn shut_down(mut self) -> Result<(), HardwareError> {
        self.must("to shut down", CC_SHUTDOWN, &[], &[0, 0]).map(|_| ())
    }

    fn must(
        &mut self,
        what: &'static str,
        code: u32,
        handles: &[u32],
        parameters: &[u8],
    ) -> Result<Vec<u8>, HardwareError> {
        self.command(code, handles, parameters)?.map_err(|code| HardwareError::Tpm(what, format!("{code:#x}")))
    }

    /// One command with an empty password for its first handle; what follows the response's header, or its code.
    fn command(
        &mut self,
        code: u32,
        handles: &[u32],
        parameters: &[u8],
    ) -> Result<Result<Vec<u8>, u32>, HardwareError> {
        let (tag, session) = match handles {
            [] => (0x8001u16, Vec::new()),
            _ => (0x8002, [&9u32.to_be_bytes()[..], &PASSWORD.to_be_bytes(), &[0; 5]].concat()),
        };
        let handles: Vec<u8> = handles.iter().flat_map(|handle| handle.to_be_bytes()).collect();
        let body = [&code.to_be_bytes()[..], &handles, &session, parameters].concat();
        let size = u32::try_from(body.len() + 6).map_err(|_| malformed("a command"))?;
        let command = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &body].concat();
        for _ in 0..100 {
            match self.exchange(&command).map_err(|source| io_error(Path::new("the TPM's socket"), source))? {
                (0, body) => return Ok(Ok(body)),
                (RETRY, _) => std::thread::sleep(Duration::from_millis(10)),
                (refused, _) => return Ok(Err(refused)),
            }
        }
        Ok(Err(RETRY))
    }

    fn exchange(&mut self, command: &[u8]) -> std::io::Result<(u32, Vec<u8>)> {
        self.0.write_all(command)?;
        let (mut tag_and_size, mut code) = ([0; 6], [0; 4]);
        self.0.read_exact(&mut tag_and_size)?;
        self.0.read_exact(&mut code)?;
        let [_, _, size @ ..] = tag_and_size;
        let mut body = vec![0; (u32::from_be_bytes(size) as usize).saturating_sub(10).min(4_096)];
        self.0.read_exact(&mut body)?;
        Ok((u32::from_be_bytes(code), body))
    }
}

fn malformed(what: &'static str) -> HardwareError {
    HardwareError::Tpm(what, "it does not parse".to_owned())
}

fn io_error(path: &Path, source: std::io::Error) -> HardwareError {
    HardwareError::Io { path: path.to_owned(), source }
}
