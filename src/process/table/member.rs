//! One process among those that use a table: what it has of it, and what it proves to the others.

use std::{
    collections::HashMap,
    io,
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
    name::Name,
    time::Time,
    token::Token,
};

use super::{
    super::{
        home::{Gate, Home, Replace, damaged, failed},
        record,
        wide::WideNames,
    },
    index::{Changing, Found, Retiring},
    layout::DEAD_AT_ONCE,
    lock::{self, Kept, Stop},
    map::Access,
    presence::{PRESENCE, Presence, Presences, file_name},
    protocol::Verdict,
    reserve,
    slot::Slot,
    step::step,
    store::{self, Beginning, Table},
    wide::{self, Wide},
    word::{OwnerId, State, Word},
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
/// So many slots are looked at between two looks at the clock.
const SLOTS_PER_LOOK: u32 = 1024;
/// Rounds begin so many presences apart.
const IDS_PER_ROUND: u64 = 1021;

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
    pub(super) table: Table,
    presences: Presences,
    /// `None` when it has left.
    presence: Option<Presence>,
    label: String,
    /// One thread at a time asks for the structural lock, as for any other.
    changing: Mutex<()>,
    /// Why it could not be found out the last time whether somebody lives.
    trouble: Mutex<Option<String>>,
}

/// Makes sure that there is a table, and that it is of this boot unless somebody still lives.
pub(super) fn prepare(home: &Home) -> Result<(), LockError> {
    if !is_current(home)? {
        let _alone = home.gate(Gate::Alone)?;
        renew(home)?;
    }
    Ok(())
}

/// Whether there is a table of this boot.
fn is_current(home: &Home) -> Result<bool, LockError> {
    let boot = record::boot();
    let table = Table::open(home, Access::Look)?;
    Ok(boot != [0; 2] && table.is_some_and(|table| table.boot() == boot))
}

