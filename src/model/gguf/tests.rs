use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::*;
use crate::gguf_builder::{GgufBuilder, Meta};

fn open_bytes(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("test.gguf");
    std::fs::write(&path, bytes).expect("the test can write its file");
    Gguf::open(&path)
}

fn open(builder: &GgufBuilder) -> Result<Gguf, GgufError> {
    open_bytes(&builder.bytes())
}

/// The message of the error that opening must give.
fn refusal(builder: &GgufBuilder) -> String {
    match open(builder) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => error.to_string(),
    }
}

fn sample() -> GgufBuilder {
    GgufBuilder::new()
        .key("general.architecture", "llama")
        .key("llama.block_count", Meta::U32(2))
        .key("llama.eps", Meta::F32(0.5))
        .key("llama.signed", Meta::I32(-3))
        .key("llama.flag", Meta::Bool(true))
        .key("tokens", &["a", "b\u{e9}"][..])
        .key("types", Meta::I32s(vec![1, -2]))
        .key("scores", Meta::F32s(vec![0.25, -1.0]))
        .key("nested", Meta::Nested(vec![Meta::I32s(vec![1]), Meta::I32s(vec![2, 3])]))
        .floats("weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .floats("bias", &[3], &[7.0, 8.0, 9.0])
}

#[test]
fn metadata_and_tensors_are_read_with_their_types() {
    let file = open(&sample()).expect("a sound file");
    assert_eq!(file.str("general.architecture").expect("a string"), "llama");
    assert_eq!(file.u64("llama.block_count").expect("an integer"), 2);
    assert_eq!(file.f64("llama.eps").expect("a float"), 0.5);
    assert_eq!(file.opt_bool("llama.flag").expect("a boolean"), Some(true));
    assert_eq!(file.strings("tokens").expect("strings"), ["a", "b\u{e9}"]);
    assert_eq!(file.opt_ints("types").expect("integers"), Some([1, -2].as_slice()));
    assert_eq!(file.floats("scores").expect("floats"), [0.25, -1.0]);
    let nested = Value::Arrays(vec![Value::Ints(vec![1]), Value::Ints(vec![2, 3])]);
    assert_eq!(file.get("nested"), Some(&nested));
    let names: Vec<&str> = file.tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["weight", "bias"]);
    let weight = file.tensor("weight").expect("listed");
    assert_eq!(weight.shape, [2, 3]);
    let mut values = vec![0.0; weight.elements()];
    dequantize(weight.kind, file.bytes(weight).expect("present"), &mut values).expect("f32");
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let mut bias = vec![0.0; 3];
    let stored = file.bytes(file.tensor("bias").expect("listed")).expect("present");
    dequantize(GgmlKind::F32, stored, &mut bias).expect("f32");
    assert_eq!(bias, [7.0, 8.0, 9.0]);
}

#[test]
fn missing_and_mistyped_keys_are_named() {
    let file = open(&sample()).expect("a sound file");
    let missing = file.u64("llama.block_coun").expect_err("missing").to_string();
    assert!(missing.contains("llama.block_coun\"") && missing.contains("llama.block_count"));
    assert!(missing.contains("test.gguf"));
    let wrong = file.u64("general.architecture").expect_err("a string").to_string();
    assert!(wrong.contains("general.architecture") && wrong.contains("holds a string"));
    assert!(file.u64("llama.signed").is_err(), "a negative number is no u64");
    assert_eq!(file.opt_u64("absent").expect("absence is fine"), None);
    assert!(file.opt_bool("llama.eps").is_err(), "a wrong type is an error even where optional");
}

#[test]
fn an_unknown_tensor_is_an_error_with_the_nearest_names() {
    let file = open(&sample()).expect("a sound file");
    let message = file.tensor("weigth").expect_err("missing").to_string();
    assert!(message.contains("weigth") && message.contains("nearest names are: weight"), "{message}");
}

#[test]
fn version_two_is_read_and_others_are_refused() {
    let mut builder = sample();
    builder.version = 2;
    assert_eq!(open(&builder).expect("version 2").tensors().count(), 2);
    builder.version = 1;
    assert!(refusal(&builder).contains("GGUF version 1"));
    builder.version = 3_u32.swap_bytes();
    assert!(refusal(&builder).contains("big-endian"));
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let mut builder = sample();
    builder.magic = *b"PK\x03\x04";
    assert!(refusal(&builder).contains("not a GGUF file"));
    assert!(matches!(open_bytes(b""), Err(GgufError::NotGguf { .. })));
    let absent = Gguf::open(Path::new("/nonexistent/model.gguf"));
    assert!(matches!(absent, Err(GgufError::Io { .. })));
}

