//! `[[jobs]]`: what is started by a schedule, and what holds for its runs.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderName, Uri};
use semel_core::id::Tenant;
use semel_core::limits as core;
use semel_runtime::job::JobType;
use semel_runtime::limits as jobs;

use super::operations::{http_address, target_headers};
use super::reader::Section;
use super::sections::within;
use super::{Secret, TenantConfig};
use crate::cron::{Cron, Zone};
use crate::limits;

/// A job that is started by a schedule.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// Which job.
    pub job: JobType,
    /// When it is started.
    pub cron: Cron,
    /// What does it: a POST to this address.
    pub target: Uri,
    /// Headers that the target is sent, such as its authorization.
    pub headers: Vec<(HeaderName, Secret)>,
    /// How long the target may take to answer.
    pub timeout: Duration,
    /// How long the guard outlives the process that holds it.
    pub lease: Duration,
    /// How long runs are remembered from their end.
    pub retention: Duration,
    /// What becomes of instants that nobody was there for.
    pub missed: Missed,
}

/// What becomes of instants that nobody was there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// They are recorded as skipped.
    Skip,
    /// The last of them starts the job; those before it are recorded as skipped.
    CatchUp,
}

/// Whose a job is that names nobody: the operators' own, where there are tenants.
const TENANT: &str = "default";

/// The time zone of schedules that name none.
const UTC: &str = "UTC";

/// Headers that the server itself sends.
const OWN: [&str; 3] = ["content-type", "idempotency-key", "user-agent"];

/// All jobs that can be read, and whether those are all. Each has one schedule, and is somebody's: a tenant's, or the
/// operators' own.
pub(super) fn jobs(
    root: &Section<'_>,
    development: bool,
    tenants: &[TenantConfig],
) -> (Vec<JobConfig>, bool) {
    let given = root.sections("jobs");
    let knows_tenants = !root.reading.is_wrong(|path| path.starts_with("tenants"));
    let mut known = BTreeSet::new();
    for one in &given {
        let problem =
            |key: &str, message: String| one.reading.problem(&one.origin, &one.path_of(key), message);
        let tenant = one.written("tenant").unwrap_or_else(|| TENANT.to_owned());
        let is_there = tenant == TENANT || tenants.iter().any(|known| known.name.as_str() == tenant);
        if !is_there && knows_tenants && Tenant::try_new(&tenant).is_ok() {
            problem("tenant", format!("there is no tenant `{tenant}`"));
        }
        let Some(name) = one.written("type") else { continue };
        let message = format!("there is a job `{name}` above");
        if !known.insert((tenant, name)) {
            problem("type", message);
        }
    }
    let count = given.len();
    let jobs: Vec<_> = given.into_iter().filter_map(|section| job(section, development)).collect();
    let is_whole = jobs.len() == count;
    (jobs, is_whole)
}

fn job(section: Section<'_>, development: bool) -> Option<JobConfig> {
    let missing = |key: &str, what: &str| {
        if !section.has(key) {
            section.problem(key, format!("is missing: {what}"));
        }
    };
    let tenant = section.text_or("tenant", TENANT);
    let tenant = Tenant::try_new(&tenant).map_err(|invalid| section.problem("tenant", invalid)).ok();
    let name = section.text("type");
    if name.is_none() {
        missing("type", "the name of the job, such as \"EXPIRE_LOCKS\"");
    }
    let job = name.zip(tenant).and_then(|(name, tenant)| {
        JobType::of(tenant, &name.value).map_err(|invalid| section.problem("type", invalid)).ok()
    });
    let zone = section.text_or("time_zone", UTC);
    let zone = Zone::parse(&zone).map_err(|problem| section.problem("time_zone", problem)).ok();
    let schedule = section.text("schedule");
    if schedule.is_none() {
        missing("schedule", "when it is started, such as \"*/5 * * * *\"");
    }
    let cron = schedule.and_then(|schedule| {
        let read = match &zone {
            Some(zone) => Cron::parse(&schedule.value, zone),
            // What is no schedule anywhere is said as well.
            None => Zone::parse(UTC).and_then(|utc| Cron::parse(&schedule.value, &utc)),
        };
        read.map_err(|problem| section.problem("schedule", problem)).ok()
    });
    let target = section.text("target");
    if target.is_none() {
        missing("target", "the address that does the job");
    }
    let target = target.and_then(|target| {
        http_address(&target.value).map_err(|problem| section.problem("target", problem)).ok()
    });
    if let Some(target) = &target {
        section.names_address("target", target);
    }
    let headers = target_headers(&section, development, &OWN);
    let timeout = section.duration_or("timeout", limits::JOB_TIMEOUT_DEFAULT);
    within(&section, "timeout", timeout, Duration::from_millis(1), limits::JOB_TIMEOUT_MAX);
    let lease = section.duration_or("lease", jobs::JOB_LEASE_DEFAULT);
    within(&section, "lease", lease, core::LEASE_MIN, core::LEASE_MAX / 2);
    let retention = section.duration_or("retention", jobs::JOB_RETENTION_DEFAULT);
    within(&section, "retention", retention, Duration::from_millis(1), core::RETENTION_MAX);
    let policies = [("skip", Missed::Skip), ("catch-up", Missed::CatchUp)];
    let missed = section.choice_or("missed", &policies, policies[0]);
    section.finish();
    zone?;
    Some(JobConfig { job: job?, cron: cron?, target: target?, headers, timeout, lease, retention, missed })
}
