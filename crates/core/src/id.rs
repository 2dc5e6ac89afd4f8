//! The names of things: keys, scopes, record ids, tokens, fences, versions, tags.

use std::fmt;
use std::sync::Arc;

use crate::error::{Invalid, Problem};
use crate::limits;

/// A text with a limit that cannot be empty and holds no control characters.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text if it is within the limits.
            ///
            /// # Errors
            /// It is empty, too long, or holds a control character.
            pub fn try_new(text: &str) -> Result<Self, Invalid> {
                check_text($what, text, $max)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn check_text(what: &'static str, text: &str, max: usize) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(what, Problem::Empty));
    }
    // Bytes bound characters from above, so most texts need no counting.
    if text.len() > max && text.chars().count() > max {
        return Err(Invalid::new(what, Problem::TooLong { max }));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(what, Problem::ControlCharacter));
    }
    Ok(())
}

text! {
    /// The caller's idempotency key: opaque, 1 to 255 characters. Which characters a door takes is the door's rule.
    Key, "key", limits::KEY_CHARS_MAX
}
text! {
    /// The name of an action, such as `payment.charge` or `POST /api/v1/orders`.
    Operation, "operation", limits::OPERATION_CHARS_MAX
}
text! {
    /// A tenant's name.
    Tenant, "tenant", limits::SCOPE_PART_CHARS_MAX
}
text! {
    /// Who or what a key belongs to within its tenant: a verified caller, a source with its target, a topic with its
    /// consumer group. Never a credential that rotates, or its refresh makes duplicates.
    Subject, "subject", limits::SCOPE_PART_CHARS_MAX
}
text! {
    /// A queue of its own for due records, one for each target, so that one dead target starves no other.
    Lane, "lane", limits::LANE_CHARS_MAX
}
text! {
    /// A client's name for one attempt, so that a claim whose answer was lost can be asked for again.
    AttemptId, "attempt_id", limits::ATTEMPT_ID_CHARS_MAX
}
text! {
    /// The name of one step of an operation.
    Phase, "phase", limits::PHASE_CHARS_MAX
}
text! {
    /// A tag's name.
    TagName, "tag name", limits::TAG_NAME_CHARS_MAX
}
text! {
    /// A tag's value.
    TagValue, "tag value", limits::TAG_VALUE_CHARS_MAX
}

/// Which family of doors a key came through; equal keys in different namespaces are different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// Execute and Claims APIs.
    Execute,
    /// Middleware and gateway.
    Http,
    /// Inbound webhooks.
    Webhook,
    /// Messages of a topic.
    Topic,
    /// Job guards and runs.
    Job,
}

impl Namespace {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Execute, Self::Http, Self::Webhook, Self::Topic, Self::Job];

    /// The name in stored bytes, metrics and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Http => "http",
            Self::Webhook => "webhook",
            Self::Topic => "topic",
            Self::Job => "job",
        }
    }

    /// The namespace of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.as_str() == name)
    }
}

/// Where a key is unique. One scope can never be given another scope's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The family of doors.
    pub namespace: Namespace,
    /// The tenant.
    pub tenant: Tenant,
    /// The verified caller, source or consumer group, where the door has one.
    pub subject: Option<Subject>,
}

/// 128 bits that stand for a scope and a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; 16]);

impl RecordId {
    /// The id of `key` in `scope`. The parts are framed by their lengths, so that `ab`+`c` is not `a`+`bc`, and an
    /// absent subject is not an empty one. The operation is no part of it: the same key for another operation is a
    /// mismatch, not a second record.
    pub fn of(scope: &Scope, key: &Key) -> Self {
        let subject = scope.subject.as_ref().map(Subject::as_str);
        Self::of_parts(scope.namespace, scope.tenant.as_str(), subject, key.as_str())
    }

