//! Report mode: nothing is changed, and what would have happened is counted.
//!
//! The key is claimed and settled as if it were enforced, in a scope of its own and without any reply's body, so that
//! enforcing it later finds nothing that was never promised. The request goes its way meanwhile, whatever the ledger
//! says, and whether the store answers or not.
//!
//! So a reply is with its client before the report of it is stored, and a duplicate can come in between. That it would
//! have been a replay is known by when the first was answered, which the report says of it.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use semel_core::command::{Claim, Claimed as Found};
use semel_core::ledger::LedgerError;
use semel_core::outcome::{Class, Header, Headers, Outcome};
use semel_core::record::State;
use semel_core::{Key, Record, Request as Asked, Timestamp};
use semel_runtime::{Ended, Keeper};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::body::{self, Body, BoxError, Read};
use crate::layer::Identity;
use crate::observe::What;
use crate::run::Call;
use crate::steer::Steer;
use crate::{grpc, limits};

/// The header of a report's record that says when the reply was given: milliseconds of the store's time.
const REPLIED: &str = "semel-replied";

/// Passes a request on, and reports what its key would have done.
pub(crate) async fn report<S, A, B>(
    call: Arc<Call>,
    key: Key,
    identity: Identity,
    mut service: S,
    parts: Parts,
    body: A,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<B>>,
    A: HttpBody<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (answered, reply) = oneshot::channel();
    let (claiming, claimed) = oneshot::channel();
    let mut claiming = Some(claiming);
    let shared = Arc::clone(&call.shared);
    let store = shared.runtime.ledger().store();
    let body = match body::read(body, call.rules.body_bytes_max).await {
        Read::Whole(bytes, trailers) => {
            let asked = call.shared.asked(&call.rules, key, identity, &parts, &bytes);
            match asked {
                Ok(asked) => {
                    let arrived = store.time();
                    let following = follow(call, Arc::new(asked), arrived, claiming.take(), reply);
                    shared.runtime.tasks().spawn(following);
                }
                Err(_) => call.tell(What::Refused, None),
            }
            Body::whole(bytes, trailers)
        }
        // It would have been refused as too large.
        Read::TooLarge(body) => {
            call.tell(What::Refused, None);
            body
        }
        // The service sees the same: a body that breaks off.
        Read::Failed(error) => Body::stream(Broken(Some(error))),
    };
    let mut response = service.call(Request::from_parts(parts, body)).await?;
    let steer = Steer::take(&mut response);
    // Nobody listens if the claim was not granted.
    let status = grpc::status_of_head(response.status(), response.headers());
    answered.send(Reply { status, steer, at: store.time() }).ok();
    // What asks for no claim waits for none.
    drop(claiming);
    // Nearly always over by now: it keeps reports in the order of their requests.
    tokio::time::timeout(limits::REPORT_WITHIN, claimed).await.ok();
    Ok(response.map(Body::stream))
}

/// What the service said, and when by the store's time.
struct Reply {
    status: StatusCode,
    steer: Option<Steer>,
    at: Timestamp,
}

/// Claims the key beside the request, and settles the claim by its reply. `claiming` is dropped when it is known what
/// the claim came to.
async fn follow(
    call: Arc<Call>,
    asked: Arc<Asked>,
    arrived: Timestamp,
    claiming: Option<oneshot::Sender<()>>,
    reply: oneshot::Receiver<Reply>,
) {
    let runtime = &call.shared.runtime;
    let sent = tokio::time::Instant::now();
    let first = runtime.ledger().claim(Arc::clone(&asked), None).await;
    drop(claiming);
    let Some(claim) = would(&call, asked, first, arrived).await else { return };
    call.tell(What::Claimed { after: sent.elapsed(), taken_over: claim.is_tainted() }, Some(claim.record()));
    let keeper = Keeper::new(runtime, claim.holder(), claim.lease(), sent);
    let ended = keeper.during(reply, call.rules.timeout, || {}).await;
    let stored = match ended {
        Ended::Done(Ok(reply)) if call.would_keep(reply.steer, reply.status) => {
            let Some(outcome) = shadow(&reply) else { return };
            runtime.complete(claim, outcome, || Box::new(|_| {})).await
        }
        ended => {
            let at =
                if let Ended::Done(Ok(reply)) = ended { reply.at } else { runtime.ledger().store().time() };
            runtime.release(claim, at.as_millis().to_string().as_str().into(), || Box::new(|_| {})).await
        }
    };
    if let Err(error) = stored {
        tracing::warn!(%error, "a report could not be stored");
    }
}

/// The claim, if the request would have run; else it is told what would have become of it.
async fn would(
    call: &Call,
    asked: Arc<Asked>,
    first: Result<Found, LedgerError>,
    arrived: Timestamp,
) -> Option<Claim> {
    let ledger = call.shared.runtime.ledger();
    let lease = asked.policy().lease();
    let mut found = first;
    loop {
        let (what, record) = match found {
            Ok(Found::Granted(claim)) => return Some(claim),
            Ok(Found::Mismatch(record)) => (What::Mismatch, record),
            Ok(Found::Unknown(record)) => (What::RefusedUnknown, record),
            Ok(Found::Dead(record)) => (What::RefusedDead, record),
            Ok(Found::Replay(record)) => (What::Replayed, record),
            Ok(Found::Busy { record, .. }) => {
                let ended = ledger.wait(record.id(), record.version(), limits::REPORT_WAIT).await;
                let before = |ended: &Arc<Record>| replied(ended).is_some_and(|at| at <= arrived);
                match ended.ok().flatten().filter(before) {
                    Some(ended) if ended.outcome().is_some() => (What::Replayed, ended),
                    // It was free again when this request came.
                    Some(_) => {
                        found = ledger.claim(Arc::clone(&asked), None).await;
                        continue;
                    }
                    None => (What::Busy, record),
                }
            }
            Err(error) => {
                call.shared.observer.storage_failed(&error);
                call.shared.runtime.claim_failed(&error, lease);
                return None;
            }
        };
        call.tell(what, Some(&record));
        return None;
    }
}

/// What a report keeps of a reply that would have been kept: its status, and when it was given.
fn shadow(reply: &Reply) -> Option<Outcome> {
    let class = if reply.status.as_u16() < 400 { Class::Success } else { Class::Rejection };
    let value = Bytes::from(reply.at.as_millis().to_string());
    let headers = Headers::try_new(vec![Header { name: REPLIED.into(), value }]).ok()?;
    Outcome::try_without_body(class, reply.status.as_u16(), headers).ok()
}

/// When the reply was given that a report is about.
fn replied(record: &Record) -> Option<Timestamp> {
    let text = match record.state() {
        State::Completed { outcome } => std::str::from_utf8(outcome.headers.get(REPLIED)?).ok()?,
        State::Released { last_error } => last_error.as_str(),
        State::Pending { .. } | State::Running { .. } | State::Unknown { .. } | State::Dead { .. } => {
            return None;
        }
    };
    text.parse().ok().map(Timestamp::from_millis)
}

/// A body that has broken off.
struct Broken(Option<BoxError>);

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        std::task::Poll::Ready(self.0.take().map(Err))
    }
}
