//! What bad input gets: an error that says what is wrong and what to do, nothing lost, no client disturbed.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tierlock::{Engine, Leader, LockErrorKind, LockManager, LockManagerBuilder, MutexGuard, Scope};

use crate::{
    helper::Helper,
    setting::{LONG, LONG_LIFE, Rig, free_address, new_secret, private_file, temp_dir},
};

/// A bystander that holds a lock, and is to be left alone.
pub(crate) struct Bystander {
    locks: LockManager,
    guard: MutexGuard<'static, ()>,
}

impl Bystander {
    pub(crate) fn of(builder: LockManagerBuilder) -> Bystander {
        // However busy the machine is, only a disturbed client loses a lock or gets none.
        Bystander::with(builder.time_to_live(LONG_LIFE).connect_timeout(LONG))
    }

    /// One with the terms that are set.
    fn with(builder: LockManagerBuilder) -> Bystander {
        let locks = builder.label("bystander").open().unwrap();
        Bystander { guard: locks.mutex("bystander", ()).lock().unwrap(), locks }
    }

    pub(crate) fn is_undisturbed(&self) {
        assert!(MutexGuard::is_valid(&self.guard));
        drop(self.locks.mutex("another", ()).try_lock_for(LONG).unwrap());
        assert!(self.locks.mutex("bystander", ()).try_lock().unwrap_err().is_contended());
    }
}

fn refused(builder: LockManagerBuilder, kind: LockErrorKind, words: &[&str]) {
    says(&builder.open().map(drop).unwrap_err(), kind, words);
}

fn says(error: &tierlock::LockError, kind: LockErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error}: lacks {word:?}");
    }
}

#[test]
fn a_secret_that_is_missing_open_to_others_or_none_is_refused_with_what_to_do() {
    let rig = Rig::start();
    let bystander = Bystander::of(rig.builder());
    let with = |file: &Path| LockManager::builder().leaders([rig.address()]).secret_file(file);
    let dir = temp_dir();
    let file = dir.path().join("key");
    let name = file.to_str().unwrap();
    let config = LockErrorKind::Config;
    refused(with(&file), config, &[name, "tierlock secret new"]);
    refused(LockManager::builder().leaders([rig.address()]), config, &["tierlock secret new"]);
    private_file(&file, "not a secret\n");
    refused(with(&file), config, &[name, "64 hexadecimal digits", "tierlock secret new"]);
    for text in ["", "\n", "abcd", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
        private_file(&file, text);
        refused(with(&file), config, &[name]);
    }
    fs::copy(rig.secret(), &file).unwrap();
    let leader = || {
        let leader = Leader::builder().listen("127.0.0.1:0").state_dir(dir.path().join("state"));
        let is_new = !dir.path().join("state").exists();
        leader.init(is_new).accept_file_system("tmpfs").secret_file(&file)
    };
    for mode in [0o644, 0o604, 0o444, 0o660, 0o620] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        refused(with(&file), config, &[name, "chmod 600"]);
        says(&leader().start().unwrap_err(), config, &[name, "chmod 600"]);
    }
    // Its group may read it, as container platforms mount it.
    for mode in [0o440, 0o640] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        drop(with(&file).open().unwrap().mutex("a", ()).lock().unwrap());
        drop(leader().start().unwrap());
    }
    if rustix::process::geteuid().is_root() {
        chown(&file, Some(65_534), None).unwrap();
        refused(with(&file), config, &[name, "belongs to user 65534"]);
        says(&leader().start().unwrap_err(), config, &[name, "belongs to user 65534"]);
        chown(&file, Some(0), None).unwrap();
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    drop(with(&file).open().unwrap().mutex("a", ()).lock().unwrap());
    refused(with(dir.path()), config, &["regular file"]);
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg("-m600").arg(&pipe).status().unwrap().success());
    refused(with(&pipe), config, &[pipe.to_str().unwrap(), "writer"]);
    bystander.is_undisturbed();
}

