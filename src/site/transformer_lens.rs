//! TransformerLens' names of places, for users who know them: each means the site at which the same numbers are.
//!
//! | TransformerLens | site |
//! |---|---|
//! | `blocks.L.hook_resid_pre`, `hook_resid_mid`, `hook_resid_post` | `resid_pre.L`, `resid_mid.L`, `resid_post.L` |
//! | `blocks.L.attn.hook_q`, `hook_k` | `q.L`, `k.L`; none where queries and keys are normed, which comes after the hook |
//! | `blocks.L.attn.hook_v`, `hook_rot_q`, `hook_rot_k`, `hook_z` | `v.L`, `rot_q.L`, `rot_k.L`, `z.L` |
//! | `blocks.L.attn.hook_attn_scores`, `hook_pattern` | `scores.L`, `pattern.L` |
//! | `blocks.L.attn.hook_result` | `head_out.L` |
//! | `blocks.L.hook_attn_out`, `hook_mlp_out` | `attn_delta.L`, `mlp_delta.L`: both are what is added to the residual stream |
//! | `blocks.L.mlp.hook_pre` | `mlp_gate.L` in a gated MLP, `mlp_pre.L` in a plain one |
//! | `blocks.L.mlp.hook_pre_linear` | `mlp_pre.L` in a gated MLP |
//! | `blocks.L.mlp.hook_post` | `mlp_act.L` |
//! | `hook_embed` | `embed`; none where positions are learned, which come after the hook |
//! | `unembed` | `logits`; none where they are soft-capped, which comes after it |
//!
//! Without `blocks.L.` a name is that of every layer, and the part of the block may be left out: `hook_z`. Hooks that have no
//! site of their own are refused with the reason: the inputs of norms and projections (`hook_attn_in`, `hook_q_input`),
//! `hook_pos_embed`, and norms (`hook_normalized`, `hook_scale`), which TransformerLens reads without their gain.
//!
//! The numbers are those of a model that TransformerLens loads without processing: by default it folds norms and biases into
//! weights and centres what is written to the residual stream.

use super::SiteError;
use super::SiteKind::{self, *};
use crate::model::arch::{Arch, Positions};
use crate::names::nearest;

/// What a hook is.
enum Meaning {
    Is(SiteKind),
    /// A site or none, by the model.
    Depends(fn(&Arch) -> Result<SiteKind, &'static str>, &'static str),
    /// Nothing that is a site, for this reason.
    None(&'static str),
}

use Meaning::{Depends, Is};

const BEFORE_ATTENTION: &str = "it is a copy of the residual stream for one reader; the stream itself is `resid_pre`";
const BEFORE_MLP: &str = "it is a copy of the residual stream for one reader; the stream itself is `resid_mid`";
const SCALE: &str = "what a norm divides by is no site";
const GAIN: &str = "it is read before the norm's gain; after it come `attn_in`, `mlp_in` and `final_norm`";

/// Hooks by the names that follow `blocks.L.`, or that stand alone.
const HOOKS: &[(&str, Meaning)] = &[
    ("hook_embed", Depends(embed, "`embed`, unless positions are learned")),
    ("hook_pos_embed", Meaning::None("learned positions are added to the embedding; the sum is `embed`")),
    ("hook_resid_pre", Is(ResidPre)),
    ("hook_resid_mid", Is(ResidMid)),
    ("hook_resid_post", Is(ResidPost)),
    ("attn.hook_q", Depends(|arch| unnormed(arch, Q), "`q`, unless queries are normed")),
    ("attn.hook_k", Depends(|arch| unnormed(arch, K), "`k`, unless keys are normed")),
    ("attn.hook_v", Is(V)),
    ("attn.hook_rot_q", Is(RotQ)),
    ("attn.hook_rot_k", Is(RotK)),
    ("attn.hook_attn_scores", Is(Scores)),
    ("attn.hook_pattern", Is(Pattern)),
    ("attn.hook_z", Is(Z)),
    ("attn.hook_result", Is(HeadOut)),
    ("hook_attn_out", Is(AttnDelta)),
    ("mlp.hook_pre", Depends(pre, "`mlp_gate` in a gated MLP, `mlp_pre` in a plain one")),
    ("mlp.hook_pre_linear", Depends(pre_linear, "`mlp_pre` in a gated MLP")),
    ("mlp.hook_post", Is(MlpAct)),
    ("hook_mlp_out", Is(MlpDelta)),
    ("hook_attn_in", Meaning::None(BEFORE_ATTENTION)),
    ("hook_q_input", Meaning::None(BEFORE_ATTENTION)),
    ("hook_k_input", Meaning::None(BEFORE_ATTENTION)),
    ("hook_v_input", Meaning::None(BEFORE_ATTENTION)),
    ("hook_mlp_in", Meaning::None(BEFORE_MLP)),
    ("ln1.hook_normalized", Meaning::None(GAIN)),
    ("ln2.hook_normalized", Meaning::None(GAIN)),
    ("ln_final.hook_normalized", Meaning::None(GAIN)),
    ("ln1.hook_scale", Meaning::None(SCALE)),
    ("ln2.hook_scale", Meaning::None(SCALE)),
    ("ln_final.hook_scale", Meaning::None(SCALE)),
    ("unembed", Depends(unembed, "`logits`, unless they are soft-capped")),
    ("unembed.hook_out", Depends(unembed, "`logits`, unless they are soft-capped")),
];

fn embed(arch: &Arch) -> Result<SiteKind, &'static str> {
    if arch.positions != Positions::None {
        return Err("it is read before the position's embedding is added; the sum is `embed`");
    }
    Ok(Embed)
}

