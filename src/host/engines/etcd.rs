//! etcd: a queue of keys under a lease, as `etcdctl lock` and Go's `concurrency.Mutex` have it.
//!
//! A lock's key is `PREFIX NAME/<lease in hex>`, with an empty value and the session's lease; a candidate's has
//! the value that it campaigns with, as `etcdctl elect` has it. The oldest
//! key has the lock, and the revision that created it is the token. A waiter watches the next older
//! key alone, and reads **its own key again** with the queue before it believes that it has the lock
//! (etcd#11456): a waiter whose lease has run out has no key any more.
//!
//! With `?keep=1` a key may stay while no guard has the lock: while one does, the prefix is watched, and
//! another client's key in the queue takes it away. A grant is a block of tokens then.
//!
//! A manager has one key of a name at a time: what an attempt may have left behind is taken over by the
//! next or taken away, and until then no other attempt of that name begins.

mod kept;
mod observing;
mod queue;
mod session;
mod way;

use std::{sync::Arc, time::Duration};

use etcd_client::AlarmAction;
use tokio::runtime::Handle;

pub(in crate::host) use self::way::{endpoints, etcd_fault, secured};
use self::{
    kept::{PrefixWatch, WatchedQueue},
    queue::{LockQueue, QueueEntrance, Rank},
    session::{EtcdConnection, EtcdSession},
};
use super::{
    EngineSettings,
    engine::{EngineAbilities, EngineFinding, EngineGrant, EngineLock, LockEngine, Renewal},
    fault::EngineFault,
    slots::{NameSlot, NameSlots},
    teller::LeaderTeller,
    wish::Wish,
};
use crate::{
    clock,
    error::{Holder, LockError, Result},
    host::service_url::ServiceUrl,
    name::Name,
    time::Time,
    token::Token,
};

/// Locks of one etcd cluster.
pub(super) struct EtcdEngine {
    url: ServiceUrl,
    connection: Arc<EtcdConnection>,
    slots: NameSlots,
    /// With `?keep=1`.
    kept: Option<Arc<PrefixWatch>>,
}

/// One grant: a key of a session, by the revision that created it.
#[derive(Clone)]
pub(super) struct EtcdHold {
    session: Arc<EtcdSession>,
    key: String,
    revision: i64,
    /// Where it may be kept.
    _watched: Option<Arc<WatchedQueue>>,
    /// No other attempt of the name begins before this key is gone.
    _slot: Arc<NameSlot>,
}