/// Answers for a leader before it does, from a place on the path to it: the first attempts of a
/// client get what is forged, the others get through.
struct Impostor {
    address: SocketAddr,
    attempts: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What an attempt to connect meets.
enum Met {
    /// An answer made of its first packet.
    Answer(Vec<u8>),
    /// A server.
    Server(SocketAddr),
}

impl Impostor {
    fn new(meets: impl Fn(usize, &[u8]) -> Met + Send + 'static) -> Impostor {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let address = front.local_addr().unwrap();
        let (attempts, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (attempts.clone(), stop.clone());
        let thread = thread::spawn(move || {
            // Each attempt has a socket of its own, and here one towards what it meets.
            let mut attempts: Vec<(SocketAddr, Option<UdpSocket>)> = Vec::new();
            let mut bytes = [0; 1 << 16];
            while !stopped.load(Relaxed) {
                if let Ok((length, client)) = front.recv_from(&mut bytes) {
                    let packet = &bytes[..length];
                    let known = attempts.iter().position(|(known, _)| *known == client);
                    let at = known.unwrap_or_else(|| {
                        let back = match meets(attempts.len(), packet) {
                            Met::Answer(answer) => {
                                front.send_to(&answer, client).unwrap();
                                None
                            }
                            Met::Server(server) => {
                                let back = UdpSocket::bind("127.0.0.1:0").unwrap();
                                back.connect(server).unwrap();
                                back.set_nonblocking(true).unwrap();
                                Some(back)
                            }
                        };
                        attempts.push((client, back));
                        counted.store(attempts.len(), Relaxed);
                        attempts.len() - 1
                    });
                    let _ = attempts[at].1.as_ref().map(|back| back.send(packet));
                }
                for (client, back) in &attempts {
                    while let Some(Ok(length)) = back.as_ref().map(|back| back.recv(&mut bytes)) {
                        let _ = front.send_to(&bytes[..length], client);
                    }
                }
            }
        });
        Impostor { address, attempts, stop, thread: Some(thread) }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// RFC 9000, 17.2.1: a host that sees a client's first packet can say that another version is spoken.
fn version_negotiation(first: &[u8]) -> Vec<u8> {
    let (ids, _) = first[5..]
        .split_at(2 + usize::from(first[5]) + usize::from(first[6 + usize::from(first[5])]));
    let (to, from) = ids.split_at(1 + usize::from(ids[0]));
    let other_version = 0x6b33_43cf_u32.to_be_bytes();
    [&[0xc0, 0, 0, 0, 0], from, to, &other_version].concat()
}

/// Each of these failed a manager for good, with exit status 77.
#[test]
fn what_is_forged_before_a_leader_has_proved_itself_ends_attempts_and_not_the_manager() {
    const FORGED: usize = 3;
    let rig = Rig::start();
    let leader = rig.address().parse().unwrap();
    let (foreign, _runtime) = crate::intruder::foreign_server();
    let impostor = Impostor::new(move |attempt, first| match attempt {
        0..FORGED => Met::Answer(version_negotiation(first)),
        // It closes the connection, under keys that any host has that sees the first packet.
        FORGED.. if attempt < 2 * FORGED => Met::Server(foreign),
        _ => Met::Server(leader),
    });
    let address = impostor.address.to_string();
    let locks = rig.builder().leaders([address]).connect_timeout(LONG).open().unwrap();
    drop(locks.mutex("a", ()).lock().unwrap());
    assert_eq!(impostor.attempts.load(Relaxed), 2 * FORGED + 1);
    // Where nothing else answers the manager says what does.
    let address = foreign.to_string();
    let locks = rig.builder().leaders([address.clone()]);
    let locks = locks.connect_timeout(Duration::from_secs(1)).open().unwrap();
    let error = locks.mutex("a", ()).lock().map(drop).unwrap_err();
    says(&error, LockErrorKind::Unreachable, &[&address, "no tierlock leader of this version"]);
}

#[test]
fn a_wrong_secret_is_refused_at_once() {
    let rig = Rig::start();
    let bystander = Bystander::of(rig.builder());
    let dir = temp_dir();
    let other = dir.path().join("other");
    new_secret(&other);
    let start = Instant::now();
    let locks = LockManager::builder().leaders([rig.address()]).secret_file(other);
    let locks = locks.connect_timeout(LONG).open().unwrap();
    let mutex = locks.mutex("a", ()).build().unwrap();
    for _ in 0..3 {
        says(&mutex.lock().map(drop).unwrap_err(), LockErrorKind::Refused, &["secret", "\"a\""]);
    }
    let tried = mutex.try_lock_for(LONG).map(drop).unwrap_err();
    says(&tried, LockErrorKind::Refused, &["secret"]);
    assert!(!tried.is_retryable());
    assert!(start.elapsed() < LONG, "it waited for a leader that had answered");
    bystander.is_undisturbed();
}

#[test]
fn an_absent_leader_is_unreachable_after_connect_timeout() {
    let dir = temp_dir();
    let secret = dir.path().join("secret");
    new_secret(&secret);
    let connect = Duration::from_millis(300);
    // No leader there; and one that says nothing.
    let silent = UdpSocket::bind(free_address()).unwrap();
    for address in [free_address(), silent.local_addr().unwrap()] {
        let locks = LockManager::builder().leaders([address.to_string()]).secret_file(&secret);
        let locks = locks.connect_timeout(connect).open().unwrap();
        let mutex = locks.mutex("a", ()).build().unwrap();
        for is_async in [false, true] {
            let start = Instant::now();
            let error = match is_async {
                false => mutex.lock().map(drop).unwrap_err(),
                true => futures::executor::block_on(mutex.lock_async()).map(drop).unwrap_err(),
            };
            assert!(start.elapsed() >= connect.mul_f32(0.9));
            says(&error, LockErrorKind::Unreachable, &["\"a\"", "no leader answered"]);
            assert!(error.is_unreachable() && error.is_retryable() && !error.is_contended());
            assert!(error.waited().unwrap() >= connect.mul_f32(0.9));
            assert_eq!((error.name(), error.scope()), (Some("a"), Some(Scope::Host)));
        }
        let tried = mutex.try_lock().map(drop).unwrap_err();
        assert!(tried.is_unreachable(), "{tried}");
        // Its own limit, if that is sooner and nothing is there; an answer is waited for longer.
        let timed = mutex.try_lock_for(Duration::from_millis(20)).map(drop).unwrap_err();
        assert!(timed.is_unreachable(), "{timed}");
        let is_silent = address == silent.local_addr().unwrap();
        assert_eq!(timed.waited().unwrap() >= connect.mul_f32(0.9), is_silent, "{timed}");
        // What needs no leader goes on.
        drop(locks.mutex("other", ()).scope(Scope::Thread).lock().unwrap());
    }
}

#[test]
fn an_address_that_is_none_is_an_error_of_open() {
    let dir = temp_dir();
    let secret = dir.path().join("secret");
    new_secret(&secret);
    for address in ["", ":", "a:b", "127.0.0.1:99999", "1.2.3.4:", "a b"] {
        let builder = LockManager::builder().leaders([address]).secret_file(&secret);
        refused(builder, LockErrorKind::Config, &[address]);
    }
}

#[test]
fn a_second_leader_on_one_state_directory_is_refused_and_told_of_the_first() {
    let rig = Rig::start();
    let bystander = Bystander::of(rig.builder());
    let second = || {
        let leader = Leader::builder().listen("127.0.0.1:0").state_dir(rig.state());
        let leader = leader.accept_file_system("tmpfs");
        leader.secret_file(rig.secret()).start()
    };
    let state = rig.state();
    let words = [state.to_str().unwrap(), &format!("{}", std::process::id())];
    // gajae-code#4704: two leaders on one state directory.
    says(&second().unwrap_err(), LockErrorKind::Refused, &words);
    bystander.is_undisturbed();
    drop(bystander);
    rig.stop();
    second().unwrap();
}

#[test]
fn a_leader_with_settings_that_make_no_sense_does_not_start() {
    let dir = temp_dir();
    let secret = dir.path().join("secret");
    new_secret(&secret);
    let state = dir.path().join("state");
    let leader = || Leader::builder().listen("127.0.0.1:0").state_dir(&state).secret_file(&secret);
    let config = |leader: tierlock::LeaderBuilder, word: &str| {
        says(&leader.start().unwrap_err(), LockErrorKind::Config, &[word]);
    };
    config(Leader::builder().state_dir(&state).secret_file(&secret), "listen");
    config(Leader::builder().listen("127.0.0.1:0").secret_file(&secret), "state");
    config(Leader::builder().listen("127.0.0.1:0").state_dir(&state), "secret");
    config(leader().time_to_live_max(Duration::from_millis(999)), "1 s to 60 s");
    config(leader().time_to_live_max(Duration::from_secs(61)), "1 s to 60 s");
    config(leader().listen("nonsense:x"), "nonsense");
    let taken = UdpSocket::bind(free_address()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    config(leader().init(true).accept_file_system("tmpfs").listen(&address), &address);
    // None of that has spoilt its state.
    drop(leader().init(true).accept_file_system("tmpfs").start().unwrap());
}

#[test]
fn a_time_to_live_that_the_leader_does_not_accept_is_refused_with_both_ways_out() {
    let dir = temp_dir();
    let secret = dir.path().join("secret");
    new_secret(&secret);
    let leader = Leader::builder().listen("127.0.0.1:0").state_dir(dir.path().join("state"));
    let leader = leader.init(true).accept_file_system("tmpfs");
    let leader = leader.secret_file(&secret).time_to_live_max(Duration::from_secs(30));
    let leader = leader.start().unwrap();
    let with = |seconds| {
        let builder = LockManager::builder().leaders([leader.local_addr().to_string()]);
        builder.secret_file(&secret).time_to_live(Duration::from_secs(seconds))
    };
    let bystander = Bystander::with(with(30));
    let locks = with(31).open().unwrap();
    let error = locks.mutex("a", ()).lock().map(drop).unwrap_err();
    says(&error, LockErrorKind::Refused, &["time_to_live", "--ttl-max"]);
    bystander.is_undisturbed();
}

#[test]
fn two_leaders_that_are_not_one_group_are_refused_together() {
    let (one, two) = (Rig::start(), Rig::start());
    fs::copy(one.secret(), two.secret()).unwrap();
    two.stop();
    two.restart();
    let bystanders = [Bystander::of(one.builder()), Bystander::of(two.builder())];
    let both = one.builder().leaders([one.address(), two.address()]).open().unwrap();
    for _ in 0..2 {
        let error = both.mutex("a", ()).lock().map(drop).unwrap_err();
        says(&error, LockErrorKind::Config, &["group", "\"a\""]);
    }
    for bystander in &bystanders {
        bystander.is_undisturbed();
        // And nothing of it is left.
        drop(bystander.locks.mutex("a", ()).try_lock().unwrap());
    }
}

#[test]
fn a_leader_with_another_state_is_not_taken_for_the_old_one() {
    let (rig, other) = (Rig::start(), Rig::start());
    let locks = rig.builder().time_to_live(Duration::from_secs(1)).open().unwrap();
    let token = MutexGuard::token(&locks.mutex("a", ()).lock().unwrap());
    rig.stop();
    other.stop();
    // It is started with an empty or foreign directory.
    let state = rig.state();
    fs::rename(&state, state.with_extension("aside")).unwrap();
    fs::rename(other.state(), &state).unwrap();
    rig.restart();
    let error = locks.mutex("a", ()).lock().map(drop).unwrap_err();
    assert!(
        matches!(error.kind(), LockErrorKind::Config | LockErrorKind::Refused),
        "{:?}: {error}",
        error.kind()
    );
    assert!(error.to_string().contains("spoken to before"), "{error}");
    // The right one is welcome again.
    rig.stop();
    fs::remove_dir_all(&state).unwrap();
    fs::rename(state.with_extension("aside"), &state).unwrap();
    rig.restart();
    let guard = locks.mutex("a", ()).try_lock_for(LONG).unwrap();
    assert!(MutexGuard::token(&guard) > token);
}

#[test]
fn datagrams_of_garbage_disturb_no_client() {
    let rig = Rig::start();
    let bystander = Bystander::of(rig.builder());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bytes = [0_u8; 1_400];
    let mut state = 1_u64;
    for length in (0..bytes.len()).step_by(7) {
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        // Half of them look like the beginning of a connection.
        bytes[0] |= if length % 2 == 0 { 0xc0 } else { 0x40 };
        socket.send_to(&bytes[..length], rig.address()).unwrap();
    }
    bystander.is_undisturbed();
    drop(rig.builder().open().unwrap().mutex("a", ()).try_lock_for(LONG).unwrap());
}

#[test]
fn nothing_in_the_environment_is_an_error_and_never_a_narrower_lock() {
    let dir = temp_dir();
    let mut helper = Helper::start();
    let answer = helper.ask("open-from-environment");
    assert!(answer.starts_with("error\tConfig\t"), "{answer}");
    assert!(answer.contains("TIERLOCK_DIR") && answer.contains("TIERLOCK_LEADERS"), "{answer}");
    let with = |variables: &[(&str, &str)]| {
        let mut helper = Helper::start_with(|command| {
            command.envs(variables.iter().copied());
        });
        let answer = helper.ask("open-from-environment");
        (helper, answer)
    };
    let empty = with(&[("TIERLOCK_DIR", ""), ("TIERLOCK_LEADERS", "")]).1;
    assert!(empty.starts_with("error\tConfig\t"), "{empty}");
    let no_secret = with(&[("TIERLOCK_LEADERS", "127.0.0.1")]).1;
    assert!(no_secret.starts_with("error\tConfig\t"), "{no_secret}");
    assert!(no_secret.contains("secret"), "{no_secret}");
    let directory = dir.path().to_str().unwrap();
    let (mut good, answer) = with(&[("TIERLOCK_DIR", directory), ("TIERLOCK_LABEL", "cron")]);
    assert_eq!(answer, "ok");
    good.lock(Scope::Process, "a");
    let locks = LockManager::builder().directory(directory).open().unwrap();
    let busy = locks.mutex("a", ()).try_lock_for(Duration::from_millis(5)).unwrap_err();
    assert_eq!(busy.holder().unwrap().label, "cron");
    // It reaches no leader, and says so instead of taking less.
    assert!(good.ask("try\thost\tb").starts_with("error\tConfig\t"));
}

#[test]
fn a_directory_that_others_may_not_write_is_refused_with_advice() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    const NOBODY: u32 = 65_534;
    let dir = temp_dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let bystander = Bystander::of(LockManager::builder().directory(dir.path()));
    let mut outsider = Helper::start_as(NOBODY);
    let open = format!("open\tdir={}", dir.path().display());
    let opened = outsider.ask(&open);
    // It may look, and learns at its first lock that it may not write.
    let answer = if opened == "ok" { outsider.ask("try\tprocess\ta") } else { opened };
    assert!(answer.starts_with("error\tRefused\t"), "{answer}");
    assert!(answer.contains("owner, group or mode"), "{answer}");
    let below = outsider.ask(&format!("{open}/below"));
    assert!(below.starts_with("error\tRefused\t"), "{below}");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let unseen = outsider.ask(&open);
    assert!(unseen.starts_with("error\tRefused\t"), "{unseen}");
    assert!(unseen.contains(dir.path().to_str().unwrap()), "{unseen}");
    bystander.is_undisturbed();
}

#[test]
fn a_directory_that_is_none_or_not_local_is_refused() {
    let dir = temp_dir();
    let config = LockErrorKind::Config;
    let with = |path: &Path| LockManager::builder().directory(path);
    refused(with(&dir.path().join("a/b")), config, &["above it does not exist"]);
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    refused(with(&file), config, &["not a directory"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // procfs stands for everything that is no local file system.
    refused(with(Path::new("/proc/self")), config, &["file system", "accept_file_system"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_of_another_program_is_left_as_it_is() {
    let dir = temp_dir();
    let bystander = Bystander::of(LockManager::builder().directory(dir.path()));
    bystander.is_undisturbed();
    drop(bystander);
    for (format, kind) in [
        ("tierlock file-lock 99\n", LockErrorKind::Config),
        ("tierlock table 99\n", LockErrorKind::Config),
        ("something else", LockErrorKind::Damaged),
    ] {
        fs::write(dir.path().join("format"), format).unwrap();
        let builder = LockManager::builder().directory(dir.path());
        refused(builder, kind, &[dir.path().to_str().unwrap()]);
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), format);
    }
}

#[test]
fn a_directory_removed_under_a_manager_is_reported() {
    let dir = temp_dir();
    let path = dir.path().join("locks");
    let locks = LockManager::builder().directory(&path).engine(Engine::FileLock).open().unwrap();
    let mutex = locks.mutex("a", ()).build().unwrap();
    drop(mutex.lock().unwrap());
    fs::remove_dir_all(&path).unwrap();
    let error = mutex.lock().map(drop).unwrap_err();
    says(&error, LockErrorKind::Damaged, &[path.to_str().unwrap(), "restart"]);
    // The thread tier was given back.
    says(&mutex.try_lock().map(drop).unwrap_err(), LockErrorKind::Damaged, &["restart"]);
}

/// A quiet lock of the table makes no system call that could tell; the others do.
#[test]
fn a_directory_removed_under_a_table_is_reported() {
    let dir = temp_dir();
    let path = dir.path().join("locks");
    let locks = LockManager::builder().directory(&path).engine(Engine::Table).open().unwrap();
    let mutex = locks.mutex("a", ()).build().unwrap();
    drop(mutex.lock().unwrap());
    fs::remove_dir_all(&path).unwrap();
    let error = locks.mutex("b", ()).build().map(drop).unwrap_err();
    says(&error, LockErrorKind::Damaged, &[path.to_str().unwrap(), "restart"]);
    // Once in so many locks it is looked for.
    let failed = (0..100_000).find_map(|_| mutex.lock().map(drop).err());
    says(&failed.unwrap(), LockErrorKind::Damaged, &[path.to_str().unwrap(), "restart"]);
    // Both tiers were given back, and it is said again.
    says(&mutex.try_lock().map(drop).unwrap_err(), LockErrorKind::Damaged, &["restart"]);
}

/// It is fine to lock there for a caller that knows that.
#[test]
fn what_a_directory_cannot_promise_is_told_when_it_is_opened() {
    const TMPFS: u64 = 0x0102_1994;
    const EXT4_AND_XFS: [u64; 2] = [0xef53, 0x5846_5342];
    let told = |directory: &Path, engine| {
        let (tell, told) = std::sync::mpsc::channel();
        let builder = LockManager::builder().directory(directory).engine(engine);
        let locks = builder.on_warning(move |text| tell.send(text.to_owned()).unwrap()).open();
        // Nothing is told later that was not told by now.
        let told: Vec<_> = told.try_iter().collect();
        drop(locks.unwrap().mutex("a", ()).lock().unwrap());
        told
    };
    let kind = |path: &Path| rustix::fs::statfs(path).unwrap().f_type as u64;
    for engine in [Engine::Table, Engine::FileLock] {
        let plain = temp_dir();
        if EXT4_AND_XFS.contains(&kind(plain.path())) {
            assert_eq!(told(plain.path(), engine), [""; 0]);
        }
        let Ok(volatile) = tempfile::tempdir_in("/dev/shm") else {
            return eprintln!("SKIPPED: no /dev/shm to write to");
        };
        if kind(volatile.path()) != TMPFS {
            return eprintln!("SKIPPED: /dev/shm is no tmpfs");
        }
        for _ in 0..2 {
            let told = told(volatile.path(), engine);
            let [text] = &told[..] else { panic!("{told:?}") };
            for word in [volatile.path().to_str().unwrap(), "tmpfs", "reboot", "disk"] {
                assert!(text.contains(word), "{text}: lacks {word:?}");
            }
        }
    }
}
