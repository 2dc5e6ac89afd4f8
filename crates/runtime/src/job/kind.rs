//! What a job is called, and which records of the ledger are its guard, its runs and its skips.
//!
//! All of them are in the namespace of jobs, under the job's type as their operation, and told apart by their subjects.
//! The guard is one record for each type, and is only ever running or released. A run is a record of its own, named
//! by the fence that the guard had for it, which no other run of the type ever has; a skip has a random name.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use semel_core::error::Invalid;
use semel_core::id::{AttemptId, Namespace, Scope, Subject, Tag, TagName, TagValue, Tenant};
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::request::Fingerprint;
use semel_core::{Fence, Key, Operation, RecordId, Request};

use crate::limits;

/// The tenant of jobs that name none; the server's own where it has no tenants.
const TENANT: &str = "default";
/// Subjects of the kinds of records.
const GUARD: &str = "guard";
const RUN: &str = "run";
const SKIP: &str = "skip";
const TICK: &str = "tick";
/// Stands between the type and what names a run among its type's.
const AT: char = '@';
/// A job's records have no fingerprint: there is nothing to compare. It is of no algorithm's version.
const NOTHING: Fingerprint = Fingerprint { version: 254, digest: [0; 32] };

/// Tags of runs and skips.
pub(super) const TAG_GUARD: &str = "job_guard";
const TAG_TYPE: &str = "job_type";
pub(super) const TAG_HOLDER: &str = "job_holder";
pub(super) const TAG_TICK: &str = "job_tick";
/// The tag of the instants of a schedule, which are none of the runs that they begin.
const TAG_TICKS: &str = "job_ticks";
/// The tag of an instant that was first claimed to be recorded as missed. A record keeps the tags of its first claim.
pub(super) const TAG_MISSED: &str = "job_missed";

/// Which job: its type, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobType {
    tenant: Tenant,
    name: Arc<str>,
    guard: RecordId,
}

/// A name, or a length of time, that a job cannot have. Fit to be shown to whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidJob {
    what: &'static str,
    expected: String,
}

impl InvalidJob {
    fn new(what: &'static str, expected: impl Into<String>) -> Self {
        Self { what, expected: expected.into() }
    }

    /// Which of them, as a field of a request would have it.
    pub const fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for InvalidJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.expected)
    }
}

impl Error for InvalidJob {}

/// What core does not take.
impl From<Invalid> for InvalidJob {
    fn from(invalid: Invalid) -> Self {
        let (what, text) = (invalid.what(), invalid.to_string());
        let expected = text.strip_prefix(what).unwrap_or(&text).trim_start();
        Self::new(what, expected)
    }
}

impl JobType {
    /// The job of this type, such as `EXPIRE_LOCKS`.
    ///
    /// # Errors
    /// It is empty, longer than [`limits::JOB_TYPE_CHARS_MAX`], or has other characters than letters, digits and
    /// `-`, `_`, `.`, `:`.
    pub fn try_new(name: &str) -> Result<Self, InvalidJob> {
        Self::of(Tenant::try_new(TENANT)?, name)
    }

    /// The job of this type of one tenant; another tenant's job of the same type is another job.
    ///
    /// # Errors
    /// As [`try_new`](Self::try_new).
    pub fn of(tenant: Tenant, name: &str) -> Result<Self, InvalidJob> {
        let fits = (1..=limits::JOB_TYPE_CHARS_MAX).contains(&name.len());
        if !fits || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte)) {
            let expected =
                format!("must be 1 to {} letters, digits, `-`, `_`, `.`, `:`", limits::JOB_TYPE_CHARS_MAX);
            return Err(InvalidJob::new("type", expected));
        }
        let guard = RecordId::of(&scope(&tenant, GUARD)?, &Key::try_new(name)?);
        Ok(Self { tenant, name: name.into(), guard })
    }

    /// The type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose job it is.
    pub const fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The record of its guard.
    pub const fn guard(&self) -> RecordId {
        self.guard
    }

    /// The tag that all of its runs and skips have.
    pub(super) fn tag(&self) -> Result<Tag, Invalid> {
        tag(TAG_GUARD, &self.guard.to_string())
    }

    /// What a claim of the guard asks for. The record outlives its runs, and each has the lease that its own claim asks
    /// for.
    pub(super) fn guard_request(&self, lease: Duration) -> Result<Request, Invalid> {
        let policy = resumed(lease, limits::JOB_GUARD_REST)?;
        Ok(Request::new(
            scope(&self.tenant, GUARD)?,
            Key::try_new(&self.name)?,
            Operation::try_new(&self.name)?,
            NOTHING,
            policy,
        ))
    }

    /// The record of the run that the guard had this fence for.
    pub(super) fn run_id(&self, fence: Fence) -> Result<RecordId, Invalid> {
        Ok(RecordId::of(&scope(&self.tenant, RUN)?, &self.key(&fence.to_string())?))
    }

    /// What the record of a run is. Its lease is that of the guard, which is renewed; so its own is the longest there
    /// is, and nobody else asks for it.
    pub(super) fn run_request(
        &self,
        fence: Fence,
        retention: Duration,
        tags: Vec<Tag>,
    ) -> Result<Request, Invalid> {
        let policy = resumed(semel_core::limits::LEASE_MAX, retention)?;
        self.recorded(RUN, &fence.to_string(), policy, tags)
    }

    /// What the record of a skip is: claimed and completed in a moment.
    pub(super) fn skip_request(
        &self,
        name: &str,
        retention: Duration,
        tags: Vec<Tag>,
    ) -> Result<Request, Invalid> {
        self.recorded(SKIP, name, resumed(limits::JOB_SKIP_LEASE, retention)?, tags)
    }

    /// What the record of an instant of the job's schedule is.
    pub(super) fn tick_request(
        &self,
        instant: &str,
        lease: Duration,
        retention: Duration,
        is_missed: bool,
    ) -> Result<Request, Invalid> {
        let request = Request::new(
            scope(&self.tenant, TICK)?,
            self.key(instant)?,
            Operation::try_new(&self.name)?,
            NOTHING,
            resumed(lease, retention)?,
        );
        let missed = is_missed.then(|| tag(TAG_MISSED, "true")).transpose()?;
        let tags = [self.tick_tag()?, tag(TAG_TYPE, &self.name)?];
        request.try_with_tags(tags.into_iter().chain(missed).collect())
    }

    /// The tag that all instants of its schedule have.
    pub(super) fn tick_tag(&self) -> Result<Tag, Invalid> {
        tag(TAG_TICKS, &self.guard.to_string())
    }

    fn recorded(
        &self,
        subject: &str,
        name: &str,
        policy: Policy,
        mut tags: Vec<Tag>,
    ) -> Result<Request, Invalid> {
        tags.push(self.tag()?);
        tags.push(tag(TAG_TYPE, &self.name)?);
        let request = Request::new(
            scope(&self.tenant, subject)?,
            self.key(name)?,
            Operation::try_new(&self.name)?,
            NOTHING,
            policy,
        );
        request.try_with_tags(tags)
    }

    fn key(&self, name: &str) -> Result<Key, Invalid> {
        Key::try_new(&format!("{}{AT}{name}", self.name))
    }

    /// What kind of this job's records a request is of; `None` if it is of none.
    pub(super) fn kind_of(&self, request: &Request) -> Option<Kind> {
        let scope = request.scope();
        if scope.namespace != Namespace::Job
            || scope.tenant != self.tenant
            || request.operation().as_str() != &*self.name
        {
            return None;
        }
        let (_, name) = request.key().as_str().rsplit_once(AT)?;
        match scope.subject.as_ref()?.as_str() {
            RUN => name.parse().ok().map(|fence| Kind::Run(Fence(fence))),
            SKIP => Some(Kind::Skip),
            _ => None,
        }
    }
}

