//! What goes over the wire: the bodies of every endpoint, the error catalogue and its renderings.
//!
//! Servers and clients share this crate, so it knows nothing of the ledger: the server converts by hand, and a change
//! of core cannot change the wire unseen. `/v1` only grows: fields may be added, none is renamed or removed, and the
//! checked-in OpenAPI document holds everybody to that.
//!
//! # Conventions
//! Names are `snake_case`, but in the audit log, the runs of jobs and the flat error form, whose names are other people's.
//! Points in time are RFC 3339 in UTC with milliseconds ([`Time`]); lengths of time are whole milliseconds in fields that end
//! in `_ms`, and whole seconds in `retry_after`. Versions are texts, `fence.sequence`. Payloads and results are passed
//! on as the text that came ([`Json`]), so that a number above 2^53 is the same number on the other side.
//!
//! Rooms: [`error`] the catalogue and its renderings · [`mod@decode`] bodies into types, with the field that is wrong ·
//! [`execute`] · [`claims`] · [`jobs`] · [`records`] · [`dead`] letters · [`audit`] · [`health`] · `openapi` (a feature) the document of all of it.

pub mod audit;
pub mod claims;
pub mod dead;
pub mod decode;
pub mod error;
pub mod execute;
pub mod health;
pub mod jobs;
pub mod limits;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod records;
mod value;
pub mod webhooks;

pub use decode::decode;
pub use error::{ApiError, Detail, ErrorCode, Form, Rendered};
pub use value::{Content, Json, Time, separated};
