//! Situations of one process in the succession, and all orders of what two of them do over one
//! journal.

use super::*;
use crate::proto::{
    ClusterId, SessionId,
    record::{Recovered, Written},
};

const L: Duration = Duration::from_secs(1);
const TERMS: JournalTerms = JournalTerms { is_exclusive: false, batch_max: 2, renewals: 6 };

fn at(ms: u64) -> Time {
    Time::from_nanos(10_000_000_000 + ms * 1_000_000)
}

fn reign(seed: u128) -> Reign {
    let config = ReignConfig { lasts: L, address: None, epoch_above: None, terms: TERMS };
    let mut last = seed << 64;
    let random = move || {
        last += 1;
        last
    };
    Reign::new(config, Box::new(random), at(0))
}

fn head(reign: Option<u128>, stamp: u64) -> JournalHead {
    JournalHead {
        cluster: ClusterId(7),
        reign: reign.map(ReignKey),
        lasts: L,
        stamp: Stamp(stamp),
        epoch: 4,
        waits_for: None,
        address: None,
    }
}

fn took(stamp: u64) -> JournalAnswer {
    let before = Recovered { epoch: 4, ..Recovered::new(ClusterId(7)) };
    let written = Written::committed(Vec::new());
    JournalAnswer::TakeOver(TakeOver::Took(Box::new(Took { stamp: Stamp(stamp), before, written })))
}

/// What it asks for at this moment, of which there is to be something.
fn asks(reign: &mut Reign, now: Time) -> (OperationId, JournalOperation) {
    reign.poll_operation(now).expect("something is due")
}

fn asks_nothing(reign: &mut Reign, now: Time) {
    let operation = reign.poll_operation(now);
    assert!(operation.is_none(), "{operation:?}");
}

/// A read at this moment, answered as soon.
fn reads(reign: &mut Reign, ms: u64, head: JournalHead) {
    let (id, operation) = asks(reign, at(ms));
    assert!(matches!(operation, JournalOperation::Read), "{operation:?}");
    reign.handle_answer(id, JournalAnswer::Head(head), at(ms));
}

/// Reads the same head in every 130 ms up to this moment.
fn watches(reign: &mut Reign, from: u64, to: u64, head: &JournalHead) {
    (from..=to).step_by(130).for_each(|ms| reads(reign, ms, head.clone()));
}

/// Takes over a journal without a reign at this moment; answers the reign.
fn reigns(reign: &mut Reign, ms: u64) -> ReignKey {
    reads(reign, ms, head(None, 1));
    let (id, operation) = asks(reign, at(ms));
    assert!(matches!(operation, JournalOperation::TakeOver(_)), "{operation:?}");
    reign.handle_answer(id, took(2), at(ms));
    let Some(ReignEvent::Began { reign: key, .. }) = reign.poll_event() else {
        panic!("it took over")
    };
    key
}

fn renews(reign: &mut Reign, ms: u64) -> OperationId {
    let (id, operation) = asks(reign, at(ms));
    assert!(matches!(operation, JournalOperation::Renew(_)), "{operation:?}");
    id
}

fn renewed(stamp: u64) -> JournalAnswer {
    JournalAnswer::Renewal(ReignRenewal::Renewed(Stamp(stamp)))
}

fn unknown() -> JournalAnswer {
    JournalAnswer::Trouble(JournalTrouble::Unknown("it timed out".to_owned()))
}

fn pending(number: u64) -> Pending {
    Pending::for_tests(number, Record::SessionEnded { session: SessionId(number.into()) })
}

fn ending(reign: &mut Reign) -> Option<ReignEnding> {
    std::iter::from_fn(|| reign.poll_event()).find_map(|event| match event {
        ReignEvent::Ended(ending) => Some(ending),
        _ => None,
    })
}

#[test]
fn a_journal_without_a_reign_is_taken_over_at_once() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    assert!(one.has_proof(at(979)) && !one.has_proof(at(980)));
}

#[test]
fn a_standby_counts_a_little_more_than_the_heads_own_time_from_the_receipt() {
    let mut one = reign(1);
    let shown = JournalHead { lasts: 2 * L, ..head(Some(99), 5) };
    let (id, _) = asks(&mut one, at(0));
    one.handle_answer(id, JournalAnswer::Head(shown.clone()), at(100));
    watches(&mut one, 230, 2_050, &shown);
    asks_nothing(&mut one, at(2_139));
    let (_, operation) = asks(&mut one, at(2_141));
    assert!(matches!(operation, JournalOperation::TakeOver(_)), "{operation:?}");
}

