//! Which records and audit entries are asked for: from the wire into core's words, each wrong field by its name.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use semel_api::limits::{PAGE_DEFAULT, PAGE_MAX};
use semel_api::records::BulkFilter;
use semel_api::{ApiError, Detail, Time};
use semel_core::audit::Action;
use semel_core::id::{Key, Namespace, Operation, Tag, TagName, TagValue};
use semel_core::query::{AuditQuery, Query};
use semel_core::record::StateName;
use semel_core::{RecordId, Timestamp};

/// The parameters of a query string, each given at most once and known by name.
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(crate) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut read = BTreeMap::new();
        // What is no text would be read as one that nobody has sent, and match nothing.
        if percent_decode_str(query.unwrap_or("")).decode_utf8().is_err() {
            return Err(Detail::new("query", "encoding", "must be UTF-8, percent-encoded").into());
        }
        for (name, value) in form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let message = format!("is not known here; expected {}", known.join(", "));
                return Err(Detail::new(shown(&name), "unknown", message).into());
            }
            if read.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Detail::new(name, "duplicate", "is given twice").into());
            }
        }
        Ok(Self(read))
    }

    /// An empty value is as good as none: that is what an empty field of a form sends.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    pub(super) fn time(&mut self, name: &str) -> Result<Option<Time>, ApiError> {
        let text = self.text(name);
        text.map(|text| Time::parse(&text).ok_or_else(|| wrong(name, TIME))).transpose()
    }

    /// Whether only claims that nobody drives are asked for.
    pub(super) fn lapsed(&mut self) -> Result<bool, ApiError> {
        match self.text("lapsed").as_deref() {
            None => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(wrong("lapsed", "can only be true")),
        }
    }

    pub(crate) fn page(&mut self) -> Result<usize, ApiError> {
        self.number("limit", PAGE_DEFAULT, PAGE_MAX)
    }

    /// A number from 1 to `max`; `usual` if it is not given.
    pub(super) fn number(&mut self, name: &str, usual: u32, max: u32) -> Result<usize, ApiError> {
        let Some(text) = self.text(name) else { return Ok(usual as usize) };
        match text.parse::<u32>() {
            Ok(number) if (1..=max).contains(&number) => Ok(number as usize),
            Ok(_) | Err(_) => Err(wrong(name, format!("must be a number from 1 to {max}"))),
        }
    }
}

const TIME: &str = "must be a time such as 2026-11-21T04:30:00Z";

/// A name of the sender's, as much of it as is repeated.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn wrong(field: &str, message: impl Into<String>) -> ApiError {
    Detail::new(field, "value", message).into()
}

/// The query of a listing of records. (Cursor and limit stay with the parameters.)
pub(super) fn records(parameters: &mut Parameters) -> Result<Query, ApiError> {
    query(&BulkFilter {
        state: semel_api::separated(&parameters.text("state").unwrap_or_default()),
        states: semel_api::separated(&parameters.text("states").unwrap_or_default()),
        operation: parameters.text("operation"),
        key: parameters.text("key"),
        tag: parameters.text("tag"),
        namespace: parameters.text("namespace"),
        from: parameters.time("from")?,
        until: parameters.time("until")?,
    })
}

/// The names of the parameters of a listing of records.
pub(super) const RECORDS: [&str; 11] =
    ["state", "states", "lapsed", "operation", "key", "tag", "namespace", "from", "until", "cursor", "limit"];

/// The names of the parameters of a listing of the audit log.
pub(super) const AUDIT: [&str; 11] = [
    "record",
    "action",
    "operation",
    "key",
    "tag",
    "actor",
    "correlation_id",
    "from",
    "until",
    "cursor",
    "limit",
];

/// A filter in core's words.
pub(super) fn query(filter: &BulkFilter) -> Result<Query, ApiError> {
    // Either name will do; both at once could only be a mistake.
    let (field, states) = match (&*filter.state, &*filter.states) {
        (state, []) => ("state", state),
        ([], states) => ("states", states),
        _ => return Err(Detail::new("states", "duplicate", "is given twice: as state, and as states").into()),
    };
    let state = |name: &String| {
        let known = StateName::ALL.map(StateName::as_str).join(", ");
        StateName::parse(name).ok_or_else(|| wrong(field, format!("must be among {known}")))
    };
    let namespace = |name: &str| {
        let known = Namespace::ALL.map(Namespace::as_str).join(", ");
        Namespace::parse(name).ok_or_else(|| wrong("namespace", format!("must be among {known}")))
    };
    let invalid = |error: semel_core::Invalid| wrong(error.what(), error.to_string());
    Ok(Query {
        namespace: filter.namespace.as_deref().map(namespace).transpose()?,
        states: states.iter().map(state).collect::<Result<_, _>>()?,
        operation: filter.operation.as_deref().map(Operation::try_new).transpose().map_err(invalid)?,
        key: filter.key.as_deref().map(Key::try_new).transpose().map_err(invalid)?,
        tag: filter.tag.as_deref().map(tag).transpose()?,
        from: filter.from.map(timestamp),
        until: filter.until.map(timestamp),
    })
}

