//! Walks through every world that a play can come to, and asks of each whether it can still end
//! well.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
};

use super::{super::step::Step, Doing, Job, Move, Play, StepKind, Violation, World};

/// What was found.
pub(super) struct PlayReport {
    pub(super) worlds: usize,
    pub(super) moves: usize,
    pub(super) violation: Option<(Violation, String)>,
    /// The rows of the word's table met.
    pub(super) rows: BTreeSet<(bool, u64)>,
    /// The steps made.
    pub(super) steps: BTreeSet<Step>,
}

/// Every world of the play.
pub(super) fn explore<const N: usize>(play: &Play<N>) -> PlayReport {
    explore_up_to(usize::MAX, play)
}

/// So many worlds of the play, which may be endless: from the fewest steps to the most.
pub(super) fn explore_up_to<const N: usize>(worlds_max: usize, play: &Play<N>) -> PlayReport {
    let mut walk = Walk::new(play, worlds_max);
    let broken = walk.everywhere();
    let violation = broken.or_else(|| match walk.is_complete() {
        true => walk.without_end(),
        false => None,
    });
    let violation = violation.map(|(violation, at)| (violation, walk.story(at, violation)));
    let (worlds, moves) = (walk.notes.len(), walk.edges.len());
    PlayReport { worlds, moves, violation, rows: walk.rows, steps: walk.steps }
}

struct Walk<'a, const N: usize> {
    play: &'a Play<N>,
    worlds_max: usize,
    /// Number of each world, by its fingerprint: 128 bits stand for the world itself.
    numbers: HashMap<u128, u32, BuildHasherDefault<Fingerprints>>,
    notes: Vec<Note>,
    /// By the world they lead from; `Note::first` is where a world's begin.
    edges: Vec<Edge>,
    rows: BTreeSet<(bool, u64)>,
    steps: BTreeSet<Step>,
}

/// What is kept of a world.
#[derive(Clone, Copy)]
struct Note {
    parent: u32,
    first: u32,
    /// A bit per thread: it has nothing left to do.
    done: u8,
    dead: u8,
    /// It holds the lock or the structural one.
    inside: u8,
    /// All are done and none died, but the word stays slow.
    is_slow: bool,
}

#[derive(Clone, Copy)]
struct Edge {
    to: u32,
    thread: u8,
    kind: StepKind,
}

