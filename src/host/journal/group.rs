//! The journal that a group of three or five leaders keeps itself.
//!
//! What the group does says `proto::group`, which is pure; here is what moves it in a process.
//!
//! | file | owns |
//! |---|---|
//! | `addresses` | the members as an operator writes them |
//! | `frames` `disk` `writer` | a member's disk: its file, and the thread that writes it |
//! | `peers` | connections to the other members |
//! | `mail` | what reaches the driver from other threads |
//! | `driver` | the thread that moves the machine |
//!
//! What other members say arrives at the leader's own endpoint, on connections that speak the group's
//! protocol; the leader's thread hands it in by a [`MemberDoor`].

mod addresses;
mod disk;
mod driver;
mod frames;
mod mail;
mod peers;
mod writer;

use std::{
    collections::BTreeMap,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

pub(in crate::host) use self::{
    addresses::GroupAddresses,
    mail::{GroupNews, TellNews},
};
use self::{
    disk::GroupDisk,
    driver::{GroupDriver, SharedDriver},
    mail::{GroupAsk, GroupMail},
    peers::GroupPeer,
    writer::DiskWriter,
};
use super::file::{EnteredDirectory, is_used};
use crate::{
    clock,
    error::{LockError, LockErrorKind, Result},
    host::{net::tls::Secret, random},
    proto::{
        ClusterId,
        group::{
            GROUP_TERMS, GroupAnswer, GroupConfig, GroupFrame, GroupMachine, GroupStanding,
            MemberName,
        },
        journal::{
            Appended, JournalAnswer, JournalHead, JournalOperation, JournalTerms, JournalTold,
            JournalTrouble, PromptJournal, ReignAttempt, ReignJournal, ReignKey, ReignRenewal,
            TakeOver,
        },
        record::Record,
        wire::{DiskReplacement, GroupReport, MEMBER_VERSION_OLDEST, MemberMessage, MemberReport},
    },
};

/// How a member is to be started.
pub(in crate::host) struct GroupOpening {
    pub(in crate::host) addresses: GroupAddresses,
    pub(in crate::host) own: MemberName,
    pub(in crate::host) secret: Secret,
    /// For how long a reign is believed: an operation is given up after half of that.
    pub(in crate::host) lasts: Duration,
    pub(in crate::host) tell: TellNews,
}

/// The journal of a group, at one of its members.
pub(in crate::host) struct GroupJournal {
    addresses: GroupAddresses,
    own: MemberName,
    mail: Arc<GroupMail>,
    driver: Option<JoinHandle<()>>,
    /// The directory's lock, until nothing writes there any more.
    _lock: std::fs::File,
}

impl GroupJournal {
    /// Starts the member that has this state directory.
    ///
    /// # Errors
    ///
    /// `Config` if the disk is to be made and is, or is a copy; `Damaged` if it is not what it should be;
    /// `Io`.
    pub(in crate::host) fn start(
        entered: EnteredDirectory,
        opening: GroupOpening,
    ) -> Result<GroupJournal> {
        let EnteredDirectory { directory, opening: place, lock } = entered;
        let there = disk::is_there(&directory).map_err(failed("cannot look for the log"))?;
        let (disk, stored) = match there {
            true => GroupDisk::open(&directory, place.epoch_above.is_some())?,
            false if is_used(&directory) => {
                return Err(LockError::new(
                    LockErrorKind::Damaged,
                    format!(
                        "the log of the state directory {} is missing, though the directory was used before: \
                         empty it, start once with --init, and have its disk admitted by tierlock replace",
                        directory.display()
                    ),
                ));
            }
            false => (GroupDisk::make(&directory)?, None),
        };
        if place.init && stored.as_ref().is_some_and(disk::is_made) {
            return Err(LockError::config(format!(
                "the disk in the state directory {} is made, and in its group; start without --init, which is \
                 for a member's first start only",
                directory.display()
            )));
        }
        let GroupOpening { addresses, own, secret, lasts, tell } = opening;
        let members = addresses.iter().map(|(name, _)| name.clone()).collect();
        let config = GroupConfig {
            init: place.init,
            seed: random() as u64,
            cluster: ClusterId(random()),
            // Where a reign may last long without a proof, the machine may be slow: a member that is late
            // by less than that is no reason for an election, which would end the reign.
            heartbeat: lasts / 8,
            election_min: lasts * 3 / 8,
            election_max: lasts * 3 / 4,
            ..GroupConfig::new(own.clone(), disk.id(), members)
        };
        let mail = Arc::new(GroupMail::new(tell).map_err(failed("cannot make a pipe"))?);
        let writer = DiskWriter::start(disk, mail.clone());
        let writer = writer.map_err(failed("cannot start a thread"))?;
        let others = addresses.iter().filter(|(name, _)| **name != own);
        let peers: BTreeMap<_, _> = others
            .map(|(name, address)| (name.clone(), GroupPeer::new(&own, name, address)))
            .collect();
        let machine = GroupMachine::new(config.clone(), stored, clock::now());
        let driver = GroupDriver::new(
            machine,
            config,
            peers,
            writer,
            mail.clone(),
            secret.clone(),
            lasts / 2,
        );
        let driver: Arc<SharedDriver> = Arc::new(Mutex::new(Some(driver)));
        mail.begin(Box::new({
            let (driver, mail) = (Arc::downgrade(&driver), Arc::downgrade(&mail));
            move || mail.upgrade().is_some_and(|mail| GroupDriver::act(&driver, &mail))
        }));
        let thread = thread::Builder::new().name("tierlock-group".into()).spawn({
            let mail = mail.clone();
            move || {
                let run = || GroupDriver::run(&driver, &mail);
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    mail.fail("the group's thread has failed (a panic)".to_owned());
                    GroupDriver::run(&driver, &mail);
                }
            }
        });
        let driver = Some(thread.map_err(failed("cannot start a thread"))?);
        Ok(GroupJournal { addresses, own, mail, driver, _lock: lock })
    }

    /// From now on it turns to the others with this one.
    pub(in crate::host) fn change_secret(&self, secret: &Secret) {
        self.mail.change_secret(secret.clone());
    }

    /// How the group stands; none if this member takes no part any more.
    pub(in crate::host) fn ask_standing(
        &self,
        told: impl FnOnce(Option<GroupReport>) + Send + 'static,
    ) {
        let addresses = self.addresses.clone();
        let told = move |standing: Option<GroupStanding>| {
            told(standing.map(|standing| report_of(&addresses, standing)));
        };
        self.mail.ask(GroupAsk::Standing(Box::new(told)));
    }

    /// Has the disk that a member has now take the place of the one that the group knows.
    pub(in crate::host) fn replace(
        &self,
        member: &str,
        told: impl FnOnce(DiskReplacement) + Send + 'static,
    ) {
        let told = Box::new(|answer| told(outcome_of(answer)));
        self.mail.ask(GroupAsk::Replace(MemberName::new(member), told));
    }

    /// Has another member lead the log, if this one does: it ends soon. Told once that is so, or no other
    /// can.
    pub(in crate::host) fn leave(&self, told: impl FnOnce() + Send + 'static) {
        self.mail.ask(GroupAsk::Leave(Box::new(move |()| told())));
    }

    /// What other members say is handed in by this.
    pub(in crate::host) fn door(&self) -> MemberDoor {
        MemberDoor {
            own: self.own.clone(),
            addresses: self.addresses.clone(),
            mail: self.mail.clone(),
            names: BTreeMap::new(),
            frames: Vec::new(),
        }
    }

    fn ask(&self, operation: JournalOperation) -> JournalAnswer {
        let (told, answer) = mpsc::channel();
        // One that has given up needs no answer.
        self.begin(operation, Box::new(move |answer| drop(told.send(answer))));
        answer.recv().unwrap_or_else(|_| {
            let text = "this member ends".to_owned();
            JournalAnswer::Trouble(JournalTrouble::Unknown(text))
        })
    }
}

