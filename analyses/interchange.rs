//! Interchange (activation patching): which heads carry what tells two matched prompts apart?
//!
//! A base run is run again with one head's `z` taken from a donor run. *Necessity*: the base is the positive prompt, the
//! donor its negative, and an effect says that the behaviour needs what the head carried. *Sufficiency*: the reverse.
//! Sources: Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal Mediation Analysis"; Geiger et
//! al. 2021, "Causal Abstractions of Neural Networks"; "How Alignment Routes" (2026) for screening every head.

use super::summary::{Position, Swap, mean, sd};
use super::{Analysis, AnalysisError, table};
use crate::dataset::encode::{prompt_ids, token_ids};
use crate::dataset::{Dataset, Pair, read_pairs};
use crate::figure::Heatmap;
use crate::model::Model;
use crate::plan::{Change, Edit, Metric, Part, Plan, Positions, Run, What};
use crate::report::{Heading, Section};
use crate::run::Reading;
use crate::site::SiteKind;
use crate::table::Table;
use std::path::{Path, PathBuf};

/// Which run is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The positive run, with the head from the negative.
    Necessity,
    /// The negative run, with the head from the positive.
    Sufficiency,
}

impl Direction {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Necessity => "necessity",
            Direction::Sufficiency => "sufficiency",
        }
    }

    /// What happens to the head, for captions.
    fn sentence(self) -> &'static str {
        match self {
            Direction::Necessity => "positive run, head taken from the negative",
            Direction::Sufficiency => "negative run, head taken from the positive",
        }
    }
}

/// Interchange of every head between matched prompts, in both directions
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Interchange {
    /// Pairs of prompts, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?, "group"?, "lang"?}
    #[arg(long, value_name = "FILE")]
    pub pairs: PathBuf,

    /// Answer token, where a pair names none: a string of which the first token counts, or id:N (repeatable)
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub answer: Vec<String>,

    /// Foil token, where a pair names none (repeatable)
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub foil: Vec<String>,

    /// Where the head is exchanged: last, all, or a position (negative from the prompt's end)
    #[arg(long, default_value = "last", allow_hyphen_values = true)]
    pub position: Position,

    /// Which run is edited (default: each in turn)
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,
}

impl Interchange {
    fn directions(&self) -> Vec<Direction> {
        self.direction.map_or(vec![Direction::Necessity, Direction::Sufficiency], |d| vec![d])
    }
}

/// The pairs, and which reading is what: for each pair the two prompts' metrics, then for each direction every head's.
pub struct Items {
    dataset: Dataset<Pair>,
    heads: Vec<(usize, usize)>,
}

/// The prompts of a pair as token ids, with its metric.
struct Tokens {
    positive: Vec<u32>,
    negative: Vec<u32>,
    metric: Metric,
}

impl Analysis for Interchange {
    const NAME: &'static str = "interchange";
    const TITLE: &'static str = "Interchange of attention heads";
    type Items = Items;

    fn datasets(items: &Items) -> Vec<(String, String)> {
        vec![(items.dataset.path.display().to_string(), items.dataset.sha256.clone())]
    }

    fn plan(&self, model: &Model) -> Result<(Plan, Items), AnalysisError> {
        let dataset = read_pairs(&self.pairs)?;
        let heads: Vec<(usize, usize)> = model.heads().collect();
        let mut plan = Plan::default();
        for pair in &dataset.items {
            let tokens = self.tokens(model, &dataset, pair)?;
            let positions = self.positions(&dataset, pair, &tokens)?;
            let positive = plan.prompt(format!("{} positive", pair.id), tokens.positive);
            let negative = plan.prompt(format!("{} negative", pair.id), tokens.negative);
            for run in [positive, negative] {
                plan.read(run, What::Metric(tokens.metric.clone()));
            }
            for direction in self.directions() {
                let (base, donor, at, from) = match direction {
                    Direction::Necessity => (positive, negative, &positions.0, &positions.1),
                    Direction::Sufficiency => (negative, positive, &positions.1, &positions.0),
                };
                for head in &heads {
                    let fork = plan.fork(base, vec![exchange(*head, donor, at, from)]);
                    plan.read(fork, What::Metric(tokens.metric.clone()));
                }
            }
        }
        Ok((plan, Items { dataset, heads }))
    }

