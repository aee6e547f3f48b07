//! Which file systems are trusted with locks, and with what a leader must not forget; and how a
//! directory on one is made.
//!
//! Locks and shared mappings of network and unknown file systems range from slow to silently
//! absent (cargo#4629, cargo#2623, filelock#67, mamba#1446), so only known local ones are
//! accepted, and others when they are asked for by name.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use crate::error::LockError;

/// The type of the file system on which this file or directory is (`statfs`).
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn kind_of(fd: impl AsFd) -> Option<u32> {
    // Signed or not, long or not: the numbers have 32 bits.
    rustix::fs::fstatfs(fd).ok().map(|found| found.f_type as u32)
}

/// No other system tells its file systems apart by a number.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn kind_of(_: impl AsFd) -> Option<u32> {
    None
}

/// The bits of a mode by which its owner may use a directory.
pub(crate) const OWNERS_RIGHTS: u32 = 0o700;

/// Makes a directory that only its maker may use, whatever the umask. Answers whether it was
/// missing.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(OWNERS_RIGHTS).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        made => made?,
    }
    // The umask may have taken even the maker's own rights.
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & OWNERS_RIGHTS != OWNERS_RIGHTS {
        fs::set_permissions(path, Permissions::from_mode(mode | OWNERS_RIGHTS))?;
    }
    Ok(true)
}

/// What is known about a file system that is accepted.
#[cfg(any(feature = "process", test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It is on the list.
    Known,
    /// It was asked for by name.
    OnRequest,
}

const TMPFS: u32 = 0x0102_1994;
const BTRFS: u32 = 0x9123_683e;
const BCACHEFS: u32 = 0xca45_1a4e;
const ZFS: u32 = 0x2fc1_2fc1;
const OVERLAY: u32 = 0x794c_7630;

/// Local file systems: their locks and mappings are shared by all processes of the machine.
const KNOWN: [(u32, &[&str]); 8] = [
    (0xef53, &["ext4", "ext3", "ext2"]),
    (0x5846_5342, &["xfs"]),
    (BTRFS, &["btrfs"]),
    (0xf2f5_2010, &["f2fs"]),
    (BCACHEFS, &["bcachefs"]),
    (ZFS, &["zfs"]),
    (TMPFS, &["tmpfs"]),
    (OVERLAY, &["overlay", "overlayfs"]),
];

/// Names for what people are likely to try.
const REFUSED: [(u32, &[&str]); 23] = [
    (0x6969, &["nfs", "nfs4"]),
    (0xff53_4d42, &["cifs", "smb", "smb1"]),
    (0xfe53_4d42, &["smb2", "smb3", "cifs", "smb"]),
    (0x517b, &["smbfs", "smb"]),
    (0x0102_1997, &["9p", "v9fs"]),
    (0x6573_5546, &["fuse", "fuseblk", "virtiofs"]),
    (0x00c3_6400, &["ceph"]),
    (0x4d44, &["vfat", "msdos", "fat"]),
    (0x2011_bab0, &["exfat"]),
    (0x7366_746e, &["ntfs3", "ntfs"]),
    (0x5346_414f, &["afs"]),
    (0x7375_7245, &["coda"]),
    (0x0116_1970, &["gfs2"]),
    (0x7461_636f, &["ocfs2"]),
    (0x0bd0_0bd0, &["lustre"]),
    (0x4750_4653, &["gpfs"]),
    (0x2003_0528, &["orangefs"]),
    (0x1983_0326, &["beegfs"]),
    (0x786f_4256, &["vboxsf"]),
    (0x8584_58f6, &["ramfs"]),
    (0xf15f, &["ecryptfs"]),
    (0x3153_464a, &["jfs"]),
    (0x5265_4973, &["reiserfs"]),
];

/// Decides on the file system of this type (`statfs`; `None` where the system has no such number).
#[cfg(any(feature = "process", test))]
pub(crate) fn judge(kind: Option<u32>, accepted: &[String]) -> Result<Trust, LockError> {
    let Err(names) = known(kind) else { return Ok(Trust::Known) };
    if is_accepted(&names, accepted) {
        return Ok(Trust::OnRequest);
    }
    Err(LockError::config(format!(
        "it is on the file system {name:?}, which is not trusted with locks; choose a directory \
         on a local one (ext4, xfs, btrfs, f2fs, bcachefs, zfs, tmpfs, overlay), or accept it \
         with accept_file_system({name:?}) if its locks are known to work",
        name = names[0]
    )))
}

/// Decides on the file system of a leader's state directory: a local one with content that outlives a
/// restart of the machine.
#[cfg(any(feature = "host", test))]
pub(crate) fn judge_state(kind: Option<u32>, accepted: &[String]) -> Result<(), LockError> {
    let (names, why) = match (kind, known(kind)) {
        (Some(TMPFS), _) => (vec![name_of(kind)], "does not survive a restart of the machine"),
        (_, Err(names)) => (names, "is not trusted to keep what was written"),
        (_, Ok(())) => return Ok(()),
    };
    if is_accepted(&names, accepted) {
        return Ok(());
    }
    Err(LockError::config(format!(
        "it is on the file system {name:?}, which {why}; a leader that has lost its state grants \
         what is held, with tokens that were given before. Choose a directory on a local disk \
         (ext4, xfs, btrfs, f2fs, bcachefs, zfs, overlay), or accept it with `--accept-fs {name}` \
         (accept_file_system({name:?}))",
        name = names[0]
    )))
}

fn is_accepted(names: &[String], accepted: &[String]) -> bool {
    accepted.iter().any(|name| names.iter().any(|other| name.eq_ignore_ascii_case(other)))
}

/// What it is called, as far as that is known.
pub(crate) fn name_of(kind: Option<u32>) -> String {
    match (listed(&KNOWN, kind), known(kind)) {
        (Some(names), _) => names[0].to_owned(),
        (None, Err(mut names)) => names.swap_remove(0),
        (None, Ok(())) => unreachable!("what is known is listed"),
    }
}

/// What locks on it cannot promise although it is on the list.
#[cfg(any(feature = "process", test))]
pub(crate) fn caveat(kind: Option<u32>) -> Option<&'static str> {
    match kind? {
        TMPFS => Some(
            "nothing on it survives a reboot: tokens begin anew and names are narrow again; where \
             that matters choose a directory on a disk",
        ),
        BTRFS | BCACHEFS | ZFS | OVERLAY => Some(
            "it may copy what is written, so space cannot be set aside on it: a full disk can end \
             a process that locks; keep room, or choose a directory on ext4 or xfs",
        ),
        _ => None,
    }
}

/// Whether it is on the list; else what it is called, at least one name.
pub(crate) fn known(kind: Option<u32>) -> Result<(), Vec<String>> {
    if listed(&KNOWN, kind).is_some() {
        return Ok(());
    }
    match listed(&REFUSED, kind) {
        Some(names) => Err(names.iter().map(|name| name.to_string()).collect()),
        None => Err(vec![kind.map_or("unknown".into(), |kind| format!("{kind:#x}"))]),
    }
}

fn listed(
    list: &[(u32, &'static [&'static str])],
    kind: Option<u32>,
) -> Option<&'static [&'static str]> {
    list.iter().find(|(number, _)| Some(*number) == kind).map(|(_, names)| *names)
}

#[cfg(test)]
mod tests;
