//! A comparison's figures and words, from its tables alone.

use super::{CheckpointRow, HeadRow, OverlapRow};
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::interchange::Direction;
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::figure::{BarSeries, Bars, Estimate, MOST_SERIES, Scatter, ScatterPoint};
use crate::names::short_name;
use crate::report::TableBlock;
use crate::report::cells::{head, plural};

/// Figures by file name, from the tables alone.
///
/// # Errors
/// If a table lacks what a figure shows.
pub fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let mut figures = vec![("depth.png".to_string(), depth(table(tables, HeadRow::TABLE)?)?)];
    figures.extend(refusal_bars(table(tables, CheckpointRow::TABLE)?)?.map(|bars| ("refusals.png".to_string(), bars)));
    Ok(figures)
}

/// Where each model's heads sit, and how much of the gap each crosses.
fn depth(heads: &Table) -> Result<Figure, AnalysisError> {
    let (models, directions, q) =
        (heads.column(HeadRow::model)?, heads.column(HeadRow::direction)?, heads.column(HeadRow::q_value)?);
    let (depth, crossed) = (heads.column(HeadRow::relative_depth)?, heads.column(HeadRow::crossed)?);
    let (layers, numbers) = (heads.column(HeadRow::layer)?, heads.column(HeadRow::head)?);
    let mut names: Vec<&str> = Vec::new();
    for model in &models {
        if !names.contains(model) {
            names.push(model);
        }
    }
    let strongest = |model: &str| {
        let of = (0..heads.rows()).filter(|i| models[*i] == model && directions[*i] == Direction::Necessity.name());
        of.filter(|i| q[*i].is_some_and(|q| q < SIGNIFICANT))
            .max_by(|a, b| crossed[*a].unwrap_or(0.0).total_cmp(&crossed[*b].unwrap_or(0.0)))
    };
    let best: Vec<usize> = names.iter().filter_map(|m| strongest(m)).collect();
    // More could not be told apart.
    let series =
        if names.len() > MOST_SERIES { Vec::new() } else { names.iter().map(|name| short_name(name)).collect() };
    let point = |i: usize| {
        let name = best.contains(&i).then(|| format!("{} {}", short_name(models[i]), head(layers[i], numbers[i])));
        let series = if series.is_empty() { 0 } else { names.iter().position(|name| *name == models[i])? };
        Some(ScatterPoint { x: depth[i]?, y: crossed[i]?, name, series })
    };
    let necessary = (0..heads.rows()).filter(|i| directions[*i] == Direction::Necessity.name());
    Ok(Figure::from(Scatter {
        title: "Where the heads that matter sit".to_string(),
        subtitle: format!("{}, necessity", plural(names.len() as i64, "model")),
        x_label: "relative depth".to_string(),
        y_label: "share of the gap that is crossed".to_string(),
        identity: false,
        named_meaning: (!best.is_empty()).then(|| "the strongest of each model".to_string()),
        points: necessary.filter_map(point).collect(),
        series,
    }))
}

/// The share of positive prompts that each model refuses; none if no model's behaviour was measured.
fn refusal_bars(checkpoints: &Table) -> Result<Option<Figure>, AnalysisError> {
    let refusal = checkpoints.column(CheckpointRow::refusal)?;
    let ends = checkpoints.column(CheckpointRow::refusal_interval)?;
    if refusal.iter().all(Option::is_none) {
        return Ok(None);
    }
    let estimate = |i: usize| Some(Estimate { interval: ends[i], ..Estimate::new(refusal[i]?) });
    Ok(Some(Figure::from(Bars {
        title: "Share of positive prompts that are refused".to_string(),
        subtitle: String::new(),
        category_label: "model".to_string(),
        value_label: "share of prompts that are refused".to_string(),
        shares: true,
        categories: checkpoints.column(CheckpointRow::model)?.iter().map(|m| short_name(m)).collect(),
        series: vec![BarSeries {
            name: "refusals".to_string(),
            estimates: (0..checkpoints.rows()).map(estimate).collect(),
            bands: Vec::new(),
        }],
        range: Some((0.0, 1.0)),
        interval_meaning: Some("95 % Wilson interval".to_string()),
        ..Bars::default()
    })))
}

/// The report's sections, from the tables alone; figures stand in `dir`.
///
/// # Errors
/// If a table lacks what a section says.
pub fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (checkpoints, overlap) = (table(tables, CheckpointRow::TABLE)?, table(tables, OverlapRow::TABLE)?);
    let has = Has::of(checkpoints)?;
    let mut section = Section::new("Where the circuit sits").paragraph(carriers(checkpoints)?);
    for warning in alike(overlap)?.into_iter().chain(different_pairs(checkpoints)?) {
        section = section.paragraph(warning);
    }
    section = section.block(Block::Table(has.checkpoints(checkpoints)?)).figure(
        dir.join("depth.png"),
        "Each head's share of the gap (necessity) over its relative depth; all are in heads.parquet.",
        "Scatter plot of the share of the gap that heads cross over their relative depth.",
    );
    if has.refusals {
        let alt = "Shares of positive prompts that each checkpoint refuses.";
        section = section.figure(dir.join("refusals.png"), "What each checkpoint refuses.", alt);
    }
    let shared = match has.gates {
        true => {
            " Shared: heads that carry the behaviour in both; by chance: what two random sets of these sizes share."
        }
        false => "",
    };
    let text = format!("Heads can be matched where two models have as many layers and heads.{shared}");
    let pairs = Block::Table(has.pairs(overlap)?);
    Ok(vec![section, Section::new("The same heads?").paragraph(text).block(pairs)])
}

