//! A network that can be cut: datagrams between one client and a leader pass through here, or do
//! not.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::*},
    },
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) struct Relay {
    address: SocketAddr,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Control {
    stop: AtomicBool,
    /// How many datagrams of a thousand are lost.
    loss: AtomicU32,
}

impl Relay {
    pub(super) fn to(leader: SocketAddr) -> Relay {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        front.set_nonblocking(true).unwrap();
        let (address, control) = (front.local_addr().unwrap(), Arc::new(Control::default()));
        let line = Line { front, leader, backs: Vec::new(), control: control.clone(), dice: 1 };
        let thread = thread::spawn(move || line.run());
        Relay { address, control, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on so many datagrams of a thousand are lost: all of them is a cut, none is none.
    pub(super) fn lose(&self, per_thousand: u32) {
        self.control.loss.store(per_thousand, Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.control.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Line {
    front: UdpSocket,
    leader: SocketAddr,
    /// A socket towards the leader for each one that the client has used.
    backs: Vec<(SocketAddr, UdpSocket)>,
    control: Arc<Control>,
    dice: u64,
}

impl Line {
    fn run(mut self) {
        const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let mut bytes = [0; 1 << 16];
        while !self.control.stop.load(Relaxed) {
            let sockets = self.backs.iter().map(|(_, back)| back).chain([&self.front]);
            let mut wanted: Vec<_> = sockets
                .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
                .collect();
            let _ = poll(&mut wanted, Some(&LOOK));
            drop(wanted);
            while let Some((length, client)) = received(self.front.recv_from(&mut bytes)) {
                if !self.loses() {
                    // What the system says of it is no matter: the network tells nobody.
                    let _ = self.back_of(client).send(&bytes[..length]);
                }
            }
            for index in 0..self.backs.len() {
                while let Some(length) = received(self.backs[index].1.recv(&mut bytes)) {
                    if !self.loses() {
                        let _ = self.front.send_to(&bytes[..length], self.backs[index].0);
                    }
                }
            }
        }
    }

    fn back_of(&mut self, client: SocketAddr) -> &UdpSocket {
        let known = self.backs.iter().position(|(known, _)| *known == client);
        let at = known.unwrap_or_else(|| {
            let back = UdpSocket::bind("127.0.0.1:0").unwrap();
            back.connect(self.leader).unwrap();
            back.set_nonblocking(true).unwrap();
            self.backs.push((client, back));
            self.backs.len() - 1
        });
        &self.backs[at].1
    }

    fn loses(&mut self) -> bool {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 33) % 1_000 < self.control.loss.load(Relaxed).into()
    }
}

/// What there is to receive. A leader that is not there makes an error now and then.
fn received<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Ok(received) => Some(received),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => None,
    }
}
