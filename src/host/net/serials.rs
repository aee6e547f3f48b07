//! Serials of credentials, and the file that says which of them are revoked.
//!
//! The file has a serial a line, as `tierlock secret issue` prints it; what follows a `#` is a remark. A
//! file that ends within a line is being written, or was cut off: read as it stands, it would accept a
//! credential that it is about to revoke. So would one without a byte: a remark says that there is none.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use ring::digest;

use super::{
    hex::{from_hex, to_hex},
    owned_file::{is_ours, open_at_once},
};
use crate::{
    error::{LockError, LockErrorKind},
    proto::ClientId,
};

/// How many bytes the serial of an issued credential has.
pub(in crate::host) const SERIAL_BYTES: usize = 16;

/// Longer files are none of ours; this is room for some 100,000 serials.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a certificate is revoked by. Its issuer gives none twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::host) struct CredentialSerial(Arc<[u8]>);

impl CredentialSerial {
    pub(in crate::host) fn new(bytes: &[u8]) -> CredentialSerial {
        CredentialSerial(bytes.into())
    }

    /// One of random bytes. A certificate's serial is a positive number, in as few bytes as it takes.
    pub(in crate::host) fn of_random(mut bytes: [u8; SERIAL_BYTES]) -> CredentialSerial {
        bytes[0] = bytes[0] & 0x7f | 0x40;
        CredentialSerial::new(&bytes)
    }

    pub(in crate::host) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What its holders count as together where limits are shared out. No address has such bits: they
    /// are those of a multicast network, from which no packet comes.
    pub(in crate::host) fn client(&self) -> ClientId {
        let mut text = Vec::from(b"tierlock credential 1\0");
        text.extend_from_slice(&self.0);
        let digest = digest::digest(&digest::SHA256, &text);
        let half = digest.as_ref().first_chunk().expect("a digest has 32 bytes");
        ClientId(u128::from_be_bytes(*half) | 0xff << 120)
    }
}

impl fmt::Display for CredentialSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// The credentials that are accepted no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct RevokedSerials {
    serials: BTreeSet<CredentialSerial>,
}

impl RevokedSerials {
    pub(in crate::host) fn has(&self, serial: &CredentialSerial) -> bool {
        self.serials.contains(serial)
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// `Config` if it is missing, empty, no regular file, not whole, has anything but serials and remarks, or may be written by
    /// others than its owner; `Io` if it cannot be read.
    pub(in crate::host) fn read(path: &Path) -> Result<RevokedSerials, LockError> {
        let shown = path.display();
        let unreadable = |error: io::Error| {
            let what = format!("cannot read the revocation file {shown}: {error}");
            let kind = match error.kind() {
                io::ErrorKind::NotFound => LockErrorKind::Config,
                _ => LockErrorKind::Io,
            };
            LockError::new(kind, what).with_source(error)
        };
        let file = open_at_once(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        if !about.is_file() {
            let what = format!("the revocation file {shown} is no regular file");
            return Err(LockError::config(what));
        }
        if !is_ours(&about) || about.mode() & 0o022 != 0 {
            return Err(LockError::config(format!(
                "the revocation file {shown} may be written by others than root and the user that runs \
                 this (owner {}, mode {:03o}): they could accept again what is revoked",
                about.uid(),
                about.mode() & 0o777
            )));
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let what = format!("the revocation file {shown} is longer than 4 MiB");
            return Err(LockError::config(what));
        }
        RevokedSerials::decode(&text).map_err(|trouble| {
            LockError::config(match trouble {
                DecodeTrouble::Blank => format!(
                    "the revocation file {shown} is empty: it is being written, or was cut off; a remark \
                     (`# none`) says that no credential is revoked"
                ),
                DecodeTrouble::Cut => format!(
                    "the revocation file {shown} ends within a line: it is being written, or was cut off; \
                     write another file and rename that to it"
                ),
                DecodeTrouble::Line(line) => format!(
                    "line {line} of the revocation file {shown} is no serial of 32 hexadecimal digits, as \
                     `tierlock secret show` prints it"
                ),
            })
        })
    }

    fn decode(text: &[u8]) -> Result<RevokedSerials, DecodeTrouble> {
        let Some(text) = text.strip_suffix(b"\n") else {
            return match text {
                b"" => Err(DecodeTrouble::Blank),
                _ => Err(DecodeTrouble::Cut),
            };
        };
        let mut serials = BTreeSet::new();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let said = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            if said.is_empty() {
                continue;
            }
            let serial: [u8; SERIAL_BYTES] = from_hex(said).ok_or(DecodeTrouble::Line(at + 1))?;
            serials.insert(CredentialSerial::new(&serial));
        }
        Ok(RevokedSerials { serials })
    }
}

/// Why a text is no list of serials.
enum DecodeTrouble {
    /// It has no byte.
    Blank,
    /// It ends within a line.
    Cut,
    /// Of this line, counted from 1.
    Line(usize),
}

#[cfg(test)]
mod tests;
