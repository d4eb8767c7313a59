//! The demonstration's workload: reads a confidential file, says it to the greeter through the agent's outlet, and ends
//! well only if the greeter welcomes it. It knows nothing of TLS, keys or attestation.
//!
//! usage: hello FILE      (environment: INWIT_OUTLET_GREETER, INWIT_IDENTIFIER)

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn greet() -> Result<String, String> {
    let path = std::env::args().nth(1).ok_or("usage: hello FILE")?;
    let content = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let outlet = std::env::var("INWIT_OUTLET_GREETER").map_err(|_| "INWIT_OUTLET_GREETER is not set")?;
    let identifier = std::env::var("INWIT_IDENTIFIER").map_err(|_| "INWIT_IDENTIFIER is not set")?;
    let mut peer = UnixStream::connect(&outlet).map_err(|error| format!("{outlet}: {error}"))?;
    let failed = |error: std::io::Error| format!("greeter: {error}");
    peer.write_all(format!("hello from {identifier}\n{content}").as_bytes()).map_err(failed)?;
    peer.shutdown(std::net::Shutdown::Write).map_err(failed)?;
    let mut answer = String::new();
    peer.take(4096).read_to_string(&mut answer).map_err(failed)?;
    Ok(answer)
}

fn main() -> ExitCode {
    match greet() {
        Ok(answer) if answer.starts_with("welcome") => {
            println!("hello: the greeter answered: {}", answer.trim());
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            println!("hello: no welcome: {:?}", answer.chars().take(80).collect::<String>());
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}
