//! Transactions of sqlx, for claims that join them.

use sqlx::encode::IsNull;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid};
use sqlx::{AssertSqlSafe, Encode, Postgres, Row, Type, ValueRef};

use super::joined::{Cells, Transaction, Value};

/// A value that is encoded already.
struct Encoded<'a>(&'a Value);

impl Type<Postgres> for Encoded<'_> {
    fn type_info() -> PgTypeInfo {
        // Never asked for: each value brings its own along.
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Encoded<'_> {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, sqlx::error::BoxDynError> {
        let Some(bytes) = self.0.bytes() else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.0.oid())))
    }
}

impl Transaction for sqlx::Transaction<'_, Postgres> {
    type Error = sqlx::Error;

    async fn rows(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Cells>, sqlx::Error> {
        // The text is this store's own, and everything that is given comes as a value.
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for value in values {
            query = query.bind(Encoded(value));
        }
        let rows = query.fetch_all(&mut **self).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut cells = Vec::with_capacity(row.len());
            for at in 0..row.len() {
                let cell = row.try_get_raw(at)?;
                let bytes = if cell.is_null() {
                    None
                } else {
                    Some(cell.as_bytes().map_err(sqlx::Error::Decode)?.to_vec())
                };
                cells.push(bytes);
            }
            all.push(Cells(cells));
        }
        Ok(all)
    }

    fn sqlstate(error: &sqlx::Error) -> Option<String> {
        error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
    }
}
