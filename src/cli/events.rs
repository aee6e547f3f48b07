//! What the main thread waits for, in one queue: signals, wake-ups, the loss of the lock.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    task::{Wake, Waker},
    time::Duration,
};

use signal_hook::{
    consts::signal::{
        SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
    },
    iterator::Signals,
};

use super::sys::{self, Inherited};
use crate::error::LostReason;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CliEvent {
    /// This signal reached us.
    Signal(i32),
    /// A future wants to be polled.
    Woken,
    /// The lock is lost.
    Lost(LostReason),
    /// Standard input has ended.
    InputEnded,
}

/// The queue, read by the main thread.
pub(super) struct Events {
    sender: Sender<CliEvent>,
    receiver: Receiver<CliEvent>,
}

/// The signals that end a program which does nothing about them, and that we pass on.
const ENDING: [i32; 7] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM];

/// Whether `signal` ends a program that does nothing about it.
pub(super) fn ends(signal: i32) -> bool {
    ENDING.contains(&signal)
}

impl Events {
    /// Listens from now on to what concerns a command. What was ignored when we were started stays
    /// ignored, for us and for the command (`nohup tierlock run …`); except SIGCHLD, without which
    /// no process would learn how the command ended.
    pub(super) fn listen_for_a_command() -> io::Result<Events> {
        let is_ignored = |&signal: &i32| Inherited::get().ignores(signal);
        let passed_on = ENDING.into_iter().chain([SIGWINCH]).filter(|signal| !is_ignored(signal));
        Events::listen_to(passed_on.chain([SIGCHLD, SIGCONT]))
    }

    /// Listens to these signals from now on, though they were blocked when this process was
    /// started. The threads that are to hear of them are started after this.
    pub(super) fn listen_to(signals: impl IntoIterator<Item = i32>) -> io::Result<Events> {
        let numbers: Vec<i32> = signals.into_iter().collect();
        Inherited::get();
        let mut signals = Signals::new(&numbers)?;
        sys::unblock(&numbers);
        let (sender, receiver) = mpsc::channel();
        let from_signals = sender.clone();
        std::thread::Builder::new().name("tierlock-signals".into()).spawn(move || {
            for signal in &mut signals {
                if from_signals.send(CliEvent::Signal(signal)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Events { sender, receiver })
    }

    /// The next event; `None` when none came for that long.
    pub(super) fn next(&self, at_most: Option<Duration>) -> Option<CliEvent> {
        match at_most {
            None => self.receiver.recv().ok(),
            Some(wait) => match self.receiver.recv_timeout(wait) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            },
        }
    }

    pub(super) fn sender(&self) -> Sender<CliEvent> {
        self.sender.clone()
    }

    /// A waker that puts [`CliEvent::Woken`] into the queue.
    pub(super) fn waker(&self) -> Waker {
        struct Knock(Sender<CliEvent>);
        impl Wake for Knock {
            fn wake(self: Arc<Self>) {
                let _ = self.0.send(CliEvent::Woken);
            }
        }
        Waker::from(Arc::new(Knock(self.sender())))
    }
}
