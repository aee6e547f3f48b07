//! What moves a member of a group: frames, time, what is durable, and what its leader asks.
//!
//! It waits for nothing. What it hands to the machine is everything that has come before the clock is
//! read, so that a heartbeat that has come is heard before its absence is noticed, however late it was. A
//! thread of its own sees to time and to the connections; what another thread puts in its mail that thread
//! acts on itself, as a rule.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    mail::{GroupAsk, GroupMail, GroupNews, NewMail, StoredNews, Told},
    peers::{GroupPeer, PeerNews},
    writer::DiskWriter,
};
use crate::{
    clock,
    host::net::{
        bell::{LONGEST_SLEEP, Slept, is_same},
        tls::Secret,
    },
    proto::{
        group::{
            AskAnswer, AskId, DiskRoom, GroupAnswer, GroupConfig, GroupMachine, GroupNotice,
            MemberName,
        },
        journal::{JournalAnswer, JournalTrouble},
    },
    time::Time,
};

/// A member's driver.
pub(super) struct GroupDriver {
    pub(super) machine: GroupMachine,
    config: GroupConfig,
    pub(super) peers: BTreeMap<MemberName, GroupPeer>,
    pub(super) disk: DiskWriter,
    pub(super) mail: Arc<GroupMail>,
    pub(super) secret: Secret,
    asked: BTreeMap<AskId, Asker>,
    last_ask: u64,
    /// For how long an operation's answer is waited for.
    patience: Duration,
    room: DiskRoom,
    /// Waits until another member leads the log.
    leaving: Vec<Told<()>>,
    /// What its thread sleeps on, and until when.
    slept_on: Vec<Slept>,
    sleeps_until: Instant,
}

/// A driver that several threads move in turn; none once it has ended.
pub(super) type SharedDriver = Mutex<Option<GroupDriver>>;

/// What takes an answer.
enum Asker {
    /// Until it is told, or gives up; what then still comes of it may matter.
    Journal {
        told: Option<Told<JournalAnswer>>,
        resigns: bool,
        until: Instant,
    },
    Group(Told<GroupAnswer>),
}

impl GroupDriver {
    pub(super) fn new(
        machine: GroupMachine,
        config: GroupConfig,
        peers: BTreeMap<MemberName, GroupPeer>,
        disk: DiskWriter,
        mail: Arc<GroupMail>,
        secret: Secret,
        patience: Duration,
    ) -> GroupDriver {
        GroupDriver {
            machine,
            config,
            peers,
            disk,
            mail,
            secret,
            asked: BTreeMap::new(),
            last_ask: 0,
            patience,
            room: DiskRoom::Plenty,
            leaving: Vec::new(),
            slept_on: Vec::new(),
            sleeps_until: Instant::now(),
        }
    }

    /// On its own thread: until it is told to end, or this member takes no part any more.
    pub(super) fn run(shared: &SharedDriver, mail: &GroupMail) {
        let mut sockets = Vec::new();
        while !mail.is_ending() && mail.failure().is_none() {
            let limit = match &mut *shared.lock() {
                Some(driver) => {
                    driver.turn();
                    driver.begin_to_sleep(&mut sockets)
                }
                None => break,
            };
            if limit > Duration::ZERO {
                mail.bell.sleep(&sockets, limit);
            }
        }
        // No other thread moves it from here on, and none but this one waits for its disk.
        let driver = shared.lock().take();
        let why = mail.failure();
        let trouble = why.map_or_else(
            || JournalTrouble::Unknown("this member ends".to_owned()),
            JournalTrouble::Failed,
        );
        if let Some(mut driver) = driver {
            driver.answer_all(&trouble);
        }
        // It answers what is asked of it from now on, and does nothing else, until it is told to end.
        while !mail.is_ending() {
            let trouble = JournalTrouble::Failed(mail.failure().unwrap_or_default());
            for ask in mail.take().asks {
                refuse(ask, &trouble);
            }
            mail.bell.sleep(&[], LONGEST_SLEEP);
        }
    }

    /// On any other thread: acts on what has come, if no other thread is about it. Whether it did.
    pub(super) fn act(shared: &Weak<SharedDriver>, mail: &GroupMail) -> bool {
        let Some(shared) = shared.upgrade() else { return false };
        let Some(mut driver) = shared.try_lock() else { return false };
        let Some(driver) = driver.as_mut() else { return false };
        let acted = catch_unwind(AssertUnwindSafe(|| {
            driver.turn();
            if driver.sleeps_too_long() {
                mail.bell.ring();
            }
        }));
        if acted.is_err() {
            mail.fail("the group's machine has failed (a panic)".to_owned());
        }
        acted.is_ok()
    }

    fn turn(&mut self) {
        let mut met = Vec::new();
        for (name, peer) in &mut self.peers {
            let news = peer.turn(&self.secret, &self.mail);
            met.extend(news.into_iter().map(|news| (name.clone(), news)));
        }
        let new = self.mail.take();
        // The clock is read after what it dates.
        let now = clock::now();
        for (peer, news) in met {
            self.machine.handle_peer(&peer, news == PeerNews::Connected, now);
        }
        self.hand_in(new, now);
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        self.take_out(now);
        self.give_up();
        for peer in self.peers.values_mut() {
            peer.transmit();
        }
    }

