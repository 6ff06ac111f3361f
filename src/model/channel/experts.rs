//! Mixtures of experts: of many MLPs, each row goes through a few, which a router chooses, and perhaps through one that all share.
//!
//! Rows are grouped by expert, so that each expert's matrices are multiplied once a layer for all runs. A row's sum is taken in
//! the order of experts: its bits do not depend on which other rows there are.

use super::Numbering;
use super::mlp::{Mlp, MlpWeights};
use crate::model::arch::Norm;
use crate::model::pass::{Acts, Hook};
use crate::model::weights::form::{Form, Loaded, Located, Named, Translate};
use crate::model::weights::layout::{LayerLayout, LinearSpec, Outputs};
use crate::model::weights::{Linear, NormWeights, Scales};
use crate::ops::{self, Activation, NormBy};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{D, DType, Result, Tensor};
use std::sync::Arc;

/// A mixture of experts, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// How many there are.
    pub n: usize,
    /// How many each row goes through.
    pub chosen: usize,
    /// Each of them.
    pub mlp: Mlp,
    pub router: Router,
    /// The one that every row goes through.
    pub shared: Option<Shared>,
    /// Whether the weight of an expert multiplies what it reads, not what it gives (Llama 4).
    pub weighs_input: bool,
    /// Experts and the one that all rows go through stand side by side, each between norms of this kind of its own (Gemma 4): the
    /// router and the chosen ones read the residual stream by theirs, and what the chosen give together goes through one, what the
    /// other gives through another. Each expert's weight is multiplied by a number of its own besides.
    pub apart: Option<Norm>,
}

/// An expert that all rows go through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shared {
    pub mlp: Mlp,
    /// Whether a number of the row's own, between 0 and 1, multiplies what it gives.
    pub gated: bool,
}

/// How experts are chosen and weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    pub scores: Scores,
    /// Whether the projection to the router's logits has a bias.
    pub bias: bool,
    /// Whether each expert has a bias that counts for the choice alone.
    pub choice_bias: bool,
    /// Whether the weights of the chosen are divided by their sum.
    pub renormalised: bool,
    /// What the weights are multiplied by.
    pub scale: f64,
    pub groups: Option<Groups>,
}

/// What the router makes of its logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// Their softmax over all experts.
    Softmax,
    /// Their softmax over the chosen ones.
    SoftmaxOfChosen,
    /// The sigmoid of each.
    Sigmoid,
    /// For each choice in turn, the softmax over those that are near the best of what is left (PhiMoE).
    Sparse { jitter: f64 },
}

/// Experts are chosen from the best groups of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups {
    pub n: usize,
    /// How many groups are chosen from.
    pub chosen: usize,
    /// How many of a group's best scores make up its own.
    pub best: usize,
}

/// Its sites between `mlp_in` and `mlp_out`.
pub(super) const INSIDE: [SiteKind; 4] = [SiteKind::Router, SiteKind::MlpAct, SiteKind::SharedOut, SiteKind::ExpertOut];

impl Router {
    /// Chosen by a softmax over all.
    pub const SOFTMAX: Router = Router {
        scores: Scores::Softmax,
        bias: false,
        choice_bias: false,
        renormalised: false,
        scale: 1.0,
        groups: None,
    };

    /// The experts that each row chooses.
    fn choose(&self, logits: &Tensor, bias: Option<&Tensor>, chosen: usize) -> Result<Chosen> {
        let logits = logits.to_dtype(DType::F32)?;
        if let Scores::Sparse { jitter } = self.scores {
            return sparse(&logits, chosen, jitter);
        }
        let scores = match self.scores {
            Scores::Softmax => softmax(&logits)?,
            Scores::Sigmoid => ops::activate(&logits, Activation::Sigmoid)?,
            _ => logits,
        };
        let ranked = match bias {
            Some(bias) => scores.broadcast_add(&bias.flatten_all()?)?,
            None => scores.clone(),
        };
        let rows: Vec<Vec<f32>> = ranked.detach().to_vec2()?;
        let index: Vec<Vec<u32>> = rows.iter().map(|row| self.best(row, chosen)).collect();
        let weights = scores.contiguous()?.gather(&Tensor::new(index.clone(), scores.device())?, 1)?;
        let weights = match self.scores {
            Scores::SoftmaxOfChosen => softmax(&weights)?,
            _ if self.renormalised => weights.broadcast_div(&(weights.sum_keepdim(1)? + 1e-20)?)?,
            _ => weights,
        };
        Ok(Chosen { index, weights: (weights * self.scale)? })
    }

