//! The gateway between protocols: HTTP/1.1 and HTTP/2 on either side, with and without TLS.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::Server;
use crate::upstream::Upstream;

/// A certificate for `localhost` and 127.0.0.1, in files.
fn certificate(folder: &Path) {
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("own.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(folder.join("own.key"), key.serialize_pem()).unwrap();
}

/// One request over a stream, in this version: the answer's status, version and JSON.
async fn ask<S>(stream: S, version: Version, path: &str) -> (u16, Version, Value)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::builder().method("POST").header("te", "trailers");
    let body = Full::new(Bytes::from_static(b"body"));
    let response = if version == Version::HTTP_2 {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.unwrap();
        tokio::spawn(driver);
        let request = request.uri(format!("https://shop.example{path}")).body(body).unwrap();
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        let request = request.uri(path).header("host", "shop.example").body(body).unwrap();
        sender.send_request(request).await.unwrap()
    };
    let (status, version) = (response.status().as_u16(), response.version());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, version, serde_json::from_slice(&bytes).unwrap())
}

/// A TLS connection to the gateway that offers one protocol.
async fn tls(folder: &Path, server: &Server, protocol: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("own.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(server.gateway_url().replace("https://", "")).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

fn header<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = seen["headers"].as_array().unwrap();
    let named = headers.iter().filter(|header| header[0] == name);
    named.map(|header| header[1].as_str().unwrap()).collect()
}

#[tokio::test]
async fn clients_over_tls_choose_their_protocol_and_upstreams_are_told() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let upstream = Upstream::start().await;
    let own = "protect = false\ntls = { certificate = \"own.crt\", key = \"own.key\" }";
    let server = Server::start_in(folder.path(), &upstream.gateway(own)).await;
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let stream = tls(folder.path(), &server, protocol).await;
        let (status, answered, seen) = ask(stream, version, "/a?b=c").await;
        assert_eq!((status, answered), (201, version));
        assert_eq!(
            (&seen["uri"], &seen["version"], &seen["body"]),
            (&"/a?b=c".into(), &"HTTP/1.1".into(), &"body".into())
        );
        assert_eq!(
            (header(&seen, "host"), header(&seen, "x-forwarded-proto")),
            (vec!["shop.example"], vec!["https"])
        );
        assert_eq!(header(&seen, "te"), ["trailers"]);
    }
}

#[tokio::test]
async fn upstreams_over_tls_are_spoken_to_as_they_choose() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let (crt, key) = (folder.path().join("own.crt"), folder.path().join("own.key"));
    let trust = format!("[targets]\nca = \"{}\"\n", crt.display());
    for (offered, protocol, spoken) in [
        (&["h2", "http/1.1"][..], "auto", "HTTP/2.0"),
        (&["http/1.1"][..], "auto", "HTTP/1.1"),
        (&["h2", "http/1.1"][..], "http1", "HTTP/1.1"),
        (&["h2"][..], "h2", "HTTP/2.0"),
    ] {
        let upstream = Upstream::with_tls(&crt, &key, offered).await;
        let gateway = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\nprotect = false\n[[gateway.upstreams]]\nname = \"a\"\n\
             url = \"{}\"\nprotocol = \"{protocol}\"\n{trust}",
            upstream.url()
        );
        let server = Server::start(&gateway).await;
        for run in 1..=3 {
            let url = format!("{}/a?b=c", server.gateway_url());
            let answer = server.http().post(&url, &[("host", "shop.example")], "body").await.unwrap();
            assert_eq!(answer.status, 201, "{protocol}");
            let seen = answer.json();
            assert_eq!(
                (&seen["run"], &seen["version"], &seen["body"]),
                (&run.into(), &spoken.into(), &"body".into())
            );
            assert!(seen["uri"].as_str().unwrap().ends_with("/a?b=c"), "{seen}");
            if spoken == "HTTP/2.0" {
                assert_eq!(seen["uri"], "https://shop.example/a?b=c", "the host that the client named");
            } else {
                assert_eq!(header(&seen, "host"), ["shop.example"]);
            }
        }
        assert_eq!(upstream.connections(), 1, "{protocol}: one connection is enough");
    }
}

