//! Whether the digest of an event is that of what its record shows.
//!
//! Source: TCG PC Client Platform Firmware Profile 1.06 section 10, which says for each type what is hashed; GRUB, shim
//! and systemd-stub for EV_IPL.
//!
//! Not trusted: the record. An event whose type names something outside of the log, and whose digest is that of the name,
//! proves nothing about the thing.

use ring::digest::{Algorithm, SHA256, SHA384, digest};

use super::text::is_wide;
use super::{ALG_SHA256, ALG_SHA384, LogEvent};
use crate::bytes::{index, u32_at};
use crate::uefi::{event_type, parse_variable};

/// What GRUB and shim put before the text that they hash.
const PREFIXES: [&[u8]; 4] = [b"grub_cmd: ", b"grub_cmd ", b"kernel_cmdline: ", b"grub_kernel_cmdline "];

/// How the digest of an event is tied to what its record shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It is the hash of the data, of the variable in them, or of the text in them, as the type says.
    Data,
    /// It is the hash of the data, of which the type says that they only name what is measured: that was not.
    Label,
    /// It is the hash of something that is not in the log: the words are the log's claim.
    Elsewhere,
    /// The event extends nothing.
    NotMeasured,
}

/// The digests of an event that are looked at.
struct Digests<'a>(Vec<(&'static Algorithm, &'a [u8])>);

impl<'a> Digests<'a> {
    fn of(event: &LogEvent<'a>) -> Self {
        let known = event.digests.iter().filter_map(|(algorithm, bytes)| match *algorithm {
            ALG_SHA256 => Some((&SHA256, *bytes)),
            ALG_SHA384 => Some((&SHA384, *bytes)),
            _ => None,
        });
        Self(known.collect())
    }

    /// Whether there is one, and all are of these bytes.
    fn are(&self, data: &[u8]) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(algorithm, bytes)| digest(algorithm, data).as_ref() == *bytes)
    }
}

/// Whether all data that the log has of an event were measured, as they stand.
pub(super) fn is_whole(event: &LogEvent<'_>) -> bool {
    Digests::of(event).are(event.data)
}

pub(super) fn proof(event: &LogEvent<'_>) -> Proof {
    let (digests, data) = (Digests::of(event), event.data);
    let proved = match event.event_type {
        event_type::NO_ACTION => return Proof::NotMeasured,
        event_type::SEPARATOR
        | event_type::S_CRTM_VERSION
        | event_type::VARIABLE_DRIVER_CONFIG
        | event_type::VARIABLE_BOOT2
        | event_type::VARIABLE_AUTHORITY
        | event_type::GPT
        | event_type::ACTION => digests.are(data),
        // Older firmware hashes the variable's data alone, newer the whole structure.
        event_type::VARIABLE_BOOT => {
            digests.are(data) || parse_variable(data).is_some_and(|(_, _, data)| digests.are(data))
        }
        event_type::IPL => digests.are(data) || is_text(&digests, data),
        // By the profile the digest is that of the tagged event; Linux tags what it measures elsewhere.
        event_type::EVENT_TAG if named_by_tag(data).is_none() => digests.are(data),
        _ => return if digests.are(data) { Proof::Label } else { Proof::Elsewhere },
    };
    if proved { Proof::Data } else { Proof::Elsewhere }
}

/// The text of TCG_PCClientTaggedEvent: id u32, length u32, data. Some kernels log the text alone.
pub(super) fn tag_text(data: &[u8]) -> &[u8] {
    let inner = data.split_at_checked(8).filter(|(head, text)| u32_at(head, 4).and_then(index) == Some(text.len()));
    inner.map_or(data, |(_, text)| text)
}

/// What the EFI stub of Linux measures under a tag, and logs by its name alone.
pub(super) fn named_by_tag(data: &[u8]) -> Option<&'static str> {
    match tag_text(data).split(|byte| *byte == 0).next()? {
        b"LOADED_IMAGE::LoadOptions" => Some("command line, as the kernel's EFI stub got it"),
        b"Linux initrd" => Some("initial ramdisk, as the kernel's EFI stub loaded it"),
        _ => None,
    }
}

/// Texts are hashed without the NUL that ends them in the log (after which some loaders log a stray byte), or with it;
/// names of sections in ASCII.
fn is_text(digests: &Digests<'_>, data: &[u8]) -> bool {
    let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
    let ended = data.get(..=text.len()).unwrap_or(text);
    let narrow: Vec<u8> = data.iter().step_by(2).copied().collect();
    let within = |text: &[u8]| {
        digests.are(text)
            || PREFIXES.iter().filter_map(|prefix| text.strip_prefix(*prefix)).any(|text| digests.are(text))
    };
    within(text)
        || within(ended)
        || (is_wide(data) && (digests.are(&narrow) || digests.are(data.strip_suffix(&[0, 0]).unwrap_or(data))))
}