impl<'a, const N: usize> Walk<'a, N> {
    fn new(play: &'a Play<N>, worlds_max: usize) -> Walk<'a, N> {
        Walk {
            play,
            worlds_max,
            numbers: HashMap::default(),
            notes: Vec::new(),
            edges: Vec::new(),
            rows: BTreeSet::new(),
            steps: BTreeSet::new(),
        }
    }

    /// The first world with a step that breaks a property, if any has.
    fn everywhere(&mut self) -> Option<(Violation, u32)> {
        let mut ahead = VecDeque::new();
        let first = World::new(self.play);
        self.meet(&first, 0);
        ahead.push_back(first);
        let mut at = 0;
        while let Some(world) = ahead.pop_front() {
            if !self.is_complete() {
                return None;
            }
            self.notes[at as usize].first = self.edges.len() as u32;
            if world.is_cut(self.play) {
                at += 1;
                continue;
            }
            self.rows.insert(world.word.row());
            self.steps.extend((0..N).filter_map(|thread| world.step(thread)));
            for step in world.moves(self.play) {
                let to = match step.to {
                    Ok(to) => to,
                    Err(violation) => return Some((violation, at)),
                };
                let (number, new) = self.meet(&to, at);
                if new {
                    ahead.push_back(to);
                }
                self.edges.push(Edge { to: number, thread: step.thread as u8, kind: step.kind });
            }
            at += 1;
        }
        None
    }

    fn is_complete(&self) -> bool {
        self.notes.len() < self.worlds_max
    }

    fn meet(&mut self, world: &World<N>, parent: u32) -> (u32, bool) {
        let number = self.notes.len() as u32;
        let known = *self.numbers.entry(fingerprint(world)).or_insert(number);
        if known < number {
            return (known, false);
        }
        let bits = |is: &dyn Fn(usize) -> bool| {
            (0..N).filter(|thread| is(*thread)).fold(0, |bits, thread| bits | 1 << thread)
        };
        let (done, dead) =
            (bits(&|thread| world.is_done(thread)), bits(&|thread| world.is_dead(thread)));
        let all = (1 << N) - 1;
        self.notes.push(Note {
            parent,
            first: 0,
            done: if world.is_cut(self.play) { all } else { done },
            dead,
            inside: bits(&|thread| {
                let shares = world.shares[self.play.process[thread]];
                world.threads[thread].inside
                    || world.structure == Some(thread as u8)
                    // A reader, or one that has yet to take back its 1.
                    || shares.is_some_and(|share| share.count() > 0)
            }),
            is_slow: done == all && dead == 0 && !world.becomes_quiet(self.play),
        });
        (number, true)
    }

    /// The first world that cannot end as it must, if there is one.
    fn without_end(&self) -> Option<(Violation, u32)> {
        let all = (1_u8 << N) - 1;
        if let Some(number) = self.notes.iter().position(|note| note.is_slow) {
            return Some((Violation::NeverQuiet, number as u32));
        }
        let back = Back::new(self);
        // No timers, where no process is dead.
        let plainly = back.reach(|note| note.done == all, |edge| edge.kind == StepKind::Plain);
        let stuck = |ends: &[bool], asked: &dyn Fn(&Note) -> bool| {
            let number = self.notes.iter().zip(ends).position(|(note, ends)| !ends && asked(note));
            number.map(|number| number as u32)
        };
        // `at_least` is a time that must pass.
        let may_need_timers = self.play.has(Job::Stay);
        if let Some(number) = stuck(&plainly, &|note| note.dead == 0 && !may_need_timers) {
            return Some((Violation::NeedsTimer, number));
        }
        // With timers, whichever process is dead.
        let somehow = back.reach(|note| note.done == all, |edge| edge.kind <= StepKind::Timer);
        if let Some(number) = stuck(&somehow, &|_| true) {
            return Some((Violation::NeverFinishes, number));
        }
        // A process is stopped with all its threads.
        for processes in 1..1_u8 << N {
            let of = |thread: usize| processes >> self.play.process[thread] & 1 != 0;
            let stopped = (0..N).filter(|thread| of(*thread)).fold(0, |bits, t| bits | 1 << t);
            if stopped == 0 || stopped == all {
                continue;
            }
            let ends = back.reach(
                |note| note.done | stopped == all,
                |edge| edge.kind <= StepKind::Timer && stopped >> edge.thread & 1 == 0,
            );
            if let Some(number) = stuck(&ends, &|note| note.inside & stopped == 0) {
                return Some((Violation::HeldUpByStopped, number));
            }
        }
        None
    }

    /// How one comes to a world, step by step, and what breaks there.
    fn story(&self, at: u32, violation: Violation) -> String {
        let mut numbers = vec![at];
        while *numbers.last().unwrap() != 0 {
            numbers.push(self.notes[*numbers.last().unwrap() as usize].parent);
        }
        numbers.reverse();
        let mut world = World::new(self.play);
        let mut story = String::new();
        let line = |step: &Move<N>| {
            let (op, answer) = step.what;
            let what = match (op, answer) {
                _ if step.kind == StepKind::Death => "dies".to_owned(),
                (Some(op), Some(answer)) => format!("{op:?} → {answer:?}"),
                (Some(op), None) => format!("{op:?}"),
                (None, Some(answer)) => format!("{answer:?}"),
                (None, None) => "decides".to_owned(),
            };
            format!("  {} {what}", step.thread + 1)
        };
        for to in &numbers[1..] {
            let step = world
                .moves(self.play)
                .into_iter()
                .find(|step| step.to.is_ok_and(|world| self.numbers[&fingerprint(&world)] == *to));
            let step = step.expect("the same steps again");
            world = step.to.expect("found by where it leads");
            story += &format!("{}   [{:?}{}]\n", line(&step), world.word, records(&world));
        }
        if let Some(step) = world.moves(self.play).iter().find(|step| step.to == Err(violation)) {
            story += &format!("{}\n", line(step));
        }
        for (number, thread) in world.threads.iter().enumerate() {
            let doing: &Doing = &thread.doing;
            story += &format!("  {} is at {doing:?}\n", number + 1);
        }
        story
    }
}

/// The records in use, for people.
fn records<const N: usize>(world: &World<N>) -> String {
    let shown = world.records.iter().enumerate().filter(|(_, record)| !record.word.is_free());
    let shown = shown.map(|(at, record)| {
        let passed = if record.word.is_passed() { " passed" } else { "" };
        let place = if record.here { "" } else { " elsewhere" };
        let owner = record.word.owner().map_or(0, |owner| owner.get());
        let used = record.word.use_count();
        format!("; wait {}.{used} of {owner}{passed}{place}", at + 1)
    });
    shown.collect()
}

/// The edges by the world they lead to.
struct Back<'a, const N: usize> {
    walk: &'a Walk<'a, N>,
    /// Where a world's begin in `from`.
    first: Vec<u32>,
    /// World and edge.
    from: Vec<(u32, u32)>,
}

