//! LockTaking a lock as the command line says, telling people which holder it waits for, and releasing it.

use std::{
    future::Future,
    io::{self, IsTerminal},
    os::fd::OwnedFd,
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
        mpsc::{self, Receiver, TryRecvError},
    },
    task::Context,
    thread,
    time::Duration,
};

use super::{
    args::Terms,
    events::{self, CliEvent, Events},
    failure::{Failure, exit, say},
    possession::Inheritance,
};
use crate::{
    api::{
        all::{AllGuard, AllRequest},
        election::Leadership,
        guard::{LockGuard, MutexGuard, RwLockReadGuard},
        manager::LockManager,
        status::LockStatus,
    },
    clock,
    error::{Holder, LockError, LockErrorKind, LostReason, Predecessor},
    identity::this_process,
    name::Name,
    path::Keep,
    printable::few,
    process::Survivor,
    scope::Scope,
    time::Time,
    token::Token,
};

/// A lock as it was asked for.
pub(super) enum Guard {
    Exclusive(MutexGuard<'static, ()>),
    Shared(RwLockReadGuard<'static, ()>),
    Several(AllGuard),
    /// Of an election.
    Leading(Leadership),
}

/// The same of either; what several have is said otherwise.
macro_rules! of_either {
    ($guard:expr, $held:ident => $what:expr, $several:ident => $of_several:expr) => {
        match $guard {
            Guard::Exclusive($held) => $what,
            Guard::Shared($held) => $what,
            Guard::Several($several) => $of_several,
            Guard::Leading(leadership) => {
                let $held = leadership.guard();
                $what
            }
        }
    };
}

impl Guard {
    /// The widest of several.
    pub(super) fn scope(&self) -> Scope {
        of_either!(self, held => LockGuard::scope(held), all => all.widest_scope())
    }

    /// In the order in which the names were given.
    pub(super) fn tokens(&self) -> Vec<Token> {
        of_either!(
            self,
            held => vec![LockGuard::token(held)],
            all => all.tokens().map(|(_, token)| token).collect()
        )
    }

    /// Likewise, with the scope of each.
    fn scopes(&self) -> Vec<Scope> {
        of_either!(self, held => vec![LockGuard::scope(held)], all => all.scopes().collect())
    }

    pub(super) fn remaining(&self) -> Option<Duration> {
        of_either!(self, held => LockGuard::remaining(held), all => all.remaining())
    }

    pub(super) fn why_lost(&self) -> Option<LostReason> {
        of_either!(self, held => LockGuard::why_lost(held), all => all.why_lost())
    }

    pub(super) fn on_lost(&self, tell: impl FnOnce(LostReason) + Send + 'static) {
        of_either!(self, held => LockGuard::on_lost(held, tell), all => all.on_lost(tell))
    }

    pub(super) fn proofs_of_life(&self) -> io::Result<Vec<OwnedFd>> {
        of_either!(
            self,
            held => LockGuard::proof_of_life(held).into_iter().collect(),
            all => all.proofs_of_life()
        )
    }

    /// Those that did not leave cleanly.
    fn predecessors(&self) -> Vec<Predecessor> {
        let mut all = of_either!(
            self,
            held => vec![LockGuard::predecessor(held)],
            all => all.predecessors().collect()
        );
        all.retain(|how| *how != Predecessor::Clean);
        all
    }

    /// Gives it back unused.
    fn hand_on(self) {
        // What it would say is for none any more.
        let _ = match self {
            Guard::Exclusive(lock) => LockGuard::hand_on(lock),
            Guard::Shared(lock) => LockGuard::hand_on(lock),
            Guard::Several(all) => all.hand_on(),
            Guard::Leading(leadership) => LockGuard::hand_on(leadership.into_guard()),
        };
    }
}

/// How one lock, or several, are called in messages.
pub(super) fn called(names: &[Name]) -> String {
    match names {
        [name] => format!("lock {name:?}"),
        several => format!("locks {}", few(several.iter().map(|name| format!("{name:?}")), ", ")),
    }
}

/// A lock that is to be taken, or several, and what is needed for that.
pub(super) struct LockTaking {
    pub(super) names: Vec<Name>,
    pub(super) terms: Terms,
    pub(super) events: Events,
    pub(super) locks: LockManager,
    pub(super) inheritance: Inheritance,
    /// It is an election, in which it campaigns with this value.
    pub(super) candidate: Option<String>,
    leaders: Vec<String>,
}

/// What can be seen of a lock while it is waited for.
struct LockSight {
    /// It is held above this process.
    is_ours: bool,
    holder: Option<Holder>,
    survivors: Vec<Survivor>,
}

/// When a lock that is waited for is looked at: at once, since a process that waits for itself is not
/// to wait, and when people begin to wonder.
const LOOKS: [Duration; 2] = [Duration::from_millis(30), Duration::from_secs(1)];

impl LockTaking {
    /// Makes everything ready. `label`, unless another was given, is shown to others.
    pub(super) fn begin(
        names: Vec<Name>,
        mut terms: Terms,
        label: Option<String>,
    ) -> Result<LockTaking, Failure> {
        let mut common = std::mem::take(&mut terms.common).with_environment()?;
        let inheritance = Inheritance::of_this_process();
        let events = Events::listen_for_a_command()
            .map_err(|error| Failure::internal("cannot listen to signals", error))?;
        if let Some(label) = label {
            common = common.or_label(label);
        }
        let leaders = common.leaders();
        // What locks in the directory cannot promise is doctor's to say, and not every run's.
        let is_open = Arc::new(AtomicBool::new(false));
        let (warns, named) = (is_open.clone(), called(&names));
        let locks = common
            .into_builder()
            .time_to_live(terms.ttl)
            .on_warning(move |text| {
                if warns.load(Acquire) {
                    warn(&named, text);
                }
            })
            .open()?;
        is_open.store(true, Release);
        locks.is_used_by_one(inheritance.held_until_we_end());
        Ok(LockTaking { names, terms, events, locks, inheritance, candidate: None, leaders })
    }

    /// Waits for the lock as long as was asked for. A signal that would end us ends the wait.
    ///
    /// A thread of its own waits, in the blocking form, which at process scope sleeps in the
    /// kernel's queue and polls nothing; the main thread stays free for signals, and starts the
    /// command.
    pub(super) fn take(&self) -> Result<Guard, Failure> {
        let lock = self.wait().map_err(|failure| failure.naming_leaders(&self.leaders))?;
        let before = match &lock.predecessors()[..] {
            [] => String::new(),
            all => format!("; the holder before: {}", few(all, ", ")),
        };
        let (scope, tokens) = (lock.scope(), few(lock.tokens(), ", "));
        self.tell(match self.names.len() {
            1 => format!("got it at {scope} scope, token {tokens}{before}"),
            _ => format!("got them at {scope} scope, tokens {tokens}{before}"),
        });
        Ok(lock)
    }

    fn wait(&self) -> Result<Guard, Failure> {
        let take = match (&self.names[..], self.terms.shared) {
            ([name], false) if self.candidate.is_some() => self.leading(name),
            ([name], false) => self.exclusively(name),
            ([name], true) => self.shared(name),
            _ => self.several(),
        };
        let (sender, taken) = mpsc::channel();
        let waker = self.events.sender();
        let waiting = thread::Builder::new().name("tierlock-waiting".into()).spawn(move || {
            if let Err(mpsc::SendError(Ok(lock))) = sender.send(take()) {
                // The main thread ends without it.
                lock.hand_on();
            }
            let _ = waker.send(CliEvent::Woken);
        });
        waiting.map_err(|error| Failure::internal("cannot start a thread", error))?;
        let mut watch = Lookout::new(self);
        loop {
            match self.events.next(watch.rest()) {
                Some(CliEvent::Signal(signal)) if events::ends(signal) => {
                    self.give_up(&taken);
                    return Err(Failure::Signal(signal));
                }
                Some(CliEvent::Woken) | None => {
                    if let Ok(result) = taken.try_recv() {
                        return result.map_err(|error| self.explain(error));
                    }
                    if watch.look() {
                        self.give_up(&taken);
                        return Err(self.would_wait_for_ourselves());
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes it alone.
    fn exclusively(&self, name: &Name) -> Box<dyn FnOnce() -> Result<Guard, LockError> + Send> {
        let terms = &self.terms;
        let mut mutex = self.locks.mutex(&**name, ()).keep(Keep::Never).scope(self.scope());
        if let Some(at_most) = terms.at_most {
            mutex = mutex.at_most(at_most);
        }
        if let Some(at_least) = terms.at_least {
            mutex = mutex.at_least(at_least);
        }
        let (no_wait, wait) = (terms.no_wait, terms.wait);
        Box::new(move || {
            let taken = match wait {
                _ if no_wait => mutex.try_lock(),
                Some(wait) => mutex.try_lock_for(wait),
                None => mutex.lock(),
            };
            taken.map(Guard::Exclusive)
        })
    }

    /// Is elected.
    fn leading(&self, name: &Name) -> Box<dyn FnOnce() -> Result<Guard, LockError> + Send> {
        let terms = &self.terms;
        let mut election = self.locks.election(&**name).scope(self.scope());
        if let Some(at_most) = terms.at_most {
            election = election.at_most(at_most);
        }
        if let Some(at_least) = terms.at_least {
            election = election.at_least(at_least);
        }
        let (no_wait, wait) = (terms.no_wait, terms.wait);
        let value = self.candidate.clone().unwrap_or_default();
        Box::new(move || {
            let election = election.build()?;
            let elected = match wait {
                _ if no_wait => election.try_campaign(value),
                Some(wait) => election.try_campaign_for(value, wait),
                None => election.campaign(value),
            };
            elected.map(Guard::Leading)
        })
    }

    /// Takes it beside others that share it.
    fn shared(&self, name: &Name) -> Box<dyn FnOnce() -> Result<Guard, LockError> + Send> {
        let terms = &self.terms;
        let mut lock = self.locks.rw_lock(&**name, ()).scope(self.scope());
        if let Some(at_most) = terms.at_most {
            lock = lock.at_most(at_most);
        }
        let (no_wait, wait) = (terms.no_wait, terms.wait);
        Box::new(move || {
            let lock = Arc::new(lock.build()?);
            let taken = match wait {
                _ if no_wait => lock.try_read_arc(),
                Some(wait) => lock.try_read_arc_for(wait),
                None => lock.read_arc(),
            };
            taken.map(Guard::Shared)
        })
    }

    /// Takes several, alone or beside others that share them.
    fn several(&self) -> Box<dyn FnOnce() -> Result<Guard, LockError> + Send> {
        let terms = &self.terms;
        let request = |name: &Name| match terms.shared {
            true => AllRequest::shared(name.as_str()),
            false => AllRequest::exclusive(name.as_str()),
        };
        let mut all = self.locks.all(self.names.iter().map(request)).scope(self.scope());
        if let Some(at_most) = terms.at_most {
            all = all.at_most(at_most);
        }
        if let Some(at_least) = terms.at_least {
            all = all.at_least(at_least);
        }
        let (no_wait, wait) = (terms.no_wait, terms.wait);
        Box::new(move || {
            let taken = match wait {
                _ if no_wait => all.try_lock(),
                Some(wait) => all.try_lock_for(wait),
                None => all.lock(),
            };
            taken.map(Guard::Several)
        })
    }

    /// What is held, for those that ask whether they run under it.
    pub(super) fn holds(&self, lock: &Guard) -> Vec<(Name, Scope, Token)> {
        let all = self.names.iter().cloned().zip(lock.scopes()).zip(lock.tokens());
        all.map(|((name, scope), token)| (name, scope, token)).collect()
    }

    /// The scope that the lock is asked for at.
    fn scope(&self) -> Scope {
        self.terms.scope.map_or(self.locks.widest_scope(), Scope::from)
    }

    /// Ends the wait for a lock. If it is being granted at this very moment, it is given back, so
    /// that no later holder hears of one that died, when no command ran.
    fn give_up(&self, taken: &Receiver<Result<Guard, LockError>>) {
        // It ends every wait, and the waiting thread goes back down the tiers.
        self.locks.close();
        if let Ok(Ok(lock)) = taken.recv_timeout(ANSWER) {
            self.hand_on(lock);
            self.locks.close();
        }
    }

    /// Gives back a lock under which no command ran: the next holder hears what this one heard.
    pub(super) fn hand_on(&self, lock: Guard) {
        match lock {
            Guard::Exclusive(lock) => self.wait_for_answer(LockGuard::hand_on_answered(lock)),
            Guard::Shared(lock) => self.wait_for_answer(LockGuard::hand_on_answered(lock)),
            Guard::Several(all) => self.wait_for_answer(all.hand_on_answered()),
            Guard::Leading(leadership) => {
                self.wait_for_answer(LockGuard::hand_on_answered(leadership.into_guard()));
            }
        }
    }

    /// The error with the holder that is in the way, and what to do next.
    fn explain(&self, error: LockError) -> Failure {
        let named =
            error.name().and_then(|name| self.names.iter().find(|own| own.as_str() == name));
        let name = named.unwrap_or(&self.names[0]);
        let advice = match error.kind() {
            LockErrorKind::WouldBlock => "leave out --no-wait to wait for it",
            LockErrorKind::TimedOut if !error.is_unanswered() => "give --wait more time",
            _ => return error.with_name(name).into(),
        };
        if let Some(left) = super::status::reserved_for(&self.locks, name) {
            let line = format!(
                "lock {:?} is not held, and reserved for {left} more by the --at-least of its last \
                 holder",
                name
            );
            return Failure::new(exit::CONFLICT, line).with_advice(advice);
        }
        let seen = LockSight::now(std::slice::from_ref(name), &self.locks, &self.inheritance);
        if seen.is_ours {
            return self.would_wait_for_ourselves();
        }
        let error = error.with_name(name).with_scope(self.scope()).with_holder(seen.holder);
        let failure = Failure::from(error);
        let failure = match super::status::kept_by(&seen.survivors) {
            Some(survivors) => failure.with_advice(&survivors),
            None => failure,
        };
        failure.with_advice(advice)
    }

    fn would_wait_for_ourselves(&self) -> Failure {
        let line = format!(
            "{}: this command runs under it already and would wait for itself; take it once, in the \
             outermost command",
            called(&self.names)
        );
        Failure::new(exit::CONFLICT, line)
    }

    /// Releases the lock.
    pub(super) fn release(self, lock: Guard) {
        self.give_back(lock);
        self.locks.close();
    }

    /// The same; it may be taken again.
    pub(super) fn give_back(&self, lock: Guard) {
        match lock {
            Guard::Exclusive(lock) => self.wait_for_answer(LockGuard::unlock_async(lock)),
            Guard::Shared(lock) => self.wait_for_answer(LockGuard::unlock_async(lock)),
            Guard::Several(all) => self.wait_for_answer(all.unlock_async()),
            Guard::Leading(leadership) => self.wait_for_answer(leadership.resign_async()),
        }
        self.tell("released");
    }

    /// Waits until the lock is free for the next run. A leader that does not answer frees
    /// it in its time; a signal that would end us has us not wait for that.
    fn wait_for_answer(&self, answer: impl Future) {
        let until = clock::now() + ANSWER;
        let mut answer = pin!(answer);
        let waker = self.events.waker();
        while answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            match self.events.next(Some(until.since(clock::now()))) {
                None => return,
                Some(CliEvent::Signal(signal)) if events::ends(signal) => return,
                _ => {}
            }
        }
    }

    /// With --verbose, says what happens to the lock.
    pub(super) fn tell(&self, what: impl std::fmt::Display) {
        if self.terms.verbose {
            say(format_args!("{}: {what}", called(&self.names)));
        }
    }
}

impl LockSight {
    /// Of several, the first that is held.
    fn now(names: &[Name], locks: &LockManager, inheritance: &Inheritance) -> LockSight {
        let mut first = None;
        for name in names {
            let mut seen = LockSight::of(name, locks, inheritance);
            // Those that this process has by now are not what it waits for.
            seen.holder = seen.holder.filter(|holder| !is_this_process(holder));
            if seen.is_ours || seen.holder.is_some() {
                return seen;
            }
            first.get_or_insert(seen);
        }
        first.expect("there is a name")
    }

    fn of(name: &Name, locks: &LockManager, inheritance: &Inheritance) -> LockSight {
        let is_ours = inheritance.has(name, locks);
        let lock = locks.look(Some(name)).ok().and_then(|found| {
            let is_its = |lock: &LockStatus| {
                lock.name == *name && (lock.holder.is_some() || !lock.sharers.is_empty())
            };
            found.into_iter().find(is_its)
        });
        match lock {
            Some(LockStatus { holder, sharers, survivors, .. }) => {
                let holder = holder.or_else(|| Some(sharers.into_iter().next()?.holder));
                LockSight { is_ours, holder, survivors }
            }
            None => LockSight { is_ours, holder: None, survivors: Vec::new() },
        }
    }
}

fn is_this_process(holder: &Holder) -> bool {
    holder.pid == Some(std::process::id()) && holder.host == this_process().host
}

/// Looks at a lock while it is waited for. Threads of their own ask: a leader may be silent.
struct Lookout<'a> {
    taking: &'a LockTaking,
    begin: Time,
    looks: usize,
    asked: Option<Receiver<LockSight>>,
    told: bool,
    /// Tells people without having been asked to.
    at_a_terminal: bool,
}

impl Lookout<'_> {
    fn new(taking: &LockTaking) -> Lookout<'_> {
        let at_a_terminal = std::io::stderr().is_terminal();
        Lookout { taking, begin: clock::now(), looks: 0, asked: None, told: false, at_a_terminal }
    }

    /// How long nothing is to be done.
    fn rest(&self) -> Option<Duration> {
        let next = self.begin + *LOOKS.get(self.looks)?;
        Some(next.since(clock::now()))
    }

    /// Does what is due; whether the lock turned out to be held above this process.
    fn look(&mut self) -> bool {
        let seen = match self.asked.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Disconnected)) => None,
            Some(Err(TryRecvError::Empty)) => {
                if self.rest().is_some_and(|rest| rest.is_zero()) {
                    // The second look is due and the first has not come back: a leader is silent.
                    self.looks += 1;
                    self.tell(None);
                }
                return false;
            }
            Some(Ok(seen)) => Some(seen),
        };
        if let Some(seen) = seen {
            self.asked = None;
            if seen.is_ours {
                return true;
            }
            self.tell(Some(&seen));
        }
        if self.rest().is_some_and(|rest| rest.is_zero()) {
            self.looks += 1;
            self.ask();
        }
        false
    }

