//! The tokenizer of a GGUF file, built from the lists in its metadata. Byte-level BPE ("gpt2") is built
//! here; SentencePiece ("llama") in [`super::spm`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::markers::take_whole;
use super::recipes::{RECIPES, Recipe};
use super::{Ends, Parts, TokenizerError, guarded, spm};
use crate::model::gguf::Gguf;
use crate::model::template::ChatTemplate;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const TEMPLATE: &str = "tokenizer.chat_template";
/// The names of a model's further templates.
const TEMPLATES: &str = "tokenizer.chat_templates";

/// Special tokens, by the names that templates know them by and by those of the keys; where a key has two spellings the
/// first counts.
const SPECIALS: [(&str, &str); 18] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("sep", "seperator"),
    ("sep", "separator"),
    ("pad", "padding"),
    ("cls", "cls"),
    ("mask", "mask"),
    ("eot", "eot"),
    ("eom", "eom"),
    ("fim_pre", "fim_pre"),
    ("fim_pre", "prefix"),
    ("fim_suf", "fim_suf"),
    ("fim_suf", "suffix"),
    ("fim_mid", "fim_mid"),
    ("fim_mid", "middle"),
    ("fim_pad", "fim_pad"),
    ("fim_rep", "fim_rep"),
];

/// What a token is, by the numbers of `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The vocabulary as the file lists it.
pub(super) struct Vocabulary<'a> {
    pub path: &'a Path,
    pub pieces: &'a [String],
    pub kinds: Vec<Kind>,
    /// By piece. Where two tokens have the same piece, the first has it.
    pub ids: HashMap<&'a str, u32>,
}

/// Reads the tokenizer of the file.
pub(super) fn read(file: &Gguf) -> Result<Parts, TokenizerError> {
    let model = file.str(MODEL)?;
    let vocabulary = Vocabulary::read(file)?;
    let mut warnings = Vec::new();
    let (mut inner, adds_bos) = match model {
        "gpt2" => byte_level(file, &vocabulary, &mut warnings)?,
        "llama" => (spm::build(file, &vocabulary)?, true),
        other => {
            return Err(TokenizerError::Unknown {
                path: file.path().to_owned(),
                key: MODEL,
                found: other.to_owned(),
                known: "gpt2, llama".to_owned(),
            });
        }
    };
    let bos = vocabulary.id(file, BOS)?;
    let eos = vocabulary.id(file, EOS)?;
    let adds_bos = file.opt_bool(ADD_BOS)?.unwrap_or(adds_bos);
    let adds_eos = file.opt_bool(ADD_EOS)?.unwrap_or(false);
    let ends = Ends { before: bos.filter(|_| adds_bos), after: eos.filter(|_| adds_eos), ..Ends::default() };
    let source = template(file, &mut warnings)?;
    let specials = specials(file, &vocabulary)?;
    let named = specials.values().map(String::as_str);
    warnings.extend(take_whole(&mut inner, &vocabulary, source.unwrap_or_default(), named)?);
    let template = source.map(|source| ChatTemplate::new(source, &specials));
    Ok(Parts { inner, bos, eos, ends, template, warnings })
}

/// The chat template: the only one, or of several that which is named so.
fn template<'a>(file: &'a Gguf, warnings: &mut Vec<String>) -> Result<Option<&'a str>, TokenizerError> {
    let source = match file.opt_str(TEMPLATE)? {
        Some(source) => Some(source),
        None => file.opt_str(&format!("{TEMPLATE}.default"))?,
    };
    if source.is_none() && file.get(TEMPLATES).is_some() {
        let names = file.strings(TEMPLATES)?.join(", ");
        warnings
            .push(format!("`{TEMPLATES}` names {names}, none of which is the default: the model has no chat template"));
    }
    Ok(source)
}

