//! The second pass: writes what the scan found, in canonical order. It cannot fail.

use super::scan::{Entries, Node, Scanned};
use super::{number, string};

/// Appends the canonical form to `form`.
pub(super) fn emit(scanned: &Scanned<'_>, form: &mut Vec<u8>) {
    form.reserve(scanned.document.len());
    node(scanned, scanned.root, form);
}

// Recurses as deep as the scan did, which is bounded by `JSON_DEPTH_MAX`.
fn node(scanned: &Scanned<'_>, value: Node, form: &mut Vec<u8>) {
    match value {
        Node::Text(span) => text(span.of(scanned.document), form),
        Node::Sequence(entries) => {
            for entry in scanned.entries(entries) {
                node(scanned, entry.value, form);
            }
        }
        Node::Array(entries) => {
            form.push(b'[');
            separated(scanned, entries, form, false);
            form.push(b']');
        }
        Node::Object(entries) => {
            form.push(b'{');
            separated(scanned, entries, form, true);
            form.push(b'}');
        }
        // Only the root can be one: containers leave theirs out. A document of which nothing is kept writes nothing.
        Node::Dropped => {}
    }
}

fn separated(scanned: &Scanned<'_>, entries: Entries, form: &mut Vec<u8>, named: bool) {
    for (position, entry) in scanned.entries(entries).iter().enumerate() {
        if position > 0 {
            form.push(b',');
        }
        if named {
            string::write(entry.name.of(scanned.document), form);
            form.push(b':');
        }
        node(scanned, entry.value, form);
    }
}

/// Writes a checked stretch of the document token by token. Punctuation and literals stand as they are.
fn text(text: &[u8], form: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => at += 1,
            b'"' => {
                let length = string_length(&text[at + 1..]);
                string::write(&text[at + 1..][..length], form);
                at += length + 2;
            }
            b'-' | b'0'..=b'9' => {
                let length = text[at..].iter().take_while(|&&byte| is_in_number(byte)).count();
                number::write(&text[at..][..length], form);
                at += length;
            }
            other => {
                form.push(other);
                at += 1;
            }
        }
    }
}

fn is_in_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// How many bytes stand before the closing quote.
fn string_length(inner: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = inner.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at.min(inner.len())
}
