//! The right to a lock: what a guard has won, and what is to be given back.

use std::{
    mem::ManuallyDrop,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::{
    alarm::Alarm, error::Predecessor, fork, host::lease_word::LeaseWord, mode::Share, scope::Scope,
    thread, time::Time, token::Token, watch::Watch,
};

/// The right to a lock: its token, and which gate and turnstile are to be given back.
///
/// It must be given to `release`; dropping it alone gives nothing back.
pub(crate) struct Held {
    pub(crate) token: Token,
    /// Emptied by `release`. Not dropped otherwise, so that the fast path need not ask.
    more: ManuallyDrop<Option<Box<More>>>,
    facts: Facts,
    /// So many permits; 0 of everything else.
    permits: u32,
}

/// Scope, predecessor, what was won, and the fork generation it was won in (the upper half), in
/// one word.
#[derive(Clone, Copy)]
struct Facts(u64);

impl Facts {
    #[inline]
    const fn new(scope: Scope, predecessor: Predecessor, won: u8) -> Facts {
        Facts(scope as u64 | (predecessor as u64) << 8 | (won as u64) << 16)
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
pub(super) struct More {
    pub(super) watch: Option<Arc<Watch>>,
    /// Ends `at_most` below host scope.
    pub(super) alarm: Option<Alarm>,
    /// When the lock was acquired, if `at_least` needs it.
    pub(super) since: Option<Time>,
    /// Of permits at host scope, and of a guard that stands apart there: it has none of them.
    pub(super) leased: Option<Arc<LeasedPermits>>,
    /// Ended with what it is about.
    #[cfg(feature = "tracing")]
    pub(super) hold: Option<super::guarded_span::GuardedSpan>,
}

/// The lease of permits that were taken together at host scope. Each guard that has some of them
/// counts as a reader in its word.
pub(super) struct LeasedPermits {
    pub(super) word: Arc<LeaseWord>,
    left: AtomicU32,
}

impl LeasedPermits {
    pub(super) fn new(word: Arc<LeaseWord>, count: u32) -> Arc<LeasedPermits> {
        Arc::new(LeasedPermits { word, left: AtomicU32::new(count) })
    }

    /// So many go back; answers how many are left. The last that is told leaves the word last, or
    /// another does that was told before.
    pub(super) fn leave(&self, count: u32) -> u32 {
        let before = self.left.fetch_sub(count, Relaxed);
        assert!(before >= count, "no more come back than were taken");
        before - count
    }
}

/// The thread lock: the gate at thread scope, a turnstile above.
pub(super) const THREAD: u8 = 1;
/// The slot's word in the directory.
pub(super) const SLOT: u8 = 2;
/// The lease word.
pub(super) const LEASE: u8 = 4;
/// The entry's cell says that this guard is inside.
pub(super) const INSIDE: u8 = 8;
/// A reader's 1, among those of this process; or its permits.
pub(super) const SHARED: u8 = 16;
/// A reader's 1, in this process's share record of the slot; or its permits.
pub(super) const SHARED_SLOT: u8 = 32;
/// The gate is readable: an upgradable reader holds it.
pub(super) const READABLE: u8 = 64;
/// A reader's 1, in the lease word; or that of permits, or of a guard that stands apart, in the word of its
/// own lease.
pub(super) const SHARED_LEASE: u8 = 128;

impl Held {
    /// Nothing is held.
    pub(crate) const NOTHING: Held = Held {
        token: Token::ZERO,
        more: ManuallyDrop::new(None),
        facts: Facts::new(Scope::Thread, Predecessor::Clean, 0),
        permits: 0,
    };

    pub(crate) fn watch(&self) -> Option<&Arc<Watch>> {
        self.more.as_ref()?.watch.as_ref()
    }

    #[inline]
    pub(crate) fn plain(taken: thread::ThreadTaken) -> Held {
        Held {
            token: taken.token,
            more: ManuallyDrop::new(None),
            facts: Facts::new(Scope::Thread, taken.predecessor, THREAD),
            permits: 0,
        }
    }

    /// So many permits, whose token is the last one's.
    #[inline]
    pub(super) fn plain_permits(token: Token, count: u32) -> Held {
        Held { permits: count, ..Won::of_plain_reader(token, Predecessor::Clean).into() }
    }

    /// It has so many permits, which stand as what it shares.
    pub(super) fn set_permits(&mut self, count: u32) {
        self.permits = count;
    }

    /// How many permits it has.
    pub(crate) fn permits(&self) -> u32 {
        self.permits
    }

    /// Leaves so many of its permits to another holder, the last ones, which bear the highest tokens:
    /// those. Watches and alarms stay.
    pub(super) fn split_off(&mut self, count: u32) -> Held {
        let (permits, token) = (count, self.token);
        self.permits -= count;
        let rest = Token::new(self.token.get().saturating_sub(count.into()));
        self.token = rest.expect("it is below a token");
        Held { token, more: ManuallyDrop::new(None), facts: self.facts, permits }
    }

    /// What it shares: what stands for it among the counts.
    #[inline]
    pub(super) fn share(&self) -> Share {
        match self.permits {
            0 => Share::Reader,
            count => Share::Permits(count),
        }
    }

    /// Nothing yet, of a named lock in this process.
    pub(super) fn begin() -> Held {
        let facts = Held::NOTHING.facts.with_generation(short(fork::generation()));
        Held { facts, ..Held::NOTHING }
    }

    /// Whether this is a copy that a fork made of its parent's right. Copies give nothing back.
    pub(crate) fn is_forked(&self) -> bool {
        self.facts.generation() != 0 && self.is_of_other_than(fork::generation())
    }

    /// The same, of what was won in a known generation.
    #[inline]
    pub(super) fn is_of_other_than(&self, generation: u64) -> bool {
        self.facts.generation() != short(generation)
    }

    /// Whether it belongs to a guard that existed when this process was forked.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.won() != 0 && self.is_forked()
    }

    /// Whether a reader has it, and nothing besides.
    #[inline]
    pub(super) fn is_only_shared(&self) -> bool {
        self.won() & !(SHARED | SHARED_SLOT | SHARED_LEASE) == 0 && self.more.is_none()
    }

    /// Whether an upgradable reader has it.
    pub(crate) fn is_readable(&self) -> bool {
        self.has(READABLE)
    }

    /// Whether the fast path of this fork generation, the caller's, can release it.
    #[inline]
    pub(crate) fn is_quiet_in(&self, generation: u64) -> bool {
        let is_ours = self.facts.generation() == 0 || !self.is_of_other_than(generation);
        self.more.as_ref().is_none_or(|more| more.is_only_told()) && is_ours
    }

    /// What was won, if that and the span of its hold are all there is; nothing of it is left.
    #[inline]
    pub(crate) fn take_won(&mut self) -> Won {
        let won = Won { token: self.token, facts: SOME | self.facts.0 };
        self.set_won(0);
        won
    }

    /// Whether nothing is held. Then it can be made to hold what was `won`.
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.won() == 0
    }

    /// Holds what was won, after it was nothing; and as long as nothing changes that, it holds no more.
    #[inline]
    pub(crate) fn put(&mut self, won: Won) {
        self.token = won.token;
        self.facts = Facts(won.facts.get() | BARE);
    }

    /// Whether a reader of the slot has it, which came in in this fork generation and has no more; nothing
    /// of it is left then.
    #[inline]
    pub(super) fn take_bare_read(&mut self, generation: u64) -> bool {
        let is_bare = self.won() == SHARED_SLOT
            && self.permits == 0
            && self.facts.generation() == short(generation)
            && self.more.is_none();
        if is_bare {
            self.forget();
        }
        is_bare
    }

    /// The token, if this is what the straight way won in this fork generation, and no more; nothing of it
    /// is left then.
    #[inline]
    pub(super) fn take_bare_slot(&mut self, generation: u64) -> Option<Token> {
        let facts = Facts::new(Scope::Process, Predecessor::Clean, SLOT | INSIDE);
        if self.facts.0 != facts.with_generation(short(generation)).0 | SOME.get() | BARE {
            return None;
        }
        self.facts = Held::NOTHING.facts;
        Some(self.token)
    }

    /// Leaves nothing behind that would have to be given back.
    pub(crate) fn take(&mut self) -> Held {
        let (more, facts) = (ManuallyDrop::new(self.more.take()), self.facts);
        let permits = std::mem::take(&mut self.permits);
        self.set_won(0);
        Held { token: self.token, more, facts, permits }
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::from_u8(self.facts.byte(0))
    }

    pub(crate) fn predecessor(&self) -> Predecessor {
        Predecessor::from_u8(self.facts.byte(1))
    }

    /// Which of [`THREAD`], [`SLOT`], [`LEASE`], [`INSIDE`], [`SHARED`], [`SHARED_SLOT`], [`READABLE`],
    /// [`SHARED_LEASE`] are to be given back.
    #[inline]
    pub(super) fn won(&self) -> u8 {
        self.facts.byte(2)
    }

    /// Whether it has won this.
    #[inline]
    pub(super) fn has(&self, part: u8) -> bool {
        self.won() & part != 0
    }

    pub(super) fn add(&mut self, part: u8) {
        self.set_won(self.won() | part);
    }

    /// Whether it had won this; it has not from now on.
    pub(super) fn remove(&mut self, part: u8) -> bool {
        let had = self.has(part);
        self.set_won(self.won() & !part);
        had
    }

    /// What it had won is another's to give back.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.set_won(0);
    }

    pub(super) fn set_scope(&mut self, scope: Scope) {
        self.facts = self.facts.with(0, scope as u8);
    }

    pub(super) fn set_predecessor(&mut self, predecessor: Predecessor) {
        self.facts = self.facts.with(1, predecessor as u8);
    }

    fn set_won(&mut self, won: u8) {
        self.facts = self.facts.with(2, won);
    }

    pub(super) fn more(&self) -> Option<&More> {
        self.more.as_deref()
    }

    pub(super) fn more_mut(&mut self) -> &mut More {
        self.facts.0 &= !BARE;
        self.more.get_or_insert_default()
    }

    /// The lease that its permits are of.
    pub(super) fn leased(&self) -> Option<&Arc<LeasedPermits>> {
        self.more.as_ref()?.leased.as_ref()
    }

    /// Whether its lease, of readers or of the writer that one became, stands in a word of its own.
    pub(super) fn is_apart(&self) -> bool {
        self.permits == 0 && self.leased().is_some()
    }

    /// Its token as it is now: that of a guard that stands apart changes with its mode.
    pub(crate) fn present_token(&self) -> Token {
        match self.leased().filter(|_| self.is_apart()) {
            Some(leased) => leased.word.borne(),
            None => self.token,
        }
    }

    /// From now on its lease stands in this word of its own.
    pub(super) fn stand_apart(&mut self, word: Arc<LeaseWord>) {
        self.add(SHARED_LEASE);
        self.more_mut().leased = Some(LeasedPermits::new(word, 0));
    }

    /// The same; it is to be left.
    pub(super) fn take_leased(&mut self) -> Option<Arc<LeasedPermits>> {
        self.more.as_mut()?.leased.take()
    }

    /// What only some locks have; nothing of it is left.
    #[inline]
    pub(super) fn take_more(&mut self) -> Option<Box<More>> {
        self.more.take()
    }
}

