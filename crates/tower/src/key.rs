//! The `Idempotency-Key` header: a Structured Field string (`"8e03978e-…"`, RFC 9651, as
//! draft-ietf-httpapi-idempotency-key-header-07 has it) or a bare token (RFC 9110, section 5.6.2). Both mean the same key.
//! A malformed or repeated header is refused, never ignored; so are parameters, which no draft gives a meaning.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::Key;

/// Which characters a key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlphabet {
    /// Letters, digits, `-` and `_`.
    Token,
    /// Printable ASCII, in a string in quotes; the bare form is a token.
    Printable,
    /// Printable ASCII in the bare form as well, as providers take it whose clients never send quotes.
    PrintableBare,
}

/// The header.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The key in the headers, if there is one.
///
/// # Errors
/// The header is malformed or there is more than one.
pub fn of_headers(headers: &HeaderMap, alphabet: KeyAlphabet) -> Result<Option<Key>, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("Idempotency-Key", "must be given once"));
    }
    let text = parse(value, alphabet).map_err(|problem| invalid("Idempotency-Key", problem))?;
    checked("Idempotency-Key", &text, alphabet).map(Some)
}

/// The key in a field of the body or in a path: the text itself.
///
/// # Errors
/// It is no key of that alphabet.
pub fn of_text(field: &str, text: &str, alphabet: KeyAlphabet) -> Result<Key, ApiError> {
    checked(field, text, alphabet)
}

/// The one key that header and body agree on.
///
/// # Errors
/// They disagree, or there is none.
pub fn agreed(header: Option<Key>, field: Option<(&str, Key)>) -> Result<Key, ApiError> {
    match (header, field) {
        (Some(header), Some((name, field))) if header != field => {
            Err(invalid(name, "is not the key that the Idempotency-Key header gives"))
        }
        (Some(key), _) | (None, Some((_, key))) => Ok(key),
        (None, None) => Err(ErrorCode::IdempotencyKeyRequired.into()),
    }
}

fn invalid(field: &str, problem: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::IdempotencyKeyInvalid).with_detail(Detail::new(field, "key", problem))
}

fn checked(field: &str, text: &str, alphabet: KeyAlphabet) -> Result<Key, ApiError> {
    let key = Key::try_new(text).map_err(|problem| invalid(field, problem.to_string()))?;
    let (class, which) = match alphabet {
        KeyAlphabet::Token => (WORD, "letters, digits, `-` and `_`"),
        KeyAlphabet::Printable | KeyAlphabet::PrintableBare => (PRINTABLE, "printable ASCII characters"),
    };
    if !are_all(text, class) {
        return Err(invalid(field, format!("may have only {which}")));
    }
    Ok(key)
}

fn parse(value: &HeaderValue, alphabet: KeyAlphabet) -> Result<Cow<'_, str>, &'static str> {
    let text = value.to_str().map_err(|_| "may have only printable ASCII characters")?;
    let text = text.trim_matches(' ');
    match text.strip_prefix('"') {
        Some(rest) => sf_string(rest).map(Cow::Owned),
        None if text.is_empty() => Err("must not be empty"),
        None if alphabet == KeyAlphabet::PrintableBare || are_all(text, TOKEN) => Ok(Cow::Borrowed(text)),
        None => Err("must be a string in quotes (RFC 9651) or a token (RFC 9110)"),
    }
}

/// The rest of a Structured Field string after its opening quote (RFC 9651, section 4.2.5).
fn sf_string(rest: &str) -> Result<String, &'static str> {
    let mut text = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next() {
            None => return Err("is a string in quotes that does not end"),
            Some('"') => break,
            Some('\\') => match characters.next() {
                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                _ => return Err("has a backslash that escapes neither a quote nor a backslash"),
            },
            Some(plain @ ' '..='~') => text.push(plain),
            Some(_) => return Err("may have only printable ASCII characters"),
        }
    }
    if characters.as_str().is_empty() { Ok(text) } else { Err("has something after the string in quotes") }
}

/// Letters, digits, `-` and `_`.
const WORD: u8 = 1;
/// `tchar` of RFC 9110, section 5.6.2.
const TOKEN: u8 = 2;
/// From the space to the tilde.
const PRINTABLE: u8 = 4;

