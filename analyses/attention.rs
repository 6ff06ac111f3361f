//! Where does each head look? Scores of attention patterns over prompts, and the patterns themselves.
//!
//! The scores are those that the field names heads by: the weight on the previous token, on the first one (the *attention sink*), on
//! itself, on earlier mentions of the same token (*duplicate-token heads*), and on what came after them (*induction heads*), with the
//! entropy of the pattern. Each is a mean over the positions of a prompt, then over prompts with an interval. A head that looks at a
//! token need not move anything from there: `weighted_norm` is the size of what it moves. Sources: Olsson et al. 2022, "In-context
//! Learning and Induction Heads"; Wang et al. 2022, "Interpretability in the Wild"; Kobayashi et al. 2020, "Attention is Not Only a
//! Weight: Analyzing Transformers with Vector Norms".

mod spans;

pub use spans::SpanRow;

use super::heads::{Circuit, Head};
use super::inputs::{PairFile, list_of, rows_read};
use super::lens::visible;
use super::metric::MetricArgs;
use crate::analyses::prelude::*;
use crate::figure::Heatmap;
use crate::model::arch::Arch;
use crate::names::short_name;
use crate::report::cells::{self, number, plural, signed};
use crate::report::{TokenHead, TokenPrompt, TokenView};
use crate::run::{direction_of_z, directions_of_stream};
use crate::stats::bca_family;
use candle_core::Tensor;
use rayon::prelude::*;
use spans::Parts;
use std::borrow::Cow;

/// What heads can be listed by: a score that says where they look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Looks {
    /// The weight on the position before.
    #[default]
    Previous,
    /// The weight on the first position.
    First,
    /// The weight on the position itself.
    #[serde(rename = "self")]
    #[cfg_attr(feature = "cli", value(name = "self"))]
    Own,
    /// The weight on earlier positions with the same token.
    Duplicate,
    /// The weight on positions after an earlier one with the same token.
    Induction,
}

parameters! {
    /// Show where each head looks: scores of attention patterns, and the patterns of chosen heads
    #[serde(default)]
    pub struct Attention {
        /// Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?, "lang"?, "spans"?}
        prompts: Option<Data>, [value_name = "FILE", required_unless_present = "pairs"];

        /// Use only the prompts with this label
        label: Option<String>, [value_name = "LABEL"];

        /// Ask about the positive prompts of this file's pairs instead
        pairs: Option<Data>, excludes prompts, [value_name = "FILE"];

        /// Use at most this many pairs, spread over languages and groups as in the file
        max_pairs: Option<u32>, in 1.., [value_name = "N"];

        /// Keep the patterns of these heads, as L14.H5; several with commas
        ///
        /// Where prompts have an answer and a foil, each head's attribution is told apart by the tokens that it looks at, too.
        head: Vec<Head>, excludes circuit, [value_delimiter = ',', value_name = "HEAD"];

        /// Keep the patterns of the heads of this circuit: the circuit.json or graph.json of `screen`, `edges` or `circuit`, or a list
        /// of heads
        circuit: Option<Data>, [value_name = "FILE"];

        /// Tell the weights of the chosen heads, and of all heads together, apart by the spans of the prompts
        ///
        /// A prompt names its spans in the field `spans` of its line. It does not count in the rows of a span that it lacks.
        by_span: bool;

        /// Look from these spans, or from the last position (`last`, the default); several with commas
        query: Vec<String>, needs by_span, [value_delimiter = ',', value_name = "SPAN"];

        /// Write the heads that look most at one thing into heads.txt, this many
        ///
        /// Other analyses read the file as their circuit, as `neurons --circuit` does.
        list: Option<u16>, in 1.., [value_name = "N"];

        /// List them by this score
        list_by: Looks = Looks::Previous, needs list, [value_enum];

        ..metric: MetricArgs;
    }
}

/// Prompts, and whose patterns are kept.
pub struct Asked {
    prompts: Prompts,
    /// The layers that have attention.
    layers: Vec<usize>,
    heads: Vec<Head>,
    /// The parts by which weights are told apart, where they are.
    parts: Option<Parts>,
    /// The answer and foil tokens of each prompt; none where heads are attributed to nothing.
    sides: Option<Vec<[Vec<u32>; 2]>>,
}

/// The scores of a head in one prompt, in the order of [`NAMES`]; none where no position has the key.
type OfHead = [Option<f64>; 6];

/// What the scores are called, those of [`Looks`] first and in its order.
const NAMES: [&str; 6] = ["previous", "first", "self", "duplicate", "induction", "entropy"];

/// The pattern of a head in one prompt, `[positions, positions]`, and how large what it would move from each is.
struct Kept {
    pattern: Vec<f32>,
    norms: Vec<f64>,
    /// What the head adds to the logit difference at the last position of what it reads at each, nats.
    sources: Option<Vec<f64>>,
}

