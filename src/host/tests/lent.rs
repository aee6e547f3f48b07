//! A tokio runtime is lent to a client, and does not always do what it was lent for.

use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::host::LentReader;
use crate::token::Token;

/// A runtime that ends before what it was lent to.
pub(in crate::host) struct LentRuntime(Runtime);

impl LentRuntime {
    pub(in crate::host) fn new() -> (LentRuntime, LentReader) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let reader = LentReader::new(runtime.handle().clone()).unwrap();
        (LentRuntime(runtime), reader)
    }

    pub(in crate::host) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }

    pub(in crate::host) fn end(self) {}
}

impl Town {
    pub(in crate::host) fn link_on(&self, leader: &Leader, runtime: &Runtime) -> Arc<Link> {
        let reader = LentReader::new(runtime.handle().clone()).unwrap();
        let addresses = [leader.local_addr().to_string()];
        let secret = Secret::read(self.path("key")).unwrap();
        super::super::client::connect_apart(&addresses, secret, config(), Some(reader), generation)
            .unwrap()
    }
}

fn both_flavours() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ]
}

async fn cycles(link: Arc<Link>, text: String, count: usize) {
    let mut last = Token::ZERO;
    for _ in 0..count {
        let lease = ask(&link, want(&text)).await.unwrap();
        assert!(lease.token > last);
        last = lease.token;
        give(&link, lease);
    }
}

#[test]
fn tasks_of_a_lent_runtime_take_locks() {
    let town = Town::new();
    let leader = town.leader();
    for runtime in both_flavours() {
        let link = town.link_on(&leader, &runtime);
        runtime.block_on(cycles(link.clone(), "alone".into(), 300));
        let tasks: Vec<_> = (0..64)
            .map(|task| runtime.spawn(cycles(link.clone(), format!("own/{}", task % 32), 30)))
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        close(&link);
    }
}

#[test]
fn callers_of_all_kinds_share_a_client_with_a_lent_runtime() {
    let town = Town::new();
    let leader = town.leader();
    for runtime in both_flavours() {
        let link = town.link_on(&leader, &runtime);
        thread::scope(|scope| {
            for caller in 0..3 {
                let link = &link;
                scope.spawn(move || {
                    for _ in 0..100 {
                        give(link, take(link, &format!("blocking/{}", caller % 2)));
                    }
                });
            }
            scope.spawn(|| futures::executor::block_on(cycles(link.clone(), "else".into(), 100)));
            runtime.block_on(async {
                let other = tokio::spawn(cycles(link.clone(), "lent".into(), 200));
                cycles(link.clone(), "lent".into(), 200).await;
                other.await.unwrap();
            });
        });
    }
}

#[test]
fn a_lent_runtime_that_is_blocked_holds_no_caller_up() {
    let town = Town::new();
    let leader = town.leader();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let link = town.link_on(&leader, &runtime);
    runtime.block_on(async {
        cycles(link.clone(), "a".into(), 20).await;
        // The task that reads cannot run before this block does.
        let elsewhere = link.clone();
        let served = thread::spawn(move || {
            futures::executor::block_on(cycles(elsewhere.clone(), "b".into(), 20));
            (0..20).for_each(|_| give(&elsewhere, take(&elsewhere, "c")));
        });
        give(&link, take(&link, "d"));
        served.join().unwrap();
        cycles(link.clone(), "a".into(), 20).await;
    });
}

#[test]
fn a_lent_runtime_that_ends_holds_no_caller_up() {
    let town = Town::new();
    let leader = town.leader();
    for runtime in both_flavours() {
        let link = town.link_on(&leader, &runtime);
        runtime.block_on(cycles(link.clone(), "a".into(), 20));
        let held = take(&link, "held");
        drop(runtime);
        futures::executor::block_on(cycles(link.clone(), "a".into(), 20));
        assert_eq!(held.watch().lost(), None);
        give(&link, held);
        give(&link, take(&link, "held"));
    }
}

#[test]
fn a_task_on_a_lent_runtime_waits_through_a_restart_of_its_leader() {
    let town = Town::new();
    let leader = town.leader();
    let address = leader.local_addr();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let link = town.link_on(&leader, &runtime);
    runtime.block_on(cycles(link.clone(), "a".into(), 20));
    leader.shutdown();
    let waiting = runtime.spawn(cycles(link.clone(), "a".into(), 1));
    let _leader = town.leader_at(address).unwrap();
    runtime.block_on(waiting).unwrap();
    // Over the sockets of the new connection.
    runtime.block_on(cycles(link.clone(), "a".into(), 20));
}

#[test]
fn a_client_that_is_closed_on_its_runtime_leaves_that_to_others() {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let town = Town::new();
        let leader = town.leader();
        for runtime in both_flavours() {
            let link = town.link_on(&leader, &runtime);
            runtime.block_on(async {
                cycles(link.clone(), "a".into(), 20).await;
                // The task that reads has its turn afterwards, and the link is still there.
                close(&link);
                tokio::time::sleep(Duration::from_millis(20)).await;
            });
            drop((link, runtime));
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("no task keeps the runtime to itself");
}

#[test]
fn a_reading_task_that_panicked_leaves_no_caller_waiting() {
    let town = Town::new();
    let leader = town.leader();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let link = town.link_on(&leader, &runtime);
    runtime.block_on(cycles(link.clone(), "a".into(), 20));
    link.break_down();
    // The first to come to its next turn panics, thread or task; no caller waits for it. What was
    // granted in the turn before is lost by it.
    let error = loop {
        match runtime.block_on(ask(&link, want("b"))) {
            Ok(lease) => give(&link, lease),
            Err(error) if error.kind() == LockErrorKind::Lost => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), LockErrorKind::Io);
}

#[test]
fn a_runtime_without_an_io_driver_is_refused() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let error = LentReader::new(runtime.handle().clone()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("enable_io"), "{error}");
}
