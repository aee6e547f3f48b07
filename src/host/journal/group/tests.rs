use super::*;
use crate::proto::{
    ConnectionId,
    group::{DiskId, GroupBody},
};

const CONNECTION: ConnectionId = ConnectionId(3);

fn door() -> MemberDoor {
    MemberDoor {
        own: MemberName::new("a"),
        addresses: "a=10.0.0.1,b=10.0.0.2,c=10.0.0.3".parse().unwrap(),
        mail: Arc::new(GroupMail::new(Arc::new(|_| {})).unwrap()),
        names: BTreeMap::new(),
        frames: Vec::new(),
    }
}

fn introduce(version: u32, from: &str, to: &str) -> MemberMessage {
    MemberMessage::Introduce { version, from: from.to_owned(), to: to.to_owned() }
}

fn frame() -> GroupFrame {
    let body = GroupBody::Heard { term: 4 };
    GroupFrame { cluster: None, from: DiskId(1), to: None, is_low: false, body }
}

/// While a group is upgraded, its members are of different releases.
#[test]
fn a_member_of_a_later_release_is_let_in_and_what_only_that_knows_is_not_heard() {
    let mut door = door();
    door.handle(CONNECTION, introduce(u32::MAX, "b", "a")).unwrap();
    door.handle(CONNECTION, MemberMessage::Frame(frame().encode())).unwrap();
    let mut later = frame().encode();
    *later.iter_mut().rev().nth(1).unwrap() = 200;
    door.handle(CONNECTION, MemberMessage::Frame(later)).unwrap();
    assert_eq!(door.frames, [(MemberName::new("b"), frame())]);
}

#[test]
fn what_a_member_is_not_let_in_for_is_said_in_words() {
    let mut door = door();
    let mut refused = |message| door.handle(CONNECTION, message).unwrap_err();
    assert!(refused(introduce(0, "b", "a")).contains("version 0"));
    assert!(refused(introduce(1, "b", "c")).contains("this is a, and not c"));
    assert!(refused(introduce(1, "a", "a")).contains("a is no other member"));
    assert!(refused(introduce(1, "x", "a")).contains("x is no other member"));
    assert!(refused(MemberMessage::Frame(frame().encode())).contains("which member it is"));
    door.handle(CONNECTION, introduce(1, "b", "a")).unwrap();
    assert!(door.handle(CONNECTION, MemberMessage::Frame(vec![9])).is_err());
    assert!(door.frames.is_empty());
}
