//! Messages and records as bytes: golden ones, and hostile ones.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use super::ByteDice;
use crate::{
    error::{LostReason, Predecessor},
    name::Name,
    proto::{
        ClusterId, LeaseId, Place, ProcessMark, Proof, ReignId, RequestId, SessionId,
        bound::{Bound, BoundSize, NameHashes},
        history::{Attestation, Seen},
        record::{Record, Reservation},
        wire::{
            Acquire, ClientMessage, DeadlockCircle, DeadlockStep, DiskReplacement, Extras,
            FRAME_BYTES_MAX, FrameReader, GroupReport, HeldAbove, HeldLease, HolderInfo, Identity,
            LISTED_WAITERS_MAX, LeaderMessage, LeaderRank, LeaderStanding, LockInfo, MemberMessage,
            MemberReport, Message, Mode, NameUse, Page, PresentLeader, Received, Refusal,
            StepDownRefusal, UnknownKind, VERSION, Wait, WaitingRequest, WireError, decode_record,
            encode_frame, encode_record, held_messages, waiting_messages,
        },
    },
    time::Time,
    token::Token,
};

#[test]
fn every_message_of_a_client_keeps_its_bytes() {
    keep_their_bytes(client_messages(&mut Fixed), GOLDEN_CLIENT);
}

#[test]
fn every_message_of_a_leader_keeps_its_bytes() {
    keep_their_bytes(leader_messages(&mut Fixed), GOLDEN_LEADER);
}

#[test]
fn every_message_of_a_member_keeps_its_bytes() {
    let introduce =
        MemberMessage::Introduce { version: 1, from: "a".to_owned(), to: "b".to_owned() };
    let messages = vec![introduce, MemberMessage::Frame(vec![7, 8])];
    keep_their_bytes(messages, &["000101610162", "01020708"]);
}

#[test]
fn every_record_keeps_its_bytes() {
    let bytes: Vec<_> =
        records(&mut Fixed).iter().map(|record| hex(&encode_record(record))).collect();
    assert_eq!(bytes, GOLDEN_RECORDS, "{bytes:#?}");
    for record in records(&mut Fixed) {
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
    }
}

#[test]
fn what_is_sent_is_what_arrives_in_any_pieces() {
    let mut dice = ByteDice::new(1);
    for _ in 0..200 {
        let from_client = client_messages(&mut dice);
        let from_leader = leader_messages(&mut dice);
        arrives(&from_client, &mut dice);
        arrives(&from_leader, &mut dice);
        for record in records(&mut dice) {
            assert_eq!(decode_record(&encode_record(&record)), Ok(record));
        }
    }
}

#[test]
fn hostile_bytes_are_refused_and_harm_no_other() {
    let mut dice = ByteDice::new(2);
    for _ in 0..20_000 {
        let length = dice.below(80) as usize;
        let bytes: Vec<u8> = (0..length).map(|_| dice.next() as u8 >> dice.below(8)).collect();
        read_hostile(&bytes);
    }
    // Close to what is expected they are the most dangerous.
    for _ in 0..300 {
        for message in client_messages(&mut dice) {
            read_bent(&message, &mut dice);
        }
        for message in leader_messages(&mut dice) {
            read_bent(&message, &mut dice);
        }
    }
}

