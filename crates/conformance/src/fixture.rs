//! What the tests ask for, and a hand that asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use semel_core::command::{
    Accept, Accepted, Claim, ClaimKey, Claimed, Command, Complete, Effect, Held, MarkUnknown, Release, Retry,
    Taken, Verdict,
};
use semel_core::id::{Holder, Key, Lane, Namespace, Operation, Scope, Tag, TagName, TagValue, Tenant};
use semel_core::ledger::Entropy;
use semel_core::outcome::{Class, Header, Headers};
use semel_core::policy::{Keep, OnLapse, Schedule};
use semel_core::record::{StateName, Why};
use semel_core::request::{Fingerprint, Input};
use semel_core::write::Write;
use semel_core::{Ledger, Outcome, Policy, Record, RecordId, Request, Store, Token};

/// What a test asks for; every part has a plain default.
#[derive(Clone, Debug)]
pub struct Ask {
    namespace: Namespace,
    tenant: String,
    key: String,
    operation: String,
    lane: Option<String>,
    tags: Vec<(String, String)>,
    lease: Duration,
    retention: Duration,
    payload_retention: Option<Duration>,
    on_lapse: OnLapse,
    body: Bytes,
    driven: bool,
    tries: u32,
}

impl Ask {
    /// Asks for the operation `charge` under this key: *at most once*, a lease of ten seconds, a day's retention.
    pub fn key(key: &str) -> Self {
        Self {
            namespace: Namespace::Execute,
            tenant: "one".into(),
            key: key.into(),
            operation: "charge".into(),
            lane: None,
            tags: Vec::new(),
            lease: Duration::from_secs(10),
            retention: Duration::from_secs(24 * 60 * 60),
            payload_retention: None,
            on_lapse: OnLapse::AtMostOnce,
            body: Bytes::from_static(b"{\"amount\":1}"),
            driven: true,
            tries: 3,
        }
    }

    /// In this namespace.
    #[must_use]
    pub fn namespace(self, namespace: Namespace) -> Self {
        Self { namespace, ..self }
    }

    /// Of this tenant.
    #[must_use]
    pub fn tenant(self, tenant: &str) -> Self {
        Self { tenant: tenant.into(), ..self }
    }

    /// For this operation.
    #[must_use]
    pub fn operation(self, operation: &str) -> Self {
        Self { operation: operation.into(), ..self }
    }

    /// In this lane.
    #[must_use]
    pub fn lane(self, lane: &str) -> Self {
        Self { lane: Some(lane.into()), ..self }
    }

    /// With this tag.
    #[must_use]
    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// Under a lease of so many milliseconds.
    #[must_use]
    pub fn lease_ms(self, millis: u64) -> Self {
        Self { lease: Duration::from_millis(millis), ..self }
    }

    /// Kept for so many milliseconds after its end.
    #[must_use]
    pub fn retention_ms(self, millis: u64) -> Self {
        Self { retention: Duration::from_millis(millis), ..self }
    }

    /// Whose payload is kept for so many milliseconds after its end.
    #[must_use]
    pub fn payload_retention_ms(self, millis: u64) -> Self {
        Self { payload_retention: Some(Duration::from_millis(millis)), ..self }
    }

    /// Taken over when its lease lapses.
    #[must_use]
    pub fn resume(self) -> Self {
        Self { on_lapse: OnLapse::Resume, ..self }
    }

    /// With this body as its input.
    #[must_use]
    pub fn body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// Without an input, so that only its client can drive it.
    #[must_use]
    pub fn undriven(self) -> Self {
        Self { driven: false, ..self }
    }

    /// So many tries in all.
    #[must_use]
    pub fn tries(self, tries: u32) -> Self {
        Self { tries, ..self }
    }

    /// The request.
    pub fn request(&self) -> Arc<Request> {
        let scope = Scope {
            namespace: self.namespace,
            tenant: Tenant::try_new(&self.tenant).unwrap(),
            subject: None,
        };
        let schedule = Schedule::try_new(self.tries, Duration::from_secs(1), Duration::from_secs(9), None);
        let policy = Policy::try_new(
            self.lease,
            self.retention,
            self.on_lapse,
            Keep::Deterministic,
            schedule.unwrap(),
        );
        let policy = policy.unwrap().try_with_payload_retention(self.payload_retention);
        let mut digest = [0; 32];
        for (at, byte) in self.operation.bytes().enumerate() {
            digest[at % 32] ^= byte;
        }
        let mut request = Request::new(
            scope,
            Key::try_new(&self.key).unwrap(),
            Operation::try_new(&self.operation).unwrap(),
            Fingerprint { version: 1, digest },
            policy.unwrap(),
        );
        if let Some(lane) = &self.lane {
            request = request.in_lane(Lane::try_new(lane).unwrap());
        }
        if self.driven {
            let input = Input::try_new("POST", "/charges?dry=0", headers("input"), self.body.clone());
            request = request.with_input(input.unwrap());
        }
        let tag = |(name, value): &(String, String)| Tag {
            name: TagName::try_new(name).unwrap(),
            value: TagValue::try_new(value).unwrap(),
        };
        Arc::new(request.try_with_tags(self.tags.iter().map(tag).collect()).unwrap())
    }

