use super::*;

const HERE: u32 = 1;
const IN_CHILD: u32 = 2;

#[test]
fn a_writer_comes_in_once_all_readers_apart_have_left() {
    let cell = GuardCell::new();
    assert!(cell.enter_apart(HERE) && cell.enter_apart(HERE));
    assert!(cell.is_occupied(HERE) && !cell.has_writer(HERE));
    assert!(!cell.enter(HERE) && !cell.upgrade(HERE));
    cell.leave_apart(HERE);
    assert!(!cell.enter(HERE), "one is still inside");
    cell.leave_apart(HERE);
    assert!(cell.enter(HERE) && cell.has_writer(HERE));
    assert!(!cell.enter_apart(HERE));
    cell.leave();
    assert!(!cell.is_occupied(HERE));
}

#[test]
fn the_last_reader_apart_becomes_a_writer_and_a_reader_again() {
    let cell = GuardCell::new();
    assert!(cell.enter_apart(HERE) && cell.upgrade(HERE));
    assert!(cell.has_writer(HERE) && !cell.enter_apart(HERE));
    cell.downgrade(HERE);
    assert!(!cell.has_writer(HERE) && cell.enter_apart(HERE));
    cell.leave_apart(HERE);
    assert!(cell.upgrade(HERE));
    cell.leave_apart(HERE);
    assert!(!cell.is_occupied(HERE), "as a writer it leaves the same way");
}

#[test]
fn guards_that_existed_at_a_fork_are_not_inside_in_the_child() {
    let cell = GuardCell::new();
    assert!(cell.enter_apart(HERE) && cell.enter_apart(HERE));
    assert!(!cell.is_occupied(IN_CHILD) && !cell.has_writer(IN_CHILD));
    assert!(cell.enter_apart(IN_CHILD) && cell.upgrade(IN_CHILD));
    cell.leave();
    assert!(cell.enter(IN_CHILD));
}
