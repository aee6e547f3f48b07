//! A name has one scope: the widest that it was ever locked at.

use std::thread;

use tierlock::{Engine, LockErrorKind, LockManager, LockManagerBuilder, MutexGuard, Scope};

use crate::setting::{Hand, LONG, Rig, Setting, Unprotected, at, temp_dir};

at!(above_threads, escalation_waits_for_a_narrow_holder);
fn escalation_waits_for_a_narrow_holder(setting: &Setting) {
    let locks = setting.locks();
    let narrow = locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    let other = locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    let guard = narrow.lock().unwrap();
    assert_eq!(MutexGuard::scope(&guard), Scope::Thread);
    let mut widening = Hand::new(other.escalate_async(setting.scope));
    assert!(widening.poll().is_pending());
    assert_eq!(other.scope(), Scope::Thread);
    assert!(MutexGuard::is_valid(&guard));
    drop(guard);
    widening.finish().unwrap();
    assert_eq!(other.scope(), setting.scope);
    // Every process that meets the name climbs too.
    let guard = narrow.lock().unwrap();
    assert_eq!(MutexGuard::scope(&guard), setting.scope);
    let far = setting.mutex(&setting.remote(), "a", ());
    assert!(far.try_lock().unwrap_err().is_contended());
    futures::executor::block_on(MutexGuard::unlock_async(guard)).unwrap();
    let guard = far.try_lock().unwrap();
    assert!(narrow.try_lock().unwrap_err().is_contended());
    drop(guard);
}

at!(above_threads, a_narrow_waiter_climbs_when_the_name_was_widened_before_its_turn);
fn a_narrow_waiter_climbs_when_the_name_was_widened_before_its_turn(setting: &Setting) {
    let locks = setting.locks();
    let narrow = locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    let wide = setting.mutex(&locks, "a", ());
    let guard = wide.lock().unwrap();
    let mut wait = Hand::new(narrow.lock_async());
    assert!(wait.poll().is_pending());
    drop(guard);
    let guard = wait.finish().unwrap();
    assert_eq!(MutexGuard::scope(&guard), setting.scope);
    drop(guard);
    thread::scope(|scope| {
        let guard = wide.lock().unwrap();
        let waiting = scope.spawn(|| MutexGuard::scope(&narrow.lock().unwrap()));
        drop(guard);
        assert_eq!(waiting.join().unwrap(), setting.scope);
    });
}

at!(everywhere, asking_for_less_changes_nothing);
fn asking_for_less_changes_nothing(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    drop(mutex.lock().unwrap());
    for less in Scope::ALL.into_iter().filter(|scope| *scope <= setting.scope) {
        mutex.escalate(less).unwrap();
        futures::executor::block_on(mutex.escalate_async(less)).unwrap();
        assert_eq!(mutex.scope(), setting.scope);
    }
    assert_eq!(MutexGuard::scope(&mutex.lock().unwrap()), setting.scope);
}

at!([thread process] widening_out_of_reach_is_an_error_that_says_what_is_missing);
fn widening_out_of_reach_is_an_error_that_says_what_is_missing(setting: &Setting) {
    let mutex = setting.mutex(&setting.locks(), "a", ());
    let error = mutex.escalate(Scope::Host).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("leader"), "{error}");
    assert_eq!((error.name(), mutex.scope()), (Some("a"), setting.scope));
    drop(mutex.try_lock().unwrap());
}

at!(above_threads, at_no_moment_of_an_escalation_are_there_two_holders);
/// Threads at thread scope, and in their midst one that widens: first to process scope, then to
/// the setting's.
fn at_no_moment_of_an_escalation_are_there_two_holders(setting: &Setting) {
    let counter = Unprotected::default();
    let (near, far) = (setting.locks(), setting.remote());
    for name in ["a", "b", "c"] {
        let before = counter.get();
        let narrow = near.mutex(name, ()).scope(Scope::Thread).build().unwrap();
        let rounds = setting.rounds();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let _guard = narrow.lock().unwrap();
                        counter.add();
                    }
                });
            }
            let widening = scope.spawn(|| {
                for to in [Scope::Process, setting.scope] {
                    if near.mutex("reached", ()).scope(to).build().is_ok() {
                        narrow.escalate(to).unwrap();
                    }
                }
                // From now on the far ones may take it too.
                let wide = setting.mutex(&far, name, ());
                for _ in 0..rounds {
                    let _guard = wide.lock().unwrap();
                    counter.add();
                }
            });
            widening.join().unwrap();
        });
        assert_eq!(counter.get(), before + 3 * rounds);
        assert_eq!(narrow.scope(), setting.scope);
    }
}

