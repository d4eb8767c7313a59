//! A reader over foreign bytes that must be emptied: fixed arrays and integers by size, counted blocks by length, and
//! bytes that have to be zero. It never indexes, never allocates, and trusts no length that it did not compare with
//! what is left.

use std::fmt;

use thiserror::Error;

/// Why bytes are not the structure they should be. Holds only our own words and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum FieldError {
    /// The bytes end before the field does.
    #[error("{0} ends too early")]
    Short(&'static str),
    /// Bytes are left over after the last field.
    #[error("{0} has bytes after its end")]
    Trailing(&'static str),
    /// A field that the specification reserves is not zero.
    #[error("{0}: a reserved field is not zero")]
    Reserved(&'static str),
}

/// What is still to be read of one structure, with its name for errors.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    structure: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8], structure: &'static str) -> Self {
        Self { rest: bytes, structure }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(FieldError::Short(self.structure))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn block(&mut self, length: usize) -> Result<&'a [u8], FieldError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(FieldError::Short(self.structure))?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads `length` bytes that the specification reserves.
    pub(crate) fn zeros(&mut self, length: usize) -> Result<(), FieldError> {
        let reserved = self.block(length)?;
        if reserved.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(FieldError::Reserved(self.structure)) }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, FieldError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn u16_le(&mut self) -> Result<u16, FieldError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32_le(&mut self) -> Result<u32, FieldError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64_le(&mut self) -> Result<u64, FieldError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16_be(&mut self) -> Result<u16, FieldError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32_be(&mut self) -> Result<u32, FieldError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64_be(&mut self) -> Result<u64, FieldError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A block whose length stands before it as a big-endian u16 (TPM2B).
    pub(crate) fn counted_u16_be(&mut self) -> Result<&'a [u8], FieldError> {
        let length = usize::from(self.u16_be()?);
        self.block(length)
    }

    /// Everything that is left.
    pub(crate) fn remainder(self) -> &'a [u8] {
        self.rest
    }

    /// Ends the structure; anything left over is an error.
    pub(crate) fn end(self) -> Result<(), FieldError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FieldError::Trailing(self.structure)) }
    }
}

/// The first eight bytes of a digest, enough for a person to compare and too short to disclose anything else.
pub(crate) struct Short<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_must_be_emptied() {
        let mut fields = Fields::of(&[1, 2, 0, 0, 0, 3, 0, 1, 9], "sample");
        assert_eq!(fields.u16_le(), Ok(0x0201));
        assert_eq!(fields.zeros(3), Ok(()));
        assert_eq!(fields.end(), Err(FieldError::Trailing("sample")));
        assert_eq!(fields.byte(), Ok(3));
        assert_eq!(fields.counted_u16_be(), Ok(&[9][..]));
        assert_eq!(fields.end(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_end_and_a_spoilt_reserve_are_named() {
        let mut fields = Fields::of(&[0xff, 0xff, 0], "sample");
        assert_eq!(fields.counted_u16_be(), Err(FieldError::Short("sample")));
        assert_eq!(Fields::of(&[0, 1], "sample").zeros(2), Err(FieldError::Reserved("sample")));
    }

    #[test]
    fn a_digest_is_shown_by_its_first_eight_bytes() {
        assert_eq!(Short(&[0xab; 48]).to_string(), "abababababababab");
    }
}
