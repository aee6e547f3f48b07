//! Situations of async waits: with and without `futex_waitv`.

use std::{
    path::Path,
    sync::{atomic::AtomicU64, mpsc},
    task::Wake,
    thread,
};

use futures::{executor::block_on, future::join_all};
use tempfile::TempDir;

use super::super::{
    TableDirectory,
    index::Found,
    lock::{Exit, release, try_take, wake_all},
    word::{OwnerId, WaitId},
};
use super::*;
use crate::{
    error::Predecessor,
    name::Name,
    process::{Options, dir::home::Home},
};

const LONG: Duration = Duration::from_secs(60);

/// Makes one test per kind of sleep out of a situation.
macro_rules! on_both {
    ($situation:ident) => {
        mod $situation {
            #[test]
            fn on_many() {
                super::$situation(super::sleepers(super::Kernel::New));
            }

            #[test]
            fn on_one() {
                super::$situation(super::sleepers(super::Kernel::Old));
            }
        }
    };
}

#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    New,
    /// Without `futex_waitv`.
    Old,
}

fn sleepers(kernel: Kernel) -> &'static Sleepers {
    if kernel == Kernel::New && !futex::can_sleep_on_many() {
        eprintln!("this system has no futex_waitv: as on an old one");
    }
    let sleepers = Box::leak(Box::new(Sleepers::new()));
    if kernel == Kernel::Old {
        sleepers.many = false.into();
    }
    sleepers
}

fn open(path: &Path) -> Arc<TableDirectory> {
    Arc::new(TableDirectory::open(Home::open(path, &[]).unwrap(), &Options::default()).unwrap())
}

/// One process's way to a slot.
struct NamedProcess {
    slot: Cell<MappedSlot>,
    number: u32,
    generation: u32,
    member: Arc<Member>,
}

impl NamedProcess {
    fn new(member: &Arc<Member>, text: &str) -> NamedProcess {
        let found = member.find(&Name::new(text).unwrap()).unwrap();
        let slot = member.table.slot_cell(found.number).unwrap();
        let Found { number, generation } = found;
        NamedProcess { slot, number, generation, member: member.clone() }
    }

    fn me(&self) -> OwnerId {
        self.member.id
    }

