//! What every store of Semel must do, as code. For tests only; nothing shipped depends on it.
//!
//! Rooms: [`suite`] the contract of stores, case by case · [`subject`] a store under judgement · [`fixture`] what
//! tests ask for · [`faulty`] a store that fails · [`chance`] numbers that come again ·
//! [`random`] random histories against the model · [`recorder`] what a store was asked and answered · [`history`] whether a log of concurrent claims and outcomes has an explanation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "here, an expectation that is not met is a test that fails"
)]

pub mod chance;
pub mod faulty;
pub mod fixture;
pub mod history;
pub mod random;
pub mod recorder;
pub mod subject;
pub mod suite;
