//! Situations of a leader among others, with the clients that it has.

use super::*;
use crate::{
    name::Name,
    proto::{
        ClientId, ProcessMark, Proof, RequestId, SessionId,
        journal::{
            Appended, JournalHead, JournalTerms, JournalTrouble, ReignKey, ReignRenewal, Stamp,
            TakeOver,
        },
        record::{Recovered, Written},
        reign::ReignConfig,
        rights::Role,
        wire::{
            Acquire, DiskReplacement, Identity, LeaderRank, LeaderStanding, Mode, StepDownRefusal,
            VERSION, Wait, WaitingRequest,
        },
    },
    token::Token,
};

const L: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Time {
    Time::from_nanos(10_000_000_000 + ms * 1_000_000)
}

/// A leader and its journal, which does at once what it is asked while it can be reached.
struct TestCourt {
    successor: Successor,
    stamp: u64,
    number: u64,
    reign: Option<ReignKey>,
    recovered: Recovered,
    is_reached: bool,
    now: u64,
}

impl TestCourt {
    fn new() -> TestCourt {
        let terms = JournalTerms { is_exclusive: false, batch_max: 16, renewals: 6 };
        let config = ReignConfig { lasts: L, address: None, epoch_above: None, terms };
        let mut last = 0;
        let random = move || {
            last += 1;
            last
        };
        TestCourt {
            successor: Successor::new(
                LeaderConfig::default(),
                Reign::new(config, Box::new(random), at(0)),
            ),
            stamp: 1,
            number: 0,
            reign: None,
            recovered: Recovered::new(ClusterId(7)),
            is_reached: true,
            now: 0,
        }
    }

    /// One that reigns, and whose client 1 has a lock.
    fn with_holder() -> TestCourt {
        let mut court = TestCourt::new();
        court.settle();
        court.connect(1);
        court.hello(1, 1);
        court.say(1, acquire(1));
        court.heard();
        court
    }

    fn head(&self) -> JournalHead {
        JournalHead {
            cluster: ClusterId(7),
            reign: self.reign,
            lasts: L,
            stamp: Stamp(self.stamp),
            epoch: self.recovered.epoch,
            waits_for: self.recovered.waits_for,
            address: Some("10.0.0.9:7420".to_owned()),
        }
    }

    fn answer(&mut self, operation: &JournalOperation) -> JournalAnswer {
        if !self.is_reached {
            let text = "the connection broke".to_owned();
            return JournalAnswer::Trouble(JournalTrouble::Unknown(text));
        }
        let is_mine = |reign| self.reign == Some(reign);
        let stamp = Stamp(self.stamp + 1);
        let answer = match operation {
            JournalOperation::Read => return JournalAnswer::Head(self.head()),
            JournalOperation::TakeOver(attempt) => {
                assert_eq!(attempt.seen.0, self.stamp, "no other leader takes over here");
                let before = self.recovered.clone();
                self.recovered.remember(&attempt.took_over);
                (self.reign, self.number) = (Some(attempt.reign), 0);
                let written = Written::committed(Vec::new());
                let took = Took { stamp, before, written };
                JournalAnswer::TakeOver(TakeOver::Took(Box::new(took)))
            }
            JournalOperation::Append { reign, number, records } if is_mine(*reign) => {
                assert_eq!(*number, self.number + 1);
                self.number = *number;
                records.iter().for_each(|record| self.recovered.remember(record));
                let written = Written::committed(Vec::new());
                JournalAnswer::Appended(Appended::Committed(stamp, written))
            }
            JournalOperation::Renew(reign) if is_mine(*reign) => {
                JournalAnswer::Renewal(ReignRenewal::Renewed(stamp))
            }
            JournalOperation::Append { .. } => {
                return JournalAnswer::Appended(Appended::Deposed(self.head()));
            }
            JournalOperation::Renew(_) => {
                return JournalAnswer::Renewal(ReignRenewal::Deposed(self.head()));
            }
            JournalOperation::Resign(_) => {
                self.reign = None;
                JournalAnswer::Resigned
            }
        };
        self.stamp += 1;
        answer
    }

