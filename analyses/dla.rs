//! Direct logit attribution: what does each component add to the metric by itself?
//!
//! The residual stream is a sum of the embedding, every head's output and every MLP's, and the logit difference is, once
//! the final norm's scale is held fixed, a sum over them ([`crate::run`] computes it while the pass goes by). A component
//! that works through later ones has a small attribution however necessary it is: that is what interchange is for.
//! Beside the accumulated attributions stands the logit lens: the metric that each layer's residual stream would give if the
//! final norm read it. Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; nostalgebraist
//! 2020, "Interpreting GPT: the logit lens".

use super::components::{self, Component, LOGSUMEXP, attributions, components, label_of, without_empty};
use super::effects::{SIGNIFICANT, Tested, interval};
use super::halves::{Halves, Moved, Order, Shown};
use super::inputs::{MeasuredArgs, MeasuredPrompts, Sources, Tokens, rows_read};
use super::marks::MarkArgs;
use super::power::Power;
use super::scored::Scored;
use super::summary::{Position, less, mean, sd};
use super::{Analysis, AnalysisError, Figures, Output, Plans, batches, halves, marks, planned, table};
use crate::dataset::{Dataset, Item};
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Figure, Heatmap, Waterfall, WaterfallLayer, WaterfallPart};
use crate::model::Model;
use crate::model::arch::Arch;
use crate::names::short_name;
use crate::plan::{Activation, Metric, Part, Plan, Positions, What};
use crate::report::cells::{p_value, plural, share, signed};
use crate::report::{Heading, Section};
use crate::run::{Reading, log_sum_exp};
use crate::session::Session;
use crate::site::{Site, SiteKind};
use crate::table::Table;
use candle_core::Tensor;
use std::ops::Range;
use std::path::Path;

/// Show what each head and MLP writes towards the answer (direct logit attribution, logit lens)
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Dla {
    #[command(flatten)]
    #[serde(flatten)]
    pub measured: MeasuredArgs,

    #[command(flatten)]
    #[serde(flatten)]
    pub marks: MarkArgs,
}

/// The prompts as the model reads them.
pub struct Items {
    dataset: Dataset<Item>,
    tokens: Tokens,
    sources: Sources,
    scored: Scored,
}

