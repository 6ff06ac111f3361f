//! Stacks of matrices in MXFP4 with their scales, as GPT-OSS' checkpoints store them.
//!
//! `NAME_blocks` `[matrices, out, blocks, 16]` holds two numbers of E2M1 a byte, the first in its lower half, and `NAME_scales`
//! `[matrices, out, blocks]` a power of two for each block of 32 (OCP Microscaling 1.0). What they stand for is the tensor `NAME`
//! `[matrices, 32 blocks, out]` of a checkpoint that is not quantised: `transformers` turns it around as it reads it
//! (`integrations/mxfp4.py`), and so is it here.

use super::fp8::e8m0;

/// What the names of the two tensors end with.
pub(super) const BLOCKS: &str = "_blocks";
pub(super) const SCALES: &str = "_scales";

/// How many numbers share a scale, and the bytes that they take.
const BLOCK: usize = 32;
const BYTES: usize = BLOCK / 2;

/// The value of each half of a byte read as E2M1.
const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The numbers of such a stack.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Mxfp4<'a> {
    blocks: &'a [u8],
    scales: &'a [u8],
    /// Of one matrix: numbers of an output, and how many outputs there are.
    inputs: usize,
    outputs: usize,
}

/// The shape `[matrices, in, out]` that blocks of this shape stand for.
pub(super) fn stands_for(blocks: &[usize]) -> Option<Vec<usize>> {
    match *blocks {
        [n, out, blocks, BYTES] => Some(vec![n, blocks.checked_mul(BLOCK)?, out]),
        _ => None,
    }
}

impl<'a> Mxfp4<'a> {
    /// The numbers of a stack `[matrices, in, out]`; nothing if there are other numbers of bytes than it takes.
    pub(super) fn new(blocks: &'a [u8], scales: &'a [u8], shape: &[usize]) -> Option<Self> {
        let [n, inputs, outputs] = *shape else { return None };
        let each = n.checked_mul(inputs / BLOCK)?.checked_mul(outputs)?;
        (blocks.len() == each.checked_mul(BYTES)? && scales.len() == each).then_some(Mxfp4 {
            blocks,
            scales,
            inputs,
            outputs,
        })
    }

    /// Rows of the stack, one matrix below another, from the `first`; `out` holds whole rows.
    pub(super) fn decode(&self, first: usize, out: &mut [f32]) {
        let rows = out.len() / self.outputs.max(1);
        let mut done = 0;
        while done < rows {
            let (matrix, row) = ((first + done) / self.inputs, (first + done) % self.inputs);
            // Rows that are of one block in every column.
            let run = (BLOCK - row % BLOCK).min(rows - done);
            for column in 0..self.outputs {
                let block = (matrix * self.outputs + column) * (self.inputs / BLOCK) + row / BLOCK;
                let (bytes, scale) = (&self.blocks[block * BYTES..(block + 1) * BYTES], e8m0(self.scales[block]));
                for i in 0..run {
                    let at = row % BLOCK + i;
                    let half = bytes[at / 2] >> (4 * (at % 2)) & 15;
                    out[(done + i) * self.outputs + column] = E2M1[usize::from(half)] * scale;
                }
            }
            done += run;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_bytes_are_the_numbers_that_the_format_defines() {
        // A sign, two bits of an exponent with a bias of 1, one of a mantissa.
        for (half, value) in E2M1.iter().enumerate() {
            let (sign, exponent, mantissa) = (half >> 3, half >> 1 & 3, (half & 1) as f32);
            let size = match exponent {
                0 => mantissa / 2.0,
                _ => (1.0 + mantissa / 2.0) * 2f32.powi(exponent as i32 - 1),
            };
            assert_eq!(*value, if sign == 0 { size } else { -size }, "{half}");
        }
    }

    #[test]
    fn a_stack_is_turned_around_and_each_block_has_its_scale() {
        // Two matrices of 64 inputs and 3 outputs, of which `convert_moe_packed_tensors` of transformers 5.24 makes these numbers too.
        let shape = stands_for(&[2, 3, 2, 16]).expect("a stack");
        assert_eq!(shape, [2, 64, 3]);
        let blocks: Vec<u8> = (0..2 * 3 * 2 * 16).map(|i| (i * 37 % 256) as u8).collect();
        let scales: Vec<u8> = (0..12).map(|i| 120 + i).collect();
        let packed = Mxfp4::new(&blocks, &scales, &shape).expect("bytes that fit");
        let expected = |matrix: usize, row: usize, column: usize| {
            let of = (matrix * 3 + column) * 2 + row / 32;
            let byte = blocks[of * 16 + row % 32 / 2];
            let half = byte >> (4 * (row % 2)) & 15;
            E2M1[usize::from(half)] * 2f32.powi(i32::from(scales[of]) - 127)
        };
        for (first, rows) in [(0, 128), (1, 40), (63, 2), (100, 28)] {
            let mut out = vec![f32::NAN; rows * 3];
            packed.decode(first, &mut out);
            for (i, value) in out.iter().enumerate() {
                let row = first + i / 3;
                assert_eq!(*value, expected(row / 64, row % 64, i % 3), "row {row}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_none() {
        assert_eq!(stands_for(&[2, 3, 16]), None);
        assert_eq!(stands_for(&[2, 3, 2, 8]), None);
        let (blocks, scales) = ([0u8; 96], [127u8; 6]);
        assert!(Mxfp4::new(&blocks, &scales, &[1, 64, 3]).is_some());
        assert!(Mxfp4::new(&blocks, &scales[1..], &[1, 64, 3]).is_none());
        assert!(Mxfp4::new(&blocks[1..], &scales, &[1, 64, 3]).is_none());
    }
}
