//! A gate in a file, for the processes of a machine.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering::*},
};

use super::Stale;
use crate::{
    error::{LockError, LockErrorKind, Result},
    process::{FileTurn, TurnFile},
    token::Token,
};

/// A gate in a file, for what the processes of one machine share: a device, a directory of files,
/// a program that checks no tokens.
///
/// One caller at a time is inside, of all threads and processes that use the file; the kernel lets the
/// next one in when the caller inside leaves or dies, however that happens. **A process that is
/// stopped inside keeps all others out** until it goes on or is killed: with a resource that cannot
/// look at tokens itself there is no other way to keep it from acting later. So enter late and
/// leave early. A process forked from one inside is not inside.
///
/// **Durable.** A token is on the disk before its holder is inside: no crash of a process or of
/// the machine takes it back. That costs one sync of the disk per new token. (Tokens of process
/// scope may go back by a few after a power failure; then the gate refuses them until they have
/// caught up.)
///
/// **The file** is two lines of text under a heading, of one size for ever. It is made if it is
/// missing, for this user only (`chmod` it for others), on a local file system. A user that removes it
/// makes the gate forget: remove it together with what it protects, when no process uses it.
///
/// # Example
/// ```
/// use tierlock::{LockErrorKind, Token, fence::FileGate};
///
/// # let place = std::env::temp_dir().join(format!("tierlock-doc-gate-{}", std::process::id()));
/// # std::fs::create_dir(&place).unwrap();
/// let gate = FileGate::open(place.join("export.fence"))?;
/// # let [early, late] = [7, 8].map(|number| Token::new(number).unwrap());
/// {
///     let _inside = gate.enter(late)?; // e.g. MutexGuard::token(&guard)
///     std::fs::write(place.join("export"), "the later holder's").unwrap();
/// }
/// let refused = gate.enter(early).unwrap_err();
/// assert_eq!(refused.kind(), LockErrorKind::Lost);
/// # std::fs::remove_dir_all(place).unwrap();
/// # Ok::<(), tierlock::LockError>(())
/// ```
pub struct FileGate {
    file: TurnFile,
    /// The highest token that this process knows to be on the disk.
    synced: AtomicU64,
}

/// A caller is inside a [`FileGate`], with the highest token so far; until this is dropped no other
/// caller of the machine gets in.
#[must_use = "the gate is open for others once this is dropped"]
pub struct FileEntry {
    token: Token,
    _turn: FileTurn,
}

impl FileGate {
    /// Opens the gate in this file, or makes it. Never waits.
    ///
    /// # Errors
    /// `Config`: its directory is missing, or not on a local file system. `Refused` or `Io`: it
    /// cannot be made, read or written. `Damaged`: it is another file than this makes.
    ///
    /// # Example
    /// ```
    /// use tierlock::{LockErrorKind, fence::FileGate};
    ///
    /// # let place = std::env::temp_dir().join(format!("tierlock-doc-gate-open-{}", std::process::id()));
    /// # std::fs::create_dir(&place).unwrap();
    /// FileGate::open(place.join("export.fence"))?; // beside what it protects
    /// std::fs::write(place.join("export"), "what it protects").unwrap();
    /// let mistaken = FileGate::open(place.join("export")).err().unwrap();
    /// assert_eq!(mistaken.kind(), LockErrorKind::Damaged);
    /// # std::fs::remove_dir_all(place).unwrap();
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<FileGate> {
        let path = path.as_ref();
        let file = TurnFile::open(path).map_err(|error| about(path, error))?;
        let gate = FileGate { file, synced: AtomicU64::new(0) };
        // If a caller is inside, it has looked.
        if let Some(turn) = gate.file.try_take().map_err(|error| gate.about(error))? {
            GatePage::of(turn.file()).map_err(|error| gate.about(error))?;
        }
        Ok(gate)
    }

