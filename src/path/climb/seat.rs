//! How a task waits: woken in its turn, and passed over if it does not come.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Wake, Waker},
};

use super::WordWait;
use crate::{alarm, path::ground::NameEntry, thread::Seat};

impl WordWait<'_> {
    /// Ready once the word may have changed, or the time has come.
    pub(super) async fn sleep_async(self) {
        let mut sleep = std::pin::pin!(alarm::sleep_until(self.until));
        let mut is_registered = false;
        std::future::poll_fn(|cx: &mut Context<'_>| {
            // Woken: the word is for the climb to look at. It may also have been polled for another
            // reason, and then looks in vain.
            if std::mem::replace(&mut is_registered, true)
                || !self.word.register(self.is_hungry, cx.waker())
            {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(cx)
        })
        .await
    }
}

/// A task's wait in its seat at the turnstile; `None` once its turn has lapsed.
pub(super) struct Seated<'a, F> {
    pub(super) entry: &'a Arc<NameEntry>,
    pub(super) seat: Seat,
    pub(super) wait: Pin<Box<F>>,
    waker: Option<(Waker, Waker)>,
}

impl<'a, F: Future> Seated<'a, F> {
    pub(super) fn new(entry: &'a Arc<NameEntry>, seat: Seat, wait: F) -> Seated<'a, F> {
        Seated { entry, seat, wait: Box::pin(wait), waker: None }
    }
}

impl<F: Future> Future for Seated<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Seated { entry, seat, wait, waker } = &mut *self;
        if !entry.thread().poll_seat(*seat) {
            return Poll::Ready(None);
        }
        if waker.as_ref().is_none_or(|(task, _)| !task.will_wake(cx.waker())) {
            let (entry, task) = (Arc::downgrade(entry), cx.waker().clone());
            let call = SeatCall { entry, seat: *seat, task: task.clone() };
            *waker = Some((task, Waker::from(Arc::new(call))));
        }
        let (_, waker) = waker.as_ref().expect("it was just made");
        wait.as_mut().poll(&mut Context::from_waker(waker)).map(Some)
    }
}

/// Wakes the task in a seat. Its turn can lapse from then on.
struct SeatCall {
    entry: Weak<NameEntry>,
    seat: Seat,
    task: Waker,
}

impl Wake for SeatCall {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(entry) = self.entry.upgrade() {
            entry.thread().wake_seat(self.seat);
        }
        self.task.wake_by_ref();
    }
}
