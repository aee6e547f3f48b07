//! Managers: a client with a leader played by the test.

mod conversation;

use super::*;
use crate::{
    error::{LostReason, Predecessor},
    proto::{
        client::{self, Client, Ended, Event, RequestFailure},
        count_short,
        wire::HolderInfo,
    },
};

struct Manager {
    client: Client,
    now: Time,
    events: Vec<Event>,
    said: Vec<(ConnectionId, ClientMessage)>,
    connects: Vec<(ConnectionId, usize)>,
    closes: Vec<ConnectionId>,
    /// The connection that the test answers on.
    connection: ConnectionId,
    session: SessionId,
}

impl Manager {
    fn new(addresses: usize) -> Manager {
        Manager::seeded(addresses, 1)
    }

    fn seeded(addresses: usize, seed: u64) -> Manager {
        let config = client::ClientConfig {
            time_to_live: TTL,
            connect_timeout: Duration::from_secs(10),
            identity: Identity::default(),
            addresses,
            process: ProcessMark(1),
            seen: None,
        };
        let now = Time::ZERO + Duration::from_secs(500);
        Manager {
            client: Client::new(config, crate::proto::tests::ByteDice::new(seed).random(), now),
            now,
            events: Vec::new(),
            said: Vec::new(),
            connects: Vec::new(),
            closes: Vec::new(),
            connection: ConnectionId(0),
            session: SessionId(0),
        }
    }

    fn drive(&mut self) {
        self.connects.extend(std::iter::from_fn(|| self.client.poll_connect()));
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
        self.said.extend(std::iter::from_fn(|| self.client.poll_message(self.now)));
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
        self.closes.extend(std::iter::from_fn(|| self.client.poll_close()));
        for (_, message) in &self.said {
            if let ClientMessage::Hello { session, .. } = message {
                self.session = *session;
            }
        }
    }

    fn acquire(&mut self, text: &str) -> RequestId {
        self.acquire_within(text, None)
    }

    fn acquire_within(&mut self, text: &str, limit: Option<Duration>) -> RequestId {
        let limit = limit.map(|limit| self.now + limit);
        let request = self.client.acquire(acquire(text), limit, self.now);
        self.drive();
        request
    }

    fn cancel(&mut self, request: RequestId) {
        self.client.cancel(request, self.now);
        self.drive();
    }

    fn release(&mut self, lease: LeaseId, how: Predecessor) {
        self.client.release(lease, Token::ZERO, how, self.now);
        self.drive();
    }

    /// The connection that was asked for is there.
    fn connected(&mut self) {
        (self.connection, _) = self.connects.pop().expect("a connection was asked for");
        self.client.handle_connected(self.connection, self.now);
        self.drive();
    }

    fn hear(&mut self, message: LeaderMessage) {
        self.client.handle_message(self.connection, message, self.now);
        self.drive();
    }

    fn welcome(&mut self) {
        self.welcome_by(1, 1);
    }

    fn welcome_by(&mut self, cluster: u128, epoch: u32) {
        self.welcome_of(cluster, epoch, ReignId(epoch.into()));
    }

    fn welcome_of(&mut self, cluster: u128, epoch: u32, reign: ReignId) {
        let renew_every = ms(100);
        self.hear(self.welcome_in(VERSION, cluster, (epoch, reign), renew_every));
    }

    fn welcome_in(
        &self,
        version: u32,
        cluster: u128,
        (epoch, reign): (u32, ReignId),
        renew_every: Duration,
    ) -> LeaderMessage {
        LeaderMessage::Welcome {
            version,
            capabilities: 0,
            session: self.session,
            time_to_live: TTL,
            epoch,
            reign,
            cluster: ClusterId(cluster),
            members: Vec::new(),
            renew_every,
            attestation: seen_in(ClusterId(cluster), epoch, reign).attestation,
        }
    }

    fn grant(&mut self, request: RequestId, count: u64) -> LeaseId {
        self.grant_block(request, count, 1)
    }

    fn grant_block(&mut self, request: RequestId, count: u64, tokens: u64) -> LeaseId {
        let lease = LeaseId { epoch: 1, count };
        let first = Token::first_of(1).get() + count;
        let [first, last] = [first, first + tokens - 1].map(|number| Token::new(number).unwrap());
        self.hear(LeaderMessage::Granted {
            request,
            lease,
            first,
            last,
            predecessor: Predecessor::Clean,
            at_most: None,
        });
        lease
    }

    fn queued(&mut self, request: RequestId) -> Place {
        let place = Place { epoch: 1, count: 3 };
        self.hear(LeaderMessage::Queued { request, place, holder: None });
        place
    }

    fn renewed(&mut self, sent_at: Time) {
        self.hear(LeaderMessage::Renewed { sent_at, renew_every: ms(100) });
    }

    fn cut(&mut self) {
        let ended = Ended::Disconnected("cut".to_owned());
        self.client.handle_ended(self.connection, ended, self.now);
        self.drive();
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.client.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.client.handle_timeout(self.now);
            self.drive();
        }
        self.now = end;
    }

    /// Asks for a lock on a first connection and gets it.
    fn holding(text: &str) -> (Manager, LeaseId) {
        let mut manager = Manager::new(1);
        let request = manager.acquire(text);
        manager.connected();
        manager.welcome();
        let lease = manager.grant(request, 1);
        manager.forget();
        (manager, lease)
    }

    fn forget(&mut self) {
        self.events.clear();
        self.said.clear();
    }

    /// What became of requests and leases.
    fn take_events(&mut self) -> Vec<Event> {
        let mut events = self.take_events_and_risks();
        events.retain(|event| !matches!(event, Event::AtRisk { .. }));
        events
    }

    fn take_events_and_risks(&mut self) -> Vec<Event> {
        let events = std::mem::take(&mut self.events);
        let of_the_link = |e: &Event| matches!(e, Event::DeadlineMoved { .. } | Event::Saw { .. });
        events.into_iter().filter(|event| !of_the_link(event)).collect()
    }

    fn take_said(&mut self) -> Vec<ClientMessage> {
        std::mem::take(&mut self.said).into_iter().map(|(_, message)| message).collect()
    }

    fn renewals(&mut self) -> Vec<Time> {
        let said = self.take_said().into_iter();
        said.filter_map(|message| match message {
            ClientMessage::Renew { sent_at } => Some(sent_at),
            _ => None,
        })
        .collect()
    }
}

