//! How fast the operations of a 7B model's layer are by themselves, as shares of what the card's maker promises.

use crate::card::Peaks;
use crate::report::Finding;
use crate::{Failed, Setting};
use candle_core::{DType, Device, Result, Tensor, Var};
use gatelens::ops::attention::{Heads, attention};
use gatelens::ops::rows::{Rows, Span};
use gatelens::ops::{NormBy, NormKind, RowChange, RowEdit, Weight, edit, norm};
use std::time::Instant;

/// Seconds that a measurement takes at least.
const ENOUGH: f64 = 0.2;

/// The sizes of what is timed.
struct Sizes {
    /// Of prompts and forks together, in the middle of a sweep.
    rows: usize,
    d_model: usize,
    d_mlp: usize,
    heads: usize,
    /// Numbers that cross between host and device at once.
    crossing: usize,
}

const OF_7B: Sizes = Sizes { rows: 1152, d_model: 4096, d_mlp: 11_008, heads: 32, crossing: 1 << 26 };
const OF_CPU: Sizes = Sizes { rows: 144, d_model: 512, d_mlp: 1376, heads: 8, crossing: 1 << 20 };

/// Tokens of a prompt.
const TOKENS: usize = 64;

pub fn stage(setting: &Setting) -> std::result::Result<(), Failed> {
    let (device, sizes) = (&setting.device, if setting.small() { OF_CPU } else { OF_7B });
    let peaks = Peaks::of(device);
    Finding::number("an addition to one number: what a launch takes", 1e6 * launch(device)?, "us").say()?;
    for dtype in [DType::F32, DType::BF16] {
        let of = |what: &str| format!("{what}, {}", dtype.as_str());
        let (products, memory) = (peaks.map(|p| p.products(dtype) / 1e12), peaks.map(|p| p.memory / 1e9));
        let rate = |operations: f64, seconds: f64| operations / seconds / 1e12;
        let (operations, seconds) = product(device, dtype, &sizes)?;
        Finding::number(of("product"), rate(operations, seconds), "TFLOP/s").of(products).say()?;
        let (operations, seconds) = attend(device, dtype, &sizes)?;
        // The kernel computes in f32, outside the tensor cores.
        let most = peaks.map(|p| p.f32 / 1e12);
        Finding::number(of("attention of forks"), rate(operations, seconds), "TFLOP/s").of(most).say()?;
        let (bytes, seconds) = edits(device, dtype, &sizes)?;
        Finding::number(of("edits of a head in every second row"), 1e6 * seconds, "us").say()?;
        Finding::number(of("the same, with the copy"), bytes / seconds / 1e9, "GB/s").of(memory).say()?;
        let (bytes, fused, composed) = norms(device, dtype, &sizes)?;
        Finding::number(of("norm"), bytes / fused / 1e9, "GB/s").of(memory).say()?;
        if !device.is_cpu() {
            Finding::number(of("norm of separate operations"), composed / fused, "times as long").say()?;
        }
    }
    let bytes = (4 * sizes.crossing) as f64;
    let x = Tensor::zeros(sizes.crossing, DType::F32, device)?;
    let copy = seconds(device, || x.copy().map(drop))?;
    let memory = peaks.map(|p| p.memory / 1e9);
    Finding::number("copy within the device, read and written", 2.0 * bytes / copy / 1e9, "GB/s").of(memory).say()?;
    if !device.is_cpu() {
        let link = peaks.map(|p| p.host / 1e9);
        let host = x.to_device(&Device::Cpu)?;
        let there = seconds(device, || host.to_device(device).map(drop))?;
        let back = seconds(device, || x.to_device(&Device::Cpu).map(drop))?;
        Finding::number("host to device", bytes / there / 1e9, "GB/s").of(link).say()?;
        Finding::number("device to host", bytes / back / 1e9, "GB/s").of(link).say()?;
    }
    Ok(())
}

