//! What families have in common in GGUF files: the names of tensors, and how the keys that most architectures have become a
//! description. What a family has of its own there is on its page, after llama.cpp's converter and its model files.

use super::{Names, Qkv, Tensors, rotary};
use crate::model::arch::*;
use crate::model::channel::{ExpertNames, MlpWeights, StoredExperts};
use crate::model::config::Sliding;
use crate::model::gguf_config::{GgufConfigError, Keys};
use crate::model::mixer::{AttentionWeights, LatentWeights, RecurrentNames};
use crate::model::rope::{Rope, Scaling};
use crate::model::weights::form::Named;

/// The names of tensors, which are the same for every architecture.
pub(super) const TENSORS: Tensors = Tensors {
    prefix: "",
    embed: "token_embd",
    embed_norm: "token_embd_norm",
    led: [""; 2],
    positions: "position_embd",
    final_norm: "output_norm",
    unembed: &["output"],
    layers: "blk.",
    layer: Names {
        attn_norm: "attn_norm",
        attention: AttentionWeights {
            q: "attn_q",
            k: Some("attn_k"),
            v: Some("attn_v"),
            q_norm: Some("attn_q_norm"),
            k_norm: Some("attn_k_norm"),
            sinks: Some("attn_sinks.weight"),
            gate: None,
            difference: None,
            latent: Some(LATENT),
            o: "attn_output",
        },
        attn_post_norm: "post_attention_norm",
        mlp_norm: "ffn_norm",
        mlp: MlpWeights { gate: Some("ffn_gate"), up: "ffn_up", down: "ffn_down", xielu: None },
        experts: ExpertNames {
            router: "ffn_gate_inp",
            choice_bias: "exp_probs_b.bias",
            choice_bias_in_rows: false,
            each: "",
            stored: StoredExperts::Stacks {
                gate: "ffn_gate_exps.weight",
                up: "ffn_up_exps.weight",
                down: "ffn_down_exps.weight",
            },
            shared: MlpWeights {
                gate: Some("ffn_gate_shexp"),
                up: "ffn_up_shexp",
                down: "ffn_down_shexp",
                xielu: None,
            },
            shared_gate: "ffn_gate_inp_shexp",
            apart: None,
        },
        recurrent: RecurrentNames {
            inputs: ["ssm_in", "", "", "", "", ""],
            conv: "ssm_conv1d.weight",
            conv_bias: "ssm_conv1d.bias",
            conv_parts: &[],
            decay: "ssm_a",
            decays: true,
            dt_bias: "ssm_dt.bias",
            skip: "ssm_d",
            prefix: "",
            others: &[
                ("x_proj", "ssm_x"),
                ("dt_proj", "ssm_dt"),
                ("dt_layernorm", "ssm_dt_norm"),
                ("b_layernorm", "ssm_b_norm"),
                ("c_layernorm", "ssm_c_norm"),
            ],
            norm: "ssm_norm",
            out: "ssm_out",
            fused_shares: None,
        },
        mlp_post_norm: "post_ffw_norm",
        shifts: &[],
        fed: None,
    },
    qkv: Qkv::Apart,
    transposed: false,
    interleaved: false,
    permuted: false,
    bare_mlp_norm: false,
};

/// The names of what latent attention is made of.
pub(super) const LATENT: LatentWeights<Named> = LatentWeights {
    q_up: Some("attn_q_b"),
    q: Some("attn_q_a"),
    q_norm: Some("attn_q_a_norm"),
    kv: Some("attn_kv_a_mqa"),
    kv_norm: Some("attn_kv_a_norm"),
    k_rotary: None,
    index: None,
};

/// Those of architectures whose rotation turns neighbours against each other, as llama.cpp's `LLAMA_ROPE_TYPE_NORM` does.
pub(super) const INTERLEAVED: Tensors = Tensors { interleaved: true, ..TENSORS };

/// Those of architectures whose queries and keys llama.cpp's converter interleaves, for such a rotation.
pub(super) const PERMUTED: Tensors = Tensors { permuted: true, ..INTERLEAVED };

