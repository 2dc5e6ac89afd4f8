//! Out of a store. Servers may use it meanwhile: each record is as it was at one moment, and what changes afterwards is
//! carried by the next export.

use std::io::Write;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use semel_core::command::{Claim, Claimed};
use semel_core::id::{Namespace, Tenant};
use semel_core::ledger::{Entropy as _, LedgerError};
use semel_core::limits::PAGE_MAX;
use semel_core::policy::Policy;
use semel_core::query::Query;
use semel_core::record::Text;
use semel_core::request::Fingerprint;
use semel_core::{Invalid, Key, Ledger, Operation, Record, Request, Scope, Store, StoreError, Timestamp};
use semel_runtime::OsEntropy;

use super::CarryError;
use super::archive::Writer;

/// Records that are read at once.
const AT_ONCE: usize = 32;

/// What was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Records in the archive.
    pub records: u64,
}

/// Writes every record of the store that has not expired; `told` how many so far, and about how many there are.
///
/// # Errors
/// The store fails, or holds a record that cannot be read; or the archive cannot be written.
///
/// # Cancellation
/// The archive has no end, so that no import takes it.
pub async fn export(
    store: &Arc<dyn Store>,
    out: impl Write,
    mut told: impl FnMut(u64, u64),
) -> Result<Exported, CarryError> {
    let about = store.counts().await?.iter().map(|count| count.records).sum();
    let mut writer = Writer::begin(out)?;
    let (mut records, mut cursor) = (0, None);
    told(0, about);
    loop {
        let page = store.search(Query::default(), cursor, PAGE_MAX).await?;
        let mut loads = stream::iter(page.items).map(|found| store.load(found.id)).buffered(AT_ONCE);
        while let Some(loaded) = loads.next().await {
            let loaded = loaded?;
            // What expired or was removed meanwhile is as good as absent.
            if let Some(record) = loaded.value.filter(|record| !record.is_expired(loaded.as_of)) {
                writer.record(&record, loaded.as_of)?;
                records += 1;
            }
        }
        told(records, about.max(records));
        let Some(next) = page.next else { break };
        cursor = Some(next);
    }
    let (probe, as_of) = floor(store).await?;
    writer.floor(&probe, as_of)?;
    writer.end(records)?;
    Ok(Exported { records })
}

/// A record with the highest fence that the store has ever given out: one of our own, claimed now, given back, and
/// removed.
async fn floor(store: &Arc<dyn Store>) -> Result<(Arc<Record>, Timestamp), CarryError> {
    let claim = probe(store).await?;
    let id = claim.record().id();
    let ledger = Ledger::new(Arc::clone(store), Arc::new(OsEntropy));
    let released = ledger.release(claim, Text::new("it was there for its fence")).await;
    released.map_err(|error| failed(&error))?;
    let loaded = store.load(id).await?;
    let record = loaded.value.ok_or_else(|| lost("the probe of the fences is gone"))?;
    store.remove(id, record.version()).await?;
    Ok((record, loaded.as_of))
}

async fn probe(store: &Arc<dyn Store>) -> Result<Claim, CarryError> {
    let token = OsEntropy.token().reveal();
    let invalid = |error: Invalid| CarryError::Damaged(error.to_string());
    let scope = Scope {
        namespace: Namespace::Execute,
        tenant: Tenant::try_new("semel").map_err(invalid)?,
        subject: None,
    };
    let (key, operation) = (
        Key::try_new(&format!("export-{token}")).map_err(invalid)?,
        Operation::try_new("semel.export").map_err(invalid)?,
    );
    let fingerprint = Fingerprint { version: 0, digest: [0; 32] };
    let request = Arc::new(Request::new(scope, key, operation, fingerprint, Policy::default()));
    let ledger = Ledger::new(Arc::clone(store), Arc::new(OsEntropy));
    match ledger.claim(request, None).await.map_err(|error| failed(&error))? {
        Claimed::Granted(claim) => Ok(claim),
        _ => Err(lost("somebody else has the probe of the fences").into()),
    }
}

fn lost(what: &'static str) -> StoreError {
    StoreError::not_applied("export", true, what)
}

fn failed(error: &LedgerError) -> CarryError {
    CarryError::Store(StoreError::not_applied("export", true, error.to_string()))
}
