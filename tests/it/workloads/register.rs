//! Whether what several processes did to one register can be put in an order that makes sense: a
//! checker after Wing and Gong, with Lowe's memory of what was tried.

use std::collections::HashSet;

/// What a worker did, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) invoked: u64,
    /// `None`: it is not known whether it ever took place.
    pub(super) completed: Option<u64>,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Read(u64),
    Write(u64),
    /// Read the first, and wrote the second in its place.
    Replace(u64, u64),
}

impl What {
    fn found(self) -> Option<u64> {
        match self {
            What::Read(found) | What::Replace(found, _) => Some(found),
            What::Write(_) => None,
        }
    }

    fn left(self) -> Option<u64> {
        match self {
            What::Write(left) | What::Replace(_, left) => Some(left),
            What::Read(_) => None,
        }
    }

    /// The register after it, if it can have taken place at this value.
    fn applied(self, value: u64) -> Option<u64> {
        match self {
            What::Read(read) => (read == value).then_some(value),
            What::Write(written) => Some(written),
            What::Replace(read, written) => (read == value).then_some(written),
        }
    }
}

/// Whether there is an order of the operations, beginning with a register of zero, in which each
/// finds what it found, and which contradicts none that was over before another began.
pub(super) fn is_linearizable(operations: &[Operation]) -> bool {
    // What no worker saw need not have taken place.
    let seen: HashSet<u64> =
        operations.iter().filter_map(|operation| operation.what.found()).collect();
    let mut history = operations.to_vec();
    history.retain(|one| {
        one.completed.is_some() || one.what.left().is_some_and(|v| seen.contains(&v))
    });
    history.sort_by_key(|operation| operation.invoked);
    let mut search = Search { history: &history, tried: HashSet::new() };
    search.goes_on_from(Taken { before: 0, beyond: Vec::new() }, 0)
}

/// Which operations have their place already: all before an index, and some beyond it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken {
    before: usize,
    /// In order.
    beyond: Vec<usize>,
}

struct Search<'a> {
    history: &'a [Operation],
    tried: HashSet<(Taken, u64)>,
}

impl Search<'_> {
    /// Tries depth first, without the stack: histories are long.
    fn goes_on_from(&mut self, start: Taken, value: u64) -> bool {
        let mut open = vec![(start, value)];
        while let Some((taken, value)) = open.pop() {
            if !self.tried.insert((taken.clone(), value)) {
                continue;
            }
            let left = |at: &usize| taken.beyond.binary_search(at).is_err();
            let rest = (taken.before..self.history.len()).filter(left);
            // Nothing may come before what was over when it began.
            let mut first_end = u64::MAX;
            let mut all_known_done = true;
            let mut candidates = Vec::new();
            for at in rest {
                let Operation { invoked, completed, what } = self.history[at];
                if invoked > first_end {
                    all_known_done = false;
                    break;
                }
                all_known_done &= completed.is_none();
                first_end = first_end.min(completed.unwrap_or(u64::MAX));
                if let Some(after) = what.applied(value) {
                    candidates.push((at, after));
                }
            }
            if all_known_done {
                return true;
            }
            // Those that no worker waited for are tried last: they are on top of nothing then.
            candidates.sort_by_key(|(at, _)| self.history[*at].completed.is_some());
            for (at, after) in candidates {
                open.push((taken.with(at), after));
            }
        }
        false
    }
}

impl Taken {
    fn with(&self, at: usize) -> Taken {
        let mut taken = self.clone();
        let place = taken.beyond.binary_search(&at).unwrap_err();
        taken.beyond.insert(place, at);
        while taken.beyond.first() == Some(&taken.before) {
            taken.beyond.remove(0);
            taken.before += 1;
        }
        taken
    }
}

mod tests {
    use super::{What::*, *};

    fn known(invoked: u64, completed: u64, what: What) -> Operation {
        Operation { invoked, completed: Some(completed), what }
    }

    fn unknown(invoked: u64, what: What) -> Operation {
        Operation { invoked, completed: None, what }
    }

    #[test]
    fn what_happens_one_after_the_other_must_fit() {
        let fine = [known(1, 2, Write(5)), known(3, 4, Read(5)), known(5, 6, Replace(5, 6))];
        assert!(is_linearizable(&fine));
        assert!(is_linearizable(&[]));
        assert!(is_linearizable(&[known(1, 2, Read(0))]));
        // A stale read.
        assert!(!is_linearizable(&[known(1, 2, Write(5)), known(3, 4, Read(0))]));
        // A lost update: both replaced the same.
        let lost = [known(1, 4, Replace(0, 1)), known(2, 5, Replace(0, 2))];
        assert!(!is_linearizable(&lost));
    }

    #[test]
    fn what_happens_at_once_may_come_in_any_order() {
        let both = [known(1, 4, Write(5)), known(2, 3, Read(0)), known(2, 3, Read(5))];
        assert!(is_linearizable(&both));
        // But in one.
        let back = [known(1, 9, Write(5)), known(2, 3, Read(5)), known(4, 5, Read(0))];
        assert!(!is_linearizable(&back));
    }

    #[test]
    fn an_unknown_outcome_may_have_been_at_any_time_or_never() {
        let write = unknown(1, Write(5));
        for (later, possible) in [(Read(0), true), (Read(5), true), (Read(7), false)] {
            assert_eq!(is_linearizable(&[write, known(3, 4, later)]), possible);
        }
        let late = [write, known(3, 4, Read(0)), known(5, 6, Read(5)), known(7, 8, Read(0))];
        assert!(!is_linearizable(&late));
        assert!(!is_linearizable(&[known(1, 2, Read(5)), unknown(3, Write(5))]));
    }

    #[test]
    fn a_long_history_of_many_at_once_is_checked() {
        // Five at a time for a long while, each batch in an order that only the reads show.
        let mut history = Vec::new();
        for batch in 0..1_000_u64 {
            let (from, to) = (batch * 10 + 1, batch * 10 + 9);
            history.extend((1..=4).map(|n| known(from, to, Write(batch * 4 + n))));
            history.push(known(to + 1, to + 1, Read(batch * 4 + 1 + batch % 4)));
            history.push(unknown(from, Write(u64::MAX - batch)));
        }
        assert!(is_linearizable(&history));
        history.push(known(20_000, 20_001, Read(1)));
        assert!(!is_linearizable(&history));
    }
}
