//! Paths and query strings as they are compared (RFC 3986, section 6.2.2).
//!
//! Only what every server must read alike is normalised: escapes of unreserved characters are resolved, hexadecimal
//! digits are upper case. An escaped slash stays an escaped slash, and `+` is not taken for a space.

/// One parameter of a query: the name, and the value when there is an equals sign.
pub(crate) type Parameter = (Vec<u8>, Option<Vec<u8>>);

/// A path or a piece of a query with one spelling of its escapes.
pub(crate) fn normalise_escapes(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes();
    let mut normal = Vec::with_capacity(bytes.len());
    while let Some((&first, rest)) = bytes.split_first() {
        match escaped(bytes) {
            Some(byte) if is_unreserved(byte) => normal.push(byte),
            Some(_) => normal.extend_from_slice(&bytes[..3].to_ascii_uppercase()),
            None => {
                normal.push(first);
                bytes = rest;
                continue;
            }
        }
        bytes = &bytes[3..];
    }
    normal
}

/// The byte that an escape at the start of `bytes` stands for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(nibble(*high)? << 4 | nibble(*low)?)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The parameters of a query in order of their names. Parameters of one name keep their order among themselves, since
/// it is their meaning (`sort=a&sort=b`). Empty pieces (`a=1&&b=2`) are none.
pub(crate) fn parameters(query: &str) -> Vec<Parameter> {
    let mut parameters: Vec<Parameter> = query
        .split('&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| match piece.split_once('=') {
            Some((name, value)) => (normalise_escapes(name), Some(normalise_escapes(value))),
            None => (normalise_escapes(piece), None),
        })
        .collect();
    parameters.sort_by(|a, b| a.0.cmp(&b.0));
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_have_one_spelling_and_reserved_ones_stay() {
        let check =
            |text, expected: &str| assert_eq!(normalise_escapes(text), expected.as_bytes(), "of {text}");
        check("/a%7Eb/%41%62", "/a~b/Ab");
        check("/a%2fb", "/a%2Fb");
        check("/a/b", "/a/b");
        check("/100%", "/100%");
        check("/%zz%4", "/%zz%4");
        check("/%c3%a9", "/%C3%A9");
        check("/%25%34%31", "/%2541");
    }

    #[test]
    fn parameters_are_ordered_by_name_and_stay_in_order_within_one() {
        let names: Vec<_> = parameters("b=2&a=z&&b=1&c&%61=y&c=")
            .into_iter()
            .map(|(name, value)| {
                format!("{}{:?}", name.escape_ascii(), value.map(|v| v.escape_ascii().to_string()))
            })
            .collect();
        assert_eq!(names.join(" "), r#"aSome("z") aSome("y") bSome("2") bSome("1") cNone cSome("")"#);
    }
}
