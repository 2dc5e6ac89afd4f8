//! What a signature is over: literals, headers, the time stamp and the body, in a fixed order.

use std::sync::Arc;

use crate::delivery::Delivery;
use crate::error::{ConfigError, Problem};
use crate::limits;
use crate::reason::{Reason, Rejection};

/// The form of the signed bytes, such as `{header:webhook-id}.{timestamp}.{body}`.
///
/// No two requests sign alike under a template: a header's value may not hold what separates it from its neighbour, or
/// the border between them could be moved without the signature noticing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Header(Box<str>),
    Timestamp,
    Body,
}

impl Template {
    /// Only the body.
    pub fn body() -> Self {
        Self { text: "{body}".into(), pieces: vec![Piece::Body] }
    }

    /// Reads a template. Placeholders are `{body}`, `{timestamp}` and `{header:name}`.
    ///
    /// # Errors
    /// It holds another placeholder, not exactly one body, or a header with nothing between it and its neighbour.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |problem| ConfigError::new("template", problem);
        if text.chars().count() > limits::TEMPLATE_CHARS_MAX {
            return Err(wrong(Problem::TooLong { max: limits::TEMPLATE_CHARS_MAX }));
        }
        let pieces = cut(text).map_err(wrong)?;
        match pieces.iter().filter(|piece| **piece == Piece::Body).count() {
            0 => return Err(wrong(Problem::NoBody)),
            1 => {}
            _ => return Err(wrong(Problem::BodyTwice)),
        }
        let variable = |piece: &Piece| !matches!(piece, Piece::Literal(_));
        // A time stamp within the tolerance always has as many digits, so it may stand alone beside the body.
        let touches = |pair: &[Piece]| {
            pair.iter().all(variable) && pair.iter().any(|piece| matches!(piece, Piece::Header(_)))
        };
        if pieces.windows(2).any(touches) {
            return Err(wrong(Problem::Ambiguous));
        }
        Ok(Self { text: text.into(), pieces })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn has_timestamp(&self) -> bool {
        self.pieces.contains(&Piece::Timestamp)
    }

    /// Names of the headers that are signed.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Header(name) => Some(&**name),
            Piece::Literal(_) | Piece::Timestamp | Piece::Body => None,
        })
    }

    /// The parts that are signed, in their order.
    pub(crate) fn render<'a>(
        &'a self,
        delivery: &Delivery<'a>,
        timestamp: Option<&'a str>,
    ) -> Result<Vec<&'a [u8]>, Rejection> {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(self.pieces.len());
        let mut before_body = true;
        for (at, piece) in self.pieces.iter().enumerate() {
            parts.push(match piece {
                Piece::Literal(text) => text.as_bytes(),
                Piece::Body => {
                    before_body = false;
                    delivery.body()
                }
                Piece::Timestamp => timestamp.ok_or(Rejection::new(Reason::TimestampMalformed))?.as_bytes(),
                Piece::Header(name) => {
                    let value = delivery.header(name)?;
                    if !self.is_bounded(at, before_body, value) {
                        return Err(Rejection::about(Reason::HeaderMalformed, name));
                    }
                    value.as_bytes()
                }
            });
        }
        Ok(parts)
    }

    /// Whether the value of the piece at `at` can only end, or begin, where it does.
    fn is_bounded(&self, at: usize, before_body: bool, value: &str) -> bool {
        let neighbour = if before_body { self.pieces.get(at + 1) } else { self.pieces.get(at - 1) };
        let Some(Piece::Literal(border)) = neighbour else { return true };
        if before_body {
            // The border is first found where the value ends.
            format!("{value}{border}").find(&**border) == Some(value.len())
        } else {
            format!("{border}{value}").rfind(&**border) == Some(0)
        }
    }
}

fn cut(text: &str) -> Result<Vec<Piece>, Problem> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, left) = if let Some(inner) = rest.strip_prefix('{') {
            let (name, left) = inner.split_once('}').ok_or(Problem::Placeholder)?;
            (placeholder(name)?, left)
        } else {
            let (literal, left) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if literal.contains('}') {
                return Err(Problem::Placeholder);
            }
            (Piece::Literal(literal.into()), left)
        };
        pieces.push(piece);
        rest = left;
    }
    Ok(pieces)
}

fn placeholder(name: &str) -> Result<Piece, Problem> {
    match name {
        "body" => Ok(Piece::Body),
        "timestamp" => Ok(Piece::Timestamp),
        name => match name.strip_prefix("header:") {
            Some(header) if is_header_name(header) => Ok(Piece::Header(header.to_ascii_lowercase().into())),
            Some(_) => Err(Problem::BadName),
            None => Err(Problem::Placeholder),
        },
    }
}

/// A field name by RFC 9110, section 5.1.
pub(crate) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(template: &str, headers: &[(&str, &[u8])], expected: Result<&str, &str>) {
        let found = Template::parse(template).map_err(|error| error.to_string()).and_then(|template| {
            let body = Bytes::from_static(b"BODY");
            let parts = template.render(&Delivery::new(headers, &body), Some("17"));
            let parts = parts.map_err(|rejection| rejection.reason().as_str().to_owned())?;
            Ok(String::from_utf8(parts.concat()).unwrap())
        });
        let found = found.as_ref().map(String::as_str).map_err(String::as_str);
        assert_eq!(found, expected, "{template}");
    }

    #[test]
    fn a_template_is_rendered_from_what_was_sent() {
        check("{body}", &[], Ok("BODY"));
        check("{header:X-Id}.{timestamp}.{body}", &[("x-id", b"a")], Ok("a.17.BODY"));
        check("{timestamp}{body}", &[], Ok("17BODY"));
        check("v0:{timestamp}:{body}:{header:x}", &[("X", b"a.b")], Ok("v0:17:BODY:a.b"));
        check("{header:x}.{body}", &[], Err("header_missing"));
        check("{header:x}.{body}", &[("x", b"1"), ("x", b"2")], Err("header_repeated"));
    }

    #[test]
    fn unframed_parts_collide_so_a_value_may_not_hold_its_border() {
        check("{header:x}.{body}", &[("x", b"a.b")], Err("header_malformed"));
        check("{header:x}::{body}", &[("x", b"a:")], Err("header_malformed"));
        check("{header:x}::{body}", &[("x", b"a:b")], Ok("a:b::BODY"));
        check("{body}.{header:x}", &[("x", b"a.b")], Err("header_malformed"));
        check("{body}::{header:x}", &[("x", b":a")], Err("header_malformed"));
    }

    #[test]
    fn a_template_that_binds_too_little_is_refused() {
        let placeholder =
            "template: knows the placeholders {body}, {timestamp} and {header:name}, and no other braces";
        let border =
            "template: has nothing between a header and its neighbour: two requests would sign alike";
        let none = "template: must hold {body}: otherwise nothing binds the signature to it";
        check("{timestamp}", &[], Err(none));
        check("", &[], Err(none));
        check("{body}{body}", &[], Err("template: may hold {body} once"));
        check("{header:x}{body}", &[], Err(border));
        check("{header:x}{timestamp}.{body}", &[], Err(border));
        check("{url}{body}", &[], Err(placeholder));
        check("{body", &[], Err(placeholder));
        check("a}{body}", &[], Err(placeholder));
        check("{header:a b}.{body}", &[], Err("template: is no name of a header"));
    }
}
