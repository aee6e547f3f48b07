//! Locks that belong to a session of a database, as PostgreSQL's advisory locks and MySQL's `GET_LOCK`
//! do: the server releases them when the session's connection ends.
//!
//! One connection of a manager, its *base*, carries every attempt that does not wait, and what it
//! takes. A wait at the server blocks its connection, so each has a *spare* one, which then holds that
//! lock alone; beyond the limit of connections a wait looks again and again instead.
//!
//! A session may take a lock twice, and then has to give it up twice. So a manager makes one attempt
//! of a name at a time, and an attempt that ends without an answer is seen to its end before the next
//! begins on the same session.
//!
//! A lock is believed in until the deadline of its session, which counts from the sending of the last
//! request that was answered. It is lost as soon as the connection ends.

mod sessions;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use self::sessions::{AdvisorySession, AdvisorySessions, SessionUse};
use super::{
    engine::{EngineAbilities, EngineFinding, EngineGrant, EngineLock, LockEngine, Renewal},
    fault::EngineFault,
    session_life::SessionLife,
    slots::{NameSlot, NameSlots},
    wish::Wish,
};
use crate::{
    clock, error::Result, host::service_url::ServiceUrl, name::Name, time::Time, token::Token,
};

/// A database whose sessions hold locks. A future of these that is dropped may have been carried out.
pub(super) trait AdvisoryDatabase: Send + Sync + 'static {
    /// A connection. Its locks are given up when it is dropped.
    type Connection: Send + Sync + 'static;

    fn shown(&self) -> String;

    /// Whether its locks can be shared.
    fn shares(&self) -> bool;

    /// How long an answer is waited for.
    fn patience(&self) -> Duration;

    /// What the name is at the server, or why it cannot be one.
    fn key(&self, name: &Name) -> Result<String>;

    /// Connects; `end` is told once the connection has ended.
    fn open(
        &self,
        end: SessionEnd,
    ) -> impl Future<Output = Result<Self::Connection, EngineFault>> + Send;

    /// Takes a lock, with a token above the known one; `None` if another session has it, which a wait
    /// waits for. After an error the session may have it all the same.
    fn take(
        &self,
        connection: &Self::Connection,
        wanted: &WantedKey,
        waits: bool,
    ) -> impl Future<Output = Result<Option<Token>, EngineFault>> + Send;

    /// Gives a lock up once; whether the session had it.
    fn give(
        &self,
        connection: &Self::Connection,
        wanted: &WantedKey,
    ) -> impl Future<Output = Result<bool, EngineFault>> + Send;

    /// For each of these: whether a session waits for it.
    fn are_wanted(
        &self,
        connection: &Self::Connection,
        held: &[WantedKey],
    ) -> impl Future<Output = Result<Vec<bool>, EngineFault>> + Send;

    /// Whether the session is one at the server that others take their locks at.
    fn ping(
        &self,
        connection: &Self::Connection,
    ) -> impl Future<Output = Result<bool, EngineFault>> + Send;

    /// Has the server end what the session waits for.
    fn interrupt(&self, connection: &Self::Connection) -> impl Future<Output = ()> + Send;

    /// Ends the connection at once.
    fn close(&self, connection: &Self::Connection);

    /// As [`LockEngine::look`].
    fn look(
        &self,
        connection: &Self::Connection,
        only: Option<&Name>,
    ) -> impl Future<Output = Result<Vec<EngineLock>, EngineFault>> + Send;

    /// As [`LockEngine::examine`].
    fn examine(
        &self,
        connection: &Self::Connection,
    ) -> impl Future<Output = Result<Vec<EngineFinding>, EngineFault>> + Send;

    /// As [`LockEngine::place`].
    fn place(&self) -> Option<String>;

    /// As [`LockEngine::break_advice`].
    fn break_advice(&self, name: &Name) -> String;
}

/// What is asked of a session.
#[derive(Clone, Debug)]
pub(super) struct WantedKey {
    pub(super) key: String,
    pub(super) name: Name,
    pub(super) above: Token,
    /// AdvisorySessions that share it have it together.
    pub(super) is_shared: bool,
}

/// Tells that a connection has ended.
#[derive(Clone)]
pub(super) struct SessionEnd {
    life: Arc<SessionLife>,
    news: Arc<Notify>,
}

impl SessionEnd {
    pub(super) fn tell(&self) {
        self.life.end();
        self.news.notify_one();
    }
}

/// Locks of one database.
pub(super) struct AdvisoryEngine<D: AdvisoryDatabase> {
    core: Arc<AdvisoryCore<D>>,
    slots: NameSlots,
}

/// What attempts go on with after their callers.
struct AdvisoryCore<D: AdvisoryDatabase> {
    database: D,
    sessions: AdvisorySessions<D>,
    time_to_live: Duration,
}

