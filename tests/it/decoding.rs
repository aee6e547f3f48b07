//! Bytes of any sender, and messages of clients that mean no good: whatever comes, decoding and leader
//! come back from it.
//!
//! A longer run: `PROPTEST_CASES=1000000 cargo test --release --all-features --test it decoding`.

use std::{fmt::Debug, sync::Arc, time::Duration};

use proptest::{collection::vec, prelude::*};
use tierlock::{
    Name, Predecessor, Time, Token,
    proto::{
        ClientId, ClusterId, ConnectionId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId,
        SessionId,
        bound::BoundSize,
        history::{Attestation, Seen, TrustingNotary},
        leader::{self, LeaderConfig, LeaderMachine, LeaderTells},
        record::Recovered,
        wire::{
            Acquire, ClientMessage, FRAME_BYTES_MAX, FrameReader, HeldLease, Identity,
            LeaderMessage, Message, Mode, Received, VERSION, Wait, WaitingRequest, decode_record,
            encode_frame, encode_record,
        },
    },
};

/// Reads all there is; what was understood is understood so again from its own encoding.
fn read_all<M: Message + Clone + PartialEq + Debug>(pieces: &[Vec<u8>]) {
    let mut reader = FrameReader::new();
    let (mut fed, mut taken) = (0, 0);
    for piece in pieces {
        fed += piece.len();
        reader.extend(piece);
        loop {
            assert!(reader.buffered() <= fed - taken, "it holds more than it was given");
            match reader.next::<M>() {
                Ok(Some(received)) => {
                    taken = fed - reader.buffered();
                    let Some(message) = received.known() else { continue };
                    let (mut bytes, mut again) = (Vec::new(), FrameReader::new());
                    encode_frame(&message, &mut bytes).unwrap();
                    again.extend(&bytes);
                    assert_eq!(again.next(), Ok(Some(Received::Message(message))));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Numbers that lie where things break.
fn number() -> impl Strategy<Value = u64> {
    let edge = prop::sample::select(vec![0, 1, 2, 3, 1 << 40, (1 << 63) - 1, u64::MAX]);
    prop_oneof![edge, 0..8_u64, any::<u64>(), (0..64_u32).prop_map(|bits| 1 << bits)]
}

fn token() -> impl Strategy<Value = Token> {
    number().prop_map(|number| Token::new(number >> 1).unwrap())
}

fn small() -> impl Strategy<Value = u32> {
    number().prop_map(|number| number as u32)
}

fn id() -> impl Strategy<Value = u128> {
    0..4_u128
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![number().prop_map(Duration::from_nanos), Just(Duration::MAX), Just(Duration::ZERO)]
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof!["[a-c]", "[a-z/]{1,20}", Just("x".repeat(255))]
        .prop_map(|text| Name::new(&text).unwrap())
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (small(), number()).prop_map(|(epoch, count)| LeaseId { epoch, count })
}

fn acquire() -> impl Strategy<Value = Acquire> {
    let wait = prop_oneof![Just(Wait::No), Just(Wait::Forever), duration().prop_map(Wait::For)];
    let terms = (proptest::option::of(duration()), proptest::option::of(duration()));
    (name(), wait, terms, any::<bool>(), token()).prop_map(
        |(name, wait, (at_most, at_least), keep, above)| Acquire {
            at_most,
            keep,
            above,
            at_least,
            ..Acquire::exclusive(name, wait)
        },
    )
}

fn held() -> impl Strategy<Value = HeldLease> {
    let tokens = (token(), token(), token());
    let leaving =
        proptest::option::of(prop::sample::select(vec![Predecessor::Clean, Predecessor::Panicked]));
    let times = (proptest::option::of(duration()), duration());
    (lease(), name(), tokens, times, any::<bool>(), leaving).prop_map(
        |(lease, name, (first, last, last_used), (at_most, since), kept, leaving)| HeldLease {
            lease,
            name,
            first,
            last,
            last_used,
            at_most,
            kept,
            since,
            leaving,
            reign: ReignId(1),
            mode: Mode::Exclusive,
            value: None,
        },
    )
}

fn waiting() -> impl Strategy<Value = WaitingRequest> {
    let place = (small(), number()).prop_map(|(epoch, count)| Place { epoch, count });
    (number(), acquire(), proptest::option::of(place)).prop_map(|(request, acquire, place)| {
        WaitingRequest { request: RequestId(request), acquire, place }
    })
}

/// Whatever a client can say.
fn message() -> impl Strategy<Value = ClientMessage> {
    let cluster = proptest::option::of(id().prop_map(ClusterId));
    let how = prop::sample::select(vec![Predecessor::Clean, Predecessor::Broken]);
    let request = || number().prop_map(RequestId);
    prop_oneof![
        (id(), id(), number(), cluster, small(), duration()).prop_map(
            |(session, proof, count, cluster, epoch, time_to_live)| ClientMessage::Hello {
                version: VERSION,
                capabilities: 0,
                session: SessionId(session),
                proof: Proof(proof),
                count,
                cluster,
                seen: cluster.map(|cluster| {
                    let attestation = Attestation(count.into());
                    Box::new(Seen { cluster, epoch, reign: ReignId(1), attestation })
                }),
                time_to_live,
                identity: Identity::new("label", "host", 1, "command"),
                process: ProcessMark(session),
            }
        ),
        vec(held(), 0..4).prop_map(|leases| ClientMessage::Held { leases }),
        vec(waiting(), 0..4).prop_map(|requests| ClientMessage::Waiting { requests }),
        Just(ClientMessage::Ready),
        (request(), acquire())
            .prop_map(|(request, acquire)| ClientMessage::Acquire { request, acquire }),
        request().prop_map(|request| ClientMessage::Cancel { request }),
        (lease(), token(), how).prop_map(|(lease, last_used, how)| ClientMessage::Release {
            lease,
            last_used,
            how
        }),
        number().prop_map(|nanos| ClientMessage::Renew { sent_at: Time::from_nanos(nanos) }),
        Just(ClientMessage::Goodbye),
        (request(), name(), token()).prop_map(|(query, name, token)| ClientMessage::Check {
            query,
            name,
            token
        }),
        (request(), proptest::option::of(name()), small())
            .prop_map(|(query, after, limit)| ClientMessage::List { query, after, limit }),
        (request(), name(), token()).prop_map(|(query, name, token)| ClientMessage::Break {
            query,
            name,
            token
        }),
    ]
}

/// What a connection does to a leader.
#[derive(Clone, Debug)]
enum Move {
    Connect,
    /// A good beginning, so that more is believed than `message` alone would bring about.
    Hello(u128, u64),
    Say(ClientMessage),
    Disconnect,
    Commit,
    Wait(Duration),
}

fn moves() -> impl Strategy<Value = Vec<(u64, Move)>> {
    let one = prop_oneof![
        2 => Just(Move::Connect),
        3 => (id(), 1..4_u64).prop_map(|(session, count)| Move::Hello(session, count)),
        12 => message().prop_map(Move::Say),
        1 => Just(Move::Disconnect),
        3 => Just(Move::Commit),
        2 => (0..3_000_u64).prop_map(|millis| Move::Wait(Duration::from_millis(millis))),
    ];
    vec((0..4_u64, one), 0..120)
}

/// A leader with a disk that answers when it is told to.
struct Table {
    leader: LeaderMachine,
    now: Time,
    connections: [Option<ConnectionId>; 4],
    connected: u64,
}

impl Table {
    fn new() -> Table {
        let config = LeaderConfig {
            time_to_live_max: Duration::from_secs(60),
            sessions_max: 3,
            leases_per_session_max: 4,
            waiters_per_session_max: 4,
            block: leader::BLOCK,
            claims_max: 10,
            reservations_max: 3,
            bound: BoundSize::LARGEST,
            narrows_every: Duration::from_secs(60),
            epoch_above: None,
            reign_lasts: None,
            members: Vec::new(),
            process: None,
            reign: ReignId(1),
            notary: Arc::new(TrustingNotary),
            tells: LeaderTells { events: true, counts: true },
            has_credentials: false,
        };
        let now = Time::from_nanos(1_000_000_000);
        let leader = LeaderMachine::new(config, Recovered::new(ClusterId(1)), now);
        Table { leader, now, connections: [None; 4], connected: 0 }
    }

    fn make(&mut self, at: u64, what: Move) {
        let connection = &mut self.connections[at as usize];
        match (what, *connection) {
            (Move::Connect, None) => {
                self.connected += 1;
                let id = ConnectionId(self.connected);
                *connection = Some(id);
                self.leader.handle_connected(id, ClientId(at.into()), self.now);
            }
            (Move::Hello(session, count), Some(id)) => {
                let hello = ClientMessage::Hello {
                    version: VERSION,
                    capabilities: 0,
                    session: SessionId(session),
                    proof: Proof(session),
                    count,
                    cluster: None,
                    seen: None,
                    time_to_live: Duration::from_secs(1),
                    identity: Identity::default(),
                    process: ProcessMark(0),
                };
                self.leader.handle_message(id, hello, self.now);
                self.leader.handle_message(id, ClientMessage::Ready, self.now);
            }
            (Move::Say(message), Some(id)) => self.leader.handle_message(id, message, self.now),
            (Move::Disconnect, Some(id)) => {
                *connection = None;
                self.leader.handle_disconnected(id, self.now);
            }
            (Move::Commit, _) => self.commit(),
            (Move::Wait(time), _) => {
                self.now = self.now + time;
                if self.leader.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.leader.handle_timeout(self.now);
                }
            }
            _ => {}
        }
        self.look();
    }

    fn commit(&mut self) {
        while let Some(pending) = self.leader.poll_record() {
            let bytes = encode_record(pending.record());
            assert_eq!(decode_record(&bytes).as_ref(), Ok(pending.record()));
            self.leader.handle_committed(pending.committed(), self.now);
        }
    }

    /// Everything that it says fits a frame.
    fn look(&mut self) {
        while let Some((_, message)) = self.leader.poll_message() {
            let mut frame = Vec::new();
            encode_frame(&message, &mut frame).unwrap();
            assert!(frame.len() <= FRAME_BYTES_MAX + 4);
        }
        while let Some((id, _)) = self.leader.poll_close() {
            for connection in &mut self.connections {
                if *connection == Some(id) {
                    *connection = None;
                    self.leader.handle_disconnected(id, self.now);
                }
            }
        }
        while self.leader.poll_notice().is_some() {}
    }
}

proptest! {
    #[test]
    fn bytes_of_any_sender_are_refused_or_understood_as_they_stand(
        pieces in vec(vec(any::<u8>(), 0..200), 0..6)
    ) {
        read_all::<ClientMessage>(&pieces);
        read_all::<LeaderMessage>(&pieces);
        let _ = decode_record(&pieces.concat());
    }

    /// Close to what is expected they are the most dangerous.
    #[test]
    fn bent_frames_are_refused_or_understood_as_they_stand(
        messages in vec(message(), 1..6),
        bends in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            encode_frame(message, &mut bytes).unwrap();
        }
        for (at, byte) in bends {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (one, other) = bytes.split_at(cut.index(bytes.len() + 1));
        read_all::<ClientMessage>(&[one.to_vec(), other.to_vec()]);
        read_all::<LeaderMessage>(&[bytes]);
    }

    /// Each message decodes; together they make no sense.
    #[test]
    fn a_leader_comes_back_from_whatever_clients_say(moves in moves()) {
        let mut table = Table::new();
        table.commit();
        for (at, what) in moves {
            table.make(at, what);
        }
        table.commit();
        table.look();
    }
}
