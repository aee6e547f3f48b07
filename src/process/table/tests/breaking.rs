//! Locks that are taken away from holders who live. A helper is the holder or the one who breaks.

use super::*;
use crate::process::Unbroken;

/// Takes it away from the holder of this token, as another process.
fn break_it(path: &Path, text: &str, number: u64) -> Result<(), Unbroken> {
    open(path).break_lock(&name(text), token(number))
}

fn is_free(unbroken: Result<(), Unbroken>) -> bool {
    matches!(unbroken, Err(Unbroken::Free))
}

/// With which token somebody else holds it.
fn holder_of(unbroken: Result<(), Unbroken>) -> Option<Holder> {
    match unbroken {
        Err(Unbroken::HeldBy(holder)) => Some(holder),
        _ => None,
    }
}

#[test]
fn a_broken_holder_goes_on_and_its_release_frees_nobody() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "a");
    assert_eq!(holder.ask("broken"), "false");
    break_it(dir.path(), "a", 1).unwrap();
    assert_eq!(holder.ask("broken"), "true");
    let shown = status(dir.path(), "a").unwrap();
    assert_eq!((shown.holder, shown.predecessor), (None, Predecessor::Broken));

    let next = slot(dir.path(), "a");
    let taken = try_take(&next).unwrap();
    assert_eq!((taken.token, taken.predecessor), (token(3), Predecessor::Broken));
    // What it still does there reaches nobody, its release least of all.
    for line in ["raise 70", "widen", "release"] {
        assert_eq!(holder.ask(line), "done");
        assert!(try_take(&slot(dir.path(), "a")).is_none(), "{line}");
    }
    assert_eq!(holder.ask("broken"), "false", "it holds nothing");
    assert_eq!(holder.ask("try"), "busy");
    assert!(!next.is_broken());
    next.release(Predecessor::Clean);
    assert_eq!(holder.ask("try"), "taken 4 clean");
    assert_eq!(holder.ask("broken"), "false");
}

#[test]
fn a_stopped_holder_is_broken_and_hears_of_it_when_it_goes_on() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "a");
    let stale = slot(dir.path(), "a");
    holder.signal(Signal::STOP);
    holder.wait_until_stopped();
    break_it(dir.path(), "a", 1).unwrap();
    // Also for one who had looked the name up before.
    assert_eq!(try_take(&stale).unwrap().predecessor, Predecessor::Broken);
    assert!(try_take(&slot(dir.path(), "a")).is_none());
    holder.signal(Signal::CONT);
    assert_eq!(holder.ask("broken"), "true");
    assert_eq!(holder.ask("release"), "done");
    assert!(try_take(&slot(dir.path(), "a")).is_none());
}

/// live-mutex#131: break removes the wrong holder.
#[test]
fn only_the_holder_of_the_token_is_broken() {
    let dir = directory();
    assert!(is_free(break_it(dir.path(), "a", 1)), "there is no such name");
    assert_eq!(statuses(dir.path()).len(), 0, "and it makes none");
    let mut holder = Helper::holding(dir.path(), "a");
    for wrong in [0, 2, 1 << 40] {
        let found = holder_of(break_it(dir.path(), "a", wrong)).unwrap();
        assert_eq!((found.token, found.pid), (Some(token(1)), Some(holder.child.id())));
    }
    assert_eq!(holder.ask("broken"), "false");
    assert_eq!(holder.ask("release"), "done");
    assert!(is_free(break_it(dir.path(), "a", 1)), "it let go");
    assert_eq!(holder.ask("try"), "taken 2 clean");
    assert_eq!(holder_of(break_it(dir.path(), "a", 1)).unwrap().token, Some(token(2)));
    holder.kill();
    assert!(is_free(break_it(dir.path(), "a", 2)), "it is dead");
    assert_eq!(take(&slot(dir.path(), "a")).predecessor, Predecessor::Died);
    check_slots(&member(&open(dir.path())));
}

