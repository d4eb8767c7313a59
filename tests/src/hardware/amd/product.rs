//! The three EPYC generations that the simulated AMD can be, and what differs between them.
//!
//! Layouts from the SEV-SNP firmware ABI (publication 56860) and from certificates of real chips. Knows no keys.

use super::rsa::Trailer;

/// An EPYC generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Family 19h, models 10h to 1Fh.
    Genoa,
    /// Family 19h, models 00h to 0Fh.
    Milan,
    /// Family 1Ah, models 00h to 11h.
    Turin,
}

/// Security patch levels of one chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcb {
    /// First mutable code; only Turin has it, elsewhere ignored.
    pub fmc: u8,
    /// PSP boot loader.
    pub boot_loader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// CPU microcode.
    pub microcode: u8,
}

impl Default for Tcb {
    /// Levels as a patched Milan of 2025 reports them; the microcode above 127 needs a two-byte DER integer.
    fn default() -> Self {
        Self { fmc: 1, boot_loader: 4, tee: 0, snp: 24, microcode: 219 }
    }
}

impl Product {
    /// The word in `ARK-Milan`, `SEV-Milan` and in the key service's paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Genoa => "Genoa",
            Self::Milan => "Milan",
            Self::Turin => "Turin",
        }
    }

    /// CPUID family, model and stepping as a version 3 report carries them.
    pub fn cpuid(self) -> [u8; 3] {
        match self {
            Self::Genoa => [0x19, 0x11, 0x01],
            Self::Milan => [0x19, 0x01, 0x01],
            Self::Turin => [0x1a, 0x02, 0x01],
        }
    }

    /// TCB_VERSION in this generation's layout, 8 bytes (ABI table "TCB version").
    pub fn tcb_bytes(self, tcb: &Tcb) -> [u8; 8] {
        match self {
            Self::Genoa | Self::Milan => [tcb.boot_loader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode],
            Self::Turin => [tcb.fmc, tcb.boot_loader, tcb.tee, tcb.snp, 0, 0, 0, tcb.microcode],
        }
    }

    pub(super) fn vcek_product_name(self) -> &'static str {
        match self {
            Self::Genoa => "Genoa",
            Self::Milan => "Milan-B0",
            Self::Turin => "Turin",
        }
    }

    /// Milan chip certificates write the PSS trailer field that DER would leave out; Genoa's and Turin's do not.
    pub(super) fn vcek_trailer(self) -> Trailer {
        match self {
            Self::Genoa | Self::Turin => Trailer::Omitted,
            Self::Milan => Trailer::Explicit,
        }
    }

    pub(super) fn vcek_struct_version(self) -> u64 {
        match self {
            Self::Genoa | Self::Milan => 0,
            Self::Turin => 1,
        }
    }

    /// Bytes of CHIP_ID that identify the chip, and the length of HWID.
    pub(super) fn hwid_len(self) -> usize {
        match self {
            Self::Genoa | Self::Milan => 64,
            Self::Turin => 8,
        }
    }
}
