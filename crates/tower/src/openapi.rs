//! The header as a parameter for the OpenAPI document of whoever uses the layer.

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};

use crate::config::Rules;
use crate::key::KeyAlphabet;
use crate::layer::IdempotencyLayer;

/// The `Idempotency-Key` header in an OpenAPI document (3.0 or 3.1), as it holds for a layer or for one of its routes:
/// whether it is required, which keys are taken, and for how long one is remembered.
///
/// With utoipa: `serde_json::from_value::<utoipa::openapi::path::Parameter>(parameter.to_json())`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    required: bool,
    chars_max: usize,
    alphabet: KeyAlphabet,
    retention: Duration,
}

/// The operations of a path item.
const METHODS: [(&str, Method); 8] = [
    ("get", Method::GET),
    ("put", Method::PUT),
    ("post", Method::POST),
    ("delete", Method::DELETE),
    ("options", Method::OPTIONS),
    ("head", Method::HEAD),
    ("patch", Method::PATCH),
    ("trace", Method::TRACE),
];

const NAME: &str = "Idempotency-Key";

impl Parameter {
    const fn of(rules: &Rules) -> Self {
        Self {
            // Report mode refuses nobody.
            required: rules.require_key && rules.enforce,
            chars_max: rules.key_chars_max,
            alphabet: rules.alphabet,
            retention: rules.policy.retention(),
        }
    }

    /// Whether a request needs it.
    pub const fn is_required(&self) -> bool {
        self.required
    }

    /// The parameter object.
    pub fn to_json(&self) -> Value {
        let remembered = self.retention.as_secs();
        json!({
            "name": NAME,
            "in": "header",
            "required": self.required,
            "description": format!(
                "A key of the client's choice, the same on every retry of one request and never used for another: \
                 the request takes effect once, and a retry is given the first answer. A UUID is a good one. It is \
                 a string in quotes (RFC 9651), or the same without the quotes. A key is forgotten {} after its \
                 request has ended, when the Idempotency-Expires header of the answer says; then it is as good as \
                 new.",
                spoken(self.retention)
            ),
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": self.header_chars_max(),
                "pattern": self.pattern()
            },
            "example": "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"",
            "x-idempotency-retention-seconds": remembered
        })
    }

    /// Characters of the header's value: a string in quotes is two longer than the key, and may escape all of it.
    const fn header_chars_max(&self) -> usize {
        match self.alphabet {
            KeyAlphabet::Token => self.chars_max + 2,
            KeyAlphabet::Printable | KeyAlphabet::PrintableBare => 2 * self.chars_max + 2,
        }
    }

    /// Exactly the values that are taken, as a regular expression of ECMA-262.
    fn pattern(&self) -> String {
        // What stands in a string of RFC 9651: all printable ASCII, with a backslash before `"` and `\`.
        let quoted = r#"(?:[ !#-\[\]-~]|\\["\\])"#;
        let max = self.chars_max;
        match self.alphabet {
            KeyAlphabet::Token => format!(r#"^(?:"[A-Za-z0-9_-]{{1,{max}}}"|[A-Za-z0-9_-]{{1,{max}}})$"#),
            KeyAlphabet::Printable => {
                format!(r#"^(?:"{quoted}{{1,{max}}}"|[A-Za-z0-9!#$%&'*+.^_`|~-]{{1,{max}}})$"#)
            }
            // Spaces around a value are no part of it.
            KeyAlphabet::PrintableBare if max == 1 => format!(r#"^(?:"{quoted}"|[!#-~])$"#),
            KeyAlphabet::PrintableBare => {
                format!(r#"^(?:"{quoted}{{1,{max}}}"|[!#-~](?:[ -~]{{0,{}}}[!-~])?)$"#, max - 2)
            }
        }
    }
}

impl IdempotencyLayer {
    /// The header as a parameter for an OpenAPI document, as it holds where no matcher says otherwise.
    pub fn openapi_parameter(&self) -> Parameter {
        Parameter::of(&self.usual)
    }

    /// The header as a parameter of one operation, by the rules that hold for it; nothing, where it is not protected.
    /// The path may be a template, as documents have them: `/orders/{id}/pay`.
    pub fn openapi_parameter_of(&self, method: &Method, path: &str) -> Option<Parameter> {
        let rules = self.shared.matched(method, path, &self.usual, self.matches);
        rules.concerns(method).then(|| Parameter::of(rules))
    }

    /// Adds the header to all operations of an OpenAPI document that are protected, by the rules of each; how many
    /// these are. The document's paths must be those that the layer sees.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use semel_tower::{Config, IdempotencyLayer, RouteOptions};
    /// # let ledger = semel_core::Ledger::new(
    /// #     Arc::new(semel_stores::memory::MemoryStore::new()),
    /// #     Arc::new(semel_runtime::OsEntropy),
    /// # );
    /// let config = Config::new("orders").shared_keys(true).route("POST /pay", RouteOptions::new().require_key(true))?;
    /// let layer = IdempotencyLayer::try_new(ledger, config)?;
    /// let mut document = serde_json::json!({ "paths": { "/pay": { "get": {}, "post": {} } } });
    /// assert_eq!(layer.add_to_openapi(&mut document), 1);
    /// assert_eq!(document["paths"]["/pay"]["post"]["parameters"][0]["required"], true);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_to_openapi(&self, document: &mut serde_json::Value) -> usize {
        add(document, |method, path| self.openapi_parameter_of(method, path))
    }
}

/// Gives each operation of a document the parameter that holds for it; how many there are.
fn add(document: &mut Value, of: impl Fn(&Method, &str) -> Option<Parameter>) -> usize {
    let mut added = 0;
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return added };
    for (path, item) in paths {
        for (name, method) in &METHODS {
            let Some(operation) = item.get_mut(name).and_then(Value::as_object_mut) else { continue };
            if let Some(parameter) = of(method, path) {
                set(operation, parameter.to_json());
                added += 1;
            }
        }
    }
    added
}

/// Puts the parameter into an operation, in the place of one of that name.
fn set(operation: &mut Map<String, Value>, parameter: Value) {
    let parameters = operation.entry("parameters").or_insert_with(|| Value::Array(Vec::new()));
    let Some(parameters) = parameters.as_array_mut() else { return };
    let is_ours = |given: &Value| {
        given["in"] == "header" && given["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    };
    parameters.retain(|given| !is_ours(given));
    parameters.push(parameter);
}

/// A span in words, in the largest unit that it is whole in.
fn spoken(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(24 * 60 * 60, "day"), (60 * 60, "hour"), (60, "minute")];
    let found = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    let (count, unit) = found.map_or((seconds, "second"), |(unit, name)| (seconds / unit, name));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_their_largest_whole_unit() {
        for (seconds, said) in
            [(86_400, "1 day"), (90_000, "25 hours"), (120, "2 minutes"), (61, "61 seconds"), (1, "1 second")]
        {
            assert_eq!(spoken(Duration::from_secs(seconds)), said);
        }
    }
}