#[test]
fn a_frame_announced_too_long_is_refused_before_it_comes() {
    let mut reader = FrameReader::new();
    reader.extend(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    let refused = Err(WireError::TooLong { bytes: FRAME_BYTES_MAX as u64 + 1 });
    assert_eq!(reader.next::<ClientMessage>(), refused);
    let mut reader = FrameReader::new();
    reader.extend(&[0; 4]);
    assert_eq!(reader.next::<ClientMessage>(), Err(WireError::Empty));
}

#[test]
fn a_list_announced_too_long_is_refused_before_room_is_made_for_it() {
    // `Held` with 2^60 leases.
    let mut payload = vec![1, 253];
    payload.extend((1_u64 << 60).to_le_bytes());
    assert!(matches!(read::<ClientMessage>(&payload), Err(WireError::Malformed(_))));
}

#[test]
fn a_record_has_one_spelling() {
    let good = encode_record(&Record::EpochRaised { epoch: 5, starts_above: false });
    assert_eq!(good, [1, 4, 5, 0]);
    // The number in a longer form, and something behind it.
    assert!(decode_record(&[1, 4, 251, 5, 0, 0]).is_err());
    assert!(decode_record(&[1, 4, 5, 0, 0]).is_err());
}

#[test]
fn what_a_later_release_adds_to_a_message_is_skipped() {
    let mut dice = ByteDice::new(3);
    for _ in 0..50 {
        skips_what_it_does_not_know(client_messages(&mut dice), &mut dice);
        skips_what_it_does_not_know(leader_messages(&mut dice), &mut dice);
    }
}

fn skips_what_it_does_not_know<M>(messages: Vec<M>, dice: &mut ByteDice)
where
    M: Message + Clone + PartialEq + Debug,
{
    for message in messages {
        let mut bytes = payload(&message);
        bytes.extend((0..dice.below(20)).map(|_| dice.next() as u8));
        assert_eq!(read(&bytes), Ok(Some(message)));
    }
}

#[test]
fn what_a_later_release_adds_to_an_element_of_a_list_is_skipped() {
    let mut dice = ByteDice::new(4);
    let lists = |message: &ClientMessage| {
        matches!(message, ClientMessage::Held { .. } | ClientMessage::Waiting { .. })
    };
    for message in client_messages(&mut dice).into_iter().filter(lists) {
        // The kind, how many there are, how long the one is that there is.
        let bytes = payload(&message);
        let [kind, 1, length, element @ ..] = &bytes[..] else { panic!("{bytes:?}") };
        assert_eq!(usize::from(*length), element.len(), "short enough for a byte");
        let longer = [&[*kind, 1, length + 3][..], element, &[1, 2, 3]].concat();
        assert_eq!(read(&longer), Ok(Some(message.clone())));
        // One that is shorter than its fields is of no release.
        let shorter = [&[*kind, 1, length - 1][..], &element[..element.len() - 1]].concat();
        assert!(read::<ClientMessage>(&shorter).is_err());
        let beyond = [&[*kind, 1, length + 3][..], element].concat();
        assert!(read::<ClientMessage>(&beyond).is_err());
    }
}

#[test]
fn a_kind_of_a_later_release_is_told_apart_from_nonsense() {
    let receive = |payload: &[u8]| {
        let mut reader = FrameReader::new();
        reader.extend(&(payload.len() as u32).to_le_bytes());
        reader.extend(payload);
        reader.next::<ClientMessage>()
    };
    let unknown = |kind, request| Ok(Some(Received::Unknown(UnknownKind { kind, request })));
    assert_eq!(receive(&[200, 7, 1, 2]), unknown(200, Some(RequestId(7))));
    assert_eq!(receive(&[200]), unknown(200, None));
    assert_eq!(receive(&[251, 255, 255, 9]), unknown(65_535, Some(RequestId(9))));
    assert!(matches!(receive(&[251, 255]), Err(WireError::Malformed(_))));
    // One that is known, and lacks a field.
    assert!(matches!(receive(&[5]), Err(WireError::Malformed(_))));
    let Ok(Some(Received::Unknown(unknown))) = receive(&[200, 7]) else { panic!("it is known") };
    let answer = ClientMessage::not_understood(unknown);
    let request = Some(RequestId(7));
    assert_eq!(answer, Some(LeaderMessage::NotUnderstood { kind: 200, request }));
    assert_eq!(LeaderMessage::not_understood(unknown), None, "nothing answers an answer");
}

#[test]
fn names_tokens_and_reasons_that_cannot_be_are_refused() {
    let check =
        |name: &[u8], token: &[u8]| read::<ClientMessage>(&[&[9, 1][..], name, token].concat());
    // `Check`: a good one, an empty name, a control character, no UTF-8, a token of 2^63.
    assert!(check(b"\x01a", &[7]).is_ok());
    assert!(check(b"\x00", &[7]).is_err());
    assert!(check(b"\x01\n", &[7]).is_err());
    assert!(check(b"\x01\xff", &[7]).is_err());
    let too_high = [&[253][..], &(1_u64 << 63).to_le_bytes()].concat();
    assert!(check(b"\x01a", &too_high).is_err());
    // `Lost` for reason 3, and for reason 0.
    assert!(read::<LeaderMessage>(&[8, 1, 1, 3]).is_ok());
    assert!(read::<LeaderMessage>(&[8, 1, 1, 0]).is_err());
    // `Release` how 1, and how 5.
    assert!(read::<ClientMessage>(&[6, 1, 1, 1, 1]).is_ok());
    assert!(read::<ClientMessage>(&[6, 1, 1, 1, 5]).is_err());
}

#[test]
fn an_identity_is_cut_at_a_character() {
    let long = "ä".repeat(100);
    let made = Identity::new(&long, "h", 1, &format!("a{long}"));
    assert_eq!((made.label.len(), made.command.len()), (128, 127));
}

#[test]
fn a_report_of_any_length_fits_its_frames() {
    for text in ["a", "sixteen bytes on", &"x".repeat(255)] {
        let held = HeldLease {
            lease: LeaseId { epoch: 1, count: 1 },
            name: name(text),
            first: Token::MAX,
            last: Token::MAX,
            last_used: Token::MAX,
            at_most: Some(Duration::MAX),
            kept: true,
            since: Duration::MAX,
            leaving: Some(Predecessor::Broken),
            reign: ReignId(u64::MAX),
            mode: Mode::Permits { count: u32::MAX, limit: u32::MAX },
            value: Some([7; 1024].into()),
        };
        let waiting = WaitingRequest {
            request: RequestId(u64::MAX),
            acquire: Acquire {
                name: name(text),
                wait: Wait::For(Duration::MAX),
                at_most: Some(Duration::MAX),
                keep: true,
                above: Token::MAX,
                at_least: Some(Duration::MAX),
                mode: Mode::Permits { count: u32::MAX, limit: u32::MAX },
                extras: Some(Box::new(Extras {
                    after: Some(RequestId(u64::MAX)),
                    holds: vec![LeaseId { epoch: u32::MAX, count: u64::MAX }; 16],
                    value: Some([7; 1024].into()),
                    above: vec![
                        HeldAbove {
                            cluster: ClusterId(u128::MAX),
                            name: name(text),
                            token: Token::MAX,
                            pid: u32::MAX,
                        };
                        3
                    ],
                })),
            },
            place: Some(Place { epoch: u32::MAX, count: u64::MAX }),
        };
        let mut count = 0;
        let frames = held_messages(vec![held; 5000]).chain(waiting_messages(vec![waiting; 5000]));
        for message in frames {
            count += match &message {
                ClientMessage::Held { leases } => leases.len(),
                ClientMessage::Waiting { requests } => requests.len(),
                _ => unreachable!(),
            };
            assert_eq!(read(&payload(&message)), Ok(Some(message)));
        }
        assert_eq!(count, 10_000);
    }
    assert_eq!(held_messages(Vec::new()).count(), 0);
}

#[test]
fn a_page_is_full_before_its_frame_is() {
    let text = "x".repeat(200);
    let holder = HolderInfo {
        identity: Identity::new(&text, &text, u32::MAX, &text),
        since: Duration::MAX,
        token: Token::MAX,
        mode: Mode::Permits { count: u32::MAX, limit: u32::MAX },
        claims_label: true,
        ahead: Some(u32::MAX),
    };
    for (label, waiters) in [("a", 0), ("a", 3), (&"n".repeat(255), 40)] {
        let lock = LockInfo {
            name: name(label),
            token: Token::MAX,
            holder: Some(holder.clone()),
            kept: false,
            remaining: Some(Duration::MAX),
            predecessor: Predecessor::Broken,
            waiters: vec![holder.clone(); waiters],
            reserved: false,
            others: vec![holder.clone(); waiters],
            holders: u32::MAX,
            permits: u32::MAX,
        };
        let mut page = Page::default();
        while page.add(lock.clone()) {}
        let locks = page.into_locks();
        assert!(locks.len() >= 2);
        assert!(locks.iter().all(|lock| lock.waiters.len() <= LISTED_WAITERS_MAX));
        let listed = LeaderMessage::Listed { query: RequestId(u64::MAX), locks, more: true };
        assert_eq!(read(&payload(&listed)), Ok(Some(listed)));
    }
}

#[test]
fn a_record_of_another_version_is_refused() {
    let mut bytes = encode_record(&Record::EpochRaised { epoch: 1, starts_above: false });
    bytes[0] = 9;
    assert_eq!(decode_record(&bytes), Err(WireError::RecordVersion(Some(9))));
    assert_eq!(decode_record(&[]), Err(WireError::RecordVersion(None)));
}

fn keep_their_bytes<M: Message + Clone + PartialEq + Debug>(messages: Vec<M>, golden: &[&str]) {
    let bytes: Vec<_> = messages.iter().map(|message| hex(&payload(message))).collect();
    assert_eq!(bytes, golden, "{bytes:#?}");
    for message in &messages {
        assert_eq!(read(&payload(message)), Ok(Some(message.clone())));
    }
    // A kind is the first byte of its messages; they are numbered without a hole.
    let kinds: BTreeSet<_> =
        messages.iter().map(|message| u32::from(payload(message)[0])).collect();
    assert_eq!(kinds, (0..M::KINDS).collect());
}

fn arrives<M: Message + PartialEq + Debug>(messages: &[M], dice: &mut ByteDice) {
    let mut bytes = Vec::new();
    for message in messages {
        encode_frame(message, &mut bytes).unwrap();
    }
    let mut reader = FrameReader::new();
    let mut arrived = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(rest.len().min(1 + dice.below(60) as usize));
        reader.extend(piece);
        while let Some(received) = reader.next::<M>().unwrap() {
            arrived.push(received.known().unwrap());
        }
        rest = later;
    }
    assert_eq!(arrived, messages);
}

