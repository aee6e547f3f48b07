//! The thread of a leader: it serves all connections, and asks the journal for what is due.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, atomic::Ordering::*},
    thread,
    time::{Duration, Instant},
};

#[cfg(feature = "cli")]
use super::window::{LeaderHealth, LeaderView, TurnTally, ViewRequest};
use super::{
    LeaderEvent, LeaderEventKind, LeaderShared, ReignEnd,
    doors::Doors,
    lanes::{LaneAnswer, Lanes},
    members::Membership,
    stepping::StepDownCaller,
    teller::EventSource,
};
#[cfg(feature = "cli")]
use crate::proto::leader::LeaderMachine;
use crate::{
    clock,
    error::LockErrorKind,
    host::net::{
        bell::{LONGEST_SLEEP, Slept},
        quic::{CloseCode, PortEvent},
    },
    printable::Printable,
    proto::{
        ConnectionId,
        journal::{JournalAnswer, JournalTrouble, ReignKey},
        leader::{Close, LeaderTells, Notice},
        reign::ReignEnding,
        successor::{SuccessionNotice, Successor, SuccessorTurn},
        wire::ClientMessage,
    },
    time::Time,
};

/// The leader's thread.
pub(super) struct Court {
    pub(super) successor: Successor,
    pub(super) doors: Doors,
    pub(super) lanes: Lanes,
    /// Connections that may have messages to be read, and whether they have ended meanwhile.
    pub(super) unread: BTreeMap<ConnectionId, bool>,
    /// The same connections, in the order in which they came to have something.
    pub(super) arrived: Vec<ConnectionId>,
    /// The sockets, as it slept on them last.
    pub(super) slept_on: Vec<Slept>,
    pub(super) shared: Arc<LeaderShared>,
    /// Its part in a group that keeps the journal.
    pub(super) group: Option<Membership>,
    /// It leaves the group, and ends.
    pub(super) is_leaving: bool,
    /// Callers that wait until it has stepped down.
    stepping: Vec<StepDownCaller>,
    /// It hands over what its leaders tell.
    tells_events: bool,
    /// What it counts of itself, if it does.
    #[cfg(feature = "cli")]
    pub(super) counted: Option<Box<TurnTally>>,
    /// The reign of another that its operator was told of, and what the journal's trouble was last.
    told: Option<ReignKey>,
    trouble: Option<String>,
}

/// How many messages of one connection are read before others have their turn.
pub(super) const MESSAGES_PER_TURN: usize = 256;

/// A connection with so much to be sent is not read until its peer has read some of it: a client
/// that asks for more than it reads fills its own buffers, and not the leader's memory.
pub(super) const UNSENT_BYTES_READING: usize = 64 << 10;

const LET_IN: &str = "at one time it is either let in or not";

impl Court {
    /// It serves no client before it runs.
    pub(super) fn new(
        successor: Successor,
        doors: Doors,
        lanes: Lanes,
        shared: Arc<LeaderShared>,
        group: Option<Membership>,
        tells: LeaderTells,
    ) -> Court {
        Court {
            tells_events: tells.events,
            #[cfg(feature = "cli")]
            counted: tells.counts.then(Box::default),
            successor,
            doors,
            lanes,
            unread: BTreeMap::new(),
            arrived: Vec::new(),
            slept_on: Vec::new(),
            shared,
            group,
            is_leaving: false,
            stepping: Vec::new(),
            told: None,
            trouble: None,
        }
    }

