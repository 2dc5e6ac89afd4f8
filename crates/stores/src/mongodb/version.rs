//! A record's version as a document: the record in the bytes of the [codec](crate::codec), and beside them what it is found
//! by, under names that people who look into the collection understand.

use std::sync::Arc;

use bytes::Bytes;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use semel_core::audit::Entry;
use semel_core::id::{Fence, Namespace, Operation, RecordId, Tag};
use semel_core::query::Count;
use semel_core::record::StateName;
use semel_core::{Record, StoreError, Timestamp};

use crate::codec::{decode_audit, decode_record, encode_record};
use crate::limits;
use crate::remote::draft::{AuditDraft, hash, lane_name, millis, time};

/// The state of a tombstone, and of one that is about to be forgotten.
pub(super) const REMOVED: &str = "removed";
pub(super) const CLOSED: &str = "closed";

/// What a superseded version no longer needs: all but its place.
const OF_THE_NEWEST: [&str; 20] = [
    "recordId",
    "record",
    "sum",
    "state",
    "kind",
    "was",
    "new",
    "audit",
    "key",
    "tags",
    "lane",
    "operation",
    "namespace",
    "tenant",
    "serviceId",
    "createdAt",
    "updatedAt",
    "wakeAt",
    "settledAt",
    "expiresAt",
];

pub(super) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(millis(time))
}

pub(super) fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}

/// A tag as people write it. Two that look alike are told apart by their records.
pub(super) fn tag_text(tag: &Tag) -> String {
    format!("{}={}", tag.name.as_str(), tag.value.as_str())
}

/// What is counted together.
pub(super) fn kind(namespace: Namespace, state: StateName, operation: &Operation) -> String {
    format!("{}/{}/{}", namespace.as_str(), state.as_str(), operation.as_str())
}

/// So many of a kind.
pub(super) fn count(kind: &str, records: u64) -> Result<Count, StoreError> {
    let wrong = || StoreError::corrupt("counts", "a kind of record that there is not");
    let mut parts = kind.splitn(3, '/');
    let namespace = parts.next().and_then(Namespace::parse).ok_or_else(wrong)?;
    let state = parts.next().and_then(StateName::parse).ok_or_else(wrong)?;
    let operation = Operation::try_new(parts.next().ok_or_else(wrong)?);
    let operation = operation.map_err(|error| wrong().with_source(error))?;
    Ok(Count { namespace, operation, state, records })
}

pub(super) fn kind_of(record: &Record) -> String {
    let request = record.request();
    kind(request.scope().namespace, record.state().name(), request.operation())
}

/// The fields of a version, but for its place.
pub(super) fn fields(record: &Record) -> Result<Document, StoreError> {
    let mut bytes = Vec::new();
    encode_record(record, &mut bytes);
    if bytes.len() > limits::MONGODB_RECORD_BYTES_MAX {
        return Err(StoreError::too_large("encode", "MongoDB holds no document of more than 16 MiB"));
    }
    let (request, times) = (record.request(), record.times());
    let scope = request.scope();
    let mut fields = doc! {
        "recordId": record.id().to_string(),
        "fence": fence(record.fence()),
        "state": record.state().name().as_str(),
        "kind": kind_of(record),
        "key": request.key().as_str(),
        "operation": request.operation().as_str(),
        "namespace": scope.namespace.as_str(),
        "tenant": scope.tenant.as_str(),
        "createdAt": date(times.created),
        "updatedAt": date(times.written),
        "sum": hash(&[&bytes]),
        "record": binary(bytes),
    };
    if let Some(subject) = &scope.subject {
        fields.insert("serviceId", subject.as_str());
    }
    if !request.tags().is_empty() {
        fields.insert("tags", request.tags().iter().map(tag_text).collect::<Vec<_>>());
    }
    if let Some(due) = record.due() {
        fields.insert("lane", lane_name(record.due_lane()));
        fields.insert("wakeAt", date(due));
    }
    for (name, time) in [("settledAt", times.settled), ("expiresAt", times.expires)] {
        if let Some(time) = time {
            fields.insert(name, date(time));
        }
    }
    Ok(fields)
}

