//! What a plan can read of a run, and the handles by which its readings are found again.

use super::{Alignment, Array, Part, Positions, Reading, Run};
use crate::site::Site;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A number for a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// `logsumexp(answer logits) - logsumexp(foil logits)` at the last position. Nats.
    LogitDifference { answer: Vec<u32>, foil: Vec<u32> },
    /// `logsumexp(the tokens' logits) - mean logit` at the last position, the mean over the vocabulary. Nats. A logit difference
    /// is the difference of two of these, its halves: which of them an edit moves, the difference does not say. Where logits
    /// are soft-capped, the mean is over 1,024 tokens that are the same in every run (the whole vocabulary, if it is smaller):
    /// it would need all logits otherwise, and any constant that runs share keeps the difference.
    AboveMean { tokens: Vec<u32> },
    /// The log-probability of the prompt's own tokens from position `from` on, each given those before it. Nats.
    Continuation { from: usize },
}

impl Metric {
    /// The logit difference between sets of tokens.
    pub fn logit_difference(answer: Vec<u32>, foil: Vec<u32>) -> Self {
        Metric::LogitDifference { answer, foil }
    }

    /// The answer's half of a logit difference; the foil's is this less the difference. None of any other metric.
    pub fn answer_half(&self) -> Option<Metric> {
        match self {
            Metric::LogitDifference { answer, .. } => Some(Metric::AboveMean { tokens: answer.clone() }),
            Metric::AboveMean { .. } | Metric::Continuation { .. } => None,
        }
    }
}

/// A site's value, `[positions, part]`; for `scores` and `pattern` each head's row is as long as the prompt.
#[derive(Clone, Debug)]
pub struct Activation {
    pub site: Site,
    pub positions: Positions,
    pub part: Part,
}

/// The KL divergence of the next-token distribution at the last position from that of another run, `KL(other || this)`. Nats.
#[derive(Clone, Copy, Debug)]
pub struct KlFrom(pub Run);

/// The entropy of the next-token distribution at the last position. Nats.
#[derive(Clone, Copy, Debug)]
pub struct Entropy;

/// The rank of a token as the next one, after the last position: 1 and how many tokens are likelier.
#[derive(Clone, Copy, Debug)]
pub struct Rank(pub u32);

/// The log-probabilities of some tokens as the next one, after the last position. `[tokens]`, nats
#[derive(Clone, Debug)]
pub struct LogProbs {
    pub tokens: Vec<u32>,
}

/// The direct logit attribution of a logit difference, or of one of its halves, at the last position, before soft-capping of
/// the logits (and so a half's mean is over the whole vocabulary): `[n_layers + 1, n_heads + 2]`. A layer's row has its
/// heads, its MLP, and the attention's bias, or the whole of a mixer whose heads are not told apart; the last row the embedding,
/// the final norm's bias, what several tokens' logsumexp has beyond its weighted sum, then zeros. What a layer adds of its own embedding
/// of the token stands beside the attention's bias, and where layers multiply the residual stream by numbers, parts count as
/// multiplied by those that follow. They sum to the metric where nothing after `z` is edited: what such an edit adds is no component's.
#[derive(Clone, Debug)]
pub struct Attribution(pub Metric);

/// The inner product of a site's value with a direction. `[positions]`
#[derive(Clone, Debug)]
pub struct Projection {
    pub site: Site,
    pub positions: Positions,
    /// As long as a row, or one for each position in turn.
    pub direction: Arc<[f32]>,
}

/// The derivative of a metric of the run with respect to a site's value, as the run's own edits leave it; what those
/// edits take from other runs is held fixed. `[positions, part]`, in nats for each unit of the value. 0 where the
/// metric does not depend on the value, so for scores of keys that a query may not see.
#[derive(Clone, Debug)]
pub struct Gradient {
    pub metric: Metric,
    pub site: Site,
    pub positions: Positions,
    pub part: Part,
}

/// How the effects of edges are estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeEstimate {
    /// Edge attribution patching (Syed et al. 2023): what the writer adds more in the donor, times the derivative of the metric with
    /// respect to what the reader reads.
    Attribution,
    /// The same with the derivative's mean over runs whose embedding is the donor's plus `k / steps` of the way to the run's own,
    /// `k` from 0 (EAP-IG, Hanna et al. 2024, "inputs"); the run's own at positions that correspond to none of the donor's.
    IntegratedGradients { steps: usize },
    /// The one reader is computed with its exchanged input, and the change of what it gives (`z` of the heads that it serves, or
    /// `mlp_out`) is multiplied by the derivative there: AtP*'s remedy for saturated attention (Kramar et al. 2024), taken to edges.
    /// Exact for the logits.
    Reader,
}

/// Estimates of what every edge of a prompt ([`Graph::edges`](super::Graph::edges), in that order) does to a metric if it is taken
/// from another prompt. `[edges]`, nats
#[derive(Clone, Debug)]
pub struct EdgeEffects {
    pub metric: Metric,
    pub donor: Run,
    /// The positions of the readers.
    pub positions: Positions,
    /// Where in the donor each takes from.
    pub alignment: Alignment,
    pub by: EdgeEstimate,
}

/// Any of them.
#[derive(Clone, Debug)]
pub enum What {
    Metric(Metric),
    Activation(Activation),
    KlFrom(Run),
    Entropy,
    Rank(u32),
    LogProbs(LogProbs),
    Attribution(Metric),
    Projection(Projection),
    Gradient(Gradient),
    EdgeEffects(EdgeEffects),
}

/// What can be read of a run, with the type of its reading: `f64`, [`Array`], or [`Reading`] where it may be either.
pub trait Readable: Into<What> {
    type Value: ?Sized;
}

macro_rules! readable {
    ($($Kind:ty => $Value:ty, $what:expr;)*) => {
        $(
            impl Readable for $Kind {
                type Value = $Value;
            }

            impl From<$Kind> for What {
                fn from(kind: $Kind) -> What {
                    $what(kind)
                }
            }
        )*
    };
}

readable! {
    Metric => f64, What::Metric;
    Activation => Array, What::Activation;
    KlFrom => f64, |of: KlFrom| What::KlFrom(of.0);
    Entropy => f64, |_| What::Entropy;
    Rank => f64, |of: Rank| What::Rank(of.0);
    LogProbs => Array, What::LogProbs;
    Attribution => Array, |of: Attribution| What::Attribution(of.0);
    Projection => Array, What::Projection;
    Gradient => Array, What::Gradient;
    EdgeEffects => Array, What::EdgeEffects;
}

impl Readable for What {
    type Value = Reading;
}

/// A readout of a plan, by which its reading is found: `readings[handle]`.
pub struct Handle<T: ?Sized> {
    readout: u32,
    of: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> Handle<T> {
    pub(super) fn new(readout: usize) -> Self {
        Handle { readout: readout as u32, of: PhantomData }
    }

    /// The readout's number in its plan.
    pub fn readout(self) -> usize {
        self.readout as usize
    }
}

impl<T: ?Sized> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Handle<T> {}

impl<T: ?Sized> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "readout {}", self.readout)
    }
}
