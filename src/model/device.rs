//! Which device and dtype a model runs on.

use crate::parameters::param;
use candle_core::{DType, Device};

/// A device that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    #[error("device `{found}`: unknown; write cpu, cuda or cuda:N")]
    Unknown { found: String },
    #[error("device `{found}`: this build has no CUDA in it; build it with the feature `cuda`, or use {cpu}", cpu = param("device").is("cpu"))]
    NotBuilt { found: String },
    #[error("device `{found}`: the CUDA driver gives no such GPU ({why}); use {cpu}", cpu = param("device").is("cpu"))]
    NotThere { found: String, why: String },
    #[error("device `{found}`: named twice; name each GPU once")]
    Twice { found: String },
    #[error("dtype `{found}`: unknown; write f32, bf16 or f16")]
    UnknownDtype { found: String },
}

/// The devices that a user names, with commas between them.
///
/// # Errors
/// If one is not there, the build cannot use it, or a GPU is named twice.
pub fn devices(names: &str) -> Result<Vec<Device>, DeviceError> {
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let found: Vec<Device> = names.iter().map(|name| device(name)).collect::<Result<_, _>>()?;
    for (i, (name, a)) in names.iter().zip(&found).enumerate() {
        if !a.is_cpu() && found[..i].iter().any(|b| b.location() == a.location()) {
            return Err(DeviceError::Twice { found: (*name).to_string() });
        }
    }
    Ok(found)
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
    // candle's errors go on with a backtrace where one is asked for.
    let why = |e: candle_core::Error| e.to_string().lines().next().unwrap_or_default().to_string();
    Device::new_cuda(index).map_err(|e| DeviceError::NotThere { found: found(), why: why(e) })
}

/// The device of a user who names none, and why it is that one where there was a choice: a build without CUDA has none.
pub fn default() -> (Device, Option<String>) {
    match device("cuda") {
        Ok(device) => {
            let why = format!("running on {}: it is there, and no {} was given", name(&device), param("device"));
            (device, Some(why))
        }
        Err(DeviceError::NotBuilt { .. }) => (Device::Cpu, None),
        Err(e) => (Device::Cpu, Some(format!("running on the CPU, as no {} was given: {e}", param("device")))),
    }
}

/// A device as users name it.
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        candle_core::DeviceLocation::Cpu => "cpu".to_string(),
    }
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
