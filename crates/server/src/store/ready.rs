//! Whether the server can serve, as `/readyz` says it: on the doors and on the admin listener alike.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use semel_api::health::{Health, HealthStatus, NotReady};
use semel_core::{Store, StoreError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Asks the store, each time anew. Clones share what was said last.
#[derive(Clone)]
pub(crate) struct Readiness {
    store: Arc<dyn Store>,
    stopping: CancellationToken,
    was_ready: Arc<AtomicBool>,
}

impl Readiness {
    /// Of this store. When `stopping` is cancelled it is no longer ready.
    pub(crate) fn new(store: Arc<dyn Store>, stopping: CancellationToken) -> Self {
        Self { store, stopping, was_ready: Arc::new(AtomicBool::new(true)) }
    }

    /// Status and body.
    pub(crate) async fn answer(&self) -> (StatusCode, Health) {
        let shutting_down = self.stopping.is_cancelled().then_some(NotReady::ShuttingDown);
        let reason = if shutting_down.is_some() { shutting_down } else { self.ask().await };
        let (code, status) = match reason {
            None => (StatusCode::OK, HealthStatus::Ready),
            Some(_) => (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unavailable),
        };
        (code, Health { status, store: Some(self.store.name().to_owned()), reason, version: None })
    }

    async fn ask(&self) -> Option<NotReady> {
        let (reason, detail) = match timeout(limits::READY_WITHIN, self.store.ready()).await {
            Ok(Ok(())) => (None, String::new()),
            Ok(Err(error)) => (Some(not_ready(&error)), told(&error)),
            Err(_) => {
                let detail = format!("no answer within {:?}", limits::READY_WITHIN);
                (Some(NotReady::StoreUnavailable), detail)
            }
        };
        // A probe comes every second: what changed is worth a line, and what stays is not.
        let was_ready = self.was_ready.swap(reason.is_none(), Ordering::Relaxed);
        match (was_ready, reason) {
            (true, Some(reason)) => tracing::warn!(?reason, error = detail, "the store is not ready"),
            (false, None) => tracing::info!("the store is ready again"),
            (true, None) | (false, Some(_)) => {}
        }
        reason
    }
}

/// What may be said of it aloud; the rest is for the log.
fn not_ready(error: &StoreError) -> NotReady {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => NotReady::OutOfSpace,
        Some(_) | None if error.retry_helps() => NotReady::StoreUnavailable,
        Some(_) | None => NotReady::StoreFailed,
    }
}

/// The error with all that lies behind it.
fn told(error: &StoreError) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        told = format!("{told}: {error}");
        source = error.source();
    }
    told
}