impl fmt::Debug for GroupJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupJournal of {}", self.own)
    }
}

impl PromptJournal for GroupJournal {
    fn read_at_once(&self) -> JournalAnswer {
        self.read().map_or_else(JournalAnswer::Trouble, JournalAnswer::Head)
    }

    /// It is given up after half of the time for which a reign is believed.
    fn begin(&self, operation: JournalOperation, told: JournalTold) {
        match self.mail.failure() {
            Some(why) => told(JournalAnswer::Trouble(JournalTrouble::Failed(why))),
            None => self.mail.ask(GroupAsk::Operation(operation, told)),
        }
    }
}

impl ReignJournal for GroupJournal {
    fn terms(&self) -> JournalTerms {
        GROUP_TERMS
    }

    fn prompt(self: Arc<Self>) -> Option<Arc<dyn PromptJournal>> {
        Some(self)
    }

    /// What this member has applied of the log, which may be stale.
    fn read(&self) -> std::result::Result<JournalHead, JournalTrouble> {
        if let Some(why) = self.mail.failure() {
            return Err(JournalTrouble::Failed(why));
        }
        self.mail.head().ok_or_else(|| {
            JournalTrouble::Unknown("this member has nothing of the group's log yet".to_owned())
        })
    }

    fn take_over(&self, attempt: &ReignAttempt) -> std::result::Result<TakeOver, JournalTrouble> {
        match self.ask(JournalOperation::TakeOver(Arc::new(attempt.clone()))) {
            JournalAnswer::TakeOver(answer) => Ok(answer),
            other => Err(trouble_of(other)),
        }
    }

