//! The end of a request under loom: grant, failure, cancel and drop meet at any moment, and the slot that
//! came with the request is released once.
//! `RUSTFLAGS="--cfg tierlock_loom" cargo test --release --no-default-features --features testing --lib service::model`
//!
//! The slot's word bears the process's id, whichever of its threads holds it, and no token is compared when
//! an asker's is released. So a second release frees the hold of the next thread of this process.

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::*},
    },
    thread,
};

use super::{Settle, Settlement};
use crate::{
    error::Predecessor,
    host::lease_word::{LeaseKey, LeaseWord, Opening},
    played,
    token::Token,
};

const FREE: u64 = 0;
const OURS: u64 = 1;

struct SettleScene {
    word: Arc<LeaseWord>,
    /// The service's table, with the one request.
    table: Mutex<Option<Settlement>>,
    slot: Arc<ModelSlot>,
    /// A mistake: the cancel releases the slot by itself.
    cancel_settles: bool,
}

struct ModelSlot {
    word: AtomicU64,
    token: AtomicU64,
}

/// The asker's hold, and the word that a grant opens.
struct AskersHold(Arc<ModelSlot>, Arc<LeaseWord>);

impl Settle for AskersHold {
    fn may_block(&self, _: Option<Token>) -> bool {
        false
    }

    fn pass_on(&mut self) {}

    fn raise(&mut self, block_end: Token) {
        assert!(!self.1.is_of(LEASE), "the token is raised before the word is open");
        self.0.token.store(block_end.get(), Relaxed);
    }

    fn release(self: Box<Self>) {
        let is_raised = self.0.token.load(Relaxed) != 0;
        assert_eq!(self.1.is_of(LEASE), is_raised, "the word is open before the slot is released");
        self.0.release();
    }
}

impl ModelSlot {
    fn release(&self) {
        assert_eq!(self.word.swap(FREE, SeqCst), OURS, "what was released was not held");
    }
}

const LEASE: LeaseKey = LeaseKey { high: 1, low: 1 };

fn token(count: u64) -> Token {
    Token::new(Token::first_of(1).get() + count).unwrap()
}

impl SettleScene {
    fn new(cancel_settles: bool) -> SettleScene {
        let slot = ModelSlot { word: AtomicU64::new(OURS), token: AtomicU64::new(0) };
        let (slot, word) = (Arc::new(slot), Arc::new(LeaseWord::new()));
        let settlement = Settlement::new(Box::new(AskersHold(slot.clone(), word.clone())));
        SettleScene { word, table: Mutex::new(Some(settlement)), slot, cancel_settles }
    }

    /// Takes the request out of the table, and settles it under the table's lock.
    fn grant(&self) {
        let mut table = self.table.lock().unwrap();
        let Some(settlement) = table.take() else { return };
        settlement.grant(
            &self.word,
            Opening {
                lease: LEASE,
                first: token(1),
                last: token(9),
                predecessor: Predecessor::Clean,
                at_most: None,
                keeps: true,
                is_shared: false,
            },
        );
    }

    /// The service is closed, or the leader refuses.
    fn fail(&self) {
        drop(self.table.lock().unwrap().take());
    }

    /// The caller's time is over, or its future is dropped. Where the request is gone, its grant is there:
    /// what is reserved is given up.
    fn cancel(&self) {
        let mut table = self.table.lock().unwrap();
        if self.cancel_settles {
            drop(table);
            return self.slot.release();
        }
        let settlement = table.take();
        let is_gone = settlement.is_none();
        drop(settlement);
        drop(table);
        if is_gone {
            let used = self.word.give_up_reserved();
            assert!(used.is_none(), "it may stay, idle");
        }
    }

    /// Another thread of this process wins the slot, once or in vain.
    fn win_slot(&self) {
        if self.slot.word.compare_exchange(FREE, OURS, SeqCst, SeqCst).is_ok() {
            thread::yield_now();
            self.slot.release();
        }
    }

    fn end(&self) {
        assert!(self.table.lock().unwrap().is_none());
        assert_eq!(self.slot.word.load(SeqCst), FREE, "the slot was left held");
        let is_granted = self.slot.token.load(Relaxed) != 0;
        assert_eq!(self.word.is_of(LEASE), is_granted);
        // Unclaimed, it is reserved or idle: no guard is in.
        if is_granted {
            let left = self.word.give_up_reserved().or_else(|| self.word.close_idle());
            assert!(left.is_some());
        }
    }
}

type SettleAct = fn(&SettleScene);

fn play(cancel_settles: bool, here: SettleAct, others: &'static [SettleAct]) {
    let new = move || Arc::new(SettleScene::new(cancel_settles));
    played::play(3, new, here, others, SettleScene::end);
}

const GRANT: SettleAct = SettleScene::grant;
const FAIL: SettleAct = SettleScene::fail;
const CANCEL: SettleAct = SettleScene::cancel;
const WIN: SettleAct = SettleScene::win_slot;

#[test]
fn the_slot_of_a_request_is_released_once() {
    play(false, CANCEL, &[GRANT, WIN]);
    play(false, FAIL, &[GRANT, WIN]);
    play(false, CANCEL, &[FAIL, WIN]);
    play(false, CANCEL, &[GRANT, FAIL, WIN]);
}

/// Both release it, and the second one frees what a sibling holds, or nothing.
#[test]
#[should_panic(expected = "what was released was not held")]
fn found_a_cancel_that_settles_by_itself() {
    play(true, CANCEL, &[GRANT, WIN]);
}
