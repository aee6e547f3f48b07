//! What is written at a Redis server, and what its answers mean.

use std::time::Duration;

use redis::Pipeline;

use crate::{
    error::Holder,
    host::engines::{
        engine::{EngineFinding, EngineLock},
        holder_line::HolderLine,
    },
    name::Name,
    token::Token,
};

/// How a lock is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum LockForm {
    /// A hash with the owner as its field, as Redisson's `RLock` has it.
    Hash,
    /// A string that is the owner, as redis-py's `Lock` has it.
    Plain,
}

/// How both forms begin: another holder's lock is shown, and else a token counted.
macro_rules! take_by {
    ($written:literal) => {
        concat!(
            r"
local kind = redis.call('type', KEYS[1])['ok']
if kind == 'hash' and redis.call('hexists', KEYS[1], 'mode') == 1 then return {'other', 'a Redisson read-write lock'} end
if kind == 'hash' or kind == 'string' then 
  local line = kind == 'hash' and redis.call('hget', KEYS[1], 'tierlock') or kind == 'string' and redis.call('get', KEYS[1])
  return {'held', tostring(redis.call('pttl', KEYS[1])), kind, line or ''}
end
if kind ~= 'none' then return {'other', 'a ' .. kind} end
local last = redis.call('get', KEYS[2]) or '0'
local above = ARGV[3]
if #last < #above or #last == #above and last < above then redis.call('set', KEYS[2], above) end
local counted = redis.pcall('incr', KEYS[2])
if type(counted) == 'table' and counted.err then return {'taken', ''} end
",
            $written
        )
    };
}

/// KEYS: the lock, the token's counter. ARGV: owner, milliseconds, the token to exceed, the holder in
/// words. Numbers beyond 2^53 would be rounded as Lua's, so tokens are compared as text.
const TAKE_HASH: &str = take_by!(
    r"local token = redis.call('get', KEYS[2])
local now = redis.call('time')
redis.call('hset', KEYS[1], ARGV[1], '1')
redis.call('hset', KEYS[1], 'tierlock', token .. '\t' .. now[1] .. '\t' .. ARGV[4])
redis.call('pexpire', KEYS[1], ARGV[2])
return {'taken', token}"
);

const TAKE_PLAIN: &str = take_by!(
    r"redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'taken', redis.call('get', KEYS[2])}"
);

/// KEYS: the lock, its channel. ARGV: owner, milliseconds that the key is to stay. The owner goes also
/// where the key stays: a renewal that comes late finds nothing to renew.
const RELEASE_HASH: &str = r"
if redis.call('type', KEYS[1])['ok'] ~= 'hash' then return 0 end
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then return 0 end
if tonumber(ARGV[2]) > 0 then
  redis.call('hset', KEYS[1], 'reserved', '1')
  redis.call('hdel', KEYS[1], ARGV[1], 'tierlock')
  redis.call('pexpire', KEYS[1], ARGV[2])
  return 1
end
redis.call('del', KEYS[1])
redis.call('publish', KEYS[2], '0')
return 1";

const RELEASE_PLAIN: &str = r"
if redis.call('type', KEYS[1])['ok'] ~= 'string' then return 0 end
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then
  redis.call('set', KEYS[1], 'reserved', 'PX', ARGV[2])
  return 1
end
redis.call('del', KEYS[1])
redis.call('publish', KEYS[2], '0')
return 1";

/// KEYS: the lock. ARGV: owner, milliseconds. The expiry is never brought forward: `at_least` may
/// have set it further off.
const RENEW_HASH: &str = r"
if redis.call('type', KEYS[1])['ok'] ~= 'hash' then return 0 end
if redis.call('hexists', KEYS[1], ARGV[1]) == 0 then return 0 end
local left = redis.call('pttl', KEYS[1])
if left >= 0 and left < tonumber(ARGV[2]) then redis.call('pexpire', KEYS[1], ARGV[2]) end
return 1";

const RENEW_PLAIN: &str = r"
if redis.call('type', KEYS[1])['ok'] ~= 'string' then return 0 end
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
local left = redis.call('pttl', KEYS[1])
if left >= 0 and left < tonumber(ARGV[2]) then redis.call('pexpire', KEYS[1], ARGV[2]) end
return 1";

