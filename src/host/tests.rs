//! A leader and its clients over QUIC on the loopback, as situations.

mod converting;
#[cfg(feature = "tokio")]
pub(super) mod lent;
mod succession;

use std::{
    fs,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::*},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Leader, LeaderBuilder, Secret,
    client::link::Link,
    lease_word::{Entered, Entering, LeaseWord, Left},
    leased::{Leased, ask, take_to_keep},
    service::{LeasePatience, LeaseRequest, LeaseService},
};
use crate::{
    alarm, clock,
    error::{LockError, LockErrorKind, LostReason, Predecessor},
    name::Name,
    proto::{ProcessMark, client::ClientConfig, wire::Identity},
    time::Time,
};

/// A state directory, a secret file, and the peers that meet over them.
pub(super) struct Town {
    directory: tempfile::TempDir,
}

impl Town {
    pub(super) fn new() -> Town {
        let directory = tempfile::tempdir().unwrap();
        Secret::create(directory.path().join("key")).unwrap();
        Town { directory }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn secret(&self) -> Secret {
        Secret::read(self.path("key")).unwrap()
    }

    pub(super) fn leader(&self) -> Leader {
        self.leader_at("127.0.0.1:0").unwrap()
    }

    pub(super) fn leader_at(&self, address: impl ToString) -> Result<Leader, LockError> {
        self.builder(address).start()
    }

    fn builder(&self, address: impl ToString) -> LeaderBuilder {
        Leader::builder()
            .listen(address)
            .state_dir(self.path("state"))
            .init(!self.path("state").exists())
            .accept_file_system("tmpfs")
            .secret_file(self.path("key"))
    }

    pub(super) fn link(&self, leader: &Leader) -> Arc<Link> {
        self.link_to([leader.local_addr()], config())
    }

    fn link_to(
        &self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        config: ClientConfig,
    ) -> Arc<Link> {
        let addresses: Vec<_> = addresses.into_iter().map(|address| address.to_string()).collect();
        super::client::connect_apart(&addresses, self.secret(), config, None, generation).unwrap()
    }
}

pub(super) fn generation() -> u64 {
    std::process::id().into()
}

pub(super) fn config() -> ClientConfig {
    ClientConfig {
        time_to_live: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(10),
        identity: Identity::new("test", "here", std::process::id(), "cargo test"),
        addresses: 0,
        process: super::process_mark(),
        seen: None,
    }
}

fn short_lived() -> ClientConfig {
    ClientConfig { time_to_live: Duration::from_secs(1), ..config() }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at_once(text: &str) -> LeaseRequest {
    LeaseRequest { patience: LeasePatience::No, ..want(text) }
}

fn within(text: &str, limit: Duration) -> LeaseRequest {
    LeaseRequest { patience: LeasePatience::Until(clock::now() + limit), ..want(text) }
}

fn give_answered(link: &Arc<Link>, lease: Leased) -> Result<(), LockError> {
    futures::executor::block_on(lease.give_answered(link))
}

pub(super) use super::leased::{give, take, want};

pub(super) fn close(link: &Link) {
    link.close(clock::now() + Duration::from_millis(100));
}

/// A request that follows once that is sent finds the lock free, unless the leader read both at
/// once.
#[test]
fn a_lock_is_taken_given_back_and_taken_again() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    let first = take(&link, "a");
    assert_eq!(first.watch().lost(), None);
    assert!(first.watch().deadline() > clock::now());
    let token = first.token;
    give_answered(&link, first).unwrap();
    let second = take(&link, "a");
    assert!(second.token > token);
    assert_eq!(second.predecessor, Predecessor::Clean);
    give(&link, second);
}

#[test]
fn futures_take_locks_too() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    futures::executor::block_on(async {
        let lease = ask(&link, want("a")).await.unwrap();
        let denied = ask(&link, at_once("a")).await.unwrap_err();
        assert_eq!(denied.kind(), LockErrorKind::WouldBlock);
        lease.give_answered(&link).await.unwrap();
    });
}