#[test]
fn a_higher_stamp_starts_the_count_again_and_a_lower_one_is_a_stale_read() {
    let mut one = reign(1);
    watches(&mut one, 0, 910, &head(Some(99), 5));
    reads(&mut one, 1_015, head(Some(99), 6)); // just before its time
    watches(&mut one, 1_145, 1_535, &head(Some(99), 5));
    watches(&mut one, 1_665, 1_925, &head(Some(99), 6));
    asks_nothing(&mut one, at(2_024));
    assert!(matches!(asks(&mut one, at(2_036)), (_, JournalOperation::TakeOver(_))));
}

#[test]
fn a_gap_in_the_reads_starts_the_count_again() {
    let mut one = reign(1);
    watches(&mut one, 0, 910, &head(Some(99), 5));
    reads(&mut one, 1_300, head(Some(99), 5));
    watches(&mut one, 1_430, 2_210, &head(Some(99), 5));
    assert!(matches!(asks(&mut one, at(2_330)), (_, JournalOperation::TakeOver(_))));
}

#[test]
fn proof_counts_from_the_sending() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    let id = renews(&mut one, 100);
    one.handle_answer(id, renewed(3), at(550));
    assert!(one.has_proof(at(1_079)) && !one.has_proof(at(1_080)));
}

#[test]
fn neither_a_batch_nor_a_read_proves() {
    let mut one = reign(1);
    let key = reigns(&mut one, 0);
    one.write(pending(1));
    renews(&mut one, 900);
    let (id, operation) = asks(&mut one, at(900));
    assert!(matches!(operation, JournalOperation::Append { .. }), "{operation:?}");
    let committed = Appended::Committed(Stamp(3), Written::committed(Vec::new()));
    one.handle_answer(id, JournalAnswer::Appended(committed), at(901));
    assert!(!one.has_proof(at(980)), "{key:?}");
}

#[test]
fn a_batch_without_an_answer_is_sent_again_as_it_was() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    renews(&mut one, 0);
    one.write(pending(1));
    let batch = |operation: &JournalOperation| match operation {
        JournalOperation::Append { number, records, .. } => (*number, records.to_vec()),
        other => panic!("{other:?}"),
    };
    let (first, sent) = asks(&mut one, at(10));
    one.write(pending(2));
    asks_nothing(&mut one, at(20));
    one.handle_answer(first, unknown(), at(30));
    let (second, again) = asks(&mut one, at(130));
    assert_eq!(batch(&sent), batch(&again));
    // The answer to the first comes late, and counts for nothing.
    one.handle_answer(first, JournalAnswer::Appended(Appended::Deposed(head(None, 9))), at(140));
    assert!(ending(&mut one).is_none());
    let committed = Appended::Committed(Stamp(3), Written::committed(Vec::new()));
    one.handle_answer(second, JournalAnswer::Appended(committed), at(150));
    let Some(ReignEvent::Answered(answers)) = one.poll_event() else { panic!("it is durable") };
    assert_eq!(answers.len(), 1);
    let (_, next) = asks(&mut one, at(167));
    assert_eq!(batch(&next).0, 2);
}

#[test]
fn a_reign_without_proof_for_long_steps_down_and_takes_over_again_at_once() {
    let mut one = reign(1);
    let key = reigns(&mut one, 0);
    for ms in (10..1_900).step_by(600) {
        renews(&mut one, ms);
    }
    one.handle_timeout(at(1_979));
    assert!(ending(&mut one).is_none());
    one.handle_timeout(at(1_980));
    assert_eq!(ending(&mut one), Some(ReignEnding::Unproven));
    // Nothing but this process has reigned since.
    reads(&mut one, 1_990, head(Some(key.0), 3));
    assert!(matches!(asks(&mut one, at(1_991)), (_, JournalOperation::TakeOver(_))));
}

