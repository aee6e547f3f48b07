use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::{house::CONNECTIONS_MAX, *};

/// A connection that has asked for a path. Of the answer it takes some 256 bytes before it is read.
async fn asked(house: &Arc<HttpHouse>, responder: &Arc<HttpResponder>, path: &str) -> DuplexStream {
    let (mut peer, stream) = tokio::io::duplex(256);
    // At once: what keeps others out would do so until its time is over.
    let place = tokio::select! {
        biased;
        place = house.place() => place,
        () = std::future::ready(()) => panic!("there is no place"),
    };
    let number = place.number();
    let task = tokio::spawn(serve_one(stream, place, responder.clone()));
    house.may_end(number, task.abort_handle());
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    peer.write_all(request.as_bytes()).await.unwrap();
    peer
}

/// Peers that ask for what is long and read none of it keep no other waiting.
#[tokio::test]
async fn answers_that_are_not_read_keep_no_probe_out() {
    let house = Arc::<HttpHouse>::default();
    let responder = Arc::new(HttpResponder::new(Vec::new(), None));
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut peer = asked(&house, &responder, "/page.js").await;
        // It is being answered.
        assert_eq!(peer.read_u8().await.unwrap(), b'H');
        idle.push(peer);
    }
    let mut text = String::new();
    asked(&house, &responder, "/healthz").await.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    // The first of them has made room, and the second has its whole answer.
    for (mut peer, is_whole) in idle.drain(..2).zip([false, true]) {
        let mut rest = String::new();
        peer.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest.ends_with(page::SCRIPT), is_whole, "{} bytes", rest.len());
    }
}

/// What is looked at before there is a leader is answered at once, and says so.
#[tokio::test]
async fn a_leader_that_has_not_started_is_neither_ready_nor_silent() {
    let house = Arc::<HttpHouse>::default();
    let responder = Arc::new(HttpResponder::new(Vec::new(), None));
    for path in ["/readyz", "/healthz", "/metrics", "/locks.json"] {
        let mut text = String::new();
        asked(&house, &responder, path).await.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{path}: {text}");
        assert!(text.ends_with("the leader has not started yet\n"), "{path}: {text}");
    }
    let mut text = String::new();
    asked(&house, &responder, "/").await.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// A lock that begins to be contended is seen at the next look of the page behind the end of what is shown to
/// all.
#[test]
fn the_page_is_less_than_a_second_behind() {
    let line = page::SCRIPT.lines().find_map(|line| line.strip_prefix("const EVERY_MS = "));
    let every = line.and_then(|rest| rest.strip_suffix(';')).unwrap().parse().unwrap();
    assert!(LOCKS_SHOWN + Duration::from_millis(every) < Duration::from_secs(1));
}
