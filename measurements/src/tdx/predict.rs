//! RTMR0 computed from files and the shape of the machine, without a recorded log.
//!
//! Sources: as [`super::td_hob`], [`super::AcpiBlobs`], [`super::Build`] and [`super::secure_boot`]; QEMU
//! `hw/nvram/fw_cfg.c`, `hw/i386/x86-common.c` (the option ROM that starts a kernel), edk2
//! `OvmfPkg/Library/QemuFwCfgLib/QemuFwCfgCacheInit.c` (which items, in which order, of which sizes).
//!
//! What neither files nor shape tell has to be given: SMBIOS tables where the build measures them, the key that allowed
//! the kernel where Secure Boot is on, boot variables of machines with boot devices. Not trusted: all files. Never
//! leaves an event out because it is not known: that is an error.

use thiserror::Error;

use super::authority;
use super::build::Build;
use super::hob::{HobError, td_hob};
use super::rtmr::{Separators, configuration_volume};
use super::store::{StoreError, secure_boot, without_secure_boot};
use super::{AcpiBlobs, MachineEvents};
use crate::digest::{Digest, sha384};
use crate::ovmf::{Firmware, FirmwareError};
use crate::uefi::SecureBootVariables;

/// Configuration items that are measured, in this order, and the size that an item must have to be taken.
const ITEMS: [(&str, Option<usize>); 6] = [
    ("etc/extra-pci-roots", Some(8)),
    ("BootMenu", Some(2)),
    ("etc/boot-menu-wait", Some(2)),
    ("etc/reserved-memory-end", Some(8)),
    ("opt/ovmf/X-PciMmio64Mb", None),
    ("bootorder", None),
];
/// What QEMU gives where nothing else was asked for: no boot menu, and the option ROM that starts a kernel as the only
/// boot device.
const DEFAULTS: [(&str, &[u8]); 2] = [("BootMenu", &[0, 0]), ("bootorder", b"/rom@genroms/linuxboot_dma.bin\0")];
/// Most boot options of a machine: numbers have four hexadecimal digits, real machines under ten.
const MAX_BOOT_OPTIONS: usize = 64;

/// Why RTMR0 cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MachineConfigurationError {
    /// The image or its metadata.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The TD HOB.
    #[error(transparent)]
    Hob(#[from] HobError),
    /// The firmware's variables.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A configuration item that this firmware does not measure, or of a size that it ignores.
    #[error("configuration item {name:?}: {reason}")]
    Item {
        /// Its fw_cfg name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The build measures SMBIOS tables, whose digest was not given.
    #[error(
        "this firmware measures SMBIOS tables, which no file here tells: give their digest (event type 0x80000009 of the \
         log of a trusted boot of this shape) with --smbios-digest, or the whole log with --machine-log"
    )]
    SmbiosUnknown,
    /// A digest was given for a build that does not measure SMBIOS.
    #[error("this firmware measures no SMBIOS tables: leave their digest out")]
    NoSmbios,
    /// Secure Boot is on and the key that allowed the kernel was not given.
    #[error(
        "Secure Boot is on in this firmware: the key that allows the kernel is measured as well. Give its \
         EFI_SIGNATURE_DATA (owner GUID and certificate, as in db) or the certificate in DER with --authority, or the log \
         of a trusted boot with --machine-log"
    )]
    AuthorityUnknown,
    /// The authority is in no list of db, or not told apart there.
    #[error("the authority given: {0}")]
    Authority(&'static str),
    /// Boot variables that do not belong together.
    #[error("boot variables: {0}")]
    BootVariables(&'static str),
}

/// What RTMR0 is computed from.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// The whole image.
    pub firmware: &'a [u8],
    /// What [`Build::inspect`] says of it.
    pub build: &'a Build,
    /// Guest memory in MiB (`-m`).
    pub memory_mib: u32,
    /// ACPI tables of the shape.
    pub acpi: &'a AcpiBlobs,
    /// Configuration items that differ from QEMU's defaults, by fw_cfg name; empty contents stand for an absent item.
    pub fw_cfg: &'a [(String, Vec<u8>)],
    /// Secure Boot variables where they are not those of the image.
    pub secure_boot: Option<&'a SecureBootVariables>,
    /// The entry of db that allows the kernel: EFI_SIGNATURE_DATA, or what follows the owner in it.
    pub authority: Option<&'a [u8]>,
    /// Digest of the SMBIOS tables.
    pub smbios: Option<Digest<48>>,
    /// Names and data of the boot variables, where the machine has boot devices.
    pub boot: &'a [(String, Vec<u8>)],
    /// Where the separator at ready-to-boot goes: [`Separators::Rtmr0AndRtmr1`] since edk2-stable202411.
    pub separators: Separators,
}

