//! The guide's example, against a real PostgreSQL; and that its future can be spawned, as a web service needs it.

#[path = "../examples/in_transaction.rs"]
#[expect(dead_code, reason = "the example's own `main`")]
mod example;

/// The URL of the server, or `None` where tests need none: by hand, and in a quick run.
fn url() -> Option<String> {
    let url = std::env::var("SEMEL_TEST_POSTGRES").ok();
    if url.is_none() {
        let wanted = std::env::var_os("CI").is_some() && std::env::var_os("SEMEL_QUICK").is_none();
        assert!(!wanted, "SEMEL_TEST_POSTGRES is not set; `cargo xtask test` sets it");
        println!("skipped: SEMEL_TEST_POSTGRES is not set; `eval \"$(cargo xtask services env)\"` sets it");
    }
    url
}

#[tokio::test]
async fn an_order_is_placed_once_by_either_driver() {
    let Some(url) = url() else { return };
    // In a database of its own: the example makes a table where it stands.
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let name = format!("semel_example_{}", std::process::id());
    client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let own = format!("{server}/{name}");
    let ran = tokio::spawn(async move { example::run(&own).await }).await.unwrap();
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    ran.unwrap();
}
