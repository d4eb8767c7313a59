//! From directives to the launch digest of an SEV-SNP guest.
//!
//! Nothing of the file is trusted: what the platform or the loader does not do is refused. Never checks signatures.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::areas::{Areas, Loaded};
use super::directives::{Act, Directive, Page};
use super::error::IgvmError;
use super::{Igvm, Loader, Platform};
use crate::bytes::u64_at;
use crate::digest::{Digest, sha384};
use crate::ovmf::{PAGE, PAGE_BYTES};
use crate::snp::launch::{Launch, PageType, VMSA_ADDRESS};

/// IgvmPageDataType; 0 is normal.
const SECRETS: u16 = 1;
const CPUID: u16 = 2;
const CPUID_EXTENDED: u16 = 3;
/// SEV_FEATURES in a VMSA page, and its bit for SNP (AMD64 APM volume 2, appendix B).
const SEV_FEATURES: usize = 0x3b0;
const SNP_ACTIVE: u64 = 1;
/// CR0 as KVM leaves it: protected mode, extension type, numeric errors.
const CR0: usize = 0x158;
const KVM_CR0: u64 = 0x31;
/// Other registers in which KVM, or the processor that it asks, sets a bit whatever the file says: offset, bit, what to
/// say of it.
const KVM_SETS: [(usize, u64, &str); 5] = [
    (0x0d0, 1 << 12, "EFER lacks bit 12 (SVME), which KVM sets"),
    (0x148, 1 << 6, "CR4 lacks bit 6 (MCE), which KVM sets"),
    (0x160, 1 << 10, "DR7 lacks bit 10, which is always set"),
    (0x170, 1 << 1, "RFLAGS lacks bit 1, which is always set"),
    (0x3e8, 1, "XCR0 lacks bit 0 (x87 state), which is always set"),
];
/// Headers that QEMU's loader knows, of those that are known here.
const QEMU_KNOWS: [u32; 11] = [0x101, 0x301, 0x302, 0x303, 0x304, 0x305, 0x307, 0x309, 0x30b, 0x30c, 0x313];

/// The bit of the guest policy that lets the host read and change the guest (SEV-SNP ABI 4.3, DEBUG).
const POLICY_DEBUG: u64 = 1 << 19;

/// What a file says of an SEV-SNP launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpLaunch {
    /// MEASUREMENT of the attestation report.
    pub digest: Digest<48>,
    /// The guest policy, if the file has one; QEMU then takes it in place of its option.
    pub policy: Option<u64>,
    /// Whether the file has an ID block; it then is for this digest.
    pub id_block: bool,
    /// vCPUs whose registers the file sets.
    pub vcpus: usize,
}

impl SnpLaunch {
    /// Whether the policy lets the host debug the guest, which then keeps nothing from it; nothing if the file has no
    /// policy.
    #[must_use]
    pub fn debug_allowed(&self) -> Option<bool> {
        self.policy.map(|policy| policy & POLICY_DEBUG != 0)
    }
}

pub(super) fn launch(igvm: &Igvm<'_>, loader: Loader) -> Result<SnpLaunch, IgvmError> {
    let mask = igvm.mask(Platform::Snp)?;
    let mut walk = Walk::new(igvm, loader);
    for (number, directive) in igvm.directives.iter().enumerate() {
        // For whichever platform: QEMU looks at the type before the mask.
        if loader == Loader::Qemu && !QEMU_KNOWS.contains(&directive.kind) {
            let problem = "its loader does not know a header of this type";
            return Err(IgvmError::Qemu { at: directive.at, problem });
        }
        if directive.mask.is_none_or(|of| of & mask != 0) {
            walk.directive(number, directive)?;
        }
    }
    walk.end()
}

/// What KVM would change in a page of registers, and so measure otherwise; the first such register.
fn changed_by_kvm(page: &[u8; PAGE]) -> Option<&'static str> {
    if u64_at(page, CR0) != Some(KVM_CR0) {
        return Some("CR0 is not 0x31, which KVM makes it");
    }
    let unset = |offset: usize, bit: u64| u64_at(page, offset).is_none_or(|value| value & bit == 0);
    KVM_SETS.iter().find(|(offset, bit, _)| unset(*offset, *bit)).map(|(.., problem)| *problem)
}

/// SHA-384 of a page of zeros: pages without data cost the file nothing, and here one hash less.
static ZEROS: LazyLock<Digest<48>> = LazyLock::new(|| sha384(&[0; PAGE]));

