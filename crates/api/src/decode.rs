//! Bodies into types, with the name of the field that is wrong.

use serde::Deserialize;

use crate::error::Detail;

/// Reads a JSON body.
///
/// # Errors
/// It is not JSON, or not of this shape: what is wrong and where, fit to be shown to whoever sent it. No value of the
/// body is in it.
pub fn decode<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Detail> {
    // serde would take a list of the fields' values for the object.
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|first| b"[\"-0123456789tfn".contains(first)) {
        return Err(Detail::new("body", "type", "must be an object"));
    }
    // Keeping track of the path costs, so only a body that is wrong pays for it.
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| explain(&error))?;
    reader.end().map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Detail::new("body", "json", format!("more than one JSON value ({place})"))
    })?;
    Ok(value)
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> Detail {
    let path = error.path().to_string();
    let inner = error.inner();
    let place = format!("line {}, column {}", inner.line(), inner.column());
    let whole = inner.to_string();
    let said = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(said, _)| said);
    if !inner.is_data() {
        return Detail::new("body", "json", format!("not JSON: {said} ({place})"));
    }
    let (code, named) = ["missing", "unknown", "duplicate"]
        .iter()
        .find_map(|kind| {
            let rest = said.strip_prefix(kind)?.strip_prefix(" field `")?;
            Some((*kind, rest.split('`').next()?))
        })
        .map_or(("type", None), |(kind, field)| (kind, Some(field)));
    let field = match (path.as_str(), named) {
        (".", None) => "body".to_owned(),
        (".", Some(named)) => named.to_owned(),
        (path, Some(named)) if path.rsplit('.').next() != Some(named) => format!("{path}.{named}"),
        (path, _) => path.to_owned(),
    };
    let message = match code {
        "missing" => "is missing".to_owned(),
        "duplicate" => "is given twice".to_owned(),
        "unknown" => {
            let known = said.split_once("expected ").map_or("", |(_, known)| known);
            format!("is not known here; expected {known}")
        }
        // `invalid type: string "…", expected u64`: the value is the sender's, and is not repeated.
        _ => match said.rsplit_once(", expected ") {
            Some((_, expected)) => format!("must be {} ({place})", in_words(expected)),
            None => format!("{said} ({place})"),
        },
    };
    Detail::new(field, code, message)
}

/// What serde expects, in words of JSON instead of Rust's.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative and not too large",
        "a map" => "an object",
        "a sequence" => "a list",
        named if named.starts_with("struct ") => "an object",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{CheckpointRequest, ClaimRequest};
    use crate::execute::ExecuteRequest;

    fn wrong<'de, T: Deserialize<'de>>(body: &'de str) -> String {
        let detail = decode::<T>(body.as_bytes()).err().unwrap();
        format!("{} | {} | {}", detail.field, detail.code, detail.message)
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let check = |body, expected: &str| assert_eq!(wrong::<ExecuteRequest<'_>>(body), expected, "{body}");
        check(r#"{"payload":{}}"#, "operation | missing | is missing");
        check(r#"{"operation":"a"}"#, "payload | missing | is missing");
        check(r#"{"operation":5,"payload":{}}"#, "operation | type | must be a string (line 1, column 14)");
        check(r#"{"operation":"a","operation":"b","payload":1}"#, "operation | duplicate | is given twice");
        check(
            r#"{"operation":"a","payload":1,"paylaod":2}"#,
            "paylaod | unknown | is not known here; expected one of `operation`, `payload`, `idempotencyKey`, \
             `idempotency_key`, `attempt_id`",
        );
        check("", "body | json | not JSON: EOF while parsing a value (line 1, column 0)");
        check("{", "body | json | not JSON: EOF while parsing an object (line 1, column 1)");
        check("null", "body | type | must be an object");
        check(r#" ["a",{}]"#, "body | type | must be an object");
        check("[]", "body | type | must be an object");
        check(
            r#"{"operation":"a","payload":1} 2"#,
            "body | json | more than one JSON value (line 1, column 31)",
        );
    }

    #[test]
    fn a_nested_field_has_its_path_and_the_senders_value_is_not_repeated() {
        let body = r#"{"operation":"a","policy":{"semantics":"hunter2"}}"#;
        let said = wrong::<ClaimRequest>(body);
        assert!(said.starts_with("policy.semantics | type | "), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        let said = wrong::<ClaimRequest>(r#"{"operation":"a","policy":{"x":1}}"#);
        assert!(said.starts_with("policy.x | unknown | "), "{said}");
        let said = wrong::<CheckpointRequest>(r#"{"token":{"hunter2":1},"phase":"a"}"#);
        assert!(said.starts_with("token | type | ") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn what_is_expected_is_said_in_words_of_json_and_not_of_rust() {
        let check = |member: &str, expected: &str| {
            let said = wrong::<ClaimRequest>(&format!(r#"{{"operation":"a",{member}}}"#));
            assert!(said.contains(&format!("must be {expected} (line 1")), "{said}");
        };
        check(r#""policy":"resume""#, "an object");
        check(r#""tags":["a"]"#, "an object");
        check(r#""lease_ms":"5m""#, "a whole number that is not negative and not too large");
        check(r#""lease_ms":-1"#, "a whole number that is not negative and not too large");
    }
}