    /// As [`of`](Self::of), for those who have the parts as texts only, whether within their limits or not.
    pub fn of_parts(namespace: Namespace, tenant: &str, subject: Option<&str>, key: &str) -> Self {
        let mut digest = blake3::Hasher::new();
        digest.update(b"semel record 1");
        frame(&mut digest, namespace.as_str().as_bytes());
        frame(&mut digest, tenant.as_bytes());
        match subject {
            None => digest.update(&[0]),
            Some(subject) => {
                digest.update(&[1]);
                frame(&mut digest, subject.as_bytes())
            }
        };
        frame(&mut digest, key.as_bytes());
        Self(first_16(&digest))
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As 32 hexadecimal digits.
    pub fn hex(&self) -> Hex {
        Hex::of(&self.0)
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    /// The key that targets are handed, so that two tenants' `order-1` are two keys there: 32 hexadecimal digits,
    /// the same over all attempts, different for every phase.
    pub fn downstream_key(&self, phase: Option<&Phase>) -> String {
        let mut digest = blake3::Hasher::new();
        digest.update(b"semel downstream 1");
        digest.update(&self.0);
        if let Some(phase) = phase {
            frame(&mut digest, phase.as_str().as_bytes());
        }
        hex(&first_16(&digest))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

/// An id in words, without memory of its own: ids stand in every line of the log and in every audit entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex([u8; 32]);

impl Hex {
    fn of(bytes: &[u8; 16]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        Self(text)
    }

    /// 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        // Digits are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The secret that proves a claim: 128 random bits, drawn by the caller of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token([u8; 16]);

impl Token {
    /// The token with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    /// As 32 hexadecimal digits, for the holder only: `Debug` shows none of it.
    pub fn reveal(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Rises with every claim of a record id, also across release, takeover, expiry, sweep and reuse (L2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence(pub u64);

impl Fence {
    /// The fence that follows both `self` and the store's `floor`.
    #[must_use]
    pub fn above(self, floor: Fence) -> Fence {
        Fence(self.0.max(floor.0).saturating_add(1))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which version of a record: never used twice for an id, so that a delayed compare-and-swap cannot hit a later life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// The fence of the claim this version belongs to.
    pub fence: Fence,
    /// Counts the versions within that fence.
    pub sequence: u32,
}

impl Version {
    /// The next version under the same fence.
    #[must_use]
    pub fn next(self) -> Self {
        Self { fence: self.fence, sequence: self.sequence.saturating_add(1) }
    }

    /// Reads `fence.sequence`, as [`Display`](fmt::Display) writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let (fence, sequence) = text.split_once('.')?;
        Some(Self { fence: Fence(fence.parse().ok()?), sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.fence, self.sequence)
    }
}

/// A name and a value to find records by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Such as `order_id`.
    pub name: TagName,
    /// Such as `A-1001`.
    pub value: TagValue,
}

/// Who holds a claim: the proof that every command of a holder carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The record.
    pub id: RecordId,
    /// The token of the claim.
    pub token: Token,
}

pub(crate) fn frame<'a>(digest: &'a mut blake3::Hasher, part: &[u8]) -> &'a mut blake3::Hasher {
    digest.update(&(part.len() as u64).to_le_bytes()).update(part)
}

pub(crate) fn first_16(digest: &blake3::Hasher) -> [u8; 16] {
    let mut bytes = [0; 16];
    digest.finalize_xof().fill(&mut bytes);
    bytes
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(tenant: &str, subject: Option<&str>) -> Scope {
        Scope {
            namespace: Namespace::Execute,
            tenant: Tenant::try_new(tenant).unwrap(),
            subject: subject.map(|subject| Subject::try_new(subject).unwrap()),
        }
    }

    #[test]
    fn unframed_parts_do_not_collide() {
        let id = |tenant, subject, key| RecordId::of(&scope(tenant, subject), &Key::try_new(key).unwrap());
        assert_ne!(id("ab", None, "c"), id("a", None, "bc"));
        assert_ne!(id("a", Some("b"), "c"), id("a", None, "bc"));
        assert_ne!(id("a", Some("bc"), "d"), id("a", Some("b"), "cd"));
        assert_eq!(id("a", Some("b"), "c"), id("a", Some("b"), "c"));
    }

    #[test]
    fn two_tenants_orders_are_two_keys_downstream_and_each_phase_has_its_own() {
        let key = Key::try_new("order-1").unwrap();
        let one = RecordId::of(&scope("one", None), &key);
        let two = RecordId::of(&scope("two", None), &key);
        let phase = Phase::try_new("charge").unwrap();
        assert_ne!(one.downstream_key(None), two.downstream_key(None));
        assert_ne!(one.downstream_key(None), one.downstream_key(Some(&phase)));
        assert_eq!(one.downstream_key(None).len(), 32);
    }

    #[test]
    fn a_text_says_what_is_wrong_with_it() {
        assert_eq!(Key::try_new("").unwrap_err().to_string(), "key must not be empty");
        assert_eq!(
            Key::try_new(&"x".repeat(256)).unwrap_err().to_string(),
            "key must have at most 255 characters"
        );
        assert_eq!(
            Operation::try_new("a\nb").unwrap_err().to_string(),
            "operation must not contain control characters"
        );
        assert!(Key::try_new(&"é".repeat(255)).is_ok(), "characters are counted, not bytes");
    }

    #[test]
    fn ids_and_versions_are_read_as_they_are_written() {
        let id = RecordId::from_bytes([0xab; 16]);
        assert_eq!(RecordId::parse(&id.to_string()), Some(id));
        assert_eq!(RecordId::parse("+b"), None);
        assert_eq!(RecordId::parse(&format!("+{}", "a".repeat(31))), None);
        let version = Version { fence: Fence(7), sequence: 3 };
        assert_eq!(Version::parse(&version.to_string()), Some(version));
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Token::from_bytes([7; 16])), "Token(…)");
    }
}
