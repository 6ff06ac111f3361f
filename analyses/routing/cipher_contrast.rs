//! Cipher contrast analysis: which heads work only where the request can be read?
//!
//! A component's direct logit attribution on the plain request minus that on the same request in cipher: what the detection of
//! surface content and everything behind it added. It takes three forward passes a pair (plain, cipher, and the harmless
//! control in cipher), however many heads there are, where an exchange of each head takes one for each. The control tells what
//! survives in cipher: the attribution on the request minus that on the control, both in cipher. Like every attribution it sees
//! direct effects alone: heads that write to the logits, and not the gate that triggers them, which the cipher's own exchange
//! finds. What the cipher takes away it takes by its letters and by the instructions around them together; `cipher` tells the two
//! apart. Source: "How Alignment Routes" (2026); attribution: Elhage et al. 2021.

use super::ciphered::{CipherArgs, Ciphered, OmittedPairs};
use crate::analyses::components::{self, Component, OfComponent, OfWriter, attributions, components, without_empty};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves;
use crate::analyses::halves::{Halves, Moved, Order, Shown, Way, moved};
use crate::analyses::marks::MarkArgs;
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::analyses::summary::{less, sd};
use crate::figure::Heatmap;
use crate::names::short_name;
use crate::plan::Attribution;
use crate::report::cells::{self, plural, signed};
use crate::stats::bca_mean;

parameters! {
    /// Show which heads' attributions a cipher takes away, in three passes per pair
    #[serde(default)]
    pub struct CipherContrast {
        ..pairs: PairArgs;
        ..cipher: CipherArgs;
    }
}

/// What is run of each pair, in the order of the plan.
const PASSES: [&str; 3] = ["plain", "cipher", "control"];

/// From this share of the metric's change on, the report calls a head's part large, and the claim on contrasts names it.
pub(super) const LARGE: f64 = 0.05;

/// How many components the report lists.
const LISTED: usize = 15;

impl Analysis for CipherContrast {
    const NAME: &'static str = "contrast";
    const TITLE: &'static str = "Cipher contrast";
    const FROM_TABLES: FromTables = FromTables { figures, sections };
    type Items = Ciphered;
    type Measured = OfRuns;

    fn prepare(&self, model: &Model) -> Result<Prepared<Ciphered>, AnalysisError> {
        Ciphered::read(&self.pairs, &self.cipher, model, 0)
    }

