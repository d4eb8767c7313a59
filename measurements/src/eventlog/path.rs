//! UEFI device paths in words: where an image was loaded from.
//!
//! Source: UEFI 2.10 section 10.3. Nodes {type u8, sub-type u8, length u16, data}, ended by type 0x7F.
//!
//! Not trusted: the path. Unknown and malformed nodes are shown by their numbers. Never opens what a path names.

use super::text::{shown_guid, shown_wide};
use crate::bytes::{array_at, u16_at, u32_at, u64_at};

/// Most nodes that are looked at; real paths have under ten.
const MAX_NODES: usize = 32;
const END: u8 = 0x7f;

/// The path as its nodes, separated by slashes.
pub(super) fn shown_path(mut path: &[u8]) -> String {
    let mut nodes = Vec::new();
    while let (Some([kind, sub_type]), Some(length)) = (array_at::<2>(path, 0), u16_at(path, 2)) {
        if kind == END {
            break;
        }
        // No node is shorter than its header, so every turn moves on.
        let split = path.split_at_checked(usize::from(length)).filter(|(node, _)| node.len() >= 4);
        let (Some((node, rest)), true) = (split, nodes.len() < MAX_NODES) else {
            nodes.push("(malformed)".to_owned());
            break;
        };
        nodes.push(shown_node(kind, sub_type, node.get(4..).unwrap_or_default()));
        path = rest;
    }
    nodes.join("/")
}

fn shown_node(kind: u8, sub_type: u8, data: &[u8]) -> String {
    let known = match (kind, sub_type) {
        (1, 1) => array_at::<2>(data, 0).map(|[function, device]| format!("Pci({device:#x},{function:#x})")),
        (1, 3) => u64_at(data, 4).zip(u64_at(data, 12)).map(|(start, end)| format!("Memory({start:#x}-{end:#x})")),
        (1, 4) => array_at(data, 0).map(|vendor| format!("Hardware({})", shown_guid(vendor))),
        (2, 1) => u32_at(data, 0).zip(u32_at(data, 4)).map(|(hid, uid)| match hid {
            0x0a03_41d0 | 0x0a08_41d0 => format!("PciRoot({uid:#x})"),
            _ => format!("Acpi({hid:#x},{uid:#x})"),
        }),
        (3, 2) => u16_at(data, 0).zip(u16_at(data, 2)).map(|(target, lun)| format!("Scsi({target},{lun})")),
        (3, 18) => u16_at(data, 0).map(|port| format!("Sata({port})")),
        (3, 23) => u32_at(data, 0).map(|namespace| format!("NVMe({namespace})")),
        (4, 1) => partition(data),
        (4, 3) => array_at(data, 0).map(|vendor| match vendor {
            KERNEL_LOADER => "QemuKernelLoader".to_owned(),
            INITRD_MEDIA => "LinuxInitrd".to_owned(),
            other => format!("Media({})", shown_guid(other)),
        }),
        (4, 4) => Some(shown_wide(data.strip_suffix(&[0, 0]).unwrap_or(data))),
        (4, 6) => array_at(data, 0).map(|file| format!("FirmwareFile({})", shown_guid(file))),
        (4, 7) => array_at(data, 0).map(|volume| format!("FirmwareVolume({})", shown_guid(volume))),
        _ => None,
    };
    known.unwrap_or_else(|| format!("({kind},{sub_type}; {} bytes)", data.len()))
}

const KERNEL_LOADER: [u8; 16] = crate::ovmf::guid(0x1428_f772, 0xb64a, 0x441e, 0xb8c3_9ebd_d7f8_93c7);
const INITRD_MEDIA: [u8; 16] = crate::ovmf::guid(0x5568_e427, 0x68fc, 0x4f3d, 0xac74_ca55_5231_cc68);

/// Number u32, start and size u64, signature 16, format, kind of signature.
fn partition(data: &[u8]) -> Option<String> {
    let (number, signature) = (u32_at(data, 0)?, array_at::<16>(data, 20)?);
    Some(format!("Partition({number},{})", shown_guid(signature)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::uefi::{BOOT_0000, firmware_file_path};

    #[test]
    fn paths_of_real_machines_are_read() {
        let path = BOOT_0000.get(18..).unwrap();
        let expected =
            "FirmwareVolume(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FirmwareFile(462caa21-7614-4503-836e-8ab6f4662331)";
        assert_eq!(shown_path(path), expected);
        assert_eq!(path, firmware_file_path(path[4..20].try_into().unwrap(), path[24..40].try_into().unwrap()));
        let kernel =
            [&[4, 3, 20, 0], KERNEL_LOADER.as_slice(), &[4, 4, 8, 0, b'k', 0, 0, 0, 0x7f, 0xff, 4, 0]].concat();
        assert_eq!(shown_path(&kernel), "QemuKernelLoader/k");
        assert_eq!(
            shown_path(&[2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 2, 3]),
            "PciRoot(0x0)/Pci(0x3,0x2)"
        );
        assert_eq!(shown_path(&[9, 9, 5, 0, 1]), "(9,9; 1 bytes)");
        assert_eq!(shown_path(&[4, 4, 3, 0]), "(malformed)");
        assert_eq!(shown_path(&[4, 4, 4, 0].repeat(40)).matches("malformed").count(), 1);
    }

    proptest! {
        #[test]
        fn arbitrary_paths_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!shown_path(&bytes).chars().any(char::is_control));
        }
    }
}
