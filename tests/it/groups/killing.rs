//! Members of a group killed, and restarted in good order, again and again under load; see
//! [`killing`](crate::killing).

use std::{sync::Mutex as StdMutex, time::Instant};

use super::*;
use crate::killing::{
    KilledLeaders, is_heavy, kill_again_and_again, kills, tell, tell_idle_cost, under_load,
};

/// L, as members have it unless they are told otherwise: for a machine that does nothing else. Here it is
/// long enough for one that builds beside.
fn reign() -> &'static str {
    if is_heavy() { "400ms" } else { "2s" }
}

/// A group, and the member that is killed.
struct KilledMembers {
    rig: GroupRig,
    members: Vec<Member>,
    killed: usize,
}

impl KilledMembers {
    fn new() -> KilledMembers {
        let (rig, members) = GroupRig::of_three(reign());
        KilledMembers { rig, members, killed: 0 }
    }
}

impl KilledLeaders for KilledMembers {
    fn locks(&self) -> LockManager {
        self.rig.locks()
    }

    fn kill(&mut self) -> Instant {
        self.killed = first_to_reign(&self.members);
        let killed = Instant::now();
        self.members[self.killed].kill();
        killed
    }

    /// By what they say it cannot be told: a line may be read late.
    fn had_moved(&self) -> bool {
        true
    }

    fn restore(&mut self) {
        self.members[self.killed] = self.rig.start(self.killed, &[]);
        self.members[self.killed].says("it stands by");
    }
}

#[test]
fn members_killed_again_and_again_lose_no_lock() {
    let what = format!("in a group of three, L = {}, the member that reigns killed", reign());
    kill_again_and_again(&what, &mut KilledMembers::new());
}

/// Each time the member that reigns loses its reign while none can follow, and has it again: what was said on its
/// connections of before counts for nothing.
#[test]
fn a_reign_that_is_lost_to_none_again_and_again_loses_no_lock() {
    let (rig, members) = GroupRig::of_three(reign());
    under_load(
        || rig.locks(),
        |_| {},
        0..kills(),
        |number| {
            if is_heavy() {
                eprintln!("a reign that is lost to none: {} of {}", number + 1, kills());
            }
            let alone = first_to_reign(&members);
            let others = || members.iter().enumerate().filter(move |(number, _)| *number != alone);
            others().for_each(|(_, member)| member.signal(Signal::STOP));
            members[alone].says("its reign is over");
            others().for_each(|(_, member)| member.signal(Signal::CONT));
            first_to_reign(&members);
        },
    );
}

/// When anything new was granted last, and the longest pause since that was looked at.
#[derive(Default)]
struct Pauses(StdMutex<(Option<Instant>, Duration)>);

impl Pauses {
    fn granted(&self) {
        let now = Instant::now();
        let (last, longest) = &mut *self.0.lock().unwrap();
        let pause = last.replace(now).map_or(Duration::ZERO, |last| now - last);
        *longest = pause.max(*longest);
    }

    fn take(&self) -> Duration {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

/// One after the other, as for a new release. The figures are the longest pause in which no client was granted
/// anything new while a member was restarted, until the group was whole again.
#[test]
fn a_rolling_restart_under_load_loses_nothing() {
    let KilledMembers { rig, mut members, .. } = KilledMembers::new();
    let (pauses, quiet) = (Pauses::default(), StdMutex::new(Vec::new()));
    let (mut of_reigning, mut of_others) = (Vec::new(), Vec::new());
    under_load(
        || rig.locks(),
        |_| pauses.granted(),
        0..kills().max(3),
        |number| {
            let number = number % 3;
            let reigning = first_to_reign(&members);
            quiet.lock().unwrap().push(pauses.take());
            members[number].signal(Signal::TERM);
            assert_eq!(members[number].ended().code(), Some(0));
            members[number] = rig.start(number, &[]);
            rig.until_whole(3);
            let took = if number == reigning { &mut of_reigning } else { &mut of_others };
            took.push(pauses.take());
        },
    );
    let what = format!("longest pause between new grants, group of three, L = {}", reign());
    tell(&format!("{what}, the member that reigns restarted"), of_reigning);
    tell(&format!("{what}, another member restarted"), of_others);
    tell(&format!("{what}, none restarted"), quiet.into_inner().unwrap());
}

#[test]
fn idle_members_tell_what_they_cost() {
    let KilledMembers { rig, members, .. } = KilledMembers::new();
    rig.until_whole(3);
    let pids: Vec<_> = members.iter().map(|member| member.child.borrow().id()).collect();
    tell_idle_cost(&format!("each member of a group of three, L = {}", reign()), &pids);
    let clients: Vec<_> = (0..20).map(|_| rig.locks()).collect();
    let named = clients.iter().enumerate();
    let held: Vec<_> =
        named.map(|(number, locks)| hold(locks, &format!("held {number}"))).collect();
    tell_idle_cost("the same with 20 clients, each of which holds a lock", &pids);
    held.into_iter().for_each(give);
}
