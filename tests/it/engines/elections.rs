//! Elections on services whose locks carry a value.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use tierlock::{
    ElectedLeader, Election, LockErrorKind, LockManager, MutexGuard, Observer, Scope, Token,
};

use super::{
    foreign::Etcdctl,
    on,
    rig::{ENDLESS, EngineRig, SHORT, give, hold},
};
use crate::setting::{LONG, until};

fn election(locks: &LockManager) -> Election {
    locks.election("a").build().unwrap()
}

/// The next change, as value and token.
fn next(observer: &mut Observer) -> Option<(String, Token)> {
    let told = |leader: ElectedLeader| (leader.value_text().into_owned(), leader.token());
    observer.next_within(LONG).unwrap().map(told)
}

on!(with_values_and_own, an_observer_is_told_the_present_leader_first_and_then_each_change);
fn an_observer_is_told_the_present_leader_first_and_then_each_change(rig: &EngineRig) {
    let (near, far) = (rig.locks(), rig.locks());
    let (one, other) = (election(&near), election(&far));
    let mut observers = [one.observe().unwrap(), other.observe().unwrap()];
    assert!(observers.iter_mut().all(|observer| next(observer).is_none()));
    let mut before = Token::ZERO;
    for value in ["10.0.0.7:8080", "ein Wert\tmit ß"] {
        let leadership = one.campaign(value).unwrap();
        assert!(leadership.token() > before);
        before = leadership.token();
        let told = Some((value.to_owned(), leadership.token()));
        assert!(observers.iter_mut().all(|observer| next(observer) == told));
        assert_eq!(next(&mut other.observe().unwrap()), told);
        assert!(other.try_campaign("other").unwrap_err().is_contended());
        leadership.resign().unwrap();
        assert!(observers.iter_mut().all(|observer| next(observer).is_none()));
    }
    let longest = vec![0xff; Election::VALUE_BYTES_MAX];
    let leadership = other.campaign(&longest).unwrap();
    assert_eq!(one.leader().unwrap().unwrap().value(), longest);
    leadership.resign().unwrap();
}

