//! TDATTRIBUTES and the status words of a TDX platform, typed (TDX module ABI 348551 §3.4, "ATTRIBUTES"; Intel
//! provisioning certification service API v4, "tcbStatus"). Names them and judges nothing.

use std::fmt;

/// Bits that the module's ABI names; attestation verifiers have to reject the others (revision 008, table 3.23).
const NAMED: u64 = 0x71 | 0x7f << 16 | 0x1f << 27 | 3 << 62;

/// TDATTRIBUTES as given at launch and enforced by the TDX module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdAttributes(u64);

impl TdAttributes {
    pub(in crate::evidence) fn of(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    /// All 64 bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    /// Bits 7:0, TUD: the host can see into the TD, by debugging (bit 0) or profiling (bits 4 to 6).
    pub fn under_debug(self) -> bool {
        self.0 & 0xff != 0
    }

    /// Bit 17: service TDs may be bound after the TD was created.
    pub fn service_td_extension(self) -> bool {
        self.bit(17)
    }

    /// Bit 28: an access to a page that the host took away ends the TD and cannot be turned into an exception.
    pub fn sept_ve_disable(self) -> bool {
        self.bit(28)
    }

    /// Bit 29: a migration TD can read the TD.
    pub fn migratable(self) -> bool {
        self.bit(29)
    }

    /// Bits that nobody has given a meaning yet.
    pub fn reserved(self) -> u64 {
        self.0 & !NAMED
    }

    /// Bit 63: the TD may use performance monitoring.
    pub fn performance_monitoring(self) -> bool {
        self.bit(63)
    }
}

/// Status of a TDX platform at the time of the collateral. There is no `Revoked`: such a platform is never authentic, so
/// that no policy can accept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcbStatus {
    /// Nothing to be done.
    UpToDate,
    /// Software inside the TD has to defend itself.
    SwHardeningNeeded,
    /// The platform's configuration has to be changed.
    ConfigurationNeeded,
    /// Both of the above.
    ConfigurationAndSwHardeningNeeded,
    /// Firmware is out of date.
    OutOfDate,
    /// Firmware is out of date and the configuration has to be changed.
    OutOfDateConfigurationNeeded,
    /// The TD was launched on older firmware than now runs.
    TdRelaunchAdvised,
    /// The same, and the configuration has to be changed.
    TdRelaunchAdvisedConfigurationNeeded,
}

impl TcbStatus {
    /// Every status, best first.
    pub const ALL: [Self; 8] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::TdRelaunchAdvised,
        Self::TdRelaunchAdvisedConfigurationNeeded,
    ];

    /// Intel's word.
    pub fn text(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }

    /// The status of Intel's word.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.text() == text)
    }

    /// `None` for `Revoked`.
    pub(super) fn of(status: dcap_qvl::TcbStatus) -> Option<Self> {
        use dcap_qvl::TcbStatus as Theirs;
        match status {
            Theirs::UpToDate => Some(Self::UpToDate),
            Theirs::SWHardeningNeeded => Some(Self::SwHardeningNeeded),
            Theirs::ConfigurationNeeded => Some(Self::ConfigurationNeeded),
            Theirs::ConfigurationAndSWHardeningNeeded => Some(Self::ConfigurationAndSwHardeningNeeded),
            Theirs::OutOfDate => Some(Self::OutOfDate),
            Theirs::OutOfDateConfigurationNeeded => Some(Self::OutOfDateConfigurationNeeded),
            Theirs::TDRelaunchAdvised => Some(Self::TdRelaunchAdvised),
            Theirs::TDRelaunchAdvisedConfigurationNeeded => Some(Self::TdRelaunchAdvisedConfigurationNeeded),
            Theirs::Revoked => None,
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_little_endian_bits() {
        let attributes = TdAttributes::of([0, 0, 0, 0x10, 0, 0, 0, 0x80]);
        assert!(attributes.sept_ve_disable() && attributes.performance_monitoring());
        assert!(!attributes.under_debug() && !attributes.migratable() && !attributes.service_td_extension());
        assert!(TdAttributes::of([1, 0, 0, 0, 0, 0, 0, 0]).under_debug());
        assert!(TdAttributes::of([0x10, 0, 0, 0, 0, 0, 0, 0]).under_debug());
        assert!(TdAttributes::of([0, 0, 0, 0x20, 0, 0, 0, 0]).migratable());
    }

    #[test]
    fn the_bits_without_a_name_are_those_that_another_reader_finds() {
        for number in 0..64u32 {
            let bytes = (1u64 << number).to_le_bytes();
            let theirs = dcap_qvl::quote::TDAttributes::parse(bytes).unwrap();
            assert_eq!(TdAttributes::of(bytes).reserved() != 0, theirs.reserved != 0, "bit {number}");
        }
    }

    #[test]
    fn every_status_has_its_word_and_revoked_has_none() {
        for status in TcbStatus::ALL {
            assert_eq!(TcbStatus::from_text(status.text()), Some(status));
        }
        assert_eq!(TcbStatus::from_text("Revoked"), None);
        assert_eq!(TcbStatus::of(dcap_qvl::TcbStatus::Revoked), None);
    }
}
