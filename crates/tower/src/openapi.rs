//! The header as a parameter for the OpenAPI document of whoever uses the layer.

use serde_json::{Value, json};

use crate::config::Rules;
use crate::key::KeyAlphabet;

/// The `Idempotency-Key` header in an OpenAPI document (3.0 or 3.1).
///
/// With utoipa: `serde_json::from_value::<utoipa::openapi::path::Parameter>(parameter.to_json())`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    required: bool,
    chars_max: usize,
    alphabet: KeyAlphabet,
}

impl Parameter {
    pub(crate) const fn of(rules: &Rules) -> Self {
        Self { required: rules.require_key, chars_max: rules.key_chars_max, alphabet: rules.alphabet }
    }

    /// Whether a request needs it.
    pub const fn is_required(&self) -> bool {
        self.required
    }

    /// The parameter object.
    pub fn to_json(&self) -> Value {
        // The string in quotes is two characters longer, and may escape some.
        let schema = match self.alphabet {
            KeyAlphabet::Token => json!({
                "type": "string", "minLength": 1, "maxLength": self.chars_max + 2,
                "pattern": "^(\"[A-Za-z0-9_-]+\"|[A-Za-z0-9_-]+)$"
            }),
            KeyAlphabet::Printable | KeyAlphabet::PrintableBare => json!({
                "type": "string", "minLength": 1, "maxLength": 2 * self.chars_max + 2
            }),
        };
        json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": self.required,
            "description": "A key of the client's choice, the same on every retry of one request and never used \
                            for another: the request takes effect once, and a retry is given the first answer. \
                            A UUID is a good one.",
            "schema": schema,
            "example": "\"8e03978e-40d5-43e8-bc93-6894a57f9324\""
        })
    }
}
