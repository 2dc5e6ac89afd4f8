//! What was tried for a record, from the audit log: a try writes down what came of it, and outlives the record's next one.

use std::cmp::Reverse;

use semel_api::dead::Attempt;
use semel_api::limits::ATTEMPTS_SHOWN_MAX;
use semel_api::{ApiError, Time};
use semel_core::RecordId;
use semel_core::audit::{Action, Entry};
use semel_core::query::AuditQuery;

use crate::admin::{Admin, records, view};
use crate::config::Role;

/// Names that a try's entry has.
const ATTEMPT: &str = "attempt";
const RESULT: &str = "result";
const STATUS: &str = "status";
const LATENCY_MS: &str = "latency_ms";
pub(in crate::admin) const RESPONSE: &str = "response";

/// What says how a try ended. (Duplicates of an event write entries about its record, too, and may be many: each of these is
/// asked for by itself. An operator's command says so by another action.)
const ENDS: [Action; 4] = [Action::Completed, Action::Dead, Action::Unknown, Action::Released];

/// The record's last tries, the last one first, and whether there were more than are shown.
///
/// # Errors
/// The store does not answer.
pub(super) async fn of(admin: &Admin, id: RecordId, role: Role) -> Result<(Vec<Attempt>, bool), ApiError> {
    let most = ATTEMPTS_SHOWN_MAX as usize;
    let (mut entries, mut more) = (Vec::new(), false);
    for action in ENDS {
        let query = AuditQuery { record: Some(id), action: Some(action), ..AuditQuery::default() };
        let page = admin.store.audit(query, None, most).await.map_err(|error| records::storage(&error))?;
        more |= page.next.is_some();
        entries.extend(page.items);
    }
    // Where tries write entries of their own, those of traffic tell of the same tries again.
    if entries.iter().any(is_try) {
        entries.retain(is_try);
    }
    entries.sort_by_key(|entry| Reverse(entry.at));
    more |= entries.len() > most;
    Ok((entries.iter().take(most).map(|entry| attempt(entry, role)).collect(), more))
}

fn is_try(entry: &Entry) -> bool {
    value(entry, ATTEMPT).is_some()
}

fn attempt(entry: &Entry, role: Role) -> Attempt {
    let response = value(entry, RESPONSE).filter(|_| role == Role::Operate);
    Attempt {
        at: Time::from_millis(entry.at.as_millis()),
        attempt: value(entry, ATTEMPT).and_then(|text| text.parse().ok()),
        to_state: entry.to.map(view::state),
        result: value(entry, RESULT).map(str::to_owned),
        status: value(entry, STATUS).and_then(|text| text.parse().ok()),
        latency_ms: value(entry, LATENCY_MS).and_then(|text| text.parse().ok()),
        error: entry.reason.as_ref().map(|reason| reason.as_str().to_owned()),
        response: response.map(str::to_owned),
    }
}

fn value<'e>(entry: &'e Entry, name: &str) -> Option<&'e str> {
    entry.metadata.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use semel_core::record::Text;

    use super::*;

    #[test]
    fn an_answer_of_a_target_is_for_those_who_may_see_bodies() {
        let mut entry = Entry::new(Action::Released, Text::new("semel"));
        let named = [(ATTEMPT, "3"), (STATUS, "503"), (LATENCY_MS, "12"), (RESPONSE, "try later")];
        entry.metadata = named.map(|(name, value)| (name.into(), Text::new(value))).to_vec();
        entry.reason = Some(Text::new("the target answered 503"));
        let seen = attempt(&entry, Role::Operate);
        assert_eq!((seen.attempt, seen.status, seen.latency_ms), (Some(3), Some(503), Some(12)));
        assert_eq!(seen.response.as_deref(), Some("try later"));
        assert_eq!(seen.error.as_deref(), Some("the target answered 503"));
        assert_eq!(attempt(&entry, Role::Read).response, None);
    }
}
