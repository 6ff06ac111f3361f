//! Which device and dtype a model runs on.

use candle_core::{DType, Device};

/// A device that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    #[error("device `{found}`: unknown; write cpu, cuda or cuda:N")]
    Unknown { found: String },
    #[error("device `{found}`: this build has no CUDA in it; build it with --features cuda, or use --device cpu")]
    NotBuilt { found: String },
    #[error("device `{found}`: {why}; use --device cpu")]
    NotThere { found: String, why: String },
    #[error("dtype `{found}`: unknown; write f32, bf16 or f16")]
    UnknownDtype { found: String },
}

/// The device that a user names.
///
/// # Errors
/// If there is no such device, or the build cannot use it.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    let found = || name.to_string();
    let index = match name.split_once(':') {
        None if name == "cpu" => return Ok(Device::Cpu),
        None if name == "cuda" => 0,
        Some(("cuda", n)) => n.parse().map_err(|_| DeviceError::Unknown { found: found() })?,
        _ => return Err(DeviceError::Unknown { found: found() }),
    };
    if !candle_core::utils::cuda_is_available() {
        return Err(DeviceError::NotBuilt { found: found() });
    }
    Device::new_cuda(index).map_err(|e| DeviceError::NotThere { found: found(), why: e.to_string() })
}

/// The dtype that a user names.
///
/// # Errors
/// If it is none of f32, bf16 and f16.
pub fn dtype(name: &str) -> Result<DType, DeviceError> {
    match name {
        "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        "f16" => Ok(DType::F16),
        _ => Err(DeviceError::UnknownDtype { found: name.to_string() }),
    }
}
