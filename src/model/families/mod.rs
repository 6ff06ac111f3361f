//! The model families: a page each.
//!
//! A page says what its family is: how the keys of `config.json`, or those of a GGUF file, become an [`Arch`], and what its
//! tensors are called in both. What several families share, they say in the same words: `rotary` has those that descend from
//! Llama, [`super::config`] and [`super::gguf_config`] read keys. A new family is a page and its lines in this file; nothing
//! outside this folder asks which family a model is of.

mod apertus;
mod arcee;
mod bamba;
mod bloom;
mod cohere;
mod cohere2;
mod dbrx;
mod deepseek_v2;
mod deepseek_v3;
mod deepseek_v32;
mod diffllama;
mod ernie4_5;
mod ernie4_5_moe;
mod exaone4;
mod falcon;
mod falcon_h1;
mod falcon_mamba;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod glm;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt2;
mod gpt_bigcode;
mod gpt_neo;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod helium;
mod hunyuan_v1_dense;
mod in_gguf;
mod internlm3;
mod jamba;
mod kimi_linear;
mod lfm2;
mod lfm2_moe;
mod llama;
mod llama4_text;
mod mamba;
mod mamba2;
mod minimax;
mod minimax_m2;
mod ministral;
mod ministral3;
mod mistral;
mod mixtral;
mod mpt;
mod nanochat;
mod nemotron;
mod nemotron_h;
mod olmo;
mod olmo2;
mod olmo3;
mod olmoe;
mod opt;
mod persimmon;
mod phi;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5_moe_text;
mod qwen3_5_text;
mod qwen3_moe;
mod qwen3_next;
mod recurrent_gemma;
mod rotary;
mod rwkv;
mod rwkv7;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
mod vaultgemma;
mod xglm;
mod zamba2;

use super::arch::Arch;
use super::channel::{ExpertNames, MlpWeights};
use super::config::{ConfigError, Reader};
use super::gguf_config::{GgufConfigError, Keys};
use super::mixer::{AttentionWeights, FedNames, RecurrentNames};
use super::weights::form::Named;
use std::fmt;

/// All families, in the order in which messages list them.
pub static FAMILIES: &[&Family] = &[
    &gpt2::GPT2,
    &gpt_neo::GPT_NEO,
    &gptj::GPTJ,
    &gpt_neox::GPT_NEOX,
    &gpt_bigcode::GPT_BIGCODE,
    &opt::OPT,
    &bloom::BLOOM,
    &falcon::FALCON,
    &mpt::MPT,
    &xglm::XGLM,
    &phi::PHI,
    &persimmon::PERSIMMON,
    &stablelm::STABLELM,
    &starcoder2::STARCODER2,
    &nemotron::NEMOTRON,
    &llama::LLAMA,
    &mistral::MISTRAL,
    &ministral::MINISTRAL,
    &ministral3::MINISTRAL3,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &gemma::GEMMA,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &gemma3n::GEMMA3N,
    &gemma4::GEMMA4,
    &phi3::PHI3,
    &olmo::OLMO,
    &olmo2::OLMO2,
    &olmo3::OLMO3,
    &cohere::COHERE,
    &cohere2::COHERE2,
    &granite::GRANITE,
    &smollm3::SMOLLM3,
    &exaone4::EXAONE4,
    &glm::GLM,
    &glm4::GLM4,
    &helium::HELIUM,
    &ernie4_5::ERNIE4_5,
    &hunyuan_v1_dense::HUNYUAN_V1_DENSE,
    &seed_oss::SEED_OSS,
    &apertus::APERTUS,
    &arcee::ARCEE,
    &internlm3::INTERNLM3,
    &nanochat::NANOCHAT,
    &mixtral::MIXTRAL,
    &qwen2_moe::QWEN2_MOE,
    &qwen3_moe::QWEN3_MOE,
    &olmoe::OLMOE,
    &gpt_oss::GPT_OSS,
    &glm4_moe::GLM4_MOE,
    &granitemoe::GRANITEMOE,
    &phimoe::PHIMOE,
    &deepseek_v2::DEEPSEEK_V2,
    &deepseek_v3::DEEPSEEK_V3,
    &llama4_text::LLAMA4_TEXT,
    &ernie4_5_moe::ERNIE4_5_MOE,
    &dbrx::DBRX,
    &minimax_m2::MINIMAX_M2,
    &qwen3_next::QWEN3_NEXT,
    &qwen3_5_text::QWEN3_5_TEXT,
    &lfm2::LFM2,
    &mamba::MAMBA,
    &falcon_mamba::FALCON_MAMBA,
    &mamba2::MAMBA2,
    &bamba::BAMBA,
    &falcon_h1::FALCON_H1,
    &jamba::JAMBA,
    &granitemoehybrid::GRANITEMOEHYBRID,
    &nemotron_h::NEMOTRON_H,
    &recurrent_gemma::RECURRENT_GEMMA,
    &rwkv::RWKV,
    &rwkv7::RWKV7,
    &kimi_linear::KIMI_LINEAR,
    &vaultgemma::VAULTGEMMA,
    &qwen3_5_moe_text::QWEN3_5_MOE_TEXT,
    &glm4_moe_lite::GLM4_MOE_LITE,
    &lfm2_moe::LFM2_MOE,
    &deepseek_v32::DEEPSEEK_V32,
    &diffllama::DIFFLLAMA,
    &minimax::MINIMAX,
    &zamba2::ZAMBA2,
    #[cfg(test)]
    &toy::TOY,
];

