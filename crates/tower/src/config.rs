//! What can be configured: for the whole layer, and for single routes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, Method};
use semel_api::Form;
use semel_core::error::Invalid;
use semel_core::policy::{Keep, OnLapse, Policy, Schedule};
use semel_core::{Operation, limits as core};
use semel_fingerprint::Fields;

use crate::caller::{By, Caller};
use crate::key::KeyAlphabet;
use crate::limits;
use crate::observe::{Observer, Unobserved};
use crate::profile::{Codes, Profile, ReplayStatus, Row};
use crate::route::{Matcher, MatcherError};

/// What becomes of the key when a protected request is answered with a server error (5xx) that was received whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnServerError {
    /// By what is kept: under most profiles the key is free again, and the client's retry runs.
    ByKeep,
    /// It may have happened, and nothing runs again by itself: for effects that must not repeat.
    Unknown,
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty $(= |$given:ident: $arg:ty| $convert:expr)?;)*) => {
        /// What holds for single routes; what is not said, the layer's [`Config`] says, and then the profile.
        #[derive(Clone, Debug, Default)]
        pub struct RouteOptions {
            $(pub(crate) $name: Option<$type>,)*
        }

        impl RouteOptions {
            /// Nothing is said.
            pub fn new() -> Self {
                Self::default()
            }

            /// These options where they say something, else those of `usual`.
            #[must_use]
            pub fn or(self, usual: &Self) -> Self {
                Self { $($name: self.$name.or_else(|| usual.$name.clone()),)* }
            }

            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.$name = Some($name);
                    self
                }
            )*
        }

        impl Config {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.all.$name = Some($name);
                    self
                }
            )*
        }
    };
}

options! {
    /// The group of rules that holds where nothing else is said.
    profile: Profile;
    /// Whether the key is enforced. `false` reports what would have happened, and changes nothing.
    enforce: bool;
    /// Whether the layer leaves these requests alone altogether.
    exempt: bool;
    /// Whether a request without a key is refused (400); else it passes through unprotected.
    require_key: bool;
    /// Whether only requests that change something (the profile's methods) are protected; else all with a key are.
    only_mutating: bool;
    /// The methods that change something.
    methods: Vec<Method>;
    /// Characters that a key may have, 255 at most.
    max_key_length: usize;
    /// Which characters a key may have.
    key_alphabet: KeyAlphabet;
    /// How long a claim holds without a heartbeat. While the handler runs it is renewed at a third of it.
    lock_timeout: Duration;
    /// How long a settled key is remembered, from its end.
    retention_period: Duration;
    /// Bytes of a response that is kept; a larger one is recorded as done, without its body.
    max_response_size: usize;
    /// Bytes that the body of a protected request may have; it is refused (413) before it is read if it says it has more.
    max_body_size: usize;
    /// How long the handler may run under its claim.
    timeout: Duration;
    /// The longest `Prefer: wait` that is honoured; zero lets nobody wait.
    max_wait: Duration;
    /// What a panic, a reply that broke off, a time-out or a lapsed lease means.
    on_lapse: OnLapse;
    /// What a server error means, whose status is in neither of the lists below.
    on_5xx: OnServerError;
    /// Which replies are kept.
    keep: Keep;
    /// Statuses that are kept, whatever the rest says.
    keep_statuses: Vec<u16>;
    /// Statuses that are not kept, whatever the rest says.
    release_statuses: Vec<u16>;
    /// The status of a replay.
    replay_status: ReplayStatus;
    /// The only headers that are kept and replayed; else all but those that never are.
    replay_headers: Vec<HeaderName>;
    /// The status of a key that was used with other parameters.
    mismatch_status: u16;
    /// Which fields of a JSON body count when requests are compared, by JSON Pointer.
    fingerprint: Fields;
    /// The form of errors, where the client's `Accept` does not say.
    error_form: Form;
    /// The name of the operation in records; else the method and the route.
    operation: String;
    /// Whether all callers share their keys, so that whoever sends another's key is given that one's reply: right for one
    /// internal client, wrong for many. A layer has to be told either this or its [`caller`](Config::caller).
    shared_keys: bool;
    /// Whether the service's name is part of a key's scope, so that services over one store do not share keys.
    scope_by_service: bool;
    /// Whether the path is part of a key's scope, so that the same key elsewhere is another key and no mismatch.
    scope_by_path: bool;
    /// The names of the codes in errors.
    error_codes: Codes;
    /// Whether answers repeat the request's `Idempotency-Key`, as it was sent.
    echo_key: bool;
}