/// What is read of a prompt at a layer with a head that is looked at closely.
struct Read {
    values: Handle<Array>,
    /// At the last position, where sources are told apart: the gate, where there is one, the stream after the last layer, `attn_out`.
    gate: Option<Handle<Array>>,
    stream: Option<[Handle<Array>; 2]>,
}

/// What was found.
#[derive(Default)]
pub struct Measured {
    /// `[prompts][layers with attention][heads]`
    scores: Vec<Vec<Vec<OfHead>>>,
    /// `[prompts][chosen heads]`
    kept: Vec<Vec<Kept>>,
    /// One a prompt, where parts are told apart.
    by_part: Vec<spans::OfPrompt>,
}

impl Analysis for Attention {
    const NAME: &'static str = "attention";
    const TITLE: &'static str = "Attention patterns";
    const FROM_TABLES: FromTables = FromTables { figures, sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let arch = &model.decoder.arch;
        arch.one_pattern_a_head().map_err(AnalysisError::NotAskable)?;
        let checked: Vec<_> = (0..arch.n_layers).map(|layer| SiteKind::Pattern.at(layer).check(arch)).collect();
        let layers: Vec<usize> = checked.iter().flatten().map(|site| site.layer).collect();
        if let (true, Some(Err(why))) = (layers.is_empty(), checked.into_iter().next()) {
            return Err(AnalysisError::Bad(why.to_string()));
        }
        let (circuit, of_circuit) = Circuit::named(SiteKind::Pattern, &self.head, self.circuit.as_ref(), model)?;
        if let Some(file) = &self.circuit {
            circuit.with_heads(file)?;
        }
        let heads = circuit.heads;
        let mut prepared = self.read(model)?;
        prepared.sources.extend(of_circuit);
        if prepared.items.ids.iter().all(|ids| ids.len() < 2) {
            let path = prepared.items.dataset.path.display();
            let why = "has no prompt of two tokens: no head can look anywhere but at itself";
            return Err(AnalysisError::Bad(format!("{path}: {why}")));
        }
        let parts = if self.by_span { Some(Parts::of(&prepared.items, &self.query)?) } else { None };
        let sides = self.sides(model, &prepared.items, &heads)?;
        Ok(prepared.map(|prompts| Asked { prompts, layers, heads, parts, sides }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let (model, ids) = (runner.model(), &items.prompts.ids);
        let arch = &model.decoder.arch;
        let mut found = Measured::default();
        let longest = ids.iter().map(Vec::len).max().unwrap_or(1);
        // A pattern is as large as its prompt is long, squared: few layers are read at once of long prompts.
        let a_layer = (longest * longest * arch.n_heads).div_ceil(1024) + items.rows_of_values(arch, longest);
        let at_once = (1 << 16) / a_layer.max(1);
        let layers_at_once = at_once.clamp(1, items.layers.len().max(1));
        for some in batches(ids.len(), a_layer * layers_at_once) {
            let mut scores: Vec<Vec<Vec<OfHead>>> = some.clone().map(|_| Vec::new()).collect();
            let mut kept: Vec<Vec<(usize, Kept)>> = some.clone().map(|_| Vec::new()).collect();
            let mut by_part: Vec<spans::OfPrompt> = some.clone().map(|_| spans::OfPrompt::default()).collect();
            for layers in items.layers.chunks(layers_at_once) {
                let mut plan = Plan::default();
                let mut asked = Vec::new();
                for i in some.clone() {
                    let run = plan.prompt(items.prompts.dataset.items[i].id.clone(), ids[i].clone());
                    for layer in layers {
                        let pattern = plan.read(run, at(SiteKind::Pattern, *layer, Positions::All));
                        let closely = !items.closely(*layer, arch).is_empty();
                        let read = closely.then(|| items.read(&mut plan, run, *layer, arch));
                        asked.push((i, *layer, pattern, read));
                    }
                }
                let readings = runner.run(&plan)?;
                for (i, layer, pattern, read) in asked.into_iter().filter(|_| !runner.is_counting()) {
                    let (at, pattern) = (i - some.start, &readings[pattern].values[..]);
                    scores[at].push(scores_of(pattern, &ids[i], n_heads(arch, layer)));
                    let Some(read) = read else { continue };
                    let of_layer = items.of_layer(model, i, layer, &read, &readings, pattern);
                    for (chosen, of_head) in of_layer.map_err(|e| AnalysisError::Failed(e.to_string()))? {
                        items.parts.iter().for_each(|parts| {
                            by_part[at].add(chosen, parts.given(i, ids[i].len(), &of_head));
                        });
                        kept[at].extend(chosen.map(|h| (h, of_head)));
                    }
                }
            }
            kept.iter_mut().for_each(|of| of.sort_by_key(|(h, _)| *h));
            found.scores.extend(scores);
            found.by_part.extend(by_part);
            found.kept.extend(kept.into_iter().map(|of| of.into_iter().map(|(_, kept)| kept).collect()));
        }
        Ok(found)
    }

    fn tables(&self, about: &About, items: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        let options = Bootstrap { seed: about.seed, ..Bootstrap::default() };
        let arch = &about.loaded.decoder.arch;
        let mut rows = Vec::new();
        for (l, layer) in items.layers.iter().enumerate() {
            for head in 0..n_heads(arch, *layer) {
                let of = |score: usize| -> Vec<f64> {
                    measured.scores.iter().filter_map(|prompt| prompt[l][head][score]).collect()
                };
                let samples: Vec<Vec<f64>> = (0..NAMES.len()).map(of).collect();
                let intervals = bca_family(&samples, &options);
                let score = |k: usize| Score { value: mean(&samples[k]), interval: intervals[k].map(Interval::ends) };
                rows.push(HeadRow {
                    model: about.model,
                    layer: *layer as i64,
                    head: head as i64,
                    n: samples[0].len() as i64,
                    previous: score(0),
                    first: score(1),
                    own: score(2),
                    duplicate: score(3),
                    n_duplicate: samples[3].len() as i64,
                    induction: score(4),
                    n_induction: samples[4].len() as i64,
                    entropy: score(5),
                });
            }
        }
        let files = self.listed(about, &rows).into_iter().collect();
        let mut tables = vec![HeadRow::table(rows)?];
        if !items.heads.is_empty() {
            tables.push(self.patterns(about, items, &measured)?);
        }
        if items.sides.is_some() && !items.heads.is_empty() {
            tables.push(sources_table(about, items, &measured)?);
        }
        if let Some(parts) = &items.parts {
            tables.push(parts.table(about, &items.heads, &measured.by_part)?);
        }
        Ok(Output { tables, files })
    }
}

/// The file that lists heads.
const FILE: &str = "heads.txt";

/// How many heads a layer has.
fn n_heads(arch: &Arch, layer: usize) -> usize {
    arch.layers.get(layer).map_or(0, |layer| layer.heads())
}

/// The pattern of one head, of those of all, `[positions, heads * keys]`.
fn of_head(patterns: &[f32], keys: usize, head: usize) -> Vec<f32> {
    let width = patterns.len() / keys.max(1);
    patterns.chunks_exact(width).flat_map(|row| &row[head * keys..(head + 1) * keys]).copied().collect()
}

/// The scores of every head of a layer.
fn scores_of(patterns: &[f32], ids: &[u32], heads: usize) -> Vec<OfHead> {
    (0..heads).into_par_iter().map(|head| scores(&of_head(patterns, ids.len(), head), ids)).collect()
}

/// The scores of one pattern, `[positions, positions]`: means over the positions from 1 on, for duplicates and induction over those
/// that have such a key.
fn scores(pattern: &[f32], ids: &[u32]) -> OfHead {
    let n = ids.len();
    let weight = |t: usize, j: usize| f64::from(pattern[t * n + j]);
    let over = |of: &dyn Fn(usize) -> Option<f64>| mean(&(1..n).filter_map(of).collect::<Vec<_>>());
    let on = |t: usize, keys: &dyn Fn(usize) -> bool| {
        let keys: Vec<usize> = (0..=t).filter(|j| keys(*j)).collect();
        (!keys.is_empty()).then(|| keys.into_iter().map(|j| weight(t, j)).sum::<f64>())
    };
    let entropy =
        |t: usize| -> f64 { -(0..=t).map(|j| weight(t, j)).filter(|w| *w > 0.0).map(|w| w * w.ln()).sum::<f64>() };
    [
        over(&|t| Some(weight(t, t - 1))),
        over(&|t| Some(weight(t, 0))),
        over(&|t| Some(weight(t, t))),
        over(&|t| on(t, &|j| j < t && ids[j] == ids[t])),
        over(&|t| on(t, &|j| j > 0 && ids[j - 1] == ids[t])),
        over(&|t| Some(entropy(t))),
    ]
}

/// How large what each head of a layer would move from each position is, with all its weight there: the size of its value through the
/// output projection. `[heads][positions]`
fn moved(model: &Model, layer: usize, values: &Array) -> candle_core::Result<Vec<Vec<f64>>> {
    let decoder = &model.decoder;
    let Some(heads) = decoder.arch.layers[layer].mixer.heads() else { return Ok(Vec::new()) };
    let d = heads.d_value();
    let mut z = Vec::new();
    for row in values.rows() {
        let of_head = |head: usize| &row[head * heads.n_kv_heads / heads.n_heads * d..][..d];
        (0..heads.n_heads).for_each(|head| z.extend_from_slice(of_head(head)));
    }
    let device = decoder.places.layer(layer);
    let z = Tensor::from_vec(z, (values.rows().count(), heads.n_heads * d), device)?.to_dtype(decoder.dtype)?;
    let width = decoder.arch.d_model;
    let rows = decoder.head_outputs(layer, &z)?.to_dtype(candle_core::DType::F32)?.to_vec2::<f32>()?;
    let size = |of: &[f32]| of.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let of_head = |head: usize| rows.iter().map(|row| size(&row[head * width..(head + 1) * width])).collect();
    Ok((0..heads.n_heads).map(of_head).collect())
}

/// What is read of a site.
fn at(kind: SiteKind, layer: usize, positions: Positions) -> Activation {
    Activation { site: kind.at(layer), positions, part: Part::All }
}

impl Asked {
    /// The heads of a layer that are looked at closely, chosen ones with their number among these: where parts are told apart all heads,
    /// for what they give together.
    fn closely(&self, layer: usize, arch: &Arch) -> Vec<(Option<usize>, Head)> {
        let chosen = |head: &Head| self.heads.iter().position(|chosen| chosen == head);
        let all = (0..n_heads(arch, layer)).map(|head| Head { layer, head }).map(|head| (chosen(&head), head));
        all.filter(|(chosen, _)| chosen.is_some() || self.parts.is_some()).collect()
    }

    /// What a layer's values take where they are read of every layer, for [`batches`].
    fn rows_of_values(&self, arch: &Arch, longest: usize) -> usize {
        let sites: Vec<Site> = self.layers.iter().map(|layer| SiteKind::V.at(arch.keys_of(*layer))).collect();
        let all = rows_read(&sites, arch, Position::All, longest);
        if self.parts.is_some() { all.div_ceil(sites.len().max(1)) } else { 0 }
    }

    /// What has to be known of a layer with a head that is looked at closely.
    fn read(&self, plan: &mut Plan, run: Run, layer: usize, arch: &Arch) -> Read {
        let values = plan.read(run, at(SiteKind::V, arch.keys_of(layer), Positions::All));
        let told = self.sides.is_some();
        let gated = told && SiteKind::AttnGate.at(layer).check(arch).is_ok();
        let mut last = |kind: SiteKind, layer: usize| plan.read(run, at(kind, layer, Positions::Last));
        Read {
            values,
            gate: gated.then(|| last(SiteKind::AttnGate, layer)),
            stream: told.then(|| [last(SiteKind::ResidPost, arch.n_layers - 1), last(SiteKind::AttnOut, layer)]),
        }
    }

    /// The heads of a layer that are looked at closely in a prompt, each with its number among the chosen ones.
    fn of_layer(
        &self,
        model: &Model,
        i: usize,
        layer: usize,
        read: &Read,
        readings: &Readings,
        patterns: &[f32],
    ) -> candle_core::Result<Vec<(Option<usize>, Kept)>> {
        let n = self.prompts.ids[i].len();
        let direction = match (&self.sides, read.stream) {
            (Some(sides), Some(stream)) => {
                let [answer, foil] = &sides[i];
                let [resid, attn_out] = stream.map(|handle| &readings[handle].values[..]);
                let [direction, _] = directions_of_stream(&model.decoder, [answer, foil], resid)?;
                Some(direction_of_z(&model.decoder, layer, &direction, attn_out)?)
            }
            _ => None,
        };
        let gate = read.gate.map(|gate| &readings[gate].values[..]);
        let values = &readings[read.values];
        let mut norms = moved(model, layer, values)?;
        let of = |(h, head): (Option<usize>, Head)| {
            let pattern = of_head(patterns, n, head.head);
            let sources = direction
                .as_deref()
                .map(|direction| sources(model, head, values, &pattern[(n - 1) * n..], gate, direction));
            (h, Kept { norms: norms.get_mut(head.head).map(std::mem::take).unwrap_or_default(), pattern, sources })
        };
        Ok(self.closely(layer, &model.decoder.arch).into_iter().map(of).collect())
    }
}

/// What a head adds along a direction of its layer's `z`, of what it reads at each position. The sum over them is its whole
/// attribution, as `z` is a sum over them.
fn sources(
    model: &Model,
    head: Head,
    values: &Array,
    weights: &[f32],
    gate: Option<&[f32]>,
    direction: &[f32],
) -> Vec<f64> {
    let Some(heads) = model.decoder.arch.layers[head.layer].mixer.heads() else { return Vec::new() };
    let d = heads.d_value();
    let (own, from) = (head.head * d, head.head * heads.n_kv_heads / heads.n_heads * d);
    let along = |row: &[f32]| -> f64 {
        let one = |k: usize| f64::from(row[from + k]) * f64::from(direction[own + k]);
        (0..d).map(|k| one(k) * gate.map_or(1.0, |gate| f64::from(gate[own + k]))).sum()
    };
    values.rows().zip(weights).map(|(row, weight)| f64::from(*weight) * along(row)).collect()
}

/// What chosen heads add to the answer, token by token.
fn sources_table(about: &About, items: &Asked, measured: &Measured) -> Result<Table, AnalysisError> {
    let mut rows = Vec::new();
    for (i, of_prompt) in measured.kept.iter().enumerate() {
        let (item, ids) = (&items.prompts.dataset.items[i], &items.prompts.ids[i]);
        for (head, kept) in items.heads.iter().zip(of_prompt) {
            let weights = &kept.pattern[(ids.len() - 1) * ids.len()..];
            let each = kept.sources.iter().flatten().zip(weights).enumerate();
            rows.extend(each.map(|(key, (attribution, weight))| SourceRow {
                id: &item.id,
                layer: head.layer as i64,
                head: head.head as i64,
                key: key as i64,
                key_token: about.token(ids[key]).into(),
                weight: Some(f64::from(*weight)),
                attribution: Some(*attribution),
            }));
        }
    }
    Ok(SourceRow::table(rows)?)
}

impl Attention {
    /// The file of the heads with the highest of a score, where one is asked for; heads of which the score is not known are left out.
    fn listed(&self, about: &About, rows: &[HeadRow]) -> Option<(String, Vec<u8>)> {
        let n = usize::from(self.list?);
        let by = self.list_by as usize;
        let known = |row: &HeadRow| Some((row.scores()[by].value?, row.layer, row.head));
        let mut scored: Vec<(f64, i64, i64)> = rows.iter().filter_map(known).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let heads: Vec<String> = scored.iter().take(n).map(|(_, layer, head)| cells::head(*layer, *head)).collect();
        let said = format!("{}: the heads that look most at {}, the first the most", about.model, LOOKS[by]);
        Some((FILE.to_string(), list_of(&heads, &said)))
    }

    /// The prompts, or the positive ones of pairs, as the model reads them.
    fn read(&self, model: &Model) -> Result<Prepared<Prompts>, AnalysisError> {
        let idle = |name, without| tracing::warn!("{}: does nothing without {}", param(name), param(without));
        match (&self.prompts, &self.pairs) {
            (Some(prompts), _) => {
                self.max_pairs.inspect(|_| idle("max_pairs", "pairs"));
                PromptArgs { label: self.label.clone(), ..PromptArgs::from(prompts.clone()) }.encoded(model)
            }
            (None, Some(pairs)) => {
                self.label.iter().for_each(|_| idle("label", "prompts"));
                PairFile { max_pairs: self.max_pairs, ..PairFile::from(pairs.clone()) }.positive(model)
            }
            (None, None) => {
                let (prompts, pairs) = (param("prompts"), param("pairs"));
                Err(AnalysisError::Bad(format!("nothing is asked: give {prompts} or {pairs}")))
            }
        }
    }

    /// The answer and foil tokens of each prompt, where heads are looked at closely and prompts have both.
    fn sides(
        &self,
        model: &Model,
        prompts: &Prompts,
        heads: &[Head],
    ) -> Result<Option<Vec<[Vec<u32>; 2]>>, AnalysisError> {
        let set = &prompts.dataset;
        let none = set.items.iter().all(|item| item.answer.is_empty() && item.foil.is_empty());
        let given = self.metric != MetricArgs::default();
        let closely = !heads.is_empty() || self.by_span;
        if !closely && given {
            let (answer, head, by_span) = (param("answer"), param("head"), param("by_span"));
            tracing::warn!(
                "{answer}, {} and {} do nothing without {head} or {by_span}",
                param("foil"),
                param("metric")
            );
        }
        if !closely || (none && !given) {
            return Ok(None);
        }
        let metrics = self.metric.open(model)?;
        let of = |item: &Item| match metrics.metric(model, item.into(), |field| set.at(item.line, &item.id, field))? {
            Metric::LogitDifference { answer, foil } => Ok([answer, foil]),
            _ => Err(AnalysisError::Failed("heads are attributed to a logit difference alone".to_string())),
        };
        set.items.iter().map(of).collect::<Result<_, _>>().map(Some)
    }

    fn patterns(&self, about: &About, items: &Asked, measured: &Measured) -> Result<Table, AnalysisError> {
        let mut rows = Vec::new();
        for (i, of_prompt) in measured.kept.iter().enumerate() {
            let (item, ids) = (&items.prompts.dataset.items[i], &items.prompts.ids[i]);
            let texts: Vec<String> = ids.iter().map(|id| about.token(*id)).collect();
            for (head, kept) in items.heads.iter().zip(of_prompt) {
                for (query, weights) in kept.pattern.chunks_exact(ids.len()).enumerate() {
                    rows.extend(weights.iter().enumerate().take(query + 1).map(|(key, weight)| PatternRow {
                        id: &item.id,
                        layer: head.layer as i64,
                        head: head.head as i64,
                        query: query as i64,
                        key: key as i64,
                        query_token: texts[query].clone().into(),
                        key_token: texts[key].clone().into(),
                        weight: Some(f64::from(*weight)),
                        weighted_norm: kept.norms.get(key).map(|norm| f64::from(*weight) * norm),
                    }));
                }
            }
        }
        Ok(PatternRow::table(rows)?)
    }
}

rows! {
    /// A score with its interval.
    #[derive(Copy)]
    pub struct Score {
        value: Option<f64> as "" = "{}",
        interval: Option<(f64, f64)> as "_ci_" =
            ["lower end of its 95 % BCa interval over prompts", "upper end of its 95 % BCa interval over prompts"],
    }

    /// A head over prompts. Scores are means over the positions of a prompt from 1 on, then over prompts.
    pub struct HeadRow<'a> in "heads" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        n: i64 = "prompts of two tokens or more",
        previous: Score as "previous" = "weight on the position before",
        first: Score as "first" = "weight on the first position",
        own: Score as "self" = "weight on the position itself",
        duplicate: Score as "duplicate" =
            "weight on earlier positions with the same token, over positions that have such",
        n_duplicate: i64 = "prompts with such a position",
        induction: Score as "induction" =
            "weight on positions after an earlier position with the same token, over positions that have such",
        n_induction: i64 = "prompts with such a position",
        entropy: Score as "entropy" = "entropy of the weights, nats",
    }

    /// One weight of a chosen head.
    pub struct PatternRow<'a> in "patterns" {
        id: &'a str = "the prompt",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        query: i64 = "position that looks, from 0",
        key: i64 = "position that is looked at, from 0",
        query_token: Cow<'a, str> = "the token that looks",
        key_token: Cow<'a, str> = "the token that is looked at",
        weight: Option<f64> = "attention weight",
        weighted_norm: Option<f64> =
            "the weight times the size of what the head moves from there, its value through the output projection",
    }

