use super::*;

fn hashes(name: &str) -> NameHashes {
    NameHashes::of(&Name::new(name).unwrap())
}

fn bound_of(names: &[&str]) -> Bound {
    let add = |bound: Bound, name: &&str| bound.with(hashes(name), BoundSize::LARGEST);
    names.iter().fold(Bound::NOTHING, add)
}

#[test]
fn hashes_are_part_of_the_format() {
    assert_eq!(hashes("orders/42"), NameHashes { name: 0xd7e5_2b5f, parent: 0x0de7_54f9 });
    assert_eq!(hashes("nightly"), NameHashes { name: 0x8c34_c90a, parent: 0x811c_9dc5 });
}

#[test]
fn four_names_then_four_parents_then_everything() {
    let four = bound_of(&["a/1", "a/2", "b/1", "c"]);
    for name in ["a/1", "a/2", "b/1", "c"] {
        assert!(four.covers(hashes(name)));
    }
    for name in ["a/3", "b/2", "d", "a"] {
        assert!(!four.covers(hashes(name)), "{name}");
    }
    let parent = four.with(hashes("a/3"), BoundSize::LARGEST);
    assert!(parent.covers(hashes("a/4")) && !parent.covers(hashes("b/2")));
    assert!(!parent.covers(hashes("a/4/5")), "a parent is the name up to the last slash");
    let all = ["x", "y/1", "z/1", "v/1"];
    let many = all.iter().fold(parent, |bound, name| bound.with(hashes(name), BoundSize::LARGEST));
    assert!(many.is_everything() && many == Bound::EVERYTHING);
    assert!(many.covers(hashes("anything/at/all")));
}

#[test]
fn the_parent_of_names_without_one_covers_only_such_names() {
    let bound = bound_of(&["a", "b", "c", "d", "e"]);
    assert!(bound.covers(hashes("f")));
    for name in ["a/1", "/f", "f/"] {
        assert!(!bound.covers(hashes(name)), "{name}");
    }
}

#[test]
fn a_bound_is_the_same_in_whatever_order_its_names_came() {
    assert_eq!(bound_of(&["a", "b", "c", "d"]), bound_of(&["d", "b", "a", "c", "b"]));
}

#[test]
fn a_bound_is_read_as_it_was_written() {
    let bound = bound_of(&["a/1", "a/2", "b/1", "c", "d/1", "e"]);
    let (names, parents) = bound.hashes();
    assert_eq!(Bound::read(names, parents), Some(bound));
    assert_eq!(Bound::read(&[2, 1], &[]), None, "in another order");
    assert_eq!(Bound::read(&[1, 1], &[]), None, "twice");
    assert_eq!(Bound::read(&[1, 2, 3, 4, 5], &[]), None, "too many");
}

#[test]
fn what_is_on_its_way_counts_only_when_it_is_there_and_narrowing_at_once() {
    let (a, b) = (hashes("a"), hashes("b"));
    let mut bound = SessionBound::default();
    bound.hand_over(1, bound.handed().with(a, BoundSize::LARGEST));
    bound.hand_over(2, bound.handed().with(b, BoundSize::LARGEST));
    assert!(!bound.covers(a));
    bound.committed(1);
    assert!(bound.covers(a) && !bound.covers(b));
    bound.committed(2);
    assert!(bound.covers(a) && bound.covers(b));
    let narrow = bound.narrowed([b].into_iter(), BoundSize::LARGEST).unwrap();
    bound.hand_over(3, narrow);
    assert!(bound.covers(b) && !bound.covers(a), "it is narrow from its handing over on");
    bound.hand_over(4, bound.handed().with(a, BoundSize::LARGEST));
    bound.committed(3);
    assert!(!bound.covers(a));
    bound.committed(4);
    assert!(bound.covers(a) && bound.covers(b));
    assert_eq!(bound.narrowed([a, b].into_iter(), BoundSize::LARGEST), None, "it is no less");
}

#[test]
fn what_had_no_room_is_made_again_from_what_is_behind_it() {
    let (a, b, c) = (hashes("a"), hashes("b"), hashes("c"));
    let mut bound = SessionBound::default();
    bound.hand_over(1, bound.handed().with(a, BoundSize::LARGEST));
    bound.hand_over(2, bound.handed().with(b, BoundSize::LARGEST));
    assert!(bound.unwritten(1) && !bound.unwritten(1));
    assert!(bound.handed().covers(a), "the one behind it has it, too");
    assert!(bound.unwritten(2));
    assert!(!bound.handed().covers(a) && !bound.handed().covers(b) && !bound.is_on_its_way());
    bound.hand_over(3, bound.handed().with(c, BoundSize::LARGEST));
    bound.committed(3);
    assert!(bound.covers(c) && !bound.covers(a));
}

#[test]
fn a_name_is_open_once_the_last_absent_bound_with_it_is_gone() {
    let (a, other) = (hashes("in/a"), hashes("b"));
    let parent = BoundSize { names: 0, parents: 1 };
    let bounds = [
        bound_of(&["in/a"]),
        bound_of(&["in/a", "b"]),
        Bound::NOTHING.with(hashes("in/c"), parent),
        Bound::EVERYTHING,
    ];
    let mut absent = AbsentBounds::default();
    bounds.iter().for_each(|bound| absent.add(bound));
    let lock = HeldUp::Lock(LockKey(7));
    for (place, bound) in bounds.iter().rev().enumerate() {
        assert!(absent.covers(a));
        absent.hold_up(a, lock);
        absent.hold_up(other, HeldUp::Question(3));
        absent.remove(bound);
        assert_eq!(absent.covers(a), place < 3);
    }
    assert!(!absent.covers(other));
    let looked_at: Vec<_> = std::iter::from_fn(|| absent.pop_let_go()).collect();
    assert!(looked_at.contains(&lock) && looked_at.contains(&HeldUp::Question(3)));
}
