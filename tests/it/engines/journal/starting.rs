//! What a leader refuses to start on, and what it says then.

use tierlock::{Leader, LockErrorKind};

use super::{JournalRig, SLOWLY, SOON};
use crate::engines::{
    on,
    postgres::pooler,
    rig::{EngineRig, EngineServer},
};

on!([etcd postgres] a_journal_is_made_once);
fn a_journal_is_made_once(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let refused = |init: bool, words: &str| {
        let leader = rig.spawn(&store.url(), &[], init);
        leader.says(words);
        assert_eq!(leader.ended().code(), Some(78));
    };
    refused(false, "is started once with --init");
    let first = rig.leader(SLOWLY);
    first.reigns();
    refused(true, "the journal is made; start without --init");
    rig.leader(SLOWLY).says("it stands by");
}

on!([etcd postgres] a_url_that_is_none_of_a_journal_is_refused);
fn a_url_that_is_none_of_a_journal_is_refused(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let refused = |url: &str, words: &str| {
        let leader = rig.spawn(url, &[], true);
        leader.says(words);
        assert_eq!(leader.ended().code(), Some(78), "{url}");
    };
    let kind = store.kind;
    refused(&format!("{kind}://user:word@127.0.0.1"), "the journal has a password");
    refused(&format!("{kind}://10.255.255.1"), "?plaintext=1");
    refused(&format!("{kind}://127.0.0.1?colour=red"), "\"colour\"");
    if kind == "etcd" {
        // What it reads and deletes is its own folder.
        for prefix in ["app", ""] {
            refused(&format!("etcd://127.0.0.1?prefix={prefix}"), "its prefix ends with `/`");
        }
    }
    refused("redis://127.0.0.1", "a journal is a state directory");
    // One that does not answer may do so later.
    let leader = rig.spawn(&format!("{kind}://127.0.0.1:9"), &[], true);
    assert_eq!(leader.ended().code(), Some(69));
}

on!([etcd postgres] a_leader_has_a_directory_or_a_store);
fn a_leader_has_a_directory_or_a_store(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let builder = || Leader::builder().listen("127.0.0.1:0").secret_file(rig.secret());
    for builder in [
        builder(),
        builder().journal(store.url()).state_dir(rig.files.path().join("state")),
        builder().journal(store.url()).reign_lasts(std::time::Duration::from_millis(100)),
    ] {
        assert_eq!(builder.init(true).start().unwrap_err().kind(), LockErrorKind::Config);
    }
    let _leader = builder().journal(store.url()).init(true).start().unwrap();
}

on!([postgres_alone] a_server_that_forgets_is_refused);
fn a_server_that_forgets_is_refused(store: &EngineRig) {
    let rig = JournalRig::new(store);
    store.servers[0].cli(&["ALTER SYSTEM SET fsync = off"]);
    store.each(EngineServer::kill);
    store.each(EngineServer::start);
    let leader = rig.spawn(&store.url(), &[], true);
    leader.says("fsync = off");
    assert_eq!(leader.ended().code(), Some(78));
}

on!([postgres] a_server_that_answers_before_it_is_durable_is_told_not_to);
/// The setting of the server is for its other sessions.
fn a_server_that_answers_before_it_is_durable_is_told_not_to(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let database = &store.servers[0].database;
    store.servers[0].cli(&[&format!("ALTER DATABASE {database} SET synchronous_commit = off")]);
    rig.leader(SOON).reigns();
}

on!([postgres] a_pooler_is_refused);
/// pgbouncer#418: what a session sets for itself belongs to another's transaction next.
fn a_pooler_is_refused(store: &EngineRig) {
    let rig = JournalRig::new(store);
    let Some((port, _child)) = pooler(store, "transaction") else { return };
    let leader = rig.spawn(&store.url_of([port].into_iter()), &[], true);
    leader.says("is a pooler");
    assert_eq!(leader.ended().code(), Some(78));
}
