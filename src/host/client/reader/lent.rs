//! A runtime that was lent, and the task that reads there.

use std::{
    future::{Future as _, poll_fn},
    io,
    net::UdpSocket,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    task::Poll,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixDatagram,
    runtime::Handle,
    sync::Notify,
    task::yield_now,
};

use super::{AfterTurn, ReadFrames};
use crate::error::{LockError, LockErrorKind};

/// A runtime that was lent, and its reading task, if one runs.
pub(crate) struct LentReader {
    runtime: Handle,
    task: Arc<Task>,
}

#[derive(Default)]
struct Task {
    is_running: AtomicBool,
    /// The runtime has ended: a task that it was given never ran.
    has_ended: AtomicBool,
    look: Notify,
}

impl LentReader {
    /// # Errors
    ///
    /// `Config` if the runtime has no I/O driver, `Io` if it is shutting down.
    pub(crate) fn new(runtime: Handle) -> Result<LentReader, LockError> {
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let _inside = runtime.enter();
            UnixDatagram::unbound().map(drop)
        }));
        match attempt {
            Ok(Ok(())) => Ok(LentReader { runtime, task: Arc::default() }),
            Ok(Err(error)) => {
                let text = format!("the given runtime cannot watch sockets: {error}");
                Err(LockError::new(LockErrorKind::Io, text).with_source(error))
            }
            Err(_) => Err(LockError::config(
                "the given runtime has no I/O driver; build it with `enable_io` or `enable_all`",
            )),
        }
    }

    /// Whether it is the same runtime.
    pub(crate) fn is_like(&self, other: &LentReader) -> bool {
        self.runtime.id() == other.runtime.id()
    }

    /// Whether the runtime is known to have ended. It does not come back.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.has_ended.load(SeqCst)
    }

    /// Makes sure that a task reads, with `start` if none does. `false`: none will, since the runtime has
    /// ended.
    pub(crate) fn ensure<R: ReadFrames>(&self, start: impl FnOnce() -> Option<Arc<R>>) -> bool {
        let Some(mut running) = Running::begin(&self.task) else { return true };
        if let Some(reader) = start() {
            let reader = Arc::downgrade(&reader);
            // One that has ended drops at once what it is given.
            running.has_yet_to_run = true;
            self.runtime.spawn(async move {
                let mut task = running;
                task.has_yet_to_run = false;
                let mut sockets = Vec::new();
                let mut watched = Vec::new();
                loop {
                    // Nothing keeps the manager alive while this sleeps.
                    match reader
                        .upgrade()
                        .map_or(AfterTurn::End, |reader| reader.turn(&mut sockets))
                    {
                        AfterTurn::End => {
                            let ended = task.task.clone();
                            drop(task);
                            // A task that saw it run may want it by now.
                            let is_wanted = reader.upgrade().is_some_and(|r| r.is_wanted());
                            match Running::begin(&ended).filter(|_| is_wanted) {
                                Some(again) => {
                                    task = again;
                                    // Whatever it finds, others of this runtime get their turn.
                                    yield_now().await;
                                }
                                None => return,
                            }
                        }
                        // Others of this runtime get their turn.
                        AfterTurn::Again => yield_now().await,
                        AfterTurn::Sleep => {
                            if watch(&mut watched, &sockets).is_err() {
                                // The thread reads instead, as it would without a runtime.
                                return;
                            }
                            task.task.sleep(&watched).await;
                        }
                    }
                }
            });
        }
        !self.has_ended()
    }

    /// Has the task look at what there is to send, once those that are about to ask have asked.
    pub(crate) fn look(&self) {
        self.task.look.notify_one();
    }
}

impl Drop for LentReader {
    fn drop(&mut self) {
        self.look();
    }
}

/// However the task ends, another one can be started.
struct Running {
    task: Arc<Task>,
    has_yet_to_run: bool,
}

impl Running {
    /// Nothing if a task runs.
    fn begin(task: &Arc<Task>) -> Option<Running> {
        let runs = task.is_running.load(SeqCst) || task.is_running.swap(true, SeqCst);
        (!runs).then(|| Running { task: task.clone(), has_yet_to_run: false })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_yet_to_run {
            self.task.has_ended.store(true, SeqCst);
        }
        self.task.is_running.store(false, SeqCst);
    }
}

impl Task {
    /// Until there is something to read or to look at.
    async fn sleep(&self, watched: &[Watched]) {
        let mut look = pin!(self.look.notified());
        let is_called = poll_fn(|cx| {
            let mut is_readable = false;
            for socket in watched {
                if let Poll::Ready(ready) = socket.poll_read_ready(cx) {
                    is_readable = true;
                    if let Ok(mut ready) = ready {
                        // Before it is read, so that what comes meanwhile is told again.
                        ready.clear_ready();
                    }
                }
            }
            let is_called = look.as_mut().poll(cx).is_ready();
            if is_readable || is_called { Poll::Ready(is_called) } else { Poll::Pending }
        })
        .await;
        if is_called {
            for _ in 0..LINGERS {
                yield_now().await;
            }
        }
    }
}

/// How often others of the runtime get their turn before what was asked for is sent: one write for
/// all tasks that ask at this time. Those on another of its threads need a second one.
const LINGERS: u32 = 2;

/// A socket that the runtime watches. Only for something to read: every datagram that has left is
/// room to write, and would wake the runtime once more per round trip.
type Watched = AsyncFd<Arc<UdpSocket>>;

/// Has the runtime watch exactly these sockets.
fn watch(watched: &mut Vec<Watched>, sockets: &[Arc<UdpSocket>]) -> io::Result<()> {
    watched.retain(|known| sockets.iter().any(|socket| Arc::ptr_eq(socket, known.get_ref())));
    for socket in sockets {
        if !watched.iter().any(|known| Arc::ptr_eq(socket, known.get_ref())) {
            // SAFETY: the socket stays open, and its number its own, for as long as the `AsyncFd`
            // owns a share of it; nothing replaces the descriptor of an open `UdpSocket`.
            let socket =
                unsafe { AsyncFd::register_with_interest(socket.clone(), Interest::READABLE) };
            watched.push(socket?);
        }
    }
    Ok(())
}
