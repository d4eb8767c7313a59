//! The embedded store (redb, one file, pure Rust): encrypted secrets and the audit chain. Every change is durable before
//! it is acknowledged, and a decision is recorded in the same transaction that makes it true.
//!
//! One process at a time: redb locks its file. Only ciphertext enters it.

use crate::audit::{BrokenChain, Event, Head, Record, hex};
use crate::fault::Fault;
use crate::files;
use crate::tpm_history::{Reached, RolledBack, TpmAge, TpmMoment};
use inwit_protocol::primitives::sha256;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::path::Path;

const SECRETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("secrets");
/// By SHA-256 of the attestation key's SubjectPublicKeyInfo.
const TPMS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("tpms");
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");

/// The open store.
pub(crate) struct Store(Database);

fn fault(error: impl Into<redb::Error>) -> Fault {
    Fault::of("store", error.into())
}

impl Store {
    /// Opens the store. One that is gone is a fault: a fresh one would show an empty audit log as a whole one.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        Database::open(path).map(Self).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                Fault::of(path.display(), "in use by another process: stop `inwit-authority serve` first")
            }
            other => Fault::of(path.display(), redb::Error::from(other)),
        })
    }

    /// Makes an empty store, readable by its owner alone.
    pub(crate) fn create(path: &Path) -> Result<Self, Fault> {
        files::create_private(path, &[])?;
        let store = Self(Database::create(path).map_err(fault)?);
        let transaction = store.begin()?;
        transaction.open_table(SECRETS).map_err(fault)?;
        transaction.open_table(AUDIT).map_err(fault)?;
        transaction.open_table(TPMS).map_err(fault)?;
        transaction.commit().map_err(fault)?;
        Ok(store)
    }

    /// When the newest record was written, seconds since 1970; 0 for an empty log.
    pub(crate) fn last_time(&self) -> Result<u64, Fault> {
        let transaction = self.0.begin_read().map_err(fault)?;
        let table = transaction.open_table(AUDIT).map_err(fault)?;
        Ok(head(&table)?.time)
    }

    fn begin(&self) -> Result<WriteTransaction, Fault> {
        let mut transaction = self.0.begin_write().map_err(fault)?;
        transaction.set_durability(Durability::Immediate).map_err(fault)?;
        Ok(transaction)
    }

    /// Stores a wrapped secret under a name that is not taken, and records it.
    pub(crate) fn insert_secret(&self, name: &str, wrapped: &[u8], time: u64) -> Result<(), Fault> {
        let transaction = self.begin()?;
        {
            let mut table = transaction.open_table(SECRETS).map_err(fault)?;
            if table.get(name).map_err(fault)?.is_some() {
                return Err(Fault::of(
                    name,
                    "a secret of this name exists; choose another name, old disks may need it",
                ));
            }
            table.insert(name, wrapped).map_err(fault)?;
        }
        append(&transaction, Event::SecretStored { name: name.to_owned() }, time)?;
        transaction.commit().map_err(fault)
    }

    /// The wrapped secret of a name.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let transaction = self.0.begin_read().map_err(fault)?;
        let table = transaction.open_table(SECRETS).map_err(fault)?;
        Ok(table.get(name).map_err(fault)?.map(|value| value.value().to_vec()))
    }

    /// Records a decision; it stands when this returns.
    pub(crate) fn record(&self, event: Event, time: u64) -> Result<(), Fault> {
        let transaction = self.begin()?;
        append(&transaction, event, time)?;
        transaction.commit().map_err(fault)
    }

    /// Records a grant, and how far the TPM that vouched for it had come: both, or neither where that TPM went back. Two
    /// grants at a time are one after the other here, so a state cannot be used twice in between.
    pub(crate) fn record_grant(&self, event: Event, tpm: &TpmAge, time: u64) -> Result<Result<(), RolledBack>, Fault> {
        let transaction = self.begin()?;
        if let Some(moment) = tpm.moment()
            && let Err(rolled_back) = advance(&transaction, moment, time)?
        {
            // Not committed: nothing was changed.
            return Ok(Err(rolled_back));
        }
        append(&transaction, event, time)?;
        transaction.commit().map_err(fault)?;
        Ok(Ok(()))
    }

    /// Every TPM that was granted something, by SHA-256 of its attestation key, with how far it had come.
    pub(crate) fn tpms(&self) -> Result<Vec<([u8; 32], Reached)>, Fault> {
        let transaction = self.0.begin_read().map_err(fault)?;
        let table = transaction.open_table(TPMS).map_err(fault)?;
        let mut tpms = Vec::new();
        for row in table.iter().map_err(fault)? {
            let (key, bytes) = row.map_err(fault)?;
            tpms.push((*key.value(), Reached::decode(bytes.value()).ok_or_else(damaged)?));
        }
        Ok(tpms)
    }

    /// Forgets how far a TPM had come, and records that. False where nothing is known of it: then nothing is recorded.
    pub(crate) fn forget_tpm(&self, key: &[u8; 32], time: u64) -> Result<bool, Fault> {
        let transaction = self.begin()?;
        let known = transaction.open_table(TPMS).map_err(fault)?.remove(key).map_err(fault)?.is_some();
        if known {
            append(&transaction, Event::TpmForgotten { attestation_key: hex(key) }, time)?;
            transaction.commit().map_err(fault)?;
        }
        Ok(known)
    }

    /// Every audit record, oldest first.
    pub(crate) fn audit_records(&self) -> Result<Vec<Vec<u8>>, Fault> {
        let transaction = self.0.begin_read().map_err(fault)?;
        let table = transaction.open_table(AUDIT).map_err(fault)?;
        let records: Result<Vec<_>, _> =
            table.iter().map_err(fault)?.map(|row| row.map(|(_, v)| v.value().to_vec())).collect();
        records.map_err(fault)
    }

    /// Walks the whole chain.
    pub(crate) fn verify_audit(&self) -> Result<Result<Head, BrokenChain>, Fault> {
        Ok(self.audit_records()?.iter().try_fold(Head::EMPTY, |head, bytes| head.follow(bytes)))
    }
}

