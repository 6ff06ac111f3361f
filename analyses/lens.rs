//! The logit lens: what would the model say, were each layer the last?
//!
//! The final norm and the unembedding read the residual stream after every layer, as they read it after the last one; soft-capping of
//! logits and what else a family does there are done here too. A token that comes up in a middle layer was *decided* there only in so
//! far as later layers leave it: the lens shows where it can be read, not what reads it. Early layers of many models speak another
//! language than the unembedding, so that their words mean little. At another site (`attn_out`, `mlp_out`) the lens shows the words
//! that one layer's part would say by itself. Source: nostalgebraist 2020, "Interpreting GPT: the logit lens".

use crate::analyses::prelude::*;
use crate::dataset::TokenRef;
use crate::dataset::encode::token_ids;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Heatmap};
use crate::model::arch::Arch;
use crate::names::short_name;
use crate::report::cells::{plural, share, share_interval, signed};
use crate::run::log_sum_exp;
use crate::stats::{bca_mean, wilson};
use crate::table::rows::Column;
use candle_core::{DType, Tensor};
use rayon::prelude::*;
use std::borrow::Cow;

use super::columns::OfItem;
use super::inputs::rows_read;
use super::neurons::vocabulary_of;
use super::vectors::{Named, of_stream};

parameters! {
    /// Show which tokens each layer's residual stream would predict (logit lens)
    #[serde(default)]
    pub struct Lens {
        /// Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "label"?, "group"?, "lang"?}
        prompts: Option<Data>, [value_name = "FILE", required_unless_present = "vector"];

        /// Use only the prompts with this label
        label: Option<String>, [value_name = "LABEL"];

        /// Show the vocabulary of this file's vector: of `functions`, `steer` or `cav`, an .npy array, a control vector (repeatable)
        vector: Vec<Data>, [value_name = "FILE"];

        /// Take this vector of files that have several
        vector_name: Option<String>, [value_name = "NAME"];

        /// Follow this token's rank for prompts that name no answer: a string, of which the first token counts, or id:N (repeatable)
        // A text would be taken as it is otherwise, `id:5` too.
        answer: Vec<TokenRef>, [value_name = "TOKEN", allow_hyphen_values = true, value_parser = str::parse::<TokenRef>];

        /// Read at this site: resid_pre, resid_mid, resid_post, attn_out, attn_delta, mlp_out, mlp_delta or ple_out
        site: SiteKind = SiteKind::ResidPost;

        /// Read at this position: all, last, or a number (a negative one counts from the prompt's end)
        position: Position = Position::All, [allow_hyphen_values = true];

        /// List this many of the likeliest tokens
        top: u16 = 5, in 1..=100, [value_name = "K"];
    }
}

/// Prompts with what is followed in each.
pub struct Asked {
    prompts: Prompts,
    /// Vectors whose vocabulary is shown.
    vectors: Vec<Named>,
    /// The tokens whose rank is asked for; none where nothing names any.
    answers: Vec<Vec<u32>>,
    /// Which positions are read of each.
    positions: Vec<Vec<usize>>,
    /// Where it is read, layer by layer; a layer that lacks the site is left out.
    sites: Vec<Site>,
}

/// What the lens shows at one layer and position.
struct Seen {
    /// The likeliest tokens with their log-probabilities, the likeliest first.
    top: Vec<(u32, f64)>,
    /// How many tokens are likelier than the answer, and one more; and the answer's log-probability.
    answer: Option<(i64, f64)>,
    /// How far the distribution after the last layer is from this one, nats.
    kl: f64,
    /// Whether its likeliest token is that of the last layer.
    same: bool,
}

/// What was seen of every prompt, `[positions][sites]`.
#[derive(Default)]
pub struct Measured(Vec<Vec<Vec<Seen>>>);

