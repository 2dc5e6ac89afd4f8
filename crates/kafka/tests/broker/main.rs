//! Consumers against a real broker.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is tests: what cannot be unwrapped is a failure, with its place"
)]

mod broker;
mod consumer;
mod faults;
mod storm;
