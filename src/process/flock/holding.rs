//! The holder of a name, for a caller that is to end that process. See `process::ending`.

use std::{fs::File, os::unix::fs::FileExt as _};

use fs4::FileExt;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::{error::LockError, name::Name};

use super::super::{
    dir::{
        ending::{HolderProcess, HolderState},
        files::{FileIdentity, cannot_open},
        home::{Home, SAFELY},
        names,
    },
    sys::BYTES,
};
use super::{LOCKS, NO_LIFE, failed, is_alive, open_locks, record};

/// How often the holder may change under the reader.
const LOOKS: usize = 100;

/// The hold of this name, if a living process has it.
pub(in super::super) fn holding(home: &Home, name: &Name) -> Result<HolderState, LockError> {
    let file_name = names::file_name(name);
    let about = |error| home.about_file(&format!("{LOCKS}/{file_name}"), error);
    let locks = open_locks(home)?;
    let flags = OFlags::RDONLY | SAFELY;
    let file = match rustix::fs::openat(&locks, &*file_name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(HolderState::default()),
        Err(e) => return Err(about(cannot_open(e))),
    };
    let unread = |e| about(failed("cannot read it", e));
    let proof = FileIdentity::of_file(&file).map_err(unread)?;
    let mut found = HolderState::default();
    for _ in 0..LOOKS {
        let mut bytes = Box::new([0; BYTES]);
        match file.read_exact_at(bytes.as_mut_slice(), 0) {
            Ok(()) => {}
            // No process has taken it yet.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok(HolderState::default());
            }
            Err(e) => return Err(unread(e)),
        }
        let copy = record::Copy::new(bytes);
        let widened_by = record::widened_by(&copy);
        if !record::held_by(&copy).is_some_and(|life| is_held(&file, life)) {
            let stays = record::stays_for(&copy).and(record::token(&copy));
            return Ok(HolderState { hold: None, widened_by, stays });
        }
        let mut sequence = [0; 8];
        file.read_exact_at(&mut sequence, record::SEQUENCE_OFFSET).map_err(unread)?;
        let now = u64::from_ne_bytes(sequence);
        let is_whole = now % 2 == 0 && record::sequence(&copy) == now;
        // A process that is stopped while it writes is found too: by its proof of life.
        let birth = is_whole.then(|| record::birth(&copy)).flatten();
        let holder = record::holder(&copy, || now);
        let hold = Some(HolderProcess { holder, birth, proof });
        found = HolderState { hold, widened_by, stays: None };
        if is_whole {
            break;
        }
        std::thread::yield_now();
    }
    Ok(found)
}

/// Whether the lock is held by the one that has this life byte.
fn is_held(file: &File, life: u64) -> bool {
    if life != NO_LIFE {
        return is_alive(file, life);
    }
    // Without such a byte only the lock itself tells. A process that tries for it in this moment
    // fails; nothing else can be done where an operator has to know.
    match FileExt::try_lock_shared(file) {
        Ok(()) => {
            let _ = FileExt::unlock(file);
            false
        }
        Err(_) => true,
    }
}
