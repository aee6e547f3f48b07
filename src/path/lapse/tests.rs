use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;

use crate::{LockManager, MutexGuard, Scope, mode::Share, path::Core};

const LONG: Duration = Duration::from_secs(30);

/// A reader that came in more narrowly, and is stopped before it finds that the name was widened, is what a
/// task waits for that has the lease already.
#[test]
fn a_task_that_is_not_polled_while_it_waits_with_a_lease_gives_that_back() {
    let here = LockManager::in_memory();
    let elsewhere = here.in_memory_peer();
    let [near, far] =
        [&here, &elsewhere].map(|locks| locks.mutex("a", ()).scope(Scope::Host).build().unwrap());
    let guard = far.lock().unwrap();
    let Core::Named(named) = near.core() else { unreachable!("it has a name") };
    let shares = named.entry.shares();
    let mut task = pin!(near.lock_async());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(task.as_mut().poll(&mut cx).is_pending(), "another machine has it");
    shares.read_under(named.entry.thread());
    drop(guard);
    let start = Instant::now();
    while named.host_tier().unwrap().word.is_closed() {
        assert!(start.elapsed() < LONG, "it is not granted");
        thread::yield_now();
    }
    assert!(task.as_mut().poll(&mut cx).is_pending(), "a reader is inside");
    assert!(far.try_lock().unwrap_err().is_contended());
    // Never polled, it holds no machine up.
    drop(far.try_lock_for(LONG).expect("the lease went back"));
    assert!(matches!(task.as_mut().poll(&mut cx), Poll::Pending));
    shares.leave(Share::Reader);
    let guard = block_on(task).unwrap();
    assert!(MutexGuard::is_valid(&guard));
}
