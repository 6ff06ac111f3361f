//! Do the methods name the same heads? Their rank correlations over all heads, and what the strongest of each share.
//!
//! Heads' means are noisy, so that even two methods that measure the same would not agree whole: beside each correlation stands
//! the agreement of either method with itself, between its means over one half of the pairs and over the other.

use super::{Measured, means, order};
use crate::analyses::prelude::*;
use crate::stats::{jackknife_correlation, overlap_p, spearman};

/// How many heads of each method are compared.
const TOP: usize = 10;

/// A method's name, and what it says of every head in every pair.
type Method<'a> = (&'static str, &'a [Vec<f64>]);

/// Two methods side by side.
struct Agreement {
    first: &'static str,
    second: &'static str,
    /// By size, and signed.
    ranks: [Ranks; 2],
    overlap: usize,
}

rows! {
    /// How alike two methods rank heads.
    #[derive(Copy)]
    pub struct Ranks {
        correlation: Option<f64> as "" = "{}",
        interval: Option<(f64, f64)> [newer] as "_ci_" =
            ["lower end of its 95 % interval over pairs (jackknife, on Fisher's scale)", "its upper end"],
        /// Each method's own correlation between the halves of the pairs.
        first: Option<f64> as "_split_half_first" =
            "of the first method, its own rank correlation, between the means over one half of the pairs and over the other",
        second: Option<f64> as "_split_half_second" =
            "of the second method, its own rank correlation, between the means over one half of the pairs and over the other",
        /// How much agreement the noise of half the pairs leaves room for.
        ceiling: Option<f64> as "_ceiling" =
            "about how much agreement the noise of the means leaves room for: the geometric mean of the two correlations between \
             halves. It is not corrected for their being halves: means over all pairs are less noisy and can agree more. Empty \
             where one is negative",
    }

    /// Two methods side by side.
    pub struct AgreementRow<'a> in "agreement" {
        model: &'a str = "the model, as it was named",
        first: &'a str = "interchange, ablation or attribution",
        second: &'a str = "the method it is compared to",
        n: i64 = "pairs",
        heads: i64 = "heads that are compared",
        size: Ranks as "spearman_size" = "rank correlation of the heads' absolute means",
        signed: Ranks as "spearman_signed" =
            "rank correlation of the heads' means with their signs; attributions with theirs turned: what silencing the head takes \
             away directly",
        top: i64 = "how many of the strongest heads of each are compared",
        overlap: i64 = "how many of them both have",
        overlap_expected: Option<f64> = "how many two random choices would share in the mean",
        overlap_p: Option<f64> = "chance that two random choices share as many or more (hypergeometric)",
    }
}

/// The table `agreement`; `halves` says which half each pair is in.
pub(super) fn table(model: &str, measured: &Measured, halves: &[usize]) -> Result<Table, AnalysisError> {
    let turned: Vec<Vec<f64>> = measured.dla.iter().map(|x| x.iter().map(|v| -v).collect()).collect();
    let methods: [Method; 3] =
        [("interchange", &measured.interchange), ("ablation", &measured.ablation), ("attribution", &turned)];
    let rows = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| agreement(methods[a], methods[b], halves));
    let heads = measured.dla.len();
    let top = TOP.min(heads);
    Ok(AgreementRow::table(rows.iter().map(|r| AgreementRow {
        model,
        first: r.first,
        second: r.second,
        n: measured.positive.len() as i64,
        heads: heads as i64,
        size: r.ranks[0],
        signed: r.ranks[1],
        top: top as i64,
        overlap: r.overlap as i64,
        overlap_expected: Some((top * top) as f64 / heads as f64),
        overlap_p: overlap_p(heads, top, top, r.overlap),
    }))?)
}

fn agreement((first, a): Method, (second, b): Method, halves: &[usize]) -> Agreement {
    let top = |rows: &[Vec<f64>]| -> Vec<usize> { order(&means(rows)).into_iter().take(TOP).collect() };
    let (of_a, of_b) = (top(a), top(b));
    Agreement {
        first,
        second,
        ranks: [true, false].map(|size| ranks(a, b, halves, size)),
        overlap: of_a.iter().filter(|h| of_b.contains(h)).count(),
    }
}

/// How alike two methods rank heads, by the size of their means or by the means.
fn ranks(a: &[Vec<f64>], b: &[Vec<f64>], halves: &[usize], size: bool) -> Ranks {
    let over = |rows: &[Vec<f64>], pairs: &[usize]| -> Vec<f64> {
        let one = |row: &Vec<f64>| pairs.iter().map(|i| row[*i]).sum::<f64>() / pairs.len() as f64;
        rows.iter().map(one).map(|x| if size { x.abs() } else { x }).collect()
    };
    let correlation = |pairs: &[usize]| spearman(&over(a, pairs), &over(b, pairs));
    let pairs: Vec<usize> = (0..halves.len()).collect();
    let [first, second] = [0, 1].map(|half| pairs.iter().copied().filter(|i| halves[*i] == half).collect::<Vec<_>>());
    let [first, second] = [a, b].map(|rows| spearman(&over(rows, &first), &over(rows, &second)));
    let product = first.filter(|r| *r >= 0.0).zip(second.filter(|r| *r >= 0.0)).map(|(first, second)| first * second);
    Ranks {
        correlation: correlation(&pairs),
        interval: jackknife_correlation(&pairs, correlation).map(Interval::ends),
        first,
        second,
        ceiling: product.map(f64::sqrt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVES: [usize; 6] = [0, 1, 0, 1, 0, 1];

    #[test]
    fn methods_that_order_heads_alike_agree_whole() {
        let rows: Vec<Vec<f64>> =
            (0..12).map(|h| (0..6).map(|i| f64::from(h) + 0.01 * f64::from(i)).collect()).collect();
        let twice: Vec<Vec<f64>> = rows.iter().map(|r| r.iter().map(|x| -2.0 * x).collect()).collect();
        let found = agreement(("interchange", &rows), ("ablation", &twice), &HALVES);
        assert_eq!(found.overlap, 10);
        let [size, signed] = &found.ranks;
        assert!((size.correlation.unwrap() - 1.0).abs() < 1e-12 && (signed.correlation.unwrap() + 1.0).abs() < 1e-12);
        assert!((size.ceiling.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_method_that_disagrees_with_itself_leaves_no_room_for_agreement() {
        let same: Vec<Vec<f64>> = (0..8).map(|h| vec![f64::from(h); 6]).collect();
        let torn: Vec<Vec<f64>> =
            (0..8).map(|h| HALVES.map(|half| if half == 0 { f64::from(h) } else { f64::from(-h) }).into()).collect();
        let found = ranks(&same, &torn, &HALVES, false);
        assert!((found.first.unwrap() - 1.0).abs() < 1e-12 && (found.second.unwrap() + 1.0).abs() < 1e-12);
        assert_eq!(found.ceiling, None);
    }
}
