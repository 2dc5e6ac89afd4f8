//! Kafka consumers whose handlers run once per event.
//!
//! A consumer group is given every message at least once: after a crash, a rebalance, a commit that was lost, some of them
//! twice; and a producer that times out sends one twice. [`Deduplicated`] wraps a handler so that it runs once per event
//! and group: it claims the event in the ledger, runs the handler, and completes the claim. The [`Consumer`](consumer) then
//! commits, of each partition, the part without a gap that is done.
//!
//! # What holds
//! - Claim, then handle, then complete, then commit. A crash anywhere loses nothing; a duplicate of a completed event is
//!   committed without handling; one that is being handled elsewhere is waited for.
//! - The one window that a crash leaves: between the handler's effect and its record. The event is handled again then, by
//!   a handler that can tell ([`Claimed::attempt`]), under the same [`Claimed::downstream_key`]. Whoever needs that closed
//!   as well has the effect join the claim's transaction (PostgreSQL: `in_transaction`).
//! - What cannot be read, or handled, is put into the dead letter topic with the reason, acknowledged, before the commit;
//!   nothing is dropped. Put back into its topic, it is handled once more.
//! - A store or a dead letter topic that does not answer is waited for: nothing is handled, committed or put aside
//!   meanwhile, and polling goes on.
//!
//! Rooms: [`dedup`] the handler · [`handler`] what it knows and says · [`cloud_event`] what is read · [`identity`] what makes
//! two messages one · [`offsets`] what may be committed · [`dead_letter`] what is put aside, and comes back · [`deliver`] what
//! a consumer hands its messages to · [`config`] · [`observe`] what is told · [`limits`].

pub mod cloud_event;
pub mod config;
#[cfg(feature = "consumer")]
pub mod consumer;
pub mod dead_letter;
pub mod dedup;
pub mod deliver;
pub mod handler;
pub mod identity;
pub mod limits;
pub mod message;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod observe;
pub mod offsets;
mod pause;

pub use cloud_event::{CloudEvent, Malformed, Mode};
pub use config::{Config, ConfigError, Conflicts};
#[cfg(feature = "consumer")]
pub use consumer::{Consumer, Settings, StartError, Status};
pub use dead_letter::{DeadLetter, Reason};
pub use dedup::{Deduplicated, fingerprint};
pub use deliver::{Deliver, Delivered, Delivering, Turn};
pub use handler::{Claimed, Handled, HandlerError, HandlerErrorKind};
pub use identity::Identity;
pub use message::Message;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use observe::{Observer, Unobserved};
