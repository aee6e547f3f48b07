use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use futures::executor::block_on;

use super::*;
use crate::clock;

/// Releases on drop, so that a failing test does not hang the others' threads.
struct Releaser<'a>(&'a ThreadLock, ThreadTaken);

impl Drop for Releaser<'_> {
    fn drop(&mut self) {
        self.0.release(Predecessor::Clean);
    }
}

fn hold(lock: &ThreadLock) -> Releaser<'_> {
    Releaser(lock, lock.take())
}

/// A task driven by hand, and how often it was woken.
struct PlayedTask<'a> {
    future: Option<Pin<Box<dyn Future<Output = ThreadTaken> + Send + 'a>>>,
    waker: Arc<PollCount>,
}

#[derive(Default)]
struct PollCount(AtomicUsize);

impl Wake for PollCount {
    fn wake(self: Arc<PollCount>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl<'a> PlayedTask<'a> {
    fn unpolled(lock: &'a ThreadLock) -> PlayedTask<'a> {
        PlayedTask { future: Some(Box::pin(lock.take_async())), waker: Arc::default() }
    }

    fn queued(lock: &'a ThreadLock) -> PlayedTask<'a> {
        let mut task = PlayedTask::unpolled(lock);
        assert!(!task.poll());
        task
    }

    /// One that has let its turn at the turnstile lapse.
    fn coming_back(lock: &'a ThreadLock, seat: Seat) -> PlayedTask<'a> {
        let future = async move {
            lock.come_back(seat).await;
            lock.count()
        };
        PlayedTask { future: Some(Box::pin(future)), waker: Arc::default() }
    }

    /// Whether it has the lock now.
    fn poll(&mut self) -> bool {
        let waker = Waker::from(self.waker.clone());
        let future = self.future.as_mut().expect("polled after it was ready");
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(_) => {
                self.future = None;
                true
            }
            Poll::Pending => false,
        }
    }

    fn woken(&self) -> usize {
        self.waker.0.load(SeqCst)
    }
}

impl ThreadLock {
    /// Threads waiting, tasks waiting, whether there is an heir that has not come yet.
    fn census(&self) -> (usize, usize, bool) {
        self.queue.so_far().map_or((0, 0, false), |queue| queue.lock().census())
    }

    fn free(&self) {
        self.release(Predecessor::Clean);
    }

    fn until_threads_wait(&self, threads: usize) {
        while self.census().0 != threads {
            thread::yield_now();
        }
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.census(), (0, 0, false));
        assert_eq!(self.word.load(Relaxed), 0);
        assert!(self.try_take().is_some());
        self.free();
    }
}

/// Lets every queued waiter run out of patience. Waiting longer does no harm.
fn try_patience() {
    let start = clock::now();
    while clock::now().since(start) <= PATIENCE {
        thread::yield_now();
    }
}

/// Something that only exclusion protects: between reading and writing it, others get in.
struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    fn count(&self) {
        let before = self.0.load(Relaxed);
        std::hint::spin_loop();
        self.0.store(before + 1, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Plays a scene until it comes out as meant: one that takes longer than [`PATIENCE`] on a busy
/// machine ends as another scene, which does no harm but shows nothing.
fn until_seen(mut scene: impl FnMut() -> bool) {
    while !scene() {}
}

#[test]
fn threads_exclude_each_other() {
    let (lock, counter) = (ThreadLock::new(), Counter::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let _held = hold(&lock);
                    counter.count();
                }
            });
        }
    });
    assert_eq!(counter.get(), 80_000);
    lock.assert_nothing_left();
}

