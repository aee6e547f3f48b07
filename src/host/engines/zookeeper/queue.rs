//! The nodes of one lock, in the order of the numbers that the server has given them.

use std::sync::Arc;

use zookeeper_client::{CreateMode, Error};

use super::{
    nodes::{NodeForm, NodeRole, PlaceInQueue, QueueNode, place_of},
    session::{ZookeeperConnection, ZookeeperSession},
};
use crate::{
    error::{Holder, Result},
    host::engines::{fault::EngineFault, holder_line::HolderLine, wish::Wish},
    name::Name,
};

/// The queue of one name.
#[derive(Clone)]
pub(super) struct NodeQueue {
    connection: Arc<ZookeeperConnection>,
    name: Name,
    form: NodeForm,
    /// The lock's node.
    path: String,
}

/// One attempt's node, or the wish for one: its id is in its name, and is no other attempt's.
pub(super) struct OwnNode {
    pub(super) session: Arc<ZookeeperSession>,
    id: String,
    role: NodeRole,
    /// Once it is known.
    pub(super) made: Option<MadeNode>,
    /// A creation of it was not answered: there may be more than one.
    pub(super) is_doubtful: bool,
}

/// A node that is there.
#[derive(Clone, Debug)]
pub(super) struct MadeNode {
    pub(super) path: String,
    child: String,
    /// The transaction that made it.
    pub(super) czxid: i64,
}

/// Where a node stands in its queue.
pub(super) enum NodeRank {
    First,
    Behind {
        ahead: QueueNode,
        first: QueueNode,
    },
    /// It is not there.
    Gone,
}

impl NodeQueue {
    pub(super) fn new(
        connection: Arc<ZookeeperConnection>,
        name: &Name,
        form: NodeForm,
    ) -> Result<NodeQueue> {
        let path = connection.paths.of(name)?;
        Ok(NodeQueue { connection, name: name.clone(), form, path })
    }

