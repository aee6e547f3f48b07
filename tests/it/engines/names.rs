//! Names, awkward ones and many of them.

use tierlock::MutexGuard;

use super::{
    on,
    rig::{EngineRig, give, mutex},
};

on!(all_and_own, awkward_names_are_locks_of_their_own);
fn awkward_names_are_locks_of_their_own(rig: &EngineRig) {
    let [one, another] = [rig.locks(), rig.locks()];
    let long = "x".repeat(255);
    let names = [
        "a", "A", " a", "a ", "a/b", "a/", "/a", "a//b", "%2F", "a%2Fb", "{a}", "a{b}c", "a*",
        "a?", "[a]", "\\a", "'a'", "\"a\"", "$(a)", "a:b", "ä", "日本", "é", "e\u{301}", ".", "..",
        "--a", &long,
    ];
    let guards: Vec<_> = names.iter().map(|name| mutex(&one, name).lock_owned_now()).collect();
    for name in names {
        assert!(mutex(&another, name).try_lock().unwrap_err().is_contended(), "{name}");
    }
    for guard in guards {
        give(guard);
    }
    for name in names {
        drop(mutex(&another, name).try_lock().unwrap());
    }
}

on!(all, a_thousand_names_are_held_and_renewed_at_once);
fn a_thousand_names_are_held_and_renewed_at_once(rig: &EngineRig) {
    // Enough for a thousand renewals on a busy machine.
    let life = super::rig::SHORT * 6;
    let one = rig.builder().time_to_live(life).open().unwrap();
    let another = rig.locks();
    let name = |number| format!("orders/{number}");
    let guards: Vec<_> =
        (0..1_000).map(|number| one.mutex(name(number), ()).lock().unwrap()).collect();
    // Longer than the time to live.
    let late = mutex(&another, "orders/0").try_lock_for(life + life / 4).unwrap_err();
    assert!(late.is_timeout());
    assert!(guards.iter().all(MutexGuard::is_valid));
    drop(guards);
    for number in (0..1_000).step_by(97) {
        drop(mutex(&another, &name(number)).try_lock_for(crate::setting::LONG).unwrap());
    }
}

/// A guard that owns its mutex.
trait LockOwnedNow {
    fn lock_owned_now(self) -> MutexGuard<'static, ()>;
}

impl LockOwnedNow for tierlock::Mutex<()> {
    fn lock_owned_now(self) -> MutexGuard<'static, ()> {
        std::sync::Arc::new(self).lock_arc().unwrap()
    }
}
