//! What a unified kernel image holds, side by side with the record of another.
//!
//! Not trusted: the image. Images with profiles are taken as their base; never decides which profile was booted.

use super::super::{Finding, record};
use crate::made_from::{InitrdRecord, InputFile, MadeFrom, Role};
use crate::sha256;
use crate::uki::UnifiedImage;

/// The sections that people change.
pub(super) struct Unified {
    /// The kernel inside, which some firmware measures again.
    pub(super) kernel: Vec<u8>,
    initrd: Vec<u8>,
    command_line: Option<String>,
}

impl Unified {
    /// Reads an image; `None` for another kind of file.
    pub(super) fn read(image: &[u8]) -> Option<Self> {
        let sections = UnifiedImage::parse(image).ok()?.taken(None).ok()?;
        let section =
            |wanted: &str| sections.iter().find(|(name, _)| *name == wanted).map(|(_, all)| all.bytes().into_owned());
        let command_line = section(".cmdline").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (kernel, initrd) = (section(".linux").unwrap_or_default(), section(".initrd").unwrap_or_default());
        Some(Self { kernel, initrd, command_line })
    }

    /// The part inside that differs; the image as a whole where none of these does.
    ///
    /// What the expected image held is taken from the original where that is at hand, and from the record otherwise, which
    /// is then said.
    pub(super) fn inside(&self, expected: &MadeFrom, original: Option<&Self>, whole: Finding) -> Finding {
        let before = original.map_or_else(|| expected.clone(), |original| original.record(expected));
        let mut parts = record::differences(&before, &self.record(expected)).into_iter();
        let Some(mut first) = parts.next() else { return whole };
        first.detail.extend(parts.take(20).map(|part| format!("Also: {}", part.answer)));
        first.detail.push(format!("It lies in the unified kernel image. {}", whole.answer));
        if original.is_none() {
            let told =
                "What the expected image holds is told by the record alone: give that image, too, to have it proved.";
            first.detail.push(told.to_owned());
        }
        first
    }

    /// The record that values made from this image would have.
    fn record(&self, like: &MadeFrom) -> MadeFrom {
        let mut other = like.clone();
        for (role, contents) in [(Role::Kernel, &self.kernel), (Role::Initrd, &self.initrd)] {
            if let Some(file) = other.files.iter_mut().find(|file| file.role == role) {
                let bytes = u64::try_from(contents.len()).unwrap_or(u64::MAX);
                *file = InputFile { bytes, sha256: sha256(contents), ..file.clone() };
            }
        }
        other.initrd = like.initrd.as_ref().map(|before| InitrdRecord {
            agent: before.agent.clone(),
            configuration: before.configuration.clone(),
            ..InitrdRecord::of(&self.initrd)
        });
        other.command_line.clone_from(&self.command_line);
        other
    }
}
