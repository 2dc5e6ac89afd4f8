//! The layer, and the service that it makes: what is protected, and what passes untouched.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body as HttpBody;
use semel_api::{ApiError, Detail, ErrorCode};
use semel_core::id::Tenant;
use semel_core::{Key, Ledger, Operation, Record, Request as Asked, request::Fingerprint};
use semel_fingerprint::FingerprintBuilder;
use semel_runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{self, Body, BoxError, Read};
use crate::caller::{Caller, Destination, default_tenant, scope};
use crate::claimed::Claimed;
use crate::config::{Config, ConfigError, RouteOptions, Rules};
use crate::observe::{Context, Event, Observer, Watching, What};
use crate::prefer::Prefer;
use crate::refuse::{self, Voice};
use crate::route::Matcher;
use crate::run::{Answer, Call, Work};
use crate::steer::Steer;
use crate::{key, limits};

/// Gives services the `Idempotency-Key` contract. A clone is another handle to the same layer.
#[derive(Clone)]
pub struct IdempotencyLayer {
    pub(crate) shared: Arc<Shared>,
    /// What holds where no matcher and no request says otherwise.
    pub(crate) usual: Arc<Rules>,
    /// Whether matchers count: not for a route that was given a layer of its own.
    pub(crate) matches: bool,
}

/// What all services of a layer share.
pub(crate) struct Shared {
    pub(crate) runtime: Runtime,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) errors_base: String,
    config: Config,
    routes: Vec<(Matcher, Arc<Rules>)>,
    tenant: Tenant,
    /// The sweeper, once the first request has come.
    sweeper: OnceLock<()>,
}

/// Rules for one request: an extension that an outer layer puts into it, since it knows the route.
#[derive(Clone, Debug)]
pub struct Route(Arc<Rules>);

impl fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl IdempotencyLayer {
    /// A layer over this ledger.
    ///
    /// # Errors
    /// The configuration is not within the limits, does not say whose keys they are, or promises *at most once* over a store
    /// that may lose claims, without [consent](Config::accept_claim_loss).
    pub fn try_new(ledger: Ledger, mut config: Config) -> Result<Self, ConfigError> {
        config.name_service();
        let watch = Arc::new(Watching(Arc::clone(&config.observer)));
        let runtime = Runtime::new(ledger, TaskTracker::new(), CancellationToken::new(), watch);
        Self::over(runtime, config)
    }

    /// A layer whose work is somebody else's to wait for at the end.
    ///
    /// # Errors
    /// The configuration is not within the limits, does not say whose keys they are, or promises *at most once* over a store
    /// that may lose claims, without [consent](Config::accept_claim_loss).
    pub fn over(runtime: Runtime, mut config: Config) -> Result<Self, ConfigError> {
        config.name_service();
        let survives = runtime.ledger().store().survives_failover();
        let usual = Arc::new(config.resolve("*", &config.all, survives)?);
        let mut routes = Vec::with_capacity(config.routes.len());
        for (matcher, options) in &config.routes {
            let rules = config.resolve(matcher.as_str(), &options.clone().or(&config.all), survives)?;
            routes.push((matcher.clone(), Arc::new(rules)));
        }
        let shared = Shared {
            runtime,
            observer: Arc::clone(&config.observer),
            errors_base: config.errors_base.clone(),
            routes,
            tenant: default_tenant()?,
            sweeper: OnceLock::new(),
            config,
        };
        Ok(Self { shared: Arc::new(shared), usual, matches: true })
    }

    /// The same layer with other rules, for a single route: `post(pay).layer(idempotency.with("pay", …)?)`. Its
    /// matchers do not count. `name` stands in counts.
    ///
    /// # Errors
    /// The options are not within the limits.
    pub fn with(&self, name: &str, options: RouteOptions) -> Result<Self, ConfigError> {
        let Route(usual) = self.route(name, options)?;
        Ok(Self { shared: Arc::clone(&self.shared), usual, matches: false })
    }

    /// Rules to put into a request as an extension. They go before the layer's matchers.
    ///
    /// # Errors
    /// The options are not within the limits.
    pub fn route(&self, name: &str, options: RouteOptions) -> Result<Route, ConfigError> {
        let config = &self.shared.config;
        let survives = self.ledger().store().survives_failover();
        Ok(Route(Arc::new(config.resolve(name, &options.or(&config.all), survives)?)))
    }

    /// The ledger below.
    pub fn ledger(&self) -> &Ledger {
        self.shared.runtime.ledger()
    }

    /// What the layer's work runs on.
    pub fn runtime(&self) -> &Runtime {
        &self.shared.runtime
    }

