//! Dots in heatmaps: which of many effects a reader's eye should be drawn to.
//!
//! With many items next to every head differs from 0, and dots that say no more than that are everywhere. So a dot needs a
//! p-value that holds over all heads at once, and a size. The rule stands with each row of a table, so that figures and
//! captions say by which one the dots were set.

use super::effects::{SIGNIFICANT, Tested};
use crate::analyses::prelude::*;
use std::borrow::Cow;

parameters! {
    /// Which cells of heatmaps have a dot
    #[derive(Copy)]
    #[serde(default)]
    pub struct MarkArgs {
        /// Put a dot on a cell of a heatmap only if its family-wise p-value is below this
        ///
        /// If some effects were only estimated, the q-value counts instead.
        mark_p: f64 = SIGNIFICANT, in 0.0..=1.0, [value_name = "P"];

        /// Put a dot on a cell of a heatmap only if its effect is at least this share of the whole
        ///
        /// The whole is the gap (interchange, screen), the base (ablate) or the metric (dla).
        mark_share: f64 = LEAST_SHARE, in 0.0..=1.0, [value_name = "SHARE"];
    }
}

/// The least share of the gap that has a dot, where no other is asked for.
pub const LEAST_SHARE: f64 = 0.01;

/// Whether an effect is significant over its family and at least [`LEAST_SHARE`] of the gap.
pub fn matters(q: Option<f64>, share: Option<f64>) -> bool {
    q.is_some_and(|q| q < SIGNIFICANT) && share.is_some_and(|share| share.abs() >= LEAST_SHARE)
}

impl MarkArgs {
    /// The rule in words; `of` is what shares are of. `whole` says whether all of the family were run: there is no family-wise
    /// p-value where some were only estimated, and q-values over the whole family stand in.
    pub fn rule(self, whole: bool, of: &str) -> String {
        let p = match whole {
            true => format!("family-wise p < {}", self.mark_p),
            false => format!("q < {} over all, some only estimated", self.mark_p),
        };
        let share = format!("{:.4}", 100.0 * self.mark_share);
        let share = share.trim_end_matches('0').trim_end_matches('.');
        format!("{p}, at least {share} % of the {of}")
    }

    /// Whether a row has a dot.
    pub fn marks(self, tested: &Tested, share: Option<f64>, whole: bool) -> bool {
        self.holds(if whole { tested.p_max } else { tested.q }, share)
    }

    /// Whether a p-value and a share are enough for a dot.
    pub fn holds(self, p: Option<f64>, share: Option<f64>) -> bool {
        p.is_some_and(|p| p < self.mark_p) && share.is_some_and(|share| share.abs() >= self.mark_share)
    }
}

/// A rule as readers have it; tables have it in short.
fn in_full(rule: &str) -> String {
    rule.replace("over all, some only estimated", "over all heads (those only estimated count with p = 1)")
        .replace("of the base", "of the clean logit difference")
}

rows! {
    /// Whether a row has a dot in heatmaps, and by what rule.
    pub struct Mark<'a> {
        marked: bool = "whether heatmaps have a dot on it, by mark_rule",
        mark_rule: Cow<'a, str> = "what a dot in heatmaps says",
    }
}

impl Mark<'_> {
    /// The rule as readers have it.
    pub fn rule(&self) -> String {
        in_full(&self.mark_rule)
    }

    /// That of a row of an older table, which has none: a dot where the q-value is under 0.05.
    pub fn by_q(q: Option<f64>) -> Self {
        Mark { marked: q.is_some_and(|q| q < SIGNIFICANT), mark_rule: format!("q < {SIGNIFICANT}").into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_needs_a_family_wise_p_value_and_a_size() {
        let rule = MarkArgs::default();
        let tested = |q, p_max| Tested { q: Some(q), p_max, ..Tested::default() };
        assert!(rule.marks(&tested(0.001, Some(0.01)), Some(-0.02), true));
        assert!(!rule.marks(&tested(0.001, Some(0.06)), Some(0.5), true), "q is not enough");
        assert!(!rule.marks(&tested(0.001, Some(0.01)), Some(0.009), true), "too small");
        assert!(!rule.marks(&tested(0.001, Some(0.01)), None, true), "no gap, no share");
        assert!(rule.marks(&tested(0.01, None), Some(0.02), false));
        assert!(!rule.marks(&tested(0.01, None), Some(0.02), true));
        assert!(MarkArgs { mark_p: 0.001, mark_share: 0.0 }.marks(&tested(1.0, Some(0.0005)), Some(0.0), true));
    }

    #[test]
    fn the_rule_is_said_as_it_is_used() {
        let rule = MarkArgs { mark_p: 0.01, mark_share: 0.025 };
        assert_eq!(rule.rule(true, "gap"), "family-wise p < 0.01, at least 2.5 % of the gap");
        let default = MarkArgs::default().rule(false, "base");
        assert_eq!(default, "q < 0.05 over all, some only estimated, at least 1 % of the base");
        let said = "q < 0.05 over all heads (those only estimated count with p = 1), at least 1 % of the clean logit difference";
        assert_eq!(in_full(&default), said);
        let refused = |mark_p| MarkArgs { mark_p, ..rule }.check().is_err();
        assert!(refused(1.5) && refused(f64::NAN) && !refused(0.5));
    }

    #[test]
    fn a_table_without_the_columns_has_dots_by_q() {
        let marks = [Some(0.01), Some(0.2), None].map(Mark::by_q);
        assert_eq!(marks.each_ref().map(|m| m.marked), [true, false, false]);
        assert_eq!(marks[0].mark_rule, "q < 0.05");
    }
}
