//! Presences: the file locks by which processes prove that they are alive.
//!
//! `DIR/presence/<id>` is locked exclusively by the process of that id from before it can be seen
//! until the process ends, however it ends. So a prober that gets a *shared* lock on it has proved
//! that the process is dead; a shared one, since a prober that is stopped with an exclusive lock
//! would make the dead process immortal for all other probers. Ids are never used again, so a proof
//! stays one.
//!
//! What stands in the file is for people. Process ids decide nothing: they are used again, and
//! mean something else in every container.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    ops::Deref,
    os::fd::OwnedFd,
    sync::{Arc, Weak, atomic::Ordering::*},
};

use fs4::{FileExt, TryLockError};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind},
    fork::{Mutex, lock_file::LockFile},
    identity::{cut, this_process},
};

use super::super::{
    dir::{
        births::Birth,
        files::{FileFailure, FileIdentity},
        home::{Home, Made, SAFELY, damaged, failed, is_aside, rename_without_replacing},
    },
    sys::{retried, unless_interrupted},
};
use super::{
    lock::{Kept, LookedPresence},
    protocol::Verdict,
    step::step,
    store::MappedTable,
    word::OwnerId,
};

/// The directory of presences.
pub(super) const PRESENCE: &str = "presence";
/// How a presence begins.
const FIRST_LINE: &str = "tierlock presence 1";
const LONGEST: u64 = 4096;
/// How often an id may turn out to be taken.
const MOST_TURNS: u32 = 1000;

/// The directory of presences.
pub(super) struct Presences {
    directory: OwnedFd,
    /// Presences that are being looked at: one descriptor for each, however many wait behind it.
    looked_at: Mutex<Vec<(OwnerId, Weak<File>)>>,
}

/// This process's presence under one id.
pub(super) struct Presence {
    pub(super) id: OwnerId,
    text: String,
    /// The last one is in the directory. The ones before it were deleted under us: a prober that
    /// still has one of them open must go on finding it locked.
    locks: Mutex<Vec<LockFile>>,
}

impl Presences {
    /// Makes the directory, before any process can have a presence.
    pub(super) fn prepare(home: &Home) -> Result<(), LockError> {
        if home.make_inside(PRESENCE)? == Made::Now {
            return Ok(());
        }
        let left = Presences::open(home)?.ids();
        let empty = left.is_ok_and(|ids| ids.is_empty());
        // Another process may be just as far, and further now.
        if !empty && home.read_format()?.is_none() {
            return Err(home.about(damaged(
                "its file format is missing although there are presences; stop every process \
                 that uses the directory and remove it, or choose another",
            )));
        }
        Ok(())
    }

    pub(super) fn open(home: &Home) -> Result<Presences, LockError> {
        let directory = home.open_inside(PRESENCE, "presences")?;
        Ok(Presences { directory, looked_at: Mutex::default() })
    }

    /// Becomes present, under an id that no process ever had.
    pub(super) fn enter(
        &self,
        home: &Home,
        table: &MappedTable,
        label: &str,
    ) -> Result<Presence, LockError> {
        let text = text(label);
        for _ in 0..MOST_TURNS {
            let next = |last| OwnerId::after(last).map(OwnerId::get);
            let last = table.header().last_id.fetch_update(Relaxed, Relaxed, next);
            let Some(id) = last.ok().and_then(OwnerId::after) else {
                return Err(home.about(LockError::new(
                    LockErrorKind::Refused,
                    "its 2^40 process ids are used up; stop every process that uses it, remove it \
                     and start them again",
                )));
            };
            if let Some(lock) = self.make(home, id, &text)? {
                return Ok(Presence { id, text, locks: Mutex::new(vec![lock]) });
            }
        }
        Err(home.about(damaged("its table counts process ids that are in use")))
    }

    /// A locked and filled presence in its place; `None` if there is one already.
    fn make(&self, home: &Home, id: OwnerId, text: &str) -> Result<Option<LockFile>, LockError> {
        let name = file_name(id);
        let mut aside: Option<String> = None;
        let made = LockFile::open(|| {
            self.remove(aside.take().as_deref());
            let (temporary, file) = home.make_aside(&self.directory, &name)?;
            aside = Some(temporary);
            Ok::<_, FileFailure>(file)
        });
        let placed = made.map_err(|FileFailure(error)| error).and_then(|lock| {
            let temporary = aside.as_deref().expect("`open` came to its end");
            self.place(lock, temporary, &name, text).map_err(|e| failed("cannot make it", e))
        });
        self.remove(aside.as_deref());
        placed.map_err(|error| home.about_file(&format!("{PRESENCE}/{name}"), error))
    }