fn unnormed(arch: &Arch, kind: SiteKind) -> Result<SiteKind, &'static str> {
    match arch.layers.iter().any(|layer| layer.mixer.norms_queries()) {
        false => Ok(kind),
        true => Err("it is read before the norms of queries and keys; after them come `q` and `k`"),
    }
}

fn gated(arch: &Arch) -> bool {
    arch.layers.iter().all(|layer| layer.channel.gated())
}

fn pre(arch: &Arch) -> Result<SiteKind, &'static str> {
    Ok(if gated(arch) { MlpGate } else { MlpPre })
}

fn pre_linear(arch: &Arch) -> Result<SiteKind, &'static str> {
    if gated(arch) { Ok(MlpPre) } else { Err("the MLP has no gate; what its non-linearity reads is `mlp_pre`") }
}

fn unembed(arch: &Arch) -> Result<SiteKind, &'static str> {
    match arch.logit_softcap {
        None => Ok(Logits),
        Some(_) => Err("it is read before logits are soft-capped; after it come `logits`"),
    }
}

/// Whether a word is in TransformerLens' manner.
fn is_hook(word: &str) -> bool {
    word.contains("hook_") || word.starts_with("blocks.") || word.starts_with("unembed")
}

/// The kind that a word in TransformerLens' manner names, and its layer or range of layers as it is written; nothing where
/// the word is in another manner. What depends on the model is an error without its description.
pub(super) fn read<'a>(word: &'a str, arch: Option<&Arch>) -> Option<Result<(SiteKind, Option<&'a str>), SiteError>> {
    if !is_hook(word) {
        return None;
    }
    let (layers, hook) = match word.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
        Some((layers, hook)) => (Some(layers), hook),
        None => (None, word),
    };
    Some(kind(word, hook, arch).map(|kind| (kind, layers)))
}

