//! Parameter areas and loaded pages of one walk over the directives: each area is declared once and inserted once, each
//! page is loaded once.
//!
//! Not trusted: numbers, sizes and addresses. Never holds contents: parameters are not measured.

use std::collections::{BTreeMap, BTreeSet};

use super::MAX_LOADED_BYTES;
use super::error::IgvmError;
use crate::ovmf::{PAGE, PAGE_BYTES};

/// Parameter areas by number: their bytes while they can be used.
#[derive(Default)]
pub(super) struct Areas {
    bytes: BTreeMap<u32, Option<u64>>,
}

impl Areas {
    pub(super) fn declare(&mut self, at: usize, index: u32, bytes: u64) -> Result<(), IgvmError> {
        match self.bytes.insert(index, Some(bytes)) {
            None => Ok(()),
            Some(_) => Err(IgvmError::ParameterArea { at, index, problem: "it is declared twice" }),
        }
    }

    /// A parameter at an offset of an area.
    pub(super) fn write(&self, at: usize, index: u32, offset: u32) -> Result<(), IgvmError> {
        if u64::from(offset) < self.usable(at, index)? {
            Ok(())
        } else {
            Err(IgvmError::ParameterArea { at, index, problem: "the offset lies outside of it" })
        }
    }

    /// Takes an area for memory at an address; gives its pages.
    pub(super) fn insert(&mut self, at: usize, address: u64, index: u32) -> Result<usize, IgvmError> {
        let bytes = self.usable(at, index)?;
        if bytes > MAX_LOADED_BYTES {
            return Err(IgvmError::TooMuch);
        }
        if address.checked_add(bytes).is_none() {
            return Err(IgvmError::Unaligned { at, value: address });
        }
        self.bytes.insert(index, None);
        usize::try_from(bytes).map(|bytes| bytes / PAGE).map_err(|_| IgvmError::TooMuch)
    }

    fn usable(&self, at: usize, index: u32) -> Result<u64, IgvmError> {
        match self.bytes.get(&index) {
            Some(Some(bytes)) => Ok(*bytes),
            Some(None) => Err(IgvmError::ParameterArea { at, index, problem: "it is inserted already" }),
            None => Err(IgvmError::ParameterArea { at, index, problem: "it is not declared" }),
        }
    }
}

/// Addresses of pages that are loaded; bounded, so that time and memory are.
#[derive(Default)]
pub(super) struct Loaded(BTreeSet<u64>);

impl Loaded {
    pub(super) fn add(&mut self, at: usize, address: u64, pages: usize) -> Result<(), IgvmError> {
        let all = u64::try_from(self.0.len().saturating_add(pages)).unwrap_or(u64::MAX);
        if all > MAX_LOADED_BYTES / PAGE_BYTES {
            return Err(IgvmError::TooMuch);
        }
        for address in (address..).step_by(PAGE).take(pages) {
            if !self.0.insert(address) {
                return Err(IgvmError::Overlap { at, address });
            }
        }
        Ok(())
    }
}
