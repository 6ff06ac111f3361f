//! A Hugging Face folder of any bytes: its configuration, an index and two shards. Parts stand apart by a line of `====`.
#![no_main]

use gatelens::model::{Model, Options};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

const NAMES: [&str; 4] = ["config.json", "a.safetensors", "model.safetensors.index.json", "b.safetensors"];

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    for name in NAMES {
        let mark = b"\n====\n";
        let end = rest.windows(mark.len()).position(|w| w == mark);
        let (part, later) = end.map_or((rest, &[][..]), |at| (&rest[..at], &rest[at + mark.len()..]));
        let path = DIR.path().join(name);
        if part.is_empty() {
            let _ = std::fs::remove_file(path);
        } else {
            std::fs::write(path, part).expect("a file");
        }
        rest = later;
    }
    // Without an index, the first shard is the model; with one, a single file would come before it.
    let single = DIR.path().join("model.safetensors");
    let _ = std::fs::remove_file(&single);
    if !DIR.path().join(NAMES[2]).exists() {
        let _ = std::fs::hard_link(DIR.path().join("a.safetensors"), &single);
    }
    if let Ok(model) = Model::open(DIR.path().to_str().expect("UTF-8"), &Options::default()) {
        let _ = model.decoder.read();
    }
});
