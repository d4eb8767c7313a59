//! The register page (VMSA) that each vCPU starts from, as the hypervisor sets it up and the security processor measures
//! it.
//!
//! Sources: AMD64 APM volume 2 appendix B (VMSA layout), Linux KVM SVM reset values, QEMU x86 CPU reset; for EC2 and GCE
//! what an independent calculator (sev-snp-measure 0.0.13) computes. Everything not set here is zero. Nothing foreign is
//! parsed; never touches guest memory.

use crate::ovmf::PAGE;
use crate::snp::Vmm;

/// Where the boot processor starts: the reset vector.
pub(crate) const RESET_EIP: u32 = 0xffff_fff0;

/// The page attribute table at reset.
const PAT: u64 = 0x0007_0406_0007_0406;

/// Where the initial registers of hypervisors differ.
struct Flavour {
    cs: u16,
    ss: u16,
    tr: u16,
    pat: u64,
    rdx: u64,
    mxcsr: u32,
    fcw: u16,
}

impl Flavour {
    fn of(vmm: Vmm, eip: u32, cpu_signature: u32) -> Self {
        /// What EC2 and GCE put into RDX, whatever the CPU: the reset value of the first 64-bit family.
        const NO_SIGNATURE: u64 = 0x600;
        match vmm {
            // RDX: CPUID 1 EAX, as after a hardware reset.
            Vmm::Qemu => {
                let rdx = cpu_signature.into();
                Self { cs: 0x9b, ss: 0x93, tr: 0x8b, pat: PAT, rdx, mxcsr: 0x1f80, fcw: 0x037f }
            }
            Vmm::Ec2 => {
                let cs = if eip == RESET_EIP { 0x9a } else { 0x9b };
                Self { cs, ss: 0x92, tr: 0x83, pat: PAT, rdx: NO_SIGNATURE, mxcsr: 0, fcw: 0 }
            }
            Vmm::Gce => Self { cs: 0x9b, ss: 0x93, tr: 0x8b, pat: 0x0007_0106, rdx: NO_SIGNATURE, mxcsr: 0, fcw: 0 },
        }
    }
}

/// A VMSA page for a vCPU that starts at `eip`, with a CPU signature and SEV_FEATURES.
pub(crate) fn page(vmm: Vmm, eip: u32, cpu_signature: u32, sev_features: u64) -> Box<[u8; PAGE]> {
    let Flavour { cs, ss, tr, pat, rdx, mxcsr, fcw } = Flavour::of(vmm, eip, cpu_signature);
    let mut page = Box::new([0; PAGE]);
    let data = real(0, 0x93, 0);
    let code = real(0xf000, cs, eip & 0xffff_0000);
    segments(&mut page, [data, code, real(0, ss, 0), data, data, data], real(0, tr, 0));
    put(&mut page, 0x158, &0x10u64.to_le_bytes()); // CR0: ET
    put(&mut page, 0x178, &u64::from(eip & 0xffff).to_le_bytes()); // RIP
    put(&mut page, 0x268, &pat.to_le_bytes()); // PAT
    put(&mut page, 0x310, &rdx.to_le_bytes()); // RDX
    put(&mut page, 0x3b0, &sev_features.to_le_bytes());
    put(&mut page, 0x408, &mxcsr.to_le_bytes()); // MXCSR
    put(&mut page, 0x410, &fcw.to_le_bytes()); // FCW
    page
}

/// A VMSA page for a vCPU that starts in an SVSM at `eip`: 32-bit protected mode with flat segments (COCONUT's QEMU).
///
/// FCW stays zero beside MXCSR 0x1f80, as the independent calculator has it and as the recorded digests were made: in it
/// the value for FCW goes to a field that the page does not have. No KVM is known to start a vCPU so: kernels before about
/// 6.9 leave both registers zero, later ones make them 0x1f80 and 0x037f. The digest is one to compare with the
/// calculator's; that a launch measures it has not been seen.
pub(crate) fn svsm_page(eip: u32, cpu_signature: u32, sev_features: u64) -> Box<[u8; PAGE]> {
    let mut page = Box::new([0; PAGE]);
    let data = Segment { selector: 0x10, attributes: 0xc93, limit: u32::MAX, base: 0 };
    let code = Segment { selector: 0x08, attributes: 0xc9b, limit: u32::MAX, base: 0 };
    segments(&mut page, [data, code, data, data, data, real(0, 0x93, 0)], real(0, 0x8b, 0));
    put(&mut page, 0x158, &0x11u64.to_le_bytes()); // CR0: ET, PE
    put(&mut page, 0x178, &u64::from(eip).to_le_bytes()); // RIP
    put(&mut page, 0x268, &PAT.to_le_bytes());
    put(&mut page, 0x310, &u64::from(cpu_signature).to_le_bytes()); // RDX
    put(&mut page, 0x3b0, &sev_features.to_le_bytes());
    put(&mut page, 0x408, &0x1f80u32.to_le_bytes()); // MXCSR
    page
}

/// A segment register: selector u16, attributes u16, limit u32, base u64.
#[derive(Clone, Copy)]
struct Segment {
    selector: u16,
    attributes: u16,
    limit: u32,
    base: u32,
}

/// A segment with the limit of real mode.
const fn real(selector: u16, attributes: u16, base: u32) -> Segment {
    Segment { selector, attributes, limit: 0xffff, base }
}

/// ES, CS, SS, DS, FS, GS as given; then GDTR, LDTR, IDTR, TR; and the registers that are the same everywhere.
fn segments(page: &mut [u8; PAGE], first: [Segment; 6], tr: Segment) {
    let rest = [real(0, 0, 0), real(0, 0x82, 0), real(0, 0, 0), tr];
    for (segment, offset) in first.into_iter().chain(rest).zip((0..).step_by(16)) {
        put(page, offset, &segment.selector.to_le_bytes());
        put(page, offset + 2, &segment.attributes.to_le_bytes());
        put(page, offset + 4, &segment.limit.to_le_bytes());
        put(page, offset + 8, &u64::from(segment.base).to_le_bytes());
    }
    put(page, 0x0d0, &0x1000u64.to_le_bytes()); // EFER: KVM sets SVME
    put(page, 0x148, &0x40u64.to_le_bytes()); // CR4: KVM sets MCE
    put(page, 0x160, &0x400u64.to_le_bytes()); // DR7
    put(page, 0x168, &0xffff_0ff0u64.to_le_bytes()); // DR6
    put(page, 0x170, &0x2u64.to_le_bytes()); // RFLAGS
    put(page, 0x3e8, &1u64.to_le_bytes()); // XCR0: x87 state only
}

/// Offsets are the constants of this file, all inside the page.
fn put(page: &mut [u8; PAGE], offset: usize, value: &[u8]) {
    page[offset..offset + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha384;

    #[test]
    fn pages_have_the_published_digests() {
        // EPYC-v4, SEV_FEATURES 1, as computed with an independent calculator.
        let boot = sha384(page(Vmm::Qemu, RESET_EIP, 0x0080_0f12, 1).as_ref());
        let boot_page =
            "77920c4c629ff47e90c0e174fc1ad0eb6fa664f88cd4739488058a8c6cb1a77b3856f55378e9518d0da99452d51c553a";
        assert_eq!(boot.to_string(), boot_page);
        let application = sha384(page(Vmm::Qemu, 0x0080_b004, 0x0080_0f12, 1).as_ref());
        let application_page =
            "8413b852790765a310d95867a8b00bfca3a802b5a80830044b45e253fe96222657e11e53fcf63eb0e0afd722385bf7b4";
        assert_eq!(application.to_string(), application_page);
    }
}
