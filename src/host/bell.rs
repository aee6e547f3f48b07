//! Sleeping on sockets, and being woken from another thread.
//!
//! It carries no data: a ring says only that there is something to look at.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    net::UdpSocket,
    sync::atomic::{AtomicU8, Ordering::*},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionbio,
};

/// No sleep is longer: the clock that the system sleeps on stops while the machine is suspended,
/// and ours does not.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// One thread sleeps on it, any thread rings it.
#[derive(Debug)]
pub(super) struct Bell {
    /// `AWAKE` → `ASLEEP` by the sleeper; either → `RUNG` by a ringer; back to `AWAKE` by the
    /// sleeper. Only a ringer that finds it `ASLEEP` writes to the pipe.
    state: AtomicU8,
    reader: PipeReader,
    writer: PipeWriter,
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const RUNG: u8 = 2;

impl Bell {
    pub(super) fn new() -> io::Result<Bell> {
        let (reader, writer) = io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        ioctl_fionbio(&writer, true)?;
        Ok(Bell { state: AtomicU8::new(AWAKE), reader, writer })
    }

    /// Ends the sleeper's sleep, or the next one before it begins.
    pub(super) fn ring(&self) {
        if self.state.swap(RUNG, AcqRel) == ASLEEP {
            // A full pipe has rung already.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// Sleeps until a socket has something to read (or, if its flag says so, room to write), the
    /// bell rings, or `limit` or [`LONGEST_SLEEP`] has passed. Whether it was a socket.
    pub(super) fn sleep<'a>(
        &self,
        sockets: impl Iterator<Item = (&'a UdpSocket, bool)>,
        limit: Duration,
    ) -> bool {
        // Rung already: no sleep, but a look at the sockets all the same. Else one who rings at
        // every turn would have nothing read for as long as he does.
        let is_asleep = self.state.compare_exchange(AWAKE, ASLEEP, AcqRel, Acquire).is_ok();
        let limit = if is_asleep { limit.min(LONGEST_SLEEP) } else { Duration::ZERO };
        let mut waits = vec![PollFd::new(&self.reader, PollFlags::IN)];
        waits.extend(sockets.map(|(socket, writable)| wait_for(socket, writable)));
        // An interrupted sleep is a short one.
        let _ = poll(&mut waits, Some(&timespec(limit)));
        // A ringer's byte may come late, and then cuts the next sleep short.
        if !waits[0].revents().is_empty() {
            let _ = (&self.reader).read(&mut [0; 8]);
        }
        let is_ready = waits[1..].iter().any(|wait| !wait.revents().is_empty());
        self.state.swap(AWAKE, AcqRel);
        is_ready
    }
}

fn wait_for(socket: &UdpSocket, writable: bool) -> PollFd<'_> {
    let flags = if writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    PollFd::new(socket, flags)
}

fn timespec(limit: Duration) -> Timespec {
    Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_or_during_sleep_ends_it_once() {
        let bell = Bell::new().unwrap();
        // Rung before: no sleep at all, so a thousand of them take no minute.
        for _ in 0..1000 {
            bell.ring();
            bell.ring();
            bell.sleep([].into_iter(), LONGEST_SLEEP);
            assert_eq!(bell.state.load(Relaxed), AWAKE);
        }
    }

    #[test]
    fn a_socket_is_seen_though_the_bell_was_rung() {
        let bell = Bell::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&[1], socket.local_addr().unwrap()).unwrap();
        bell.ring();
        assert!(bell.sleep([(&socket, false)].into_iter(), LONGEST_SLEEP));
    }

    #[test]
    fn a_ring_that_comes_late_ends_only_one_sleep() {
        let bell = Bell::new().unwrap();
        (&bell.writer).write_all(&[1]).unwrap();
        bell.sleep([].into_iter(), LONGEST_SLEEP);
        assert!((&bell.reader).read(&mut [0; 8]).is_err());
    }
}