fn read_bent<M: Message>(message: &M, dice: &mut ByteDice) {
    let mut bytes = payload(message);
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len() as u64) as usize;
        match dice.below(4) {
            0 => bytes[at] = dice.next() as u8,
            1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes[at] = 250 + dice.below(6) as u8,
            _ => bytes.truncate(at.max(1)),
        }
    }
    read_hostile(&bytes);
}

/// Nothing to assert but that it comes back.
fn read_hostile(bytes: &[u8]) {
    let _ = read::<ClientMessage>(bytes);
    let _ = read::<LeaderMessage>(bytes);
    let _ = decode_record(bytes);
    let mut reader = FrameReader::new();
    reader.extend(bytes);
    while let Ok(Some(_)) = reader.next::<ClientMessage>() {}
}

fn payload<M: Message>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(message, &mut bytes).unwrap();
    assert_eq!(bytes[..4], (bytes.len() as u32 - 4).to_le_bytes());
    bytes.split_off(4)
}

fn read<M: Message>(payload: &[u8]) -> Result<Option<M>, WireError> {
    let mut reader = FrameReader::new();
    reader.extend(&(payload.len() as u32).to_le_bytes());
    reader.extend(payload);
    Ok(reader.next()?.and_then(Received::known))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Where the numbers of an example come from.
trait Source {
    fn number(&mut self, golden: u64) -> u64;

    fn small(&mut self, golden: u32) -> u32 {
        self.number(golden.into()) as u32
    }

    fn duration(&mut self, golden_ms: u64) -> Duration {
        Duration::from_nanos(self.number(golden_ms * 1_000_000))
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (!self.number(1).is_multiple_of(4)).then_some(value)
    }

    fn name(&mut self) -> Name {
        let number = self.number(42);
        name(&format!("orders/{number}"))
    }

    fn token(&mut self, golden: u64) -> Token {
        Token::new(self.number(golden) >> 1).unwrap()
    }
}

/// The golden numbers.
struct Fixed;

impl Source for Fixed {
    fn number(&mut self, golden: u64) -> u64 {
        golden
    }
}

impl Source for ByteDice {
    fn number(&mut self, _golden: u64) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }
}

