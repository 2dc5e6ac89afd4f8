//! Fingerprints, and how the parts of a request are put together into one.

use std::fmt;
use std::str::FromStr;

use crate::{fields::Fields, json, multipart, uri};

/// The version of the algorithm that [`FingerprintBuilder::finish`] uses. It rises whenever a request's fingerprint
/// would change, so that a stored one is never compared with one that was computed otherwise.
pub const ALGORITHM_VERSION: u8 = 1;

const DIGEST_BYTES: usize = 32;

/// What a request means: 256 bits, with the version of the algorithm that made them.
///
/// Written as `1:` and 64 hexadecimal digits:
///
/// ```
/// use semel_fingerprint::{Fingerprint, FingerprintBuilder};
///
/// let fingerprint = FingerprintBuilder::new().operation("email.send").json(b"{}").finish();
/// assert_eq!(fingerprint.to_string().parse::<Fingerprint>()?, fingerprint);
/// # Ok::<(), semel_fingerprint::ParseFingerprintError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    version: u8,
    digest: [u8; DIGEST_BYTES],
}

impl Fingerprint {
    /// A fingerprint that was stored, or that a client brought.
    pub const fn new(version: u8, digest: [u8; DIGEST_BYTES]) -> Self {
        Self { version, digest }
    }

    /// The version of the algorithm.
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// The digest.
    pub const fn digest(&self) -> &[u8; DIGEST_BYTES] {
        &self.digest
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.version)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (version, digits) = text.split_once(':').ok_or(ParseFingerprintError)?;
        if digits.len() != 2 * DIGEST_BYTES || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ParseFingerprintError);
        }
        let mut digest = [0; DIGEST_BYTES];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ParseFingerprintError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseFingerprintError)?;
        }
        // One spelling per fingerprint: no sign, no leading zero.
        let number: u8 = version.parse().map_err(|_| ParseFingerprintError)?;
        if number == 0 || number.to_string() != version {
            return Err(ParseFingerprintError);
        }
        Ok(Self { version: number, digest })
    }
}

/// A text is not a fingerprint: a version from 1 to 255, a colon, 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseFingerprintError;

impl fmt::Display for ParseFingerprintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fingerprint is a version, a colon and 64 hexadecimal digits")
    }
}

impl std::error::Error for ParseFingerprintError {}

/// Puts the parts of a request together. Their order in the code does not matter; a part that is not given differs
/// from one that is empty, except for the query (`/orders?` asks for what `/orders` asks for).
///
/// Bodies are given as the sender meant them: content encodings (`gzip`) taken off, transfer framing removed. The
/// authority is no part of it, so neither are default ports.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is hashed until `finish`"]
pub struct FingerprintBuilder<'a> {
    operation: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    query: Option<&'a str>,
    fields: Option<&'a Fields>,
    payload: Payload<'a>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Payload<'a> {
    #[default]
    None,
    Json(&'a [u8]),
    Raw(&'a [u8]),
    Multipart {
        boundary: &'a str,
        body: &'a [u8],
    },
}

impl<'a> FingerprintBuilder<'a> {
    /// A request of which nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the operation, compared byte by byte.
    pub fn operation(mut self, name: &'a str) -> Self {
        self.operation = Some(name);
        self
    }

    /// The method, compared byte by byte (RFC 9110, section 9.1: methods are case-sensitive).
    pub fn method(mut self, method: &'a str) -> Self {
        self.method = Some(method);
        self
    }

    /// The path. Spellings of percent-encoding that every server must read alike are one.
    pub fn path(mut self, path: &'a str) -> Self {
        self.path = Some(path);
        self
    }

    /// The query, without its question mark. Parameters are compared in order of their names; those of one name in
    /// the order they came in.
    pub fn query(mut self, query: &'a str) -> Self {
        self.query = Some(query);
        self
    }

    /// Which fields of a JSON payload count; all of them if nothing is said.
    pub fn fields(mut self, fields: &'a Fields) -> Self {
        self.fields = Some(fields);
        self
    }

    /// A JSON payload, compared by what it means ([`canonical_json`](crate::canonical_json)); byte by byte when it has
    /// no canonical form.
    pub fn json(mut self, body: &'a [u8]) -> Self {
        self.payload = Payload::Json(body);
        self
    }

    /// A payload that is compared byte by byte.
    pub fn raw(mut self, body: &'a [u8]) -> Self {
        self.payload = Payload::Raw(body);
        self
    }

    /// A multipart payload, compared as its parts in their order, without the boundary; byte by byte when it does not
    /// follow the grammar.
    pub fn multipart(mut self, boundary: &'a str, body: &'a [u8]) -> Self {
        self.payload = Payload::Multipart { boundary, body };
        self
    }

    /// A payload as its `Content-Type` says: `application/json` and `…+json`, `multipart/…` with a boundary, else raw.
    pub fn body(self, content_type: Option<&'a str>, body: &'a [u8]) -> Self {
        match content_type.map(media_type) {
            Some(Media::Json) => self.json(body),
            Some(Media::Multipart { boundary }) => self.multipart(boundary, body),
            Some(Media::Other) | None => self.raw(body),
        }
    }

    /// The fingerprint of what was put together. Linear in the size of the request; never fails, never panics.
    pub fn finish(&self) -> Fingerprint {
        Fingerprint { version: ALGORITHM_VERSION, digest: *blake3::hash(&self.message()).as_bytes() }
    }

    /// The bytes that are hashed: a prefix, then each part that was given as its tag, its length and its bytes.
    fn message(&self) -> Vec<u8> {
        let mut message = Message::with_capacity(self.payload.bytes().len() + 128);
        for (tag, text) in [(Tag::Operation, self.operation), (Tag::Method, self.method)] {
            if let Some(text) = text {
                message.part(tag, text.as_bytes());
            }
        }
        if let Some(path) = self.path {
            message.part(Tag::Path, &uri::normalise_escapes(path));
        }
        let parameters = uri::parameters(self.query.unwrap_or_default());
        if !parameters.is_empty() {
            message.nested(Tag::Query, |query| write_parameters(&parameters, query));
        }
        message.payload(self.payload, self.fields);
        message.bytes
    }
}

fn write_parameters(parameters: &[uri::Parameter], query: &mut Message) {
    for (name, value) in parameters {
        query.part(Tag::Name, name);
        if let Some(value) = value {
            query.part(Tag::Value, value);
        }
    }
}

impl<'a> Payload<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::None => b"",
            Self::Json(body) | Self::Raw(body) | Self::Multipart { body, .. } => body,
        }
    }
}