    fn measure(&self, runner: &dyn Runner, items: &Ciphered) -> Result<OfRuns, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let all = components(arch.n_layers, arch.n_heads);
        measured(runner, items, batches(items.n(), 2 * PASSES.len() * (arch.n_layers + 1)), all)
    }

    fn tables(&self, about: &About, items: &Ciphered, found: OfRuns) -> Result<Output, AnalysisError> {
        let OfRuns { components: all, metrics, attributions: of_runs, to_answer: of_answers } = found;
        let runs = of_runs.len();
        let (components, both) = without_empty(all, [of_runs, of_answers].concat());
        let (of_runs, of_answers) = both.split_at(runs);
        let numbers = Numbers {
            model: about.model,
            seed: about.seed,
            omitted: items.omitted_pairs(),
            metrics,
            of_runs: of_runs.to_vec(),
            of_answers: of_answers.to_vec(),
        };
        Ok(vec![numbers.heads_table(&components)?, numbers.passes_table()?].into())
    }
}

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let heads = table(tables, HeadRow::TABLE)?;
    let (shown, rows) = apart(heads)?;
    let halves = shown.figure(&rows).map(|figure| (shown.file, figure));
    Ok(std::iter::once(("contrast.png".to_string(), map(heads)?)).chain(halves).collect())
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (heads, passes) = (table(tables, HeadRow::TABLE)?, table(tables, PassRow::TABLE)?);
    let listing = Listing::of(heads)
        .strongest(HeadRow::contrast_mean.name)
        .first(LISTED)
        .column("layer", Show::Count(OfComponent::layer.name))
        .column("component", Show::Text(OfComponent::component.name))
        .column("plain (nats)", Show::Signed(HeadRow::plain_mean.name, 3))
        .column("cipher (nats)", Show::Signed(HeadRow::cipher_mean.name, 3))
        .column("contrast (nats)", Show::Signed(HeadRow::contrast_mean.name, 3))
        .column("95 % interval", Show::Interval(HeadRow::interval.name, 3))
        .column("share of drop", Show::Share(HeadRow::share.name))
        .column("q", Show::PValue(HeadRow::q_value.name))
        .column("family-wise p", Show::PValue(HeadRow::p_max.name))
        .column("sensitive", Show::Flag(HeadRow::sensitive.name))
        .column("survives (nats)", Show::Signed(HeadRow::survives_mean.name, 3))
        .column("q of survives", Show::PValue(HeadRow::survives_q.name));
    let caption = format!(
        "Mean attribution in plain words minus in cipher, of each head; all components are in heads.parquet.{}",
        if marks(heads)?.contains(&true) { format!(" Dots mark {}.", dots()) } else { String::new() }
    );
    let alt = "Layer-by-head heatmap of the contrast between plain and cipher.";
    let section = Section::new("What the cipher takes away")
        .paragraph(finding(heads, passes)?)
        .figure(dir.join("contrast.png"), caption, alt)
        .block(Block::Table(listing.block("The largest contrasts")?));
    let metrics = Listing::of(passes)
        .column("run", Show::Text(PassRow::condition.name))
        .column("forward passes", Show::Count(PassRow::passes.name))
        .column("metric (nats)", Show::Signed(PassRow::metric_mean.name, 3))
        .column("95 % interval", Show::Interval(PassRow::interval.name, 3));
    let metrics = metrics.block("The runs: control is the harmless request in cipher")?;
    let (shown, rows) = apart(heads)?;
    let halves = shown.section(&rows, dir, true);
    Ok(std::iter::once(section.block(Block::Table(metrics))).chain(halves).collect())
}

/// The halves of the largest contrasts.
fn apart(heads: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let (names, layers) = (heads.column(OfComponent::component)?, heads.column(OfComponent::layer)?);
    let n_layers = components::n_layers(heads.column(HeadRow::component)?.into_iter());
    let strongest = Listing::of(heads).strongest(HeadRow::contrast_mean.name).first(LISTED).rows()?;
    let labelled = strongest.into_iter().map(|i| (i, components::label_of(layers[i], names[i], n_layers)));
    let shown = Shown {
        subtitle: subtitle(heads)?,
        title: "Contrast of attributions: answer and foil apart".to_string(),
        what: "contrast",
        subject: "in plain, beside cipher, it",
        way: Way::Comparison,
        order: Order::Largest,
        ..Shown::default()
    };
    Ok((shown, moved(heads.column(HeadRow::halves)?, heads.column(HeadRow::contrast_mean)?, labelled)))
}

fn subtitle(heads: &Table) -> Result<String, AnalysisError> {
    let model = short_name(heads.column(HeadRow::model)?.first().copied().unwrap_or_default());
    let n = heads.column(HeadRow::n)?.first().copied().unwrap_or(0);
    Ok(format!("{model}, {}, plain minus cipher, last position", plural(n, "pair")))
}

/// What is read of a run.
struct OfRun {
    metric: Handle<f64>,
    attributions: Handle<Array>,
    /// Attributions to the answer's half.
    to_answer: Option<Handle<Array>>,
}