/// A model family.
pub struct Family {
    /// Its `model_type` in `config.json`.
    pub(super) name: &'static str,
    /// The `model_type`s under which it is the text part of models that read more than text.
    pub(super) text_parts: &'static [&'static str],
    /// Models that read more than text and have it for text part where they do not say which.
    pub(super) wrappers: &'static [&'static str],
    /// The sizes that `transformers` takes where a description has none: text parts give only those that differ.
    pub(super) sizes: &'static [(&'static str, usize)],
    /// Describes a model by its `config.json`.
    pub(super) describe: fn(&Reader) -> Result<Arch, ConfigError>,
    /// Its tensors in a Hugging Face folder.
    pub(super) tensors: Tensors,
    /// What it is in GGUF files, where those are read.
    pub(super) gguf: Option<InGguf>,
}

/// A family in GGUF files.
pub(super) struct InGguf {
    /// Its `general.architecture`; of several names with a space between.
    pub architecture: &'static str,
    /// Describes a model by the file's metadata.
    pub describe: fn(&Keys) -> Result<Arch, GgufConfigError>,
    /// Its tensors there.
    pub tensors: Tensors,
}

/// What the tensors of a family are called, without `.weight` and `.bias`, and how they hold what the decoder reads.
pub(crate) struct Tensors {
    /// What usually stands before all names. It need not: see [`super::weights`].
    pub prefix: &'static str,
    pub embed: &'static str,
    /// Of the norm of the embedding, where there is one.
    pub embed_norm: &'static str,
    /// Of the matrices from the embedding to the model and from it to the unembedding, where their widths differ.
    pub led: [&'static str; 2],
    /// Of the positions, where they are learned.
    pub positions: &'static str,
    pub final_norm: &'static str,
    /// The names of the unembedding, which may stand beside the decoder.
    pub unembed: &'static [&'static str],
    /// What stands before the number of a layer.
    pub layers: &'static str,
    /// What follows that number.
    pub layer: Names,
    pub qkv: Qkv,
    /// Whether matrices are stored as `[in, out]`.
    pub transposed: bool,
    /// Whether the halves of a query and of a key that turn against each other are interleaved.
    pub interleaved: bool,
    /// Whether the halves of every query and key are interleaved, whatever part of it the layer rotates, if any: so llama.cpp's
    /// converter stores those of Llama and its kin.
    pub permuted: bool,
    /// Whether the norm before MLPs is stored without `.weight` after its name.
    pub bare_mlp_norm: bool,
}

/// What the tensors of a layer are called; empty, or nothing, where a family has no such part. Parts that are stored in one
/// tensor have one name.
pub(crate) struct Names {
    pub attn_norm: &'static str,
    pub attention: AttentionWeights<Named>,
    pub attn_post_norm: &'static str,
    pub mlp_norm: &'static str,
    pub mlp: MlpWeights<Named>,
    /// Of layers with several experts.
    pub experts: ExpertNames,
    /// Of layers with a recurrent mixer.
    pub recurrent: RecurrentNames,
    /// Of layers whose attention and channel are others' too, and feed a recurrent mixer.
    pub fed: Option<FedNames>,
    pub mlp_post_norm: &'static str,
    /// Of channels that read the position before each too, how much of what each projection reads is of the position itself; whole
    /// names.
    pub shifts: &'static [&'static str],
}

/// How the outputs of the projections to queries, keys and values are stored.
#[derive(Clone, Copy)]
pub(crate) enum Qkv {
    /// In a tensor each.
    Apart,
    /// In one tensor: all queries, all keys, all values.
    InTurn,
    /// In one tensor: the query, the key and the value of one head after another.
    ByHead,
    /// In one tensor: the queries, the key and the value of one group of heads that share these, after another.
    ByGroup,
}

impl Family {
    /// A family of which no text part is known, and no GGUF file is read.
    const fn new(name: &'static str, describe: fn(&Reader) -> Result<Arch, ConfigError>, tensors: Tensors) -> Self {
        Family { name, text_parts: &[], wrappers: &[], sizes: &[], describe, tensors, gguf: None }
    }

    /// What it is called: its `model_type`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The family that a `model_type` stands for, where `wrapped` says whether it is of a text part.
    pub(super) fn named(model_type: &str, wrapped: bool) -> Option<&'static Family> {
        let part = |family: &Family| wrapped && family.text_parts.contains(&model_type);
        FAMILIES.iter().copied().find(|family| family.name == model_type || part(family))
    }

    /// The family that a model of other parts has for text part where it does not say.
    pub(super) fn within(wrapper: &str) -> Option<&'static Family> {
        FAMILIES.iter().copied().find(|family| family.wrappers.contains(&wrapper))
    }

    /// Those that GGUF files are read of.
    pub(super) fn in_gguf() -> impl Iterator<Item = (&'static Family, &'static InGguf)> {
        FAMILIES.iter().filter_map(|family| Some((*family, family.gguf.as_ref()?)))
    }

    /// The size that the family has where a description has none.
    pub(super) fn size(&self, key: &str) -> Option<usize> {
        self.sizes.iter().find(|(name, _)| *name == key).map(|(_, size)| *size)
    }
}

impl InGguf {
    /// The values of `general.architecture` that files of the family have.
    pub(super) fn architectures(&self) -> impl Iterator<Item = &'static str> {
        self.architecture.split(' ')
    }
}

impl fmt::Debug for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, self.layers)
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The names of all families, as messages list them.
pub(super) fn known() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}
