//! What can go wrong with a journal's file, and what an operator is told of it.

use std::{any::Any, io, path::Path};

use crate::{
    error::{LockError, LockErrorKind},
    proto::{record::Record, wire},
};

/// What can go wrong with the file.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not what it should be.
    Damage(String),
    /// It is whole, and another program's.
    Foreign(String),
    /// The system failed a call.
    Io(io::Error),
    /// Another program has it open.
    InUse,
    /// It was to be made, and is there.
    Made,
    /// It is a copy of the file that was made, or that was begun above an epoch.
    Copy { epoch: u32 },
}

impl Trouble {
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Trouble {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Trouble::Damage(text.unwrap_or("it cannot be read").to_owned())
    }

    /// A write found no room, and then it could not be opened.
    pub(super) fn lost() -> Trouble {
        Trouble::Io(io::Error::other("the journal is closed after an error"))
    }

    pub(super) fn rolled_back(found: u64, noted: u64) -> Trouble {
        Trouble::Damage(format!("it has {found} commits, and had {noted}"))
    }

    pub(super) fn missing(what: &str) -> Trouble {
        Trouble::Damage(format!("its {what} is missing or malformed"))
    }

    pub(super) fn row(what: &str, found: Result<Record, wire::WireError>) -> Trouble {
        Trouble::Damage(match found {
            Ok(record) => format!("a {what} has another's row: {record:?}"),
            Err(error) => format!("a {what} cannot be read: {error}"),
        })
    }

    pub(super) fn at(self, path: &Path) -> LockError {
        let shown = path.display();
        match self {
            Trouble::Damage(what) => LockError::new(
                LockErrorKind::Damaged,
                format!(
                    "the journal {shown} is damaged: {what}; restore it from a copy, or start \
                     once with `tierlock serve --epoch-above N` on this directory, N being the \
                     highest epoch that its clients have seen",
                ),
            ),
            Trouble::Foreign(what) => LockError::new(
                LockErrorKind::Damaged,
                format!("the journal {shown} is of no use to this program: {what}"),
            ),
            Trouble::Io(error) => LockError::new(
                LockErrorKind::Io,
                format!("cannot use the journal {shown}: {error}"),
            )
            .with_source(error),
            Trouble::InUse => LockError::new(
                LockErrorKind::Refused,
                format!("another program has the journal {shown} open; stop it first"),
            ),
            Trouble::Made => LockError::config(format!(
                "the journal {shown} is made; start without --init, which is for a leader's first \
                 start only"
            )),
            Trouble::Copy { epoch } => LockError::config(format!(
                "the journal {shown} is a copy, with epoch {epoch} as its last: a leader that goes \
                 on from it gives tokens that the original may have given too. If the original is \
                 lost, start once with --epoch-above N, N being the highest epoch that its clients \
                 have seen; for a leader beside it, use --init and a directory of its own"
            )),
        }
    }

    pub(super) fn into_io(self) -> io::Error {
        match self {
            Trouble::Io(error) => error,
            Trouble::Damage(what) | Trouble::Foreign(what) => {
                io::Error::new(io::ErrorKind::InvalidData, what)
            }
            Trouble::InUse => io::ErrorKind::ResourceBusy.into(),
            Trouble::Made | Trouble::Copy { .. } => unreachable!("said of a start only"),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        match error.into() {
            redb::Error::Io(error) => match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    Trouble::Damage(error.to_string())
                }
                _ => Trouble::Io(error),
            },
            redb::Error::DatabaseAlreadyOpen => Trouble::InUse,
            other => Trouble::Damage(other.to_string()),
        }
    }
}
