//! fjall 3: a batch per group, journal synced with `fdatasync` in its commit.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::group::{Grouped, Reader, Writer};

/// Cache as the server's bar for memory allows it.
const CACHE_BYTES: u64 = 512 * 1024 * 1024;

/// The keyspace, to read from.
#[derive(Clone)]
pub(crate) struct Keys(Keyspace);

struct Committer {
    database: Database,
    keys: Keyspace,
}

/// Opens the folder.
pub(crate) fn open(data: &Path) -> Result<Grouped<Keys>> {
    let database = Database::builder(data).cache_size(CACHE_BYTES).open()?;
    let keys = database.keyspace("keys", KeyspaceCreateOptions::default)?;
    Grouped::start(Keys(keys.clone()), Committer { database, keys })
}

impl Reader for Keys {
    fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.0.get(key)?.map(|value| Bytes::copy_from_slice(&value)))
    }
}

impl Writer for Committer {
    fn commit(&mut self, pairs: &[(String, Bytes)]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in pairs {
            batch.insert(&self.keys, key.as_str(), &value[..]);
        }
        batch.commit()?;
        Ok(())
    }
}
