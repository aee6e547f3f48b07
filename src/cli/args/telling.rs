//! What `serve` is told of its log and of its page.

use std::path::PathBuf;

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
    /// Serve a page that shows the locks, /metrics for Prometheus, /healthz and /readyz there, by HTTP:
    /// HOST:PORT (7420 when left out; 0 takes a free one), or :PORT for every address of this machine. It
    /// changes nothing. Off loopback only with --http-token-file
    #[arg(long, value_name = "ADDR", help_heading = TELLING)]
    pub(in crate::cli) http: Option<String>,
    /// A name by which the page is reached, besides IP addresses and localhost; may be given several
    /// times. Requests for another host are refused
    #[arg(long, value_name = "HOST", requires = "http", help_heading = TELLING)]
    #[arg(value_parser = host_name)]
    pub(in crate::cli) http_host: Vec<String>,
    /// File with the token that shows names of locks and clients, one line of 16 to 512 characters, as
    /// `tierlock secret new` makes one; /metrics, /healthz and /readyz show no names, and need none
    #[arg(long, value_name = "FILE", requires = "http", help_heading = TELLING)]
    pub(in crate::cli) http_token_file: Option<PathBuf>,
}

/// A host as requests name it, without scheme and port.
fn host_name(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match !text.is_empty() && text.chars().all(is_part) {
        true => Ok(text.to_owned()),
        false => {
            Err("it is no host's name: write it as locks.example, without https:// and port".into())
        }
    }
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
