//! The embedded store: a commit log of our own with an index, for one node with nothing to install.
//!
//! Rooms, from the disk upwards: [`disk`] what is done to files, real or simulated · [`frame`] how records lie in a
//! segment · [`segment`] a file of the log · [`manifest`] from where to where the log reaches ·
//! [`layout`] which files belong to it · [`writer`] the one writer · [`queue`] what waits for it · [`batch`] what
//! writers wait for · [`index`] from id to place · [`shard`] what is known about records · [`orders`] what is due ·
//! [`tally`] how many there are · [`engine`] how a version becomes durable, then visible · [`relay`] how writers are
//! told · [`recover`] opening · [`store`] an open store and its threads · [`contract`] the contract of
//! stores.
//!
//! # A write
//! 1. Under the shard's lock: the newest durable version is compared, the next one stamped and appended to the queue. An id
//!    with a version on its way is waited for first.
//! 2. The log thread takes the whole queue, gives every frame its place and checksum, writes them in one piece and
//!    syncs.
//! 3. In the order of the log, versions become visible, waiters are woken, writers are told.
#![expect(
    clippy::cast_possible_truncation,
    reason = "offsets and lengths are packed into fields whose widths are held by assertions in `limits`"
)]

mod audit_list;
mod audit_pages;
mod batch;
mod check;
mod contract;
mod disk;
mod engine;
mod error;
mod frame;
mod groups;
mod index;
mod layout;
mod listing;
mod manifest;
mod orders;
mod queue;
mod recover;
mod relay;
mod search;
mod segment;
mod shard;
mod sidecar;
mod store;
mod tally;
mod upkeep;
mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod power_loss;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use check::{Damage, Report, check, check_told};
pub use error::{OpenError, OpenErrorKind};
pub use recover::Recovery;
pub use store::{EmbeddedStore, Options, Stats};
