//! From the bytes of a GGUF file to its metadata and tensor list. Every read goes through
//! [`Cursor`], which knows where it is and cannot pass the end; counts are compared with what remains
//! of the file, and memory beyond [`RESERVED`] entries is taken as they are really read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{GgmlKind, GgufError, TensorInfo, Value};

/// Arrays of arrays are allowed; deeper nesting than this has no use and would only cost stack.
const DEEPEST_ARRAY: usize = 4;
/// The format's bound on a key, which it gives in bytes.
const LONGEST_KEY: usize = 65_535;
/// ggml's own bound on the number of dimensions.
const MOST_DIMENSIONS: u32 = 4;
/// Bytes of the smallest key-value pair: the key's length, the type, one byte of value.
const SMALLEST_PAIR: usize = 8 + 4 + 1;
/// Bytes of the smallest tensor entry: the name's length, the number of dimensions, type, offset.
const SMALLEST_TENSOR: usize = 8 + 4 + 4 + 8;
/// Entries for which memory is reserved at once. An entry takes several times its bytes in the file, so that a
/// count which the file could just hold may ask for more memory than there is.
const RESERVED: usize = 1 << 16;
/// Where `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Everything that precedes the tensors' data.
pub(super) struct Parsed {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
    pub by_name: HashMap<String, usize>,
}

/// Reads header, metadata and tensor list of `bytes`, the whole file at `path`.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, GgufError> {
    let mut cursor = Cursor { path, bytes, at: 0 };
    check_version(&mut cursor)?;
    let tensor_count = cursor.count("the number of tensors", SMALLEST_TENSOR)?;
    let pair_count = cursor.count("the number of metadata keys", SMALLEST_PAIR)?;
    let metadata = metadata(&mut cursor, pair_count)?;
    let alignment = alignment(&cursor, &metadata)?;
    // The entries are read before the data's start is known: it follows the last of them.
    let (mut entries, mut by_name) = (Vec::with_capacity(tensor_count.min(RESERVED)), HashMap::new());
    for index in 0..tensor_count {
        let entry = tensor_entry(&mut cursor, alignment)?;
        if by_name.insert(entry.info.name.clone(), index).is_some() {
            return Err(cursor.malformed_at(entry.at, &format!("tensor {:?}", entry.info.name), "it is listed twice"));
        }
        entries.push(entry);
    }
    let start = cursor
        .at
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| cursor.malformed("general.alignment", "it overflows"))?;
    let tensors = entries.into_iter().map(|entry| place(&cursor, entry, start)).collect::<Result<_, _>>()?;
    Ok(Parsed { metadata, tensors, by_name })
}

fn check_version(cursor: &mut Cursor<'_>) -> Result<(), GgufError> {
    let magic = cursor.bytes.get(..4).unwrap_or(cursor.bytes);
    if magic != b"GGUF" {
        return Err(GgufError::NotGguf {
            path: cursor.path.to_owned(),
            found: String::from_utf8_lossy(magic).into_owned(),
        });
    }
    cursor.at = 4;
    let found = cursor.u32("the version")?;
    let note = match found {
        2 | 3 => return Ok(()),
        0x0200_0000 | 0x0300_0000 => " (a big-endian file)",
        1 => " (an early draft of the format)",
        _ => "",
    };
    Err(GgufError::Version { path: cursor.path.to_owned(), found, note })
}

fn metadata(cursor: &mut Cursor<'_>, pairs: usize) -> Result<BTreeMap<String, Value>, GgufError> {
    let mut metadata = BTreeMap::new();
    for _ in 0..pairs {
        let at = cursor.at;
        let key = cursor.string("a metadata key")?;
        if key.len() > LONGEST_KEY {
            let why = format!("it has {} bytes, {LONGEST_KEY} is the most", key.len());
            return Err(cursor.malformed_at(at, "a metadata key", why));
        }
        let kind = cursor.u32(&format!("the type of key {key:?}"))?;
        let value = value(cursor, &key, kind, DEEPEST_ARRAY)?;
        match metadata.entry(key) {
            Entry::Vacant(entry) => entry.insert(value),
            Entry::Occupied(entry) => {
                let what = format!("key {:?}", entry.key());
                return Err(cursor.malformed_at(at, &what, "it appears twice"));
            }
        };
    }
    Ok(metadata)
}

fn alignment(cursor: &Cursor<'_>, metadata: &BTreeMap<String, Value>) -> Result<usize, GgufError> {
    const KEY: &str = "general.alignment";
    let stated = match metadata.get(KEY) {
        None => Some(DEFAULT_ALIGNMENT),
        Some(value) => value.as_u64(),
    };
    stated
        .filter(|alignment| alignment.is_power_of_two())
        .and_then(|alignment| usize::try_from(alignment).ok())
        .ok_or_else(|| cursor.malformed(KEY, "it must be an integer that is a power of two"))
}

