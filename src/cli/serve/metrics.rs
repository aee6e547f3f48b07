//! A leader's metrics, as Prometheus reads them. No name of a lock, label or address is among them.
//!
//! The leader counts for itself; here its counts get their names.

use std::{
    fmt::{self, Debug},
    sync::Arc,
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, prometheus_text,
    },
    metrics::{MetricType, TypedMetric, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    host::{LeaderHealth, LeaderView},
    proto::{
        leader::tally::{SessionsTally, Spread, TakenAwayTally},
        wire::LeaderRank,
    },
};

pub(super) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All of them.
pub(super) fn text(view: Arc<LeaderView>) -> String {
    let mut registry = Registry::with_prefix("tierlock");
    registry.register_collector(Box::new(ViewCollector(view)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes any text");
    text
}

struct ViewCollector(Arc<LeaderView>);

impl Debug for ViewCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ViewCollector")
    }
}

impl Collector for ViewCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = MetricPage(encoder);
        page.reign(&self.0)?;
        page.locks(&self.0)?;
        page.sessions(&self.0)?;
        page.leader(&self.0)
    }
}

struct MetricPage<'a>(DescriptorEncoder<'a>);

impl MetricPage<'_> {
    fn reign(&mut self, view: &LeaderView) -> fmt::Result {
        let LeaderHealth { standing, has_proof, in_grace } = &view.health;
        let reigns = standing.rank == LeaderRank::Reigns;
        let seconds = |time: Option<std::time::Duration>| time.unwrap_or_default().as_secs_f64();
        self.parted(
            "info",
            "Which release the leader is of",
            ConstGauge::new,
            [("version", env!("CARGO_PKG_VERSION"), 1)],
        )?;
        self.gauge("reigning", "1 of a leader that reigns, 0 of one that stands by", flag(reigns))?;
        self.gauge(
            "reign_proven",
            "1 while it reigns and its journal confirms that",
            flag(reigns && *has_proof),
        )?;
        self.gauge(
            "in_grace",
            "1 while clients of earlier reigns are waited for",
            flag(*in_grace),
        )?;
        self.gauge("epoch", "The epoch of the reign that it knows of", standing.epoch)?;
        self.gauge(
            "proof_age_seconds",
            "How long ago the reign that it knows of was proven; 0 with a state directory",
            seconds(standing.proven),
        )?;
        self.gauge(
            "reign_lasts_seconds",
            "For how long a reign is believed without a new proof (L); 0 with a state directory",
            seconds(standing.lasts),
        )?;
        self.gauge(
            "journal_lag_seconds",
            "Standing by: how old is what it knows of the journal",
            seconds(standing.lag),
        )
    }

    fn locks(&mut self, view: &LeaderView) -> fmt::Result {
        let (tally, counts) = (&view.tally, view.counts.unwrap_or_default());
        let modes = ["exclusive", "shared", "upgradable", "permits"];
        let grants = modes.into_iter().zip(tally.grants).map(|(mode, count)| ("mode", mode, count));
        self.parted("grants", "Leases that were granted", ConstCounter::new, grants)?;
        self.spread("wait_seconds", "From a request to its grant", &tally.waits)?;
        self.spread("hold_seconds", "From a grant to its end, kept leases too", &tally.holds)?;
        let refused = tally.refused.parts().map(|(reason, count)| ("reason", reason, count));
        self.parted(
            "refusals",
            "Requests and sessions that were refused",
            ConstCounter::new,
            refused,
        )?;
        self.counter("keeps", "How often a client kept a lease without a guard", tally.kept)?;
        self.counter("recalls", "Kept leases that were asked back", tally.recalls)?;
        self.counter(
            "recalls_late",
            "Recalls that were not answered within 0.5 s",
            tally.recalls_late,
        )?;
        let TakenAwayTally { broken, held_too_long, forgotten } = tally.taken_away;
        self.parted(
            "leases_taken_away",
            "Leases that living clients lost",
            ConstCounter::new,
            [
                ("reason", "broken", broken),
                ("reason", "held_too_long", held_too_long),
                ("reason", "forgotten", forgotten),
            ],
        )?;
        self.counter(
            "leases_reclaimed",
            "Leases that came back after a change of reign",
            tally.leases_reclaimed,
        )?;
        self.counter(
            "deadlocks",
            "Requests that were told that they wait in a circle",
            tally.deadlocks,
        )?;
        self.gauge("leases", "Leases that are held or kept", counts.leases as u64)?;
        self.gauge("waiters", "Requests that wait", counts.waiters as u64)?;
        self.gauge(
            "longest_queue",
            "Waiters of the lock that most wait for",
            view.longest_queue as u64,
        )?;
        self.gauge("names", "Names that the leader remembers", counts.names as u64)?;
        self.gauge("reservations", "Names that at_least keeps taken", counts.reservations as u64)?;
        self.gauge("claims", "Leases, waiters and reservations together", counts.claims as u64)?;
        self.gauge(
            "claims_limit",
            "How many of these there may be (--claims-max)",
            counts.claims_max as u64,
        )
    }

    fn sessions(&mut self, view: &LeaderView) -> fmt::Result {
        let counts = view.counts.unwrap_or_default();
        let SessionsTally { opened, ended, expired, returned } = view.tally.sessions;
        self.gauge("sessions", "Sessions that may hold locks", counts.sessions as u64)?;
        self.gauge(
            "sessions_limit",
            "How many of these there may be (--sessions-max)",
            counts.sessions_max as u64,
        )?;
        self.gauge(
            "sessions_awaited",
            "Sessions of earlier reigns that have not come back yet",
            counts.sessions_awaited as u64,
        )?;
        self.gauge("connections", "Connections of clients", counts.connections as u64)?;
        let turned_away = view.turns.turned_away().map(|(reason, count)| ("reason", reason, count));
        self.parted(
            "handshakes_refused",
            "Peers that did not get through their handshake",
            ConstCounter::new,
            turned_away,
        )?;
        self.counter("sessions_opened", "Sessions that were opened", opened)?;
        self.counter("sessions_ended", "Sessions that ended in good order", ended)?;
        self.counter(
            "sessions_expired",
            "Sessions that were silent for their time to live",
            expired,
        )?;
        self.counter(
            "sessions_returned",
            "Sessions that came back after a change of reign",
            returned,
        )
    }

    fn leader(&mut self, view: &LeaderView) -> fmt::Result {
        let missed = view.counts.unwrap_or_default().missed;
        self.counter(
            "late_seconds",
            "By how much the leader's own lateness has extended leases",
            (view.tally.late_before + missed).as_secs_f64(),
        )?;
        self.spread(
            "turn_seconds",
            "From a wake-up of the leader's thread to its next sleep",
            &view.turns.turns,
        )?;
        let (name, help) = ("journal_seconds", "How long the journal took, by operation");
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (operation, spread) in &view.turns.journal {
            let parts: Vec<_> = spread.parts().collect();
            metric.encode_family(&[("operation", *operation)])?.encode_histogram::<NoLabels>(
                spread.sum(),
                spread.count(),
                &parts,
                None,
            )?;
        }
        self.counter(
            "journal_troubles",
            "Operations that the journal did not answer",
            view.turns.journal_troubles,
        )
    }

    fn gauge<V: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: V) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    /// Its name ends with `_total`.
    fn counter<V: EncodeCounterValue>(&mut self, name: &str, help: &str, value: V) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    /// One for each value of a label, made of what was counted.
    fn parted<'a, M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        made: fn(u64) -> M,
        parts: impl IntoIterator<Item = (&'a str, &'a str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, M::TYPE)?;
        for (label, value, count) in parts {
            made(count).encode(metric.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn spread(&mut self, name: &str, help: &str, spread: &Spread) -> fmt::Result {
        let parts: Vec<_> = spread.parts().collect();
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabels>(spread.sum(), spread.count(), &parts, None)
    }
}

/// Labels of exemplars, of which there are none.
type NoLabels = [(&'static str, &'static str); 0];

fn flag(is_so: bool) -> u64 {
    is_so.into()
}

#[cfg(test)]
mod tests;
