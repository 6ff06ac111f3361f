//! Chat tokens that a GGUF file takes for ordinary text: their type is wrong, so that `<|im_start|>` would be spelled out
//! in ten tokens. What shows them is that the chat template writes them, or that the metadata names them (as the token
//! that ends a text, say), and that the vocabulary holds them whole.

use tokenizers::AddedToken;

use super::from_gguf::{Kind, Vocabulary, malformed};
use super::{TokenizerError, guarded};

const TYPES: &str = "tokenizer.ggml.token_type";
/// The longest marker that is looked for, in bytes.
const LONGEST: usize = 128;
/// How many tokens a warning names.
const NAMED: usize = 8;

/// Makes them special tokens of `inner`, each under its own id, and says so. `named` are the pieces of the metadata's own
/// special tokens.
pub(super) fn take_whole<'a>(
    inner: &mut tokenizers::Tokenizer,
    vocabulary: &Vocabulary<'_>,
    template: &'a str,
    named: impl Iterator<Item = &'a str>,
) -> Result<Option<String>, TokenizerError> {
    let mut found: Vec<&str> = named.filter(|piece| in_brackets(piece)).chain(written(template)).collect();
    found.sort_unstable();
    found.dedup();
    let wrong = |error: String| malformed(vocabulary.path, TYPES, error);
    let mut whole = Vec::new();
    for piece in found {
        let Some(id) = vocabulary.ids.get(piece) else { continue };
        let kind = vocabulary.kinds.get(*id as usize);
        // What merges build is an ordinary token, as `<div>` may be.
        let spelled = || guarded(|| inner.encode_fast(piece, false)).map(|ids| !ids.get_ids().contains(id));
        if matches!(kind, Some(Kind::Normal | Kind::Unused)) && spelled().map_err(wrong)? {
            whole.push(piece);
        }
    }
    if whole.is_empty() {
        return Ok(None);
    }
    let tokens: Vec<AddedToken> = whole.iter().map(|piece| AddedToken::from(*piece, true)).collect();
    guarded(|| inner.add_tokens(tokens)).map_err(wrong)?;
    let more = if whole.len() > NAMED { ", ..." } else { "" };
    whole.truncate(NAMED);
    Ok(Some(format!(
        "`{TYPES}` takes {}{more} for ordinary text, where the chat template or the metadata has them as marks: each is \
         taken as one token; convert the model again with a current llama.cpp",
        whole.join(", ")
    )))
}

/// What stands in angle brackets in a template, or in square ones in capitals, without a space or a quotation mark.
fn written(template: &str) -> impl Iterator<Item = &str> {
    template.match_indices(['<', '[']).filter_map(|(at, open)| {
        let rest = template.get(at..)?;
        let close = if open == "<" { '>' } else { ']' };
        // Not further than the longest marker: a template may be a megabyte of brackets.
        let ends = |c: char| c == close || c.is_whitespace() || c == '\'' || c == '"';
        let (end, _) = rest.char_indices().take(LONGEST).find(|(_, c)| ends(*c))?;
        rest.get(..=end).filter(|piece| in_brackets(piece))
    })
}

/// Whether a piece looks like a mark: `<|x|>`, `<x>`, `[X]`.
fn in_brackets(piece: &str) -> bool {
    let within = |open, close| piece.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    let named = |inner: &str| inner.chars().any(char::is_alphabetic);
    let capitals = |inner: &str| named(inner) && !inner.chars().any(char::is_lowercase);
    piece.len() <= LONGEST && (within('<', '>').is_some_and(named) || within('[', ']').is_some_and(capitals))
}
