//! Two leaders over one journal, and a client that has both their addresses.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering::*},
};

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::proto::{
    ClusterId,
    journal::{
        Appended, JournalHead, JournalTerms, JournalTrouble, ReignAttempt, ReignJournal, ReignKey,
        ReignRenewal, Stamp, TakeOver, Took,
    },
    record::{Record, Recovered, Written},
};

/// L of these situations.
const LASTS: Duration = Duration::from_millis(500);

/// A store in memory.
struct Store {
    state: Mutex<Stored>,
    changed: Condvar,
}

struct Stored {
    recovered: Recovered,
    reign: Option<ReignKey>,
    stamp: u64,
    number: u64,
    /// Which leaders reach it not.
    cut: BTreeSet<u64>,
    /// It fails where a leader resigns.
    fails_at_resigning: bool,
    take_overs: u64,
}

/// One leader's way to it.
struct WayToStore {
    number: u64,
    store: Arc<Store>,
}

static WAYS: AtomicU64 = AtomicU64::new(0);

impl Store {
    fn new() -> Arc<Store> {
        let state = Stored {
            recovered: Recovered::new(ClusterId(8)),
            reign: None,
            stamp: 1,
            number: 0,
            cut: BTreeSet::new(),
            fails_at_resigning: false,
            take_overs: 0,
        };
        Arc::new(Store { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn way(self: &Arc<Store>) -> Arc<WayToStore> {
        Arc::new(WayToStore { number: WAYS.fetch_add(1, Relaxed), store: self.clone() })
    }

    fn wait_until(&self, holds: impl Fn(&Stored) -> bool) {
        let mut state = self.state.lock();
        while !holds(&state) {
            self.changed.wait(&mut state);
        }
    }
}

impl WayToStore {
    fn cut(&self) {
        self.store.state.lock().cut.insert(self.number);
    }

    fn enter<T>(&self, act: impl FnOnce(&mut Stored) -> T) -> Result<T, JournalTrouble> {
        let mut state = self.store.state.lock();
        if state.cut.contains(&self.number) {
            return Err(JournalTrouble::Unknown("it is cut off".to_owned()));
        }
        let result = act(&mut state);
        self.store.changed.notify_all();
        Ok(result)
    }
}

impl Stored {
    fn head(&self) -> JournalHead {
        JournalHead {
            cluster: self.recovered.cluster,
            reign: self.reign,
            lasts: LASTS,
            stamp: Stamp(self.stamp),
            epoch: self.recovered.epoch,
            waits_for: self.recovered.waits_for,
            address: None,
        }
    }

    fn touch(&mut self) -> Stamp {
        self.stamp += 1;
        Stamp(self.stamp)
    }
}

impl ReignJournal for WayToStore {
    fn terms(&self) -> JournalTerms {
        JournalTerms { is_exclusive: false, batch_max: 60, renewals: 6 }
    }

    fn read(&self) -> Result<JournalHead, JournalTrouble> {
        self.enter(|state| state.head())
    }

    fn take_over(&self, attempt: &ReignAttempt) -> Result<TakeOver, JournalTrouble> {
        self.enter(|state| {
            if state.stamp != attempt.seen.0 {
                return TakeOver::Raced(state.head());
            }
            let before = state.recovered.clone();
            state.recovered.remember(&attempt.took_over);
            (state.reign, state.number) = (Some(attempt.reign), 0);
            state.take_overs += 1;
            let (stamp, written) = (state.touch(), Written::committed(Vec::new()));
            TakeOver::Took(Box::new(Took { stamp, before, written }))
        })
    }

    fn append(
        &self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> Result<Appended, JournalTrouble> {
        self.enter(|state| {
            if state.reign != Some(reign) || !(state.number..=state.number + 1).contains(&number) {
                return Appended::Deposed(state.head());
            }
            if number > state.number {
                records.iter().for_each(|record| state.recovered.remember(record));
                state.number = number;
                state.touch();
            }
            Appended::Committed(Stamp(state.stamp), Written::committed(Vec::new()))
        })
    }

    fn renew(&self, reign: ReignKey) -> Result<ReignRenewal, JournalTrouble> {
        self.enter(|state| match state.reign == Some(reign) {
            true => ReignRenewal::Renewed(state.touch()),
            false => ReignRenewal::Deposed(state.head()),
        })
    }

    fn resign(&self, reign: ReignKey) -> Result<(), JournalTrouble> {
        if self.store.state.lock().fails_at_resigning {
            return Err(JournalTrouble::Failed("it is broken".to_owned()));
        }
        self.enter(|state| {
            if state.reign.take_if(|own| *own == reign).is_some() {
                state.touch();
            }
        })
    }
}

/// Two leaders that follow each other, the first of which reigns.
struct Pair {
    town: Town,
    store: Arc<Store>,
    first: (Leader, Arc<WayToStore>),
    second: (Leader, Arc<WayToStore>),
}

impl Pair {
    fn new() -> Pair {
        let (town, store) = (Town::new(), Store::new());
        let leader = |directory: &str| {
            let way = store.way();
            let builder = town.builder("127.0.0.1:0").state_dir(town.path(directory)).init(true);
            (builder.over(way.clone(), LASTS).start().unwrap(), way)
        };
        let first = leader("first");
        store.wait_until(|state| state.take_overs == 1);
        let second = leader("second");
        Pair { town, store, first, second }
    }

    fn link(&self) -> Arc<Link> {
        self.town.link_to([self.first.0.local_addr(), self.second.0.local_addr()], config())
    }
}

#[test]
fn a_standby_sends_clients_to_the_reign() {
    let pair = Pair::new();
    let link = pair.town.link_to([pair.second.0.local_addr(), pair.first.0.local_addr()], config());
    let held = take(&link, "a");
    assert_eq!(held.token.epoch(), 1);
    give_answered(&link, held).unwrap();
    close(&link);
}

/// The holder keeps its guard, a waiter its place, and what comes after it a higher token.
#[test]
fn a_leader_that_is_cut_off_from_its_journal_is_followed() {
    let pair = Pair::new();
    let (link, other) = (pair.link(), pair.link());
    let held = take(&link, "a");
    let token = held.token;
    let mut waiting = Box::pin(ask(&other, want("a")));
    assert!(Future::poll(waiting.as_mut(), &mut Context::from_waker(Waker::noop())).is_pending());
    pair.first.1.cut();
    pair.store.wait_until(|state| state.take_overs == 2);
    assert_eq!(held.watch().lost(), None);
    // The second leader grants it once the holder has found it, and given it back there.
    give_answered(&link, held).unwrap();
    let granted = futures::executor::block_on(waiting).unwrap();
    assert!(granted.token > token && granted.token.epoch() == 2);
    give_answered(&other, granted).unwrap();
    close(&link);
    close(&other);
}

#[test]
fn a_leader_that_is_stopped_hands_over_at_once() {
    let Pair { town, store, first, second } = Pair::new();
    let addresses = [first.0.local_addr(), second.0.local_addr()];
    let link = town.link_to(addresses, config());
    let held = take(&link, "a");
    first.0.shutdown();
    store.wait_until(|state| state.take_overs == 2);
    give_answered(&link, held).unwrap();
    let again = take(&link, "a");
    assert_eq!(again.token.epoch(), 2);
    give_answered(&link, again).unwrap();
    close(&link);
}

#[test]
fn a_leader_that_steps_down_is_followed_and_stands_by() {
    let pair = Pair::new();
    let link = pair.link();
    let held = take(&link, "a");
    let (first, second) = (&pair.first.0, &pair.second.0);
    assert_eq!(second.step_down().unwrap_err().kind(), LockErrorKind::Refused, "it does not reign");
    first.step_down().unwrap();
    pair.store.wait_until(|state| state.take_overs >= 2);
    let next = take(&link, "b");
    assert!(next.token.epoch() >= 2, "{:?}", next.token);
    assert_eq!(held.watch().lost(), None, "held locks stay held");
    assert!(first.failure().is_none(), "it goes on");
    // And back again: it has stood by.
    let begun = std::time::Instant::now();
    while let Err(error) = second.step_down() {
        // It has taken over, and is not heard of as the leader yet.
        assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not reign");
        thread::yield_now();
    }
    pair.store.wait_until(|state| state.take_overs >= 3);
    give_answered(&link, next).unwrap();
    give_answered(&link, held).unwrap();
    close(&link);
}

/// It does not stand by: it has ended.
#[test]
fn a_leader_whose_journal_fails_as_it_steps_down_does_not_say_that_it_has() {
    let pair = Pair::new();
    let first = &pair.first.0;
    let link = pair.town.link_to([first.local_addr()], config());
    // From then on it is heard of as the leader.
    let held = take(&link, "a");
    pair.store.state.lock().fails_at_resigning = true;
    assert_eq!(first.step_down().unwrap_err().kind(), LockErrorKind::Io);
    drop(held);
    close(&link);
}

#[test]
fn a_leader_with_a_state_directory_says_why_it_does_not_step_down() {
    let town = Town::new();
    let leader = town.builder("127.0.0.1:0").start().unwrap();
    let error = leader.step_down().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("has its state directory for itself"), "{error}");
    leader.fail_the_disk();
    let link = town.link(&leader);
    ask(&link, want("a")).wait().unwrap_err();
    leader.wait();
    assert_eq!(leader.step_down().unwrap_err().kind(), LockErrorKind::Io);
}
