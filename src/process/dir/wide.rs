//! `DIR/wide`: the service that the directory belongs to, and the names that were locked at host
//! scope. Durable, where the mark in a table or in a lock file is not.
//!
//! ```text
//! 512 bytes   the service, as a line; blank until a process first asks one
//! lines       each begins with a newline: LENGTH NAME BY
//! ```
//! A line says how many bytes its name has, so that a line that was cut short with the power is no
//! other name's; a damaged one is skipped, and since each append begins with a newline, it swallows
//! no other. BY says which process widened the name, for people.
//!
//! **Why.** A name that was locked at host scope and is not any more, after a loss of power, would
//! let a process without leaders in beside a holder on another machine. And two processes of one
//! directory that ask two services would both be granted the name.
//!
//! The file is made with the directory. On tmpfs it does not survive a reboot.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use crate::{
    error::LockError,
    fork::{Mutex, PerFork},
    identity::cut,
    name::Name,
};

use super::{
    files::cannot_open,
    home::{CreationGate, Home, Replace, SAFELY, damaged, failed},
};

/// The file's name.
pub(in crate::process) const WIDE: &str = "wide";
/// The line of the service: a sector of the oldest disks, which is written all or not at all.
const SERVICE_BYTES: usize = 512;
/// The longest text about the process that widened a name, in bytes.
const BY_MAX: usize = 256;
/// What a mark says where it is not known which process made it.
const SOME_PROCESS: &str = "a process";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::process) struct Widened {
    /// `None`: no process of the directory has asked one.
    pub(in crate::process) service: Option<String>,
    /// Each with the process that widened it.
    pub(in crate::process) names: HashMap<Name, String>,
    /// The line of the service is blank or whole.
    pub(in crate::process) service_is_whole: bool,
    /// Lines that are no names.
    pub(in crate::process) damaged: usize,
}

/// What of the file was read so far. A child reads anew: a thread of its parent may have been at it.
pub(in crate::process) struct WideNames(PerFork<Mutex<(u64, Arc<Widened>)>>);

impl Default for WideNames {
    fn default() -> WideNames {
        WideNames(PerFork::unset())
    }
}

impl WideNames {
    /// What it says now. It is read again when it has grown.
    pub(in crate::process) fn read(&self, home: &Home) -> Result<Arc<Widened>, LockError> {
        let file = home.open_wide(OFlags::RDONLY)?;
        let length = file.metadata().map_err(|e| unread(home, e))?.len();
        let mut known = self.0.here(Mutex::default).lock();
        if known.0 != length {
            *known = (length, Arc::new(parse(home, file)?));
        }
        Ok(known.1.clone())
    }
}

impl Home {
    /// Makes the file, with these names, where it is missing.
    pub(in crate::process) fn make_wide(
        &self,
        names: impl FnOnce() -> Result<Vec<(Name, String)>, LockError>,
    ) -> Result<(), LockError> {
        match rustix::fs::accessat(&self.fd, WIDE, rustix::fs::Access::EXISTS, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(self.about_file(WIDE, cannot_open(e))),
        }
        let names = names()?;
        let made = self.write_aside(&self.fd, WIDE, Replace::No, |mut file| {
            file.write_all(&[b' '; SERVICE_BYTES])?;
            names.iter().try_for_each(|(name, by)| file.write_all(line(name, by).as_bytes()))
        });
        made.map_err(|e| self.about_file(WIDE, failed("cannot make it", e)))
    }

    /// Has it survive a loss of power that this name was locked at host scope. Before the name is
    /// marked anywhere else.
    pub(in crate::process) fn append_wide(&self, name: &Name, by: &str) -> Result<(), LockError> {
        let mut file = self.open_wide(OFlags::WRONLY | OFlags::APPEND)?;
        // At once, so that those of several processes do not mix.
        let written = file.write_all(line(name, by).as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|e| {
            self.about_file(WIDE, failed("cannot note there that the name is of host scope", e))
        })
    }

    /// Has the directory belong to this service, if it belongs to none. Another one is an error.
    pub(in crate::process) fn claim_for(&self, service: &str) -> Result<(), LockError> {
        let file = self.open_wide(OFlags::RDWR)?;
        if let Some(known) = self.service_in(&file)? {
            return self.compare_service(&known, service);
        }
        let _alone = self.gate(CreationGate::Alone)?;
        if let Some(known) = self.service_in(&file)? {
            return self.compare_service(&known, service);
        }
        let line = format!("{} {service}", service.len());
        if line.len() > SERVICE_BYTES {
            return Err(self.about(LockError::config(format!(
                "the name of its service has more than {SERVICE_BYTES} bytes: {service}"
            ))));
        }
        let bytes = format!("{line:SERVICE_BYTES$}");
        let written = file.write_all_at(bytes.as_bytes(), 0).and_then(|()| file.sync_data());
        written.map_err(|e| {
            self.about_file(WIDE, failed("cannot note there which service it belongs to", e))
        })
    }

