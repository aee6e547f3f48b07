//! Starts workers, ends them, and looks after what they leave.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::{
    super::{TableDirectory, step::Step},
    ENDS, Tally, WorkerPhase,
    board::{Board, INSIDE, NAMES, OUTSIDE, WORKERS},
    worker::{ORDERS, WorkerOrders, board, hot, locks, of_at_least, open, violations},
};
use crate::{clock, token::Token};

/// Long enough for anything that is going to happen.
const LONG: Duration = Duration::from_secs(60);
/// A step that was not come to by then is left to another worker.
const LONGEST_WAY: Duration = Duration::from_secs(3);
/// The first so many workers change nothing but words: they go on whichever worker is stopped.
const PLAIN: usize = 2;
/// So many increments of others while one is stopped are going on.
const GOING_ON: u64 = 3;

/// Where a worker is to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) step: Step,
    pub(super) end: Signal,
}

pub(super) struct Crew {
    dir: TempDir,
    board: Board,
    workers: Vec<Hand>,
    lied_to: u64,
    /// Whether workers linger where they seldom are, so that ends at random find them there.
    lingers: bool,
    random: u64,
    tally: Tally,
    /// Keeps the table, and sees to what the dead leave.
    all: Arc<TableDirectory>,
}

/// A worker, as a process.
struct Hand {
    number: usize,
    pid: Pid,
    plan: Option<Plan>,
    since: Instant,
}

/// What became of a worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkerEvent {
    Killed,
    Stopped,
    Ended,
}

impl Crew {
    pub(super) fn new(lied_to: Option<u64>) -> Crew {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(locks(dir.path())).unwrap();
        let all = open(dir.path()).unwrap();
        let mut crew = Crew {
            board: Board::make(&board(dir.path())),
            dir,
            workers: Vec::new(),
            lied_to: lied_to.unwrap_or_default(),
            lingers: false,
            random: clock::now().as_nanos(),
            tally: Tally::default(),
            all,
        };
        for number in 0..WORKERS {
            let hand = crew.start(number, None);
            crew.workers.push(hand);
        }
        crew
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    fn start(&mut self, number: usize, plan: Option<Plan>) -> Hand {
        self.board.set_phase(number, OUTSIDE);
        // Doublings are rare.
        let rare = |plan: &Plan| WorkerPhase::of(plan.step) == WorkerPhase::Growing;
        let passes = if plan.is_some_and(|plan| rare(&plan)) { 0 } else { self.random(3) as u32 };
        let goal = plan.map(|plan| plan.step).or_else(|| self.goal_to_linger_at(number));
        let orders = WorkerOrders {
            dir: self.dir.path().to_owned(),
            worker: number,
            goal,
            seed: self.random(u64::MAX >> 33),
            is_plain: number < PLAIN,
            lied_to: self.lied_to,
            ends: plan.iter().map(|plan| (plan.step, passes, plan.end)).collect(),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["process::table::kills::worker::worker", "--exact", "--ignored", "--nocapture"])
            .env(ORDERS, orders.to_line())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // It is waited for by its number, stops and all.
        #[allow(clippy::zombie_processes)]
        let child = command.spawn().unwrap();
        Hand { number, pid: Pid::from_child(&child), plan, since: Instant::now() }
    }

    /// Every phase as often as the others, and in it every step.
    fn goal_to_linger_at(&mut self, number: usize) -> Option<Step> {
        let phase = WorkerPhase::ALL[self.random(WorkerPhase::ALL.len() as u64) as usize];
        let may_be = |step: &Step| WorkerPhase::of(*step) == phase && may_reach(number, *step);
        let steps: Vec<_> = Step::ALL.iter().copied().filter(may_be).collect();
        let is_to = self.lingers && !steps.is_empty();
        is_to.then(|| steps[self.random(steps.len() as u64) as usize])
    }

    fn restart(&mut self, at: usize, plan: Option<Plan>) {
        let number = self.workers[at].number;
        self.workers[at] = self.start(number, plan);
    }

    fn event(&self, at: usize) -> Option<WorkerEvent> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        let (_, status) = waitpid(Some(self.workers[at].pid), options).unwrap()?;
        Some(if status.stopped() {
            WorkerEvent::Stopped
        } else if status.terminating_signal() == Some(Signal::KILL.as_raw()) {
            WorkerEvent::Killed
        } else {
            WorkerEvent::Ended
        })
    }

