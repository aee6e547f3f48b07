//! When a leader may reign over a journal that others can have, by its own clock alone.
//!
//! It knows nothing of locks. It stands by, takes over when the reign before it cannot be believed
//! any more, proves its own, hands records to the journal, and steps down. Two clocks are compared
//! by no message: a reign acts for less than 0.98 L after it *sent* what was answered, a standby
//! counts 1.02 L from the *receipt* of what it read, and every renewal changes the stamp that the
//! take-over names as its condition.
//!
//! | from | to | when |
//! |---|---|---|
//! | standing by | taking over | no reign; or its stamp has stood for 1.02 L |
//! | taking over | reigning | `Took` |
//! | taking over | standing by | `Raced`; no answer |
//! | reigning | standing by | `Deposed`; without proof for L |
//! | reigning | resigning | told to hand over, after it serves no client any more |
//! | resigning | standing by | that is answered, or took too long; for L it does not take over |
//! | any | over | the journal failed, or is an older copy of itself; the epochs are used up |

mod standing;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    journal::{
        Appended, JournalAnswer, JournalHead, JournalOperation, JournalTerms, JournalTrouble,
        ReignAttempt, ReignKey, ReignRenewal, Stamp, TakeOver, Took,
    },
    mistake::{Mistake, planted},
    record::{CommitAnswer, Pending, Record},
};
use crate::time::Time;

/// How a leader takes part in the succession.
#[derive(Clone, Debug)]
pub struct ReignConfig {
    /// For how long its reign is believed without a renewal: L.
    pub lasts: Duration,
    /// Where clients find it.
    pub address: Option<String>,
    /// Its reigns begin above this epoch.
    pub epoch_above: Option<u32>,
    pub terms: JournalTerms,
}

/// The values of [`ReignConfig::lasts`] that are accepted.
pub const REIGN_LASTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(10);

/// An operation that was asked for; its answer bears the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(u64);

/// What becomes of a reign.
#[derive(Debug)]
pub enum ReignEvent {
    /// The journal is in this reign. Whether it may act, [`Reign::has_proof`] says at each moment.
    Began { reign: ReignKey, attempt: Arc<ReignAttempt>, took: Box<Took> },
    /// What became of records, in their order.
    Answered(Vec<CommitAnswer>),
    /// It is proven again, after so long without.
    Regained { lapsed: Duration },
    /// It is over: what was granted in it is not to be answered for any more, at once.
    Ended(ReignEnding),
}

/// Why a reign ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReignEnding {
    /// The journal is in another reign.
    Deposed,
    /// It could not be proven for so long that others may have taken over unseen.
    Unproven,
    /// The journal failed, and is of no more use.
    Failed(String),
    /// The journal answers with a stamp below one that it has answered a write with: it is a copy,
    /// or has lost committed writes.
    Restored,
    /// No epoch is left.
    EpochsUsedUp,
}

/// Random numbers, passed in, so that a run can be repeated.
pub type ReignRandom = Box<dyn FnMut() -> u128 + Send>;

/// One process's part in the succession.
pub struct Reign {
    config: ReignConfig,
    random: ReignRandom,
    state: ReignState,
    /// What it has attempted itself, the last of it.
    own: VecDeque<ReignKey>,
    /// What it has read of the journal while it stood by.
    watch: WatchedJournal,
    /// It does not take over before this.
    out_until: Time,
    /// The highest stamp that one of its writes was answered with.
    written: Stamp,
    last_operation: u64,
    /// How long the journal took for what it answered last.
    journal_took: Option<Duration>,
    /// When it looked last.
    now: Time,
    events: VecDeque<ReignEvent>,
}

enum ReignState {
    Standby,
    Taking { flight: Flight, attempt: Arc<ReignAttempt> },
    Reigning(Box<Tenure>),
    Resigning { reign: ReignKey, flight: Option<Flight>, next: Time, until: Time },
    Over,
}

/// An operation without an answer yet.
#[derive(Clone, Copy)]
struct Flight {
    id: OperationId,
    sent: Time,
    /// The highest stamp that a write was answered with by then.
    written: Stamp,
}

/// What a standby knows of the journal.
struct WatchedJournal {
    seen: Option<Sight>,
    /// When a read was last answered.
    answered: Time,
    /// An attempt was made since: the next is made of a fresh read.
    is_tried: bool,
    flight: Option<Flight>,
    /// When the next read is due.
    next: Time,
}

