//! Which dead letters are meant: from the wire into core's words, as far as a store has an order for them, and the rest.

use semel_api::dead::DeadFilter;
use semel_api::records::BulkFilter;
use semel_api::{ApiError, Detail};
use semel_core::id::{Tag, TagName, TagValue};
use semel_core::query::{Cursor, Page, Query, Summary};
use semel_core::record::StateName;
use semel_core::{Store, StoreError};

use super::error_of;
use crate::admin::filter::{self, Parameters};
use crate::admin::picked;

/// The tag of an event's source.
pub(super) const SOURCE: &str = "source";
/// The tag of an event's target.
pub(super) const TARGET: &str = "target";
/// The tag that tells a dead letter which is filed for a look from one whose tries are spent.
const KIND: &str = "kind";

/// The names of the parameters of a listing of dead letters, and of their groups.
pub(super) const PARAMETERS: [&str; 12] = [
    "source",
    "target",
    "kind",
    "error",
    "operation",
    "key",
    "tag",
    "namespace",
    "from",
    "until",
    "cursor",
    "limit",
];

/// What a dead letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Kind {
    /// Work whose tries are spent.
    Event,
    /// Another body under the identity of an event.
    Conflict,
    /// A delivery of an event that was taken before.
    Duplicate,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Event, Self::Conflict, Self::Duplicate];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Conflict => "conflict",
            Self::Duplicate => "duplicate",
        }
    }

    /// What the record with these tags is. (A tag `kind` that says something else is somebody's own.)
    pub(in crate::admin) fn of(tags: &[Tag]) -> Self {
        let named = tag_of(tags, KIND).unwrap_or_default();
        [Self::Conflict, Self::Duplicate]
            .into_iter()
            .find(|kind| kind.as_str() == named)
            .unwrap_or(Self::Event)
    }

    fn parse(name: &str) -> Result<Self, ApiError> {
        let known = Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| Detail::new("kind", "value", format!("must be among {known}")).into())
    }
}

/// The value of the tag of this name.
pub(in crate::admin) fn tag_of<'t>(tags: &'t [Tag], name: &str) -> Option<&'t str> {
    tags.iter().find(|tag| tag.name.as_str() == name).map(|tag| tag.value.as_str())
}

/// Which dead letters are meant.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// What stores have an order for.
    query: Query,
    /// Tags beside the query's.
    tags: Vec<Tag>,
    kind: Option<Kind>,
    /// As [`shape`] has it.
    error: Option<String>,
}

impl Selection {
    /// # Errors
    /// A condition is wrong: which one, by its name.
    pub(super) fn of(filter: &DeadFilter) -> Result<Self, ApiError> {
        let DeadFilter { source, target, kind, error, operation, key, tag, namespace, from, until } = filter;
        let mut query = filter::query(&BulkFilter {
            states: Vec::new(),
            state: Vec::new(),
            operation: operation.clone(),
            key: key.clone(),
            tag: None,
            namespace: namespace.clone(),
            from: *from,
            until: *until,
        })?;
        query.states = vec![StateName::Dead];
        let kind = kind.as_deref().map(Kind::parse).transpose()?;
        let filed = kind.filter(|kind| *kind != Kind::Event).map(Kind::as_str);
        let named = [(KIND, filed), (SOURCE, source.as_deref()), (TARGET, target.as_deref())];
        let mut tags: Vec<Tag> = tag.as_deref().map(filter::tag).transpose()?.into_iter().collect();
        for (name, value) in named {
            tags.extend(value.map(|value| named_tag(name, value)).transpose()?);
        }
        // Stores have an order by one tag. The others are looked for among what it finds, so that which has the fewest
        // stands first: one's own, what is filed, the source, the target.
        query.tag = (!tags.is_empty()).then(|| tags.remove(0));
        Ok(Self { query, tags, kind, error: error.as_deref().map(shape) })
    }