/// Three prompts a pair, in the order of [`PASSES`].
fn plan(items: &Ciphered, pairs: Range<usize>) -> (Plan, Vec<OfRun>) {
    let (mut plan, mut asked) = (Plan::default(), Vec::new());
    for i in pairs {
        let (pair, tokens) = (&items.plain.dataset.items[i], &items.plain.tokens[i]);
        let plain = plan.prompt(format!("{} positive", pair.id), tokens.positive.clone());
        let [cipher, control] = items.add_cipher(&mut plan, i);
        asked.extend([plain, cipher, control].map(|run| OfRun {
            metric: plan.read(run, tokens.metric.clone()),
            attributions: plan.read(run, Attribution(tokens.metric.clone())),
            to_answer: tokens.metric.answer_half().map(|half| plan.read(run, Attribution(half))),
        }));
    }
    (plan, asked)
}

/// Runs so many pairs at a time.
fn measured(
    runner: &dyn Runner,
    items: &Ciphered,
    pairs: impl Iterator<Item = Range<usize>>,
    components: Vec<Component>,
) -> Result<OfRuns, AnalysisError> {
    let n_heads = runner.model().decoder.arch.n_heads;
    let mut found = OfRuns { components, ..OfRuns::default() };
    for some in pairs {
        let (plan, asked) = plan(items, some);
        let readings = runner.run(&plan)?;
        for run in asked {
            let of = |handle: Handle<Array>| attributions(&readings[handle], &found.components, n_heads);
            let (attributions, to_answer) = (of(run.attributions), run.to_answer.map(of));
            found.metrics.push(readings[run.metric]);
            found.attributions.push(attributions);
            found.to_answer.extend(to_answer);
        }
    }
    Ok(found)
}

/// What was found of every run.
#[derive(Debug, Default, PartialEq)]
pub struct OfRuns {
    components: Vec<Component>,
    metrics: Vec<f64>,
    /// Attributions of all components to the metric. `[runs][components]`
    attributions: Vec<Vec<f64>>,
    /// The same to the answer's half.
    to_answer: Vec<Vec<f64>>,
}

/// What the cipher takes away of a component's attributions in the runs of [`PASSES`].
fn taken([plain, cipher, _]: [f64; 3]) -> f64 {
    plain - cipher
}

/// What survives in cipher of the request's content.
fn surviving([_, cipher, control]: [f64; 3]) -> f64 {
    cipher - control
}

/// What the tables are made of.
struct Numbers<'a> {
    model: &'a str,
    seed: u64,
    omitted: OmittedPairs,
    /// One a run: pair by pair, [`PASSES`] in each.
    metrics: Vec<f64>,
    /// Attributions of all components, one list a run.
    of_runs: Vec<Vec<f64>>,
    /// The same to the answer's half of the metric.
    of_answers: Vec<Vec<f64>>,
}