/// The texts of the special tokens that the metadata names, by the names that templates know them by.
fn specials(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<BTreeMap<String, String>, TokenizerError> {
    let mut specials = BTreeMap::new();
    for (name, key) in SPECIALS {
        let id = vocabulary.id(file, &format!("tokenizer.ggml.{key}_token_id"))?;
        if let Some(piece) = id.and_then(|id| vocabulary.pieces.get(id as usize)) {
            specials.entry(format!("{name}_token")).or_insert_with(|| piece.clone());
        }
    }
    Ok(specials)
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a Gguf) -> Result<Self, TokenizerError> {
        let path = file.path();
        let pieces = file.strings(TOKENS)?;
        if u32::try_from(pieces.len()).is_err() {
            return Err(malformed(path, TOKENS, "there are more tokens than ids"));
        }
        let kinds = match file.opt_ints(TYPES)? {
            None => vec![Kind::Normal; pieces.len()],
            Some(numbers) => {
                same_length(path, TYPES, numbers.len(), pieces.len())?;
                numbers.iter().map(|number| kind(path, *number)).collect::<Result<_, _>>()?
            }
        };
        let mut ids = HashMap::with_capacity(pieces.len());
        for (id, piece) in (0_u32..).zip(pieces) {
            ids.entry(piece.as_str()).or_insert(id);
        }
        Ok(Self { path, pieces, kinds, ids })
    }

    /// The token id that `key` holds, if it is there; it must be in the vocabulary.
    pub fn id(&self, file: &Gguf, key: &str) -> Result<Option<u32>, TokenizerError> {
        let Some(value) = file.opt_u64(key)? else {
            return Ok(None);
        };
        match u32::try_from(value) {
            Ok(id) if (id as usize) < self.pieces.len() => Ok(Some(id)),
            _ => {
                let why = format!("it is {value}, and there are {} tokens", self.pieces.len());
                Err(malformed(self.path, key, why))
            }
        }
    }

    /// Every id with its piece and kind.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &'a str, Kind)> {
        (0_u32..).zip(self.pieces).zip(&self.kinds).map(|((id, piece), kind)| (id, piece.as_str(), *kind))
    }

    /// The form in which the BPE model takes it.
    pub fn for_model(&self) -> Vocab {
        self.ids.iter().map(|(piece, id)| ((*piece).to_owned(), *id)).collect()
    }

    /// Makes control tokens special and user-defined ones whole, each under its own id.
    /// `normalized` says whether user-defined tokens are looked for in the normalised text.
    pub fn add_to(&self, inner: &mut tokenizers::Tokenizer, normalized: bool) -> Result<(), TokenizerError> {
        let mut seen = HashSet::new();
        let added: Vec<AddedToken> = self
            .entries()
            .filter_map(|(_, piece, kind)| match kind {
                Kind::Control => Some(AddedToken::from(piece, true)),
                Kind::UserDefined => Some(AddedToken::from(piece, false).normalized(normalized)),
                _ => None,
            })
            // Two spellings of one normalised text would be one pattern twice.
            .filter(|token| !token.normalized || seen.insert(token.content.replace(' ', "\u{2581}")))
            .collect();
        guarded(|| inner.add_tokens(added)).map(drop).map_err(|why| malformed(self.path, TYPES, why))
    }
}

fn kind(path: &Path, number: i64) -> Result<Kind, TokenizerError> {
    Ok(match number {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        other => {
            return Err(malformed(path, TYPES, format!("{other} is no token type (1 to 6 are)")));
        }
    })
}

pub(super) fn same_length(path: &Path, key: &str, found: usize, tokens: usize) -> Result<(), TokenizerError> {
    if found == tokens {
        return Ok(());
    }
    Err(malformed(path, key, format!("it has {found} entries, {TOKENS} has {tokens}")))
}

pub(super) fn malformed(path: &Path, key: &str, why: impl Into<String>) -> TokenizerError {
    TokenizerError::Malformed { path: path.to_owned(), what: format!("key {key:?}"), why: why.into() }
}

fn recipe(file: &Gguf, warnings: &mut Vec<String>) -> Result<&'static Recipe, TokenizerError> {
    let name = file.opt_str(PRE)?.unwrap_or_else(|| {
        warnings.push(format!(
            "`{PRE}` is not given: text is cut as GPT-2 cuts it, which may not be how the model was trained; convert it \
             again with a current llama.cpp"
        ));
        "default"
    });
    RECIPES.iter().find(|recipe| recipe.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = RECIPES.iter().flat_map(|recipe| recipe.names).copied().collect();
        TokenizerError::Unknown {
            path: file.path().to_owned(),
            key: PRE,
            found: name.to_owned(),
            known: known.join(", "),
        }
    })
}

/// Byte-level BPE, and whether it adds BOS where the file does not say.
fn byte_level(
    file: &Gguf,
    vocabulary: &Vocabulary<'_>,
    warnings: &mut Vec<String>,
) -> Result<(tokenizers::Tokenizer, bool), TokenizerError> {
    let recipe = recipe(file, warnings)?;
    let merges = merges(file, vocabulary)?;
    let inconsistent = |why: String| malformed(file.path(), MERGES, why);
    let model = guarded(|| {
        BPE::builder().vocab_and_merges(vocabulary.for_model(), merges).ignore_merges(recipe.ignore_merges).build()
    })
    .map_err(inconsistent)?;
    let mut inner = tokenizers::Tokenizer::new(model);
    if recipe.composed {
        guarded(|| inner.with_normalizer(Some(NFC)).map(drop)).map_err(inconsistent)?;
    }
    let cutter = guarded(|| recipe.cutter()).map_err(inconsistent)?;
    inner.with_pre_tokenizer(Some(cutter));
    inner.with_decoder(Some(ByteLevel::default()));
    vocabulary.add_to(&mut inner, false)?;
    Ok((inner, recipe.adds_bos))
}

/// The merges, each of which must join two tokens into a third: the BPE builder trusts that.
fn merges(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Vec<(String, String)>, TokenizerError> {
    let mut merges = Vec::new();
    for (rank, merge) in file.strings(MERGES)?.iter().enumerate() {
        // The first character belongs to the left piece even where it is a space.
        let gap = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
        let pair = gap.and_then(|(gap, _)| Some((merge.get(..gap)?, merge.get(gap + 1..)?)));
        let known = |piece: &str| vocabulary.ids.contains_key(piece);
        let pair = pair.filter(|(left, right)| known(left) && known(right) && known(&format!("{left}{right}")));
        let Some((left, right)) = pair else {
            let why = format!("merge {rank}, {merge:?}, does not join two tokens into a third");
            return Err(malformed(file.path(), MERGES, why));
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}