#[test]
fn of_two_breaks_at_once_one_does_it() {
    let dir = directory();
    for round in 0..20 {
        let held = slot(dir.path(), "a");
        let number = take(&held).token.get();
        let broken = thread::scope(|scope| {
            let breaks = [(); 2].map(|()| scope.spawn(|| break_it(dir.path(), "a", number)));
            breaks.map(|it| it.join().unwrap())
        });
        let done = broken.iter().filter(|broken| broken.is_ok()).count();
        assert_eq!(done, 1, "round {round}: {broken:?}");
        assert!(held.is_broken());
    }
    let member = member(&open(dir.path()));
    member.find(&name("another")).unwrap();
    check_slots(&member);
    assert!(header(&member).slots_used.load(Relaxed) <= 4, "slots are used again");
}

/// A holder that lets go and takes it again is another one.
#[test]
fn a_hold_begun_while_it_is_broken_stays() {
    for way in ["release", "kept"] {
        let dir = directory();
        let mut holder = Helper::holding(dir.path(), "a");
        let mut breaker = Helper::start(dir.path());
        assert_eq!(breaker.ask("member"), "done");
        assert_eq!(breaker.ask("stop-at MoveBegin"), "done");
        breaker.say("break a 1");
        breaker.wait_until_stopped();
        if way == "release" {
            assert_eq!(holder.ask("release"), "done");
            assert_eq!(holder.ask("try"), "taken 2 clean");
        }
        breaker.signal(Signal::CONT);
        let told = breaker.hear();
        match way {
            "release" => assert!(told.starts_with("held 2"), "{told}"),
            _ => assert_eq!(told, "broken"),
        }
        assert_eq!(holder.ask("broken"), (way == "kept").to_string());
        assert_eq!(holder.ask("release"), "done");
        let next = take(&slot(dir.path(), "a"));
        assert_eq!(next.predecessor == Predecessor::Broken, way == "kept");
        check_slots(&member(&open(dir.path())));
    }
}

/// Marked and not yet moved: nobody can take it, and its holder can let go.
#[test]
fn a_holder_that_lets_go_while_it_is_broken_lets_go() {
    for step in [Step::MoveBegun, Step::BreakUnnamed, Step::BreakTold] {
        let dir = directory();
        let mut holder = Helper::holding(dir.path(), "a");
        let mut breaker = Helper::start(dir.path());
        assert_eq!(breaker.ask("member"), "done");
        assert_eq!(breaker.ask(&format!("stop-at {step:?}")), "done");
        breaker.say("break a 1");
        breaker.wait_until_stopped();
        assert_eq!(holder.ask("broken"), (step == Step::BreakTold).to_string());
        assert_eq!(holder.ask("release"), "done");
        breaker.signal(Signal::CONT);
        let told = breaker.hear();
        assert_eq!(told, if step == Step::MoveBegun { "free" } else { "broken" }, "{step:?}");
        let left = take(&slot(dir.path(), "a")).predecessor;
        assert_eq!(left == Predecessor::Broken, step != Step::MoveBegun, "{step:?}");
        drop(slot(dir.path(), "another"));
        check_slots(&member(&open(dir.path())));
    }
}

/// Whoever won the word and has not written down its token yet is shown with the one before.
#[test]
fn a_holder_broken_before_it_wrote_its_token_down_has_a_smaller_one_than_the_next() {
    for (step, above, told) in [
        (Step::TakeEnd, 0, "busy"),
        (Step::TakeEntered, 0, "taken 2 clean"),
        (Step::TakeEntered, 500, "busy"),
    ] {
        let dir = directory();
        let mut holder = Helper::holding(dir.path(), "a");
        assert_eq!(holder.ask("release"), "done");
        assert_eq!(holder.ask("member"), "done");
        assert_eq!(holder.ask(&format!("stop-at {step:?}")), "done");
        holder.say(&format!("try-above {above}"));
        holder.wait_until_stopped();
        break_it(dir.path(), "a", 1).unwrap();
        let next = slot(dir.path(), "a");
        assert_eq!(try_take(&next).unwrap().token, token(3), "{step:?}");
        holder.signal(Signal::CONT);
        assert_eq!(holder.hear(), told, "{step:?} above {above}");
        assert_eq!(holder.ask("broken"), (told != "busy").to_string(), "{step:?}");
        assert!(!next.is_broken());
    }
}

