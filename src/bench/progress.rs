//! How far a run is, in the last line of a terminal. It is written between slices only, so it
//! disturbs no measurement.

use std::{
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use super::case::Label;

/// Writes only to a terminal, and takes back what it wrote when it is dropped.
pub(crate) struct Progress {
    is_shown: bool,
    total: Duration,
    done: Duration,
}

impl Progress {
    pub(crate) fn new(total: Duration) -> Progress {
        Progress { is_shown: stderr().is_terminal(), total, done: Duration::ZERO }
    }

    pub(crate) fn measuring(&self, label: &Label) {
        self.says(&format!("{}: {}, {}", label.scope, label.title(), label.subject()));
    }

    pub(crate) fn says(&self, what: &str) {
        if self.is_shown {
            // One that cannot be written disturbs no figure.
            let _ = write!(stderr(), "\r{}\x1b[K", self.line(what));
        }
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.done += by;
    }

    fn line(&self, what: &str) -> String {
        // Nothing is known of how long a run takes that has no total.
        if self.total.is_zero() {
            return what.to_owned();
        }
        let percent = (self.done.as_secs_f64() / self.total.as_secs_f64() * 100.0).min(100.0);
        format!("{percent:3.0} %  {what}")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests;
