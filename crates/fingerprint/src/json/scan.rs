//! The first pass: checks the grammar, and keeps note of what the second may not copy in order.
//!
//! Whatever is in canonical order already is one [`Node::Text`], however large. Only objects whose members are out of
//! order (or filtered) and what contains them become nodes. So an ordinary body costs one small list per object
//! while that is open, and the worst one a few times its own size; never a tree of boxes.

use std::cmp::Ordering;

use super::{JsonError, JsonErrorKind, number, string};
use crate::fields::{Fields, Keep};
use crate::limits;

/// A stretch of the document, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn of(self, document: &[u8]) -> &[u8] {
        &document[self.start as usize..self.end as usize]
    }
}

/// What is written for a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    /// The text as it stands, less white space, tokens in their canonical spelling.
    Text(Span),
    /// Entries one after the other; commas and brackets are in their texts.
    Sequence(Entries),
    /// `[…]` of entries.
    Array(Entries),
    /// `{…}` of named entries.
    Object(Entries),
    /// Not kept by the choice of fields.
    Dropped,
}

/// A range of [`Scanned::entries`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries {
    first: u32,
    count: u32,
}

/// A value in its container; the name is what stands between the quotes, for members of objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) name: Span,
    name_compares_by_bytes: bool,
    pub(super) value: Node,
}

/// A document that was checked.
pub(super) struct Scanned<'a> {
    pub(super) document: &'a [u8],
    pub(super) root: Node,
    entries: Vec<Entry>,
}

impl Scanned<'_> {
    pub(super) fn entries(&self, range: Entries) -> &[Entry] {
        &self.entries[range.first as usize..][..range.count as usize]
    }
}

/// Checks a document against the grammar of RFC 8259 and finds what is out of order.
pub(super) fn scan<'a>(document: &'a [u8], fields: &Fields) -> Result<Scanned<'a>, JsonError> {
    if document.len() > limits::JSON_BYTES_MAX {
        return Err(JsonError::new(JsonErrorKind::TooLarge, limits::JSON_BYTES_MAX));
    }
    if let Err(error) = std::str::from_utf8(document) {
        return Err(JsonError::new(JsonErrorKind::Syntax, error.valid_up_to()));
    }
    let mut scanner = Scanner { document, at: 0, open: Vec::new(), closed: Vec::new() };
    scanner.skip_white_space();
    let root = scanner.value(fields.root(), limits::JSON_DEPTH_MAX)?;
    scanner.skip_white_space();
    if scanner.at != document.len() {
        return Err(scanner.error(JsonErrorKind::Syntax));
    }
    Ok(Scanned { document, root, entries: scanner.closed })
}

/// Positions, and entries, of which there are fewer than bytes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "documents are at most JSON_BYTES_MAX long, which is u32::MAX"
)]
fn narrow(position: usize) -> u32 {
    debug_assert!(position <= limits::JSON_BYTES_MAX);
    position as u32
}

struct Scanner<'a> {
    document: &'a [u8],
    at: usize,
    /// Entries of containers that are still open, innermost last.
    open: Vec<Entry>,
    /// Entries of containers that are complete, each container's together.
    closed: Vec<Entry>,
}

