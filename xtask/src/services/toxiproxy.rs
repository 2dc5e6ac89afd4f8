//! Toxiproxy, which stands between two programs and spoils what they say to each other.

use std::path::PathBuf;

use anyhow::Result;

use super::host::{go_install, start_in_background};
use super::{Place, Service};
use crate::workspace;

/// The program, by the version that the tests were written with.
const MODULE: &str = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0";

/// One server of proxies. What they are, tests tell it over HTTP.
pub(super) struct Toxiproxy;

impl Service for Toxiproxy {
    fn name(&self) -> &'static str {
        "Toxiproxy"
    }

    fn folder_name(&self) -> &'static str {
        "toxiproxy"
    }

    fn variable(&self) -> &'static str {
        "SEMEL_TEST_TOXIPROXY"
    }

    fn url(&self, port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }

    fn installed(&self) -> Option<PathBuf> {
        let folder = bin();
        folder.join("server").exists().then_some(folder)
    }

    fn install(&self) -> Result<()> {
        go_install(MODULE, &bin())
    }

    fn start(&self, at: &Place) -> Result<()> {
        let port = at.port.to_string();
        start_in_background(&at.programs.join("server"), &["-host", "127.0.0.1", "-port", &port], &at.folder)
    }
}

fn bin() -> PathBuf {
    workspace::root().join("target/services/toxiproxy/bin")
}