/// Whether QEMU takes a page into the run that a page before it belongs to: right behind it in the file and in memory, and
/// alike.
fn continues(last: &(usize, Option<u32>, Page<'_>), next: &(usize, Option<u32>, Page<'_>)) -> bool {
    let alike = |page: &Page<'_>| (page.kind, page.unmeasured, page.shared, page.data.is_some());
    let (one, other) = (&last.2, &next.2);
    last.0.checked_add(1) == Some(next.0)
        && last.1 == next.1
        && alike(one) == alike(other)
        && one.address.checked_add(PAGE_BYTES) == Some(other.address)
}

struct Walk<'i, 'a> {
    igvm: &'i Igvm<'a>,
    loader: Loader,
    launch: Launch,
    areas: Areas,
    loaded: Loaded,
    /// A run of pages that QEMU has seen and not added yet: each with its directive's number in the file.
    waiting: Vec<(usize, Option<u32>, Page<'a>)>,
    /// Registers that KVM measures in the end.
    registers: Option<&'a [u8; PAGE]>,
    vcpus: BTreeSet<u16>,
    policy: Option<u64>,
    id_block: Option<Box<Digest<48>>>,
}

impl<'i, 'a> Walk<'i, 'a> {
    fn new(igvm: &'i Igvm<'a>, loader: Loader) -> Self {
        Self {
            igvm,
            loader,
            launch: Launch::begin(),
            areas: Areas::default(),
            loaded: Loaded::default(),
            waiting: vec![],
            registers: None,
            vcpus: BTreeSet::new(),
            policy: None,
            id_block: None,
        }
    }

    fn directive(&mut self, number: usize, directive: &Directive<'a>) -> Result<(), IgvmError> {
        let (at, kind) = (directive.at, directive.kind);
        match &directive.act {
            Act::Policy(policy) if self.policy.replace(*policy).is_some() => Err(IgvmError::Twice { at, kind }),
            Act::Policy(_) | Act::Nothing => Ok(()),
            Act::Relocatable => Err(IgvmError::Relocatable { at }),
            Act::Foreign => Err(IgvmError::Foreign { at, kind, platform: Platform::Snp.name() }),
            Act::Page(page) => self.page(at, (number, directive.mask, *page)),
            Act::Area { index, bytes } => self.areas.declare(at, *index, *bytes),
            Act::Parameter { index, offset } => self.areas.write(at, *index, *offset),
            Act::Insert { address, index } => {
                let pages = self.areas.insert(at, *address, *index)?;
                self.loaded.add(at, *address, pages)?;
                self.launch.unmeasured(PageType::Unmeasured, *address, pages);
                Ok(())
            }
            Act::Registers { address, vcpu, offset } => self.registers(at, *address, *vcpu, *offset),
            Act::IdBlock(digest) if self.id_block.replace(digest.clone()).is_some() => {
                Err(IgvmError::Twice { at, kind })
            }
            Act::IdBlock(_) => Ok(()),
        }
    }

