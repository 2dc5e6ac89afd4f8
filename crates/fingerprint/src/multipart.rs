//! Multipart bodies as their parts (RFC 2046, section 5.1; RFC 7578).
//!
//! Clients draw a new boundary for every try. The parts, their headers and their order are what was asked for.

use crate::limits;

/// One part: header lines in order of their names, and the content.
pub(crate) struct Part<'a> {
    pub(crate) headers: Vec<(String, &'a [u8])>,
    pub(crate) content: &'a [u8],
}

/// The parts of a body; nothing when it does not follow the grammar, and must be compared as it stands.
pub(crate) fn parts<'a>(boundary: &str, body: &'a [u8]) -> Option<Vec<Part<'a>>> {
    if boundary.is_empty() || boundary.len() > limits::MULTIPART_BOUNDARY_BYTES_MAX {
        return None;
    }
    let delimiter = format!("\r\n--{boundary}");
    let opening = &delimiter.as_bytes()[2..];
    // What stands before the first boundary and after the last is for people, and is no part of the message.
    let mut rest = match body.strip_prefix(opening) {
        Some(rest) => rest,
        None => split_once(body, delimiter.as_bytes())?.1,
    };
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        if parts.len() == limits::MULTIPART_PARTS_MAX {
            return None;
        }
        let padding = rest.iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
        let part_and_rest = rest[padding..].strip_prefix(b"\r\n")?;
        let (part, after) = split_part(part_and_rest, delimiter.as_bytes())?;
        parts.push(part);
        rest = after;
    }
    Some(parts)
}

/// A part up to the next delimiter, and what follows that. Headers come first, so that a part without content (whose
/// blank line's end is the delimiter's own line break) is read as well.
fn split_part<'a>(text: &'a [u8], delimiter: &[u8]) -> Option<(Part<'a>, &'a [u8])> {
    let mut headers = Vec::new();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix(delimiter) {
            return Some((part(headers, b""), after));
        }
        if let Some(content) = rest.strip_prefix(b"\r\n") {
            let (content, after) = split_once(content, delimiter)?;
            return Some((part(headers, content), after));
        }
        if headers.len() == limits::MULTIPART_HEADERS_MAX {
            return None;
        }
        let (line, after) = split_once(rest, b"\r\n")?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?.to_ascii_lowercase();
        headers.push((name, line[colon + 1..].trim_ascii()));
        rest = after;
    }
}

fn part<'a>(mut headers: Vec<(String, &'a [u8])>, content: &'a [u8]) -> Part<'a> {
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    Part { headers, content }
}

fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(text, separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}

/// Looks at each carriage return only: every separator here begins with one.
fn find(text: &[u8], separator: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(next) = text[from..].iter().position(|&byte| byte == b'\r') {
        let at = from + next;
        if text[at..].starts_with(separator) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<&str>) {
        let found = parts("XX", body.as_bytes()).map(|parts| {
            let lines = parts.iter().map(|part| {
                let headers: Vec<_> = part
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.escape_ascii()))
                    .collect();
                format!("[{}] {}", headers.join(" "), part.content.escape_ascii())
            });
            lines.collect::<Vec<_>>().join(" | ")
        });
        assert_eq!(found.as_deref(), expected, "of {body:?}");
    }

    #[test]
    fn parts_have_headers_and_content() {
        check(
            "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\nA:1\r\n\r\nhello\r\n--XX\r\n\r\nbye\r\n--XX--\r\n",
            Some("[a=1 content-disposition=form-data; name=\\\"a\\\"] hello | [] bye"),
        );
    }

    #[test]
    fn preamble_and_epilogue_do_not_count() {
        check("for people\r\n--XX \t\r\n\r\nx\r\n--XX--\r\nmore\r\n--XX", Some("[] x"));
        check("--XX--", Some(""));
    }

    #[test]
    fn empty_parts_are_parts() {
        check("--XX\r\nA: 1\r\n\r\n\r\n--XX--", Some("[a=1] "));
        check("--XX\r\n\r\n--XX--", Some("[] "));
    }

    #[test]
    fn content_may_look_like_a_boundary() {
        check(
            "--XX\r\n\r\na\r\n--X\r\n--XY\r\n\rXX--XX\r\n--XX--",
            Some("[] a\\r\\n--X\\r\\n--XY\\r\\n\\rXX--XX"),
        );
    }

    #[test]
    fn what_does_not_follow_the_grammar_has_no_parts() {
        for body in [
            "",
            "x",
            "--XX",
            "--XX\r\n",
            "--XX\r\n\r\nx",
            "--XX\r\n\r\nx\r\n--XX",
            "--XX\r\nno colon\r\n\r\nx\r\n--XX--",
        ] {
            check(body, None);
        }
        assert!(parts("", b"----").is_none());
        assert!(parts(&"b".repeat(71), b"").is_none());
        assert!(
            parts("XX", "--XX\r\n\r\nx\r\n".repeat(limits::MULTIPART_PARTS_MAX + 1).as_bytes()).is_none()
        );
    }
}