fn acquire(source: &mut impl Source, wait: Wait) -> Acquire {
    let at_most = source.duration(60_000);
    let at_least = source.duration(20_000);
    Acquire {
        name: source.name(),
        wait,
        at_most: source.maybe(at_most),
        keep: source.number(1) % 2 == 1,
        above: source.token(18),
        at_least: source.maybe(at_least),
        mode: mode(source),
        extras: {
            let after = Some(RequestId(source.number(8)));
            let (holds, value) = (vec![lease(source)], value(source));
            let above = (0..source.number(0) % 3).map(|_| HeldAbove {
                cluster: ClusterId(source.number(1).into()),
                name: source.name(),
                token: source.token(18),
                pid: source.small(7),
            });
            let above = above.collect();
            source.maybe(Box::new(Extras { after, holds, value, above }))
        },
    }
}

fn value(source: &mut impl Source) -> Option<Arc<[u8]>> {
    let value = [source.small(6) as u8].into();
    source.maybe(value)
}

fn mode(source: &mut impl Source) -> Mode {
    match source.small(3) % 4 {
        0 => Mode::Exclusive,
        1 => Mode::Shared,
        2 => Mode::Upgradable,
        _ => Mode::Permits { count: source.small(2), limit: source.small(5) },
    }
}

fn lease(source: &mut impl Source) -> LeaseId {
    LeaseId { epoch: source.small(3), count: source.number(17) }
}

fn place(source: &mut impl Source) -> Place {
    Place { epoch: source.small(3), count: source.number(300) }
}

fn holder(source: &mut impl Source) -> HolderInfo {
    HolderInfo {
        identity: Identity::new("checkout", "node-1", source.small(4711), "sleep 1"),
        since: source.duration(1500),
        token: source.token(1 << 42),
        mode: mode(source),
        claims_label: false,
        ahead: None,
    }
}

