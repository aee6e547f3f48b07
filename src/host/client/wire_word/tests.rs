use super::*;

fn owned() -> WireWord {
    let word = WireWord::new();
    assert_eq!(word.come(WireWish::Carry), Coming::Mine);
    assert_eq!(word.begin(), WireSigns(0), "the owner's own wish is none to be told");
    word
}

#[test]
fn one_owns_it_and_others_are_heard() {
    let word = owned();
    assert!(!word.own());
    assert_eq!(word.come(WireWish::Carry), Coming::Heard);
    assert!(word.is_rung());
    assert!(!word.leave(false) && !word.lie_down(true), "it looks first");
    assert!(word.begin().would_carry());
    assert!(word.leave(false));
    assert!(word.own());
}

#[test]
fn a_sleeping_owner_is_woken_once() {
    let word = owned();
    assert!(word.lie_down(false));
    assert_eq!(word.come(WireWish::Reader), Coming::Asleep);
    assert_eq!(word.come(WireWish::Read), Coming::Heard);
    word.get_up();
    let signs = word.begin();
    assert!(signs.wants_reader() && signs.is_unread() && !signs.would_carry());
    assert!(word.lie_down(false));
    word.get_up();
    assert!(word.leave(false));
}

#[test]
fn what_is_put_off_waits_for_a_tick_and_no_longer() {
    let word = owned();
    assert!(!word.put_off());
    assert!(!word.lie_down(false), "it would wait for a whole sleep");
    assert!(word.lie_down(true));
    assert!(!word.put_off());
    word.get_up();
    word.begin();
    assert!(word.lie_down(false));
    assert!(word.put_off(), "the owner would sleep past it");
    assert_eq!(word.come(WireWish::Send), Coming::Heard, "it is woken already");
    word.get_up();
    word.begin();
    // Free: the thread's next tick finds it.
    assert!(!word.put_off());
    assert!(word.leave(false));
    assert!(!word.put_off());
}

#[test]
fn a_reader_stays_through_owners_until_it_is_ended() {
    let word = owned();
    assert_eq!(word.come(WireWish::Read), Coming::Heard);
    assert!(!word.leave_to_reader(false));
    word.begin();
    assert!(word.leave_to_reader(false));
    assert_eq!(word.come(WireWish::Read), Coming::Mine);
    assert!(word.reads() && word.leave(false) && word.reads());
    assert!(word.own());
    word.end_reading();
    assert!(word.leave(false) && !word.reads());
}

#[test]
fn an_owner_that_abandons_it_leaves_what_came() {
    let word = owned();
    assert_eq!(word.come(WireWish::Carry), Coming::Heard);
    word.abandon();
    assert!(word.own());
    assert!(word.is_rung());
    assert!(word.begin().would_carry());
}

#[test]
fn what_has_come_to_an_owner_that_steps_out_is_seen_by_the_next() {
    let word = owned();
    assert_eq!(word.come(WireWish::Carry), Coming::Heard);
    word.step_out();
    assert_eq!(word.come(WireWish::Send), Coming::Mine);
    assert!(!word.own(), "another has it by now");
    assert!(word.begin().would_carry());
    assert!(word.leave(false) && word.own());
}

#[test]
fn the_thread_is_spared_one_tick_and_never_when_it_is_called() {
    let word = owned();
    assert!(word.leave(true));
    assert!(!word.own_at_tick(), "callers carry");
    assert!(word.own_at_tick());
    assert!(word.leave(false) && word.own_at_tick());
    assert!(word.leave(true));
    // What this one leaves is waited for.
    assert_eq!(word.come(WireWish::Carry), Coming::Mine);
    assert!(!word.own_at_tick(), "it is owned");
    assert!(word.leave(false) && word.own_at_tick());
    for leave in [WireWord::abandon, WireWord::step_out] {
        assert!(word.leave(true));
        assert_eq!(word.come(WireWish::Carry), Coming::Mine);
        leave(&word);
        assert!(word.own_at_tick());
    }
}
