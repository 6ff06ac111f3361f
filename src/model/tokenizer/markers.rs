//! Chat tokens that a GGUF file takes for ordinary text: their type is wrong, so that `<|im_start|>` would be spelled out
//! in ten tokens. What shows them is that the chat template writes them, or that the metadata names them (as the token
//! that ends a text, say), and that the vocabulary holds them whole.

use tokenizers::AddedToken;

use super::from_gguf::{Kind, Vocabulary, malformed};
use super::marks::marks;
use super::{TokenizerError, guarded};

const TYPES: &str = "tokenizer.ggml.token_type";
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
    let named = named.filter(|piece| marks(piece) == [*piece]);
    let mut found: Vec<&str> = named.chain(marks(template)).collect();
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
