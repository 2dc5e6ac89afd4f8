//! The binary `semel`.

use std::process::ExitCode;

/// Requests are many small allocations that live as long as a sync of the disk (ADR 0007).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    semel_server::cli::main()
}
