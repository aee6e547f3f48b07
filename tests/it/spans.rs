//! What a subscriber of `tracing` is told, with the feature of that name.

use std::{
    collections::HashMap,
    fmt::Debug,
    panic::resume_unwind,
    sync::{Arc, Mutex as StdMutex},
};

use tierlock::{LockManager, MutexGuard, RwLockWriteGuard, Scope};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::{self, Interest},
};

use crate::setting::until;

#[derive(Clone, Debug, Default)]
struct Seen {
    span: &'static str,
    fields: HashMap<&'static str, String>,
    is_closed: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Notes every span of ours, in the order of their beginnings.
#[derive(Clone, Default)]
struct Spans {
    seen: Arc<StdMutex<Vec<Seen>>>,
    panics_at: Option<Told>,
}

/// What a subscriber is called for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    IsEnabled,
    Begins,
    Records,
    Ends,
}

impl Subscriber for Spans {
    /// It is asked each time.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.may_panic_at(Told::IsEnabled);
        metadata.target() == "tierlock"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.may_panic_at(Told::Begins);
        let mut new = Seen { span: attributes.metadata().name(), ..Seen::default() };
        attributes.record(&mut new);
        let mut seen = self.seen.lock().unwrap();
        seen.push(new);
        Id::from_u64(seen.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.may_panic_at(Told::Records);
        values.record(&mut self.seen.lock().unwrap()[span.into_u64() as usize - 1]);
    }

    fn try_close(&self, span: Id) -> bool {
        self.seen.lock().unwrap()[span.into_u64() as usize - 1].is_closed = true;
        self.may_panic_at(Told::Ends);
        true
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What a subscriber panics with at the worst.
struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("what a subscriber has panicked with is dropped");
    }
}

impl Spans {
    fn may_panic_at(&self, told: Told) {
        if self.panics_at == Some(told) {
            resume_unwind(Box::new(PanicsAgain));
        }
    }

    /// All so far, as long as this one looks.
    fn of(&self, work: impl FnOnce()) -> Vec<Seen> {
        subscriber::with_default(self.clone(), work);
        self.seen.lock().unwrap().clone()
    }
}

#[test]
fn a_lock_of_each_scope_has_a_span_of_its_wait_of_its_hold_and_of_its_release() {
    let locks = LockManager::in_memory();
    for scope in [Scope::Thread, Scope::Process, Scope::Host] {
        let name = format!("orders/{scope}");
        let mut token = None;
        let seen = Spans::default().of(|| {
            let mutex = locks.mutex(&name, ()).scope(scope).build().unwrap();
            for _ in 0..2 {
                token = Some(MutexGuard::token(&mutex.lock().unwrap()));
            }
        });
        let spans: Vec<_> = seen.iter().map(|seen| seen.span).collect();
        assert_eq!(spans, ["acquire", "hold", "release", "acquire", "hold", "release"], "{seen:?}");
        assert!(seen.iter().all(|seen| seen.is_closed), "{seen:?}");
        for of_the_second in &seen[3..] {
            assert_eq!(of_the_second.field("name"), name);
            assert_eq!(of_the_second.field("scope"), scope.to_string());
            assert_eq!(of_the_second.field("token"), token.unwrap().to_string());
        }
        assert_eq!((seen[3].field("mode"), seen[3].field("outcome")), ("exclusive", "acquired"));
        assert_eq!((seen[4].field("predecessor"), seen[5].field("how")), ("clean", "clean"));
    }
}

#[test]
fn readers_writers_and_permits_have_spans_and_a_reader_that_was_a_writer_too() {
    let locks = LockManager::in_memory();
    let seen = Spans::default().of(|| {
        let lock = locks.rw_lock("config", ()).scope(Scope::Process).build().unwrap();
        drop(lock.read().unwrap());
        drop(RwLockWriteGuard::downgrade(lock.write().unwrap()).unwrap());
        let permits = locks.semaphore("pool", 2).scope(Scope::Thread).build().unwrap();
        drop(permits.acquire().unwrap());
    });
    let acquired = seen.iter().filter(|seen| seen.span == "acquire");
    let modes: Vec<_> = acquired.map(|seen| seen.field("mode")).collect();
    assert_eq!(modes, ["shared", "exclusive", "permits"]);
    // The reader's, the writer's, that of the reader it became, the permit's.
    assert_eq!(seen.iter().filter(|seen| seen.span == "hold").count(), 4, "{seen:?}");
    assert!(seen.iter().all(|seen| seen.is_closed), "{seen:?}");
}

#[test]
fn a_wait_in_vain_and_a_dropped_one_say_so() {
    let locks = LockManager::in_memory();
    let mutex = locks.mutex("a", ()).scope(Scope::Process).build().unwrap();
    let held = mutex.lock().unwrap();
    let seen = Spans::default().of(|| {
        assert!(mutex.try_lock().is_err());
        let mut waiting = Box::pin(mutex.lock_async());
        let waker = futures::task::noop_waker();
        let mut context = std::task::Context::from_waker(&waker);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
    });
    drop(held);
    let outcomes: Vec<_> = seen.iter().map(|seen| seen.field("outcome").to_owned()).collect();
    assert_eq!(outcomes.len(), 2, "{seen:?}");
    assert!(outcomes[0].contains("is taken") && outcomes[1] == "cancelled", "{outcomes:?}");
}

#[test]
fn a_subscriber_that_panics_costs_no_lock() {
    let locks = LockManager::in_memory();
    for (told, begun) in
        [(Told::IsEnabled, 0), (Told::Begins, 0), (Told::Records, 7), (Told::Ends, 7)]
    {
        let mutex = locks.mutex(format!("{told:?}"), 0).scope(Scope::Process).build().unwrap();
        let seen = Spans { panics_at: Some(told), ..Spans::default() }.of(|| {
            *mutex.lock().unwrap() += 1;
            let guard = mutex.lock().unwrap();
            assert!(mutex.try_lock().is_err_and(|error| error.is_contended()), "{told:?}");
            drop(guard);
        });
        assert!(seen.iter().all(|seen| seen.is_closed), "{told:?}: {seen:?}");
        assert_eq!(seen.len(), begun, "{told:?}: {seen:?}");
        let free = || mutex.try_lock().is_ok_and(|guard| *guard == 1);
        until("the lock is free", free);
    }
}
