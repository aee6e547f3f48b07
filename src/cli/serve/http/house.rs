//! The connections of the page, which are bounded.
//!
//! Where there is no room for one more, the oldest that has not said yet what it wants is ended: connections
//! that stay silent keep no other out, a probe of the leader's health for instance, by which it might be ended.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

const CONNECTIONS_MAX: usize = 64;

/// All connections.
pub(super) struct HttpHouse {
    room: Arc<Semaphore>,
    silent: Mutex<SilentConnections>,
}

/// Those that have not asked yet, by their age, and how each is ended.
#[derive(Default)]
struct SilentConnections {
    last: u64,
    ends: BTreeMap<u64, AbortHandle>,
}

/// A place among the connections.
pub(super) struct HttpPlace {
    house: Arc<HttpHouse>,
    number: u64,
    _room: OwnedSemaphorePermit,
}

impl HttpHouse {
    pub(super) fn new() -> HttpHouse {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        HttpHouse { room, silent: Mutex::default() }
    }

    /// Waits for room, and makes some if it can.
    pub(super) async fn place(self: &Arc<Self>) -> HttpPlace {
        if self.room.available_permits() == 0 {
            let oldest = self.silent.lock().ends.pop_first();
            if let Some((_, end)) = oldest {
                end.abort();
            }
        }
        let room = self.room.clone().acquire_owned().await.expect("it is never closed");
        let mut silent = self.silent.lock();
        silent.last += 1;
        HttpPlace { house: self.clone(), number: silent.last, _room: room }
    }

    /// The connection of this place is ended so.
    pub(super) fn may_end(&self, number: u64, end: AbortHandle) {
        self.silent.lock().ends.insert(number, end);
    }
}

impl HttpPlace {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its connection has said what it wants, or is over.
    pub(super) fn is_not_silent(&self) {
        self.house.silent.lock().ends.remove(&self.number);
    }
}

impl Drop for HttpPlace {
    fn drop(&mut self) {
        self.is_not_silent();
    }
}