    pub(super) fn run(mut self) {
        // However this ends, a thread that waits for the end learns of it.
        let _report = EndReport(self.shared.clone());
        let end = loop {
            if let Some(end) = self.turn() {
                break end;
            }
            self.sleep();
        };
        if let ReignEnd::Stopped = end {
            self.leave_group();
            // What is written now is on the disk before the state directory is free.
            self.begin_to_stop();
            self.ask_journal();
        }
        // Answers that are on their way come before the close.
        self.doors.transmit();
        let reason = match &end {
            ReignEnd::Stopped => "the leader was stopped",
            ReignEnd::Failed(_, text) => text,
        };
        self.doors.close_all(CloseCode::Shutdown, reason);
        self.doors.transmit();
        // No client may send to a port without a leader behind it: the bell drops its sockets, too.
        self.slept_on.clear();
        self.shared.bell.sleep(&[], Duration::ZERO);
        if let ReignEnd::Stopped = end {
            self.finish_writing();
        }
        // The state directory is free once a waiting thread hears of the end.
        let shared = self.shared.clone();
        drop(self);
        shared.end(end);
    }

    /// Looks at everything once; the end, if that is it.
    pub(super) fn turn(&mut self) -> Option<ReignEnd> {
        // The clock that what arrives is dated by is read later.
        #[cfg(feature = "cli")]
        let began = self.counted.is_some().then(clock::now);
        self.take_reloaded();
        self.doors.receive();
        self.serve_members();
        let answers: Vec<_> = std::iter::from_fn(|| self.lanes.poll()).collect();
        let has_changed = self.shared.is_to_look.swap(false, AcqRel);
        // The clock is read after what it dates.
        let now = clock::now();
        let mut end = self.shared.stop.load(Acquire).then_some(ReignEnd::Stopped);
        for answer in answers {
            self.hear_journal(answer, now);
        }
        if has_changed {
            self.successor.look_at_journal(now);
        }
        self.successor.handle_timeout(now);
        if self.successor.poll_sweep() {
            self.hang_up();
        }
        while let Some(notice) = self.successor.poll_succession() {
            self.note(&notice);
            self.tell_stepping(&notice);
            if let Some(text) = failure(notice) {
                let is_exclusive = self.successor.reign().terms().is_exclusive;
                let text = if is_exclusive { storage_text(&text) } else { store_text(&text) };
                end = Some(ReignEnd::Failed(LockErrorKind::Io, text));
            }
        }
        self.note_other_reign();
        self.hand_over_news(now);
        self.step_down_if_asked(now);
        self.pass_on();
        while let Some((id, close)) = self.successor.poll_close() {
            self.close(id, close);
        }
        self.ask_journal();
        while let Some(notice) = self.successor.poll_notice() {
            self.sound_alarm(notice);
        }
        self.doors.transmit();
        if self.tells_events {
            for event in self.successor.take_events() {
                let source = EventSource::Kind(LeaderEvent::kind_of(&event));
                self.shared.teller.tell_if_wanted(source, || LeaderEvent::of(event));
            }
            self.shared.teller.look();
        }
        #[cfg(feature = "cli")]
        {
            self.answer_looks(now);
            if let (Some(counted), Some(began)) = (&mut self.counted, began) {
                counted.turns.add(clock::now().since(began));
            }
        }
        end
    }

    /// What its program has read anew: secrets, and the credentials that it accepts.
    fn take_reloaded(&mut self) {
        if let Some(accepted) = self.shared.accepted_anew.lock().take() {
            self.doors.accept(&accepted);
        }
        if let Some(secret) = self.shared.new_secret.lock().take() {
            let notary = Arc::new(secret.notary());
            self.successor.config_mut().notary = notary.clone();
            if let Some(leader) = self.successor.leader_mut() {
                leader.change_notary(notary);
            }
            if let Some(group) = &self.group {
                group.journal.change_secret(&secret);
            }
        }
    }

    /// The journal has answered, before `now` was read.
    fn hear_journal(&mut self, answer: LaneAnswer, now: Time) {
        self.time_journal(&answer);
        let LaneAnswer { id, answer, .. } = answer;
        match &answer {
            JournalAnswer::Trouble(JournalTrouble::Unknown(text)) => {
                self.trouble = Some(text.clone());
            }
            JournalAnswer::Renewal(_) => self.trouble = None,
            _ => {}
        }
        self.successor.handle_answer(id, answer, now);
    }

