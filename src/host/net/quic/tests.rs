use super::{
    super::admission::Admitted,
    config::{INITIAL_RTT, LEADER_RECEIVE_WINDOW, LEADER_SEND_WINDOW},
    *,
};
use crate::host::net::{credential::CredentialPurpose, tls::Secret};
use crate::proto::{
    ClusterId,
    wire::{ClientMessage, LeaderMessage, MemberMessage},
};

const SILENCE: Duration = Duration::from_secs(5);

fn secret() -> Secret {
    let directory = tempfile::tempdir().unwrap();
    Secret::create(directory.path().join("key")).unwrap()
}

const IDS: Ids = Ids { next: 0, step: 1 };

fn entrance(secret: &Secret, admission: Admission) -> Entrance {
    Entrance {
        accepted: secret.into(),
        own: OwnId::random(),
        admission,
        dialects: &[Dialect::Locks],
    }
}

/// A message of a leader that is as long as the test wants.
fn not_leader(try_next: Option<String>) -> LeaderMessage {
    LeaderMessage::NotLeader { try_next, cluster: ClusterId(1), epoch: None }
}

fn listen(secret: &Secret) -> (Port, SocketAddr) {
    listen_with(secret, Admission::new(1_000, HANDSHAKES_MAX))
}

fn listen_with(secret: &Secret, admission: Admission) -> (Port, SocketAddr) {
    let any = "127.0.0.1:0".parse().unwrap();
    let port = Port::listen(any, &entrance(secret, admission), IDS).unwrap();
    let address = port.socket().local_addr().unwrap();
    (port, address)
}

/// So many connections of another client, in their handshakes.
fn others(leader: &Port, count: usize) -> Vec<Admitted> {
    let other = client_at("192.0.2.1:7420".parse().unwrap());
    (0..count).map(|_| leader.admission.admit(other)).collect()
}

fn handshakes(port: &Port) -> usize {
    port.admission.taken().1
}

fn connect(number: u64, address: SocketAddr, secret: &Secret) -> Port {
    Port::connect(ConnectionId(number), address, &secret.clone().into(), SILENCE).unwrap()
}

/// Drives ports in turn until `done` says so of an event, which it is shown with its port.
fn drive(ports: &mut [&mut Port], done: impl FnMut(usize, PortEvent, &mut Port) -> bool) {
    drive_over(|| {}, ports, done);
}

/// The same over a path that carries what is between them.
fn drive_over(
    mut carry: impl FnMut(),
    ports: &mut [&mut Port],
    mut done: impl FnMut(usize, PortEvent, &mut Port) -> bool,
) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        carry();
        for (index, port) in ports.iter_mut().enumerate() {
            port.receive();
            while let Some(event) = port.poll_event() {
                if done(index, event, port) {
                    return;
                }
            }
            port.transmit();
        }
        std::thread::yield_now();
    }
    panic!("it did not happen in 30 s");
}

fn renew(number: u64) -> ClientMessage {
    ClientMessage::Renew { sent_at: crate::time::Time::from_nanos(number) }
}

#[test]
fn frames_go_both_ways_between_peers_that_share_a_secret() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    let mut received = Vec::new();
    drive(&mut [&mut leader, &mut client], |index, event, port| match (index, event) {
        (1, PortEvent::Connected(id, _)) => {
            (0..1000).for_each(|number| port.write(id, &renew(number)));
            false
        }
        (0, PortEvent::Readable(id)) => {
            received.extend(std::iter::from_fn(|| port.read::<ClientMessage>(id)));
            if received.len() == 1000 {
                port.write(id, &not_leader(None));
            }
            false
        }
        (1, PortEvent::Readable(id)) => {
            let answer = port.read::<LeaderMessage>(id);
            assert_eq!(answer, Some(not_leader(None)));
            true
        }
        (_, PortEvent::Ended(_, ended)) => panic!("{ended:?}"),
        _ => false,
    });
    assert!(received.into_iter().eq((0..1000).map(renew)));
}

#[test]
fn a_time_that_every_packet_puts_off_ends_no_sleep_early() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    let (mut asked, mut put_off) = (0, 0);
    drive(&mut [&mut leader, &mut client], |index, event, port| match (index, event) {
        (1, PortEvent::Connected(id, _) | PortEvent::Readable(id)) => {
            while port.read::<LeaderMessage>(id).is_some() {}
            asked += 1;
            port.write(id, &renew(asked));
            port.transmit();
            let first = port.timers.peek().map(|Reverse((at, _))| *at);
            let timeout = port.timeout();
            let connection = port.connection_mut(id).expect("it is connected");
            assert_eq!(timeout, connection.inner.poll_timeout());
            put_off += u64::from(first < timeout);
            asked == 1000
        }
        (0, PortEvent::Readable(id)) => {
            while port.read::<ClientMessage>(id).is_some() {
                port.write(id, &not_leader(None));
            }
            false
        }
        (_, PortEvent::Ended(_, ended)) => panic!("{ended:?}"),
        _ => false,
    });
    assert!(put_off > 100, "{put_off} of {asked}");
}