impl<'a, const N: usize> Back<'a, N> {
    fn new(walk: &'a Walk<'a, N>) -> Back<'a, N> {
        let mut first = vec![0_u32; walk.notes.len() + 1];
        for edge in &walk.edges {
            first[edge.to as usize + 1] += 1;
        }
        for at in 1..first.len() {
            first[at] += first[at - 1];
        }
        let mut next = first.clone();
        let mut from = vec![(0, 0); walk.edges.len()];
        for (number, note) in walk.notes.iter().enumerate() {
            let end =
                walk.notes.get(number + 1).map_or(walk.edges.len(), |note| note.first as usize);
            for at in note.first as usize..end {
                let place = &mut next[walk.edges[at].to as usize];
                from[*place as usize] = (number as u32, at as u32);
                *place += 1;
            }
        }
        Back { walk, first, from }
    }

    /// From which worlds one comes to an end along such edges.
    fn reach(&self, is_end: impl Fn(&Note) -> bool, may: impl Fn(&Edge) -> bool) -> Vec<bool> {
        let mut ends: Vec<bool> = self.walk.notes.iter().map(is_end).collect();
        let mut ahead: Vec<u32> =
            (0..ends.len()).filter(|at| ends[*at]).map(|at| at as u32).collect();
        while let Some(at) = ahead.pop() {
            let range = self.first[at as usize] as usize..self.first[at as usize + 1] as usize;
            for (number, edge) in &self.from[range] {
                if !ends[*number as usize] && may(&self.walk.edges[*edge as usize]) {
                    ends[*number as usize] = true;
                    ahead.push(*number);
                }
            }
        }
        ends
    }
}

fn fingerprint<const N: usize>(world: &World<N>) -> u128 {
    let mut hasher = Wide { low: 0x243f_6a88_85a3_08d3, high: 0x1319_8a2e_0370_7344 };
    world.hash(&mut hasher);
    u128::from(hasher.finish()) | u128::from(hasher.high) << 64
}

/// A hasher of 128 bits, two multiplications a word.
struct Wide {
    low: u64,
    high: u64,
}

impl Wide {
    fn add(&mut self, value: u64) {
        self.low = (self.low ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.low ^= self.low >> 32;
        self.high = (self.high.rotate_left(23) ^ value).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.high ^= self.high >> 29;
    }
}

impl Hasher for Wide {
    fn finish(&self) -> u64 {
        self.low
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut value = [0; 8];
            value[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(value));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.add(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.add(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.add(value as u64);
    }
}

/// Takes a fingerprint as its own hash.
#[derive(Default)]
struct Fingerprints(u64);

impl Hasher for Fingerprints {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("fingerprints are u128");
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}
