//! What a server has done without an answer that came.

use std::{thread, time::Duration};

use super::{
    on,
    proxy::Proxy,
    rig::{EngineRig, EngineServer, give, hold, mutex},
};
use crate::setting::{Hand, LONG, until};

on!(alone, a_caller_behind_an_unanswered_one_is_not_told_that_the_lock_is_held);
/// A job that is skipped because another has it would not run at all in an outage.
fn a_caller_behind_an_unanswered_one_is_not_told_that_the_lock_is_held(rig: &EngineRig) {
    let locks = rig.locks();
    give(hold(&locks, "warm"));
    let mutex = mutex(&locks, "a");
    rig.each(EngineServer::stop);
    let mut first = Hand::new(mutex.lock_async());
    assert!(first.poll().is_pending());
    until("a try hears that the server does not answer", || {
        assert!(first.poll().is_pending());
        mutex.try_lock().unwrap_err().is_unreachable()
    });
    let error = mutex.try_lock_for(Duration::from_millis(50)).unwrap_err();
    assert!(error.is_unreachable() && error.is_retryable(), "{error}");
    assert!(!error.is_contended() && error.holder().is_none(), "{error}");
    rig.each(EngineServer::resume);
    drop(first.finish().unwrap());
}

on!([redis redis_plain redlock etcd postgres mysql zookeeper]
    a_second_waiter_is_told_of_the_holder_that_the_first_waits_for);
fn a_second_waiter_is_told_of_the_holder_that_the_first_waits_for(rig: &EngineRig) {
    let [others, locks] = [rig.locks(), rig.locks()];
    let held = hold(&others, "a");
    let mutex = mutex(&locks, "a");
    let mut first = Hand::new(mutex.lock_async());
    assert!(first.poll().is_pending());
    let mut told = None;
    until("the first one is told of the holder", || {
        // Else its turn would lapse some time.
        assert!(first.poll().is_pending());
        let error = mutex.try_lock_for(Duration::from_millis(20)).unwrap_err();
        told = error.holder().and_then(|holder| holder.pid);
        // Redlock's servers say no more than no.
        error.holder().is_some() && error.is_contended() || rig.kind == "redlock"
    });
    assert!(told.is_none_or(|pid| pid == std::process::id()));
    give(held);
    drop(first.finish().unwrap());
}

on!([etcd] a_key_that_lost_its_answer_goes_though_the_call_ends_while_no_session_is_to_be_had);
/// Its session is kept alive by what else it has: so the key would stand before others for as long.
fn a_key_that_lost_its_answer_goes_though_the_call_ends_while_no_session_is_to_be_had(
    rig: &EngineRig,
) {
    let proxies = rig.proxies();
    let (life, patience) = (Duration::from_secs(18), Duration::from_millis(11_500));
    let url = rig.url_of(proxies.iter().map(Proxy::port));
    let builder = tierlock::LockManager::builder().service(url).time_to_live(life);
    let locks = builder.connect_timeout(patience).open().unwrap();
    let other = hold(&locks, "other");
    let wanted = mutex(&locks, "a");
    // What is asked comes to the server, and no answer comes back. After half of its life the session is
    // too old for another attempt, and none is to be had: there the call ends. An attempt takes 2 s at most,
    // and so do the two questions for a session, so that this is before the session is over.
    proxies.iter().for_each(|proxy| proxy.deafen(true));
    let asking = thread::spawn(move || wanted.try_lock().map(drop).unwrap_err());
    until("a key at the server", || rig.is_taken("a"));
    let error = asking.join().unwrap();
    assert!(error.is_unreachable() && !error.is_contended(), "{error}");
    proxies.iter().for_each(|proxy| proxy.deafen(false));
    drop(mutex(&rig.locks(), "a").try_lock_for(LONG).unwrap());
    give(other);
}