impl Analysis for Dla {
    const NAME: &'static str = "dla";
    const ABOUT: &'static str =
        "Show what each head and MLP writes towards the answer (direct logit attribution, logit lens)";
    const TITLE: &'static str = "Direct logit attribution";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let MeasuredPrompts { dataset, tokens, sources, scored } = self.measured.read(model)?;
        Ok(Items { dataset, tokens, sources, scored })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.sources.clone()
    }

    fn scored(items: &Items) -> &Scored {
        &items.scored
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        Ok(planned(some(model, items).map(|some| plan(model, items, some))))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let arch = &session.model.decoder.arch;
        let all = components(arch.n_layers, arch.n_heads);
        let (mut metrics, mut answers) = (Vec::new(), Vec::new());
        let (mut of_items, mut of_answers, mut lenses) = (Vec::new(), Vec::new(), Vec::new());
        for some in some(session.model, items) {
            let readings = session.run(&plan(session.model, items, some.clone()))?;
            for ((_, metric), r) in items.tokens[some].iter().zip(readings.chunks_exact(OF_PROMPT + arch.n_layers)) {
                metrics.extend(r[0].number());
                of_items.push(attributions(&r[1], &all, arch.n_heads));
                answers.extend(r[2].number());
                of_answers.push(attributions(&r[3], &all, arch.n_heads));
                lenses.push(lens(session.model, metric, &r[OF_PROMPT..])?);
            }
        }
        let (components, both) = without_empty(all, [of_items, of_answers].concat());
        let (attributions, of_answers) = both.split_at(metrics.len());
        let of_foils = of_answers.iter().zip(attributions).map(|(answer, whole)| less(answer, whole)).collect();
        let found = Found {
            model: &session.model.name,
            components: &components,
            attributions,
            halves: [of_answers.to_vec(), of_foils],
            foils: less(&answers, &metrics),
            metrics,
            answers,
        };
        Ok(vec![
            found.components_table(self.marks, session.seed)?,
            found.items_table(items)?,
            lens_table(found.model, &components, attributions, &lenses)?,
        ]
        .into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        let components = Read::of(table(tables, "components")?)?;
        let lens = table(tables, "lens")?;
        let mut figures = vec![
            ("heads.png".to_string(), components.map()),
            ("waterfall.png".to_string(), components.waterfall()),
            ("lens.png".to_string(), lens_figure(lens, &components)?),
        ];
        let (shown, rows) = components.shown();
        figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
        Ok(figures)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        let components = Read::of(table(tables, "components")?)?;
        let waterfall = "What each layer's attention (all heads with the bias) and MLP add to the logit difference, from the \
                         embedding to its final value.";
        let lens = format!(
            "The logit difference that the attributions have added up to after each layer, and the one that the final norm would \
             read there by itself (logit lens).{}",
            components.beyond_the_layers()
        );
        let main = Section::new("Components").paragraph(components.finding()).figure(
            dir.join("heads.png"),
            format!("Mean attribution of each head; all components are in components.parquet.{}", components.dots()),
            "Layer-by-head heatmap of mean direct logit attributions.",
        );
        let layers = Section::new("Layer by layer")
            .figure(dir.join("waterfall.png"), waterfall, "Waterfall of attributions by layer.")
            .figure(dir.join("lens.png"), lens, "Accumulated attribution and logit lens by layer.");
        let (shown, rows) = components.shown();
        Ok([Some(components.listed(main)), shown.section(&rows, dir, true), Some(layers)]
            .into_iter()
            .flatten()
            .collect())
    }
}

/// Readouts of a prompt before those of its streams: the metric and its attributions, and the same of the answer's half.
const OF_PROMPT: usize = 4;

/// Where the lens reads: after every layer.
fn streams(arch: &Arch) -> Vec<Site> {
    (0..arch.n_layers).map(|layer| SiteKind::ResidPost.at(layer)).collect()
}

/// Which prompts are run at once.
fn some(model: &Model, items: &Items) -> impl Iterator<Item = Range<usize>> + use<> {
    let arch = &model.decoder.arch;
    batches(items.tokens.len(), rows_read(&streams(arch), arch, Position::Last, 1))
}

/// [`OF_PROMPT`] readouts and the residual stream after every layer, of some prompts.
fn plan(model: &Model, items: &Items, some: Range<usize>) -> Plan {
    let mut plan = Plan::default();
    for i in some {
        let (item, (ids, metric)) = (&items.dataset.items[i], &items.tokens[i]);
        let prompt = plan.prompt(item.id.clone(), ids.clone());
        // Prompts' metrics are logit differences.
        for metric in [Some(metric.clone()), metric.answer_half()].into_iter().flatten() {
            plan.read(prompt, What::Metric(metric.clone()));
            plan.read(prompt, What::Attribution(metric));
        }
        for site in streams(&model.decoder.arch) {
            plan.read(prompt, Activation { site, positions: Positions::Last, part: Part::All });
        }
    }
    plan
}

/// The metric that the final norm would read of each layer's residual stream, before soft-capping.
fn lens(model: &Model, metric: &Metric, streams: &[Reading]) -> Result<Vec<f64>, AnalysisError> {
    let Metric::LogitDifference { answer, foil } = metric else {
        return Err(AnalysisError::Failed(
            "the logit lens is of a logit difference, not of a continuation".to_string(),
        ));
    };
    let decoder = &model.decoder;
    let failed = |e: candle_core::Error| AnalysisError::Failed(e.to_string());
    let rows: Vec<f32> = streams.iter().flat_map(Reading::values).collect();
    let tokens: Vec<u32> = answer.iter().chain(foil).copied().collect();
    let logits = || -> candle_core::Result<Vec<Vec<f32>>> {
        let rows = Tensor::from_vec(rows, (streams.len(), decoder.arch.d_model), decoder.places.last())?;
        let normed = decoder.final_norm(&rows.to_dtype(decoder.dtype)?)?;
        decoder.uncapped_logits(&normed, &tokens)?.to_dtype(candle_core::DType::F32)?.to_vec2()
    };
    let of = |x: &[f32]| log_sum_exp(x.iter().map(|v| f64::from(*v)));
    let difference = |row: &Vec<f32>| of(&row[..answer.len()]) - of(&row[answer.len()..]);
    Ok(logits().map_err(failed)?.iter().map(difference).collect())
}

