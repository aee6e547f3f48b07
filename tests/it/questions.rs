//! What resource servers and operators ask: is this token good, take that lock away.

use std::time::Duration;

use tierlock::{LockErrorKind, LockManager, LostReason, MutexGuard, Predecessor, Scope, Token};

use crate::setting::{Hand, LONG, Setting, at, temp_dir, until};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Hand::new(future).finish()
}

at!(with_leader, a_token_is_good_for_as_long_as_its_lease);
/// Chubby's CheckSequencer.
fn a_token_is_good_for_as_long_as_its_lease(setting: &Setting) {
    let (holder, server) = (setting.locks(), setting.remote());
    let guard = setting.hold(&holder, "a");
    let token = MutexGuard::token(&guard);
    for locks in [&server, &holder] {
        locks.check_token("a", token).unwrap();
        block_on(locks.check_token_async("a", token)).unwrap();
    }
    for (name, number) in [("a", token.get() - 1), ("a", token.get() + 1), ("b", token.get())] {
        let never = Token::new(number).unwrap();
        let error = server.check_token(name, never).unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert_eq!((error.name(), error.scope()), (Some(name), Some(Scope::Host)));
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
    drop(guard);
    setting.until_heard(&holder);
    assert!(server.check_token("a", token).unwrap_err().is_lost());
    let guard = setting.hold(&holder, "a");
    assert!(server.check_token("a", token).unwrap_err().is_lost());
    server.check_token("a", MutexGuard::token(&guard)).unwrap();
    assert_eq!(server.check_token("", token).unwrap_err().kind(), LockErrorKind::Config);
}

at!([host host_with_directory] a_stopped_holders_token_is_good_until_its_time_is_over);
fn a_stopped_holders_token_is_good_until_its_time_is_over(setting: &Setting) {
    let mut holder = setting.near_helper();
    let token = Token::new(holder.lock(Scope::Host, "a").token).unwrap();
    let server = setting.remote();
    holder.stop();
    until("the end of a stopped holder's lease", || server.check_token("a", token).is_err());
    assert!(server.check_token("a", token).unwrap_err().is_lost());
    holder.resume();
    assert_eq!(holder.ask("look\ta"), "false\tErr(Lost)");
}

at!(with_leader, a_broken_lock_is_lost_to_its_holder_and_found_broken_by_the_next);
fn a_broken_lock_is_lost_to_its_holder_and_found_broken_by_the_next(setting: &Setting) {
    let (holder, operator) = (setting.locks(), setting.remote());
    for is_async in [false, true] {
        let guard = setting.hold(&holder, "a");
        let (token, lost) = (MutexGuard::token(&guard), MutexGuard::lost(&guard));
        match is_async {
            false => operator.break_lock("a", token).unwrap(),
            true => block_on(operator.break_lock_async("a", token)).unwrap(),
        }
        assert_eq!(block_on(lost), LostReason::Broken);
        assert!(MutexGuard::check(&guard).unwrap_err().is_lost());
        assert!(operator.check_token("a", token).unwrap_err().is_lost());
        // It lives and has answered, so no request waits for its time to be over.
        let next = setting.mutex(&operator, "a", ());
        let next = next.try_lock_for(LONG).unwrap();
        assert_eq!(MutexGuard::predecessor(&next), Predecessor::Broken);
        assert!(MutexGuard::token(&next) > token);
        // Its late release frees no other's.
        drop(guard);
        setting.until_heard(&holder);
        operator.check_token("a", MutexGuard::token(&next)).unwrap();
    }
}

at!(with_leader, a_break_with_another_token_breaks_nothing_and_names_the_holder);
/// live-mutex#131: break removes the wrong holder.
fn a_break_with_another_token_breaks_nothing_and_names_the_holder(setting: &Setting) {
    let operator = setting.remote();
    let old = MutexGuard::token(&setting.hold(&setting.locks(), "a"));
    setting.until_heard(&setting.locks());
    let free = operator.break_lock("a", old).unwrap_err();
    assert_eq!(free.kind(), LockErrorKind::Refused, "{free}");
    assert!(free.to_string().contains("it is not held"), "{free}");
    let guard = setting.hold(&setting.locks(), "a");
    let token = MutexGuard::token(&guard);
    let error = block_on(operator.break_lock_async("a", old)).unwrap_err();
    for error in [operator.break_lock("a", old).unwrap_err(), error] {
        assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
        let holder = error.holder().unwrap();
        assert_eq!((holder.token, holder.pid), (Some(token), Some(std::process::id())));
        for word in [old.to_string(), token.to_string(), std::process::id().to_string()] {
            assert!(error.to_string().contains(&word), "{word} is not in {error}");
        }
    }
    assert!(MutexGuard::is_valid(&guard));
    operator.check_token("a", token).unwrap();
}

at!([host host_with_directory] a_broken_lock_of_a_silent_holder_is_free_when_its_time_is_over);
fn a_broken_lock_of_a_silent_holder_is_free_when_its_time_is_over(setting: &Setting) {
    let mut holder = setting.far_helper();
    let token = Token::new(holder.lock(Scope::Host, "a").token).unwrap();
    holder.stop();
    let operator = setting.remote();
    operator.break_lock("a", token).unwrap();
    let next = setting.mutex(&operator, "a", ());
    // It may still believe in it: that it does not is for it to say, or for its deadline.
    let error = next.try_lock().unwrap_err();
    assert!(error.is_contended(), "{error}");
    // Breaking it again changes nothing.
    operator.break_lock("a", token).unwrap();
    let guard = next.try_lock_for(LONG).unwrap();
    holder.resume();
    assert_eq!(holder.ask("look\ta"), "false\tErr(Lost)");
    assert!(MutexGuard::is_valid(&guard));
}

at!([host host_with_directory] without_a_leader_it_is_not_known);
fn without_a_leader_it_is_not_known(setting: &Setting) {
    let locks = setting.neighbour_with(|b| b.connect_timeout(Duration::from_millis(300)));
    let token = MutexGuard::token(&setting.hold(&locks, "a"));
    setting.stop_leader();
    for error in [
        locks.check_token("a", token).unwrap_err(),
        locks.break_lock("a", token).unwrap_err(),
        block_on(locks.check_token_async("a", token)).unwrap_err(),
    ] {
        assert!(error.is_unreachable() && !error.is_lost(), "{error}");
        assert_eq!(error.name(), Some("a"));
    }
}

#[test]
fn a_manager_without_leaders_says_what_to_do_instead() {
    let dir = temp_dir();
    let locks = LockManager::builder().directory(dir.path()).label("export").open().unwrap();
    let guard = locks.mutex("a", ()).lock().unwrap();
    let token = MutexGuard::token(&guard);
    let check = locks.check_token("a", token).unwrap_err();
    assert_eq!(check.kind(), LockErrorKind::Config);
    assert!(check.to_string().contains("fence"), "{check}");
    for broken in [
        locks.break_lock("a", token).unwrap_err(),
        block_on(locks.break_lock_async("a", token)).unwrap_err(),
    ] {
        assert_eq!((broken.kind(), broken.name()), (LockErrorKind::Config, Some("a")));
        assert!(broken.to_string().contains("tierlock break --dir"), "{broken}");
    }
    assert!(MutexGuard::is_valid(&guard));
}

// ---- where neighbours share a directory ---------------------------------------------------------

at!([host_with_directory] a_stopped_holders_neighbours_go_on_when_its_lease_is_broken);
/// Neither the lease nor the directory keeps them.
fn a_stopped_holders_neighbours_go_on_when_its_lease_is_broken(setting: &Setting) {
    let mut holder = setting.near_helper();
    let token = Token::new(holder.lock(Scope::Host, "a").token).unwrap();
    holder.stop();
    let locks = setting.locks();
    locks.break_lock("a", token).unwrap();
    let next = setting.mutex(&locks, "a", ());
    let guard = next.try_lock_for(LONG).unwrap();
    assert_eq!(MutexGuard::predecessor(&guard), Predecessor::Broken);
    assert!(MutexGuard::token(&guard) > token);
    holder.resume();
    assert_eq!(holder.ask("look\ta"), "false\tErr(Lost)");
    assert!(MutexGuard::is_valid(&guard));
}

at!([host_with_directory] a_wide_lock_is_not_broken_in_its_directory_alone);
fn a_wide_lock_is_not_broken_in_its_directory_alone(setting: &Setting) {
    let guard = setting.hold(&setting.locks(), "a");
    let here = LockManager::builder().directory(setting.directory()).open().unwrap();
    let error = here.break_lock("a", MutexGuard::token(&guard)).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("leader"), "{error}");
    assert!(MutexGuard::is_valid(&guard));
}

/// Leaders of our own by the name that other lock services have.
#[test]
fn a_service_of_our_own_kind_is_leaders() {
    let rig = crate::setting::Rig::start();
    let url = format!("tierlock://{}", rig.address());
    let builder = tierlock::LockManager::builder().service(&url).secret_file(rig.secret());
    let locks = builder.clone().open().unwrap();
    let guard = locks.mutex("a", ()).lock().unwrap();
    assert_eq!(tierlock::MutexGuard::scope(&guard), tierlock::Scope::Host);
    let others = rig.builder().open().unwrap();
    assert!(others.mutex("a", ()).try_lock().unwrap_err().is_contended());
    let both = builder.leaders([rig.address()]).open().map(|_| ()).unwrap_err();
    assert_eq!(both.kind(), tierlock::LockErrorKind::Config);
    let secret = tierlock::LockManager::builder().service("redis://u:hunter2@h?as=plain");
    assert!(!format!("{secret:?}").contains("hunter2"));
}