/// Those of architectures whose queries, keys and values are stored in one.
pub(super) const FUSED: Tensors = Tensors {
    layer: Names {
        attention: AttentionWeights {
            q: "attn_qkv",
            k: Some("attn_qkv"),
            v: Some("attn_qkv"),
            ..TENSORS.layer.attention
        },
        ..TENSORS.layer
    },
    qkv: Qkv::InTurn,
    ..TENSORS
};

/// An MLP whose gate and up are stored in one.
pub(super) const GATE_UP: MlpWeights<Named> = MlpWeights { gate: Some("ffn_up"), ..TENSORS.layer.mlp };

/// What a family has of its own there. [`LLAMA`] has what most do.
pub(super) struct Own {
    /// Reads the norms of layers.
    pub norm: fn(&Keys) -> Result<Norm, GgufConfigError>,
    pub placement: NormPlacement,
    /// Whether mixer and channel read the same stream.
    pub parallel: bool,
    pub activation: Activation,
    /// Whether the MLP has a gate.
    pub gated: bool,
    /// Whether the width of MLPs is that of their tensor: converters take four times the model's for granted.
    pub width_of_tensor: bool,
    /// By whose root scores are divided; without one, the size of a head.
    pub query_scalar: Option<f64>,
    pub windows: fn(&Keys, usize, usize) -> Result<Sliding, GgufConfigError>,
    /// Reads the rotations; of two, the second is of layers whose attention slides.
    pub ropes: fn(&Keys, usize, usize) -> Result<Vec<Rope>, GgufConfigError>,
    /// Whether token embeddings are multiplied by the root of the width.
    pub scaled_embedding: bool,
}

/// What most families have.
pub(super) const LLAMA: Own = Own {
    norm: rms,
    placement: NormPlacement::Before,
    parallel: false,
    activation: Activation::Silu,
    gated: true,
    width_of_tensor: false,
    query_scalar: None,
    windows: |k, n, n_ctx| k.no_window(n, n_ctx),
    ropes: |k, d_head, n_ctx| Ok(vec![k.rope(d_head, n_ctx, 10_000.0)?]),
    scaled_embedding: false,
};

/// Layer norms, and a plain MLP.
pub(super) const PLAIN: Own = Own { norm: layer, gated: false, activation: Activation::GeluTanh, ..LLAMA };

/// Root-mean-square norms.
pub(super) fn rms(k: &Keys) -> Result<Norm, GgufConfigError> {
    Ok(Norm::rms(k.gguf.f64(&k.must("attention.layer_norm_rms_epsilon")?)?))
}

/// Layer norms, with biases if the file has them.
pub(super) fn layer(k: &Keys) -> Result<Norm, GgufConfigError> {
    let norm = Norm::layer(k.gguf.f64(&k.must("attention.layer_norm_epsilon")?)?);
    Ok(Norm { bias: k.has("output_norm.bias"), ..norm })
}

/// No rotation.
pub(super) fn none(_: &Keys, _: usize, _: usize) -> Result<Vec<Rope>, GgufConfigError> {
    Ok(Vec::new())
}

/// Describes a model of such a family. What the file does not say, its tensors do: which biases and norms there are.
pub(super) fn described(k: &Keys, own: &Own) -> Result<Arch, GgufConfigError> {
    let (d_model, n_heads) = (k.d_model()?, k.size("attention.head_count")?);
    let d_head = k.d_head(d_model, n_heads)?;
    let n_kv_heads = k.opt_size("attention.head_count_kv")?.unwrap_or(n_heads);
    of_heads(k, own, d_model, Heads { n_heads, n_kv_heads, d_head, ..Heads::default() })
}

/// [`described`] of an architecture some of whose layers have no KV heads, and which these are: a recurrent mixer stands there.
pub(super) fn hybrid(k: &Keys, own: &Own) -> Result<(Arch, Vec<bool>), GgufConfigError> {
    let (d_model, n_heads) = (k.d_model()?, k.size("attention.head_count")?);
    let d_head = k.d_head(d_model, n_heads)?;
    let (n_kv_heads, recurrent) = k.kv_heads_or_none(k.layers(n_heads)?)?;
    let heads = Heads { n_heads, n_kv_heads, d_head, ..Heads::default() };
    Ok((of_heads(k, own, d_model, heads)?, recurrent))
}

