use super::*;

fn claim(place: LockPlace) -> ClaimedHold {
    let process = KnownProcess { pid: 4711, began: 99 };
    let name = Name::new("a b  c").unwrap();
    ClaimedHold { process, place, token: Token::new(7).unwrap(), name }
}

#[test]
fn claims_survive_the_environment() {
    for place in [
        LockPlace::Directory(DirectoryKey { device: 0xfe00, inode: u64::MAX }),
        LockPlace::Cluster(u128::MAX),
    ] {
        assert_eq!(ClaimedHold::from_line(&claim(place).to_line()), Some(claim(place)));
    }
    for line in ["", "deploy", "1 2 dir:3 4 x", "1 2 cluster:x 4 x", "1 2 dir:3:4 5 ", "a b c d e"]
    {
        assert_eq!(ClaimedHold::from_line(line), None, "{line}");
    }
}

#[test]
fn this_process_is_the_first_and_its_parent_the_second() {
    let found = ancestors();
    assert_eq!(found[0].pid, std::process::id());
    assert_eq!(found[1].pid, std::os::unix::process::parent_id());
    assert!(found[1].began <= found[0].began);
}

/// Each part of a claim counts: the process and its beginning, place, token and name.
#[test]
fn a_claim_that_differs_in_any_part_proves_nothing() {
    use crate::{api::status::LockState, error::Holder};
    let (here, there) = (LockPlace::Cluster(1), LockPlace::Cluster(2));
    let claims = [claim(here)];
    let process = claims[0].process;
    let lock = |name: &str, pid, token| LockStatus {
        state: LockState::Held,
        token: Token::new(token).unwrap(),
        holder: Some(Holder { pid: Some(pid), token: Token::new(token), ..Holder::default() }),
        ..LockStatus::free(Name::new(name).unwrap(), Scope::Host)
    };
    let is = |above: KnownProcess, place, lock: &LockStatus| {
        let (proofs, claims) = (Vec::new(), claims.to_vec());
        Inheritance { proofs, above: vec![above], claims }.claims(place, lock)
    };
    let held = lock("a b  c", 4711, 7);
    assert!(is(process, here, &held));
    assert!(!is(KnownProcess { began: 98, ..process }, here, &held));
    assert!(!is(KnownProcess { pid: 4712, ..process }, here, &held));
    assert!(!is(process, there, &held));
    assert!(!is(process, here, &lock("a b  c", 4711, 8)));
    assert!(!is(process, here, &lock("a b  c", 4712, 7)));
    assert!(!is(process, here, &lock("another", 4711, 7)));
    assert!(!is(process, here, &LockStatus { holder: None, ..held }));
}
