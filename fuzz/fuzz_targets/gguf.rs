//! A GGUF file of any bytes: opened, every key and tensor looked at, its configuration read, the model loaded.
#![no_main]

use gatelens::model::gguf::Gguf;
use gatelens::model::{Model, Options, gguf_config};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    let path = DIR.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("a file");
    let Ok(file) = Gguf::open(&path) else { return };
    file.keys().for_each(|key| {
        let _ = file.get(key);
    });
    for tensor in file.tensors() {
        if let Ok(bytes) = file.bytes(tensor) {
            assert_eq!(Some(bytes.len()), tensor.size());
        }
    }
    let _ = gguf_config::read(&file, &[]);
    if let Ok(model) = Model::open(path.to_str().expect("UTF-8"), &Options::default()) {
        let _ = model.decoder.read();
    }
});
