//! ZooKeeper: a queue of numbered ephemeral nodes, as Curator has it.
//!
//! A lock is a node, and a child of it `_c_<uuid>-lock-<number>` is a holder or a waiter. The lowest
//! number has the lock, and the transaction that made its node is the token. A waiter watches the node
//! ahead alone. With `?as=read-write` the children are those of Curator's read-write lock.
//!
//! Nodes belong to the session of their manager, whose end is counted by [`touches`].

mod nodes;
mod observing;
mod queue;
mod relay;
mod session;
mod touches;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    time::{sleep, timeout},
};

use self::{
    nodes::{NodeForm, NodeRole},
    queue::{MadeNode, NodeQueue, NodeRank, OwnNode},
    session::{ZookeeperConnection, ZookeeperSession},
};
use super::{
    EngineSettings,
    engine::{EngineAbilities, EngineFinding, EngineGrant, EngineLock, LockEngine, Renewal},
    fault::EngineFault,
    holder_line::HolderLine,
    teller::LeaderTeller,
    tls_connection,
    wish::Wish,
};
use crate::{
    clock,
    error::{Holder, LockError, Result},
    fork,
    host::service_url::ServiceUrl,
    name::Name,
    time::Time,
    token::Token,
};

/// Locks of one ensemble.
pub(super) struct ZookeeperEngine {
    url: ServiceUrl,
    connection: Arc<ZookeeperConnection>,
    form: NodeForm,
    /// When the nodes of all that is held were looked for last.
    looked: Mutex<Time>,
}

/// One grant: a node of a session.
#[derive(Clone)]
pub(super) struct ZookeeperHold {
    name: Name,
    own: Arc<OwnNode>,
}

/// At the head of the queue, or of its readers.
struct RisenNode {
    czxid: i64,
    /// When the request was sent that says so.
    sent: Time,
}

/// A waiter looks at its queue at least so often, whatever its watch says.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many names at most when all are listed.
const LIST_MAX: usize = 10_000;

impl ZookeeperEngine {
    pub(super) fn new(mut url: ServiceUrl, settings: &EngineSettings) -> Result<ZookeeperEngine> {
        let form = match url.take("as")?.as_deref() {
            None | Some("mutex") => NodeForm::Mutex,
            Some("read-write") => NodeForm::ReadWrite,
            Some(_) => return Err(url.refuse("the option as is mutex or read-write")),
        };
        let has_folders = url.take_switch("parents")?;
        let connection = ZookeeperConnection::new(&mut url, settings, has_folders)?;
        url.finish("acl, as, ca, parents, password_file")?;
        check_process(&url)?;
        Ok(ZookeeperEngine {
            connection: Arc::new(connection),
            form,
            url,
            looked: Mutex::new(Time::ZERO),
        })
    }

    fn queue(&self, name: &Name) -> Result<NodeQueue> {
        NodeQueue::new(self.connection.clone(), name, self.form)
    }

    fn is_to_look(&self) -> bool {
        let (now, mut looked) = (clock::now(), self.looked.lock());
        let is_due = now.since(*looked) >= self.time_to_live();
        if is_due {
            *looked = now;
        }
        is_due
    }

    /// One node's way to the head of its queue. `Ok(None)`: it begins anew.
    async fn rise(
        &self,
        wish: &Wish,
        queue: &NodeQueue,
        own: &mut OwnNode,
        had_to_queue: &mut bool,
    ) -> Result<Option<RisenNode>> {
        loop {
            wish.check()?;
            if own.session.life.is_over() {
                return Ok(None);
            }
            let sent = clock::now();
            let entered = match wish.is_try() {
                true => queue.try_enter(own, wish.value.as_deref()).await,
                false => queue.enter(own, wish.value.as_deref()).await.map(Some),
            };
            let Some(entered) = entered.transpose() else { return Err(wish.refused()) };
            let (ahead, first) = match entered {
                Ok(NodeRank::First) => {
                    let czxid = own.made.as_ref().map_or(0, |made| made.czxid);
                    return Ok(Some(RisenNode { czxid, sent }));
                }
                // Its session is over, or an operator has deleted it.
                Ok(NodeRank::Gone) => return Ok(None),
                Ok(NodeRank::Behind { ahead, first }) => (ahead, first),
                Err(fault) => {
                    wish.weather(fault).await?;
                    continue;
                }
            };
            wish.acknowledge();
            if wish.is_try() {
                // Its node is gone when the caller hears, if the server answers; if not, the caller goes on.
                let _ = queue.retract(own).await;
                return Err(wish.refused());
            }
            if !*had_to_queue {
                let holder = queue.holder_of(&own.session, &first).await;
                wish.is_held_by(holder.map(|(holder, _)| holder));
            }
            *had_to_queue = true;
            queue.wait_for_end(wish, own, &ahead, LOOK_EVERY).await?;
        }
    }

