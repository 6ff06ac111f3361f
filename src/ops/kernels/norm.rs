//! Norms of groups of numbers: `kernels/norm.cu`.

use super::{Argument, Grid, Kernel, Machine, WARP, int};
use crate::ops::{NormBy, NormKind};
use candle_core::{DType, Result};

/// What a group is scaled by and what is then added, as the kernel numbers it.
const RMS: i32 = 0;
const LAYER: i32 = 1;
const LAYER_WITH_BIAS: i32 = 2;

/// `out` of `x`, `numbers` of them, by a weight of `width` numbers and a bias of as many, both f32. That groups, width
/// and numbers divide was checked.
///
/// # Errors
/// If there is more than a kernel can count, or the machine fails.
pub(in crate::ops) fn norm<M: Machine>(
    machine: &M,
    dtype: DType,
    [x, weight]: [&M::Buffer; 2],
    bias: Option<&M::Buffer>,
    out: &mut M::Buffer,
    [numbers, width]: [usize; 2],
    norm: NormBy,
) -> Result<()> {
    if numbers == 0 {
        return Ok(());
    }
    let NormBy { kind, eps, group } = norm;
    let (groups, threads) = (numbers / group, machine.threads());
    // A block for a group that has a number for each of its threads at most would have most of them wait.
    let team = if group <= threads as usize { WARP } else { threads };
    let grid = Grid { x: groups.div_ceil((threads / team) as usize), y: 1, shared: 0 };
    let kind = match (kind, bias) {
        (NormKind::Rms, _) => RMS,
        (NormKind::Layer, None) => LAYER,
        (NormKind::Layer, Some(_)) => LAYER_WITH_BIAS,
    };
    machine.launch(
        &Kernel::of("norm", "norm", dtype),
        grid,
        &mut [
            Argument::Read(x),
            Argument::Read(weight),
            Argument::Read(bias.unwrap_or(weight)),
            Argument::Write(out),
            Argument::Int(int(groups)?),
            Argument::Int(int(group)?),
            Argument::Int(int(width / group)?),
            Argument::Int(int(team as usize)?),
            Argument::Int(kind),
            Argument::Float(eps as f32),
        ],
    )
}
