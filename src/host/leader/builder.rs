//! Sets up a leader: what it is told, and what has to be there before it serves its first client.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

mod place;

use self::place::{JournalPlace, start_member};
use super::{
    Leader, LeaderEvent, LeaderShared, OnAlarm,
    court::{Court, failure, storage_text},
    doors::Doors,
    lanes::Lanes,
    members::Membership,
    reload::Reloader,
    teller::{EventCallbacks, Teller},
};
use crate::{
    clock,
    error::{LockError, LockErrorKind},
    host::{
        net::{
            acceptance::Acceptance,
            address::ListenAddress,
            admission::Admission,
            bell::Bell,
            quic::{Entrance, HANDSHAKES_MAX},
            serials::RevokedSerials,
            tls::{Dialect, Secret},
        },
        process_mark, random,
    },
    proto::{
        TIME_TO_LIVE,
        journal::ReignJournal,
        leader::{LeaderConfig, LeaderTells},
        reign::{REIGN_LASTS, Reign, ReignConfig},
        successor::Successor,
    },
    token::Token,
};

/// Sets up a [`Leader`].
///
/// # Example
/// ```no_run
/// use tierlock::Leader;
///
/// let leader = Leader::builder()
///     .listen("10.0.0.1:7420")
///     .state_dir("/var/lib/tierlock")
///     .secret_file("/etc/tierlock.key")
///     .sessions_max(500)
///     .on_alarm(|text| eprintln!("tierlock: {text}")) // to where operators look
///     .start()?;
/// # drop(leader);
/// # Ok::<(), tierlock::LockError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct LeaderBuilder {
    listen: Option<String>,
    state_dir: Option<PathBuf>,
    journal: Option<String>,
    group: Option<String>,
    member: Option<String>,
    reign_lasts: Option<Duration>,
    address: Option<String>,
    secret_file: Option<PathBuf>,
    revoked_file: Option<PathBuf>,
    time_to_live_max: Duration,
    sessions_max: usize,
    claims_max: usize,
    init: bool,
    epoch_above: Option<u32>,
    accepted_file_systems: Vec<String>,
    on_alarm: OnAlarm,
    callbacks: EventCallbacks,
    #[cfg(feature = "cli")]
    counts: bool,
    /// A journal that others have too, instead of the state directory's, and for how long its reign
    /// is believed.
    #[cfg(test)]
    pub(super) over: Option<(super::tests::SharedJournal, Duration)>,
}

impl LeaderBuilder {
    pub(super) fn new() -> LeaderBuilder {
        LeaderBuilder {
            listen: None,
            state_dir: None,
            journal: None,
            group: None,
            member: None,
            reign_lasts: None,
            address: None,
            secret_file: None,
            revoked_file: None,
            time_to_live_max: *TIME_TO_LIVE.end(),
            sessions_max: LeaderConfig::default().sessions_max,
            claims_max: LeaderConfig::default().claims_max,
            init: false,
            epoch_above: None,
            accepted_file_systems: Vec::new(),
            on_alarm: OnAlarm(Arc::new(|text| eprintln!("tierlock: {text}"))),
            callbacks: EventCallbacks { on_change: Arc::new(|_| {}), on_event: None },
            #[cfg(feature = "cli")]
            counts: false,
            #[cfg(test)]
            over: None,
        }
    }

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
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// let leader = Leader::builder()
    ///     .listen(":7420")
    ///     .state_dir("/var/lib/tierlock") // not a directory that a container forgets
    ///     .secret_file("/etc/tierlock.key")
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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

    /// A file with the serials of credentials that are accepted no longer, one a line; what follows a `#`
    /// is a remark. It is read again every minute and at [`reload`](Leader::reload): replace it by
    /// renaming another to it, since one that is empty or ends within a line is not believed.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// // `tierlock secret issue` says the serial of each credential that it makes
    /// std::fs::write("/etc/tierlock.revoked.new", "0123456789abcdef0123456789abcdef # the laptop that was stolen\n")?;
    /// std::fs::rename("/etc/tierlock.revoked.new", "/etc/tierlock.revoked")?;
    /// let leader = Leader::builder()
    ///     .listen(":7420")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .revoked_file("/etc/tierlock.revoked")
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn revoked_file(mut self, file: impl AsRef<Path>) -> Self {
        self.revoked_file = Some(file.as_ref().to_owned());
        self
    }

