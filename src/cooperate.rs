//! Being one task among others: on a tokio runtime each acquire takes a part of its task's budget,
//! so that a task which finds every lock free lets timers and other tasks have their turn.

/// Ready at once, unless the task has used up its budget: then once it had to wait for its turn.
/// Outside a tokio runtime, and in a build without tokio, it is always ready.
#[inline]
pub(crate) async fn proceed() {
    #[cfg(feature = "tokio")]
    tokio::task::coop::consume_budget().await;
}