fn lost(lease: LeaseId, why: LostReason) -> Event {
    Event::LeaseLost { lease, why }
}

fn released(lease: LeaseId, how: Predecessor) -> impl Fn(&ClientMessage) -> bool {
    move |message| {
        matches!(message, ClientMessage::Release { lease: own, how: said, .. }
            if *own == lease && *said == how)
    }
}

#[test]
fn nothing_is_connected_before_something_is_wanted_and_then_once() {
    // hazelcast-nodejs-client#898
    let mut manager = Manager::new(1);
    manager.pass(ms(10_000));
    assert_eq!(manager.connects, []);
    let (a, b) = (manager.acquire("x"), manager.acquire("y"));
    assert_eq!(manager.connects.len(), 1);
    manager.connected();
    let said = manager.take_said();
    let [ClientMessage::Hello { count: 1, .. }, ClientMessage::Waiting { requests }, _] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!(requests.iter().map(|r| r.request).collect::<Vec<_>>(), [a, b]);
    assert_eq!(said[2], ClientMessage::Ready);
}

#[test]
fn the_deadline_counts_from_sending_not_from_the_answer() {
    // delta-rs#153, node-redlock#167
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    let sent_at = manager.now;
    manager.now = manager.now + ms(700);
    manager.welcome();
    assert_eq!(manager.client.deadline(), Some(sent_at + count_short(TTL)));
    manager.grant(request, 1);
    assert_eq!(manager.client.deadline(), Some(sent_at + count_short(TTL)));
    manager.pass(ms(100));
    let renewed_at = manager.renewals()[0];
    manager.now = manager.now + ms(900);
    manager.renewed(renewed_at);
    assert_eq!(manager.client.deadline(), Some(renewed_at + count_short(TTL)));
    manager.renewed(sent_at);
    assert_eq!(manager.client.deadline(), Some(renewed_at + count_short(TTL)), "only forward");
}

#[test]
fn a_client_that_slept_past_the_deadline_expires_then_reads() {
    // etcd#10811, redisson#2665, curator#727; redlock-rb#36
    let (mut manager, lease) = Manager::holding("x");
    manager.pass(ms(2000));
    let renewed_at = *manager.renewals().last().unwrap();
    manager.now = manager.now + ms(5000);
    manager.renewed(renewed_at + ms(5000));
    assert_eq!(manager.take_events(), [lost(lease, LostReason::Expired)]);
    let said = manager.take_said();
    assert!(said.iter().any(released(lease, Predecessor::Expired)), "{said:?}");
    manager.release(lease, Predecessor::Clean);
    assert_eq!(manager.take_events(), [Event::Released { lease }]);
}

#[test]
fn an_unanswered_renewal_does_not_stop_the_next() {
    // redisson#5698, #3194, #1604
    let (mut manager, _) = Manager::holding("x");
    manager.pass(ms(1000));
    let renewals = manager.renewals();
    assert!(renewals.len() >= 9, "{renewals:?}");
}

#[test]
fn a_loss_is_answered_for_once_it_is_told_and_not_before() {
    let (mut manager, lease) = Manager::holding("x");
    let message = LeaderMessage::Lost { lease, why: LostReason::Broken };
    manager.client.handle_message(manager.connection, message, manager.now);
    assert_eq!(manager.client.poll_message(manager.now), None);
    // A report made now still names it.
    let ended = Ended::Disconnected("cut".to_owned());
    manager.client.handle_ended(manager.connection, ended, manager.now);
    manager.now = manager.now + ms(10);
    manager.client.handle_timeout(manager.now);
    let (connection, _) = manager.client.poll_connect().unwrap();
    manager.client.handle_connected(connection, manager.now);
    let report: Vec<_> =
        std::iter::from_fn(|| manager.client.poll_message(manager.now)).map(|(_, m)| m).collect();
    assert!(matches!(&report[1], ClientMessage::Held { leases } if leases[0].lease == lease));
    assert_eq!(report.last(), Some(&ClientMessage::Ready));
    assert_eq!(manager.client.poll_event(), Some(lost(lease, LostReason::Broken)));
    manager.drive();
    assert!(manager.take_said().iter().any(released(lease, Predecessor::Expired)));
}

#[test]
fn an_unanswered_release_is_said_again_and_over_once_it_is_answered() {
    // curator#1193, consul#4902
    let (mut manager, lease) = Manager::holding("x");
    manager.release(lease, Predecessor::Clean);
    manager.cut();
    assert_eq!(manager.take_events(), []);
    manager.pass(ms(100));
    manager.connected();
    manager.welcome();
    let said = manager.take_said();
    assert!(said.iter().any(|m| matches!(m, ClientMessage::Held { .. })), "{said:?}");
    assert!(said.iter().any(released(lease, Predecessor::Clean)), "{said:?}");
    assert_eq!(manager.take_events(), []);
    manager.hear(LeaderMessage::Released { lease });
    assert_eq!(manager.take_events(), [Event::Released { lease }]);
}

#[test]
fn a_loss_while_the_link_was_down_is_reported_when_it_is_back() {
    let (mut manager, lease) = Manager::holding("x");
    manager.cut();
    manager.pass(TTL);
    assert_eq!(manager.take_events(), [lost(lease, LostReason::Expired)]);
    manager.release(lease, Predecessor::Clean);
    assert_eq!(manager.take_events(), [Event::Released { lease }]);
    manager.forget();
    manager.connected();
    manager.welcome();
    let said = manager.take_said();
    assert!(said.iter().any(|m| matches!(m, ClientMessage::Held { .. })), "{said:?}");
    assert!(said.iter().any(released(lease, Predecessor::Expired)), "{said:?}");
    // It never comes back to life, and is said until it is answered.
    assert_eq!(manager.take_events(), []);
    manager.cut();
    manager.forget();
    manager.pass(ms(100));
    manager.connected();
    assert!(manager.take_said().iter().any(released(lease, Predecessor::Expired)));
    manager.welcome();
    manager.hear(LeaderMessage::Released { lease });
    assert_eq!(manager.take_events(), []);
}

