//! What a URL says.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::clock::{Clock, SystemClock};
use crate::limits;
use crate::remote::open::InvalidUrl;

/// Where Redis is, and how it is used.
#[derive(Clone)]
pub struct Options {
    pub(super) server: ConnectionInfo,
    /// More nodes of a cluster to ask for its map, if the first is not there.
    pub(super) seeds: Vec<(String, u16)>,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) prefix: String,
    pub(super) shards: Option<usize>,
    pub(super) connections: Option<usize>,
    pub(super) timeout: Duration,
    pub(super) wait: Option<Wait>,
    pub(super) notify: bool,
    pub(super) poll: Option<Duration>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stepped: bool,
}

/// Where a write has to be before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) replicas: usize,
    /// On disk, here and there, and not in memory only.
    pub(super) synced: bool,
    pub(super) timeout: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.server.addr().to_string();
        f.debug_struct("Options").field("server", &at).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// What a query string says.
#[derive(Default)]
struct Said {
    prefix: Option<String>,
    shards: Option<usize>,
    nodes: Vec<(String, u16)>,
    connections: Option<usize>,
    timeout: Option<Duration>,
    replicas: Option<usize>,
    synced: bool,
    wait_timeout: Option<Duration>,
    quiet: bool,
    root_certificates: Option<PathBuf>,
}

