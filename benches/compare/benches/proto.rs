//! One step of each side of the lease protocol, without network, clock or disk: what the two
//! state machines themselves cost, cycle by cycle.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tierlock::{
    Name, Predecessor, Time, Token,
    proto::{
        ClientId, ClusterId, ConnectionId, LeaseId, ProcessMark, Proof, ReignId, RequestId,
        SessionId,
        client::{self, Client},
        history::{Attestation, TrustingNotary},
        leader::{self, LeaderMachine},
        record::Recovered,
        wire::{Acquire, ClientMessage, Identity, LeaderMessage, VERSION, Wait},
    },
};

const CLUSTER: ClusterId = ClusterId(1);
const CONNECTION: ConnectionId = ConnectionId(1);
const NOW: Time = Time::from_nanos(1_000_000_000);

/// An acquire and the release of what it was granted, with so many other names held.
fn leader_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("proto/leader: acquire, grant, release");
    for held in [0, 1_000, 100_000] {
        let mut leader = reigning_leader();
        let mut request = 1;
        for number in 0..held {
            request += 1;
            granted(&mut leader, RequestId(request), &name(&format!("held/{number}")));
        }
        let wanted = name("orders/4711");
        group.bench_function(format!("{held} held"), |bench| {
            bench.iter(|| {
                request += 1;
                let (lease, token) = granted(&mut leader, RequestId(request), black_box(&wanted));
                let how = Predecessor::Clean;
                let release = ClientMessage::Release { lease, last_used: token, how };
                leader.handle_message(CONNECTION, release, NOW);
                let answer = leader.poll_message();
                assert!(matches!(answer, Some((_, LeaderMessage::Released { .. }))));
            });
        });
    }
}

/// A request, the grant that answers it, and the release.
fn client_step(c: &mut Criterion) {
    let mut client = served_client();
    let wanted = name("orders/4711");
    let mut count = 0;
    c.bench_function("proto/client: acquire, grant, release", |bench| {
        bench.iter(|| {
            count += 1;
            let request = client.acquire(acquire(black_box(&wanted)), None, NOW);
            assert!(client.poll_message(NOW).is_some());
            let (lease, token) = (LeaseId { epoch: 1, count }, token(count));
            client.handle_message(CONNECTION, grant(request, lease, token), NOW);
            assert!(matches!(client.take_event(), Some(client::Event::Granted { .. })));
            client.release(lease, token, Predecessor::Clean, NOW);
            assert!(client.poll_message(NOW).is_some());
            client.handle_message(CONNECTION, LeaderMessage::Released { lease }, NOW);
            while client.take_event().is_some() {}
        });
    });
}

