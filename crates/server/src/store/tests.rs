//! What URLs and the keys beside them name, and what is said when they name nothing.

use std::time::Duration;

use super::*;

fn config(url: &str) -> StoreConfig {
    StoreConfig {
        url: StoreUrl::new(url),
        listen_url: None,
        pool: None,
        connect_timeout: None,
        statement_timeout: None,
        start_timeout: None,
        accept_claim_loss: false,
    }
}

fn wrong(config: &StoreConfig) -> String {
    let error = StoreOpenError::Config(Location::of(config).map(|_| ()).unwrap_err());
    error.to_string()
}

#[test]
fn a_store_that_is_not_here_is_refused_without_repeating_its_password() {
    let said = wrong(&config("mysql://semel:hunter2@db/semel"));
    assert!(
        said.starts_with("store.url: there is no store `mysql:`") && said.contains("`embedded:PATH`"),
        "{said}"
    );
    assert!(!said.contains("hunter2"));
    assert!(!wrong(&config("hunter2")).contains("hunter2"));
    assert!(wrong(&config("embedded:")).contains("the path is missing"));
    assert!(Location::of(&config("memory:x")).is_err());
}

#[test]
fn a_folder_and_memory_are_here_and_take_no_keys_of_a_server() {
    assert!(matches!(Location::of(&config("memory:")), Ok(Location::Memory)));
    let folder = Location::of(&config("embedded:./a b")).unwrap();
    assert!(matches!(folder, Location::Embedded(path) if path.as_os_str() == "./a b"));
    let said = wrong(&StoreConfig { pool: Some(3), ..config("memory:") });
    assert!(said.starts_with("store.pool: means nothing for `memory:`"), "{said}");
}

#[cfg(feature = "postgres")]
#[test]
fn a_database_is_here_with_its_keys_in_the_url_or_beside_it_but_not_in_both() {
    let url = "postgres://semel:hunter2@db/semel?schema=jobs";
    let whole = StoreConfig {
        listen_url: Some(StoreUrl::new("postgresql://semel:hunter2@direct/semel")),
        pool: Some(3),
        connect_timeout: Some(Duration::from_secs(1)),
        statement_timeout: Some(Duration::from_secs(2)),
        ..config(url)
    };
    let location = Location::of(&whole).unwrap();
    assert!(matches!(location, Location::Postgres(_)));
    assert!(!format!("{location:?} {whole:?}").contains("hunter2"));
    for (config, said) in [
        (
            StoreConfig { pool: Some(3), ..config(&format!("{url}&pool=4")) },
            "store.pool: the URL says `pool`, too",
        ),
        (
            StoreConfig {
                connect_timeout: Some(Duration::from_secs(1)),
                ..config(&format!("{url}&connect_timeout=4"))
            },
            "store.connect_timeout: the URL says",
        ),
        (
            StoreConfig { listen_url: Some(StoreUrl::new("memory:")), ..config(url) },
            "store.listen_url: must begin",
        ),
        (config(&format!("{url}&pool=0")), "store.url: `pool` must be"),
        (config("postgres://semel:hunter2@/semel?colour=red"), "store.url: "),
    ] {
        let told = wrong(&config);
        assert!(told.starts_with(said) && !told.contains("hunter2"), "{told}");
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_database_that_cannot_be_reached_is_named_without_its_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let config = config(&format!("postgres://semel:hunter2@{nobody}/semel"));
    let metrics = crate::telemetry::metrics::Metrics::new("semel", []);
    let error = open(&config, metrics.store_batches()).await.err().unwrap();
    let said = format!("{error} {error:?} {:?}", error.source());
    assert!(error.to_string().starts_with(&format!("postgres://semel:***@{nobody}/semel: ")), "{error}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_is_here_with_its_keys_in_the_url() {
    let url = "rediss://semel:hunter2@cache/?prefix=jobs&wait_replicas=1";
    let location = Location::of(&config(url)).unwrap();
    assert!(matches!(location, Location::Redis(_)));
    assert!(!format!("{location:?}").contains("hunter2"));
    for (config, said) in [
        (
            StoreConfig { pool: Some(3), ..config(url) },
            "store.pool: means nothing for Redis; say `connections`",
        ),
        (config("redis://semel:hunter2@cache/?colour=red"), "store.url: `colour` is not known"),
        (config("redis://semel:hunter2@cache/?shards=0"), "store.url: `shards` must be"),
    ] {
        let told = wrong(&config);
        assert!(told.starts_with(said) && !told.contains("hunter2"), "{told}");
    }
    let shown = StoreUrl::new(url).to_string();
    assert_eq!(shown, "rediss://semel:***@cache/?prefix=jobs&wait_replicas=1");
}

#[cfg(feature = "mongodb")]
#[test]
fn a_mongodb_is_here_with_its_keys_in_the_url_or_beside_it_but_not_in_both() {
    let url = "mongodb://semel:hunter2@db/wms?replicaSet=rs0";
    let whole = StoreConfig { pool: Some(3), connect_timeout: Some(Duration::from_secs(1)), ..config(url) };
    let location = Location::of(&whole).unwrap();
    assert!(matches!(location, Location::Mongodb(_)));
    assert!(!format!("{location:?} {whole:?}").contains("hunter2"));
    let bare = StoreConfig { pool: Some(3), ..config("mongodb+srv://semel:hunter2@db") };
    assert!(matches!(Location::of(&bare), Ok(Location::Mongodb(_))));
    for (config, said) in [
        (
            StoreConfig { pool: Some(3), ..config(&format!("{url}&maxPoolSize=4")) },
            "store.pool: the URL says `maxPoolSize`, too",
        ),
        (
            StoreConfig { statement_timeout: Some(Duration::from_secs(1)), ..config(url) },
            "store.statement_timeout: means nothing for `mongodb:`",
        ),
        (config(&format!("{url}&collection=a$b")), "store.url: `collection` must be"),
    ] {
        let told = wrong(&config);
        assert!(told.starts_with(said) && !told.contains("hunter2"), "{told}");
    }
}