on!(with_values_and_own, candidates_are_elected_one_after_the_other);
fn candidates_are_elected_one_after_the_other(rig: &EngineRig) {
    const TERMS: usize = 4;
    let managers: Vec<LockManager> = (0..3).map(|_| rig.locks()).collect();
    let observed = rig.locks();
    let mut observer = election(&observed).observe().unwrap();
    assert_eq!(next(&mut observer), None);
    let mut terms = thread::scope(|scope| {
        let candidates = managers.iter().enumerate().map(|(number, locks)| {
            scope.spawn(move || {
                let campaign = |term| {
                    let value = format!("{number}.{term}");
                    let leadership = election(locks).campaign(&value).unwrap();
                    let token = leadership.token();
                    leadership.resign().unwrap();
                    (value, token)
                };
                (0..TERMS).map(campaign).collect::<Vec<_>>()
            })
        });
        let candidates: Vec<_> = candidates.collect();
        candidates.into_iter().flat_map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    terms.sort_by_key(|(_, token)| *token);
    let last = election(&managers[0]).campaign("last").unwrap();
    terms.push(("last".to_owned(), last.token()));
    let mut told = Vec::new();
    while told.last() != terms.last() {
        told.extend(next(&mut observer));
    }
    match rig.kind {
        "etcd" => assert_eq!(told, terms, "each term was told once, in order"),
        // What lies between two looks is missed; what is told is true, and in order.
        _ => {
            assert!(told.is_sorted_by(|(_, before), (_, after)| before < after), "{told:?}");
            assert!(told.iter().all(|term| terms.contains(term)), "{told:?} of {terms:?}");
        }
    }
}

on!([etcd etcd_kept] a_refused_candidate_is_never_told_as_the_leader);
/// Not even for the moment between the leader's resignation and its own retraction.
fn a_refused_candidate_is_never_told_as_the_leader(rig: &EngineRig) {
    let [near, far, observed] = [rig.locks(), rig.locks(), rig.locks()];
    let mut observer = election(&observed).observe().unwrap();
    assert_eq!(next(&mut observer), None);
    let is_over = AtomicBool::new(false);
    let mut won = thread::scope(|scope| {
        let trying = scope.spawn(|| {
            let mut won = Vec::new();
            while !is_over.load(SeqCst) {
                match election(&far).try_campaign("tries") {
                    Ok(leadership) => {
                        won.push(leadership.token());
                        leadership.resign().unwrap();
                    }
                    Err(error) => assert!(error.is_contended(), "{error}"),
                }
            }
            won
        });
        for term in 0..30 {
            election(&near).campaign(format!("{term}")).unwrap().resign().unwrap();
        }
        is_over.store(true, SeqCst);
        trying.join().unwrap()
    });
    let last = election(&near).campaign("last").unwrap();
    loop {
        match next(&mut observer) {
            Some((value, token)) if value == "tries" => {
                let at = won.iter().position(|known| *known == token);
                won.swap_remove(at.expect("a leader that never won"));
            }
            told if told == Some(("last".to_owned(), last.token())) => break,
            _ => {}
        }
    }
}

on!(with_values, a_mutex_of_the_name_leads_nothing);
fn a_mutex_of_the_name_leads_nothing(rig: &EngineRig) {
    let (near, far) = (rig.locks(), rig.locks());
    let (one, other) = (election(&near), election(&far));
    let guard = hold(&rig.locks(), "a");
    assert_eq!(one.leader().unwrap(), None);
    assert!(one.try_campaign("one").unwrap_err().is_contended());
    give(guard);
    // A lease that is kept here says nothing of a candidate.
    for _ in 0..4 {
        give(hold(&near, "a"));
    }
    let leadership = one.try_campaign_for("one", LONG).unwrap();
    assert_eq!(other.leader().unwrap().unwrap().value(), b"one");
    drop(leadership);
    // What would be taken for a lock is refused, and nothing is left of it.
    let (refused, word) = match rig.kind {
        "etcd" => ("", "an empty value"),
        _ => ("label\thost\t1\tcommand", "another one"),
    };
    let error = one.campaign(refused).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains(word), "{error}");
    until("a free election", || !rig.is_taken("a"));
}

on!(with_values_and_own, a_killed_leader_is_succeeded);
fn a_killed_leader_is_succeeded(rig: &EngineRig) {
    let locks = rig.locks();
    let election = election(&locks);
    let mut observer = election.observe().unwrap();
    assert_eq!(next(&mut observer), None);
    let mut helper = rig.helper(SHORT);
    let answer = helper.ask("campaign\thost\ta\tof a helper");
    let token: Token = answer.strip_prefix("elected\t").expect(&answer).parse().unwrap();
    assert_eq!(next(&mut observer), Some(("of a helper".to_owned(), token)));
    helper.kill();
    let leadership = election.try_campaign_for("one", LONG).unwrap();
    assert!(leadership.token() > token);
    let told = std::iter::from_fn(|| Some(next(&mut observer)));
    assert_eq!(told.flatten().next(), Some(("one".to_owned(), leadership.token())));
}

on!(with_values, an_observer_outlives_an_outage_and_ends_with_its_manager);
fn an_observer_outlives_an_outage_and_ends_with_its_manager(rig: &EngineRig) {
    let proxies = rig.proxies();
    let locks = rig.locks();
    let cut = rig.proxied(&proxies, ENDLESS);
    let mut observer = election(&cut).observe().unwrap();
    assert_eq!(next(&mut observer), None);
    for proxy in &proxies {
        proxy.stall(true);
        proxy.cut();
    }
    let first = election(&locks).campaign("first").unwrap();
    first.resign().unwrap();
    let second = election(&locks).campaign("second").unwrap();
    proxies.iter().for_each(|proxy| proxy.stall(false));
    // What was in between is not told; what is now, is.
    let told = std::iter::from_fn(|| Some(next(&mut observer)));
    assert_eq!(told.flatten().next(), Some(("second".to_owned(), second.token())));
    thread::scope(|scope| {
        let waits = scope.spawn(|| observer.next_within(LONG));
        cut.close();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), LockErrorKind::Config);
    });
    second.resign().unwrap();
}