/// The end of the chain. A newest record that does not parse is a fault: nothing can be appended to it.
fn head(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Head, Fault> {
    let Some((_, bytes)) = table.last().map_err(fault)? else { return Ok(Head::EMPTY) };
    let record: Record =
        serde_json::from_slice(bytes.value()).map_err(|error| Fault::of("audit log, newest record", error))?;
    Ok(Head { length: record.sequence, digest: sha256(bytes.value()), time: record.time })
}

fn damaged() -> Fault {
    Fault::of("store", "a TPM's history is damaged")
}

/// Moves what is remembered of a TPM on. A memory that does not parse is a fault: forgetting would let an old state in.
fn advance(transaction: &WriteTransaction, moment: &TpmMoment, time: u64) -> Result<Result<(), RolledBack>, Fault> {
    let mut table = transaction.open_table(TPMS).map_err(fault)?;
    let reached = match table.get(moment.key()).map_err(fault)? {
        None => Ok(Reached::first(moment, time)),
        Some(bytes) => {
            let reached = Reached::decode(bytes.value()).ok_or_else(damaged)?;
            reached.then(moment, time)
        }
    };
    match reached {
        Ok(reached) => table.insert(moment.key(), reached.encode().as_slice()).map_err(fault).map(|_| Ok(())),
        Err(rolled_back) => Ok(Err(rolled_back)),
    }
}

fn append(transaction: &WriteTransaction, event: Event, time: u64) -> Result<(), Fault> {
    let mut table = transaction.open_table(AUDIT).map_err(fault)?;
    let head = head(&table)?;
    let (bytes, head) = head.append(event, time);
    table.insert(head.length, bytes.as_slice()).map_err(fault)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm_history::moment;

    #[test]
    fn a_tpm_that_went_back_is_granted_nothing_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let granted = |store: &Store, moment: &TpmMoment| {
            store.record_grant(Event::SecretStored { name: "a grant".into() }, &Some(moment.clone()).into(), 1).unwrap()
        };
        let store = Store::create(&path).unwrap();
        assert!(granted(&store, &moment(5, 0, 1_000, true)).is_ok());
        assert!(granted(&store, &moment(6, 0, 2_000, true)).is_ok());
        drop(store);
        let store = Store::open(&path).unwrap();
        assert!(granted(&store, &moment(5, 0, 1_500, true)).unwrap_err().to_string().contains("reset count 5"));
        assert!(granted(&store, &moment(6, 0, 1_999, true)).is_err());
        assert_eq!(store.verify_audit().unwrap().unwrap().length, 2, "what is not granted is not recorded as granted");
        assert!(granted(&store, &moment(6, 0, 2_001, true)).is_ok());
        assert!(store.record_grant(Event::SecretStored { name: "no TPM".into() }, &None.into(), 1).unwrap().is_ok());
        assert_eq!(store.verify_audit().unwrap().unwrap().length, 4);
    }

    #[test]
    fn a_tpm_is_forgotten_once_and_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("store.redb")).unwrap();
        let granted =
            |moment| store.record_grant(Event::SecretStored { name: "a grant".into() }, &Some(moment).into(), 1);
        assert!(granted(moment(5, 0, 1_000, true)).unwrap().is_ok());
        let cleared = || moment(0, 0, 10, true);
        assert!(granted(cleared()).unwrap().is_err());
        assert_eq!(store.tpms().unwrap(), [([7; 32], Reached::first(&moment(5, 0, 1_000, true), 1))]);
        assert!(!store.forget_tpm(&[8; 32], 2).unwrap());
        assert!(store.forget_tpm(&[7; 32], 2).unwrap());
        assert!(!store.forget_tpm(&[7; 32], 2).unwrap());
        assert_eq!(store.tpms().unwrap(), []);
        assert!(granted(cleared()).unwrap().is_ok());
        let records = store.audit_records().unwrap();
        assert_eq!(records.len(), 3);
        assert!(String::from_utf8_lossy(&records[1]).contains("tpm-forgotten"), "{records:?}");
        store.verify_audit().unwrap().unwrap();
    }

    #[test]
    fn a_name_is_taken_once_and_every_change_is_in_the_chain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        assert!(Store::open(&path).is_err(), "a store that is gone is not made anew");
        let store = Store::create(&path).unwrap();
        store.insert_secret("disk", b"wrapped", 1).unwrap();
        assert!(store.insert_secret("disk", b"other", 2).is_err());
        store.record(Event::Refused { code: "pop-invalid".into(), cause: "x".into() }, 3).unwrap();
        assert!(Store::open(&path).is_err(), "a second process must be told");
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.secret("disk").unwrap().unwrap(), b"wrapped");
        assert_eq!(store.secret("none").unwrap(), None);
        assert_eq!(store.verify_audit().unwrap().unwrap().length, 2);
        // A clock set back, a refusal recorded by it, a restart: the log still knows how late it was.
        store.record(Event::Refused { code: "clock-unavailable".into(), cause: "x".into() }, 1).unwrap();
        assert_eq!(store.last_time().unwrap(), 3);
        store.record(Event::ClockAccepted, 2).unwrap();
        assert_eq!((store.last_time().unwrap(), store.verify_audit().unwrap().unwrap().length), (2, 4));
    }
}
