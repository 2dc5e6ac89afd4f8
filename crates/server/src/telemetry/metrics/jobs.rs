//! What is counted of jobs: their runs and skips, by type and by what became of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use semel_runtime::job::RunStatus;

use super::labels::JobLabels;
use super::{Metrics, OTHER};
use crate::limits::JOB_LABELS_MAX;

/// Runs by type. A type is a client's word, so only the first so many stand in labels.
#[derive(Default)]
pub(super) struct JobFamily {
    runs: Family<JobLabels, Counter>,
    known: RwLock<HashMap<Box<str>, Arc<str>>>,
}

impl fmt::Debug for JobFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobFamily")
    }
}

impl JobFamily {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Runs of jobs that came to this, by type: RUNNING when they began";
        registry.register("semel_job_runs", help, self.runs.clone());
    }

    fn label(&self, job_type: &str) -> Arc<str> {
        if let Some(known) = self.known.read().get(job_type) {
            return Arc::clone(known);
        }
        let mut known = self.known.write();
        if known.len() >= JOB_LABELS_MAX && !known.contains_key(job_type) {
            return OTHER.into();
        }
        Arc::clone(known.entry(job_type.into()).or_insert_with(|| job_type.into()))
    }
}

impl Metrics {
    /// A run of a job began, ended, or was skipped.
    pub fn job_run(&self, job_type: &str, status: RunStatus) {
        let job_type = self.0.jobs.label(job_type);
        let labels = JobLabels { job_type, status: status.as_str() };
        self.0.jobs.runs.get_or_create_owned(&labels).inc();
    }
}
