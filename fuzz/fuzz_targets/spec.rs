//! An experiment file of any text, read as far as that goes without a model. It runs in an empty folder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    std::env::set_current_dir(dir.path()).expect("a folder to be in");
    dir
});

fuzz_target!(|text: &str| {
    LazyLock::force(&DIR);
    let _ = gatelens::cli::check_experiment(text);
});