    /// What a chosen head adds to the answer at a prompt's last position of what it reads at one position.
    pub struct SourceRow<'a> in "sources" {
        id: &'a str = "the prompt",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        key: i64 = "position that is looked at, from 0",
        key_token: Cow<'a, str> = "the token that is looked at",
        weight: Option<f64> = "attention weight of the last position",
        attribution: Option<f64> =
            "what the head adds to the logit difference of what it reads there, nats; those of a prompt sum to the head's direct \
             logit attribution",
    }
}

impl HeadRow<'_> {
    fn scores(&self) -> [Score; 6] {
        [self.previous, self.first, self.own, self.duplicate, self.induction, self.entropy]
    }
}

/// What is said of the head with the largest of each score.
const LOOKS: [&str; 6] = [
    "the previous token",
    "the first token",
    "the token itself",
    "earlier mentions of the same token",
    "what came after an earlier mention of the same token",
    "everything alike",
];

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let rows = HeadRow::read(table(tables, HeadRow::TABLE)?)?;
    let first = rows.first().cloned().unwrap_or_default();
    let (model, n) = (short_name(first.model), first.n);
    let mut figures: Figures = Vec::new();
    for (k, name) in NAMES.iter().enumerate().filter(|(k, _)| rows.iter().any(|row| row.scores()[*k].value.is_some())) {
        let of = |row: &HeadRow| {
            let place = usize::try_from(row.layer).ok().zip(usize::try_from(row.head).ok());
            place.map(|(layer, head)| (layer, head, row.scores()[k].value, false))
        };
        let (values, _) = Heatmap::of_heads(rows.iter().filter_map(of));
        let title =
            if *name == "entropy" { "Entropy of attention".to_string() } else { format!("Attention to {}", LOOKS[k]) };
        let figure = Heatmap {
            title,
            subtitle: format!("{model}, {}, mean over positions", plural(n, "prompt")),
            x_label: "head".to_string(),
            y_label: "layer".to_string(),
            value_label: if *name == "entropy" { "entropy (nats)".to_string() } else { "attention weight".to_string() },
            values,
            limit: (*name != "entropy").then_some(1.0),
            from_zero: true,
            ..Heatmap::default()
        };
        figures.push((format!("{name}.png"), Figure::from(figure)));
    }
    if let Ok(by_span) = table(tables, SpanRow::TABLE) {
        figures.extend(spans::figures(&SpanRow::read(by_span)?));
    }
    if let Ok(patterns) = table(tables, PatternRow::TABLE) {
        let rows = PatternRow::read(patterns)?;
        figures.extend(shown(&rows).into_iter().map(|(file, head, rows)| (file, pattern_figure(&model, &head, &rows))));
    }
    Ok(figures)
}

