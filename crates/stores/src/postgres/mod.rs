//! The PostgreSQL store: any number of nodes over one database, version 15 or later.
//!
//! Rooms: [`options`] what a URL says · [`tls`] rustls under the driver · [`schema`] tables and their migrations ·
//! [`sql`] every statement · [`gather`] commands that wait, together · [`batch`], [`batch_rows`], [`batch_sql`] many of
//! them in one statement · [`alone`] one in one · [`pool`] connections, time-outs, statements under way · [`error`] what a SQLSTATE means
//! for a command · [`rows`] records as rows · [`listen`] notifications between nodes · [`find`] search and audit ·
//! [`orders`] what is due and has changed · [`upkeep`] what is done now and then · [`joined`] claims in the caller's own transaction · [`store`] the contract.
//!
//! # A write
//! One statement, its own transaction, one round trip: it reads the clock, refuses if the deadline has passed, compares,
//! swaps, stamps, and puts the tags, the count's move and the audit entry beside it. Versions and times are columns,
//! stamped by the database; the rest of the record is the bytes of the [codec](crate::codec), and its input lies apart
//! so that a heartbeat does not write it again. `READ COMMITTED` is enough: the row is the lock.
//!
//! # Fences (L2)
//! Whatever removes a record raises the `floor` in the same statement. An insert takes its fence from the floor it sees,
//! and looks at the floor once more, in a newer snapshot, when its row is there: from then on nobody can remove an
//! earlier life of the id. A floor that has risen meanwhile ends the statement, and the insert begins anew.

mod alone;
mod batch;
mod batch_rows;
mod batch_sql;
mod error;
mod find;
mod gather;
mod joined;
#[cfg(feature = "sqlx")]
mod joined_sqlx;
mod listen;
mod options;
mod orders;
mod pool;
mod rows;
mod schema;
mod sql;
mod store;
mod tls;
mod upkeep;

#[cfg(test)]
mod batches_tests;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod joined_random;
#[cfg(test)]
#[cfg(feature = "sqlx")]
mod joined_tests;
#[cfg(test)]
mod older_node_tests;
#[cfg(test)]
mod pooler;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

pub use crate::remote::open::{InvalidUrl, OpenError};
use crate::remote::{time, wake};

pub use joined::{Cells, JoinError, Joined, Transaction, Value};
pub use options::Options;
pub use store::PostgresStore;
