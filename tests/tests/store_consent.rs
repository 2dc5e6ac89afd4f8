//! *At most once* on a store whose failover may lose claims: only with the operator's consent.

use rustix::process::Signal;

use crate::server::Server;
use crate::shared_store::{Kind, SharedStore};
use crate::target::Target;

/// A database that acknowledges commits before they are on its disk.
fn forgetful(store: &SharedStore) -> String {
    format!("{}&options=-c%20synchronous_commit%3Doff", store.url())
}

const RESUME: &str = "semantics = \"resume\"";
const CLAIMS_RESUME: &str = "[server.claims]\nsemantics = \"resume\"\n";

#[tokio::test]
async fn at_most_once_on_a_store_that_may_lose_claims_needs_consent() {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let target = Target::start().await;
    let url = forgetful(&store);
    let charge = target.operation("charge", "/json", "");
    let said = Server::try_start_on(&url, &charge).await.err().expect("a refusal");
    assert!(said.contains("may lose claims") && said.contains("store.accept_claim_loss = true"), "{said}");
    assert!(said.contains("operation charge, server.claims;"), "{said}");
    let gateway = "[gateway]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:9\"\n";
    let said =
        Server::try_start_on(&url, &format!("{CLAIMS_RESUME}{gateway}")).await.err().expect("a refusal");
    assert!(said.contains("would not hold for gateway;"), "{said}");

    let consent = format!("[store]\naccept_claim_loss = true\n{charge}");
    let server = Server::start_on(&url, &consent).await;
    assert_eq!(server.execute("charge", "one", "{}", &[]).await.status, 200);
    // A store that keeps its claims needs none.
    Server::start_on(&store.url(), &charge).await;
}

#[tokio::test]
async fn without_consent_a_claim_cannot_ask_for_it_and_a_reload_cannot_bring_it() {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let target = Target::start().await;
    let folder = tempfile::tempdir().unwrap();
    let resume = format!("{CLAIMS_RESUME}{}", target.operation("charge", "/json", RESUME));
    std::fs::write(folder.path().join("semel.toml"), &resume).unwrap();
    let mut serve = crate::server::command(&["serve"], folder.path());
    serve.env("SEMEL__STORE__URL", forgetful(&store));
    let server = Server::run(serve).await.unwrap();
    assert_eq!(server.execute("charge", "one", "{}", &[]).await.status, 200);
    let claim = |semantics: &str| {
        format!(
            r#"{{"key":"{semantics}","operation":"own","payload":{{}},"policy":{{"semantics":"{semantics}"}}}}"#
        )
    };
    assert_eq!(server.post("/v1/claims", &claim("resume")).await.status, 201);
    let refused = server.post("/v1/claims", &claim("at_most_once")).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("policy.semantics"), "{}", refused.text());

    std::fs::write(folder.path().join("semel.toml"), target.operation("charge", "/json", "")).unwrap();
    server.signal(Signal::HUP);
    server.logged("the configuration stays as it was").await;
    assert!(server.log().contains("may lose claims"));
}
