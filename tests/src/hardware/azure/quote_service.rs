//! Azure's quoting service as its metadata endpoint offers it: a TDREPORT comes by HTTP, a quote goes back. Serves one
//! simulated platform, and makes quotes of that platform's own reports alone. Never part of a product binary.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{HardwareError, base64url};
use crate::hardware::TdxMachine;

/// How the service misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuoteFault {
    /// It does not.
    #[default]
    None,
    /// It answers with status 500.
    Error,
    /// It gives a true quote over other data.
    OtherReport,
    /// It breaks off in the middle of its answer.
    Cut,
}

/// A service that listens; it ends with the process.
#[derive(Debug)]
pub struct QuoteService {
    fault: Arc<Mutex<QuoteFault>>,
    quotes: Arc<AtomicUsize>,
}

impl QuoteService {
    /// Listens on a unix socket.
    pub fn listen(path: &Path, machine: TdxMachine) -> Result<Self, HardwareError> {
        let io = |source| HardwareError::Io { path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(io)?;
        let (fault, quotes) = (Arc::new(Mutex::new(QuoteFault::None)), Arc::new(AtomicUsize::new(0)));
        let service = Self { fault: Arc::clone(&fault), quotes: Arc::clone(&quotes) };
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let fault = *fault.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = request(&mut stream)
                    .and_then(|report| quote(&machine, &report, fault))
                    .unwrap_or_else(|| b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec());
                let half = if fault == QuoteFault::Cut { answer.len() / 2 } else { answer.len() };
                quotes.fetch_add(1, Ordering::AcqRel);
                let _ = stream.write_all(&answer[..half]);
            }
        });
        Ok(service)
    }

    /// From now on the service misbehaves like this.
    pub fn set_fault(&self, fault: QuoteFault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// How many requests were answered.
    pub fn answered(&self) -> usize {
        self.quotes.load(Ordering::Acquire)
    }
}

/// The TDREPORT of one request.
fn request(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let length = stream.read(&mut part).ok().filter(|length| *length > 0)?;
        bytes.extend(part.get(..length)?);
        let text = std::str::from_utf8(&bytes).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse::<usize>().ok()?;
        if !head.starts_with("POST /acc/tdquote HTTP/1.0\r\n") {
            return None;
        }
        if body.len() >= length {
            let body: serde_json::Value = serde_json::from_str(body).ok()?;
            return decode(body["report"].as_str()?);
        }
    }
}

fn quote(machine: &TdxMachine, report: &[u8], fault: QuoteFault) -> Option<Vec<u8>> {
    let mut data: [u8; 64] = report.get(128..192)?.try_into().ok()?;
    if fault == QuoteFault::Error || machine.td_report(&data) != report {
        return None;
    }
    if fault == QuoteFault::OtherReport {
        data = [0x5a; 64];
    }
    let body = format!("{{\"quote\":\"{}\"}}", base64url(&machine.quote(&data).ok()?));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    Some([head, body].concat().into_bytes())
}

/// What [`base64url`] wrote.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| super::DIGITS.iter().position(|known| *known == digit);
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let mut number = 0;
        for place in 0..4 {
            number = number << 6 | group.get(place).map_or(Some(0), |one| digit(*one))?;
        }
        let whole = u32::try_from(number).ok()?.to_be_bytes();
        bytes.extend(whole.iter().skip(1).take(group.len().checked_sub(1)?));
    }
    Some(bytes)
}