#[test]
fn tasks_exclude_each_other() {
    let (lock, counter) = (Arc::new(ThreadLock::new()), Arc::new(Counter::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (lock, counter) = (lock.clone(), counter.clone());
                tokio::spawn(async move {
                    for i in 0..2_000 {
                        lock.take_async().await;
                        counter.count();
                        if i % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                        lock.free();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(counter.get(), 16_000);
    lock.assert_nothing_left();
}

#[test]
fn threads_and_tasks_exclude_each_other() {
    let (lock, counter) = (Arc::new(ThreadLock::new()), Arc::new(Counter::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for _ in 0..4 {
        let (lock, counter) = (lock.clone(), counter.clone());
        runtime.spawn(async move {
            for _ in 0..3_000 {
                lock.take_async().await;
                counter.count();
                lock.free();
                tokio::task::yield_now().await;
            }
        });
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..3_000 {
                    let _held = hold(&lock);
                    counter.count();
                }
            });
        }
    });
    while Arc::strong_count(&lock) > 1 {
        thread::yield_now();
    }
    assert_eq!(counter.get(), 18_000);
    lock.assert_nothing_left();
}

#[test]
fn threads_that_ran_out_of_patience_are_served_in_order_of_arrival() {
    let lock = ThreadLock::new();
    let (served, order) = mpsc::channel();
    thread::scope(|scope| {
        let held = hold(&lock);
        for i in 0..6 {
            let (lock, served) = (&lock, served.clone());
            scope.spawn(move || {
                lock.take();
                served.send(i).unwrap();
                // The holder keeps the lock until all behind it are due.
                try_patience();
                lock.free();
            });
            lock.until_threads_wait(i + 1);
        }
        try_patience();
        drop(held);
    });
    assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    lock.assert_nothing_left();
}

#[test]
fn tasks_are_served_in_order_of_arrival_when_young_and_when_due() {
    for due in [false, true] {
        let lock = ThreadLock::new();
        lock.take();
        let mut tasks: Vec<_> = (0..5).map(|_| PlayedTask::queued(&lock)).collect();
        for i in 0..5 {
            if due {
                try_patience();
            }
            lock.free();
            // Only the first may go, whichever other is polled.
            for later in &mut tasks[i + 1..] {
                assert!(!later.poll());
                assert_eq!(later.woken(), 0);
            }
            assert_eq!(tasks[i].woken(), 1);
            assert!(tasks[i].poll());
        }
        lock.free();
        drop(tasks);
        lock.assert_nothing_left();
    }
}

#[test]
fn a_woken_waiter_that_was_overtaken_keeps_its_place() {
    until_seen(|| {
        let lock = ThreadLock::new();
        lock.take();
        let mut first = PlayedTask::queued(&lock);
        let mut second = PlayedTask::queued(&lock);
        lock.free();
        if lock.try_take().is_none() {
            return false;
        }
        assert_eq!(lock.word.load(Relaxed), LOCKED | WAITERS | CALLED);
        assert!(!first.poll());
        assert_eq!(lock.word.load(Relaxed), LOCKED | WAITERS, "it has to be called again");
        assert!(!second.poll());
        lock.free();
        assert_eq!((first.woken(), second.woken()), (2, 0));
        assert!(!second.poll());
        assert!(first.poll());
        lock.free();
        assert!(second.poll());
        lock.free();
        lock.assert_nothing_left();
        true
    });
}

#[test]
fn a_waiter_is_not_woken_twice_before_it_looks() {
    until_seen(|| {
        let lock = ThreadLock::new();
        lock.take();
        let mut task = PlayedTask::queued(&lock);
        lock.free();
        if lock.try_take().is_none() {
            return false;
        }
        lock.free();
        assert_eq!(task.woken(), 1);
        assert!(task.poll());
        lock.free();
        lock.assert_nothing_left();
        true
    });
}

#[test]
fn a_due_waiter_is_handed_the_lock_which_is_never_free() {
    let lock = ThreadLock::new();
    lock.take();
    let mut task = PlayedTask::queued(&lock);
    try_patience();
    lock.free();
    assert_eq!(lock.census(), (0, 0, true));
    assert!(lock.try_take().is_none());
    assert!(task.poll());
    lock.free();
    lock.assert_nothing_left();
}

/// parking_lot 0.13 dropped its eventual fairness: there, this waiter may wait without limit.
#[test]
fn a_thread_beside_one_that_takes_again_at_once_is_served_within_few_holds() {
    let lock = ThreadLock::new();
    let served = AtomicBool::new(false);
    let mut holds_since_due = 0;
    thread::scope(|scope| {
        lock.take();
        scope.spawn(|| {
            lock.take();
            served.store(true, SeqCst);
            lock.free();
        });
        lock.until_threads_wait(1);
        try_patience();
        // The waiter is due now: this release hands over, and our next taking comes after it.
        while !served.load(SeqCst) {
            lock.free();
            lock.take();
            holds_since_due += 1;
        }
        lock.free();
    });
    assert_eq!(holds_since_due, 1);
    lock.assert_nothing_left();
}

#[test]
fn hand_overs_alternate_between_the_kinds() {
    let lock = Arc::new(ThreadLock::new());
    let order = Arc::new(crate::fork::Mutex::new(Vec::new()));
    lock.take();
    thread::scope(|scope| {
        let mut tasks = Vec::new();
        for i in 0..3 {
            let (lock, order) = (&lock, &order);
            scope.spawn(move || {
                lock.take();
                order.lock().push((WaiterKind::Thread, i));
                lock.free();
            });
            lock.until_threads_wait(i + 1);
            tasks.push(PlayedTask::queued(lock));
        }
        try_patience();
        lock.free();
        for (i, task) in tasks.iter_mut().enumerate() {
            while task.woken() == 0 {
                thread::yield_now();
            }
            assert!(task.poll());
            order.lock().push((WaiterKind::Task, i));
            lock.free();
        }
    });
    use WaiterKind::{Task as Async, Thread};
    assert_eq!(
        *order.lock(),
        [(Thread, 0), (Async, 0), (Thread, 1), (Async, 1), (Thread, 2), (Async, 2)]
    );
    lock.assert_nothing_left();
}

#[test]
fn a_stream_of_one_kind_does_not_starve_the_other() {
    for starving in [WaiterKind::Thread, WaiterKind::Task] {
        let lock = ThreadLock::new();
        let served = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !served.load(SeqCst) {
                        match starving {
                            WaiterKind::Thread => block_on(lock.take_async()),
                            WaiterKind::Task => lock.take(),
                        };
                        lock.free();
                    }
                });
            }
            for _ in 0..100 {
                match starving {
                    WaiterKind::Thread => lock.take(),
                    WaiterKind::Task => block_on(lock.take_async()),
                };
                lock.free();
            }
            served.store(true, SeqCst);
        });
        lock.assert_nothing_left();
    }
}