/// How much of a MiB the connection's stream takes before anything of it is acknowledged.
fn taken_at_once(port: &mut Port, id: ConnectionId) -> Option<usize> {
    let connection = port.connection_mut(id).unwrap();
    let stream = connection.stream.unwrap();
    connection.inner.send_stream(stream).write(&[0; 1 << 20]).ok()
}

#[test]
fn a_client_may_send_a_leader_no_more_than_a_window_ahead() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    let mut taken = None;
    drive(&mut [&mut leader, &mut client], |index, event, port| {
        if let (1, PortEvent::Connected(id, _)) = (index, event) {
            taken = taken_at_once(port, id);
        }
        taken.is_some()
    });
    assert_eq!(taken, Some(LEADER_RECEIVE_WINDOW as usize));
}

#[test]
fn a_lost_first_packet_is_sent_again_soon() {
    let secret = secret();
    let (leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    client.transmit();
    // No leader reads it. The client itself says when it tries again.
    let again = client.timeout().unwrap();
    assert!(again <= Instant::now() + 3 * INITIAL_RTT);
    drop(leader);
}

#[test]
fn no_peer_with_another_secret_gets_past_the_handshake() {
    let (mut leader, address) = listen(&secret());
    let mut client = connect(1, address, &secret());
    let (mut is_told, mut is_refused) = (false, false);
    drive(&mut [&mut leader, &mut client], |index, event, _| {
        match (index, event) {
            (_, PortEvent::Connected(..)) => panic!("the handshake was passed"),
            (1, PortEvent::Ended(_, Ended::Refused(text))) => {
                assert!(text.contains("another secret"), "{text}");
                is_refused = true;
            }
            (1, PortEvent::Ended(_, other)) => panic!("{other:?}"),
            // The client has refused the leader's key, and says so.
            (0, PortEvent::TurnedAway(client, why)) => {
                assert_eq!(why, TurnedAway::OtherSecret);
                is_told = client == client_at(address);
            }
            _ => {}
        }
        is_told && is_refused
    });
    assert!(leader.shared.handles.len() <= 1);
}

#[test]
fn a_client_that_believes_any_leader_still_has_to_prove_itself() {
    let (secret, other) = (secret(), secret());
    let (mut leader, address) = listen(&secret);
    let handshake = other.client_that_trusts(&secret);
    let id = ConnectionId(1);
    let here = std::net::Ipv4Addr::UNSPECIFIED.into();
    let mut client = Port::connect_from(here, id, address, handshake, SILENCE).unwrap();
    let (mut is_told, mut is_refused) = (false, false);
    drive(&mut [&mut leader, &mut client], |index, event, _| {
        match (index, event) {
            (0, PortEvent::Connected(..) | PortEvent::Readable(_)) => panic!("a peer was let in"),
            (0, PortEvent::TurnedAway(_, why)) => {
                assert_eq!(why, TurnedAway::OtherSecret);
                is_told = true;
            }
            (1, PortEvent::Ended(_, ended)) => {
                assert!(matches!(ended, Ended::Refused(_)), "{ended:?}");
                is_refused = true;
            }
            _ => {}
        }
        is_told && is_refused
    });
}

/// A client of another release, or a program that has nothing to do with locks.
#[test]
fn a_peer_that_speaks_another_protocol_is_not_taken_for_one_with_another_secret() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let handshake = secret.handshake(&CredentialPurpose::Member, Dialect::Group, &secret);
    let here = std::net::Ipv4Addr::UNSPECIFIED.into();
    let mut peer = Port::connect_from(here, ConnectionId(1), address, handshake, SILENCE).unwrap();
    let (mut is_told, mut is_refused) = (false, false);
    drive(&mut [&mut leader, &mut peer], |index, event, _| {
        match (index, event) {
            (0, PortEvent::Connected(..)) => panic!("a peer was let in"),
            (0, PortEvent::TurnedAway(_, why)) => {
                assert_eq!(why, TurnedAway::OtherProtocol);
                is_told = true;
            }
            (1, PortEvent::Ended(_, Ended::Disconnected(text))) => {
                assert!(text.contains("no tierlock leader of this version"), "{text}");
                is_refused = true;
            }
            (1, PortEvent::Ended(_, ended)) => panic!("{ended:?}"),
            _ => {}
        }
        is_told && is_refused
    });
}

