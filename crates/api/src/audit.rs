//! `GET /v1/audit`: who did what to which record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::value::Time;

/// One line of the audit log. (Its names are those that the requirements give.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// What was done, such as `claimed`, `replayed` or `resolved`.
    pub action: String,
    /// Where the record stood.
    pub from_state: Option<String>,
    /// Where it has stood since.
    pub to_state: Option<String>,
    /// What links it to a request.
    pub correlation_id: Option<String>,
    /// By whom: a tenant, an operator's role, or `semel` itself.
    pub actor: String,
    /// Why, where somebody had to say.
    pub reason: Option<String>,
    /// To which record; 32 hexadecimal digits.
    pub record_id: Option<String>,
    /// The record's operation.
    #[serde(default)]
    pub operation: Option<String>,
    /// The record's key.
    #[serde(default)]
    pub key: Option<String>,
    /// What else the record was found by.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When, in the store's time.
    pub at: Time,
    /// More, such as `isRetry` and `originalAttemptId`.
    pub metadata: BTreeMap<String, MetadataValue>,
}

/// A value of an entry's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum MetadataValue {
    /// Yes or no, such as `isRetry`.
    Flag(bool),
    /// A text.
    Text(String),
}

/// A part of the audit log, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// The `cursor` of the next page; `null` on the last.
    pub next: Option<String>,
}

/// Which audit entries. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct AuditQuery {
    /// About this record; 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Of this kind, such as `replayed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Of this operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// About records with this key, also when the record itself is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// About records with this tag, as `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// By this actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Linked to this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// At or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Where the page begins: the `next` of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Entries of the page, 1 to 1,000; 50 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
