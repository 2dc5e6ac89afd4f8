//! What an operation gave, and what is sent to a target to get it: status, headers, body.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Invalid, Problem};
use crate::limits;

/// A header that is kept: name in lower case, value as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name, in lower case.
    pub name: Box<str>,
    /// The value, which need not be text.
    pub value: Bytes,
}

/// Headers within their limits, in the order they came; a name may occur more than once (a multi-value header is
/// never joined).
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct Headers(Arc<[Header]>);

impl Headers {
    /// Takes the headers if they are within the limits.
    ///
    /// # Errors
    /// There are more than [`limits::HEADERS_MAX`], or one has more than [`limits::HEADER_BYTES_MAX`] bytes.
    pub fn try_new(headers: Vec<Header>) -> Result<Self, Invalid> {
        if headers.len() > limits::HEADERS_MAX {
            return Err(Invalid::new("headers", Problem::TooMany { max: limits::HEADERS_MAX }));
        }
        if headers.iter().any(|header| header.name.len() + header.value.len() > limits::HEADER_BYTES_MAX) {
            return Err(Invalid::new("header", Problem::TooLarge { max: limits::HEADER_BYTES_MAX }));
        }
        Ok(Self(headers.into()))
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// The first value of that name (given in lower case).
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|header| &*header.name == name).map(|header| &header.value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What kind of end an operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It was done.
    Success,
    /// It was refused for good, and would be refused again.
    Rejection,
    /// An operator put it aside.
    Discarded,
}

impl Class {
    /// The name in APIs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Rejection => "rejection",
            Self::Discarded => "discarded",
        }
    }
}

/// The body of an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// These bytes.
    Kept(Bytes),
    /// It was done, and the result is not kept: too large, streamed, or dropped with time. Never run again.
    Gone,
}

/// What an operation gave; replayed byte for byte (L10).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// What kind of end it is.
    pub class: Class,
    /// The status, as in HTTP.
    pub status: u16,
    /// The headers that are kept, `content-type` among them.
    pub headers: Headers,
    /// The body.
    pub body: Body,
}

impl Outcome {
    /// An outcome with a body.
    ///
    /// # Errors
    /// The status is none of HTTP's, or the body has more than [`limits::BODY_BYTES_MAX`] bytes.
    pub fn try_new(class: Class, status: u16, headers: Headers, body: Bytes) -> Result<Self, Invalid> {
        check_body("body", &body)?;
        Self::checked(Self { class, status, headers, body: Body::Kept(body) })
    }

    /// An outcome that was done, and whose body is not kept.
    ///
    /// # Errors
    /// The status is none of HTTP's.
    pub fn try_without_body(class: Class, status: u16, headers: Headers) -> Result<Self, Invalid> {
        Self::checked(Self { class, status, headers, body: Body::Gone })
    }

    fn checked(outcome: Self) -> Result<Self, Invalid> {
        if (100..=999).contains(&outcome.status) {
            Ok(outcome)
        } else {
            Err(Invalid::new("status", Problem::OutOfRange { expected: "from 100 to 999" }))
        }
    }

    /// Whether this is `other`, or what is left of it once its body is dropped.
    pub(crate) fn same_but_for_a_dropped_body(&self, other: &Self) -> bool {
        self == other
            || (matches!(self.body, Body::Gone)
                && self.class == other.class
                && self.status == other.status
                && self.headers == other.headers)
    }
}

pub(crate) fn check_body(what: &'static str, body: &Bytes) -> Result<(), Invalid> {
    if body.len() > limits::BODY_BYTES_MAX {
        return Err(Invalid::new(what, Problem::TooLarge { max: limits::BODY_BYTES_MAX }));
    }
    Ok(())
}
