//! Tells somebody, over a webhook or to a chat: of duplicates, conflicts, dead letters, open circuits, unknown outcomes.
//!
//! Whoever has something to tell says so ([`Alerts::tell`]), never waits, and may say it a hundred thousand times: what is
//! told of one kind and one source is gathered, and is one alert with a count, at most one in the time that is
//! configured. An alert is work like any other: it is taken in by the ledger, under a key that all nodes make alike from
//! kind, source and time, so that several of them which see one storm send one alert; and it is delivered by the
//! dispatcher, signed, with retries.
//!
//! What was told outlives this process. The first of a group is on record as a *promise* before whoever met it is answered
//! ([`Alerts::kept`]): an alert that is due a little after its time, and says that there is one or more. Whoever has counted
//! takes the whole alert in at its time, and puts the promise aside. So a process that is killed loses a count, and no
//! alert; that costs two writes more for each group in the time that is configured, and nothing for what nobody is told of.
//!
//! Rooms: [`message`] what an alert says · [`group`] what was told of one kind and source.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use parking_lot::Mutex;
use semel_core::command::{Accept, Accepted, Discard};
use semel_core::error::Invalid;
use semel_core::ledger::Entropy as _;
use semel_core::{Record, RecordId, Request, Timestamp};
use semel_runtime::OsEntropy;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{AlertKind, AlertsConfig};
use crate::engine::Engine;
use crate::limits;
use crate::telemetry::metrics::DeliveryMetrics;

mod group;
mod message;

use group::{Group, Promise};
use message::Message;

/// What alerts about more sources than are kept apart are said to be about.
const OTHERS: &str = "others";
/// Why a promise is put aside.
const COUNTED: &str = "the alert was taken in with its count";

/// Where somebody has something to tell. Cheap to clone; clones are the same. Without a configuration it forgets.
#[derive(Clone, Default)]
pub struct Alerts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    service: Box<str>,
    config: ArcSwapOption<AlertsConfig>,
    metrics: DeliveryMetrics,
    groups: Mutex<HashMap<(AlertKind, Arc<str>), Group>>,
    told: Notify,
    /// What was told is on record, or is known not to be.
    kept: Notify,
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts").field("is_on", &self.0.config.load().is_some()).finish_non_exhaustive()
    }
}

impl Alerts {
    /// Alerts of the service of this name, delivered as this configuration says, if there is one.
    pub fn new(service: &str, config: Option<&AlertsConfig>, metrics: DeliveryMetrics) -> Self {
        let config = ArcSwapOption::new(config.cloned().map(Arc::new));
        Self(Arc::new(Shared { service: service.into(), config, metrics, ..Shared::default() }))
    }

    /// From now on they are delivered so, or not at all.
    pub fn reload(&self, config: Option<&AlertsConfig>) {
        self.0.config.store(config.cloned().map(Arc::new));
        self.0.told.notify_one();
    }

    /// Something of this kind has happened at this source (or operation), to this record. Never blocks.
    pub(crate) fn tell(&self, kind: AlertKind, source: &str, record: Option<RecordId>) {
        let is_wanted = self.0.config.load().as_ref().is_some_and(|config| config.on.contains(&kind));
        if !is_wanted {
            return;
        }
        let mut groups = self.0.groups.lock();
        let is_full = groups.len() >= limits::ALERT_GROUPS_MAX;
        let known = groups.contains_key(&(kind, Arc::from(source)));
        let source = if is_full && !known { OTHERS } else { source };
        let group = groups.entry((kind, source.into())).or_insert_with(Group::new);
        if group.count == 0 {
            (group.since, group.record, group.promise) = (Instant::now(), record, Promise::Wanted);
            self.0.told.notify_one();
        }
        group.count += 1;
    }

    /// Waits until what was told of this source outlives this process. A store that has no answer is not waited for: then
    /// it does as soon as there is one.
    pub(crate) async fn kept(&self, engine: &Engine, source: &str) {
        let kept = async {
            loop {
                let next = self.0.kept.notified();
                tokio::pin!(next);
                next.as_mut().enable();
                if !self.is_wanted(source) {
                    return;
                }
                next.await;
            }
        };
        tokio::select! {
            () = kept => {}
            () = engine.stopped() => {}
            () = tokio::time::sleep(limits::ALERT_KEPT_WITHIN) => {}
        }
    }

    fn is_wanted(&self, source: &str) -> bool {
        let groups = self.0.groups.lock();
        let wanted = |kind, source: &str| {
            let group = groups.get(&(kind, Arc::from(source)));
            group.is_some_and(|group| group.count > 0 && matches!(group.promise, Promise::Wanted))
        };
        AlertKind::ALL.into_iter().any(|kind| wanted(kind, source) || wanted(kind, OTHERS))
    }