impl Analysis for Lens {
    const NAME: &'static str = "lens";
    const TITLE: &'static str = "Logit lens";
    const FROM_TABLES: FromTables = FromTables { figures, sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let arch = &model.decoder.arch;
        if self.prompts.is_some() {
            arch.read_at_end().map_err(AnalysisError::NotAskable)?;
        }
        let sites = self.sites(arch)?;
        let (mut vectors, mut read) = (Vec::new(), Vec::new());
        for data in &self.vector {
            let given = of_stream(data, self.vector_name.as_deref(), arch)?;
            vectors.push(given.named);
            read.push(given.source);
        }
        let mut prepared = match (&self.prompts, vectors.is_empty()) {
            (Some(prompts), _) => {
                PromptArgs { label: self.label.clone(), ..PromptArgs::from(prompts.clone()) }.encoded(model)?
            }
            (None, true) => {
                let (prompts, vector) = (param("prompts"), param("vector"));
                return Err(AnalysisError::Bad(format!("nothing is asked: give {prompts}, {vector} or both")));
            }
            (None, false) => {
                let dataset =
                    Dataset { path: "".into(), sha256: String::new(), items: Vec::new(), warnings: Vec::new() };
                Prepared {
                    items: Prompts { dataset, ids: Vec::new() },
                    sources: Vec::new(),
                    scored: Default::default(),
                }
            }
        };
        prepared.sources.extend(read);
        let set = &prepared.items.dataset;
        let given =
            token_ids(model, &self.answer).map_err(|why| AnalysisError::Bad(format!("{}: {why}", param("answer"))))?;
        if !given.is_empty() && !set.items.is_empty() && set.items.iter().all(|item| !item.answer.is_empty()) {
            tracing::warn!("{}: does nothing, for every prompt names its own `answer`", param("answer"));
        }
        let (mut answers, mut positions) = (Vec::new(), Vec::new());
        for (item, ids) in set.items.iter().zip(&prepared.items.ids) {
            let at = |field| set.at(item.line, &item.id, field);
            let own = token_ids(model, &item.answer).map_err(|why| at("answer").error(why))?;
            answers.push(if own.is_empty() { given.clone() } else { own });
            positions.push(match self.position.of(ids.len()).map_err(|why| at("prompt").error(why))? {
                Positions::All => (0..ids.len()).collect(),
                Positions::Last => vec![ids.len() - 1],
                Positions::At(positions) => positions,
            });
        }
        Ok(prepared.map(|prompts| Asked { prompts, vectors, answers, positions, sites }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let decoder = &runner.model().decoder;
        let last = SiteKind::ResidPost.at(decoder.arch.n_layers - 1);
        let longest = items.positions.iter().map(Vec::len).max().unwrap_or(1);
        let each = rows_read(&items.sites, &decoder.arch, Position::All, longest);
        let mut found = Measured::default();
        for some in batches(items.positions.len(), each) {
            let mut plan = Plan::default();
            let asked: Vec<(usize, Vec<Handle<Array>>)> = some
                .map(|i| {
                    let run = plan.prompt(items.prompts.dataset.items[i].id.clone(), items.prompts.ids[i].clone());
                    let positions = Positions::At(items.positions[i].clone());
                    let stream =
                        |site: &Site| Activation { site: *site, positions: positions.clone(), part: Part::All };
                    let sites = items.sites.iter().chain([&last]);
                    (i, sites.map(|site| plan.read(run, stream(site))).collect())
                })
                .collect();
            let readings = runner.run(&plan)?;
            for (i, handles) in asked.into_iter().filter(|_| !runner.is_counting()) {
                let streams: Vec<&[f32]> = handles.iter().map(|handle| &readings[*handle].values[..]).collect();
                let seen = self.seen(runner.model(), &streams, &items.answers[i], items.positions[i].len());
                found.0.push(seen.map_err(|e| AnalysisError::Failed(e.to_string()))?);
            }
        }
        Ok(found)
    }

    fn tables(&self, about: &About, items: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        let mut rows = Vec::new();
        let (set, ids) = (&items.prompts.dataset.items, &items.prompts.ids);
        for (i, of_prompt) in measured.0.iter().enumerate() {
            for (s, site) in items.sites.iter().enumerate() {
                for (position, seen) in items.positions[i].iter().zip(of_prompt) {
                    let seen = &seen[s];
                    rows.extend(seen.top.iter().enumerate().map(|(rank, (predicted, logprob))| LensRow {
                        item: (&set[i]).into(),
                        layer: site.layer as i64,
                        position: *position as i64,
                        token: about.token(ids[i][*position]).into(),
                        rank: rank as i64 + 1,
                        predicted: about.token(*predicted).into(),
                        predicted_id: i64::from(*predicted),
                        logprob: Some(*logprob),
                        answer_rank: seen.answer.map(|(rank, _)| rank as f64),
                        answer_logprob: seen.answer.map(|(_, logprob)| logprob),
                        kl_to_last: Some(seen.kl),
                    }));
                }
            }
        }
        let layers = items.sites.iter().enumerate().map(|(s, site)| {
            // What comes next is predicted at a prompt's last position.
            let seen: Vec<&Seen> = measured.0.iter().filter_map(|of| of.last()?.get(s)).collect();
            self.layer(about, site, &seen)
        });
        let mut tables = match items.positions.is_empty() {
            true => Vec::new(),
            false => vec![LensRow::table(rows)?, LayerRow::table(layers)?],
        };
        if !items.vectors.is_empty() {
            tables.push(self.vocabularies(about, &items.vectors)?);
        }
        Ok(tables.into())
    }
}

impl Lens {
    /// The tokens that vectors raise and lower.
    fn vocabularies(&self, about: &About, vectors: &[Named]) -> Result<Table, AnalysisError> {
        let decoder = &about.loaded.decoder;
        let mut rows = Vec::new();
        for (data, named) in self.vector.iter().zip(vectors) {
            let both = vocabulary_of(decoder, &named.vector, usize::from(self.top));
            let both = both.map_err(|e| AnalysisError::Failed(e.to_string()))?;
            for (end, tokens) in ["raised", "lowered"].into_iter().zip(&both) {
                rows.extend(tokens.iter().enumerate().map(|(rank, (id, logit))| VocabularyRow {
                    file: data.display().to_string().into(),
                    vector: named.name.as_str().into(),
                    end,
                    rank: rank as i64 + 1,
                    token: about.token(*id).into(),
                    token_id: i64::from(*id),
                    logit: Some(f64::from(*logit)),
                }));
            }
        }
        Ok(VocabularyRow::table(rows)?)
    }

    /// Where it is read.
    fn sites(&self, arch: &Arch) -> Result<Vec<Site>, AnalysisError> {
        use SiteKind::*;
        let added = [MixOut, AttnOut, AttnDelta, MlpOut, MlpDelta, PleOut];
        if ![ResidPre, ResidMid, ResidPost].contains(&self.site) && !added.contains(&self.site) {
            let why = format!("{}: `{}` is not of the residual stream, nor added to it", param("site"), self.site);
            return Err(AnalysisError::Bad(why));
        }
        let checked = (0..arch.n_layers).map(|layer| self.site.at(layer).named_in(arch).check(arch));
        let (there, not): (Vec<_>, Vec<_>) = checked.partition(Result::is_ok);
        if let Some(why) = not.into_iter().find_map(Result::err).filter(|_| there.is_empty()) {
            return Err(AnalysisError::Bad(why.to_string()));
        }
        // What a recurrent mixer alone reads is never in the stream.
        let fed = |site: &Site| arch.layers[site.layer].feeds() && matches!(site.kind, AttnOut | MlpOut);
        let added: Vec<Site> = there.into_iter().flatten().filter(|site| !fed(site)).collect();
        if added.is_empty() {
            let why = format!("{}: `{}` is added to the residual stream in no layer", param("site"), self.site);
            return Err(AnalysisError::Bad(why));
        }
        Ok(added)
    }

    /// What the lens shows of one prompt's streams, the last layer's at their end, `[sites + 1][positions, d_model]` each.
    fn seen(
        &self,
        model: &Model,
        streams: &[&[f32]],
        answer: &[u32],
        positions: usize,
    ) -> candle_core::Result<Vec<Vec<Seen>>> {
        let decoder = &model.decoder;
        let (d, vocab) = (decoder.arch.d_model, decoder.arch.vocab);
        let at_once = (LOGITS_AT_ONCE / vocab.max(1)).max(1);
        let mut all = Vec::with_capacity(positions);
        for from in (0..positions).step_by(at_once) {
            let n = at_once.min(positions - from);
            let logprobs = |stream: &[f32]| -> candle_core::Result<Vec<Vec<f32>>> {
                let rows = stream[from * d..(from + n) * d].to_vec();
                let rows = Tensor::from_vec(rows, (n, d), decoder.places.last())?.to_dtype(decoder.dtype)?;
                let logits = decoder.logits(&decoder.final_norm(&rows)?, None)?.to_dtype(DType::F32)?;
                let mut rows = logits.to_vec2::<f32>()?;
                rows.par_iter_mut().for_each(|row| {
                    let sum = log_sum_exp(row.iter().map(|x| f64::from(*x)));
                    row.iter_mut().for_each(|x| *x = (f64::from(*x) - sum) as f32);
                });
                Ok(rows)
            };
            let [sites @ .., last] = streams else { return Ok(all) };
            let last = logprobs(last)?;
            let mut of_positions: Vec<Vec<Seen>> = (0..n).map(|_| Vec::with_capacity(sites.len())).collect();
            for stream in sites {
                let rows = logprobs(stream)?;
                let seen: Vec<Seen> =
                    rows.par_iter().zip(&last).map(|(row, last)| self.look(row, last, answer)).collect();
                of_positions.iter_mut().zip(seen).for_each(|(of, seen)| of.push(seen));
            }
            all.append(&mut of_positions);
        }
        Ok(all)
    }

    /// What log-probabilities show, beside those after the last layer.
    fn look(&self, row: &[f32], last: &[f32], answer: &[u32]) -> Seen {
        // Among equals the first, so that the order is the same everywhere.
        let likelier = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        let mut ids: Vec<u32> = (0..row.len() as u32).collect();
        let k = usize::from(self.top).min(ids.len());
        if k < ids.len() {
            ids.select_nth_unstable_by(k, likelier);
            ids.truncate(k);
        }
        ids.sort_by(likelier);
        let first = |row: &[f32]| (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best });
        let of_answer: Vec<f32> = answer.iter().filter_map(|id| row.get(*id as usize).copied()).collect();
        let best = of_answer.iter().copied().reduce(f32::max);
        let kl = last.iter().zip(row).map(|(p, q)| f64::from(*p).exp() * (f64::from(*p) - f64::from(*q))).sum();
        Seen {
            top: ids.into_iter().map(|id| (id, f64::from(row[id as usize]))).collect(),
            answer: best.map(|best| {
                let rank = row.iter().filter(|x| **x > best).count() as i64 + 1;
                (rank, log_sum_exp(of_answer.iter().map(|x| f64::from(*x))))
            }),
            kl,
            same: first(row) == first(last),
        }
    }

    /// A layer over prompts.
    fn layer<'a>(&self, about: &About<'a>, site: &Site, seen: &[&Seen]) -> LayerRow<'a> {
        let options = Bootstrap { seed: about.seed, ..Bootstrap::default() };
        let counted = |n: usize, of: usize| (n as i64, wilson(n, of).map(Interval::ends));
        let kls: Vec<f64> = seen.iter().map(|seen| seen.kl).collect();
        let answers: Vec<(i64, f64)> = seen.iter().filter_map(|seen| seen.answer).collect();
        let logprobs: Vec<f64> = answers.iter().map(|(_, logprob)| *logprob).collect();
        let (same, same_interval) = counted(seen.iter().filter(|seen| seen.same).count(), seen.len());
        let (first, first_interval) = counted(answers.iter().filter(|(rank, _)| *rank == 1).count(), answers.len());
        let of_answers = |n: i64| (!answers.is_empty()).then(|| n as f64 / answers.len() as f64);
        LayerRow {
            model: about.model,
            site: Cow::Owned(self.site.to_string()),
            layer: site.layer as i64,
            n: seen.len() as i64,
            kl_mean: mean(&kls),
            kl_interval: bca_mean(&kls, &options).map(Interval::ends),
            same: (!seen.is_empty()).then(|| same as f64 / seen.len() as f64),
            same_interval,
            answers: answers.len() as i64,
            logprob_mean: mean(&logprobs),
            logprob_interval: bca_mean(&logprobs, &options).map(Interval::ends),
            first: of_answers(first),
            first_interval,
        }
    }
}