/// A head, and since when its stamp stands.
struct Sight {
    head: JournalHead,
    since: Time,
}

/// A reign of this process's own.
struct Tenure {
    reign: ReignKey,
    proven_until: Time,
    /// Since when it is not proven, if it was found to be so.
    lapsed_since: Option<Time>,
    renewing: Option<Flight>,
    next_renewal: Time,
    /// The batch that is on its way, until it is committed.
    batch: Option<Batch>,
    /// The number of the last batch.
    number: u64,
    queue: VecDeque<Pending>,
}

struct Batch {
    number: u64,
    pendings: Vec<Pending>,
    records: Arc<[Record]>,
    flight: Option<Flight>,
    /// When it is sent again.
    next: Time,
}

impl Reign {
    pub fn new(config: ReignConfig, random: ReignRandom, now: Time) -> Reign {
        Reign {
            config,
            random,
            state: ReignState::Standby,
            own: VecDeque::new(),
            watch: WatchedJournal {
                seen: None,
                answered: Time::ZERO,
                is_tried: false,
                flight: None,
                next: now,
            },
            out_until: Time::ZERO,
            written: Stamp::default(),
            last_operation: 0,
            journal_took: None,
            now,
            events: VecDeque::new(),
        }
    }

    /// Whether the reign is proven at this moment, which was read after what it is to answer.
    pub fn has_proof(&self, now: Time) -> bool {
        match &self.state {
            ReignState::Reigning(tenure) => tenure.is_proven(now),
            _ => false,
        }
    }

    /// Its own reign, from `Took` on.
    pub fn reigning(&self) -> Option<ReignKey> {
        match &self.state {
            ReignState::Reigning(tenure) => Some(tenure.reign),
            _ => None,
        }
    }

    /// What holds for its journal.
    pub fn terms(&self) -> JournalTerms {
        self.config.terms
    }

    /// For how long a reign is believed without a new proof; none where that is for ever.
    pub fn lasts(&self) -> Option<Duration> {
        (!self.config.terms.is_exclusive).then_some(self.config.lasts)
    }

    /// What it has read of the journal last.
    pub fn head(&self) -> Option<&JournalHead> {
        self.watch.seen.as_ref().map(|sight| &sight.head)
    }