    /// Closes a connection, and tells its client why.
    fn close(&mut self, id: ConnectionId, close: Close) {
        match close {
            Close::Superseded => {
                self.doors.close(id, CloseCode::Superseded, "a newer connection took over");
            }
            Close::Protocol(what) => self.doors.close(id, CloseCode::Protocol, what),
            Close::Ended => self.doors.close(id, CloseCode::Done, "goodbye"),
            Close::Crowded => {
                let reason = "too many clients report at once what they hold and wait for; \
                              let it report again";
                self.doors.close(id, CloseCode::Busy, reason);
            }
            Close::NotLeader => {
                // What it is told comes before the close.
                self.doors.transmit();
                self.doors.close(id, CloseCode::Shutdown, "another leader reigns");
            }
            Close::NotPermitted => {
                let reason = "its credential is not for what it reports";
                self.doors.close(id, CloseCode::Unaccepted, reason);
            }
            Close::Unconfirmed => {
                let reason = "it reported locks that it cannot have; let it report again";
                self.doors.close(id, CloseCode::Superseded, reason);
            }
        }
    }

    /// Tells the operator of what should not happen.
    fn sound_alarm(&self, notice: Notice) {
        match notice {
            Notice::Conflict { name, winner, loser } => {
                let text = format!(
                    "ALARM: two sessions reported after a restart that they hold {}; the one \
                     with token {winner} keeps it, the one with token {loser} has lost it. Either \
                     this leader's state directory was restored from a copy, or there is a bug",
                    Printable(name.as_str())
                );
                self.shared.sound_about(text, Some((name, loser)));
            }
            Notice::NotAskedFor { name, token } => {
                let text = format!(
                    "ALARM: a session reported after a change of reign that it holds {} with token \
                     {token}, and this leader's journal knows that it never asked for that; it has \
                     lost it. Either the journal was restored from a copy, or there is a bug",
                    Printable(name.as_str())
                );
                self.shared.sound_about(text, Some((name, token)));
            }
            Notice::OtherHistory { seen, own, pauses, takes } => {
                self.shared.sound(other_history(seen, own, pauses, takes));
            }
        }
    }

    /// Shows itself to the threads that have asked.
    #[cfg(feature = "cli")]
    fn answer_looks(&self, now: Time) {
        for request in self.shared.looks.take() {
            let leader = self.successor.leader();
            let health = LeaderHealth {
                standing: self.successor.standing(now),
                has_proof: self.successor.reign().has_proof(now),
                in_grace: leader.is_some_and(LeaderMachine::is_in_grace),
            };
            let (locks, answer) = match request {
                ViewRequest::Health(answer) => {
                    answer(health);
                    continue;
                }
                ViewRequest::View(locks, answer) => (locks, answer),
            };
            let tally = self.successor.tally().cloned().unwrap_or_default();
            let longest = leader.filter(|_| locks == 0).map(LeaderMachine::longest_queue);
            answer(LeaderView {
                health,
                counts: leader.map(LeaderMachine::counts),
                longest_queue: longest.unwrap_or_default(),
                minute: tally.minute.seconds(now).collect(),
                tally,
                turns: self.counted.as_deref().cloned().unwrap_or_default(),
                locks: leader.filter(|_| locks > 0).map(|leader| leader.survey(locks)),
            });
        }
    }

    /// Counts how long the journal took, and tells if that was long.
    fn time_journal(&mut self, answer: &LaneAnswer) {
        let LaneAnswer { answer, operation, took, .. } = answer;
        let lasts = self.successor.reign().lasts();
        if self.tells_events && *took >= lasts.map_or(JOURNAL_SLOW, |lasts| lasts / 4) {
            self.shared.teller.tell(LeaderEvent::journal_slow(operation, *took));
        }
        #[cfg(feature = "cli")]
        if let Some(counted) = &mut self.counted {
            counted.journal.entry(operation).or_default().add(*took);
            counted.journal_troubles += u64::from(matches!(answer, JournalAnswer::Trouble(_)));
        }
        #[cfg(not(feature = "cli"))]
        let _ = answer;
    }

