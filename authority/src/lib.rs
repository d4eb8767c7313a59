//! The authority: Verifier, Credential Authority, Key Store and the Workload Owner's tool.
//!
//! It believes nothing from a guest but Evidence that it verified, and nothing about identity but its own mapping from
//! Reference Values. It holds no sample, fake or permissive path: without endorsements and registered workloads it
//! refuses everything, and says what to import.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod audit;
pub mod ca;
pub mod cli;
pub mod decide;
pub mod disk;
pub mod endorsement_files;
pub mod evidence;
pub mod fault;
mod files;
pub mod keystore;
pub mod policy;
pub mod registry;
pub mod serve;
pub mod state;
mod store;
mod tpm_history;
mod vault;
pub mod verifier;
