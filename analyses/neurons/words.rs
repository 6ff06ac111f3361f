//! Neurons by their vocabulary: which of them hold some words?
//!
//! A neuron's column, through the final norm's gain and the unembedding, raises some tokens and lowers others. Its *score* for some
//! words is the mean over them of what it adds to their logits, less the mean over the vocabulary, in standard deviations over the
//! vocabulary. The final norm's scale divides all logits alike and falls out. A negative score is as good as a positive one: a gated
//! MLP's activation may be negative, and then lowers what it raises above 0. Sources: Geva et al. 2022, "Transformer Feed-Forward
//! Layers Build Predictions by Promoting Concepts in the Vocabulary Space"; Hong et al. 2024, "Intrinsic Evaluation of Unlearning
//! Using Parametric Knowledge Traces", whose concept vectors are such columns; Lee et al. 2025, "The Geometry of Self-Verification
//! in a Task-Specific Reasoning Model".

use super::{Layer, Neuron};
use crate::analyses::prelude::*;
use crate::dataset::TokenRef;
use crate::dataset::encode::token_ids;
use crate::model::decoder::Decoder;
use crate::model::tokenizer::{Tokenizer, TokenizerError};
use crate::ops::to_vec;
use crate::plan::Reading;
use crate::study::Making;
use candle_core::{DType, Result as Computed, Tensor};

/// A word with the token that is scored for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub word: String,
    pub token: u32,
}

/// Numbers of the unembedding that are in memory at once, in f32: 256 MiB.
const NUMBERS: usize = 1 << 26;

/// The words as the model writes them within a text, each token once; and what a reader has to know of them.
///
/// # Errors
/// If the model has no tokenizer, or a word has no token, or an id is out of range.
pub fn read(words: &[TokenRef], model: &Model) -> Result<(Vec<Word>, Vec<String>), AnalysisError> {
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", param("words")));
    if words.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let (mut found, mut notes): (Vec<Word>, Vec<String>) = (Vec::new(), Vec::new());
    for given in words {
        let (word, tokens) = match given {
            TokenRef::Id(id) => (format!("id:{id}"), token_ids(model, std::slice::from_ref(given)).map_err(bad)?),
            TokenRef::Text(text) => {
                let tokenizer = model.tokenizer().map_err(|why| bad(why.to_string()))?;
                (text.trim().to_string(), within_text(tokenizer, text).map_err(|why| bad(why.to_string()))?)
            }
        };
        if let Some(same) = found.iter().find(|of| of.token == tokens[0]) {
            let why = format!("`{word}` begins with the same token as `{}` and is left out", same.word);
            notes.push(format!("{}: {why}", param("words")));
            continue;
        }
        if tokens.len() > 1 {
            let why = format!("`{word}` is {} tokens; the first one is scored", tokens.len());
            notes.push(format!("{}: {why}", param("words")));
        }
        found.push(Word { word, token: tokens[0] });
    }
    Ok((found, notes))
}

/// A word's tokens as it is written after other words: with a space before it, where the tokenizer has such tokens, unless only
/// without one it is a single token.
fn within_text(tokenizer: &Tokenizer, word: &str) -> Result<Vec<u32>, TokenizerError> {
    let plain = tokenizer.answer_tokens(word)?;
    if !tokenizer.tells_spaces() || !word.starts_with(|c: char| c.is_alphanumeric()) {
        return Ok(plain);
    }
    let spaced = tokenizer.answer_tokens(&format!(" {word}"))?;
    let is_word = tokenizer.token(spaced[0]).is_some_and(|text| !text.trim().is_empty());
    Ok(if is_word && (spaced.len() == 1 || plain.len() > 1) { spaced } else { plain })
}

