//! The thread that polls, from its start to its end.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;

use super::group::{Context, Group};
use super::work::Work;
use super::{Settings, StartError, Status};
use crate::limits;
use crate::pause::Pause;

/// What the thread needs.
pub(super) struct Session {
    settings: Settings,
    topics: Vec<String>,
    group: Arc<Group>,
    group_name: String,
    stopping: CancellationToken,
    /// Made where whoever starts it can be told why it cannot be.
    first: Option<BaseConsumer<Context>>,
}

impl Session {
    pub(super) fn new(
        settings: Settings,
        topics: Vec<String>,
        work: Arc<Work>,
        stopping: CancellationToken,
        status: Arc<Mutex<Status>>,
    ) -> Result<Self, StartError> {
        let group_name = work.group.clone();
        let group = Arc::new(Group::new(work, settings.drain, settings.in_flight, status));
        let mut session = Self { settings, topics, group, group_name, stopping, first: None };
        session.first = Some(session.connect()?);
        Ok(session)
    }

    fn connect(&self) -> Result<BaseConsumer<Context>, StartError> {
        let context = Context(Arc::clone(&self.group));
        let made = self.settings.consumer(&self.group_name).create_with_context(context);
        let consumer: BaseConsumer<Context> =
            made.map_err(|error| StartError::new("the consumer cannot be made", error))?;
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let subscribed = consumer.subscribe(&topics);
        subscribed.map_err(|error| StartError::new("the topics cannot be subscribed to", error))?;
        Ok(consumer)
    }

    /// Polls until it is told to stop.
    pub(super) fn run(mut self) {
        let mut pause = Pause::new(limits::OUTAGE_PAUSE_FIRST, limits::OUTAGE_PAUSE_MAX);
        while !self.stopping.is_cancelled() {
            let consumer = match self.first.take() {
                Some(consumer) => Ok(consumer),
                None => self.connect(),
            };
            match consumer {
                Ok(consumer) => self.poll(&consumer),
                Err(error) => self.group.heard(Some(error.to_string())),
            }
            if !self.stopping.is_cancelled() {
                // A client that cannot go on is made anew.
                std::thread::sleep(pause.next());
            }
        }
    }

    /// Until the client cannot go on, or is told to stop: then with everything given back.
    fn poll(&self, consumer: &BaseConsumer<Context>) {
        let mut committed = Instant::now();
        while !self.stopping.is_cancelled() {
            let is_busy = self.group.settle();
            self.group.balance(consumer);
            if committed.elapsed() >= self.settings.commit_every {
                self.group.commit(consumer);
                committed = Instant::now();
            }
            let patience = if is_busy { limits::POLL_BUSY } else { limits::POLL_IDLE };
            match consumer.poll(patience) {
                None => {}
                Some(Ok(message)) => {
                    self.group.heard(None);
                    self.group.take(&message);
                }
                Some(Err(error)) => {
                    let is_fatal = is_fatal(&error);
                    self.group.heard(Some(error.to_string()));
                    if is_fatal {
                        break;
                    }
                }
            }
        }
        self.group.leave(consumer);
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}
