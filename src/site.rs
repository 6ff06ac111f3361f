//! Sites: the named places of a forward pass that can be read and edited.
//!
//! A site is a kind and a layer, written `z.12`. Kinds carry the names that TransformerLens gave them where it has
//! one, and its whole names are read too (`transformer_lens`). Which sites a model has, how wide each is and which come in
//! heads, this module asks of the layer's mixer and channel ([`crate::model::arch::Layer`]); reading and editing them is the
//! engine's work ([`crate::run`]).

mod transformer_lens;

use crate::model::arch::{Arch, Mixer};
use crate::model::per_layer;
use crate::names::nearest;
use std::fmt;
use std::str::FromStr;

/// What is at a [`Site`]. The order of the variants is the order of the flow through a block, with the two ends of
/// the model around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SiteKind {
    /// What enters layer 0: the token's embedding, scaled where the family scales it, plus the position's where the
    /// family learns one. Per-layer embeddings are made of it too, beside the token itself, and some attention reads it. `[rows, d_model]`,
    /// no layer.
    Embed,
    /// The residual stream before a layer. `[rows, d_model]`
    ResidPre,
    /// What the attention reads: after the norm before it, where the family has one. `[rows, d_model]`, or twice as wide where it reads
    /// the embedding beside the residual stream.
    AttnIn,
    /// What the convolution of a recurrent mixer reads: it mixes it with that of the positions before. `[rows, channels]`
    ConvIn,
    /// The state of a recurrent mixer after each position. What comes after it at that position reads it, and the next position goes on
    /// from it, so an edit changes this position and all later ones; of RWKV-4 the later ones alone, since each position reads the state
    /// before it. `[rows, heads * keys * values]` of delta rules, `[rows, heads * d_head * d_state]` of Mamba 2, `[rows, channels *
    /// d_state]` of Mamba, `[rows, channels * 3]` of RWKV-4: a sum of weighted values, one of weights, and an exponent of both (`ops::Wkv`
    /// says why); none where a mixer has a convolution alone.
    State,
    /// What the output projection of a recurrent mixer beside attention reads; a recurrent mixer alone has it at
    /// [`SiteKind::Z`]. `[rows, heads * width]`
    MixZ,
    /// That projection's output; of a recurrent mixer alone it is [`SiteKind::AttnOut`]. `[rows, d_model]`
    MixOut,
    /// Queries before rotation (after the query norm, where the family has one). `[rows, n_heads * d_head]`
    Q,
    /// Keys before rotation (after the key norm, where the family has one), one a KV head. `[rows, n_kv_heads * d_head]`
    K,
    /// Values, one a KV head. `[rows, n_kv_heads * d_head]`
    V,
    /// Queries after rotation. `[rows, n_heads * d_head]`
    RotQ,
    /// Keys after rotation. `[rows, n_kv_heads * d_head]`
    RotK,
    /// Attention scores, scaled and soft-capped, before the softmax; keys that a query may not see are minus
    /// infinity. `[rows, n_heads * keys]`, head-major, keys from position 0 to the prompt's end.
    Scores,
    /// Attention probabilities. `[rows, n_heads * keys]`, as [`SiteKind::Scores`].
    Pattern,
    /// The gate of what heads read, between 0 and 1, in families that have one. `[rows, n_heads * d_head]`
    AttnGate,
    /// What a head read, after its gate where it has one, before the output projection. `[rows, n_heads * d_head]`
    Z,
    /// `z` of one head through its slice of the output projection, without the bias. `[rows, n_heads * d_model]`
    HeadOut,
    /// The output projection's output, bias included. `[rows, d_model]`
    AttnOut,
    /// What attention adds to the residual stream: `attn_out` after the post-norm, where the family has one; what the recurrent mixer
    /// adds, where that alone does.
    AttnDelta,
    /// The residual stream between attention and MLP. A family with a parallel residual has none, nor has a layer whose attention and MLP
    /// add nothing to it.
    ResidMid,
    /// What the MLP reads: after the norm before it, where the family has one. `[rows, d_model]`
    MlpIn,
    /// What the router makes its choice of experts by, before softmax or sigmoid; of several experts alone. `[rows, experts]`
    Router,
    /// The gate projection before its non-linearity; gated families only. `[rows, d_mlp]`
    MlpGate,
    /// The up projection: what the gate multiplies, or, in a family without a gate, what the non-linearity reads.
    /// `[rows, d_mlp]`
    MlpPre,
    /// The neurons: what the down projection reads. `[rows, d_mlp]`
    ///
    /// In a layer of several experts, those of all of them: first of the one that all rows go through, where there is one, then
    /// expert by expert. `[rows, shared width + experts * width]` Each is multiplied by what its expert's output is multiplied by, the
    /// router's weight or the shared expert's gate, so that here too a neuron writes its activation times its column of the down
    /// projection. Where a row did not choose an expert, its neurons are 0.
    MlpAct,
    /// What the expert that all rows go through adds, where there is one, after its own norm if it has such. `[rows, d_model]`
    SharedOut,
    /// What each expert adds, by its weight, before a norm of their sum: 0 where it was not chosen. `[rows, experts * d_model]`
    ExpertOut,
    /// The channel's output: the down projection's, bias included, or the sum over experts. `[rows, d_model]`
    MlpOut,
    /// What the MLP adds to the residual stream: `mlp_out` after the post-norm, where the family has one.
    MlpDelta,
    /// What a layer adds to the residual stream of its own embedding of the token, after its norm; of models with per-layer embeddings
    /// alone. Where there are several streams, it is added to all but the first, of which the other sites are. `[rows, d_model]`
    PleOut,
    /// The residual stream after a layer, and after the number that the layer multiplies it by, where the family has one.
    /// `[rows, d_model]`
    ResidPost,
    /// The last layer's residual stream after the final norm. `[rows, d_model]`, no layer.
    FinalNorm,
    /// Logits, after soft-capping where the family has it. `[rows, vocab]`, no layer.
    Logits,
}

