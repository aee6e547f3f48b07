//! Climbing the tiers: from the thread tier up to the scope that a lock needs, and back down.
//!
//! A process-scope lock first wins its thread tier, so that one thread per process goes on; a
//! host-scope lock first wins the thread tier, then the process tier where there is one, then its
//! lease. Whatever ends a climb early, an error or a dropped future, goes back down the same
//! stairs and leaves every tier as it was found.

use std::{
    future::Future,
    mem::ManuallyDrop,
    num::NonZeroU64,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::*},
    },
    time::Duration,
};

#[cfg(any(feature = "host", feature = "testing"))]
use crate::host::{
    kept::{Entered, Kept},
    link::{self, Link},
};
use crate::{
    alarm::{self, Alarm},
    clock,
    error::{LockError, LockErrorKind, LostReason, Predecessor, Result},
    ground::{self, Entry, Place, Reach},
    name::Name,
    overwriting::LetGo,
    scope::Scope,
    thread::{self, ThreadLock},
    time::Time,
    token::Token,
    watch::Watch,
};

/// Whether the lease of a host-scope lock is kept after the last local unlock, so that the next
/// local lock needs no message.
///
/// Keeping pays when this machine takes the lock again before anybody else wants it. If the
/// keeper crashes, others wait until its lease has run out.
///
/// Of several managers of one directory in a process, the first that builds a mutex of the name
/// keeps its leases, for as long as it lasts; the others ask the leader at each lock, and take it
/// from that one like anybody else. So let a process have one manager, and clone it.
///
/// Processes of one directory do not share a lease. One that has waited there for 1 ms is next, and
/// what is kept goes back for it: so such a move costs the leader the old holder's release, the
/// new one's request, and the answer to each. Who gets the lock sooner has it recalled first.
///
/// What is not kept goes back at once if somebody is known to wait, ahead of what another process
/// of the directory asks for, and else with whatever is sent next, within a millisecond: somebody
/// who asks right then waits that much longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keep {
    /// Keep it while that pays: if others of this process waited for it when it was asked for, who
    /// then get it from each other; else after a few locks in a row in whose way nobody else stood.
    /// It stays until somebody else asks or nobody here has used it for a second. While two take
    /// turns it is kept ever more seldom, at last once in some 200 locks.
    #[default]
    Adaptive,
    /// Keep it from the first lock on, until somebody else asks, however long nobody uses it, or
    /// until the name's last mutex here is dropped. Each counts among the 65,536 leases that a
    /// session may have: with more mutexes than that, a lock that would need another is
    /// `Refused`. [`Adaptive`](Keep::Adaptive) gives idle ones back.
    Always,
    /// Give it back at every unlock.
    Never,
}

/// How long a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It only tries.
    No,
    Forever,
    Until(Time),
}

impl Patience {
    fn until(self) -> Time {
        match self {
            Patience::No => Time::ZERO,
            Patience::Forever => Time::NEVER,
            Patience::Until(time) => time,
        }
    }
}

/// What a mutex is besides its data.
pub(crate) enum Core {
    /// Unnamed: nothing but its own thread tier.
    Plain(ThreadLock),
    Named(Named),
}

/// A named mutex: which tiers it climbs, and its terms.
pub(crate) struct Named {
    pub(crate) entry: Arc<Entry>,
    pub(crate) reach: Arc<Reach>,
    /// The scope asked for; `escalate` raises it.
    pub(crate) scope: AtomicU8,
    pub(crate) at_most: Option<Duration>,
    pub(crate) at_least: Option<Duration>,
    /// Whether there is either of them.
    pub(crate) has_terms: bool,
    pub(crate) keep: Keep,
    /// Where the lease is kept between locks, if it may be.
    #[cfg(any(feature = "host", feature = "testing"))]
    pub(crate) kept: Option<Arc<Kept>>,
}

/// The right to a lock: its token, and which tiers are to be given back.
///
/// It holds tiers and must be given to `let_go`; dropping it alone gives nothing back.
pub(crate) struct Held {
    pub(crate) token: Token,
    /// Emptied by `let_go`. Not dropped otherwise, so that the quiet path need not ask.
    more: ManuallyDrop<Option<Box<More>>>,
    facts: Facts,
}

/// Scope, predecessor, tiers, and the fork generation it was taken in (the upper half), in one
/// word.
#[derive(Clone, Copy)]
struct Facts(u64);

impl Facts {
    #[inline]
    const fn new(scope: Scope, predecessor: Predecessor, tiers: u8) -> Facts {
        Facts(scope as u64 | (predecessor as u64) << 8 | (tiers as u64) << 16)
    }

    #[inline]
    const fn with(self, at: u32, byte: u8) -> Facts {
        Facts(self.0 & !(0xff << (8 * at)) | (byte as u64) << (8 * at))
    }

    const fn with_generation(self, generation: u32) -> Facts {
        Facts(self.0 & u32::MAX as u64 | (generation as u64) << 32)
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn byte(self, at: u32) -> u8 {
        (self.0 >> (8 * at)) as u8
    }
}

/// What only some locks have.
#[derive(Default)]
struct More {
    watch: Option<Arc<Watch>>,
    #[cfg(any(feature = "host", feature = "testing"))]
    lease: Option<crate::proto::LeaseId>,
    /// Ends `at_most` below host scope.
    alarm: Option<Alarm>,
    /// When the lock was taken, if `at_least` needs it below host scope.
    since: Option<Time>,
}

const THREAD: u8 = 1;
const PROCESS: u8 = 2;
const HOST: u8 = 4;
/// A lease that may be kept; its word is [`Kept`]'s.
const KEPT: u8 = 8;
/// What can be let go of without a word to anybody.
const QUIET: u8 = THREAD | PROCESS | KEPT;

impl Held {
    /// What nobody holds.
    pub(crate) const NOTHING: Held = Held {
        token: Token::ZERO,
        more: ManuallyDrop::new(None),
        facts: Facts::new(Scope::Thread, Predecessor::Clean, 0),
    };

