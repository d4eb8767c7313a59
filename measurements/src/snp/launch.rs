//! The running launch digest: what the security processor does with each page that a hypervisor adds.
//!
//! Source: AMD SEV-SNP Firmware ABI (56860) sections 8.17 and 8.18: `LD = SHA-384(PAGE_INFO)` for each page. Nothing
//! foreign is parsed here; never decides which pages there are.

use crate::digest::{Digest, sha384};
use crate::ovmf::PAGE;

/// Guest physical address that the measurement of every VMSA page carries (SEV-SNP ABI 8.18).
pub(crate) const VMSA_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What PAGE_INFO says of a page (SEV-SNP ABI, PAGE_TYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageType {
    /// Contents are measured.
    Normal = 1,
    /// The registers of a vCPU; contents are measured.
    Vmsa = 2,
    /// Zeroed by the security processor.
    Zero = 3,
    /// Neither contents nor their absence is measured.
    Unmeasured = 4,
    /// Filled with secrets by the security processor.
    Secrets = 5,
    /// CPUID values that the security processor checks.
    Cpuid = 6,
}

/// The CONTENTS field of pages whose contents are not measured.
const NO_CONTENTS: [u8; 48] = [0; 48];

/// The running launch digest, in the order in which pages are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launch {
    digest: [u8; 48],
}

impl Launch {
    /// Before the first page: zeros.
    pub(crate) const fn begin() -> Self {
        Self::after([0; 48])
    }

    /// Goes on from a digest reached earlier.
    pub(crate) const fn after(digest: [u8; 48]) -> Self {
        Self { digest }
    }

    /// The digest after the pages so far.
    pub(crate) const fn digest(&self) -> Digest<48> {
        Digest::from_bytes(self.digest)
    }

    /// Adds a page of which the contents are measured; `contents` is their SHA-384.
    pub(crate) fn measured(&mut self, kind: PageType, contents: &Digest<48>, address: u64) {
        self.page(kind, contents.as_bytes(), address);
    }

    /// Adds `pages` pages in a row of which the contents are not measured.
    pub(crate) fn unmeasured(&mut self, kind: PageType, address: u64, pages: usize) {
        addresses(address).take(pages).for_each(|address| self.page(kind, &NO_CONTENTS, address));
    }

    /// Adds whole pages of contents in a row, beginning at `address`. Bytes after the last whole page are not read.
    pub(crate) fn contents(&mut self, kind: PageType, bytes: &[u8], address: u64) {
        let mut last: Option<(&[u8], Digest<48>)> = None;
        for (page, address) in bytes.chunks_exact(PAGE).zip(addresses(address)) {
            // Firmware images are padded with long runs of equal pages: each run is hashed once.
            let digest = match last {
                Some((known, digest)) if known == page => digest,
                _ => sha384(page),
            };
            last = Some((page, digest));
            self.measured(kind, &digest, address);
        }
    }

    /// PAGE_INFO: current digest 48, contents 48, length u16, type u8, IMI u8, three VMPL permissions and a reserved
    /// byte, all zero, guest physical address u64.
    fn page(&mut self, kind: PageType, contents: &[u8; 48], address: u64) {
        let mut info = [0; 0x70];
        info[..48].copy_from_slice(&self.digest);
        info[48..96].copy_from_slice(contents);
        info[96..98].copy_from_slice(&0x70u16.to_le_bytes());
        info[98] = kind as u8;
        info[104..].copy_from_slice(&address.to_le_bytes());
        self.digest = *sha384(&info).as_bytes();
    }
}

/// Addresses of pages in a row. None of the callers comes near the end of the address space.
fn addresses(first: u64) -> impl Iterator<Item = u64> {
    (first..).step_by(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Step by step, each value computed with an independent calculator.
    #[test]
    fn each_kind_of_page_extends_the_digest_as_published() {
        let mut launch = Launch::begin();
        launch.contents(PageType::Normal, &[0; PAGE], 0xffff_f000);
        assert_eq!(
            launch.digest().to_string(),
            "46c510442a54cc32344cef32e14dc3d6312fc4a010780dd11fd33204df5550590356b069e6c6ca5bbfca71561f370399"
        );
        launch.unmeasured(PageType::Zero, 0x80_0000, 1);
        assert_eq!(
            launch.digest().to_string(),
            "58bcd0444a7ed18b2f83cdbec58255f3e4e9439735fc13bcb00ad80b5c9ec9b21abecc3fa389c02781e68496e720bc70"
        );
        launch.unmeasured(PageType::Secrets, 0x80_d000, 1);
        assert_eq!(
            launch.digest().to_string(),
            "4a1be0fd7e5f2abff17ed5d7f59e9258f6ae28795b4093a13a13cccd42dae7a314536932ab943d68f2240073a3c8748b"
        );
        launch.unmeasured(PageType::Cpuid, 0x80_e000, 1);
        assert_eq!(
            launch.digest().to_string(),
            "680559cbc8a791969911e957369343df96022341d7443bc553e300411c68f043c6ab1eb6b66c15f4f1878431ee74fad6"
        );
    }

    #[test]
    fn equal_pages_are_told_apart_by_their_place() {
        let bytes: Vec<u8> = [0, 0xff, 0xff, 0, 0].into_iter().flat_map(|fill: u8| [fill; PAGE]).collect();
        let mut together = Launch::begin();
        together.contents(PageType::Normal, &bytes, 0x1000);
        let mut one_by_one = Launch::begin();
        for (page, address) in bytes.chunks(PAGE).zip([0x1000, 0x2000, 0x3000, 0x4000, 0x5000]) {
            one_by_one.measured(PageType::Normal, &sha384(page), address);
        }
        assert_eq!(together, one_by_one);
    }
}
