//! The ground that names stand on: what all locks of one name in this process share, and how far
//! a manager reaches from it.

mod cell;
mod reach;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::*},
    },
};

#[cfg(not(feature = "process"))]
pub(crate) use self::{
    NoSlotPlace as SlotPlace, NoSlotShortcut as SlotShortcut, NoWordWon as WordWon,
};
pub(crate) use self::{cell::GuardCell, reach::Reach};
#[cfg(feature = "process")]
use crate::process::{Directory, DirectoryKey, Slot};
#[cfg(feature = "process")]
pub(crate) use crate::process::{SlotPlace, SlotShortcut, WordWon};
use crate::{
    error::{LockError, Predecessor, Result},
    fork::{self, FirstMade, Mutex, PerFork},
    host::{lease_word::LeaseWord, service::LeaseService},
    mode::Usage,
    name::Name,
    scope::Scope,
    thread::{InForce, ThreadLock, ThreadShares},
    token::Token,
};

use super::stage::ElectionStage;

/// The names of one directory, or of one manager without a directory, in this process.
///
/// Managers of one directory share it, so that one process is one competitor there, however many
/// managers it opens.
pub(crate) struct Ground {
    pub(crate) below_host: BelowHost,
    names: PerFork<Mutex<NamesHere>>,
    /// The highest token of forgotten names: a name seen anew starts above it, in a child too.
    floor: AtomicU64,
    widened: FirstMade<WidenedName>,
}

/// What stands between the thread tier and the lease.
pub(crate) enum BelowHost {
    /// Nothing: process scope is out of reach.
    Nothing,
    #[cfg(feature = "process")]
    Directory(Directory),
    /// A process of its own, pretended in memory: the thread tier is enough.
    #[cfg(feature = "testing")]
    Memory,
}

#[derive(Default)]
struct NamesHere {
    entries: HashMap<Name, Weak<NameEntry>>,
    /// How forgotten names were left, where that was not `Clean`.
    unclean: HashMap<Name, Predecessor>,
}

/// A name that this process widened, or the one that it was forked from, which holds for good. They
/// are few: one for each `escalate`.
struct WidenedName {
    name: Name,
    to: AtomicU8,
    next: FirstMade<WidenedName>,
}

/// How many names left uncleanly are remembered when no mutex uses them any more.
const UNCLEAN_MAX: usize = 65_536;

/// One name in this process: its thread tier, and its slot in the directory.
pub(crate) struct NameEntry {
    pub(crate) name: Name,
    thread: ThreadLock,
    /// The process that it was made in. A thread of that one may have held it at a fork, and will
    /// never let it go in the child: there the name's entry is another.
    generation: u64,
    in_children: PerFork<Arc<NameEntry>>,
    /// The scope in force: the widest at which this process has locked it, or begins to.
    in_force: InForce,
    /// Where the climb is on its way to that has the thread lock, while that is wider than the scope in
    /// force. A hint, for those that give up behind it.
    climbs_to: AtomicU8,
    /// Whether anything here may lock it at thread scope.
    is_narrow: Mutex<bool>,
    /// What it is used for, in words of [`Usage`]; see [`NameEntry::claim`].
    usage: AtomicU32,
    /// Whether a guard is inside.
    pub(crate) cell: GuardCell,
    /// Its readers in this process, where the thread lock is the gate.
    shares: ThreadShares,
    #[cfg(feature = "process")]
    slot: FirstMade<Arc<Slot>>,
    /// Where the leader of its election stands, if there is an election.
    stage: FirstMade<ElectionStage>,
    /// The name's lease words, one for each manager that has built a mutex of it.
    words: Mutex<Vec<WordOf>>,
    /// The highest token of leases in words of their own that have gone back.
    own_token: AtomicU64,
    /// The words of guards that stand apart, whose tokens may grow. One whose guard was forgotten stays.
    apart: Mutex<Vec<Weak<LeaseWord>>>,
    ground: Arc<Ground>,
}

/// A service, and the word of the name's leases of it.
type WordOf = (Weak<dyn LeaseService>, Arc<LeaseWord>);

/// There are no slots where there is no process scope.
#[cfg(not(feature = "process"))]
#[derive(Clone, Copy)]
pub(crate) struct NoSlotPlace<'a>(&'a std::convert::Infallible);

/// What else may be inside where a quiet word was won.
#[cfg(not(feature = "process"))]
#[allow(dead_code, reason = "there is no word")]
pub(crate) enum NoWordWon {
    Alone,
    Beside,
}

