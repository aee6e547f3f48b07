#![doc = include_str!("guide/index.md")]

#[doc = include_str!("guide/scopes.md")]
pub mod scopes {}

#[doc = include_str!("guide/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("guide/kept_leases.md")]
pub mod kept_leases {}

#[doc = include_str!("guide/installing.md")]
pub mod installing {}

#[doc = include_str!("guide/leaders.md")]
pub mod leaders {}

#[doc = include_str!("guide/operating.md")]
pub mod operating {}

#[doc = include_str!("guide/security.md")]
pub mod security {}

#[doc = include_str!("guide/engines.md")]
pub mod engines {}

#[doc = include_str!("guide/coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("guide/ladder.md")]
pub mod ladder {}

#[doc = include_str!("guide/table.md")]
pub mod table {}

#[doc = include_str!("guide/protocol.md")]
pub mod protocol {}

#[doc = include_str!("guide/walk.md")]
pub mod walk {}

#[doc = include_str!("guide/glossary.md")]
pub mod glossary {}