    fn tables(&self, model: &Model, items: &Items, readings: &[Reading]) -> Result<Vec<Table>, AnalysisError> {
        let (directions, n_heads) = (self.directions(), items.heads.len());
        let numbers: Vec<f64> = readings.iter().filter_map(Reading::number).collect();
        let of_pair: Vec<&[f64]> = numbers.chunks_exact(2 + directions.len() * n_heads).collect();
        let swap = |pair: &[f64], d: usize, head: usize| {
            let (base, other) = match directions[d] {
                Direction::Necessity => (pair[0], pair[1]),
                Direction::Sufficiency => (pair[1], pair[0]),
            };
            Swap { base, other, patched: pair[2 + d * n_heads + head] }
        };
        let mut heads = Vec::new();
        let mut pairs = Vec::new();
        for (d, direction) in directions.iter().enumerate() {
            for (h, head) in items.heads.iter().enumerate() {
                let swaps: Vec<Swap> = of_pair.iter().map(|pair| swap(pair, d, h)).collect();
                pairs.extend(swaps.iter().enumerate().map(|(i, swap)| PairRow {
                    pair: i,
                    head: *head,
                    direction: *direction,
                    swap: *swap,
                }));
                heads.push(HeadRow { head: *head, direction: *direction, swaps });
            }
        }
        Ok(vec![self.heads_table(&model.name, &heads)?, pairs_table(&items.dataset, &pairs)?])
    }

    fn figures(&self, tables: &[Table]) -> Result<Vec<(String, Heatmap)>, AnalysisError> {
        let heads = table(tables, "heads")?;
        let signs = same_signs(table(tables, "pairs")?)?;
        let mut figures = Vec::new();
        for direction in self.directions() {
            figures.push((format!("{}.png", direction.name()), heatmap(heads, direction, &signs)?));
        }
        Ok(figures)
    }

    fn sections(&self, tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        let heads = table(tables, "heads")?;
        self.directions().into_iter().map(|direction| section(heads, direction, dir)).collect()
    }
}

impl Interchange {
    fn tokens(&self, model: &Model, dataset: &Dataset<Pair>, pair: &Pair) -> Result<Tokens, AnalysisError> {
        let at = |field| dataset.at(pair.line, &pair.id, field);
        let answer = token_ids(model, &pair.answer, &self.answer, at("answer"))?;
        let foil = token_ids(model, &pair.foil, &self.foil, at("foil"))?;
        if let Some(both) = answer.iter().find(|id| foil.contains(id)) {
            return Err(at("foil").error(format!("token {both} is an answer too; the two must differ")).into());
        }
        Ok(Tokens {
            positive: prompt_ids(model, &pair.positive, at("positive"))?,
            negative: prompt_ids(model, &pair.negative, at("negative"))?,
            metric: Metric::logit_difference(answer, foil),
        })
    }

    /// The edited positions of the positive and of the negative prompt.
    fn positions(
        &self,
        dataset: &Dataset<Pair>,
        pair: &Pair,
        tokens: &Tokens,
    ) -> Result<(Positions, Positions), AnalysisError> {
        let at = |field| dataset.at(pair.line, &pair.id, field);
        let (p, n) = (tokens.positive.len(), tokens.negative.len());
        if self.position == Position::All && p != n {
            let why = format!(
                "has {p} tokens and the negative {n}: --position all needs as many; use --position last, or match the pair"
            );
            return Err(at("positive").error(why).into());
        }
        let positive = self.position.of(p).map_err(|why| at("positive").error(why))?;
        let negative = self.position.of(n).map_err(|why| at("negative").error(why))?;
        Ok((positive, negative))
    }

