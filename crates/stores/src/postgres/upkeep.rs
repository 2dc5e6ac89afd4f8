//! What is done now and then: expired records removed, moves folded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use semel_core::StoreError;

use super::error::Kind;
use super::rows::{Id, unreadable};
use super::store::Shared;
use crate::limits;

impl Shared {
    pub(super) async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let mut swept = 0;
        while swept < limit {
            let step = (limit - swept).min(limits::POSTGRES_SWEEP_STEP);
            let count = i64::try_from(step).unwrap_or(0);
            let rows = self.rows("sweep", Kind::Write, &self.sql.sweep, &[&count]).await?;
            for row in &rows {
                self.waiters.changed(row.try_get::<_, Id>(0).map_err(unreadable)?.0);
            }
            swept += rows.len();
            if rows.len() < step {
                break;
            }
        }
        self.fold().await;
        Ok(swept)
    }

    /// This node has made so many moves more.
    pub(super) fn moved(self: &Arc<Self>, moves: u64) {
        let before = self.moves.fetch_add(moves, Ordering::Relaxed);
        if before / limits::POSTGRES_FOLD_EVERY != (before + moves) / limits::POSTGRES_FOLD_EVERY {
            let shared = Arc::clone(self);
            tokio::spawn(async move { shared.fold().await });
        }
    }

    /// Folds moves into the counts. What cannot be folded now stays a move, and counts all the same.
    async fn fold(&self) {
        let step = limits::POSTGRES_FOLD_STEP;
        while let Ok(row) = self.row("fold", Kind::Write, &self.sql.fold, &[&step]).await {
            if row.try_get::<_, i64>(0).unwrap_or(0) < step {
                break;
            }
        }
    }
}