impl Numbers<'_> {
    fn n(&self) -> i64 {
        (self.metrics.len() / PASSES.len()) as i64
    }

    /// A number of each pair, from each component's attributions in plain, in cipher, and of the control in cipher.
    fn each(&self, of_runs: &[Vec<f64>], f: fn([f64; 3]) -> f64) -> Vec<Vec<f64>> {
        let of_component = |component: usize| {
            let of_pairs = of_runs.chunks_exact(PASSES.len());
            of_pairs.map(|runs| f(std::array::from_fn(|run| runs[run][component]))).collect()
        };
        (0..of_runs.first().map_or(0, Vec::len)).map(of_component).collect()
    }

    /// The halves of the contrast, or of what survives.
    fn halves(&self, f: fn([f64; 3]) -> f64) -> Vec<Halves> {
        let (whole, answers) = (self.each(&self.of_runs, f), self.each(&self.of_answers, f));
        let foils: Vec<Vec<f64>> = answers.iter().zip(&whole).map(|(answer, whole)| less(answer, whole)).collect();
        halves::over_items(&answers, &foils, self.seed)
    }

    fn heads_table(&self, components: &[Component]) -> Result<Table, AnalysisError> {
        let means = |f: fn([f64; 3]) -> f64| self.each(&self.of_runs, f).iter().map(|x| mean(x)).collect::<Vec<_>>();
        let (contrast, survives) = (self.each(&self.of_runs, taken), self.each(&self.of_runs, surviving));
        let tested = components::tested(components, &contrast, self.seed)?;
        let survived = components::tested(components, &survives, self.seed)?;
        let (plain, cipher, control) = (means(|x| x[0]), means(|x| x[1]), means(|x| x[2]));
        let (halves, survives_halves) = (self.halves(taken), self.halves(surviving));
        // Components sum to the metric before soft-capping, so their contrasts to its drop.
        let drop: f64 = contrast.iter().filter_map(|x| mean(x)).sum();
        let row = |c: usize| {
            let (tested, contrast_mean) = (&tested[c], mean(&contrast[c]));
            let with_drop = contrast_mean.is_some_and(|mean| mean * drop > 0.0);
            HeadRow {
                model: self.model,
                component: (&components[c]).into(),
                writer: (&components[c]).into(),
                n: self.n(),
                omitted: self.omitted,
                plain_mean: plain[c],
                cipher_mean: cipher[c],
                control_mean: control[c],
                contrast_mean,
                contrast_sd: sd(&contrast[c]),
                interval: tested.interval,
                p_value: tested.p,
                q_value: tested.q,
                p_max: tested.p_max,
                share: contrast_mean.filter(|_| drop != 0.0).map(|mean| mean / drop),
                survives_mean: mean(&survives[c]),
                survives_p: survived[c].p,
                survives_q: survived[c].q,
                sensitive: tested.q.is_some_and(|q| q < SIGNIFICANT) && with_drop,
                halves: halves[c],
                survives_halves: survives_halves[c],
            }
        };
        Ok(HeadRow::table((0..components.len()).map(row))?)
    }

    fn passes_table(&self) -> Result<Table, AnalysisError> {
        let options = Bootstrap { seed: self.seed, ..Bootstrap::default() };
        let row = |(run, condition)| {
            let metrics: Vec<f64> = self.metrics.iter().skip(run).step_by(PASSES.len()).copied().collect();
            PassRow {
                model: self.model,
                condition,
                n: self.n(),
                passes: self.n(),
                metric_mean: mean(&metrics),
                interval: bca_mean(&metrics, &options).map(Interval::ends),
            }
        };
        Ok(PassRow::table(PASSES.into_iter().enumerate().map(row))?)
    }
}

rows! {
    /// What the cipher takes away of a component's attribution.
    pub struct HeadRow<'a> in "heads" {
        model: &'a str = "the model, as it was named",
        component: OfComponent<'a> as "",
        writer: OfWriter<'a> [newer] as "",
        n: i64 = "pairs",
        omitted: OmittedPairs as "",
        plain_mean: Option<f64> = "mean attribution on the positive request in plain, nats",
        cipher_mean: Option<f64> = "mean attribution on the positive request in cipher, nats",
        control_mean: Option<f64> = "mean attribution on the negative request in cipher, nats",
        contrast_mean: Option<f64> = "mean attribution in plain minus in cipher, nats",
        contrast_sd: Option<f64> = "its standard deviation over pairs, nats",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of the mean contrast's 95 % BCa interval, nats", "upper end, nats"],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean contrast",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all components",
        p_max: Option<f64> = "family-wise p-value by the max statistic, same sign flips for every component",
        share: Option<f64> = "share of the metric's mean drop from plain to cipher, before soft-capping",
        survives_mean: Option<f64> =
            "content that survives in cipher: mean attribution on the positive minus on the negative request, both in \
             cipher, nats",
        survives_p: Option<f64> = "its two-sided sign-flip permutation p-value",
        survives_q: Option<f64> = "its Benjamini-Hochberg q-value over all components",
        sensitive: bool = "whether the contrast has q < 0.05 and the sign of the metric's drop",
        halves: Halves [newer] as "contrast" = "in plain minus in cipher, attribution to",
        survives_halves: Halves [newer] as "survives" = "positive minus negative request in cipher, attribution to",
    }

    /// The forward passes in one condition.
    pub struct PassRow<'a> in "passes" {
        model: &'a str = "the model, as it was named",
        condition: &'a str = "positive request in plain; in cipher; negative in cipher (control)",
        n: i64 = "pairs",
        passes: i64 = "forward passes",
        metric_mean: Option<f64> = "mean metric, nats",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % BCa interval, nats", "upper end, nats"],
    }
}

