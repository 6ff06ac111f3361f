//! Mixtures of experts: of many MLPs, each row goes through a few, which a router chooses, and perhaps through one that all share.
//!
//! Rows are grouped by expert, so that each expert's matrices are multiplied once a layer for all runs. A row's sum is taken in
//! the order of experts: its bits do not depend on which other rows there are.

use super::mlp::{Mlp, MlpWeights};
use crate::model::pass::{Acts, Hook};
use crate::model::weights::form::{Form, Loaded, Located, Translate};
use crate::model::weights::layout::{LayerLayout, LinearSpec, Outputs};
use crate::ops::{self, Activation};
use crate::site::{Lack, SiteKind, Units};
use candle_core::{D, DType, Result, Tensor};

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
pub(super) const INSIDE: [SiteKind; 3] = [SiteKind::Router, SiteKind::SharedOut, SiteKind::ExpertOut];

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

    /// The chosen experts of each row, the best first, and their weights: `[rows, chosen]` each, the weights in f32.
    fn choose(&self, logits: &Tensor, bias: Option<&Tensor>, chosen: usize) -> Result<(Vec<Vec<u32>>, Tensor)> {
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
        Ok((index, (weights * self.scale)?))
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
fn sparse(logits: &Tensor, chosen: usize, jitter: f64) -> Result<(Vec<Vec<u32>>, Tensor)> {
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
                f64::from((row[best] - row[i]) / factor) <= 2.0 * jitter
            };
            hidden.extend((0..row.len()).map(|i| if left.contains(&i) && near(i) { 0.0 } else { f32::NEG_INFINITY }));
            taken.push(best as u32);
        }
        let hidden = Tensor::from_vec(hidden, logits.dims2()?, logits.device())?;
        let last: Vec<u32> = index.iter().filter_map(|taken| taken.last().copied()).collect();
        let last = Tensor::from_vec(last, (rows.len(), 1), logits.device())?;
        weights.push(softmax(&(logits + hidden)?)?.contiguous()?.gather(&last, 1)?);
    }
    Ok((index, Tensor::cat(&weights, 1)?))
}

impl Experts {
    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        let why = "its layer has several experts in place of one MLP";
        match kind {
            SiteKind::SharedOut => {
                let lack = Lack { why: "its experts are all chosen, none is shared", nearest: SiteKind::ExpertOut };
                self.shared.is_none().then_some(lack)
            }
            kind if super::mlp::INSIDE.contains(&kind) => Some(Lack { why, nearest: SiteKind::ExpertOut }),
            _ => None,
        }
    }

    pub(super) fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        match kind {
            SiteKind::Router => Some(Units::Columns { width: self.n }),
            SiteKind::ExpertOut => Some(Units::Heads { n: self.n, width: d_model }),
            _ => None,
        }
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
            experts: (0..self.n).map(|e| self.expert(at, e)).collect(),
            shared,
            shared_gate: gate.then(|| at.linear(names.shared_gate, d, Outputs::whole(1), false)),
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
                    down: LinearSpec { weight: down, bias: None },
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
    pub shared: MlpWeights<crate::model::weights::form::Named>,
    pub shared_gate: &'static str,
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
    pub experts: Vec<MlpWeights<F>>,
    pub shared: Option<MlpWeights<F>>,
    pub shared_gate: Option<F::Matrix>,
}

impl<F: Form> ExpertsWeights<F> {
    pub(super) fn translate<G: Form, T: Translate<F, G>>(
        &self,
        to: &T,
    ) -> std::result::Result<ExpertsWeights<G>, T::Error> {
        Ok(ExpertsWeights {
            router: to.matrix(&self.router)?,
            choice_bias: to.numbers_if(&self.choice_bias)?,
            experts: self.experts.iter().map(|expert| expert.translate(to)).collect::<std::result::Result<_, _>>()?,
            shared: self.shared.as_ref().map(|shared| shared.translate(to)).transpose()?,
            shared_gate: to.matrix_if(&self.shared_gate)?,
        })
    }
}