/// What a record of a job is, beside the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The run that the guard had this fence for.
    Run(Fence),
    /// A run that did not begin.
    Skip,
}

/// A job's claim is named by what makes it the only one, and by who holds it, so that whoever is turned away can say by
/// whom.
pub(super) fn attempt(name: &str, holder: &str) -> Result<AttemptId, InvalidJob> {
    Ok(AttemptId::try_new(&format!("{name}{AT}{holder}"))?)
}

/// Who holds a claim of that name.
pub(super) fn holder_of(attempt: &AttemptId) -> &str {
    attempt.as_str().split_once(AT).map_or("", |(_, holder)| holder)
}

/// What a client may call its attempt, or a holder be called.
pub(super) fn check_name(what: &'static str, text: &str, chars_max: usize) -> Result<(), InvalidJob> {
    let fits = (1..=chars_max).contains(&text.chars().count());
    let odd = |char: char| char.is_control() || (what != "holder" && char == AT);
    if fits && !text.contains(odd) {
        return Ok(());
    }
    Err(InvalidJob::new(
        what,
        format!("must be 1 to {chars_max} characters, without control characters or `@`"),
    ))
}

pub(super) fn tag(name: &str, value: &str) -> Result<Tag, Invalid> {
    Ok(Tag { name: TagName::try_new(name)?, value: TagValue::try_new(value)? })
}

fn scope(tenant: &Tenant, subject: &str) -> Result<Scope, Invalid> {
    Ok(Scope { namespace: Namespace::Job, tenant: tenant.clone(), subject: Some(Subject::try_new(subject)?) })
}

fn resumed(lease: Duration, retention: Duration) -> Result<Policy, Invalid> {
    Policy::try_new(lease, retention, OnLapse::Resume, Keep::Everything, Schedule::ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_says_what_is_wrong_with_it_and_two_tenants_have_two_guards() {
        for odd in ["", "a b", "a/b", "a@1", "é", &"x".repeat(limits::JOB_TYPE_CHARS_MAX + 1)] {
            assert!(JobType::try_new(odd).is_err(), "{odd}");
        }
        let ours = JobType::try_new("EXPIRE_LOCKS").unwrap();
        let theirs = JobType::of(Tenant::try_new("acme").unwrap(), "EXPIRE_LOCKS").unwrap();
        assert_ne!(ours.guard(), theirs.guard());
        let runs = theirs.run_request(Fence(7), Duration::from_secs(60), Vec::new()).unwrap();
        assert_eq!(theirs.kind_of(&runs), Some(Kind::Run(Fence(7))));
        assert_eq!(ours.kind_of(&runs), None, "another tenant's run is none of ours");
        assert_eq!(theirs.run_id(Fence(7)).unwrap(), runs.id());
    }

    #[test]
    fn what_core_does_not_take_is_said_as_it_says_it() {
        let invalid = Policy::try_new(
            Duration::ZERO,
            Duration::from_secs(1),
            OnLapse::Resume,
            Keep::Everything,
            Schedule::ONCE,
        );
        let invalid = InvalidJob::from(invalid.unwrap_err());
        assert_eq!(
            (invalid.what(), invalid.to_string().as_str()),
            ("lease", "lease must be from 100 ms to 24 h")
        );
    }
}
