//! How GGUF tensors store numbers, and turning stored bytes into `f32`.
//! Block layouts and their arithmetic are candle's, or those of [`super::blocks`] where it has none; lengths and alignment are checked here, because
//! candle trusts both. Reading the file and spreading the work over threads are left to the caller.

// Stored blocks are read in place, and the bytes of ones that lie askew are copied into whole ones.
#![allow(unsafe_code)]

use std::fmt;

use candle_core::quantized::GgmlType;
use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{GgufError, blocks};

// The blocks are read in place, so the bytes of the file are the bytes of memory.
#[cfg(target_endian = "big")]
compile_error!("GGUF tensors are read in place, which needs a little-endian machine");

/// How a tensor's numbers are stored.
#[allow(non_camel_case_types, reason = "the names that the ggml world uses")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GgmlKind {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// 4 bits, a scale for 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 values.
    Q4_1,
    /// 5 bits, a scale for 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 values.
    Q5_1,
    /// 8 bits, a scale for 32 values.
    Q8_0,
    /// 2 bits, 4-bit scales and minima, for 256 values.
    Q2_K,
    /// 3 bits, 6-bit scales, for 256 values.
    Q3_K,
    /// 4 bits, 6-bit scales and minima, for 256 values.
    Q4_K,
    /// 5 bits, 6-bit scales and minima, for 256 values.
    Q5_K,
    /// 6 bits, 8-bit scales, for 256 values.
    Q6_K,
    /// 4 bits for a table of uneven levels, a scale for 32 values.
    IQ4_NL,
    /// The same table, 6-bit scales, for 256 values.
    IQ4_XS,
    /// Three levels, a scale for 256 values, five values to a byte.
    TQ1_0,
    /// Three levels, a scale for 256 values, four values to a byte.
    TQ2_0,
    /// 4-bit floating point, an exponent for 32 values.
    MXFP4,
    /// A ggml type that is listed but not read, by its number.
    Other(u32),
}

impl GgmlKind {
    /// The kinds that can be read, as error messages list them.
    pub const SUPPORTED: &'static str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, \
         IQ4_XS, TQ1_0, TQ2_0, MXFP4";

    /// The kind with that number in a GGUF file.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2_K,
            11 => Self::Q3_K,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            20 => Self::IQ4_NL,
            23 => Self::IQ4_XS,
            30 => Self::BF16,
            34 => Self::TQ1_0,
            35 => Self::TQ2_0,
            39 => Self::MXFP4,
            other => Self::Other(other),
        }
    }

    /// The kind's number in a GGUF file.
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2_K => 10,
            Self::Q3_K => 11,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::IQ4_NL => 20,
            Self::IQ4_XS => 23,
            Self::BF16 => 30,
            Self::TQ1_0 => 34,
            Self::TQ2_0 => 35,
            Self::MXFP4 => 39,
            Self::Other(number) => number,
        }
    }

    /// The name ggml gives the type; `"unknown"` for numbers without one here.
    pub fn name(self) -> &'static str {
        match self.number() {
            0 => "F32",
            1 => "F16",
            2 => "Q4_0",
            3 => "Q4_1",
            6 => "Q5_0",
            7 => "Q5_1",
            8 => "Q8_0",
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            12 => "Q4_K",
            13 => "Q5_K",
            14 => "Q6_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            30 => "BF16",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            _ => "unknown",
        }
    }

    /// `(values, bytes)` of a block; nothing for kinds that are not read.
    fn block(self) -> Option<(usize, usize)> {
        match self {
            Self::F32 => Some((1, 4)),
            Self::F16 | Self::BF16 => Some((1, 2)),
            Self::Q4_0 | Self::IQ4_NL => Some((32, 18)),
            Self::Q4_1 => Some((32, 20)),
            Self::Q5_0 => Some((32, 22)),
            Self::Q5_1 => Some((32, 24)),
            Self::Q8_0 => Some((32, 34)),
            Self::Q2_K => Some((256, 84)),
            Self::Q3_K => Some((256, 110)),
            Self::Q4_K => Some((256, 144)),
            Self::Q5_K => Some((256, 176)),
            Self::Q6_K => Some((256, 210)),
            Self::IQ4_XS => Some((256, 136)),
            Self::TQ1_0 => Some((256, 54)),
            Self::TQ2_0 => Some((256, 66)),
            Self::MXFP4 => Some((32, 17)),
            Self::Other(_) => None,
        }
    }

    /// How many values a block holds; nothing for kinds that are not read.
    pub fn block_len(self) -> Option<usize> {
        self.block().map(|(values, _)| values)
    }

    /// Bytes of `cols` consecutive values, such as a row of a `[rows, cols]` weight; nothing where
    /// `cols` is no whole number of blocks, where the number overflows, or for kinds that are not read.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let (values, bytes) = self.block()?;
        cols.is_multiple_of(values).then_some(())?;
        (cols / values).checked_mul(bytes)
    }
}

impl fmt::Display for GgmlKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => write!(f, "ggml type {number} ({})", self.name()),
            known => f.write_str(known.name()),
        }
    }
}

