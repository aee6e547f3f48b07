//! Elections: one leader at a time, what observers are told of it, and its end.

use std::{ops::ControlFlow, sync::mpsc, task::Poll, thread, time::Duration};

use tierlock::{
    Election, LockErrorKind, LockManager, LostReason, MutexGuard, Observer, Predecessor, Token,
};

use crate::setting::{Hand, LONG, Setting, at, until};

const SHORT: Duration = Duration::from_millis(20);

fn election(setting: &Setting, locks: &LockManager) -> Election {
    locks.election("a").scope(setting.scope).build().unwrap()
}

/// One near, one far.
fn two(setting: &Setting) -> [Election; 2] {
    [setting.locks(), setting.remote()].map(|locks| election(setting, &locks))
}

/// The next change, as value and token.
fn next(observer: &mut Observer) -> Option<(String, Token)> {
    let leader = observer.next_within(LONG).unwrap();
    leader.map(|leader| (leader.value_text().into_owned(), leader.token()))
}

at!(everywhere, an_observer_is_told_the_present_leader_first_and_then_each_change);
/// etcd#18163, trillian#1387: an observer is told an old leader, or never that there is none.
fn an_observer_is_told_the_present_leader_first_and_then_each_change(setting: &Setting) {
    let [one, other] = two(setting);
    assert_eq!((one.name(), one.scope()), ("a", setting.scope));
    let mut near = one.observe().unwrap();
    let mut far = other.observe().unwrap();
    assert_eq!((next(&mut near), next(&mut far)), (None, None));
    assert_eq!(one.leader().unwrap(), None);
    let mut before = Token::ZERO;
    for value in ["10.0.0.7:8080", "", "ein Wert mit ß"] {
        let leadership = one.campaign(value).unwrap();
        let told = Some((value.to_owned(), leadership.token()));
        assert!(leadership.token() > before && leadership.is_valid());
        before = leadership.check().unwrap();
        assert_eq!(leadership.value(), value.as_bytes());
        assert_eq!((next(&mut near), next(&mut far)), (told.clone(), told.clone()));
        // One that comes later is told the present one first.
        assert_eq!(next(&mut other.observe().unwrap()), told);
        assert!(other.try_campaign("other").unwrap_err().is_contended());
        assert!(other.try_campaign_for("other", SHORT).unwrap_err().is_timeout());
        leadership.resign().unwrap();
        assert_eq!((next(&mut near), next(&mut far)), (None, None));
        assert_eq!(next(&mut other.observe().unwrap()), None);
    }
    assert_eq!(near.next_within(SHORT).unwrap_err().kind(), LockErrorKind::TimedOut);
}

at!(everywhere, candidates_are_elected_one_after_the_other);
fn candidates_are_elected_one_after_the_other(setting: &Setting) {
    const TERMS: usize = 4;
    let [one, other] = two(setting);
    let mut observer = other.observe().unwrap();
    assert_eq!(next(&mut observer), None);
    let told = thread::scope(|scope| {
        for (number, election) in [&one, &other, &one].into_iter().enumerate() {
            scope.spawn(move || {
                for term in 0..TERMS {
                    let leadership = election.campaign(format!("{number}.{term}")).unwrap();
                    assert_eq!(leadership.predecessor(), Predecessor::Clean);
                    leadership.resign().unwrap();
                }
            });
        }
        let mut told = Vec::new();
        while told.len() < 3 * TERMS {
            told.extend(next(&mut observer));
        }
        told
    });
    assert!(told.is_sorted_by(|(_, before), (_, after)| before < after), "{told:?}");
    for number in 0..3 {
        let of = |(value, _): &&(String, Token)| value.starts_with(&number.to_string());
        let own: Vec<_> = told.iter().filter(of).map(|(value, _)| value.clone()).collect();
        let all: Vec<_> = (0..TERMS).map(|term| format!("{number}.{term}")).collect();
        assert_eq!(own, all, "each term was told once, in order");
    }
}

at!(everywhere, a_leader_that_goes_is_told_first);
/// pinniped#800: the lease is given back before the process has stopped leading.
fn a_leader_that_goes_is_told_first(setting: &Setting) {
    let [one, other] = two(setting);
    for drops in [false, true] {
        let leadership = one.campaign("one").unwrap();
        let ended = leadership.ended();
        assert_eq!(Hand::new(ended.clone()).poll(), Poll::Pending);
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let (clone, tell_next) = (leadership.ended(), tell.clone());
            scope.spawn(move || tell.send(futures::executor::block_on(clone).is_none()).unwrap());
            let other = &other;
            scope.spawn(move || {
                // By the time that it leads the one before has been told.
                let next = other.campaign("other").unwrap();
                assert_eq!(Hand::new(ended).poll(), Poll::Ready(None));
                tell_next.send(true).unwrap();
                drop(next);
            });
            match drops {
                true => drop(leadership),
                false => leadership.resign().unwrap(),
            }
        });
        assert_eq!([told.recv(), told.recv()], [Ok(true), Ok(true)]);
    }
}

