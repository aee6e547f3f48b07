//! Whether a history of acquires and releases could have happened one by one.
//!
//! The lock is a register: free, or held with a token. An acquire of a free lock gives a token
//! higher than all before; a release frees it; an attempt that finds it held changes nothing.
//! Each happened at one moment between its call and its return, if it returned. The search is
//! Wing and Gong's, with Lowe's memory of where it has been.

use std::collections::HashSet;

use tierlock::{Token, proto::wire::Mode};

use crate::{
    clock::{Truth, shown},
    restored::Branch,
    rules::{Made, Op},
    upgrading::Converting,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Acquired(Token),
    Released(Token),
    /// Another held it.
    Busy,
    /// A reader enters, and leaves.
    Entered(Token),
    Left(Token),
    /// So many permits are taken, of so many, and given back.
    Took(Token, u32, u32),
    GaveBack(Token, u32),
}

impl What {
    fn acquired(mode: Mode, token: Token) -> What {
        match mode {
            Mode::Exclusive => What::Acquired(token),
            Mode::Shared | Mode::Upgradable => What::Entered(token),
            Mode::Permits { count, limit } => What::Took(token, count, limit),
        }
    }

    fn released(mode: Mode, token: Token) -> What {
        match mode {
            Mode::Exclusive => What::Released(token),
            Mode::Shared | Mode::Upgradable => What::Left(token),
            Mode::Permits { count, .. } => What::GaveBack(token, count),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) what: What,
    pub(crate) call: Truth,
    /// `None`: it is not known whether it happened.
    pub(crate) returned: Option<Truth>,
}

/// What was done with one name.
pub(crate) fn of(ops: &[Op], name: usize, branch: Branch) -> Vec<Entry> {
    let mut history = Vec::new();
    let of_name = ops.iter().filter(|op| op.name == name);
    for op in of_name.filter(|op| op.branch == branch) {
        // After a restore another may have had it that was not known.
        // For others than a writer a waiter may have stood in the way.
        let is_writer = op.mode == Mode::Exclusive;
        if op.busy && is_writer && !op.met_reservation && branch == Branch::First {
            history.push(Entry { what: What::Busy, call: op.invoked, returned: op.failed });
        }
        // Held from a moment between call and return; until one between the others, if it was given back.
        let mut hold = |mode, token, (call, returned), (left, freed): (Option<Truth>, _)| {
            history.push(Entry { what: What::acquired(mode, token), call, returned });
            let gives_back =
                |call| Entry { what: What::released(mode, token), call, returned: freed };
            history.extend(left.map(gives_back));
        };
        // A reign that is over may have granted what its caller never heard of, and it is not known when that
        // ended.
        let heard = |made: &Made| {
            op.lease.is_some_and(|(lease, _)| lease == made.lease) || op.took == Some(made.token)
        };
        let mode = op.phases.first().map_or(op.mode, |phase| phase.mode);
        for made in op.made.iter().filter(|made| !heard(made)) {
            hold(mode, made.token, (op.invoked, None), (Some(made.at), None));
        }
        let (taken, given) = ((op.invoked, op.granted), (op.ended, op.freed));
        if let (Some(token), Some(_)) = (op.took, op.granted) {
            hold(op.mode, token, taken, given);
            continue;
        }
        if let Some((last, _)) = op.phases.split_last() {
            for phase in &op.phases {
                let is_last = std::ptr::eq(phase, last);
                let left = phase.left.or(op.ended.filter(|_| is_last));
                let freed = phase.freed.or(op.freed.filter(|_| is_last));
                hold(phase.mode, phase.token, (phase.call, phase.returned), (left, freed));
            }
            // What it has become without its caller's knowledge: it is not known until when.
            if let Some(Converting { to, asked, .. }) = op.converting {
                let known = |token| op.phases.iter().any(|phase| phase.token == token);
                for made in op.made.iter().filter(|made| heard(made) && !known(made.token)) {
                    hold(to, made.token, (asked, None), (Some(made.at), None));
                }
            }
            continue;
        }
        for made in op.made.iter().filter(|made| heard(made)) {
            hold(op.mode, made.token, taken, given);
        }
    }
    history
}

/// Says why the history is none of a lock.
pub(crate) fn check(history: &[Entry]) -> Result<(), String> {
    let mut entries = history.to_vec();
    entries.sort_by_key(|entry| entry.call);
    let mut search = Search {
        done: vec![0; entries.len().div_ceil(64)],
        open: entries.iter().filter(|entry| entry.returned.is_some()).count(),
        entries,
        seen: HashSet::new(),
        furthest: (usize::MAX, None),
        first: 0,
    };
    if search.go_on(State::default()) {
        return Ok(());
    }
    let (_, stuck) = search.furthest;
    let text = stuck.map_or(String::new(), |Entry { what, call, returned }| {
        let returned = returned.map(shown);
        format!("; {what:?}, called at {:?}, returned at {returned:?}, fits nowhere", shown(call))
    });
    Err(format!("no order of {} acquires and releases explains them{text}", history.len()))
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct State {
    held: Option<Token>,
    last: Token,
    /// The last of a writer.
    written: Token,
    readers: u32,
    permits: u32,
}

impl State {
    fn is_free(&self) -> bool {
        self.held.is_none() && self.readers == 0 && self.permits == 0
    }
}

struct Search {
    /// By their calls.
    entries: Vec<Entry>,
    /// Which of them have happened, as bits.
    done: Vec<u64>,
    /// How many that returned have not.
    open: usize,
    seen: HashSet<(Vec<u64>, State)>,
    /// How many were left where it got furthest, and what did not fit there.
    furthest: (usize, Option<Entry>),
    /// All before this one have happened.
    first: usize,
}

impl Search {
    fn go_on(&mut self, state: State) -> bool {
        if self.open == 0 {
            return true;
        }
        let first = self.first;
        while self.is_done(self.first) {
            self.first += 1;
        }
        // Whatever happens next was called before all the others that are open have returned.
        let mut next = Vec::new();
        let mut soonest: Option<Entry> = None;
        for at in self.first..self.entries.len() {
            let entry = self.entries[at];
            let until = soonest.and_then(|entry| entry.returned).unwrap_or(Truth::MAX);
            if entry.call > until {
                break;
            }
            if self.is_done(at) {
                continue;
            }
            if entry.returned.is_some_and(|returned| returned < until) {
                soonest = Some(entry);
            }
            next.push(at);
        }
        let until = soonest.and_then(|entry| entry.returned).unwrap_or(Truth::MAX);
        next.retain(|&at| self.entries[at].call <= until);
        if self.open < self.furthest.0 {
            self.furthest = (self.open, soonest);
        }
        // What changes nothing first, then by token: only that order can succeed.
        next.sort_by_key(|&at| match self.entries[at].what {
            What::Busy => (0, Token::ZERO),
            What::Released(token)
            | What::Acquired(token)
            | What::Entered(token)
            | What::Left(token)
            | What::Took(token, ..)
            | What::GaveBack(token, _) => (1, token),
        });
        for at in next {
            let Some(after) = step(state, self.entries[at].what) else { continue };
            self.mark(at);
            let fresh = self.seen.insert((self.done.clone(), after));
            if fresh && self.go_on(after) {
                return true;
            }
            self.unmark(at);
        }
        self.first = first;
        false
    }

    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] >> (at % 64) & 1 == 1
    }