/// A late answer proves something; one that proves nothing does not put the end off.
#[test]
fn a_lapse_ends_with_an_answer_that_still_proves() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    let id = renews(&mut one, 900);
    one.handle_timeout(at(1_200));
    one.handle_answer(id, renewed(3), at(1_300));
    assert!(one.has_proof(at(1_300)));
    let Some(ReignEvent::Regained { lapsed }) = one.poll_event() else { panic!("it lapsed") };
    assert_eq!(lapsed, Duration::from_millis(320));
}

#[test]
fn a_deposed_reign_ends_at_once() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    let id = renews(&mut one, 170);
    let deposed = ReignRenewal::Deposed(head(Some(99), 9));
    one.handle_answer(id, JournalAnswer::Renewal(deposed), at(180));
    assert_eq!(ending(&mut one), Some(ReignEnding::Deposed));
    assert!(!one.has_proof(at(181)));
    watches(&mut one, 290, 1_070, &head(Some(99), 9));
    assert!(matches!(asks(&mut one, at(1_201)), (_, JournalOperation::TakeOver(_))));
}

#[test]
fn an_attempt_without_an_answer_is_not_adopted_but_made_anew() {
    let mut one = reign(1);
    reads(&mut one, 0, head(None, 1));
    let (id, operation) = asks(&mut one, at(0));
    let JournalOperation::TakeOver(attempt) = operation else { panic!("{operation:?}") };
    one.handle_answer(id, unknown(), at(10));
    asks_nothing(&mut one, at(20));
    reads(&mut one, 140, head(Some(attempt.reign.0), 2));
    assert!(one.reigning().is_none());
    let (_, operation) = asks(&mut one, at(141));
    let JournalOperation::TakeOver(again) = operation else { panic!("{operation:?}") };
    assert_ne!(again.reign, attempt.reign);
    assert_eq!(again.seen, Stamp(2));
}

#[test]
fn a_reign_that_is_handed_over_stays_out_for_a_while() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    one.resign(at(100));
    assert!(!one.has_proof(at(100)));
    let (id, operation) = asks(&mut one, at(100));
    assert!(matches!(operation, JournalOperation::Resign(_)), "{operation:?}");
    one.handle_answer(id, JournalAnswer::Resigned, at(110));
    // Its clients are to be told which leader follows: it reads more often than one that stands by.
    (115..1_099).step_by(26).for_each(|ms| reads(&mut one, ms, head(None, 3)));
    asks_nothing(&mut one, at(1_099));
    assert!(matches!(asks(&mut one, at(1_101)), (_, JournalOperation::TakeOver(_))));
}

/// A restored backup answers with stamps that were there before. Answers that cross do not.
#[test]
fn a_stamp_below_that_of_an_answered_write_ends_the_part_for_good() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    one.write(pending(1));
    let renewal = renews(&mut one, 170);
    let (append, _) = asks(&mut one, at(170));
    one.handle_answer(renewal, renewed(9), at(180));
    let committed = |stamp| Appended::Committed(Stamp(stamp), Written::committed(Vec::new()));
    one.handle_answer(append, JournalAnswer::Appended(committed(8)), at(181));
    assert!(ending(&mut one).is_none(), "it was sent before that was answered");
    let renewal = renews(&mut one, 340);
    one.handle_answer(renewal, renewed(8), at(350));
    assert_eq!(ending(&mut one), Some(ReignEnding::Restored));
    assert!(one.is_over());
    assert_eq!(one.poll_timeout(), None);
    asks_nothing(&mut one, at(9_000));
}

/// One write was lost, and the next one gets the stamp that it had.
#[test]
fn a_renewal_with_the_stamp_of_an_answered_write_ends_the_part_for_good() {
    let mut one = reign(1);
    reigns(&mut one, 0);
    let renewal = renews(&mut one, 170);
    one.handle_answer(renewal, renewed(9), at(180));
    let renewal = renews(&mut one, 340);
    one.handle_answer(renewal, renewed(9), at(350));
    assert_eq!(ending(&mut one), Some(ReignEnding::Restored));
    assert!(!one.has_proof(at(350)));
}

