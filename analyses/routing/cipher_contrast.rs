//! Cipher contrast analysis: which heads work only where the request can be read?
//!
//! A component's direct logit attribution on the plain request minus that on the same request in cipher: what the detection of
//! surface content and everything behind it added. It takes three forward passes a pair (plain, cipher, and the harmless
//! control in cipher), however many heads there are, where an exchange of each head takes one for each. The control tells what
//! survives in cipher: the attribution on the request minus that on the control, both in cipher. Like every attribution it sees
//! direct effects alone: heads that write to the logits, and not the gate that triggers them, which the cipher's own exchange
//! finds. What the cipher takes away it takes by its letters and by the instructions around them together; `cipher` tells the two
//! apart. Source: "How Alignment Routes" (2026); attribution: Elhage et al. 2021.

use super::ciphered::{CipherArgs, Ciphered};
use crate::analyses::components::{self, Component, attributions, components, without_empty};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, Tested, interval};
use crate::analyses::halves::{Moved, Order, Shown, Way};
use crate::analyses::inputs::PairArgs;
use crate::analyses::marks::MarkArgs;
use crate::analyses::power::Power;
use crate::analyses::scored::Scored;
use crate::analyses::summary::{less, mean, sd};
use crate::analyses::{Analysis, AnalysisError, Figures, Output, Plans, batches, halves, planned, table};
use crate::figure::{Figure, Heatmap};
use crate::model::Model;
use crate::names::short_name;
use crate::plan::{Plan, What};
use crate::report::cells::{self, plural, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::run::Reading;
use crate::session::Session;
use crate::stats::{Bootstrap, bca_mean};
use crate::table::Table;
use std::ops::Range;
use std::path::Path;

/// Show which heads' attributions a cipher takes away, in three passes per pair
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct CipherContrast {
    #[command(flatten)]
    #[serde(flatten)]
    pub pairs: PairArgs,

    #[command(flatten)]
    #[serde(flatten)]
    pub cipher: CipherArgs,
}

/// What is run of each pair, in the order of the plan.
const PASSES: [&str; 3] = ["plain", "cipher", "control"];

/// From this share of the metric's change on, the report calls a head's part large, and the claim on contrasts names it.
pub(super) const LARGE: f64 = 0.05;

/// How many components the report lists.
const LISTED: usize = 15;

impl Analysis for CipherContrast {
    const NAME: &'static str = "contrast";
    const ABOUT: &'static str = "Show which heads' attributions a cipher takes away, in three passes per pair";
    const TITLE: &'static str = "Cipher contrast";
    type Items = Ciphered;

    fn prepare(&self, model: &Model) -> Result<Ciphered, AnalysisError> {
        Ciphered::read(&self.pairs, &self.cipher, model, 0)
    }

    fn datasets(items: &Ciphered) -> Vec<(String, String)> {
        items.sources()
    }

    fn scored(items: &Ciphered) -> &Scored {
        &items.plain.scored
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Ciphered) -> Result<Plans<'a>, AnalysisError> {
        Ok(planned(some(items, model).map(|pairs| plan(items, pairs))))
    }

    fn compute(&self, session: &Session, items: &Ciphered) -> Result<Output, AnalysisError> {
        let arch = &session.model.decoder.arch;
        let all = components(arch.n_layers, arch.n_heads);
        let (metrics, of_runs, of_answers) = measured(session, items, some(items, session.model), &all)?;
        let runs = of_runs.len();
        let (components, both) = without_empty(all, [of_runs, of_answers].concat());
        let (of_runs, of_answers) = both.split_at(runs);
        let numbers = Numbers {
            model: &session.model.name,
            seed: session.seed,
            left_out: [items.left_out as i64, items.too_long as i64],
            metrics,
            of_runs: of_runs.to_vec(),
            of_answers: of_answers.to_vec(),
        };
        let heads = numbers.with_halves(numbers.heads_table(&components)?)?;
        Ok(vec![heads, numbers.passes_table()?].into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        let heads = table(tables, "heads")?;
        let (shown, rows) = apart(heads)?;
        let halves = shown.figure(&rows).map(|figure| (shown.file, figure));
        Ok(std::iter::once(("contrast.png".to_string(), map(heads)?)).chain(halves).collect())
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        let (heads, passes) = (table(tables, "heads")?, table(tables, "passes")?);
        let listing = Listing::of(heads)
            .strongest("contrast_mean")
            .first(LISTED)
            .column("layer", Show::Count("layer"))
            .column("component", Show::Text("component"))
            .column("plain (nats)", Show::Signed("plain_mean", 3))
            .column("cipher (nats)", Show::Signed("cipher_mean", 3))
            .column("contrast (nats)", Show::Signed("contrast_mean", 3))
            .column("95 % interval", Show::Interval("ci_low", "ci_high", 3))
            .column("share of drop", Show::Share("share"))
            .column("q", Show::PValue("q_value"))
            .column("family-wise p", Show::PValue("p_max"))
            .column("sensitive", Show::Flag("sensitive"))
            .column("survives (nats)", Show::Signed("survives_mean", 3))
            .column("q of survives", Show::PValue("survives_q"));
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
            .column("run", Show::Text("condition"))
            .column("forward passes", Show::Count("passes"))
            .column("metric (nats)", Show::Signed("metric_mean", 3))
            .column("95 % interval", Show::Interval("ci_low", "ci_high", 3));
        let metrics = metrics.block("The runs: control is the harmless request in cipher")?;
        let (shown, rows) = apart(heads)?;
        let halves = shown.section(&rows, dir, true);
        Ok(std::iter::once(section.block(Block::Table(metrics))).chain(halves).collect())
    }
}

/// The halves of the largest contrasts.
fn apart(heads: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let (names, layers) = (heads.strs("component")?, heads.ints("layer")?);
    let n_layers = components::n_layers(layers, &names);
    let strongest = Listing::of(heads).strongest("contrast_mean").first(LISTED).rows()?;
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
    Ok((shown, halves::moved(heads, ("contrast", "contrast_mean"), labelled)?))
}

fn subtitle(heads: &Table) -> Result<String, AnalysisError> {
    let model = short_name(heads.strs("model")?.first().copied().unwrap_or_default());
    let n = heads.ints("n")?.first().copied().unwrap_or(0);
    Ok(format!("{model}, {}, plain minus cipher, last position", plural(n, "pair")))
}

/// The pairs that are planned at once.
fn some(items: &Ciphered, model: &Model) -> impl Iterator<Item = Range<usize>> {
    batches(items.n(), 2 * PASSES.len() * (model.decoder.arch.n_layers + 1))
}

/// Three prompts a pair, in the order of [`PASSES`]; of each its metric, its attributions, and those to the answer's half.
fn plan(items: &Ciphered, pairs: Range<usize>) -> Plan {
    let mut plan = Plan::default();
    for i in pairs {
        let (pair, tokens) = (&items.plain.dataset.items[i], &items.plain.tokens[i]);
        let plain = plan.prompt(format!("{} positive", pair.id), tokens.positive.clone());
        let [cipher, control] = items.add_cipher(&mut plan, i);
        for run in [plain, cipher, control] {
            plan.read(run, What::Metric(tokens.metric.clone()));
            plan.read(run, What::Attribution(tokens.metric.clone()));
            // Pairs' metrics are logit differences.
            tokens.metric.answer_half().map(|half| plan.read(run, What::Attribution(half)));
        }
    }
    plan
}

/// Each run's metric, its attributions of all components, and those to the answer's half; so many pairs at a time.
type OfRuns = (Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>);

fn measured(
    session: &Session,
    items: &Ciphered,
    pairs: impl Iterator<Item = Range<usize>>,
    all: &[Component],
) -> Result<OfRuns, AnalysisError> {
    let (mut metrics, mut of_runs, mut of_answers) = (Vec::new(), Vec::new(), Vec::new());
    let n_heads = session.model.decoder.arch.n_heads;
    for some in pairs {
        let readings = session.run(&plan(items, some))?;
        metrics.extend(readings.iter().filter_map(Reading::number));
        for (k, array) in readings.iter().filter(|r| r.number().is_none()).enumerate() {
            let of = if k % 2 == 0 { &mut of_runs } else { &mut of_answers };
            of.push(attributions(array, all, n_heads));
        }
    }
    Ok((metrics, of_runs, of_answers))
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
    /// Pairs that cannot be written in the cipher, and pairs that would be too long.
    left_out: [i64; 2],
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

    /// The table of heads with the columns of both halves, of the contrast and of what survives.
    fn with_halves(&self, mut table: Table) -> Result<Table, AnalysisError> {
        let named = [
            ("contrast", "in plain minus in cipher, attribution to"),
            ("survives", "positive minus negative request in cipher, attribution to"),
        ];
        let of: [fn([f64; 3]) -> f64; 2] = [taken, surviving];
        for ((what, doc), f) in named.into_iter().zip(of) {
            let (whole, answers) = (self.each(&self.of_runs, f), self.each(&self.of_answers, f));
            let foils: Vec<Vec<f64>> = answers.iter().zip(&whole).map(|(answer, whole)| less(answer, whole)).collect();
            table = halves::columns(table, what, doc, [&answers, &foils], self.seed)?;
        }
        Ok(table)
    }

    fn heads_table(&self, components: &[Component]) -> Result<Table, AnalysisError> {
        let of = |f: fn([f64; 3]) -> f64| self.each(&self.of_runs, f);
        let (contrast, survives) = (of(taken), of(surviving));
        let tested = |of: &[Vec<f64>]| components::tested(components, of, self.seed);
        let (tested, survived) = (tested(&contrast)?, tested(&survives)?);
        let means = |of: Vec<Vec<f64>>| of.iter().map(|x| mean(x)).collect::<Vec<_>>();
        let contrasts = means(contrast.clone());
        // Components sum to the metric before soft-capping, so their contrasts to its drop.
        let drop: f64 = contrasts.iter().flatten().sum();
        let sensitive = |(t, mean): (&Tested, &Option<f64>)| {
            t.q.is_some_and(|q| q < SIGNIFICANT) && mean.is_some_and(|mean| mean * drop > 0.0)
        };
        let float = |f: fn(&Tested) -> Option<f64>| tested.iter().map(f);
        let n = components.len();
        Ok(Table::new("heads")
            .str("model", "the model, as it was named", vec![self.model; n])?
            .int("layer", components::LAYERS, components.iter().map(|c| c.layer))?
            .str("component", components::NAMES, components.iter().map(|c| c.name.as_str()))?
            .opt_str("writer", components::WRITERS, components.iter().map(Component::writer))?
            .int("n", "pairs", vec![self.n(); n])?
            .int("left_out", "pairs that cannot be written in the cipher", vec![self.left_out[0]; n])?
            .int(
                "too_long",
                "pairs that would be longer in the cipher than the model's context, left out too",
                vec![self.left_out[1]; n],
            )?
            .float("plain_mean", "mean attribution on the positive request in plain, nats", means(of(|x| x[0])))?
            .float("cipher_mean", "mean attribution on the positive request in cipher, nats", means(of(|x| x[1])))?
            .float("control_mean", "mean attribution on the negative request in cipher, nats", means(of(|x| x[2])))?
            .float("contrast_mean", "mean attribution in plain minus in cipher, nats", contrasts.clone())?
            .float("contrast_sd", "its standard deviation over pairs, nats", contrast.iter().map(|x| sd(x)))?
            .float("ci_low", "lower end of the mean contrast's 95 % BCa interval, nats", float(|t| t.interval.map(|i| i.0)))?
            .float("ci_high", "upper end, nats", float(|t| t.interval.map(|i| i.1)))?
            .float("p_value", "two-sided sign-flip permutation p-value of the mean contrast", float(|t| t.p))?
            .float("q_value", "Benjamini-Hochberg q-value over all components", float(|t| t.q))?
            .float(
                "p_max",
                "family-wise p-value by the max statistic, same sign flips for every component",
                float(|t| t.p_max),
            )?
            .float(
                "share",
                "share of the metric's mean drop from plain to cipher, before soft-capping",
                contrasts.iter().map(|c| c.filter(|_| drop != 0.0).map(|c| c / drop)),
            )?
            .float(
                "survives_mean",
                "content that survives in cipher: mean attribution on the positive minus on the negative request, both in \
                 cipher, nats",
                means(survives),
            )?
            .float("survives_p", "its two-sided sign-flip permutation p-value", survived.iter().map(|t| t.p))?
            .float("survives_q", "its Benjamini-Hochberg q-value over all components", survived.iter().map(|t| t.q))?
            .flag(
                "sensitive",
                "whether the contrast has q < 0.05 and the sign of the metric's drop",
                tested.iter().zip(&contrasts).map(sensitive),
            )?)
    }

    fn passes_table(&self) -> Result<Table, AnalysisError> {
        let of = |run: usize| self.metrics.iter().skip(run).step_by(PASSES.len()).copied().collect::<Vec<f64>>();
        let metrics: [Vec<f64>; 3] = std::array::from_fn(of);
        let options = Bootstrap { seed: self.seed, ..Bootstrap::default() };
        let intervals = metrics.each_ref().map(|m| bca_mean(m, &options));
        Ok(Table::new("passes")
            .str("model", "the model, as it was named", [self.model; 3])?
            .str("condition", "positive request in plain; in cipher; negative in cipher (control)", PASSES)?
            .int("n", "pairs", [self.n(); 3])?
            .int("passes", "forward passes", [self.n(); 3])?
            .float("metric_mean", "mean metric, nats", metrics.each_ref().map(|m| mean(m)))?
            .float("ci_low", "lower end of its 95 % BCa interval, nats", intervals.map(|i| i.map(|i| i.low)))?
            .float("ci_high", "upper end, nats", intervals.map(|i| i.map(|i| i.high)))?)
    }
}

/// Contrasts of heads, layer by head.
fn map(heads: &Table) -> Result<Figure, AnalysisError> {
    let (layers, names) = (heads.ints("layer")?, heads.strs("component")?);
    let (means, marked) = (heads.floats("contrast_mean")?, marks(heads)?);
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
        missing_meaning: None,
        limit: None,
    }))
}