    /// Tells the operator of a change of reign, and its reason.
    fn note(&mut self, notice: &SuccessionNotice) {
        let trouble = self.trouble.as_deref().map_or_else(String::new, |text| format!(" ({text})"));
        let mut its_epoch = None;
        let text = match notice {
            SuccessionNotice::Reigns { epoch } => {
                (self.told, its_epoch) = (None, Some(*epoch));
                format!("it reigns from now on, in epoch {epoch}")
            }
            SuccessionNotice::Ended(ReignEnding::Deposed) => {
                "its reign is over: another leader has taken over".to_owned()
            }
            SuccessionNotice::Ended(ReignEnding::Unproven) => format!(
                "its reign is over: the journal has not confirmed it for so long that another leader \
                 may have taken over{trouble}"
            ),
            SuccessionNotice::HandsOver => {
                "it was asked to step down, and hands its reign over".to_owned()
            }
            // It says so itself, when its program is about to end.
            SuccessionNotice::HandedOver if self.is_leaving => return,
            SuccessionNotice::HandedOver => {
                self.told = None;
                "it has handed its reign over, and stands by".to_owned()
            }
            SuccessionNotice::Ended(_) => return, // the end says it
        };
        self.shared.note(text, its_epoch);
    }

    /// While it stands by it tells which reign it has read of.
    fn note_other_reign(&mut self) {
        let reign = self.successor.reign();
        if reign.terms().is_exclusive || reign.reigning().is_some() || reign.is_over() {
            return;
        }
        let Some(head) = reign.head() else { return };
        let Some(other) = head.reign.filter(|other| self.told != Some(*other)) else { return };
        let at = head.address.as_deref().unwrap_or("another leader");
        let text = format!("it stands by: {at} reigns, in epoch {}", head.epoch);
        let epoch = head.epoch;
        self.told = Some(other);
        self.shared.note(text, Some(epoch));
    }

    /// Hands over what has arrived, if the reign is proven now; else it is kept.
    fn hand_over_news(&mut self, now: Time) {
        if self.successor.turn(now).is_none() {
            return;
        }
        // What follows from the journal's answers is said before anything else is read.
        self.pass_on();
        let mut turn = self.successor.turn(now).expect(LET_IN);
        while let Some(event) = self.doors.poll_event() {
            match event {
                PortEvent::TurnedAway(client, why) => {
                    #[cfg(feature = "cli")]
                    if let Some(counted) = &mut self.counted {
                        counted.count_turned_away(why);
                    }
                    let event = || LeaderEvent::turned_away(client, why);
                    self.shared.teller.tell_if_wanted(EventSource::Unauthenticated, event);
                }
                PortEvent::Unaccepted(client, why) => {
                    let source = EventSource::Kind(LeaderEventKind::SessionRefused);
                    let event = || LeaderEvent::unaccepted(client, why);
                    self.shared.teller.tell_if_wanted(source, event);
                }
                PortEvent::Connected(id, client) => turn.handle_connected(id, client),
                PortEvent::Readable(id) => {
                    mark_unread(&mut self.unread, &mut self.arrived, id);
                }
                PortEvent::Ended(id, _) => {
                    *mark_unread(&mut self.unread, &mut self.arrived, id) = true
                }
            }
        }
        for id in mem::take(&mut self.arrived) {
            self.read_some(id, now);
            if self.unread.contains_key(&id) {
                self.arrived.push(id);
            }
        }
        if let Some(mut turn) = self.successor.turn(now) {
            turn.handle_timeout();
        }
    }