#[test]
fn a_journal_of_its_own_needs_no_proof() {
    let terms = JournalTerms { is_exclusive: true, batch_max: 100, renewals: 6 };
    let config = ReignConfig { lasts: L, address: None, epoch_above: None, terms };
    let mut one = Reign::new(config, Box::new(|| 5), at(0));
    reigns(&mut one, 0);
    assert!(one.has_proof(at(100_000_000)));
    assert_eq!(one.poll_timeout(), None);
    one.write(pending(1));
    let (id, _) = asks(&mut one, at(90_000));
    let failed = JournalTrouble::Failed("no space left".to_owned());
    one.handle_answer(id, JournalAnswer::Trouble(failed), at(99_000));
    assert!(matches!(ending(&mut one), Some(ReignEnding::Failed(_))));
    assert!(!one.has_proof(at(99_000)));
}

/// A journal in memory, which does what it is asked at once.
struct Shelf {
    head: JournalHead,
    number: u64,
}

impl Shelf {
    fn does(&mut self, operation: &JournalOperation) -> JournalAnswer {
        let is_mine = |reign: &ReignKey| self.head.reign == Some(*reign);
        let stamp = Stamp(self.head.stamp.0 + 1);
        match operation {
            JournalOperation::Read => JournalAnswer::Head(self.head.clone()),
            JournalOperation::TakeOver(attempt) if attempt.seen == self.head.stamp => {
                let before = Recovered { epoch: self.head.epoch, ..Recovered::new(ClusterId(7)) };
                (self.head.reign, self.head.stamp) = (Some(attempt.reign), stamp);
                (self.head.epoch, self.head.lasts) = (self.head.epoch + 1, attempt.lasts);
                self.number = 0;
                let written = Written::committed(Vec::new());
                JournalAnswer::TakeOver(TakeOver::Took(Box::new(Took { stamp, before, written })))
            }
            JournalOperation::TakeOver(_) => {
                JournalAnswer::TakeOver(TakeOver::Raced(self.head.clone()))
            }
            JournalOperation::Renew(reign) if is_mine(reign) => {
                self.head.stamp = stamp;
                renewed(stamp.0)
            }
            JournalOperation::Renew(_) => {
                JournalAnswer::Renewal(ReignRenewal::Deposed(self.head.clone()))
            }
            JournalOperation::Resign(reign) => {
                if is_mine(reign) {
                    (self.head.reign, self.head.stamp) = (None, stamp);
                }
                JournalAnswer::Resigned
            }
            JournalOperation::Append { .. } => unreachable!("nothing is written here"),
        }
    }
}

/// A proven reign is the journal's, whatever is slow, lost or late, with one clock that goes a
/// hundredth slow and one that goes as fast.
#[test]
fn a_proven_reign_is_the_journals() {
    let mut proofs = [0, 0];
    for seed in 0..3_000 {
        let mut dice = ReignDice(seed * 2 + 1);
        let mut truth = 0_u64; // in microseconds
        let clock = |truth: u64, number: usize| {
            Time::from_nanos(5_000_000_000 + truth * [990, 1_010][number])
        };
        let mut both = [reign(1), reign(2)];
        let mut shelf = Shelf { head: head(None, 1), number: 0 };
        let mut asked: [VecDeque<(OperationId, JournalOperation)>; 2] = Default::default();
        let mut answered: [VecDeque<(OperationId, JournalAnswer)>; 2] = Default::default();
        let longest = 1 + dice.below(300);
        for _ in 0..300 {
            let number = dice.below(2) as usize;
            let one = &mut both[number];
            match dice.below(26) {
                0..6 => truth += dice.below(longest) * 1_000,
                6..12 => asked[number].extend(one.poll_operation(clock(truth, number))),
                12..18 => {
                    if let Some((id, operation)) = asked[number].pop_front() {
                        answered[number].push_back((id, shelf.does(&operation)));
                    }
                }
                18..24 => {
                    if let Some((id, answer)) = answered[number].pop_front() {
                        one.handle_answer(id, answer, clock(truth, number));
                    }
                }
                24 => drop(answered[number].pop_front()),
                _ if dice.below(10) == 0 => one.resign(clock(truth, number)),
                _ => {}
            }
            for (number, one) in both.iter_mut().enumerate() {
                while one.poll_event().is_some() {}
                if one.has_proof(clock(truth, number)) {
                    assert_eq!(one.reigning(), shelf.head.reign, "seed {seed}");
                    proofs[number] += 1;
                }
            }
        }
    }
    assert!(proofs[0].min(proofs[1]) > 10_000, "{proofs:?}");
}

struct ReignDice(u64);

impl ReignDice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