    fn wait_for_event(&self, at: usize) -> WorkerEvent {
        let start = Instant::now();
        loop {
            if let Some(event) = self.event(at) {
                return event;
            }
            assert!(start.elapsed() < LONG, "a signalled worker goes on");
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn phase(&self, at: usize) -> WorkerPhase {
        match self.board.phase(self.workers[at].number) {
            OUTSIDE => WorkerPhase::Outside,
            INSIDE => WorkerPhase::Inside,
            step => WorkerPhase::of(Step::ALL[step as usize - 1]),
        }
    }

    /// Where it ended itself. Its other threads may have gone on a little.
    fn planned_phase(&self, at: usize) -> WorkerPhase {
        self.workers[at].plan.map_or_else(|| self.phase(at), |plan| WorkerPhase::of(plan.step))
    }

    fn signal(&self, at: usize, signal: Signal) {
        kill_process(self.workers[at].pid, signal).unwrap();
    }

    /// Has workers end at each of these, and waits until they have.
    pub(super) fn carry_out(&mut self, mut plans: VecDeque<Plan>) {
        let start = Instant::now();
        let busy = |crew: &Crew| crew.workers.iter().any(|hand| hand.plan.is_some());
        while !plans.is_empty() || busy(self) {
            if !self.is_sound() {
                return;
            }
            let left =
                || plans.iter().chain(self.workers.iter().filter_map(|hand| hand.plan.as_ref()));
            assert!(start.elapsed() < LONG * 2, "none comes to {:?}", left().collect::<Vec<_>>());
            for at in 0..WORKERS {
                let is_idle = self.workers[at].plan.is_none();
                let next = plans
                    .iter()
                    .position(|plan| is_idle && may_reach(self.workers[at].number, plan.step));
                if let Some(plan) = next.and_then(|next| plans.remove(next)) {
                    self.kill(at);
                    self.restart(at, Some(plan));
                    continue;
                }
                self.look_after(at, &mut plans);
            }
            thread::sleep(Duration::from_micros(500));
        }
    }

    fn look_after(&mut self, at: usize, plans: &mut VecDeque<Plan>) {
        if let Some(event) = self.event(at) {
            let is_stopped = event == WorkerEvent::Stopped;
            self.note_own_end(at, event);
            if is_stopped {
                self.look_after_stopped(at);
            }
            return;
        }
        let hand = &self.workers[at];
        if hand.plan.is_some() && hand.since.elapsed() > LONGEST_WAY {
            plans.extend(hand.plan);
            self.kill(at);
            self.restart(at, None);
        }
    }

    /// A worker came to the step where it was to end, or to an end that it was not to come to.
    fn note_own_end(&mut self, at: usize, event: WorkerEvent) {
        match event {
            WorkerEvent::Killed => {
                *self.tally.at_steps.kills.entry(self.planned_phase(at)).or_default() += 1;
                self.restart(at, None);
            }
            WorkerEvent::Stopped => {
                *self.tally.at_steps.stops.entry(self.planned_phase(at)).or_default() += 1;
                self.workers[at].plan = None;
            }
            WorkerEvent::Ended => self.note_failure(at),
        }
    }

    /// Others go on; then it goes on itself.
    fn look_after_stopped(&mut self, at: usize) {
        let others = |crew: &Crew| -> u64 {
            (0..WORKERS).filter(|other| *other != at).map(|other| crew.board.counted(other)).sum()
        };
        let (before, start) = (others(self), Instant::now());
        while others(self) < before + GOING_ON && self.is_sound() {
            for other in (0..WORKERS).filter(|other| *other != at) {
                if let Some(event) = self.event(other) {
                    let is_stopped = event == WorkerEvent::Stopped;
                    self.note_own_end(other, event);
                    if is_stopped {
                        self.signal(other, Signal::CONT);
                    }
                }
            }
            let phase = self.phase(at);
            assert!(start.elapsed() < LONG, "none goes on beside one stopped {phase:?}");
            thread::sleep(Duration::from_micros(500));
        }
        self.signal(at, Signal::CONT);
    }

    /// Kills or stops workers at any moment.
    pub(super) fn end_at_random_for(&mut self, time: Duration) {
        let start = Instant::now();
        self.lingers = true;
        while start.elapsed() < time && self.is_sound() {
            thread::sleep(Duration::from_micros(self.random(20_000)));
            let (at, end) = match self.random(2) {
                0 => (self.random(WORKERS as u64) as usize, ENDS[self.random(2) as usize]),
                _ => self.rarest(),
            };
            if end == Signal::STOP {
                self.stop(at);
            } else {
                self.kill(at);
                self.restart(at, None);
            }
        }
    }

    /// The worker that is at this moment where the fewest were ended, and what ended fewer there.
    fn rarest(&self) -> (usize, Signal) {
        let counted = (0..WORKERS).flat_map(|at| {
            self.tally.at_random.of(self.phase(at)).into_iter().zip(ENDS.map(|end| (at, end)))
        });
        counted.min_by_key(|(count, _)| *count).expect("there are workers").1
    }

    /// Kills a worker wherever it is. Another one is to be started in its place.
    fn kill(&mut self, at: usize) {
        self.signal(at, Signal::KILL);
        loop {
            match self.wait_for_event(at) {
                WorkerEvent::Killed => return self.note_kill(at),
                // It came to its own stop just before.
                WorkerEvent::Stopped => {}
                WorkerEvent::Ended => return self.write_failure(at),
            }
        }
    }

    /// Stops a worker wherever it is, for a while.
    fn stop(&mut self, at: usize) {
        self.signal(at, Signal::STOP);
        match self.wait_for_event(at) {
            WorkerEvent::Stopped => {
                self.note_stop(at);
                self.look_after_stopped(at);
            }
            WorkerEvent::Killed => {
                self.note_kill(at);
                self.restart(at, None);
            }
            WorkerEvent::Ended => self.note_failure(at),
        }
    }

    fn note_kill(&mut self, at: usize) {
        *self.tally.at_random.kills.entry(self.phase(at)).or_default() += 1;
    }

    fn note_stop(&mut self, at: usize) {
        *self.tally.at_random.stops.entry(self.phase(at)).or_default() += 1;
    }

    /// It panicked, or found something wrong and wrote that down.
    fn note_failure(&mut self, at: usize) {
        self.write_failure(at);
        self.restart(at, None);
    }

    fn write_failure(&self, at: usize) {
        let file = violations(self.dir.path());
        let mut file = fs::File::options().append(true).create(true).open(file).unwrap();
        writeln!(file, "worker {} ended by itself", self.workers[at].number).unwrap();
    }

    fn is_sound(&self) -> bool {
        !violations(self.dir.path()).exists()
    }

    /// Ends all, and says what came of it, or what went wrong.
    pub(super) fn finish(mut self) -> Result<Tally, String> {
        (0..WORKERS).for_each(|at| self.kill(at));
        self.workers.clear();
        if let Ok(text) = fs::read_to_string(violations(self.dir.path())) {
            return Err(text);
        }
        for name in 0..NAMES {
            let slot = self.all.slot(&hot(name)).map_err(|error| error.to_string())?;
            let taken = slot.take(Token::ZERO, clock::now() + LONG);
            let taken = taken.map_err(|error| error.to_string())?;
            self.board.enter(name, 0, &taken)?;
            self.board.leave(name, taken.predecessor);
            slot.release(taken.predecessor);
        }
        self.tally.increments = self.board.sum()?;
        Ok(std::mem::take(&mut self.tally))
    }
}

/// Whether what this worker does can lead there.
fn may_reach(number: usize, step: Step) -> bool {
    number >= PLAIN || step <= Step::LeaveEnd && !of_at_least(step)
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.board.end();
        for hand in &self.workers {
            // Not one that was waited for already: that one is replaced at once.
            let _ = kill_process(hand.pid, Signal::KILL);
            let _ = waitpid(Some(hand.pid), WaitOptions::empty());
        }
    }
}
