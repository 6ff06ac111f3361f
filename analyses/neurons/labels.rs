//! Labels against each other: is what an edit does to the prompts of one label more, or less, than what it does to the others?

use super::texts::Text;
use crate::analyses::prelude::*;
use crate::stats::{bca_difference, benjamini_hochberg_present, beyond_zero, welch};
use std::collections::BTreeMap;

/// A label with the prompts that have it, and all others.
pub struct OfLabel {
    pub label: String,
    pub own: Vec<usize>,
    pub others: Vec<usize>,
}

/// The labels of texts, in the order of their names, where there are two or more. Texts without one are among the others of each.
pub fn of_texts(texts: &[Text]) -> Vec<OfLabel> {
    let mut by_label: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, label) in texts.iter().enumerate().filter_map(|(i, text)| Some((i, text.label.as_deref()?))) {
        by_label.entry(label).or_default().push(i);
    }
    if by_label.len() < 2 {
        return Vec::new();
    }
    let others = |own: &[usize]| (0..texts.len()).filter(|i| !own.contains(i)).collect();
    let of = |(label, own): (&str, Vec<usize>)| OfLabel { label: label.to_string(), others: others(&own), own };
    by_label.into_iter().map(of).collect()
}

rows! {
    /// The mean over the prompts of a label beside that over all others.
    #[derive(Copy)]
    pub struct Against {
        n_others: i64 = "prompts without the label",
        others_mean: Option<f64> = "the mean over them",
        difference: Option<f64> = "the label's mean less the others'",
        interval: Option<(f64, f64)> as "difference_ci_" =
            ["lower end of its 95 % BCa interval, both samples resampled", "its upper end"],
        p_value: Option<f64> = "two-sided p-value of the difference, Welch's t-test",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over all labels, and over all sets but random ones, or all heads",
    }
}

impl Against {
    /// Of numbers, one a prompt, those of a label beside the others. The q-value is left to whoever knows the family.
    pub fn of(numbers: &[f64], label: &OfLabel, seed: u64) -> Against {
        let [own, others] = [&label.own, &label.others].map(|of| of.iter().map(|i| numbers[*i]).collect::<Vec<f64>>());
        let options = Bootstrap { seed, ..Bootstrap::default() };
        Against {
            n_others: others.len() as i64,
            others_mean: mean(&others),
            difference: mean(&own).zip(mean(&others)).map(|(own, others)| own - others),
            interval: bca_difference(&own, &others, &options).map(Interval::ends),
            p_value: welch(&own, &others),
            q_value: None,
        }
    }

    /// Whether the interval excludes 0: the sign of the difference then.
    pub fn sign(&self) -> Option<f64> {
        // What rounding makes of runs that an edit does not touch has intervals without 0 too.
        beyond_zero(self.interval, crate::analyses::halves::LEAST).map(|up| if up { 1.0 } else { -1.0 })
    }
}

/// Gives a family its q-values.
pub fn corrected<'a>(family: impl Iterator<Item = &'a mut Against>) {
    let mut family: Vec<&mut Against> = family.collect();
    let q = benjamini_hochberg_present(&family.iter().map(|of| of.p_value).collect::<Vec<_>>());
    family.iter_mut().zip(q).for_each(|(of, q)| of.q_value = q);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(label: Option<&str>) -> Text {
        Text { id: String::new(), ids: Vec::new(), label: label.map(str::to_string) }
    }

    #[test]
    fn prompts_are_told_apart_by_two_labels_or_more() {
        assert!(of_texts(&[text(Some("a")), text(Some("a")), text(None)]).is_empty());
        let found = of_texts(&[text(Some("b")), text(Some("a")), text(None), text(Some("b"))]);
        let shown: Vec<(&str, &[usize], &[usize])> =
            found.iter().map(|of| (of.label.as_str(), &of.own[..], &of.others[..])).collect();
        assert_eq!(shown, [("a", &[1][..], &[0, 2, 3][..]), ("b", &[0, 3], &[1, 2])]);
    }

    #[test]
    fn a_label_stands_out_where_the_interval_of_the_difference_excludes_0() {
        let label = OfLabel { label: "a".to_string(), own: (0..6).collect(), others: (6..12).collect() };
        let apart: Vec<f64> =
            (0..12).map(|i| if i < 6 { -2.0 - 0.1 * f64::from(i) } else { 0.01 * f64::from(i) }).collect();
        let found = Against::of(&apart, &label, 0);
        assert!(found.sign() == Some(-1.0) && found.p_value.is_some_and(|p| p < 1e-4), "{found:?}");
        assert!((found.difference.unwrap() - (-2.25 - 0.085)).abs() < 1e-12);
        let alike: Vec<f64> = (0..12).map(|i| f64::from(i % 6)).collect();
        assert_eq!(Against::of(&alike, &label, 0).sign(), None);
    }
}