    /// Whether it takes no part any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, ReignState::Over)
    }

    /// Whether its reign is being handed over.
    pub fn is_resigning(&self) -> bool {
        matches!(self.state, ReignState::Resigning { .. })
    }

    /// Whether records of its reign are not durable yet.
    pub fn is_writing(&self) -> bool {
        match &self.state {
            ReignState::Reigning(tenure) => tenure.batch.is_some() || !tenure.queue.is_empty(),
            _ => false,
        }
    }

    /// A record of this reign, to be made durable.
    pub fn write(&mut self, pending: Pending) {
        if let ReignState::Reigning(tenure) = &mut self.state {
            tenure.queue.push_back(pending);
        }
    }

    /// It serves no client any more, and hands over.
    pub fn resign(&mut self, now: Time) {
        self.observe(now);
        if let ReignState::Reigning(tenure) = &self.state {
            let (reign, until) = (tenure.reign, now + self.config.lasts);
            self.stay_out(now);
            self.watch.forget(now);
            self.state = ReignState::Resigning { reign, flight: None, next: now, until };
        }
    }

    /// It does not take over for L.
    pub fn stay_out(&mut self, now: Time) {
        self.out_until = now + self.config.lasts;
    }

    pub fn handle_timeout(&mut self, now: Time) {
        self.observe(now);
    }

    /// The journal has changed, as its process has heard: the next read is due at once, or behind the one that
    /// is on its way. Nothing else follows from that: a standby counts by what it reads.
    pub fn look_again(&mut self, now: Time) {
        self.observe(now);
        self.watch.next = self.watch.next.min(now);
    }

    /// The answer to an operation, received before `now` was read. One that was given up counts for
    /// nothing.
    pub fn handle_answer(&mut self, id: OperationId, answer: JournalAnswer, now: Time) {
        self.observe(now);
        self.time_answer(id, &answer, now);
        if let JournalAnswer::Trouble(JournalTrouble::Failed(text)) = answer {
            return self.end(ReignEnding::Failed(text), now);
        }
        if self.watch.flight.is_some_and(|flight| flight.id == id) {
            let Flight { sent, .. } = self.watch.flight.take().expect("just seen");
            if let JournalAnswer::Head(head) = answer {
                let received = if planted(Mistake::StandbyCountsFromSending) { sent } else { now };
                self.saw(head, received, now);
            }
            return;
        }
        match &mut self.state {
            ReignState::Taking { flight, attempt } if flight.id == id => {
                let (flight, attempt) = (*flight, attempt.clone());
                self.state = ReignState::Standby;
                if let JournalAnswer::TakeOver(answer) = answer {
                    self.attempted(answer, attempt, flight, now);
                }
            }
            ReignState::Reigning(tenure) if tenure.renews(id) => {
                let flight = tenure.renewing.take().expect("just seen");
                if let JournalAnswer::Renewal(answer) = answer {
                    self.renewed(answer, flight, now);
                }
            }
            ReignState::Reigning(tenure) if tenure.appends(id) => {
                let flight = tenure.batch.as_mut().and_then(|batch| batch.flight.take());
                self.appended(answer, flight.expect("just seen"), now);
            }
            ReignState::Resigning { flight, .. }
                if flight.is_some_and(|flight| flight.id == id) =>
            {
                *flight = None;
                if let JournalAnswer::Resigned = answer {
                    self.state = ReignState::Standby;
                }
            }
            _ => {}
        }
    }

    /// An operation to ask of the journal. `now` is read before it is sent: proof counts from there.
    pub fn poll_operation(&mut self, now: Time) -> Option<(OperationId, JournalOperation)> {
        self.observe(now);
        if let ReignState::Standby = self.state
            && self.may_take_over(now)
            && let Some(operation) = self.attempt(now)
        {
            return Some(operation);
        }
        match &self.state {
            ReignState::Standby | ReignState::Taking { .. } => self.read_if_due(now),
            ReignState::Reigning(_) => self.renew_if_due(now).or_else(|| self.append_if_due(now)),
            ReignState::Resigning { .. } => self.resign_if_due(now),
            ReignState::Over => None,
        }
    }

    pub fn poll_event(&mut self) -> Option<ReignEvent> {
        self.events.pop_front()
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let give_up = self.config.lasts / 2;
        let given_up = |flight: &Flight| flight.sent + give_up;
        match &self.state {
            ReignState::Over => None,
            ReignState::Standby => {
                // One that has passed waits for a read.
                let takes_over = self.takes_over_at().filter(|at| *at > self.now);
                [takes_over, self.watch.due(give_up)].into_iter().flatten().min()
            }
            ReignState::Taking { flight, .. } => {
                [Some(given_up(flight)), self.watch.due(give_up)].into_iter().flatten().min()
            }
            ReignState::Reigning(tenure) => tenure.due(&self.config),
            ReignState::Resigning { flight, next, until, .. } => {
                Some(flight.as_ref().map_or(*next, given_up).min(*until))
            }
        }
    }
}

// Time passes.
impl Reign {
    /// What `now` means before anything else is looked at.
    fn observe(&mut self, now: Time) {
        let (lasts, give_up) = (self.config.lasts, self.config.lasts / 2);
        self.now = now;
        let is_given_up = |flight: &Flight| flight.sent + give_up <= now;
        if self.config.terms.is_exclusive {
            return; // it is proven, and its answers come
        }
        self.watch.flight.take_if(|flight| is_given_up(flight));
        match &mut self.state {
            ReignState::Taking { flight, .. } if is_given_up(flight) => {
                self.state = ReignState::Standby
            }
            ReignState::Reigning(tenure) => {
                tenure.renewing.take_if(|flight| is_given_up(flight));
                if let Some(batch) = &mut tenure.batch {
                    batch.flight.take_if(|flight| is_given_up(flight));
                }
                if !tenure.is_proven(now) {
                    let since = *tenure.lapsed_since.get_or_insert(tenure.proven_until);
                    if since + lasts <= now {
                        self.step_down(ReignEnding::Unproven, now);
                    }
                }
            }
            ReignState::Resigning { flight, until, .. } => {
                flight.take_if(|flight| is_given_up(flight));
                if *until <= now {
                    self.state = ReignState::Standby;
                }
            }
            _ => {}
        }
    }