impl Options {
    /// Reads `redis://user:password@host:port/database?key=value&…`, or `rediss://` for TLS, with the keys `prefix`,
    /// `shards`, `nodes`, `connections`, `timeout_ms`, `wait_replicas`, `wait_aof`, `wait_timeout_ms`, `notify` and
    /// `ca_file`.
    ///
    /// # Errors
    /// A key is unknown, or its value cannot be.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let said = query.split('&').filter(|pair| !pair.is_empty()).try_fold(Said::default(), read)?;
        if base.contains('#') {
            return Err(InvalidUrl::new("a fragment has no place here"));
        }
        let server = base.into_connection_info().map_err(|_| InvalidUrl::new("it is no URL of Redis"))?;
        let redis = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = server.tcp_settings().clone().set_nodelay(true);
        let wait = match (said.replicas, said.synced) {
            (None, false) => None,
            (replicas, synced) => Some(Wait {
                replicas: replicas.unwrap_or(0),
                synced,
                timeout: said.wait_timeout.unwrap_or(limits::REDIS_WAIT_TIMEOUT),
            }),
        };
        let timeout = said.timeout.unwrap_or(limits::REDIS_TIMEOUT);
        if wait.is_some_and(|wait| wait.timeout >= timeout) {
            return Err(InvalidUrl::new("`wait_timeout_ms` must be below `timeout_ms`"));
        }
        Ok(Self {
            server: server.set_redis_settings(redis).set_tcp_settings(tcp),
            seeds: said.nodes,
            root_certificates: said.root_certificates,
            prefix: said.prefix.unwrap_or_else(|| "semel".to_owned()),
            shards: said.shards,
            connections: said.connections,
            timeout,
            wait,
            notify: !said.quiet,
            poll: None,
            clock: Arc::new(SystemClock::start()),
            stepped: false,
        })
    }

    /// Looks for what other nodes did so often where no notification comes.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = Some(every);
        self
    }

    /// Counts the time between two answers of the server by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The server's clock is what a test wrote into each shard.
    #[cfg(test)]
    pub(super) fn stepped(mut self) -> Self {
        self.stepped = true;
        self
    }

    /// Whether what is sent can be read on the way to another machine.
    pub(super) fn is_open_to_the_network(&self) -> bool {
        match self.server.addr() {
            ConnectionAddr::Tcp(host, _) => !is_here(host),
            _ => false,
        }
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read(mut said: Said, pair: &str) -> Result<Said, InvalidUrl> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let value = percent_decode_str(value).decode_utf8_lossy();
    let wrong = |expected: &str| InvalidUrl::new(format!("`{key}` must be {expected}"));
    let number = |from: usize, to: usize| {
        let number = value.parse().ok().filter(|number| (from..=to).contains(number));
        number.ok_or_else(|| wrong(&format!("a number from {from} to {to}")))
    };
    let flag = || value.parse().map_err(|_| wrong("`true` or `false`"));
    let length = || {
        let longest = usize::try_from(semel_core::limits::WRITE_WITHIN.as_millis()).unwrap_or(usize::MAX);
        number(1, longest - 1).map(|ms| Duration::from_millis(ms as u64))
    };
    match key {
        "prefix" => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
            if value.is_empty() || value.len() > 64 || !value.bytes().all(plain) {
                return Err(wrong("letters, digits and `_-.:`, at most 64"));
            }
            said.prefix = Some(value.into_owned());
        }
        "shards" => said.shards = Some(number(1, limits::REDIS_SHARDS_MAX)?),
        "nodes" => {
            let node = |node: &str| {
                let (host, port) = node.rsplit_once(':')?;
                Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
            };
            let nodes: Option<_> = value.split(',').map(node).collect();
            said.nodes = nodes.ok_or_else(|| wrong("`host:port`, and more of them after commas"))?;
        }
        "connections" => said.connections = Some(number(1, limits::REDIS_CONNECTIONS_MAX)?),
        "timeout_ms" => said.timeout = Some(length()?),
        "wait_replicas" => said.replicas = Some(number(1, 100)?),
        "wait_aof" => said.synced = flag()?,
        "wait_timeout_ms" => said.wait_timeout = Some(length()?),
        "notify" => said.quiet = !flag()?,
        "ca_file" => said.root_certificates = Some(value.into_owned().into()),
        _ => return Err(InvalidUrl::new(format!("`{key}` is not known"))),
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let url = "rediss://semel:pa%3Fss@cache.internal:6380/2?prefix=jobs&shards=16&connections=3&wait_replicas=2\
                   &wait_timeout_ms=300&nodes=b:1,[::1]:2&notify=false";
        let options = Options::parse(url).unwrap();
        assert_eq!(
            (options.prefix.as_str(), options.shards, options.connections),
            ("jobs", Some(16), Some(3))
        );
        assert_eq!(options.seeds, [("b".to_owned(), 1), ("::1".to_owned(), 2)]);
        let wait = Wait { replicas: 2, synced: false, timeout: Duration::from_millis(300) };
        assert_eq!((options.wait, options.notify), (Some(wait), false));
        let redis = options.server.redis_settings();
        assert_eq!((redis.username(), redis.password(), redis.db()), (Some("semel"), Some("pa?ss"), 2));
        assert!(matches!(options.server.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        let plain = Options::parse("redis://cache.internal/").unwrap();
        assert!(plain.is_open_to_the_network() && !options.is_open_to_the_network());
        assert!(!Options::parse("redis://127.0.0.1/").unwrap().is_open_to_the_network());
        assert_eq!((plain.prefix.as_str(), plain.wait, plain.notify), ("semel", None, true));
    }

    #[test]
    fn what_cannot_be_is_said_without_the_password() {
        for (rest, said) in [
            ("?prefix={a}", "`prefix` must be"),
            ("?shards=0", "`shards` must be"),
            ("?nodes=a", "`nodes` must be"),
            ("?wait_aof=yes", "`wait_aof` must be"),
            ("?timeout_ms=10000", "`timeout_ms` must be"),
            ("?wait_replicas=1&wait_timeout_ms=6000", "below `timeout_ms`"),
            ("?colour=red", "`colour`"),
            ("/#insecure", "fragment"),
        ] {
            let error = Options::parse(&format!("rediss://semel:hunter2@db{rest}")).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(Options::parse("http://db/").is_err());
    }

    #[test]
    fn debug_output_holds_no_password() {
        let options = Options::parse("redis://semel:hunter2@db/").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
