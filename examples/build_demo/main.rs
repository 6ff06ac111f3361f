//! Builds the demo model and its datasets: `cargo run --release --example build_demo -- datasets/demo [--seed N]`, and with
//! `--cipher-blind` the weights of the variant that does not see through the cipher, with `--backup` those of the variant whose gate
//! has a backup, and its truth.
//!
//! The same seed gives the same bytes. `datasets/demo/README.md` says what the model is.

mod demo;

use clap::Parser;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

/// Builds the demo model and its datasets
#[derive(Parser)]
struct Args {
    /// Write to this folder
    out: PathBuf,

    /// Draw everything random from this seed
    #[arg(long, default_value_t = demo::Options::default().seed)]
    seed: u64,

    /// Write the weights of the variant whose detection misses topics in the cipher, and nothing else
    #[arg(long)]
    cipher_blind: bool,

    /// Write the weights and the truth of the variant whose gate has a backup, and nothing else
    #[arg(long, conflicts_with = "cipher_blind")]
    backup: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let options = demo::Options { seed: args.seed, cipher_blind: args.cipher_blind, backup: args.backup };
    for (name, content) in demo::build(&options)? {
        let path = args.out.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content)?;
    }
    Ok(())
}