/// What was found of the prompts.
struct Found<'a> {
    model: &'a str,
    components: &'a [Component],
    /// Of every prompt to its logit difference, `[prompts][components]`.
    attributions: &'a [Vec<f64>],
    /// The same to the answer's half and to the foil's.
    halves: [Vec<Vec<f64>>; 2],
    /// Logit differences, and their halves, one a prompt.
    metrics: Vec<f64>,
    answers: Vec<f64>,
    foils: Vec<f64>,
}

impl Found<'_> {
    /// `[components][prompts]` of `[prompts][components]`.
    fn by_component(&self, of: &[Vec<f64>]) -> Vec<Vec<f64>> {
        (0..self.components.len()).map(|c| of.iter().map(|a| a[c]).collect()).collect()
    }

    fn components_table(&self, rule: MarkArgs, seed: u64) -> Result<Table, AnalysisError> {
        let (components, of) = (self.components, self.by_component(self.attributions));
        let totals: Vec<f64> = self.attributions.iter().map(|a| a.iter().map(|v| v.abs()).sum()).collect();
        let shares = |of: &Vec<f64>| {
            let each = of.iter().zip(&totals).filter(|(_, t)| **t > 0.0).map(|(v, t)| v.abs() / t);
            mean(&each.collect::<Vec<_>>())
        };
        let tested = components::tested(components, &of, seed)?;
        let float = |f: fn(&Tested) -> Option<f64>| tested.iter().map(f);
        let table = Table::new("components")
            .str("model", "the model, as it was named", components.iter().map(|_| self.model))?
            .int("layer", components::LAYERS, components.iter().map(|c| c.layer))?
            .str("component", components::NAMES, components.iter().map(|c| c.name.as_str()))?
            .int("n", "prompts", components.iter().map(|_| self.metrics.len() as i64))?
            .float(
                "attribution_mean",
                "mean attribution to the logit difference before soft-capping of the logits, nats",
                of.iter().map(|x| mean(x)),
            )?
            .float("attribution_sd", "its standard deviation over prompts, nats", of.iter().map(|x| sd(x)))?
            .float("share", "mean share of the sum of absolute attributions", of.iter().map(shares))?
            .float("ci_low", "lower end of the mean's 95 % BCa interval, nats", float(|t| t.interval.map(|i| i.0)))?
            .float("ci_high", "upper end of the mean's 95 % BCa interval, nats", float(|t| t.interval.map(|i| i.1)))?
            .float("p_value", "two-sided sign-flip permutation p-value of the mean", float(|t| t.p))?
            .float(
                "q_value",
                "Benjamini-Hochberg q-value over all components but the logsumexp, which is not tested",
                float(|t| t.q),
            )?
            .float("p_max", "family-wise p-value by the max statistic over the same", float(|t| t.p_max))?
            .opt_str("writer", components::WRITERS, components.iter().map(Component::writer))?;
        let [answers, foils] = self.halves.each_ref().map(|half| self.by_component(half));
        let table = halves::columns(table, "attribution", "attribution to", [&answers, &foils], seed)?;
        let total: f64 = of.iter().filter_map(|x| mean(x)).sum();
        let share = |x: &Vec<f64>| Some(mean(x)? / total).filter(|share| share.is_finite());
        let marked = tested.iter().zip(&of).map(|(t, x)| rule.marks(t, share(x), true)).collect();
        marks::columns(table, marked, vec![rule.rule(true, "logit difference"); of.len()])
    }

    fn items_table(&self, items: &Items) -> Result<Table, AnalysisError> {
        let (components, n) = (self.components, self.metrics.len());
        let rows: Vec<(usize, usize)> = (0..components.len()).flat_map(|c| (0..n).map(move |i| (i, c))).collect();
        let item = |r: &(usize, usize)| &items.dataset.items[r.0];
        let half = |side: usize| rows.iter().map(move |r| self.halves[side][r.0][r.1]);
        Ok(Table::new("items")
            .str("id", "the prompt", rows.iter().map(|r| item(r).id.as_str()))?
            .opt_str("label", "the prompt's label", rows.iter().map(|r| item(r).label.as_deref()))?
            .opt_str("group", "the prompt's group", rows.iter().map(|r| item(r).group.as_deref()))?
            .opt_str("lang", "the prompt's language", rows.iter().map(|r| item(r).lang.as_deref()))?
            .int("layer", components::LAYERS, rows.iter().map(|r| components[r.1].layer))?
            .str("component", components::NAMES, rows.iter().map(|r| components[r.1].name.as_str()))?
            .float(
                "attribution",
                "attribution to the logit difference, nats; those of a prompt sum to its metric before soft-capping",
                rows.iter().map(|r| self.attributions[r.0][r.1]),
            )?
            .float(
                "metric",
                "the prompt's logit difference, after soft-capping where the model has it, nats",
                rows.iter().map(|r| self.metrics[r.0]),
            )?
            .opt_str("writer", components::WRITERS, rows.iter().map(|r| components[r.1].writer()))?
            .float(
                "answer_attribution",
                "attribution to logsumexp(answer logits) less the vocabulary's mean logit, nats; those of a prompt sum to its \
                 answer_metric before soft-capping",
                half(0),
            )?
            .float("foil_attribution", "the same of the foil: answer_attribution less this is attribution", half(1))?
            .float(
                "answer_metric",
                "the prompt's logsumexp(answer logits) less the mean logit, after soft-capping where the model has it (the mean \
                 is over 1,024 fixed tokens there), nats",
                rows.iter().map(|r| self.answers[r.0]),
            )?
            .float(
                "foil_metric",
                "the same of the foil: answer_metric less this is metric",
                rows.iter().map(|r| self.foils[r.0]),
            )?)
    }
}

