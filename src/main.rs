//! The `gatelens` command.

use std::process::ExitCode;

/// A sweep takes and gives back activations of megabytes by the thousand; the system's allocator would ask the kernel
/// for fresh pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[allow(unsafe_code)]
fn main() -> ExitCode {
    // candle runs sums and products number by number on threads of its own, which wait for each other in loops and are as
    // many as the machine has cores. Beside the kernels' threads, on a busy machine or in a container of few cores, that
    // doubles what a gradient costs. Matrix products do not go by this setting.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    gatelens::cli::main()
}
