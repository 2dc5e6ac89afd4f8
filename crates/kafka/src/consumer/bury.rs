//! Dead letters on their way into their topic.

use std::collections::HashMap;

use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use crate::config::dead_letter_topic;
use crate::consumer::{Settings, StartError};
use crate::dead_letter::DeadLetter;
use crate::limits;
use crate::message::Message;

/// Puts messages into dead letter topics.
pub(super) struct Undertaker {
    producer: FutureProducer,
    group: String,
    /// Of each topic that is consumed.
    topics: HashMap<String, String>,
}

impl Undertaker {
    pub(super) fn new(settings: &Settings, topics: &[String], group: &str) -> Result<Self, StartError> {
        let dead = |topic: &String| {
            let dead = dead_letter_topic(topic, settings.dead_letter_topic.as_deref(), topics)?;
            Ok::<_, StartError>((topic.clone(), dead))
        };
        let topics = topics.iter().map(dead).collect::<Result<_, _>>()?;
        let producer = settings.producer().create();
        let producer = producer
            .map_err(|error| StartError::new("the producer of dead letters cannot be made", error))?;
        Ok(Self { producer, group: group.to_owned(), topics })
    }

    /// Puts a message aside. When this returns without an error, the topic has acknowledged it.
    ///
    /// # Errors
    /// It has not: what was sent may be there or not, and is sent again.
    pub(super) async fn bury(&self, message: &Message, letter: &DeadLetter) -> Result<(), String> {
        let Some(topic) = self.topics.get(&*message.topic) else {
            return Err(format!("`{}` has no dead letter topic", message.topic));
        };
        let all = letter.headers(message, &self.group);
        let headers = all.iter().fold(OwnedHeaders::new_with_capacity(all.len()), |headers, (key, value)| {
            headers.insert(KafkaHeader { key, value: value.as_deref() })
        });
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        let sent = self.producer.send(record, Timeout::After(limits::DEAD_LETTER_TIMEOUT)).await;
        sent.map(drop).map_err(|(error, _)| format!("`{topic}`: {error}"))
    }
}
