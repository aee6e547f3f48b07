//! What reaches a member's driver from other threads (the leader's, the disk's, those that look up names),
//! and what they may read of it.
//!
//! A thread that puts something in has it acted on at once, by itself, if no other is about it: a commit
//! passes from thread to thread as seldom as it can, since on a busy machine each time costs more than all
//! the rest.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::*},
    },
};

use parking_lot::Mutex;

use crate::{
    host::net::{bell::Bell, tls::Secret},
    proto::{
        group::{DiskId, DiskRoom, GroupAnswer, GroupFrame, GroupStanding, MemberName, WriteId},
        journal::{JournalAnswer, JournalHead, JournalOperation},
    },
};

/// What an operator is told of.
pub(in crate::host) enum GroupNews {
    Note(String),
    Alarm(String),
    /// Another member is to reign, if this one does: it is to be asked so.
    StepsAside,
    /// The journal is in another reign, or its reign may be taken over: its head is to be looked at.
    ReignChanged,
}

/// Tells an operator; it must not block.
pub(in crate::host) type TellNews = Arc<dyn Fn(GroupNews) + Send + Sync>;

/// Takes an answer; it must not block.
pub(super) type Told<T> = Box<dyn FnOnce(T) + Send>;

/// What other threads ask of the driver.
pub(super) enum GroupAsk {
    Operation(JournalOperation, Told<JournalAnswer>),
    Replace(MemberName, Told<GroupAnswer>),
    Standing(Told<Option<GroupStanding>>),
    /// Hand the log's lead over, and say so once another member has it, or none can.
    Leave(Told<()>),
}

/// What has become of writes.
pub(super) enum StoredNews {
    /// On this disk this one and all before it are durable. A machine of another disk counts its own anew.
    Durable(DiskId, WriteId),
    /// The disk has nothing, and is this one now.
    Another(DiskId),
    Room(DiskRoom),
    Failed(String),
}

/// The addresses that a member's name has, or why there are none.
pub(super) type LookedUp = io::Result<Vec<SocketAddr>>;

/// What has come since the driver looked last.
#[derive(Default)]
pub(super) struct NewMail {
    pub(super) frames: Vec<(MemberName, GroupFrame)>,
    pub(super) stored: Vec<StoredNews>,
    pub(super) asks: Vec<GroupAsk>,
    pub(super) looked_up: Vec<(MemberName, LookedUp)>,
    pub(super) secret: Option<Secret>,
}

impl NewMail {
    fn is_empty(&self) -> bool {
        let NewMail { frames, stored, asks, looked_up, secret } = self;
        frames.is_empty()
            && stored.is_empty()
            && asks.is_empty()
            && looked_up.is_empty()
            && secret.is_none()
    }
}

/// Has the driver act on what has come, on the calling thread, if no other does so now. Whether it did.
pub(super) type ActNow = Box<dyn Fn() -> bool + Send + Sync>;

/// A driver's mail.
pub(super) struct GroupMail {
    pub(super) bell: Bell,
    act: OnceLock<ActNow>,
    new: Mutex<NewMail>,
    /// The journal's head, as far as this member has applied the log.
    head: Mutex<Option<JournalHead>>,
    /// Why this member takes no part any more.
    failed: Mutex<Option<String>>,
    is_ending: AtomicBool,
    tell: TellNews,
}

impl GroupMail {
    pub(super) fn new(tell: TellNews) -> io::Result<GroupMail> {
        Ok(GroupMail {
            bell: Bell::new()?,
            act: OnceLock::new(),
            new: Mutex::default(),
            head: Mutex::default(),
            failed: Mutex::default(),
            is_ending: AtomicBool::new(false),
            tell,
        })
    }

    /// From now on there is a driver.
    pub(super) fn begin(&self, act: ActNow) {
        let _ = self.act.set(act);
    }

    pub(super) fn tell(&self, news: GroupNews) {
        (self.tell)(news);
    }

    pub(super) fn frames(&self, frames: Vec<(MemberName, GroupFrame)>) {
        self.put(|new| new.frames.extend(frames));
    }

    pub(super) fn stored(&self, news: StoredNews) {
        self.put(|new| new.stored.push(news));
    }

    pub(super) fn ask(&self, ask: GroupAsk) {
        self.put(|new| new.asks.push(ask));
    }

    pub(super) fn looked_up(&self, member: MemberName, found: LookedUp) {
        self.put(|new| new.looked_up.push((member, found)));
    }

    pub(super) fn change_secret(&self, secret: Secret) {
        self.put(|new| new.secret = Some(secret));
    }

    fn put(&self, put: impl FnOnce(&mut NewMail)) {
        put(&mut self.new.lock());
        // One that comes while another thread is about it may be too late for that one to see.
        while !self.new.lock().is_empty() {
            if !self.act.get().is_some_and(|act| act()) {
                return self.bell.ring();
            }
        }
    }

    pub(super) fn take(&self) -> NewMail {
        std::mem::take(&mut *self.new.lock())
    }

    pub(super) fn head(&self) -> Option<JournalHead> {
        self.head.lock().clone()
    }

    pub(super) fn show_head(&self, head: Option<JournalHead>) {
        *self.head.lock() = head;
    }

    /// Why this member takes no part any more, if that is so.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().clone()
    }

    /// It takes no part from now on. The first reason stays.
    pub(super) fn fail(&self, why: String) {
        self.failed.lock().get_or_insert(why);
        self.bell.ring();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Acquire)
    }

    pub(super) fn end(&self) {
        self.is_ending.store(true, Release);
        self.bell.ring();
    }
}
