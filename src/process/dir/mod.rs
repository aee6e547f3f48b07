//! What a directory of locks holds whichever engine it has: the files around the locks, records, the
//! names that are wide, what leaders of elections say, which leaders a directory has, and what remains of dead processes.

pub(super) mod births;
pub(super) mod elections;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(super) mod ending;
pub(super) mod files;
pub(super) mod home;
pub(super) mod keepers;
pub(super) mod leader;
pub(super) mod names;
pub(super) mod record;
#[cfg(any(feature = "cli", test))]
pub(super) mod report;
pub(super) mod turns;
pub(super) mod wide;