/// The most positions of which a pattern is drawn.
const POSITIONS: usize = 40;

/// The pattern of each chosen head in the first prompt, with the name of its figure and its own.
fn shown<'a>(rows: &'a [PatternRow<'a>]) -> Vec<(String, String, Vec<&'a PatternRow<'a>>)> {
    let Some(first) = rows.first() else { return Vec::new() };
    let mut found: Vec<(String, String, Vec<&PatternRow>)> = Vec::new();
    for row in rows.iter().filter(|row| row.id == first.id && row.query < POSITIONS as i64) {
        let name = cells::head(row.layer, row.head);
        match found.iter().position(|(_, head, _)| *head == name) {
            Some(i) => found[i].2.push(row),
            None => found.push((format!("pattern-{name}.png"), name, vec![row])),
        }
    }
    found
}

/// The first query at the top, as it is read.
fn pattern_figure(model: &str, head: &str, rows: &[&PatternRow]) -> Figure {
    let n = rows.iter().map(|row| row.query as usize + 1).max().unwrap_or(0);
    let mut values = vec![vec![None; n]; n];
    let mut names = vec![String::new(); n];
    for row in rows {
        let (query, key) = (row.query as usize, row.key as usize);
        values[n - 1 - query][key] = row.weight;
        names[query] = row.query_token.trim().chars().take(7).collect();
    }
    Figure::from(Heatmap {
        title: format!("Where {head} looks"),
        subtitle: format!("{model}, prompt {}", rows.first().map_or("", |row| row.id)),
        x_label: "token that is looked at".to_string(),
        y_label: "token that looks".to_string(),
        value_label: "attention weight".to_string(),
        values,
        missing_meaning: Some("later, not seen".to_string()),
        limit: Some(1.0),
        from_zero: true,
        row_names: names.iter().rev().cloned().collect(),
        column_names: names,
        ..Heatmap::default()
    })
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let rows = HeadRow::read(table(tables, HeadRow::TABLE)?)?;
    let mut found = Vec::new();
    for (k, name) in NAMES.iter().enumerate() {
        let mut by_score: Vec<&HeadRow> = rows.iter().filter(|row| row.scores()[k].value.is_some()).collect();
        by_score
            .sort_by(|a, b| b.scores()[k].value.partial_cmp(&a.scores()[k].value).unwrap_or(std::cmp::Ordering::Equal));
        let Some(first) = by_score.first() else { continue };
        let n = match *name {
            "duplicate" => first.n_duplicate,
            "induction" => first.n_induction,
            _ => first.n,
        };
        let score = first.scores()[k];
        let (looks, measure) = match *name {
            "entropy" => ("most evenly".to_string(), "an entropy of"),
            _ => (format!("most at {}", LOOKS[k]), "a weight of"),
        };
        let interval = match score.interval {
            Some((low, high)) => format!(", 95 % interval {}", cells::interval(low, high, 3)),
            None => "; one prompt gives no interval".to_string(),
        };
        let text = format!(
            "Over {}, the head that looks {looks} is {}, with {measure} {}{interval}.",
            plural(n, "prompt"),
            cells::head(first.layer, first.head),
            number(score.value, 3),
        );
        let header = vec![Heading::text("head"), Heading::number(*name), Heading::number("95 % interval")];
        let cells = by_score.iter().take(LISTED).map(|row| {
            let score = row.scores()[k];
            let ends = (score.interval.map(|ends| ends.0), score.interval.map(|ends| ends.1));
            vec![cells::head(row.layer, row.head), number(score.value, 3), cells::interval(ends.0, ends.1, 3)]
        });
        let file = dir.join(format!("{name}.png"));
        let section = Section::new(cells::capitalised(name)).paragraph(text);
        let section = section.figure(file, "The mean of every head.", "Layer-by-head heatmap.");
        found.push(section.table("The largest", header, cells.collect()));
    }
    if let Ok(by_span) = table(tables, SpanRow::TABLE) {
        found.extend(spans::sections(&SpanRow::read(by_span)?, dir));
    }
    if let Ok(patterns) = table(tables, PatternRow::TABLE) {
        let rows = PatternRow::read(patterns)?;
        let mut section = Section::new("Patterns").paragraph(
            "The pattern of each chosen head in the first prompt. patterns.parquet has those of all prompts, and the size of what \
             the head moves.",
        );
        for (file, head, _) in shown(&rows) {
            section = section.figure(dir.join(file), format!("Where {head} looks."), "Heatmap of attention weights.");
        }
        found.push(section);
    }
    if let Ok(patterns) = table(tables, PatternRow::TABLE) {
        let view = view(&PatternRow::read(patterns)?);
        let section = Section::new("Where they look, token by token").paragraph(
            "In report.html the tokens of the first prompts can be pointed at: the others are shaded by the weights of the head.",
        );
        found.extend((!view.prompts.is_empty()).then(|| section.block(Block::Tokens(view))));
    }
    if let Ok(sources) = table(tables, SourceRow::TABLE) {
        found.push(sources_section(&SourceRow::read(sources)?));
    }
    Ok(found)
}