    /// Does what is due, until nothing is; whether what clients say is let in.
    fn settle(&mut self) -> bool {
        let now = at(self.now);
        self.successor.handle_timeout(now);
        loop {
            let is_let_in = match self.successor.turn(now) {
                Some(mut turn) => {
                    turn.handle_timeout();
                    true
                }
                None => false,
            };
            let Some((id, operation)) = self.successor.poll_operation(now) else {
                return is_let_in;
            };
            let answer = self.answer(&operation);
            self.successor.handle_answer(id, answer, now);
        }
    }

    /// Time passes, in steps that a driver would take.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now += 10;
            self.settle();
        }
    }

    fn connect(&mut self, connection: u64) {
        self.connect_with(connection, Some(Rights::everything()));
    }

    fn connect_with(&mut self, connection: u64, rights: Option<Rights>) {
        let now = at(self.now);
        let mut turn = self.successor.turn(now).expect("it is let in");
        let client = ConnectedClient { rights: rights.map(Arc::new), ..ClientId(1).into() };
        turn.handle_connected(ConnectionId(connection), client);
    }

    fn say(&mut self, connection: u64, message: ClientMessage) {
        let now = at(self.now);
        let mut turn = self.successor.turn(now).expect("it is let in");
        turn.handle_message(ConnectionId(connection), message);
        self.settle();
    }

    /// A session reports that it has nothing.
    fn hello(&mut self, connection: u64, count: u64) {
        self.say(
            connection,
            ClientMessage::Hello {
                version: VERSION,
                capabilities: 0,
                session: SessionId(5),
                proof: Proof(5),
                count,
                cluster: None,
                seen: None,
                time_to_live: Duration::from_secs(5),
                identity: Identity::new("test", "here", 1, "test"),
                process: ProcessMark(1),
            },
        );
        if self.successor.leader().is_some() {
            self.say(connection, ClientMessage::Ready);
        }
    }

    fn heard(&mut self) -> Vec<LeaderMessage> {
        std::iter::from_fn(|| self.successor.poll_message()).map(|(_, message)| message).collect()
    }

    fn closed(&mut self) -> Vec<(ConnectionId, Close)> {
        std::iter::from_fn(|| self.successor.poll_close()).collect()
    }
}

fn acquire(request: u64) -> ClientMessage {
    let name = Name::new("a").unwrap();
    let acquire = Acquire { mode: Mode::Exclusive, ..Acquire::exclusive(name, Wait::Forever) };
    ClientMessage::Acquire { request: RequestId(request), acquire }
}

#[test]
fn a_leader_serves_from_the_moment_that_its_reign_is_proven() {
    let mut court = TestCourt::new();
    assert!(court.settle());
    assert!(court.successor.poll_sweep());
    court.connect(1);
    court.hello(1, 1);
    court.say(1, acquire(1));
    let heard = court.heard();
    assert!(matches!(heard[0], LeaderMessage::Welcome { epoch: 1, .. }), "{heard:?}");
    assert!(matches!(heard.last(), Some(LeaderMessage::Granted { .. })), "{heard:?}");
    assert_eq!(court.recovered.sessions.len(), 1);
}

#[test]
fn a_standby_tells_where_the_reign_is_and_closes() {
    let mut court = TestCourt::new();
    court.reign = Some(ReignKey(99));
    court.settle();
    court.connect(1);
    court.hello(1, 1);
    let heard = court.heard();
    let [LeaderMessage::NotLeader { try_next: Some(next), epoch: None, .. }] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(next, "10.0.0.9:7420");
    assert_eq!(court.closed(), [(ConnectionId(1), Close::NotLeader)]);
}