    /// The record's id.
    pub fn id(&self) -> RecordId {
        self.request().id()
    }
}

fn headers(what: &str) -> Headers {
    let header =
        |name: &str, value: &'static [u8]| Header { name: name.into(), value: Bytes::from_static(value) };
    // Twice the same name, and a value that is no text.
    let headers = vec![header("x-part", b"1"), header("x-part", b"2"), header(what, b"\xff\x00raw")];
    Headers::try_new(headers).unwrap()
}

/// An outcome with this body.
pub fn outcome(body: impl Into<Bytes>) -> Outcome {
    Outcome::try_new(Class::Success, 201, headers("outcome"), body.into()).unwrap()
}

/// Tokens that differ, one after the other.
#[derive(Debug, Default)]
pub struct Counting(AtomicU64);

impl Counting {
    /// Tokens from this number on, so that the tokens of two sources differ.
    pub const fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }
}

impl Entropy for Counting {
    fn token(&self) -> Token {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Token::from_bytes(u128::from(number).to_be_bytes())
    }
}

/// The write that a command decides on what is there.
///
/// # Panics
/// The command leaves the record as it is.
#[track_caller]
pub fn write_of<C: Command>(command: &C, store: &dyn Store, seen: Option<&Arc<Record>>) -> Write {
    match command.decide(seen, store.time()) {
        Verdict::Write(write) => *write,
        Verdict::Stay(_) => panic!("the command decides nothing"),
    }
}

/// A claim on what is asked for, by the token of this number.
pub fn claim_key(ask: &Ask, token: u64) -> ClaimKey {
    ClaimKey { request: ask.request(), token: token_of(token), attempt_id: None }
}

/// The proof of a claim by [`claim_key`].
pub fn claim_holder(ask: &Ask, token: u64) -> Holder {
    Holder { id: ask.id(), token: token_of(token) }
}

/// The token of this number.
pub fn token_of(number: u64) -> Token {
    // Apart from those that are counted.
    Token::from_bytes((u128::from(number) | 1 << 100).to_be_bytes())
}

/// A store with a ledger over it, for tests that bring records into being.
#[derive(Clone, Debug)]
pub struct Hand {
    /// Over the store.
    pub ledger: Ledger,
}

impl Hand {
    /// A hand on this store.
    pub fn on(store: Arc<dyn Store>) -> Self {
        Self { ledger: Ledger::new(store, Arc::new(Counting::default())) }
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        &**self.ledger.store()
    }

    /// What is stored, expired or not.
    pub async fn stored(&self, id: RecordId) -> Option<Arc<Record>> {
        self.store().load(id).await.unwrap().value
    }

    /// A claim that is granted.
    pub async fn claim(&self, ask: &Ask) -> Claim {
        match self.ledger.claim(ask.request(), None).await.unwrap() {
            Claimed::Granted(claim) => claim,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// Taken in, pending.
    pub async fn accept(&self, ask: &Ask) -> Arc<Record> {
        match self.ledger.accept(&Accept::try_new(ask.request()).unwrap()).await.unwrap() {
            Accepted::Accepted(record) => record,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// A command that is done.
    pub async fn done<C: Command<Answer = Held>>(&self, command: &C) -> Arc<Record> {
        match self.ledger.apply(command).await.unwrap() {
            Held::Done(record) => record,
            other => panic!("not done: {other:?}"),
        }
    }

    /// Claimed and completed.
    pub async fn complete(&self, ask: &Ask) -> Arc<Record> {
        let holder = self.claim(ask).await.holder();
        self.done(&Complete { holder, outcome: outcome("done") }).await
    }

    /// A record in this state.
    pub async fn in_state(&self, ask: &Ask, state: StateName) -> Arc<Record> {
        match state {
            StateName::Pending => self.accept(ask).await,
            StateName::Running => Arc::clone(self.claim(ask).await.record()),
            StateName::Completed => self.complete(ask).await,
            StateName::Released => {
                let holder = self.claim(ask).await.holder();
                self.done(&Release { holder, error: "refused".into() }).await
            }
            StateName::Unknown => {
                let holder = self.claim(ask).await.holder();
                self.done(&MarkUnknown { holder, why: Why::AnswerLost, detail: "reset".into() }).await
            }
            StateName::Dead => {
                let pending = self.accept(ask).await;
                let Taken::Granted(claim) = self.ledger.take(&pending).await.unwrap() else {
                    panic!("not taken: {pending:?}")
                };
                let error = "no such account".into();
                let (pause, holder) = (Duration::ZERO, claim.holder());
                self.done(&Retry { holder, error, pause, effect: Effect::None, permanent: true }).await
            }
        }
    }
}