/// What a part is. The numbers are part of the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Operation = 1,
    Method = 2,
    Path = 3,
    Query = 4,
    Json = 5,
    Raw = 6,
    Multipart = 7,
    Name = 8,
    Value = 9,
    Part = 10,
}

/// Parts one after the other, each framed, so that `ab` + `c` is not `a` + `bc`.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(b"semel-fingerprint");
        bytes.push(ALGORITHM_VERSION);
        Self { bytes }
    }

    fn part(&mut self, tag: Tag, part: &[u8]) {
        self.nested(tag, |message| message.bytes.extend_from_slice(part));
    }

    /// A part whose length is known once it is written: tag, length (64 bits, most significant byte first), content.
    fn nested(&mut self, tag: Tag, write: impl FnOnce(&mut Self)) {
        self.bytes.push(tag as u8);
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; size_of::<u64>()]);
        let start = self.bytes.len();
        write(self);
        let length = (self.bytes.len() - start) as u64;
        self.bytes[length_at..start].copy_from_slice(&length.to_be_bytes());
    }

    fn payload(&mut self, payload: Payload<'_>, fields: Option<&Fields>) {
        match payload {
            Payload::None => {}
            Payload::Raw(body) => self.part(Tag::Raw, body),
            Payload::Json(body) => {
                let before = self.bytes.len();
                let all = Fields::all();
                let mut canonical = Ok(());
                self.nested(Tag::Json, |message| {
                    canonical = json::canonicalise_into(body, fields.unwrap_or(&all), &mut message.bytes);
                });
                if canonical.is_err() {
                    self.bytes.truncate(before);
                    self.part(Tag::Raw, body);
                }
            }
            Payload::Multipart { boundary, body } => match multipart::parts(boundary, body) {
                Some(parts) => self.nested(Tag::Multipart, |message| message.parts(&parts)),
                None => self.part(Tag::Raw, body),
            },
        }
    }

    fn parts(&mut self, parts: &[multipart::Part<'_>]) {
        for part in parts {
            self.nested(Tag::Part, |message| {
                for (name, value) in &part.headers {
                    message.part(Tag::Name, name.as_bytes());
                    message.part(Tag::Value, value);
                }
                message.part(Tag::Raw, part.content);
            });
        }
    }
}

enum Media<'a> {
    Json,
    Multipart { boundary: &'a str },
    Other,
}

