//! From directives to MRTD of a TD that is loaded as the format prescribes: each page is added in its place, and extended
//! right then if it is measured. Parameters are added only.
//!
//! Nothing of the file is trusted: what a TD does not have is refused.

use super::areas::{Areas, Loaded};
use super::directives::Act;
use super::error::IgvmError;
use super::{Igvm, Platform};
use crate::digest::{Digest, finish, sha384_context};
use crate::ovmf::PAGE;
use crate::tdx::block;

/// Bytes that one TDH.MR.EXTEND measures.
const CHUNK: usize = 256;

pub(super) fn mrtd(igvm: &Igvm<'_>) -> Result<Digest<48>, IgvmError> {
    const ZEROS: [u8; PAGE] = [0; PAGE];
    let platform = Platform::Tdx.name();
    let mask = igvm.mask(Platform::Tdx)?;
    let (mut stream, mut areas, mut loaded) = (sha384_context(), Areas::default(), Loaded::default());
    let (mut policies, mut pages) = (0, 0u64);
    for directive in igvm.directives.iter().filter(|directive| directive.mask.is_none_or(|of| of & mask != 0)) {
        let (at, kind) = (directive.at, directive.kind);
        match &directive.act {
            Act::Policy(_) if policies > 0 => return Err(IgvmError::Twice { at, kind }),
            Act::Policy(_) => policies += 1,
            Act::Nothing => (),
            Act::Relocatable => return Err(IgvmError::Relocatable { at }),
            // A TD starts from its reset state, and only SNP has ID blocks.
            Act::Foreign | Act::Registers { .. } | Act::IdBlock(_) => {
                return Err(IgvmError::Foreign { at, kind, platform });
            }
            Act::Area { index, bytes } => areas.declare(at, *index, *bytes)?,
            Act::Parameter { index, offset } => areas.write(at, *index, *offset)?,
            Act::Insert { address, index } => {
                let pages = areas.insert(at, *address, *index)?;
                loaded.add(at, *address, pages)?;
                let addresses = (*address..).step_by(PAGE).take(pages);
                addresses.for_each(|address| stream.update(&block(b"MEM.PAGE.ADD", address)));
            }
            Act::Page(page) if page.kind != 0 => return Err(IgvmError::PageType { at, kind: page.kind, platform }),
            Act::Page(page) => {
                loaded.add(at, page.address, 1)?;
                if page.shared {
                    continue;
                }
                stream.update(&block(b"MEM.PAGE.ADD", page.address));
                pages = pages.saturating_add(1);
                if !page.unmeasured {
                    let chunks = page.data.unwrap_or(&ZEROS).chunks_exact(CHUNK);
                    for (chunk, address) in chunks.zip((page.address..).step_by(CHUNK)) {
                        stream.update(&block(b"MR.EXTEND", address));
                        stream.update(chunk);
                    }
                }
            }
        }
    }
    if pages > 0 { Ok(finish(stream)) } else { Err(IgvmError::Nothing { platform, missing: "private page" }) }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{SNP, Sample, TDX, page, platform, registers};
    use super::*;

    fn digest(sample: &Sample) -> Result<Digest<48>, IgvmError> {
        let file = sample.build();
        Igvm::parse(&file)?.mrtd()
    }

    /// The steps for the sample's pages by hand; each kind of step is checked against published values beside MRTD.
    #[test]
    fn pages_are_added_and_extended_one_by_one() {
        let mut stream = sha384_context();
        let mut add = |address: u64, contents: Option<&[u8]>| {
            stream.update(&block(b"MEM.PAGE.ADD", address));
            for (chunk, address) in contents.unwrap_or_default().chunks(256).zip((address..).step_by(256)) {
                stream.update(&block(b"MR.EXTEND", address));
                stream.update(chunk);
            }
        };
        add(0x10_0000, Some(&[0x11; PAGE]));
        add(0x10_1000, Some(&[0x22; PAGE]));
        add(0x20_0000, None);
        add(0x20_1000, None);
        add(0x10_2000, Some(&[0; PAGE]));
        add(0x10_3000, None);
        assert_eq!(digest(&Sample::snp()).unwrap(), finish(stream));
    }

    #[test]
    fn what_a_td_does_not_have_is_refused() {
        let fails = |header: Vec<u8>| {
            let headers = vec![platform(1, SNP, 1), platform(2, TDX, 1), header];
            digest(&Sample { headers, ..Sample::snp() }).unwrap_err().to_string()
        };
        assert!(fails(registers(0, 2, 3, 0)).contains("another platform"));
        assert!(fails(super::super::sample::id_block(2, &[0; 48])).contains("another platform"));
        assert!(fails(page(0x1000, 2, 1, 0, 1)).contains("type 1, which TDX does not have"));
        assert!(
            fails(page(0x1000, 2, 1, 4, 0)).contains("no private page for TDX"),
            "one that is shared with the host"
        );
        let none = Sample { headers: vec![platform(1, SNP, 1)], ..Sample::snp() };
        assert!(digest(&none).unwrap_err().to_string().contains("no TDX platform"));
    }
}
