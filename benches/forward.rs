//! What a forward pass costs beside the bare matrix products of its layers, in one run.
//!
//! `cargo bench --bench forward [-- MODEL]`; MODEL is a folder or a GGUF file, by default SmolLM2 as
//! `scripts/fetch_models.sh` leaves it. Each row is the median of several runs; the share is the products' time over the
//! pass's time.

mod common;

use candle_core::{Device, Tensor};
use common::{default_model, median};
use gatelens::model::arch::Arch;
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::ops::Weight;
use gatelens::plan::{Activation, Part, Plan, Positions};
use gatelens::run::{Options, run};
use gatelens::site::SiteKind;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let name = given.unwrap_or_else(default_model);
    let model = Model::open(&name, &ModelOptions::default())?;
    model.decoder.read()?;
    let arch = &model.decoder.arch;
    println!("{name}: {} layers, d_model {}, {} threads", arch.n_layers, arch.d_model, rayon::current_num_threads());
    println!("{:<28} {:>12} {:>12} {:>8}", "512 packed positions", "products", "forward", "share");
    for (label, lengths) in [("8 prompts of 64", vec![64; 8]), ("1 prompt of 512", vec![512])] {
        let plan = plan(&lengths, arch);
        let mut products = products(arch, lengths.iter().sum())?;
        let forward = || run(&model.decoder, &plan, &Options::default()).map(drop);
        products()?;
        forward()?;
        // In turn, so that a machine that changes its speed changes both.
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let at = Instant::now();
            products()?;
            a.push(at.elapsed().as_secs_f64());
            let at = Instant::now();
            forward()?;
            b.push(at.elapsed().as_secs_f64());
        }
        let (a, b) = (median(a), median(b));
        println!("{label:<28} {:>9.1} ms {:>9.1} ms {:>6.1} %", a * 1e3, b * 1e3, 100.0 * a / b);
    }
    Ok(())
}

/// Prompts of these lengths, of which only the last residual stream's first number is read: layers alone are timed.
fn plan(lengths: &[usize], arch: &Arch) -> Plan {
    let mut plan = Plan::default();
    for (p, n) in lengths.iter().enumerate() {
        let ids = (0..*n).map(|i| ((i * 7919 + p * 104_729) % arch.vocab) as u32).collect();
        let prompt = plan.prompt(format!("{p}"), ids);
        let site = SiteKind::ResidPost.at(arch.n_layers - 1);
        plan.read(prompt, Activation { site, positions: Positions::Last, part: Part::Columns(vec![0]) });
    }
    plan
}

/// The matrix products of all layers for `rows` rows, on weights of their own for each layer.
fn products(arch: &Arch, rows: usize) -> candle_core::Result<impl FnMut() -> candle_core::Result<()>> {
    let (d, kv) = (arch.d_model, arch.n_kv_heads * arch.d_head);
    let attn = arch.n_heads * arch.d_head;
    let ups = if arch.layers[0].channel.gated() { 2 } else { 1 };
    let mut shapes = vec![(attn, d), (kv, d), (kv, d), (d, attn)];
    shapes.extend(std::iter::repeat_n((arch.d_mlp, d), ups));
    shapes.push((d, arch.d_mlp));
    let random = |shape: (usize, usize)| Tensor::randn(0f32, 1.0, shape, &Device::Cpu);
    let weight = |shape: &(usize, usize)| Weight::new(&random(*shape)?);
    let layers: Vec<Vec<Weight>> = (0..arch.n_layers)
        .map(|_| shapes.iter().map(weight).collect::<candle_core::Result<Vec<_>>>())
        .collect::<candle_core::Result<_>>()?;
    let inputs: Vec<Tensor> = shapes.iter().map(|s| random((rows, s.1))).collect::<candle_core::Result<_>>()?;
    Ok(move || {
        for layer in &layers {
            for (w, x) in layer.iter().zip(&inputs) {
                w.product(x)?;
            }
        }
        Ok(())
    })
}
