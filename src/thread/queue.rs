//! The waiters of a lock, in order of arrival; plain data, under the queues' mutex.

use std::{collections::VecDeque, mem, sync::Arc, task::Waker, time::Duration};

use crate::time::Time;

use super::{LAPSE, sync::Condvar};

/// Names a waiter within its lock; grows with arrival.
pub(super) type Ticket = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaiterKind {
    /// It blocks.
    Thread,
    /// It is polled.
    Task,
}

/// How a waiter is woken.
pub(super) enum Call {
    Bell(Arc<Condvar>),
    /// `None` once woken and until polled.
    Waker(Option<Waker>),
}

pub(super) struct QueueEntry {
    ticket: Ticket,
    since: Time,
    call: Call,
    /// When it was called since it last looked, if it was: so it will look.
    woken: Option<Time>,
}

/// A waiter that was handed the lock and has not taken it up.
struct Heir {
    entry: QueueEntry,
    kind: WaiterKind,
    at: Time,
}

/// A task that has the lock as a turnstile and waits at the gate.
struct TaskSeat {
    /// The ticket at which it stands again once its turn has lapsed: ahead of all that wait.
    ticket: Ticket,
    /// When it was woken, until it is polled.
    woken: Option<Time>,
}

pub(super) struct Queue {
    /// The next ticket.
    next: Ticket,
    /// The ticket of the last seat; seats count downwards.
    front: Ticket,
    threads: VecDeque<QueueEntry>,
    tasks: VecDeque<QueueEntry>,
    /// No longer in its queue. There is at most one, since the lock is its own meanwhile.
    heir: Option<Heir>,
    seat: Option<TaskSeat>,
    /// Tasks that have let their turn lapse: each is at the head again once it is polled, and not before.
    absent: Vec<QueueEntry>,
    /// Which kind has its turn, of two that are due.
    task_is_next: bool,
    /// An alarm looks for a turn that lapses.
    is_watched: bool,
    /// It was used before.
    is_used: bool,
}

/// Half way, so that there is room in front.
const FIRST: Ticket = 1 << 63;

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            next: FIRST,
            front: FIRST,
            threads: VecDeque::new(),
            tasks: VecDeque::new(),
            heir: None,
            seat: None,
            absent: Vec::new(),
            task_is_next: false,
            is_watched: false,
            is_used: false,
        }
    }
}

impl Queue {
    /// Whether this is its first use.
    pub(super) fn is_new(&mut self) -> bool {
        !mem::replace(&mut self.is_used, true)
    }

