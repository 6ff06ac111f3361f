//! Reading GGUF files, versions 2 and 3, little endian: the metadata, the list of tensors, and the
//! bytes of any one of them from a memory map.
//!
//! A file is someone else's bytes, so nothing in it is believed before it has been held against what
//! the file can contain: every count, length, dimension and offset is checked before memory is
//! reserved for it. What the keys and tensors mean is left to the caller; turning quantised bytes into
//! numbers is [`dequantize`].

// Mapping a file is unsafe because another process may change it meanwhile.
#![allow(unsafe_code)]

mod blocks;
mod error;
mod kind;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use memmap2::Mmap;

pub use error::GgufError;
pub use kind::{GgmlKind, dequantize};

use crate::names::nearest;

/// A metadata value. Integers and floats of every width are widened, arrays are typed as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An unsigned integer of any width.
    Unsigned(u64),
    /// A signed integer of any width.
    Signed(i64),
    /// An `f32` or `f64`.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A UTF-8 string.
    Str(String),
    /// An array of integers of any width; an element above `i64::MAX` makes the file malformed.
    Ints(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f64>),
    /// An array of booleans.
    Bools(Vec<bool>),
    /// An array of strings.
    Strings(Vec<String>),
    /// An array of arrays.
    Arrays(Vec<Value>),
}

impl Value {
    /// What the value is, as error messages name it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned integer",
            Self::Signed(_) => "a signed integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Str(_) => "a string",
            Self::Ints(_) => "an array of integers",
            Self::Floats(_) => "an array of floats",
            Self::Bools(_) => "an array of booleans",
            Self::Strings(_) => "an array of strings",
            Self::Arrays(_) => "an array of arrays",
        }
    }

    fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(value) => Some(value),
            _ => None,
        }
    }

    fn as_strings(&self) -> Option<&[String]> {
        match self {
            Self::Strings(values) => Some(values),
            _ => None,
        }
    }

    fn as_floats(&self) -> Option<&[f64]> {
        match self {
            Self::Floats(values) => Some(values),
            _ => None,
        }
    }

    fn as_ints(&self) -> Option<&[i64]> {
        match self {
            Self::Ints(values) => Some(values),
            _ => None,
        }
    }
}

/// What the file says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions, slowest first: a linear weight is `[out, in]`. GGUF stores them the other way.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub kind: GgmlKind,
    /// Number of elements: the product of `shape`.
    elements: usize,
    /// First byte, counted from the start of the file.
    offset: usize,
    /// Length in bytes; nothing for kinds whose block layout is not known here.
    size: Option<usize>,
}

impl TensorInfo {
    /// Number of elements: the product of `shape`.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Length in bytes; nothing for kinds whose block layout is not known here.
    pub fn size(&self) -> Option<usize> {
        self.size
    }
}

/// An open GGUF file.
///
/// ```no_run
/// # use gatelens::model::gguf::{Gguf, dequantize};
/// let file = Gguf::open("model.gguf".as_ref())?;
/// let tensor = file.tensor("token_embd.weight")?;
/// let mut values = vec![0.0; tensor.elements()];
/// dequantize(tensor.kind, file.bytes(tensor)?, &mut values)?;
/// # Ok::<(), gatelens::model::gguf::GgufError>(())
/// ```
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, Value>,
    /// In the order of the file.
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    /// How many bytes were read as numbers.
    read: AtomicU64,
}