#[test]
fn how_a_lock_was_left_is_said_again_on_the_next_connection() {
    let (mut manager, lease) = Manager::holding("x");
    manager.release(lease, Predecessor::Panicked);
    manager.cut();
    manager.forget();
    manager.pass(ms(100));
    manager.connected();
    manager.welcome();
    let said = manager.take_said();
    assert!(said.iter().any(|m| matches!(m, ClientMessage::Held { .. })), "{said:?}");
    assert!(said.iter().any(released(lease, Predecessor::Panicked)), "{said:?}");
    assert_eq!(manager.take_events(), []);
    manager.hear(LeaderMessage::Released { lease });
    assert_eq!(manager.take_events(), [Event::Released { lease }]);
}

#[test]
fn a_grant_that_crossed_its_cancel_is_handed_back_untold() {
    // atlasdb#4933, zk-ruby#49, matrixone#25790
    let mut manager = Manager::new(1);
    let (a, b) = (manager.acquire("x"), manager.acquire("y"));
    manager.connected();
    manager.welcome();
    manager.forget();
    manager.cancel(a);
    assert_eq!(manager.take_said(), [ClientMessage::Cancel { request: a }]);
    let lease = manager.grant(a, 1);
    assert_eq!(manager.take_events(), []);
    assert!(manager.take_said().iter().any(released(lease, Predecessor::Clean)));
    // One that is here, and not looked at yet.
    let lease = LeaseId { epoch: 1, count: 2 };
    let token = Token::new(Token::first_of(1).get() + 2).unwrap();
    let granted = LeaderMessage::Granted {
        request: b,
        lease,
        first: token,
        last: token,
        predecessor: Predecessor::Died,
        at_most: None,
    };
    manager.client.handle_message(manager.connection, granted, manager.now);
    manager.cancel(b);
    assert_eq!(manager.take_events(), []);
    let said = manager.take_said();
    assert!(said.iter().any(released(lease, Predecessor::Died)), "how it was left is passed on");
}

#[test]
fn one_that_gave_up_before_it_was_connected_is_never_asked_for() {
    // matrixone#25790
    let mut manager = Manager::new(1);
    let (a, b) = (manager.acquire("x"), manager.acquire("y"));
    manager.cancel(a);
    manager.connected();
    let said = manager.take_said();
    let ClientMessage::Waiting { requests } = &said[1] else { panic!("{said:?}") };
    assert_eq!(requests.iter().map(|r| r.request).collect::<Vec<_>>(), [b]);
}

#[test]
fn what_was_taken_back_before_it_was_sent_is_not_sent_at_all() {
    let mut manager = Manager::new(1);
    let kept = manager.acquire("kept");
    manager.connected();
    manager.welcome();
    manager.forget();
    for _ in 0..3 {
        let request = manager.client.acquire(acquire("x"), None, manager.now);
        manager.client.cancel(request, manager.now);
    }
    let wanted = manager.client.acquire(acquire("y"), None, manager.now);
    manager.drive();
    let said = manager.take_said();
    let expected = ClientMessage::Acquire { request: wanted, acquire: acquire("y") };
    assert_eq!(said, [expected]);
    manager.cancel(wanted);
    manager.cancel(kept);
    let said = manager.take_said();
    let cancel = |request| ClientMessage::Cancel { request };
    assert_eq!(said, [cancel(wanted), cancel(kept)]);
}

#[test]
fn a_renewal_waits_for_nothing_that_is_to_be_sent_as_well() {
    let (mut manager, lease) = Manager::holding("x");
    for text in ["a", "b"] {
        manager.client.acquire(acquire(text), None, manager.now);
    }
    manager.client.release(lease, Token::ZERO, Predecessor::Clean, manager.now);
    let queued = manager.now;
    manager.now = manager.now + ms(100);
    manager.client.handle_timeout(manager.now);
    manager.drive();
    let said = manager.take_said();
    assert_eq!(said.len(), 4, "{said:?}");
    // It vouches for no more than what was sent before it.
    assert_eq!(said[0], ClientMessage::Renew { sent_at: queued });
}

#[test]
fn an_answer_to_another_question_costs_the_leader_its_connection() {
    let (mut manager, _) = Manager::holding("x");
    let query = manager.client.list(None, 10, None, manager.now);
    manager.drive();
    manager.hear(LeaderMessage::Checked { query, good: true });
    assert_eq!(manager.take_events(), []);
    assert_eq!(manager.closes, [manager.connection]);
    // It is asked again.
    manager.pass(ms(100));
    manager.connected();
    manager.welcome();
    manager.hear(LeaderMessage::Listed { query, locks: Vec::new(), more: false });
    assert!(matches!(manager.take_events()[..], [Event::Listed { .. }]));
}

#[test]
fn a_goodbye_that_the_gone_did_not_get_out_closes_all_the_same() {
    let (mut manager, lease) = Manager::holding("x");
    manager.client.release(lease, Token::ZERO, Predecessor::Clean, manager.now);
    manager.client.close(manager.now);
    let gone = LeaderMessage::Gone { session: manager.session };
    manager.hear(gone);
    assert_eq!(manager.take_events(), [Event::Released { lease }, Event::Closed]);
    assert_eq!(manager.take_said().last(), Some(&ClientMessage::Goodbye));
}

#[test]
fn a_refusal_fails_nothing_once_the_manager_was_welcomed() {
    let (mut manager, _) = Manager::holding("x");
    manager.acquire("y");
    manager.forget();
    let ended = Ended::Refused("another secret".to_owned());
    manager.client.handle_ended(manager.connection, ended, manager.now);
    manager.drive();
    manager.pass(ms(100));
    assert_eq!(manager.take_events(), []);
    manager.connected();
}

#[test]
fn no_leader_makes_a_manager_renew_less_than_three_times_a_life() {
    let (mut manager, _) = Manager::holding("x");
    let rarely = Duration::from_secs(60);
    let sent_at = manager.now;
    manager.hear(LeaderMessage::Renewed { sent_at, renew_every: rarely });
    manager.pass(TTL - ms(100));
    let renewals = manager.renewals();
    assert!(renewals.len() >= 2, "{renewals:?}");
    assert!(renewals.windows(2).all(|pair| pair[1].since(pair[0]) <= TTL / 3), "{renewals:?}");
}

#[test]
fn a_client_with_requests_asks_soon_after_its_welcome_how_often_to_renew() {
    let mut manager = Manager::new(1);
    manager.acquire("x");
    manager.connected();
    // Said of a session that wants nothing.
    manager.hear(manager.welcome_in(VERSION, 1, (1, REIGN), TTL / 3));
    manager.forget();
    manager.pass(ms(110));
    assert_eq!(manager.renewals().len(), 1);
}

