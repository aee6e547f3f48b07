//! The keys of a journal in etcd, and what their values say. Those of the head are text, for people.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, TxnOp};

use crate::{
    host::journal::{
        STORE_FORMAT,
        entries::{EntryChanges, EpochEntry, FoundEntries},
        moved_to, other_format,
    },
    proto::{
        ClusterId, LeaseId, ReignId, SessionId, TIME_TO_LIVE,
        journal::{JournalHead, JournalTrouble, ReignAttempt, ReignKey, Stamp},
        record::Record,
    },
};

/// The keys under one prefix.
pub(super) struct EtcdKeys {
    prefix: String,
}

/// The head, and the number of the reign's last batch.
pub(super) struct EtcdHead {
    pub(super) head: JournalHead,
    pub(super) number: u64,
}

/// The marker of a move, and the revision that wrote it.
pub(super) struct FillingKey {
    pub(super) value: String,
    pub(super) revision: i64,
}

/// What the keys of entries begin with, behind the prefix.
const FOLDERS: [&str; 4] = ["s/", "r/", "a/", "h/"];

/// Its reign, L, stamp, and where it was moved to.
type SurveyedHead = (Option<ReignKey>, Duration, Stamp, Option<String>);

/// In the place of a reign, or of a duration, that there is none of.
const NONE: &str = "-";

