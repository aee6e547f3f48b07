//! A bad network: datagrams between one client and a leader pass through here, late, twice, in another
//! order, or not at all.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) struct Relay {
    address: SocketAddr,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Control {
    stop: AtomicBool,
    weather: Mutex<Weather>,
    /// How many datagrams were lost so far.
    lost: AtomicUsize,
}

/// What happens to datagrams; of a thousand, where it is not a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weather {
    /// Lost on the way to the leader, and on the way back.
    pub(super) lost: [u32; 2],
    /// How long each of them takes, both ways.
    pub(super) delay: Duration,
    pub(super) duplicated: u32,
    /// So many are overtaken by all that are sent within [`HELD_BACK`].
    pub(super) reordered: u32,
}

/// How much later than the others a datagram comes that is overtaken.
const HELD_BACK: Duration = Duration::from_millis(30);

impl Relay {
    pub(super) fn to(leader: SocketAddr) -> Relay {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        front.set_nonblocking(true).unwrap();
        let (address, control) = (front.local_addr().unwrap(), Arc::new(Control::default()));
        let line = Line {
            front,
            leader,
            backs: Vec::new(),
            control: control.clone(),
            dice: 1,
            under_way: BinaryHeap::new(),
            sent: 0,
        };
        let thread = thread::spawn(move || line.run());
        Relay { address, control, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens to what is sent.
    pub(super) fn set(&self, weather: Weather) {
        *self.control.weather.lock() = weather;
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
    under_way: BinaryHeap<Reverse<Datagram>>,
    /// How many have been under way, so that those of one time keep their order.
    sent: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    due: Instant,
    number: u64,
    way: Way,
    bytes: Vec<u8>,
}

/// Which way it goes, by the socket towards the leader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ToLeader(usize),
    ToClient(usize),
}

impl Line {
    fn run(mut self) {
        const LOOK: Duration = Duration::from_millis(20);
        let mut bytes = [0; 1 << 16];
        while !self.control.stop.load(Relaxed) {
            let next = self.under_way.peek().map(|Reverse(first)| first.due);
            let left = next.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()));
            let limit = Timespec { tv_sec: 0, tv_nsec: left.min(LOOK).as_nanos() as i64 };
            let sockets = self.backs.iter().map(|(_, back)| back).chain([&self.front]);
            let mut wanted: Vec<_> = sockets
                .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
                .collect();
            let _ = poll(&mut wanted, Some(&limit));
            drop(wanted);
            while let Some((length, client)) = received(self.front.recv_from(&mut bytes)) {
                let back = self.back_of(client);
                self.take(Way::ToLeader(back), &bytes[..length]);
            }
            for index in 0..self.backs.len() {
                while let Some(length) = received(self.backs[index].1.recv(&mut bytes)) {
                    self.take(Way::ToClient(index), &bytes[..length]);
                }
            }
            self.deliver();
        }
    }

