//! The engine over a store in memory, under paused time; targets over real sockets.

mod execute;
mod failures;
mod probes;
mod targets;
mod workers;