#[test]
fn a_refusal_names_the_holder() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [town.link(&leader), town.link(&leader)];
    let lease = take(&one, "a");
    let error = ask(&other, at_once("a")).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::WouldBlock);
    let holder = error.holder().unwrap();
    assert_eq!((holder.label.as_str(), holder.pid), ("test", Some(std::process::id())));

    let error = ask(&other, within("a", Duration::from_millis(50))).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut);
    assert!(error.waited().unwrap() >= Duration::from_millis(50));
    assert_eq!(error.holder().unwrap().host, "here");
    give(&one, lease);
}

#[test]
fn eight_clients_on_one_name_exclude_each_other() {
    const ROUNDS: u64 = 200;
    let town = Town::new();
    let leader = town.leader();
    // Atomic for the compiler only: two holders would lose increments.
    let counter = AtomicU64::new(0);
    let highest = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            let link = town.link(&leader);
            let (counter, highest) = (&counter, &highest);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let lease = take(&link, "counter");
                    let before = highest.swap(lease.token.get(), SeqCst);
                    assert!(before < lease.token.get(), "tokens only grow");
                    counter.store(counter.load(Relaxed) + 1, Relaxed);
                    assert_eq!(lease.watch().lost(), None);
                    give(&link, lease);
                }
                close(&link);
            });
        }
    });
    assert_eq!(counter.into_inner(), 8 * ROUNDS);
}

#[test]
fn many_tasks_of_one_client_take_turns() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let total = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let (link, total) = (link.clone(), total.clone());
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let lease = ask(&link, want(&format!("n{}", task % 4))).await.unwrap();
                        total.fetch_add(1, SeqCst);
                        give(&link, lease);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(total.load(SeqCst), 64 * 20);
}

#[test]
fn blocking_calls_work_inside_both_runtime_flavours() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    let single = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    for runtime in [single, multi] {
        runtime.block_on(async {
            let lease = take(&link, "a");
            give_answered(&link, lease).unwrap();
        });
    }
    close(&link);
}

#[test]
fn tokens_grow_over_a_restart_on_the_same_state_directory() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link_to([leader.local_addr()], short_lived());
    let before = take(&link, "a");
    let token = before.token;
    give_answered(&link, before).unwrap();
    let address = leader.local_addr();
    leader.shutdown();
    let leader = town.leader_at(address).unwrap();
    let after = take(&link, "a");
    assert!(after.token > token);
    assert!(after.token.epoch() > token.epoch());
    give(&link, after);
    drop(leader);
}

#[test]
fn nothing_is_touched_before_something_is_wanted() {
    let town = Town::new();
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let link = town.link_to([nowhere], config());
    close(&link);
}

#[test]
fn another_secret_is_refused_and_not_waited_for() {
    let [town, other] = [Town::new(), Town::new()];
    let leader = town.leader();
    let link = other.link_to([leader.local_addr()], config());
    let error = ask(&link, want("a")).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused);
    assert!(error.to_string().contains("another secret"), "{error}");
}

#[test]
fn where_no_leader_answers_it_is_unreachable_at_the_connect_timeout() {
    let town = Town::new();
    // A socket has the port, and says nothing.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let vacant = {
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    for address in [silent.local_addr().unwrap(), vacant] {
        let config = ClientConfig { connect_timeout: Duration::from_millis(200), ..config() };
        let link = town.link_to([address], config);
        let error = ask(&link, want("a")).wait().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Unreachable);
        assert!(error.waited().unwrap() >= Duration::from_millis(200));
        let error = ask(&link, at_once("a")).wait().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Unreachable);
    }
}

#[test]
fn a_host_name_is_looked_up() {
    let town = Town::new();
    let leader = town.leader();
    let addresses = [format!("localhost:{}", leader.local_addr().port())];
    let secret = Secret::read(town.path("key")).unwrap();
    let link = super::connect(&addresses, secret.clone(), config(), None, generation).unwrap();
    let lease = take(&link, "a");
    give(&link, lease);

    let addresses = ["no-such-host.invalid".to_owned()];
    let config = ClientConfig { connect_timeout: Duration::from_millis(300), ..config() };
    let link = super::connect(&addresses, secret, config, None, generation).unwrap();
    let error = ask(&link, want("a")).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Unreachable);
}