/// The score of every neuron of some layers for the words.
///
/// # Errors
/// Whatever stops the work.
pub(super) fn scores(runner: &dyn Runner, layers: &[Layer], words: &[Word]) -> Result<Vec<Vec<f32>>, AnalysisError> {
    let decoder = &runner.model().decoder;
    let (d, vocab) = (decoder.arch.d_model as f64, decoder.arch.vocab as f64);
    let neurons: usize = layers.iter().map(|layer| layer.width).sum();
    let numbers: Vec<usize> = layers.iter().map(|layer| layer.layer).collect();
    let tokens: Vec<u32> = words.iter().map(|word| word.token).collect();
    let of = format!("scores of the neurons of layers {numbers:?} for the tokens {tokens:?}");
    let flops = 2.0 * d * d * (vocab + neurons as f64);
    let readings = runner.make(&Making { of: &of, flops, n: layers.len() }, &mut || {
        let scores = of_layers(decoder, layers, &tokens).map_err(|e| e.to_string())?;
        let reading = |values: Vec<f32>| Reading::Array(Array { shape: vec![values.len()], values });
        Ok(scores.into_iter().map(reading).collect())
    })?;
    Ok(readings.into_iter().map(|reading| reading.values().to_vec()).collect())
}

/// Each layer's scores. The deviation over the vocabulary is computed of the unembedding's covariance, so that no neuron's logits have
/// to be computed one by one.
fn of_layers(decoder: &Decoder, layers: &[Layer], tokens: &[u32]) -> Computed<Vec<Vec<f32>>> {
    let mean = Tensor::new(decoder.mean_unembedding()?, decoder.places.last())?;
    let covariance = covariance(decoder, &mean)?;
    let words = (decoder.unembedding(tokens)?.mean(0)? - &mean)?;
    let of_layer = |layer: &Layer| {
        let mut scores = Vec::with_capacity(layer.width);
        for writes in decoder.neuron_writes(layer.layer)? {
            let read = decoder.read_by_unembedding(&writes?)?;
            let above = to_vec(&read.matmul(&words.unsqueeze(1)?)?)?;
            let variance = to_vec(&(read.matmul(&covariance)? * &read)?.sum(1)?)?;
            // A column of zeros raises nothing.
            let score = |(above, variance): (f32, f32)| if variance > 0.0 { above / variance.sqrt() } else { 0.0 };
            scores.extend(above.into_iter().zip(variance).map(score));
        }
        Ok(scores)
    };
    layers.iter().map(of_layer).collect()
}

/// The covariance of the unembedding's rows, of which the mean is given. `[d_model, d_model]`
fn covariance(decoder: &Decoder, mean: &Tensor) -> Computed<Tensor> {
    let (d, vocab) = (decoder.arch.d_model, decoder.arch.vocab);
    let mut sum = Tensor::zeros((d, d), DType::F32, mean.device())?;
    for from in (0..vocab).step_by((NUMBERS / d).max(1)) {
        let tokens: Vec<u32> = (from..vocab.min(from + (NUMBERS / d).max(1))).map(|id| id as u32).collect();
        let rows = decoder.unembedding(&tokens)?.broadcast_sub(mean)?;
        sum = (sum + rows.t()?.contiguous()?.matmul(&rows)?)?;
    }
    sum / vocab as f64
}

/// The neurons with the largest scores, whatever their sign, the largest first.
pub(super) fn best(layers: &[Layer], scores: &[Vec<f32>], n: usize) -> Vec<Neuron> {
    let of_layer = |(layer, scores): (&Layer, &Vec<f32>)| -> Vec<(f32, Neuron)> {
        scores.iter().enumerate().map(|(column, score)| (score.abs(), layer.name(column))).collect()
    };
    let mut all: Vec<(f32, Neuron)> = layers.iter().zip(scores).flat_map(of_layer).collect();
    all.sort_by(|(a, i), (b, j)| b.total_cmp(a).then(i.cmp(j)));
    all.into_iter().take(n).map(|(_, neuron)| neuron).collect()
}

/// The score of one neuron.
pub(super) fn score(layers: &[Layer], scores: &[Vec<f32>], neuron: Neuron) -> Option<f64> {
    let at = layers.iter().position(|layer| layer.layer == neuron.layer)?;
    scores.get(at)?.get(layers[at].column(neuron)).map(|score| f64::from(*score))
}

/// How words are named in a sentence.
pub fn named(words: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = words.len().saturating_sub(SHOWN);
    let list = words.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}
