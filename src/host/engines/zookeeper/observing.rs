//! The leader of an election, as its queue of nodes shows.
//!
//! The data of the lowest node is the leader's value, as for Curator's `LeaderSelector`. An observer
//! watches that node alone, or the empty queue: a new candidate wakes none of them. A leader with its
//! whole term between two looks is missed.

use zookeeper_client::{Error, OneshotWatcher};

use super::{
    nodes::NodeRole,
    queue::NodeQueue,
    session::{ZookeeperConnection, ZookeeperSession},
};
use crate::{
    elected::ElectedLeader,
    host::engines::{fault::EngineFault, holder_line::HolderLine, teller::LeaderTeller},
    token::Token,
};

impl NodeQueue {
    /// Tells the present leader. What is to be waited for until the next look; `None`: nothing.
    pub(super) async fn look_for_leader(
        &self,
        connection: &ZookeeperConnection,
        session: &ZookeeperSession,
        tell: &LeaderTeller,
    ) -> Result<Option<OneshotWatcher>, EngineFault> {
        let Some(client) = session.client() else { return Ok(None) };
        let fault = |error: Error| session.fault(&error);
        let listed = connection.within(client.list_and_watch_children(self.path())).await;
        let (children, watcher) = match listed {
            Ok((children, watcher)) => (children, watcher),
            Err(Error::NoNode) => {
                let watching = client.check_and_watch_stat(self.path());
                let (stat, watcher) = connection.within(watching).await.map_err(fault)?;
                if stat.is_some() {
                    return Ok(None);
                }
                tell.leads(None);
                return Ok(Some(watcher));
            }
            Err(error) => return Err(fault(error)),
        };
        let queue = self.queue_of(&children)?;
        let Some(first) = queue.first() else {
            tell.leads(None);
            return Ok(Some(watcher));
        };
        let path = self.path_of(&first.child);
        match connection.within(client.get_and_watch_data(&path)).await {
            Ok((data, stat, watcher)) => {
                // A lock's holder describes itself there, and leads nothing.
                let text = str::from_utf8(&data).ok();
                let is_holder = text.and_then(HolderLine::parse).is_some();
                let token = u64::try_from(stat.czxid).ok().and_then(Token::new);
                let leads = first.role == NodeRole::Exclusive && !is_holder;
                tell.leads(
                    token.filter(|_| leads).map(|token| ElectedLeader::new(token, data.into())),
                );
                Ok(Some(watcher))
            }
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(fault(error)),
        }
    }
}