#[test]
fn a_report_says_what_is_held_how_long_and_what_is_being_given_back() {
    let (mut manager, first) = Manager::holding("x");
    let request = manager.acquire("y");
    let second = manager.grant(request, 2);
    manager.pass(ms(300));
    manager.release(first, Predecessor::Panicked);
    manager.cut();
    manager.pass(ms(20));
    manager.forget();
    manager.connected();
    let said = manager.take_said();
    let [ClientMessage::Hello { .. }, ClientMessage::Held { leases }, ..] = &said[..] else {
        panic!("{said:?}")
    };
    let told: Vec<_> = leases.iter().map(|held| (held.lease, held.leaving)).collect();
    assert_eq!(told, [(first, Some(Predecessor::Panicked)), (second, None)]);
    assert!(leases[0].since >= ms(300), "{leases:?}");
    // A leader that was started again takes it for the truth, and what it holds goes on.
    manager.welcome_by(1, 2);
    assert_eq!(manager.take_events(), []);
    manager.hear(LeaderMessage::Released { lease: first });
    assert_eq!(manager.take_events(), [Event::Released { lease: first }]);
    manager.pass(TTL / 2);
    assert_eq!(manager.take_events(), []);
}

#[test]
fn renewals_that_fail_are_warned_of_before_the_deadline_and_once() {
    // redisson#5698, #3194, #1604
    let (mut manager, lease) = Manager::holding("x");
    let sent_at = manager.now;
    manager.renewed(sent_at);
    manager.take_events_and_risks();
    manager.pass(TTL / 2 - ms(1));
    assert_eq!(manager.take_events_and_risks(), []);
    manager.pass(ms(2));
    let deadline = manager.client.deadline().unwrap();
    assert!(deadline > manager.now + TTL / 3);
    let events = manager.take_events_and_risks();
    assert!(
        matches!(events[..], [Event::AtRisk { deadline: told, held: 1, .. }] if told == deadline),
        "{events:?}"
    );
    // An answer puts it off, and it may come again.
    manager.renewed(manager.now - ms(100));
    manager.pass(TTL / 3);
    assert_eq!(manager.take_events_and_risks(), []);
    manager.pass(TTL - TTL / 3);
    let events = manager.take_events_and_risks();
    assert!(matches!(events[..], [Event::AtRisk { .. }, Event::LeaseLost { .. }]), "{events:?}");
    assert_eq!(events[1], lost(lease, LostReason::Expired));
}

#[test]
fn a_client_without_leases_is_not_warned() {
    let (mut manager, lease) = Manager::holding("x");
    manager.release(lease, Predecessor::Clean);
    manager.hear(LeaderMessage::Released { lease });
    manager.take_events_and_risks();
    manager.acquire("x");
    manager.pass(TTL - ms(100));
    assert_eq!(manager.take_events_and_risks(), []);
}

#[test]
fn a_grant_that_comes_too_late_is_good_only_once_the_session_is_known_to_live() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome();
    manager.queued(request);
    manager.pass(ms(4900));
    let renewed_at = *manager.renewals().last().unwrap();
    manager.now = manager.now + ms(100);
    manager.take_events();
    let lease = manager.grant(request, 1);
    assert_eq!(manager.take_events(), [], "its session may be over");
    manager.renewed(renewed_at);
    assert!(
        matches!(manager.take_events()[..], [Event::Granted { lease: own, .. }] if own == lease)
    );
}

#[test]
fn a_recall_of_a_grant_that_is_not_good_yet_is_told_once_it_is() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome();
    manager.queued(request);
    manager.pass(ms(4900));
    let renewed_at = *manager.renewals().last().unwrap();
    manager.now = manager.now + ms(100);
    let lease = manager.grant(request, 1);
    manager.hear(LeaderMessage::Recall { lease });
    manager.take_events();
    manager.renewed(renewed_at);
    let events = manager.take_events();
    assert!(
        matches!(events[..], [Event::Granted { .. }, Event::Recalled { lease: own }] if own == lease),
        "{events:?}"
    );
}

#[test]
fn a_late_grant_that_was_taken_away_is_waited_for_again() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome();
    let place = manager.queued(request);
    manager.now = manager.now + ms(6000);
    let lease = manager.grant(request, 1);
    manager.take_events();
    manager.hear(LeaderMessage::Lost { lease, why: LostReason::HeldTooLong });
    manager.forget();
    manager.pass(ms(50));
    manager.connected();
    let said = manager.take_said();
    let ClientMessage::Waiting { requests } = &said[1] else { panic!("{said:?}") };
    assert_eq!((requests[0].request, requests[0].place), (request, Some(place)));
    assert_eq!(manager.take_events(), []);
}

#[test]
fn the_gone_come_as_another_and_repeat_their_requests_with_their_places() {
    let (mut manager, lease) = Manager::holding("x");
    let request = manager.acquire("y");
    let place = manager.queued(request);
    let before = manager.session;
    manager.forget();
    manager.hear(LeaderMessage::Gone { session: before });
    assert_eq!(manager.take_events(), [lost(lease, LostReason::Forgotten)]);
    let said = manager.take_said();
    let [
        ClientMessage::Hello { session, count: 1, .. },
        ClientMessage::Waiting { requests },
        ClientMessage::Ready,
    ] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert_ne!(*session, before);
    assert_eq!((requests[0].request, requests[0].place), (request, Some(place)));
    manager.welcome();
    manager.grant(request, 2);
    assert!(matches!(manager.take_events()[..], [Event::Granted { .. }]));
}

#[test]
fn frames_of_an_older_connection_are_not_read() {
    // curator#1137, #1169, #980
    let (mut manager, lease) = Manager::holding("x");
    let old = manager.connection;
    manager.cut();
    manager.pass(ms(100));
    manager.connected();
    manager.forget();
    let stale = LeaderMessage::Lost { lease, why: LostReason::Broken };
    manager.client.handle_message(old, stale, manager.now);
    manager.client.handle_ended(old, Ended::Disconnected("late".to_owned()), manager.now);
    manager.drive();
    assert_eq!((manager.take_events(), manager.take_said()), (vec![], vec![]));
    manager.welcome();
    assert_eq!(manager.take_events(), []);
}

