//! What is kept of neurons' activations while texts go by: a few numbers for each neuron, and where it was highest and lowest.
//!
//! Activations of all neurons at all positions are too many to keep (184 KB a token of a model of 135 million parameters): they are
//! taken up layer by layer as each batch ends. A tally of some texts is an array, so that it can be kept as a part, and tallies of
//! several parts add up to that of all.

use crate::plan::Array;
use std::ops::Range;

/// The neurons of one layer over some texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    width: usize,
    /// The sums of activations.
    pub sum: Vec<f64>,
    pub max: Vec<f32>,
    pub min: Vec<f32>,
    /// At how many positions the activation was above 0.
    pub positive: Vec<u32>,
    /// At how many positions the neuron was in the smallest set of the layer's that holds 90 % of what is written.
    pub leading: Vec<u32>,
    /// The sums of attributions over prompts.
    pub attribution: Vec<f64>,
    pub high: Tops,
    pub low: Tops,
}

/// The share of what a layer writes, by the square of its size, that the leading neurons hold (METHODS of "Lazy Neuron").
const SHARE: f64 = 0.9;

/// Rows of a tally's array before those of the tops.
const NUMBERS: usize = 6;

/// The largest numbers of each neuron with the number of the token where each was.
#[derive(Clone, Debug, PartialEq)]
pub struct Tops {
    width: usize,
    /// 1, or -1 where the lowest are kept: they are the largest of the negated ones.
    sign: f32,
    /// `[k][width]`, the largest first; minus infinity where there are not so many.
    values: Vec<f32>,
    tokens: Vec<u32>,
}

impl Tops {
    fn new(width: usize, k: usize, sign: f32) -> Tops {
        Tops { width, sign, values: vec![f32::NEG_INFINITY; k * width], tokens: vec![0; k * width] }
    }

    fn k(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// A row of activations at a token. Of equal numbers the first stays before later ones.
    fn take(&mut self, row: &[f32], token: u32) {
        let Some(last) = self.k().checked_sub(1) else { return };
        for from in (0..self.width).step_by(LANES) {
            let to = self.width.min(from + LANES);
            // Few rows have anything for a block: that is seen without looking at each.
            let least = &self.values[last * self.width + from..last * self.width + to];
            let some = row[from..to].iter().zip(least).fold(false, |some, (x, least)| some | (self.sign * x > *least));
            if some {
                (from..to).for_each(|i| self.insert(i, self.sign * row[i], token));
            }
        }
    }

    /// A neuron that is 0 fires nowhere: of an expert, where it was not chosen.
    fn insert(&mut self, i: usize, value: f32, token: u32) {
        if value == 0.0 {
            return;
        }
        let mut at = self.k();
        while at > 0 && value > self.values[(at - 1) * self.width + i] {
            at -= 1;
        }
        for j in (at + 1..self.k()).rev() {
            self.values[j * self.width + i] = self.values[(j - 1) * self.width + i];
            self.tokens[j * self.width + i] = self.tokens[(j - 1) * self.width + i];
        }
        if at < self.k() {
            self.values[at * self.width + i] = value;
            self.tokens[at * self.width + i] = token;
        }
    }

    /// The activations of a neuron, the most extreme first, each with the number of its token.
    pub fn of(&self, neuron: usize) -> impl Iterator<Item = (f32, u32)> {
        let each =
            (0..self.k()).map(move |j| (self.values[j * self.width + neuron], self.tokens[j * self.width + neuron]));
        each.filter(|(value, _)| *value > f32::NEG_INFINITY).map(|(value, token)| (self.sign * value, token))
    }

    /// Adds those of later texts.
    fn add(&mut self, later: &Tops) {
        for i in 0..self.width {
            for j in 0..later.k() {
                let at = j * self.width + i;
                self.insert(i, later.values[at], later.tokens[at]);
            }
        }
    }
}

/// How many neurons are looked at together for a new extreme.
const LANES: usize = 32;

impl Tally {
    /// Of no text yet. `k` extremes are kept, the lowest ones too where the activation goes far below 0.
    pub fn new(width: usize, k: usize, both_ends: bool) -> Tally {
        Tally {
            width,
            sum: vec![0.0; width],
            max: vec![f32::NEG_INFINITY; width],
            min: vec![f32::INFINITY; width],
            positive: vec![0; width],
            leading: vec![0; width],
            attribution: vec![0.0; width],
            high: Tops::new(width, k, 1.0),
            low: Tops::new(width, if both_ends { k } else { 0 }, -1.0),
        }
    }