/// Makes a table where there is none, and a new one in place of one that nobody alive knows:
/// after a loss of power what stands in it may be old. For whoever passed the gate alone.
fn renew(home: &Home) -> Result<(), LockError> {
    let presences = Presences::open(home)?;
    let alive =
        || presences.is_anybody_alive().map_err(|e| home.failed("cannot list its presences", e));
    let table = Table::open(home, Access::Look)?;
    let (floor, last_id) = match &table {
        None if alive()? => {
            return Err(home.about(damaged(
                "its table was removed while somebody uses it; stop every process that uses the \
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
    let beginning = Beginning { floor, limit, last_id, boot: record::boot(), wide };
    Table::make(home, &beginning, if table.is_some() { Replace::Yes } else { Replace::No })
}

/// The names of host scope that a new table has: those that the old one has, and those that were
/// noted durably and which the old one may have lost with the power.
fn all_wide(home: &Home, old: Option<&Table>) -> Result<Vec<Wide>, LockError> {
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
    Ok(Table::open(home, Access::Look)?.as_ref().map(wide::of).unwrap_or_default())
}

impl Member {
    pub(super) fn join(home: &Arc<Home>, label: &str) -> Result<Member, LockError> {
        let mut gate = home.gate(Gate::Together)?;
        if !is_current(home)? {
            drop(gate);
            gate = home.gate(Gate::Alone)?;
            renew(home)?;
        }
        let table = Table::open(home, Access::Full)?.ok_or_else(|| home.vanished())?;
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
            label: label.to_owned(),
            table,
            presences,
            changing: Mutex::default(),
            trouble: Mutex::default(),
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
        match lock::Presences::verdict(self, owner, &mut None) {
            Verdict::Dead | Verdict::Missing => None,
            Verdict::Alive | Verdict::Unknown => {
                Some(self.presences.holder(owner).unwrap_or_default())
            }
        }
    }

    /// Why it is unknown whether somebody lives, if it is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    // ---- names ---------------------------------------------------------------------------------

    /// The slot of this name, made if it has none.
    pub(super) fn find(&self, name: &Name) -> Result<Found, LockError> {
        if self.found.fetch_add(1, Relaxed).is_multiple_of(FOUND_PER_LOOK) {
            self.look_around()?;
        }
        let about = |error| store::about(&self.home, error);
        if let Some(found) = self.table.find(name, self.table.hash(name)).map_err(about)? {
            return Ok(found);
        }
        self.look_around()?;
        self.change(|changing| changing.find_or_enter(name, self).map_err(about))
    }

    /// Finishes what a process left that died while it was forgetting the name of this slot.
    pub(super) fn settle(&self, slot: &Slot, judged: Word) -> Result<(), LockError> {
        self.change(|_| {
            lock::settle(slot, judged);
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

    /// Makes sure that the reserve lies beyond this token, and raises it in time.
    #[cold]
    pub(super) fn reserve_beyond(&self, token: Token) -> Result<(), LockError> {
        let limit = self.limit()?;
        let due = reserve::due(limit);
        if token.get() < due {
            self.set_due(due);
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
            // Somebody else may have done it by now.
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

    /// [`check_in_place`](Member::check_in_place), once for all names whose tokens come into this
    /// stretch one after the other. Names that are made in turn do so at every lock: each begins
    /// above the tokens of those forgotten before it.
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

    /// That whoever opens the directory now comes to this table.
    #[cold]
    pub(super) fn check_in_place(&self) -> Result<(), LockError> {
        self.home.check()?;
        if self.table.is_in_place(&self.home)? {
            return Ok(());
        }
        Err(self.home.about(damaged(
            "its table was removed or replaced by another while this process used it: whoever \
             opens the directory now does not exclude us; restart every process that uses it",
        )))
    }

    // ---- proof of life -------------------------------------------------------------------------

    /// A presence beside this process's own, for a lock that others are to inherit.
    pub(super) fn second_presence(&self) -> Result<Presence, LockError> {
        self.presences.enter(&self.home, &self.table, &self.label)
    }

    /// Ends a presence, after `let_go` of what is owned under its id: nobody may find an owner
    /// without a presence. `left_to_others`: not if others have a descriptor of it, who live on
    /// under its id.
    pub(super) fn end_presence(
        &self,
        presence: Presence,
        left_to_others: bool,
        let_go: impl FnOnce(OwnerId),
    ) {
        let id = presence.id;
        if !left_to_others {
            let_go(id);
            return self.presences.leave(presence);
        }
        drop(presence);
        if self.presences.verdict(id, &mut None).0 == Verdict::Dead {
            let_go(id);
            self.presences.forget(id);
        }
    }

    // ---- what the dead left --------------------------------------------------------------------

    /// Frees words of the dead, and removes presences that no word names. It goes on where the last
    /// sweep stopped, which may have been another process's: beside a million names a round takes
    /// several. A dead owner's lock does not wait for it.
    pub(super) fn sweep(&self, longest: Duration) {
        let until = clock::now() + longest;
        self.home.sweep_aside(&self.home.fd);
        self.presences.sweep_aside(&self.home);
        let Ok(Some(_alone)) = self.presences.sweep_alone() else { return };
        let header = self.table.header();
        if header.dead.iter().all(|id| id.load(Relaxed) == 0) && !self.begin_round(until) {
            return;
        }
        if self.check_in_place().is_err() {
            return;
        }
        step!(SweepProved);
        let mut at = header.dead_at.load(Relaxed);
        let mut dead: Vec<OwnerId> =
            header.dead.iter().filter_map(|id| OwnerId::new(id.load(Relaxed))).collect();
        // An id of a round that is not a dead one's was written by no sweep.
        dead.retain(|id| self.presences.verdict(*id, &mut None).0 == Verdict::Dead);
        dead.sort_unstable();
        while at < header.slots_used.load(Relaxed) {
            let Ok(slot) = self.table.slot(at) else { return };
            let before = dead.len();
            self.free_from(slot, &mut dead);
            if dead.len() < before {
                self.store_dead(&dead);
            }
            at += 1;
            if at.is_multiple_of(SLOTS_PER_LOOK) {
                header.dead_at.store(at, Relaxed);
                if clock::now() >= until {
                    return;
                }
            }
        }
        self.free_from(&header.structure, &mut dead);
        step!(SweepFreed);
        for id in dead {
            self.presences.forget(id);
            step!(SweepForgotten);
        }
        self.store_dead(&[]);
    }

    /// Notes some of the dead. From the first slot to the last, each word of theirs is freed by the
    /// time that their presences go: the dead take no more words.
    pub(super) fn begin_round(&self, until: Time) -> bool {
        let Ok(mut ids) = self.presences.ids() else { return false };
        // Others begin elsewhere, so that many living ones before a dead one do not hide it.
        ids.sort_unstable();
        let rounds = self.table.header().joined.load(Relaxed) / JOINERS_PER_SWEEP;
        let first = rounds.wrapping_mul(IDS_PER_ROUND) % (ids.len().max(1) as u64);
        ids.rotate_left(first as usize);
        let is_dead = |id: &OwnerId| self.presences.verdict(*id, &mut None).0 == Verdict::Dead;
        let dead: Vec<OwnerId> = ids
            .into_iter()
            .take_while(|_| clock::now() < until)
            .filter(is_dead)
            .take(DEAD_AT_ONCE)
            .collect();
        self.table.header().dead_at.store(0, Relaxed);
        self.store_dead(&dead);
        !dead.is_empty()
    }

    fn store_dead(&self, dead: &[OwnerId]) {
        let ids = dead.iter().map(|id| id.get()).chain(std::iter::repeat(0));
        self.table.header().dead.iter().zip(ids).for_each(|(place, id)| place.store(id, Relaxed));
    }

    /// Keeps the presence of an owner whose word stays its own.
    fn free_from(&self, slot: &Slot, dead: &mut Vec<OwnerId>) {
        let owner = || Word::from_bits(slot.word.load(Relaxed)).owner();
        let Some(dead_one) = owner() else { return };
        let Ok(at) = dead.binary_search(&dead_one) else { return };
        let freed = match lock::bury(slot, self) {
            Ok(freed) => freed,
            Err(Stop::Unsettled(word)) => self.settle(slot, word).is_ok(),
            Err(_) => false,
        };
        if !freed {
            dead.remove(at);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Nothing is held: what was held kept this value.
        if let Some(presence) = self.presence.take().filter(|_| self.is_here()) {
            self.end_presence(presence, false, |_| ());
        }
    }
}

impl lock::Presences for Member {
    fn verdict(&self, owner: OwnerId, kept: &mut Kept) -> Verdict {
        if owner == self.id {
            return Verdict::Alive;
        }
        #[cfg(test)]
        if super::kills::is_lied_to() {
            return Verdict::Dead;
        }
        let (verdict, why) = self.presences.verdict(owner, kept);
        if let Some(why) = why {
            let id = owner.get();
            *self.trouble.lock() =
                Some(format!("cannot find out whether process {id} of the directory lives: {why}"));
        }
        verdict
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
}

impl Retiring for Member {
    fn retire(&self, slot: &Slot) -> bool {
        lock::retire(slot, self.id)
    }

    fn give_back(&self, slot: &Slot) {
        // If somebody else has it, then by a wrong verdict, and the name is forgotten anyway.
        let _ = lock::retired(slot, self.id);
    }

    fn finish(&self, slot: &Slot) {
        let word = Word::from_bits(slot.word.load(SeqCst));
        if matches!(word.state(), Some(State::Retiring(_))) {
            lock::settle(slot, word);
        }
    }
}

/// The structural lock.
struct Change<'a> {
    member: &'a Member,
    /// Whoever had it before did not come to its end.
    unfinished: bool,
    _alone: MutexGuard<'a, ()>,
}

impl<'a> Change<'a> {
    fn begin(member: &'a Member) -> Result<Change<'a>, LockError> {
        let alone = member.changing.lock();
        let structure = &member.table.header().structure;
        let until = clock::now() + LONGEST_CHANGE;
        let about = |error| store::about(&member.home, error);
        let left = lock::take(structure, member.id, 0, member, until).map_err(|stop| match stop {
            Stop::TimedOut => {
                let who = Word::from_bits(structure.word.load(Relaxed)).owner();
                let who = who.and_then(|owner| member.living(owner)).unwrap_or_default();
                about(LockError::new(
                    LockErrorKind::TimedOut,
                    format!(
                        "{who} has been changing it for {LONGEST_CHANGE:?}; it must be stopped: \
                         let it go on, or end it"
                    ),
                ))
            }
            Stop::Failed(error) => about(error),
            Stop::Moved | Stop::Unsettled(_) => about(damaged("its structural lock is none")),
        })?;
        Ok(Change { member, unfinished: left != Predecessor::Clean, _alone: alone })
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
        let _ = lock::release(&header.structure, self.member.id, how);
    }
}
