//! Links whose frames are carried by none, or by what has died.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        atomic::{AtomicBool, AtomicU64},
        mpsc::channel,
    },
    task::{Context, Poll, Waker},
    thread,
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

/// What was begun before a fork and is polled in the child, where a thread that is not there may have the
/// link locked.
#[test]
fn what_a_child_has_inherited_is_refused_and_not_locked() {
    static GENERATION: AtomicU64 = AtomicU64::new(0);
    let (link, _drive) = link(|| GENERATION.load(SeqCst));
    let name = Name::new("a").unwrap();
    let mut asked = link.acquire(want("a"));
    let mut unpolled = link.acquire(want("b"));
    let mut question = link.check(&name, Token::ZERO, None);
    let mut news = link.clone().observe_leader(&name).unwrap();
    assert!(poll(&mut asked).is_pending());
    assert!(poll(&mut question).is_pending());
    assert!(poll(&mut std::future::poll_fn(|cx| news.poll_next(cx))).is_pending());
    let waited = link.acquire(want("c"));
    GENERATION.store(1, SeqCst);
    let held = link.state.lock();
    let (tell, told) = channel();
    thread::spawn(move || {
        let errors = [
            poll(&mut asked).map(Result::err),
            poll(&mut unpolled).map(Result::err),
            poll(&mut question).map(Result::err),
            poll(&mut std::future::poll_fn(|cx| news.poll_next(cx))).map(Result::err),
            Poll::Ready(waited.wait().err()),
        ];
        drop((asked, unpolled, question, news));
        tell.send(errors).unwrap();
    });
    let errors = told.recv_timeout(Duration::from_secs(20)).expect("it waits for what is locked");
    for error in errors {
        let Poll::Ready(Some(error)) = error else { panic!("{error:?}") };
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(error.to_string().contains("opened before a fork"), "{error}");
    }
    drop(held);
    // The rest of this test's process is the parent again.
    GENERATION.store(0, SeqCst);
}
