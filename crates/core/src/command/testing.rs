//! A dialogue with one record, for the tests of the commands: no store, a clock that goes when it is told to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Accept, Accepted, ClaimKey, Claimed, Command, Complete, Extend, Held, Judged, Release};
use super::{Claim, Resolution, Resolve, Take, Verdict};
use crate::audit::Entry;
use crate::id::{Fence, Holder, Key, Namespace, Operation, Scope, Tenant, Token, Version};
use crate::invariant::judge_step;
use crate::outcome::{Class, Headers, Outcome};
use crate::policy::{Keep, OnLapse, Policy, Schedule};
use crate::record::{Record, StateName};
use crate::request::{Fingerprint, Input, Request};
use crate::time::Timestamp;

pub(crate) const LEASE_MS: u64 = 300;
const RETENTION_MS: u64 = 5_000;
pub(crate) const PAYLOAD_MS: u64 = 400;

pub(crate) fn token(n: u8) -> Token {
    Token::from_bytes([n; 16])
}

pub(crate) fn outcome(body: &'static str) -> Outcome {
    Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::from_static(body.as_bytes())).unwrap()
}

pub(crate) fn request(operation: &str, on_lapse: OnLapse) -> Arc<Request> {
    Arc::new(request_in(Namespace::Execute, operation, on_lapse, None))
}

fn request_in(
    namespace: Namespace,
    operation: &str,
    on_lapse: OnLapse,
    max_age: Option<Duration>,
) -> Request {
    let schedule = Schedule::try_new(3, Duration::from_secs(1), Duration::from_secs(9), max_age).unwrap();
    let policy = Policy::try_new(
        Duration::from_millis(LEASE_MS),
        Duration::from_millis(RETENTION_MS),
        on_lapse,
        Keep::Deterministic,
        schedule,
    );
    let scope = Scope { namespace, tenant: Tenant::try_new("default").unwrap(), subject: None };
    let digest = *blake3::hash(operation.as_bytes()).as_bytes();
    Request::new(
        scope,
        Key::try_new("key-1").unwrap(),
        Operation::try_new(operation).unwrap(),
        Fingerprint { version: 1, digest },
        policy.unwrap(),
    )
}

pub(crate) struct Script {
    request: Arc<Request>,
    now: Timestamp,
    stored: Option<Arc<Record>>,
    audit: Vec<Entry>,
    lapses: usize,
}

impl Script {
    pub(crate) fn new(on_lapse: OnLapse) -> Self {
        Self::in_namespace(Namespace::Execute, on_lapse)
    }

    /// Whose tries end at this age.
    pub(crate) fn until(max_age: Duration, on_lapse: OnLapse) -> Self {
        Self::of(request_in(Namespace::Execute, "charge", on_lapse, Some(max_age)))
    }

    pub(crate) fn in_namespace(namespace: Namespace, on_lapse: OnLapse) -> Self {
        Self::of(request_in(namespace, "charge", on_lapse, None))
    }

    /// Whose payload is dropped before its record.
    pub(crate) fn dropping_payloads() -> Self {
        let request = request_in(Namespace::Execute, "charge", OnLapse::Resume, None);
        let policy = request.policy().try_with_payload_retention(Some(Duration::from_millis(PAYLOAD_MS)));
        let (scope, key) = (request.scope().clone(), request.key().clone());
        let operation = request.operation().clone();
        Self::of(Request::new(scope, key, operation, *request.fingerprint(), policy.unwrap()))
    }

    fn of(request: Request) -> Self {
        let request = Arc::new(request);
        let now = Timestamp::from_millis(1_000_000);
        Self { request, now, stored: None, audit: Vec::new(), lapses: 0 }
    }

    /// Decides a command and writes what it says, as a store would; every step is held against the invariants.
    pub(crate) fn apply<C: Command>(&mut self, command: &C) -> C::Answer {
        match command.decide(self.stored.as_ref(), self.now) {
            Verdict::Stay(answer) => answer,
            Verdict::Write(write) => {
                self.lapses += usize::from(write.sees_lapse());
                let (record, entry) = write.seal(self.now, Fence(0));
                let expired = self.stored.as_ref().is_some_and(|stored| stored.is_expired(self.now));
                judge_step(self.stored.as_deref(), expired, &record).unwrap();
                Record::from_parts(record.parts().clone()).unwrap();
                self.audit.extend(entry);
                let record = Arc::new(record);
                self.stored = Some(Arc::clone(&record));
                command.answer(record)
            }
        }
    }

    pub(crate) fn record(&self) -> &Record {
        self.stored.as_deref().unwrap()
    }

    /// How many writes have said that they see a lapse.
    pub(crate) fn lapses(&self) -> usize {
        self.lapses
    }

    pub(crate) fn audit(&self) -> &[Entry] {
        &self.audit
    }

    pub(crate) fn after_ms(&mut self, millis: u64) -> &mut Self {
        self.now = self.now.plus(Duration::from_millis(millis));
        self
    }

    pub(crate) fn after_lease(&mut self) -> &mut Self {
        self.after_ms(LEASE_MS)
    }

    pub(crate) fn after_part_of_lease(&mut self) -> &mut Self {
        self.after_ms(LEASE_MS / 2)
    }