at!(above_threads, widened_stays_widened_when_no_mutex_uses_the_name);
fn widened_stays_widened_when_no_mutex_uses_the_name(setting: &Setting) {
    let locks = setting.locks();
    let narrow = || locks.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    narrow().escalate(setting.scope).unwrap();
    let mutex = narrow();
    let guard = mutex.lock().unwrap();
    assert_eq!(MutexGuard::scope(&guard), setting.scope);
}

/// Makes one test per engine out of a situation.
macro_rules! on_both {
    ($situation:ident) => {
        mod $situation {
            #[test]
            fn table() {
                super::$situation(tierlock::Engine::Table);
            }

            #[test]
            fn file_lock() {
                super::$situation(tierlock::Engine::FileLock);
            }
        }
    };
}

/// A directory that processes with and without a leader share.
struct Machine {
    engine: Engine,
    rig: Rig,
    directory: tempfile::TempDir,
}

impl Machine {
    fn new(engine: Engine) -> Machine {
        Machine { engine, rig: Rig::start(), directory: temp_dir() }
    }

    fn connected(&self) -> LockManager {
        self.opened(self.rig.builder().label("the widener"))
    }

    fn local(&self) -> LockManager {
        self.opened(LockManager::builder().label("local"))
    }

    fn opened(&self, builder: LockManagerBuilder) -> LockManager {
        builder.directory(self.directory.path()).engine(self.engine).open().unwrap()
    }

    fn helper(&self, is_connected: bool) -> crate::helper::Helper {
        let mut helper = crate::helper::Helper::start();
        let engine = if self.engine == Engine::Table { "table" } else { "file-lock" };
        let directory = self.directory.path().display();
        let mut line = format!("open\tlabel=helper\tengine={engine}\tdir={directory}");
        if is_connected {
            line += &self.rig.settings();
        }
        assert_eq!(helper.ask(&line), "ok");
        helper
    }
}

/// What a manager without a leader is told of a name that was widened.
fn assert_names_the_widener(kind: &str, text: &str, widener: &str) {
    assert_eq!(kind, "Config", "{text}");
    assert!(text.contains("host scope") && text.contains(widener), "{text}");
    assert!(text.contains("leader") && text.contains("\"a\""), "{text}");
}

on_both!(a_manager_without_a_leader_is_told_which_process_widened_the_name);
fn a_manager_without_a_leader_is_told_which_process_widened_the_name(engine: Engine) {
    let machine = Machine::new(engine);
    let local = machine.local();
    let before = local.mutex("a", ()).scope(Scope::Process).build().unwrap();
    drop(before.lock().unwrap());
    let guard = machine.connected().mutex("a", ()).lock().unwrap();
    drop(guard);
    let mut far = machine.helper(false);
    for _ in 0..2 {
        for result in [
            before.lock().map(drop),
            before.try_lock().map(drop),
            futures::executor::block_on(before.lock_async()).map(drop),
            local.mutex("a", ()).lock().map(drop),
        ] {
            let error = result.unwrap_err();
            let kind = format!("{:?}", error.kind());
            assert_names_the_widener(&kind, &error.to_string(), "the widener");
            assert_eq!(error.name(), Some("a"));
        }
        let answer = far.ask("lock\tprocess\ta");
        let words: Vec<_> = answer.split('\t').collect();
        let ["error", kind, text] = words[..] else { panic!("{answer}") };
        assert_names_the_widener(kind, text, "the widener");
    }
    // No holder is disturbed by that, and other names are as they were.
    drop(machine.connected().mutex("a", ()).try_lock_for(LONG).unwrap());
    drop(local.mutex("b", ()).try_lock().unwrap());
    assert_eq!(MutexGuard::scope(&local.mutex("b", ()).lock().unwrap()), Scope::Process);
}

