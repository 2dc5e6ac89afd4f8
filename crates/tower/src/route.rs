//! Which requests a rule is for: `POST /orders/{id}/pay`.

use std::fmt;

use http::Method;

/// A method (or `*`) and a path whose segments may be named (`{id}`), the last of them for all that follows
/// (`{*rest}`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    method: Option<Method>,
    segments: Vec<Segment>,
    text: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Is(Box<str>),
    Any,
    Rest,
}

/// The methods that HTTP's registry has (IANA, "Hypertext Transfer Protocol (HTTP) Method Registry"), but for `PRI`, which is
/// reserved.
const METHODS: [&str; 39] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// The method of that name, as it is registered: in capitals. Any other is a slip of the pen, and no request has it.
pub fn method(name: &str) -> Option<Method> {
    METHODS.contains(&name).then(|| Method::from_bytes(name.as_bytes()).ok()).flatten()
}

/// A text is no matcher: why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatcherError {
    text: Box<str>,
    why: &'static str,
}

impl fmt::Display for MatcherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the route {:?} {}", self.text, self.why)
    }
}

impl std::error::Error for MatcherError {}

impl Matcher {
    /// Reads `METHOD /path`; `*` is any method.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        let refuse = |why| MatcherError { text: text.into(), why };
        let (name, path) =
            text.split_once(' ').ok_or_else(|| refuse("must be a method, a space and a path"))?;
        let method =
            match name {
                "*" => None,
                name => {
                    let known = method(name);
                    Some(known.ok_or_else(|| {
                        refuse("has no method of HTTP's registry, in capitals, such as POST")
                    })?)
                }
            };
        let path = path.trim_start().strip_prefix('/');
        let path = path.ok_or_else(|| refuse("must have a path that begins with a slash"))?;
        let mut segments = Vec::new();
        for segment in path.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err(refuse("has something after `{*…}`, which stands for all that follows"));
            }
            segments.push(match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) if name.starts_with('*') => Segment::Rest,
                Some("") => return Err(refuse("has a segment without a name")),
                Some(_) => Segment::Any,
                None if segment.contains(['{', '}']) => {
                    return Err(refuse("may have braces around whole segments only"));
                }
                None => Segment::Is(segment.into()),
            });
        }
        Ok(Self { method, segments, text: text.into() })
    }

    /// The text that it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is for such a request.
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        if self.method.as_ref().is_some_and(|wanted| wanted != method) {
            return false;
        }
        let mut given = path.strip_prefix('/').unwrap_or(path).split('/');
        for segment in &self.segments {
            match (segment, given.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Any, Some(given)) if !given.is_empty() => {}
                (Segment::Is(wanted), Some(given)) if **wanted == *given => {}
                _ => return false,
            }
        }
        given.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_compared_whole() {
        let matches = |matcher: &str, method: &str, path: &str| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            Matcher::parse(matcher).unwrap().matches(&method, path)
        };
        for (matcher, method, path, expected) in [
            ("POST /orders/{id}/pay", "POST", "/orders/7/pay", true),
            ("POST /orders/{id}/pay", "PUT", "/orders/7/pay", false),
            ("POST /orders/{id}/pay", "POST", "/orders//pay", false),
            ("POST /orders/{id}/pay", "POST", "/orders/7/pay/", false),
            ("POST /orders/{id}/pay", "POST", "/orders/7/8/pay", false),
            ("* /orders", "DELETE", "/orders", true),
            ("* /orders", "DELETE", "/ordersx", false),
            ("* /a/{*rest}", "POST", "/a/b/c", true),
            ("* /a/{*rest}", "POST", "/a", false),
            ("* /{*rest}", "POST", "/", true),
            ("POST /", "POST", "/", true),
        ] {
            assert_eq!(matches(matcher, method, path), expected, "{matcher} for {method} {path}");
        }
    }

    #[test]
    fn what_is_no_matcher_is_refused() {
        for text in ["POST", "/orders", "POST orders", "PO ST /x", "POST /{*a}/b", "POST /a{b}", "POST /{}"] {
            assert!(Matcher::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistyped_method_would_match_nothing_and_is_refused() {
        for wrong in ["PSOT /orders", "post /orders", "POST|PUT /orders", "PRI /orders"] {
            let said = Matcher::parse(wrong).unwrap_err().to_string();
            assert!(said.contains("has no method of HTTP's registry"), "{wrong}: {said}");
        }
        for right in ["POST /orders", "QUERY /orders", "VERSION-CONTROL /orders"] {
            assert!(Matcher::parse(right).is_ok(), "{right}");
        }
    }
}