use SiteKind::*;

/// Every kind with its name, in the order of the flow.
pub const KINDS: [(SiteKind, &str); 33] = [
    (Embed, "embed"),
    (ResidPre, "resid_pre"),
    (AttnIn, "attn_in"),
    (ConvIn, "conv_in"),
    (State, "state"),
    (MixZ, "mix_z"),
    (MixOut, "mix_out"),
    (Q, "q"),
    (K, "k"),
    (V, "v"),
    (RotQ, "rot_q"),
    (RotK, "rot_k"),
    (Scores, "scores"),
    (Pattern, "pattern"),
    (AttnGate, "attn_gate"),
    (Z, "z"),
    (HeadOut, "head_out"),
    (AttnOut, "attn_out"),
    (AttnDelta, "attn_delta"),
    (ResidMid, "resid_mid"),
    (MlpIn, "mlp_in"),
    (Router, "router"),
    (MlpGate, "mlp_gate"),
    (MlpPre, "mlp_pre"),
    (MlpAct, "mlp_act"),
    (SharedOut, "shared_out"),
    (ExpertOut, "expert_out"),
    (MlpOut, "mlp_out"),
    (MlpDelta, "mlp_delta"),
    (PleOut, "ple_out"),
    (ResidPost, "resid_post"),
    (FinalNorm, "final_norm"),
    (Logits, "logits"),
];

/// How a site's width divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// `n` heads of `width` numbers each.
    Heads { n: usize, width: usize },
    /// `n` heads, each as wide as the prompt has positions.
    HeadsByKeys { n: usize },
    /// `width` numbers that are not divided: dimensions of the residual stream, neurons, or tokens.
    Columns { width: usize },
}

/// Why a part of a model lacks a site, and which of its sites is nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    pub why: &'static str,
    pub nearest: SiteKind,
}

