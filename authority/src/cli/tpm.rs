//! What is remembered of TPMs: how far each had come when something was granted to it, and the operator's word that one be
//! forgotten. Trusts the operator, who alone knows that a TPM was cleared and not put back; never forgets without a record.

use super::Done;
use crate::audit::hex;
use crate::decide::now;
use crate::fault::Fault;
use crate::state::State;
use clap::Subcommand;
use inwit_measurements::Digest;
use serde_json::{Map, Value, json};

#[derive(Subcommand)]
pub(super) enum TpmAct {
    /// List every TPM that was granted something, by SHA-256 of its attestation key, with the counts and clock that it had.
    List,
    /// Forget how far a TPM had come, so that it is granted something again from whatever state it is in. For one that was
    /// cleared (TPM2_Clear sets its counts to zero), or whose copy is no more. Recorded. Stop a running server first.
    Forget {
        /// SHA-256 of its attestation key's SubjectPublicKeyInfo in hex, as `tpm list` and the refusal name it.
        digest: Digest<32>,
    },
}

pub(super) fn tpm(state: &State, act: &TpmAct) -> Result<Done, Fault> {
    let store = state.store()?;
    match act {
        TpmAct::List => {
            let known = store.tpms()?;
            let line = |(key, counts): &(String, [(&str, u64); 4])| {
                let counts: Vec<String> = counts.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{key}\t{}", counts.join("\t"))
            };
            let known: Vec<_> = known.into_iter().map(|(key, reached)| (hex(&key), reached.counts())).collect();
            let json = |(key, counts): &(String, [(&str, u64); 4])| {
                let counts = counts.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
                Value::Object(
                    [("attestation_key".to_owned(), json!(key))].into_iter().chain(counts).collect::<Map<_, _>>(),
                )
            };
            let text: Vec<String> = known.iter().map(line).collect();
            Ok(Done::Said(text.join("\n"), json!({"tpms": known.iter().map(json).collect::<Vec<_>>()})))
        }
        TpmAct::Forget { digest } => {
            if !store.forget_tpm(digest.as_bytes(), now()?)? {
                return Err(Fault::of(digest, "no TPM of this attestation key was granted anything: see `tpm list`"));
            }
            let text = format!("TPM {digest} is forgotten; its next grant is its first");
            Ok(Done::Said(text, json!({"attestation_key": digest.to_string(), "forgotten": true})))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Event;
    use crate::tpm_history::moment;
    use inwit_protocol::identity::TrustDomain;
    use std::ffi::OsStr;

    #[test]
    fn a_cleared_tpm_is_listed_and_forgotten_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = State::create(&path, &TrustDomain::parse("demo.example").unwrap(), now().unwrap()).unwrap();
        let granted = |moment| {
            let event = Event::SecretStored { name: "a grant".into() };
            state.store().unwrap().record_grant(event, &Some(moment).into(), now().unwrap()).unwrap()
        };
        assert!(granted(moment(7, 1, 9_000, true)).is_ok());
        let refusal = granted(moment(0, 0, 10, true)).unwrap_err().to_string();
        let run = |words: &[&str]| {
            let program = ["inwit-authority", "--state", path.to_str().unwrap(), "tpm"];
            let words: Vec<&OsStr> = program.iter().chain(words).map(OsStr::new).collect();
            crate::cli::run(&words)
        };
        let digest = "07".repeat(32);
        assert!(refusal.contains(&digest), "{refusal}");
        let (code, listed) = run(&["list"]);
        assert_eq!(code, 0, "{listed}");
        assert!(listed.starts_with(&format!("{digest}\treset_count=7\trestart_count=1\tclock_ms=9000")), "{listed}");
        let (_, json) = run(&["list", "--json"]);
        assert!(json.contains("\"reset_count\":7") && json.contains(&digest), "{json}");
        assert_eq!(run(&["forget", "07"]).0, 2);
        assert_eq!(run(&["forget", &"08".repeat(32)]).0, 1);
        assert_eq!(run(&["forget", &digest]).0, 0);
        assert_eq!(run(&["list"]), (0, String::new()));
        assert!(granted(moment(0, 0, 10, true)).is_ok());
    }
}
