//! Direct logit attribution: what does each component add to the metric by itself?
//!
//! The residual stream is a sum of the embedding, every head's output and every MLP's, and the logit difference is, once
//! the final norm's scale is held fixed, a sum over them ([`crate::run`] computes it while the pass goes by). A component
//! that works through later ones has a small attribution however necessary it is: that is what interchange is for.
//! Beside the accumulated attributions stands the logit lens: the metric that each layer's residual stream would give if the
//! final norm read it. Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; nostalgebraist
//! 2020, "Interpreting GPT: the logit lens".

mod experts;

use super::columns::OfItem;
use super::components::{
    self, Component, LOGSUMEXP, OfComponent, OfWriter, attributions, components, label_of, without_empty,
};
use super::effects::{SIGNIFICANT, interval};
use super::halves;
use super::halves::{Halves, Moved, Order, Shown};
use super::inputs::rows_read;
use super::marks::{Mark, MarkArgs};
use super::power::Power;
use super::summary::{less, sd};
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Heatmap, Waterfall, WaterfallLayer, WaterfallPart};
use crate::model::arch::Arch;
use crate::names::short_name;
use crate::plan::Attribution;
use crate::report::cells::{p_value, plural, share, signed};
use crate::run::log_sum_exp;
use crate::table::rows::Column;
use candle_core::Tensor;

parameters! {
    /// Show what each head and MLP writes towards the answer (direct logit attribution, logit lens)
    #[serde(default)]
    pub struct Dla {
        ..measured: MeasuredArgs;
        ..marks: MarkArgs;
    }
}

/// What was found of every prompt.
#[derive(Default)]
pub struct Measured {
    components: Vec<Component>,
    /// Logit differences, and their answers' halves.
    metrics: Vec<f64>,
    answers: Vec<f64>,
    /// Attributions to them. `[prompts][components]`
    of_items: Vec<Vec<f64>>,
    of_answers: Vec<Vec<f64>>,
    /// The metric that each layer's stream would give. `[prompts][layers]`
    lenses: Vec<Vec<f64>>,
    /// What experts add, where the model has layers with several.
    experts: Vec<Vec<Vec<Option<f64>>>>,
}

impl Analysis for Dla {
    const NAME: &'static str = "dla";
    const TITLE: &'static str = "Direct logit attribution";
    const FROM_TABLES: FromTables = FromTables { figures, sections };
    type Items = MeasuredPrompts;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<MeasuredPrompts>, AnalysisError> {
        self.measured.read(model)
    }