#[test]
fn a_secret_is_exchanged_while_a_leader_and_a_client_go_on() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    let lease = take(&link, "a");
    let [key, old, new] = ["key", "old", "new"].map(|name| town.path(name));
    fs::copy(&key, &old).unwrap();
    Secret::create(&new).unwrap();
    fs::rename(&new, &key).unwrap();
    // The leader is not told: it looks at its file by itself, and then refuses clients
    // that have the old one.
    let addresses = [leader.local_addr().to_string()];
    for number in 0.. {
        let secret = Secret::read(&old).unwrap();
        let client = super::connect(&addresses, secret, config(), None, generation).unwrap();
        // What the one before gave back may come to the leader later than this asks.
        match ask(&client, at_once(&format!("x{number}"))).wait() {
            Ok(lease) => give(&client, lease),
            Err(error) if error.kind() == LockErrorKind::Refused => break,
            // Its connection ended meanwhile.
            Err(error) => assert_eq!(error.kind(), LockErrorKind::Unreachable),
        }
    }
    // The client lost its connection, and has made another with what its file has now.
    give(&link, take(&link, "b"));
    let other = town.link(&leader);
    let held = other.acquire(at_once("a")).wait().unwrap_err();
    assert_eq!(held.kind(), LockErrorKind::WouldBlock);
    give(&link, lease);
    give(&other, take(&other, "a"));
}

