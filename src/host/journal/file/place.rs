//! The state directory: whether it may be one, which leader has it, and what lies in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::JournalOpening;
use crate::{
    error::{LockError, LockErrorKind},
    filesystem,
    host::durable::sync_directory,
    proto::ClusterId,
};

/// How long a child that this process made may have what this process has released, at most: until it
/// executes its program, which takes long on a busy machine only.
const CHILD_EXECUTES: Duration = Duration::from_secs(1);
/// The journal itself.
pub(super) const JOURNAL: &str = "journal.redb";
/// Where a journal is made; it gets its name once it is whole.
pub(super) const UNFINISHED: &str = "journal.new";
/// The log of a group's member, in the place of a journal.
pub(in crate::host::journal) const GROUP_LOG: &str = "group.log";
/// Where a start above an epoch puts a journal that cannot be read.
pub(super) const SET_ASIDE: &str = "journal.damaged";
/// The number of its last commit, or of the last write to a member's log.
pub(in crate::host::journal) const COMMITS: &str = "commits";
/// Room for what a leader has to write when the disk is full.
pub(in crate::host::journal) const SPARE: &str = "spare";
/// The cluster's id, for people and for the case that the journal is lost. It is there before
/// the journal is used, so a directory that has it and no journal has forgotten something.
pub(super) const USED: &str = "cluster";
/// Where its journal is now, if that was moved.
pub(super) const MOVED: &str = "moved";
/// Locked by the leader that has the directory; its process id, for people.
const LOCK: &str = "lock";

/// Takes the directory for one leader, and refuses one that may have been something else: a volume
/// that was not mounted leaves an empty directory, and a file system in memory forgets.
pub(super) fn enter(directory: &Path, opening: &JournalOpening) -> Result<File, LockError> {
    enter_after(directory, opening, || ())
}

/// The same, with what other processes do between the first look and the lock.
pub(in crate::host::journal) fn enter_after(
    directory: &Path,
    opening: &JournalOpening,
    meanwhile: impl FnOnce(),
) -> Result<File, LockError> {
    let is_new = opening.init && make(directory)?;
    let entered = judge(directory, opening)
        .inspect(|()| meanwhile())
        .and_then(|()| lock(&directory.join(LOCK)))
        // It may have been moved while another process had the lock.
        .and_then(|file| judge_moved(directory, opening).map(|()| file));
    if entered.is_err() && is_new {
        let _ = fs::remove_dir(directory);
    }
    entered
}

fn judge(directory: &Path, opening: &JournalOpening) -> Result<(), LockError> {
    let shown = directory.display();
    let opened = match File::open(directory) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(match opening.is_member {
                true => no_disk(directory, "does not exist"),
                false => not_made(directory, "does not exist"),
            });
        }
        Err(error) => {
            let text = format!("cannot open the state directory {shown}: {error}");
            return Err(LockError::new(LockErrorKind::Io, text).with_source(error));
        }
    };
    if !opened.metadata().is_ok_and(|about| about.is_dir()) {
        return Err(LockError::config(format!("the state directory {shown} is no directory")));
    }
    filesystem::judge_state(filesystem::kind_of(&opened), &opening.accepted_file_systems)
        .map_err(|error| LockError::config(format!("the state directory {shown}: {error}")))?;
    match (opening.is_member, has(directory, JOURNAL), has(directory, GROUP_LOG)) {
        (true, true, _) => {
            return Err(LockError::config(format!(
                "the state directory {shown} has the journal of a leader alone; a member of a group begins \
                 with a directory of its own, an empty one and --init (init(true))"
            )));
        }
        (false, _, true) => {
            return Err(LockError::config(format!(
                "the state directory {shown} is that of a group's member: start its leader with --group. The \
                 journal of a group is not moved: what moves is a member, by an empty directory, --init and \
                 tierlock replace"
            )));
        }
        _ => {}
    }
    if !is_made(directory) && !opening.init {
        return Err(match opening.is_member {
            true => no_disk(directory, "has no log"),
            false => not_made(directory, "has no journal"),
        });
    }
    judge_moved(directory, opening)
}

/// Refuses one with a journal that was moved elsewhere.
fn judge_moved(directory: &Path, opening: &JournalOpening) -> Result<(), LockError> {
    let shown = directory.display();
    match moved_to(directory)? {
        Some(there) if opening.moves_to.as_deref() != Some(&*there) => {
            Err(LockError::config(format!(
                "the journal of the state directory {shown} was moved to {there}: start its leaders \
                 there. If that was interrupted, and the journal is not there, move it again to the same \
                 place; if you give that up, remove the file {MOVED}",
            )))
        }
        _ => Ok(()),
    }
}

/// Whether there is a journal, or was.
pub(super) fn is_made(directory: &Path) -> bool {
    [JOURNAL, GROUP_LOG, USED].iter().any(|name| has(directory, name))
}

