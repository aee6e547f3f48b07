use std::{
    fs,
    future::Future as _,
    net::SocketAddr,
    pin::pin,
    sync::mpsc,
    task::{Context, Wake, Waker},
    time::Instant,
};

use rustix::fs::{CWD, mkfifoat};

use super::{super::driver::connect_over, *};
#[cfg(feature = "tokio")]
use crate::host::tests::lent::LentRuntime;
use crate::{
    error::LostReason,
    host::{
        client::link::Link,
        leased::{ask, give, take, want},
        tests::{Town, close, config, generation},
    },
    name::Name,
};

/// Managers of one process, which share what carries them.
pub(in crate::host::client) struct Household {
    pub(in crate::host::client) town: Town,
    carrier: Arc<Carrier>,
}

impl Household {
    pub(in crate::host::client) fn new() -> Household {
        Household { town: Town::new(), carrier: Carrier::new(None).unwrap() }
    }

    pub(in crate::host::client) fn link(&self, address: SocketAddr) -> Arc<Link> {
        let carrier = self.carrier.clone();
        let addresses = [address.to_string()];
        connect_over(|_| Ok(carrier), &addresses, self.town.secret(), config(), None, generation)
            .unwrap()
    }

    fn ports(&self) -> usize {
        let mut sockets = Vec::new();
        self.carrier.wire.lock().ports.sockets(&mut sockets);
        sockets.len()
    }

    /// Waits until no thread carries.
    pub(in crate::host::client) fn see_the_thread_end(&self) {
        let mut thread = self.carrier.thread.lock();
        let begin = Instant::now();
        while thread.is_running {
            assert!(begin.elapsed() < Duration::from_secs(10), "the thread stays");
            self.carrier.changed.wait_for(&mut thread, LONGEST_SLEEP);
        }
    }
}

#[test]
fn one_thread_and_one_port_carry_all_managers_until_the_last_has_gone() {
    let household = Household::new();
    let leader = household.town.leader();
    let links: Vec<_> = (0..8).map(|_| household.link(leader.local_addr())).collect();
    assert_eq!(household.ports(), 0, "nothing is wanted yet");
    for round in 0..2 {
        std::thread::scope(|scope| {
            for (index, link) in links.iter().enumerate() {
                scope.spawn(move || {
                    for _ in 0..20 {
                        give(link, take(link, &format!("own/{index}")));
                        give(link, take(link, "all"));
                    }
                });
            }
        });
        assert_eq!(household.ports(), 1, "in round {round}");
    }
    for link in links {
        assert!(household.carrier.thread.lock().is_running);
        close(&link);
    }
    household.see_the_thread_end();
    assert_eq!(household.ports(), 0);
    // Another comes later.
    let link = household.link(leader.local_addr());
    give(&link, take(&link, "all"));
    drop(link);
    household.see_the_thread_end();
}

#[test]
fn what_becomes_of_one_manager_is_nothing_to_another() {
    let household = Household::new();
    let leader = household.town.leader();
    let [one, other, third] = [0; 3].map(|_| household.link(leader.local_addr()));
    let theirs = take(&other, "b");
    let lost = take(&third, "c");
    give(&one, take(&one, "a"));
    close(&one);
    third.break_down();
    while lost.watch().lost() != Some(LostReason::Expired) {
        std::thread::yield_now();
    }
    assert!(ask(&third, want("d")).wait().is_err());
    give(&other, take(&other, "a"));
    assert_eq!(theirs.watch().lost(), None);
    give(&other, theirs);
}

#[test]
fn managers_of_several_leaders_share_a_thread_and_no_port() {
    let household = Household::new();
    let (leader, town) = (household.town.leader(), Town::new());
    fs::copy(household.town.path("key"), town.path("key")).unwrap();
    let other = town.leader();
    let links = [&leader, &other].map(|leader| household.link(leader.local_addr()));
    for link in &links {
        give(link, take(link, "a"));
    }
    assert_eq!(household.ports(), 2);
    drop(leader);
    for _ in 0..20 {
        give(&links[1], take(&links[1], "a"));
    }
}

#[test]
fn a_port_on_which_a_connection_was_lost_is_used_no_more() {
    let household = Household::new();
    let leader = household.town.leader();
    let address = leader.local_addr();
    let links = [0; 4].map(|_| household.link(address));
    for link in &links {
        give(link, take(link, "a"));
    }
    let sockets = || {
        let mut sockets = Vec::new();
        household.carrier.wire.lock().ports.sockets(&mut sockets);
        sockets.into_iter().map(|(socket, _)| socket).collect::<Vec<_>>()
    };
    let before = sockets();
    leader.shutdown();
    let _leader = household.town.leader_at(address).unwrap();
    for link in &links {
        give(link, take(link, "a"));
    }
    assert!(sockets().iter().all(|socket| !Arc::ptr_eq(socket, &before[0])));
}