    pub(crate) fn after_retention(&mut self) -> &mut Self {
        self.after_ms(RETENTION_MS)
    }

    pub(crate) fn claim(&mut self, n: u8) -> Claimed {
        let request = Arc::clone(&self.request);
        self.apply(&ClaimKey { request, token: token(n), attempt_id: None })
    }

    #[track_caller]
    pub(crate) fn granted(&mut self, n: u8) -> Claim {
        match self.claim(n) {
            Claimed::Granted(claim) => claim,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// What the script asks for, under a lease of so many milliseconds.
    pub(crate) fn asking_for(&self, lease_ms: u64) -> Arc<Request> {
        let usual = self.request.policy();
        let lease = Duration::from_millis(lease_ms);
        let policy =
            Policy::try_new(lease, usual.retention(), usual.on_lapse(), usual.keep(), usual.retry()).unwrap();
        let (scope, key) = (self.request.scope().clone(), self.request.key().clone());
        let operation = self.request.operation().clone();
        Arc::new(Request::new(scope, key, operation, *self.request.fingerprint(), policy))
    }

    #[track_caller]
    pub(crate) fn granted_for(&mut self, n: u8, lease_ms: u64) -> Claim {
        let request = self.asking_for(lease_ms);
        match self.apply(&ClaimKey { request, token: token(n), attempt_id: None }) {
            Claimed::Granted(claim) => claim,
            other => panic!("not granted: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn refuses_busy(&mut self, n: u8) {
        let answer = self.claim(n);
        assert!(matches!(answer, Claimed::Busy { .. }), "{answer:?}");
    }

    pub(crate) fn accept(&mut self) -> Accepted {
        let input = Input::try_new("POST", "/", Headers::default(), Bytes::from_static(b"{}")).unwrap();
        let request = Arc::new(Request::clone(&self.request).with_input(input));
        self.apply(&Accept::try_new(request).unwrap())
    }

    /// Takes it in, to be due so much later.
    pub(crate) fn accept_for_later(&mut self, ms: u64) -> Accepted {
        let input = Input::try_new("POST", "/", Headers::default(), Bytes::from_static(b"{}")).unwrap();
        let request = Arc::new(Request::clone(&self.request).with_input(input));
        self.apply(&Accept::try_new(request).unwrap().due_after(Duration::from_millis(ms)))
    }

    /// Takes it in under a token of its own.
    pub(crate) fn accept_by(&mut self, n: u8) -> Accepted {
        let input = Input::try_new("POST", "/", Headers::default(), Bytes::from_static(b"{}")).unwrap();
        let request = Arc::new(Request::clone(&self.request).with_input(input));
        self.apply(&Accept::try_new(request).unwrap().asked_by(token(n)))
    }

    /// Takes something else in, under the same key.
    pub(crate) fn accept_other(&mut self) -> Accepted {
        let input = Input::try_new("POST", "/", Headers::default(), Bytes::from_static(b"[]")).unwrap();
        let request = Request::clone(&request("other", OnLapse::Resume)).with_input(input);
        self.apply(&Accept::try_new(Arc::new(request)).unwrap())
    }

    pub(crate) fn file(&mut self, why: &str) -> Accepted {
        let input = Input::try_new("POST", "/", Headers::default(), Bytes::from_static(b"{}")).unwrap();
        let request = Arc::new(Request::clone(&self.request).with_input(input));
        self.apply(&Accept::try_dead(request, why.into()).unwrap())
    }

    fn holder(&self, n: u8) -> Holder {
        Holder { id: self.record().id(), token: token(n) }
    }

    pub(crate) fn try_extend(&mut self, n: u8) -> Held {
        self.apply(&Extend { holder: self.holder(n) })
    }

    #[track_caller]
    pub(crate) fn extend(&mut self, n: u8) {
        assert!(matches!(self.try_extend(n), Held::Done(_)));
    }

    #[track_caller]
    pub(crate) fn complete(&mut self, n: u8) {
        let answer = self.apply(&Complete { holder: self.holder(n), outcome: outcome("done") });
        assert!(matches!(answer, Held::Done(_)), "{answer:?}");
    }

    #[track_caller]
    pub(crate) fn release(&mut self, n: u8) {
        let answer = self.apply(&Release { holder: self.holder(n), error: "refused".into() });
        assert!(matches!(answer, Held::Done(_)), "{answer:?}");
    }

    #[track_caller]
    pub(crate) fn resolve(&mut self, resolution: Resolution) {
        let version = self.record().version();
        let answer = self.resolve_version(version, resolution);
        assert!(matches!(answer, Judged::Done(_)), "{answer:?}");
    }

    pub(crate) fn resolve_version(&mut self, version: Version, resolution: Resolution) -> Judged {
        let id = self.record().id();
        let (actor, reason) = ("op".into(), "asked the bank".into());
        self.apply(&Resolve { id, version, resolution, actor, reason, correlation_id: None })
    }

    /// Accepted, taken until its tries are spent, dead.
    pub(crate) fn dies(&mut self) {
        self.accept();
        while self.record().state().name() != StateName::Dead {
            let id = self.record().id();
            self.apply(&Take { id, token: token(1) });
            self.after_lease();
        }
    }
}
