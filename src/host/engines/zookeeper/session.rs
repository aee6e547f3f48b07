//! The way to an ensemble, and the session that all nodes of a manager hang on.

use std::{
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use zookeeper_client::{Acls, Client, CreateMode, Error, SessionState, StateWatcher};

use super::{nodes::NodePaths, relay::TlsRelay, touches::Touches};
use crate::{
    clock,
    error::Result,
    host::{
        engines::{
            EngineSettings, fault::EngineFault, holder_line::HolderLine, patience,
            session_life::SessionLife, store_tls::StoreTls,
        },
        service_url::{Password, ServiceUrl},
    },
};

/// The way to one ensemble.
pub(super) struct ZookeeperConnection {
    shown: String,
    /// As its client takes it.
    cluster: String,
    pub(super) addresses: Vec<(String, u16)>,
    pub(super) tls: Option<StoreTls>,
    login: Option<ZookeeperLogin>,
    /// Any client may do anything with the nodes that are made here.
    is_open: bool,
    pub(super) paths: NodePaths,
    pub(super) holder: HolderLine,
    /// The time to live that is asked for.
    asked: Duration,
    /// The one that was granted last, in milliseconds.
    granted: AtomicU64,
    /// How long an answer is waited for.
    patience: Duration,
    opening: tokio::sync::Mutex<()>,
    session: Mutex<Option<Arc<ZookeeperSession>>>,
    place: Mutex<Option<String>>,
}

/// How the ensemble knows this client.
struct ZookeeperLogin {
    user: String,
    password: Option<Password>,
    file: Option<PathBuf>,
}

/// A session of the ensemble. Once over it stays so: the next is another.
pub(super) struct ZookeeperSession {
    pub(super) id: i64,
    shown: String,
    /// `None` once it was closed.
    client: Mutex<Option<Client>>,
    states: StateWatcher,
    /// The same, to be asked for changes.
    changes: Mutex<StateWatcher>,
    pub(super) life: SessionLife,
    touches: Mutex<Touches>,
    /// Nodes that are given up, and that the ensemble has not confirmed to be gone.
    leftovers: Mutex<Vec<String>>,
}

/// The pause before a node that is given up is deleted again.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

impl ZookeeperConnection {
    pub(super) fn new(
        url: &mut ServiceUrl,
        settings: &EngineSettings,
        has_folders: bool,
    ) -> Result<ZookeeperConnection> {
        let tls = StoreTls::take(url)?;
        let file = url.take_password_file()?;
        let from_file = file.as_deref().map(Password::read).transpose()?;
        let password = url.password.clone().or(from_file);
        let login = match (url.user.clone(), password) {
            (None, None) => None,
            (Some(user), Some(password)) => {
                Some(ZookeeperLogin { user, password: Some(password), file })
            }
            _ => {
                return Err(url.refuse(
                    "a login is a user with a password: zookeeper://USER@HOST?password_file=",
                ));
            }
        };
        let is_open = match url.take("acl")?.as_deref() {
            None => login.is_none(),
            Some("open") => true,
            Some("creator") if login.is_some() => false,
            Some("creator") => return Err(url.refuse("?acl=creator needs a login")),
            Some(_) => return Err(url.refuse("the option acl is open or creator")),
        };
        // What ZooKeeper's own documentation has.
        let port = if tls.is_some() { 2281 } else { 2181 };
        let addresses = url.addresses.iter().map(|address| url.host_and_port(address, port));
        let addresses = addresses.collect::<Result<Vec<_>>>()?;
        let each = addresses.iter().map(|(host, port)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        });
        let asked = settings.time_to_live;
        Ok(ZookeeperConnection {
            shown: url.shown(),
            cluster: each.collect::<Vec<_>>().join(","),
            addresses,
            tls,
            login,
            is_open,
            paths: NodePaths::new(&url.path, has_folders),
            holder: HolderLine::new(&settings.identity),
            asked,
            granted: AtomicU64::new(asked.as_millis() as u64),
            patience: patience(asked),
            opening: tokio::sync::Mutex::new(()),
            session: Mutex::new(None),
            place: Mutex::new(None),
        })
    }

    /// As long as the ensemble keeps a session that says nothing.
    pub(super) fn time_to_live(&self) -> Duration {
        Duration::from_millis(self.granted.load(Relaxed))
    }

    pub(super) fn asked(&self) -> Duration {
        self.asked
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn acls(&self) -> Acls<'static> {
        if self.is_open { Acls::anyone_all() } else { Acls::creator_all() }
    }

    pub(super) fn place(&self) -> Option<String> {
        self.place.lock().clone()
    }

    /// Its answer, if one comes in time.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout(self.patience, call).await.unwrap_or(Err(Error::Timeout))
    }

    /// The session that there is, if it is not over.
    pub(super) fn current(&self) -> Option<Arc<ZookeeperSession>> {
        self.session.lock().clone().filter(|session| !session.life.is_over())
    }

    /// A session that is good for long enough to begin something.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Arc<ZookeeperSession>, EngineFault> {
        let _opening = self.opening.lock().await;
        if let Some(session) = self.current() {
            let is_good = |session: &ZookeeperSession| {
                session.life.deadline().since(clock::now()) >= self.time_to_live() / 4
            };
            // Half of its time is over: what it says now is proven when a quarter more is.
            if !session.life.is_fresh() {
                self.keep_alive(&session).await;
            }
            if session.life.is_confirmed() && !session.life.is_ended() && is_good(&session) {
                return Ok(session);
            }
        }
        let session = Arc::new(self.open().await?);
        let earlier = self.session.lock().replace(session.clone());
        if let Some(earlier) = earlier.filter(|earlier| earlier.life.is_over()) {
            earlier.close();
        }
        Ok(session)
    }

    async fn open(&self) -> Result<ZookeeperSession, EngineFault> {
        let sent = clock::now();
        let mut connector = Client::connector()
            .with_session_timeout(self.asked)
            .with_connection_timeout((self.patience * 2).min(self.asked * 2 / 5))
            .with_fail_eagerly();
        if let Some(login) = &self.login {
            let read = login.file.as_deref().and_then(|file| Password::read(file).ok());
            let password = read.as_ref().or(login.password.as_ref()).map_or("", Password::reveal);
            connector =
                connector.with_auth("digest", format!("{}:{password}", login.user).as_bytes());
        }
        let relay = match &self.tls {
            Some(tls) => {
                let relay = TlsRelay::start(tls, &self.addresses, self.patience).await;
                Some(relay.map_err(|error| {
                    EngineFault::Trouble(format!("{}: the relay for TLS: {error}", self.shown))
                })?)
            }
            None => None,
        };
        let cluster = relay.as_ref().map_or(&*self.cluster, |relay| &*relay.cluster);
        let client = self.within(connector.connect(cluster)).await;
        let client = client.map_err(|error| {
            let trouble = relay.as_ref().and_then(TlsRelay::trouble);
            trouble.unwrap_or_else(|| self.fault(&error))
        })?;
        if let Some(relay) = relay {
            Handle::current().spawn(relay.serve(client.state_watcher()));
        }
        let time_to_live = client.session_timeout();
        let mut changes = client.state_watcher();
        changes.state();
        self.granted.store(time_to_live.as_millis() as u64, Relaxed);
        let session = ZookeeperSession {
            id: client.session_id().0,
            shown: self.shown.clone(),
            states: client.state_watcher(),
            changes: Mutex::new(changes),
            client: Mutex::new(Some(client.clone())),
            life: SessionLife::new(sent, time_to_live),
            touches: Mutex::new(Touches::new(sent, time_to_live)),
            leftovers: Mutex::default(),
        };
        let root = self.paths.root();
        match self.within(client.check_stat(root)).await {
            Ok(Some(_)) if root == "/" => {
                let mut addresses: Vec<&str> = self.cluster.split(',').collect();
                addresses.sort_unstable();
                *self.place.lock() = Some(format!("zookeeper://{}", addresses.join(",")));
            }
            Ok(Some(stat)) => {
                let place = format!("zookeeper {root}, made by {:x} at {}", stat.czxid, stat.ctime);
                *self.place.lock() = Some(place);
            }
            // A chroot that is made in silence would be a second world of locks after a slip.
            Ok(None) => return Err(self.no_root()),
            Err(error) => return Err(session.fault(&error)),
        }
        Ok(session)
    }

    pub(super) fn no_root(&self) -> EngineFault {
        let (shown, root) = (&self.shown, self.paths.root());
        EngineFault::config(format!(
            "{shown} has no node {root}: make it (zkCli.sh create {root}), or name the chroot of the \
             other clients"
        ))
    }

    /// Has a majority confirm a session, or finds that it is over. A leader that is cut off from the
    /// others still answers a `sync`, for as long as it takes it to notice; meanwhile the next one may end
    /// the session. What fails as a transaction was committed by a majority.
    pub(super) async fn keep_alive(self: &Arc<Self>, session: &Arc<ZookeeperSession>) {
        let sent = clock::now();
        let Some(client) = session.client() else { return session.life.end() };
        let nothing = format!("{}/.tierlock-no-such-node", self.paths.root().trim_end_matches('/'));
        match self.within(client.delete(&nothing, None)).await {
            Ok(()) | Err(Error::NoNode | Error::NoAuth) => {
                if session.has_reconnected() && !self.goes_on(session, &client).await {
                    return session.close();
                }
                let proven = session.touches.lock().answered(sent, clock::now());
                session.life.renewed(proven);
            }
            Err(error) => {
                let _ = session.fault(&error);
                session.life.missed();
            }
        }
    }

    /// Whether a client that was connected anew still has its session. ZooKeeper says so; ClickHouse's Keeper
    /// gives it another one, and its library goes on with that without a word (ClickHouse#116690). The
    /// owner of a node that it makes tells.
    async fn goes_on(self: &Arc<Self>, session: &Arc<ZookeeperSession>, client: &Client) -> bool {
        loop {
            let wanted = format!("{}/.tierlock-session-", self.paths.root().trim_end_matches('/'));
            let options = CreateMode::EphemeralSequential.with_acls(self.acls());
            let Ok((made, number)) = self.within(client.create(&wanted, b"", &options)).await
            else {
                return false;
            };
            let _ = self.delete(session, &format!("{wanted}{number}")).await;
            if made.ephemeral_owner != session.id {
                return false;
            }
            if !session.has_reconnected() {
                return true;
            }
        }
    }

    /// Deletes a node of a session's, now or later: it may outlive its caller's patience, and stands in
    /// the way as long as the session lives. Whether it was there.
    pub(super) async fn delete(
        self: &Arc<Self>,
        session: &Arc<ZookeeperSession>,
        path: &str,
    ) -> Result<bool, EngineFault> {
        let answer = self.delete_once(session, path).await;
        let mut leftovers = session.leftovers.lock();
        if answer.is_ok() {
            leftovers.retain(|known| known != path);
        } else if !leftovers.iter().any(|known| known == path) {
            leftovers.push(path.to_owned());
            if leftovers.len() == 1 {
                Handle::current().spawn(self.clone().sweep(session.clone()));
            }
        }
        drop(leftovers);
        answer
    }

    /// Deletes what is left over, until that is done or the session is over.
    async fn sweep(self: Arc<Self>, session: Arc<ZookeeperSession>) {
        loop {
            sleep(SWEEP_EVERY).await;
            let next = session.leftovers.lock().first().cloned();
            let Some(path) = next else { return };
            if self.delete_once(&session, &path).await.is_ok() {
                session.leftovers.lock().retain(|known| *known != path);
            }
        }
    }

    async fn delete_once(
        &self,
        session: &ZookeeperSession,
        path: &str,
    ) -> Result<bool, EngineFault> {
        // It goes with the session.
        let Some(client) = session.client() else { return Ok(false) };
        match self.within(client.delete(path, None)).await {
            Ok(()) => Ok(true),
            Err(Error::NoNode) => Ok(false),
            Err(error) => {
                let fault = session.fault(&error);
                if session.life.is_ended() { Ok(false) } else { Err(fault) }
            }
        }
    }

    /// Ready once the session has ended.
    pub(super) async fn session_ends(&self) {
        let Some(session) = self.current() else { return std::future::pending().await };
        let mut states = session.states.clone();
        while !states.peek_state().is_terminated() {
            states.changed().await;
        }
        session.life.end();
    }

    /// Ends the session: what may be left of it goes with it.
    pub(super) async fn part(&self) {
        let session = self.session.lock().take();
        let Some(session) = session else { return };
        let mut states = session.states.clone();
        session.close();
        let closed = async {
            while !states.peek_state().is_terminated() {
                states.changed().await;
            }
        };
        let _ = timeout(self.patience, closed).await;
    }

    pub(super) fn fault(&self, error: &Error) -> EngineFault {
        fault(&self.shown, error)
    }
}