    fn hand_in(&mut self, new: NewMail, now: Time) {
        let NewMail { frames, stored, asks, looked_up, secret } = new;
        if let Some(secret) = secret {
            self.secret = secret;
        }
        for (name, found) in looked_up {
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.looked_up(found, &self.secret);
            }
        }
        for news in stored {
            match news {
                StoredNews::Durable(disk, write) if disk == self.config.disk => {
                    self.machine.handle_stored(write, now);
                }
                StoredNews::Durable(..) => {}
                StoredNews::Another(disk) => {
                    self.config.disk = disk;
                    self.machine = GroupMachine::new(self.config.clone(), None, now);
                    self.machine.handle_room(self.room, now);
                }
                StoredNews::Room(room) => {
                    self.room = room;
                    self.machine.handle_room(room, now);
                }
                StoredNews::Failed(error) => {
                    self.mail.fail(format!("the disk of this member cannot be written: {error}"));
                }
            }
        }
        for (from, frame) in frames {
            self.machine.handle_frame(&from, frame, now);
        }
        for ask in asks {
            self.last_ask += 1;
            let id = AskId(self.last_ask);
            match ask {
                GroupAsk::Operation(operation, told) => {
                    let resigns =
                        matches!(operation, crate::proto::journal::JournalOperation::Resign(_));
                    let until = Instant::now() + self.patience;
                    self.asked.insert(id, Asker::Journal { told: Some(told), resigns, until });
                    self.machine.handle_operation(id, operation, now);
                }
                GroupAsk::Replace(member, told) => {
                    self.asked.insert(id, Asker::Group(told));
                    self.machine.handle_replace(id, member, now);
                }
                GroupAsk::Standing(told) => told(Some(self.machine.standing())),
                GroupAsk::Leave(told) => {
                    self.machine.handle_transfer(now);
                    self.leaving.push(told);
                }
            }
        }
    }

    /// Until the machine has nothing more: an answer may bring a transfer, and that frames.
    fn take_out(&mut self, now: Time) {
        loop {
            while let Some((id, write)) = self.machine.poll_write() {
                self.disk.write(self.config.disk, id, write);
            }
            while let Some((to, frame)) = self.machine.poll_frame() {
                if let Some(peer) = self.peers.get_mut(&to) {
                    peer.send(&frame);
                }
            }
            self.mail.show_head(self.machine.head());
            let mut is_resigned = false;
            while let Some((id, answer)) = self.machine.poll_answer() {
                match (self.asked.remove(&id), answer) {
                    (Some(Asker::Journal { told, resigns, .. }), AskAnswer::Journal(answer)) => {
                        is_resigned |= resigns && answer == JournalAnswer::Resigned;
                        if let Some(told) = told {
                            told(answer);
                        }
                    }
                    (Some(Asker::Group(told)), AskAnswer::Group(answer)) => told(answer),
                    _ => {}
                }
            }
            while let Some(notice) = self.machine.poll_notice() {
                self.note(notice);
            }
            if !is_resigned {
                break;
            }
            // The member that takes the log's lead finds a journal without a reign.
            self.machine.handle_transfer(now);
        }
        if !self.leaving.is_empty() && self.has_left() {
            self.leaving.drain(..).for_each(|told| told(()));
        }
    }

    /// What was asked for long ago is *unknown* from here on.
    fn give_up(&mut self) {
        let now = Instant::now();
        for asker in self.asked.values_mut() {
            if let Asker::Journal { told, until, .. } = asker
                && *until <= now
                && let Some(told) = told.take()
            {
                let text = format!(
                    "no majority of the group has confirmed it within {:.1?}",
                    self.patience
                );
                told(JournalAnswer::Trouble(JournalTrouble::Unknown(text)));
            }
        }
    }

    fn has_left(&self) -> bool {
        let standing = self.machine.standing();
        standing.leader.as_ref() != Some(&self.config.own)
    }

    fn note(&self, notice: GroupNotice) {
        if let GroupNotice::OwnDiskPutBack { .. } = notice {
            // The machine takes no part from here on. What waits for its writes is answered by now.
            self.disk.become_another();
        }
        match in_words(&self.config.own, notice) {
            NoticeWords::Note(text) => self.mail.tell(GroupNews::Note(text)),
            NoticeWords::Alarm(text) => self.mail.tell(GroupNews::Alarm(text)),
            NoticeWords::StepsAside => self.mail.tell(GroupNews::StepsAside),
            NoticeWords::ReignChanged => self.mail.tell(GroupNews::ReignChanged),
            NoticeWords::End(text) => self.mail.fail(text),
        }
    }

    fn answer_all(&mut self, trouble: &JournalTrouble) {
        for (_, asker) in std::mem::take(&mut self.asked) {
            match asker {
                Asker::Journal { told, .. } => {
                    if let Some(told) = told {
                        told(JournalAnswer::Trouble(trouble.clone()));
                    }
                }
                Asker::Group(told) => told(GroupAnswer::Unknown(words_of(trouble))),
            }
        }
        self.leaving.drain(..).for_each(|told| told(()));
        for ask in self.mail.take().asks {
            refuse(ask, trouble);
        }
    }

    /// For how long its thread may sleep, and on what.
    fn begin_to_sleep(&mut self, sockets: &mut Vec<Slept>) -> Duration {
        let limit = self.limit();
        self.slept_on.clear();
        self.slept_on.extend(self.peers.values().filter_map(GroupPeer::socket));
        sockets.clone_from(&self.slept_on);
        self.sleeps_until = Instant::now() + limit;
        limit
    }

    /// Whether its thread has to look again, since another has changed what it sleeps for.
    fn sleeps_too_long(&mut self) -> bool {
        let sockets: Vec<_> = self.peers.values().filter_map(GroupPeer::socket).collect();
        Instant::now() + self.limit() < self.sleeps_until || !is_same(&sockets, &self.slept_on)
    }

    fn limit(&mut self) -> Duration {
        let mut limit = LONGEST_SLEEP;
        if let Some(at) = self.machine.poll_timeout() {
            limit = limit.min(at.since(clock::now()));
        }
        let peers = self.peers.values_mut().filter_map(GroupPeer::due);
        let asked = self.asked.values().filter_map(|asker| match asker {
            Asker::Journal { told: Some(_), until, .. } => Some(*until),
            _ => None,
        });
        let due = peers.chain(asked).min();
        due.map_or(limit, |at| limit.min(at.saturating_duration_since(Instant::now())))
    }
}

