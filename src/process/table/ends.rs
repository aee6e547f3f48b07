//! Hints that a process has ended, for waiters that look only now and then.
//!
//! One thread of this process sleeps on a pidfd of each process that a waiter here waits for,
//! however many wait for it, and wakes those when it ends. That is a hint to look, never a verdict:
//! the pid comes out of a file, may mean another process in another pid namespace, and may have
//! been used again. So a wrong hint costs a look, and a missing one (no such pid here, no more
//! descriptors, no thread to be had) leaves the waiter to its own looks.
//!
//! A wake changes no word, so a waiter that wakes asks the hint whether it [has
//! come](EndHint::has_come), and looks. A wake is lost on a waiter that is just about to sleep. So the
//! wakes are repeated, later and later, until the waiter has looked and taken its request back.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::fork::{Mutex, PerFork};

use super::{
    super::{DirectoryKey, sys::futex},
    map::Cell,
    slot::MappedSlot,
    word::OwnerId,
};

/// How long the thread stays that has nothing to watch.
const LINGER: Duration = Duration::from_secs(1);
/// After the first wake it is repeated, twice as late each time, so often.
const FIRST_REPEAT: Duration = Duration::from_millis(1);
const REPEATS: u32 = 8;

/// A process of a directory.
type Watched = (u64, u64, OwnerId);

/// A request to be woken when a process ends. Dropping it takes it back.
pub(super) struct EndHint {
    hints: &'static EndHints,
    watched: Watched,
    number: u64,
    ended: Arc<AtomicBool>,
}

/// What this process watches.
pub(super) struct EndHints {
    inner: Mutex<Inner>,
}

struct Inner {
    watched: BTreeMap<Watched, Process>,
    last: u64,
    /// Wakes the thread that serves this, if there is one.
    poke: Option<Arc<OwnedFd>>,
}

struct Process {
    pidfd: Arc<OwnedFd>,
    /// How often its waiters have been woken since it ended; `None` while it runs.
    woken: Option<u32>,
    /// The same, for the waiters: it has ended.
    ended: Arc<AtomicBool>,
    sleepers: Vec<EndSleeper>,
}

/// A thread that sleeps on a word.
struct EndSleeper {
    number: u64,
    slot: Cell<MappedSlot>,
    bits: NonZeroU32,
}

static HINTS: PerFork<EndHints> = PerFork::unset();

impl EndHints {
    const fn new() -> EndHints {
        let inner = Inner { watched: BTreeMap::new(), last: 0, poke: None };
        EndHints { inner: Mutex::new(inner) }
    }

    /// Has whichever thread sleeps on this slot with these bits woken when the process ends that
    /// has this pid, as far as that can be known here.
    pub(super) fn request(
        key: DirectoryKey,
        owner: OwnerId,
        pid: u32,
        slot: &Cell<MappedSlot>,
        bits: NonZeroU32,
    ) -> Option<EndHint> {
        let hints = HINTS.here(EndHints::new);
        let watched = (key.device, key.inode, owner);
        let mut inner = hints.inner.lock();
        if !inner.watched.contains_key(&watched) {
            let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
            let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty()).ok()?);
            hints.begin(&mut inner)?;
            let (ended, sleepers) = (Arc::default(), Vec::new());
            let process = Process { pidfd, woken: None, ended, sleepers };
            inner.watched.insert(watched, process);
            inner.poke();
        }
        inner.last += 1;
        let number = inner.last;
        let process = inner.watched.get_mut(&watched).expect("it was inserted");
        process.sleepers.push(EndSleeper { number, slot: slot.clone(), bits });
        let ended = process.ended.clone();
        Some(EndHint { hints, watched, number, ended })
    }

    /// Makes sure that a thread serves the requests.
    fn begin(&'static self, inner: &mut Inner) -> Option<()> {
        if inner.poke.is_some() {
            return Some(());
        }
        let poke = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?);
        let poked = poke.clone();
        let serve = move || self.serve(&poked);
        thread::Builder::new().name("tierlock-ends".into()).spawn(serve).ok()?;
        inner.poke = Some(poke);
        Some(())
    }

    fn serve(&self, poked: &OwnedFd) {
        let mut idle = false;
        loop {
            let mut inner = self.inner.lock();
            let repeat = inner.wake_all();
            if inner.watched.is_empty() && std::mem::replace(&mut idle, true) {
                inner.poke = None;
                return;
            }
            idle &= inner.watched.is_empty();
            // They stay open for as long as it sleeps on them: requests are taken back meanwhile.
            let running = inner.watched.iter().filter(|(_, process)| process.woken.is_none());
            let running = running.map(|(watched, process)| (*watched, process.pidfd.clone()));
            let running: Vec<(Watched, Arc<OwnedFd>)> = running.collect();
            drop(inner);
            self.sleep(poked, &running, repeat.or(idle.then_some(LINGER)));
        }
    }

    /// Until one of these ends, or it is poked, or this time is over.
    fn sleep(
        &self,
        poked: &OwnedFd,
        running: &[(Watched, Arc<OwnedFd>)],
        longest: Option<Duration>,
    ) {
        let descriptors = [poked.as_fd()].into_iter();
        let descriptors = descriptors.chain(running.iter().map(|(_, pidfd)| pidfd.as_fd()));
        let mut polled: Vec<PollFd<'_>> =
            descriptors.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
        match poll(&mut polled, longest.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // The waiters look by themselves.
            Err(_) => thread::sleep(LINGER),
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(poked, &mut count);
        let mut inner = self.inner.lock();
        let ended = polled[1..].iter().zip(running).filter(|(fd, _)| !fd.revents().is_empty());
        for (_, (watched, _)) in ended {
            if let Some(process) = inner.watched.get_mut(watched) {
                process.woken.get_or_insert(0);
                process.ended.store(true, SeqCst);
            }
        }
    }
}

impl Inner {
    fn poke(&self) {
        if let Some(poke) = &self.poke {
            // It can only fail for being poked already.
            let _ = rustix::io::write(poke, &1_u64.to_ne_bytes());
        }
    }

    /// Wakes the waiters for a process that has ended. After which time to do so again, if at all.
    fn wake_all(&mut self) -> Option<Duration> {
        let mut repeat = None;
        for process in self.watched.values_mut() {
            let Some(woken) = &mut process.woken else { continue };
            if *woken > REPEATS {
                continue;
            }
            for EndSleeper { slot, bits, .. } in &process.sleepers {
                futex::wake(&slot.word, *bits, u32::MAX >> 1);
            }
            let after = FIRST_REPEAT * (1 << *woken);
            repeat = Some(repeat.map_or(after, |other: Duration| other.min(after)));
            *woken += 1;
        }
        repeat
    }
}

impl EndHint {
    /// The process that it is about.
    pub(super) fn owner(&self) -> OwnerId {
        self.watched.2
    }

    /// Whether that process has ended, so that this was woken for it, or will be.
    pub(super) fn has_come(&self) -> bool {
        self.ended.load(SeqCst)
    }
}

impl Drop for EndHint {
    fn drop(&mut self) {
        // A forked child's copy is its parent's.
        if HINTS.so_far().is_none_or(|hints| !std::ptr::eq(hints, self.hints)) {
            return;
        }
        let mut inner = self.hints.inner.lock();
        let Some(process) = inner.watched.get_mut(&self.watched) else { return };
        process.sleepers.retain(|sleeper| sleeper.number != self.number);
        if process.sleepers.is_empty() {
            inner.watched.remove(&self.watched);
            inner.poke();
        }
    }
}