/// A whole report of a session with so many leases: what a leader reads when it comes back.
fn report_step(c: &mut Criterion) {
    c.bench_function("proto/leader: report of a new connection", |bench| {
        bench.iter_batched(
            reigning_leader,
            |mut leader| {
                report(&mut leader, ConnectionId(2), SessionId(8));
                leader
            },
            BatchSize::SmallInput,
        );
    });
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn token(count: u64) -> Token {
    Token::new((1 << Token::COUNT_BITS) + count).unwrap()
}

fn acquire(name: &Name) -> Acquire {
    let (wait, name) = (Wait::Forever, name.clone());
    Acquire::exclusive(name, wait)
}

fn grant(request: RequestId, lease: LeaseId, token: Token) -> LeaderMessage {
    let predecessor = Predecessor::Clean;
    LeaderMessage::Granted { request, lease, first: token, last: token, predecessor, at_most: None }
}

/// A leader that serves one session.
fn reigning_leader() -> LeaderMachine {
    let config = leader::LeaderConfig {
        time_to_live_max: Duration::from_secs(60),
        sessions_max: 100,
        leases_per_session_max: 1_000_000,
        waiters_per_session_max: 1_000,
        block: leader::BLOCK,
        claims_max: 4_000_000,
        reservations_max: 100,
        bound: tierlock::proto::bound::BoundSize::LARGEST,
        narrows_every: Duration::from_secs(60),
        epoch_above: None,
        reign_lasts: None,
        process: None,
        reign: ReignId(1),
        notary: Arc::new(TrustingNotary),
        members: Vec::new(),
        tells: leader::LeaderTells::default(),
        has_credentials: false,
    };
    let recovered = Recovered::new(CLUSTER);
    let mut leader = LeaderMachine::new(config, recovered, NOW);
    commit(&mut leader);
    report(&mut leader, CONNECTION, SessionId(7));
    // The first request opens the session.
    let (lease, last_used) = granted(&mut leader, RequestId(1), &name("first"));
    let how = Predecessor::Clean;
    leader.handle_message(CONNECTION, ClientMessage::Release { lease, last_used, how }, NOW);
    assert!(leader.poll_message().is_some());
    leader
}

fn report(leader: &mut LeaderMachine, connection: ConnectionId, session: SessionId) {
    leader.handle_connected(connection, ClientId(1), NOW);
    let hello = ClientMessage::Hello {
        version: VERSION,
        capabilities: 0,
        session,
        proof: Proof(3),
        count: 1,
        cluster: None,
        seen: None,
        time_to_live: Duration::from_secs(30),
        identity: identity(),
        process: ProcessMark(1),
    };
    leader.handle_message(connection, hello, NOW);
    leader.handle_message(connection, ClientMessage::Ready, NOW);
    assert!(matches!(leader.poll_message(), Some((_, LeaderMessage::Welcome { .. }))));
}

fn identity() -> Identity {
    Identity::new("bench", "here", 1, "proto")
}

/// What the disk would do.
fn commit(leader: &mut LeaderMachine) {
    while let Some(pending) = leader.poll_record() {
        leader.handle_committed(pending.committed(), NOW);
    }
}

fn granted(leader: &mut LeaderMachine, request: RequestId, name: &Name) -> (LeaseId, Token) {
    let acquire = acquire(name);
    leader.handle_message(CONNECTION, ClientMessage::Acquire { request, acquire }, NOW);
    commit(leader);
    while let Some((_, message)) = leader.poll_message() {
        if let LeaderMessage::Granted { lease, first, .. } = message {
            return (lease, first);
        }
    }
    panic!("not granted");
}

/// A client that a leader has welcomed.
fn served_client() -> Client {
    let config = client::ClientConfig {
        time_to_live: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
        identity: identity(),
        process: ProcessMark(1),
        addresses: 1,
        seen: None,
    };
    let mut numbers = 0_u128;
    let random = Box::new(move || {
        numbers += 1;
        numbers
    });
    let mut client = Client::new(config, random, NOW);
    let request = client.acquire(acquire(&name("first")), None, NOW);
    let (connection, _) = client.poll_connect().expect("it wants a leader");
    assert_eq!(connection, CONNECTION);
    client.handle_connected(CONNECTION, NOW);
    while client.poll_message(NOW).is_some() {}
    let welcome = LeaderMessage::Welcome {
        version: VERSION,
        capabilities: 0,
        session: SessionId(1),
        time_to_live: Duration::from_secs(30),
        epoch: 1,
        reign: ReignId(1),
        cluster: CLUSTER,
        members: Vec::new(),
        renew_every: Duration::from_secs(10),
        attestation: Attestation(0),
    };
    client.handle_message(CONNECTION, welcome, NOW);
    while client.poll_message(NOW).is_some() {}
    let lease = LeaseId { epoch: 1, count: 1 << 30 };
    client.handle_message(CONNECTION, grant(request, lease, token(1)), NOW);
    client.release(lease, token(1), Predecessor::Clean, NOW);
    while client.poll_message(NOW).is_some() {}
    while client.take_event().is_some() {}
    client
}

criterion_group!(benches, leader_step, client_step, report_step);
criterion_main!(benches);
