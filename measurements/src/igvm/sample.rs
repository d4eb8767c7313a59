//! Small IGVM files, sound or spoilt, for tests.

use super::headers::crc32;

pub(super) const SNP: u8 = 2;
pub(super) const TDX: u8 = 3;
pub(super) const AARCH64: u32 = 1;

/// A file: its headers, and one page of data for each fill byte.
pub(super) struct Sample {
    pub(super) version: u32,
    pub(super) architecture: u32,
    pub(super) page_size: u32,
    /// Bytes between the fixed header and the others.
    pub(super) gap: usize,
    pub(super) headers: Vec<Vec<u8>>,
    pub(super) pages: Vec<Vec<u8>>,
    /// Changes to the variable headers, before the checksum is made: so that what follows it is reached.
    pub(super) changes: Vec<(usize, u8)>,
}

/// A variable header with its padding.
pub(super) fn directive(kind: u32, contents: &[u8]) -> Vec<u8> {
    let length = u32::try_from(contents.len()).unwrap();
    let mut header = [&kind.to_le_bytes()[..], &length.to_le_bytes(), contents].concat();
    header.resize(header.len().next_multiple_of(8), 0);
    header
}

pub(super) fn platform(mask: u32, kind: u8, version: u8) -> Vec<u8> {
    let fields = [&mask.to_le_bytes()[..], &[0, kind, version, 0], &[0; 8]].concat();
    directive(1, &fields)
}

pub(super) fn policy(mask: u32, policy: u64) -> Vec<u8> {
    directive(0x101, &[&policy.to_le_bytes()[..], &mask.to_le_bytes(), &[0; 4]].concat())
}

/// Page data; `data` counts pages of file data from one, 0 is none.
pub(super) fn page(address: u64, mask: u32, data: u32, flags: u32, kind: u16) -> Vec<u8> {
    let words = [mask, data, flags].map(u32::to_le_bytes).concat();
    directive(0x302, &[&address.to_le_bytes()[..], &words, &kind.to_le_bytes(), &[0; 2]].concat())
}

pub(super) fn area(index: u32, bytes: u64) -> Vec<u8> {
    directive(0x301, &[&bytes.to_le_bytes()[..], &index.to_le_bytes(), &[0; 4]].concat())
}

pub(super) fn insert(address: u64, mask: u32, index: u32) -> Vec<u8> {
    directive(0x303, &[&address.to_le_bytes()[..], &mask.to_le_bytes(), &index.to_le_bytes()].concat())
}

pub(super) fn registers(address: u64, mask: u32, data: u32, vcpu: u16) -> Vec<u8> {
    let words = [mask, data].map(u32::to_le_bytes).concat();
    directive(0x304, &[&address.to_le_bytes()[..], &words, &vcpu.to_le_bytes(), &[0; 2]].concat())
}

pub(super) fn id_block(mask: u32, digest: &[u8; 48]) -> Vec<u8> {
    let mut fields = vec![0; 696];
    fields[..4].copy_from_slice(&mask.to_le_bytes());
    fields[8..56].copy_from_slice(digest);
    directive(0x30b, &fields)
}

impl Sample {
    /// An SNP guest of two pages with data, one without, secrets, CPUID, parameters, and the registers of one vCPU; the
    /// same pages for TDX.
    pub(super) fn snp() -> Self {
        let mut vmsa = vec![0x33; 4096];
        for (offset, value) in [(0x0d0, 0x1000u64), (0x148, 0x40), (0x158, 0x31), (0x160, 0x400), (0x3b0, 1)] {
            vmsa[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        Self {
            version: 1,
            architecture: 0,
            page_size: 4096,
            gap: 0,
            headers: vec![
                platform(1, SNP, 1),
                platform(2, TDX, 1),
                policy(1, 0x30000),
                area(7, 0x2000),
                directive(0x307, &[7, 0, 0, 0, 8, 0, 0, 0]),
                page(0x10_0000, 3, 1, 0, 0),
                page(0x10_1000, 3, 2, 0, 0),
                insert(0x20_0000, 3, 7),
                page(0x10_2000, 3, 0, 0, 0),
                page(0x10_3000, 3, 2, 2, 0),
                page(0x10_4000, 1, 0, 0, 1),
                page(0x10_5000, 1, 1, 0, 2),
                registers(0xffff_ffff_f000, 1, 3, 0),
            ],
            pages: vec![vec![0x11; 4096], vec![0x22; 4096], vmsa],
            changes: vec![],
        }
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let fixed_bytes = if self.version == 2 { 32 } else { 24 };
        let start = fixed_bytes + self.gap;
        let mut headers = self.headers.concat();
        let data_start = start + headers.len();
        self.place(&mut headers, data_start);
        if !headers.is_empty() {
            let length = headers.len();
            self.changes.iter().for_each(|(at, byte)| headers[at % length] = *byte);
        }
        let total = data_start + self.pages.len() * 4096;
        let number = |number: usize| u32::try_from(number).unwrap();
        let mut fixed = b"IGVM".to_vec();
        let words = [self.version, number(start), number(headers.len()), number(total), 0];
        fixed.extend(words.map(u32::to_le_bytes).concat());
        if self.version == 2 {
            fixed.extend([self.architecture, self.page_size].map(u32::to_le_bytes).concat());
        }
        let checksum = crc32(fixed.iter().chain(&headers).copied());
        fixed[20..24].copy_from_slice(&checksum.to_le_bytes());
        fixed.resize(start, 0xee);
        [fixed, headers, self.pages.concat()].concat()
    }

    /// Turns numbers of pages into file offsets, in the headers that have such.
    fn place(&self, headers: &mut [u8], data_start: usize) {
        let mut at = 0;
        for header in &self.headers {
            let field = match header.first_chunk().map(|kind| u32::from_le_bytes(*kind)) {
                Some(0x302 | 0x304) if header.len() >= 32 => Some(at + 8 + 12),
                _ => None,
            };
            if let Some(field) = field {
                let page = u32::from_le_bytes(headers[field..field + 4].try_into().unwrap());
                let count = u32::try_from(self.pages.len()).unwrap();
                if (1..=count).contains(&page) {
                    let offset = u32::try_from(data_start).unwrap() + (page - 1) * 4096;
                    headers[field..field + 4].copy_from_slice(&offset.to_le_bytes());
                }
            }
            at += header.len();
        }
    }
}