/// What there is to be said of the checkpoints: of what none has, nothing is.
struct Has {
    /// Whether some head of some checkpoint carries the behaviour.
    gates: bool,
    /// Whether some checkpoint's behaviour was measured.
    refusals: bool,
}

impl Has {
    fn of(checkpoints: &Table) -> Result<Self, AnalysisError> {
        Ok(Has {
            gates: checkpoints.column(CheckpointRow::carriers)?.iter().any(|n| *n > 0),
            refusals: checkpoints.column(CheckpointRow::refusal)?.iter().any(Option::is_some),
        })
    }

    fn checkpoints(&self, table: &Table) -> Result<TableBlock, AnalysisError> {
        let mut listing = Listing::of(table)
            .column("model", Show::Text(CheckpointRow::model.name))
            .column("parameters", Show::Count(CheckpointRow::parameters.name))
            .column("pairs", Show::Count(CheckpointRow::n.name))
            .column("carriers", Show::Count(CheckpointRow::carriers.name));
        if self.gates {
            listing = listing
                .column("gate", Show::Head(CheckpointRow::gate_layer.name, CheckpointRow::gate_head.name))
                .column("its depth", Show::Number(CheckpointRow::gate_depth.name, 2))
                .column("mean depth", Show::Number(CheckpointRow::center_depth.name, 2));
        }
        if self.refusals {
            listing = listing.column("refusals", Show::Share(CheckpointRow::refusal.name));
        }
        Ok(listing.block("The checkpoints")?)
    }

    fn pairs(&self, overlap: &Table) -> Result<TableBlock, AnalysisError> {
        let mut listing = Listing::of(overlap)
            .column("model", Show::Text(OverlapRow::model.name))
            .column("other", Show::Text(OverlapRow::other.name));
        if self.gates {
            listing = listing
                .column("shared heads", Show::Number(OverlapRow::shared.name, 0))
                .column("by chance", Show::Number(OverlapRow::expected.name, 2))
                .column("p", Show::PValue(OverlapRow::p_value.name));
        }
        listing = listing.column("rank correlation", Show::Signed(OverlapRow::necessity_spearman.name, 2));
        if self.gates {
            listing = listing.column("gate's shift", Show::Signed(OverlapRow::gate_shift.name, 2));
        }
        if self.refusals {
            listing = listing
                .column("refusals", Show::Points(OverlapRow::refusal_difference.name))
                .column("95 % interval", Show::PointsInterval(OverlapRow::refusal_interval.name));
        }
        Ok(listing.block("Pairs of checkpoints")?)
    }
}

/// How many heads carry the behaviour in how many checkpoints.
fn carriers(checkpoints: &Table) -> Result<String, AnalysisError> {
    let carriers = checkpoints.column(CheckpointRow::carriers)?;
    let all = plural(carriers.len() as i64, "checkpoint");
    let (n, layers, heads) = (
        checkpoints.column(CheckpointRow::n)?,
        checkpoints.column(CheckpointRow::n_layers)?,
        checkpoints.column(CheckpointRow::n_heads)?,
    );
    let most = (0..checkpoints.rows()).map(|i| (n[i], (layers[i] * heads[i]) as usize)).max().unwrap_or((0, 0));
    let power = Power { items: most.0, item: "pair", tests: most.1 }.sentence();
    Ok(match carriers.iter().sum() {
        0 => format!(
            "In none of {all} does a head carry the behaviour in both directions of interchange (q < {SIGNIFICANT}).{power}"
        ),
        1 => format!("{all} with one head that carries the behaviour in all."),
        n => format!("{all} with {} that carry the behaviour in all.", plural(n, "head")),
    })
}

/// What is said where a model is compared with itself, and where no head tells two models apart.
fn alike(overlap: &Table) -> Result<Vec<String>, AnalysisError> {
    if !overlap.holds(OverlapRow::same_model) {
        return Ok(Vec::new());
    }
    let (models, others) = (overlap.column(OverlapRow::model)?, overlap.column(OverlapRow::other)?);
    let (same, effects) = (overlap.column(OverlapRow::same_model)?, overlap.column(OverlapRow::same_effects)?);
    let itself: Vec<String> = (0..overlap.rows()).filter(|i| same[*i]).map(|i| short_name(models[i])).collect();
    let apart = |i: &usize| effects[*i] && !same[*i];
    let named = |i: usize| format!("{} and {}", short_name(models[i]), short_name(others[i]));
    let no_difference: Vec<String> = (0..overlap.rows()).filter(apart).map(named).collect();
    let mut said = Vec::new();
    if !itself.is_empty() {
        said.push(format!(
            "**The same model**: {} is compared with itself. What differs is what was asked, and not the checkpoint.",
            itself.join(", ")
        ));
    }
    if !no_difference.is_empty() {
        said.push(format!(
            "**No difference**: {} have the same effects of every head to the last bit. They are one model under two names, or \
             differ in what these pairs do not ask.",
            no_difference.join("; ")
        ));
    }
    Ok(said)
}

/// What is said where the checkpoints were not measured on the same pairs.
fn different_pairs(checkpoints: &Table) -> Result<Option<String>, AnalysisError> {
    let (models, same) = (checkpoints.column(CheckpointRow::model)?, checkpoints.column(CheckpointRow::same_pairs)?);
    let others: Vec<String> = (0..models.len()).filter(|i| !same[*i]).map(|i| short_name(models[i])).collect();
    Ok((!others.is_empty()).then(|| {
        format!(
            "**The pairs are not the same**: {} and {} were measured on different ones. What differs below may be the pairs'.",
            models.first().map_or(String::new(), |m| short_name(m)),
            others.join(", ")
        )
    }))
}
