//! What is heard of other clients while leases are kept: one watch of the prefix.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{WatchFilterType, WatchOptions};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{sleep, timeout},
};

use super::session::EtcdConnection;

/// Hears of keys that other clients put into the queues of what is kept here.
#[derive(Default)]
pub(super) struct PrefixWatch {
    state: Mutex<WatchedQueues>,
    news: Notify,
}

#[derive(Default)]
struct WatchedQueues {
    /// What the keys of each begin with, and how many holds it has.
    queues: HashMap<String, usize>,
    is_watching: bool,
}

/// A queue of which news is wanted, as long as this is there.
pub(super) struct WatchedQueue {
    watch: Arc<PrefixWatch>,
    queue: String,
}

/// The watch goes on for so long after the last lease, which is often not the last.
const LINGER: Duration = Duration::from_secs(2);
/// The pause before a watch that has failed is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

impl PrefixWatch {
    /// Listens for keys that begin so.
    pub(super) fn listen(
        self: &Arc<Self>,
        connection: &Arc<EtcdConnection>,
        queue: String,
    ) -> WatchedQueue {
        let mut state = self.state.lock();
        *state.queues.entry(queue.clone()).or_default() += 1;
        if !state.is_watching {
            state.is_watching = true;
            Handle::current().spawn(self.clone().watch(connection.clone()));
        }
        WatchedQueue { watch: self.clone(), queue }
    }

    /// Ready when another client may have put a key. It may be dropped.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    async fn watch(self: Arc<Self>, connection: Arc<EtcdConnection>) {
        let mut idle_since = None;
        loop {
            let watching = async {
                let mut client = connection.client().await.ok()?;
                let options = WatchOptions::new().with_filters([WatchFilterType::NoDelete]);
                let options = match connection.prefix() {
                    "" => options.with_all_keys(),
                    _ => options.with_prefix(),
                };
                connection.within(client.watch(connection.prefix(), Some(options))).await.ok()
            };
            if let Some(mut watching) = watching.await {
                loop {
                    match timeout(LINGER / 4, watching.message()).await {
                        // Refused, perhaps at once, and with the mark of a watch that was made: until
                        // there is one, questions do.
                        Ok(Ok(Some(answer))) if answer.canceled() => {
                            self.news.notify_one();
                            break;
                        }
                        // What was put before this is found by a question, and what comes later is heard.
                        Ok(Ok(Some(answer))) if answer.created() => self.news.notify_one(),
                        Ok(Ok(Some(answer))) => {
                            let mut keys = answer.events().iter().filter_map(|event| event.kv());
                            if keys.any(|kv| self.is_wanted(kv, &connection)) {
                                self.news.notify_one();
                            }
                        }
                        Ok(_) => break,
                        Err(_) if self.ends(&mut idle_since) => return,
                        Err(_) => {}
                    }
                }
            }
            // Nothing is heard meanwhile: the next watch begins with a question.
            if self.ends(&mut idle_since) {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether another session's key is in a queue that is listened to.
    fn is_wanted(&self, kv: &etcd_client::KeyValue, connection: &EtcdConnection) -> bool {
        let queue = kv.key_str().ok().and_then(|key| key.rfind('/').map(|at| &key[..=at]));
        queue.is_some_and(|queue| self.state.lock().queues.contains_key(queue))
            && connection.current().is_none_or(|own| own.id() != kv.lease())
    }

    /// Whether nothing was listened to for a while: then no more is heard.
    fn ends(&self, idle_since: &mut Option<Instant>) -> bool {
        let mut state = self.state.lock();
        if !state.queues.is_empty() {
            *idle_since = None;
            return false;
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        state.is_watching = since.elapsed() < LINGER;
        !state.is_watching
    }
}

impl Drop for WatchedQueue {
    fn drop(&mut self) {
        let mut state = self.watch.state.lock();
        if let Some(count) = state.queues.get_mut(&self.queue) {
            *count -= 1;
            if *count == 0 {
                state.queues.remove(&self.queue);
            }
        }
    }
}
