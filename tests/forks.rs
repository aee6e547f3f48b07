//! A forked child inherits no lock, and none stays taken in it for ever.
//!
//! A program of its own, without the test harness and its threads: each situation forks while it
//! knows exactly which threads there are.

use std::{
    fs,
    future::Future,
    io::{Read, Write, pipe},
    os::unix::fs::MetadataExt,
    path::Path,
    process::exit,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::{Context, Waker},
    thread,
    time::Duration,
};

use tierlock::{
    Engine, LockErrorKind, LockManager, LostReason, MutexGuard, Permit, Scope, Token,
    fence::FileGate,
};

type Situation = fn(&Locks);

/// A directory, and the engine it is used with.
struct Locks<'a> {
    directory: &'a Path,
    engine: Engine,
}

impl Locks<'_> {
    fn open(&self) -> LockManager {
        LockManager::builder().directory(self.directory).engine(self.engine).open().unwrap()
    }
}

const SITUATIONS: [(&str, Situation); 15] = [
    ("an_inherited_guard_is_lost_and_gives_nothing_back", an_inherited_guard_is_lost),
    ("a_lock_held_by_another_thread_at_the_fork_is_free_later", a_lock_held_by_another_thread),
    ("a_child_opens_a_manager_of_its_own", a_child_opens_a_manager),
    ("a_child_forked_beside_an_async_wait_waits_by_itself", a_child_forked_beside_a_wait),
    ("a_thread_scope_name_held_at_the_fork_is_free_in_the_child", a_thread_scope_name),
    ("a_child_of_one_inside_a_gate_is_not_inside_and_keeps_none_out", a_child_inside_a_gate),
    ("a_child_made_past_the_handlers_keeps_what_it_locks_first", a_child_past_the_handlers),
    ("a_child_forked_while_others_set_alarms_has_its_own", a_child_beside_alarms),
    ("children_forked_beside_threads_at_work_use_the_inherited_manager", children_beside_threads),
    ("a_mutex_locked_across_a_fork_is_unlocked_in_the_child", an_unnamed_mutex_across_a_fork),
    ("an_unnamed_mutex_of_another_thread_stays_held", an_unnamed_mutex_of_another_thread),
    ("an_inherited_wait_for_an_unnamed_mutex_is_none", an_inherited_wait),
    ("alarms_ring_in_a_grandchild_that_has_the_pid_of_its_parent", alarms_of_the_same_pid),
    ("files_of_a_child_that_closed_ours_reach_its_own_children", a_child_that_closes_all),
    ("inherited_permits_are_lost_and_the_child_takes_its_own", inherited_permits),
];

fn main() {
    // The table is on little-endian 64-bit Linux only.
    let has_table =
        cfg!(all(target_os = "linux", target_pointer_width = "64", target_endian = "little"));
    let engines = [Engine::FileLock, Engine::Table];
    let engines = &engines[..if has_table { 2 } else { 1 }];
    for &engine in engines {
        for (name, situation) in SITUATIONS {
            let place = tempfile::tempdir().unwrap();
            situation(&Locks { directory: place.path(), engine });
            println!("fork situation {name}::{engine:?} ... ok");
        }
    }
    #[cfg(feature = "redis")]
    service::children_beside_a_holder();
    println!("test result: ok. {} passed; 0 failed", SITUATIONS.len() * engines.len());
}

/// materialize#12050, aws-c-common#1192: a child that gives back its parent's lock.
fn an_inherited_guard_is_lost(locks: &Locks) {
    let mutex = locks.open().mutex("a", 1).build().unwrap();
    let mut guard = Some(mutex.lock().unwrap());
    let child = in_a_fork(|| {
        let copy = guard.take().unwrap();
        assert!(!MutexGuard::is_valid(&copy));
        assert!(MutexGuard::check(&copy).unwrap_err().is_lost());
        let told = MutexGuard::unlock(copy).unwrap_err().to_string();
        assert!(told.contains(LostReason::Forked.as_str()), "{told}");
        // The parent holds it, whatever the child does with its copy.
        assert!(mutex.try_lock().unwrap_err().is_contended());
    });
    child.wait();
    let guard = guard.unwrap();
    assert!(MutexGuard::is_valid(&guard));
    assert!(mutex.try_lock().unwrap_err().is_contended());
    MutexGuard::unlock(guard).unwrap();
    assert!(mutex.try_lock().is_ok());
}

