//! Who may come: tokens, tenants, TLS.

use std::path::Path;
use std::sync::Arc;

use axum::http::Request;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::{Server, command};

#[tokio::test]
async fn without_a_tenants_token_nobody_is_let_in_and_the_answer_does_not_tell_why() {
    let config = "[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"ta\", \"ta2\"]\n\
                  [[tenants]]\nname = \"b\"\ntokens = [\"tb\"]\n";
    let server = Server::start(config).await;
    let mut refusals = Vec::new();
    for headers in [&[][..], &[("authorization", "Bearer x")], &[("authorization", "Basic ta")]] {
        let refused = server.execute("echo", "one", "{}", headers).await;
        assert_eq!(refused.refusal(), (401, "UNAUTHENTICATED".to_owned()));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        refusals.push(refused.json()["error"]["message"].clone());
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1);
    let get = server.get("/v1/idempotency/executions/one", &[]).await;
    assert_eq!(get.status, 401);
    assert!(!server.log().contains("Bearer") && !server.log().contains("ta2"), "no token is logged");
}

#[tokio::test]
async fn another_tenants_reply_is_never_given_out() {
    let config = "[server]\ndevelopment = true\n[[tenants]]\nname = \"a\"\ntokens = [\"ta\", \"ta2\"]\n\
                  [[tenants]]\nname = \"b\"\ntokens = [\"tb\"]\n";
    let server = Server::start(config).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        server.execute("count", "order-1", r#"{"name":"x"}"#, &[("authorization", &bearer)]).await
    };
    let first = ask("ta").await;
    let b = ask("tb").await;
    assert_ne!(first.body, b.body, "the same key of another tenant is another key");
    assert_eq!(b.header("idempotent-replayed"), None);
    let rotated = ask("ta2").await;
    assert_eq!((rotated.header("idempotent-replayed"), &rotated.body), (Some("true"), &first.body));
    let other = server.execute("echo", "only-a", "{}", &[("authorization", "Bearer ta")]).await;
    assert_eq!(other.status, 200);
    let url = "/v1/idempotency/executions/only-a";
    assert_eq!(server.get(url, &[("authorization", "Bearer tb")]).await.status, 404);
}

#[tokio::test]
async fn an_address_that_others_can_reach_needs_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(&["serve", "--listen", "0.0.0.0:0", "--store", "memory:"], folder.path());
    let mut output = output;
    let output = output.env("SEMEL__SERVER__DEVELOPMENT", "false").output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("flag --listen: server.listen: 0.0.0.0:0 is not loopback"), "{said}");
}

