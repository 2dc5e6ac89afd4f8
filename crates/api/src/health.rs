//! `GET /healthz` and `GET /readyz`.

use serde::{Deserialize, Serialize};

/// The answer of `/healthz`, and of `/readyz` when it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// Whether it is alive, or can serve.
    pub status: HealthStatus,
    /// The store behind it, such as `embedded`. Only `/readyz` says it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store: Option<String>,
    /// Why it is not ready. Only a `/readyz` with status 503 says it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<NotReady>,
    /// The server's version, such as `0.1.0`. Only `/healthz` says it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
}

/// Why it cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum NotReady {
    /// The server is shutting down.
    ShuttingDown,
    /// The store has refused a write for want of space. What is stored is still replayed, and it is ready again as soon as
    /// there is room.
    OutOfSpace,
    /// The store does not answer, or takes no writes. It is asked again each time.
    StoreUnavailable,
    /// A write or a sync has failed: only a restart reads what is really on the disk.
    StoreFailed,
}

/// What a health endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// The process is alive.
    Ok,
    /// Reads and writes would be answered now.
    Ready,
    /// The store does not answer, or the server is shutting down; with status 503.
    Unavailable,
}
