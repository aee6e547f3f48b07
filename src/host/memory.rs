//! A leader and its clients in one process, without sockets: for users' own tests.
//!
//! It runs the protocol that the network runs, only the way between is shorter: a caller that
//! wants something moves all messages there are before it goes on, and the alarm thread does so when a
//! deadline comes. Records are "durable" at once, and survive [`MemoryLeader::stop`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::*},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    client::link::{Drive, Link},
    random,
};
use crate::{
    alarm::{self, Alarm},
    clock,
    error::LockError,
    name::Name,
    proto::{
        ClientId, ClusterId, ConnectionId, ProcessMark, ReignId,
        client::{Client, ClientConfig, Ended},
        leader,
        record::Recovered,
        wire::{ClientMessage, Identity, LeaderMessage},
    },
    time::Time,
};

/// A leader that lives in this process, and its clients.
#[derive(Clone)]
pub(crate) struct MemoryLeader(Arc<MemoryWorld>);

struct MemoryWorld {
    state: Mutex<MemoryState>,
    /// A caller wants messages moved. Set before the state is tried for, so that the thread that has
    /// it looks again.
    wanted: AtomicBool,
    /// What may go late does not go before there is something else to move.
    #[cfg(test)]
    is_lazy: AtomicBool,
}

struct MemoryState {
    leader: Option<leader::LeaderMachine>,
    /// What a journal would know.
    durable: Recovered,
    peers: Vec<Peer>,
    next_connection: u64,
    alarm: Option<(Time, Alarm)>,
    /// What the leader heard and said, if a test writes it down.
    #[cfg(test)]
    frames: Option<Vec<Frame>>,
}

/// A message to the leader, or from it.
#[cfg(test)]
#[derive(Debug)]
pub(crate) enum Frame {
    Up(ClientMessage),
    Down(LeaderMessage),
}

/// One link, and its connections: as it numbers them, and as the leader does.
struct Peer {
    link: Weak<Link>,
    lines: HashMap<ConnectionId, ConnectionId>,
}

impl MemoryLeader {
    /// A leader without a past, running.
    pub(crate) fn new() -> MemoryLeader {
        let durable = Recovered::new(ClusterId(random()));
        let leader = MemoryLeader(Arc::new(MemoryWorld {
            state: Mutex::new(MemoryState {
                leader: None,
                durable,
                peers: Vec::new(),
                next_connection: 0,
                alarm: None,
                #[cfg(test)]
                frames: None,
            }),
            #[cfg(test)]
            is_lazy: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
        }));
        leader.start();
        leader
    }

    /// A link to it, as a manager has one. `generation` tells a forked child from its parent.
    pub(crate) fn connect(
        &self,
        identity: Identity,
        time_to_live: Duration,
        connect_timeout: Duration,
        generation: fn() -> u64,
    ) -> Arc<Link> {
        let process = ProcessMark(random());
        let seen = None;
        let config =
            ClientConfig { time_to_live, connect_timeout, identity, addresses: 1, process, seen };
        let client = Client::new(config, Box::new(random), clock::now());
        let link = Link::new(client, generation, |_| Arc::new(MemoryDrive(self.0.clone())));
        let peer = Peer { link: Arc::downgrade(&link), lines: HashMap::new() };
        self.0.state.lock().peers.push(peer);
        link
    }

    /// Stops it, as a kill would: it remembers what is durable and no more.
    pub(crate) fn stop(&self) {
        self.0.state.lock().leader = None;
        MemoryWorld::move_messages(&self.0);
    }

    /// Starts it again after [`stop`](MemoryLeader::stop), by the rules: it waits for what its
    /// predecessor granted to run out or to be reported. Nothing happens if it runs.
    pub(crate) fn start(&self) {
        {
            let state = &mut *self.0.state.lock();
            if state.leader.is_some() {
                return;
            }
            // It is stopped and started while its clients live: no process of its own.
            let config = leader::LeaderConfig {
                reign: ReignId(random() as u64),
                ..leader::LeaderConfig::default()
            };
            state.leader =
                Some(leader::LeaderMachine::new(config, state.durable.clone(), clock::now()));
        }
        MemoryWorld::move_messages(&self.0);
    }