/// An operator's request that a credential is not for: for some names alone.
fn admin_of_some() -> Rights {
    Rights::new(Role::Admin, vec![Name::new("b/").unwrap()], None)
}

fn not_permitted(request: u64) -> LeaderMessage {
    let (why, holder) = (Refusal::NotPermitted, None);
    LeaderMessage::Refused { request: RequestId(request), why, holder }
}

fn replace(query: u64) -> ClientMessage {
    ClientMessage::Replace { query: RequestId(query), member: "c".to_owned() }
}

/// Told that another leader reigns, a client would go there with what is not permitted there either.
#[test]
fn a_standby_refuses_what_a_client_may_not_say() {
    let mut court = TestCourt::new();
    court.reign = Some(ReignKey(99));
    court.settle();
    court.connect_with(1, Some(admin_of_some()));
    let query = RequestId(2);
    let step_down = ClientMessage::StepDown { query, reign: ReignKey(99).id() };
    let check = ClientMessage::Check { query, name: Name::new("a").unwrap(), token: Token::ZERO };
    for (number, message) in [(1, acquire(1)), (2, step_down), (2, check), (3, replace(3))] {
        court.say(1, message);
        assert_eq!(court.heard(), [not_permitted(number)]);
        assert_eq!(court.closed(), [], "and goes on");
    }
    let acquire = Acquire::exclusive(Name::new("a").unwrap(), Wait::Forever);
    let requests = vec![WaitingRequest { request: RequestId(4), place: None, acquire }];
    court.say(1, ClientMessage::Waiting { requests });
    assert_eq!(court.closed(), [(ConnectionId(1), Close::NotPermitted)]);
    assert_eq!(court.heard(), []);
    // What it says behind that counts for nothing.
    court.say(1, replace(5));
    assert_eq!((court.heard(), court.closed()), (Vec::new(), Vec::new()));
}

/// What drives a member of a group answers this itself, and gets it only from here, as permitted.
#[test]
fn a_disk_is_replaced_for_an_admin_of_every_name_alone() {
    for is_reigning in [false, true] {
        let mut court = TestCourt::new();
        court.reign = (!is_reigning).then_some(ReignKey(99));
        court.settle();
        assert_eq!(court.successor.leader().is_some(), is_reigning);
        let all = |role| Rights::new(role, Vec::new(), None);
        let refused = [admin_of_some(), all(Role::Lock), all(Role::Read)];
        for (connection, rights) in (1..).zip(refused) {
            court.connect_with(connection, Some(rights));
            let now = at(court.now);
            let mut turn = court.successor.turn(now).expect("it is let in");
            let permitted = turn.permit(ConnectionId(connection), replace(7));
            assert!(permitted.is_none());
            assert_eq!(court.heard(), [not_permitted(7)]);
        }
        court.connect_with(9, Some(all(Role::Admin)));
        court.say(9, replace(8));
        let (query, outcome) = (RequestId(8), DiskReplacement::NoGroup);
        assert_eq!(court.heard(), [LeaderMessage::Replaced { query, outcome }]);
    }
}

#[test]
fn without_rights_nothing_that_is_said_counts() {
    for is_reigning in [false, true] {
        let mut court = TestCourt::new();
        court.reign = (!is_reigning).then_some(ReignKey(99));
        court.settle();
        court.connect_with(1, None);
        court.hello(1, 1);
        court.say(1, acquire(1));
        court.say(1, ClientMessage::List { query: RequestId(2), after: None, limit: 9 });
        court.say(1, ClientMessage::AskStanding { query: RequestId(3) });
        assert_eq!((court.heard(), court.closed()), (Vec::new(), Vec::new()));
    }
}

