//! The contract of a route: the layer of `semel-tower` around the passage to the upstream.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use axum::response::IntoResponse as _;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::{Frame, SizeHint};
use semel_core::Operation;
use semel_core::policy::OnLapse;
use semel_runtime::Runtime;
use semel_tower::{AnswerLost, OnServerError, Profile, RouteOptions, Steer};
use semel_tower::{Caller, Claimed, Context, Destination, Fields, IdempotencyLayer};
use tower_layer::Layer as _;
use tower_service::Service;

use super::body::{BoxError, Outgoing, Reply};
use super::passage::{Passage, told};
use super::told::{Asked, Teller};
use super::upstream::{Failed, Sent};
use crate::config::Config;
use crate::config::gateway::{Contract, Identity, On5xx, ProfileName, RouteRules};
use crate::door::Refusal;
use crate::jwt::{Claims, Tokens};
use crate::limits;

const FENCE: HeaderName = HeaderName::from_static("semel-fence");
const ATTEMPT: HeaderName = HeaderName::from_static("semel-attempt");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The layer, around whatever a request is to be passed on to.
#[derive(Clone)]
pub(super) struct Guard {
    layer: IdempotencyLayer,
}

/// A rule cannot be kept.
pub(super) type GuardError = semel_tower::ConfigError;

/// The contract of one route.
pub(super) struct Rule {
    /// By method: the name of the operation is the method where no route has one.
    routes: Vec<(Method, semel_tower::Route)>,
    require_key: bool,
}

impl Guard {
    /// A layer over the server's ledger.
    ///
    /// # Errors
    /// The configuration is beyond the layer's limits.
    pub(super) fn new(runtime: Runtime, config: &Config, teller: Teller) -> Result<Self, GuardError> {
        let of = semel_tower::Config::new(config.service_name.as_str())
            .caller(|parts| parts.extensions.get::<Asking>().map_or(Caller::Anybody, |id| id.0.clone()))
            .errors_base(config.server.error_docs_base.as_str())
            .max_wait(config.server.wait_max)
            .metrics(teller)
            // The server asks for consent itself, at its start and when it reads its configuration again.
            .accept_claim_loss(true)
            // The server sweeps its store itself.
            .sweep(false);
        let layer = IdempotencyLayer::over(runtime, of)?;
        Ok(Self { layer })
    }

    /// The contract of a route, unless it has none. `operation` names it in records; else the method does. A path
    /// never does: it may hold what is secret, and there is no end to them.
    ///
    /// # Errors
    /// The rules are beyond the layer's limits.
    pub(super) fn rule(
        &self,
        name: &str,
        operation: Option<&str>,
        rules: &RouteRules,
    ) -> Result<Option<Rule>, GuardError> {
        if rules.contract == Contract::Off {
            return Ok(None);
        }
        let methods = match (&rules.methods[..], rules.profile) {
            ([], ProfileName::Stripe | ProfileName::Acp) => vec![Method::POST],
            ([], ProfileName::Ietf | ProfileName::Wms) => {
                vec![Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
            }
            (methods, _) => methods.to_vec(),
        };
        let operation = operation.filter(|operation| Operation::try_new(operation).is_ok());
        let routes = methods.into_iter().map(|method| {
            let operation = operation.unwrap_or_else(|| method.as_str());
            let route = self.layer.route(name, options(rules).operation(operation.to_owned()))?;
            Ok((method, route))
        });
        let routes = routes.collect::<Result<_, GuardError>>()?;
        Ok(Some(Rule { routes, require_key: rules.require_key }))
    }

    /// Passes a request on under the contract.
    pub(super) async fn call(&self, request: Request<Outgoing>) -> Response<semel_tower::Body> {
        let Ok(response) = self.layer.layer(Through(through)).call(request).await;
        response
    }
}

impl Rule {
    /// Whether requests of this method are under the contract.
    pub(super) fn concerns(&self, method: &Method) -> bool {
        self.routes.iter().any(|(concerned, _)| concerned == method)
    }

    /// Whether this request has a key, or would need one; else it passes as if there were no contract.
    pub(super) fn needs(&self, is_keyed: bool) -> bool {
        is_keyed || self.require_key
    }

    /// Puts into a request what the layer, and what is behind it, have to know.
    pub(super) fn prepare(
        &self,
        request: &mut Request<Outgoing>,
        rules: &RouteRules,
        passage: Passage,
        asked: Arc<Asked>,
    ) {
        let identity = identity(request, &rules.scope, rules.tokens.as_deref());
        let route = self.routes.iter().find(|(method, _)| method == request.method());
        let destination = Destination(passage.upstream.config().name.as_str().into());
        let extensions = request.extensions_mut();
        extensions.clear();
        if let Some((_, route)) = route {
            extensions.insert(route.clone());
        }
        // One upstream's answer is none of another's, though host and path be told apart by nothing else.
        extensions.insert(destination);
        extensions.insert(identity);
        extensions.insert(Context(asked));
        extensions.insert(Arc::new(passage));
    }
}

/// Whether a request has a key, whatever it looks like.
pub(super) fn is_keyed<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(IDEMPOTENCY_KEY)
}

