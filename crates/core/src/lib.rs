//! The ledger: what makes an operation happen once.
//!
//! This crate is the whole semantics of Semel and nothing else. A [`Command`](command::Command) looks at a
//! [`Record`] and the time and says what the record becomes; a [`Store`] compares and
//! swaps records and knows no rule; the [`Ledger`] joins the two. No clock is read here, no random
//! number drawn, no socket or file opened: whatever is needed of those is an argument, so that the same code is
//! model-checked, simulated and shipped.
//!
//! Rooms: [`id`] the names of things · [`request`] what a caller asks for · [`policy`] what was promised about it ·
//! [`record`] what is remembered · [`command`] what may happen to it · [`mod@write`] how a store stamps it ·
//! [`store`] the contract of stores · [`ledger`] the decision loop · [`lease`] the holder's side of a lease ·
//! [`invariant`] L1 to L13 · [`limits`] every number.

pub mod audit;
pub mod command;
pub mod error;
pub mod id;
pub mod invariant;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod outcome;
pub mod policy;
pub mod query;
pub mod record;
pub mod request;
pub mod store;
pub mod time;
pub mod write;

pub use error::{Invalid, StoreError};
pub use id::{Fence, Key, Operation, RecordId, Scope, Token, Version};
pub use invariant::Invariant;
pub use ledger::Ledger;
pub use outcome::Outcome;
pub use policy::Policy;
pub use record::{Record, State};
pub use request::Request;
pub use store::Store;
pub use time::Timestamp;
