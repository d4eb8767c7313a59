//! A secret in memory. It wipes itself when dropped, has no Debug, Clone or encoding, and is read in one visible way.

use zeroize::Zeroizing;

/// Secret bytes. Never printed, cloned or encoded; wiped on drop.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of bytes that nobody else holds; the vector is moved, not copied.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one who uses them. Searching for this name finds every reader.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}
