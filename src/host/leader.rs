//! Runs a leader: moves frames between its port and the protocol, and records to the journal.
//!
//! It decides nothing about locks. One thread serves all connections, a second one waits for the
//! disk, so that no renewal ever does.

mod doors;
mod lanes;
mod reload;

use std::{
    collections::BTreeMap,
    fmt, io, mem,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use self::{
    doors::Doors,
    lanes::Lanes,
    reload::{News, Reloader},
};
use super::{
    journal::{ExclusiveJournal, Journal, JournalOpening},
    net::{
        address::ListenAddress,
        admission::Admission,
        bell::{Bell, LONGEST_SLEEP, Slept},
        own_id::OwnId,
        quic::{CloseCode, Entrance, Event, HANDSHAKES_MAX},
        tls::Secret,
    },
};
use crate::{
    callbacks, clock,
    error::{LockError, LockErrorKind},
    proto::{
        ConnectionId, TIME_TO_LIVE,
        journal::ReignJournal,
        leader::{Close, Config, Notice},
        reign::{REIGN_LASTS, Reign, ReignConfig, ReignEnding},
        successor::{SuccessionNotice, Successor, SuccessorTurn},
        wire::ClientMessage,
    },
    time::Time,
    token::Token,
    watch::Tell,
};

/// A leader running in this process: it grants the locks of [`Scope::Host`](crate::Scope::Host).
///
/// It has a thread of its own and stops when it is dropped. Its clients keep what they hold for
/// their time to live; a leader that is started again on the same state directory lets them
/// report it. How it is operated: the guide's page [`leaders`](crate::guide::leaders).
///
/// # Example
/// ```no_run
/// use tierlock::Leader;
///
/// let leader = Leader::builder()
///     .listen("0.0.0.0:7420")
///     .state_dir("/var/lib/tierlock")
///     .secret_file("/etc/tierlock.key")
///     .start()?; // the first time, in a set-up step of its own: `.init(true)`
/// println!("listening on {}", leader.local_addr());
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Debug)]
pub struct Leader {
    addresses: Vec<SocketAddr>,
    reloader: Option<Reloader>,
    shared: Arc<LeaderShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct LeaderShared {
    bell: Bell,
    stop: AtomicBool,
    on_alarm: OnAlarm,
    /// What the secret file has been changed to.
    new_secret: Mutex<Option<Secret>>,
    end: Mutex<Option<ReignEnd>>,
    ended: Condvar,
    #[cfg(test)]
    disk_fails: AtomicBool,
}

/// What is called with the words of an alarm.
#[derive(Clone)]
struct OnAlarm(Tell);

impl fmt::Debug for OnAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnAlarm")
    }
}

/// How the reign ended.
#[derive(Clone, Debug)]
enum ReignEnd {
    Stopped,
    Failed(LockErrorKind, String),
}

/// Sets up a [`Leader`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct LeaderBuilder {
    listen: Option<String>,
    state_dir: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    time_to_live_max: Duration,
    sessions_max: usize,
    claims_max: usize,
    init: bool,
    epoch_above: Option<u32>,
    accepted_file_systems: Vec<String>,
    on_alarm: OnAlarm,
    /// A journal that others have too, instead of the state directory's, and for how long its reign
    /// is believed.
    #[cfg(test)]
    over: Option<(tests::SharedJournal, Duration)>,
}

impl Leader {
    /// Begins to set up a leader; `listen`, `state_dir` and `secret_file` are needed.
    pub fn builder() -> LeaderBuilder {
        LeaderBuilder {
            listen: None,
            state_dir: None,
            secret_file: None,
            time_to_live_max: *TIME_TO_LIVE.end(),
            sessions_max: Config::default().sessions_max,
            claims_max: Config::default().claims_max,
            init: false,
            epoch_above: None,
            accepted_file_systems: Vec::new(),
            on_alarm: OnAlarm(Arc::new(|text| eprintln!("tierlock: {text}"))),
            #[cfg(test)]
            over: None,
        }
    }

