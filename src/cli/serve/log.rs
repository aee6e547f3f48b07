//! The log of `tierlock serve`, on standard error: lines for people, or a JSON object each line.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    api::status::said,
    cli::args::LogFormat,
    host::{EventClient, LeaderBuilder, LeaderEvent},
    printable::spelled_out,
};

/// Has a leader tell what it does.
pub(super) fn to(format: LogFormat, leader: LeaderBuilder) -> LeaderBuilder {
    match format {
        LogFormat::Brief => leader.on_change(|text| write_line(&format!("tierlock: {text}"))),
        // Alarms are among its events, and in their order there.
        LogFormat::Text => {
            leader.on_alarm(|_| {}).on_event(|event| write_line(&format!("tierlock: {event}")))
        }
        LogFormat::Json => {
            leader.on_alarm(|_| {}).on_event(|event| write_line(&json(event, &now())))
        }
    }
}

/// A line at once, so that it is not mixed with another. One that cannot be written is lost: a leader
/// does not end for that.
fn write_line(line: &impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let to_the_millisecond = now.replace_nanosecond(now.nanosecond() / 1_000_000 * 1_000_000);
    to_the_millisecond.unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}

/// One line of the log. What an event has no part of is left out.
#[derive(Serialize)]
struct LogLine<'a> {
    time: &'a str,
    level: &'static str,
    event: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<LogClient<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<LogClient<'a>>,
}

#[derive(Serialize)]
struct LogClient<'a> {
    label: &'a str,
    /// By its credential; else it is what the client claims, and where none is proved this is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    label_is_proved: Option<bool>,
    host: &'a str,
    pid: u32,
    command: &'a str,
    address: Option<String>,
}

impl<'a> From<&'a EventClient> for LogClient<'a> {
    fn from(client: &'a EventClient) -> LogClient<'a> {
        LogClient {
            label: &client.label,
            label_is_proved: said(client.label_is_proved, client.claims_label),
            host: &client.host,
            pid: client.pid,
            command: &client.command,
            address: client.address.map(|address| address.to_string()),
        }
    }
}

fn json(event: &LeaderEvent, time: &str) -> String {
    let (kind, parts) = (event.kind(), &event.parts);
    let line = LogLine {
        time,
        level: kind.level(),
        event: kind.as_str(),
        text: event.to_string(),
        name: parts.name.as_ref().map(|name| name.as_str()),
        token: parts.token.map(|token| token.get()),
        epoch: parts.epoch,
        reason: parts.reason,
        seconds: parts.lasted.map(|lasted| lasted.as_secs_f64()),
        count: parts.count,
        client: parts.client.as_ref().map(LogClient::from),
        by: parts.by.as_ref().map(LogClient::from),
    };
    spelled_out(&serde_json::to_string(&line).expect("it is text and numbers"))
}