/// What something is looked up by. As text, since FerretDB hands numbers of more than 53 bits to PostgreSQL as another
/// question.
pub(super) fn term(hash: i64) -> String {
    format!("{hash:016x}")
}

/// An audit entry, with its place in the log.
pub(super) fn audit_fields(entry: &Entry, number: i64) -> Document {
    let draft = AuditDraft::of(entry);
    doc! {
        "number": number,
        "terms": draft.terms.into_iter().map(term).collect::<Vec<_>>(),
        "operation": draft.operation.map(term),
        "actor": term(draft.actor),
        "action": draft.action,
        "entry": binary(draft.entry),
    }
}

/// The id in the log of the entry beside this version.
pub(super) fn log_id(record: &str, number: i64) -> String {
    format!("{record}:{number:x}")
}

pub(super) fn read_audit(fields: &Document) -> Result<(i64, Entry), StoreError> {
    let number = fields.get_i64("number").map_err(unreadable)?;
    let bytes = fields.get_binary_generic("entry").map_err(unreadable)?;
    let (_, entry) = decode_audit(Bytes::copy_from_slice(bytes)).map_err(unreadable)?;
    Ok((number, entry))
}

pub(super) fn fence(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}

/// What a superseded version becomes. It keeps its place; `purge` is when the server may forget that, too.
pub(super) fn superseded(over: DateTime, purge: Option<DateTime>) -> Document {
    let gone: Document = OF_THE_NEWEST.iter().map(|name| ((*name).to_owned(), Bson::from(""))).collect();
    let mut set = doc! { "over": over };
    if let Some(purge) = purge {
        set.insert("purgeAt", purge);
    }
    doc! { "$set": set, "$unset": gone }
}

/// A document that is not what it should be (L13).
pub(super) fn unreadable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::corrupt("read a document", "a document is not what it should be").with_source(source)
}

/// A version, as far as its place says.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the document, there or not")]
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) id: String,
    pub(super) record: String,
    pub(super) number: i64,
    pub(super) fence: Fence,
    /// Came too late.
    pub(super) void: bool,
    pub(super) came: Timestamp,
    pub(super) birth: bool,
    /// Nobody has counted it yet.
    pub(super) new: bool,
    pub(super) superseded: bool,
    pub(super) state: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) was: Option<String>,
}

impl Placed {
    pub(super) fn read(document: &Document) -> Result<Self, StoreError> {
        let text = |name| document.get_str(name).ok().map(str::to_owned);
        let (came, until) = (
            document.get_datetime("at").map_err(unreadable)?,
            document.get_datetime("by").map_err(unreadable)?,
        );
        Ok(Self {
            id: document.get_str("_id").map_err(unreadable)?.to_owned(),
            record: document.get_str("r").map_err(unreadable)?.to_owned(),
            number: document.get_i64("n").map_err(unreadable)?,
            fence: Fence(u64::try_from(document.get_i64("fence").map_err(unreadable)?).unwrap_or(0)),
            void: came > until,
            came: time(came.timestamp_millis()),
            birth: document.contains_key("birth"),
            new: document.contains_key("new"),
            superseded: document.contains_key("over"),
            state: text("state"),
            kind: text("kind"),
            was: text("was"),
        })
    }

    /// Whether nothing is there since this version.
    pub(super) fn is_removal(&self) -> bool {
        // One that was superseded is the newest only if somebody has removed what came after it, past this store.
        self.superseded || self.state.as_deref().is_some_and(|state| state == REMOVED || state == CLOSED)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.as_deref() == Some(CLOSED)
    }
}

/// The record of a version.
pub(super) fn read_record(document: &Document) -> Result<Arc<Record>, StoreError> {
    let bytes = document.get_binary_generic("record").map_err(unreadable)?;
    if document.get_i64("sum").map_err(unreadable)? != hash(&[bytes]) {
        return Err(unreadable("a checksum that does not fit"));
    }
    let (record, rest) = decode_record(Bytes::copy_from_slice(bytes)).map_err(unreadable)?;
    let id = document.get_str("r").ok().and_then(RecordId::parse);
    if !rest.is_empty() || id != Some(record.id()) {
        return Err(unreadable("the bytes are another record's"));
    }
    Ok(Arc::new(record))
}