#[test]
fn settings_that_cannot_be_are_errors() {
    let town = Town::new();
    let secret = Secret::read(town.path("key")).unwrap();
    for addresses in [vec![], vec!["a b".to_owned()]] {
        let error = super::connect(&addresses, secret.clone(), config(), None, generation)
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
    }
    let leader = town.leader();
    let in_use = Leader::builder()
        .listen(leader.local_addr())
        .state_dir(town.path("other"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(town.path("key"));
    assert_eq!(in_use.start().unwrap_err().kind(), LockErrorKind::Config);
    for builder in [
        Leader::builder(),
        Leader::builder().listen("x y").state_dir(town.path("z")).secret_file(town.path("key")),
        Leader::builder().listen("127.0.0.1:0").state_dir(town.path("z")),
        Leader::builder()
            .listen("127.0.0.1:0")
            .state_dir(town.path("z"))
            .secret_file(town.path("key"))
            .time_to_live_max(Duration::from_secs(61)),
    ] {
        assert_eq!(builder.start().unwrap_err().kind(), LockErrorKind::Config);
    }
}

// gajae-code#4704
#[test]
fn a_second_leader_on_one_state_directory_is_refused() {
    let town = Town::new();
    let leader = town.leader();
    let error = town.leader_at("127.0.0.1:0").unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused);
    drop(leader);
    town.leader();
}

#[test]
fn two_separate_leaders_are_not_taken_for_one_group() {
    let town = Town::new();
    let leader = town.leader();
    let other = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(town.path("other"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(town.path("key"))
        .start()
        .unwrap();
    let link = town.link_to([leader.local_addr(), other.local_addr()], config());
    let error = ask(&link, want("a")).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
}

#[test]
fn a_restarted_leader_keeps_holders_and_waiters() {
    let town = Town::new();
    let leader = town.leader();
    let address = leader.local_addr();
    let [one, other, third] = [0; 3].map(|_| town.link_to([address], config()));
    let held = take(&one, "a");
    let (told, is_queued) = mpsc::channel();
    let waiting = thread::spawn(move || {
        told.send(()).unwrap();
        let next = take(&other, "a");
        let token = next.token;
        give_answered(&other, next).unwrap();
        token
    });
    is_queued.recv().unwrap();
    drop(leader);
    let _leader = town.leader_at(address).unwrap();
    // What none of them has asked for is granted at once …
    let free = take(&third, "b");
    assert!(free.token.epoch() > held.token.epoch());
    // … and what is held stays held.
    until("the holder is back", || {
        let error = ask(&third, at_once("a")).wait().unwrap_err();
        error.holder().is_some_and(|holder| holder.token == Some(held.token))
    });
    assert!(!waiting.is_finished());
    assert_eq!(held.watch().lost(), None);
    let token = held.token;
    give_answered(&one, held).unwrap();
    assert!(waiting.join().unwrap() > token);
    give(&third, free);
}

#[test]
fn a_session_of_the_leaders_own_process_outlives_a_leader_that_is_stopped_in_good_order() {
    let town = Town::new();
    let leader = town.leader();
    let address = leader.local_addr();
    let link = town.link(&leader);
    let held = take(&link, "a");
    leader.shutdown();
    // A leader that opens the state directory now must not take it for dead.
    let _leader = town.leader_at(address).unwrap();
    let other = town.link_to([address], ClientConfig { process: ProcessMark(7), ..config() });
    let error = ask(&other, at_once("a")).wait().unwrap_err();
    assert_eq!(error.holder().unwrap().token, Some(held.token));
    assert_eq!(held.watch().lost(), None);
    give(&link, held);
}

#[test]
fn a_holder_learns_that_its_leader_is_gone_for_good() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link_to([leader.local_addr()], short_lived());
    let held = take(&link, "a");
    drop(leader);
    assert_eq!(held.wait_for_loss(), LostReason::Expired);
    assert_eq!(held.watch().lost(), Some(LostReason::Expired));
    let error = give_answered(&link, held).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);
}

#[test]
fn a_closed_client_leaves_nothing_to_wait_for() {
    let town = Town::new();
    let leader = town.leader();
    let long = ClientConfig { time_to_live: Duration::from_secs(60), ..config() };
    let one = town.link_to([leader.local_addr()], long);
    let lease = take(&one, "a");
    give(&one, lease);
    close(&one);
    let error = ask(&one, want("a")).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    // Its session is over: were it not, a restarted leader would wait a minute for it.
    drop(one);
    let other = town.link(&leader);
    let lease = ask(&other, within("a", Duration::from_secs(30))).wait().unwrap();
    give(&other, lease);
}

#[test]
fn a_dropped_future_gives_back_what_it_was_about_to_receive() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [town.link(&leader), town.link(&leader)];
    for round in 0..50 {
        let held = take(&one, "a");
        let mut waiting = Box::pin(ask(&other, want("a")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(Future::poll(waiting.as_mut(), &mut context), Poll::Pending));
        if round % 2 == 0 {
            // Dropped while it waits, or while the grant is on its way.
            give(&one, held);
            drop(waiting);
        } else {
            drop(waiting);
            give(&one, held);
        }
        let next = ask(&one, within("a", Duration::from_secs(30))).wait().unwrap();
        give(&one, next);
    }
}

#[test]
fn a_future_dropped_with_its_grant_unread_hands_it_back() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [town.link(&leader), town.link(&leader)];
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tell(sender)));
    let mut granted = Box::pin(ask(&one, want("a")));
    let mut context = Context::from_waker(&waker);
    if Future::poll(granted.as_mut(), &mut context).is_pending() {
        woken.recv().unwrap();
    }
    drop(granted);
    let lease = ask(&other, within("a", Duration::from_secs(30))).wait().unwrap();
    give(&other, lease);
}

struct Tell(mpsc::Sender<()>);

impl std::task::Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_driver_that_was_stalled_past_the_deadline_has_lost_and_never_revives() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [0; 2].map(|_| town.link_to([leader.local_addr()], short_lived()));
    let held = take(&one, "a");
    // No thread carries its frames, as if the whole process had been stopped.
    let next = one.while_stalled(|| {
        let next = ask(&other, within("a", Duration::from_secs(30))).wait().unwrap();
        assert_eq!(held.watch().lost(), Some(LostReason::Expired), "two hold it");
        next
    });
    let error = give_answered(&one, held).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);
    // It goes on with a new session.
    assert!(ask(&one, at_once("a")).wait().unwrap_err().is_contended());
    give(&other, next);
    let again = take(&one, "a");
    give(&one, again);
}

