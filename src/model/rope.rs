//! Rotary position embeddings, in all the scalings that checkpoints use.
//!
//! A [`Rope`] is a description; [`Rope::angles`] turns it into the cosines and sines of every position. Formulas are
//! those of `transformers/modeling_rope_utils.py`, computed in f32 where it does so, because checkpoints were trained
//! with those roundings.

use std::f64::consts::PI;

/// One rotation: base, how many dimensions of a head it turns, and how long contexts stretch it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub base: f64,
    /// Dimensions of a head that are rotated, from the first; the rest pass through. An odd number rotates one more,
    /// but its frequencies are spread over the odd number, as in `transformers`.
    pub rotary: usize,
    pub scaling: Scaling,
    /// Whether it turns the other way (nanochat).
    pub reversed: bool,
}

/// How the frequencies of a [`Rope`] are changed for contexts longer than those first trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    None,
    /// Positions divided by a factor.
    Linear {
        factor: f64,
    },
    /// NTK-aware: the base grows with the prompt once it is longer than `original`.
    Dynamic {
        factor: f64,
        original: usize,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_freq: f64,
        high_freq: f64,
        original: usize,
    },
    /// YaRN (Peng et al. 2023).
    Yarn {
        factor: f64,
        original: usize,
        beta_fast: f64,
        beta_slow: f64,
        truncate: bool,
        attention_factor: f64,
    },
    /// LongRoPE (Ding et al. 2024): a divisor a frequency, of two sets by the prompt's length.
    LongRope {
        short: Vec<f64>,
        long: Vec<f64>,
        original: usize,
        attention_factor: f64,
    },
    /// A divisor a frequency, as GGUF stores Llama 3 scaling.
    Divisors(Vec<f64>),
    /// This share of the pairs turns, the fastest ones, all by `factor` slower; the others are not turned (Gemma 4). Unlike a smaller
    /// [`Rope::rotary`], pairs lie half a head apart and frequencies are spread over the whole head.
    Proportional {
        share: f64,
        factor: f64,
    },
}

/// The cosines and sines of positions `0..n`, each `[n, pairs]`, row-major.
pub struct CosSin {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Rope {
    /// Checks what the formulas rely on: numbers that are positive and finite, and a base above 1.
    ///
    /// # Errors
    /// A sentence that names the number.
    pub fn check(&self) -> Result<(), String> {
        let numbers: Vec<(&str, f64)> = match &self.scaling {
            Scaling::None => Vec::new(),
            Scaling::Linear { factor } => vec![("factor", *factor)],
            Scaling::Dynamic { factor, original } => vec![("factor", *factor), ("original context", *original as f64)],
            Scaling::Llama3 { factor, low_freq, high_freq, original } => vec![
                ("factor", *factor),
                ("low frequency factor", *low_freq),
                ("high frequency factor", *high_freq),
                ("original context", *original as f64),
            ],
            Scaling::Yarn { factor, original, beta_fast, beta_slow, attention_factor, .. } => vec![
                ("factor", *factor),
                ("original context", *original as f64),
                ("fast beta", *beta_fast),
                ("slow beta", *beta_slow),
                ("attention factor", *attention_factor),
            ],
            Scaling::LongRope { short, long, original, attention_factor } => {
                let ends = [("original context", *original as f64), ("attention factor", *attention_factor)];
                let short = short.iter().map(|n| ("short factor", *n));
                short.chain(long.iter().map(|n| ("long factor", *n))).chain(ends).collect()
            }
            Scaling::Divisors(by) => by.iter().map(|n| ("divisor of a frequency", *n)).collect(),
            Scaling::Proportional { share, factor } => vec![("share of a head", *share), ("factor", *factor)],
        };
        if !(self.base > 1.0 && self.base.is_finite()) {
            return Err(format!("the rotation's base is {}; it is a number above 1", self.base));
        }
        match numbers.into_iter().find(|(_, n)| !(*n > 0.0 && n.is_finite())) {
            None => Ok(()),
            Some((name, n)) => Err(format!("the rotation's {name} is {n}; it is a positive number")),
        }
    }

    /// How many pairs of dimensions turn against each other.
    pub fn pairs(&self) -> usize {
        self.rotary.div_ceil(2)
    }

    /// What the prompt's length changes: prompts of equal regime share one table of angles.
    pub fn regime(&self, length: usize) -> usize {
        match &self.scaling {
            Scaling::Dynamic { original, .. } => length.max(*original),
            Scaling::LongRope { original, .. } => usize::from(length > *original),
            _ => 0,
        }
    }

