//! The signature debugger: why does this delivery fail?
//!
//! It is for those who run the source, never for whoever sent: a near miss tells what would have passed. It shows names,
//! sizes and times, and no secret, no token, and no signature that would be the right one.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use semel_core::Timestamp;

use crate::delivery::Delivery;
use crate::limits;
use crate::mac::{Algorithm, Encoding};
use crate::providers::adyen;
use crate::reason::{Reason, Rejection};
use crate::scheme::{Scheme, Sent};
use crate::secret::{Key, SHARED_PREFIX, Secret, base64, base64_url, hex, nfkd};
use crate::source::{Check, Source, scheme_for};
use crate::template::Template;

/// What was found out about a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What became of it.
    pub rejection: Option<Rejection>,
    /// What is signed, such as `{timestamp}.{body}`, where anything is.
    pub template: Option<String>,
    /// How far its time stamp lies from now, in milliseconds; below zero when it is in the past.
    pub skew_ms: Option<i128>,
    /// Secrets by id, and whether they hold now.
    pub secrets: Vec<(String, bool)>,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// What explains it, the most telling first.
    pub findings: Vec<Finding>,
}

/// Something that explains a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A header is missing; one of nearly that name was sent.
    SimilarHeader {
        /// The one that is needed.
        needed: String,
        /// The one that was sent.
        sent: String,
    },
    /// It would pass with a secret that has expired.
    ExpiredSecret {
        /// The secret's id.
        id: String,
    },
    /// It would pass but for the time stamp.
    OnlyTime {
        /// The secret's id.
        id: String,
    },
    /// Another body was signed than the one that arrived.
    OtherBody {
        /// What was done to it on the way.
        change: BodyChange,
    },
    /// The sender signs with the secret read in another way.
    OtherKey {
        /// The secret's id.
        id: String,
        /// How the sender reads it.
        reading: KeyReading,
    },
    /// The sender signs something else.
    OtherTemplate {
        /// What.
        template: String,
    },
    /// The signature is written in another encoding.
    OtherEncoding {
        /// Which.
        encoding: &'static str,
    },
    /// The sender uses another algorithm.
    OtherAlgorithm {
        /// Which.
        algorithm: &'static str,
    },
    /// The signature stands there without the prefix that belongs before it.
    PrefixMissing,
    /// The body was too large to look for near misses.
    NotSearched,
    /// Nothing comes near: most likely it is another secret.
    OtherSecret,
}

/// How a body differs from the one that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyChange {
    /// It was parsed and written again: the JSON without white space was signed.
    WasCompact,
    /// It was parsed and written again: the JSON with a space after `:` and `,` was signed.
    WasSpaced,
    /// It was parsed and written again: the JSON in lines, indented by two spaces, was signed.
    WasIndented,
    /// A line end was added at its end.
    LineEndAdded,
    /// The line end at its end was taken away.
    LineEndLost,
    /// Its line ends were changed from LF to CRLF.
    LineEndsChanged,
    /// It is missing: what was signed is empty, or the body was read by something else before.
    WasEmpty,
}

/// How a sender may read a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyReading {
    /// As its text, prefix and all.
    Text,
    /// As its text without the prefix.
    TextWithoutPrefix,
    /// Decoded from base64, without the prefix.
    Base64,
    /// Decoded from base64 with the alphabet for URLs.
    Base64Url,
    /// Decoded from hexadecimal digits.
    Hex,
    /// Decoded from base64 twice.
    Base64Twice,
    /// As its text, normalised to NFKD.
    Nfkd,
}

impl fmt::Display for BodyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WasCompact => {
                "the JSON without white space was signed: it was parsed and written again on the way"
            }
            Self::WasSpaced => {
                "the JSON with single spaces was signed: it was parsed and written again on the way"
            }
            Self::WasIndented => {
                "the JSON in indented lines was signed: it was parsed and written again on the way"
            }
            Self::LineEndAdded => "a line end was added on the way",
            Self::LineEndLost => "its last line end was lost on the way",
            Self::LineEndsChanged => "its line ends were changed on the way",
            Self::WasEmpty => "an empty body was signed",
        })
    }
}

