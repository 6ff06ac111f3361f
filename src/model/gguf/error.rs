//! What can be wrong with a GGUF file or with what is asked of it.

use std::path::PathBuf;

use super::kind::GgmlKind;
use crate::names::suggestion;

/// Why a GGUF file, or something in it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system refused.
    #[error("{path}: cannot read the GGUF file: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The first four bytes are not `GGUF`.
    #[error(
        "{path}: not a GGUF file: it begins with {found:?} where \"GGUF\" was expected; \
         give a .gguf file, or the folder of a Hugging Face checkpoint",
        path = path.display()
    )]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// Its first bytes, as text.
        found: String,
    },
    /// A version that is not read here.
    #[error(
        "{path}: GGUF version {found}{note}; versions 2 and 3 (little endian) are read: \
         convert the model again with a current llama.cpp",
        path = path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it states.
        found: u32,
        /// What the number suggests.
        note: &'static str,
    },
    /// The file contradicts the format, or ends too early.
    #[error(
        "{path}: damaged GGUF file at byte {offset}: {what}: {why}; download or convert it again",
        path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: usize,
        /// What was being read: a key, a tensor, a part of the header.
        what: String,
        /// Which promise of the format was broken.
        why: String,
    },
    /// A metadata key is missing.
    #[error("{path}: the metadata has no key {key:?}{tail}", path = path.display(), tail = suggestion(nearest))]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The key that was asked for.
        key: String,
        /// Keys that the file has, nearest first.
        nearest: Vec<String>,
    },
    /// A metadata value has another type than was asked for.
    #[error("{path}: key {key:?} holds {found} where {expected} was expected", path = path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A tensor is missing.
    #[error("{path}: there is no tensor {name:?}{tail}", path = path.display(), tail = suggestion(nearest))]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The tensor that was asked for.
        name: String,
        /// Tensors that the file has, nearest first.
        nearest: Vec<String>,
    },
    /// A tensor is stored in a way that is not read here.
    #[error(
        "{path}: tensor {tensor:?} is stored as ggml type {number} ({name}), which is not supported; \
         use a file quantised as one of {supported}",
        path = path.display(),
        supported = GgmlKind::SUPPORTED
    )]
    UnknownKind {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The number of the ggml type.
        number: u32,
        /// Its name, where it is known.
        name: &'static str,
    },
    /// A tensor description that belongs to another file.
    #[error("{path}: tensor {tensor:?} lies outside this file: it was listed by another one", path = path.display())]
    Foreign {
        /// The file that was asked.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// Bytes and values given to `dequantize` do not correspond.
    #[error(
        "cannot dequantise {kind}: {bytes} bytes into {values} values; \
         {block_bytes} bytes hold {block_len} values"
    )]
    Length {
        /// The kind.
        kind: GgmlKind,
        /// Bytes that were given.
        bytes: usize,
        /// Values that were asked for.
        values: usize,
        /// Bytes of a block of this kind.
        block_bytes: usize,
        /// Values in a block of this kind.
        block_len: usize,
    },
    /// `dequantize` was given a kind that is not read here.
    #[error("cannot dequantise ggml type {number} ({name}); supported are {supported}", supported = GgmlKind::SUPPORTED)]
    Undecodable {
        /// The number of the ggml type.
        number: u32,
        /// Its name, where it is known.
        name: &'static str,
    },
}
