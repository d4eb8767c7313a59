//! The vocabulary of EAT Attestation Results (draft-ietf-rats-ear) and of their trustworthiness vector (draft-ietf-rats-
//! ar4si): claim keys, tiers, and the values that each of the eight trustworthiness claims may have. Typed so that a
//! Verifier cannot say a value that the claim does not have, and so that the status follows from the vector.
//!
//! Both drafts still change their profile name and member names; this is the form of profile [`PROFILE`]. It carries no
//! raw measurement, and there is no type here that could.

use crate::cbor::{self, Entries, Field, ParseError};
use crate::primitives::{P256_SCALAR_LEN, PublicKey};
use ciborium::Value;
use core::fmt;

/// The EAT profile of an EAR.
pub const PROFILE: &str = "tag:ietf.org,2026:rats/ear#03";
/// Who made the Verifier, as `ear_verifier_id` names it.
pub const DEVELOPER: &str = "inwit";

/// Keys of the claims sets (IANA "CBOR Web Token Claims"; draft-ietf-rats-ear for 1000 and above).
pub(crate) mod key {
    pub(crate) const SUB: i64 = 2;
    pub(crate) const AUD: i64 = 3;
    pub(crate) const EXP: i64 = 4;
    pub(crate) const IAT: i64 = 6;
    /// RFC 8747.
    pub(crate) const CNF: i64 = 8;
    pub(crate) const EAT_NONCE: i64 = 10;
    pub(crate) const EAT_PROFILE: i64 = 265;
    pub(crate) const SUBMODS: i64 = 266;
    pub(crate) const STATUS: i64 = 1_000;
    pub(crate) const VECTOR: i64 = 1_001;
    pub(crate) const POLICY_IDS: i64 = 1_003;
    pub(crate) const VERIFIER_ID: i64 = 1_004;
    /// Members of `ear_verifier_id`.
    pub(crate) const DEVELOPER: i64 = 0;
    pub(crate) const BUILD: i64 = 1;
    /// Ours, in the range for private use, below −65536.
    pub(crate) const WORKLOAD: i64 = -77_001;
    pub(crate) const ENCAPSULATION_KEY: i64 = -77_002;
    pub(crate) const BINDING: i64 = -77_003;
    pub(crate) const EVIDENCE: i64 = -77_004;
}

/// A tier of trustworthiness, and the status of a whole appraisal: worse ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing is asserted.
    None,
    /// Found as it should be.
    Affirming,
    /// Something is not as it should be, and was let pass.
    Warning,
    /// Not to be trusted.
    Contraindicated,
}

impl Tier {
    /// The tier of a value of any trustworthiness claim.
    pub fn of(value: i8) -> Self {
        match value {
            -1..=1 => Self::None,
            2..=31 | -32..=-2 => Self::Affirming,
            32..=95 | -96..=-33 => Self::Warning,
            96..=127 | -128..=-97 => Self::Contraindicated,
        }
    }

    /// As `ear_status` writes it in CBOR.
    pub fn number(self) -> i8 {
        match self {
            Self::None => 0,
            Self::Affirming => 2,
            Self::Warning => 32,
            Self::Contraindicated => 96,
        }
    }

