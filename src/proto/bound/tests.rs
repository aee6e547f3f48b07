use super::*;

pub(in crate::proto) fn hashes(name: &str) -> NameHashes {
    NameHashes::of(&Name::new(name).unwrap())
}

pub(in crate::proto) fn bound_of(names: &[&str]) -> Bound {
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
