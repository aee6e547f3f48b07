use std::{net::UdpSocket, thread};

use super::*;
use crate::{host::tests::Town, proto::client::Ended};

/// The kernel says so in the place of a datagram, and once.
#[test]
fn that_a_leaders_address_is_refused_is_news() {
    let town = Town::new();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut ports = Ports::default();
    let keys = town.secret().into();
    let id = ports.connect(1, address, &keys, Duration::from_secs(5)).unwrap();
    ports.transmit();
    let begin = Instant::now();
    while !ports.receive() {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "it is not noticed before it is asked for"
        );
        thread::yield_now();
    }
    let Some((1, ended, PortEvent::Ended(_, Ended::NotThere(_)))) = ports.poll_event() else {
        panic!("nothing listens there");
    };
    assert_eq!(ended, id);
    assert!(ports.poll_event().is_none());
    assert!(!ports.receive());
}
