//! `POST /v1/webhooks/{source}` and the signature debugger, `POST /v1/webhooks/{source}/verify`.

use serde::{Deserialize, Serialize};

use crate::value::{Time, base64_bytes};

/// A delivery to look at: as a partner has sent it, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Its header fields, in any case and order; a name may come twice.
    #[serde(default)]
    pub headers: Vec<HeaderField>,
    /// Its body, byte by byte, in base64: a signature is over bytes, and a text that went through an editor has other ones.
    #[serde(with = "base64_bytes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
    pub body_base64: Vec<u8>,
    /// When it arrived, for one that was kept; now, if it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<Time>,
    /// Where it came from, for sources that list addresses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<std::net::IpAddr>,
}

/// One header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What was found out about a delivery. It holds no secret and no signature that would be the right one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyReply {
    /// The source.
    pub source: String,
    /// Its provider, such as `xendit`.
    pub provider: String,
    /// Where the provider's rule stands, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// Whether it would be taken in.
    pub verified: bool,
    /// Why not, such as `signature_mismatch`; as metrics have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Why not, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The header, or the place in the body, that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<String>,
    /// What is signed, such as `{timestamp}.{body}`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// How far its time stamp lies from the time of its arrival; below zero in the past.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skew_ms: Option<i64>,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// The secrets of the source, by id.
    pub secrets: Vec<SecretState>,
    /// What explains it, the most telling first.
    pub findings: Vec<String>,
    /// The identities of its events, if it would be taken in.
    pub events: Vec<String>,
}

/// A secret of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretState {
    /// Its id in the configuration.
    pub id: String,
    /// Whether it still holds.
    pub holds: bool,
    /// Whether it is the one that verifies this delivery.
    pub used: bool,
}