    /// Waits for `grace` at most until everything that runs apart from its client has ended; what has not is given up,
    /// and left to its policy. Whether all had ended. Call it when the server has stopped accepting.
    pub async fn drain(&self, grace: Duration) -> bool {
        let (tasks, giving_up) = (self.shared.runtime.tasks(), self.shared.runtime.giving_up());
        tasks.close();
        let ended = tokio::time::timeout(grace, tasks.wait()).await.is_ok();
        if !ended {
            giving_up.cancel();
            tokio::time::timeout(limits::GIVE_UP_WITHIN, tasks.wait()).await.ok();
        }
        ended
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let (shared, usual) = (Arc::clone(&self.shared), Arc::clone(&self.usual));
        IdempotencyService { inner, shared, usual, matches: self.matches }
    }
}

/// A service under the `Idempotency-Key` contract.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    shared: Arc<Shared>,
    usual: Arc<Rules>,
    matches: bool,
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, A, B> Service<Request<A>> for IdempotencyService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    A: HttpBody<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The very service that said it was ready is the one that is called; the next call asks the clone.
        let next = self.inner.clone();
        let mut service = std::mem::replace(&mut self.inner, next);
        let (mut parts, body) = request.into_parts();
        let rules = self.shared.rules(&parts, &self.usual, self.matches);
        match self.shared.judge(&mut parts, rules) {
            Gate::Pass => {
                let passing = service.call(Request::from_parts(parts, Body::stream(body)));
                ResponseFuture { kind: Kind::Passing { passing } }
            }
            Gate::Refused(response) => ResponseFuture { kind: Kind::Refused { response: Some(response) } },
            Gate::Protected(call, key, identity) if call.rules.enforce => {
                let echo = parts.headers.get(key::HEADER).filter(|_| call.rules.echo_key).cloned();
                let answer = protect(call, key, identity, service, parts, body);
                ResponseFuture { kind: Kind::Protected { answer: Box::pin(answer), echo } }
            }
            Gate::Protected(call, key, identity) => {
                let answer = crate::report::report(call, key, identity, service, parts, body);
                ResponseFuture { kind: Kind::Protected { answer: Box::pin(answer), echo: None } }
            }
        }
    }
}

pin_project_lite::pin_project! {
    /// The answer to a request.
    pub struct ResponseFuture<F, E> {
        #[pin]
        kind: Kind<F, E>,
    }
}

pin_project_lite::pin_project! {
    #[project = KindProjected]
    enum Kind<F, E> {
        Passing { #[pin] passing: F },
        Refused { response: Option<Response<Body>> },
        Protected { answer: Answering<E>, echo: Option<HeaderValue> },
    }
}

type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

impl<F, E, B> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProjected::Passing { passing } => {
                let passed = ready!(passing.poll(cx));
                Poll::Ready(passed.map(|mut response| {
                    // What it says about the key is for no client, though there is no key to speak of.
                    Steer::take(&mut response);
                    response.map(Body::stream)
                }))
            }
            KindProjected::Refused { response } => {
                // What is polled after its end is never ready.
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
            }
            KindProjected::Protected { answer, echo } => {
                let mut answered = ready!(answer.as_mut().poll(cx));
                if let (Ok(response), Some(key)) = (&mut answered, echo.take()) {
                    response.headers_mut().insert(key::HEADER, key);
                }
                Poll::Ready(answered)
            }
        }
    }
}

/// What becomes of a request, by its head.
enum Gate {
    /// It passes through untouched.
    Pass,
    /// It is answered at once.
    Refused(Response<Body>),
    /// It runs under this key.
    Protected(Arc<Call>, Key, Identity),
}

/// A request extension of one that passes without a claim: how it is told that its handler needs one.
#[cfg(feature = "axum")]
#[derive(Clone)]
pub(crate) struct Unclaimed {
    shared: Arc<Shared>,
    rules: Arc<Rules>,
}

#[cfg(feature = "axum")]
impl Unclaimed {
    fn new(shared: &Arc<Shared>, rules: &Arc<Rules>) -> Self {
        Self { shared: Arc::clone(shared), rules: Arc::clone(rules) }
    }

    pub(crate) fn refuse(&self, headers: &http::HeaderMap) -> Response<Body> {
        let voice = Voice::of(headers, self.rules.form, self.rules.codes);
        voice.say(&ErrorCode::IdempotencyKeyRequired.into(), &self.shared.errors_base)
    }
}

/// Whose key it is.
pub(crate) struct Identity {
    pub(crate) tenant: Tenant,
    pub(crate) caller: Option<String>,
}

impl Shared {
    /// What holds for this request: what an outer layer says, else the first matcher, else the usual.
    fn rules(&self, parts: &Parts, usual: &Arc<Rules>, matches: bool) -> Arc<Rules> {
        if let Some(Route(rules)) = parts.extensions.get::<Route>() {
            return Arc::clone(rules);
        }
        Arc::clone(self.matched(&parts.method, path(parts), usual, matches))
    }

