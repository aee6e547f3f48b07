//! The keys of one lock, in the order of the revisions that created them.

use std::sync::Arc;

use etcd_client::{
    Compare, CompareOp, EventType, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, WatchOptions,
};

use super::session::{EtcdConnection, EtcdSession};
use crate::{host::engines::fault::EngineFault, name::Name};

/// The queue of one name.
pub(super) struct LockQueue {
    connection: Arc<EtcdConnection>,
    /// What its keys begin with. The keys of names below this one do, too, and are passed over.
    prefix: String,
}

/// A key was put, or found.
pub(super) struct QueueEntrance {
    pub(super) revision: i64,
    /// It has the lock.
    pub(super) is_first: bool,
}

/// What etcd has answered to a key that was to be put.
struct PutAnswer {
    is_put: bool,
    /// The revision that put it.
    put_at: Option<i64>,
    /// The key that was there already.
    own: Option<KeyValue>,
    listed: Vec<KeyValue>,
}

impl PutAnswer {
    /// The revision that created the session's key.
    fn revision(&self) -> Result<i64, EngineFault> {
        let own = self.own.as_ref().map(KeyValue::create_revision);
        self.put_at.or(own).ok_or_else(not_understood)
    }
}

/// Where a key stands in its queue.
pub(super) enum Rank {
    First,
    Behind(KeyAhead),
    /// It is not there.
    Gone,
}

/// The next older key.
pub(super) struct KeyAhead {
    pub(super) key: String,
    /// From which on its end is news.
    seen_at: i64,
}

/// A key as it is listed.
pub(super) struct QueuedKey {
    pub(super) name: Name,
    pub(super) key: String,
    pub(super) revision: i64,
    pub(super) lease: i64,
}

/// So many keys are read at a time.
const PAGE: i64 = 64;
/// So many at most when all are listed.
const LIST_MAX: i64 = 10_000;
/// So many operations are in one transaction: etcd's own limit is 128.
const OPERATIONS_MAX: usize = 100;

impl LockQueue {
    pub(super) fn new(connection: Arc<EtcdConnection>, name: &Name) -> LockQueue {
        LockQueue { prefix: format!("{}{name}/", connection.prefix()), connection }
    }

    pub(super) fn key(&self, session: &EtcdSession) -> String {
        format!("{}{:x}", self.prefix, session.id())
    }

    /// What its keys begin with.
    pub(super) fn keys_begin(&self) -> String {
        self.prefix.clone()
    }

    /// Whether a key is of this queue, and not of a name below.
    pub(super) fn is_own(&self, kv: &KeyValue) -> bool {
        let rest = kv.key().strip_prefix(self.prefix.as_bytes());
        rest.is_some_and(|rest| !rest.contains(&b'/'))
    }

    /// Puts the session's key at the end of the queue, unless it is there already.
    pub(super) async fn enter(
        &self,
        session: &EtcdSession,
        value: &[u8],
    ) -> Result<QueueEntrance, EngineFault> {
        let key = self.key(session);
        let is_new = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        let oldest = TxnOp::get(self.prefix.clone(), Some(oldest().with_limit(1)));
        let mut when = vec![is_new];
        when.extend(self.connection.counts_plainly());
        let answer = self.put_if(when, session, value, oldest).await?;
        if !answer.is_put && answer.own.is_none() {
            // It is not there, and was not put: since this session began others have come that keep leases.
            return Err(self.connection.counts_otherwise());
        }
        let oldest = answer.listed.first().map(KeyValue::create_revision);
        let revision = answer.revision()?;
        Ok(QueueEntrance { revision, is_first: oldest == Some(revision) })
    }

    /// Puts the session's key if the queue is empty; `None` if it is not. So a refused try is never in
    /// the queue, where a key stands before others, and counts as a leader's, until it is taken away.
    pub(super) async fn try_enter(
        &self,
        session: &EtcdSession,
        value: &[u8],
    ) -> Result<Option<QueueEntrance>, EngineFault> {
        let is_empty =
            Compare::create_revision(self.prefix.clone(), CompareOp::Equal, 0).with_prefix();
        let listed = TxnOp::get(self.prefix.clone(), Some(oldest().with_limit(PAGE)));
        let mut when = vec![is_empty];
        when.extend(self.connection.counts_plainly());
        let answer = self.put_if(when, session, value, listed).await?;
        if answer.is_put || answer.own.is_some() {
            let oldest = answer.listed.iter().find(|kv| self.is_own(kv));
            let oldest = oldest.map(KeyValue::create_revision);
            let revision = answer.revision()?;
            return Ok(Some(QueueEntrance { revision, is_first: oldest == Some(revision) }));
        }
        match answer.listed.iter().any(|kv| self.is_own(kv)) {
            true => Ok(None),
            // Keys of names below this one hide whether its own queue is empty; or the tokens differ.
            false => self.enter(session, value).await.map(Some),
        }
    }