    /// Hands over what was told, until the engine stops.
    pub(crate) async fn run(self, engine: Engine) {
        loop {
            let next = self.file(&engine, Instant::now()).await;
            tokio::select! {
                () = engine.stopped() => break,
                () = self.0.told.notified() => {}
                () = until(next) => {}
            }
        }
    }

    /// Takes in all that was told, whenever the next alert of it would have been: nobody gathers any more.
    pub(crate) async fn close(&self, engine: &Engine) {
        let Some(config) = self.0.config.load_full() else { return };
        let left = std::mem::take(&mut *self.0.groups.lock());
        self.0.kept.notify_waiters();
        let now = Instant::now();
        let left = left.into_iter().filter(|(_, group)| group.count > 0);
        let filed = left.map(|((kind, source), group)| {
            let config = Arc::clone(&config);
            async move {
                if group.is_said(now) {
                    self.0.metrics.alert(kind);
                    return;
                }
                match self.take_in(engine, &config, kind, &source, &group, Window::Last).await {
                    Ok(Some(_)) => {
                        self.0.metrics.alert(kind);
                        if let Some(promise) = group.promise.made() {
                            self.put_aside(engine, promise).await;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let (kind, source, count) = (kind.as_str(), &*source, group.count);
                        let is_lost = group.promise.made().is_none();
                        tracing::warn!(kind, source, count, is_lost, %error, "an alert could not be taken in");
                    }
                }
            }
        });
        join_all(filed).await;
    }

    /// Takes in an alert of each group whose time has come, and a promise of each other; when the next one's time comes.
    async fn file(&self, engine: &Engine, now: Instant) -> Option<Instant> {
        let config = self.0.config.load_full();
        let Some(config) = config else {
            self.0.groups.lock().clear();
            self.0.kept.notify_waiters();
            return None;
        };
        let due = self.due(now).into_iter();
        let told = due.map(|(kind, source, group)| self.tell_of(engine, &config, kind, source, group));
        let replaced = join_all(told).await;
        self.promise(engine, &config).await;
        join_all(replaced.iter().flatten().map(|promise| self.put_aside(engine, promise))).await;
        self.next(now)
    }

    /// Takes in one alert whose time has come. Gives a promise that is to be put aside once there is another in its place.
    async fn tell_of(
        &self,
        engine: &Engine,
        config: &AlertsConfig,
        kind: AlertKind,
        source: Arc<str>,
        group: Group,
    ) -> Option<Arc<Record>> {
        let promise = group.promise.made().cloned();
        match self.take_in(engine, config, kind, &source, &group, Window::Current).await {
            Ok(Some(quiet)) => {
                self.filed(kind, &source, quiet);
                promise
            }
            // Another node has told of it in this time: what is new since is told in the next, and so promised anew.
            Ok(None) => {
                self.put_back(kind, source, Group { promise: Promise::Wanted, ..group }, config.every);
                promise
            }
            Err(error) => {
                tracing::warn!(kind = kind.as_str(), source = &*source, %error, "an alert could not be taken in");
                self.put_back(kind, source, group, limits::ALERT_GATHER);
                None
            }
        }
    }

    /// Puts on record that there is something to tell, of each group of which nothing is.
    async fn promise(&self, engine: &Engine, config: &AlertsConfig) {
        let is_unkept = |group: &Group| group.count > 0 && group.promise.made().is_none();
        let unkept: Vec<_> = {
            let groups = self.0.groups.lock();
            groups
                .iter()
                .filter(|(_, group)| is_unkept(group))
                .map(|(of, group)| (of.clone(), group.clone()))
                .collect()
        };
        let promised = unkept.into_iter().map(|((kind, source), group)| async move {
            let promise = match self.promised(engine, config, kind, &source, &group).await {
                Ok(record) => Promise::Made(record),
                Err(error) => {
                    let kind = kind.as_str();
                    tracing::warn!(kind, source = &*source, %error, "nothing is on record yet of what is to be told");
                    Promise::Failed
                }
            };
            let orphan = match self.0.groups.lock().get_mut(&(kind, source)) {
                Some(group) => {
                    group.promise = promise;
                    None
                }
                None => promise.made().cloned(),
            };
            // It was told meanwhile, with its count.
            if let Some(promise) = orphan {
                self.put_aside(engine, &promise).await;
            }
        });
        join_all(promised).await;
        self.0.kept.notify_waiters();
    }

    /// The record of an alert that says less, for when nobody is there to say more.
    async fn promised(
        &self,
        engine: &Engine,
        config: &AlertsConfig,
        kind: AlertKind,
        source: &str,
        group: &Group,
    ) -> Result<Arc<Record>, Box<dyn std::error::Error + Send + Sync>> {
        let request = self.request(engine, config, kind, source, group, Window::Promised)?;
        let accept = Accept::try_new(Arc::new(request))?.due_after(group.until_promised(Instant::now()));
        match engine.file(&accept).await? {
            Accepted::Accepted(record) | Accepted::Duplicate(record) | Accepted::Mismatch(record) => {
                Ok(record)
            }
        }
    }

    /// Puts a promise aside that was kept. One that cannot be is sent: an alert more, and not one less.
    async fn put_aside(&self, engine: &Engine, promise: &Record) {
        let discard = Discard {
            id: promise.id(),
            version: promise.version(),
            actor: "semel".into(),
            reason: COUNTED.into(),
            correlation_id: None,
        };
        if let Err(error) = engine.ledger().apply(&discard).await {
            tracing::warn!(%error, "the promise of an alert could not be put aside, and is sent as well");
        }
    }

    /// What is to be told now, taken out.
    fn due(&self, now: Instant) -> Vec<(AlertKind, Arc<str>, Group)> {
        let mut groups = self.0.groups.lock();
        // Nothing was told since, and nothing holds it back.
        groups.retain(|_, group| group.count > 0 || group.quiet_until.is_some_and(|quiet| quiet > now));
        let due = groups.iter_mut().filter(|(_, group)| group.time().is_some_and(|time| time <= now));
        let taken = due.map(|((kind, source), group)| {
            let taken = group.clone();
            group.count = 0;
            (*kind, Arc::clone(source), taken)
        });
        taken.collect()
    }

    fn next(&self, now: Instant) -> Option<Instant> {
        let next = self.0.groups.lock().values().filter_map(|group| group.next(now)).min();
        next.map(|time| time.max(now))
    }

    fn filed(&self, kind: AlertKind, source: &Arc<str>, quiet: Duration) {
        self.0.metrics.alert(kind);
        if let Some(group) = self.0.groups.lock().get_mut(&(kind, Arc::clone(source))) {
            group.quiet_until = Some(Instant::now() + quiet);
        }
    }

    fn put_back(&self, kind: AlertKind, source: Arc<str>, taken: Group, quiet: Duration) {
        let mut groups = self.0.groups.lock();
        let group = groups.entry((kind, source)).or_insert_with(Group::new);
        (group.since, group.record) = (taken.since, taken.record.or(group.record));
        group.promise = taken.promise;
        group.count += taken.count;
        group.quiet_until = Some(Instant::now() + quiet);
    }

    /// Takes one alert in; how long there is to be no other, or `None` if there was one already in this time.
    async fn take_in(
        &self,
        engine: &Engine,
        config: &AlertsConfig,
        kind: AlertKind,
        source: &str,
        group: &Group,
        window: Window,
    ) -> Result<Option<Duration>, Box<dyn std::error::Error + Send + Sync>> {
        let request = self.request(engine, config, kind, source, group, window)?;
        let accepted = engine.file(&Accept::try_new(Arc::new(request))?).await?;
        Ok(match accepted {
            Accepted::Accepted(_) => Some(config.every),
            Accepted::Duplicate(_) | Accepted::Mismatch(_) => None,
        })
    }

    /// What is to be told of a group, as a request.
    fn request(
        &self,
        engine: &Engine,
        config: &AlertsConfig,
        kind: AlertKind,
        source: &str,
        group: &Group,
        window: Window,
    ) -> Result<Request, Invalid> {
        let now = engine.ledger().store().time();
        let since = Timestamp::from_millis(now.as_millis().saturating_sub(millis(group.since.elapsed())));
        let message = Message {
            service: &self.0.service,
            kind,
            source,
            count: group.count,
            or_more: matches!(window, Window::Promised),
            record: group.record,
            since,
            until: now,
        };
        let current = now.as_millis() / millis(config.every).max(1);
        let window = match window {
            Window::Current => current.to_string(),
            Window::Last | Window::Promised => {
                format!("{current}.{}", u128::from_be_bytes(*OsEntropy.token().as_bytes()))
            }
        };
        message.request(config, &window)
    }
}

/// The time that an alert stands for: there is one of its kind and source in it.
#[derive(Clone, Copy, Debug)]
enum Window {
    /// The one that it is.
    Current,
    /// One of its own, after which this process tells nothing more.
    Last,
    /// One of its own, for what may be told in another one.
    Promised,
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
