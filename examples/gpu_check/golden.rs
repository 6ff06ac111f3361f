//! Every family on the device, held to what `transformers` gives for a tiny checkpoint of it: logits, residual streams
//! and heads, and what the metric becomes when a head is silenced or taken from another prompt.

use crate::compare::{apart, off};
use crate::report::Finding;
use crate::{Failed, Setting};
use candle_core::{DType, Device, Tensor, safetensors};
use gatelens::model::arch::Arch;
use gatelens::model::{Model, Options as Loading};
use gatelens::plan::{Activation, Change, Edit, Handle, Metric, Part, Plan, Positions, Reading, Run, What};
use gatelens::run::{Options, run};
use gatelens::site::{Site, SiteKind};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What a number in f32 may be off by: the CPU's tests allow 1e-4 for activations and 2e-4 for metrics.
const OFF: f64 = 5e-4;

/// Numbers, row-major, with their shape.
type Numbers<'a> = (Vec<f32>, &'a [usize]);

/// A tiny checkpoint with its golden values.
pub struct Family {
    pub name: String,
    folder: PathBuf,
    golden: HashMap<String, Tensor>,
}

/// Golden values with the readouts that are to give them.
struct Asked {
    name: String,
    expected: Vec<f32>,
    readouts: Vec<Handle<Reading>>,
}

impl Family {
    /// All of a folder, by name.
    pub fn all(data: &Path) -> Result<Vec<Family>, Failed> {
        let listed = std::fs::read_dir(data).map_err(|e| format!("{}: {e}", data.display()))?;
        let mut folders = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        folders.retain(|folder| folder.join("golden.safetensors").exists());
        folders.sort();
        if folders.is_empty() {
            return Err(format!("{}: no fixtures of families are there", data.display()).into());
        }
        let read = |folder: PathBuf| -> Result<Family, Failed> {
            let golden = safetensors::load(folder.join("golden.safetensors"), &Device::Cpu)?;
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Ok(Family { name, folder, golden })
        };
        folders.into_iter().map(read).collect()
    }

    /// Its model.
    pub fn model(&self, device: &Device, dtype: DType, max_memory: Option<u64>) -> Result<Model, Failed> {
        let options = Loading { devices: vec![device.clone()], dtype, max_memory, ..Loading::default() };
        Ok(Model::open(&self.folder.to_string_lossy(), &options)?)
    }

    /// The tokens of one of two prompts of `input_ids` or `donor_ids`.
    pub fn ids(&self, name: &str, prompt: usize) -> Result<Vec<u32>, Failed> {
        let ids = self.golden.get(name).ok_or_else(|| format!("no golden {name}"))?.to_vec2::<i64>()?;
        let ids = ids.get(prompt).ok_or_else(|| format!("{name} has no row {prompt}"))?;
        Ok(ids.iter().map(|id| u32::try_from(*id)).collect::<Result<_, _>>()?)
    }

