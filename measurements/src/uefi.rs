//! What UEFI firmware measures besides code: variables, separators and actions, shared by TDX and vTPM predictions.
//!
//! Sources: TCG PC Client Platform Firmware Profile 1.06 section 10 (event types), edk2 `SecurityPkg/Tcg`. Nothing
//! foreign is parsed. Never decides which register an event belongs to.

use crate::bytes::{array_at, u16_at, u64_at};
use crate::ovmf::guid;

/// EV_SEPARATOR: ends the phase before the boot loader; four zero bytes when all went well.
pub(crate) const SEPARATOR: [u8; 4] = [0; 4];
/// EV_EFI_ACTION strings, hashed without NUL.
pub(crate) const CALLING_APPLICATION: &str = "Calling EFI Application from Boot Option";
pub(crate) const EXIT_BOOT_SERVICES: [&str; 2] =
    ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];

/// Event types of the firmware profile.
pub(crate) mod event_type {
    pub(crate) const NO_ACTION: u32 = 0x3;
    pub(crate) const SEPARATOR: u32 = 0x4;
    pub(crate) const EVENT_TAG: u32 = 0x6;
    pub(crate) const S_CRTM_VERSION: u32 = 0x8;
    pub(crate) const PLATFORM_CONFIG_FLAGS: u32 = 0xa;
    pub(crate) const IPL: u32 = 0xd;
    pub(crate) const VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
    pub(crate) const VARIABLE_BOOT: u32 = 0x8000_0002;
    pub(crate) const BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
    pub(crate) const GPT: u32 = 0x8000_0006;
    pub(crate) const ACTION: u32 = 0x8000_0007;
    pub(crate) const HANDOFF_TABLES: u32 = 0x8000_0009;
    pub(crate) const PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
    pub(crate) const HANDOFF_TABLES2: u32 = 0x8000_000b;
    pub(crate) const VARIABLE_BOOT2: u32 = 0x8000_000c;
    pub(crate) const VARIABLE_AUTHORITY: u32 = 0x8000_00e0;
    pub(crate) const BOOT_SERVICES_DRIVER: u32 = 0x8000_0004;
    pub(crate) const RUNTIME_DRIVER: u32 = 0x8000_0005;
    pub(crate) const PLATFORM_FIRMWARE_BLOB: u32 = 0x8000_0008;
    const POST_CODE: u32 = 0x1;

    /// The profile's name of a type.
    pub(crate) fn type_name(event_type: u32) -> &'static str {
        match event_type {
            POST_CODE => "EV_POST_CODE",
            NO_ACTION => "EV_NO_ACTION",
            SEPARATOR => "EV_SEPARATOR",
            EVENT_TAG => "EV_EVENT_TAG",
            S_CRTM_VERSION => "EV_S_CRTM_VERSION",
            PLATFORM_CONFIG_FLAGS => "EV_PLATFORM_CONFIG_FLAGS",
            IPL => "EV_IPL",
            VARIABLE_DRIVER_CONFIG => "EV_EFI_VARIABLE_DRIVER_CONFIG",
            VARIABLE_BOOT => "EV_EFI_VARIABLE_BOOT",
            BOOT_SERVICES_APPLICATION => "EV_EFI_BOOT_SERVICES_APPLICATION",
            BOOT_SERVICES_DRIVER => "EV_EFI_BOOT_SERVICES_DRIVER",
            RUNTIME_DRIVER => "EV_EFI_RUNTIME_SERVICES_DRIVER",
            HANDOFF_TABLES => "EV_EFI_HANDOFF_TABLES",
            GPT => "EV_EFI_GPT_EVENT",
            ACTION => "EV_EFI_ACTION",
            PLATFORM_FIRMWARE_BLOB => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
            PLATFORM_FIRMWARE_BLOB2 => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
            HANDOFF_TABLES2 => "EV_EFI_HANDOFF_TABLES2",
            VARIABLE_BOOT2 => "EV_EFI_VARIABLE_BOOT2",
            VARIABLE_AUTHORITY => "EV_EFI_VARIABLE_AUTHORITY",
            _ => "an event of another type",
        }
    }
}