    /// Where it listens, or the first such address; the port is the real one if port 0 was asked
    /// for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All the addresses where it listens.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Reads the secret file again now; it does so every minute in any case. A client with a
    /// secret that is not among those of the file any more loses its connection, and its locks as
    /// if it were silent. A file that is missing or damaged leaves those in force that were read
    /// before, and is told as an alarm.
    pub fn reload(&self) {
        match &self.reloader {
            Some(reloader) => reloader.ask(),
            None => self.shared.sound(
                "the secret came through a pipe, which is read once: restart the leader to give \
                 it another"
                    .to_owned(),
            ),
        }
    }

    /// Stops it in good order: its clients are told, so that they look for another at once. The
    /// same as dropping it.
    pub fn shutdown(self) {}

    /// Why it stopped by itself, if it did: its disk failed, or its state is older than what its
    /// clients have seen.
    pub fn failure(&self) -> Option<LockError> {
        match &*self.shared.end.lock() {
            Some(ReignEnd::Failed(kind, text)) => Some(LockError::new(*kind, text.clone())),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(super) fn fail_the_disk(&self) {
        self.shared.disk_fails.store(true, Release);
    }

    /// Blocks until it stops by itself, and says why.
    pub fn wait(&self) -> LockError {
        let mut end = self.shared.end.lock();
        while end.is_none() {
            self.shared.ended.wait(&mut end);
        }
        drop(end);
        self.failure().unwrap_or_else(|| LockError::config("the leader was stopped"))
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported as the failure that it is.
            let _ = thread.join();
        }
    }
}

impl LeaderBuilder {
    /// Where to listen: `ADDR:PORT`, `ADDR` for port 7420, or `:PORT` for every address of this
    /// machine. Port 0 lets the system choose. Of a name it listens at all addresses that this
    /// machine has.
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen = Some(address.to_string());
        self
    }

