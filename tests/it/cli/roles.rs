//! What clients with credentials may do, and what they may not, seen from outside: by the program, and by
//! a client of the test's own, which says what no honest one would.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use tierlock::{
    LockErrorKind, LockManager, LockManagerBuilder, MutexGuard, Name, Token,
    proto::{
        LeaseId, ReignId, RequestId,
        wire::{ClientMessage, HeldLease, LeaderMessage, Mode, Refusal, Wait},
    },
};

use super::*;
use crate::{
    intruder::{ELSEWHERE, Gang, Intruder, Papers, VICTIM, acquire},
    setting::{LONG, LONG_LIFE, new_secret},
};

impl Place {
    /// A new credential of this role, for the label that its file is named after.
    fn issue(&self, role: &str, label: &str, options: &[&str]) -> PathBuf {
        let file = self.path(label);
        let mut issue = tierlock(&["secret", "issue", "--role", role, "--label", label]);
        succeeds(&issue.args(options).arg(self.secret()).arg(&file).output().unwrap());
        file
    }
}

impl Leader {
    /// Clients of the test's own that have this credential.
    fn holders_of(&self, credential: &Path) -> Gang {
        self.holders_at(ELSEWHERE, credential)
    }

    fn holders_at(&self, address: IpAddr, credential: &Path) -> Gang {
        Gang::with(address, &self.address, Papers::issued(credential))
    }

    /// The same with the secret.
    fn owners(&self) -> Gang {
        Gang::new(&self.address, &self.secret)
    }

    fn run_with(&self, credential: &Path) -> Command {
        self.command_with("run", credential)
    }

    fn command_with(&self, subcommand: &str, credential: &Path) -> Command {
        let mut command = tierlock(&[subcommand, "--leader", &self.address, "--secret-file"]);
        command.arg(credential);
        command
    }

    /// A manager of the library, with a secret or a credential.
    fn manager(&self, keys: &Path) -> LockManagerBuilder {
        let locks = LockManager::builder().leaders([self.address.clone()]).secret_file(keys);
        locks.time_to_live(LONG_LIFE).connect_timeout(LONG)
    }
}

