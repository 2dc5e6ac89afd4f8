//! What the server tells about itself: metrics, the log, traces, and the audit log of traffic.

pub mod audit;
pub mod logs;
pub mod metered;
pub mod metrics;
pub mod observer;
pub(crate) mod traces;