#[test]
fn a_secret_file_on_a_disk_that_hangs_holds_no_manager_up() {
    let household = Household::new();
    let leader = household.town.leader();
    let links = [0; 2].map(|_| household.link(leader.local_addr()));
    // A pipe: its reader waits for a writer.
    let key = household.town.path("key");
    fs::remove_file(&key).unwrap();
    mkfifoat(CWD, &key, 0o600.into()).unwrap();
    let begin = Instant::now();
    for link in &links {
        give(link, take(link, "a"));
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

/// A waker that does not return before it may.
struct StuckWaker {
    is_in: mpsc::Sender<()>,
    may_return: Mutex<mpsc::Receiver<()>>,
}

impl Wake for StuckWaker {
    fn wake(self: Arc<Self>) {
        let _ = self.is_in.send(());
        let _ = self.may_return.lock().recv();
    }
}

#[test]
fn a_waker_that_does_not_return_holds_no_other_caller_up() {
    let household = Household::new();
    let leader = household.town.leader();
    let address = leader.local_addr();
    let [one, other] = [0; 2].map(|_| household.link(address));
    let apart = household.town.link(&leader);
    let held = ["a", "b"].map(|name| take(&apart, name));
    let (is_in, has_come) = mpsc::channel();
    let (lets_go, may_return) = mpsc::channel();
    let waker = Waker::from(Arc::new(StuckWaker { is_in, may_return: Mutex::new(may_return) }));
    let mut waiting = pin!(ask(&one, want("a")));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    std::thread::scope(|scope| {
        // A task, which does not carry its frames itself while it waits.
        let served = scope.spawn(|| {
            let lease = futures::executor::block_on(ask(&other, want("b"))).unwrap();
            give(&other, lease);
        });
        let name = Name::new("b").unwrap();
        while apart.list(Some(&name), None).unwrap().iter().all(|lock| lock.waiters.is_empty()) {
            std::thread::yield_now();
        }
        let [a, b] = held;
        give(&apart, a);
        has_come.recv_timeout(Duration::from_secs(10)).expect("its answer is read");
        give(&apart, b);
        let begin = Instant::now();
        while !served.is_finished() && begin.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        let is_served = served.is_finished();
        drop(lets_go);
        assert!(is_served, "another stands in for the thread that is kept");
    });
    let granted = futures::executor::block_on(waiting).unwrap();
    give(&one, granted);
    [one, other].iter().for_each(|link| close(link));
    household.see_the_thread_end();
}

/// Owns the connection. The thread has it while nothing is asked for, and leaves it to callers that carry.
fn own(carrier: &Carrier, link: &Arc<Link>) {
    loop {
        give(link, take(link, "own"));
        if carrier.word.own() {
            return;
        }
    }
}

#[test]
fn a_caller_is_kept_by_no_waker_of_another_manager() {
    let household = Household::new();
    let leader = household.town.leader();
    let links @ [one, other] = &[0; 2].map(|_| household.link(leader.local_addr()));
    links.iter().for_each(|link| give(link, take(link, "b")));
    let (is_in, has_come) = mpsc::channel();
    let (lets_go, may_return) = mpsc::channel();
    let waker = Waker::from(Arc::new(StuckWaker { is_in, may_return: Mutex::new(may_return) }));
    // This caller of the other manager has the connection when the request comes, and reads its answer.
    own(&household.carrier, other);
    let mut waiting = pin!(ask(one, want("a")));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let (done, is_done) = mpsc::channel();
    let (carrier, its, others) =
        (household.carrier.clone(), Arc::downgrade(one), Arc::downgrade(other));
    std::thread::spawn(move || {
        let carried = CarriedLink::new(others);
        let has_read = || its.upgrade().is_none_or(|link| link.unanswered() == 0);
        WireOwner::new(&carrier, OwnedBy::Caller(&carried)).carry_until(&has_read);
        done.send(()).unwrap();
    });
    has_come.recv_timeout(Duration::from_secs(10)).expect("the thread tells it");
    let is_free = is_done.recv_timeout(Duration::from_secs(10));
    drop(lets_go);
    is_free.expect("it runs what is of its own manager alone");
    let granted = futures::executor::block_on(waiting).unwrap();
    give(one, granted);
    links.iter().for_each(|link| close(link));
    household.see_the_thread_end();
}

/// Others come at each look, so that there always is something to look at.
#[test]
fn a_task_that_lends_its_thread_looks_at_the_wire_for_no_longer() {
    let household = Household::new();
    let leader = household.town.leader();
    let link = household.link(leader.local_addr());
    let carrier = &household.carrier;
    own(carrier, &link);
    let carried = CarriedLink::new(Weak::new());
    let mut owner = WireOwner::new(carrier, OwnedBy::Caller(&carried));
    let begin = Instant::now();
    let looks_on = || {
        assert_eq!(carrier.word.come(WireWish::Send), Coming::Heard);
        begin.elapsed() > Duration::from_secs(10)
    };
    let looked_on = owner.look_until(&looks_on, (begin, Duration::from_micros(50)));
    owner.leave();
    assert!(!looked_on, "it looks for as long as others come");
    give(&link, take(&link, "a"));
}

#[cfg(feature = "tokio")]
#[test]
fn a_lent_runtime_that_has_ended_is_waited_for_no_more() {
    let town = Town::new();
    let (runtime, reader) = LentRuntime::new();
    let household = Household { town, carrier: Carrier::new(Some(reader)).unwrap() };
    let leader = household.town.leader();
    let link = household.link(leader.local_addr());
    let cycle = async || {
        let lease = ask(&link, want("a")).await.unwrap();
        give(&link, lease);
    };
    runtime.run(cycle());
    assert!(household.carrier.reader().is_some());
    runtime.end();
    // The first that would be read by it finds that out; before, callers may have carried by themselves.
    let begin = Instant::now();
    while household.carrier.reader().is_some() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it is not noticed");
        futures::executor::block_on(cycle());
    }
    for _ in 0..20 {
        futures::executor::block_on(cycle());
        assert!(
            !household.carrier.word.reads(),
            "the sockets are left to a runtime that has ended"
        );
    }
}
