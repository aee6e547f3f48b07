//! The end of a reign: a leader is killed and started again while sessions hold locks.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tierlock::{Keep, LockErrorKind, LockManager, Mutex, MutexGuard, Scope};

use crate::{
    bench::{
        case::{Case, Label},
        failure::{BenchFailure, Result},
        run::{Contender, Entrant},
        stats::RowTally,
        worker::ChildWorker,
    },
    house::Serve,
    peers::field::Field,
};

impl Case {
    /// From a leader's SIGKILL, restarted at once, to its first new grant; 100 sessions hold.
    pub(crate) const LEADER_KILLED: Case = Case::staged("leader_killed", "leader killed");
}

/// How many locks that were held were lost, as a row says it.
pub(crate) const LOCKS_LOST: &str = "held_locks_lost";

const SESSIONS: u32 = 100;
const TIME_TO_LIVE: Duration = Duration::from_secs(5);
/// A grant that takes longer counts as this long.
const PATIENCE: Duration = Duration::from_secs(20);
const NOTE: &str = "from SIGKILL to the first new grant; 100 sessions hold; restarted at once";

pub(crate) fn leader_killed(field: &mut Field) -> Result<Vec<Entrant>> {
    let label = Label {
        clients: SESSIONS,
        note: Some(NOTE),
        ..Label::new(Scope::Host, Case::LEADER_KILLED)
    };
    Ok(vec![Entrant::new(label, LeaderKilled::start(field)?)])
}

struct LeaderKilled {
    leader: Option<ChildWorker>,
    /// Starts the leader again where it was.
    again: Serve,
    holders: Vec<Holder>,
    /// Asks for a new lock as soon as the leader is gone.
    newcomer: LockManager,
    kills: u64,
    locks_lost: u64,
}

/// A session that holds one lock.
struct Holder {
    mutex: Arc<Mutex<()>>,
    guard: Option<MutexGuard<'static, ()>>,
}

impl LeaderKilled {
    fn start(field: &mut Field) -> Result<LeaderKilled> {
        let state_dir: PathBuf = field.new_directory("killed-leader")?;
        let secret_file = field.grounds.secret_file()?;
        let mut again = Serve { state_dir, secret_file: secret_file.clone(), port: 0 };
        let (leader, port) = again.start()?;
        again.port = port;
        let connect = || -> Result<LockManager> {
            Ok(LockManager::builder()
                .leaders([format!("127.0.0.1:{port}")])
                .secret_file(&secret_file)
                .label("bench")
                .time_to_live(TIME_TO_LIVE)
                // On a busy machine the first of a hundred handshakes may take long.
                .connect_timeout(Duration::from_secs(60))
                .open()?)
        };
        let holders = (0..SESSIONS)
            .map(|number| {
                let name = format!("held/{number}");
                let mutex = connect()?.mutex(name, ()).scope(Scope::Host).build()?;
                Ok(Holder { mutex: Arc::new(mutex), guard: None })
            })
            .collect::<Result<_>>()?;
        let newcomer = connect()?;
        Ok(LeaderKilled { leader: Some(leader), again, holders, newcomer, kills: 0, locks_lost: 0 })
    }

    fn kill_one(&mut self) -> Result<Duration> {
        for holder in &mut self.holders {
            if holder.guard.is_none() {
                holder.guard = Some(holder.mutex.lock_arc()?);
            }
        }
        self.kills += 1;
        let fresh = self.newcomer.mutex(format!("fresh/{}", self.kills), ());
        let fresh = fresh.scope(Scope::Host).keep(Keep::Never).build()?;

        let killed = Instant::now();
        // Killed and reaped.
        self.leader = None;
        self.leader = Some(self.again.start()?.0);
        let granted = first_grant(&fresh, killed + PATIENCE)?;

        for holder in &mut self.holders {
            if !holder.guard.as_ref().is_some_and(MutexGuard::is_valid) {
                holder.guard = None;
                self.locks_lost += 1;
            }
        }
        Ok(granted - killed)
    }
}

impl Contender for LeaderKilled {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        tally.stage(slice, || self.kill_one())
    }

    fn facts(&self) -> BTreeMap<&'static str, f64> {
        BTreeMap::from([(LOCKS_LOST, self.locks_lost as f64), ("kills", self.kills as f64)])
    }
}

/// When the lock was granted, or `latest` if it was not by then.
fn first_grant(mutex: &Mutex<()>, latest: Instant) -> Result<Instant> {
    loop {
        let left = latest.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(latest);
        }
        match mutex.try_lock_for(left) {
            Ok(_guard) => return Ok(Instant::now()),
            Err(error) => match error.kind() {
                LockErrorKind::TimedOut | LockErrorKind::Unreachable => {}
                _ => return Err(BenchFailure::Lock(error)),
            },
        }
    }
}