#[test]
fn a_connection_from_before_the_reign_counts_for_nothing_in_it() {
    let mut court = TestCourt::new();
    (court.reign, court.stamp) = (Some(ReignKey(99)), 5);
    court.settle();
    court.connect(1);
    court.pass(1_200);
    assert!(court.successor.reign().reigning().is_some());
    assert!(court.successor.poll_sweep() && !court.successor.poll_sweep());
    assert_eq!(court.closed(), [(ConnectionId(1), Close::NotLeader)]);
    court.heard();
    court.hello(1, 1);
    assert_eq!(court.heard(), []);
}

/// Nothing is said, granted or expired without proof, and what the leader had is as it was once the
/// reign is proven again.
#[test]
fn a_lapse_of_proof_stands_still() {
    let mut court = TestCourt::with_holder();
    court.is_reached = false;
    court.pass(990);
    assert!(!court.settle(), "it is not proven any more");
    court.pass(500);
    assert_eq!((court.heard(), court.closed()), (vec![], vec![]));
    court.is_reached = true;
    court.pass(200);
    assert!(court.settle());
    assert!(court.successor.leader().is_some());
    court.say(1, ClientMessage::Renew { sent_at: at(0) });
    assert!(matches!(court.heard()[..], [LeaderMessage::Renewed { .. }]));
}

/// The time without proof does not count against the session: it expires that much later.
#[test]
fn deadlines_move_by_the_lapse() {
    let mut court = TestCourt::with_holder();
    court.pass(4_000);
    court.is_reached = false;
    court.pass(1_500);
    court.is_reached = true;
    court.pass(200);
    assert!(court.settle());
    assert_eq!(court.heard(), [], "its 5.05 s have not passed while it could be heard");
    court.pass(1_000);
    assert!(matches!(court.heard()[..], [LeaderMessage::Gone { .. }]));
}

#[test]
fn a_leader_without_proof_for_long_closes_all_and_forgets() {
    let mut court = TestCourt::with_holder();
    court.is_reached = false;
    court.pass(2_000);
    assert!(court.successor.leader().is_none());
    let heard = court.heard();
    assert!(matches!(heard[..], [LeaderMessage::NotLeader { .. }]), "{heard:?}");
    assert_eq!(court.closed(), [(ConnectionId(1), Close::NotLeader)]);
    // The next reign is another, and waits for the session that the journal knows.
    court.is_reached = true;
    court.pass(200);
    assert_eq!(court.recovered.epoch, 2);
    assert!(court.successor.poll_sweep());
    court.connect(2);
    court.hello(2, 2);
    let heard = court.heard();
    assert!(matches!(heard[..], [LeaderMessage::Welcome { epoch: 2, .. }]), "{heard:?}");
}

#[test]
fn a_leader_that_hands_over_serves_no_client_when_it_resigns() {
    let mut court = TestCourt::new();
    court.settle();
    court.successor.poll_sweep();
    court.connect(1);
    court.hello(1, 1);
    court.heard();
    let now = at(court.now);
    court.successor.hand_over(now);
    assert!(court.successor.leader().is_none() && court.successor.turn(now).is_none());
    assert!(court.reign.is_some(), "it serves none before the journal hears of it");
    court.settle();
    assert_eq!(court.reign, None);
    court.pass(490);
    assert_eq!(court.closed(), [], "another could follow yet");
    court.pass(10);
    assert_eq!(court.closed(), [(ConnectionId(1), Close::NotLeader)]);
    assert!(court.successor.turn(at(court.now)).is_some(), "it turns clients away from here on");
    court.pass(490);
    assert_eq!(court.reign, None, "it stays out");
    court.pass(200);
    assert!(court.reign.is_some(), "no other took over");
}

#[test]
fn clients_of_a_leader_that_hands_over_are_told_which_one_follows() {
    let mut court = TestCourt::with_holder();
    court.successor.poll_sweep();
    court.successor.hand_over(at(court.now));
    court.settle();
    assert!(court.successor.is_parting() && court.heard().is_empty());
    (court.reign, court.stamp) = (Some(ReignKey(99)), court.stamp + 1);
    // It reads more often than a leader that stands by.
    court.pass(30);
    assert!(!court.successor.is_parting());
    let heard = court.heard();
    let [LeaderMessage::NotLeader { try_next: Some(next), epoch: None, .. }] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(next, "10.0.0.9:7420");
    assert_eq!(court.closed(), [(ConnectionId(1), Close::NotLeader)]);
}