/// A site that does not exist, with what does.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SiteError {
    #[error("site `{found}`: no such kind; the nearest are {nearest}")]
    UnknownKind { found: String, nearest: String },
    #[error("site `{found}`: gatelens has no site for it here: {why}")]
    NoSuchHook { found: String, why: String },
    #[error("site `{found}`: `{kind}` is not in a layer; write `{kind}` alone")]
    LayerWhereNone { found: String, kind: &'static str },
    #[error("site `{found}`: `{layer}` is neither a layer nor a range of layers; write 3, or 3-7")]
    BadLayer { found: String, layer: String },
    #[error("site `{site}`: the model has {n_layers} layers; the nearest is `{kind}.{}`", n_layers - 1)]
    LayerOutOfRange { site: Site, kind: &'static str, n_layers: usize },
    #[error("site `{site}`: this model has none, because {why}; the nearest is `{nearest}`")]
    NotInModel { site: Site, why: &'static str, nearest: Site },
    #[error("site `{site}`: head {head} does not exist; it has heads 0 to {last}", last = n_heads - 1)]
    NoSuchHead { site: Site, head: usize, n_heads: usize },
    #[error("site `{site}`: column {column} does not exist; it has columns 0 to {last}", last = width - 1)]
    NoSuchColumn { site: Site, column: usize, width: usize },
    #[error(
        "site `{site}` does not come in heads; those that do are state, mix_z, q, k, v, rot_q, rot_k, scores, pattern, attn_gate, z, head_out and expert_out"
    )]
    NoHeads { site: Site },
}

impl SiteKind {
    /// The name that users write.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }

    /// Whether an edit at the kind, which is of a mixer or before one, reaches other positions in its own layer.
    pub(crate) fn is_mixed(self) -> bool {
        self < Z && !matches!(self, MixZ | MixOut)
    }

    /// Whether the kind stands in every layer, rather than once in the model.
    pub fn in_layers(self) -> bool {
        !matches!(self, Embed | FinalNorm | Logits)
    }

    /// The site of this kind in `layer`.
    pub fn at(self, layer: usize) -> Site {
        Site { kind: self, layer: if self.in_layers() { layer } else { 0 } }
    }
}

impl fmt::Display for SiteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for SiteKind {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SiteKind {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::parameters::from_text(d)
    }
}

impl FromStr for SiteKind {
    type Err = SiteError;

    fn from_str(s: &str) -> Result<Self, SiteError> {
        let unknown = |nearest: String| SiteError::UnknownKind { found: s.to_string(), nearest };
        match transformer_lens::read(s, None) {
            Some(Ok((kind, None))) => return Ok(kind),
            Some(Ok((kind, Some(_)))) => return Err(unknown(kind.to_string())),
            Some(Err(e)) => return Err(e),
            None => {}
        }
        let known = KINDS.iter().find(|(_, name)| *name == s).map(|(kind, _)| *kind);
        known.ok_or_else(|| unknown(nearest(s, KINDS.iter().map(|(_, name)| *name)).join(", ")))
    }
}

/// A named place in the forward pass.
///
/// ```
/// use gatelens::site::{Site, SiteKind};
/// assert_eq!(SiteKind::Z.at(12).to_string(), "z.12");
/// assert_eq!(SiteKind::Logits.at(0).to_string(), "logits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    pub kind: SiteKind,
    /// The layer from 0; 0 for the kinds that are in none.
    pub layer: usize,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.in_layers() { write!(f, "{}.{}", self.kind, self.layer) } else { write!(f, "{}", self.kind) }
    }
}

impl PartialOrd for Site {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Sites are ordered as the forward pass reaches them.
impl Ord for Site {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |s: &Site| match s.kind {
            Embed => (0, 0, s.kind),
            FinalNorm | Logits => (2, 0, s.kind),
            _ => (1, s.layer, s.kind),
        };
        key(self).cmp(&key(other))
    }
}

