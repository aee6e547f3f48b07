use std::{fs, net::SocketAddr, time::Instant};

use super::{super::driver::connect_over, *};
use crate::{
    error::LostReason,
    host::{
        client::link::Link,
        leased::{give, take},
        tests::{Town, close, config, generation},
    },
};

/// Managers of one process, which share what carries them.
struct Household {
    town: Town,
    carrier: Arc<Carrier>,
}

impl Household {
    fn new() -> Household {
        Household { town: Town::new(), carrier: Carrier::new(None).unwrap() }
    }

    fn link(&self, address: SocketAddr) -> Arc<Link> {
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
    fn see_the_thread_end(&self) {
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
    assert!(crate::host::leased::ask(&third, crate::host::leased::want("d")).wait().is_err());
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
