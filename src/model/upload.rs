//! Weights on their way to a device while it computes.

use candle_core::{Device, Result, Tensor};

/// Copies weights to one device, beside what that device is doing.
///
/// A GPU runs what it is given in order. What is streamed is copied in a queue of its own, so that the next layer arrives
/// while the one before it runs; the first kernel that reads a weight waits for its copy.
pub(super) struct Upload {
    device: Device,
    #[cfg(feature = "cuda")]
    queue: Option<std::sync::Arc<cudarc::driver::CudaStream>>,
}

impl Upload {
    /// An upload in the order of all else that the device does.
    pub(super) fn in_order(device: &Device) -> Upload {
        Upload {
            device: device.clone(),
            #[cfg(feature = "cuda")]
            queue: None,
        }
    }

    /// An upload beside what the device does.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn beside(device: &Device) -> Result<Upload> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(gpu) = device {
            let queue = gpu.cuda_stream().context().new_stream().map_err(candle_core::Error::wrap)?;
            return Ok(Upload { device: device.clone(), queue: Some(queue) });
        }
        Ok(Upload::in_order(device))
    }

    /// A tensor of the host, on the device.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn send(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let (Device::Cuda(gpu), Some(queue)) = (&self.device, &self.queue) {
            return queued::send(x, gpu, queue);
        }
        x.to_device(&self.device)
    }
}

#[cfg(feature = "cuda")]
mod queued {
    use candle_core::cuda_backend::CudaDType;
    use candle_core::op::BackpropOp;
    use candle_core::{CpuStorage, CudaDevice, CudaStorage, Result, Storage, Tensor};
    use cudarc::driver::{CudaStream, DeviceRepr};
    use std::sync::Arc;

    /// A contiguous tensor of the host, copied in a queue.
    pub fn send(x: &Tensor, gpu: &CudaDevice, queue: &Arc<CudaStream>) -> Result<Tensor> {
        let x = x.contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let Some((from, to)) = layout.contiguous_offsets() else {
            candle_core::bail!("a weight that is not contiguous")
        };
        let sent = match &*storage {
            Storage::Cpu(CpuStorage::F32(x)) => copied(&x[from..to], gpu, queue)?,
            Storage::Cpu(CpuStorage::BF16(x)) => copied(&x[from..to], gpu, queue)?,
            Storage::Cpu(CpuStorage::F16(x)) => copied(&x[from..to], gpu, queue)?,
            _ => candle_core::bail!("a weight that is neither f32, bf16 nor f16 on the host"),
        };
        Ok(Tensor::from_storage(Storage::Cuda(sent), layout.shape().clone(), BackpropOp::none(), false))
    }

    fn copied<T: DeviceRepr + CudaDType>(x: &[T], gpu: &CudaDevice, queue: &Arc<CudaStream>) -> Result<CudaStorage> {
        let slice = queue.clone_htod(x).map_err(candle_core::Error::wrap)?;
        Ok(CudaStorage::wrap_cuda_slice(slice, gpu.clone()))
    }
}
