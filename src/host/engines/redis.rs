//! Redis and Valkey: a lock is a key with an expiry, as Redisson's `RLock` writes it, or a plain string
//! as redis-py's `Lock` and most recipes do.
//!
//! Every change is one script. It names the owner, which is new for each grant, so nothing that comes
//! late can mean a later holder: a release (redisson#4822) or a renewal (redisson#7272) of another
//! owner changes nothing. A key of the other form is another holder's lock, and is waited for.
//!
//! What it cannot promise: a server that loses its memory (no append-only file, a fail-over to a
//! replica that lags) forgets which lock is held by which client and counts tokens from 1 again. The holder hears of it at
//! the next renewal; see the guide.

mod ear;
pub(super) mod node;
pub(super) mod scripts;

use std::{sync::Arc, time::Duration};

use redis::{Pipeline, Script, cmd};
use tokio::runtime::Handle;

use self::{
    ear::{Hearing, RedisEar},
    node::{RedisLogin, RedisNode},
    scripts::{Answered, LockForm},
};
use super::{
    EngineSettings,
    engine::{EngineAbilities, EngineFinding, EngineGrant, EngineLock, LockEngine, Renewal},
    fault::EngineFault,
    holder_line::HolderLine,
    margin, patience,
    wish::Wish,
};
use crate::{
    clock,
    error::{LockError, Result},
    host::{random, service_url::ServiceUrl},
    name::Name,
    time::Time,
    token::Token,
};

/// Locks on one server.
pub(super) struct RedisEngine {
    url: ServiceUrl,
    node: Arc<RedisNode>,
    ear: RedisEar,
    prefix: String,
    form: LockForm,
    time_to_live: Duration,
    owners: Owners,
    holder: HolderLine,
    take: Script,
    release: Script,
    renew: Script,
}

/// One grant at the server.
#[derive(Clone)]
pub(super) struct RedisHold {
    key: String,
    channel: String,
    /// As the key has it: the hash's field, or the string.
    owner: String,
    /// `at_least` keeps it taken until then.
    stays_until: Option<Time>,
}

/// Names of owners that no other grant has.
pub(super) struct Owners {
    manager: u128,
    next: std::sync::atomic::AtomicU64,
}

impl Owners {
    pub(super) fn new() -> Owners {
        Owners { manager: random(), next: std::sync::atomic::AtomicU64::new(1) }
    }

    /// As Redisson writes them: an id of the client, and a number that it calls thread.
    pub(super) fn draw(&self) -> String {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("{:032x}", self.manager);
        let (a, b, c, d, e) = (&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]);
        format!("{a}-{b}-{c}-{d}-{e}:{number}")
    }
}

/// A wait for a lock that tells its end sleeps no longer than this before it looks, and one for a
/// lock that does not tell, no longer than that.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How often a grant that may be there is taken back again.
const UNDO_EVERY: Duration = Duration::from_millis(100);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// So long the server keeps a name, also where its clock runs a little faster.
fn kept_for(at_least: Duration) -> Duration {
    at_least + at_least / 100
}

/// Gives a lock up, and leaves the name taken for so many milliseconds.
async fn give_up(
    node: &RedisNode,
    release: &Script,
    hold: &RedisHold,
    stays: u64,
) -> Result<bool, EngineFault> {
    let mut run = release.prepare_invoke();
    run.key(&hold.key).key(&hold.channel).arg(&hold.owner).arg(stays);
    node.run::<i64>(&run).await.map(|answer| answer == 1)
}

impl RedisEngine {
    pub(super) fn new(mut url: ServiceUrl, settings: &EngineSettings) -> Result<RedisEngine> {
        let prefix = url.take("prefix")?.unwrap_or_default();
        let form = match url.take("as")?.as_deref() {
            None | Some("hash") => LockForm::Hash,
            Some("plain") => LockForm::Plain,
            Some(_) => return Err(url.refuse("the option `as` must be hash or plain")),
        };
        let login = RedisLogin::new(&mut url)?;
        url.finish("as, ca, password_file, prefix")?;
        let [address] = &*url.addresses else {
            return Err(url.refuse(
                "locks are on one server; several that know nothing of each other are redlock://",
            ));
        };
        let time_to_live = settings.time_to_live;
        let node = RedisNode::new(&url, address, login, patience(time_to_live))?;
        let node = Arc::new(node);
        Ok(RedisEngine {
            ear: RedisEar::new(node.clone()),
            node,
            prefix,
            form,
            time_to_live,
            owners: Owners::new(),
            holder: HolderLine::new(&settings.identity),
            take: Script::new(form.take()),
            release: Script::new(form.release()),
            renew: Script::new(form.renew()),
            url,
        })
    }

