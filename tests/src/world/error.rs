//! What can go wrong while the world outside is prepared or run, each with its cause and the next step.
//! Never carries a secret: what programs said is cut to a few lines and shown as it is.

use std::{io, path::PathBuf, time::Duration};

/// The one error type of the module [`world`](super).
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A file or folder could not be read, written, made, locked or moved.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// The verb: read, write, make, lock, move.
        doing: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// A program is not on this machine.
    #[error("the program `{program}` was not found; run inwit-setup, or install the package that brings it")]
    NoProgram {
        /// Name that was looked for on PATH and in the sbin folders.
        program: String,
    },
    /// A program could not be started although it is there.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line as shown to people.
        command: String,
        /// The system's own words.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("`{command}` failed ({how}), saying: {said}")]
    Failed {
        /// The command line as shown to people.
        command: String,
        /// Exit status.
        how: String,
        /// Its last lines.
        said: String,
    },
    /// A program took too long and was ended.
    #[error("`{command}` did not finish within {} s and was ended", limit.as_secs())]
    Overran {
        /// The command line as shown to people.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
    /// Packages are missing and only root may install them.
    #[error("missing here: {missing}. Only root may install packages; run this line, then try again:\n  {line}")]
    NeedsRoot {
        /// The packages, comma separated.
        missing: String,
        /// One line for a shell.
        line: String,
    },
    /// Something is there but cannot serve, or is not there and cannot be made.
    #[error("{what}: {cause}; {next}")]
    Unusable {
        /// The thing.
        what: String,
        /// Why it does not serve.
        cause: String,
        /// What to do about it.
        next: String,
    },
    /// The guest did not print what was awaited.
    #[error("the guest did not print {pattern:?} ({why}); its last lines:\n{tail}")]
    NotSeen {
        /// What was awaited.
        pattern: String,
        /// Time ran out, or the machine ended and how.
        why: String,
        /// The end of the serial console.
        tail: String,
    },
}

/// Shorthand within the module.
pub type Result<T> = std::result::Result<T, WorldError>;

impl WorldError {
    /// For `map_err`: an I/O error about a path.
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> WorldError {
        let path = path.into();
        move |source| WorldError::File { doing, path, source }
    }

    /// An [`WorldError::Unusable`] from three texts.
    pub(crate) fn unusable(what: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> WorldError {
        WorldError::Unusable { what: what.into(), cause: cause.into(), next: next.into() }
    }
}
