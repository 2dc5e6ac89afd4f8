//! A way of signing, described: which header holds signatures, how they are written, what they are over.

use std::sync::Arc;
use std::time::Duration;

use semel_core::Timestamp;

use crate::delivery::Delivery;
use crate::error::{ConfigError, Problem};
use crate::identity::IdentityRule;
use crate::limits;
use crate::mac::{self, Algorithm, Encoding};
use crate::reason::{Reason, Rejection};
use crate::secret::Secret;
use crate::template::{Template, is_header_name};

/// The unit of a time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Seconds since the Unix epoch.
    Seconds,
    /// Milliseconds since the Unix epoch.
    Milliseconds,
}

/// Where the signed time stamp is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Header(Box<str>),
    /// An item of the signature's own header, such as `t=1492774577`: what follows the prefix.
    Item(Box<str>),
}

/// How a source signs. The providers' packs are made of these, and so is `generic`.
///
/// ```
/// use semel_webhook::{Algorithm, Encoding, Scheme, Template, Unit};
///
/// // X-Carrier-Signature: ts=1700000000;sig=9f86d0…  over "1700000000:" and the body
/// let scheme = Scheme::new("x-carrier-signature", Template::parse("{timestamp}:{body}")?)
///     .separator(';')
///     .signature("sig=", Algorithm::HmacSha256)
///     .encoding(Encoding::Hex)
///     .timestamp_item("ts=", Unit::Seconds)
///     .check()?;
/// assert_eq!(scheme.header(), "x-carrier-signature");
/// # Ok::<(), semel_webhook::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Scheme {
    header: Box<str>,
    separator: Option<char>,
    signatures: Vec<(Box<str>, Algorithm)>,
    encoding: Encoding,
    template: Template,
    timestamp: Option<(Place, Unit)>,
    tolerance: Duration,
    /// Of the headers that this scheme signs, where one of several schemes was chosen by what was sent.
    pub(crate) identity: Option<IdentityRule>,
}

impl Scheme {
    /// Signatures in `header`, over `template`; HMAC-SHA-256 in base64 where nothing else is said.
    pub fn new(header: &str, template: Template) -> Self {
        Self {
            header: header.to_ascii_lowercase().into(),
            separator: None,
            signatures: Vec::new(),
            encoding: Encoding::Base64,
            template,
            timestamp: None,
            tolerance: limits::TOLERANCE_DEFAULT,
            identity: None,
        }
    }

    /// The header is a list, its items separated by this.
    pub const fn separator(mut self, separator: char) -> Self {
        self.separator = Some(separator);
        self
    }

    /// An item that begins with `prefix` is a signature of this algorithm. Others are ignored.
    pub fn signature(mut self, prefix: &str, algorithm: Algorithm) -> Self {
        self.signatures.push((prefix.into(), algorithm));
        self
    }

    /// How signatures are written.
    pub const fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// The time stamp is a header's value.
    pub fn timestamp_header(mut self, header: &str, unit: Unit) -> Self {
        self.timestamp = Some((Place::Header(header.to_ascii_lowercase().into()), unit));
        self
    }

    /// The time stamp is the item of the signature's header that begins with `prefix`.
    pub fn timestamp_item(mut self, prefix: &str, unit: Unit) -> Self {
        self.timestamp = Some((Place::Item(prefix.into()), unit));
        self
    }

    /// How far the time stamp may lie from now, both ways.
    pub const fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    pub(crate) fn identity(mut self, rule: IdentityRule) -> Self {
        self.identity = Some(rule);
        self
    }

    /// The header that holds the signatures.
    pub const fn header(&self) -> &str {
        &self.header
    }

    /// What is signed.
    pub const fn template(&self) -> &Template {
        &self.template
    }