    /// Asks the journal for what is due.
    fn ask_journal(&mut self) {
        while let Some((id, operation)) = self.successor.poll_operation(clock::now()) {
            if let Some(answer) = self.lanes.send(id, operation) {
                self.hear_journal(answer, clock::now());
            }
        }
    }

    /// A leader that has its journal for itself writes what is left; another hands over.
    fn begin_to_stop(&mut self) {
        let now = clock::now();
        if !self.successor.reign().terms().is_exclusive {
            self.successor.hand_over(now);
        } else if let Some(leader) = self.successor.leader_mut() {
            leader.handle_stop(now);
        }
    }

    /// What was to be written is written, and the reign is handed over.
    fn finish_writing(&mut self) {
        let hands_over = self.successor.is_handing_over();
        while self.successor.reign().is_writing() || self.successor.is_handing_over() {
            match self.lanes.wait(LONGEST_SLEEP) {
                Some(LaneAnswer { id, answer, .. }) => {
                    self.successor.handle_answer(id, answer, clock::now());
                }
                None => self.successor.handle_timeout(clock::now()),
            }
            self.ask_journal();
        }
        if hands_over {
            self.shared.note("it has handed its reign over".to_owned(), None);
        }
    }

    /// Another reign begins: what was said on the connections that there are counts for nothing in it.
    fn hang_up(&mut self) {
        // What members say is of no reign.
        self.doors.close_clients(CloseCode::Shutdown, "another reign begins");
        while let Some(event) = self.doors.poll_event() {
            if let PortEvent::Ended(id, _) = event {
                self.doors.forget(id);
            }
        }
        for (id, _) in mem::take(&mut self.unread) {
            self.doors.forget(id);
        }
        self.arrived.clear();
    }

    /// Reads a connection as far as its turn and its peer's own reading allow. Its end comes
    /// after all that it said.
    fn read_some(&mut self, id: ConnectionId, now: Time) {
        for _ in 0..MESSAGES_PER_TURN {
            if !self.may_read(id) {
                return;
            }
            let Some(message) = self.doors.read::<ClientMessage>(id) else {
                if self.unread.remove(&id) == Some(true) {
                    self.turn_at(now).handle_disconnected(id);
                    self.doors.forget(id);
                }
                return;
            };
            let Some(message) = self.turn_at(now).permit(id, message) else {
                self.pass_on();
                continue;
            };
            if !self.answers_about_group(id, &message) {
                self.turn_at(now).handle_permitted(id, message);
                self.pass_on();
            }
        }
    }

    /// Within a turn, which was let in at this time.
    fn turn_at(&mut self, now: Time) -> SuccessorTurn<'_> {
        self.successor.turn(now).expect(LET_IN)
    }

    pub(super) fn may_read(&self, id: ConnectionId) -> bool {
        self.doors.unsent(id) < UNSENT_BYTES_READING
    }

    fn pass_on(&mut self) {
        while let Some((id, message)) = self.successor.poll_message() {
            self.doors.write(id, &message);
        }
    }

    pub(super) fn sleep(&mut self) {
        // A connection that waits for its peer to read is woken by that.
        let is_let_in = !self.successor.is_frozen();
        if is_let_in && self.unread.keys().any(|id| self.may_read(*id)) {
            return;
        }
        let mut limit = LONGEST_SLEEP;
        if let Some(at) = self.successor.poll_timeout() {
            limit = limit.min(at.since(clock::now()));
        }
        if let Some(at) = self.doors.timeout() {
            limit = limit.min(at.saturating_duration_since(Instant::now()));
        }
        self.doors.sockets(&mut self.slept_on);
        let Court { shared, slept_on, doors, .. } = self;
        shared.bell.sleep_or_hear(slept_on, limit, || doors.hear());
    }
}

