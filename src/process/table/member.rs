//! One process among those that use a table: what it has of it, and what it proves to the others.

use std::{
    collections::HashMap,
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
    time::Duration,
};

use crate::{
    alarm, clock,
    error::{Holder, LockError, LockErrorKind, Predecessor},
    fork::{self, Mutex, MutexGuard},
    mode::Usage,
    name::Name,
    time::Time,
    token::Token,
};

use super::super::dir::{
    home::{CreationGate, Home, Replace, damaged, failed},
    record,
    wide::WideNames,
};
use super::{
    ends::{EndHint, EndHints},
    index::{Changing, Found, Retiring},
    layout::REAPED_AT_ONCE,
    lock::{self, Exit, Kept, SlotAt, SlotWon, Stop},
    map::{Access, Cell},
    presence::{PRESENCE, Presence, Presences, file_name},
    protocol::Verdict,
    records::STRUCTURE,
    reserve,
    sharing::Own,
    slot::MappedSlot,
    step::step,
    store::{self, Beginning, MappedTable},
    wide::{self, Wide},
    word::{OwnerId, SlotState, Word},
};

/// How long others may take to change the table's structure; it takes them microseconds.
const LONGEST_CHANGE: Duration = Duration::from_secs(10);
/// After a reserve could not be raised, so many tokens pass before the next attempt.
const NEXT_ATTEMPT: u64 = 1 << 20;
/// Once in so many look-ups of names that there are it is looked around; always before a change.
const FOUND_PER_LOOK: u64 = 64;
/// It is looked so often whether the directory is still the one that was opened.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Every so many joiners one looks for what the dead left behind, for so long.
const JOINERS_PER_SWEEP: u64 = 64;
const LONGEST_SWEEP: Duration = Duration::from_millis(10);

/// This process, as one that uses the table.
pub(super) struct Member {
    pub(super) id: OwnerId,
    /// From which token on the reserve is to be looked at: the private copy of the limit. Zero where
    /// the next lock is to look at the directory, too.
    pub(super) due: AtomicU64,
    /// An alarm is set that makes `due` zero: until then locks may be quiet.
    pub(super) is_timed: AtomicBool,
    /// When the directory is to be looked at again.
    pub(super) look_at: AtomicU64,
    generation: u64,
    /// Counts look-ups of names.
    found: AtomicU64,
    /// For which stretch of tokens it was last looked whether all is in place.
    looked_at: AtomicU64,
    pub(super) home: Arc<Home>,
    pub(super) table: MappedTable,
    presences: Presences,
    /// `None` when it has left.
    presence: Option<Presence>,
    #[cfg(any(feature = "cli", test))]
    label: String,
    /// This process's share records, by the numbers of their slots.
    pub(super) shares: Mutex<HashMap<u32, Arc<Own>>>,
    /// One thread at a time asks for the structural lock, as for any other.
    pub(super) changing: Mutex<()>,
}

/// Whether the name may be used so.
fn check_usage(in_force: Usage, wanted: Usage) -> Result<(), LockError> {
    match in_force == wanted {
        true => Ok(()),
        false => Err(LockError::config(in_force.refusal(wanted))),
    }
}

/// Makes sure that there is a table, and that it is of this boot unless a process of it lives.
pub(super) fn prepare(home: &Home) -> Result<(), LockError> {
    if !is_current(home)? {
        let _alone = home.gate(CreationGate::Alone)?;
        renew(home)?;
    }
    Ok(())
}

/// Whether there is a table of this boot.
fn is_current(home: &Home) -> Result<bool, LockError> {
    let boot = record::boot();
    let table = MappedTable::open(home, Access::Look)?;
    Ok(boot != [0; 2] && table.is_some_and(|table| table.boot() == boot))
}

