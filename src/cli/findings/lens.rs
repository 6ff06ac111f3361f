//! From which layer on the lens shows the model's own token, and the answer.

use super::read;
use crate::analyses::effects::interval;
use crate::analyses::lens::{LayerRow, Said, settled};
use crate::report::cells::{plural, share, share_interval, signed};
use crate::table::Table;

pub(super) fn layers(tables: &[Table]) -> Option<Vec<String>> {
    let layers = read::<LayerRow>(tables)?;
    let last = layers.last()?;
    let mut lines = vec![settled(&layers, Said::Own)];
    if last.answers > 0 {
        lines.push(settled(&layers, Said::Answer));
        lines.push(format!(
            "At layer {} the answer is the likeliest token in {} of {}, 95 % interval {}; its log-probability is {} nats {}.",
            last.layer,
            share(last.first),
            plural(last.answers, "prompt"),
            share_interval(last.first_interval),
            signed(last.logprob_mean, 3),
            interval(last.logprob_interval),
        ));
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// Layers at which the answer is first in so many prompts, with intervals of a tenth on each side.
    fn said(first: [f64; 3], answers: i64) -> Vec<String> {
        let row = |(layer, first): (usize, f64)| LayerRow {
            model: "m",
            site: "resid_post".into(),
            layer: layer as i64,
            n: 40,
            answers,
            same: Some(0.25),
            same_interval: Some((0.125, 0.375)),
            first: Some(first),
            first_interval: Some((first - 0.1, first + 0.1)),
            logprob_mean: Some(-0.5),
            logprob_interval: Some((-0.75, -0.25)),
            ..LayerRow::default()
        };
        findings(&[LayerRow::table(first.into_iter().enumerate().map(row)).unwrap()])
    }

    #[test]
    fn the_layer_is_told_from_which_on_the_answer_is_first_in_most_prompts() {
        let lines = said([0.2, 0.8, 0.9], 40);
        assert!(lines[0].starts_with("From no layer before the last on can it be said"), "{lines:?}");
        assert_eq!(
            lines[1..],
            [
                "From layer 1 on, the likeliest token is the answer in most of 40 prompts: there in 80.0 %, 95 % interval [70.0, 90.0] %.",
                "At layer 2 the answer is the likeliest token in 90.0 % of 40 prompts, 95 % interval [80.0, 100.0] %; its \
                 log-probability is −0.500 nats [−0.750, −0.250].",
            ]
        );
    }

    #[test]
    fn no_layer_is_told_where_the_interval_of_its_share_includes_one_half() {
        let lines = said([0.2, 0.9, 0.55], 40);
        assert!(
            lines[1].starts_with("From no layer on can it be said that the likeliest token is the answer"),
            "{lines:?}"
        );
        assert_eq!(said([0.0; 3], 0).len(), 1, "without answers nothing is said of them");
    }
}
