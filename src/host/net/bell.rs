//! Sleeping on sockets, and being woken from another thread.
//!
//! It carries no data: a ring says only that there is something to look at.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::*},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::{event::Timespec, io::ioctl_fionbio};

use super::patience::{PollPatience, look_again};
use wait::SocketWaiter;

/// No sleep is longer: the clock that the system sleeps on stops while the machine is suspended,
/// and ours does not.
pub(in crate::host) const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// One thread sleeps on it, any thread rings it.
#[derive(Debug)]
pub(in crate::host) struct Bell {
    /// `AWAKE` → `ASLEEP` by the sleeper; either → `RUNG` by a ringer; back to `AWAKE` by the
    /// sleeper. Only a ringer that finds it `ASLEEP` writes to the pipe.
    state: AtomicU8,
    bed: SocketBed,
    /// The sleeper's.
    patience: Mutex<PollPatience>,
}

/// Sockets, and a pipe by which a sleeper on them is woken: for one that says itself when it sleeps.
#[derive(Debug)]
pub(in crate::host) struct SocketBed {
    reader: PipeReader,
    writer: PipeWriter,
    waiter: SocketWaiter,
}

/// A socket, and whether room to write is waited for as well.
pub(in crate::host) type Slept = (Arc<UdpSocket>, bool);

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const RUNG: u8 = 2;

impl Bell {
    pub(in crate::host) fn new() -> io::Result<Bell> {
        let patience = Mutex::new(PollPatience::new());
        Ok(Bell { state: AtomicU8::new(AWAKE), bed: SocketBed::new()?, patience })
    }

    /// Ends the sleeper's sleep, or the next one before it begins.
    pub(in crate::host) fn ring(&self) {
        if self.state.swap(RUNG, AcqRel) == ASLEEP {
            self.bed.wake();
        }
    }

    /// Sleeps until a socket has something to read (or, if its flag says so, room to write), the
    /// bell rings, or `limit` or [`LONGEST_SLEEP`] has passed. Whether it was a socket.
    ///
    /// A caller that was answered soon before looks for a while before it sleeps; see [`PollPatience`].
    pub(in crate::host) fn sleep(&self, sockets: &[Slept], limit: Duration) -> bool {
        self.sleep_or_hear(sockets, limit, || self.bed.sleep(sockets, Duration::ZERO))
    }

    /// The same for a sleeper that reads its sockets itself while it looks, which saves a look for
    /// each: `hear` reads them, and says whether anything came.
    pub(in crate::host) fn sleep_or_hear(
        &self,
        sockets: &[Slept],
        limit: Duration,
        mut hear: impl FnMut() -> bool,
    ) -> bool {
        let begin = Instant::now();
        let looks = self.patience.lock().looks(begin).min(limit);
        let mut now = begin;
        let mut is_ready = false;
        while now - begin < looks && self.state.load(Relaxed) != RUNG {
            is_ready = hear();
            if is_ready {
                break;
            }
            let Some(later) = look_again(&self.patience, PollPatience::cpus) else { break };
            now = later;
        }
        if !is_ready {
            let limit = limit.saturating_sub(begin.elapsed());
            is_ready = self.sleep_at_once(sockets, limit);
        }
        // A short wait that nothing ended says nothing about how soon peers answer.
        if is_ready || limit > PollPatience::LONGEST {
            self.patience.lock().waited(looks, begin.elapsed());
        }
        is_ready
    }

    fn sleep_at_once(&self, sockets: &[Slept], limit: Duration) -> bool {
        // Rung already: no sleep, but a look at the sockets all the same. Else a caller that rings
        // at every turn would have nothing read for as long as it does.
        let is_asleep = self.state.compare_exchange(AWAKE, ASLEEP, AcqRel, Acquire).is_ok();
        let limit = if is_asleep { limit.min(LONGEST_SLEEP) } else { Duration::ZERO };
        let is_ready = self.bed.sleep(sockets, limit);
        self.state.swap(AWAKE, AcqRel);
        is_ready
    }
}

impl SocketBed {
    pub(in crate::host) fn new() -> io::Result<SocketBed> {
        let (reader, writer) = io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        ioctl_fionbio(&writer, true)?;
        let waiter = SocketWaiter::new(&reader)?;
        Ok(SocketBed { reader, writer, waiter })
    }

    /// Ends the sleeper's sleep, or the next one.
    pub(in crate::host) fn wake(&self) {
        // A full pipe has a byte already.
        let _ = (&self.writer).write(&[1]);
    }

