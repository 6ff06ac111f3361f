//! Checks gatelens on a GPU and measures it there, in a few minutes. `scripts/gpu_check.sh` builds this, packs it with
//! its data and runs it.
//!
//! `gpu_check [--device cuda] [--data DIR] [--out FILE] [--scratch DIR] [--seconds N]` runs every stage. What each
//! found goes to a JSON file and, as a Markdown table, to standard output; the exit status is 1 if one failed. A stage
//! has a process of its own and a time limit, because a GPU that failed once is of no more use to a process. `--stage
//! NAME` runs one stage and prints what it finds, a JSON object a line. With `--device cpu` sizes are smaller, and a
//! build without CUDA will do.

mod card;
#[path = "../../benches/common/mod.rs"]
mod common;
mod compare;
mod engines;
mod golden;
mod kernels;
mod profile;
mod random;
mod rates;
mod report;
mod stages;
mod sweep;

use candle_core::Device;
use gatelens::model::device;
use report::Report;
use stages::STAGES;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Failed = Box<dyn std::error::Error>;

/// What is left of the time at least for a stage to begin.
const WORTH_BEGINNING: Duration = Duration::from_secs(5);

/// The command line.
struct Arguments {
    device: String,
    /// The families' fixtures, a folder each.
    data: PathBuf,
    out: PathBuf,
    /// In a folder of its own in it are the weights of random models, while a stage runs.
    scratch: PathBuf,
    /// For all stages together.
    seconds: u64,
    stage: Option<String>,
}

/// What a stage runs on.
struct Setting {
    device: Device,
    /// As the user named it.
    name: String,
    data: PathBuf,
    scratch: PathBuf,
}

impl Setting {
    /// Whether sizes are those of a CPU.
    fn small(&self) -> bool {
        self.device.is_cpu()
    }
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = OsString>) -> Result<Arguments, Failed> {
        let beside = std::env::current_exe()?.with_file_name("data");
        let (device, out, scratch) = ("cuda".to_string(), PathBuf::from("gpu_check.json"), std::env::temp_dir());
        let mut found = Arguments { device, data: beside, out, scratch, seconds: 460, stage: None };
        while let Some(flag) = words.next() {
            let flag = flag.to_string_lossy().into_owned();
            let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
            let text = value.to_string_lossy().into_owned();
            match flag.as_str() {
                "--device" => found.device = text,
                "--data" => found.data = value.into(),
                "--out" => found.out = value.into(),
                "--scratch" => found.scratch = value.into(),
                "--seconds" => found.seconds = text.parse::<u64>().map_err(|e| format!("--seconds {text}: {e}"))?,
                "--stage" => found.stage = Some(text),
                _ => return Err(format!("{flag}: unknown; see the first lines of examples/gpu_check/main.rs").into()),
            }
        }
        Ok(found)
    }

    fn setting(&self) -> Result<Setting, Failed> {
        let device = device::device(&self.device)?;
        let name = device::name(&device);
        Ok(Setting { device, name, data: self.data.clone(), scratch: self.scratch.clone() })
    }
}

fn main() -> ExitCode {
    match Arguments::read(std::env::args_os().skip(1)).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn run(arguments: Arguments) -> Result<bool, Failed> {
    match arguments.stage.as_deref() {
        None => run_all(arguments),
        Some(profile::PROFILED) => profile::profiled(&arguments.setting()?).map(|()| true),
        Some(name) => {
            let stage = STAGES.iter().find(|stage| stage.name == name).ok_or_else(|| format!("no stage {name}"))?;
            (stage.run)(&arguments.setting()?).map(|()| true)
        }
    }
}

fn run_all(mut arguments: Arguments) -> Result<bool, Failed> {
    arguments.scratch.push(format!("gpu_check-{}", std::process::id()));
    std::fs::create_dir_all(&arguments.scratch)?;
    let (begun, all) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let mut report = Report::new(&arguments.device);
    for stage in &STAGES {
        let left = all.saturating_sub(begun.elapsed());
        let outcome = match left < WORTH_BEGINNING {
            true => stage.not_begun(),
            false => stage.in_own_process(&arguments, left.min(Duration::from_secs(stage.limit_s))),
        };
        eprintln!("{}: {}", stage.name, outcome.line());
        report.stages.push(outcome);
        report.seconds = begun.elapsed().as_secs_f64();
        // After each stage: whoever stops this keeps what was found so far.
        report.write(&arguments.out)?;
    }
    std::fs::remove_dir_all(&arguments.scratch)?;
    println!("{}", report.table());
    Ok(report.passed())
}