    /// Puts the session's key under conditions, and lists keys in the same step.
    async fn put_if(
        &self,
        when: Vec<Compare>,
        session: &EtcdSession,
        value: &[u8],
        listing: TxnOp,
    ) -> Result<PutAnswer, EngineFault> {
        let key = self.key(session);
        let put = TxnOp::put(key.clone(), value, Some(PutOptions::new().with_lease(session.id())));
        let own = TxnOp::get(key, None);
        let txn = Txn::new().when(when).and_then([put, listing.clone()]).or_else([own, listing]);
        let mut client = self.connection.client().await?;
        let answer = self.connection.within(client.txn(txn)).await;
        if let Err(EngineFault::Trouble(trouble)) = &answer
            && trouble.contains("lease not found")
        {
            session.life.end();
        }
        let answer = answer?;
        let is_put = answer.succeeded();
        let put_at = answer.header().map(|header| header.revision()).filter(|_| is_put);
        let mut found = gets(answer.op_responses());
        let listed = found.pop();
        let own = found.pop().unwrap_or_default().pop();
        let listed = listed.ok_or_else(not_understood)?;
        Ok(PutAnswer { is_put, put_at, own, listed })
    }

    /// Reads the queue and one's own key in one step.
    pub(super) async fn rank(
        &self,
        session: &EtcdSession,
        revision: i64,
    ) -> Result<Rank, EngineFault> {
        let mut older_than = revision;
        loop {
            let older = GetOptions::new()
                .with_prefix()
                .with_sort(SortTarget::Create, SortOrder::Descend)
                .with_max_create_revision(older_than - 1)
                .with_keys_only()
                .with_limit(PAGE);
            let older = TxnOp::get(self.prefix.clone(), Some(older));
            let own = TxnOp::get(self.key(session), Some(GetOptions::new().with_keys_only()));
            let mut client = self.connection.client().await?;
            let answer =
                self.connection.within(client.txn(Txn::new().and_then([older, own]))).await?;
            let found = gets(answer.op_responses());
            let [older, own] = &*found else {
                return Err(not_understood());
            };
            if own.first().map(KeyValue::create_revision) != Some(revision) {
                return Ok(Rank::Gone);
            }
            if let Some(ahead) = older.iter().find(|kv| self.is_own(kv)) {
                let key = String::from_utf8_lossy(ahead.key()).into_owned();
                let seen_at = answer.header().map_or(0, |header| header.revision());
                return Ok(Rank::Behind(KeyAhead { key, seen_at }));
            }
            match older.last() {
                Some(last) if older.len() as i64 == PAGE => older_than = last.create_revision(),
                _ => return Ok(Rank::First),
            }
        }
    }

    /// Waits until a key is gone, or until that cannot be seen any longer. It may be dropped.
    pub(super) async fn watch(&self, ahead: &KeyAhead) {
        let Ok(mut client) = self.connection.client().await else { return };
        let options = WatchOptions::new().with_start_revision(ahead.seen_at + 1);
        let watching = self.connection.within(client.watch(ahead.key.clone(), Some(options))).await;
        let Ok(mut watching) = watching else { return };
        while let Ok(Some(answer)) = watching.message().await {
            let is_gone =
                answer.events().iter().any(|event| event.event_type() == EventType::Delete);
            if is_gone || answer.canceled() {
                return;
            }
        }
    }

    /// Takes the session's key away, whichever of its attempts has put it.
    pub(super) async fn retract(&self, session: &EtcdSession) -> Result<(), EngineFault> {
        let key = self.key(session);
        let is_ours = Compare::lease(key.clone(), CompareOp::Equal, session.id());
        let txn = Txn::new().when([is_ours]).and_then([TxnOp::delete(key, None)]);
        let mut client = self.connection.client().await?;
        self.connection.within(client.txn(txn)).await.map(|_| ())
    }
}

/// Deletes a key if that revision has created it; by the key alone it may be a later lock's
/// (etcd#22082). Whether it was there.
pub(super) async fn delete(
    connection: &EtcdConnection,
    key: &str,
    revision: i64,
) -> Result<bool, EngineFault> {
    let is_it = Compare::create_revision(key, CompareOp::Equal, revision);
    let txn = Txn::new().when([is_it]).and_then([TxnOp::delete(key, None)]);
    let mut client = connection.client().await?;
    connection.within(client.txn(txn)).await.map(|answer| answer.succeeded())
}