    fn measure(&self, runner: &dyn Runner, items: &MeasuredPrompts) -> Result<Measured, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let all = components(arch.n_layers, arch.n_heads);
        let with_experts = experts::layers(arch);
        let read: Vec<Site> = streams(arch).into_iter().chain(with_experts.iter().flat_map(|l| l.sites())).collect();
        let mut found = Measured::default();
        for some in batches(items.tokens.len(), rows_read(&read, arch, Position::Last, 1)) {
            let (plan, asked) = plan(arch, &with_experts, items, some.clone());
            let readings = runner.run(&plan)?;
            for ((_, metric), asked) in items.tokens[some].iter().zip(asked) {
                found.metrics.push(readings[asked.metric]);
                found.of_items.push(attributions(&readings[asked.attribution], &all, arch.n_heads));
                found.answers.extend(asked.half.map(|(half, _)| readings[half]));
                found.of_answers.extend(asked.half.map(|(_, of)| attributions(&readings[of], &all, arch.n_heads)));
                if !runner.is_counting() {
                    let streams: Vec<&[f32]> = asked.streams.iter().map(|s| &readings[*s].values[..]).collect();
                    found.lenses.push(lens(runner.model(), metric, &streams)?);
                    let values = |handle: &Handle<Array>| &readings[*handle].values[..];
                    let of_experts: Vec<Vec<&[f32]>> =
                        asked.experts.iter().map(|of_layer| of_layer.iter().map(values).collect()).collect();
                    let (decoder, last) = (&runner.model().decoder, streams.last().copied().unwrap_or_default());
                    found.experts.push(experts::of_prompt(decoder, &with_experts, metric, last, &of_experts)?);
                }
            }
        }
        found.components = all;
        Ok(found)
    }

    fn tables(&self, about: &About, items: &MeasuredPrompts, measured: Measured) -> Result<Output, AnalysisError> {
        let Measured { components: all, metrics, answers, of_items, of_answers, lenses, experts: of_experts } =
            measured;
        let (components, both) = without_empty(all, [of_items, of_answers].concat());
        let (attributions, of_answers) = both.split_at(metrics.len());
        let of_foils = of_answers.iter().zip(attributions).map(|(answer, whole)| less(answer, whole)).collect();
        let found = Found {
            model: about.model,
            components: &components,
            attributions,
            halves: [of_answers.to_vec(), of_foils],
            foils: less(&answers, &metrics),
            metrics,
            answers,
        };
        let mut tables = vec![
            found.components_table(self.marks, about.seed)?,
            found.items_table(items)?,
            lens_table(found.model, &components, attributions, &lenses)?,
        ];
        let with_experts = experts::layers(&about.loaded.decoder.arch);
        if !with_experts.is_empty() {
            tables.push(experts::table_of(about.model, &with_experts, &of_experts, about.seed)?);
        }
        Ok(tables.into())
    }
}

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let components = Read::of(table(tables, ComponentRow::TABLE)?)?;
    let lens = table(tables, LensRow::TABLE)?;
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
    let components = Read::of(table(tables, ComponentRow::TABLE)?)?;
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
    let of_halves = shown.section(&rows, dir, true);
    let sections = [Some(components.listed(main)), of_halves, experts::section(tables)?, Some(layers)];
    Ok(sections.into_iter().flatten().collect())
}

/// What is read of a prompt.
struct OfPrompt {
    metric: Handle<f64>,
    attribution: Handle<Array>,
    /// The same of the answer's half.
    half: Option<(Handle<f64>, Handle<Array>)>,
    /// The residual stream after every layer.
    streams: Vec<Handle<Array>>,
    /// What the experts of each layer give.
    experts: Vec<Vec<Handle<Array>>>,
}

/// Where the lens reads: after every layer.
fn streams(arch: &Arch) -> Vec<Site> {
    (0..arch.n_layers).map(|layer| SiteKind::ResidPost.at(layer)).collect()
}

/// The metric and the attributions of some prompts, and their residual streams after every layer.
fn plan(
    arch: &Arch,
    with_experts: &[experts::Layer],
    items: &MeasuredPrompts,
    some: Range<usize>,
) -> (Plan, Vec<OfPrompt>) {
    let mut plan = Plan::default();
    let of_prompt = |i: usize| {
        let (item, (ids, metric)) = (&items.dataset.items[i], &items.tokens[i]);
        let prompt = plan.prompt(item.id.clone(), ids.clone());
        let mut both = |metric: Metric| (plan.read(prompt, metric.clone()), plan.read(prompt, Attribution(metric)));
        let (of_metric, attribution) = both(metric.clone());
        let half = metric.answer_half().map(&mut both);
        let stream = |site: Site| Activation { site, positions: Positions::Last, part: Part::All };
        let mut all = |sites: Vec<Site>| sites.into_iter().map(|site| plan.read(prompt, stream(site))).collect();
        let streams = all(streams(arch));
        let experts = with_experts.iter().map(|layer| all(layer.sites())).collect();
        OfPrompt { metric: of_metric, attribution, half, streams, experts }
    };
    let asked = some.map(of_prompt).collect();
    (plan, asked)
}

