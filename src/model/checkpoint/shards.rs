//! The safetensors files of a folder: one, or shards with their index.

use super::adapter::Merge;
use super::fp8::{Scale, e8m0};
use super::mixture::Mixture;
use super::mxfp4::{self, Mxfp4};
use super::{CheckpointError, Numbers, Raw};
use crate::model::adapter::Adapter;
use crate::model::gguf::{GgmlKind, dequantize};
use crate::names::{nearest, suggestion};
use crate::parameters::param;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use sha2::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// The weights of a folder in one file.
pub(in crate::model) const SINGLE: &str = "model.safetensors";

/// The index of weights in shards.
pub(in crate::model) const INDEX: &str = "model.safetensors.index.json";

/// The safetensors files of a folder.
pub struct Shards {
    dir: PathBuf,
    files: Vec<Shard>,
    tensors: BTreeMap<String, Entry>,
    /// Rows and columns that share a scale, where a quantised matrix has one a block.
    block: [usize; 2],
    /// Names under which a tensor is not stored, with those under which it is.
    aliases: BTreeMap<String, String>,
    /// What changes these weights as they are read.
    merge: Option<Box<Merge>>,
    /// What is added to them after that.
    mixture: Option<Box<Mixture>>,
    warnings: Vec<String>,
    /// Whether a description stands for them, and nothing is stored.
    described: bool,
    /// How many bytes were read as numbers.
    read: AtomicU64,
}

/// The blocks of DeepSeek's layout, which all others take over.
const BLOCK: [usize; 2] = [128, 128];

/// What to do about a quantisation that is not read.
pub(in crate::model) const INSTEAD: &str = "take the unquantised checkpoint or a GGUF file";

/// What the names of a quantised layer's tensors end with that are not weights: the scales of its weight, of what it reads,
/// and of a cache. Only the first two are used.
const SCALES: [&str; 8] = [
    "weight_scale_inv",
    "weight_scale",
    "input_scale",
    "activation_scale",
    "q_scale",
    "k_scale",
    "v_scale",
    "output_scale",
];

struct Shard {
    path: PathBuf,
    map: Mmap,
    /// Where the tensors' bytes begin.
    data: usize,
}

