//! A server on a database by its URL alone: it serves, two of them share it, and the URL's password shows nowhere.

use crate::server::{Server, command};
use crate::shared_store::{Kind, on_every_store};
use crate::target::Target;

on_every_store! {
    a_url_alone_is_enough_and_two_servers_share_what_it_names,
}

async fn a_url_alone_is_enough_and_two_servers_share_what_it_names(kind: Kind) {
    let Some(store) = kind.fresh().await else { return };
    let target = Target::start().await;
    let config = target.operation("charge", "/json", "");
    // At once, so that both create the schema.
    let url = store.url();
    let (one, two) = tokio::join!(Server::start_on(&url, &config), Server::start_on(&url, &config));
    let first = one.execute("charge", "order-1", "{}", &[]).await;
    let again = two.execute("charge", "order-1", "{}", &[]).await;
    assert_eq!((first.status, again.status), (200, 200), "{}", again.text());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.without_the_exchange(), again.without_the_exchange(), "L10, whoever answers");
    assert_eq!(target.seen().len(), 1);
    let mismatch = one.execute("charge", "order-1", r#"{"amount":2}"#, &[]).await;
    assert_eq!(mismatch.refusal(), (422, "IDEMPOTENCY_PARAMETER_MISMATCH".to_owned()));
    let ready = one.get("/readyz", &[]).await;
    assert_eq!((ready.status, ready.json()["store"].as_str()), (200, Some(kind.name())));
    let page = format!("{}/v1/records?key=order-1", two.admin_url());
    let records = two.http().get(&page, &[]).await.unwrap();
    assert!(records.text().contains("\"completed\""), "{}", records.text());
    let folder = tempfile::tempdir().unwrap();
    for (what, said) in [("migrate", "up to date, with 1 records"), ("stats", "charge")] {
        let output = command(&["store", what, "--store", &url], folder.path()).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains(said), "{what}: {text}");
    }
}

#[tokio::test]
async fn its_password_shows_nowhere() {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let url = store.url().replace("semel@", "semel:hunter2@");
    let folder = tempfile::tempdir().unwrap();
    let mut serve = command(&["serve", "--dev", "--store", &url], folder.path());
    serve.env("SEMEL__LOG__FILTER", "trace");
    let server = Server::run(serve).await.unwrap();
    assert_eq!(server.execute("count", "one", r#"{"name":"a"}"#, &[]).await.status, 200);
    let admin = server.admin_url();
    let mut said = server.output() + &server.log();
    for page in ["/metrics", "/v1/audit", "/v1/records", "/readyz", "/openapi.json"] {
        said += server.http().get(&format!("{admin}{page}"), &[]).await.unwrap().text();
    }
    assert!(said.contains("semel:***@"), "the banner says where records are kept\n{said}");
    server.stop().await;
    for arguments in [
        &["config", "show", "--dev", "--store", &url] as &[&str],
        &["config", "show", "--json", "--dev", "--store", &url],
        &["config", "check", "--dev", "--store", &format!("{url}&colour=red")],
        &["store", "stats", "--store", &url],
        &["store", "migrate", "--store", &url],
        &["store", "check", "--store", &url],
        &["serve", "--store", &url.replace("/postgres?", "/nothing_of_this_name?")],
    ] {
        let output = command(arguments, folder.path()).output().await.unwrap();
        said += &String::from_utf8(output.stdout).unwrap();
        said += &String::from_utf8(output.stderr).unwrap();
    }
    for expected in
        ["store.url: unknown option `colour`", "nothing_of_this_name", "up to date, with 1 records"]
    {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn commands_on_a_store_say_what_applies_to_a_database() {
    let Some(store) = Kind::Postgres.fresh().await else { return };
    let server = Server::start_on(&store.url(), "[server]\ndevelopment = true\n").await;
    assert_eq!(server.execute("count", "one", r#"{"name":"a"}"#, &[]).await.status, 200);
    let folder = tempfile::tempdir().unwrap();
    for (what, code, said) in [
        ("migrate", 0, "up to date, with 1 records"),
        ("stats", 0, "count"),
        ("check", 2, "check reads the files of an embedded store"),
    ] {
        let output =
            command(&["store", what, "--store", &store.url()], folder.path()).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{what}: {text}");
        assert!(text.contains(said), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_redis_is_served_where_its_losses_are_accepted() {
    let Some(store) = Kind::Redis.fresh().await else { return };
    let target = Target::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("semel.toml"), target.operation("charge", "/json", "")).unwrap();
    let mut serve = command(&["serve"], folder.path());
    serve.env("SEMEL__STORE__URL", store.url());
    let said = Server::run(serve).await.err().expect("a refusal");
    assert!(said.contains("may lose claims") && said.contains("operation charge"), "{said}");
}
