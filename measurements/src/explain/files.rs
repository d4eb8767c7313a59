//! Files that may have been booted, as somebody who looks for a difference has them at hand.
//!
//! Not trusted: contents and names. Never reads files.

use crate::digest::{Digest, sha256};
use crate::made_from::Role;

/// A file with what it is thought to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What it is, if somebody said so.
    pub role: Option<Role>,
    /// Its name, for people.
    pub name: String,
    /// Its bytes.
    pub contents: Vec<u8>,
    /// SHA-256 over them.
    sha256: Digest<32>,
}

impl Candidate {
    /// A file; it is hashed once.
    #[must_use]
    pub fn new(role: Option<Role>, name: &str, contents: Vec<u8>) -> Self {
        let sha256 = sha256(&contents);
        Self { role, name: name.to_owned(), contents, sha256 }
    }

    /// SHA-256 over the contents.
    #[must_use]
    pub const fn sha256(&self) -> Digest<32> {
        self.sha256
    }
}

/// All files and command lines at hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// Files.
    pub files: Vec<Candidate>,
    /// Command lines.
    pub append: Vec<String>,
}

impl Candidates {
    /// Files that are said to have this role, then those of which nothing is said.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = &Candidate> {
        let said = self.files.iter().filter(move |file| file.role == Some(role));
        said.chain(self.files.iter().filter(|file| file.role.is_none()))
    }

    /// The first file that is said to have this role.
    pub(super) fn said(&self, role: Role) -> Option<&Candidate> {
        self.files.iter().find(|file| file.role == Some(role))
    }

    /// The file with this digest.
    pub(super) fn with(&self, digest: &Digest<32>) -> Option<&Candidate> {
        self.files.iter().find(|file| file.sha256 == *digest)
    }
}