/// The metric that the final norm would read of each layer's residual stream, before soft-capping.
fn lens(model: &Model, metric: &Metric, streams: &[&[f32]]) -> Result<Vec<f64>, AnalysisError> {
    let Metric::LogitDifference { answer, foil } = metric else {
        return Err(AnalysisError::Failed(
            "the logit lens is of a logit difference, not of a continuation".to_string(),
        ));
    };
    let decoder = &model.decoder;
    let failed = |e: candle_core::Error| AnalysisError::Failed(e.to_string());
    let rows = streams.concat();
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
        let of = self.by_component(self.attributions);
        let totals: Vec<f64> = self.attributions.iter().map(|a| a.iter().map(|v| v.abs()).sum()).collect();
        let share_of_sizes = |of: &[f64]| {
            let each = of.iter().zip(&totals).filter(|(_, t)| **t > 0.0).map(|(v, t)| v.abs() / t);
            mean(&each.collect::<Vec<_>>())
        };
        let tested = components::tested(self.components, &of, seed)?;
        let [answers, foils] = self.halves.each_ref().map(|half| self.by_component(half));
        let halves = halves::over_items(&answers, &foils, seed);
        let total: f64 = of.iter().filter_map(|x| mean(x)).sum();
        let share = |x: &[f64]| Some(mean(x)? / total).filter(|share| share.is_finite());
        let rows =
            self.components.iter().zip(&of).zip(tested).zip(halves).map(|(((component, of), tested), halves)| {
                let marked = rule.marks(&tested, share(of), true);
                ComponentRow {
                    model: self.model,
                    component: component.into(),
                    n: self.metrics.len() as i64,
                    attribution_mean: mean(of),
                    attribution_sd: sd(of),
                    share: share_of_sizes(of),
                    interval: tested.interval,
                    p_value: tested.p,
                    q_value: tested.q,
                    p_max: tested.p_max,
                    writer: component.into(),
                    halves,
                    mark: Some(Mark { marked, mark_rule: rule.rule(true, "logit difference").into() }),
                }
            });
        Ok(ComponentRow::table(rows)?)
    }

    fn items_table(&self, items: &MeasuredPrompts) -> Result<Table, AnalysisError> {
        let of_component = |c: usize| {
            items.dataset.items.iter().enumerate().map(move |(i, item)| ItemRow {
                item: item.into(),
                component: (&self.components[c]).into(),
                attribution: Some(self.attributions[i][c]),
                metric: Some(self.metrics[i]),
                writer: (&self.components[c]).into(),
                answer_attribution: Some(self.halves[0][i][c]),
                foil_attribution: Some(self.halves[1][i][c]),
                answer_metric: Some(self.answers[i]),
                foil_metric: Some(self.foils[i]),
            })
        };
        Ok(ItemRow::table((0..self.components.len()).flat_map(of_component))?)
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
    let row = |layer: usize| {
        let accumulated: Vec<f64> = attributions.iter().map(|a| up_to(layer, a)).collect();
        let of_lens: Vec<f64> = lens.iter().map(|x| x[layer]).collect();
        LensRow {
            model,
            layer: layer as i64,
            n: lens.len() as i64,
            accumulated_mean: mean(&accumulated),
            accumulated_sd: sd(&accumulated),
            lens_mean: mean(&of_lens),
            lens_sd: sd(&of_lens),
        }
    };
    Ok(LensRow::table((0..layers).map(row))?)
}

