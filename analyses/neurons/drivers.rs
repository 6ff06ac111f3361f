//! What drives neurons: what each head, each MLP and the embedding add to what their gates read.
//!
//! What a gate reads is the residual stream through the MLP's norm and the gate's row. The stream is a sum, so that this is a sum too
//! once the norms' scales are held fixed: as an attribution is one of a logit difference, so this is one of the gates. Of an MLP
//! without a gate it is what the non-linearity reads. It is the mean over the listed neurons; a part adds 0 to those that come before
//! it. A gate that gets more is further open, whichever way its neuron writes. Source: Lee et al. 2025, "The Geometry of
//! Self-Verification in a Task-Specific Reasoning Model", where previous-token heads drive the gates of such neurons.

use super::labels::{Against, corrected};
use super::{Asked, Layer, Neuron, by_layer, failed};
use crate::analyses::heads::Head;
use crate::analyses::prelude::*;
use crate::model::arch::{Arch, Channel};
use crate::model::decoder::Decoder;
use crate::ops::vectors::dot;
use crate::run::{direction_of_gates, directions_of_z};
use crate::stats::bca_family;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A part of what the gates read, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The whole.
    Gate,
    Embed,
    /// Biases, and mixers that have no heads.
    Rest,
    /// The heads that were named, together.
    Named,
    Mlp(usize),
    Head(Head),
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Component::Gate => GATE,
            Component::Embed => "embed",
            Component::Rest => "rest",
            Component::Named => NAMED,
            Component::Mlp(_) => "mlp",
            Component::Head(_) => HEAD,
        }
    }

    /// Layer and head; -1 where it is of none.
    fn place(self) -> (i64, i64) {
        match self {
            Component::Mlp(layer) => (layer as i64, -1),
            Component::Head(head) => (head.layer as i64, head.head as i64),
            _ => (-1, -1),
        }
    }

    /// Whether it comes before the neurons of a layer.
    fn reaches(self, layer: usize, arch: &Arch) -> bool {
        match self {
            Component::Mlp(own) => own < layer,
            Component::Head(head) => head.layer < layer + usize::from(!arch.parallel),
            _ => true,
        }
    }
}

/// What tables call the whole, the named heads together, and one head.
pub const GATE: &str = "gate";
pub const NAMED: &str = "named";
pub const HEAD: &str = "head";

/// What the gates of the listed neurons read, part by part: of each, one a prompt.
pub type Measured = BTreeMap<Component, Vec<f64>>;

/// How far the sum of the parts may be from what is read, as a share of all parts' sizes: half precision rounds.
const APART: f64 = 0.02;

/// Refuses layers whose neurons have no gates of the one kind that is looked at.
///
/// # Errors
/// If a layer has several experts.
pub(super) fn check(layers: &[Layer], arch: &Arch) -> Result<(), AnalysisError> {
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", param("drivers")));
    arch.adds_up().map_err(bad)?;
    if arch.layer_scalars || arch.per_layer.is_some() {
        let why = "layers of this model add embeddings of the token, or multiply the residual stream: what gates read is not taken apart";
        return Err(bad(why.to_string()));
    }
    match layers.iter().find(|of| !matches!(arch.layers[of.layer].channel, Channel::Mlp(_))) {
        Some(of) => Err(AnalysisError::Bad(format!(
            "{}: layer {} has several experts, and what a gate reads depends on the router there; leave the layer out with {}",
            param("drivers"),
            of.layer,
            param("layers")
        ))),
        None => Ok(()),
    }
}

/// What is read of a layer at the position.
struct OfLayer {
    /// Where the mixer has heads.
    z: Option<Handle<Array>>,
    out: Option<Handle<Array>>,
    /// What the mixer adds, and what the MLP adds.
    deltas: [Option<Handle<Array>>; 2],
    /// The stream that the MLP reads, and what its gates read, in a layer with listed neurons.
    gates: Option<[Handle<Array>; 2]>,
}