    fn at(&self) -> SlotAt<'_> {
        let table = &self.member.table;
        SlotAt { slot: &self.slot, number: self.number, table, kept: Some(&self.slot) }
    }

    fn hold(&self) {
        let held = try_take(self.at(), self.me(), self.generation, &*self.member);
        held.unwrap().expect("it is free");
    }

    fn take_until(&self, sleepers: &'static Sleepers, until: Time) -> SlotWait<'_> {
        let mut wait = take(&self.slot, self.number, &self.member, self.generation, until);
        wait.sleepers = sleepers;
        wait
    }

    fn take(&self, sleepers: &'static Sleepers) -> SlotWait<'_> {
        self.take_until(sleepers, clock::now() + LONG)
    }

    fn release(&self, how: Predecessor) {
        let token = self.slot.token.load(SeqCst);
        release(self.at(), self.me(), Exit::new(token, how)).unwrap();
    }

    fn word(&self) -> Word {
        Word::from_bits(self.slot.word.load(SeqCst))
    }
}

/// Two processes that use the same name.
fn pair() -> (TempDir, NamedProcess, NamedProcess) {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = [(); 2].map(|()| open(dir.path()).member().unwrap());
    let (one, two) = (NamedProcess::new(&one, "a"), NamedProcess::new(&two, "a"));
    (dir, one, two)
}

fn is_pending(wait: &mut SlotWait<'_>) -> bool {
    Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Tells when it is called.
struct Notifier(mpsc::Sender<()>);

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

fn bell() -> (Waker, mpsc::Receiver<()>) {
    let (ring, rung) = mpsc::channel();
    (Arc::new(Notifier(ring)).into(), rung)
}

/// Polls a wait for the first time; what hears when it is woken.
fn begin(wait: &mut SlotWait<'_>) -> mpsc::Receiver<()> {
    let (waker, rung) = bell();
    assert!(Pin::new(wait).poll(&mut Context::from_waker(&waker)).is_pending());
    rung
}

/// The holder leaves `how` and reserves the lock for the task that waits for it.
fn hand_on(holder: &NamedProcess, how: Predecessor, rung: &mpsc::Receiver<()>) {
    // Until the wait's record stands, and it is the one that the lock is for.
    while !holder.word().is_hungry() {
        thread::yield_now();
    }
    holder.release(how);
    rung.recv_timeout(LONG).unwrap();
    assert!(holder.word().reserved_for().is_some());
}

#[test]
fn a_free_lock_is_taken_without_any_thread() {
    let (_dir, one, _) = pair();
    let sleepers = sleepers(Kernel::New);
    assert_eq!(block_on(one.take(sleepers)).unwrap().left, Predecessor::Clean);
    assert!(sleepers.threads.lock().is_empty());
}

on_both!(a_wait_ends_with_the_lock);
fn a_wait_ends_with_the_lock(sleepers: &'static Sleepers) {
    let (_dir, one, two) = pair();
    for how in [Predecessor::Clean, Predecessor::Panicked] {
        one.hold();
        let mut wait = two.take(sleepers);
        let rung = begin(&mut wait);
        one.release(how);
        rung.recv_timeout(LONG).unwrap();
        // Only the poll takes it.
        assert_eq!(two.word().owner(), None);
        assert_eq!(block_on(wait).unwrap().left, how);
        two.release(Predecessor::Clean);
    }
}

on_both!(a_future_that_is_not_polled_again_keeps_none_out);
/// async-std#1000 and the like: a leaked future must not poison a name.
fn a_future_that_is_not_polled_again_keeps_none_out(sleepers: &'static Sleepers) {
    let (_dir, one, two) = pair();
    one.hold();
    let mut wait = two.take(sleepers);
    let rung = begin(&mut wait);
    hand_on(&one, Predecessor::Clean, &rung);
    for _ in 0..3 {
        // Its time passes, and then all goes on as if it were not there.
        while try_take(one.at(), one.me(), one.generation, &*one.member).unwrap().is_none() {
            thread::yield_now();
        }
        one.release(Predecessor::Clean);
    }
    assert_eq!(one.word(), Word::FREE, "and each release is quiet again");
    assert_eq!(block_on(wait).unwrap().left, Predecessor::Clean, "it goes on when it is polled");
    two.release(Predecessor::Clean);
}

on_both!(a_wait_that_is_dropped_gives_up_at_once);
fn a_wait_that_is_dropped_gives_up_at_once(sleepers: &'static Sleepers) {
    let (_dir, one, two) = pair();
    one.hold();
    let mut wait = two.take(sleepers);
    assert!(is_pending(&mut wait));
    drop(wait);
    // This very process may go on with the name, which its thread tier guards.
    let mut again = two.take(sleepers);
    assert!(is_pending(&mut again));
    one.release(Predecessor::Clean);
    assert_eq!(block_on(again).unwrap().left, Predecessor::Clean);
    assert_eq!(two.word().owner(), Some(two.me()));
    two.release(Predecessor::Clean);
    assert_eq!(two.word().owner(), None);
}

on_both!(a_wait_dropped_with_a_reservation_hands_it_on);
/// rustfs#2795: what is not polled any more is not lost.
fn a_wait_dropped_with_a_reservation_hands_it_on(sleepers: &'static Sleepers) {
    let (_dir, one, two) = pair();
    one.hold();
    let mut wait = two.take(sleepers);
    let rung = begin(&mut wait);
    hand_on(&one, Predecessor::Died, &rung);
    drop(wait);
    assert_eq!(two.word(), Word::left_so(Predecessor::Died).waited_for(), "told to the next one");
    assert!(one.member.table.shown_waits().is_empty());
}

/// Calls the clock of the lock's own state when it is called and dropped: a deadlock, if that is
/// locked then.
struct Nosy(Mutex<Option<Arc<Asked>>>);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl Nosy {
    fn look(&self) {
        if let Some(asked) = &*self.0.lock() {
            drop(asked.state.lock());
        }
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.look();
    }
}

on_both!(wakers_are_called_and_dropped_without_a_lock);
fn wakers_are_called_and_dropped_without_a_lock(sleepers: &'static Sleepers) {
    let (_dir, one, two) = pair();
    one.hold();
    let mut wait = two.take(sleepers);
    assert!(is_pending(&mut wait));
    let asked = wait.asked.clone();
    let nosy = || Arc::new(Nosy(Mutex::new(asked.clone())));
    for _ in 0..2 {
        let waker = Waker::from(nosy());
        assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    one.release(Predecessor::Clean);
    drop(asked);
    let end = block_on(wait).unwrap();
    assert_eq!(end.left, Predecessor::Clean);
    two.release(Predecessor::Clean);
}

on_both!(a_wait_ends_with_its_time);
fn a_wait_ends_with_its_time(sleepers: &'static Sleepers) {
    let (_dir, one, two) = pair();
    one.hold();
    let until = clock::now() + Duration::from_millis(15);
    let end = block_on(two.take_until(sleepers, until));
    assert!(matches!(end, Err(Stop::TimedOut)), "{end:?}");
    assert!(clock::now() >= until);
    assert!(matches!(block_on(two.take_until(sleepers, Time::ZERO)), Err(Stop::TimedOut)));
    one.release(Predecessor::Clean);
    assert_eq!(one.word().owner(), None, "no waiter takes it any more");
}

on_both!(a_name_that_moves_ends_the_wait);
fn a_name_that_moves_ends_the_wait(sleepers: &'static Sleepers) {
    let (_dir, one, two) = pair();
    one.hold();
    let mut wait = two.take(sleepers);
    assert!(is_pending(&mut wait));
    one.slot.generation.fetch_add(1, SeqCst);
    wake_all(&one.slot);
    let end = block_on(wait);
    assert!(matches!(end, Err(Stop::Moved)), "{end:?}");
}

on_both!(names_beyond_what_a_thread_can_sleep_on_are_waited_for_too);
fn names_beyond_what_a_thread_can_sleep_on_are_waited_for_too(sleepers: &'static Sleepers) {
    const NAMES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = [(); 2].map(|()| open(dir.path()).member().unwrap());
    let names = |member| (0..NAMES).map(|n| NamedProcess::new(member, &n.to_string())).collect();
    let (held, wanted): (Vec<_>, Vec<_>) = (names(&one), names(&two));
    held.iter().for_each(NamedProcess::hold);
    let mut waits: Vec<_> = wanted.iter().map(|name| name.take(sleepers)).collect();
    assert!(waits.iter_mut().all(is_pending));
    let threads = |how| sleepers.threads.lock().iter().filter(|other| other.how == how).count();
    match sleepers.many.get() {
        Some(true) => assert_eq!(threads(How::OnMany), 3),
        _ => assert_eq!((threads(How::OnOne), threads(How::Looking)), (64, 1)),
    }
    let last_first = held.iter().rev();
    last_first.for_each(|name| name.release(Predecessor::Clean));
    assert!(block_on(join_all(waits)).iter().all(Result::is_ok));
    wanted.iter().for_each(|name| name.release(Predecessor::Clean));
    // They end when no name needs them.
    while !sleepers.threads.lock().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// The wake was for one sleeper only: it must not end with a future that is gone.
#[test]
fn a_wake_meant_for_a_future_that_is_gone_is_passed_on() {
    let (_dir, one, two) = pair();
    one.hold();
    let waiting = one.word().waited_for();
    one.slot.word.store(waiting.bits(), SeqCst);
    let asked = Asked { slot: two.slot.clone(), state: Mutex::new(WaitState::Over) };
    assert!(asked.go_on(Woken::No, true, Time::ZERO).is_none());
    for woken in [Woken::Perhaps, Woken::Yes] {
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                futex::sleep(&one.slot.word, waiting.low_half(), futex::bit(3), LONG).unwrap();
            });
            // Until it sleeps there is no sleeper to be woken.
            while !other.is_finished() {
                assert!(asked.go_on(woken, true, Time::ZERO).is_none());
                thread::yield_now();
            }
        });
    }
}