fn inherited_permits(locks: &Locks) {
    if locks.engine == Engine::FileLock {
        return; // it has none
    }
    let pool = locks.open().semaphore("a", 3).build().unwrap();
    let mut permit = Some(pool.acquire_many(2).unwrap());
    let child = in_a_fork(|| {
        let mut copy = permit.take().unwrap();
        assert!(!Permit::is_valid(&copy));
        assert!(Permit::split(&mut copy, 1).is_none());
        assert!(Permit::unlock(copy).unwrap_err().is_lost());
        // The parent has its two, whatever the child does with its copy.
        assert!(pool.try_acquire_many(2).unwrap_err().is_contended());
        let own = pool.try_acquire().unwrap();
        assert_eq!(pool.available().unwrap(), 0);
        drop(own);
        std::mem::forget(pool.try_acquire().unwrap()); // it dies with it
    });
    child.wait();
    assert!(Permit::is_valid(permit.as_ref().unwrap()));
    let third = pool.try_acquire().unwrap();
    assert!(pool.try_acquire().unwrap_err().is_contended());
    drop((permit, third));
    assert_eq!(pool.available().unwrap(), 3);
}

fn a_lock_held_by_another_thread(locks: &Locks) {
    let manager = locks.open();
    let mutex = manager.mutex("a", 1).build().unwrap();
    let others = manager.mutex("a", 2).build().unwrap();
    let (mut child_hears, mut parent_says) = pipe().unwrap();
    let (mut parent_hears, mut child_says) = pipe().unwrap();
    thread::scope(|scope| {
        let (is_held, held) = std::sync::mpsc::channel();
        let (release, go) = std::sync::mpsc::channel::<()>();
        let mutex = &mutex;
        scope.spawn(move || {
            let guard = mutex.lock().unwrap();
            is_held.send(MutexGuard::token(&guard)).unwrap();
            go.recv().unwrap();
        });
        let token = held.recv().unwrap();
        let parent = std::process::id();
        let child = in_a_fork(|| {
            let mutex = &others;
            let taken = mutex.try_lock_for(Duration::from_millis(20)).unwrap_err();
            assert!(taken.is_timeout());
            assert_eq!(taken.holder().unwrap().pid, Some(parent));
            child_says.write_all(b"!").unwrap();
            child_hears.read_exact(&mut [0]).unwrap();
            let guard = mutex.lock().unwrap();
            assert!(MutexGuard::token(&guard) > token);
            assert!(MutexGuard::is_valid(&guard));
        });
        parent_hears.read_exact(&mut [0]).unwrap();
        release.send(()).unwrap();
        // Only once it is free: a lock of another thread of ours proves it.
        drop(mutex.lock().unwrap());
        parent_says.write_all(b"!").unwrap();
        child.wait();
    });
}

fn a_child_opens_a_manager(locks: &Locks) {
    let parents = locks.open();
    let held = parents.mutex("a", ()).lock().unwrap();
    let child = in_a_fork(|| {
        let own = locks.open();
        assert!(own.mutex("a", ()).try_lock().unwrap_err().is_contended());
        let guard = own.mutex("b", ()).lock().unwrap();
        assert_eq!(MutexGuard::scope(&guard), Scope::Process);
        std::mem::forget(guard);
    });
    child.wait();
    // The child died with "b".
    let b = parents.mutex("b", ()).lock().unwrap();
    assert_eq!(MutexGuard::predecessor(&b), tierlock::Predecessor::Died);
    assert!(MutexGuard::is_valid(&held));
}