    /// The reign is over, and this process stands by.
    fn step_down(&mut self, ending: ReignEnding, now: Time) {
        self.watch.forget(now);
        self.state = ReignState::Standby;
        self.events.push_back(ReignEvent::Ended(ending));
    }

    /// It takes no part any more.
    fn end(&mut self, ending: ReignEnding, now: Time) {
        self.step_down(ending, now);
        self.state = ReignState::Over;
    }

    /// Whether a condition's answer shows a stamp that is none of the past. Else the journal is a copy.
    fn is_of_this_journal(&mut self, stamp: Stamp, flight: Flight, now: Time) -> bool {
        self.is_not_before(stamp, flight.written, now)
    }

    /// The same of a write that was done with this very answer: its stamp is above those of all writes
    /// that were answered before it was sent.
    fn is_written_in_this_journal(&mut self, stamp: Stamp, flight: Flight, now: Time) -> bool {
        self.is_not_before(stamp, Stamp(flight.written.0 + 1), now)
    }

    fn is_not_before(&mut self, stamp: Stamp, lowest: Stamp, now: Time) -> bool {
        if stamp < lowest {
            self.end(ReignEnding::Restored, now);
            return false;
        }
        self.written = self.written.max(stamp);
        true
    }

    fn take_flight(&mut self, now: Time) -> Flight {
        self.last_operation += 1;
        Flight { id: OperationId(self.last_operation), sent: now, written: self.written }
    }
}

// Standing by.
impl Reign {
    /// A head was answered. A lower stamp than before is a stale read.
    fn saw(&mut self, head: JournalHead, received: Time, now: Time) {
        let gap = self.config.lasts / 3;
        let was_blind = self.watch.answered + gap < now;
        (self.watch.answered, self.watch.is_tried) = (now, false);
        match &mut self.watch.seen {
            Some(sight) if head.stamp < sight.head.stamp => {}
            Some(sight) if head.stamp == sight.head.stamp => {
                if was_blind {
                    // After an outage the leader comes first.
                    sight.since = received;
                }
            }
            seen => *seen = Some(Sight { head, since: received }),
        }
    }

    /// From when on it may take over, by what it has seen; `None` before it has.
    fn takes_over_at(&self) -> Option<Time> {
        let Sight { head, since } = self.watch.seen.as_ref()?;
        if self.watch.is_tried {
            return None;
        }
        let is_free = head.reign.is_none_or(|reign| self.own.contains(&reign));
        let at = if is_free { *since } else { *since + standby_counts(head.lasts) };
        let at = at.max(self.out_until);
        // Without a fresh read it waits for one.
        (at <= self.watch.answered + self.config.lasts / 3).then_some(at)
    }

    fn may_take_over(&self, now: Time) -> bool {
        let fresh_until = self.watch.answered + self.config.lasts / 3;
        self.takes_over_at().is_some_and(|at| at <= now && now <= fresh_until)
    }

    fn attempt(&mut self, now: Time) -> Option<(OperationId, JournalOperation)> {
        let key = match self.own.front() {
            Some(name) if planted(Mistake::ReignNamedAfterLeader) => *name,
            _ => ReignKey((self.random)()),
        };
        let ReignConfig { lasts, address, epoch_above, terms } = self.config.clone();
        let head = &self.watch.seen.as_ref().expect("it may take over").head;
        // Of several leaders that are started above an epoch the first gets there, and the others
        // follow it. The one that has a journal for itself was told what it finds there.
        let epoch_above = epoch_above.filter(|above| terms.is_exclusive || head.epoch < *above);
        let Some(attempt) = ReignAttempt::after(head, key, lasts, address, epoch_above) else {
            self.end(ReignEnding::EpochsUsedUp, now);
            return None;
        };
        if self.own.len() == OWN_MAX {
            self.own.pop_front();
        }
        self.own.push_back(key);
        self.watch.is_tried = true;
        let flight = self.take_flight(now);
        let attempt = Arc::new(attempt);
        self.state = ReignState::Taking { flight, attempt: attempt.clone() };
        Some((flight.id, JournalOperation::TakeOver(attempt)))
    }

    fn attempted(
        &mut self,
        answer: TakeOver,
        attempt: Arc<ReignAttempt>,
        flight: Flight,
        now: Time,
    ) {
        match answer {
            TakeOver::Raced(head) => {
                if self.is_of_this_journal(head.stamp, flight, now) {
                    self.saw(head, now, now);
                }
            }
            TakeOver::Took(took) => {
                if self.is_written_in_this_journal(took.stamp, flight, now) {
                    let sent = if planted(Mistake::ProofFromAnswer) { now } else { flight.sent };
                    self.begin(attempt, took, sent + count_down(self.config.lasts, PROOF), now);
                }
            }
        }
    }

