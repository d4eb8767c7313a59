//! The two bit fields of an SNP report that an appraisal reads by name: the guest's launch POLICY and PLATFORM_INFO
//! (firmware ABI 56860). Names them and judges nothing.

/// Highest policy bit whose meaning is known here; the bits above are reserved.
const LAST_POLICY_BIT: u32 = 25;

/// POLICY as given at launch and enforced by the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    /// Takes the bits; `None` when bit 17 is not one or an unknown bit is set.
    pub(in crate::evidence) fn parse(bits: u64) -> Option<Self> {
        let known = bits >> LAST_POLICY_BIT.saturating_add(1) == 0;
        (known && bits >> 17 & 1 == 1).then_some(Self(bits))
    }

    /// All 64 bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Lowest firmware ABI under which the guest lets itself be launched: major, minor.
    pub fn minimum_abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }

    fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    /// Bit 16: the guest may run on a core whose sibling thread runs something else.
    pub fn smt_allowed(self) -> bool {
        self.bit(16)
    }

    /// Bit 18: a migration agent may be bound, which can read the guest.
    pub fn migration_agent_allowed(self) -> bool {
        self.bit(18)
    }

    /// Bit 19: the host may read and write the guest's memory.
    pub fn debug_allowed(self) -> bool {
        self.bit(19)
    }

    /// Bit 20: the guest runs on one socket only.
    pub fn single_socket_only(self) -> bool {
        self.bit(20)
    }

    /// Bit 21: CXL devices and memory may be present.
    pub fn cxl_allowed(self) -> bool {
        self.bit(21)
    }

    /// Bit 22: memory must be encrypted with AES-256-XTS.
    pub fn aes_256_xts_demanded(self) -> bool {
        self.bit(22)
    }

    /// Bit 23: running average power limits must be off.
    pub fn rapl_off_demanded(self) -> bool {
        self.bit(23)
    }

    /// Bit 24: ciphertext hiding must be on.
    pub fn ciphertext_hiding_demanded(self) -> bool {
        self.bit(24)
    }

    /// Bit 25: the host may not swap guest pages.
    pub fn page_swap_disabled(self) -> bool {
        self.bit(25)
    }
}

/// PLATFORM_INFO: how the host is set up. New firmware adds bits, so unknown ones are kept and not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformInfo(u64);

impl PlatformInfo {
    pub(in crate::evidence) fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// All 64 bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Bit 0: simultaneous multithreading is on.
    pub fn smt_enabled(self) -> bool {
        self.0 & 1 == 1
    }

    /// Bit 1: the host's memory is encrypted as a whole.
    pub fn tsme_enabled(self) -> bool {
        self.0 >> 1 & 1 == 1
    }

    /// Bit 2: the memory corrects errors, which makes rowhammer harder.
    pub fn ecc_enabled(self) -> bool {
        self.0 >> 2 & 1 == 1
    }

    /// Bit 3: running average power limits are off, so that the host cannot read power draw finely.
    pub fn rapl_disabled(self) -> bool {
        self.0 >> 3 & 1 == 1
    }

    /// Bit 7: trusted I/O is on.
    pub fn tio_enabled(self) -> bool {
        self.0 >> 7 & 1 == 1
    }

    /// Bit 4: ciphertext hiding is on.
    pub fn ciphertext_hiding(self) -> bool {
        self.0 >> 4 & 1 == 1
    }

    /// Bit 5: the check for aliased memory has passed since the last reset.
    pub fn alias_check_complete(self) -> bool {
        self.0 >> 5 & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_platform_info_has_its_own_name() {
        let named = |bits: u64| {
            let info = PlatformInfo::of(bits);
            [
                info.smt_enabled(),
                info.tsme_enabled(),
                info.ecc_enabled(),
                info.rapl_disabled(),
                info.ciphertext_hiding(),
                info.alias_check_complete(),
                info.tio_enabled(),
            ]
        };
        for (position, bit) in [0, 1, 2, 3, 4, 5, 7].into_iter().enumerate() {
            assert_eq!(named(1 << bit), std::array::from_fn(|name| name == position), "bit {bit}");
        }
        assert_eq!(named(1 << 6), [false; 7]);
    }

    #[test]
    fn bit_17_is_demanded_and_unknown_bits_are_refused() {
        let policy = GuestPolicy::parse(0x3_001f).unwrap();
        assert!(policy.smt_allowed() && !policy.debug_allowed() && !policy.migration_agent_allowed());
        assert_eq!(policy.minimum_abi(), (0, 31));
        assert!(GuestPolicy::parse(0xb_0000).unwrap().debug_allowed());
        assert!(GuestPolicy::parse(0x6_0000).unwrap().migration_agent_allowed());
        assert_eq!(GuestPolicy::parse(0x1_0000), None);
        assert_eq!(GuestPolicy::parse(0x2_0000 | 1 << 26), None);
        assert_eq!(GuestPolicy::parse(0x2_0000 | 1 << 63), None);
    }
}
