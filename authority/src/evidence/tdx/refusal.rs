//! Why a quote is not authentic, each reason with its code. A code says whose business the fault is: bytes that are no
//! quote, a signature, an endorsement to import, a platform to update.

use inwit_protocol::refusal::{Refusal, RefusalCode};
use thiserror::Error;

use super::chain::ChainError;
use super::envelope::EnvelopeError;
use super::pem::PemError;
use super::quoting_enclave::EnclaveError;
use super::tcb::TcbError;
use crate::evidence::boot_log::BootLogError;
use crate::evidence::fields::FieldError;

/// Why a TDX quote is not authentic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum TdxError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error(transparent)]
    Body(#[from] FieldError),
    #[error("no root for TDX is configured: import Intel's SGX root certificate and TDX collateral")]
    NoRoot,
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("no {0} is at hand: import it")]
    NoDocument(String),
    #[error("no {0} is current: import a fresh one")]
    DocumentExpired(String),
    #[error(transparent)]
    Enclave(#[from] EnclaveError),
    #[error("the quote is not signed with its attestation key")]
    Signature,
    #[error(transparent)]
    Tcb(#[from] TcbError),
    #[error(transparent)]
    BootLog(#[from] BootLogError),
}

impl TdxError {
    fn code(&self) -> RefusalCode {
        match self {
            Self::Envelope(error) => of_envelope(error),
            Self::Body(_) => RefusalCode::Malformed,
            Self::NoRoot | Self::NoDocument(_) => RefusalCode::EndorsementMissing,
            Self::DocumentExpired(_) => RefusalCode::EndorsementExpired,
            Self::Chain(error) => of_chain(error),
            Self::Enclave(error) => of_enclave(error),
            Self::Signature => RefusalCode::QuoteSignature,
            Self::Tcb(error) => of_tcb(error),
            Self::BootLog(_) => RefusalCode::EventLogMismatch,
        }
    }
}

impl From<TdxError> for Refusal {
    fn from(error: TdxError) -> Self {
        Self::new(error.code(), error)
    }
}

fn of_envelope(error: &EnvelopeError) -> RefusalCode {
    match error {
        EnvelopeError::Field(_) | EnvelopeError::Length => RefusalCode::Malformed,
        EnvelopeError::Vendor => RefusalCode::ChainUntrusted,
        EnvelopeError::Version(_)
        | EnvelopeError::Tee(_)
        | EnvelopeError::KeyType(_)
        | EnvelopeError::Body(..)
        | EnvelopeError::Certification(_) => RefusalCode::Unsupported,
    }
}

fn of_chain(error: &ChainError) -> RefusalCode {
    match error {
        ChainError::Pem(PemError::Form) => RefusalCode::Malformed,
        ChainError::Pem(PemError::NoText | PemError::Count)
        | ChainError::Certificate(..)
        | ChainError::Root
        | ChainError::Names
        | ChainError::Pck(_)
        | ChainError::Untrusted { .. } => RefusalCode::ChainUntrusted,
        ChainError::Expired(_) | ChainError::ListExpired(_) => RefusalCode::EndorsementExpired,
        ChainError::NoList(_) => RefusalCode::EndorsementMissing,
        ChainError::Revoked(_) => RefusalCode::EndorsementRevoked,
    }
}

fn of_enclave(error: &EnclaveError) -> RefusalCode {
    match error {
        EnclaveError::Field(_) => RefusalCode::Malformed,
        EnclaveError::Signature | EnclaveError::AttestationKey | EnclaveError::ReportData => {
            RefusalCode::QuoteSignature
        }
        EnclaveError::Identity(_) => RefusalCode::ChainUntrusted,
        EnclaveError::Debug => RefusalCode::DebugEnabled,
        EnclaveError::Level(_) => RefusalCode::TcbTooOld,
    }
}

fn of_tcb(error: &TcbError) -> RefusalCode {
    match error {
        TcbError::UnknownModule(_) => RefusalCode::EndorsementMissing,
        TcbError::PceId | TcbError::ModuleSigner(_) | TcbError::ModuleAttributes | TcbError::Status(..) => {
            RefusalCode::ChainUntrusted
        }
        TcbError::DevelopmentModule => RefusalCode::DebugEnabled,
        TcbError::NoLevel | TcbError::NoModuleLevel { .. } | TcbError::Revoked(_) => RefusalCode::TcbTooOld,
    }
}