/// Makes a table where there is none, and a new one in place of one that no living process
/// knows: after a loss of power what stands in it may be old. For a caller alone inside the gate.
fn renew(home: &Home) -> Result<(), LockError> {
    let presences = Presences::open(home)?;
    let alive =
        || presences.is_any_alive().map_err(|e| home.failed("cannot list its presences", e));
    let table = MappedTable::open(home, Access::Look)?;
    let (floor, last_id) = match &table {
        None if alive()? => {
            return Err(home.about(damaged(
                "its table was removed while a process uses it; stop every process that uses the \
                 directory, then start them again",
            )));
        }
        None => (Token::ZERO, 0),
        // Of this boot, or of one that a container calls by another name (LXC, systemd-nspawn).
        Some(_) if is_current(home)? || alive()? => return Ok(()),
        Some(table) => (table.limit().unwrap_or_default(), table.header().last_id.load(Relaxed)),
    };
    let dead = presences.ids().map_err(|e| home.failed("cannot list its presences", e))?;
    let last_id = dead.iter().map(|id| id.get()).fold(last_id, u64::max);
    dead.into_iter().for_each(|id| presences.forget(id));
    let floor = floor.max(reserve::read(home)?);
    let limit = reserve::raise(home, floor)?;
    let wide = all_wide(home, table.as_ref())?;
    let beginning = Beginning { floor, limit, last_id, boot: record::boot() };
    let replace = if table.is_some() { Replace::Yes } else { Replace::No };
    MappedTable::make(home, &beginning, replace, |new| wide::enter(new, &wide))
}

/// The names of host scope that a new table has: those that the old one has, and those that were
/// noted durably and which the old one may have lost with the power.
fn all_wide(home: &Home, old: Option<&MappedTable>) -> Result<Vec<Wide>, LockError> {
    let mut all: HashMap<Name, String> =
        old.map(wide::of).unwrap_or_default().into_iter().collect();
    let noted = WideNames::default().read(home)?;
    for (name, by) in &noted.names {
        all.entry(name.clone()).or_insert_with(|| by.clone());
    }
    Ok(all.into_iter().collect())
}

/// The names of host scope of a directory from before they were noted.
pub(super) fn wide_names(home: &Home) -> Result<Vec<Wide>, LockError> {
    Ok(MappedTable::open(home, Access::Look)?.as_ref().map(wide::of).unwrap_or_default())
}

impl Member {
    pub(super) fn join(home: &Arc<Home>, label: &str) -> Result<Member, LockError> {
        let mut gate = home.gate(CreationGate::Together)?;
        if !is_current(home)? {
            drop(gate);
            gate = home.gate(CreationGate::Alone)?;
            renew(home)?;
        }
        let table = MappedTable::open(home, Access::Full)?.ok_or_else(|| home.vanished())?;
        let presences = Presences::open(home)?;
        let presence = presences.enter(home, &table, label)?;
        drop(gate);
        let member = Member {
            id: presence.id,
            due: AtomicU64::new(0),
            is_timed: AtomicBool::new(false),
            look_at: AtomicU64::new(0),
            generation: fork::generation(),
            found: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            home: home.clone(),
            presence: Some(presence),
            #[cfg(any(feature = "cli", test))]
            label: label.to_owned(),
            table,
            presences,
            shares: Mutex::default(),
            changing: Mutex::default(),
        };
        member.reserve_at_least(member.limit()?)?;
        member.reserve_beyond(Token::ZERO)?;
        let joined = member.table.header().joined.fetch_add(1, Relaxed);
        if joined.is_multiple_of(JOINERS_PER_SWEEP) {
            member.sweep(LONGEST_SWEEP);
        }
        Ok(member)
    }

    /// Whether this is the process that joined, and not a fork of it.
    pub(super) fn is_here(&self) -> bool {
        self.generation == fork::generation()
    }

    /// What this process says about itself.
    pub(super) fn myself(&self) -> Holder {
        self.presence.as_ref().map(Presence::holder).unwrap_or_default()
    }

    /// What the process of this id says about itself, if it lives.
    pub(super) fn living(&self, owner: OwnerId) -> Option<Holder> {
        if owner == self.id {
            return Some(self.myself());
        }
        let may_live = lock::PresenceView::verdict(self, owner, &mut None).may_live();
        may_live.then(|| self.presences.holder(owner).unwrap_or_default())
    }

    /// Why it is unknown whether an owner lives, if it is. It is found out for this owner and now: what
    /// became of other looks is not remembered, of whatever name and owner they were.
    pub(super) fn why_unknown(&self, owner: OwnerId) -> Option<String> {
        if owner == self.id {
            return None;
        }
        let why = self.presences.verdict(owner, &mut None).1?;
        let id = owner.get();
        Some(format!("cannot find out whether process {id} of the directory lives: {why}"))
    }

    /// This process's share record of the slot with this number, if it has one.
    pub(super) fn share_of(&self, slot: u32) -> Option<Arc<Own>> {
        self.shares.lock().get(&slot).cloned()
    }

