//! Carries one link's frames to a leader and back: which thread or task does it, and when.
//!
//! It decides nothing about locks, and touches no network before something is wanted. A thread of
//! its own, started by the first request, sleeps on the sockets, so that the caller needs no
//! runtime. Two thread switches cost as much as the network, so a caller that is about to block,
//! alone, carries its frames itself until it has its answer; and a runtime that was lent reads
//! the answers to its own tasks.

mod watching;

use std::{
    io, mem,
    net::UdpSocket,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::*},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    link::{Drive, Lent, Link, expecting},
    reader::{self, AfterTurn, LentReader},
    routes::{Map, Routes},
};
use crate::{
    alarm, clock,
    error::{LockError, LockErrorKind},
    host::{
        exit,
        net::{
            bell::{Bell, LONGEST_SLEEP, Slept, is_same},
            client_keys::ClientKeys,
            patience::Lending,
        },
        random,
    },
    proto::client::{Client, ClientConfig},
    time::Time,
};

/// After something happened the thread looks again this soon, and what can wait that long does.
const SOON: Duration = Duration::from_millis(1);
/// How long the thread rests at most while others carry, if it is not called.
const REST: Duration = Duration::from_millis(20);
/// How long a caller carries frames itself before it leaves that to the thread.
const CARRY: Duration = Duration::from_millis(5);
/// How long a connection may be silent, whatever the time to live.
const SILENCE_MIN: Duration = Duration::from_millis(300);
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long the goodbye may take to be answered before the thread ends regardless.
const GOODBYE: Duration = Duration::from_secs(1);

/// A link to the leader at one of these addresses (`HOST:PORT`, or `HOST` for port 7420). Nothing
/// is looked up and nothing is sent before something is wanted. Tasks that wait on the runtime that
/// `reader` was lent are answered there. `generation` tells a forked child from its parent.
///
/// # Errors
///
/// `ClientConfig` for an address that is none, or none at all; `Io` if the system gives no pipe.
pub(crate) fn connect(
    addresses: &[String],
    keys: impl Into<ClientKeys>,
    mut config: ClientConfig,
    reader: Option<LentReader>,
    generation: fn() -> u64,
) -> Result<Arc<Link>, LockError> {
    let addresses = addresses.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(LockError::config("host scope needs the address of a leader"));
    }
    config.addresses = addresses.len();
    let bell = Bell::new().map_err(|error| {
        LockError::new(LockErrorKind::Io, format!("cannot make a pipe: {error}")).with_source(error)
    })?;
    // A dead path is noticed while there is time to find another before the leases run out.
    let silence = (config.time_to_live / 2).clamp(SILENCE_MIN, SILENCE_MAX);
    let keys = keys.into();
    let mut client = Client::new(config, Box::new(random), clock::now());
    client.change_rights(keys.rights(), clock::now());
    Ok(Link::new(client, generation, |link| {
        Arc::new_cyclic(|driver: &Weak<ClientDriver>| {
            let looked_up = driver.clone();
            let wake = move || -> Box<dyn FnOnce() + Send> {
                let driver = looked_up.clone();
                Box::new(move || {
                    if let Some(driver) = driver.upgrade() {
                        driver.call_thread();
                    }
                })
            };
            ClientDriver {
                me: driver.clone(),
                link,
                bell,
                routes: Mutex::new(WatchedRoutes {
                    routes: Routes::new(Map { addresses, keys, silence }, wake),
                    sockets: Vec::new(),
                }),
                poller: AtomicU8::new(THREAD),
                is_thread_next: AtomicBool::new(false),
                is_wished_for: AtomicBool::new(false),
                lending: Mutex::new(Lending::new()),
                reader,
                is_wished_for_by_tasks: AtomicBool::new(false),
                looks_again: AtomicBool::new(false),
                sleeps_until: AtomicU64::new(AWAKE),
                rests_until: AtomicU64::new(0),
                due: AtomicU64::new(0),
                activity: AtomicU64::new(0),
                turns: AtomicU64::new(0),
                is_watched: AtomicBool::new(false),
                is_left_to_watch: AtomicBool::new(false),
                is_idle: AtomicBool::new(false),
                is_started: AtomicBool::new(false),
                has_ended: AtomicBool::new(false),
                thread: Mutex::new(DriverThread::default()),
                has_failed: AtomicBool::new(false),
                #[cfg(test)]
                is_to_fail: AtomicBool::new(false),
                changed: Condvar::new(),
            }
        })
    }))
}