#[test]
fn a_manager_that_wants_something_tries_for_ever_and_not_in_step_with_others() {
    // runlore#250, curator#1024; etcd#9496, redisson#4216
    let attempts = |seed| {
        let (mut manager, _) = Manager::holding("x");
        if seed > 0 {
            manager = Manager::seeded(1, seed);
            let request = manager.acquire("x");
            manager.connected();
            manager.welcome();
            manager.queued(request);
        }
        manager.cut();
        let mut at = Vec::new();
        for _ in 0..400 {
            manager.pass(ms(10));
            if let Some((connection, _)) = manager.connects.pop() {
                at.push(manager.now.as_nanos());
                manager.connection = connection;
                manager.cut();
            }
        }
        at
    };
    let (a, b) = (attempts(5), attempts(6));
    assert!(a.len() >= 6 && b.len() >= 6, "{a:?}");
    assert!(a[0] < 500_020_000_000, "at once the first time");
    assert_ne!(a, b);
}

#[test]
fn an_unacknowledged_acquire_is_unreachable_and_not_lost() {
    // dynamodb-lock-client#6
    let mut manager = Manager::new(1);
    let (a, b) = (manager.acquire("x"), manager.acquire_within("y", Some(ms(500))));
    manager.connected();
    manager.connection = ConnectionId(1);
    manager.cut();
    manager.pass(ms(500));
    assert_eq!(manager.take_events(), [], "an answer is waited for a second at least");
    manager.pass(ms(500));
    let events = manager.take_events();
    let [Event::Failed { request, failure: RequestFailure::Unanswered(why), .. }] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(*request == b && why.contains("cut"), "{why}");
    manager.pass(ms(9000));
    assert!(matches!(&manager.take_events()[..],
        [Event::Failed { request, failure: RequestFailure::Unreachable(_), .. }] if *request == a));
    assert_eq!(manager.client.poll_timeout(), None, "nothing is wanted any more");
}

#[test]
fn a_limit_of_any_length_gets_the_answer_that_comes_within_a_second() {
    for limit in [ms(0), Duration::from_nanos(1), ms(1), ms(999)] {
        let mut manager = Manager::new(1);
        let request = manager.acquire_within("x", Some(limit));
        manager.pass(ms(990));
        manager.connected();
        manager.welcome();
        manager.take_events();
        manager.grant(request, 1);
        assert!(
            matches!(&manager.take_events()[..], [Event::Granted { .. }]),
            "a limit of {limit:?}"
        );
    }
}

