//! What every store of Semel must do, as code. For tests only; nothing shipped depends on it.
//!
//! Rooms: [`history`] whether a log of concurrent claims and outcomes has an explanation.

pub mod history;
