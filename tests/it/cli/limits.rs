//! A leader among clients that misbehave, from the outside: its memory stays bounded, and others
//! keep what they have and get what they ask for.

use tierlock::{
    LockManager, MutexGuard, Token,
    proto::{
        Place as Rank, RequestId,
        wire::{ClientMessage, LeaderMessage, Refusal, Wait, WaitingRequest},
    },
};

use super::*;
use crate::{
    bad_input::Bystander,
    intruder::{Gang, Intruder, VICTIM, acquire, acquire_above, wish},
    setting::{LONG, LONG_LIFE, new_secret},
};

/// What a session may have of each, as the leader's limits say.
const LEASES_MAX: u64 = 65_536;
const WAITERS_MAX: u64 = 65_536;

/// A leader and a client that uses it all the time.
struct Scene {
    place: Place,
    leader: Leader,
    bystander: Bystander,
    before: u64,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(&[])
    }

    /// With these options of `tierlock serve`.
    fn with(options: &[&str]) -> Scene {
        let place = Place::new();
        let leader = place.leader_with(options);
        let bystander = Bystander::of(builder(&leader));
        bystander.is_undisturbed();
        let before = resident(&leader);
        Scene { place, leader, bystander, before }
    }

    /// Intruders that have the secret.
    fn insiders(&self) -> Gang {
        Gang::new(&self.leader.address, &self.leader.secret)
    }

    /// Clients of another address that have the secret and mean no harm.
    fn victims(&self) -> Gang {
        Gang::at(VICTIM, &self.leader.address, &self.leader.secret)
    }

    /// Clients of another address than the intruders' are let in and get locks.
    #[track_caller]
    fn lets_victims_in(&self) {
        let victims = self.victims();
        for _ in 0..2 {
            let mut victim = victims.welcome();
            let name = victim.name();
            victim.say((1..=3).map(|n| acquire(n, &format!("{name}/{n}"), Wait::Forever)));
            let answers = victim.answers(3);
            let granted = |answer: &LeaderMessage| matches!(answer, LeaderMessage::Granted { .. });
            assert!(answers.iter().all(granted), "{answers:?}");
            victim.say([ClientMessage::Goodbye]);
            victim.end();
        }
    }

    /// Intruders that have another one.
    fn outsiders(&self) -> Gang {
        let other = self.place.path("other-secret");
        new_secret(&other);
        Gang::new(&self.leader.address, &other)
    }

    /// Old clients are served, new ones are let in, and the leader has not grown by more
    /// than this many MiB.
    #[track_caller]
    fn is_in_order(&self, mib_max: u64) {
        self.bystander.is_undisturbed();
        let newcomer = builder(&self.leader).open().unwrap();
        drop(newcomer.mutex("newcomer", ()).try_lock_for(LONG).unwrap());
        let grown = resident(&self.leader).saturating_sub(self.before) >> 20;
        assert!(grown <= mib_max, "the leader has grown by {grown} MiB");
        eprintln!("the leader has grown by {grown} MiB of at most {mib_max}");
    }
}

fn builder(leader: &Leader) -> tierlock::LockManagerBuilder {
    let locks = LockManager::builder().leaders([leader.address.clone()]);
    // However busy the machine is, a client that is let in is served.
    locks.secret_file(&leader.secret).time_to_live(LONG_LIFE).connect_timeout(LONG)
}

