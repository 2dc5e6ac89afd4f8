//! The server `semel`, in parts that tests and tools can use: configuration, doors, engine, admin.
//!
//! Rooms: [`config`] what the server is told · [`engine`] between door and ledger ·
//! [`limits`] every number · [`store`] opens it ·
//! [`telemetry`] what it tells about itself.

pub mod config;
pub mod engine;
pub mod limits;
pub mod store;
pub mod telemetry;