/// One grant: a lock of a session.
pub(super) struct AdvisoryHold<D: AdvisoryDatabase> {
    session: Arc<AdvisorySession<D>>,
    wanted: WantedKey,
    _use: Arc<SessionUse<D>>,
    /// No other attempt of the name begins before this lock is given up.
    _slot: Arc<NameSlot>,
}

/// So many connections of a manager unless `?connections=` says otherwise.
const CONNECTIONS: usize = 10;

/// Takes the options out that both databases have: whether a pooler gives each client a session of its
/// own, and how many connections there may be.
pub(super) fn take_session_options(url: &mut ServiceUrl) -> Result<(bool, usize)> {
    let is_session_pooled = match url.take("pooler")?.as_deref() {
        None => false,
        Some("session") => true,
        Some(_) => {
            return Err(url.refuse("the option pooler can only be session (?pooler=session)"));
        }
    };
    let connections = match url.take("connections")?.map(|count| count.parse::<usize>()) {
        None => CONNECTIONS,
        Some(Ok(count @ 1..)) => count,
        Some(_) => return Err(url.refuse("the option connections must be a number of at least 1")),
    };
    Ok((is_session_pooled, connections))
}

impl<D: AdvisoryDatabase> Clone for AdvisoryHold<D> {
    fn clone(&self) -> Self {
        let (session, wanted) = (self.session.clone(), self.wanted.clone());
        AdvisoryHold { session, wanted, _use: self._use.clone(), _slot: self._slot.clone() }
    }
}

/// What came of one attempt.
enum Attempted<D: AdvisoryDatabase> {
    Granted(HeldKey<D>),
    /// Another session has it.
    Held,
    /// Its session is over.
    Dead,
    Failed(EngineFault),
}

/// A lock that a session has.
struct HeldKey<D: AdvisoryDatabase> {
    using: SessionUse<D>,
    token: Token,
    sent: Time,
    deadline: Time,
}

/// What a server is asked, until it has answered.
type AskedToken = JoinHandle<Result<Option<Token>, EngineFault>>;

/// So often a wait without a connection looks.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// So long an attempt waits before it looks at what may have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So often a session is asked again to end its wait, before its connection is ended.
const INTERRUPTS_MAX: u32 = 3;
/// The pause before something is given up again.
const UNDO_PAUSE: Duration = Duration::from_millis(50);

impl<D: AdvisoryDatabase> AdvisoryEngine<D> {
    /// `connections` is how many it opens at most, its base among them.
    pub(super) fn new(database: D, time_to_live: Duration, connections: usize) -> Self {
        let sessions = AdvisorySessions::new(time_to_live, connections);
        let core = Arc::new(AdvisoryCore { database, sessions, time_to_live });
        AdvisoryEngine { core, slots: NameSlots::default() }
    }

    async fn attempt(
        &self,
        wish: &Wish,
        session: &Arc<AdvisorySession<D>>,
        wanted: &WantedKey,
        slot: &Arc<NameSlot>,
    ) -> Result<Attempted<D>> {
        let (core, waits) = (&self.core, session.is_spare());
        // Counted from before it can be held: a session in use is not ended as an idle one.
        let using = SessionUse::of(session.clone());
        let sent = clock::now();
        let mut asked = core.ask(session, wanted);
        let answer = loop {
            match wish.wait(&mut asked, core.database.patience()).await {
                Ok(Some(answer)) => break answered(answer),
                Ok(None) if waits => {}
                Ok(None) => {
                    // Silent: whatever comes of it is seen to, and another connection is tried.
                    drop(using);
                    core.sessions.retire(&core.database, session);
                    core.retract(session.clone(), asked, wanted.clone(), None);
                    return Ok(Attempted::Dead);
                }
                Err(error) => {
                    core.retract(session.clone(), asked, wanted.clone(), Some(slot.clone()));
                    return Err(error);
                }
            }
        };
        match answer {
            Ok(Some(token)) => {
                // When a wait was granted is not known: the deadline counts from a question after it.
                let sent = if waits { clock::now() } else { sent };
                match waits {
                    true if core.ping(session).await => session.life.begin_anew(sent),
                    true => {
                        core.database.close(&session.connection);
                        return Ok(Attempted::Dead);
                    }
                    false => session.life.renewed(sent),
                }
                if session.life.is_over() {
                    core.database.close(&session.connection);
                    return Ok(Attempted::Dead);
                }
                let deadline = session.life.deadline();
                Ok(Attempted::Granted(HeldKey { using, token, sent, deadline }))
            }
            Ok(None) => {
                session.life.renewed(sent);
                core.sessions.put_back(session.clone());
                Ok(Attempted::Held)
            }
            Err(fault) => {
                core.undo(session, wanted).await;
                core.sessions.put_back(session.clone());
                Ok(Attempted::Failed(fault))
            }
        }
    }