// Callers of its own process that have it step down.
impl Court {
    /// Hears the callers of its own process, and steps down if it was asked to.
    fn step_down_if_asked(&mut self, now: Time) {
        let asked = self.shared.step_downs.take();
        if !asked.is_empty() {
            let is_on_its_way = self.successor.is_handing_over();
            match self.successor.ask_to_step_down().filter(|_| !is_on_its_way) {
                // A caller that is gone needs no answer.
                Some(refusal) => {
                    for caller in asked {
                        let _ = caller.send(Some(refusal));
                    }
                }
                None => self.stepping.extend(asked),
            }
        }
        self.successor.step_down_if_asked(now);
    }

    /// Tells the callers that wait for it, if its reign is over.
    fn tell_stepping(&mut self, notice: &SuccessionNotice) {
        let stands_by = match notice {
            SuccessionNotice::HandedOver => true,
            SuccessionNotice::Ended(ReignEnding::Deposed | ReignEnding::Unproven) => true,
            // It has ended, as callers that hear no more are told.
            SuccessionNotice::Ended(_) => false,
            SuccessionNotice::Reigns { .. } | SuccessionNotice::HandsOver => return,
        };
        for caller in self.stepping.drain(..).filter(|_| stands_by) {
            let _ = caller.send(None);
        }
    }
}

/// A journal that no other leader can have is slow from here on: a healthy disk never takes so long. One
/// that others can have is so from a quarter of L on.
const JOURNAL_SLOW: Duration = Duration::from_millis(250);

/// Has it read after those from which something came before; whether it has ended since.
fn mark_unread<'a>(
    unread: &'a mut BTreeMap<ConnectionId, bool>,
    arrived: &mut Vec<ConnectionId>,
    id: ConnectionId,
) -> &'a mut bool {
    unread.entry(id).or_insert_with(|| {
        arrived.push(id);
        false
    })
}

/// What an operator is told when a client has seen another history of the cluster.
fn other_history(seen: u32, own: u32, pauses: Duration, takes: Option<u32>) -> String {
    let pause = match pauses.is_zero() {
        true => "It goes on serving all others".to_owned(),
        false => format!("It grants nothing new for {:.0} s", pauses.as_secs_f64().ceil()),
    };
    let then = match takes {
        Some(takes) => format!("then it takes epoch {takes}, and serves that client too"),
        None => format!(
            "that client is served in some days, when the epoch is above, or at once after a start \
             with --epoch-above {}",
            seen.max(own)
        ),
    };
    format!(
        "ALARM: a client has seen epoch {seen} of this leader's cluster in a reign that this leader, \
         in epoch {own}, does not know: one of two leaders runs on a copy of the other's state, or \
         this state was restored from a copy, and both may grant one lock. {pause}; {then}. Stop \
         whichever of them is not wanted"
    )
}

/// Says that the leader is gone, if nothing better was said: it panicked.
struct EndReport(Arc<LeaderShared>);

impl Drop for EndReport {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = "the leader stopped because of an error in its program (a panic)";
            self.0.end(ReignEnd::Failed(LockErrorKind::Io, text.to_owned()));
        }
    }
}

/// Why it takes no part in the succession any more, if that is the news.
pub(super) fn failure(notice: SuccessionNotice) -> Option<String> {
    let SuccessionNotice::Ended(ending) = notice else { return None };
    match ending {
        ReignEnding::Failed(text) => Some(text),
        ReignEnding::Restored => Some(
            "it was restored from a copy, or has lost what was written; start every leader of it \
             with --epoch-above"
                .to_owned(),
        ),
        ReignEnding::EpochsUsedUp => Some("its epochs are used up".to_owned()),
        ReignEnding::Deposed | ReignEnding::Unproven => None,
    }
}

pub(super) fn storage_text(error: &str) -> String {
    format!("the leader stopped, since its state directory cannot be written: {error}")
}

fn store_text(error: &str) -> String {
    format!("the leader stopped, since its journal is of no use to it: {error}")
}