#[test]
fn a_thread_lets_go_and_the_only_waiter_is_a_task() {
    let lock = ThreadLock::new();
    thread::scope(|scope| {
        for _ in 0..200 {
            lock.take();
            let task = scope.spawn(|| {
                block_on(lock.take_async());
                lock.free();
            });
            while lock.census().1 == 0 {
                thread::yield_now();
            }
            lock.free();
            task.join().unwrap();
        }
    });
    lock.assert_nothing_left();
}

#[test]
fn a_task_lets_go_and_the_only_waiter_is_a_thread() {
    let lock = ThreadLock::new();
    thread::scope(|scope| {
        for _ in 0..200 {
            block_on(lock.take_async());
            let waiter = scope.spawn(|| {
                lock.take();
                lock.free();
            });
            lock.until_threads_wait(1);
            lock.free();
            waiter.join().unwrap();
        }
    });
    lock.assert_nothing_left();
}

/// rustfs#2795 and redisson's changelog: a dropped async waiter left counters or bits behind.
#[test]
fn a_task_dropped_at_any_stage_leaves_nothing_behind() {
    let lock = ThreadLock::new();

    // Before it was polled, with the lock free and taken.
    drop(PlayedTask::unpolled(&lock));
    lock.take();
    drop(PlayedTask::unpolled(&lock));
    assert_eq!(lock.word.load(Relaxed), LOCKED);

    // Queued: first, in the middle, last.
    for gone in 0..3 {
        let mut tasks: Vec<_> = (0..3).map(|_| PlayedTask::queued(&lock)).collect();
        drop(tasks.remove(gone));
        assert_eq!(lock.census(), (0, 2, false));
        drop(tasks);
        assert_eq!(lock.word.load(Relaxed), LOCKED);
    }

    // After the lock was freed and it was woken, or was handed the lock: told apart by the word.
    for due in [false, true] {
        let task = PlayedTask::queued(&lock);
        if due {
            try_patience();
        }
        lock.free();
        assert_eq!(task.woken(), 1);
        drop(task);
        lock.assert_nothing_left();
        lock.take();
    }

    // Once it was ready the lock is its caller's, dropped or not.
    lock.free();
    let mut task = PlayedTask::unpolled(&lock);
    assert!(task.poll());
    drop(task);
    assert!(lock.try_take().is_none());
    lock.free();
    lock.assert_nothing_left();
}

