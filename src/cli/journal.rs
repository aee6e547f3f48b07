//! `tierlock journal`.

use super::{args::JournalMove, failure::Failure};

/// Moves a journal, and says where its leaders start from now on.
#[cfg(any(feature = "etcd", feature = "postgres"))]
pub(super) fn move_to(what: &JournalMove) -> Result<u8, Failure> {
    use super::failure::print;
    for place in [&what.from, &what.to] {
        super::args::refuse_password(place)?;
    }
    let moved = crate::host::move_journal(&what.from, &what.to, &what.accept_fs)?;
    let option = if what.to.contains("://") { "--journal" } else { "--state-dir" };
    let sessions = match moved.sessions {
        1 => "1 open session".to_owned(),
        several => format!("{several} open sessions"),
    };
    print(&format!(
        "moved, with {sessions}, behind epoch {}; start the leaders with {option} {}\n",
        moved.epoch, what.to
    ))?;
    Ok(0)
}

#[cfg(not(any(feature = "etcd", feature = "postgres")))]
pub(super) fn move_to(_: &JournalMove) -> Result<u8, Failure> {
    Err(Failure::new(
        super::failure::exit::USAGE,
        "this tierlock was built without a store for journals: the features `etcd` and `postgres`",
    ))
}
