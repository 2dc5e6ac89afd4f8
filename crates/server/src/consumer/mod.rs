//! Consumers of Kafka: each event of their topics becomes a record that the dispatcher delivers, as it does webhooks'. An
//! offset is committed once that record is durable.
//!
//! What the target is sent is the event in structured mode (`application/cloudevents+json`), however it came, under the
//! record's downstream key; any other message is sent as it came.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use semel_core::Request;
use semel_core::command::{Accept, Accepted};
use semel_core::error::Invalid;
use semel_core::id::{Lane, Operation, Tag, TagName, TagValue};
use semel_core::outcome::Header;
use semel_core::policy::Policy;
use semel_core::request::Input;
use semel_kafka::identity::{self, Identified};
use semel_kafka::observe::{Observer as Told, What};
use semel_kafka::{Consumer, DeadLetter, Deliver, Delivered, Delivering, Malformed, Message, Reason, Turn};
use tokio::time::sleep;

use crate::config::ConsumerConfig;
use crate::engine::{Engine, EngineErrorKind, Link};
use crate::limits;
use crate::telemetry::observer::Observer;

/// The header of an event's record that has its identity.
const EVENT_ID: &str = "semel-event-id";
/// The header of an event's record that has its source.
const EVENT_SOURCE: &str = "semel-event-source";
/// What an event is sent as.
const STRUCTURED: &str = "application/cloudevents+json";

/// The consumers of a running server. Clones are the same.
#[derive(Clone)]
pub(crate) struct Consumers(Arc<Inner>);

struct Inner {
    engine: Engine,
    observer: Observer,
    metrics: semel_kafka::Metrics,
    running: Mutex<BTreeMap<Arc<str>, (ConsumerConfig, Consumer)>>,
}

/// A consumer cannot be started.
pub(crate) type StartError = semel_kafka::StartError;

impl Consumers {
    /// Starts these.
    ///
    /// # Errors
    /// One cannot be, whatever its broker says: an option is none, or there is no thread.
    pub(crate) fn start(
        configured: &[ConsumerConfig],
        engine: Engine,
        observer: Observer,
        metrics: semel_kafka::Metrics,
    ) -> Result<Self, StartError> {
        let consumers = Self(Arc::new(Inner { engine, observer, metrics, running: Mutex::default() }));
        for config in configured {
            let consumer = consumers.one(config)?;
            consumers.0.running.lock().insert(Arc::clone(&config.name), (config.clone(), consumer));
        }
        Ok(consumers)
    }

    fn one(&self, config: &ConsumerConfig) -> Result<Consumer, StartError> {
        let inner = &self.0;
        let settings = config.settings().client_id("semel").concurrency(limits::CONSUMER_CONCURRENCY);
        for topic in &config.topics {
            inner.metrics.configured(topic, &config.group);
        }
        let metrics = inner.metrics.clone();
        let sink = Sink {
            operation: config.operation.name.clone(),
            lane: config.operation.lane.clone(),
            policy: config.operation.policy,
            config: config.clone(),
            engine: inner.engine.clone(),
            observer: inner.observer.clone(),
            metrics: metrics.clone(),
        };
        Consumer::start_observed(&settings, Arc::new(sink), Arc::new(metrics))
    }

    /// Puts these in the place of those that are there. One that is configured as before goes on; one that is not stops,
    /// commits what is in, and another takes its place.
    ///
    /// # Errors
    /// As [`start`](Self::start): that one, and those behind it, are not there then.
    pub(crate) fn reload(&self, configured: &[ConsumerConfig]) -> Result<(), StartError> {
        let mut running = self.0.running.lock();
        running.retain(|name, (config, _)| {
            configured.iter().any(|other| other.name == *name && other == config)
        });
        for config in configured {
            if !running.contains_key(&config.name) {
                let consumer = self.one(config)?;
                running.insert(Arc::clone(&config.name), (config.clone(), consumer));
            }
        }
        Ok(())
    }

    /// Stops all of them: what is in by then is committed.
    pub(crate) async fn stop(&self) {
        let running = std::mem::take(&mut *self.0.running.lock());
        let consumers: Vec<Consumer> = running.into_values().map(|(_, consumer)| consumer).collect();
        consumers.iter().for_each(Consumer::begin_stop);
        for consumer in consumers {
            consumer.stop().await;
        }
    }
}

/// Takes messages of one consumer in.
struct Sink {
    config: ConsumerConfig,
    operation: Operation,
    lane: Lane,
    policy: Policy,
    engine: Engine,
    observer: Observer,
    metrics: semel_kafka::Metrics,
}

impl Deliver for Sink {
    fn topics(&self) -> &[String] {
        &self.config.topics
    }

    fn group(&self) -> &str {
        &self.config.group
    }

    fn deliver<'a>(&'a self, message: &'a Arc<Message>, turn: &'a Turn) -> Delivering<'a> {
        Box::pin(async move {
            let link = link_of(message);
            match self.request(message, &link) {
                Ok(request) => self.take_in(message, &request, &link, turn).await,
                Err(malformed) => {
                    Delivered::DeadLetter(DeadLetter::new(Reason::Malformed, malformed.to_string()))
                }
            }
        })
    }
}

