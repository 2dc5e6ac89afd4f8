//! Taking events in: a record for each event and target, all of them durable before anybody is answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use semel_core::command::{Accept, Accepted};
use semel_core::error::Invalid;
use semel_core::id::{Tag, TagValue};
use semel_core::outcome::Header;
use semel_core::record::Record;
use semel_core::request::{Fingerprint, Input};
use semel_core::{Key, RecordId, Request, Timestamp};
use semel_webhook::Event;

use super::cache::Remembered;
use super::{Inbound, Route, tag};
use crate::config::ORDER_TAG;
use crate::engine::{Engine, EngineError, Link, pointed_at};

/// The header of an event's record that has its identity.
const EVENT_ID: &str = "semel-event-id";
/// The header of an event's record that has its source.
const EVENT_SOURCE: &str = "semel-event-source";

/// What came with a delivery besides its events.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The request, and what it belongs to.
    pub(crate) link: Link,
    /// As it came.
    pub(crate) content_type: Option<Bytes>,
    /// Where from, as far as that can be believed.
    pub(crate) address: IpAddr,
}

/// What an event turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// New to one of its targets at least.
    Accepted,
    /// All of its targets have it.
    Duplicate,
    /// Its identity stands for another body.
    Conflict,
}

/// An event, judged.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// What was asked of the ledger, for the first target that the verdict is about.
    pub(crate) request: Arc<Request>,
    /// The record that this left or met; `None` where it was remembered.
    pub(crate) record: Option<Arc<Record>>,
    /// What it repeats, where it repeats anything.
    pub(crate) evidence: Option<Evidence>,
}

/// What shows that an event has come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// When it came first, in the store's time.
    pub(crate) first_seen: Timestamp,
    /// How long ago that was.
    pub(crate) gap: Duration,
    /// Whether its bytes are other ones, where the first ones are at hand.
    pub(crate) body_differs: Option<bool>,
    /// The attempt that it repeats.
    pub(crate) fence: u64,
    /// Whether the store was not asked.
    pub(crate) remembered: bool,
}

impl Inbound {
    /// Takes these events in. What is answered afterwards is durable.
    ///
    /// # Errors
    /// The store has no answer, or the server is going down: nothing may be acknowledged. What is in by then is in, and
    /// is a duplicate when it comes again.
    pub(crate) async fn take(
        &self,
        engine: &Engine,
        events: &[Event],
        arrival: &Arrival,
    ) -> Result<Vec<Judged>, EngineError> {
        let mut judged = Vec::with_capacity(events.len());
        if let [event] = events {
            judged.push(self.take_one(engine, event, arrival).await?);
        } else if self.config.order_by.is_some() {
            // Their order is that in which they are taken in.
            for event in events {
                judged.push(self.take_one(engine, event, arrival).await?);
            }
        } else {
            let all = join_all(events.iter().map(|event| self.take_one(engine, event, arrival))).await;
            judged = all.into_iter().collect::<Result<_, _>>()?;
        }
        Ok(judged)
    }

    async fn take_one(
        &self,
        engine: &Engine,
        event: &Event,
        arrival: &Arrival,
    ) -> Result<Judged, EngineError> {
        let asked = Asked {
            key: event.identity().key()?,
            fingerprint: of(self.config.source.fingerprint(event)),
            event,
            arrival,
        };
        if let Some(judged) = self.remembered(engine, &asked)? {
            if self.config.duplicates.dead_letter {
                let routes: Vec<&Route> = self.routes.iter().collect();
                self.file(engine, &asked, Kind::Duplicate, &routes).await?;
            }
            return Ok(judged);
        }
        let requests = self.routes.iter().map(|route| self.request(route, &asked));
        let accepts = requests.map(|request| Accept::try_new(request?)).collect::<Result<Vec<_>, _>>()?;
        let answers: Vec<Accepted> = match &accepts[..] {
            [accept] => vec![engine.take_event(accept).await?],
            accepts => {
                let all = join_all(accepts.iter().map(|accept| engine.take_event(accept))).await;
                all.into_iter().collect::<Result<_, _>>()?
            }
        };
        if self.config.order_by.is_some() {
            self.after_all(engine, &answers).await;
        }
        self.judge(engine, &asked, &answers).await
    }