/// The tokens of a revision where leases are kept.
const BLOCK_BITS: u32 = 20;
/// A waiter looks at its queue at least so often, whatever its watch says.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl EtcdEngine {
    pub(super) fn new(mut url: ServiceUrl, settings: &EngineSettings) -> Result<EtcdEngine> {
        let keeps = url.take_switch("keep")?;
        let connection = EtcdConnection::new(&mut url, settings, keeps)?;
        url.finish("ca, keep, password_file, prefix")?;
        if !url.path.is_empty() {
            return Err(url.refuse("a path has no meaning here: use ?prefix=/locks/ for a folder"));
        }
        let kept = keeps.then(Arc::default);
        Ok(EtcdEngine { connection: Arc::new(connection), slots: NameSlots::default(), kept, url })
    }

    /// The first token of a revision's.
    fn token(&self, revision: i64) -> Option<Token> {
        let revision = u64::try_from(revision).ok()?;
        Token::new(match self.kept {
            Some(_) => revision.checked_mul(1 << BLOCK_BITS)?,
            None => revision,
        })
    }

    fn queue(&self, name: &Name) -> Result<LockQueue> {
        if name.as_str().split('/').next() == Some(".tierlock") {
            return Err(LockError::config(
                "names below .tierlock are reserved in etcd: \
                 choose another name",
            ));
        }
        Ok(LockQueue::new(self.connection.clone(), name))
    }

    /// Puts a key into the queue, but for a try that the queue refuses.
    async fn enter(
        &self,
        wish: &Wish,
        queue: &LockQueue,
        session: &EtcdSession,
    ) -> Result<KeyEntry, EngineFault> {
        let value = wish.value.as_deref().unwrap_or_default();
        if !wish.is_try() {
            return queue.enter(session, value).await.map(KeyEntry::Put);
        }
        if let Some(entrance) = queue.try_enter(session, value).await? {
            return Ok(KeyEntry::Put(entrance));
        }
        if self.kept.is_none() {
            return Ok(KeyEntry::Refused { has_left_none: true });
        }
        // A lease that is kept there idle comes back for a key alone. Without a value it leads nothing.
        let entrance = queue.enter(session, &[]).await?;
        if value.is_empty() {
            return Ok(KeyEntry::Put(entrance));
        }
        let has_left_none = queue.retract(session).await.is_ok();
        Ok(KeyEntry::Refused { has_left_none })
    }

    /// One key's way to the head of its queue.
    async fn rise(
        &self,
        wish: &Wish,
        queue: &LockQueue,
        session: &Arc<EtcdSession>,
        had_to_queue: &mut bool,
    ) -> Result<RiseEnd> {
        let sent = clock::now();
        let entrance = match self.enter(wish, queue, session).await {
            Ok(KeyEntry::Put(entrance)) => entrance,
            Ok(KeyEntry::Refused { has_left_none: true }) => return Ok(RiseEnd::Refused),
            Ok(KeyEntry::Refused { has_left_none: false }) => return Err(LockError::WOULD_BLOCK),
            Err(fault) => {
                wish.weather(fault).await?;
                // The key may be there: it is taken over at the next attempt.
                return Ok(RiseEnd::BeginAnew);
            }
        };
        let QueueEntrance { revision, is_first } = entrance;
        wish.acknowledge();
        if is_first {
            return Ok(RiseEnd::Risen(Risen { revision, sent }));
        }
        loop {
            wish.check()?;
            let sent = clock::now();
            let ahead = match queue.rank(session, revision).await {
                Ok(Rank::First) => return Ok(RiseEnd::Risen(Risen { revision, sent })),
                // Its lease has run out, or an operator has deleted it.
                Ok(Rank::Gone) => return Ok(RiseEnd::BeginAnew),
                Ok(Rank::Behind(ahead)) => ahead,
                Err(fault) => {
                    wish.weather(fault).await?;
                    if session.life.is_over() {
                        return Ok(RiseEnd::BeginAnew);
                    }
                    continue;
                }
            };
            if wish.is_try() {
                return match queue.retract(session).await {
                    Ok(()) => Ok(RiseEnd::Refused),
                    // The caller's retraction goes on.
                    Err(_) => Err(LockError::WOULD_BLOCK),
                };
            }
            if !*had_to_queue {
                wish.is_held_by(self.connection.holder_of(&ahead.key).await);
            }
            *had_to_queue = true;
            wish.wait(queue.watch(&ahead), LOOK_EVERY).await?;
            if session.life.is_over() {
                return Ok(RiseEnd::BeginAnew);
            }
        }
    }

    /// Attempts, until one has the lock or the wish ends. `left` is the session that may have a key of an
    /// attempt that came to nothing: it is known of each attempt before it begins.
    async fn attempt(
        &self,
        wish: &Wish,
        queue: &LockQueue,
        slot: &Arc<NameSlot>,
        left: &mut Option<Arc<EtcdSession>>,
    ) -> Result<EngineGrant<EtcdHold>> {
        let mut had_to_queue = false;
        loop {
            let session = wish.ask(|| self.connection.session()).await?;
            // The key of another session is not taken over: it is taken away before anything stands behind
            // it, which would wait for it, or be refused by it.
            if let Some(other) = left.as_ref().filter(|other| other.id() != session.id()) {
                if !other.life.is_ended()
                    && let Err(fault) = queue.retract(other).await
                {
                    wish.weather(fault).await?;
                    continue;
                }
                *left = None;
            }
            let was_doubtful = left.replace(session.clone()).is_some();
            let risen = match self.rise(wish, queue, &session, &mut had_to_queue).await? {
                RiseEnd::Risen(risen) => risen,
                // The key may be there: the next attempt takes it over.
                RiseEnd::BeginAnew => continue,
                RiseEnd::Refused => {
                    // An attempt of which nothing is known may put its key later than this one is refused.
                    if !was_doubtful {
                        *left = None;
                    }
                    return Err(LockError::WOULD_BLOCK);
                }
            };
            let first = self.token(risen.revision);
            let Some(token) = first.filter(|token| *token > wish.above) else {
                let (first, above) = (first.unwrap_or(Token::ZERO), wish.above);
                let shown = self.shown();
                return Err(LockError::config(format!(
                    "the token of {shown} would be {first}, and this machine knows {above} of that \
                     name already, which every resource refuses from now on: take another name, \
                     `?keep=1`, whose tokens are 2^20 times as large, or lower what the resources \
                     and the directory have seen"
                )));
            };
            *left = None;
            // Good as long as its session is, which may be over by now: the caller looks.
            let deadline = session.life.deadline();
            let key = queue.key(&session);
            let watched =
                self.kept.as_ref().map(|kept| kept.listen(&self.connection, queue.keys_begin()));
            let (_watched, _slot) = (watched.map(Arc::new), slot.clone());
            let hold = EtcdHold { session, key, revision: risen.revision, _watched, _slot };
            let sent = risen.sent;
            return Ok(EngineGrant { hold, token, sent, deadline, had_to_queue });
        }
    }

    /// Takes away what an attempt may have left behind, however long that takes.
    fn retract(&self, queue: LockQueue, session: Arc<EtcdSession>, slot: Arc<NameSlot>) {
        Handle::current().spawn(async move {
            let mut pause = Duration::from_millis(20);
            while !session.life.is_over() && queue.retract(&session).await.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            drop(slot);
        });
    }
}

