//! Probes: a target is asked about what nobody knows, over real sockets and in real time.

use std::sync::Arc;

use semel_core::Store;
use semel_core::outcome::Body;
use semel_core::policy::OnLapse;
use semel_core::record::StateName;
use semel_stores::memory::MemoryStore;

use crate::config::{OperationConfig, ProbeConfig, Target};
use crate::engine::Execution;
use crate::engine::events::What;
use crate::engine::operation::Operation;
use crate::engine::testing::{Fixture, TcpTarget, ask, config, id};

fn probed(target: &TcpTarget, is_final: bool) -> OperationConfig {
    let mut config = config(OnLapse::AtMostOnce, Target::Http(target.uri.clone()));
    config.probe = Some(ProbeConfig { url: format!("{}/by-key/{{key}}", target.uri), is_final });
    config
}

/// Loses the answer to the first request.
async fn lose(fixture: &Fixture, target: &mut TcpTarget) {
    let lost = async {
        let mut peer = target.accept().await;
        peer.request().await;
        peer.reset();
    };
    let (execution, ()) = tokio::join!(fixture.engine.execute(ask("k")), lost);
    assert!(matches!(execution, Ok(Execution::Unknown { fresh: Some(_), .. })), "{execution:?}");
}

#[tokio::test]
async fn what_a_probe_finds_settles_what_nobody_knew() {
    let mut target = TcpTarget::start().await;
    let fixture = Fixture::new(vec![Operation::new(probed(&target, false))]);
    fixture.engine.start(4);
    lose(&fixture, &mut target).await;
    let mut peer = target.accept().await;
    let asked = peer.request().await;
    let path = format!("GET /charges/by-key/{} HTTP/1.1\r\n", id("k").downstream_key(None));
    assert!(asked.starts_with(&path), "{asked}");
    peer.reply(404, "connection: close\r\n", "").await;
    // Nothing says that it is final, so it is asked again.
    let mut peer = target.accept().await;
    assert_eq!(fixture.state("k").await, StateName::Unknown);
    peer.request().await;
    peer.reply(200, "content-type: application/json\r\n", "{\"id\":7}").await;
    fixture.told.wait(What::Probed, 1).await;
    let again = fixture.engine.execute(ask("k")).await.unwrap();
    let Execution::Completed { record, replayed: true, .. } = again else { panic!("{again:?}") };
    assert_eq!(record.outcome().unwrap().body, Body::Kept("{\"id\":7}".into()));
}

#[tokio::test]
async fn a_restart_asks_about_what_was_unknown_and_a_final_404_lets_it_run_again() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut target = TcpTarget::start().await;
    let config = probed(&target, true);
    let before = Fixture::over(Arc::clone(&store), vec![Operation::new(config.clone())]);
    lose(&before, &mut target).await;
    let after = Fixture::over(store, vec![Operation::new(config)]);
    after.engine.start(4);
    let mut peer = target.accept().await;
    peer.request().await;
    peer.reply(404, "connection: close\r\n", "").await;
    after.told.wait(What::Probed, 1).await;
    assert_eq!(after.state("k").await, StateName::Released);
    let second = async {
        let mut peer = target.accept().await;
        assert!(peer.request().await.contains("semel-fence: 2\r\n"));
        peer.reply(200, "", "{}").await;
    };
    let (execution, ()) = tokio::join!(after.engine.execute(ask("k")), second);
    assert!(matches!(execution, Ok(Execution::Completed { replayed: false, .. })), "{execution:?}");
}