/// Who asks, for the layer.
#[derive(Clone)]
struct Asking(Caller);

/// The caller by its headers and its token; nobody, where a header is missing, empty, there twice or no text, or the
/// token is not believed: a missing identity must not make strangers one.
fn identity<B>(request: &Request<B>, scope: &[Identity], tokens: Option<&Tokens>) -> Asking {
    if scope.is_empty() {
        return Asking(Caller::Anybody);
    }
    let mut claims = None;
    let mut text = String::new();
    for part in scope {
        let value = match part {
            Identity::Header(name) => header_of(request, name).map(Cow::Borrowed),
            Identity::Claim(name) => {
                let claims = claims.get_or_insert_with(|| claims_of(request, tokens));
                claims.as_ref().and_then(|claims| claims.text(name)).map(Cow::Owned)
            }
        };
        let Some(value) = value else {
            return Asking(Caller::Lacks(needed(scope)));
        };
        if scope.len() > 1 {
            // Framed, so that two parts are never taken for two others.
            text.push_str(&value.len().to_string());
            text.push(':');
        }
        text.push_str(&value);
    }
    Asking(Caller::Known(text))
}

fn header_of<'a, B>(request: &'a Request<B>, name: &HeaderName) -> Option<&'a str> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => str::from_utf8(value.as_bytes()).ok().filter(|value| !value.is_empty()),
        _ => None,
    }
}

fn claims_of<B>(request: &Request<B>, tokens: Option<&Tokens>) -> Option<Claims> {
    // The configuration has no scope that reads a token without saying which are believed.
    let claims = tokens?.of_headers(request.headers());
    claims.inspect_err(|why| tracing::debug!(why, "a bearer token says nobody who asks")).ok()
}