    pub(crate) fn matched<'a>(
        &'a self,
        method: &Method,
        path: &str,
        usual: &'a Arc<Rules>,
        matches: bool,
    ) -> &'a Arc<Rules> {
        let mut routes = self.routes.iter().filter(|_| matches);
        let found = routes.find(|(matcher, _)| matcher.matches(method, path));
        found.map_or(usual, |(_, rules)| rules)
    }

    fn judge(self: &Arc<Self>, parts: &mut Parts, rules: Arc<Rules>) -> Gate {
        // Two layers, one around the other, are one: the outer has the claim.
        if parts.extensions.get::<Claimed>().is_some() {
            return Gate::Pass;
        }
        let concerned = rules.concerns(&parts.method);
        #[cfg(feature = "axum")]
        if !concerned || !rules.enforce {
            parts.extensions.insert(Unclaimed::new(self, &rules));
        }
        if !concerned {
            return Gate::Pass;
        }
        let keyed = parts.headers.contains_key(key::HEADER);
        self.tell(What::Asked { keyed }, None, &rules, parts.extensions.get::<Context>());
        let key = key::of_headers(&parts.headers, rules.alphabet)
            .and_then(|key| key.map(|key| within(key, rules.key_chars_max)).transpose());
        if matches!(key, Ok(None)) && !rules.require_key {
            #[cfg(feature = "axum")]
            parts.extensions.insert(Unclaimed::new(self, &rules));
            return Gate::Pass;
        }
        let call = Arc::new(Call {
            shared: Arc::clone(self),
            voice: Voice::of(&parts.headers, rules.form, rules.codes),
            prefer: Prefer::of_headers(&parts.headers, rules.wait_max),
            context: parts.extensions.get::<Context>().cloned(),
            rules,
        });
        let (what, error) = match key {
            Err(error) => (What::KeyInvalid, error),
            Ok(None) => (What::KeyMissing, ErrorCode::IdempotencyKeyRequired.into()),
            Ok(Some(key)) => match self.identity(parts, &call.rules) {
                Ok(identity) => return Gate::Protected(call, key, identity),
                Err(error) => (What::Refused, error),
            },
        };
        call.tell(what, None);
        if call.rules.enforce { Gate::Refused(call.refuse(&error)) } else { Gate::Pass }
    }

    /// Whose key it is.
    ///
    /// # Errors
    /// It is nobody's.
    fn identity(&self, parts: &Parts, rules: &Rules) -> Result<Identity, ApiError> {
        let tenant = match &self.config.tenant {
            None => self.tenant.clone(),
            Some(by) => {
                let tenant = by.of(parts).and_then(|tenant| Tenant::try_new(&tenant).ok());
                tenant.ok_or(ErrorCode::Unauthenticated)?
            }
        };
        let caller = match self.config.caller.as_ref().filter(|_| rules.scope_caller) {
            None => None,
            Some(by) => match by.of(parts) {
                Caller::Known(caller) => Some(caller),
                Caller::Anybody => None,
                Caller::Nobody => return Err(ErrorCode::Unauthenticated.into()),
                Caller::Lacks(headers) => return Err(refuse::unidentified(&headers)),
            },
        };
        Ok(Identity { tenant, caller })
    }

    /// What is asked of the ledger.
    pub(crate) fn asked(
        &self,
        rules: &Rules,
        key: Key,
        identity: Identity,
        parts: &Parts,
        body: &[u8],
    ) -> Result<Asked, semel_core::Invalid> {
        let path = path(parts);
        let scope = scope(
            identity.tenant,
            rules.scope_service.then_some(self.config.service_name.as_str()),
            parts.extensions.get::<Destination>().map(|destination| &*destination.0),
            identity.caller.as_deref(),
            rules.scope_path.then_some(path),
            !rules.enforce,
        )?;
        let operation = match &rules.operation {
            Some(operation) => operation.clone(),
            None => operation(parts, path)?,
        };
        Ok(Asked::new(scope, key, operation, fingerprint(rules, parts, path, body), rules.policy))
    }

    pub(crate) fn tell(
        &self,
        what: What,
        record: Option<&Arc<Record>>,
        rules: &Rules,
        context: Option<&Context>,
    ) {
        let event = Event { what, route: &rules.name, enforced: rules.enforce, record, context };
        self.observer.happened(&event);
    }

    /// Sweeps what has expired, from the first request on until the layer is gone.
    fn sweeps(self: &Arc<Self>) {
        if !self.config.sweep {
            return;
        }
        self.sweeper.get_or_init(|| {
            let shared = Arc::downgrade(self);
            tokio::spawn(async move {
                let mut pause = limits::SWEEP_EVERY;
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(shared) = shared.upgrade() else { return };
                    pause = match shared.runtime.ledger().store().sweep(limits::SWEEP_BATCH).await {
                        // More than one step's worth: go on, but let live traffic in between.
                        Ok(swept) if swept >= limits::SWEEP_BATCH => limits::SWEEP_AGAIN,
                        Ok(_) => limits::SWEEP_EVERY,
                        Err(error) => {
                            tracing::warn!(%error, "expired records could not be swept");
                            limits::SWEEP_EVERY
                        }
                    };
                }
            });
        });
    }
}