#[test]
fn where_nothing_listens_an_attempt_ends_at_once() {
    let secret = secret();
    let (leader, address) = listen(&secret);
    drop(leader);
    let mut client = connect(1, address, &secret);
    drive(&mut [&mut client], |_, event, _| match event {
        PortEvent::Ended(_, Ended::NotThere(text)) => {
            assert!(text.contains("nothing listens"), "{text}");
            true
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_malformed_frame_ends_its_connection_and_no_other() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut good = connect(1, address, &secret);
    let mut bad = connect(2, address, &secret);
    let (mut bad_ended, mut good_frames) = (false, 0);
    let mut ports = [&mut leader, &mut good, &mut bad];
    drive(&mut ports, |index, event, port| {
        match (index, event) {
            (1, PortEvent::Connected(id, _)) => port.write(id, &renew(1)),
            (2, PortEvent::Connected(id, _)) => {
                // A frame that says it is longer than any may be.
                let connection = port.connection_mut(id).unwrap();
                connection.out.extend_from_slice(&u32::MAX.to_le_bytes());
                port.write(id, &renew(2));
            }
            (0, PortEvent::Readable(id)) => {
                while let Some(message) = port.read::<ClientMessage>(id) {
                    assert_eq!(message, renew(1));
                    good_frames += 1;
                    port.write(id, &not_leader(None));
                }
            }
            (1, PortEvent::Readable(id)) => {
                while port.read::<LeaderMessage>(id).is_some() {}
                if !bad_ended || good_frames < 10 {
                    port.write(id, &renew(1));
                }
            }
            (2, PortEvent::Ended(_, Ended::Disconnected(text))) => {
                assert!(text.contains("65536"), "{text}");
                bad_ended = true;
            }
            (1, PortEvent::Ended(_, ended)) => panic!("{ended:?}"),
            _ => {}
        }
        bad_ended && good_frames >= 10
    });
}

// With quinn's defaults a client notices after 30 s.
#[test]
fn a_client_notices_a_restarted_leader_by_its_next_frame() {
    let secret = secret();
    let entrance = entrance(&secret, Admission::new(1_000, HANDSHAKES_MAX));
    let mut leader = Port::listen("127.0.0.1:0".parse().unwrap(), &entrance, IDS).unwrap();
    let address = leader.socket().local_addr().unwrap();
    let mut client = connect(1, address, &secret);
    // The leader's answer confirms the handshake. A client without that goes on proving itself, with
    // packets that a restarted leader has no answer to, and notices by the silence.
    drive(&mut [&mut leader, &mut client], |index, event, port| match (index, event) {
        (1, PortEvent::Connected(id, _)) => {
            port.write(id, &renew(1));
            false
        }
        (0, PortEvent::Readable(id)) => {
            while port.read::<ClientMessage>(id).is_some() {
                port.write(id, &not_leader(None));
            }
            false
        }
        (1, PortEvent::Readable(id)) => port.read::<LeaderMessage>(id).is_some(),
        (_, PortEvent::Ended(_, ended)) => panic!("{ended:?}"),
        _ => false,
    });
    drop(leader);
    let mut leader = Port::listen(address, &entrance, IDS).unwrap();
    client.write(ConnectionId(1), &renew(1));
    drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
        (1, PortEvent::Ended(_, Ended::Disconnected(text))) => {
            assert!(text.contains("was restarted"), "{text}");
            true
        }
        _ => false,
    });
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    let mut connection = None;
    drive(&mut [&mut leader, &mut client], |index, event, _| {
        if let (0, PortEvent::Connected(id, _)) = (index, event) {
            connection = Some(id);
        }
        connection.is_some()
    });
    let connection = connection.unwrap();
    let long = not_leader(Some("x".repeat(60_000)));
    for _ in 0..UNSENT_BYTES_MAX / 60_000 + 2 {
        leader.write(connection, &long);
    }
    let end = std::iter::from_fn(|| leader.poll_event()).last();
    assert!(matches!(end, Some(PortEvent::Ended(id, _)) if id == connection), "{end:?}");
    // QUIC has yet to close it, and what it was not sent is gone.
    let kept: Vec<_> =
        leader.connections.iter().flatten().map(|connection| connection.out.capacity()).collect();
    assert_eq!(kept, [0]);
}

#[test]
fn what_was_said_before_a_close_is_read_before_the_end() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    let mut words = 0;
    drive(&mut [&mut leader, &mut client], |index, event, port| {
        match (index, event) {
            (1, PortEvent::Connected(id, _)) => port.write(id, &renew(1)),
            (0, PortEvent::Readable(id)) => {
                port.write(id, &not_leader(None));
                port.close(id, CloseCode::Shutdown, "the leader was stopped");
            }
            (1, PortEvent::Readable(id)) => {
                words += std::iter::from_fn(|| port.read::<LeaderMessage>(id)).count();
            }
            (1, PortEvent::Ended(..)) => {
                assert_eq!(words, 1);
                return true;
            }
            _ => {}
        }
        false
    });
}

