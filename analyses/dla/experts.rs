//! What single experts add: in a layer with several, the attribution of the channel told apart.

use crate::analyses::effects::{SIGNIFICANT, family, interval};
use crate::analyses::prelude::*;
use crate::model::arch::Arch;
use crate::model::decoder::Decoder;
use crate::ops::vectors::dot;
use crate::report::cells::{p_value, plural, share, signed};
use crate::run::{direction_of_channel, direction_of_experts, directions_of_stream};
use std::borrow::Cow;

/// What all rows of a layer go through is called.
const SHARED: &str = "shared";

rows! {
    /// An expert over prompts.
    pub struct ExpertRow<'a> in "experts" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        expert: Cow<'a, str> = "the expert's number, from 0, or shared: the one that all rows go through",
        n: i64 = "prompts",
        chosen: Option<f64> = "share of prompts whose last position goes through it",
        attribution_mean: Option<f64> =
            "mean attribution to the logit difference before soft-capping of the logits, 0 where it was not chosen, nats; those of a \
             layer sum to its `mlp` in components.parquet",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean's 95 % BCa interval, nats",
            "upper end of the mean's 95 % BCa interval, nats",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean; empty where it was never chosen",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all experts that were chosen in some prompt",
        p_max: Option<f64> = "family-wise p-value by the max statistic over the same",
    }
}

/// A layer with several experts.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    layer: usize,
    shared: bool,
}

/// The layers of a model that have several.
pub(super) fn layers(arch: &Arch) -> Vec<Layer> {
    let there = |kind: SiteKind, layer: usize| kind.at(layer).check(arch).is_ok();
    let all = (0..arch.n_layers).filter(|layer| there(SiteKind::ExpertOut, *layer));
    all.map(|layer| Layer { layer, shared: there(SiteKind::SharedOut, layer) }).collect()
}

impl Layer {
    /// The sites that are read: what each expert gives, what the channel does and, where there is one, the shared expert.
    pub(super) fn sites(self) -> Vec<Site> {
        let shared = self.shared.then_some(SiteKind::SharedOut);
        let kinds = [SiteKind::ExpertOut, SiteKind::MlpOut].into_iter().chain(shared);
        kinds.map(|kind| kind.at(self.layer)).collect()
    }
}

/// What the experts of one layer add in one prompt, nats; the shared one's is the last. None for an expert that was not chosen.
type OfLayer = Vec<Option<f64>>;

/// What experts add to a prompt's logit difference. `read` has the last positions of each layer's sites, `stream` the residual stream
/// after the last layer.
pub(super) fn of_prompt(
    decoder: &Decoder,
    layers: &[Layer],
    metric: &Metric,
    stream: &[f32],
    read: &[Vec<&[f32]>],
) -> Result<Vec<OfLayer>, AnalysisError> {
    let failed = |e: candle_core::Error| AnalysisError::Failed(e.to_string());
    let Metric::LogitDifference { answer, foil } = metric else { return Ok(Vec::new()) };
    let [direction, _] = directions_of_stream(decoder, [answer, foil], stream).map_err(failed)?;
    let of_layer = |(layer, read): (&Layer, &Vec<&[f32]>)| {
        let [experts, out, shared @ ..] = &read[..] else { return Ok(Vec::new()) };
        let of_shared = direction_of_channel(decoder, layer.layer, &direction, out).map_err(failed)?;
        let each = || experts.chunks_exact(of_shared.len());
        let mut routed = vec![0f32; of_shared.len()];
        each().for_each(|added| routed.iter_mut().zip(added).for_each(|(sum, x)| *sum += x));
        let along = direction_of_experts(decoder, layer.layer, &direction, out, &routed).map_err(failed)?;
        // A row that did not choose an expert has zeros for it.
        let added = each().map(|added| added.iter().any(|x| *x != 0.0).then(|| dot(added, &along)));
        Ok(added.chain(shared.iter().map(|added| Some(dot(added, &of_shared)))).collect())
    };
    layers.iter().zip(read).map(of_layer).collect()
}

