//! Which tokens of a prompt does the answer depend on? Four rankings side by side, and what says which of them is better.
//!
//! Attention is often read as importance; this asks whether it is. *Attention* sums the weight that all heads put on a token; *VATP*
//! multiplies it by the size of the value that stands there (Guo et al. 2024, "Attention Score is not All You Need for Token
//! Importance Indicator"). Neither asks what the answer does without the token. *Occlusion* masks one token at a time; *RISE* masks
//! half of them at random, many times, and compares the metric where a token was kept with that where it was masked (Petsiuk et al.
//! 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models"): so it sees tokens that stand in for each other. A
//! masked token's embedding is the mean of all tokens'. Tokens that a chat template or the tokenizer adds stay.
//!
//! A ranking is good if the metric falls fast as tokens are masked from the most important on (*deletion*), and rises fast as they
//! are put back in that order (*insertion*). All masked prompts are edited runs of one wave.

mod own;
mod report;
mod tables;

pub use tables::SummaryRow;

use super::inputs::MeasuredPrompts;
use crate::analyses::prelude::*;
use crate::stats;
use rand::Rng;
use rand::seq::SliceRandom;
use std::sync::Arc;

parameters! {
    /// Rank the tokens of prompts by what the answer depends on, in four ways, and test the rankings
    #[serde(default)]
    pub struct Importance {
        ..measured: MeasuredArgs;

        /// Mask half of the tokens at random this many times
        masks: u32 = 1000, in 20..=1_000_000, [value_name = "N"];

        /// Compare with this many random rankings
        random: u16 = 5, in 1..=100, [value_name = "R"];
    }
}

/// The rankings, in the order of tables.
const METHODS: [&str; 4] = ["attention", "vatp", "occlusion", "rise"];

/// At how many shares of a prompt's tokens the curves are read, from none to all.
const STEPS: usize = 10;

/// Prompts as the model reads them, with the positions that are masked.
pub struct Asked {
    prompts: MeasuredPrompts,
    own: Vec<Vec<usize>>,
}

/// What a prompt came to.
pub struct OfPrompt {
    /// Of each ranking, one a position that is masked.
    scores: [Vec<f64>; 4],
    /// Of each ranking, then of random ones on average: the metric at each step of deletion and of insertion.
    curves: Vec<[Vec<f64>; 2]>,
}