/// What a `Content-Type` means for a fingerprint (RFC 9110, section 8.3; `+json`: RFC 6839, section 3.1).
fn media_type(content_type: &str) -> Media<'_> {
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let essence = essence.trim().to_ascii_lowercase();
    if essence == "application/json" || essence == "text/json" || essence.ends_with("+json") {
        return Media::Json;
    }
    if !essence.starts_with("multipart/") {
        return Media::Other;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
    });
    boundary.map_or(Media::Other, |boundary| Media::Multipart { boundary })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>() -> FingerprintBuilder<'a> {
        FingerprintBuilder::new()
            .operation("payment.charge")
            .method("POST")
            .path("/pay")
            .query("a=1")
            .json(b"{}")
    }

    #[test]
    fn every_part_counts() {
        let all = [
            request(),
            request().operation("payment.refund"),
            request().method("PUT"),
            request().path("/pay/"),
            request().query("a=2"),
            request().query("a"),
            request().query("a=1&b"),
            request().query(""),
            request().json(b"[]"),
            request().raw(b"{}"),
            request().raw(b""),
            FingerprintBuilder::new().operation("payment.charge"),
            FingerprintBuilder::new().method("payment.charge"),
            FingerprintBuilder::new().path("payment.charge"),
            FingerprintBuilder::new().query("payment.charge"),
            FingerprintBuilder::new(),
        ];
        let different: std::collections::HashSet<_> = all.iter().map(FingerprintBuilder::finish).collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn unframed_parts_collide_but_these_do_not() {
        let split =
            |operation, method| FingerprintBuilder::new().operation(operation).method(method).finish();
        assert_ne!(split("ab", "c"), split("a", "bc"));
        let query = |query| FingerprintBuilder::new().query(query).finish();
        assert_ne!(query("ab=c"), query("a=bc"));
        assert_ne!(query("a=b%26c=d"), query("a=b&c=d"));
    }

    #[test]
    fn query_order_does_not_count_but_order_within_a_name_does() {
        let query = |query| FingerprintBuilder::new().query(query).finish();
        assert_eq!(query("b=2&a=%7e"), query("a=~&b=2"));
        assert_eq!(query(""), FingerprintBuilder::new().finish());
        assert_ne!(query("s=1&s=2"), query("s=2&s=1"));
    }

    #[test]
    fn multipart_boundaries_do_not_count() {
        let body = |boundary: &str, value: &str| {
            let parts =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n{value}\r\n");
            format!("{parts}--{boundary}--\r\n")
        };
        let of = |content_type: &str, body: String| {
            FingerprintBuilder::new().body(Some(content_type), body.as_bytes()).finish()
        };
        let first = of("multipart/form-data; boundary=one", body("one", "v"));
        assert_eq!(first, of("Multipart/Form-Data; charset=x; Boundary=\"two\"", body("two", "v")));
        assert_ne!(first, of("multipart/form-data; boundary=one", body("one", "w")));
        assert_ne!(first, of("multipart/form-data; boundary=other", body("one", "v")));
    }

    #[test]
    fn what_has_no_canonical_form_is_compared_byte_by_byte() {
        for body in ["{\"a\":1,\"a\":2}", "{", "\u{feff}{}"] {
            let json = request().json(body.as_bytes()).finish();
            assert_eq!(json, request().raw(body.as_bytes()).finish(), "{body}");
            assert_ne!(json, request().json(format!("{body} ").as_bytes()).finish(), "{body}");
        }
    }

    #[test]
    fn the_content_type_says_how_a_body_is_compared() {
        let of = |content_type, body: &'static str| request().body(content_type, body.as_bytes()).finish();
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
            assert_eq!(of(Some(json), "{\"a\": 1}"), of(Some(json), "{\"a\":1.0}"), "{json}");
        }
        for other in
            [None, Some("text/plain"), Some(""), Some("multipart/form-data"), Some("application/jsonp")]
        {
            assert_ne!(of(other, "{\"a\": 1}"), of(other, "{\"a\":1.0}"), "{other:?}");
        }
    }

    #[test]
    fn a_fingerprint_has_one_spelling() {
        let text = format!("1:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Fingerprint>().unwrap(), Fingerprint::new(1, [0x0f; 32]));
        assert_eq!(Fingerprint::new(1, [0x0f; 32]).to_string(), text);
        let digits = "0f".repeat(32);
        for broken in [
            "",
            "1",
            "1:",
            &digits,
            &format!("0:{digits}"),
            &format!("01:{digits}"),
            &format!("+1:{digits}"),
            &format!("256:{digits}"),
            &format!("1:{digits}0"),
            &format!("1:{}", "+f".repeat(32)),
            &format!("1:{}", "é".repeat(32)),
        ] {
            assert!(broken.parse::<Fingerprint>().is_err(), "{broken}");
        }
    }
}
