//! Which node a lock's name is, and what the nodes below it are.

use crate::{
    error::{LockError, Result},
    name::Name,
};

/// What the locks of a manager are to Curator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeForm {
    /// `InterProcessMutex`, `InterProcessSemaphoreMutex` not among them.
    Mutex,
    /// `InterProcessReadWriteLock`.
    ReadWrite,
}

/// What a node of a queue asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeRole {
    Exclusive,
    Shared,
}

/// How names become paths.
#[derive(Clone, Debug)]
pub(super) struct NodePaths {
    /// The chroot: empty, or `/a/b`.
    base: String,
    /// A name's slashes are folders.
    has_folders: bool,
}

/// A child of a lock's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueNode {
    pub(super) child: String,
    pub(super) role: NodeRole,
    /// Its place: the number that the server has given it.
    pub(super) sequence: i64,
}

/// What a sequence number has at least of digits.
const DIGITS_MIN: usize = 10;
/// What Curator's nodes have before their number.
const MUTEX: &str = "lock-";
const READ: &str = "__READ__";
const WRITE: &str = "__WRIT__";

impl NodeForm {
    /// The name of a node that is to be made, without its number. It is Curator's form of a node that
    /// can be found again by its id when the answer to its creation is lost.
    pub(super) fn new_child(self, id: &str, role: NodeRole) -> String {
        format!("_c_{id}-{}", self.marker(role))
    }

    fn marker(self, role: NodeRole) -> &'static str {
        match (self, role) {
            (NodeForm::Mutex, _) => MUTEX,
            (NodeForm::ReadWrite, NodeRole::Exclusive) => WRITE,
            (NodeForm::ReadWrite, NodeRole::Shared) => READ,
        }
    }

    /// The queue among the children of a lock's node, the oldest first. It fails if they show that the
    /// name is used as another kind of lock, which would not exclude this one.
    pub(super) fn queue(self, name: &Name, children: &[String]) -> Result<Vec<QueueNode>> {
        let mut queue = Vec::new();
        for child in children {
            if let Some(node) = self.read(child) {
                if node.sequence < 0 {
                    return Err(LockError::config(format!(
                        "the numbers of the nodes of {name} are used up, so their order is not known \
                         any more: delete its node once no client uses it"
                    )));
                }
                queue.push(node);
            } else if is_numbered(child) {
                return Err(LockError::config(format!(
                    "the name {name} is used as {}, which does not exclude {}: take another name, or {}",
                    kind_of(child),
                    match self {
                        NodeForm::Mutex => "a mutex",
                        NodeForm::ReadWrite => "a read-write lock",
                    },
                    match self.other().read(child) {
                        Some(_) if self == NodeForm::Mutex => "say `?as=read-write`",
                        Some(_) => "leave `?as=read-write` out",
                        None => "move its other clients",
                    }
                )));
            }
        }
        // A server gives each number once. One of two that were made by hand is the first all the same.
        queue.sort_by(|one, other| (one.sequence, &one.child).cmp(&(other.sequence, &other.child)));
        Ok(queue)
    }

    fn other(self) -> NodeForm {
        match self {
            NodeForm::Mutex => NodeForm::ReadWrite,
            NodeForm::ReadWrite => NodeForm::Mutex,
        }
    }

    /// The child as a node of this form. Curator too goes by the last occurrence of the marker.
    fn read(self, child: &str) -> Option<QueueNode> {
        let roles: &[NodeRole] = match self {
            NodeForm::Mutex => &[NodeRole::Exclusive],
            NodeForm::ReadWrite => &[NodeRole::Exclusive, NodeRole::Shared],
        };
        roles.iter().find_map(|role| {
            let (_, number) = child.rsplit_once(self.marker(*role))?;
            let sequence =
                Some(number).filter(|number| number.len() >= DIGITS_MIN)?.parse().ok()?;
            Some(QueueNode { child: child.to_owned(), role: *role, sequence })
        })
    }
}

/// Where a node stands in a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlaceInQueue<'a> {
    NotThere,
    /// It waits for none.
    First,
    /// It waits for this one.
    Behind(&'a QueueNode),
}

pub(super) fn place_of<'a>(queue: &'a [QueueNode], own: &str) -> PlaceInQueue<'a> {
    let Some(at) = queue.iter().position(|node| node.child == own) else {
        return PlaceInQueue::NotThere;
    };
    let before = &queue[..at];
    let ahead = match queue[at].role {
        NodeRole::Exclusive => before.last(),
        NodeRole::Shared => before.iter().rfind(|node| node.role == NodeRole::Exclusive),
    };
    ahead.map_or(PlaceInQueue::First, PlaceInQueue::Behind)
}

/// Whether the server has numbered a node.
fn is_numbered(child: &str) -> bool {
    let digits = child.bytes().rev().take_while(u8::is_ascii_digit).count();
    digits >= DIGITS_MIN
}

/// What another client's node is of.
fn kind_of(child: &str) -> String {
    let known = [
        (READ, "a read-write lock of Curator"),
        (WRITE, "a read-write lock of Curator"),
        (MUTEX, "a mutex of Curator"),
        ("__lock__", "a lock of kazoo"),
        ("__rlock__", "a read-write lock of kazoo"),
        ("latch-", "a leader latch of Curator"),
    ];
    let found = known.iter().find(|(marker, _)| child.contains(marker));
    found.map_or_else(
        || format!("something else (its node {child})"),
        |(_, kind)| (*kind).to_owned(),
    )
}

impl NodePaths {
    pub(super) fn new(base: &str, has_folders: bool) -> NodePaths {
        let base = base.trim_end_matches('/');
        let base = if base.is_empty() { String::new() } else { format!("/{base}") };
        NodePaths { base, has_folders }
    }

    /// The chroot as a path; `/` without one.
    pub(super) fn root(&self) -> &str {
        if self.base.is_empty() { "/" } else { &self.base }
    }

    pub(super) fn has_folders(&self) -> bool {
        self.has_folders
    }

    /// The node of a lock.
    pub(super) fn of(&self, name: &Name) -> Result<String> {
        let refused = |what: &str| Err(LockError::config(format!("the name {name} {what}")));
        if self.base.is_empty() && (&**name == "zookeeper" || name.starts_with("zookeeper/")) {
            return refused("is the server's own; locks below a chroot may have it");
        }
        if !self.has_folders {
            return Ok(format!("{}/{}", self.base, encoded(name)));
        }
        if name.split('/').any(str::is_empty) {
            return refused("has an empty folder, which ZooKeeper has not: leave `?parents` out");
        }
        let path: Vec<String> = name.split('/').map(encoded).collect();
        Ok(format!("{}/{}", self.base, path.join("/")))
    }

    /// The name of a lock by its node, if it is one's own way to write it.
    pub(super) fn name_of(&self, path: &str) -> Option<Name> {
        let rest = path.strip_prefix(&*self.base)?.strip_prefix('/')?;
        let text = percent_encoding::percent_decode_str(rest).decode_utf8().ok()?;
        let name = Name::new(&text).ok()?;
        (self.of(&name).ok()?.as_str() == path).then_some(name)
    }
}

/// A name, or a part of one, as ZooKeeper takes it.
fn encoded(part: &str) -> String {
    if matches!(part, "." | "..") {
        return part.replace('.', "%2E");
    }
    let mut text = String::with_capacity(part.len());
    for c in part.chars() {
        // The server refuses the last two kinds.
        if matches!(c, '/' | '%' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}') {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            text.extend(bytes.flat_map(|byte| {
                let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
                ['%', digit(byte >> 4), digit(byte & 15)]
            }));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests;