/// atlasdb#4933, zk-ruby#49: a grant went to a client that had given up.
#[test]
fn a_dropped_task_passes_on_what_it_was_given() {
    for (due, next_is_thread) in [(false, false), (false, true), (true, false), (true, true)] {
        let lock = ThreadLock::new();
        lock.take();
        thread::scope(|scope| {
            let gives_up = PlayedTask::queued(&lock);
            let mut next = None;
            if next_is_thread {
                // A taking that never ends would hang the scope: the join at its end is the check.
                scope.spawn(|| {
                    lock.take();
                    lock.free();
                });
                lock.until_threads_wait(1);
            } else {
                next = Some(PlayedTask::queued(&lock));
            }
            // The task's turn, also beside a thread that is due.
            lock.queue().let_task_be_next();
            if due {
                try_patience();
            }
            lock.free();
            assert_eq!(gives_up.woken(), 1);
            drop(gives_up);
            if let Some(mut next) = next {
                assert_eq!(next.woken(), 1);
                assert!(next.poll());
                lock.free();
            }
        });
        lock.assert_nothing_left();
    }
}

#[test]
fn a_handed_over_lock_that_is_not_wanted_keeps_its_predecessor_and_its_token() {
    let lock = ThreadLock::new();
    let before = lock.take().token;
    let task = PlayedTask::queued(&lock);
    try_patience();
    lock.release(Predecessor::Panicked);
    assert_eq!(lock.census(), (0, 0, true));
    drop(task);
    let taken = lock.try_take().unwrap();
    assert_eq!(taken.predecessor, Predecessor::Panicked);
    assert_eq!(Some(taken.token), before.next());
    lock.free();
}

#[test]
fn a_task_that_moves_is_woken_where_it_was_polled_last() {
    let lock = ThreadLock::new();
    lock.take();
    let mut task = PlayedTask::queued(&lock);
    let old = std::mem::take(&mut task.waker);
    assert!(!task.poll());
    lock.free();
    assert_eq!((old.0.load(SeqCst), task.woken()), (0, 1));
    assert!(task.poll());
    lock.free();
    lock.assert_nothing_left();
}

/// A waker may do anything, here: poll the task at once, on the releasing thread.
#[test]
fn a_waker_comes_back_to_the_lock() {
    struct TryIt(Arc<ThreadLock>, AtomicBool);
    impl Wake for TryIt {
        fn wake(self: Arc<TryIt>) {
            let free = self.0.try_take();
            if free.is_some() {
                self.0.free();
            }
            drop(PlayedTask::unpolled(&self.0));
            self.1.store(true, SeqCst);
        }
    }
    let lock = Arc::new(ThreadLock::new());
    for due in [false, true] {
        lock.take();
        let waker = Arc::new(TryIt(lock.clone(), AtomicBool::new(false)));
        let mut future = Box::pin(lock.take_async());
        let context = Waker::from(waker.clone());
        assert!(future.as_mut().poll(&mut Context::from_waker(&context)).is_pending());
        if due {
            try_patience();
        }
        lock.free();
        assert!(waker.1.load(SeqCst));
        drop(future);
        lock.assert_nothing_left();
    }
}

