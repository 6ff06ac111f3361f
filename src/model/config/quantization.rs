//! How a checkpoint's weights are quantised: `quantization_config`.
//!
//! FP8 and MXFP4 weights are read as the numbers that they stand for. What the schemes say of activations changes how other programs
//! round them, not what the model is; here they keep their precision.

use super::ConfigError;
use super::reader::Reader;
use crate::model::checkpoint::INSTEAD;
use serde_json::{Map, Value};

const KEY: &str = "quantization_config";

/// The blocks that share a scale where the description does not say.
const BLOCK: [usize; 2] = [128, 128];

/// The blocks that share a scale in FP8 weights; nothing where the weights are none.
///
/// # Errors
/// If they are quantised in a way that is not read, which is named.
pub(super) fn fp8_blocks(r: &Reader) -> Result<Option<[usize; 2]>, ConfigError> {
    let Some(value) = r.take(KEY) else { return Ok(None) };
    let map = value.as_object().ok_or_else(|| r.key(KEY, format!("expected an object, found {value}")))?;
    let method = map.get("quant_method").and_then(Value::as_str).unwrap_or("(no `quant_method`)");
    let block = match method {
        "fp8" => fp8(r, map)?,
        "fbgemm_fp8" => BLOCK,
        "compressed-tensors" => compressed(r, map)?,
        "modelopt" => {
            let kind = map.get("quant_algo").and_then(Value::as_str).unwrap_or("(no `quant_algo`)");
            if kind != "FP8" {
                return Err(refused(r, &format!("modelopt {kind}")));
            }
            BLOCK
        }
        // Which tensors are is seen by their names: `checkpoint::mxfp4`.
        "mxfp4" => {
            r.warn("the weights are quantised (mxfp4): their numbers are read as they are stored".to_string());
            return Ok(None);
        }
        other => return Err(refused(r, other)),
    };
    r.warn(format!("the weights are quantised ({method}): their numbers are read as they are stored, in FP8; activations are not rounded"));
    Ok(Some(block))
}

fn refused(r: &Reader, method: &str) -> ConfigError {
    r.key(KEY, format!("the weights are quantised with `{method}`, which gatelens does not read; {INSTEAD}"))
}

/// DeepSeek's and Qwen's scheme.
fn fp8(r: &Reader, map: &Map<String, Value>) -> Result<[usize; 2], ConfigError> {
    match map.get("fmt").and_then(Value::as_str) {
        None | Some("e4m3" | "float8_e4m3fn") => block_of(r, map.get("weight_block_size")),
        Some(other) => Err(refused(r, &format!("fp8 {other}"))),
    }
}

/// Compressed-tensors: a folder may be of several schemes, of which each must be FP8 as it is stored.
fn compressed(r: &Reader, map: &Map<String, Value>) -> Result<[usize; 2], ConfigError> {
    let format = map.get("format").and_then(Value::as_str).unwrap_or("(no `format`)");
    if !matches!(format, "float-quantized" | "naive-quantized") {
        return Err(refused(r, &format!("compressed-tensors {format}")));
    }
    let sparsity = map.get("sparsity_config").and_then(|s| s.get("format")).and_then(Value::as_str);
    if let Some(sparsity) = sparsity.filter(|s| *s != "dense") {
        return Err(refused(r, &format!("compressed-tensors {sparsity}")));
    }
    let groups = map.get("config_groups").and_then(Value::as_object).into_iter().flatten();
    let weights = groups.filter_map(|(_, group)| group.get("weights")).filter(|w| !w.is_null());
    let mut block = None;
    for weights in weights {
        let (kind, bits) =
            (weights.get("type").and_then(Value::as_str), weights.get("num_bits").and_then(Value::as_u64));
        let of = |key: &str| weights.get(key).unwrap_or(&Value::Null);
        let strategy = of("strategy").as_str().unwrap_or("tensor");
        if (kind, bits) != (Some("float"), Some(8)) || of("symmetric") == &Value::Bool(false) {
            let (kind, bits) = (of("type"), of("num_bits"));
            return Err(refused(r, &format!("compressed-tensors {kind} of {bits} bits")));
        }
        match strategy {
            "tensor" | "channel" => {}
            "block" => {
                let found = block_of(r, weights.get("block_structure"))?;
                if block.is_some_and(|block| block != found) {
                    return Err(refused(r, "compressed-tensors in blocks of several sizes"));
                }
                block = Some(found);
            }
            other => return Err(refused(r, &format!("compressed-tensors by {other}"))),
        }
    }
    Ok(block.unwrap_or(BLOCK))
}

/// Rows and columns of a block: `[128, 128]`, or `"128x128"` in some versions.
fn block_of(r: &Reader, value: Option<&Value>) -> Result<[usize; 2], ConfigError> {
    let bad = |found: &Value| r.key(KEY, format!("expected the rows and columns of a block, found {found}"));
    let sides: Vec<u64> = match value {
        None | Some(Value::Null) => return Ok(BLOCK),
        Some(Value::Array(sides)) => sides.iter().filter_map(Value::as_u64).collect(),
        Some(Value::String(text)) => text.split('x').filter_map(|side| side.parse().ok()).collect(),
        Some(other) => return Err(bad(other)),
    };
    let sides: Vec<usize> = sides.into_iter().filter_map(|n| usize::try_from(n).ok()).filter(|n| *n > 0).collect();
    <[usize; 2]>::try_from(sides).map_err(|_| bad(value.unwrap_or(&Value::Null)))
}
