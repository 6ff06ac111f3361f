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

/// Runs this benchmark again with these arguments and returns what it printed. What an allocator still holds of one part of a
/// benchmark would count as the memory of the next; in a process of its own nothing does.
pub fn in_own_process(arguments: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let done = command.args(arguments).stderr(std::process::Stdio::inherit()).output()?;
    if !done.status.success() {
        return Err(format!("{} ended with {}", arguments.join(" "), done.status).into());
    }
    Ok(String::from_utf8(done.stdout)?)
}
