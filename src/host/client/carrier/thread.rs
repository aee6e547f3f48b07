//! The thread: it owns the connection while answers are outstanding and no caller carries, and looks
//! after what is due.

use std::{
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, Builder},
};

use super::{Carrier, CarrierThread, SOON, WireOwner};

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

impl Carrier {
    /// Sees to it that the thread runs.
    pub(super) fn ensure_thread(&self, thread: &mut CarrierThread) -> io::Result<()> {
        if thread.is_running {
            return Ok(());
        }
        let carrier = self.me.upgrade().expect("the caller holds it");
        let spawned = Builder::new().name("tierlock-client".into()).spawn(move || carrier.run())?;
        thread.handle = Some(spawned.thread().clone());
        thread.is_running = true;
        Ok(())
    }

    /// Has the thread look around once the connection is free.
    pub(super) fn call_thread(&self) {
        if let Some(handle) = &self.thread.lock().handle {
            handle.unpark();
        }
    }

    fn run(&self) {
        let mut seen = TicksSeen::default();
        loop {
            if self.word.own() {
                let watching = || self.watch(&mut WireOwner::new(self), &mut seen);
                match catch_unwind(AssertUnwindSafe(watching)) {
                    Ok(AfterWatch::Rests) => {}
                    Ok(AfterWatch::Ends) => return,
                    Err(_) => {
                        self.wire.lock().break_all();
                    }
                }
            }
            thread::park_timeout(SOON);
        }
    }

    /// As the owner: carries what there is, and sleeps on the sockets until callers would carry
    /// themselves.
    fn watch(&self, owner: &mut WireOwner<'_>, seen: &mut TicksSeen) -> AfterWatch {
        // Others carry, and it only looks after what they have left; or it stays.
        let mut is_tick = true;
        let (mut reads, mut would_carry, mut wants_reader) = (true, false, false);
        loop {
            let looked = owner.step(reads);
            if owner.is_empty && self.end_thread() {
                return AfterWatch::Ends;
            }
            would_carry |= looked.signs.would_carry();
            wants_reader |= looked.signs.wants_reader();
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
            if let Some(reader) = &self.reader
                && !leaves
                && is_active
                && wants_reader
                && !owner.is_empty
            {
                if self.word.leave_to_reader() {
                    owner.has_left = true;
                    reader.ensure(|| self.me.upgrade());
                    // One that runs already knows other sockets, perhaps.
                    reader.look();
                    return AfterWatch::Rests;
                }
                continue;
            }
            if leaves {
                let is_told_nothing = owner.is_reader_told_nothing();
                if self.word.leave() {
                    owner.has_left = true;
                    if let Some(reader) = &self.reader
                        && is_told_nothing
                        && self.word.reads()
                    {
                        reader.look();
                    }
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
    }

    /// Ends the thread, if there is nothing to carry: whether it ends.
    fn end_thread(&self) -> bool {
        let mut thread = self.thread.lock();
        // A link is taken on under the thread's lock.
        if !self.wire.lock().loads.is_empty() {
            return false;
        }
        *thread = CarrierThread::default();
        drop(thread);
        self.changed.notify_all();
        true
    }
}
