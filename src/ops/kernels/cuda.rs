//! Kernels on an NVIDIA GPU. What they compile to is made by `build.rs`.

// Launches, and memory that they write first.
#![allow(unsafe_code)]

use super::super::attention::Heads;
use super::super::edit::RowEdit;
use super::{Argument, Grid, Kernel, Machine, attention, dla, edit, norm};
use crate::ops::NormBy;
use crate::ops::rows::Rows;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result};
use cudarc::driver::{CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg};
use half::{bf16, f16};

/// Numbers in a GPU's memory, the kernels' own or a part of a tensor's.
pub(in crate::ops) enum Buffer<'a> {
    Ints(CudaSlice<i32>),
    F32(CudaSlice<f32>),
    Bf16(CudaSlice<bf16>),
    F16(CudaSlice<f16>),
    F32View(CudaView<'a, f32>),
    Bf16View(CudaView<'a, bf16>),
    F16View(CudaView<'a, f16>),
}

/// A GPU; buffers live as long as the tensors that they are parts of.
struct Gpu<'a> {
    device: &'a CudaDevice,
    tensors: std::marker::PhantomData<&'a ()>,
}

impl<'a> Machine for Gpu<'a> {
    type Buffer = Buffer<'a>;

    fn ints(&self, values: &[i32]) -> Result<Buffer<'a>> {
        self.device.clone_htod(values).map(Buffer::Ints)
    }

    fn floats(&self, values: &[f32]) -> Result<Buffer<'a>> {
        self.device.clone_htod(values).map(Buffer::F32)
    }

    fn blank(&self, n: usize) -> Result<Buffer<'a>> {
        unwritten(self.device, n).map(Buffer::F32)
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, arguments: &mut [Argument<Buffer<'a>>]) -> Result<()> {
        let function = self.device.get_or_load_custom_func(&kernel.name, kernel.file, ptx(kernel.file));
        let function = function.map_err(|e| {
            candle_core::Error::Msg(format!(
                "the GPU did not take {} ({e}). This build's kernels are for GPUs of compute capability {COMPUTE_CAP} and later; \
                 for an older one set CUDA_COMPUTE_CAP to its own (7.5 is 75), and build again",
                kernel.name
            ))
        })?;
        let mut launch = function.builder();
        for argument in arguments {
            match argument {
                Argument::Int(x) => launch.arg(&*x),
                Argument::Float(x) => launch.arg(&*x),
                Argument::Read(Buffer::Ints(x)) => launch.arg(x),
                Argument::Read(Buffer::F32(x)) => launch.arg(x),
                Argument::Read(Buffer::Bf16(x)) => launch.arg(x),
                Argument::Read(Buffer::F16(x)) => launch.arg(x),
                Argument::Read(Buffer::F32View(x)) => launch.arg(x),
                Argument::Read(Buffer::Bf16View(x)) => launch.arg(x),
                Argument::Read(Buffer::F16View(x)) => launch.arg(x),
                Argument::Write(Buffer::F32(x)) => launch.arg(x),
                Argument::Write(Buffer::Bf16(x)) => launch.arg(x),
                Argument::Write(Buffer::F16(x)) => launch.arg(x),
                Argument::Write(_) => candle_core::bail!("{} would write what it only reads", kernel.name),
            };
        }
        let side = |n: usize| u32::try_from(n).map_err(candle_core::Error::wrap);
        let config = LaunchConfig {
            grid_dim: (side(grid.x)?, side(grid.y)?, 1),
            block_dim: (self.threads(), 1, 1),
            shared_mem_bytes: side(grid.shared)?,
        };
        // SAFETY: the arguments are those of the kernel, in order, as the same calls show on the CPU; every row, column and
        // position in the tables was held to the tensors' shapes before.
        unsafe { launch.launch(config) }.map_err(candle_core::Error::wrap)?;
        Ok(())
    }
}

/// The compute capability that kernels are compiled for, as nvcc writes it: 80 is 8.0.
const COMPUTE_CAP: &str = env!("GATELENS_COMPUTE_CAP");

/// What a file of kernels compiles to.
fn ptx(file: &str) -> &'static str {
    match file {
        "attention" => include_str!(concat!(env!("OUT_DIR"), "/attention.ptx")),
        "edit" => include_str!(concat!(env!("OUT_DIR"), "/edit.ptx")),
        "norm" => include_str!(concat!(env!("OUT_DIR"), "/norm.ptx")),
        _ => include_str!(concat!(env!("OUT_DIR"), "/dla.ptx")),
    }
}

/// The numbers of a contiguous tensor.
fn view<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<Buffer<'a>> {
    let Some((from, to)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel was given a tensor that is not contiguous")
    };
    Ok(match &storage.slice {
        CudaStorageSlice::F32(x) => Buffer::F32View(x.slice(from..to)),
        CudaStorageSlice::BF16(x) => Buffer::Bf16View(x.slice(from..to)),
        CudaStorageSlice::F16(x) => Buffer::F16View(x.slice(from..to)),
        _ => candle_core::bail!("a kernel was given {:?}; it takes f32, bf16 and f16", storage.dtype()),
    })
}

fn gpu(device: &CudaDevice) -> Gpu<'_> {
    Gpu { device, tensors: std::marker::PhantomData }
}

/// Room for a result of a tensor's dtype, of which a kernel writes every number.
fn room<'a>(device: &CudaDevice, dtype: DType, n: usize) -> Result<Buffer<'a>> {
    Ok(match dtype {
        DType::BF16 => Buffer::Bf16(unwritten(device, n)?),
        DType::F16 => Buffer::F16(unwritten(device, n)?),
        _ => Buffer::F32(unwritten(device, n)?),
    })
}