/// A wake on one of many names may have been one on others.
#[test]
fn a_reservation_seen_after_some_wake_is_looked_at() {
    let (_dir, one, two) = pair();
    one.hold();
    let mut seeker = Seeker::new(two.me(), two.generation, true);
    let Ok(SeekerTurn::Sleep { seen, .. }) = seeker.go_on(two.at(), &*two.member) else {
        panic!("it is held");
    };
    let number = two.number;
    let search = Search { seeker, number, member: two.member.clone(), until: Time::NEVER };
    let nap = Nap { seen, ends: Time::NEVER };
    let mut waiting = WaitingPolled { search, nap, slept: true, waker: Waker::noop().clone() };
    let due = clock::now();
    assert_eq!(waiting.what_became(&two.slot, Woken::No, due), None);
    assert_eq!(waiting.what_became(&two.slot, Woken::Perhaps, due), None, "still held");
    assert_eq!(waiting.what_became(&two.slot, Woken::Yes, due), Some(Slept::Woken));
    let wait = WaitId::new(9, 1).unwrap();
    let reserved = Word::FREE.appointed(wait, Predecessor::Clean);
    two.slot.word.store(reserved.bits(), SeqCst);
    assert_eq!(waiting.what_became(&two.slot, Woken::No, due), Some(Slept::Woken), "it changed");
    waiting.nap.seen = reserved;
    assert_eq!(waiting.what_became(&two.slot, Woken::No, due), None);
    assert_eq!(waiting.what_became(&two.slot, Woken::Perhaps, due), Some(Slept::Woken));
    waiting.nap.ends = due;
    assert_eq!(waiting.what_became(&two.slot, Woken::No, due), Some(Slept::ByItself));
    waiting.slept = false;
    two.slot.word.store(Word::FREE.bits(), SeqCst);
    assert_eq!(waiting.what_became(&two.slot, Woken::No, due), Some(Slept::Changed));
}