/// How many logits are held at once of a site: 64 MiB.
const LOGITS_AT_ONCE: usize = 1 << 24;

rows! {
    /// One of the likeliest tokens that the lens shows.
    pub struct LensRow<'a> in "lens" {
        item: OfItem<'a> as "",
        layer: i64 = "layer, from 0",
        position: i64 = "position of the prompt, from 0",
        token: Cow<'a, str> = "the prompt's token there",
        rank: i64 = "1 for the likeliest token",
        predicted: Cow<'a, str> = "the token of this rank",
        predicted_id: i64 = "its id",
        logprob: Option<f64> = "its log-probability, nats",
        answer_rank: Option<f64> =
            "how many tokens of the vocabulary are likelier than the answer, and 1; of several answers, the likeliest; empty \
             without an answer",
        answer_logprob: Option<f64> = "log-probability of the answer, of several together, nats",
        kl_to_last: Option<f64> =
            "Kullback-Leibler divergence of the model's own distribution there from the one that the lens shows, nats",
    }

    /// A token of a vector's vocabulary.
    pub struct VocabularyRow<'a> in "vocabulary" {
        file: Cow<'a, str> = "the vector's file",
        vector: Cow<'a, str> = "the vector's name there",
        end: &'a str = "`raised` or `lowered`",
        rank: i64 = "1 for the one that is raised, or lowered, most",
        token: Cow<'a, str> = "the token",
        token_id: i64 = "its id",
        logit: Option<f64> =
            "what the vector adds to the token's logit through the final norm's gain, less the vocabulary's mean, before its scale",
    }

    /// What the lens shows at each prompt's last read position, over prompts.
    pub struct LayerRow<'a> in "layers" {
        model: &'a str = "the model, as it was named",
        site: Cow<'a, str> = "where the lens reads",
        layer: i64 = "layer, from 0",
        n: i64 = "prompts",
        kl_mean: Option<f64> =
            "mean Kullback-Leibler divergence of the model's own distribution from the one that the lens shows, nats",
        kl_interval: Option<(f64, f64)> as "kl_ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end of its 95 % BCa interval, nats"],
        same: Option<f64> = "share of prompts whose likeliest token is the model's own",
        same_interval: Option<(f64, f64)> as "same_ci_" =
            ["lower end of its 95 % Wilson interval", "upper end of its 95 % Wilson interval"],
        answers: i64 = "prompts with an answer",
        logprob_mean: Option<f64> = "mean log-probability of the answer, nats",
        logprob_interval: Option<(f64, f64)> as "logprob_ci_" =
            ["lower end of its 95 % BCa interval, nats", "upper end of its 95 % BCa interval, nats"],
        first: Option<f64> = "share of the prompts with an answer in which it is the likeliest token",
        first_interval: Option<(f64, f64)> as "first_ci_" =
            ["lower end of its 95 % Wilson interval", "upper end of its 95 % Wilson interval"],
    }
}