    fn ask(&mut self) {
        let (sender, asked) = mpsc::channel();
        let waker = self.taking.events.sender();
        let (names, locks) = (self.taking.names.clone(), self.taking.locks.clone());
        let inheritance = self.taking.inheritance.clone();
        let asking = thread::Builder::new().name("tierlock-asking".into()).spawn(move || {
            let _ = sender.send(LockSight::now(&names, &locks, &inheritance));
            // It may be the last handle, which says goodbye to the leader.
            drop(locks);
            let _ = waker.send(CliEvent::Woken);
        });
        // Without one it waits all the same, in silence.
        self.asked = asking.is_ok().then_some(asked);
    }

    /// Says which holder it waits for: once, with --verbose at once, else at a terminal after a second.
    fn tell(&mut self, seen: Option<&LockSight>) {
        let is_wanted =
            self.taking.terms.verbose || (self.at_a_terminal && self.looks >= LOOKS.len());
        if self.told || !is_wanted {
            return;
        }
        self.told = true;
        let name = called(&self.taking.names);
        match seen {
            Some(LockSight { holder: Some(holder), survivors, .. }) => {
                let survivors = super::status::kept_by(survivors);
                let survivors = survivors.map(|text| format!("; {text}")).unwrap_or_default();
                say(format_args!("{name}: waiting for {holder}{survivors}"));
            }
            Some(_) => say(format_args!("{name}: waiting for it")),
            None if self.taking.leaders.is_empty() => {
                say(format_args!("{name}: waiting for it"));
            }
            None => {
                let leaders = few(&self.taking.leaders, ", ");
                say(format_args!("{name}: waiting for an answer from {leaders}"));
            }
        }
    }
}

/// How long the leader's answer to the release is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// Says what endangers the lock. On a thread of its own: a standard error without a reader must
/// not keep the threads waiting that look after the lock.
fn warn(name: &str, text: &str) {
    let line = format!("{name}: {text}");
    let _ = thread::Builder::new().name("tierlock-warning".into()).spawn(move || say(line));
}
