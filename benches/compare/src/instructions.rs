//! What a quiet cycle costs in instructions, which no neighbour on the machine changes: valgrind's
//! callgrind counts a short run and a longer one of a plain loop, and the difference is the cycles'.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tierlock::{Keep, LockManager, Mutex, Scope};

use crate::{
    bench::{
        case::{Case, Label, TIERLOCK, WaitMode},
        failure::{BenchFailure, Result},
        host,
        jobs::{OpenLock, SharedLock, Visitor},
        process::Subject,
        progress::Progress,
        report::Row,
        worker,
    },
    lock::{AnyLock, subjects},
    peers::field::Field,
    peers::{server, service::Missing},
};

/// The word of the JSON.
pub(crate) const WORD: &str = "instructions";

/// Cycles of the short run, which makes everything ready, and how many more the longer one has.
const SHORT: u64 = 2_000;
const MORE: u64 = 10_000;

/// Notes in the quiet rows that stay in memory how many instructions a cycle is, if valgrind is
/// installed.
pub(crate) fn count(rows: &mut [Row], field: &mut Field) -> Result<()> {
    if !rows.iter().any(|row| is_in_memory(&row.label)) {
        return Ok(());
    }
    let missing = Missing::new("valgrind", "valgrind");
    let Some(valgrind) = server::find("valgrind") else {
        field.servers.missing.push(missing);
        return Ok(());
    };
    let progress = Progress::new(Duration::ZERO);
    for row in rows {
        let Some(lock) = lock_of(&row.label, field)? else { continue };
        let (scope, subject) = (row.label.scope, row.label.subject());
        progress.says(&format!("{scope}: counting instructions, {subject}"));
        match difference(&valgrind, &lock) {
            Ok(each) => {
                row.facts.insert(WORD, each);
            }
            // The times stand without it.
            Err(failure) => {
                field.servers.missing.push(missing.because()(failure));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Instructions of one cycle.
fn difference(valgrind: &Path, lock: &QuietLock) -> Result<f64> {
    let all = |cycles| Cycles { lock: lock.clone(), cycles }.instructions(valgrind);
    let (short, long) = (all(SHORT)?, all(SHORT + MORE)?);
    Ok((long.saturating_sub(short) as f64 / MORE as f64).round())
}

fn is_in_memory(label: &Label) -> bool {
    let quiet = label.case == Case::QUIET && label.scope != Scope::Host;
    label.mode == WaitMode::Blocking && (quiet || label.case == Case::KEPT)
}

/// The lock of a row that stays in memory.
fn lock_of(label: &Label, field: &mut Field) -> Result<Option<QuietLock>> {
    if !is_in_memory(label) {
        return Ok(None);
    }
    Ok(match (label.scope, label.subject) {
        (Scope::Thread, TIERLOCK) => Some(QuietLock::Tierlock),
        (Scope::Thread, "parking_lot") => Some(QuietLock::ParkingLot),
        (Scope::Thread, "std") => Some(QuietLock::Std),
        (Scope::Process, TIERLOCK | "robust-pthread" | "posix-semaphore") => {
            let all = subjects(field, Case::new("instructions", ""))?;
            let mut of_row = all.into_iter().filter(|Subject { name, .. }| *name == label.subject);
            of_row.next().map(|Subject { lock, .. }| QuietLock::Shared(lock))
        }
        (Scope::Host, TIERLOCK) => Some(QuietLock::Kept {
            leader: field.grounds.leader()?.address(),
            secret_file: field.grounds.secret_file()?,
            directory: match label.variant {
                Some(_) => Some(field.new_directory("kept")?),
                None => None,
            },
        }),
        // A lock that is system calls is not told by the instructions of its caller.
        _ => None,
    })
}

/// A child process that locks and unlocks without anything else.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cycles {
    lock: QuietLock,
    cycles: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum QuietLock {
    Tierlock,
    ParkingLot,
    Std,
    Shared(AnyLock),
    Kept { leader: String, secret_file: PathBuf, directory: Option<PathBuf> },
}

impl Cycles {
    /// How many instructions all of it is, as callgrind counts them.
    fn instructions(&self, valgrind: &Path) -> Result<u64> {
        let own = worker::command(self)?;
        let mut callgrind = Command::new(valgrind);
        callgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        callgrind.arg(own.get_program()).args(own.get_args()).stdin(Stdio::null());
        let output = callgrind.output().map_err(BenchFailure::io("cannot run valgrind"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        collected(&said).filter(|_| output.status.success()).ok_or_else(|| {
            let told = String::from_utf8_lossy(&output.stdout);
            BenchFailure::other(format!("valgrind counted nothing: {told}{said}"))
        })
    }
}

/// The number in `==1== Collected : 123456`.
pub(crate) fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

impl worker::ChildJob for Cycles {
    fn work(self) -> Result<()> {
        match self.lock {
            QuietLock::Tierlock => {
                let mutex = Mutex::new(0_u64);
                for _ in 0..self.cycles {
                    *black_box(&mutex).lock()? += 1;
                }
            }
            QuietLock::ParkingLot => {
                let mutex = parking_lot::Mutex::new(0_u64);
                (0..self.cycles).for_each(|_| *black_box(&mutex).lock() += 1);
            }
            QuietLock::Std => {
                let mutex = std::sync::Mutex::new(0_u64);
                for _ in 0..self.cycles {
                    *black_box(&mutex).lock().expect("no holder panics") += 1;
                }
            }
            QuietLock::Shared(lock) => lock.open(CyclesVisitor(self.cycles))?,
            QuietLock::Kept { leader, secret_file, directory } => {
                let locks = LockManager::builder()
                    .leaders([leader])
                    .secret_file(secret_file)
                    // All is some fifty times slower there.
                    .connect_timeout(Duration::from_secs(60))
                    .time_to_live(Duration::from_secs(60));
                let locks = match directory {
                    Some(directory) => locks.directory(directory),
                    None => locks,
                };
                let mutex = host::mutex(&locks.open()?, "kept/counted", Keep::Always)?;
                for _ in 0..self.cycles {
                    drop(black_box(&mutex).lock()?);
                }
            }
        }
        Ok(())
    }
}

struct CyclesVisitor(u64);

impl Visitor for CyclesVisitor {
    type Output = ();

    fn visit(self, mut lock: impl OpenLock + 'static) -> Result<()> {
        let mut count = 0_u64;
        (0..self.0).try_for_each(|_| lock.with(|| count = black_box(count + 1)))
    }
}

/// The counts for people: a line for each scope. Empty if nothing was counted.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for scope in Scope::ALL {
        let of_scope: Vec<String> = rows
            .iter()
            .filter(|row| row.label.scope == scope)
            .filter_map(|row| Some(format!("{} {}", row.label.subject(), row.facts.get(WORD)?)))
            .collect();
        if !of_scope.is_empty() {
            text += &format!("  {scope:<9}{}\n", of_scope.join("   "));
        }
    }
    if text.is_empty() { text } else { format!("Instructions of a quiet cycle\n{text}") }
}

#[cfg(test)]
mod tests;
