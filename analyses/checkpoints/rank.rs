//! How much of each matrix does a model use on these prompts? A matrix seen through the inputs that it gets and the outputs that it
//! gives (utilised rank).
//!
//! After Garg, Ravikumar and Roy 2024, "Revealing the Utilized Rank of Subspaces of Learning in Neural Networks": the directions that
//! hold most of the energy of a matrix's inputs, and those of its outputs, are found on data; what of the matrix leads from the ones
//! to the others is what is used, and its rank is the utilised rank.

mod energy;
mod report;
mod tables;

pub use tables::RankRow;

use crate::analyses::inputs::{Prompts, layer_list};
use crate::analyses::prelude::*;
use crate::linear::LinearError;
use crate::model::weights::Linear;
use crate::study::Gather;
use crate::study::session::SessionError;
use candle_core::{DType, Tensor};
use energy::{Energy, Used, used};
use rayon::prelude::*;

parameters! {
    /// Find how much of each matrix is used on prompts (utilised rank)
    #[serde(default)]
    pub struct Rank {
        ..prompts: PromptArgs;

        /// Count directions until they hold this share of the energy
        energy: f64 = 0.99, in 0.5..1.0, [value_name = "SHARE"];

        /// Measure the matrices of these layers: 3, 0-5,8 (default: all)
        layers: Option<String>, [value_name = "LAYERS"];

        /// Count the first token of each prompt too, whose activations are often a hundred times as large as all others
        first: bool;
    }
}

/// Prompts, and the layers whose matrices are measured.
pub struct Asked {
    prompts: Prompts,
    layers: Vec<usize>,
}

/// A matrix of a layer, by what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is called in tables.
    pub kind: &'static str,
    /// The site whose activations it multiplies.
    pub reads: SiteKind,
}

/// The matrices that are measured of a layer, in their order.
const PLACES: [Place; 7] = [
    Place { kind: "q", reads: SiteKind::AttnIn },
    Place { kind: "k", reads: SiteKind::AttnIn },
    Place { kind: "v", reads: SiteKind::AttnIn },
    Place { kind: "o", reads: SiteKind::Z },
    Place { kind: "gate", reads: SiteKind::MlpIn },
    Place { kind: "up", reads: SiteKind::MlpIn },
    Place { kind: "down", reads: SiteKind::MlpAct },
];

/// The sites that these read.
const SITES: [SiteKind; 4] = [SiteKind::AttnIn, SiteKind::Z, SiteKind::MlpIn, SiteKind::MlpAct];

/// What was found of a matrix.
pub struct OfMatrix {
    pub layer: usize,
    pub kind: &'static str,
    pub rows: usize,
    pub columns: usize,
    pub used: Used,
}

/// Of all matrices, and of how many tokens.
#[derive(Default)]
pub struct Measured {
    pub matrices: Vec<OfMatrix>,
    pub tokens: usize,
}

impl Analysis for Rank {
    const NAME: &'static str = "rank";
    const TITLE: &'static str = "How much of each matrix is used";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let layers = layer_list(self.layers.as_deref(), model.decoder.arch.n_layers)?;
        let prepared = self.prompts.encoded(model)?;
        if self.counted(&prepared.items).iter().all(|positions| positions.is_empty()) {
            let path = self.prompts.prompts.display();
            let why =
                format!("has no prompt of two tokens: give longer ones, or count first tokens with {}", param("first"));
            return Err(AnalysisError::Bad(format!("{path}: {why}")));
        }
        Ok(prepared.map(|prompts| Asked { prompts, layers }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let positions = self.counted(&items.prompts);
        let mut found = Measured { tokens: positions.iter().map(Vec::len).sum(), ..Measured::default() };
        let sites: Vec<Vec<Site>> = items.layers.iter().map(|layer| sites_of(*layer, arch)).collect();
        let mut from = 0;
        while from < sites.len() {
            // As many layers at once as fit: each takes the square of its sites' widths.
            let sizes = sites[from..].iter().map(|of| of.iter().map(|site| width(site, arch).pow(2)).sum::<usize>());
            let mut held = 0;
            let fit = sizes
                .take_while(|size| {
                    held += size;
                    held <= HELD
                })
                .count()
                .max(1);
            let some = &sites[from..from + fit];
            let flat: Vec<Site> = some.iter().flatten().copied().collect();
            let energies = self.energies(runner, items, &flat, &positions)?;
            if !runner.is_counting() {
                for layer in &items.layers[from..from + fit] {
                    found.matrices.extend(self.of_layer(runner.model(), *layer, &flat, &energies)?);
                }
            }
            from += fit;
        }
        Ok(found)
    }

    fn tables(&self, about: &About, _: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        Ok(tables::table(self, about, &measured)?.into())
    }
}

/// Numbers of inner products that are held at once.
const HELD: usize = 1 << 26;

/// The sites of a layer that its matrices read, as far as it has them. Matrices of experts are not measured.
fn sites_of(layer: usize, arch: &crate::model::arch::Arch) -> Vec<Site> {
    let of_experts = arch.layers[layer].channel.neurons().experts > 0;
    let measured = |kind: &SiteKind| !of_experts || !matches!(kind, SiteKind::MlpIn | SiteKind::MlpAct);
    SITES.into_iter().filter(measured).filter_map(|kind| kind.at(layer).check(arch).ok()).collect()
}

fn width(site: &Site, arch: &crate::model::arch::Arch) -> usize {
    site.width(arch, 0)
}

impl Rank {
    /// The positions of each prompt that count.
    fn counted(&self, prompts: &Prompts) -> Vec<Vec<usize>> {
        prompts.ids.iter().map(|ids| (usize::from(!self.first)..ids.len()).collect()).collect()
    }

