//! What the events of a log measure, in words, and whether their digests are those of the data that they show.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06 section 10 (event data), UEFI 2.10 (variables, load options,
//! GPT), edk2 and Linux for what they add; systemd, shim and GRUB for EV_IPL.
//!
//! Not trusted: the data. Where a digest is not that of the data, the words are only what the log claims. Never decides
//! whether an event is good.

use super::LogEvent;
use super::path::shown_path;
use super::proof::{Proof, is_whole, named_by_tag, proof, tag_text};
use super::text::{is_wide, shown, shown_guid, shown_wide};
use crate::bytes::{array_at, slice_at, u16_at, u64_at};
use crate::uefi::{event_type, parse_variable};

/// Most partitions and boot options that are named.
const MAX_NAMED: usize = 16;
/// One event in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The profile's name of its type.
    pub type_name: &'static str,
    /// What it measures. Printable, bounded.
    pub words: String,
    /// Whether the log proves that.
    pub proof: Proof,
}

/// Describes an event of a log with this algorithm: SHA-256 for a TPM, SHA-384 for a CCEL log.
#[must_use]
pub fn describe(event: &LogEvent<'_>) -> Description {
    let proof = proof(event);
    let words = match section(event) {
        // The name is measured first, then the contents, both under the name.
        Some(name) if proof == Proof::Data => format!("name of section {name} of a unified kernel image"),
        Some(name) => format!("contents of section {name} of a unified kernel image"),
        None if event.event_type == event_type::IPL => boot_loader(event.data, is_whole(event)),
        None => words(event.event_type, event.data),
    };
    let words = if proof == Proof::Label { format!("no more than the label of: {words}") } else { words };
    Description { type_name: event_type::type_name(event.event_type), words, proof }
}

/// The name of a section that systemd-stub measures, in UTF-16 with NUL: a dot and up to seven more characters.
fn section(event: &LogEvent<'_>) -> Option<String> {
    let name = event.data.strip_suffix(&[0, 0]).filter(|_| event.event_type == event_type::IPL)?;
    let plain = name.starts_with(b".\0")
        && (4..=16).contains(&name.len())
        && name.chunks_exact(2).all(|pair| matches!(pair, [b'.' | b'a'..=b'z', 0]));
    plain.then(|| shown_wide(name))
}

fn words(kind: u32, data: &[u8]) -> String {
    let known = match kind {
        event_type::NO_ACTION => Some(no_action(data)),
        event_type::SEPARATOR => Some(separator(data)),
        event_type::ACTION => Some(format!("action: {}", shown(data))),
        event_type::S_CRTM_VERSION => {
            Some(format!("firmware version \"{}\"", shown_wide(data.strip_suffix(&[0, 0]).unwrap_or(data))))
        }
        event_type::PLATFORM_CONFIG_FLAGS => configuration(data),
        event_type::VARIABLE_DRIVER_CONFIG
        | event_type::VARIABLE_BOOT
        | event_type::VARIABLE_BOOT2
        | event_type::VARIABLE_AUTHORITY => variable(kind, data),
        event_type::BOOT_SERVICES_APPLICATION | event_type::BOOT_SERVICES_DRIVER | event_type::RUNTIME_DRIVER => {
            image(kind, data)
        }
        event_type::GPT => partitions(data),
        event_type::HANDOFF_TABLES2 => described(data).map(|(name, _)| match name {
            b"TdxTable" => "TD HOB: the memory map that the hypervisor gave".to_owned(),
            other => format!("tables handed over: {}", shown(other)),
        }),
        event_type::HANDOFF_TABLES => Some("tables handed over: SMBIOS".to_owned()),
        event_type::PLATFORM_FIRMWARE_BLOB2 => described(data).map(|(name, rest)| blob(&shown(name), rest)),
        event_type::PLATFORM_FIRMWARE_BLOB => Some(blob("a firmware volume", data)),
        event_type::EVENT_TAG => tagged(data),
        _ => None,
    };
    known.filter(|words| !words.is_empty()).unwrap_or_else(|| match data {
        [] => format!("{} without data", event_type::type_name(kind)),
        data => shown(data),
    })
}

