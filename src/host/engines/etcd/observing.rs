//! The leader of an election, as its queue of keys shows.
//!
//! The queue is read once, and from that revision on each change of it is watched: the oldest key that
//! has a value is the leader's, as for `etcdctl elect` and Go's `concurrency.Election`. So no leader is missed,
//! however short its term; only after an outage the queue is read anew.

use std::collections::HashMap;

use etcd_client::{EventType, GetOptions, KeyValue, WatchOptions};

use super::{queue::LockQueue, session::EtcdConnection};
use crate::{
    elected::ElectedLeader,
    host::engines::{fault::EngineFault, teller::LeaderTeller},
    token::Token,
};

/// The keys of a queue, with the revisions that created them and their values.
type QueueKeys = HashMap<Vec<u8>, (i64, Vec<u8>)>;

impl LockQueue {
    /// Tells each change, as long as that can be seen.
    pub(super) async fn watch_leaders(
        &self,
        connection: &EtcdConnection,
        tell: &LeaderTeller,
        token: impl Fn(i64) -> Option<Token>,
    ) -> Result<(), EngineFault> {
        let mut client = connection.client().await?;
        let begins = self.keys_begin();
        // The holder, if its key says a value: a mutex's says none.
        let leader = |keys: &QueueKeys| {
            let (revision, value) = keys.values().min_by_key(|(revision, _)| *revision)?;
            let token = token(*revision).filter(|_| !value.is_empty())?;
            Some(ElectedLeader::new(token, value.as_slice().into()))
        };
        let all = GetOptions::new().with_prefix();
        let found = connection.within(client.get(&*begins, Some(all))).await?;
        connection.saw(found.header());
        let mut keys = QueueKeys::new();
        found.kvs().iter().filter(|kv| self.is_own(kv)).for_each(|kv| put(&mut keys, kv));
        tell.leads(leader(&keys));
        let seen_at = found.header().map_or(0, |header| header.revision());
        let options = WatchOptions::new().with_prefix().with_start_revision(seen_at + 1);
        let mut watching = connection.within(client.watch(&*begins, Some(options))).await?;
        loop {
            let answer = watching.message().await;
            let Ok(Some(answer)) = answer else { return Ok(()) };
            if answer.canceled() {
                return Ok(());
            }
            // One transaction may change several keys: they are of one revision.
            let mut revision = None;
            for event in answer.events() {
                let Some(kv) = event.kv().filter(|kv| self.is_own(kv)) else { continue };
                if revision
                    .replace(kv.mod_revision())
                    .is_some_and(|known| known != kv.mod_revision())
                {
                    tell.leads(leader(&keys));
                }
                match event.event_type() {
                    EventType::Put => put(&mut keys, kv),
                    EventType::Delete => drop(keys.remove(kv.key())),
                }
            }
            if revision.is_some() {
                tell.leads(leader(&keys));
            }
        }
    }
}

fn put(keys: &mut QueueKeys, kv: &KeyValue) {
    keys.insert(kv.key().to_vec(), (kv.create_revision(), kv.value().to_vec()));
}