#[derive(Clone)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// `model.safetensors.index.json`.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    pub(super) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let (index, single) = (dir.join(INDEX), dir.join(SINGLE));
        let mut shards = Shards::none(dir);
        // The single file first, as transformers has it: saving one over shards leaves their index behind.
        if single.exists() {
            shards.add(&single)?;
            if index.exists() {
                shards.warnings.push(format!("`{SINGLE}` is used, not the shards of `{INDEX}`, which is there too"));
            }
        } else if index.exists() {
            shards.open_indexed(&index)?;
        } else {
            let why = format!(
                "has neither `{SINGLE}` nor `{INDEX}`; gatelens reads safetensors (convert other formats with \
                 `transformers`' save_pretrained) and GGUF; what a study would cost is counted without weights, with {} \
                 and {}",
                param("dry_run"),
                param("prompt_tokens")
            );
            return Err(file_error(dir, why));
        }
        shards.add_aliases();
        shards.add_packed()?;
        Ok(shards)
    }

    fn none(dir: &Path) -> Self {
        let (files, tensors, aliases, warnings) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), Vec::new());
        let (dir, described, read) = (dir.to_path_buf(), false, AtomicU64::new(0));
        Shards { dir, files, tensors, block: BLOCK, aliases, merge: None, mixture: None, warnings, described, read }
    }

    /// Those of a model of which there is a description alone, at this path.
    pub(super) fn described(path: &Path) -> Self {
        Shards { described: true, ..Shards::none(path) }
    }

    pub(super) fn is_described(&self) -> bool {
        self.described
    }

    /// Where it is counted how many bytes were read as numbers.
    pub(super) fn counter(&self) -> &AtomicU64 {
        &self.read
    }

    /// The weights in one file.
    pub(super) fn open_file(path: &Path) -> Result<Self, CheckpointError> {
        let mut shards = Shards::none(path.parent().unwrap_or(path));
        shards.add(path)?;
        Ok(shards)
    }

    fn open_indexed(&mut self, index: &Path) -> Result<(), CheckpointError> {
        let text = std::fs::read(index).map_err(|e| file_error(index, e.to_string()))?;
        let parsed: Index =
            serde_json::from_slice(&text).map_err(|e| file_error(index, format!("not an index: {e}")))?;
        let mut names: Vec<&String> = parsed.weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            let mut components = Path::new(name).components();
            let first = matches!(components.next(), Some(Component::Normal(only)) if only == name.as_str());
            if !first || components.next().is_some() || name.contains(['/', '\\']) {
                let why = format!("names the shard `{name}`, which is not a file of its own folder; refused");
                return Err(file_error(index, why));
            }
            let path = self.dir.join(name);
            if !path.is_file() {
                let why =
                    format!("names the shard `{name}`, which is missing; the download is incomplete, fetch it again");
                return Err(file_error(index, why));
            }
            self.add(&path)?;
        }
        match parsed.weight_map.iter().find(|(tensor, _)| !self.tensors.contains_key(*tensor)) {
            None => Ok(()),
            Some((tensor, shard)) => Err(file_error(index, format!("puts `{tensor}` in `{shard}`, which has it not"))),
        }
    }

    fn add(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let bad = |why: String| file_error(path, why);
        let file = File::open(path).map_err(|e| bad(e.to_string()))?;
        // SAFETY: the file is opened for reading; should another process cut it short meanwhile, the system stops this
        // one, as it does any program that maps its weights.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| bad(e.to_string()))?;
        let (n, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| bad(format!("not a sound safetensors file: {e}{}", mend(&e, &map))))?;
        let data = 8 + n;
        for (name, info) in metadata.tensors() {
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            let entry = Entry { file: self.files.len(), dtype: info.dtype, shape: info.shape.clone(), bytes };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(bad(format!("holds `{name}`, which another shard holds too")));
            }
        }
        self.aliases.extend(metadata.metadata().clone().unwrap_or_default());
        self.files.push(Shard { path: path.to_path_buf(), map, data });
        Ok(())
    }

    /// Gives tensors that are stored once under several names all of them: safetensors' `save_model` keeps one, and notes
    /// the others in the file's metadata.
    fn add_aliases(&mut self) {
        let of = |(alias, kept): (&String, &String)| Some((alias.clone(), self.tensors.get(kept)?.clone()));
        let found: Vec<(String, Entry)> = self.aliases.iter().filter_map(of).collect();
        for (alias, entry) in found {
            self.tensors.entry(alias).or_insert(entry);
        }
    }

    /// Puts the stacks that blocks of MXFP4 stand for in their place, under their own names and in their own shapes.
    fn add_packed(&mut self) -> Result<(), CheckpointError> {
        let named = |name: &String| Some((name.clone(), name.strip_suffix(mxfp4::BLOCKS)?.to_string()));
        let bytes = self.tensors.iter().filter(|(_, entry)| entry.dtype == Dtype::U8);
        let found: Vec<(String, String)> = bytes.filter_map(|(name, _)| named(name)).collect();
        for (blocks, stack) in found {
            let Some(entry) = self.tensors.get(&blocks) else { continue };
            let Some(shape) = mxfp4::stands_for(&entry.shape) else {
                let why = format!("has the shape {:?}; blocks of MXFP4 are [matrices, out, blocks, 16]", entry.shape);
                return Err(self.bad(&blocks, why));
            };
            let entry = Entry { dtype: Dtype::F4, shape, ..entry.clone() };
            self.tensors.remove(&blocks);
            self.tensors.entry(stack).or_insert(entry);
        }
        Ok(())
    }

    pub(super) fn in_blocks(self, block: [usize; 2]) -> Self {
        Shards { block, ..self }
    }

    /// These weights, changed by an adapter as they are read.
    pub(super) fn merged(self, adapter: &Adapter) -> Result<Self, CheckpointError> {
        let merge = Some(Box::new(Merge::open(adapter, &self)?));
        Ok(Shards { merge, ..self })
    }

    /// What changes these weights as they are read.
    pub(super) fn merge(&self) -> Option<&Merge> {
        self.merge.as_deref()
    }

    /// These weights, with a mixture added to them as they are read.
    pub(super) fn mixed(self, mixture: Mixture) -> Self {
        Shards { mixture: Some(Box::new(mixture)), ..self }
    }

    /// What is added to these weights as they are read.
    pub(super) fn mixture(&self) -> Option<&Mixture> {
        self.mixture.as_deref()
    }

    /// How a tensor is stored, and in what shape: an adapter's own, where it stands for one.
    pub(super) fn stored(&self, name: &str) -> Option<(Dtype, &[usize])> {
        match self.merge().and_then(|merge| merge.replaced(name)) {
            Some((adapter, own)) => adapter.stored(own),
            None => self.tensors.get(name).map(|entry| (entry.dtype, entry.shape.as_slice())),
        }
    }

    /// A tensor's bytes as they are stored, with the mapping that they are of.
    pub(super) fn stored_bytes(&self, name: &str) -> Result<(&[u8], &Mmap), CheckpointError> {
        if let Some((adapter, own)) = self.merge().and_then(|merge| merge.replaced(name)) {
            return adapter.stored_bytes(own);
        }
        let entry = self.tensors.get(name).ok_or_else(|| self.bad(name, "is missing".to_string()))?;
        self.bytes(name, entry)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.merge().is_some_and(|merge| merge.changes(name))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.merge().into_iter().flat_map(Merge::own).filter(|name| !self.tensors.contains_key(*name));
        self.tensors.keys().map(String::as_str).chain(own)
    }

    pub(super) fn fingerprint(&self, hash: &mut impl Digest) {
        for file in &self.files {
            hash.update((file.map.len() as u64).to_le_bytes());
            hash.update(&file.map[..file.data]);
        }
        self.merge().into_iter().for_each(|merge| merge.fingerprint(hash));
        self.mixture().into_iter().for_each(|mixture| mixture.fingerprint(hash));
    }

    /// A few bytes of every tensor, also of those that are mixed into it, and an adapter as a whole.
    pub(super) fn sample(&self, hash: &mut impl Digest) {
        for (name, entry) in &self.tensors {
            let map = &self.files[entry.file].map;
            let bytes = map.get(entry.bytes.clone()).unwrap_or_default();
            hash.update(name);
            super::some_bytes(bytes).for_each(|some| hash.update(some));
            super::give_back(map, bytes);
        }
        self.merge().into_iter().for_each(|merge| merge.fingerprint(hash));
        self.mixture().into_iter().for_each(|mixture| mixture.sample(hash));
    }

    /// The folder, or that of the one file.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn hash_whole(&self, hash: &mut impl Digest) {
        self.files.iter().for_each(|file| hash.update(&file.map[..]));
    }

    /// Whether a tensor belongs to a quantised one in the same module, or in a module within it, without being a weight.
    pub(super) fn is_scale(&self, name: &str) -> bool {
        let packed = name.strip_suffix(mxfp4::SCALES).and_then(|stack| self.tensors.get(stack));
        if packed.is_some_and(|stack| stack.dtype == Dtype::F4) {
            return true;
        }
        let Some((module, _)) = name.rsplit_once('.').filter(|(_, last)| SCALES.contains(last)) else { return false };
        let within = |(other, entry): (&String, &Entry)| {
            other.starts_with(module) && other[module.len()..].starts_with('.') && entry.dtype == Dtype::F8_E4M3
        };
        self.tensors.range(module.to_string()..).take_while(|(other, _)| other.starts_with(module)).any(within)
    }

    /// A tensor's shape and bytes.
    pub(super) fn find(&self, name: &str) -> Result<(&Vec<usize>, Raw<'_>), CheckpointError> {
        if let Some((adapter, own)) = self.merge().and_then(|merge| merge.replaced(name)) {
            return adapter.find(own);
        }
        let bad = |why: String| self.bad(name, why);
        let Some(entry) = self.tensors.get(name) else {
            if self.described {
                let why = "is not there: the model is only described, so that nothing of it can be computed";
                return Err(bad(why.to_string()));
            }
            let near = nearest(name, self.tensors.keys().map(String::as_str));
            return Err(bad(format!("is missing{}", suggestion(&near))));
        };
        let numbers = match entry.dtype {
            Dtype::F32 => Numbers::Ggml(GgmlKind::F32),
            Dtype::F16 => Numbers::Ggml(GgmlKind::F16),
            Dtype::BF16 => Numbers::Ggml(GgmlKind::BF16),
            Dtype::F8_E4M3 => Numbers::Fp8(self.scale(name, &entry.shape)?),
            Dtype::F4 => Numbers::Mxfp4(self.packed(name, entry)?),
            other => {
                let known = "F32, F16 and BF16, and F8_E4M3 and MXFP4 with their scales";
                return Err(bad(format!("is stored as {other:?}; gatelens reads {known}")));
            }
        };
        let (bytes, map) = self.bytes(name, entry)?;
        Ok((&entry.shape, Raw { bytes, numbers, map }))
    }

    fn bytes(&self, name: &str, entry: &Entry) -> Result<(&[u8], &Mmap), CheckpointError> {
        let map = &self.files[entry.file].map;
        let bytes = map.get(entry.bytes.clone()).ok_or_else(|| self.bad(name, "lies outside its file".to_string()))?;
        Ok((bytes, map))
    }

    /// The numbers of a stack in MXFP4.
    fn packed(&self, stack: &str, entry: &Entry) -> Result<Mxfp4<'_>, CheckpointError> {
        let name = format!("{stack}{}", mxfp4::SCALES);
        let Some(scales) = self.tensors.get(&name) else {
            return Err(self.bad(stack, format!("is MXFP4 without scales (`{name}`); {INSTEAD}")));
        };
        let expected = match *entry.shape {
            [n, inputs, outputs] => [n, outputs, inputs / 32],
            _ => return Err(self.bad(stack, format!("is MXFP4 and has the shape {:?}; {INSTEAD}", entry.shape))),
        };
        if scales.dtype != Dtype::U8 || scales.shape != expected {
            let found = format!("is {:?} {:?}", scales.dtype, scales.shape);
            return Err(self.bad(&name, format!("{found}; the scales of `{stack}` are U8 {expected:?}")));
        }
        let ((blocks, _), (scales, _)) = (self.bytes(stack, entry)?, self.bytes(&name, scales)?);
        let packed = Mxfp4::new(blocks, scales, &entry.shape);
        packed.ok_or_else(|| self.bad(stack, "is shorter than its shape says".to_string()))
    }

    /// The scales of a quantised matrix.
    fn scale(&self, matrix: &str, shape: &[usize]) -> Result<Scale, CheckpointError> {
        let names = [format!("{matrix}_scale_inv"), format!("{matrix}_scale")];
        let Some((name, entry)) = names.iter().find_map(|name| Some((name, self.tensors.get(name)?))) else {
            let [first, second] = &names;
            let why = format!("is FP8 without a scale (`{first}` or `{second}`); {INSTEAD}");
            return Err(self.bad(matrix, why));
        };
        let [rows, columns] = *shape else {
            return Err(self.bad(matrix, format!("is FP8 and has the shape {shape:?}; only a matrix has scales")));
        };
        let (bytes, _) = self.bytes(name, entry)?;
        let mut values = vec![0f32; entry.shape.iter().product()];
        let kind = match entry.dtype {
            Dtype::F32 => Some(GgmlKind::F32),
            Dtype::F16 => Some(GgmlKind::F16),
            Dtype::BF16 => Some(GgmlKind::BF16),
            Dtype::F8_E8M0 => None,
            other => {
                return Err(self.bad(name, format!("is stored as {other:?}, as which no scale is read; {INSTEAD}")));
            }
        };
        match kind {
            Some(kind) => dequantize(kind, bytes, &mut values).map_err(|e| self.bad(name, e.to_string()))?,
            None => values.iter_mut().zip(bytes).for_each(|(value, byte)| *value = e8m0(*byte)),
        }
        Scale::new(values, &entry.shape, [rows, columns], self.block).map_err(|e| {
            let why = format!("has the shape {:?}; one that scales `{matrix}` has {}", entry.shape, e.known);
            self.bad(name, why)
        })
    }

    fn bad(&self, name: &str, why: String) -> CheckpointError {
        CheckpointError::Tensor { path: self.path_of(name), tensor: name.to_string(), why }
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.tensors.get(name).map_or_else(|| self.dir.clone(), |e| self.files[e.file].path.clone())
    }
}

/// What mends a broken safetensors file.
fn mend(e: &safetensors::SafeTensorError, bytes: &[u8]) -> &'static str {
    match e {
        _ if bytes.starts_with(b"version https://git-lfs") => {
            " (it is a pointer of Git LFS, not the file itself: run `git lfs pull` where it was cloned)"
        }
        safetensors::SafeTensorError::MetadataIncompleteBuffer => {
            " (the file is shorter or longer than its header says: fetch it again)"
        }
        _ => " (fetch it again)",
    }
}

fn file_error(path: &Path, why: impl Into<String>) -> CheckpointError {
    CheckpointError::File { path: path.to_path_buf(), why: why.into() }
}
