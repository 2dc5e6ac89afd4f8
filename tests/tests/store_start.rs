//! A server that starts when its store is not there: it waits, says so, serves as soon as it can, and ends when it has waited
//! long enough, or when nobody could wait that long.

use rustix::process::Signal;
use tokio::process::Command;

use crate::server::{Starting, command};
use crate::shared_store::{Kind, on_every_store};
use crate::target::Target;
use crate::toxiproxy::Proxy;

/// What each try that fails is told by.
const NOT_YET: &str = "the store cannot be opened yet";

on_every_store! {
    a_server_that_starts_before_its_store_waits_for_it_and_then_serves,
    one_whose_store_does_not_come_ends_with_code_1_after_the_configured_time,
    one_that_waits_for_its_store_stops_when_it_is_told_to,
}

fn serves(url: &str, folder: &std::path::Path, config: &str) -> Command {
    std::fs::write(folder.join("semel.toml"), config).unwrap();
    let mut serve = command(&["serve"], folder);
    serve.env("SEMEL__STORE__URL", url).env("SEMEL__STORE__ACCEPT_CLAIM_LOSS", "true");
    serve
}

async fn a_server_that_starts_before_its_store_waits_for_it_and_then_serves(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let (proxy, target) = (Proxy::to(&store.address()).await, Target::start().await);
    proxy.cut().await;
    let folder = tempfile::tempdir().unwrap();
    let config = target.operation("charge", "/json", "");
    let starting = Starting::of(serves(&store.url_at(proxy.address()), folder.path(), &config));
    starting.logged(NOT_YET).await;
    proxy.heal().await;
    let server = starting.running().await.unwrap_or_else(|log| panic!("it has ended:\n{log}"));
    assert_eq!(server.get("/readyz", &[]).await.status, 200);
    assert_eq!(server.execute("charge", "one", "{}", &[]).await.status, 200);
    assert!(server.stop().await.success());
}

async fn one_whose_store_does_not_come_ends_with_code_1_after_the_configured_time(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let proxy = Proxy::to(&store.address()).await;
    proxy.cut().await;
    let folder = tempfile::tempdir().unwrap();
    let url = store.url_at(proxy.address());
    for (timeout, waits) in [("5s", true), ("0s", false)] {
        let mut serve = serves(&url, folder.path(), "[server]\ndevelopment = true\n");
        serve.env("SEMEL__STORE__START_TIMEOUT", timeout);
        let (status, log) = Starting::of(serve).ended().await;
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("semel: the store: ") && log.contains(proxy.address()), "{log}");
        assert_eq!(log.contains(NOT_YET), waits, "{timeout}: {log}");
    }
}

async fn one_that_waits_for_its_store_stops_when_it_is_told_to(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let proxy = Proxy::to(&store.address()).await;
    proxy.cut().await;
    let folder = tempfile::tempdir().unwrap();
    let mut serve = serves(&store.url_at(proxy.address()), folder.path(), "[server]\ndevelopment = true\n");
    serve.env("SEMEL__STORE__START_TIMEOUT", "1h");
    let starting = Starting::of(serve);
    starting.logged(NOT_YET).await;
    starting.signal(Signal::TERM);
    let (status, log) = starting.ended().await;
    assert!(status.success() && log.contains("stopped before it served"), "{status}: {log}");
}

#[tokio::test]
async fn what_only_an_operator_can_mend_is_not_waited_for() {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = store.url().replace("/postgres?", "/nothing_of_this_name?");
    let (status, log) =
        Starting::of(serves(&url, folder.path(), "[server]\ndevelopment = true\n")).ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("nothing_of_this_name") && !log.contains(NOT_YET), "{log}");
}