    /// The directory for what must survive a restart. It belongs to one leader at a time: a child
    /// that is forked without executing a program keeps it taken until it ends. It is made with
    /// [`init`](LeaderBuilder::init), on a local file system that outlives a restart of the machine.
    ///
    /// As much room as the journal in it takes, 1 MiB at least, is set aside beside it. With a full
    /// disk the leader refuses new sessions and goes on serving those that it has.
    pub fn state_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.state_dir = Some(directory.as_ref().to_owned());
        self
    }

    /// The file with the secret that its clients have, too; see [`Secret`]. It is read again every
    /// minute and at [`reload`](Leader::reload).
    pub fn secret_file(mut self, file: impl AsRef<Path>) -> Self {
        self.secret_file = Some(file.as_ref().to_owned());
        self
    }

    /// The longest time to live it accepts, 1 s to 60 s; 60 s by default. After a restart it waits
    /// this long at most for clients that do not return.
    pub fn time_to_live_max(mut self, time_to_live: Duration) -> Self {
        self.time_to_live_max = time_to_live;
        self
    }

    /// How many managers may have locks of it at a time; 10,000 by default. More are refused what
    /// they ask for, except those that come back after a restart.
    ///
    /// One client address (with IPv6 one /64 network) gets another session only while it has fewer
    /// than are still free: alone it can have half of them, and never keeps the others out. The
    /// same goes for connections, of which there are twice as many, and for
    /// [`claims_max`](LeaderBuilder::claims_max).
    ///
    /// A connection takes some 40 KiB of memory, and up to 1.5 MiB if its peer, which has the
    /// secret, sends what cannot be read, or asks and does not read: where not every client with
    /// the secret can be relied upon, allow no more than twice as many sessions as there are
    /// managers.
    pub fn sessions_max(mut self, sessions: usize) -> Self {
        self.sessions_max = sessions;
        self
    }

    /// How many locks all clients together may hold, wait for or keep taken by `at_least`;
    /// 2,097,152 by default, the last kind 65,536 at most whatever this says. More are refused, and
    /// one client address alone gets half of them. After a restart its clients keep
    /// what they bring back: each address as much as half of this, and leases of up to 131,072
    /// whatever this says. Each takes some
    /// 200 bytes of memory, and up to 700 with the longest of names. One session may hold 65,536
    /// and wait for as many.
    pub fn claims_max(mut self, claims: usize) -> Self {
        self.claims_max = claims;
        self
    }

    /// Makes the journal in the state directory, and the directory if that is missing too. For a
    /// leader's first start: without it a directory without a journal is an error, since a volume
    /// that is not mounted looks like one, and with it a directory that has one.
    ///
    /// A program decides on it by a set-up step of its own, never by whether something is there.
    pub fn init(mut self, init: bool) -> Self {
        self.init = init;
        self
    }

    /// Accepts a state directory on this file system, by its name as the error says it (`tmpfs`,
    /// `nfs`), though it may lose what was written. May be called for several.
    pub fn accept_file_system(mut self, name: impl Into<String>) -> Self {
        self.accepted_file_systems.push(name.into());
        self
    }

    /// Starts above this epoch, granting nothing for 60 s: the way out when the state directory
    /// is a copy, or its journal is damaged or lost. For one start only.
    pub fn epoch_above(mut self, epoch: u32) -> Self {
        self.epoch_above = Some(epoch);
        self
    }

    /// Is called with what an operator has to know though the leader goes on: that two clients
    /// said, after a restart, that they hold the same lock; that a client has seen another history
    /// of this leader's cluster; that the secret file cannot be read again. By default it is written
    /// to standard error. It runs on a thread where it may block.
    pub fn on_alarm(mut self, alarm: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_alarm = OnAlarm(Arc::new(alarm));
        self
    }

    /// Starts it. It answers once this returns.
    ///
    /// # Errors
    ///
    /// `Config` for a setting that is missing or makes no sense, `Refused` if another leader runs
    /// on the state directory, `Damaged` if that is not what it should be, `Io`.
    pub fn start(self) -> Result<Leader, LockError> {
        let (reign, secret) = self.prepare()?;
        let addresses = reign.doors.addresses().map_err(failed("the socket has no address"))?;
        let shared = reign.shared.clone();
        let tell = {
            let shared = shared.clone();
            move |news| shared.reloaded(news)
        };
        let reloader = Reloader::start(secret, tell);
        let reloader = reloader.map_err(failed("cannot start a thread"))?;
        let thread = thread::Builder::new()
            .name("tierlock-leader".into())
            .spawn(move || reign.run())
            .map_err(failed("cannot start a thread"))?;
        Ok(Leader { addresses, reloader, shared, thread: Some(thread) })
    }

    /// A reign that has begun and serves no client yet, and the secret as it was read for it.
    fn prepare(self) -> Result<(Court, Secret), LockError> {
        let listen = self.listen.ok_or_else(|| missing("an address to listen at"))?;
        let state_dir = self.state_dir.ok_or_else(|| missing("a state directory"))?;
        let secret_file = self.secret_file.ok_or_else(|| missing("a secret file"))?;
        if !TIME_TO_LIVE.contains(&self.time_to_live_max) {
            return Err(LockError::config("a leader's time_to_live_max is 1 s to 60 s"));
        }
        if self.epoch_above.is_some_and(|epoch| epoch >= Token::MAX_EPOCH) {
            return Err(LockError::config(format!("epochs are below {}", Token::MAX_EPOCH)));
        }
        let listen: ListenAddress = listen.parse()?;
        let secret = Secret::read(secret_file)?;
        let opening = JournalOpening {
            init: self.init,
            epoch_above: self.epoch_above,
            accepted_file_systems: self.accepted_file_systems,
        };
        let place = Journal::enter(&state_dir, opening)?;
        let admission = Admission::new(connections_max(self.sessions_max), HANDSHAKES_MAX);
        let own = OwnId::of(&state_dir)?;
        // A journal is made for a leader that starts.
        let doors = listen_at(&listen, &Entrance { secret: secret.clone(), own, admission })?;
        let (journal, recovered) = place.open()?;
        if recovered.epoch.max(self.epoch_above.unwrap_or(0)) >= Token::MAX_EPOCH {
            return Err(epochs_used_up(&state_dir));
        }
        let config = Config {
            time_to_live_max: self.time_to_live_max,
            sessions_max: self.sessions_max,
            claims_max: self.claims_max,
            process: Some(super::process_mark()),
            notary: Arc::new(secret.notary()),
            ..Config::default()
        };
        let journal: Arc<dyn ReignJournal> = Arc::new(ExclusiveJournal::new(journal, recovered));
        let lasts = *REIGN_LASTS.end();
        #[cfg(test)]
        let (journal, lasts) = match self.over {
            Some((shared, lasts)) => (shared.0, lasts),
            None => (journal, lasts),
        };
        let reign = ReignConfig {
            lasts,
            address: None,
            epoch_above: self.epoch_above,
            terms: journal.terms(),
        };
        let reign = Reign::new(reign, Box::new(super::random), clock::now());
        let mut successor = Successor::new(config, reign);
        if journal.terms().is_exclusive {
            begin_here(&mut successor, &*journal).map_err(|error| storage_failed(&error))?;
        }

        let bell = Bell::new().map_err(failed("cannot make a pipe"))?;
        let shared = Arc::new(LeaderShared {
            bell,
            stop: AtomicBool::new(false),
            on_alarm: self.on_alarm,
            new_secret: Mutex::new(None),
            end: Mutex::new(None),
            ended: Condvar::new(),
            #[cfg(test)]
            disk_fails: AtomicBool::new(false),
        });
        #[cfg(test)]
        let journal: Arc<dyn ReignJournal> =
            Arc::new(tests::FailingJournal { journal, shared: shared.clone() });
        let lanes = Lanes::start(&journal, shared.clone());
        let lanes = lanes.map_err(failed("cannot start a thread"))?;
        let reign = Court {
            successor,
            doors,
            lanes,
            unread: BTreeMap::new(),
            arrived: Vec::new(),
            slept_on: Vec::new(),
            shared,
        };
        Ok((reign, secret))
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> LockError {
    move |error| LockError::new(LockErrorKind::Io, format!("{what}: {error}")).with_source(error)
}

fn missing(what: &str) -> LockError {
    LockError::config(format!("a leader needs {what}"))
}

/// A session that comes back may have its old connection still, and some only look.
fn connections_max(sessions: usize) -> usize {
    sessions.saturating_mul(2).saturating_add(64)
}

fn listen_at(address: &ListenAddress, entrance: &Entrance) -> Result<Doors, LockError> {
    let opened = address.resolve().and_then(|addresses| Doors::open(&addresses, entrance));
    opened.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::AddrInUse
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied => LockErrorKind::Config,
            _ => LockErrorKind::Io,
        };
        LockError::new(kind, format!("cannot listen at {address}: {error}")).with_source(error)
    })
}

