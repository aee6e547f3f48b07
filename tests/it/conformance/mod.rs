//! One conformance suite over all scopes. Each situation is written once and runs in every
//! [`Setting`](crate::setting::Setting) that it applies to; a failure names both.

mod all;
mod apart;
mod cancelling;
mod conditions;
mod crossing;
mod elections;
mod exclusion;
mod guards;
mod keeping;
mod known_situations;
mod loss;
mod marks;
mod names;
mod permits;
mod sharing;
mod status;
mod stepping_back;
mod storms;
mod tokens;
mod waiting;
mod widening;
