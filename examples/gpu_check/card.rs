//! The device: what it is, what its maker says of it, and how much of its memory is in use.

use crate::report::Finding;
use crate::{Failed, Setting};
use candle_core::{DType, Device, Tensor};
use gatelens::rundir::peak_rss_bytes;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// The most that a card's maker promises, in operations and bytes a second: dense products, memory, and the link to the
/// host.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    pub bf16: f64,
    pub f32: f64,
    pub memory: f64,
    pub host: f64,
}

/// By what their names hold; the first that fits counts.
const CARDS: [(&str, Peaks); 5] = [
    ("H200", Peaks { bf16: 989e12, f32: 67e12, memory: 4.8e12, host: 64e9 }),
    ("H100 PCIe", Peaks { bf16: 756e12, f32: 51e12, memory: 2.0e12, host: 64e9 }),
    ("H100", Peaks { bf16: 989e12, f32: 67e12, memory: 3.35e12, host: 64e9 }),
    ("A100-SXM4-40GB", Peaks { bf16: 312e12, f32: 19.5e12, memory: 1.555e12, host: 32e9 }),
    ("A100", Peaks { bf16: 312e12, f32: 19.5e12, memory: 2.04e12, host: 32e9 }),
];

impl Peaks {
    /// Those of a device, if it is a card that is listed.
    pub fn of(device: &Device) -> Option<Peaks> {
        let name = card(device).ok()??.name;
        CARDS.iter().find(|(part, _)| name.contains(part)).map(|(_, peaks)| *peaks)
    }

    /// Of products of a dtype.
    pub fn products(&self, dtype: DType) -> f64 {
        if dtype == DType::F32 { self.f32 } else { self.bf16 }
    }
}

/// A GPU.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "a build without CUDA knows none"))]
struct Card {
    name: String,
    /// Bytes: in use, and all.
    memory: (u64, u64),
    capability: (i32, i32),
}

/// What a device is, if it is a GPU.
#[cfg(feature = "cuda")]
fn card(device: &Device) -> candle_core::Result<Option<Card>> {
    let Device::Cuda(gpu) = device else { return Ok(None) };
    let stream = gpu.cuda_stream();
    let context = stream.context();
    let name = context.name().map_err(candle_core::Error::wrap)?;
    let (free, all) = context.mem_get_info().map_err(candle_core::Error::wrap)?;
    let capability = context.compute_capability().map_err(candle_core::Error::wrap)?;
    Ok(Some(Card { name, memory: ((all - free) as u64, all as u64), capability }))
}

/// A build without CUDA knows none.
#[cfg(not(feature = "cuda"))]
fn card(_: &Device) -> candle_core::Result<Option<Card>> {
    Ok(None)
}

/// Bytes in use: of a GPU's memory; on the CPU the most that the process had.
fn in_use(device: &Device) -> u64 {
    match card(device) {
        Ok(Some(card)) => card.memory.0,
        _ => peak_rss_bytes(),
    }
}

/// Looks at the memory until it is told to end.
pub struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    pub fn begin(device: &Device) -> Watch {
        let (end, device) = (Arc::new(AtomicBool::new(false)), device.clone());
        let ended = end.clone();
        let thread = spawn(move || {
            let mut most = in_use(&device);
            while !ended.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(5));
                most = most.max(in_use(&device));
            }
            most
        });
        Watch { end, thread }
    }

    /// The most that was in use, in GB.
    pub fn end(self) -> f64 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default() as f64 / 1e9
    }
}

/// Says what the device is.
pub fn stage(setting: &Setting) -> Result<(), Failed> {
    let device = &setting.device;
    Finding::text("device", &setting.name).say()?;
    if let Some(Card { name, memory, capability }) = card(device)? {
        Finding::text("card", name).say()?;
        Finding::number("memory", memory.1 as f64 / 1e9, "GB").say()?;
        Finding::number("of it in use before anything is run", memory.0 as f64 / 1e9, "GB").say()?;
        Finding::text("compute capability", format!("{}.{}", capability.0, capability.1)).say()?;
        Finding::text("driver", driver().unwrap_or_else(|| "unknown".to_string())).say()?;
        let known = Peaks::of(device).map_or("unknown: no shares are given".to_string(), |p| format!("{p:?}"));
        Finding::text("what its maker promises, a second", known).say()?;
    }
    Finding::number("threads of the host", rayon::current_num_threads() as f64, "").say()?;
    // A GPU compiles kernels when it first meets them.
    let begun = Instant::now();
    let x = Tensor::ones((64, 64), DType::F32, device)?;
    let sum = ((x.matmul(&x)? * 2.0)? + 1.0)?.sum_all()?.to_scalar::<f32>()?;
    Finding::number("first product, scaling and sum", begun.elapsed().as_secs_f64(), "s").say()?;
    if sum != 64.0 * 64.0 * 129.0 {
        return Err(format!("the first sum came out as {sum}").into());
    }
    Ok(())
}

/// The version of the driver, if its tool is there.
fn driver() -> Option<String> {
    let asked =
        Command::new("nvidia-smi").args(["--query-gpu=driver_version", "--format=csv,noheader"]).output().ok()?;
    Some(String::from_utf8(asked.stdout).ok()?.lines().next()?.trim().to_string())
}