rows! {
    /// A component over prompts.
    pub struct ComponentRow<'a> in "components" {
        model: &'a str = "the model, as it was named",
        component: OfComponent<'a> as "",
        n: i64 = "prompts",
        attribution_mean: Option<f64> =
            "mean attribution to the logit difference before soft-capping of the logits, nats",
        attribution_sd: Option<f64> = "its standard deviation over prompts, nats",
        share: Option<f64> = "mean share of the sum of absolute attributions",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean's 95 % BCa interval, nats",
            "upper end of the mean's 95 % BCa interval, nats",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean",
        q_value: Option<f64> =
            "Benjamini-Hochberg q-value over all components but the logsumexp, which is not tested",
        p_max: Option<f64> = "family-wise p-value by the max statistic over the same",
        writer: OfWriter<'a> [newer] as "",
        halves: Halves [newer] as "attribution" = "attribution to",
        mark: Option<Mark<'a>> [newer] as "",
    }

    /// A component in one prompt.
    pub struct ItemRow<'a> in "items" {
        item: OfItem<'a> as "",
        component: OfComponent<'a> as "",
        attribution: Option<f64> =
            "attribution to the logit difference, nats; those of a prompt sum to its metric before soft-capping",
        metric: Option<f64> = "the prompt's logit difference, after soft-capping where the model has it, nats",
        writer: OfWriter<'a> as "",
        answer_attribution: Option<f64> =
            "attribution to logsumexp(answer logits) less the vocabulary's mean logit, nats; those of a prompt sum to its \
             answer_metric before soft-capping",
        foil_attribution: Option<f64> = "the same of the foil: answer_attribution less this is attribution",
        answer_metric: Option<f64> =
            "the prompt's logsumexp(answer logits) less the mean logit, after soft-capping where the model has it (the mean \
             is over 1,024 fixed tokens there), nats",
        foil_metric: Option<f64> = "the same of the foil: answer_metric less this is metric",
    }

    /// The residual stream after a layer.
    pub struct LensRow<'a> in "lens" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        n: i64 = "prompts",
        accumulated_mean: Option<f64> = "mean sum of the attributions up to this layer, nats",
        accumulated_sd: Option<f64> = "its standard deviation, nats",
        lens_mean: Option<f64> =
            "mean logit difference of the residual stream after this layer, before soft-capping of the logits, nats",
        lens_sd: Option<f64> = "its standard deviation, nats",
    }
}

/// The table of components, read back.
struct Read<'a> {
    model: String,
    n: i64,
    layers: i64,
    /// What a dot in the heatmap says.
    rule: String,
    rows: Vec<ComponentRow<'a>>,
}

impl ComponentRow<'_> {
    fn attribution(&self) -> f64 {
        self.attribution_mean.unwrap_or(0.0)
    }

    fn marked(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.marked)
    }
}

impl<'a> Read<'a> {
    fn of(table: &'a Table) -> Result<Self, AnalysisError> {
        let mut rows = ComponentRow::read(table)?;
        for row in &mut rows {
            row.mark.get_or_insert_with(|| Mark::by_q(row.q_value));
        }
        let first = rows.first().cloned().unwrap_or_default();
        Ok(Read {
            model: short_name(first.model),
            n: first.n,
            layers: components::n_layers(rows.iter().map(|r| r.component)),
            rule: first.mark.unwrap_or_default().rule(),
            rows,
        })
    }

    fn label(&self, row: &ComponentRow) -> String {
        label_of(row.component.layer, row.component.component, self.layers)
    }

    fn subtitle(&self) -> String {
        format!("{}, {}, last position", self.model, plural(self.n, "prompt"))
    }

