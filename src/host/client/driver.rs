//! One manager's hand on what carries its frames.
//!
//! It decides nothing about locks, and touches no network before something is wanted. The caller
//! needs no runtime: what carries has a thread of its own, started by the first request, and a caller
//! that is about to block carries its frames itself until it has its answer.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    carrier::{CarriedLink, Carrier},
    link::{Drive, Lent, Link, expecting},
    reader::LentReader,
    routes::{Map, Routes},
};
use crate::{
    alarm, clock,
    error::{LockError, LockErrorKind},
    host::{exit, net::client_keys::ClientKeys, random},
    proto::client::{Client, ClientConfig},
    time::Time,
};

/// How long a connection may be silent, whatever the time to live.
const SILENCE_MIN: Duration = Duration::from_millis(300);
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A link to the leader at one of these addresses (`HOST:PORT`, or `HOST` for port 7420). Nothing
/// is looked up and nothing is sent before something is wanted. Tasks that wait on the runtime that
/// `reader` was lent are answered there. `generation` tells a forked child from its parent.
///
/// # Errors
///
/// `ClientConfig` for an address that is none, or none at all; `Io` if the system gives no pipe.
pub(crate) fn connect(
    addresses: &[String],
    keys: impl Into<ClientKeys>,
    config: ClientConfig,
    reader: Option<LentReader>,
    generation: fn() -> u64,
) -> Result<Arc<Link>, LockError> {
    connect_over(Carrier::shared, addresses, keys, config, reader, generation)
}

/// The same with a thread and ports of its own: for tests that stop or break it.
#[cfg(test)]
pub(in crate::host) fn connect_apart(
    addresses: &[String],
    keys: impl Into<ClientKeys>,
    config: ClientConfig,
    reader: Option<LentReader>,
    generation: fn() -> u64,
) -> Result<Arc<Link>, LockError> {
    connect_over(Carrier::new, addresses, keys, config, reader, generation)
}

pub(super) fn connect_over(
    carrier: impl FnOnce(Option<LentReader>) -> io::Result<Arc<Carrier>>,
    addresses: &[String],
    keys: impl Into<ClientKeys>,
    mut config: ClientConfig,
    reader: Option<LentReader>,
    generation: fn() -> u64,
) -> Result<Arc<Link>, LockError> {
    let addresses = addresses.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(LockError::config("host scope needs the address of a leader"));
    }
    config.addresses = addresses.len();
    let carrier = carrier(reader).map_err(|error| {
        LockError::new(LockErrorKind::Io, format!("cannot make a pipe: {error}")).with_source(error)
    })?;
    // A dead path is noticed while there is time to find another before the leases run out.
    let silence = (config.time_to_live / 2).clamp(SILENCE_MIN, SILENCE_MAX);
    let keys = keys.into();
    let mut client = Client::new(config, Box::new(random), clock::now());
    client.change_rights(keys.rights(), clock::now());
    Ok(Link::new(client, generation, |link| {
        let carried = CarriedLink::new(link);
        let (looked_up, carries) = (carried.clone(), carrier.clone());
        let wake = move || -> Box<dyn FnOnce() + Send> {
            let (carried, carrier) = (looked_up.clone(), carries.clone());
            Box::new(move || carrier.send(&carried))
        };
        let routes = Routes::new(Map { addresses, keys, silence }, wake);
        Arc::new(ClientDriver { carrier, carried, routes: Mutex::new(Some(routes)) })
    }))
}

struct ClientDriver {
    carrier: Arc<Carrier>,
    carried: Arc<CarriedLink>,
    /// Until the first request.
    routes: Mutex<Option<Routes>>,
}

impl Drive for ClientDriver {
    fn start(&self) -> Result<(), LockError> {
        if self.carried.is_taken_on() {
            return self.carried.attend(false);
        }
        let no_thread = |error: io::Error| {
            let text = format!("cannot start a thread: {error}");
            LockError::new(LockErrorKind::Io, text).with_source(error)
        };
        alarm::ready().map_err(no_thread)?;
        let mut routes = self.routes.lock();
        if routes.is_some() {
            self.carrier.take_on(&self.carried, &mut routes).map_err(no_thread)?;
            let link: Weak<dyn exit::LeavesAtExit> = self.carried.link().clone();
            exit::look_after(&link);
        }
        Ok(())
    }

    fn wake(&self) {
        self.carrier.send(&self.carried);
    }

    fn carry_for_task(&self, done: &dyn Fn() -> bool) -> Option<Lent> {
        let link = self.carried.link().upgrade()?;
        if link.unanswered() > 1 {
            self.carrier.send_for_task(&self.carried, false);
            return None;
        }
        let lent = (Instant::now(), self.carrier.lends(expecting()));
        if lent.1.is_zero() {
            self.carrier.send_for_task(&self.carried, true);
        } else if self.carrier.carry_for_task(&self.carried, done, lent) {
            self.answered(lent);
            return None;
        }
        Some(lent)
    }

    fn answered(&self, (begin, long): Lent) {
        self.carrier.has_lent(long, begin.elapsed());
    }

    fn carry(&self, done: &dyn Fn() -> bool) {
        self.carrier.carry(&self.carried, done);
    }

    fn wake_for_release(&self, soon: bool) {
        if soon {
            self.carrier.send(&self.carried);
        } else {
            self.carrier.put_off(&self.carried);
        }
    }

    fn attend(&self) -> Result<(), LockError> {
        self.carried.attend(true)
    }

    fn finish(&self, until: Time) {
        if self.carried.is_taken_on() {
            self.carrier.finish(&self.carried, until);
        }
    }

    #[cfg(test)]
    fn break_down(&self) {
        self.carried.break_down();
        self.carrier.send(&self.carried);
    }

    #[cfg(test)]
    fn while_stalled(&self, work: &mut dyn FnMut()) {
        self.carrier.while_stalled(work);
    }
}
