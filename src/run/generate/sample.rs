//! How the next token is chosen.

use super::RunError;
use crate::plan::Run;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The likeliest; the one of the lowest id among equals.
    Greedy,
    /// By probability, of logits divided by `temperature`, among the fewest tokens that have `top_p` of it together
    /// (nucleus sampling, Holtzman et al. 2020; 1 is all of them).
    ///
    /// Numbers are drawn by ChaCha8, for every run and sample a stream of its own: what a run comes to depends on the
    /// seed, on its number in the plan and on how often it was listed before, not on the other runs.
    Sample { temperature: f64, top_p: f64, seed: u64 },
}

impl Sampling {
    pub(super) fn check(self) -> Result<(), RunError> {
        let Sampling::Sample { temperature, top_p, .. } = self else { return Ok(()) };
        let bad = |field: &'static str, why: String| Err(RunError::Generation { field, why });
        if !(temperature.is_finite() && temperature > 0.0) {
            let why =
                format!("is {temperature}; it must be a number above 0 (for the likeliest token choose greedily)");
            return bad("temperature", why);
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return bad("top_p", format!("is {top_p}; it must be above 0 and at most 1"));
        }
        Ok(())
    }
}

/// Chooses the tokens of one run.
pub(super) struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// For the sample of that number of a run.
    pub fn new(sampling: Sampling, run: Run, sample: u64) -> Self {
        let seed = match sampling {
            Sampling::Sample { seed, .. } => seed,
            Sampling::Greedy => 0,
        };
        let (kind, number) = match run {
            Run::Prompt(p) => (0, p as u64),
            Run::Fork(f) => (1, f as u64),
        };
        let mut key = [0u8; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([seed, kind, number, sample]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        Sampler { sampling, random: ChaCha8Rng::from_seed(key) }
    }

    /// The next token by its logits, which are finite. `[vocab]`
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        let best = likeliest(logits);
        let Sampling::Sample { temperature, top_p, .. } = self.sampling else { return best as u32 };
        // One number a token, whatever it is used for.
        let drawn: f64 = self.random.random();
        let highest = f64::from(logits[best]);
        let weights: Vec<f64> = logits.iter().map(|l| ((f64::from(*l) - highest) / temperature).exp()).collect();
        let chosen = if top_p < 1.0 {
            let nucleus = nucleus(&weights, top_p);
            at_share(nucleus.iter().map(|id| (*id, weights[*id])), drawn)
        } else {
            at_share(weights.iter().copied().enumerate(), drawn)
        };
        chosen.unwrap_or(best) as u32
    }
}

/// The first of the highest.
fn likeliest(logits: &[f32]) -> usize {
    let higher = |best: usize, (i, l): (usize, &f32)| if *l > logits[best] { i } else { best };
    logits.iter().enumerate().fold(0, higher)
}

/// The fewest tokens that have `share` of all weight together, the heaviest first.
fn nucleus(weights: &[f64], share: f64) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    // Those that are lighter than this have less than `1 - share` together, so that they need not be sorted.
    let least = (1.0 - share) * total / weights.len() as f64;
    let mut ids: Vec<usize> = (0..weights.len()).filter(|id| weights[*id] >= least).collect();
    ids.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
    let mut sum = 0.0;
    let before = |id: &usize| {
        let open = sum < share * total;
        sum += weights[*id];
        open
    };
    let n = ids.iter().copied().take_while(before).count();
    ids.truncate(n);
    ids
}