/// What is read of a prompt.
struct OfPrompt {
    embed: Handle<Array>,
    layers: Vec<OfLayer>,
}

/// Runs all prompts and takes what the gates of the listed neurons read apart, at the position where neurons are silenced, or at the
/// last one where they are at all.
pub(super) fn measure(runner: &dyn Runner, items: &Asked, listed: &[Neuron]) -> Result<Measured, AnalysisError> {
    let decoder = &runner.model().decoder;
    let arch = &decoder.arch;
    let targets = by_layer(&items.layers, listed);
    // Which neurons are the strongest is not known where nothing is run.
    let layers = match targets.keys().next_back() {
        _ if runner.is_counting() => arch.n_layers,
        last => last.map_or(0, |last| last + 1),
    };
    let mut found = Measured::new();
    for some in batches(items.texts.texts.len(), 5 * layers * arch.d_model.div_ceil(1024)) {
        let mut plan = Plan::default();
        let asked: Vec<OfPrompt> = some.map(|i| ask(&mut plan, items, i, arch, &targets, layers)).collect();
        let readings = runner.run(&plan)?;
        if !runner.is_counting() {
            let sums = Sums { decoder, targets: &targets, listed: listed.len(), asked: &asked, readings: &readings };
            let of_batch = sums.parts(&items.heads).map_err(failed)?;
            add_up(&of_batch)?;
            of_batch.into_iter().for_each(|(part, numbers)| found.entry(part).or_default().extend(numbers));
        }
    }
    Ok(found)
}

fn ask(
    plan: &mut Plan,
    items: &Asked,
    i: usize,
    arch: &Arch,
    targets: &BTreeMap<usize, Vec<usize>>,
    layers: usize,
) -> OfPrompt {
    let text = &items.texts.texts[i];
    let run = plan.prompt(text.id.clone(), text.ids.clone());
    let position = match &items.positions[i] {
        Positions::All => Positions::Last,
        one => one.clone(),
    };
    let mut read = |kind: SiteKind, layer: usize, part: Part| {
        let site = kind.at(layer).check(arch).ok()?;
        Some(plan.read(run, Activation { site, positions: position.clone(), part }))
    };
    let stream = if arch.parallel { SiteKind::ResidPre } else { SiteKind::ResidMid };
    let mut of_layer = |layer: usize| {
        let gates = targets.get(&layer).and_then(|neurons| {
            let gated = SiteKind::MlpGate.at(layer).check(arch).is_ok();
            let kind = if gated { SiteKind::MlpGate } else { SiteKind::MlpPre };
            Some([read(stream, layer, Part::All)?, read(kind, layer, Part::Columns(neurons.clone()))?])
        });
        OfLayer {
            z: (arch.layers[layer].heads() > 0).then(|| read(SiteKind::Z, layer, Part::All)).flatten(),
            out: read(SiteKind::AttnOut, layer, Part::All),
            deltas: [SiteKind::AttnDelta, SiteKind::MlpDelta].map(|kind| read(kind, layer, Part::All)),
            gates,
        }
    };
    let layers = (0..layers).map(&mut of_layer).collect();
    let embed = SiteKind::Embed.at(0);
    OfPrompt { embed: plan.read(run, Activation { site: embed, positions: position.clone(), part: Part::All }), layers }
}

/// Some prompts whose gates are taken apart.
struct Sums<'a> {
    decoder: &'a Decoder,
    targets: &'a BTreeMap<usize, Vec<usize>>,
    listed: usize,
    asked: &'a [OfPrompt],
    readings: &'a Readings,
}