impl ZookeeperSession {
    /// `None` once it was closed.
    pub(super) fn client(&self) -> Option<Client> {
        self.client.lock().clone()
    }

    /// Whether its connection was another at some time since this was asked last.
    fn has_reconnected(&self) -> bool {
        let mut changes = self.changes.lock();
        let mut has_changed = false;
        while pin!(changes.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            has_changed = true;
        }
        has_changed
    }

    /// The ensemble is told that it ends, which takes its nodes away.
    pub(super) fn close(&self) {
        self.life.end();
        let client = self.client.lock().take();
        drop(client);
    }

    /// What an error means, and whether it is this session's end.
    pub(super) fn fault(&self, error: &Error) -> EngineFault {
        let is_end = matches!(
            error,
            Error::SessionExpired | Error::SessionMoved | Error::ClientClosed | Error::AuthFailed
        );
        if is_end || self.states.peek_state() == SessionState::Expired {
            self.life.end();
        }
        fault(&self.shown, error)
    }
}

impl Drop for ZookeeperSession {
    fn drop(&mut self) {
        self.close();
    }
}

fn fault(shown: &str, error: &Error) -> EngineFault {
    match error {
        Error::AuthFailed => EngineFault::refused(format!("{shown} refused the login")),
        Error::NoAuth => EngineFault::refused(format!(
            "{shown} does not let this login do that: its nodes belong to another one"
        )),
        Error::QuotaExceeded | Error::InvalidAcl => {
            EngineFault::refused(format!("{shown}: {error}"))
        }
        Error::Timeout => EngineFault::Trouble(format!("{shown} did not answer in time")),
        Error::NoHosts => EngineFault::Trouble(format!("{shown}: no server of it can be reached")),
        error => EngineFault::Trouble(format!("{shown}: {error}")),
    }
}
