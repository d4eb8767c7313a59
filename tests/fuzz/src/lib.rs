//! What the fuzz targets share: inputs of several parts, and first inputs to start from.
//!
//! Nothing here judges a result: a target fails by a panic, an overflow, a sanitizer's report, or by running out of
//! time or memory. First inputs are made by our own encoders or read from the vectors (`INWIT_VECTORS`, by default
//! `../shared/vectors` beside the repository); none is kept in the repository.

pub mod simulated;

use std::path::{Path, PathBuf};

/// A time at which most certificates of the vectors are valid, 2026-11-22.
pub const NOW: u64 = 1_795_348_800;

/// Splits an input into `N` parts. Before each but the last stands its length, u16 big-endian; a length beyond the end
/// means the rest, so that every input has parts.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    let mut number = 0;
    [(); N].map(|()| {
        number += 1;
        match rest.split_first_chunk() {
            Some((length, after)) if number < N => {
                let end = usize::from(u16::from_be_bytes(*length)).min(after.len());
                let (part, after) = after.split_at(end);
                rest = after;
                part
            }
            _ if number < N => &[],
            _ => rest,
        }
    })
}

/// The input that [`parts`] splits so. Parts before the last are cut to what a u16 can say.
pub fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let Some((last, first)) = parts.split_last() else { return Vec::new() };
    let mut input = Vec::new();
    for part in first {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        input.extend(length.to_be_bytes());
        input.extend(&part[..usize::from(length)]);
    }
    input.extend(*last);
    input
}

/// Writes first inputs into the corpus folder that this process was started with, if it was started with one.
pub fn begin_with(inputs: impl IntoIterator<Item = Vec<u8>>) {
    let Some(corpus) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) else { return };
    if !Path::new(&corpus).is_dir() {
        return; // one input is being tried again
    }
    for (number, input) in inputs.into_iter().enumerate() {
        if let Err(error) = std::fs::write(Path::new(&corpus).join(format!("first-{number}")), input) {
            eprintln!("{corpus}: {error}");
        }
    }
}

/// The same for a target that signs its inputs: the first of them has to be acceptable, or all others would be stopped at
/// the same door.
pub fn begin_inside(inputs: Vec<Vec<u8>>, acceptable: impl Fn(&[u8]) -> bool) {
    assert!(inputs.first().is_some_and(|input| acceptable(input)), "the first input is not acceptable");
    begin_with(inputs);
}

/// A file of the vectors; empty when it is not there.
pub fn vector(path: &str) -> Vec<u8> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let folder = std::env::var_os("INWIT_VECTORS").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    std::fs::read(folder.join(path)).unwrap_or_else(|error| {
        eprintln!("without {path}: {error}");
        Vec::new()
    })
}
