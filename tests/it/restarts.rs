//! Leaders that are killed and started again while somebody holds a lock.
//!
//! Until holders report what they hold, a restarted leader knows nothing of them: it grants
//! nothing before the longest time to live has passed, and their locks are lost. What is shown
//! here holds then, too: at no true moment two holders, and tokens only grow.

use std::{fs, net::SocketAddr, path::Path, thread, time::Duration};

use tempfile::TempDir;
use tierlock::{LockManager, MutexGuard, Scope};

use crate::{
    helper::Helper,
    setting::{Hand, LONG, SHORT_LIFE, free_address, new_secret, temp_dir},
};

/// A leader in a process of its own.
pub(crate) struct Server {
    files: TempDir,
    address: SocketAddr,
    process: Helper,
}

impl Server {
    pub(crate) fn start() -> Server {
        let files = temp_dir();
        new_secret(&files.path().join("secret"));
        for _ in 0..100 {
            let address = free_address();
            let mut process = Helper::start();
            if serve(&mut process, &files, address).starts_with("listening") {
                return Server { files, address, process };
            }
        }
        panic!("no port to be had for a leader");
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn restart(&mut self) {
        self.process = Helper::start();
        let answer = serve(&mut self.process, &self.files, self.address);
        assert_eq!(answer, format!("listening\t{}", self.address));
    }

    /// Stops it, and waits until it stands still.
    pub(crate) fn stop(&self) {
        self.process.stop();
    }

    pub(crate) fn resume(&self) {
        self.process.resume();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A place for files that is there as long as the server.
    pub(crate) fn folder(&self) -> &Path {
        self.files.path()
    }

    fn client(&self) -> Helper {
        self.client_through(self.address, SHORT_LIFE)
    }

    /// A client that finds the leader at another address.
    pub(crate) fn client_through(&self, address: SocketAddr, time_to_live: Duration) -> Helper {
        let mut client = Helper::start();
        let secret = self.files.path().join("secret");
        let line = format!(
            "open\tlabel=client\tttl={}\tleaders={address}\tsecret={}",
            time_to_live.as_millis(),
            secret.display()
        );
        assert_eq!(client.ask(&line), "ok");
        client
    }

    fn manager(&self) -> LockManager {
        let builder = LockManager::builder().leaders([self.address.to_string()]);
        let builder = builder.secret_file(self.files.path().join("secret"));
        builder.time_to_live(SHORT_LIFE).open().unwrap()
    }
}

fn serve(process: &mut Helper, files: &TempDir, address: SocketAddr) -> String {
    let (state, secret) = (files.path().join("state"), files.path().join("secret"));
    process.ask(&format!("serve\t{address}\t{}\t{}", state.display(), secret.display()))
}

/// The last moment at which the holder had its lock for sure, and what it heard then.
fn last_moment(holder: &mut Helper) -> (u64, String) {
    let answer = holder.hear();
    let words: Vec<_> = answer.split('\t').collect();
    let ["lost", last, why] = words[..] else { panic!("{answer}") };
    (last.parse().unwrap(), why.to_owned())
}

#[test]
fn a_holder_alive_while_its_leader_is_killed_and_restarted_is_not_joined_by_another() {
    let mut server = Server::start();
    let mut holder = server.client();
    let mut token = holder.lock(Scope::Host, "a").token;
    for _ in 0..2 {
        let mut waiter = server.client();
        waiter.say_lock(Scope::Host, "a");
        holder.say("until-lost\ta");
        server.kill();
        server.restart();
        let got = waiter.hear_lock();
        let (last, why) = last_moment(&mut holder);
        assert!(why.contains("lost"), "{why}");
        assert!(last < got.at, "two holders: {last} and {}", got.at);
        assert!(got.token > token, "{} after {token}", got.token);
        (holder, token) = (waiter, got.token);
    }
}

#[test]
fn a_holder_whose_leader_stays_away_is_told_at_its_deadline() {
    let mut server = Server::start();
    let [mut holder, mut waiter] = [server.client(), server.client()];
    let old = holder.lock(Scope::Host, "a");
    waiter.say_lock(Scope::Host, "a");
    holder.say("until-lost\ta");
    server.kill();
    // Without a leader, so that only its own clock can tell.
    let (last, why) = last_moment(&mut holder);
    assert!(why.contains("deadline"), "{why}");
    assert!(!waiter.has_spoken());
    server.restart();
    let got = waiter.hear_lock();
    assert!(last < got.at);
    assert!(got.token > old.token);
}

#[test]
fn a_leader_killed_over_and_over_never_makes_two_holders() {
    let mut server = Server::start();
    let log = server.files.path().join("log");
    let mut clients = [server.client(), server.client()];
    for client in &mut clients {
        client.say(&format!("log\thost\ta\t{}\t3500", log.display()));
    }
    let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    for _ in 0..2 {
        let before = lines();
        crate::setting::until("some grants", || lines() > before + 3);
        server.kill();
        server.restart();
    }
    for client in &mut clients {
        assert_eq!(client.hear(), "ok");
    }
    let log = fs::read_to_string(&log).unwrap();
    let mut times: Vec<(u64, u64, u64)> = log
        .lines()
        .map(|line| {
            let words: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            (words[0], words[1], words[2])
        })
        .collect();
    times.sort_unstable();
    for pair in times.windows(2) {
        let [(_, to, token), (from, _, next)] = [pair[0], pair[1]];
        assert!(to < from, "two holders: until {to} and from {from}");
        assert!(next > token, "{next} after {token}");
    }
    assert!(times.len() > 6);
}

#[test]
fn what_was_free_is_granted_again_after_a_restart() {
    let mut server = Server::start();
    let locks = server.manager();
    let first = MutexGuard::token(&locks.mutex("a", ()).lock().unwrap());
    server.kill();
    // redisson#4216: whoever asks meanwhile asks on until there is a leader.
    let waiting = thread::spawn({
        let locks = locks.clone();
        move || MutexGuard::token(&locks.mutex("a", ()).try_lock_for(LONG).unwrap())
    });
    server.restart();
    assert!(waiting.join().unwrap() > first);
}

#[test]
fn a_stopped_leader_is_not_a_dead_one() {
    let server = Server::start();
    let locks = server.manager();
    let guard = locks.mutex("a", ()).lock().unwrap();
    server.stop();
    let error = locks.mutex("b", ()).try_lock_for(Duration::from_millis(50)).unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    // etcd#15247: when it goes on it has been late, and takes nobody for dead at once.
    Hand::new(MutexGuard::lost(&guard)).finish();
    server.resume();
    drop(locks.mutex("b", ()).try_lock_for(LONG).unwrap());
    assert!(!MutexGuard::is_valid(&guard));
    drop(guard);
    drop(locks.mutex("a", ()).try_lock_for(LONG).unwrap());
}
