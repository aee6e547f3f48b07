//! The connections of one manager to its database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{AdvisoryCore, AdvisoryDatabase, SessionEnd};
use crate::{
    clock,
    host::engines::{fault::EngineFault, session_life::SessionLife},
};

/// A session at the server.
pub(super) struct AdvisorySession<D: AdvisoryDatabase> {
    pub(super) connection: D::Connection,
    pub(super) life: Arc<SessionLife>,
    /// How many locks it holds.
    holds: AtomicUsize,
    /// Of a spare one: it may wait, and then holds one lock.
    permit: Option<OwnedSemaphorePermit>,
}

impl<D: AdvisoryDatabase> AdvisorySession<D> {
    pub(super) fn is_spare(&self) -> bool {
        self.permit.is_some()
    }

    fn is_idle(&self) -> bool {
        self.holds.load(SeqCst) == 0
    }
}

/// A lock that a session holds, counted until it is dropped.
pub(super) struct SessionUse<D: AdvisoryDatabase>(Arc<AdvisorySession<D>>);

impl<D: AdvisoryDatabase> SessionUse<D> {
    pub(super) fn of(session: Arc<AdvisorySession<D>>) -> SessionUse<D> {
        session.holds.fetch_add(1, SeqCst);
        SessionUse(session)
    }
}

impl<D: AdvisoryDatabase> Drop for SessionUse<D> {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, SeqCst);
    }
}

/// All of them.
pub(super) struct AdvisorySessions<D: AdvisoryDatabase> {
    time_to_live: Duration,
    base: Mutex<Option<Arc<AdvisorySession<D>>>>,
    /// One at a time looks for a base, or opens it.
    opening: tokio::sync::Mutex<()>,
    /// Spare ones that nothing waits on, and that hold nothing.
    idle: Mutex<Vec<Arc<AdvisorySession<D>>>>,
    permits: Arc<Semaphore>,
    /// One of them has ended.
    news: Arc<Notify>,
}

impl<D: AdvisoryDatabase> AdvisorySessions<D> {
    pub(super) fn new(time_to_live: Duration, connections: usize) -> AdvisorySessions<D> {
        AdvisorySessions {
            time_to_live,
            base: Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(connections.saturating_sub(1))),
            news: Arc::new(Notify::new()),
        }
    }

    /// The base, if there is one that is not over.
    pub(super) fn current(&self) -> Option<Arc<AdvisorySession<D>>> {
        self.base.lock().clone().filter(|session| !session.life.is_over())
    }

    /// A base that is good for long enough to begin something. It may be dropped.
    pub(super) async fn base(
        &self,
        core: &AdvisoryCore<D>,
    ) -> Result<Arc<AdvisorySession<D>>, EngineFault> {
        let _opening = self.opening.lock().await;
        let known = self.base.lock().clone();
        if let Some(session) = known {
            if session.life.is_fresh() || !session.life.is_over() && core.ping(&session).await {
                return Ok(session);
            }
            self.retire(&core.database, &session);
        }
        let session = self.open(&core.database, None).await?;
        *self.base.lock() = Some(session.clone());
        Ok(session)
    }

    /// One to wait on; `None` if there are as many as there may be.
    pub(super) async fn spare(
        &self,
        database: &D,
    ) -> Result<Option<Arc<AdvisorySession<D>>>, EngineFault> {
        loop {
            let known = self.idle.lock().pop();
            match known {
                Some(session) if session.life.is_ended() => {}
                Some(session) => return Ok(Some(session)),
                None => break,
            }
        }
        let Ok(permit) = self.permits.clone().try_acquire_owned() else { return Ok(None) };
        self.open(database, Some(permit)).await.map(Some)
    }

    async fn open(
        &self,
        database: &D,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Arc<AdvisorySession<D>>, EngineFault> {
        let life = Arc::new(SessionLife::new(clock::now(), self.time_to_live));
        let end = SessionEnd { life: life.clone(), news: self.news.clone() };
        let connection = database.open(end).await?;
        Ok(Arc::new(AdvisorySession { connection, life, holds: AtomicUsize::new(0), permit }))
    }

    /// Begins nothing on it any more. It ends unless something is held there that may be good.
    pub(super) fn retire(&self, database: &D, session: &Arc<AdvisorySession<D>>) {
        let mut base = self.base.lock();
        base.take_if(|base| Arc::ptr_eq(base, session));
        drop(base);
        if session.is_idle() || session.life.is_over() {
            database.close(&session.connection);
        }
    }

    /// Nothing waits or is held on it any more. The base stays what it is.
    pub(super) fn put_back(&self, session: Arc<AdvisorySession<D>>) {
        if session.is_spare() && !session.life.is_ended() {
            self.idle.lock().push(session);
        }
    }

    /// A session has ended since this was last ready.
    pub(super) async fn heard(&self) {
        self.news.notified().await;
    }

    /// Ends all that hold nothing.
    pub(super) fn part(&self, database: &D) {
        let idle = std::mem::take(&mut *self.idle.lock());
        let base = self.base.lock().take();
        for session in idle.into_iter().chain(base) {
            database.close(&session.connection);
        }
    }
}
