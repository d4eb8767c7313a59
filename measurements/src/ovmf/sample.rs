//! Small firmware images for tests: one page of code with a footer table and both kinds of metadata, built from parts
//! so that each part can be spoiled. Compiled for tests only; never part of the product.

use super::{FOOTER, PAGE, SEV_ES_RESET, SEV_HASH_TABLE};

/// The parts of an image; `Default` is a sound image with kernel hashes.
pub(crate) struct Sample {
    /// Sections {address, size, type} of the SEV metadata.
    pub(crate) sev: Vec<[u32; 3]>,
    /// Sections {data offset, raw size, address, memory size, type, attributes} of the TDVF metadata.
    pub(crate) tdvf: Vec<[u64; 6]>,
    /// Base and size of the hash table entry.
    pub(crate) hash_table: [u32; 2],
    /// Start of the application processors.
    pub(crate) ap_reset: Option<u32>,
    /// Start of an SVSM, from the first byte.
    pub(crate) svsm: Option<u32>,
    /// Pages of the image.
    pub(crate) pages: usize,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            sev: vec![
                [0x80_0000, 0x9000, 1],
                [0x80_d000, 0x1000, 2],
                [0x80_e000, 0x1000, 3],
                [0x80_f000, 0x1000, 4],
                [0x81_0000, 0x1000, 0x10],
                [0, 0, 1],
            ],
            tdvf: vec![[0, 0x1800, 0xffff_e000, 0x2000, 0, 1], [0, 0, 0x80_0000, 0x2000, 3, 0]],
            hash_table: [0x81_0c00, 0x400],
            ap_reset: Some(0x0080_b004),
            svsm: None,
            pages: 2,
        }
    }
}

impl Sample {
    /// Bytes of the image.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut image: Vec<u8> = (0..self.pages * PAGE).map(|at| (at % 251) as u8).collect();
        let mut sev = descriptor(b"ASEV", self.sev.len(), 12);
        sev.extend(self.sev.iter().flatten().flat_map(|word| word.to_le_bytes()));
        let mut tdvf = descriptor(b"TDVF", self.tdvf.len(), 32);
        for [offset, raw, address, size, kind, attributes] in &self.tdvf {
            tdvf.extend((*offset as u32).to_le_bytes());
            tdvf.extend((*raw as u32).to_le_bytes());
            tdvf.extend(address.to_le_bytes());
            tdvf.extend(size.to_le_bytes());
            tdvf.extend((*kind as u32).to_le_bytes());
            tdvf.extend((*attributes as u32).to_le_bytes());
        }
        let end = image.len();
        // Distances from the end of the image, far enough from each other and from the footer table.
        let (sev_distance, tdvf_distance) = (0x400, 0x800);
        image[end - sev_distance..][..sev.len()].copy_from_slice(&sev);
        image[end - tdvf_distance - 16..][..16].copy_from_slice(&super::sections::TDVF_DESCRIPTOR);
        image[end - tdvf_distance..][..tdvf.len()].copy_from_slice(&tdvf);

        let mut table = Vec::new();
        entry(&mut table, super::sections::SEV_METADATA, &(sev_distance as u32).to_le_bytes());
        entry(&mut table, super::sections::TDX_METADATA, &(tdvf_distance as u32).to_le_bytes());
        entry(&mut table, SEV_HASH_TABLE, &self.hash_table.map(u32::to_le_bytes).concat());
        if let Some(start) = self.svsm {
            entry(&mut table, super::SVSM_INFO, &start.to_le_bytes());
        }
        if let Some(eip) = self.ap_reset {
            entry(&mut table, SEV_ES_RESET, &eip.to_le_bytes());
        }
        let length = (table.len() + 18) as u16;
        table.extend(length.to_le_bytes());
        table.extend(FOOTER);
        image[end - 0x20 - table.len()..end - 0x20].copy_from_slice(&table);
        image
    }
}

fn descriptor(signature: &[u8; 4], count: usize, section: usize) -> Vec<u8> {
    let words = [(16 + count * section) as u32, 1, count as u32];
    [signature.as_slice(), &words.map(u32::to_le_bytes).concat()].concat()
}

fn entry(table: &mut Vec<u8>, guid: [u8; 16], data: &[u8]) {
    table.extend(data);
    table.extend((data.len() as u16 + 18).to_le_bytes());
    table.extend(guid);
}
