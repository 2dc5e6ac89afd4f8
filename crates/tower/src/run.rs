//! One protected request: claim its key, run the service behind it at most once, settle the claim, answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, Request, Response, header};
use http_body::Body as HttpBody;
use semel_api::{ApiError, ErrorCode, Form};
use semel_core::Request as Asked;
use semel_core::command::{Claim, Claimed as Found, Held};
use semel_core::ledger::LedgerErrorKind;
use semel_core::outcome::{Body as Kept, Class, Outcome};
use semel_core::policy::OnLapse;
use semel_core::record::{Record, State, Why};
use semel_runtime::{Ended, Keeper, Late};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::body::{self, Body, BoxError, Read};
use crate::claimed::Claimed;
use crate::config::{OnServerError, Rules};
use crate::layer::Shared;
use crate::observe::{Context, What};
use crate::prefer::{self, Prefer};
use crate::refuse::{self, Voice};
use crate::steer::{AnswerLost, Steer, Streamed};
use crate::{grpc, limits, reply};

/// What every step of a protected request needs.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) voice: Voice,
    pub(crate) prefer: Prefer,
    pub(crate) context: Option<Context>,
}

/// A request that has been read, and what answers it.
pub(crate) struct Work<S> {
    pub(crate) service: S,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl<S: Service<Request<Body>>> Work<S> {
    /// Calls the service, which is not needed any more once its future is there.
    fn call(self) -> S::Future {
        let Self { mut service, parts, body, trailers } = self;
        service.call(Request::from_parts(parts, Body::whole(body, trailers)))
    }
}

/// What a request came to, apart from its client.
#[expect(
    clippy::large_enum_variant,
    reason = "it is nearly always ready, and a box would cost more than a move"
)]
pub(crate) enum Answer {
    /// This.
    Ready(Response<Body>),
    /// Another request is at it. Whoever waits for that holds nothing of the service's.
    Busy {
        /// Its record, as it was seen.
        record: Arc<Record>,
        /// When asking again may give another answer.
        retry_after: Duration,
    },
}

/// What an attempt came to.
enum Attempt<E> {
    /// A reply, received whole.
    Whole(Head, Bytes, Option<HeaderMap>),
    /// A reply that is passed on as it comes.
    Open(Head, Body),
    /// The service failed without a reply.
    Failed(E),
    /// The reply broke off.
    Cut(BoxError),
    /// It panicked.
    Panicked,
    /// Its time was up.
    TimedOut,
    /// The process goes down.
    GivenUp,
}

