//! The command line.

use std::process::ExitCode;

use crate::app::App;
use crate::config::{Sources, load};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let loaded = match load(&Sources::of_process()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(78);
        }
    };
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(async {
        match App::start(&loaded.config).await {
            Ok(running) => {
                eprintln!("listening on {}", running.doors_address());
                let _ = tokio::signal::ctrl_c().await;
                running.stop().await;
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    })
}
