//! The firmware volumes inside an OVMF code image: what the first stage unpacks into memory, and measures into PCR 0.
//!
//! Sources: UEFI Platform Initialization 1.8 volume 3 (firmware volumes, files, sections), edk2 `OvmfPkg/Sec`. The
//! code image holds a compact volume with one file, whose LZMA-compressed section holds two volumes: PEI, then DXE.
//!
//! Not trusted: the image. Walks are bounded by its length, unpacking by [`MAX_UNPACKED_BYTES`]. The decoder is
//! `lzma-rs`, pure Rust without unsafe code. Never predicts the PEI volume: it runs in place and holds machine data by
//! the time it is measured.

use std::io::{self, Write};

use lzma_rs::decompress::{Options, UnpackedSize};
use thiserror::Error;

use crate::bytes::{array_at, index, u16_at, u32_at, u64_at};
use crate::digest::{Digest, sha256};
use crate::ovmf::{MAX_FIRMWARE_BYTES, guid};

/// Most bytes that the compressed section may unpack to; OVMF builds have 11 to 17 MiB.
pub const MAX_UNPACKED_BYTES: usize = 64 << 20;
/// Volumes begin at multiples of this in an OVMF image.
const VOLUME_STEP: usize = 4096;
const FILE_HEADER: usize = 24;
const LARGE_FILE_HEADER: usize = 32;

const FFS2: [u8; 16] = guid(0x8c8c_e578, 0x8a3d, 0x4f1c, 0x9935_8961_85c3_2dd3);
const FFS3: [u8; 16] = guid(0x5473_c07a, 0x3dcb, 0x4dca, 0xbd6f_1e96_89e7_349a);
const LZMA: [u8; 16] = guid(0xee4e_5898, 0x3914, 0x4259, 0x9d6e_dc7b_d794_03cf);

const FILE_VOLUME_IMAGE: u8 = 0x0b;
const SECTION_GUID_DEFINED: u8 = 0x02;
const SECTION_VOLUME_IMAGE: u8 = 0x17;

/// Why the volumes of an image cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VolumeError {
    /// Longer than any firmware.
    #[error("firmware of {0} bytes: expected at most 64 MiB")]
    Size(usize),
    /// No volume holds a compressed section.
    #[error("no LZMA-compressed firmware volume: give OVMF_CODE.fd or the whole OVMF.fd")]
    NoCompressed,
    /// A volume, file or section has a length that does not fit.
    #[error("the firmware volume is malformed: {0} does not fit")]
    Malformed(&'static str),
    /// The compressed section is damaged or unpacks to more than [`MAX_UNPACKED_BYTES`].
    #[error("the compressed firmware volume cannot be unpacked: {0}")]
    Unpack(String),
    /// The unpacked section holds fewer than two volumes.
    #[error("the compressed section does not hold a PEI and a DXE volume")]
    NoDxe,
}

/// SHA-256 of the DXE volume as the firmware unpacks and measures it.
///
/// # Errors
/// [`VolumeError`].
pub fn dxe_volume_sha256(code: &[u8]) -> Result<Digest<32>, VolumeError> {
    dxe_volume_of(&unpacked(code)?)
}