    pub(crate) fn watch(&self) -> Option<&Arc<Watch>> {
        self.more.as_ref()?.watch.as_ref()
    }

    #[inline]
    pub(crate) fn plain(taken: thread::Taken) -> Held {
        Held {
            token: taken.token,
            more: ManuallyDrop::new(None),
            facts: Facts::new(Scope::Thread, taken.predecessor, THREAD),
        }
    }

    #[inline]
    fn named(taken: thread::Taken) -> Held {
        let held = Held::plain(taken);
        Held { facts: held.facts.with_generation(short(ground::generation())), ..held }
    }

    /// Whether this is a copy that a fork made of its parent's right. Copies give nothing back.
    pub(crate) fn is_forked(&self) -> bool {
        let generation = self.facts.generation();
        generation != 0 && generation != short(ground::generation())
    }

    /// Whether it is a guard's that existed when this process was forked.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.tiers() != 0 && self.is_forked()
    }

    /// Whether letting go of it takes no more than to let go of its tiers.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.more.is_none() && self.tiers() & !QUIET == 0 && !self.is_forked()
    }

    /// What was won, if that is all there is; nothing of it is left.
    #[inline]
    pub(crate) fn take_won(&mut self) -> Won {
        let won = Won { token: self.token, facts: A_TIER | self.facts.0 };
        self.set_tiers(0);
        won
    }

    /// Whether nothing is held. Then it can be made to hold what was `won`.
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.tiers() == 0
    }

    /// Holds what was won, after it was nothing.
    #[inline]
    pub(crate) fn put(&mut self, won: Won) {
        self.token = won.token;
        self.facts = Facts(won.facts.get());
    }

    /// Leaves nothing behind that would have to be given back.
    pub(crate) fn take(&mut self) -> Held {
        let (more, facts) = (ManuallyDrop::new(self.more.take()), self.facts);
        self.set_tiers(0);
        Held { token: self.token, more, facts }
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::from_u8(self.facts.byte(0))
    }

    pub(crate) fn predecessor(&self) -> Predecessor {
        Predecessor::from_u8(self.facts.byte(1))
    }

    #[inline]
    fn tiers(&self) -> u8 {
        self.facts.byte(2)
    }

    fn set_scope(&mut self, scope: Scope) {
        self.facts = self.facts.with(0, scope as u8);
    }

    fn set_predecessor(&mut self, predecessor: Predecessor) {
        self.facts = self.facts.with(1, predecessor as u8);
    }

    fn set_tiers(&mut self, tiers: u8) {
        self.facts = self.facts.with(2, tiers);
    }

    /// Nothing was done under it. A leader that hears of no token used reserves nothing for it.
    pub(crate) fn mark_unused(&mut self) {
        self.token = above(self.token);
        if let Some(more) = &mut *self.more {
            more.since = None;
        }
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

/// A right that was won quietly, in two words, which stay in registers: a right that is moved
/// through memory is stored in pieces and loaded as a whole, which takes as long as to win it.
#[derive(Clone, Copy)]
pub(crate) struct Won {
    token: Token,
    /// As in [`Held`]; there is a tier.
    facts: NonZeroU64,
}

/// The bit of the thread tier in [`Facts`], which everybody has who has anything.
const A_TIER: NonZeroU64 = NonZeroU64::new((THREAD as u64) << 16).unwrap();

impl Won {
    #[inline]
    fn new(taken: thread::Taken, scope: Scope, tiers: u8, generation: u64) -> Won {
        let facts = Facts::new(scope, taken.predecessor, tiers);
        Won { token: taken.token, facts: A_TIER | facts.with_generation(short(generation)).0 }
    }

    #[inline]
    fn scope(self) -> Scope {
        Scope::from_u8(Facts(self.facts.get()).byte(0))
    }

    #[inline]
    fn tiers(self) -> u8 {
        Facts(self.facts.get()).byte(2)
    }
}

impl From<Won> for Held {
    fn from(won: Won) -> Held {
        Held { token: won.token, more: ManuallyDrop::new(None), facts: Facts(won.facts.get()) }
    }
}

/// The token that was won below, and what [`Idle::enter`] says.
type Behind = (Option<Token>, Option<(Token, Predecessor)>);

/// A lease that was kept and not in use when it was looked at.
#[cfg(any(feature = "host", feature = "testing"))]
#[derive(Clone, Copy)]
struct Idle<'a> {
    kept: &'a Kept,
    link: &'a Link,
    seen: u64,
    deadline: Time,
}

#[cfg(any(feature = "host", feature = "testing"))]
impl Idle<'_> {
    /// Takes its next token, if it is good: that, and how the last local holder left.
    #[inline(always)]
    fn enter(self, at_least: Token) -> Option<(Token, Predecessor)> {
        self.check(self.kept.enter_as_seen(self.seen, at_least)?)
    }

    /// The same, once the tier below is won; what came of both.
    #[inline(always)]
    fn enter_behind(self, below: impl FnOnce() -> Option<Token>) -> Behind {
        let (next, entered) = self.kept.enter_behind(self.seen, below);
        (next, entered.and_then(|entered| self.check(entered)))
    }

    /// Whether who has entered may go on; else the lease is given back.
    #[inline(always)]
    fn check(self, entered: Entered) -> Option<(Token, Predecessor)> {
        // What has ended at a deadline is marked before the deadline moves. One that was the same
        // before and after has not moved, and when it was entered nothing was marked.
        let deadline = self.link.deadline();
        let is_lost = || deadline != self.deadline && self.kept.lost().is_some();
        if clock::now() >= deadline || is_lost() {
            self.link.give_back(self.kept, &self.kept.leave_for_good(entered.predecessor));
            return None;
        }
        if entered.is_running_short {
            self.link.top_up(self.kept);
        }
        Some((entered.token, entered.predecessor))
    }
}

