//! A member's disk: one file in its state directory with the vote, the log and its last snapshot.
//!
//! Each batch of writes is one checksummed frame, appended and synced before it counts. A write that has
//! everything (a snapshot, and what stands behind it) begins the file anew, beside the old one, whose
//! name it takes once it is whole. The number of the last frame is kept in a file of its own, as with the
//! journal of a leader alone: a log that has fewer has lost some, and is refused. A disk that forgets a
//! vote may give it twice, so nothing is ever rolled back but what was never confirmed.
//!
//! Room is set aside for another such file: when the disk is full, what the member writes next goes there,
//! so that it can hand over what it leads before it writes nothing more.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use super::{
    super::file::{
        COMMITS, Commits, GROUP_LOG, JournalFileId, SPARE, SPARE_BYTES_MIN, Spare, is_full,
        mark_used,
    },
    frames::{append_frame, find_frames},
};
use crate::{
    error::{LockError, LockErrorKind},
    host::{
        durable::{begin_aside, put_in_place, sync_directory},
        random,
    },
    proto::group::{DiskId, GroupWrite, StoredGroup},
};

/// Where a log is made or made anew; it gets its name once it is whole.
const UNFINISHED: &str = "group.new";
/// The log of a disk that was put back to an earlier state, kept to be looked at.
const PUT_BACK: &str = "group.put-back";
const FORMAT_VERSION: u32 = 1;
/// For how long a disk without room is not asked for more.
pub(super) const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// A member's disk, open for writing.
pub(super) struct GroupDisk {
    directory: PathBuf,
    file: File,
    id: DiskId,
    /// Up to where the file is durable.
    end: u64,
    /// The number of the frame that ends there.
    number: u64,
    commits: Commits,
    /// The directory says which cluster it is of.
    is_marked: bool,
    spare: Spare,
    /// The disk whose log is kept since this process has it.
    kept: Option<DiskId>,
    /// What was set aside is given away, and there is no room to set it aside again.
    is_low: bool,
    /// Room is not looked for before that: there was none.
    next_look: Option<Instant>,
    #[cfg(test)]
    room: tests::TriedRoom,
}

/// Why a disk cannot be written.
#[derive(Debug)]
pub(super) enum DiskTrouble {
    /// It is full. Nothing of the batch counts, and it may be written again.
    Full(io::Error),
    /// Nothing is known about what it has now.
    Failed(io::Error),
}

impl DiskTrouble {
    /// What came of making a file beside the one that there is.
    fn of_new_file(error: io::Error) -> DiskTrouble {
        match is_full(&error) {
            true => DiskTrouble::Full(error),
            false => DiskTrouble::Failed(error),
        }
    }
}

impl GroupDisk {
    /// Makes the disk of a member, in a directory that has none.
    pub(super) fn make(directory: &Path) -> Result<GroupDisk, LockError> {
        let made = GroupDisk::begin(directory, DiskId(random()));
        made.map_err(|error| io_trouble(directory, error))
    }

    fn begin(directory: &Path, id: DiskId) -> io::Result<GroupDisk> {
        Commits::make(&directory.join(COMMITS))?;
        let (commits, _) = Commits::open(&directory.join(COMMITS))?;
        let (file, bytes) = begin_file(directory, id, 0)?;
        put_in_place(&directory.join(UNFINISHED), GROUP_LOG)?;
        let mut disk = GroupDisk::of(directory, file, id, commits);
        disk.end = bytes;
        disk.set_aside(Instant::now());
        Ok(disk)
    }

    fn of(directory: &Path, file: File, id: DiskId, commits: Commits) -> GroupDisk {
        GroupDisk {
            directory: directory.to_owned(),
            file,
            id,
            end: 0,
            number: 0,
            commits,
            is_marked: false,
            spare: Spare::new(directory.join(SPARE)),
            kept: None,
            is_low: false,
            next_look: None,
            #[cfg(test)]
            room: tests::TriedRoom::Plenty,
        }
    }