/// Before any client is served: the reign begins, and what it begins with is in the journal, which
/// no other leader has.
fn begin_here(successor: &mut Successor, journal: &dyn ReignJournal) -> Result<(), String> {
    while let Some((id, operation)) = successor.poll_operation(clock::now()) {
        let answer = operation.perform(journal);
        let now = clock::now();
        successor.handle_answer(id, answer, now);
        let _ = successor.turn(now); // the leader hears of it
        if let Some(why) = std::iter::from_fn(|| successor.poll_succession()).find_map(failure) {
            return Err(why);
        }
    }
    successor.poll_sweep(); // there is no connection yet
    Ok(())
}

/// Why it takes no part in the succession any more, if that is the news.
fn failure(notice: SuccessionNotice) -> Option<String> {
    let SuccessionNotice::Ended(ending) = notice else { return None };
    match ending {
        ReignEnding::Failed(text) => Some(text),
        ReignEnding::Restored => Some(
            "it was restored from a copy, or has lost what was written; start every leader of it \
             with --epoch-above"
                .to_owned(),
        ),
        ReignEnding::EpochsUsedUp => Some("its epochs are used up".to_owned()),
        ReignEnding::Deposed | ReignEnding::Unproven => None,
    }
}

fn epochs_used_up(state_dir: &Path) -> LockError {
    LockError::config(format!(
        "the epochs of the state directory {} are used up ({} was the last), so no token is left \
         that exceeds those it gave. What is left to do: stop all its clients; have every resource \
         that keeps a highest token forget it; start a leader with --init on a new state directory, \
         then the clients",
        state_dir.display(),
        Token::MAX_EPOCH
    ))
}

