use std::sync::Arc;

use super::*;
use crate::proto::{
    group::entry::{GroupCommand, GroupMembers, GroupSeat, MemberName},
    journal::{ReignAttempt, ReignKey, Stamp},
    record::Record,
};

fn place(term: u64, index: u64) -> LogPlace {
    LogPlace { term, index }
}

fn entries() -> Vec<GroupEntry> {
    let seat = |name: &str, disk| GroupSeat { member: MemberName::new(name), disk: DiskId(disk) };
    let attempt = ReignAttempt {
        seen: Stamp(6),
        reign: ReignKey(0x0101),
        lasts: std::time::Duration::from_millis(400),
        address: Some("a:1".to_owned()),
        epoch_above: None,
        took_over: Record::Waited,
    };
    let records = Arc::new([Record::Waited]);
    let commands = [
        GroupCommand::TakeOver(Arc::new(attempt)),
        GroupCommand::Renew(ReignKey(0x0101)),
        GroupCommand::Append { reign: ReignKey(0x0101), number: 2, records },
        GroupCommand::Resign(ReignKey(0x0101)),
        GroupCommand::Made,
    ];
    let members = GroupMembers {
        cluster: ClusterId(9),
        voters: vec![seat("a", 1), seat("b", 2)],
        new_voters: vec![seat("a", 1)],
        learners: vec![seat("c", 3)],
    };
    let commands = commands.into_iter().map(GroupEntry::Command);
    [GroupEntry::Term(3), GroupEntry::Members(members)].into_iter().chain(commands).collect()
}

/// One of each kind, in their order.
fn bodies() -> Vec<GroupBody> {
    vec![
        GroupBody::Hello { is_empty: true, init: false },
        GroupBody::UnknownDisk,
        GroupBody::AskPreVote { term: 4, last: place(3, 300), is_leader_gone: true },
        GroupBody::PreVote { term: 4 },
        GroupBody::AskVote { term: 4, last: place(3, 300), is_transfer: true },
        GroupBody::Vote { term: 4, is_granted: true },
        GroupBody::Append { term: 4, commit: 299, after: place(3, 300), entries: entries() },
        GroupBody::Appended { term: 4, last: place(4, 307) },
        GroupBody::Commit { term: 4, commit: 306, last: place(4, 307) },
        GroupBody::Probe { term: 4 },
        GroupBody::Heard { term: 4 },
        GroupBody::Piece { term: 4, place: place(3, 300), whole: 5, at: 2, bytes: vec![7, 8] },
        GroupBody::HasPieces { term: 4, place: place(3, 300), bytes: 4 },
        GroupBody::Stand { term: 4 },
        GroupBody::AskConfirmed,
        GroupBody::Confirmed { term: 4, place: place(4, 307), acknowledged: place(4, 310) },
    ]
}

fn frame(body: GroupBody) -> GroupFrame {
    GroupFrame {
        cluster: Some(ClusterId(9)),
        from: DiskId(1),
        to: Some(DiskId(2)),
        is_low: true,
        body,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_frame_between_members_keeps_its_bytes() {
    let mut frames: Vec<_> = bodies().into_iter().map(frame).collect();
    frames.push(GroupFrame {
        cluster: None,
        to: None,
        is_low: false,
        ..frame(GroupBody::AskConfirmed)
    });
    let bytes: Vec<_> = frames.iter().map(GroupFrame::encode).collect();
    let shown: Vec<_> = bytes.iter().map(|bytes| hex(bytes)).collect();
    assert_eq!(shown, GOLDEN, "{shown:#?}");
    for (frame, bytes) in frames.iter().zip(&bytes) {
        assert_eq!(GroupFrame::decode(bytes), Ok(Some(frame.clone())));
    }
    // A kind is the first byte of its bodies; they are numbered without a hole.
    let kind = |body: &GroupBody| u32::from(spelled(body)[0]);
    assert!(bodies().iter().map(kind).eq(0..KINDS));
}

const GOLDEN: &[&str] = &[
    "06010901010201000100",
    "0601090101020101",
    "06010901010201020403fb2c0101",
    "060109010102010304",
    "06010901010201040403fb2c0101",
    "06010901010201050401",
    "060109010102010604fb2b0103fb2c010700030109020161010162020101610101016303020006fb010100fc00\
     84d7170103613a3100050201fb01010202fb01010201050203fb01010204",
    "06010901010201070404fb3301",
    "060109010102010804fb320104fb3301",
    "060109010102010904",
    "060109010102010a04",
    "060109010102010b0403fb2c010502020708",
    "060109010102010c0403fb2c0104",
    "060109010102010d04",
    "060109010102010e",
    "060109010102010f0404fb330104fb3601",
    "04000100000e",
];

/// The head of a frame, behind its length, with fields behind the last known one.
fn longer_head(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes[0];
    bytes[0] += 2;
    bytes.splice(1 + usize::from(length)..1 + usize::from(length), [0xFF, 0xEE]);
    bytes
}

#[test]
fn what_a_later_release_adds_to_a_frame_is_skipped() {
    for body in bodies() {
        let frame = frame(body);
        let mut bytes = longer_head(frame.encode());
        bytes.extend([0xFD, 0, 1]);
        assert_eq!(GroupFrame::decode(&bytes), Ok(Some(frame)));
    }
}

#[test]
fn a_body_of_a_kind_of_a_later_release_is_as_good_as_lost() {
    let bytes = frame(GroupBody::AskConfirmed).encode();
    let head = &bytes[..bytes.len() - 1];
    for kind in [KINDS as u8, 250] {
        let later = [head, &[kind, 0xFF, 0xFF, 0xFF]].concat();
        assert_eq!(GroupFrame::decode(&later), Ok(None));
    }
    assert!(GroupFrame::decode(head).is_err(), "it has no body");
    assert!(GroupFrame::decode(&[5, 0]).is_err(), "its head is not whole");
    assert!(GroupFrame::decode(&[]).is_err());
    let long = vec![0; GROUP_FRAME_BYTES_MAX + 1];
    assert!(matches!(GroupFrame::decode(&long), Err(WireError::TooLong { .. })));
}

/// What no member may skip is not skipped: an entry of a kind that only a later release knows.
#[test]
fn an_entry_of_a_later_release_is_refused() {
    let whole = |entries| GroupBody::Append { term: 4, commit: 9, after: place(3, 9), entries };
    let bytes = frame(whole(vec![GroupEntry::Term(3)])).encode();
    let mut later = bytes.clone();
    let kind = bytes.len() - 2;
    later[kind] = 3;
    assert!(GroupFrame::decode(&bytes).is_ok());
    assert!(GroupFrame::decode(&later).is_err());
}