#[test]
fn what_was_said_before_a_close_is_read_behind_a_kind_that_is_not_known() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    let mut said = Vec::new();
    drive(&mut [&mut leader, &mut client], |index, event, port| {
        match (index, event) {
            (1, PortEvent::Connected(id, _)) => {
                let handle = port.shared.handles[&id];
                let connection = port.connections[handle.0].as_mut().unwrap();
                // The length, kind 200, request 7.
                connection.out.extend_from_slice(&[2, 0, 0, 0, 200, 7]);
                port.write(id, &renew(1));
                port.close(id, CloseCode::Shutdown, "it has said all");
            }
            (0, PortEvent::Ended(id, _)) => {
                said.extend(std::iter::from_fn(|| port.read::<ClientMessage>(id)));
                return true;
            }
            _ => {}
        }
        false
    });
    assert_eq!(said, [renew(1)]);
}

#[test]
fn a_handshake_that_succeeds_after_it_was_given_up_is_counted_out_once() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    // As if an earlier attempt had found no leader there.
    client.trouble(&io::ErrorKind::ConnectionRefused.into());
    assert_eq!(handshakes(&client), 0);
    drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
        (0, PortEvent::Connected(..)) => true,
        (1, PortEvent::Connected(..)) => panic!("it was given up"),
        _ => false,
    });
    // What the leader sent last may still be under way.
    while client.connections.iter().flatten().any(|connection| connection.inner.is_handshaking()) {
        client.receive();
        client.transmit();
        leader.receive();
        leader.transmit();
    }
    assert!(client.poll_event().is_none());
    assert_eq!((handshakes(&client), handshakes(&leader)), (0, 0));
}

/// The first frames of a peer that never says more.
fn knock(leader: &mut Port, address: SocketAddr) -> Port {
    let before = handshakes(leader);
    let mut peer = connect(1, address, &secret());
    peer.transmit();
    while handshakes(leader) == before {
        leader.receive();
    }
    peer
}

#[test]
fn peers_that_stall_their_handshakes_are_closed() {
    let (mut leader, address) = listen(&secret());
    let peers = [(); 10].map(|()| knock(&mut leader, address));
    let begin = Instant::now();
    assert_eq!(handshakes(&leader), peers.len());
    assert!(leader.timeout().is_some_and(|at| at <= begin + HANDSHAKE_LIMIT));
    leader.end_stalled(begin + HANDSHAKE_LIMIT);
    assert_eq!(handshakes(&leader), 0);
    assert!(leader.stalls.is_empty());
    let ended = std::iter::from_fn(|| leader.poll_event());
    assert_eq!(ended.filter(|event| matches!(event, PortEvent::Ended(..))).count(), 10);
}

#[test]
fn unfinished_handshakes_take_memory_for_the_last_of_them_only() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let peers = [(); UNFINISHED_MAX + 10].map(|()| knock(&mut leader, address));
    leader.end_stalled(Instant::now() + HANDSHAKE_LIMIT);
    assert_eq!(leader.endpoint.open_connections(), peers.len());
    // They are told first.
    leader.transmit();
    leader.transmit();
    assert_eq!(leader.endpoint.open_connections(), UNFINISHED_MAX);
    assert_eq!(leader.connections.iter().flatten().count(), UNFINISHED_MAX);
    // The next client takes what they had.
    let mut client = connect(99, address, &secret);
    drive(&mut [&mut leader, &mut client], |index, event, _| {
        matches!((index, event), (0, PortEvent::Connected(..)))
    });
}

