//! The process's limit of open files, raised as far as a route needs and the host allows.
//!
//! It never raises the hard limit and never fails hard: a relay with too few descriptors still works, it only takes
//! fewer connections at a time.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to `needed` if the hard limit allows, never lowers it, and returns the limit
/// that holds now.
///
/// # Errors
/// As getrlimit(2) and setrlimit(2).
pub fn allow_descriptors(needed: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wished = needed.min(hard);
    if wished <= soft {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wished, hard)?;
    Ok(wished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_never_lowered() {
        let before = allow_descriptors(0).unwrap();
        assert_eq!(allow_descriptors(1).unwrap(), before);
    }
}
