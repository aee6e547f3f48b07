//! The way to an etcd cluster, and the lease that all keys of a manager hang on.

use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, LeaseGrantOptions, PutOptions,
    ResponseHeader, Txn, TxnOp,
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::way::{bad_certificate, endpoints, etcd_fault, secured};
use crate::{
    clock,
    error::{Holder, Result},
    host::{
        engines::{
            EngineSettings, fault::EngineFault, holder_line::HolderLine, session_life::SessionLife,
            store_tls::StoreTls,
        },
        service_url::{Password, ServiceUrl},
    },
};

/// What the key says that tells how tokens are counted.
const BLOCKS: &str = "create revision * 2^20 + count";

/// The way to one cluster.
pub(super) struct EtcdConnection {
    shown: String,
    endpoints: Vec<String>,
    tls: Option<StoreTls>,
    user: Option<String>,
    password: Option<Password>,
    password_file: Option<PathBuf>,
    prefix: String,
    /// Its tokens are blocks.
    keeps: bool,
    holder: HolderLine,
    time_to_live: Duration,
    /// How long an answer is waited for.
    patience: Duration,
    connecting: tokio::sync::Mutex<Option<Client>>,
    opening: tokio::sync::Mutex<()>,
    session: Mutex<Option<Arc<EtcdSession>>>,
    /// The cluster's id; 0 until it is known.
    cluster: AtomicU64,
}

/// A lease of the cluster. Once over it stays so: the next is another.
pub(in super::super) struct EtcdSession {
    id: i64,
    pub(super) life: SessionLife,
}

impl EtcdSession {
    pub(super) fn id(&self) -> i64 {
        self.id
    }
}

impl EtcdConnection {
    pub(super) fn new(
        url: &mut ServiceUrl,
        settings: &EngineSettings,
        keeps: bool,
    ) -> Result<EtcdConnection> {
        let password_file = url.take_password_file()?;
        let from_file = password_file.as_deref().map(Password::read).transpose()?;
        let prefix = url.take("prefix")?.unwrap_or_default();
        let tls = StoreTls::take(url)?;
        let endpoints = endpoints(url, tls.as_ref())?;
        let password = url.password.clone().or(from_file);
        if password.is_some() != url.user.is_some() {
            return Err(
                url.refuse("a login is a user with a password: etcd://USER@HOST?password_file=")
            );
        }
        Ok(EtcdConnection {
            shown: url.shown(),
            endpoints,
            tls,
            user: url.user.clone(),
            password,
            password_file,
            prefix,
            keeps,
            holder: HolderLine::new(&settings.identity),
            time_to_live: settings.time_to_live,
            patience: (settings.time_to_live / 3)
                .clamp(Duration::from_millis(500), Duration::from_secs(2)),
            connecting: tokio::sync::Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            session: Mutex::new(None),
            cluster: AtomicU64::new(0),
        })
    }

