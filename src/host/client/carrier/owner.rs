//! The owner of a connection: how it looks, rests, tells callers what came of it, and leaves.

use std::{
    mem,
    time::{Duration, Instant},
};

use super::{
    super::{
        link::Lent,
        reader::LentReader,
        wire_word::{WireSigns, WireWord},
    },
    Carrier, CarrierWire,
    loads::{CarriedLink, ToBeTold},
    standing_in::ThreadTelling,
};
use crate::host::net::{
    bell::{LONGEST_SLEEP, Slept, is_same},
    patience::{Lending, PollPatience, look_again},
};

/// How long a caller carries frames itself before it leaves that to the thread.
const CARRY: Duration = Duration::from_millis(5);
/// So often an owner that is about to leave looks again for others, before it leaves that to the thread.
const LOOKS_FOR_OTHERS: usize = 2;

/// The owner of a connection. However it ends, the connection is free and others are served, and then
/// callers are told what the owner has found for them.
pub(super) struct WireOwner<'a> {
    carrier: &'a Carrier,
    by: OwnedBy<'a>,
    /// What the last look left to be waited for: answers, and links that are being closed.
    pub(super) outstanding: usize,
    /// There is nothing to be carried, as of the last look.
    pub(super) is_empty: bool,
    /// The sockets, as of the last look.
    pub(super) sockets: Vec<Slept>,
    /// What came of the looks so far, and is to be told.
    told: ToBeTold,
    has_left: bool,
}

/// What the owner is, which says for which links it runs foreign code.
#[derive(Clone, Copy)]
pub(super) enum OwnedBy<'a> {
    /// For all: another stands in for one that is kept.
    Thread(&'a ThreadTelling),
    /// A thread or a task that uses this link: for this one.
    Caller(&'a CarriedLink),
    /// A runtime's reading task: for all, which have lent the same runtime.
    Reader,
}

/// What came of a look.
pub(super) struct LookedOver {
    pub(super) signs: WireSigns,
    /// How long nothing will be without a sign.
    pub(super) limit: Duration,
    /// As [`CarrierWire::activity`].
    pub(super) activity: u64,
    /// As [`CarrierWire::turns`].
    pub(super) turns: u64,
}

/// How what came of a look was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToldBy {
    /// By the owner: that ran no foreign code.
    Owner,
    /// Beside the connection, which the teller owns again. Others may have carried meanwhile, and may
    /// have read the answer that the teller waits for: it looks again before it rests.
    Returned,
    /// Beside the connection, which another owns by now.
    Lost,
}

