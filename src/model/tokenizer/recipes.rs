//! How each family of byte-level vocabularies cuts text before BPE: the names of `tokenizer.ggml.pre` with what the
//! released `tokenizer.json` of that family does. Where llama.cpp cuts otherwise (it writes patterns that its own
//! engine can run), the released file is followed, as `transformers` follows it.

use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

/// How a family cuts text before BPE.
#[derive(Clone, Copy)]
pub(super) struct Recipe {
    /// The names of `tokenizer.ggml.pre`.
    pub names: &'static [&'static str],
    /// One after another, each within the pieces of the one before.
    steps: &'static [Step],
    /// Whether text is brought to Unicode's composed form first.
    pub composed: bool,
    /// Whether a piece that is a token is taken whole, even where merges would not build it.
    pub ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    pub adds_bos: bool,
}

#[derive(Clone, Copy)]
enum Step {
    /// What the pattern finds and what lies between are pieces.
    Pattern(&'static str),
    /// Each digit is a piece.
    EachDigit,
    /// Each run of digits is a piece.
    Numbers,
    /// Each run of punctuation is a piece.
    Punctuation,
    /// GPT-2's pattern, which the byte-level pre-tokenizer has built in; then bytes become characters.
    Gpt2,
    /// Bytes become characters, and nothing is cut.
    Bytes,
}

use Step::{Bytes, EachDigit, Gpt2, Numbers, Pattern};

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's, where combining marks belong to letters.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's: words are cut where a capital follows small letters.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// `o200k`: as [`TEKKEN`], with English suffixes and numbers of three digits.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// DeepSeek's first: cased letters, punctuation and the scripts of East Asia are listed by their code points.
const DEEPSEEK_LLM: &[Step] = &[
    Pattern(r"[\r\n]"),
    Pattern(concat!(
        "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ\u{1c4}-\u{293}\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}",
        "\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}",
        "\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}",
        "\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}",
        "\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}",
        "\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}",
        "\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}",
        "\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}",
        "\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}",
        "\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}",
        "\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}",
        "\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+"
    )),
    Pattern("\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+"),
    Pattern(r"\s+$"),
    Pattern(EAST_ASIA),
    EachDigit,
    Bytes,
];
const DEEPSEEK_CODER: &[Step] =
    &[Pattern(r"[\r\n]"), Pattern(r"\s?\p{L}+"), Pattern(r"\s?\p{P}+"), Pattern(EAST_ASIA), EachDigit, Bytes];
const EAST_ASIA: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DEEPSEEK_V3: &[Step] = &[
    Pattern(r"\p{N}{1,3}"),
    Pattern("[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+"),
    Pattern(concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )),
    Bytes,
];

const fn recipe(names: &'static [&'static str], steps: &'static [Step]) -> Recipe {
    Recipe { names, steps, composed: false, ignore_merges: false, adds_bos: false }
}

impl Recipe {
    const fn composed(self) -> Self {
        Self { composed: true, ..self }
    }

    const fn ignoring_merges(self) -> Self {
        Self { ignore_merges: true, ..self }
    }

    const fn with_bos(self) -> Self {
        Self { adds_bos: true, ..self }
    }

    /// The pre-tokenizer.
    pub fn cutter(&self) -> tokenizers::Result<PreTokenizerWrapper> {
        let steps: tokenizers::Result<Vec<_>> = self.steps.iter().map(pre_tokenizer).collect();
        Ok(Sequence::new(steps?).into())
    }
}

pub(super) const RECIPES: &[Recipe] = &[
    recipe(&["gpt-2", "default", "phi-2", "trillion", "exaone4", "mellum"], &[Gpt2]),
    // Of GPT-NeoX's vocabulary.
    recipe(&["olmo", "mpt"], &[Gpt2]).composed(),
    recipe(&["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"], &[EachDigit, Gpt2]),
    recipe(&["command-r"], &[EachDigit, Gpt2]).composed().with_bos(),
    recipe(&["falcon"], &[Step::Punctuation, Gpt2, Numbers, Pattern("[0-9][0-9][0-9]")]),
    recipe(&["qwen2", "deepseek-r1-qwen"], &[Pattern(QWEN2), Bytes]).composed(),
    recipe(&["qwen35"], &[Pattern(QWEN35), Bytes]).composed(),
    recipe(&["hunyuan", "megrez"], &[Pattern(QWEN2), Bytes]),
    // LFM 2's as llama.cpp has it: its released file has not been seen.
    recipe(&["llama-bpe", "llama3", "llama-v3", "lfm2"], &[Pattern(LLAMA3), Bytes]).ignoring_merges().with_bos(),
    recipe(&["falcon3"], &[Pattern(LLAMA3), Bytes]).ignoring_merges(),
    // OLMo 2's vocabulary is that of DBRX with other special tokens.
    recipe(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[Pattern(LLAMA3), Bytes]),
    recipe(&["tekken"], &[Pattern(TEKKEN), Bytes]).ignoring_merges().with_bos(),
    recipe(&["gpt-4o", "llama4"], &[Pattern(O200K), Bytes]).ignoring_merges(),
    recipe(&["seed-coder"], &[Pattern(SEED), Bytes]),
    recipe(&["deepseek-llm"], DEEPSEEK_LLM).with_bos(),
    recipe(&["deepseek-coder"], DEEPSEEK_CODER).with_bos(),
    recipe(&["deepseek-v3"], DEEPSEEK_V3).with_bos(),
    recipe(&["hunyuan-dense"], DEEPSEEK_V3),
];

fn pre_tokenizer(step: &Step) -> tokenizers::Result<PreTokenizerWrapper> {
    // No space is put before the text; offsets are not used.
    let bytes = |pattern: bool| ByteLevel::new(false, false, pattern);
    Ok(match step {
        Pattern(pattern) => {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into()
        }
        EachDigit => Digits::new(true).into(),
        Numbers => Digits::new(false).into(),
        Step::Punctuation => Punctuation::new(SplitDelimiterBehavior::Contiguous).into(),
        Gpt2 => bytes(true).into(),
        Bytes => bytes(false).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::{
        NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, normalizers::NFC,
    };

    /// Lengths in bytes of the pieces of a text.
    fn pieces(recipe: &Recipe, text: &str) -> Vec<usize> {
        let mut normalized = NormalizedString::from(text);
        if recipe.composed {
            NFC.normalize(&mut normalized).unwrap();
        }
        let mut text = PreTokenizedString::from(normalized);
        recipe.cutter().unwrap().pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        // A character of the byte-level alphabet stands for a byte.
        splits.into_iter().map(|(piece, ..)| piece.chars().count()).filter(|n| *n > 0).collect()
    }

    #[test]
    fn texts_are_cut_as_the_released_tokenizers_cut_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gguf/pre_tokenizers.json");
        let fixture: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let texts: Vec<&str> = fixture["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let by_name = fixture["pieces"].as_object().unwrap();
        assert!(by_name.len() >= 17 && texts.len() > 50);
        for (name, expected) in by_name {
            let recipe = RECIPES.iter().find(|recipe| recipe.names.contains(&name.as_str())).unwrap();
            for (text, expected) in texts.iter().zip(expected.as_array().unwrap()) {
                let expected: Vec<usize> = serde_json::from_value(expected.clone()).unwrap();
                assert_eq!(pieces(recipe, text), expected, "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn no_name_has_two_recipes() {
        let mut names: Vec<&str> = RECIPES.iter().flat_map(|recipe| recipe.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