impl Sums<'_> {
    /// What each part adds. From the last layer down the directions of the gates that are still ahead add up to one a prompt.
    fn parts(&self, named: &[Head]) -> candle_core::Result<Measured> {
        let (arch, n) = (&self.decoder.arch, self.asked.len());
        let mut along = vec![vec![0f32; arch.d_model]; n];
        let mut found: Measured =
            [Component::Gate, Component::Embed, Component::Rest].map(|part| (part, vec![0.0; n])).into();
        let last = self.targets.keys().next_back().copied().unwrap_or(0);
        for layer in (0..=last).rev() {
            if layer < last {
                self.whole(layer, 1, &along).map(|mlp| found.insert(Component::Mlp(layer), mlp));
            }
            if !arch.parallel {
                self.arrive(layer, &mut along, &mut found)?;
            }
            if !arch.parallel || layer < last {
                self.mixer(layer, &along, &mut found)?;
            }
            if arch.parallel {
                self.arrive(layer, &mut along, &mut found)?;
            }
        }
        let embed = self.asked.iter().zip(&along).map(|(of, along)| dot(&self.readings[of.embed].values, along));
        found.insert(Component::Embed, embed.collect());
        if !named.is_empty() {
            let of = |i: usize| named.iter().filter_map(|head| Some(found.get(&Component::Head(*head))?[i])).sum();
            found.insert(Component::Named, (0..n).map(of).collect());
        }
        Ok(found)
    }

    /// Takes in the gates of a layer: what is added to the stream before them moves them too.
    fn arrive(&self, layer: usize, along: &mut [Vec<f32>], found: &mut Measured) -> candle_core::Result<()> {
        let Some(neurons) = self.targets.get(&layer) else { return Ok(()) };
        let share = neurons.len() as f64 / self.listed.max(1) as f64;
        for (i, (of, along)) in self.asked.iter().zip(along).enumerate() {
            let Some([stream, gates]) = of.layers[layer].gates else { continue };
            let stream = &self.readings[stream].values;
            let (direction, bias) = direction_of_gates(self.decoder, layer, neurons, stream)?;
            along.iter_mut().zip(direction).for_each(|(sum, x)| *sum += (share * f64::from(x)) as f32);
            let read: f64 = self.readings[gates].values.iter().map(|x| f64::from(*x)).sum();
            add(found, Component::Rest, i, share * bias);
            add(found, Component::Gate, i, read / self.listed.max(1) as f64);
        }
        Ok(())
    }

    /// What the heads of a layer add, and what its mixer adds besides.
    fn mixer(&self, layer: usize, along: &[Vec<f32>], found: &mut Measured) -> candle_core::Result<()> {
        let Some(whole) = self.whole(layer, 0, along) else { return Ok(()) };
        let read = |handle: Option<Handle<Array>>| handle.map_or(&[][..], |handle| &self.readings[handle].values[..]);
        let heads = self.decoder.arch.layers[layer].heads();
        let mut by_head = vec![vec![0.0; along.len()]; heads];
        if heads > 0 {
            let outs: Vec<&[f32]> = self.asked.iter().map(|of| read(of.layers[layer].out)).collect();
            let along: Vec<&[f32]> = along.iter().map(Vec::as_slice).collect();
            let directions = directions_of_z(self.decoder, layer, &along, &outs)?;
            for (i, (of, direction)) in self.asked.iter().zip(&directions).enumerate() {
                let z = read(of.layers[layer].z);
                let width = (z.len() / heads.max(1)).max(1);
                let each = z.chunks(width).zip(direction.chunks(width));
                by_head.iter_mut().zip(each).for_each(|(numbers, (z, direction))| numbers[i] = dot(z, direction));
            }
        }
        for (i, whole) in whole.into_iter().enumerate() {
            let of_heads: f64 = by_head.iter().map(|numbers| numbers[i]).sum();
            add(found, Component::Rest, i, whole - of_heads);
        }
        let of_layer = by_head.into_iter().enumerate();
        found.extend(of_layer.map(|(head, numbers)| (Component::Head(Head { layer, head }), numbers)));
        Ok(())
    }

    /// What a layer's mixer (0) or MLP (1) adds as a whole, one a prompt; none where the layer has none.
    fn whole(&self, layer: usize, which: usize, along: &[Vec<f32>]) -> Option<Vec<f64>> {
        let of = |(of, along): (&OfPrompt, &Vec<f32>)| {
            Some(dot(&self.readings[of.layers[layer].deltas[which]?].values, along))
        };
        self.asked.iter().zip(along).map(of).collect()
    }
}