    /// Opens a disk that was made, with what it has; `None` if that is nothing yet. `is_copy_accepted`: a
    /// copy may be gone on from, since its leader starts above whatever the original came to.
    ///
    /// # Errors
    ///
    /// `Damaged` if it is not as it was written, `Config` if it is a copy, `Io`.
    pub(super) fn open(
        directory: &Path,
        is_copy_accepted: bool,
    ) -> Result<(GroupDisk, Option<StoredGroup>), LockError> {
        let path = directory.join(GROUP_LOG);
        let opened = open_file(&path).and_then(|file| {
            let bytes = fs::read(&path)?;
            Ok((file, bytes))
        });
        let (file, bytes) = opened.map_err(|error| io_trouble(directory, error))?;
        let read = read_log(&bytes).map_err(|what| damaged(directory, &what))?;
        let ReadLog { id, made_as, stored, number, end } = read;
        let commits = Commits::open(&directory.join(COMMITS));
        let (commits, noted) = match commits {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = format!("the file {COMMITS} beside it is missing");
                return Err(damaged(directory, &what));
            }
            commits => commits.map_err(|error| io_trouble(directory, error))?,
        };
        match noted {
            None => {
                let what = format!("the file {COMMITS} beside it is damaged");
                return Err(damaged(directory, &what));
            }
            Some(noted) if noted > number => {
                let what = format!("it has {number} writes, and had {noted}");
                return Err(damaged(directory, &what));
            }
            Some(_) => {}
        }
        let is = JournalFileId::of(&file).map_err(|error| io_trouble(directory, error))?;
        let is_copy = !made_as.is(is);
        if is_copy && !is_copy_accepted {
            return Err(LockError::config(format!(
                "the log {} is a copy: two disks that vote as one give a lock two holders. For the member \
                 of a group that goes on, empty the directory, start once with --init, and have it admitted \
                 by tierlock replace. If all of the group is restored from copies, start every member of it \
                 once with --epoch-above N, N being the highest epoch that its clients have seen",
                path.display()
            )));
        }
        let mut disk = GroupDisk::of(directory, file, id, commits);
        (disk.end, disk.number) = (end as u64, number);
        // What is acted on is durable first, and that it can be read does not say so: a killed process may have
        // left a write that no sync was waited for, or a file without a durable name, and after a sync that
        // failed the system shows as written what it could not write, and reports that no second time. So all
        // of it is written again, to another file.
        let whole = stored.clone().or_else(|| is_copy.then(StoredGroup::default));
        let whole = whole.map(|whole| GroupWrite::Whole(Box::new(whole)));
        let anew = match disk.make_durable(whole.as_ref()) {
            Err(error) if is_full(&error) => {
                disk.spare.release();
                disk.is_low = true;
                disk.make_durable(whole.as_ref())
            }
            made => made,
        };
        anew.map_err(|error| io_trouble(&disk.directory, error))?;
        disk.set_aside(Instant::now());
        Ok((disk, stored))
    }

    fn make_durable(&mut self, whole: Option<&GroupWrite>) -> io::Result<()> {
        match whole {
            Some(whole) => self.begin_anew(std::slice::from_ref(whole)),
            None => {
                self.cut()?;
                self.file.sync_data()?;
                sync_directory(&self.directory)
            }
        }
    }

    /// Which disk it is.
    pub(super) fn id(&self) -> DiskId {
        self.id
    }

    /// Makes these writes durable, all at once. [`set_aside`](GroupDisk::set_aside) is to be called once they
    /// are confirmed.
    pub(super) fn write(&mut self, batch: &[GroupWrite]) -> Result<(), DiskTrouble> {
        self.with_spare(|disk| disk.write_once(batch))?;
        // Waited for by nothing: after a loss of power it may be too low, which harms nothing.
        let _ = self.commits.note(self.number);
        self.mark(batch).map_err(DiskTrouble::Failed)
    }

    /// If it is full, what was set aside is given to another attempt.
    fn with_spare<T>(
        &mut self,
        mut write: impl FnMut(&mut GroupDisk) -> Result<T, DiskTrouble>,
    ) -> Result<T, DiskTrouble> {
        match write(self) {
            Err(DiskTrouble::Full(_)) if self.spare.bytes() > 0 => {
                self.spare.release();
                self.is_low = true;
                write(self)
            }
            written => written,
        }
    }

    /// Whether it is full but for what was set aside.
    pub(super) fn is_low(&self) -> bool {
        self.is_low
    }

    /// Sets room aside for as much as the log has, once there is some to spare. A log that grows asks for more
    /// only now and then, and where there was none it is looked for again after [`LOOK_PAUSE`]: all of it may have
    /// to be written.
    pub(super) fn set_aside(&mut self, now: Instant) {
        let bytes = self.end.max(SPARE_BYTES_MIN).next_power_of_two();
        let is_enough = !self.is_low && self.spare.bytes() >= bytes;
        if is_enough || self.next_look.is_some_and(|at| now < at) {
            return;
        }
        // One that is low has room again once there is more than it needs.
        let asked = if self.is_low { 2 * bytes } else { bytes };
        let set = self.try_to_set_aside(asked).and_then(|()| self.spare.reduce(bytes));
        // One that has nothing aside and no room for it, after a restart say, is as low as one that has used it.
        self.is_low = set.is_err() && (self.is_low || self.spare.bytes() == 0);
        self.next_look = set.is_err().then_some(now + LOOK_PAUSE);
    }

    fn try_to_set_aside(&mut self, bytes: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.room != tests::TriedRoom::Plenty {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.spare.set_aside(bytes)
    }

    fn write_once(&mut self, batch: &[GroupWrite]) -> Result<(), DiskTrouble> {
        #[cfg(test)]
        if !self.room.is_for_write(self.spare.bytes()) {
            return Err(DiskTrouble::Full(io::ErrorKind::StorageFull.into()));
        }
        let whole = batch.iter().rposition(|write| matches!(write, GroupWrite::Whole(_)));
        match whole {
            // What it had before is of no more use, and neither is what was to be written before.
            Some(at) => self.begin_anew(&batch[at..]).map_err(DiskTrouble::of_new_file)?,
            None => self.append(batch)?,
        }
        Ok(())
    }

    /// Begins anew as another disk, which has nothing: this one was put back to an earlier state. Its log is
    /// kept beside the new one. After an error it may be tried again: on the disk is the old one or a new one.
    pub(super) fn become_another(&mut self) -> Result<DiskId, DiskTrouble> {
        let id = DiskId(random());
        self.with_spare(|disk| {
            #[cfg(test)]
            if !disk.room.is_for_write(disk.spare.bytes()) {
                return Err(DiskTrouble::Full(io::ErrorKind::StorageFull.into()));
            }
            disk.begin_as(id).map_err(DiskTrouble::of_new_file)
        })?;
        let _ = self.commits.note(self.number);
        Ok(id)
    }

    fn begin_as(&mut self, id: DiskId) -> io::Result<()> {
        let number = self.number + 1;
        let (file, end) = begin_file(&self.directory, id, number)?;
        self.keep_log()?;
        put_in_place(&self.directory.join(UNFINISHED), GROUP_LOG)?;
        (self.file, self.end, self.number, self.id) = (file, end, number, id);
        Ok(())
    }

    /// Keeps the log of this disk, once: when it is tried again, the log may be that of the new disk already.
    fn keep_log(&mut self) -> io::Result<()> {
        if self.kept == Some(self.id) {
            return Ok(());
        }
        let (log, kept) = (self.directory.join(GROUP_LOG), self.directory.join(PUT_BACK));
        match fs::remove_file(&kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Not every file system has hard links.
        if fs::hard_link(&log, &kept).is_err() {
            copy_whole(&log, &kept)?;
        }
        self.kept = Some(self.id);
        Ok(())
    }

    fn append(&mut self, batch: &[GroupWrite]) -> Result<(), DiskTrouble> {
        let mut bytes = Vec::new();
        append_frame(self.number + 1, &body_of(batch), &mut bytes);
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // Nothing was synced, so what was written of it is not confirmed and is cut.
            return match is_full(&error) && self.cut().is_ok() {
                true => Err(DiskTrouble::Full(error)),
                false => Err(DiskTrouble::Failed(error)),
            };
        }
        // After an error of a sync the system may drop what it could not write, and say so once.
        self.file.sync_data().map_err(DiskTrouble::Failed)?;
        self.end += bytes.len() as u64;
        self.number += 1;
        Ok(())
    }

    /// A file with these writes, in the place of the one that there is.
    fn begin_anew(&mut self, batch: &[GroupWrite]) -> io::Result<()> {
        let number = self.number + 1;
        let (file, end) = begin_file(&self.directory, self.id, number)?;
        let mut bytes = Vec::new();
        append_frame(number + 1, &body_of(batch), &mut bytes);
        let written = file.write_all_at(&bytes, end);
        if let Err(error) = written {
            let _ = fs::remove_file(self.directory.join(UNFINISHED));
            return Err(error);
        }
        put_in_place(&self.directory.join(UNFINISHED), GROUP_LOG)?;
        (self.file, self.end, self.number) = (file, end + bytes.len() as u64, number + 1);
        Ok(())
    }

    /// Cuts what stands behind the last whole frame.
    fn cut(&self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.end {
            self.file.set_len(self.end)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// Says durably that the directory is of this cluster, once that is known: a log that is missing
    /// from there later is lost, and not to be made.
    fn mark(&mut self, batch: &[GroupWrite]) -> io::Result<()> {
        let cluster = batch.iter().filter(|_| !self.is_marked).find_map(cluster_of);
        if let Some(cluster) = cluster {
            mark_used(&self.directory, cluster)?;
            self.is_marked = true;
        }
        Ok(())
    }
}

/// What a log has.
struct ReadLog {
    id: DiskId,
    made_as: JournalFileId,
    stored: Option<StoredGroup>,
    number: u64,
    end: usize,
}

fn read_log(bytes: &[u8]) -> Result<ReadLog, String> {
    let found = find_frames(bytes)?;
    let Some(((_, first), rest)) = found.frames.split_first() else {
        return Err("it is empty".to_owned());
    };
    let (id, made_as) = read_about(&bytes[first.clone()])?;
    let mut stored = None::<StoredGroup>;
    let mut number = found.frames[0].0;
    for (frame, body) in rest {
        number = *frame;
        for write in writes_in(&bytes[body.clone()]) {
            let write = write.and_then(|write| {
                stored.get_or_insert_default().remember(write).map_err(|error| error.to_string())
            });
            write.map_err(|error| format!("its write {number} cannot be read: {error}"))?;
        }
    }
    Ok(ReadLog { id, made_as, stored, number, end: found.end })
}

/// A new file beside the log, with nothing but what it says of itself; how long that is.
fn begin_file(directory: &Path, id: DiskId, number: u64) -> io::Result<(File, u64)> {
    let file = begin_aside(&directory.join(UNFINISHED))?;
    let mut about = Vec::from(FORMAT_VERSION.to_le_bytes());
    about.extend_from_slice(&id.0.to_le_bytes());
    about.extend_from_slice(&JournalFileId::of(&file)?.to_bytes());
    let mut bytes = Vec::new();
    append_frame(number, &about, &mut bytes);
    file.write_all_at(&bytes, 0)?;
    Ok((file, bytes.len() as u64))
}

/// A copy of a file that is not written meanwhile. One that did not become whole is not left.
fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let copied = fs::copy(from, to).and_then(|_| File::open(to)?.sync_all());
    copied.inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

fn read_about(about: &[u8]) -> Result<(DiskId, JournalFileId), String> {
    let (format, rest) = about.split_first_chunk::<4>().ok_or("it does not say its format")?;
    match u32::from_le_bytes(*format) {
        FORMAT_VERSION => {}
        other => {
            let known = FORMAT_VERSION;
            return Err(format!("it has format {other}, and this program knows format {known}"));
        }
    }
    let (id, rest) = rest.split_first_chunk::<16>().ok_or("it does not say which disk it is")?;
    let file = rest.first_chunk::<16>().ok_or("it does not say which file it is")?;
    Ok((DiskId(u128::from_le_bytes(*id)), JournalFileId::from_bytes(*file)))
}

/// Each write behind its length.
fn body_of(batch: &[GroupWrite]) -> Vec<u8> {
    let mut body = Vec::new();
    for write in batch {
        let bytes = write.encode();
        let length = u32::try_from(bytes.len()).expect("a write is shorter than 4 GiB");
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&bytes);
    }
    body
}

fn writes_in(mut body: &[u8]) -> impl Iterator<Item = Result<GroupWrite, String>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let next = body
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((bytes, rest)) = next else {
            body = &[];
            return Some(Err("it ends too early".to_owned()));
        };
        body = rest;
        Some(GroupWrite::decode(bytes).map_err(|error| error.to_string()))
    })
}

