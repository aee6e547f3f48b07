//! What the processes of a directory have seen of their leader, for those that come later: one
//! line, whose meaning is its writers' business.
//!
//! A leader whose state was restored from a copy is told of it by whoever saw what was lost, and
//! on a machine of short programs that may be nobody but the directory.

use std::{
    fs::File,
    io::{self, Write},
};

use super::home::Home;

/// The line's file.
pub(super) const LEADER: &str = "leader";

impl Home {
    /// The line, if anybody wrote one that can be read.
    pub(super) fn read_leader(&self) -> Option<String> {
        self.read_line(LEADER).ok().flatten()
    }

    /// Puts another line there, whole or not at all. It is not waited for to be on the disk: a
    /// machine that loses power knows less of its leader, and no lock depends on it.
    pub(super) fn write_leader(&self, line: &str) -> io::Result<()> {
        let (temporary, file) = self.make_aside(&self.fd, LEADER)?;
        fill(&file, line)
            .and_then(|()| Ok(rustix::fs::renameat(&self.fd, &temporary, &self.fd, LEADER)?))
            .inspect_err(|_| {
                let nothing = rustix::fs::AtFlags::empty();
                let _ = rustix::fs::unlinkat(&self.fd, &temporary, nothing);
            })
    }
}

fn fill(mut file: &File, line: &str) -> io::Result<()> {
    file.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn the_last_line_stands_alone_and_what_cannot_be_read_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), &["unknown".to_owned()]).unwrap();
        assert_eq!(home.read_leader(), None);
        for line in ["one line", "another"] {
            home.write_leader(line).unwrap();
            assert_eq!(home.read_leader(), Some(format!("{line}\n")));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left aside");

        let (file, elsewhere) = (dir.path().join(LEADER), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "somebody's\n").unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert_eq!(home.read_leader(), None);
        home.write_leader("ours").unwrap();
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "somebody's\n");
        assert_eq!(home.read_leader(), Some("ours\n".to_owned()));

        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(home.read_leader(), None);
        assert!(home.write_leader("ours").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left aside");
    }
}
