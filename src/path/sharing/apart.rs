//! Guards that stand apart at host scope: each has a lease of its own, in a word of its own, beside which
//! the readers of this process and of all other processes come in by theirs.
//!
//! | guard | its lease | in the cell |
//! |---|---|---|
//! | upgradable reader | upgradable | a reader apart |
//! | the writer that it becomes | exclusive | alone |
//! | the reader that either becomes, or a writer that came in by the name's word | shared | a reader apart |
//!
//! An upgrade waits for no gate of this process: its turnstile may be a writer's that waits for this very
//! guard. It asks the service, which lets none in from then on and answers once no other has a share of
//! the name. Then the guard waits until no guard of this process is inside that has lost its lease.
//!
//! | what crosses an upgrade | what becomes of it |
//! |---|---|
//! | its time is over, its future is dropped | it is given up, granted or not: the lease is upgradable again |
//! | the guard goes | likewise, and then the lease goes back |
//! | the lease is lost | `Lost`; the guard stays in the cell until it goes |
//! | the manager is closed | `Config`; the guard stays what it is |
//! | the connection, or the leader, is lost | it is asked for again behind the session's next report |
//! | a recall of what this process shares | the readers inside leave, and the lease goes back: the upgrade waits for that |

use std::{sync::Arc, time::Duration};

use super::timed_out_in_front;
use crate::{
    alarm, clock,
    error::{LockError, LostReason, Predecessor, Result},
    fork,
    host::{
        lease_word::{LeaseWord, Used},
        service::{ConvertsLeases, ReaderMode},
    },
    path::{
        Patience, by,
        named::Named,
        quiet::HostTier,
        release::Answer,
        right::{Held, INSIDE, LEASE, READABLE, SHARED_LEASE, short},
    },
    scope::Scope,
    time::Time,
    token::Token,
};

/// The pauses between two looks at guards that lost their leases: 3 to 100 ms.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// An upgrade that was granted, and waits for guards of this process. Dropped before it is finished, it
/// is given up.
struct LeaseUpgraded<'a> {
    named: &'a Named,
    modes: Arc<dyn ConvertsLeases>,
    tier: HostTier<'a>,
    word: Arc<LeaseWord>,
    token: Token,
    generation: u32,
    is_alone: bool,
    is_finished: bool,
    looks: u32,
}

impl LeaseUpgraded<'_> {
    /// Whether no other guard is inside in this process, lost or not. None comes in that has a lease:
    /// this one excludes it, and what was lost lets none in.
    fn is_alone(&mut self) -> bool {
        self.is_alone = self.is_alone || self.named.entry.cell.upgrade(self.generation);
        self.is_alone && !self.tier.word.is_read()
    }

    /// How long to wait for the next look.
    fn pause(&mut self, until: Time) -> Duration {
        self.looks += 1;
        let pause = Duration::from_millis(3 << self.looks.min(5)).min(LOOK_MAX);
        pause.min(until.since(clock::now()))
    }

    /// It is a writer from now on.
    fn finish(mut self, held: &mut Held) {
        self.named.entry.shares().set_readable(false);
        held.remove(READABLE);
        held.token = self.token;
        self.named.entry.remember_token(self.token);
        self.is_finished = true;
    }
}

impl Drop for LeaseUpgraded<'_> {
    fn drop(&mut self) {
        // A child of a fork has a guard of its own in the cell, if any.
        if self.is_finished || short(fork::generation()) != self.generation {
            return;
        }
        if self.is_alone {
            self.named.entry.cell.downgrade(self.generation);
        }
        // It has written nothing with its token.
        self.modes.downgrade(&self.word, ReaderMode::Upgradable, Token::ZERO);
    }
}

impl Named {
    /// What changes the mode of this manager's leases, if anything does.
    fn conversions(&self) -> Option<Arc<dyn ConvertsLeases>> {
        self.host_tier()?.service.clone().conversions()
    }

    /// An upgradable reader that stands apart becomes a writer. Failed, it is what it was.
    pub(super) fn upgrade_apart(&self, held: &mut Held, patience: Patience) -> Result<()> {
        let (start, tries) = (clock::now(), patience == Patience::No);
        let until = self.upgraded_by(start, patience);
        let (modes, word) = self.begin_upgrade_apart(held)?;
        let mut asked = modes.clone().upgrade(&word, tries);
        let Some(answer) = asked.wait_until(until) else {
            drop(asked);
            return Err(self.upgrade_ended(start, tries));
        };
        let mut upgraded = self.upgraded_apart(modes, word, answer)?;
        while !upgraded.is_alone() {
            self.check_upgraded(&upgraded)?;
            if tries || clock::now() >= until {
                return Err(self.upgrade_ended(start, tries));
            }
            std::thread::sleep(upgraded.pause(until));
        }
        upgraded.finish(held);
        Ok(())
    }

    pub(super) async fn upgrade_apart_async(
        &self,
        held: &mut Held,
        patience: Patience,
    ) -> Result<()> {
        let (start, tries) = (clock::now(), patience == Patience::No);
        let until = self.upgraded_by(start, patience);
        let (modes, word) = self.begin_upgrade_apart(held)?;
        let mut answer = None;
        let asked = modes.clone().upgrade(&word, tries);
        let answered = by(until, async { answer = Some(asked.await) }).await;
        let Some(answer) = answer.filter(|_| answered) else {
            return Err(self.upgrade_ended(start, tries));
        };
        let mut upgraded = self.upgraded_apart(modes, word, answer)?;
        while !upgraded.is_alone() {
            self.check_upgraded(&upgraded)?;
            if tries || clock::now() >= until {
                return Err(self.upgrade_ended(start, tries));
            }
            let pause = upgraded.pause(until);
            alarm::sleep_until(clock::now() + pause).await;
        }
        upgraded.finish(held);
        Ok(())
    }

