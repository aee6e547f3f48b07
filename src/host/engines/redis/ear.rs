//! Hears releases: one connection per manager, subscribed to the channels of the names waited for.
//!
//! A waiter subscribes first and tries then, so no release goes unheard (redisson#1763). Whenever the
//! connection breaks or is made anew, every waiter is woken to try: what was published in between is
//! lost.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::node::RedisNode;

/// What hears; its task lives as long as it does.
pub(super) struct RedisEar {
    channels: Arc<Mutex<HeardChannels>>,
    node: Arc<RedisNode>,
}

#[derive(Default)]
struct HeardChannels {
    known: HashMap<String, HeardChannel>,
    /// To the task, if it runs.
    orders: Option<mpsc::UnboundedSender<EarOrder>>,
}

struct HeardChannel {
    waiters: usize,
    news: watch::Sender<ChannelNews>,
}

/// What has become of a channel.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct ChannelNews {
    is_heard: bool,
    count: u64,
}

enum EarOrder {
    Listen(String),
    Leave(String),
}

/// One waiter's ear at a channel.
pub(super) struct Hearing {
    channels: Weak<Mutex<HeardChannels>>,
    channel: String,
    news: watch::Receiver<ChannelNews>,
}

impl RedisEar {
    pub(super) fn new(node: Arc<RedisNode>) -> RedisEar {
        RedisEar { channels: Arc::default(), node }
    }

    /// Listens to a channel from now on; see [`Hearing::begins`]. To be called on the engines' thread.
    pub(super) fn listen(&self, channel: &str) -> Hearing {
        let mut channels = self.channels.lock();
        if channels.orders.is_none() {
            let (orders, ordered) = mpsc::unbounded_channel();
            channels.orders = Some(orders);
            let (node, channels) = (self.node.clone(), Arc::downgrade(&self.channels));
            Handle::current().spawn(hear(node, channels, ordered));
        }
        let HeardChannels { known, orders } = &mut *channels;
        let heard = known.entry(channel.to_owned()).or_insert_with(|| {
            let listen = EarOrder::Listen(channel.to_owned());
            // A task that has ended has left no order behind.
            let _ = orders.as_ref().map(|orders| orders.send(listen));
            HeardChannel { waiters: 0, news: watch::Sender::default() }
        });
        heard.waiters += 1;
        Hearing {
            channels: Arc::downgrade(&self.channels),
            channel: channel.to_owned(),
            news: heard.news.subscribe(),
        }
    }
}

impl Hearing {
    /// The server has confirmed that what is published from now on is heard.
    pub(super) async fn begins(&mut self) {
        if self.news.wait_for(|news| news.is_heard).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn is_heard(&self) -> bool {
        self.news.borrow().is_heard
    }

    /// What comes from now on is news.
    pub(super) fn catch_up(&mut self) {
        self.news.mark_unchanged();
    }

    /// A release was published, or may have been.
    pub(super) async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let Some(channels) = self.channels.upgrade() else { return };
        let mut channels = channels.lock();
        let HeardChannels { known, orders } = &mut *channels;
        let Some(heard) = known.get_mut(&self.channel) else { return };
        heard.waiters -= 1;
        if heard.waiters == 0 {
            known.remove(&self.channel);
            let leave = EarOrder::Leave(self.channel.clone());
            let _ = orders.as_ref().map(|orders| orders.send(leave));
        }
    }
}

/// How long the server may take to confirm.
const CONFIRMATION: Duration = Duration::from_secs(2);
/// The longest pause before a connection is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The ear's task. It ends with the ear.
async fn hear(
    node: Arc<RedisNode>,
    channels: Weak<Mutex<HeardChannels>>,
    mut orders: mpsc::UnboundedReceiver<EarOrder>,
) {
    let mut pause = Duration::from_millis(20);
    loop {
        if let Ok(connection) = node.listen().await {
            let (sink, stream) = connection.split();
            if hear_on(&channels, &mut orders, sink, stream).await {
                return;
            }
            pause = Duration::from_millis(20);
        }
        let Some(known) = channels.upgrade() else { return };
        known.lock().known.values().for_each(|heard| heard.news.send_modify(ChannelNews::is_cut));
        drop(known);
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl ChannelNews {
    fn is_cut(&mut self) {
        *self = ChannelNews { is_heard: false, count: self.count + 1 };
    }

    fn begins(&mut self) {
        *self = ChannelNews { is_heard: true, count: self.count + 1 };
    }

    fn comes(&mut self) {
        self.count += 1;
    }
}

/// Whether the server confirms in time.
async fn subscribes(sink: &mut PubSubSink, channel: &str) -> bool {
    matches!(timeout(CONFIRMATION, sink.subscribe(channel)).await, Ok(Ok(())))
}

/// Hears on one connection until it breaks. Whether the ear is gone.
async fn hear_on(
    channels: &Weak<Mutex<HeardChannels>>,
    orders: &mut mpsc::UnboundedReceiver<EarOrder>,
    mut sink: PubSubSink,
    mut stream: PubSubStream,
) -> bool {
    let tell = |channel: &str, change: fn(&mut ChannelNews)| {
        let Some(channels) = channels.upgrade() else { return };
        if let Some(heard) = channels.lock().known.get(channel) {
            heard.news.send_modify(change);
        }
    };
    let Some(known) = channels.upgrade() else { return true };
    let known: Vec<String> = known.lock().known.keys().cloned().collect();
    for channel in known {
        if !subscribes(&mut sink, &channel).await {
            return false;
        }
        tell(&channel, ChannelNews::begins);
    }
    loop {
        tokio::select! {
            order = orders.recv() => {
                let is_carried = match order {
                    None => return true,
                    Some(EarOrder::Listen(channel)) => {
                        let is_carried = subscribes(&mut sink, &channel).await;
                        if is_carried {
                            tell(&channel, ChannelNews::begins);
                        }
                        is_carried
                    }
                    // Another waiter may have come since.
                    Some(EarOrder::Leave(channel)) => match channels.upgrade() {
                        None => return true,
                        Some(known) if known.lock().known.contains_key(&channel) => true,
                        Some(_) => sink.unsubscribe(&channel).await.is_ok(),
                    },
                };
                if !is_carried {
                    return false;
                }
            }
            message = stream.next() => match message {
                None => return false,
                Some(message) => tell(message.get_channel_name(), ChannelNews::comes),
            }
        }
    }
}
