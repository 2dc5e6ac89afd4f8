//! The real server on MongoDB's protocol, by its URL alone.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::server::Server;
use crate::target::Target;

/// Where `cargo xtask services up` says that FerretDB listens.
const VARIABLE: &str = "SEMEL_TEST_MONGODB";

/// How many collections this process has named.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A collection that no other test has; `None`, with a word, by hand and without the service.
fn fresh() -> Option<String> {
    let Ok(service) = std::env::var(VARIABLE) else {
        assert!(std::env::var_os("CI").is_none(), "{VARIABLE} is not set; `cargo xtask test` sets it");
        println!("skipped: {VARIABLE} is not set; `eval \"$(cargo xtask services env)\"` sets it");
        return None;
    };
    let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    Some(format!("{service}semel_e2e?collection=e2e_{process}_{number}"))
}

#[tokio::test]
async fn a_url_alone_is_enough_and_two_servers_share_what_it_names() {
    let Some(url) = fresh() else { return };
    let target = Target::start().await;
    let config = target.operation("charge", "/json", "");
    // At once, so that both create the indexes.
    let (one, two) = tokio::join!(Server::start_on(&url, &config), Server::start_on(&url, &config));
    let first = one.execute("charge", "order-1", "{}", &[]).await;
    let again = two.execute("charge", "order-1", "{}", &[]).await;
    assert_eq!((first.status, again.status), (200, 200), "{}", again.text());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.without_the_exchange(), again.without_the_exchange(), "L10, whoever answers");
    assert_eq!(target.seen().len(), 1);
    let mismatch = one.execute("charge", "order-1", r#"{"amount":2}"#, &[]).await;
    assert_eq!(mismatch.status, 422, "{}", mismatch.text());
    let ready = one.get("/readyz", &[]).await;
    assert_eq!(
        (ready.status, ready.json()["store"].as_str().unwrap().to_owned()),
        (200, "mongodb".to_owned())
    );
    let admin = two.admin_url();
    let records = two.http().get(&format!("{admin}/v1/records?key=order-1"), &[]).await.unwrap();
    assert_eq!(records.status, 200, "{}", records.text());
    let page = records.json();
    assert!(page.to_string().contains("\"completed\""), "{page}");
}