/// The configuration of a layer.
///
/// ```
/// use std::time::Duration;
/// use semel_tower::{Config, Profile, RouteOptions};
///
/// let config = Config::new("order-service")
///     .profile(Profile::Wms)
///     .shared_keys(true)
///     .require_key(false)
///     .lock_timeout(Duration::from_secs(5 * 60))
///     .retention_period(Duration::from_secs(24 * 60 * 60))
///     .max_response_size(1024 * 1024)
///     .route("POST /orders/{id}/pay", RouteOptions::new().require_key(true))?;
/// # Ok::<(), semel_tower::MatcherError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) service_name: String,
    pub(crate) all: RouteOptions,
    pub(crate) routes: Vec<(Matcher, RouteOptions)>,
    pub(crate) caller: Option<By<Caller>>,
    pub(crate) tenant: Option<By<Option<String>>>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) errors_base: String,
    pub(crate) sweep: bool,
    pub(crate) accept_claim_loss: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("service_name", &self.service_name)
            .field("all", &self.all)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The usual configuration for the service of this name: profile `ietf`, keys optional, lock time-out 5 min,
    /// retention 24 h, bodies and kept responses up to 1 MiB. Whose keys they are is left to say: with
    /// [`caller`](Self::caller), or with [`shared_keys`](Self::shared_keys).
    pub fn new(service_name: impl Into<String>) -> Self {
        Self {
            service_name: service_name.into(),
            all: RouteOptions::default(),
            routes: Vec::new(),
            caller: None,
            tenant: None,
            observer: Arc::new(Unobserved),
            errors_base: semel_api::error::PAGES.to_owned(),
            sweep: true,
            accept_claim_loss: false,
        }
    }

    /// Other rules for these requests; of several matchers the first counts.
    ///
    /// # Errors
    /// The text is no [`Matcher`].
    pub fn route(mut self, matcher: &str, options: RouteOptions) -> Result<Self, MatcherError> {
        self.routes.push((Matcher::parse(matcher)?, options));
        Ok(self)
    }

    /// Who asks, so that one caller is never given another's outcome: a *verified*, stable identity that an outer
    /// layer has put into the request. It ends an earlier [`shared_keys`](Self::shared_keys).
    ///
    /// ```
    /// # use semel_tower::{Caller, Config};
    /// /// What an authenticating layer has found out.
    /// #[derive(Clone)]
    /// struct User(String);
    ///
    /// let config = Config::new("orders").caller(|parts| match parts.extensions.get::<User>() {
    ///     Some(User(id)) => Caller::Known(id.clone()),
    ///     None => Caller::Nobody,
    /// });
    /// ```
    #[must_use]
    pub fn caller(mut self, extract: impl Fn(&Parts) -> Caller + Send + Sync + 'static) -> Self {
        self.caller = Some(By::new(extract));
        self.all.shared_keys = Some(false);
        self
    }

    /// Rules by these options, if it is said whose keys they are about, and if a store that may lose claims is not to
    /// keep what it cannot.
    ///
    /// # Errors
    /// They are not within the limits, nobody said whether callers share their keys, or nobody consented.
    pub(crate) fn resolve(
        &self,
        name: &str,
        options: &RouteOptions,
        survives_failover: bool,
    ) -> Result<Rules, ConfigError> {
        let rules = Rules::resolve(name, options)?;
        let at_most_once = rules.enforce && !rules.exempt && rules.policy.on_lapse() == OnLapse::AtMostOnce;
        if at_most_once && !survives_failover && !self.accept_claim_loss {
            return Err(ConfigError::new(
                "on_lapse",
                "the store may lose claims that were granted (in a failover, or, in memory, with the process), and at \
                 most once would not hold: say `accept_claim_loss(true)` if that is known, or use `OnLapse::Resume`",
            ));
        }
        if rules.scope_caller && !rules.exempt && self.caller.is_none() {
            return Err(ConfigError::new(
                "caller",
                "say who asks with `Config::caller`, or with `shared_keys(true)` that all callers share their keys: \
                 else one caller could be given another's reply unnoticed",
            ));
        }
        Ok(rules)
    }

    /// Whose tenant it is; `None` refuses the request (401). Without it there is one tenant, `default`.
    #[must_use]
    pub fn tenant(mut self, extract: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static) -> Self {
        self.tenant = Some(By::new(extract));
        self
    }

    /// Who is told what happens: the metrics of this crate, or an observer of your own.
    #[must_use]
    pub fn metrics(mut self, observer: impl Observer) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Tells the observer whose layer it is. What it gives in its place knows, so that asking it again changes nothing.
    pub(crate) fn name_service(&mut self) {
        if let Some(observer) = self.observer.of_service(&self.service_name) {
            self.observer = observer;
        }
    }

    /// Where the `type` of problem details leads: the code stands where `{code}` does, or else behind it. Unless it is
    /// set, that is the project's own documents. It should resolve to the pages of the codes (draft-ietf-httpapi-idempotency-key-header-07, section 2.7).
    #[must_use]
    pub fn errors_base(mut self, base: impl Into<String>) -> Self {
        self.errors_base = base.into();
        self
    }

    /// Consent to `on_lapse(AtMostOnce)` over a store that may lose claims which it has granted: one in Redis in a failover,
    /// one in `PostgreSQL` with asynchronous standbys, one in memory with its process. Without it no such layer is made.
    #[must_use]
    pub fn accept_claim_loss(mut self, accept: bool) -> Self {
        self.accept_claim_loss = accept;
        self
    }

    /// Whether the layer sweeps expired records out of its store in the background (it does), or somebody else does.
    #[must_use]
    pub fn sweep(mut self, sweep: bool) -> Self {
        self.sweep = sweep;
        self
    }
}