on_both!(tasks_that_are_dropped_at_any_moment_lose_no_count);
/// As in `select!`: the future is dropped when something else is ready first.
fn tasks_that_are_dropped_at_any_moment_lose_no_count(sleepers: &'static Sleepers) {
    const PROCESSES: usize = 4;
    const EACH: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let counter = AtomicU64::new(0);
    let given_up = AtomicU64::new(0);
    thread::scope(|scope| {
        for process in 0..PROCESSES {
            let (dir, counter, given_up) = (&dir, &counter, &given_up);
            scope.spawn(move || {
                let name = NamedProcess::new(&open(dir.path()).member().unwrap(), "a");
                let (mut counted, mut random) = (0, process as u64);
                while counted < EACH {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let mut wait = name.take(sleepers);
                    if is_pending(&mut wait) {
                        if random >> 62 == 0 {
                            thread::sleep(Duration::from_micros(random >> 33 & 0x7ff));
                            drop(wait);
                            given_up.fetch_add(1, Relaxed);
                            continue;
                        }
                        block_on(wait).unwrap();
                    }
                    let seen = counter.load(Relaxed);
                    thread::yield_now();
                    counter.store(seen + 1, Relaxed);
                    counted += 1;
                    name.release(Predecessor::Clean);
                }
            });
        }
    });
    assert_eq!(counter.load(Relaxed), PROCESSES as u64 * EACH);
    assert!(given_up.load(Relaxed) > 0);
}