impl Machine<'_> {
    /// The parts of RTMR0; [`super::rtmr0_events`] puts them in order.
    ///
    /// # Errors
    /// [`MachineConfigurationError`].
    pub fn events(&self) -> Result<MachineEvents, MachineConfigurationError> {
        let firmware = Firmware::parse(self.firmware)?;
        let td_hob = sha384(&td_hob(&firmware, self.memory_mib)?);
        let build = self.build;
        let volume = configuration_volume(&firmware)?;
        // Read in any case: variables that have no rule would be missed.
        let held = if build.secure_boot { secure_boot(volume)? } else { without_secure_boot(volume)? };
        let secure_boot = self.secure_boot.cloned().unwrap_or(held);
        let smbios = match (build.smbios, self.smbios) {
            (true, None) => return Err(MachineConfigurationError::SmbiosUnknown),
            (false, Some(_)) => return Err(MachineConfigurationError::NoSmbios),
            (_, smbios) => smbios,
        };
        Ok(MachineEvents {
            td_hob,
            fw_cfg: self.items(build)?,
            authorities: self.authorities(&secure_boot)?,
            secure_boot,
            acpi: self.acpi.digests().iter().map(|(_, digest)| *digest).collect(),
            smbios,
            boot: self.boot_variables(build)?,
            separators: self.separators,
        })
    }

    fn items(&self, build: &Build) -> Result<Vec<(String, Digest<48>)>, MachineConfigurationError> {
        let refused = |name: &str, reason| MachineConfigurationError::Item { name: name.to_owned(), reason };
        for (number, (name, data)) in self.fw_cfg.iter().enumerate() {
            let Some((_, size)) = ITEMS.iter().find(|(known, _)| known == name) else {
                return Err(refused(name, "no firmware measures it"));
            };
            if !build.fw_cfg {
                return Err(refused(name, "this firmware measures no configuration items"));
            }
            if size.is_some_and(|size| !data.is_empty() && data.len() != size) {
                return Err(refused(name, "the firmware ignores it in this size"));
            }
            if self.fw_cfg.iter().take(number).any(|(earlier, _)| earlier == name) {
                return Err(refused(name, "it is given twice"));
            }
        }
        if !build.fw_cfg {
            return Ok(Vec::new());
        }
        let contents = |name: &str| -> &[u8] {
            let given = self.fw_cfg.iter().find(|(given, _)| given == name).map(|(_, data)| data.as_slice());
            let default = DEFAULTS.iter().find(|(default, _)| *default == name).map(|(_, data)| *data);
            given.or(default).unwrap_or_default()
        };
        let items = ITEMS.iter().map(|(name, _)| ((*name).to_owned(), contents(name)));
        // Firmware passes over items that are absent or empty.
        Ok(items.filter(|(_, data)| !data.is_empty()).map(|(name, data)| (name, sha384(data))).collect())
    }

    fn authorities(&self, variables: &SecureBootVariables) -> Result<Vec<Vec<u8>>, MachineConfigurationError> {
        match (variables.enabled, self.authority) {
            (Some(1), None) => Err(MachineConfigurationError::AuthorityUnknown),
            (Some(1), Some(entry)) => {
                let entry = authority::entry(&variables.db, entry).map_err(MachineConfigurationError::Authority)?;
                Ok(vec![crate::uefi::variable(crate::uefi::IMAGE_SECURITY, "db", entry)])
            }
            (_, Some(_)) => Err(MachineConfigurationError::Authority("Secure Boot is off: no key allows the kernel")),
            (_, None) => Ok(Vec::new()),
        }
    }

    fn boot_variables(&self, build: &Build) -> Result<Vec<(String, Vec<u8>)>, MachineConfigurationError> {
        let refused = MachineConfigurationError::BootVariables;
        let own = |number| (format!("Boot{number:04X}"), build.boot_options.get(usize::from(number)));
        if self.boot.is_empty() {
            let count = u16::try_from(build.boot_options.len()).unwrap_or(u16::MAX);
            if count == 0 {
                return Err(refused(
                    "this firmware has no boot option of its own here: give them with --boot-variable",
                ));
            }
            let order = (0..count).flat_map(u16::to_le_bytes).collect();
            let options = (0..count).map(own).map(|(name, data)| (name, data.cloned().unwrap_or_default()));
            return Ok([("BootOrder".to_owned(), order)].into_iter().chain(options).collect());
        }
        let given = |name: &str| self.boot.iter().find(|(given, _)| given == name).map(|(_, data)| data.clone());
        let order = given("BootOrder").ok_or(refused("no BootOrder"))?;
        if order.is_empty() || !order.len().is_multiple_of(2) || order.len() / 2 > MAX_BOOT_OPTIONS {
            return Err(refused("BootOrder is no list of 1 to 64 numbers"));
        }
        let mut variables = vec![("BootOrder".to_owned(), order.clone())];
        for number in order.chunks_exact(2).filter_map(|pair| crate::bytes::u16_at(pair, 0)) {
            let name = format!("Boot{number:04X}");
            let data = given(&name).ok_or(refused("an option that BootOrder names is missing"))?;
            if variables.iter().any(|(known, _)| *known == name) {
                return Err(refused("BootOrder names an option twice"));
            }
            variables.push((name, data));
        }
        if variables.len() != self.boot.len() {
            return Err(refused("more are given than BootOrder names"));
        }
        Ok(variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ovmf::sample::Sample;
    use crate::tdx::rtmr0_events;
    use crate::tdx::store::sample as store;
    use crate::uefi::{GLOBAL_VARIABLE, IMAGE_SECURITY, SecureBoot};
    use crate::volume::sample::{image, volume_of};

    const DXE: [u8; 16] = crate::ovmf::guid(0x7cb8_bdc9, 0xf8eb, 0x4f34, 0xaaea_3ee4_af65_16a1);
    const FRONT_PAGE: [u8; 16] = crate::ovmf::guid(0x462c_aa21, 0x7614, 0x4503, 0x836e_8ab6_f466_2331);
    const SMBIOS: [u8; 16] = crate::ovmf::guid(0xd27f_ed59, 0xabb4, 0x4fed, 0xbead_2a87_8c7e_4a7e);

    /// Configuration volume of two pages, then code, then a page with metadata.
    fn firmware(variables: &[u8], files: &[[u8; 16]], marks: &[u8]) -> Vec<u8> {
        let code = image(b"\0TdxTable\0", &[&volume_of(DXE, files), b"ACPI DATA\0".as_slice(), marks].concat());
        let mut front = variables.to_vec();
        front.resize(0x2000, 0xff);
        front.extend(&code);
        let length = (front.len() + 0x2000) as u64;
        let address = (1 << 32) - length;
        let tdvf = vec![
            [0, 0x2000, address, 0x2000, 1, 0],
            [0x2000, length - 0x2000, address + 0x2000, length - 0x2000, 0, 1],
            [0, 0, 0x80_9000, 0x2000, 2, 0],
        ];
        front.extend(Sample { tdvf, pages: 2, ..Sample::default() }.build());
        front
    }

    fn acpi() -> AcpiBlobs {
        let mut script = vec![0; 128];
        script[0] = 1;
        script[4..7].copy_from_slice(b"one");
        AcpiBlobs::from_files(&script, &[("one", b"tables")]).unwrap()
    }

    /// The build lives as long as the tests.
    fn machine<'a>(firmware: &'a [u8], acpi: &'a AcpiBlobs) -> Machine<'a> {
        Machine {
            firmware,
            build: Box::leak(Box::new(Build::inspect(firmware).unwrap())),
            memory_mib: 2048,
            acpi,
            fw_cfg: &[],
            secure_boot: None,
            authority: None,
            smbios: None,
            boot: &[],
            separators: Separators::Rtmr0AndRtmr1,
        }
    }

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn an_earlier_build_needs_nothing_but_memory_and_tables() {
        let (image, acpi) = (firmware(&store(&[]), &[FRONT_PAGE], b""), acpi());
        let events = machine(&image, &acpi).events().unwrap();
        assert_eq!(events.secure_boot, SecureBootVariables::without_keys(SecureBoot::Absent));
        assert_eq!((events.fw_cfg.len(), events.smbios, events.boot.len()), (0, None, 2));
        assert_eq!(rtmr0_events(sha384(b""), &events).len(), 12);
        let larger = Machine { memory_mib: 4096, ..machine(&image, &acpi) }.events().unwrap();
        assert_ne!(larger.td_hob, events.td_hob);
        assert_eq!(MachineEvents { td_hob: events.td_hob, ..larger }, events);
        let item = [("BootMenu".to_owned(), vec![1, 0])];
        let refused = Machine { fw_cfg: &item, ..machine(&image, &acpi) }.events().unwrap_err();
        assert!(refused.to_string().contains("measures no configuration items"));
    }

    #[test]
    fn configuration_items_have_their_order_and_sizes() {
        let (image, acpi) = (firmware(&store(&[]), &[FRONT_PAGE], b"\0QEMU FW CFG\0"), acpi());
        let with = |items: &[(&str, &[u8])]| {
            let items: Vec<_> = items.iter().map(|(name, data)| ((*name).to_owned(), data.to_vec())).collect();
            Machine { fw_cfg: &items, ..machine(&image, &acpi) }.events().map(|events| events.fw_cfg)
        };
        let order = sha384(b"/rom@genroms/linuxboot_dma.bin\0");
        let defaults = [("BootMenu".to_owned(), sha384(&[0, 0])), ("bootorder".to_owned(), order)];
        assert_eq!(with(&[]).unwrap(), defaults);
        let names = |items| with(items).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&[("etc/extra-pci-roots", &[0; 8]), ("bootorder", b"")]), ["etc/extra-pci-roots", "BootMenu"]);
        for (item, reason) in [(("BootMenu", &[0; 3][..]), "ignores"), (("etc/e820", &[0; 8]), "no firmware")] {
            assert!(with(&[item]).unwrap_err().to_string().contains(reason));
        }
        assert!(with(&[("bootorder", b"a"), ("bootorder", b"b")]).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn enrolled_keys_ask_for_the_authority() {
        let entry = b"owner of the key, certificate";
        let db = authority::sample(&[entry]);
        let keys = [(GLOBAL_VARIABLE, "PK", &b"pk"[..]), (IMAGE_SECURITY, "db", &db)];
        let acpi = acpi();
        let image = firmware(&store(&keys), &[FRONT_PAGE], &wide("SecureBootEnable"));
        let with = |authority| Machine { authority, ..machine(&image, &acpi) }.events();
        assert_eq!(with(None), Err(MachineConfigurationError::AuthorityUnknown));
        let refused = |given| matches!(given, Err(MachineConfigurationError::Authority(_)));
        assert!(refused(with(Some(b"another key of some length"))) && refused(with(Some(&entry[..28]))));
        let events = with(Some(entry)).unwrap();
        assert_eq!(with(Some(&entry[16..])), Ok(events.clone()), "the certificate alone finds its entry");
        assert_eq!((events.secure_boot.enabled, events.authorities.len()), (Some(1), 1));
        let off = SecureBootVariables::without_keys(SecureBoot::Off);
        let given = Machine { secure_boot: Some(&off), ..machine(&image, &acpi) };
        assert_eq!(given.events().unwrap().secure_boot, off);
        let unasked = Machine { authority: Some(entry), ..given };
        assert!(refused(unasked.events()));
    }

    #[test]
    fn variables_without_a_rule_are_refused_in_every_build() {
        let acpi = acpi();
        let off = SecureBootVariables::without_keys(SecureBoot::Off);
        for marks in [vec![], wide("SecureBootEnable")] {
            let image = firmware(&store(&[(IMAGE_SECURITY, "dbt", b"timestamps")]), &[FRONT_PAGE], &marks);
            for secure_boot in [None, Some(&off)] {
                let refused = Machine { secure_boot, ..machine(&image, &acpi) }.events();
                assert_eq!(refused, Err(StoreError::Unknown("dbt".to_owned()).into()));
            }
        }
        let image = firmware(&store(&[(GLOBAL_VARIABLE, "PK", b"x")]), &[FRONT_PAGE], b"");
        assert_eq!(machine(&image, &acpi).events(), Err(StoreError::Key("PK").into()));
    }

    #[test]
    fn what_no_file_tells_is_asked_for() {
        let acpi = acpi();
        let image = firmware(&store(&[]), &[FRONT_PAGE, SMBIOS], b"");
        let digest = Some(sha384(b"smbios"));
        assert_eq!(machine(&image, &acpi).events(), Err(MachineConfigurationError::SmbiosUnknown));
        assert_eq!(Machine { smbios: digest, ..machine(&image, &acpi) }.events().unwrap().smbios, digest);
        let without = firmware(&store(&[]), &[FRONT_PAGE], b"");
        let refused = Machine { smbios: digest, ..machine(&without, &acpi) }.events();
        assert_eq!(refused, Err(MachineConfigurationError::NoSmbios));
        let bare = firmware(&store(&[]), &[], b"");
        assert!(matches!(machine(&bare, &acpi).events(), Err(MachineConfigurationError::BootVariables(_))));
    }

    #[test]
    fn given_boot_variables_must_belong_together() {
        let (image, acpi) = (firmware(&store(&[]), &[FRONT_PAGE], b""), acpi());
        let with = |variables: &[(&str, &[u8])]| {
            let boot: Vec<_> = variables.iter().map(|(name, data)| ((*name).to_owned(), data.to_vec())).collect();
            Machine { boot: &boot, ..machine(&image, &acpi) }.events().map(|events| events.boot)
        };
        let names: Vec<_> = with(&[("Boot000A", b"a"), ("Boot0001", b"b"), ("BootOrder", &[1, 0, 10, 0])])
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["BootOrder", "Boot0001", "Boot000A"]);
        for variables in [
            &[("Boot0001", &b"a"[..])][..],
            &[("BootOrder", &[1, 0, 2])],
            &[("BootOrder", &[1, 0])],
            &[("BootOrder", &[1, 0]), ("Boot0001", b"a"), ("Boot0002", b"b")],
            &[("BootOrder", &[1, 0, 1, 0]), ("Boot0001", b"a")],
        ] {
            assert!(matches!(with(variables), Err(MachineConfigurationError::BootVariables(_))), "{variables:?}");
        }
    }
}