impl EtcdKeys {
    pub(super) fn new(prefix: String) -> EtcdKeys {
        EtcdKeys { prefix }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn key(&self, rest: impl std::fmt::Display) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// What all keys of the head begin with.
    pub(super) fn head(&self) -> String {
        self.key("head/")
    }

    pub(super) fn reign(&self) -> String {
        self.key("head/reign")
    }

    pub(super) fn number(&self) -> String {
        self.key("head/number")
    }

    pub(super) fn stamp(&self) -> String {
        self.key("head/stamp")
    }

    /// A write of nothing but the stamp. Its value is of no account.
    pub(super) fn touch(&self) -> TxnOp {
        TxnOp::put(self.stamp(), "", None)
    }

    /// An empty journal.
    pub(super) fn begin(&self, cluster: u128, epoch_above: Option<u32>) -> Vec<TxnOp> {
        let epoch = epoch_above.unwrap_or(0);
        let waits_for = epoch_above.map(|_| *TIME_TO_LIVE.end());
        vec![
            TxnOp::put(self.key("head/cluster"), format!("{STORE_FORMAT} {cluster:032x}"), None),
            TxnOp::put(self.key("head/epoch"), epoch_value(epoch, waits_for), None),
            TxnOp::put(self.key("head/judged"), epoch.to_string(), None),
            TxnOp::put(self.reign(), NONE, None),
            TxnOp::put(self.number(), "0", None),
            self.touch(),
        ]
    }

    /// What a reign writes when it begins, but for what it reads.
    pub(super) fn take_over(&self, attempt: &ReignAttempt) -> Vec<TxnOp> {
        let Record::TookOver { epoch, reign, waits_for, starts_above } = attempt.took_over else {
            unreachable!("a reign begins with it")
        };
        let mut then = vec![
            TxnOp::put(self.reign(), reign_value(attempt), None),
            TxnOp::put(self.key("head/epoch"), epoch_value(epoch, waits_for), None),
            TxnOp::put(self.number(), "0", None),
            TxnOp::put(self.of_epoch(epoch), format!("{:016x}", reign.0), None),
            self.touch(),
        ];
        if starts_above {
            then.push(TxnOp::put(self.key("head/judged"), epoch.to_string(), None));
        }
        then
    }

    /// The reigns before this epoch are forgotten.
    pub(super) fn trim(&self, epoch: u32) -> TxnOp {
        deletion(self.key("h/").into_bytes(), self.of_epoch(epoch).into_bytes())
    }

    pub(super) fn moved(&self) -> String {
        self.key("head/moved")
    }

    pub(super) fn filling(&self) -> String {
        self.key("head/filling")
    }

    /// Whether a move to here has begun, and has not come to its end.
    pub(super) fn is_half_filled(&self, head: &[KeyValue]) -> bool {
        let has = |key: String| head.iter().any(|known| known.key() == key.as_bytes());
        has(self.filling()) && !has(self.stamp())
    }

    /// Ends the reign and says where the journal is now.
    pub(super) fn mark_moved(&self, to: &str) -> Vec<TxnOp> {
        let moved = TxnOp::put(self.moved(), to, None);
        vec![moved, TxnOp::put(self.reign(), NONE, None), self.touch()]
    }

    /// Lets a write in only where none of a journal's keys is: others may have what is there.
    pub(super) fn are_free(&self) -> Vec<Compare> {
        let is_free =
            |kind: &str| Compare::version(self.key(kind), CompareOp::Equal, 0).with_prefix();
        FOLDERS.into_iter().chain(["head/"]).map(is_free).collect()
    }

    /// The head, and a key of each folder, where there is one.
    pub(super) fn look_for_any(&self) -> Vec<TxnOp> {
        let one = || GetOptions::new().with_prefix().with_keys_only().with_limit(1);
        let of_kind = |kind: &str| TxnOp::get(self.key(kind), Some(one()));
        let head = TxnOp::get(self.head(), Some(GetOptions::new().with_prefix()));
        [head].into_iter().chain(FOLDERS.into_iter().map(of_kind)).collect()
    }

    /// Deletes what a move here has written, but for its marker. Only where that is its own.
    pub(super) fn sweep(&self) -> Vec<TxnOp> {
        let of_kind = |kind: &str| {
            let prefix = self.key(kind);
            TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix()))
        };
        FOLDERS.map(of_kind).to_vec()
    }

    /// The marker of a move to here, if it is among these keys.
    pub(super) fn read_filling(&self, found: &[KeyValue]) -> Option<FillingKey> {
        let filling = self.filling();
        let filling = found.iter().find(|known| known.key() == filling.as_bytes())?;
        let value = String::from_utf8_lossy(filling.value()).into_owned();
        Some(FillingKey { value, revision: filling.mod_revision() })
    }

    /// Puts all entries of a journal, but for its head.
    pub(super) fn fill(&self, entries: &FoundEntries, records: &[(Record, &[u8])]) -> Vec<TxnOp> {
        let reign = |(epoch, reign): &(u32, ReignId)| {
            TxnOp::put(self.of_epoch(*epoch), format!("{:016x}", reign.0), None)
        };
        let entry = |(record, bytes): &(Record, &[u8])| {
            let key = match record {
                Record::SessionOpened { session, .. } => {
                    self.key(format_args!("s/{:032x}", session.0))
                }
                Record::LeaseRevoked { session, lease, .. } => self.revoked(*session, *lease),
                Record::Reserved { name, .. } => self.key(format_args!("a/{name}")),
                _ => return None,
            };
            Some(TxnOp::put(key, *bytes, None))
        };
        entries.reigns.iter().map(reign).chain(records.iter().filter_map(entry)).collect()
    }

    /// The head of a journal that is moved here.
    pub(super) fn fill_head(&self, entries: &FoundEntries) -> Vec<TxnOp> {
        let EpochEntry { epoch, judged_from, waits_for } = entries.epochs;
        let cluster = format!("{STORE_FORMAT} {:032x}", entries.cluster.0);
        vec![
            TxnOp::put(self.key("head/cluster"), cluster, None),
            TxnOp::put(self.key("head/epoch"), epoch_value(epoch, waits_for), None),
            TxnOp::put(self.key("head/judged"), judged_from.to_string(), None),
            TxnOp::put(self.reign(), NONE, None),
            TxnOp::put(self.number(), "0", None),
            TxnOp::delete(self.filling(), None),
            self.touch(),
        ]
    }

    /// What a survey says of the head beside its entries: its reign, L, stamp, and where it has moved.
    /// `None`: there is none.
    pub(super) fn read_survey(
        &self,
        found: &[KeyValue],
    ) -> Result<Option<SurveyedHead>, JournalTrouble> {
        let find = |key: String| found.iter().find(|known| known.key() == key.as_bytes());
        let Some(stamp) = find(self.key("head/stamp")) else { return Ok(None) };
        let text = |known: &KeyValue| str::from_utf8(known.value()).map(str::to_owned).ok();
        let reign = find(self.reign()).and_then(text).ok_or_else(|| damaged("head/reign"))?;
        let (reign, lasts, _) = read_reign(&reign)?;
        let moved = find(self.moved()).and_then(text);
        Ok(Some((reign, lasts, Stamp(stamp.mod_revision() as u64), moved)))
    }

    fn of_epoch(&self, epoch: u32) -> String {
        self.key(format_args!("h/{epoch:08x}"))
    }

    pub(super) fn resign(&self) -> Vec<TxnOp> {
        vec![TxnOp::put(self.reign(), NONE, None), self.touch()]
    }

    /// What a batch writes: two operations for each of its records at most, and four besides.
    pub(super) fn append(&self, number: u64, changes: &EntryChanges) -> Vec<TxnOp> {
        let mut then = vec![TxnOp::put(self.number(), number.to_string(), None), self.touch()];
        if let Some(EpochEntry { epoch, judged_from, waits_for }) = changes.epochs {
            then.push(TxnOp::put(self.key("head/epoch"), epoch_value(epoch, waits_for), None));
            then.push(TxnOp::put(self.key("head/judged"), judged_from.to_string(), None));
        }
        let mut change = |key: String, value: &Option<Vec<u8>>| {
            then.push(match value {
                Some(value) => TxnOp::put(key, value.clone(), None),
                None => TxnOp::delete(key, None),
            });
        };
        for (session, value) in &changes.sessions {
            change(self.key(format_args!("s/{:032x}", session.0)), value);
        }
        for ((session, lease), value) in &changes.revoked {
            change(self.revoked(*session, *lease), value);
        }
        for (name, value) in &changes.stays {
            change(self.key(format_args!("a/{name}")), value);
        }
        // etcd refuses a transaction that deletes what it puts: around those keys.
        for session in &changes.cleared {
            let all = self.key(format_args!("r/{:032x}/", session.0));
            let end = self.key(format_args!("r/{:032x}0", session.0)); // `0` follows `/`
            let mut from = all.into_bytes();
            let [first, last] = [0, u64::MAX].map(|count| LeaseId { epoch: count as u32, count });
            let of_it = (*session, first)..=(*session, last);
            for ((_, lease), _) in changes.revoked.range(of_it) {
                let mut put = self.revoked(*session, *lease).into_bytes();
                then.push(deletion(from, put.clone()));
                put.push(0);
                from = put;
            }
            then.push(deletion(from, end.into_bytes()));
        }
        then
    }

    fn revoked(&self, session: SessionId, lease: LeaseId) -> String {
        let LeaseId { epoch, count } = lease;
        self.key(format_args!("r/{:032x}/{epoch:08x}{count:016x}", session.0))
    }

    /// `None`: there is none.
    pub(super) fn read_head(&self, found: &[KeyValue]) -> Result<Option<EtcdHead>, JournalTrouble> {
        let find = |name: &str| {
            let key = self.key(name);
            found.iter().find(|known| known.key() == key.as_bytes())
        };
        let text = |name: &'static str| {
            let value = find(name).and_then(|known| str::from_utf8(known.value()).ok());
            value.ok_or_else(|| damaged(name))
        };
        if find("head/stamp").is_none() && find("head/reign").is_none() {
            return Ok(None);
        }
        if find("head/moved").is_some() {
            return Err(moved_to(text("head/moved")?));
        }
        let cluster = read_cluster(text("head/cluster")?)?;
        let (reign, lasts, address) = read_reign(text("head/reign")?)?;
        let (epoch, waits_for) = read_epoch(text("head/epoch")?)?;
        let stamp = find("head/stamp").ok_or_else(|| damaged("head/stamp"))?;
        let stamp = Stamp(stamp.mod_revision() as u64);
        let number = text("head/number")?.parse().map_err(|_| damaged("head/number"))?;
        let head = JournalHead { cluster, reign, lasts, stamp, epoch, waits_for, address };
        Ok(Some(EtcdHead { head, number }))
    }

    /// All that a take-over found.
    pub(super) fn read_all(&self, found: &[KeyValue]) -> Result<FoundEntries, JournalTrouble> {
        let text = |known: &KeyValue| str::from_utf8(known.value()).map(str::to_owned).ok();
        let of = |name: &'static str| {
            let key = self.key(name);
            let known = found.iter().find(|known| known.key() == key.as_bytes());
            known.and_then(text).ok_or_else(|| damaged(name))
        };
        let cluster = read_cluster(&of("head/cluster")?)?;
        let (epoch, waits_for) = read_epoch(&of("head/epoch")?)?;
        let judged_from = of("head/judged")?.parse().map_err(|_| damaged("head/judged"))?;
        let epochs = EpochEntry { epoch, judged_from, waits_for };
        let mut entries = FoundEntries::of(cluster, epochs);
        for known in found {
            let rest = known.key().strip_prefix(self.prefix.as_bytes()).unwrap_or_default();
            let (kind, rest) = rest.split_at_checked(2).unwrap_or_default();
            match kind {
                b"s/" => entries.sessions.push(known.value().to_vec()),
                b"r/" => entries.revoked.push(known.value().to_vec()),
                b"a/" => entries.stays.push(known.value().to_vec()),
                b"h/" => {
                    let epoch = str::from_utf8(rest).ok();
                    let epoch = epoch.and_then(|epoch| u32::from_str_radix(epoch, 16).ok());
                    let reign = text(known).and_then(|id| u64::from_str_radix(&id, 16).ok());
                    let known = epoch.zip(reign).ok_or_else(|| damaged("h/"))?;
                    entries.reigns.push((known.0, ReignId(known.1)));
                }
                _ => {}
            }
        }
        Ok(entries)
    }
}

