use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::*},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;

use crate::{LockManager, MutexGuard, Scope, mode::Share, path::Core, path::named::Named};

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
    // Polled in time, it keeps the lease: on a stalled machine it may have lapsed once, and asks again.
    let start = Instant::now();
    loop {
        assert!(task.as_mut().poll(&mut cx).is_pending(), "a reader is inside");
        match far.try_lock() {
            Err(error) if error.is_contended() => break,
            lapsed => assert!(start.elapsed() < LONG, "{lapsed:?}"),
        }
    }
    // Never polled, it holds no machine up.
    drop(far.try_lock_for(LONG).expect("the lease went back"));
    assert!(matches!(task.as_mut().poll(&mut cx), Poll::Pending));
    shares.leave(Share::Reader);
    let guard = block_on(task).unwrap();
    assert!(MutexGuard::is_valid(&guard));
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "{what}");
        thread::yield_now();
    }
}

fn named_of<T: ?Sized>(lock: &crate::Mutex<T>) -> &Named {
    let Core::Named(named) = lock.core() else { unreachable!("it has a name") };
    named
}

fn pending(task: &mut (impl Future + Unpin)) {
    assert!(Pin::new(task).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// It sat at the turnstile while it waited for the lease. Its turn is given back as a whole: the seat would
/// be taken for the turn of the task that has the turnstile next.
#[test]
fn a_task_that_waited_in_its_seat_and_then_for_readers_leaves_no_seat_behind() {
    let here = LockManager::in_memory();
    let elsewhere = here.in_memory_peer();
    let [near, far] =
        [&here, &elsewhere].map(|locks| locks.mutex("a", ()).scope(Scope::Host).build().unwrap());
    let named = named_of(&near);
    let (shares, word) = (named.entry.shares(), &named.host_tier().unwrap().word);
    let guard = far.lock().unwrap();
    let mut leaked = Box::pin(near.lock_async());
    pending(&mut leaked);
    shares.read_under(named.entry.thread());
    drop(guard);
    until("it is granted", || !word.is_closed());
    pending(&mut leaked);
    // It has the lease and the turnstile, waits for a reader, and is not polled any more.
    let mut behind = Box::pin(near.lock_async());
    pending(&mut behind);
    drop(far.try_lock_for(LONG).expect("the lease went back"));
    // The turnstile is the second task's, which is not polled either.
    until("its turn lapses", || named.entry.thread().take_lapsed());
    pending(&mut behind);
    shares.leave(Share::Reader);
    named.entry.thread().step_out();
    // Had it taken the turnstile up, too, it would give back what no guard has.
    drop(behind);
    drop(leaked);
    drop(near.try_lock_for(LONG).unwrap());
}

/// Polls a task wherever it is woken, as an executor may that runs on the waking thread.
struct InlinePoll {
    task: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    is_done: AtomicBool,
}

impl Wake for InlinePoll {
    fn wake(self: Arc<InlinePoll>) {
        if let Some(task) = &mut *self.task.lock().unwrap() {
            let _ = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        self.is_done.store(true, SeqCst);
    }
}

#[test]
fn a_turn_that_lapses_wakes_a_task_whose_waker_polls_the_late_one() {
    let here = LockManager::in_memory();
    let elsewhere = here.in_memory_peer();
    let near = Arc::new(here.mutex("a", ()).scope(Scope::Host).build().unwrap());
    let far = elsewhere.mutex("a", ()).scope(Scope::Host).build().unwrap();
    let named = named_of(&near);
    let (shares, word) = (named.entry.shares(), &named.host_tier().unwrap().word);
    let guard = far.lock().unwrap();
    let its_own = near.clone();
    let mut late: Pin<Box<dyn Future<Output = ()> + Send>> =
        Box::pin(async move { drop(its_own.lock_async().await.unwrap()) });
    pending(&mut late);
    shares.read_under(named.entry.thread());
    drop(guard);
    until("it is granted", || !word.is_closed());
    pending(&mut late);
    let inline = InlinePoll { task: Mutex::new(Some(late)), is_done: AtomicBool::new(false) };
    let inline = Arc::new(inline);
    let mut behind = Box::pin(near.lock_async());
    let waker = Waker::from(inline.clone());
    assert!(behind.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    until("the waker has returned", || inline.is_done.load(SeqCst));
    shares.leave(Share::Reader);
    drop(behind);
    drop(inline.task.lock().unwrap().take());
    drop(near.try_lock_for(LONG).unwrap());
}
