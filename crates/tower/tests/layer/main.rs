//! The layer from outside: what a client and a service see, over the memory store and over one that fails.

#![expect(clippy::unwrap_used, reason = "here, an expectation that is not met is a test that fails")]

mod conformance;
mod core;
mod failures;
mod grpc;
mod guide;
mod handlers;
mod harness;
mod openapi;
mod phases;
mod races;
mod report;
mod scopes;
mod streams;
mod wire;