#[test]
fn a_client_beyond_the_connections_allowed_may_try_again() {
    let secret = secret();
    let (mut leader, address) = listen_with(&secret, Admission::new(1, HANDSHAKES_MAX));
    let mut first = connect(1, address, &secret);
    drive(&mut [&mut leader, &mut first], |index, event, _| {
        matches!((index, event), (0, PortEvent::Connected(..)))
    });
    let mut second = connect(2, address, &secret);
    drive(&mut [&mut leader, &mut first, &mut second], |index, event, _| match (index, event) {
        (2, PortEvent::Ended(_, Ended::Disconnected(text))) => {
            assert!(text.contains("--sessions-max"), "{text}");
            true
        }
        (0 | 2, other) => panic!("{other:?}"),
        _ => false,
    });
    assert_eq!(leader.endpoint.open_connections(), 1);
}

#[test]
fn a_leader_has_no_more_on_its_way_to_a_client_than_a_window() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut client = connect(1, address, &secret);
    let mut taken = None;
    drive(&mut [&mut leader, &mut client], |index, event, port| {
        match (index, event) {
            (1, PortEvent::Connected(id, _)) => port.write(id, &renew(1)),
            (0, PortEvent::Readable(id)) => taken = taken_at_once(port, id),
            _ => {}
        }
        taken.is_some()
    });
    assert_eq!(taken, Some(LEADER_SEND_WINDOW as usize));
}

#[test]
fn a_client_beyond_the_handshakes_allowed_may_try_again() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let _others = others(&leader, HANDSHAKES_MAX);
    let mut client = connect(1, address, &secret);
    drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
        (1, PortEvent::Ended(_, Ended::Disconnected(_))) => true,
        (_, other) => panic!("{other:?}"),
    });
    assert_eq!(leader.endpoint.open_connections(), 0);
}

#[test]
fn with_many_handshakes_under_way_an_address_is_proved_before_it_costs_anything() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let _others = others(&leader, 64);
    // A relay in between, which sees what goes by.
    let between = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut client = connect(1, between.local_addr().unwrap(), &secret);
    client.transmit();
    let mut bytes = [0; 1 << 16];
    let (length, _) = between.recv_from(&mut bytes).unwrap();
    between.send_to(&bytes[..length], address).unwrap();
    between.set_nonblocking(true).unwrap();
    let begin = Instant::now();
    let length = loop {
        leader.receive();
        leader.transmit();
        if let Ok((length, _)) = between.recv_from(&mut bytes) {
            break length;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "it says nothing");
    };
    // RFC 9000, 17.2.5: a Retry.
    assert_eq!(bytes[0] & 0xf0, 0xf0, "{:?}", &bytes[..length]);
    assert_eq!(leader.endpoint.open_connections(), 0);
    // A client that has one goes on.
    let mut client = connect(2, address, &secret);
    drive(&mut [&mut leader, &mut client], |index, event, _| {
        matches!((index, event), (0, PortEvent::Connected(..)))
    });
}

/// A connection from this address, with a secret of its own or the leader's.
fn connect_from(local: [u8; 4], number: u64, address: SocketAddr, secret: &Secret) -> Port {
    let (id, handshake) = (ConnectionId(number), secret.client());
    Port::connect_from(local.into(), id, address, handshake, SILENCE).unwrap()
}

#[test]
fn one_client_that_stalls_its_handshakes_leaves_the_others_half_of_them() {
    const ATTACKER: [u8; 4] = [127, 0, 0, 2];
    const VICTIM: [u8; 4] = [127, 0, 0, 3];
    let secret = secret();
    // More than are let in without a proof of their address.
    let (mut leader, address) = listen_with(&secret, Admission::new(1_000, 160));
    let mut stalled = Vec::new();
    let refused = loop {
        let before = handshakes(&leader);
        let number = stalled.len() as u64;
        let mut attacker = connect_from(ATTACKER, number, address, &self::secret());
        let begin = Instant::now();
        // It proves its address if it must, and says nothing more.
        let ended = loop {
            attacker.transmit();
            leader.receive();
            // However slow this machine is, none is given up for the time that it took.
            leader.stalls.clear();
            if handshakes(&leader) > before {
                break None;
            }
            leader.transmit();
            attacker.receive();
            if let Some(PortEvent::Ended(_, ended)) = attacker.poll_event() {
                break Some(ended);
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "it is told nothing");
        };
        match ended {
            None => stalled.push(attacker),
            Some(ended) => break ended,
        }
    };
    assert!(matches!(refused, Ended::Disconnected(_)), "{refused:?}");
    assert_eq!((stalled.len(), handshakes(&leader)), (80, 80));
    let mut victim = connect_from(VICTIM, 1, address, &secret);
    drive(&mut [&mut leader, &mut victim], |index, event, _| match (index, event) {
        (0, PortEvent::Connected(_, client)) => {
            assert_eq!(client.share, client_at((VICTIM, 0).into()));
            true
        }
        (1, PortEvent::Ended(_, ended)) => panic!("{ended:?}"),
        _ => false,
    });
}