fn client_messages(source: &mut impl Source) -> Vec<ClientMessage> {
    let wide = |source: &mut dyn FnMut() -> u64| u128::from(source()) << 64 | u128::from(source());
    let mut numbers = || source.number(0x1122_3344_5566_7788);
    let (session, proof, cluster) = (wide(&mut numbers), wide(&mut numbers), wide(&mut numbers));
    let wait = Wait::For(source.duration(2500));
    vec![
        ClientMessage::Hello {
            version: VERSION,
            capabilities: 0,
            session: SessionId(session),
            proof: Proof(proof),
            count: source.number(2),
            cluster: source.maybe(ClusterId(cluster)),
            seen: {
                let epoch = source.small(3);
                let reign = ReignId(source.number(0x99aa_bbcc_ddee_ff00));
                let attestation = Attestation(cluster.wrapping_add(1));
                let cluster = ClusterId(cluster);
                source.maybe(Box::new(Seen { cluster, epoch, reign, attestation }))
            },
            time_to_live: source.duration(5000),
            identity: Identity::new("checkout", "node-1", source.small(4711), "sleep 1"),
            process: ProcessMark(source.number(77).into()),
        },
        ClientMessage::Held {
            leases: vec![HeldLease {
                lease: lease(source),
                name: source.name(),
                first: source.token(500),
                last: source.token(70_000),
                last_used: source.token(502),
                at_most: Some(source.duration(1000)),
                kept: source.number(1) % 2 == 1,
                since: source.duration(90),
                leaving: source.maybe(Predecessor::Panicked),
                reign: ReignId(source.number(0x99aa_bbcc_ddee_ff00)),
                mode: mode(source),
                value: value(source),
            }],
        },
        ClientMessage::Waiting {
            requests: vec![WaitingRequest {
                request: RequestId(source.number(9)),
                place: Some(place(source)),
                acquire: acquire(source, Wait::Forever),
            }],
        },
        ClientMessage::Ready,
        ClientMessage::Acquire {
            request: RequestId(source.number(9)),
            acquire: acquire(source, wait),
        },
        ClientMessage::Cancel { request: RequestId(source.number(9)) },
        ClientMessage::Release {
            lease: lease(source),
            last_used: source.token(502),
            how: Predecessor::Panicked,
        },
        ClientMessage::Renew { sent_at: Time::from_nanos(source.number(123_456_789)) },
        ClientMessage::Goodbye,
        ClientMessage::Acquire {
            request: RequestId(source.number(10)),
            acquire: acquire(source, Wait::No),
        },
        ClientMessage::Check {
            query: RequestId(source.number(11)),
            name: source.name(),
            token: source.token(502),
        },
        ClientMessage::List {
            query: RequestId(source.number(12)),
            after: Some(source.name()),
            limit: source.small(100),
        },
        ClientMessage::Break {
            query: RequestId(source.number(13)),
            name: source.name(),
            token: source.token(502),
        },
        ClientMessage::Use { lease: lease(source), kept: true },
        ClientMessage::TopUp { lease: lease(source) },
        ClientMessage::Lower { lease: lease(source), count: source.small(2) },
        ClientMessage::Observe { query: RequestId(source.number(15)), name: source.name() },
        ClientMessage::StopObserving { query: RequestId(source.number(15)) },
        ClientMessage::Upgrade {
            request: RequestId(source.number(16)),
            lease: lease(source),
            tries: true,
        },
        ClientMessage::Downgrade {
            request: RequestId(source.number(17)),
            lease: lease(source),
            last_used: source.token(502),
            to: Mode::Shared,
        },
        ClientMessage::AskStanding { query: RequestId(source.number(18)) },
        ClientMessage::StepDown {
            query: RequestId(source.number(19)),
            reign: ReignId(source.number(0x99aa_bbcc_ddee_ff00)),
        },
        ClientMessage::AskGroup { query: RequestId(source.number(20)) },
        ClientMessage::Replace { query: RequestId(source.number(21)), member: "b".to_owned() },
        ClientMessage::Acquire {
            request: RequestId(source.number(9)),
            acquire: Acquire {
                extras: Some(Box::new(Extras {
                    above: vec![HeldAbove {
                        cluster: ClusterId(source.number(1).into()),
                        name: source.name(),
                        token: source.token(18),
                        pid: source.small(4711),
                    }],
                    ..Extras::default()
                })),
                ..Acquire::exclusive(source.name(), Wait::Forever)
            },
        },
    ]
}

