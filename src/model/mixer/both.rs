//! Attention and a recurrent mixer side by side: both read the same, and what both give is added to the residual stream (Falcon-H1).
//!
//! Attention has its sites under their names, the other has what is before and after its output projection at `mix_z` and `mix_out`, and
//! its own: `conv_in` and `state`.

use super::{Attention, AttentionWeights, Recurrent, RecurrentWeights};
use crate::model::pass::{Acts, Around, Hook};
use crate::model::rope::Rope;
use crate::ops;
use crate::site::{Lack, SiteKind, Units};
use candle_core::{Result, Tensor};

/// Attention and what stands beside it, described.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Both {
    pub attention: Attention,
    pub recurrent: Recurrent,
    /// What each one's output is multiplied by before it is added to the residual stream.
    pub scales: [f64; 2],
}

impl Both {
    /// What the two are called together.
    pub(super) fn name(&self) -> &'static str {
        "attention beside a recurrent mixer"
    }

    pub(super) fn lacks(&self, kind: SiteKind) -> Option<Lack> {
        match kind {
            SiteKind::ConvIn | SiteKind::State => self.recurrent.lacks(kind),
            _ => self.attention.lacks(kind),
        }
    }

    pub(super) fn units(&self, kind: SiteKind, d_model: usize) -> Option<Units> {
        match kind {
            SiteKind::MixZ => self.recurrent.units(SiteKind::Z, d_model),
            SiteKind::ConvIn | SiteKind::State => self.recurrent.units(kind, d_model),
            _ => self.attention.units(kind, d_model),
        }
    }

    pub(super) fn by_query_head(self) -> Self {
        Both { attention: self.attention.by_query_head(), ..self }
    }

    pub(super) fn check(&self, ropes: &[Rope]) -> std::result::Result<(), String> {
        self.attention.check(ropes)?;
        self.recurrent.check()?;
        match self.scales.iter().find(|scale| !scale.is_finite()) {
            Some(scale) => Err(format!("a mixer's output is multiplied by {scale}")),
            None => Ok(()),
        }
    }

    /// Takes `attn_in` to what becomes `attn_out`, and leaves `mix_out` live.
    pub(super) fn forward(
        &self,
        (attention, recurrent): (&AttentionWeights, &RecurrentWeights),
        around: &Around,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        // The recurrent mixer goes first: its sites come before those of attention.
        let out = recurrent.forward(&self.recurrent, &Around { beside: true, ..*around }, acts, hook)?;
        acts.put(SiteKind::MixOut, out);
        hook.at(SiteKind::MixOut.at(around.layer), acts)?;
        attention.forward(&self.attention, around, acts, hook)
    }

    /// What both give together.
    pub(super) fn sum(&self, acts: &mut Acts) -> Result<Tensor> {
        let [attention, recurrent] = self.scales;
        ops::add(&(acts.take(SiteKind::AttnOut)? * attention)?, &(acts.take(SiteKind::MixOut)? * recurrent)?)
    }
}