fn kind(word: &str, hook: &str, arch: Option<&Arch>) -> Result<SiteKind, SiteError> {
    let same = |name: &str| name == hook || name.rsplit_once('.').is_some_and(|(_, bare)| bare == hook);
    let Some((_, meaning)) = HOOKS.iter().find(|(name, _)| same(name)) else {
        let nearest = nearest(hook, HOOKS.iter().map(|(name, _)| *name)).join(", ");
        return Err(SiteError::UnknownKind { found: word.to_string(), nearest });
    };
    let none = |why: String| SiteError::NoSuchHook { found: word.to_string(), why };
    match (meaning, arch) {
        (Is(kind), _) => Ok(*kind),
        (Meaning::None(why), _) => Err(none((*why).to_string())),
        (Depends(kind, _), Some(arch)) => kind(arch).map_err(|why| none(why.to_string())),
        (Depends(_, which), None) => Err(none(format!("it depends on the model; write {which}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Site, parse_sites};
    use super::*;
    use crate::model::arch::{Channel, Mixer, Norm, NormOver, QkNorm};
    use crate::model::tests::tiny_arch;

    fn parsed(list: &str, arch: &Arch) -> Result<String, String> {
        let sites = parse_sites(list, arch).map_err(|e| e.to_string())?;
        Ok(sites.iter().map(Site::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_hook_is_the_site_at_which_the_same_numbers_are() {
        let arch = tiny_arch();
        for (hook, site) in [
            ("blocks.2.hook_resid_pre", "resid_pre.2"),
            ("blocks.2.hook_resid_mid", "resid_mid.2"),
            ("blocks.2.hook_resid_post", "resid_post.2"),
            ("blocks.2.attn.hook_q", "q.2"),
            ("blocks.2.attn.hook_k", "k.2"),
            ("blocks.2.attn.hook_v", "v.2"),
            ("blocks.2.attn.hook_rot_q", "rot_q.2"),
            ("blocks.2.attn.hook_rot_k", "rot_k.2"),
            ("blocks.2.attn.hook_attn_scores", "scores.2"),
            ("blocks.2.attn.hook_pattern", "pattern.2"),
            ("blocks.2.attn.hook_z", "z.2"),
            ("blocks.2.attn.hook_result", "head_out.2"),
            ("blocks.2.hook_attn_out", "attn_delta.2"),
            ("blocks.2.mlp.hook_pre", "mlp_gate.2"),
            ("blocks.2.mlp.hook_pre_linear", "mlp_pre.2"),
            ("blocks.2.mlp.hook_post", "mlp_act.2"),
            ("blocks.2.hook_mlp_out", "mlp_delta.2"),
            ("hook_embed", "embed"),
            ("unembed", "logits"),
            ("unembed.hook_out", "logits"),
            ("hook_resid_pre", "resid_pre.0 resid_pre.1 resid_pre.2 resid_pre.3"),
            ("attn.hook_z, z.1", "z.0 z.1 z.2 z.3 z.1"),
            ("hook_pattern", "pattern.0 pattern.1 pattern.2 pattern.3"),
            ("blocks.1-2.attn.hook_z", "z.1 z.2"),
            ("blocks.3.hook_z", "z.3"),
        ] {
            assert_eq!(parsed(hook, &arch), Ok(site.to_string()), "{hook}");
        }
    }

    #[test]
    fn what_a_hook_is_depends_on_the_model() {
        let (mut plain, mut learned, mut normed) = (tiny_arch(), tiny_arch(), tiny_arch());
        for layer in &mut plain.layers {
            if let Channel::Mlp(mlp) = &mut layer.channel {
                mlp.gated = false;
            }
        }
        learned.positions = Positions::Learned { skipped: 0 };
        for layer in &mut learned.layers {
            if let Mixer::Attention(attention) = &mut layer.mixer {
                attention.rope = None;
            }
        }
        for layer in &mut normed.layers {
            if let Mixer::Attention(attention) = &mut layer.mixer {
                attention.qk_norm = Some(QkNorm { of: Norm::rms(1e-6), over: NormOver::Head, rotated: false });
            }
        }
        assert_eq!(parsed("blocks.1.mlp.hook_pre", &plain), Ok("mlp_pre.1".to_string()));
        let capped = Arch { logit_softcap: Some(30.0), ..tiny_arch() };
        for (arch, hook, why) in [
            (&plain, "blocks.1.mlp.hook_pre_linear", "has no gate"),
            (&learned, "hook_embed", "before the position's embedding"),
            (&learned, "blocks.1.attn.hook_rot_q", "rotates nothing"),
            (&normed, "blocks.1.attn.hook_q", "before the norms of queries and keys"),
            (&normed, "attn.hook_k", "before the norms of queries and keys"),
            (&capped, "unembed", "before logits are soft-capped"),
        ] {
            let error = parsed(hook, arch).expect_err(hook);
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(parsed("blocks.1.attn.hook_rot_q", &normed), Ok("rot_q.1".to_string()));
    }

    #[test]
    fn a_hook_without_a_site_is_refused_with_the_reason() {
        let arch = tiny_arch();
        for (hook, why) in [
            ("ln_final.hook_normalized", "before the norm's gain"),
            ("blocks.0.ln1.hook_normalized", "before the norm's gain"),
            ("blocks.0.ln2.hook_scale", "no site"),
            ("blocks.0.hook_attn_in", "`resid_pre`"),
            ("blocks.0.hook_mlp_in", "`resid_mid`"),
            ("hook_pos_embed", "`embed`"),
            ("blocks.0.attn.hook_zz", "the nearest are attn.hook_z"),
            ("blocks.9.attn.hook_z", "the model has 4 layers"),
            ("blocks.x.attn.hook_z", "`x` is neither a layer"),
            ("blocks.0.hook_embed", "not in a layer"),
            ("blocks.3", "no such kind"),
        ] {
            let error = parsed(hook, &arch).expect_err(hook);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_flag_that_takes_a_kind_takes_a_hook_of_all_layers() {
        for (hook, kind) in
            [("hook_resid_post", ResidPost), ("attn.hook_z", Z), ("hook_z", Z), ("mlp.hook_post", MlpAct)]
        {
            assert_eq!(hook.parse(), Ok(kind));
        }
        for (hook, said) in
            [("attn.hook_q", "`q`, unless"), ("mlp.hook_pre", "`mlp_gate`"), ("blocks.3.attn.hook_z", "nearest are z")]
        {
            let error = hook.parse::<SiteKind>().expect_err(hook).to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
