//! What a route says against its profile, rule by rule. What nobody says stays the profile's.

use std::time::Duration;

use http::HeaderName;
use semel_tower::{Codes, Form, Keep, KeyAlphabet, ReplayStatus};

use super::super::reader::Section;
use super::super::sections::within;
use super::RouteRules;
use crate::limits;

/// Rules of a profile that are overridden; they have the names that the middleware has for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The status of a replay.
    pub replay_status: Option<ReplayStatus>,
    /// The only headers that are kept and replayed.
    pub replay_headers: Option<Vec<HeaderName>>,
    /// The form of errors, where the client's `Accept` does not say.
    pub error_form: Option<Form>,
    /// The names of codes in errors.
    pub error_codes: Option<Codes>,
    /// Which characters a key may have.
    pub key_alphabet: Option<KeyAlphabet>,
    /// Which answers are kept.
    pub keep: Option<Keep>,
    /// Statuses that are kept, whatever the rest says.
    pub keep_statuses: Vec<u16>,
    /// Statuses that are not kept, whatever the rest says.
    pub release_statuses: Vec<u16>,
    /// The status of a key that was used with other parameters.
    pub mismatch_status: Option<u16>,
    /// The longest `Prefer: wait` that is honoured; none: the server's.
    pub max_wait: Option<Duration>,
    /// Whether the path is part of a key's scope.
    pub scope_by_path: Option<bool>,
    /// Whether the service's name is part of a key's scope.
    pub scope_by_service: Option<bool>,
}

const REPLAY_STATUSES: [(&str, ReplayStatus); 2] =
    [("original", ReplayStatus::Original), ("ok", ReplayStatus::Ok)];
const FORMS: [(&str, Form); 3] =
    [("envelope", Form::Envelope), ("flat", Form::Flat), ("problem", Form::Problem)];
const CODES: [(&str, Codes); 2] = [("catalogue", Codes::Catalogue), ("acp", Codes::Acp)];
const ALPHABETS: [(&str, KeyAlphabet); 3] = [
    ("token", KeyAlphabet::Token),
    ("printable", KeyAlphabet::Printable),
    ("printable-bare", KeyAlphabet::PrintableBare),
];
const KEEPS: [(&str, Keep); 3] = [
    ("deterministic", Keep::Deterministic),
    ("all-but-server-errors", Keep::AllButServerErrors),
    ("everything", Keep::Everything),
];

/// What is said here, and else what `usual` says.
pub(super) fn overrides(section: &Section<'_>, usual: &Overrides) -> Overrides {
    let max_wait = section.duration("max_wait").map(|found| found.value);
    if let Some(length) = max_wait {
        within(section, "max_wait", length, Duration::ZERO, limits::WAIT_MAX);
    }
    let mismatch = section.number("mismatch_status", 400, 499);
    let mismatch = mismatch.and_then(|found| u16::try_from(found.value).ok());
    let statuses = |key| section.numbers_given(key, 200, 599);
    Overrides {
        replay_status: word(section, "replay_status", &REPLAY_STATUSES).or(usual.replay_status),
        replay_headers: headers(section).or_else(|| usual.replay_headers.clone()),
        error_form: word(section, "error_form", &FORMS).or(usual.error_form),
        error_codes: word(section, "error_codes", &CODES).or(usual.error_codes),
        key_alphabet: word(section, "key_alphabet", &ALPHABETS).or(usual.key_alphabet),
        keep: word(section, "keep", &KEEPS).or(usual.keep),
        keep_statuses: statuses("keep_statuses").unwrap_or_else(|| usual.keep_statuses.clone()),
        release_statuses: statuses("release_statuses").unwrap_or_else(|| usual.release_statuses.clone()),
        mismatch_status: mismatch.or(usual.mismatch_status),
        max_wait: max_wait.or(usual.max_wait),
        scope_by_path: section.boolean_given("scope_by_path").or(usual.scope_by_path),
        scope_by_service: section.boolean_given("scope_by_service").or(usual.scope_by_service),
    }
}

fn word<T: Copy>(section: &Section<'_>, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
    section.choice(key, words).map(|found| found.value)
}

fn headers(section: &Section<'_>) -> Option<Vec<HeaderName>> {
    let read = |name: String| match name.parse::<HeaderName>() {
        Ok(header) if semel_tower::reply::is_never_replayed(&header) => {
            section
                .problem("replay_headers", format!("`{name}` belongs to one answer and is never replayed"));
            None
        }
        Ok(header) => Some(header),
        Err(_) => {
            section.problem("replay_headers", format!("`{name}` is no name of a header"));
            None
        }
    };
    let given = section.texts_given("replay_headers")?;
    Some(given.into_iter().filter_map(read).collect())
}

/// Statuses of which two rules say two things, with what was said here or inherited. The word is at the key that stands
/// here, so that the line is one that can be mended.
pub(super) fn contradictions(section: &Section<'_>, rules: &RouteRules) {
    let Overrides { keep_statuses, release_statuses, .. } = &rules.overrides;
    let place = |keys: &[&'static str]| keys.iter().copied().find(|key| section.has(key));
    let both = keep_statuses.iter().find(|status| release_statuses.contains(status));
    if let (Some(status), Some(key)) = (both, place(&["release_statuses", "keep_statuses"])) {
        section.problem(key, format!("{status} is in keep_statuses and in release_statuses"));
    }
    let unexecuted = keep_statuses.iter().find(|status| rules.not_executed.iter().any(|not| not == *status));
    if let (Some(status), Some(key)) = (unexecuted, place(&["keep_statuses", "not_executed"])) {
        section.problem(
            key,
            format!("{status} is in keep_statuses, and not_executed says that nothing was done"),
        );
    }
}
