use std::time::Duration;

use super::{
    court::{Court, MESSAGES_PER_TURN, UNSENT_BYTES_READING},
    *,
};
use crate::{
    host::net::quic::{Port, PortEvent},
    name::Name,
    proto::{
        ConnectionId, ProcessMark, Proof, RequestId, SessionId,
        history::{Notary as _, Seen},
        journal::{
            Appended, JournalHead, JournalTerms, JournalTrouble, ReignAttempt, ReignJournal,
            ReignKey, ReignRenewal, TakeOver,
        },
        record::Record,
        wire::{Acquire, ClientMessage, FRAME_BYTES_MAX, Identity, LeaderMessage, VERSION, Wait},
    },
    time::Time,
    token::Token,
};

/// A client that says what a test wants it to say.
struct RawClient {
    port: Port,
    id: ConnectionId,
}

impl RawClient {
    fn new(number: u64, address: SocketAddr, secret: &Secret) -> RawClient {
        let id = ConnectionId(number);
        let port =
            Port::connect(id, address, &secret.clone().into(), Duration::from_secs(30)).unwrap();
        RawClient { port, id }
    }

    /// What it says waits until it is connected.
    fn say(&mut self, message: &ClientMessage) {
        self.port.write(self.id, message);
    }

    fn hello(&mut self) {
        self.hello_having(None);
    }

    fn hello_having(&mut self, seen: Option<Seen>) {
        let number = self.id.0.into();
        self.say(&ClientMessage::Hello {
            version: VERSION,
            capabilities: 0,
            session: SessionId(number),
            proof: Proof(number),
            count: 1,
            cluster: None,
            seen: seen.map(Box::new),
            time_to_live: Duration::from_secs(60),
            identity: Identity::new("test", "here", 1, "test"),
            process: ProcessMark(1),
        });
        self.say(&ClientMessage::Ready);
    }

    fn drive(&mut self) {
        self.port.receive();
        while let Some(event) = self.port.poll_event() {
            assert!(!matches!(event, PortEvent::Ended(..)), "{event:?}");
        }
        self.port.transmit();
    }

    fn hear(&mut self) -> Option<LeaderMessage> {
        self.port.read(self.id)
    }
}

/// A forged epoch stopped a leader, and the way out used up the last one.
#[test]
fn a_forged_history_moves_no_leader() {
    let (mut reign, address, secret, _directory) = prepare();
    let mut forger = RawClient::new(1, address, &secret);
    let mut honest = RawClient::new(2, address, &secret);
    let welcome = |reign: &mut Court, client: &mut RawClient, seen: Option<Seen>| {
        client.hello_having(seen);
        loop {
            assert!(reign.turn().is_none());
            client.drive();
            if let Some(LeaderMessage::Welcome { cluster, epoch, reign, attestation, .. }) =
                client.hear()
            {
                return Seen { cluster, epoch, reign, attestation };
            }
        }
    };
    let told = welcome(&mut reign, &mut honest, None);
    assert_eq!(told.epoch, 1);
    let forged = Seen { epoch: Token::MAX_EPOCH - 1, ..told };
    assert_eq!(welcome(&mut reign, &mut forger, Some(forged)), told);
    // What it was told itself it may say again, and to each leader of the secret.
    let mut again = RawClient::new(3, address, &secret);
    assert_eq!(welcome(&mut reign, &mut again, Some(told)), told);
    assert!(secret.notary().confirms(&told) && !secret.notary().confirms(&forged));
}