impl fmt::Display for KeyReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "as its text, not decoded",
            Self::TextWithoutPrefix => "as its text without the prefix",
            Self::Base64 => "decoded from base64",
            Self::Base64Url => "decoded from base64url",
            Self::Hex => "decoded from hexadecimal digits",
            Self::Base64Twice => "decoded from base64 twice",
            Self::Nfkd => "as its text, normalised to NFKD",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SimilarHeader { needed, sent } => write!(f, "{needed} is missing, and {sent} was sent"),
            Self::ExpiredSecret { id } => write!(f, "it is signed with the secret {id:?}, which has expired"),
            Self::OnlyTime { id } => {
                write!(f, "the signature holds with the secret {id:?}: only the time is wrong")
            }
            Self::OtherBody { change } => write!(f, "the body is not the one that was signed: {change}"),
            Self::OtherKey { id, reading } => write!(f, "the sender reads the secret {id:?} {reading}"),
            Self::OtherTemplate { template } => write!(f, "the sender signs {template}"),
            Self::OtherEncoding { encoding } => write!(f, "the signature is written in {encoding}"),
            Self::OtherAlgorithm { algorithm } => write!(f, "the sender signs with {algorithm}"),
            Self::PrefixMissing => f.write_str("the signature stands without its prefix"),
            Self::NotSearched => f.write_str("the body is too large to look for near misses"),
            Self::OtherSecret => f.write_str("nothing comes near: most likely it is another secret"),
        }
    }
}

impl Source {
    /// Verifies a delivery as [`verify`](Source::verify) does, and where it fails looks for what would have passed: one
    /// change at a time. Meant for single requests of those who run the source; it signs the body some dozens of times.
    pub fn diagnose(&self, delivery: &Delivery<'_>, now: Timestamp) -> Diagnosis {
        let rejection = self.verify(delivery, now).err();
        let mut diagnosis = Diagnosis {
            template: None,
            skew_ms: None,
            secrets: self
                .secrets()
                .iter()
                .map(|secret| (secret.id.to_string(), secret.holds_at(now)))
                .collect(),
            body_bytes: delivery.body().len(),
            findings: Vec::new(),
            rejection,
        };
        match self.check() {
            Check::Schemes(schemes) => {
                let scheme = scheme_for(schemes, delivery).ok().or(schemes.first());
                if let Some(scheme) = scheme {
                    of_scheme(scheme, self.secrets(), delivery, now, &mut diagnosis);
                }
            }
            Check::Adyen => of_adyen(self.secrets(), delivery, now, &mut diagnosis),
            Check::Token { .. } | Check::None => {}
        }
        similar_header(delivery, &mut diagnosis);
        let mismatch = |rejection: &Rejection| rejection.reason() == Reason::SignatureMismatch;
        if diagnosis.findings.is_empty() && diagnosis.rejection.as_ref().is_some_and(mismatch) {
            diagnosis.findings.push(Finding::OtherSecret);
        }
        diagnosis
    }
}

fn of_scheme(
    scheme: &Scheme,
    secrets: &[Secret],
    delivery: &Delivery<'_>,
    now: Timestamp,
    diagnosis: &mut Diagnosis,
) {
    diagnosis.template = Some(scheme.template().as_str().to_owned());
    let sent = scheme.read(delivery);
    if let Ok(sent) = &sent {
        diagnosis.skew_ms = scheme.skew_ms(sent, now).ok().flatten();
    }
    let Some(reason) = diagnosis.rejection.as_ref().map(Rejection::reason) else { return };
    match (reason, sent) {
        (Reason::TimestampTooOld | Reason::TimestampTooNew, Ok(sent)) => {
            let holding = secrets.iter().filter(|secret| secret.holds_at(now));
            if let Ok(Some(id)) = scheme.matching(delivery, &sent, holding) {
                diagnosis.findings.push(Finding::OnlyTime { id: id.to_string() });
            }
        }
        (Reason::SignatureMismatch | Reason::SecretsExpired, Ok(sent)) => {
            diagnosis.findings = near_misses(scheme, secrets, delivery, &sent);
        }
        (Reason::HeaderMalformed, Err(_)) => {
            diagnosis.findings = misread(scheme, secrets, delivery);
        }
        _ => {}
    }
}

fn of_adyen(secrets: &[Secret], delivery: &Delivery<'_>, now: Timestamp, diagnosis: &mut Diagnosis) {
    diagnosis.template = Some(
        "pspReference:originalReference:merchantAccountCode:merchantReference:value:currency:eventCode:success"
            .to_owned(),
    );
    let reason = diagnosis.rejection.as_ref().map(Rejection::reason);
    if !matches!(reason, Some(Reason::SignatureMismatch | Reason::SecretsExpired)) {
        return;
    }
    let Ok(batch) = crate::json::Document::parse(delivery.body()) else { return };
    let items = adyen::items(batch).unwrap_or_default();
    let mut expired = secrets.iter().filter(|secret| !secret.holds_at(now));
    let by_all =
        |secret: &&Secret| items.iter().all(|item| adyen::matching(item, std::iter::once(*secret)).is_some());
    if let Some(secret) = expired.find(by_all) {
        diagnosis.findings.push(Finding::ExpiredSecret { id: secret.id.to_string() });
        return;
    }
    for (reading, secret) in secrets.iter().flat_map(readings) {
        if items.iter().all(|item| adyen::matching(item, std::iter::once(&secret)).is_some()) {
            diagnosis.findings.push(Finding::OtherKey { id: secret.id.to_string(), reading });
            return;
        }
    }
}

