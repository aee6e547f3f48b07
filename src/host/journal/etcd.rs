//! etcd as the journal of leaders that follow each other.
//!
//! Each operation is one transaction with one comparison, in which every write puts the key `stamp`:
//! its revision is the stamp. Nothing hangs on a lease of etcd's, and no clock of its counts: an old
//! leader of the cluster that answers keep-alives (etcd#15247) proves nothing.
//!
//! | key | value |
//! |---|---|
//! | `head/reign` | the reign, its L in nanoseconds, its address; `-` without one |
//! | `head/cluster` | the format, the cluster's id |
//! | `head/epoch` | the epoch, and what a reign waits for in nanoseconds |
//! | `head/judged` | the first epoch that is judged |
//! | `head/number` | of the reign's last batch |
//! | `head/stamp` | written with every write |
//! | `head/moved` | where the journal is now, if it was moved: no leader starts here |
//! | `head/filling` | the cluster whose journal is being moved here, and which move of it: it has no stamp before it is whole |
//! | `s/SESSION` | an open session |
//! | `r/SESSION/LEASE` | a lease that was taken away from it |
//! | `a/NAME` | a name that `at_least` keeps taken |
//! | `h/EPOCH` | the reign that began with it |

mod keys;
mod moving;

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, KvClient, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};
use parking_lot::Mutex;

use self::{
    keys::{EtcdHead, EtcdKeys},
    moving::{BegunMove, FoundInstead},
};
use super::{
    StoreOpening,
    entries::ReignEntries,
    ways::{StoreWays, unknown},
};
use crate::{
    error::{LockError, LockErrorKind, Result},
    host::{
        engines::{
            etcd::{endpoints, etcd_fault, secured},
            fault::EngineFault,
            store_tls::StoreTls,
        },
        random,
        service_url::{Password, ServiceUrl},
    },
    proto::{
        history::REIGNS_MAX,
        journal::{
            Appended, JournalHead, JournalTerms, JournalTrouble, Lane, ReignAttempt, ReignJournal,
            ReignKey, ReignRenewal, Stamp, TakeOver, Took,
        },
        record::{Record, Written},
    },
};

/// The keys of one cluster of ours under a prefix of an etcd.
pub(super) struct EtcdJournal {
    url: ServiceUrl,
    endpoints: Vec<String>,
    tls: Option<StoreTls>,
    /// Which endpoint the next connection is to.
    next: AtomicUsize,
    login: Option<(String, EtcdSecret)>,
    keys: EtcdKeys,
    /// How long an operation may take.
    limit: Duration,
    ways: StoreWays<KvClient>,
    own: Mutex<OwnReign>,
    /// What this process moves here.
    moving: Mutex<Option<BegunMove>>,
}

struct EtcdSecret {
    password: Password,
    file: Option<std::path::PathBuf>,
}

/// The reign that this process has attempted last: the key's value by which its writes are let in.
struct OwnReign {
    value: Option<(ReignKey, String)>,
    entries: ReignEntries,
    /// Reigns before this epoch are too many.
    kept_from: Option<u32>,
}