/// A new authority in `ca.crt`, and a client's certificate of its own in `client.crt` and `client.key`.
fn client_certificate(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    let mut params = CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("client.crt"), params.signed_by(&key, &authority).unwrap().pem()).unwrap();
    std::fs::write(folder.join("client.key"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_is_shown_the_one_that_is_configured_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    certificate(folder.path());
    client_certificate(folder.path());
    let (crt, key) = (in_folder("own.crt"), in_folder("own.key"));
    for offered in [&["h2"][..], &["http/1.1"][..]] {
        let upstream = Upstream::asking_for(Some(&in_folder("ca.crt")), &crt, &key, offered).await;
        let configured = |more: &str| {
            format!(
                "[gateway]\nlisten = \"127.0.0.1:0\"\nshared_keys = true\n[[gateway.upstreams]]\nname = \"a\"\n\
                 url = \"{}\"\n{more}\n[targets]\nca = \"{}\"\n",
                upstream.url(),
                crt.display()
            )
        };
        let nobody = Server::start(&configured("")).await;
        let answer = nobody.http().post(&nobody.gateway_url(), &[("idempotency-key", "k")], "secret").await;
        let status = answer.unwrap().status;
        assert!((502..=503).contains(&status), "{offered:?}: {status}");
        assert_eq!(upstream.seen().len(), 0, "{offered:?}: it has let nobody in");

        let (own, own_key) = (in_folder("client.crt"), in_folder("client.key"));
        let tls = format!("tls = {{ certificate = \"{}\", key = \"{}\" }}", own.display(), own_key.display());
        let server = Server::start(&configured(&tls)).await;
        for _ in 0..2 {
            let answer =
                server.http().post(&server.gateway_url(), &[("idempotency-key", "k")], "secret").await;
            assert_eq!(answer.unwrap().status, 201, "{offered:?}");
        }
        assert_eq!(upstream.seen().len(), 1, "{offered:?}: the second was a replay");
    }
}

#[tokio::test]
async fn an_upstream_whose_certificate_is_not_trusted_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let upstream =
        Upstream::with_tls(&folder.path().join("own.crt"), &folder.path().join("own.key"), &["http/1.1"])
            .await;
    let server = Server::start(&upstream.gateway("protect = false")).await;
    let answer = server.http().post(&server.gateway_url(), &[], "secret").await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("TARGET_UNAVAILABLE")));
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_on_both_sides_by_prior_knowledge() {
    let upstream = Upstream::start().await;
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nprotect = false\n[[gateway.upstreams]]\nname = \"a\"\n\
         url = \"{}\"\nprotocol = \"h2\"\n",
        upstream.url()
    );
    let server = Server::start(&config).await;
    let stream = TcpStream::connect(server.gateway_url().replace("http://", "")).await.unwrap();
    let (status, version, seen) = ask(stream, Version::HTTP_2, "/a").await;
    assert_eq!((status, version, &seen["version"]), (201, Version::HTTP_2, &"HTTP/2.0".into()));
    assert_eq!(header(&seen, "via"), ["2 semel"]);
    // Many at once share the connection.
    let many = (0..50).map(|_| {
        let (http, url) = (server.http().clone(), server.gateway_url());
        tokio::spawn(async move { http.post(&url, &[], "body").await.unwrap().status })
    });
    for one in many.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), 201);
    }
    assert_eq!(upstream.connections(), 1);
    // A connection that was cut is replaced, and what was on it is told so.
    upstream.close();
    let url = format!("{}/gated", server.gateway_url());
    let http = server.http().clone();
    let waiting = tokio::spawn(async move { http.post(&url, &[], "body").await.unwrap() });
    upstream.arrived(52).await;
    upstream.cut();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("OUTCOME_UNKNOWN")));
    upstream.open();
    let answer = server.http().post(&server.gateway_url(), &[], "body").await.unwrap();
    assert_eq!((answer.status, upstream.connections()), (201, 2));
}

#[tokio::test]
async fn trailers_go_through_with_and_without_the_contract() {
    let upstream = Upstream::start().await;
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\n[[gateway.upstreams]]\nname = \"a\"\nurl = \"{}\"\nprotocol = \"h2\"\n",
        upstream.url()
    );
    let server = Server::start(&config).await;
    let stream = TcpStream::connect(server.gateway_url().replace("http://", "")).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, driver) = handshake.unwrap();
    tokio::spawn(driver);
    for key in [None, Some("k-1")] {
        let mut request =
            Request::builder().method("POST").uri("http://shop.example/trailers").header("te", "trailers");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = Full::new(Bytes::from_static(b"{}"));
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let whole = response.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], "0", "{key:?}");
    }
}
