use std::time::Duration;

use super::*;
use crate::{name::Name, token::Token};

fn lock(state: LockState, scope: Scope) -> LockStatus {
    let token = Token::new(7).unwrap();
    LockStatus { state, token, ..LockStatus::free(Name::new("night\u{202e}ly").unwrap(), scope) }
}

fn holder() -> Holder {
    Holder {
        label: "job".to_owned(),
        host: "db1".to_owned(),
        pid: Some(4711),
        held: Some(Duration::from_millis(3_100)),
        held_since_grant: true,
        ..Holder::default()
    }
}

fn said(lock: &LockStatus) -> String {
    sentences(lock, |_| false).join("\n")
}

#[track_caller]
fn says(lock: &LockStatus, words: &[&str]) {
    let text = said(lock);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
    // A name is shown, and never obeyed.
    assert!(text.contains("night\\u{202e}ly"), "{text}");
}

#[test]
fn a_free_lock_says_how_its_last_holder_left() {
    let free = lock(LockState::Free, Scope::Process);
    assert_eq!(said(&free), "night\\u{202e}ly is free.");
    says(&LockStatus { predecessor: Predecessor::Died, ..free }, &["is free", "died while"]);
}

#[test]
fn a_holder_of_the_machine_has_no_time_by_which_it_must_end() {
    let held = LockStatus { holder: Some(holder()), ..lock(LockState::Held, Scope::Process) };
    says(&held, &["held by job on db1 (pid 4711) for 3.1 s", "token 7", "no time by which"]);
    says(&held, &["break night\\u{202e}ly --token 7` ends that process"]);
    let stopped = sentences(&held, |_| true).join("\n");
    assert!(stopped.contains("kill -CONT 4711"), "{stopped}");
}

#[test]
fn a_lease_says_by_when_it_is_free_at_the_latest() {
    let remaining = Some(Duration::from_millis(4_200));
    let held =
        LockStatus { holder: Some(holder()), remaining, ..lock(LockState::Held, Scope::Host) };
    says(&held, &["in 4.2 s at the latest", "takes it away"]);
    let kept = LockStatus { state: LockState::Kept, ..held };
    says(&kept, &["No caller holds", "as soon as another client asks", "after 4.2 s"]);
}

#[test]
fn what_has_no_holder_says_what_keeps_it() {
    let remaining = Some(Duration::from_secs(90));
    let reserved = LockStatus { remaining, ..lock(LockState::Reserved, Scope::Process) };
    says(&reserved, &["at_least", "1 min 30 s more", "frees it earlier"]);
    says(&lock(LockState::Unknown, Scope::Host), &["only its leader knows", "--leader"]);
    let climbing = LockStatus { holder: Some(holder()), ..lock(LockState::Climbing, Scope::Host) };
    says(&climbing, &["is being taken by job", "waits for its leader"]);
}

#[test]
fn waiters_are_told_in_their_order() {
    let waiter = |label: &str, ms| WaitingCaller {
        label: label.to_owned(),
        label_is_proved: false,
        claims_label: false,
        host: "web".to_owned(),
        pid: Some(1),
        waiting: Duration::from_millis(ms),
        mode: None,
    };
    let mut held = LockStatus { holder: Some(holder()), ..lock(LockState::Held, Scope::Process) };
    held.waiters = vec![waiter("b", 2_000)];
    says(&held, &["1 caller waits", "  1. b on web (pid 1), for 2.0 s"]);
    held.waiters.push(waiter("a", 10));
    says(&held, &["2 callers wait", "in this order", "  2. a on web (pid 1), for 10 ms"]);
}

#[test]
fn processes_that_may_wait_for_each_other_are_told_with_what_each_has() {
    let lock = |name: &str, holder: u32, waiters: &[u32]| {
        let described = |pid| Holder { host: "vm".into(), pid: Some(pid), ..Holder::default() };
        let waits = |&pid| WaitingCaller {
            label_is_proved: false,
            claims_label: false,
            label: String::new(),
            host: "vm".into(),
            pid: Some(pid),
            waiting: Duration::ZERO,
            mode: None,
        };
        LockStatus {
            state: LockState::Held,
            holder: Some(described(holder)),
            waiters: waiters.iter().map(waits).collect(),
            ..LockStatus::free(Name::new(name).unwrap(), Scope::Host)
        }
    };
    // 4 waits as well, and has nothing that any of the others wants; 5 waits for its own.
    let all =
        [lock("a", 1, &[3, 4]), lock("b", 2, &[1]), lock("c", 3, &[2]), lock("d", 5, &[5, 4])];
    let why = |at: usize| Explanation::new(all[at].clone(), &all);
    assert!(why(0).may_be_deadlock());
    let text = why(0).to_string();
    let ring = "It may be a deadlock: a process on vm (pid 1) has a and waits for b; a process on vm (pid 2) has \
                b and waits for c; a process on vm (pid 3) has c and waits for a.";
    assert!(text.contains(ring), "{text}");
    assert!(why(1).may_be_deadlock() && why(2).may_be_deadlock());
    assert!(!why(3).may_be_deadlock());
    assert!(!Explanation::new(all[0].clone(), &all[..2]).may_be_deadlock());
}