fn refuse(ask: GroupAsk, trouble: &JournalTrouble) {
    match ask {
        GroupAsk::Operation(_, told) => told(JournalAnswer::Trouble(trouble.clone())),
        GroupAsk::Replace(_, told) => told(GroupAnswer::Unknown(words_of(trouble))),
        GroupAsk::Standing(told) => told(None),
        GroupAsk::Leave(told) => told(()),
    }
}

fn words_of(trouble: &JournalTrouble) -> String {
    let (JournalTrouble::Unknown(text) | JournalTrouble::Failed(text)) = trouble;
    text.clone()
}

/// What an operator reads of a notice.
enum NoticeWords {
    Note(String),
    Alarm(String),
    /// Nothing, but of what the leader does then.
    StepsAside,
    ReignChanged,
    /// This member takes no part any more.
    End(String),
}

fn in_words(own: &MemberName, notice: GroupNotice) -> NoticeWords {
    match notice {
        GroupNotice::Made { cluster } => NoticeWords::Note(format!(
            "the group is made: all members have met (cluster {:032x})",
            cluster.0
        )),
        GroupNotice::Leads { term } => {
            NoticeWords::Note(format!("it leads the group's log, in term {term}"))
        }
        GroupNotice::Follows { leader } => {
            NoticeWords::Note(format!("{leader} leads the group's log"))
        }
        GroupNotice::Leaderless => {
            NoticeWords::Note("no member is heard of that leads the group's log".to_owned())
        }
        GroupNotice::Quiet => NoticeWords::Note(
            "it leads the group's log, and no majority of the members answers it".to_owned(),
        ),
        GroupNotice::StepsAside => NoticeWords::StepsAside,
        GroupNotice::ReignChanged => NoticeWords::ReignChanged,
        GroupNotice::OwnDiskWaits { cluster } => NoticeWords::Note(format!(
            "its disk is new to the group (cluster {:032x}), and has no part in it until it is admitted: \
             tierlock replace {own} --leader …",
            cluster.0
        )),
        GroupNotice::DiskWaits { member, .. } => NoticeWords::Note(format!(
            "{member} has a disk that the group does not know: tierlock replace {member} --leader … admits \
             it, if its old one is lost"
        )),
        GroupNotice::Replaced { member, .. } => NoticeWords::Note(format!(
            "the new disk of {member} is in the group, and has a vote once it has caught up"
        )),
        GroupNotice::Admitted { member, .. } => {
            NoticeWords::Note(format!("the new disk of {member} has caught up, and has a vote"))
        }
        GroupNotice::DiskOfAnother { member } => NoticeWords::Alarm(format!(
            "ALARM: the disk of this member is that of {member}: its state directory and --member do not \
             belong together, or it runs on a copy"
        )),
        GroupNotice::OwnDiskPutBack { had, has } => NoticeWords::Alarm(format!(
            "ALARM: the disk of this member has less than it has confirmed to the others (entry {} in term {}, \
             after entry {} in term {}): it was put back to an earlier state. It has no part in the group any \
             more; its log is kept as group.put-back, and the member begins anew with an empty one, which \
             waits to be admitted: tierlock replace {own} --leader …",
            has.1, has.0, had.1, had.0
        )),
        GroupNotice::OtherCluster { member, cluster } => NoticeWords::Alarm(format!(
            "ALARM: {member} is of another group (cluster {:032x}): the addresses of two groups are mixed \
             up, or it was made anew",
            cluster.0
        )),
        GroupNotice::Failed(text) => NoticeWords::End(text),
    }
}