/// Whether a filter says anything: without it, a bulk form would take every record that there is.
pub(super) fn says_nothing(filter: &BulkFilter) -> bool {
    *filter == BulkFilter::default()
}

pub(super) fn tag(text: &str) -> Result<Tag, ApiError> {
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("tag", "must be name=value"))?;
    let invalid = |error: semel_core::Invalid| wrong("tag", error.to_string());
    Ok(Tag {
        name: TagName::try_new(name).map_err(invalid)?,
        value: TagValue::try_new(value).map_err(invalid)?,
    })
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_millis(time.as_millis())
}

/// The query of a listing of the audit log.
pub(super) fn audit(parameters: &mut Parameters) -> Result<AuditQuery, ApiError> {
    let record =
        |text: String| RecordId::parse(&text).ok_or_else(|| wrong("record", "must be 32 hexadecimal digits"));
    let action = |text: String| {
        let known = Action::ALL.map(Action::as_str).join(", ");
        Action::parse(&text).ok_or_else(|| wrong("action", format!("must be among {known}")))
    };
    let invalid = |error: semel_core::Invalid| wrong(error.what(), error.to_string());
    Ok(AuditQuery {
        record: parameters.text("record").map(record).transpose()?,
        action: parameters.text("action").map(action).transpose()?,
        operation: parameters
            .text("operation")
            .as_deref()
            .map(Operation::try_new)
            .transpose()
            .map_err(invalid)?,
        key: parameters.text("key").as_deref().map(Key::try_new).transpose().map_err(invalid)?,
        tag: parameters.text("tag").as_deref().map(tag).transpose()?,
        actor: parameters.text("actor"),
        correlation_id: parameters.text("correlation_id"),
        from: parameters.time("from")?.map(timestamp),
        until: parameters.time("until")?.map(timestamp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Query, ApiError> {
        records(&mut Parameters::read(Some(query), &RECORDS)?)
    }

    fn wrong_field(query: &str) -> String {
        let error = asked(query).unwrap_err();
        let detail = &error.details()[0];
        format!("{} | {} | {}", detail.field, detail.code, detail.message)
    }

    #[test]
    fn a_listing_can_be_narrowed_by_everything_there_is() {
        let query = asked(
            "state=dead,unknown&operation=payment.charge&key=k%2B1&tag=order_id%3DA%3D1&namespace=execute\
             &from=2026-11-21T04:30:00Z&until=2026-11-22T00:00:00%2B01:00&limit=&cursor=",
        )
        .unwrap();
        assert_eq!(query.states, [StateName::Dead, StateName::Unknown]);
        assert_eq!(query.key.unwrap().as_str(), "k+1");
        let tag = query.tag.unwrap();
        assert_eq!((tag.name.as_str(), tag.value.as_str()), ("order_id", "A=1"), "cut at the first `=`");
        assert_eq!(query.until.unwrap().since(query.from.unwrap()).as_secs(), 66_600);
        assert_eq!(asked("").unwrap(), Query::default());
    }

    #[test]
    fn states_have_two_names_and_only_one_of_them_at_once() {
        let dead = asked("state=dead").unwrap();
        assert_eq!(dead.states, [StateName::Dead]);
        assert_eq!(asked("states=dead").unwrap(), dead);
        let both = "states | duplicate | is given twice: as state, and as states";
        assert_eq!(wrong_field("state=dead&states=dead"), both);
        assert!(wrong_field("states=ded").starts_with("states | value | must be among"));
    }

    #[test]
    fn a_parameter_that_is_wrong_is_named() {
        assert!(wrong_field("sate=dead").starts_with("sate | unknown | is not known here; expected state, "));
        assert_eq!(wrong_field("key=%ff"), "query | encoding | must be UTF-8, percent-encoded");
        assert_eq!(wrong_field("key=a&key=b"), "key | duplicate | is given twice");
        assert_eq!(
            wrong_field("state=ded"),
            "state | value | must be among pending, running, released, completed, unknown, dead"
        );
        assert_eq!(wrong_field("tag=x"), "tag | value | must be name=value");
        assert_eq!(wrong_field("from=yesterday"), format!("from | value | {TIME}"));
        assert_eq!(
            wrong_field(&format!("key={}", "x".repeat(256))),
            "key | value | key must have at most 255 characters"
        );
        let lapsed = |query| Parameters::read(Some(query), &RECORDS).unwrap().lapsed();
        assert!(lapsed("lapsed=true").unwrap() && !lapsed("lapsed=").unwrap());
        assert_eq!(lapsed("lapsed=no").unwrap_err().details()[0].message, "can only be true");
        let page = |query| Parameters::read(Some(query), &RECORDS).unwrap().page();
        assert_eq!(page("limit=1000").unwrap(), 1_000);
        for odd in ["limit=0", "limit=1001", "limit=-1", "limit=1e3"] {
            assert!(page(odd).is_err(), "{odd}");
        }
    }
}