    /// Waits until whatever comes next was created later: what is ordered has its place by the time of its creation.
    async fn after_all(&self, engine: &Engine, answers: &[Accepted]) {
        let created = |answer: &Accepted| match answer {
            Accepted::Accepted(record) => Some(record.times().created),
            Accepted::Duplicate(_) | Accepted::Mismatch(_) => None,
        };
        if let Some(newest) = answers.iter().filter_map(created).max() {
            engine.after(newest).await;
        }
    }

    /// What all answers together say of the event; what is to be filed is, before that is said.
    async fn judge(
        &self,
        engine: &Engine,
        asked: &Asked<'_>,
        answers: &[Accepted],
    ) -> Result<Judged, EngineError> {
        let now = engine.ledger().store().time();
        let (mut accepted, mut duplicate, mut mismatch) = (None, None, None);
        let (mut conflicts, mut duplicates) = (Vec::new(), Vec::new());
        for (route, answer) in self.routes.iter().zip(answers) {
            match answer {
                Accepted::Accepted(record) => accepted = accepted.or(Some(record)),
                Accepted::Duplicate(record) => {
                    self.settled.meet(record, now);
                    duplicate = duplicate.or(Some(record));
                    duplicates.push(route);
                }
                Accepted::Mismatch(record) => {
                    mismatch = mismatch.or(Some(record));
                    conflicts.push(route);
                }
            }
        }
        if !conflicts.is_empty() {
            self.file(engine, asked, Kind::Conflict, &conflicts).await?;
        }
        let (verdict, record) = match (mismatch, accepted, duplicate) {
            (Some(record), _, _) => (Verdict::Conflict, record),
            (None, Some(record), _) => (Verdict::Accepted, record),
            (None, None, Some(record)) => (Verdict::Duplicate, record),
            // A source has a target at least.
            (None, None, None) => return Err(EngineError::new(crate::engine::EngineErrorKind::Internal)),
        };
        if verdict == Verdict::Duplicate && self.config.duplicates.dead_letter {
            self.file(engine, asked, Kind::Duplicate, &duplicates).await?;
        }
        let evidence = (verdict != Verdict::Accepted).then(|| Evidence {
            first_seen: record.times().created,
            gap: now.since(record.times().created),
            body_differs: record.request().input().map(|input| input.body() != asked.event.body()),
            fence: record.fence().0,
            remembered: false,
        });
        Ok(Judged {
            verdict,
            request: Arc::clone(record.request()),
            record: Some(Arc::clone(record)),
            evidence,
        })
    }

    /// The duplicate that it is, if all of its targets are remembered to have settled it.
    fn remembered(&self, engine: &Engine, asked: &Asked<'_>) -> Result<Option<Judged>, EngineError> {
        let mut first: Option<Remembered> = None;
        for route in &self.routes {
            let id = RecordId::of(&route.scope, &asked.key);
            let Some(found) = self.settled.get(id, &asked.fingerprint) else { return Ok(None) };
            first = first.or(Some(found));
        }
        let (Some(found), Some(route)) = (first, self.routes.first()) else { return Ok(None) };
        let now = engine.ledger().store().time();
        let evidence = Evidence {
            first_seen: found.first_seen,
            gap: now.since(found.first_seen),
            body_differs: None,
            fence: found.fence,
            remembered: true,
        };
        let request = self.headed(route, asked, &asked.key, Vec::new())?;
        Ok(Some(Judged {
            verdict: Verdict::Duplicate,
            request: Arc::new(request),
            record: None,
            evidence: Some(evidence),
        }))
    }

    /// Files the event among the dead letters of these targets, durably, for somebody to look at.
    async fn file(
        &self,
        engine: &Engine,
        asked: &Asked<'_>,
        kind: Kind,
        routes: &[&Route],
    ) -> Result<(), EngineError> {
        let key = kind.key(asked)?;
        let accept = |route: &&Route| {
            let more = vec![tag("kind", kind.as_str())?, tag("event_id", asked.event.identity().as_str())?];
            let request = self.headed(route, asked, &key, more)?.with_input(self.input(asked)?);
            Accept::try_dead(Arc::new(request.in_lane(route.lane.clone())), kind.why().into())
        };
        let accepts = routes.iter().map(accept).collect::<Result<Vec<_>, Invalid>>()?;
        let filed = join_all(accepts.iter().map(|accept| engine.take_event(accept))).await;
        filed.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    }

