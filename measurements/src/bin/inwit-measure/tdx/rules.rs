//! Which options of `inwit-measure tdx` go together: those that the parser of the command line waives once what they require
//! conflicts with another one given. Nothing is read here.

use super::TdxArguments;
use crate::files::Failure;

impl TdxArguments {
    /// Refuses options that nothing here would look at.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let of_tables = [
            ("--acpi-loader", self.acpi_loader.is_some()),
            ("--acpi-rsdp", self.acpi_rsdp.is_some()),
            ("--acpi-file", !self.acpi_file.is_empty()),
            ("--fw-cfg", !self.fw_cfg.is_empty()),
            ("--smbios-digest", self.smbios_digest.is_some()),
            ("--authority", self.authority.is_some()),
            ("--boot-variable", !self.boot_variable.is_empty()),
        ];
        let cause = match of_tables.iter().find(|(_, given)| *given && self.acpi_tables.is_none()) {
            Some((option, _)) => format!("{option} goes with --acpi-tables"),
            None if self.profile.is_some() && self.uki.is_none() => "--profile goes with --uki".to_owned(),
            None => return Ok(()),
        };
        Err(Failure::Usage(cause))
    }
}