/// A right that the fast path won, in two words, which stay in registers: a right that is moved
/// through memory is stored in pieces and loaded as a whole, which takes as long as to win it.
#[derive(Clone, Copy)]
pub(crate) struct Won {
    pub(super) token: Token,
    /// As in [`Held`]; something was won.
    facts: NonZeroU64,
}

/// Stands in an unused byte, so that the word is never zero.
const SOME: NonZeroU64 = NonZeroU64::new(1 << 24).unwrap();
/// Beside it: of what was [put](Held::put) into a guard's state without anything besides. No keeper, no
/// panic that was under way, nothing of [`More`].
const BARE: u64 = 1 << 25;

impl Won {
    #[inline]
    pub(super) fn new(
        token: Token,
        predecessor: Predecessor,
        scope: Scope,
        won: u8,
        generation: u64,
    ) -> Won {
        let facts = Facts::new(scope, predecessor, won).with_generation(short(generation));
        Won { token, facts: SOME | facts.0 }
    }

    /// A reader's, of an unnamed lock: a forked child gives its copy back, as its copy of the lock.
    #[inline]
    pub(super) fn of_plain_reader(token: Token, left: Predecessor) -> Won {
        Won { token, facts: SOME | Facts::new(Scope::Thread, left, SHARED).0 }
    }

    #[cfg(feature = "tracing")]
    pub(super) fn scope(self) -> Scope {
        Scope::from_u8(Facts(self.facts.get()).byte(0))
    }

    /// Everything that it has won.
    #[inline]
    pub(super) fn parts(self) -> u8 {
        Facts(self.facts.get()).byte(2)
    }

    /// Whether it has won this.
    #[inline]
    pub(super) fn has(self, part: u8) -> bool {
        self.parts() & part != 0
    }
}

impl From<Won> for Held {
    #[inline]
    fn from(won: Won) -> Held {
        let facts = Facts(won.facts.get());
        Held { token: won.token, more: ManuallyDrop::new(None), facts, permits: 0 }
    }
}

/// A fork generation as it stands in [`Facts`] and in the entry's cell, counted from 1.
#[inline]
pub(super) fn short(generation: u64) -> u32 {
    generation as u32 + 1
}