    /// The table for positions `0..n` of prompts in `regime` (see [`Rope::regime`]).
    pub fn angles(&self, regime: usize, n: usize) -> CosSin {
        let frequencies = self.frequencies(regime);
        let factor = self.attention_factor() as f32;
        let (mut cos, mut sin) = (Vec::with_capacity(n * frequencies.len()), Vec::with_capacity(n * frequencies.len()));
        for position in 0..n {
            for f in &frequencies {
                // The product in f32, as checkpoints saw it in training; its cosine as exactly as f32 holds it.
                let angle = f64::from(position as f32 * f);
                cos.push(angle.cos() as f32 * factor);
                sin.push(angle.sin() as f32 * factor * if self.reversed { -1.0 } else { 1.0 });
            }
        }
        CosSin { cos, sin }
    }

    fn attention_factor(&self) -> f64 {
        match &self.scaling {
            Scaling::Yarn { attention_factor, .. } | Scaling::LongRope { attention_factor, .. } => *attention_factor,
            _ => 1.0,
        }
    }

    /// `base ^ (2 i / rotary)` of each pair, rounded where the reference rounds: exponent and power in f32.
    fn powers(&self, base: f64) -> Vec<f32> {
        let exponent = |i: usize| 2.0 * i as f32 / self.rotary as f32;
        (0..self.pairs()).map(|i| f64::from(base as f32).powf(f64::from(exponent(i))) as f32).collect()
    }

    /// Radians a position of each rotated pair. `[pairs]`
    fn frequencies(&self, regime: usize) -> Vec<f32> {
        let plain = |base: f64| self.powers(base).into_iter().map(|p| 1.0 / p);
        let divided =
            |by: &[f64]| self.powers(self.base).into_iter().zip(by).map(|(p, d)| 1.0 / (*d as f32 * p)).collect();
        match &self.scaling {
            Scaling::None => plain(self.base).collect(),
            Scaling::Linear { factor } => plain(self.base).map(|f| f / *factor as f32).collect(),
            Scaling::Dynamic { factor, original } => {
                let (d, length, original) = (self.rotary as f64, regime as f64, *original as f64);
                let stretch = factor * length / original - (factor - 1.0);
                plain(self.base * stretch.powf(d / (d - 2.0))).collect()
            }
            Scaling::Llama3 { factor, low_freq, high_freq, original } => {
                let ramp = |f: f32| llama3(f, *factor as f32, *low_freq as f32, *high_freq as f32, *original as f32);
                plain(self.base).map(ramp).collect()
            }
            Scaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                let kept = self.yarn_kept(*original as f64, *beta_fast, *beta_slow, *truncate);
                let mixed = |(p, k): (f32, f32)| 1.0 / (*factor as f32 * p) * (1.0 - k) + 1.0 / p * k;
                self.powers(self.base).into_iter().zip(kept).map(mixed).collect()
            }
            Scaling::LongRope { short, long, .. } => divided(if regime == 0 { short } else { long }),
            Scaling::Divisors(by) => divided(by),
            Scaling::Proportional { share, factor } => {
                let turned = (share * self.rotary as f64 / 2.0) as usize;
                let each = plain(self.base).enumerate();
                each.map(|(i, f)| if i < turned { f / *factor as f32 } else { 0.0 }).collect()
            }
        }
    }

    /// How much of each frequency YaRN keeps: 1 for those that turn often within the original context, 0 for those
    /// that turn seldom, a ramp between.
    fn yarn_kept(&self, original: f64, beta_fast: f64, beta_slow: f64, truncate: bool) -> Vec<f32> {
        let d = self.rotary as f64;
        let dimension = |turns: f64| d * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
        let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let low = low.max(0.0);
        let mut high = high.min(d - 1.0);
        if low == high {
            high += 0.001;
        }
        (0..self.pairs()).map(|i| 1.0 - ((i as f64 - low) / (high - low)).clamp(0.0, 1.0) as f32).collect()
    }
}

/// One frequency under Llama 3.1's scaling.
fn llama3(f: f32, factor: f32, low_freq: f32, high_freq: f32, original: f32) -> f32 {
    let wavelength = 2.0 * std::f32::consts::PI / f;
    if wavelength < original / high_freq {
        f
    } else if wavelength > original / low_freq {
        f / factor
    } else {
        let smooth = (original / wavelength - low_freq) / (high_freq - low_freq);
        (1.0 - smooth) * f / factor + smooth * f
    }
}

