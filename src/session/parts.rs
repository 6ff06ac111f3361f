//! Readings as bytes, exactly, in the safetensors format.

use crate::plan::{Array, Reading};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;

/// The tensor that holds all readings that are one number; an array's reading is NaN there and has a tensor of its own.
const NUMBERS: &str = "numbers";

/// The metadata that says which plan a part is of.
const PLAN: &str = "plan";

/// Why a part does not fit.
pub(super) const ANOTHER: &str = "is of another plan: the prompts, the model's tokenizer or template, gatelens or its memory limit \
                                  have changed since";

/// Readings of the plan with this digest as the bytes of a part.
pub(super) fn encode(readings: &[Reading], digest: &str) -> Vec<u8> {
    let numbers: Vec<u8> = readings.iter().flat_map(|r| r.number().unwrap_or(f64::NAN).to_le_bytes()).collect();
    let mut tensors = vec![(NUMBERS.to_string(), Dtype::F64, vec![readings.len()], numbers)];
    for (i, reading) in readings.iter().enumerate() {
        if let Reading::Array(Array { shape, values }) = reading {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((i.to_string(), Dtype::F32, shape.clone(), bytes));
        }
    }
    // Shapes were made with their values: none can fail to fit.
    let views = tensors.iter().filter_map(|(name, dtype, shape, bytes)| {
        Some((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).ok()?))
    });
    let of = HashMap::from([(PLAN.to_string(), digest.to_string())]);
    safetensors::serialize(views, Some(of)).unwrap_or_default()
}

/// The `n` readings of a part.
///
/// # Errors
/// If the bytes are not those of a part of so many readings of that plan.
pub(super) fn decode(bytes: &[u8], n: usize, digest: &str) -> Result<Vec<Reading>, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| format!("is no finished part: {e}"))?;
    if header.metadata().as_ref().and_then(|m| m.get(PLAN)).is_none_or(|of| of != digest) {
        return Err(ANOTHER.to_string());
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| format!("is no finished part: {e}"))?;
    let numbers = tensors.tensor(NUMBERS).map_err(|e| format!("is no finished part: {e}"))?;
    if numbers.dtype() != Dtype::F64 || numbers.shape() != [n] {
        return Err(format!("holds {:?} readings, the plan has {n}", numbers.shape()));
    }
    let reading = |(i, bytes): (usize, &[u8; 8])| {
        let Ok(array) = tensors.tensor(&i.to_string()) else {
            return Ok(Reading::Number(f64::from_le_bytes(*bytes)));
        };
        if array.dtype() != Dtype::F32 {
            return Err(format!("reading {i} is not in f32"));
        }
        let values = array.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Reading::Array(Array { shape: array.shape().to_vec(), values }))
    };
    numbers.data().as_chunks::<8>().0.iter().enumerate().map(reading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_come_back_bit_for_bit() {
        let readings = vec![
            Reading::Number(0.1 + 0.2),
            Reading::Array(Array { shape: vec![2, 1], values: vec![f32::MIN_POSITIVE, -0.0] }),
            Reading::Number(-1e-300),
            Reading::Array(Array { shape: vec![0], values: vec![] }),
        ];
        assert_eq!(decode(&encode(&readings, "a"), 4, "a"), Ok(readings));
    }

    #[test]
    fn what_is_no_part_of_the_plan_is_refused() {
        let bytes = encode(&[Reading::Number(1.0)], "a");
        assert!(decode(&bytes, 2, "a").is_err());
        assert_eq!(decode(&bytes, 1, "b"), Err(ANOTHER.to_string()));
        assert!(decode(&bytes[..bytes.len() - 1], 1, "a").is_err());
        assert!(decode(b"", 0, "a").is_err());
    }
}
