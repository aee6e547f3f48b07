//! The table of names: holders, queues, tokens.
