//! Where Semel's records live.
//!
//! Every store here is the contract of [`semel_core::store`] over another back end, one per feature; the conformance
//! suite runs over all of them. The rules of the ledger are nowhere in this crate.
//!
//! Rooms: [`codec`] records as bytes · `clock` what a store's time is read from · `embedded` a log of our own,
//! for one node with nothing to install · `mongodb` several nodes over one replica set or sharded cluster · `postgres` the
//! same over one database · `redis` the same over one Redis or a
//! cluster · `remote` what stores over a network share · `memory` the store of tests ·
//! [`limits`] every number.

#[cfg(any(
    feature = "memory",
    feature = "embedded",
    feature = "mongodb",
    feature = "postgres",
    feature = "redis"
))]
pub mod clock;
pub mod codec;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod limits;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "mongodb", feature = "postgres", feature = "redis"))]
#[cfg_attr(
    not(all(feature = "mongodb", feature = "postgres", feature = "redis")),
    allow(dead_code, reason = "not every store needs all of it")
)]
mod remote;

#[cfg(any(feature = "mongodb", feature = "postgres", feature = "redis"))]
pub use remote::open::OpenError;