/// A hand-over to a stopped waiter must not stop all others.
#[test]
fn a_thread_takes_back_what_a_task_was_handed_and_left_lying() {
    let lock = ThreadLock::new();
    lock.take();
    let mut task = PlayedTask::queued(&lock);
    try_patience();
    lock.free();
    assert_eq!(lock.census(), (0, 0, true));
    // The task is not polled: its executor's thread is this one, and it blocks here.
    lock.take();
    assert_eq!(lock.census(), (0, 0, false));
    // It stands at its place again once it is polled, and not before.
    assert!(!task.poll());
    assert_eq!(lock.census(), (0, 1, false));
    lock.free();
    assert!(task.poll());
    lock.free();
    lock.assert_nothing_left();
}

#[test]
fn a_time_that_has_come_takes_a_free_lock_and_waits_for_no_other() {
    let lock = ThreadLock::new();
    assert!(lock.take_until(Time::ZERO).is_some());
    assert!(lock.take_until(Time::ZERO).is_none());
    assert!(lock.take_until(clock::now() + Duration::from_millis(2)).is_none());
    assert_eq!(lock.word.load(Relaxed), LOCKED);
    lock.free();
    lock.assert_nothing_left();
}

#[test]
fn a_time_too_far_away_is_never() {
    let lock = ThreadLock::new();
    lock.take();
    thread::scope(|scope| {
        scope.spawn(|| {
            lock.take_until(clock::now() + Duration::MAX).unwrap();
            lock.free();
        });
        lock.until_threads_wait(1);
        lock.free();
    });
    lock.assert_nothing_left();
}

#[test]
fn time_outs_race_with_hand_overs() {
    let (lock, counter) = (ThreadLock::new(), Counter::new());
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 0..4_u64 {
            let (lock, counter, taken) = (&lock, &counter, &taken);
            scope.spawn(move || {
                for i in 0..1_500 {
                    // Around the moment at which hand-overs begin.
                    let wait = Duration::from_micros((i * 37 + seed * 211) % 1_000);
                    if lock.take_until(clock::now() + wait).is_some() {
                        counter.count();
                        taken.fetch_add(1, SeqCst);
                        if i % 8 == 0 {
                            try_patience();
                        }
                        lock.free();
                    }
                }
            });
        }
    });
    assert_eq!(counter.get(), taken.load(SeqCst) as u64);
    lock.assert_nothing_left();
}

