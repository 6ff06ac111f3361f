//! Where the time of a sweep goes, kernel by kernel, if a profiler is there: Nsight Systems, else Nsight Compute.

use crate::random::{LARGE, Shape, Weights};
use crate::report::Finding;
use crate::sweep::{metrics, plan};
use crate::{Failed, Setting};
use candle_core::DType;
use gatelens::run::Engine;
use std::collections::HashMap;
use std::process::Command;

/// The stage that a profiler runs.
pub const PROFILED: &str = "profiled";

/// Kernels that are named; the others are added up.
const NAMED: usize = 15;

/// Layers of 7B that are profiled: all are alike.
const LAYERS: usize = 4;

/// Pairs that the sweep is of, so that these layers have about as many rows as those in the middle of the whole model.
const PAIRS: usize = 4;

/// A sweep, twice: the first time kernels are compiled.
pub fn profiled(setting: &Setting) -> Result<(), Failed> {
    let shape = if setting.small() { LARGE.for_cpu() } else { LARGE };
    let shape = Shape { layers: shape.layers.min(LAYERS), ..shape };
    let weights = Weights::write(shape, &setting.scratch)?;
    let model = weights.open(&setting.device, DType::BF16, None)?;
    let heads: Vec<(usize, usize)> = model.heads().collect();
    let sweep = plan(&model, &heads, PAIRS);
    for _ in 0..2 {
        metrics(&model, &sweep, Engine::Wavefront)?;
    }
    Ok(())
}

pub fn stage(setting: &Setting) -> Result<(), Failed> {
    if setting.device.is_cpu() {
        profiled(setting)?;
        return Finding::text("profile", "kernels are a GPU's").say();
    }
    let (tool, kernels) = if is_there("nsys") {
        ("nsys", nsys(setting)?)
    } else if is_there("ncu") {
        ("ncu", ncu(setting)?)
    } else {
        return Finding::text("profile", "neither nsys nor ncu is there").say();
    };
    let all: f64 = kernels.values().map(|kernel| kernel.0).sum();
    if all == 0.0 {
        return Err(format!("{tool} told of no kernels").into());
    }
    let (layers, pairs) = (LAYERS, PAIRS);
    Finding::text("profile", format!("{tool}: {layers} layers of 7B in bf16, {pairs} pairs, two sweeps")).say()?;
    Finding::number("all kernels", all / 1e6, "ms").say()?;
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for (name, (ns, launches)) in kernels.iter().take(NAMED) {
        let of_all = format!("{name}, {launches} launches");
        Finding::number(of_all, 100.0 * ns / all, "% of the time").say()?;
    }
    let rest: f64 = kernels.iter().skip(NAMED).map(|kernel| kernel.1.0).sum();
    Finding::number(
        format!("{} other kernels", kernels.len().saturating_sub(NAMED)),
        100.0 * rest / all,
        "% of the time",
    )
    .say()
}

/// Nanoseconds and launches of each kernel.
type Kernels = HashMap<String, (f64, u64)>;

fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|done| done.status.success())
}

/// What a tool prints.
fn printed(command: &mut Command) -> Result<String, Failed> {
    let done = command.output()?;
    if !done.status.success() {
        let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).trim().to_string());
        return Err(format!("{command:?} ended with {}: {}", done.status, said.join(" ")).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// This program at the stage that is profiled, as the last words of a profiler's command.
fn with_program<'a>(command: &'a mut Command, setting: &Setting) -> Result<&'a mut Command, Failed> {
    command.arg(std::env::current_exe()?).args(["--stage", PROFILED, "--device", &setting.name]);
    Ok(command.arg("--data").arg(&setting.data).arg("--scratch").arg(&setting.scratch))
}

fn nsys(setting: &Setting) -> Result<Kernels, Failed> {
    let to = setting.scratch.join("profile");
    let mut profile = Command::new("nsys");
    profile.args(["profile", "--trace", "cuda", "--sample", "none", "--cpuctxsw", "none", "--force-overwrite", "true"]);
    printed(with_program(profile.arg("--output").arg(&to), setting)?)?;
    let mut stats = Command::new("nsys");
    stats.args(["stats", "--force-export", "true", "--report", "cuda_gpu_kern_sum", "--format", "csv"]);
    let text = printed(stats.arg(to.with_extension("nsys-rep")))?;
    added(&text, "Name", "Total Time (ns)", Some("Instances"))
}

fn ncu(setting: &Setting) -> Result<Kernels, Failed> {
    let mut profile = Command::new("ncu");
    profile.args(["--csv", "--print-units", "base", "--clock-control", "none", "--metrics", "gpu__time_duration.sum"]);
    added(&printed(with_program(&mut profile, setting)?)?, "Kernel Name", "Metric Value", None)
}

/// Adds up the nanoseconds of each name in the table of comma-separated values within a tool's output. A line is so
/// many launches as a column of its own says, else one.
fn added(text: &str, name: &str, ns: &str, launches: Option<&str>) -> Result<Kernels, Failed> {
    let mut lines = text.lines().map(fields).skip_while(|line| !line.iter().any(|field| field == name));
    let header = lines.next().ok_or_else(|| format!("no table with a column `{name}` in: {text}"))?;
    let column = |name: &str| {
        let found = header.iter().position(|field| field == name);
        found.ok_or_else(|| format!("no column `{name}` in: {}", header.join(", ")))
    };
    let (name, ns, launches) = (column(name)?, column(ns)?, launches.map(column).transpose()?);
    let mut found = Kernels::new();
    for line in lines.filter(|line| line.len() == header.len()) {
        let number = |at: usize| line[at].replace(',', "").parse::<f64>().map_err(|e| format!("{}: {e}", line[at]));
        let kernel = found.entry(short(&line[name])).or_default();
        kernel.0 += number(ns)?;
        kernel.1 += launches.map(number).transpose()?.map_or(1, |launches| launches as u64);
    }
    Ok(found)
}

/// The fields of a line of comma-separated values.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        if c == '"' {
            quoted = !quoted;
        } else if c == ',' && !quoted {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            field.push(c);
        }
    }
    fields
}

/// A kernel's name without its arguments and what its template is of.
fn short(name: &str) -> String {
    let plain = name.strip_prefix("void ").unwrap_or(name);
    plain.split(['<', '(']).next().unwrap_or(plain).trim().chars().take(60).collect()
}