/// [`described`] with heads whose sizes have keys of their own; their scale is made here.
pub(super) fn of_heads(k: &Keys, own: &Own, d_model: usize, heads: Heads) -> Result<Arch, GgufConfigError> {
    let Heads { n_heads, d_head, .. } = heads;
    let n_layers = k.layers(n_heads)?;
    let n_ctx = k.size("context_length")?;
    let has = |tensor: &str| k.first_with(n_layers, tensor).is_some();
    let mlp = Mlp {
        width: width(k, own, n_layers)?,
        gated: own.gated,
        activation: own.activation,
        xielu: false,
        cut: None,
        bias: has("ffn_up.bias"),
    };
    let norm = (own.norm)(k)?;
    let ropes = (own.ropes)(k, d_head, n_ctx)?;
    let sliding = (own.windows)(k, n_layers, n_ctx)?;
    let scale = own.query_scalar.unwrap_or(d_head as f64).powf(-0.5);
    let attention = Attention {
        qk_norm: normed(k, norm, d_head, n_layers),
        qkv_bias: has("attn_q.bias") || has("attn_qkv.bias"),
        out_bias: has("attn_output.bias"),
        ..Attention::plain(Heads { scale, ..heads })
    };
    let layers = rotary::layers(attention, mlp, &sliding, &ropes);
    Ok(Arch {
        placement: own.placement,
        parallel: own.parallel,
        ropes,
        embed_scale: own.scaled_embedding.then(|| (d_model as f64).sqrt()),
        ..of_layers(k, d_model, norm, layers)?
    })
}

/// A model of these layers.
pub(super) fn of_layers(k: &Keys, d_model: usize, norm: Norm, layers: Vec<Layer>) -> Result<Arch, GgufConfigError> {
    let vocab = k.gguf.tensor("token_embd.weight")?.shape.first().copied().unwrap_or(0);
    let n_ctx = k.context(k.size("context_length")?)?;
    let (tied, further) = (!k.has("output.weight"), k.further()?);
    Ok(Arch { tied, further, ..Arch::plain(k.family, [d_model, vocab, n_ctx], norm, layers) })
}

fn width(k: &Keys, own: &Own, n_layers: usize) -> Result<usize, GgufConfigError> {
    // Files of models with experts in every layer may have no width of others.
    let none = !k.gives("feed_forward_length") && k.has("blk.0.ffn_gate_inp.weight");
    let given = k.size(if none { "expert_feed_forward_length" } else { "feed_forward_length" })?;
    let stored = k.first_with(n_layers, "ffn_up.weight").and_then(|(_, shape)| shape.first().copied());
    Ok(stored.filter(|_| own.width_of_tensor).unwrap_or(given))
}

/// The norms of queries and keys, which the tensor's shape tells: of each head, of each with its own weight, of all.
fn normed(k: &Keys, norm: Norm, d_head: usize, n_layers: usize) -> Option<QkNorm> {
    let (_, shape) = k.first_with(n_layers, "attn_q_norm.weight")?;
    let over = match *shape {
        [n] if n == d_head => NormOver::Head,
        [_] => NormOver::All,
        _ => NormOver::OwnHead,
    };
    let of = Norm { bias: k.first_with(n_layers, "attn_q_norm.bias").is_some(), ..norm };
    Some(QkNorm { of, over, rotated: false })
}