    /// The longest time to live it accepts, 1 s to 60 s; 60 s by default. After a restart it waits
    /// this long at most for clients that do not return.
    pub fn time_to_live_max(mut self, time_to_live: Duration) -> Self {
        self.time_to_live_max = time_to_live;
        self
    }

    /// A store that a site runs already, in the place of a state directory: `etcd://HOST[:PORT],…` or
    /// `postgres://USER@HOST[:PORT]/DATABASE`, each in a feature of its own (`etcd`, `postgres`). Any
    /// number of leaders may be started on it; one of them reigns, and the others follow it when it
    /// fails. What they grant stays in memory: the store is asked for a proof each sixth of
    /// [`reign_lasts`](LeaderBuilder::reign_lasts), and for the rare records.
    ///
    /// The store's writers own the locks. It may not lose what it has confirmed: a PostgreSQL with
    /// `fsync = off` is refused, and after a fail-over to an asynchronous replica, or a restored
    /// backup, every leader is started with [`epoch_above`](LeaderBuilder::epoch_above). An address
    /// off this machine needs TLS (`etcds://…`, `postgres://…?sslmode=verify-full`), or
    /// `?plaintext=1`. The options: `?ca=FILE`, the CA that has signed the server's certificate, if
    /// that is none of this system's; `?password_file=FILE`; `?prefix=` (etcd, a folder for it
    /// alone, `tierlock/` by default); `?schema=` and `?cluster=` (PostgreSQL, `public` and `default`).
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// // the same on each machine of a group, with its own address
    /// let leader = Leader::builder()
    ///     .listen("10.0.0.2:7420")
    ///     .journal("postgres://tierlock@127.0.0.1/locks?password_file=/etc/tierlock.pw")
    ///     .secret_file("/etc/tierlock.key")
    ///     .on_change(|text| println!("{text}")) // reigns, stands by, hands over
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn journal(mut self, url: impl Into<String>) -> Self {
        self.journal = Some(url.into());
        self
    }

    /// The members of a group that keeps the journal itself, without a store: three leaders, of which
    /// one may fail, or five, of which two may. `ID=HOST:PORT` for each, with commas between, the same at
    /// each of them; a host may be a name. This leader is the one with the address of
    /// [`listen`](LeaderBuilder::listen), unless [`member`](LeaderBuilder::member) says which. Its part
    /// of the journal is on the disk of its [`state_dir`](LeaderBuilder::state_dir), and one of the
    /// members reigns.
    ///
    /// The first start of all members, with [`init`](LeaderBuilder::init), makes the group, once all have
    /// met. A member that has lost its disk is started with `init` on an empty directory, and waits
    /// without a vote until [`Leader::replace`] (`tierlock replace`) admits it. Members prove to each
    /// other that they have the secret.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// // the same on each of the three machines, with its own address
    /// let leader = Leader::builder()
    ///     .listen("10.0.0.2:7420")
    ///     .group("a=10.0.0.1:7420,b=10.0.0.2:7420,c=10.0.0.3:7420")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .start()?; // the first time, in a set-up step of its own: `.init(true)`
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn group(mut self, members: impl Into<String>) -> Self {
        self.group = Some(members.into());
        self
    }

