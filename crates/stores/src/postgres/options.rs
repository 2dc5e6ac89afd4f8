//! What a URL says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::clock::{Clock, SystemClock};
use crate::limits;
use crate::remote::open::InvalidUrl;

/// Statements are planned once for a session, perhaps while the tables are empty: a plan that reads all of a table would
/// stay when it is full. What that makes look dear is not worth compiling.
const PLANS: &str = "-c enable_seqscan=off -c jit=off";

/// A batch looks each of its records up in the index, in their order: a join of another kind would read all of the
/// table, or all of its index, however few the batch has. It is planned once. And it waits for nobody's lock for long,
/// since all of it would wait: who holds one that long is waited for by the one command that has to.
const BATCH_PLANS: &str = "-c enable_hashjoin=off -c enable_mergejoin=off -c enable_bitmapscan=off \
     -c plan_cache_mode=force_generic_plan";

/// Where the database is, and how it is used.
#[derive(Clone)]
pub struct Options {
    pub(super) server: Config,
    /// A connection of its own for notifications, past any pooler.
    pub(super) listen: Option<Config>,
    pub(super) schema: String,
    pub(super) pool: usize,
    /// Behind a pooler in transaction mode: nothing is kept in a session.
    pub(super) pooled: bool,
    pub(super) statement_timeout: Duration,
    /// For a connection to be made, and for one to be free.
    pub(super) connect_timeout: Duration,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) poll: Option<Duration>,
    /// Whether commands that come together go together.
    pub(super) batch: bool,
    /// Batches of each kind under way at once.
    pub(super) lanes: usize,
    pub(super) clock: Arc<dyn Clock>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.server.get_hosts();
        f.debug_struct("Options").field("hosts", &hosts).field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// What of a query string is for this program; the rest is for the driver.
#[derive(Default)]
struct Ours {
    schema: Option<String>,
    pool: Option<usize>,
    pooled: bool,
    apart: bool,
    lanes: Option<usize>,
    statement_timeout: Option<Duration>,
    ssl_mode: Option<SslMode>,
    root_certificates: Option<PathBuf>,
}

impl Options {
    /// Reads `postgres://user:password@host:port/database?key=value&…`: the driver's keys (`application_name`, `options`,
    /// `target_session_attrs`, `keepalives_idle`, …), and of our own `schema`, `pool`, `pgbouncer`,
    /// `batch`, `lanes`, `statement_timeout_ms`, `sslmode` and `sslrootcert`.
    ///
    /// # Errors
    /// A key is unknown, or its value cannot be.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let (ours, rest) = split(url)?;
        let mut server = config(&rest)?;
        settle(&mut server, &ours);
        let statement_timeout = ours.statement_timeout.unwrap_or(limits::POSTGRES_STATEMENT_TIMEOUT);
        if !ours.pooled {
            // A pooler refuses parameters of the session, or hands them to somebody else.
            let given = server.get_options().map_or_else(String::new, |given| format!(" {given}"));
            let timeout = statement_timeout.as_millis();
            server.options(format!("-c statement_timeout={timeout} {PLANS}{given}"));
        }
        Ok(Self {
            server,
            listen: None,
            schema: ours.schema.unwrap_or_else(|| "semel".to_owned()),
            pool: ours.pool.unwrap_or(limits::POSTGRES_POOL),
            pooled: ours.pooled,
            statement_timeout,
            connect_timeout: limits::POSTGRES_CONNECT_TIMEOUT,
            root_certificates: ours.root_certificates,
            poll: None,
            batch: !ours.apart,
            lanes: ours.lanes.unwrap_or(limits::POSTGRES_LANES),
            clock: Arc::new(SystemClock::start()),
        })
    }

    /// Listens for notifications of other nodes on a connection that goes to the database itself, past any pooler in
    /// transaction mode; and sends them.
    ///
    /// # Errors
    /// As [`parse`](Options::parse).
    pub fn listen_url(mut self, url: &str) -> Result<Self, InvalidUrl> {
        let (ours, rest) = split(url)?;
        let mut listen = config(&rest)?;
        settle(&mut listen, &ours);
        self.listen = Some(listen);
        Ok(self)
    }

    /// A connection must be made, and a call must get one, within this time.
    #[must_use]
    pub fn connect_timeout(mut self, within: Duration) -> Self {
        self.connect_timeout = within;
        self.server.connect_timeout(within);
        self
    }

    /// The server as batches are to find it.
    pub(super) fn for_batches(&self) -> Config {
        let mut server = self.server.clone();
        if !self.pooled {
            let given = server.get_options().unwrap_or_default();
            let lock_timeout = limits::POSTGRES_BATCH_LOCK_TIMEOUT.as_millis();
            let options = format!("{given} {BATCH_PLANS} -c lock_timeout={lock_timeout}");
            server.options(options);
        }
        server
    }

    /// Looks for what other nodes did so often where no notification comes.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = Some(every);
        self
    }

    /// Counts the time between two answers of the database by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

