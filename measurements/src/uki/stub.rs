//! Which systemd-stub an image is made with, and which section names it knows: read out of its own bytes.
//!
//! Source: systemd `src/boot/stub.c` (the mark), `src/fundamental/uki.c` (the table of names, whose strings a compiler
//! puts behind each other). Seen so in Debian's builds of 252, 254 and 262.
//!
//! Not trusted: the bytes. A list with an unknown name, in another order or at two places is refused. Never reads the
//! sections that the stub carries for others, such as the kernel.

use super::UkiError;

/// All names in the order in which they are measured (systemd `uki.h`).
pub(super) const ORDER: [&str; 15] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrsig", ".pcrpkey",
    ".profile", ".dtbauto", ".hwids", ".efifw",
];
/// First release that measures into PCR 11.
pub const OLDEST_STUB: u32 = 252;
/// Last release whose list of names was looked at.
pub const NEWEST_STUB: u32 = 262;
const MARK: &str = "#### LoaderInfo: systemd-stub ";
/// How every list of names begins.
const FIRST_NAMES: &[u8] = b".linux\0.osrel\0.cmdline\0.initrd\0";
/// A string with a dot that follows the list in some builds; the name of another section, which is never measured.
const NO_PAYLOAD: &[u8] = b".compat";

#[derive(Debug, Clone)]
pub(super) struct Stub {
    pub(super) version: String,
    pub(super) release: u32,
    /// Names that it knows, in the order of [`ORDER`].
    pub(super) names: Vec<&'static str>,
}

impl Stub {
    /// Reads version and names out of the stub's own sections: names and contents.
    pub(super) fn find(own: &[([u8; 8], &[u8])]) -> Result<Self, UkiError> {
        let magic = own.iter().find(|(name, _)| name == b".sdmagic").ok_or(UkiError::NoStub)?.1;
        let text = magic.split(|byte| *byte == 0).next().and_then(|text| std::str::from_utf8(text).ok());
        let version = text.and_then(|text| text.strip_prefix(MARK)?.strip_suffix(" ####")).ok_or(UkiError::NoStub)?;
        let version = crate::printable::escaped(version, &['"', '`']);
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        let release = digits.parse().ok().filter(|release| (OLDEST_STUB..=NEWEST_STUB).contains(release));
        let release = release.ok_or_else(|| UkiError::Version(version.clone()))?;
        let mut lists = own.iter().flat_map(|(_, bytes)| lists(bytes));
        let Some(list) = lists.next() else {
            return Err(UkiError::Names(version, "it is not there"));
        };
        if lists.next().is_some() {
            return Err(UkiError::Names(version, "it is there twice"));
        }
        match read_list(list) {
            Ok(names) => Ok(Self { version, release, names }),
            Err(cause) => Err(UkiError::Names(version, cause)),
        }
    }
}

/// Where in these bytes a list begins.
fn lists(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = bytes.windows(FIRST_NAMES.len()).enumerate().filter(|(_, window)| *window == FIRST_NAMES);
    starts.filter_map(|(at, _)| bytes.get(at..))
}

/// The names at the head of these bytes, each with its NUL. Each turn takes a later name of the order.
fn read_list(bytes: &[u8]) -> Result<Vec<&'static str>, &'static str> {
    let mut names = Vec::new();
    let mut order = ORDER.iter();
    for word in bytes.split_inclusive(|byte| *byte == 0) {
        let Some(word) = word.strip_suffix(&[0]) else { break };
        match order.find(|known| known.as_bytes() == word) {
            Some(known) => names.push(*known),
            None if ORDER.iter().any(|known| known.as_bytes() == word) => return Err("its order is another one"),
            None if word.starts_with(b".") && word != NO_PAYLOAD => return Err("it holds an unknown name"),
            None => return Ok(names),
        }
    }
    // A list that nothing follows may be cut short.
    Err("it is cut short")
}