/// How many prompts, tokens and heads a page can be asked about: their numbers are in it.
const SHOWN: (usize, i64, usize) = (3, 64, 12);

/// The first prompts with what the chosen heads give from token to token.
fn view(rows: &[PatternRow]) -> TokenView {
    let (prompts, tokens, heads) = SHOWN;
    let mut view = TokenView {
        caption: format!(
            "Where the chosen heads look, in the first {tokens} tokens of the first {prompts} prompts at most."
        ),
        prompts: Vec::new(),
    };
    let rounded = |x: f64| ((x * 1e4).round() / 1e4) as f32;
    for of_prompt in rows.chunk_by(|a, b| a.id == b.id).take(prompts) {
        let mut prompt = TokenPrompt { id: of_prompt[0].id.to_string(), ..TokenPrompt::default() };
        let of_heads = of_prompt.chunk_by(|a, b| (a.layer, a.head) == (b.layer, b.head));
        for (h, of_head) in of_heads.take(heads).enumerate() {
            let name = cells::head(of_head[0].layer, of_head[0].head);
            let mut head = TokenHead { name, ..TokenHead::default() };
            for row in of_head.iter().filter(|row| row.query < tokens) {
                if row.key == 0 {
                    head.weights.push(Vec::new());
                }
                let weight = row.weight.unwrap_or(0.0);
                head.weights.last_mut().into_iter().for_each(|weights| weights.push(rounded(weight)));
                if row.key == row.query {
                    // What is moved for a weight of 1, which any query says of its keys.
                    let size = row.weighted_norm.filter(|_| weight > 0.0).map_or(0.0, |norm| norm / weight);
                    head.sizes.push(rounded(size));
                    if h == 0 {
                        prompt.tokens.push(row.query_token.to_string());
                    }
                }
            }
            prompt.heads.push(head);
        }
        view.prompts.push(prompt);
    }
    view
}