/// A take-over brings all entries in one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl EtcdJournal {
    /// The way to it; nothing is asked yet.
    pub(super) fn new(mut url: ServiceUrl, lasts: Duration) -> Result<EtcdJournal> {
        let password_file = url.take_password_file()?;
        let from_file = password_file.as_deref().map(Password::read).transpose()?;
        let prefix = url.take("prefix")?.unwrap_or_else(|| "tierlock/".to_owned());
        let tls = StoreTls::take(&mut url)?;
        url.finish("ca, password_file, plaintext, prefix")?;
        if !prefix.ends_with('/') {
            return Err(url.refuse(
                "a journal has a folder for itself, as it reads and deletes all that is in it: its prefix \
                 ends with `/`",
            ));
        }
        if !url.path.is_empty() {
            return Err(url.refuse("a path has no meaning here: use ?prefix=locks/ for a folder"));
        }
        let endpoints = endpoints(&url, tls.as_ref())?;
        let login = match (url.user.clone(), url.password.clone().or(from_file)) {
            (Some(user), Some(password)) => {
                Some((user, EtcdSecret { password, file: password_file }))
            }
            (None, None) => None,
            _ => {
                return Err(url
                    .refuse("a login is a user with a password: etcd://USER@HOST?password_file="));
            }
        };
        let limit = lasts / 2;
        Ok(EtcdJournal {
            endpoints,
            tls,
            next: AtomicUsize::new(0),
            login,
            keys: EtcdKeys::new(prefix),
            limit,
            ways: StoreWays::new(limit)?,
            own: Mutex::new(OwnReign {
                value: None,
                entries: ReignEntries::none(),
                kept_from: None,
            }),
            moving: Mutex::new(None),
            url,
        })
    }

    /// Looks whether the journal is there, or makes it.
    pub(super) fn open(&self, opening: &StoreOpening) -> Result<()> {
        let mut trouble = None;
        // Each connection is to another address.
        for _ in &self.endpoints {
            match self.ways.run(opening.patience, self.examine(opening)) {
                // Of several members one may be down, and another have a bad certificate.
                Some(Err(error))
                    if error.is_unreachable() || error.kind() == LockErrorKind::Refused =>
                {
                    trouble = Some(more_telling(trouble, error));
                }
                Some(opened) => return opened,
                None => {}
            }
        }
        Err(trouble.unwrap_or_else(|| {
            EngineFault::silent(self.url.shown(), opening.patience).into_error()
        }))
    }

    async fn examine(&self, opening: &StoreOpening) -> Result<()> {
        let mut client = self.connect().await.map_err(EngineFault::into_error)?;
        let failed = |error| etcd_fault(&self.url.shown(), &error).into_error();
        if opening.init {
            let made = self.keys.begin(random(), opening.epoch_above);
            let transaction = Txn::new().when(self.keys.are_free()).and_then(made);
            let transaction = transaction.or_else(self.keys.look_for_any());
            let made = client.txn(transaction).await.map_err(failed)?;
            if !made.succeeded() {
                return Err(match self.found_instead(&made) {
                    FoundInstead::Filling(_) => self.half_filled_here(),
                    FoundInstead::Foreign(key) => self.is_in_the_way(&key),
                    FoundInstead::Journal => self.url.refuse(
                        "the journal is made; start without --init, which is for the first start of the \
                         first leader only",
                    ),
                });
            }
        }
        let options = GetOptions::new().with_prefix();
        let found = client.get(self.keys.head(), Some(options)).await.map_err(failed)?;
        match self.keys.read_head(found.kvs()) {
            Ok(Some(_)) => Ok(()),
            Ok(None) if self.keys.is_half_filled(found.kvs()) => Err(self.half_filled_here()),
            Ok(None) => Err(self.not_made()),
            Err(JournalTrouble::Failed(text) | JournalTrouble::Unknown(text)) => {
                Err(self.url.refuse(text))
            }
        }
    }

    /// Server and prefix, without a login.
    pub(super) fn shown(&self) -> String {
        format!("{}, prefix {:?}", self.url.shown(), self.keys.prefix())
    }

    fn not_made(&self) -> LockError {
        self.url.refuse(format_args!(
            "there is no journal under the prefix {:?}: the first leader is started once with --init \
             (init(true)), which makes one. If there was one, look whether this is its cluster; if \
             that is lost, start once with --init --epoch-above N, N being the highest epoch that its \
             clients have seen",
            self.keys.prefix()
        ))
    }

    fn half_filled_here(&self) -> LockError {
        self.url.refuse(self.says_half_filled())
    }

    fn says_half_filled(&self) -> String {
        format!(
            "a journal was being moved to the prefix {0:?}, and that was interrupted: run `tierlock journal \
             move` again with the same two places. If you give that up, and what was to be moved with it, \
             delete what is under that prefix (etcdctl del --prefix {0:?})",
            self.keys.prefix()
        )
    }

    fn is_in_the_way(&self, key: &str) -> LockError {
        self.url.refuse(format_args!(
            "there is no journal under the prefix {:?}, but a key where its own would be, {key:?}: choose \
             another prefix, or delete what is there if nothing needs it",
            self.keys.prefix()
        ))
    }

    /// To the next address, since the last connection has not answered. The library repeats nothing
    /// of itself: it has one address, and no token that it may renew.
    async fn connect(&self) -> Result<KvClient, EngineFault> {
        let next = self.next.fetch_add(1, Relaxed) % self.endpoints.len();
        let endpoint = &self.endpoints[next];
        let mut options = ConnectOptions::new()
            .with_keep_alive(self.limit, self.limit)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(self.limit)
            .with_require_leader(true);
        if let Some((user, EtcdSecret { password, file })) = &self.login {
            let read = file.as_deref().and_then(|file| Password::read(file).ok());
            options = options.with_user(user, read.as_ref().unwrap_or(password).reveal());
        }
        let options = secured(options, self.tls.as_ref());
        let client = Client::connect([endpoint], Some(options)).await;
        let client = client.map_err(|error| etcd_fault(&self.url.shown(), &error))?;
        Ok(client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    fn transact(&self, lane: Lane, transaction: Txn) -> Result<TxnResponse, JournalTrouble> {
        self.ways.ask(
            lane,
            async || self.connect().await,
            async |client| {
                let answer = client.txn(transaction).await;
                answer.map_err(|error| unknown(etcd_fault(&self.url.shown(), &error)))
            },
        )
    }

    /// Lets a write in only in this reign.
    fn is_mine(&self, reign: ReignKey) -> Result<Compare, JournalTrouble> {
        let own = self.own.lock();
        match &own.value {
            Some((own, value)) if *own == reign => {
                Ok(Compare::value(self.keys.reign(), CompareOp::Equal, value.clone()))
            }
            _ => Err(JournalTrouble::Unknown("another reign was attempted since".to_owned())),
        }
    }

    /// The head, as a condition that did not hold found it.
    fn head_in(&self, answer: &TxnResponse) -> Result<EtcdHead, JournalTrouble> {
        match answer.op_responses().first() {
            Some(TxnOpResponse::Get(found)) => {
                let head = self.keys.read_head(found.kvs())?;
                head.ok_or_else(|| JournalTrouble::Unknown("it has no head".to_owned()))
            }
            _ => Err(JournalTrouble::Unknown("the answer has no head".to_owned())),
        }
    }

    fn or_head(&self) -> [TxnOp; 1] {
        [TxnOp::get(self.keys.head(), Some(GetOptions::new().with_prefix()))]
    }
}

/// Of what two addresses have come to: that one is silent tells less.
fn more_telling(known: Option<LockError>, next: LockError) -> LockError {
    known.filter(|known| !known.is_unreachable()).unwrap_or(next)
}

/// The revision of a transaction that wrote is that of each key which it wrote.
fn written_at(answer: &TxnResponse) -> Result<Stamp, JournalTrouble> {
    let header = answer.header();
    let header =
        header.ok_or_else(|| JournalTrouble::Unknown("the answer has no revision".into()))?;
    Ok(Stamp(header.revision() as u64))
}

impl ReignJournal for EtcdJournal {
    fn terms(&self) -> JournalTerms {
        JournalTerms { is_exclusive: false, batch_max: super::BATCH_MAX, renewals: super::RENEWALS }
    }

    fn read(&self) -> Result<JournalHead, JournalTrouble> {
        let options = GetOptions::new().with_prefix().with_serializable();
        let connect = async || self.connect().await;
        let found = self.ways.ask(Lane::Watching, connect, async |client| {
            let found = client.get(self.keys.head(), Some(options)).await;
            found.map_err(|error| unknown(etcd_fault(&self.url.shown(), &error)))
        })?;
        let head = self.keys.read_head(found.kvs())?;
        head.map(|head| head.head)
            .ok_or_else(|| JournalTrouble::Unknown("it has no head".to_owned()))
    }

    fn take_over(&self, attempt: &ReignAttempt) -> Result<TakeOver, JournalTrouble> {
        self.own.lock().value = Some((attempt.reign, keys::reign_value(attempt)));
        let seen = attempt.seen.0 as i64;
        let is_seen = Compare::mod_revision(self.keys.stamp(), CompareOp::Equal, seen);
        // What there was is read before anything is written over it.
        let all = TxnOp::get(self.keys.prefix(), Some(GetOptions::new().with_prefix()));
        let mut then = vec![all];
        then.extend(self.keys.take_over(attempt));
        let transaction = Txn::new().when([is_seen]).and_then(then).or_else(self.or_head());
        let answer = self.transact(Lane::Writing, transaction)?;
        if !answer.succeeded() {
            return Ok(TakeOver::Raced(self.head_in(&answer)?.head));
        }
        let stamp = written_at(&answer)?;
        let answers = answer.op_responses();
        let Some(TxnOpResponse::Get(found)) = answers.first() else {
            return Err(JournalTrouble::Unknown("the answer has no entries".to_owned()));
        };
        let found = self.keys.read_all(found.kvs())?;
        let epochs = found.epochs.begun(&attempt.took_over);
        // Keys come in their order. The reign that begins is one more.
        let excess = (found.reigns.len() + 1).saturating_sub(REIGNS_MAX);
        let kept_from = (excess > 0).then(|| found.reigns[excess].0);
        let before = found.recovered()?;
        let mut own = self.own.lock();
        own.entries = ReignEntries::begin(attempt.reign, &before, epochs);
        own.kept_from = kept_from;
        drop(own);
        let written = Written::committed(Vec::new());
        Ok(TakeOver::Took(Box::new(Took { stamp, before, written })))
    }

    fn append(
        &self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> Result<Appended, JournalTrouble> {
        let is_mine = self.is_mine(reign)?;
        let mut own = self.own.lock();
        let (changes, kept_from) = (own.entries.changes(reign, number, records), own.kept_from);
        drop(own);
        let changes = changes.ok_or_else(|| super::out_of_turn(number))?;
        let before = (number - 1).to_string();
        let is_next = Compare::value(self.keys.number(), CompareOp::Equal, before);
        let mut then = self.keys.append(number, &changes);
        then.extend(kept_from.map(|epoch| self.keys.trim(epoch)));
        let conditions = [is_mine, is_next];
        let transaction = Txn::new().when(conditions).and_then(then).or_else(self.or_head());
        let answer = self.transact(Lane::Writing, transaction)?;
        let committed = |stamp| Appended::Committed(stamp, Written::committed(Vec::new()));
        if answer.succeeded() {
            return Ok(committed(written_at(&answer)?));
        }
        let EtcdHead { head, number: found } = self.head_in(&answer)?;
        Ok(match head.reign == Some(reign) && found == number {
            true => committed(head.stamp), // by an earlier try of the same number
            false => Appended::Deposed(head),
        })
    }

    fn renew(&self, reign: ReignKey) -> Result<ReignRenewal, JournalTrouble> {
        let is_mine = self.is_mine(reign)?;
        let then = [self.keys.touch()];
        let transaction = Txn::new().when([is_mine]).and_then(then).or_else(self.or_head());
        let answer = self.transact(Lane::Renewing, transaction)?;
        Ok(match answer.succeeded() {
            true => ReignRenewal::Renewed(written_at(&answer)?),
            false => ReignRenewal::Deposed(self.head_in(&answer)?.head),
        })
    }

    fn resign(&self, reign: ReignKey) -> Result<(), JournalTrouble> {
        let is_mine = self.is_mine(reign)?;
        let transaction = Txn::new().when([is_mine]).and_then(self.keys.resign());
        self.transact(Lane::Writing, transaction)?;
        Ok(())
    }
}
