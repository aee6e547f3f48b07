//! A process at work on one lock in every way at once, to be killed and stopped at any time: threads and tasks of two
//! managers that wait, give up, are cancelled, panic inside and fork, over numbers that nothing else protects.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::OnceLock,
    thread,
    time::Duration,
};

use futures::FutureExt;
use tierlock::{LockError, LockManager, Mutex, MutexGuard, Predecessor, Scope};

use super::under_kills::{begin, next, open, open_to_append};

const THREADS: u64 = 3;
const TASKS: u64 = 3;

/// What a kill or a panic inside leaves behind is told to the next holder; all else is whole.
struct Tally {
    /// Two equal numbers, one that is 1 while a holder is inside, and how many holders were cut off.
    file: File,
    /// Grows by a byte with each that was not.
    done: File,
}

impl Tally {
    fn open(folder: &Path) -> Tally {
        Tally { file: open(folder.join("tally")), done: open_to_append(folder.join("done")) }
    }

    fn get(&self, number: u64) -> u64 {
        let mut bytes = [0; 8];
        let read = self.file.read_at(&mut bytes, number * 8).unwrap();
        assert!([0, 8].contains(&read));
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, number: u64, to: u64) {
        self.file.write_all_at(&to.to_ne_bytes(), number * 8).unwrap();
    }

    /// By a holder that was told this of the one before. Says what is not as that one left it.
    fn add(&self, how: Predecessor, panics: bool) -> Option<String> {
        let [one, other, inside, cut_off] = [0, 1, 2, 3].map(|number| self.get(number));
        let done = self.done.metadata().unwrap().len();
        if how == Predecessor::Clean && (one != other || inside != 0 || one != done + cut_off) {
            return Some(format!(
                "{one} and {other}, {inside} inside, {cut_off} + {done} were there"
            ));
        }
        self.set(2, 1);
        let to = one.max(other) + 1;
        self.set(3, to - (done + 1));
        self.set(0, to);
        thread::yield_now();
        if panics {
            resume_unwind(Box::new("on purpose"));
        }
        self.set(1, to);
        (&self.done).write_all(b".").unwrap();
        self.set(2, 0);
        None
    }

    fn holds(&self, guard: MutexGuard<'_, ()>) -> Option<String> {
        self.add(MutexGuard::predecessor(&guard), false)
    }
}

/// Works until something is not as it must be, and says what.
pub(super) fn storm(
    managers: [&LockManager; 2],
    name: &str,
    folder: &Path,
    seed: u64,
) -> Result<String, LockError> {
    let build = |number| {
        let locks: &LockManager = managers[number % 2];
        locks.mutex(name, ()).scope(Scope::Process).build()
    };
    let mutexes = &[build(0)?, build(1)?];
    let wrong = OnceLock::new();
    let until_wrong = |random: u64, step: &(dyn Fn(&mut u64) -> Option<String> + Sync)| {
        let mut random = begin(random);
        while wrong.get().is_none() {
            if let Some(what) = step(&mut random) {
                let _ = wrong.set(what);
            }
        }
    };
    let tally = Tally::open(folder);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (until_wrong, tally) = (&until_wrong, &tally);
            let step = move |random: &mut u64| {
                let number = thread as usize % 2;
                let build = || build(number);
                let step = blocking_step(&mutexes[number], &build, tally, random);
                step.unwrap_or_else(|error| Some(error.to_string()))
            };
            scope.spawn(move || until_wrong(seed * 16 + thread, &step));
        }
        let tasks = tasks(mutexes, &tally, seed * 16 + THREADS, &|| wrong.get().is_some());
        if let Some(what) = tasks.unwrap_or_else(|error| Some(error.to_string())) {
            let _ = wrong.set(what);
        }
    });
    Ok(wrong.into_inner().expect("it was wrong"))
}

/// `build` makes another mutex of the name, which a child needs where a thread of its parent had the lock.
fn blocking_step(
    mutex: &Mutex<()>,
    build: &dyn Fn() -> Result<Mutex<()>, LockError>,
    tally: &Tally,
    random: &mut u64,
) -> Result<Option<String>, LockError> {
    let kind = next(random) % 40;
    let micros = Duration::from_micros(next(random) % 500);
    let tried = match kind {
        0 => return Ok(forked(|| build()?.lock().map(|guard| tally.holds(guard)))),
        1 => {
            let guard = mutex.lock()?;
            // The child has a copy of the guard, and not the lock.
            let wrong = forked(|| {
                let mutex = build()?;
                let tried = mutex.try_lock();
                let is_in = tried.is_ok();
                tried.map_or(Ok(()), MutexGuard::unlock)?;
                Ok(is_in.then(|| "a child has its parent's lock".into()))
            });
            return Ok(wrong.or_else(|| tally.holds(guard)));
        }
        2 | 3 => {
            let guard = mutex.lock()?;
            let inside = catch_unwind(AssertUnwindSafe(move || {
                let guard = guard;
                tally.add(MutexGuard::predecessor(&guard), true)
            }));
            return Ok(inside.unwrap_or(None));
        }
        4..15 => mutex.try_lock(),
        15..27 => mutex.try_lock_for(micros),
        _ => mutex.lock(),
    };
    match tried {
        Ok(guard) => Ok(tally.holds(guard)),
        Err(error) if error.is_contended() || error.is_timeout() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tasks of one thread, some of which are cancelled while they wait.
fn tasks(
    mutexes: &[Mutex<()>; 2],
    tally: &Tally,
    seed: u64,
    is_over: &dyn Fn() -> bool,
) -> Result<Option<String>, LockError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let task = async |number: u64| {
        let (mutex, mut random) = (&mutexes[number as usize % 2], begin(seed + number));
        while !is_over() {
            let micros = Duration::from_micros(next(&mut random) % 500);
            let lock = mutex.lock_async();
            let won = match next(&mut random) % 3 {
                0 => tokio::time::timeout(micros, lock).await.ok(),
                1 => lock.now_or_never(),
                _ => Some(lock.await),
            };
            if let Some(guard) = won.transpose()?
                && let Some(wrong) = tally.holds(guard)
            {
                return Ok::<_, LockError>(Some(wrong));
            }
            tokio::task::yield_now().await;
        }
        Ok(None)
    };
    let tasks = futures::future::try_join_all((0..TASKS).map(task));
    Ok(runtime.block_on(tasks)?.into_iter().flatten().next())
}

/// What a forked child finds wrong. Its text is on the standard error stream of all.
fn forked(work: impl FnOnce() -> Result<Option<String>, LockError>) -> Option<String> {
    // SAFETY: the child calls the library, which is made for that, files, and the allocator of the C library, which
    // has handlers for forks; and no exit handlers.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "no fork");
    if pid == 0 {
        // SAFETY: it has no memory arguments. It ends a child that hangs.
        unsafe { libc::alarm(60) };
        let found = catch_unwind(AssertUnwindSafe(work));
        let wrong = match found {
            Ok(Ok(None)) => None,
            Ok(Ok(Some(wrong))) => Some(wrong),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it panicked".into()),
        };
        if let Some(wrong) = &wrong {
            let _ = rustix::io::write(rustix::stdio::stderr(), wrong.as_bytes());
        }
        // SAFETY: nothing of the parent's that stands at its end is for the child.
        unsafe { libc::_exit(i32::from(wrong.is_some())) };
    }
    let mut status = 0;
    // SAFETY: `status` is ours, and the child was forked here and not waited for yet.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    (waited != pid || status != 0).then(|| format!("a forked child ended with {status:#x}"))
}