/// The threads that wait for futures are not forked with them.
fn a_child_forked_beside_a_wait(locks: &Locks) {
    let (mut holder_hears, mut parent_says) = pipe().unwrap();
    let (mut parent_hears, mut holder_says) = pipe().unwrap();
    let mutex = locks.open().mutex("a", 1).build().unwrap();
    let holder = in_a_fork(|| {
        let _guard = locks.open().mutex("a", 1).lock().unwrap();
        holder_says.write_all(b"!").unwrap();
        holder_hears.read_exact(&mut [0]).unwrap();
    });
    parent_hears.read_exact(&mut [0]).unwrap();
    let mut wait = Some(Box::pin(mutex.lock_async()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().unwrap().as_mut().poll(&mut context).is_pending());
    let child = in_a_fork(|| {
        // The parent's wait is none of the child's, which drops its copy.
        drop(wait.take());
        let own = locks.open().mutex("a", 1).build().unwrap();
        let guard = futures::executor::block_on(own.lock_async()).unwrap();
        assert!(MutexGuard::is_valid(&guard));
        assert_eq!(MutexGuard::predecessor(&guard), tierlock::Predecessor::Clean);
    });
    parent_says.write_all(b"!").unwrap();
    let guard = futures::executor::block_on(wait.unwrap()).unwrap();
    assert_eq!(MutexGuard::predecessor(&guard), tierlock::Predecessor::Clean);
    drop(guard);
    child.wait();
    holder.wait();
}

fn a_thread_scope_name(locks: &Locks) {
    let manager = locks.open();
    let build = |value| manager.mutex("a", value).scope(Scope::Thread).build().unwrap();
    let mutex = build(1);
    let unused = build(2);
    let guard = mutex.lock().unwrap();
    let token = MutexGuard::token(&guard);
    let mutex = &mutex;
    let child = in_a_fork(|| {
        // Another mutex of the name, from before the fork or not, has no guard yet.
        for other in [&unused, &build(3)] {
            let own = other.try_lock().unwrap();
            assert!(MutexGuard::token(&own) > token);
        }
        // The inherited guard is a way to this one's data, and there is never a second one.
        for _ in 0..2 {
            let error = mutex.try_lock().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Config);
            assert!(error.to_string().contains("another mutex"), "{error}");
        }
        assert_eq!(*guard, 1);
    });
    child.wait();
    assert!(mutex.try_lock().is_err());
    drop(guard);
    assert!(mutex.try_lock().is_ok());
}

/// hermes-agent#100108, skhd#83: the lock lives on in a forked child.
fn a_child_inside_a_gate(locks: &Locks) {
    let gate = FileGate::open(locks.directory.join("gate")).unwrap();
    let token = Token::new(7).unwrap();
    let mut inside = Some(gate.enter(token).unwrap());
    let (mut child_hears, mut parent_says) = pipe().unwrap();
    let (mut parent_hears, mut child_says) = pipe().unwrap();
    let child = in_a_fork(|| {
        // Its copy opens nothing for others.
        drop(inside.take());
        assert!(gate.try_enter(token).unwrap_err().is_contended());
        child_says.write_all(b"!").unwrap();
        child_hears.read_exact(&mut [0]).unwrap();
        drop(gate.enter(token).unwrap());
    });
    parent_hears.read_exact(&mut [0]).unwrap();
    assert!(gate.try_enter(token).unwrap_err().is_contended());
    drop(inside.take());
    // And the child, which lives on, keeps no other out.
    drop(gate.try_enter(token).unwrap());
    parent_says.write_all(b"!").unwrap();
    child.wait();
}

/// By a bare `clone`, as some runtimes make their children.
fn a_child_past_the_handlers(locks: &Locks) {
    drop(locks.open().mutex("a", ()).lock().unwrap());
    let gate = FileGate::open(locks.directory.join("gate")).unwrap();
    let (mut child_hears, mut parent_says) = pipe().unwrap();
    let (mut parent_hears, mut child_says) = pipe().unwrap();
    let child = in_a_clone(|| {
        let gate = FileGate::open(locks.directory.join("gate")).unwrap();
        let _inside = gate.enter(Token::new(7).unwrap()).unwrap();
        drop(locks.open().mutex("a", ()).lock().unwrap());
        child_says.write_all(b"!").unwrap();
        child_hears.read_exact(&mut [0]).unwrap();
    });
    parent_hears.read_exact(&mut [0]).unwrap();
    assert!(gate.try_enter(Token::new(8).unwrap()).unwrap_err().is_contended());
    parent_says.write_all(b"!").unwrap();
    child.wait();
}