/// Contrasts of heads, layer by head.
fn map(heads: &Table) -> Result<Figure, AnalysisError> {
    let (layers, names) = (heads.column(OfComponent::layer)?, heads.column(OfComponent::component)?);
    let (means, marked) = (heads.column(HeadRow::contrast_mean)?, marks(heads)?);
    let head = |i: usize| Component { layer: layers[i], name: names[i].to_string() }.head();
    let found = |i: usize| Some((usize::try_from(layers[i]).ok()?, head(i)?, means[i], marked[i]));
    let (values, marks) = Heatmap::of_heads((0..heads.rows()).filter_map(found));
    Ok(Figure::from(Heatmap {
        title: "Change of attribution by the cipher".to_string(),
        subtitle: subtitle(heads)?,
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: "attribution in plain minus in cipher (nats)".to_string(),
        values,
        mark_meaning: (!marks.is_empty()).then(dots),
        marks,
        ..Heatmap::default()
    }))
}

/// Which components have a dot.
fn marks(heads: &Table) -> Result<Vec<bool>, AnalysisError> {
    let (sensitive, p_max, shares) =
        (heads.column(HeadRow::sensitive)?, heads.column(HeadRow::p_max)?, heads.column(HeadRow::share)?);
    let marked = |i: usize| sensitive[i] && MarkArgs::default().holds(p_max[i], shares[i]);
    Ok((0..heads.rows()).map(marked).collect())
}

/// What a dot says of a head.
fn dots() -> String {
    format!("cipher-sensitive heads, {}", MarkArgs::default().rule(true, "drop"))
}

/// What the tables say, in a paragraph.
fn finding(heads: &Table, passes: &Table) -> Result<String, AnalysisError> {
    let (names, layers) = (heads.column(OfComponent::component)?, heads.column(OfComponent::layer)?);
    let is_head = |i: &usize| names[*i].starts_with("head.");
    let strongest = Listing::of(heads).strongest(HeadRow::contrast_mean.name).rows()?;
    let first = strongest.into_iter().find(is_head).map_or(String::new(), |i| {
        let head = names[i].trim_start_matches("head.").parse().unwrap_or(0);
        let cell = |column| heads.column(column).ok().and_then(|cells: Vec<Option<f64>>| cells[i]);
        let ends = heads.column(HeadRow::interval).ok().and_then(|ends| ends[i]);
        format!(
            " The head with the largest contrast is **{}**: {} nats, {INTERVAL} {}, {} of the change.",
            cells::head(layers[i], head),
            signed(cell(HeadRow::contrast_mean), 3),
            interval(ends),
            cells::share(cell(HeadRow::share)),
        )
    });
    let out = heads.column(HeadRow::omitted)?.first().copied().unwrap_or_default().words();
    let metric = passes.column(PassRow::metric_mean)?;
    let value = |i: usize| metric.get(i).copied().flatten();
    let at = |i: usize| signed(value(i), 3);
    let sees = match value(0).zip(value(1)) {
        Some((plain, cipher)) if cipher >= plain => " The metric does not drop: the model sees through the cipher.",
        _ => "",
    };
    let (n, total) =
        (passes.column(PassRow::n)?.first().copied().unwrap_or(0), passes.column(PassRow::passes)?.iter().sum::<i64>());
    Ok(format!(
        "Over {} the logit difference is {} nats in plain words and {} in cipher ({} for the harmless request in cipher).{sees} \
         {}{first} All heads were measured in {} forward passes, three a pair.{out}",
        plural(n, "pair"),
        at(0),
        at(1),
        at(2),
        sensitivity(heads, n)?,
        cells::count(total),
    ))
}