/// SHA-256 of the DXE volume of what the compressed section unpacks to.
///
/// # Errors
/// [`VolumeError`].
pub(crate) fn dxe_volume_of(unpacked: &[u8]) -> Result<Digest<32>, VolumeError> {
    let mut volumes = sections(unpacked).filter_map(|section| match section {
        Ok(Section { kind: SECTION_VOLUME_IMAGE, body, .. }) => Some(Ok(body)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    volumes.next().transpose()?;
    volumes.next().transpose()?.map(sha256).ok_or(VolumeError::NoDxe)
}

/// The PEI volume as the firmware unpacks it, before it runs.
///
/// # Errors
/// [`VolumeError`].
pub(crate) fn pei_volume(code: &[u8]) -> Result<Vec<u8>, VolumeError> {
    let unpacked = unpacked(code)?;
    let first = sections(&unpacked)
        .find(|section| section.as_ref().map_or(true, |section| section.kind == SECTION_VOLUME_IMAGE));
    first.transpose()?.map(|section| section.body.to_vec()).ok_or(VolumeError::NoDxe)
}

/// What the compressed section unpacks to: a stream of sections, volumes among them.
///
/// # Errors
/// [`VolumeError`].
pub(crate) fn unpacked(code: &[u8]) -> Result<Vec<u8>, VolumeError> {
    unpack(compressed_section(code)?, MAX_UNPACKED_BYTES)
}

/// Name and files of each named volume of an unpacked stream; the files by their own names.
///
/// # Errors
/// [`VolumeError::Malformed`].
pub(crate) fn named_volumes(unpacked: &[u8]) -> Result<Vec<NamedVolume>, VolumeError> {
    let mut named = Vec::new();
    for section in sections(unpacked) {
        let Section { kind, body, .. } = section?;
        let Some((files, _)) = (kind == SECTION_VOLUME_IMAGE).then(|| volume(body)).transpose()?.flatten() else {
            continue;
        };
        let extended = u16_at(body, 52).map(usize::from).filter(|at| *at > 0);
        if let Some(name) = extended.and_then(|at| array_at(body, at)) {
            named.push(NamedVolume { name, files: file_names(files)? });
        }
    }
    Ok(named)
}

/// A volume's name and those of its files, as stored.
pub(crate) struct NamedVolume {
    pub(crate) name: [u8; 16],
    pub(crate) files: Vec<[u8; 16]>,
}

/// The LZMA stream inside the first file that holds one.
fn compressed_section(code: &[u8]) -> Result<&[u8], VolumeError> {
    if code.len() > MAX_FIRMWARE_BYTES {
        return Err(VolumeError::Size(code.len()));
    }
    let mut rest = code;
    while !rest.is_empty() {
        let step = match volume(rest)? {
            Some((files, length)) => {
                if let Some(stream) = compressed_in(files)? {
                    return Ok(stream);
                }
                length.next_multiple_of(VOLUME_STEP)
            }
            None => VOLUME_STEP,
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    Err(VolumeError::NoCompressed)
}

/// Files area and length of a volume that begins here. Volumes of other file systems (variable stores) have no files.
fn volume(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, VolumeError> {
    if bytes.get(40..44) != Some(b"_FVH") {
        return Ok(None);
    }
    let malformed = VolumeError::Malformed("a volume");
    let length = u64_at(bytes, 32).and_then(|length| usize::try_from(length).ok());
    let volume = length.filter(|length| *length > 0).and_then(|length| bytes.get(..length));
    let volume = volume.ok_or_else(|| malformed.clone())?;
    if !matches!(array_at(volume, 16), Some(FFS2 | FFS3)) {
        return Ok(Some((&[], volume.len())));
    }
    let files = match (u16_at(volume, 48), u16_at(volume, 52)) {
        (Some(header), Some(0)) => usize::from(header),
        // An extended header {GUID 16, size u32} lies before the first file.
        (Some(_), Some(extended)) => {
            let at = usize::from(extended);
            let size = u32_at(volume, at + 16).and_then(index).ok_or_else(|| malformed.clone())?;
            at.checked_add(size).ok_or_else(|| malformed.clone())?.next_multiple_of(8)
        }
        _ => return Err(malformed),
    };
    Ok(Some((volume.get(files..).ok_or(malformed)?, volume.len())))
}

/// Splits the first file off: header {name 16, check 2, type, attributes, size u24, state}, each at a multiple of 8.
/// Nothing at free space, which is filled with ones.
#[allow(clippy::type_complexity)]
fn split_file(files: &[u8]) -> Result<Option<(u8, &[u8], &[u8])>, VolumeError> {
    let malformed = VolumeError::Malformed("a file");
    if files.len() < FILE_HEADER || files.iter().take(FILE_HEADER).all(|byte| *byte == 0xff) {
        return Ok(None);
    }
    let (Some([kind, attributes]), Some(size)) = (array_at(files, 18), u24_at(files, 20)) else {
        return Err(malformed);
    };
    let large = attributes & 1 != 0;
    let wide = || u64_at(files, FILE_HEADER).and_then(|size| usize::try_from(size).ok());
    let (header, size) =
        if large { (LARGE_FILE_HEADER, wide().ok_or(malformed.clone())?) } else { (FILE_HEADER, size) };
    let body = files.get(header..size).ok_or(malformed)?;
    // At least a header long, so that every walk ends.
    Ok(Some((kind, body, files.get(size.next_multiple_of(8)..).unwrap_or_default())))
}

fn file_names(mut files: &[u8]) -> Result<Vec<[u8; 16]>, VolumeError> {
    let mut names = Vec::new();
    while let (Some(name), Some((_, _, rest))) = (array_at(files, 0), split_file(files)?) {
        names.push(name);
        files = rest;
    }
    Ok(names)
}

/// Walks the files of a volume.
fn compressed_in(mut files: &[u8]) -> Result<Option<&[u8]>, VolumeError> {
    while let Some((kind, body, rest)) = split_file(files)? {
        if kind == FILE_VOLUME_IMAGE {
            for section in sections(body) {
                let Section { kind, body, whole } = section?;
                if kind == SECTION_GUID_DEFINED && array_at(body, 0) == Some(LZMA) {
                    let data = u16_at(body, 16).and_then(|offset| whole.get(usize::from(offset)..));
                    return data.map(Some).ok_or(VolumeError::Malformed("the compressed section"));
                }
            }
        }
        files = rest;
    }
    Ok(None)
}

/// A section; `body` follows its common header, `whole` includes it.
struct Section<'a> {
    kind: u8,
    body: &'a [u8],
    whole: &'a [u8],
}

/// Sections lie at multiples of 4: {size u24, type}, with size 0xFFFFFF a further size u32. Ends at the first error.
fn sections(stream: &[u8]) -> impl Iterator<Item = Result<Section<'_>, VolumeError>> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        if rest.len() < 4 {
            return None;
        }
        let section = section(rest);
        let length = section.as_ref().map_or(rest.len(), |section| section.whole.len());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(section)
    })
}

fn section(bytes: &[u8]) -> Result<Section<'_>, VolumeError> {
    let parse = || {
        let (size, [kind]) = (u24_at(bytes, 0)?, array_at(bytes, 3)?);
        let (header, size) = if size == 0xff_ffff { (8, index(u32_at(bytes, 4)?)?) } else { (4, size) };
        let whole = bytes.get(..size)?;
        Some(Section { kind, body: whole.get(header..)?, whole })
    };
    parse().ok_or(VolumeError::Malformed("a section"))
}