impl ExpertsWeights {
    pub(super) fn forward(&self, of: &Experts, layer: usize, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        use SiteKind::*;
        // All stays live until the end: the hook may add rows at each site.
        acts.put(Router, self.router.apply(acts.get(MlpIn)?)?);
        hook.at(Router.at(layer), acts)?;
        if let Some(out) = self.shared_out(of, acts.get(MlpIn)?)? {
            acts.put(SharedOut, out);
            hook.at(SharedOut.at(layer), acts)?;
        }
        let logits = acts.take(Router)?;
        let (index, weights) = of.router.choose(&logits, self.choice_bias.as_ref(), of.chosen)?;
        let routed = match hook.wants(ExpertOut.at(layer)) {
            true => self.each_out(of, layer, (&index, &weights), acts, hook)?,
            false => {
                let (x, sum) =
                    (acts.get(MlpIn)?, |sum: Tensor, rows: &Tensor, out: &Tensor, _| sum.index_add(rows, out, 0));
                self.routed(of, x, (&index, &weights), Tensor::zeros(x.shape(), DType::F32, x.device())?, sum)?
            }
        };
        let routed = routed.to_dtype(acts.take(MlpIn)?.dtype())?;
        match self.shared {
            Some(_) => ops::add(&routed, &acts.take(SharedOut)?),
            None => Ok(routed),
        }
    }

    /// Goes through the experts in their order, each with the rows that chose it; `add` puts what it gives to the rest.
    fn routed(
        &self,
        of: &Experts,
        x: &Tensor,
        (index, weights): (&[Vec<u32>], &Tensor),
        mut sum: Tensor,
        add: impl Fn(Tensor, &Tensor, &Tensor, usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        for (e, expert) in self.experts.iter().enumerate() {
            let place = |chosen: &Vec<u32>| chosen.iter().position(|c| *c as usize == e);
            let (rows, places): (Vec<u32>, Vec<u32>) = index
                .iter()
                .enumerate()
                .filter_map(|(row, chosen)| Some((row as u32, (row * of.chosen + place(chosen)?) as u32)))
                .unzip();
            if rows.is_empty() {
                continue;
            }
            let (rows, places) = (Tensor::new(rows, x.device())?, Tensor::new(places, x.device())?);
            let weight = weights.flatten_all()?.index_select(&places, 0)?.unsqueeze(1)?;
            let mut read = x.index_select(&rows, 0)?;
            if of.weighs_input {
                read = read.broadcast_mul(&weight.to_dtype(read.dtype())?)?;
            }
            let mut out = expert.plain(&of.mlp, &read)?.to_dtype(DType::F32)?;
            if !of.weighs_input {
                out = out.broadcast_mul(&weight)?;
            }
            sum = add(sum, &rows, &out, e)?;
        }
        Ok(sum)
    }

    /// What each expert adds by itself, handed to the hook; its sum.
    fn each_out(
        &self,
        of: &Experts,
        layer: usize,
        chosen: (&[Vec<u32>], &Tensor),
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let x = acts.get(SiteKind::MlpIn)?;
        let (rows, d) = x.dims2()?;
        let all = Tensor::zeros((of.n * rows, d), DType::F32, x.device())?;
        let add = |all: Tensor, to: &Tensor, out: &Tensor, e: usize| all.index_add(&(to + (e * rows) as f64)?, out, 0);
        let all = self.routed(of, x, chosen, all, add)?.reshape((of.n, rows, d))?.transpose(0, 1)?;
        let all = all.contiguous()?.reshape((rows, of.n * d))?.to_dtype(x.dtype())?;
        acts.put(SiteKind::ExpertOut, all);
        hook.at(SiteKind::ExpertOut.at(layer), acts)?;
        let all = acts.take(SiteKind::ExpertOut)?;
        all.to_dtype(DType::F32)?.reshape((all.dim(0)?, of.n, d))?.sum(1)
    }

    /// What the shared expert adds.
    fn shared_out(&self, of: &Experts, x: &Tensor) -> Result<Option<Tensor>> {
        let (Some(shared), Some(weights)) = (of.shared, &self.shared) else { return Ok(None) };
        let out = weights.plain(&shared.mlp, x)?;
        match &self.shared_gate {
            Some(gate) => out.broadcast_mul(&ops::activate(&gate.apply(x)?, Activation::Sigmoid)?).map(Some),
            None => Ok(Some(out)),
        }
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
        let (index, weights) = router.choose(&logits, Some(&bias), 2)?;
        assert_eq!(index, [[2, 0]]);
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for (found, x) in weights.to_vec2::<f32>()?[0].iter().zip([-1.0, 0.0]) {
            assert!((found - 2.0 * sigmoid(x)).abs() < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn a_choice_that_no_model_has_is_refused() {
        let mlp = Mlp { width: 4, gated: true, activation: Activation::Silu, xielu: false, bias: false };
        let plain = Experts { n: 4, chosen: 2, mlp, router: Router::SOFTMAX, shared: None, weighs_input: false };
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
