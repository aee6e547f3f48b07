use crate::{LockManager, MutexGuard, Scope, fork, path::Core};

/// A thread that has looked how far to climb, and then has to wait for a CPU: meanwhile the name
/// is locked at process scope for the first time.
#[test]
fn a_look_before_the_name_was_widened_wins_nothing_narrow() {
    let directory = tempfile::tempdir().unwrap();
    let locks = LockManager::builder().directory(directory.path()).open().unwrap();
    let wide = locks.mutex("a", ()).scope(Scope::Process).build().unwrap();
    let narrow = locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    let Core::Named(named) = &narrow.anchor.core else { panic!("it has a name") };

    let held = named.enter_gate(Scope::Thread, fork::generation()).expect("it is free");
    named.release_quietly(held, fork::generation());
    let last = wide.lock().unwrap();
    let token = MutexGuard::token(&last);
    drop(last);

    assert!(named.enter_gate(Scope::Thread, fork::generation()).is_none());
    let next = narrow.lock().unwrap();
    assert_eq!(MutexGuard::scope(&next), Scope::Process);
    assert!(MutexGuard::token(&next) > token);
}
