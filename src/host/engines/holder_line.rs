//! A holder in one line, as servers have room for it.

use crate::{error::Holder, proto::wire::Identity};

/// A holder as `label host pid command`, with tabs between them.
pub(super) struct HolderLine(String);

impl HolderLine {
    pub(super) fn new(identity: &Identity) -> HolderLine {
        let plain = |text: &str| text.replace(char::is_control, " ");
        let (label, host) = (plain(&identity.label), plain(&identity.host));
        HolderLine(format!("{label}\t{host}\t{}\t{}", identity.pid, plain(&identity.command)))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// What such a line says.
    pub(super) fn parse(line: &str) -> Option<Holder> {
        HolderLine::read(line.split('\t'))
    }

    /// What the parts of such a line say.
    pub(super) fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Holder> {
        let (label, host, pid) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        Some(Holder {
            label: label.to_owned(),
            host: host.to_owned(),
            pid: (pid != 0).then_some(pid),
            command: words.next()?.to_owned(),
            ..Holder::default()
        })
    }
}
