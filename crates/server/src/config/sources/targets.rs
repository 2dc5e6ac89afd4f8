//! Where events and alerts go: an address, who signs, how long a try may take, when the next one begins.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use semel_core::id::Lane;
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::{Operation, limits as core};
use semel_webhook::{Signer, Statuses};

use super::super::operations::{DELIVERYS_OWN, http_address, target_headers};
use super::super::reader::Section;
use super::super::sections::within;
use super::super::{Builtin, OperationConfig, Secret, Target};
use super::secrets::signer;
use super::{DeliveryTarget, SourceTarget};
use crate::limits;

/// What a target says of its tries, or its source for all that say nothing.
#[derive(Clone)]
pub(super) struct Tries {
    timeout: Duration,
    lease: Duration,
    retry: Schedule,
    concurrency: usize,
    permanent: Vec<u16>,
}

impl Tries {
    /// What holds where nobody says anything.
    pub(super) fn usual() -> Self {
        Self {
            timeout: limits::TIMEOUT_DEFAULT,
            lease: Policy::default().lease(),
            // Its numbers are within core's limits.
            retry: semel_webhook::default_schedule().unwrap_or(Schedule::ONCE),
            concurrency: limits::LANE_DEFAULT,
            permanent: Vec::new(),
        }
    }

    pub(super) fn read(section: &Section<'_>, usual: &Self) -> Self {
        let timeout = section.duration_or("timeout", usual.timeout);
        within(section, "timeout", timeout, Duration::from_millis(1), limits::TIMEOUT_MAX);
        let lease = section.duration_or("lease", usual.lease);
        within(section, "lease", lease, core::LEASE_MIN, core::LEASE_MAX);
        let most = limits::DISPATCH_MAX;
        Self {
            timeout,
            lease,
            retry: schedule(section.section("retry"), usual.retry),
            concurrency: section.size_or("concurrency", 1, most, usual.concurrency),
            permanent: section
                .numbers_given("permanent", 300, 599)
                .unwrap_or_else(|| usual.permanent.clone()),
        }
    }
}

fn schedule(section: Section<'_>, usual: Schedule) -> Schedule {
    let most = u64::from(core::ATTEMPTS_MAX);
    let attempts = section.number_or("max_attempts", 1, most, u64::from(usual.max_attempts()));
    let first = section.duration_or("first", usual.first());
    let cap = section.duration_or("cap", usual.cap());
    let max_age = section.duration_or("max_age", usual.max_age().unwrap_or(core::RETENTION_MAX));
    let attempts = u32::try_from(attempts).unwrap_or(core::ATTEMPTS_MAX);
    let schedule = Schedule::try_new(attempts, first, cap, Some(max_age)).unwrap_or_else(|invalid| {
        section.problem(if invalid.what() == "cap" { "cap" } else { "first" }, invalid);
        usual
    });
    section.finish();
    schedule
}

/// How long what is done is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Its record, and with it its identity.
    pub(super) records: Duration,
    /// Its payload, where that goes earlier.
    pub(super) payloads: Option<Duration>,
}

/// A target as it is read: its address, and what it is sent besides.
pub(super) struct Place {
    pub(super) name: Arc<str>,
    pub(super) url: Url,
    pub(super) signer: Option<Arc<Signer>>,
    pub(super) headers: Vec<(HeaderName, Secret)>,
    pub(super) tries: Tries,
}

/// What stands where an address does.
pub(super) enum Url {
    Http(Uri),
    Builtin(Builtin),
}

/// The address under `key`; `None` where there is none that could be used, which has been said.
pub(super) fn url(section: &Section<'_>, key: &'static str, development: bool) -> Option<Url> {
    let Some(found) = section.text(key) else {
        if !section.has(key) {
            section.problem(key, "is missing: the address that events are delivered to");
        }
        return None;
    };
    if found.value == "builtin:echo" && development {
        return Some(Url::Builtin(Builtin::Echo));
    }
    let address = http_address(&found.value).map_err(|problem| section.problem(key, problem)).ok()?;
    section.names_address(key, &address);
    Some(Url::Http(address))
}

/// One of `[[webhooks.targets]]`.
pub(super) fn place(section: Section<'_>, usual: &Tries, development: bool) -> Option<Place> {
    let name = section.text("name").map(|found| found.value);
    if name.is_none() && !section.has("name") {
        section.problem("name", "is missing");
    }
    let fits = |name: &String| is_name(name);
    if name.as_ref().is_some_and(|name| !is_name(name)) {
        let most = limits::TARGET_NAME_CHARS_MAX;
        section.problem("name", format!("must have 1 to {most} letters, digits, `-`, `_` or `.`"));
    }
    let url = url(&section, "url", development);
    let signer = signer(&section, "secret", true, development);
    let headers = target_headers(&section, development, &DELIVERYS_OWN);
    let tries = Tries::read(&section, usual);
    section.finish();
    let signer = signer.ok()?.map(Arc::new);
    Some(Place { name: name.filter(fits)?.into(), url: url?, signer, headers, tries })
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=limits::TARGET_NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(plain)
}

impl Place {
    /// The target of a source, as an operation of the engine.
    pub(super) fn of_source(self, source: &str, kept: Kept, ordered: bool) -> Option<SourceTarget> {
        let name = Arc::clone(&self.name);
        let operation = self.operation(&format!("webhook:{source}/{name}"), source, kept, ordered)?;
        Some(SourceTarget { name, operation })
    }

    /// An operation of this name that delivers here. `None`: a name or a length of time is beyond core's limits, which the
    /// caller has excluded.
    pub(super) fn operation(
        self,
        operation: &str,
        source: &str,
        kept: Kept,
        ordered: bool,
    ) -> Option<OperationConfig> {
        let Tries { timeout, lease, retry, concurrency, permanent } = self.tries;
        // The target has a stable key, so what was lost is sent again.
        let policy =
            Policy::try_new(lease, kept.records, OnLapse::Resume, Keep::Deterministic, retry).ok()?;
        let policy = policy.try_with_payload_retention(kept.payloads).ok()?;
        let target = match self.url {
            Url::Builtin(builtin) => Target::Builtin(builtin),
            Url::Http(url) => Target::Delivery(Arc::new(DeliveryTarget {
                source: source.into(),
                name: self.name,
                url,
                signer: self.signer,
                statuses: Statuses::permanent(&permanent),
                ordered,
            })),
        };
        Some(OperationConfig {
            name: Operation::try_new(operation).ok()?,
            target,
            policy,
            timeout,
            probe: None,
            tags: Vec::new(),
            not_executed: Vec::new(),
            forward_key: false,
            keep_headers: Vec::new(),
            headers: self.headers,
            lane: Lane::try_new(operation).ok()?,
            concurrency,
            result_bytes_max: limits::DELIVERY_RESULT_BYTES_MAX,
        })
    }
}
