//! The URL of a store: it may hold a password, and shows none.

use std::fmt;
use std::sync::Arc;

/// What a masked part looks like.
const HIDDEN: &str = "***";
/// Schemes whose URLs name a server, as `scheme://user:password@host/…?key=value`.
const REMOTE: [&str; 6] = ["postgres", "postgresql", "redis", "rediss", "mongodb", "mongodb+srv"];
/// Keys of a query string whose values are fit to be shown. What is not among them may be a secret.
const SHOWN: [&str; 30] = [
    "application_name",
    "authMechanism",
    "authSource",
    "ca_file",
    "connect_timeout",
    "connections",
    "database",
    "namespace",
    "nodes",
    "notify",
    "pgbouncer",
    "pool",
    "prefix",
    "protocol",
    "readConcernLevel",
    "readPreference",
    "replicaSet",
    "schema",
    "shards",
    "sslmode",
    "sslrootcert",
    "statement_timeout_ms",
    "target_session_attrs",
    "timeout_ms",
    "tls",
    "w",
    "wait",
    "wait_aof",
    "wait_replicas",
    "wait_timeout_ms",
];
/// Parts of the names of keys that are secrets for certain.
const SECRET: [&str; 4] = ["pass", "secret", "token", "properties"];

/// Where records are kept. Displayed, and in debug output, without its password: only [`expose`](Self::expose) shows that,
/// so that every place that does can be found.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Arc<str>);

impl StoreUrl {
    /// Takes the text, whatever it is.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The whole text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What stands before the first `:`; empty where there is none.
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// What stands behind the first `:`.
    pub fn rest(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, rest)| rest)
    }

    /// Whether it holds a password, as far as can be told.
    pub fn has_password(&self) -> bool {
        let rest = self.rest();
        let of_a_user = rest.rsplit_once('@').is_some_and(|(credentials, _)| credentials.contains(':'));
        let query = rest.split_once('?').map_or("", |(_, query)| query).to_ascii_lowercase();
        let mut keys = query.split('&').filter_map(|pair| pair.split('=').next());
        let of_a_key = keys.any(|key| SECRET.iter().any(|word| key.contains(word)));
        REMOTE.contains(&self.scheme()) && (of_a_user || of_a_key)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme() {
            // Nobody says to which part of an unknown text a password belongs.
            "" => f.write_str(HIDDEN),
            "embedded" | "memory" => f.write_str(&self.0),
            scheme if REMOTE.contains(&scheme) => write!(f, "{scheme}:{}", masked(self.rest())),
            scheme => write!(f, "{scheme}:{HIDDEN}"),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// `//user:password@host/…?key=value` without the password, and without the values of keys that may be secrets. An `@`
/// that should have been escaped belongs to the password: the last one counts.
fn masked(rest: &str) -> String {
    let (before, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => {
            let credentials = credentials.trim_start_matches('/');
            if credentials.contains(['/', '?']) {
                // Either the password should have been escaped, or the `@` stands behind the host: no part of this is
                // known for what it is.
                return format!("//{HIDDEN}");
            }
            let (user, password) = match credentials.split_once(':') {
                Some((user, _)) => (user, format!(":{HIDDEN}")),
                None => (credentials, String::new()),
            };
            (format!("//{user}{password}@"), place)
        }
        None => (String::new(), rest),
    };
    let Some((place, query)) = place.split_once('?') else { return format!("{before}{place}") };
    let pairs: Vec<String> = query.split('&').map(masked_pair).collect();
    format!("{before}{place}?{}", pairs.join("&"))
}

fn masked_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if !SHOWN.contains(&key) => format!("{key}={HIDDEN}"),
        Some(_) => pair.to_owned(),
        None if pair.is_empty() => String::new(),
        None => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (url, shown) in [
            ("embedded:./a b@c:d", "embedded:./a b@c:d"),
            ("memory:", "memory:"),
            ("postgres://semel:hunter2@db:5432/x", "postgres://semel:***@db:5432/x"),
            ("postgresql://semel@db/x?schema=jobs&pool=7", "postgresql://semel@db/x?schema=jobs&pool=7"),
            (
                "postgres://semel@db/x?password=hunter2&schema=a",
                "postgres://semel@db/x?password=***&schema=a",
            ),
            ("postgres://db/x?options=-c%20a%3Dhunter2", "postgres://db/x?options=***"),
            ("postgres://db/x?hunter2", "postgres://db/x?***"),
            ("postgres://semel:h@unter2:@db/x", "postgres://semel:***@db/x"),
            ("postgres://semel:hun/ter2?@db/x", "postgres://***"),
            ("postgres://db/x?password=a@hunter2", "postgres://***"),
            ("postgres://db:1/x?password=hunt@er2", "postgres://***"),
            ("postgres:semel:hunter2@db", "postgres://semel:***@db"),
            ("redis://:hunter2@cache/0", "redis://:***@cache/0"),
            ("rediss://default:hunter2@cache", "rediss://default:***@cache"),
            ("mongodb://a:hunter2@m1,m2:27017/x?replicaSet=r", "mongodb://a:***@m1,m2:27017/x?replicaSet=r"),
            (
                "mongodb+srv://a:hunter2@m/?authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
                "mongodb+srv://a:***@m/?authMechanismProperties=***",
            ),
            ("mysql://a:hunter2@m/x", "mysql:***"),
            ("hunter2", "***"),
            ("", "***"),
        ] {
            let url = StoreUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("StoreUrl({shown})"));
        }
    }

    #[test]
    fn a_password_is_told_from_what_is_only_not_shown() {
        for (url, has_password) in [
            ("postgres://semel:hunter2@db/x", true),
            ("postgres://db/x?password=hunter2", true),
            ("mongodb://m/?authMechanismProperties=AWS_SESSION_TOKEN:x", true),
            ("redis://:hunter2@cache", true),
            ("postgres://semel@db:5432/x?keepalives_idle=30&options=-c%20a%3Db", false),
            ("embedded:./a:b@c", false),
            ("foo", false),
            ("mysql://a:b@c", false),
        ] {
            assert_eq!(StoreUrl::new(url).has_password(), has_password, "{url}");
        }
    }
}
