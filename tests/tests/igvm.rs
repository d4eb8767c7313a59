//! IGVM files that Microsoft's `igvm` crate writes, and its digests of them beside ours: for SEV-SNP and TDX, over many
//! random guests. Only the loader that does what the format prescribes has a second opinion; QEMU's order has none here.

use igvm::measurement::{generate_snp_measurement, generate_tdx_measurement};
use igvm::snp_defs::SevVmsa;
use igvm::{
    Arch, CorimTemplate, IgvmDirectiveHeader as Directive, IgvmFile, IgvmInitializationHeader as Initialization,
    IgvmPlatformHeader, IgvmRevision, IgvmSerializer,
};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType,
    IgvmPlatformType,
};
use inwit_measurements::igvm::{Igvm, Loader};
use inwit_measurements::reference::{Form, Measured, Stated};
use proptest::prelude::*;
use zerocopy::FromBytes;

const SNP: u32 = 1;
const TDX: u32 = 2;
const NATIVE: u32 = 4;
/// In a page of registers; without its bit 0 they are no SNP guest's.
const SEV_FEATURES: usize = 0x3b0;

fn platform(mask: u32, kind: IgvmPlatformType) -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: mask,
        highest_vtl: 0,
        platform_type: kind,
        platform_version: 1,
        shared_gpa_boundary: 0,
    })
}

