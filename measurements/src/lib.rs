//! Predicts what the hardware will measure when a guest starts, and writes it down as Reference Values.
//!
//! Pure functions over bytes: firmware, kernel, initial ramdisk and command line in, digests out. The same functions
//! serve the calculator `inwit-measure` and a Verifier that explains a mismatch.
//!
//! Not trusted: every file that is measured (firmware images, kernels, event logs) is parsed as hostile bytes, with
//! named errors and bounded loops. Never done here: reading a clock, a network or a TPM; deciding whether a
//! measurement is acceptable.

mod bytes;
mod cbor;
mod cpu;
mod digest;
pub mod eventlog;
pub mod explain;
pub mod igvm;
pub mod initrd;
pub mod linux;
pub mod made_from;
pub mod ovmf;
pub mod pe;
pub mod printable;
pub mod reference;
pub mod snp;
pub mod tdx;
mod uefi;
pub mod uki;
mod vmsa;
pub mod volume;
pub mod vtpm;

pub use cbor::CborError;
pub use digest::{Digest, DigestError, sha256, sha384};
