//! How a firmware image loads the kernel that QEMU was given, read out of the image: two questions whose answers differ
//! between releases of edk2, and change what is measured.
//!
//! Sources: edk2 `OvmfPkg/Library/{Generic,X86}QemuLoadImageLib` (earlier releases append ` initrd=initrd` to the
//! command line, those that know shim put `initrd=initrd ` before it), `OvmfPkg/QemuKernelLoaderFsDxe` (newer ones ask for the fw_cfg file
//! `etc/boot/kernel` first), QEMU `hw/i386/x86-common.c` (offers that file, without its own changes, since 10.0; does not
//! change the kernel of a confidential guest at all since 10.2). Both orders were seen in booted guests.
//!
//! Not trusted: the image. Never guesses: an image that says neither or both is refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bytes::contains;
use crate::volume::{VolumeError, unpacked};

/// The format strings of either order, with the ends of their neighbours.
const BEFORE_MARK: &[u8] = b"\0initrd=initrd \0";
const AFTER_MARK: &[u8] = b"\0 initrd=initrd\0";
const NAMED_MARK: &[u8] = b"etc/boot/";

/// Where firmware puts the option that makes the kernel's stub ask for the ramdisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RamdiskOption {
    /// `initrd=initrd ` before the command line: edk2 releases that know shim.
    BeforeCommandLine,
    /// ` initrd=initrd` after it: earlier releases.
    AfterCommandLine,
}

/// Which kernel firmware asks QEMU for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelSource {
    /// The fw_cfg file `etc/boot/kernel` where there is one, the traditional items otherwise.
    NamedFile,
    /// The traditional items, into which QEMU writes.
    Items,
}

/// Whether the firmware gets a kernel into whose setup header QEMU has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelHeader {
    /// The file as built.
    AsBuilt,
    /// Loader type, heap and addresses are filled in, which depend on memory size and the ramdisk's.
    FilledIn,
}

/// How an image loads a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelLoader {
    /// Where the option for the ramdisk goes.
    pub ramdisk_option: RamdiskOption,
    /// Which kernel it asks for.
    pub source: KernelSource,
}

/// Why it cannot be told how an image loads a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoaderError {
    /// Its volumes cannot be read.
    #[error("firmware: {0}")]
    Volume(#[from] VolumeError),
    /// It holds neither of the known command line formats, or both.
    #[error(
        "the firmware holds {0} of the two known ways to add `initrd=initrd` to a command line, so what a kernel would \
         measure is not known: use a build of OVMF that starts kernels given to -kernel"
    )]
    Ambiguous(&'static str),
}

impl KernelLoader {
    /// Reads an image, code alone or with variables.
    ///
    /// # Errors
    /// [`LoaderError`].
    pub fn inspect(image: &[u8]) -> Result<Self, LoaderError> {
        Self::of(image, &unpacked(image)?)
    }

    /// The same where the compressed volumes are at hand.
    pub(crate) fn of(image: &[u8], unpacked: &[u8]) -> Result<Self, LoaderError> {
        let has = |mark: &[u8]| contains(unpacked, mark) || contains(image, mark);
        let ramdisk_option = match (has(BEFORE_MARK), has(AFTER_MARK)) {
            (true, false) => RamdiskOption::BeforeCommandLine,
            (false, true) => RamdiskOption::AfterCommandLine,
            (false, false) => return Err(LoaderError::Ambiguous("neither")),
            (true, true) => return Err(LoaderError::Ambiguous("both")),
        };
        let source = if has(NAMED_MARK) { KernelSource::NamedFile } else { KernelSource::Items };
        Ok(Self { ramdisk_option, source })
    }

    /// The kernel's header as it is measured in a TD.
    #[must_use]
    pub fn header_in_td(&self, qemu: QemuVersion) -> KernelHeader {
        if qemu >= QemuVersion::CONFIDENTIAL_AS_BUILT { KernelHeader::AsBuilt } else { self.header(qemu) }
    }

    /// The kernel's header as it is measured in a machine that is not confidential.
    #[must_use]
    pub fn header(&self, qemu: QemuVersion) -> KernelHeader {
        match self.source {
            KernelSource::NamedFile if qemu >= QemuVersion::OFFERS_FILE => KernelHeader::AsBuilt,
            _ => KernelHeader::FilledIn,
        }
    }
}

/// A version of QEMU, as far as measurements depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QemuVersion {
    major: u16,
    minor: u16,
}

impl QemuVersion {
    /// Offers the kernel as built beside the one that it changes.
    const OFFERS_FILE: Self = Self::new(10, 0);
    /// Changes the kernel of no confidential guest.
    const CONFIDENTIAL_AS_BUILT: Self = Self::new(10, 2);

    /// From both numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for QemuVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err("expected major and minor version, such as 10.1");
        };
        // A third number changes nothing here; what is none is a slip.
        if numbers.all(|number| number.is_ok()) { Ok(Self { major, minor }) } else { Err("expected numbers and dots") }
    }
}

impl TryFrom<String> for QemuVersion {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<QemuVersion> for String {
    fn from(version: QemuVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::sample::image;

    fn loader(dxe: &[u8]) -> Result<KernelLoader, LoaderError> {
        KernelLoader::inspect(&image(b"pei", dxe))
    }

    #[test]
    fn an_image_tells_where_the_option_goes() {
        let newer = loader(b"%08X\0initrd=initrd \0kernel \0etc/boot-menu-wait\0etc/boot/\0").unwrap();
        let expected =
            KernelLoader { ramdisk_option: RamdiskOption::BeforeCommandLine, source: KernelSource::NamedFile };
        assert_eq!(newer, expected);
        let older = loader(b"\0\0 initrd=initrd\0etc/boot-menu-wait\0").unwrap();
        let expected = KernelLoader { ramdisk_option: RamdiskOption::AfterCommandLine, source: KernelSource::Items };
        assert_eq!(older, expected);
        assert_eq!(loader(b"\0initrd=initrd\0"), Err(LoaderError::Ambiguous("neither")));
        assert_eq!(loader(&[BEFORE_MARK, AFTER_MARK].concat()), Err(LoaderError::Ambiguous("both")));
        assert!(matches!(KernelLoader::inspect(b""), Err(LoaderError::Volume(_))));
    }

    #[test]
    fn the_header_depends_on_both_sides() {
        let of = |source| KernelLoader { ramdisk_option: RamdiskOption::BeforeCommandLine, source };
        let headers = |version: &str| {
            let qemu = version.parse().unwrap();
            let [named, items] = [of(KernelSource::NamedFile), of(KernelSource::Items)];
            [named.header_in_td(qemu), items.header_in_td(qemu), named.header(qemu), items.header(qemu)]
        };
        let [built, filled] = [KernelHeader::AsBuilt, KernelHeader::FilledIn];
        assert_eq!(headers("9.2"), [filled; 4]);
        assert_eq!(headers("10.0"), [built, filled, built, filled]);
        assert_eq!(headers("10.1.3"), [built, filled, built, filled]);
        assert_eq!(headers("10.2"), [built, built, built, filled]);
        assert_eq!(headers("10.10"), headers("11.0"));
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!("8.2.2".parse::<QemuVersion>().map(|version| version.to_string()), Ok("8.2".to_owned()));
        for text in ["", "10", "10.", "10.x", "10.2.x", "-1.2", "10,2"] {
            assert!(text.parse::<QemuVersion>().is_err(), "{text:?}");
        }
    }
}
