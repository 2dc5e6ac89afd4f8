//! What a URL says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mongodb::options::{ClientOptions, ServerAddress, Tls};

use crate::clock::Clock;
use crate::limits;
use crate::remote::open::InvalidUrl;

/// Where the cluster is, and how it is used.
#[derive(Clone)]
pub struct Options {
    /// For the driver.
    url: String,
    pub(super) collection: String,
    pub(super) poll: Duration,
    /// How long what is superseded or removed is kept.
    pub(super) keep: Duration,
    /// How long the server lets one command run.
    pub(super) command_timeout: Duration,
    pub(super) stepped: Option<Arc<dyn Clock>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("collection", &self.collection).finish_non_exhaustive()
    }
}

impl Options {
    /// Reads `mongodb://user:password@host:port,…/database?key=value&…` or `mongodb+srv://…`: the driver's keys
    /// (`replicaSet`, `authSource`, `tlsCAFile`, `maxPoolSize`, …), and of our own `collection`, whose default is
    /// `idempotency_keys`. The database's default is `semel`.
    ///
    /// # Errors
    /// It is no URL of MongoDB, or a value of ours cannot be. What the driver makes of its keys is known when it is opened.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        if !url.starts_with("mongodb://") && !url.starts_with("mongodb+srv://") {
            return Err(InvalidUrl::new("it is no URL of MongoDB"));
        }
        let mut collection = limits::MONGODB_COLLECTION.to_owned();
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "collection" => collection = checked(value)?,
                "tlsInsecure" | "tlsAllowInvalidCertificates" | "tlsAllowInvalidHostnames"
                    if value == "true" =>
                {
                    return Err(InvalidUrl::new(format!(
                        "`{key}` would trust anybody; name the authority by `tlsCAFile`"
                    )));
                }
                _ => rest.push(pair),
            }
        }
        let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        Ok(Self { url, collection, ..Self::of_database() })
    }

    /// For a database that the caller has connected to, see [`MongoStore::over`](super::MongoStore::over).
    pub fn of_database() -> Self {
        let (collection, poll) = (limits::MONGODB_COLLECTION.to_owned(), limits::MONGODB_POLL);
        Self {
            url: String::new(),
            collection,
            poll,
            keep: limits::MONGODB_KEEP,
            command_timeout: limits::MONGODB_COMMAND_TIMEOUT,
            stepped: None,
        }
    }

    /// Keeps records in this collection; what belongs to it is beside it, in collections that begin with the same name.
    ///
    /// # Errors
    /// The name is not one of letters, digits and `_`.
    pub fn try_collection(mut self, name: &str) -> Result<Self, InvalidUrl> {
        self.collection = checked(name)?;
        Ok(self)
    }

    /// Looks so often for what other nodes did.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every;
        self
    }

    /// Takes this clock for the server's.
    #[cfg(test)]
    pub(super) fn stepped(mut self, clock: Arc<dyn Clock>) -> Self {
        self.stepped = Some(clock);
        self
    }

    /// Lets a command run so long.
    #[cfg(test)]
    pub(super) fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Keeps what is superseded or removed only so long.
    #[cfg(test)]
    pub(super) fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// What the driver makes of it.
    pub(super) async fn client(&self) -> Result<ClientOptions, mongodb::error::Error> {
        let mut client = ClientOptions::parse(&self.url).await?;
        client.app_name.get_or_insert_with(|| "semel".to_owned());
        client.connect_timeout.get_or_insert(limits::MONGODB_CONNECT_TIMEOUT);
        client.server_selection_timeout.get_or_insert(limits::MONGODB_CONNECT_TIMEOUT);
        client.max_pool_size.get_or_insert(limits::MONGODB_POOL);
        client.default_database.get_or_insert_with(|| "semel".to_owned());
        // Encrypted and verified over a network, unless somebody says otherwise.
        if client.tls.is_none() && !client.hosts.iter().all(is_local) {
            client.tls = Some(Tls::Enabled(mongodb::options::TlsOptions::default()));
        }
        Ok(client)
    }
}

fn is_local(host: &ServerAddress) -> bool {
    match host {
        ServerAddress::Tcp { host, .. } => {
            matches!(host.as_str(), "localhost" | "::1" | "[::1]") || host.starts_with("127.")
        }
        _ => true,
    }
}

fn checked(name: &str) -> Result<String, InvalidUrl> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain || name.is_empty() || name.len() > limits::MONGODB_COLLECTION_CHARS_MAX {
        return Err(InvalidUrl::new("`collection` must be letters, digits and `_`, at most 80"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_says_where_and_how() {
        let url = "mongodb://wms:pa%3Fss@db.internal:27017/wms?collection=keys&maxPoolSize=7";
        let options = Options::parse(url).unwrap();
        assert_eq!(options.collection, "keys");
        let client = options.client().await.unwrap();
        assert_eq!((client.max_pool_size, client.default_database.as_deref()), (Some(7), Some("wms")));
        assert!(matches!(client.tls, Some(Tls::Enabled(_))), "over a network, encrypted");
        let local = Options::parse("mongodb://127.0.0.1/").unwrap();
        assert_eq!(local.collection, "idempotency_keys");
        let client = local.client().await.unwrap();
        assert_eq!(client.default_database.as_deref(), Some("semel"));
        assert!(client.tls.is_none());
    }

    #[test]
    fn what_cannot_be_is_said_without_the_password() {
        for (url, said) in [
            ("postgres://semel:hunter2@db/x", "no URL of MongoDB"),
            ("mongodb://semel:hunter2@db/x?collection=a$b", "`collection` must be"),
            ("mongodb://semel:hunter2@db/x?tlsInsecure=true", "`tlsInsecure` would trust"),
        ] {
            let error = Options::parse(url).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hunter2"), "{error}");
        }
        let options = Options::parse("mongodb://semel:hunter2@db/x").unwrap();
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
