//! Blocks of quantised values that candle does not read: tables of 4 bits (IQ4_NL, IQ4_XS, MXFP4) and values of three
//! levels (TQ1_0, TQ2_0). Layouts and arithmetic are ggml's, in `f32` and in its order. Lengths are the caller's to
//! check: bytes and values are taken block by block, and what makes no whole block is left as it is.

use half::f16;

/// The levels of IQ4_NL and IQ4_XS.
const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of MXFP4's four bits: a sign, two bits of exponent, one of fraction.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/// Powers of three that bring the first to fifth digit of a byte of TQ1_0 to its front.
const THREES: [u8; 5] = [1, 3, 9, 27, 81];

/// 32 values: a scale of 16 bits, then a table's index of 4 bits for each.
pub(super) fn iq4_nl(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let [low, high, indices @ ..] = block;
        nibbles(half(*low, *high), &UNEVEN, indices, values);
    }
}

/// 256 values: a scale of 16 bits, a scale of 6 bits for each 32 (two high bits of all, then four low ones), and a
/// table's index of 4 bits for each value.
pub(super) fn iq4_xs(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let [d_low, d_high, h_low, h_high, l0, l1, l2, l3, indices @ ..] = block;
        let (scale, high) = (half(*d_low, *d_high), u16::from_le_bytes([*h_low, *h_high]));
        let lows = [l0, l1, l2, l3].into_iter().flat_map(|byte| [byte & 0xf, byte >> 4]);
        let parts = indices.as_chunks::<16>().0.iter().zip(values.as_chunks_mut::<32>().0);
        for ((part, (indices, values)), low) in parts.enumerate().zip(lows) {
            let six = i16::from(low) | (((high >> (2 * part)) & 3) << 4) as i16;
            nibbles(scale * f32::from(six - 32), &UNEVEN, indices, values);
        }
    }
}

/// 32 values: an exponent of 8 bits, then 4 bits of floating point for each.
pub(super) fn mxfp4(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<17>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let [exponent, indices @ ..] = block;
        // Half of two to the power of the exponent less 127, as the table holds twice the values; the two least are
        // below what an ordinary `f32` holds.
        let exponent = u32::from(*exponent);
        let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 };
        nibbles(f32::from_bits(bits), &E2M1, indices, values);
    }
}

/// 256 values of -1, 0 and 1 times a scale: five to a byte, as digits of base three, then four to a byte.
pub(super) fn tq1_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<54>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (digits, scale) = block.split_at(52);
        let scale = scale.first_chunk().map_or(0.0, |[low, high]| half(*low, *high));
        let (first, rest) = digits.split_at(32);
        let (second, last) = rest.split_at(16);
        let rows = [(first, 5), (second, 5), (last, 4)];
        let digits = rows.into_iter().flat_map(|(bytes, places)| {
            THREES.iter().take(places).flat_map(move |three| bytes.iter().map(|byte| byte.wrapping_mul(*three)))
        });
        for (value, digit) in values.iter_mut().zip(digits) {
            *value = scale * f32::from(((u16::from(digit) * 3) >> 8) as i16 - 1);
        }
    }
}

/// 256 values of -1, 0, 1 and 2 times a scale: four to a byte.
pub(super) fn tq2_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in bytes.as_chunks::<66>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (levels, scale) = block.split_at(64);
        let scale = scale.first_chunk().map_or(0.0, |[low, high]| half(*low, *high));
        let levels = levels.as_chunks::<32>().0.iter();
        let levels = levels.flat_map(|bytes| [0, 2, 4, 6].map(|shift| bytes.map(|byte| (byte >> shift) & 3)));
        for (value, level) in values.iter_mut().zip(levels.flatten()) {
            *value = scale * f32::from(i16::from(level) - 1);
        }
    }
}

fn half(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

/// The low halves of the bytes are the first 16 values, the high halves the others.
fn nibbles(scale: f32, table: &[i8; 16], indices: &[u8; 16], out: &mut [f32; 32]) {
    let level = |index: u8| scale * f32::from(table[usize::from(index & 0xf)]);
    let (first, second) = out.split_at_mut(16);
    for ((first, second), byte) in first.iter_mut().zip(second).zip(indices) {
        (*first, *second) = (level(*byte), level(byte >> 4));
    }
}
