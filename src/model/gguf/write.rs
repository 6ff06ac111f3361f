//! Writing a small GGUF file, version 3: keys and lists of `f32`, such as a control vector has. Whole models are left to
//! llama.cpp's converter.

/// A metadata value to write.
#[derive(Clone, Copy, Debug)]
pub enum Meta<'a> {
    /// An unsigned integer of 32 bits.
    U32(u32),
    /// A string.
    Str(&'a str),
}

/// Where a tensor's data begins is a multiple of this, the format's default.
const ALIGNMENT: usize = 32;

/// The bytes of a file with these keys and tensors of one dimension, in their order. Names have to differ.
///
/// ```
/// # use gatelens::model::gguf::{Meta, write};
/// let keys = [("general.architecture", Meta::Str("controlvector"))];
/// let bytes = write(&keys, &[("direction.3", &[0.5, -0.5])]);
/// assert_eq!(&bytes[..4], b"GGUF");
/// ```
pub fn write(keys: &[(&str, Meta<'_>)], tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        string(&mut out, key);
        match value {
            Meta::U32(n) => {
                out.extend(4_u32.to_le_bytes());
                out.extend(n.to_le_bytes());
            }
            Meta::Str(text) => {
                out.extend(8_u32.to_le_bytes());
                string(&mut out, text);
            }
        }
    }
    let mut data = Vec::new();
    for (name, values) in tensors {
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        string(&mut out, name);
        out.extend(1_u32.to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        // The number of F32.
        out.extend(0_u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    // Some readers expect the last tensor to be filled up too.
    data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    out.extend(data);
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
