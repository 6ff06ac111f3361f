//! gatelens from Python: the extension module `gatelens._core`.
//!
//! It is a thin layer of what the package's Python modules call: models, plans, studies and tables. What users see, and what it
//! is called, is theirs. All that computes does so in a thread of its own, with Python free to run others ([`waiting`]).

mod errors;
mod logs;
mod models;
mod plans;
mod studies;
mod tables;
mod vectors;
mod waiting;

/// As in the command: a sweep takes and gives back activations of megabytes by the thousand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pyo3::pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::errors::{Error, InputError, ModelError};
    #[pymodule_export]
    use crate::logs::drain_logs;
    #[pymodule_export]
    use crate::models::{Model, open_model, read_input};
    #[pymodule_export]
    use crate::plans::{Edit, Plan};
    #[pymodule_export]
    use crate::studies::{Study, command, commands, data, findings, view};
    #[pymodule_export]
    use crate::tables::Table;
    #[pymodule_export]
    use crate::vectors::{read_tensors, tensor_bytes};

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // candle runs small products on threads of its own, as many as the machine has cores; beside the kernels' threads they wait.
        let environ = module.py().import("os")?.getattr("environ")?;
        environ.call_method1("setdefault", ("CANDLE_NUM_THREADS", "1")).map(drop)
    }
}
