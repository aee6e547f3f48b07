//! The leader that reigns killed again and again under load, and how soon another grants, or the same one started
//! anew. Three times here; `TIERLOCK_KILLS=200` with `--nocapture --test-threads=1` is the heavy form, which
//! prints its figures.
//!
//! What is killed says a [`KilledLeaders`]; here it is one leader with a state directory.

use std::{
    fs,
    ops::Range,
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tierlock::{LockManager, Mutex, MutexGuard, Scope, fence::Gate};

use crate::{restarts::Served, setting::until};

pub(crate) fn kills() -> usize {
    std::env::var("TIERLOCK_KILLS").ok().map_or(3, |count| count.parse().unwrap())
}

/// On a machine that does nothing else, for its figures.
pub(crate) fn is_heavy() -> bool {
    kills() > 3
}

/// When another leader has surely taken over, or the one that was killed did not reign any more.
const LATE: Duration = Duration::from_secs(10);

/// Clients that hold a lock and ask for nothing.
fn idle() -> usize {
    if is_heavy() { 18 } else { 2 }
}

/// Clients that ask as often as they can.
const BUSY: usize = 2;

/// How long each took, in words.
pub(crate) fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let Some(worst) = took.last() else {
        return eprintln!("{what}: the reign had moved by itself each time");
    };
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    let (half, most, count) = (at(50), at(99), took.len());
    let [half, most, worst] = [half, most, *worst].map(|took| took.as_millis());
    eprintln!("{what}: {count} times, p50 {half} ms, p99 {most} ms, worst {worst} ms");
}

/// Tells threads to end when this is dropped.
pub(crate) struct Ends<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Leaders, one of which reigns and is killed.
pub(crate) trait KilledLeaders {
    /// A client of them, the locks of which outlive whatever becomes of its leaders.
    fn locks(&self) -> LockManager;

    /// Kills the leader that reigns: at which moment.
    fn kill(&mut self) -> Instant;

    /// Whether it turns out that another reigned at that moment: on a busy machine the reign may move by itself.
    fn had_moved(&self) -> bool;

    /// Has it back, and waits until it may reign again.
    fn restore(&mut self);
}

/// What clients are granted meanwhile.
#[derive(Default)]
struct GrantedMeanwhile {
    killed_in: AtomicU32,
    /// The first grant in an epoch above the one that the leader was killed in.
    first: StdMutex<Option<Instant>>,
    /// The highest epoch that anything was granted in.
    highest: AtomicU32,
}

impl GrantedMeanwhile {
    fn granted(&self, epoch: u32) {
        self.highest.fetch_max(epoch, SeqCst);
        if epoch > self.killed_in.load(SeqCst) {
            self.first.lock().unwrap().get_or_insert_with(Instant::now);
        }
    }

    fn expect_above(&self, epoch: u32) {
        self.killed_in.store(epoch, SeqCst);
        *self.first.lock().unwrap() = None;
    }
}

/// Clients that hold locks, and two that add to a counter under one, and are granted names that no client has
/// asked for. Each time something is done to their leaders; no update may be lost, and no lock that is held.
pub(crate) fn under_load(
    locks: impl Fn() -> LockManager,
    granted: impl Fn(u32) + Sync,
    times: Range<usize>,
    mut each: impl FnMut(usize),
) {
    let idle: Vec<_> = (0..idle()).map(|_| locks()).collect();
    let named = idle.iter().enumerate();
    let held: Vec<_> =
        named.map(|(number, locks)| hold(locks, &format!("held {number}"))).collect();
    let tokens: Vec<_> = held.iter().map(MutexGuard::token).collect();
    let busy: Vec<LockManager> = (0..BUSY).map(|_| locks()).collect();
    let (gate, counted, is_over) = (Gate::new(0_u64), AtomicU64::new(0), AtomicBool::new(false));
    let names = AtomicU64::new(0);
    let count = |locks: &LockManager| {
        let counter = mutex(locks, "counter");
        while !is_over.load(SeqCst) {
            // On a busy machine no leader may answer for long: no lock is lost by that.
            let Ok(guard) = counter.lock() else { continue };
            let token = MutexGuard::token(&guard);
            let read = gate.enter(token).map(|value| *value);
            let written =
                read.and_then(|read| gate.enter(token).map(|mut value| *value = read + 1));
            match written {
                Ok(()) => drop(counted.fetch_add(1, SeqCst)),
                // Another holder was granted it since: this one has lost it, and knows.
                Err(stale) => assert!(MutexGuard::check(&guard).is_err(), "{stale}"),
            }
            drop(guard);
            let new = mutex(locks, &format!("new {}", names.fetch_add(1, SeqCst)));
            let Ok(guard) = new.lock() else { continue };
            granted(MutexGuard::token(&guard).epoch());
        }
    };
    let count_on = || {
        let before = counted.load(SeqCst);
        until("more that is counted", || counted.load(SeqCst) > before + 2);
    };
    thread::scope(|scope| {
        // However this ends, what runs beside it does.
        let _ends = Ends(&is_over);
        let count = &count;
        for locks in &busy {
            scope.spawn(move || count(locks));
        }
        for number in times {
            count_on();
            each(number);
        }
        count_on();
    });
    assert_eq!(gate.into_inner(), counted.load(SeqCst), "updates were lost");
    for (guard, token) in held.iter().zip(tokens) {
        assert_eq!(MutexGuard::check(guard).unwrap(), token);
    }
    held.into_iter().for_each(|guard| MutexGuard::unlock_blocking(guard).unwrap());
}

