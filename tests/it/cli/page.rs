//! `tierlock serve --http`: the page, metrics, health, and which requests are answered.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::{
    browser::{Browser, HEADLESS, chromium},
    *,
};
use crate::helper::Helper;

/// A leader with a page, and where that is.
struct ShownLeader {
    leader: Leader,
    page: SocketAddr,
}

impl Place {
    fn shown_leader(&self, options: &[&str]) -> ShownLeader {
        let all = [&["--http", "127.0.0.1:0"], options].concat();
        let mut leader = self.leader_with(&all);
        let page = page_of(&mut leader.process);
        ShownLeader { leader, page }
    }
}

pub(super) fn page_of(process: &mut Running) -> SocketAddr {
    let line = process.line();
    let address = line.strip_prefix("shown at http://").and_then(|rest| rest.strip_suffix('/'));
    address.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

/// An answer: its status, its head and its body.
struct Heard {
    status: u16,
    head: String,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What is said word by word is answered like this.
fn say(page: SocketAddr, words: &str) -> Heard {
    let mut stream = TcpStream::connect(page).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(words.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Heard { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(page: SocketAddr, path: &str) -> Heard {
    get_with(page, path, "")
}

/// `more`: further lines of the request, each with its end.
fn get_with(page: SocketAddr, path: &str, more: &str) -> Heard {
    say(page, &format!("GET {path} HTTP/1.1\r\nHost: {page}\r\n{more}\r\n"))
}

/// The metrics, by name and labels.
pub(super) fn metrics(page: SocketAddr) -> BTreeMap<String, f64> {
    let heard = get(page, "/metrics");
    assert_eq!(heard.status, 200);
    assert_eq!(heard.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let lines = heard.body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Waits until a metric is this.
pub(super) fn becomes(page: SocketAddr, name: &str, value: f64) {
    eventually(name, || (metrics(page)[name] == value).then_some(()));
}

#[test]
fn metrics_agree_with_what_clients_did() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    let fresh = metrics(page);
    assert_eq!(fresh["tierlock_reigning"], 1.0);
    assert_eq!(fresh["tierlock_reign_proven"], 1.0);
    assert_eq!(fresh["tierlock_epoch"], 1.0);
    assert_eq!(fresh["tierlock_sessions"], 0.0);

    for _ in 0..3 {
        succeeds(&leader.run().args(["done", "--", "true"]).output().unwrap());
    }
    let mut holder = Running::script(&mut leader.run(), &[], "job", "echo; exec sleep 1000");
    holder.line();
    let mut reader = Helper::start();
    let (address, secret) = (&leader.address, leader.secret.display());
    let open = format!("open\tlabel=reader\tleaders={address}\tsecret={secret}");
    assert_eq!(reader.ask(&open), "ok");
    assert_eq!(reader.ask("read\thost\tbook"), "ok");
    let refused = leader.run().args(["-n", "job", "--", "true"]).output().unwrap();
    fails(&refused, 75, &["job"]);
    let mut waiter = Running::start(leader.run().args(["job", "--", "echo", "ran"]));
    becomes(page, "tierlock_waiters", 1.0);
    let waiting = metrics(page);
    assert_eq!(waiting["tierlock_longest_queue"], 1.0);
    assert_eq!(waiting["tierlock_leases"], 2.0);
    holder.signal(Signal::TERM);
    assert_eq!(waiter.line(), "ran");
    // The last three that came have said goodbye, and the reader is here.
    becomes(page, "tierlock_sessions_ended_total", 5.0);
    becomes(page, "tierlock_sessions", 1.0);

    let after = metrics(page);
    let of = |name: &str| after[name];
    assert_eq!(of("tierlock_grants_total{mode=\"exclusive\"}"), 5.0);
    assert_eq!(of("tierlock_grants_total{mode=\"shared\"}"), 1.0);
    assert_eq!(of("tierlock_wait_seconds_count"), 6.0);
    assert_eq!(of("tierlock_wait_seconds_bucket{le=\"+Inf\"}"), 6.0);
    assert_eq!(of("tierlock_hold_seconds_count"), 5.0);
    assert_eq!(of("tierlock_refusals_total{reason=\"would_block\"}"), 1.0);
    assert_eq!(of("tierlock_sessions_opened_total"), 6.0);
    assert_eq!(of("tierlock_waiters"), 0.0);
    assert_eq!(of("tierlock_sessions_limit"), 10_000.0);
    assert!(of("tierlock_wait_seconds_sum") > 0.0 && of("tierlock_hold_seconds_sum") > 0.0);
    // The openings were written.
    assert!(of("tierlock_journal_seconds_count{operation=\"append\"}") >= 6.0);
    assert_eq!(of("tierlock_journal_troubles_total"), 0.0);
    assert!(of("tierlock_turn_seconds_count") > 0.0);

    // No name, label or address is a label.
    let text = get(page, "/metrics").body;
    for name in ["job", "book", "done", "reader", "127.0.0.1"] {
        assert!(!text.contains(name), "{name} is in the metrics");
    }
}

#[test]
fn sessions_that_run_out_or_come_back_are_in_the_metrics_and_grace_in_the_health() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    assert_eq!(get(page, "/healthz").body, "the leader answers\n");
    assert_eq!(get(page, "/readyz").body, "reigning\n");
    let hold = |leader: &Leader, name: &str, ttl: &str| {
        let script = "echo; exec sleep 1000";
        let mut holder = Running::script(&mut leader.run(), &["--ttl", ttl], name, script);
        holder.line();
        holder
    };
    let dies = hold(&leader, "dies", "1");
    dies.signal(Signal::KILL);
    becomes(page, "tierlock_sessions_expired_total", 1.0);
    becomes(page, "tierlock_leases", 0.0);

    let _stays = hold(&leader, "stays", "60");
    let gone = hold(&leader, "gone", "60");
    let (address, mut process) = (leader.address.clone(), leader.process);
    gone.signal(Signal::KILL);
    process.signal(Signal::KILL);
    process.exit();
    let mut again = place.leader_at(&address, &["--http", "127.0.0.1:0"]);
    let page = page_of(&mut again.process);
    becomes(page, "tierlock_sessions_returned_total", 1.0);
    let seen = metrics(page);
    assert_eq!((seen["tierlock_in_grace"], seen["tierlock_sessions_awaited"]), (1.0, 1.0));
    assert_eq!(seen["tierlock_leases_reclaimed_total"], 1.0);
    assert_eq!(seen["tierlock_epoch"], 2.0);
    // Clients are to be sent to it: without them the grace lasts on.
    let ready = get(page, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "in grace\n"));
}

#[test]
fn a_leader_that_stands_by_is_ready_and_says_which_one_reigns() {
    let place = Place::new();
    let ports: [Port; 3] = std::array::from_fn(|_| Port::claim());
    let address = |number: usize| ports[number].address().to_string();
    let group = ["a", "b", "c"].into_iter().enumerate();
    let group: Vec<_> = group.map(|(number, id)| format!("{id}={}", address(number))).collect();
    let leaders = [0, 1, 2].map(|number| {
        let mut serve = tierlock(&["serve", "--init", "--accept-fs", "tmpfs", "--log", "brief"]);
        serve.args(["--listen", &address(number), "--group", &group.join(",")]);
        // None is to follow another of itself, however slow the machine is.
        serve.args(["--reign", "5s", "--http", "127.0.0.1:0", "--secret-file"]);
        serve.arg(place.secret()).arg("--state-dir").arg(place.path(&format!("state-{number}")));
        let mut process = Running::start(&mut serve);
        assert!(process.line().starts_with("listening on "));
        let page = page_of(&mut process);
        assert_eq!(get(page, "/healthz").status, 200);
        (process, page)
    });
    let ready = |status, words| {
        let is_so = |&&(_, page): &&(Running, SocketAddr)| {
            let heard = get(page, "/readyz");
            (heard.status, heard.body.as_str()) == (status, words)
        };
        leaders.iter().filter(is_so).map(|(_, page)| *page).collect::<Vec<_>>()
    };
    eventually("one reigns, and two stand by", || {
        (ready(200, "reigning\n").len() == 1 && ready(200, "standing by\n").len() == 2)
            .then_some(())
    });
    let reigning = metrics(ready(200, "reigning\n")[0]);
    assert_eq!((reigning["tierlock_reigning"], reigning["tierlock_reign_proven"]), (1.0, 1.0));
    for page in ready(200, "standing by\n") {
        let standby = metrics(page);
        assert_eq!((standby["tierlock_reigning"], standby["tierlock_reign_proven"]), (0.0, 0.0));
        assert_eq!(standby["tierlock_epoch"], reigning["tierlock_epoch"]);
        let shown = get(page, "/locks.json").json();
        assert_eq!((&shown["leader"]["rank"], &shown["names"]), (&"stands by".into(), &0.into()));
        let other = shown["leader"]["address"].as_str().unwrap();
        assert!(ports.iter().any(|port| port.address().to_string() == other), "{shown}");
    }
}

/// Prometheus's own parser reads them, and finds nothing to say of their names.
#[test]
fn prometheus_can_read_the_metrics_and_the_alert_rules() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    let Some(mut check) = promtool(&["check", "metrics"]) else { return };
    let mut check = check.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let text = get(page, "/metrics").body;
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/alerts.yml");
    let output = promtool(&["check", "rules"]).unwrap().arg(&rules).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // Each rule asks for metrics that there are.
    let rules = std::fs::read_to_string(rules).unwrap();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = rules.split(|c| !is_part(c)).filter(|word| word.starts_with("tierlock_"));
    for name in named {
        assert!(text.contains(&format!("\n{name}")), "no metric {name}");
    }
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/alerts_test.yml");
    let output = promtool(&["test", "rules"]).unwrap().arg(tests).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn promtool(args: &[&str]) -> Option<Command> {
    if program("promtool").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no promtool (Debian: prometheus)");
        return None;
    }
    let mut command = program("promtool");
    command.args(args);
    Some(command)
}

#[test]
fn a_page_of_another_site_gets_nothing() {
    let place = Place::new();
    let ShownLeader { leader: _leader, page } =
        place.shown_leader(&["--http-host", "locks.example"]);
    let asks = |host: &str, path: &str| {
        say(page, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status
    };
    for path in ["/", "/page.js", "/locks.json", "/metrics", "/healthz"] {
        // A name that its owner has point here.
        assert_eq!(asks("evil.example", path), 421, "{path}");
        for own in ["127.0.0.1", "localhost:80", "LOCKS.example"] {
            assert_eq!(asks(own, path), 200, "{own}{path}");
        }
    }
    for path in ["/", "/locks.json", "/metrics", "/none"] {
        let heard = get_with(page, path, "Origin: https://evil.example\r\n");
        assert_eq!(heard.header("access-control-allow-origin"), None);
        let policy = heard.header("content-security-policy").unwrap();
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(heard.header("cache-control"), Some("no-store"));
        assert_eq!(heard.header("x-frame-options"), Some("DENY"));
        assert_eq!(heard.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(get(page, "/none").status, 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let heard = say(page, &format!("{method} / HTTP/1.1\r\nHost: {page}\r\n\r\n"));
        assert_eq!((heard.status, heard.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let head = say(page, &format!("HEAD / HTTP/1.1\r\nHost: {page}\r\n\r\n"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn names_off_loopback_are_for_holders_of_the_token() {
    let place = Place::new();
    let serve = |options: &[&str]| {
        let mut serve = place.serve("127.0.0.1:0");
        serve.arg("--init").args(options);
        serve
    };
    // Nothing is made before that is said.
    fails(&serve(&["--http", ":0"]).output().unwrap(), 78, &["--http-token-file"]);
    assert!(!place.path("state").exists());
    let token_file = place.path("token");
    crate::setting::private_file(&token_file, "too short\n");
    let token_file = token_file.to_str().unwrap();
    let with_token = ["--http", ":0", "--http-token-file", token_file];
    fails(&serve(&with_token).output().unwrap(), 78, &["16 to 512"]);
    let missing = ["--http", ":0", "--http-token-file", "nowhere"];
    fails(&serve(&missing).output().unwrap(), 78, &["no token file nowhere"]);
    let usage = serve(&["--http-token-file", token_file]).output().unwrap();
    assert_eq!(usage.status.code(), Some(64));

    let secret = place.secret();
    let same = ["--http", ":0", "--http-token-file", secret.to_str().unwrap()];
    fails(&serve(&same).output().unwrap(), 78, &["is the secret of the locks"]);

    std::fs::remove_file(token_file).unwrap();
    succeeds(&tierlock(&["secret", "new", token_file]).output().unwrap());
    let token = read(Path::new(token_file));
    let mut leader = place.leader_with(&with_token);
    let port = page_of(&mut leader.process).port();
    let page = SocketAddr::from(([127, 0, 0, 1], port));
    succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    for path in ["/", "/page.js", "/page.css", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(get(page, path).status, 200, "{path}");
    }
    let bears = |line: &str| get_with(page, "/locks.json", line);
    let refused = bears("");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    let (short, long) = (&token[1..], format!("{token}0"));
    for wrong in [short, &long, "", "wrong"] {
        assert_eq!(bears(&format!("Authorization: Bearer {wrong}\r\n")).status, 401, "{wrong}");
    }
    assert_eq!(get(page, &format!("/locks.json?token={token}")).status, 401);
    let shown = bears(&format!("Authorization: Bearer {token}\r\n")).json();
    assert_eq!(shown["leader"]["rank"], "reigns");
}

#[test]
fn the_page_shows_what_status_shows_and_what_most_wait_for_first() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    let script = "echo; exec sleep 1000";
    let holders: Vec<_> = ["a", "b"]
        .map(|name| {
            let mut holder =
                Running::script(&mut leader.run(), &["--label", "holder"], name, script);
            holder.line();
            holder
        })
        .into();
    let _waiter = Running::start(leader.run().args(["--label", "waiter", "b", "--", "true"]));
    // What was shown is shown again for a second.
    let shown = eventually("the waiter is shown", || {
        let shown = get(page, "/locks.json").json();
        (shown["waiters"] == 1).then_some(shown)
    });
    let locks = shown["locks"].as_array().unwrap();
    assert_eq!(Vec::from_iter(locks.iter().map(|lock| &lock["name"])), ["b", "a"]);
    assert_eq!((&locks[0]["waiting"], &locks[1]["waiting"]), (&1.into(), &0.into()));
    assert_eq!(locks[0]["waiters"][0]["label"], "waiter");
    assert_eq!(locks[0]["holders"][0]["label"], "holder");
    let status = shown_name(leader.command("status"), "b");
    for same in ["token", "state", "mode", "scope", "predecessor"] {
        assert_eq!(locks[0][same], status[same], "{same}");
    }
    let grants = shown["minute"].as_array().unwrap().iter();
    assert_eq!(grants.map(|second| second["grants"].as_u64().unwrap()).sum::<u64>(), 2);
    drop(holders);
}

#[test]
fn the_page_shows_a_name_that_at_least_keeps_taken() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    let ran = leader.run().args(["--at-least", "1h", "done", "--", "true"]).output();
    succeeds(&ran.unwrap());
    // What was shown is shown again for a while.
    eventually("it is reserved", || {
        let lock = get(page, "/locks.json").json()["locks"][0].take();
        let is_it = lock["name"] == "done" && lock["state"] == "reserved";
        is_it.then(|| assert!(lock["remaining_ms"].as_u64().unwrap() > 3_000_000, "{lock}"))
    });
}

/// Waits until its peer has ended the connection.
fn is_ended(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // What it said is not answered, or refused as half a request.
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// Connections that say nothing keep neither others nor the leader waiting: the oldest of them makes room, and
/// each ends after a while.
#[test]
fn silent_connections_are_bounded_in_number_and_time_and_keep_no_other_out() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    let mut silent: Vec<_> = (0..64).map(|_| TcpStream::connect(page).unwrap()).collect();
    // One that is slow to say what it wants, too.
    (&silent[0]).write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    succeeds(&leader.run().args(["job", "--", "true"]).output().unwrap());
    // New ones without end, faster than any of them comes to its end by itself.
    for _ in 0..200 {
        silent.push(TcpStream::connect(page).unwrap());
        if silent.len() % 50 == 0 {
            assert_eq!(get(page, "/healthz").status, 200);
        }
    }
    silent.iter_mut().for_each(is_ended);
}

/// A leader may wait for its secret, or for a disk. Its page says so from the beginning, and keeps none waiting.
#[test]
fn a_leader_that_has_not_started_is_not_ready_and_says_so() {
    let place = Place::new();
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg("-m600").arg(&pipe).status().unwrap().success());
    let listen = Port::claim();
    // Its writer is there, and has nothing to say yet.
    let mut secret = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    // No other test claims it again.
    let page = Port::claim().address();
    let mut serve = tierlock(&["serve", "--init", "--accept-fs", "tmpfs", "--log", "brief"]);
    serve.args(["--listen", &listen.address().to_string(), "--state-dir"]);
    serve.arg(place.path("state")).arg("--secret-file").arg(&pipe);
    serve.args(["--http", &page.to_string()]);
    let mut leader = Running::start(&mut serve);
    eventually("the page's port is open", || TcpStream::connect(page).ok());
    for path in ["/readyz", "/healthz", "/metrics", "/locks.json"] {
        let heard = get(page, path);
        assert_eq!(
            (heard.status, &*heard.body),
            (503, "the leader has not started yet\n"),
            "{path}"
        );
    }
    assert_eq!(get(page, "/").status, 200);
    secret.write_all(&std::fs::read(place.secret()).unwrap()).unwrap();
    drop(secret);
    assert!(leader.line().starts_with("listening on "));
    assert_eq!(page_of(&mut leader), page);
    for (path, words) in [("/readyz", "reigning\n"), ("/healthz", "the leader answers\n")] {
        let heard = get(page, path);
        assert_eq!((heard.status, &*heard.body), (200, words), "{path}");
    }
}

#[test]
fn a_request_with_too_long_a_head_is_431() {
    let place = Place::new();
    let ShownLeader { leader: _leader, page } = place.shown_leader(&[]);
    let long = |length| format!("X: {}\r\n", "x".repeat(length));
    assert_eq!(get_with(page, "/healthz", &long(8 << 10)).status, 200);
    let mut stream = TcpStream::connect(page).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // No end of the head follows.
    stream.write_all(format!("GET / HTTP/1.1\r\n{}", long(16 << 10)).as_bytes()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 431 ") && text.ends_with("\r\n\r\n"), "{text:?}");
    assert_eq!(get(page, "/healthz").status, 200);
}

#[test]
fn a_name_of_the_page_that_is_none_is_64() {
    let place = Place::new();
    for wrong in ["", "https://locks.example", "locks.example:443", "a b", "locks.example/"] {
        let mut serve = place.serve("127.0.0.1:0");
        serve.args(["--init", "--http", "127.0.0.1:0", "--http-host", wrong]);
        fails(&serve.output().unwrap(), 64, &["locks.example, without https://"]);
    }
    assert!(!place.path("state").exists());
}

#[test]
fn an_address_for_the_page_that_cannot_be_had_is_78_and_makes_nothing() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut serve = place.serve("127.0.0.1:0");
    let output = serve.args(["--init", "--http", &address]).output().unwrap();
    fails(&output, 78, &["cannot serve HTTP", &address]);
    assert!(!place.path("state").exists());
}

// ── in a browser ────────────────────────────────────────────────────────────────────────────────

/// A headless Chromium that shows one page for a while, if there is one.
fn showing(profile: &Path) -> Option<Command> {
    let mut command = program(chromium()?);
    command.args(HEADLESS).arg("--virtual-time-budget=4000");
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    Some(command)
}

/// What the page is once its script has run.
fn dom(place: &Place, url: &str) -> Option<String> {
    let mut command = showing(&place.path("profile"))?;
    Some(succeeds(&command.args(["--dump-dom", url]).output().unwrap()))
}

#[test]
fn a_browser_shows_locks_waiters_and_the_last_minute_and_runs_nothing_of_theirs() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    let evil = "<img src=x onerror=document.title='taken'>";
    let hidden = "orders/\u{202e}24";
    let holders: Vec<_> = [(evil, "<b>bold</b>"), (hidden, "night\u{1b}ly"), ("idle", "calm")]
        .into_iter()
        .map(|(name, label)| {
            let script = "echo; exec sleep 1000";
            let mut holder = Running::script(&mut leader.run(), &["--label", label], name, script);
            holder.line();
            holder
        })
        .collect();
    let waiters: Vec<_> = [evil, evil, hidden]
        .map(|name| Running::start(leader.run().args([name, "--", "true"])))
        .into();
    becomes(page, "tierlock_waiters", 3.0);
    let url = format!("http://{page}/");
    let Some(dom) = dom(&place, &url) else { return };
    assert!(dom.contains("reigns, epoch 1"), "{dom}");
    assert!(dom.contains("<title>tierlock: locks</title>") && !dom.contains("<img"), "{dom}");
    assert!(dom.contains("&lt;img src=x") && dom.contains("&lt;b&gt;bold"), "{dom}");
    assert!(dom.contains("orders/\\u{202e}24") && dom.contains("night\\u{1b}ly"), "{dom}");
    let at = |text: &str| dom.find(text).unwrap_or_else(|| panic!("no {text}: {dom}"));
    let order = [at("2 waiting"), at("1 waiting"), at("calm")];
    assert!(order.is_sorted(), "{order:?}: {dom}");
    assert!(dom.contains("3 held or kept, 3 waiting, 3 names"), "{dom}");
    assert!(dom.contains("3 grants; the longest wait was"), "{dom}");
    assert!(dom.contains("<rect"), "{dom}");

    // To be looked at, where TIERLOCK_SCREENSHOTS says; here it is enough that they are drawn.
    let folder = std::env::var_os("TIERLOCK_SCREENSHOTS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| place.root.path().to_owned());
    for (name, size) in [("desktop", "1280,900"), ("phone", "390,844")] {
        let file = folder.join(format!("page-{name}.png"));
        let mut command = showing(&place.path("profile")).unwrap();
        command.arg(format!("--screenshot={}", file.display()));
        command.arg(format!("--window-size={size}"));
        succeeds(&command.arg(&url).output().unwrap());
        assert!(std::fs::metadata(&file).unwrap().len() > 5_000, "{name}");
    }
    drop((holders, waiters));
}

#[test]
fn a_browser_asks_for_the_token_and_shows_no_name_without_it() {
    let place = Place::new();
    let token_file = place.path("token");
    succeeds(&tierlock(&["secret", "new"]).arg(&token_file).output().unwrap());
    let options = ["--http-token-file", token_file.to_str().unwrap()];
    let ShownLeader { leader, page } = place.shown_leader(&options);
    let mut holder = Running::script(&mut leader.run(), &[], "secret job", "echo; sleep 1000");
    holder.line();
    let Some(dom) = dom(&place, &format!("http://{page}/")) else { return };
    assert!(!dom.contains("secret job"), "{dom}");
    assert!(dom.contains("<form id=\"ask\">"), "the form is not shown: {dom}");
    assert!(dom.contains("<div id=\"shown\" hidden"), "{dom}");
}

#[test]
fn the_token_is_entered_by_keyboard_and_stays_in_memory() {
    let place = Place::new();
    let token_file = place.path("token");
    succeeds(&tierlock(&["secret", "new"]).arg(&token_file).output().unwrap());
    let token = read(&token_file);
    let options = ["--http-token-file", token_file.to_str().unwrap()];
    let ShownLeader { leader, page } = place.shown_leader(&options);
    let (label, script) = (["--label", "night shift"], "echo; exec sleep 1000");
    let mut holder = Running::script(&mut leader.run(), &label, "secret job", script);
    holder.line();
    let url = format!("http://{page}/");
    let Some(mut browser) = Browser::open(&place.path("profile"), &url) else { return };
    browser.becomes("document.activeElement?.id === 'token'");
    browser.types("not the token");
    browser.presses("Enter", 13);
    browser.becomes("document.getElementById('wrong').textContent !== ''");
    assert_eq!(browser.value("document.body.textContent.includes('secret job')"), false);
    browser.becomes("document.activeElement?.id === 'token'");
    browser.types(&token);
    browser.presses("Enter", 13);
    browser.becomes("document.getElementById('locks').textContent.includes('secret job')");
    assert_eq!(browser.value("location.href"), url.as_str());
    assert_eq!(browser.value("localStorage.length + sessionStorage.length"), 0);
    assert_eq!(browser.value("document.cookie"), "");
    assert_eq!(browser.value("document.getElementById('token').value"), "");
    // On to the first lock, which is opened.
    browser.becomes("document.activeElement?.id === 'filter'");
    browser.presses("Tab", 9);
    browser.presses("Tab", 9);
    browser.becomes("document.activeElement?.tagName === 'SUMMARY'");
    browser.presses("Enter", 13);
    browser
        .becomes("document.querySelector('#locks .more').textContent.includes('night shift on')");
}

/// The page looks twice a second, and is shown nothing that is as old as the time between two looks: what there
/// is when a look begins is seen by the next one.
#[test]
fn a_lock_that_becomes_contended_is_seen_by_the_second_look_of_the_page() {
    let place = Place::new();
    let ShownLeader { leader, page } = place.shown_leader(&[]);
    let script = "echo; exec sleep 1000";
    let mut holder = Running::script(&mut leader.run(), &[], "job", script);
    holder.line();
    let url = format!("http://{page}/");
    let Some(mut browser) = Browser::open(&place.path("profile"), &url) else { return };
    browser.becomes("document.getElementById('locks')?.textContent.includes('job') ?? false");
    browser.value(
        "window.looks = 0; window.seen = null;
         const own = window.fetch;
         window.fetch = (...all) => { window.looks += 1; return own(...all); };
         new MutationObserver(() => {
             const text = document.getElementById('locks').textContent;
             if (window.seen === null && text.includes('1 waiting')) window.seen = window.looks;
         }).observe(document.body, { subtree: true, childList: true, characterData: true });
         0",
    );
    let _waiter = Running::start(leader.run().args(["job", "--", "true"]));
    eventually("it waits", || {
        let waiters = shown(leader.command("status"))["waiters"].take();
        (waiters.as_array().unwrap().len() == 1).then_some(())
    });
    let begins = browser.value("window.looks").as_u64().unwrap();
    browser.becomes("window.seen !== null");
    let seen = browser.value("window.seen").as_u64().unwrap();
    assert!(seen <= begins + 2, "it was seen by look {seen}, and there were {begins} before");
}
