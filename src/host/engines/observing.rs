//! Observers of elections at an engine.
//!
//! Each is a task on the engines' thread, for as long as its observer is there. It only reads, so it may be
//! dropped at any point. After an outage it begins anew, and tells what the server shows then.

use std::{pin::pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    engine::LockEngine,
    fault::EngineFault,
    leasing::{Leasing, closed},
    teller::LeaderTeller,
};
use crate::{
    error::{LockError, LockErrorKind},
    name::Name,
};

/// An observation under way.
pub(super) struct EngineObservation {
    task: AbortHandle,
    pub(super) told: LeaderTeller,
}

/// The first and the longest pause before a server in trouble is asked again.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl EngineObservation {
    pub(super) fn begin<E: LockEngine>(
        leasing: &Arc<Leasing<E>>,
        name: &Name,
    ) -> EngineObservation {
        let told = LeaderTeller::default();
        let (leasing, name, tell) = (leasing.clone(), name.clone(), told.clone());
        let task = leasing.runtime.clone().spawn(async move {
            let mut closing = pin!(leasing.closing.notified());
            closing.as_mut().enable();
            if !leasing.is_open() {
                return tell.fail(closed());
            }
            let error = tokio::select! {
                error = observe(&leasing.engine, &name, &tell, leasing.connect_timeout) => error,
                () = closing => closed(),
            };
            tell.fail(error);
        });
        EngineObservation { task: task.abort_handle(), told }
    }

    pub(super) fn end(&self) {
        self.task.abort();
    }
}

/// Has an engine observe, again after each trouble, until it is refused, or is silent from the beginning.
async fn observe<E: LockEngine>(
    engine: &E,
    name: &Name,
    tell: &LeaderTeller,
    patience: Duration,
) -> LockError {
    let mut pause = PAUSE;
    let trouble = Mutex::new(None);
    let again = async {
        loop {
            match engine.observe(name, tell).await {
                EngineFault::Final(error) => return error,
                EngineFault::Trouble(what) => *trouble.lock() = Some(what),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    let mut again = pin!(again);
    match timeout(patience, &mut again).await {
        Ok(error) => error,
        Err(_) if tell.has_told() => again.await,
        Err(_) => {
            let shown = engine.shown();
            let what = trouble.lock().take().unwrap_or_else(|| format!("{shown} has not answered"));
            LockError::new(LockErrorKind::Unreachable, what).with_waited(patience)
        }
    }
}
