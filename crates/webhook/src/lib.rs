//! Webhooks, verified: who sent a delivery, which event it is, and how to sign what is sent on.
//!
//! A [`Source`] is a partner's inbound address. It takes a [`Delivery`], header fields and raw bytes, and gives back the
//! [`Event`]s in it, or a [`Rejection`]. Nothing is looked up, stored or sent here: no clock is read, no socket opened.
//! What happens to an event once is the ledger's (`semel-core`).
//!
//! ```
//! use bytes::Bytes;
//! use semel_core::Timestamp;
//! use semel_webhook::{Delivery, Provider, SecretValue, Source};
//!
//! let source = Source::builder("billing", Provider::StandardWebhooks)
//!     .secret(SecretValue::new("2026", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
//!     .build()?;
//!
//! let headers: [(&str, &[u8]); 3] = [
//!     ("Webhook-Id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
//!     ("Webhook-Timestamp", b"1614265330"),
//!     ("Webhook-Signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
//! ];
//! let body = Bytes::from_static(br#"{"test": 2432232314}"#);
//! let now = Timestamp::from_millis(1_614_265_331_000);
//!
//! let verified = source.verify(&Delivery::new(&headers, &body), now)?;
//! assert_eq!(verified.events()[0].identity().as_str(), "msg_p5jXN8AQM9LWM0D4loKWxJek");
//!
//! // The bytes are what was signed. JSON that was parsed and written again is another body.
//! let again = Bytes::from_static(br#"{"test":2432232314}"#);
//! let rejected = source.verify(&Delivery::new(&headers, &again), now).unwrap_err();
//! assert_eq!(rejected.reason().as_str(), "signature_mismatch");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rooms: `providers` what each partner does, a file each · [`Scheme`] a way of signing, described · [`IdentityRule`] which
//! event it is · [`Signer`] what Semel sends, by Standard Webhooks · [`Diagnosis`] why a signature does not hold ·
//! [`limits`] every number.
//!
//! # What is never done
//! - Nothing is verified over what was parsed: the raw bytes count.
//! - Nothing malformed passes: a header that is there twice, a name that is twice in the JSON on the way to an identity,
//!   a secret that cannot be decoded, a provider that is not known. A source without a secret is not made.
//! - Nothing is compared in a time that tells how far it agrees.
//! - No secret, token or body shows in `Debug`, in an error, or in what the debugger says.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        clippy::unnecessary_wraps,
        reason = "expectations are given as they stand"
    )
)]

mod address;
mod builder;
mod delivery;
mod diagnose;
mod error;
mod identity;
mod json;
pub mod limits;
mod mac;
mod outbound;
mod providers;
mod reason;
mod scheme;
mod secret;
mod sign;
mod source;
mod template;

pub use builder::SourceBuilder;
pub use delivery::Delivery;
pub use diagnose::{BodyChange, Diagnosis, Finding, KeyReading};
pub use error::ConfigError;
pub use identity::{Identity, IdentityRule, Locator, Part};
pub use mac::{Algorithm, Encoding};
pub use outbound::{Statuses, Verdict, default_schedule};
pub use providers::{Answer, Provider};
pub use reason::{Reason, Rejection};
pub use scheme::{Scheme, Unit};
pub use secret::{KeyEncoding, SecretValue};
pub use sign::{SignError, Signed, Signer};
pub use source::{Event, MissingIdentity, Source, Verified, Warning};
pub use template::Template;
