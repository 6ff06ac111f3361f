//! What the benchmarks share.

#![allow(dead_code)]

/// SmolLM2 as `scripts/fetch_models.sh` leaves it.
pub fn default_model() -> String {
    let cache = std::env::var("XDG_CACHE_HOME").or_else(|_| std::env::var("HOME").map(|h| format!("{h}/.cache")));
    format!("{}/gatelens/models/smollm2.gguf", cache.unwrap_or_default())
}

pub fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// Two prompts of 64 tokens that differ in four.
pub fn pair(vocab: u32) -> (Vec<u32>, Vec<u32>) {
    let a: Vec<u32> = (0..64u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) % (vocab - 100) + 100).collect();
    let mut b = a.clone();
    b[20..24].iter_mut().for_each(|id| *id = (*id + 1) % vocab);
    (a, b)
}

/// Forgets the peak of memory so far (Linux); returns what the process holds now.
pub fn reset_peak() -> std::io::Result<u64> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    Ok(gatelens::rundir::peak_rss_bytes())
}
