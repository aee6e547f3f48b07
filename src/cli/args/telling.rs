//! What `serve` is told of its log.

use clap::{Args, ValueEnum};

const TELLING: &str = "Telling";

/// How a leader tells what it does.
#[derive(Args, Debug)]
pub(in crate::cli) struct ServeTelling {
    /// What is written to standard error, a line each: sessions that open, end, run out or are refused,
    /// locks that are broken, recalls that are late, limits, a slow journal, changes of reign, alarms
    #[arg(long, value_name = "FORMAT", default_value = "text", overrides_with = "log")]
    #[arg(help_heading = TELLING)]
    pub(in crate::cli) log: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    /// For people
    Text,
    /// For programs, an object each line
    Json,
    /// For people, and only alarms and changes of a reign that other leaders can follow
    Brief,
}
