//! The assignment: which partitions are this member's, what of them is under way, and what is committed of them.
//!
//! Librdkafka calls the [`Context`] from within a poll, on the thread that polls, so that a rebalance never runs beside the
//! rest of the book-keeping. The lock is never held across a call of librdkafka.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Status;
use super::work::{Back, Item, Shift, Work};
use crate::deliver::Turn;
use crate::limits;
use crate::message::{Header, Message};
use crate::offsets::{Offsets, Place};

/// What librdkafka calls.
pub(super) struct Context(pub(super) Arc<Group>);

/// A member of the group.
pub(super) struct Group {
    work: Arc<Work>,
    drain: Duration,
    in_flight: usize,
    back: Sender<Back>,
    books: Mutex<Books>,
    status: Arc<Mutex<Status>>,
    /// When it was last said in the log that a broker does not answer.
    warned: Mutex<Option<Instant>>,
}

/// What is known of the partitions that are assigned.
struct Books {
    offsets: Offsets,
    shifts: BTreeMap<Place, Arc<Shift>>,
    paused: BTreeSet<Place>,
    behind: BTreeMap<Place, u64>,
    back: Receiver<Back>,
}

impl Group {
    pub(super) fn new(
        work: Arc<Work>,
        drain: Duration,
        in_flight: usize,
        status: Arc<Mutex<Status>>,
    ) -> Self {
        let (back, came) = channel();
        let books = Books {
            offsets: Offsets::new(),
            shifts: BTreeMap::new(),
            paused: BTreeSet::new(),
            behind: BTreeMap::new(),
            back: came,
        };
        Self { work, drain, in_flight, back, books: Mutex::new(books), status, warned: Mutex::default() }
    }

    /// Takes a message on that was polled.
    pub(super) fn take(&self, message: &BorrowedMessage<'_>) {
        let place = Place::new(message.topic(), message.partition());
        let mut books = self.books.lock();
        let Some(shift) = books.shifts.get(&place).cloned() else {
            // It was revoked between the poll that fetched it and this one: it is somebody else's.
            return;
        };
        let Some(ticket) = books.offsets.deliver(&place, message.offset()) else { return };
        drop(books);
        let message = Arc::new(read(message, &shift.place));
        self.work.take(&shift, Item { message, ticket }, &self.back);
    }

    /// Notes what has come back. Whether anything is still under way.
    pub(super) fn settle(&self) -> bool {
        let mut books = self.books.lock();
        while let Ok(back) = books.back.try_recv() {
            books.note(&back);
        }
        books.shifts.values().any(|shift| shift.open() > 0)
    }

    /// Pauses partitions whose messages wait or pile up, and lets those go on that have caught up.
    pub(super) fn balance(&self, consumer: &BaseConsumer<Context>) {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut books = self.books.lock();
        let places: Vec<Arc<Shift>> = books.shifts.values().cloned().collect();
        for shift in places {
            let (held, is_paused) = (books.offsets.held(&shift.place), books.paused.contains(&shift.place));
            let enough = if is_paused {
                self.in_flight / limits::IN_FLIGHT_RESUME_PART
            } else {
                self.in_flight.saturating_sub(1)
            };
            let wants_pause = shift.turn.waiting() > 0 || held > enough;
            if wants_pause != is_paused {
                let list = if wants_pause { &mut pause } else { &mut resume };
                list.add_partition(&shift.place.topic, shift.place.partition);
                if wants_pause {
                    books.paused.insert(shift.place.clone());
                } else {
                    books.paused.remove(&shift.place);
                }
            }
        }
        drop(books);
        if pause.count() > 0 {
            note(consumer.pause(&pause), "partitions could not be paused");
        }
        if resume.count() > 0 {
            note(consumer.resume(&resume), "partitions could not be resumed");
        }
    }

    /// Commits what is done and not committed.
    pub(super) fn commit(&self, consumer: &BaseConsumer<Context>) {
        let done = self.books.lock().offsets.take_all();
        if !done.is_empty() {
            self.send(consumer, &done);
        }
    }