/// Which components have a dot.
fn marks(heads: &Table) -> Result<Vec<bool>, AnalysisError> {
    let (sensitive, p_max, shares) = (heads.flags("sensitive")?, heads.floats("p_max")?, heads.floats("share")?);
    let marked = |i: usize| sensitive[i] && MarkArgs::default().holds(p_max[i], shares[i]);
    Ok((0..heads.rows()).map(marked).collect())
}

/// What a dot says of a head.
fn dots() -> String {
    format!("cipher-sensitive heads, {}", MarkArgs::default().rule(true, "drop"))
}

/// What the tables say, in a paragraph.
fn finding(heads: &Table, passes: &Table) -> Result<String, AnalysisError> {
    let (names, layers) = (heads.strs("component")?, heads.ints("layer")?);
    let is_head = |i: &usize| names[*i].starts_with("head.");
    let strongest = Listing::of(heads).strongest("contrast_mean").rows()?;
    let first = strongest.into_iter().find(is_head).map_or(String::new(), |i| {
        let head = names[i].trim_start_matches("head.").parse().unwrap_or(0);
        let (mean, share) = (heads.floats("contrast_mean"), heads.floats("share"));
        let (low, high) = (heads.floats("ci_low"), heads.floats("ci_high"));
        let cell = |column: Result<&[Option<f64>], _>| column.ok().and_then(|c: &[Option<f64>]| c[i]);
        format!(
            " The head with the largest contrast is **{}**: {} nats, {INTERVAL} {}, {} of the change.",
            cells::head(layers[i], head),
            signed(cell(mean), 3),
            interval(cell(low).zip(cell(high))),
            cells::share(cell(share)),
        )
    });
    let count = |column: &str| Ok::<_, AnalysisError>(heads.ints(column)?.first().copied().unwrap_or(0));
    let out = Ciphered::omitted(count("left_out")?, count("too_long")?);
    let metric = passes.floats("metric_mean")?;
    let value = |i: usize| metric.get(i).copied().flatten();
    let at = |i: usize| signed(value(i), 3);
    let sees = match value(0).zip(value(1)) {
        Some((plain, cipher)) if cipher >= plain => " The metric does not drop: the model sees through the cipher.",
        _ => "",
    };
    let (n, total) = (passes.ints("n")?.first().copied().unwrap_or(0), passes.ints("passes")?.iter().sum::<i64>());
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
    let (names, sensitive, shares) = (heads.strs("component")?, heads.flags("sensitive")?, heads.floats("share")?);
    let is_head = |i: &usize| names[*i].starts_with("head.");
    let all = (0..heads.rows()).filter(is_head).count();
    let found: Vec<usize> = (0..heads.rows()).filter(|i| is_head(i) && sensitive[*i]).collect();
    let how = format!("with q < {SIGNIFICANT} and in the direction in which the metric does");
    if found.is_empty() {
        let q = heads.floats("q_value")?;
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
    use crate::analyses::metric::MetricArgs;
    use crate::run::Engine;

    #[test]
    fn the_legend_and_the_caption_say_by_which_rule_dots_were_set() {
        let n = 3;
        let table = |sensitive: [bool; 3]| {
            let table =
                Table::new("heads").str("model", "", vec!["m"; n]).unwrap().int("layer", "", vec![0; n]).unwrap();
            let table =
                table.str("component", "", ["head.0", "head.1", "head.2"]).unwrap().int("n", "", vec![80; n]).unwrap();
            let table =
                table.float("contrast_mean", "", [0.5, -0.5, 0.1]).unwrap().flag("sensitive", "", sensitive).unwrap();
            table.float("p_max", "", vec![0.001; n]).unwrap().float("share", "", [0.3, -0.3, 0.001]).unwrap()
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
        let model = Model::open(crate::demo::NAME, &Default::default()).unwrap();
        let file = PairFile { pairs: "demo:pairs.jsonl".into(), max_pairs: Some(5) };
        let pairs = PairArgs { file, metric: MetricArgs::default() };
        let cipher = CipherArgs { cipher: None, examples: 0, cipher_seed: 0 };
        let items = CipherContrast { pairs, cipher }.prepare(&model).unwrap();
        let session = Session::new(&model, Engine::Wavefront, 0);
        let all = components(model.decoder.arch.n_layers, model.decoder.arch.n_heads);
        let of = |pairs: Vec<Range<usize>>| measured(&session, &items, pairs.into_iter(), &all).unwrap();
        let whole = of(vec![0..5]);
        assert_eq!((whole.0.len(), whole.1.len(), whole.2.len()), (15, 15, 15));
        assert!(whole == of(vec![0..1, 1..3, 3..5]));
    }
}