    /// Has every message written down from now on, and what may go late go as late as it may.
    #[cfg(test)]
    pub(crate) fn watch_frames(&self) {
        self.0.is_lazy.store(true, SeqCst);
        self.0.state.lock().frames = Some(Vec::new());
    }

    /// What was written down since it was last asked for.
    #[cfg(test)]
    pub(crate) fn take_frames(&self) -> Vec<Frame> {
        // What could go late does so at the latest now.
        MemoryWorld::move_messages(&self.0);
        self.0.state.lock().frames.replace(Vec::new()).expect("they are watched")
    }

    /// Takes the lock of this name away from its holder; whether it had one.
    pub(crate) fn lose(&self, name: &Name) -> bool {
        let links = self.0.state.lock().links();
        // Foreign code is told, so no lock is held here.
        let lost = links.iter().filter(|link| link.provoke(name)).count();
        MemoryWorld::move_messages(&self.0);
        lost > 0
    }
}

/// Carries a link's frames: at once, on the thread that asks.
struct MemoryDrive(Arc<MemoryWorld>);

impl Drive for MemoryDrive {
    fn start(&self) -> Result<(), LockError> {
        Ok(())
    }

    fn wake(&self) {
        MemoryWorld::move_messages(&self.0);
    }

    #[cfg(test)]
    fn let_go(&self, soon: bool) {
        if soon || !self.0.is_lazy.load(SeqCst) {
            self.wake();
        }
    }

    fn attend(&self) -> Result<(), LockError> {
        // The alarm thread may be held up by a waker, perhaps by the very one that waits here.
        MemoryWorld::move_messages(&self.0);
        Ok(())
    }

    fn finish(&self, until: Time) {
        MemoryWorld::move_messages(&self.0);
        // Another thread that moves them just now may find the link gone before it has come to its
        // last words.
        if let Some(mut state) = self.0.state.try_lock_for(until.since(clock::now())) {
            let links = state.links();
            while state.turn() {}
            state.set_alarm(&self.0);
            drop(state);
            links.iter().for_each(|link| link.follow_up());
        }
    }

    #[cfg(test)]
    fn while_stalled(&self, work: &mut dyn FnMut()) {
        let _state = self.0.state.lock();
        work();
    }
}

impl MemoryWorld {
    /// Moves messages until none is left. If another thread is at it, or this one further up its
    /// stack, that one does.
    fn move_messages(world: &Arc<MemoryWorld>) {
        world.wanted.store(true, SeqCst);
        while world.wanted.load(SeqCst) {
            let Some(mut state) = world.state.try_lock() else { return };
            let links = state.links();
            while world.wanted.swap(false, SeqCst) {
                while state.turn() {}
            }
            state.set_alarm(world);
            drop(state);
            // Foreign code, the links' own ends included.
            links.iter().for_each(|link| link.follow_up());
        }
    }
}

impl MemoryState {
    /// Every client's link. The thread that moves messages keeps them until the state is unlocked, and
    /// then has them tell what came of it: no link ends, and no caller is told, under the lock.
    fn links(&self) -> Vec<Arc<Link>> {
        self.peers.iter().filter_map(|peer| peer.link.upgrade()).collect()
    }

    /// Every client's turn, once; whether anything moved.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        let MemoryState { leader, durable, peers, next_connection, .. } = self;
        #[cfg(test)]
        let MemoryState { frames, .. } = self;
        if let Some(leader) = leader {
            moved |= serve(leader, durable, peers, |_message| {
                #[cfg(test)]
                frames.iter_mut().for_each(|all| all.push(Frame::Down(_message.clone())));
            });
        }
        peers.retain_mut(|peer| {
            let Some(link) = peer.link.upgrade() else {
                // Dropped without a word, as by a kill.
                for (_, theirs) in peer.lines.drain() {
                    if let Some(leader) = leader {
                        leader.handle_disconnected(theirs, clock::now());
                    }
                    moved = true;
                }
                return false;
            };
            let Peer { lines, .. } = peer;
            moved |= link.drive(
                &mut (),
                |_, _| {},
                |_, client, ()| {
                    attend(client, leader, lines, next_connection, |_message| {
                        #[cfg(test)]
                        frames.iter_mut().for_each(|all| all.push(Frame::Up(_message.clone())));
                    })
                },
            );
            true
        });
        moved
    }

    fn set_alarm(&mut self, world: &Arc<MemoryWorld>) {
        let leader = self.leader.as_ref().and_then(leader::LeaderMachine::poll_timeout);
        let links = self.peers.iter().filter_map(|peer| peer.link.upgrade());
        let clients = links.filter_map(|link| {
            link.drive(&mut (), |_, _| {}, |_, client, ()| client.poll_timeout())
        });
        let Some(at) = clients.chain(leader).min() else { return };
        let now = clock::now();
        if self.alarm.as_ref().is_some_and(|(set, _)| *set > now && *set <= at) {
            return;
        }
        let world = Arc::downgrade(world);
        let alarm = alarm::call_at(at, move || {
            if let Some(world) = world.upgrade() {
                MemoryWorld::move_messages(&world);
            }
        });
        self.alarm = Some((at, alarm));
    }
}