    /// The best of a row's scores, of the best groups where there are groups; the best first, the first of equal ones first.
    fn best(&self, row: &[f32], chosen: usize) -> Vec<u32> {
        let allowed: Vec<usize> = match self.groups {
            None => (0..row.len()).collect(),
            Some(groups) => {
                let size = row.len() / groups.n;
                let score = |g: usize| -> f32 {
                    let of = &row[g * size..(g + 1) * size];
                    highest(&(0..size).collect::<Vec<_>>(), groups.best, |i| of[i]).into_iter().map(|i| of[i]).sum()
                };
                let mut kept = highest(&(0..groups.n).collect::<Vec<_>>(), groups.chosen, score);
                kept.sort_unstable();
                kept.into_iter().flat_map(|g| g * size..(g + 1) * size).collect()
            }
        };
        highest(&allowed, chosen, |i| row[i]).into_iter().map(|i| i as u32).collect()
    }
}

/// Those of the highest scores, the highest first, of equal ones the first first.
fn highest(of: &[usize], n: usize, score: impl Fn(usize) -> f32) -> Vec<usize> {
    let mut scored: Vec<(f32, usize)> = of.iter().map(|i| (score(*i), *i)).collect();
    scored.sort_by(|(a, i), (b, j)| b.total_cmp(a).then(i.cmp(j)));
    scored.into_iter().take(n).map(|(_, i)| i).collect()
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
}

/// The choice of PhiMoE ("sparsemixer"): each of the chosen is the best of those left, its weight its softmax over those left
/// that are within twice the jitter of it, relative to their own size.
fn sparse(logits: &Tensor, chosen: usize, jitter: f64) -> Result<Chosen> {
    let rows: Vec<Vec<f32>> = logits.to_vec2()?;
    let mut index: Vec<Vec<u32>> = vec![Vec::new(); rows.len()];
    let mut weights = Vec::new();
    for _ in 0..chosen {
        let mut hidden: Vec<f32> = Vec::new();
        for (row, taken) in rows.iter().zip(&mut index) {
            let left: Vec<usize> = (0..row.len()).filter(|i| !taken.contains(&(*i as u32))).collect();
            let Some(best) = highest(&left, 1, |i| row[i]).first().copied() else { continue };
            let near = |i: usize| {
                let factor = row[i].abs().max(row[best]);
                // What is as good as the best is near it, also where both are 0 and so is the factor.
                row[i] == row[best] || f64::from((row[best] - row[i]) / factor) <= 2.0 * jitter
            };
            hidden.extend((0..row.len()).map(|i| if left.contains(&i) && near(i) { 0.0 } else { f32::NEG_INFINITY }));
            taken.push(best as u32);
        }
        let hidden = Tensor::from_vec(hidden, logits.dims2()?, logits.device())?;
        let last: Vec<u32> = index.iter().filter_map(|taken| taken.last().copied()).collect();
        let last = Tensor::from_vec(last, (rows.len(), 1), logits.device())?;
        weights.push(softmax(&(logits + hidden)?)?.contiguous()?.gather(&last, 1)?);
    }
    Ok(Chosen { index, weights: Tensor::cat(&weights, 1)? })
}

/// The experts that rows chose.
struct Chosen {
    /// Those of each row, the best first. `[rows][chosen]`
    index: Vec<Vec<u32>>,
    /// Their weights, in f32. `[rows, chosen]`
    weights: Tensor,
}

impl Chosen {
    /// The rows that chose an expert, and where its weight stands among all.
    fn rows(&self, e: usize) -> (Vec<u32>, Vec<u32>) {
        let place = |chosen: &Vec<u32>| Some(chosen.iter().position(|c| *c as usize == e)? as u32);
        let of = |(row, chosen): (usize, &Vec<u32>)| Some((row as u32, (row * chosen.len()) as u32 + place(chosen)?));
        self.index.iter().enumerate().filter_map(of).unzip()
    }

    /// The experts that rows chose, in their order.
    fn at_work(&self, of: &Experts) -> Vec<AtWork> {
        let one = |expert: usize| {
            let (rows, places) = self.rows(expert);
            AtWork { expert, rows, places }
        };
        (0..of.n).map(one).filter(|work| !work.rows.is_empty()).collect()
    }

