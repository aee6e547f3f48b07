//! A conversation between two clients and a leader, byte for byte, replayed to each side.
//!
//! Neighbouring releases are to understand each other, so `conversation-1.txt` keeps what was said:
//! the leader hears the clients' side of it and is to say the leader's, and the other way round. A
//! change of the format shows here as it would to a peer of an earlier release. `conversation-2.txt`
//! is the same with shared leases and permits, which the first one's sides did not know, and
//! `conversation-3.txt` both as they were said before there was a word for deadlocks; `conversation-4.txt` is
//! what is said today, with that. The first two are of leaders that told a request's
//! place at once, and today it is told once the journal knows of the request: where that comes to
//! a grant at the same moment, it is not told.

use std::{iter::Peekable, str::Lines};

use super::*;
use crate::proto::{
    tests::bytes,
    wire::{FrameReader, Message, Received, encode_frame},
};

/// `0>` is said by the first client, `1<` is said to the second.
const SAID: &str = include_str!("conversation-1.txt");

const SAID_WITH_SHARES: &str = include_str!("conversation-2.txt");

const SAID_WITH_BOUNDS: &str = include_str!("conversation-3.txt");

const SAID_TODAY: &str = include_str!("conversation-4.txt");

#[test]
fn a_leader_answers_the_clients_of_that_time() {
    TalkStage::new(true, false, SAID).play();
}

#[test]
fn clients_go_on_with_the_leader_of_that_time() {
    TalkStage::new(false, true, SAID).play();
}

#[test]
fn both_sides_say_what_is_said_today() {
    let mut stage = TalkStage::new(true, true, SAID_TODAY);
    stage.play();
    let mut shares = TalkStage::new(true, true, SAID_TODAY);
    shares.play_shares();
    let mut deadlock = TalkStage::new(true, true, SAID_TODAY);
    deadlock.play_deadlock();
    let said = [stage.lines, shares.lines, deadlock.lines].concat().join("\n") + "\n";
    assert_eq!(said, SAID_TODAY, "\n{said}");
}

#[test]
fn a_place_that_is_not_told_before_the_grant_is_all_that_leaders_of_today_say_otherwise() {
    let by_leader = |said: &'static str| {
        let lines: Vec<_> = said.lines().filter(|line| line.contains("< ")).collect();
        lines.into_iter().partition(|line| matches!(read(line), LeaderMessage::Queued { .. }))
    };
    let (places, others): (Vec<_>, Vec<_>) = by_leader(SAID_WITH_SHARES);
    let (_, shares) =
        SAID_WITH_BOUNDS.split_once("# one reads\n").expect("the second is played behind");
    let (places_today, others_today): (Vec<_>, Vec<_>) = by_leader(shares);
    assert_eq!(others, others_today);
    assert!(places_today.len() < places.len());
}

#[test]
fn a_leader_answers_clients_that_share() {
    TalkStage::new(true, false, SAID_WITH_SHARES).play_shares();
}

#[test]
fn clients_that_share_go_on_with_their_leader() {
    TalkStage::new(false, true, SAID_WITH_SHARES).play_shares();
}

#[test]
fn a_leader_that_knows_deadlocks_answers_clients_of_the_release_before() {
    let (plain, shares) =
        SAID_WITH_BOUNDS.split_at(SAID_WITH_BOUNDS.find("# one reads\n").unwrap());
    TalkStage::new(true, false, plain).play();
    TalkStage::new(true, false, shares).play_shares();
    TalkStage::new(false, true, plain).play();
    TalkStage::new(false, true, shares).play_shares();
}

/// A side that is not here is played by what was said.
struct TalkStage {
    reign: Option<ReignScene>,
    /// The newest connection of each client, at the leader.
    newest: [ConnectionId; 2],
    clients: Option<[Manager; 2]>,
    said: Option<Peekable<Lines<'static>>>,
    lines: Vec<String>,
}

impl TalkStage {
    fn new(has_leader: bool, has_clients: bool, said: &'static str) -> TalkStage {
        TalkStage {
            reign: has_leader.then(begin),
            newest: [ConnectionId(0); 2],
            clients: has_clients.then(|| [Manager::seeded(1, 1), Manager::seeded(1, 2)]),
            said: (!has_leader || !has_clients).then(|| said.lines().peekable()),
            lines: Vec::new(),
        }
    }