/// What would have passed with one thing changed.
fn near_misses(
    scheme: &Scheme,
    secrets: &[Secret],
    delivery: &Delivery<'_>,
    sent: &Sent<'_>,
) -> Vec<Finding> {
    if delivery.body().len() > limits::NEAR_MISS_BODY_BYTES_MAX {
        return vec![Finding::NotSearched];
    }
    let matching = |scheme: &Scheme, delivery: &Delivery<'_>, secrets: &[Secret]| -> Option<Arc<str>> {
        scheme.matching(delivery, sent, secrets.iter()).ok().flatten()
    };
    // Those that hold do not match, or there would be nothing to explain.
    if let Some(id) = matching(scheme, delivery, secrets) {
        return vec![Finding::ExpiredSecret { id: id.to_string() }];
    }
    let mut findings = Vec::new();
    for (change, body) in bodies(delivery.body()) {
        if matching(scheme, &delivery.with_body(&body), secrets).is_some() {
            findings.push(Finding::OtherBody { change });
        }
    }
    for (reading, secret) in secrets.iter().flat_map(readings) {
        if matching(scheme, delivery, std::slice::from_ref(&secret)).is_some() {
            findings.push(Finding::OtherKey { id: secret.id.to_string(), reading });
        }
    }
    for template in templates(scheme, sent) {
        let text = template.as_str().to_owned();
        if matching(&scheme.like(template, scheme.signature_encoding()), delivery, secrets).is_some() {
            findings.push(Finding::OtherTemplate { template: text });
        }
    }
    findings
}

/// A header of signatures in which none could be read: are they written otherwise?
fn misread(scheme: &Scheme, secrets: &[Secret], delivery: &Delivery<'_>) -> Vec<Finding> {
    if delivery.body().len() > limits::NEAR_MISS_BODY_BYTES_MAX {
        return vec![Finding::NotSearched];
    }
    let passes = |scheme: &Scheme| {
        let sent = scheme.read(delivery).ok()?;
        scheme.matching(delivery, &sent, secrets.iter()).ok().flatten()
    };
    let mut findings = Vec::new();
    for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
        let other = scheme.like(scheme.template().clone(), encoding);
        if encoding != scheme.signature_encoding() && passes(&other).is_some() {
            findings.push(Finding::OtherEncoding { encoding: encoding.as_str() });
            // The two base64s share most of their letters.
            break;
        }
    }
    for algorithm in [Algorithm::HmacSha256, Algorithm::HmacSha512, Algorithm::HmacSha1] {
        if scheme.algorithms().all(|own| own != algorithm)
            && passes(&scheme.with_algorithm(algorithm)).is_some()
        {
            findings.push(Finding::OtherAlgorithm { algorithm: algorithm.as_str() });
        }
    }
    if passes(&scheme.without_prefixes()).is_some() {
        findings.push(Finding::PrefixMissing);
    }
    findings
}

/// Other templates that senders are known to use.
fn templates(scheme: &Scheme, sent: &Sent<'_>) -> Vec<Template> {
    let mut texts = vec!["{body}"];
    if sent.timestamp.is_some() {
        texts.extend(["{timestamp}.{body}", "{timestamp}{body}", "{timestamp}:{body}", "{body}.{timestamp}"]);
    }
    let own = scheme.template().as_str();
    texts.into_iter().filter(|text| *text != own).filter_map(|text| Template::parse(text).ok()).collect()
}