    /// What rows that chose an expert weigh what it gives by. `[rows, 1]`
    fn weights(&self, places: Vec<u32>) -> Result<Tensor> {
        let places = Tensor::new(places, self.weights.device())?;
        self.weights.flatten_all()?.index_select(&places, 0)?.unsqueeze(1)
    }

    /// What each row weighs what each expert gives by: 0 where it did not choose it. `[rows, experts]`
    fn by_expert(&self, of: &Experts) -> Result<Tensor> {
        let weights = if of.weighs_input { self.weights.ones_like()? } else { self.weights.clone() };
        // The first stands for all experts that were not chosen.
        let weights = Tensor::cat(&[Tensor::zeros(1, DType::F32, weights.device())?, weights.flatten_all()?], 0)?;
        let mut at = vec![0u32; self.index.len() * of.n];
        let mut place = 0;
        for (row, chosen) in self.index.iter().enumerate() {
            for e in chosen {
                place += 1;
                at[row * of.n + *e as usize] = place;
            }
        }
        weights.index_select(&Tensor::new(at, weights.device())?, 0)?.reshape((self.index.len(), of.n))
    }
}

/// An expert that rows go through.
struct AtWork {
    expert: usize,
    rows: Vec<u32>,
    /// Where its weight stands among all, of each row that chose it.
    places: Vec<u32>,
}