/// The same model with experts in the layers that have such tensors, chosen by a softmax over all. Their number, their width and
/// what stands beside them are those of the tensors.
pub(super) fn with_experts(
    k: &Keys,
    arch: Arch,
    change: impl FnOnce(Experts) -> Experts,
) -> Result<Arch, GgufConfigError> {
    k.pass_over(&["expert_feed_forward_length", "expert_shared_count", "expert_shared_feed_forward_length"]);
    k.pass_over(&["leading_dense_block_count"]);
    let n_layers = arch.n_layers;
    let Some((first, _)) = k.first_with(n_layers, "ffn_gate_inp.weight") else {
        return Err(k.bad("expert_count", "asks for experts, and the file has no `ffn_gate_inp.weight` in any layer"));
    };
    let has = |tensor: &str| k.has(&format!("blk.{first}.{tensor}"));
    let shape = |tensor: &str| Ok::<_, GgufConfigError>(&k.gguf.tensor(&format!("blk.{first}.{tensor}"))?.shape);
    let up = shape("ffn_up_exps.weight")?;
    let mlp = Mlp {
        width: up.get(1).copied().unwrap_or(0),
        gated: true,
        activation: Activation::Silu,
        xielu: false,
        cut: None,
        bias: has("ffn_up_exps.bias"),
    };
    let shared = match has("ffn_up_shexp.weight") {
        true => {
            let width = shape("ffn_up_shexp.weight")?.first().copied().unwrap_or(0);
            Some(Shared { mlp: Mlp { width, bias: false, ..mlp }, gated: has("ffn_gate_inp_shexp.weight") })
        }
        false => None,
    };
    let router = Router {
        bias: has("ffn_gate_inp.bias"),
        choice_bias: has("exp_probs_b.bias"),
        renormalised: k.flag("expert_weights_norm", false)?,
        scale: k.factor_if_any("expert_weights_scale")?.unwrap_or(1.0),
        ..Router::SOFTMAX
    };
    let (n, chosen) = (k.size("expert_count")?, k.size("expert_used_count")?);
    let experts = change(Experts { n, chosen, mlp, router, shared, weighs_input: false, apart: None });
    let sparse: Vec<bool> = (0..n_layers).map(|l| k.has(&format!("blk.{l}.ffn_gate_inp.weight"))).collect();
    Ok(rotary::with_experts(arch, experts, |l| sparse[l]))
}

/// Holds the kind of scores that a file gives, if it gives one, to sigmoids.
pub(super) fn sigmoids(k: &Keys) -> Result<(), GgufConfigError> {
    const GATING: &str = "expert_gating_func";
    match k.opt_size(GATING)?.is_none_or(|kind| kind == 0 || kind == 2) {
        true => Ok(()),
        false => Err(k.bad(GATING, "is not 2, sigmoids, as the architecture has them")),
    }
}

/// Experts whose weights are divided by their sum.
pub(super) fn renormalised(experts: Experts) -> Experts {
    Experts { router: Router { renormalised: true, ..experts.router }, ..experts }
}

/// The same model with the soft-caps of scores and of logits that the file gives; 0 is none.
pub(super) fn capped(k: &Keys, mut arch: Arch) -> Result<Arch, GgufConfigError> {
    let scores = k.factor_if_any("attn_logit_softcapping")?;
    arch.each_attention(|_, attention| attention.heads.softcap = scores);
    Ok(Arch { logit_softcap: k.factor_if_any("final_logit_softcapping")?, ..arch })
}

/// The same model, of which only some layers rotate.
pub(super) fn rotating(mut arch: Arch, which: impl Fn(usize, &Attention) -> bool) -> Arch {
    arch.each_attention(|l, attention| attention.rope = attention.rope.filter(|_| which(l, attention)));
    arch
}

/// A rotation with a divisor for each frequency, of two sets by the prompt's length, where the file has such.
pub(super) fn long_ropes(k: &Keys, d_head: usize, n_ctx: usize) -> Result<Vec<Rope>, GgufConfigError> {
    let mut rope = k.rope(d_head, n_ctx, 10_000.0)?;
    if k.has("rope_factors_long.weight") {
        let set = |name: &str| k.numbers(&format!("rope_factors_{name}.weight"), rope.pairs());
        let (short, long) = (set("short")?, set("long")?);
        let original = k.opt_size("rope.scaling.original_context_length")?.unwrap_or(n_ctx);
        let attention_factor = k.factor_if_any("rope.scaling.attn_factor")?.unwrap_or(1.0);
        rope.scaling = Scaling::LongRope { short, long, original, attention_factor };
    }
    Ok(vec![rope])
}
