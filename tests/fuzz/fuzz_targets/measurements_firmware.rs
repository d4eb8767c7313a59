//! An OVMF image: its footer table, both kinds of launch metadata, and the digests that are built on them; and what is
//! stored of an image for SNP launches.
#![no_main]

use std::num::NonZeroU16;

use inwit_fuzz::vector;
use inwit_measurements::ovmf::SevSection;
use inwit_measurements::ovmf::{Firmware, PAGE};
use inwit_measurements::snp::{CpuSignature, DirectBoot, FirmwareLaunch, GuestFeatures, SvsmImages, Vmm};
use inwit_measurements::tdx::{Pass, cfv_digest, mrtd};
use libfuzzer_sys::fuzz_target;

// GUIDs as stored.
const FOOTER: [u8; 16] =
    [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
const TDX: [u8; 16] = [0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2];
const TDVF: [u8; 16] = [0xf3, 0xf9, 0xea, 0xe9, 0x8e, 0x16, 0xd5, 0x44, 0xa8, 0xeb, 0x7f, 0x4d, 0x87, 0x38, 0xf6, 0xae];

/// A page with TDVF metadata: the page itself as measured boot volume and as configuration volume, and a TD HOB.
fn tdvf() -> Vec<u8> {
    let mut image = vec![0; PAGE];
    let mut metadata = [TDVF.as_slice(), b"TDVF", &[112u32, 1, 3].map(u32::to_le_bytes).concat()].concat();
    for (raw, address, kind, attributes) in
        [(0x1000u32, 0xffff_f000u64, 0u32, 1u32), (0x10, 0xfffe_0000, 1, 0), (0, 0x80_9000, 2, 0)]
    {
        metadata.extend([0, raw].map(u32::to_le_bytes).concat());
        metadata.extend([address, 0x1000].map(u64::to_le_bytes).concat());
        metadata.extend([kind, attributes].map(u32::to_le_bytes).concat());
    }
    image[PAGE - 0x210..][..metadata.len()].copy_from_slice(&metadata);
    let table = [&0x200u32.to_le_bytes()[..], &[22, 0], &TDX, &[40, 0], &FOOTER].concat();
    let end = PAGE - 0x20;
    image[end - table.len()..end].copy_from_slice(&table);
    image
}

fn first() -> Vec<Vec<u8>> {
    assert!(mrtd(&tdvf(), Pass::Single).is_ok(), "the first input is to be a sound one");
    let real = ["ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"];
    let images: Vec<_> = real.map(|name| vector(&format!("virtee+sev-snp-measure/{name}"))).into();
    let stored = images.iter().filter_map(|image| FirmwareLaunch::measure(image).ok());
    let stored: Vec<_> = stored.filter_map(|launch| serde_json::to_vec(&launch).ok()).collect();
    images.into_iter().chain(stored).chain([tdvf()]).collect()
}

/// Metadata may name up to a GiB, which is slow but meant; only little is hashed here.
fn few(bytes: u64) -> bool {
    bytes <= 1 << 24
}

fn all_bytes(sections: &[SevSection]) -> u64 {
    sections.iter().map(|section| u64::from(section.size)).sum()
}

/// Enough that all kinds of register pages are hashed.
const SOME_VCPUS: NonZeroU16 = NonZeroU16::new(9).unwrap();

/// Every shape has a digest or a named reason, and the stored form gives the same.
fn launches(launch: &FirmwareLaunch) {
    let stored = serde_json::to_vec(launch).unwrap();
    assert_eq!(serde_json::from_slice::<FirmwareLaunch>(&stored).unwrap(), *launch);
    if !few(all_bytes(launch.sections())) {
        return;
    }
    let boot = DirectBoot::measure(b"kernel", b"initrd", "console=ttyS0").unwrap();
    for vmm in Vmm::ALL {
        for (boot, vcpus) in [(None, NonZeroU16::MIN), (Some(&boot), SOME_VCPUS)] {
            let _ = launch.digest(boot, vcpus, CpuSignature::EPYC_V4, GuestFeatures::SNP, vmm);
        }
    }
}

fuzz_target!(init: inwit_fuzz::begin_with(first()), |input: &[u8]| {
    if let Ok(launch) = serde_json::from_slice::<FirmwareLaunch>(input) {
        return launches(&launch);
    }
    // Everything is found from the end, and only whole pages are an image.
    let mut image = vec![0; input.len().next_multiple_of(PAGE) - input.len()];
    image.extend(input);
    let Ok(firmware) = Firmware::parse(&image) else { return };
    if let Ok(launch) = FirmwareLaunch::measure(&image) {
        launches(&launch);
    }
    if let Ok(launch) = (SvsmImages { firmware: &image, variables_bytes: 0x1000, svsm: &image }).measure() {
        launches(&launch);
    }
    if firmware.tdvf_sections().is_ok_and(|all| few(all.iter().map(|one| one.size).sum())) {
        assert!([Pass::Single, Pass::TwoPass].iter().all(|pass| mrtd(&image, *pass).is_ok()));
    }
    let _ = cfv_digest(&image);
});
