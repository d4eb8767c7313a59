//! EPYC generations and their security patch levels. The eight bytes of a TCB_VERSION mean different things on
//! different generations, so they are never compared as one number (SEV-SNP firmware ABI 56860, "TCB_VERSION").

use std::fmt;

/// An EPYC generation, each with its own AMD root key (ARK).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Product {
    /// Family 19h, models 10h–1Fh and A0h–AFh (with Bergamo and Siena).
    Genoa,
    /// Family 19h, models 00h–0Fh.
    Milan,
    /// Family 1Ah, models 00h–11h.
    Turin,
}

impl Product {
    /// The word in `ARK-Milan`, `SEV-Milan` and in the paths of AMD's key service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Genoa => "Genoa",
            Self::Milan => "Milan",
            Self::Turin => "Turin",
        }
    }

    /// The product of that word, in AMD's spelling or in lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Genoa, Self::Milan, Self::Turin].into_iter().find(|product| product.name().eq_ignore_ascii_case(name))
    }

    /// The product of a report's CPUID_FAM_ID and CPUID_MOD_ID (reports of version 3 and later).
    pub(super) fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// Whether this CPUID is that of a generation known by name whose certificates and patch levels are not read here:
    /// family 1Ah, models 50h–57h, 90h–AFh and C0h–C7h (Venice).
    pub(super) fn is_venice(family: u8, model: u8) -> bool {
        matches!((family, model), (0x1a, 0x50..=0x57 | 0x90..=0xaf | 0xc0..=0xc7))
    }

    /// Bytes of CHIP_ID that identify the chip; the rest is zero (VCEK specification 57230, "hwID").
    pub(super) fn chip_id_length(self) -> usize {
        match self {
            Self::Genoa | Self::Milan => 64,
            Self::Turin => 8,
        }
    }

    /// structVersion of this generation's certificates.
    pub(super) fn certificate_version(self) -> u8 {
        match self {
            Self::Genoa | Self::Milan => 0,
            Self::Turin => 1,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Security patch levels, one number per component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnpTcb {
    /// First mutable code; only Turin has it.
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub boot_loader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl SnpTcb {
    /// Reads a TCB_VERSION in this product's layout; `None` when a reserved byte is not zero.
    pub(super) fn parse(product: Product, bytes: [u8; 8]) -> Option<Self> {
        match (product, bytes) {
            (Product::Genoa | Product::Milan, [boot_loader, tee, 0, 0, 0, 0, snp, microcode]) => {
                Some(Self { fmc: None, boot_loader, tee, snp, microcode })
            }
            (Product::Turin, [fmc, boot_loader, tee, snp, 0, 0, 0, microcode]) => {
                Some(Self { fmc: Some(fmc), boot_loader, tee, snp, microcode })
            }
            _ => None,
        }
    }

    /// The first component in which `self` is older than `minimum`; `None` when none is. A component that only one
    /// side has counts as older: the two are of different generations.
    pub(crate) fn older_than(&self, minimum: &Self) -> Option<&'static str> {
        let fmc = match (self.fmc, minimum.fmc) {
            (Some(have), Some(need)) => have < need,
            (None, None) => false,
            _ => true,
        };
        let components = [
            ("fmc", fmc),
            ("boot loader", self.boot_loader < minimum.boot_loader),
            ("tee", self.tee < minimum.tee),
            ("snp", self.snp < minimum.snp),
            ("microcode", self.microcode < minimum.microcode),
        ];
        components.into_iter().find_map(|(name, older)| older.then_some(name))
    }
}

impl fmt::Display for SnpTcb {
    /// In the words of AMD's key service, as somebody has to type them there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmcSPL={fmc}&")?;
        }
        let Self { boot_loader, tee, snp, microcode, .. } = self;
        write!(f, "blSPL={boot_loader}&teeSPL={tee}&snpSPL={snp}&ucodeSPL={microcode}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 8] = [4, 1, 0, 0, 0, 0, 24, 219];

    #[test]
    fn the_layout_depends_on_the_product_and_reserved_bytes_are_zero() {
        let milan = SnpTcb::parse(Product::Milan, BYTES).unwrap();
        assert_eq!(milan, SnpTcb { fmc: None, boot_loader: 4, tee: 1, snp: 24, microcode: 219 });
        assert_eq!(SnpTcb::parse(Product::Turin, BYTES), None);
        let turin = SnpTcb::parse(Product::Turin, [1, 2, 3, 4, 0, 0, 0, 81]).unwrap();
        assert_eq!(turin, SnpTcb { fmc: Some(1), boot_loader: 2, tee: 3, snp: 4, microcode: 81 });
        assert_eq!(SnpTcb::parse(Product::Milan, [4, 1, 1, 0, 0, 0, 24, 219]), None);
    }

    #[test]
    fn one_older_component_is_enough_however_new_the_others_are() {
        let minimum = SnpTcb { fmc: None, boot_loader: 4, tee: 0, snp: 20, microcode: 200 };
        assert_eq!(minimum.older_than(&minimum), None);
        let old_snp = SnpTcb { snp: 19, microcode: 255, ..minimum };
        assert_eq!(old_snp.older_than(&minimum), Some("snp"));
        let other_generation = SnpTcb { fmc: Some(255), boot_loader: 255, tee: 255, snp: 255, microcode: 255 };
        assert_eq!(other_generation.older_than(&minimum), Some("fmc"));
    }

    #[test]
    fn products_are_told_apart_by_cpuid() {
        for (family, model, product) in [
            (0x19, 0x01, Some(Product::Milan)),
            (0x19, 0x11, Some(Product::Genoa)),
            (0x19, 0xa0, Some(Product::Genoa)),
            (0x1a, 0x02, Some(Product::Turin)),
            (0x19, 0x20, None),
            (0x1a, 0x50, None),
            (0x17, 0x31, None),
        ] {
            assert_eq!(Product::from_cpuid(family, model), product, "{family:x} {model:x}");
        }
        assert_eq!(Product::from_name("milan"), Some(Product::Milan));
    }
}
