//! TLS against a server with a certificate of an authority that only this test knows.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use semel_conformance::fixture::{Ask, Hand};
use semel_core::Store;
use tokio_postgres::Client;

use super::testing::{Schema, client, url};
use super::{OpenError, Options, PostgresStore};

/// An authority, as the PEM that a client trusts, and a certificate that it gave for `localhost`, with its key.
struct Authority {
    pem: String,
    certificate: String,
    key: String,
}

fn authority() -> Authority {
    let own = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&own).unwrap().pem();
    let issuer = Issuer::new(authority, own);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap().pem();
    Authority { pem, certificate, key: key.serialize_pem() }
}

/// Has the server write a file into its own folder, which nobody else may read.
async fn write(server: &Client, name: &str, text: &str) {
    let lines = format!("SELECT unnest(string_to_array('{}', E'\\n'))", text.trim());
    let copy = format!("COPY ({lines}) TO PROGRAM 'umask 077; cat > {name}'");
    server.batch_execute(&copy).await.unwrap();
}

/// Gives the server a certificate, and waits until it uses it.
async fn certify(url: &str, with: &Authority) {
    let server = client(url).await;
    write(&server, "semel_test_certificate.pem", &with.certificate).await;
    write(&server, "semel_test_key.pem", &with.key).await;
    for setting in
        ["ssl_cert_file = 'semel_test_certificate.pem'", "ssl_key_file = 'semel_test_key.pem'", "ssl = on"]
    {
        server.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    server.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    loop {
        let newcomer = client(url).await;
        if newcomer.query_one("SHOW ssl", &[]).await.unwrap().get::<_, &str>(0) == "on" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_by_its_certificate_and_name_or_not_at_all() {
    let Some(url) = url() else { return };
    let (ours, another) = (authority(), authority());
    certify(&url, &ours).await;
    let schema = Schema::migrated(url.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let open = async |host: &str, mode: &str, roots: &Authority| -> Result<PostgresStore, OpenError> {
        let file = folder.path().join("roots.pem");
        std::fs::write(&file, &roots.pem).unwrap();
        let server = url.replace("127.0.0.1", host);
        let options =
            format!("{server}?schema={}&sslmode={mode}&sslrootcert={}", schema.name, file.display());
        PostgresStore::open(&Options::parse(&options).unwrap()).await
    };
    for mode in ["require", "verify-full"] {
        let store = Arc::new(open("localhost", mode, &ours).await.unwrap());
        let hand = Hand::on(Arc::clone(&store) as Arc<dyn Store>);
        hand.claim(&Ask::key(mode)).await;
        let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE ssl AND query LIKE '%SCHEMA.%'";
        assert!(schema.number(encrypted).await > 0, "{mode}: the store's connections are encrypted");
        let wrong = open("localhost", mode, &another).await.unwrap_err().to_string();
        assert!(wrong.contains("certificate"), "{mode}, an authority that nobody trusts: {wrong}");
        let wrong = open("127.0.0.1", mode, &ours).await.unwrap_err().to_string();
        assert!(wrong.contains("certificate"), "{mode}, a name that it does not have: {wrong}");
    }
}