    pub(super) fn own_node(
        &self,
        session: &Arc<ZookeeperSession>,
        role: NodeRole,
    ) -> Result<OwnNode, EngineFault> {
        let session = session.clone();
        Ok(OwnNode { session, id: new_id()?, role, made: None, is_doubtful: false })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn path_of(&self, child: &str) -> String {
        format!("{}/{child}", self.path)
    }

    /// Makes the node, unless an earlier attempt to do so has, and reads the queue. Its data is the value
    /// of a candidate, as Curator's `LeaderSelector` has it, or describes the holder of a lock.
    pub(super) async fn enter(
        &self,
        own: &mut OwnNode,
        value: Option<&[u8]>,
    ) -> Result<NodeRank, EngineFault> {
        if own.is_doubtful && own.made.is_none() {
            self.find_again(own).await?;
        }
        if own.made.is_some() {
            return self.rank(own).await;
        }
        let Some(client) = own.session.client() else { return Ok(NodeRank::Gone) };
        let wanted = self.path_of(&self.form.new_child(&own.id, own.role));
        let options = CreateMode::EphemeralSequential.with_acls(self.connection.acls());
        let data = value.unwrap_or(self.connection.holder.text().as_bytes());
        loop {
            // The server does one after the other: the list has the node.
            let making = client.create(&wanted, data, &options);
            let listing = client.list_children(&self.path);
            let (made, listed) =
                tokio::join!(self.connection.within(making), self.connection.within(listing));
            match made {
                Ok((stat, number)) => {
                    let path = format!("{wanted}{number}");
                    let child = path[self.path.len() + 1..].to_owned();
                    own.made = Some(MadeNode { path, child, czxid: stat.czxid });
                    if stat.ephemeral_owner != own.session.id {
                        // It hangs on another session than all else that this one has: both go.
                        own.session.close();
                        return Ok(NodeRank::Gone);
                    }
                    return match listed {
                        Ok(children) => self.rank_among(own, &children).await,
                        Err(_) => self.rank(own).await,
                    };
                }
                Err(Error::NoNode) => self.make_folder(&own.session).await?,
                Err(error) => {
                    own.is_doubtful = true;
                    return Err(own.session.fault(&error));
                }
            }
        }
    }

    /// Makes the node if none stands before it; `None` if one does. So a refused try is never in the queue,
    /// where a node stands before others, and counts as a leader's, until it is taken away.
    pub(super) async fn try_enter(
        &self,
        own: &mut OwnNode,
        value: Option<&[u8]>,
    ) -> Result<Option<NodeRank>, EngineFault> {
        let is_there = own.is_doubtful || own.made.is_some();
        if !is_there {
            let queue = self.list(&own.session).await?;
            let stands_before =
                |node: &QueueNode| own.role == NodeRole::Exclusive || node.role != NodeRole::Shared;
            if queue.iter().any(stands_before) {
                return Ok(None);
            }
        }
        self.enter(own, value).await.map(Some)
    }

    /// Makes the lock's node: a container, which the server deletes once it is empty.
    async fn make_folder(&self, session: &ZookeeperSession) -> Result<(), EngineFault> {
        let Some(client) = session.client() else { return Ok(()) };
        let root = self.connection.paths.root();
        if matches!(self.connection.within(client.check_stat(root)).await, Ok(None)) {
            return Err(self.connection.no_root());
        }
        let options = CreateMode::Container.with_acls(self.connection.acls());
        match self.connection.within(client.mkdir(&self.path, &options)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(session.fault(&error)),
        }
    }

    /// Looks for a node that was created without an answer (go-zookeeper#237). It is one's own by its id
    /// and by its session: what an older session has left behind goes without being asked
    /// (curator#1121).
    async fn find_again(&self, own: &mut OwnNode) -> Result<(), EngineFault> {
        let mut found = self.children_with(own).await?;
        found.sort_by_key(|node| node.sequence);
        let Some(first) = found.first() else { return Ok(()) };
        let Some(client) = own.session.client() else { return Ok(()) };
        let path = self.path_of(&first.child);
        match self.connection.within(client.check_stat(&path)).await {
            Ok(Some(stat)) if stat.ephemeral_owner == own.session.id => {
                let child = first.child.clone();
                own.made = Some(MadeNode { path, child, czxid: stat.czxid });
                for other in &found[1..] {
                    self.connection.delete(&own.session, &self.path_of(&other.child)).await?;
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(own.session.fault(&error)),
        }
    }

    /// All nodes with an attempt's id.
    async fn children_with(&self, own: &OwnNode) -> Result<Vec<QueueNode>, EngineFault> {
        let Some(client) = own.session.client() else { return Ok(Vec::new()) };
        let children = match self.connection.within(client.list_children(&self.path)).await {
            Ok(children) => children,
            Err(Error::NoNode) => Vec::new(),
            Err(error) => return Err(own.session.fault(&error)),
        };
        let is_own = |child: &String| child.contains(&*own.id);
        let children: Vec<String> = children.into_iter().filter(is_own).collect();
        self.queue_of(&children)
    }

    /// The queue that such children are.
    pub(super) fn queue_of(&self, children: &[String]) -> Result<Vec<QueueNode>, EngineFault> {
        self.form.queue(&self.name, children).map_err(EngineFault::Final)
    }

    /// Reads the queue.
    pub(super) async fn rank(&self, own: &OwnNode) -> Result<NodeRank, EngineFault> {
        let Some(client) = own.session.client() else { return Ok(NodeRank::Gone) };
        match self.connection.within(client.list_children(&self.path)).await {
            Ok(children) => self.rank_among(own, &children).await,
            Err(Error::NoNode) => Ok(NodeRank::Gone),
            Err(error) => Err(own.session.fault(&error)),
        }
    }

    async fn rank_among(
        &self,
        own: &OwnNode,
        children: &[String],
    ) -> Result<NodeRank, EngineFault> {
        let Some(made) = &own.made else { return Ok(NodeRank::Gone) };
        if !self.connection.paths.has_folders()
            && ["leases", "locks"].iter().all(|part| children.iter().any(|child| child == part))
        {
            let name = &self.name;
            return Err(EngineFault::config(format!(
                "the name {name} is used as a semaphore of Curator, which excludes no lock: take \
                 another name"
            )));
        }
        let mut queue = self.queue_of(children)?;
        if own.is_doubtful {
            // A creation that was given up has come through after all.
            let is_other =
                |node: &QueueNode| node.child.contains(&*own.id) && node.child != made.child;
            for other in queue.iter().filter(|node| is_other(node)) {
                self.connection.delete(&own.session, &self.path_of(&other.child)).await?;
            }
            queue.retain(|node| !is_other(node));
        }
        Ok(match place_of(&queue, &made.child) {
            PlaceInQueue::NotThere => NodeRank::Gone,
            PlaceInQueue::First => NodeRank::First,
            PlaceInQueue::Behind(ahead) => {
                NodeRank::Behind { ahead: ahead.clone(), first: queue[0].clone() }
            }
        })
    }

    /// Waits until a node is gone, or until that cannot be seen any longer. Only its next waiter
    /// watches it.
    pub(super) async fn wait_for_end(
        &self,
        wish: &Wish,
        own: &OwnNode,
        ahead: &QueueNode,
        at_most: std::time::Duration,
    ) -> Result<()> {
        let Some(client) = own.session.client() else { return Ok(()) };
        let path = self.path_of(&ahead.child);
        let watching = self.connection.within(client.get_and_watch_data(&path)).await;
        match watching {
            Ok((_, _, watcher)) => wish.wait(watcher.changed(), at_most).await.map(|_| ()),
            Err(Error::NoNode) => Ok(()),
            Err(error) => wish.weather(own.session.fault(&error)).await,
        }
    }

    /// The session that made a node, as it describes itself. `None`: the node is gone.
    pub(super) async fn holder_of(
        &self,
        session: &ZookeeperSession,
        node: &QueueNode,
    ) -> Option<(Holder, i64)> {
        let client = session.client()?;
        let path = self.path_of(&node.child);
        let (data, stat) = self.connection.within(client.get_data(&path)).await.ok()?;
        let text = str::from_utf8(&data).ok();
        let known = text.and_then(HolderLine::parse);
        let holder = known.unwrap_or_else(|| {
            let owner = stat.ephemeral_owner;
            let label = match text.filter(|text| !text.is_empty()) {
                Some(text) => {
                    format!("a client of ZooKeeper that says {text:?}, session {owner:#x}")
                }
                None => format!("another client of ZooKeeper, session {owner:#x}"),
            };
            Holder { label, ..Holder::default() }
        });
        Some((holder, stat.czxid))
    }

    /// Whether a writer waits behind a reader's node.
    pub(super) async fn is_wanted(&self, session: &ZookeeperSession, made: &MadeNode) -> bool {
        let Some(client) = session.client() else { return false };
        let Ok(children) = self.connection.within(client.list_children(&self.path)).await else {
            return false;
        };
        let queue = self.form.queue(&self.name, &children).unwrap_or_default();
        let own = queue.iter().position(|node| node.child == made.child);
        let after = own.map_or(&[][..], |own| &queue[own + 1..]);
        after.iter().any(|node| node.role == NodeRole::Exclusive)
    }

    /// Takes away whatever an attempt has made, or may have.
    pub(super) async fn retract(&self, own: &OwnNode) -> Result<(), EngineFault> {
        if let Some(made) = &own.made {
            self.connection.delete(&own.session, &made.path).await?;
        }
        if own.is_doubtful {
            for node in self.children_with(own).await? {
                self.connection.delete(&own.session, &self.path_of(&node.child)).await?;
            }
        }
        Ok(())
    }

    /// The queue as it is now.
    pub(super) async fn list(
        &self,
        session: &ZookeeperSession,
    ) -> Result<Vec<QueueNode>, EngineFault> {
        let Some(client) = session.client() else { return Ok(Vec::new()) };
        match self.connection.within(client.list_children(&self.path)).await {
            Ok(children) => self.queue_of(&children),
            Err(Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(session.fault(&error)),
        }
    }
}

/// As Curator makes them: a random UUID.
fn new_id() -> Result<String, EngineFault> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        EngineFault::Trouble(format!("the system gives no random numbers: {error}"))
    })?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let text = format!("{number:032x}");
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    Ok(parts.join("-"))
}