#[test]
fn locks_are_listed() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [town.link(&leader), town.link(&leader)];
    let held = take(&one, "orders/42");
    let also = take(&one, "orders/43");
    let all = other.list(None, None).unwrap();
    let names: Vec<_> = all.iter().map(|lock| lock.name.as_str()).collect();
    assert_eq!(names, ["orders/42", "orders/43"]);
    assert_eq!(all[0].token, held.token);
    let only = other.list(Some(&name("orders/42")), None).unwrap();
    assert_eq!(only.len(), 1);
    assert!(other.list(Some(&name("orders/4")), None).unwrap().is_empty());

    give(&one, also);
    give(&one, held);
}

#[test]
fn a_lock_held_for_too_long_is_lost() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [town.link(&leader), town.link(&leader)];
    let at_most = Some(Duration::from_millis(100));
    let held = ask(&one, LeaseRequest { at_most, ..want("a") }).wait().unwrap();
    let next = ask(&other, within("a", Duration::from_secs(30))).wait().unwrap();
    assert_eq!(held.watch().lost(), Some(LostReason::HeldTooLong));
    give(&other, next);
}

#[test]
fn callbacks_of_a_loss_may_use_the_link() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    let at_most = Some(Duration::from_millis(50));
    let held = ask(&link, LeaseRequest { at_most, ..want("a") }).wait().unwrap();
    let (sender, called) = mpsc::channel();
    let (in_callback, in_hand) = (link.clone(), held.clone());
    held.watch().on_lost(Box::new(move |reason| {
        drop(ask(&in_callback, want("b")));
        give(&in_callback, in_hand.clone());
        sender.send(reason).unwrap();
    }));
    assert_eq!(called.recv().unwrap(), LostReason::HeldTooLong);
}

struct Panicking;

impl std::task::Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics, as a test wants it");
    }
}

/// Waits until this lease was renewed often enough to outlive its first deadline.
fn outlive(lease: &Leased) {
    let first = lease.watch().deadline();
    while clock::now() <= first {
        thread::sleep(Duration::from_millis(10));
        assert_eq!(lease.watch().lost(), None, "it was not renewed");
    }
}

#[test]
fn a_waker_that_panics_costs_no_other_caller_anything() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [0; 2].map(|_| town.link_to([leader.local_addr()], short_lived()));
    let also = take(&other, "also");
    let held = take(&one, "a");
    let waker = Waker::from(Arc::new(Panicking));
    let mut waiting = Box::pin(ask(&other, want("a")));
    assert!(Future::poll(waiting.as_mut(), &mut Context::from_waker(&waker)).is_pending());
    give(&one, held);
    outlive(&also);
    let granted = futures::executor::block_on(waiting).unwrap();
    give(&other, granted);
    give_answered(&other, also).unwrap();
}

#[test]
fn a_callback_that_panics_or_blocks_stalls_no_renewal() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link_to([leader.local_addr()], short_lived());
    let at_most = Some(Duration::from_millis(50));
    let [first, second] =
        ["a", "b"].map(|text| ask(&link, LeaseRequest { at_most, ..want(text) }).wait().unwrap());
    let (entered, is_in) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let panics = || {
        first.watch().on_lost(Box::new(|_| panic!("a callback that panics, as a test wants it")));
    };
    // Where the time is over already, it is called at once, and panics here.
    let _ = catch_unwind(AssertUnwindSafe(panics));
    let blocked = thread::spawn(move || {
        second.watch().on_lost(Box::new(move |_| {
            entered.send(()).unwrap();
            let _ = ended.recv();
        }));
        second
    });
    is_in.recv().unwrap();
    let held = take(&link, "c");
    outlive(&held);
    drop(end);
    drop(blocked.join().unwrap());
    give_answered(&link, held).unwrap();
}

#[test]
fn an_operators_callback_that_blocks_holds_up_no_alarm() {
    let town = Town::new();
    let (entered, is_in) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let ended = Mutex::new(ended);
    let builder = town.builder("127.0.0.1:0").on_alarm(move |text| {
        entered.send(text.to_owned()).unwrap();
        let _ = ended.lock().recv();
    });
    let _leader = builder.start().unwrap();
    fs::write(town.path("key"), "damaged").unwrap();
    let text = is_in.recv().unwrap();
    assert!(text.contains("64 hexadecimal digits"), "{text}");
    let (ring, rung) = mpsc::channel();
    alarm::call_at(Time::ZERO, move || ring.send(()).unwrap()).detach();
    rung.recv().unwrap();
    drop(end);
}

