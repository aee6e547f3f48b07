//! Who waits for a lock, in order of arrival; plain data, under the queues' mutex.

use std::{collections::VecDeque, sync::Arc, task::Waker, time::Duration};

use crate::time::Time;

use super::{LAPSE, sync::Condvar};

/// Names a waiter within its lock; grows with arrival.
pub(super) type Ticket = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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

pub(super) struct Entry {
    ticket: Ticket,
    since: Time,
    call: Call,
    /// It was called since it last looked, and so will look.
    woken: bool,
}

/// Who was handed the lock and has not taken it up.
struct Heir {
    entry: Entry,
    kind: Kind,
    at: Time,
}

#[derive(Default)]
pub(super) struct Queue {
    /// The next ticket.
    next: Ticket,
    threads: VecDeque<Entry>,
    tasks: VecDeque<Entry>,
    /// No longer in its queue. There is at most one, since the lock is its own meanwhile.
    heir: Option<Heir>,
    /// Whose turn it is, of two that are due.
    task_is_next: bool,
}

impl Queue {
    pub(super) fn push(&mut self, kind: Kind, since: Time, call: Call) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.of(kind).push_back(Entry { ticket, since, call, woken: false });
        ticket
    }

    /// Takes an entry out that is in its queue.
    pub(super) fn remove(&mut self, kind: Kind, ticket: Ticket) -> Entry {
        let place = self.place(kind, ticket);
        self.of(kind).remove(place).expect("the place was just found")
    }

    /// Nobody waits; an heir no longer does.
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.tasks.is_empty()
    }

    pub(super) fn is_first(&mut self, kind: Kind, ticket: Ticket) -> bool {
        self.of(kind).front().is_some_and(|first| first.ticket == ticket)
    }

    /// The waiter has looked in vain: the next call has to wake it again.
    pub(super) fn fall_asleep(&mut self, kind: Kind, ticket: Ticket) {
        let place = self.place(kind, ticket);
        self.of(kind)[place].woken = false;
    }

    /// Has a waiting task woken by this waker from now on; hands back what is to be dropped.
    pub(super) fn replace_waker(&mut self, ticket: Ticket, waker: Waker) -> Option<Waker> {
        let place = self.place(Kind::Task, ticket);
        match &mut self.tasks[place].call {
            Call::Waker(old) => old.replace(waker),
            Call::Bell(_) => unreachable!("tasks have no bell"),
        }
    }

    /// Who is to be handed the lock, if somebody has waited over `patience`.
    pub(super) fn who_is_due(&self, now: Time, patience: Duration) -> Option<Kind> {
        let due = |queue: &VecDeque<Entry>| {
            queue.front().is_some_and(|first| now.since(first.since) > patience)
        };
        match (due(&self.threads), due(&self.tasks)) {
            (false, false) => None,
            (true, false) => Some(Kind::Thread),
            (false, true) => Some(Kind::Task),
            (true, true) if self.task_is_next => Some(Kind::Task),
            (true, true) => Some(Kind::Thread),
        }
    }

    /// Makes the first of this kind the heir.
    pub(super) fn hand_over(&mut self, kind: Kind, now: Time) -> Option<Waker> {
        assert!(self.heir.is_none(), "the lock was handed to two");
        let mut entry = self.of(kind).pop_front().expect("somebody of this kind is due");
        let call = entry.wake();
        self.heir = Some(Heir { entry, kind, at: now });
        self.task_is_next = kind == Kind::Thread;
        call
    }

    /// Whether the lock was handed to this waiter, which now has it.
    pub(super) fn claim(&mut self, ticket: Ticket) -> bool {
        self.heir.take_if(|heir| heir.entry.ticket == ticket).is_some()
    }

    /// Takes back what a task was handed and left lying. The caller has the lock then.
    pub(super) fn take_back(&mut self, now: Time) -> bool {
        let left_lying = |heir: &mut Heir| heir.kind == Kind::Task && now.since(heir.at) >= LAPSE;
        let Some(heir) = self.heir.take_if(left_lying) else { return false };
        self.tasks.push_front(heir.entry);
        true
    }

    /// Wakes the first of each kind, unless it is awake: both, because how soon a task gets to
    /// run is not ours to know.
    pub(super) fn wake_first_of_each(&mut self) -> Option<Waker> {
        if let Some(first) = self.threads.front_mut() {
            first.wake();
        }
        self.tasks.front_mut().and_then(Entry::wake)
    }

    /// Has every thread look around, which calls none of them: each goes back to sleep as it was.
    pub(super) fn rouse(&self) {
        for entry in &self.threads {
            if let Call::Bell(bell) = &entry.call {
                bell.notify_one();
            }
        }
    }

    fn of(&mut self, kind: Kind) -> &mut VecDeque<Entry> {
        match kind {
            Kind::Thread => &mut self.threads,
            Kind::Task => &mut self.tasks,
        }
    }

    fn place(&mut self, kind: Kind, ticket: Ticket) -> usize {
        // Tickets grow from front to back, also when an heir comes back to the front.
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

impl Entry {
    /// Calls it, unless it was called already. A task's waker is for the caller to use once the
    /// queues' mutex is free; a thread waits on that mutex anyway.
    fn wake(&mut self) -> Option<Waker> {
        if std::mem::replace(&mut self.woken, true) {
            return None;
        }
        match &mut self.call {
            Call::Bell(bell) => {
                bell.notify_one();
                None
            }
            Call::Waker(waker) => waker.take(),
        }
    }
}