/// Nothing is kept where there is no host scope.
#[cfg(not(any(feature = "host", feature = "testing")))]
#[derive(Clone, Copy)]
enum Idle {}

#[cfg(not(any(feature = "host", feature = "testing")))]
impl Idle {
    fn enter(self, _: Token) -> Option<(Token, Predecessor)> {
        match self {}
    }

    fn enter_behind(self, _: impl FnOnce() -> Option<Token>) -> Behind {
        match self {}
    }
}

impl Core {
    pub(crate) fn lock(&self) -> Result<Held> {
        match self {
            Core::Plain(lock) => Ok(Held::plain(lock.take())),
            Core::Named(named) => named.climb(Patience::Forever, None),
        }
    }

    pub(crate) fn try_lock(&self) -> Result<Held> {
        match self {
            Core::Plain(lock) => lock.try_take().map(Held::plain).ok_or(LockError::WOULD_BLOCK),
            Core::Named(named) => named.climb(Patience::No, None),
        }
    }

    pub(crate) fn try_lock_until(&self, until: Time) -> Result<Held> {
        match self {
            Core::Plain(lock) => {
                let start = clock::now();
                let taken = lock.take_until(until).map(Held::plain);
                taken.ok_or_else(|| timed_out(start).with_scope(Scope::Thread))
            }
            Core::Named(named) => {
                let start = clock::now();
                let held = named.climb(Patience::Until(until), None);
                held.map_err(|error| waited_since(start, error))
            }
        }
    }

    /// The async forms of all three. Dropping the future gives back what it was to receive.
    pub(crate) async fn lock_async(&self, patience: Patience) -> Result<Held> {
        match self {
            Core::Plain(lock) => match patience {
                Patience::Forever => Ok(Held::plain(lock.take_async().await)),
                Patience::No => self.try_lock(),
                Patience::Until(until) => {
                    let start = clock::now();
                    let taken = take_until_async(lock, until).await;
                    let held = taken.map(Held::plain);
                    held.ok_or_else(|| timed_out(start).with_scope(Scope::Thread))
                }
            },
            Core::Named(named) => {
                let start = matches!(patience, Patience::Until(_)).then(clock::now);
                let held = named.climb_async(patience, None).await;
                held.map_err(|error| match start {
                    Some(start) => waited_since(start, error),
                    None => error,
                })
            }
        }
    }

    /// Gives back every tier, the widest first. Never blocks, never fails.
    #[inline]
    pub(crate) fn let_go(&self, held: &mut Held, how: Predecessor) {
        match self {
            Core::Plain(lock) => lock.release(how),
            Core::Named(named) => named.let_go(held, how),
        }
    }

    /// The same, with an answer to wait for: the leader's, and below host scope the end of `at_least`.
    pub(crate) fn let_go_answered(
        &self,
        held: &mut Held,
        how: Predecessor,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let answer = match self {
            Core::Plain(_) => {
                self.let_go(held, how);
                None
            }
            Core::Named(named) => named.let_go_answered(held, how),
        };
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(()),
            }
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Named {
    pub(crate) fn name(&self) -> &Name {
        &self.entry.name
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::from_u8(self.scope.load(Relaxed))
    }

    /// How far to climb: to what was asked for, or to what the name is already locked at.
    fn goal(&self, at_least: Option<Scope>) -> Scope {
        let asked = self.scope().max(self.entry.widest());
        at_least.map_or(asked, |scope| asked.max(scope))
    }

    /// Widens the name to `to`: takes it there, marks it, lets go. So at no moment do a narrow
    /// and a wide holder exist.
    pub(crate) fn escalate(&self, to: Scope) -> Result<()> {
        if !self.must_widen(to)? {
            return Ok(());
        }
        let mut held = self.climb(Patience::Forever, Some(to))?;
        self.scope.fetch_max(to as u8, Relaxed);
        self.entry.stay_wide();
        self.give_back(&mut held);
        Ok(())
    }

    pub(crate) async fn escalate_async(&self, to: Scope) -> Result<()> {
        if !self.must_widen(to)? {
            return Ok(());
        }
        let mut held = self.climb_async(Patience::Forever, Some(to)).await?;
        self.scope.fetch_max(to as u8, Relaxed);
        self.entry.stay_wide();
        self.give_back(&mut held);
        Ok(())
    }

    fn must_widen(&self, to: Scope) -> Result<bool> {
        if to <= self.scope() {
            return Ok(false);
        }
        self.reach.check(to).map_err(|error| error.with_name(self.name()))?;
        self.entry.prepare(to).map_err(|error| error.with_name(self.name()))?;
        Ok(true)
    }

    /// Lets go of what nobody was given: the next holder hears what this one would have heard.
    fn give_back(&self, held: &mut Held) {
        let how = held.predecessor();
        held.mark_unused();
        self.let_go_now(held, how);
    }

    /// A lock that nothing stands in the way of: every tier is free, and the lease of a host-scope
    /// one is kept. `None` leaves everything as it was, and the climb finds out what it is.
    ///
    /// What it takes is looked up before the first tier is won: whatever is looked up behind a
    /// compare-and-swap is waited for.
    #[inline]
    pub(crate) fn lock_quietly(&self) -> Option<Won> {
        self.lock_quietly_at(self.goal(None))
    }

    /// The same, for who has looked how far to climb. Somebody may have widened the name since;
    /// whoever did had won its thread tier first, so it shows once that is won.
    #[inline]
    pub(crate) fn lock_quietly_at(&self, goal: Scope) -> Option<Won> {
        if self.has_terms {
            return None;
        }
        let generation = ground::generation();
        let thread = self.entry.thread_in(generation);
        match goal {
            Scope::Thread => self.thread_quietly(thread, generation),
            _ if self.reach.is_closed() => None,
            Scope::Process => self.process_quietly(thread, generation),
            Scope::Host => self.host_quietly(thread, generation),
        }
    }

    #[inline]
    fn thread_quietly(&self, thread: &ThreadLock, generation: u64) -> Option<Won> {
        let further = |last: Token| Some((last.next()?, Predecessor::Clean));
        let taken = self.take_further(thread, Scope::Thread, further)?;
        Some(Won::new(taken, Scope::Thread, THREAD, generation))
    }

    #[inline]
    fn process_quietly(&self, thread: &ThreadLock, generation: u64) -> Option<Won> {
        let place = self.entry.place(generation)??;
        let further = |last| Some((place.take(last, false)?, Predecessor::Clean));
        let taken = self.take_further(thread, Scope::Process, further)?;
        Some(Won::new(taken, Scope::Process, THREAD | PROCESS, generation))
    }

    fn host_quietly(&self, thread: &ThreadLock, generation: u64) -> Option<Won> {
        let idle = self.idle(generation)?;
        let Some(place) = self.entry.place(generation)? else {
            let further = |last: Token| idle.enter(last.next()?);
            let taken = self.take_further(thread, Scope::Host, further)?;
            return Some(Won::new(taken, Scope::Host, THREAD | KEPT, generation));
        };
        let taken = self.take_further(thread, Scope::Host, |last| {
            let (next, entered) = idle.enter_behind(|| place.take(last, true));
            let next = next?;
            match entered {
                None => place.release(true),
                Some((token, _)) if token != next => self.entry.raise_slot(token),
                Some(_) => {}
            }
            entered
        })?;
        Some(Won::new(taken, Scope::Host, THREAD | PROCESS | KEPT, generation))
    }

    /// Wins the thread tier and goes `further`, if the name has been locked at this scope and no
    /// wider one: that shows only now.
    #[inline(always)]
    fn take_further(
        &self,
        thread: &ThreadLock,
        goal: Scope,
        further: impl FnOnce(Token) -> Option<(Token, Predecessor)>,
    ) -> Option<thread::Taken> {
        let is_so_wide = || self.entry.widest() == goal;
        thread.take_further(|last| if is_so_wide() { further(last) } else { None })
    }

    /// Its lease, if that is kept and nobody uses it just now.
    #[cfg(any(feature = "host", feature = "testing"))]
    #[inline]
    fn idle(&self, generation: u64) -> Option<Idle<'_>> {
        let (Some(kept), Some(link)) = (&self.kept, &self.reach.link) else { return None };
        let seen = kept.idle()?;
        let is_ours = !link.is_forked_in(generation);
        is_ours.then(|| Idle { kept, link, seen, deadline: link.deadline() })
    }

