//! Read-write locks and semaphores of other makers, between processes and between machines.

use std::{
    fs::File,
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use redis::Script;
use rustix::fs::{FlockOperation, flock};
use tokio::runtime::Runtime;

use super::{
    etcd::{Etcd, EtcdKeys},
    redis::Redis,
    service::of_peer,
    sys::{RwLock, Semaphore},
};
use crate::bench::failure::{BenchFailure, Result};

/// A `pthread_rwlock_t` in a file that processes share. It prefers readers, as glibc's do.
pub(crate) struct PthreadRwLock(RwLock);

impl PthreadRwLock {
    pub(crate) fn create(path: &Path) -> Result<()> {
        RwLock::create(&new_file(path)?).map_err(failed("pthread_rwlock"))
    }

    pub(crate) fn open(path: &Path) -> Result<PthreadRwLock> {
        RwLock::open(&opened(path)?).map(PthreadRwLock).map_err(failed("pthread_rwlock"))
    }

    pub(crate) fn read(&self) -> Result<()> {
        let done = self.0.read().and_then(|()| self.0.unlock());
        done.map_err(failed("pthread_rwlock"))
    }

    /// Whether it came in as a writer before `until`.
    pub(crate) fn write_until(&self, until: Instant) -> Result<bool> {
        loop {
            if self.0.try_write().map_err(failed("pthread_rwlock"))? {
                self.0.unlock().map_err(failed("pthread_rwlock"))?;
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }
}

/// `flock(2)` with `LOCK_SH` on a file that stays open.
pub(crate) struct SharedFlock(File);

impl SharedFlock {
    pub(crate) fn open(path: &Path) -> Result<SharedFlock> {
        opened(path).map(SharedFlock)
    }

    pub(crate) fn read(&self) -> Result<()> {
        self.cycle(FlockOperation::LockShared)
    }

    pub(crate) fn write(&self) -> Result<()> {
        self.cycle(FlockOperation::LockExclusive)
    }

    fn cycle(&self, operation: FlockOperation) -> Result<()> {
        let done = rustix::io::retry_on_intr(|| flock(&self.0, operation))
            .and_then(|()| flock(&self.0, FlockOperation::Unlock));
        done.map_err(|error| failed("flock")(error.into()))
    }
}

/// A `sem_t` with so many permits.
pub(crate) struct PosixPermits(Semaphore);

impl PosixPermits {
    pub(crate) fn create(path: &Path, permits: u32) -> Result<()> {
        Semaphore::create_with(&new_file(path)?, permits).map_err(failed("sem_t"))
    }

    pub(crate) fn open(path: &Path) -> Result<PosixPermits> {
        Semaphore::open(&opened(path)?).map(PosixPermits).map_err(failed("sem_t"))
    }

    pub(crate) fn cycle(&self) -> Result<()> {
        self.0.wait().and_then(|()| self.0.post()).map_err(failed("sem_t"))
    }
}

fn new_file(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(failed("a lock's file"))
}

fn opened(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(failed("a lock's file"))
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> BenchFailure {
    BenchFailure::io(what)
}

/// A client of a read-write lock on a server.
pub(crate) trait SharedClient: Send {
    fn read(&mut self) -> Result<()>;
    fn write(&mut self) -> Result<()>;
}

// ---- Redis -------------------------------------------------------------------------------------

/// Redisson's `RedissonReadLock` and `RedissonWriteLock`: a hash with the mode and a count for each
/// holder. Its waiters subscribe to a channel; this one tries again after at most a millisecond.
pub(crate) struct RedissonRecipe {
    connection: redis::Connection,
    key: String,
    holder: String,
    lock: Script,
    unlock: Script,
    tries: u64,
}

const LIFETIME_MS: u32 = 30_000;
const LOCK: &str = r"
    local mode = redis.call('hget', KEYS[1], 'mode')
    if mode == false or (mode == 'read' and ARGV[1] == 'read') then
        redis.call('hset', KEYS[1], 'mode', ARGV[1])
        redis.call('hincrby', KEYS[1], ARGV[2], 1)
        redis.call('pexpire', KEYS[1], ARGV[3])
        return 1
    end
    return 0";
const UNLOCK: &str = r"
    local left = redis.call('hincrby', KEYS[1], ARGV[1], -1)
    if left == 0 then
        redis.call('hdel', KEYS[1], ARGV[1])
        if redis.call('hlen', KEYS[1]) == 1 then
            redis.call('del', KEYS[1])
            redis.call('publish', KEYS[1], 0)
        end
    end
    return left";

impl RedissonRecipe {
    pub(crate) fn new(server: &Redis, key: &str, number: usize) -> Result<RedissonRecipe> {
        let connection = server.handle().get_connection().map_err(of_peer("redis"))?;
        Ok(RedissonRecipe {
            connection,
            key: key.to_owned(),
            holder: format!("holder-{number}"),
            lock: Script::new(LOCK),
            unlock: Script::new(UNLOCK),
            tries: number as u64,
        })
    }

    fn cycle(&mut self, mode: &str) -> Result<()> {
        loop {
            let mut lock = self.lock.key(&self.key);
            let lock = lock.arg(mode).arg(&self.holder).arg(LIFETIME_MS);
            let got: u32 = lock.invoke(&mut self.connection).map_err(of_peer("redis"))?;
            if got == 1 {
                break;
            }
            self.tries = self.tries.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_micros(self.tries >> 33).min(Duration::from_millis(1)));
        }
        let mut unlock = self.unlock.key(&self.key);
        let left: u32 =
            unlock.arg(&self.holder).invoke(&mut self.connection).map_err(of_peer("redis"))?;
        match left {
            0 => Ok(()),
            _ => Err(of_peer("redis")("a holder was counted twice")),
        }
    }
}

impl SharedClient for RedissonRecipe {
    fn read(&mut self) -> Result<()> {
        self.cycle("read")
    }

    fn write(&mut self) -> Result<()> {
        self.cycle("write")
    }
}

// ---- etcd --------------------------------------------------------------------------------------

/// etcd's own recipe (`contrib/recipes/rwmutex.go`): a key for each reader and writer, in the order
/// of their creation; a reader waits for the writers before it, a writer for all. The recipe watches the
/// key before its own; this one looks again after half a millisecond.
pub(crate) struct EtcdRecipe<'a> {
    runtime: &'a Runtime,
    keys: EtcdKeys,
    name: String,
    number: usize,
}

impl<'a> EtcdRecipe<'a> {
    pub(crate) fn new(
        server: &Etcd,
        runtime: &'a Runtime,
        name: &str,
        number: usize,
    ) -> Result<EtcdRecipe<'a>> {
        let keys = runtime.block_on(server.keys())?;
        Ok(EtcdRecipe { runtime, keys, name: name.to_owned(), number })
    }

    fn cycle(&mut self, mode: &str, behind: &str) -> Result<()> {
        let own = format!("{}/{mode}/{}", self.name, self.number);
        let behind = format!("{}/{behind}", self.name);
        self.runtime.block_on(async {
            let made = self.keys.put(&own).await?;
            while self.keys.older(&behind, made).await? > 0 {
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            self.keys.delete(&own).await
        })
    }
}

impl SharedClient for EtcdRecipe<'_> {
    fn read(&mut self) -> Result<()> {
        self.cycle("read", "write/")
    }

    fn write(&mut self) -> Result<()> {
        self.cycle("write", "")
    }
}