fn deletion(from: Vec<u8>, end: Vec<u8>) -> TxnOp {
    TxnOp::delete(from, Some(DeleteOptions::new().with_range(end)))
}

/// A reign as its key says it, word for word the same for as long as it lasts.
pub(super) fn reign_value(attempt: &ReignAttempt) -> String {
    let ReignAttempt { reign, lasts, address, .. } = attempt;
    format!("{:032x} {} {}", reign.0, lasts.as_nanos(), address.as_deref().unwrap_or_default())
}

type ReadReign = (Option<ReignKey>, Duration, Option<String>);

fn read_reign(text: &str) -> Result<ReadReign, JournalTrouble> {
    if text == NONE {
        return Ok((None, Duration::ZERO, None));
    }
    let read = || {
        let (reign, rest) = text.split_once(' ')?;
        let (lasts, address) = rest.split_once(' ')?;
        let reign = ReignKey(u128::from_str_radix(reign, 16).ok()?);
        let address = (!address.is_empty()).then(|| address.to_owned());
        Some((Some(reign), Duration::from_nanos(lasts.parse().ok()?), address))
    };
    read().ok_or_else(|| damaged("head/reign"))
}

fn epoch_value(epoch: u32, waits_for: Option<Duration>) -> String {
    let waits_for = waits_for.map_or_else(|| NONE.to_owned(), |waits| waits.as_nanos().to_string());
    format!("{epoch} {waits_for}")
}

fn read_epoch(text: &str) -> Result<(u32, Option<Duration>), JournalTrouble> {
    let read = || {
        let (epoch, waits_for) = text.split_once(' ')?;
        let waits_for = match waits_for {
            NONE => None,
            nanos => Some(Duration::from_nanos(nanos.parse().ok()?)),
        };
        Some((epoch.parse().ok()?, waits_for))
    };
    read().ok_or_else(|| damaged("head/epoch"))
}

fn read_cluster(text: &str) -> Result<ClusterId, JournalTrouble> {
    let (format, cluster) = text.split_once(' ').ok_or_else(|| damaged("head/cluster"))?;
    match format.parse() {
        Ok(STORE_FORMAT) => {}
        Ok(other) => return Err(other_format(other.into())),
        Err(_) => return Err(damaged("head/cluster")),
    }
    let cluster = u128::from_str_radix(cluster, 16).map_err(|_| damaged("head/cluster"))?;
    Ok(ClusterId(cluster))
}

fn damaged(key: &str) -> JournalTrouble {
    JournalTrouble::Failed(format!("its key {key} cannot be read"))
}
