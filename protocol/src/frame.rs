//! Framing: a big-endian u32 length, then that many bytes of CBOR. The length of a hostile peer is checked against the
//! limit of what is expected before one byte is allocated for it.

use crate::refusal::RefusalCode;
use core::fmt;

/// Bytes of the length prefix.
pub const PREFIX: usize = 4;
/// Longest request, in bytes: a TDX quote of up to 32 KiB, an event log of up to 128 KiB, the rest small.
pub const REQUEST_LIMIT: usize = 262_144;
/// Longest reply, in bytes: a chain, the anchors and the sealed secrets.
pub const REPLY_LIMIT: usize = 131_072;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The prefix promises nothing.
    Empty,
    /// The prefix promises more than the limit.
    Oversized {
        /// What it promises, in bytes.
        promised: u64,
        /// What is allowed, in bytes.
        limit: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a frame of no bytes"),
            Self::Oversized { promised, limit } => write!(f, "a frame of {promised} bytes where {limit} are allowed"),
        }
    }
}

impl core::error::Error for FrameError {}

impl FrameError {
    /// The code that a refusal for it carries.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Empty => RefusalCode::Malformed,
            Self::Oversized { .. } => RefusalCode::Oversized,
        }
    }
}

/// The length that a prefix promises, if it is allowed.
pub fn length(prefix: [u8; PREFIX], limit: usize) -> Result<usize, FrameError> {
    let promised = u32::from_be_bytes(prefix);
    match usize::try_from(promised) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) if length <= limit => Ok(length),
        _ => Err(FrameError::Oversized { promised: promised.into(), limit }),
    }
}

/// The frame of a message, or the error that its receiver would give.
pub fn wrap(message: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
    let oversized = || FrameError::Oversized { promised: u64::try_from(message.len()).unwrap_or(u64::MAX), limit };
    let prefix = u32::try_from(message.len()).map_err(|_| oversized())?.to_be_bytes();
    length(prefix, limit)?;
    Ok([prefix.as_slice(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_at_the_edge() {
        assert_eq!(length(4u32.to_be_bytes(), 4), Ok(4));
        assert_eq!(length(0u32.to_be_bytes(), 4), Err(FrameError::Empty));
        assert_eq!(length(5u32.to_be_bytes(), 4), Err(FrameError::Oversized { promised: 5, limit: 4 }));
        assert!(length([0xff; 4], REQUEST_LIMIT).is_err());
        assert_eq!(wrap(b"abc", 3).unwrap(), b"\0\0\0\x03abc");
        assert!(wrap(b"abcd", 3).is_err());
    }
}
