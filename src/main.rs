//! The `gatelens` command.

use std::process::ExitCode;

/// A sweep takes and gives back activations of megabytes by the thousand; the system's allocator would ask the kernel
/// for fresh pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gatelens::cli::main()
}
