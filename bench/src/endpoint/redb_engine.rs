//! redb 4: a write transaction per group, committed with `Durability::Immediate`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::group::{Grouped, Reader, Writer};

const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");

/// Cache as the server's bar for memory allows it.
const CACHE_BYTES: usize = 512 * 1024 * 1024;

/// The database, to read from.
#[derive(Clone)]
pub(crate) struct Keys(Arc<Database>);

struct Committer(Arc<Database>);

/// Opens or creates the file in the folder.
pub(crate) fn open(data: &Path) -> Result<Grouped<Keys>> {
    std::fs::create_dir_all(data)?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(data.join("keys.redb"))?;
    let database = Arc::new(database);
    let mut committer = Committer(Arc::clone(&database));
    // The table must be there before anyone reads.
    committer.commit(&[])?;
    Grouped::start(Keys(database), committer)
}

impl Reader for Keys {
    fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let table = self.0.begin_read()?.open_table(KEYS)?;
        Ok(table.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
    }
}

impl Writer for Committer {
    fn commit(&mut self, pairs: &[(String, Bytes)]) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(KEYS)?;
            for (key, value) in pairs {
                table.insert(key.as_str(), &value[..])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
