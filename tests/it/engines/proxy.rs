//! A way to a server that can be cut, or go silent in either direction.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// Passes on what comes, until it is told otherwise. Its threads end with it.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<ProxyState>,
}

#[derive(Default)]
struct ProxyState {
    lines: Mutex<Vec<TcpStream>>,
    /// What comes from the server waits here.
    is_deaf: Mutex<bool>,
    /// What goes to the server waits here.
    is_mute: Mutex<bool>,
    changed: [Condvar; 2],
    is_over: AtomicBool,
    /// What begins a connection says of no session of ZooKeeper.
    forgets_sessions: AtomicBool,
    /// The server's port.
    target: AtomicU16,
    /// Bytes that have gone to the server.
    sent: AtomicU64,
}

impl Proxy {
    pub(crate) fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(ProxyState { target: target.into(), ..ProxyState::default() });
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.is_over.load(SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let target = shared.target.load(SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let copies = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                shared.lines.lock().extend(copies);
                let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (up, down) = (shared.clone(), shared.clone());
                thread::spawn(move || up.carry(from, to, true));
                thread::spawn(move || down.carry(server, client, false));
            }
        });
        Proxy { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// New connections go to another server.
    pub(crate) fn lead_to(&self, target: u16) {
        self.state.target.store(target, SeqCst);
        self.cut();
    }

    /// From now on a client of ZooKeeper that comes back gets another session.
    pub(crate) fn forget_sessions(&self) {
        self.state.forgets_sessions.store(true, SeqCst);
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        for line in self.state.lines.lock().drain(..) {
            let _ = line.shutdown(Shutdown::Both);
        }
    }

    /// From now on, or no longer, nothing of the server's is passed on.
    pub(crate) fn deafen(&self, is_deaf: bool) {
        *self.state.is_deaf.lock() = is_deaf;
        self.state.changed[0].notify_all();
    }

    /// The same of the client's.
    pub(crate) fn mute(&self, is_mute: bool) {
        *self.state.is_mute.lock() = is_mute;
        self.state.changed[1].notify_all();
    }

    /// Both.
    pub(crate) fn stall(&self, is_stalled: bool) {
        self.mute(is_stalled);
        self.deafen(is_stalled);
    }

    /// How many bytes have gone to the server.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(SeqCst)
    }
}

impl ProxyState {
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, is_up: bool) {
        let (stalled, changed) = match is_up {
            true => (&self.is_mute, &self.changed[1]),
            false => (&self.is_deaf, &self.changed[0]),
        };
        let mut buffer = [0; 16 * 1024];
        let mut is_first = is_up;
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if std::mem::take(&mut is_first) && self.forgets_sessions.load(SeqCst) {
                // Behind the length, the version, the last transaction and the time to live.
                buffer[20..28].fill(0);
            }
            let mut is_stalled = stalled.lock();
            while *is_stalled && !self.is_over.load(SeqCst) {
                changed.wait_for(&mut is_stalled, Duration::from_millis(100));
            }
            drop(is_stalled);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
            if is_up {
                self.sent.fetch_add(length as u64, SeqCst);
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.is_over.store(true, SeqCst);
        self.cut();
        // The listener looks once more.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
