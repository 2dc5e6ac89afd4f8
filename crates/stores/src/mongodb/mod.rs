//! The MongoDB store: any number of nodes over one replica set or sharded cluster, version 5 or later.
//!
//! Rooms: [`options`] what a URL says · [`open`] connecting, indexes, what kind of server it is · [`setup`] whose turn it
//! is to make them · [`error`] what a failure means for a command · [`time`] the server's clock, as far as it is known here · [`slot`] compare and swap · [`version`] a
//! record's version as a document · [`settle`] what follows a version: counts, the audit log, marks · [`sweep`] what
//! leaves · [`turns`] waiting for connections · [`find`] search and audit · [`due`] what is due · [`store`] the contract.
//!
//! # A write
//! Every version of a record is a document of its own, and the newest one is the record. A swap puts the next version into
//! the *slot* after the one that was judged; slots are `_id`s, so of many who judged one version exactly one gets it. That
//! is one `findAndModify` in one round trip, and atomic also where a `findAndModify` that changes a document in its place
//! is none (FerretDB reads, and then updates by `_id`).
//!
//! # Late writes (L6)
//! A slot is given back some time after its version was superseded, and a write that comes later than that would find it
//! free. So every version says until when it may come, and the server puts beside it when it came (`$currentDate`): what
//! came late is *void*, for everybody who reads it, for ever.
//!
//! # Fences (L2)
//! A removal is a version too, a tombstone; it and a floor that is higher stay until nobody can be under way who has seen
//! neither.

mod due;
mod error;
mod find;
mod open;
mod options;
mod settle;
mod setup;
mod slot;
mod store;
mod sweep;
mod time;
mod turns;
mod version;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// The driver's database, for whoever is connected already.
pub use ::mongodb::Database;

pub use crate::remote::open::{InvalidUrl, OpenError};
pub use open::initialize_indexes;
pub use options::Options;
pub use store::MongoStore;