impl Site {
    /// The first layer that reads this site or holds it: `n_layers` for what comes after the last.
    pub fn first_layer(self, n_layers: usize) -> usize {
        match self.kind {
            Embed => 0,
            FinalNorm | Logits => n_layers,
            _ => self.layer,
        }
    }

    /// Where a pass of this model reaches it: sites come in the order of these. It is that of [`Ord`], but in layers whose channel comes
    /// before their recurrent mixer.
    pub(crate) fn flow(self, arch: &Arch) -> (u8, usize, u8, SiteKind) {
        match self.kind {
            Embed => (0, 0, 0, self.kind),
            FinalNorm | Logits => (2, 0, 0, self.kind),
            _ => (1, self.layer, arch.layers.get(self.layer).map_or(0, |layer| layer.stage(self.kind)), self.kind),
        }
    }

    /// How many layers, from the first, a pass has gone through or is in where it reaches this site.
    pub fn layers_up_to(self, n_layers: usize) -> usize {
        if self.kind.in_layers() { self.layer + 1 } else { self.first_layer(n_layers) }
    }

    /// The site under the name that the model has it by: a recurrent mixer that stands alone has `mix_z` and `mix_out` as `z` and
    /// `attn_out`.
    #[must_use]
    pub fn named_in(self, arch: &Arch) -> Site {
        let alone = arch.layers.get(self.layer).is_some_and(|layer| matches!(layer.mixer, Mixer::Recurrent(_)));
        match self.kind {
            MixZ if alone => Z.at(self.layer),
            MixOut if alone => AttnOut.at(self.layer),
            _ => self,
        }
    }

    /// Checks that the model has this site.
    ///
    /// # Errors
    /// If the layer is out of range, or the family has no such site; both name the nearest.
    pub fn check(self, arch: &Arch) -> Result<Site, SiteError> {
        if self.kind.in_layers() && self.layer >= arch.n_layers {
            return Err(SiteError::LayerOutOfRange { site: self, kind: self.kind.name(), n_layers: arch.n_layers });
        }
        match self.lack(arch) {
            None => Ok(self),
            Some(Lack { why, nearest }) => {
                // Keys and values are in the layer that has them.
                let shared = matches!(nearest, K | V | RotK);
                let layer = if shared { arch.keys_of(self.layer) } else { self.layer };
                Err(SiteError::NotInModel { site: self, why, nearest: nearest.at(layer) })
            }
        }
    }

    /// Why the model lacks the site.
    fn lack(self, arch: &Arch) -> Option<Lack> {
        let why = "its attention and MLP read the residual stream side by side";
        match self.kind {
            ResidMid if arch.parallel => Some(Lack { why, nearest: ResidPre }),
            ResidMid if !arch.layers.get(self.layer)?.feeds() => None,
            PleOut => arch.per_layer.is_none().then_some(per_layer::LACK),
            kind if kind.in_layers() => arch.layers.get(self.layer)?.lacks(kind),
            _ => None,
        }
    }

    /// How the site's width divides in this model, which has it.
    pub fn units(self, arch: &Arch) -> Units {
        match arch.layers.get(self.layer).filter(|_| self.kind.in_layers()) {
            Some(layer) => layer.units(self.kind, arch.d_model),
            None if self.kind == Logits => Units::Columns { width: arch.vocab },
            None => Units::Columns { width: arch.d_model },
        }
    }

    /// Numbers in a row of this site, for a prompt of `keys` positions.
    pub fn width(self, arch: &Arch, keys: usize) -> usize {
        match self.units(arch) {
            Units::Heads { n, width } => n * width,
            Units::HeadsByKeys { n } => n * keys,
            Units::Columns { width } => width,
        }
    }
}