fn no_action(data: &[u8]) -> String {
    match data.strip_prefix(b"StartupLocality\0") {
        Some([locality]) => format!("the TPM was started at locality {locality}"),
        _ => format!("information: {}", shown(data.get(..16).unwrap_or(data))),
    }
}

fn separator(data: &[u8]) -> String {
    match data {
        [0, 0, 0, 0] => "separator: this phase ended well".to_owned(),
        other => format!("separator of an error: {}", shown(other)),
    }
}

fn configuration(data: &[u8]) -> Option<String> {
    let text = |bytes: &[u8]| shown(bytes.split(|byte| *byte == 0).next().unwrap_or_default());
    if data.starts_with(b"ACPI DATA") {
        return Some("ACPI tables, or the script that loads them".to_owned());
    }
    if data.starts_with(b"etc/") {
        return Some(format!("hypervisor file {}", text(data)));
    }
    data.strip_prefix(b"QEMU FW CFG\0").map(|name| format!("configuration item {}", text(name)))
}

fn variable(kind: u32, logged: &[u8]) -> Option<String> {
    let (vendor, name, data) = parse_variable(logged)?;
    let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let shown_name = shown_wide(&wide);
    let contents = match name.as_str() {
        "SecureBoot" => match data {
            [] => "absent: a build without Secure Boot".to_owned(),
            [0] => "off".to_owned(),
            [1] => "on".to_owned(),
            other => shown(other),
        },
        "BootOrder" => data
            .chunks_exact(2)
            .take(MAX_NAMED)
            .filter_map(|pair| u16_at(pair, 0))
            .fold(String::new(), |order, number| {
                format!("{order}{}{number:04X}", if order.is_empty() { "" } else { " " })
            }),
        boot if kind != event_type::VARIABLE_AUTHORITY && boot.starts_with("Boot") => {
            load_option(data).unwrap_or_else(|| format!("{} bytes that are no boot option", data.len()))
        }
        _ if data.is_empty() => "empty".to_owned(),
        _ if data.is_ascii() => shown(data),
        _ => format!("{} bytes", data.len()),
    };
    let what =
        if kind == event_type::VARIABLE_AUTHORITY { "entry that allowed an image, of variable" } else { "variable" };
    let vendor = match name.as_str() {
        "SecureBoot" | "PK" | "KEK" | "db" | "dbx" | "BootOrder" => String::new(),
        boot if boot.starts_with("Boot") => String::new(),
        _ => format!(" of {}", shown_guid(vendor)),
    };
    Some(format!("{what} {shown_name}{vendor}: {contents}"))
}

/// EFI_LOAD_OPTION: attributes u32, length of the path u16, name with NUL, path, data.
fn load_option(data: &[u8]) -> Option<String> {
    let length = usize::from(u16_at(data, 4)?);
    let rest = data.get(6..)?;
    let end = rest.chunks_exact(2).position(|pair| pair == [0, 0])? * 2;
    let path = slice_at(rest, end + 2, length)?;
    let options = match rest.len() - (end + 2 + length) {
        0 => String::new(),
        more => format!(", with {} of options for it", bytes(more)),
    };
    Some(format!("\"{}\" at {}{options}", shown_wide(rest.get(..end)?), shown_path(path)))
}

/// UEFI_IMAGE_LOAD_EVENT: location, length in memory, link address and length of the path, each u64; path.
fn image(kind: u32, data: &[u8]) -> Option<String> {
    let length = usize::try_from(u64_at(data, 24)?).ok()?;
    let path = slice_at(data, 32, length).map(shown_path)?;
    let what = match kind {
        event_type::BOOT_SERVICES_APPLICATION => "program",
        _ => "driver",
    };
    let path = if path.is_empty() { "without a path".to_owned() } else { path };
    Some(format!("{what} {path}, {} bytes, Authenticode digest", u64_at(data, 8)?))
}