impl Analysis for Importance {
    const NAME: &'static str = "importance";
    const TITLE: &'static str = "Importance of tokens";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    type Measured = Vec<OfPrompt>;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        if model.decoder.arch.per_layer.is_some() {
            let why = "layers of this model have embeddings of each token of their own, which no mask of what enters layer 0 takes away";
            return Err(AnalysisError::NotAskable(why.to_string()));
        }
        model.decoder.arch.one_pattern_a_head().map_err(AnalysisError::NotAskable)?;
        let prepared = self.measured.read(model)?;
        let tokenizer = model.tokenizer().ok();
        let (set, tokens) = (&prepared.items.dataset, &prepared.items.tokens);
        let mut all = Vec::with_capacity(tokens.len());
        for (item, (ids, _)) in set.items.iter().zip(tokens) {
            let own = own::own(tokenizer, &item.prompt, ids);
            let own: Vec<usize> = own.iter().enumerate().filter(|(_, own)| **own).map(|(i, _)| i).collect();
            if own.len() < 2 {
                let why = "has fewer than two tokens of its own: there is nothing to rank";
                return Err(set.at(item.line, &item.id, "prompt").error(why).into());
            }
            all.push(own);
        }
        Ok(prepared.map(|prompts| Asked { prompts, own: all }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Vec<OfPrompt>, AnalysisError> {
        let longest = items.prompts.tokens.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
        let mask = Mask::of(runner, longest)?;
        let mut found = Vec::with_capacity(items.own.len());
        for some in batches(items.own.len(), self.masks as usize) {
            let attended = attended(runner, items, some.clone())?;
            let masked = self.masked(runner, items, &mask, some.clone())?;
            let scored: Vec<Scored> = attended
                .into_iter()
                .zip(masked)
                .map(|([attention, vatp], masked)| Scored {
                    whole: masked.whole,
                    nothing: masked.nothing,
                    scores: [attention, vatp, masked.occlusion, masked.rise],
                })
                .collect();
            found.extend(self.curves(runner, items, &mask, some, scored)?);
        }
        Ok(found)
    }

    fn tables(&self, about: &About, items: &Asked, measured: Vec<OfPrompt>) -> Result<Output, AnalysisError> {
        Ok(tables::tables(about, items, &measured)?.into())
    }
}

/// A prompt's masked runs, before they are read.
struct MaskedRuns {
    whole: Handle<f64>,
    nothing: Handle<f64>,
    /// One token masked.
    alone: Vec<Handle<f64>>,
    /// A random half of them: which are kept.
    halves: Vec<(Vec<bool>, Handle<f64>)>,
}

/// What masks say of a prompt.
struct Masked {
    whole: f64,
    nothing: f64,
    occlusion: Vec<f64>,
    rise: Vec<f64>,
}

/// A prompt with all rankings, not yet tested.
struct Scored {
    whole: f64,
    nothing: f64,
    scores: [Vec<f64>; 4],
}

/// What stands for masked tokens, position by position: the same in every prompt.
struct Mask {
    rows: Vec<Arc<[f32]>>,
    /// Whether they are all the same, as where positions are rotated and not added.
    same: bool,
}

impl Mask {
    fn of(runner: &dyn Runner, length: usize) -> Result<Mask, AnalysisError> {
        let decoder = &runner.model().decoder;
        if runner.is_counting() {
            // What is set costs the same whatever it is, and a model that is only described has no embedding to ask.
            let row: Arc<[f32]> = vec![0.0; decoder.arch.d_model].into();
            return Ok(Mask { rows: vec![row; length], same: true });
        }
        let failed = |e: candle_core::Error| AnalysisError::Failed(e.to_string());
        let positions: Vec<u32> = (0..length as u32).collect();
        let rows = decoder.embed_mean(&positions).and_then(|x| x.to_dtype(candle_core::DType::F32)?.to_vec2());
        let rows: Vec<Vec<f32>> = rows.map_err(failed)?;
        let same = rows.windows(2).all(|pair| pair[0] == pair[1]);
        Ok(Mask { rows: rows.into_iter().map(Arc::from).collect(), same })
    }

    /// A run of the prompt with these positions masked.
    fn fork(&self, plan: &mut Plan, prompt: Run, positions: &[usize]) -> Run {
        let edit = |positions: Vec<usize>, value: &Arc<[f32]>| Edit {
            site: SiteKind::Embed.at(0),
            part: Part::All,
            positions: Positions::At(positions),
            change: Change::Set(value.clone()),
        };
        let edits = match (positions, self.same) {
            ([], _) => Vec::new(),
            (some, true) => vec![edit(some.to_vec(), &self.rows[some[0]])],
            (some, false) => some.iter().map(|p| edit(vec![*p], &self.rows[*p])).collect(),
        };
        plan.fork(prompt, edits)
    }
}

/// The attention that each token is given by all heads and queries, a mean over heads, and that times the L1 norm of its value.
fn attended(runner: &dyn Runner, items: &Asked, some: Range<usize>) -> Result<Vec<[Vec<f64>; 2]>, AnalysisError> {
    let arch = &runner.model().decoder.arch;
    let layers: Vec<usize> =
        (0..arch.n_layers).filter(|layer| SiteKind::Pattern.at(*layer).check(arch).is_ok()).collect();
    let mut found = Vec::with_capacity(some.len());
    for i in some {
        let (ids, _) = &items.prompts.tokens[i];
        let n = ids.len();
        let mut plan = Plan::default();
        let run = plan.prompt(items.prompts.dataset.items[i].id.clone(), ids.clone());
        let asked: Vec<[Handle<Array>; 2]> = layers
            .iter()
            .map(|layer| {
                [SiteKind::Pattern.at(*layer), SiteKind::V.at(arch.keys_of(*layer))]
                    .map(|site| plan.read(run, Activation { site, positions: Positions::All, part: Part::All }))
            })
            .collect();
        let readings = runner.run(&plan)?;
        let (mut attention, mut vatp, mut heads) = (vec![0f64; n], vec![0f64; n], 0usize);
        for (layer, [pattern, values]) in layers.iter().zip(asked).filter(|_| !runner.is_counting()) {
            let Some(of) = arch.layers[*layer].mixer.heads() else { continue };
            let (d, values) = (of.d_value(), &readings[values]);
            let size = |j: usize, kv: usize| -> f64 {
                let row = &values.values[j * values.width()..];
                row[kv * d..(kv + 1) * d].iter().map(|x| f64::from(x.abs())).sum()
            };
            for row in readings[pattern].values.chunks_exact(of.n_heads * n) {
                for (head, weights) in row.chunks_exact(n).enumerate() {
                    let kv = head * of.n_kv_heads / of.n_heads;
                    for (j, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                        attention[j] += f64::from(*weight);
                        vatp[j] += f64::from(*weight) * size(j, kv);
                    }
                }
            }
            heads += of.n_heads;
        }
        let own = |all: Vec<f64>| items.own[i].iter().map(|j| all[*j] / heads.max(1) as f64).collect();
        found.push([own(attention), own(vatp)]);
    }
    Ok(found)
}

impl Importance {
    /// Every token masked by itself, and random halves of them.
    fn masked(
        &self,
        runner: &dyn Runner,
        items: &Asked,
        mask: &Mask,
        some: Range<usize>,
    ) -> Result<Vec<Masked>, AnalysisError> {
        let (mut plan, mut asked) = (Plan::default(), Vec::new());
        for i in some {
            let (ids, metric) = &items.prompts.tokens[i];
            let own = &items.own[i];
            let prompt = plan.prompt(items.prompts.dataset.items[i].id.clone(), ids.clone());
            let mut read = |positions: &[usize]| {
                let fork = mask.fork(&mut plan, prompt, positions);
                plan.read(fork, metric.clone())
            };
            let (whole, nothing) = (read(&[]), read(own));
            let alone: Vec<Handle<f64>> = own.iter().map(|p| read(&[*p])).collect();
            // All prompts of a length draw the same: what tells them apart is the prompts themselves.
            let mut rng = stats::rng(runner.seed(), &format!("importance.masks.{}", own.len()));
            let halves: Vec<(Vec<bool>, Handle<f64>)> = (0..self.masks)
                .map(|_| {
                    let kept: Vec<bool> = own.iter().map(|_| rng.random_bool(0.5)).collect();
                    let masked: Vec<usize> =
                        own.iter().zip(&kept).filter(|(_, kept)| !**kept).map(|(p, _)| *p).collect();
                    let handle = read(&masked);
                    (kept, handle)
                })
                .collect();
            asked.push(MaskedRuns { whole, nothing, alone, halves });
        }
        let readings = runner.run(&plan)?;
        let of = |asked: MaskedRuns| {
            let MaskedRuns { whole, nothing, alone, halves } = asked;
            let whole = readings[whole];
            let rise = |t: usize| -> f64 {
                let mean_of = |kept: bool| {
                    let of = halves.iter().filter(|(mask, _)| mask[t] == kept).map(|(_, handle)| readings[*handle]);
                    mean(&of.collect::<Vec<_>>()).unwrap_or(0.0)
                };
                mean_of(true) - mean_of(false)
            };
            Masked {
                whole,
                nothing: readings[nothing],
                rise: (0..alone.len()).map(rise).collect(),
                occlusion: alone.iter().map(|handle| whole - readings[*handle]).collect(),
            }
        };
        Ok(asked.into_iter().map(of).collect())
    }

    /// Tokens masked, and put back, in the order of each ranking and in random orders.
    fn curves(
        &self,
        runner: &dyn Runner,
        items: &Asked,
        mask: &Mask,
        some: Range<usize>,
        scored: Vec<Scored>,
    ) -> Result<Vec<OfPrompt>, AnalysisError> {
        let (mut plan, mut asked) = (Plan::default(), Vec::new());
        for (i, scored) in some.zip(&scored) {
            let (ids, metric) = &items.prompts.tokens[i];
            let own = &items.own[i];
            let prompt = plan.prompt(items.prompts.dataset.items[i].id.clone(), ids.clone());
            let mut orders: Vec<Vec<usize>> = scored.scores.iter().map(|scores| ranked(scores)).collect();
            for k in 0..self.random {
                let mut rng = stats::rng(runner.seed(), &format!("importance.random.{k}.{}", own.len()));
                let mut order: Vec<usize> = (0..own.len()).collect();
                order.shuffle(&mut rng);
                orders.push(order);
            }
            let mut of_order = |order: &Vec<usize>| -> [Vec<Handle<f64>>; 2] {
                [true, false].map(|deletion| {
                    // None and all are known.
                    (1..STEPS)
                        .map(|step| {
                            let k = own.len() * step / STEPS;
                            let (first, rest) = order.split_at(k);
                            let mut masked: Vec<usize> =
                                if deletion { first } else { rest }.iter().map(|t| own[*t]).collect();
                            masked.sort_unstable();
                            let fork = mask.fork(&mut plan, prompt, &masked);
                            plan.read(fork, metric.clone())
                        })
                        .collect()
                })
            };
            asked.push(orders.iter().map(&mut of_order).collect::<Vec<_>>());
        }
        let readings = runner.run(&plan)?;
        let curve = |scored: &Scored, deletion: bool, handles: &[Handle<f64>]| -> Vec<f64> {
            let (first, last) = if deletion { (scored.whole, scored.nothing) } else { (scored.nothing, scored.whole) };
            std::iter::once(first).chain(handles.iter().map(|handle| readings[*handle])).chain([last]).collect()
        };
        let of = |(scored, orders): (Scored, Vec<[Vec<Handle<f64>>; 2]>)| {
            let all: Vec<[Vec<f64>; 2]> = orders
                .iter()
                .map(|[deletion, insertion]| [curve(&scored, true, deletion), curve(&scored, false, insertion)])
                .collect();
            let (own, random) = all.split_at(METHODS.len());
            let average = |side: usize| -> Vec<f64> {
                (0..=STEPS)
                    .map(|s| mean(&random.iter().map(|c| c[side][s]).collect::<Vec<_>>()).unwrap_or(0.0))
                    .collect()
            };
            let mut curves = own.to_vec();
            curves.push([average(0), average(1)]);
            OfPrompt { scores: scored.scores, curves }
        };
        Ok(scored.into_iter().zip(asked).map(of).collect())
    }
}

/// Positions from the most important on; of equal ones the first first.
fn ranked(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order
}

/// The area under a curve of evenly spaced numbers, as their mean height.
fn area(curve: &[f64]) -> f64 {
    let n = curve.len().saturating_sub(1).max(1) as f64;
    curve.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_mean_heights_and_ranks_go_down() {
        assert_eq!(area(&[4.0, 2.0, 0.0]), 2.0);
        assert_eq!(area(&[1.0, 0.0, 0.0, 0.0, 0.0]), 0.125);
        assert_eq!(ranked(&[0.5, 2.0, 0.5, -1.0]), [1, 0, 2, 3]);
    }
}