/// Whether each key is there still, if that can be told.
pub(super) async fn are_there(
    connection: &EtcdConnection,
    keys: impl Iterator<Item = (&str, i64)>,
) -> Vec<Option<bool>> {
    let keys: Vec<(String, i64)> = keys.map(|(key, at)| (key.to_owned(), at)).collect();
    let mut answers = Vec::new();
    for keys in keys.chunks(OPERATIONS_MAX) {
        let get = |(key, _): &(String, i64)| {
            TxnOp::get(key.clone(), Some(GetOptions::new().with_keys_only()))
        };
        let txn = Txn::new().and_then(keys.iter().map(get).collect::<Vec<_>>());
        let found = match connection.client().await {
            Ok(mut client) => connection.within(client.txn(txn)).await.ok(),
            Err(_) => None,
        };
        let found = found.map(|answer| gets(answer.op_responses()));
        answers.extend(keys.iter().enumerate().map(|(at, (_, revision))| {
            let kvs = found.as_ref()?.get(at)?;
            Some(kvs.first().is_some_and(|kv| kv.create_revision() == *revision))
        }));
    }
    answers
}

/// Whether each key has a later one behind it in its queue; `None`, if etcd has not told it of all.
pub(super) async fn have_waiters(
    connection: &EtcdConnection,
    keys: impl Iterator<Item = (&str, i64)>,
) -> Option<Vec<bool>> {
    let queue = |key: &str| key.rsplit_once('/').map_or("", |(queue, _)| queue).to_owned() + "/";
    let keys: Vec<(String, i64)> = keys.map(|(key, at)| (queue(key), at)).collect();
    let mut answers = Vec::new();
    for keys in keys.chunks(OPERATIONS_MAX) {
        let get = |(queue, revision): &(String, i64)| {
            let options = GetOptions::new().with_prefix().with_keys_only().with_limit(PAGE);
            TxnOp::get(queue.clone(), Some(options.with_min_create_revision(revision + 1)))
        };
        let txn = Txn::new().and_then(keys.iter().map(get).collect::<Vec<_>>());
        let mut client = connection.client().await.ok()?;
        let answer = connection.within(client.txn(txn)).await.ok()?;
        let found = gets(answer.op_responses());
        answers.extend(keys.iter().enumerate().map(|(at, (queue, _))| {
            let later = found.get(at).map(Vec::as_slice).unwrap_or_default();
            let is_own = |kv: &KeyValue| {
                kv.key().strip_prefix(queue.as_bytes()).is_some_and(|rest| !rest.contains(&b'/'))
            };
            // A page of the names below hides what may be behind it.
            later.iter().any(is_own) || later.len() as i64 == PAGE
        }));
    }
    Some(answers)
}

/// The keys of all locks, or of one, in the order of names and then of their queue.
pub(super) async fn list(
    connection: &EtcdConnection,
    only: Option<&Name>,
) -> Result<Vec<QueuedKey>, EngineFault> {
    let from = match only {
        Some(name) => format!("{}{name}/", connection.prefix()),
        None => connection.prefix().to_owned(),
    };
    let options = GetOptions::new().with_keys_only().with_limit(LIST_MAX);
    let options = match from.is_empty() {
        true => options.with_all_keys(),
        false => options.with_prefix(),
    };
    let mut client = connection.client().await?;
    let found = connection.within(client.get(from, Some(options))).await?;
    connection.saw(found.header());
    let queued = |kv: &KeyValue| {
        let key = str::from_utf8(kv.key()).ok()?;
        let (name, lease) = key.strip_prefix(connection.prefix())?.rsplit_once('/')?;
        let name = Name::new(name).ok().filter(|name| only.is_none_or(|only| only == name))?;
        let is_queued = kv.lease() != 0
            && i64::from_str_radix(lease, 16) == Ok(kv.lease())
            && !name.as_str().starts_with(".tierlock/");
        is_queued.then(|| QueuedKey {
            name,
            key: key.to_owned(),
            revision: kv.create_revision(),
            lease: kv.lease(),
        })
    };
    let mut found: Vec<QueuedKey> = found.kvs().iter().filter_map(queued).collect();
    found.sort_by(|a, b| (&a.name, a.revision).cmp(&(&b.name, b.revision)));
    Ok(found)
}

/// Keys in the order in which they were created.
fn oldest() -> GetOptions {
    GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_keys_only()
}

fn not_understood() -> EngineFault {
    EngineFault::Trouble("etcd's answer is not understood".to_owned())
}

/// What the reads of a transaction found, in their order.
fn gets(answers: Vec<TxnOpResponse>) -> Vec<Vec<KeyValue>> {
    let found = answers.into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(found) => Some(found.kvs().to_vec()),
        _ => None,
    });
    found.collect()
}