/// What chosen heads add to the answer of what they read, in the first prompt.
fn sources_section(rows: &[SourceRow]) -> Section {
    let id = rows.first().map_or("", |row| row.id);
    let of_first: Vec<&SourceRow> = rows.iter().filter(|row| row.id == id).collect();
    let mut heads: Vec<(i64, i64)> = of_first.iter().map(|row| (row.layer, row.head)).collect();
    heads.dedup();
    let mut section = Section::new("What they read for the answer").paragraph(format!(
        "What each chosen head adds to the logit difference at the last position is a sum over the positions that it reads. This is \
         the sum of the prompt {id}; sources.parquet has those of all prompts."
    ));
    for (layer, head) in heads {
        let mut of: Vec<&&SourceRow> = of_first.iter().filter(|row| (row.layer, row.head) == (layer, head)).collect();
        let size = |row: &SourceRow| row.attribution.map_or(0.0, f64::abs);
        let sum: f64 = of.iter().filter_map(|row| row.attribution).sum();
        of.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let header = vec![
            Heading::text("token"),
            Heading::number("position"),
            Heading::number("weight"),
            Heading::number("attribution (nats)"),
        ];
        let cells = of.iter().take(LISTED).map(|row| {
            let weight = number(row.weight, 3);
            vec![visible(&row.key_token), row.key.to_string(), weight, signed(row.attribution, 3)]
        });
        let caption = format!("{}: the largest of {} nats", cells::head(layer, head), signed(Some(sum), 3));
        section = section.table(caption, header, cells.collect());
    }
    section
}