    fn key(&self, name: &Name) -> String {
        format!("{}{name}", self.prefix)
    }

    /// One attempt.
    async fn try_take(&self, wish: &Wish, key: &str) -> Result<Attempt, EngineFault> {
        let owner = self.form.owner(self.owners.draw(), &self.holder);
        let channel = scripts::channel(key);
        let sent = clock::now();
        let mut run = self.take.prepare_invoke();
        run.key(key).key(scripts::token_key(key)).arg(&owner).arg(millis(self.time_to_live));
        run.arg(wish.above.get()).arg(self.holder.text());
        let answer = self.node.run::<Vec<String>>(&run).await;
        let stays_until = None;
        let hold = RedisHold { key: key.to_owned(), channel: channel.clone(), owner, stays_until };
        let answer = match answer {
            Ok(answer) => answer,
            // It may have been granted all the same.
            Err(fault) => return Ok(Attempt::Unheard(fault, hold)),
        };
        match scripts::answered(&answer) {
            Answered::Taken { token } => {
                let Some(token) = token else {
                    let what = "the name's token counter is beyond 2^63: delete or lower it";
                    return Ok(Attempt::Unheard(EngineFault::config(what), hold));
                };
                let deadline = sent + (self.time_to_live - margin(self.time_to_live));
                let Some(at_least) = wish.at_least else {
                    return Ok(Attempt::Taken { hold, token, sent, deadline });
                };
                Ok(match self.reserve(&hold, at_least).await {
                    Ok(hold) => Attempt::Taken { hold, token, sent, deadline },
                    Err(fault) => Attempt::Unheard(fault, hold),
                })
            }
            Answered::Held { left, tells, holder } => {
                wish.is_held_by(holder);
                Ok(Attempt::Held { left, tells, channel })
            }
            Answered::Other(what) => {
                let name = &wish.name;
                Err(EngineFault::Final(LockError::config(format!(
                    "the key {key:?} of {} is {what}, so {name:?} cannot be locked as a mutex: take \
                     another name, or ?prefix=",
                    self.node.shown()
                ))))
            }
        }
    }

    /// Has the server keep the name from now on for so long, whatever becomes of us. In a step of its
    /// own: a grant whose answer is lost keeps the name no longer than its time to live.
    async fn reserve(
        &self,
        hold: &RedisHold,
        at_least: Duration,
    ) -> Result<RedisHold, EngineFault> {
        let mut run = self.renew.prepare_invoke();
        run.key(&hold.key).arg(&hold.owner).arg(millis(kept_for(at_least)));
        match self.node.run::<i64>(&run).await? {
            // It counts from the grant, which was before now.
            1 => Ok(RedisHold { stays_until: Some(clock::now() + at_least), ..hold.clone() }),
            _ => Err(EngineFault::Trouble("the lock was lost before it was kept".to_owned())),
        }
    }

    /// Takes back what may have been granted, before the next attempt, which would meet it; if that is not
    /// answered, again and again until it is or the grant has expired, which `at_least` may have put off.
    async fn undo(&self, wish: &Wish, hold: RedisHold) {
        if give_up(&self.node, &self.release, &hold, 0).await.is_ok() {
            return;
        }
        wish.may_have_left();
        let (node, release) = (self.node.clone(), self.release.clone());
        let kept = wish.at_least.map_or(Duration::ZERO, kept_for);
        let end = clock::now() + self.time_to_live.max(kept);
        Handle::current().spawn(async move {
            while give_up(&node, &release, &hold, 0).await.is_err() && clock::now() < end {
                tokio::time::sleep(UNDO_EVERY).await;
            }
        });
    }

    async fn look_at(&self, name: &Name) -> Result<Option<EngineLock>, EngineFault> {
        let key = self.key(name);
        let script = Script::new(scripts::LOOK);
        let mut run = script.prepare_invoke();
        run.key(&key).key(scripts::token_key(&key));
        let answer = self.node.run::<Vec<String>>(&run).await?;
        Ok(scripts::seen(name, &answer))
    }
}

/// What came of one attempt.
enum Attempt {
    Taken {
        hold: RedisHold,
        token: Token,
        sent: Time,
        deadline: Time,
    },
    /// For so long, if it is known; `tells`: its end is published.
    Held {
        left: Option<Duration>,
        tells: bool,
        channel: String,
    },
    /// No answer, and perhaps a grant.
    Unheard(EngineFault, RedisHold),
}

