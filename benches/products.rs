//! Products of rows and weights: rates and errors, beside the `gemm` crate, in one run.
//!
//! `cargo bench --bench products`. Shapes are those of SmolLM2-135M, Qwen2.5-0.5B and a model of 7B. A rate is that of the
//! fastest of several calls, in turn with the others'; an error is the root mean square of the differences from f64 over that
//! of the products. `bf16` and `f16` are weights that are exactly so, which are kept in 16 bits.

use candle_core::{Device, Result, Tensor};
use gatelens::ops::{Weight, to_vec};
use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Inputs and outputs.
const SHAPES: [(usize, usize); 6] = [(576, 1536), (1536, 576), (576, 192), (896, 4864), (4864, 896), (4096, 11008)];
const ROWS: [usize; 4] = [1, 6, 40, 512];
const TURNS: usize = 5;
/// Operations that a turn takes at least.
const WORK: f64 = 2e9;

fn main() -> Result<()> {
    println!("{} threads; GFLOP/s (relative error)", rayon::current_num_threads());
    println!(
        "{:>5} {:>6} {:>7} {:>18} {:>18} {:>18} {:>18}",
        "rows", "inputs", "outputs", "gemm", "f32", "bf16", "f16"
    );
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for (inputs, outputs) in SHAPES {
        let size = (inputs as f32).powf(-0.5);
        let w: Vec<f32> = (0..inputs * outputs).map(|_| random.random_range(-size..size)).collect();
        let of = |w: Vec<f32>| Tensor::from_vec(w, (outputs, inputs), &Device::Cpu);
        let kinds = [
            of(w.clone())?,
            of(w.iter().map(|w| bf16::from_f32(*w).to_f32()).collect())?,
            of(w.iter().map(|w| f16::from_f32(*w).to_f32()).collect())?,
        ];
        let weights = kinds.iter().map(Weight::new).collect::<Result<Vec<_>>>()?;
        for rows in ROWS {
            let x: Vec<f32> = (0..rows * inputs).map(|_| random.random_range(-1f32..1f32)).collect();
            let x = Tensor::from_vec(x, (rows, inputs), &Device::Cpu)?;
            let flop = 2.0 * (rows * inputs * outputs) as f64;
            let calls = ((WORK / flop) as usize).clamp(1, 200);
            let gemm = || x.matmul(&kinds[0].t()?);
            let ours: Vec<_> = weights.iter().map(|w| || w.product(&x)).collect();
            let mut best = [f64::MAX; 4];
            for _ in 0..TURNS {
                best[0] = best[0].min(seconds(calls, &gemm)?);
                for (best, ours) in best[1..].iter_mut().zip(&ours) {
                    *best = best.min(seconds(calls, ours)?);
                }
            }
            let errors = [
                error(&gemm()?, &x, &kinds[0])?,
                error(&ours[0]()?, &x, &kinds[0])?,
                error(&ours[1]()?, &x, &kinds[1])?,
                error(&ours[2]()?, &x, &kinds[2])?,
            ];
            print!("{rows:>5} {inputs:>6} {outputs:>7}");
            for (seconds, error) in best.iter().zip(errors) {
                print!(" {:>8.1} ({error:.1e})", flop / seconds / 1e9);
            }
            println!();
        }
    }
    Ok(())
}

/// Seconds a call.
fn seconds(calls: usize, product: &impl Fn() -> Result<Tensor>) -> Result<f64> {
    let at = Instant::now();
    for _ in 0..calls {
        std::hint::black_box(product()?);
    }
    Ok(at.elapsed().as_secs_f64() / calls as f64)
}

/// The relative error of the first rows.
fn error(found: &Tensor, x: &Tensor, weight: &Tensor) -> Result<f64> {
    let rows = x.dim(0)?.min(6);
    let (found, x, w) = (to_vec(&found.narrow(0, 0, rows)?)?, to_vec(&x.narrow(0, 0, rows)?)?, to_vec(weight)?);
    let (outputs, inputs) = weight.dims2()?;
    let (mut off, mut all) = (0f64, 0f64);
    for (i, found) in found.iter().enumerate() {
        let (x, w) = (&x[i / outputs * inputs..][..inputs], &w[i % outputs * inputs..][..inputs]);
        let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        off += (f64::from(*found) - exact).powi(2);
        all += exact * exact;
    }
    Ok((off / all).sqrt())
}