    /// Waits until no caller is inside, and enters. Blocks the thread, without limit if the caller
    /// inside does not leave.
    ///
    /// # Errors
    /// `Lost`, with [`Stale`] as its source, if a larger token has been here. `Damaged`: the file
    /// was removed, replaced, or written by another program. `Refused` or `Io`: it cannot be read or
    /// written. After each of them no caller is inside.
    pub fn enter(&self, token: Token) -> Result<FileEntry> {
        self.file.take().and_then(|turn| self.pass(turn, token)).map_err(|e| self.about(e))
    }

    /// Enters, if no caller is inside.
    ///
    /// # Errors
    /// `WouldBlock`, if one is; else as [`enter`](FileGate::enter).
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::{Token, fence::FileGate};
    ///
    /// let gate = FileGate::open("/var/lib/shop/export.fence")?;
    /// # let token = Token::new(7).unwrap();
    /// match gate.try_enter(token) {
    ///     Ok(_inside) => println!("alone with the device"),
    ///     Err(error) if error.is_contended() => println!("another process is at it"),
    ///     Err(error) => return Err(error), // a stale token among others
    /// }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn try_enter(&self, token: Token) -> Result<FileEntry> {
        match self.file.try_take() {
            Ok(Some(turn)) => self.pass(turn, token).map_err(|e| self.about(e)),
            Ok(None) => Err(LockError::new(
                LockErrorKind::WouldBlock,
                format!("gate {}: another caller is inside", self.file.path().display()),
            )),
            Err(error) => Err(self.about(error)),
        }
    }

    /// The highest token seen. Waits until no caller is inside.
    ///
    /// # Errors
    /// As [`enter`](FileGate::enter), except `Lost`.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Token, fence::FileGate};
    ///
    /// # let place = std::env::temp_dir().join(format!("tierlock-doc-gate-seen-{}", std::process::id()));
    /// # std::fs::create_dir(&place).unwrap();
    /// let gate = FileGate::open(place.join("export.fence"))?;
    /// # let token = Token::new(7).unwrap();
    /// drop(gate.enter(token)?);
    /// assert_eq!(gate.seen()?, token); // in every process that opens the file, after a restart, too
    /// # std::fs::remove_dir_all(place).unwrap();
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn seen(&self) -> Result<Token> {
        let read = |turn: FileTurn| GatePage::of(turn.file()).and_then(|page| self.highest(&page));
        self.file.take().and_then(read).map_err(|error| self.about(error))
    }

    fn pass(&self, turn: FileTurn, token: Token) -> Result<FileEntry> {
        let page = GatePage::of(turn.file())?;
        let seen = self.highest(&page)?;
        Stale::unless(token, seen)?;
        if page.highest() != Some(token) {
            page.write(token, turn.file()).map_err(cannot_write)?;
        }
        // Also for one that is there already: its writer may have died before it was on the disk.
        if token.get() > self.synced.load(Relaxed) {
            turn.file().sync_data().map_err(cannot_write)?;
            self.synced.fetch_max(token.get(), Relaxed);
        }
        Ok(FileEntry { token, _turn: turn })
    }

    /// What the file says, which never falls behind what this process wrote there.
    fn highest(&self, page: &GatePage) -> Result<Token> {
        let found = page.highest().unwrap_or_default();
        if found.get() < self.synced.load(Relaxed) {
            return Err(damaged(
                "it fell back behind what this process wrote there; another program has put an older or \
                 an empty file in its place",
            ));
        }
        Ok(found)
    }

    fn about(&self, error: LockError) -> LockError {
        about(self.file.path(), error)
    }
}

impl FileEntry {
    /// The token it was entered with.
    pub fn token(&self) -> Token {
        self.token
    }
}

impl fmt::Debug for FileGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileGate").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

impl fmt::Debug for FileEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileEntry").field("token", &self.token).finish_non_exhaustive()
    }
}

