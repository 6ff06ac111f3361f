//! The `gatelens` command.

use std::ffi::{c_int, c_long};
use std::process::ExitCode;

/// A sweep takes and gives back activations of megabytes by the thousand; the system's allocator would ask the kernel
/// for fresh pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, the same in its versions 2 and 3.
const PURGE_DELAY: c_int = 15;

/// For how long freed memory stays with the process, in milliseconds. By default it is a second or less: of a sweep's activations each
/// page then went back to the kernel and came again, zeroed, 8 % of the time of 4,000 exact edges of SmolLM2.
const KEPT_FOR: c_long = 60_000;

#[allow(unsafe_code)]
unsafe extern "C" {
    /// Of mimalloc.h: sets an option that the environment (`MIMALLOC_PURGE_DELAY`) does not.
    fn mi_option_set_default(option: c_int, value: c_long);
}

#[allow(unsafe_code)]
fn main() -> ExitCode {
    // SAFETY: mimalloc is linked in as the allocator; no other thread runs yet.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT_FOR) };
    // candle runs sums and products number by number on threads of its own, which wait for each other in loops and are as
    // many as the machine has cores. Beside the kernels' threads, on a busy machine or in a container of few cores, that
    // doubles what a gradient costs. Matrix products do not go by this setting.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    gatelens::cli::main()
}
