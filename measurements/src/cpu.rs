//! CPU signatures: CPUID function 1 EAX, which ends up in RDX of each vCPU and so in the SNP launch digest.
//!
//! Source: AMD64 APM volume 3 appendix E (encoding), QEMU CPU models (family, model, stepping). Not trusted: names from
//! a command line. Never guesses: an unknown name is an error, because a wrong signature only shows as a wrong digest.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// CPUID function 1 EAX of the guest's virtual CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CpuSignature(u32);

/// QEMU's AMD server models by name without version suffix: family, model, stepping.
const MODELS: [(&str, u8, u8, u8); 5] = [
    ("EPYC", 23, 1, 2),
    ("EPYC-Rome", 23, 49, 0),
    ("EPYC-Milan", 25, 1, 1),
    ("EPYC-Genoa", 25, 17, 0),
    ("EPYC-Turin", 26, 0, 0),
];

/// A vCPU type or signature that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "unknown vCPU type {0:?}: expected EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin, each also with a version \
     such as EPYC-v4; for another model give its signature in hexadecimal"
)]
pub struct UnknownCpu(String);

impl CpuSignature {
    /// QEMU `EPYC-v4`, the model most SNP guests are started with.
    pub const EPYC_V4: Self = Self(0x0080_0f12);

    /// Wraps a raw signature.
    #[must_use]
    pub const fn from_raw(signature: u32) -> Self {
        Self(signature)
    }

    /// The raw signature.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Encodes family, model and stepping as the processor does: families above 15 go into the extended field.
    #[must_use]
    pub const fn encode(family: u8, model: u8, stepping: u8) -> Self {
        let (base, extended) = if family > 15 { (15, family - 15) } else { (family, 0) };
        let model_field = ((model as u32 >> 4) << 16) | ((model as u32 & 15) << 4);
        Self((extended as u32) << 20 | model_field | (base as u32) << 8 | (stepping as u32 & 15))
    }
}

impl fmt::Display for CpuSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// A QEMU CPU model name, with or without version (`EPYC-Milan`, `EPYC-v4`, `EPYC-IBPB`): versions differ in
/// features, not in the signature.
impl FromStr for CpuSignature {
    type Err = UnknownCpu;

    fn from_str(name: &str) -> Result<Self, UnknownCpu> {
        let unversioned = match name.rsplit_once("-v") {
            Some((model, version)) if matches!(version.as_bytes(), [b'1'..=b'9']) => model,
            _ => name.strip_suffix("-IBPB").unwrap_or(name),
        };
        let found = MODELS.iter().find(|(model, ..)| *model == unversioned);
        let (_, family, model, stepping) = found.ok_or_else(|| UnknownCpu(name.to_owned()))?;
        Ok(Self::encode(*family, *model, *stepping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_known_signatures() {
        for (name, signature) in [
            ("EPYC", 0x0080_0f12),
            ("EPYC-v4", 0x0080_0f12),
            ("EPYC-IBPB", 0x0080_0f12),
            ("EPYC-Rome", 0x0083_0f10),
            ("EPYC-Milan-v2", 0x00a0_0f11),
            ("EPYC-Genoa", 0x00a1_0f10),
            ("EPYC-Turin", 0x00b0_0f00),
        ] {
            assert_eq!(name.parse(), Ok(CpuSignature(signature)), "{name}");
        }
        assert_eq!("EPYC-v4".parse(), Ok(CpuSignature::EPYC_V4));
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in ["", "epyc", "EPYC-", "EPYC-v", "EPYC-v0", "EPYC-v44", "EPYC-Milan-", "Skylake-Server", "-v4"] {
            assert_eq!(name.parse::<CpuSignature>(), Err(UnknownCpu(name.into())));
        }
    }
}