    fn place(
        &self,
        lock: LockFile,
        temporary: &str,
        name: &str,
        text: &str,
    ) -> io::Result<Option<LockFile>> {
        // No other process knows the file yet.
        // By its path: `file.lock()` would be std's method since Rust 1.89.
        retried(|| FileExt::lock(lock.file()))?;
        lock.file().write_all(text.as_bytes())?;
        step!(PresenceLocked);
        match rename_without_replacing(&self.directory, temporary, name) {
            Ok(()) => {
                step!(PresencePlaced);
                Ok(Some(lock))
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn remove(&self, name: Option<&str>) {
        if let Some(name) = name {
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }

    /// Makes this presence again if it was deleted.
    pub(super) fn keep_up(&self, home: &Home, presence: &Presence) -> Result<(), LockError> {
        let mut locks = presence.locks.lock();
        let newest = locks.last().expect("a presence has a file");
        let links = rustix::fs::fstat(newest.file()).map_or(1, |found| found.st_nlink);
        if links == 0
            && let Some(lock) = self.make(home, presence.id, &presence.text)?
        {
            locks.push(lock);
        }
        Ok(())
    }

    /// Goes in good order: nothing is owned under this id.
    pub(super) fn leave(&self, presence: Presence) {
        // While it is locked: no prober finds it under its name and unlocked.
        self.remove(Some(&file_name(presence.id)));
        step!(PresenceGone);
    }

    /// Whether the process of this id is alive; if that cannot be found out, why.
    ///
    /// `kept` is what was opened for that the last time.
    pub(super) fn verdict(&self, owner: OwnerId, kept: &mut Kept) -> (Verdict, Option<io::Error>) {
        let looked = match kept.take() {
            Some((id, looked)) if id == owner => self.share(owner, looked),
            _ => match self.look_at(owner) {
                Ok(looked) => looked,
                Err(Errno::NOENT) => return (Verdict::Missing, None),
                Err(e) => return (Verdict::Unknown, Some(e.into())),
            },
        };
        let (_, looked) = kept.insert((owner, looked));
        let file = looked.file();
        match probe(file) {
            Ok(true) => (Verdict::Dead, None),
            Ok(false) => (Verdict::Alive, None),
            Err(e) => (Verdict::Unknown, Some(e)),
        }
    }

    /// The file that proves that the process of this id is alive.
    pub(super) fn proof(&self, owner: OwnerId) -> Option<FileIdentity> {
        let name = file_name(owner);
        let found = rustix::fs::statat(&self.directory, &*name, AtFlags::SYMLINK_NOFOLLOW);
        found.ok().as_ref().map(FileIdentity::of)
    }

    /// The presence of this id, opened to be probed.
    fn look_at(&self, owner: OwnerId) -> Result<LookedPresence, Errno> {
        if let Some(shared) = self.shared(owner) {
            return Ok(LookedPresence::Shared(shared));
        }
        let flags = OFlags::RDONLY | SAFELY;
        let fd = rustix::fs::openat(&self.directory, &*file_name(owner), flags, Mode::empty())?;
        Ok(LookedPresence::Once(File::from(fd)))
    }

    /// A waiter that looks again shares what it looks at. A probe by one of those takes nothing from
    /// the others: they all find the same.
    fn share(&self, owner: OwnerId, looked: LookedPresence) -> LookedPresence {
        let LookedPresence::Once(file) = looked else { return looked };
        if let Some(shared) = self.shared(owner) {
            return LookedPresence::Shared(shared);
        }
        let file = Arc::new(file);
        let mut looked_at = self.looked_at.lock();
        looked_at.retain(|(_, file)| file.strong_count() > 0);
        looked_at.push((owner, Arc::downgrade(&file)));
        LookedPresence::Shared(file)
    }

    fn shared(&self, owner: OwnerId) -> Option<Arc<File>> {
        let looked_at = self.looked_at.lock();
        let mut known = looked_at.iter().filter(|(id, _)| *id == owner);
        known.find_map(|(_, file)| file.upgrade())
    }

    /// What the process of this id says about itself.
    pub(super) fn holder(&self, owner: OwnerId) -> Option<Holder> {
        described(&self.read(owner)?.0).map(|(holder, _)| holder)
    }

    /// The same, which process that is, and by which file it proves that it is alive.
    #[cfg(feature = "cli")]
    pub(super) fn described(
        &self,
        owner: OwnerId,
    ) -> Option<(Holder, Option<Birth>, FileIdentity)> {
        let (text, proof) = self.read(owner)?;
        let (holder, birth) = described(&text).unwrap_or_default();
        Some((holder, birth, proof))
    }

    fn read(&self, owner: OwnerId) -> Option<(String, FileIdentity)> {
        let flags = OFlags::RDONLY | SAFELY;
        let fd =
            rustix::fs::openat(&self.directory, &*file_name(owner), flags, Mode::empty()).ok()?;
        let (file, mut bytes) = (File::from(fd), Vec::new());
        let proof = FileIdentity::of_file(&file).ok()?;
        file.take(LONGEST).read_to_end(&mut bytes).ok()?;
        Some((String::from_utf8_lossy(&bytes).into_owned(), proof))
    }

    /// Every id that has a presence here.
    pub(super) fn ids(&self) -> io::Result<Vec<OwnerId>> {
        Ok(self.entries()?.0)
    }

    /// Every id that has a presence here, and what else there is but files being made.
    pub(super) fn entries(&self) -> io::Result<(Vec<OwnerId>, Vec<String>)> {
        let (mut ids, mut others) = (Vec::new(), Vec::new());
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match id_of(&name) {
                Some(id) => ids.push(id),
                None if name == "." || name == ".." || is_aside(&name) => {}
                None => others.push(name),
            }
        }
        Ok((ids, others))
    }

    #[cfg(any(feature = "cli", test))]
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.directory
    }

    /// Whether any process is alive, or may be.
    pub(super) fn is_any_alive(&self) -> io::Result<bool> {
        Ok(self.ids()?.into_iter().any(|id| self.verdict(id, &mut None).0.may_live()))
    }

    /// Removes what a process died in the middle of making.
    pub(super) fn sweep_aside(&self, home: &Home) {
        home.sweep_aside(&self.directory);
    }

    /// Removes the presence of a dead process that no word names any more.
    pub(super) fn forget(&self, id: OwnerId) {
        self.remove(Some(&file_name(id)));
    }
}

impl Presence {
    /// Another descriptor of it: each process that has it is alive under this id.
    #[cfg(any(feature = "cli", test))]
    pub(super) fn heirloom(&self) -> io::Result<OwnedFd> {
        use std::os::fd::AsFd;
        let locks = self.locks.lock();
        let newest = locks.last().expect("a presence has a file");
        newest.file().as_fd().try_clone_to_owned()
    }

    /// What it says about this process.
    pub(super) fn holder(&self) -> Holder {
        described(&self.text).unwrap_or_default().0
    }
}

/// Whether no process has it locked.
fn probe(file: &File) -> io::Result<bool> {
    loop {
        // By its path: `file.try_lock_shared()` would be std's method since Rust 1.89.
        match FileExt::try_lock_shared(file) {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(e)) => unless_interrupted(e)?,
        }
    }
    let _ = FileExt::unlock(file);
    Ok(true)
}

pub(super) fn file_name(id: OwnerId) -> FileName {
    let mut digits = [0; FileName::LENGTH];
    write!(&mut digits[..], "{:010x}", id.get()).expect("an id has 40 bits");
    FileName(digits)
}

/// Not a `String`: a failed try looks for its holder's presence, and allocates nothing.
pub(super) struct FileName([u8; FileName::LENGTH]);

impl FileName {
    const LENGTH: usize = 10;
}

impl Deref for FileName {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.0).expect("these are digits")
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

fn id_of(file_name: &str) -> Option<OwnerId> {
    let id = OwnerId::new(u64::from_str_radix(file_name, 16).ok()?)?;
    (*self::file_name(id) == *file_name).then_some(id)
}

/// What this process tells about itself.
fn text(label: &str) -> String {
    const TEXT_MAX: usize = 256;
    let myself = this_process();
    let line = |text: &str| one_line(cut(text, TEXT_MAX));
    let [namespace, started] = Birth::parts(Birth::of_this_process());
    format!(
        "{FIRST_LINE}\n{}\n{}\n{}\n{}\n{}\n{namespace}\n{started}\n",
        line(label),
        std::process::id(),
        line(&myself.host),
        line(&myself.command),
        clock::now().as_nanos()
    )
}

/// A text as one line: readers escape what they show, and get it as it was.
fn one_line(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

/// The text of such a line.
fn text_of_line(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        text.extend(match character {
            '\\' => characters.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped }),
            other => Some(other),
        });
    }
    text
}

/// The lines are: label, pid, host, command, since, pid namespace, start.
fn described(text: &str) -> Option<(Holder, Option<Birth>)> {
    let mut lines = text.split('\n');
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    let mut line = || lines.next().map(text_of_line);
    let (label, pid) = (line()?, line()?);
    let pid = pid.parse().ok().filter(|pid| *pid != 0);
    let (host, command) = (line()?, line()?);
    let _since = line();
    let mut number = || line()?.parse().ok();
    let birth = Birth::from_parts(
        pid.unwrap_or_default(),
        number().unwrap_or_default(),
        number().unwrap_or_default(),
    );
    Some((Holder { label, pid, host, command, ..Holder::default() }, birth))
}

#[cfg(test)]
mod tests;