/// An authority, and the files of a server and a client that it has certified.
struct Certified {
    authority: CertificateDer<'static>,
    client: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

fn certify(folder: &Path) -> Certified {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let server = params.signed_by(&key, &authority).unwrap();
    std::fs::write(folder.join("server.crt"), server.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let client = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Certified { authority: authority.der().clone(), client: (client.der().clone(), key) }
}

/// One request over TLS, with or without a certificate of the client's.
async fn over_tls(server: &Server, certified: &Certified, with_certificate: bool) -> Result<u16, String> {
    let mut roots = RootCertStore::empty();
    roots.add(certified.authority.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = if with_certificate {
        let (certificate, key) = &certified.client;
        config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
    } else {
        config.with_no_client_auth()
    };
    let url = server.url();
    let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let request =
        Request::builder().method("POST").uri("/v1/idempotency/execute").header("host", "localhost");
    let request = request.header("content-type", "application/json").header("idempotency-key", "one");
    let body = Full::new(Bytes::from_static(br#"{"operation":"echo","payload":{}}"#));
    let answer = sender.send_request(request.body(body).unwrap()).await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    answer.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok(status)
}

#[tokio::test]
async fn it_serves_over_tls_and_plain_http_is_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let certified = certify(folder.path());
    let config =
        "[server]\ndevelopment = true\ntls = { certificate = \"server.crt\", key = \"server.key\" }\n";
    let server = Server::start_in(folder.path(), config).await;
    assert_eq!(over_tls(&server, &certified, false).await, Ok(200));
    let plain = server.url().replace("https", "http");
    assert!(server.http().get(&format!("{plain}/healthz"), &[]).await.is_err());
}

/// A certificate that signs itself and calls itself an authority, as `openssl req -x509` makes it.
fn self_signed(folder: &Path, file: &str, name: &str, years: (i32, i32)) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join(format!("{file}.crt")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn the_command_line_trusts_a_self_signed_certificate_that_it_is_given_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    self_signed(folder.path(), "own", "localhost", (2000, 2999));
    self_signed(folder.path(), "expired", "localhost", (2000, 2001));
    self_signed(folder.path(), "elsewhere", "elsewhere.example", (2000, 2999));
    for (shown, trusted, expected) in [
        ("own", "own", None),
        ("own", "elsewhere", Some("TLS with")),
        ("expired", "expired", Some("expired")),
        ("elsewhere", "elsewhere", Some("not valid for")),
    ] {
        let config = format!(
            "[server]\ndevelopment = true\ntls = {{ certificate = \"{shown}.crt\", key = \"{shown}.key\" }}\n"
        );
        let server = Server::start_in(folder.path(), &config).await;
        let url = server.url().replace("127.0.0.1", "localhost");
        let trusted = format!("{trusted}.crt");
        let arguments =
            ["execute", "echo", "--key", "one", "--payload", "{}", "--url", &url, "--ca", &trusted];
        let output = command(&arguments, folder.path()).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        match expected {
            None => assert_eq!((output.status.code(), said.as_str()), (Some(0), "")),
            Some(why) => assert!(output.status.code() == Some(1) && said.contains(why), "{shown}: {said}"),
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn with_an_authority_for_clients_only_those_with_a_certificate_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let certified = certify(folder.path());
    let config = "[server]\ndevelopment = true\n\
                  tls = { certificate = \"server.crt\", key = \"server.key\", client_ca = \"ca.crt\" }\n";
    let server = Server::start_in(folder.path(), config).await;
    assert_eq!(over_tls(&server, &certified, true).await, Ok(200));
    assert!(over_tls(&server, &certified, false).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    std::fs::write(folder.path().join("empty"), "").unwrap();
    for (certificate, key) in [("server.crt", "empty"), ("empty", "server.key"), ("missing", "server.key")] {
        let config = format!("[server]\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n");
        std::fs::write(folder.path().join("semel.toml"), config).unwrap();
        let output = command(&["config", "check"], folder.path()).output().await.unwrap();
        assert_eq!(output.status.code(), Some(3));
        let said = String::from_utf8(output.stderr).unwrap();
        let wrong = if key == "empty" { "empty" } else { certificate };
        assert!(said.contains("TLS: ") && said.contains(wrong), "{said}");
    }
}

#[tokio::test]
async fn where_a_webhook_comes_from_is_what_a_trusted_proxy_says_in_either_header_and_nobody_else() {
    let source = |proxies: &str| {
        format!(
            "[server]\ndevelopment = true\ntrusted_proxies = [{proxies}]\n[[webhooks]]\nsource = \"shop\"\nprovider = \"none\"\n\
             insecure = true\nidentity = [\"/id\"]\naddresses = [\"198.51.100.0/24\"]\ntarget = \"builtin:echo\"\n"
        )
    };
    let trusting = Server::start(&source("\"127.0.0.1\"")).await;
    let wary = Server::start(&source("")).await;
    for (headers, status) in [
        (&[("forwarded", "for=\"198.51.100.7:4711\";proto=https")][..], 200),
        (&[("x-forwarded-for", "198.51.100.7")], 200),
        (&[("x-forwarded-for", "198.51.100.7"), ("forwarded", "for=198.51.100.7")], 200),
        (&[], 401),
        (&[("forwarded", "for=198.51.100.7, for=203.0.113.9")], 401),
        (&[("forwarded", "for=198.51.100.7, for=\"")], 401),
        (&[("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=198.51.100.7")], 401),
    ] {
        for (server, expected) in [(&trusting, status), (&wary, 401)] {
            let url = format!("{}/v1/webhooks/shop", server.url());
            let answer = server.http().post(&url, headers, r#"{"id":"e-1"}"#).await.unwrap();
            assert_eq!(answer.status, expected, "{headers:?}: {}", answer.text());
        }
    }
}