#[test]
fn a_client_that_comes_while_no_leader_reigns_waits_to_be_told_which_one_follows() {
    let mut court = TestCourt::new();
    court.reign = Some(ReignKey(99));
    court.settle();
    court.connect(1);
    court.hello(1, 1);
    assert!(matches!(court.heard()[..], [LeaderMessage::NotLeader { .. }]), "that one reigns");
    assert_eq!(court.closed(), [(ConnectionId(1), Close::NotLeader)]);
    // Nothing is renewed any more.
    court.pass(600);
    court.connect(2);
    court.hello(2, 1);
    court.connect(3);
    court.say(3, ClientMessage::AskStanding { query: RequestId(7) });
    assert!(
        matches!(court.heard()[..], [LeaderMessage::Standing { .. }]),
        "operators are answered"
    );
    court.pass(100);
    assert_eq!(court.closed(), []);
    (court.reign, court.stamp) = (Some(ReignKey(98)), court.stamp + 1);
    court.pass(130);
    assert!(matches!(court.heard()[..], [LeaderMessage::NotLeader { try_next: Some(_), .. }]));
    assert_eq!(court.closed(), [(ConnectionId(2), Close::NotLeader)]);
    // None follows for long.
    court.pass(600);
    court.connect(4);
    court.hello(4, 1);
    court.is_reached = false;
    court.pass(490);
    assert_eq!(court.closed(), []);
    court.pass(20);
    assert_eq!(court.closed(), [(ConnectionId(4), Close::NotLeader)]);
}

#[test]
fn a_leader_that_hears_of_a_change_reads_at_once_and_takes_over() {
    let mut court = TestCourt::new();
    court.reign = Some(ReignKey(99));
    court.settle();
    court.pass(150);
    (court.reign, court.stamp) = (None, court.stamp + 1);
    let now = at(court.now);
    court.successor.look_at_journal(now);
    court.settle();
    assert!(court.reign.is_some() && court.successor.leader().is_some());
}

fn standing(court: &mut TestCourt, connection: u64) -> LeaderStanding {
    court.say(connection, ClientMessage::AskStanding { query: RequestId(7) });
    let heard = court.heard();
    let [LeaderMessage::Standing { query: RequestId(7), standing }] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(court.closed(), [], "it is asked and goes on");
    (**standing).clone()
}

#[test]
fn a_leader_tells_its_reign_without_a_session() {
    let mut court = TestCourt::new();
    court.settle();
    court.successor.poll_sweep();
    court.connect(1);
    court.pass(150);
    let told = standing(&mut court, 1);
    assert_eq!((told.rank, told.epoch), (LeaderRank::Reigns, 1));
    assert_eq!((told.cluster, told.lasts), (Some(ClusterId(7)), Some(L)));
    assert_eq!(told.reign, court.reign.map(ReignKey::id));
    // It renews each sixth of L.
    assert!(told.proven.is_some_and(|age| age <= L / 6), "{told:?}");
    assert_eq!((told.journal_took, told.lag), (Some(Duration::ZERO), None));
    assert!(court.recovered.sessions.is_empty());
}

#[test]
fn a_standby_that_is_asked_tells_which_leader_it_stands_by_for() {
    let mut court = TestCourt::new();
    (court.reign, court.recovered.epoch) = (Some(ReignKey(99)), 4);
    court.settle();
    court.connect(1);
    court.pass(300);
    court.is_reached = false;
    court.pass(250);
    let told = standing(&mut court, 1);
    assert_eq!((told.rank, told.epoch), (LeaderRank::StandsBy, 4));
    assert_eq!((told.reign, told.lasts), (Some(ReignKey(99).id()), Some(L)));
    assert_eq!(told.address.as_deref(), Some("10.0.0.9:7420"));
    assert_eq!(told.proven, Some(Duration::from_millis(550)), "its stamp never changed");
    let lag = told.lag.unwrap();
    assert!(lag >= Duration::from_millis(250) && lag < Duration::from_millis(400), "{lag:?}");
}