fn lens_table(
    model: &str,
    components: &[Component],
    attributions: &[Vec<f64>],
    lens: &[Vec<f64>],
) -> Result<Table, AnalysisError> {
    let layers = lens.first().map_or(0, Vec::len);
    let up_to = |layer: usize, a: &Vec<f64>| -> f64 {
        components.iter().zip(a).filter(|(c, _)| c.layer <= layer as i64).map(|(_, v)| v).sum()
    };
    let accumulated: Vec<Vec<f64>> = (0..layers).map(|l| attributions.iter().map(|a| up_to(l, a)).collect()).collect();
    let of_lens: Vec<Vec<f64>> = (0..layers).map(|l| lens.iter().map(|x| x[l]).collect()).collect();
    Ok(Table::new("lens")
        .str("model", "the model, as it was named", (0..layers).map(|_| model))?
        .int("layer", "layer, from 0", (0..layers).map(|l| l as i64))?
        .int("n", "prompts", (0..layers).map(|_| lens.len() as i64))?
        .float(
            "accumulated_mean",
            "mean sum of the attributions up to this layer, nats",
            accumulated.iter().map(|x| mean(x)),
        )?
        .float("accumulated_sd", "its standard deviation, nats", accumulated.iter().map(|x| sd(x)))?
        .float(
            "lens_mean",
            "mean logit difference of the residual stream after this layer, before soft-capping of the logits, nats",
            of_lens.iter().map(|x| mean(x)),
        )?
        .float("lens_sd", "its standard deviation, nats", of_lens.iter().map(|x| sd(x)))?)
}

