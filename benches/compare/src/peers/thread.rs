//! Locks inside a process.

use std::time::Duration;

use tierlock::Scope;

use crate::{
    bench::{
        case::{Case, Label, WaitMode},
        failure::Result,
        run::{Entrant, Quiet},
        tasks::{AsyncCaller, QuietAsync},
        thread::{self, Threads},
    },
    peers::field::Field,
};

const PARKING_LOT: &str = "no order, no token";
const STD: &str = "no order, no token; poisoned by panics";
const TOKIO: &str = "FIFO; no token";

pub(crate) fn quiet(field: &mut Field) -> Result<Vec<Entrant>> {
    let mut entries = vec![thread::quiet()];
    let label = Label::new(Scope::Thread, Case::QUIET);
    let of = |subject, note| Label { subject, note: Some(note), ..label.clone() };
    let parking_lot = parking_lot::Mutex::new(0_u64);
    entries.push(Entrant::new(
        of("parking_lot", PARKING_LOT),
        Quiet(move || {
            *parking_lot.lock() += 1;
            Ok(())
        }),
    ));
    let std = std::sync::Mutex::new(0_u64);
    entries.push(Entrant::new(
        of("std", STD),
        Quiet(move || {
            *std.lock().expect("no holder panics") += 1;
            Ok(())
        }),
    ));
    let runtime = field.grounds.runtime()?;
    let label = Label { mode: WaitMode::Async, note: Some(thread::NOTE), ..label };
    let ours = Ours(tierlock::Mutex::new(0));
    entries.push(Entrant::new(label.clone(), QuietAsync::new(runtime.clone(), ours)));
    let label = Label { subject: "tokio", note: Some(TOKIO), ..label };
    let tokio = Tokio(tokio::sync::Mutex::new(0));
    entries.push(Entrant::new(label, QuietAsync::new(runtime, tokio)));
    Ok(entries)
}

/// Threads that all want one lock.
pub(crate) fn contended(case: Case, hold: Duration) -> Result<Vec<Entrant>> {
    let mut entries = vec![thread::contended(case, hold)];
    let label = thread::label(case, hold);
    let of = |subject, note| Label { subject, note: Some(note), ..label.clone() };
    let parking_lot = parking_lot::Mutex::new(());
    let with_lock = move |section: &mut dyn FnMut()| {
        let _guard = parking_lot.lock();
        section();
        Ok(())
    };
    entries
        .push(Entrant::new(of("parking_lot", PARKING_LOT), Threads::new(&label, hold, with_lock)));
    let std = std::sync::Mutex::new(());
    let with_lock = move |section: &mut dyn FnMut()| {
        let _guard = std.lock().expect("no holder panics");
        section();
        Ok(())
    };
    entries.push(Entrant::new(of("std", STD), Threads::new(&label, hold, with_lock)));
    Ok(entries)
}

/// tierlock's own asynchronous side at thread scope.
struct Ours(tierlock::Mutex<u64>);

impl AsyncCaller for Ours {
    async fn cycle(&mut self) -> Result<()> {
        *self.0.lock_async().await? += 1;
        Ok(())
    }
}

struct Tokio(tokio::sync::Mutex<u64>);

impl AsyncCaller for Tokio {
    async fn cycle(&mut self) -> Result<()> {
        *self.0.lock().await += 1;
        Ok(())
    }
}
