//! The server as its users meet it: the real process, over real sockets.
//!
//! `server` starts it, `http` speaks to it, `target` is the world outside that it acts on, `shared_store` a store that
//! several servers may have. Every other module is a part
//! of the contract, in tests that are named as its sentences.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "all of it is tests: what cannot be unwrapped is a failure, with its place"
)]

mod access;
mod claims;
mod command_line;
mod consumers;
mod crash;
mod dead;
mod deliveries;
mod disk;
mod docs;
mod errors;
mod execute;
mod faketime;
mod gateway;
mod gateway_clients;
mod gateway_contract;
mod gateway_limits;
mod gateway_protocols;
mod gateway_rules;
mod http;
mod inbox;
mod jobs;
mod jobs_guard;
mod jobs_killed;
mod jobs_schedule;
mod lifecycle;
mod limits;
mod load;
mod malformed;
mod nodes;
mod operators;
mod operators_command_line;
mod phases;
mod prefer;
mod requirement;
mod server;
mod shared_store;
mod store_carry;
mod store_consent;
mod store_faults;
mod store_start;
mod store_url;
mod storm;
mod sys006;
mod target;
mod telemetry;
mod toxiproxy;
mod traces;
mod upstream;
mod wait;
mod webhooks;
mod workers;