struct ClientDriver {
    me: Weak<ClientDriver>,
    link: Weak<Link>,
    /// The poller sleeps on it.
    bell: Bell,
    /// Holding this mutex permits sending and receiving, as the poller or not.
    routes: Mutex<WatchedRoutes>,
    /// The *poller* sleeps on the sockets, and reads what comes. Which it is:
    ///
    /// | from | to | by |
    /// |---|---|---|
    /// | `THREAD` | `FREE` | the thread, when a caller wished for it and no other waits |
    /// | `FREE` | `CALLER` | a caller that is about to block |
    /// | `CALLER` | `FREE` | that caller, with its answer; it calls the thread if others wait |
    /// | `THREAD` | `READER` | the thread, when a task wished for it |
    /// | `FREE` | `READER` | a task that is about to wait |
    /// | `READER` | `CALLER` | a caller that is about to block, alone |
    /// | `FREE`, `READER` | `CALLER` | a task that looks for its answer before it waits, alone |
    /// | `CALLER` | `READER` | that task (by way of `FREE`), if the answer did not come so soon |
    /// | `FREE` | `THREAD` | the thread, when called or when nothing has happened for a while |
    /// | `READER` | `THREAD` | the thread, when nothing has happened for a while |
    ///
    /// While the poller is another the thread rests, and is watched for instead: every `SOON` an
    /// alarm, at one time for all managers of the process, sees whether it is needed. A caller or a
    /// runtime that does not come to it costs others that much and no more.
    poller: AtomicU8,
    /// The thread waits for the routes: callers, which would take them again and again, leave them
    /// to it, since only it reads what came.
    is_thread_next: AtomicBool,
    /// A caller would have carried its frames itself.
    is_wished_for: AtomicBool,
    /// For how long a task lends its thread before it waits.
    lending: Mutex<Lending>,
    /// The runtime that was lent.
    reader: Option<LentReader>,
    /// A task would rather have its answer read there.
    is_wished_for_by_tasks: AtomicBool,
    /// The thread looks for frames within `SOON` of now. Cleared before it looks, set only after:
    /// a caller that puts something to the client and then finds it set need not wake it.
    looks_again: AtomicBool,
    /// Until when the thread sleeps as the poller, in nanoseconds of our clock; `AWAKE` else.
    sleeps_until: AtomicU64,
    /// Until when the thread rests while it is not the poller; zero else.
    rests_until: AtomicU64,
    /// When something is to be done next that nothing announces, as the last turn found.
    due: AtomicU64,
    /// Counts whenever frames were moved, by any thread or task.
    activity: AtomicU64,
    /// Counts the turns of the reading task.
    turns: AtomicU64,
    /// An alarm is set for the thread.
    is_watched: AtomicBool,
    /// There is something to send that no thread was woken for. Set before `is_watched` is read, and
    /// read after that is cleared.
    is_left_to_watch: AtomicBool,
    /// Nothing was moved from one alarm to the next.
    is_idle: AtomicBool,
    is_started: AtomicBool,
    /// The thread has ended, whatever it was started for.
    has_ended: AtomicBool,
    thread: Mutex<DriverThread>,
    /// The thread or the reading task has panicked, and what it left is not to be trusted: nothing
    /// is carried any more.
    has_failed: AtomicBool,
    #[cfg(test)]
    is_to_fail: AtomicBool,
    /// The thread was called, or has ended.
    changed: Condvar,
}

/// The routes, and what the poller sleeps on.
struct WatchedRoutes {
    routes: Routes,
    sockets: Vec<Slept>,
}

const THREAD: u8 = 0;
const FREE: u8 = 1;
const CALLER: u8 = 2;
const READER: u8 = 3;

const AWAKE: u64 = u64::MAX;

#[derive(Default)]
struct DriverThread {
    is_running: bool,
    is_called: bool,
    /// It is to look around, whichever is the poller.
    is_to_look: bool,
}

