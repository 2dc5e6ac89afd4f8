//! Tells somebody, over a webhook or to a chat: of duplicates, conflicts, dead letters, open circuits, unknown outcomes.
//!
//! Whoever has something to tell says so ([`Alerts::tell`]), never waits, and may say it a hundred thousand times: what is
//! told of one kind and one source is gathered, and is one alert with a count, at most one in the time that is
//! configured. An alert is work like any other: it is taken in by the ledger, under a key that all nodes make alike from
//! kind, source and time, so that several of them which see one storm send one alert; and it is delivered by the
//! dispatcher, signed, with retries.
//!
//! A process that is stopped takes in what was told, to be delivered after the next start. With one that is killed that is lost:
//! what nobody was told of yet, and how much has followed what somebody was. The records that it was about are not.
//!
//! Rooms: [`message`] what an alert says.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use parking_lot::Mutex;
use semel_core::command::{Accept, Accepted};
use semel_core::ledger::Entropy as _;
use semel_core::{RecordId, Timestamp};
use semel_runtime::OsEntropy;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::{AlertKind, AlertsConfig};
use crate::engine::Engine;
use crate::limits;
use crate::telemetry::metrics::DeliveryMetrics;

mod message;

use message::Message;

/// What alerts about more sources than are kept apart are said to be about.
const OTHERS: &str = "others";

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
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts").field("is_on", &self.0.config.load().is_some()).finish_non_exhaustive()
    }
}

/// What was told of one kind and one source.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// How often, since the last alert.
    count: u64,
    /// The first record that it was about, since then.
    record: Option<RecordId>,
    /// When the first of it was told.
    since: Instant,
    /// Until when there is no other alert.
    quiet_until: Option<Instant>,
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
        let new = Group { count: 0, record: None, since: Instant::now(), quiet_until: None };
        let group = groups.entry((kind, source.into())).or_insert(new);
        if group.count == 0 {
            (group.since, group.record) = (Instant::now(), record);
            self.0.told.notify_one();
        }
        group.count += 1;
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
        let left = left.into_iter().filter(|(_, group)| group.count > 0);
        let filed = left.map(|((kind, source), group)| {
            let config = Arc::clone(&config);
            async move {
                match self.take_in(engine, &config, kind, &source, group, Window::Last).await {
                    Ok(Some(_)) => self.0.metrics.alert(kind),
                    Ok(None) => {}
                    Err(error) => {
                        let (kind, source, count) = (kind.as_str(), &*source, group.count);
                        tracing::warn!(kind, source, count, %error, "an alert could not be taken in, and is lost");
                    }
                }
            }
        });
        join_all(filed).await;
    }

    /// Takes in an alert of each group whose time has come; when the next one's comes.
    async fn file(&self, engine: &Engine, now: Instant) -> Option<Instant> {
        let config = self.0.config.load_full();
        let Some(config) = config else {
            self.0.groups.lock().clear();
            return None;
        };
        for (kind, source, group) in self.due(now) {
            match self.take_in(engine, &config, kind, &source, group, Window::Current).await {
                Ok(Some(quiet)) => self.filed(kind, &source, quiet),
                // Another node has told of it in this time: what is new since is told in the next.
                Ok(None) => self.put_back(kind, source, group, config.every),
                Err(error) => {
                    tracing::warn!(kind = kind.as_str(), source = &*source, %error, "an alert could not be taken in");
                    self.put_back(kind, source, group, limits::ALERT_GATHER);
                }
            }
        }
        self.next(now)
    }

    /// What is to be told now, taken out.
    fn due(&self, now: Instant) -> Vec<(AlertKind, Arc<str>, Group)> {
        let mut groups = self.0.groups.lock();
        // Nothing was told since, and nothing holds it back.
        groups.retain(|_, group| group.count > 0 || group.quiet_until.is_some_and(|quiet| quiet > now));
        let due = groups.iter_mut().filter(|(_, group)| group.time().is_some_and(|time| time <= now));
        let taken = due.map(|((kind, source), group)| {
            let taken = *group;
            group.count = 0;
            (*kind, Arc::clone(source), taken)
        });
        taken.collect()
    }

    fn next(&self, now: Instant) -> Option<Instant> {
        let next = self.0.groups.lock().values().filter_map(Group::time).min();
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
        let group = groups.entry((kind, source)).or_insert(Group { count: 0, ..taken });
        (group.since, group.record) = (taken.since, taken.record.or(group.record));
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
        group: Group,
        window: Window,
    ) -> Result<Option<Duration>, Box<dyn std::error::Error + Send + Sync>> {
        let now = engine.ledger().store().time();
        let since = Timestamp::from_millis(now.as_millis().saturating_sub(millis(group.since.elapsed())));
        let message = Message {
            service: &self.0.service,
            kind,
            source,
            count: group.count,
            record: group.record,
            since,
            until: now,
        };
        let current = now.as_millis() / millis(config.every).max(1);
        let window = match window {
            Window::Current => current.to_string(),
            Window::Last => format!("{current}.{}", u128::from_be_bytes(*OsEntropy.token().as_bytes())),
        };
        let request = message.request(config, &window)?;
        let accepted = engine.file(&Accept::try_new(Arc::new(request))?).await?;
        Ok(match accepted {
            Accepted::Accepted(_) => Some(config.every),
            Accepted::Duplicate(_) | Accepted::Mismatch(_) => None,
        })
    }
}

/// The time that an alert stands for: there is one of its kind and source in it.
#[derive(Clone, Copy, Debug)]
enum Window {
    /// The one that it is.
    Current,
    /// One of its own, after which this process tells nothing more.
    Last,
}

impl Group {
    /// When it is to be told; `None` if there is nothing to tell.
    fn time(&self) -> Option<Instant> {
        let gathered = self.since + limits::ALERT_GATHER;
        (self.count > 0).then(|| self.quiet_until.map_or(gathered, |quiet| gathered.max(quiet)))
    }
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
