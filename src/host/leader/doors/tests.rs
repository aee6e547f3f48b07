use std::{collections::BTreeSet, net::UdpSocket, time::Duration};

use super::*;
use crate::host::net::{
    admission::Admission,
    own_id::OwnId,
    tls::{Dialect, Secret},
};

fn entrance() -> Entrance {
    let secret = Secret::from_secrets(&[[1; 32]]);
    Entrance {
        accepted: secret.into(),
        own: OwnId::random(),
        admission: Admission::new(100, 100),
        dialects: &[Dialect::Locks],
    }
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_leader_is_reached_at_every_address_of_its_name_under_one_port_number() {
    let entrance = entrance();
    // The second is of a network for documentation: no machine has it.
    let all = addresses(&["127.0.0.1:0", "192.0.2.1:0", "127.0.0.2:0"]);
    let mut doors = Doors::open(&all, &entrance).unwrap();
    let opened = doors.addresses().unwrap();
    let port = opened[0].port();
    assert_ne!(port, 0);
    let expected = ["127.0.0.1", "127.0.0.2"].map(|host| format!("{host}:{port}"));
    assert_eq!(opened, addresses(&[&expected[0], &expected[1]]));
    let connect = |number: usize, address| {
        let id = ConnectionId(number as u64);
        Port::connect(
            id,
            address,
            &entrance.accepted.secret.clone().into(),
            Duration::from_secs(30),
        )
        .unwrap()
    };
    let mut clients: Vec<_> = (0..4).map(|n| connect(n, opened[n % 2])).collect();
    let mut connected = BTreeSet::new();
    let begin = Instant::now();
    while connected.len() < clients.len() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{connected:?}");
        doors.receive();
        while let Some(event) = doors.poll_event() {
            let PortEvent::Connected(id, _) = event else { panic!("{event:?}") };
            assert!(connected.insert(id), "{id:?} is a number of two");
            // Each port knows its own.
            assert!(
                doors.unsent(id) == 0
                    && doors.read::<crate::proto::wire::ClientMessage>(id).is_none()
            );
        }
        doors.transmit();
        for client in &mut clients {
            client.receive();
            client.transmit();
        }
    }
    assert_eq!(connected.iter().map(|id| id.0 % 3).collect::<BTreeSet<_>>(), [0, 1].into());
}

#[test]
fn an_address_that_is_in_use_or_nowhere_is_an_error() {
    let entrance = entrance();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let error = Doors::open(&[taken], &entrance).map(drop).unwrap_err();
    assert!(error.kind() == io::ErrorKind::AddrInUse, "{error}");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    let error = Doors::open(&addresses(&["192.0.2.1:0"]), &entrance).map(drop).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
}
