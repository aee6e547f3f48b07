//! Links whose frames are carried by none, or by what has died.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::atomic::AtomicBool,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{
    error::LockErrorKind,
    host::{leased::want, tests::config},
    proto::client::ClientConfig,
};

/// Carries nothing; once it is dead it says so to a caller that asks.
#[derive(Default)]
struct IdleDrive(AtomicBool);

fn died() -> LockError {
    LockError::new(LockErrorKind::Io, "the driver has died")
}

impl Drive for IdleDrive {
    fn start(&self) -> Result<(), LockError> {
        Ok(())
    }

    fn wake(&self) {}

    fn attend(&self) -> Result<(), LockError> {
        if self.0.load(SeqCst) { Err(died()) } else { Ok(()) }
    }

    fn finish(&self, _: Time) {}

    fn while_stalled(&self, work: &mut dyn FnMut()) {
        work();
    }
}

fn link(generation: fn() -> u64) -> (Arc<Link>, Arc<IdleDrive>) {
    let config = ClientConfig { addresses: 1, ..config() };
    let client = Client::new(config, Box::new(crate::host::random), clock::now());
    let drive = Arc::new(IdleDrive::default());
    let its = drive.clone();
    (Link::new(client, generation, |_| its), drive)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Between the look whether a driver runs and the observation it may have died, and told its observers.
#[test]
fn an_observer_that_comes_after_its_driver_has_died_is_told() {
    let (link, drive) = link(|| 0);
    let name = Name::new("a").unwrap();
    let mut news = link.clone().observe_leader(&name).unwrap();
    let mut next = std::future::poll_fn(|cx| news.poll_next(cx));
    assert!(poll(&mut next).is_pending());
    drive.0.store(true, SeqCst);
    link.abandon(died);
    let mut late = link.clone().observe_leader(&name).unwrap();
    let mut late = std::future::poll_fn(|cx| late.poll_next(cx));
    for next in [&mut next as &mut (dyn Future<Output = _> + Unpin), &mut late] {
        let Poll::Ready(Err(error)) = poll(&mut Pin::new(next)) else {
            panic!("it would wait for ever");
        };
        assert_eq!(error.kind(), LockErrorKind::Io);
    }
    assert!(link.state.lock().observers.is_empty());
}