/// The table of components, read back.
struct Read {
    model: String,
    n: i64,
    layers: i64,
    /// What a dot in the heatmap says.
    rule: String,
    rows: Vec<Row>,
}

struct Row {
    layer: i64,
    component: String,
    label: String,
    attribution: f64,
    share: Option<f64>,
    interval: Option<(f64, f64)>,
    q: Option<f64>,
    p_max: Option<f64>,
    halves: Halves,
    marked: bool,
}

impl Read {
    fn of(table: &Table) -> Result<Self, AnalysisError> {
        let (layers, names) = (table.ints("layer")?, table.strs("component")?);
        let (means, shares, q) = (table.floats("attribution_mean")?, table.floats("share")?, table.floats("q_value")?);
        let (low, high, p_max) = (table.floats("ci_low")?, table.floats("ci_high")?, table.floats("p_max")?);
        let n_layers = components::n_layers(layers, &names);
        let (halves, marks) = (halves::read(table, "attribution")?, marks::read(table)?);
        let row = |i: usize| Row {
            layer: layers[i],
            component: names[i].to_string(),
            label: label_of(layers[i], names[i], n_layers),
            attribution: means[i].unwrap_or(0.0),
            share: shares[i],
            interval: low[i].zip(high[i]),
            q: q[i],
            p_max: p_max[i],
            halves: halves[i],
            marked: marks[i].0,
        };
        Ok(Read {
            model: short_name(table.strs("model")?.first().copied().unwrap_or_default()),
            n: table.ints("n")?.first().copied().unwrap_or(0),
            layers: n_layers,
            rule: marks.first().map_or(String::new(), |m| m.1.clone()),
            rows: (0..table.rows()).map(row).collect(),
        })
    }

    fn subtitle(&self) -> String {
        format!("{}, {}, last position", self.model, plural(self.n, "prompt"))
    }

    /// Heads, layer by head.
    fn map(&self) -> Figure {
        let head = |r: &Row| {
            let head = r.component.strip_prefix("head.")?.parse().ok()?;
            Some((usize::try_from(r.layer).ok()?, head, Some(r.attribution), r.marked))
        };
        let (values, marks) = Heatmap::of_heads(self.rows.iter().filter_map(head));
        Figure::from(Heatmap {
            title: "Direct logit attribution of heads".to_string(),
            subtitle: self.subtitle(),
            x_label: "head".to_string(),
            y_label: "layer".to_string(),
            value_label: "attribution to the logit difference (nats)".to_string(),
            values,
            mark_meaning: (!marks.is_empty()).then(|| self.rule.clone()),
            marks,
            missing_meaning: None,
            limit: None,
        })
    }

    /// Attention and MLP of each layer, from the embedding to the final norm's bias and the logsumexp.
    fn waterfall(&self) -> Figure {
        let sum = |layer: i64, mlp: bool| -> f64 {
            let of = self.rows.iter().filter(|r| r.layer == layer && (r.component == "mlp") == mlp);
            of.map(|r| r.attribution).sum()
        };
        let part = |label: &str, value: f64| WaterfallPart { label: label.to_string(), value: Some(value) };
        let layer = |l: i64| WaterfallLayer { attention: Some(sum(l, false)), mlp: Some(sum(l, true)) };
        let after = self.rows.iter().filter(|r| r.layer == self.layers && r.attribution != 0.0);
        Figure::from(Waterfall {
            title: "Direct logit attribution by layer".to_string(),
            subtitle: self.subtitle(),
            value_label: "logit difference (nats)".to_string(),
            before: vec![part("embedding", sum(-1, false))],
            layers: (0..self.layers).map(layer).collect(),
            after: after.map(|r| part(&r.component, r.attribution)).collect(),
        })
    }

    /// What dots say; nothing where there are none.
    fn dots(&self) -> String {
        if self.rows.iter().any(|r| r.marked) { format!(" Dots mark {}.", self.rule) } else { String::new() }
    }

