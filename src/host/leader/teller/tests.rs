use std::sync::mpsc;

use super::*;
use crate::{
    host::net::quic::TurnedAway,
    proto::{
        ClientId, SessionId,
        leader::{MachineEvent, SessionNote},
        wire::Identity,
    },
};

const PATIENCE: Duration = Duration::from_secs(60);

fn ended(label: &str) -> LeaderEvent {
    let identity = Identity::new(label, "here", 7, "program");
    let client = ClientId(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().to_bits());
    LeaderEvent::of(MachineEvent::SessionEnded {
        session: SessionNote { session: SessionId(1), identity, client, claims_label: false },
    })
}

const ENDED: EventSource = EventSource::Kind(LeaderEventKind::SessionEnded);

fn teller() -> (Arc<Teller>, mpsc::Receiver<String>) {
    let (said, heard) = mpsc::channel();
    let changes = said.clone();
    let teller = Teller::new(EventCallbacks {
        on_change: Arc::new(move |text| drop(changes.send(format!("change: {text}")))),
        on_event: Some(Arc::new(move |event| drop(said.send(event.to_string())))),
    });
    (Arc::new(teller), heard)
}

#[test]
fn events_are_told_in_their_order_and_changes_of_reign_to_both() {
    let (teller, heard) = teller();
    teller.tell(LeaderEvent::reign("it reigns", Some(3)));
    teller.tell(ended("job\n"));
    teller.tell(LeaderEvent::began(4));
    teller.finish(PATIENCE);
    let told: Vec<_> = heard.try_iter().collect();
    assert_eq!(
        told,
        [
            "change: it reigns",
            "it reigns",
            "session ended in good order: job\\n on here (pid 7) at 127.0.0.1",
            "it reigns from now on, in epoch 4"
        ]
    );
}

#[test]
fn a_callback_that_blocks_or_panics_holds_up_no_leader() {
    let (blocked, waits) = (Arc::new(Mutex::new(())), Duration::from_millis(1));
    let (said, heard) = mpsc::channel();
    let blocking = blocked.clone();
    let teller = Arc::new(Teller::new(EventCallbacks {
        on_change: Arc::new(|_| {}),
        on_event: Some(Arc::new(move |event: &LeaderEvent| {
            drop(blocking.lock());
            let _ = said.send(event.to_string());
            assert!(!event.to_string().contains("epoch"), "this panic is asked for");
        })),
    }));
    let held = blocked.lock();
    teller.tell(LeaderEvent::began(1));
    for _ in 0..2 * QUEUE_MAX {
        teller.tell(ended("job"));
    }
    teller.finish(waits);
    assert_eq!(heard.try_iter().count(), 0);
    assert!(teller.untold.lock().queue.len() <= QUEUE_MAX);
    drop(held);
    teller.finish(PATIENCE);
    assert_eq!(heard.try_iter().count() as u64, 1 + TOLD_MAX);
}

#[test]
fn a_flood_of_one_kind_is_counted_and_leaves_room_for_others() {
    let (teller, heard) = teller();
    let begin = Instant::now();
    for _ in 0..TOLD_MAX + 5 {
        teller.tell_at(ENDED, || ended("job"), begin);
    }
    // What is not told is not put into words either.
    teller.tell_at(ENDED, || panic!("it is not told"), begin);
    let slow = || LeaderEvent::journal_slow("append", Duration::from_millis(1500));
    teller.tell_at(EventSource::Kind(LeaderEventKind::JournalSlow), slow, begin);
    teller.finish(PATIENCE);
    let told: Vec<_> = heard.try_iter().collect();
    assert_eq!(told.len() as u64, TOLD_MAX + 1);
    assert_eq!(told.last().unwrap(), "the journal was slow: it took 1.5 s (append)");
    teller.look_at(begin + WINDOW / 2);
    teller.finish(PATIENCE);
    assert_eq!(heard.try_iter().count(), 0);
    assert!(teller.has_left_out.load(Relaxed));
    teller.look_at(begin + WINDOW);
    teller.finish(PATIENCE);
    assert_eq!(heard.recv().unwrap(), "6 more events of the kind session_ended are not told");
    assert!(!teller.has_left_out.load(Relaxed));
}

/// As where the system gives no thread: the leader's own must not wait for itself.
#[test]
fn an_event_that_is_told_at_once_waits_for_no_lock() {
    let (said, heard) = mpsc::channel();
    let callbacks = EventCallbacks {
        on_change: Arc::new(|_| {}),
        on_event: Some(Arc::new(move |event: &LeaderEvent| drop(said.send(event.to_string())))),
    };
    let teller = Arc::new(Teller { run: |work| work(), ..Teller::new(callbacks) });
    let begin = Instant::now();
    for _ in 0..TOLD_MAX + 1 {
        teller.tell_at(ENDED, || ended("job"), begin);
    }
    teller.look_at(begin + WINDOW);
    assert_eq!(heard.try_iter().count() as u64, TOLD_MAX + 1);
}

/// An attacker without the secret makes as many refusals as it likes.
#[test]
fn peers_without_the_secret_hide_no_client_that_was_refused() {
    let (teller, heard) = teller();
    let begin = Instant::now();
    let peer = ClientId(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().to_bits());
    for _ in 0..5 * TOLD_MAX {
        let refused = || LeaderEvent::turned_away(peer, TurnedAway::OtherSecret);
        teller.tell_at(EventSource::Unauthenticated, refused, begin);
    }
    let refused = || {
        let identity = Identity::new("late", "here", 7, "program");
        let why = crate::proto::wire::Refusal::TooManySessions;
        let (session, client) = (SessionId(1), peer);
        let session = SessionNote { session, identity, client, claims_label: false };
        LeaderEvent::of(MachineEvent::SessionRefused { session, why })
    };
    teller.tell_at(EventSource::Kind(LeaderEventKind::SessionRefused), refused, begin);
    teller.finish(PATIENCE);
    let told: Vec<_> = heard.try_iter().collect();
    assert_eq!(told.len() as u64, UNAUTHENTICATED_TOLD_MAX + 1);
    assert!(told.last().unwrap().contains("late on here"), "{told:?}");
    teller.look_at(begin + WINDOW);
    teller.finish(PATIENCE);
    let words = "4900 more events of the kind session_refused are not told";
    assert_eq!(heard.recv().unwrap(), words);
}
