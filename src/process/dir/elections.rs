//! What the leaders of elections say of themselves in a directory: a file for each name, in `elections`.
//!
//! A file is put in its place whole, so no process reads half of a value. Whose value it is the token
//! decides: the last announcement counts while the slot bears its token and its process holds that. The
//! few before it stand in the file too, so that an observer which looks now and then is told of them.
//!
//! Nothing here waits for the disk: after a loss of power no leader is left. What cannot be read is no
//! announcement.

use std::{
    fs::File,
    hash::Hasher,
    io::Read,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use siphasher::sip::SipHasher13;

use super::{
    home::{Home, SAFELY, damaged},
    names::file_name,
};
use crate::{elected::VALUE_BYTES_MAX, error::LockError, name::Name, token::Token};

/// The directory of these files.
pub(in crate::process) const ELECTIONS: &str = "elections";

/// So many announcements a file keeps.
const KEPT: usize = 16;

const MAGIC: &[u8; 20] = b"tierlock election 1\n";
/// Behind the magic: whether the last announcement is in force.
const LEADS: u8 = b'+';
const ENDED: u8 = b'-';
/// Where the number of announcements stands, behind that and the end of its line.
const COUNT_AT: usize = MAGIC.len() + 2;
const SUM_BYTES: usize = size_of::<u64>();
const LONGEST: usize = COUNT_AT + 1 + KEPT * (8 + 4 + 2 + VALUE_BYTES_MAX) + SUM_BYTES;

/// A leader, as it has announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) token: Token,
    pub(crate) process: u32,
    pub(crate) value: Arc<[u8]>,
}

/// What the file of a name says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announcements {
    /// The last of them has not left.
    pub(crate) is_in_force: bool,
    /// The oldest first.
    pub(crate) all: Vec<Announcement>,
}

impl Announcements {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([if self.is_in_force { LEADS } else { ENDED }, b'\n', self.all.len() as u8]);
        for Announcement { token, process, value } in &self.all {
            bytes.extend(token.get().to_le_bytes());
            bytes.extend(process.to_le_bytes());
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend(&value[..]);
        }
        let sum = sum(&bytes[COUNT_AT..]);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Announcements> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let is_in_force = match rest.split_first_chunk()?.0 {
            [LEADS, b'\n'] => true,
            [ENDED, b'\n'] => false,
            _ => return None,
        };
        let (body, stored) = bytes.get(COUNT_AT..)?.split_last_chunk::<SUM_BYTES>()?;
        if sum(body) != u64::from_le_bytes(*stored) {
            return None;
        }
        let (&count, mut rest) = body.split_first()?;
        let mut all = Vec::new();
        for _ in 0..count {
            let token = u64::from_le_bytes(*take(&mut rest)?);
            let process = u32::from_le_bytes(*take(&mut rest)?);
            let length = u16::from_le_bytes(*take(&mut rest)?);
            let value = rest.split_off(..usize::from(length))?;
            all.push(Announcement { token: Token::new(token)?, process, value: value.into() });
        }
        rest.is_empty().then_some(Announcements { is_in_force, all })
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(first)
}

/// Of everything but whether it is in force, which its leader changes in place.
fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The file of an announcement that is in force.
#[derive(Debug)]
pub(crate) struct AnnouncedFile(File);

impl AnnouncedFile {
    /// Its leader leaves. To be called before it releases the lock: afterwards the file may be its
    /// successor's. Best effort: once the lock is released the token tells as much.
    pub(crate) fn end(&self) {
        let _ = self.0.write_all_at(&[ENDED], MAGIC.len() as u64);
    }
}

impl Home {
    /// What the leaders of this name have announced.
    pub(in crate::process) fn read_announced(
        &self,
        name: &Name,
    ) -> Result<Announcements, LockError> {
        match self.find_elections()? {
            Some(directory) => self.read_announced_in(&directory, &file_name(name)),
            None => Ok(Announcements::default()),
        }
    }

    fn read_announced_in(
        &self,
        directory: &OwnedFd,
        file: &str,
    ) -> Result<Announcements, LockError> {
        let file = match rustix::fs::openat(directory, file, OFlags::RDONLY | SAFELY, Mode::empty())
        {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(Announcements::default()),
            Err(Errno::LOOP) => {
                let what = format!("its file {ELECTIONS}/{file} is a symbolic link");
                return Err(self.about(damaged(what)));
            }
            Err(e) => return Err(self.failed(&format!("cannot open {ELECTIONS}/{file}"), e.into())),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST as u64)
            .read_to_end(&mut bytes)
            .map_err(|e| self.failed("cannot read what a leader announced", e))?;
        Ok(Announcements::decode(&bytes).unwrap_or_default())
    }

    /// Has this be the last announcement of the name. Only for the holder of the lock.
    pub(in crate::process) fn announce(
        &self,
        name: &Name,
        announcement: Announcement,
    ) -> Result<AnnouncedFile, LockError> {
        let directory = match self.find_elections()? {
            Some(directory) => directory,
            None => {
                self.make_inside(ELECTIONS)?;
                self.open_inside(ELECTIONS, ELECTIONS)?
            }
        };
        let file = file_name(name);
        let mut known = self.read_announced_in(&directory, &file)?;
        known.all.retain(|before| before.token < announcement.token);
        known.all.push(announcement);
        known.all.drain(..known.all.len().saturating_sub(KEPT));
        known.is_in_force = true;
        self.replace(&directory, &file, &known.encode())
            .map(AnnouncedFile)
            .map_err(|e| self.failed("cannot write what this leader announces", e))
    }

    /// The directory of these files, if there is one.
    fn find_elections(&self) -> Result<Option<OwnedFd>, LockError> {
        match rustix::fs::statat(&self.fd, ELECTIONS, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            _ => self.open_inside(ELECTIONS, ELECTIONS).map(Some),
        }
    }
}

#[cfg(test)]
mod tests;
