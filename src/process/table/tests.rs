//! Situations of the table engine.
