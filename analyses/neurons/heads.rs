//! Heads that are silenced beside neurons: which, random ones to compare with, and their means.

use super::{Asked, RANDOM_SETS, Silenced};
use crate::analyses::heads::{Head, by_layer};
use crate::analyses::inputs::rows_read;
use crate::analyses::prelude::*;
use crate::analyses::summary::RowMean;
use crate::model::arch::Arch;
use crate::stats;
use rand::seq::index::sample;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sets of random heads, as many of each layer as the chosen ones, that are none of these; each set once, so that there are fewer
/// where few can be made. None where a layer has too few others.
pub fn random(chosen: &[Head], arch: &Arch, seed: u64) -> Vec<Vec<Head>> {
    let by_layer = by_layer(chosen);
    let mut found: Vec<Vec<Head>> = Vec::new();
    for k in 0..RANDOM_SETS {
        let mut rng = stats::rng(seed, &format!("neurons.random.heads.{k}"));
        let mut set = Vec::new();
        for (layer, own) in &by_layer {
            let others: Vec<usize> = (0..arch.layers[*layer].heads()).filter(|head| !own.contains(head)).collect();
            if others.len() < own.len() {
                return Vec::new();
            }
            let drawn = sample(&mut rng, others.len(), own.len());
            set.extend(drawn.iter().map(|i| Head { layer: *layer, head: others[i] }));
        }
        set.sort_unstable();
        if !found.contains(&set) {
            found.push(set);
        }
    }
    found
}

/// Each layer's mean `z` over all positions of the texts but the first of each, where heads are silenced with it: `[width of z]`.
///
/// # Errors
/// Whatever stops the work.
pub(super) fn means(
    runner: &dyn Runner,
    items: &Asked,
    mode: Silenced,
) -> Result<BTreeMap<usize, Vec<f32>>, AnalysisError> {
    let layers: Vec<usize> = by_layer(&items.heads).into_keys().collect();
    if mode == Silenced::Zero || items.texts.metrics.is_none() || layers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let texts = &items.texts.texts;
    let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
    let sites: Vec<Site> = layers.iter().map(|layer| SiteKind::Z.at(*layer)).collect();
    let rows = rows_read(&sites, &runner.model().decoder.arch, Position::All, longest);
    let mut means = vec![RowMean::default(); layers.len()];
    for some in batches(texts.len(), rows) {
        let mut plan = Plan::default();
        let mut asked = Vec::new();
        for text in &texts[some] {
            let run = plan.prompt(text.id.clone(), text.ids.clone());
            let z = |site: &Site| Activation { site: *site, positions: Positions::All, part: Part::All };
            asked.push(sites.iter().map(|site| plan.read(run, z(site))).collect::<Vec<_>>());
        }
        let readings = runner.run(&plan)?;
        for of_text in asked {
            let each = means.iter_mut().zip(of_text);
            each.for_each(|(mean, z)| readings[z].rows().skip(1).for_each(|row| mean.add(row)));
        }
    }
    Ok(layers.into_iter().zip(means).map(|(layer, mean)| (layer, mean.mean())).collect())
}

/// The edits that silence some heads, one a layer: with zeros, or with the means of their layers.
pub(super) fn silencing(
    heads: &[Head],
    means: &BTreeMap<usize, Vec<f32>>,
    arch: &Arch,
    positions: &Positions,
) -> Vec<Edit> {
    let edit = |(layer, heads): (usize, Vec<usize>)| {
        let change = match means.get(&layer) {
            None => Change::Zero,
            Some(mean) => {
                let width = mean.len() / arch.layers[layer].heads().max(1);
                let of_heads: Arc<[f32]> =
                    heads.iter().flat_map(|head| &mean[head * width..(head + 1) * width]).copied().collect();
                Change::Set(of_heads)
            }
        };
        Edit { site: SiteKind::Z.at(layer), part: Part::Heads(heads), positions: positions.clone(), change }
    };
    by_layer(heads).into_iter().map(edit).collect()
}
