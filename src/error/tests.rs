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
fn a_holder_is_named_beside_what_else_there_is_to_say() {
    let refused = job(LockError::new(LockErrorKind::Refused, "token 3 is not its holder's"));
    assert_eq!(
        refused.with_holder(sleep()).to_string(),
        "process lock \"job\": token 3 is not its holder's; held by sleep on vm (pid 22812, 1.0 s so far)"
    );
    assert_eq!(LockError::WOULD_BLOCK.to_string(), "the lock is taken: another holder has it");
}