    pub(crate) const fn signature_encoding(&self) -> Encoding {
        self.encoding
    }

    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.signatures.iter().map(|(_, algorithm)| *algorithm)
    }

    /// The same scheme over another template or in another encoding, for the debugger.
    pub(crate) fn like(&self, template: Template, encoding: Encoding) -> Self {
        Self { encoding, template, ..self.clone() }
    }

    /// The same scheme with other algorithms behind its prefixes, for the debugger.
    pub(crate) fn with_algorithm(&self, algorithm: Algorithm) -> Self {
        let signatures = self.signatures.iter().map(|(prefix, _)| (prefix.clone(), algorithm)).collect();
        Self { signatures, ..self.clone() }
    }

    /// The same scheme with signatures that stand alone, for the debugger.
    pub(crate) fn without_prefixes(&self) -> Self {
        let signatures =
            self.signatures.iter().map(|(_, algorithm)| ("".into(), *algorithm)).take(1).collect();
        Self { signatures, ..self.clone() }
    }

    /// The scheme, if it can verify.
    ///
    /// # Errors
    /// A header's name is none, a time stamp is looked for that is not signed or signed and not looked for, or the
    /// tolerance is wider than [`limits::TOLERANCE_MAX`]. This is the first of it.
    pub fn check(self) -> Result<Self, ConfigError> {
        self.check_all().map_err(|problems| {
            // There is one at least.
            let first = problems.into_iter().next();
            first.unwrap_or_else(|| ConfigError::new("scheme", Problem::Missing))
        })
    }

    /// The same, with everything that is wrong.
    pub(crate) fn check_all(mut self) -> Result<Self, Vec<ConfigError>> {
        let mut problems = Vec::new();
        let timestamp_header = match &self.timestamp {
            Some((Place::Header(name), _)) => Some(&**name),
            Some((Place::Item(_), _)) | None => None,
        };
        for name in [Some(&*self.header), timestamp_header].into_iter().flatten() {
            if !is_header_name(name) {
                problems.push(ConfigError::new(name, Problem::BadName));
            }
        }
        match (&self.timestamp, self.template.has_timestamp()) {
            (Some(_), false) => problems.push(ConfigError::new("timestamp", Problem::TimestampUnsigned)),
            (None, true) => problems.push(ConfigError::new("template", Problem::TimestampUnknown)),
            (Some(_), true) | (None, false) => {}
        }
        if self.tolerance > limits::TOLERANCE_MAX {
            problems.push(ConfigError::new("tolerance", Problem::ToleranceTooWide));
        }
        if self.signatures.is_empty() {
            self.signatures.push(("".into(), Algorithm::HmacSha256));
        }
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }

    /// The signatures and the time stamp that were sent.
    pub(crate) fn read<'a>(&self, delivery: &Delivery<'a>) -> Result<Sent<'a>, Rejection> {
        let value = delivery.header(&self.header)?;
        let items: Vec<&str> = match self.separator {
            Some(separator) => value.split(separator).map(str::trim).collect(),
            None => vec![value],
        };
        let timestamp = match &self.timestamp {
            None => None,
            Some((Place::Header(name), _)) => Some(delivery.header(name)?),
            Some((Place::Item(prefix), _)) => {
                let mut found = items.iter().filter_map(|item| item.strip_prefix(&**prefix));
                let first = found.next().ok_or_else(|| self.malformed())?;
                if found.next().is_some() {
                    return Err(Rejection::about(Reason::HeaderRepeated, &self.header));
                }
                Some(first)
            }
        };
        let mut signatures = Vec::new();
        for item in items {
            let known = |(prefix, algorithm): &(Box<str>, Algorithm)| {
                Some((item.strip_prefix(&**prefix)?, *algorithm))
            };
            let Some((text, algorithm)) = self.signatures.iter().find_map(known) else { continue };
            // One that cannot be read is as good as one of an unknown version: it matches nothing.
            let Some(bytes) = self.encoding.decode(text) else { continue };
            if bytes.len() == algorithm.signature_bytes() {
                signatures.push((algorithm, bytes));
            }
        }
        if signatures.is_empty() || signatures.len() > limits::SIGNATURES_MAX {
            return Err(self.malformed());
        }
        Ok(Sent { timestamp, signatures })
    }

    fn malformed(&self) -> Rejection {
        Rejection::about(Reason::HeaderMalformed, &self.header)
    }

    /// How far the time stamp lies from now, in milliseconds; below zero when it is in the past.
    pub(crate) fn skew_ms(&self, sent: &Sent<'_>, now: Timestamp) -> Result<Option<i128>, Rejection> {
        let (Some(text), Some((_, unit))) = (sent.timestamp, &self.timestamp) else { return Ok(None) };
        let malformed = Rejection::new(Reason::TimestampMalformed);
        // `parse` alone would take a sign.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed);
        }
        let number: u64 = text.parse().map_err(|_| malformed)?;
        let millis = match unit {
            Unit::Seconds => i128::from(number) * 1_000,
            Unit::Milliseconds => i128::from(number),
        };
        // Both are below 2^74: nothing overflows.
        Ok(Some(millis - i128::from(now.as_millis())))
    }

    fn check_timestamp(&self, sent: &Sent<'_>, now: Timestamp) -> Result<(), Rejection> {
        let Some(skew) = self.skew_ms(sent, now)? else { return Ok(()) };
        let tolerance = i128::try_from(self.tolerance.as_millis()).unwrap_or(i128::MAX);
        if skew < -tolerance {
            return Err(Rejection::new(Reason::TimestampTooOld));
        }
        if skew > tolerance {
            return Err(Rejection::new(Reason::TimestampTooNew));
        }
        Ok(())
    }

    /// Which secret signed this delivery.
    pub(crate) fn verify(
        &self,
        delivery: &Delivery<'_>,
        secrets: &[Secret],
        now: Timestamp,
    ) -> Result<Arc<str>, Rejection> {
        let sent = self.read(delivery)?;
        self.check_timestamp(&sent, now)?;
        if !secrets.iter().any(|secret| secret.holds_at(now)) {
            return Err(Rejection::new(Reason::SecretsExpired));
        }
        self.matching(delivery, &sent, secrets.iter().filter(|secret| secret.holds_at(now)))?
            .ok_or_else(|| Rejection::about(Reason::SignatureMismatch, &self.header))
    }

    /// The first secret whose signature was sent, whatever the time.
    pub(crate) fn matching<'s>(
        &self,
        delivery: &Delivery<'_>,
        sent: &Sent<'_>,
        mut secrets: impl Iterator<Item = &'s Secret>,
    ) -> Result<Option<Arc<str>>, Rejection> {
        let parts = self.template.render(delivery, sent.timestamp)?;
        let found = secrets.find(|secret| {
            self.algorithms().any(|algorithm| {
                let of_it = sent.signatures.iter().filter(|(other, _)| *other == algorithm);
                let mut of_it = of_it.map(|(_, bytes)| &**bytes).peekable();
                of_it.peek().is_some() && mac::any_holds(algorithm, &secret.key, &parts, of_it)
            })
        });
        Ok(found.map(|secret| Arc::clone(&secret.id)))
    }
}

/// What a delivery's headers say about its signature.
pub(crate) struct Sent<'a> {
    pub(crate) timestamp: Option<&'a str>,
    signatures: Vec<(Algorithm, Vec<u8>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(scheme: Scheme) -> String {
        scheme.check().unwrap_err().to_string()
    }

    #[test]
    fn a_scheme_that_protects_nothing_is_refused() {
        let body = Template::body;
        assert_eq!(error(Scheme::new("x y", body())), "x y: is no name of a header");
        assert_eq!(
            error(Scheme::new("x", body()).timestamp_header("t", Unit::Seconds)),
            "timestamp: is not in the template: a time stamp that is not signed protects nothing"
        );
        let signed = || Template::parse("{timestamp}.{body}").unwrap();
        assert_eq!(
            error(Scheme::new("x", signed())),
            "template: holds {timestamp}, and nothing says where that is found"
        );
        let wide = Scheme::new("x", signed()).timestamp_header("t", Unit::Seconds).tolerance(Duration::MAX);
        assert_eq!(error(wide), "tolerance: must be at most 24 h");
    }
}
