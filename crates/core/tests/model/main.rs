//! The model check of the ledger, and histories of random commands: core's own `decide` and `seal`, held against
//! what `ledger.md` says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests panic as tests do")]
#![allow(unreachable_pub, reason = "nothing is reached from outside of a test")]

mod effects;
mod explore;
mod guards;
mod histories;
mod judge;
mod missing;
mod orders;
mod scenario;
mod steps;
mod world;