/// UEFI_GPT_DATA: header of 92 bytes, count u64, entries of 128.
fn partitions(data: &[u8]) -> Option<String> {
    let disk = shown_guid(array_at(data, 56)?);
    let count = u64_at(data, 92)?;
    let entries = data.get(100..)?.chunks_exact(128).take(MAX_NAMED);
    let names: Vec<String> = entries
        .map(|entry| {
            let name = entry.get(56..).unwrap_or_default();
            let end = name.chunks_exact(2).position(|pair| pair == [0, 0]).map_or(name.len(), |units| units * 2);
            format!("\"{}\"", shown_wide(name.get(..end).unwrap_or_default()))
        })
        .collect();
    Some(format!("partition table of disk {disk}: {count} partitions, {}", names.join(" ")))
}

/// A description with its length u8 before it.
fn described(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((name.split(|byte| *byte == 0).next().unwrap_or_default(), rest))
}

/// Base and length u64.
fn blob(name: &str, rest: &[u8]) -> String {
    match (u64_at(rest, 0), u64_at(rest, 8)) {
        (Some(base), Some(length)) => format!("firmware: {name}, {length} bytes at {base:#x}"),
        _ => format!("firmware: {name}"),
    }
}

/// A tagged event's text, or what its label stands for; all data when there is more than one text in them.
fn tagged(data: &[u8]) -> Option<String> {
    if let Some(what) = named_by_tag(data) {
        return Some(what.to_owned());
    }
    let text = tag_text(data);
    Some(shown(text.strip_suffix(&[0]).unwrap_or(text)))
}

/// EV_IPL: text of boot loaders and stubs, ASCII or UTF-16. What follows a NUL is shown when it was measured, and
/// counted when it was not.
fn boot_loader(data: &[u8], whole: bool) -> String {
    let text = if is_wide(data) { data.strip_suffix(&[0, 0]) } else { data.strip_suffix(&[0]) }.unwrap_or(data);
    if is_wide(data) {
        return format!("boot loader: {}", shown_wide(text));
    }
    let first = text.split(|byte| *byte == 0).next().unwrap_or_default();
    match text.len() - first.len() {
        0 => format!("boot loader: {}", shown(first)),
        _ if !whole && text.iter().skip(first.len()).all(|byte| *byte == 0) => format!("boot loader: {}", shown(first)),
        _ if whole => format!("boot loader: {}", shown(text)),
        more => format!("boot loader: {}, and {} behind its end", shown(first), bytes(more)),
    }
}