#[test]
fn a_leader_out_of_epochs_says_what_is_left_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    Secret::create(&key).unwrap();
    let builder = || {
        let builder = Leader::builder().listen("127.0.0.1:0").secret_file(&key);
        builder.state_dir(directory.path().join("state")).accept_file_system("tmpfs")
    };
    let last = builder().init(true).epoch_above(Token::MAX_EPOCH - 1);
    drop(last.start().unwrap());
    let error = builder().start().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    let text = error.to_string();
    for words in ["are used up", "8388607", "--init on a new state directory", "forget it"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

fn prepare() -> (Court, SocketAddr, Secret, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    Secret::create(&key).unwrap();
    let (reign, accepted) = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(directory.path().join("state"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(key)
        .prepare()
        .unwrap();
    let address = reign.doors.addresses().unwrap()[0];
    (reign, address, accepted.secret, directory)
}

#[test]
fn a_client_that_asks_for_more_than_it_reads_costs_little_and_delays_no_other() {
    const NAMES: u64 = 200;
    const PAGES: u64 = 400;
    let (mut reign, address, secret, _directory) = prepare();
    let mut greedy = RawClient::new(1, address, &secret);
    let mut modest = RawClient::new(2, address, &secret);
    modest.hello();
    for request in 1..=NAMES {
        let name = Name::new(&format!("{request:0>200}")).unwrap();
        let wait = Wait::Forever;
        let above = Token::ZERO;
        let acquire = Acquire { above, ..Acquire::exclusive(name, wait) };
        modest.say(&ClientMessage::Acquire { request: RequestId(request), acquire });
    }
    let mut granted = 0;
    while granted < NAMES {
        assert!(reign.turn().is_none());
        modest.drive();
        while let Some(message) = modest.hear() {
            granted += u64::from(matches!(message, LeaderMessage::Granted { .. }));
        }
    }

    greedy.hello();
    for query in 1..=PAGES {
        let query = RequestId(query);
        greedy.say(&ClientMessage::List { query, after: None, limit: u32::MAX });
    }
    let renew = ClientMessage::Renew { sent_at: Time::ZERO };
    let (mut paused, mut answers) = (0, 0);
    modest.say(&renew);
    // The modest one goes on for as long as the greedy one reads nothing.
    while paused < 100 || answers < 100 {
        assert!(reign.turn().is_none());
        assert!(reign.successor.poll_message().is_none());
        for id in reign.unread.keys() {
            let unsent = reign.doors.unsent(*id);
            assert!(unsent < UNSENT_BYTES_READING + FRAME_BYTES_MAX + 4, "{unsent}");
            paused += u64::from(!reign.may_read(*id));
        }
        greedy.drive();
        modest.drive();
        while let Some(message) = modest.hear() {
            assert!(matches!(message, LeaderMessage::Renewed { .. }), "{message:?}");
            answers += 1;
            modest.say(&renew);
        }
    }
    // It is not lost: when it reads, it is answered to the last.
    let mut pages = 0;
    while pages < PAGES {
        assert!(reign.turn().is_none());
        greedy.drive();
        while let Some(message) = greedy.hear() {
            pages += u64::from(matches!(message, LeaderMessage::Listed { .. }));
        }
    }
    assert!(reign.unread.keys().all(|id| reign.may_read(*id)));
}

/// One that reads no answers has requests waiting to be read: they were done after the look that refused
/// its credential, with the rights that it had before.
#[test]
fn what_a_peer_that_does_not_read_had_asked_for_ends_with_its_credential() {
    let (mut reign, address, secret, _directory) = prepare();
    let mut modest = RawClient::new(2, address, &secret);
    modest.hello();
    for request in 1..=200 {
        let name = Name::new(&format!("{request:0>200}")).unwrap();
        let acquire = Acquire::exclusive(name, Wait::Forever);
        modest.say(&ClientMessage::Acquire { request: RequestId(request), acquire });
    }
    let mut granted = 0;
    while granted < 200 {
        assert!(reign.turn().is_none());
        modest.drive();
        let heard = std::iter::from_fn(|| modest.hear());
        granted += heard.filter(|it| matches!(it, LeaderMessage::Granted { .. })).count();
    }
    let mut greedy = RawClient::new(1, address, &secret);
    greedy.hello();
    for query in 1..=400 {
        let query = RequestId(query);
        greedy.say(&ClientMessage::List { query, after: None, limit: u32::MAX });
    }
    let acquire = Acquire::exclusive(Name::new("last").unwrap(), Wait::Forever);
    greedy.say(&ClientMessage::Acquire { request: RequestId(1_000), acquire });
    // Until it is not read any more, and a rest of what it has said is there.
    let mut is_paused = false;
    while !is_paused {
        assert!(reign.turn().is_none());
        greedy.drive();
        is_paused = reign.unread.keys().any(|id| !reign.may_read(*id));
    }
    let other = Secret::from_secrets(&[[9; 32]]);
    *reign.shared.accepted_anew.lock() = Some(other.into());
    assert!(reign.turn().is_none());
    assert!(reign.unread.is_empty(), "nothing of it is left to be read");
    let mut ended = false;
    while !ended {
        assert!(reign.turn().is_none());
        greedy.port.receive();
        greedy.port.transmit();
        while let Some(event) = greedy.port.poll_event() {
            ended |= matches!(event, PortEvent::Ended(..));
        }
    }
    let leader = reign.successor.leader().expect("it reigns");
    assert_eq!(leader.survey(1_000).names, 200, "and none was granted since");
}

#[test]
fn what_was_said_before_an_end_counts_however_much_it_was() {
    let (mut reign, address, secret, _directory) = prepare();
    let mut client = RawClient::new(1, address, &secret);
    client.hello();
    let acquire = |text| Acquire::exclusive(Name::new(text).unwrap(), Wait::Forever);
    let x = ClientMessage::Acquire { request: RequestId(1), acquire: acquire("x") };
    client.say(&x);
    let many = 10 * MESSAGES_PER_TURN;
    for _ in 0..many {
        client.say(&ClientMessage::Renew { sent_at: Time::ZERO });
    }
    client.say(&ClientMessage::Goodbye);
    let mut closed = false;
    while !closed {
        assert!(reign.turn().is_none());
        client.port.receive();
        while let Some(event) = client.port.poll_event() {
            closed |= matches!(event, PortEvent::Ended(..));
        }
        client.port.transmit();
    }
    // The goodbye was read, so the lock is free for the next.
    let mut other = RawClient::new(2, address, &secret);
    other.hello();
    other.say(&x);
    let mut granted = false;
    while !granted {
        assert!(reign.turn().is_none());
        other.drive();
        while let Some(message) = other.hear() {
            granted |= matches!(message, LeaderMessage::Granted { .. });
        }
    }
}

/// A journal that several leaders of a test have.
#[derive(Clone)]
pub(in crate::host) struct SharedJournal(pub(in crate::host) Arc<dyn ReignJournal>);

impl fmt::Debug for SharedJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedJournal")
    }
}

impl LeaderBuilder {
    /// Over this journal, with reigns that are believed for so long.
    pub(in crate::host) fn over(
        mut self,
        journal: Arc<dyn ReignJournal>,
        lasts: Duration,
    ) -> LeaderBuilder {
        self.over = Some((SharedJournal(journal), lasts));
        self
    }
}

/// A journal that fails once a test says so.
pub(super) struct FailingJournal {
    pub(super) journal: Arc<dyn ReignJournal>,
    pub(super) shared: Arc<LeaderShared>,
}

impl ReignJournal for FailingJournal {
    fn terms(&self) -> JournalTerms {
        self.journal.terms()
    }

    fn read(&self) -> Result<JournalHead, JournalTrouble> {
        self.journal.read()
    }

    fn take_over(&self, attempt: &ReignAttempt) -> Result<TakeOver, JournalTrouble> {
        self.journal.take_over(attempt)
    }

    fn append(
        &self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> Result<Appended, JournalTrouble> {
        if self.shared.disk_fails.load(Acquire) {
            return Err(JournalTrouble::Failed("no space left on device".to_owned()));
        }
        self.journal.append(reign, number, records)
    }

    fn renew(&self, reign: ReignKey) -> Result<ReignRenewal, JournalTrouble> {
        self.journal.renew(reign)
    }

    fn resign(&self, reign: ReignKey) -> Result<(), JournalTrouble> {
        self.journal.resign(reign)
    }
}
