//! Sessions and their deadlines.