impl Drive for ClientDriver {
    fn start(&self) -> Result<(), LockError> {
        if self.has_failed.load(Acquire) {
            return Err(failed());
        }
        if self.is_started.load(Acquire) {
            return Ok(());
        }
        let no_thread = |error: io::Error| {
            let text = format!("cannot start a thread: {error}");
            LockError::new(LockErrorKind::Io, text).with_source(error)
        };
        alarm::ready().map_err(no_thread)?;
        let mut thread = self.thread.lock();
        if self.is_started.load(Acquire) {
            return Ok(());
        }
        let driver = self.me.upgrade().expect("the caller holds it");
        let spawned =
            thread::Builder::new().name("tierlock-client".into()).spawn(move || driver.serve());
        spawned.map_err(no_thread)?;
        thread.is_running = true;
        let link: Weak<dyn exit::LeavesAtExit> = self.link.clone();
        exit::look_after(&link);
        self.is_started.store(true, Release);
        Ok(())
    }

    fn wake(&self) {
        match self.poller.load(SeqCst) {
            FREE => self.call_thread(),
            poller => self.wake_poller(poller),
        }
    }

    fn carry_for_task(&self, done: &dyn Fn() -> bool) -> Option<Lent> {
        let link = self.link.upgrade()?;
        if link.unanswered() > 1 {
            self.wake_for_task();
            return None;
        }
        let begin = Instant::now();
        let long = self.lending.lock().looks(begin, expecting());
        if long.is_zero() {
            self.wake_for_task();
        } else if self.begin_to_poll() {
            let _polling = PollingCaller { driver: self, link: &link, is_task: true };
            if self.look_until(&link, done, (begin, long)) {
                self.answered((begin, long));
                return None;
            }
        } else {
            self.is_wished_for.store(true, Relaxed);
            self.wake_for_task();
        }
        Some((begin, long))
    }

    fn answered(&self, (begin, long): Lent) {
        self.lending.lock().waited(long, begin.elapsed());
    }

    fn carry(&self, done: &dyn Fn() -> bool) {
        let Some(link) = self.link.upgrade() else { return };
        if link.unanswered() > 1 {
            return self.wake();
        }
        if !self.begin_to_poll() {
            self.is_wished_for.store(true, Relaxed);
            return self.wake();
        }
        let _polling = PollingCaller { driver: self, link: &link, is_task: false };
        self.carry_until(&link, done);
    }

    fn wake_for_release(&self, soon: bool) {
        match self.poller.load(SeqCst) {
            THREAD if !soon && self.looks_again.load(SeqCst) => {}
            FREE | READER if !soon && self.is_left_to_watch() => {}
            FREE | READER => self.send(),
            poller => self.wake_poller(poller),
        }
    }

    fn send_ahead(&self) {
        self.send();
    }

    fn attend(&self) -> Result<(), LockError> {
        if self.has_failed.load(Acquire) {
            return Err(failed());
        }
        if self.has_ended.load(Acquire) {
            return Err(LockError::config("the manager was closed"));
        }
        Ok(())
    }

    fn finish(&self, until: Time) {
        self.call_thread();
        let mut thread = self.thread.lock();
        while thread.is_running {
            let now = clock::now();
            if now >= until {
                return;
            }
            self.changed.wait_for(&mut thread, until.since(now).min(LONGEST_SLEEP));
        }
    }

    #[cfg(test)]
    fn break_down(&self) {
        self.is_to_fail.store(true, SeqCst);
        self.call_thread();
    }

    #[cfg(test)]
    fn while_stalled(&self, work: &mut dyn FnMut()) {
        let _routes = self.routes.lock();
        work();
    }
}

