//! Between stores of different kinds, there and back.

use std::time::Duration;

use bytes::Bytes;
use semel_core::command::{Accept, Claimed};
use semel_core::id::{Namespace, Tenant};
use semel_core::outcome::{Class, Headers, Outcome};
use semel_core::policy::Policy;
use semel_core::record::{StateName, Text};
use semel_core::request::{Fingerprint, Input};
use semel_core::{Fence, Key, Ledger, Operation, Record, RecordId, Request, Scope, Store};
use semel_runtime::OsEntropy;
use semel_stores::embedded::{EmbeddedStore, Options};
use semel_stores::memory::MemoryStore;

use super::*;
use std::sync::Arc;

fn request(key: &str) -> Arc<Request> {
    let scope =
        Scope { namespace: Namespace::Execute, tenant: Tenant::try_new("default").unwrap(), subject: None };
    let (key, operation) = (Key::try_new(key).unwrap(), Operation::try_new("charge").unwrap());
    let fingerprint = Fingerprint { version: 1, digest: [7; 32] };
    Arc::new(Request::new(scope, key, operation, fingerprint, Policy::default()))
}

fn ledger(store: &Arc<dyn Store>) -> Ledger {
    Ledger::new(Arc::clone(store), Arc::new(OsEntropy))
}

async fn granted(store: &Arc<dyn Store>, key: &str) -> semel_core::command::Claim {
    match ledger(store).claim(request(key), None).await.unwrap() {
        Claimed::Granted(claim) => claim,
        other => panic!("{key}: {other:?}"),
    }
}

async fn complete(store: &Arc<dyn Store>, key: &str, body: &'static str) {
    let claim = granted(store, key).await;
    let outcome =
        Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::from_static(body.as_bytes()))
            .unwrap();
    ledger(store).complete(claim, outcome).await.unwrap();
}

async fn archive(store: &Arc<dyn Store>) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(store, &mut bytes, |_, _| {}).await.unwrap();
    bytes
}

async fn taken(store: &Arc<dyn Store>, archive: &[u8], replace: bool) -> Imported {
    import(store, archive, replace, |_| {}).await.unwrap()
}

async fn load(store: &Arc<dyn Store>, id: RecordId) -> Arc<Record> {
    store.load(id).await.unwrap().value.expect("it is there")
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn embedded(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(&Options::new(folder.path())).unwrap())
}

/// One record of most states.
async fn fill(store: &Arc<dyn Store>) -> semel_core::command::Claim {
    complete(store, "done", "the outcome").await;
    let released = granted(store, "released").await;
    ledger(store).release(released, Text::new("nothing happened")).await.unwrap();
    let input = Input::try_new("POST", "/", Headers::default(), Bytes::from_static(b"{}")).unwrap();
    let pending = Arc::new(Request::clone(&request("pending")).with_input(input));
    ledger(store).accept(&Accept::try_new(pending).unwrap()).await.unwrap();
    granted(store, "running").await
}

async fn check_carried(from: Arc<dyn Store>, to: Arc<dyn Store>) {
    let running = fill(&from).await;
    let archive = archive(&from).await;
    let imported = taken(&to, &archive, false).await;
    assert_eq!(imported, Imported { added: 4, ..Imported::default() });
    for key in ["done", "released", "pending", "running"] {
        let id = request(key).id();
        let (there, here) = (load(&from, id).await, load(&to, id).await);
        assert_eq!(there.state(), here.state(), "{key}");
        assert_eq!(
            (there.token(), there.attempt(), there.accepted()),
            (here.token(), here.attempt(), here.accepted())
        );
        assert!(here.fence() > there.fence(), "L2, {key}");
    }
    // Duplicates are answered as before, and whoever holds the claim still does.
    assert!(matches!(ledger(&to).claim(request("done"), None).await.unwrap(), Claimed::Replay(_)));
    assert!(matches!(ledger(&to).claim(request("running"), None).await.unwrap(), Claimed::Busy { .. }));
    let outcome = Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::new()).unwrap();
    let held = ledger(&to).complete(running, outcome).await.unwrap();
    assert!(matches!(held, semel_core::command::Held::Done(_)), "{held:?}");
    // Again: what is there stays as it is.
    let again = taken(&to, &archive, false).await;
    assert_eq!(again, Imported { same: 3, different: 1, ..Imported::default() });
    assert_eq!(load(&to, request("running").id()).await.state().name(), StateName::Completed);
}

