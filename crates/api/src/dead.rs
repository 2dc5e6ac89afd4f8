//! `/v1/dead` on the admin address: dead letters, one by one, by what they say, and all that match.
//!
//! A dead letter is a record in the state `dead`, of whatever namespace. What stands here is for webhooks first: source,
//! target and kind are the tags that the webhooks' door gives its records.

use serde::{Deserialize, Serialize};

use crate::records::{BulkFailure, RecordDetail, RecordSummary};
use crate::value::Time;

/// Which dead letters. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct DeadFilter {
    /// Of this source of webhooks: the tag `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// For this target of the source: the tag `target`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What it is: `event` (work whose tries are spent), `conflict` (another body under the identity of an event) or
    /// `duplicate` (a delivery of an event that was taken before, filed for analysis).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it died of: the `error` of a group, or of a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of this operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// With this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With this tag, as `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// In this namespace: `execute`, `http`, `webhook`, `topic` or `job`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Taken in at or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Taken in before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// `GET /v1/dead`: where the page begins, and how long it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct DeadPlace {
    /// Where the page begins: the `next` of the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Dead letters of the page, 1 to 1,000; 50 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A part of a listing of dead letters, the latest taken in first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadPage {
    /// The dead letters. With a condition that no store has an order for (`error`, or a second of source, target, kind and
    /// tag) a page may show fewer than `limit`, even none, and still have a `next`.
    pub dead: Vec<DeadLetter>,
    /// The `cursor` of the next page; `null` on the last.
    pub next: Option<String>,
}

/// What a listing shows of a dead letter: no bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadLetter {
    /// The record.
    #[serde(flatten)]
    pub record: RecordSummary,
    /// The source of webhooks that it came by.
    pub source: Option<String>,
    /// The target that it is for.
    pub target: Option<String>,
    /// What it is: `event`, `conflict` or `duplicate`.
    pub kind: String,
    /// What the last try said.
    pub error: String,
    /// When it died.
    pub died_at: Time,
}

/// `GET /v1/dead/groups`: where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct DeadGroupsPlace {
    /// Where counting goes on: the `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Groups to show, the largest first, 1 to 100; 20 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Dead letters by what they died of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadGroups {
    /// The largest groups, the largest first.
    pub groups: Vec<DeadGroup>,
    /// Dead letters that were counted, those of groups that are not shown included.
    pub counted: u64,
    /// Dead letters of groups that are not shown.
    pub others: u64,
    /// Whether there are more dead letters than were read: one answer reads at most 10,000.
    pub more: bool,
    /// The `cursor` that counts those; `null` when all were read.
    pub next: Option<String>,
}

/// Dead letters that died of the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadGroup {
    /// What they died of. Long numbers and ids in it are `#`, so that those which differ in nothing else are one group.
    pub error: String,
    /// How many.
    pub count: u64,
    /// When the first of them died.
    pub first: Time,
    /// When the last of them died.
    pub last: Time,
    /// The one that died last.
    pub example: DeadLetter,
}

/// `GET /v1/dead/{id}`: a record and all its tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadDetail {
    /// The record, as `/v1/records/{id}` shows it.
    #[serde(flatten)]
    pub record: RecordDetail,
    /// The source of webhooks that it came by.
    pub source: Option<String>,
    /// The target that it is for.
    pub target: Option<String>,
    /// What it is: `event`, `conflict` or `duplicate`.
    pub kind: String,
    /// The record that repeats its completed work, if one was made with `force`.
    pub repeated_by: Option<String>,
    /// Its tries, the last one first, as the audit log has them; that forgets after `audit.retention`.
    pub attempts: Vec<Attempt>,
    /// Whether there were more than the 200 that are shown.
    pub attempts_more: bool,
}

/// A try, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attempt {
    /// When it ended.
    pub at: Time,
    /// Which one it was, from 1; of a revived record the numbers go on.
    pub attempt: Option<u32>,
    /// Where the record has stood since: `pending`, `dead`, `completed`, `unknown` or `released`.
    pub to_state: Option<String>,
    /// How a delivery ended: `delivered`, `refused` (and asked again), `permanent`, `timed_out`, `unreachable`, `cut`,
    /// `unsigned` or `abandoned`.
    pub result: Option<String>,
    /// The status that the target answered with.
    pub status: Option<u16>,
    /// How long the target took, in milliseconds.
    pub latency_ms: Option<u64>,
    /// What went wrong.
    pub error: Option<String>,
    /// How the target's answer begins; `null` for the role `read`.
    pub response: Option<String>,
}

/// `POST /v1/dead/{id}/revive`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReviveRequest {
    /// The version that was judged.
    pub version: String,
    /// Why; kept in the audit log, 1 to 1,024 bytes.
    pub reason: String,
    /// Also what was done already: a completed record is repeated, as a new record with a downstream key of its own, and
    /// a duplicate that was filed is delivered.
    #[serde(default)]
    pub force: bool,
}

/// The answer of a revive: what the record is now, or the one that repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReviveReply {
    /// The record that is tried now.
    pub record: RecordSummary,
    /// The completed record that it repeats. Asking again with `force` gives the same repetition and makes no second one.
    pub repeats: Option<String>,
}

/// A dead letter that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// The record; 32 hexadecimal digits.
    pub id: String,
    /// The version that was judged.
    pub version: String,
}

/// `POST /v1/dead/revive` and `…/discard`: one command on many dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeadBulkRequest {
    /// Those that match. Without a condition, `all` has to say that all are meant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub filter: Option<DeadFilter>,
    /// Every dead letter that there is.
    #[serde(default)]
    pub all: bool,
    /// These, instead of a filter: up to 1,000.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub records: Vec<Judged>,
    /// Only count what would be changed; nothing is changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Dead letters that this request works on at most, 1 to 10,000; 1,000 if it is not given. Not with `records`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u32>,
    /// Dead letters per second at most, 1 to 10,000. An answer then comes after ten seconds at the latest, with where to
    /// go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<u32>,
    /// Where to go on: the `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cursor: Option<String>,
    /// Why; kept in the audit log of every record, 1 to 1,024 bytes. Not needed for a dry run.
    #[serde(default)]
    pub reason: String,
    /// Only for `revive`: also what was done already.
    #[serde(default)]
    pub force: bool,
}

/// What a command on many did. Repeat the request with `cursor` set to `next` until that is `null`; to cancel, do not. Closing
/// the connection ends a request after what is under way: the same request again goes on from there, since what was changed is
/// no dead letter any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadBulkReply {
    /// Whether it only counted.
    pub dry_run: bool,
    /// Dead letters that matched, skipped ones included.
    pub matched: u64,
    /// Whether there may be more than were counted or worked on.
    pub more: bool,
    /// Those that were changed.
    pub changed: u64,
    /// Those that a revive leaves out: conflicts and duplicates that the filter does not ask for by its `kind`, and
    /// duplicates without `force`.
    pub skipped: u64,
    /// Those that could not be changed, since they had changed in between or the store refused.
    pub failed: u64,
    /// The first 100 of those, by id.
    pub failures: Vec<BulkFailure>,
    /// Where to go on; `null` when all is done.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_condition_is_an_error_and_not_a_wider_filter() {
        let wrong = crate::decode::<DeadBulkRequest>(br#"{"filter":{"sauce":"xendit"},"reason":"x"}"#);
        assert_eq!(wrong.unwrap_err().field, "filter.sauce");
        let read: DeadBulkRequest = serde_json::from_str(r#"{"filter":{"source":"xendit"}}"#).unwrap();
        assert_eq!(read.filter.unwrap().source.as_deref(), Some("xendit"));
    }
}