/// What became of a key that was to be put.
enum KeyEntry {
    Put(QueueEntrance),
    /// It was a try, and other keys are there; whether it is known that it has left none of its own.
    Refused {
        has_left_none: bool,
    },
}

/// How a key's way has ended.
enum RiseEnd {
    Risen(Risen),
    /// Its session is over, or its key is gone, or nothing is known of it.
    BeginAnew,
    /// It was a try, another key stands before its own, and that is gone.
    Refused,
}

/// At the head of the queue.
struct Risen {
    revision: i64,
    /// When the read was sent that says so.
    sent: Time,
}

impl LockEngine for EtcdEngine {
    type Hold = EtcdHold;

    fn abilities(&self) -> EngineAbilities {
        let carries_values = true;
        EngineAbilities { has_tokens: true, carries_values, ..EngineAbilities::default() }
    }

    fn shown(&self) -> String {
        self.url.shown()
    }

    fn time_to_live(&self) -> Duration {
        self.connection.time_to_live()
    }

    async fn acquire(&self, wish: &Wish) -> Result<EngineGrant<EtcdHold>> {
        let queue = self.queue(&wish.name)?;
        if wish.value.as_ref().is_some_and(|value| value.is_empty()) {
            return Err(LockError::config(
                "etcd cannot tell an empty value from none, which is what a lock has: campaign with a value",
            ));
        }
        let slot = self.slots.of(&wish.name);
        let slot = loop {
            if let Some(slot) = wish.wait(slot.take(), LOOK_EVERY).await? {
                break Arc::new(slot);
            }
        };
        let mut left = None;
        let grant = self.attempt(wish, &queue, &slot, &mut left).await;
        if let Some(session) = left {
            // Whatever ended it: its key would stand before others for as long as anything else of its
            // session is held.
            self.retract(queue, session, slot);
        }
        grant
    }

    async fn observe(&self, name: &Name, tell: &LeaderTeller) -> EngineFault {
        let observed = match self.queue(name) {
            Ok(queue) => {
                queue.watch_leaders(&self.connection, tell, |revision| self.token(revision)).await
            }
            Err(error) => Err(EngineFault::Final(error)),
        };
        let shown = self.shown();
        observed.err().unwrap_or_else(|| EngineFault::Trouble(format!("{shown} ended the watch")))
    }