    /// Takes the rows of a text's positions in, `[positions, width]`; the first is the token of this number. `sizes` are the squared
    /// sizes of what each neuron writes for a unit.
    pub fn take(&mut self, rows: &[f32], first: u32, sizes: &[f32], scratch: &mut Scratch) {
        for (row, token) in rows.chunks_exact(self.width).zip(first..) {
            self.sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            self.max.iter_mut().zip(row).for_each(|(max, x)| *max = if *x > *max { *x } else { *max });
            self.min.iter_mut().zip(row).for_each(|(min, x)| *min = if *x < *min { *x } else { *min });
            self.positive.iter_mut().zip(row).for_each(|(n, x)| *n += u32::from(*x > 0.0));
            self.high.take(row, token);
            self.low.take(row, token);
            scratch.leading(row, sizes, &mut self.leading);
        }
    }

    /// The tally as an array, `[6 and one for each extreme and its token, width]`.
    pub fn array(&self) -> Array {
        let mut values: Vec<f32> = Vec::new();
        values.extend(self.sum.iter().map(|x| *x as f32));
        values.extend(&self.max);
        values.extend(&self.min);
        // Counts of one part are exact in f32.
        values.extend(self.positive.iter().map(|n| *n as f32));
        values.extend(self.leading.iter().map(|n| *n as f32));
        values.extend(self.attribution.iter().map(|x| *x as f32));
        for tops in [&self.high, &self.low] {
            values.extend(&tops.values);
            // The numbers of tokens are kept bit for bit.
            values.extend(tops.tokens.iter().map(|token| f32::from_bits(*token)));
        }
        Array { shape: vec![values.len() / self.width.max(1), self.width], values }
    }