    /// # Errors
    /// A parameter is wrong: which one, by its name.
    pub(super) fn of_parameters(parameters: &mut Parameters) -> Result<Self, ApiError> {
        Self::of(&DeadFilter {
            source: parameters.text(SOURCE),
            target: parameters.text(TARGET),
            kind: parameters.text(KIND),
            error: parameters.text("error"),
            operation: parameters.text("operation"),
            key: parameters.text("key"),
            tag: parameters.text("tag"),
            namespace: parameters.text("namespace"),
            from: parameters.time("from")?,
            until: parameters.time("until")?,
        })
    }

    /// Which kind is asked for by its name.
    pub(super) const fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// What stores have an order for.
    pub(super) const fn query(&self) -> &Query {
        &self.query
    }

    /// Whether a dead letter that the query finds is meant.
    pub(super) fn is_meant(&self, summary: &Summary) -> bool {
        self.tags.iter().all(|tag| summary.tags.contains(tag))
            && self.kind.is_none_or(|kind| kind == Kind::of(&summary.tags))
            && self.error.as_ref().is_none_or(|error| shape(error_of(summary)) == *error)
    }

    /// A page of at most `limit` of them, from after `cursor`. Where a store has no order for all of it, it may have fewer,
    /// and still a next one.
    ///
    /// # Errors
    /// As those of a search.
    pub(super) async fn page(
        &self,
        store: &dyn Store,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Summary, Cursor>, StoreError> {
        let is_plain = self.tags.is_empty() && self.error.is_none() && self.kind != Some(Kind::Event);
        if is_plain {
            return store.search(self.query.clone(), cursor, limit).await;
        }
        picked::page(store, &self.query, cursor, limit, |summary| self.is_meant(summary)).await
    }
}

fn named_tag(name: &str, value: &str) -> Result<Tag, ApiError> {
    let invalid = |error: semel_core::Invalid| Detail::new(name, "value", error.to_string());
    let (name, value) =
        (TagName::try_new(name).map_err(invalid)?, TagValue::try_new(value).map_err(invalid)?);
    Ok(Tag { name, value })
}

/// Digits of a word from which on it is taken for a number or id of its own: statuses, ports and counts have fewer.
const VARIABLE_DIGITS: usize = 5;

/// An error without what differs from one to the next: a word with many digits (an id, an amount, a time) is `#`.
pub(super) fn shape(error: &str) -> String {
    let mut shape = String::with_capacity(error.len());
    let mut rest = error;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word);
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        shape.push_str(if digits >= VARIABLE_DIGITS { "#" } else { word });
        let gap = after.find(is_of_word).unwrap_or(after.len());
        let (gap, after) = after.split_at(gap);
        shape.push_str(gap);
        rest = after;
    }
    shape
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_in_nothing_but_an_id_have_one_shape() {
        let check = |error: &str, expected: &str| assert_eq!(shape(error), expected);
        check("the target answered 503", "the target answered 503");
        check("no order 1029384756 here", "no order # here");
        check("unknown id 8e03978e-40d5-43dd-bc93-6894a57f9324.", "unknown id #.");
        check("cannot connect to 127.0.0.1:9000", "cannot connect to 127.0.0.1:9000");
        check("ev_000123: é!", "#: é!");
        check("", "");
        check("  ", "  ");
        for error in ["no order 1029384756 here", "a-12345", "#"] {
            assert_eq!(shape(&shape(error)), shape(error), "what a group is called finds it");
        }
    }

    #[test]
    fn the_condition_with_the_fewest_records_is_what_the_store_looks_for() {
        let of = |filter: DeadFilter| Selection::of(&filter).unwrap();
        let (source, target) = (Some("xendit".to_owned()), Some("books".to_owned()));
        let kind = Some("conflict".to_owned());
        let conflicts = of(DeadFilter { source, target, kind, ..DeadFilter::default() });
        let tag = conflicts.query.tag.unwrap();
        assert_eq!((tag.name.as_str(), tag.value.as_str()), ("kind", "conflict"));
        assert_eq!(conflicts.tags.len(), 2);
        assert_eq!(conflicts.query.states, [StateName::Dead]);
        let wrong = Selection::of(&DeadFilter { kind: Some("x".to_owned()), ..DeadFilter::default() });
        assert_eq!(wrong.unwrap_err().details()[0].message, "must be among event, conflict, duplicate");
    }
}
