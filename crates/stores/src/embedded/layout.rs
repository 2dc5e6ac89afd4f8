//! Which files belong to a store, and which of them are missing.

use crate::embedded::error::OpenError;
use crate::embedded::manifest::{self, Span};
use crate::embedded::segment::{self, name_of};
use crate::embedded::sidecar;
use crate::embedded::writer::{is_spare, is_unfinished};

/// Whether a name is that of a file of a store.
pub(crate) fn is_of_a_store(name: &str) -> bool {
    let is_numbered = segment::number_of(name).is_some() || sidecar::number_of(name).is_some();
    is_numbered || is_spare(name) || name == manifest::NAME
}

/// What a folder holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The segments of the log, oldest first.
    pub(crate) segments: Vec<u32>,
    /// Segments and sidecars before the oldest, and files that were not finished: a crash was quicker than their removal.
    pub(crate) remains: Vec<String>,
    /// Files ready to become segments.
    pub(crate) spares: Vec<String>,
    /// What is missing: the file, and why it should be there.
    pub(crate) missing: Vec<(String, String)>,
}

impl Layout {
    pub(crate) fn of(names: &[String], span: Option<Span>) -> Self {
        let mut found = Self::default();
        let mut sidecars = Vec::new();
        let oldest = span.map_or(0, |span| span.oldest);
        for name in names {
            let is_remain = |number: u32| number < oldest;
            match (segment::number_of(name), sidecar::number_of(name)) {
                (Some(number), _) | (_, Some(number)) if is_remain(number) => {
                    found.remains.push(name.clone());
                }
                (Some(number), _) => found.segments.push(number),
                (None, Some(number)) => sidecars.push(number),
                (None, None) if is_unfinished(name) => found.remains.push(name.clone()),
                (None, None) if is_spare(name) => found.spares.push(name.clone()),
                (None, None) => {}
            }
        }
        found.segments.sort_unstable();
        sidecars.sort_unstable();
        found.look_for_gaps(span);
        for number in sidecars {
            let is_said = found.missing.iter().any(|(name, _)| *name == name_of(number));
            let is_within = span.is_some_and(|span| number <= span.newest);
            if !found.segments.contains(&number) && !is_said && !is_within {
                let why = format!("{} is there", sidecar::name_of(number));
                found.missing.push((name_of(number), why));
            }
        }
        if found.segments.is_empty() && found.missing.is_empty() && !found.spares.is_empty() {
            let why = "there are files ready for a log, but no log".to_owned();
            found.missing.push((name_of(1), why));
        }
        found
    }

    fn look_for_gaps(&mut self, span: Option<Span>) {
        let mut expected = match (span, self.segments.first()) {
            (Some(span), _) => span.oldest,
            (None, Some(first)) => *first,
            (None, None) => return,
        };
        for number in &self.segments {
            if *number > expected {
                self.missing.push(gap(expected, *number));
            }
            expected = number + 1;
        }
        let Some(span) = span else { return };
        if expected <= span.newest {
            self.missing.push(gap(expected, span.newest + 1));
        }
    }

    /// Whether everything is there.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let Some((file, why)) = self.missing.first() else { return Ok(()) };
        Err(OpenError::corrupt(format!("segment {file} of the log is missing: {why}")))
    }
}

/// The segments from `from` on before `to`.
fn gap(from: u32, to: u32) -> (String, String) {
    let why = match to - from {
        1 => "the log reaches further".to_owned(),
        many => format!("the log reaches further, and {} more are missing behind it", many - 1),
    };
    (name_of(from), why)
}