/// A place on the path between one client and a leader: it sees the connection ids of both,
/// and sends in either's name.
struct OnPath {
    socket: UdpSocket,
    leader: SocketAddr,
    client: Option<SocketAddr>,
    /// The ids that the client's packets and the leader's are sent to.
    to_leader: Option<[u8; 8]>,
    to_client: Option<[u8; 8]>,
}

impl OnPath {
    fn to(leader: SocketAddr) -> OnPath {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        OnPath { socket, leader, client: None, to_leader: None, to_client: None }
    }

    fn carry(&mut self) {
        let mut bytes = [0; 1 << 16];
        while let Ok((length, from)) = self.socket.recv_from(&mut bytes) {
            let is_from_leader = from == self.leader;
            let (id, to) = if is_from_leader {
                (&mut self.to_client, self.client.expect("the client speaks first"))
            } else {
                self.client = Some(from);
                (&mut self.to_leader, self.leader)
            };
            if bytes[0] & 0x80 == 0 {
                *id = bytes[1..9].try_into().ok();
            }
            self.socket.send_to(&bytes[..length], to).unwrap();
        }
    }

    fn to_the_client(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.client.unwrap()).unwrap();
    }
}

/// A packet for this connection id that no peer can read.
fn unreadable(id: [u8; 8]) -> Vec<u8> {
    [&[0x40], &id[..], &[0x5a; 100]].concat()
}

/// RFC 9000, 10.3: a packet that ends in the token of this id.
fn reset(key: &ring::hmac::Key, id: [u8; 8]) -> Vec<u8> {
    [&[0x40; 40], &ring::hmac::sign(key, &id).as_ref()[..16]].concat()
}

/// So many frames go from the client to the leader and back.
fn exchange(path: &mut OnPath, leader: &mut Port, client: &mut Port, count: u64) {
    client.write(ConnectionId(1), &renew(0));
    let mut answers = 0;
    drive_over(
        || path.carry(),
        &mut [leader, client],
        |index, event, port| {
            match (index, event) {
                (0, PortEvent::Readable(id)) => {
                    while port.read::<ClientMessage>(id).is_some() {
                        port.write(id, &not_leader(None));
                    }
                }
                (1, PortEvent::Readable(id)) => {
                    while port.read::<LeaderMessage>(id).is_some() {
                        answers += 1;
                        port.write(id, &renew(answers));
                    }
                }
                (_, PortEvent::Ended(_, ended)) => panic!("{ended:?}"),
                _ => {}
            }
            answers >= count
        },
    );
}

#[test]
fn forged_resets_end_no_connection() {
    let secret = secret();
    let entrance = entrance(&secret, Admission::new(1_000, HANDSHAKES_MAX));
    let mut leader = Port::listen("127.0.0.1:0".parse().unwrap(), &entrance, IDS).unwrap();
    let address = leader.socket().local_addr().unwrap();
    let (mut other_leader, other_address) = listen(&secret);
    let mut path = OnPath::to(address);
    let mut client = connect(1, path.socket.local_addr().unwrap(), &secret);
    exchange(&mut path, &mut leader, &mut client, 20);
    let [to_leader, to_client] = [path.to_leader, path.to_client].map(Option::unwrap);

    // With the secret any client can be a leader: what such a one signs is believed by neither.
    let forged = secret.reset_key(&OwnId::random());
    for id in [to_leader, to_client] {
        path.to_the_client(&reset(&forged, id));
        path.socket.send_to(&reset(&forged, id), address).unwrap();
    }
    exchange(&mut path, &mut leader, &mut client, 20);

    // Neither signs for another what would end its connection, however it is asked.
    let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
    asking.set_nonblocking(true).unwrap();
    for (port, address, ids) in [
        (&mut other_leader, other_address, &[to_leader, to_client][..]),
        (&mut leader, address, &[to_client]),
    ] {
        for &id in ids {
            asking.send_to(&unreadable(id), address).unwrap();
            port.receive();
            port.transmit();
            let answer = asking.recv_from(&mut [0; 2_000]);
            assert!(answer.is_err(), "it signs for {id:?}");
        }
    }
    path.carry();
    path.to_the_client(&unreadable(to_leader));
    client.receive();
    let answer = path.socket.recv_from(&mut [0; 2_000]);
    assert!(answer.is_err(), "the client signs for its leader");
    exchange(&mut path, &mut leader, &mut client, 20);

    // The leader's own word is believed: so those were well made.
    path.to_the_client(&reset(&secret.reset_key(&entrance.own), to_leader));
    drive_over(
        || path.carry(),
        &mut [&mut client],
        |_, event, _| match event {
            PortEvent::Ended(_, Ended::Disconnected(text)) => text.contains("was restarted"),
            PortEvent::Ended(_, ended) => panic!("{ended:?}"),
            _ => false,
        },
    );
}

