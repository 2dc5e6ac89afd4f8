//! The consumer: takes messages from the broker, has them seen to their end, and commits what is done.
//!
//! One thread of its own polls; it never waits for a handler, so that the group never takes this member for dead because one
//! is slow. Messages are handled by tasks of tokio: one after the other where they have the same key, at once otherwise,
//! within a bound. A partition is paused while one of its messages waits, and while too many of them are under way.
//!
//! Rooms: [`settings`] what can be configured · `group` the assignment: what is delivered, drained, committed · `session`
//! the thread · `work` the tasks · `bury` dead letters.

use std::fmt;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rdkafka::error::KafkaError;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{self, ConfigError};
use crate::deliver::Deliver;
use crate::observe::{Observer, Unobserved};
use bury::Undertaker;
use session::Session;
use work::Work;

mod bury;
mod group;
mod session;
pub mod settings;
mod work;

pub use settings::Settings;

/// A consumer that runs. It stops when it is dropped, without waiting for that; [`stop`](Self::stop) waits.
#[derive(Debug)]
pub struct Consumer {
    stopping: CancellationToken,
    ended: Option<oneshot::Receiver<()>>,
    status: Arc<Mutex<Status>>,
}

/// How a consumer fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Partitions that are its own: topic and number.
    pub partitions: Vec<(String, i32)>,
    /// How many messages they are behind, as far as that is known.
    pub lag: u64,
    /// Whether it has had partitions, or a word from the group that there are none for it, since it started.
    pub joined: bool,
    /// What the broker said last when something failed; `None` once it was heard from again.
    pub error: Option<String>,
}

/// A consumer cannot start.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: Option<KafkaError>,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self { what: error.to_string(), source: None }
    }
}

impl StartError {
    fn new(what: impl Into<String>, source: KafkaError) -> Self {
        Self { what: what.into(), source: Some(source) }
    }
}

impl Consumer {
    /// Starts a consumer for `deliver`, on the runtime of tokio that this is called in. A broker that cannot be reached is no
    /// error: it is waited for.
    ///
    /// # Errors
    /// The settings are none, or no thread can be had.
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub fn start(settings: &Settings, deliver: impl Deliver) -> Result<Self, StartError> {
        Self::start_observed(settings, Arc::new(deliver), Arc::new(Unobserved))
    }

    /// The same, and tells `observer` what happens.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub fn start_observed(
        settings: &Settings,
        deliver: Arc<dyn Deliver>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let (topics, group) = (deliver.topics().to_vec(), deliver.group().to_owned());
        settings.check()?;
        config::check_group(&group)?;
        for topic in &topics {
            config::check_topic(topic)?;
        }
        let stopping = CancellationToken::new();
        let undertaker = Undertaker::new(settings, &topics, &group)?;
        let status: Arc<Mutex<Status>> = Arc::default();
        let work = Arc::new(Work {
            deliver,
            undertaker,
            observer,
            group,
            places: Arc::new(Semaphore::new(settings.concurrency)),
            runtime: tokio::runtime::Handle::current(),
        });
        let (done, ended) = oneshot::channel();
        let session = Session::new(settings.clone(), topics, work, stopping.clone(), Arc::clone(&status))?;
        let thread = thread::Builder::new().name("semel-consumer".to_owned()).spawn(move || {
            session.run();
            // Nobody may wait any more.
            let _ = done.send(());
        });
        thread.map_err(|error| StartError {
            what: format!("no thread for a consumer: {error}"),
            source: None,
        })?;
        Ok(Self { stopping, ended: Some(ended), status })
    }

    /// How it fares.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Tells it to stop: it takes no further message.
    pub fn begin_stop(&self) {
        self.stopping.cancel();
    }

    /// Stops: takes no further message, waits for those that are handled (as long as is configured), commits what is done,
    /// and leaves the group, so that the others take over at once.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(ended) = self.ended.take() {
            // Without an answer its thread has panicked, and stopped that way.
            let _ = ended.await;
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}
