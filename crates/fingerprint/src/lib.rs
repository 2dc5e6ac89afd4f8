//! What a request means, as 256 bits.
//!
//! An idempotency key says *which attempt* a request belongs to; its **fingerprint** says *what was asked for*. When
//! a key comes back with another fingerprint, it was reused by mistake, and replaying the first outcome would lie.
//! So two spellings of one request must have one fingerprint, and two different requests must never share one.
//!
//! ```
//! use semel_fingerprint::FingerprintBuilder;
//!
//! let first = FingerprintBuilder::new().operation("payment.charge").json(br#"{"amount": 10.0, "to": "ann"}"#);
//! let again = FingerprintBuilder::new().operation("payment.charge").json(br#"{"to":"\u0061nn","amount":1e1}"#);
//! let other = FingerprintBuilder::new().operation("payment.charge").json(br#"{"to":"ann","amount":10.01}"#);
//! assert_eq!(first.finish(), again.finish());
//! assert_ne!(first.finish(), other.finish());
//! ```
//!
//! - [`FingerprintBuilder`] puts the parts of a request together; [`Fingerprint`] is the result.
//! - [`canonical_json`] is the form in which JSON payloads are compared.
//! - [`Fields`] keeps fields that do not matter (a client's time stamp) out of the comparison.
//!
//! # When in doubt, different
//! A payload whose meaning is not certain (invalid JSON, a name twice in one object, a multipart body without a
//! closing boundary) is compared byte by byte. A retry sends the same bytes, so nothing is lost; and two
//! payloads that some parser somewhere reads differently are never taken for one.
//!
//! The exact bytes that are hashed, and the reasons, stand in `docs/adr/0002-fingerprint.md`; the vectors that clients
//! in other languages check themselves against stand in `vectors/fingerprint.json`.

mod digest;
mod fields;
mod json;
pub mod limits;
mod multipart;
mod uri;

pub use digest::{ALGORITHM_VERSION, Fingerprint, FingerprintBuilder, ParseFingerprintError};
pub use fields::{Fields, PointerError};
pub use json::{JsonError, JsonErrorKind, canonical_json};
