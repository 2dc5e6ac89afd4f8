//! An operator's judgement: one command on one record, whether it was named alone or found by a filter.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use semel_api::limits::REASON_BYTES_MAX;
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::command::{Discard, Judged, Resolution, Resolve, Revive};
use semel_core::record::{StateName, Text};
use semel_core::{Record, RecordId, Version};
use serde::Deserialize;

use super::access::Operator;
use super::{Admin, Ids, dead, records};
use crate::door::{self, Refusal};
use crate::limits::ADMIN_BODY_BYTES_MAX;
use crate::telemetry::logs;

/// What is done to a record.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// Try it anew.
    Revive {
        /// Also a duplicate that is filed for analysis: its event was taken before.
        force: bool,
    },
    /// Put it aside.
    Discard,
    /// Say what it did.
    Resolve(Resolution),
}

impl What {
    /// The states that it can change.
    pub(super) const fn states(&self) -> &'static [StateName] {
        match self {
            Self::Revive { .. } => &[StateName::Dead],
            Self::Discard => &[StateName::Pending, StateName::Unknown, StateName::Dead],
            Self::Resolve(_) => &[StateName::Unknown, StateName::Dead],
        }
    }
}

/// Somebody who may change something, and what they have sent.
pub(super) struct Judge {
    pub(super) admin: Admin,
    operator: Operator,
    ids: Ids,
    body: Bytes,
}

impl FromRequest<Admin> for Judge {
    type Rejection = Refusal;

    /// Whether they may is asked before a byte of the body is read.
    async fn from_request(request: Request, admin: &Admin) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let operator: Operator = parts.extensions.remove().ok_or(ErrorCode::Internal)?;
        operator.may_operate()?;
        let ids: Ids = parts.extensions.remove().ok_or(ErrorCode::Internal)?;
        let body = door::json_body(&parts.headers, body, ADMIN_BODY_BYTES_MAX, &admin.stopping).await?;
        Ok(Self { admin: admin.clone(), operator, ids, body })
    }
}

impl Judge {
    /// What was sent.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        Ok(semel_api::decode(&self.body)?)
    }

    /// What the audit log calls them.
    pub(super) fn actor(&self) -> Text {
        Text::new(&self.operator.actor)
    }

    /// What links what they do.
    pub(super) fn correlation_id(&self) -> Text {
        Text::new(&self.ids.correlation_id)
    }

    /// The ids of the request.
    pub(super) const fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Whether it is a delivery that is kept for analysis, of an event that was taken before.
    async fn is_filed_duplicate(&self, id: RecordId) -> Result<bool, ApiError> {
        let record = self.admin.ledger.load(id).await.map_err(|error| records::ledger(&error))?;
        Ok(record.is_some_and(|record| {
            record.state().name() == StateName::Dead
                && dead::Kind::of(record.request().tags()) == dead::Kind::Duplicate
        }))
    }

    /// Does it, unless the record is no longer of this version.
    ///
    /// # Errors
    /// The record is gone, has changed, or is in no state for it; or the store does not answer.
    pub(super) async fn apply(
        &self,
        what: &What,
        id: RecordId,
        version: Version,
        reason: Text,
    ) -> Result<Arc<Record>, ApiError> {
        let ledger = &self.admin.ledger;
        let actor = self.actor();
        let correlation_id = Some(self.correlation_id());
        let judged = match what {
            What::Revive { force: false } if self.is_filed_duplicate(id).await? => {
                let why = "is a duplicate of an event that was taken before: only force delivers it";
                let why = Detail::new("kind", "illegal", why);
                return Err(ApiError::new(ErrorCode::IllegalTransition).with_detail(why));
            }
            What::Revive { .. } => ledger.apply(&Revive { id, version, actor, reason, correlation_id }).await,
            What::Discard => ledger.apply(&Discard { id, version, actor, reason, correlation_id }).await,
            What::Resolve(resolution) => {
                let resolution = resolution.clone();
                ledger.apply(&Resolve { id, version, resolution, actor, reason, correlation_id }).await
            }
        };
        match judged.map_err(|error| records::ledger(&error))? {
            Judged::Done(record) => {
                let ids = &self.ids;
                logs::state_change(None, &record, Some(&ids.request_id), Some(&ids.correlation_id));
                Ok(record)
            }
            Judged::NotFound => Err(ErrorCode::NotFound.into()),
            Judged::VersionConflict(record) => {
                let now = Detail::new("version", "conflict", format!("is {} now", record.version()));
                Err(ApiError::new(ErrorCode::VersionConflict).with_detail(now))
            }
            Judged::Illegal(record, why) => {
                let now = format!("is {}: {why}", record.state().name().as_str());
                let now = Detail::new("state", "illegal", now);
                Err(ApiError::new(ErrorCode::IllegalTransition).with_detail(now))
            }
        }
    }
}

/// A reason that says something. It is cut nowhere, so that the audit log has what was said.
pub(super) fn reason(text: &str) -> Result<Text, ApiError> {
    if text.trim().is_empty() {
        return Err(Detail::new("reason", "missing", "must say why").into());
    }
    if text.len() > REASON_BYTES_MAX {
        let message = format!("must have at most {REASON_BYTES_MAX} bytes");
        return Err(Detail::new("reason", "value", message).into());
    }
    Ok(Text::new(text))
}
