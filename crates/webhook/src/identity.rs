//! Which event it is: a name found in headers or in the body, the same whenever the partner sends it again.

use std::fmt;
use std::fmt::Write as _;

use semel_core::Key;
use semel_core::error::Invalid;
use sha2::{Digest as _, Sha256};

use crate::delivery::Delivery;
use crate::error::{ConfigError, Problem};
use crate::json::{Document, JsonProblem, Pointer};
use crate::limits;
use crate::reason::{Reason, Rejection};
use crate::template::is_header_name;

/// The name of an event within its source: 1 to 255 printable characters.
///
/// One event has one name and no other event has it. Of several parts, each is framed: `|` stands between them, and one
/// that holds `|`, `#`, `%` or anything that is not printable ASCII has it percent-encoded. A name that begins with `#`
/// was made otherwise: from the content, by a second way of finding it, or by hashing what was too long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(Box<str>);

impl Identity {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a key of the ledger. It is unique within the source's scope, never beyond it.
    ///
    /// # Errors
    /// None that an identity of this crate can meet: it is within the limits of keys.
    pub fn key(&self) -> Result<Key, Invalid> {
        Key::try_new(&self.0)
    }

    /// Whether it was made from the content, because the event brought no name.
    pub fn is_content_hash(&self) -> bool {
        self.0.starts_with(CONTENT)
    }

    pub(crate) fn content(digest: &[u8]) -> Self {
        Self(format!("{CONTENT}{}", hex(digest)).into())
    }
}

const CONTENT: &str = "#content:";
const LONG: &str = "#long:";

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a part of an identity may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Header(Box<str>),
    Pointer(Pointer),
}

impl Locator {
    /// A JSON Pointer where the text begins with `/`, else a header's name.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.starts_with('/') {
            return Pointer::parse(text).map(|pointer| Self(Place::Pointer(pointer)));
        }
        if is_header_name(text) {
            return Ok(Self(Place::Header(text.to_ascii_lowercase().into())));
        }
        Err(ConfigError::new(format!("{text:?}"), Problem::BadName))
    }

    fn find(&self, delivery: &Delivery<'_>, body: &mut Body<'_>) -> Result<Option<String>, Rejection> {
        match &self.0 {
            Place::Header(name) if !delivery.has(name) => Ok(None),
            Place::Header(name) => match delivery.header(name) {
                Ok(value) => Ok(Some(value.to_owned())),
                // Empty is as good as absent: hashed or stored as a name, every later event would be its duplicate.
                Err(rejection) if rejection.reason() == Reason::HeaderMissing => Ok(None),
                Err(_) => Err(Rejection::about(Reason::IdentityMalformed, name)),
            },
            Place::Pointer(pointer) => {
                let malformed =
                    |_: JsonProblem| Rejection::about(Reason::IdentityMalformed, pointer.as_str());
                let found = body.document().and_then(|document| document.at(pointer)).map_err(malformed)?;
                let Some(found) = found else { return Ok(None) };
                let value = found.scalar().map_err(malformed)?;
                Ok((!value.trim().is_empty()).then(|| value.into_owned()))
            }
        }
    }
}

/// A part of an identity: the first of some places where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    places: Vec<Locator>,
    optional: bool,
}

impl Part {
    /// A part without which there is no identity.
    pub const fn required(places: Vec<Locator>) -> Self {
        Self { places, optional: false }
    }

    /// A part that counts where it is there.
    pub const fn optional(places: Vec<Locator>) -> Self {
        Self { places, optional: true }
    }
}

/// How the identity is found: the first of some ways whose required parts are all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRule {
    ways: Vec<Vec<Part>>,
}

impl IdentityRule {
    /// Each way is a list of parts; the first part of each must be required.
    ///
    /// # Errors
    /// There is no way, a way without a required part at its head, a part without a place, or more of either than
    /// [`limits::IDENTITY_PARTS_MAX`].
    pub fn try_new(ways: Vec<Vec<Part>>) -> Result<Self, ConfigError> {
        let wrong = |problem| ConfigError::new("identity", problem);
        let max = limits::IDENTITY_PARTS_MAX;
        let too_many = |len: usize| len > max;
        let places = |parts: &Vec<Part>| parts.iter().any(|part| too_many(part.places.len()));
        if too_many(ways.len()) || ways.iter().any(|parts| too_many(parts.len()) || places(parts)) {
            return Err(wrong(Problem::TooMany { max }));
        }
        let headless = |parts: &Vec<Part>| parts.first().is_none_or(|part| part.optional);
        let placeless = |parts: &Vec<Part>| parts.iter().any(|part| part.places.is_empty());
        if ways.is_empty() || ways.iter().any(|parts| headless(parts) || placeless(parts)) {
            return Err(wrong(Problem::Missing));
        }
        Ok(Self { ways })
    }