fn leader_messages(source: &mut impl Source) -> Vec<LeaderMessage> {
    let id = u128::from(source.number(0x1122_3344_5566_7788)) << 40;
    let mut messages = vec![
        LeaderMessage::Welcome {
            version: VERSION,
            capabilities: 0,
            session: SessionId(id),
            time_to_live: source.duration(5000),
            epoch: source.small(3),
            reign: ReignId(source.number(0x99aa_bbcc_ddee_ff00)),
            cluster: ClusterId(id + 1),
            members: vec!["10.0.0.1:7420".to_owned()],
            renew_every: source.duration(100),
            attestation: Attestation(id + 3),
        },
        LeaderMessage::NotLeader {
            try_next: Some("10.0.0.2:7420".to_owned()),
            cluster: ClusterId(id + 1),
            epoch: Some(source.small(3)),
        },
        LeaderMessage::Gone { session: SessionId(id) },
        LeaderMessage::Queued {
            request: RequestId(source.number(9)),
            place: place(source),
            holder: Some(holder(source)),
        },
        LeaderMessage::Granted {
            request: RequestId(source.number(9)),
            lease: lease(source),
            first: source.token(500),
            last: source.token(70_000),
            predecessor: Predecessor::Died,
            at_most: Some(source.duration(1000)),
        },
        LeaderMessage::Released { lease: lease(source) },
        LeaderMessage::Recall { lease: lease(source) },
        LeaderMessage::Lost { lease: lease(source), why: LostReason::Broken },
        LeaderMessage::Renewed {
            sent_at: Time::from_nanos(source.number(123_456_789)),
            renew_every: source.duration(100),
        },
        LeaderMessage::Checked { query: RequestId(source.number(11)), good: true },
        LeaderMessage::Listed {
            query: RequestId(source.number(12)),
            locks: vec![LockInfo {
                name: source.name(),
                token: source.token(502),
                holder: Some(holder(source)),
                kept: false,
                remaining: Some(source.duration(4000)),
                predecessor: Predecessor::Expired,
                waiters: vec![holder(source)],
                reserved: true,
                others: Vec::new(),
                holders: 1,
                permits: 0,
            }],
            more: true,
        },
        LeaderMessage::Broke { query: RequestId(source.number(13)), found: true },
        LeaderMessage::ToppedUp { lease: lease(source), last: source.token(90_000) },
        LeaderMessage::Raised { epoch: source.small(4), attestation: Attestation(id + 4) },
        LeaderMessage::NotUnderstood { kind: 99, request: Some(RequestId(source.number(14))) },
        LeaderMessage::Leads {
            query: RequestId(source.number(15)),
            leader: {
                let value = [source.small(6) as u8].into();
                let token = source.token(502);
                source.maybe(PresentLeader { token, value })
            },
        },
        LeaderMessage::Converted {
            request: RequestId(source.number(16)),
            lease: lease(source),
            token: source.token(503),
        },
        LeaderMessage::Standing {
            query: RequestId(source.number(18)),
            standing: Box::new(LeaderStanding {
                rank: LeaderRank::StandsBy,
                cluster: source.maybe(ClusterId(id + 1)),
                reign: source.maybe(ReignId(0x99aa_bbcc_ddee_ff00)),
                epoch: source.small(3),
                lasts: Some(source.duration(1000)),
                address: source.maybe("10.0.0.2:7420".to_owned()),
                proven: Some(source.duration(160)),
                journal_took: Some(source.duration(2)),
                lag: Some(source.duration(90)),
            }),
        },
        LeaderMessage::StepsDown { query: RequestId(source.number(19)), refused: None },
        LeaderMessage::StepsDown {
            query: RequestId(source.number(19)),
            refused: Some(StepDownRefusal::HasOwnJournal),
        },
        LeaderMessage::Group {
            query: RequestId(source.number(20)),
            report: {
                let member = MemberReport {
                    member: "b".to_owned(),
                    address: "10.0.0.2:7420".to_owned(),
                    votes: true,
                    is_heard: false,
                    lag: source.maybe(12),
                    disk_waits: true,
                };
                source.maybe(Box::new(GroupReport {
                    own: "a".to_owned(),
                    leader: Some("a".to_owned()),
                    is_made: true,
                    own_disk_waits: false,
                    members: vec![member],
                }))
            },
        },
        LeaderMessage::Replaced {
            query: RequestId(source.number(21)),
            outcome: DiskReplacement::NotLeading(Some("c".to_owned())),
        },
        LeaderMessage::Replaced {
            query: RequestId(source.number(21)),
            outcome: DiskReplacement::Unknown("no majority".to_owned()),
        },
    ];
    let refusals = [
        Refusal::WouldBlock,
        Refusal::TimedOut,
        Refusal::TooManySessions,
        Refusal::TooManyLeases,
        Refusal::TooManyWaiters,
        Refusal::TimeToLive,
        Refusal::OtherCluster,
        Refusal::TooFarAbove,
        Refusal::Tokens,
        Refusal::Storage,
        Refusal::TooManyClaims,
        Refusal::DiskFull,
        Refusal::TooManyReservations,
        Refusal::AtLeastTooLong,
        Refusal::NotSupported,
        Refusal::TooOld,
        Refusal::UsedAs(NameUse::Lock),
        Refusal::UsedAs(NameUse::Permits { limit: 3 }),
        Refusal::NotPermitted,
    ];
    messages.extend(refusals.map(|why| LeaderMessage::Refused {
        request: RequestId(source.number(9)),
        why,
        holder: None,
    }));
    messages.push(listed(source, true));
    messages.push(listed(source, false));
    let steps = [false, true].map(|is_hidden| DeadlockStep {
        identity: Identity::new("checkout", "node-1", source.small(4711), "sleep 1"),
        has: (!is_hidden).then(|| source.name()),
        waits_for: Some(source.name()),
    });
    messages.push(LeaderMessage::Deadlocked {
        request: RequestId(source.number(9)),
        circle: Box::new(DeadlockCircle { steps: steps.into(), left_out: source.small(1) }),
    });
    messages
}