    /// The same of this slot, which is made if there is none, as long as its name is used so.
    pub(super) fn own_share(&self, at: SlotAt<'_>, usage: Usage) -> Result<Arc<Own>, LockError> {
        if let Some(own) = self.share_of(at.number) {
            return Ok(own);
        }
        let about = |error| store::about(&self.home, error);
        // The structural lock may be waited for, the records here may not: a holder of the name looks
        // at them.
        self.change(|changing| {
            // Another thread may have made it meanwhile.
            if let Some(own) = self.share_of(at.number) {
                return Ok(own);
            }
            // From here on the limit stays what it is: it changes under the structural lock, and not
            // while a living process has a record.
            check_usage(self.table.usage_of(at.slot), usage)?;
            let number = changing.make_share(at.slot, self.id).map_err(about)?;
            let record = self.table.share_cell(number).map_err(about)?;
            let own = Arc::new(Own::new(number, record));
            self.shares.lock().insert(at.number, own.clone());
            Ok(own)
        })
    }

    // ---- names ---------------------------------------------------------------------------------

    /// The slot of a lock of this name.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn find(&self, name: &Name) -> Result<Found, LockError> {
        self.find_for(name, Usage::Lock)
    }

    /// The slot of this name, made if it has none. An error if the name is used for something else.
    pub(super) fn find_for(&self, name: &Name, usage: Usage) -> Result<Found, LockError> {
        let found = self.find_or_enter(name, usage)?;
        let about = |error| store::about(&self.home, error);
        let slot = self.table.slot(found.number).map_err(about)?;
        let in_force = self.table.usage_of(slot);
        // Of a name that was forgotten meanwhile its next lock finds out.
        if in_force == usage || slot.generation.load(Acquire) != found.generation {
            return Ok(found);
        }
        if let (Usage::Permits(_), Usage::Permits(limit)) = (in_force, usage)
            && self.change(|changing| {
                changing.set_limit(slot, found, limit, &|owner| self.may_live(owner)).map_err(about)
            })?
        {
            return Ok(found);
        }
        check_usage(self.table.usage_of(slot), usage)?;
        Ok(found)
    }

    fn may_live(&self, owner: OwnerId) -> bool {
        owner == self.id || lock::PresenceView::verdict(self, owner, &mut None).may_live()
    }

    fn find_or_enter(&self, name: &Name, usage: Usage) -> Result<Found, LockError> {
        if self.found.fetch_add(1, Relaxed).is_multiple_of(FOUND_PER_LOOK) {
            self.look_around()?;
        }
        let about = |error| store::about(&self.home, error);
        if let Some(found) = self.table.find(name, self.table.hash(name)).map_err(about)? {
            return Ok(found);
        }
        self.look_around()?;
        self.change(|changing| changing.find_or_enter(name, usage, self).map_err(about))
    }

    /// Finishes what a process left that died while it was forgetting the name of this slot.
    pub(super) fn settle(&self, at: SlotAt<'_>, judged: Word) -> Result<(), LockError> {
        self.change(|_| {
            lock::settle(at, judged);
            Ok(())
        })
    }

    /// Acts with the structural lock.
    pub(super) fn change<T>(
        &self,
        act: impl FnOnce(&Changing<'_>) -> Result<T, LockError>,
    ) -> Result<T, LockError> {
        let change = Change::begin(self)?;
        let changing = Changing { table: &self.table };
        if change.unfinished {
            let recovered = changing.recover(self);
            recovered.map_err(|error| store::about(&self.home, error))?;
        }
        act(&changing)
    }

    // ---- tokens --------------------------------------------------------------------------------

    /// Whether this token may be granted without a look at the reserve.
    #[inline]
    pub(super) fn has_reserved(&self, token: u64) -> bool {
        token < self.due.load(Relaxed)
    }

    /// The same, with a look at the reserve as the table says it by now: memory, and no more.
    pub(super) fn knows_reserved(&self, token: u64) -> bool {
        self.has_reserved(token) || self.limit().is_ok_and(|limit| self.sees_reserved(token, limit))
    }

    fn sees_reserved(&self, token: u64, limit: Token) -> bool {
        let due = reserve::due(limit);
        let is_below = token < due;
        if is_below {
            self.set_due(due);
        }
        is_below
    }

    /// Makes sure that the reserve lies beyond this token, and raises it in time.
    #[cold]
    pub(super) fn reserve_beyond(&self, token: Token) -> Result<(), LockError> {
        let limit = self.limit()?;
        if self.sees_reserved(token.get(), limit) {
            return Ok(());
        }
        match self.raise_reserve(token) {
            Ok(()) => Ok(()),
            // In time, that is: there will be other attempts.
            Err(_) if token <= limit => {
                let next = token.get().saturating_add(NEXT_ATTEMPT).min(limit.get() + 1);
                self.set_due(next);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn limit(&self) -> Result<Token, LockError> {
        self.table.limit().map_err(|error| store::about(&self.home, error))
    }

    fn raise_reserve(&self, token: Token) -> Result<(), LockError> {
        self.change(|_| {
            // Another process or thread may have done it by now.
            let mut limit = self.limit()?;
            if token.get() >= reserve::due(limit) {
                step!(ReserveDue);
                limit = reserve::raise(&self.home, token.max(limit))?;
                step!(ReserveWritten);
                self.table.header().limit.store(limit.get(), Release);
                step!(ReserveKnown);
            }
            self.set_due(reserve::due(limit));
            Ok(())
        })
    }

    /// Writes the reserve down again if the file that says it was deleted or is an old one.
    fn reserve_at_least(&self, limit: Token) -> Result<(), LockError> {
        if reserve::read(&self.home)? >= limit {
            return Ok(());
        }
        self.change(|_| {
            let limit = reserve::raise(&self.home, self.limit()?)?;
            self.table.header().limit.store(limit.get(), Release);
            Ok(())
        })
    }

    // ---- what may have happened to the directory -----------------------------------------------

    /// That all is where it was, and that others see this process there.
    fn look_around(&self) -> Result<(), LockError> {
        self.check_in_place()?;
        let presence = self.presence.as_ref().expect("it has not left");
        self.presences.keep_up(&self.home, presence)
    }

    /// [`check_in_place`](Member::check_in_place), once for all names with tokens that come into
    /// this stretch one after the other. Names that are made in turn do so at every lock: each
    /// begins above the tokens of those forgotten before it.
    pub(super) fn look_once_at(&self, stretch: u64) -> Result<(), LockError> {
        if self.looked_at.load(Relaxed) == stretch {
            return Ok(());
        }
        self.check_in_place()?;
        self.looked_at.store(stretch, Relaxed);
        Ok(())
    }

    /// The same by time, for a lock that is not quiet: one that is taken once a minute would notice
    /// by its tokens after weeks. After each look an alarm has the next lock look again; while a
    /// process does not lock, none is set.
    pub(super) fn look_by_time(member: &Arc<Member>) -> Result<(), LockError> {
        let now = clock::now();
        if now.as_nanos() >= member.look_at.load(Relaxed) {
            member.check_in_place()?;
            member.look_at.store((now + LOOK_EVERY).as_nanos(), Relaxed);
        }
        if member.is_timed.load(SeqCst) {
            return Ok(());
        }
        // Where no thread can be had, each lock looks at the clock.
        if alarm::ready().is_ok() && !member.is_timed.swap(true, SeqCst) {
            let later = Arc::downgrade(member);
            let look = move || {
                if let Some(member) = later.upgrade() {
                    member.is_timed.store(false, SeqCst);
                    member.due.store(0, SeqCst);
                }
            };
            alarm::call_at(now + LOOK_EVERY, look).detach();
        }
        Ok(())
    }

    /// While no alarm is set, the next lock is to look.
    fn set_due(&self, due: u64) {
        self.due.store(due, SeqCst);
        if !self.is_timed.load(SeqCst) {
            self.due.store(0, SeqCst);
        }
    }

    /// Checks that a process that opens the directory now comes to this table.
    #[cold]
    pub(super) fn check_in_place(&self) -> Result<(), LockError> {
        self.home.check()?;
        if self.table.is_in_place(&self.home)? {
            return Ok(());
        }
        Err(self.home.about(damaged(
            "its table was removed or replaced by another while this process used it: a process \
             that opens the directory now does not exclude this one; restart every process that \
             uses it",
        )))
    }

    // ---- proof of life -------------------------------------------------------------------------

    /// A presence beside this process's own, for a lock that others are to inherit.
    #[cfg(any(feature = "cli", test))]
    pub(super) fn second_presence(&self) -> Result<Presence, LockError> {
        self.presences.enter(&self.home, &self.table, &self.label)
    }

    /// Ends a presence, after `release` of what is owned under its id: no process may find an owner
    /// without a presence. `left_to_others`: not if other processes have a descriptor of it, which
    /// live on under its id.
    pub(super) fn end_presence(
        &self,
        presence: Presence,
        left_to_others: bool,
        release: impl FnOnce(OwnerId),
    ) {
        let id = presence.id;
        if !left_to_others {
            release(id);
            return self.presences.leave(presence);
        }
        drop(presence);
        if self.presences.verdict(id, &mut None).0 == Verdict::Dead {
            release(id);
            self.presences.forget(id);
        }
    }

    // ---- what the dead left --------------------------------------------------------------------

    /// Frees words and wait records of the dead, and removes presences that no word and no record
    /// names. What does not fit into the time stays for the next sweep, which goes on there; a
    /// process that wants a dead owner's lock does not wait for this.
    pub(super) fn sweep(&self, longest: Duration) {
        self.home.sweep_aside(&self.home.fd);
        self.presences.sweep_aside(&self.home);
        let until = clock::now() + longest;
        // One round at a time: what it has been through must be known when presences go.
        let _ = self.change(|_| {
            self.reap_some(until);
            Ok(())
        });
    }

    /// A part of a round, under the structural lock: every word is looked at between the proof
    /// that these processes are dead and the end of their presences.
    fn reap_some(&self, until: Time) {
        let header = self.table.header();
        if header.reap_at.load(Relaxed) == 0 {
            self.begin_round(until);
        }
        let ids = header.reaping.iter().filter_map(|id| OwnerId::new(id.load(Relaxed)));
        let mut dead: Vec<OwnerId> = ids.filter(|id| self.is_dead(*id)).collect();
        dead.sort_unstable();
        if !dead.is_empty() && self.check_in_place().is_err() {
            return;
        }
        step!(SweepProved);
        self.table.erase_dead(&dead);
        self.table.strike_dead(&dead);
        let (first, used) =
            (header.reap_at.load(Relaxed).saturating_sub(1), header.slots_used.load(Relaxed));
        for number in first..used {
            if number > first && number % 1024 == 0 && clock::now() >= until {
                header.reap_at.store(number + 1, Relaxed);
                return;
            }
            let Ok(slot) = self.table.slot(number) else { return };
            let at = SlotAt { slot, number, table: &self.table, kept: None };
            self.free_from(at, &mut dead);
        }
        step!(SweepFreed);
        for id in dead {
            self.presences.forget(id);
            step!(SweepForgotten);
        }
        header.reap_at.store(0, Relaxed);
    }

    /// Which of the dead the next round is about.
    pub(super) fn begin_round(&self, until: Time) {
        let header = self.table.header();
        let ids = self.presences.ids().unwrap_or_default();
        let dead = ids.into_iter().filter(|id| clock::now() < until && self.is_dead(*id));
        let dead: Vec<u64> = dead.map(OwnerId::get).take(REAPED_AT_ONCE).collect();
        let padded = dead.into_iter().chain(std::iter::repeat(0));
        header.reaping.iter().zip(padded).for_each(|(place, id)| place.store(id, Relaxed));
        header.reap_at.store(1, Relaxed);
    }

    fn is_dead(&self, id: OwnerId) -> bool {
        self.presences.verdict(id, &mut None).0 == Verdict::Dead
    }

    /// Keeps the presence of an owner that stays in its word.
    fn free_from(&self, at: SlotAt<'_>, dead: &mut Vec<OwnerId>) {
        let owner = Word::from_bits(at.slot.word.load(Relaxed)).owner();
        let Some(dead_one) = owner else { return };
        let Ok(found) = dead.binary_search(&dead_one) else { return };
        let freed = match lock::reap(at, self) {
            Ok(freed) => freed,
            Err(Stop::Unsettled(word)) => {
                lock::settle(at, word);
                true
            }
            Err(_) => false,
        };
        if !freed {
            dead.remove(found);
            let header = self.table.header();
            let its = |place: &&AtomicU64| place.load(Relaxed) == dead_one.get();
            header.reaping.iter().filter(its).for_each(|place| place.store(0, Relaxed));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Nothing is held: what was held kept this value.
        if let Some(presence) = self.presence.take().filter(|_| self.is_here()) {
            for own in self.shares.lock().values() {
                own.leave(self.id);
            }
            self.end_presence(presence, false, |_| ());
        }
    }
}

impl lock::PresenceView for Member {
    fn verdict(&self, owner: OwnerId, kept: &mut Kept) -> Verdict {
        if owner == self.id {
            return Verdict::Alive;
        }
        #[cfg(test)]
        if super::kills::is_lied_to() {
            return Verdict::Dead;
        }
        self.presences.verdict(owner, kept).0
    }

    fn check_mapped(&self) -> Result<(), LockError> {
        self.check_in_place()
    }

    fn check_may_look(&self, owner: OwnerId) -> Result<(), LockError> {
        match self.presences.verdict(owner, &mut None).1 {
            Some(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                let what = "cannot find out whether the holder lives";
                let file = format!("{PRESENCE}/{}", file_name(owner));
                Err(self.home.about_file(&file, failed(what, why)))
            }
            _ => Ok(()),
        }
    }

    fn make_room(&self) {
        // A thread that changes the structure may itself be waiting for that, here.
        let Some(_alone) = self.changing.try_lock() else { return };
        let at = structure(&self.table);
        let Ok(Some(admission)) = lock::try_take(at, self.id, 0, self) else { return };
        if admission.left != Predecessor::Clean {
            // To be finished first, which is left to the next change.
            return lock::give_back(at, self.id, admission);
        }
        // Without room the wait goes on without a place.
        let _ = self.table.grow_records();
        lock::give_back(at, self.id, admission);
    }

    fn hint_at_end(
        &self,
        owner: OwnerId,
        slot: &Cell<MappedSlot>,
        bits: NonZeroU32,
    ) -> Option<EndHint> {
        let pid = self.presences.holder(owner)?.pid?;
        EndHints::request(self.home.key, owner, pid, slot, bits)
    }
}

impl Retiring for Member {
    fn retire(&self, slot: &MappedSlot) -> bool {
        lock::retire(slot, self.id)
    }

    fn give_back(&self, slot: &MappedSlot) {
        // If another has it, then by a wrong verdict, and the name is forgotten anyway.
        let _ = lock::retired(unqueued(&self.table, slot), self.id);
    }

    fn finish(&self, slot: &MappedSlot) {
        let word = Word::from_bits(slot.word.load(SeqCst));
        if matches!(word.state(), Some(SlotState::Retiring(_))) {
            lock::settle(unqueued(&self.table, slot), word);
        }
    }
}

/// The structural lock's word.
fn structure(table: &MappedTable) -> SlotAt<'_> {
    SlotAt { slot: &table.header().structure, number: STRUCTURE, table, kept: None }
}

/// A slot without its wait records, which are not looked for.
fn unqueued<'a>(table: &'a MappedTable, slot: &'a MappedSlot) -> SlotAt<'a> {
    SlotAt { slot, number: STRUCTURE, table, kept: None }
}

/// The structural lock.
struct Change<'a> {
    member: &'a Member,
    admission: SlotWon,
    /// The change before did not come to its end.
    unfinished: bool,
    _alone: MutexGuard<'a, ()>,
}

impl<'a> Change<'a> {
    fn begin(member: &'a Member) -> Result<Change<'a>, LockError> {
        let alone = member.changing.lock();
        let structure = structure(&member.table);
        let until = clock::now() + LONGEST_CHANGE;
        let about = |error| store::about(&member.home, error);
        let taken = lock::take(structure, member.id, 0, member, until);
        let admission = taken.map_err(|stop| match stop {
            Stop::TimedOut => {
                let process = Word::from_bits(structure.slot.word.load(Relaxed)).owner();
                let process = process.and_then(|owner| member.living(owner)).unwrap_or_default();
                about(
                    LockError::new(
                        LockErrorKind::TimedOut,
                        format!(
                            "{process} has been changing it for {LONGEST_CHANGE:?}; it is probably \
                         stopped: let it go on (kill -CONT), or end it"
                        ),
                    )
                    // Of the table's structure, and of no lock.
                    .without_holder(true),
                )
            }
            Stop::Failed(error) => about(error),
            Stop::Moved | Stop::Unsettled(_) => about(damaged("its structural lock is none")),
        })?;
        let unfinished = admission.left != Predecessor::Clean;
        Ok(Change { member, admission, unfinished, _alone: alone })
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let header = self.member.table.header();
        let how = match header.intent[0].load(Relaxed) {
            0 => Predecessor::Clean,
            // An error or a panic on the way: as if this process had died there.
            _ => Predecessor::Died,
        };
        let at = structure(&self.member.table);
        let _ = lock::release(at, self.member.id, Exit::new(self.admission.token, how));
    }
}