#[test]
fn a_limit_longer_than_a_leaders_silence_ends_unreachable() {
    for (limit, is_unreachable) in [(ms(999), false), (ms(1_500), true)] {
        let mut manager = Manager::new(1);
        manager.acquire_within("x", Some(limit));
        manager.pass(ms(1_500));
        let events = manager.take_events();
        let [Event::Failed { failure, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(
            matches!(failure, RequestFailure::Unreachable(_)),
            is_unreachable,
            "{failure:?}"
        );
    }
}

#[test]
fn a_limit_ends_at_once_where_no_leader_listens() {
    let mut manager = Manager::new(1);
    manager.acquire_within("x", Some(ms(20)));
    manager.pass(ms(30));
    assert_eq!(manager.take_events(), []);
    let (connection, _) = manager.connects.pop().unwrap();
    let ended = Ended::NotThere("nothing listens".to_owned());
    manager.client.handle_ended(connection, ended, manager.now);
    manager.drive();
    let events = manager.take_events();
    let [Event::Failed { failure: RequestFailure::Unreachable(why), .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(why.contains("nothing listens"), "{why}");
}

#[test]
fn an_acknowledged_acquire_waits_through_an_outage_for_as_long_as_its_session_lives() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome();
    let place = manager.queued(request);
    manager.pass(ms(4000));
    let heard = *manager.renewals().last().unwrap();
    manager.renewed(heard);
    manager.take_events();
    manager.cut();
    manager.pass(ms(4900));
    assert_eq!(manager.take_events(), []);
    manager.connected();
    let said = manager.take_said();
    let waits = said.iter().find_map(|m| match m {
        ClientMessage::Waiting { requests } => Some(requests[0].place),
        _ => None,
    });
    assert_eq!(waits, Some(Some(place)));
    // Its session is over: from now on it waits for a leader as if it were new.
    manager.pass(ms(9000));
    assert_eq!(manager.take_events(), []);
    manager.pass(ms(1200));
    assert!(matches!(
        &manager.take_events()[..],
        [Event::Failed { failure: RequestFailure::Unreachable(_), .. }]
    ));
}

#[test]
fn the_leaders_own_timeout_is_preferred_since_it_names_the_holder() {
    let mut manager = Manager::new(1);
    let (a, b) =
        (manager.acquire_within("x", Some(ms(1300))), manager.acquire_within("y", Some(ms(1300))));
    manager.connected();
    manager.welcome();
    let holder = |label: &str| {
        Some(HolderInfo {
            identity: Identity::new(label, "", 0, ""),
            since: ms(1),
            token: Token::ZERO,
            mode: Mode::Exclusive,
            claims_label: false,
            ahead: None,
        })
    };
    for request in [a, b] {
        let place = Place { epoch: 1, count: 1 };
        manager.hear(LeaderMessage::Queued { request, place, holder: holder("then") });
    }
    manager.forget();
    manager.pass(ms(1310));
    assert_eq!(manager.take_events(), []);
    let why = Refusal::TimedOut;
    manager.hear(LeaderMessage::Refused { request: a, why, holder: holder("now") });
    manager.pass(ms(20));
    let failed = |request, label| Event::Failed {
        request,
        failure: RequestFailure::Refused { why },
        holder: holder(label),
    };
    assert_eq!(manager.take_events(), [failed(a, "now"), failed(b, "then")]);
    assert!(manager.take_said().contains(&ClientMessage::Cancel { request: b }));
}

#[test]
fn a_try_waits_for_its_answer() {
    let mut manager = Manager::new(1);
    let tries = [
        manager.client.acquire(try_acquire("x"), None, manager.now),
        manager.client.acquire(acquire("x"), Some(manager.now), manager.now),
    ];
    manager.drive();
    manager.pass(ms(50));
    manager.connected();
    let said = manager.take_said();
    let ClientMessage::Waiting { requests } = &said[1] else { panic!("{said:?}") };
    assert_eq!(requests.iter().map(|r| r.request).collect::<Vec<_>>(), tries);
    assert!(requests.iter().all(|r| r.acquire.wait == Wait::No));
}

#[test]
fn a_wrong_secret_fails_what_waits_at_once() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connection = manager.connects.pop().unwrap().0;
    let refused = Ended::Refused("another secret".to_owned());
    manager.client.handle_ended(manager.connection, refused, manager.now);
    manager.drive();
    let failure = RequestFailure::NotAccepted("another secret".to_owned());
    assert_eq!(manager.take_events(), [Event::Failed { request, failure, holder: None }]);
}

#[test]
fn a_leader_of_another_cluster_is_refused_and_costs_no_lease() {
    let (mut manager, lease) = Manager::holding("x");
    let request = manager.acquire("y");
    manager.cut();
    manager.pass(ms(100));
    manager.connected();
    let (connection, deadline) = (manager.connection, manager.client.deadline());
    manager.welcome_by(2, 1);
    assert!(matches!(&manager.take_events()[..],
        [Event::Failed { request: own, failure: RequestFailure::Config(_), .. }] if *own == request));
    assert_eq!(manager.closes, [connection]);
    assert_eq!(manager.client.deadline(), deadline);
    manager.pass(ms(100));
    manager.connected();
    manager.welcome();
    manager.release(lease, Predecessor::Clean);
    assert!(manager.take_said().iter().any(released(lease, Predecessor::Clean)));
}

/// A request is waited for, and the connection is a second one: over the first it was welcomed with
/// epoch 5.
fn connected_again() -> (Manager, RequestId) {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome_by(1, 5);
    manager.cut();
    manager.pass(ms(100));
    manager.connected();
    (manager, request)
}

/// Lets ten seconds pass without a connection, in which this request fails, and nothing else happens.
fn why_unreachable(manager: &mut Manager, request: RequestId) -> String {
    for _ in 0..100 {
        manager.pass(ms(100));
        manager.connects.clear();
    }
    let mut events = manager.take_events();
    match (events.pop(), &events[..]) {
        (
            Some(Event::Failed { request: own, failure: RequestFailure::Unreachable(why), .. }),
            [],
        ) => {
            assert_eq!(own, request);
            why
        }
        (last, others) => panic!("{others:?}, {last:?}"),
    }
}

#[test]
fn a_leader_with_old_state_is_refused_in_words() {
    // etcd#12528, #15247
    // A directory restored from before its last start counts the epoch of that once more.
    for (epoch, reign) in [(4, 4), (5, 55)] {
        let (mut manager, request) = connected_again();
        manager.welcome_of(1, epoch, ReignId(reign));
        manager.take_events();
        let why = why_unreachable(&mut manager, request);
        assert!(why.contains("--epoch-above 5"), "{why}");
    }
}

#[test]
fn a_recall_of_a_grant_that_is_not_good_yet_is_heard_once_it_is() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome();
    manager.pass(TTL); // its session ran out, and its renewals are still on their way
    let renewed = *manager.renewals().last().unwrap();
    let lease = manager.grant_block(request, 1, 9);
    manager.hear(LeaderMessage::Recall { lease });
    assert_eq!(manager.take_events(), []);
    manager.hear(LeaderMessage::Renewed { sent_at: renewed, renew_every: ms(100) });
    let events = manager.take_events();
    assert!(
        matches!(
            events[..],
            [Event::Granted { .. }, Event::Recalled { lease: own }] if own == lease
        ),
        "{events:?}"
    );
}

#[test]
fn a_seen_epoch_is_told_with_its_reign() {
    let mut manager = Manager::new(1);
    manager.acquire("x");
    manager.connected();
    let seen = |manager: &mut Manager| match &manager.take_said()[..] {
        [ClientMessage::Hello { seen, .. }, ..] => seen.as_deref().copied(),
        said => panic!("{said:?}"),
    };
    assert_eq!(seen(&mut manager), None);
    manager.welcome_of(1, 5, ReignId(55));
    manager.cut();
    manager.pass(ms(100));
    manager.connected();
    let last = seen_in(ClusterId(1), 5, ReignId(55));
    assert_eq!(seen(&mut manager), Some(last));
    // With the code of the epoch that the reign has come to since.
    manager.welcome_of(1, 5, ReignId(55));
    let raised = seen_in(ClusterId(1), 8, ReignId(55));
    let attestation = raised.attestation;
    manager.hear(LeaderMessage::Raised { epoch: 8, attestation });
    manager.hear(LeaderMessage::Raised { epoch: 7, attestation: Attestation(3) });
    assert_eq!(manager.events.last(), Some(&Event::Saw { seen: raised }));
    manager.cut();
    manager.pass(ms(100));
    manager.connected();
    assert_eq!(seen(&mut manager), Some(raised));
}

#[test]
fn a_leader_that_does_not_know_what_was_seen_is_asked_again_and_named() {
    let (mut manager, request) = connected_again();
    let cluster = ClusterId(1);
    manager.hear(LeaderMessage::NotLeader { try_next: None, cluster, epoch: Some(2) });
    manager.take_events();
    assert!(!manager.closes.is_empty());
    let why = why_unreachable(&mut manager, request);
    assert!(why.contains("epoch 2") && why.contains("epoch 5"), "{why}");
}

#[test]
fn a_standby_of_another_cluster_is_none_of_ours() {
    let (mut manager, request) = connected_again();
    manager.take_events();
    let cluster = ClusterId(2);
    manager.hear(LeaderMessage::NotLeader { try_next: None, cluster, epoch: None });
    let events = manager.take_events();
    let [Event::Failed { request: own, failure: RequestFailure::Config(why), .. }] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(*own == request && why.contains("two leaders, not one group"), "{why}");
}

#[test]
fn several_addresses_are_compared_once_before_one_is_used() {
    let mut manager = Manager::new(3);
    let request = manager.acquire("x");
    let mut addresses: Vec<_> = manager.connects.iter().map(|(_, address)| *address).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, [0, 1, 2]);
    let mut probes = Vec::new();
    for _ in 0..3 {
        manager.connected();
        let said = manager.take_said();
        let [ClientMessage::Hello { count: 1, .. }, ClientMessage::Ready] = &said[..] else {
            panic!("{said:?}")
        };
        probes.push(manager.session);
        manager.welcome();
    }
    assert_eq!(manager.closes.len(), 3);
    manager.drive();
    manager.connected();
    assert!(!probes.contains(&manager.session));
    manager.welcome();
    manager.grant(request, 1);
    assert!(matches!(manager.take_events()[..], [Event::Granted { .. }]));
    // All are asked again at once, soon one after the other, and the first that leads is taken.
    manager.cut();
    manager.connects.clear();
    manager.pass(ms(70));
    assert_eq!(manager.connects.len(), 3);
    manager.connected();
    manager.welcome();
    manager.drive();
    assert_eq!(manager.connects.len(), 3, "two without an answer, and the one to the leader");
}