/// matrixone#25790: taken although already cancelled.
#[test]
fn drops_race_with_hand_overs() {
    let lock = Arc::new(ThreadLock::new());
    let counter = Arc::new(Counter::new());
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for seed in 0..3 {
            let (lock, counter, taken) = (lock.clone(), counter.clone(), &taken);
            scope.spawn(move || {
                for i in 0..3_000 {
                    let mut task = PlayedTask::unpolled(&lock);
                    for _ in 0..(i + seed) % 5 {
                        if task.poll() {
                            counter.count();
                            taken.fetch_add(1, SeqCst);
                            if i % 16 == 0 {
                                try_patience();
                            }
                            lock.free();
                            break;
                        }
                        thread::yield_now();
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..3_000 {
                let _held = hold(&lock);
                counter.count();
                taken.fetch_add(1, SeqCst);
            }
        });
    });
    assert_eq!(counter.get(), taken.load(SeqCst) as u64);
    lock.assert_nothing_left();
}

#[test]
fn tokens_only_grow() {
    let lock = ThreadLock::new();
    let mut last = Token::ZERO;
    for _ in 0..3 {
        let held = hold(&lock);
        assert!(held.1.token > last);
        last = held.1.token;
    }
    lock.take();
    lock.raise_token(Token::new(1 << 40).unwrap());
    lock.raise_token(Token::new(7).unwrap());
    lock.free();
    assert_eq!(lock.try_take().unwrap().token.get(), (1 << 40) + 1);
    lock.free();
    assert_eq!(block_on(lock.take_async()).token.get(), (1 << 40) + 2);
    lock.free();
}

#[test]
fn tokens_grow_from_holder_to_holder() {
    let lock = ThreadLock::new();
    let last = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for i in 0..5_000 {
                    let taken = if i % 2 == 0 { lock.take() } else { block_on(lock.take_async()) };
                    let held = Releaser(&lock, taken);
                    let token = held.1.token.get();
                    assert_eq!(last.load(Relaxed) + 1, token);
                    last.store(token, Relaxed);
                }
            });
        }
    });
    assert_eq!(last.into_inner(), 15_000);
}

#[test]
fn exhausted_tokens_are_refused_and_the_lock_is_not_kept() {
    let lock = ThreadLock::new();
    lock.take();
    lock.raise_token(Token::MAX);
    lock.free();
    for _ in 0..2 {
        assert!(std::panic::catch_unwind(|| lock.take()).is_err());
        assert_eq!(lock.word.load(Relaxed), 0);
    }
}

#[test]
fn a_predecessor_that_panicked_is_told_to_the_next_only() {
    let lock = ThreadLock::new();
    assert_eq!(lock.take().predecessor, Predecessor::Clean);
    lock.release(Predecessor::Panicked);
    assert_eq!(lock.try_take().unwrap().predecessor, Predecessor::Panicked);
    lock.free();
    assert_eq!(lock.take().predecessor, Predecessor::Clean);

    // Through a hand-over.
    thread::scope(|scope| {
        let waiter = scope.spawn(|| Releaser(&lock, lock.take()).1.predecessor);
        lock.until_threads_wait(1);
        try_patience();
        lock.release(Predecessor::Panicked);
        assert_eq!(waiter.join().unwrap(), Predecessor::Panicked);
    });
    assert_eq!(lock.take().predecessor, Predecessor::Clean);
    lock.free();
}

/// portalocker#144: what guards exclusion is checked in release builds too.
#[test]
#[should_panic = "without a holder"]
fn a_release_too_many_is_refused() {
    let lock = ThreadLock::new();
    lock.take();
    lock.free();
    lock.free();
}

#[test]
fn the_quiet_path_makes_no_queue() {
    let lock = ThreadLock::new();
    lock.take();
    assert!(lock.try_take().is_none());
    lock.free();
    block_on(lock.take_async());
    lock.free();
    assert!(lock.queue.so_far().is_none());
    assert!(size_of::<ThreadLock>() <= 40);
}

/// A task in its seat that was woken and is not polled: its turn goes to the thread behind it.
#[test]
fn a_turn_lapses_when_the_task_in_its_seat_was_woken_and_is_not_polled() {
    let lock = ThreadLock::new();
    assert!(lock.win_quietly());
    let seat = lock.sit_down();
    thread::scope(|scope| {
        let next = scope.spawn(|| lock.wait(Time::NEVER, || false));
        lock.until_threads_wait(1);
        lock.wake_seat(seat);
        assert!(next.join().unwrap());
    });
    assert!(!lock.poll_seat(seat), "it has lost its turn");
    assert!(!lock.get_up(seat));
    lock.free();
    lock.assert_nothing_left();
}

