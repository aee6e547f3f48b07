use std::sync::mpsc;

use super::*;
use crate::{
    error::{LockErrorKind, LostReason, Predecessor},
    host::{
        lease_word::{Claim, Entering, LeaseWord, Left, Used},
        leased::{self, Leased, ask, give, take, take_to_keep},
        service::{LeasePatience, LeaseRequest, LeaseService},
    },
    token::Token,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn want(text: &str, patience: LeasePatience) -> LeaseRequest {
    LeaseRequest { patience, ..leased::want(text) }
}

fn connect(leader: &MemoryLeader) -> Arc<Link> {
    let identity = Identity::new("test", "", 0, "");
    leader.connect(identity, Duration::from_secs(1), Duration::from_secs(10), || 0)
}

#[test]
fn threads_exclude_each_other_in_memory() {
    use std::sync::atomic::AtomicU64;
    let leader = MemoryLeader::new();
    let counter = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let link = connect(&leader);
            let counter = &counter;
            scope.spawn(move || {
                for _ in 0..500 {
                    let lease = take(&link, "counter");
                    counter.store(counter.load(Relaxed) + 1, Relaxed);
                    give(&link, lease);
                }
                link.close(Time::NEVER);
            });
        }
    });
    assert_eq!(counter.into_inner(), 4 * 500);
}

#[test]
fn a_kept_lease_that_a_guard_has_at_the_close_goes_back_with_it() {
    let leader = MemoryLeader::new();
    let [link, other] = [connect(&leader), connect(&leader)];
    let request = LeaseRequest { keep: true, ..leased::want("a") };
    let Leased { word, token, .. } = ask(&link, request).wait().unwrap();
    link.close(clock::now());
    assert!(!link.is_closed());
    let used = leave(&word, token);
    link.give_back(&word, &used);
    assert!(link.is_closed());
    give(&other, take(&other, "a"));
}

/// Of a word that is closed by it.
fn leave(word: &LeaseWord, token: Token) -> Used {
    match word.leave(token, Predecessor::Clean) {
        Left::GivesBack(used) => used,
        left => panic!("nothing is kept any longer, and {left:?}"),
    }
}

#[test]
fn a_leader_that_was_stopped_for_a_moment_finds_what_is_held_as_it_was() {
    let leader = MemoryLeader::new();
    let [one, other] = [connect(&leader), connect(&leader)];
    let held = take(&one, "a");
    leader.stop();
    leader.start();
    let free = take(&other, "b");
    assert!(free.token.epoch() > held.token.epoch());
    let error = ask(&other, want("a", LeasePatience::No)).wait().unwrap_err();
    assert_eq!(error.holder().unwrap().token, Some(held.token));
    assert_eq!(held.watch().lost(), None);
    let token = held.token;
    give(&one, held);
    let next = take(&other, "a");
    assert!(next.token > token);
    give(&other, next);
    give(&other, free);
}

#[test]
fn a_leader_that_stays_away_is_unreachable_and_its_leases_expire() {
    let leader = MemoryLeader::new();
    let link = connect(&leader);
    let held = take(&link, "a");
    leader.stop();
    let soon = LeasePatience::Until(clock::now() + Duration::from_millis(100));
    let error = ask(&link, want("b", soon)).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Unreachable);
    assert_eq!(held.wait_for_loss(), LostReason::Expired);
}

#[test]
fn a_lock_is_lost_on_demand_and_free_for_others() {
    let leader = MemoryLeader::new();
    let [one, other] = [connect(&leader), connect(&leader)];
    assert!(!leader.lose(&name("a")));
    let held = take(&one, "a");
    let (sender, called) = mpsc::channel();
    let in_callback = one.clone();
    held.watch().on_lost(Box::new(move |reason| {
        // Foreign code may use the link.
        drop(ask(&in_callback, want("b", LeasePatience::No)));
        sender.send(reason).unwrap();
    }));
    assert!(leader.lose(&name("a")));
    assert_eq!(called.recv().unwrap(), LostReason::Provoked);
    let next = take(&other, "a");
    assert!(next.token > held.token);
    // Its owner learns of it, and gives it back as any other.
    assert_eq!(held.watch().lost(), Some(LostReason::Provoked));
    give(&one, held);
    assert_eq!(next.watch().lost(), None);
    give(&other, next);
}