/// What a random guest does; addresses and numbers are given out in order, so that nothing is loaded twice.
#[derive(Debug, Clone)]
enum Step {
    Page { mask: u32, kind: u16, unmeasured: bool, shared: bool, fill: Option<u8>, gap: u64 },
    Parameters { mask: u32, pages: u64 },
    Registers { fill: u8 },
    RequiredMemory { mask: u32 },
    ErrorRange { mask: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let mask = prop_oneof![Just(SNP), Just(TDX), Just(NATIVE), Just(SNP | TDX), Just(SNP | TDX | NATIVE)];
    let page = (mask.clone(), any::<bool>(), any::<bool>(), proptest::option::of(any::<u8>()), 0u64..3, 0u16..4)
        .prop_map(|(mask, unmeasured, shared, fill, gap, kind)| {
            // Secrets and CPUID pages are for SNP alone.
            let kind = if mask == SNP { kind } else { 0 };
            Step::Page { mask, kind, unmeasured, shared, fill, gap }
        });
    prop_oneof![
        8 => page,
        2 => (mask.clone(), 1u64..4).prop_map(|(mask, pages)| Step::Parameters { mask, pages }),
        1 => any::<u8>().prop_map(|fill| Step::Registers { fill }),
        1 => mask.clone().prop_map(|mask| Step::RequiredMemory { mask }),
        1 => mask.prop_map(|mask| Step::ErrorRange { mask }),
    ]
}

fn directives(steps: &[Step]) -> Vec<Directive> {
    let (mut all, mut address, mut area, mut vcpu) = (vec![], 0x10_0000, 0, 0);
    for step in steps {
        match step {
            Step::Page { mask, kind, unmeasured, shared, fill, gap } => {
                address += 0x1000 * (gap + 1);
                let flags = IgvmPageDataFlags::new().with_unmeasured(*unmeasured).with_shared(*shared);
                let data =
                    fill.map(|fill| (0..4096).map(|at| fill.wrapping_add(at as u8)).collect()).unwrap_or_default();
                let data_type = IgvmPageDataType(*kind);
                all.push(Directive::PageData { gpa: address, compatibility_mask: *mask, flags, data_type, data });
            }
            Step::Parameters { mask, pages } => {
                area += 1;
                address += 0x1000;
                let number_of_bytes = pages * 0x1000;
                let declared =
                    Directive::ParameterArea { number_of_bytes, parameter_area_index: area, initial_data: vec![] };
                let parameter = IGVM_VHS_PARAMETER { parameter_area_index: area, byte_offset: 8 };
                let gpa = address;
                let insert = IGVM_VHS_PARAMETER_INSERT { gpa, compatibility_mask: *mask, parameter_area_index: area };
                all.extend([declared, Directive::VpCount(parameter), Directive::ParameterInsert(insert)]);
                address += number_of_bytes;
            }
            Step::Registers { fill } => {
                address += 0x1000;
                let mut page: Vec<u8> = (0..4096).map(|at| fill.wrapping_mul(at as u8)).collect();
                page[SEV_FEATURES] |= 1;
                let vmsa = Box::new(SevVmsa::read_from_bytes(&page).unwrap());
                all.push(Directive::SnpVpContext { gpa: address, compatibility_mask: SNP, vp_index: vcpu, vmsa });
                vcpu += 1;
            }
            Step::RequiredMemory { mask } => all.push(Directive::RequiredMemory {
                gpa: 0x4000_0000,
                compatibility_mask: *mask,
                number_of_bytes: 0x20_0000,
                vtl2_protectable: true,
            }),
            Step::ErrorRange { mask } => {
                all.push(Directive::ErrorRange { gpa: 0x5000_0000, compatibility_mask: *mask, size_bytes: 0x1000 });
            }
        }
    }
    all
}

fn policies() -> Vec<Initialization> {
    vec![Initialization::GuestPolicy { policy: 0x30000, compatibility_mask: SNP }]
}

fn write(revision: IgvmRevision, directives: Vec<Directive>) -> (IgvmFile, Vec<u8>) {
    let platforms = vec![
        platform(SNP, IgvmPlatformType::SEV_SNP),
        platform(TDX, IgvmPlatformType::TDX),
        platform(NATIVE, IgvmPlatformType::NATIVE),
    ];
    let file = IgvmFile::new(revision, platforms, policies(), directives).unwrap();
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).unwrap();
    (file, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn digests_are_those_of_the_igvm_crate(
        steps in proptest::collection::vec(step(), 0..24),
        version_2 in any::<bool>(),
    ) {
        let revision = match version_2 {
            false => IgvmRevision::V1,
            true => IgvmRevision::V2 { arch: Arch::X64, page_size: 4096 },
        };
        // No guest starts without registers on SNP, or without a page on TDX; and the writer wants data in its file.
        let page = Step::Page { mask: TDX, kind: 0, unmeasured: false, shared: false, fill: Some(1), gap: 0 };
        let all = directives(&[steps, vec![page, Step::Registers { fill: 1 }]].concat());
        let (_, bytes) = write(revision, all.clone());
        let ours = Igvm::parse(&bytes).unwrap();
        let launch = ours.snp_launch(Loader::Format).unwrap();
        let theirs = generate_snp_measurement(&policies(), &all, SNP).unwrap();
        prop_assert_eq!(launch.digest.as_bytes(), &theirs);
        prop_assert_eq!(launch.policy, Some(0x30000));
        let mrtd = ours.mrtd().unwrap();
        prop_assert_eq!(mrtd.as_bytes(), &generate_tdx_measurement(&all, TDX).unwrap());
    }
}

/// The manifest that the crate puts beside the digest is one that we read, and states our digest.
#[test]
fn the_crates_own_manifest_states_our_digest() {
    use igvm::corim::launch_measurement::{LaunchMeasurement, MeasurementKind};
    let steps = [
        Step::Page { mask: SNP, kind: 0, unmeasured: false, shared: false, fill: Some(7), gap: 0 },
        Step::Page { mask: SNP, kind: 1, unmeasured: false, shared: false, fill: None, gap: 0 },
        Step::Registers { fill: 3 },
    ];
    let (file, _) = write(IgvmRevision::V1, directives(&steps));
    let mut statement = LaunchMeasurement::for_platform(IgvmPlatformType::SEV_SNP).unwrap();
    statement.set_measurement(MeasurementKind::Launch).unwrap();
    statement.endorse(1).with(MeasurementKind::Launch).unwrap().finish().unwrap();
    let mut serializer = IgvmSerializer::new(&file).unwrap();
    let template: CorimTemplate = statement.build();
    let manifest = serializer.add_corim(IgvmPlatformType::SEV_SNP, template).unwrap().to_vec();
    let mut bytes = Vec::new();
    serializer.serialize(&mut bytes).unwrap();
    let launch = Igvm::parse(&bytes).unwrap().snp_launch(Loader::Format).unwrap();
    let stated = Stated::read(&manifest).unwrap();
    assert_eq!(stated.form, Form::Corim);
    assert_eq!((stated.measured, stated.agent), (Measured::Snp { launch_digest: launch.digest }, None));
}