    /// Adds the tally that such an array is of, of later texts.
    pub fn add(&mut self, array: &Array) {
        let (width, k, lows) = (self.width, self.high.k(), self.low.k());
        let rows = |rows: Range<usize>| &array.values[rows.start * width..rows.end * width];
        self.sum.iter_mut().zip(rows(0..1)).for_each(|(sum, x)| *sum += f64::from(*x));
        self.max.iter_mut().zip(rows(1..2)).for_each(|(max, x)| *max = max.max(*x));
        self.min.iter_mut().zip(rows(2..3)).for_each(|(min, x)| *min = min.min(*x));
        self.positive.iter_mut().zip(rows(3..4)).for_each(|(n, x)| *n += *x as u32);
        self.leading.iter_mut().zip(rows(4..5)).for_each(|(n, x)| *n += *x as u32);
        self.attribution.iter_mut().zip(rows(5..6)).for_each(|(sum, x)| *sum += f64::from(*x));
        let mut from = NUMBERS;
        for (tops, k) in [(&mut self.high, k), (&mut self.low, lows)] {
            let tokens = rows(from + k..from + 2 * k).iter().map(|x| x.to_bits()).collect();
            let later = Tops { width, sign: tops.sign, values: rows(from..from + k).to_vec(), tokens };
            tops.add(&later);
            from += 2 * k;
        }
    }
}

/// What is made anew for each row, kept so that it need not be allocated.
#[derive(Default)]
pub struct Scratch {
    energies: Vec<f32>,
    /// The sum of the energies of each kind, by their first bits.
    sums: Vec<f64>,
    last: Vec<(f32, usize)>,
}

/// Energies are told apart by exponent and two bits, to find roughly which of them hold most.
const BITS: u32 = 21;

impl Scratch {
    /// Counts the smallest set of neurons that hold [`SHARE`] of what is written: their squared activation times the squared size of
    /// what they write for a unit. A sort of all would take longer than the layer does.
    fn leading(&mut self, row: &[f32], sizes: &[f32], counts: &mut [u32]) {
        self.energies.clear();
        self.energies.extend(row.iter().zip(sizes).map(|(x, size)| x * x * size));
        self.sums.clear();
        self.sums.resize(1 << (32 - BITS), 0.0);
        self.energies.iter().for_each(|e| self.sums[(e.to_bits() >> BITS) as usize] += f64::from(*e));
        let target = SHARE * self.sums.iter().sum::<f64>();
        if target.is_nan() || target <= 0.0 {
            return;
        }
        let (mut held, mut kind) = (0.0, self.sums.len());
        while held < target && kind > 0 {
            kind -= 1;
            held += self.sums[kind];
        }
        held -= self.sums[kind];
        // All above that kind are in the set; of the kind itself the largest, as many as are needed.
        let above = f32::from_bits(((kind + 1) as u32) << BITS);
        counts.iter_mut().zip(&self.energies).for_each(|(n, e)| *n += u32::from(*e >= above));
        self.last.clear();
        let of_kind = |e: &f32| (e.to_bits() >> BITS) as usize == kind;
        self.last.extend(self.energies.iter().enumerate().filter(|(_, e)| of_kind(e)).map(|(i, e)| (*e, i)));
        self.last.sort_unstable_by(|(a, i), (b, j)| b.total_cmp(a).then(i.cmp(j)));
        for (e, i) in &self.last {
            if held >= target {
                break;
            }
            held += f64::from(*e);
            counts[*i] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng;
    use rand::Rng;

    fn random(rows: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut rng = rng(seed, "tally");
        (0..rows * width).map(|_| rng.random_range(-1f32..1.0).powi(5)).collect()
    }

    fn tally(rows: &[f32], width: usize, first: u32, sizes: &[f32]) -> Tally {
        let mut tally = Tally::new(width, 3, true);
        tally.take(rows, first, sizes, &mut Scratch::default());
        tally
    }

    #[test]
    fn a_tally_says_what_sorting_all_says() {
        let (n, width) = (50, 70);
        let rows = random(n, width, 1);
        let sizes: Vec<f32> = random(1, width, 2).iter().map(|x| x.abs() + 0.1).collect();
        let tally = tally(&rows, width, 7, &sizes);
        for i in 0..width {
            let mut column: Vec<(f32, u32)> = (0..n).map(|r| (rows[r * width + i], 7 + r as u32)).collect();
            column.sort_by(|a, b| b.0.total_cmp(&a.0));
            assert_eq!(tally.high.of(i).collect::<Vec<_>>(), column[..3]);
            column.reverse();
            assert_eq!(tally.low.of(i).collect::<Vec<_>>(), column[..3]);
            assert_eq!((tally.max[i], tally.min[i]), (column[n - 1].0, column[0].0));
            assert_eq!(tally.positive[i] as usize, column.iter().filter(|(x, _)| *x > 0.0).count());
            let sum: f64 = column.iter().map(|(x, _)| f64::from(*x)).sum();
            assert!((tally.sum[i] - sum).abs() < 1e-9);
        }
        let mut leading = vec![0u32; width];
        for row in rows.chunks_exact(width) {
            let energies: Vec<f32> = row.iter().zip(&sizes).map(|(x, size)| x * x * size).collect();
            let mut order: Vec<usize> = (0..width).collect();
            order.sort_by(|a, b| energies[*b].total_cmp(&energies[*a]));
            let total: f64 = energies.iter().map(|e| f64::from(*e)).sum();
            let mut held = 0.0;
            for i in order {
                if held >= 0.9 * total {
                    break;
                }
                held += f64::from(energies[i]);
                leading[i] += 1;
            }
        }
        assert_eq!(tally.leading, leading);
        assert!(leading.iter().sum::<u32>() < (n * width / 2) as u32, "few hold most");
    }

    #[test]
    fn tallies_of_parts_add_up_to_that_of_all() {
        let (n, width) = (40, 33);
        let rows = random(n, width, 3);
        let sizes = vec![1.0; width];
        let whole = tally(&rows, width, 0, &sizes);
        let mut sum = Tally::new(width, 3, true);
        for (part, first) in rows.chunks(10 * width).zip((0..).step_by(10)) {
            sum.add(&tally(part, width, first, &sizes).array());
        }
        assert_eq!((&sum.high, &sum.low, &sum.max, &sum.min), (&whole.high, &whole.low, &whole.max, &whole.min));
        assert_eq!((&sum.positive, &sum.leading), (&whole.positive, &whole.leading));
        assert!(sum.sum.iter().zip(&whole.sum).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn of_equal_activations_the_first_is_kept_and_rows_of_zeros_lead_nowhere() {
        let rows = vec![0.5f32; 6 * 4];
        let mut tally = tally(&rows, 4, 0, &[0.0; 4]);
        assert_eq!(tally.high.of(2).map(|(_, token)| token).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(tally.leading, [0; 4]);
        tally.add(&Tally::new(4, 3, true).array());
        assert_eq!(tally.high.of(2).count(), 3);
        assert_eq!(Tally::new(4, 3, true).high.of(0).count(), 0);
    }
}
