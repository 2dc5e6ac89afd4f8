//! Consumers against a real broker.

mod broker;
mod consumer;
mod storm;