impl Scanner<'_> {
    fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError::new(kind, self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.document.get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Goes past `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start: narrow(start), end: narrow(self.at) }
    }

    fn value(&mut self, keep: Keep<'_>, depth_left: usize) -> Result<Node, JsonError> {
        if matches!(keep, Keep::Nothing) {
            // What does not count must be valid all the same.
            self.value(Keep::All, depth_left)?;
            return Ok(Node::Dropped);
        }
        let start = self.at;
        match self.peek() {
            Some(b'{') if depth_left > 0 => return self.object(keep, depth_left - 1),
            Some(b'[') if depth_left > 0 => return self.array(keep, depth_left - 1),
            Some(b'{' | b'[') => return Err(self.error(JsonErrorKind::TooDeep)),
            Some(b'"') => {
                self.string()?;
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.literal(b"true")?,
            Some(b'f') => self.literal(b"false")?,
            Some(b'n') => self.literal(b"null")?,
            _ => return Err(self.error(JsonErrorKind::Syntax)),
        }
        Ok(if keep.keeps_scalars() { Node::Text(self.span_from(start)) } else { Node::Dropped })
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if !self.document[self.at..].starts_with(word) {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        self.at += word.len();
        Ok(())
    }

    /// Goes past a string and gives what stands between its quotes.
    fn string(&mut self) -> Result<Span, JsonError> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let inner = self.span_from(start);
                    self.at += 1;
                    return Ok(inner);
                }
                Some(b'\\') => self.escape()?,
                Some(0..0x20) | None => return Err(self.error(JsonErrorKind::Syntax)),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.document.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.document.get(self.at + 2..self.at + 6) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => self.at += 6,
                _ => return Err(self.error(JsonErrorKind::Syntax)),
            },
            _ => return Err(self.error(JsonErrorKind::Syntax)),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _signed = self.take(b'+') || self.take(b'-');
            self.digits()?;
            number::check(&self.document[start..self.at])
                .map_err(|number::OutOfRange| JsonError::new(JsonErrorKind::NumberRange, start))?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error(JsonErrorKind::Syntax)) } else { Ok(()) }
    }

    fn object(&mut self, keep: Keep<'_>, depth_left: usize) -> Result<Node, JsonError> {
        let start = self.at;
        let base = self.open.len();
        let mut in_order = true;
        self.at += 1;
        self.skip_white_space();
        let mut ended = self.take(b'}');
        while !ended {
            let entry = self.member(keep, depth_left)?;
            in_order &= matches!(entry.value, Node::Text(_));
            if let Some(previous) = self.open[base..].last() {
                in_order &= self.order(previous, &entry) == Ordering::Less;
            }
            self.open.push(entry);
            self.skip_white_space();
            ended = self.take(b'}');
            if !ended && !self.take(b',') {
                return Err(self.error(JsonErrorKind::Syntax));
            }
        }
        if in_order && keep.keeps_all() {
            self.open.truncate(base);
            return Ok(Node::Text(self.span_from(start)));
        }
        self.sort_members(base, start)?;
        Ok(Node::Object(self.close(base)))
    }

    fn member(&mut self, keep: Keep<'_>, depth_left: usize) -> Result<Entry, JsonError> {
        self.skip_white_space();
        if self.peek() != Some(b'"') {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        let name = self.string()?;
        self.skip_white_space();
        if !self.take(b':') {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        self.skip_white_space();
        let inner = name.of(self.document);
        let name_compares_by_bytes = string::compares_by_bytes(inner);
        let value = self.value(keep.member(|text| string::means(inner, text)), depth_left)?;
        Ok(Entry { name, name_compares_by_bytes, value })
    }

    fn order(&self, a: &Entry, b: &Entry) -> Ordering {
        let (a_name, b_name) = (a.name.of(self.document), b.name.of(self.document));
        if a.name_compares_by_bytes && b.name_compares_by_bytes {
            a_name.cmp(b_name)
        } else {
            string::compare(a_name, b_name)
        }
    }

    fn sort_members(&mut self, base: usize, start: usize) -> Result<(), JsonError> {
        let mut members = self.open.split_off(base);
        members.sort_unstable_by(|a, b| self.order(a, b));
        // Names that were dropped count as well: which of two such members a reader would see is as uncertain.
        if members.windows(2).any(|pair| self.order(&pair[0], &pair[1]) == Ordering::Equal) {
            return Err(JsonError::new(JsonErrorKind::DuplicateName, start));
        }
        self.open.append(&mut members);
        Ok(())
    }

    fn array(&mut self, keep: Keep<'_>, depth_left: usize) -> Result<Node, JsonError> {
        let start = self.at;
        let base = self.open.len();
        let mut text_from = start;
        let mut index = 0;
        self.at += 1;
        self.skip_white_space();
        let mut ended = self.take(b']');
        while !ended {
            self.skip_white_space();
            let before = self.at;
            let value = self.value(keep.element(index), depth_left)?;
            index += 1;
            if !keep.keeps_all() {
                self.push(value);
            } else if !matches!(value, Node::Text(_)) {
                // Everything up to here is in order, and so is one text, commas and brackets included.
                self.push(Node::Text(Span { start: narrow(text_from), end: narrow(before) }));
                self.push(value);
                text_from = self.at;
            }
            self.skip_white_space();
            ended = self.take(b']');
            if !ended && !self.take(b',') {
                return Err(self.error(JsonErrorKind::Syntax));
            }
        }
        if !keep.keeps_all() {
            return Ok(Node::Array(self.close(base)));
        }
        if text_from == start {
            return Ok(Node::Text(self.span_from(start)));
        }
        self.push(Node::Text(self.span_from(text_from)));
        Ok(Node::Sequence(self.close(base)))
    }

    fn push(&mut self, value: Node) {
        self.open.push(Entry { name: Span { start: 0, end: 0 }, name_compares_by_bytes: true, value });
    }

    /// Moves the entries of a container that is complete to where they stay, without those that are not kept.
    fn close(&mut self, base: usize) -> Entries {
        let first = self.closed.len();
        self.closed.extend(self.open.drain(base..).filter(|entry| !matches!(entry.value, Node::Dropped)));
        Entries { first: narrow(first), count: narrow(self.closed.len() - first) }
    }
}