    /// On its base; or, once another session is known to have it, on a spare one.
    async fn session(
        &self,
        wish: &Wish,
        waits: bool,
    ) -> Result<Option<Arc<AdvisorySession<D>>>, EngineFault> {
        let core = &self.core;
        let opening = async {
            match waits {
                true => core.sessions.spare(&core.database).await,
                false => core.sessions.base(core).await.map(Some),
            }
        };
        match wish.wait(opening, LOOK_EVERY).await {
            Ok(Some(opened)) => opened,
            Ok(None) => Ok(None),
            Err(error) => Err(EngineFault::Final(error)),
        }
    }
}

impl<D: AdvisoryDatabase> AdvisoryCore<D> {
    /// Has a session take a lock; whatever becomes of the asking.
    fn ask(self: &Arc<Self>, session: &Arc<AdvisorySession<D>>, wanted: &WantedKey) -> AskedToken {
        let (core, session, wanted) = (self.clone(), session.clone(), wanted.clone());
        Handle::current().spawn(async move {
            core.database.take(&session.connection, &wanted, session.is_spare()).await
        })
    }

    /// Sees an attempt to its end that is not wanted any longer: its wait is ended, and what was
    /// granted is given up (DistributedLock#147: an error can come although it was).
    fn retract(
        self: &Arc<Self>,
        session: Arc<AdvisorySession<D>>,
        mut asked: AskedToken,
        wanted: WantedKey,
        mut slot: Option<Arc<NameSlot>>,
    ) {
        let core = self.clone();
        Handle::current().spawn(async move {
            let mut interrupts = 0;
            let answer = loop {
                if session.is_spare() {
                    core.database.interrupt(&session.connection).await;
                    interrupts += 1;
                }
                match timeout(core.database.patience(), &mut asked).await {
                    Ok(answer) => break answered(answer),
                    Err(_) if session.is_spare() && interrupts < INTERRUPTS_MAX => {}
                    Err(_) if session.is_spare() || session.life.is_over() => {
                        core.database.close(&session.connection);
                        break Err(EngineFault::Trouble(String::new()));
                    }
                    // The next attempt of the name goes to another session.
                    Err(_) => {
                        core.sessions.retire(&core.database, &session);
                        slot = None;
                    }
                }
            };
            if !matches!(answer, Ok(None)) {
                core.undo(&session, &wanted).await;
            }
            core.sessions.put_back(session);
            drop(slot);
        });
    }

    /// Gives up what a session may have, however often it has to be told.
    async fn undo(&self, session: &AdvisorySession<D>, wanted: &WantedKey) {
        while !session.life.is_ended() {
            let giving = self.database.give(&session.connection, wanted);
            if let Ok(Ok(_)) = timeout(self.database.patience(), giving).await {
                return;
            }
            if session.is_spare() || session.life.is_over() {
                // Nothing else is held there that is believed in.
                return self.database.close(&session.connection);
            }
            sleep(UNDO_PAUSE).await;
        }
    }

    /// Renews a session; whether it answered.
    async fn ping(&self, session: &AdvisorySession<D>) -> bool {
        let sent = clock::now();
        let answer =
            timeout(self.database.patience(), self.database.ping(&session.connection)).await;
        match answer {
            Ok(Ok(true)) => session.life.renewed(sent),
            Ok(Ok(false)) => {
                session.life.end();
                self.database.close(&session.connection);
            }
            Ok(Err(_)) | Err(_) => session.life.missed(),
        }
        matches!(answer, Ok(Ok(true)))
    }
}

fn answered(
    answer: Result<Result<Option<Token>, EngineFault>, tokio::task::JoinError>,
) -> Result<Option<Token>, EngineFault> {
    answer.unwrap_or_else(|error| Err(EngineFault::Trouble(error.to_string())))
}

impl<D: AdvisoryDatabase> LockEngine for AdvisoryEngine<D> {
    type Hold = AdvisoryHold<D>;

    fn abilities(&self) -> EngineAbilities {
        EngineAbilities {
            has_tokens: true,
            shares: self.core.database.shares(),
            ..EngineAbilities::default()
        }
    }

    fn shown(&self) -> String {
        self.core.database.shown()
    }

    fn time_to_live(&self) -> Duration {
        self.core.time_to_live
    }

