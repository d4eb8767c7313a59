//! The world outside inwit: what its programs meet in tests and in the demonstration, and what never ships with them.

pub mod demo;
pub mod fuzzing;
pub mod hardware;
pub mod stage;
pub mod world;