/// A configuration contradicts the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    what: &'static str,
    why: String,
}

impl ConfigError {
    fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for ConfigError {}

impl From<Invalid> for ConfigError {
    fn from(invalid: Invalid) -> Self {
        Self::new("policy", invalid.to_string())
    }
}

/// What holds for a request: everything is decided.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule that is configured by its own")]
pub(crate) struct Rules {
    pub(crate) enforce: bool,
    pub(crate) exempt: bool,
    pub(crate) require_key: bool,
    pub(crate) only_mutating: bool,
    pub(crate) methods: Vec<Method>,
    pub(crate) key_chars_max: usize,
    pub(crate) alphabet: KeyAlphabet,
    pub(crate) policy: Policy,
    pub(crate) response_bytes_max: usize,
    pub(crate) body_bytes_max: usize,
    pub(crate) timeout: Duration,
    pub(crate) wait_max: Duration,
    pub(crate) on_5xx: OnServerError,
    pub(crate) keep_statuses: Vec<u16>,
    pub(crate) release_statuses: Vec<u16>,
    pub(crate) replay_status: ReplayStatus,
    pub(crate) replay_headers: Option<Vec<HeaderName>>,
    pub(crate) mismatch_status: u16,
    pub(crate) fields: Fields,
    pub(crate) form: Form,
    pub(crate) codes: Codes,
    pub(crate) operation: Option<Operation>,
    pub(crate) scope_service: bool,
    pub(crate) scope_caller: bool,
    pub(crate) scope_path: bool,
    pub(crate) echo_key: bool,
    /// The matcher, or `*`: a bounded name for counts.
    pub(crate) name: Box<str>,
}

impl Rules {
    pub(crate) fn resolve(name: &str, options: &RouteOptions) -> Result<Self, ConfigError> {
        let of = options.clone();
        let row: Row = of.profile.unwrap_or_default().row();
        let bounded = |what, given: Option<usize>, usual, max: usize| match given {
            Some(0) => Err(ConfigError::new(what, "must be above zero")),
            Some(given) if given > max => Err(ConfigError::new(what, format!("must be at most {max}"))),
            given => Ok(given.unwrap_or(usual)),
        };
        let timeout = of.timeout.unwrap_or(limits::TIMEOUT_DEFAULT);
        if timeout.is_zero() || timeout > limits::TIMEOUT_MAX {
            return Err(ConfigError::new("timeout", "must be above zero and at most seven days"));
        }
        let wait_max = of.max_wait.unwrap_or(limits::WAIT_DEFAULT);
        if wait_max > limits::WAIT_MAX {
            return Err(ConfigError::new("max_wait", "must be at most ten minutes"));
        }
        let mismatch_status = of.mismatch_status.unwrap_or(row.mismatch_status);
        if !(400..=499).contains(&mismatch_status) {
            return Err(ConfigError::new("mismatch_status", "must be a status from 400 to 499"));
        }
        let operation = of.operation.as_deref().map(Operation::try_new).transpose()?;
        Ok(Self {
            enforce: of.enforce.unwrap_or(true),
            exempt: of.exempt.unwrap_or(false),
            require_key: of.require_key.unwrap_or(row.require_key),
            only_mutating: of.only_mutating.unwrap_or(true),
            methods: of.methods.unwrap_or_else(|| row.methods.to_vec()),
            key_chars_max: bounded(
                "max_key_length",
                of.max_key_length,
                limits::KEY_CHARS_DEFAULT,
                core::KEY_CHARS_MAX,
            )?,
            alphabet: of.key_alphabet.unwrap_or(row.alphabet),
            policy: Policy::try_new(
                of.lock_timeout.unwrap_or(limits::LOCK_TIMEOUT_DEFAULT),
                of.retention_period.unwrap_or(limits::RETENTION_DEFAULT),
                of.on_lapse.unwrap_or(OnLapse::Resume),
                of.keep.unwrap_or(row.keep),
                Schedule::ONCE,
            )?,
            response_bytes_max: bounded(
                "max_response_size",
                of.max_response_size,
                limits::RESPONSE_BYTES_DEFAULT,
                core::BODY_BYTES_MAX,
            )?,
            body_bytes_max: bounded(
                "max_body_size",
                of.max_body_size,
                limits::BODY_BYTES_DEFAULT,
                core::BODY_BYTES_MAX,
            )?,
            timeout,
            wait_max,
            on_5xx: of.on_5xx.unwrap_or(OnServerError::ByKeep),
            keep_statuses: of.keep_statuses.unwrap_or_default(),
            release_statuses: of.release_statuses.unwrap_or_default(),
            replay_status: of.replay_status.unwrap_or(row.replay_status),
            replay_headers: of.replay_headers,
            mismatch_status,
            fields: of.fingerprint.unwrap_or_default(),
            form: of.error_form.unwrap_or(row.form),
            codes: of.error_codes.unwrap_or(row.codes),
            operation,
            scope_service: of.scope_by_service.unwrap_or(row.scope_service),
            scope_caller: !of.shared_keys.unwrap_or(false),
            scope_path: of.scope_by_path.unwrap_or(row.scope_path),
            echo_key: of.echo_key.unwrap_or(row.echo_key),
            name: name.into(),
        })
    }

    /// Whether requests of this method may be protected at all.
    pub(crate) fn concerns(&self, method: &Method) -> bool {
        !self.exempt && (!self.only_mutating || self.methods.contains(method))
    }

    /// Whether a reply of this status, received whole, is kept: where the status itself is named.
    pub(crate) fn named(&self, status: u16) -> Option<bool> {
        if self.release_statuses.contains(&status) {
            return Some(false);
        }
        self.keep_statuses.contains(&status).then_some(true)
    }

    /// The same of one that is not named.
    pub(crate) fn usually_keeps(&self, status: u16) -> bool {
        crate::profile::keeps(self.policy.keep(), status)
    }
}