    async fn renew(&self, holds: &[EtcdHold]) -> Vec<Renewal> {
        let mut sessions: Vec<Arc<EtcdSession>> = self.connection.current().into_iter().collect();
        for hold in holds {
            if !sessions.iter().any(|known| known.id() == hold.session.id()) {
                sessions.push(hold.session.clone());
            }
        }
        for session in &sessions {
            self.connection.keep_alive(session).await;
        }
        // An operator may have deleted a key under a lease that lives.
        let keys = holds.iter().map(|hold| (&*hold.key, hold.revision));
        let are_there = queue::are_there(&self.connection, keys).await;
        let answer = |(hold, is_there): (&EtcdHold, Option<bool>)| {
            let deadline = hold.session.life.deadline();
            match is_there {
                _ if hold.session.life.is_ended() => Renewal::Gone,
                Some(false) => Renewal::Gone,
                _ if hold.session.life.is_confirmed() => Renewal::Until(deadline),
                _ => Renewal::Unknown,
            }
        };
        holds.iter().zip(are_there).map(answer).collect()
    }

    async fn are_wanted(&self, holds: &[EtcdHold]) -> Option<Vec<bool>> {
        queue::have_waiters(&self.connection, holds.iter().map(|hold| (&*hold.key, hold.revision)))
            .await
    }

    fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    fn block_end(&self, token: Token) -> Token {
        match self.kept {
            Some(_) => Token::new(token.get() | ((1 << BLOCK_BITS) - 1)).unwrap_or(token),
            None => token,
        }
    }

    async fn wanted(&self) {
        match &self.kept {
            Some(kept) => kept.news().await,
            None => std::future::pending().await,
        }
    }

    async fn release(&self, hold: &EtcdHold, _: bool) -> Result<bool, EngineFault> {
        queue::delete(&self.connection, &hold.key, hold.revision).await
    }

    async fn look(&self, only: Option<&Name>) -> Result<Vec<EngineLock>, EngineFault> {
        let keys = queue::list(&self.connection, only).await?;
        let mut found: Vec<EngineLock> = Vec::new();
        for queued in keys {
            let holder = self.connection.holder_of(&queued.key).await;
            let holder = holder.unwrap_or_else(|| Holder {
                label: format!("another client of etcd, lease {:x}", queued.lease),
                ..Holder::default()
            });
            match found.last_mut().filter(|lock| lock.name == queued.name) {
                Some(lock) => lock.waiters.push(holder),
                None => {
                    let token = self.token(queued.revision).unwrap_or(Token::ZERO);
                    found.push(EngineLock {
                        name: queued.name,
                        token,
                        holder: Some(Holder { token: Some(token), ..holder }),
                        is_reserved: false,
                        remaining: None,
                        waiters: Vec::new(),
                    });
                }
            }
        }
        Ok(found)
    }

    async fn examine(&self) -> Result<Vec<EngineFinding>, EngineFault> {
        let mut client = self.connection.client().await?;
        let status = self.connection.within(client.status()).await?;
        let shown = self.shown();
        let mut found = vec![EngineFinding::fine(format!("{shown} answers: {}", status.version()))];
        if status.leader() == 0 {
            found.push(EngineFinding::trouble("its cluster has no leader: it grants nothing"));
        }
        for error in status.errors() {
            found.push(EngineFinding::trouble(format!("it reports {error}")));
        }
        let action = AlarmAction::Get;
        let alarms = self
            .connection
            .within(client.alarm(action, etcd_client::AlarmType::None, None))
            .await?;
        for alarm in alarms.alarms() {
            found.push(EngineFinding::trouble(format!(
                "member {:x} sounds the alarm {:?}: it takes no write, so no lock, until `etcdctl \
                 defrag` and `etcdctl alarm disarm`",
                alarm.member_id(),
                alarm.alarm()
            )));
        }
        let members = self.connection.within(client.member_list()).await?;
        match members.members().len() {
            1 => found.push(EngineFinding::note(
                "its cluster has one member: while that is down, nothing is granted",
            )),
            count if count % 2 == 0 => found.push(EngineFinding::note(format!(
                "its cluster has {count} members, which survive no more failures than {}",
                count - 1
            ))),
            _ => {}
        }
        Ok(found)
    }

    async fn part(&self) {
        self.connection.part().await;
    }

    fn place(&self) -> Option<String> {
        self.connection.place()
    }

    fn break_advice(&self, name: &Name) -> String {
        let prefix = self.connection.prefix();
        format!(
            "etcdctl get --prefix --keys-only --sort-by=CREATE {:?}, then etcdctl del its first key",
            format!("{prefix}{name}/")
        )
    }
}