fn mutex(locks: &LockManager, name: &str) -> Mutex<()> {
    locks.mutex(name, ()).scope(Scope::Host).build().unwrap()
}

fn hold(locks: &LockManager, name: &str) -> MutexGuard<'static, ()> {
    locks.mutex(name, ()).scope(Scope::Host).lock().unwrap()
}

/// Kills them under load, and tells how soon the first new grant came.
pub(crate) fn kill_again_and_again(what: &str, leaders: &mut impl KilledLeaders) {
    let first = GrantedMeanwhile::default();
    first.expect_above(u32::MAX);
    let (mut took, mut late) = (Vec::new(), 0);
    let all: Vec<_> = (0..idle() + BUSY).map(|_| leaders.locks()).collect();
    let all = StdMutex::new(all);
    let locks = || all.lock().unwrap().pop().expect("there are as many as are asked for");
    under_load(
        locks,
        |epoch| first.granted(epoch),
        0..kills(),
        |number| {
            if is_heavy() {
                eprintln!("{what}: kill {} of {}", number + 1, kills());
            }
            first.expect_above(first.highest.load(SeqCst));
            let killed = leaders.kill();
            let mut had_moved = false;
            until("a new grant", || {
                had_moved = killed.elapsed() > LATE && leaders.had_moved();
                had_moved || first.first.lock().unwrap().is_some()
            });
            match *first.first.lock().unwrap() {
                Some(at) if !had_moved => took.push(at.saturating_duration_since(killed)),
                _ => late += 1,
            }
            first.expect_above(u32::MAX);
            leaders.restore();
        },
    );
    tell(&format!("first new grant {what}"), took);
    if late > 0 {
        eprintln!("and {late} times another reigned by then, or none did within {LATE:?}");
    }
}

/// It is started again at once: none stands by.
impl KilledLeaders for Served {
    fn locks(&self) -> LockManager {
        self.locks_for_long()
    }

    fn kill(&mut self) -> Instant {
        let killed = Instant::now();
        Served::kill(self);
        self.restart();
        killed
    }

    fn had_moved(&self) -> bool {
        false
    }

    fn restore(&mut self) {}
}

#[test]
fn a_leader_with_a_state_directory_killed_again_and_again_loses_no_lock() {
    kill_again_and_again("of a leader with a state directory, started again", &mut Served::start());
}

/// How much of a processor processes take together that have nothing to do, in words.
pub(crate) fn tell_idle_cost(what: &str, pids: &[u32]) {
    let spent = || pids.iter().map(|pid| time_on_processor(*pid)).collect::<Vec<_>>();
    let (before, begun) = (spent(), Instant::now());
    // It is what is measured, and nothing is waited for.
    thread::sleep(Duration::from_millis(if is_heavy() { 10_000 } else { 200 }));
    let took = begun.elapsed();
    let parts = spent().into_iter().zip(before).map(|(after, before)| {
        let part = (after - before).as_secs_f64() / took.as_secs_f64();
        format!("{:.2} %", 100.0 * part)
    });
    eprintln!("{what}, idle for {took:.0?}: {} of a core", parts.collect::<Vec<_>>().join(", "));
}

fn time_on_processor(pid: u32) -> Duration {
    let of_thread = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.filter_map(of_thread).sum()
}