impl LockEngine for RedisEngine {
    type Hold = RedisHold;

    fn abilities(&self) -> EngineAbilities {
        EngineAbilities { has_tokens: true, reserves: true, ..EngineAbilities::default() }
    }

    fn shown(&self) -> String {
        self.url.shown()
    }

    fn time_to_live(&self) -> Duration {
        self.time_to_live
    }

    async fn acquire(&self, wish: &Wish) -> Result<EngineGrant<RedisHold>> {
        let key = self.key(&wish.name);
        let mut hearing: Option<Hearing> = None;
        let mut had_to_queue = false;
        loop {
            wish.check()?;
            if let Some(hearing) = &mut hearing {
                hearing.catch_up();
            }
            let (left, tells, channel) = match self.try_take(wish, &key).await {
                Ok(Attempt::Taken { hold, token, sent, deadline }) => {
                    return Ok(EngineGrant { hold, token, sent, deadline, had_to_queue });
                }
                Ok(Attempt::Held { left, tells, channel }) => (left, tells, channel),
                Ok(Attempt::Unheard(fault, hold)) => {
                    self.undo(wish, hold).await;
                    wish.weather(fault).await?;
                    continue;
                }
                Err(fault) => {
                    wish.weather(fault).await?;
                    continue;
                }
            };
            if wish.is_try() {
                return Err(wish.refused());
            }
            had_to_queue = true;
            let longest = if tells { LOOK_EVERY } else { POLL_EVERY };
            let nap = left.map_or(longest, |left| left.min(longest));
            match &mut hearing {
                // Subscribed first, tried then.
                None => {
                    let hearing = hearing.insert(self.ear.listen(&channel));
                    wish.wait(hearing.begins(), nap.min(POLL_EVERY)).await?;
                }
                Some(hearing) if hearing.is_heard() => {
                    wish.wait(hearing.news(), nap).await?;
                }
                Some(_) => {
                    wish.wait(std::future::pending::<()>(), nap.min(POLL_EVERY)).await?;
                }
            }
        }
    }

    async fn renew(&self, holds: &[RedisHold]) -> Vec<Renewal> {
        if holds.is_empty() {
            return Vec::new();
        }
        let sent = clock::now();
        let lives = millis(self.time_to_live);
        let renew = |commands: &mut Pipeline, hold: &RedisHold| {
            self.form.add_renewal(commands, &hold.key, &hold.owner, lives);
        };
        let until = sent + (self.time_to_live - margin(self.time_to_live));
        let answers = self.node.send_each::<_, i64>(holds, renew).await;
        let answer = |at: usize| match answers.get(at) {
            Some(1) => Renewal::Until(until),
            Some(_) => Renewal::Gone,
            None => Renewal::Unknown,
        };
        (0..holds.len()).map(answer).collect()
    }

    async fn release(&self, hold: &RedisHold, is_unused: bool) -> Result<bool, EngineFault> {
        let stays = hold.stays_until.filter(|_| !is_unused);
        let stays = stays.map_or(0, |until| millis(until.since(clock::now())));
        give_up(&self.node, &self.release, hold, stays).await
    }

    async fn look(&self, only: Option<&Name>) -> Result<Vec<EngineLock>, EngineFault> {
        if let Some(name) = only {
            return Ok(self.look_at(name).await?.into_iter().collect());
        }
        let pattern = format!("{}*", scripts::TOKEN_PREFIX);
        let mut names = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<String>) = self.node.send(&scan).await?;
            let known = keys.iter().filter_map(|key| scripts::key_of_token(key));
            names.extend(known.filter_map(|key| Name::new(key.strip_prefix(&*self.prefix)?).ok()));
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        names.sort();
        names.dedup();
        let mut found = Vec::new();
        for name in names {
            found.extend(
                self.look_at(&name).await?.filter(|lock| lock.holder.is_some() || lock.is_reserved),
            );
        }
        Ok(found)
    }

    async fn examine(&self) -> Result<Vec<EngineFinding>, EngineFault> {
        let mut info = cmd("INFO");
        let info: String = self.node.send(info.arg("everything")).await?;
        Ok(scripts::findings(&self.node.shown(), &info))
    }

    async fn part(&self) {}

    fn place(&self) -> Option<String> {
        Some(self.url.shown())
    }

    fn break_advice(&self, name: &Name) -> String {
        let (key, channel) = (self.key(name), scripts::channel(&self.key(name)));
        format!("redis-cli DEL {key:?}, then redis-cli PUBLISH {channel:?} 0")
    }
}