/// The metadata types of the format, by number.
mod number {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// The fewest bytes that a value of the type takes.
fn smallest(kind: u32) -> Option<usize> {
    match kind {
        number::U8 | number::I8 | number::BOOL => Some(1),
        number::U16 | number::I16 => Some(2),
        number::U32 | number::I32 | number::F32 => Some(4),
        number::U64 | number::I64 | number::F64 | number::STRING => Some(8),
        number::ARRAY => Some(12),
        _ => None,
    }
}

fn value(cursor: &mut Cursor<'_>, key: &str, kind: u32, depth: usize) -> Result<Value, GgufError> {
    Ok(match kind {
        number::U8 | number::U16 | number::U32 | number::U64 => Value::Unsigned(unsigned(cursor, key, kind)?),
        number::I8 | number::I16 | number::I32 | number::I64 => Value::Signed(signed(cursor, key, kind)?),
        number::F32 | number::F64 => Value::Float(float(cursor, key, kind)?),
        number::BOOL => Value::Bool(boolean(cursor, key)?),
        number::STRING => Value::Str(cursor.string(key)?),
        number::ARRAY => array(cursor, key, depth)?,
        other => {
            let why = format!("the value type {other} does not exist (0 to 12 do)");
            return Err(cursor.malformed(&format!("key {key:?}"), why));
        }
    })
}

fn unsigned(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<u64, GgufError> {
    Ok(match kind {
        number::U8 => u64::from(u8::from_le_bytes(cursor.array(key)?)),
        number::U16 => u64::from(u16::from_le_bytes(cursor.array(key)?)),
        number::U32 => u64::from(u32::from_le_bytes(cursor.array(key)?)),
        _ => u64::from_le_bytes(cursor.array(key)?),
    })
}

fn signed(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<i64, GgufError> {
    Ok(match kind {
        number::I8 => i64::from(i8::from_le_bytes(cursor.array(key)?)),
        number::I16 => i64::from(i16::from_le_bytes(cursor.array(key)?)),
        number::I32 => i64::from(i32::from_le_bytes(cursor.array(key)?)),
        _ => i64::from_le_bytes(cursor.array(key)?),
    })
}

fn float(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<f64, GgufError> {
    Ok(match kind {
        number::F32 => f64::from(f32::from_le_bytes(cursor.array(key)?)),
        _ => f64::from_le_bytes(cursor.array(key)?),
    })
}

fn boolean(cursor: &mut Cursor<'_>, key: &str) -> Result<bool, GgufError> {
    let [byte] = cursor.array(key)?;
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => {
            let why = format!("a boolean is 0 or 1, not {other}");
            Err(cursor.malformed(&format!("key {key:?}"), why))
        }
    }
}

fn array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Value, GgufError> {
    let Some(depth) = depth.checked_sub(1) else {
        let why = format!("its arrays are nested more than {DEEPEST_ARRAY} deep");
        return Err(cursor.malformed(&format!("key {key:?}"), why));
    };
    let kind = cursor.u32(key)?;
    let Some(least) = smallest(kind) else {
        let why = format!("the element type {kind} does not exist (0 to 12 do)");
        return Err(cursor.malformed(&format!("key {key:?}"), why));
    };
    let count = cursor.count(&format!("the length of key {key:?}"), least)?;
    Ok(match kind {
        number::U8 | number::U16 | number::U32 | number::U64 => Value::Ints(collect(count, || {
            let value = unsigned(cursor, key, kind)?;
            i64::try_from(value).map_err(|_| {
                let why = format!("its element {value} is above {}", i64::MAX);
                cursor.malformed(&format!("key {key:?}"), why)
            })
        })?),
        number::I8 | number::I16 | number::I32 | number::I64 => {
            Value::Ints(collect(count, || signed(cursor, key, kind))?)
        }
        number::F32 | number::F64 => Value::Floats(collect(count, || float(cursor, key, kind))?),
        number::BOOL => Value::Bools(collect(count, || boolean(cursor, key))?),
        number::STRING => Value::Strings(collect(count, || cursor.string(key))?),
        _ => Value::Arrays(collect(count, || array(cursor, key, depth))?),
    })
}

/// `count` values, where [`Cursor::count`] has held `count` against the file.
fn collect<T>(count: usize, mut next: impl FnMut() -> Result<T, GgufError>) -> Result<Vec<T>, GgufError> {
    let mut values = Vec::with_capacity(count.min(RESERVED));
    for _ in 0..count {
        values.push(next()?);
    }
    Ok(values)
}

/// A tensor as listed, its offset still counted from the start of the data.
struct Listed {
    /// Where the entry itself is, for messages.
    at: usize,
    info: TensorInfo,
}

fn tensor_entry(cursor: &mut Cursor<'_>, alignment: usize) -> Result<Listed, GgufError> {
    let at = cursor.at;
    let name = cursor.string("a tensor's name")?;
    let what = format!("tensor {name:?}");
    let dimensions = cursor.u32(&what)?;
    if dimensions > MOST_DIMENSIONS {
        let why = format!("it has {dimensions} dimensions, {MOST_DIMENSIONS} are the most");
        return Err(cursor.malformed_at(at, &what, why));
    }
    let mut shape = Vec::with_capacity(MOST_DIMENSIONS as usize);
    for _ in 0..dimensions {
        shape.push(cursor.size(&what)?);
    }
    shape.reverse();
    let kind = GgmlKind::from_number(cursor.u32(&what)?);
    let offset = cursor.size(&what)?;
    if !offset.is_multiple_of(alignment) {
        let why = format!("its offset {offset} is no multiple of the alignment {alignment}");
        return Err(cursor.malformed_at(at, &what, why));
    }
    let too_large = || cursor.malformed_at(at, &what, format!("its shape {shape:?} overflows"));
    let elements =
        shape.iter().try_fold(1_usize, |product, dimension| product.checked_mul(*dimension)).ok_or_else(too_large)?;
    let size = match kind.block_len() {
        None => None,
        Some(block) => Some(tensor_size(kind, &shape, elements).ok_or_else(|| {
            let why = format!("its shape {shape:?} does not make rows of whole {kind} blocks of {block}");
            cursor.malformed_at(at, &what, why)
        })?),
    };
    Ok(Listed { at, info: TensorInfo { name, shape, kind, elements, offset, size } })
}

/// Bytes of a tensor: blocks never span rows, so each row must be whole blocks.
fn tensor_size(kind: GgmlKind, shape: &[usize], elements: usize) -> Option<usize> {
    kind.row_bytes(shape.last().copied().unwrap_or(1))?;
    kind.row_bytes(elements)
}

/// Moves an entry's offset to the start of the file and holds the tensor against its end.
fn place(cursor: &Cursor<'_>, entry: Listed, start: usize) -> Result<TensorInfo, GgufError> {
    let Listed { at, mut info } = entry;
    let what = format!("tensor {:?}", info.name);
    let offset = start.checked_add(info.offset);
    let end = offset.and_then(|offset| offset.checked_add(info.size.unwrap_or(0)));
    let (Some(offset), Some(end)) = (offset, end) else {
        return Err(cursor.malformed_at(at, &what, "its offset overflows"));
    };
    if end > cursor.bytes.len() {
        let why = format!("its data ends at byte {end}, the file has {}: it is incomplete", cursor.bytes.len());
        return Err(cursor.malformed_at(at, &what, why));
    }
    info.offset = offset;
    Ok(info)
}

/// A place in the file.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, what: &str, length: usize) -> Result<&'a [u8], GgufError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let (Some(end), at) = (end, self.at) else {
            let why = format!("it needs {length} bytes, {} remain", self.remaining());
            return Err(self.malformed(what, why));
        };
        self.at = end;
        Ok(self.bytes.get(at..end).unwrap_or_default())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A 64-bit number that must fit this machine's sizes.
    fn size(&mut self, what: &str) -> Result<usize, GgufError> {
        let at = self.at;
        let size = u64::from_le_bytes(self.array(what)?);
        usize::try_from(size).map_err(|_| self.malformed_at(at, what, format!("{size} is out of range")))
    }

    /// A number of things of `least` bytes or more each, all of which the rest of the file can hold.
    fn count(&mut self, what: &str, least: usize) -> Result<usize, GgufError> {
        let at = self.at;
        let count = self.size(what)?;
        if count > self.remaining() / least {
            let why = format!("{count} cannot be in the {} bytes that remain", self.remaining());
            return Err(self.malformed_at(at, what, why));
        }
        Ok(count)
    }

    fn string(&mut self, what: &str) -> Result<String, GgufError> {
        let at = self.at;
        let length = self.count(what, 1)?;
        match std::str::from_utf8(self.take(what, length)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.malformed_at(at, what, format!("not UTF-8: {error}"))),
        }
    }

    fn malformed(&self, what: &str, why: impl Into<String>) -> GgufError {
        self.malformed_at(self.at, what, why)
    }

    fn malformed_at(&self, at: usize, what: &str, why: impl Into<String>) -> GgufError {
        GgufError::Malformed { path: self.path.to_owned(), offset: at, what: what.to_owned(), why: why.into() }
    }
}