/// A name that 40 share, or that one has three permits of.
fn listed(source: &mut impl Source, is_shared: bool) -> LeaderMessage {
    LeaderMessage::Listed {
        query: RequestId(source.number(12)),
        locks: vec![LockInfo {
            name: source.name(),
            token: source.token(502),
            holder: Some(holder(source)),
            kept: is_shared,
            remaining: None,
            predecessor: Predecessor::Clean,
            waiters: Vec::new(),
            reserved: false,
            others: if is_shared { vec![holder(source)] } else { Vec::new() },
            holders: if is_shared { 40 } else { 1 },
            permits: if is_shared { 0 } else { 3 },
        }],
        more: false,
    }
}

fn took_over(source: &mut impl Source, waits_for_ms: Option<u64>, starts_above: bool) -> Record {
    Record::TookOver {
        epoch: source.small(3),
        reign: ReignId(source.number(0x99aa_bbcc_ddee_ff00)),
        waits_for: waits_for_ms.map(|golden_ms| source.duration(golden_ms)),
        starts_above,
    }
}

/// Four names and the parent of a fifth.
fn bound(source: &mut impl Source) -> Bound {
    let folder = source.number(42);
    let names = (0..5).map(|count| name(&format!("orders/{folder}/{count}")));
    let names = names.map(|name| NameHashes::of(&name));
    names.fold(Bound::NOTHING, |bound, name| bound.with(name, BoundSize::LARGEST))
}

fn records(source: &mut impl Source) -> Vec<Record> {
    let id = u128::from(source.number(0x1122_3344_5566_7788)) << 40;
    vec![
        took_over(source, None, false),
        took_over(source, Some(60_000), true),
        Record::Waited,
        Record::EpochRaised { epoch: source.small(3), starts_above: source.number(1) % 2 == 1 },
        Record::SessionOpened {
            session: SessionId(id),
            proof: Proof(id + 2),
            time_to_live: source.duration(5000),
            embedded: true,
            bound: Bound::EVERYTHING,
        },
        Record::SessionEnded { session: SessionId(id) },
        Record::LeaseRevoked {
            session: SessionId(id),
            lease: lease(source),
            name: source.name(),
            token: source.token(502),
            why: LostReason::HeldTooLong,
        },
        Record::Reserved {
            name: source.name(),
            reservation: Reservation {
                token: source.token(502),
                session: SessionId(id),
                request: RequestId(source.number(9)),
                at_least: source.duration(20_000),
                left: source.duration(8_000),
            },
        },
        Record::ReservationEnded { name: source.name(), token: source.token(502) },
        Record::SessionOpened {
            session: SessionId(id),
            proof: Proof(id + 2),
            time_to_live: source.duration(5000),
            embedded: false,
            bound: bound(source),
        },
    ]
}

