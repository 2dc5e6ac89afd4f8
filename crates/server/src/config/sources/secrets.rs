//! Secrets with a name and an end, as they are written down: of partners, and of targets.

use semel_core::Timestamp;
use semel_webhook::{ConfigError, SecretValue, Signer};

use super::super::reader::Section;

/// The secrets of an array, each `{ id, value, not_after }`; `None` where one of them cannot be read.
pub(super) fn secrets(section: &Section<'_>, development: bool) -> Option<Vec<SecretValue>> {
    let given = section.sections("secrets");
    let count = given.len();
    let read: Vec<_> = given.into_iter().filter_map(|one| secret(one, development)).collect();
    (read.len() == count).then_some(read)
}

fn secret(section: Section<'_>, development: bool) -> Option<SecretValue> {
    let id = section.text("id");
    let value = section.secret("value", development);
    for (key, missing) in [("id", id.is_none()), ("value", value.is_none())] {
        if missing && !section.has(key) {
            section.problem(key, "is missing");
        }
    }
    let end = section.instant("not_after");
    let whole = end.is_some() == section.has("not_after");
    section.finish();
    let secret = SecretValue::new(&id?.value, value?.value.expose());
    Some(match end {
        Some(end) => secret.not_after(Timestamp::from_millis(end.value.as_millis())),
        None => secret,
    })
    .filter(|_| whole)
}

/// What signs for a target: its one secret under `alone`, or several during a rotation. `Ok(None)`: nothing does.
///
/// # Errors
/// It cannot be made, and that has been said.
pub(super) fn signer(
    section: &Section<'_>,
    alone: &'static str,
    several: bool,
    development: bool,
) -> Result<Option<Signer>, ()> {
    let one = section.secret(alone, development);
    let many = if several { secrets(section, development).ok_or(())? } else { Vec::new() };
    if one.is_none() && section.has(alone) {
        return Err(());
    }
    let (key, values) = match (one, many.is_empty()) {
        (None, true) => return Ok(None),
        (None, false) => ("secrets", many),
        (Some(one), true) => (alone, vec![SecretValue::new("main", one.value.expose())]),
        (Some(_), false) => {
            section.problem("secrets", format!("is given beside `{alone}`: all of them may stand here"));
            return Err(());
        }
    };
    Signer::try_new(&values).map(Some).map_err(|error| section.problem(key, bare(&error)))
}

/// The error as it reads behind its key, which it does not repeat.
pub(super) fn bare(error: &ConfigError) -> String {
    let text = error.to_string();
    if error.what().starts_with("secret ") || error.what().starts_with('"') {
        return text;
    }
    text.strip_prefix(error.what())
        .and_then(|rest| rest.strip_prefix(": "))
        .map_or(text.clone(), str::to_owned)
}