/// The memory that the leader has in use, in bytes.
fn resident(leader: &Leader) -> u64 {
    let file = format!("/proc/{}/status", leader.process.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(file).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

/// For a few moments, or as long as a long run wants.
fn for_a_while(mut work: impl FnMut()) {
    let seconds = std::env::var("TIERLOCK_LONG").map_or(1, |text| text.parse().unwrap());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        work();
    }
}

#[test]
fn more_leases_than_a_session_may_have_are_refused() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    for _ in 0..2 {
        let mut greedy = insiders.welcome();
        let beyond = 100;
        let name = |number: u64| format!("{number:0>200}");
        let ask = |number| acquire(number, &name(number), Wait::Forever);
        let (mut granted, mut refused) = (0, 0);
        let mut asked = 0;
        while granted + refused < LEASES_MAX + beyond {
            if asked - granted - refused < 1_000 && asked < LEASES_MAX + beyond {
                let upto = (asked + 1_000).min(LEASES_MAX + beyond);
                greedy.say((asked + 1..=upto).map(ask));
                asked = upto;
            }
            match greedy.hear() {
                LeaderMessage::Granted { .. } => granted += 1,
                LeaderMessage::Refused { why: Refusal::TooManyLeases, .. } => refused += 1,
                LeaderMessage::Queued { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((granted, refused), (LEASES_MAX, beyond));
        scene.is_in_order(100);
        greedy.say([ClientMessage::Goodbye]);
        greedy.end();
    }
    // What was given back is used again.
    scene.is_in_order(100);
}

#[test]
fn more_waiters_than_a_session_may_have_are_refused() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    let mut greedy = insiders.welcome();
    let beyond = 100;
    let (mut queued, mut refused) = (0, 0);
    let mut asked = 0;
    while queued + refused < WAITERS_MAX + beyond {
        if asked - queued - refused < 1_000 && asked < WAITERS_MAX + beyond {
            let upto = (asked + 1_000).min(WAITERS_MAX + beyond);
            greedy.say((asked + 1..=upto).map(|n| acquire(n, "bystander", Wait::Forever)));
            asked = upto;
        }
        match greedy.hear() {
            LeaderMessage::Queued { .. } => queued += 1,
            LeaderMessage::Refused { why: Refusal::TooManyWaiters, .. } => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((queued, refused), (WAITERS_MAX, beyond));
    scene.is_in_order(100);
    // A queue that long is no trouble to a caller that asks for its holder, or leaves it.
    assert_eq!(shown_of(&scene.leader, "bystander")["holder"]["label"], "bystander");
    greedy.say((1..=WAITERS_MAX).map(|n| ClientMessage::Cancel { request: RequestId(n) }));
    greedy.say([acquire(WAITERS_MAX + beyond + 1, "bystander", Wait::No)]);
    let last = greedy.hear();
    assert!(matches!(last, LeaderMessage::Refused { why: Refusal::WouldBlock, .. }), "{last:?}");
    scene.is_in_order(100);
}

/// Limits never refuse a report: a returning session is told of everything it waits for.
#[test]
fn a_session_at_its_limit_of_waiters_comes_back_with_all_of_them() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    let mut first = insiders.welcome();
    let requests = 1..=WAITERS_MAX;
    let mut queued = 0;
    for some in requests.clone().collect::<Vec<_>>().chunks(1_000) {
        first.say(some.iter().map(|n| acquire(*n, "bystander", Wait::Forever)));
        for _ in some {
            queued += u64::from(matches!(first.hear(), LeaderMessage::Queued { .. }));
        }
    }
    assert_eq!(queued, WAITERS_MAX);
    let mut second = insiders.enter().unwrap();
    let waiting = requests.map(|n| WaitingRequest {
        request: RequestId(n),
        acquire: wish("bystander", Wait::Forever, Token::ZERO),
        place: None,
    });
    second.come_back_as(first, waiting.collect());
    assert!(matches!(second.hear(), LeaderMessage::Welcome { .. }));
    for _ in 0..WAITERS_MAX {
        let answer = second.hear();
        assert!(matches!(answer, LeaderMessage::Queued { .. }), "{answer:?}");
    }
    scene.is_in_order(150);
}

#[test]
fn one_client_gets_half_of_all_claims_however_many_sessions_it_has() {
    const CLAIMS_MAX: u64 = 1_000;
    let scene = Scene::with(&["--claims-max", &CLAIMS_MAX.to_string()]);
    let insiders = scene.insiders();
    let (mut granted, mut refused) = (0, 0);
    let mut greedy = [(); 4].map(|()| insiders.welcome());
    for intruder in &mut greedy {
        let name = intruder.name();
        intruder.say((1..=500).map(|n| acquire(n, &format!("{name}/{n}"), Wait::Forever)));
        for answer in intruder.answers(500) {
            match answer {
                LeaderMessage::Granted { .. } => granted += 1,
                LeaderMessage::Refused { why: Refusal::TooManyClaims, .. } => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    // The bystander has some.
    assert!((CLAIMS_MAX / 2 - 10..=CLAIMS_MAX / 2).contains(&granted), "{granted}");
    assert_eq!(granted + refused, 2_000);
    scene.lets_victims_in();
    let [first, ..] = &mut greedy;
    first.say([ClientMessage::Goodbye]);
    first.end();
    scene.is_in_order(30);
}

#[test]
fn a_client_beyond_its_share_of_claims_is_told_so_in_words() {
    let scene = Scene::with(&["--claims-max", "3"]);
    let locks = builder(&scene.leader).open().unwrap();
    let _one = locks.mutex("one", ()).try_lock_for(LONG).unwrap();
    let error = locks.mutex("two", ()).try_lock_for(LONG).unwrap_err();
    assert!(error.to_string().contains("--claims-max"), "{error}");
    fails(&scene.leader.run().args(["two", "--", "true"]).output().unwrap(), 77, &["--claims-max"]);
    // Another has its own.
    let victims = scene.victims();
    let mut victim = victims.welcome();
    victim.say([acquire(1, "three", Wait::Forever)]);
    assert!(matches!(victim.answer(), LeaderMessage::Granted { .. }));
}

/// A leader with room for 100 queued 60,000 of them, as often as they came.
#[test]
fn waiters_that_are_reported_with_invented_places_are_held_to_the_limits_and_keep_no_other_out() {
    const CLAIMS_MAX: usize = 1_000;
    let scene = Scene::with(&["--claims-max", &CLAIMS_MAX.to_string()]);
    let insiders = scene.insiders();
    let mut queued = 0;
    let _attackers: Vec<_> = (0..5)
        .map(|_| {
            let mut attacker = insiders.enter().unwrap();
            let invented = (1..=60_000).map(|n| WaitingRequest {
                request: RequestId(n),
                acquire: wish("bystander", Wait::Forever, Token::ZERO),
                place: Some(Rank { epoch: 1, count: n }),
            });
            attacker.report(invented.collect());
            assert!(matches!(attacker.hear(), LeaderMessage::Welcome { .. }));
            for _ in 0..60_000 {
                match attacker.hear() {
                    LeaderMessage::Queued { .. } => queued += 1,
                    LeaderMessage::Refused { why: Refusal::TooManyClaims, .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            scene.lets_victims_in();
            attacker
        })
        .collect();
    assert!((CLAIMS_MAX / 2 - 10..=CLAIMS_MAX / 2).contains(&queued), "{queued}");
    scene.is_in_order(60);
}

/// No session says that its report is whole, and all of it is kept for that.
#[test]
fn reports_without_end_cost_no_more_than_allowed_and_keep_no_other_out() {
    const UNFINISHED: usize = 40;
    // Unfinished reports may weigh a mebibyte together.
    let scene = Scene::with(&["--claims-max", "8000"]);
    let insiders = scene.insiders();
    let requests = |n: u64| WaitingRequest {
        request: RequestId(n),
        acquire: wish(&format!("{n:0>255}"), Wait::Forever, Token::ZERO),
        place: None,
    };
    let mut reporting: Vec<_> = (0..UNFINISHED)
        .map(|_| {
            let mut intruder = insiders.enter().unwrap();
            intruder.report_without_end((1..=2_000).map(requests).collect());
            intruder
        })
        .collect();
    scene.is_in_order(10);
    // The oldest was spared, and shown out when its time was up; of the others some were heard no
    // further.
    let ends: Vec<_> = reporting.drain(..).map(|intruder| intruder.end()).collect();
    assert!(ends[0].contains("report in time"), "{}", ends[0]);
    let crowded = ends.iter().filter(|end| end.contains("let it report again")).count();
    assert!(crowded >= UNFINISHED - 5, "{ends:?}");
    scene.is_in_order(10);
}

fn shown_of(leader: &Leader, name: &str) -> serde_json::Value {
    let output = leader.command("status").args(["--json", name]).output().unwrap();
    let mut shown: serde_json::Value = serde_json::from_str(&succeeds(&output)).unwrap();
    shown["locks"][0].take()
}

#[test]
fn a_frame_that_is_too_long_empty_or_nonsense_ends_its_own_connection() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    let too_long = u32::MAX.to_le_bytes();
    let empty = 0_u32.to_le_bytes();
    let nonsense = [&4_u32.to_le_bytes()[..], b"\xffabc"].concat();
    // `Hello` is expected, and this is `Ready`.
    let untimely = [1, 0, 0, 0, 3];
    // A name may have 255 bytes.
    let named = |name: &str| {
        let mut bytes = Vec::new();
        let acquire = acquire(1, name, Wait::Forever);
        tierlock::proto::wire::encode_frame(&acquire, &mut bytes).unwrap();
        bytes
    };
    let mut long_name = named(&"x".repeat(255));
    let at = long_name.windows(4).position(|bytes| bytes == b"xxxx").unwrap();
    // Numbers over 250 are a mark and two bytes.
    assert_eq!(long_name[at - 3..at], [251, 255, 0]);
    long_name[at - 2..at].copy_from_slice(&256_u16.to_le_bytes());
    long_name.insert(at, b'x');
    let length = u32::try_from(long_name.len() - 4).unwrap();
    long_name[..4].copy_from_slice(&length.to_le_bytes());
    for (bytes, word) in [
        (&too_long[..], "65536"),
        (&empty, "without content"),
        (&nonsense, "not a tierlock message"),
        (&untimely, "no Hello"),
        (&long_name, "not a tierlock message"),
    ] {
        let mut rude = insiders.enter().unwrap();
        rude.try_say_bytes(bytes).unwrap();
        let end = rude.end();
        assert!(end.contains(word), "{word:?} is not in {end:?}");
    }
    scene.is_in_order(20);
}

#[test]
fn a_second_report_on_one_connection_ends_it() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    let mut twice = insiders.welcome();
    twice.hello();
    assert!(twice.end().contains("a second report"));
    scene.is_in_order(20);
}

/// curator#1121: an old session's leftover is taken for one's own.
#[test]
fn a_session_cannot_be_taken_over_without_its_proof() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    let mut owner = insiders.welcome();
    let mut thief = insiders.enter().unwrap();
    thief.hello_as(&owner);
    let end = thief.end();
    assert!(end.contains("proof"), "{end}");
    owner.say([acquire(1, "mine", Wait::Forever)]);
    while !matches!(owner.hear(), LeaderMessage::Granted { .. }) {}
    scene.is_in_order(20);
}

#[test]
fn half_sent_frames_cost_no_more_than_themselves_and_end() {
    const HALVES: usize = 100;
    let scene = Scene::new();
    let insiders = scene.insiders();
    let half = [&65_536_u32.to_le_bytes()[..], &[1; 60_000]].concat();
    let mut halves: Vec<_> = (0..HALVES)
        .map(|number| {
            // Some have a session, and need not report any more.
            let mut intruder = match number % 2 {
                0 => insiders.enter().unwrap(),
                _ => insiders.welcome(),
            };
            intruder.try_say_bytes(&half).unwrap();
            intruder
        })
        .collect();
    scene.is_in_order(60);
    // A connection that never named its session is shown out after a while.
    let end = halves[0].end();
    assert!(end.contains("report in time"), "{end}");
    halves.clear();
    scene.is_in_order(60);
}

/// What the help of `serve` says that a connection costs at most.
const CONNECTION_KIB_MAX: u64 = 1536;

#[test]
fn a_client_that_asks_and_does_not_read_is_not_read_either() {
    const GREEDY: u64 = 40;
    let scene = Scene::new();
    let insiders = scene.insiders();
    let mut hoard = insiders.welcome();
    hoard.say((1..=1_000).map(|n| acquire(n, &format!("{n:0>200}"), Wait::Forever)));
    let mut greedy: Vec<_> = (0..GREEDY).map(|_| insiders.welcome()).collect();
    let list = |n| ClientMessage::List { query: RequestId(n), after: None, limit: u32::MAX };
    let mut bytes = Vec::new();
    for number in 1..=100_000 {
        tierlock::proto::wire::encode_frame(&list(number), &mut bytes).unwrap();
    }
    // Each page has some 60 kB: 6 GB for each of them, if the leader were to answer.
    for intruder in &mut greedy {
        let is_all_read = intruder.say_within(&bytes, Duration::from_millis(300));
        assert!(!is_all_read, "what its answers wait for is read");
    }
    scene.is_in_order((GREEDY * CONNECTION_KIB_MAX) >> 10);
    // None was shown out: a client that reads after all is answered.
    for _ in 0..100 {
        let answer = greedy[0].hear();
        assert!(matches!(answer, LeaderMessage::Listed { .. }), "{answer:?}");
    }
}

#[test]
fn a_flood_of_requests_keeps_no_other_from_the_leader() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    let mut noisy = [(); 4].map(|()| insiders.welcome());
    let mut request = 0;
    for_a_while(|| {
        for intruder in &mut noisy {
            let messages = (0..500).flat_map(|_| {
                request += 1;
                let cancel = ClientMessage::Cancel { request: RequestId(request) };
                [acquire(request, "bystander", Wait::Forever), cancel]
            });
            let renew = ClientMessage::Renew { sent_at: tierlock::Time::ZERO };
            let stale = ClientMessage::Release {
                lease: tierlock::proto::LeaseId { epoch: 1, count: 1 },
                last_used: Token::ZERO,
                how: tierlock::Predecessor::Clean,
            };
            let noise = messages.chain([renew, stale]);
            // Those that do not read are not read either; so these read.
            intruder.say(noise);
            while !matches!(intruder.hear(), LeaderMessage::Released { .. }) {}
        }
        scene.bystander.is_undisturbed();
    });
    scene.is_in_order(60);
}

/// A client that asks with what it saw elsewhere must not use up the epochs.
#[test]
fn an_absurd_above_is_refused_and_a_high_one_ends_nothing() {
    let scene = Scene::new();
    let insiders = scene.insiders();
    let mut odd = insiders.welcome();
    let above = |epoch: u64, count: u64| Token::new(epoch << Token::COUNT_BITS | count).unwrap();
    let full = (1 << Token::COUNT_BITS) - 1;
    let mut answer = |request, above| {
        odd.say([acquire_above(request, "odd", Wait::Forever, above)]);
        let is_answer = |heard: &LeaderMessage| {
            !matches!(heard, LeaderMessage::Queued { .. } | LeaderMessage::Raised { .. })
        };
        std::iter::repeat_with(|| odd.hear()).find(is_answer).unwrap()
    };
    let absurd = [Token::MAX, above((1 << 23) - 1, full), above(1 << 22, 0), above(2_000, 0)];
    for (request, above) in (1..).zip(absurd) {
        let LeaderMessage::Refused { why, .. } = answer(request, above) else {
            panic!("{above} is not refused");
        };
        assert!(matches!(why, Refusal::Tokens | Refusal::TooFarAbove), "{above}: {why:?}");
    }
    // What a day allows is let through.
    let high = above(100, 7);
    let LeaderMessage::Granted { first, .. } = answer(9, high) else { panic!("not granted") };
    assert!(first > high);
    scene.is_in_order(20);
    let locks = builder(&scene.leader).open().unwrap();
    let guard = locks.mutex("after", ()).try_lock_for(LONG).unwrap();
    assert_eq!(MutexGuard::token(&guard).epoch(), first.epoch());
    assert!(MutexGuard::is_valid(&guard));
}

#[test]
fn one_client_gets_half_of_the_sessions_and_those_that_are_there_go_on() {
    let scene = Scene::with(&["--sessions-max", "20"]);
    let insiders = scene.insiders();
    let (mut granted, mut refused) = (Vec::new(), Vec::new());
    while refused.len() < 10 {
        let mut intruder = insiders.welcome();
        intruder.say([acquire(1, &intruder.name(), Wait::Forever)]);
        match intruder.answer() {
            LeaderMessage::Granted { .. } => granted.push(intruder),
            LeaderMessage::Refused { why: Refusal::TooManySessions, .. } => refused.push(intruder),
            other => panic!("{other:?}"),
        }
    }
    // The bystander has one of the others.
    assert_eq!(granted.len(), 10);
    scene.lets_victims_in();
    scene.bystander.is_undisturbed();
    // Those of this address have half of the rest, and are told so then.
    let mut newcomers = Vec::new();
    let error = loop {
        assert!(newcomers.len() <= 4, "{}", newcomers.len());
        let newcomer = builder(&scene.leader).open().unwrap();
        let name = format!("newcomer {}", newcomers.len());
        match newcomer.mutex(name, ()).try_lock_for(LONG) {
            Ok(guard) => newcomers.push((guard, newcomer)),
            Err(error) => break error,
        }
    };
    assert!(newcomers.len() >= 2, "{}", newcomers.len());
    assert!(error.to_string().contains("--sessions-max"), "{error}");
    fails(&scene.leader.run().args(["x", "--", "true"]).output().unwrap(), 77, &["--sessions-max"]);
    drop(newcomers);
    let mut last = granted.pop().unwrap();
    last.say([ClientMessage::Goodbye]);
    last.end();
    scene.is_in_order(30);
}

/// etcd, Redis and others let the first client have all connections.
#[test]
fn silent_connections_of_one_client_leave_the_others_half_of_them() {
    // 104 connections.
    let scene = Scene::with(&["--sessions-max", "20"]);
    let insiders = scene.insiders();
    // They have the secret, and want nothing; half of them do not even name their session.
    let mut silent = Vec::new();
    let why = loop {
        assert!(silent.len() <= 104, "{}", silent.len());
        let said = insiders.enter().and_then(|mut one| match silent.len() % 2 {
            0 => Ok(one),
            _ => one.try_hello().map(|()| one),
        });
        match said {
            Ok(one) => silent.push(one),
            Err(why) => break why,
        }
    };
    assert!(why.contains("refused") || why.contains("closed"), "{why}");
    assert!(silent.len() > 40, "{}", silent.len());
    scene.lets_victims_in();
    scene.is_in_order(30);
    // One of theirs tries until there is room.
    silent.truncate(silent.len() / 2);
    drop(insiders.enter_at_last());
    scene.is_in_order(30);
}

#[test]
fn many_sessions_cost_little_each_and_no_more_than_allowed() {
    // A long run goes beyond what the leader allows one client.
    let long = std::env::var_os("TIERLOCK_LONG").is_some();
    let (count, allowed) = if long { (5_050, 5_000) } else { (200, 200) };
    let scene = Scene::new();
    let insiders = scene.insiders();
    let (mut crowd, mut refused, mut cut_off) = (Vec::new(), 0, 0);
    let mut renewed = Instant::now();
    let renew = || ClientMessage::Renew { sent_at: tierlock::Time::ZERO };
    while crowd.len() + refused < count {
        // Together, so that they wait for the disk together. Each names its session at once: the leader
        // lets go of a connection that takes long over that, as it would while so many others come.
        let enter = |_| {
            let mut intruder = insiders.enter_at_last();
            let name = intruder.name();
            let said = intruder.try_hello();
            let asked = said.and_then(|()| intruder.try_say([acquire(1, &name, Wait::Forever)]));
            (intruder, asked)
        };
        let batch: Vec<_> = (0..50).map(enter).collect();
        for (mut intruder, asked) in batch {
            let answer = asked.and_then(|()| {
                loop {
                    match intruder.try_hear()? {
                        LeaderMessage::Queued { .. } | LeaderMessage::Welcome { .. } => {}
                        answer => return Ok(answer),
                    }
                }
            });
            match answer {
                Ok(LeaderMessage::Granted { .. }) => crowd.push(intruder),
                Ok(LeaderMessage::Refused { why: Refusal::TooManySessions, .. }) => refused += 1,
                Ok(other) => panic!("{other:?}"),
                Err(_) => cut_off += 1,
            }
        }
        // A session lives for a minute, however slowly the others come.
        if renewed.elapsed() >= Duration::from_secs(10) {
            renewed = Instant::now();
            let all = crowd.len();
            crowd.retain_mut(|intruder: &mut Intruder<'_>| intruder.try_say([renew()]).is_ok());
            cut_off += all - crowd.len();
        }
        // On a machine so busy that connections run out of time others come in their place.
        assert!(cut_off < count, "most are cut off");
    }
    eprintln!("{} are in, {refused} were refused, {cut_off} were cut off", crowd.len());
    if long {
        // Those that were cut off count for a while as well.
        assert!(crowd.len() <= allowed, "more are in than are allowed");
        scene.bystander.is_undisturbed();
        let grown = resident(&scene.leader).saturating_sub(scene.before);
        eprintln!("{} bytes for each of {count} sessions", grown / count as u64);
        assert!(grown >> 20 < 2_000, "{} MiB", grown >> 20);
    } else {
        assert_eq!(refused, 0);
        scene.is_in_order(60);
    }
}

#[test]
fn a_flood_of_handshakes_without_the_secret_lets_none_in_and_keeps_no_other_out() {
    let scene = Scene::new();
    let outsiders = scene.outsiders();
    // To itself the client's handshake is over before the leader has looked at its key.
    let why = outsiders.enter().and_then(|mut outsider| {
        outsider.try_hello()?;
        outsider.try_hear()
    });
    assert!(why.is_err(), "{why:?}");
    let mut knocks = Vec::new();
    for_a_while(|| {
        // Begun and left to stall, all from one place.
        knocks.extend((0..100).map(|_| outsiders.knock()));
        scene.bystander.is_undisturbed();
    });
    scene.is_in_order(80);
    drop(knocks);
    scene.is_in_order(80);
}

#[test]
fn peers_that_are_shown_out_again_and_again_leave_nothing_behind() {
    let scene = Scene::new();
    let outsiders = scene.outsiders();
    let mut shown_out = 0;
    for_a_while(|| {
        for _ in 0..100 {
            let heard = outsiders.enter().and_then(|mut outsider| outsider.try_hear());
            assert!(heard.is_err(), "{heard:?}");
            shown_out += 1;
        }
        scene.bystander.is_undisturbed();
    });
    eprintln!("{shown_out} were shown out");
    scene.is_in_order(20);
}

#[test]
fn a_flood_of_garbage_is_as_nothing() {
    let scene = Scene::new();
    let socket = std::net::UdpSocket::bind((crate::intruder::ELSEWHERE, 0)).unwrap();
    let mut bytes = [0_u8; 1_400];
    let mut state = 1_u64;
    for_a_while(|| {
        for round in 0..500 {
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            // Half of them look like the beginning of a connection of this version of QUIC.
            if round % 2 == 0 {
                bytes[0] |= 0xc0;
                bytes[1..5].copy_from_slice(&1_u32.to_be_bytes());
                bytes[5] = 8;
            }
            let length = 1 + (state as usize >> 7) % (bytes.len() - 1);
            let _ = socket.send_to(&bytes[..length], &scene.leader.address);
        }
        scene.bystander.is_undisturbed();
    });
    scene.is_in_order(20);
}

#[test]
fn a_kind_of_message_of_a_later_release_is_answered_and_ends_nothing() {
    let scene = Scene::with(&[]);
    let insiders = scene.insiders();
    let mut later = insiders.welcome();
    // The length, kind 200, request 7, and more.
    later.try_say_bytes(&[4, 0, 0, 0, 200, 7, 1, 2]).unwrap();
    let request = Some(RequestId(7));
    assert_eq!(later.hear(), LeaderMessage::NotUnderstood { kind: 200, request });
    later.say([acquire(8, "ledger", Wait::No)]);
    let answer = later.answer();
    assert!(matches!(answer, LeaderMessage::Granted { .. }), "{answer:?}");
}