#[test]
fn every_truncation_is_refused_without_a_panic() {
    let bytes = sample().bytes();
    for length in 0..bytes.len() {
        let error = parse::parse(Path::new("cut.gguf"), &bytes[..length]).err();
        let error = error.unwrap_or_else(|| panic!("{length} of {} bytes passed", bytes.len()));
        assert!(error.to_string().contains("cut.gguf"));
    }
}

#[test]
fn every_single_byte_change_is_survived() {
    let sound = sample().bytes();
    for index in 0..sound.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[index] = value;
            // Whether it is refused depends on the byte; that it does not panic is what is tested.
            let _ = parse::parse(Path::new("changed.gguf"), &bytes);
        }
    }
}

#[test]
fn lying_counts_are_refused_before_memory_is_reserved() {
    for counts in [(u64::MAX, 0), (0, u64::MAX), (1 << 40, 1), (1, 1 << 40)] {
        let mut builder = sample();
        builder.counts = Some(counts);
        let message = refusal(&builder);
        assert!(message.contains("the number of"), "{message}");
    }
    let long_string = Meta::Raw(8, u64::MAX.to_le_bytes().to_vec());
    assert!(refusal(&GgufBuilder::new().key("k", long_string)).contains("that remain"));
    for element in 0..=12_u32 {
        let mut bytes = element.to_le_bytes().to_vec();
        bytes.extend((u64::MAX / 2).to_le_bytes());
        let message = refusal(&GgufBuilder::new().key("long", Meta::Raw(9, bytes)));
        assert!(message.contains("long") && message.contains("that remain"), "{message}");
    }
}

#[test]
fn a_count_that_a_large_file_could_just_hold_does_not_reserve_many_times_its_size() {
    // 64 GiB that are nowhere stored: 24 bytes a tensor in the file, several times as many in memory.
    const SIZE: u64 = 64 << 30;
    let strings = [8_u32.to_le_bytes().as_slice(), &(SIZE / 16).to_le_bytes()].concat();
    for (counts, builder) in [
        (Some((SIZE / 25, 1)), GgufBuilder::new().key("k", Meta::U8(1))),
        (Some((1, SIZE / 14)), GgufBuilder::new().key("k", Meta::U8(1))),
        (None, GgufBuilder::new().key("k", Meta::Raw(9, [strings.as_slice(), &u64::MAX.to_le_bytes()].concat()))),
    ] {
        let mut builder = builder;
        builder.counts = counts;
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("large.gguf");
        builder.write(&path);
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the file");
        if file.set_len(SIZE).is_err() {
            println!("skipped: the file system has no room for a file of holes");
            return;
        }
        assert!(matches!(Gguf::open(&path), Err(GgufError::Malformed { .. })));
    }
}

#[test]
fn unknown_value_types_and_bad_booleans_are_refused() {
    let message = refusal(&GgufBuilder::new().key("odd", Meta::Raw(13, vec![0; 8])));
    assert!(message.contains("\"odd\"") && message.contains("13"));
    let bytes = [99_u32.to_le_bytes().as_slice(), &[0; 8]].concat();
    assert!(refusal(&GgufBuilder::new().key("odd", Meta::Raw(9, bytes))).contains("99"));
    assert!(refusal(&GgufBuilder::new().key("flag", Meta::Raw(7, vec![2]))).contains("0 or 1"));
    let invalid = [1_u64.to_le_bytes().as_slice(), &[0xff]].concat();
    assert!(refusal(&GgufBuilder::new().key("text", Meta::Raw(8, invalid))).contains("UTF-8"));
}

#[test]
fn deep_nesting_is_refused() {
    let mut value = Meta::I32s(vec![1]);
    for _ in 0..10 {
        value = Meta::Nested(vec![value]);
    }
    assert!(refusal(&GgufBuilder::new().key("deep", value)).contains("nested"));
}

#[test]
fn duplicates_are_refused() {
    let twice = GgufBuilder::new().key("k", Meta::U8(1)).key("k", Meta::U8(2));
    assert!(refusal(&twice).contains("appears twice"));
    let twice = GgufBuilder::new().floats("t", &[1], &[1.0]).floats("t", &[1], &[2.0]);
    assert!(refusal(&twice).contains("listed twice"));
}

#[test]
fn tensors_outside_the_file_misaligned_or_overflowing_are_refused() {
    let outside = GgufBuilder::new().tensor_at("t", &[64], 0, 1 << 20);
    assert!(refusal(&outside).contains("incomplete"));
    let misaligned = sample().tensor_at("t", &[1], 0, 4);
    assert!(refusal(&misaligned).contains("alignment"));
    let far = GgufBuilder::new().tensor_at("t", &[1], 0, u64::MAX - 31);
    assert!(refusal(&far).contains("overflows"));
    let huge = GgufBuilder::new().tensor_at("t", &[1 << 40, 1 << 40], 0, 0);
    assert!(refusal(&huge).contains("overflows"));
    let wide = GgufBuilder::new().tensor_at("t", &[usize::MAX / 2], 0, 0);
    assert!(refusal(&wide).contains('t'));
    let ragged = GgufBuilder::new().tensor("t", &[2, 16], 2, &[0; 18]);
    assert!(refusal(&ragged).contains("whole Q4_0 blocks"));
    let deep = GgufBuilder::new().tensor("t", &[1; 5], 0, &[0; 4]);
    assert!(refusal(&deep).contains("5 dimensions"));
}