    /// Takes away what an attempt may have left behind, however long that takes.
    fn retract(&self, queue: &NodeQueue, own: OwnNode) {
        let queue = queue.clone();
        Handle::current().spawn(async move {
            let mut pause = Duration::from_millis(20);
            while !own.session.life.is_ended() && queue.retract(&own).await.is_err() {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
        });
    }

    /// The nodes that may be locks: those below the chroot, or below a folder.
    async fn lock_nodes(&self, session: &ZookeeperSession) -> Result<Vec<Name>, EngineFault> {
        let Some(client) = session.client() else { return Ok(Vec::new()) };
        let root = self.connection.paths.root();
        let mut folders = vec![root.to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            let children = match self.connection.within(client.list_children(&folder)).await {
                Ok(children) => children,
                Err(zookeeper_client::Error::NoNode) => continue,
                Err(error) => return Err(session.fault(&error)),
            };
            let paths = children.iter().map(|child| match &*folder {
                "/" => format!("/{child}"),
                folder => format!("{folder}/{child}"),
            });
            for path in paths.filter(|path| path != "/zookeeper") {
                if found.len() >= LIST_MAX {
                    return Ok(found);
                }
                found.extend(self.connection.paths.name_of(&path));
                if self.connection.paths.has_folders() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The client's timers run on a thread that a forked child does not have, and hold locks that nothing
/// in the child releases.
fn check_process(url: &ServiceUrl) -> Result<()> {
    use std::sync::OnceLock;
    static USED_IN: OnceLock<u64> = OnceLock::new();
    match *USED_IN.get_or_init(fork::generation) == fork::generation() {
        true => Ok(()),
        false => Err(url.refuse(
            "this process was forked from one that uses ZooKeeper, whose client does not outlive \
             that: open it in one of the two alone, or start another program (exec)",
        )),
    }
}

impl LockEngine for ZookeeperEngine {
    type Hold = ZookeeperHold;

    fn abilities(&self) -> EngineAbilities {
        let shares = self.form == NodeForm::ReadWrite;
        let carries_values = true;
        EngineAbilities { has_tokens: true, shares, carries_values, ..EngineAbilities::default() }
    }

    fn shown(&self) -> String {
        self.url.shown()
    }

    /// Half of the session's: what is proven of it counts from an earlier renewal than the last.
    fn time_to_live(&self) -> Duration {
        self.connection.time_to_live() / 2
    }

    async fn acquire(&self, wish: &Wish) -> Result<EngineGrant<ZookeeperHold>> {
        let queue = self.queue(&wish.name)?;
        let role = if wish.is_shared { NodeRole::Shared } else { NodeRole::Exclusive };
        let value = wish.value.as_deref();
        if value.and_then(|value| str::from_utf8(value).ok()).and_then(HolderLine::parse).is_some()
        {
            return Err(LockError::config(
                "the value reads as the line by which the holder of a lock describes itself: campaign with \
                 another one",
            ));
        }
        let mut had_to_queue = false;
        loop {
            let session = wish.ask(|| self.connection.session()).await?;
            let mut own = queue.own_node(&session, role).map_err(EngineFault::into_error)?;
            let risen = match self.rise(wish, &queue, &mut own, &mut had_to_queue).await {
                Ok(Some(risen)) => risen,
                Ok(None) => {
                    // A session that is over here is there for a while yet.
                    if !own.session.life.is_ended() {
                        wish.may_have_left();
                    }
                    self.retract(&queue, own);
                    continue;
                }
                Err(error) => {
                    self.retract(&queue, own);
                    return Err(error);
                }
            };
            let token = u64::try_from(risen.czxid).ok().and_then(Token::new);
            let Some(token) = token.filter(|token| *token > wish.above) else {
                self.retract(&queue, own);
                let (czxid, above, shown) = (risen.czxid, wish.above, self.shown());
                return Err(LockError::config(format!(
                    "the token of {shown} would be {czxid}, and this machine knows {above} of that \
                     name already, which every resource refuses from now on: take another name, or \
                     lower what the resources and the directory have seen"
                )));
            };
            // Good as long as its session is, which may be over by now: the caller looks.
            let deadline = session.life.deadline();
            let hold = ZookeeperHold { name: wish.name.clone(), own: Arc::new(own) };
            let sent = risen.sent;
            return Ok(EngineGrant { hold, token, sent, deadline, had_to_queue });
        }
    }

    async fn observe(&self, name: &Name, tell: &LeaderTeller) -> EngineFault {
        let queue = match self.queue(name) {
            Ok(queue) => queue,
            Err(error) => return EngineFault::Final(error),
        };
        loop {
            let looked = async {
                let session = self.connection.session().await?;
                queue.look_for_leader(&self.connection, &session, tell).await
            };
            match looked.await {
                Ok(Some(watcher)) => drop(watcher.changed().await),
                Ok(None) => {}
                Err(fault) => return fault,
            }
        }
    }

    async fn renew(&self, holds: &[ZookeeperHold]) -> Vec<Renewal> {
        let mut sessions: Vec<Arc<ZookeeperSession>> =
            self.connection.current().into_iter().collect();
        for hold in holds {
            if !sessions.iter().any(|known| Arc::ptr_eq(known, &hold.own.session)) {
                sessions.push(hold.own.session.clone());
            }
        }
        for session in &sessions {
            self.connection.keep_alive(session).await;
        }
        // An operator may have deleted a node of a session that lives. They are many, so they are not
        // looked for each time; and all are asked for before the first answer.
        let looks = self.is_to_look();
        let asked = holds.iter().map(|hold| {
            let made = hold.own.made.as_ref().filter(|_| looks)?;
            let stat = hold.own.session.client()?.check_stat(&made.path);
            Some((self.connection.within(stat), made.czxid))
        });
        let asked: Vec<_> = asked.collect();
        let mut answers = Vec::with_capacity(holds.len());
        for (hold, asked) in holds.iter().zip(asked) {
            let life = &hold.own.session.life;
            let is_there = match asked {
                Some((stat, czxid)) if !life.is_ended() => match stat.await {
                    Ok(stat) => Some(stat.is_some_and(|stat| stat.czxid == czxid)),
                    Err(error) => {
                        let _ = hold.own.session.fault(&error);
                        None
                    }
                },
                _ => None,
            };
            answers.push(match is_there {
                _ if life.is_ended() => Renewal::Gone,
                Some(false) => Renewal::Gone,
                _ if life.is_confirmed() => Renewal::Until(life.deadline()),
                _ => Renewal::Unknown,
            });
        }
        answers
    }

    async fn are_wanted(&self, holds: &[ZookeeperHold]) -> Option<Vec<bool>> {
        let mut wanted = Vec::with_capacity(holds.len());
        for ZookeeperHold { name, own } in holds {
            wanted.push(match (self.queue(name), &own.made) {
                (Ok(queue), Some(made)) => queue.is_wanted(&own.session, made).await,
                _ => false,
            });
        }
        Some(wanted)
    }

    async fn release(&self, hold: &ZookeeperHold, _: bool) -> Result<bool, EngineFault> {
        let Some(MadeNode { path, .. }) = &hold.own.made else { return Ok(false) };
        let was_there = self.connection.delete(&hold.own.session, path).await?;
        if hold.own.is_doubtful {
            let queue = self.queue(&hold.name).map_err(EngineFault::Final)?;
            queue.retract(&hold.own).await?;
        }
        Ok(was_there)
    }

    async fn look(&self, only: Option<&Name>) -> Result<Vec<EngineLock>, EngineFault> {
        let session = self.connection.session().await?;
        let names = match only {
            Some(name) => vec![name.clone()],
            None => self.lock_nodes(&session).await?,
        };
        let mut found = Vec::new();
        for name in names {
            let queue = self.queue(&name).map_err(EngineFault::Final)?;
            let nodes = match queue.list(&session).await {
                Ok(nodes) => nodes,
                // Among all names, one that is something else is passed over.
                Err(EngineFault::Final(_)) if only.is_none() => continue,
                Err(fault) => return Err(fault),
            };
            let mut seen = Vec::new();
            for node in &nodes {
                seen.extend(queue.holder_of(&session, node).await);
            }
            let mut seen = seen.into_iter();
            let Some((holder, czxid)) = seen.next() else { continue };
            let token = u64::try_from(czxid).ok().and_then(Token::new).unwrap_or(Token::ZERO);
            found.push(EngineLock {
                name,
                token,
                holder: Some(Holder { token: Some(token), ..holder }),
                is_reserved: false,
                remaining: None,
                waiters: seen.map(|(waiter, _)| waiter).collect(),
            });
        }
        Ok(found)
    }

    async fn examine(&self) -> Result<Vec<EngineFinding>, EngineFault> {
        let session = self.connection.session().await?;
        let shown = self.shown();
        let told = self.ask_server().await.unwrap_or_default();
        let fact = |what: &str| {
            let connection = told.lines().find_map(|connection| connection.strip_prefix(what));
            connection.map(|connection| {
                connection.split(',').next().unwrap_or_default().trim().to_owned()
            })
        };
        let version =
            fact("Zookeeper version:").unwrap_or_else(|| "its version is not told".into());
        let mut found = vec![EngineFinding::fine(format!("{shown} answers: {version}"))];
        if told.contains("not currently serving") {
            found.push(EngineFinding::trouble(
                "a server of it is not serving: too few of the others can be reached",
            ));
        }
        if fact("Mode:").as_deref() == Some("standalone") {
            found.push(EngineFinding::note(
                "it is one server: while that is down, nothing is granted",
            ));
        }
        if let Some(client) = session.client()
            && let Ok((config, _)) = self.connection.within(client.get_config()).await
        {
            let config = String::from_utf8_lossy(&config).into_owned();
            let is_voter = |connection: &&str| {
                connection.starts_with("server.") && !connection.contains(":observer")
            };
            match config.lines().filter(is_voter).count() {
                voters if voters > 0 && voters % 2 == 0 => {
                    found.push(EngineFinding::note(format!(
                        "its ensemble has {voters} voters, which survive no more failures than {}",
                        voters - 1
                    )))
                }
                _ => {}
            }
        }
        let (asked, granted) = (self.connection.asked(), self.connection.time_to_live());
        if asked != granted {
            found.push(EngineFinding::note(format!(
                "sessions of {granted:.1?} are granted where {asked:.1?} is asked for: its \
                 minSessionTimeout and maxSessionTimeout say so"
            )));
        }
        if self.connection.is_open() {
            found.push(EngineFinding::note(
                "nodes are made for all clients, which may delete each other's: a login and \
                 ?acl=creator keep others out",
            ));
        }
        Ok(found)
    }

    /// A session that has ended is seen at once.
    async fn heard(&self) {
        self.connection.session_ends().await;
    }

    async fn part(&self) {
        self.connection.part().await;
    }

    fn place(&self) -> Option<String> {
        self.connection.place()
    }

    fn break_advice(&self, name: &Name) -> String {
        let path = self.connection.paths.of(name).unwrap_or_default();
        format!("zkCli.sh ls {path:?}, then zkCli.sh delete of its child with the lowest number")
    }
}

impl ZookeeperEngine {
    /// What the first server that answers says of itself, where it may (`4lw.commands.whitelist`).
    async fn ask_server(&self) -> Option<String> {
        for (host, port) in &self.connection.addresses {
            let ask = async {
                match &self.connection.tls {
                    Some(tls) => {
                        told_by(tls_connection::connect(tls, host, *port).await.ok()?).await
                    }
                    None => told_by(TcpStream::connect((&**host, *port)).await.ok()?).await,
                }
            };
            if let Ok(Some(told)) = timeout(Duration::from_secs(1), ask).await {
                return Some(told);
            }
        }
        None
    }
}

async fn told_by(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> Option<String> {
    connection.write_all(b"srvr").await.ok()?;
    let mut told = Vec::new();
    let read = connection.take(64 * 1024).read_to_end(&mut told).await;
    // By TLS, some end without a farewell.
    read.ok().or((!told.is_empty()).then_some(0))?;
    Some(String::from_utf8_lossy(&told).into_owned())
}