on_both!(a_narrow_holder_in_another_process_is_waited_for);
fn a_narrow_holder_in_another_process_is_waited_for(engine: Engine) {
    let machine = Machine::new(engine);
    for is_connected in [true, false] {
        let name = if is_connected { "a" } else { "b" };
        let mut narrow = machine.helper(is_connected);
        assert_eq!(narrow.lock(Scope::Process, name).scope, Scope::Process);
        let locks = machine.connected();
        let wide = locks.mutex(name, ()).build().unwrap();
        assert!(wide.try_lock().unwrap_err().is_contended());
        let mut wait = Hand::new(wide.lock_async());
        assert!(wait.poll().is_pending());
        assert_eq!(narrow.ask(&format!("unlock\t{name}")), "ok");
        let guard = wait.finish().unwrap();
        assert_eq!(MutexGuard::scope(&guard), Scope::Host);
    }
}

on_both!(a_narrow_waiter_in_another_process_climbs_after_the_widener);
fn a_narrow_waiter_in_another_process_climbs_after_the_widener(engine: Engine) {
    let machine = Machine::new(engine);
    let far = machine.rig.builder().open().unwrap();
    let (mut connected, mut local) = (machine.helper(true), machine.helper(false));
    let locks = machine.connected();
    let guard = locks.mutex("a", ()).lock().unwrap();
    connected.say_lock(Scope::Process, "a");
    local.say("lock\tprocess\ta");
    drop(guard);
    assert_eq!(connected.hear_lock().scope, Scope::Host);
    let elsewhere = far.mutex("a", ()).build().unwrap();
    assert!(elsewhere.try_lock().unwrap_err().is_contended());
    assert_eq!(connected.ask("unlock\ta"), "ok");
    drop(elsewhere.try_lock_for(LONG).unwrap());
    let answer = local.hear();
    assert!(answer.starts_with("error\tConfig"), "{answer}");
}

on_both!(a_widened_name_stays_widened_after_all_processes_are_gone);
fn a_widened_name_stays_widened_after_all_processes_are_gone(engine: Engine) {
    let machine = Machine::new(engine);
    machine.connected().mutex("a", ()).scope(Scope::Process).build().unwrap();
    let narrow = machine.connected().mutex("a", ()).scope(Scope::Process).build().unwrap();
    narrow.escalate(Scope::Host).unwrap();
    drop(narrow);
    for _ in 0..2 {
        let mut next = machine.helper(true);
        assert_eq!(next.lock(Scope::Process, "a").scope, Scope::Host);
        assert_eq!(next.ask("unlock\ta"), "ok");
        assert_eq!(next.ask("close"), "ok");
    }
    let mut local = machine.helper(false);
    assert!(local.ask("try\tprocess\ta").starts_with("error\tConfig"));
}

on_both!(processes_lose_no_count_while_one_of_them_widens);
fn processes_lose_no_count_while_one_of_them_widens(engine: Engine) {
    const ROUNDS: u64 = 60;
    let machine = Machine::new(engine);
    let folder = temp_dir();
    let mut near = [machine.helper(true), machine.helper(true)];
    for helper in &mut near {
        helper.say(&format!("count\tprocess\ta\t{}\t{ROUNDS}", folder.path().display()));
    }
    let locks = machine.connected();
    let mutex = locks.mutex("a", ()).scope(Scope::Process).build().unwrap();
    crate::setting::until("the first count", || folder.path().join("counter").exists());
    mutex.escalate(Scope::Host).unwrap();
    // From now on another machine may take it too.
    let mut far = crate::helper::Helper::start();
    assert_eq!(far.ask(&format!("open\tlabel=far{}", machine.rig.settings())), "ok");
    far.say(&format!("count\thost\ta\t{}\t{ROUNDS}", folder.path().display()));
    for helper in near.iter_mut().chain([&mut far]) {
        assert_eq!(helper.hear(), "ok");
    }
    let count = std::fs::read_to_string(folder.path().join("counter")).unwrap();
    assert_eq!(count, (3 * ROUNDS).to_string());
}

on_both!(tokens_grow_when_a_name_is_widened);
fn tokens_grow_when_a_name_is_widened(engine: Engine) {
    let machine = Machine::new(engine);
    let (near, far) = (machine.connected(), machine.rig.builder().open().unwrap());
    let mut last = 0;
    let mut larger = |guard: MutexGuard<'_, ()>| {
        let token = MutexGuard::token(&guard).get();
        assert!(token > last, "{token} after {last}");
        last = token;
    };
    let mutex = near.mutex("a", ()).scope(Scope::Thread).build().unwrap();
    (0..100).for_each(|_| larger(mutex.lock().unwrap()));
    for scope in [Scope::Process, Scope::Host] {
        mutex.escalate(scope).unwrap();
        larger(mutex.lock().unwrap());
    }
    larger(far.mutex("a", ()).lock().unwrap());
    larger(mutex.lock().unwrap());
}