    fn begin(
        &mut self,
        attempt: Arc<ReignAttempt>,
        took: Box<Took>,
        proven_until: Time,
        now: Time,
    ) {
        let reign = attempt.reign;
        self.state = ReignState::Reigning(Box::new(Tenure {
            reign,
            proven_until: if self.config.terms.is_exclusive { Time::NEVER } else { proven_until },
            lapsed_since: None,
            renewing: None,
            next_renewal: now,
            batch: None,
            number: 0,
            queue: VecDeque::new(),
        }));
        self.watch.forget(now);
        self.events.push_back(ReignEvent::Began { reign, attempt, took });
        self.observe(now);
    }

    fn read_if_due(&mut self, now: Time) -> Option<(OperationId, JournalOperation)> {
        if self.watch.flight.is_some() || now < self.watch.next {
            return None;
        }
        let flight = self.take_flight(now);
        // One that has resigned has clients that wait to be told which leader follows.
        let pause = self.config.lasts / if now < self.out_until { 40 } else { 10 };
        let jitter = pause / 4 * ((self.random)() % 1024) as u32 / 1024;
        self.watch.flight = Some(flight);
        self.watch.next = now + pause + jitter;
        Some((flight.id, JournalOperation::Read))
    }
}

// Reigning.
impl Reign {
    fn renewed(&mut self, answer: ReignRenewal, flight: Flight, now: Time) {
        match answer {
            ReignRenewal::Deposed(head) => self.deposed(head, flight, now),
            ReignRenewal::Renewed(stamp) => {
                if self.is_written_in_this_journal(stamp, flight, now) {
                    let sent = if planted(Mistake::ProofFromAnswer) { now } else { flight.sent };
                    self.prove(sent, now);
                }
            }
        }
    }

    fn prove(&mut self, sent: Time, now: Time) {
        let proven_until = sent + count_down(self.config.lasts, PROOF);
        let ReignState::Reigning(tenure) = &mut self.state else { return };
        tenure.proven_until = tenure.proven_until.max(proven_until);
        if tenure.is_proven(now)
            && let Some(since) = tenure.lapsed_since.take()
        {
            self.events.push_back(ReignEvent::Regained { lapsed: now.since(since) });
        }
    }

    fn appended(&mut self, answer: JournalAnswer, flight: Flight, now: Time) {
        match answer {
            JournalAnswer::Appended(Appended::Deposed(head)) => self.deposed(head, flight, now),
            JournalAnswer::Appended(Appended::Committed(stamp, written)) => {
                if !self.is_of_this_journal(stamp, flight, now) {
                    return;
                }
                let ReignState::Reigning(tenure) = &mut self.state else { return };
                let Batch { pendings, .. } = tenure.batch.take().expect("it was sent");
                self.events.push_back(ReignEvent::Answered(written.of(pendings)));
            }
            // It may be in the journal, or may come there yet: it is sent again as it is.
            _ => {}
        }
    }

    fn deposed(&mut self, head: JournalHead, flight: Flight, now: Time) {
        if self.is_of_this_journal(head.stamp, flight, now) {
            self.step_down(ReignEnding::Deposed, now);
            self.saw(head, now, now);
        }
    }

    fn renew_if_due(&mut self, now: Time) -> Option<(OperationId, JournalOperation)> {
        let ReignState::Reigning(tenure) = &self.state else { return None };
        let is_due = tenure.renewing.is_none() && tenure.next_renewal <= now;
        if self.config.terms.is_exclusive || !is_due {
            return None;
        }
        let pause = self.config.lasts / self.config.terms.renewals;
        let (flight, next) = (self.take_flight(now), now + pause);
        let ReignState::Reigning(tenure) = &mut self.state else { unreachable!("just seen") };
        (tenure.renewing, tenure.next_renewal) = (Some(flight), next);
        Some((flight.id, JournalOperation::Renew(tenure.reign)))
    }

