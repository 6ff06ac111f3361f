//! Layers whose attention and channel, one after another, add to what a recurrent mixer reads and not to the residual stream.

use super::{Acts, Decoder, Hook};
use crate::model::mixer::{AttentionWeights, Both, FedWeights, RecurrentWeights};
use crate::model::pass::{Around, Lent, norm};
use crate::model::weights::LayerWeights;
use crate::ops;
use crate::site::SiteKind;
use candle_core::{Result, Tensor};

/// A mixer's description with the weights of its parts.
type Parts<'a> = (&'a Both, &'a AttentionWeights, &'a RecurrentWeights, &'a FedWeights);

impl Decoder {
    /// `resid_pre` to `resid_post` of such a layer. Attention reads the residual stream, and the embedding beside it; the channel reads
    /// what attention gives; the recurrent mixer reads the stream with what a matrix makes of what the channel gives.
    pub(super) fn feed(
        &self,
        around: &Around,
        w: &LayerWeights,
        (both, attention, recurrent, fed): Parts,
        acts: &mut Acts,
        hook: &mut dyn Hook,
    ) -> Result<()> {
        use SiteKind::*;
        let l = around.layer;
        let read = match both.attention.beside_embedding {
            true => Tensor::cat(&[acts.get(ResidPre)?, acts.loans.get(Lent::Embed)?], 1)?,
            false => acts.get(ResidPre)?.clone(),
        };
        acts.put(AttnIn, norm(&read, w.attn_norm.as_ref())?);
        hook.at(AttnIn.at(l), acts)?;
        let out = attention.forward(&both.attention, around, acts, hook)?;
        acts.put(AttnOut, out);
        hook.at(AttnOut.at(l), acts)?;
        let out = self.in_parts(l, w, AttnOut, acts, hook)?;
        acts.take(AttnOut)?;
        acts.put(MlpOut, out);
        hook.at(MlpOut.at(l), acts)?;
        let more = fed.down.apply(&acts.take(MlpOut)?)?;
        // Live under this name, as what any mixer reads is; no hook sees it.
        acts.put(AttnIn, fed.norm.apply(&ops::add(acts.get(ResidPre)?, &more)?)?);
        let out = recurrent.forward(&both.recurrent, &Around { beside: true, ..*around }, acts, hook)?;
        acts.take(AttnIn)?;
        acts.put(MixOut, out);
        hook.at(MixOut.at(l), acts)?;
        let out = (acts.take(MixOut)? * both.scales[1])?;
        acts.put(AttnDelta, self.added(&out, w.attn_post_norm.as_ref(), self.arch.added_times(l, false))?);
        hook.at(AttnDelta.at(l), acts)?;
        let resid = ops::add(&acts.take(ResidPre)?, &acts.take(AttnDelta)?)?;
        acts.put(ResidPost, resid);
        Ok(())
    }
}