#[test]
fn two_leaders_are_not_taken_for_one_group() {
    let mut manager = Manager::new(2);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome_by(1, 1);
    manager.connected();
    manager.welcome_by(2, 1);
    let events = manager.take_events();
    let [Event::Failed { request: own, failure: RequestFailure::Config(why), .. }] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(*own == request && why.contains("two leaders, not one group"), "{why}");
    assert_eq!(manager.client.poll_timeout(), None);
}

#[test]
fn an_address_that_does_not_answer_is_waited_for_once_and_not_for_long() {
    let mut manager = Manager::new(2);
    let request = manager.acquire("x");
    let (_silent, address) = manager.connects.remove(0);
    assert_eq!(address, 0);
    manager.connected();
    manager.welcome();
    manager.pass(ms(490));
    assert_eq!(manager.connects, []);
    manager.pass(ms(20));
    assert_eq!(manager.connects.len(), 1);
    manager.connected();
    manager.welcome();
    manager.grant(request, 1);
    assert!(matches!(manager.take_events()[..], [Event::Granted { .. }]));
}

/// Three leaders that do not reign, asked ever less often; then one of them names another.
#[test]
fn the_address_that_a_standby_names_is_asked_next() {
    let mut manager = Manager::new(3);
    manager.acquire("x");
    let cluster = ClusterId(1);
    let standby = || LeaderMessage::NotLeader { try_next: None, cluster, epoch: None };
    let mut asked = Vec::new();
    for _ in 0..60 {
        while let Some((_, address)) = manager.connects.last().copied() {
            asked.push(address);
            manager.connected();
            manager.hear(standby());
        }
        manager.pass(ms(50));
    }
    let before = asked.len();
    // In the first second often, then about once in a second each.
    assert!((15..45).contains(&before), "{before}");
    manager.client.handle_hint(2, manager.now);
    manager.client.handle_hint(3, manager.now);
    manager.pass(ms(25));
    assert!(manager.connects.iter().any(|(_, address)| *address == 2), "{:?}", manager.connects);
}

#[test]
fn where_a_leader_says_which_one_follows_it_no_other_is_asked_first() {
    let mut manager = Manager::new(3);
    manager.acquire("x");
    for _ in 0..4 {
        manager.connected();
        manager.welcome();
        manager.drive();
    }
    let told = |manager: &mut Manager, next: usize| {
        let cluster = ClusterId(1);
        manager.hear(LeaderMessage::NotLeader { try_next: None, cluster, epoch: None });
        manager.client.handle_hint(next, manager.now);
        manager.connects.clear();
        manager.pass(ms(200));
        manager.connects.iter().map(|(_, address)| *address).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut manager, 2), [2]);
    // It does not reign, and names another: that is believed no more than any.
    manager.connected();
    let mut asked = told(&mut manager, 1);
    asked.sort();
    assert_eq!(asked, [0, 1, 2]);
    // The one that was named is gone.
    for _ in 0..2 {
        manager.connected();
        manager.welcome();
        manager.drive();
    }
    assert_eq!(told(&mut manager, 0), [0]);
    manager.pass(ms(350));
    assert!(manager.connects.len() > 1, "the others are asked, too");
}

#[test]
fn addresses_without_a_leader_are_named() {
    let mut manager = Manager::new(2);
    let request = manager.acquire("x");
    manager.connects.clear();
    let why = why_unreachable(&mut manager, request);
    assert!(why.contains("address 1") && why.contains("address 2"), "{why}");
}

/// Three quarters of the time that its reign is believed, after the first renewal that went
/// unanswered.
#[test]
fn a_silent_leader_is_left_for_another_address() {
    let mut manager = Manager::new(2);
    manager.acquire("x");
    for _ in 0..2 {
        manager.connected();
        manager.welcome();
    }
    manager.drive();
    manager.connected();
    manager.welcome();
    manager.drive();
    manager.pass(ms(100));
    manager.forget();
    let closes = manager.closes.len();
    manager.hear(LeaderMessage::Renewed { sent_at: manager.now, renew_every: ms(250) });
    manager.pass(ms(840));
    assert_eq!(manager.closes.len(), closes);
    manager.pass(ms(20));
    assert_eq!(manager.closes.len(), closes + 1);
}

/// One that was idle has been told a slow pace; what counts is how long a change of reign takes.
#[test]
fn a_silent_leader_is_left_as_soon_by_a_manager_that_was_idle() {
    let mut manager = Manager::new(2);
    let request = manager.acquire("x");
    for _ in 0..2 {
        manager.connected();
        manager.welcome();
    }
    manager.drive();
    manager.connected();
    let told = manager.welcome_in(VERSION, 1, (1, ReignId(1)), ms(250));
    manager.hear(told);
    manager.drive();
    manager.pass(ms(100));
    let slow = LeaderMessage::Renewed { sent_at: manager.now, renew_every: ms(3_000) };
    manager.hear(slow);
    let why = Refusal::TooManyClaims;
    manager.hear(LeaderMessage::Refused { request, why, holder: None });
    manager.forget();
    let closes = manager.closes.len();
    manager.acquire("y");
    manager.pass(ms(100));
    assert!(manager.take_said().iter().any(|said| matches!(said, ClientMessage::Renew { .. })));
    manager.pass(ms(740));
    assert_eq!(manager.closes.len(), closes);
    manager.pass(ms(20));
    assert_eq!(manager.closes.len(), closes + 1);
}