fn config(url: &str) -> Result<Config, InvalidUrl> {
    let config = Config::from_str(url).map_err(|error| {
        let source = std::error::Error::source(&error);
        InvalidUrl::new(source.map_or_else(|| "it is no URL of PostgreSQL".to_owned(), ToString::to_string))
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(InvalidUrl::new("the host is missing"));
    }
    Ok(config)
}

/// Time-outs and TLS, where the URL does not say.
fn settle(config: &mut Config, ours: &Ours) {
    let local = |host: &Host| match host {
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1" | "[::1]"),
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    // Encrypted and verified, or not at all: what falls back to plain text when it is asked to protects nobody.
    let is_local = config.get_hosts().iter().all(local)
        && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    let default = if is_local { SslMode::Disable } else { SslMode::Require };
    config.ssl_mode(ours.ssl_mode.unwrap_or(default));
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(limits::POSTGRES_CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("semel");
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(limits::POSTGRES_STATEMENT_TIMEOUT + limits::POSTGRES_ANSWER_MARGIN);
    }
}

/// Takes our own keys out of the query string.
fn split(url: &str) -> Result<(Ours, String), InvalidUrl> {
    let mut ours = Ours::default();
    let Some((base, query)) = url.split_once('?') else { return Ok((ours, url.to_owned())) };
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
        let wrong = |expected: &str| InvalidUrl::new(format!("`{key}` must be {expected}"));
        match key {
            "schema" => ours.schema = Some(schema(&value)?),
            "pool" => {
                let within = |size: &usize| (1..=limits::POSTGRES_POOL_MAX).contains(size);
                let size = value.parse().ok().filter(within);
                ours.pool = Some(size.ok_or_else(|| wrong("a number of connections from 1 to 1000"))?);
            }
            "pgbouncer" => ours.pooled = value.parse().map_err(|_| wrong("`true` or `false`"))?,
            "lanes" => {
                let within = |lanes: &usize| (1..=limits::POSTGRES_LANES_MAX).contains(lanes);
                let lanes = value.parse().ok().filter(within);
                ours.lanes = Some(lanes.ok_or_else(|| wrong("a number of batches from 1 to 32"))?);
            }
            "batch" => {
                let batch: bool = value.parse().map_err(|_| wrong("`true` or `false`"))?;
                ours.apart = !batch;
            }
            "statement_timeout_ms" => {
                let longest = semel_core::limits::WRITE_WITHIN.as_millis();
                let length = value.parse::<u32>().ok().filter(|ms| (1..longest).contains(&u128::from(*ms)));
                let length = length.ok_or_else(|| wrong("a number of milliseconds from 1 to 9999"))?;
                ours.statement_timeout = Some(Duration::from_millis(length.into()));
            }
            "sslmode" => {
                ours.ssl_mode = Some(match value.as_str() {
                    "disable" => SslMode::Disable,
                    "require" | "verify-full" => SslMode::Require,
                    _ => {
                        return Err(wrong(
                            "`disable`, or `require` or `verify-full`, which both verify the server's name",
                        ));
                    }
                });
            }
            "sslrootcert" => ours.root_certificates = Some(value.into()),
            _ => rest.push(pair),
        }
    }
    let rest = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((ours, rest))
}

/// A name that needs no quotes, so that it can stand in every statement.
fn schema(name: &str) -> Result<String, InvalidUrl> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !plain || name.len() > 48 || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err(InvalidUrl::new("`schema` must be lower-case letters, digits and `_`, at most 48"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let url = "postgres://semel:pa%3Fss@db.internal:6432/ledger?schema=jobs&pool=7&pgbouncer=true&application_name=x";
        let options = Options::parse(url).unwrap();
        assert_eq!((options.schema.as_str(), options.pool, options.pooled), ("jobs", 7, true));
        assert_eq!(options.server.get_password(), Some(&b"pa?ss"[..]));
        assert_eq!(options.server.get_application_name(), Some("x"));
        assert_eq!(options.server.get_ssl_mode(), SslMode::Require, "over a network, encrypted");
        assert_eq!(options.server.get_options(), None, "a pooler takes none");
        let direct = Options::parse("postgres://semel@localhost/ledger?options=-c%20jit%3Don").unwrap();
        assert_eq!(direct.server.get_ssl_mode(), SslMode::Disable);
        let options = "-c statement_timeout=5000 -c enable_seqscan=off -c jit=off -c jit=on";
        assert_eq!(direct.server.get_options(), Some(options), "what is given comes last, and holds");
    }

    #[test]
    fn what_cannot_be_is_said_without_the_password() {
        for (query, said) in [
            ("sslmode=prefer", "`sslmode` must be"),
            ("schema=a\"b", "`schema` must be"),
            ("pool=0", "`pool` must be"),
            ("lanes=33", "`lanes` must be"),
            ("pgbouncer=yes", "`pgbouncer` must be"),
            ("statement_timeout_ms=10000", "`statement_timeout_ms` must be"),
            ("colour=red", "colour"),
        ] {
            let error = Options::parse(&format!("postgres://semel:hunter2@db/x?{query}")).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn debug_output_holds_no_password() {
        let options = Options::parse("postgres://semel:hunter2@db/x").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
