//! Strings: decoding escapes, comparing names, and the one spelling of RFC 8785, section 3.2.2.2.

use std::cmp::Ordering;

/// What a string means, decoded one unit at a time from what stands between its quotes. The scan has checked it.
struct Units<'a> {
    rest: &'a str,
    pending_low: Option<u16>,
}

impl Units<'_> {
    fn escape(&mut self) -> u16 {
        let escape = self.rest.as_bytes();
        let (unit, length) = match escape.get(1) {
            Some(b'u') => (hex4(&escape[2..]), 6),
            Some(b'b') => (0x08, 2),
            Some(b'f') => (0x0c, 2),
            Some(b'n') => (0x0a, 2),
            Some(b'r') => (0x0d, 2),
            Some(b't') => (0x09, 2),
            // `"`, `\` and `/` stand for themselves.
            other => (other.map_or(0, |&byte| u16::from(byte)), 2),
        };
        self.rest = self.rest.get(length..).unwrap_or_default();
        unit
    }
}

/// UTF-16 code units: the order of RFC 8785, and the only one that lone surrogates have a place in.
impl Iterator for Units<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some(low) = self.pending_low.take() {
            return Some(low);
        }
        let scalar = self.rest.chars().next()?;
        if scalar == '\\' {
            return Some(self.escape());
        }
        self.rest = &self.rest[scalar.len_utf8()..];
        let mut pair = [0; 2];
        let [first, low @ ..] = &*scalar.encode_utf16(&mut pair) else { return None };
        self.pending_low = low.first().copied();
        Some(*first)
    }
}

fn hex4(digits: &[u8]) -> u16 {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    };
    digits.iter().take(4).fold(0, |value, &digit| value << 4 | u16::from(nibble(digit)))
}

fn units(inner: &[u8]) -> Units<'_> {
    Units { rest: std::str::from_utf8(inner).unwrap_or_default(), pending_low: None }
}

/// Whether a name compares by its bytes as it does by its UTF-16 units: no escapes, nothing from U+E000 up.
pub(super) fn compares_by_bytes(inner: &[u8]) -> bool {
    inner.iter().all(|&byte| byte != b'\\' && byte < 0xee)
}

/// The order of two names, as UTF-16 code units of what they mean.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    units(a).cmp(units(b))
}

/// Whether a name, as it is spelled between its quotes, means `text`.
pub(super) fn means(inner: &[u8], text: &str) -> bool {
    units(inner).eq(text.encode_utf16())
}

/// Appends the canonical spelling of what stands between the quotes, with quotes.
pub(super) fn write(inner: &[u8], form: &mut Vec<u8>) {
    form.push(b'"');
    match inner.iter().position(|&byte| byte == b'\\') {
        None => form.extend_from_slice(inner),
        Some(first) => {
            form.extend_from_slice(&inner[..first]);
            write_escaped(&inner[first..], form);
        }
    }
    form.push(b'"');
}

fn write_escaped(inner: &[u8], form: &mut Vec<u8>) {
    for unit in char::decode_utf16(units(inner)) {
        match unit {
            Ok('"') => form.extend_from_slice(b"\\\""),
            Ok('\\') => form.extend_from_slice(b"\\\\"),
            Ok('\u{8}') => form.extend_from_slice(b"\\b"),
            Ok('\u{c}') => form.extend_from_slice(b"\\f"),
            Ok('\n') => form.extend_from_slice(b"\\n"),
            Ok('\r') => form.extend_from_slice(b"\\r"),
            Ok('\t') => form.extend_from_slice(b"\\t"),
            Ok(control @ '\0'..'\u{20}') => push_u_escape(control as u16, form),
            Ok(scalar) => form.extend_from_slice(scalar.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => push_u_escape(lone.unpaired_surrogate(), form),
        }
    }
}

fn push_u_escape(unit: u16, form: &mut Vec<u8>) {
    form.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        form.push(b"0123456789abcdef"[usize::from(unit >> shift & 0xf)]);
    }
}