    /// Golden values, row-major, with their shape.
    fn golden(&self, name: &str) -> Result<Option<Numbers<'_>>, Failed> {
        let Some(tensor) = self.golden.get(name) else { return Ok(None) };
        Ok(Some((gatelens::ops::to_vec(tensor)?, tensor.dims())))
    }

    /// A plan of all that there are golden values of.
    fn plan(&self, arch: &Arch) -> Result<(Plan, Vec<Asked>), Failed> {
        let (mut plan, mut runs, mut asked) = (Plan::default(), Vec::new(), Vec::new());
        for i in 0..2 {
            let prompt = plan.prompt(format!("{i}"), self.ids("input_ids", i)?);
            runs.push((prompt, plan.prompt(format!("donor {i}"), self.ids("donor_ids", i)?)));
        }
        let in_layers = (0..arch.n_layers).flat_map(|l| [SiteKind::Z, SiteKind::ResidPost].map(|kind| kind.at(l)));
        for site in in_layers.chain([SiteKind::Logits.at(0)]) {
            asked.extend(self.at(&mut plan, &runs, site)?);
        }
        for (kind, with) in [("", "attn_layers"), ("mix_", "mix_layers"), ("mix_head_", "mix_layers")] {
            for (change, silenced) in [("zero_ablation", true), ("interchange_last", false)] {
                asked.extend(self.heads(&mut plan, &runs, arch, (&format!("{kind}{change}"), with), silenced)?);
            }
        }
        Ok((plan, asked))
    }

    /// A site at all positions.
    fn at(&self, plan: &mut Plan, runs: &[(Run, Run)], site: Site) -> Result<Option<Asked>, Failed> {
        let name = format!("clean.{site}");
        let Some((mut expected, mut shape)) = self.golden(&name)? else { return Ok(None) };
        if let [streams, _, _, _] = *shape
            && site.kind == SiteKind::ResidPost
        {
            // Of several residual streams, the sites are of the first.
            expected.truncate(expected.len() / streams.max(1));
            shape = &shape[1..];
        }
        let what = What::Activation(Activation { site, positions: Positions::All, part: Part::All });
        // Some fixtures hold the activations of the first prompt alone.
        let prompts = shape.first().copied().unwrap_or_default();
        let readouts = runs.iter().take(prompts).map(|(prompt, _)| plan.read(*prompt, what.clone())).collect();
        Ok(Some(Asked { name, expected, readouts }))
    }

    /// The metric with one head changed, or, where heads are not told apart, all that a mixer gives.
    fn heads(
        &self,
        plan: &mut Plan,
        runs: &[(Run, Run)],
        arch: &Arch,
        (name, with): (&str, &str),
        silenced: bool,
    ) -> Result<Option<Asked>, Failed> {
        let Some((all, shape)) = self.golden(name)? else { return Ok(None) };
        let (layers, heads) = match *shape {
            [_, layers, heads] => (layers, Some(heads)),
            [_, layers] => (layers, None),
            _ => return Err(format!("{name} has the shape {shape:?}").into()),
        };
        let recurrent = with == "mix_layers";
        // Where no layers are named, it is all of them.
        let with = self.golden(with)?.map(|(with, _)| with.into_iter().map(|l| l as usize).collect::<Vec<_>>());
        let (mut expected, mut readouts) = (Vec::new(), Vec::new());
        for (p, (prompt, donor)) in runs.iter().enumerate() {
            for layer in with.clone().unwrap_or_else(|| (0..layers).collect()) {
                for head in 0..heads.unwrap_or(1) {
                    let (kind, part) = match (heads, recurrent) {
                        (Some(_), true) => (SiteKind::MixZ, Part::Heads(vec![head])),
                        (Some(_), false) => (SiteKind::Z, Part::Heads(vec![head])),
                        (None, _) => (SiteKind::MixOut, Part::All),
                    };
                    let site = kind.at(layer).named_in(arch);
                    let (positions, change) = match silenced {
                        true => (Positions::All, Change::Zero),
                        false => (Positions::Last, Change::interchange(*donor)),
                    };
                    let fork = plan.fork(*prompt, vec![Edit { site, part, positions, change }]);
                    readouts.push(plan.read(fork, What::Metric(Metric::logit_difference(vec![11], vec![23]))));
                    let value = all.get((p * layers + layer) * heads.unwrap_or(1) + head);
                    expected.push(*value.ok_or_else(|| format!("{name} ends before layer {layer}"))?);
                }
            }
        }
        Ok(Some(Asked { name: name.to_string(), expected, readouts }))
    }

    /// What a model gives where there are golden values.
    fn found(&self, model: &Model) -> Result<Vec<(Asked, Vec<f32>)>, Failed> {
        let (plan, asked) = self.plan(&model.decoder.arch)?;
        let readings = run(&model.decoder, &plan, &Options::default())?;
        let values = |asked: Asked| {
            let found: Vec<f32> = asked.readouts.iter().flat_map(|readout| readings[*readout].values()).collect();
            (asked, found)
        };
        Ok(asked.into_iter().map(values).collect())
    }

    /// The largest difference from the golden values in f32, with where it is.
    fn off(&self, device: &Device) -> Result<(f64, String), Failed> {
        let found = self.found(&self.model(device, DType::F32, None)?)?;
        let each = found.iter().map(|(asked, found)| {
            let name = format!("{} {}", self.name, asked.name);
            (off(found, &asked.expected), name)
        });
        Ok(each.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default())
    }

    /// How far a device is from the golden values in bf16, where it is furthest.
    fn apart(&self, device: &Device) -> Result<f64, Failed> {
        let found = self.found(&self.model(device, DType::BF16, None)?)?;
        Ok(found.iter().map(|(asked, found)| apart(found, &asked.expected)).fold(0.0, f64::max))
    }
}

/// All families in f32.
pub fn in_f32(setting: &Setting) -> Result<(), Failed> {
    let families = Family::all(&setting.data)?;
    let (mut wrong, mut worst) = (Vec::new(), (0.0, String::new()));
    for family in &families {
        match family.off(&setting.device) {
            Err(e) => wrong.push(format!("{}: {e}", family.name)),
            Ok(off) => {
                if off.0 > OFF {
                    wrong.push(format!("{} is off by {:.1e}", off.1, off.0));
                }
                if off.0 > worst.0 {
                    worst = off;
                }
            }
        }
    }
    Finding::number("families", families.len() as f64, "").say()?;
    Finding::number("of them as transformers has them", (families.len() - wrong.len()) as f64, "").say()?;
    Finding::number(format!("largest difference, {}", worst.1), worst.0, "").say()?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// All families in bf16: nobody knows what is right to the last bit, so that the device may be twice as far off as the
/// CPU is.
pub fn in_bf16(setting: &Setting) -> Result<(), Failed> {
    let families = Family::all(&setting.data)?;
    let (mut wrong, mut each) = (Vec::new(), Vec::new());
    for family in &families {
        match family.apart(&setting.device).and_then(|there| Ok((there, family.apart(&Device::Cpu)?))) {
            Err(e) => wrong.push(format!("{}: {e}", family.name)),
            Ok((there, here)) => {
                // A router that chooses another expert moves what follows by more than rounding does.
                if there > 2.0 * here + 0.05 {
                    wrong.push(format!("{} is off by {there:.3}, on the CPU by {here:.3}", family.name));
                }
                each.push((there, here));
            }
        }
    }
    Finding::number("families", families.len() as f64, "").say()?;
    Finding::number("of them as near as on the CPU", (families.len() - wrong.len()) as f64, "").say()?;
    let most = |of: fn(&(f64, f64)) -> f64| each.iter().map(of).fold(0.0, f64::max);
    Finding::number("furthest family, as a share of its numbers", most(|each| each.0), "").say()?;
    Finding::number("furthest family on the CPU", most(|each| each.1), "").say()?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}
