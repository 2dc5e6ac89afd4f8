//! The engine over a store in memory, under paused time; targets over real sockets.

mod alerts;
mod circuits;
mod deliveries;
mod execute;
mod failures;
mod order;
mod probes;
mod targets;
mod workers;