#[test]
fn whoever_waits_for_a_broken_lock_gets_it() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "a");
    holder.signal(Signal::STOP);
    holder.wait_until_stopped();
    let mut waiters: Vec<Helper> = (0..3).map(|_| Helper::start(dir.path())).collect();
    for waiter in &mut waiters {
        assert_eq!(waiter.ask("slot a"), "done");
        waiter.say("turn");
    }
    let polled = slot(dir.path(), "a");
    let mut wait = Box::pin(polled.take_async(Token::ZERO, Time::NEVER));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(std::future::Future::poll(wait.as_mut(), &mut context).is_pending());
    while status(dir.path(), "a").unwrap().waiters.is_empty() {
        thread::yield_now();
    }
    break_it(dir.path(), "a", 1).unwrap();
    let mine = futures::executor::block_on(wait).unwrap();
    polled.release(Predecessor::Clean);
    let mut told = vec![format!("taken {} {}", mine.token, mine.predecessor)];
    told.extend(waiters.iter_mut().map(Helper::hear));
    told.sort();
    assert_eq!(told, ["taken 3 broken", "taken 4 clean", "taken 5 clean", "taken 6 clean"]);
    holder.signal(Signal::CONT);
    assert_eq!(holder.ask("broken"), "true");
}

#[test]
fn a_broken_name_is_as_wide_as_it_was() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "a");
    assert_eq!(holder.ask("widen"), "done");
    break_it(dir.path(), "a", 1).unwrap();
    let next = slot(dir.path(), "a");
    let taken = try_take(&next).unwrap();
    assert_eq!(taken.widened_by.as_deref(), Some("helper"));
    // Whoever widens it in the middle is either not told yet, and then it is wide, or told.
    for (step, is_told) in [(Step::BreakCopied, false), (Step::BreakTold, true)] {
        let mut holder = Helper::holding(dir.path(), &format!("{step:?}"));
        let mut breaker = Helper::start(dir.path());
        assert_eq!(breaker.ask("member"), "done");
        assert_eq!(breaker.ask(&format!("stop-at {step:?}")), "done");
        breaker.say(&format!("break {step:?} 1"));
        breaker.wait_until_stopped();
        assert_eq!(holder.ask("broken"), is_told.to_string());
        holder.say("widen");
        let shown = || status(dir.path(), &format!("{step:?}"));
        while !is_told && shown().unwrap().widened_by.is_none() {
            thread::yield_now();
        }
        breaker.signal(Signal::CONT);
        assert_eq!(breaker.hear(), "broken");
        assert_eq!(holder.hear(), "done");
        assert_eq!(holder.ask("broken"), "true");
        let taken = take(&slot(dir.path(), &format!("{step:?}")));
        assert!(taken.widened_by.is_some() || is_told, "{step:?}");
    }
}

#[test]
fn the_slot_of_a_broken_holder_is_used_again_once_it_has_let_go() {
    let dir = directory();
    let all = open(dir.path());
    let holders: Vec<Slot> = (0..5).map(|_| slot(dir.path(), "a")).collect();
    for (number, holder) in holders.iter().enumerate() {
        let token = take(holder).token.get();
        break_it(dir.path(), "a", token).unwrap();
        assert!(holder.is_broken(), "{number}");
    }
    let used = || header(&member(&all)).slots_used.load(Relaxed);
    assert_eq!(used(), 6);
    let last = take(&slot(dir.path(), "a")).token;
    // In another order than they came, and one by its end.
    for at in [3, 0, 4] {
        holders[at].release(Predecessor::Panicked);
    }
    drop(holders);
    for number in 0..5 {
        let fresh = all.slot(&name(&format!("f{number}"))).unwrap();
        let taken = try_take(&fresh).unwrap();
        assert_eq!((taken.token, taken.predecessor), (token(1), Predecessor::Clean));
        assert_eq!(taken.widened_by, None);
        fresh.release(Predecessor::Clean);
    }
    assert_eq!(used(), 6, "all five were used again");
    check_slots(&member(&all));
    assert_eq!(header(&member(&all)).names.load(Relaxed), 6);
    assert!(take(&slot(dir.path(), "a")).token > last);
}