    fn heads_table(&self, model: &str, rows: &[HeadRow]) -> Result<Table, AnalysisError> {
        let float = |f: &dyn Fn(&HeadRow) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
        let over = |r: &HeadRow, f: &dyn Fn(&Swap) -> f64| mean(&r.swaps.iter().map(f).collect::<Vec<_>>());
        let necessity = |r: &HeadRow| r.direction == Direction::Necessity;
        let positive = |r: &HeadRow| over(r, &|s| if necessity(r) { s.base } else { s.other });
        let negative = |r: &HeadRow| over(r, &|s| if necessity(r) { s.other } else { s.base });
        let flips = |r: &HeadRow| over(r, &|s| f64::from(u8::from(s.flips())));
        let effects = |r: &HeadRow| r.swaps.iter().map(|s| s.effect()).collect::<Vec<_>>();
        let normalized = |r: &HeadRow| r.swaps.iter().filter_map(|s| s.normalized()).collect::<Vec<_>>();
        let none = || rows.iter().map(|_| None::<f64>);
        let undefined = |r: &HeadRow| (r.swaps.len() - normalized(r).len()) as i64;
        Ok(Table::new("heads")
            .str("model", "the model, as it was named", rows.iter().map(|_| model))?
            .int("layer", "layer, from 0", rows.iter().map(|r| r.head.0 as i64))?
            .int("head", "query head, from 0", rows.iter().map(|r| r.head.1 as i64))?
            .str(
                "direction",
                "necessity: positive run, head from the negative; sufficiency: the reverse",
                rows.iter().map(|r| r.direction.name()),
            )?
            .str("position", "where the head was exchanged", rows.iter().map(|_| self.position.to_string()))?
            .int("n", "pairs", rows.iter().map(|r| r.swaps.len() as i64))?
            .float("positive_mean", "mean metric of the positive prompts, nats", float(&positive))?
            .float("negative_mean", "mean metric of the negative prompts, nats", float(&negative))?
            .float("effect_mean", "mean of patched minus base metric, nats", float(&|r| mean(&effects(r))))?
            .float("effect_sd", "standard deviation of the effect over pairs, nats", float(&|r| sd(&effects(r))))?
            .float("ci_low", "lower end of the effect's 95 % interval", none())?
            .float("ci_high", "upper end of the effect's 95 % interval", none())?
            .float("effect_normalized", "mean effect as a share of each pair's gap", float(&|r| mean(&normalized(r))))?
            .int("gap_zero", "pairs without a gap, left out of effect_normalized", rows.iter().map(undefined))?
            .float("flip_rate", "share of pairs whose metric changes sign towards the other prompt", float(&flips))?
            .float("p_value", "p-value of the mean effect", none())?
            .float("q_value", "p-value corrected over all heads", none())?)
    }
}

/// One head's interchange at a pair's positions.
fn exchange((layer, head): (usize, usize), donor: Run, at: &Positions, from: &Positions) -> Edit {
    let positions = if let Positions::At(list) = from { Some(list.clone()) } else { None };
    Edit {
        site: SiteKind::Z.at(layer),
        part: Part::Heads(vec![head]),
        positions: at.clone(),
        change: Change::Interchange { donor, positions },
    }
}

/// A head in one direction, over all pairs.
struct HeadRow {
    head: (usize, usize),
    direction: Direction,
    swaps: Vec<Swap>,
}

/// A head in one direction in one pair.
struct PairRow {
    pair: usize,
    head: (usize, usize),
    direction: Direction,
    swap: Swap,
}

fn pairs_table(dataset: &Dataset<Pair>, rows: &[PairRow]) -> Result<Table, AnalysisError> {
    let pair = |r: &PairRow| &dataset.items[r.pair];
    Ok(Table::new("pairs")
        .str("id", "the pair", rows.iter().map(|r| pair(r).id.as_str()))?
        .opt_str("group", "the pair's group", rows.iter().map(|r| pair(r).group.as_deref()))?
        .opt_str("lang", "the pair's language", rows.iter().map(|r| pair(r).lang.as_deref()))?
        .int("layer", "layer, from 0", rows.iter().map(|r| r.head.0 as i64))?
        .int("head", "query head, from 0", rows.iter().map(|r| r.head.1 as i64))?
        .str("direction", "necessity or sufficiency", rows.iter().map(|r| r.direction.name()))?
        .float(
            "base_metric",
            "metric of the run that is edited, without the edit, nats",
            rows.iter().map(|r| r.swap.base),
        )?
        .float(
            "other_metric",
            "metric of the run that the head is taken from, nats",
            rows.iter().map(|r| r.swap.other),
        )?
        .float("patched_metric", "metric with the head exchanged, nats", rows.iter().map(|r| r.swap.patched))?)
}

/// Heads (direction, layer, head) whose effect has one sign in all pairs.
type SameSigns = std::collections::HashSet<(String, i64, i64)>;

fn same_signs(pairs: &Table) -> Result<SameSigns, AnalysisError> {
    let (layers, heads, directions) = (pairs.ints("layer")?, pairs.ints("head")?, pairs.strs("direction")?);
    let (base, patched) = (pairs.floats("base_metric")?, pairs.floats("patched_metric")?);
    let mut signs: std::collections::HashMap<(String, i64, i64), (usize, usize, usize)> = Default::default();
    for i in 0..pairs.rows() {
        let effect = patched[i].zip(base[i]).map_or(0.0, |(p, b)| p - b);
        let count = signs.entry((directions[i].to_string(), layers[i], heads[i])).or_default();
        count.0 += usize::from(effect > 0.0);
        count.1 += usize::from(effect < 0.0);
        count.2 += 1;
    }
    // One or two pairs always agree by chance often enough that a mark would say nothing.
    let same = |(up, down, n): &(usize, usize, usize)| *n > 2 && (up == n || down == n);
    Ok(signs.into_iter().filter(|(_, count)| same(count)).map(|(key, _)| key).collect())
}