    /// A datagram has come, and sets out on its way.
    fn take(&mut self, way: Way, bytes: &[u8]) {
        let Weather { lost: [up, down], delay, duplicated, reordered } =
            *self.control.weather.lock();
        let copies = 1 + usize::from(self.happens(duplicated));
        for _ in 0..copies {
            if self.happens(if matches!(way, Way::ToLeader(_)) { up } else { down }) {
                self.control.lost.fetch_add(1, Release);
                continue;
            }
            let held_back = if self.happens(reordered) { HELD_BACK } else { Duration::ZERO };
            self.sent += 1;
            let (due, number) = (Instant::now() + delay + held_back, self.sent);
            self.under_way.push(Reverse(Datagram { due, number, way, bytes: bytes.to_vec() }));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.under_way.peek().is_some_and(|Reverse(first)| first.due <= now) {
            let Some(Reverse(Datagram { way, bytes, .. })) = self.under_way.pop() else { return };
            // An error is ignored: a network reports none.
            let _ = match way {
                Way::ToLeader(back) => self.backs[back].1.send(&bytes),
                Way::ToClient(back) => self.front.send_to(&bytes, self.backs[back].0),
            };
        }
    }

    fn back_of(&mut self, client: SocketAddr) -> usize {
        let known = self.backs.iter().position(|(known, _)| *known == client);
        known.unwrap_or_else(|| {
            let back = UdpSocket::bind("127.0.0.1:0").unwrap();
            back.connect(self.leader).unwrap();
            back.set_nonblocking(true).unwrap();
            self.backs.push((client, back));
            self.backs.len() - 1
        })
    }

    fn happens(&mut self, per_thousand: u32) -> bool {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 33) % 1_000 < per_thousand.into()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A client, its relay, and where that leads.
    struct Ends {
        client: UdpSocket,
        relay: Relay,
        leader: UdpSocket,
    }

    impl Ends {
        fn new(weather: Weather) -> Ends {
            let [client, leader] = [(), ()].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            let relay = Relay::to(leader.local_addr().unwrap());
            client.connect(relay.address()).unwrap();
            relay.set(weather);
            Ends { client, relay, leader }
        }

        fn send(&self, number: u8) {
            self.client.send(&[number]).unwrap();
        }

        /// What arrives at the leader, up to this one.
        fn arrive_until(&self, last: u8) -> Vec<u8> {
            let mut arrived = Vec::new();
            let mut bytes = [0; 1];
            while arrived.last() != Some(&last) {
                self.leader.recv(&mut bytes).unwrap();
                arrived.push(bytes[0]);
            }
            arrived
        }
    }

    #[test]
    fn a_relay_passes_on_as_it_comes_until_it_is_told_otherwise() {
        let ends = Ends::new(Weather::default());
        (0..50).for_each(|number| ends.send(number));
        assert_eq!(ends.arrive_until(49), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_relay_duplicates() {
        let ends = Ends::new(Weather { duplicated: 1_000, ..Weather::default() });
        ends.send(1);
        ends.send(2);
        assert_eq!(ends.arrive_until(2), [1, 1, 2]);
    }

    #[test]
    fn a_relay_lets_later_ones_overtake() {
        let ends = Ends::new(Weather { reordered: 500, ..Weather::default() });
        (0..50).for_each(|number| ends.send(number));
        let mut arrived = Vec::new();
        let mut bytes = [0; 1];
        while arrived.len() < 50 {
            ends.leader.recv(&mut bytes).unwrap();
            arrived.push(bytes[0]);
        }
        assert!(!arrived.is_sorted(), "{arrived:?}");
        arrived.sort_unstable();
        assert_eq!(arrived, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_relay_delays() {
        let delay = Duration::from_millis(40);
        let ends = Ends::new(Weather { delay, ..Weather::default() });
        let start = Instant::now();
        ends.send(1);
        assert_eq!(ends.arrive_until(1), [1]);
        assert!(start.elapsed() >= delay);
    }

    #[test]
    fn a_relay_loses_one_way() {
        for lost in [[0, 1_000], [1_000, 0]] {
            let ends = Ends::new(Weather::default());
            ends.send(1);
            let mut bytes = [0; 1];
            let (_, relay) = ends.leader.recv_from(&mut bytes).unwrap();
            ends.relay.set(Weather { lost, ..Weather::default() });
            ends.send(2);
            ends.leader.send_to(&[3], relay).unwrap();
            if lost[0] == 0 {
                assert_eq!(ends.arrive_until(2), [2]);
            } else {
                ends.client.recv(&mut bytes).unwrap();
                assert_eq!(bytes, [3]);
            }
            // The other one is lost on its way, and not on its way still.
            while ends.relay.control.lost.load(Acquire) == 0 {
                thread::yield_now();
            }
            // Only what is sent from now on arrives at both.
            ends.relay.set(Weather::default());
            ends.send(4);
            assert_eq!(ends.arrive_until(4), [4]);
            ends.leader.send_to(&[5], relay).unwrap();
            ends.client.recv(&mut bytes).unwrap();
            assert_eq!(bytes, [5]);
        }
    }
}
