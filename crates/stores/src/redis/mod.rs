//! The Redis store: any number of nodes over one Redis, or a cluster of them, version 7 or later.
//!
//! Rooms: [`options`] what a URL says · [`open`] what a server must be, and how a prefix is laid out · [`keys`] names of keys,
//! shards, slots · [`script`] what runs in the server · [`node`] connections to one server · [`database`] which server has a
//! slot, and a command's way · [`error`] what an answer means for a command · [`record`] records as bytes · [`fences`] how
//! fences rise over a failover · [`find`] search and audit · [`listen`] notifications between nodes · [`store`] the contract.
//!
//! # A write
//! One script, one round trip: it reads the server's clock, refuses if the deadline has passed, compares, stamps, and puts the
//! record, its places in the orders, the count and the audit entry in their keys, all of one shard and so of one slot. It
//! knows no rule: what the version *is* comes as bytes. The record is written last, so that a script that fails on the way
//! has left it as it was.
//!
//! # What is lost
//! A failover loses what the replica that takes over had not heard of, acknowledged or not. With `wait_replicas` a write, and
//! whatever shows it, is answered only when so many replicas have it; that makes the loss rarer, and no more than that.
//! `survives_failover` says no, whatever the options.
//!
//! # Fences (L2)
//! A fence is the highest of: one above the last of the shard, the server's time in microseconds, and what this node knows of
//! both from before. So it rises over removals, and over a failover to a replica that lacks the last ones.

mod database;
mod error;
mod fences;
mod find;
mod keys;
mod listen;
mod node;
mod open;
mod options;
mod record;
mod script;
mod store;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod instance;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use crate::remote::open::{InvalidUrl, OpenError};
pub use options::Options;
pub use store::RedisStore;