    /// As `ear_status` writes it in JSON.
    pub fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

macro_rules! trustworthiness {
    ($($(#[$doc:meta])* $claim:ident $field:ident $number:literal $name:literal {
        $($(#[$value_doc:meta])* $value:ident = $code:literal,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $claim {
                /// Nobody looked: the same as leaving the claim out.
                NotAsserted,
                $($(#[$value_doc])* $value,)*
            }

            impl $claim {
                /// The value as AR4SI numbers it.
                pub fn value(self) -> i8 {
                    match self { Self::NotAsserted => 0, $(Self::$value => $code,)* }
                }

                fn from_value(value: i8) -> Option<Self> {
                    match value { 0 => Some(Self::NotAsserted), $($code => Some(Self::$value),)* _ => None }
                }
            }
        )*

        /// An AR4SI trustworthiness vector: what a Verifier found about each of eight sides of an Attester.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct TrustworthinessVector { $($(#[$doc])* pub $field: $claim,)* }

        impl TrustworthinessVector {
            /// Every claim by its JSON name, with its value, in the order of their CBOR keys 0 to 7.
            pub fn values(&self) -> [(&'static str, i8); 8] {
                [$(($name, self.$field.value()),)*]
            }

            /// All eight claims, so that there is one encoding: one that asserts nothing is written as zero.
            pub(crate) fn to_value(self) -> Value {
                cbor::map(vec![$(($number, Value::from(self.$field.value())),)*])
            }

            pub(crate) fn parse(mut claims: Entries) -> Result<Self, ParseError> {
                let vector = Self {
                    $($field: $claim::from_value(claims.at($number)?.small()?).ok_or(ParseError::Shape($name))?,)*
                };
                claims.end()?;
                Ok(vector)
            }
        }
    };
}

trustworthiness! {
    /// Is this instance of the Attester known?
    InstanceIdentity instance_identity 0 "instance-identity" {
        /// Recognised, and not known to be compromised.
        Recognised = 2,
        /// Recognised by a key that marks an untrustworthy device.
        Untrustworthy = 96,
        /// Not recognised, though it should be.
        Unrecognised = 97,
    }
    /// Is it configured as it should be?
    Configuration configuration 1 "configuration" {
        /// Known and approved.
        Approved = 2,
        /// Exposes no known vulnerability.
        NoKnownVulnerability = 3,
        /// Exposes known vulnerabilities.
        KnownVulnerability = 32,
        /// Parts that matter to security cannot be seen by the Verifier.
        NotVisible = 36,
        /// Exposes unacceptable vulnerabilities.
        Unacceptable = 96,
    }
    /// Was approved code loaded?
    Executables executables 2 "executables" {
        /// Approved code only, during and after boot.
        ApprovedThroughout = 2,
        /// Approved code only, during boot.
        ApprovedAtBoot = 3,
        /// Genuine, and some of it has known vulnerabilities.
        KnownVulnerability = 32,
        /// There is code that is not recognised.
        Unrecognised = 33,
        /// Code that must not be there.
        Contraindicated = 96,
    }
    /// Are the files known?
    FileSystem file_system 3 "file-system" {
        /// Recognised files only.
        Recognised = 2,
        /// There are files that are not recognised.
        Unrecognised = 32,
        /// Files that must not be there.
        Contraindicated = 96,
    }
    /// Is the hardware, with its firmware, genuine?
    Hardware hardware 4 "hardware" {
        /// Genuine and supported.
        Genuine = 2,
        /// Genuine, with known vulnerabilities.
        KnownVulnerability = 32,
        /// Genuine by signature and chain; no revocation list was looked at. AR4SI numbers no such finding, so this is one
        /// of the values that it leaves to Verifiers, of the tier of warnings.
        RevocationUnknown = -33,
        /// Recognised, and not to be trusted.
        Contraindicated = 96,
        /// Not recognised, though it should be.
        Unrecognised = 97,
    }
    /// Can others see its memory?
    RuntimeOpaque runtime_opaque 5 "runtime-opaque" {
        /// Encrypted and inside of a TEE: hidden from the host and from peers.
        Encrypted = 2,
        /// Isolated from other guests, and not encrypted against the host.
        Isolated = 32,
        /// The host can see it.
        Visible = 96,
    }
    /// Can others see what it stores?
    StorageOpaque storage_opaque 6 "storage-opaque" {
        /// All persistent secrets are encrypted with keys that never leave a TEE or an HSM.
        Encrypted = 2,
        /// Encrypted, with keys that no hardware holds.
        SoftwareKeys = 32,
        /// Secrets are stored unencrypted.
        Unencrypted = 96,
    }
    /// Are the sources of its data trustworthy?
    SourcedData sourced_data 7 "sourced-data" {
        /// All of them were affirmed.
        Affirmed = 2,
        /// Some were not attested, or with warnings.
        Unattested = 32,
        /// Some are not to be trusted.
        Contraindicated = 96,
    }
}

impl TrustworthinessVector {
    /// A vector that asserts nothing.
    pub const NOTHING: Self = Self {
        instance_identity: InstanceIdentity::NotAsserted,
        configuration: Configuration::NotAsserted,
        executables: Executables::NotAsserted,
        file_system: FileSystem::NotAsserted,
        hardware: Hardware::NotAsserted,
        runtime_opaque: RuntimeOpaque::NotAsserted,
        storage_opaque: StorageOpaque::NotAsserted,
        sourced_data: SourcedData::NotAsserted,
    };

    /// The status of an appraisal that found this: the tier of its worst claim.
    pub fn status(&self) -> Tier {
        self.values().iter().map(|(_, value)| Tier::of(*value)).max().unwrap_or(Tier::None)
    }
}

/// Labels and values of a COSE_Key for P-256 (RFC 9053 §7.1.1).
mod cose_key {
    pub(super) const KTY: i64 = 1;
    pub(super) const EC2: i64 = 2;
    pub(super) const CRV: i64 = -1;
    pub(super) const P256: i64 = 1;
    pub(super) const X: i64 = -2;
    pub(super) const Y: i64 = -3;
}
/// Member of `cnf` that holds a COSE_Key (RFC 8747 §3.1).
const COSE_KEY: i64 = 1;

/// The `cnf` claim (RFC 8747 §3.1): whoever proves possession of this key is the Attester that was appraised. The key goes
/// by the registered claim and not by Veraison's `ear.veraison.key-attestation`, which belongs to another profile.
pub(crate) fn confirmation(of: &PublicKey) -> Value {
    let coordinates = of.point().get(1..).unwrap_or_default();
    let (x, y) = coordinates.split_at_checked(P256_SCALAR_LEN).unwrap_or_default();
    let key = cbor::map(vec![
        (cose_key::KTY, Value::from(cose_key::EC2)),
        (cose_key::CRV, Value::from(cose_key::P256)),
        (cose_key::X, Value::Bytes(x.to_vec())),
        (cose_key::Y, Value::Bytes(y.to_vec())),
    ]);
    cbor::map(vec![(COSE_KEY, key)])
}

/// Reads what [`confirmation`] wrote.
pub(crate) fn confirmed(claim: Field) -> Result<PublicKey, ParseError> {
    const BAD: ParseError = ParseError::Shape("cnf");
    let mut members = claim.entries()?;
    let mut key = members.at(COSE_KEY)?.entries()?;
    members.end()?;
    for (label, demanded) in [(cose_key::KTY, cose_key::EC2), (cose_key::CRV, cose_key::P256)] {
        if i64::from(key.at(label)?.small()?) != demanded {
            return Err(BAD);
        }
    }
    let (x, y) = (key.at(cose_key::X)?.array::<P256_SCALAR_LEN>()?, key.at(cose_key::Y)?.array::<P256_SCALAR_LEN>()?);
    key.end()?;
    PublicKey::from_point(&[&[4], x.as_slice(), y.as_slice()].concat()).map_err(|_| BAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_ar4sis_over_the_whole_range() {
        let count = |tier| (i8::MIN..=i8::MAX).filter(|value| Tier::of(*value) == tier).count();
        assert_eq!([Tier::None, Tier::Affirming, Tier::Warning, Tier::Contraindicated].map(count), [3, 61, 128, 64]);
        for tier in [Tier::None, Tier::Affirming, Tier::Warning, Tier::Contraindicated] {
            assert_eq!(Tier::of(tier.number()), tier);
        }
        for (value, tier) in
            [(99, Tier::Contraindicated), (-97, Tier::Contraindicated), (-33, Tier::Warning), (31, Tier::Affirming)]
        {
            assert_eq!(Tier::of(value), tier, "{value}");
        }
    }

    #[test]
    fn a_status_is_never_better_than_the_worst_claim() {
        assert_eq!(TrustworthinessVector::NOTHING.status(), Tier::None);
        let good = TrustworthinessVector {
            hardware: Hardware::Genuine,
            executables: Executables::ApprovedAtBoot,
            ..TrustworthinessVector::NOTHING
        };
        assert_eq!(good.status(), Tier::Affirming);
        let unlisted = TrustworthinessVector { hardware: Hardware::RevocationUnknown, ..good };
        assert_eq!(unlisted.status(), Tier::Warning);
        let visible = TrustworthinessVector { runtime_opaque: RuntimeOpaque::Visible, ..unlisted };
        assert_eq!(visible.status(), Tier::Contraindicated);
    }

    #[test]
    fn each_claim_knows_its_values_and_no_other() {
        let known = |from: fn(i8) -> bool| (i8::MIN..=i8::MAX).filter(|value| from(*value)).collect::<Vec<i8>>();
        assert_eq!(
            known(|value| Hardware::from_value(value).is_some_and(|claim| claim.value() == value)),
            [-33, 0, 2, 32, 96, 97]
        );
        assert_eq!(
            known(|value| Executables::from_value(value).is_some_and(|claim| claim.value() == value)),
            [0, 2, 3, 32, 33, 96]
        );
        assert_eq!(
            known(|value| RuntimeOpaque::from_value(value).is_some_and(|claim| claim.value() == value)),
            [0, 2, 32, 96]
        );
    }
}