    pub(super) fn push(&mut self, kind: WaiterKind, since: Time, call: Call) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.of(kind).push_back(QueueEntry { ticket, since, call, woken: None });
        ticket
    }

    /// Takes an entry out that is in its queue, or absent.
    pub(super) fn remove(&mut self, kind: WaiterKind, ticket: Ticket) -> QueueEntry {
        if let Some(absent) = self.take_absent(ticket) {
            return absent;
        }
        let place = self.place(kind, ticket);
        self.of(kind).remove(place).expect("the place was just found")
    }

    fn take_absent(&mut self, ticket: Ticket) -> Option<QueueEntry> {
        let at = self.absent.iter().position(|entry| entry.ticket == ticket)?;
        Some(self.absent.swap_remove(at))
    }

    /// This task is polled: if its turn had lapsed, it stands at its place again.
    pub(super) fn come_back(&mut self, ticket: Ticket) {
        if let Some(entry) = self.take_absent(ticket) {
            let place = self.tasks.partition_point(|other| other.ticket < ticket);
            self.tasks.insert(place, entry);
        }
    }

    /// No waiter is queued; an heir is none any longer.
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.tasks.is_empty()
    }

    pub(super) fn is_first(&mut self, kind: WaiterKind, ticket: Ticket) -> bool {
        self.of(kind).front().is_some_and(|first| first.ticket == ticket)
    }

    /// The waiter has looked in vain: the next call has to wake it again.
    pub(super) fn fall_asleep(&mut self, kind: WaiterKind, ticket: Ticket) {
        let place = self.place(kind, ticket);
        self.of(kind)[place].woken = None;
    }

    /// Has a waiting task woken by this waker from now on; hands back what is to be dropped.
    pub(super) fn replace_waker(&mut self, ticket: Ticket, waker: Waker) -> Option<Waker> {
        let place = self.place(WaiterKind::Task, ticket);
        match &mut self.tasks[place].call {
            Call::Waker(old) => old.replace(waker),
            Call::Bell(_) => unreachable!("tasks have no bell"),
        }
    }

    /// How many waiters came before this time, of both kinds. A task that has let its turn lapse counts
    /// again once it is polled.
    pub(super) fn waiters_before(&self, since: Time) -> usize {
        // Each queue is in order of arrival, but for such tasks: then it may be one more or less.
        let before = |queue: &VecDeque<QueueEntry>| queue.partition_point(|one| one.since < since);
        before(&self.threads) + before(&self.tasks)
    }

    /// The kind that is to be handed the lock, if a waiter has waited over `patience`; without one, if
    /// there is a waiter.
    pub(super) fn kind_due(&self, now: Time, patience: Option<Duration>) -> Option<WaiterKind> {
        let is_due = |first: &QueueEntry| patience.is_none_or(|most| now.since(first.since) > most);
        let due = |queue: &VecDeque<QueueEntry>| queue.front().is_some_and(is_due);
        match (due(&self.threads), due(&self.tasks)) {
            (false, false) => None,
            (true, false) => Some(WaiterKind::Thread),
            (false, true) => Some(WaiterKind::Task),
            (true, true) if self.task_is_next => Some(WaiterKind::Task),
            (true, true) => Some(WaiterKind::Thread),
        }
    }

    /// Makes the first of this kind the heir.
    pub(super) fn hand_over(&mut self, kind: WaiterKind, now: Time) -> Option<Waker> {
        assert!(self.heir.is_none(), "the lock was handed to two");
        let mut entry = self.of(kind).pop_front().expect("a waiter of this kind is due");
        let call = entry.wake(now);
        self.heir = Some(Heir { entry, kind, at: now });
        self.task_is_next = kind == WaiterKind::Thread;
        call
    }

    /// Whether the lock was handed to this waiter, which now has it.
    pub(super) fn claim(&mut self, ticket: Ticket) -> bool {
        self.heir.take_if(|heir| heir.entry.ticket == ticket).is_some()
    }

    /// Takes the lock from a task that has it, was woken, and has not been polled for [`LAPSE`]: an
    /// heir that has not taken it up, or a task in the seat. Whether the lock is the caller's then.
    pub(super) fn lapse(&mut self, now: Time) -> bool {
        match self.lapses_at() {
            Some(at) if at <= now => {}
            _ => return false,
        }
        let heir = self.heir.take().map(|heir| heir.entry);
        let seat = |TaskSeat { ticket, woken }| QueueEntry {
            ticket,
            since: woken.unwrap_or(now),
            call: Call::Waker(None),
            woken,
        };
        self.absent.extend(heir.or_else(|| self.seat.take().map(seat)));
        true
    }

    /// When the turn of a task lapses that has the lock, unless it is polled before. If there is an
    /// heir, the lock is the heir's.
    fn lapses_at(&self) -> Option<Time> {
        let woken = match &self.heir {
            Some(heir) => (heir.kind == WaiterKind::Task).then_some(heir.at),
            None => self.seat.as_ref()?.woken,
        };
        woken.map(|woken| woken + LAPSE)
    }

    /// When the first task is called in vain that was called and is not polled, with tasks behind it.
    fn is_vain_at(&self) -> Option<Time> {
        let first = self.tasks.front().filter(|_| self.tasks.len() > 1)?;
        Some(first.woken? + LAPSE)
    }

    /// If a turn of a task can lapse while others wait: when an alarm is to look, if none is set.
    pub(super) fn watch(&mut self) -> Option<Time> {
        let lapses = self.lapses_at().filter(|_| !self.is_empty());
        let at = lapses.into_iter().chain(self.is_vain_at()).min()?;
        (!mem::replace(&mut self.is_watched, true)).then_some(at)
    }

    /// The alarm rings: hands the lock on if a turn has lapsed. What is to be woken, and when it is
    /// to ring again.
    pub(super) fn look(&mut self, now: Time) -> (Option<Waker>, Option<Time>) {
        self.is_watched = false;
        let mut call = None;
        if !self.is_empty() && self.lapse(now) {
            let kind = if self.threads.is_empty() { WaiterKind::Task } else { WaiterKind::Thread };
            call = self.hand_over(kind, now);
        } else if self.is_vain_at().is_some_and(|at| at <= now) {
            self.absent.extend(self.tasks.pop_front());
            call = self.tasks.front_mut().and_then(|first| first.wake(now));
        }
        (call, self.watch())
    }

    /// A task that has the lock as a turnstile is about to wait elsewhere: its seat's ticket.
    pub(super) fn sit_down(&mut self) -> Ticket {
        self.front -= 1;
        self.seat = Some(TaskSeat { ticket: self.front, woken: None });
        self.front
    }

    /// The task in this seat is woken; whether it still has the lock.
    pub(super) fn wake_seat(&mut self, ticket: Ticket, now: Time) -> bool {
        let seat = self.seat.as_mut().filter(|seat| seat.ticket == ticket);
        seat.map(|seat| seat.woken.get_or_insert(now)).is_some()
    }

    /// The task in this seat is polled; whether it still has the lock.
    pub(super) fn poll_seat(&mut self, ticket: Ticket) -> bool {
        let seat = self.seat.as_mut().filter(|seat| seat.ticket == ticket);
        seat.map(|seat| seat.woken = None).is_some()
    }

    /// The task waits no longer; whether it still has the lock. What is left of it is to be dropped.
    pub(super) fn get_up(&mut self, ticket: Ticket) -> (bool, Option<QueueEntry>) {
        let has_it = self.seat.take_if(|seat| seat.ticket == ticket).is_some();
        (has_it, self.take_absent(ticket))
    }

    /// Wakes the first of each kind, unless it is awake: both, because how soon a task gets to
    /// run is not ours to know.
    pub(super) fn wake_first_of_each(&mut self, now: Time) -> Option<Waker> {
        if let Some(first) = self.threads.front_mut() {
            first.wake(now);
        }
        self.tasks.front_mut().and_then(|first| first.wake(now))
    }

    /// Has every thread look around, which calls none of them: each goes back to sleep as it was.
    pub(super) fn wake_all(&self) {
        for entry in &self.threads {
            if let Call::Bell(bell) = &entry.call {
                bell.notify_one();
            }
        }
    }

    fn of(&mut self, kind: WaiterKind) -> &mut VecDeque<QueueEntry> {
        match kind {
            WaiterKind::Thread => &mut self.threads,
            WaiterKind::Task => &mut self.tasks,
        }
    }

    fn place(&mut self, kind: WaiterKind, ticket: Ticket) -> usize {
        // Tickets grow from front to back, also when a task comes back to its place.
        let found = self.of(kind).binary_search_by_key(&ticket, |entry| entry.ticket);
        found.expect("a waiter that is no heir has an entry")
    }

    #[cfg(all(test, not(tierlock_loom)))]
    pub(super) fn let_task_be_next(&mut self) {
        self.task_is_next = true;
    }

    /// How many threads and tasks wait, and whether there is an heir.
    #[cfg(test)]
    pub(super) fn census(&self) -> (usize, usize, bool) {
        (self.threads.len(), self.tasks.len(), self.heir.is_some())
    }
}

impl QueueEntry {
    /// Calls it, unless it was called already. A task's waker is for the caller to use once the
    /// queues' mutex is free; a thread waits on that mutex anyway.
    fn wake(&mut self, now: Time) -> Option<Waker> {
        if self.woken.is_some() {
            return None;
        }
        self.woken = Some(now);
        match &mut self.call {
            Call::Bell(bell) => {
                bell.notify_one();
                None
            }
            Call::Waker(waker) => waker.take(),
        }
    }
}
