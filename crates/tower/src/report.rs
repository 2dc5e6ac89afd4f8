//! Report mode: nothing is changed, and what would have happened is counted.
//!
//! The key is claimed and settled as if it were enforced, in a scope of its own and without any reply's body, so that
//! enforcing it later finds nothing that was never promised. The request goes its way meanwhile, whatever the ledger
//! says, and whether the store answers or not.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use semel_core::command::Claimed as Found;
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::record::State;
use semel_core::{Key, Request as Asked};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::body::{self, Body, BoxError, Read};
use crate::layer::Identity;
use crate::observe::What;
use crate::run::Call;
use crate::steer::Steer;

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
    let (answered, status) = oneshot::channel();
    let body = match body::read(body, call.rules.body_bytes_max).await {
        Read::Whole(bytes, trailers) => {
            let asked = call.shared.asked(&call.rules, key, identity, &parts, &bytes);
            match asked {
                Ok(asked) => {
                    let shared = Arc::clone(&call.shared);
                    shared.runtime.tasks().spawn(follow(call, asked, status));
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
    answered.send((response.status(), steer)).ok();
    Ok(response.map(Body::stream))
}

/// Claims the key beside the request, and settles the claim by its reply.
async fn follow(call: Arc<Call>, asked: Asked, reply: oneshot::Receiver<(StatusCode, Option<Steer>)>) {
    let runtime = &call.shared.runtime;
    let (sent, lease) = (tokio::time::Instant::now(), asked.policy().lease());
    let claim = match runtime.ledger().claim(Arc::new(asked), None).await {
        Ok(Found::Granted(claim)) => claim,
        Ok(Found::Mismatch(record)) => return call.tell(What::Mismatch, Some(&record)),
        Ok(Found::Busy { record, .. }) => return call.tell(What::Busy, Some(&record)),
        Ok(Found::Replay(record) | Found::Unknown(record) | Found::Dead(record)) => {
            let what = match record.state() {
                State::Unknown { .. } => What::RefusedUnknown,
                State::Dead { .. } => What::RefusedDead,
                State::Completed { .. }
                | State::Pending { .. }
                | State::Running { .. }
                | State::Released { .. } => What::Replayed,
            };
            return call.tell(what, Some(&record));
        }
        Err(error) => {
            call.shared.observer.storage_failed(&error);
            return runtime.claim_failed(&error, lease);
        }
    };
    call.tell(What::Claimed { after: sent.elapsed(), taken_over: claim.is_tainted() }, Some(claim.record()));
    let keeper = semel_runtime::Keeper::new(runtime, claim.holder(), claim.lease(), sent);
    let ended = keeper.during(reply, call.rules.timeout, || {}).await;
    let kept = match ended {
        semel_runtime::Ended::Done(Ok((status, steer))) if call.would_keep(steer, status) => Some(status),
        _ => None,
    };
    let held = match kept {
        Some(status) => {
            let class = if status.as_u16() < 400 { Class::Success } else { Class::Rejection };
            let Ok(outcome) = Outcome::try_without_body(class, status.as_u16(), Headers::default()) else {
                return;
            };
            runtime.complete(claim, outcome, || Box::new(|_| {})).await
        }
        None => runtime.release(claim, "report mode".into(), || Box::new(|_| {})).await,
    };
    if let Err(error) = held {
        tracing::warn!(%error, "a report could not be stored");
    }
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
