//! A file of pairs or of prompts of any bytes.
#![no_main]

use gatelens::dataset::{read_pairs, read_prompts};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    let path = DIR.path().join("lines.jsonl");
    std::fs::write(&path, bytes).expect("a file");
    let _ = read_pairs(&path);
    let _ = read_prompts(&path);
});