    fn play(&mut self) {
        let kept = Acquire { keep: true, ..acquire("orders") };
        self.act("a client gets a lock that it may keep", |[a, _]| a.ask_for(&kept));
        self.act("another waits for it, and it is called back", |[_, b]| b.ask_for(&kept));
        self.act("it is given back", |[a, _]| a.give_back(Predecessor::Panicked));
        self.pass(300);
        self.act("one does not want to wait", |[a, _]| {
            a.ask_for(&Acquire { wait: Wait::No, ..kept.clone() });
        });
        self.act("questions", |[a, b]| {
            let (_, token) = b.lease();
            a.client.check(name("orders"), token, None, a.now);
            a.client.list(None, 10, None, a.now);
        });
        self.cut(1);
        self.pass(200);
        self.act("the lock is broken", |[a, b]| {
            let (_, token) = b.lease();
            a.client.break_lock(name("orders"), token, None, a.now);
        });
        self.act("its holder has gone", |[_, b]| {
            b.client.loss_is_told(b.lease().0);
            b.give_back(Predecessor::Broken);
        });
        self.act("another has it", |[a, _]| a.ask_for(&acquire("orders")));
        self.act("it is waited for", |[_, b]| b.ask_for(&kept));
        self.act("and no longer", |[_, b]| b.client.cancel(b.asked(), b.now));
        if let Some(reign) = &mut self.reign {
            reign.restart();
        }
        self.cut(0);
        self.cut(1);
        self.pass(500);
        self.act("what was held is given back", |[a, _]| a.give_back(Predecessor::Clean));
        self.act("the end", |clients| clients.iter_mut().for_each(|c| c.client.close(c.now)));
        if let Some(said) = &mut self.said {
            assert_eq!(said.next(), None, "more was said");
        }
    }

    fn play_shares(&mut self) {
        let read = Acquire { mode: Mode::Shared, keep: true, ..acquire("orders") };
        let permits =
            |count, limit| Acquire { mode: Mode::Permits { count, limit }, ..acquire("workers") };
        self.act("one reads", |[a, _]| a.ask_for(&read));
        self.act("another reads", |[_, b]| b.ask_for(&read));
        self.act("it is kept", |[_, b]| b.client.is_kept(b.lease().0, true));
        self.act("who reads?", |[a, _]| {
            a.client.list(None, 10, None, a.now);
        });
        if let Some(reign) = &mut self.reign {
            reign.restart();
        }
        self.cut(0);
        self.cut(1);
        self.pass(300);
        self.act("a writer asks, and both are called back", |[a, _]| {
            a.ask_for(&Acquire { keep: false, mode: Mode::Exclusive, ..read.clone() });
        });
        self.act("one is idle", |[_, b]| b.give_back(Predecessor::Clean));
        self.act("one is in use", |[a, _]| a.client.is_kept(a.lease().0, false));
        self.act("it is left", |[a, _]| a.give_back(Predecessor::Clean));
        self.act("the writer leaves", |[a, _]| a.give_back(Predecessor::Clean));
        self.act("two of three permits", |[a, _]| a.ask_for(&permits(2, 3)));
        self.act("two more are too many", |[_, b]| b.ask_for(&permits(2, 3)));
        self.act("and there are three and not four", |[a, _]| a.ask_for(&permits(1, 4)));
        self.act("they come back", |[a, _]| a.give_back(Predecessor::Clean));
        self.act("the end", |clients| clients.iter_mut().for_each(|c| c.client.close(c.now)));
        if let Some(said) = &mut self.said {
            assert_eq!(said.next(), None, "more was said");
        }
    }

    fn play_deadlock(&mut self) {
        let wants = |text: &str, (lease, _): (LeaseId, Token)| {
            let extras = Extras { holds: vec![lease], ..Extras::default() };
            Acquire { extras: Some(Box::new(extras)), ..acquire(text) }
        };
        self.act("each has one of two", |[a, b]| {
            a.ask_for(&acquire("left"));
            b.ask_for(&acquire("right"));
        });
        self.act("one waits for the other's", |[a, _]| a.ask_for(&wants("right", a.lease())));
        self.act("and the other for that one's", |[_, b]| b.ask_for(&wants("left", b.lease())));
        self.pass(700);
        self.act("the one that was told gives its own back", |[_, b]| {
            b.give_back(Predecessor::Clean);
        });
        self.act("the end", |clients| clients.iter_mut().for_each(|c| c.client.close(c.now)));
        if let Some(said) = &mut self.said {
            assert_eq!(said.next(), None, "more was said");
        }
    }

    fn act(&mut self, title: &str, act: impl FnOnce(&mut [Manager; 2])) {
        self.line(format!("# {title}"));
        if let Some(clients) = &mut self.clients {
            act(clients);
        }
        self.exchange();
    }