    /// The first of these places where something stands, as `generic` has it.
    ///
    /// # Errors
    /// A place is none, or there is none.
    pub fn first_of(places: &[&str]) -> Result<Self, ConfigError> {
        let ways = places.iter().map(|place| Ok(vec![Part::required(vec![Locator::parse(place)?])]));
        Self::try_new(ways.collect::<Result<_, ConfigError>>()?)
    }

    /// All of these places together.
    ///
    /// # Errors
    /// A place is none, or there is none.
    pub fn all_of(places: &[&str]) -> Result<Self, ConfigError> {
        let parts = places.iter().map(|place| Ok(Part::required(vec![Locator::parse(place)?])));
        Self::try_new(vec![parts.collect::<Result<_, ConfigError>>()?])
    }

    /// Names of the headers that an identity may be read from.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        let places = self.ways.iter().flatten().flat_map(|part| &part.places);
        places.filter_map(|place| match &place.0 {
            Place::Header(name) => Some(&**name),
            Place::Pointer(_) => None,
        })
    }

    /// The identity of a verified delivery; `None` where nothing says which event it is.
    ///
    /// # Errors
    /// What should say so cannot be read.
    pub(crate) fn find(&self, delivery: &Delivery<'_>) -> Result<Option<Identity>, Rejection> {
        let mut body = Body::Unread(delivery.body());
        for (at, parts) in self.ways.iter().enumerate() {
            if let Some(found) = find_parts(parts, delivery, &mut body)? {
                return Ok(Some(compose(at, &found)));
            }
        }
        Ok(None)
    }
}

/// The body, read as JSON when the first pointer asks, and once.
enum Body<'a> {
    Unread(&'a [u8]),
    Read(Result<Document<'a>, JsonProblem>),
}

impl<'a> Body<'a> {
    fn document(&mut self) -> Result<Document<'a>, JsonProblem> {
        if let Self::Unread(bytes) = *self {
            *self = Self::Read(Document::parse(bytes));
        }
        match self {
            Self::Read(read) => *read,
            Self::Unread(_) => Err(JsonProblem::Malformed),
        }
    }
}

