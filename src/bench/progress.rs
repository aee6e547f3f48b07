//! The bar on a terminal. It is drawn between slices only, so it disturbs no measurement.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::case::{Case, Label};
use crate::Scope;

pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// For what takes nobody knows how long.
    pub(crate) fn of_unknown_length() -> Progress {
        if !stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let style =
            ProgressStyle::with_template("{spinner}  {msg}").expect("the template is right");
        Progress(ProgressBar::new_spinner().with_style(style))
    }

    pub(crate) fn new(total: Duration) -> Progress {
        if !stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{bar:28} {percent:>3} %  {msg}")
            .expect("the template is right")
            .progress_chars("━╸─");
        Progress(ProgressBar::new(total.as_millis() as u64).with_style(style))
    }

    pub(crate) fn preparing(&self, scope: Scope, case: Case) {
        self.0.set_message(format!("{scope}: preparing {}", case.as_str()));
    }

    /// Something that no row is about.
    pub(crate) fn says(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    pub(crate) fn measuring(&self, label: &Label) {
        self.0.set_message(format!("{}: {}, {}", label.scope, label.title(), label.who()));
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.inc(by.as_millis() as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