#[test]
fn a_connection_ends_when_its_secret_is_accepted_no_longer_and_no_other_does() {
    let [old, new] = [[1; 32], [2; 32]];
    let both = Secret::from_secrets(&[old, new]);
    let [old, new] = [old, new].map(|bytes| Secret::from_secrets(&[bytes]));
    let (mut leader, address) = listen(&both);
    let mut of_old = connect(1, address, &old);
    // It presents the new one, and accepts the old one of a leader that still presents that.
    let turned = Secret::from_secrets(&[[2; 32], [1; 32]]);
    let mut of_new = connect(2, address, &turned);
    let mut connected = 0;
    drive(&mut [&mut leader, &mut of_old, &mut of_new], |index, event, _| {
        connected += usize::from(matches!((index, event), (0, PortEvent::Connected(..))));
        connected == 2
    });
    // One is in the midst of its handshake.
    let mut late = connect(3, address, &old);
    late.transmit();
    while handshakes(&leader) == 0 {
        leader.receive();
    }
    leader.accept_credentials(&new);
    let mut ended = 0;
    let mut ports = [&mut leader, &mut of_old, &mut of_new, &mut late];
    drive(&mut ports, |index, event, _| match (index, event) {
        (1 | 3, PortEvent::Ended(_, Ended::Disconnected(text))) => {
            assert!(text.contains("does not accept this secret any more"), "{text}");
            ended += 1;
            ended == 2
        }
        (0, PortEvent::Connected(..)) | (2, PortEvent::Ended(..)) => panic!("{index}"),
        (_, PortEvent::Ended(_, Ended::Refused(text))) => panic!("{text}"),
        _ => false,
    });
    // A client that comes now is judged by the new one, which is also presented.
    let mut peer = connect(4, address, &old);
    let mut newcomer = connect(5, address, &new);
    let (mut is_out, mut is_in) = (false, false);
    let mut ports = [&mut leader, &mut of_new, &mut peer, &mut newcomer];
    drive(&mut ports, |index, event, _| {
        match (index, event) {
            (2, PortEvent::Ended(_, Ended::Refused(_))) => is_out = true,
            (3, PortEvent::Connected(..)) => is_in = true,
            (1 | 3, PortEvent::Ended(..)) => panic!("{index}"),
            _ => {}
        }
        is_out && is_in
    });
}

/// Its last words would be done with rights that it has no more.
#[test]
fn what_a_refused_peer_has_said_is_not_read() {
    let [old, new] = [[1; 32], [2; 32]].map(|bytes| Secret::from_secrets(&[bytes]));
    let (mut leader, address) = listen(&old);
    let mut client = connect(1, address, &old);
    let (mut said, mut connected) = (None, false);
    drive(&mut [&mut leader, &mut client], |index, event, port| {
        match (index, event) {
            (1, PortEvent::Connected(id, _)) => {
                (0..100).for_each(|number| port.write(id, &renew(number)));
            }
            (0, PortEvent::Connected(..)) => connected = true,
            // It is there, and the leader has had no turn to read it.
            (0, PortEvent::Readable(id)) => said = Some(id),
            _ => {}
        }
        said.is_some()
    });
    let id = said.expect("it has said something");
    assert!(connected && leader.connection_mut(id).unwrap().reader.buffered() > 0);
    leader.accept_credentials(&new);
    let mut ended = false;
    while let Some(event) = leader.poll_event() {
        ended |= matches!(event, PortEvent::Ended(at, _) if at == id);
        assert_eq!(leader.read::<ClientMessage>(id), None);
    }
    assert!(ended);
    // What comes later is not read either.
    drive(&mut [&mut leader, &mut client], |index, event, _| match (index, event) {
        (0, event) => panic!("{event:?}"),
        (1, PortEvent::Ended(..)) => true,
        _ => false,
    });
    assert_eq!(leader.read::<ClientMessage>(id), None);
}

// ---- members of a group ---------------------------------------------------------------------------

fn listen_to_members(secret: &Secret) -> (Port, SocketAddr) {
    let entrance = Entrance {
        dialects: &Dialect::ALL,
        ..entrance(secret, Admission::new(1_000, HANDSHAKES_MAX))
    };
    let port = Port::listen("127.0.0.1:0".parse().unwrap(), &entrance, IDS).unwrap();
    let address = port.socket().local_addr().unwrap();
    (port, address)
}