/// A way that leads nowhere.
#[cfg(not(feature = "process"))]
pub(crate) struct NoSlotShortcut;

#[cfg(not(feature = "process"))]
impl NoSlotShortcut {
    pub(crate) const fn new() -> NoSlotShortcut {
        NoSlotShortcut
    }

    pub(crate) fn here(&self) -> Option<NoSlotPlace<'_>> {
        None
    }
}

#[cfg(not(feature = "process"))]
impl NoSlotPlace<'_> {
    pub(crate) fn take_word(self) -> Option<NoWordWon> {
        match *self.0 {}
    }

    pub(crate) fn is_alone(self) -> bool {
        match *self.0 {}
    }

    pub(crate) fn count(self) -> Option<Token> {
        match *self.0 {}
    }

    pub(crate) fn leave_uncounted(self) {
        match *self.0 {}
    }

    pub(crate) fn is(self, _: NoSlotPlace<'_>) -> bool {
        match *self.0 {}
    }

    pub(crate) fn generation(self) -> u64 {
        match *self.0 {}
    }

    pub(crate) fn take(self) -> Option<Token> {
        match *self.0 {}
    }

    pub(crate) fn release(self, _: Token) {
        match *self.0 {}
    }

    pub(crate) fn read(self) -> Option<(Token, Predecessor)> {
        match *self.0 {}
    }

    pub(crate) fn unread(self) {
        match *self.0 {}
    }
}

/// The grounds of this process. A child has a list of its own: a thread of its parent may have held
/// this one's lock at the fork, and is not there to release it.
#[cfg(feature = "process")]
static GROUNDS: PerFork<Mutex<Grounds>> = PerFork::unset();

#[cfg(feature = "process")]
type Grounds = Vec<(DirectoryKey, Weak<Ground>)>;

impl Ground {
    pub(crate) fn new(below_host: BelowHost) -> Arc<Ground> {
        // Before there is anything that a child must not inherit.
        let _ = fork::watch();
        Arc::new(Ground {
            below_host,
            names: PerFork::unset(),
            floor: AtomicU64::new(0),
            widened: FirstMade::new(),
        })
    }

    /// The one ground of this directory in this process.
    #[cfg(feature = "process")]
    pub(crate) fn of(directory: Directory) -> Arc<Ground> {
        let key = directory.key();
        let mut grounds = GROUNDS.here(Mutex::default).lock();
        grounds.retain(|(_, ground)| ground.strong_count() > 0);
        let known = grounds.iter().find(|(known, _)| *known == key);
        if let Some(ground) = known.and_then(|(_, ground)| ground.upgrade()) {
            return ground;
        }
        let ground = Ground::new(BelowHost::Directory(directory));
        grounds.push((key, Arc::downgrade(&ground)));
        ground
    }

