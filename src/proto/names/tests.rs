use super::*;
use crate::{error::Predecessor, token::Token};

struct NamesInTown {
    names: Names,
    locks: Slab<Lock>,
}

impl NamesInTown {
    fn new() -> NamesInTown {
        NamesInTown { names: Names::new(), locks: Slab::new() }
    }

    fn add(&mut self, number: usize) -> LockKey {
        let lock = Lock {
            name: name(number),
            token: Token::ZERO,
            holding: None,
            predecessor: Predecessor::Clean,
            is_reserved: false,
            is_joint: false,
        };
        let key = LockKey(self.locks.insert(lock));
        let hash = self.names.hash_of(&name(number));
        self.names.add(key, hash, &self.locks);
        key
    }

    fn remove(&mut self, number: usize) {
        let key = self.find(number).expect("it is in here");
        let lock = self.locks.remove(key.0);
        self.names.remove(key, &lock.name);
    }

    fn find(&self, number: usize) -> Option<LockKey> {
        self.names.find(&name(number), &self.locks)
    }

    fn listed(&mut self, after: Option<usize>) -> Vec<Name> {
        self.names.put_in_order(&self.locks);
        let keys = self.names.after(after.map(name).as_ref());
        keys.map(|key| self.locks[key.0].name.clone()).collect()
    }
}

fn name(number: usize) -> Name {
    Name::new(&format!("name/{number:06}")).unwrap()
}

#[test]
fn a_credential_lists_what_it_stands_for_in_order() {
    let mut town = NamesInTown::new();
    for number in [3, 12, 13, 129, 130, 1_300] {
        town.add(number);
    }
    town.names.put_in_order(&town.locks);
    let reached = |known: &str, after: Option<usize>| {
        let known = Name::new(known).unwrap();
        let after = after.map(name);
        let keys = town.names.reached_by(&known, after.as_ref());
        keys.map(|key| town.locks[key.0].name.clone()).collect::<Vec<_>>()
    };
    let all = [3, 12, 13, 129, 130, 1_300].map(name);
    assert_eq!(reached("name/", None), all);
    assert_eq!(reached("name/", Some(13)), all[3..]);
    assert_eq!(reached("name/000013", None), all[2..3]);
    assert_eq!(reached("name/000013", Some(12)), all[2..3]);
    for (known, after) in [
        ("name/000013", Some(13)),
        ("name", None),
        ("nam/", None),
        ("name/000", None),
        ("o/", None),
    ] {
        assert!(reached(known, after).is_empty(), "{known}");
    }
}

#[test]
fn names_that_come_and_go_are_found_and_listed_in_order() {
    let mut town = NamesInTown::new();
    // Most in no order, and some of them forgotten before, while and after they were put in it.
    let numbers: Vec<usize> = (0..5_000).map(|number| number * 7_919 % 5_000).collect();
    for (at, &number) in numbers.iter().enumerate() {
        town.add(number);
        if at.is_multiple_of(3) {
            town.remove(number);
        }
        if at == 2_500 {
            assert_eq!(town.listed(None).len(), 2_501 - 834);
        }
    }
    let kept = |at: &usize| !at.is_multiple_of(3);
    let mut left: Vec<_> = (0..5_000).filter(kept).map(|at| numbers[at]).collect();
    for number in left.split_off(2_000) {
        town.remove(number);
        assert_eq!(town.find(number), None);
    }
    left.sort_unstable();
    assert!(left.iter().all(|&number| town.find(number).is_some()));
    let named: Vec<_> = left.iter().map(|&number| name(number)).collect();
    assert_eq!(town.listed(None), named);
    assert_eq!(town.listed(Some(left[99])), named[100..]);
}

#[test]
fn a_name_of_a_moment_is_never_put_in_order() {
    let mut town = NamesInTown::new();
    for number in 0..10 * FRESH_MAX {
        town.add(number);
        town.remove(number);
    }
    assert!(town.names.order.is_empty() && town.names.fresh.len() == 1);
}

#[test]
fn names_that_stay_leave_little_to_do_for_a_list() {
    let mut town = NamesInTown::new();
    for number in 0..10 * FRESH_MAX {
        town.add(number);
    }
    assert_eq!(town.names.order.len(), 9 * FRESH_MAX);
}