// The thread.
impl ClientDriver {
    /// All that the thread does, and what follows if it cannot go on.
    fn serve(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            self.fail();
        }
        self.thread.lock().is_running = false;
        self.has_ended.store(true, Release);
        self.changed.notify_all();
    }

    fn fail(&self) {
        self.has_failed.store(true, SeqCst);
        if let Some(link) = self.link.upgrade() {
            link.abandon(failed);
        }
    }

    /// Carries what is ready, then sleeps: as the poller, or until there is none.
    fn run(&self) {
        let mut sockets = Vec::new();
        let (mut is_readable, mut is_called, mut seen, mut closed_at) = (true, true, 0, None);
        while let Some(link) = self.link.upgrade() {
            self.looks_again.store(false, SeqCst);
            self.sleeps_until.store(AWAKE, SeqCst);
            if self.has_failed.load(Acquire) {
                break;
            }
            if is_called {
                let _ = self.poller.compare_exchange(FREE, THREAD, SeqCst, SeqCst);
            }
            if self.poller.load(SeqCst) == CALLER {
                // It carries whatever there is; afterwards this thread looks again.
                drop(link);
                self.watch();
                is_called = self.await_call(SOON);
                is_readable = true;
                continue;
            }
            self.is_thread_next.store(true, SeqCst);
            let mut watched = self.routes.lock();
            self.is_thread_next.store(false, SeqCst);
            let mut limit = self.move_frames(&mut watched.routes, &link, is_readable);
            watched.look(&mut sockets);
            let is_idle = watched.routes.is_empty();
            drop(watched);
            link.follow_up();
            #[cfg(test)]
            assert!(!self.is_to_fail.load(SeqCst), "a test wants it to fail");
            if self.poller.load(SeqCst) == CALLER {
                // It came meanwhile, and what it waits for may have been read here.
                self.bell.ring();
            }
            if link.is_closed() {
                let since = closed_at.get_or_insert_with(Instant::now);
                if is_idle || since.elapsed() >= GOODBYE {
                    break;
                }
            }
            let activity = self.activity.load(SeqCst);
            let is_active = !self.is_idle.swap(false, SeqCst) && activity != seen;
            seen = activity;
            if is_active {
                self.offer_polling(&link);
            } else {
                for away in [FREE, READER] {
                    let _ = self.poller.compare_exchange(away, THREAD, SeqCst, SeqCst);
                }
            }
            // Perhaps the last of it: the next look finds it gone.
            drop(link);
            if self.poller.load(SeqCst) == THREAD {
                if is_active {
                    limit = limit.min(SOON);
                    self.looks_again.store(true, SeqCst);
                }
                self.sleeps_until.store((clock::now() + limit).as_nanos(), SeqCst);
                if self.activity.load(SeqCst) != activity {
                    // Others moved frames since, and may have found no poller: look again.
                    limit = Duration::ZERO;
                }
                is_readable = self.bell.sleep(&sockets, limit);
                is_called = false;
            } else {
                self.watch();
                is_called = self.await_call(Duration::ZERO);
                is_readable = true;
            }
        }
        self.routes.lock().routes.close();
    }

    /// Leaves polling to tasks or callers, if one wished for it and no caller is let down.
    fn offer_polling(&self, link: &Link) {
        if let Some(reader) = &self.reader
            && self.is_wished_for_by_tasks.swap(false, Relaxed)
            && self.poller.compare_exchange(THREAD, READER, SeqCst, SeqCst).is_ok()
        {
            // It begins with a look at the sockets.
            reader.ensure(|| self.me.upgrade());
        }
        if self.is_wished_for.load(Relaxed)
            && link.unanswered() == 0
            && self.poller.compare_exchange(THREAD, FREE, SeqCst, SeqCst).is_ok()
        {
            self.is_wished_for.store(false, Relaxed);
            if link.unanswered() > 0 {
                // Asked for before it was vacant: the thread was not called.
                let _ = self.poller.compare_exchange(FREE, THREAD, SeqCst, SeqCst);
            }
        }
    }

    /// Rests while it is not the poller, until something is due, for so long at least; whether it was
    /// called to poll.
    fn await_call(&self, at_least: Duration) -> bool {
        let mut thread = self.thread.lock();
        let now = clock::now();
        self.rests_until.store((now + REST).as_nanos(), SeqCst);
        // A caller that finds less left from here on sees that it rests, and has it look.
        let limit = self.due().since(now).clamp(at_least, REST);
        self.rests_until.store((now + limit).as_nanos(), SeqCst);
        if !thread.is_called && !thread.is_to_look {
            self.changed.wait_for(&mut thread, limit);
        }
        self.rests_until.store(0, SeqCst);
        thread.is_to_look = false;
        mem::take(&mut thread.is_called)
    }
}

