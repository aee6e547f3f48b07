//! The thread that writes a member's disk, so that nothing else ever waits for it.

use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    disk::{DiskTrouble, GroupDisk},
    mail::{GroupMail, GroupNews, StoredNews},
};
use crate::proto::group::{GroupWrite, WriteId};

/// How long it waits before it tries a full disk again.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// How many writes are synced at once at most.
const BATCH_MAX: usize = 256;

/// The writer of a disk.
pub(super) struct DiskWriter {
    writes: Option<mpsc::Sender<(WriteId, GroupWrite)>>,
    thread: Option<JoinHandle<()>>,
}

impl DiskWriter {
    pub(super) fn start(disk: GroupDisk, mail: Arc<GroupMail>) -> std::io::Result<DiskWriter> {
        let (writes, asked) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("tierlock-disk".into())
            .spawn(move || write_all(disk, &asked, &mail))?;
        Ok(DiskWriter { writes: Some(writes), thread: Some(thread) })
    }

    /// Writes it, after all before it; the mail says when it is durable.
    pub(super) fn write(&self, id: WriteId, write: GroupWrite) {
        if let Some(writes) = &self.writes {
            // A thread that is gone has said why.
            let _ = writes.send((id, write));
        }
    }
}

impl Drop for DiskWriter {
    fn drop(&mut self) {
        // What it was asked for is written; then the directory is free.
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(mut disk: GroupDisk, asked: &mpsc::Receiver<(WriteId, GroupWrite)>, mail: &GroupMail) {
    while let Ok((first, write)) = asked.recv() {
        let (mut last, mut batch) = (first, vec![write]);
        while batch.len() < BATCH_MAX
            && let Ok((id, write)) = asked.try_recv()
        {
            last = id;
            batch.push(write);
        }
        match write_when_there_is_room(&mut disk, &batch, mail) {
            Ok(true) => mail.stored(StoredNews::Durable(last)),
            Ok(false) => return,
            Err(error) => return mail.stored(StoredNews::Failed(error.to_string())),
        }
    }
}

/// Whether it was written before the member has ended.
fn write_when_there_is_room(
    disk: &mut GroupDisk,
    batch: &[GroupWrite],
    mail: &GroupMail,
) -> std::io::Result<bool> {
    let mut is_told = false;
    loop {
        match disk.write(batch) {
            Ok(()) => {
                if is_told {
                    mail.tell(GroupNews::Note("its disk has room again".to_owned()));
                }
                return Ok(true);
            }
            Err(DiskTrouble::Failed(error)) => return Err(error),
            Err(DiskTrouble::Full(error)) => {
                if !is_told {
                    mail.tell(GroupNews::Alarm(format!(
                        "ALARM: the disk of this member is full ({error}): the group goes on without it as \
                         long as most of the others write; make room"
                    )));
                }
                is_told = true;
                if mail.is_ending() {
                    return Ok(false);
                }
                thread::sleep(FULL_PAUSE);
            }
        }
    }
}