/// What stands in a gate's file: a heading, then two lines with a token each, every one of the
/// three in a sector of its own. A new token replaces the smaller one of the two, so that a power
/// failure in the middle of it leaves the larger one. A line says its token twice; where the two
/// differ it was torn, and does not count.
struct GatePage {
    /// `None` for a line that was torn, or never written.
    lines: [Option<Token>; 2],
    /// Its first writer came to the end.
    is_whole: bool,
}

impl GatePage {
    /// What the file says, read by the caller that has the turn.
    fn of(file: &File) -> Result<GatePage> {
        let mut bytes = [0; 3 * SECTOR + 1];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("cannot read it", error)),
            }
        }
        GatePage::parse(&bytes, length).ok_or_else(not_ours)
    }

    /// Zeros stand where its maker died before it was written, or before that was on the disk.
    fn parse(bytes: &[u8; 3 * SECTOR + 1], length: usize) -> Option<GatePage> {
        let ([heading, lines @ ..], [_]) = bytes.as_chunks::<SECTOR>() else { return None };
        if length > 3 * SECTOR || ![line(HEADING), [0; SECTOR]].contains(heading) {
            return None;
        }
        let tokens = [token_of(&lines[0]), token_of(&lines[1])];
        if tokens == [None; 2] && lines.as_flattened().iter().any(|byte| *byte != 0) {
            return None;
        }
        let is_whole = *heading == line(HEADING) && tokens != [None; 2];
        Some(GatePage { lines: tokens, is_whole })
    }

    fn highest(&self) -> Option<Token> {
        self.lines.into_iter().flatten().max()
    }

    /// Writes a token that is larger than the highest.
    fn write(&self, token: Token, file: &File) -> io::Result<()> {
        if !self.is_whole {
            let whole = [line(HEADING), line_of(token), line_of(Token::ZERO)];
            return file.write_all_at(whole.as_flattened(), 0);
        }
        let smaller = if self.lines[0] < self.lines[1] { 0 } else { 1 };
        file.write_all_at(&line_of(token), ((1 + smaller) * SECTOR) as u64)
    }
}

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

const HEADING: &str = "tierlock fence 1: the highest token seen of a lock; remove this file only \
                       together with what it protects, when no process uses it";

/// A text in a sector of its own.
fn line(text: &str) -> [u8; SECTOR] {
    let mut line = [b' '; SECTOR];
    line[..text.len()].copy_from_slice(text.as_bytes());
    line[SECTOR - 1] = b'\n';
    line
}

fn line_of(token: Token) -> [u8; SECTOR] {
    line(&format!("token {token:020} {token:020}"))
}

fn token_of(line: &[u8; SECTOR]) -> Option<Token> {
    let text = std::str::from_utf8(line).ok()?;
    let token = text.split(' ').nth(1)?.parse().ok()?;
    (*line == line_of(token)).then_some(token)
}

fn not_ours() -> LockError {
    damaged(
        "it is not what a gate writes; choose another file, or, if no holder can have an old token \
         any more, stop every process that uses it and remove it",
    )
}

fn damaged(what: &'static str) -> LockError {
    LockError::new(LockErrorKind::Damaged, what)
}

fn cannot_write(error: io::Error) -> LockError {
    failed("cannot write it", error)
}

fn failed(what: &str, error: io::Error) -> LockError {
    LockError::new(LockErrorKind::Io, format!("{what}: {error}")).with_source(error)
}

/// Whatever went wrong with a gate's file names that.
fn about(path: &Path, error: LockError) -> LockError {
    use std::error::Error;
    let text = format!("gate {}: {error}", path.display());
    let about = LockError::new(error.kind(), text);
    // A caller that asks for the source asks what kind of refusal it was.
    match error.source().and_then(|source| source.downcast_ref::<Stale>()).copied() {
        Some(stale) => about.with_source(stale),
        None => about.with_source(error),
    }
}

#[cfg(test)]
mod tests;