    /// Waits for the answer, for two reasons. The driver tells nobody what became of a commit that is not waited for; and
    /// one that is on its way while partitions change hands could arrive under the next generation, over what their next
    /// owner has committed. While this thread waits, nothing can be taken from this member but by taking it for dead, and
    /// then its generation is refused.
    fn send(&self, consumer: &BaseConsumer<Context>, done: &[(Place, i64)]) {
        let mut list = TopicPartitionList::with_capacity(done.len());
        for (place, offset) in done {
            let added = list.add_partition_offset(&place.topic, place.partition, Offset::Offset(*offset));
            note(added, "an offset could not be put on the list");
        }
        let committed = consumer.commit(&list, CommitMode::Sync);
        self.work.observer.committed(&self.work.group, done.len(), committed.is_ok());
        if let Err(error) = committed {
            // In the middle of a rebalance that is so; it is said again.
            tracing::info!(consumer_group = self.work.group, %error, "offsets could not be committed yet");
            let mut books = self.books.lock();
            for (place, offset) in done {
                books.offsets.not_committed(place, *offset);
            }
        }
    }

    /// These partitions are this member's now.
    fn assign(&self, list: &TopicPartitionList) {
        let mut books = self.books.lock();
        for element in list.elements() {
            let place = Place::new(element.topic(), element.partition());
            let turn = Turn::until(CancellationToken::new(), Arc::clone(&self.work.places));
            books.offsets.assign(place.clone());
            books.paused.remove(&place);
            if let Some(old) = books.shifts.insert(place.clone(), Arc::new(Shift::new(place, turn))) {
                old.turn.over().cancel();
            }
        }
        drop(books);
        self.tell(true);
    }

    /// These partitions are to be given back: what has not begun does not begin, what runs is waited for and committed, as
    /// far as that is done in time. What is not runs on, under its lease, and is the next member's to wait for.
    fn revoke(&self, consumer: &BaseConsumer<Context>, places: &[Place]) {
        let shifts: Vec<Arc<Shift>> = {
            let books = self.books.lock();
            places.iter().filter_map(|place| books.shifts.get(place).cloned()).collect()
        };
        for shift in &shifts {
            shift.turn.over().cancel();
        }
        // Partitions that were lost are somebody else's already: there is nothing to hand over.
        if !consumer.assignment_lost() {
            self.wait_for(&shifts);
            let done: Vec<(Place, i64)> = {
                let mut books = self.books.lock();
                let taken =
                    places.iter().filter_map(|place| Some((place.clone(), books.offsets.take(place)?)));
                taken.collect()
            };
            if !done.is_empty() {
                self.send(consumer, &done);
            }
        }
        let mut books = self.books.lock();
        for place in places {
            books.offsets.revoke(place);
            books.shifts.remove(place);
            books.paused.remove(place);
            books.behind.remove(place);
            self.work.observer.lag(&place.topic, &self.work.group, place.partition, None);
        }
        drop(books);
        self.tell(true);
    }

    fn wait_for(&self, shifts: &[Arc<Shift>]) {
        let deadline = Instant::now() + self.drain;
        loop {
            let open: usize = shifts.iter().map(|shift| shift.open()).sum();
            let left = deadline.saturating_duration_since(Instant::now());
            let mut books = self.books.lock();
            if open == 0 || left.is_zero() {
                while let Ok(back) = books.back.try_recv() {
                    books.note(&back);
                }
                if open > 0 {
                    tracing::warn!(
                        consumer_group = self.work.group,
                        messages = open,
                        "messages were under way when their partition was given back: they are left to their leases"
                    );
                }
                return;
            }
            // Whatever comes back; and now and then without, since what came just before was counted by it.
            if let Ok(back) = books.back.recv_timeout(left.min(limits::POLL_IDLE)) {
                books.note(&back);
            }
        }
    }

    /// Gives everything back: the consumer is about to stop.
    pub(super) fn leave(&self, consumer: &BaseConsumer<Context>) {
        let places: Vec<Place> = self.books.lock().shifts.keys().cloned().collect();
        self.revoke(consumer, &places);
    }