/// How many prompts have a figure of their own, and of how many of their last positions.
const FIGURES: usize = 3;
const POSITIONS: usize = 8;

/// The likeliest tokens of one prompt.
struct OfPrompt<'a> {
    id: &'a str,
    rows: Vec<&'a LensRow<'a>>,
}

/// The first prompts that have figures.
fn first_prompts<'a>(rows: &'a [LensRow<'a>]) -> Vec<OfPrompt<'a>> {
    let mut found: Vec<OfPrompt> = Vec::new();
    for row in rows.iter().filter(|row| row.rank == 1) {
        match found.iter().position(|of| of.id == row.item.id) {
            Some(i) => found[i].rows.push(row),
            None if found.len() < FIGURES => found.push(OfPrompt { id: row.item.id, rows: vec![row] }),
            None => {}
        }
    }
    found
}

impl OfPrompt<'_> {
    fn file(i: usize) -> String {
        format!("prompt-{}.png", i + 1)
    }

    /// What every layer would say at the last positions, and how sure it would be.
    fn figure(&self, model: &str) -> Figure {
        let mut positions: Vec<i64> = self.rows.iter().map(|row| row.position).collect();
        positions.sort_unstable();
        positions.dedup();
        let positions = &positions[positions.len().saturating_sub(POSITIONS)..];
        let mut layers: Vec<i64> = self.rows.iter().map(|row| row.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let at =
            |layer: i64, position: i64| self.rows.iter().find(|row| row.layer == layer && row.position == position);
        let of = |row: &dyn Fn(i64, i64) -> String| -> Vec<Vec<String>> {
            layers.iter().map(|layer| positions.iter().map(|position| row(*layer, *position)).collect()).collect()
        };
        let share = |layer: &i64| {
            let share = |position: &i64| at(*layer, *position).and_then(|row| row.logprob).map(f64::exp);
            positions.iter().map(share).collect()
        };
        let first = layers.first().copied().unwrap_or(0);
        let token = |position: &i64| at(first, *position).map_or(String::new(), |row| visible(&row.token));
        Figure::from(Heatmap {
            title: "What each layer would say next".to_string(),
            subtitle: format!("{model}, prompt {}", self.id),
            x_label: "token of the prompt".to_string(),
            y_label: "layer".to_string(),
            value_label: "probability of the likeliest token".to_string(),
            values: layers.iter().map(share).collect(),
            texts: of(&|layer, position| at(layer, position).map_or(String::new(), |row| visible(&row.predicted))),
            row_names: Vec::new(),
            first_row: usize::try_from(first).unwrap_or(0),
            column_names: positions.iter().map(token).collect(),
            limit: Some(1.0),
            from_zero: true,
            ..Heatmap::default()
        })
    }
}

/// A token with its spaces seen.
pub(super) fn visible(token: &str) -> String {
    let seen = |c: char| match c {
        ' ' => "·".to_string(),
        c if c.is_control() || c.is_whitespace() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    token.chars().map(seen).collect()
}

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    if of_vectors_alone(tables) {
        return Ok(Figures::new());
    }
    let (rows, layers) = (LensRow::read(table(tables, LensRow::TABLE)?)?, table(tables, LayerRow::TABLE)?);
    let first = LayerRow::read(layers)?.first().cloned().unwrap_or_default();
    let model = short_name(first.model);
    let mut figures: Figures =
        first_prompts(&rows).iter().enumerate().map(|(i, of)| (OfPrompt::file(i), of.figure(&model))).collect();
    let numbers = layers.column(LayerRow::layer)?;
    let curve = |name: &str, of: Column<Option<f64>>, ends: Column<Option<(f64, f64)>>| {
        let values = numbers.iter().zip(layers.column(of)?).zip(layers.column(ends)?);
        let points = values.map(|((layer, y), interval)| CurvePoint { x: *layer as f64, y, interval }).collect();
        Ok::<_, AnalysisError>(Curve { name: name.to_string(), role: CurveRole::Series, points })
    };
    let subtitle = |n: i64| format!("{model}, {}, {}", plural(n, "prompt"), first.site);
    let curves = |title: &str, y_label: &str, n: i64, curves: Vec<Curve>| Curves {
        title: title.to_string(),
        subtitle: subtitle(n),
        x_label: "layer".to_string(),
        y_label: y_label.to_string(),
        curves,
        interval_meaning: Some("95 % interval".to_string()),
        ..Curves::default()
    };
    let mut shares = vec![curve("the model's own token is likeliest", LayerRow::same, LayerRow::same_interval)?];
    if first.answers > 0 {
        shares.push(curve("the answer is likeliest", LayerRow::first, LayerRow::first_interval)?);
        let of = vec![curve("the answer", LayerRow::logprob_mean, LayerRow::logprob_interval)?];
        let figure = curves("The answer, layer by layer", "log-probability (nats)", first.answers, of);
        figures.push((ANSWER.to_string(), Figure::from(figure)));
    }
    let shares = Curves { shares: true, ..curves("Where the token can be read", "share of prompts", first.n, shares) };
    figures.push((SHARES.to_string(), Figure::from(shares)));
    let kl = vec![curve("divergence", LayerRow::kl_mean, LayerRow::kl_interval)?];
    let kl = curves("How far from what the model says", "divergence (nats)", first.n, kl);
    figures.push((DIVERGENCE.to_string(), Figure::from(kl)));
    Ok(figures)
}

const ANSWER: &str = "answer.png";
const SHARES: &str = "shares.png";
const DIVERGENCE: &str = "divergence.png";

/// Whether no prompt was asked about.
fn of_vectors_alone(tables: &[Table]) -> bool {
    table(tables, VocabularyRow::TABLE).is_ok() && table(tables, LensRow::TABLE).is_err()
}

/// What vectors say.
fn vocabulary_section(rows: &[VocabularyRow]) -> Section {
    let mut section = Section::new("What vectors say").paragraph(
        "A vector that is added to the residual stream is read through the final norm's gain and the unembedding. A vector need not say \
         what it does: later layers read it too.",
    );
    for of_vector in rows.chunk_by(|a, b| (&a.file, &a.vector) == (&b.file, &b.vector)) {
        let header =
            vec![Heading::text("raises"), Heading::number("logit"), Heading::text("lowers"), Heading::number("logit")];
        let of = |end: &str| of_vector.iter().filter(|row| row.end == end).collect::<Vec<_>>();
        let cell = |row: &VocabularyRow| [visible(&row.token), signed(row.logit, 3)];
        let cells = of("raised").into_iter().zip(of("lowered")).map(|(up, down)| [cell(up), cell(down)].concat());
        section = section.table(format!("{} of {}", of_vector[0].vector, of_vector[0].file), header, cells.collect());
    }
    section
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let vocabulary = table(tables, VocabularyRow::TABLE).ok().map(VocabularyRow::read).transpose()?;
    let vocabulary = vocabulary.map(|rows| vocabulary_section(&rows));
    if of_vectors_alone(tables) {
        return Ok(vocabulary.into_iter().collect());
    }
    let rows = LensRow::read(table(tables, LensRow::TABLE)?)?;
    let layers = LayerRow::read(table(tables, LayerRow::TABLE)?)?;
    let first = layers.first().cloned().unwrap_or_default();
    let read = format!("The final norm and the unembedding read {} of each layer.", first.site);
    let mut main = Section::new("Where the token can be read").paragraph(read).paragraph(settled(&layers, Said::Own));
    if first.answers > 0 {
        main = main.paragraph(settled(&layers, Said::Answer));
    }
    main = main.figure(
        dir.join(SHARES),
        "In how many prompts the likeliest token is the model's own, at the last position that was read.",
        "Shares of prompts by layer.",
    );
    if first.answers > 0 {
        let caption = "The answer's mean log-probability, at the last position that was read.";
        main = main.figure(dir.join(ANSWER), caption, "The answer's log-probability by layer.");
    }
    main = main.figure(
        dir.join(DIVERGENCE),
        "How far the model's own distribution is from the one that the lens shows.",
        "Divergence by layer.",
    );
    let mut prompts = Section::new("Prompt by prompt").paragraph(
        "The likeliest token at each layer, at the last positions of the first prompts. All are in lens.parquet. A dot stands for a \
         space.",
    );
    for (i, of) in first_prompts(&rows).iter().enumerate() {
        let caption = format!("The likeliest token at each layer in the prompt {}.", of.id);
        prompts = prompts.figure(dir.join(OfPrompt::file(i)), caption, "Likeliest tokens, layers by positions.");
    }
    Ok([main, prompts].into_iter().chain(vocabulary).collect())
}

/// What is asked of a layer's likeliest token.
#[derive(Clone, Copy)]
pub enum Said {
    /// That it is the model's own.
    Own,
    /// That it is the answer.
    Answer,
}

/// From which layer on the likeliest token is what is asked for in most prompts: as far as intervals say so.
pub fn settled(layers: &[LayerRow], said: Said) -> String {
    let of = |row: &LayerRow| match said {
        Said::Own => (row.same, row.same_interval),
        Said::Answer => (row.first, row.first_interval),
    };
    // After the last layer stands what the model says, whatever it is.
    let own = matches!(said, Said::Own) && layers.last().is_some_and(|row| row.site == SiteKind::ResidPost.to_string());
    let asked = &layers[..layers.len() - usize::from(own)];
    let (what, n) = match said {
        Said::Own => ("the model's own", layers.first().map_or(0, |row| row.n)),
        Said::Answer => ("the answer", layers.first().map_or(0, |row| row.answers)),
    };
    let most = |row: &&LayerRow| of(row).1.is_some_and(|(low, _)| low > 0.5);
    match asked.iter().rev().take_while(most).last() {
        Some(row) => format!(
            "From layer {} on, the likeliest token is {what} in most of {}: there in {}, 95 % interval {}.",
            row.layer,
            plural(n, "prompt"),
            share(of(row).0),
            share_interval(of(row).1)
        ),
        None => format!(
            "{} can it be said that the likeliest token is {what} in most of {}: the interval of its share does not lie above one half \
             and stay there.",
            if own { "From no layer before the last on" } else { "From no layer on" },
            plural(n, "prompt")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(top: u16) -> Lens {
        Lens { top, ..Lens::default() }
    }

    #[test]
    fn ranks_probabilities_and_divergence_follow_their_formulas() {
        let log = |p: &[f64]| p.iter().map(|p| p.ln() as f32).collect::<Vec<_>>();
        let (row, last) = (log(&[0.1, 0.4, 0.2, 0.3]), log(&[0.7, 0.1, 0.1, 0.1]));
        let seen = lens(2).look(&row, &last, &[2, 0]);
        assert_eq!(seen.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
        let (rank, logprob) = seen.answer.expect("an answer");
        assert!(rank == 3 && (logprob - 0.3f64.ln()).abs() < 1e-6, "{rank} {logprob}");
        let kl: f64 =
            [(0.7, 0.1), (0.1, 0.4), (0.1, 0.2), (0.1, 0.3)].iter().map(|(p, q): &(f64, f64)| p * (p / q).ln()).sum();
        assert!((seen.kl - kl).abs() < 1e-6 && !seen.same);
        let own = lens(9).look(&last, &last, &[]);
        assert!(own.same && own.answer.is_none() && own.kl.abs() < 1e-9 && own.top.len() == 4);
    }

    #[test]
    fn equally_likely_tokens_come_in_the_order_of_their_ids() {
        let row = [-1.0, -0.5, -0.5, -0.5, -2.0];
        let top: Vec<u32> = lens(2).look(&row, &row, &[]).top.iter().map(|(id, _)| *id).collect();
        assert_eq!(top, [1, 2]);
    }

    #[test]
    fn a_token_is_settled_only_where_intervals_say_so() {
        let row = |layer, same: usize| LayerRow {
            layer,
            site: "resid_post".into(),
            n: 20,
            same: Some(same as f64 / 20.0),
            same_interval: wilson(same, 20).map(Interval::ends),
            answers: 20,
            first: Some(same as f64 / 20.0),
            first_interval: wilson(same, 20).map(Interval::ends),
            ..LayerRow::default()
        };
        let said = settled(&[row(0, 19), row(1, 3), row(2, 18), row(3, 20), row(4, 20)], Said::Own);
        assert!(said.starts_with("From layer 2 on") && said.contains("90.0\u{a0}%"), "{said}");
        let after_all = settled(&[row(0, 20), row(1, 11), row(2, 20)], Said::Own);
        assert!(after_all.starts_with("From no layer before the last on"), "the last layer's is its own: {after_all}");
        assert!(settled(&[row(0, 20), row(1, 11)], Said::Answer).starts_with("From no layer on"));
        assert!(
            settled(&[row(0, 11), row(1, 20)], Said::Answer).starts_with("From layer 1 on"),
            "the answer's may be the last"
        );
    }
}
