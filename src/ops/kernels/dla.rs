//! What heads add along directions: `kernels/dla.cu`.

use super::{Argument, Grid, Kernel, Machine, WARP, int};
use candle_core::{DType, Result};

/// `out` `[pairs, n_heads]`, f32, of `z` `[rows, n_heads * d_head]` and `through` `[directions, n_heads * d_head]`, f32;
/// pairs are of a row and a direction, which were checked to be there.
///
/// # Errors
/// If there is more than the tables can count, or the machine fails.
pub(in crate::ops) fn head_dots<M: Machine>(
    machine: &M,
    dtype: DType,
    [z, through]: [&M::Buffer; 2],
    out: &mut M::Buffer,
    pairs: &[(u32, u32)],
    [n_heads, d_head]: [usize; 2],
) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    let table = |f: fn(&(u32, u32)) -> u32| {
        machine.ints(&pairs.iter().map(|p| int(f(p) as usize)).collect::<Result<Vec<_>>>()?)
    };
    let (rows, directions) = (table(|p| p.0)?, table(|p| p.1)?);
    let grid = Grid { x: pairs.len(), y: n_heads.div_ceil((machine.threads() / WARP) as usize), shared: 0 };
    machine.launch(
        &Kernel::of("dla", "dla", dtype),
        grid,
        &mut [
            Argument::Read(z),
            Argument::Read(through),
            Argument::Read(&rows),
            Argument::Read(&directions),
            Argument::Write(out),
            Argument::Int(int(n_heads)?),
            Argument::Int(int(d_head)?),
        ],
    )
}