fn storage_failed(error: &str) -> LockError {
    LockError::new(LockErrorKind::Io, storage_text(error))
}

fn storage_text(error: &str) -> String {
    format!("the leader stopped, since its state directory cannot be written: {error}")
}

/// The leader's thread.
struct Court {
    successor: Successor,
    doors: Doors,
    lanes: Lanes,
    /// Connections that may have messages to be read, and whether they have ended meanwhile.
    unread: BTreeMap<ConnectionId, bool>,
    /// The same connections, in the order in which they came to have something.
    arrived: Vec<ConnectionId>,
    /// The sockets, as it slept on them last.
    slept_on: Vec<Slept>,
    shared: Arc<LeaderShared>,
}

/// How many messages of one connection are read before others have their turn.
const MESSAGES_PER_TURN: usize = 256;

/// A connection with so much to be sent is not read until its peer has read some of it: a client
/// that asks for more than it reads fills its own buffers, and not the leader's memory.
const UNSENT_BYTES_READING: usize = 64 << 10;

const LET_IN: &str = "at one time it is either let in or not";

impl Court {
    fn run(mut self) {
        // However this ends, a thread that waits for the end learns of it.
        let _report = Report(self.shared.clone());
        let end = loop {
            if let Some(end) = self.turn() {
                break end;
            }
            self.sleep();
        };
        if let ReignEnd::Stopped = end {
            // What is written now is on the disk before the state directory is free.
            self.begin_to_stop();
            self.ask_journal();
        }
        // Answers that are on their way come before the close.
        self.doors.transmit();
        let reason = match &end {
            ReignEnd::Stopped => "the leader was stopped",
            ReignEnd::Failed(_, text) => text,
        };
        self.doors.close_all(CloseCode::Shutdown, reason);
        self.doors.transmit();
        // No client may send to a port without a leader behind it: the bell drops its sockets, too.
        self.slept_on.clear();
        self.shared.bell.sleep(&[], Duration::ZERO);
        if let ReignEnd::Stopped = end {
            self.finish_writing();
        }
        // The state directory is free once a waiting thread hears of the end.
        let shared = self.shared.clone();
        drop(self);
        shared.end(end);
    }

    /// Looks at everything once; the end, if that is it.
    fn turn(&mut self) -> Option<ReignEnd> {
        if let Some(secret) = self.shared.new_secret.lock().take() {
            self.doors.accept_secret(&secret);
            let notary = Arc::new(secret.notary());
            self.successor.config_mut().notary = notary.clone();
            if let Some(leader) = self.successor.leader_mut() {
                leader.change_notary(notary);
            }
        }
        self.doors.receive();
        let answers: Vec<_> = std::iter::from_fn(|| self.lanes.poll()).collect();
        // The clock is read after what it dates.
        let now = clock::now();
        let mut end = self.shared.stop.load(Acquire).then_some(ReignEnd::Stopped);
        for (id, answer) in answers {
            self.successor.handle_answer(id, answer, now);
        }
        self.successor.handle_timeout(now);
        if self.successor.poll_sweep() {
            self.hang_up();
        }
        while let Some(notice) = self.successor.poll_succession() {
            if let Some(text) = failure(notice) {
                end = Some(ReignEnd::Failed(LockErrorKind::Io, storage_text(&text)));
            }
        }
        self.hand_over_news(now);
        self.pass_on();
        while let Some((id, close)) = self.successor.poll_close() {
            match close {
                Close::Superseded => {
                    self.doors.close(id, CloseCode::Superseded, "a newer connection took over");
                }
                Close::Protocol(what) => self.doors.close(id, CloseCode::Protocol, what),
                Close::Ended => self.doors.close(id, CloseCode::Done, "goodbye"),
                Close::Crowded => {
                    let reason = "too many clients report at once what they hold and wait for; \
                                  let it report again";
                    self.doors.close(id, CloseCode::Busy, reason);
                }
                Close::NotLeader => {
                    // What it is told comes before the close.
                    self.doors.transmit();
                    self.doors.close(id, CloseCode::Shutdown, "another leader reigns");
                }
                Close::Unconfirmed => {
                    let reason = "it reported locks that it cannot have; let it report again";
                    self.doors.close(id, CloseCode::Superseded, reason);
                }
            }
        }
        self.ask_journal();
        while let Some(notice) = self.successor.poll_notice() {
            match notice {
                Notice::Conflict { name, winner, loser } => self.shared.sound(format!(
                    "ALARM: two sessions reported after a restart that they hold {name}; the one \
                     with token {winner} keeps it, the one with token {loser} has lost it. Either \
                     this leader's state directory was restored from a copy, or there is a bug",
                )),
                Notice::OtherHistory { seen, own, pauses, takes } => {
                    self.shared.sound(other_history(seen, own, pauses, takes));
                }
            }
        }
        self.doors.transmit();
        end
    }