// Carrying.
impl ClientDriver {
    /// Has the thread become the poller, or look around if it is.
    fn call_thread(&self) {
        self.thread.lock().is_called = true;
        self.changed.notify_all();
        // It may poll again by itself.
        self.bell.ring();
    }

    /// Wakes the poller, if there is one.
    fn wake_poller(&self, poller: u8) {
        match (poller, &self.reader) {
            (FREE, _) => {}
            (READER, Some(reader)) => reader.look(),
            _ => self.bell.ring(),
        }
    }

    /// As the poller: moves frames until `done`, but not for ever.
    fn carry_until(&self, link: &Link, done: &dyn Fn() -> bool) {
        let begin = Instant::now();
        let mut sockets = Vec::new();
        let mut is_readable = false;
        loop {
            let limit = self.step(link, is_readable, &mut sockets);
            let carried = begin.elapsed();
            if done() || carried >= CARRY {
                return self.wake_for_what_is_due();
            }
            is_readable = self.bell.sleep(&sockets, limit.min(CARRY - carried));
        }
    }

    /// As the poller, for so long and no longer: moves frames until `done`; whether it is.
    fn look_until(&self, link: &Link, done: &dyn Fn() -> bool, lent: Lent) -> bool {
        let mut sockets = Vec::new();
        let mut is_readable = false;
        loop {
            self.step(link, is_readable, &mut sockets);
            let is_done = done();
            if !is_done && let Some(ready) = self.bell.look(&self.lending, lent, &sockets) {
                is_readable = ready;
                continue;
            }
            self.wake_for_what_is_due();
            return is_done;
        }
    }

    /// As the poller: moves frames once and tells what came of it. How long to sleep on the sockets.
    fn step(&self, link: &Link, is_readable: bool, sockets: &mut Vec<Slept>) -> Duration {
        let mut watched = self.routes.lock();
        let limit = self.move_frames(&mut watched.routes, link, is_readable);
        watched.look(sockets);
        drop(watched);
        link.follow_up();
        limit
    }

    /// Whether the caller is the poller from now on.
    fn begin_to_poll(&self) -> bool {
        let takes = |from| self.poller.compare_exchange(from, CALLER, SeqCst, SeqCst).is_ok();
        takes(FREE) || takes(READER)
    }

    /// A task is about to wait: has its request sent, and its answer read.
    fn wake_for_task(&self) {
        let Some(reader) = &self.reader else { return self.wake() };
        let poller = self.poller.load(SeqCst);
        match poller {
            FREE if self.poller.compare_exchange(FREE, READER, SeqCst, SeqCst).is_ok() => {}
            READER => {}
            _ => {
                self.is_wished_for_by_tasks.store(true, Relaxed);
                return self.wake();
            }
        }
        reader.ensure(|| self.me.upgrade());
        match self.link.upgrade() {
            // Alone: no other caller's request would go along.
            Some(link) if link.unanswered() <= 1 => self.send(),
            _ => reader.look(),
        }
    }

    /// Sends what is ready, here and now, unless another thread has the routes.
    fn send(&self) {
        if self.has_failed.load(Acquire) {
            return;
        }
        let Some(link) = self.link.upgrade() else { return };
        let is_free = !self.is_thread_next.load(SeqCst);
        let Some(mut watched) = is_free.then(|| self.routes.try_lock()).flatten() else {
            // They may have looked already: let them look again.
            return match self.poller.load(SeqCst) {
                FREE => self.bell.ring(),
                poller => self.wake_poller(poller),
            };
        };
        self.move_frames(&mut watched.routes, &link, false);
        let is_new = watched.is_new();
        drop(watched);
        // The sleeper must not sleep past what is now due, nor on sockets that were replaced.
        match self.poller.load(SeqCst) {
            FREE => self.wake_for_what_is_due(),
            READER if !is_new => self.wake_for_what_is_due(),
            poller if is_new || self.due().as_nanos() < self.sleeps_until.load(SeqCst) => {
                self.wake_poller(poller);
            }
            _ => {}
        }
        link.follow_up();
    }

