//! Writes small GGUF files for tests: what the format allows, and, through the raw parts, what it
//! does not.
#![allow(dead_code, reason = "each test binary uses its own part of this file")]

use std::path::Path;

/// A metadata value to write.
#[derive(Clone)]
pub enum Meta {
    U8(u8),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    /// An array whose elements are arrays.
    Nested(Vec<Meta>),
    /// A type number and the bytes that follow it.
    Raw(u32, Vec<u8>),
}

impl From<&str> for Meta {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<&[&str]> for Meta {
    fn from(texts: &[&str]) -> Self {
        Self::Strs(texts.iter().map(|text| (*text).to_owned()).collect())
    }
}

struct Tensor {
    name: String,
    /// In the order of the file: fastest dimension first.
    dims: Vec<u64>,
    kind: u32,
    data: Vec<u8>,
    offset: Option<u64>,
}

/// Collects keys and tensors, then makes the bytes of a file.
pub struct GgufBuilder {
    pub magic: [u8; 4],
    pub version: u32,
    pub alignment: usize,
    /// Written instead of the true counts of tensors and keys.
    pub counts: Option<(u64, u64)>,
    keys: Vec<(String, Meta)>,
    tensors: Vec<Tensor>,
}

impl Default for GgufBuilder {
    fn default() -> Self {
        Self { magic: *b"GGUF", version: 3, alignment: 32, counts: None, keys: Vec::new(), tensors: Vec::new() }
    }
}

impl GgufBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn key(mut self, key: &str, value: impl Into<Meta>) -> Self {
        self.keys.push((key.to_owned(), value.into()));
        self
    }

    /// `shape` as PyTorch has it, slowest dimension first.
    pub fn tensor(self, name: &str, shape: &[usize], kind: u32, data: &[u8]) -> Self {
        self.push(name, shape, kind, data, None)
    }

    /// A tensor that claims to begin at `offset` of the data, whatever is there.
    pub fn tensor_at(self, name: &str, shape: &[usize], kind: u32, offset: u64) -> Self {
        self.push(name, shape, kind, &[], Some(offset))
    }

    /// A tensor of `f32`.
    pub fn floats(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, shape, 0, &data)
    }

    fn push(mut self, name: &str, shape: &[usize], kind: u32, data: &[u8], offset: Option<u64>) -> Self {
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dims: shape.iter().rev().map(|dim| *dim as u64).collect(),
            kind,
            data: data.to_vec(),
            offset,
        });
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.magic);
        out.extend(self.version.to_le_bytes());
        let true_counts = (self.tensors.len() as u64, self.keys.len() as u64);
        let (tensors, keys) = self.counts.unwrap_or(true_counts);
        out.extend(tensors.to_le_bytes());
        out.extend(keys.to_le_bytes());
        for (key, value) in &self.keys {
            string(&mut out, key);
            out.extend(type_number(value).to_le_bytes());
            payload(&mut out, value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).expect("the test can write its file");
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn type_number(value: &Meta) -> u32 {
    match value {
        Meta::U8(_) => 0,
        Meta::U32(_) => 4,
        Meta::I32(_) => 5,
        Meta::F32(_) => 6,
        Meta::Bool(_) => 7,
        Meta::Str(_) => 8,
        Meta::Strs(_) | Meta::I32s(_) | Meta::F32s(_) | Meta::Bools(_) | Meta::Nested(_) => 9,
        Meta::U64(_) => 10,
        Meta::F64(_) => 12,
        Meta::Raw(number, _) => *number,
    }
}

fn payload(out: &mut Vec<u8>, value: &Meta) {
    match value {
        Meta::U8(value) => out.push(*value),
        Meta::U32(value) => out.extend(value.to_le_bytes()),
        Meta::I32(value) => out.extend(value.to_le_bytes()),
        Meta::U64(value) => out.extend(value.to_le_bytes()),
        Meta::F32(value) => out.extend(value.to_le_bytes()),
        Meta::F64(value) => out.extend(value.to_le_bytes()),
        Meta::Bool(value) => out.push(u8::from(*value)),
        Meta::Str(text) => string(out, text),
        Meta::Strs(texts) => elements(out, 8, texts, |out, text| string(out, text)),
        Meta::I32s(values) => elements(out, 5, values, |out, value| out.extend(value.to_le_bytes())),
        Meta::F32s(values) => elements(out, 6, values, |out, value| out.extend(value.to_le_bytes())),
        Meta::Bools(values) => elements(out, 7, values, |out, value| out.push(u8::from(*value))),
        Meta::Nested(values) => elements(out, 9, values, payload),
        Meta::Raw(_, bytes) => out.extend(bytes),
    }
}

fn elements<T>(out: &mut Vec<u8>, number: u32, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.extend(number.to_le_bytes());
    out.extend((values.len() as u64).to_le_bytes());
    for value in values {
        write(out, value);
    }
}