/// Turns stored `bytes` into `out`, on the calling thread. To use several threads, split both at rows
/// ([`GgmlKind::row_bytes`]) and call this for each part.
///
/// # Errors
/// [`GgufError::Length`] where `bytes` is not exactly what `out.len()` values take,
/// [`GgufError::Undecodable`] for [`GgmlKind::Other`].
pub fn dequantize(kind: GgmlKind, bytes: &[u8], out: &mut [f32]) -> Result<(), GgufError> {
    let Some((block_len, block_bytes)) = kind.block() else {
        return Err(GgufError::Undecodable { number: kind.number(), name: kind.name() });
    };
    if kind.row_bytes(out.len()) != Some(bytes.len()) {
        return Err(GgufError::Length { kind, bytes: bytes.len(), values: out.len(), block_bytes, block_len });
    }
    match kind {
        GgmlKind::F32 => read_f32(bytes, out),
        GgmlKind::F16 => read_f16(bytes, out),
        GgmlKind::BF16 => read_bf16(bytes, out),
        GgmlKind::Q4_0 => in_place::<BlockQ4_0>(bytes, out),
        GgmlKind::Q4_1 => in_place::<BlockQ4_1>(bytes, out),
        GgmlKind::Q5_0 => in_place::<BlockQ5_0>(bytes, out),
        GgmlKind::Q5_1 => in_place::<BlockQ5_1>(bytes, out),
        GgmlKind::Q8_0 => in_place::<BlockQ8_0>(bytes, out),
        GgmlKind::Q2_K => in_place::<BlockQ2K>(bytes, out),
        GgmlKind::Q3_K => in_place::<BlockQ3K>(bytes, out),
        GgmlKind::Q4_K => in_place::<BlockQ4K>(bytes, out),
        GgmlKind::Q5_K => in_place::<BlockQ5K>(bytes, out),
        GgmlKind::Q6_K => in_place::<BlockQ6K>(bytes, out),
        GgmlKind::IQ4_NL => blocks::iq4_nl(bytes, out),
        GgmlKind::IQ4_XS => blocks::iq4_xs(bytes, out),
        GgmlKind::TQ1_0 => blocks::tq1_0(bytes, out),
        GgmlKind::TQ2_0 => blocks::tq2_0(bytes, out),
        GgmlKind::MXFP4 => blocks::mxfp4(bytes, out),
        GgmlKind::Other(_) => {}
    }
    Ok(())
}

fn read_f32(bytes: &[u8], out: &mut [f32]) {
    for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*stored);
    }
}

fn read_bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, stored) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*stored)) << 16);
    }
}

/// Through a small buffer of `f16`, because the conversion in bulk, which uses the processor's own
/// instruction, wants aligned halves.
fn read_f16(bytes: &[u8], out: &mut [f32]) {
    const RUN: usize = 256;
    let mut halves = [f16::ZERO; RUN];
    for (values, stored) in out.chunks_mut(RUN).zip(bytes.as_chunks::<2>().0.chunks(RUN)) {
        for (half, stored) in halves.iter_mut().zip(stored) {
            *half = f16::from_le_bytes(*stored);
        }
        if let Some(run) = halves.get(..values.len()) {
            run.convert_to_f32_slice(values);
        }
    }
}

/// Blocks that candle can be handed as they lie in a file.
///
/// # Safety
/// The type is `repr(C)` without padding, every bit pattern is a value of it, and its alignment is
/// that of `f16` or less.
unsafe trait PlainBlock: GgmlType {}
macro_rules! plain_blocks {
    ($($block:ty: $bytes:literal),*) => {
        $(
            // SAFETY: candle declares the type `repr(C)`, made of `f16`, `u8` and `i8` only; the
            // assertion below excludes padding.
            unsafe impl PlainBlock for $block {}
            const _: () = assert!(size_of::<$block>() == $bytes && align_of::<$block>() <= 2);
        )*
    };
}
plain_blocks!(
    BlockQ4_0: 18, BlockQ4_1: 20, BlockQ5_0: 22, BlockQ5_1: 24, BlockQ8_0: 34,
    BlockQ2K: 84, BlockQ3K: 110, BlockQ4K: 144, BlockQ5K: 176, BlockQ6K: 210
);

/// Expects lengths that [`dequantize`] has checked.
fn in_place<B: PlainBlock>(bytes: &[u8], out: &mut [f32]) {
    // SAFETY: `PlainBlock` promises that any bytes of its size are a value.
    let (before, blocks, after) = unsafe { bytes.align_to::<B>() };
    if before.is_empty() && after.is_empty() {
        B::to_float(blocks, out);
    } else {
        blocks_copied::<B>(bytes, out);
    }
}

/// The same for bytes at an odd address, which a GGUF with an alignment of one may have.
fn blocks_copied<B: PlainBlock>(bytes: &[u8], out: &mut [f32]) {
    const RUN: usize = 64;
    let mut run: Vec<B> = vec![B::zeros(); RUN];
    let parts = bytes.chunks(RUN * size_of::<B>()).zip(out.chunks_mut(RUN * B::BLCK_SIZE));
    for (stored, values) in parts {
        let count = stored.len() / size_of::<B>();
        let Some(blocks) = run.get_mut(..count) else {
            continue;
        };
        // SAFETY: `blocks` is `count * size_of::<B>()` writable bytes and `stored` at least as many
        // readable ones; they do not overlap, and any bytes make a `PlainBlock`.
        unsafe {
            std::ptr::copy_nonoverlapping(stored.as_ptr(), blocks.as_mut_ptr().cast::<u8>(), count * size_of::<B>());
        }
        B::to_float(blocks, values);
    }
}
