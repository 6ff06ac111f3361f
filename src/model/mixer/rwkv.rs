//! RWKV's time-mix: each projection reads a mixture of a position and the one before it (token shift). RWKV-4 then has a mean of
//! values by channel ([`ops::Wkv`]; Peng et al. 2023), RWKV-7 a delta rule by head whose decay, and how much it writes, depend on what
//! is read (Peng et al. 2025).
//!
//! RWKV-7 mixes the values of layer 0 into those of all later layers: they are lent to these ([`Lent`]).

use super::RecurrentWeights;
use super::recurrent::{sigmoid, spread, there, through};
use super::states::{States, Steps};
use crate::model::arch::Norm;
use crate::model::checkpoint::{Pick, Stored};
use crate::model::pass::{Acts, Around, Hook, Lent};
use crate::model::weights::form::Located;
use crate::model::weights::layout::{LayerLayout, NormSpec, Outputs};
use crate::ops::{self, NormBy, NormKind, Recurrence, Wkv};
use candle_core::{DType, Result, Tensor};

/// RWKV-7's mixer, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dynamic {
    pub heads: usize,
    pub d_head: usize,
    /// How many numbers the decay, how much is written, the gate, and how much of layer 0's values is taken, go through.
    pub ranks: [usize; 4],
    /// Of what each head gives.
    pub norm: Norm,
    /// Whether it is layer 0's, whose values the others read.
    pub first: bool,
}

/// What the narrow ways of RWKV-7 are called, in the order of [`Dynamic::ranks`].
const NARROW: [&str; 4] = ["w", "a", "g", "v"];

/// What its projections read a share of the previous position of: those of `r`, `k` and `v`, then the narrow ways' but that of values,
/// which reads what `v` does.
const SHARES: [&str; 6] = ["r", "k", "v", "w", "a", "g"];

/// Where each of these stands where all are stored in one tensor.
const FUSED: [usize; 6] = [0, 2, 3, 1, 4, 5];

impl Dynamic {
    pub(super) fn width(&self) -> usize {
        self.heads * self.d_head
    }

    pub(super) fn recurrence(&self) -> Recurrence {
        Recurrence { heads: self.heads, keys: self.d_head, values: self.d_head, delta: true }
    }

    /// The narrow ways that the layer has.
    fn ways(&self) -> usize {
        if self.first { 3 } else { 4 }
    }

    /// Numbers of all its narrow ways together.
    pub(super) fn narrow(&self) -> u64 {
        self.ranks[..self.ways()].iter().map(|n| *n as u64).sum()
    }

    pub(super) fn stored(&self, at: &LayerLayout) -> RecurrentWeights<Located> {
        let (names, d, width) = (&at.tensors.layer.recurrent, at.d_model, self.width());
        let (whole, fused) = (|name: &str| format!("{}{name}", names.prefix), names.fused_shares);
        let suffix = if fused.is_some() { ".weight" } else { "" };
        let numbers = |name: &str, shape: Vec<usize>| at.numbers(&(whole(name) + suffix), shape);
        let mut gates: Vec<_> = match fused {
            None => SHARES.iter().map(|of| numbers(&format!("x_{of}"), vec![1, 1, d])).collect(),
            Some(name) => {
                let pick = |i: usize| Pick::Flat(std::iter::once(i * d..(i + 1) * d).collect());
                let all = || at.numbers(name, vec![SHARES.len(), d]);
                FUSED.iter().map(|i| Stored { pick: pick(*i), ..all() }).collect()
            }
        };
        gates.extend(["k_k", "k_a"].map(|name| numbers(name, vec![width])));
        let by_head = if fused.is_some() { vec![width] } else { vec![self.heads, self.d_head] };
        gates.push(numbers("r_k", by_head));
        let ways = NARROW.iter().zip(self.ranks).take(self.ways());
        let narrow = ways.flat_map(|(of, rank)| {
            let name = |i: usize| match fused {
                None => whole(&format!("{of}_lora.lora.{}", 2 * (i - 1))),
                Some(_) => whole(&format!("{of}{i}")),
            };
            // The gate has no bias.
            let mut wide = at.linear(&name(2), rank, Outputs::whole(width), *of != "g");
            if fused.is_some() {
                wide.bias = wide.bias.map(|_| numbers(&format!("{of}0"), vec![width]));
            }
            [at.linear(&name(1), d, Outputs::whole(rank), false), wide]
        });
        RecurrentWeights {
            inputs: names.inputs[..3].iter().map(|name| at.linear(name, d, Outputs::whole(width), false)).collect(),
            gates,
            narrow: narrow.collect(),
            norm: Some(NormSpec { group: self.d_head, ..at.norm(names.norm, self.norm, width) }),
            ..RecurrentWeights::bare(at.linear(names.out, width, Outputs::whole(d), false))
        }
    }
}

