//! The secret file: which files are accepted, what they say, and how one is made.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    hex::{from_hex, to_hex},
    owned_file::{is_ours, open_at_once},
    tls::{SECRET_BYTES, Secret},
};
use crate::{
    error::{LockError, LockErrorKind},
    filesystem,
    host::random_bytes,
};

/// Longer files are none of ours; this is room for a credential, or for some 250 secrets.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// How long the writer of a pipe may take. It is a program that copies a file, such as `cat`.
const PIPE_LIMIT: Duration = Duration::from_secs(10);

impl Secret {
    /// Reads a secret file.
    ///
    /// It is a regular file of this user or of root that only its owner may write and that not all
    /// users may read, or a pipe such as a shell's `<(cat key)`, which is read once.
    ///
    /// # Errors
    ///
    /// `Config` if the file is missing, has anything but lines of 64 hexadecimal digits (a
    /// [`Credential`](crate::Credential), for instance), belongs to another user, or may be written by others than its owner or read by all users; `Io` if it
    /// cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Secret, LockError> {
        let path = path.as_ref();
        let (text, is_pipe) = read_private(path, "secret")?;
        // What came through a pipe is gone.
        Secret::parse(&text, path, (!is_pipe).then_some(path))
    }

    /// What the file at `shown` has.
    pub(super) fn parse(
        text: &[u8],
        shown: &Path,
        file: Option<&Path>,
    ) -> Result<Secret, LockError> {
        let shown = shown.display();
        if is_credential(text) {
            return Err(LockError::config(format!(
                "{shown} is a credential, which is for a client: leaders serve with the secret itself, \
                 and credentials are issued from it"
            )));
        }
        let secrets = decode(text).ok_or_else(|| {
            LockError::config(format!(
                "the secret file {shown} does not consist of secrets of 64 hexadecimal digits, \
                 one a line; `tierlock secret new FILE` makes a good one"
            ))
        })?;
        let secret = Secret::from_secrets(&secrets);
        Ok(match file {
            Some(file) => secret.of_file(file),
            None => secret,
        })
    }

    /// Writes a new random secret to a file that must not exist yet, readable by its owner only.
    ///
    /// # Errors
    ///
    /// `Config` if the file exists (it is never overwritten), `Io` if it cannot be written.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Secret;
    ///
    /// // a set-up step; every machine gets a copy
    /// Secret::create("/etc/tierlock.key")?;
    /// assert!(Secret::create("/etc/tierlock.key").is_err()); // it is never overwritten
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn create(path: impl AsRef<Path>) -> Result<Secret, LockError> {
        let bytes = random_bytes().map_err(|error| {
            LockError::new(LockErrorKind::Io, "the system gives no random bytes").with_source(error)
        })?;
        write_private(path.as_ref(), "secret", &encode(&bytes))?;
        Ok(Secret::from_secrets(&[bytes]))
    }
}

/// Whether a private file's text is a credential's. No secret has such a line.
pub(super) fn is_credential(text: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    text.windows(BEGIN.len()).any(|part| part == BEGIN)
}

/// Writes a file that must not exist yet, readable by its owner only.
pub(super) fn write_private(path: &Path, what: &str, text: &str) -> Result<(), LockError> {
    let shown = path.display();
    let write = |error: io::Error| {
        let what = format!("cannot write the {what} file {shown}: {error}");
        LockError::new(LockErrorKind::Io, what).with_source(error)
    };
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            LockError::config(format!("{shown} exists already, and is never overwritten"))
                .with_source(error)
        }
        _ => write(error),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a secret is worse than none.
        let _ = std::fs::remove_file(path);
        write(error)
    })
}

/// What a file holds that only its owner, and perhaps a group, may read; and whether it is a pipe, which
/// is read once. `what` it holds, messages say.
pub(crate) fn read_private(path: &Path, what: &str) -> Result<(Vec<u8>, bool), LockError> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        let text = format!("cannot read the {what} file {shown}: {error}");
        LockError::new(LockErrorKind::Io, text).with_source(error)
    };
    let mut file = open_at_once(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LockError::config(format!(
            "there is no {what} file {shown}; `tierlock secret new {shown}` makes one"
        ))
        .with_source(error),
        _ => unreadable(error),
    })?;
    let about = file.metadata().map_err(unreadable)?;
    let kind = about.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(LockError::config(format!(
            "the {what} file {shown} is neither a regular file nor a pipe"
        )));
    }
    if !is_unnamed_pipe(&file) {
        check_access(path, what, &about)?;
    }
    let mut text = Vec::new();
    if kind.is_fifo() {
        read_pipe(&mut file, &mut text).map_err(unreadable)?;
        if text.is_empty() {
            return Err(LockError::config(format!(
                "the {what} file {shown} is a pipe that nothing is written to; start its \
                 writer first, or name a regular file"
            )));
        }
    } else {
        (&mut file).take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    }
    Ok((text, kind.is_fifo()))
}

/// A file of another user gives that user's secret, and one that others may write is theirs, too.
fn check_access(path: &Path, what: &str, about: &Metadata) -> Result<(), LockError> {
    let shown = path.display();
    if !is_ours(about) {
        let user = rustix::process::geteuid().as_raw();
        return Err(LockError::config(format!(
            "the {what} file {shown} belongs to user {}, which could replace it; it has to \
             belong to root or to the user that runs this (user {user})",
            about.uid()
        )));
    }
    let mode = about.mode() & 0o777;
    let trouble = if mode & 0o022 != 0 {
        "may be written by others than its owner"
    } else if mode & 0o007 != 0 {
        "may be used by all users"
    } else {
        return Ok(());
    };
    Err(LockError::config(format!(
        "the {what} file {shown} {trouble} (mode {mode:03o}); run `chmod 600 {shown}`, or \
         `chmod 440 {shown}` if its group is to read it"
    )))
}

/// A pipe without a name was given to this program by the one that started it, whichever user
/// made it.
fn is_unnamed_pipe(file: &File) -> bool {
    const PIPEFS_MAGIC: u32 = 0x5049_5045;
    filesystem::kind_of(file) == Some(PIPEFS_MAGIC)
}

/// Reads until every writer has closed the pipe; nothing where there is no writer.
fn read_pipe(pipe: &mut File, text: &mut Vec<u8>) -> io::Result<()> {
    let begin = Instant::now();
    let mut chunk = [0; 256];
    while text.len() as u64 <= FILE_BYTES_MAX {
        match pipe.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = PIPE_LIMIT.saturating_sub(begin.elapsed());
                if left.is_zero() {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("its writer was silent for {PIPE_LIMIT:?}"),
                    ));
                }
                let left =
                    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&left));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn encode(bytes: &[u8; SECRET_BYTES]) -> String {
    to_hex(bytes) + "\n"
}

/// At least one secret, one a line.
fn decode(text: &[u8]) -> Option<Vec<[u8; SECRET_BYTES]>> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return None;
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n').map(decode_line).collect()
}

fn decode_line(line: &[u8]) -> Option<[u8; SECRET_BYTES]> {
    from_hex(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests;