    /// Moves everything that is ready; how long nothing will be without a sign.
    fn move_frames(&self, routes: &mut Routes, link: &Link, mut is_readable: bool) -> Duration {
        // What was left to the watch goes now; what comes meanwhile may not.
        self.is_left_to_watch.store(false, SeqCst);
        loop {
            routes.listen(is_readable);
            is_readable = false;
            let (now, next) = link.drive(
                routes,
                |routes, client| {
                    // The clock is read after what it dates.
                    let now = clock::now();
                    routes.tell(client, now);
                    if client.poll_timeout().is_some_and(|at| at <= now) {
                        client.handle_timeout(now);
                    }
                    now
                },
                |routes, client, now| {
                    // Dated a moment early, what is sent promises a moment less.
                    routes.take_orders(client, now);
                    (now, client.poll_timeout().map(|at| at.since(now)))
                },
            );
            routes.obey();
            if routes.has_moved() {
                self.activity.fetch_add(1, SeqCst);
            }
            if !routes.has_news() {
                let limit = routes.limit().min(next.unwrap_or(LONGEST_SLEEP));
                self.due.store((now + limit).as_nanos(), SeqCst);
                return limit;
            }
        }
    }
}

impl WatchedRoutes {
    /// Writes down what is slept on from now on.
    fn note(&mut self) {
        self.routes.sockets(&mut self.sockets);
    }

    /// As [`note`](Self::note), for a sleeper without the routes.
    fn look(&mut self, sockets: &mut Vec<Slept>) {
        self.note();
        sockets.clone_from(&self.sockets);
    }

    /// Whether there is anything to sleep on that the sleeper does not know.
    fn is_new(&self) -> bool {
        let mut sockets = Vec::new();
        self.routes.sockets(&mut sockets);
        !is_same(&sockets, &self.sockets)
    }
}

impl reader::ReadFrames for ClientDriver {
    fn is_wanted(&self) -> bool {
        let is_open = self.link.upgrade().is_some_and(|link| !link.is_closed());
        is_open && self.poller.load(SeqCst) == READER && !self.has_failed.load(SeqCst)
    }

    fn turn(&self, sockets: &mut Vec<Arc<UdpSocket>>) -> AfterTurn {
        let Some(link) = self.link.upgrade().filter(|_| self.poller.load(SeqCst) == READER) else {
            return AfterTurn::End;
        };
        catch_unwind(AssertUnwindSafe(|| self.read(&link, sockets))).unwrap_or_else(|_| {
            self.fail();
            AfterTurn::End
        })
    }
}

impl ClientDriver {
    fn read(&self, link: &Link, sockets: &mut Vec<Arc<UdpSocket>>) -> AfterTurn {
        #[cfg(test)]
        assert!(!self.is_to_fail.load(SeqCst), "a test wants it to fail");
        self.turns.fetch_add(1, SeqCst);
        let mut watched = self.routes.lock();
        self.move_frames(&mut watched.routes, link, true);
        watched.note();
        sockets.clear();
        sockets.extend(watched.sockets.iter().map(|(socket, _)| socket.clone()));
        let has_unread = watched.routes.has_unread();
        drop(watched);
        self.wake_for_what_is_due();
        link.follow_up();
        match (link.is_closed(), has_unread) {
            (true, _) => AfterTurn::End,
            (false, true) => AfterTurn::Again,
            (false, false) => AfterTurn::Sleep,
        }
    }
}

/// A caller that is the poller. However it ends, others find none and are served.
struct PollingCaller<'a> {
    driver: &'a ClientDriver,
    link: &'a Link,
    is_task: bool,
}

impl Drop for PollingCaller<'_> {
    fn drop(&mut self) {
        self.driver.poller.store(FREE, SeqCst);
        match self.link.unanswered() {
            0 => {}
            _ if self.is_task => self.driver.wake_for_task(),
            _ => self.driver.call_thread(),
        }
    }
}

fn failed() -> LockError {
    let text = "this manager's client has panicked, which is a bug in tierlock; open another \
                manager, and report what was printed";
    LockError::new(LockErrorKind::Io, text)
}
