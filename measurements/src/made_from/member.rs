//! Members of an initial ramdisk, one line each: `path = "mode bytes sha256"`.
//!
//! Not trusted: paths, which may hold anything but NUL; those that would disturb a terminal are escaped where they are
//! shown, not here. Never holds contents.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::MAX_LISTED;
use crate::digest::{Digest, sha256};

/// One member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberRecord {
    /// File type and permission bits.
    pub mode: u32,
    /// Length of a file's contents, or of a link's target.
    pub bytes: u64,
    /// SHA-256 of them; of nothing for folders and devices.
    pub sha256: Digest<32>,
}

impl MemberRecord {
    /// Records contents.
    #[must_use]
    pub fn of(mode: u32, content: &[u8]) -> Self {
        Self { mode, bytes: u64::try_from(content.len()).unwrap_or(u64::MAX), sha256: sha256(content) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (mode, bytes, digest) = (words.next()?, words.next()?, words.next()?);
        let mode = u32::from_str_radix(mode, 8).ok()?;
        let one = Self { mode, bytes: bytes.parse().ok()?, sha256: digest.parse().ok()? };
        (one.to_string() == text).then_some(one)
    }
}

impl fmt::Display for MemberRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o} {} {}", self.mode, self.bytes, self.sha256)
    }
}

/// Members by path, each given once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembersByPath(BTreeMap<String, MemberRecord>);

impl MembersByPath {
    pub(super) fn insert(&mut self, path: &str, member: MemberRecord) {
        self.0.insert(path.to_owned(), member);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&MemberRecord> {
        self.0.get(path)
    }

    /// All, in byte order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MemberRecord)> {
        self.0.iter().map(|(path, member)| (path.as_str(), member))
    }

    /// Path of the first plain file with this digest.
    #[must_use]
    pub fn path_of(&self, digest: &Digest<32>) -> Option<&str> {
        let file = |member: &MemberRecord| member.mode & 0o170_000 == 0o100_000;
        self.iter().find(|(_, member)| file(member) && member.sha256 == *digest).map(|(path, _)| path)
    }
}

impl Serialize for MembersByPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(path, member)| (path, member.to_string())))
    }
}

impl<'de> Deserialize<'de> for MembersByPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = MembersByPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from paths to \"mode bytes sha256\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MembersByPath, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((path, text)) = map.next_entry::<String, String>()? {
            let member = MemberRecord::parse(&text);
            let member = member.ok_or_else(|| A::Error::custom(format_args!("{path:?}: not \"mode bytes sha256\"")))?;
            if members.len() == MAX_LISTED {
                return Err(A::Error::custom(format_args!("more than {MAX_LISTED} members")));
            }
            if members.insert(path, member).is_some() {
                return Err(A::Error::custom("a path is given twice"));
            }
        }
        Ok(MembersByPath(members))
    }
}
