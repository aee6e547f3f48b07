use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::{
    error::Predecessor,
    host::lease_word::{Claim, LeaseKey},
};

#[derive(Debug, PartialEq)]
enum SettleStep {
    Raised(Token, bool),
    Released(bool),
}

/// Says each time whether the word is open.
struct TellingSettle(Arc<LeaseWord>, Sender<SettleStep>);

impl TellingSettle {
    fn is_open(&self) -> bool {
        self.0.is_of(LEASE)
    }
}

impl Settle for TellingSettle {
    fn may_block(&self, _: Option<Token>) -> bool {
        false
    }

    fn pass_on(&mut self) {
        assert!(self.is_open());
    }

    fn raise(&mut self, block_end: Token) {
        self.1.send(SettleStep::Raised(block_end, self.is_open())).unwrap();
    }

    fn release(self: Box<Self>) {
        self.1.send(SettleStep::Released(self.is_open())).unwrap();
    }
}

const LEASE: LeaseKey = LeaseKey { high: 3, low: 1 };

fn settlement() -> (Arc<LeaseWord>, Settlement, Receiver<SettleStep>) {
    let (tell, told) = channel();
    let word = Arc::new(LeaseWord::new());
    (word.clone(), Settlement::new(Box::new(TellingSettle(word, tell))), told)
}

#[test]
fn a_grant_raises_the_token_then_opens_the_word_then_lets_go_of_the_slot() {
    let (word, settlement, told) = settlement();
    let [first, last] = [1, 9].map(|count| Token::new(count).unwrap());
    let (predecessor, at_most) = (Predecessor::Clean, None);
    let keeps = true;
    let lease = LEASE;
    let is_shared = false;
    let opening = Opening { lease, first, last, predecessor, at_most, keeps, is_shared };
    settlement.grant(&word, opening);
    let steps: Vec<_> = told.iter().collect();
    assert_eq!(steps, [SettleStep::Raised(last, false), SettleStep::Released(true)]);
    assert!(matches!(word.claim(), Claim::Entered(entered) if entered.token == first));
}

#[test]
fn a_request_that_ends_without_a_grant_lets_go_of_the_slot_once() {
    let (_, settlement, told) = settlement();
    drop(settlement);
    assert_eq!(told.iter().collect::<Vec<_>>(), [SettleStep::Released(false)]);
}
