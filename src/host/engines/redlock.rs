//! Redlock: a plain key at most of several Redis servers that know nothing of each other.
//!
//! It makes double work rare where one server may fail, and gives no fencing token: no majority of
//! counters grows with every grant. So it is for efficiency and not for correctness, and a manager has
//! to say `?unfenced=1`.

use std::time::Duration;

use futures_util::future::join_all;
use redis::{Pipeline, Script, cmd};

use super::{
    EngineSettings,
    engine::{EngineAbilities, EngineFinding, EngineGrant, EngineLock, LockEngine, Renewal},
    fault::EngineFault,
    holder_line::HolderLine,
    margin, patience,
    redis::{
        Owners,
        node::{RedisLogin, RedisNode},
        scripts::{LOOK, LockForm, seen, token_key},
    },
    wish::Wish,
};
use crate::{
    clock,
    error::Result,
    host::{random, service_url::ServiceUrl},
    name::Name,
    token::Token,
};

/// Locks at most of several servers.
pub(super) struct RedlockEngine {
    url: ServiceUrl,
    nodes: Vec<RedisNode>,
    prefix: String,
    is_unfenced: bool,
    time_to_live: Duration,
    owners: Owners,
    holder: HolderLine,
    release: Script,
}

/// One grant at most of the servers.
#[derive(Clone)]
pub(super) struct RedlockHold {
    key: String,
    owner: String,
}

/// What one server says.
enum Vote {
    Yes,
    No,
    Silent(EngineFault),
}

/// What all of them say.
struct Poll {
    yes: usize,
    no: usize,
    fault: Option<EngineFault>,
}

impl RedlockEngine {
    pub(super) fn new(mut url: ServiceUrl, settings: &EngineSettings) -> Result<RedlockEngine> {
        let prefix = url.take("prefix")?.unwrap_or_default();
        let is_unfenced = url.take_switch("unfenced")?;
        let login = RedisLogin::new(&mut url)?;
        url.finish("ca, password_file, prefix, unfenced")?;
        if url.addresses.len() < 3 {
            return Err(url.refuse("a majority needs three servers; one alone is redis://"));
        }
        let mut known = url.addresses.clone();
        known.sort();
        known.dedup();
        if known.len() < url.addresses.len() {
            return Err(url.refuse("a server is named twice, and would vote twice"));
        }
        let time_to_live = settings.time_to_live;
        // Each has to answer in a small part of the time to live.
        let patience = patience(time_to_live) / 3;
        let node = |address: &String| RedisNode::new(&url, address, login.clone(), patience);
        let nodes = url.addresses.iter().map(node).collect::<Result<_>>()?;
        Ok(RedlockEngine {
            nodes,
            prefix,
            is_unfenced,
            time_to_live,
            owners: Owners::new(),
            holder: HolderLine::new(&settings.identity),
            release: Script::new(LockForm::Plain.release()),
            url,
        })
    }

    fn quorum(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    async fn vote(&self, votes: impl IntoIterator<Item = impl Future<Output = Vote>>) -> Poll {
        let mut poll = Poll { yes: 0, no: 0, fault: None };
        for vote in join_all(votes).await {
            match vote {
                Vote::Yes => poll.yes += 1,
                Vote::No => poll.no += 1,
                // What will not change is told before what may.
                Vote::Silent(fault) => match &poll.fault {
                    Some(EngineFault::Final(_)) => {}
                    _ => poll.fault = Some(fault),
                },
            }
        }
        poll
    }

    async fn take_at(&self, node: &RedisNode, hold: &RedlockHold) -> Vote {
        let mut set = cmd("SET");
        set.arg(&hold.key).arg(&hold.owner).arg("NX").arg("PX");
        set.arg(self.time_to_live.as_millis() as u64);
        match node.send::<Option<String>>(&set).await {
            Ok(Some(_)) => Vote::Yes,
            Ok(None) => Vote::No,
            Err(fault) => Vote::Silent(fault),
        }
    }

    async fn release_at(&self, node: &RedisNode, hold: &RedlockHold) -> Vote {
        let mut run = self.release.prepare_invoke();
        run.key(&hold.key).key(super::redis::scripts::channel(&hold.key)).arg(&hold.owner).arg(0);
        Vote::of(node.run::<i64>(&run).await)
    }

    /// What one server says of all that is held, or of the first of it.
    async fn renew_at(&self, node: &RedisNode, holds: &[RedlockHold]) -> Vec<i64> {
        let renew = |commands: &mut Pipeline, hold: &RedlockHold| {
            let lives = self.time_to_live.as_millis() as u64;
            LockForm::Plain.add_renewal(commands, &hold.key, &hold.owner, lives);
        };
        node.send_each(holds, renew).await
    }
}

impl Vote {
    fn of(answer: Result<i64, EngineFault>) -> Vote {
        match answer {
            Ok(1) => Vote::Yes,
            Ok(_) => Vote::No,
            Err(fault) => Vote::Silent(fault),
        }
    }
}

impl LockEngine for RedlockEngine {
    type Hold = RedlockHold;

    fn abilities(&self) -> EngineAbilities {
        EngineAbilities { has_tokens: self.is_unfenced, ..EngineAbilities::default() }
    }