/// Each of its parent's threads may be anywhere in the list of alarms.
fn a_child_beside_alarms(locks: &Locks) {
    let manager = locks.open();
    let mutex = |name: &str, at_most| {
        manager.mutex(name, ()).scope(Scope::Thread).at_most(at_most).build().unwrap()
    };
    let short = mutex("short", Duration::from_millis(1));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for name in ["one", "another"] {
            let (mutex, stop) = (mutex(name, Duration::from_secs(3_600)), &stop);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    drop(mutex.lock().unwrap());
                }
            });
        }
        // Also if a child fails.
        let _stop = Stop(&stop);
        for _ in 0..100 {
            let child = in_a_fork(|| {
                end_if_it_hangs();
                let guard = short.lock().unwrap();
                let lost = futures::executor::block_on(MutexGuard::lost(&guard));
                assert_eq!(lost, LostReason::HeldTooLong);
            });
            child.wait();
        }
    });
}

/// Each thread of the parent may be anywhere: building, locking, waiting, dropping. None of it is
/// there in the child, and nothing waits for it.
fn children_beside_threads(locks: &Locks) {
    const CHILDREN: usize = 300;
    let manager = &locks.open();
    let inherited = manager.mutex("shared", 0).scope(Scope::Thread).build().unwrap();
    let stop = &AtomicBool::new(false);
    let work = |thread: usize| {
        for number in (0..).take_while(|_| !stop.load(Relaxed)) {
            // Names that others use too, names of its own, and names that are forgotten again.
            for name in ["shared".to_owned(), format!("own {thread}"), format!("new {number}")] {
                let mutex = manager.mutex(name, 0).scope(Scope::Thread).build().unwrap();
                drop(mutex.lock().unwrap());
                drop(mutex.try_lock_for(Duration::from_micros(50)));
            }
            if number % 16 == 0 {
                let name = format!("process {}", number / 16 % 4);
                let mutex = manager.mutex(name, 0).build().unwrap();
                drop(futures::executor::block_on(mutex.lock_async()).unwrap());
            }
        }
    };
    thread::scope(|scope| {
        (0..3).for_each(|thread| drop(scope.spawn(move || work(thread))));
        // Also if a child fails.
        let _stop = Stop(stop);
        for number in 0..CHILDREN {
            let child = in_a_fork(|| {
                end_if_it_hangs();
                for name in ["shared", "own 0", "new 0", "another"] {
                    let mutex = manager.mutex(name, 0).scope(Scope::Thread).build().unwrap();
                    drop(mutex.lock().unwrap());
                    // A name that is locked twice at once excludes, whichever value it is asked of.
                    let held = mutex.lock().unwrap();
                    let other = manager.mutex(name, 0).scope(Scope::Thread).build().unwrap();
                    assert!(other.try_lock().unwrap_err().is_contended());
                    if name == "shared" {
                        assert!(inherited.try_lock().unwrap_err().is_contended());
                    }
                    drop(held);
                }
                drop(inherited.lock().unwrap());
                let mutex = manager.mutex(format!("process {}", number % 4), 0).build().unwrap();
                drop(mutex.lock().unwrap());
            });
            child.wait();
        }
    });
}

/// The way of `pthread_atfork`: the forking thread locks before the fork, and both unlock after it.
/// The threads that wait for it are the parent's.
fn an_unnamed_mutex_across_a_fork(_: &Locks) {
    static COUNT: tierlock::Mutex<u64> = tierlock::Mutex::new(0);
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    *COUNT.lock().unwrap() += 1;
                }
            });
        }
        let _stop = Stop(stop);
        for _ in 0..100 {
            let mut guard = Some(COUNT.lock().unwrap());
            // Some wait by now, or will soon.
            thread::sleep(Duration::from_micros(200));
            let child = in_a_fork(|| {
                end_if_it_hangs();
                let before = **guard.as_ref().unwrap();
                drop(guard.take());
                // And it is a lock like any other in the child, for its own threads.
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| (0..1000).for_each(|_| *COUNT.lock().unwrap() += 1));
                    }
                });
                assert_eq!(*COUNT.lock().unwrap(), before + 2000);
            });
            drop(guard);
            child.wait();
        }
    });
}

