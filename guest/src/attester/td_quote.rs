//! A TD quote from Azure's host: its metadata service takes a TDREPORT and gives the quote, over plain HTTP (`POST /acc/tdquote`
//! with `{"report": "<base64url>"}`, answered by `{"quote": "<base64url>"}`). The host is nobody to trust: what comes back is
//! bounded, read strictly, held against the report, and otherwise left to the Verifier.

use super::tsm::{TDX_REPORT_DATA_V4, TDX_REPORT_DATA_V5};
use crate::channel::connect;
use crate::config::Address;
use inwit_protocol::evidence::BLOB_LIMIT;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes of a TDREPORT, and where its REPORTDATA is (Intel TDX Module ABI, TDREPORT_STRUCT).
pub(super) const TD_REPORT: usize = 1_024;
const REPORT_DATA: core::ops::Range<usize> = 128..192;
/// Longest answer, in bytes: a quote of [`BLOB_LIMIT`] in base64 with room for the head.
const ANSWER_LIMIT: usize = 49_152;
/// Longest wait for the whole exchange, however many bytes come now and then.
const TIMEOUT: Duration = Duration::from_secs(30);
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The quote over a TDREPORT.
pub(super) fn quote(service: &Address, report: &[u8]) -> io::Result<Vec<u8>> {
    let started = Instant::now();
    let mut stream = connect(service)?;
    let body = format!("{{\"report\":\"{}\"}}", encode(report));
    // In version 1.0 no answer comes in chunks.
    let request = format!(
        "POST /acc/tdquote HTTP/1.0\r\nHost: 169.254.169.254\r\nMetadata: true\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&mut stream, request.as_bytes(), || TIMEOUT.checked_sub(started.elapsed()))?;
    let quote = answered(&answer).map_err(io::Error::other)?;
    let offset = match quote.first() {
        Some(4) => TDX_REPORT_DATA_V4,
        Some(5) => TDX_REPORT_DATA_V5,
        _ => return Err(io::Error::other("what came is no TD quote of version 4 or 5")),
    };
    let echoed = quote.get(offset..).and_then(|rest| rest.get(..REPORT_DATA.len()));
    if echoed.is_none() || echoed != report.get(REPORT_DATA) {
        return Err(io::Error::other("the quote is not one over the report that was sent"));
    }
    Ok(quote)
}

/// Sends the request and reads the answer to its end; `left` says how much time there still is.
fn exchange(stream: &mut UnixStream, request: &[u8], left: impl Fn() -> Option<Duration>) -> io::Result<Vec<u8>> {
    let left = || left().filter(|left| !left.is_zero()).ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut));
    let mut rest = request;
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left()?))?;
        let Some(written) = moved(stream.write(rest))? else { continue };
        rest = rest.get(written..).filter(|_| written > 0).ok_or(io::ErrorKind::WriteZero)?;
    }
    let (mut answer, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        stream.set_read_timeout(Some(left()?))?;
        let Some(read) = moved(stream.read(&mut part))? else { continue };
        answer.extend(part.get(..read).unwrap_or_default());
        if read == 0 {
            return Ok(answer);
        }
        if answer.len() > ANSWER_LIMIT {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// How many bytes went; none yet after a wait or a signal, for which the clock is looked at anew.
fn moved(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        other => other.map(Some),
    }
}

/// The quote in a whole HTTP answer.
pub fn answered(answer: &[u8]) -> Result<Vec<u8>, &'static str> {
    let text = std::str::from_utf8(answer).map_err(|_| "the answer is not text")?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("the answer has no end of its head")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1));
    if status != Some("200") {
        return Err("the answer does not say 200");
    }
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line of the answer's head is no header")?;
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("the answer is in chunks");
        }
        if name.eq_ignore_ascii_case("content-length") && length.replace(value.trim().parse()).is_some() {
            return Err("the answer has two lengths");
        }
    }
    if length != Some(Ok(body.len())) {
        return Err("the answer is not as long as it says");
    }
    // The one member that is expected: {"quote":"..."}, spaces between.
    let mut rest = body;
    for token in ["{", "\"quote\"", ":", "\""] {
        rest = rest.trim_start().strip_prefix(token).ok_or("the answer is not {\"quote\": ...} alone")?;
    }
    let (quote, end) = rest.split_once('"').ok_or("the quote has no end")?;
    if end.trim() != "}" {
        return Err("the answer is not {\"quote\": ...} alone");
    }
    decode(quote.trim_end_matches('=')).filter(|quote| quote.len() <= BLOB_LIMIT).ok_or("the quote is no base64url")
}