/// Where RWKV-4's is stored.
pub(super) fn stored_wkv(width: usize, at: &LayerLayout) -> RecurrentWeights<Located> {
    let (names, d) = (&at.tensors.layer.recurrent, at.d_model);
    let share = |of: &str| at.numbers(&format!("{}time_mix_{of}", names.prefix), vec![1, 1, d]);
    RecurrentWeights {
        inputs: names.inputs[..3].iter().map(|name| at.linear(name, d, Outputs::whole(width), false)).collect(),
        gates: ["key", "value", "receptance"].map(share).into(),
        decay: Some(at.numbers(names.decay, vec![width])),
        skip: Some(at.numbers(names.skip, vec![width])),
        ..RecurrentWeights::bare(at.linear(names.out, width, Outputs::whole(d), false))
    }
}

/// Numbers as one row.
fn row(numbers: Option<&Tensor>) -> Result<Tensor> {
    there(numbers)?.flatten_all()?.unsqueeze(0)
}

impl RecurrentWeights {
    /// What it reads, and what it reads of the position before each.
    fn shifted(&self, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<[Tensor; 2]> {
        let x = around.read(acts)?;
        let all = hook.carry(around.layer, around.part(0), x.clone())?;
        let previous = ops::shifted(&all, &acts.rows)?;
        Ok([x, previous])
    }

    /// `z` of this dtype through the output projection.
    fn ended(
        &self,
        z: &Tensor,
        (dtype, heads): (DType, Option<usize>),
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        acts.put(around.z(), z.to_dtype(dtype)?);
        hook.at(around.z().at(around.layer), acts)?;
        super::projected(&self.out, heads, around, acts, hook)
    }

    /// RWKV-4's.
    pub(super) fn forward_wkv(&self, around: &Around, acts: &mut Acts, hook: &mut dyn Hook) -> Result<Tensor> {
        let [x, previous] = self.shifted(around, acts, hook)?;
        let read = |i: usize| -> Result<Tensor> {
            let share = row(self.gates.get(i))?.to_dtype(x.dtype())?;
            let mixed = (x.broadcast_mul(&share)? + previous.broadcast_mul(&(1.0 - &share)?)?)?;
            there(self.inputs.get(i))?.apply(&mixed)?.to_dtype(DType::F32)
        };
        let packed = Tensor::cat(&[&read(0)?, &read(1)?], 1)?;
        let of = Wkv::new(&there(self.decay.as_ref())?.exp()?.neg()?, there(self.skip.as_ref())?)?;
        let states = States { steps: Steps::Wkv(of), layer: around.layer, rows: &acts.rows };
        let given = states.through(&packed, hook)?;
        let z = (sigmoid(&read(2)?)? * given)?;
        self.ended(&z, (x.dtype(), None), around, acts, hook)
    }

    /// RWKV-7's.
    pub(super) fn forward_dynamic(
        &self,
        of: &Dynamic,
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let [x, previous] = self.shifted(around, acts, hook)?;
        let away = (&previous - &x)?;
        let mixed = |i: usize| &x + away.broadcast_mul(&row(self.gates.get(i))?.to_dtype(x.dtype())?)?;
        let project = |i: usize| through(there(self.inputs.get(i))?, &mixed(i)?);
        let narrow = |i: usize, share: usize, within: fn(&Tensor) -> Result<Tensor>| {
            let inner = within(&through(there(self.narrow.get(2 * i))?, &mixed(share)?)?)?;
            through(there(self.narrow.get(2 * i + 1))?, &inner)
        };
        let same = |x: &Tensor| Ok(x.clone());
        let (r, k, v) = (project(0)?, project(1)?, project(2)?);
        let decay = (sigmoid(&narrow(0, 3, Tensor::tanh)?)? * -(-0.5f64).exp())?.exp()?;
        let (rate, gate) = (sigmoid(&narrow(1, 4, same)?)?, narrow(2, 5, sigmoid)?);
        let lent = Lent::Values(0);
        let v = match of.first {
            true => v,
            false => (&v + ((acts.loans.get(lent)? - &v)? * sigmoid(&narrow(3, 2, same)?)?)?)?,
        };
        if of.first {
            acts.loans.lend(lent, v.clone());
        }
        let kept = ops::norm(
            &k.broadcast_mul(&row(self.gates.get(6))?)?,
            &Tensor::full((of.d_head as f32).powf(-0.5), of.d_head, k.device())?,
            None,
            NormBy { kind: NormKind::Rms, eps: 1e-24 / of.d_head as f64, group: of.d_head },
        )?;
        let k = (&k * ((&rate - 1.0)?.broadcast_mul(&row(self.gates.get(7))?)? + 1.0)?)?;
        let written = (&kept * &rate)?.neg()?;
        let packed = Tensor::cat(&[&r, &k, &decay, &written, &kept, &v], 1)?;
        // The goldens' layout has the numbers of a value together.
        let steps = Steps::Scan { of: of.recurrence(), by_value: true };
        let states = States { steps, layer: around.layer, rows: &acts.rows };
        let given = states.through(&packed.to_dtype(DType::F32)?, hook)?;
        let normed = there(self.norm.as_ref())?.apply(&given)?;
        let rows = x.dim(0)?;
        let bonus = (&r * &k)?.broadcast_mul(&row(self.gates.get(8))?)?.reshape((rows, of.heads, of.d_head))?.sum(2)?;
        let z = ((normed + (spread(&bonus, of.d_head)? * v)?)? * gate)?;
        self.ended(&z, (x.dtype(), Some(of.heads)), around, acts, hook)
    }
}
