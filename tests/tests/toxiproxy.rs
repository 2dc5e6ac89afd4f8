//! A network that fails as it is told to: Toxiproxy, between a server and its store.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::http::Http;

/// Where `cargo xtask services up` says that Toxiproxy listens.
const VARIABLE: &str = "SEMEL_TEST_TOXIPROXY";

/// How many proxies this process has named.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the server to the store.
    Up,
    /// From the store to the server.
    Down,
}

/// A way through, which can be spoilt. It is closed when it is dropped.
pub(crate) struct Proxy {
    api: String,
    name: String,
    address: String,
    http: Http,
}

impl Proxy {
    /// A way to this address. It is there whenever a shared store is: both are services of the tests.
    pub(crate) async fn to(upstream: &str) -> Self {
        let api = std::env::var(VARIABLE).unwrap_or_else(|_| panic!("{VARIABLE} is not set"));
        let name = format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut proxy = Self { api, name, address: String::new(), http: Http::new() };
        let asked = json!({ "name": proxy.name, "listen": "127.0.0.1:0", "upstream": upstream });
        let made = proxy.tell("POST", "/proxies", &asked).await;
        made["listen"].as_str().unwrap().clone_into(&mut proxy.address);
        proxy
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Spoils what goes this way.
    pub(crate) async fn spoil(&self, way: Way, toxic: &str, attributes: Value) {
        let stream = if way == Way::Up { "upstream" } else { "downstream" };
        let name = format!("{toxic}-{stream}");
        let asked = json!({ "name": name, "type": toxic, "stream": stream, "attributes": attributes });
        self.tell("POST", &format!("/proxies/{}/toxics", self.name), &asked).await;
    }

    /// Ends all connections, and lets none in.
    pub(crate) async fn cut(&self) {
        self.tell("POST", &format!("/proxies/{}", self.name), &json!({ "enabled": false })).await;
    }

    /// All is well again.
    pub(crate) async fn heal(&self) {
        let proxy = self.tell("POST", &format!("/proxies/{}", self.name), &json!({ "enabled": true })).await;
        for toxic in proxy["toxics"].as_array().into_iter().flatten() {
            let toxic = toxic["name"].as_str().unwrap();
            self.tell("DELETE", &format!("/proxies/{}/toxics/{toxic}", self.name), &Value::Null).await;
        }
    }

    async fn tell(&self, method: &str, path: &str, body: &Value) -> Value {
        let (url, json) = (format!("{}{path}", self.api), [("content-type", "application/json")]);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.http.send(method, &url, &json, body).await.unwrap();
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The test's runtime may be ending, and a proxy that stays is in nobody's way.
        let host = self.api.trim_start_matches("http://");
        let Ok(mut stream) = TcpStream::connect(host) else { return };
        let asked =
            format!("DELETE /proxies/{} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n", self.name);
        drop(stream.write_all(asked.as_bytes()).and_then(|()| stream.read_to_end(&mut Vec::new())));
    }
}
