//! Apache Curator on the same names, in both orders.

use std::path::Path;

use tierlock::{ElectedLeader, LockManager, MutexGuard, RwLockReadGuard, RwLockWriteGuard, Scope};

use super::{JARS, class_path, java, nodes, path};
use crate::{
    engines::{
        foreign::ForeignClient,
        on,
        rig::{ENDLESS, EngineRig, SHORT, give, hold, mutex, told_of_holder},
    },
    setting::{Hand, LONG, until},
};

/// A process with one of Curator's locks. `None`, and a line that says so, where it is not installed.
fn curator(rig: &EngineRig, name: &str, kind: &str, session: &str) -> Option<ForeignClient> {
    let jars = ["curator-recipes", "curator-framework", "curator-client"];
    if !jars.iter().all(|jar| Path::new(JARS).join(format!("{jar}.jar")).exists()) {
        eprintln!("Curator is not installed: its locks are not tried");
        return None;
    }
    let source =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/engines/zookeeper/CuratorClient.java");
    let jars = [&jars[..], &["zookeeper", "guava", "slf4j-nop"]].concat();
    let mut command = java();
    command.args(["-cp", &class_path(&jars), source]);
    let address = format!("127.0.0.1:{}", rig.servers[0].port);
    command.args([&*address, session, &path(rig, name), kind]);
    ForeignClient::start(command, "Curator with a Java compiler")
}

on!([zookeeper] curator_and_we_exclude_each_other_in_one_queue);
fn curator_and_we_exclude_each_other_in_one_queue(rig: &EngineRig) {
    let Some(mut theirs) = curator(rig, "job", "mutex", "60000") else { return };
    let locks = rig.locks();
    let ours = mutex(&locks, "job");
    let guard = ours.lock().unwrap();
    assert_eq!(theirs.ask("try"), "false");
    theirs.say("wait");
    until("a queue of two", || nodes(rig, "job").len() == 2);
    let others = rig.locks();
    let third = mutex(&others, "job");
    let mut wait = Hand::new(third.lock_async());
    assert!(wait.poll().is_pending());
    until("a queue of three", || nodes(rig, "job").len() == 3);
    let token = MutexGuard::token(&guard);
    drop(guard);
    assert_eq!(theirs.hear(), "taken");
    let holder = told_of_holder(&ours);
    assert!(holder.label.contains("client of ZooKeeper"), "{holder:?}");
    assert!(wait.poll().is_pending());
    assert_eq!(theirs.ask("release"), "released");
    assert!(MutexGuard::token(&wait.finish().unwrap()) > token);
}

on!([zookeeper] a_killed_holder_is_succeeded_by_curator_and_a_killed_curator_by_us);
fn a_killed_holder_is_succeeded_by_curator_and_a_killed_curator_by_us(rig: &EngineRig) {
    let Some(mut theirs) = curator(rig, "job", "mutex", "2000") else { return };
    let mut holder = rig.helper(SHORT);
    holder.lock(Scope::Host, "job");
    assert_eq!(theirs.ask("try"), "false");
    holder.kill();
    assert_eq!(theirs.ask("wait"), "taken");
    let locks = rig.locks();
    assert!(mutex(&locks, "job").try_lock().unwrap_err().is_contended());
    drop(theirs);
    give(mutex(&locks, "job").try_lock_for(LONG).unwrap());
}

on!([zookeeper] curators_read_write_lock_and_ours_are_one);
fn curators_read_write_lock_and_ours_are_one(rig: &EngineRig) {
    let Some(mut reader) = curator(rig, "job", "read", "60000") else { return };
    let Some(mut writer) = curator(rig, "job", "write", "60000") else { return };
    let url = rig.url() + "?as=read-write";
    let locks = LockManager::builder().service(url).time_to_live(ENDLESS).open().unwrap();
    let ours = locks.rw_lock("job", ()).build().unwrap();
    let reading = ours.read().unwrap();
    assert_eq!(reader.ask("try"), "true");
    assert_eq!(writer.ask("try"), "false");
    assert!(RwLockReadGuard::is_valid(&reading));
    drop(reading);
    assert!(ours.try_write().unwrap_err().is_contended());
    assert_eq!(reader.ask("release"), "released");
    let writing = ours.try_write_for(LONG).unwrap();
    assert_eq!(reader.ask("try"), "false");
    assert_eq!(writer.ask("try"), "false");
    assert!(RwLockWriteGuard::is_valid(&writing));
    drop(writing);
    assert_eq!(writer.ask("wait"), "taken");
    assert!(ours.try_read().unwrap_err().is_contended());
    assert_eq!(writer.ask("release"), "released");
    drop(ours.try_read_for(LONG).unwrap());
    // A mutex of theirs is another thing, and said to be.
    let Some(mut theirs) = curator(rig, "plain", "mutex", "60000") else { return };
    assert_eq!(theirs.ask("try"), "true");
    let error = locks.rw_lock("plain", ()).build().unwrap().write().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("a mutex of Curator"), "{error}");
    drop(hold(&rig.locks(), "other"));
}

on!([zookeeper] curators_leader_selector_and_our_elections_are_one);
fn curators_leader_selector_and_our_elections_are_one(rig: &EngineRig) {
    let Some(mut theirs) = curator(rig, "primary", "leader=10.0.0.8:8080", "60000") else { return };
    let election = rig.locks().election("primary").build().unwrap();
    let mut observer = rig.locks().election("primary").observe().unwrap();
    assert_eq!(observer.next_within(LONG).unwrap(), None);
    let leadership = election.campaign("10.0.0.7:8080").unwrap();
    assert_eq!(theirs.ask("leader"), "10.0.0.7:8080");
    let value = |leader: ElectedLeader| leader.value_text().into_owned();
    assert_eq!(observer.next_within(LONG).unwrap().map(value).unwrap(), "10.0.0.7:8080");
    theirs.say("wait");
    until("a queue of two", || nodes(rig, "primary").len() == 2);
    leadership.resign().unwrap();
    assert_eq!(theirs.hear(), "taken");
    let told = std::iter::from_fn(|| Some(observer.next_within(LONG).unwrap()));
    let next = told.flatten().next().unwrap();
    assert_eq!(next.value_text(), "10.0.0.8:8080");
    assert!(election.try_campaign("10.0.0.7:8080").unwrap_err().is_contended());
    assert_eq!(theirs.ask("release"), "released");
    assert!(election.try_campaign_for("10.0.0.7:8080", LONG).unwrap().token() > next.token());
}
