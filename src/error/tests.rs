use super::*;

fn job(error: LockError) -> LockError {
    error.with_name(&Name::new("job").unwrap()).with_scope(Scope::Process)
}

fn sleep() -> Option<Holder> {
    Some(Holder {
        host: "vm".to_owned(),
        pid: Some(22812),
        command: "sleep".to_owned(),
        held: Some(Duration::from_millis(1040)),
        held_since_grant: true,
        ..Holder::default()
    })
}

#[test]
fn a_holder_that_is_known_is_named_once_with_the_wait() {
    let gave_up = job(LockError::timed_out(Duration::from_micros(203_500)));
    assert_eq!(
        gave_up.to_string(),
        r#"process lock "job": another holder had it all the time; gave up after 203 ms"#
    );
    assert_eq!(
        gave_up.with_holder(sleep()).to_string(),
        r#"process lock "job" is held by sleep on vm (pid 22812, 1.0 s so far); gave up after 203 ms"#
    );
    assert_eq!(
        job(LockError::WOULD_BLOCK).with_holder(sleep()).to_string(),
        r#"process lock "job" is held by sleep on vm (pid 22812, 1.0 s so far)"#
    );
}

#[test]
fn how_many_waiters_stood_before_is_said_behind_the_rest() {
    let behind = |ahead| {
        let error = job(LockError::timed_out(Duration::from_secs(1)));
        let error = error.with_holder(sleep()).with_waiters_ahead(ahead);
        let text = error.to_string();
        let (_, said) = text.split_once("gave up after 1.0 s").unwrap();
        (error.waiters_ahead(), said.to_owned())
    };
    let told = |ahead, said: &str| (Some(ahead), said.to_owned());
    assert_eq!(behind(None), (None, String::new()));
    assert_eq!(behind(Some(0)), told(0, "; no waiter stood before it"));
    assert_eq!(behind(Some(1)), told(1, "; 1 waiter stood before it"));
    assert_eq!(behind(Some(7)), told(7, "; 7 waiters stood before it"));
    assert_eq!(behind(Some(100_000)), told(100, "; 100 waiters or more stood before it"));
    assert_eq!(LockError::WOULD_BLOCK.waiters_ahead(), None);
}

#[test]
fn a_holder_is_named_beside_what_else_there_is_to_say() {
    let refused = job(LockError::new(LockErrorKind::Refused, "token 3 is not its holder's"));
    assert_eq!(
        refused.with_holder(sleep()).to_string(),
        "process lock \"job\": token 3 is not its holder's; held by sleep on vm (pid 22812, 1.0 s so far)"
    );
    assert_eq!(LockError::WOULD_BLOCK.to_string(), "the lock is taken: another holder has it");
}
