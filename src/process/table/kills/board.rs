//! What workers share beside the table: words in a mapped file, protected by the locks under test
//! and by nothing else.

use std::{fs::File, path::Path, thread};

use crate::{
    error::Predecessor,
    process::{
        Taken,
        sys::{BYTES, WORDS, Words},
    },
};

/// Names that everybody counts under.
pub(super) const NAMES: usize = 3;
pub(super) const WORKERS: usize = 4;

/// What `Board::phase` says beside steps, which are counted from 1.
pub(super) const OUTSIDE: u64 = 1_000;
pub(super) const INSIDE: u64 = 1_001;

/// Words of a name.
const COUNT: usize = 0;
const TOKEN: usize = 1;
/// Who is inside, plus one.
const INSIDE_BY: usize = 2;
/// How the last one left.
const LEFT: usize = 3;
/// What whoever is inside is about to do: who plus one, what the count is to be, and how many of
/// them are its own.
const JOURNAL: usize = 4;
const NAME_WORDS: usize = 8;

/// Words of a worker.
const PHASE: usize = 0;
/// How many it counted, by name.
const COUNTED: usize = 1;
const WORKER_WORDS: usize = 8;
const WORKERS_BEGIN: usize = NAMES * NAME_WORDS;

const OVER: usize = WORKERS_BEGIN + WORKERS * WORKER_WORDS;

/// Names that come and go; a word each: the last token and, in the upper byte, who is inside.
pub(super) const OTHERS: usize = 400;
const OTHERS_BEGIN: usize = OVER + 1;
const OTHER_INSIDE: u32 = 56;

/// Two numbers that only a writer makes differ.
const PAIR: usize = OTHERS_BEGIN + OTHERS;

const _: () = assert!(PAIR + 2 <= WORDS);

pub(super) struct Board(Words);

impl Board {
    pub(super) fn make(path: &Path) -> Board {
        File::create_new(path).unwrap().set_len(BYTES as u64).unwrap();
        Board::open(path)
    }

    pub(super) fn open(path: &Path) -> Board {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Board(Words::map(&file).unwrap())
    }

    /// Whether workers are to come to their end.
    pub(super) fn is_over(&self) -> bool {
        self.0.load(OVER) != 0
    }

    pub(super) fn end(&self) {
        self.0.store(OVER, 1);
    }

    pub(super) fn phase(&self, worker: usize) -> u64 {
        self.0.load(WORKERS_BEGIN + worker * WORKER_WORDS + PHASE)
    }

    pub(super) fn set_phase(&self, worker: usize, phase: u64) {
        self.0.store(WORKERS_BEGIN + worker * WORKER_WORDS + PHASE, phase);
    }

    /// How many this worker, and those who were it before, counted.
    pub(super) fn counted(&self, worker: usize) -> u64 {
        (0..NAMES).map(|name| self.0.load(Board::counted_at(worker, name))).sum()
    }

    fn counted_at(worker: usize, name: usize) -> usize {
        WORKERS_BEGIN + worker * WORKER_WORDS + COUNTED + name
    }

    fn get(&self, name: usize, word: usize) -> u64 {
        self.0.load(name * NAME_WORDS + word)
    }

    fn set(&self, name: usize, word: usize, value: u64) {
        self.0.store(name * NAME_WORDS + word, value);
    }

    // ---- for whoever holds the name's lock -----------------------------------------------------

    /// Comes in: finishes what one who died inside had begun, and checks what is promised.
    pub(super) fn enter(&self, name: usize, worker: usize, taken: &Taken) -> Result<(), String> {
        let (inside, died) = (self.get(name, INSIDE_BY), taken.predecessor == Predecessor::Died);
        if inside != 0 && !died {
            let told = taken.predecessor;
            return Err(format!("worker {inside} is inside, or died there and {told} is told"));
        }
        let left = Predecessor::from_u8(self.get(name, LEFT) as u8);
        if !died && taken.predecessor != left {
            return Err(format!("the last one left {left}, and {} is told", taken.predecessor));
        }
        let last = self.get(name, TOKEN);
        if taken.token.get() <= last {
            return Err(format!("token {} after {last}", taken.token));
        }
        self.set(name, TOKEN, taken.token.get());
        self.set(name, INSIDE_BY, worker as u64 + 1);
        self.redo(name);
        Ok(())
    }

