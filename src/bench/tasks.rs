//! Asynchronous callers: tasks on a multi-threaded runtime.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Runtime, task::JoinHandle};

use super::{
    failure::{Result, check_count},
    run::Contender,
    stats::{Meter, Share, Tally, Unprotected},
};

/// An asynchronous caller: what it does again and again.
pub(crate) trait Client: Send + 'static {
    /// Locks and unlocks once.
    fn cycle(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// One task that nobody disturbs.
pub(crate) struct QuietAsync<C> {
    runtime: Arc<Runtime>,
    client: Option<C>,
}

impl<C: Client> QuietAsync<C> {
    pub(crate) fn new(runtime: Arc<Runtime>, client: C) -> QuietAsync<C> {
        QuietAsync { runtime, client: Some(client) }
    }
}

impl<C: Client> Contender for QuietAsync<C> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let mut client = self.client.take().expect("given back after every slice");
        let mut own = tally.empty();
        // A task of its own: what blocks on a runtime from outside is no task of it.
        let task = self.runtime.spawn(async move {
            let mut meter = Meter::start(slice, &mut own);
            let mut done = Ok(());
            'slice: while let Some(cycles) = meter.next() {
                for _ in 0..cycles {
                    done = client.cycle().await;
                    if done.is_err() {
                        break 'slice;
                    }
                }
            }
            (client, own, done)
        });
        let (client, own, done) = self.runtime.block_on(task).expect("it does not panic");
        self.client = Some(client);
        tally.add(own);
        done
    }
}

/// Tasks that work side by side.
pub(crate) struct Fleet<C> {
    runtime: Arc<Runtime>,
    clients: Vec<Option<(C, Share)>>,
    /// What they all count under one lock, if it is one lock.
    count: Option<Arc<Unprotected>>,
    expected: u64,
}

impl<C: Client> Fleet<C> {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        clients: Vec<C>,
        count: Option<Arc<Unprotected>>,
    ) -> Fleet<C> {
        let clients = clients.into_iter().map(|client| Some((client, Share::new()))).collect();
        Fleet { runtime, clients, count, expected: 0 }
    }

    fn spawn(&mut self, index: usize, slice: Duration) -> JoinHandle<(C, Share, Result<()>)> {
        let (mut client, mut share) =
            self.clients[index].take().expect("given back after every slice");
        self.runtime.spawn(async move {
            let mut last = Instant::now();
            let end = last + slice;
            while last < end {
                if let Err(failure) = client.cycle().await {
                    return (client, share, Err(failure));
                }
                let now = Instant::now();
                share.add(now - last);
                last = now;
            }
            (client, share, Ok(()))
        })
    }
}

impl<C: Client> Contender for Fleet<C> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let started = Instant::now();
        let tasks: Vec<_> = (0..self.clients.len()).map(|index| self.spawn(index, slice)).collect();
        let mut outcome = Ok(());
        for (index, task) in tasks.into_iter().enumerate() {
            let (client, mut share, done) = self.runtime.block_on(task).expect("it does not panic");
            self.expected += share.operations();
            tally.absorb(index, &mut share);
            self.clients[index] = Some((client, share));
            outcome = outcome.and(done);
        }
        tally.wall(started.elapsed());
        outcome
    }

    fn check(&mut self) -> Result<()> {
        match &self.count {
            Some(count) => check_count("clients on one name", count.get(), self.expected),
            None => Ok(()),
        }
    }
}