    /// The inner products of what stands at each site, over all tokens that count.
    fn energies(
        &self,
        runner: &dyn Runner,
        items: &Asked,
        sites: &[Site],
        positions: &[Vec<usize>],
    ) -> Result<Vec<Energy>, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let longest = positions.iter().map(Vec::len).max().unwrap_or(1);
        let each: usize = sites.iter().map(|site| longest * width(site, arch)).sum();
        let (mut plans, mut asked) = (Vec::new(), Vec::new());
        for some in batches(items.prompts.ids.len(), each.div_ceil(1024)) {
            let mut plan = Plan::default();
            let mut of_plan = Vec::new();
            for i in some.filter(|i| !positions[*i].is_empty()) {
                let run = plan.prompt(items.prompts.dataset.items[i].id.clone(), items.prompts.ids[i].clone());
                of_plan.push(Vec::from_iter(sites.iter().map(|site| {
                    let positions = Positions::At(positions[i].clone());
                    plan.read(run, Activation { site: *site, positions, part: Part::All })
                })));
            }
            if !of_plan.is_empty() {
                plans.push(plan);
                asked.push(of_plan);
            }
        }
        let mut sums =
            Sums { asked: &asked, energies: sites.iter().map(|site| Energy::of(width(site, arch))).collect() };
        let readings = runner.gather(&plans, "rank: inner products of sites", &mut sums)?;
        Ok(readings.iter().map(Energy::read).collect())
    }

    /// The matrices of a layer.
    fn of_layer(
        &self,
        model: &Model,
        layer: usize,
        sites: &[Site],
        energies: &[Energy],
    ) -> Result<Vec<OfMatrix>, AnalysisError> {
        let failed = |e: String| AnalysisError::Failed(format!("{}: layer {layer}: {e}", model.name));
        let weights = model.decoder.weights(layer).map_err(|e| failed(e.to_string()))?;
        let attention = weights.mixer.attention().filter(|attention| attention.latent.is_none());
        let mlp = weights.channel.mlp();
        let mut linears: Vec<(Place, &Linear)> = Vec::new();
        let [q, k, v, o, gate, up, down] = PLACES;
        if let Some(attention) = attention {
            linears.push((q, &attention.q));
            linears.extend(attention.k.as_ref().map(|linear| (k, linear)));
            linears.extend(attention.v.as_ref().map(|linear| (v, linear)));
            linears.push((o, &attention.o));
        }
        if let Some(mlp) = mlp {
            linears.extend(mlp.gate.as_ref().map(|linear| (gate, linear)));
            linears.extend([(up, &mlp.up), (down, &mlp.down)]);
        }
        let each = |(place, linear): (Place, &Linear)| -> Result<Option<OfMatrix>, LinearError> {
            let site = place.reads.at(layer);
            let Some(energy) = sites.iter().position(|known| *known == site).and_then(|i| energies.get(i)) else {
                return Ok(None);
            };
            let matrix = whole(linear)?;
            let (rows, columns) = matrix.dims2()?;
            let used = used(&matrix, energy, self.energy)?;
            Ok(Some(OfMatrix { layer, kind: place.kind, rows, columns, used }))
        };
        let found: Result<Vec<Option<OfMatrix>>, LinearError> = linears.into_par_iter().map(each).collect();
        Ok(found.map_err(|e| failed(e.to_string()))?.into_iter().flatten().collect())
    }
}

/// A matrix `[out, in]`, f64.
fn whole(linear: &Linear) -> Result<Tensor, LinearError> {
    let rows: Vec<u32> = (0..linear.weight.dims()?.0 as u32).collect();
    Ok(linear.weight.rows(&rows)?.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?)
}

/// Adds up inner products as plans are run.
struct Sums<'a> {
    /// By plan, prompt and site.
    asked: &'a [Vec<Vec<Handle<Array>>>],
    energies: Vec<Energy>,
}

impl Gather for Sums<'_> {
    fn take(&mut self, plan: usize, readings: &Readings) -> Result<(), SessionError> {
        for of_prompt in &self.asked[plan] {
            for (energy, handle) in self.energies.iter_mut().zip(of_prompt) {
                energy.add(&readings[*handle].values).map_err(|e| SessionError::Unmade(e.to_string()))?;
            }
        }
        Ok(())
    }

    fn made(&self) -> usize {
        self.energies.len()
    }

    fn finish(&mut self) -> Vec<crate::plan::Reading> {
        std::mem::take(&mut self.energies).into_iter().map(Energy::reading).collect()
    }
}