/// KEYS: the lock, the token's counter. Answers with kind, milliseconds left, last token, the
/// server's time, then what the key holds.
pub(in super::super) const LOOK: &str = r"
local kind = redis.call('type', KEYS[1])['ok']
local answer = {kind, tostring(redis.call('pttl', KEYS[1])), redis.call('get', KEYS[2]) or '0', redis.call('time')[1]}
if kind == 'string' then table.insert(answer, redis.call('get', KEYS[1])) end
if kind == 'hash' then
  for _, part in ipairs(redis.call('hgetall', KEYS[1])) do table.insert(answer, part) end
end
return answer";

impl LockForm {
    pub(in super::super) fn take(self) -> &'static str {
        match self {
            LockForm::Hash => TAKE_HASH,
            LockForm::Plain => TAKE_PLAIN,
        }
    }

    pub(in super::super) fn release(self) -> &'static str {
        match self {
            LockForm::Hash => RELEASE_HASH,
            LockForm::Plain => RELEASE_PLAIN,
        }
    }

    pub(in super::super) fn renew(self) -> &'static str {
        match self {
            LockForm::Hash => RENEW_HASH,
            LockForm::Plain => RENEW_PLAIN,
        }
    }

    /// Adds the renewal of a lock, for so many milliseconds; 1 is answered if it is still its owner's.
    pub(in super::super) fn add_renewal(
        self,
        commands: &mut Pipeline,
        key: &str,
        owner: &str,
        lives: u64,
    ) {
        commands.cmd("EVAL").arg(self.renew()).arg(1).arg(key).arg(owner).arg(lives);
    }

    /// As the key has it: a string has room for nothing else.
    pub(in super::super) fn owner(self, drawn: String, holder: &HolderLine) -> String {
        match self {
            LockForm::Hash => drawn,
            LockForm::Plain => format!("{drawn}\t{}", holder.text()),
        }
    }
}

/// What came of an attempt to take a lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// `None`: the counter is at its end.
    Taken {
        token: Option<Token>,
    },
    Held {
        left: Option<Duration>,
        tells: bool,
        holder: Option<Holder>,
    },
    /// The key is something else.
    Other(String),
}

pub(super) fn answered(answer: &[String]) -> Answered {
    let words: Vec<&str> = answer.iter().map(String::as_str).collect();
    match *words {
        ["taken", token] => Answered::Taken { token: token.parse().ok() },
        ["held", left, kind, line] => Answered::Held {
            left: left.parse().ok().map(Duration::from_millis),
            // A hash is Redisson's or ours, which publish the end of it.
            tells: kind == "hash",
            holder: match kind {
                "hash" => written(line, ""),
                _ => HolderLine::read(line.split('\t').skip(1)),
            },
        },
        ["other", what] => Answered::Other(what.to_owned()),
        _ => Answered::Other(format!("something that tierlock does not understand ({words:?})")),
    }
}

/// What [`LOOK`] says of a name; `None` if the key is no lock.
pub(in super::super) fn seen(name: &Name, answer: &[String]) -> Option<EngineLock> {
    let [kind, left, token, now, parts @ ..] = answer else { return None };
    let remaining = left.parse().ok().map(Duration::from_millis);
    let token: Token = token.parse().unwrap_or(Token::ZERO);
    let foreign = |label: String| Holder { label, ..Holder::default() };
    let (holder, is_reserved) = match &**kind {
        "none" => (None, false),
        "string" if parts.first().is_some_and(|value| value == "reserved") => (None, true),
        "string" => {
            let value = parts.first()?;
            let ours = HolderLine::read(value.split('\t').skip(1));
            let ours = ours.map(|holder| Holder { token: Some(token), ..holder });
            (Some(ours.unwrap_or_else(|| foreign("another client of Redis".to_owned()))), false)
        }
        "hash" => {
            let fields: Vec<(&str, &str)> =
                parts.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1])).collect();
            let field = |wanted: &str| fields.iter().find(|(known, _)| *known == wanted);
            match (field("tierlock"), field("reserved")) {
                (_, Some(_)) => (None, true),
                (Some((_, line)), None) => (written(line, now), false),
                (None, None) => {
                    let owner = fields.first().map_or("", |(owner, _)| owner);
                    (Some(foreign(format!("Redisson client {owner}"))), false)
                }
            }
        }
        _ => return None,
    };
    let name = name.clone();
    Some(EngineLock { name, token, holder, is_reserved, remaining, waiters: Vec::new() })
}