#[test]
fn what_members_say_is_no_clients_and_has_a_queue_of_its_own() {
    let secret = secret();
    let (mut leader, address) = listen_to_members(&secret);
    let mut client = connect(1, address, &secret);
    let mut member = Port::connect_as_member(ConnectionId(1), address, &secret, SILENCE).unwrap();
    let said = MemberMessage::Frame(vec![1, 2, 3]);
    let (mut of_client, mut of_member) = (None, None);
    let begin = Instant::now();
    while of_client.is_none() || of_member.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{of_client:?}, {of_member:?}");
        for (port, is_member) in [(&mut client, false), (&mut member, true)] {
            port.receive();
            while let Some(event) = port.poll_event() {
                match event {
                    PortEvent::Connected(id, _) if is_member => port.write(id, &said),
                    PortEvent::Connected(id, _) => port.write(id, &renew(7)),
                    PortEvent::Ended(_, ended) => panic!("{ended:?}"),
                    PortEvent::Readable(_)
                    | PortEvent::TurnedAway(..)
                    | PortEvent::Unaccepted(..) => {}
                }
            }
            port.transmit();
        }
        leader.receive();
        while let Some(event) = leader.poll_event() {
            if let PortEvent::Readable(id) = event {
                of_client = leader.read::<ClientMessage>(id);
            }
        }
        while let Some(event) = leader.poll_member_event() {
            if let PortEvent::Readable(id) = event {
                of_member = leader.read::<MemberMessage>(id);
            }
        }
        leader.transmit();
        std::thread::yield_now();
    }
    assert_eq!((of_client, of_member), (Some(renew(7)), Some(said)));
}

/// With the secret any client can sign itself a credential of either role.
#[test]
fn a_role_is_good_for_its_own_protocol_alone() {
    let secret = secret();
    let of_member = (CredentialPurpose::Member, Dialect::Locks);
    for (role, dialect) in [of_member, (CredentialPurpose::admin(), Dialect::Group)] {
        let (mut leader, address) = listen_to_members(&secret);
        let handshake = secret.handshake(&role, dialect, &secret);
        let mut peer = Port::connect_by(handshake, ConnectionId(1), address, SILENCE).unwrap();
        // It is sent with the last of the handshake, and is not read.
        let begin = Instant::now();
        let why = loop {
            assert!(begin.elapsed() < Duration::from_secs(30));
            peer.receive();
            let mut ended = None;
            while let Some(event) = peer.poll_event() {
                match event {
                    PortEvent::Connected(id, _) => peer.write(id, &renew(7)),
                    PortEvent::Ended(_, why) => ended = Some(why),
                    PortEvent::Readable(_)
                    | PortEvent::TurnedAway(..)
                    | PortEvent::Unaccepted(..) => {}
                }
            }
            peer.transmit();
            leader.receive();
            let told = std::iter::from_fn(|| leader.poll_event().or(leader.poll_member_event()));
            for event in told.collect::<Vec<_>>() {
                assert!(
                    matches!(event, PortEvent::Ended(..) | PortEvent::Unaccepted(..)),
                    "{role:?}, {dialect:?}: {event:?}"
                );
            }
            leader.transmit();
            if let Some(why) = ended {
                break why;
            }
            std::thread::yield_now();
        };
        let words = match (dialect, why) {
            (Dialect::Locks, Ended::Disconnected(words)) => words,
            (Dialect::Group, Ended::Refused(words)) => words,
            (_, why) => panic!("{why:?}"),
        };
        assert!(words.contains("its role is for something else"), "{words}");
    }
}

#[test]
fn a_leader_alone_speaks_no_protocol_of_members() {
    let secret = secret();
    let (mut leader, address) = listen(&secret);
    let mut member = Port::connect_as_member(ConnectionId(1), address, &secret, SILENCE).unwrap();
    drive(&mut [&mut leader, &mut member], |index, event, _| match (index, event) {
        (1, PortEvent::Ended(..)) => true,
        (_, PortEvent::Connected(..)) => panic!("they have no protocol in common"),
        _ => false,
    });
}

#[test]
fn a_port_tells_once_that_nothing_listens_there() {
    let secret = secret();
    let (leader, address) = listen_to_members(&secret);
    drop(leader);
    let mut member = Port::connect_as_member(ConnectionId(1), address, &secret, SILENCE).unwrap();
    drive(&mut [&mut member], |_, event, _| matches!(event, PortEvent::Ended(..)));
    assert!(member.take_refusal() && !member.take_refusal());
}