#[track_caller]
fn fails_with(output: &Output, status: i32, words: &str) {
    fails(output, status, &[words]);
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

const QUERY: RequestId = RequestId(1_000);

/// What is said of one name beyond taking it.
fn check(text: &str) -> ClientMessage {
    ClientMessage::Check { query: QUERY, name: name(text), token: Token::ZERO }
}

fn break_lock(text: &str) -> ClientMessage {
    ClientMessage::Break { query: QUERY, name: name(text), token: Token::ZERO }
}

fn observe(text: &str) -> ClientMessage {
    ClientMessage::Observe { query: QUERY, name: name(text) }
}

fn step_down() -> ClientMessage {
    ClientMessage::StepDown { query: QUERY, reign: ReignId(0) }
}

fn replace() -> ClientMessage {
    ClientMessage::Replace { query: QUERY, member: "a".to_owned() }
}

impl Intruder<'_> {
    /// The answer to this alone.
    fn asks(&mut self, message: ClientMessage) -> LeaderMessage {
        self.say([message]);
        self.hear()
    }

    #[track_caller]
    fn is_refused(&mut self, message: ClientMessage) {
        let answer = self.asks(message.clone());
        let is_refused =
            matches!(answer, LeaderMessage::Refused { why: Refusal::NotPermitted, .. });
        assert!(is_refused, "{message:?}: {answer:?}");
    }

    /// Takes a free lock.
    #[track_caller]
    fn takes(&mut self, request: u64, text: &str) -> (LeaseId, Token) {
        match self.asks(acquire(request, text, Wait::No)) {
            LeaderMessage::Granted { lease, first, .. } => (lease, first),
            other => panic!("{text}: {other:?}"),
        }
    }

    /// The names that it is shown.
    fn sees(&mut self) -> Vec<String> {
        match self.asks(ClientMessage::List { query: QUERY, after: None, limit: 100 }) {
            LeaderMessage::Listed { locks, more: false, .. } => {
                locks.iter().map(|lock| lock.name.as_str().to_owned()).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A lease as its session reports it.
fn held(text: &str, (lease, token): (LeaseId, Token), reign: ReignId) -> HeldLease {
    HeldLease {
        lease,
        name: name(text),
        first: token,
        last: token,
        last_used: token,
        at_most: None,
        kept: false,
        since: Duration::ZERO,
        leaving: None,
        reign,
        mode: Mode::Exclusive,
        value: None,
    }
}

/// One with a session, and the reign that has welcomed it.
fn welcomed(gang: &Gang) -> (Intruder<'_>, ReignId) {
    let mut intruder = gang.enter().unwrap();
    intruder.hello();
    match intruder.hear() {
        LeaderMessage::Welcome { reign, .. } => (intruder, reign),
        other => panic!("{other:?}"),
    }
}

/// Why a client is not let in: it may hear of that in the midst of its handshake.
fn turned_away(gang: &Gang) -> String {
    gang.enter().map_or_else(|why| why, |intruder| intruder.end())
}

const NOT_FOR_THAT: &str = "its credential is not for what it reports";

#[test]
fn a_reader_sees_its_names_and_changes_nothing() {
    let place = Place::new();
    let leader = place.leader();
    let owners = leader.owners();
    let mut owner = owners.welcome();
    let mine = owner.takes(1, "orders/1");
    owner.takes(2, "users/1");

    let readers = leader.holders_of(&place.issue("read", "auditor", &["--names", "orders/"]));
    let (mut reader, reign) = welcomed(&readers);
    assert_eq!(reader.sees(), ["orders/1"]);
    let answer = reader.asks(check("orders/1"));
    assert!(matches!(answer, LeaderMessage::Checked { good: false, .. }), "{answer:?}");
    let answer = reader.asks(observe("orders/1"));
    assert!(matches!(answer, LeaderMessage::Leads { leader: None, .. }), "{answer:?}");
    let answer = reader.asks(ClientMessage::AskStanding { query: QUERY });
    assert!(matches!(answer, LeaderMessage::Standing { .. }), "{answer:?}");
    let (request, lease) = (QUERY, mine.0);
    let downgrade =
        ClientMessage::Downgrade { request, lease, last_used: mine.1, to: Mode::Shared };
    for message in [
        acquire(1, "orders/1", Wait::No),
        acquire(2, "orders/2", Wait::Forever),
        acquire(3, "users/2", Wait::No),
        check("users/1"),
        observe("users/1"),
        break_lock("orders/1"),
        break_lock("users/1"),
        ClientMessage::Upgrade { request, lease, tries: true },
        downgrade,
        step_down(),
        replace(),
    ] {
        reader.is_refused(message);
    }
    // Nor has it anything to come back with.
    let mut again = readers.enter().unwrap();
    again.come_back_with(&reader, vec![held("orders/1", mine, reign)]);
    assert!(again.end().contains(NOT_FOR_THAT), "{}", again.end());
    let answer =
        owner.asks(ClientMessage::Check { query: QUERY, name: name("orders/1"), token: mine.1 });
    assert!(matches!(answer, LeaderMessage::Checked { good: true, .. }), "{answer:?}");
}

#[test]
fn a_locker_takes_its_names_and_breaks_none() {
    let place = Place::new();
    let leader = place.leader();
    let options = ["--names", "orders/", "--names", "users"];
    let lockers = leader.holders_of(&place.issue("lock", "checkout", &options));
    let mut locker = lockers.welcome();
    let (_, token) = locker.takes(1, "orders/1");
    locker.takes(2, "users");
    let good = ClientMessage::Check { query: QUERY, name: name("orders/1"), token };
    assert!(matches!(locker.asks(good), LeaderMessage::Checked { good: true, .. }));
    for (request, foreign) in
        [(3, "users/1"), (4, "orders"), (5, "Orders/1"), (6, "ordersx"), (7, "user")]
    {
        locker.is_refused(acquire(request, foreign, Wait::Forever));
        locker.is_refused(check(foreign));
        locker.is_refused(observe(foreign));
    }
    let stolen = ClientMessage::Break { query: QUERY, name: name("orders/1"), token };
    for message in [stolen, break_lock("users/1"), step_down(), replace()] {
        locker.is_refused(message);
    }
    // It goes on, and what was refused is held by none.
    locker.takes(8, "orders/2");
    assert_eq!(locker.sees(), ["orders/1", "orders/2", "users"]);
    assert_eq!(leader.owners().welcome().sees(), ["orders/1", "orders/2", "users"]);
}

#[test]
fn an_admin_of_some_names_breaks_these_and_steps_no_leader_down() {
    let place = Place::new();
    let leader = place.leader();
    let owners = leader.owners();
    let mut owner = owners.welcome();
    let (_, mine) = owner.takes(1, "orders/1");
    let (_, other) = owner.takes(2, "users/1");
    let admins = leader.holders_of(&place.issue("admin", "operator", &["--names", "orders/"]));
    let mut admin = admins.welcome();
    let breaks = |text, token| ClientMessage::Break { query: QUERY, name: name(text), token };
    admin.is_refused(breaks("users/1", other));
    for message in [step_down(), replace()] {
        admin.is_refused(message);
    }
    admin.takes(1, "orders/2");
    let answer = admin.asks(breaks("orders/1", mine));
    assert!(matches!(answer, LeaderMessage::Broke { found: true, .. }), "{answer:?}");
    // One for every name is answered as an owner of the secret.
    let admins = leader.holders_of(&place.issue("admin", "root", &[]));
    let mut admin = admins.welcome();
    let answer = admin.asks(step_down());
    assert!(matches!(answer, LeaderMessage::StepsDown { refused: Some(_), .. }), "{answer:?}");
    let answer = admin.asks(replace());
    assert!(matches!(answer, LeaderMessage::Replaced { .. }), "{answer:?}");
}

#[test]
fn a_foreign_lease_is_not_taken_in_while_its_holder_is_awaited() {
    let place = Place::new();
    let mut leader = place.leader();
    let address = leader.address.clone();
    let credential = place.issue("lock", "checkout", &["--names", "orders/"]);
    let (owners, lockers) = (leader.owners(), leader.holders_of(&credential));
    let ((mut owner, reign), (mut locker, _)) = (welcomed(&owners), welcomed(&lockers));
    let theirs = owner.takes(1, "users/1");
    let own = locker.takes(1, "orders/1");
    leader.stop();
    let leader = place.leader_at(&address, &[]);
    // The session is its own; the lease is another's, and it knows all of it.
    let (owners, lockers) = (leader.owners(), leader.holders_of(&credential));
    let mut thief = lockers.enter_at_last();
    let leases = vec![held("orders/1", own, reign), held("users/1", theirs, reign)];
    thief.come_back_with(&locker, leases);
    assert!(thief.end().contains(NOT_FOR_THAT), "{}", thief.end());
    // Nothing of that report counts: both come back with what they have, and keep it.
    let mut again = owners.enter_at_last();
    again.come_back_with(&owner, vec![held("users/1", theirs, reign)]);
    let answer = again.hear();
    assert!(matches!(answer, LeaderMessage::Welcome { .. }), "{answer:?}");
    let mut again_locker = lockers.enter_at_last();
    again_locker.come_back_with(&locker, vec![held("orders/1", own, reign)]);
    let answer = again_locker.hear();
    assert!(matches!(answer, LeaderMessage::Welcome { .. }), "{answer:?}");
    for (holder, text, (_, token)) in
        [(&mut again, "users/1", theirs), (&mut again_locker, "orders/1", own)]
    {
        let good = ClientMessage::Check { query: QUERY, name: name(text), token };
        assert!(matches!(holder.asks(good), LeaderMessage::Checked { good: true, .. }), "{text}");
    }
}

#[test]
fn a_report_of_foreign_waiting_counts_for_nothing() {
    let place = Place::new();
    let leader = place.leader();
    let credential = place.issue("lock", "checkout", &["--names", "orders/"]);
    let lockers = leader.holders_of(&credential);
    let mut locker = lockers.enter().unwrap();
    let waiting = |request, text| tierlock::proto::wire::WaitingRequest {
        request: RequestId(request),
        place: None,
        acquire: crate::intruder::wish(text, Wait::Forever, Token::ZERO),
    };
    locker.report(vec![waiting(1, "orders/1"), waiting(2, "users/1")]);
    assert!(locker.end().contains(NOT_FOR_THAT), "{}", locker.end());
    assert_eq!(leader.owners().welcome().sees(), Vec::<String>::new());
}

#[test]
fn a_session_belongs_to_its_label_in_every_reign() {
    const OTHERS: &str = "the session belongs to another credential";
    let place = Place::new();
    let mut leader = place.leader();
    let address = leader.address.clone();
    let [checkout, other] =
        ["checkout", "billing"].map(|label| place.issue("lock", label, &["--names", "orders/"]));
    let lockers = leader.holders_of(&checkout);
    let (mut locker, reign) = welcomed(&lockers);
    let own = locker.takes(1, "orders/1");
    let owner_gang = leader.owners();
    let (owner, _) = welcomed(&owner_gang);
    let lease = || vec![held("orders/1", own, reign)];
    for reign_over in [false, true] {
        if reign_over {
            leader.stop();
            leader = place.leader_at(&address, &[]);
        }
        // They know its id and its proof, and what it holds.
        for gang in [leader.holders_of(&other), leader.owners()] {
            let mut thief = gang.enter_at_last();
            thief.come_back_with(&locker, lease());
            assert!(thief.end().contains(OTHERS), "{}", thief.end());
        }
        // Nor does a session of the secret belong to a label.
        let gang = leader.holders_of(&checkout);
        let mut thief = gang.enter_at_last();
        thief.come_back_with(&owner, Vec::new());
        if !reign_over {
            assert!(thief.end().contains(OTHERS), "{}", thief.end());
        }
    }
    // Issued again, with another key and serial: the label counts.
    fs::rename(&checkout, place.path("before")).unwrap();
    let again = place.issue("lock", "checkout", &["--names", "orders/"]);
    let gang = leader.holders_of(&again);
    let mut again = gang.enter_at_last();
    again.come_back_with(&locker, lease());
    let answer = again.hear();
    assert!(matches!(answer, LeaderMessage::Welcome { .. }), "{answer:?}");
    let good = ClientMessage::Check { query: QUERY, name: name("orders/1"), token: own.1 };
    assert!(matches!(again.asks(good), LeaderMessage::Checked { good: true, .. }));
}

#[test]
fn what_a_leader_does_not_know_of_a_credential_is_refused() {
    let place = Place::new();
    let leader = place.leader();
    let enters = |uri: &str| {
        let papers = Papers::signed(&leader.secret, "checkout", uri);
        let gang = Gang::with(ELSEWHERE, &leader.address, papers);
        let mut intruder = gang.enter()?;
        // The leader judges when the client believes the handshake to be over.
        intruder.try_hello()?;
        intruder.try_hear().map(drop)
    };
    enters("tierlock:lock?names=orders%2F&ttl-max-ms=60000").unwrap();
    for uri in [
        "tierlock:lock?names=orders%2F&hours=9-17",
        "tierlock:lock?names=",
        "tierlock:owner",
        "tierlock:member",
        "tierlock:",
        "https://example.org/lock",
    ] {
        assert!(enters(uri).is_err(), "{uri}");
    }
}

#[test]
fn a_clients_credential_is_good_for_no_protocol_of_members() {
    let place = Place::new();
    let ports = [(); 3].map(|()| Port::claim());
    let addresses = ports.iter().zip(["a", "b", "c"]);
    let group: Vec<_> = addresses.map(|(port, id)| format!("{id}={}", port.address())).collect();
    let address = ports[0].address().to_string();
    let leader = place.leader_at(&address, &["--group", &group.join(",")]);
    let credential = place.issue("admin", "operator", &[]);
    let owner = Papers::signed(&leader.secret, "tierlock client", "tierlock:admin");
    for papers in [Papers::issued(&credential), owner] {
        let gang = Gang::with(ELSEWHERE, &leader.address, papers.for_protocol("tierlock-group/1"));
        let why = turned_away(&gang);
        assert!(why.contains("its role is for something else"), "{why}");
    }
    // And a member's for no locks.
    let member = Papers::signed(&leader.secret, "tierlock client", "tierlock:member");
    let gang = Gang::with(ELSEWHERE, &leader.address, member);
    let why = turned_away(&gang);
    assert!(why.contains("its role is for something else"), "{why}");
}

#[test]
fn a_time_to_live_beyond_the_credentials_is_refused() {
    let place = Place::new();
    let leader = place.leader();
    let credential = place.issue("lock", "checkout", &["--ttl-max", "5s"]);
    let lockers = leader.holders_of(&credential);
    // It asks for 60 s.
    let mut locker = lockers.welcome();
    let answer = locker.asks(acquire(1, "a", Wait::No));
    assert!(
        matches!(answer, LeaderMessage::Refused { why: Refusal::TimeToLive, .. }),
        "{answer:?}"
    );
    let mut run = leader.run_with(&credential);
    succeeds(&run.args(["--ttl", "5s", "a", "--", "true"]).output().unwrap());
    let output = leader.run_with(&credential).args(["--ttl", "6s", "a", "--", "true"]).output();
    fails_with(&output.unwrap(), 77, "time_to_live");
}

/// Adds a serial to the leader's revocation file, as a whole.
fn revoke(file: &Path, credential: &Path) {
    let serial = tierlock::Credential::read(credential).unwrap().serial();
    let text = fs::read_to_string(file).unwrap() + &serial + "\n";
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}

#[test]
fn a_revoked_credential_is_out_and_no_other_is() {
    let place = Place::new();
    let file = place.path("revoked");
    fs::write(&file, "# none\n").unwrap();
    let leader = place.leader_with(&["--revoked", file.to_str().unwrap()]);
    let [stolen, good] = ["stolen", "good"].map(|label| place.issue("lock", label, &[]));
    let (stolen_gang, good_gang) = (leader.holders_of(&stolen), leader.holders_of(&good));
    let (mut thief, mut locker) = (stolen_gang.welcome(), good_gang.welcome());
    thief.takes(1, "a");
    locker.takes(1, "b");
    revoke(&file, &stolen);
    leader.process.signal(Signal::HUP);
    assert!(thief.end().contains("was revoked"), "{}", thief.end());
    let why = turned_away(&stolen_gang);
    assert!(why.contains("was revoked"), "{why}");
    fails_with(
        &leader.run_with(&stolen).args(["c", "--", "true"]).output().unwrap(),
        77,
        "revoked",
    );
    locker.takes(2, "c");
    drop((thief, locker));
    // Half of another list: the old one stays in force, and the operator hears of it.
    let mut leader = leader;
    let text = fs::read_to_string(&file).unwrap();
    for half in [&text[..text.len() - 2], ""] {
        fs::write(&file, half).unwrap();
        leader.process.signal(Signal::HUP);
        let alarm = leader.process.error_line();
        assert!(alarm.contains("ALARM: the revocation file cannot be read again"), "{alarm}");
        let why = turned_away(&stolen_gang);
        assert!(why.contains("was revoked"), "{why}");
    }
    succeeds(&leader.run_with(&good).args(["d", "--", "true"]).output().unwrap());
    // At a start there is no old one.
    for (half, why) in [(&text[..text.len() - 2], "ends within a line"), ("", "is empty")] {
        fs::write(&file, half).unwrap();
        let other = Place::new();
        let mut serve = other.serve("127.0.0.1:0");
        serve.arg("--init").arg("--revoked").arg(&file);
        fails_with(&serve.output().unwrap(), 78, why);
    }
}

#[test]
fn a_credential_past_its_end_is_out() {
    let place = Place::new();
    let mut leader = place.leader_with(&["--log", "text"]);
    let file = place.path("brief");
    let ends = SystemTime::now() + Duration::from_secs(2);
    let issued = tierlock::Secret::read(&leader.secret).unwrap();
    issued.issue(tierlock::Role::Lock, "brief").until(ends).write(&file).unwrap();
    let gang = leader.holders_of(&file);
    let mut locker = gang.welcome();
    locker.takes(1, "a");
    eventually("it is past its end", || (SystemTime::now() > ends).then_some(()));
    leader.process.signal(Signal::HUP);
    assert!(locker.end().contains("this credential has ended"), "{}", locker.end());
    let again = gang.enter().and_then(|mut again| {
        again.try_hello()?;
        again.try_hear().map(drop)
    });
    again.unwrap_err();
    // A certificate is good to the end of the second, and what comes until then is turned away behind the handshake.
    let over = ends + Duration::from_secs(1);
    eventually("its last second is over", || (SystemTime::now() > over).then_some(()));
    fails_with(
        &leader.run_with(&file).args(["a", "--", "true"]).output().unwrap(),
        77,
        "has ended",
    );
    // The operator is told of those, too, that come with it anew: not that they have another secret.
    let told = "session refused: the credential of a client at 127.0.0.1 has ended";
    super::logging::lines_until(&mut leader, |line| line.ends_with(told));
}

#[test]
fn a_credential_has_half_of_what_is_free_wherever_it_is_used() {
    let place = Place::new();
    let leader = place.leader_with(&["--sessions-max", "4"]);
    let [one, other] = ["one", "other"].map(|label| place.issue("lock", label, &[]));
    let at = |address, credential| leader.holders_at(address, credential);
    let (here, there) = (at(ELSEWHERE, &one), at(VICTIM, &one));
    let (mut first, mut second, mut third) = (here.welcome(), there.welcome(), there.welcome());
    first.takes(1, "1");
    second.takes(1, "2");
    let answer = third.asks(acquire(1, "3", Wait::No));
    let is_full = matches!(answer, LeaderMessage::Refused { why: Refusal::TooManySessions, .. });
    assert!(is_full, "{answer:?}");
    // Another credential at the same address has its own share.
    let others = at(VICTIM, &other);
    others.welcome().takes(1, "3");
}

#[test]
fn a_label_is_proved_by_a_credential_and_else_claimed() {
    let place = Place::new();
    let leader = place.leader();
    let credential = place.issue("lock", "checkout", &[]);
    let holding = |mut command: Command, text: &str| {
        let mut holder =
            Running::start(command.args(["--label", "boss", text]).stdin(Stdio::piped()));
        assert!(holder.line().starts_with("token"));
        holder
    };
    let shown = |text: &str| {
        let shown = shown_name(leader.command("status"), text);
        let holder = &shown["holder"];
        (holder["label"].as_str().unwrap().to_owned(), holder["label_is_proved"].as_bool())
    };
    // While there is one secret alone, all labels are alike.
    let _claimed = holding(leader.command("hold"), "b");
    assert_eq!(shown("b"), ("boss".to_owned(), None));
    let why = |text: &str| succeeds(&leader.command("why").arg(text).output().unwrap());
    assert!(!why("b").contains("as it claims"), "{}", why("b"));
    let proved = holding(leader.command_with("hold", &credential), "a");
    assert_eq!(shown("a"), ("checkout".to_owned(), Some(true)));
    assert_eq!(shown("b"), ("boss".to_owned(), Some(false)));
    let table = succeeds(&leader.command("status").output().unwrap());
    let line = |text: &str| table.lines().find(|line| line.starts_with(text)).unwrap().to_owned();
    assert!(line("b ").contains("boss, as it claims, on "), "{table}");
    assert!(line("a ").contains("checkout") && !line("a ").contains("as it claims"), "{table}");
    // One that is claimed is marked also where it is shown alone.
    drop(proved);
    assert!(why("b").starts_with("b is held by boss, as it claims, on "), "{}", why("b"));
    let refused = leader.command("run").args(["-n", "b", "--", "true"]).output().unwrap();
    fails(&refused, 75, &["boss, as it claims, on "]);
}

#[test]
fn a_leader_that_is_told_of_credentials_marks_claimed_labels_from_the_start() {
    let place = Place::new();
    let revoked = place.path("revoked");
    fs::write(&revoked, "# none\n").unwrap();
    let leader = place.leader_with(&["--revoked", revoked.to_str().unwrap()]);
    let mut holder =
        Running::start(leader.command("hold").args(["--label", "boss", "b"]).stdin(Stdio::piped()));
    assert!(holder.line().starts_with("token"));
    let why = succeeds(&leader.command("why").arg("b").output().unwrap());
    assert!(why.starts_with("b is held by boss, as it claims, on "), "{why}");
}

#[test]
fn the_program_with_a_credential_takes_its_names_alone() {
    let place = Place::new();
    let leader = place.leader();
    let credential = place.issue("lock", "checkout", &["--names", "orders/"]);
    let run =
        |text: &str| leader.run_with(&credential).args([text, "--", "true"]).output().unwrap();
    succeeds(&run("orders/1"));
    fails_with(&run("users/1"), 77, "credential is not for that");
    let mut breaks = leader.command_with("break", &credential);
    fails_with(
        &breaks.args(["orders/1", "--token", "1"]).output().unwrap(),
        77,
        "credential is not for",
    );
    let mut steps = leader.command_with("step-down", &credential);
    let output = steps.output().unwrap();
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    // No leader serves with it.
    let mut serve =
        tierlock(&["serve", "--listen", "127.0.0.1:0", "--init", "--accept-fs", "tmpfs"]);
    serve.arg("--state-dir").arg(place.path("other")).arg("--secret-file").arg(&credential);
    fails_with(&serve.output().unwrap(), 78, "leaders serve with the secret itself");
    // What it may not see is not told to be free.
    let status = |keys: &Path| leader.command_with("status", keys).arg("users/1").output().unwrap();
    succeeds(&status(&leader.secret));
    fails_with(&status(&credential), 77, "credential is not for that");
    // A reader looks.
    let reader = place.issue("read", "auditor", &["--names", "orders/"]);
    succeeds(&leader.command_with("status", &reader).output().unwrap());
    let output = leader.run_with(&reader).args(["orders/1", "--", "true"]).output().unwrap();
    fails_with(&output, 77, "credential is not for that");
}

#[test]
fn a_credential_is_shown_and_never_overwritten() {
    let place = Place::new();
    let options = ["--names", "orders/", "--until", "2999-01-31", "--ttl-max", "5s"];
    let credential = place.issue("lock", "checkout", &options);
    let show = |file: &Path| succeeds(&tierlock(&["secret", "show"]).arg(file).output().unwrap());
    let shown = show(&credential);
    let serial = tierlock::Credential::read(&credential).unwrap().serial();
    assert_eq!(
        shown,
        format!(
            "serial   {serial}\nrole     lock\nnames    orders/\nlabel    checkout\n\
             ends     2999-01-31T00:00:00Z\nttl-max  5s\n"
        )
    );
    let secret = place.secret();
    let hidden = fs::read_to_string(&secret).unwrap();
    let shown = show(&secret);
    assert!(shown.contains("role     admin") && !shown.contains(hidden.trim()), "{shown}");
    let issue = |options: &[&str]| {
        let mut issue = tierlock(&["secret", "issue", "--role", "lock"]);
        issue.args(options).arg(&secret).arg(&credential).output().unwrap()
    };
    fails_with(&issue(&["--label", "checkout"]), 78, "never overwritten");
    fails_with(&issue(&["--label", "checkout", "--names", ""]), 78, "name");
    fails_with(&issue(&["--label", "checkout", "--until", "2001-01-01"]), 78, "in the future");
    fails_with(&issue(&["--label", "checkout", "--until", "tomorrow"]), 64, "2027-01-31");
    fails_with(&issue(&[]), 64, "--label");
    // A credential issues none.
    let mut again = tierlock(&["secret", "issue", "--role", "lock", "--label", "a"]);
    let output = again.arg(&credential).arg(place.path("more")).output().unwrap();
    fails_with(&output, 78, "credentials are issued from it");
}

/// The last is the old one once the new one is the first, and what it signs ends with it.
#[test]
fn of_several_secrets_it_is_said_which_one_has_signed() {
    let place = Place::new();
    let [one, other] = ["one", "other"].map(|text| {
        let file = place.path(text);
        new_secret(&file);
        fs::read_to_string(file).unwrap().trim().to_owned()
    });
    let secrets = place.path("secrets");
    let issue = |label: &str| {
        let mut issue = tierlock(&["secret", "issue", "--role", "lock", "--label", label]);
        succeeds(&issue.arg(&secrets).arg(place.path(label)).output().unwrap())
    };
    write_secrets(&secrets, &[&one]);
    assert!(!issue("a").contains("signed"));
    write_secrets(&secrets, &[&one, &other]);
    let told = issue("b");
    assert!(told.ends_with("signed   by secret 2 of 2, the last line\n"), "{told}");
}

/// Every file is replaced as a whole: a reader sees the one or the other.
fn write_secrets(file: &Path, secrets: &[&str]) {
    let next = file.with_extension("next");
    crate::setting::private_file(&next, &(secrets.join("\n") + "\n"));
    fs::rename(next, file).unwrap();
}

#[test]
fn secrets_are_exchanged_under_load_and_no_lock_is_lost() {
    let place = Place::new();
    let leader = place.leader();
    let of_leader = leader.secret.clone();
    let [of_client, new] = ["client", "new"].map(|text| place.path(text));
    fs::copy(&of_leader, &of_client).unwrap();
    new_secret(&new);
    let read_secret = |file: &Path| fs::read_to_string(file).unwrap().trim().to_owned();
    let (old, new) = (read_secret(&of_leader), read_secret(&new));
    let credential = place.issue("lock", "checkout", &["--names", "orders/"]);
    let managers = [&of_client, &credential].map(|keys| leader.manager(keys).open().unwrap());
    // One lock of each is held all the time, another taken and released again and again.
    let held: Vec<_> = managers
        .iter()
        .zip(["orders/held/1", "orders/held/2"])
        .map(|(locks, text)| locks.mutex(text, ()).lock().unwrap())
        .collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let counts = [(); 2].map(|()| std::sync::atomic::AtomicU64::new(0));
    use std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for ((locks, count), text) in managers.iter().zip(&counts).zip(["orders/1", "orders/2"]) {
            let is_over = &is_over;
            scope.spawn(move || {
                let mutex = locks.mutex(text, ()).build().unwrap();
                while !is_over.load(Relaxed) {
                    let mut guard = mutex.lock().unwrap();
                    *guard = ();
                    MutexGuard::check(&guard).unwrap();
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let turn = |step: &str| {
                let before = counts.each_ref().map(|count| count.load(Relaxed));
                eventually(step, || {
                    let is_past = |(now, before): (&_, _)| {
                        std::sync::atomic::AtomicU64::load(now, Relaxed) > before + 20
                    };
                    counts.iter().zip(before).all(is_past).then_some(())
                });
            };
            let reload = |secrets: &[&str]| {
                write_secrets(&of_leader, secrets);
                leader.process.signal(Signal::HUP);
            };
            turn("all go on with the old one");
            reload(&[&old, &new]);
            turn("the new one is second at the leader");
            write_secrets(&of_client, &[&old, &new]);
            let issued = place.path("issued");
            let secrets = tierlock::Secret::read(&of_leader).unwrap();
            let issue = secrets.issue(tierlock::Role::Lock, "checkout").names(["orders/"]);
            issue.write(&issued).unwrap();
            fs::rename(&issued, &credential).unwrap();
            turn("it is second at the client, and the credential is issued anew");
            reload(&[&new, &old]);
            write_secrets(&of_client, &[&new, &old]);
            turn("it is first");
            reload(&[&new]);
            write_secrets(&of_client, &[&new]);
            // What is accepted no longer is out, and both have come back with the new one by then.
            let foreign = place.path("foreign");
            write_secrets(&foreign, &[&old]);
            eventually("the old one is refused", || {
                let locks = leader.manager(&foreign).open().unwrap();
                let tried = locks.mutex("foreign", ()).try_lock();
                tried.is_err_and(|error| error.kind() == LockErrorKind::Refused).then_some(())
            });
            turn("the old one is out");
        }));
        is_over.store(true, Relaxed);
        ended.unwrap();
    });
    for guard in &held {
        MutexGuard::check(guard).unwrap();
    }
}
