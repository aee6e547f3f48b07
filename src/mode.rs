//! What a name is used for, and how many may be inside.

/// What a name is used for. A caller that uses it for something else is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Usage {
    /// It is locked: by a `Mutex`, or by the readers and writers of an `RwLock`.
    Lock,
    /// It is a semaphore with so many permits.
    Permits(u32),
}

/// A count of permits and a limit are no larger: so much one share record counts.
pub(crate) const PERMITS_MAX: u32 = (1 << 23) - 1;

impl Usage {
    /// What is said to a caller that wants to use it for something else.
    pub(crate) fn refusal(self, wanted: Usage) -> String {
        match (self, wanted) {
            (Usage::Permits(limit), Usage::Permits(other)) => format!(
                "it is a semaphore of {limit} permits, and was asked for with {other}: use the limit \
                 in force, or another name"
            ),
            (Usage::Permits(limit), Usage::Lock) => format!(
                "it is a semaphore of {limit} permits, and no lock: choose another name for the lock"
            ),
            (Usage::Lock, _) => {
                "it is a lock (a Mutex or an RwLock), and no semaphore: choose another \
                 name for the semaphore"
                    .to_owned()
            }
        }
    }
}

/// Why a taker of permits waited in vain.
pub(crate) fn too_few_permits(count: u32, limit: u32) -> String {
    match count {
        1 => format!("all its {limit} permits were taken"),
        _ => format!("fewer than {count} of its {limit} permits were free"),
    }
}

/// What a caller waits for.
#[cfg_attr(
    not(any(feature = "process", feature = "host", feature = "testing")),
    allow(unreachable_pub, reason = "without waiters elsewhere there is no status to show it"),
    expect(dead_code, reason = "without waiters elsewhere there is no status to show it")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaiterMode {
    /// To have the lock alone.
    Exclusive,
    /// To read. In a directory that may be to read and upgrade.
    Shared,
    /// To read, and to have it alone later.
    Upgradable,
    /// For so many permits. In a directory 2,047 stands for as many or more.
    Permits(u32),
}

#[cfg(any(feature = "process", feature = "host", feature = "testing"))]
impl WaiterMode {
    /// The word of `tierlock status --json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaiterMode::Exclusive => "exclusive",
            WaiterMode::Shared => "shared",
            WaiterMode::Upgradable => "upgradable",
            WaiterMode::Permits(_) => "permits",
        }
    }

    /// How many permits it wants, if it wants any.
    pub const fn permits(self) -> Option<u32> {
        match self {
            WaiterMode::Permits(count) => Some(count),
            _ => None,
        }
    }
}

/// How many of a name may be inside already when the holder of its gate comes in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Room {
    /// No reader.
    Alone,
    /// So many permits may be taken.
    Beside(u32),
}

impl Room {
    /// So many may be counted.
    pub(crate) const fn most(self) -> u32 {
        match self {
            Room::Alone => 0,
            Room::Beside(most) => most,
        }
    }

    pub(crate) const fn is_for_permits(self) -> bool {
        matches!(self, Room::Beside(_))
    }
}

/// What one entry counts, which it takes back as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Share {
    Reader,
    /// So many permits.
    Permits(u32),
}

impl Share {
    #[inline]
    pub(crate) const fn count(self) -> u32 {
        match self {
            Share::Reader => 1,
            Share::Permits(count) => count,
        }
    }

    /// Whether a waiter for room is woken by an end of this, where `before` were counted: a writer
    /// waits for the last reader, and a semaphore's waiter for any permit.
    #[inline]
    pub(crate) const fn wakes(self, before: u32) -> bool {
        match self {
            Share::Reader => before == 1,
            Share::Permits(_) => true,
        }
    }
}