/// Memory that holds whatever it held before.
fn unwritten<T: DeviceRepr>(device: &CudaDevice, n: usize) -> Result<CudaSlice<T>> {
    // SAFETY: every number is written before it is read: a result's by the kernel that it is made for, which has a thread for
    // each of them; scratch rows by `widen_rows`; a copy by what it is copied from. On the CPU the same calls find NaN there.
    unsafe { device.alloc(n) }
}

fn stored(buffer: Buffer, device: &CudaDevice) -> Result<CudaStorage> {
    fn wrapped<T: CudaDType + DeviceRepr>(slice: CudaSlice<T>, device: &CudaDevice) -> CudaStorage {
        CudaStorage::wrap_cuda_slice(slice, device.clone())
    }
    Ok(match buffer {
        Buffer::F32(x) => wrapped(x, device),
        Buffer::Bf16(x) => wrapped(x, device),
        Buffer::F16(x) => wrapped(x, device),
        _ => candle_core::bail!("a kernel's result is in a buffer that is not its own"),
    })
}

/// [`attention::attention`] of tensors.
pub(in crate::ops) fn attend(
    [(q, lq), (k, lk), (v, lv)]: [(&CudaStorage, &Layout); 3],
    rows: &Rows,
    heads: Heads,
) -> Result<CudaStorage> {
    let (device, dtype) = (&q.device, q.dtype());
    // A kernel takes the dtype of all from the first.
    if k.dtype() != dtype || v.dtype() != dtype {
        candle_core::bail!("attention of queries in {dtype:?}, keys in {:?} and values in {:?}", k.dtype(), v.dtype())
    }
    let all = [&view(q, lq)?, &view(k, lk)?, &view(v, lv)?];
    let mut z = room(device, dtype, lq.shape().elem_count())?;
    attention::attention(&gpu(device), dtype, all, &mut z, rows, heads)?;
    stored(z, device)
}

/// [`edit::edit`] of a copy of a tensor.
pub(in crate::ops) fn edited(x: &CudaStorage, layout: &Layout, list: &[RowEdit]) -> Result<CudaStorage> {
    let (device, dtype, width) = (&x.device, x.dtype(), layout.shape().dims2()?.1);
    let mut copy = copy_of(x, layout)?;
    edit::edit(&gpu(device), dtype, &mut copy, width, list)?;
    stored(copy, device)
}

/// [`edit::edit_back`] of a copy of a gradient, with respect to what the edits made of `x`.
pub(in crate::ops) fn edited_back(
    [(x, lx), (grad, lg)]: [(&CudaStorage, &Layout); 2],
    list: &[RowEdit],
) -> Result<CudaStorage> {
    let (device, dtype, width) = (&grad.device, grad.dtype(), lg.shape().dims2()?.1);
    if x.dtype() != dtype {
        candle_core::bail!("the gradient of edits of {:?} is in {dtype:?}", x.dtype())
    }
    let mut back = copy_of(grad, lg)?;
    edit::edit_back(&gpu(device), dtype, &view(x, lx)?, &mut back, width, list)?;
    stored(back, device)
}

/// A tensor's numbers again.
fn copy_of<'a>(x: &CudaStorage, layout: &Layout) -> Result<Buffer<'a>> {
    let device = &x.device;
    Ok(match view(x, layout)? {
        Buffer::F32View(x) => Buffer::F32(copied(&x, device)?),
        Buffer::Bf16View(x) => Buffer::Bf16(copied(&x, device)?),
        Buffer::F16View(x) => Buffer::F16(copied(&x, device)?),
        _ => candle_core::bail!("a kernel edits a tensor, and was given a buffer of its own"),
    })
}

fn copied<T: DeviceRepr>(x: &CudaView<T>, device: &CudaDevice) -> Result<CudaSlice<T>> {
    let mut to = unwritten(device, x.len())?;
    device.memcpy_dtod(x, &mut to)?;
    Ok(to)
}

/// [`dla::head_dots`] of tensors.
pub(in crate::ops) fn head_dots(
    [(z, lz), (through, lt)]: [(&CudaStorage, &Layout); 2],
    pairs: &[(u32, u32)],
    shape: [usize; 2],
) -> Result<CudaStorage> {
    let device = &z.device;
    if through.dtype() != DType::F32 {
        candle_core::bail!("head_dots along directions in {:?}; it takes f32", through.dtype())
    }
    let mut out = room(device, DType::F32, pairs.len() * shape[0])?;
    dla::head_dots(&gpu(device), z.dtype(), [&view(z, lz)?, &view(through, lt)?], &mut out, pairs, shape)?;
    stored(out, device)
}

/// [`norm::norm`] of tensors, of a weight and a bias in f32; a bias of no numbers is none.
pub(in crate::ops) fn normed(
    [(x, lx), (weight, lw), (bias, lb)]: [(&CudaStorage, &Layout); 3],
    by: NormBy,
) -> Result<CudaStorage> {
    let (device, dtype) = (&x.device, x.dtype());
    if weight.dtype() != DType::F32 || bias.dtype() != DType::F32 {
        candle_core::bail!("norm by a weight in {:?} and a bias in {:?}; it takes f32", weight.dtype(), bias.dtype())
    }
    let sizes = [lx, lw].map(|l| l.shape().elem_count());
    let mut out = room(device, dtype, sizes[0])?;
    let bias = if lb.shape().elem_count() == 0 { None } else { Some(view(bias, lb)?) };
    norm::norm(&gpu(device), dtype, [&view(x, lx)?, &view(weight, lw)?], bias.as_ref(), &mut out, sizes, by)?;
    stored(out, device)
}