on!(with_values, a_server_that_is_silent_from_the_beginning_is_told);
fn a_server_that_is_silent_from_the_beginning_is_told(rig: &EngineRig) {
    let proxies = rig.proxies();
    proxies.iter().for_each(|proxy| proxy.stall(true));
    let url = rig.url_of(proxies.iter().map(|proxy| proxy.port()));
    let patience = Duration::from_millis(500);
    let locks = LockManager::builder().service(url).connect_timeout(patience).open().unwrap();
    let mut observer = election(&locks).observe().unwrap();
    let error = observer.next_within(LONG).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Unreachable, "{error}");
    proxies.iter().for_each(|proxy| proxy.stall(false));
    // It begins anew.
    let answer = || observer.next_within(LONG).map_err(|error| error.kind());
    let answers = std::iter::repeat_with(answer);
    let mut answers = answers.skip_while(|answer| *answer == Err(LockErrorKind::Unreachable));
    assert_eq!(answers.next().unwrap(), Ok(None));
}

on!([redis postgres mysql] a_service_that_carries_no_values_has_no_elections);
fn a_service_that_carries_no_values_has_no_elections(rig: &EngineRig) {
    let error = rig.locks().election("a").build().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("etcd, ZooKeeper"), "{error}");
}

on!([etcd] etcdctl_and_we_are_candidates_of_one_election);
fn etcdctl_and_we_are_candidates_of_one_election(rig: &EngineRig) {
    let locks = rig.locks();
    let election = election(&locks);
    let mut observer = election.observe().unwrap();
    assert_eq!(next(&mut observer), None);
    let leadership = election.campaign("ours").unwrap();
    assert_eq!(next(&mut observer), Some(("ours".to_owned(), leadership.token())));
    let mut listens = Etcdctl::elect(rig, &["--listen", "a"]);
    assert!(listens.key().starts_with("a/"));
    assert_eq!(listens.key(), "ours");
    let mut theirs = Etcdctl::elect(rig, &["a", "theirs"]);
    until("a queue of two", || super::foreign::keys(rig, "a").len() == 2);
    let queue = super::foreign::keys(rig, "a");
    leadership.resign().unwrap();
    assert_eq!((theirs.key(), theirs.key()), (queue[1].clone(), "theirs".to_owned()));
    let (value, token) = next(&mut observer).unwrap();
    assert_eq!(value, "theirs");
    assert!(election.try_campaign("ours").unwrap_err().is_contended());
    assert_eq!(election.leader().unwrap().unwrap().token(), token);
    theirs.unlock();
    assert!(election.try_campaign_for("ours", LONG).unwrap().token() > token);
}

on!([etcd zookeeper] the_program_campaigns_and_observes);
fn the_program_campaigns_and_observes(rig: &EngineRig) {
    let url = &*rig.url();
    let tierlock = |arguments: &[&str]| {
        let mut command = crate::surroundings::program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(arguments).output().unwrap()
    };
    let tool = env!("CARGO_BIN_EXE_tierlock");
    let script = format!("timeout 20 {tool} elect a --observe --service '{url}' | head -n 1");
    let run =
        ["elect", "a", "--service", url, "--value", "10.0.0.7:8080", "--", "sh", "-c", &script];
    let output = tierlock(&run);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("10.0.0.7:8080"), "{told}");
    let locks = rig.locks();
    let mutex = locks.mutex("a", ()).scope(Scope::Host).build().unwrap();
    assert!(MutexGuard::is_valid(&mutex.try_lock_for(LONG).unwrap()));
}