#[test]
fn a_turn_that_lapsed_among_tasks_goes_to_the_next_task() {
    let lock = ThreadLock::new();
    assert!(lock.win_quietly());
    let seat = lock.sit_down();
    let mut next = PlayedTask::queued(&lock);
    let mut last = PlayedTask::queued(&lock);
    lock.wake_seat(seat);
    until_seen(|| next.woken() > 0);
    assert!(next.poll());
    // The first one is polled again: it stands before the last one.
    assert!(!lock.poll_seat(seat));
    let mut first = PlayedTask::coming_back(&lock, seat);
    assert!(!first.poll());
    lock.free();
    assert!(first.poll());
    lock.free();
    assert!(last.poll());
    lock.free();
    lock.assert_nothing_left();
}

/// A seat that was left standing is not the lock of the heir that came after it.
#[test]
fn a_turn_that_lapses_is_the_heirs_and_not_that_of_a_seat_left_standing() {
    let lock = ThreadLock::new();
    assert!(lock.win_quietly());
    let left = lock.sit_down();
    let mut heir = PlayedTask::queued(&lock);
    // A release of the turn by another, as at the end of a task's turn at the gate.
    lock.release_fairly(Predecessor::Clean);
    assert_eq!(lock.census(), (0, 0, true));
    assert!(lock.wait(Time::NEVER, || false), "the heir is not polled");
    assert!(!heir.poll(), "it has lost its turn");
    lock.free();
    assert!(heir.poll());
    lock.free();
    assert!(lock.get_up(left), "it was left as it was");
    lock.assert_nothing_left();
}

#[test]
fn a_task_that_is_polled_in_time_keeps_its_seat() {
    let lock = ThreadLock::new();
    assert!(lock.win_quietly());
    let seat = lock.sit_down();
    lock.wake_seat(seat);
    assert!(lock.poll_seat(seat));
    // It was not woken again: the waiter behind it waits.
    assert!(!lock.wait(crate::clock::now() + 3 * LAPSE, || false));
    assert!(lock.get_up(seat));
    lock.free();
    lock.assert_nothing_left();
}

#[test]
fn a_hand_over_to_a_leaked_task_goes_to_the_next_task() {
    let lock = ThreadLock::new();
    lock.take();
    let leaked = PlayedTask::queued(&lock);
    let mut next = PlayedTask::queued(&lock);
    try_patience();
    lock.free();
    std::mem::forget(leaked);
    until_seen(|| next.woken() > 0);
    assert!(next.poll());
    lock.free();
    assert!(lock.try_take().is_some());
    lock.free();
}

/// It was called to try for the lock, which is free meanwhile, and not handed it.
#[test]
fn a_call_to_a_leaked_task_is_passed_on_to_the_next_task() {
    until_seen(|| {
        let lock = ThreadLock::new();
        lock.take();
        let leaked = PlayedTask::queued(&lock);
        let mut next = PlayedTask::queued(&lock);
        lock.free();
        let is_free = lock.word.load(Relaxed) & LOCKED == 0;
        std::mem::forget(leaked);
        until_seen(|| next.woken() > 0);
        assert!(next.poll());
        lock.free();
        is_free
    });
}

#[test]
fn a_fair_release_hands_over_to_the_first_in_line_however_shortly_it_waited() {
    let lock = ThreadLock::new();
    for rounds in 0..3 {
        lock.take();
        let mut first = PlayedTask::queued(&lock);
        let mut second = PlayedTask::queued(&lock);
        if rounds > 0 {
            // Called by a release that left it to the quickest, which a newcomer was.
            lock.release(Predecessor::Clean);
            lock.try_take();
        }
        lock.release_fairly(Predecessor::Died);
        assert!(lock.try_take().is_none(), "a newcomer was quicker");
        assert!(first.poll(), "the first has it");
        assert_eq!(lock.predecessor(), Predecessor::Died);
        lock.release_fairly(Predecessor::Clean);
        assert!(second.poll());
        lock.release_fairly(Predecessor::Clean);
        assert!(lock.try_take().is_some(), "none waits any more");
        lock.release(Predecessor::Clean);
    }
}
