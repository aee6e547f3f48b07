//! The thread: it owns the connection while answers are outstanding and no caller carries, and looks
//! after what is due.

use std::{
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, Builder, Thread},
};

use super::{
    super::wire_word::WireWord,
    Carrier, CarrierThread, SOON,
    loads::ToBeTold,
    owner::{OwnedBy, ToldBy, WireOwner},
    standing_in::ThreadTelling,
};

/// So many ticks in a row may show nothing of a runtime that was lent, before the thread takes the sockets
/// back.
const READER_MAY_PAUSE: u32 = 8;

/// What the thread has seen.
#[derive(Default)]
struct TicksSeen {
    activity: u64,
    turns: u64,
    /// How many ticks in a row the runtime that was lent has read nothing, where there is something to wait
    /// for; or nothing was carried at all.
    quiet: u32,
}

/// What the thread does after it owned the connection.
#[derive(PartialEq, Eq)]
enum AfterWatch {
    Rests,
    Ends,
}

impl CarrierThread {
    /// Whether it is the thread that tells by this.
    fn is_of(&self, telling: &Arc<ThreadTelling>) -> bool {
        self.telling.as_ref().is_some_and(|its| Arc::ptr_eq(its, telling))
    }
}

impl Carrier {
    /// Sees to it that the thread runs.
    pub(super) fn ensure_thread(&self, thread: &mut CarrierThread) -> io::Result<()> {
        if thread.is_running { Ok(()) } else { self.start_thread(thread) }
    }

    fn start_thread(&self, thread: &mut CarrierThread) -> io::Result<()> {
        let carrier = self.me.upgrade().expect("the caller holds it");
        let telling = ThreadTelling::new();
        let its = telling.clone();
        let run = move || carrier.run(&its);
        let spawned = Builder::new().name("tierlock-client".into()).spawn(run)?;
        let handle = Some(spawned.thread().clone());
        *thread = CarrierThread { is_running: true, handle, telling: Some(telling) };
        Ok(())
    }

    /// Another thread has the part of this one from now on, which foreign code keeps. Nothing is left to
    /// be done unless the system gives none.
    pub(super) fn stand_in(&self, kept: &Arc<ThreadTelling>) -> bool {
        let mut thread = self.thread.lock();
        !thread.is_of(kept) || kept.replace(|| self.start_thread(&mut thread))
    }

    /// Has the thread look around once the connection is free.
    pub(super) fn call_thread(&self) {
        if let Some(handle) = &self.thread.lock().handle {
            handle.unpark();
        }
    }

    fn run(&self, telling: &Arc<ThreadTelling>) {
        let mut seen = TicksSeen::default();
        while !telling.is_replaced() {
            self.tell_untold(telling);
            if self.word.own_at_tick() {
                let watching = || self.watch(telling, &mut seen);
                match catch_unwind(AssertUnwindSafe(watching)) {
                    Ok(AfterWatch::Rests) => {}
                    Ok(AfterWatch::Ends) => return,
                    Err(panic) => {
                        mem::forget(panic); // dropping it could panic again
                        self.wire.lock().break_all();
                    }
                }
            }
            thread::park_timeout(SOON);
        }
    }

    /// The caller is the owner, and leaves this to the thread.
    pub(super) fn leave_untold(&self, told: ToBeTold) {
        if told.is_empty() {
            return;
        }
        let mut thread = self.thread.lock();
        self.untold.lock().append(told);
        // It may have ended by now, with the last link.
        match self.ensure_thread(&mut thread) {
            Ok(()) => thread.handle.iter().for_each(Thread::unpark),
            Err(_) => {
                drop(thread);
                self.take_untold().tell();
            }
        }
    }

    pub(super) fn take_untold(&self) -> ToBeTold {
        mem::take(&mut *self.untold.lock())
    }

    fn tell_untold(&self, telling: &Arc<ThreadTelling>) {
        let untold = self.take_untold();
        if !untold.is_empty() {
            telling.tells(self, || untold.tell());
        }
    }

    /// As the owner: carries what there is, and sleeps on the sockets until callers would carry
    /// themselves.
    fn watch(&self, telling: &Arc<ThreadTelling>, seen: &mut TicksSeen) -> AfterWatch {
        let mut owner = WireOwner::new(self, OwnedBy::Thread(telling));
        // Others carry, and it only looks after what they have left; or it stays.
        let mut is_tick = true;
        let (mut reads, mut would_carry, mut wants_reader) = (true, false, false);
        while !telling.is_replaced() {
            let looked = owner.look(mem::take(&mut reads));
            would_carry |= looked.signs.would_carry();
            wants_reader |= looked.signs.wants_reader();
            match owner.tell() {
                ToldBy::Owner => {}
                // What this look has found counts with the next one.
                ToldBy::Returned => continue,
                ToldBy::Lost => return AfterWatch::Rests,
            }
            if owner.is_empty && self.end_thread(telling) {
                return AfterWatch::Ends;
            }
            let is_active = mem::replace(&mut seen.activity, looked.activity) != looked.activity;
            let has_turned = mem::replace(&mut seen.turns, looked.turns) != looked.turns;
            // What others carry says nothing of a runtime that is to read.
            let is_alive = has_turned || is_active && owner.outstanding == 0;
            seen.quiet = if is_alive { 0 } else { seen.quiet.saturating_add(1) };
            let leaves = if is_tick && self.word.reads() {
                seen.quiet < READER_MAY_PAUSE
            } else {
                is_active && owner.outstanding == 0 && (is_tick || would_carry)
            };
            if let Some(reader) = self.reader()
                && !leaves
                && is_active
                && wants_reader
                && !owner.is_empty
            {
                if owner.has_left_by(WireWord::leave_to_reader) {
                    if self.has_read_by(reader) {
                        // One that runs already knows other sockets, perhaps.
                        reader.look();
                    }
                    return AfterWatch::Rests;
                }
                continue;
            }
            if leaves {
                if owner.has_left_by(WireWord::leave) {
                    return AfterWatch::Rests;
                }
                continue;
            }
            if mem::take(&mut is_tick) {
                self.word.end_reading();
            }
            let limit = if is_active { looked.limit.min(SOON) } else { looked.limit };
            reads = owner.rest(limit, is_active);
        }
        AfterWatch::Rests
    }

    /// Ends the thread, if there is nothing to carry: whether it ends.
    fn end_thread(&self, telling: &Arc<ThreadTelling>) -> bool {
        let mut thread = self.thread.lock();
        if !thread.is_of(telling) {
            return true;
        }
        // A link is taken on under the thread's lock, and what is left to the thread is put there.
        if !self.wire.lock().loads.is_empty() || !self.untold.lock().is_empty() {
            return false;
        }
        *thread = CarrierThread::default();
        drop(thread);
        self.changed.notify_all();
        true
    }
}
