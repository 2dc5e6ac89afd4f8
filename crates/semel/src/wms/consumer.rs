//! The guide's handler of events: wrapped, it runs once per event id, topic and consumer group.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use semel_core::{Ledger, StoreError};
#[cfg(feature = "metrics")]
use semel_kafka::Metrics;
use semel_kafka::{
    Claimed, CloudEvent, Config, ConfigError, Conflicts, Consumer, Deduplicated, Deliver, Delivered,
    Delivering, Handled, HandlerError, Identity, Message, Settings, StartError, Turn,
};

use super::initialize_indexes;

/// Where processed messages are kept. A clone is another handle.
#[derive(Clone, Debug)]
pub struct MessageRepository(Ledger);

impl MessageRepository {
    /// Messages in this ledger.
    pub const fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// See [`initialize_indexes`].
    ///
    /// # Errors
    /// The store cannot serve.
    pub async fn ensure_indexes(&self) -> Result<(), StoreError> {
        initialize_indexes(&self.0).await
    }
}

impl From<Ledger> for MessageRepository {
    fn from(ledger: Ledger) -> Self {
        Self(ledger)
    }
}

#[cfg(feature = "mongodb")]
impl From<super::MongoMessageRepository> for MessageRepository {
    fn from(repository: super::MongoMessageRepository) -> Self {
        Self(repository.ledger().clone())
    }
}

/// What is consumed, with the guide's keys.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// The service's name.
    pub service_name: String,
    /// The topic.
    pub topic: String,
    /// The consumer group: each group handles each event.
    pub consumer_group: String,
    /// Where processed messages are kept.
    pub repository: MessageRepository,
    /// How long a message is remembered, from when it was handled.
    pub retention_period: Duration,
    /// Where it is counted.
    #[cfg(feature = "metrics")]
    pub metrics: Option<Metrics>,
}

impl ConsumerConfig {
    /// The guide's retention, 24 h.
    pub fn new(
        service_name: impl Into<String>,
        topic: impl Into<String>,
        consumer_group: impl Into<String>,
        repository: impl Into<MessageRepository>,
    ) -> Self {
        Self {
            service_name: service_name.into(),
            topic: topic.into(),
            consumer_group: consumer_group.into(),
            repository: repository.into(),
            retention_period: semel_kafka::limits::RETENTION_DEFAULT,
            #[cfg(feature = "metrics")]
            metrics: None,
        }
    }
}

/// Wraps a handler so that it is called once per unique event id, as in the guide: an id is unique over all sources, and
/// what an event with a known id holds does not matter. (By the rules of CloudEvents an id is unique in its source only:
/// [`semel_kafka::Deduplicated`] goes by these, and tells a second event under the same identity from a duplicate.)
///
/// ```
/// use semel::wms::{ConsumerConfig, deduplicating_handler};
/// use semel::kafka::CloudEvent;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ledger = semel::open("memory:").await?;
/// let handler = deduplicating_handler(
///     ConsumerConfig::new("order-service", "orders.received", "order-processor", ledger),
///     |event, _claim| async move {
///         println!("processing {}", event.id());
///         Ok(())
///     },
/// )?;
/// let event = CloudEvent::new("8e03978e", "/order-service", "com.wms.OrderReceived")?;
/// assert!(handler.handle(&event).await.is_ok()); // runs it
/// assert!(handler.handle(&event).await.is_ok()); // does not
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The configuration is not within the limits.
pub fn deduplicating_handler<F, R>(
    config: ConsumerConfig,
    handler: F,
) -> Result<DeduplicatingHandler, ConfigError>
where
    F: Fn(Arc<CloudEvent>, Claimed) -> R + Send + Sync + 'static,
    R: Future<Output = Handled> + Send + 'static,
{
    let ConsumerConfig { service_name, topic, consumer_group, repository, retention_period, .. } = &config;
    let ours = Config::new(service_name, topic, consumer_group)
        .identity(Identity::Id)
        .conflicts(Conflicts::Duplicate)
        .retention(*retention_period);
    let handler = Deduplicated::try_new(repository.0.clone(), ours, handler)?;
    #[cfg(feature = "metrics")]
    if let Some(metrics) = config.metrics {
        metrics.configured(&config.topic, &config.consumer_group);
        let observer: Arc<dyn semel_kafka::Observer> = Arc::new(metrics);
        return Ok(DeduplicatingHandler {
            handler: handler.observed(Arc::clone(&observer))?,
            observer,
            counts: true,
        });
    }
    Ok(DeduplicatingHandler { handler, observer: Arc::new(semel_kafka::Unobserved), counts: false })
}

/// A handler that is called once per event. A clone is the same one.
#[derive(Clone)]
pub struct DeduplicatingHandler {
    handler: Deduplicated,
    observer: Arc<dyn semel_kafka::Observer>,
    counts: bool,
}

impl fmt::Debug for DeduplicatingHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handler.fmt(f)
    }
}

impl DeduplicatingHandler {
    /// For a consumer of one's own, as in the guide: after `Ok` the offset may be committed, and after an error the message
    /// is to be put aside first. A duplicate is `Ok` without a call. What fails is tried again in here.
    ///
    /// # Errors
    /// Its tries are spent, or nobody knows what an earlier one did.
    ///
    /// # Cancellation
    /// A try that has begun goes on by itself.
    pub async fn handle(&self, event: &CloudEvent) -> Handled {
        let delivered = self.handler.handle(event).await;
        if self.counts && delivered == Delivered::Duplicate {
            let topic = self.handler.topics().first().map_or("", String::as_str);
            self.observer.happened(topic, self.handler.group(), semel_kafka::observe::What::Duplicate);
        }
        match delivered {
            Delivered::Handled | Delivered::Duplicate => Ok(()),
            Delivered::DeadLetter(letter) => Err(HandlerError::permanent(letter.error)),
            Delivered::GivenUp => Err(HandlerError::not_executed("the process goes down")),
        }
    }

    /// Starts a consumer that calls it, commits, and puts aside what fails (`NewKafkaConsumer(handler).Start()`).
    ///
    /// # Errors
    /// The settings are none.
    pub fn start(self, settings: &Settings) -> Result<Consumer, StartError> {
        let observer = Arc::clone(&self.observer);
        Consumer::start_observed(settings, Arc::new(self), observer)
    }
}

impl Deliver for DeduplicatingHandler {
    fn topics(&self) -> &[String] {
        self.handler.topics()
    }

    fn group(&self) -> &str {
        self.handler.group()
    }

    fn deliver<'a>(&'a self, message: &'a Arc<Message>, turn: &'a Turn) -> Delivering<'a> {
        self.handler.deliver(message, turn)
    }
}
