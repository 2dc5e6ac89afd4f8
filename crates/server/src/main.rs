//! The binary `semel`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

// A first run makes dozens of short-lived objects on one thread and frees many of them on another. Under load the
// system's allocator took about an eighth of the server's processor time for that (`bench/README.md`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    semel_server::cli::main()
}