/// Whether a file of this name may be there.
fn has(directory: &Path, name: &str) -> bool {
    let found = directory.join(name).symlink_metadata();
    !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether it says that it was used before.
pub(in crate::host::journal) fn is_used(directory: &Path) -> bool {
    has(directory, USED)
}

/// Where its journal was moved to, if it was.
pub(super) fn moved_to(directory: &Path) -> Result<Option<String>, LockError> {
    let found = read_if_there(&directory.join(MOVED));
    let found = found.map_err(|error| {
        let text = format!("cannot read {}: {error}", directory.join(MOVED).display());
        LockError::new(LockErrorKind::Io, text).with_source(error)
    })?;
    Ok(found.map(|text| text.trim_end().to_owned()))
}

fn not_made(directory: &Path, what: &str) -> LockError {
    LockError::config(format!(
        "the state directory {} {what}: a new leader is started once with --init (init(true)), \
         which makes one. If this leader had a journal, look whether its volume is mounted; if \
         that is lost, start once with --init --epoch-above N, N being the highest epoch that its \
         clients have seen",
        directory.display()
    ))
}

fn no_disk(directory: &Path, what: &str) -> LockError {
    LockError::config(format!(
        "the state directory {} {what}: a member of a group is started once with --init (init(true)), which \
         makes its disk. All members together make the group so, once. If the group is made and this member \
         had a disk, look whether its volume is mounted; if that is lost, start with --init on an empty \
         directory, and have it admitted by tierlock replace",
        directory.display()
    ))
}

/// Answers whether it was missing.
fn make(directory: &Path) -> Result<bool, LockError> {
    filesystem::make_private_directory(directory).map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => LockErrorKind::Config,
            _ => LockErrorKind::Io,
        };
        let text = format!("cannot make the state directory {}: {error}", directory.display());
        LockError::new(kind, text).with_source(error)
    })
}

/// Takes the directory's lock file and writes our process id into it, for people.
///
/// No other program inherits the lock, but a child that this process forks has it until it executes
/// one. So where the file names this process itself, which may have dropped its leader a moment ago, a
/// lock that is taken is tried again for [`CHILD_EXECUTES`]. A child that executes nothing keeps it, and
/// a successor on the directory is refused as long as it lives, on the safe side.
fn lock(path: &Path) -> Result<File, LockError> {
    let shown = path.display();
    let trouble = |error: io::Error| {
        let text = format!("cannot lock {shown}: {error}");
        LockError::new(LockErrorKind::Io, text).with_source(error)
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    let mut file = options.open(path).map_err(trouble)?;
    let start = Instant::now();
    loop {
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => break,
            Err(fs4::TryLockError::Error(error)) => return Err(trouble(error)),
            Err(fs4::TryLockError::WouldBlock) => {}
        }
        let mut owner = String::new();
        let _ = file.rewind().and_then(|()| (&mut file).take(32).read_to_string(&mut owner));
        let owner = owner.trim();
        let is_ours = owner == std::process::id().to_string();
        if !is_ours || start.elapsed() > CHILD_EXECUTES {
            let owner = match owner {
                "" => String::new(),
                pid => format!(" (process {pid})"),
            };
            let directory = path.parent().unwrap_or(path).display();
            let text = format!(
                "another leader{owner} runs on the state directory {directory}; \
                 stop it first, or give this one a directory of its own"
            );
            return Err(LockError::new(LockErrorKind::Refused, text));
        }
        thread::sleep(Duration::from_millis(1));
    }
    // On a full disk the old process id stays, which only people read.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Which file it is: its inode, and when that was made. A copy is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host::journal) struct JournalFileId {
    inode: u64,
    /// In nanoseconds since 1970; 0 where the file system does not say.
    born_ns: u64,
}

impl JournalFileId {
    pub(in crate::host::journal) fn of(file: &File) -> io::Result<JournalFileId> {
        let about = file.metadata()?;
        let born = about.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.map_or(0, |born| born.as_nanos() as u64);
        Ok(JournalFileId { inode: about.ino(), born_ns })
    }

    pub(in crate::host::journal) fn is(self, other: JournalFileId) -> bool {
        let born_unlike = self.born_ns != other.born_ns && self.born_ns != 0 && other.born_ns != 0;
        self.inode == other.inode && !born_unlike
    }

    pub(in crate::host::journal) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.born_ns) << 64 | u128::from(self.inode)).to_le_bytes()
    }

    pub(in crate::host::journal) fn from_bytes(bytes: [u8; 16]) -> JournalFileId {
        let both = u128::from_le_bytes(bytes);
        JournalFileId { inode: both as u64, born_ns: (both >> 64) as u64 }
    }
}

/// Says durably that the journal is used from now on.
pub(in crate::host::journal) fn mark_used(directory: &Path, cluster: ClusterId) -> io::Result<()> {
    let path = directory.join(USED);
    let text = format!("{:032x}\n", cluster.0);
    if fs::read_to_string(&path).is_ok_and(|found| found == text) {
        // Its writer may have been killed before it was durable.
        File::open(&path)?.sync_all()?;
    } else {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    sync_directory(directory)
}

/// The text of a file, if there is one.
pub(super) fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of a directory is durable only with its own directory.
pub(super) fn sync_parent(directory: &Path) -> io::Result<()> {
    match sync_directory(&parent(directory)?) {
        // Another user's directory, and then that user made ours in it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// Where the directory's name stands, also if that is given as `state`, `..` or by a link.
pub(super) fn parent(directory: &Path) -> io::Result<PathBuf> {
    let directory = directory.canonicalize()?;
    Ok(directory.parent().unwrap_or(&directory).to_owned())
}