impl Gguf {
    /// Maps the file and reads everything but the tensors' data.
    ///
    /// # Errors
    /// Where the file cannot be read, is no GGUF of version 2 or 3, or contradicts itself: the message
    /// names the file, the byte offset and the promise of the format that was broken.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this value. Another process that shortens the
        // file while it is mapped can still stop this one with SIGBUS; no reader of maps can prevent
        // that, and copying checkpoints of many gigabytes instead would cost what the map saves.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let parsed = parse::parse(path, &map)?;
        Ok(Self {
            path: path.to_owned(),
            map,
            metadata: parsed.metadata,
            tensors: parsed.tensors,
            by_name: parsed.by_name,
            read: AtomicU64::new(0),
        })
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata value, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The metadata keys, in the order of their names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`GgufError::NoTensor`], with the nearest names, where the file has none.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.opt_tensor(name).ok_or_else(|| GgufError::NoTensor {
            path: self.path.clone(),
            name: name.to_owned(),
            nearest: owned(nearest(name, self.by_name.keys().map(String::as_str))),
        })
    }

    /// The tensor of that name, if there is one.
    pub fn opt_tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).and_then(|index| self.tensors.get(*index))
    }

    /// The stored bytes of a tensor of this file, to be given to [`dequantize`] whole or in runs of
    /// whole rows ([`GgmlKind::row_bytes`]).
    ///
    /// # Errors
    /// [`GgufError::UnknownKind`] where the tensor is stored in a way that is not read here;
    /// [`GgufError::Foreign`] where `tensor` came from another file and does not fit this one.
    pub fn bytes(&self, tensor: &TensorInfo) -> Result<&[u8], GgufError> {
        let size = tensor.size.ok_or_else(|| GgufError::UnknownKind {
            path: self.path.clone(),
            tensor: tensor.name.clone(),
            number: tensor.kind.number(),
            name: tensor.kind.name(),
        })?;
        let end = tensor.offset.checked_add(size);
        end.and_then(|end| self.map.get(tensor.offset..end))
            .ok_or_else(|| GgufError::Foreign { path: self.path.clone(), tensor: tensor.name.clone() })
    }

    /// Everything before the first tensor's data: header, metadata and tensor list.
    pub fn header(&self) -> &[u8] {
        let end = self.tensors.iter().map(|t| t.offset).min().unwrap_or(self.map.len());
        self.map.get(..end).unwrap_or(&self.map)
    }

    /// Where whoever reads tensors counts how many bytes.
    pub(super) fn counter(&self) -> &AtomicU64 {
        &self.read
    }

    /// The mapping, for whoever gives its memory back.
    pub(super) fn map(&self) -> &Mmap {
        &self.map
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        cast: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        cast(value).map(Some).ok_or_else(|| GgufError::WrongType {
            path: self.path.clone(),
            key: key.to_owned(),
            expected,
            found: value.type_name(),
        })
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, GgufError> {
        value.ok_or_else(|| GgufError::NoKey {
            path: self.path.clone(),
            key: key.to_owned(),
            nearest: owned(nearest(key, self.keys())),
        })
    }
}

/// Getters that demand a type of a key that may be absent.
macro_rules! optional {
    ($($name:ident, $cast:ident -> $type:ty, $what:literal;)*) => {
        impl Gguf {
            $(
                #[doc = concat!("The value of `key`, which must be ", $what, " if it is there.")]
                ///
                /// # Errors
                /// [`GgufError::WrongType`] where the value is something else.
                pub fn $name(&self, key: &str) -> Result<Option<$type>, GgufError> {
                    self.typed(key, $what, Value::$cast)
                }
            )*
        }
    };
}

/// Getters of keys that must be there.
macro_rules! required {
    ($($name:ident, $cast:ident -> $type:ty, $what:literal;)*) => {
        impl Gguf {
            $(
                #[doc = concat!("The value of `key`, which must be ", $what, ".")]
                ///
                /// # Errors
                /// [`GgufError::NoKey`] where the key is missing, [`GgufError::WrongType`] where its
                /// value is something else.
                pub fn $name(&self, key: &str) -> Result<$type, GgufError> {
                    let value = self.typed(key, $what, Value::$cast)?;
                    self.required(key, value)
                }
            )*
        }
    };
}

optional! {
    opt_str, as_str -> &str, "a string";
    opt_u64, as_u64 -> u64, "an integer of zero or more";
    opt_f64, as_f64 -> f64, "a float";
    opt_bool, as_bool -> bool, "a boolean";
    opt_ints, as_ints -> &[i64], "an array of integers";
}

required! {
    str, as_str -> &str, "a string";
    u64, as_u64 -> u64, "an integer of zero or more";
    f64, as_f64 -> f64, "a float";
    strings, as_strings -> &[String], "an array of strings";
    floats, as_floats -> &[f64], "an array of floats";
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}
