//! The thread that writes a member's disk, so that nothing else ever waits for it.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    disk::{DiskTrouble, GroupDisk, LOOK_PAUSE},
    mail::{GroupMail, GroupNews, StoredNews},
};
use crate::proto::group::{DiskId, DiskRoom, GroupWrite, WriteId};

/// How long it waits before it tries a full disk again.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// How many writes are synced at once at most.
const BATCH_MAX: usize = 256;

/// What the writer is to do next.
enum DiskJob {
    /// Of the machine of this disk: nothing of it gets to another one.
    Write(DiskId, WriteId, GroupWrite),
    /// The disk begins anew, as another one that has nothing.
    BecomeAnother,
}

/// The writer of a disk.
pub(super) struct DiskWriter {
    jobs: Option<mpsc::Sender<DiskJob>>,
    thread: Option<JoinHandle<()>>,
}

impl DiskWriter {
    pub(super) fn start(disk: GroupDisk, mail: Arc<GroupMail>) -> std::io::Result<DiskWriter> {
        let (jobs, asked) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("tierlock-disk".into())
            .spawn(move || write_all(disk, &asked, &mail))?;
        Ok(DiskWriter { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Writes it to this disk, after all before it; the mail says when it is durable. If the disk has become
    /// another one meanwhile, nothing is written.
    pub(super) fn write(&self, disk: DiskId, id: WriteId, write: GroupWrite) {
        self.ask(DiskJob::Write(disk, id, write));
    }

    /// Begins anew as another disk, after all that was to be written; the mail says which one it is.
    pub(super) fn become_another(&self) {
        self.ask(DiskJob::BecomeAnother);
    }

    fn ask(&self, job: DiskJob) {
        if let Some(jobs) = &self.jobs {
            // A thread that is gone has said why.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for DiskWriter {
    fn drop(&mut self) {
        // What it was asked for is written; then the directory is free.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(mut disk: GroupDisk, asked: &mpsc::Receiver<DiskJob>, mail: &GroupMail) {
    let mut next = None;
    let mut room = ToldRoom { mail, room: DiskRoom::Plenty };
    loop {
        room.tell(disk.is_low());
        let job = match next.take().map_or_else(|| next_job(asked, disk.is_low()), Ok) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                disk.set_aside(Instant::now());
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let done = match job {
            DiskJob::BecomeAnother => when_there_is_room(&mut room, || disk.become_another())
                .map(|id| id.map(StoredNews::Another)),
            DiskJob::Write(of, ..) if of != disk.id() => continue,
            DiskJob::Write(_, first, write) => {
                let (mut last, mut batch) = (first, vec![write]);
                while batch.len() < BATCH_MAX
                    && next.is_none()
                    && let Ok(job) = asked.try_recv()
                {
                    match job {
                        DiskJob::Write(of, id, write) if of == disk.id() => {
                            last = id;
                            batch.push(write);
                        }
                        DiskJob::Write(..) => {}
                        DiskJob::BecomeAnother => next = Some(job),
                    }
                }
                let done = when_there_is_room(&mut room, || disk.write(&batch));
                done.map(|done| done.map(|()| StoredNews::Durable(disk.id(), last)))
            }
        };
        match done {
            Ok(Some(news)) => {
                mail.stored(news);
                // What waits for the disk has gone on by now.
                disk.set_aside(Instant::now());
            }
            Ok(None) => return,
            Err(error) => return mail.stored(StoredNews::Failed(error.to_string())),
        }
    }
}

/// The next one; a disk that is low looks for room meanwhile.
fn next_job(asked: &mpsc::Receiver<DiskJob>, is_low: bool) -> Result<DiskJob, RecvTimeoutError> {
    match is_low {
        true => asked.recv_timeout(LOOK_PAUSE),
        false => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// What the member and its operator were told of the room on the disk.
struct ToldRoom<'a> {
    mail: &'a GroupMail,
    room: DiskRoom,
}

impl ToldRoom<'_> {
    /// It writes into what was set aside, or has room again.
    fn tell(&mut self, is_low: bool) {
        let room = if is_low { DiskRoom::Low } else { DiskRoom::Plenty };
        match room {
            _ if room == self.room => {}
            DiskRoom::Plenty => {
                self.mail.tell(GroupNews::Note("its disk has room again".to_owned()));
            }
            _ => self.mail.tell(GroupNews::Alarm(
                "ALARM: the disk of this member is full: it writes what was set aside for that, and leaves \
                 the lead to members that have room; make room"
                    .to_owned(),
            )),
        }
        self.change(room);
    }

    /// It cannot even write that.
    fn tell_full(&mut self, error: &std::io::Error) {
        self.mail.tell(GroupNews::Alarm(format!(
            "ALARM: the disk of this member is full ({error}): the group goes on without it as long as most \
             of the others write; make room"
        )));
        self.change(DiskRoom::Full);
    }

    fn change(&mut self, room: DiskRoom) {
        if std::mem::replace(&mut self.room, room) != room {
            self.mail.stored(StoredNews::Room(room));
        }
    }
}

/// What came of it, unless the member has ended before there was room.
fn when_there_is_room<T>(
    room: &mut ToldRoom<'_>,
    mut write: impl FnMut() -> Result<T, DiskTrouble>,
) -> std::io::Result<Option<T>> {
    let mut is_told = false;
    loop {
        match write() {
            Ok(done) => return Ok(Some(done)),
            Err(DiskTrouble::Failed(error)) => return Err(error),
            Err(DiskTrouble::Full(error)) => {
                if !std::mem::replace(&mut is_told, true) {
                    room.tell_full(&error);
                }
                if room.mail.is_ending() {
                    return Ok(None);
                }
                thread::sleep(FULL_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests;
