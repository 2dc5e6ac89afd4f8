//! As much of an HTTP/1.1 reply as the generator needs: status, and where the reply ends.

use std::ops::Range;

use anyhow::{Context, Result, bail};

/// A reply that was read whole.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The status code.
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: Vec<u8>,
    /// The body, chunk marks included where it came in chunks.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body as text, for probes and messages.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether a header of this name with this value came along.
    pub(crate) fn has_header(&self, name: &str, value: &str) -> bool {
        find_header(&self.head, name).is_some_and(|found| found.eq_ignore_ascii_case(value.as_bytes()))
    }
}

/// Where a whole reply lies in the buffer.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// The status code.
    pub(crate) status: u16,
    /// Length of status line and headers with the empty line.
    pub(crate) head: usize,
    /// The body.
    pub(crate) body: Range<usize>,
}

/// Finds a whole reply at the start of the buffer, or none while some of it is still to come.
///
/// # Errors
/// When the bytes are no HTTP/1.1 reply with a length or chunks.
pub(crate) fn parse(buffer: &[u8]) -> Result<Option<Parsed>> {
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = end + 4;
    let status = std::str::from_utf8(buffer.get(9..12).unwrap_or_default())
        .ok()
        .and_then(|digits| digits.parse().ok())
        .context("the reply has no status")?;
    if let Some(length) = find_header(&buffer[..head], "content-length") {
        let length: usize = std::str::from_utf8(length)?.trim().parse().context("content-length")?;
        let whole = head + length;
        return Ok((buffer.len() >= whole).then_some(Parsed { status, head, body: head..whole }));
    }
    if find_header(&buffer[..head], "transfer-encoding").is_some() {
        let whole = buffer.ends_with(b"0\r\n\r\n");
        return Ok(whole.then_some(Parsed { status, head, body: head..buffer.len() }));
    }
    if status == 204 || status == 304 {
        return Ok(Some(Parsed { status, head, body: head..head }));
    }
    bail!("the reply has neither a length nor chunks")
}

/// The value of the first header of this (lower-case) name.
fn find_header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = head;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        rest = &rest[at + 2..];
        if rest.len() > name.len()
            && rest[name.len()] == b':'
            && rest[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        {
            let value = &rest[name.len() + 1..];
            let end = memchr::memchr(b'\r', value).unwrap_or(value.len());
            return Some(value[..end].trim_ascii());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_when_its_length_is_there_and_not_before() {
        let whole = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).unwrap().is_none(), "cut at {cut}");
        }
        let parsed = parse(whole).unwrap().unwrap();
        assert_eq!((parsed.status, &whole[parsed.body]), (200, &b"abc"[..]));
    }

    #[test]
    fn a_chunked_reply_ends_with_the_empty_chunk() {
        let head = b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".to_vec();
        assert!(parse(&head).unwrap().is_none());
        let whole = [head, b"0\r\n\r\n".to_vec()].concat();
        assert_eq!(parse(&whole).unwrap().unwrap().status, 201);
    }

    #[test]
    fn a_reply_without_an_end_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