impl<'a> WireOwner<'a> {
    /// One that has won the word.
    pub(super) fn new(carrier: &'a Carrier, by: OwnedBy<'a>) -> WireOwner<'a> {
        WireOwner {
            carrier,
            by,
            outstanding: 0,
            is_empty: false,
            sockets: Vec::new(),
            told: ToBeTold::default(),
            has_left: false,
        }
    }

    /// Looks at everything that has come, and moves all frames that are ready. With `reads` the sockets
    /// are read, too. What came of it is told later, by [`tell`](WireOwner::tell) or after the leaving.
    pub(super) fn look(&mut self, reads: bool) -> LookedOver {
        let carrier = self.carrier;
        let signs = carrier.word.begin();
        let mut wire = carrier.wire.lock();
        let looked = wire.look(reads || signs.is_unread(), &mut self.told);
        self.outstanding = looked.outstanding;
        self.sockets.clear();
        wire.ports.sockets(&mut self.sockets);
        let CarrierWire { activity, turns, .. } = *wire;
        self.is_empty = wire.loads.is_empty();
        drop(wire);
        if self.is_empty {
            // A reading task that finds nothing to carry ends, and is not to be wanted again.
            carrier.word.end_reading();
        }
        if looked.has_ended {
            // A caller that is about to wait for it has the lock until it does.
            drop(carrier.thread.lock());
            carrier.changed.notify_all();
        }
        LookedOver { signs, limit: looked.limit, activity, turns }
    }

    /// Tells callers what came of the looks. A waker and a file of the directory are foreign: what they
    /// take is taken from no other caller, so the connection is free meanwhile.
    ///
    /// While a caller or a task tells, the thread ticks and sees to what is left. While the thread
    /// tells, [`ThreadTelling`] sees to the thread.
    pub(super) fn tell(&mut self) -> ToldBy {
        if let OwnedBy::Thread(_) = self.by {
            self.told.append(self.carrier.take_untold());
        }
        if self.told.tell_as_owner() {
            return ToldBy::Owner;
        }
        self.leave_others();
        if self.told.is_empty() {
            return ToldBy::Owner;
        }
        self.has_left = true;
        self.carrier.word.step_out();
        self.run_told();
        let is_replaced = matches!(self.by, OwnedBy::Thread(thread) if thread.is_replaced());
        if is_replaced || !self.carrier.word.own() {
            return ToldBy::Lost;
        }
        self.has_left = false;
        ToldBy::Returned
    }

    fn run_told(&mut self) {
        let told = mem::take(&mut self.told);
        match self.by {
            OwnedBy::Thread(thread) => thread.tells(self.carrier, || told.tell()),
            OwnedBy::Caller(own) => told.tell_for(own.link()),
            OwnedBy::Reader => told.tell(),
        }
    }

    /// A caller leaves to the thread what runs foreign code of other links. It owns the connection: a thread
    /// that does so next finds it before it sleeps there.
    fn leave_others(&mut self) {
        if let OwnedBy::Caller(own) = self.by {
            let others = self.told.split_off_others(own.link());
            self.carrier.leave_untold(others);
        }
    }

    /// For a caller: moves frames until `done`, but not for ever.
    pub(super) fn carry_until(mut self, done: &dyn Fn() -> bool) {
        let begin = Instant::now();
        let mut reads = false;
        loop {
            let limit = self.look(reads).limit;
            let carried = begin.elapsed();
            // Its own answer needs no telling, and others hear of theirs once it has left.
            if done() || carried >= CARRY {
                return self.leave();
            }
            reads = match self.tell() {
                ToldBy::Owner => self.rest(limit.min(CARRY - carried), false),
                ToldBy::Returned => false,
                ToldBy::Lost => return,
            };
        }
    }

    /// For a task: the same for so long and no longer, without a sleep; whether it is done. It may have
    /// lost the connection.
    pub(super) fn look_until(&mut self, done: &dyn Fn() -> bool, (begin, long): Lent) -> bool {
        let mut is_over = false;
        loop {
            // Also what was heard last: another owner may look only a tick later.
            self.look(false);
            if done() {
                return true;
            }
            match self.tell() {
                ToldBy::Owner | ToldBy::Returned if is_over => return false,
                ToldBy::Owner => {}
                ToldBy::Returned => continue,
                ToldBy::Lost => return false,
            }
            let lending = &self.carrier.lending;
            let has_heard = self.look_for((begin, long), || look_again(lending, Lending::cpus));
            // However much comes: a peer that sends on and on keeps no worker of a runtime.
            is_over = begin.elapsed() >= long;
            if !has_heard && (!self.carrier.word.is_rung() || is_over) {
                return false;
            }
        }
    }

    /// Rests until there is something to look at, or `limit` has passed. Whether the sockets are to be
    /// read.
    ///
    /// An owner that was answered soon before looks for a while before it sleeps; see [`PollPatience`].
    pub(super) fn rest(&self, limit: Duration, dozes: bool) -> bool {
        let Carrier { word, wire, bed, .. } = self.carrier;
        let begin = Instant::now();
        let looks = wire.lock().patience.looks(begin).min(limit);
        let again = || look_again(wire, |wire| wire.patience.cpus());
        let has_heard = self.look_for((begin, looks), again);
        let mut is_ready = false;
        if !has_heard {
            if !word.lie_down(dozes) {
                // It looks at the sockets all the same: else callers that come at every turn would
                // have nothing read for as long as they do.
                return true;
            }
            let limit = limit.saturating_sub(begin.elapsed()).min(LONGEST_SLEEP);
            is_ready = bed.sleep(&self.sockets, limit);
            word.get_up();
        }
        // A short wait that nothing ended says nothing about how soon peers answer.
        if has_heard || is_ready || limit > PollPatience::LONGEST {
            wire.lock().patience.waited(looks, begin.elapsed());
        }
        is_ready
    }

    /// Reads the sockets until something has come, for so `long` since `begin`; whether it has.
    fn look_for(&self, (begin, long): Lent, again: impl Fn() -> Option<Instant>) -> bool {
        let mut now = begin;
        while now - begin < long && !self.carrier.word.is_rung() {
            if self.carrier.wire.lock().hear() {
                return true;
            }
            let Some(later) = again() else { break };
            now = later;
        }
        false
    }

    /// Leaves the connection to the next comer, or to the thread if others wait for answers.
    pub(super) fn leave(mut self) {
        self.try_to_leave(WireWord::leave);
    }

    /// The same, and from now on a runtime's task sleeps on the sockets.
    pub(super) fn leave_to_reader(mut self, reader: &LentReader) {
        // With nothing to carry no task is to read.
        let leave = if self.is_empty { WireWord::leave } else { WireWord::leave_to_reader };
        if self.try_to_leave(leave) {
            self.carrier.has_read_by(reader);
        }
    }

    /// Whether a runtime's task sleeps on the sockets now.
    fn try_to_leave(&mut self, leave: fn(&WireWord, bool) -> bool) -> bool {
        let carrier = self.carrier;
        if self.has_left {
            return false;
        }
        for _ in 0..LOOKS_FOR_OTHERS {
            if self.has_left_by(leave) {
                let reads = carrier.word.reads();
                if !reads && self.outstanding > 0 {
                    carrier.call_thread();
                }
                return reads;
            }
            self.look(false);
            if self.is_empty {
                // What was to leave the sockets to a reader has no reason to any more.
                break;
            }
        }
        // The thread has the rest.
        false
    }

    /// Leaves if nothing has come since the last look, and tells a reading task what it does not know;
    /// whether it has left.
    pub(super) fn has_left_by(&mut self, leave: fn(&WireWord, bool) -> bool) -> bool {
        let carrier = self.carrier;
        self.leave_others();
        // Asked as the owner: afterwards another may be telling the task already.
        let is_told_nothing = self.is_reader_told_nothing();
        let spares = !matches!(self.by, OwnedBy::Thread(_)) && self.outstanding == 0;
        self.has_left = leave(&carrier.word, spares);
        if self.has_left
            && is_told_nothing
            && carrier.word.reads()
            && let Some(reader) = &carrier.reader
        {
            reader.look();
        }
        self.has_left
    }

    /// Whether a reading task sleeps on sockets that were replaced, or was told of what was not read.
    fn is_reader_told_nothing(&self) -> bool {
        self.carrier.reader.is_some() && {
            let wire = self.carrier.wire.lock();
            !is_same(&self.sockets, &wire.known) || wire.ports.has_unread()
        }
    }
}

impl Drop for WireOwner<'_> {
    fn drop(&mut self) {
        if !self.has_left {
            self.leave_others();
            self.carrier.word.abandon();
            self.carrier.call_thread();
        }
        if !self.told.is_empty() {
            self.run_told();
        }
    }
}