fn add(found: &mut Measured, part: Component, i: usize, number: f64) {
    found.get_mut(&part).into_iter().for_each(|numbers| numbers[i] += number);
}

/// Holds the sum of all parts to what the gates read.
fn add_up(found: &Measured) -> Result<(), AnalysisError> {
    let parts = || found.iter().filter(|(part, _)| !matches!(part, Component::Gate | Component::Named));
    for (i, gate) in found.get(&Component::Gate).into_iter().flatten().enumerate() {
        let sum: f64 = parts().map(|(_, numbers)| numbers[i]).sum();
        let size: f64 = parts().map(|(_, numbers)| numbers[i].abs()).sum();
        if (sum - gate).abs() > APART * (1.0 + size) {
            let why =
                format!("what is added to the residual stream comes to {sum:.4} at the gates, which read {gate:.4}");
            let why = format!("{why}: this model's stream is no plain sum; leave {} out", param("drivers"));
            return Err(AnalysisError::NotAskable(why));
        }
    }
    Ok(())
}

rows! {
    /// What a part adds to what the gates of the listed neurons read, on average over these.
    pub struct DriverRow<'a> in "drivers" {
        model: &'a str = "the model, as it was named",
        component: &'a str =
            "`head`, `mlp`, `embed`; `rest`: biases, and mixers without heads; these sum to `gate`, what the gates read (of an MLP \
             without a gate: what its non-linearity reads). `named`: the heads that were named, together",
        layer: i64 = "layer, from 0; -1 for what is in none",
        head: i64 = "head, from 0; -1 for what is no head",
        neurons: i64 = "how many of the listed neurons it comes before; to the others it adds 0",
        label: Option<&'a str> [if any] = "the prompts with this label alone; empty for all",
        n: i64 = "prompts",
        mean: Option<f64> = "what it adds at the position where neurons are silenced, or at the last one, mean over prompts and neurons",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of that mean's 95 % BCa interval over prompts", "its upper end"],
        /// Of a label.
        against: Option<Against> [if any] as "",
    }
}

pub(super) fn table(
    about: &About,
    items: &Asked,
    listed: &[Neuron],
    measured: &Measured,
) -> Result<Table, AnalysisError> {
    let arch = &about.loaded.decoder.arch;
    let mut tables = vec![(None, measured.values().cloned().collect::<Vec<Vec<f64>>>())];
    for label in &items.labels {
        let own = |numbers: &Vec<f64>| label.own.iter().map(|i| numbers[*i]).collect();
        tables.push((Some(label), measured.values().map(own).collect()));
    }
    let mut rows = Vec::new();
    for (label, numbers) in &tables {
        let intervals = bca_family(numbers, &Bootstrap { seed: about.seed, ..Bootstrap::default() });
        let against: Vec<Option<Against>> =
            measured.par_iter().map(|(_, all)| label.map(|label| Against::of(all, label, about.seed))).collect();
        for ((((part, _), numbers), interval), against) in measured.iter().zip(numbers).zip(intervals).zip(against) {
            let (layer, head) = part.place();
            rows.push(DriverRow {
                model: about.model,
                component: part.name(),
                layer,
                head,
                neurons: listed.iter().filter(|neuron| part.reaches(neuron.layer, arch)).count() as i64,
                label: label.map(|label| label.label.as_str()),
                n: numbers.len() as i64,
                mean: mean(numbers),
                interval: interval.map(Interval::ends),
                against,
            });
        }
    }
    // The family is that of the heads.
    corrected(rows.iter_mut().filter(|row| row.component == HEAD).filter_map(|row| row.against.as_mut()));
    Ok(DriverRow::table(rows)?)
}