/// Seconds of a call, after some that are not timed; the device works on while the next ones are asked for.
fn seconds(device: &Device, call: impl Fn() -> Result<()>) -> Result<f64> {
    let timed = |calls: usize| -> Result<f64> {
        let begun = Instant::now();
        (0..calls).try_for_each(|_| call())?;
        device.synchronize()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    timed(2)?;
    let mut calls = 1;
    loop {
        let took = timed(calls)?;
        if took >= ENOUGH {
            return Ok(took / calls as f64);
        }
        calls *= if took < ENOUGH / 20.0 { 10 } else { 2 };
    }
}

fn launch(device: &Device) -> Result<f64> {
    let x = Tensor::zeros(1, DType::F32, device)?;
    seconds(device, || (&x + 1.0).map(drop))
}

/// Random numbers on the device.
fn random(shape: (usize, usize), dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::randn(0f32, 1.0, shape, device)?.to_dtype(dtype)
}

/// The operations and the seconds of rows through an MLP's matrix.
fn product(device: &Device, dtype: DType, sizes: &Sizes) -> Result<(f64, f64)> {
    let weight = Weight::new(&random((sizes.d_mlp, sizes.d_model), dtype, device)?)?;
    let x = random((sizes.rows, sizes.d_model), dtype, device)?;
    let operations = 2.0 * (sizes.rows * sizes.d_model * sizes.d_mlp) as f64;
    Ok((operations, seconds(device, || weight.product(&x).map(drop))?))
}

/// Those of attention of two prompts and of forks of one row each.
fn attend(device: &Device, dtype: DType, sizes: &Sizes) -> Result<(f64, f64)> {
    let prompts = [0..TOKENS, TOKENS..2 * TOKENS];
    let fork = |row: usize| {
        let base = prompts[row % 2].clone();
        Span::new(row..row + 1, TOKENS - 1, vec![base.start..base.end - 1])
    };
    let spans = prompts.iter().map(|rows| Span::new(rows.clone(), 0, Vec::new()));
    let spans: Vec<Span> = spans.chain((2 * TOKENS..sizes.rows).map(fork)).collect();
    let rows = Rows { spans, entries: vec![0; sizes.rows] };
    let (n_heads, d_head) = (sizes.heads, sizes.d_model / sizes.heads);
    let scale = (d_head as f64).powf(-0.5);
    let heads = Heads { n_heads, n_kv_heads: n_heads, d_head, scale, ..Heads::default() };
    let of = || random((sizes.rows, sizes.d_model), dtype, device);
    let (q, k, v) = (of()?, of()?, of()?);
    let keys: usize = rows.positions().map(|position| position + 1).sum();
    let operations = 4.0 * (keys * sizes.d_model) as f64;
    Ok((operations, seconds(device, || attention(&q, &k, &v, &rows, heads).map(drop))?))
}

/// The bytes that a copy of all rows reads and writes, and the seconds of it with edits of a head in every second row.
fn edits(device: &Device, dtype: DType, sizes: &Sizes) -> Result<(f64, f64)> {
    let d_head = sizes.d_model / sizes.heads;
    let one = |row: usize| {
        let head = row % sizes.heads;
        RowEdit { row, columns: [head * d_head..(head + 1) * d_head].into(), change: RowChange::CopyRow(0) }
    };
    let list: Vec<RowEdit> = (2..sizes.rows).step_by(2).map(one).collect();
    let x = random((sizes.rows, sizes.d_model), dtype, device)?;
    let bytes = (2 * x.elem_count() * dtype.size_in_bytes()) as f64;
    Ok((bytes, seconds(device, || edit(&x, &list).map(drop))?))
}

/// The bytes that a norm of all rows reads and writes, and the seconds of its kernel and of candle's separate
/// operations, which is what it takes where gradients are asked for.
fn norms(device: &Device, dtype: DType, sizes: &Sizes) -> Result<(f64, f64, f64)> {
    let x = random((sizes.rows, sizes.d_model), dtype, device)?;
    let weight = Tensor::ones(sizes.d_model, DType::F32, device)?;
    let by = NormBy { kind: NormKind::Rms, eps: 1e-5, group: sizes.d_model };
    let bytes = (2 * x.elem_count() * dtype.size_in_bytes()) as f64;
    let tracked = Var::from_tensor(&x)?;
    let fused = seconds(device, || norm(&x, &weight, None, by).map(drop))?;
    let composed = seconds(device, || norm(tracked.as_tensor(), &weight, None, by).map(drop))?;
    Ok((bytes, fused, composed))
}