/// The leader's turn; whether anything moved.
fn serve(
    leader: &mut leader::LeaderMachine,
    durable: &mut Recovered,
    peers: &mut [Peer],
    mut note: impl FnMut(&LeaderMessage),
) -> bool {
    let mut moved = false;
    let now = clock::now();
    if leader.poll_timeout().is_some_and(|at| at <= now) {
        leader.handle_timeout(now);
        moved = true;
    }
    while let Some(pending) = leader.poll_record() {
        durable.remember(pending.record());
        leader.handle_committed(pending.committed(), clock::now());
        moved = true;
    }
    while leader.poll_notice().is_some() {}
    while let Some((theirs, message)) = leader.poll_message() {
        note(&message);
        to_client(peers, theirs, |client, id, now| client.handle_message(id, message, now));
        moved = true;
    }
    while let Some((theirs, _)) = leader.poll_close() {
        to_client(peers, theirs, |client, id, now| {
            client.handle_ended(id, Ended::Disconnected("the leader closed it".into()), now);
        });
        for peer in &mut *peers {
            peer.lines.retain(|_, line| *line != theirs);
        }
        leader.handle_disconnected(theirs, clock::now());
        moved = true;
    }
    moved
}

fn to_client(
    peers: &[Peer],
    theirs: ConnectionId,
    deliver: impl FnOnce(&mut Client, ConnectionId, Time),
) {
    for peer in peers {
        let line = peer.lines.iter().find(|(_, line)| **line == theirs);
        if let Some((id, link)) = line.map(|(id, _)| *id).zip(peer.link.upgrade()) {
            link.drive(&mut (), |_, client| deliver(client, id, clock::now()), |_, _, ()| {});
            return;
        }
    }
}

/// One client's turn; whether anything moved.
fn attend(
    client: &mut Client,
    leader: &mut Option<leader::LeaderMachine>,
    lines: &mut HashMap<ConnectionId, ConnectionId>,
    next_connection: &mut u64,
    mut note: impl FnMut(&ClientMessage),
) -> bool {
    let mut moved = false;
    let now = clock::now();
    if client.poll_timeout().is_some_and(|at| at <= now) {
        client.handle_timeout(now);
        moved = true;
    }
    let Some(leader) = leader else {
        let cut: Vec<_> = lines.drain().map(|(id, _)| id).collect();
        let tried: Vec<_> =
            std::iter::from_fn(|| client.poll_connect()).map(|(id, _)| id).collect();
        for id in cut.into_iter().chain(tried) {
            client.handle_ended(id, Ended::NotThere("the leader is stopped".into()), now);
            moved = true;
        }
        while client.poll_message(now).is_some() {}
        while client.poll_close().is_some() {}
        return moved;
    };
    while let Some((id, _)) = client.poll_connect() {
        let theirs = ConnectionId(*next_connection);
        *next_connection += 1;
        lines.insert(id, theirs);
        leader.handle_connected(theirs, ClientId(0), now);
        client.handle_connected(id, now);
        moved = true;
    }
    while let Some((id, message)) = client.poll_message(now) {
        if let Some(theirs) = lines.get(&id) {
            note(&message);
            leader.handle_message(*theirs, message, clock::now());
        }
        moved = true;
    }
    while let Some(id) = client.poll_close() {
        if let Some(theirs) = lines.remove(&id) {
            leader.handle_disconnected(theirs, clock::now());
        }
        moved = true;
    }
    moved
}

#[cfg(all(test, not(tierlock_loom)))]
mod tests {
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
}