    #[cfg(feature = "process")]
    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.below_host {
            BelowHost::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Has every thread that waits here for its turn look around. They look by themselves, too, so
    /// a lock that is taken just now, or was at a fork, is not waited for.
    fn wake_all(&self) {
        let Some(names) = self.names().try_lock() else { return };
        let entries: Vec<_> = names.entries.values().filter_map(Weak::upgrade).collect();
        // An entry that ends here looks for its name.
        drop(names);
        entries.iter().for_each(|entry| entry.thread().wake_all());
    }

    fn reaches_processes(&self) -> bool {
        !matches!(self.below_host, BelowHost::Nothing)
    }

    /// The entry of a name, made if no mutex of this process uses the name just now.
    pub(crate) fn entry(self: &Arc<Self>, name: &Name) -> Arc<NameEntry> {
        let mut names = loop {
            let names = self.names().lock();
            match names.entries.get(name).map(Weak::upgrade) {
                Some(Some(entry)) => return entry,
                None => break names,
                // Another thread is dropping it, and has yet to note its tokens and how it was
                // left: a name made anew now would begin below them.
                Some(None) => drop(names),
            }
            std::thread::yield_now();
        };
        let thread = ThreadLock::new();
        let left = names.unclean.remove(name).unwrap_or_default();
        let floor = self.floor();
        if floor > Token::ZERO || left != Predecessor::Clean {
            raise(&thread, floor, left);
        }
        let entry = Arc::new(NameEntry {
            name: name.clone(),
            thread,
            generation: fork::generation(),
            in_children: PerFork::unset(),
            in_force: InForce::new(self.widened(name)),
            climbs_to: AtomicU8::new(Scope::Thread as u8),
            is_narrow: Mutex::new(false),
            usage: AtomicU32::new(UNUSED),
            cell: GuardCell::new(),
            shares: ThreadShares::new(),
            #[cfg(feature = "process")]
            slot: FirstMade::new(),
            stage: FirstMade::new(),
            words: Mutex::default(),
            own_token: AtomicU64::new(0),
            apart: Mutex::default(),
            ground: self.clone(),
        });
        names.entries.insert(name.clone(), Arc::downgrade(&entry));
        entry
    }

    /// The names of this process.
    fn names(&self) -> &Mutex<NamesHere> {
        self.names.here(Mutex::default)
    }

    fn floor(&self) -> Token {
        Token::new(self.floor.load(Relaxed)).expect("only tokens are stored")
    }

    /// The scope at which this process locked the name, for good.
    fn widened(&self, name: &Name) -> Scope {
        let mut all = std::iter::successors(self.widened.get(), |link| link.next.get());
        let found = all.find(|link| link.name == *name);
        found.map_or(Scope::Thread, |link| Scope::from_u8(link.to.load(Relaxed)))
    }

    fn widen(&self, name: &Name, to: Scope) {
        let mut place = &self.widened;
        loop {
            let new = || WidenedName {
                name: name.clone(),
                to: AtomicU8::new(to as u8),
                next: FirstMade::new(),
            };
            let link = place.get_or_make(new);
            if link.name == *name {
                link.to.fetch_max(to as u8, Relaxed);
                return;
            }
            place = &link.next;
        }
    }
}

impl Drop for NameEntry {
    /// Forgets the name without forgetting its tokens, nor how it was left.
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            // The name's entry in this process is another, and is forgotten with its last user.
            return;
        }
        self.give_leases_back();
        // A guard that was forgotten holds it still; its token counts all the same.
        let token = self.thread.last_token().max(self.highest_token()).max(self.own_token());
        // Counted by none: there may be no token left.
        let left = self.thread.try_win().then(|| self.thread.predecessor());
        let mut names = self.ground.names().lock();
        // The name is not made anew before this.
        names.entries.remove(&self.name);
        self.ground.floor.fetch_max(token.get(), Relaxed);
        if let Some(left) = left
            && left != Predecessor::Clean
            // A slot tells it, to whichever process comes next.
            && !self.has_slot()
            && names.unclean.len() < UNCLEAN_MAX
        {
            names.unclean.insert(self.name.clone(), left);
        }
    }
}

impl NameEntry {
    /// This process's thread tier of the name.
    #[inline]
    pub(crate) fn thread(&self) -> &ThreadLock {
        self.thread_in(fork::generation())
    }

    /// The same, for a caller that knows in which fork generation this process is.
    #[inline]
    pub(crate) fn thread_in(&self, generation: u64) -> &ThreadLock {
        &self.here_in(generation).thread
    }

    /// Its readers in this process, where the thread lock is the gate.
    pub(crate) fn shares(&self) -> &ThreadShares {
        self.shares_in(fork::generation())
    }

    /// The same, for a caller that knows in which fork generation this process is.
    #[inline]
    pub(crate) fn shares_in(&self, generation: u64) -> &ThreadShares {
        &self.here_in(generation).shares
    }

    /// The name's entry in this process.
    #[inline]
    fn here_in(&self, generation: u64) -> &NameEntry {
        if self.generation == generation { self } else { self.in_child() }
    }

    #[cold]
    fn in_child(&self) -> &NameEntry {
        self.in_children.here(|| {
            let entry = self.ground.entry(&self.name);
            entry.in_force.raise(self.in_force.get());
            entry.may_be_narrow();
            // If it is another's by now, whatever uses it here is refused.
            let _ = self.usage().map(|usage| entry.claim(usage));
            // Above what its parent's guards have, unless it is in use by now.
            if entry.thread.try_win() {
                let told = entry.thread.predecessor();
                entry.thread.raise_token(self.thread.last_token());
                entry.thread.release(told);
            }
            entry
        })
    }

    /// Has the name be used so in this process, for as long as anything here uses it. An error if it
    /// is used for something else.
    pub(crate) fn claim(&self, usage: Usage) -> Result<()> {
        let wanted = match usage {
            Usage::Lock => LOCK,
            Usage::Permits(limit) => limit,
        };
        match self.usage.compare_exchange(UNUSED, wanted, Relaxed, Relaxed) {
            Ok(_) => Ok(()),
            Err(found) if found == wanted => Ok(()),
            Err(found) => Err(LockError::config(usage_of(found).refusal(usage))),
        }
    }