    fn shown(&self) -> String {
        self.url.shown()
    }

    fn time_to_live(&self) -> Duration {
        self.time_to_live
    }

    async fn acquire(&self, wish: &Wish) -> Result<EngineGrant<RedlockHold>> {
        let key = format!("{}{}", self.prefix, wish.name);
        let mut had_to_queue = false;
        loop {
            wish.check()?;
            let owner = LockForm::Plain.owner(self.owners.draw(), &self.holder);
            let hold = RedlockHold { key: key.clone(), owner };
            let sent = clock::now();
            let poll = self.vote(self.nodes.iter().map(|node| self.take_at(node, &hold))).await;
            let deadline = sent + (self.time_to_live - margin(self.time_to_live));
            if poll.yes >= self.quorum() && clock::now() < deadline {
                let token = Token::ZERO;
                return Ok(EngineGrant { hold, token, sent, deadline, had_to_queue });
            }
            // A part of the servers is no lock, and stands in the way of others.
            let released =
                self.vote(self.nodes.iter().map(|node| self.release_at(node, &hold))).await;
            if released.fault.is_some() {
                wish.may_have_left();
            }
            if poll.yes + poll.no < self.quorum() {
                let fault = poll.fault.unwrap_or_else(|| {
                    EngineFault::Trouble("a majority answered too late".to_owned())
                });
                wish.weather(fault).await?;
                continue;
            }
            wish.acknowledge();
            if wish.is_try() {
                return Err(wish.refused());
            }
            had_to_queue = true;
            let jitter = Duration::from_millis(50 + (random() % 100) as u64);
            wish.wait(std::future::pending::<()>(), jitter).await?;
        }
    }

    async fn renew(&self, holds: &[RedlockHold]) -> Vec<Renewal> {
        if holds.is_empty() {
            return Vec::new();
        }
        let sent = clock::now();
        let votes = join_all(self.nodes.iter().map(|node| self.renew_at(node, holds))).await;
        let until = sent + (self.time_to_live - margin(self.time_to_live));
        let answer = |at: usize| {
            let votes = votes.iter().filter_map(|votes| votes.get(at));
            let (yes, no): (Vec<i64>, Vec<i64>) = votes.partition(|vote| **vote == 1);
            match (yes.len() >= self.quorum(), no.len() > self.nodes.len() - self.quorum()) {
                (true, _) => Renewal::Until(until),
                (false, true) => Renewal::Gone,
                (false, false) => Renewal::Unknown,
            }
        };
        (0..holds.len()).map(answer).collect()
    }

    async fn release(&self, hold: &RedlockHold, _: bool) -> Result<bool, EngineFault> {
        let poll = self.vote(self.nodes.iter().map(|node| self.release_at(node, hold))).await;
        match poll.fault {
            // It is free once a majority has released it.
            Some(fault) if poll.yes + poll.no < self.quorum() => Err(fault),
            _ => Ok(poll.yes > 0),
        }
    }

    async fn look(&self, only: Option<&Name>) -> Result<Vec<EngineLock>, EngineFault> {
        let Some(name) = only else {
            return Err(EngineFault::config(
                "Redlock servers keep no list of locks: give the lock's name",
            ));
        };
        let key = format!("{}{name}", self.prefix);
        let script = Script::new(LOOK);
        let mut run = script.prepare_invoke();
        run.key(&key).key(token_key(&key));
        let answers = join_all(self.nodes.iter().map(|node| node.run::<Vec<String>>(&run))).await;
        let mut found: Vec<EngineLock> = Vec::new();
        let (mut silent, mut fault) = (0, None);
        for answer in answers {
            match answer {
                Ok(answer) => found.extend(seen(name, &answer)),
                Err(trouble) => (silent, fault) = (silent + 1, Some(trouble)),
            }
        }
        if let Some(fault) = fault.filter(|_| self.nodes.len() - silent < self.quorum()) {
            return Err(fault);
        }
        // The holder is the one that most of them name.
        let holder = found.iter().find(|lock| {
            let same = found.iter().filter(|other| other.holder == lock.holder);
            lock.holder.is_some() && same.count() >= self.quorum()
        });
        let holder = holder.map(|lock| EngineLock { token: Token::ZERO, ..lock.clone() });
        Ok(holder.into_iter().collect())
    }

    async fn examine(&self) -> Result<Vec<EngineFinding>, EngineFault> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let mut info = cmd("INFO");
            match node.send::<String>(info.arg("everything")).await {
                Ok(info) => found.extend(super::redis::scripts::findings(&node.shown(), &info)),
                Err(fault) => {
                    found.push(EngineFinding::trouble(fault.into_error().to_string()));
                }
            }
        }
        found.push(EngineFinding::note(
            "a majority gives no fencing token: these locks are for efficiency, not for correctness",
        ));
        Ok(found)
    }

    async fn part(&self) {}

    fn place(&self) -> Option<String> {
        Some(self.url.shown())
    }

    fn break_advice(&self, name: &Name) -> String {
        format!("redis-cli DEL {:?} at each server", format!("{}{name}", self.prefix))
    }
}