    /// Until when the service's answer is waited for: one that only tries waits for that, too.
    fn upgraded_by(&self, start: Time, patience: Patience) -> Time {
        match patience {
            Patience::No => start + self.reach.connect_timeout,
            patience => patience.until(),
        }
    }

    fn begin_upgrade_apart(
        &self,
        held: &Held,
    ) -> Result<(Arc<dyn ConvertsLeases>, Arc<LeaseWord>)> {
        self.check_open(Scope::Host)?;
        let lost = || self.about(Scope::Host)(LockError::lost(LostReason::Forked));
        let modes = self.conversions().ok_or_else(lost)?;
        let leased = held.leased().ok_or_else(lost)?;
        Ok((modes, leased.word.clone()))
    }

    fn upgraded_apart(
        &self,
        modes: Arc<dyn ConvertsLeases>,
        word: Arc<LeaseWord>,
        answer: Result<Token>,
    ) -> Result<LeaseUpgraded<'_>> {
        let token = answer.map_err(self.about(Scope::Host))?;
        let tier = self.host_tier().expect("it was asked there");
        let generation = short(fork::generation());
        Ok(LeaseUpgraded {
            named: self,
            modes,
            tier,
            word,
            token,
            generation,
            is_alone: false,
            is_finished: false,
            looks: 0,
        })
    }

    /// Its lease may be over while it waits, and its manager closed.
    fn check_upgraded(&self, upgraded: &LeaseUpgraded<'_>) -> Result<()> {
        if let Some(why) = upgraded.word.lost_by(clock::now) {
            return Err(self.about(Scope::Host)(LockError::lost(why)));
        }
        self.check_open(Scope::Host)
    }

    fn upgrade_ended(&self, start: Time, tries: bool) -> LockError {
        match tries {
            true => LockError::WOULD_BLOCK,
            false => timed_out_in_front(start, Scope::Host).with_name(self.name()),
        }
    }

    /// A guard at host scope becomes a reader of this mode beside others, if the service knows that;
    /// whether it does.
    pub(super) fn becomes_reader_apart(&self, held: &mut Held, to: ReaderMode) -> Result<bool> {
        if !held.is_apart() && !held.has(LEASE) {
            return Ok(false);
        }
        let Some(modes) = self.conversions() else { return Ok(false) };
        let generation = short(fork::generation());
        let is_upgradable = to == ReaderMode::Upgradable;
        if is_upgradable {
            // Before another one may come in that would be upgradable, too.
            self.entry.shares().set_readable(true);
        }
        if let Some(leased) = held.leased() {
            let (word, token) = (leased.word.clone(), held.present_token());
            if !held.has(READABLE) {
                self.entry.cell.downgrade(generation);
            }
            modes.downgrade(&word, to, token);
        } else {
            let tier = self.host_tier().expect("it has a lease there");
            let Some(word) = modes.set_apart(tier.word, to, held.token) else {
                if is_upgradable {
                    self.entry.shares().set_readable(false);
                }
                let why = tier.word.lost().unwrap_or(LostReason::Expired);
                return Err(self.about(Scope::Host)(LockError::lost(why)));
            };
            // Until now no guard came in, of whichever manager: none changes a cell that has a writer.
            self.entry.cell.downgrade(generation);
            held.remove(LEASE);
            self.entry.watch_apart(&word);
            held.stand_apart(word);
        }
        match is_upgradable {
            true => held.add(READABLE),
            // Its own mark, and no other one's.
            false if held.remove(READABLE) => self.entry.shares().set_readable(false),
            false => {}
        }
        self.entry.thread().wake_all();
        Ok(true)
    }

    /// A guard that stands apart goes, if it is one: its lease goes back as that of a holder that left
    /// like this.
    pub(in crate::path) fn leave_apart(&self, held: &mut Held, how: Predecessor) {
        if let Some((tier, word, used)) = self.end_apart(held, how) {
            tier.service.give_back(&word, &used);
        }
    }

    /// The same, and what answers it.
    pub(in crate::path) fn leave_apart_answered(
        &self,
        held: &mut Held,
        how: Predecessor,
    ) -> Option<Answer> {
        if let Some(leased) = held.leased() {
            // A lease that has ended is lost, told or not.
            let _ = leased.word.lost_by(clock::now);
        }
        let (tier, word, used) = self.end_apart(held, how)?;
        let answer = tier.service.clone().give_back_answered(&word, &used);
        self.release_now(held, how);
        Some(self.about_it(answer))
    }

    fn end_apart(
        &self,
        held: &mut Held,
        how: Predecessor,
    ) -> Option<(HostTier<'_>, Arc<LeaseWord>, Used)> {
        if !held.is_apart() {
            return None;
        }
        if held.remove(READABLE) {
            self.entry.shares().set_readable(false);
        }
        self.leave_cell(held);
        // Also what it bears since it became a reader.
        self.entry.remember_token(held.present_token());
        held.remove(SHARED_LEASE);
        let word = held.take_leased()?.word.clone();
        let used = word.leave_apart(how);
        Some((self.host_tier()?, word, used?))
    }

    /// A reader comes in apart, under the gate: whether no writer is inside.
    pub(in crate::path) fn enter_apart(&self, held: &mut Held) -> bool {
        let is_free = self.entry.cell.enter_apart(short(fork::generation()));
        if is_free {
            held.add(INSIDE);
        }
        is_free
    }
}
