//! How the values that several bodies share are described.

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::value::{Json, Time};

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A point in time: RFC 3339, UTC, with milliseconds."))
            .examples([serde_json::json!("2026-11-21T04:30:00.000Z")])
            .into()
    }
}

impl ToSchema for Time {}

impl PartialSchema for Json {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some(
                "Any JSON. It is passed on as the text that came, so numbers above 2^53 keep their digits.",
            ))
            .into()
    }
}

impl ToSchema for Json {}