/// Bodies that may have become the one that arrived.
fn bodies(body: &Bytes) -> Vec<(BodyChange, Bytes)> {
    let mut bodies = vec![(BodyChange::WasEmpty, Bytes::new())];
    bodies.push((BodyChange::LineEndLost, [&**body, b"\n"].concat().into()));
    bodies.push((BodyChange::LineEndLost, [&**body, b"\r\n"].concat().into()));
    for end in [&b"\r\n"[..], b"\n"] {
        if let Some(rest) = body.strip_suffix(end) {
            bodies.push((BodyChange::LineEndAdded, body.slice_ref(rest)));
        }
    }
    if body.windows(2).any(|pair| pair == b"\r\n") {
        let text: Vec<u8> = body.iter().copied().filter(|byte| *byte != b'\r').collect();
        bodies.push((BodyChange::LineEndsChanged, text.into()));
    }
    if crate::json::Document::parse(body).is_ok() {
        let styles = [
            (BodyChange::WasCompact, Style::COMPACT),
            (BodyChange::WasSpaced, Style::SPACED),
            (BodyChange::WasIndented, Style::INDENTED),
        ];
        bodies.extend(styles.map(|(change, style)| (change, respaced(body, style).into())));
    }
    bodies.retain(|(_, other)| other != body);
    bodies
}

/// White space of a JSON text: after a comma, after a colon, and whether it is in indented lines.
#[derive(Clone, Copy)]
struct Style {
    comma: &'static str,
    colon: &'static str,
    lines: bool,
}

impl Style {
    const COMPACT: Self = Self { comma: "", colon: "", lines: false };
    const SPACED: Self = Self { comma: " ", colon: " ", lines: false };
    const INDENTED: Self = Self { comma: "", colon: " ", lines: true };
}

/// A valid JSON text with other white space between its tokens, the tokens themselves untouched.
fn respaced(json: &[u8], style: Style) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut depth, mut in_string, mut escaped, mut opened) = (0_usize, false, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        if style.lines {
            out.push(b'\n');
            // Deep documents would grow without bound.
            out.resize(out.len() + depth.min(64) * 2, b' ');
        }
    };
    for &byte in json {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if opened && !closes {
            line(&mut out, depth);
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                out.push(byte);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !opened {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                out.extend_from_slice(style.comma.as_bytes());
                line(&mut out, depth);
            }
            b':' => {
                out.push(byte);
                out.extend_from_slice(style.colon.as_bytes());
            }
            other => {
                in_string = other == b'"';
                out.push(other);
            }
        }
        opened = matches!(byte, b'{' | b'[');
    }
    out
}

/// The secret as others may read it.
fn readings(secret: &Secret) -> Vec<(KeyReading, Secret)> {
    let written = &*secret.written;
    let plain = written.strip_prefix(SHARED_PREFIX).unwrap_or(written);
    let Key::Shared(own) = &secret.key else { return Vec::new() };
    let decoded = base64(plain);
    let twice = decoded.as_deref().and_then(|bytes| base64(std::str::from_utf8(bytes).ok()?));
    let candidates = [
        (KeyReading::Text, Some(written.as_bytes().to_vec())),
        (KeyReading::TextWithoutPrefix, Some(plain.as_bytes().to_vec())),
        (KeyReading::Base64, decoded),
        (KeyReading::Base64Url, base64_url(plain)),
        (KeyReading::Hex, hex(plain)),
        (KeyReading::Base64Twice, twice),
        (KeyReading::Nfkd, Some(nfkd(written).into_bytes())),
    ];
    let mut seen = vec![own.to_vec()];
    let mut readings = Vec::new();
    for (reading, key) in candidates {
        let Some(key) = key.filter(|key| !key.is_empty() && !seen.contains(key)) else { continue };
        seen.push(key.clone());
        readings.push((reading, Secret { key: Key::Shared(key.into()), ..secret.clone() }));
    }
    readings
}

/// A header of nearly the name that is needed: of the same name but for `x-` and for what separates its words, or of the
/// same ending under the name of another family.
fn similar_header(delivery: &Delivery<'_>, diagnosis: &mut Diagnosis) {
    let Some(rejection) = &diagnosis.rejection else { return };
    let (Reason::HeaderMissing, Some(needed)) = (rejection.reason(), rejection.place()) else { return };
    let bare = |name: &str| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        name.strip_prefix("x-").map_or(name.clone(), str::to_owned).replace('-', "")
    };
    let ending = |name: &str| name.rsplit('-').next().unwrap_or(name).to_ascii_lowercase();
    let same = |sent: &&str| bare(sent) == bare(needed);
    let family = |sent: &&str| ending(sent) == ending(needed) && ending(needed) != "id";
    let mut names = delivery.names().filter(|sent| !sent.eq_ignore_ascii_case(needed));
    let found = delivery.names().find(same).or_else(|| names.find(family));
    if let Some(sent) = found.filter(|sent| !sent.eq_ignore_ascii_case(needed)) {
        diagnosis.findings.push(Finding::SimilarHeader { needed: needed.to_owned(), sent: sent.to_owned() });
    }
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
