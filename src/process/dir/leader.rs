//! What the processes of a directory have seen of their leader, for those that come later: one
//! line, with a meaning that is its writers' business.
//!
//! A leader with a state restored from a copy learns of it from a client that saw what was lost. On
//! a machine of short programs only the directory may remember that.

use std::io;

use super::home::Home;

/// The line's file.
pub(in crate::process) const LEADER: &str = "leader";

impl Home {
    /// The line, if there is one that can be read.
    pub(in crate::process) fn read_leader(&self) -> Option<String> {
        self.read_line(LEADER).ok().flatten()
    }

    /// Puts another line there, whole or not at all. It is not waited for to be on the disk: a
    /// machine that loses power knows less of its leader, and no lock depends on it.
    pub(in crate::process) fn write_leader(&self, line: &str) -> io::Result<()> {
        self.replace(&self.fd, LEADER, format!("{line}\n").as_bytes()).map(drop)
    }
}

#[cfg(test)]
mod tests;
