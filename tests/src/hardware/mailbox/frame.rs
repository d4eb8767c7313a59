//! The framing between the kernel module and the simulated machine, as `tests/module/inwit_tsm.c` describes it.
//!
//! The other side is a guest: it may send anything. A frame is found by its magic, every length is bounded before it is
//! used, and whatever is no frame is skipped byte by byte. It never touches a socket.

use nix::errno::Errno;

use crate::hardware::{BLOB_MAX, RawEvidence};

const REQUEST_MAGIC: [u8; 4] = *b"IWQ1";
const ANSWER_MAGIC: [u8; 4] = *b"IWA1";
const HEADER_LEN: usize = 12;
/// The kernel's inblob holds no more (TSM_INBLOB_MAX).
const INBLOB_MAX: usize = 64;

/// Longest request, and so the most that a reader has to keep.
pub(super) const REQUEST_MAX: usize = HEADER_LEN + INBLOB_MAX;

/// A request as the module sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) sequence: u32,
    pub(super) provider: &'static str,
    pub(super) privlevel: u32,
    pub(super) inblob: Vec<u8>,
}

/// What the beginning of a byte stream is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The start of a frame, or nothing yet.
    Incomplete,
    /// This many bytes belong to no frame. At least one.
    Noise(usize),
    /// A request of this many bytes.
    Request(Request, usize),
}

/// Looks at the beginning of `stream`.
pub(super) fn parse(stream: &[u8]) -> Parsed {
    let agreeing = stream.iter().zip(REQUEST_MAGIC).take_while(|(byte, magic)| *byte == magic).count();
    if agreeing < stream.len().min(REQUEST_MAGIC.len()) {
        // Everything up to the next byte that could begin a frame.
        let noise = stream.iter().skip(1).position(|byte| *byte == b'I');
        return Parsed::Noise(noise.map_or(stream.len(), |at| at + 1));
    }
    let Some((&header, rest)) = stream.split_first_chunk::<HEADER_LEN>() else { return Parsed::Incomplete };
    let [_, _, _, _, s0, s1, s2, s3, provider, privlevel, l0, l1] = header;
    let provider = match provider {
        1 => "sev_guest",
        2 => "tdx_guest",
        _ => return Parsed::Noise(1),
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length > INBLOB_MAX {
        return Parsed::Noise(1);
    }
    match rest.get(..length) {
        None => Parsed::Incomplete,
        Some(inblob) => {
            let request = Request {
                sequence: u32::from_be_bytes([s0, s1, s2, s3]),
                provider,
                privlevel: u32::from(privlevel),
                inblob: inblob.to_vec(),
            };
            Parsed::Request(request, HEADER_LEN + length)
        }
    }
}

/// The answer to the request with this sequence number. Blobs beyond the kernel's limit become EFBIG.
pub(super) fn answer(sequence: u32, outcome: &Result<RawEvidence, Errno>) -> Vec<u8> {
    let (errno, outblob, auxblob): (u32, &[u8], &[u8]) = match outcome {
        Err(errno) => (u32::from_ne_bytes((*errno as i32).to_ne_bytes()), &[], &[]),
        Ok(evidence) if evidence.outblob.len().max(evidence.auxblob.len()) > BLOB_MAX => {
            (Errno::EFBIG as u32, &[], &[])
        }
        Ok(evidence) => (0, &evidence.outblob, &evidence.auxblob),
    };
    let length = |blob: &[u8]| u32::try_from(blob.len()).unwrap_or(u32::MAX).to_be_bytes();
    [
        ANSWER_MAGIC.as_slice(),
        &sequence.to_be_bytes(),
        &errno.to_be_bytes(),
        &length(outblob),
        &length(auxblob),
        outblob,
        auxblob,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(sequence: u32, provider: u8, privlevel: u8, inblob: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inblob.len()).unwrap().to_be_bytes();
        [&REQUEST_MAGIC[..], &sequence.to_be_bytes(), &[provider, privlevel], &length, inblob].concat()
    }

    /// Feeds a stream in pieces as a socket would; gives back what was found.
    fn requests(stream: &[u8], piece: usize) -> Vec<Request> {
        let (mut kept, mut found) = (Vec::new(), Vec::new());
        for chunk in stream.chunks(piece) {
            kept.extend_from_slice(chunk);
            loop {
                match parse(&kept) {
                    Parsed::Incomplete => break,
                    Parsed::Noise(count) => {
                        assert!(count > 0 && count <= kept.len(), "no progress");
                        kept.drain(..count);
                    }
                    Parsed::Request(request, count) => {
                        found.push(request);
                        kept.drain(..count);
                    }
                }
            }
            assert!(kept.len() < REQUEST_MAX, "keeps {} bytes", kept.len());
        }
        found
    }

    #[test]
    fn a_frame_the_kernel_cannot_mean_is_noise() {
        assert_eq!(parse(&request(1, 3, 0, &[0; 64])), Parsed::Noise(1));
        assert_eq!(parse(&request(1, 1, 0, &[0; 65])), Parsed::Noise(1));
        assert_eq!(parse(b"IWQ"), Parsed::Incomplete);
        assert_eq!(parse(b"\x00\xffIW"), Parsed::Noise(2));
    }

    #[test]
    fn too_large_a_blob_becomes_an_error_the_module_understands() {
        let wide = RawEvidence { outblob: vec![0; BLOB_MAX + 1], auxblob: Vec::new() };
        assert_eq!(answer(7, &Ok(wide)), *b"IWA1\0\0\0\x07\0\0\0\x1b\0\0\0\0\0\0\0\0");
        let whole = RawEvidence { outblob: vec![1, 2], auxblob: vec![3] };
        assert_eq!(answer(1, &Ok(whole)), *b"IWA1\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x01\x01\x02\x03");
    }

    proptest! {
        #[test]
        fn any_stream_is_digested(stream: Vec<u8>, piece in 1_usize..100) {
            requests(&stream, piece);
        }

        #[test]
        fn requests_are_found_between_noise(
            noise in proptest::collection::vec(any::<u8>().prop_filter("no magic", |byte| *byte != b'I'), 0..80),
            inblob in proptest::collection::vec(any::<u8>(), 0..=64),
            sequence: u32,
            privlevel: u8,
            piece in 1_usize..100,
        ) {
            let frame = request(sequence, 2, privlevel, &inblob);
            let expected = Request { sequence, provider: "tdx_guest", privlevel: privlevel.into(), inblob };
            let stream = [&noise[..], &frame, &noise, &frame].concat();
            prop_assert_eq!(requests(&stream, piece), vec![expected.clone(), expected]);
        }
    }
}