impl Experts {
    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        let why = "its layer has several experts in place of one MLP";
        match kind {
            SiteKind::SharedOut => {
                let lack = Lack { why: "its experts are all chosen, none is shared", nearest: SiteKind::ExpertOut };
                self.shared.is_none().then_some(lack)
            }
            SiteKind::MlpAct if self.apart.is_some() => {
                let why = "what its experts give goes through norms of its own, so that no neuron adds by itself";
                Some(Lack { why, nearest: SiteKind::ExpertOut })
            }
            SiteKind::MlpGate | SiteKind::MlpPre if self.apart.is_some() => {
                Some(Lack { why, nearest: SiteKind::ExpertOut })
            }
            SiteKind::MlpGate | SiteKind::MlpPre => Some(Lack { why, nearest: SiteKind::MlpAct }),
            _ => None,
        }
    }

    pub(super) fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        match kind {
            SiteKind::Router => Some(Units::Columns { width: self.n }),
            SiteKind::MlpAct => Some(Units::Columns { width: self.neurons().total() }),
            SiteKind::ExpertOut => Some(Units::Heads { n: self.n, width: d_model }),
            _ => None,
        }
    }

    pub(super) fn neurons(&self) -> Numbering {
        Numbering { common: self.shared_width(), experts: self.n, of_each: self.mlp.width }
    }

    /// What an expert reads of rows that chose it with a weight. `[rows, d_model]`
    fn read(&self, x: &Tensor, rows: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let read = x.index_select(rows, 0)?;
        if self.weighs_input { read.broadcast_mul(&weight.to_dtype(read.dtype())?) } else { Ok(read) }
    }

    /// How many neurons the expert has that all rows go through.
    fn shared_width(&self) -> usize {
        self.shared.map_or(0, |shared| shared.mlp.width)
    }

    /// Weights that a row is multiplied with.
    pub(super) fn active_params(&self, d_model: usize) -> u64 {
        let shared = self.shared.map_or(0, |shared| shared.mlp.params(d_model));
        self.chosen as u64 * self.mlp.params(d_model) + shared + (self.n * d_model) as u64
    }

    /// All weights.
    pub(super) fn params(&self, d_model: usize) -> u64 {
        self.active_params(d_model) + (self.n - self.chosen.min(self.n)) as u64 * self.mlp.params(d_model)
    }

    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let Experts { n, chosen, router, .. } = self;
        if self.apart.is_some() && self.shared.is_none() {
            return Err("experts cannot stand apart from an MLP that is not there".to_string());
        }
        if *n == 0 || *n > 1 << 14 || *chosen == 0 || chosen > n {
            return Err(format!("{chosen} of {n} experts is no choice"));
        }
        match router.groups {
            Some(g) if g.n == 0 || !n.is_multiple_of(g.n) || g.chosen == 0 || g.chosen > g.n || g.best > n / g.n => {
                Err(format!("{} of {} groups do not fit {n} experts", g.chosen, g.n))
            }
            Some(g) if n / g.n * g.chosen < *chosen => {
                Err(format!("{} groups of {} hold no {chosen} experts", g.chosen, n / g.n))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> ExpertsWeights<Located> {
        let (names, d) = (&at.tensors.layer.experts, at.d_model);
        let shared = self.shared.map(|shared| shared.mlp.named(&names.shared, at));
        let gate = self.shared.is_some_and(|shared| shared.gated);
        ExpertsWeights {
            router: at.linear(names.router, d, Outputs::whole(self.n), self.router.bias),
            choice_bias: self.router.choice_bias.then(|| at.numbers(names.choice_bias, self.choice_bias_shape(at))),
            experts: Arc::new((0..self.n).map(|e| self.expert(at, e)).collect()),
            shared,
            shared_gate: gate.then(|| at.linear(names.shared_gate, d, Outputs::whole(1), false)),
            apart: self.apart.zip(names.apart.as_ref()).map(|(norm, names)| ApartWeights {
                read: at.norm(names.read, norm, d),
                router: at.numbers(names.router, vec![d]),
                each: at.numbers(names.each, vec![self.n]),
                routed: at.norm(names.routed, norm, d),
                shared: at.norm(names.shared, norm, d),
            }),
        }
    }

    fn choice_bias_shape(&self, at: &LayerLayout) -> Vec<usize> {
        if at.tensors.layer.experts.choice_bias_in_rows { vec![1, self.n] } else { vec![self.n] }
    }

    /// Where one expert is stored.
    fn expert(&self, at: &LayerLayout, e: usize) -> MlpWeights<Located> {
        let (d, m) = (at.d_model, self.mlp.width);
        let stack = |name, rows, inputs, part, bias| at.in_stack(name, [self.n, rows, inputs], e, part, bias);
        match at.tensors.layer.experts.stored {
            StoredExperts::Each { gate, up, down } => {
                let name = |part: &str| at.tensors.layer.experts.each.replace("{e}", &e.to_string()) + part;
                let linear = |part: &str, inputs: usize, outputs: usize| {
                    at.linear(&name(part), inputs, Outputs::whole(outputs), self.mlp.bias)
                };
                MlpWeights {
                    gate: self.mlp.gated.then(|| linear(gate, d, m)),
                    up: linear(up, d, m),
                    down: linear(down, m, d),
                    xielu: None,
                }
            }
            StoredExperts::Stacked { gate_up, down } => MlpWeights {
                gate: Some(stack(gate_up, 2 * m, d, Part::Rows(0..m), self.mlp.bias)),
                up: stack(gate_up, 2 * m, d, Part::Rows(m..2 * m), self.mlp.bias),
                down: stack(down, d, m, Part::Rows(0..d), self.mlp.bias),
                xielu: None,
            },
            StoredExperts::Stacks { gate, up, down } => MlpWeights {
                gate: self.mlp.gated.then(|| stack(gate, m, d, Part::Rows(0..m), self.mlp.bias)),
                up: stack(up, m, d, Part::Rows(0..m), self.mlp.bias),
                down: stack(down, d, m, Part::Rows(0..d), self.mlp.bias),
                xielu: None,
            },
            StoredExperts::Turned { gate_up, down, interleaved } => {
                let half = |half: usize| match interleaved {
                    true => Part::Columns((0..m).map(|i| 2 * i + half..2 * i + half + 1).collect()),
                    false => Part::Columns(vec![half * m..(half + 1) * m]),
                };
                MlpWeights {
                    gate: Some(stack(gate_up, d, 2 * m, half(0), self.mlp.bias)),
                    up: stack(gate_up, d, 2 * m, half(1), self.mlp.bias),
                    down: stack(down, m, d, Part::Columns(std::iter::once(0..d).collect()), self.mlp.bias),
                    xielu: None,
                }
            }
            StoredExperts::Flat { gate, up, down } => {
                let rows = Outputs::of(self.n * m, e * m..(e + 1) * m);
                let of = |name| at.plain(name, d, Outputs { stored: rows.stored, rows: rows.rows.clone() });
                let down = at.turned(down, [self.n * m, d], e * m..(e + 1) * m);
                MlpWeights {
                    gate: Some(of(gate)),
                    up: of(up),
                    down: LinearSpec { weight: down, bias: None, scales: Scales::default(), more: None },
                    xielu: None,
                }
            }
        }
    }
}

/// Which part of one expert's matrix in a stack is meant.
pub(in crate::model) enum Part {
    /// Rows of a matrix that is stored as `[out, in]`.
    Rows(std::ops::Range<usize>),
    /// Columns of one that is stored as `[in, out]`.
    Columns(Vec<std::ops::Range<usize>>),
}

/// What the tensors of experts are called, and how they are stored.
pub(crate) struct ExpertNames {
    pub router: &'static str,
    pub choice_bias: &'static str,
    /// Whether that bias is stored as one row.
    pub choice_bias_in_rows: bool,
    /// What stands before the parts of one expert, `{e}` for its number.
    pub each: &'static str,
    pub stored: StoredExperts,
    pub shared: MlpWeights<Named>,
    pub shared_gate: &'static str,
    /// Of those that stand apart.
    pub apart: Option<ApartWeights<Named>>,
}

/// How the matrices of experts are stored.
#[derive(Clone, Copy)]
pub(crate) enum StoredExperts {
    /// In tensors of their own, under these names after the expert's.
    Each { gate: &'static str, up: &'static str, down: &'static str },
    /// In stacks `[experts, out, in]`, gates before ups.
    Stacked { gate_up: &'static str, down: &'static str },
    /// In stacks `[experts, out, in]` of gates, of ups and of downs; these are whole names.
    Stacks { gate: &'static str, up: &'static str, down: &'static str },
    /// In stacks `[experts, in, out]`, gates before ups, or one of each in turn.
    Turned { gate_up: &'static str, down: &'static str, interleaved: bool },
    /// One below another `[experts * width, d_model]`, the last of them turned (DBRX).
    Flat { gate: &'static str, up: &'static str, down: &'static str },
}

/// The parts of a mixture of experts.
pub struct ExpertsWeights<F: Form = Loaded> {
    pub router: F::Matrix,
    pub choice_bias: Option<F::Numbers>,
    pub experts: F::Experts,
    pub shared: Option<MlpWeights<F>>,
    pub shared_gate: Option<F::Matrix>,
    pub apart: Option<ApartWeights<F>>,
}

/// What stands between the residual stream and experts that stand apart ([`Experts::apart`]).
pub struct ApartWeights<F: Form = Loaded> {
    /// The norm of what the experts read.
    pub read: F::Norm,
    /// What the router reads is multiplied by, after a norm without parameters. `[d_model]`
    pub router: F::Numbers,
    /// What each expert's weight is multiplied by. `[experts]`
    pub each: F::Numbers,
    /// The norm of what the chosen experts give together.
    pub routed: F::Norm,
    /// The norm of what the one that all rows go through gives.
    pub shared: F::Norm,
}

impl<F: Form> ApartWeights<F> {
    fn translate<G: Form, T: Translate<F, G>>(&self, to: &T) -> std::result::Result<ApartWeights<G>, T::Error> {
        Ok(ApartWeights {
            read: to.norm(&self.read)?,
            router: to.numbers(&self.router)?,
            each: to.numbers(&self.each)?,
            routed: to.norm(&self.routed)?,
            shared: to.norm(&self.shared)?,
        })
    }
}

impl ApartWeights {
    /// What the router reads of the residual stream. `[rows, d_model]`
    fn read_by_router(&self, resid: &Tensor, norm: Norm) -> Result<Tensor> {
        let d = resid.dim(1)?;
        let by = NormBy { kind: norm.kind, eps: norm.eps, group: d };
        let weight = (&self.router * (d as f64).powf(-0.5))?;
        NormWeights { weight, bias: None, by }.apply(resid)
    }

    /// The weights of the chosen experts, `[rows, chosen]`, each by its expert's number.
    fn weighed(&self, index: &[Vec<u32>], weights: &Tensor) -> Result<Tensor> {
        let index = Tensor::new(index.concat(), weights.device())?;
        weights * self.each.index_select(&index, 0)?.reshape(weights.shape())?
    }
}

impl<F: Form> ExpertsWeights<F> {
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<ExpertsWeights<G>, T::Error> {
        Ok(ExpertsWeights {
            router: to.matrix(&self.router)?,
            choice_bias: to.numbers_if(&self.choice_bias)?,
            experts: to.experts(&self.experts)?,
            shared: self.shared.as_ref().map(|shared| shared.translate(to)).transpose()?,
            shared_gate: to.matrix_if(&self.shared_gate)?,
            apart: self.apart.as_ref().map(|apart| apart.translate(to)).transpose()?,
        })
    }
}

impl ExpertsWeights {
    pub(super) fn forward(&self, of: &Experts, layer: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        use SiteKind::*;
        // All stays live until the end: the hook may add rows at each site.
        let logits = match self.apart.as_ref().zip(of.apart) {
            Some((apart, norm)) => self.router.apply(&apart.read_by_router(acts.get(ResidMid)?, norm)?)?,
            None => self.router.apply(acts.get(MlpIn)?)?,
        };
        acts.put(Router, logits);
        hook.at(Router.at(layer), acts)?;
        let told_apart = hook.wants(MlpAct.at(layer));
        if told_apart {
            acts.put(MlpAct, self.neurons(of, acts)?);
            hook.at(MlpAct.at(layer), acts)?;
        }
        if let Some(out) = self.shared_out(of, acts)? {
            acts.put(SharedOut, out);
            hook.at(SharedOut.at(layer), acts)?;
        }
        let routed = match hook.wants(ExpertOut.at(layer)) {
            true => self.each_out(of, layer, acts, hook)?,
            false => {
                let x = acts.get(MlpIn)?;
                let sum = |sum: Tensor, rows: &Tensor, out: &Tensor, _| sum.index_add(rows, out, 0);
                self.routed(of, acts, Tensor::zeros(x.shape(), DType::F32, x.device())?, sum)?
            }
        };
        acts.take(Router)?;
        if told_apart {
            acts.take(MlpAct)?;
        }
        let routed = routed.to_dtype(acts.take(MlpIn)?.dtype())?;
        let routed = match &self.apart {
            Some(apart) => apart.routed.apply(&routed)?,
            None => routed,
        };
        match self.shared {
            Some(_) => ops::add(&routed, &acts.take(SharedOut)?),
            None => Ok(routed),
        }
    }

    /// What the experts read that are chosen from. `[rows, d_model]`
    fn read(&self, acts: &Acts) -> Result<Tensor> {
        match &self.apart {
            Some(apart) => apart.read.apply(acts.get(SiteKind::ResidMid)?),
            None => acts.get(SiteKind::MlpIn).cloned(),
        }
    }

    /// What rows choose by what their `router` is now.
    fn chosen(&self, of: &Experts, acts: &Acts) -> Result<Chosen> {
        let chosen = of.router.choose(acts.get(SiteKind::Router)?, self.choice_bias.as_ref(), of.chosen)?;
        match &self.apart {
            Some(apart) => Ok(Chosen { weights: apart.weighed(&chosen.index, &chosen.weights)?, ..chosen }),
            None => Ok(chosen),
        }
    }

    /// Goes through the experts in their order, each with the rows that chose it; `add` puts what it gives to the rest. Where their
    /// neurons are told apart, it is what these write, also in rows where an edit alone has set them.
    fn routed(
        &self,
        of: &Experts,
        acts: &Acts,
        mut sum: Tensor,
        add: impl Fn(Tensor, &Tensor, &Tensor, usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (x, chosen) = (self.read(acts)?, self.chosen(of, acts)?);
        let written = match acts.get(SiteKind::MlpAct) {
            Ok(act) => Some(Written::of(act, of, &chosen)?),
            Err(_) => None,
        };
        let work = written.as_ref().map_or_else(|| chosen.at_work(of), Written::at_work);
        self.ask(&work);
        for AtWork { expert: e, rows, places } in work {
            let (expert, rows) = (self.experts.get(e)?, Tensor::new(rows, x.device())?);
            let out = match &written {
                Some(written) => written.out(e, &rows, &expert.down)?,
                None => {
                    let weight = chosen.weights(places)?;
                    let out = expert.plain(&of.mlp, &of.read(&x, &rows, &weight)?)?.to_dtype(DType::F32)?;
                    if of.weighs_input { out } else { out.broadcast_mul(&weight)? }
                }
            };
            sum = add(sum, &rows, &out, e)?;
        }
        Ok(sum)
    }

    /// Begins to read the experts that are at work, where they are not in memory.
    fn ask(&self, work: &[AtWork]) {
        self.experts.ask(work.iter().map(|work| work.expert));
    }

    /// What each expert adds by itself, handed to the hook; its sum.
    fn each_out(&self, of: &Experts, layer: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        let x = self.read(acts)?;
        let ((rows, d), dtype) = (x.dims2()?, x.dtype());
        let all = Tensor::zeros((of.n * rows, d), DType::F32, x.device())?;
        let add = |all: Tensor, to: &Tensor, out: &Tensor, e: usize| all.index_add(&(to + (e * rows) as f64)?, out, 0);
        let all = self.routed(of, acts, all, add)?.reshape((of.n, rows, d))?.transpose(0, 1)?;
        let all = all.contiguous()?.reshape((rows, of.n * d))?.to_dtype(dtype)?;
        acts.put(SiteKind::ExpertOut, all);
        hook.at(SiteKind::ExpertOut.at(layer), acts)?;
        let all = acts.take(SiteKind::ExpertOut)?;
        all.to_dtype(DType::F32)?.reshape((all.dim(0)?, of.n, d))?.sum(1)
    }

    /// All neurons, by what their experts' outputs are weighed by. `[rows, neurons]`
    fn neurons(&self, of: &Experts, acts: &Acts) -> Result<Tensor> {
        let (x, chosen) = (acts.get(SiteKind::MlpIn)?, self.chosen(of, acts)?);
        let (rows, width) = (x.dim(0)?, of.mlp.width);
        // The first row stands for all experts that were not chosen.
        let mut parts = vec![Tensor::zeros((1, width), x.dtype(), x.device())?];
        let (mut at, mut next) = (vec![0u32; rows * of.n], 1);
        let work = chosen.at_work(of);
        self.ask(&work);
        for AtWork { expert: e, rows, places } in work {
            for row in &rows {
                at[*row as usize * of.n + e] = next;
                next += 1;
            }
            let (expert, weight) = (self.experts.get(e)?, chosen.weights(places)?);
            let act = expert.neurons(&of.mlp, &of.read(x, &Tensor::new(rows, x.device())?, &weight)?)?;
            parts.push(match of.weighs_input {
                true => act,
                false => act.to_dtype(DType::F32)?.broadcast_mul(&weight)?.to_dtype(x.dtype())?,
            });
        }
        let routed = Tensor::cat(&parts, 0)?.index_select(&Tensor::new(at, x.device())?, 0)?;
        let routed = routed.reshape((rows, of.n * width))?;
        let (Some(shared), Some(weights)) = (of.shared, &self.shared) else { return Ok(routed) };
        let common = by(weights.neurons(&shared.mlp, x)?, self.gate_of_shared(x)?)?;
        Tensor::cat(&[common, routed], 1)
    }

    /// What the shared expert adds, or its neurons write where they are told apart.
    fn shared_out(&self, of: &Experts, acts: &Acts) -> Result<Option<Tensor>> {
        let (Some(shared), Some(weights)) = (of.shared, &self.shared) else { return Ok(None) };
        let x = acts.get(SiteKind::MlpIn)?;
        let gate = self.gate_of_shared(x)?;
        let Ok(act) = acts.get(SiteKind::MlpAct) else {
            let out = weights.plain(&shared.mlp, x)?;
            let out = match &self.apart {
                Some(apart) => apart.shared.apply(&out)?,
                None => out,
            };
            return by(out, gate).map(Some);
        };
        let out = weights.down.weight.product(&act.narrow(1, 0, shared.mlp.width)?.contiguous()?)?;
        match &weights.down.bias {
            Some(bias) => {
                let bias = bias.to_dtype(out.dtype())?.unsqueeze(0)?.broadcast_as(out.shape())?;
                ops::add(&out, &by(bias, gate)?).map(Some)
            }
            None => Ok(Some(out)),
        }
    }

    /// What the shared expert's output is multiplied by, if by anything. `[rows, 1]`
    fn gate_of_shared(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let gate = self.shared_gate.as_ref();
        gate.map(|gate| ops::activate(&gate.apply(x)?, Activation::Sigmoid)).transpose()
    }
}

/// `x`, multiplied by a gate if there is one.
fn by(x: Tensor, gate: Option<Tensor>) -> Result<Tensor> {
    match gate {
        Some(gate) => x.broadcast_mul(&gate),
        None => Ok(x),
    }
}

/// What the experts' neurons write.
struct Written<'a> {
    /// `[rows, neurons]`
    act: &'a Tensor,
    of: &'a Experts,
    /// The rows in which each expert's neurons write, in all where gradients are wanted: an edit there would write, too.
    rows: Vec<Vec<u32>>,
    /// What each row weighs each expert's bias by, if it has one: that is none of its neurons'. `[rows, experts]`
    weights: Option<Tensor>,
}

impl<'a> Written<'a> {
    fn of(act: &'a Tensor, of: &'a Experts, chosen: &Chosen) -> Result<Self> {
        let n = act.dim(0)?;
        let weights = of.mlp.bias.then(|| chosen.by_expert(of)).transpose()?;
        if act.track_op() {
            return Ok(Written { act, of, rows: vec![(0..n as u32).collect(); of.n], weights });
        }
        let routed = act.narrow(1, of.shared_width(), of.n * of.mlp.width)?.reshape((n * of.n, of.mlp.width))?;
        let largest = ops::to_vec(&routed.abs()?.max(1)?)?;
        let writes = |row: usize, e: usize| chosen.index[row].contains(&(e as u32)) || largest[row * of.n + e] != 0.0;
        let rows = |e: usize| (0..n).filter(|row| writes(*row, e)).map(|row| row as u32).collect();
        Ok(Written { act, of, rows: (0..of.n).map(rows).collect(), weights })
    }

    /// The experts whose neurons write.
    fn at_work(&self) -> Vec<AtWork> {
        let each = self.rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        each.map(|(expert, rows)| AtWork { expert, rows: rows.clone(), places: Vec::new() }).collect()
    }

    /// What one expert's write in some rows, in f32, with its bias. `[rows, d_model]`
    fn out(&self, e: usize, rows: &Tensor, down: &Linear) -> Result<Tensor> {
        let width = self.of.mlp.width;
        let own = self.act.narrow(1, self.of.shared_width() + e * width, width)?.contiguous()?.index_select(rows, 0)?;
        let out = down.weight.product(&own)?.to_dtype(DType::F32)?;
        let (Some(bias), Some(weights)) = (&down.bias, &self.weights) else { return Ok(out) };
        let weights = weights.narrow(1, e, 1)?.contiguous()?.index_select(rows, 0)?;
        out + weights.broadcast_mul(&bias.to_dtype(DType::F32)?.unsqueeze(0)?)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_best_groups_alone_are_chosen_from() {
        let groups = Some(Groups { n: 3, chosen: 1, best: 2 });
        let router = Router { groups, ..Router::SOFTMAX };
        // The best one is in the first group, the best two together are in the last.
        assert_eq!(router.best(&[9.0, 0.0, 1.0, 2.0, 5.0, 6.0], 2), [5, 4]);
        assert_eq!(Router::SOFTMAX.best(&[9.0, 0.0, 1.0, 2.0, 5.0, 6.0], 2), [0, 5]);
        assert_eq!(Router::SOFTMAX.best(&[1.0, 1.0, 1.0], 2), [0, 1]);
    }

    #[test]
    fn a_bias_of_the_choice_does_not_weigh() -> Result<()> {
        let logits = Tensor::new(&[[0f32, 1.0, -1.0]], &Device::Cpu)?;
        let bias = Tensor::new(&[0f32, -9.0, 9.0], &Device::Cpu)?;
        let router = Router { scores: Scores::Sigmoid, choice_bias: true, scale: 2.0, ..Router::SOFTMAX };
        let Chosen { index, weights } = router.choose(&logits, Some(&bias), 2)?;
        assert_eq!(index, [[2, 0]]);
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for (found, x) in weights.to_vec2::<f32>()?[0].iter().zip([-1.0, 0.0]) {
            assert!((found - 2.0 * sigmoid(x)).abs() < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn where_no_expert_is_better_all_are_near_the_best() -> Result<()> {
        let Chosen { index, weights } = sparse(&Tensor::zeros((1, 4), DType::F32, &Device::Cpu)?, 2, 0.01)?;
        assert_eq!(index, [[0, 1]]);
        let found = weights.to_vec2::<f32>()?;
        assert!((found[0][0] - 0.25).abs() < 1e-6 && (found[0][1] - 1.0 / 3.0).abs() < 1e-6, "{found:?}");
        Ok(())
    }

    #[test]
    fn a_choice_that_no_model_has_is_refused() {
        let mlp = Mlp { width: 4, gated: true, activation: Activation::Silu, xielu: false, cut: None, bias: false };
        let plain =
            Experts { n: 4, chosen: 2, mlp, router: Router::SOFTMAX, shared: None, weighs_input: false, apart: None };
        assert_eq!(plain.check(), Ok(()));
        assert!(Experts { chosen: 5, ..plain }.check().is_err());
        let of = |n, chosen, best| Experts {
            router: Router { groups: Some(Groups { n, chosen, best }), ..Router::SOFTMAX },
            ..plain
        };
        assert_eq!(of(2, 1, 2).check(), Ok(()));
        assert!(of(3, 1, 1).check().is_err() && of(4, 1, 1).check().is_err() && of(2, 3, 1).check().is_err());
    }
}