/// base64url without padding (RFC 4648, section 5).
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().chain(&[0, 0]).take(3).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        for digit in [18u32, 12, 6, 0].iter().take(group.len().saturating_add(1)) {
            let digit = usize::try_from(number >> digit & 0x3f).ok().and_then(|digit| ALPHABET.get(digit));
            text.extend(digit.copied().map(char::from));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let mut number = 0u32;
        for digit in group {
            number = number << 6 | u32::try_from(ALPHABET.iter().position(|known| known == digit)?).ok()?;
        }
        let [_, whole @ ..] = match group.len() {
            4 => number,
            3 => number << 6,
            2 => number << 12,
            _ => return None,
        }
        .to_be_bytes();
        bytes.extend(whole.iter().take(group.len().saturating_sub(1)));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(head: &str, body: &str) -> Result<Vec<u8>, &'static str> {
        answered(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    }

    const OK: &str = "HTTP/1.1 200 OK\r\n";

    #[test]
    fn one_answer_is_read_and_every_other_is_not() {
        assert_eq!(answer(OK, r#"{"quote":"Zm9vYg"}"#).unwrap(), b"foob");
        assert_eq!(answer(OK, " { \"quote\" : \"Zm9vYg==\" }\n").unwrap(), b"foob");
        for body in
            ["", "{}", r#"{"quote":"Zm9v"} x"#, r#"{"quote":"Zm9v","x":1}"#, r#"{"quote":"Zm+v"}"#, r#"{"quote":"Z"}"#]
        {
            assert!(answer(OK, body).is_err(), "{body}");
        }
        let good = r#"{"quote":"Zm9v"}"#;
        assert!(answer("HTTP/1.1 429 Too Many\r\n", good).is_err());
        assert!(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", good).is_err());
        assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 16\r\n", good).is_err(), "two lengths");
        assert!(answered(format!("{OK}\r\n\r\n{good}").as_bytes()).is_err(), "no length");
        assert!(answered(format!("{OK}Content-Length: 99\r\n\r\n{good}").as_bytes()).is_err(), "cut");
    }

    #[test]
    fn an_exchange_ends_when_its_time_is_over_though_bytes_still_come() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let dripping = std::thread::spawn(move || while far.write_all(b"x").is_ok() {});
        // Each look at the clock finds a tenth less of a second.
        let looks = std::cell::Cell::new(10u64);
        let left = || {
            looks.set(looks.get().saturating_sub(1));
            Some(Duration::from_millis(looks.get() * 100))
        };
        assert_eq!(exchange(&mut near, b"request", left).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(near);
        dripping.join().unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"an answer").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(exchange(&mut near, b"request", || Some(TIMEOUT)).unwrap(), b"an answer");
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let endless = std::thread::spawn(move || while far.write_all(&[b'x'; 4_096]).is_ok() {});
        assert!(exchange(&mut near, b"request", || Some(TIMEOUT)).unwrap_err().to_string().contains("too long"));
        drop(near);
        endless.join().unwrap();
    }

    proptest! {
        #[test]
        fn base64url_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn random_answers_never_panic(text in ".{0,200}") {
            let _ = answered(text.as_bytes());
            let _ = answer(OK, &text);
        }
    }
}