#[tokio::test]
async fn records_are_carried_from_memory_to_an_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    check_carried(memory(), embedded(&folder)).await;
}

#[tokio::test]
async fn records_are_carried_from_an_embedded_store_to_memory() {
    let folder = tempfile::tempdir().unwrap();
    check_carried(embedded(&folder), memory()).await;
}

#[tokio::test]
async fn the_last_import_brings_what_has_changed_since_the_one_before() {
    let (from, to) = (memory(), memory());
    let running = fill(&from).await;
    taken(&to, &archive(&from).await, false).await;
    let outcome =
        Outcome::try_new(Class::Success, 200, Headers::default(), Bytes::from_static(b"late")).unwrap();
    ledger(&from).complete(running, outcome).await.unwrap();
    complete(&from, "new", "later still").await;
    let before = load(&to, request("running").id()).await.fence();
    let imported = taken(&to, &archive(&from).await, true).await;
    // What waits, or is held, is replaced for its time, which may have moved.
    assert_eq!(imported, Imported { added: 1, replaced: 2, same: 2, ..Imported::default() });
    let replaced = load(&to, request("running").id()).await;
    assert_eq!(replaced.state().name(), StateName::Completed);
    assert!(replaced.fence() > before, "L2");
}

#[tokio::test]
async fn l2_fences_rise_above_those_of_records_that_were_removed_before_the_export() {
    let (from, to) = (memory(), memory());
    let mut highest = Fence(0);
    for _ in 0..20 {
        let claim = granted(&from, "gone").await;
        highest = claim.fence();
        ledger(&from).release(claim, Text::new("again")).await.unwrap();
    }
    let id = request("gone").id();
    let version = load(&from, id).await.version();
    assert!(from.remove(id, version).await.unwrap());
    let imported = taken(&to, &archive(&from).await, false).await;
    assert_eq!(imported.records(), 0);
    assert!(granted(&to, "gone").await.fence() > highest);
    let left: u64 = to.counts().await.unwrap().iter().map(|count| count.records).sum();
    assert_eq!(left, 1, "what carried the floor is gone");
}

#[tokio::test]
async fn what_is_cut_off_or_changed_on_the_way_is_refused() {
    let from = memory();
    fill(&from).await;
    let whole = archive(&from).await;
    for cut in [0, 7, 8, 30, whole.len() / 2, whole.len() - 1] {
        let error = import(&memory(), &whole[..cut], false, |_| {}).await.unwrap_err();
        assert!(matches!(error, CarryError::Damaged(_)), "{cut}: {error}");
    }
    for at in [0, 9, 40, whole.len() / 2, whole.len() - 3] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let error = import(&memory(), &changed[..], false, |_| {}).await.unwrap_err();
        assert!(matches!(error, CarryError::Damaged(_)), "{at}: {error}");
    }
}

#[tokio::test]
async fn a_lease_that_is_carried_goes_on_where_it_was() {
    let (from, to) = (memory(), memory());
    granted(&from, "running").await;
    let imported = taken(&to, &archive(&from).await, false).await;
    assert_eq!(imported.added, 1);
    let record = load(&to, request("running").id()).await;
    let left = record.times().wake.unwrap().since(record.times().written);
    let lease = record.request().policy().lease();
    assert!(left <= lease && left + Duration::from_secs(30) > lease, "{left:?} of {lease:?}");
}
