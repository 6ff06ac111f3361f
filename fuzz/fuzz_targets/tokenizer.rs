//! The tokenizer that a GGUF file holds: its pieces, merges, kinds, scores and marks are any, and so is the text.
#![no_main]

#[path = "../../tests/suite/support/gguf_builder.rs"]
#[allow(dead_code, unused_imports)]
mod gguf_builder;

use gatelens::model::gguf::Gguf;
use gatelens::model::tokenizer::Tokenizer;
use gguf_builder::{GgufBuilder, Meta};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
struct Input {
    spm: bool,
    pre: u8,
    pieces: Vec<String>,
    merges: Option<Vec<(u8, u8)>>,
    raw_merges: Option<Vec<String>>,
    kinds: Option<Vec<i8>>,
    scores: Option<Vec<f32>>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    flags: u8,
    bytes: bool,
    text: String,
    ids: Vec<u16>,
}

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

const PRE: [&str; 6] = ["default", "qwen2", "llama-bpe", "gpt-2", "smollm", "no-such"];

fuzz_target!(|input: Input| {
    let mut pieces = input.pieces;
    pieces.truncate(300);
    if input.bytes {
        pieces.extend((0..=255u8).map(|b| format!("<0x{b:02X}>")));
    }
    let merges = input.raw_merges.or(input.merges.map(|m| {
        let of = |i: u8| pieces.get(usize::from(i)).cloned().unwrap_or_default();
        m.into_iter().map(|(a, b)| format!("{} {}", of(a), of(b))).collect()
    }));
    let mut builder = GgufBuilder::new()
        .key("general.architecture", Meta::Str("llama".into()))
        .key("tokenizer.ggml.model", Meta::Str(if input.spm { "llama" } else { "gpt2" }.into()))
        .key("tokenizer.ggml.pre", Meta::Str(PRE[usize::from(input.pre) % PRE.len()].into()))
        .key("tokenizer.ggml.tokens", Meta::Strs(pieces))
        .key("tokenizer.ggml.add_bos_token", Meta::Bool(input.flags & 1 != 0))
        .key("tokenizer.ggml.add_eos_token", Meta::Bool(input.flags & 2 != 0))
        .key("tokenizer.ggml.add_space_prefix", Meta::Bool(input.flags & 4 != 0));
    if let Some(merges) = merges {
        builder = builder.key("tokenizer.ggml.merges", Meta::Strs(merges));
    }
    if let Some(kinds) = input.kinds {
        builder = builder.key("tokenizer.ggml.token_type", Meta::I32s(kinds.into_iter().map(i32::from).collect()));
    }
    if let Some(scores) = input.scores {
        builder = builder.key("tokenizer.ggml.scores", Meta::F32s(scores));
    }
    for (key, id) in [("bos", input.bos), ("eos", input.eos), ("unknown", input.unknown)] {
        if let Some(id) = id {
            builder = builder.key(&format!("tokenizer.ggml.{key}_token_id"), Meta::U32(id));
        }
    }
    let path = DIR.path().join("tokenizer.gguf");
    std::fs::write(&path, builder.bytes()).expect("a file");
    let file = Gguf::open(&path).expect("what the builder writes is sound");
    let Ok(tokenizer) = Tokenizer::from_gguf(&file) else { return };
    if let Ok(ids) = tokenizer.encode(&input.text, true) {
        let _ = tokenizer.decode(&ids, false);
        let _ = tokenizer.decode_generated(&ids);
    }
    let ids: Vec<u32> = input.ids.into_iter().map(u32::from).collect();
    let _ = tokenizer.decode(&ids, true);
});