/// As a `std::sync::Mutex` does: what it protects may be half changed, and its holder is not there.
fn an_unnamed_mutex_of_another_thread(_: &Locks) {
    let (mutex, waits) = (&tierlock::Mutex::new(0), &AtomicBool::new(false));
    thread::scope(|scope| {
        let (is_held, held) = std::sync::mpsc::channel();
        let (release, go) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let guard = mutex.lock().unwrap();
            is_held.send(()).unwrap();
            go.recv().unwrap();
            drop(guard);
        });
        held.recv().unwrap();
        scope.spawn(|| {
            waits.store(true, Relaxed);
            drop(mutex.lock().unwrap());
        });
        while !waits.load(Relaxed) {
            thread::yield_now();
        }
        let child = in_a_fork(|| {
            end_if_it_hangs();
            assert!(mutex.try_lock().unwrap_err().is_contended());
            assert!(mutex.try_lock_for(Duration::from_millis(5)).unwrap_err().is_timeout());
        });
        child.wait();
        release.send(()).unwrap();
    });
    assert!(mutex.try_lock().is_ok());
}

fn an_inherited_wait(_: &Locks) {
    let mutex = tierlock::Mutex::new(0);
    let mut guard = Some(mutex.lock().unwrap());
    let mut context = Context::from_waker(Waker::noop());
    let mut waits = [(); 2].map(|()| Some(Box::pin(mutex.lock_async())));
    for wait in waits.iter_mut().flatten() {
        assert!(wait.as_mut().poll(&mut context).is_pending());
    }
    let child = in_a_fork(|| {
        end_if_it_hangs();
        let [polled, dropped] = &mut waits;
        drop(dropped.take());
        // It stands in the queue of this process from its next poll on.
        assert!(polled.as_mut().unwrap().as_mut().poll(&mut context).is_pending());
        drop(guard.take());
        drop(futures::executor::block_on(polled.take().unwrap()).unwrap());
        assert!(mutex.try_lock().is_ok());
    });
    child.wait();
    drop(guard);
    for wait in waits {
        drop(futures::executor::block_on(wait.unwrap()).unwrap());
    }
}

/// A process is told from its child by more than its pid: in a pid namespace of its own the child
/// of a 1 is a 1.
fn alarms_of_the_same_pid(locks: &Locks) {
    let mutex = locks
        .open()
        .mutex("a", ())
        .scope(Scope::Thread)
        .at_most(Duration::from_millis(1))
        .build()
        .unwrap();
    let rings = || {
        let guard = mutex.lock().unwrap();
        let lost = futures::executor::block_on(MutexGuard::lost(&guard));
        assert_eq!(lost, LostReason::HeldTooLong);
    };
    let in_a_namespace = |work: &dyn Fn()| {
        let child = in_a_fork(|| {
            end_if_it_hangs();
            // SAFETY: it only says in which namespace children of this process begin.
            if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
                println!("no pid namespaces for this user");
                return;
            }
            in_a_fork(|| {
                assert_eq!(std::process::id(), 1);
                work();
            })
            .wait();
        });
        child.wait();
    };
    in_a_namespace(&|| {
        end_if_it_hangs();
        rings();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
        in_a_fork(|| {
            assert_eq!(std::process::id(), 1);
            end_if_it_hangs();
            rings();
        })
        .wait();
    });
}

/// Set when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A child that waits for a process that it does not have has no other end.
fn end_if_it_hangs() {
    // SAFETY: it only sets the time of a signal, for which there is no handler.
    unsafe { libc::alarm(60) };
}

/// A daemon closes what it inherited: what it opens then is no lock of ours in its children.
fn a_child_that_closes_all(locks: &Locks) {
    let _held = locks.open().mutex("a", ()).lock().unwrap();
    let child = in_a_fork(|| {
        for number in 3..256 {
            // SAFETY: nothing uses them any more: this child ends by `_exit`.
            unsafe { libc::close(number) };
        }
        let own: Vec<_> = (0..64)
            .map(|number| {
                let path = locks.directory.join(format!("own {number}"));
                (fs::File::create(&path).unwrap(), fs::metadata(&path).unwrap().ino())
            })
            .collect();
        let child = in_a_fork(|| {
            for (file, number) in &own {
                assert_eq!(file.metadata().unwrap().ino(), *number, "another file was put there");
            }
        });
        child.wait();
        // SAFETY: it only ends this process.
        unsafe { libc::_exit(0) };
    });
    child.wait();
}