    /// Which of the [`group`](LeaderBuilder::group)'s members this leader is, where it does not listen at
    /// the address that the others find it by.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// // behind an address translation: the others reach it at 198.51.100.2
    /// let leader = Leader::builder()
    ///     .listen("0.0.0.0:7420")
    ///     .group("a=198.51.100.1:7420,b=198.51.100.2:7420,c=198.51.100.3:7420")
    ///     .member("b")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn member(mut self, id: impl Into<String>) -> Self {
        self.member = Some(id.into());
        self
    }

    /// For how long its reign over a shared journal is believed without a new proof, 250 ms to 10 s;
    /// 1 s by default, and 400 ms in a group. A leader that fails is followed after about this long. It
    /// should be 20 times what the store, or a majority of the group's disks, takes for a write at its
    /// 99th percentile. Times to live are four times this at least.
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use tierlock::Leader;
    ///
    /// let leader = Leader::builder()
    ///     .listen("10.0.0.2:7420")
    ///     .journal("etcd://127.0.0.1:2379")
    ///     .secret_file("/etc/tierlock.key")
    ///     .reign_lasts(Duration::from_secs(3)) // a store that takes up to 150 ms for a write
    ///     .start()?; // managers set a time to live of 12 s at least
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn reign_lasts(mut self, lasts: Duration) -> Self {
        self.reign_lasts = Some(lasts);
        self
    }

    /// Where clients find this leader, for those that ask a leader that stands by: `HOST:PORT`. By
    /// default where it listens, if that is one address.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// How many managers may have locks of it at a time; 10,000 by default. More are refused what
    /// they ask for, except those that come back after a restart.
    ///
    /// One client address (with IPv6 one /64 network), or one credential, gets another session only while it has fewer
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
    /// one client address, or one credential, alone gets half of them. After a restart its clients keep
    /// what they bring back: each address as much as half of this, and leases of up to 131,072
    /// whatever this says. Each takes some
    /// 200 bytes of memory, and up to 700 with the longest of names. One session may hold 65,536
    /// and wait for as many.
    pub fn claims_max(mut self, claims: usize) -> Self {
        self.claims_max = claims;
        self
    }

    /// Makes the journal in the state directory, and the directory if that is missing too, or in the
    /// store. For the first start of the first leader: without it a directory or a store without a
    /// journal is an error, since a volume that is not mounted looks like one, and with it one that
    /// has a journal.
    ///
    /// A program decides on it by a set-up step of its own, never by whether something is there.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// // `shop set-up`, which an operator runs once
    /// let leader = Leader::builder()
    ///     .listen(":7420")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .init(true)
    ///     .start()?;
    /// leader.shutdown(); // from now on it starts without `init`
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
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
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// // The state directory was restored from a copy; the log says that the leader was last in epoch 41.
    /// let leader = Leader::builder()
    ///     .listen(":7420")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .epoch_above(41)
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn epoch_above(mut self, epoch: u32) -> Self {
        self.epoch_above = Some(epoch);
        self
    }

    /// Is called with what an operator has to know though the leader goes on: that two clients
    /// said, after a restart, that they hold the same lock; that a client has seen another history
    /// of this leader's cluster; that the secret file cannot be read again. By default it is written
    /// to standard error. It runs on a thread where it may block.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// # fn page_operator(_: &str) {}
    /// let leader = Leader::builder()
    ///     .listen(":7420")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .on_alarm(|text| page_operator(text)) // a sentence for people: it may change
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn on_alarm(mut self, alarm: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_alarm = OnAlarm(Arc::new(alarm));
        self
    }

    /// Is called with each change of reign over a shared journal, and its reason: that this leader
    /// reigns, stands by, hands over, or has lost its reign. By default with nothing. It runs on a
    /// thread where it may block.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::Leader;
    ///
    /// let leader = Leader::builder()
    ///     .listen("10.0.0.2:7420")
    ///     .journal("etcds://10.0.0.5,10.0.0.6,10.0.0.7")
    ///     .secret_file("/etc/tierlock.key")
    ///     .on_change(|text| println!("{text}")) // it stands by: 10.0.0.1:7420 reigns, in epoch 41
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn on_change(mut self, change: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.callbacks.on_change = Arc::new(change);
        self
    }

    /// Is called with each [`LeaderEvent`]: sessions that open, end, run out or are refused, locks that
    /// are broken or held too long, recalls that are late, limits that are reached, a journal that is
    /// slow, and all that [`on_alarm`](LeaderBuilder::on_alarm) and
    /// [`on_change`](LeaderBuilder::on_change) are told. Grants and releases are no events.
    ///
    /// By default with nothing. It runs on a thread where it may block, one event after the other; of
    /// one kind 1,000 are told in 10 s, and how many more there were.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::{Leader, LeaderEventKind};
    ///
    /// let leader = Leader::builder()
    ///     .listen(":7420")
    ///     .state_dir("/var/lib/tierlock")
    ///     .secret_file("/etc/tierlock.key")
    ///     .on_event(|event| match event.kind() {
    ///         LeaderEventKind::SessionOpened | LeaderEventKind::SessionEnded => {} // not of interest here
    ///         kind => println!("{}: {event}", kind.as_str()),
    ///     })
    ///     .start()?;
    /// # drop(leader);
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn on_event(mut self, event: impl Fn(&LeaderEvent) + Send + Sync + 'static) -> Self {
        self.callbacks.on_event = Some(Arc::new(event));
        self
    }

    /// Has it count what it does, for those that look at it.
    #[cfg(feature = "cli")]
    pub(crate) fn counted(mut self) -> Self {
        self.counts = true;
        self
    }

    /// Starts it. It answers once this returns; one with a journal that others have too may stand by
    /// then, and tells its clients which leader reigns.
    ///
    /// # Errors
    ///
    /// `Config` for a setting that is missing or makes no sense, `Refused` if another leader runs
    /// on the state directory, `Damaged` if that is not what it should be, `Unreachable` if the
    /// journal's store does not answer, `Io`.
    ///
    /// # Example
    /// ```
    /// use tierlock::{Leader, LockErrorKind, Secret};
    ///
    /// # let place = std::env::temp_dir().join(format!("tierlock-doc-start-{}", std::process::id()));
    /// # std::fs::create_dir(&place).unwrap();
    /// let secret_file = place.join("tierlock.key");
    /// Secret::create(&secret_file)?;
    /// let leader = Leader::builder()
    ///     .listen("127.0.0.1:0")
    ///     .state_dir(place.join("leader"))
    ///     .secret_file(secret_file);
    /// # let leader = leader.accept_file_system("tmpfs");
    /// let error = leader.clone().start().unwrap_err();
    /// assert_eq!(error.kind(), LockErrorKind::Config); // a journal is made once, by `init`
    /// let leader = leader.init(true).start()?;
    /// println!("clients find it at {}", leader.local_addr());
    /// # drop(leader);
    /// # std::fs::remove_dir_all(place).unwrap();
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn start(self) -> Result<Leader, LockError> {
        let revoked_file = self.revoked_file.clone();
        let (reign, accepted) = self.prepare()?;
        let addresses = reign.doors.addresses().map_err(failed("the socket has no address"))?;
        let shared = reign.shared.clone();
        let group = reign.group.as_ref().map(Membership::handle);
        let tell = {
            let shared = shared.clone();
            move |news| shared.reloaded(news)
        };
        let reloader = Reloader::start(accepted, revoked_file, tell);
        let reloader = reloader.map_err(failed("cannot start a thread"))?;
        let thread = thread::Builder::new()
            .name("tierlock-leader".into())
            .spawn(move || reign.run())
            .map_err(failed("cannot start a thread"))?;
        Ok(Leader { addresses, reloader, shared, group, thread: Some(thread) })
    }

    /// For how long a reign is believed without a proof, once each number is within its bounds.
    fn reign_lasts_checked(&self) -> Result<Duration, LockError> {
        if !TIME_TO_LIVE.contains(&self.time_to_live_max) {
            return Err(LockError::config("a leader's time_to_live_max is 1 s to 60 s"));
        }
        let lasts = self.reign_lasts.unwrap_or(match self.group.is_some() {
            true => GROUP_REIGN_LASTS_DEFAULT,
            false => REIGN_LASTS_DEFAULT,
        });
        if !REIGN_LASTS.contains(&lasts) {
            return Err(LockError::config("a leader's reign_lasts is 250 ms to 10 s"));
        }
        if self.epoch_above.is_some_and(|epoch| epoch >= Token::MAX_EPOCH) {
            return Err(LockError::config(format!("epochs are below {}", Token::MAX_EPOCH)));
        }
        Ok(lasts)
    }

    /// A reign that has begun and serves no client yet, and what its files had then.
    pub(super) fn prepare(mut self) -> Result<(Court, Acceptance), LockError> {
        let listen = self.listen.take().ok_or_else(|| missing("an address to listen at"))?;
        let secret_file = self.secret_file.take().ok_or_else(|| missing("a secret file"))?;
        let lasts = self.reign_lasts_checked()?;
        let listen: ListenAddress = listen.parse()?;
        let secret = Secret::read(secret_file)?;
        let revoked = self.revoked_file.as_deref().map(RevokedSerials::read).transpose()?;
        let accepted =
            Acceptance { secret: secret.clone(), revoked: revoked.unwrap_or_default().into() };
        let group = self.member_of(&listen)?;
        let (place, own) = self.take_place(lasts)?;
        let admission = Admission::new(connections_max(self.sessions_max), HANDSHAKES_MAX);
        // A journal is made for a leader that starts.
        let dialects = if group.is_some() { &Dialect::ALL[..] } else { &[Dialect::Locks] };
        let entrance = Entrance { accepted: accepted.clone(), own, admission, dialects };
        let doors = listen_at(&listen, &entrance)?;
        let teller = Arc::new(Teller::new(self.callbacks));
        let tells = LeaderTells {
            events: teller.wants_events(),
            #[cfg(feature = "cli")]
            counts: self.counts,
            #[cfg(not(feature = "cli"))]
            counts: false,
        };
        let bell = Bell::new().map_err(failed("cannot make a pipe"))?;
        let shared = Arc::new(LeaderShared::new(bell, teller, self.on_alarm));
        let mut membership = None;
        let mut members = Vec::new();
        let mut address = self.address;
        let (journal, warnings) = match (place, group) {
            (JournalPlace::Directory(_, entered), Some((addresses, own))) => {
                members = addresses.all();
                address = address.or_else(|| addresses.of(&own).map(ToString::to_string));
                let secret = secret.clone();
                let journal = start_member(entered, addresses, own, secret, lasts, shared.clone())?;
                membership = Some(Membership::new(journal.clone()));
                (journal as Arc<dyn ReignJournal>, Vec::new())
            }
            (place, _) => place.open(self.epoch_above)?,
        };
        let config = LeaderConfig {
            time_to_live_max: self.time_to_live_max,
            sessions_max: self.sessions_max,
            claims_max: self.claims_max,
            process: Some(process_mark()),
            notary: Arc::new(secret.notary()),
            tells,
            members,
            has_credentials: self.revoked_file.is_some(),
            ..LeaderConfig::default()
        };
        #[cfg(test)]
        let (journal, lasts) = match self.over {
            Some((shared, lasts)) => (shared.0, lasts),
            None => (journal, lasts),
        };
        let reign = ReignConfig {
            lasts,
            address: address.or_else(|| address_of(&doors)),
            epoch_above: self.epoch_above,
            terms: journal.terms(),
        };
        let reign = Reign::new(reign, Box::new(random), clock::now());
        let mut successor = Successor::new(config, reign);
        if journal.terms().is_exclusive {
            begin_here(&mut successor, &*journal).map_err(|error| storage_failed(&error))?;
        }

        #[cfg(test)]
        let journal: Arc<dyn ReignJournal> =
            Arc::new(super::tests::FailingJournal { journal, shared: shared.clone() });
        let lanes = Lanes::start(&journal, shared.clone());
        let lanes = lanes.map_err(failed("cannot start a thread"))?;
        if let Some(leader) = successor.leader() {
            shared.teller.tell(LeaderEvent::began(leader.epoch()));
        }
        warnings.into_iter().for_each(|warning| shared.sound(warning));
        Ok((Court::new(successor, doors, lanes, shared, membership, tells), accepted))
    }
}

/// For how long a reign is believed without a proof, unless it is set.
const REIGN_LASTS_DEFAULT: Duration = Duration::from_secs(1);

/// The same in a group.
const GROUP_REIGN_LASTS_DEFAULT: Duration = Duration::from_millis(400);

/// Where it listens, if that is an address of one machine.
fn address_of(doors: &Doors) -> Option<String> {
    match doors.addresses().ok()?.as_slice() {
        [address] if !address.ip().is_unspecified() => Some(address.to_string()),
        _ => None,
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

fn storage_failed(error: &str) -> LockError {
    LockError::new(LockErrorKind::Io, storage_text(error))
}
