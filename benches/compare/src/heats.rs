//! Everything that can be compared, in the table's order. Of a case that comes in several sizes the
//! first is the one that budgets are about.

use std::time::Duration;

use tierlock::{Keep, Scope};

use crate::{
    bench::{
        case::{Case, Label, USUAL_RESIDENT_MIB},
        crowd::{Crowd, own_or_others},
        failure::Result,
        host::{self, ADAPTIVE, crowd_label, mutex, remote_clients, remote_names},
        process,
        run::{Entrant, Heat, Quiet},
    },
    lock::subjects,
    peers,
    peers::field::Field,
    reign,
};

const HELD: Duration = Duration::from_micros(200);

impl Case {
    /// Sixty-four threads of one process, one name for all.
    pub(crate) const ONE_NAME_64: Case = Case::new("one_name_64", "64 on one name");
    /// Two connections, one name, and neither ever locks twice in a row.
    pub(crate) const TURNS_2: Case = Case::new("turns_2", "2 in turns");
}

pub(crate) const HEATS: &[Heat<Field>] = &[
    Heat::new(Scope::Thread, Case::QUIET, 5.0, peers::thread::quiet),
    Heat::new(Scope::Thread, Case::THREADS, 3.0, |_| {
        peers::thread::contended(Case::THREADS, Duration::ZERO)
    }),
    Heat::new(Scope::Thread, Case::THREADS_200US, 9.0, |_| {
        peers::thread::contended(Case::THREADS_200US, HELD)
    }),
    Heat::new(Scope::Process, Case::QUIET, 7.0, |field| {
        process::quiet(subjects(field, Case::QUIET)?)
    }),
    Heat::new(Scope::Process, Case::PROCESSES_EMPTY, 7.0, |field| empty(field, 2)),
    Heat::new(Scope::Process, Case::PROCESSES_EMPTY, 5.0, |field| empty(field, 4)),
    Heat::new(Scope::Process, Case::PROCESSES_EMPTY, 5.0, |field| empty(field, 8)),
    Heat::new(Scope::Process, Case::PROCESSES_200US, 21.0, |field| held(field, 2)),
    Heat::new(Scope::Process, Case::PROCESSES_200US, 14.0, |field| held(field, 4)),
    Heat::new(Scope::Process, Case::PROCESSES_200US, 14.0, |field| held(field, 8)),
    Heat::new(Scope::Process, Case::HANDOVER, 7.0, |field| {
        process::handover(subjects(field, Case::HANDOVER)?)
    }),
    Heat::new(Scope::Process, Case::HOLDER_KILLED, 10.5, |field| killed(field, USUAL_RESIDENT_MIB)),
    Heat::new(Scope::Process, Case::HOLDER_KILLED, 6.0, |field| killed(field, 0)),
    Heat::new(Scope::Process, Case::HOLDER_KILLED, 12.0, |field| killed(field, 256)),
    Heat::new(Scope::Process, Case::HOLDER_KILLED, 24.0, |field| killed(field, 1_024)),
    Heat::new(Scope::Process, Case::NAMES, 1.0, |field| process::names(&field.grounds)),
    Heat::new(Scope::Host, Case::QUIET, 16.0, |field| {
        let mut entries = host::quiet(&mut field.grounds)?;
        peers::host::quiet(field, &mut entries)?;
        Ok(entries)
    }),
    Heat::new(Scope::Host, Case::CONNECTIONS_32, 9.0, |field| {
        let mut entries = host::connections_32(&mut field.grounds)?;
        peers::host::connections_32(field, &mut entries)?;
        Ok(entries)
    }),
    Heat::new(Scope::Host, Case::TASKS_256, 7.0, |field| {
        let mut entries = host::tasks_256(&mut field.grounds)?;
        peers::host::tasks_256(field, &mut entries)?;
        Ok(entries)
    }),
    Heat::new(Scope::Host, Case::ONE_NAME_8, 21.0, |field| {
        let mut entries = host::one_name_8(&mut field.grounds)?;
        peers::host::one_name_8(field, &mut entries)?;
        Ok(entries)
    }),
    Heat::new(Scope::Host, Case::ONE_NAME_64, 2.0, one_name_64),
    Heat::new(Scope::Host, Case::KEPT, 1.0, |field| host::kept(&mut field.grounds)),
    Heat::new(Scope::Host, Case::TURNS_2, 2.0, turns_2),
    Heat::new(Scope::Host, Case::REMOTE_1PCT, 2.0, |field| {
        let mut entries = host::remote_1pct(&mut field.grounds)?;
        let wants = own_or_others(0.01, remote_clients() as usize);
        peers::host::remote(field, remote_clients(), &remote_names("1pct"), wants, &mut entries)?;
        Ok(entries)
    }),
    Heat::new(Scope::Host, Case::LEADER_KILLED, 4.0, reign::leader_killed),
];

fn empty(field: &mut Field, processes: u32) -> Result<Vec<Entrant>> {
    let subjects = subjects(field, Case::PROCESSES_EMPTY)?;
    let case = Case::PROCESSES_EMPTY;
    process::contending(subjects, &field.grounds, case, processes, Duration::ZERO)
}

fn held(field: &mut Field, processes: u32) -> Result<Vec<Entrant>> {
    let subjects = subjects(field, Case::PROCESSES_200US)?;
    process::contending(subjects, &field.grounds, Case::PROCESSES_200US, processes, HELD)
}

fn killed(field: &mut Field, resident_mib: u32) -> Result<Vec<Entrant>> {
    let label = Label {
        resident_mib: Some(resident_mib),
        ..Label::new(Scope::Process, Case::HOLDER_KILLED)
    };
    // The holder before may still be on its way out.
    if !field.has_memory_for(&label.title(), (u64::from(resident_mib) << 20) * 2) {
        return Ok(Vec::new());
    }
    process::holder_killed(subjects(field, Case::HOLDER_KILLED)?, resident_mib)
}

fn one_name_64(field: &mut Field) -> Result<Vec<Entrant>> {
    let locks = field.grounds.leader()?.connect()?;
    let mutex = std::sync::Arc::new(mutex(&locks, "one/64", Keep::Adaptive)?);
    let clients = (0..64).map(|_| {
        let mutex = mutex.clone();
        move |_: usize, section: &mut dyn FnMut()| {
            let _guard = mutex.lock()?;
            section();
            Ok(())
        }
    });
    let label = Label { note: Some(ADAPTIVE), ..crowd_label(Case::ONE_NAME_64, 64) };
    let mut entries = vec![Entrant::new(label, Crowd::new(clients, |_, _| 0))];
    peers::host::one_name_64(field, &mut entries)?;
    Ok(entries)
}

fn turns_2(field: &mut Field) -> Result<Vec<Entrant>> {
    let mut entries = Vec::new();
    for (variant, keep) in [(None, Keep::Adaptive), (Some("keeping off"), Keep::Never)] {
        let name = format!("turns/{keep:?}");
        let one = mutex(&field.grounds.leader()?.connect()?, &name, keep)?;
        let other = mutex(&field.grounds.leader()?.connect()?, &name, keep)?;
        let note = (keep == Keep::Adaptive).then_some(ADAPTIVE);
        let label = Label { variant, note, clients: 2, ..Label::new(Scope::Host, Case::TURNS_2) };
        entries.push(Entrant::new(
            label,
            Quiet(move || {
                drop(one.lock()?);
                drop(other.lock()?);
                Ok(())
            }),
        ));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
