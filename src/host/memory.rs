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
    fn wake_for_release(&self, soon: bool) {
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
mod tests;