/// A reply's head, and what it means for the key.
struct Head {
    parts: http::response::Parts,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Release(&'static str),
    Unknown,
    /// Unknown, since there was no reply, or it was not whole.
    Lost(&'static str),
}

impl Call {
    pub(crate) fn tell(&self, what: What, record: Option<&Arc<Record>>) {
        self.shared.tell(what, record, &self.rules, self.context.as_ref());
    }

    pub(crate) fn refuse(&self, error: &ApiError) -> Response<Body> {
        self.voice.say(error, &self.shared.errors_base)
    }

    /// Claims the key and answers, whatever that takes.
    pub(crate) async fn answer<S, B>(&self, asked: Arc<Asked>, work: Box<Work<S>>) -> Result<Answer, S::Error>
    where
        S: Service<Request<Body>, Response = Response<B>>,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (sent, lease) = (Instant::now(), asked.policy().lease());
        let claimed = self.shared.runtime.ledger().claim(asked, None).await;
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                self.shared.observer.storage_failed(&error);
                self.shared.runtime.claim_failed(&error, lease);
                return Ok(Answer::Ready(self.refuse(&match error.kind() {
                    // What is stored cannot be read, and waiting does not mend it.
                    LedgerErrorKind::Corrupt => ErrorCode::Internal.into(),
                    LedgerErrorKind::TooLarge => ErrorCode::PayloadTooLarge.into(),
                    LedgerErrorKind::Unavailable | LedgerErrorKind::InDoubt | LedgerErrorKind::Contended => {
                        refuse::storage()
                    }
                })));
            }
        };
        let after = sent.elapsed();
        let (what, record) = match &claimed {
            Found::Granted(claim) => {
                (What::Claimed { after, taken_over: claim.is_tainted() }, claim.record())
            }
            Found::Replay(record)
            | Found::Busy { record, .. }
            | Found::Mismatch(record)
            | Found::Unknown(record)
            | Found::Dead(record) => (What::Found { after }, record),
        };
        self.tell(what, Some(record));
        Ok(Answer::Ready(match claimed {
            Found::Granted(claim) => self.run(claim, sent, work).await?,
            Found::Busy { record, retry_after } => return Ok(Answer::Busy { record, retry_after }),
            Found::Mismatch(record) => {
                self.tell(What::Mismatch, Some(&record));
                let error = ApiError::new(ErrorCode::IdempotencyParameterMismatch);
                self.refuse(&error.with_status(self.rules.mismatch_status))
            }
            Found::Replay(record) | Found::Unknown(record) | Found::Dead(record) => self.stands(&record),
        }))
    }

    /// Another request is at it: wait for its end if the client prefers that, else say when to come back.
    ///
    /// # Cancellation
    /// Ends the wait: nobody waits for a client that has gone away.
    pub(crate) async fn busy(&self, record: Arc<Record>, retry_after: Duration) -> Response<Body> {
        let Some(wait) = self.prefer.wait.filter(|wait| !wait.is_zero()) else {
            return self.in_progress(&record, retry_after);
        };
        let runtime = &self.shared.runtime;
        let settled = tokio::select! {
            settled = runtime.ledger().wait(record.id(), record.version(), wait) => settled,
            () = runtime.giving_up().cancelled() => Ok(None),
        };
        let mut response = match settled {
            Ok(Some(settled)) => self.stands(&settled),
            // It is gone, released and forgotten: asking again tells.
            Ok(None) => self.in_progress(&record, retry_after),
            Err(error) => {
                self.shared.observer.storage_failed(&error);
                self.refuse(&refuse::storage())
            }
        };
        if let Some(applied) = prefer::applied(false, Some(wait)) {
            response.headers_mut().insert(prefer::APPLIED, applied);
        }
        response
    }

    fn in_progress(&self, record: &Arc<Record>, retry_after: Duration) -> Response<Body> {
        self.tell(What::Busy, Some(record));
        let after = if self.voice.form() == Form::Flat { limits::RETRY_AFTER_IN_FLIGHT } else { retry_after };
        self.refuse(&ApiError::new(ErrorCode::IdempotencyConcurrentRequest).with_retry_after(after))
    }

    /// Where a record stands, for a duplicate.
    fn stands(&self, record: &Arc<Record>) -> Response<Body> {
        match record.state() {
            State::Completed { outcome } => self.completed(record, outcome),
            State::Pending { .. } | State::Running { .. } | State::Released { .. } => {
                self.in_progress(record, limits::RETRY_AFTER_LOST)
            }
            State::Unknown { .. } => {
                self.tell(What::RefusedUnknown, Some(record));
                self.refuse(&ErrorCode::IdempotencyOutcomeUnknown.into())
            }
            State::Dead { .. } => {
                self.tell(What::RefusedDead, Some(record));
                self.refuse(&ErrorCode::OperationDead.into())
            }
        }
    }

    fn completed(&self, record: &Arc<Record>, outcome: &Outcome) -> Response<Body> {
        let code = match (&outcome.body, outcome.class) {
            (_, Class::Discarded) => {
                self.tell(What::Discarded, Some(record));
                ErrorCode::OperationDiscarded
            }
            (Kept::Gone, Class::Success | Class::Rejection) => {
                self.tell(What::Gone, Some(record));
                ErrorCode::IdempotencyResultGone
            }
            (Kept::Kept(body), Class::Success | Class::Rejection) => {
                self.tell(What::Replayed, Some(record));
                return reply::replay(record, outcome, body, &self.rules);
            }
        };
        let mut response = self.refuse(&code.into());
        reply::mark(response.headers_mut(), record, true);
        response
    }

    /// Runs the service under the claim, and settles it by what the service says.
    async fn run<S, B>(
        &self,
        claim: Claim,
        sent: Instant,
        work: Box<Work<S>>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<B>>,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let claimed = Claimed::new(self.shared.runtime.ledger(), &claim, CancellationToken::new());
        let attempt = self.attempt(&claim, sent, claimed.clone(), work).await;
        let id = claim.record().id();
        // What a phase has found goes before what its handler made of it.
        if claimed.steps().is_unknown() {
            return self.found_unknown(claim, attempt).await;
        }
        match attempt {
            Attempt::Whole(Head { parts, verdict }, bytes, trailers) => {
                let kept = (verdict == Verdict::Keep).then_some((&bytes, trailers.as_ref()));
                let settled = self.settle(claim, verdict, &parts, kept).await;
                Ok(self.reply(parts, Body::whole(bytes, trailers), settled))
            }
            Attempt::Open(Head { parts, verdict }, body) => {
                let settled = self.settle(claim, verdict, &parts, None).await;
                Ok(self.reply(parts, body, settled))
            }
            Attempt::Failed(error) => {
                Box::pin(self.lost(claim, Why::WorkAbandoned, "the service failed without a reply")).await;
                Err(error)
            }
            Attempt::Cut(error) => {
                tracing::warn!(record_id = %id, error, "a reply broke off");
                let resumes = Box::pin(self.lost(claim, Why::AnswerLost, "the reply broke off")).await;
                Ok(self.refuse(&lost(502, resumes, "The reply to this request broke off")))
            }
            Attempt::Panicked => {
                tracing::error!(record_id = %id, "a handler has panicked");
                let resumes =
                    Box::pin(self.lost(claim, Why::WorkAbandoned, "the work ended by a panic")).await;
                Ok(self.refuse(&if resumes {
                    ErrorCode::Internal.into()
                } else {
                    lost(502, false, "The request failed, and may have had an effect")
                }))
            }
            Attempt::TimedOut => {
                let detail = "there was no reply within the time that it had";
                let resumes = Box::pin(self.lost(claim, Why::AnswerLost, detail)).await;
                Ok(self.refuse(&lost(504, resumes, "There was no reply in time")))
            }
            Attempt::GivenUp => {
                // Under *resume* the claim lapses, and whoever is there then takes over.
                let resumes = claim.record().request().policy().on_lapse() == OnLapse::Resume;
                if !resumes {
                    let detail = "the process went down before the work had ended";
                    Box::pin(self.lost(claim, Why::WorkAbandoned, detail)).await;
                }
                Ok(self.refuse(&lost(502, resumes, "The service goes down")))
            }
        }
    }

    /// A phase has come upon what an earlier attempt may have done: nobody knows, whatever this one replies.
    async fn found_unknown<E>(&self, claim: Claim, attempt: Attempt<E>) -> Result<Response<Body>, E> {
        let detail = "a phase was begun by an earlier attempt, and may have had its effect";
        let late = || self.late();
        match self.shared.runtime.mark_unknown(claim, Why::WorkAbandoned, detail.into(), late).await {
            Ok(Held::Done(record)) => self.tell(became(&record), Some(&record)),
            Ok(Held::Fenced(record)) => self.tell(What::Fenced, record.as_ref()),
            Ok(Held::Illegal(record, why)) => {
                tracing::error!(record_id = %record.id(), why, "an attempt could not be settled");
            }
            Err(error) => tracing::error!(%error, "the end of an attempt is not stored"),
        }
        match attempt {
            // A success would be one that nobody could replay.
            Attempt::Whole(Head { parts, .. }, bytes, trailers) if !parts.status.is_success() => {
                Ok(Response::from_parts(parts, Body::whole(bytes, trailers)))
            }
            Attempt::Failed(error) => Err(error),
            Attempt::Whole(..)
            | Attempt::Open(..)
            | Attempt::Cut(_)
            | Attempt::Panicked
            | Attempt::TimedOut
            | Attempt::GivenUp => Ok(self.refuse(&ErrorCode::IdempotencyOutcomeUnknown.into())),
        }
    }

    /// The work of one attempt, under heartbeats.
    async fn attempt<S, B>(
        &self,
        claim: &Claim,
        sent: Instant,
        claimed: Claimed,
        mut work: Box<Work<S>>,
    ) -> Attempt<S::Error>
    where
        S: Service<Request<Body>, Response = Response<B>>,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let runtime = &self.shared.runtime;
        let lost = claimed.lost().clone();
        work.parts.extensions.insert(claimed);
        let attempt = AssertUnwindSafe(async {
            let called = (*work).call();
            match called.await {
                Ok(response) => self.receive(response).await,
                Err(error) => Attempt::Failed(error),
            }
        });
        let keeper = Keeper::new(runtime, claim.holder(), claim.lease(), sent);
        match keeper.during(attempt.catch_unwind(), self.rules.timeout, || lost.cancel()).await {
            Ended::Done(Ok(attempt)) => attempt,
            Ended::Done(Err(_)) => Attempt::Panicked,
            Ended::TimedOut => Attempt::TimedOut,
            Ended::GivenUp => Attempt::GivenUp,
        }
    }

    /// Receives a reply: whole, unless it streams, is larger than is kept, or its meaning is known by its head.
    async fn receive<B, E>(&self, mut response: Response<B>) -> Attempt<E>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let steer = Steer::take(&mut response);
        let marked = response.extensions_mut().remove::<Streamed>().is_some();
        let lost = response.extensions_mut().remove::<AnswerLost>();
        let (mut parts, body) = response.into_parts();
        // What this layer says of a key, nobody behind it says in its place.
        parts.headers.remove(reply::REPLAYED);
        parts.headers.remove(reply::EXPIRES);
        let streams = marked || reply::is_stream(parts.status, &parts.headers);
        let verdict = match (self.judge(steer, parts.status), lost) {
            (Verdict::Unknown, Some(AnswerLost(how))) => Verdict::Lost(how),
            (Verdict::Release(_), Some(AnswerLost(how))) => Verdict::Release(how),
            (verdict, _) => verdict,
        };
        let is_known_by_its_head = steer.is_some() && verdict != Verdict::Keep;
        if !marked && !is_known_by_its_head && grpc::is_grpc(parts.headers.get(header::CONTENT_TYPE)) {
            return self.receive_grpc(steer, parts, body).await;
        }
        let head = Head { parts, verdict };
        if streams || is_known_by_its_head {
            return Attempt::Open(head, Body::stream(body));
        }
        match body::read(body, self.rules.response_bytes_max).await {
            Read::Whole(bytes, trailers) => Attempt::Whole(head, bytes, trailers),
            Read::TooLarge(body) => Attempt::Open(head, body),
            Read::Failed(error) => Attempt::Cut(error),
        }
    }

    /// Receives a reply of gRPC: whole, if it is all there when the handler has returned, as that of a unary call is.
    async fn receive_grpc<B, E>(
        &self,
        steer: Option<Steer>,
        parts: http::response::Parts,
        body: B,
    ) -> Attempt<E>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match body::read_ready(body, self.rules.response_bytes_max).await {
            Read::Whole(bytes, trailers) => {
                let status = grpc::status_of(parts.status, &parts.headers, trailers.as_ref());
                let verdict = self.judge(steer, status);
                Attempt::Whole(Head { parts, verdict }, bytes, trailers)
            }
            Read::TooLarge(body) => {
                let verdict = self.judge(steer, parts.status);
                Attempt::Open(Head { parts, verdict }, body)
            }
            Read::Failed(error) => Attempt::Cut(error),
        }
    }

    /// Whether such a reply would be kept.
    pub(crate) fn would_keep(&self, steer: Option<Steer>, status: http::StatusCode) -> bool {
        self.judge(steer, status) == Verdict::Keep
    }

    fn judge(&self, steer: Option<Steer>, status: http::StatusCode) -> Verdict {
        match steer {
            Some(Steer::Keep) => Verdict::Keep,
            Some(Steer::DoNotKeep) => Verdict::Release("the handler says that its reply is not kept"),
            Some(Steer::Release) => Verdict::Release("the handler says that nothing was done"),
            Some(Steer::Unknown) => Verdict::Unknown,
            None => self.judge_status(status),
        }
    }

    /// What the handler says nothing of: a status that is named goes before what is said of all of its kind.
    fn judge_status(&self, status: http::StatusCode) -> Verdict {
        let is_unknown = status.is_server_error() && self.rules.on_5xx == OnServerError::Unknown;
        match self.rules.named(status.as_u16()) {
            None if is_unknown => Verdict::Unknown,
            None if self.rules.usually_keeps(status.as_u16()) => Verdict::Keep,
            Some(true) => Verdict::Keep,
            Some(false) | None => Verdict::Release("a reply of this status is not kept"),
        }
    }

    /// Tells the ledger what the reply means, durably (L4).
    async fn settle(
        &self,
        claim: Claim,
        verdict: Verdict,
        head: &http::response::Parts,
        whole: Option<(&Bytes, Option<&HeaderMap>)>,
    ) -> Settled {
        let (runtime, status) = (&self.shared.runtime, head.status);
        let ended = match verdict {
            Verdict::Keep => {
                let outcome = reply::outcome(status, &head.headers, whole, &self.rules);
                runtime.complete(claim, outcome, || self.late()).await
            }
            Verdict::Release(why) => {
                let detail = format!("{why} ({status})");
                runtime.release(claim, detail.as_str().into(), || self.late()).await
            }
            Verdict::Unknown => {
                let detail = format!("the reply ({status}) says that it may have been done");
                let why = Why::AnswerInconclusive;
                runtime.mark_unknown(claim, why, detail.as_str().into(), || self.late()).await
            }
            Verdict::Lost(how) => {
                runtime.mark_unknown(claim, Why::AnswerLost, how.into(), || self.late()).await
            }
        };
        let kept = verdict == Verdict::Keep;
        match ended {
            Ok(Held::Done(record)) => {
                self.tell(became(&record), Some(&record));
                if kept { Settled::Kept(record) } else { Settled::Passing }
            }
            Ok(Held::Fenced(record)) => {
                self.tell(What::Fenced, record.as_ref());
                if kept { Settled::Overtaken(record) } else { Settled::Passing }
            }
            Ok(Held::Illegal(record, why)) => {
                tracing::error!(record_id = %record.id(), why, "an attempt could not be settled");
                Settled::Overtaken(Some(record))
            }
            // Nobody is told of an outcome that is not durable. Any other reply is none: it goes out, and the claim is
            // given back later, or lapses.
            Err(error) => {
                tracing::error!(%error, "the end of an attempt is not stored");
                if kept { Settled::Unstored } else { Settled::Passing }
            }
        }
    }

    /// The service's own reply, if it stands.
    fn reply(&self, parts: http::response::Parts, body: Body, settled: Settled) -> Response<Body> {
        match settled {
            Settled::Passing => Response::from_parts(parts, body),
            Settled::Kept(record) => {
                let mut response = Response::from_parts(parts, body);
                reply::mark(response.headers_mut(), &record, false);
                response
            }
            // Somebody else has the claim, or has settled it: what is stored counts.
            Settled::Overtaken(Some(record)) => self.stands(&record),
            Settled::Overtaken(None) => self.refuse(&ErrorCode::IdempotencyFenced.into()),
            Settled::Unstored => self.refuse(&refuse::unstored()),
        }
    }

    /// Ends an attempt of which nobody knows what it did, as its policy says; whether the next request runs.
    async fn lost(&self, claim: Claim, why: Why, detail: &'static str) -> bool {
        let runtime = &self.shared.runtime;
        let resumes = claim.record().request().policy().on_lapse() == OnLapse::Resume;
        let held = if resumes {
            // Another attempt may follow at once: with the checkpoints so far, the same downstream key, a higher fence.
            runtime.release(claim, detail.into(), || self.late()).await
        } else {
            runtime.mark_unknown(claim, why, detail.into(), || self.late()).await
        };
        match held {
            Ok(Held::Done(record)) => self.tell(became(&record), Some(&record)),
            Ok(Held::Fenced(record)) => self.tell(What::Fenced, record.as_ref()),
            Ok(Held::Illegal(record, why)) => {
                tracing::error!(record_id = %record.id(), why, "an attempt could not be settled");
            }
            Err(error) => tracing::error!(%error, "the end of an attempt is not stored"),
        }
        resumes
    }

    /// Tells of an end that was stored when nobody waited for it any more.
    fn late(&self) -> Late {
        let (shared, rules, context) =
            (Arc::clone(&self.shared), Arc::clone(&self.rules), self.context.clone());
        Box::new(move |record| shared.tell(became(record), Some(record), &rules, context.as_ref()))
    }
}

/// What became of an attempt's end.
enum Settled {
    /// Its reply is the outcome, durably.
    Kept(Arc<Record>),
    /// Its reply is none, and goes out all the same.
    Passing,
    /// Somebody else was quicker.
    Overtaken(Option<Arc<Record>>),
    /// The store does not answer.
    Unstored,
}

fn lost(status: u16, resumes: bool, message: &'static str) -> ApiError {
    if resumes {
        // It is safe to come back: the next request with this key runs.
        let error = refuse::lost(503, format!("{message}; retry with the same key"));
        return error.with_retry_after(limits::RETRY_AFTER_LOST);
    }
    refuse::lost(status, format!("{message}; it may have been executed"))
}

/// What happened to a record that an attempt has just left in this state.
fn became(record: &Record) -> What {
    match record.state() {
        State::Completed { .. } => What::Completed,
        State::Unknown { .. } | State::Dead { .. } => What::Unknown,
        State::Released { .. } | State::Pending { .. } | State::Running { .. } => What::Released,
    }
}
