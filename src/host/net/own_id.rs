//! What a state directory has of its own: a number that no other leader of the secret has.
//!
//! It is never told. Keys that only this leader may use are made from it and the secret.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

use crate::{
    error::{LockError, LockErrorKind},
    host::{
        durable::{begin_aside, put_in_place},
        net::hex::{from_hex, to_hex},
        random_bytes,
    },
};

const FILE: &str = "own-id";
/// Where it is made; it gets its name once it is whole.
const UNFINISHED: &str = "own-id.new";
const ID_BYTES: usize = 32;

/// Drawn once for a state directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::host) struct OwnId([u8; ID_BYTES]);

impl OwnId {
    /// That of a state directory of which the caller has the lock. One that is missing or damaged is
    /// drawn anew: clients of the reign before then notice the restart by its silence.
    pub(in crate::host) fn of(directory: &Path) -> Result<OwnId, LockError> {
        let path = directory.join(FILE);
        let found = read(&path).and_then(|known| match known {
            Some(known) => Ok(known),
            None => {
                let drawn = OwnId::random();
                write(directory, drawn)?;
                Ok(drawn)
            }
        });
        found.map_err(|error| {
            let text = format!("cannot keep the leader's own id in {}: {error}", path.display());
            LockError::new(LockErrorKind::Io, text).with_source(error)
        })
    }

    pub(in crate::host) fn random() -> OwnId {
        OwnId(random_bytes().expect("the system gives random bytes"))
    }

    pub(in crate::host) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn read(path: &Path) -> io::Result<Option<OwnId>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(2 * ID_BYTES as u64 + 2).read_to_end(&mut text)?;
    Ok(text.strip_suffix(b"\n").and_then(from_hex).map(OwnId))
}

fn write(directory: &Path, id: OwnId) -> io::Result<()> {
    let unfinished = directory.join(UNFINISHED);
    writeln!(begin_aside(&unfinished)?, "{}", to_hex(&id.0))?;
    put_in_place(&unfinished, FILE)
}

#[cfg(test)]
mod tests;