    /// Hands over what has arrived, if the reign is proven now; else it is kept.
    fn hand_over_news(&mut self, now: Time) {
        if self.successor.turn(now).is_none() {
            return;
        }
        // What follows from the journal's answers is said before anything else is read.
        self.pass_on();
        let mut turn = self.successor.turn(now).expect(LET_IN);
        while let Some(event) = self.doors.poll_event() {
            match event {
                Event::Connected(id, client) => turn.handle_connected(id, client),
                Event::Readable(id) => {
                    mark_unread(&mut self.unread, &mut self.arrived, id);
                }
                Event::Ended(id, _) => *mark_unread(&mut self.unread, &mut self.arrived, id) = true,
            }
        }
        for id in mem::take(&mut self.arrived) {
            self.read_some(id, now);
            if self.unread.contains_key(&id) {
                self.arrived.push(id);
            }
        }
        if let Some(mut turn) = self.successor.turn(now) {
            turn.handle_timeout();
        }
    }

    /// Asks the journal for what is due.
    fn ask_journal(&mut self) {
        while let Some((id, operation)) = self.successor.poll_operation(clock::now()) {
            self.lanes.send(id, operation);
        }
    }

    /// A leader that has its journal for itself writes what is left; another hands over.
    fn begin_to_stop(&mut self) {
        let now = clock::now();
        if !self.successor.reign().terms().is_exclusive {
            self.successor.hand_over(now);
        } else if let Some(leader) = self.successor.leader_mut() {
            leader.handle_stop(now);
        }
    }

    /// What was to be written is written, and the reign is handed over.
    fn finish_writing(&mut self) {
        while self.successor.reign().is_writing() || self.successor.is_handing_over() {
            match self.lanes.wait(LONGEST_SLEEP) {
                Some((id, answer)) => self.successor.handle_answer(id, answer, clock::now()),
                None => self.successor.handle_timeout(clock::now()),
            }
            self.ask_journal();
        }
    }

    /// Another reign begins: what was said on the connections that there are counts for nothing in it.
    fn hang_up(&mut self) {
        self.doors.close_all(CloseCode::Shutdown, "another reign begins");
        while let Some(event) = self.doors.poll_event() {
            if let Event::Ended(id, _) = event {
                self.doors.forget(id);
            }
        }
        for (id, _) in mem::take(&mut self.unread) {
            self.doors.forget(id);
        }
        self.arrived.clear();
    }

