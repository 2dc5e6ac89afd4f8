//! What a caller asks for: everything about a record that its first command fixes. Two things may still come to it:
//! an input, where the work is accepted later, and the lease of the run that a job's guard is claimed for.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::{Invalid, Problem};
use crate::id::{Key, Lane, Operation, RecordId, Scope, Tag};
use crate::limits;
use crate::outcome::{Headers, check_body};
use crate::policy::Policy;

/// 256 bits over what a request means, with the version of the algorithm that made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Which algorithm; digests of different ones cannot be compared.
    pub version: u8,
    /// The digest.
    pub digest: [u8; 32],
}

/// What somebody other than the client needs to drive an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    method: Box<str>,
    path: Box<str>,
    headers: Headers,
    body: Bytes,
}

impl Input {
    /// An input within the limits.
    ///
    /// # Errors
    /// The body has more than [`limits::BODY_BYTES_MAX`] bytes, or method or path more than
    /// [`limits::HEADER_BYTES_MAX`].
    pub fn try_new(method: &str, path: &str, headers: Headers, body: Bytes) -> Result<Self, Invalid> {
        for (what, text) in [("method", method), ("path", path)] {
            if text.len() > limits::HEADER_BYTES_MAX {
                return Err(Invalid::new(what, Problem::TooLarge { max: limits::HEADER_BYTES_MAX }));
            }
        }
        check_body("payload", &body)?;
        Ok(Self { method: method.into(), path: path.into(), headers, body })
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The headers that are kept.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Everything about a record that its first command fixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    id: RecordId,
    scope: Scope,
    key: Key,
    operation: Operation,
    fingerprint: Fingerprint,
    policy: Policy,
    lane: Option<Lane>,
    tags: Box<[Tag]>,
    input: Option<Input>,
    origin: Option<RecordId>,
}

impl Request {
    /// A request without tags, lane or input.
    pub fn new(
        scope: Scope,
        key: Key,
        operation: Operation,
        fingerprint: Fingerprint,
        policy: Policy,
    ) -> Self {
        Self {
            id: RecordId::of(&scope, &key),
            scope,
            key,
            operation,
            fingerprint,
            policy,
            lane: None,
            tags: Box::default(),
            input: None,
            origin: None,
        }
    }

    /// In the queue of this target.
    #[must_use]
    pub fn in_lane(mut self, lane: Lane) -> Self {
        self.lane = Some(lane);
        self
    }

    /// With names to find it by.
    ///
    /// # Errors
    /// There are more than [`limits::TAGS_MAX`], or a name occurs twice.
    pub fn try_with_tags(mut self, mut tags: Vec<Tag>) -> Result<Self, Invalid> {
        if tags.len() > limits::TAGS_MAX {
            return Err(Invalid::new("tags", Problem::TooMany { max: limits::TAGS_MAX }));
        }
        if tags.iter().map(|tag| &tag.name).collect::<BTreeSet<_>>().len() < tags.len() {
            return Err(Invalid::new("tag name", Problem::Repeated));
        }
        tags.sort();
        self.tags = tags.into();
        Ok(self)
    }

    /// With what is needed to drive it without the client.
    #[must_use]
    pub fn with_input(mut self, input: Input) -> Self {
        self.input = Some(input);
        self
    }

    /// As a new generation of a record whose completed work is to be repeated.
    #[must_use]
    pub fn repeating(mut self, origin: RecordId) -> Self {
        self.origin = Some(origin);
        self
    }

    /// This request as it is kept once nobody needs to drive it any more.
    pub(crate) fn without_input(&self) -> Self {
        Self { input: None, ..self.clone() }
    }

    /// This request with the input and lane of `other`, which asks for the same, where it has none itself.
    pub(crate) fn driven_as(&self, other: &Self) -> Self {
        let mut request = self.clone();
        if request.input.is_none() {
            request.input.clone_from(&other.input);
            request.lane.clone_from(&other.lane);
        }
        request
    }

    /// This request with the lease of `other`; `None` where that is its own.
    pub(crate) fn leased_as(&self, other: &Self) -> Option<Self> {
        let (own, lease) = (self.policy, other.policy.lease());
        (own.lease() != lease).then(|| Self { policy: own.leased(lease), ..self.clone() })
    }

    /// The record's id.
    pub const fn id(&self) -> RecordId {
        self.id
    }

    /// Where the key is unique.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The caller's key.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The operation.
    pub const fn operation(&self) -> &Operation {
        &self.operation
    }

    /// What the request means.
    pub const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// What holds for the record.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The queue it waits in when it is due.
    pub const fn lane(&self) -> Option<&Lane> {
        self.lane.as_ref()
    }

    /// Names to find it by, in order.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// What drives it without the client; `None` where only the client can.
    pub const fn input(&self) -> Option<&Input> {
        self.input.as_ref()
    }

    /// The record whose completed work it repeats.
    pub const fn origin(&self) -> Option<RecordId> {
        self.origin
    }

    /// Whether `other` asks for the same thing. (Operation and fingerprint: the operation is part of every digest
    /// that Semel makes, but a client may bring a digest of its own.)
    pub fn asks_for_the_same_as(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.operation == other.operation
    }
}
