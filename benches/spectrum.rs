//! How long it takes to find the principal singular values of matrices of a 7B model, beside one product with as many vectors: what
//! `gatelens weights` spends most of its time on.
//!
//! `cargo bench --bench spectrum [-- ROWS COLUMNS]`

use candle_core::{Device, Tensor};
use gatelens::linear::spectrum::singular;
use std::time::Instant;

/// How many singular values are looked for.
const TOP: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let all = match sizes[..] {
        [rows, columns] => vec![(rows, columns)],
        _ => vec![(4096, 4096), (11_008, 4096)],
    };
    for (rows, columns) in all {
        let matrix = Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu)?;
        let vectors = Tensor::randn(0f32, 1.0, (columns, TOP + 16), &Device::Cpu)?;
        let begun = Instant::now();
        matrix.matmul(&vectors)?;
        let product = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let found = singular(&matrix, TOP, 1024)?;
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{rows} x {columns}: top {TOP} in {seconds:.2} s, {:.0} products with {} vectors ({product:.3} s each); residual {:.1e}",
            seconds / product,
            TOP + 16,
            found.residual
        );
    }
    Ok(())
}
