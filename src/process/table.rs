//! The table engine: one shared-memory table for all names, presences prove that holders live.
//!
//! ```text
//! DIR/format           which engine and version
//! DIR/table            header · slots · names · index · wait records · share records, all in shared
//!                      memory                        layout, store, index, records, share
//! DIR/tokens           the number that no token has passed                     reserve
//! DIR/wide             the service it belongs to, and the names of host scope  process::wide
//! DIR/presence/<id>    one per live process, locked for its whole life         presence
//! ```
//! Exclusion rests on the word of a name's slot alone ([`word`], [`protocol`], [`lock`]):
//! uncontended, a lock is one compare-and-swap, and so is its release. Everything else in the table may be
//! stale or hostile and costs milliseconds, never exclusion. There is no descriptor per name.
//!
//! **What it does not do.** On tmpfs tokens do not survive a reboot. Copy-on-write file systems
//! cannot promise the space that was allocated, so that a full disk can end the process with SIGBUS
//! there. A user that may write the directory is trusted with exclusion, and can end the processes
//! that use it by cutting the table short. In a sticky directory only its owner can start the table
//! anew.

mod bells;
mod chain;
#[cfg(any(feature = "cli", test))]
mod checkup;
mod ends;
mod heirs;
#[cfg(feature = "cli")]
mod holding;
mod in_vain;
mod index;
#[cfg(test)]
mod kills;
mod layout;
mod lock;
mod map;
mod marks;
mod member;
#[cfg(test)]
mod model;
#[cfg(feature = "testing")]
pub mod parts;
mod permits;
mod place;
mod presence;
mod protocol;
mod records;
mod reserve;
mod share;
mod sharing;
mod slot;
mod step;
mod store;
mod survey;
#[cfg(test)]
pub(super) mod tests;
mod wait;
mod wide;
mod word;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
    time::Duration,
};

use crate::{
    clock,
    error::{Holder, LockError, LockErrorKind, LostReason, Predecessor},
    filesystem::Trust,
    fork::{
        self, FirstMade, Mutex, PerFork,
        latest::{ForkStamp, LatestMade},
    },
    mode::{Room, Share, Usage},
    name::Name,
    scope::Scope,
    time::Time,
    token::Token,
};

#[cfg(any(feature = "cli", test))]
pub(super) use self::checkup::examine;
#[cfg(feature = "cli")]
pub(super) use self::holding::holding;
pub(crate) use self::lock::WordWon;
use self::{
    index::Found,
    lock::{LostHold, SlotWon, Stop},
    marks::Marks,
    member::Member,
    place::{Heirloom, NOT_HELD, NamePlace},
    presence::Presences,
    protocol::{Slept, SlotMark, Way},
    step::step,
    word::Word,
};
pub(super) use self::{
    layout::FORMAT,
    place::{FoundSlot, PlaceShortcut},
};
use super::{
    DirectoryKey, Drain, NameStatus, Options, SlotWish, Taken,
    dir::home::{Home, damaged},
};

/// This engine is one of this system's.
pub(super) const IS_HERE: bool = true;

/// Every so many tokens of a name it is looked whether the directory is still the one it was; after
/// twice as many, if another name was just looked at.
const TOKENS_PER_LOOK: u64 = 1 << 16;

/// A directory in this engine's format.
pub(super) struct TableDirectory {
    home: Arc<Home>,
    label: String,
    /// This process as one of those that use the table, once it uses a name.
    member: PerFork<Mutex<Option<Arc<Member>>>>,
}

