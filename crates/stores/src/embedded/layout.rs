//! Which files belong to a store.

use crate::embedded::writer::is_spare;
use crate::embedded::{segment, sidecar};

/// Whether a name is that of a file of a store.
pub(crate) fn is_of_a_store(name: &str) -> bool {
    segment::number_of(name).is_some() || sidecar::number_of(name).is_some() || is_spare(name)
}
