//! What went wrong, as the command line says it: one line and an exit status.

use std::{
    borrow::Cow,
    error::Error,
    fmt,
    io::{self, Write as _},
};

use crate::{
    error::{LockError, LockErrorKind},
    printable::{Printable, few, shortened},
};

/// The exit statuses that are ours (sysexits where they fit).
pub(super) mod exit {
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 64;
    /// No leader answered.
    pub(crate) const UNREACHABLE: u8 = 69;
    /// A fault of tierlock's own.
    pub(crate) const INTERNAL: u8 = 70;
    /// I/O failed, or files are damaged.
    pub(crate) const IO: u8 = 74;
    /// Another holder has the lock; `-E` changes it.
    pub(crate) const CONFLICT: u8 = 75;
    /// The lock was lost while the command ran.
    pub(crate) const LOST: u8 = 76;
    /// The leader or the system refused it.
    pub(crate) const REFUSED: u8 = 77;
    /// The settings do not fit together.
    pub(crate) const CONFIG: u8 = 78;
    /// The command was found and could not be started, as the shell says it.
    pub(crate) const CANNOT_EXECUTE: u8 = 126;
    /// The command was not found, as the shell says it.
    pub(crate) const NOT_FOUND: u8 = 127;
    /// Added to the number of the signal that ended the command, as the shell does.
    pub(crate) const SIGNAL: u8 = 128;
}

/// Why tierlock itself failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// To be said in one line.
    Said { status: u8, line: String },
    /// A signal ended the wait for a lock: tierlock ends by it too, without a word.
    Signal(i32),
}

impl Failure {
    pub(super) fn new(status: u8, line: impl fmt::Display) -> Failure {
        Failure::Said { status, line: line.to_string() }
    }

    /// A fault of ours, or of the system where none is expected.
    pub(super) fn internal(what: &str, error: impl fmt::Display) -> Failure {
        Failure::new(exit::INTERNAL, format_args!("{what}: {error}"))
    }

    /// Another holder has the lock: exits with `status` instead of the usual one.
    pub(super) fn with_conflict_status(self, conflict: u8) -> Failure {
        match self {
            Failure::Said { status: exit::CONFLICT, line } => {
                Failure::Said { status: conflict, line }
            }
            other => other,
        }
    }

    /// No leader answered: says which ones were asked.
    pub(super) fn naming_leaders(self, leaders: &[String]) -> Failure {
        let unreachable = matches!(self, Failure::Said { status: exit::UNREACHABLE, .. });
        if !unreachable || leaders.is_empty() {
            return self;
        }
        let asked = few(leaders, ", ");
        if asked.contains("://") {
            return self.with_advice(&format!("asked {asked}"));
        }
        self.with_advice(&format!("asked {asked}: is `tierlock serve` running there?"))
    }

    /// Adds what to do next.
    pub(super) fn with_advice(self, advice: &str) -> Failure {
        match self {
            Failure::Said { status, line } => {
                Failure::Said { status, line: format!("{line}; {advice}") }
            }
            other => other,
        }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        let status = match error.kind() {
            // Its time was over before a leader answered: the lock may be free.
            LockErrorKind::TimedOut if error.is_unanswered() => exit::UNREACHABLE,
            LockErrorKind::WouldBlock | LockErrorKind::TimedOut | LockErrorKind::Deadlock => {
                exit::CONFLICT
            }
            LockErrorKind::Unreachable => exit::UNREACHABLE,
            LockErrorKind::Lost => exit::LOST,
            LockErrorKind::Refused => exit::REFUSED,
            LockErrorKind::Config => exit::CONFIG,
            LockErrorKind::Damaged | LockErrorKind::Io => exit::IO,
        };
        Failure::new(status, with_sources(&error))
    }
}

/// Writes to standard output. A reader that has read enough is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What came of writing to standard output: that a pager was closed early is no failure.
pub(super) fn written(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(exit::IO, format_args!("output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// The error's text and those of its sources, unless it quotes them itself.
fn with_sources(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = source.source();
    }
    line
}

/// Prints `tierlock: …` on standard error as one line, whatever `what` holds: what a terminal would
/// obey is escaped, and the middle of an argument of any length is left out. A standard error that is closed is
/// not worth dying for.
pub(super) fn say(what: impl fmt::Display) {
    use std::io::Write;
    let text = what.to_string();
    let line = format!("tierlock: {}\n", Printable(&shortened(&one_line(&text))));
    // One write, so that the lines of several processes do not mix.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// `text` with every run of line breaks and blanks around them made one blank.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    Cow::Owned(lines.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