    async fn acquire(&self, wish: &Wish) -> Result<EngineGrant<AdvisoryHold<D>>> {
        let core = &self.core;
        let (key, name) = (core.database.key(&wish.name)?, wish.name.clone());
        let wanted = WantedKey { key, name, above: wish.above, is_shared: wish.is_shared };
        let slot = self.slots.of(&wish.name);
        let slot = loop {
            if let Some(slot) = wish.wait(slot.take(), LOOK_EVERY).await? {
                break Arc::new(slot);
            }
        };
        let mut had_to_queue = false;
        loop {
            wish.check()?;
            let session = match self.session(wish, had_to_queue).await {
                Ok(Some(session)) => session,
                // As many connections as there may be wait or hold.
                Ok(None) if had_to_queue => {
                    wish.wait(std::future::pending::<()>(), POLL_EVERY).await?;
                    match core.sessions.base(core).await {
                        Ok(session) => session,
                        Err(fault) => {
                            wish.weather(fault).await?;
                            continue;
                        }
                    }
                }
                Ok(None) => continue,
                Err(fault) => {
                    wish.weather(fault).await?;
                    continue;
                }
            };
            match self.attempt(wish, &session, &wanted, &slot).await? {
                Attempted::Granted(HeldKey { using, token, sent, deadline }) => {
                    wish.acknowledge();
                    let _use = Arc::new(using);
                    let hold = AdvisoryHold { session, wanted, _use, _slot: slot };
                    return Ok(EngineGrant { hold, token, sent, deadline, had_to_queue });
                }
                Attempted::Held if wish.is_try() => {
                    wish.acknowledge();
                    return Err(wish.refused());
                }
                Attempted::Held if !had_to_queue => {
                    had_to_queue = true;
                    wish.acknowledge();
                    let looking = core.database.look(&session.connection, Some(&wish.name));
                    let found = wish.wait(looking, core.database.patience()).await?;
                    let found = found.and_then(Result::ok).unwrap_or_default();
                    wish.is_held_by(found.into_iter().find_map(|lock| lock.holder));
                }
                Attempted::Held => wish.acknowledge(),
                Attempted::Dead => {
                    // Whatever its session was asked is seen to its end beside the next attempt, on another.
                    wish.may_have_left();
                    let shown = self.shown();
                    let what = format!("the connection to {shown} has ended or does not answer");
                    wish.weather(EngineFault::Trouble(what)).await?;
                }
                Attempted::Failed(fault) => wish.weather(fault).await?,
            }
        }
    }

    async fn renew(&self, holds: &[AdvisoryHold<D>]) -> Vec<Renewal> {
        let mut sessions: Vec<_> = self.core.sessions.current().into_iter().collect();
        for hold in holds {
            if !sessions.iter().any(|known| Arc::ptr_eq(known, &hold.session)) {
                sessions.push(hold.session.clone());
            }
        }
        let mut pings = JoinSet::new();
        for session in sessions.into_iter().filter(|session| !session.life.is_ended()) {
            let core = self.core.clone();
            pings.spawn(async move { core.ping(&session).await });
        }
        pings.join_all().await;
        let answer = |hold: &AdvisoryHold<D>| match &hold.session.life {
            life if life.is_ended() => Renewal::Gone,
            life if life.is_confirmed() => Renewal::Until(life.deadline()),
            _ => Renewal::Unknown,
        };
        holds.iter().map(answer).collect()
    }

    async fn are_wanted(&self, holds: &[AdvisoryHold<D>]) -> Option<Vec<bool>> {
        let held: Vec<WantedKey> = holds.iter().map(|hold| hold.wanted.clone()).collect();
        let answer = async {
            let session = self.core.sessions.base(&self.core).await?;
            self.core.database.are_wanted(&session.connection, &held).await
        };
        answer.await.ok()
    }

    async fn release(&self, hold: &AdvisoryHold<D>, _: bool) -> Result<bool, EngineFault> {
        let (core, session) = (&self.core, &hold.session);
        if session.life.is_over() {
            // Its locks go with it.
            core.database.close(&session.connection);
            return Ok(false);
        }
        let giving = core.database.give(&session.connection, &hold.wanted);
        let answer = match timeout(core.database.patience(), giving).await {
            Ok(answer) => answer,
            Err(_) => Err(EngineFault::Trouble(format!("{} does not answer", self.shown()))),
        };
        if answer.is_ok() {
            core.sessions.put_back(session.clone());
        }
        answer
    }

    async fn look(&self, only: Option<&Name>) -> Result<Vec<EngineLock>, EngineFault> {
        let session = self.core.sessions.base(&self.core).await?;
        self.core.database.look(&session.connection, only).await
    }

    async fn examine(&self) -> Result<Vec<EngineFinding>, EngineFault> {
        let session = self.core.sessions.base(&self.core).await?;
        self.core.database.examine(&session.connection).await
    }

    async fn heard(&self) {
        self.core.sessions.heard().await;
    }

    async fn part(&self) {
        self.core.sessions.part(&self.core.database);
    }

    fn place(&self) -> Option<String> {
        self.core.database.place()
    }

    fn break_advice(&self, name: &Name) -> String {
        self.core.database.break_advice(name)
    }
}