    #[cfg(not(any(feature = "host", feature = "testing")))]
    fn idle(&self, _: u64) -> Option<Idle> {
        None
    }

    /// Lets go of what [`is_quiet`](Held::is_quiet), left clean.
    #[inline]
    pub(crate) fn let_go_quietly(&self, won: Won) {
        let generation = ground::generation();
        let thread = self.entry.thread_in(generation);
        let place = match won.tiers() & PROCESS {
            0 => None,
            _ => self.entry.place(generation).flatten(),
        };
        #[cfg(any(feature = "host", feature = "testing"))]
        if won.tiers() & KEPT != 0 {
            return self.leave_kept_quietly(won, thread, place);
        }
        let is_wide = won.scope() == Scope::Host;
        let quietly = |place: Place<'_>| LetGo::all(place.release_if_quiet(is_wide));
        match place {
            Some(place) if thread.release_behind(|| quietly(place)) == LetGo::All => return,
            _ if won.tiers() & PROCESS != 0 => self.release_place(place, is_wide),
            _ => {}
        }
        thread.release(Predecessor::Clean);
    }

    #[cold]
    fn release_place(&self, place: Option<Place<'_>>, is_wide: bool) {
        match place {
            Some(place) => place.release(is_wide),
            None => self.entry.release_slot(),
        }
    }

