//! Carries the frames of a process's links to their leaders and back: which thread or task does it, and
//! when.
//!
//! All managers of a process share one thread, and one port to each leader's address (`ports.rs`); those
//! that were lent a runtime share with the others of that. So what they send at one time leaves in few
//! writes, and their answers come in few reads.
//!
//! **One owner at a time** sends, receives and sleeps on the sockets; `wire_word.rs` says how it is won,
//! woken and left. Ownership is only ever tried for:
//!
//! - A *caller* that is about to block comes with its request, and carries until it has its answer, for
//!   at most 5 ms: two thread switches cost as much as the network. One that finds an owner is heard
//!   by that, and parks until the owner has read its answer.
//! - A *task* comes likewise, sends, and may lend its thread for some 50 µs ([`Lending`]); it never
//!   sleeps as the owner, so that a dropped future owns nothing.
//! - *The thread* owns whenever answers are outstanding and no caller carries: an owner that leaves then
//!   calls it. Once nothing is outstanding and callers would carry themselves, it leaves and rests, and
//!   looks each tick ([`SOON`]) that no caller has spared it: what is due goes then, and if nothing was
//!   carried for a tick it owns the connection again and sleeps on its sockets. Whatever an owner leaves
//!   behind costs two ticks at most.
//! - *A runtime that was lent* has a task that sleeps on the sockets of a free connection
//!   (`reader.rs`), and owns it only to read. The thread goes on ticking, and takes the sockets back from a
//!   runtime that shows nothing for some ticks.
//!
//! *Close, death, forks:* a link that is closed, gone, or has panicked in its turn ends at the next look of
//! any owner, and harms no other; an owner that panics abandons the connection and calls the thread. A
//! forked child's managers are refused before they get here. Lock order: the thread's, then the wire's;
//! a link's state is locked inside.
//!
//! *Foreign code*, wakers and files among it, is run by no owner: an owner collects what is to be told,
//! frees the connection, tells, and comes back if no other has come meanwhile. A caller or a task runs what is
//! of its own manager, and no other's: it could be kept for ever, and none can stand in for it. What it finds for
//! others it leaves to the thread; one that is kept by it is replaced (`standing_in.rs`). The reading task of a
//! runtime runs what is of the managers that lent that, tasks of the same runtime mostly. Files and names are
//! read by threads of their own (`routes.rs`).

mod loads;
mod owner;
mod standing_in;
#[cfg(test)]
pub(super) mod tests;
mod thread;