fn u24_at(bytes: &[u8], offset: usize) -> Option<usize> {
    let [a, b, c] = array_at(bytes, offset)?;
    index(u32::from_le_bytes([a, b, c, 0]))
}

fn unpack(mut stream: &[u8], limit: usize) -> Result<Vec<u8>, VolumeError> {
    let options = Options {
        unpacked_size: UnpackedSize::ReadFromHeader,
        memlimit: Some(MAX_UNPACKED_BYTES),
        allow_incomplete: false,
    };
    let mut out = Bounded { bytes: Vec::new(), limit };
    lzma_rs::lzma_decompress_with_options(&mut stream, &mut out, &options)
        .map_err(|error| VolumeError::Unpack(error.to_string()))?;
    Ok(out.bytes)
}

/// Takes at most `limit` bytes: a few compressed bytes can stand for any number of zeros.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::Error::other("it unpacks to more than any firmware holds"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A small code image for tests; never part of the product.
#[cfg(test)]
pub(crate) mod sample {
    use super::{FFS2, LZMA};

    /// A volume of another file system, then one with a compressed PEI and DXE volume.
    pub(crate) fn image(pei: &[u8], dxe: &[u8]) -> Vec<u8> {
        let inner = [section(0x19, b"padding"), section(0x17, pei), section(0x17, dxe)].concat();
        let mut packed = Vec::new();
        lzma_rs::lzma_compress(&mut inner.as_slice(), &mut packed).unwrap();
        let mut guided = [&LZMA, 24u16.to_le_bytes().as_slice(), &[1, 0]].concat();
        guided.extend(packed);
        let body = section(0x02, &guided);
        let size = (body.len() + 24) as u32;
        let mut file = vec![0; 24];
        file[18] = 0x0b;
        file[20..23].copy_from_slice(&size.to_le_bytes()[..3]);
        file.extend(body);
        [volume([9; 16], &[7; 100]), volume(FFS2, &file)].concat()
    }