    fn service_in(&self, file: &File) -> Result<Option<String>, LockError> {
        let mut bytes = [0; SERVICE_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(|e| unread(self, e))?;
        match service_of(&bytes) {
            Ok(service) => Ok(service),
            Err(()) => Err(self.about_file(
                WIDE,
                damaged(format!(
                    "its first line says no service, so it is unknown which one the directory \
                     belongs to; {}",
                    how_to_change(self)
                )),
            )),
        }
    }

    fn compare_service(&self, known: &str, service: &str) -> Result<(), LockError> {
        if known == service {
            return Ok(());
        }
        Err(self.about(LockError::config(format!(
            "its names are locked at {known}, and this process would lock them at {service}: a \
             directory belongs to one service; give the same leaders to every process that uses it, \
             or another directory (`tierlock doctor --dir` says how it is given to another service)"
        ))))
    }

    fn open_wide(&self, flags: OFlags) -> Result<File, LockError> {
        match rustix::fs::openat(&self.fd, WIDE, flags | SAFELY, Mode::empty()) {
            Ok(fd) => Ok(fd.into()),
            Err(Errno::NOENT) => Err(self.about_file(
                WIDE,
                damaged(
                    "it was removed, so it is unknown which names are of host scope; restart every \
                     process that uses the directory",
                ),
            )),
            Err(e) => Err(self.about_file(WIDE, cannot_open(e))),
        }
    }
}

/// What is to be done where a directory is to belong to another service.
pub(in crate::process) fn how_to_change(home: &Home) -> String {
    let path = home.path.join(WIDE);
    format!(
        "to give it to another one, stop every process that uses the directory, see to it that no \
         machine holds one of its names, and blank the line: printf '%{SERVICE_BYTES}s' | dd of='{}' \
         conv=notrunc",
        path.display()
    )
}

fn line(name: &Name, by: &str) -> String {
    let by = cut(by, BY_MAX).replace(char::is_control, "\u{fffd}");
    let by = if by.is_empty() { SOME_PROCESS } else { &by };
    format!("\n{} {name} {by}", name.len())
}

fn parse(home: &Home, mut file: File) -> Result<Widened, LockError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| unread(home, e))?;
    Ok(parsed(&bytes))
}

fn parsed(bytes: &[u8]) -> Widened {
    let (first, rest) = bytes.split_at(bytes.len().min(SERVICE_BYTES));
    let service = service_of(first);
    let mut widened = Widened { service_is_whole: service.is_ok(), ..Widened::default() };
    widened.service = service.unwrap_or_default();
    for line in rest.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match name_of(line) {
            // The first process to widen it is remembered.
            Some((name, by)) => {
                widened.names.entry(name).or_insert(by);
            }
            None => widened.damaged += 1,
        }
    }
    widened
}

/// `Err`: the line is neither blank nor whole.
fn service_of(bytes: &[u8]) -> Result<Option<String>, ()> {
    let text = str::from_utf8(bytes).map_err(|_| ())?.trim_end_matches(' ');
    if text.is_empty() {
        return if bytes.len() == SERVICE_BYTES { Ok(None) } else { Err(()) };
    }
    let (length, service) = text.split_once(' ').ok_or(())?;
    let is_whole = length.parse() == Ok(service.len()) && !service.contains(char::is_control);
    if is_whole { Ok(Some(service.to_owned())) } else { Err(()) }
}

fn name_of(line: &[u8]) -> Option<(Name, String)> {
    let (length, rest) = str::from_utf8(line).ok()?.split_once(' ')?;
    let (name, by) = rest.split_at_checked(length.parse().ok()?)?;
    // The blank behind the name is there if the name is whole.
    let by = by.strip_prefix(' ')?;
    let by = if by.is_empty() { SOME_PROCESS } else { by };
    Some((Name::new(name).ok()?, by.replace(char::is_control, "\u{fffd}")))
}

fn unread(home: &Home, error: io::Error) -> LockError {
    home.about_file(WIDE, failed("cannot read it", error))
}

#[cfg(test)]
mod tests;
