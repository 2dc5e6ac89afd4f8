//! What there is to see of a job: what runs, and what ran.

use semel_core::RecordId;
use semel_core::id::Namespace;
use semel_core::query::{Cursor, Page, Query, Summary};

use super::guard::{GuardError, JobGuard};
use super::run::{JobRun, is_held};

impl JobGuard {
    /// One run.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn run(&self, id: RecordId) -> Result<JobRun, GuardError> {
        let record = self.runtime.ledger().load(id).await?.ok_or(GuardError::NotFound)?;
        let guard = self.runtime.ledger().load(self.job.guard()).await?;
        self.shown(&record, guard.as_deref())
    }

    /// The run that holds the guard.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn running(&self) -> Result<Option<JobRun>, GuardError> {
        let guard = self.runtime.ledger().load(self.job.guard()).await?;
        let Some(guard) = guard.filter(|guard| is_held(guard)) else { return Ok(None) };
        let record = self.runtime.ledger().load(self.job.run_id(guard.fence())?).await?;
        Ok(record.and_then(|record| JobRun::of(&self.job, &record, Some(&guard))))
    }

    /// Its runs and skips, newest first, from after `cursor`.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn history(
        &self,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<JobRun, Cursor>, GuardError> {
        let query = Query { namespace: Some(Namespace::Job), tag: Some(self.job.tag()?), ..Query::default() };
        let store = self.runtime.ledger().store();
        let page = store.search(query, cursor, limit).await?;
        let guard = self.runtime.ledger().load(self.job.guard()).await?;
        let load = |summary: &Summary| self.runtime.ledger().load(summary.id);
        let loaded = futures_util::future::join_all(page.items.iter().map(load)).await;
        let mut items = Vec::with_capacity(loaded.len());
        for record in loaded {
            // One that was found and is gone by now has expired.
            if let Some(record) = record? {
                items.extend(JobRun::of(&self.job, &record, guard.as_deref()));
            }
        }
        let entries_read = page.entries_read.saturating_add(u64::try_from(items.len()).unwrap_or(u64::MAX));
        Ok(Page { items, next: page.next, entries_read })
    }
}