#[test]
fn the_alignment_is_honoured() {
    let mut builder = sample().key("general.alignment", Meta::U32(256)).floats("third", &[1], &[42.0]);
    builder.alignment = 256;
    let file = open(&builder).expect("an alignment of 256");
    let mut value = [0.0];
    let stored = file.bytes(file.tensor("third").expect("listed")).expect("present");
    dequantize(GgmlKind::F32, stored, &mut value).expect("f32");
    assert_eq!(value, [42.0]);
    for bad in [0, 3, 48] {
        let builder = sample().key("general.alignment", Meta::U32(bad));
        assert!(refusal(&builder).contains("power of two"));
    }
}

#[test]
fn an_unknown_tensor_type_is_listed_and_refused_when_asked_for() {
    let builder = sample().tensor("iq", &[256], 16, &[0; 66]);
    let file = open(&builder).expect("listing needs no knowledge of the type");
    let info = file.tensor("iq").expect("listed");
    assert_eq!(info.kind, GgmlKind::Other(16));
    let message = file.bytes(info).expect_err("not read").to_string();
    assert!(message.contains("ggml type 16 (IQ2_XXS)") && message.contains("\"iq\""), "{message}");
    assert!(dequantize(info.kind, &[], &mut []).is_err());
}

#[test]
fn a_tensor_of_another_file_is_refused() {
    let small = open(&GgufBuilder::new().floats("t", &[1], &[1.0])).expect("sound");
    let large = open(&GgufBuilder::new().floats("t", &[4096], &[1.0; 4096])).expect("sound");
    let foreign = large.tensor("t").expect("listed");
    assert!(matches!(small.bytes(foreign), Err(GgufError::Foreign { .. })));
}

#[test]
fn kind_numbers_go_both_ways() {
    for number in 0..64 {
        assert_eq!(GgmlKind::from_number(number).number(), number);
    }
    assert_eq!(GgmlKind::Q6_K.row_bytes(512), Some(420));
    assert_eq!(GgmlKind::Q6_K.row_bytes(500), None);
    assert_eq!(GgmlKind::MXFP4.row_bytes(64), Some(34));
    assert_eq!(GgmlKind::F16.row_bytes(usize::MAX), None);
}

fn read(kind: GgmlKind, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut values = vec![f32::NAN; count];
    dequantize(kind, bytes, &mut values).expect("lengths that fit");
    // The same bytes at an odd address must give the same values.
    let mut shifted = vec![0_u8; bytes.len() + 2];
    let odd = 1 + usize::from(!(shifted.as_ptr() as usize).is_multiple_of(2));
    shifted[odd..odd + bytes.len()].copy_from_slice(bytes);
    let mut again = vec![f32::NAN; count];
    dequantize(kind, &shifted[odd..odd + bytes.len()], &mut again).expect("lengths that fit");
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&again), bits(&values));
    values
}

fn half_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

/// Quants 0..16 in the low nibbles, 15..=0 in the high ones.
fn nibbles() -> [u8; 16] {
    std::array::from_fn(|i| i as u8 | ((15 - i as u8) << 4))
}

fn nibble(i: usize) -> f32 {
    if i < 16 { i as f32 } else { (31 - i) as f32 }
}

#[test]
fn floats_are_converted_exactly() {
    let values: Vec<f32> = (0..700).map(|i| (i as f32 - 350.0) * 0.125).collect();
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(GgmlKind::F32, &f32s, 700), values);
    let f16s: Vec<u8> = values.iter().flat_map(|v| half_bytes(*v)).collect();
    assert_eq!(read(GgmlKind::F16, &f16s, 700), values);
    let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    let rounded: Vec<f32> = values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
    assert_eq!(read(GgmlKind::BF16, &bf16s, 700), rounded);
}

#[test]
fn q4_0_is_scale_times_quant_less_eight() {
    let block = [half_bytes(0.5).as_slice(), &nibbles()].concat();
    let expected: Vec<f32> = (0..32).map(|i| 0.5 * (nibble(i) - 8.0)).collect();
    assert_eq!(read(GgmlKind::Q4_0, &block, 32), expected);
}