    /// Reads a connection as far as its turn and its peer's own reading allow. Its end comes
    /// after all that it said.
    fn read_some(&mut self, id: ConnectionId, now: Time) {
        for _ in 0..MESSAGES_PER_TURN {
            if !self.may_read(id) {
                return;
            }
            let Some(message) = self.doors.read::<ClientMessage>(id) else {
                if self.unread.remove(&id) == Some(true) {
                    self.turn_at(now).handle_disconnected(id);
                    self.doors.forget(id);
                }
                return;
            };
            self.turn_at(now).handle_message(id, message);
            self.pass_on();
        }
    }

    /// Within a turn, which was let in at this time.
    fn turn_at(&mut self, now: Time) -> SuccessorTurn<'_> {
        self.successor.turn(now).expect(LET_IN)
    }

    fn may_read(&self, id: ConnectionId) -> bool {
        self.doors.unsent(id) < UNSENT_BYTES_READING
    }

    fn pass_on(&mut self) {
        while let Some((id, message)) = self.successor.poll_message() {
            self.doors.write(id, &message);
        }
    }

    fn sleep(&mut self) {
        // A connection that waits for its peer to read is woken by that.
        let is_let_in = !self.successor.is_frozen();
        if is_let_in && self.unread.keys().any(|id| self.may_read(*id)) {
            return;
        }
        let mut limit = LONGEST_SLEEP;
        if let Some(at) = self.successor.poll_timeout() {
            limit = limit.min(at.since(clock::now()));
        }
        if let Some(at) = self.doors.timeout() {
            limit = limit.min(at.saturating_duration_since(Instant::now()));
        }
        self.doors.sockets(&mut self.slept_on);
        self.shared.bell.sleep(&self.slept_on, limit);
    }
}

/// Has it read after those from which something came before; whether it has ended since.
fn mark_unread<'a>(
    unread: &'a mut BTreeMap<ConnectionId, bool>,
    arrived: &mut Vec<ConnectionId>,
    id: ConnectionId,
) -> &'a mut bool {
    unread.entry(id).or_insert_with(|| {
        arrived.push(id);
        false
    })
}

/// What an operator is told when a client has seen another history of the cluster.
fn other_history(seen: u32, own: u32, pauses: Duration, takes: Option<u32>) -> String {
    let pause = match pauses.is_zero() {
        true => "It goes on serving all others".to_owned(),
        false => format!("It grants nothing new for {:.0} s", pauses.as_secs_f64().ceil()),
    };
    let then = match takes {
        Some(takes) => format!("then it takes epoch {takes}, and serves that client too"),
        None => format!(
            "that client is served in some days, when the epoch is above, or at once after a start \
             with --epoch-above {}",
            seen.max(own)
        ),
    };
    format!(
        "ALARM: a client has seen epoch {seen} of this leader's cluster in a reign that this leader, \
         in epoch {own}, does not know: one of two leaders runs on a copy of the other's state, or \
         this state was restored from a copy, and both may grant one lock. {pause}; {then}. Stop \
         whichever of them is not wanted"
    )
}

/// Says that the leader is gone, if nothing better was said: it panicked.
struct Report(Arc<LeaderShared>);

impl Drop for Report {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = "the leader stopped because of an error in its program (a panic)";
            self.0.end(ReignEnd::Failed(LockErrorKind::Io, text.to_owned()));
        }
    }
}

impl AsRef<Bell> for LeaderShared {
    fn as_ref(&self) -> &Bell {
        &self.bell
    }
}

impl LeaderShared {
    /// Tells of something that an operator has to look at.
    fn sound(&self, text: String) {
        let OnAlarm(on_alarm) = self.on_alarm.clone();
        callbacks::run(move || on_alarm(&text));
    }

    /// The secret file was looked at again.
    fn reloaded(&self, news: News) {
        match news {
            News::Secret(secret) => {
                *self.new_secret.lock() = Some(secret);
                self.bell.ring();
            }
            News::Trouble(trouble) => self.sound(format!(
                "ALARM: what was read of the secret file before stays in force, since it cannot \
                 be read again: {trouble}"
            )),
        }
    }

    fn end(&self, end: ReignEnd) {
        self.end.lock().get_or_insert(end);
        self.ended.notify_all();
    }
}

#[cfg(test)]
mod tests;