/// YaRN's default attention factor for a stretch of `scale`.
pub fn yarn_mscale(scale: f64, mscale: f64) -> f64 {
    if scale <= 1.0 { 1.0 } else { 0.1 * mscale * scale.ln() + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: Scaling) -> Rope {
        Rope { base: 10_000.0, rotary: 8, scaling, reversed: false }
    }

    #[test]
    fn frequencies_fall_from_one_by_the_base() {
        let f = rope(Scaling::None).frequencies(0);
        assert_eq!(f.len(), 4);
        for (found, expected) in f.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found - expected).abs() < 1e-7);
        }
    }

    #[test]
    fn linear_scaling_slows_positions() {
        let (slow, plain) = (rope(Scaling::Linear { factor: 4.0 }).angles(0, 9), rope(Scaling::None).angles(0, 3));
        assert_eq!(slow.cos[8 * 4..], plain.cos[2 * 4..]);
    }

    #[test]
    fn dynamic_scaling_changes_nothing_until_the_original_length_and_stretches_beyond() {
        let r = rope(Scaling::Dynamic { factor: 2.0, original: 100 });
        assert_eq!(r.regime(50), r.regime(100));
        assert_eq!(r.frequencies(r.regime(100)), rope(Scaling::None).frequencies(0));
        // base' = 10000 * (2 * 200 / 100 - 1) ^ (8 / 6)
        let base = 10_000.0 * 3f64.powf(8.0 / 6.0);
        assert!((r.frequencies(200)[1] - base.powf(-0.25) as f32).abs() < 1e-7);
    }

    #[test]
    fn llama3_keeps_fast_frequencies_and_divides_slow_ones() {
        let s = Scaling::Llama3 { factor: 8.0, low_freq: 1.0, high_freq: 4.0, original: 128 };
        let f = rope(s).frequencies(0);
        assert_eq!(f[0], 1.0); // wavelength 6.3 < 128 / 4
        assert!((f[3] - 0.001 / 8.0).abs() < 1e-9); // wavelength 6283 > 128
        // wavelength 62.8 lies between 32 and 128: smooth = (128 / 62.83 - 1) / 3
        let smooth = (128.0 * 0.1 / (2.0 * PI as f32) - 1.0) / 3.0;
        assert!((f[1] - ((1.0 - smooth) * 0.1 / 8.0 + smooth * 0.1)).abs() < 1e-7);
    }

    #[test]
    fn yarn_keeps_fast_frequencies_and_divides_slow_ones() {
        let s = Scaling::Yarn {
            factor: 4.0,
            original: 64,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: yarn_mscale(4.0, 1.0),
        };
        let r = rope(s);
        // dimension(32) = 8 ln(64 / 201) / (2 ln 1e4) < 0, so the ramp runs from 0 to ceil(8 ln(64 / 6.28) / 18.4) = 2.
        let f = r.frequencies(0);
        assert_eq!(f[0], 1.0);
        assert!((f[1] - (0.1 / 4.0 * 0.5 + 0.1 * 0.5)).abs() < 1e-7);
        assert!((f[3] - 0.001 / 4.0).abs() < 1e-7);
        assert!((r.angles(0, 1).cos[0] - (0.1 * 4f32.ln() + 1.0)).abs() < 1e-6);
    }

    #[test]
    fn a_proportional_rotation_turns_the_fastest_pairs_of_the_whole_head() {
        let f = rope(Scaling::Proportional { share: 0.5, factor: 2.0 }).frequencies(0);
        let plain = rope(Scaling::None).frequencies(0);
        assert_eq!(f, [plain[0] / 2.0, plain[1] / 2.0, 0.0, 0.0]);
    }

    #[test]
    fn numbers_that_would_give_no_angle_are_refused_by_name() {
        assert_eq!(rope(Scaling::Dynamic { factor: 2.0, original: 100 }).check(), Ok(()));
        let longrope = |short, original| Scaling::LongRope {
            short: vec![short; 4],
            long: vec![2.0; 4],
            original,
            attention_factor: 1.5,
        };
        for (scaling, name) in [
            (Scaling::Linear { factor: f64::NAN }, "factor is NaN"),
            (Scaling::Dynamic { factor: 2.0, original: 0 }, "original context is 0"),
            (
                Scaling::Llama3 { factor: 8.0, low_freq: 1.0, high_freq: -4.0, original: 8 },
                "high frequency factor is -4",
            ),
            (longrope(0.0, 64), "short factor is 0"),
            (longrope(1.0, 0), "original context is 0"),
            (Scaling::Divisors(vec![1.0, f64::INFINITY]), "divisor of a frequency is inf"),
        ] {
            let why = rope(scaling).check().expect_err(name);
            assert!(why.contains(name), "{why}");
        }
        let why = Rope { base: 1.0, ..rope(Scaling::None) }.check().expect_err("no base");
        assert!(why.contains("base is 1"), "{why}");
    }

    #[test]
    fn longrope_divides_by_the_set_of_the_prompts_length() {
        let s = Scaling::LongRope { short: vec![1.0; 4], long: vec![2.0; 4], original: 64, attention_factor: 1.5 };
        let r = rope(s);
        assert_eq!((r.regime(64), r.regime(65)), (0, 1));
        assert!((r.frequencies(1)[0] - 0.5).abs() < 1e-7);
        assert!((r.angles(0, 1).cos[0] - 1.5).abs() < 1e-6);
    }
}