/// How many heads are listed by each score.
const LISTED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_their_formulas() {
        // a b a b: at 2 the duplicate is 0 and induction looks at 1; at 3 they are 1 and 2.
        let ids = [7, 8, 7, 8];
        let pattern = [
            1.0, 0.0, 0.0, 0.0, //
            0.4, 0.6, 0.0, 0.0, //
            0.2, 0.3, 0.5, 0.0, //
            0.1, 0.2, 0.3, 0.4,
        ];
        let near = |found: Option<f64>, expected: f64| {
            let found = found.expect("a score");
            assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
        };
        let [previous, first, own, duplicate, induction, entropy] = scores(&pattern, &ids);
        near(previous, (0.4 + 0.3 + 0.3) / 3.0);
        near(first, (0.4 + 0.2 + 0.1) / 3.0);
        near(own, (0.6 + 0.5 + 0.4) / 3.0);
        near(duplicate, (0.2 + 0.2) / 2.0);
        near(induction, (0.3 + 0.3) / 2.0);
        let h = |p: &[f64]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
        near(entropy, (h(&[0.4, 0.6]) + h(&[0.2, 0.3, 0.5]) + h(&[0.1, 0.2, 0.3, 0.4])) / 3.0);
        // No token twice: nothing to say of duplicates; after a token that repeats at once stands itself.
        assert_eq!(scores(&pattern, &[1, 2, 3, 4])[3..5], [None, None]);
        near(scores(&[1.0, 0.0, 0.25, 0.75], &[5, 5])[4], 0.75);
        assert_eq!(scores(&[1.0], &[5]), [None; 6]);
    }

    #[test]
    fn the_pattern_of_a_head_is_taken_from_those_of_all() {
        let all = [1.0, 0.0, 2.0, 0.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(of_head(&all, 2, 0), [1.0, 0.0, 3.0, 4.0]);
        assert_eq!(of_head(&all, 2, 1), [2.0, 0.0, 5.0, 6.0]);
    }
}