const GOLDEN_CLIENT: &[&str] = &[
    "000100fe88776655443322118877665544332211fe887766554433221188776655443322110201fe8877665544332211887766554433221101fe8877665544332211887766554433221103fd00ffeeddccbbaa99fe89776655443322118877665544332211050008636865636b6f7574066e6f64652d31fb671207736c65657020314d",
    "01012e0311096f72646572732f3432fafbb888fbfb000101000100fc804a5d050101fd00ffeeddccbbaa99030205010106",
    "020126090103fb2c01096f72646572732f343202013c00010901140003020501080108010311010106",
    "03",
    "0409096f72646572732f34320102fc0065cd1d013c00010901140003020501080108010311010106",
    "0509",
    "060311fbfb0001",
    "07fc15cd5b07",
    "08",
    "040a096f72646572732f343200013c00010901140003020501080108010311010106",
    "090b096f72646572732f3432fbfb00",
    "0a0c01096f72646572732f343264",
    "0b0d096f72646572732f3432fbfb00",
    "0c031101",
    "0d0311",
    "0e031102",
    "0f0f096f72646572732f3432",
    "100f",
    "1110031101",
    "12110311fbfb0001",
    "1312",
    "1413fd00ffeeddccbbaa99",
    "1514",
    "16150162",
    "0409096f72646572732f34320200000000000114000000010f01096f72646572732f343209fb6712",
];
const GOLDEN_LEADER: &[&str] = &[
    "000100fe00000000008877665544332211000000050003fd00ffeeddccbbaa99fe01000000008877665544332211000000010d31302e302e302e313a3734323000fc00e1f505fe03000000008877665544332211000000",
    "01010d31302e302e302e323a37343230fe010000000088776655443322110000000103",
    "02fe00000000008877665544332211000000",
    "030903fb2c01012d08636865636b6f7574066e6f64652d31fb671207736c656570203101fc0065cd1dfd0000000000020000030205",
    "04090311fafbb88802010100",
    "060311",
    "070311",
    "08031103",
    "09fc15cd5b0700fc00e1f505",
    "0a0b01",
    "0b0c0171096f72646572732f3432fbfb00012d08636865636b6f7574066e6f64652d31fb671207736c656570203101fc0065cd1dfd00000000000200000302050001040003012d08636865636b6f7574066e6f64652d31fb671207736c656570203101fc0065cd1dfd00000000000200000302050101",
    "0c0d01",
    "0d0311fbc8af",
    "0e04fe04000000008877665544332211000000",
    "0f63010e",
    "100f01fbfb000106",
    "11100311fbfb00",
    "1212450101fe0100000000887766554433221100000001fd00ffeeddccbbaa9903010100010d31302e302e302e323a373432300100fc006889090100fc80841e000100fc804a5d05",
    "131300",
    "13130100",
    "1414011e01610101610100011501620d31302e302e302e323a373432300100010c01",
    "151502010163",
    "1515070b6e6f206d616a6f72697479",
    "05090000",
    "05090100",
    "05090200",
    "05090300",
    "05090400",
    "05090500",
    "05090600",
    "05090700",
    "05090800",
    "05090900",
    "05090a00",
    "05090b00",
    "05090c00",
    "05090d00",
    "05090e00",
    "05090f00",
    "0509100000",
    "050910010300",
    "05091100",
    "0b0c0171096f72646572732f3432fbfb00012d08636865636b6f7574066e6f64652d31fb671207736c656570203101fc0065cd1dfd00000000000200000302050100000000012d08636865636b6f7574066e6f64652d31fb671207736c656570203101fc0065cd1dfd00000000000200000302052800",
    "0b0c0144096f72646572732f3432fbfb00012d08636865636b6f7574066e6f64652d31fb671207736c656570203101fc0065cd1dfd0000000000020000030205000000000000010300",
    "1609023108636865636b6f7574066e6f64652d31fb671207736c656570203101096f72646572732f343201096f72646572732f34322708636865636b6f7574066e6f64652d31fb671207736c65657020310001096f72646572732f343201",
];
const GOLDEN_RECORDS: &[&str] = &[
    "010003fd00ffeeddccbbaa990000",
    "010003fd00ffeeddccbbaa99013c0001",
    "0105",
    "01040301",
    "0101fe00000000008877665544332211000000fe02000000008877665544332211000000050001",
    "0102fe00000000008877665544332211000000",
    "0103fe000000000088776655443322110000000311096f72646572732f3432fbfb0002",
    "0106096f72646572732f3432fbfb00fe000000000088776655443322110000000914000800",
    "0107096f72646572732f3432fbfb00",
    "0108fe00000000008877665544332211000000fe0200000000887766554433221100000005000004fc204a92cafcb34b92cbfc464d92ccfcd94e92cd01fc5061c34d",
];

/// Peers that know of no credentials hear nothing new where there are none.
#[test]
fn whether_a_label_is_proved_is_told_behind_all_else_where_some_are() {
    let identity = Identity::new("checkout", "vm", 7, "sh");
    let holder = |identity: &Identity, claims_label| HolderInfo {
        identity: identity.clone(),
        since: Duration::from_secs(1),
        token: Token::new(5).unwrap(),
        mode: Mode::Exclusive,
        claims_label,
        ahead: None,
    };
    let frame = |identity: &Identity, claims_label| {
        let mut bytes = Vec::new();
        let (request, why) = (RequestId(1), Refusal::WouldBlock);
        let holder = Some(holder(identity, claims_label));
        let refused = LeaderMessage::Refused { request, why, holder };
        encode_frame(&refused, &mut bytes).unwrap();
        bytes
    };
    let proved = identity.with_proved_label("boss");
    assert!(proved.label_is_proved && proved.label == "boss" && proved.host == "vm");
    let claimed = Identity::new("boss", "vm", 7, "sh");
    let plain = frame(&claimed, false);
    for (identity, claims_label, more) in
        [(&proved, false, 1), (&claimed, true, 1), (&claimed, false, 0)]
    {
        let frame = frame(identity, claims_label);
        assert_eq!(frame.len(), plain.len() + more);
        let mut reader = FrameReader::new();
        reader.extend(&frame);
        let message = reader.next::<LeaderMessage>().unwrap().unwrap().known().unwrap();
        let LeaderMessage::Refused { holder: Some(told), .. } = message else { panic!() };
        assert_eq!(told, holder(identity, claims_label));
        // How many stood before comes behind that, told or not.
        let counted = HolderInfo { ahead: Some(3), ..told };
        let (request, why, mut longer) = (RequestId(1), Refusal::WouldBlock, Vec::new());
        let refused = LeaderMessage::Refused { request, why, holder: Some(counted) };
        encode_frame(&refused, &mut longer).unwrap();
        assert_eq!(longer.len(), plain.len() + 2);
        let mut reader = FrameReader::new();
        reader.extend(&longer);
        let message = reader.next::<LeaderMessage>().unwrap().unwrap().known().unwrap();
        assert_eq!(message, refused);
    }
}