    /// Brings what others are told up to date.
    fn tell(&self, joined: bool) {
        let books = self.books.lock();
        let mut topics: BTreeMap<&str, usize> =
            self.work.deliver.topics().iter().map(|topic| (topic.as_str(), 0)).collect();
        for place in books.shifts.keys() {
            *topics.entry(&place.topic).or_default() += 1;
        }
        for (topic, partitions) in topics {
            self.work.observer.assigned(topic, &self.work.group, partitions);
        }
        let mut status = self.status.lock();
        status.partitions =
            books.shifts.keys().map(|place| (place.topic.to_string(), place.partition)).collect();
        status.lag = books.behind.values().sum();
        status.joined |= joined;
    }

    /// Something failed, or what had failed does no more.
    pub(super) fn heard(&self, error: Option<String>) {
        // The library says it of each broker, each connection, and each try, by turns.
        let mut warned = self.warned.lock();
        if let Some(error) = &error
            && warned.is_none_or(|warned| warned.elapsed() >= limits::WARN_EVERY)
        {
            tracing::warn!(consumer_group = self.work.group, error, "a broker does not answer as it should");
            *warned = Some(Instant::now());
        }
        drop(warned);
        self.status.lock().error = error;
    }

    fn lags(&self, statistics: &Statistics) {
        let mut books = self.books.lock();
        let places: Vec<Place> = books.shifts.keys().cloned().collect();
        for place in places {
            let topic = statistics.topics.get(&*place.topic);
            let Some(partition) = topic.and_then(|topic| topic.partitions.get(&place.partition)) else {
                continue;
            };
            // What can be read: up to the first transaction that is open.
            let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
            let done = books.offsets.done(&place);
            let position = done.unwrap_or(partition.committed_offset).max(partition.lo_offset).max(0);
            if end < 0 {
                continue;
            }
            let behind = u64::try_from(end - position).unwrap_or(0);
            books.behind.insert(place.clone(), behind);
            self.work.observer.lag(&place.topic, &self.work.group, place.partition, Some(behind));
        }
        drop(books);
        self.tell(false);
    }
}

impl Books {
    fn note(&mut self, back: &Back) {
        if back.is_done {
            self.offsets.complete(&back.place, back.ticket);
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, "librdkafka: {message}");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.0.lags(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.heard(Some(format!("{error}: {reason}")));
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // Before anything of theirs can be polled.
            Rebalance::Assign(list) => self.0.assign(list),
            Rebalance::Revoke(list) => {
                let places = list.elements();
                let places: Vec<Place> =
                    places.iter().map(|element| Place::new(element.topic(), element.partition())).collect();
                self.0.revoke(consumer, &places);
            }
            Rebalance::Error(error) => self.0.heard(Some(error.to_string())),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // However this member has left them when they were its own before.
            Rebalance::Assign(list) if list.count() > 0 => {
                note(consumer.resume(list), "partitions could not be resumed");
            }
            Rebalance::Assign(_) | Rebalance::Revoke(_) | Rebalance::Error(_) => {}
        }
    }
}

/// A message as it is in the memory of the driver, as one of ours.
fn read(message: &BorrowedMessage<'_>, place: &Place) -> Message {
    let copy = bytes::Bytes::copy_from_slice;
    let headers =
        message.headers().map(|headers| (0..headers.count()).map(|index| header(headers, index)).collect());
    Message {
        topic: Arc::clone(&place.topic),
        partition: place.partition,
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(copy),
        payload: message.payload().map(copy),
        headers: headers.unwrap_or_default(),
    }
}

/// The driver panics over a name that is no UTF-8, which the protocol does not know, and a producer can write all the
/// same. Such a header is not to be had; its message is.
fn header(headers: &BorrowedHeaders, index: usize) -> Header {
    let found = catch_unwind(AssertUnwindSafe(|| {
        let header = headers.try_get(index)?;
        Some((Box::from(header.key), header.value.map(bytes::Bytes::copy_from_slice)))
    }));
    found.ok().flatten().unwrap_or_else(|| ("\u{fffd}".into(), None))
}

fn note<E: std::fmt::Display>(result: Result<(), E>, what: &'static str) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what}");
    }
}