    /// What the lens reads beyond the layers' attributions; nothing where the metric is of one token a side.
    fn beyond_the_layers(&self) -> String {
        let of = |r: &&Row| r.component == LOGSUMEXP && r.attribution != 0.0;
        self.rows.iter().find(of).map_or(String::new(), |r| {
            format!(
                " Not among the attributions of layers, but in the lens, is the logsumexp ({} nats): what the metric's logsumexp over \
                 several tokens has beyond a weighted sum of their logits.",
                signed(Some(r.attribution), 3)
            )
        })
    }

    fn strongest(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.attribution.abs().total_cmp(&a.attribution.abs()));
        rows
    }

    /// The halves of the strongest.
    fn shown(&self) -> (Shown<'static>, Vec<Moved>) {
        let shown = Shown {
            subtitle: self.subtitle(),
            what: "attribution",
            subject: "the component",
            title: "Direct logit attribution: answer and foil apart".to_string(),
            order: Order::Largest,
            ..Shown::default()
        };
        let moved = |r: &Row| Moved { label: r.label.clone(), whole: Some(r.attribution), halves: r.halves };
        (shown, self.strongest().into_iter().take(LISTED).map(moved).collect())
    }

    fn finding(&self) -> String {
        let total: f64 = self.rows.iter().map(|r| r.attribution).sum();
        let first = self.strongest().first().map_or(String::new(), |r| {
            format!(
                " The largest is **{}** with {} nats ({} of the sum of sizes).{}",
                r.label,
                signed(Some(r.attribution), 3),
                share(r.share),
                r.halves.sentence("It")
            )
        });
        let tested = self.rows.iter().filter(|r| r.q.is_some());
        let power = match tested.clone().any(|r| r.q.is_some_and(|q| q < SIGNIFICANT)) {
            true => String::new(),
            false => Power { items: self.n, item: "prompt", tests: tested.count() }.sentence(),
        };
        format!(
            "Over {} the attributions sum to a logit difference of {} nats (before soft-capping of the logits, where the model has \
             it).{first}{power}",
            plural(self.n, "prompt"),
            signed(Some(total), 3)
        )
    }

    fn listed(&self, section: Section) -> Section {
        let header = vec![
            Heading::text("component"),
            Heading::number("attribution (nats)"),
            Heading::number("95 % interval"),
            Heading::number("share of the sum of sizes"),
            Heading::number("q"),
            Heading::number("family-wise p"),
        ];
        let cells = |r: &Row| {
            let attribution = signed(Some(r.attribution), 3);
            vec![r.label.clone(), attribution, interval(r.interval), share(r.share), p_value(r.q), p_value(r.p_max)]
        };
        let rows = self.strongest().into_iter().take(LISTED).map(cells).collect();
        section.table("The largest attributions", header, rows)
    }
}

/// How many components the report lists.
const LISTED: usize = 15;

fn lens_figure(lens: &Table, components: &Read) -> Result<Figure, AnalysisError> {
    let layers = lens.ints("layer")?;
    let curve = |name: &str, column: &str| -> Result<Curve, AnalysisError> {
        let values = lens.floats(column)?;
        let point = |(l, y): (&i64, &Option<f64>)| CurvePoint { x: *l as f64, y: *y, interval: None };
        let points = layers.iter().zip(values).map(point).collect();
        Ok(Curve { name: name.to_string(), role: CurveRole::Series, points })
    };
    Ok(Figure::from(Curves {
        title: "Accumulated attribution and logit lens".to_string(),
        subtitle: components.subtitle(),
        x_label: "after layer".to_string(),
        y_label: "logit difference (nats)".to_string(),
        shares: false,
        curves: vec![curve("accumulated attribution", "accumulated_mean")?, curve("logit lens", "lens_mean")?],
        thresholds: Vec::new(),
        reference: None,
        y_range: None,
        interval_meaning: None,
    }))
}
