//! The flags that every command on a model takes.

use super::CliError;
use crate::model::{Model, Options, device};
use candle_core::{DType, Device};

/// The model and how it runs.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// A Hugging Face folder, a `.gguf` file, or `hf:OWNER/NAME[@REVISION]`
    pub model: String,

    /// cpu, cuda or cuda:N (default: cuda if the build and the machine have it)
    #[arg(long)]
    pub device: Option<String>,

    /// f32, bf16 or f16 (default: f32 on the CPU, bf16 on a GPU)
    #[arg(long)]
    pub dtype: Option<String>,

    /// Threads (default: one a core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// A key of config.json that you know not to change the forward pass (repeatable)
    #[arg(long, value_name = "KEY")]
    pub ignore_config_key: Vec<String>,

    /// No progress bar, no warnings
    #[arg(long)]
    pub quiet: bool,

    /// A machine-readable summary on standard output
    #[arg(long)]
    pub json: bool,
}

impl ModelArgs {
    /// Loads the model and says on standard error what a user should know about it.
    ///
    /// # Errors
    /// If the device, the dtype or the model cannot be used.
    pub fn open(&self) -> Result<Model, CliError> {
        if let Some(n) = self.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(n)).build_global();
            pool.map_err(|e| CliError::Failed(format!("threads: {e}")))?;
        }
        let device = self.device()?;
        let dtype = match &self.dtype {
            Some(name) => device::dtype(name)?,
            None if device.is_cpu() => DType::F32,
            None => DType::BF16,
        };
        let ignore_config_keys = self.ignore_config_key.clone();
        let model = Model::open(&self.model, &Options { device, dtype, ignore_config_keys })?;
        if !self.quiet {
            model.warnings.iter().for_each(|w| eprintln!("warning: {}: {w}", model.name));
        }
        Ok(model)
    }

    fn device(&self) -> Result<Device, CliError> {
        match &self.device {
            Some(name) => Ok(device::device(name)?),
            None if !candle_core::utils::cuda_is_available() => Ok(Device::Cpu),
            None => Ok(device::device("cuda").unwrap_or_else(|e| {
                eprintln!("warning: {e}; running on the CPU");
                Device::Cpu
            })),
        }
    }

    /// The device's name, for records.
    pub fn device_name(device: &Device) -> String {
        match device.location() {
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
            candle_core::DeviceLocation::Cpu => "cpu".to_string(),
        }
    }
}
