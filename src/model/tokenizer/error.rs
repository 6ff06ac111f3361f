//! What can be wrong with a tokenizer's files or with what is asked of it.

use std::path::PathBuf;

use super::LONGEST_TEXT;
use crate::model::gguf::GgufError;
use crate::model::template::TemplateError;

/// Why a tokenizer could not be loaded, or could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A folder without `tokenizer.json`.
    #[error(
        "{path}: there is no tokenizer.json; download it with the model, or make it with \
         AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) in transformers",
        path = path.display()
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the tokenizer cannot be read, or is larger than any in use.
    #[error("{path}: cannot read it: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of the tokenizer cannot be understood.
    #[error("{path}: {what}: {why}; download it again", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The key or part.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The metadata of a GGUF file cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A kind of tokenizer that is not built from GGUF metadata here.
    #[error(
        "{path}: {key} is {found:?}; known are {known}: \
         use the model's Hugging Face folder with its tokenizer.json instead",
        path = path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: &'static str,
        /// Its value.
        found: String,
        /// The values that are known.
        known: String,
    },
    /// The chat template cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Template {
        /// The file or folder it came from.
        path: PathBuf,
        /// What is wrong with it, or with the conversation.
        source: TemplateError,
    },
    /// A conversation for a model without a chat template.
    #[error(
        "{path}: the model has no chat template; give the prompts as {{\"text\": ...}}, \
         or use the instruction-tuned model",
        path = path.display()
    )]
    NoTemplate {
        /// The file or folder of the tokenizer.
        path: PathBuf,
    },
    /// A last message that cannot be gone on with.
    #[error("{path}: the last message cannot be gone on with: {why}", path = path.display())]
    Unfinished {
        /// The file or folder of the tokenizer.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A text that is longer than any prompt.
    #[error("a text of {bytes} bytes; {LONGEST_TEXT} is the most that is encoded at once")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Encoding failed.
    #[error("{path}: cannot encode {text:?}: {why}", path = path.display())]
    Encode {
        /// The file or folder of the tokenizer.
        path: PathBuf,
        /// The beginning of the text.
        text: String,
        /// What the tokenizer said.
        why: String,
    },
    /// Decoding failed.
    #[error("{path}: cannot decode {count} tokens: {why}", path = path.display())]
    Decode {
        /// The file or folder of the tokenizer.
        path: PathBuf,
        /// How many tokens were to be decoded.
        count: usize,
        /// What the tokenizer said.
        why: String,
    },
    /// An id that stands for no token.
    #[error("{path}: token id {id} is not in the vocabulary, whose ids are below {size}", path = path.display())]
    UnknownId {
        /// The file or folder of the tokenizer.
        path: PathBuf,
        /// The id.
        id: u32,
        /// One more than the highest id.
        size: usize,
    },
    /// The first token of a text that has none.
    #[error("{text:?} has no first token: give a text that is not empty, or a token id")]
    NoToken {
        /// The text.
        text: String,
    },
}