#[test]
fn a_broken_holder_that_dies_leaves_its_slot_and_its_presence() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "a");
    break_it(dir.path(), "a", 1).unwrap();
    let taken = slot(dir.path(), "a");
    try_take(&taken).unwrap();
    holder.kill();
    let all = open(dir.path());
    header(&member(&all)).joined.store(0, Relaxed);
    let sweeper = open(dir.path());
    let alive = [&all, &sweeper, &taken.directory].map(|all| presence_of(dir.path(), all));
    let alive = alive.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(presences(dir.path()), HashSet::from(alive), "nothing names the dead one");
    drop(all.slot(&name("f")).unwrap());
    assert_eq!(header(&member(&all)).slots_used.load(Relaxed), 2);
    check_slots(&member(&all));
    assert!(try_take(&slot(dir.path(), "a")).is_none());
}

/// Marked to be moved, it is its dead holder's still once that is taken back.
#[test]
fn a_holder_that_dies_while_one_dies_breaking_it_is_told_and_swept() {
    for sweeps in [false, true] {
        let dir = directory();
        let stale = slot(dir.path(), "a");
        let mut holder = Helper::holding(dir.path(), "a");
        let mut breaker = Helper::start(dir.path());
        assert_eq!(breaker.ask("member"), "done");
        assert_eq!(breaker.ask("end-at MoveBegun"), "done");
        breaker.say("break a 1");
        assert!(!breaker.child.wait().unwrap().success());
        holder.kill();
        if sweeps {
            header(&member(&stale.directory)).joined.store(0, Relaxed);
            drop(member(&open(dir.path())));
            assert_eq!(presences(dir.path()).len(), 1, "only this process's is left");
        }
        let taken = try_take(&stale).unwrap();
        assert_eq!((taken.token, taken.predecessor), (token(2), Predecessor::Died));
        check_slots(&member(&open(dir.path())));
    }
}

/// `tierlock run`'s command keeps the old slot, and nobody else.
#[test]
fn a_command_with_the_proof_of_life_of_a_broken_lock_holds_nobody_up() {
    let dir = directory();
    let mut holder = Helper::holding(dir.path(), "a");
    let command = crate::process::tests::Orphan::of(&holder.ask("proof"));
    break_it(dir.path(), "a", 1).unwrap();
    assert_eq!(holder.ask("broken"), "true");
    let next = slot(dir.path(), "a");
    assert_eq!(try_take(&next).unwrap().predecessor, Predecessor::Broken);
    assert_eq!(holder.ask("release"), "done");
    command.kill();
    holder.kill();
    next.release(Predecessor::Clean);
    assert_eq!(take(&next).predecessor, Predecessor::Clean);
}

#[test]
fn names_that_moved_are_found_by_everybody_while_others_come_and_go() {
    let dir = directory();
    let all = open(dir.path());
    let stale: Vec<Slot> =
        (0..40).map(|number| all.slot(&name(&format!("n{number}"))).unwrap()).collect();
    for (number, slot) in stale.iter().enumerate() {
        try_take(slot).unwrap();
        if number % 3 == 0 {
            break_it(dir.path(), &format!("n{number}"), 1).unwrap();
        }
    }
    // The index grows over names that moved.
    member(&all).find(&name("more")).unwrap();
    for number in 0..3_000 {
        all.slot(&name(&format!("more{number}"))).unwrap();
    }
    for (number, held) in stale.iter().enumerate() {
        let other = slot(dir.path(), &format!("n{number}"));
        let is_moved = number % 3 == 0;
        assert_eq!(held.is_broken(), is_moved);
        assert_eq!(try_take(&other).is_some(), is_moved, "n{number}");
        if is_moved {
            other.release(Predecessor::Clean);
            assert!(forget(&all, &format!("n{number}")));
        }
        held.release(Predecessor::Clean);
        assert!(take(&slot(dir.path(), &format!("n{number}"))).token >= token(2));
    }
    drop(all.slot(&name("last")).unwrap());
    check_slots(&member(&all));
}

