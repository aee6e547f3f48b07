//! What helpers do that are killed at any time: they read, write and take permits over and over, and notice
//! what must not be.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tierlock::{
    LockError, Permit, Predecessor, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard,
    RwLockWriteGuard, Semaphore,
};

use crate::setting::LONG;

/// So many permits the crowd has.
pub(crate) const CROWD_PERMITS: u32 = 4;

/// Where a helper stands with the lock of its two numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Standing {
    Outside = b'o',
    /// Comes in, perhaps by the gate, or has that; or is inside as a writer.
    AtTheGate = b'g',
    Reading = b'r',
}

fn standing_file(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("standing {seed}"))
}

/// Whether the next exclusive holder may be told of the death of this helper, which is dead: a reader that is
/// inside tells nothing, nor does a process that is outside.
pub(crate) fn may_tell_of(folder: &Path, seed: u64) -> bool {
    fs::read(standing_file(folder, seed)).is_ok_and(|at| at == [Standing::AtTheGate as u8])
}

pub(super) fn open(path: PathBuf) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

pub(super) fn open_to_append(path: PathBuf) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

/// The next of some numbers that look random.
pub(super) fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

pub(super) fn begin(seed: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Two numbers that only a writer makes differ, and a third one that is 1 while a writer is inside.
struct Numbers {
    file: File,
    /// Grows by a byte with each exclusive holder that is told of a death.
    told: File,
}

impl Numbers {
    fn get(&self, number: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, number * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, number: u64, to: u64) {
        self.file.write_all_at(&to.to_ne_bytes(), number * 8).unwrap();
    }

    /// Whether they are not as a writer leaves them that lives.
    fn are_torn(&self) -> bool {
        self.get(0) != self.get(1) || self.get(2) != 0
    }

    /// By an exclusive holder that was told this of the one before. Whether that was not so: of a writer
    /// that died inside each is told.
    fn change(&mut self, how: Predecessor) -> bool {
        let is_torn = how == Predecessor::Clean && self.are_torn();
        self.set(2, 1);
        let to = self.get(0).max(self.get(1)) + 1;
        self.set(0, to);
        thread::yield_now();
        self.set(1, to);
        self.set(2, 0);
        is_torn
    }

    fn note(&mut self, how: Predecessor) {
        if how != Predecessor::Clean {
            self.told.write_all(b".").unwrap();
        }
    }
}

/// Reads and changes the numbers over and over, and takes seats between, if there are any. Ends when they are
/// not as they must be.
pub(super) fn pair(
    lock: &RwLock<()>,
    seats: Option<&Semaphore>,
    folder: &Path,
    seed: u64,
) -> Result<String, LockError> {
    let told = open_to_append(folder.join("told"));
    let mut numbers = Numbers { file: open(folder.join("pair")), told };
    let mut rounds = open_to_append(folder.join("rounds"));
    let standing = open(standing_file(folder, seed));
    let stands = |at: Standing| standing.write_all_at(&[at as u8], 0).unwrap();
    let seats = seats.map(|seats| (seats, SeatFiles::open(folder)));
    let mut random = begin(seed);
    loop {
        let is_torn = match next(&mut random) % 5 {
            0 => {
                stands(Standing::AtTheGate);
                let guard = lock.write()?;
                let how = RwLockWriteGuard::predecessor(&guard);
                numbers.note(how);
                numbers.change(how)
            }
            1 => {
                stands(Standing::AtTheGate);
                let seen = lock.upgradable_read()?;
                let how = RwLockUpgradableReadGuard::predecessor(&seen);
                numbers.note(how);
                let torn = how == Predecessor::Clean && numbers.are_torn();
                let guard = RwLockUpgradableReadGuard::upgrade(seen)?;
                let torn = torn || numbers.change(how);
                let reader = RwLockWriteGuard::downgrade(guard)?;
                stands(Standing::Reading);
                let torn = torn || numbers.are_torn();
                drop(reader);
                torn
            }
            2 if let Some((seats, files)) = &seats => {
                if let Some(wrong) = files.take(seats, &mut random)? {
                    return Ok(wrong);
                }
                false
            }
            _ => {
                stands(Standing::AtTheGate);
                let guard = lock.read()?;
                stands(Standing::Reading);
                let how = RwLockReadGuard::predecessor(&guard);
                how == Predecessor::Clean && numbers.are_torn()
            }
        };
        if is_torn {
            return Ok("torn".into());
        }
        stands(Standing::Outside);
        rounds.write_all(b".").unwrap();
    }
}

/// As many files as there are permits: a holder of permits locks one for each.
struct SeatFiles(Vec<File>);

impl SeatFiles {
    fn open(folder: &Path) -> SeatFiles {
        let files = 0..CROWD_PERMITS;
        SeatFiles(files.map(|number| open(folder.join(format!("permit {number}")))).collect())
    }

    /// Takes permits and gives them back, or finds too few in time. Says so if there is no file for one.
    fn take(&self, semaphore: &Semaphore, random: &mut u64) -> Result<Option<String>, LockError> {
        let random = next(random);
        let count = 1 + (random >> 8) as u32 % CROWD_PERMITS;
        let permit = match random % 4 {
            0 => semaphore.acquire_many(count)?,
            1 => futures::executor::block_on(semaphore.acquire_many_async(count))?,
            2 => match semaphore.try_acquire_many(count) {
                Ok(permit) => permit,
                Err(_) => return Ok(None),
            },
            _ => match semaphore.try_acquire_many_for(count, Duration::from_micros(500)) {
                Ok(permit) => permit,
                Err(_) => return Ok(None),
            },
        };
        let SeatFiles(files) = self;
        let mut locked = Vec::new();
        // A killed process's files are closed one after the other.
        let end = Instant::now() + LONG;
        while locked.len() < Permit::count(&permit) as usize {
            if Instant::now() > end {
                return Ok(Some(format!("{} of {count} files are there", locked.len())));
            }
            for (number, file) in files.iter().enumerate() {
                if !locked.contains(&number)
                    && locked.len() < count as usize
                    && file.try_lock().is_ok()
                {
                    locked.push(number);
                }
            }
        }
        thread::yield_now();
        locked.into_iter().for_each(|number| files[number].unlock().unwrap());
        Ok(None)
    }
}

/// Takes permits over and over. Ends when there is none for it.
pub(super) fn crowd(semaphore: &Semaphore, folder: &Path, seed: u64) -> Result<String, LockError> {
    let mut rounds = open_to_append(folder.join("rounds"));
    let (files, mut random) = (SeatFiles::open(folder), begin(seed));
    loop {
        if let Some(wrong) = files.take(semaphore, &mut random)? {
            return Ok(wrong);
        }
        rounds.write_all(b".").unwrap();
    }
}