    /// The same, of the name's entry in this process.
    pub(crate) fn check_usage(&self, usage: Usage) -> Result<()> {
        self.here_in(fork::generation()).claim(usage)
    }

    fn usage(&self) -> Option<Usage> {
        Some(self.usage.load(Relaxed)).filter(|usage| *usage != UNUSED).map(usage_of)
    }

    /// Opens what a lock at this scope needs, so that a full disk or a damaged file is an error
    /// now and not at the first lock.
    pub(crate) fn prepare(&self, scope: Scope) -> Result<()> {
        #[cfg(feature = "process")]
        if scope > Scope::Thread
            && let Some(directory) = self.ground.directory()
            && self.slot.get().is_none()
        {
            // Two at once would open it twice; the second is closed again, unused.
            let usage = self.usage().unwrap_or(Usage::Lock);
            let _ = self.slot.set(Arc::new(directory.slot_for(&self.name, usage)?));
        }
        let _ = scope;
        Ok(())
    }

    /// Where the leader of its election stands in this process.
    pub(super) fn stage(&self) -> &ElectionStage {
        self.here_in(fork::generation()).stage.get_or_make(ElectionStage::new)
    }

    #[cfg(feature = "process")]
    pub(super) fn directory(&self) -> Option<&Directory> {
        self.ground.directory()
    }

    #[cfg(feature = "process")]
    #[inline]
    pub(crate) fn slot(&self) -> Option<&Arc<Slot>> {
        self.slot.get()
    }