    fn append(
        &self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> std::result::Result<Appended, JournalTrouble> {
        match self.ask(JournalOperation::Append { reign, number, records: records.into() }) {
            JournalAnswer::Appended(answer) => Ok(answer),
            other => Err(trouble_of(other)),
        }
    }

    fn renew(&self, reign: ReignKey) -> std::result::Result<ReignRenewal, JournalTrouble> {
        match self.ask(JournalOperation::Renew(reign)) {
            JournalAnswer::Renewal(answer) => Ok(answer),
            other => Err(trouble_of(other)),
        }
    }

    fn resign(&self, reign: ReignKey) -> std::result::Result<(), JournalTrouble> {
        match self.ask(JournalOperation::Resign(reign)) {
            JournalAnswer::Resigned => Ok(()),
            other => Err(trouble_of(other)),
        }
    }
}

fn trouble_of(answer: JournalAnswer) -> JournalTrouble {
    match answer {
        JournalAnswer::Trouble(trouble) => trouble,
        other => JournalTrouble::Unknown(format!("an answer to another question: {other:?}")),
    }
}

impl Drop for GroupJournal {
    fn drop(&mut self) {
        self.mail.end();
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

/// What the leader's thread hands in of what other members say.
pub(in crate::host) struct MemberDoor {
    own: MemberName,
    addresses: GroupAddresses,
    mail: Arc<GroupMail>,
    /// Which member each connection is of, once it has said so.
    names: BTreeMap<crate::proto::ConnectionId, MemberName>,
    /// What has come since the last [`hand_in`](Self::hand_in).
    frames: Vec<(MemberName, GroupFrame)>,
}

impl MemberDoor {
    /// A message came on this connection. In words why it is to be closed, if so.
    pub(in crate::host) fn handle(
        &mut self,
        connection: crate::proto::ConnectionId,
        message: MemberMessage,
    ) -> std::result::Result<(), String> {
        match message {
            MemberMessage::Introduce { version, from, to } => {
                // A later one speaks this one's version to it.
                if version < MEMBER_VERSION_OLDEST {
                    return Err(format!(
                        "its release is too old: it speaks version {version} of the group's protocol, and \
                         this member {MEMBER_VERSION_OLDEST} and later"
                    ));
                }
                if to != self.own.as_str() {
                    return Err(format!("this is {}, and not {to}", self.own));
                }
                let from = MemberName::new(from);
                if from == self.own || self.addresses.of(&from).is_none() {
                    return Err(format!(
                        "{from} is no other member of the group {}",
                        self.addresses
                    ));
                }
                self.names.insert(connection, from);
                Ok(())
            }
            MemberMessage::Frame(bytes) => {
                let Some(from) = self.names.get(&connection) else {
                    return Err("it has not said which member it is".to_owned());
                };
                let frame = GroupFrame::decode(&bytes).map_err(|error| error.to_string())?;
                self.frames.extend(frame.map(|frame| (from.clone(), frame)));
                Ok(())
            }
        }
    }

    /// Hands in what has come.
    pub(in crate::host) fn hand_in(&mut self) {
        if !self.frames.is_empty() {
            self.mail.frames(std::mem::take(&mut self.frames));
        }
    }

    /// A connection has ended.
    pub(in crate::host) fn forget(&mut self, connection: crate::proto::ConnectionId) {
        self.names.remove(&connection);
    }
}

fn report_of(addresses: &GroupAddresses, standing: GroupStanding) -> GroupReport {
    let name = |name: MemberName| name.as_str().to_owned();
    let member = |standing: crate::proto::group::MemberStanding| MemberReport {
        address: addresses.of(&standing.member).map_or_else(String::new, ToString::to_string),
        member: name(standing.member),
        votes: standing.votes,
        is_heard: standing.is_heard,
        lag: standing.lag,
        disk_waits: standing.waiting_disk.is_some(),
    };
    GroupReport {
        own: name(standing.own),
        leader: standing.leader.map(name),
        is_made: standing.is_made,
        own_disk_waits: standing.own_disk_waits,
        members: standing.members.into_iter().map(member).collect(),
    }
}

fn outcome_of(answer: GroupAnswer) -> DiskReplacement {
    use crate::proto::group::ReplaceRefusal;
    match answer {
        GroupAnswer::Replaced { .. } => DiskReplacement::Replaced,
        GroupAnswer::Unknown(text) => DiskReplacement::Unknown(text),
        GroupAnswer::Refused(refusal) => match refusal {
            ReplaceRefusal::NotLeading(leader) => {
                DiskReplacement::NotLeading(leader.map(|leader| leader.as_str().to_owned()))
            }
            ReplaceRefusal::NotMade => DiskReplacement::NotMade,
            ReplaceRefusal::NoSuchMember => DiskReplacement::NoSuchMember,
            ReplaceRefusal::NoDiskWaits => DiskReplacement::NoDiskWaits,
            ReplaceRefusal::Changing => DiskReplacement::Changing,
        },
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> LockError {
    move |error| LockError::new(LockErrorKind::Io, format!("{what}: {error}")).with_source(error)
}

#[cfg(test)]
mod tests;