    /// Until a socket is ready, the pipe has a byte, or `limit` has passed; whether one is ready.
    pub(in crate::host) fn sleep(&self, sockets: &[Slept], limit: Duration) -> bool {
        let (is_rung, is_ready) = self.waiter.wait(&self.reader, sockets, timespec(limit));
        // A ringer's byte may come late, and then cuts the next sleep short.
        if is_rung {
            let _ = (&self.reader).read(&mut [0; 8]);
        }
        is_ready
    }
}

fn timespec(limit: Duration) -> Timespec {
    Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() }
}

/// Sleeping itself: whether the bell's pipe has a byte, and whether a socket is ready. An interrupted
/// sleep is a short one.
#[cfg(not(target_os = "linux"))]
mod wait {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[derive(Debug)]
    pub(in crate::host) struct SocketWaiter;

    impl SocketWaiter {
        pub(in crate::host) fn new(_: &PipeReader) -> io::Result<SocketWaiter> {
            Ok(SocketWaiter)
        }

        pub(in crate::host) fn wait(
            &self,
            bell: &PipeReader,
            sockets: &[Slept],
            limit: Timespec,
        ) -> (bool, bool) {
            let mut waits = vec![PollFd::new(bell, PollFlags::IN)];
            waits.extend(sockets.iter().map(|(socket, writable)| {
                let room = if *writable { PollFlags::OUT } else { PollFlags::empty() };
                PollFd::new(socket, PollFlags::IN | room)
            }));
            let _ = poll(&mut waits, Some(&limit));
            let mut ready = waits.iter().map(|wait| !wait.revents().is_empty());
            (ready.next().unwrap_or(false), ready.any(|is_ready| is_ready))
        }
    }
}

/// The same by epoll, which the kernel need not tell at every sleep what to watch.
#[cfg(target_os = "linux")]
mod wait {
    use std::os::fd::OwnedFd;

    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

    use super::*;

    #[derive(Debug)]
    pub(in crate::host) struct SocketWaiter {
        epoll: OwnedFd,
        /// What it watches besides the bell. Open while it is watched, so that a number stands
        /// for one socket.
        watched: Mutex<Vec<Slept>>,
    }

    const BELL: u64 = 0;
    const SOCKET: u64 = 1;

    impl SocketWaiter {
        pub(in crate::host) fn new(bell: &PipeReader) -> io::Result<SocketWaiter> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, bell, EventData::new_u64(BELL), EventFlags::IN)?;
            Ok(SocketWaiter { epoll, watched: Mutex::default() })
        }

        pub(in crate::host) fn wait(
            &self,
            _: &PipeReader,
            sockets: &[Slept],
            limit: Timespec,
        ) -> (bool, bool) {
            let mut watched = self.watched.lock();
            if !is_same(&watched, sockets) {
                self.watch(&mut watched, sockets);
            }
            // What cannot be watched is looked at every now and then.
            let is_blind = watched.len() < sockets.len();
            let limit = if is_blind { timespec(Duration::from_millis(1)) } else { limit };
            drop(watched);
            const NOTHING: Event =
                Event { flags: EventFlags::empty(), data: EventData::new_u64(BELL) };
            let mut events = [NOTHING; 8];
            let count = epoll::wait(&self.epoll, &mut events, Some(&limit)).unwrap_or(0);
            let is_from = |from| events[..count].iter().any(|event| event.data.u64() == from);
            (is_from(BELL), is_from(SOCKET) || is_blind)
        }

        /// The next sleep is on these.
        fn watch(&self, watched: &mut Vec<Slept>, sockets: &[Slept]) {
            for (socket, _) in watched.drain(..) {
                let _ = epoll::delete(&self.epoll, &socket);
            }
            for (socket, writable) in sockets {
                let room = if *writable { EventFlags::OUT } else { EventFlags::empty() };
                let data = EventData::new_u64(SOCKET);
                if epoll::add(&self.epoll, socket, data, EventFlags::IN | room).is_ok() {
                    watched.push((socket.clone(), *writable));
                }
            }
        }
    }
}

/// Whether they are the same sockets, waited for in the same way.
pub(in crate::host) fn is_same(left: &[Slept], right: &[Slept]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| Arc::ptr_eq(&left.0, &right.0) && left.1 == right.1)
}

#[cfg(test)]
mod tests;