    fn section(kind: u8, body: &[u8]) -> Vec<u8> {
        let size = ((body.len() + 4) as u32).to_le_bytes();
        let mut section = [&size[..3], &[kind], body].concat();
        section.resize(section.len().next_multiple_of(4), 0);
        section
    }

    /// A named volume of empty files of these names; to be given as a PEI or DXE volume.
    pub(crate) fn volume_of(name: [u8; 16], files: &[[u8; 16]]) -> Vec<u8> {
        let mut body = Vec::new();
        for file in files {
            body.extend(file);
            body.extend([0, 0, 7, 0, 24, 0, 0, 0]);
        }
        let mut volume = volume(FFS2, &[&[0; 24], body.as_slice()].concat());
        // An extended header {name, size} lies where the padding of 24 bytes is.
        volume[52] = 72;
        volume[72..88].copy_from_slice(&name);
        volume[88] = 20;
        volume
    }

    fn volume(system: [u8; 16], files: &[u8]) -> Vec<u8> {
        let length = (72 + files.len()).next_multiple_of(4096);
        let mut volume = vec![0; 72];
        volume[16..32].copy_from_slice(&system);
        volume[32..40].copy_from_slice(&(length as u64).to_le_bytes());
        volume[40..44].copy_from_slice(b"_FVH");
        volume[48] = 72;
        volume.extend(files);
        volume.resize(length, 0xff);
        volume
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::sample::image;
    use super::*;

    #[test]
    fn the_second_volume_of_the_compressed_section_is_hashed() {
        assert_eq!(dxe_volume_sha256(&image(b"pei volume", b"dxe volume")), Ok(sha256(b"dxe volume")));
    }

    #[test]
    fn spoiled_images_are_refused() {
        let good = image(b"pei", b"dxe");
        let spoil = |at: usize, bytes: &[u8]| {
            let mut image = good.clone();
            image[at..at + bytes.len()].copy_from_slice(bytes);
            dxe_volume_sha256(&image)
        };
        // The second volume begins at 4096, its file at +72, the section at +96, the LZMA stream at +120.
        let volume = 4096;
        assert_eq!(dxe_volume_sha256(&[]), Err(VolumeError::NoCompressed));
        assert_eq!(dxe_volume_sha256(&good[..4096]), Err(VolumeError::NoCompressed));
        assert_eq!(spoil(volume + 32, &[0xff; 8]), Err(VolumeError::Malformed("a volume")));
        assert_eq!(spoil(volume + 32, &[0; 8]), Err(VolumeError::Malformed("a volume")), "would never end");
        assert_eq!(spoil(volume + 52, &[0xff, 0xff]), Err(VolumeError::Malformed("a volume")));
        assert_eq!(spoil(volume + 72 + 20, &[0; 3]), Err(VolumeError::Malformed("a file")), "would never end");
        assert_eq!(spoil(volume + 72 + 20, &[0xff; 3]), Err(VolumeError::Malformed("a file")));
        assert_eq!(spoil(volume + 96, &[0; 3]), Err(VolumeError::Malformed("a section")), "would never end");
        assert_eq!(spoil(volume + 96 + 20, &[0xff; 2]), Err(VolumeError::Malformed("the compressed section")));
        assert!(matches!(spoil(volume + 120, &[0xff; 4]), Err(VolumeError::Unpack(_))));
        assert!(matches!(spoil(volume + 150, &[0x55; 8]), Err(VolumeError::Unpack(_) | VolumeError::Malformed(_))));
    }

    #[test]
    fn a_bomb_is_stopped() {
        let mut packed = Vec::new();
        lzma_rs::lzma_compress(&mut vec![0; 1 << 16].as_slice(), &mut packed).unwrap();
        assert_eq!(unpack(&packed, 1 << 16).unwrap().len(), 1 << 16);
        let error = unpack(&packed, (1 << 16) - 1).unwrap_err();
        assert!(error.to_string().contains("more than any firmware holds"), "{error}");
    }

    proptest! {
        #[test]
        fn changed_images_never_panic(changes in proptest::collection::vec((0usize..0x100, any::<u8>()), 1..6)) {
            let mut image = image(b"pei", b"dxe");
            for (at, byte) in changes {
                image[4096 + at] = byte;
            }
            let _ = dxe_volume_sha256(&image);
        }
    }
}