    /// Where its slot is for the process of this fork generation, the caller's.
    #[cfg(feature = "process")]
    #[inline]
    pub(crate) fn place(&self, generation: u64) -> GatePlace<'_> {
        match self.slot() {
            Some(slot) => slot.place(generation).map_or(GatePlace::Unknown, GatePlace::Slot),
            None => GatePlace::NoSlot,
        }
    }

    /// Has a shortcut lead to its slot, where the process of this fork generation has found that.
    #[cold]
    pub(crate) fn shorten(&self, shortcut: &SlotShortcut, generation: u64) {
        #[cfg(feature = "process")]
        if let Some(slot) = self.slot() {
            shortcut.lead_to(slot, generation);
        }
        let _ = (shortcut, generation);
    }

    /// A lock of thread scope is about to be built.
    pub(crate) fn may_be_narrow(&self) {
        *self.is_narrow.lock() = true;
    }

    /// Has the name begin at process scope, if no lock of thread scope was ever built of it here, and no
    /// token was granted more narrowly: then there is nothing to widen. So the first read of a process
    /// need not win the gate, which an upgradable reader of another process may have.
    pub(crate) fn begin_at_process_scope(&self) {
        let is_narrow = self.is_narrow.lock();
        if !*is_narrow && self.thread.last_token() == Token::ZERO {
            self.in_force.raise(Scope::Process);
        }
    }

    /// Has what readers of this process need.
    pub(crate) fn prepare_to_read(&self) -> Result<()> {
        #[cfg(feature = "process")]
        if let Some(slot) = self.slot() {
            slot.prepare_to_read()?;
        }
        Ok(())
    }

    #[cfg(not(feature = "process"))]
    pub(crate) fn place(&self, _: u64) -> GatePlace<'_> {
        GatePlace::NoSlot
    }

    /// Releases its slot, if it has one and the slot still bears this token; the next holder is told
    /// `how`.
    pub(crate) fn release_slot(&self, token: Token, how: Predecessor) {
        #[cfg(feature = "process")]
        if let Some(slot) = self.slot() {
            slot.release_token(token, how);
        }
        let _ = (token, how);
    }

    /// The end of the highest block of tokens that a service has granted this process for the name.
    pub(crate) fn highest_token(&self) -> Token {
        let words = self.words.lock();
        words.iter().map(|(_, word)| word.block_end()).max().unwrap_or(Token::ZERO)
    }

    /// A lease in a word of its own, which goes with its guard, has this token.
    pub(crate) fn remember_token(&self, token: Token) {
        self.own_token.fetch_max(token.get(), Relaxed);
    }

    /// A guard stands apart with its lease in this word, until it remembers the last token of that.
    pub(crate) fn watch_apart(&self, word: &Arc<LeaseWord>) {
        let mut apart = self.apart.lock();
        apart.retain(|word| word.strong_count() > 0);
        apart.push(Arc::downgrade(word));
    }

    fn own_token(&self) -> Token {
        let gone = Token::new(self.own_token.load(Relaxed)).expect("only tokens are stored");
        let apart = self.apart.lock();
        apart.iter().filter_map(Weak::upgrade).map(|word| word.borne()).fold(gone, Token::max)
    }

    pub(crate) fn has_slot(&self) -> bool {
        #[cfg(feature = "process")]
        return self.slot.get().is_some();
        #[cfg(not(feature = "process"))]
        false
    }

    /// The word of this name's leases of that service. Each manager has its own, and the service
    /// excludes between them.
    pub(crate) fn lease_word(&self, service: &Arc<dyn LeaseService>) -> Arc<LeaseWord> {
        let mut words = self.words.lock();
        words.retain(|(service, _)| service.strong_count() > 0);
        let is_its = |known: &Weak<_>| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(service));
        if let Some((_, word)) = words.iter().find(|(known, _)| is_its(known)) {
            return word.clone();
        }
        let word = Arc::new(LeaseWord::of(service.word_deadline(), service.made_in()));
        words.push((Arc::downgrade(service), word.clone()));
        word
    }

    /// The words of this name's leases in this process, each with the service of its manager: one of them at
    /// most has the turnstile, for its guard or on its way to a lease.
    pub(crate) fn leases(&self) -> Vec<(Arc<dyn LeaseService>, Arc<LeaseWord>)> {
        let words = self.words.lock();
        let here = words.iter().filter(|(_, word)| word.made_in() == fork::generation());
        here.filter_map(|(service, word)| Some((service.upgrade()?, word.clone()))).collect()
    }

    /// No mutex of the name is left in this process: its leases go back.
    fn give_leases_back(&mut self) {
        for (service, word) in self.words.get_mut() {
            if let Some(service) = service.upgrade()
                && let Some(used) = service.retire(word)
            {
                service.give_back(word, &used);
            }
        }
    }

    /// The scope in force: the widest at which this process has locked the name.
    #[inline]
    pub(crate) fn scope_in_force(&self) -> Scope {
        self.scope_in_force_in(fork::generation())
    }

    /// The same, for a caller that knows in which fork generation this process is.
    #[inline]
    pub(crate) fn scope_in_force_in(&self, generation: u64) -> Scope {
        self.here_in(generation).in_force.get()
    }

    /// Whether this entry's scope in force is host scope: in a forked child, whether its parent's was.
    #[inline]
    pub(crate) fn is_at_host_scope(&self) -> bool {
        self.in_force.get() == Scope::Host
    }

    /// The same, or the wider one that the holder of the thread lock is on its way to.
    pub(crate) fn scope_in_front(&self) -> Scope {
        self.scope_in_force().max(Scope::from_u8(self.climbs_to.load(Relaxed)))
    }

    /// Its holder of the thread lock is on its way to this scope; thread scope: it has arrived, or is gone.
    pub(crate) fn climbs_to(&self, scope: Scope) {
        self.climbs_to.store(scope as u8, Relaxed);
    }

    /// Keeps the name as wide as it is, also when no mutex of this process uses it any more. Only
    /// for its holder.
    pub(crate) fn stay_wide(&self) {
        self.ground.widen(&self.name, self.scope_in_force());
    }

    /// From now on the name is locked at `scope`. Only for its holder.
    #[inline]
    pub(crate) fn raise_scope(&self, scope: Scope) {
        self.here_in(fork::generation()).in_force.raise(scope);
    }
}

/// Where the gate of process scope is.
#[cfg_attr(not(feature = "process"), allow(dead_code, reason = "no name has a slot"))]
pub(crate) enum GatePlace<'a> {
    /// In the name's slot, which was found.
    Slot(SlotPlace<'a>),
    /// In its slot, which is to be looked up.
    Unknown,
    /// No other process has this ground: the thread lock is the gate.
    NoSlot,
}

/// What [`NameEntry`] says of a name that nothing in this process uses yet, and of a lock; a semaphore's
/// limit lies between.
const UNUSED: u32 = 0;
const LOCK: u32 = u32::MAX;

fn usage_of(word: u32) -> Usage {
    match word {
        LOCK => Usage::Lock,
        limit => Usage::Permits(limit),
    }
}

/// Has a new thread tier begin above `floor`, as if a holder had left it so.
fn raise(thread: &ThreadLock, floor: Token, left: Predecessor) {
    let _ = thread.try_take();
    thread.raise_token(floor);
    thread.release(left);
}

#[cfg(all(test, feature = "process"))]
mod tests;