fn cluster_of(write: &GroupWrite) -> Option<crate::proto::ClusterId> {
    use crate::proto::group::GroupEntry;
    let of_entry = |entry: &GroupEntry| match entry {
        GroupEntry::Members(members) => Some(members.cluster),
        _ => None,
    };
    match write {
        GroupWrite::Vote { .. } => None,
        GroupWrite::Entries { entries, .. } => entries.iter().find_map(of_entry),
        GroupWrite::Whole(whole) => {
            let snapshot = whole.snapshot.as_ref().map(|snapshot| snapshot.members.cluster);
            snapshot.or_else(|| whole.entries.iter().find_map(of_entry))
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

fn damaged(directory: &Path, what: &str) -> LockError {
    LockError::new(
        LockErrorKind::Damaged,
        format!(
            "the log {} is damaged: {what}; nothing was repaired. The other members have what it had: move \
             the directory away, start once with --init on an empty one, and have it admitted by tierlock \
             replace",
            directory.join(GROUP_LOG).display()
        ),
    )
}

fn io_trouble(directory: &Path, error: io::Error) -> LockError {
    let shown = directory.join(GROUP_LOG);
    let text = format!("cannot use the log {}: {error}", shown.display());
    LockError::new(LockErrorKind::Io, text).with_source(error)
}

/// Whether a disk is in a group.
pub(super) fn is_made(stored: &StoredGroup) -> bool {
    cluster_of(&GroupWrite::Whole(Box::new(stored.clone()))).is_some()
}

/// Whether there is a log.
pub(super) fn is_there(directory: &Path) -> io::Result<bool> {
    match directory.join(GROUP_LOG).symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The maker of the directory may have been killed before its own name was durable.
            sync_directory(directory).map(|()| false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