/// How many heads are cipher-sensitive, and how many of them make up much of the metric's change.
fn sensitivity(heads: &Table, n: i64) -> Result<String, AnalysisError> {
    let (names, sensitive, shares) =
        (heads.column(OfComponent::component)?, heads.column(HeadRow::sensitive)?, heads.column(HeadRow::share)?);
    let is_head = |i: &usize| names[*i].starts_with("head.");
    let all = (0..heads.rows()).filter(is_head).count();
    let found: Vec<usize> = (0..heads.rows()).filter(|i| is_head(i) && sensitive[*i]).collect();
    let how = format!("with q < {SIGNIFICANT} and in the direction in which the metric does");
    if found.is_empty() {
        let q = heads.column(HeadRow::q_value)?;
        let power = Power { items: n, item: "pair", tests: q.iter().flatten().count() };
        let power = if q.iter().flatten().any(|q| *q < SIGNIFICANT) { String::new() } else { power.sentence() };
        return Ok(format!("No head of {all} is cipher-sensitive: the attribution of none changes {how}.{power}"));
    }
    let large = found.iter().filter(|i| shares[**i].is_some_and(|s| s >= LARGE)).count();
    let large = match large {
        0 => format!("None of them makes up {} of its change.", cells::share(LARGE)),
        1 => format!("1 of them makes up {} of its change or more.", cells::share(LARGE)),
        n => format!("{n} of them make up {} of its change or more each.", cells::share(LARGE)),
    };
    let (are, their) = if found.len() == 1 { ("is", "its") } else { ("are", "their") };
    Ok(format!("{} of {all} heads {are} cipher-sensitive: {their} attribution changes {how}. {large}", found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::inputs::PairFile;
    use crate::study::Study;

    #[test]
    fn the_legend_and_the_caption_say_by_which_rule_dots_were_set() {
        let table = |sensitive: [bool; 3]| {
            let row = |i: usize| HeadRow {
                model: "m",
                component: OfComponent { layer: 0, component: ["head.0", "head.1", "head.2"][i] },
                n: 80,
                contrast_mean: Some([0.5, -0.5, 0.1][i]),
                sensitive: sensitive[i],
                p_max: Some(0.001),
                share: Some([0.3, -0.3, 0.001][i]),
                ..HeadRow::default()
            };
            HeadRow::table((0..3).map(row)).unwrap()
        };
        let figure = |table: &Table| match map(table).unwrap() {
            Figure::Heatmap(map) => map,
            other => panic!("{other:?}"),
        };
        // The second does not go with the drop, and is not sensitive however significant it is; the third is too small.
        let map = figure(&table([true, false, true]));
        assert_eq!(map.marks, [[true, false, false]]);
        let meaning = map.mark_meaning.unwrap();
        assert!(meaning.starts_with("cipher-sensitive heads, family-wise p < 0.05") && meaning == dots(), "{meaning}");
        assert_eq!(figure(&table([false; 3])).mark_meaning, None);
    }

    #[test]
    fn attributions_do_not_depend_on_which_pairs_are_planned_at_once() {
        let study = Study::open(crate::demo::NAME).unwrap();
        let file = PairFile { max_pairs: Some(5), ..PairFile::from("demo:pairs.jsonl") };
        let pairs = PairArgs { file, ..PairArgs::default() };
        let cipher = CipherArgs { examples: 0, ..CipherArgs::default() };
        let items = CipherContrast { pairs, cipher }.prepare(&study.model).unwrap().items;
        let session = study.session();
        let all = components(study.model.decoder.arch.n_layers, study.model.decoder.arch.n_heads);
        let of = |pairs: Vec<Range<usize>>| measured(&session, &items, pairs.into_iter(), all.clone()).unwrap();
        let whole = of(vec![0..5]);
        assert_eq!((whole.metrics.len(), whole.attributions.len(), whole.to_answer.len()), (15, 15, 15));
        assert!(whole == of(vec![0..1, 1..3, 3..5]));
    }
}