#[test]
fn q4_1_is_scale_times_quant_plus_minimum() {
    let block = [half_bytes(0.25).as_slice(), &half_bytes(-3.0), &nibbles()].concat();
    let expected: Vec<f32> = (0..32).map(|i| 0.25 * nibble(i) - 3.0).collect();
    assert_eq!(read(GgmlKind::Q4_1, &block, 32), expected);
}

/// The fifth bits: value `i` has it where bit `i` is set.
const FIFTH: u32 = 0xA5A5_0FF3;

fn five_bits(i: usize) -> f32 {
    nibble(i) + 16.0 * ((FIFTH >> i) & 1) as f32
}

#[test]
fn q5_0_is_scale_times_quant_less_sixteen() {
    let block = [half_bytes(2.0).as_slice(), &FIFTH.to_le_bytes(), &nibbles()].concat();
    let expected: Vec<f32> = (0..32).map(|i| 2.0 * (five_bits(i) - 16.0)).collect();
    assert_eq!(read(GgmlKind::Q5_0, &block, 32), expected);
}

#[test]
fn q5_1_is_scale_times_quant_plus_minimum() {
    let parts = [half_bytes(0.5), half_bytes(1.5)].concat();
    let block = [parts.as_slice(), &FIFTH.to_le_bytes(), &nibbles()].concat();
    let expected: Vec<f32> = (0..32).map(|i| 0.5 * five_bits(i) + 1.5).collect();
    assert_eq!(read(GgmlKind::Q5_1, &block, 32), expected);
}

#[test]
fn q8_0_is_scale_times_signed_byte_over_many_blocks() {
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for block in 0..150 {
        let scale = 0.25 * (block % 7) as f32;
        bytes.extend(half_bytes(scale));
        for i in 0..32_i32 {
            let quant = ((block * 37 + i * 11) % 256 - 128) as i8;
            bytes.push(quant as u8);
            expected.push(scale * f32::from(quant));
        }
    }
    assert_eq!(read(GgmlKind::Q8_0, &bytes, 150 * 32), expected);
}

#[test]
fn k_quants_agree_with_candle_and_stay_near_what_was_quantised() {
    let values: Vec<f32> = (0..4 * 512).map(|i| ((i * 37 % 211) as f32 / 105.5) - 1.0).collect();
    let tensor = Tensor::from_slice(&values, (4, 512), &Device::Cpu).expect("a tensor");
    let kinds = [
        (GgmlKind::Q4_K, GgmlDType::Q4K, 0.08),
        (GgmlKind::Q5_K, GgmlDType::Q5K, 0.04),
        (GgmlKind::Q6_K, GgmlDType::Q6K, 0.02),
    ];
    for (kind, dtype, tolerance) in kinds {
        let quantised = QTensor::quantize(&tensor, dtype).expect("quantised");
        let bytes = quantised.data().expect("bytes");
        let back = quantised.dequantize(&Device::Cpu).expect("dequantised");
        let expected: Vec<f32> = back.flatten_all().and_then(|t| t.to_vec1()).expect("values");
        let found = read(kind, &bytes, values.len());
        assert_eq!(found, expected, "{kind}");
        let worst = found.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < tolerance, "{kind}: {worst}");
    }
}

/// Of random blocks, and of blocks of zeros, of ones, and with the largest, the smallest, infinite and no scales.
#[test]
fn every_quantised_kind_is_read_as_the_gguf_package_reads_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gguf/quants.safetensors");
    let file = std::fs::read(path).expect("the fixture");
    let file = safetensors::SafeTensors::deserialize(&file).expect("a sound fixture");
    let kinds = (0..64).map(GgmlKind::from_number).filter(|kind| kind.block_len().is_some_and(|n| n > 1));
    let kinds: Vec<GgmlKind> = kinds.collect();
    assert_eq!(kinds.len(), 15);
    for kind in kinds {
        let of = |what| file.tensor(&format!("{}.{what}", kind.name())).expect("in the fixture");
        let expected: Vec<u32> =
            of("values").data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let found = read(kind, of("bytes").data(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Which of the many bit patterns a NaN has is of no account, nor is the sign of a zero.
            let expected = f32::from_bits(*expected);
            let same = *found == expected || (found.is_nan() && expected.is_nan());
            assert!(same, "{kind}, value {i}: {found:e} where {expected:e} is right");
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let mut out = [0.0; 32];
    for (kind, length) in [(GgmlKind::Q4_0, 17), (GgmlKind::Q4_0, 36), (GgmlKind::F32, 0)] {
        let error = dequantize(kind, &vec![0; length], &mut out).expect_err("a wrong length");
        assert!(matches!(error, GgufError::Length { .. }));
    }
    assert!(dequantize(GgmlKind::Q6_K, &[0; 210], &mut out).is_err(), "32 is no block of 256");
    assert!(dequantize(GgmlKind::Q4_0, &[], &mut []).is_ok(), "nothing into nothing");
}