struct ChildProcess(libc::pid_t);

impl ChildProcess {
    /// Waits for its end; it must have ended well.
    fn wait(self) {
        let mut status = 0;
        // SAFETY: `status` is ours, and the child was forked by us and not waited for yet.
        let waited = unsafe { libc::waitpid(self.0, &mut status, 0) };
        assert_eq!(waited, self.0);
        assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
        assert_eq!(libc::WEXITSTATUS(status), 0, "the child failed");
    }
}

/// Runs `work` in a forked child, and ends the child.
fn in_a_fork(work: impl FnOnce()) -> ChildProcess {
    // SAFETY: the situations fork while no other thread of theirs holds a lock of the allocator
    // or of the standard streams: their threads wait in a channel.
    in_a_child(unsafe { libc::fork() }, work)
}

/// The same, and no handler of this process is told.
fn in_a_clone(work: impl FnOnce()) -> ChildProcess {
    #[cfg(target_os = "linux")]
    // SAFETY: as above. Without a stack of its own it is a fork that calls no handlers.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: as above.
    let pid = unsafe { libc::fork() };
    in_a_child(pid as libc::pid_t, work)
}

/// What a parent and its child do, which was forked just now.
fn in_a_child(pid: libc::pid_t, work: impl FnOnce()) -> ChildProcess {
    assert!(pid >= 0, "no fork");
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        exit(if outcome.is_ok() { 0 } else { 1 });
    }
    ChildProcess(pid)
}

/// A lock service of another kind, on a server of its own.
#[cfg(feature = "redis")]
mod service {
    use std::{
        net::{TcpListener, TcpStream},
        process::{Child, Command, Stdio},
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
        time::Duration,
    };

    use tierlock::{LockErrorKind, LockManager, MutexGuard};

    use super::in_a_fork;

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The child's copy of the manager gives nothing back, renews nothing and is in no lock of its
    /// parent's threads, which are at work; one that it opens has a thread of its own.
    pub(super) fn children_beside_a_holder() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", ""]);
        command.arg("--dir").arg(folder.path()).stdout(Stdio::null());
        let Ok(server) = command.spawn() else {
            return println!("fork situation children_beside_a_holder: redis-server is missing");
        };
        let _server = Server(server);
        while TcpStream::connect(address).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        let life = Duration::from_secs(2);
        let builder = LockManager::builder().service(format!("redis://{address}"));
        let open = || builder.clone().time_to_live(life).open().unwrap();
        let manager = open();
        let mut guard = Some(manager.mutex("a", ()).lock().unwrap());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for number in 0..2 {
                let (manager, is_over) = (&manager, &is_over);
                scope.spawn(move || {
                    while !is_over.load(Relaxed) {
                        drop(manager.mutex(format!("busy {number}"), ()).lock().unwrap());
                    }
                });
            }
            for round in 0..10 {
                let child = in_a_fork(|| {
                    let copy = guard.take().unwrap();
                    assert!(MutexGuard::check(&copy).unwrap_err().is_lost());
                    drop(copy);
                    let error = manager.mutex("c", ()).lock().map(|_| ()).unwrap_err();
                    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
                    let own = open();
                    assert!(own.mutex("a", ()).try_lock().unwrap_err().is_contended());
                    drop(own.mutex(format!("own {round}"), ()).lock().unwrap());
                });
                child.wait();
            }
            // Renewed by the parent all the time, and by nothing else.
            thread::sleep(life);
            is_over.store(true, Relaxed);
        });
        let guard = guard.unwrap();
        assert!(MutexGuard::is_valid(&guard));
        let others = open();
        assert!(others.mutex("a", ()).try_lock().unwrap_err().is_contended());
        drop(guard);
        drop(others.mutex("a", ()).try_lock_for(Duration::from_secs(30)).unwrap());
        println!("fork situation children_beside_a_holder ... ok");
    }
}
