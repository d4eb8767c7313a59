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

/// A family of QEMU CPU models that share a signature.
struct Model {
    name: &'static str,
    /// `NAME-v1` up to this one are defined.
    versions: u8,
    signature: CpuSignature,
}

const fn model(name: &'static str, versions: u8, [family, model, stepping]: [u8; 3]) -> Model {
    Model { name, versions, signature: CpuSignature::encode(family, model, stepping) }
}

/// QEMU's AMD server models (QEMU 10.2; of Turin a second version is named by the `sev` crate already).
const MODELS: [Model; 5] = [
    model("EPYC", 5, [23, 1, 2]),
    model("EPYC-Rome", 5, [23, 49, 0]),
    model("EPYC-Milan", 3, [25, 1, 1]),
    model("EPYC-Genoa", 2, [25, 17, 0]),
    model("EPYC-Turin", 2, [26, 0, 0]),
];
/// Another name of EPYC-v2.
const IBPB: &str = "EPYC-IBPB";

/// A vCPU type that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "unknown vCPU type {0:?}: there are EPYC, EPYC-v1 to EPYC-v5, EPYC-IBPB, EPYC-Rome, EPYC-Rome-v1 to -v5, EPYC-Milan, \
     EPYC-Milan-v1 to -v3, EPYC-Genoa, EPYC-Genoa-v1 and -v2, EPYC-Turin, EPYC-Turin-v1 and -v2; for another model give \
     its signature, or its family, model and stepping"
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

    /// Every signature that has a name, with the shortest one.
    pub fn named() -> impl Iterator<Item = (&'static str, Self)> {
        MODELS.iter().map(|model| (model.name, model.signature))
    }

    /// Every name that is known, versions included.
    pub fn names() -> impl Iterator<Item = String> {
        let versions = |model: &Model| {
            let name = model.name;
            (1..=model.versions).map(move |version| format!("{name}-v{version}"))
        };
        let all = MODELS.iter().flat_map(move |model| [model.name.to_owned()].into_iter().chain(versions(model)));
        all.chain([IBPB.to_owned()])
    }

    /// The name of the models that have this signature.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::named().find(|(_, signature)| *signature == self).map(|(name, _)| name)
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
        let unknown = || UnknownCpu(name.to_owned());
        let (unversioned, version) = match name.rsplit_once("-v") {
            Some((model, version)) => (model, Some(version)),
            None if name == IBPB => ("EPYC", None),
            None => (name, None),
        };
        let model = MODELS.iter().find(|model| model.name == unversioned).ok_or_else(unknown)?;
        let defined = version.is_none_or(|text| (1..=model.versions).any(|version| version.to_string() == text));
        if defined { Ok(model.signature) } else { Err(unknown()) }
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
    fn every_name_leads_to_a_signature_that_has_a_name() {
        let names: Vec<_> = CpuSignature::names().collect();
        assert_eq!(names.len(), 5 + 17 + 1);
        for name in names {
            let signature: CpuSignature = name.parse().unwrap();
            let short = signature.name().unwrap();
            assert!(name.starts_with(short), "{name} {short}");
        }
        assert_eq!(CpuSignature::from_raw(1).name(), None);
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in [
            "EPYC-v6",
            "EPYC-v04",
            "EPYC-Turin-v3",
            "EPYC-Rome-IBPB",
            "",
            "epyc",
            "EPYC-",
            "EPYC-v",
            "EPYC-v0",
            "EPYC-v44",
            "EPYC-Milan-",
            "Skylake-Server",
            "-v4",
        ] {
            assert_eq!(name.parse::<CpuSignature>(), Err(UnknownCpu(name.into())));
        }
    }
}