impl TableDirectory {
    pub(super) fn open(home: Home, options: &Options) -> Result<TableDirectory, LockError> {
        home.settle(FORMAT, || Presences::prepare(&home))?;
        // Before the table can be opened: one that starts anew has the names that stand there.
        home.make_wide(|| member::wide_names(&home))?;
        member::prepare(&home)?;
        Ok(TableDirectory {
            home: Arc::new(home),
            label: options.label.clone(),
            member: PerFork::new(Mutex::default()),
        })
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    pub(super) fn key(&self) -> DirectoryKey {
        self.home.key
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn slot(self: &Arc<Self>, name: &Name) -> Result<TableSlot, LockError> {
        self.slot_for(name, Usage::Lock)
    }

    /// The slot of this name, which is used so.
    pub(super) fn slot_for(
        self: &Arc<Self>,
        name: &Name,
        usage: Usage,
    ) -> Result<TableSlot, LockError> {
        let places = PerFork::new(LatestMade::new(self.place(name, usage)?));
        let directory = self.clone();
        Ok(TableSlot { places, name: name.clone(), usage, directory })
    }

    /// Every name: its status, or what is wrong with its slot.
    pub(super) fn inspect(&self) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
        survey::inspect(&self.home)
    }

    /// The status of one name; `None`: nothing is known of it.
    pub(super) fn look(&self, name: &Name) -> Result<Option<NameStatus>, LockError> {
        survey::look(&self.home, name)
    }

    /// Ends the stay of `at_least` that the hold with this token left; whether there was one.
    #[cfg(feature = "cli")]
    pub(super) fn end_stay(&self, name: &Name, token: Token) -> Result<bool, LockError> {
        let NamePlace { slot, number, generation, member, .. } = &self.place(name, Usage::Lock)?;
        let at = lock::SlotAt { slot, number: *number, table: &member.table, kept: Some(slot) };
        match lock::end_stay(at, member.id, *generation, &**member, token.get()) {
            Ok(ended) => Ok(ended),
            Err(Stop::Failed(error)) => Err(error.with_name(name).with_scope(Scope::Process)),
            // Another name has its slot, or is about to.
            Err(Stop::Moved | Stop::Unsettled(_) | Stop::TimedOut) => Ok(false),
        }
    }

    /// Where the name stands, for this process.
    fn place(&self, name: &Name, usage: Usage) -> Result<NamePlace, LockError> {
        let named = |error: LockError| error.with_name(name).with_scope(Scope::Process);
        let member = self.member().map_err(named)?;
        let Found { number, generation } = member.find_for(name, usage).map_err(named)?;
        let slot = member.table.slot_cell(number);
        let slot = slot.map_err(|error| named(store::about(&self.home, error)))?;
        Ok(NamePlace {
            slot,
            me: member.id,
            member,
            held: AtomicU64::new(NOT_HELD),
            stamp: ForkStamp::of(fork::generation()),
            generation,
            number,
            stays: AtomicBool::new(false),
            heirloom: Mutex::default(),
            reader_heirloom: Mutex::default(),
            own: FirstMade::new(),
        })
    }

    fn member(&self) -> Result<Arc<Member>, LockError> {
        let mut member = self.member.here(Mutex::default).lock();
        if let Some(member) = &*member {
            return Ok(member.clone());
        }
        let new = Arc::new(Member::join(&self.home, &self.label)?);
        *member = Some(new.clone());
        Ok(new)
    }
}

/// Whether it is looked whether the table is still there, before this token is granted: once in so
/// many, whatever tokens were skipped.
#[inline]
fn is_to_look(last: u64, token: u64) -> bool {
    last / TOKENS_PER_LOOK != token / TOKENS_PER_LOOK
}

/// The same of a token that comes right after the last one: one compare.
#[inline]
fn begins_a_stretch(token: u64) -> bool {
    token.is_multiple_of(TOKENS_PER_LOOK)
}

/// The lock of one name.
pub(super) struct TableSlot {
    /// Where the name stands, replaced when it was not there any more.
    places: PerFork<LatestMade<NamePlace>>,
    name: Name,
    usage: Usage,
    directory: Arc<TableDirectory>,
}

/// When a wait began, and the token of the holder then.
#[derive(Clone, Copy)]
struct Begin {
    time: Time,
    token: u64,
}

impl Begin {
    fn at(place: &NamePlace) -> Begin {
        Begin { time: clock::now(), token: place.slot.token.load(Relaxed) }
    }
}

impl TableSlot {
    #[inline]
    pub(super) fn try_take(&self, above: Token) -> Result<Option<Taken>, LockError> {
        loop {
            let place = self.place()?;
            let (me, member) = (place.member.id, &*place.member);
            match lock::try_take(place.at(), me, place.generation, member) {
                Ok(Some(admission)) => match self.enter(place, admission, above) {
                    Ok(taken) => return Ok(Some(taken)),
                    Err(stop) => self.go_on(place, stop, None)?,
                },
                Ok(None) => return Ok(None),
                Err(stop) => self.go_on(place, stop, None)?,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn take(&self, above: Token, until: Time) -> Result<Taken, LockError> {
        self.take_unless(above, until, &|| false, SlotWish::default())
    }

    /// Whether a waiter sleeps for it, or may.
    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        let place = self.places.so_far().map(LatestMade::get);
        place.is_some_and(|place| Word::from_bits(place.slot.word.load(Relaxed)).has_waiters())
    }

    #[inline]
    pub(super) fn take_unless(
        &self,
        above: Token,
        until: Time,
        is_over: &dyn Fn() -> bool,
        wish: SlotWish,
    ) -> Result<Taken, LockError> {
        let mut begin = None;
        loop {
            let place = self.place()?;
            if until != Time::NEVER && begin.is_none() {
                begin = Some(Begin::at(place));
            }
            let (me, member) = (place.member.id, &*place.member);
            let limit = (until, is_over);
            let taken = lock::take_unless(place.at(), me, place.generation, member, limit, wish);
            match taken.and_then(|admission| self.enter(place, admission, above)) {
                Ok(taken) => return Ok(taken),
                Err(stop) => self.go_on(place, stop, begin)?,
            }
        }
    }

    pub(super) async fn take_async(
        &self,
        above: Token,
        until: Time,
        wish: SlotWish,
    ) -> Result<Taken, LockError> {
        let mut begin = None;
        loop {
            let place = self.place()?;
            let begin = *begin.get_or_insert_with(|| Begin::at(place));
            let NamePlace { slot, number, member, generation, .. } = place;
            let wait = wait::take(slot, *number, member, *generation, until).with(wish);
            let taken = wait.await;
            match taken.and_then(|admission| self.enter(place, admission, above)) {
                Ok(taken) => return Ok(taken),
                Err(stop) => self.go_on(place, stop, Some(begin))?,
            }
        }
    }

    /// Up to the reserve it is memory, as far as that is a local disk's.
    pub(super) fn may_block(&self, raised_to: Option<Token>) -> bool {
        if self.directory.home.trust != Trust::Known {
            return true;
        }
        let (Some(token), Some(place)) = (raised_to, self.held()) else { return false };
        place.slot.token.load(Relaxed) < token.get() && !place.member.knows_reserved(token.get())
    }

    pub(super) fn raise_token(&self, token: Token) {
        let Some(place) = self.held() else { return };
        if place.slot.token.load(Relaxed) < token.get() {
            place.slot.token.store(token.get(), Relaxed);
            place.held.store(token.get(), Relaxed);
            if !place.member.has_reserved(token.get()) {
                // The next holder here needs the reserve, and gets the error.
                let _ = place.member.reserve_beyond(token);
            }
        }
    }

    pub(super) fn widen(&self, by: &str) -> Result<(), LockError> {
        let Some(place) = self.held() else { return Ok(()) };
        if Word::from_bits(place.slot.word.load(Relaxed)).is_wide() {
            return Ok(());
        }
        self.directory.home.append_wide(&self.name, by).map_err(|error| self.named(error))?;
        if lock::widen(place.at(), place.owner()).is_ok() && !Marks::of(&place.slot).has_text() {
            // The mark counts; which process made it is a hint for people.
            let _ = place.member.change(|changing| changing.keep_text(place.number, by));
        }
        Ok(())
    }

    /// Has the lock stay taken until then, whatever becomes of its holder.
    pub(super) fn keep_until(&self, end: Option<Time>) {
        let Some(place) = self.held() else { return };
        lock::keep_until(&place.slot, end);
        place.stays.store(end.is_some(), Relaxed);
    }

    /// The last token that was granted.
    pub(super) fn last_token(&self) -> Token {
        let place = self.places.so_far().map(LatestMade::get);
        let last = place.map_or(0, |place| place.slot.token.load(Relaxed));
        Token::new(last).unwrap_or(Token::ZERO)
    }

    /// Releases what was won on the way to host scope, whatever token the slot bears by now.
    #[inline]
    pub(super) fn release(&self, how: Predecessor) {
        let Some(place) = self.places.so_far().map(LatestMade::get) else { return };
        place.leave(how);
    }

    /// Releases the hold with this token. Another thread of this process may have the word by now,
    /// under the same id: then nothing happens.
    pub(super) fn release_token(&self, token: Token, how: Predecessor) {
        let Some(place) = self.places.so_far().map(LatestMade::get) else { return };
        if place.slot.token.load(Relaxed) == token.get() {
            self.release(how);
        }
    }

    pub(super) fn is_wide(&self) -> bool {
        self.place().is_ok_and(|place| Word::from_bits(place.slot.word.load(Acquire)).is_wide())
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        let place = self.place().ok()?;
        let word = Word::from_bits(place.slot.word.load(Relaxed));
        let token = place.slot.token.load(Relaxed);
        if place.slot.generation.load(Acquire) != place.generation {
            return None;
        }
        let holder = place.member.living(word.owner()?)?;
        Some(survey::held(holder, &place.slot, token))
    }

    #[cfg(any(feature = "cli", test))]
    pub(super) fn proof_of_life(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        use std::io;
        let place = self.held().ok_or_else(|| io::Error::other("the lock is not held"))?;
        let mut heirloom = place.heirloom.lock();
        if heirloom.is_none() {
            let presence = place.member.second_presence().map_err(io::Error::other)?;
            let id = presence.id;
            if lock::rename(place.at(), place.member.id, id).is_err() {
                place.member.end_presence(presence, false, |_| ());
                return Err(io::Error::other("the lock is not held"));
            }
            *heirloom = Some(Heirloom { presence, given: false });
        }
        let heirloom = heirloom.as_mut().expect("it was made");
        let proof = heirloom.presence.heirloom()?;
        heirloom.given = true;
        Ok(proof)
    }

    // ---- sharing -------------------------------------------------------------------------------

    /// Has this process's share record, which stays.
    pub(super) fn prepare_to_read(&self) -> Result<(), LockError> {
        let place = self.place()?;
        if place.own.get().is_none() {
            let own = place.member.own_share(place.at(), self.usage);
            // Two at once find the same one.
            let _ = place.own.set(own.map_err(|error| self.named(error))?);
        }
        Ok(())
    }

    /// Comes in as a reader under the word that this process holds, and which its caller releases
    /// then: the token that it reads under. `is_first`: it is the first lock of the name at process
    /// scope in this process.
    pub(super) fn read_under_the_word(
        &self,
        taken: &Taken,
        is_first: bool,
    ) -> Result<Token, LockError> {
        self.prepare_to_read()?;
        let lost = || self.named(LockError::lost(LostReason::Broken));
        let place = self.held().ok_or_else(lost)?;
        let own = place.own.get().expect("it was prepared");
        let me = place.member.id;
        let counted = sharing::read(place.at(), own, me, Way::UnderTheWord);
        counted.ok_or_else(|| self.named(sharing::uncounted()))?;
        // A reader counts no token, but after a death: a stale guard of a process that was judged to
        // be dead must not find its own token again.
        let is_kept = taken.predecessor == Predecessor::Died || is_first;
        let last = taken.token.get().checked_sub(1).and_then(Token::new).filter(|_| !is_kept);
        let token = last.unwrap_or(taken.token);
        place.slot.token.store(token.get(), Relaxed);
        place.held.store(token.get(), Relaxed);
        Ok(token)
    }

    /// The same, for a holder that goes on under its token.
    pub(super) fn share_beside(&self) -> Result<(), LockError> {
        self.prepare_to_read()?;
        let place = self.place()?;
        let own = place.own.get().expect("it was prepared");
        let counted = sharing::read(place.at(), own, place.member.id, Way::UnderTheWord);
        counted.map(drop).ok_or_else(|| self.named(sharing::uncounted()))
    }

    /// A reader leaves, or permits come back.
    #[inline]
    pub(super) fn unshare(&self, share: Share) {
        if let Some(place) = self.places.so_far().map(LatestMade::get) {
            place.unshare(share);
        }
    }

    /// Lets readers in beside the holder, which are told how the last writer left; or no more of
    /// them.
    pub(super) fn set_readable(&self, readable: Option<Predecessor>) -> Result<(), LockError> {
        let lost = || self.named(LockError::lost(LostReason::Broken));
        let place = self.held().ok_or_else(lost)?;
        let mark = readable.map_or(SlotMark::Unreadable, SlotMark::Readable);
        sharing::mark(place.at(), place.owner(), mark).map_err(|LostHold| lost())
    }

    /// Has this process know where it is. What keeps it from that, its next lock is told.
    pub(super) fn look_up(&self) {
        let _ = self.place();
    }

    /// Comes in as a reader past waiters that are no writers. A reader that finds the gate open has its
    /// record then: else it would come again at once, and again, for as long as the gate stays so.
    pub(super) fn read_beside(&self) -> Result<Option<(Token, Predecessor)>, LockError> {
        self.prepare_to_read()?;
        let place = self.place()?;
        match place.own.get() {
            Some(own) if own.is_of(place.member.id) => Ok(place.found().read(true)),
            Some(_) => Err(self.named(sharing::uncounted())),
            None => Ok(None),
        }
    }

    /// Whether readers come in beside its holder, but for waiters, and none of those is a writer.
    pub(super) fn may_read_beside(&self) -> bool {
        let Some(place) = self.places.so_far().map(LatestMade::get) else { return false };
        let word = Word::from_bits(place.slot.word.load(SeqCst));
        word.admits_readers(true)
            && word.is_readable()
            && !place.member.table.has_writer_waiting(place.number)
    }

    /// For the holder: whether there is room, and what to sleep on if not. All looks of one wait are
    /// for the same.
    pub(super) fn drain(
        &self,
        drainer: &mut TableDrainer,
        room: Room,
        waits: bool,
    ) -> Result<Drain, LockError> {
        let place = self.place()?;
        let me = place.member.id;
        if place.slot.generation.head().is_none() {
            return Ok(Drain::Drained);
        }
        let drainer = drainer.0.get_or_insert_with(|| sharing::WriterDrain::new(me, room, waits));
        match drainer.go_on(place.at(), &*place.member) {
            // Readers of this process may be inside and not be counted.
            Ok(Drain::Drained) if place.own().is_some_and(|own| !own.is_of(me)) => {
                Err(self.named(sharing::uncounted()))
            }
            Ok(drain) => Ok(drain),
            Err(Stop::Failed(error)) => Err(self.named(error)),
            Err(stop) => unreachable!("{stop:?} of a holder"),
        }
    }

    /// Blocks until the bell rings, at most so long.
    pub(super) fn sleep_on_bell(
        &self,
        drainer: &mut TableDrainer,
        bell: u32,
        longest: Duration,
    ) -> Result<(), LockError> {
        let place = self.place()?;
        let drainer = drainer.0.as_mut().expect("it asked for this sleep");
        match drainer.sleep(&place.slot, bell, longest) {
            Err(Stop::Failed(error)) => Err(self.named(error)),
            _ => Ok(()),
        }
    }

    /// Until the bell rings, for a task; `None` where tasks have to look by themselves.
    pub(super) fn await_bell(&self, bell: u32) -> Option<impl Future<Output = ()> + use<>> {
        let place = self.places.so_far().map(LatestMade::get)?;
        bells::wake_tasks().then(|| bells::BellWait::new(&place.slot, bell))
    }

    // ---- helpers -------------------------------------------------------------------------------

    /// Where the name stands, as far as this process knows.
    #[inline]
    fn place(&self) -> Result<&NamePlace, LockError> {
        let find = || self.directory.place(&self.name, self.usage).map(LatestMade::new);
        Ok(self.places.try_here(find)?.get())
    }

    /// Where the name stands, if this process holds it.
    fn held(&self) -> Option<&NamePlace> {
        let place = self.places.so_far()?.get();
        let owner = Word::from_bits(place.slot.word.load(Relaxed)).owner();
        let is_held = place.held.load(Relaxed) != NOT_HELD;
        (is_held && owner == Some(place.owner())).then_some(place)
    }

    /// Holding the word.
    #[inline]
    fn enter(&self, place: &NamePlace, admission: SlotWon, above: Token) -> Result<Taken, Stop> {
        step!(TakeEntered);
        let SlotWon { left, token } = admission;
        let quiet = left == Predecessor::Clean
            && above.get() < token
            && place.member.has_reserved(token)
            && !is_to_look(token - 1, token)
            && !Word::from_bits(place.slot.word.load(Relaxed)).is_wide();
        if !quiet {
            return self.enter_slow(place, admission, above);
        }
        place.held.store(token, Relaxed);
        let token = Token::new(token).expect("the reserve has only tokens");
        Ok(Taken { token, predecessor: left, widened_by: None })
    }

    #[cold]
    fn enter_slow(
        &self,
        place: &NamePlace,
        admission: SlotWon,
        above: Token,
    ) -> Result<Taken, Stop> {
        let (slot, SlotWon { left, token }) = (&*place.slot, admission);
        let last = token - 1;
        let wide = Word::from_bits(slot.word.load(Relaxed)).is_wide();
        // Of a wide name the service counts the tokens: the slot is won only to ask it. But a stale
        // guard of a process that was judged to be dead must not find its token again.
        let token = match wide && left != Predecessor::Died && last > 0 {
            true => last,
            false => token.max(above.get() + 1),
        };
        let token = match self.prepare_token(place, last, token) {
            Ok(token) => token,
            Err(error) => {
                // A stale guard of a living process that was judged to be dead must not find its
                // token again; but there is none above the last one of all.
                let unused = match left == Predecessor::Died && admission.token <= Token::MAX.get()
                {
                    true => admission,
                    false => SlotWon { left, token: last },
                };
                slot.token.store(unused.token, Relaxed);
                lock::give_back(place.at(), place.member.id, unused);
                return Err(Stop::Failed(error));
            }
        };
        let predecessor = Marks::of(slot).told(left, last);
        slot.token.store(token.get(), Relaxed);
        place.held.store(token.get(), Relaxed);
        Marks::note_before(slot, token.get(), predecessor, clock::now());
        let widened_by = wide.then(|| place.member.table.widened_by(slot));
        Ok(Taken { token, predecessor, widened_by })
    }

    fn prepare_token(
        &self,
        place: &NamePlace,
        stored: u64,
        token: u64,
    ) -> Result<Token, LockError> {
        if stored > Token::MAX.get() {
            return Err(store::about(
                &self.directory.home,
                damaged(format!("it says that {stored} is a token, which is 2^63 or more")),
            ));
        }
        let token = Token::new(token).ok_or_else(|| {
            LockError::new(
                LockErrorKind::Refused,
                "its tokens are exhausted: all below 2^63 were granted; choose another name",
            )
        })?;
        if is_to_look(stored, token.get()) {
            place.member.look_once_at(token.get() / TOKENS_PER_LOOK)?;
        }
        Member::look_by_time(&place.member)?;
        if !place.member.has_reserved(token.get()) {
            place.member.reserve_beyond(token)?;
        }
        Ok(token)
    }

    /// Makes good what ended an attempt, or fails with it.
    #[cold]
    fn go_on(&self, place: &NamePlace, stop: Stop, begin: Option<Begin>) -> Result<(), LockError> {
        match stop {
            Stop::Moved => {}
            Stop::Unsettled(word) => {
                place.member.settle(place.at(), word).map_err(|e| self.named(e))?;
            }
            Stop::Failed(error) => {
                // What is missing may be missing with the whole directory.
                let error = place.member.check_in_place().err().unwrap_or(error);
                return Err(self.named(error));
            }
            Stop::TimedOut => return Err(self.timed_out(begin)),
        }
        let again = self.directory.place(&self.name, self.usage)?;
        // Another thread may have looked it up meanwhile, too.
        if let Some(places) = self.places.so_far() {
            places.replace(place, again);
        }
        Ok(())
    }

    fn named(&self, error: LockError) -> LockError {
        error.with_name(&self.name).with_scope(Scope::Process)
    }
}

/// A writer that waits for readers of a slot.
#[derive(Default)]
pub(super) struct TableDrainer(Option<sharing::WriterDrain>);

impl TableDrainer {
    /// It looks again, after it waited otherwise than asleep; whether the bell rang.
    pub(super) fn looks_again(&mut self, is_rung: bool) {
        if let Some(drainer) = &mut self.0 {
            drainer.slept(if is_rung { Slept::Woken } else { Slept::ByItself });
        }
    }
}