#[test]
fn a_caller_that_asks_and_gives_up_all_the_time_starves_no_renewal() {
    let town = Town::new();
    let leader = town.leader();
    let [one, other] = [0; 2].map(|_| town.link_to([leader.local_addr()], short_lived()));
    let theirs = take(&other, "theirs");
    let held = take(&one, "a");
    let first = held.watch().deadline();
    let mut context = Context::from_waker(Waker::noop());
    while clock::now() <= first + short_lived().time_to_live {
        let mut asked = Box::pin(ask(&one, want("theirs")));
        assert!(Future::poll(asked.as_mut(), &mut context).is_pending());
        drop(asked);
        assert_eq!(held.watch().lost(), None, "it was not renewed");
    }
    give(&one, held);
    give(&other, theirs);
}

#[test]
fn a_driver_that_panicked_leaves_no_caller_waiting_and_no_lease_believed() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    let other = town.link(&leader);
    let held = take(&link, "a");
    let theirs = take(&other, "b");
    thread::scope(|scope| {
        let blocked = scope.spawn(|| ask(&link, want("b")).wait());
        let mut waiting = Box::pin(ask(&link, want("b")));
        let (sender, woken) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tell(sender)));
        assert!(Future::poll(waiting.as_mut(), &mut Context::from_waker(&waker)).is_pending());
        link.break_down();
        woken.recv().unwrap();
        let error = futures::executor::block_on(waiting).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Io);
        assert_eq!(blocked.join().unwrap().unwrap_err().kind(), LockErrorKind::Io);
    });
    assert_eq!(held.watch().lost(), Some(LostReason::Expired));
    let error = ask(&link, want("c")).wait().unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    close(&link);
    give(&other, theirs);
}

#[test]
fn a_leader_says_that_its_disk_failed_and_stops() {
    let town = Town::new();
    let leader = town.leader();
    assert!(leader.failure().is_none());
    let link = town.link(&leader);
    leader.fail_the_disk();
    let error = ask(&link, want("a")).wait().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Io);
    let error = leader.wait();
    assert_eq!(error.kind(), LockErrorKind::Io);
    assert_eq!(leader.failure().unwrap().kind(), LockErrorKind::Io);
}

fn lock_locally(word: &LeaseWord, times: u64) {
    for _ in 0..times {
        let Entering::Entered(Entered { token, .. }) = word.enter() else { panic!("it is kept") };
        assert_eq!(word.leave(token, Predecessor::Clean), Left::Kept);
    }
}

/// Looks until it is so. What fails without this hangs; the limit is there to say what it waited for.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "in vain: {what}");
        thread::yield_now();
    }
}

#[test]
fn an_unused_kept_lease_goes_back_by_itself() {
    let town = Town::new();
    let leader = town.leader();
    let (link, other) = (town.link(&leader), town.link(&leader));
    let idle = take_to_keep(&link, "idle");
    lock_locally(&idle, 7);
    until("the word is closed", || idle.idle().is_none());
    give(&other, take(&other, "idle"));
}

#[test]
fn a_word_learns_at_a_recall_whether_keeping_has_paid() {
    let town = Town::new();
    let leader = town.leader();
    let (link, other) = (town.link(&leader), town.link(&leader));
    let [short, long] = ["short", "long"].map(|name| take_to_keep(&link, name));
    lock_locally(&short, 3);
    lock_locally(&long, 100);
    assert!(!long.is_wanted(false));
    give(&other, take(&other, "short"));
    give(&other, take(&other, "long"));
    assert!(long.is_wanted(false), "100 local locks paid");
    // What would do before the recall does no longer.
    (0..3).for_each(|_| short.granted(false));
    assert!(!short.is_wanted(false), "3 did not");
}