/// A holder as [`TAKE_HASH`] writes it.
fn written(line: &str, now: &str) -> Option<Holder> {
    let mut words = line.split('\t');
    let (token, since) = (words.next()?.parse().ok(), words.next()?.parse::<u64>().ok()?);
    let holder = HolderLine::read(words)?;
    let held = now.parse::<u64>().ok().map(|now| Duration::from_secs(now.saturating_sub(since)));
    Some(Holder { token, held, held_since_grant: true, ..holder })
}

/// Redisson's names of what belongs to a lock.
pub(in super::super) fn channel(key: &str) -> String {
    prefixed("redisson_lock__channel", key)
}

pub(in super::super) fn token_key(key: &str) -> String {
    prefixed("redisson_lock_token", key)
}

fn prefixed(prefix: &str, key: &str) -> String {
    match key.contains('{') {
        true => format!("{prefix}:{key}"),
        false => format!("{prefix}:{{{key}}}"),
    }
}

/// What all counters of tokens begin with.
pub(super) const TOKEN_PREFIX: &str = "redisson_lock_token:";

/// The lock's key, by its counter's.
pub(super) fn key_of_token(counter: &str) -> Option<&str> {
    let key = counter.strip_prefix(TOKEN_PREFIX)?;
    match key.strip_prefix('{').and_then(|key| key.strip_suffix('}')) {
        Some(inside) if !inside.contains('{') => Some(inside),
        _ => Some(key),
    }
}

/// What an operator should know, from `INFO`.
pub(in super::super) fn findings(shown: &str, info: &str) -> Vec<EngineFinding> {
    let value = |key: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| *known == key).map(|(_, value)| value.trim())
    };
    let is = |key, expected: &str| value(key) == Some(expected);
    let name = if value("valkey_version").is_some() { "Valkey" } else { "Redis" };
    let version = value("valkey_version").or(value("redis_version")).unwrap_or("unknown");
    let mut found = vec![EngineFinding::fine(format!("{shown} answers: {name} {version}"))];
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if name == "Redis" && major.is_some_and(|major| major < 5) {
        found.push(EngineFinding::trouble(format!(
            "Redis {version} is too old: its scripts cannot read the clock before they write; update \
             to 5 or later"
        )));
    }
    if is("role", "slave") {
        found.push(EngineFinding::trouble("it is a replica: locks are on the primary alone"));
    }
    if is("cluster_enabled", "1") {
        found.push(EngineFinding::trouble(
            "it is a node of a Redis Cluster, which is not supported",
        ));
    }
    if is("aof_enabled", "0") {
        found.push(EngineFinding::note(
            "there is no append-only file: a restart forgets held locks, and counts tokens from what \
             the last snapshot has; set `appendonly yes`",
        ));
    }
    if value("connected_slaves").is_some_and(|replicas| replicas != "0") {
        found.push(EngineFinding::note(
            "it has replicas, which lag: a fail-over can forget a lock and take tokens back; use \
             etcd:// where that does harm",
        ));
    }
    if value("maxmemory_policy").is_some_and(|policy| policy.starts_with("allkeys")) {
        found.push(EngineFinding::trouble(
            "its maxmemory-policy may evict any key, locks and tokens too: set it to noeviction or \
             one of volatile-*, and give locks a server of their own",
        ));
    } else if value("maxmemory_policy").is_some_and(|policy| policy.starts_with("volatile")) {
        found.push(EngineFinding::note(
            "its maxmemory-policy may evict keys with an expiry, which held locks have: set it to \
             noeviction, or give locks a server of their own",
        ));
    }
    found
}