/// The entry at which `drawn`, in `[0, 1)`, of all weight is passed; none if rounding leaves none.
fn at_share(weights: impl Iterator<Item = (usize, f64)> + Clone, drawn: f64) -> Option<usize> {
    let wanted = drawn * weights.clone().map(|(_, w)| w).sum::<f64>();
    let mut sum = 0.0;
    let mut passes = |w: f64| {
        sum += w;
        sum > wanted
    };
    weights.into_iter().find(|(_, w)| passes(*w)).map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use statrs::distribution::{ChiSquared, ContinuousCDF};

    const LOGITS: [f32; 6] = [0.5, 2.0, -1.0, 1.0, 0.0, -9.0];

    fn counts(temperature: f64, top_p: f64, draws: u32) -> [f64; 6] {
        let mut sampler = Sampler::new(Sampling::Sample { temperature, top_p, seed: 7 }, Run::Prompt(0), 0);
        let mut counts = [0.0; 6];
        (0..draws).for_each(|_| counts[sampler.choose(&LOGITS) as usize] += 1.0);
        counts
    }

    fn probabilities(temperature: f64, among: &[usize]) -> [f64; 6] {
        let weight = |id: usize| (f64::from(LOGITS[id]) / temperature).exp();
        let total: f64 = among.iter().map(|id| weight(*id)).sum();
        std::array::from_fn(|id| if among.contains(&id) { weight(id) / total } else { 0.0 })
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        for (temperature, top_p, among) in [
            (1.0, 1.0, vec![0, 1, 2, 3, 4, 5]),
            (2.5, 1.0, vec![0, 1, 2, 3, 4, 5]),
            (0.4, 1.0, vec![0, 1, 2, 3, 4, 5]),
            // Of the whole, 1 has 0.550, 3 has 0.202, 0 has 0.123, 4 has 0.074, 2 has 0.027.
            (1.0, 0.8, vec![0, 1, 3]),
            (1.0, 0.75, vec![1, 3]),
            (1.0, 0.5, vec![1]),
        ] {
            let (found, expected) = (counts(temperature, top_p, 20_000), probabilities(temperature, &among));
            let seen: Vec<usize> = (0..6).filter(|id| expected[*id] * 20_000.0 >= 5.0).collect();
            let of = |id: &usize| (found[*id] - expected[*id] * 2e4).powi(2) / (expected[*id] * 2e4);
            let statistic: f64 = seen.iter().map(of).sum();
            let rare: f64 = (0..6).filter(|id| !seen.contains(id)).map(|id| found[id]).sum();
            assert!(rare <= 12.0 && (0..6).all(|id| expected[id] > 0.0 || found[id] == 0.0), "{found:?}");
            if seen.len() > 1 {
                let p = ChiSquared::new((seen.len() - 1) as f64).expect("a distribution").sf(statistic);
                assert!(p > 1e-3, "temperature {temperature}, top_p {top_p}: {found:?}, p {p}");
            }
        }
    }

    #[test]
    fn the_nucleus_is_the_fewest_tokens_that_have_the_share() {
        assert_eq!(nucleus(&[1.0, 4.0, 3.0, 2.0], 0.4), [1]);
        assert_eq!(nucleus(&[1.0, 4.0, 3.0, 2.0], 0.41), [1, 2]);
        assert_eq!(nucleus(&[1.0, 4.0, 3.0, 2.0], 0.9), [1, 2, 3]);
        assert_eq!(nucleus(&[1.0, 1.0, 1.0], 0.5), [0, 1]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        let mut sampler = Sampler::new(Sampling::Greedy, Run::Prompt(0), 0);
        assert_eq!(sampler.choose(&[-3.0, 1.0, 1.0]), 1);
    }

    #[test]
    fn every_run_and_every_sample_has_a_stream_of_its_own() {
        let sampling = Sampling::Sample { temperature: 50.0, top_p: 1.0, seed: 3 };
        let tokens = |run: Run, sample: u64| -> Vec<u32> {
            let mut sampler = Sampler::new(sampling, run, sample);
            (0..40).map(|_| sampler.choose(&LOGITS)).collect()
        };
        let streams = [(Run::Prompt(0), 0), (Run::Prompt(0), 1), (Run::Prompt(1), 0), (Run::Fork(0), 0)];
        let all: std::collections::BTreeSet<Vec<u32>> = streams.iter().map(|(run, s)| tokens(*run, *s)).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(tokens(Run::Fork(2), 5), tokens(Run::Fork(2), 5));
    }
}
