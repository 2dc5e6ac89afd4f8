//! The server `semel`, in parts that tests and tools can use: configuration, doors, engine, admin.
//!
//! Rooms: [`config`] what the server is told · [`app`] puts it together · [`cli`] the command line ·
//! `listen` and [`tls`] connections · `address` where no target may be · `exchange` one request to elsewhere · `door` HTTP in · `consumer` Kafka in · `gateway` HTTP through · `jobs` as they are shown · `cron` when they begin · `jwt` who a bearer token says it is · `admin` for operators ·
//! [`engine`] between door and ledger · [`alerts`] what it tells people · [`store`] opens it · [`telemetry`] what it tells about itself · [`limits`]
//! every number.

mod address;
mod admin;
pub mod alerts;
pub mod app;
pub mod carry;
pub mod cli;
pub mod config;
#[cfg(feature = "kafka")]
mod consumer;
mod cron;
mod door;
pub mod engine;
mod exchange;
mod forwarded;
mod gateway;
mod jobs;
mod jwt;
pub mod limits;
mod listen;
mod rate;
mod room;
pub mod store;
pub mod telemetry;
pub mod tls;
mod wall;
mod webhook;
