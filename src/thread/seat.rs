//! A task that has won the lock, and waits for something else before it goes in.
//!
//! Its turn lapses when it was woken and is not polled, while others wait: then the lock is theirs,
//! and the task stands at the head of the queue again once it is polled.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Wake, Waker},
};

use super::{
    Seat, ThreadLock, look_at,
    queue::Queue,
    sync::{Mutex, generation, now},
};

/// The lock, as a task has it that waits. Dropped, it gives the lock back.
pub(crate) struct InSeat<'a> {
    lock: &'a ThreadLock,
    /// The seat, from the first wait on, and in which process it stands.
    seat: Option<(Seat, u64)>,
    is_won: bool,
}

impl<'a> InSeat<'a> {
    /// The lock was just won.
    pub(crate) fn of(lock: &'a ThreadLock) -> InSeat<'a> {
        InSeat { lock, seat: None, is_won: true }
    }

    /// Waits until this is ready; whether the task has the lock still.
    pub(crate) async fn wait(&mut self, wait: impl Future) -> bool {
        let seat = match self.seat {
            Some((seat, _)) => seat,
            None => {
                let seat = self.lock.take_seat();
                self.seat = Some((seat, generation()));
                seat
            }
        };
        let mut wait = pin!(wait);
        let mut calls: Option<(Waker, Waker)> = None;
        let lock = self.lock;
        let is_here = self.seat_here().is_some();
        let has_it = std::future::poll_fn(|cx| {
            // A future that a fork has copied has no seat: nothing lapses for it.
            if is_here && !lock.poll_seat(seat) {
                return Poll::Ready(false);
            }
            if calls.as_ref().is_none_or(|(task, _)| !task.will_wake(cx.waker())) {
                let (queue, task) = (lock.weak_queue(), cx.waker().clone());
                let call = SeatedCall { queue, seat, task: task.clone() };
                calls = Some((task, Waker::from(Arc::new(call))));
            }
            let (_, call) = calls.as_ref().expect("it was just made");
            wait.as_mut().poll(&mut Context::from_waker(call)).map(|_| true)
        })
        .await;
        self.is_won = has_it;
        has_it
    }

    /// After the turn has lapsed: waits for the lock at the head of the queue.
    pub(crate) async fn come_back(&mut self) {
        match self.seat_here() {
            Some(seat) => self.lock.come_back(seat).await,
            None => self.lock.wait_async().await,
        }
        (self.seat, self.is_won) = (None, true);
    }

    /// It waits no longer; whether it has the lock still.
    pub(crate) fn get_up(&mut self) -> bool {
        if let Some(seat) = self.seat_here() {
            let has_it = self.lock.get_up(seat);
            self.is_won = has_it;
            if has_it {
                self.seat = None;
            }
        }
        self.is_won
    }

    /// The lock is the caller's from now on.
    pub(crate) fn keep(mut self) {
        assert!(self.get_up(), "it was found to have the lock");
        self.is_won = false;
    }

    fn seat_here(&self) -> Option<Seat> {
        self.seat.filter(|(_, made_in)| *made_in == generation()).map(|(seat, _)| seat)
    }
}

impl Drop for InSeat<'_> {
    fn drop(&mut self) {
        if self.get_up() {
            self.lock.step_out();
        }
    }
}

/// Wakes the task in a seat. Its turn can lapse from then on.
struct SeatedCall {
    queue: Weak<Mutex<Queue>>,
    seat: Seat,
    task: Waker,
}

impl Wake for SeatedCall {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.queue.upgrade() {
            let mut queue = shared.lock();
            let watch = if queue.wake_seat(self.seat.0, now()) { queue.watch() } else { None };
            drop(queue);
            if let Some(at) = watch {
                look_at(at, self.queue.clone());
            }
        }
        self.task.wake_by_ref();
    }
}