    /// The ledger's form of an event for one of its targets.
    fn request(&self, route: &Route, asked: &Asked<'_>) -> Result<Arc<Request>, Invalid> {
        let pointer = self.config.order_by.as_deref();
        let order = pointer.and_then(|pointer| pointed_at(asked.event.body(), pointer));
        // What is empty says nothing of an order.
        let order = order.filter(|value| !value.is_empty());
        let order = order.map(|value| tag(ORDER_TAG, &value).or_else(|_| tag(ORDER_TAG, &hashed(&value))));
        let order = order.transpose()?;
        let request = self.headed(route, asked, &asked.key, order.into_iter().collect())?;
        Ok(Arc::new(request.in_lane(route.lane.clone()).with_input(self.input(asked)?)))
    }

    /// A request without its input.
    fn headed(
        &self,
        route: &Route,
        asked: &Asked<'_>,
        key: &Key,
        mut tags: Vec<Tag>,
    ) -> Result<Request, Invalid> {
        tags.extend(route.tags.iter().cloned());
        for (name, pointer) in &self.config.tags {
            let value = pointed_at(asked.event.body(), pointer);
            if let Some(value) = value.and_then(|value| TagValue::try_new(&value).ok()) {
                tags.push(Tag { name: name.clone(), value });
            }
        }
        let (scope, operation) = (route.scope.clone(), route.operation.clone());
        Request::new(scope, key.clone(), operation, asked.fingerprint, route.policy).try_with_tags(tags)
    }

    fn input(&self, asked: &Asked<'_>) -> Result<Input, Invalid> {
        let Arrival { link, content_type, .. } = asked.arrival;
        let header =
            |name: &str, value: &[u8]| Header { name: name.into(), value: Bytes::copy_from_slice(value) };
        let own = [
            header(EVENT_ID, asked.event.identity().as_str().as_bytes()),
            header(EVENT_SOURCE, self.config.source.name().as_bytes()),
        ];
        let content_type =
            content_type.iter().map(|value| Header { name: "content-type".into(), value: value.clone() });
        let headers = link.headers_with(own.into_iter().chain(content_type))?;
        Input::try_new("POST", "", headers, asked.event.body().clone())
    }
}

/// One event on its way in.
struct Asked<'a> {
    key: Key,
    fingerprint: Fingerprint,
    event: &'a Event,
    arrival: &'a Arrival,
}

/// Why something is filed.
#[derive(Clone, Copy)]
enum Kind {
    Conflict,
    Duplicate,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Duplicate => "duplicate",
        }
    }

    const fn why(self) -> &'static str {
        match self {
            Self::Conflict => "the identity of this event stands for another body",
            Self::Duplicate => "the event has come before",
        }
    }

    /// A key that no partner's event has: names that begin with `#` are never a partner's own. The same body is filed
    /// once as a conflict; each request that repeats an event is filed by itself.
    fn key(self, asked: &Asked<'_>) -> Result<Key, Invalid> {
        let mut digest = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        part(asked.event.identity().as_str().as_bytes());
        match self {
            Self::Conflict => {
                part(&[asked.fingerprint.version]);
                part(&asked.fingerprint.digest);
            }
            Self::Duplicate => part(asked.arrival.link.request_id.as_deref().unwrap_or("").as_bytes()),
        }
        Key::try_new(&format!("#{}:{}", self.as_str(), digest.finalize().to_hex()))
    }
}

fn of(fingerprint: semel_fingerprint::Fingerprint) -> Fingerprint {
    Fingerprint { version: fingerprint.version(), digest: *fingerprint.digest() }
}

/// What no tag can hold keeps its order by its digest.
fn hashed(value: &str) -> String {
    format!("#hash:{}", blake3::hash(value.as_bytes()).to_hex())
}
