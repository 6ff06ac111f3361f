//! SentencePiece vocabularies with scores (Llama 2, Gemma, Mistral), as a BPE model: the merges are
//! recovered from the scores, as Hugging Face's `SentencePieceExtractor` recovers them.

use std::collections::HashMap;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};

use super::from_gguf::{Kind, TOKENS, Vocabulary, malformed, same_length};
use super::{TokenizerError, guarded};
use crate::model::gguf::Gguf;

const SCORES: &str = "tokenizer.ggml.scores";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const SPACE: &str = "\u{2581}";
/// The longest piece, in bytes; those in use have some hundreds at most. A file with a longer one is refused: the work
/// of splitting it grows with the square of its length, and left unsplit it would never be found in a text.
const LONGEST_PIECE: usize = 4096;

/// Builds the tokenizer of a file whose `tokenizer.ggml.model` is `llama`.
pub(super) fn build(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let scores = file.floats(SCORES)?;
    same_length(file.path(), SCORES, scores.len(), vocabulary.pieces.len())?;
    let adds_space = file.opt_bool(ADD_SPACE)?.unwrap_or(true);
    let merges = merges(vocabulary, scores)?;
    let unknown = unknown(file, vocabulary)?;
    let model = guarded(|| {
        let builder =
            BPE::builder().vocab_and_merges(vocabulary.for_model(), merges).byte_fallback(true).fuse_unk(true);
        match unknown {
            Some(piece) => builder.unk_token(piece).build(),
            None => builder.build(),
        }
    });
    let inconsistent = |why: String| malformed(file.path(), TOKENS, why);
    let mut inner = tokenizers::Tokenizer::new(model.map_err(inconsistent)?);
    guarded(|| {
        inner.with_normalizer(Some(normalizer(adds_space)?))?;
        inner.with_decoder(Some(decoder(adds_space)?));
        Ok(())
    })
    .map_err(inconsistent)?;
    // SentencePiece looks for user-defined pieces in the normalised text. Where a space is put first,
    // the piece itself would get one too, and would be found at the start of a text only.
    vocabulary.add_to(&mut inner, !adds_space)?;
    Ok(inner)
}

/// The piece for what the vocabulary cannot spell. Without it, every byte must have its token: text
/// would be dropped silently.
fn unknown(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Option<String>, TokenizerError> {
    let stated = vocabulary.id(file, UNKNOWN)?;
    let found = vocabulary.entries().find(|(id, _, kind)| match stated {
        Some(stated) => *id == stated,
        None => *kind == Kind::Unknown,
    });
    if let Some((_, piece, _)) = found {
        return Ok(Some(piece.to_owned()));
    }
    let spelled = (0..=u8::MAX).all(|byte| vocabulary.ids.contains_key(&*format!("<0x{byte:02X}>")));
    if !spelled {
        let why = "there is neither an unknown token nor a token for each byte";
        return Err(malformed(file.path(), TOKENS, why));
    }
    Ok(None)
}

/// A space becomes `▁`, and one is put before the text where the model wants it.
fn normalizer(adds_space: bool) -> tokenizers::Result<NormalizerWrapper> {
    let replace = Replace::new(" ", SPACE)?;
    if !adds_space {
        return Ok(replace.into());
    }
    let steps = vec![Prepend::new(SPACE.to_owned()).into(), replace.into()];
    Ok(Normalizers::new(steps).into())
}

fn decoder(adds_space: bool) -> tokenizers::Result<DecoderWrapper> {
    let mut steps: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if adds_space {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(steps).into())
}

/// A way to make a piece from two others.
struct Merge<'a> {
    /// The score of the whole.
    score: f64,
    left: &'a str,
    right: &'a str,
    /// In characters.
    lengths: (usize, usize),
    ids: (u32, u32),
}

/// Every way to make a piece from two others, best score first; among equals the longer left part,
/// then the order of the vocabulary.
fn merges(vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Result<Vec<(String, String)>, TokenizerError> {
    // Control, unknown, unused and byte tokens are not built from text.
    let spoken: HashMap<&str, u32> = vocabulary
        .entries()
        .filter(|(_, _, kind)| matches!(kind, Kind::Normal | Kind::UserDefined))
        .map(|(id, piece, _)| (piece, id))
        .collect();
    let mut merges = Vec::new();
    for ((id, piece, _), score) in vocabulary.entries().zip(scores) {
        if spoken.get(piece) != Some(&id) {
            continue;
        }
        if piece.len() > LONGEST_PIECE {
            let why = format!("token {id} has {} bytes, {LONGEST_PIECE} is the most", piece.len());
            return Err(malformed(vocabulary.path, TOKENS, why));
        }
        splits(piece, *score, &spoken, &mut merges);
    }
    merges.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.lengths.cmp(&a.lengths)));
    Ok(merges.into_iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect())
}

fn splits<'a>(piece: &'a str, score: f64, spoken: &HashMap<&str, u32>, merges: &mut Vec<Merge<'a>>) {
    let first = merges.len();
    let length = piece.chars().count();
    for (count, (at, _)) in piece.char_indices().enumerate().skip(1) {
        let (left, right) = piece.split_at(at);
        if let (Some(left_id), Some(right_id)) = (spoken.get(left), spoken.get(right)) {
            merges.push(Merge { score, left, right, lengths: (count, length - count), ids: (*left_id, *right_id) });
        }
    }
    if let Some(found) = merges.get_mut(first..) {
        found.sort_by_key(|merge| merge.ids);
    }
}