pub(crate) const GLOBAL_VARIABLE: [u8; 16] = guid(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
pub(crate) const IMAGE_SECURITY: [u8; 16] = guid(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);

/// BootOrder of a machine without boot devices: the one option below.
pub(crate) const BOOT_ORDER: [u8; 2] = [0; 2];
/// Boot0000 of OVMF: attributes 0x109, path length 0x2c, the name "UiApp", and the path of that application inside
/// the firmware (two media nodes and an end node).
pub(crate) const BOOT_0000: [u8; 62] = [
    0x09, 0x01, 0x00, 0x00, 0x2c, 0x00, 0x55, 0x00, 0x69, 0x00, 0x41, 0x00, 0x70, 0x00, 0x70, 0x00, 0x00, 0x00, 0x04,
    0x07, 0x14, 0x00, 0xc9, 0xbd, 0xb8, 0x7c, 0xeb, 0xf8, 0x34, 0x4f, 0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1,
    0x04, 0x06, 0x14, 0x00, 0x21, 0xaa, 0x2c, 0x46, 0x14, 0x76, 0x03, 0x45, 0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23,
    0x31, 0x7f, 0xff, 0x04, 0x00,
];

/// How the SecureBoot variable stands at boot, with no key enrolled in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBoot {
    /// The variable does not exist: a build without Secure Boot.
    Absent,
    /// The variable is 0: a build that could, with no platform key.
    Off,
}

/// UEFI_VARIABLE_DATA: GUID, lengths of name (in characters) and data as u64, name in UTF-16LE, data.
pub(crate) fn variable(guid: [u8; 16], name: &str, data: &[u8]) -> Vec<u8> {
    let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let lengths = [wide.len() as u64 / 2, data.len() as u64].map(u64::to_le_bytes).concat();
    [&guid, lengths.as_slice(), &wide, data].concat()
}

/// Vendor GUID, name and data of a logged UEFI_VARIABLE_DATA; nothing unless all of it is accounted for and the name is
/// text.
pub(crate) fn parse_variable(logged: &[u8]) -> Option<([u8; 16], String, &[u8])> {
    let name_bytes = usize::try_from(u64_at(logged, 16)?).ok()?.checked_mul(2)?;
    let data_bytes = usize::try_from(u64_at(logged, 24)?).ok()?;
    let (name, data) = logged.get(32..)?.split_at_checked(name_bytes)?;
    let wide: Vec<u16> = name.chunks_exact(2).filter_map(|pair| u16_at(pair, 0)).collect();
    let name = String::from_utf16(&wide).ok()?;
    (data.len() == data_bytes).then_some((array_at(logged, 0)?, name, data))
}

/// The variables that firmware measures for Secure Boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureBootVariables {
    /// SecureBoot: whether images are verified; none in builds without Secure Boot.
    pub enabled: Option<u8>,
    /// Platform key, as an EFI signature list; empty when none is enrolled. So are the others.
    pub pk: Vec<u8>,
    /// Keys that may change the two below.
    pub kek: Vec<u8>,
    /// What may be started.
    pub db: Vec<u8>,
    /// What may not.
    pub dbx: Vec<u8>,
}

impl SecureBootVariables {
    /// No key is enrolled.
    #[must_use]
    pub fn without_keys(state: SecureBoot) -> Self {
        let enabled = match state {
            SecureBoot::Absent => None,
            SecureBoot::Off => Some(0),
        };
        Self { enabled, pk: Vec::new(), kek: Vec::new(), db: Vec::new(), dbx: Vec::new() }
    }

    /// Names and UEFI_VARIABLE_DATA in the order in which they are measured.
    pub(crate) fn measured(&self) -> [(&'static str, Vec<u8>); 5] {
        let entry = |guid, name, data: &[u8]| (name, variable(guid, name, data));
        [
            entry(GLOBAL_VARIABLE, "SecureBoot", self.enabled.as_slice()),
            entry(GLOBAL_VARIABLE, "PK", &self.pk),
            entry(GLOBAL_VARIABLE, "KEK", &self.kek),
            entry(IMAGE_SECURITY, "db", &self.db),
            entry(IMAGE_SECURITY, "dbx", &self.dbx),
        ]
    }
}

/// The five variables that firmware measures for Secure Boot, all without keys: names and UEFI_VARIABLE_DATA.
pub(crate) fn secure_boot_variables(state: SecureBoot) -> [(&'static str, Vec<u8>); 5] {
    SecureBootVariables::without_keys(state).measured()
}

/// EFI_LOAD_OPTION: attributes, length of the path, name in UTF-16LE with NUL, path.
pub(crate) fn load_option(attributes: u32, name: &str, path: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let length = u16::try_from(path.len()).unwrap_or(u16::MAX);
    [attributes.to_le_bytes().as_slice(), &length.to_le_bytes(), &name, path].concat()
}

/// Device path of a file inside a firmware volume: two media nodes and the end node.
pub(crate) fn firmware_file_path(volume: [u8; 16], file: [u8; 16]) -> Vec<u8> {
    [&[4, 7, 20, 0], volume.as_slice(), &[4, 6, 20, 0], &file, &[0x7f, 0xff, 4, 0]].concat()
}