fn find_parts(
    parts: &[Part],
    delivery: &Delivery<'_>,
    body: &mut Body<'_>,
) -> Result<Option<Vec<String>>, Rejection> {
    let mut found = Vec::with_capacity(parts.len());
    for part in parts {
        let mut value = None;
        for place in &part.places {
            value = place.find(delivery, body)?;
            if value.is_some() {
                break;
            }
        }
        match value {
            Some(value) => found.push(value),
            None if part.optional => found.push(String::new()),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// One text of the parts. An absent one is empty, which no present one is; at the end it is left out. The second way and
/// later ones are marked, so that a header's `a` and a body's `a` are two names.
pub(crate) fn compose(way: usize, parts: &[String]) -> Identity {
    let mut text = if way == 0 { String::new() } else { format!("#{}:", way + 1) };
    let present = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
    for (at, part) in parts[..present].iter().enumerate() {
        if at > 0 {
            text.push('|');
        }
        for byte in part.bytes() {
            if matches!(byte, b'!'..=b'~') && !matches!(byte, b'|' | b'#' | b'%') {
                text.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    if text.len() > limits::IDENTITY_CHARS_MAX {
        text = format!("{LONG}{}", hex(&Sha256::digest(text.as_bytes())));
    }
    Identity(text.into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(
        rule: &IdentityRule,
        headers: &[(&str, &[u8])],
        body: &'static str,
        expected: Result<Option<&str>, &str>,
    ) {
        let body = Bytes::from_static(body.as_bytes());
        let found = rule.find(&Delivery::new(headers, &body));
        let found = found
            .as_ref()
            .map(|identity| identity.as_ref().map(Identity::as_str))
            .map_err(|rejection| rejection.reason().as_str());
        assert_eq!(found, expected);
        if let Ok(Some(name)) = expected {
            assert!(Key::try_new(name).is_ok(), "{name} is a key");
        }
    }

    #[test]
    fn the_first_place_where_something_stands_names_the_event() {
        let rule = IdentityRule::first_of(&["X-Event-Id", "/event/id"]).unwrap();
        check(&rule, &[("x-event-id", b"e-1")], "no json", Ok(Some("e-1")));
        check(&rule, &[], r#"{"event":{"id":7}}"#, Ok(Some("#2:7")));
        check(&rule, &[], r#"{"event":{}}"#, Ok(None));
        check(&rule, &[], "no json", Err("identity_malformed"));
        check(&rule, &[], r#"{"event":{"id":1,"id":2}}"#, Err("identity_malformed"));
        check(&rule, &[], r#"{"event":{"id":[1]}}"#, Err("identity_malformed"));
        check(&rule, &[("x-event-id", b"a"), ("x-event-id", b"b")], "{}", Err("identity_malformed"));
    }

    #[test]
    fn a_missing_identity_header_does_not_hash_as_empty() {
        let rule = IdentityRule::first_of(&["x-event-id"]).unwrap();
        for value in [&b""[..], b" ", b"\t"] {
            check(&rule, &[("x-event-id", value)], "{}", Ok(None));
        }
        let rule = IdentityRule::first_of(&["/id"]).unwrap();
        for body in [r#"{"id":""}"#, r#"{"id":" "}"#, r#"{"id":null}"#, "{}"] {
            check(&rule, &[], body, Ok(None));
        }
    }

    #[test]
    fn unframed_parts_collide_and_these_do_not() {
        let rule = IdentityRule::all_of(&["/a", "/b"]).unwrap();
        check(&rule, &[], r#"{"a":"x","b":"y"}"#, Ok(Some("x|y")));
        check(&rule, &[], r#"{"a":"x|y","b":"z"}"#, Ok(Some("x%7Cy|z")));
        check(&rule, &[], r#"{"a":"x","b":"y|z"}"#, Ok(Some("x|y%7Cz")));
        check(&rule, &[], r##"{"a":"#2:","b":"%"}"##, Ok(Some("%232:|%25")));
        check(&rule, &[], r#"{"a":"x"}"#, Ok(None));
    }

    #[test]
    fn what_is_not_printable_or_too_long_still_makes_a_key() {
        assert_eq!(compose(0, &["é\n ".to_owned()]).as_str(), "%C3%A9%0A%20");
        let fits = "x".repeat(limits::IDENTITY_CHARS_MAX);
        assert_eq!(compose(0, std::slice::from_ref(&fits)).as_str(), fits);
        let (one, two) = (compose(0, &[format!("{fits}1")]), compose(0, &[format!("{fits}2")]));
        assert!(one.as_str().starts_with("#long:") && one != two);
        assert!(one.key().is_ok());
    }

    #[test]
    fn an_absent_part_is_not_an_empty_one_and_costs_nothing_at_the_end() {
        let text =
            |parts: &[&str]| compose(0, &parts.iter().map(|&part| part.to_owned()).collect::<Vec<_>>());
        assert_eq!(text(&["evt", ""]).as_str(), "evt");
        assert_eq!(text(&["evt", "", "x"]).as_str(), "evt||x");
        assert_ne!(text(&["evt", "x", ""]), text(&["evt", "", "x"]));
    }

    #[test]
    fn a_rule_without_something_required_is_refused() {
        let place = || vec![Locator::parse("/id").unwrap()];
        for ways in
            [vec![], vec![vec![]], vec![vec![Part::optional(place())]], vec![vec![Part::required(vec![])]]]
        {
            assert_eq!(IdentityRule::try_new(ways).unwrap_err().to_string(), "identity: is missing");
        }
        assert!(IdentityRule::first_of(&["a b"]).is_err() && IdentityRule::first_of(&[]).is_err());
        assert!(IdentityRule::first_of(&["/x"; limits::IDENTITY_PARTS_MAX + 1]).is_err());
    }
}
