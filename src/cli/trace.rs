//! `gatelens trace`: activations of prompts, as a safetensors file.

use super::{CliError, ModelArgs, bytes, say};
use crate::dataset::encode::prompt_ids;
use crate::dataset::read_prompts;
use crate::model::Model;
use crate::plan::{Part, Plan, Positions, What};
use crate::run::{Engine, Options, Reading, run};
use crate::rundir::write_file;
use crate::site::{Site, SiteKind, parse_sites};
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::PathBuf;

/// The arguments of `trace`.
#[derive(clap::Args)]
pub(super) struct Trace {
    #[command(flatten)]
    model: ModelArgs,

    /// Prompts, JSON Lines: {"id", "prompt"}
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,

    /// Sites: `z` is that site in every layer, `z.3` one, `z.3-7` a range; separated by commas
    #[arg(long, value_name = "LIST")]
    sites: String,

    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Replace the file if it exists
    #[arg(long)]
    force: bool,

    /// Which engine computes
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
}

impl Trace {
    pub(super) fn run(&self) -> Result<(), CliError> {
        self.check_out()?;
        let dataset = read_prompts(&self.prompts)?;
        let model = self.model.open()?;
        let sites = self.sites(&model)?;
        let mut plan = Plan::default();
        for item in &dataset.items {
            let ids = prompt_ids(&model, &item.prompt, dataset.at(item.line, &item.id, "prompt"))?;
            let prompt = plan.prompt(item.id.clone(), ids);
            for site in &sites {
                let what = What::Activation { site: *site, positions: Positions::All, part: Part::All };
                plan.read(prompt, what);
            }
        }
        check_widths(&plan, &sites)?;
        let readings = run(&model.decoder, &plan, &Options { engine: self.engine, ..Options::default() })?;
        let tensors = tensors(&plan, &sites, &readings);
        let views: Result<HashMap<&str, TensorView>, _> = tensors.iter().map(Named::view).collect();
        let views = views.map_err(|e| CliError::Failed(format!("{}: {e}", self.out.display())))?;
        let about = HashMap::from([("model".to_string(), model.name.clone())]);
        let file = safetensors::serialize(views, Some(about)).map_err(|e| CliError::Failed(e.to_string()))?;
        write_file(&self.out, &file).map_err(|e| CliError::Failed(e.to_string()))?;
        self.summary(&plan, &tensors, file.len())
    }

    /// Refuses what cannot or must not be written to, before anything is computed.
    fn check_out(&self) -> Result<(), CliError> {
        let refused = |why: &str| Err(CliError::Input(format!("{}: {why}", self.out.display())));
        let folder = self.out.parent().filter(|p| !p.as_os_str().is_empty());
        if folder.is_some_and(|p| !p.is_dir()) {
            return refused("there is no such folder to write it in; make it, or choose another --out");
        }
        match std::fs::metadata(&self.out) {
            Err(_) => Ok(()),
            // A file takes its place under a name of its own, which a device or a folder must not lose.
            Ok(there) if !there.is_file() => refused("is not a file; choose another --out"),
            Ok(_) if !self.force => refused("exists already; choose another --out, or replace it with --force"),
            Ok(_) => Ok(()),
        }
    }

    fn sites(&self, model: &Model) -> Result<Vec<Site>, CliError> {
        let mut sites = parse_sites(&self.sites, &model.decoder.arch)?;
        sites.sort();
        sites.dedup();
        if sites.is_empty() {
            return Err(CliError::Input("--sites: names no site; try `--sites resid_post,z,logits`".to_string()));
        }
        Ok(sites)
    }

    fn summary(&self, plan: &Plan, tensors: &[Named], size: usize) -> Result<(), CliError> {
        let rows: usize = plan.prompts.iter().map(|p| p.ids.len()).sum();
        let (out, n) = (self.out.display(), tensors.len());
        if self.model.json {
            let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
            let summary = serde_json::json!({ "out": out.to_string(), "rows": rows, "prompts": plan.prompts.len(), "tensors": names });
            return say(&summary.to_string());
        }
        say(&format!("{out}: {n} tensors of {rows} rows of {} prompts, {}", plan.prompts.len(), bytes(size as u64)))
    }
}

/// Rows of scores and patterns are as long as their prompts: only prompts of one length stand in one tensor.
fn check_widths(plan: &Plan, sites: &[Site]) -> Result<(), CliError> {
    let ragged = sites.iter().find(|s| matches!(s.kind, SiteKind::Scores | SiteKind::Pattern));
    let first = &plan.prompts[0];
    match (ragged, plan.prompts.iter().find(|p| p.ids.len() != first.ids.len())) {
        (Some(site), Some(other)) => Err(CliError::Input(format!(
            "site `{site}`: rows are as long as their prompt, and `{}` has {} tokens, `{}` {}; trace prompts of one length",
            first.name,
            first.ids.len(),
            other.name,
            other.ids.len()
        ))),
        _ => Ok(()),
    }
}

/// A tensor to be written: its name, dtype, shape and bytes.
struct Named {
    name: String,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Named {
    fn of_i64(name: &str, values: impl Iterator<Item = i64>) -> Self {
        let data: Vec<u8> = values.flat_map(i64::to_le_bytes).collect();
        Named { name: name.to_string(), dtype: safetensors::Dtype::I64, shape: vec![data.len() / 8], data }
    }

    fn view(&self) -> Result<(&str, TensorView<'_>), safetensors::SafeTensorError> {
        Ok((&self.name, TensorView::new(self.dtype, self.shape.clone(), &self.data)?))
    }
}

/// Each site's rows of all prompts one after another `[rows, width]`, `offsets` `[prompts + 1]` and `ids` `[rows]`.
fn tensors(plan: &Plan, sites: &[Site], readings: &[Reading]) -> Vec<Named> {
    let mut tensors = Vec::new();
    for (i, site) in sites.iter().enumerate() {
        let (mut rows, mut width, mut data) = (0, 0, Vec::new());
        for reading in readings.iter().skip(i).step_by(sites.len()) {
            if let Reading::Array { shape, values } = reading {
                rows += shape[0];
                width = shape[1];
                data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        tensors.push(Named { name: site.to_string(), dtype: safetensors::Dtype::F32, shape: vec![rows, width], data });
    }
    let lengths = plan.prompts.iter().map(|p| p.ids.len() as i64);
    let ends = lengths.scan(0, |at, n| {
        *at += n;
        Some(*at)
    });
    tensors.push(Named::of_i64("offsets", std::iter::once(0).chain(ends)));
    tensors.push(Named::of_i64("ids", plan.prompts.iter().flat_map(|p| p.ids.iter().map(|id| i64::from(*id)))));
    tensors
}