impl Sink {
    /// Until the store has said what it is, or the message is another's.
    async fn take_in(
        &self,
        message: &Message,
        request: &Arc<Request>,
        link: &Link,
        turn: &Turn,
    ) -> Delivered {
        let accept = match Accept::try_new(Arc::clone(request)) {
            Ok(accept) => accept,
            Err(invalid) => {
                return Delivered::DeadLetter(DeadLetter::new(Reason::Malformed, invalid.to_string()));
            }
        };
        let mut pause = limits::CONSUMER_PAUSE_FIRST;
        while !turn.is_over() {
            let error = match self.engine.take_event(&accept).await {
                Ok(Accepted::Accepted(record)) => {
                    self.metrics.happened(&message.topic, &self.config.group, What::Claimed);
                    self.observer.event_accepted(&record, link);
                    return Delivered::Handled;
                }
                Ok(Accepted::Duplicate(_)) => return Delivered::Duplicate,
                Ok(Accepted::Mismatch(record)) => {
                    let error = "its identity was used before, for an event with another type or other data";
                    let letter = DeadLetter::new(Reason::Conflict, error);
                    return Delivered::DeadLetter(DeadLetter { record: Some(record.id()), ..letter });
                }
                Err(error) => error,
            };
            match error.kind() {
                EngineErrorKind::TooLarge => {
                    return Delivered::DeadLetter(DeadLetter::new(Reason::TooLarge, error.to_string()));
                }
                EngineErrorKind::Stopping => return Delivered::GivenUp,
                EngineErrorKind::UnknownOperation
                | EngineErrorKind::Invalid(_)
                | EngineErrorKind::Storage
                | EngineErrorKind::Unstored
                | EngineErrorKind::Internal => {}
            }
            if turn.wait(sleep(pause)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(limits::CONSUMER_PAUSE_MAX);
        }
        Delivered::GivenUp
    }

    fn request(&self, message: &Message, link: &Link) -> Result<Arc<Request>, Malformed> {
        let identified = self.config.identity.of(message, &self.config.group)?;
        let fingerprint = semel_kafka::fingerprint(self.config.conflicts, message, identified.event.as_ref());
        let built = || {
            let scope = identity::scope(crate::webhook::TENANT, &message.topic, &self.config.group)?;
            let (key, operation) = (identified.key.clone(), self.operation.clone());
            let request = Request::new(scope, key, operation, fingerprint, self.policy);
            let request = request.try_with_tags(self.tags(message, &identified))?;
            let input = input(message, &identified, link)?;
            Ok::<_, Invalid>(Arc::new(request.in_lane(self.lane.clone()).with_input(input)))
        };
        built().map_err(Malformed::from)
    }

    /// Names to find it by. What is too long for one is left out.
    fn tags(&self, message: &Message, identified: &Identified) -> Vec<Tag> {
        let event = identified.event.as_ref().map(|event| ("event_id", event.id()));
        let names = [
            ("source", self.operation.as_str()),
            ("target", "default"),
            ("topic", &*message.topic),
            ("consumer_group", &*self.config.group),
        ];
        let tag = |(name, value)| {
            Some(Tag { name: TagName::try_new(name).ok()?, value: TagValue::try_new(value).ok()? })
        };
        names.into_iter().chain(event).filter_map(tag).collect()
    }
}

fn input(message: &Message, identified: &Identified, link: &Link) -> Result<Input, Invalid> {
    let header =
        |name: &str, value: &[u8]| Header { name: name.into(), value: Bytes::copy_from_slice(value) };
    let (content_type, body) = match &identified.event {
        Some(event) => (Some(Bytes::from_static(STRUCTURED.as_bytes())), event.to_structured()),
        None => (message.header("content-type").cloned(), message.payload.clone().unwrap_or_default()),
    };
    let id = identified.event.as_ref().map_or(identified.key.as_str(), |event| event.id());
    let source = identified.event.as_ref().map_or(&*message.topic, |event| event.source());
    let own = [header(EVENT_ID, id.as_bytes()), header(EVENT_SOURCE, source.as_bytes())];
    let content_type = content_type.iter().map(|value| header("content-type", value));
    let headers = link.headers_with(own.into_iter().chain(content_type))?;
    Input::try_new("POST", "", headers, body)
}

/// What links the event to whatever caused it: its trace, and what it belongs to.
fn link_of(message: &Message) -> Link {
    let text = |name| message.header(name).and_then(|value| std::str::from_utf8(value).ok());
    let trace = text("traceparent").or_else(|| text("ce_traceparent"));
    Link {
        correlation_id: text("x-correlation-id").or_else(|| text("ce_correlationid")).map(Arc::from),
        traceparent: trace.and_then(|trace| HeaderValue::from_str(trace).ok()),
        ..Link::default()
    }
}