at!([memory_host host] a_lost_leader_is_told_and_stands_again);
/// curator#1211, #1169, Netflix/curator#216: two leaders after a session was lost and found again.
fn a_lost_leader_is_told_and_stands_again(setting: &Setting) {
    let [one, other] = two(setting);
    let operator = setting.remote();
    let mut leadership = one.campaign("one").unwrap();
    let (tell, lost) = mpsc::channel();
    leadership.on_lost(move |why| tell.send(why).unwrap());
    let (first, ended) = (leadership.token(), leadership.ended());
    let mut observer = other.observe().unwrap();
    assert_eq!(next(&mut observer), Some(("one".to_owned(), first)));
    leadership.regain().unwrap();
    assert_eq!(leadership.token(), first, "it leads still");

    operator.break_lock("a", first).unwrap();
    assert_eq!(lost.recv().unwrap(), LostReason::Broken);
    assert_eq!(futures::executor::block_on(ended), Some(LostReason::Broken));
    assert!(!leadership.is_valid() && leadership.check().unwrap_err().is_lost());
    let next_term = other.campaign("other").unwrap();
    assert!(next_term.token() > first);
    assert_eq!(next_term.predecessor(), Predecessor::Broken);
    assert!(leadership.try_regain_for(SHORT).unwrap_err().is_timeout());
    assert!(!leadership.is_valid() && next_term.is_valid());
    thread::scope(|scope| {
        let again = scope.spawn(|| leadership.regain());
        next_term.resign().unwrap();
        again.join().unwrap().unwrap();
    });
    assert!(leadership.is_valid() && leadership.token() > first);
    let mut told = Vec::new();
    while told.last() != Some(&("one".to_owned(), leadership.token())) {
        told.extend(next(&mut observer));
    }
    let values: Vec<_> = told.iter().map(|(value, _)| value.as_str()).collect();
    assert_eq!(values, ["other", "one"]);
}

at!([memory_host host] a_leader_leads_again_by_itself);
fn a_leader_leads_again_by_itself(setting: &Setting) {
    let [one, _] = two(setting);
    let operator = setting.remote();
    let mut terms = Vec::new();
    let done = one.lead("one", |leadership| {
        terms.push(leadership.token());
        if terms.len() == 3 {
            return ControlFlow::Break("done");
        }
        operator.break_lock("a", leadership.token()).unwrap();
        until("the loss", || !leadership.is_valid());
        ControlFlow::Continue(())
    });
    assert_eq!(done.unwrap(), "done");
    assert!(terms.is_sorted_by(|before, after| before < after), "{terms:?}");
    drop(one.try_campaign("two").unwrap());
}

at!([process process_file] a_killed_leader_leads_no_more);
/// As `a_value_outlives_a_restart_of_the_leader` at host scope: what a dead process said is none's.
fn a_killed_leader_leads_no_more(setting: &Setting) {
    let one = election(setting, &setting.locks());
    let mut helper = setting.helper();
    let mut observer = one.observe().unwrap();
    assert_eq!(next(&mut observer), None);
    let scope = setting.scope;
    let answer = helper.ask(&format!("campaign\t{scope}\ta\tof a helper"));
    let token: Token = answer.strip_prefix("elected\t").expect(&answer).parse().unwrap();
    assert_eq!(next(&mut observer), Some(("of a helper".to_owned(), token)));
    helper.kill();
    assert_eq!(next(&mut observer), None);
    assert_eq!(one.leader().unwrap(), None, "its value is there, and its token is none's");
    let leadership = one.campaign("one").unwrap();
    assert_eq!(leadership.predecessor(), Predecessor::Died);
    assert!(leadership.token() > token);
    assert_eq!(next(&mut observer), Some(("one".to_owned(), leadership.token())));
}

at!(with_leader, a_value_outlives_a_restart_of_the_leader);
fn a_value_outlives_a_restart_of_the_leader(setting: &Setting) {
    let [one, other] = two(setting);
    let leadership = one.campaign("one").unwrap();
    let mut observer = other.observe().unwrap();
    let told = Some(("one".to_owned(), leadership.token()));
    assert_eq!(next(&mut observer), told);
    setting.stop_leader();
    setting.start_leader();
    // It comes back by the report of its session.
    assert_eq!(next(&mut election(setting, &setting.remote()).observe().unwrap()), told);
    leadership.resign().unwrap();
    // Nothing was told again, and nothing of the time in between.
    assert_eq!(next(&mut observer), None);
    let again = other.campaign("other").unwrap();
    assert_eq!(next(&mut observer), Some(("other".to_owned(), again.token())));
}