    fn append_if_due(&mut self, now: Time) -> Option<(OperationId, JournalOperation)> {
        let most = self.config.terms.batch_max;
        let ReignState::Reigning(tenure) = &mut self.state else { return None };
        tenure.begin_batch(most, now);
        let batch = tenure.batch.as_ref()?;
        if batch.flight.is_some() || now < batch.next {
            return None;
        }
        let (flight, next) = (self.take_flight(now), now + self.config.lasts / 10);
        let ReignState::Reigning(tenure) = &mut self.state else { unreachable!("just seen") };
        let reign = tenure.reign;
        let batch = tenure.batch.as_mut().expect("just seen");
        (batch.flight, batch.next) = (Some(flight), next);
        let (number, records) = (batch.number, batch.records.clone());
        Some((flight.id, JournalOperation::Append { reign, number, records }))
    }

    fn resign_if_due(&mut self, now: Time) -> Option<(OperationId, JournalOperation)> {
        let ReignState::Resigning { flight, next, .. } = &self.state else { return None };
        if flight.is_some() || now < *next {
            return None;
        }
        let (sent, later) = (self.take_flight(now), now + self.config.lasts / 10);
        let ReignState::Resigning { reign, flight, next, .. } = &mut self.state else {
            unreachable!("just seen")
        };
        (*flight, *next) = (Some(sent), later);
        Some((sent.id, JournalOperation::Resign(*reign)))
    }
}

impl Tenure {
    fn is_proven(&self, now: Time) -> bool {
        now < self.proven_until
    }

    fn renews(&self, id: OperationId) -> bool {
        self.renewing.is_some_and(|flight| flight.id == id)
    }

    fn appends(&self, id: OperationId) -> bool {
        let batch = self.batch.as_ref();
        batch.is_some_and(|batch| batch.flight.is_some_and(|flight| flight.id == id))
    }

    /// What has come meanwhile goes in one batch.
    fn begin_batch(&mut self, most: usize, now: Time) {
        if self.batch.is_some() || self.queue.is_empty() {
            return;
        }
        let pendings: Vec<_> = self.queue.drain(..self.queue.len().min(most)).collect();
        let records = pendings.iter().map(|pending| pending.record().clone()).collect();
        self.number += 1;
        let number = self.number;
        self.batch = Some(Batch { number, pendings, records, flight: None, next: now });
    }

    fn due(&self, config: &ReignConfig) -> Option<Time> {
        let give_up = config.lasts / 2;
        let append = match &self.batch {
            Some(Batch { flight: Some(flight), .. }) => {
                (!config.terms.is_exclusive).then_some(flight.sent + give_up)
            }
            Some(batch) => Some(batch.next),
            None => (!self.queue.is_empty()).then_some(Time::ZERO),
        };
        if config.terms.is_exclusive {
            return append;
        }
        let renewal = self.renewing.map_or(self.next_renewal, |flight| flight.sent + give_up);
        // A driver that is woken by it looks at what it may do without proof.
        let lapse = match self.lapsed_since {
            Some(since) => since + config.lasts,
            None => self.proven_until,
        };
        [Some(renewal), append, Some(lapse)].into_iter().flatten().min()
    }
}

impl WatchedJournal {
    /// What was read before does not count any more.
    fn forget(&mut self, now: Time) {
        *self = WatchedJournal {
            seen: None,
            answered: Time::ZERO,
            is_tried: false,
            flight: None,
            next: now,
        };
    }

    fn due(&self, give_up: Duration) -> Option<Time> {
        Some(self.flight.map_or(self.next, |flight| flight.sent + give_up))
    }
}

/// For how much of L a reign is proven from the sending of what was answered, in hundredths.
const PROOF: u32 = 98;

/// So much of a duration in hundredths, rounded down.
fn count_down(duration: Duration, hundredths: u32) -> Duration {
    if planted(Mistake::NoReignAllowance) {
        return duration;
    }
    duration * hundredths / 100
}

/// For how long a standby counts before it takes over from a reign that lasts so long.
pub fn standby_counts(lasts: Duration) -> Duration {
    let lasts = lasts.max(*REIGN_LASTS.start());
    if planted(Mistake::StandbyCountsHalf) {
        return lasts / 2;
    }
    if planted(Mistake::NoReignAllowance) {
        return lasts;
    }
    lasts + lasts / 50 + Duration::from_nanos(1)
}

/// How many attempts of its own a process knows. What it forgets it waits for as for another's.
const OWN_MAX: usize = 256;

#[cfg(test)]
mod tests;
