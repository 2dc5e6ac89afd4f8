//! Indexes are made by one node at a time where the server would make them twice. FerretDB looks whether an index is there
//! and then makes it, so that each of two who ask at once may be shown none. Inserts of an `_id` it tells apart: each
//! *turn* has a number, whoever inserts it has it, and has ended it when its end is there, too.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::{Collection, Database};
use tokio::time::Instant;

use super::error::is_duplicate;
use crate::limits;

/// The right to make what is missing.
pub(super) struct Turn {
    turns: Collection<Document>,
    number: i64,
}

impl Turn {
    /// Waits until it is nobody else's. Who has died in their turn is waited for once, for as long as a settler is.
    pub(super) async fn take(
        database: &Database,
        collection: &str,
        patience: Duration,
    ) -> Result<Self, mongodb::error::Error> {
        let turns = database.collection(&format!("{collection}_setup"));
        let mut since = (0, Instant::now());
        loop {
            let (newest, has_ended) = newest(&turns).await?;
            if newest != since.0 {
                since = (newest, Instant::now());
            }
            if !has_ended && since.1.elapsed() < patience {
                tokio::time::sleep(limits::MONGODB_SETUP_POLL).await;
                continue;
            }
            let number = newest + 1;
            match turns.insert_one(doc! { "_id": format!("turn {number}"), "n": number }).await {
                Ok(_) => return Ok(Self { turns, number }),
                Err(error) if is_duplicate(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How many there were, with this one.
    #[cfg(test)]
    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// The next one need not wait.
    pub(super) async fn end(self) -> Result<(), mongodb::error::Error> {
        let number = self.number;
        let ended = doc! { "_id": format!("end {number}"), "n": number, "ended": true };
        self.turns.insert_one(ended).await.map(drop)
    }
}

/// The number of the newest turn, from one on, and whether it has ended. There are as many as nodes that ever found
/// something missing.
async fn newest(turns: &Collection<Document>) -> Result<(i64, bool), mongodb::error::Error> {
    let all: Vec<Document> = turns.find(doc! {}).await?.try_collect().await?;
    let number = |turn: &Document| turn.get_i64("n").unwrap_or(0);
    let newest = all.iter().map(number).max().unwrap_or(0);
    let has_ended = newest == 0
        || all.iter().any(|turn| number(turn) == newest && turn.get_bool("ended").unwrap_or(false));
    Ok((newest, has_ended))
}
