//! Matrices in FP8 (E4M3) with their scales, as quantised checkpoints store them.
//!
//! A number is its byte's value times a scale that it shares with its matrix, its row or its block. The two published
//! layouts differ in the name of the scale's tensor alone: `weight_scale_inv` (DeepSeek, Qwen 3; `transformers`'
//! `finegrained_fp8`) and `weight_scale` (compressed-tensors, ModelOpt, FBGEMM). Both are factors.

use float8::F8E4M3;
use std::sync::LazyLock;

/// The value of each byte read as E4M3 without infinities ("fn"). `[256]`
static E4M3: LazyLock<[f32; 256]> =
    LazyLock::new(|| std::array::from_fn(|byte| F8E4M3::from_bits(byte as u8).to_f32()));

/// A power of two, as E8M0 stores a scale in one byte.
pub(super) fn e8m0(byte: u8) -> f32 {
    if byte == 255 { f32::NAN } else { 2f32.powi(i32::from(byte) - 127) }
}

/// A matrix's scales: one a block, which may be the whole matrix or a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    /// `[blocks down, blocks across]`, row-major.
    values: Vec<f32>,
    /// Rows and columns of a block.
    block: [usize; 2],
    across: usize,
}

/// A scale's shape that fits no way of scaling a matrix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScaleError {
    /// The shapes that would fit.
    pub known: String,
}

impl Scale {
    /// The scales of a matrix of `rows` rows and `columns` columns, from a tensor of `shape`; `block` is what a block's
    /// rows and columns are where there is one a block.
    ///
    /// # Errors
    /// If the shape is neither that of one scale, nor of one a row, nor of one a block.
    pub(super) fn new(
        values: Vec<f32>,
        shape: &[usize],
        matrix: [usize; 2],
        block: [usize; 2],
    ) -> Result<Self, ScaleError> {
        let [rows, columns] = matrix;
        let blocks = [rows.div_ceil(block[0].max(1)), columns.div_ceil(block[1].max(1))];
        let (block, across) = match shape {
            _ if values.len() == 1 && (rows, columns) != (1, 1) => ([rows, columns], 1),
            shape if shape == blocks => (block, blocks[1]),
            [n] | [n, 1] if *n == rows => ([1, columns], 1),
            _ => {
                let [down, across] = blocks;
                let of = format!("blocks of {} by {}", block[0], block[1]);
                return Err(ScaleError { known: format!("[1], [{rows}, 1] or, for {of}, [{down}, {across}]") });
            }
        };
        Ok(Scale { values, block: block.map(|n| n.max(1)), across })
    }

    /// Rows of a matrix, from the `first`, as numbers; `bytes` and `out` hold whole rows of `columns`.
    pub(super) fn decode(&self, bytes: &[u8], first: usize, columns: usize, out: &mut [f32]) {
        let numbers = &*E4M3;
        let rows = bytes.chunks(columns.max(1)).zip(out.chunks_mut(columns.max(1)));
        for (i, (bytes, out)) in rows.enumerate() {
            let scales = &self.values[(first + i) / self.block[0] * self.across..];
            let blocks = bytes.chunks(self.block[1]).zip(out.chunks_mut(self.block[1]));
            for ((bytes, out), scale) in blocks.zip(scales) {
                bytes.iter().zip(out).for_each(|(byte, out)| *out = numbers[usize::from(*byte)] * scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_numbers_that_the_format_defines() {
        // From ml_dtypes' float8_e4m3fn.
        for (byte, value) in [
            (0x00u8, 0.0f32),
            (0x01, 0.001953125),
            (0x07, 0.013671875),
            (0x08, 0.015625),
            (0x0f, 0.029296875),
            (0x30, 0.5),
            (0x38, 1.0),
            (0x39, 1.125),
            (0x3f, 1.875),
            (0x40, 2.0),
            (0x55, 13.0),
            (0x7e, 448.0),
            (0x81, -0.001953125),
            (0xb8, -1.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(E4M3[usize::from(byte)], value, "{byte:#x}");
        }
        let nan = (0..256).filter(|i| E4M3[*i].is_nan()).collect::<Vec<_>>();
        assert_eq!(nan, [0x7f, 0xff]);
        assert!(E4M3[0x80] == 0.0 && E4M3[0x80].is_sign_negative());
        // Positive ones ascend with their bytes.
        assert!(E4M3[..127].is_sorted_by(|a, b| a < b));
        assert_eq!([0u8, 126, 127, 130, 254].map(e8m0), [2f32.powi(-127), 0.5, 1.0, 8.0, 2f32.powi(127)]);
        assert!(e8m0(255).is_nan());
    }

    #[test]
    fn each_number_has_the_scale_of_its_matrix_row_or_block() {
        // Rows 1 and 2 of a matrix of 3 by 5, all ones.
        let decoded = |values: &[f32], shape: &[usize], block: [usize; 2]| {
            let scale = Scale::new(values.to_vec(), shape, [3, 5], block).expect("a shape that fits");
            let mut out = [0f32; 10];
            scale.decode(&[0x38; 10], 1, 5, &mut out);
            out
        };
        for shape in [&[][..], &[1], &[1, 1]] {
            assert_eq!(decoded(&[0.5], shape, [2, 2]), [0.5; 10]);
        }
        for shape in [&[3][..], &[3, 1]] {
            assert_eq!(decoded(&[1.0, 2.0, 3.0], shape, [2, 2]), [2., 2., 2., 2., 2., 3., 3., 3., 3., 3.]);
        }
        let blocks = decoded(&[1., 2., 3., 4., 5., 6.], &[2, 3], [2, 2]);
        assert_eq!(blocks, [1., 1., 2., 2., 3., 4., 4., 5., 5., 6.]);
    }

    #[test]
    fn a_scale_of_another_shape_is_refused_with_those_that_fit() {
        for shape in [&[2][..], &[2, 2], &[3, 2], &[1, 3], &[3, 1, 1]] {
            let values = vec![1.0; shape.iter().product()];
            let error = Scale::new(values, shape, [3, 5], [2, 2]).expect_err("no such scale");
            assert_eq!(error.known, "[1], [3, 1] or, for blocks of 2 by 2, [2, 3]");
        }
    }
}
