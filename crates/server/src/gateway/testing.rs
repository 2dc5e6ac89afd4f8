//! Configurations for the tests of this room.

use crate::config::gateway::GatewayConfig;
use crate::config::{Config, Sources};

/// The configuration of a text.
pub(super) fn config_of(text: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    crate::config::load(&sources).unwrap().config
}

/// A gateway before one upstream, with nothing else said.
pub(super) fn config(upstream: &str) -> GatewayConfig {
    config_of(&format!("[gateway]\nupstream = \"{upstream}\"\n")).gateway.unwrap()
}