use std::{
    io,
    net::UdpSocket,
    sync::{Arc, Weak},
    thread::Thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

pub(super) use self::loads::CarriedLink;
use self::{
    loads::{ToBeTold, WireLoad},
    owner::{OwnedBy, WireOwner},
    standing_in::ThreadTelling,
};
use super::{
    link::Lent,
    ports::{LinkKey, Ports},
    reader::{AfterTurn, LentReader, ReadFrames},
    routes::Routes,
    wire_word::{Coming, WireWish, WireWord},
};
use crate::{
    clock,
    error::{LockError, LockErrorKind},
    fork::{self, PerFork},
    host::net::{
        bell::{LONGEST_SLEEP, Slept, SocketBed},
        patience::{Lending, PollPatience},
    },
    time::Time,
};

/// A tick: while others carry the thread looks this often, and what can wait that long does.
const SOON: Duration = Duration::from_millis(1);

pub(super) struct Carrier {
    me: Weak<Carrier>,
    /// In which process, which a forked child is not.
    made_in: u64,
    word: WireWord,
    /// The owner's, but for a new link, which is added by its first caller.
    wire: Mutex<CarrierWire>,
    /// The owner sleeps in it.
    bed: SocketBed,
    /// For how long a task lends its thread before it waits.
    lending: Mutex<Lending>,
    /// The runtime that was lent.
    reader: Option<LentReader>,
    thread: Mutex<CarrierThread>,
    /// What callers have found for others and left to the thread. Put there by an owner, so that a thread
    /// that owns the connection afterwards, and may sleep there, sees it before. Locked inside the thread's lock.
    untold: Mutex<ToBeTold>,
    /// A link or the thread has ended.
    changed: Condvar,
}

struct CarrierWire {
    loads: Vec<WireLoad>,
    /// The last key that a link was given.
    last_key: LinkKey,
    ports: Ports,
    /// The sockets, as the reading task knows them.
    known: Vec<Slept>,
    /// How long the owner looks at the sockets before it sleeps on them.
    patience: PollPatience,
    /// Counts whenever frames were moved.
    activity: u64,
    /// Counts the turns of the reading task.
    turns: u64,
}

#[derive(Default)]
struct CarrierThread {
    is_running: bool,
    handle: Option<Thread>,
    telling: Option<Arc<ThreadTelling>>,
}

/// Those of this process: one for each runtime that was lent, and one for managers without.
static CARRIERS: PerFork<Mutex<Vec<Weak<Carrier>>>> = PerFork::unset();

impl Carrier {
    /// The one that carries what is read by this runtime, or by none.
    pub(super) fn shared(reader: Option<LentReader>) -> io::Result<Arc<Carrier>> {
        let mut carriers = CARRIERS.here(Mutex::default).lock();
        carriers.retain(|carrier| carrier.strong_count() > 0);
        let known = carriers.iter().filter_map(Weak::upgrade).find(|carrier| {
            match (&carrier.reader, &reader) {
                (Some(its), Some(reader)) => its.is_like(reader),
                (None, None) => true,
                _ => false,
            }
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let carrier = Carrier::new(reader)?;
        carriers.push(Arc::downgrade(&carrier));
        Ok(carrier)
    }

    pub(super) fn new(reader: Option<LentReader>) -> io::Result<Arc<Carrier>> {
        let bed = SocketBed::new()?;
        Ok(Arc::new_cyclic(|me| Carrier {
            me: me.clone(),
            made_in: fork::generation(),
            word: WireWord::new(),
            wire: Mutex::new(CarrierWire {
                loads: Vec::new(),
                last_key: 0,
                ports: Ports::default(),
                known: Vec::new(),
                patience: PollPatience::new(),
                activity: 0,
                turns: 0,
            }),
            bed,
            lending: Mutex::new(Lending::new()),
            reader,
            thread: Mutex::default(),
            untold: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// From now on this link's frames are carried, over these routes.
    ///
    /// # Errors
    ///
    /// The system gives no thread; the routes stay where they are.
    pub(super) fn take_on(
        &self,
        carried: &Arc<CarriedLink>,
        routes: &mut Option<Routes>,
    ) -> io::Result<()> {
        let mut thread = self.thread.lock();
        self.ensure_thread(&mut thread)?;
        // Before the thread can find that it has nothing to carry.
        let routes = routes.take().expect("a link is taken on once");
        // And before an owner can say that it has ended.
        carried.is_now_taken_on();
        self.wire.lock().add(carried.clone(), routes);
        Ok(())
    }

    /// There is something to send. It goes now, or with its owner's next look.
    pub(super) fn send(&self, carried: &CarriedLink) {
        if self.comes(carried, WireWish::Send) {
            let mut owner = WireOwner::new(self, OwnedBy::Caller(carried));
            owner.look(false);
            owner.leave();
        }
    }

    /// Comes with something of this link to look at: whether the caller is the owner now.
    ///
    /// A forked child inherits the word as it was, with sockets on which its parent goes on: it never comes.
    fn comes(&self, carried: &CarriedLink, wish: WireWish) -> bool {
        if self.made_in != fork::generation() {
            return false;
        }
        carried.mark();
        match self.word.come(wish) {
            Coming::Mine => true,
            Coming::Heard => false,
            Coming::Asleep => {
                self.bed.wake();
                false
            }
        }
    }

    /// There is something to send that may wait for a tick.
    pub(super) fn put_off(&self, carried: &CarriedLink) {
        if self.made_in != fork::generation() {
            return;
        }
        carried.mark();
        if self.word.put_off() {
            self.bed.wake();
        }
    }

    /// A task is about to wait: has its request sent, and its answer read by its runtime if that was
    /// lent. `is_alone`: no other caller's request would go along.
    pub(super) fn send_for_task(&self, carried: &CarriedLink, is_alone: bool) {
        let Some(reader) = self.reader() else { return self.send(carried) };
        if !is_alone && self.made_in == fork::generation() {
            carried.mark();
            if self.word.put_off_to_reader() {
                return match self.has_read_by(reader) {
                    true => reader.look(),
                    false => self.send(carried),
                };
            }
        }
        if self.comes(carried, WireWish::Reader) {
            let mut owner = WireOwner::new(self, OwnedBy::Caller(carried));
            owner.look(false);
            owner.leave_to_reader(reader);
        }
    }

    /// The runtime that was lent, unless it is known to have ended: then all is as without one.
    fn reader(&self) -> Option<&LentReader> {
        self.reader.as_ref().filter(|reader| !reader.has_ended())
    }

    /// The sockets were left to a task of this runtime: sees to it that it runs. If the runtime has ended,
    /// the thread takes them back at once.
    fn has_read_by(&self, reader: &LentReader) -> bool {
        let reads = reader.ensure(|| self.me.upgrade());
        if !reads {
            self.word.end_reading();
            self.call_thread();
        }
        reads
    }

    /// For how long a task that waits from now on lends its thread, where the process expects so many
    /// answers.
    pub(super) fn lends(&self, expected: usize) -> Duration {
        self.lending.lock().looks(Instant::now(), expected)
    }

    pub(super) fn has_lent(&self, long: Duration, took: Duration) {
        self.lending.lock().waited(long, took);
    }

    /// A task is about to wait, and lends its thread: whether it is `done`.
    pub(super) fn carry_for_task(
        &self,
        carried: &CarriedLink,
        done: &dyn Fn() -> bool,
        lent: Lent,
    ) -> bool {
        if !self.comes(carried, WireWish::Carry) {
            return false;
        }
        let mut owner = WireOwner::new(self, OwnedBy::Caller(carried));
        let is_done = owner.look_until(done, lent);
        match self.reader() {
            Some(reader) if !is_done => owner.leave_to_reader(reader),
            _ => owner.leave(),
        }
        is_done
    }

    /// A caller is about to block: moves frames until `done`, but not for ever. Returns at once if there is
    /// an owner.
    pub(super) fn carry(&self, carried: &CarriedLink, done: &dyn Fn() -> bool) {
        if self.comes(carried, WireWish::Carry) {
            WireOwner::new(self, OwnedBy::Caller(carried)).carry_until(done);
        }
    }

    /// The link was closed, or is going: waits until it is carried no more, at most until then.
    pub(super) fn finish(&self, carried: &CarriedLink, until: Time) {
        self.send(carried);
        let mut thread = self.thread.lock();
        while !carried.has_ended() && thread.is_running {
            let now = clock::now();
            if now >= until {
                return;
            }
            self.changed.wait_for(&mut thread, until.since(now).min(LONGEST_SLEEP));
        }
    }

    #[cfg(test)]
    pub(super) fn while_stalled(&self, work: &mut dyn FnMut()) {
        let _wire = self.wire.lock();
        work();
    }
}

impl ReadFrames for Carrier {
    fn is_wanted(&self) -> bool {
        self.word.reads()
    }

    fn turn(&self, sockets: &mut Vec<Arc<UdpSocket>>) -> AfterTurn {
        if !self.word.reads() {
            return AfterTurn::End;
        }
        match self.word.come(WireWish::Read) {
            Coming::Mine => {}
            // The owner reads.
            Coming::Heard => return AfterTurn::Sleep,
            Coming::Asleep => {
                self.bed.wake();
                return AfterTurn::Sleep;
            }
        }
        let mut owner = WireOwner::new(self, OwnedBy::Reader);
        owner.look(true);
        let is_empty = owner.is_empty;
        sockets.clear();
        sockets.extend(owner.sockets.iter().map(|(socket, _)| socket.clone()));
        let mut wire = self.wire.lock();
        wire.activity += 1;
        wire.turns += 1;
        wire.known.clone_from(&owner.sockets);
        let has_unread = wire.ports.has_unread();
        drop(wire);
        owner.leave();
        match (is_empty, has_unread) {
            (true, _) => AfterTurn::End,
            (false, true) => AfterTurn::Again,
            (false, false) => AfterTurn::Sleep,
        }
    }
}

fn failed() -> LockError {
    let text = "this manager's client has panicked, which is a bug in tierlock; open another \
                manager, and report what was printed";
    LockError::new(LockErrorKind::Io, text)
}