/// The headers that say who asks.
fn needed(scope: &[Identity]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(scope.len());
    for part in scope {
        let name = match part {
            Identity::Header(name) => name.as_str(),
            Identity::Claim(_) => header::AUTHORIZATION.as_str(),
        };
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The rules in the layer's words.
fn options(rules: &RouteRules) -> RouteOptions {
    let profile = match rules.profile {
        ProfileName::Ietf => Profile::Ietf,
        ProfileName::Wms => Profile::Wms,
        ProfileName::Stripe => Profile::Stripe,
        ProfileName::Acp => Profile::Acp,
    };
    let select = rules.fingerprint_select.iter().map(String::as_str);
    let exclude = rules.fingerprint_exclude.iter().map(String::as_str);
    let fields = if select.len() > 0 { Fields::only(select) } else { Fields::except(exclude) };
    // Pointers have been checked with the configuration.
    let fields = fields.unwrap_or_default();
    let options = RouteOptions::new()
        .profile(profile)
        .enforce(rules.contract == Contract::Kept)
        .require_key(rules.require_key)
        // Which methods count has been decided before.
        .only_mutating(false)
        .max_key_length(rules.key_chars_max)
        .lock_timeout(rules.lease)
        .retention_period(rules.retention)
        .max_response_size(rules.result_bytes_max)
        .max_body_size(rules.body_bytes_max)
        .timeout(rules.whole_within.unwrap_or(limits::TIMEOUT_MAX))
        .on_lapse(rules.on_lapse)
        .fingerprint(fields);
    let options = if rules.shared_keys { options.shared_keys(true) } else { options };
    let options = match rules.on_5xx {
        On5xx::Unknown => options.on_5xx(OnServerError::Unknown),
        On5xx::Profile | On5xx::Keep | On5xx::Release => options,
    };
    overridden(options, rules)
}

/// What is said against the profile. A status that is named goes before what is said of all server errors.
fn overridden(options: RouteOptions, rules: &RouteRules) -> RouteOptions {
    let of = &rules.overrides;
    let (mut kept, mut released) = (of.keep_statuses.clone(), of.release_statuses.clone());
    match rules.on_5xx {
        On5xx::Keep => kept.extend((500..=599).filter(|status| !released.contains(status))),
        On5xx::Release => released.extend((500..=599).filter(|status| !kept.contains(status))),
        On5xx::Profile | On5xx::Unknown => {}
    }
    let mut options = options.keep_statuses(kept).release_statuses(released);
    macro_rules! set {
        ($($name:ident),*) => {
            $(if let Some(value) = of.$name.clone() {
                options = options.$name(value);
            })*
        };
    }
    set!(
        replay_status,
        replay_headers,
        error_form,
        error_codes,
        key_alphabet,
        keep,
        mismatch_status,
        max_wait
    );
    set!(scope_by_path, scope_by_service);
    options
}

/// What the layer is around: it passes on, and says what a failure proves. Its future is no box.
#[derive(Clone, Copy, Debug)]
struct Through<F>(F);

impl<F, P> Service<Request<semel_tower::Body>> for Through<F>
where
    F: Fn(Request<semel_tower::Body>) -> P,
    P: Future<Output = Result<Response<Back>, Infallible>>,
{
    type Response = Response<Back>;
    type Error = Infallible;
    type Future = P;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<semel_tower::Body>) -> P {
        (self.0)(request)
    }
}

async fn through(request: Request<semel_tower::Body>) -> Result<Response<Back>, Infallible> {
    Ok(pass(request).await)
}

async fn pass(mut request: Request<semel_tower::Body>) -> Response<Back> {
    let passage = request.extensions_mut().remove::<Arc<Passage>>();
    let claimed = request.extensions_mut().remove::<Claimed>();
    request.extensions_mut().clear();
    let Some(passage) = passage else {
        // Nothing comes here but what was prepared.
        tracing::error!("a request has lost its way");
        return refused(&Failed::lost("there is no way"), "", OnLapse::AtMostOnce);
    };
    if let Some(claimed) = &claimed {
        let headers = request.headers_mut();
        headers.insert(FENCE, HeaderValue::from(claimed.fence().0));
        headers.insert(ATTEMPT, HeaderValue::from(claimed.attempt()));
    }
    let request = request.map(|body| Outgoing::Layered(body, passage.upload.clone()));
    match passage.pass(request).await {
        Ok((mut response, reply)) => {
            if passage.rules.not_executed.contains(&response.status()) {
                response.extensions_mut().insert(Steer::Release);
            }
            response.map(|()| Back::Reply(Box::new(reply)))
        }
        Err(failed) => refused(&failed, &passage.route, passage.rules.on_lapse),
    }
}

/// What a failure proves, and what is said of it.
fn refused(failed: &Failed, route: &str, on_lapse: OnLapse) -> Response<Back> {
    let error = told(route, failed);
    let (steer, error) = match (&failed.sent, on_lapse) {
        (Sent::Nothing(_) | Sent::NothingButSpent, _) => (Steer::Release, error),
        (Sent::Something, OnLapse::AtMostOnce) => (Steer::Unknown, error),
        // The next request runs, with the same key and a higher fence.
        (Sent::Something, OnLapse::Resume) => {
            (Steer::DoNotKeep, error.with_status(503).with_retry_after(limits::RETRY_AFTER_TARGET))
        }
    };
    let mut response = Refusal::from(error).into_response().map(|_| Back::Nothing);
    response.extensions_mut().insert(steer);
    if matches!(failed.sent, Sent::Something) {
        let how = if failed.timed_out {
            "the upstream did not answer in time"
        } else {
            "the upstream's answer was cut off, or never came"
        };
        response.extensions_mut().insert(AnswerLost(how));
    }
    response
}

/// What comes back.
enum Back {
    /// Nothing: what there is to say is written at the front.
    Nothing,
    /// The upstream's answer.
    Reply(Box<Reply>),
}

impl http_body::Body for Back {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, BoxError>>> {
        match &mut *self {
            Self::Nothing => Poll::Ready(None),
            Self::Reply(reply) => Pin::new(reply).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Reply(reply) => reply.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Reply(reply) => reply.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(scope: &[&'static str], headers: &[(&str, &str)]) -> Caller {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        who_by_bytes(scope, &headers)
    }

    fn who_by_bytes(scope: &[&'static str], headers: &[(&str, &[u8])]) -> Caller {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let scope: Vec<_> =
            scope.iter().map(|name| Identity::Header(HeaderName::from_static(name))).collect();
        identity(&request.body(()).unwrap(), &scope, None).0
    }

    #[test]
    fn a_missing_identity_is_nobody_and_never_hashes_as_empty() {
        assert_eq!(who(&[], &[]), Caller::Anybody);
        assert_eq!(who(&["x-account"], &[("x-account", "a")]), Caller::Known("a".to_owned()));
        let nobody = Caller::Lacks(vec!["x-account".to_owned()]);
        assert_eq!(who(&["x-account"], &[]), nobody);
        assert_eq!(who(&["x-account"], &[("x-account", "")]), nobody);
        assert_eq!(who(&["x-account"], &[("x-account", "a"), ("x-account", "b")]), nobody);
        assert_eq!(who_by_bytes(&["x-account"], &[("x-account", b"a\xff")]), nobody, "bytes are no text");
        assert_eq!(who(&["x-account"], &[("x-account", "\u{e9}")]), Caller::Known("\u{e9}".to_owned()));
        let two = |one: &str, other: &str| who(&["a", "b"], &[("a", one), ("b", other)]);
        assert_ne!(two("ab", "c"), two("a", "bc"), "parts are framed");
    }
}
