//! The guide's repositories over MongoDB: keys in the collection `idempotency_keys`, messages in `processed_messages`.

use std::ops::Deref;
use std::sync::Arc;

use semel_core::{Ledger, StoreError};
use semel_runtime::OsEntropy;
use semel_stores::limits::MONGODB_COLLECTION;
use semel_stores::mongodb::{Database, MongoStore, OpenError, Options};

use super::{HasIndexes, KeyRepository};

/// The collection of processed messages.
const MESSAGES: &str = "processed_messages";

impl HasIndexes for Database {
    async fn initialize(&self) -> Result<(), StoreError> {
        for collection in [MONGODB_COLLECTION, MESSAGES] {
            semel_stores::mongodb::initialize_indexes(self, collection).await?;
        }
        Ok(())
    }
}

async fn ledger(database: &Database, collection: &str) -> Result<Ledger, OpenError> {
    let options = Options::of_database().try_collection(collection);
    let options = options.map_err(OpenError::of)?;
    let store = MongoStore::over(database.clone(), &options).await?;
    Ok(Ledger::new(Arc::new(store), Arc::new(OsEntropy)))
}

/// Keys of services in a MongoDB database: a [`KeyRepository`], and what `NewMongoKeyRepository` is in the guide.
///
/// ```no_run
/// # async fn example(database: semel::stores::mongodb::Database) -> Result<(), Box<dyn std::error::Error>> {
/// use semel::wms::{Config, MongoKeyRepository, initialize_indexes, middleware};
///
/// initialize_indexes(&database).await?;
/// let repository = MongoKeyRepository::new(&database).await?;
/// let layer = middleware(Config::new("order-service", repository.into()))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MongoKeyRepository(KeyRepository);

impl MongoKeyRepository {
    /// Keys in this database.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn new(database: &Database) -> Result<Self, OpenError> {
        Ok(Self(KeyRepository::new(ledger(database, MONGODB_COLLECTION).await?)))
    }
}

impl Deref for MongoKeyRepository {
    type Target = KeyRepository;

    fn deref(&self) -> &KeyRepository {
        &self.0
    }
}

impl From<MongoKeyRepository> for KeyRepository {
    fn from(repository: MongoKeyRepository) -> Self {
        repository.0
    }
}

/// Processed messages in a MongoDB database: what `NewMongoMessageRepository` is in the guide. A consumer that
/// deduplicates works on its [`ledger`](Self::ledger).
#[derive(Clone, Debug)]
pub struct MongoMessageRepository(Ledger);

impl MongoMessageRepository {
    /// Messages in this database.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn new(database: &Database) -> Result<Self, OpenError> {
        ledger(database, MESSAGES).await.map(Self)
    }

    /// The ledger of messages.
    pub const fn ledger(&self) -> &Ledger {
        &self.0
    }

    /// See [`initialize_indexes`](super::initialize_indexes).
    ///
    /// # Errors
    /// The store cannot serve.
    pub async fn ensure_indexes(&self) -> Result<(), StoreError> {
        self.0.initialize().await
    }
}
