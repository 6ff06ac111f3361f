//! The host's side of the CUDA kernels in `kernels/`: the tables that tell a kernel which rows are whose, and its launch.
//!
//! What is here is written against a [`Machine`]: a GPU ([`cuda`]) or, for tests where none is, the CPU, on which the same
//! sources run ([`on_cpu`]). So the tables, the order of launches and every argument are tested with the kernels.

pub(super) mod attention;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
pub(super) mod dla;
pub(super) mod edit;
pub(super) mod norm;
#[cfg(all(test, feature = "kernels-on-cpu"))]
mod on_cpu;

use candle_core::{DType, Result};

/// Threads of a block.
const THREADS: u32 = 256;

/// Threads of a warp.
const WARP: u32 = 32;

/// Where kernels run.
pub(super) trait Machine {
    /// Numbers where a kernel can reach them.
    type Buffer;

    fn ints(&self, values: &[i32]) -> Result<Self::Buffer>;

    fn floats(&self, values: &[f32]) -> Result<Self::Buffer>;

    /// `n` numbers that a kernel will write.
    fn blank(&self, n: usize) -> Result<Self::Buffer>;

    /// Runs a kernel of a file of `kernels/`, with its arguments in order.
    fn launch(&self, kernel: &Kernel, grid: Grid, arguments: &mut [Argument<Self::Buffer>]) -> Result<()>;

    /// Threads of a block, a multiple of 32.
    fn threads(&self) -> u32 {
        THREADS
    }
}

/// The name of a kernel: its function's, in `kernels/{file}.cu`.
pub(super) struct Kernel {
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "on the CPU all kernels are in one library"))]
    pub file: &'static str,
    pub name: String,
}

impl Kernel {
    /// A kernel of which there is one for each dtype.
    fn of(file: &'static str, name: &str, dtype: DType) -> Kernel {
        Kernel { file, name: format!("{name}_{}", dtype.as_str()) }
    }
}

/// The blocks of a launch, and the bytes of shared memory that each asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub x: usize,
    pub y: usize,
    pub shared: usize,
}

/// An argument of a kernel.
pub(super) enum Argument<'a, B> {
    Read(&'a B),
    Write(&'a mut B),
    Int(i32),
    Float(f32),
}

/// A count as kernels take it.
fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| candle_core::Error::Msg(format!("{n} is more than a kernel's tables can count")))
}