/// The table of experts over prompts, `of[prompts][layers]`.
pub(super) fn table_of(model: &str, layers: &[Layer], of: &[Vec<OfLayer>], seed: u64) -> Result<Table, AnalysisError> {
    let mut named: Vec<(usize, Cow<str>, Vec<Option<f64>>)> = Vec::new();
    for (l, layer) in layers.iter().enumerate() {
        let n = of.first().map_or(0, |of| of[l].len());
        for e in 0..n {
            let name = if layer.shared && e + 1 == n { SHARED.into() } else { Cow::Owned(e.to_string()) };
            named.push((layer.layer, name, of.iter().map(|of| of[l][e]).collect()));
        }
    }
    let numbers = |each: &[Option<f64>]| each.iter().map(|x| x.unwrap_or(0.0)).collect::<Vec<_>>();
    let chosen: Vec<usize> = (0..named.len()).filter(|i| named[*i].2.iter().any(Option::is_some)).collect();
    let tested = family(&chosen.iter().map(|i| numbers(&named[*i].2)).collect::<Vec<_>>(), seed)?;
    let rows = named.iter().enumerate().map(|(i, (layer, expert, each))| {
        let tested = chosen.binary_search(&i).ok().map(|at| tested[at]);
        ExpertRow {
            model,
            layer: *layer as i64,
            expert: expert.clone(),
            n: each.len() as i64,
            chosen: Some(each.iter().flatten().count() as f64 / each.len().max(1) as f64),
            attribution_mean: mean(&numbers(each)),
            interval: tested.and_then(|t| t.interval),
            p_value: tested.and_then(|t| t.p),
            q_value: tested.and_then(|t| t.q),
            p_max: tested.and_then(|t| t.p_max),
        }
    });
    Ok(ExpertRow::table(rows)?)
}

/// How many experts the report lists.
const LISTED: usize = 15;

impl ExpertRow<'_> {
    fn name(&self) -> String {
        match &self.expert[..] {
            SHARED => format!("L{} shared", self.layer),
            number => format!("L{}.E{number}", self.layer),
        }
    }
}

/// What the report says of experts; nothing where the model has none.
pub(super) fn section(tables: &[Table]) -> Result<Option<Section>, AnalysisError> {
    let Ok(experts) = table(tables, ExpertRow::TABLE) else { return Ok(None) };
    let mut rows = ExpertRow::read(experts)?;
    let size = |row: &ExpertRow| row.attribution_mean.map_or(0.0, f64::abs);
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let (all, chosen) = (rows.len() as i64, rows.iter().filter(|row| row.chosen > Some(0.0)).count());
    let beyond = rows.iter().filter(|row| row.q_value.is_some_and(|q| q < SIGNIFICANT)).count() as i64;
    let text = format!(
        "The last positions of {} go through {chosen} of {}. {} to the logit difference beyond chance (q < {SIGNIFICANT}). An expert \
         that a prompt does not choose adds 0 there. Those of a layer sum to its MLP above.",
        plural(rows.first().map_or(0, |row| row.n), "prompt"),
        plural(all, "expert"),
        match beyond {
            0 => "None of them adds".to_string(),
            1 => "1 of them adds".to_string(),
            n => format!("{n} of them add"),
        },
    );
    let header = vec![
        Heading::text("expert"),
        Heading::number("chosen"),
        Heading::number("attribution (nats)"),
        Heading::number("95 % interval"),
        Heading::number("q"),
        Heading::number("family-wise p"),
    ];
    let cells = |row: &ExpertRow| {
        let added = signed(row.attribution_mean, 3);
        vec![row.name(), share(row.chosen), added, interval(row.interval), p_value(row.q_value), p_value(row.p_max)]
    };
    let cells = rows.iter().take(LISTED).map(cells).collect();
    Ok(Some(Section::new("Experts").paragraph(text).table("The largest attributions of experts", header, cells)))
}