#[test]
fn a_leader_steps_down_when_it_is_asked_and_stands_by() {
    let mut court = TestCourt::with_holder();
    court.successor.poll_sweep();
    court.connect(2);
    let reign = court.reign.unwrap().id();
    let ask = ClientMessage::StepDown { query: RequestId(3), reign };
    let now = at(court.now);
    let mut turn = court.successor.turn(now).unwrap();
    turn.handle_message(ConnectionId(2), ask.clone());
    // What else came in this turn is heard.
    turn.handle_message(ConnectionId(1), ClientMessage::Renew { sent_at: at(0) });
    court.successor.step_down_if_asked(now);
    let heard = court.heard();
    let said = LeaderMessage::StepsDown { query: RequestId(3), refused: None };
    assert_eq!(heard[0], said, "{heard:?}");
    assert!(court.successor.turn(now).is_none(), "it serves no client any more");
    assert!(court.reign.is_some(), "and then it resigns");
    court.settle();
    assert_eq!(court.reign, None);
    let notices: Vec<_> = std::iter::from_fn(|| court.successor.poll_succession()).collect();
    assert!(
        notices.ends_with(&[SuccessionNotice::HandsOver, SuccessionNotice::HandedOver]),
        "{notices:?}"
    );
    // Another takes over; a question that was sent twice asks nothing of that, nor of this one.
    court.reign = Some(ReignKey(99));
    court.stamp += 1;
    court.pass(200);
    assert_eq!(court.closed().len(), 2);
    court.heard();
    court.connect(3);
    court.say(3, ask);
    let refused = Some(StepDownRefusal::OtherReign);
    assert_eq!(court.heard(), [LeaderMessage::StepsDown { query: RequestId(3), refused }]);
    assert_eq!(standing(&mut court, 3).rank, LeaderRank::StandsBy);
    assert_eq!(court.recovered.sessions.len(), 1, "the holder's session is in the journal");
}

#[test]
fn a_reign_that_is_not_the_one_that_was_named_goes_on() {
    let mut court = TestCourt::with_holder();
    court.connect(2);
    court.say(2, ClientMessage::StepDown { query: RequestId(3), reign: ReignKey(99).id() });
    let refused = Some(StepDownRefusal::OtherReign);
    assert_eq!(court.heard(), [LeaderMessage::StepsDown { query: RequestId(3), refused }]);
    court.successor.step_down_if_asked(at(court.now));
    assert!(court.successor.leader().is_some() && court.reign.is_some());
}

/// Its last records were being written when its reign ended: it takes part as little as one that resigned.
#[test]
fn a_leader_whose_reign_ends_while_it_hands_over_stays_out_for_l() {
    let mut court = TestCourt::with_holder();
    court.is_reached = false;
    let acquire = Acquire::exclusive(Name::new("b").unwrap(), Wait::Forever);
    court.say(1, ClientMessage::Acquire { request: RequestId(2), acquire });
    // It is not proven from 980 ms on, and over a second later.
    court.pass(1_900);
    court.successor.hand_over(at(court.now));
    court.pass(100);
    let notices: Vec<_> = std::iter::from_fn(|| court.successor.poll_succession()).collect();
    assert!(notices.contains(&SuccessionNotice::Ended(ReignEnding::Unproven)), "{notices:?}");
    court.is_reached = true;
    let before = court.reign;
    court.pass(800);
    assert_eq!(court.reign, before, "another is to follow");
    court.pass(400);
    assert_ne!(court.reign, before, "none has");
}