at!([host host_with_directory] a_resignation_without_an_answer_is_said_again);
/// etcd#22123: a failed resign forgets that it leads.
fn a_resignation_without_an_answer_is_said_again(setting: &Setting) {
    // So long the resignation waits in vain.
    let patience = Duration::from_secs(1);
    let locks = setting.remote_with(|builder| builder.connect_timeout(patience));
    let (one, other) = (election(setting, &locks), election(setting, &setting.locks()));
    let leadership = one.campaign("one").unwrap();
    let token = leadership.token();
    let mut observer = other.observe().unwrap();
    assert_eq!(next(&mut observer), Some(("one".to_owned(), token)));
    setting.stop_leader();
    assert_eq!(leadership.resign().unwrap_err().kind(), LockErrorKind::Unreachable);
    setting.start_leader();
    assert_eq!(next(&mut observer), None, "told once the leader has heard it, and not before");
    assert!(other.try_campaign("other").unwrap().token() > token);
}

at!([thread process process_file host memory_host] a_free_election_is_won_at_once);
/// client-go#448: a candidate waits a whole lease though none leads.
fn a_free_election_is_won_at_once(setting: &Setting) {
    let [one, other] = two(setting);
    for _ in 0..3 {
        one.try_campaign("one").unwrap().resign().unwrap();
        other.try_campaign("other").unwrap().resign().unwrap();
    }
}

at!([thread process process_file host memory_host] a_candidate_with_short_terms_deposes_no_leader);
/// kubernetes#114872: a candidate with a short duration deposes one with a long one.
fn a_candidate_with_short_terms_deposes_no_leader(setting: &Setting) {
    let [one, _] = two(setting);
    let leadership = one.campaign("one").unwrap();
    let short = setting.remote().election("a").scope(setting.scope);
    let short = short.at_most(Duration::from_millis(1)).build().unwrap();
    assert!(short.try_campaign_for("short", 2 * SHORT).unwrap_err().is_timeout());
    assert!(leadership.is_valid());
    leadership.resign().unwrap();
}

at!(everywhere, a_mutex_of_the_name_leads_nothing);
fn a_mutex_of_the_name_leads_nothing(setting: &Setting) {
    let [one, other] = two(setting);
    let guard = setting.hold(&setting.remote(), "a");
    assert_eq!(one.leader().unwrap(), None);
    assert!(one.try_campaign("one").unwrap_err().is_contended());
    MutexGuard::unlock_blocking(guard).unwrap();
    let leadership = one.try_campaign("one").unwrap();
    assert_eq!(other.leader().unwrap().unwrap().value(), b"one");
    let locks = setting.locks();
    let mutex = setting.mutex(&locks, "a", ());
    assert!(mutex.try_lock().is_err());
    leadership.resign().unwrap();
    // A lease that is kept here is of no use to a candidate, which says something of itself.
    for _ in 0..8 {
        drop(mutex.lock().unwrap());
    }
    let leadership = one.campaign("again").unwrap();
    assert_eq!(other.leader().unwrap().unwrap().value(), b"again");
    drop(leadership);
}

at!([thread process process_file host memory_host] a_value_of_more_than_a_kibibyte_is_refused);
fn a_value_of_more_than_a_kibibyte_is_refused(setting: &Setting) {
    let [one, other] = two(setting);
    let longest = vec![0xff; Election::VALUE_BYTES_MAX];
    let leadership = one.campaign(&longest).unwrap();
    assert_eq!(other.leader().unwrap().unwrap().value(), longest);
    drop(leadership);
    let error = one.campaign([&longest[..], b"x"].concat()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("1025 bytes"), "{error}");
    assert_eq!(setting.locks().election("").build().unwrap_err().kind(), LockErrorKind::Config);
}

at!(everywhere, a_candidate_that_is_dropped_is_none_any_more);
fn a_candidate_that_is_dropped_is_none_any_more(setting: &Setting) {
    let [one, other] = two(setting);
    let leadership = Hand::new(one.campaign_async("one")).finish().unwrap();
    let mut waits = Hand::new(other.campaign_async("other"));
    assert!(waits.poll().is_pending());
    drop(waits);
    let mut observer = other.observe().unwrap();
    // A future that is dropped misses no change.
    assert!(Hand::new(observer.next_async()).poll().is_ready() || next(&mut observer).is_some());
    {
        let mut change = Hand::new(observer.next_async());
        assert!(change.poll().is_pending());
    }
    let resigned = leadership.resign_async();
    assert_eq!(next(&mut observer), None);
    Hand::new(resigned).finish().unwrap();
    let again = Hand::new(other.try_campaign_async("other")).finish().unwrap();
    let limited = Hand::new(one.try_campaign_for_async("one", SHORT)).finish();
    assert!(limited.unwrap_err().is_timeout());
    assert_eq!(next(&mut observer).unwrap().1, again.token());
}

at!([process host memory_process memory_host] an_observer_of_a_manager_that_is_closed_ends);
fn an_observer_of_a_manager_that_is_closed_ends(setting: &Setting) {
    let locks = match setting.is_in_memory() {
        true => setting.locks(),
        false => setting.remote(),
    };
    let mut observer = election(setting, &locks).observe().unwrap();
    assert_eq!(next(&mut observer), None);
    thread::scope(|scope| {
        let waits = scope.spawn(|| observer.next_within(LONG));
        locks.close();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), LockErrorKind::Config);
    });
}
