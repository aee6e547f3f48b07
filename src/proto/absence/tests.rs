use super::*;
use crate::proto::bound::tests::{bound_of, hashes};

#[test]
fn what_is_on_its_way_counts_only_when_it_is_there_and_narrowing_at_once() {
    let (a, b) = (hashes("a"), hashes("b"));
    let mut bound = SessionBound::default();
    bound.hand_over(1, bound.handed().with(a, BoundSize::LARGEST));
    bound.hand_over(2, bound.handed().with(b, BoundSize::LARGEST));
    assert!(!bound.covers(a));
    bound.arrived(1);
    assert!(bound.covers(a) && !bound.covers(b));
    bound.arrived(2);
    assert!(bound.covers(a) && bound.covers(b));
    let narrow = bound.narrowed([b].into_iter(), BoundSize::LARGEST).unwrap();
    bound.hand_over(3, narrow);
    assert!(bound.covers(b) && !bound.covers(a), "it is narrow from its handing over on");
    bound.hand_over(4, bound.handed().with(a, BoundSize::LARGEST));
    bound.arrived(3);
    assert!(!bound.covers(a));
    bound.arrived(4);
    assert!(bound.covers(a) && bound.covers(b));
    assert_eq!(bound.narrowed([a, b].into_iter(), BoundSize::LARGEST), None, "it is no less");
}

#[test]
fn what_had_no_room_is_made_again_from_what_is_behind_it() {
    let (a, b, c) = (hashes("a"), hashes("b"), hashes("c"));
    let mut bound = SessionBound::default();
    bound.hand_over(1, bound.handed().with(a, BoundSize::LARGEST));
    bound.hand_over(2, bound.handed().with(b, BoundSize::LARGEST));
    assert!(bound.refused(1) && !bound.refused(1));
    assert!(bound.handed().covers(a), "the one behind it has it, too");
    assert!(bound.refused(2));
    assert!(!bound.handed().covers(a) && !bound.handed().covers(b) && !bound.is_on_its_way());
    bound.hand_over(3, bound.handed().with(c, BoundSize::LARGEST));
    bound.arrived(3);
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
    let looked_at: Vec<_> = std::iter::from_fn(|| absent.pop_freed()).collect();
    assert!(looked_at.contains(&lock) && looked_at.contains(&HeldUp::Question(3)));
}