#[test]
fn a_closing_manager_says_goodbye_when_nothing_is_held() {
    let (mut manager, lease) = Manager::holding("x");
    let request = manager.acquire("y");
    manager.forget();
    manager.client.close(manager.now);
    manager.drive();
    let failed = |request| Event::Failed { request, failure: RequestFailure::Closed, holder: None };
    assert_eq!(manager.take_events(), [failed(request)]);
    assert_eq!(manager.take_said(), [ClientMessage::Cancel { request }]);
    let late = manager.acquire("z");
    assert_eq!(manager.take_events(), [failed(late)]);
    manager.release(lease, Predecessor::Clean);
    let said = manager.take_said();
    assert!(released(lease, Predecessor::Clean)(&said[0]));
    assert_eq!(said[1..], [ClientMessage::Goodbye]);
    assert_eq!(manager.take_events(), [Event::Closed]);
    assert_eq!(manager.client.poll_timeout(), None);
}

#[test]
fn a_manager_that_never_did_anything_is_closed_at_once() {
    let mut manager = Manager::new(1);
    manager.client.close(manager.now);
    manager.drive();
    assert_eq!(manager.take_events(), [Event::Closed]);
    assert_eq!((manager.connects.len(), manager.take_said().len()), (0, 0));
}

#[test]
fn questions_are_asked_again_on_the_next_connection() {
    let mut manager = Manager::new(1);
    let token = Token::first_of(1);
    let check = manager.client.check(name("x"), token, None, manager.now);
    let list = manager.client.list(None, 10, None, manager.now);
    manager.drive();
    manager.connected();
    manager.welcome();
    manager.hear(LeaderMessage::Listed { query: list, locks: Vec::new(), more: false });
    manager.cut();
    manager.pass(ms(50));
    manager.forget();
    manager.connected();
    manager.welcome();
    let said = manager.take_said();
    assert_eq!(said.last(), Some(&ClientMessage::Check { query: check, name: name("x"), token }));
    assert!(!said.iter().any(|m| matches!(m, ClientMessage::List { .. })));
    manager.hear(LeaderMessage::Checked { query: check, good: true });
    assert_eq!(manager.take_events(), [Event::Checked { query: check, good: true }]);
}

#[test]
fn a_question_of_a_session_that_is_gone_is_asked_again_and_answered_once() {
    let mut manager = Manager::new(1);
    let token = Token::first_of(1);
    let query = manager.client.break_lock(name("x"), token, None, manager.now);
    manager.drive();
    manager.connected();
    manager.welcome();
    manager.forget();
    let broke = LeaderMessage::Broke { query, found: true };
    manager.hear(LeaderMessage::Gone { session: manager.session });
    // The answer to the session before, that the disk was late with.
    manager.hear(broke.clone());
    assert_eq!(manager.take_events(), []);
    manager.welcome();
    let again = ClientMessage::Break { query, name: name("x"), token };
    assert_eq!(manager.take_said().last(), Some(&again));
    manager.hear(broke.clone());
    manager.hear(broke);
    assert_eq!(manager.take_events(), [Event::Broke { query, found: true }]);
}

#[test]
fn a_lock_ends_by_itself_when_its_at_most_is_reached() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.welcome();
    let lease = LeaseId { epoch: 1, count: 1 };
    let token = Token::first_of(1);
    manager.hear(LeaderMessage::Granted {
        request,
        lease,
        first: token,
        last: token,
        predecessor: Predecessor::Clean,
        at_most: Some(ms(1000)),
    });
    let end = manager.now + count_short(ms(1000));
    let events = manager.take_events();
    assert!(matches!(events[..], [Event::Granted { at_most: Some(at), .. }] if at == end));
    manager.forget();
    manager.pass(ms(991));
    assert_eq!(manager.take_events(), [lost(lease, LostReason::HeldTooLong)]);
    assert!(manager.take_said().iter().any(released(lease, Predecessor::Expired)));
}

#[test]
fn a_leader_that_is_too_old_is_named_so() {
    let mut manager = Manager::new(1);
    let request = manager.acquire("x");
    manager.connected();
    manager.hear(manager.welcome_in(VERSION_OLDEST - 1, 1, (1, REIGN), ms(100)));
    let events = manager.take_events();
    let [Event::Failed { request: failed, failure: RequestFailure::Config(text), .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(*failed, request);
    assert!(text.contains("too old"), "{text}");
}

/// It was taken for the refusal of a request, and the question waited until its time was over.
#[test]
fn a_question_that_is_refused_before_the_welcome_has_failed() {
    let mut manager = Manager::new(1);
    let observation = manager.client.observe_leader(name("x"), None, manager.now);
    manager.drive();
    manager.connected();
    let question = manager.client.list(None, 1, None, manager.now);
    let why = Refusal::NotPermitted;
    for query in [observation, question] {
        manager.hear(LeaderMessage::Refused { request: query, why, holder: None });
        let failure = RequestFailure::Refused { why };
        assert_eq!(manager.take_events(), [Event::QueryFailed { query, failure }]);
    }
    // The next connection does not ask again.
    manager.welcome();
    let observes = |said: &ClientMessage| matches!(said, ClientMessage::Observe { .. });
    let again = manager.take_said().iter().filter(|said| observes(said)).count();
    assert_eq!(again, 1, "it was asked once, with the report");
}

#[test]
fn what_an_earlier_leader_does_not_understand_fails_and_nothing_else_does() {
    let (mut manager, lease) = Manager::holding("x");
    let (query, now) = (manager.client.list(None, 1, None, manager.now), manager.now);
    let request = manager.acquire("y");
    manager.hear(LeaderMessage::NotUnderstood { kind: 20, request: Some(query) });
    manager.hear(LeaderMessage::NotUnderstood { kind: 21, request: Some(request) });
    manager.hear(LeaderMessage::NotUnderstood { kind: 22, request: None });
    let why = Refusal::NotSupported;
    let failure = RequestFailure::Refused { why };
    let expected = [
        Event::QueryFailed { query, failure: failure.clone() },
        Event::Failed { request, failure, holder: None },
    ];
    assert_eq!(manager.take_events(), expected);
    // Nothing is left to run out.
    assert!(manager.client.deadline().is_some_and(|deadline| deadline > now));
    manager.release(lease, Predecessor::Clean);
    manager.pass(ms(100));
    assert!(manager.take_said().iter().any(released(lease, Predecessor::Clean)));
}