/// Mean effects of a direction, layer by head.
fn heatmap(heads: &Table, direction: Direction, signs: &SameSigns) -> Result<Heatmap, AnalysisError> {
    let (layers, columns) = (heads.ints("layer")?, heads.ints("head")?);
    let (directions, effects, n) = (heads.strs("direction")?, heads.floats("effect_mean")?, heads.ints("n")?);
    let size = |x: &[i64]| x.iter().max().map_or(0, |m| *m as usize + 1);
    let mut values = vec![vec![None; size(columns)]; size(layers)];
    let mut marks = vec![vec![false; size(columns)]; size(layers)];
    for i in (0..heads.rows()).filter(|i| directions[*i] == direction.name()) {
        let (layer, head) = (layers[i] as usize, columns[i] as usize);
        values[layer][head] = effects[i];
        marks[layer][head] = signs.contains(&(direction.name().to_string(), layers[i], columns[i]));
    }
    let (model, pairs) = (heads.strs("model")?, n.first().copied().unwrap_or(0));
    let model = model.first().copied().unwrap_or_default();
    let model = Path::new(model).file_stem().map_or(model.to_string(), |s| s.to_string_lossy().into_owned());
    let position = heads.strs("position")?;
    let marked = marks.iter().flatten().any(|m| *m);
    Ok(Heatmap {
        title: format!("Interchange: {}", direction.name()),
        subtitle: format!(
            "{model}, {pairs} pair{}, {}, position {}",
            if pairs == 1 { "" } else { "s" },
            direction.sentence(),
            position.first().copied().unwrap_or("last")
        ),
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: "effect on the logit difference (nats)".to_string(),
        values,
        marks: if marked { marks } else { Vec::new() },
        mark_meaning: marked.then(|| "same sign in all pairs".to_string()),
    })
}

/// How many heads the report's table lists.
const LISTED: usize = 12;

/// A direction's figure and its strongest heads.
fn section(heads: &Table, direction: Direction, dir: &Path) -> Result<Section, AnalysisError> {
    let column = |name: &str| heads.floats(name);
    let (layers, columns, directions) = (heads.ints("layer")?, heads.ints("head")?, heads.strs("direction")?);
    let effects = column("effect_mean")?;
    let mut rows: Vec<usize> = (0..heads.rows()).filter(|i| directions[*i] == direction.name()).collect();
    let strength = |i: &usize| effects[*i].map_or(0.0, f64::abs);
    rows.sort_by(|a, b| strength(b).total_cmp(&strength(a)));
    let first = rows.first().copied().unwrap_or(0);
    let number = |x: Option<f64>| x.map_or("–".to_string(), |x| format!("{x:+.3}"));
    let share = |x: Option<f64>| x.map_or("–".to_string(), |x| format!("{:.1} %", 100.0 * x));
    let shown = rows.iter().take(LISTED).map(|i| {
        vec![
            format!("L{}.H{}", layers[*i], columns[*i]),
            number(effects[*i]),
            heads.floats("effect_sd").ok().and_then(|x| x[*i]).map_or("–".to_string(), |x| format!("{x:.3}")),
            share(heads.floats("effect_normalized").ok().and_then(|x| x[*i])),
            share(heads.floats("flip_rate").ok().and_then(|x| x[*i])),
        ]
    });
    let (positive, negative) = (column("positive_mean")?, column("negative_mean")?);
    let text = format!(
        "{}: over {} pairs the logit difference is {} in the positive and {} in the negative prompts. The strongest \
         head is **L{}.H{}** with a mean effect of {} nats.",
        capitalised(direction.sentence()),
        heads.ints("n")?.get(first).copied().unwrap_or(0),
        number(positive.get(first).copied().flatten()),
        number(negative.get(first).copied().flatten()),
        layers.get(first).copied().unwrap_or(0),
        columns.get(first).copied().unwrap_or(0),
        number(effects.get(first).copied().flatten()),
    );
    let header = vec![
        Heading::text("head"),
        Heading::number("effect (nats)"),
        Heading::number("sd"),
        Heading::number("share of gap"),
        Heading::number("flip rate"),
    ];
    let name = direction.name();
    let alt = format!("Layer-by-head heatmap of the mean effect of interchange ({name}) on the logit difference.");
    Ok(Section::new(capitalised(name))
        .paragraph(text)
        .figure(dir.join(format!("{name}.png")), "Mean effect of each head; all heads are in heads.parquet.", alt)
        .table(format!("The {LISTED} strongest heads by absolute effect"), header, shown.collect()))
}

fn capitalised(s: &str) -> String {
    let mut letters = s.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().collect::<String>() + letters.as_str())
}
