//! Where Semel's records live.
//!
//! Every store here is the contract of [`semel_core::store`] over another back end, one per feature; the conformance
//! suite runs over all of them. The rules of the ledger are nowhere in this crate.
//!
//! Rooms: [`codec`] records as bytes ·
//! [`limits`] every number.

pub mod codec;
pub mod limits;
