//! The member that reigns killed again and again under load, and how soon another grants. Three times
//! here; `TIERLOCK_KILLS=200` with `--nocapture --test-threads=1` is the heavy form, which prints its
//! figures.

use std::{
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use tierlock::fence::Gate;

use super::*;

/// L, as members have it unless they are told otherwise: for a machine that does nothing else. Here it is
/// long enough for one that builds beside.
fn reign() -> &'static str {
    if kills() > 3 { "400ms" } else { "2s" }
}

fn kills() -> usize {
    std::env::var("TIERLOCK_KILLS").ok().map_or(3, |count| count.parse().unwrap())
}

/// When another member has surely taken over, or the one that was killed did not reign any more.
const LATE: Duration = Duration::from_secs(10);
/// Clients that hold a lock and ask for nothing, in the heavy form.
const IDLE: usize = 18;

/// How long each took, in words.
fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort();
    if took.is_empty() {
        return eprintln!("{what}: the reign had moved by itself each time");
    }
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    let (half, most, worst) = (at(50), at(99), took.last().unwrap());
    eprintln!("{what}: {} kills, p50 {half:.0?}, p99 {most:.0?}, worst {worst:.0?}", took.len());
}

/// Tells threads to end when this is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The first grant in an epoch above the one that a member was killed in.
#[derive(Default)]
struct FirstGrant {
    killed_in: AtomicU32,
    at: StdMutex<Option<Instant>>,
    /// The highest epoch that anything was granted in.
    highest: AtomicU32,
}

impl FirstGrant {
    fn granted(&self, epoch: u32) {
        self.highest.fetch_max(epoch, SeqCst);
        if epoch > self.killed_in.load(SeqCst) {
            self.at.lock().unwrap().get_or_insert_with(Instant::now);
        }
    }

    fn expect(&self, killed_in: u32) {
        self.killed_in.store(killed_in, SeqCst);
        *self.at.lock().unwrap() = None;
    }
}

#[test]
fn members_killed_again_and_again_lose_no_lock() {
    let (rig, mut members) = GroupRig::of_three(reign());
    let idle = if kills() > 3 { IDLE } else { 2 };
    let idle: Vec<_> = (0..idle).map(|_| rig.locks()).collect();
    let held =
        idle.iter().enumerate().map(|(number, locks)| hold(locks, &format!("held {number}")));
    let held: Vec<_> = held.collect();
    let tokens: Vec<_> = held.iter().map(MutexGuard::token).collect();
    let busy: Vec<LockManager> = (0..2).map(|_| rig.locks()).collect();
    let (gate, counted, is_over) = (Gate::new(0_u64), AtomicU64::new(0), AtomicBool::new(false));
    let (first, names) = (FirstGrant::default(), AtomicU64::new(0));
    first.expect(u32::MAX);
    let mut took = Vec::new();
    thread::scope(|scope| {
        // However this ends, what runs beside it does.
        let _ends = Ends(&is_over);
        for locks in &busy {
            scope.spawn(|| {
                let counter = mutex(locks, "counter");
                while !is_over.load(SeqCst) {
                    // On a busy machine no member may answer for long: no lock is lost by that.
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
                    // And a name that no client has asked for.
                    let name = format!("new {}", names.fetch_add(1, SeqCst));
                    let new = mutex(locks, &name);
                    let Ok(guard) = new.lock() else { continue };
                    first.granted(MutexGuard::token(&guard).epoch());
                }
            });
        }
        for _ in 0..kills() {
            let before = counted.load(SeqCst);
            until("more that is counted", || counted.load(SeqCst) > before + 2);
            let reigning = first_to_reign(&members);
            first.expect(first.highest.load(SeqCst));
            let killed = Instant::now();
            members[reigning].kill();
            let mut is_late = false;
            until("a new grant", || {
                // On a busy machine the reign may move by itself, a moment before the kill.
                is_late = killed.elapsed() > LATE;
                is_late || first.at.lock().unwrap().is_some()
            });
            if let (Some(at), false) = (*first.at.lock().unwrap(), is_late) {
                took.push(at.duration_since(killed));
            }
            first.expect(u32::MAX);
            members[reigning] = rig.start(reigning, &[]);
            members[reigning].says("it stands by");
        }
    });
    assert_eq!(gate.into_inner(), counted.load(SeqCst), "updates were lost");
    for (guard, token) in held.iter().zip(tokens) {
        assert_eq!(MutexGuard::check(guard).unwrap(), token);
    }
    held.into_iter().for_each(give);
    tell(&format!("first new grant in a group of three, L = {}", reign()), took);
}