    /// Counts one more, `dwelling` in the middle.
    pub(super) fn count(
        &self,
        name: usize,
        worker: usize,
        dwell: impl FnOnce(),
    ) -> Result<(), String> {
        let count = self.get(name, COUNT);
        let counted = self.0.load(Board::counted_at(worker, name));
        self.set(name, JOURNAL + 1, count + 1);
        self.set(name, JOURNAL + 2, counted + 1);
        self.set(name, JOURNAL, worker as u64 + 1);
        dwell();
        let (now, inside) = (self.get(name, COUNT), self.get(name, INSIDE_BY));
        if now != count || inside != worker as u64 + 1 {
            return Err(format!(
                "it counted {count}, and meanwhile somebody {now}; worker {inside} is inside too"
            ));
        }
        self.redo(name);
        Ok(())
    }

    /// Goes out, to leave so.
    pub(super) fn leave(&self, name: usize, how: Predecessor) {
        self.set(name, LEFT, how as u64);
        self.set(name, INSIDE_BY, 0);
    }

    /// Comes in to a name that comes and goes.
    pub(super) fn visit(&self, other: usize, worker: usize, taken: &Taken) -> Result<(), String> {
        let at = OTHERS_BEGIN + other;
        let (inside, last) = (self.0.load(at) >> OTHER_INSIDE, self.0.load(at) << 8 >> 8);
        if inside != 0 && taken.predecessor != Predecessor::Died {
            let told = taken.predecessor;
            return Err(format!(
                "other{other}: worker {inside} is inside, or died and {told} is told"
            ));
        }
        if taken.token.get() <= last {
            return Err(format!("other{other}: token {} after {last}", taken.token));
        }
        let mine = (worker as u64 + 1) << OTHER_INSIDE | taken.token.get();
        self.0.store(at, mine);
        thread::yield_now();
        if self.0.load(at) != mine {
            return Err(format!("other{other}: somebody else came in"));
        }
        self.0.store(at, taken.token.get());
        Ok(())
    }

    /// A reader looks at the pair, told how the last writer left.
    pub(super) fn see_pair(&self, told: Predecessor) -> Result<(), String> {
        let pair = [0, 1].map(|at| self.0.load(PAIR + at));
        match told == Predecessor::Clean && pair[0] != pair[1] {
            true => Err(format!("a reader sees {pair:?}, and is told nothing")),
            false => Ok(()),
        }
    }

    /// The writer changes the pair, `dwelling` in the middle.
    pub(super) fn change_pair(
        &self,
        told: Predecessor,
        dwell: impl FnOnce(),
    ) -> Result<(), String> {
        self.see_pair(told)?;
        let next = self.0.load(PAIR).max(self.0.load(PAIR + 1)) + 1;
        self.0.store(PAIR, next);
        dwell();
        if self.0.load(PAIR) != next {
            return Err("two writers are inside".to_owned());
        }
        self.0.store(PAIR + 1, next);
        Ok(())
    }

    /// Does what the journal says; also what somebody had done in part.
    fn redo(&self, name: usize) {
        let Some(worker) = self.get(name, JOURNAL).checked_sub(1) else { return };
        self.0.store(Board::counted_at(worker as usize, name), self.get(name, JOURNAL + 2));
        self.set(name, COUNT, self.get(name, JOURNAL + 1));
        self.set(name, JOURNAL, 0);
    }

    /// The sum of all counts, if it is that of what each worker counted.
    pub(super) fn sum(&self) -> Result<u64, String> {
        let count: u64 = (0..NAMES).map(|name| self.get(name, COUNT)).sum();
        let counted: u64 = (0..WORKERS).map(|worker| self.counted(worker)).sum();
        if count == counted {
            Ok(count)
        } else {
            Err(format!("{counted} increments were made, and the counters say {count}"))
        }
    }
}