/// Every step of breaking a lock: whoever dies there, and whoever is stopped and goes on.
#[test]
fn whoever_dies_or_stops_while_breaking_a_lock_leaves_the_table_whole() {
    let breaks = |step: &&Step| (Step::BreakIntended..=Step::BreakTakenBack).contains(*step);
    let frees = |step: &&Step| (Step::FreeIntended..=Step::FreeDone).contains(*step);
    let words = [Step::MoveBegin, Step::MoveBegun, Step::MoveBack];
    let steps = Step::ALL.iter().filter(|step| breaks(step) || frees(step) || words.contains(step));
    for (step, ends) in steps.flat_map(|step| [(*step, true), (*step, false)]) {
        let dir = directory();
        let mut holder = Helper::holding(dir.path(), "a");
        assert_eq!(holder.ask("widen"), "done");
        let takes_back = [Step::MoveBack, Step::BreakTakenBack].contains(&step);
        if frees(&&step) {
            // What was left by another one is freed first.
            let old = slot(dir.path(), "old");
            take(&old);
            break_it(dir.path(), "old", 1).unwrap();
            old.release(Predecessor::Clean);
        }
        let mut waiter = Helper::start(dir.path());
        assert_eq!(waiter.ask("slot a"), "done");
        waiter.say("wait");
        while status(dir.path(), "a").unwrap().waiters.is_empty() {
            thread::yield_now();
        }
        let mut breaker = Helper::start(dir.path());
        assert_eq!(breaker.ask("member"), "done");
        if takes_back {
            assert_eq!(breaker.ask("stop-at MoveBegun"), "done");
        }
        let end = if ends { "end-at" } else { "stop-at" };
        assert_eq!(breaker.ask(&format!("{end} {step:?}")), "done");
        breaker.say("break a 1");
        if takes_back {
            breaker.wait_until_stopped();
            assert_eq!(holder.ask("release"), "done");
            breaker.signal(Signal::CONT);
        }
        if ends {
            let ended = breaker.child.wait().unwrap();
            assert!(!ended.success(), "{step:?} was not reached");
        } else {
            breaker.wait_until_stopped();
            breaker.signal(Signal::CONT);
            // Where it was let go, the waiter may be faster.
            let answers = if takes_back { &["free", "held 2"][..] } else { &["broken"] };
            assert!(answers.contains(&&*breaker.hear()), "{step:?}");
        }
        // The next change finishes or undoes it.
        drop(slot(dir.path(), "new"));
        let is_broken = holder.ask("broken") == "true";
        assert!(ends || takes_back || is_broken, "{step:?}");
        if !is_broken {
            assert_eq!(holder.ask("release"), "done");
        }
        let told = waiter.hear();
        let left = if is_broken { "taken 3 broken" } else { "taken 2 clean" };
        assert_eq!(told, left, "{step:?}, {end}");
        assert!(try_take(&slot(dir.path(), "a")).is_none(), "{step:?}");
        assert_eq!(status(dir.path(), "a").unwrap().widened_by.as_deref(), Some("helper"));
        let found: Vec<_> = statuses(dir.path()).into_iter().map(|status| status.name).collect();
        let names: HashSet<_> = found.iter().cloned().collect();
        assert_eq!(found.len(), names.len(), "{step:?}: {found:?}");
        // Its holder goes on, and everything that it left is used again.
        assert_eq!(holder.ask("release"), "done");
        drop(slot(dir.path(), "another"));
        check_slots(&member(&open(dir.path())));
        assert_eq!(checkup_damage(dir.path()), Vec::<String>::new(), "{step:?}");
    }
}

fn checkup_damage(path: &Path) -> Vec<String> {
    let found = crate::process::checkup::examine(path).unwrap();
    let damage =
        found.into_iter().filter(|found| found.level == crate::process::checkup::Level::Damage);
    damage.map(|found| found.text).collect()
}