on_both!(processes_that_come_after_the_widener_lose_no_count);
/// The other way round: first another machine has the lock, then processes come that ask for less.
fn processes_that_come_after_the_widener_lose_no_count(engine: Engine) {
    const ROUNDS: u64 = 60;
    let machine = Machine::new(engine);
    let folder = temp_dir();
    let counting = |scope: Scope| format!("count\t{scope}\ta\t{}", folder.path().display());
    let locks = machine.connected();
    let mutex = locks.mutex("a", ()).scope(Scope::Process).build().unwrap();
    mutex.escalate(Scope::Host).unwrap();
    let mut far = crate::helper::Helper::start();
    assert_eq!(far.ask(&format!("open\tlabel=far{}", machine.rig.settings())), "ok");
    far.say(&format!("{}\t{}", counting(Scope::Host), ROUNDS * 2));
    crate::setting::until("the first count", || folder.path().join("counter").exists());
    let mut near = [machine.helper(true), machine.helper(true)];
    for helper in &mut near {
        helper.say(&format!("{}\t{ROUNDS}", counting(Scope::Process)));
    }
    let mut local = machine.helper(false);
    let answer = local.ask(&format!("{}\t1", counting(Scope::Process)));
    assert!(answer.starts_with("error\tConfig"), "{answer}");
    for helper in near.iter_mut().chain([&mut far]) {
        assert_eq!(helper.hear(), "ok");
    }
    let count = std::fs::read_to_string(folder.path().join("counter")).unwrap();
    assert_eq!(count, (4 * ROUNDS).to_string());
}

on_both!(a_process_without_a_leader_is_out_before_another_machine_is_in);
/// It uses the lock until the very widening, and never together with a holder on another machine.
fn a_process_without_a_leader_is_out_before_another_machine_is_in(engine: Engine) {
    const ROUNDS: u64 = 60;
    let machine = Machine::new(engine);
    let folder = temp_dir();
    let counter = || std::fs::read_to_string(folder.path().join("counter")).unwrap_or_default();
    let mut local = machine.helper(false);
    let folder_name = folder.path().display();
    local.say(&format!("count\tprocess\ta\t{folder_name}\t1000000"));
    crate::setting::until("the first count", || !counter().is_empty());
    let locks = machine.connected();
    let mutex = locks.mutex("a", ()).scope(Scope::Process).build().unwrap();
    mutex.escalate(Scope::Host).unwrap();
    // A process that is told of the widening may be elsewhere; the local one cannot have been asked.
    let mut far = crate::helper::Helper::start();
    assert_eq!(far.ask(&format!("open\tlabel=far{}", machine.rig.settings())), "ok");
    let first: u64 = counter().parse().unwrap();
    assert_eq!(far.ask(&format!("count\thost\ta\t{folder_name}\t{ROUNDS}")), "ok");
    let answer = local.hear();
    assert!(answer.starts_with("error\tConfig") && answer.contains("the widener"), "{answer}");
    assert_eq!(counter().parse::<u64>().unwrap(), first + ROUNDS);
}

/// Two leaders would both grant a name to processes of one directory.
#[test]
fn a_second_leader_for_a_directory_is_refused_before_its_grant_is_handed_out() {
    for engine in [Engine::Table, Engine::FileLock] {
        let dir = temp_dir();
        let [ours, others] = [Rig::start(), Rig::start()];
        let open = |rig: &Rig| rig.builder().directory(dir.path()).engine(engine).open().unwrap();
        let (first, second) = (open(&ours), open(&others));
        drop(first.mutex("a", ()).try_lock_for(LONG).unwrap());
        for _ in 0..2 {
            let error = second.mutex("b", ()).try_lock_for(LONG).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
            assert_eq!(error.to_string().matches("cluster").count(), 2, "{error}");
        }
        // What it was granted went back.
        let far = others.builder().open().unwrap();
        drop(far.mutex("b", ()).try_lock_for(LONG).unwrap());
        drop(first.mutex("b", ()).try_lock_for(LONG).unwrap());
    }
}