    /// Leaves the kept lease and lets go of all below it.
    #[cfg(any(feature = "host", feature = "testing"))]
    #[inline]
    fn leave_kept_quietly(&self, won: Won, thread: &ThreadLock, place: Option<Place<'_>>) {
        let kept = self.kept.as_ref().expect("what was entered is there");
        let let_go = thread.release_behind(|| match place {
            Some(place) => kept.leave_behind(won.token, || place.release_if_quiet(true)),
            None if won.tiers() & PROCESS == 0 => LetGo::all(kept.leave_if_quiet(won.token)),
            None => LetGo::Nothing,
        });
        if let_go == LetGo::All {
            return;
        }
        if let Some(used) = kept.leave_quietly(won.token) {
            self.give_used_back(kept, &used);
        }
        if let_go == LetGo::Nothing && won.tiers() & PROCESS != 0 {
            self.make_way();
            self.release_place(place, true);
        }
        thread.release(Predecessor::Clean);
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    #[cold]
    fn give_used_back(&self, kept: &Kept, used: &crate::host::kept::Used) {
        if let Some(link) = &self.reach.link {
            link.give_back(kept, used);
        }
    }

    /// Gives back what was just left to be kept, if a sibling is sure to get the process tier now:
    /// it would only have it recalled. Of siblings who merely wait nobody knows when they get it,
    /// and a lease that went with the first of them would hardly serve anybody.
    #[cfg(any(feature = "host", feature = "testing"))]
    #[cold]
    fn make_way(&self) {
        #[cfg(feature = "process")]
        if self.entry.slot().is_some_and(crate::process::Slot::has_heir)
            && let (Some(kept), Some(link)) = (&self.kept, &self.reach.link)
            && let Some(used) = kept.take_idle()
        {
            link.give_back_ahead(kept, &crate::host::kept::Used { is_recalled: true, ..used });
        }
    }

    #[inline]
    fn climb(&self, patience: Patience, at_least: Option<Scope>) -> Result<Held> {
        if at_least.is_none()
            && let Some(won) = self.lock_quietly()
        {
            return Ok(won.into());
        }
        self.climb_slow(patience, at_least)
    }

    /// After [`lock_quietly`](Named::lock_quietly) in vain.
    #[cold]
    pub(crate) fn lock_slow(&self, patience: Patience) -> Result<Held> {
        self.climb_slow(patience, None)
    }

    #[cold]
    fn climb_slow(&self, patience: Patience, at_least: Option<Scope>) -> Result<Held> {
        let taken = match self.entry.thread().try_take() {
            Some(taken) => taken,
            None => self.wait_for_thread(patience)?,
        };
        let mut climb = Climb::new(self, taken, patience);
        let goal = self.goal(at_least);
        if goal == Scope::Thread {
            return Ok(climb.arrive());
        }
        self.check_open(goal)?;
        climb.process(goal)?;
        if climb.held.scope() < climb.goal {
            climb.host()?;
        }
        Ok(climb.arrive())
    }

    async fn climb_async(&self, patience: Patience, at_least: Option<Scope>) -> Result<Held> {
        if at_least.is_none()
            && let Some(won) = self.lock_quietly()
        {
            return Ok(won.into());
        }
        let taken = match self.entry.thread().try_take() {
            Some(taken) => taken,
            None => self.wait_for_thread_async(patience).await?,
        };
        let mut climb = Climb::new(self, taken, patience);
        let goal = self.goal(at_least);
        if goal == Scope::Thread {
            return Ok(climb.arrive());
        }
        self.check_open(goal)?;
        climb.process_async(goal).await?;
        if climb.held.scope() < climb.goal {
            climb.host_async().await?;
        }
        Ok(climb.arrive())
    }

    fn check_open(&self, goal: Scope) -> Result<()> {
        let checked = self.reach.check_open();
        checked.map_err(|error| error.with_name(self.name()).with_scope(goal))
    }

    #[cold]
    fn wait_for_thread(&self, patience: Patience) -> Result<thread::Taken> {
        match patience {
            Patience::No => Err(LockError::WOULD_BLOCK),
            Patience::Forever => Ok(self.entry.thread().take()),
            Patience::Until(until) => {
                let start = clock::now();
                self.entry.thread().take_until(until).ok_or_else(|| self.held_here(start))
            }
        }
    }

    async fn wait_for_thread_async(&self, patience: Patience) -> Result<thread::Taken> {
        match patience {
            Patience::No => Err(LockError::WOULD_BLOCK),
            Patience::Forever => Ok(self.entry.thread().take_async().await),
            Patience::Until(until) => {
                let start = clock::now();
                let taken = take_until_async(self.entry.thread(), until).await;
                taken.ok_or_else(|| self.held_here(start))
            }
        }
    }

    /// It timed out at the thread tier: a thread or task of this very process is in the way.
    fn held_here(&self, start: Time) -> LockError {
        let error = timed_out(start).with_name(self.name()).with_scope(self.scope());
        // Another manager of this process may hold it, or another process whom that one waits for.
        #[cfg(feature = "process")]
        let error = error.with_holder(self.entry.slot().and_then(crate::process::Slot::holder));
        error.with_holder(Some(self.reach.myself()))
    }

    fn let_go(&self, held: &mut Held, how: Predecessor) {
        if held.tiers() == 0 || held.is_forked() {
            return;
        }
        match self.stays_until(held) {
            None => self.let_go_now(held, how),
            Some(until) => self.let_go_at(until, held, how, |_| {}),
        }
    }

    /// Until when `at_least` keeps the lock below host scope, though the guard is gone. At host scope
    /// the leader remembers it.
    fn stays_until(&self, held: &Held) -> Option<Time> {
        if held.scope() >= Scope::Host {
            return None;
        }
        let until = held.more.as_ref()?.since? + self.at_least?;
        (until > clock::now()).then_some(until)
    }

    /// Lets go at `until`, and passes on the answer to wait for, if there is one.
    #[cold]
    fn let_go_at(
        &self,
        until: Time,
        held: &mut Held,
        how: Predecessor,
        then: impl FnOnce(Option<Answer>) + Send + 'static,
    ) {
        let how = overstayed(held, how);
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some((kept, _)) = self.kept_of(held) {
            kept.end_watch();
        }
        let mut held = held.take();
        // The guard is gone: there is nobody left to be told of a loss.
        let end = held.end_watch();
        let later = self.later();
        let let_go = move || then(later.let_go_answered(&mut held, how));
        alarm::call_at(until, let_go).detach();
        drop(end);
    }

    /// This mutex without its data, to let go when the mutex itself may be gone.
    fn later(&self) -> Named {
        Named {
            entry: self.entry.clone(),
            reach: self.reach.clone(),
            scope: AtomicU8::new(self.scope.load(Relaxed)),
            at_most: self.at_most,
            at_least: None,
            has_terms: self.at_most.is_some(),
            keep: self.keep,
            #[cfg(any(feature = "host", feature = "testing"))]
            kept: self.kept.clone(),
        }
    }

    fn let_go_now(&self, held: &mut Held, how: Predecessor) {
        #[cfg(any(feature = "host", feature = "testing"))]
        if held.tiers() & KEPT != 0 {
            return self.leave_kept(held, how);
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if let (Some(link), Some(lease)) = (&self.reach.link, held.take_lease()) {
            if self.is_waited_for_below(held) {
                link.release_ahead(lease, held.token, how);
            } else {
                link.release(lease, held.token, how);
            }
            return self.let_go_below(held, TOLD_BY_THE_LEADER);
        }
        self.let_go_below(held, overstayed(held, how));
    }

    /// The lease stays, unless somebody else waits for it, here or at the leader.
    #[cfg(any(feature = "host", feature = "testing"))]
    fn leave_kept(&self, held: &mut Held, how: Predecessor) {
        if let Some(kept) = &self.kept {
            match kept.leave(how) {
                Some(used) => self.give_used_back(kept, &used),
                None => self.make_way(),
            }
        }
        self.let_go_below(held, TOLD_BY_THE_LEADER);
    }

    /// Whether a sibling may ask the leader as soon as the process tier is let go of.
    #[cfg(any(feature = "host", feature = "testing"))]
    fn is_waited_for_below(&self, held: &Held) -> bool {
        #[cfg(feature = "process")]
        if held.tiers() & PROCESS != 0 {
            return self.entry.slot().is_some_and(crate::process::Slot::is_waited_for);
        }
        let _ = held;
        false
    }

    /// The kept lease that a guard has, and the link that it came over.
    #[cfg(any(feature = "host", feature = "testing"))]
    fn kept_of(&self, held: &Held) -> Option<(&Arc<Kept>, &Arc<Link>)> {
        let has_it = held.tiers() & KEPT != 0;
        self.kept.as_ref().zip(self.reach.link.as_ref()).filter(|_| has_it)
    }

    /// Why the right is lost, if it is.
    pub(crate) fn lost(&self, held: &Held) -> Option<LostReason> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some((kept, link)) = self.kept_of(held)
            && let Some(reason) = lost_kept(kept, link)
        {
            return Some(reason);
        }
        if self.is_broken(held) {
            match held.watch() {
                Some(watch) => watch.lose(LostReason::Broken),
                None => return Some(LostReason::Broken),
            }
        }
        held.watch()?.lost()
    }

    /// Whether the name was taken away in its directory.
    fn is_broken(&self, held: &Held) -> bool {
        #[cfg(feature = "process")]
        if held.tiers() & PROCESS != 0 {
            return self.entry.slot().is_some_and(crate::process::Slot::is_broken);
        }
        let _ = held;
        false
    }

    /// Until when it is good without a further word.
    pub(crate) fn deadline(&self, held: &Held) -> Time {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some((_, link)) = self.kept_of(held) {
            return link.deadline();
        }
        held.watch().map_or(Time::NEVER, |watch| watch.deadline())
    }

    /// What tells its loss; `None` if it cannot be lost.
    pub(crate) fn watch(&self, held: &Held) -> Option<Arc<Watch>> {
        let watch = self.watch_above(held);
        #[cfg(feature = "process")]
        if held.tiers() & PROCESS != 0
            && let Some(slot) = self.entry.slot()
        {
            return slot.watch(watch);
        }
        watch
    }

    /// What tells the loss of the lease, or the end of `at_most`.
    fn watch_above(&self, held: &Held) -> Option<Arc<Watch>> {
        #[cfg(any(feature = "host", feature = "testing"))]
        if let Some((kept, link)) = self.kept_of(held) {
            return Some(kept.watch(|| link.watch()));
        }
        held.watch().cloned()
    }

    /// Everything below the lease.
    fn let_go_below(&self, held: &mut Held, how: Predecessor) {
        let tiers = held.tiers();
        held.set_tiers(0);
        let end = held.end_watch();
        #[cfg(feature = "process")]
        if tiers & PROCESS != 0 {
            self.entry.slot().expect("a held process tier has its slot").release(how);
        }
        if tiers & THREAD != 0 {
            self.entry.thread().release(how);
        }
        // Foreign code may hang on it: last, when nothing is held.
        drop((end, held.more.take()));
    }

    fn let_go_answered(&self, held: &mut Held, how: Predecessor) -> Option<Answer> {
        if held.is_forked() {
            held.set_tiers(0);
            return None;
        }
        if let Some(until) = self.stays_until(held) {
            let (tell, told) = answer_slot();
            self.let_go_at(until, held, how, tell);
            return Some(told);
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if held.tiers() & KEPT != 0 {
            // Nothing is asked of the leader that would have an answer.
            self.leave_kept(held, how);
            return None;
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if let (Some(link), Some(lease)) = (&self.reach.link, held.take_lease()) {
            let answer = link.release_answered(lease, held.token, how);
            if self.is_waited_for_below(held) {
                link.send_ahead();
            }
            self.let_go_below(held, TOLD_BY_THE_LEADER);
            let name = self.name().clone();
            return Some(Box::pin(async move {
                answer.await.map_err(|error| error.with_name(&name).with_scope(Scope::Host))
            }));
        }
        self.let_go_below(held, overstayed(held, how));
        None
    }

    #[cfg(feature = "cli")]
    pub(crate) fn proof_of_life(
        &self,
        held: &Held,
    ) -> Option<std::io::Result<std::os::fd::OwnedFd>> {
        (held.tiers() & PROCESS != 0).then(|| self.entry.slot()?.proof_of_life().into()).flatten()
    }
}

/// How the tiers below a lease are left. The leader tells the next holder how this one left; what
/// they told in its stead would be told to this machine's next holder although others, who have
/// heard it, came in between.
#[cfg(any(feature = "host", feature = "testing"))]
const TOLD_BY_THE_LEADER: Predecessor = Predecessor::Clean;

/// Below host scope: whoever was told that it had held for too long left so. Of a broken lock the
/// name's next slot tells.
fn overstayed(held: &Held, how: Predecessor) -> Predecessor {
    match held.watch().and_then(|watch| watch.told()) {
        None | Some(LostReason::Broken) => how,
        Some(_) if how == Predecessor::Clean => Predecessor::Expired,
        Some(_) => how,
    }
}

/// A slot for an answer that becomes known later.
fn answer_slot() -> (impl FnOnce(Option<Answer>) + Send, Answer) {
    let slot = Arc::new((parking_lot::Mutex::new(None), event_listener::Event::new()));
    let told = slot.clone();
    let tell = move |answer: Option<Answer>| {
        *slot.0.lock() = Some(answer);
        slot.1.notify(usize::MAX);
    };
    let answer = async move {
        let answer = loop {
            let listener = told.1.listen();
            if let Some(answer) = told.0.lock().take() {
                break answer;
            }
            listener.await;
        };
        match answer {
            Some(answer) => answer.await,
            None => Ok(()),
        }
    };
    (tell, Box::pin(answer))
}

impl Held {
    /// No loss is told any more. What is returned may be foreign code, to be dropped when nothing
    /// is held.
    fn end_watch(&mut self) -> impl Sized + use<> {
        let more = self.more.as_mut()?;
        let callbacks = more.watch.as_ref().map(|watch| watch.release());
        Some((more.alarm.take(), callbacks))
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    fn take_lease(&mut self) -> Option<crate::proto::LeaseId> {
        self.set_tiers(self.tiers() & !HOST);
        self.more.as_mut()?.lease.take()
    }
}

/// A climb under way. Dropped before it arrives, it goes back down.
struct Climb<'a> {
    named: &'a Named,
    patience: Patience,
    goal: Scope,
    held: Held,
    /// What each tier is left with if the climb ends early: as it was found.
    found: Found,
    /// Another process of the directory has had the name since this one last had it.
    #[cfg(any(feature = "host", feature = "testing"))]
    has_moved: bool,
    arrived: bool,
}

#[derive(Clone, Copy)]
struct Found {
    thread: Predecessor,
    #[cfg(feature = "process")]
    process: Predecessor,
    #[cfg(any(feature = "host", feature = "testing"))]
    host: Predecessor,
}

impl<'a> Climb<'a> {
    fn new(named: &'a Named, taken: thread::Taken, patience: Patience) -> Climb<'a> {
        Climb {
            named,
            patience,
            goal: Scope::Thread,
            held: Held::named(taken),
            found: Found {
                thread: taken.predecessor,
                #[cfg(feature = "process")]
                process: Predecessor::Clean,
                #[cfg(any(feature = "host", feature = "testing"))]
                host: Predecessor::Clean,
            },
            #[cfg(any(feature = "host", feature = "testing"))]
            has_moved: false,
            arrived: false,
        }
    }

    /// At the goal: marks the name, starts the terms, hands over the right.
    #[inline]
    fn arrive(mut self) -> Held {
        let (named, held) = (self.named, &mut self.held);
        if held.scope() > Scope::Thread {
            named.entry.widen(held.scope());
        }
        if named.at_most.is_some() || named.at_least.is_some() {
            start_terms(named, held);
        }
        self.arrived = true;
        self.held.take()
    }

    /// The highest token known below the one that was just counted here.
    fn above(&self) -> Token {
        above(self.held.token)
    }

    /// Whose predecessor's end is told: that of the widest tier which has something to tell.
    fn tell(&mut self, predecessor: Predecessor) {
        if predecessor != Predecessor::Clean {
            self.held.set_predecessor(predecessor);
        }
    }

    fn process(&mut self, goal: Scope) -> Result<()> {
        self.goal = goal;
        #[cfg(feature = "process")]
        if let Some(slot) = self.named.entry.slot() {
            let (above, label) = (self.above(), &self.named.reach.label);
            let taken = match self.patience {
                Patience::No => slot.try_take(above, label).map(|taken| taken.ok_or(())),
                patience => slot.take(above, label, patience.until()).map(Ok),
            };
            return self.took_process(taken);
        }
        self.passed_process();
        Ok(())
    }

    async fn process_async(&mut self, goal: Scope) -> Result<()> {
        self.goal = goal;
        #[cfg(feature = "process")]
        if let Some(slot) = self.named.entry.slot() {
            let (above, label) = (self.above(), &self.named.reach.label);
            let taken = match self.patience {
                Patience::No => slot.try_take(above, label).map(|taken| taken.ok_or(())),
                patience => slot.take_async(above, label, patience.until()).await.map(Ok),
            };
            return self.took_process(taken);
        }
        self.passed_process();
        Ok(())
    }

    #[cfg(feature = "process")]
    fn took_process(
        &mut self,
        taken: Result<std::result::Result<crate::process::Taken, ()>>,
    ) -> Result<()> {
        let named = self.named;
        let taken = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(())) => return Err(LockError::WOULD_BLOCK),
            Err(error) => {
                return Err(error.with_name(named.name()).with_scope(Scope::Process));
            }
        };
        self.held.set_tiers(self.held.tiers() | PROCESS);
        self.found.process = taken.predecessor;
        #[cfg(any(feature = "host", feature = "testing"))]
        {
            self.has_moved = taken.token > self.held.token;
        }
        self.held.token = taken.token;
        self.held.set_scope(Scope::Process);
        named.entry.thread().raise_token(taken.token);
        self.tell(taken.predecessor);
        if let Some(by) = &taken.widened_by {
            // The goal may be there already: another manager of this process went there.
            if !named.reach.has_leader() {
                return Err(LockError::config(format!(
                    "it is locked at host scope by {by}, and this manager has no leaders: give it \
                     the same leaders"
                ))
                .with_name(named.name())
                .with_scope(Scope::Process));
            }
            self.goal = Scope::Host;
        }
        Ok(())
    }

    /// Without a directory nobody but this process shares the name below host scope.
    fn passed_process(&mut self) {
        self.held.set_scope(Scope::Process.min(self.goal));
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    fn want(&self) -> link::Want {
        let for_good = self.named.keep == Keep::Always;
        // Whoever waits here gets it next, and without the leader: that is keeping, too.
        let has_next = self.named.entry.thread().has_waiters();
        link::Want {
            name: self.named.name().clone(),
            at_most: self.named.at_most,
            at_least: self.named.at_least,
            keep: self.named.kept.clone().filter(|kept| kept.is_wanted(for_good) || has_next),
            above: self.above(),
            has_moved: self.has_moved,
            patience: match self.patience {
                Patience::No => link::Patience::No,
                patience => link::Patience::Until(patience.until()),
            },
        }
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    fn link(&self) -> Result<&'a Arc<crate::host::link::Link>> {
        self.named.reach.link().map_err(|error| error.with_name(self.named.name()))
    }

    /// Takes the next token of a lease that was kept; whether there was one that is good.
    #[cfg(any(feature = "host", feature = "testing"))]
    #[inline]
    fn enter_kept(&mut self) -> bool {
        let named = self.named;
        let entered = named.idle(ground::generation()).and_then(|idle| idle.enter(self.held.token));
        if let Some((token, predecessor)) = entered {
            self.held.set_tiers(self.held.tiers() | KEPT);
            self.held.set_scope(Scope::Host);
            self.found.host = predecessor;
            self.tell(predecessor);
            if token != self.held.token {
                self.held.token = token;
                named.entry.thread().raise_token(token);
                named.entry.raise_slot(token);
            }
        } else if let (Some(kept), Some(link)) = (&named.kept, &named.reach.link)
            && !link.is_forked()
            && let Some(used) = kept.take_idle()
        {
            // It has no token for us any more.
            link.give_back(kept, &used);
        }
        entered.is_some()
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    fn host(&mut self) -> Result<()> {
        if self.enter_kept() {
            return Ok(());
        }
        let link = self.link()?;
        let lease = link.acquire(self.want()).wait();
        self.took_lease(lease)
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    async fn host_async(&mut self) -> Result<()> {
        if self.enter_kept() {
            return Ok(());
        }
        let link = self.link()?;
        let lease = link.acquire(self.want()).await;
        self.took_lease(lease)
    }

    #[cfg(any(feature = "host", feature = "testing"))]
    fn took_lease(&mut self, lease: Result<crate::host::link::Lease>) -> Result<()> {
        let named = self.named;
        let lease = lease.map_err(|error| error.with_name(named.name()).with_scope(Scope::Host))?;
        if let Some(kept) = &named.kept {
            kept.granted(lease.had_to_queue);
        }
        self.found.host = lease.predecessor;
        self.held.token = lease.token;
        self.held.set_scope(Scope::Host);
        self.tell(lease.predecessor);
        if lease.may_be_kept {
            self.held.set_tiers(self.held.tiers() | KEPT);
        } else {
            self.held.set_tiers(self.held.tiers() | HOST);
            let more = self.held.more_mut();
            more.lease = Some(lease.id);
            more.watch = Some(lease.watch);
        }
        named.entry.thread().raise_token(lease.token);
        #[cfg(feature = "process")]
        if let Some(slot) = named.entry.slot() {
            slot.raise_token(lease.token);
            slot.widen(&named.reach.described());
            if slot.is_broken() {
                // Whoever has the name in this directory now knows neither of the mark nor of the
                // token: nobody is given what was won.
                return Err(LockError::lost(LostReason::Broken)
                    .with_name(named.name())
                    .with_scope(Scope::Host));
            }
        }
        Ok(())
    }

    #[cfg(not(any(feature = "host", feature = "testing")))]
    fn host(&mut self) -> Result<()> {
        self.named.reach.check(Scope::Host)
    }

    #[cfg(not(any(feature = "host", feature = "testing")))]
    async fn host_async(&mut self) -> Result<()> {
        self.named.reach.check(Scope::Host)
    }
}

impl Drop for Climb<'_> {
    fn drop(&mut self) {
        // A fork's copy of its parent's climb gives nothing back.
        if self.arrived || self.held.is_forked() {
            return;
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if self.held.tiers() & KEPT != 0 {
            self.held.set_tiers(self.held.tiers() & !KEPT);
            if let (Some(kept), Some(link)) = (&self.named.kept, &self.named.reach.link)
                && let Some(used) = kept.leave(self.found.host)
            {
                link.give_back(kept, &used);
            }
        }
        #[cfg(any(feature = "host", feature = "testing"))]
        if let (Some(link), Some(lease)) = (&self.named.reach.link, self.held.take_lease()) {
            link.release(lease, above(self.held.token), self.found.host);
        }
        #[cfg(feature = "process")]
        if self.held.tiers() & PROCESS != 0 {
            self.held.set_tiers(self.held.tiers() & !PROCESS);
            if let Some(slot) = self.named.entry.slot() {
                slot.release(self.found.process);
            }
        }
        self.named.let_go_below(&mut self.held, self.found.thread);
    }
}

/// The token before one that was just counted here.
#[inline]
fn above(counted: Token) -> Token {
    Token::new(counted.get().saturating_sub(1)).unwrap_or(Token::ZERO)
}

/// Why the right of the guard that has a kept lease is lost, if it is. Once lost it stays lost.
#[cfg(any(feature = "host", feature = "testing"))]
fn lost_kept(kept: &Kept, link: &Link) -> Option<LostReason> {
    // The deadline is read first: what ended at an earlier one is marked before it moves.
    let deadline = link.deadline();
    if kept.lost().is_none() && clock::now() >= deadline {
        kept.expire();
    }
    kept.lost()
}

/// `at_most` and the start of `at_least`, both below host scope.
fn start_terms(named: &Named, held: &mut Held) {
    let now = clock::now();
    let scope = held.scope();
    let more = held.more_mut();
    more.since = Some(now);
    if let Some(at_most) = named.at_most
        && scope < Scope::Host
    {
        let end = now + at_most;
        let watch = Arc::new(Watch::new(None, Some(end)));
        let told = watch.clone();
        more.alarm = Some(alarm::call_at(end, move || {
            told.lost();
        }));
        more.watch = Some(watch);
    }
}

/// A tier knows only how long was waited for itself.
#[cold]
fn waited_since(start: Time, error: LockError) -> LockError {
    match error.waited() {
        Some(_) => error.with_waited(clock::now().since(start)),
        None => error,
    }
}

fn timed_out(start: Time) -> LockError {
    LockError::new(LockErrorKind::TimedOut, "somebody else held it all the time")
        .with_waited(clock::now().since(start))
}

/// Waits for the thread tier until `until`, blocking no thread.
async fn take_until_async(lock: &ThreadLock, until: Time) -> Option<thread::Taken> {
    let mut take = std::pin::pin!(lock.take_async());
    let mut sleep = std::pin::pin!(alarm::sleep_until(until));
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(taken) = take.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(taken));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// A fork generation as it stands in [`Facts`], counted from 1.
#[inline]
fn short(generation: u64) -> u32 {
    generation as u32 + 1
}
