//! The shapes of guests that one call computes: every combination of vCPU counts, CPU types and guest features.
//!
//! Not trusted: the words given. Never computes a digest.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use inwit_measurements::made_from::{Hexadecimal, MachineShape, MadeFrom};
use inwit_measurements::snp::{CpuSignature, GuestFeatures, UnknownCpu, Vmm};
use serde_json::{Value, json};

/// Most combinations of one call.
pub(super) const MAX_SHAPES: usize = 4096;

/// Counts and ranges of vCPUs, such as `1,2,4-8`: in order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VcpuCounts(pub(super) BTreeSet<NonZeroU16>);

impl FromStr for VcpuCounts {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected counts and ranges such as 1,2,4-8, from 1 to 4096";
        let count = |text: &str| text.parse::<NonZeroU16>().ok().filter(|count| count.get() <= 4096).ok_or(EXPECTED);
        let mut counts = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (count(first)?, count(last)?);
            if first > last {
                return Err("a range begins with its smaller count, such as 4-8");
            }
            counts.extend((first.get()..=last.get()).filter_map(NonZeroU16::new));
        }
        Ok(Self(counts))
    }
}

/// A CPU as it was named: a model, or only its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(super) name: String,
    pub(super) signature: CpuSignature,
}

impl Cpu {
    /// A CPU that only its signature is known of.
    pub(super) fn unnamed(signature: CpuSignature) -> Self {
        Self { name: signature.to_string(), signature }
    }
}

impl FromStr for Cpu {
    type Err = UnknownCpu;

    fn from_str(name: &str) -> Result<Self, UnknownCpu> {
        Ok(Self { name: name.to_owned(), signature: name.parse()? })
    }
}

/// What a guest is made of besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) vcpus: NonZeroU16,
    pub(super) cpu: Cpu,
    pub(super) features: GuestFeatures,
    pub(super) vmm: Vmm,
}

/// Tells shapes apart in names of files: `EPYC-Milan-4-0x1`, and `EPYC-v4-1-0x1-ec2` of another VMM than QEMU.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:#x}", self.cpu.name, self.vcpus, self.features.raw())?;
        if self.vmm == Vmm::Qemu { Ok(()) } else { write!(f, "-{}", self.vmm) }
    }
}

impl Shape {
    /// The record of what a digest was computed from, of this shape.
    pub(super) fn of(&self, record: &MadeFrom) -> MadeFrom {
        let Self { vcpus, cpu, features, vmm } = self;
        let machine = MachineShape {
            vcpus: Some(*vcpus),
            cpu_type: Some(cpu.name.clone()),
            cpu_signature: Some(Hexadecimal(cpu.signature.raw().into())),
            guest_features: Some(Hexadecimal(features.raw())),
            vmm: Some(*vmm),
            ..MachineShape::default()
        };
        MadeFrom { machine, ..record.clone() }
    }

    /// For people: on standard error beside one digest, which would not be told to belong to defaults otherwise.
    pub(super) fn words(&self) -> String {
        let Self { vcpus, cpu, features, vmm } = self;
        let plural = if vcpus.get() == 1 { "" } else { "s" };
        format!(
            "for {vcpus} vCPU{plural}, CPU {} ({}), guest features {:#x}, {vmm}",
            cpu.name,
            cpu.signature,
            features.raw()
        )
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "vcpus": self.vcpus,
            "cpu": self.cpu.name,
            "signature": self.cpu.signature.to_string(),
            "guest_features": format!("{:#x}", self.features.raw()),
            "vmm": self.vmm,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_lists_of_numbers_and_ranges() {
        let counts =
            |text: &str| text.parse::<VcpuCounts>().map(|counts| counts.0.iter().map(|one| one.get()).collect());
        assert_eq!(counts("1"), Ok(vec![1]));
        assert_eq!(counts("8,4-6,5,1"), Ok(vec![1, 4, 5, 6, 8]));
        assert_eq!(counts("4096"), Ok(vec![4096]));
        for text in ["", "0", "1,", "-4", "4-", "1-2-3", "a", "4097", "65536", " 1", "8-4"] {
            assert!(counts(text).is_err(), "{text:?}");
        }
    }
}
