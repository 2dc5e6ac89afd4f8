//! The binary `semel`.

use std::process::ExitCode;

fn main() -> ExitCode {
    semel_server::cli::main()
}