#[test]
fn what_is_kept_is_lost_on_demand_and_leaves_nothing_behind() {
    let leader = MemoryLeader::new();
    let link = connect(&leader);
    let word = take_to_keep(&link, "a");
    assert!(leader.lose(&name("a")));
    assert_eq!(word.enter(), Entering::Refused);
    assert!(!leader.lose(&name("a")), "no session has it any more");
}

#[test]
fn a_lease_given_back_when_its_word_is_open_with_the_next_leaves_that_alone() {
    let leader = MemoryLeader::new();
    let link = connect(&leader);
    let Leased { word, token, .. } = take(&link, "a");
    let used = leave(&word, token);
    // The leader takes it away, so that the word's next lease is granted before that.
    let other = connect(&leader);
    assert!(futures::executor::block_on(other.break_lock(&name("a"), token, None)).unwrap());
    let next = LeaseRequest { word: word.clone(), keep: true, ..leased::want("a") };
    link.acquire(next).wait().unwrap();
    let Claim::Entered(entered) = word.claim() else { panic!("it was granted") };
    link.give_back(&word, &used);
    assert_eq!(word.lost(), None);
    let error = ask(&other, want("a", LeasePatience::No)).wait().unwrap_err();
    assert_eq!(error.holder().unwrap().token, Some(entered.token));
    assert_ne!(leave(&word, entered.token).lease, used.lease);
}

/// Whether the grant comes before the name's last mutex goes, or after it.
#[test]
fn what_is_granted_to_a_leaked_future_goes_back_when_its_name_is_forgotten() {
    for is_granted_first in [true, false] {
        let leader = MemoryLeader::new();
        let [one, other] = [connect(&leader), connect(&leader)];
        let held = take(&other, "a");
        let word = Arc::new(LeaseWord::new());
        let request = LeaseRequest { word: word.clone(), keep: true, ..leased::want("a") };
        let mut leaked = Box::pin(one.acquire(request));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(Future::poll(leaked.as_mut(), &mut context).is_pending());
        std::mem::forget(leaked);
        if is_granted_first {
            give(&other, held.clone());
        }
        let used = one.retire(&word);
        assert_eq!(used.is_some(), is_granted_first);
        used.iter().for_each(|used| one.give_back(&word, used));
        if !is_granted_first {
            give(&other, held);
        }
        give(&other, take(&other, "a"));
    }
}

#[test]
fn a_callback_of_a_loss_may_stop_the_leader_and_start_it() {
    let leader = MemoryLeader::new();
    let link = connect(&leader);
    let at_most = Some(Duration::from_millis(20));
    let forever = LeasePatience::Until(Time::NEVER);
    let held = ask(&link, LeaseRequest { at_most, ..want("a", forever) }).wait().unwrap();
    let (sender, called) = mpsc::channel();
    let in_callback = leader.clone();
    held.watch().on_lost(Box::new(move |_| {
        in_callback.stop();
        in_callback.start();
        sender.send(()).unwrap();
    }));
    called.recv().unwrap();
    give(&link, take(&link, "b"));
}

#[test]
fn a_waker_may_own_what_uses_the_link_when_it_is_dropped() {
    struct Owner(Mutex<Option<(Arc<Link>, Option<Leased>)>>);
    impl std::task::Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            if let Some((link, Some(lease))) = self.0.lock().take() {
                give(&link, lease);
            }
        }
    }
    let leader = MemoryLeader::new();
    let [one, other] = [connect(&leader), connect(&leader)];
    let held = take(&one, "a");
    let mut waiting = Box::pin(ask(&other, want("a", LeasePatience::Until(Time::NEVER))));
    for text in ["b", "c"] {
        let owned = (other.clone(), Some(take(&other, text)));
        let waker = std::task::Waker::from(Arc::new(Owner(Mutex::new(Some(owned)))));
        let mut context = std::task::Context::from_waker(&waker);
        // The second replaces the first, which nothing else keeps.
        assert!(Future::poll(waiting.as_mut(), &mut context).is_pending());
    }
    give(&one, take(&one, "b"));
    // With the request goes the waker that waits for it.
    drop(waiting);
    give(&one, take(&one, "c"));
    give(&one, held);
}

#[test]
fn a_dropped_link_is_a_kill() {
    let leader = MemoryLeader::new();
    let [one, other] = [connect(&leader), connect(&leader)];
    drop(take(&one, "a"));
    drop(one);
    // It said no goodbye, so its time to live has to pass.
    let next = take(&other, "a");
    assert_eq!(next.predecessor, Predecessor::Expired);
    give(&other, next);
}