    fn page(&mut self, at: usize, next: (usize, Option<u32>, Page<'a>)) -> Result<(), IgvmError> {
        let page = next.2;
        if page.kind > CPUID_EXTENDED {
            return Err(IgvmError::PageType { at, kind: page.kind, platform: Platform::Snp.name() });
        }
        self.loaded.add(at, page.address, 1)?;
        match self.loader {
            Loader::Format => self.add(&page),
            Loader::Qemu if page.shared => {
                return Err(IgvmError::Qemu { at, problem: "it makes a private page of one that is to be shared" });
            }
            Loader::Qemu => {
                if self.waiting.last().is_some_and(|last| !continues(last, &next)) {
                    self.add_waiting();
                }
                self.waiting.push(next);
            }
        }
        Ok(())
    }

    fn add_waiting(&mut self) {
        for (.., page) in std::mem::take(&mut self.waiting) {
            self.add(&page);
        }
    }

    fn add(&mut self, page: &Page<'_>) {
        match (page.shared, page.kind, page.unmeasured) {
            // Host memory: no part of the launch.
            (true, ..) => (),
            (_, SECRETS, _) => self.launch.unmeasured(PageType::Secrets, page.address, 1),
            (_, CPUID | CPUID_EXTENDED, _) => self.launch.unmeasured(PageType::Cpuid, page.address, 1),
            (_, _, true) => self.launch.unmeasured(PageType::Unmeasured, page.address, 1),
            (_, _, false) => {
                let digest = page.data.map_or_else(|| *ZEROS, |data| sha384(data));
                self.launch.measured(PageType::Normal, &digest, page.address);
            }
        }
    }

    fn registers(&mut self, at: usize, address: u64, vcpu: u16, offset: u32) -> Result<(), IgvmError> {
        let page = self.igvm.page_at(at, offset)?;
        if !self.vcpus.insert(vcpu) {
            return Err(IgvmError::Twice { at, kind: 0x304 });
        }
        if u64_at(page, SEV_FEATURES).is_none_or(|features| features & SNP_ACTIVE == 0) {
            return Err(IgvmError::NotSnp { at });
        }
        if self.loader == Loader::Qemu {
            let problem = match () {
                () if vcpu != 0 || self.vcpus.len() > 1 => "registers of another vCPU than the first are set",
                () if address != VMSA_ADDRESS => "the registers are not at 0xfffffffff000, where KVM puts them",
                () => match changed_by_kvm(page) {
                    Some(problem) => problem,
                    None => {
                        self.registers = Some(page);
                        return Ok(());
                    }
                },
            };
            return Err(IgvmError::Qemu { at, problem });
        }
        // Register pages of several vCPUs may share KVM's address, which is no memory of the guest.
        if address != VMSA_ADDRESS {
            self.loaded.add(at, address, 1)?;
        }
        self.launch.measured(PageType::Vmsa, &sha384(page), address);
        Ok(())
    }

    fn end(mut self) -> Result<SnpLaunch, IgvmError> {
        self.add_waiting();
        if self.loader == Loader::Qemu {
            let problem = "no registers are set: KVM would measure those that QEMU resets a vCPU to";
            let page = self.registers.ok_or(IgvmError::Qemu { at: 0, problem })?;
            self.launch.measured(PageType::Vmsa, &sha384(page), VMSA_ADDRESS);
        }
        if self.vcpus.is_empty() {
            let (platform, missing) = (Platform::Snp.name(), "registers of a vCPU");
            return Err(IgvmError::Nothing { platform, missing });
        }
        let digest = self.launch.digest();
        match &self.id_block {
            Some(said) if **said != digest => {
                Err(IgvmError::IdBlock { said: said.clone(), computed: Box::new(digest) })
            }
            id_block => {
                Ok(SnpLaunch { digest, policy: self.policy, id_block: id_block.is_some(), vcpus: self.vcpus.len() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{
        SNP, Sample, TDX, area, directive, id_block, insert, page, platform, policy, registers,
    };
    use super::*;

    fn launch(sample: &Sample, loader: Loader) -> Result<SnpLaunch, IgvmError> {
        let file = sample.build();
        Igvm::parse(&file)?.snp_launch(loader)
    }

    /// The pages that the sample adds, by hand; each step of [`Launch`] is checked against published values.
    fn by_hand(steps: &[&dyn Fn(&mut Launch)]) -> Digest<48> {
        let mut launch = Launch::begin();
        steps.iter().for_each(|step| step(&mut launch));
        launch.digest()
    }

    #[test]
    fn pages_are_added_in_the_order_of_each_loader() {
        let sample = Sample::snp();
        let normal =
            |fill: u8, address| move |launch: &mut Launch| launch.contents(PageType::Normal, &[fill; PAGE], address);
        let first = |launch: &mut Launch| {
            normal(0x11, 0x10_0000)(launch);
            normal(0x22, 0x10_1000)(launch);
        };
        let parameters = |launch: &mut Launch| launch.unmeasured(PageType::Unmeasured, 0x20_0000, 2);
        let rest = |launch: &mut Launch| {
            normal(0, 0x10_2000)(launch);
            launch.unmeasured(PageType::Unmeasured, 0x10_3000, 1);
            launch.unmeasured(PageType::Secrets, 0x10_4000, 1);
            launch.unmeasured(PageType::Cpuid, 0x10_5000, 1);
            launch.measured(PageType::Vmsa, &sha384(&sample.pages[2]), VMSA_ADDRESS);
        };
        let told = launch(&sample, Loader::Format).unwrap();
        assert_eq!(told.digest, by_hand(&[&first, &parameters, &rest]));
        assert_eq!((told.policy, told.id_block, told.vcpus), (Some(0x30000), false, 1));
        assert_eq!(told.debug_allowed(), Some(false));
        // QEMU adds the parameters at once, and the run of pages before them when the next run begins.
        assert_eq!(launch(&sample, Loader::Qemu).unwrap().digest, by_hand(&[&parameters, &first, &rest]));
    }

    #[test]
    fn everything_that_is_measured_changes_the_digest() {
        let base = launch(&Sample::snp(), Loader::Format).unwrap().digest;
        let changed = |change: &dyn Fn(&mut Sample)| {
            let mut sample = Sample::snp();
            change(&mut sample);
            launch(&sample, Loader::Format).unwrap().digest
        };
        let others = [
            changed(&|s| s.pages[0][4095] ^= 1),
            changed(&|s| s.pages[2][0] ^= 1),
            changed(&|s| s.headers[5] = page(0x11_0000, 3, 1, 0, 0)),
            changed(&|s| s.headers[5] = page(0x10_0000, 3, 1, 2, 0)),
            changed(&|s| s.headers[5] = page(0x10_0000, 3, 1, 0, 1)),
            changed(&|s| s.headers[5] = page(0x10_0000, 2, 1, 0, 0)),
            changed(&|s| s.headers[3] = area(7, 0x3000)),
            changed(&|s| s.headers.swap(5, 6)),
        ];
        for (number, other) in others.iter().enumerate() {
            assert!(*other != base && !others[..number].contains(other), "variation {number}");
        }
        let same = [
            changed(&|s| s.headers[2] = policy(1, 0xb_0000)),
            changed(&|s| drop(s.headers.remove(2))),
            changed(&|s| s.headers.insert(5, page(0x30_0000, 1, 1, 4, 0))),
            changed(&|s| s.headers.insert(5, page(0x30_0000, 2, 1, 0, 0))),
            changed(&|s| s.headers.insert(3, directive(0x305, &[&[0; 8][..], &[1, 0, 0, 0], &[0; 12]].concat()))),
        ];
        assert_eq!(same, [base; 5], "what is not measured, shared with the host, or another platform's");
    }

    #[test]
    fn an_id_block_must_be_for_the_digest() {
        let digest = launch(&Sample::snp(), Loader::Format).unwrap().digest;
        let mut signed = Sample::snp();
        signed.headers.push(id_block(1, digest.as_bytes()));
        assert!(launch(&signed, Loader::Format).unwrap().id_block);
        let refused = launch(&signed, Loader::Qemu).unwrap_err().to_string();
        assert!(refused.contains("ID block") && refused.contains(&digest.to_string()), "{refused}");
        signed.headers.push(id_block(1, digest.as_bytes()));
        assert!(matches!(launch(&signed, Loader::Format), Err(IgvmError::Twice { kind: 0x30b, .. })));
    }

    #[test]
    fn each_fault_of_the_directives_is_named() {
        let start = || vec![platform(1, SNP, 1), platform(2, TDX, 1)];
        let fails = |headers: Vec<Vec<u8>>| {
            let sample = Sample { headers: [start(), headers].concat(), ..Sample::snp() };
            launch(&sample, Loader::Format).unwrap_err().to_string()
        };
        let good = || page(0x1000, 1, 1, 0, 0);
        let huge = 1 << 30;
        let one = |length: usize| [vec![1, 0, 0, 0], vec![1; length - 4]].concat();
        for (error, named) in [
            (fails(vec![page(0x1001, 1, 1, 0, 0)]), "0x1001"),
            (fails(vec![page(0xffff_ffff_ffff_f000, 1, 1, 0, 0)]), "0xfffffffffffff000"),
            (fails(vec![page(0x20_0000, 1, 1, 1, 0)]), "2 MiB"),
            (fails(vec![page(0x1000, 1, 1, 8, 0)]), "reserved"),
            (fails(vec![page(0x1000, 1, 1, 0, 4)]), "type 4"),
            (fails(vec![page(0x1000, 1, 40, 0, 0)]), "offset 0x28"),
            (fails(vec![page(0x1000, 1, 0xffff_f000, 0, 0)]), "offset 0xfffff000"),
            (fails(vec![good(), good()]), "a second time"),
            (fails(vec![insert(0, 1, 7)]), "not declared"),
            (fails(vec![area(7, 4096), insert(0, 1, 7), insert(0x1000, 1, 7)]), "inserted already"),
            (fails(vec![area(7, 4096), area(7, 4096)]), "declared twice"),
            (fails(vec![area(7, 100)]), "0x64"),
            (fails(vec![area(7, 4096), directive(0x307, &[7, 0, 0, 0, 0, 16, 0, 0])]), "outside"),
            (fails(vec![area(7, 4096), page(0x2000, 1, 1, 0, 0), insert(0x2000, 1, 7)]), "a second time"),
            (fails(vec![area(7, huge), area(8, huge), insert(0, 1, 7), insert(huge, 1, 8)]), "more than 1073741824"),
            (fails(vec![area(7, 0xffff_ffff_ffff_e000), insert(0x10_0000, 1, 7)]), "more than 1073741824"),
            (fails(vec![registers(0x1000, 1, 3, 0), registers(0x2000, 1, 3, 0)]), "second time"),
            (fails(vec![area(7, huge), insert(huge, 1, 7), good()]), "more than 1073741824"),
            (fails(vec![good(), area(7, huge), insert(huge, 1, 7)]), "more than 1073741824"),
            (fails(vec![registers(0x1000, 1, 0, 0)]), "offset 0x0"),
            (fails(vec![registers(0x1000, 1, 3, 0), page(0x1000, 1, 1, 0, 0)]), "a second time"),
            (fails(vec![directive(0x102, &one(48))]), "move memory"),
            (fails(vec![directive(0x103, &one(32))]), "move memory"),
            (fails(vec![directive(0x106, &one(32))]), "another platform"),
            (fails(vec![directive(0x311, &one(864))]), "another platform"),
            (fails(vec![policy(1, 1), policy(1, 1)]), "second time"),
            (fails(vec![directive(0x101, &[1; 16])]), "reserved"),
            (
                fails(vec![directive(0x104, &[&[1, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0][..], &[0; 4]].concat())]),
                "data",
            ),
        ] {
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn what_qemu_does_not_do_as_the_file_says_is_refused_for_qemu() {
        let qemu = |change: &dyn Fn(&mut Sample)| {
            let mut sample = Sample::snp();
            change(&mut sample);
            (launch(&sample, Loader::Format).is_ok(), launch(&sample, Loader::Qemu).unwrap_err().to_string())
        };
        let last = Sample::snp().headers.len() - 1;
        for ((format, error), named) in [
            (qemu(&|s| s.headers[last] = registers(0x30_0000, 1, 3, 0)), "0xfffffffff000"),
            (qemu(&|s| s.headers[last] = registers(VMSA_ADDRESS, 1, 3, 1)), "another vCPU"),
            (qemu(&|s| s.headers.push(registers(VMSA_ADDRESS, 1, 3, 1))), "another vCPU"),
            (qemu(&|s| s.pages[2][CR0] = 0x11), "CR0 is not 0x31"),
            (qemu(&|s| s.pages[2][0x0d1] = 0x0f), "EFER lacks bit 12"),
            (qemu(&|s| s.pages[2][0x148] = 0), "CR4 lacks bit 6"),
            (qemu(&|s| s.pages[2][0x161] = 0), "DR7 lacks bit 10"),
            (qemu(&|s| s.pages[2][0x170] = 0xfd), "RFLAGS lacks bit 1"),
            (qemu(&|s| s.pages[2][0x3e8] = 0xfe), "XCR0 lacks bit 0"),
            (qemu(&|s| s.headers.push(page(0x30_0000, 1, 1, 4, 0))), "shared"),
            (qemu(&|s| s.headers.push(directive(0x30d, &[0; 16]))), "does not know"),
            (qemu(&|s| s.headers.insert(2, directive(0x107, b"1.0"))), "does not know"),
        ] {
            assert!(format, "{named}: the format allows it");
            assert!(error.contains("QEMU with KVM") && error.contains(named), "{named}: {error}");
        }
    }
    #[test]
    fn registers_must_be_there_and_be_those_of_an_snp_guest() {
        let mut none = Sample::snp();
        none.headers.pop();
        assert!(matches!(launch(&none, Loader::Format), Err(IgvmError::Nothing { .. })));
        assert!(launch(&none, Loader::Qemu).unwrap_err().to_string().contains("no registers"));
        let mut plain = Sample::snp();
        plain.pages[2][SEV_FEATURES] = 0xfe;
        for loader in [Loader::Format, Loader::Qemu] {
            assert!(matches!(launch(&plain, loader), Err(IgvmError::NotSnp { .. })));
        }
    }

    /// One page of the file for each of many headers: neither time nor memory goes beyond the bound.
    #[test]
    fn pages_that_cost_the_file_nothing_are_bounded() {
        let mut many = Sample::snp();
        let most = super::super::MAX_LOADED_BYTES / PAGE_BYTES;
        many.headers = vec![platform(1, SNP, 1)];
        many.headers.extend((0..=most).map(|number| page(number * PAGE_BYTES, 1, 1, 4, 0)));
        many.headers.push(registers(VMSA_ADDRESS, 1, 3, 0));
        assert_eq!(launch(&many, Loader::Format), Err(IgvmError::TooMuch));
        many.headers.remove(1);
        assert!(launch(&many, Loader::Format).is_ok());
    }
}