    pub(super) fn time_to_live(&self) -> Duration {
        self.time_to_live
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Once the cluster has told its id.
    pub(super) fn place(&self) -> Option<String> {
        match self.cluster.load(Relaxed) {
            0 => None,
            cluster => Some(format!("etcd cluster {cluster:x}, prefix {:?}", self.prefix)),
        }
    }

    /// Its answer, if one comes in time.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineFault> {
        match timeout(self.patience, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let bad = bad_certificate(&error);
                let fault = etcd_fault(&self.shown, &error);
                drop(error);
                match bad {
                    Some(trouble) if self.endpoints.len() > 1 && !self.are_all_bad().await => {
                        Err(EngineFault::Trouble(format!("{}: {trouble}", self.shown)))
                    }
                    _ => Err(fault),
                }
            }
            Err(_) => Err(EngineFault::silent(&self.shown, self.patience)),
        }
    }

    /// Whether each member for itself has a bad certificate: one of several is no more than down.
    async fn are_all_bad(&self) -> bool {
        for endpoint in &self.endpoints {
            let asking = async {
                let mut client = Client::connect([endpoint], Some(self.options())).await?;
                client.status().await.map(drop)
            };
            match timeout(self.patience, asking).await {
                Ok(Err(error)) if bad_certificate(&error).is_some() => {}
                _ => return false,
            }
        }
        true
    }

    pub(super) async fn client(&self) -> Result<Client, EngineFault> {
        let mut known = self.connecting.lock().await;
        if let Some(client) = &*known {
            return Ok(client.clone());
        }
        let client = self.within(Client::connect(&self.endpoints, Some(self.options()))).await?;
        *known = Some(client.clone());
        Ok(client)
    }

    fn options(&self) -> ConnectOptions {
        // Without pings of its own a watch on a dead server hangs (etcd-client#48).
        let mut options = ConnectOptions::new()
            .with_keep_alive(self.patience, self.patience)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(self.patience)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        let read = self.password_file.as_deref().and_then(|file| Password::read(file).ok());
        let password = read.or_else(|| self.password.clone());
        if let Some((user, password)) = self.user.as_ref().zip(password) {
            options = options.with_user(user, password.reveal());
        }
        secured(options, self.tls.as_ref())
    }

    /// The session that there is, if it is not over.
    pub(super) fn current(&self) -> Option<Arc<EtcdSession>> {
        self.session.lock().clone().filter(|session| !session.life.is_over())
    }

    /// A session that is good for long enough to begin something.
    pub(super) async fn session(&self) -> Result<Arc<EtcdSession>, EngineFault> {
        let _opening = self.opening.lock().await;
        if let Some(session) = self.current() {
            if session.life.is_fresh() {
                return Ok(session);
            }
            self.keep_alive(&session).await;
            if session.life.is_confirmed() && !session.life.is_over() {
                return Ok(session);
            }
        }
        let mut client = self.client().await?;
        let sent = clock::now();
        let seconds = self.time_to_live.as_millis().div_ceil(1000) as i64;
        let granted = self.within(client.lease_grant(seconds, None::<LeaseGrantOptions>)).await?;
        let time_to_live = Duration::from_secs(granted.ttl().max(0) as u64);
        let life = SessionLife::new(sent, time_to_live);
        let session = Arc::new(EtcdSession { id: granted.id(), life });
        self.saw(granted.header());
        // Its holder is described in a key beside the locks': theirs are empty, as the field's tools have them.
        let options = PutOptions::new().with_lease(session.id);
        let put = TxnOp::put(self.session_key(session.id), self.holder.text(), Some(options));
        self.agree_on_tokens(&mut client, put).await?;
        *self.session.lock() = Some(session.clone());
        Ok(session)
    }

    /// Does one operation, unless the managers of the prefix count otherwise: between revisions and
    /// blocks of them no token would tell which grant is the later one.
    async fn agree_on_tokens(&self, client: &mut Client, act: TxnOp) -> Result<(), EngineFault> {
        let txn = match self.counts_plainly() {
            None => {
                let put = TxnOp::put(self.tokens_key(), BLOCKS, None);
                Txn::new().and_then([put, act])
            }
            Some(is_missing) => Txn::new().when([is_missing]).and_then([act]),
        };
        match self.within(client.txn(txn)).await?.succeeded() {
            true => Ok(()),
            false => Err(self.counts_otherwise()),
        }
    }

    fn tokens_key(&self) -> String {
        format!("{}.tierlock/tokens", self.prefix)
    }

    /// What must be so where leases are not kept: no manager of the prefix keeps any, or has.
    pub(super) fn counts_plainly(&self) -> Option<Compare> {
        (!self.keeps).then(|| Compare::create_revision(self.tokens_key(), CompareOp::Equal, 0))
    }

    pub(super) fn counts_otherwise(&self) -> EngineFault {
        EngineFault::config(format!(
            "other managers keep leases at {} under this prefix, and their tokens are larger than \
             the ones here would be: say `?keep=1`, too; or once none of them is left, and no resource \
             remembers their tokens, delete the key {:?}",
            self.shown,
            self.tokens_key()
        ))
    }

    /// An answer tells which cluster it is of.
    pub(super) fn saw(&self, header: Option<&ResponseHeader>) {
        if let Some(header) = header {
            self.cluster.store(header.cluster_id(), Relaxed);
        }
    }

    fn session_key(&self, id: i64) -> String {
        format!("{}.tierlock/sessions/{id:x}", self.prefix)
    }

    /// Renews a session, or finds that it is over.
    pub(super) async fn keep_alive(&self, session: &EtcdSession) {
        let sent = clock::now();
        let renewed = match self.client().await {
            Ok(mut client) => {
                match timeout(self.patience, client.lease_keep_alive(session.id)).await {
                    Ok(Ok(_)) => true,
                    Ok(Err(Error::LeaseKeepAliveError(why))) if why.contains("not found") => {
                        session.life.end();
                        false
                    }
                    Ok(Err(_)) | Err(_) => false,
                }
            }
            Err(_) => false,
        };
        match renewed {
            true => session.life.renewed(sent),
            false => session.life.missed(),
        }
    }

    /// The holder of a lock's key, as its session describes itself.
    pub(super) async fn holder_of(&self, key: &str) -> Option<Holder> {
        let id = i64::from_str_radix(key.rsplit('/').next()?, 16).ok()?;
        let mut client = self.client().await.ok()?;
        let found = self.within(client.get(self.session_key(id), None)).await.ok()?;
        let line = str::from_utf8(found.kvs().first()?.value()).ok()?;
        HolderLine::parse(line)
    }

    /// Ends the session: what may be left of it goes with it.
    pub(super) async fn part(&self) {
        let session = self.session.lock().take();
        if let Some(session) = session.filter(|session| !session.life.is_over())
            && let Ok(mut client) = self.client().await
        {
            let _ = self.within(client.lease_revoke(session.id)).await;
        }
    }
}