/// The classes of each byte: every byte of every key is looked up.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => WORD | TOKEN | PRINTABLE,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~' => TOKEN | PRINTABLE,
            _ => PRINTABLE,
        };
        byte += 1;
    }
    classes
};

fn are_all(text: &str, class: u8) -> bool {
    // No byte leads to a way out before the end, so that several are looked up at once.
    text.bytes().fold(class, |classes, byte| classes & CLASSES[usize::from(byte)]) == class
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn read(value: &str, alphabet: KeyAlphabet) -> Result<String, String> {
        match of_headers(&headers(&[value.as_bytes()]), alphabet) {
            Ok(key) => Ok(key.unwrap().as_str().to_owned()),
            Err(error) => Err(error.details()[0].message.clone()),
        }
    }

    #[test]
    fn both_forms_mean_the_same_key() {
        for value in ["8e03978e-40d5", "\"8e03978e-40d5\"", "  8e03978e-40d5 "] {
            assert_eq!(read(value, KeyAlphabet::Token).unwrap(), "8e03978e-40d5");
        }
    }

    #[test]
    fn what_is_malformed_is_refused_and_never_ignored() {
        let check =
            |value, said: &str| assert_eq!(read(value, KeyAlphabet::Token).unwrap_err(), said, "{value}");
        check("", "must not be empty");
        check("\"\"", "key must not be empty");
        check("\"a", "is a string in quotes that does not end");
        check("\"a\" b", "has something after the string in quotes");
        check("\"a\";b=1", "has something after the string in quotes");
        check("\"a\\n\"", "has a backslash that escapes neither a quote nor a backslash");
        check("a b", "must be a string in quotes (RFC 9651) or a token (RFC 9110)");
        check("a, b", "must be a string in quotes (RFC 9651) or a token (RFC 9110)");
        check("a.b", "may have only letters, digits, `-` and `_`");
        check("\"a b\"", "may have only letters, digits, `-` and `_`");
        check(&"x".repeat(256), "key must have at most 255 characters");
        assert_eq!(read(&"x".repeat(255), KeyAlphabet::Token).unwrap().len(), 255);
    }

    #[test]
    fn items_of_other_types_parameters_lists_and_broken_strings_are_no_key() {
        for value in [
            "?1",
            ":YQ==:",
            "@1659578233",
            "%\"a\"",
            "(\"a\")",
            "\"a\";p=1",
            "\"a\", \"b\"",
            "\"a",
            "a\"",
            r#""a\""#,
            r#""\a""#,
        ] {
            assert!(read(value, KeyAlphabet::Printable).is_err(), "{value}");
        }
    }

    #[test]
    fn a_repeated_header_is_refused_even_if_both_agree() {
        let error = of_headers(&headers(&[b"a", b"a"]), KeyAlphabet::Token).unwrap_err();
        assert_eq!(error.code(), ErrorCode::IdempotencyKeyInvalid);
    }

    #[test]
    fn bytes_that_are_no_ascii_are_refused() {
        for bytes in [&b"\xff"[..], "\"é\"".as_bytes(), b"a\tb"] {
            assert!(of_headers(&headers(&[bytes]), KeyAlphabet::Printable).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_wider_alphabet_takes_printable_ascii_with_its_escapes() {
        assert_eq!(read(r#""a \"b\" \\ c~""#, KeyAlphabet::Printable).unwrap(), r#"a "b" \ c~"#);
        assert_eq!(read("a.b", KeyAlphabet::Printable).unwrap(), "a.b");
    }

    #[test]
    fn header_and_body_must_agree() {
        let key = |text: &str| Key::try_new(text).unwrap();
        assert_eq!(agreed(Some(key("a")), Some(("key", key("a")))).unwrap(), key("a"));
        assert_eq!(agreed(None, Some(("key", key("a")))).unwrap(), key("a"));
        let error = agreed(Some(key("a")), Some(("key", key("b")))).unwrap_err();
        assert_eq!(error.code(), ErrorCode::IdempotencyKeyInvalid);
        assert_eq!(agreed(None, None).unwrap_err().code(), ErrorCode::IdempotencyKeyRequired);
    }
}