    fn mark(&mut self, at: usize) {
        self.done[at / 64] |= 1 << (at % 64);
        self.open -= usize::from(self.entries[at].returned.is_some());
    }

    fn unmark(&mut self, at: usize) {
        self.done[at / 64] &= !(1 << (at % 64));
        self.open += usize::from(self.entries[at].returned.is_some());
    }
}

/// What a lock does.
fn step(state: State, what: What) -> Option<State> {
    match what {
        What::Acquired(token) if state.is_free() && token > state.last => {
            Some(State { held: Some(token), last: token, written: token, ..state })
        }
        What::Released(token) if state.held == Some(token) => Some(State { held: None, ..state }),
        What::Busy if !state.is_free() => Some(state),
        What::Entered(token)
            if state.held.is_none() && state.permits == 0 && token > state.written =>
        {
            let last = token.max(state.last);
            Some(State { readers: state.readers + 1, last, ..state })
        }
        What::Left(_) if state.readers > 0 => Some(State { readers: state.readers - 1, ..state }),
        What::Took(token, count, limit)
            if state.held.is_none() && state.readers == 0 && state.permits + count <= limit =>
        {
            let last = token.max(state.last);
            Some(State { permits: state.permits + count, last, ..state })
        }
        What::GaveBack(_, count) if state.permits >= count => {
            Some(State { permits: state.permits - count, ..state })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> Token {
        Token::new(number).unwrap()
    }

    fn acquired(number: u64, call: Truth, returned: Truth) -> Entry {
        Entry { what: What::Acquired(token(number)), call, returned: Some(returned) }
    }

    fn released(number: u64, call: Truth, returned: Option<Truth>) -> Entry {
        Entry { what: What::Released(token(number)), call, returned }
    }

    fn busy(call: Truth, returned: Truth) -> Entry {
        Entry { what: What::Busy, call, returned: Some(returned) }
    }

    #[test]
    fn what_a_lock_does_is_accepted() {
        let one_by_one = [
            acquired(1, 0, 1),
            busy(2, 3),
            released(1, 4, Some(5)),
            acquired(2, 6, 7),
            released(2, 8, None),
        ];
        assert_eq!(check(&one_by_one), Ok(()));
        // The second was called first, and waited; the release's answer came late.
        let waiting = [
            acquired(2, 0, 20),
            acquired(1, 1, 2),
            released(1, 5, Some(30)),
            busy(6, 25),
            released(2, 28, Some(40)),
        ];
        assert_eq!(check(&waiting), Ok(()));
        // It is not known whether the last acquire happened, and a try found it held.
        let given_up =
            [Entry { returned: None, ..acquired(1, 0, 0) }, released(1, 3, None), busy(8, 9)];
        assert_eq!(check(&given_up), Ok(()));
    }

    #[test]
    fn two_holders_at_one_time_are_found() {
        let both = [acquired(1, 0, 1), acquired(2, 2, 3), released(1, 4, None)];
        assert!(check(&both).is_err());
    }

    #[test]
    fn a_token_that_goes_back_is_found() {
        let back = [
            acquired(2, 0, 1),
            released(2, 2, Some(3)),
            acquired(1, 4, 5),
            released(1, 6, Some(7)),
        ];
        assert!(check(&back).is_err());
    }

    #[test]
    fn a_try_that_finds_a_free_lock_held_is_found() {
        let free = [
            acquired(1, 0, 1),
            released(1, 2, Some(3)),
            busy(4, 5),
            acquired(2, 6, 7),
            released(2, 8, None),
        ];
        assert!(check(&free).is_err());
        let taken_meanwhile = [
            acquired(1, 0, 1),
            released(1, 2, Some(3)),
            busy(4, 7),
            acquired(2, 6, 7),
            released(2, 8, None),
        ];
        assert_eq!(check(&taken_meanwhile), Ok(()));
    }
}