/// Reads a list of sites as users write it: `resid_post` is that kind in every layer, `z.3` is one site, and
/// `z.3-7` a range of layers; `logits` stands alone. TransformerLens' names are read too: `blocks.3.attn.hook_z`.
///
/// # Errors
/// For a kind that does not exist and a site that the model has not, which name the nearest; for what is no layer, or no range
/// of layers from the lower to the higher.
pub fn parse_sites(list: &str, arch: &Arch) -> Result<Vec<Site>, SiteError> {
    let mut sites = Vec::new();
    for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let (kind, layers) = match (transformer_lens::read(word, Some(arch)), word.split_once('.')) {
            (Some(hook), _) => hook?,
            (None, Some((kind, layers))) => (kind.parse::<SiteKind>()?, Some(layers)),
            (None, None) => (word.parse::<SiteKind>()?, None),
        };
        let (first, last) = match layers {
            Some(_) if !kind.in_layers() => {
                return Err(SiteError::LayerWhereNone { found: word.to_string(), kind: kind.name() });
            }
            Some(text) => layer_range(word, text)?,
            None => (0, if kind.in_layers() { arch.n_layers - 1 } else { 0 }),
        };
        // Before the range is gone through, which may be of any length.
        let at = |layer: usize| kind.at(layer).named_in(arch).check(arch);
        let at_last = at(last);
        if layers.is_some() || !kind.in_layers() {
            at_last?;
        }
        let found: Vec<Result<Site, SiteError>> = (first..=last).map(at).collect();
        // A kind by itself stands for the layers that have it.
        let some = layers.is_none() && found.iter().any(Result::is_ok);
        for site in found {
            match site {
                Err(_) if some => {}
                site => sites.push(site?),
            }
        }
    }
    Ok(sites)
}

/// The first and the last layer of `3` or `3-7`.
fn layer_range(word: &str, text: &str) -> Result<(usize, usize), SiteError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(SiteError::BadLayer { found: word.to_string(), layer: text.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<String, SiteError> {
        let sites = parse_sites(list, &crate::model::tests::tiny_arch())?;
        Ok(sites.iter().map(Site::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn kinds_stand_in_their_order_under_their_names() {
        for (i, (kind, name)) in KINDS.iter().enumerate() {
            assert_eq!((*kind as usize, kind.name(), name.parse()), (i, *name, Ok(*kind)));
        }
        assert_eq!(KINDS.len(), Logits as usize + 1);
    }

    #[test]
    fn a_list_names_single_sites_ranges_of_layers_and_whole_kinds() {
        assert_eq!(parse("z.3, logits"), Ok("z.3 logits".to_string()));
        assert_eq!(parse("z.1-3,,embed"), Ok("z.1 z.2 z.3 embed".to_string()));
        assert_eq!(parse("q"), Ok("q.0 q.1 q.2 q.3".to_string()));
        assert_eq!(parse("z.2-2"), Ok("z.2".to_string()));
    }

    #[test]
    fn a_range_that_names_no_layer_is_an_error_and_not_an_empty_list() {
        for layer in ["3-1", "1-", "-1", "-", "", "one", "1-2-3", "18446744073709551616"] {
            let (found, layer) = (format!("z.{layer}"), layer.to_string());
            assert_eq!(parse(&format!("logits,{found}")), Err(SiteError::BadLayer { found, layer }));
        }
        for (list, site) in [("z.4", Z.at(4)), ("z.2-4", Z.at(4)), ("z.18446744073709551615", Z.at(usize::MAX))] {
            assert_eq!(parse(list), Err(SiteError::LayerOutOfRange { site, kind: "z", n_layers: 4 }));
        }
        assert!(matches!(parse("logits.0"), Err(SiteError::LayerWhereNone { .. })));
    }

    #[test]
    fn sites_are_ordered_as_the_pass_reaches_them() {
        let flow =
            [Embed.at(0), ResidPre.at(0), Scores.at(0), Z.at(0), ResidPost.at(0), ResidPre.at(1), FinalNorm.at(0)];
        assert!(flow.is_sorted() && flow[6] < Logits.at(0));
        assert_eq!([Embed.at(0), Z.at(2), Logits.at(0)].map(|site| site.first_layer(4)), [0, 2, 4]);
    }
}