    /// Time passes at all of them, 100 ms and 100 ms again.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.line("# 100 ms".to_owned());
            self.reign.iter_mut().for_each(|reign| reign.pass(ms(100)));
            self.clients.iter_mut().flatten().for_each(|client| client.pass(ms(100)));
            self.exchange();
        }
    }

    fn cut(&mut self, client: usize) {
        self.line(format!("# the connection of client {client} breaks"));
        if let Some(clients) = &mut self.clients {
            clients[client].cut();
        }
        if let Some(reign) = &mut self.reign {
            reign.disconnect(Speaker { connection: self.newest[client], session: 0, count: 0 });
        }
        self.exchange();
    }

    /// Everything that is to be said is said.
    fn exchange(&mut self) {
        let before = self.lines.len();
        for client in [0, 1] {
            for line in self.said_by_client(client) {
                self.hear_client(client, &line);
                self.line(line);
            }
        }
        for client in [0, 1] {
            for line in self.said_by_leader(client) {
                if let Some(clients) = &mut self.clients {
                    clients[client].hear(read(&line));
                }
                self.line(line);
            }
        }
        if self.lines.len() > before {
            self.exchange();
        }
    }

    fn said_by_client(&mut self, number: usize) -> Vec<String> {
        let Some(clients) = &mut self.clients else { return self.as_said(&format!("{number}>")) };
        let client = &mut clients[number];
        client.drive();
        let mut lines = Vec::new();
        if !client.connects.is_empty() {
            client.connected();
            lines.push(format!("{number}> connection {}", client.connection.0));
        }
        let said = client.take_said();
        lines.extend(said.iter().map(|message| format!("{number}> {}", frame(message))));
        lines
    }

    fn hear_client(&mut self, number: usize, line: &str) {
        let Some(reign) = &mut self.reign else { return };
        let newest = &mut self.newest[number];
        match line.split_once("connection ") {
            Some((_, count)) => {
                *newest = ConnectionId(number as u64 * 100 + count.parse::<u64>().unwrap());
                reign.connect(newest.0);
            }
            None => reign.say(Speaker { connection: *newest, session: 0, count: 0 }, read(line)),
        }
    }

    fn said_by_leader(&mut self, number: usize) -> Vec<String> {
        let Some(reign) = &mut self.reign else { return self.as_said(&format!("{number}<")) };
        reign.drive();
        let is_its_own = |(at, _): &(ConnectionId, _)| at.0 / 100 == number as u64;
        let (own, others) = std::mem::take(&mut reign.heard).into_iter().partition(is_its_own);
        reign.heard = others;
        let own: Vec<(ConnectionId, LeaderMessage)> = own;
        own.iter().map(|(_, message)| format!("{number}< {}", frame(message))).collect()
    }

    /// The next lines that begin so.
    fn as_said(&mut self, begin: &str) -> Vec<String> {
        let said = self.said.as_mut().expect("a side is played by what was said");
        let mut rest = said.clone();
        let mut next = || rest.next_if(|line| line.starts_with(begin)).map(str::to_owned);
        std::iter::from_fn(&mut next).collect()
    }

    fn line(&mut self, line: String) {
        if let Some(said) = &mut self.said {
            let mut known = said.next().expect("no more was said");
            while self.reign.is_some() && line != known && is_place_of_granted(known, said.clone())
            {
                known = said.next().expect("it was granted later");
            }
            assert_eq!(line_as_able_as(&line, known), known, "after {:#?}", self.lines);
        }
        self.lines.push(line);
    }
}

impl Manager {
    fn ask_for(&mut self, acquire: &Acquire) {
        self.client.acquire(acquire.clone(), None, self.now);
    }

    /// The last request that was queued.
    fn asked(&self) -> RequestId {
        let queued = self.events.iter().rev().find_map(|event| match event {
            Event::Queued { request, .. } => Some(*request),
            _ => None,
        });
        queued.expect("it waits")
    }

    /// The last lease that was granted, and its token.
    fn lease(&self) -> (LeaseId, Token) {
        let granted = self.events.iter().rev().find_map(|event| match event {
            Event::Granted { lease, first, .. } => Some((*lease, *first)),
            _ => None,
        });
        granted.expect("it was granted a lease")
    }

    fn give_back(&mut self, how: Predecessor) {
        let (lease, token) = self.lease();
        self.client.release(lease, token, how, self.now);
    }
}

/// Whether this line tells a request its place that hears of its grant before anything else is said to
/// its client.
fn is_place_of_granted(line: &str, mut rest: Peekable<Lines<'static>>) -> bool {
    let Some((number, _)) = line.split_once("< ") else { return false };
    let LeaderMessage::Queued { request: queued, .. } = read(line) else { return false };
    let next = rest.find(|line| line.starts_with(number)).map(read);
    matches!(next, Some(LeaderMessage::Granted { request, .. }) if request == queued)
}

/// What a client says that can do more than its release of that time could, as if it could not.
fn line_as_able_as(line: &str, known: &str) -> String {
    let is_said_by_client = line.contains("> ") && !line.contains("connection");
    if !is_said_by_client || !known.contains("> ") {
        return line.to_owned();
    }
    let (mut own, known): (ClientMessage, ClientMessage) = (read(line), read(known));
    if let ClientMessage::Hello { capabilities, .. } = &mut own
        && let ClientMessage::Hello { capabilities: of_that_time, .. } = known
    {
        *capabilities &= of_that_time;
    }
    let (begin, _) = line.split_once(' ').unwrap();
    format!("{begin} {}", frame(&own))
}

fn frame<M: Message>(message: &M) -> String {
    let mut bytes = Vec::new();
    encode_frame(message, &mut bytes).unwrap();
    bytes::hex(&bytes)
}

fn read<M: Message + std::fmt::Debug>(line: &str) -> M {
    let (_, digits) = line.split_once(' ').unwrap();
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(digit).collect();
    let mut reader = FrameReader::new();
    reader.extend(&bytes);
    let message = reader.next().unwrap().and_then(Received::known).unwrap();
    assert_eq!(reader.buffered(), 0);
    message
}
