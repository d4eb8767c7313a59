//! The audit log: one JSON record for each decision, each holding the digest of the one before. An altered, removed or
//! inserted record breaks the chain where it stands. It holds digests and names, never a secret or a raw measurement.
//!
//! The chain alone does not show that its end was cut off: compare the head that `audit verify` prints with one kept
//! elsewhere.

use inwit_protocol::primitives::sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What is decided, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "made, written and dropped one at a time; a box would gain nothing")]
pub enum Event {
    /// A credential was issued and secrets were released.
    Granted {
        /// Name of the workload.
        workload: String,
        /// Its identifier.
        identifier: String,
        /// Platform of the Evidence.
        platform: String,
        /// Name of the Reference Values that matched.
        reference_values: String,
        /// SHA-256 of the Evidence, hex.
        evidence: String,
        /// SHA-256 of the binding, hex.
        binding: String,
        /// SHA-256 of the registry entry, hex.
        policy: String,
        /// Status of the appraisal, and the trustworthiness claims that it asserts, by name. Absent in records that were
        /// written before there were any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<String>,
        /// See `status`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        trustworthiness: BTreeMap<String, i8>,
        /// Serial number of the certificate, hex: the hook to provenance.
        serial: String,
        /// Names of the released secrets.
        secrets: Vec<String>,
    },
    /// A request was refused.
    Refused {
        /// The refusal's code.
        code: String,
        /// Its cause. The guest may have been told less: what was measured stays here.
        cause: String,
    },
    /// So many refusals came too fast to be listed one by one.
    RefusalsUnlisted {
        /// How many.
        count: u64,
    },
    /// An operator accepted a clock that is behind the records: the one way for time to go back.
    ClockAccepted,
    /// An operator had it forgotten how far a TPM had come: the one way for its state to go back.
    TpmForgotten {
        /// SHA-256 of its attestation key's SubjectPublicKeyInfo, hex.
        attestation_key: String,
    },
    /// An operator issued a certificate to a service that is not attested.
    Enrolled {
        /// The service's identifier.
        identifier: String,
        /// Serial number, hex.
        serial: String,
    },
    /// An operator stored a secret.
    SecretStored {
        /// Its name.
        name: String,
    },
}

/// A record of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Position, from 1.
    pub sequence: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// SHA-256 of the record before, hex; 64 zeros for the first.
    pub previous: String,
    /// What was decided.
    pub decision: Event,
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A broken chain, located.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenChain {
    /// The first record that does not fit.
    pub sequence: u64,
    /// Why.
    pub cause: &'static str,
}

impl fmt::Display for BrokenChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "audit record {}: {}", self.sequence, self.cause)
    }
}

/// The running end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Records so far.
    pub length: u64,
    /// SHA-256 of the last record.
    pub digest: [u8; 32],
    /// Its time, seconds since 1970.
    pub time: u64,
}

impl Head {
    /// An empty chain.
    pub const EMPTY: Self = Self { length: 0, digest: [0; 32], time: 0 };

    /// The next record's bytes for `decision`, and the head after it.
    pub fn append(&self, decision: Event, time: u64) -> (Vec<u8>, Head) {
        let sequence = self.length.saturating_add(1);
        // A clock that was set back must not make the log forget how late it was.
        let time = if decision == Event::ClockAccepted { time } else { time.max(self.time) };
        let record = Record { sequence, time, previous: hex(&self.digest), decision };
        // A structure of numbers and strings always serialises; were it not to, the chain would break visibly.
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        let digest = sha256(&bytes);
        (bytes, Head { length: sequence, digest, time })
    }

    /// Checks that `bytes` continue the chain.
    pub fn follow(&self, bytes: &[u8]) -> Result<Head, BrokenChain> {
        let sequence = self.length.saturating_add(1);
        let broken = |cause| BrokenChain { sequence, cause };
        let record: Record = serde_json::from_slice(bytes).map_err(|_| broken("it does not parse"))?;
        if record.sequence != sequence {
            return Err(broken("a record is missing or stands twice"));
        }
        if record.previous != hex(&self.digest) {
            return Err(broken("the record before it was altered"));
        }
        if record.time < self.time && record.decision != Event::ClockAccepted {
            return Err(broken("it is older than the one before it"));
        }
        Ok(Head { length: sequence, digest: sha256(bytes), time: record.time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Vec<u8>> {
        let mut head = Head::EMPTY;
        (0..5)
            .map(|n| {
                let (bytes, next) = head.append(Event::SecretStored { name: format!("s{n}") }, 1_700_000_000 + n);
                head = next;
                bytes
            })
            .collect()
    }

    fn verify(chain: &[Vec<u8>]) -> Result<Head, BrokenChain> {
        chain.iter().try_fold(Head::EMPTY, |head, bytes| head.follow(bytes))
    }

    #[test]
    fn time_goes_back_only_by_an_operators_act() {
        let late = Head { time: 2_000, ..Head::EMPTY };
        let refused = Event::Refused { code: "x".into(), cause: "y".into() };
        assert_eq!(late.append(refused.clone(), 1_000).1.time, 2_000);
        assert_eq!(late.append(Event::ClockAccepted, 1_000).1.time, 1_000);
        let (bytes, _) = Head::EMPTY.append(refused, 1_000);
        assert_eq!(late.follow(&bytes).unwrap_err().cause, "it is older than the one before it");
    }

    #[test]
    fn a_grant_from_before_there_was_a_status_still_follows() {
        let old = r#"{"event":"granted","workload":"w","identifier":"spiffe://d/w","platform":"snp","reference_values":"w/r","evidence":"00","binding":"01","policy":"02","serial":"03","secrets":[]}"#;
        let decision: Event = serde_json::from_str(old).unwrap();
        assert!(
            matches!(&decision, Event::Granted { status: None, trustworthiness, .. } if trustworthiness.is_empty())
        );
        assert_eq!(serde_json::to_string(&decision).unwrap(), old, "and is written as it was");
        let (bytes, head) = Head::EMPTY.append(decision, 1_000);
        assert_eq!(Head::EMPTY.follow(&bytes).unwrap(), head);
    }

    #[test]
    fn an_altered_removed_or_swapped_record_is_located() {
        assert_eq!(verify(&chain()).unwrap().length, 5);
        let mut altered = chain();
        altered[1] = String::from_utf8(altered[1].clone()).unwrap().replace("s1", "s9").into_bytes();
        assert_eq!(verify(&altered).unwrap_err().sequence, 3);
        let mut removed = chain();
        removed.remove(2);
        assert_eq!(verify(&removed).unwrap_err().sequence, 3);
        let mut swapped = chain();
        swapped.swap(3, 4);
        assert_eq!(verify(&swapped).unwrap_err().sequence, 4);
    }
}