    /// Heads, layer by head.
    fn map(&self) -> Figure {
        let head = |r: &ComponentRow| {
            let head = r.component.component.strip_prefix("head.")?.parse().ok()?;
            Some((usize::try_from(r.component.layer).ok()?, head, Some(r.attribution()), r.marked()))
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
            ..Heatmap::default()
        })
    }

    /// Attention and MLP of each layer, from the embedding to the final norm's bias and the logsumexp.
    fn waterfall(&self) -> Figure {
        let sum = |layer: i64, mlp: bool| -> f64 {
            let of = self.rows.iter().map(|r| (r.component, r.attribution()));
            of.filter(|(c, _)| c.layer == layer && (c.component == "mlp") == mlp)
                .map(|(_, attribution)| attribution)
                .sum()
        };
        let part = |label: &str, value: f64| WaterfallPart { label: label.to_string(), value: Some(value) };
        let layer = |l: i64| WaterfallLayer { attention: Some(sum(l, false)), mlp: Some(sum(l, true)) };
        let after = self.rows.iter().filter(|r| r.component.layer == self.layers && r.attribution() != 0.0);
        Figure::from(Waterfall {
            title: "Direct logit attribution by layer".to_string(),
            subtitle: self.subtitle(),
            value_label: "logit difference (nats)".to_string(),
            before: vec![part("embedding", sum(-1, false))],
            layers: (0..self.layers).map(layer).collect(),
            after: after.map(|r| part(r.component.component, r.attribution())).collect(),
        })
    }

    /// What dots say; nothing where there are none.
    fn dots(&self) -> String {
        if self.rows.iter().any(ComponentRow::marked) { format!(" Dots mark {}.", self.rule) } else { String::new() }
    }

    /// What the lens reads beyond the layers' attributions; nothing where the metric is of one token a side.
    fn beyond_the_layers(&self) -> String {
        let of = |r: &&ComponentRow| r.component.component == LOGSUMEXP && r.attribution() != 0.0;
        self.rows.iter().find(of).map_or(String::new(), |r| {
            format!(
                " Not among the attributions of layers, but in the lens, is the logsumexp ({} nats): what the metric's logsumexp over \
                 several tokens has beyond a weighted sum of their logits.",
                signed(Some(r.attribution()), 3)
            )
        })
    }

    fn strongest(&self) -> Vec<&ComponentRow<'a>> {
        let mut rows: Vec<&ComponentRow> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.attribution().abs().total_cmp(&a.attribution().abs()));
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
        let moved = |r: &ComponentRow| Moved { label: self.label(r), whole: Some(r.attribution()), halves: r.halves };
        (shown, self.strongest().into_iter().take(LISTED).map(moved).collect())
    }

    fn finding(&self) -> String {
        let total: f64 = self.rows.iter().map(ComponentRow::attribution).sum();
        let first = self.strongest().first().map_or(String::new(), |r| {
            format!(
                " The largest is **{}** with {} nats ({} of the sum of sizes).{}",
                self.label(r),
                signed(Some(r.attribution()), 3),
                share(r.share),
                r.halves.sentence("It")
            )
        });
        let tested = self.rows.iter().filter(|r| r.q_value.is_some());
        let power = match tested.clone().any(|r| r.q_value.is_some_and(|q| q < SIGNIFICANT)) {
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
        let cells = |r: &ComponentRow| {
            let attribution = signed(Some(r.attribution()), 3);
            vec![self.label(r), attribution, interval(r.interval), share(r.share), p_value(r.q_value), p_value(r.p_max)]
        };
        let rows = self.strongest().into_iter().take(LISTED).map(cells).collect();
        section.table("The largest attributions", header, rows)
    }
}

/// How many components the report lists.
const LISTED: usize = 15;

fn lens_figure(lens: &Table, components: &Read) -> Result<Figure, AnalysisError> {
    let layers = lens.column(LensRow::layer)?;
    let curve = |name: &str, column: Column<Option<f64>>| -> Result<Curve, AnalysisError> {
        let values = layers.iter().zip(lens.column(column)?);
        let points = values.map(|(l, y)| CurvePoint { x: *l as f64, y, interval: None }).collect();
        Ok(Curve { name: name.to_string(), role: CurveRole::Series, points })
    };
    Ok(Figure::from(Curves {
        title: "Accumulated attribution and logit lens".to_string(),
        subtitle: components.subtitle(),
        x_label: "after layer".to_string(),
        y_label: "logit difference (nats)".to_string(),
        curves: vec![
            curve("accumulated attribution", LensRow::accumulated_mean)?,
            curve("logit lens", LensRow::lens_mean)?,
        ],
        ..Curves::default()
    }))
}