fn bytes(count: usize) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::{Digest, sha384};
    use crate::eventlog::ALG_SHA384;
    use crate::uefi::{BOOT_0000, BOOT_ORDER, GLOBAL_VARIABLE, variable};

    fn described_as(event_type: u32, data: &[u8], digest: Digest<48>) -> (String, Proof) {
        let event = LogEvent { index: 1, event_type, digests: vec![(ALG_SHA384, digest.as_bytes())], data };
        let Description { words, proof, .. } = describe(&event);
        (words, proof)
    }

    /// Words without those that say that only the label was measured.
    fn of(event_type: u32, data: &[u8]) -> String {
        let (words, proof) = described_as(event_type, data, sha384(data));
        let label = words.strip_prefix("no more than the label of: ");
        assert_eq!(label.is_some(), proof == Proof::Label, "{words}");
        label.unwrap_or(&words).to_owned()
    }

    #[test]
    fn the_digest_of_a_label_proves_nothing_of_what_it_names() {
        let tag = [&0x8f3b_22edu32.to_le_bytes()[..], &26u32.to_le_bytes(), b"LOADED_IMAGE::LoadOptions\0"].concat();
        let line = "command line, as the kernel's EFI stub got it";
        let of_label = described_as(event_type::EVENT_TAG, &tag, sha384(&tag));
        assert_eq!(of_label, (format!("no more than the label of: {line}"), Proof::Label));
        assert_eq!(described_as(event_type::EVENT_TAG, &tag, sha384(b"quiet")), (line.to_owned(), Proof::Elsewhere));
        let other = [&7u32.to_le_bytes()[..], &6u32.to_le_bytes(), b"a\0 b\0\0"].concat();
        let whole = described_as(event_type::EVENT_TAG, &other, sha384(&other));
        assert_eq!(whole, (r"a\x00 b\x00".to_owned(), Proof::Data), "the text itself is what was measured");
        let variable = variable(GLOBAL_VARIABLE, "BootOrder", &BOOT_ORDER);
        for (kind, data) in [
            (event_type::PLATFORM_CONFIG_FLAGS, &b"ACPI DATA"[..]),
            (event_type::HANDOFF_TABLES2, b"\x09TdxTable\0"),
            (event_type::BOOT_SERVICES_APPLICATION, &[0; 32]),
            (event_type::PLATFORM_FIRMWARE_BLOB2, b"\x03cfv"),
            (0x9999, &variable),
        ] {
            assert_eq!(described_as(kind, data, sha384(data)).1, Proof::Label, "{kind:#x}");
            assert_eq!(described_as(kind, data, sha384(&BOOT_ORDER)).1, Proof::Elsewhere, "{kind:#x}");
        }
    }

    #[test]
    fn what_a_boot_option_hands_over_is_counted() {
        let option = [&BOOT_0000[..], b"init=/bin/sh"].concat();
        let told = of(event_type::VARIABLE_BOOT, &variable(GLOBAL_VARIABLE, "Boot0000", &option));
        assert!(told.ends_with("), with 12 bytes of options for it"), "{told}");
    }

    #[test]
    fn each_kind_of_event_has_its_words() {
        assert_eq!(of(event_type::SEPARATOR, &[0; 4]), "separator: this phase ended well");
        assert_eq!(of(event_type::SEPARATOR, &[1, 0, 0, 0]), r"separator of an error: \x01\x00\x00\x00");
        assert_eq!(of(event_type::ACTION, b"Calling\x1b"), r"action: Calling\x1b");
        let boot = |name, data: &[u8]| of(event_type::VARIABLE_BOOT, &variable(GLOBAL_VARIABLE, name, data));
        assert_eq!(boot("BootOrder", &BOOT_ORDER), "variable BootOrder: 0000");
        assert_eq!(boot("BootOrder", &[1, 0, 10, 0]), "variable BootOrder: 0001 000A");
        assert!(boot("Boot0000", &BOOT_0000).starts_with("variable Boot0000: \"UiApp\" at FirmwareVolume(7cb8bdc9"));
        let secure =
            |data: &[u8]| of(event_type::VARIABLE_DRIVER_CONFIG, &variable(GLOBAL_VARIABLE, "SecureBoot", data));
        assert_eq!(secure(&[1]), "variable SecureBoot: on");
        assert_eq!(secure(&[]), "variable SecureBoot: absent: a build without Secure Boot");
        let level = variable([7; 16], "SbatLevel", b"sbat,1\n");
        let expected =
            r"entry that allowed an image, of variable SbatLevel of 07070707-0707-0707-0707-070707070707: sbat,1\n";
        assert_eq!(of(event_type::VARIABLE_AUTHORITY, &level), expected);
        assert_eq!(of(event_type::PLATFORM_CONFIG_FLAGS, b"ACPI DATA\0"), "ACPI tables, or the script that loads them");
        assert_eq!(of(event_type::PLATFORM_CONFIG_FLAGS, b"etc/acpi/rsdp\0x"), "hypervisor file etc/acpi/rsdp");
        assert_eq!(
            of(event_type::PLATFORM_CONFIG_FLAGS, b"QEMU FW CFG\0bootorder\0\0"),
            "configuration item bootorder"
        );
        assert_eq!(
            of(event_type::HANDOFF_TABLES2, b"\x09TdxTable\0x"),
            "TD HOB: the memory map that the hypervisor gave"
        );
        let volume = [b"\x03cfv".as_slice(), &4096u64.to_le_bytes(), &64u64.to_le_bytes()].concat();
        assert_eq!(of(event_type::PLATFORM_FIRMWARE_BLOB2, &volume), "firmware: cfv, 64 bytes at 0x1000");
        let image = [8u64, 100, 0, 8].map(u64::to_le_bytes).concat();
        let loaded = [image.as_slice(), &[4, 4, 8, 0, b'k', 0, 0, 0]].concat();
        assert_eq!(of(event_type::BOOT_SERVICES_APPLICATION, &loaded), "program k, 100 bytes, Authenticode digest");
        let initrd = [0x8f3b_22ecu32.to_le_bytes(), 13u32.to_le_bytes()].concat();
        let initrd = [initrd.as_slice(), b"Linux initrd\0"].concat();
        assert_eq!(of(event_type::EVENT_TAG, &initrd), "initial ramdisk, as the kernel's EFI stub loaded it");
        assert_eq!(
            of(event_type::EVENT_TAG, b"LOADED_IMAGE::LoadOptions\0"),
            "command line, as the kernel's EFI stub got it"
        );
        let linux = b".\0l\0i\0n\0u\0x\0\0\0";
        let section = |measured: &[u8]| described_as(event_type::IPL, linux, sha384(measured)).0;
        assert_eq!(section(b".linux\0"), "name of section .linux of a unified kernel image");
        assert_eq!(section(b"kernel"), "contents of section .linux of a unified kernel image");
        assert_eq!(of(event_type::IPL, b"grub_cmd set\0"), "boot loader: grub_cmd set");
        assert_eq!(of(event_type::IPL, b"benign\0 evil=1"), r"boot loader: benign\x00 evil=1");
        let stray = described_as(event_type::IPL, b"grub_cmd set\0x", sha384(b"set"));
        assert_eq!(stray, ("boot loader: grub_cmd set, and 2 bytes behind its end".to_owned(), Proof::Data));
        assert_eq!(of(event_type::EVENT_TAG, b"\0"), r"\x00", "a text without a character");
        assert_eq!(of(0x9999, b""), "an event of another type without data");
        assert_eq!(of(event_type::HANDOFF_TABLES2, b""), "EV_EFI_HANDOFF_TABLES2 without data");
        assert_eq!(boot("Boot0001", b"x"), "variable Boot0001: 1 bytes that are no boot option");
    }

    #[test]
    fn a_partition_table_names_its_disk() {
        let mut table = vec![0; 100 + 128];
        table[56] = 9;
        table[92] = 1;
        table[156..160].copy_from_slice(b"e\0s\0");
        let expected = "partition table of disk 00000009-0000-0000-0000-000000000000: 1 partitions, \"es\"";
        assert_eq!(of(event_type::GPT, &table), expected);
    }

    #[test]
    fn what_the_log_proves_is_told_apart_from_what_it_claims() {
        let proof = |kind, data: &[u8], measured: &[u8]| described_as(kind, data, sha384(measured)).1;
        assert_eq!(proof(event_type::ACTION, b"text", b"text"), Proof::Data);
        assert_eq!(proof(event_type::BOOT_SERVICES_APPLICATION, b"path", b"image"), Proof::Elsewhere);
        let logged = variable(GLOBAL_VARIABLE, "BootOrder", &BOOT_ORDER);
        assert_eq!(proof(event_type::VARIABLE_BOOT, &logged, &BOOT_ORDER), Proof::Data);
        assert_eq!(proof(event_type::IPL, b"grub_cmd: set a=b\0", b"set a=b"), Proof::Data);
        assert_eq!(proof(event_type::IPL, b"grub_cmd set a=b\0x", b"set a=b"), Proof::Data, "a stray byte");
        assert_eq!(proof(event_type::IPL, b".\0x\0\0\0", b".x\0"), Proof::Data);
        assert_eq!(proof(event_type::IPL, b".\0x\0\0\0", b"contents"), Proof::Elsewhere);
        assert_eq!(proof(event_type::NO_ACTION, b"text", b"text"), Proof::NotMeasured);
        let none = LogEvent { index: 1, event_type: event_type::ACTION, digests: vec![(4, &[0; 20])], data: b"" };
        assert_eq!(describe(&none).proof, Proof::Elsewhere, "a bank that is not looked at proves nothing");
    }

    proptest! {
        #[test]
        fn arbitrary_data_never_panic(kind in prop_oneof![0u32..16, 0x8000_0000u32..0x8000_0010, Just(0x8000_00e0)], data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (words, _) = described_as(kind, &data, sha384(&data));
            prop_assert!(!words.is_empty() && words.len() < 4096);
            prop_assert!(!words.chars().any(char::is_control));
        }
    }
}
