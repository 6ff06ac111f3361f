//! What was measured, of which prompts: what `run.json` and every report show, so that a reader sees what the model read.

use serde::{Deserialize, Serialize};

/// A token with the text that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedToken {
    pub id: u32,
    pub text: String,
}

/// How many prompts became token ids in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    /// Through the model's chat template.
    pub applied: usize,
    /// As text, without a template.
    pub text: usize,
    /// Given as ids.
    pub ids: usize,
}

/// A prompt as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownPrompt {
    /// The item's id.
    pub id: String,
    /// Its field: `positive`, `prompt`.
    pub field: String,
    /// Its tokens, in their order.
    pub tokens: Vec<NamedToken>,
}

/// A token that the metric compares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredToken {
    pub id: u32,
    pub text: String,
    /// What the dataset or the flag says, where that is more than this token, which is its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_of: Option<String>,
    /// Items whose metric it is in.
    pub items: usize,
    /// Its mean log-probability after the prompts (of pairs: the positive ones) that were looked at, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_logprob: Option<f64>,
    /// The same after the negative prompts of pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_logprob_negative: Option<f64>,
}

/// The metric over the prompts that were looked at, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanMetric {
    /// Over how many items: as many as there are, or a sample, evenly from all.
    pub items: usize,
    /// Its mean over the prompts; of pairs, over the positive ones.
    pub mean: f64,
    /// Its mean over the negative prompts of pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_mean: Option<f64>,
    /// Pairs whose positive prompt has less of it than the negative one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive_below: Option<usize>,
}

/// What was measured; see the module's first lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// How the prompts became token ids.
    pub template: Ways,
    /// The first prompt, with its token pieces.
    pub first_prompt: Option<ShownPrompt>,
    /// The tokens that count for the behaviour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<ScoredToken>,
    /// Those that count against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foil: Vec<ScoredToken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MeanMetric>,
    /// What is likely a mistake in the prompts or tokens, and what was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