/// Reads a protected request and answers it, apart from its client from the claim on (L11).
async fn protect<S, A, B>(
    call: Arc<Call>,
    key: Key,
    identity: Identity,
    service: S,
    parts: Parts,
    body: A,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    A: HttpBody<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let shared = Arc::clone(&call.shared);
    shared.sweeps();
    let (body, trailers) = match within_time(body, call.rules.body_bytes_max).await {
        Ok(whole) => whole,
        Err(error) => {
            call.tell(What::Refused, None);
            return Ok(call.refuse(&error));
        }
    };
    let asked = match shared.asked(&call.rules, key, identity, &parts, &body) {
        Ok(asked) => Arc::new(asked),
        Err(invalid) => {
            call.tell(What::Refused, None);
            return Ok(call.refuse(&refuse::invalid(&invalid)));
        }
    };
    let work = Box::new(Work { service, parts, body, trailers });
    let answering = Arc::clone(&call);
    match shared.runtime.detached(async move { answering.answer(asked, work).await }).await {
        Ok(Ok(Answer::Ready(response))) => Ok(response),
        Ok(Ok(Answer::Busy { record, retry_after })) => Ok(Box::pin(call.busy(record, retry_after)).await),
        Ok(Err(error)) => Err(error),
        // Not the handler's panic, which is judged by the policy, but one of ours: the claim lapses.
        Err(panic) => {
            tracing::error!(panic = panic.text(), "the layer has panicked");
            Ok(call.refuse(&ErrorCode::Internal.into()))
        }
    }
}

/// The whole body, if it comes in time and within the limit.
async fn within_time<A>(body: A, bytes_max: usize) -> Result<(Bytes, Option<http::HeaderMap>), ApiError>
where
    A: HttpBody<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
{
    let mut reading = std::pin::pin!(body::read(body, bytes_max));
    // Most bodies are here already, and cost no timer.
    let read = match poll!(&mut reading) {
        Poll::Ready(read) => read,
        Poll::Pending => {
            let seconds = limits::BODY_READ_WITHIN.as_secs();
            let slow = || Detail::new("body", "slow", format!("must arrive within {seconds} seconds"));
            tokio::time::timeout(limits::BODY_READ_WITHIN, reading).await.map_err(|_| slow())?
        }
    };
    match read {
        Read::Whole(bytes, trailers) => Ok((bytes, trailers)),
        Read::TooLarge(_) => Err(refuse::too_large(bytes_max)),
        Read::Failed(_) => Err(Detail::new("body", "incomplete", "ended before it was whole").into()),
    }
}

fn within(key: Key, chars_max: usize) -> Result<Key, ApiError> {
    if key.as_str().chars().count() <= chars_max {
        return Ok(key);
    }
    let problem = format!("must have at most {chars_max} characters");
    Err(ApiError::new(ErrorCode::IdempotencyKeyInvalid).with_detail(Detail::new(
        "Idempotency-Key",
        "key",
        problem,
    )))
}

/// The path that the client asked for, whatever routers have made of it since.
fn path(parts: &Parts) -> &str {
    #[cfg(feature = "axum")]
    if let Some(original) = parts.extensions.get::<axum::extract::OriginalUri>() {
        return original.0.path();
    }
    parts.uri.path()
}

/// The method and the route, where the router tells which; else the path, where it fits a name.
fn operation(parts: &Parts, path: &str) -> Result<Operation, semel_core::Invalid> {
    #[cfg(feature = "axum")]
    let route = parts.extensions.get::<axum::extract::MatchedPath>();
    #[cfg(feature = "axum")]
    let path = route.map_or(path, |route| route.as_str());
    let method = parts.method.as_str();
    Operation::try_new(&format!("{method} {path}")).or_else(|_| Operation::try_new(method))
}

/// What the request means: method, path, query and body.
fn fingerprint(rules: &Rules, parts: &Parts, path: &str, body: &[u8]) -> Fingerprint {
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // What is compressed is compared as it came.
    let content_type = text(header::CONTENT_TYPE).filter(|_| {
        text(header::CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"))
    });
    let fingerprint = FingerprintBuilder::new()
        .method(parts.method.as_str())
        .path(path)
        .query(parts.uri.query().unwrap_or_default())
        .fields(&rules.fields)
        .body(content_type, body)
        .finish();
    Fingerprint { version: fingerprint.version(), digest: *fingerprint.digest() }
}
