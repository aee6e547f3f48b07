//! Connections to a store, one for each lane, and how long each may take to answer.
//!
//! A connection of which an answer is missing is ended: what comes late on it could be taken for the
//! answer to another question. The next operation of its lane begins with a new one.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    error::Result,
    host::engines::{fault::EngineFault, runtime},
    proto::journal::{JournalTrouble, Lane},
};

/// The ways to a store. `C` is a connection, which ends when it is dropped.
pub(super) struct StoreWays<C> {
    runtime: Handle,
    limit: Duration,
    ways: [Mutex<Option<C>>; 3],
}

impl<C> StoreWays<C> {
    /// Ways on which an operation, with a connection that it may have to open first, takes so long at
    /// most.
    pub(super) fn new(limit: Duration) -> Result<StoreWays<C>> {
        Ok(StoreWays { runtime: runtime::handle()?, limit, ways: Default::default() })
    }

    /// Asks by the connection of a lane; whatever becomes of it, this returns in time.
    pub(super) fn ask<T>(
        &self,
        lane: Lane,
        connect: impl AsyncFnOnce() -> Result<C, EngineFault>,
        ask: impl AsyncFnOnce(&mut C) -> Result<T, JournalTrouble>,
    ) -> Result<T, JournalTrouble> {
        let mut way = self.ways[lane as usize].lock();
        let known = way.take();
        let asking = async {
            let mut connection = match known {
                Some(connection) => connection,
                None => connect().await.map_err(unknown)?,
            };
            let answer = ask(&mut connection).await?;
            Ok((connection, answer))
        };
        match self.run(self.limit, asking) {
            Some(Ok((connection, answer))) => {
                *way = Some(connection);
                Ok(answer)
            }
            Some(Err(trouble)) => Err(trouble),
            None => {
                let limit = self.limit;
                Err(JournalTrouble::Unknown(format!("no answer within {limit:.1?}")))
            }
        }
    }

    /// Waits for something on the stores' own thread; `None` if it takes longer than this.
    pub(super) fn run<T>(&self, limit: Duration, doing: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async { timeout(limit, doing).await.ok() })
    }
}

/// It may have happened.
pub(super) fn unknown(fault: EngineFault) -> JournalTrouble {
    JournalTrouble::Unknown(fault.into_error().to_string())
}
