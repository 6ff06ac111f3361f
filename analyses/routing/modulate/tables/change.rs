//! What the ends of the grid change: refusals of the same prompts, and the metric beside random directions.

use super::{Given, Made, SIDES};
use crate::analyses::prelude::*;
use crate::analyses::routing::modulate::BROKEN;
use crate::answers::Class;
use crate::stats::{PairedCounts, paired_sign_test};

/// From one coefficient to another, on one side.
struct Change {
    side: usize,
    part: &'static str,
    /// The numbers of the coefficients, where answers are sound.
    from: usize,
    to: usize,
    refusals: PairedCounts,
    /// Of the mean metric, between the grid's own ends on this part.
    metric: Option<f64>,
    p_over_random: Option<f64>,
}

impl Change {
    /// Shares of refusals at both coefficients.
    fn shares(&self) -> (Option<f64>, Option<f64>) {
        let (n, r) = (self.refusals.n(), self.refusals);
        let share = |count: usize| (n > 0).then(|| count as f64 / n as f64);
        (share(r.both + r.only_first), share(r.both + r.only_second))
    }

    /// The share of the refusals at the first coefficient that the second has fewer.
    fn lost(&self) -> Option<f64> {
        let (from, to) = self.shares();
        from.filter(|from| *from > 0.0).zip(to).map(|(from, to)| 1.0 - to / from)
    }
}

impl Made<'_> {
    /// Answers of a side along the concept's direction at a coefficient, pair by pair.
    fn at(&self, side: usize, dose: usize) -> impl Iterator<Item = &Given> {
        self.given.iter().filter(move |g| (g.side, g.direction, g.dose) == (side, 0, dose))
    }

    /// Whether a coefficient leaves answers that make sense.
    fn sound(&self, side: usize, dose: usize) -> bool {
        let broken = |g: &Given| matches!(g.answer.class, Class::Broken | Class::Undecided);
        let (all, some) = self.at(side, dose).fold((0, 0), |(all, some), g| (all + 1, some + usize::from(broken(g))));
        all > 0 && some as f64 <= BROKEN * f64::from(all)
    }

    /// The mean metric of all prompts of a side, along the concept's direction, then along each random one; at an end of the
    /// grid or at coefficient 0.
    fn metrics(&self, side: usize, dose: usize) -> Option<(f64, Vec<f64>)> {
        let base = mean(&self.measured.base[side])?;
        let of = &self.measured.random[side];
        let random = match self.ends.iter().position(|end| *end == dose) {
            Some(end) => of.iter().map(|r| mean(&r[end])).collect::<Option<Vec<_>>>()?,
            None if self.x[dose] == 0.0 => vec![base; of.len()],
            None => return None,
        };
        Some((mean(&self.measured.metric[side][dose])?, random))
    }

    /// The change of the mean metric between two coefficients, and the share of random directions whose is as large.
    fn metric_change(&self, side: usize, from: usize, to: usize) -> Option<(f64, f64)> {
        let ((from, from_random), (to, to_random)) = (self.metrics(side, from)?, self.metrics(side, to)?);
        let own = to - from;
        let hits = from_random.iter().zip(&to_random).filter(|(from, to)| (**to - **from).abs() >= own.abs()).count();
        Some((own, (hits + 1) as f64 / (from_random.len() + 1) as f64))
    }

    /// A part of the grid between two coefficients: from the sound ones that are nearest to them, within the part.
    fn change(&self, side: usize, part: &'static str, from: usize, to: usize) -> Option<Change> {
        let sound = |from: usize, to: usize| {
            let mut between: Vec<usize> = (from.min(to)..=from.max(to)).collect();
            if from > to {
                between.reverse();
            }
            between.into_iter().find(|dose| self.sound(side, *dose))
        };
        let ends = (sound(from, to)?, sound(to, from)?);
        // At 0 nothing may stand in for the unmodulated answers.
        if ends.0 == ends.1 || (part != WHOLE && ends.0 != from) {
            return None;
        }
        let refuse = |g: &Given| g.answer.class == Class::Refusal;
        let both = self.at(side, ends.0).zip(self.at(side, ends.1));
        let (metric, p_over_random) = self.metric_change(side, from, to).unzip();
        Some(Change {
            side,
            part,
            from: ends.0,
            to: ends.1,
            refusals: PairedCounts::of(both.map(|(a, b)| (refuse(a), refuse(b)))),
            metric,
            p_over_random,
        })
    }

    fn changes(&self) -> Vec<Change> {
        let (zero, last) = (self.x.iter().position(|x| *x == 0.0), self.x.len() - 1);
        let parts = |side: usize| {
            let towards = |part, to| zero.and_then(|zero| self.change(side, part, zero, to));
            [self.change(side, WHOLE, 0, last), towards(WEAKENING, 0), towards(STRENGTHENING, last)]
        };
        (0..SIDES.len()).flat_map(parts).flatten().collect()
    }

    /// The table of what modulating changes from end to end, and from 0 to either end.
    pub(super) fn change_table(&self) -> Result<Table, AnalysisError> {
        let changes = self.changes();
        Ok(ChangeRow::table(changes.iter().map(|change| {
            let (refusal_from, refusal_to) = change.shares();
            ChangeRow {
                model: self.model(),
                side: SIDES[change.side],
                part: change.part,
                from: Some(self.x[change.from]),
                to: Some(self.x[change.to]),
                n: change.refusals.n() as i64,
                refusal_from,
                refusal_to,
                change: change.refusals.difference(),
                interval: change.refusals.interval().map(Interval::ends),
                p_value: Some(paired_sign_test(change.refusals.only_first, change.refusals.only_second)),
                lost: change.lost(),
                metric_change: change.metric,
                p_over_random: change.p_over_random,
            }
        }))?)
    }
}

rows! {
    /// What a part of the grid changes, on one side.
    pub struct ChangeRow<'a> in "change" {
        model: &'a str = "the model, as it was named",
        side: &'a str = "positive or negative prompts",
        part: &'a str =
            "whole: from the grid's lowest coefficient to its highest; weakening: from 0 to the lowest; strengthening: from 0 \
             to the highest",
        from: Option<f64> =
            "the first coefficient; the outermost at which no more than half of the answers are broken or undecided, as of a broken \
             model's",
        to: Option<f64> = "the second one, likewise",
        n: i64 = "prompts that answered",
        refusal_from: Option<f64> = "share of refusals at the first",
        refusal_to: Option<f64> = "share of refusals at the second",
        change: Option<f64> = "their difference, second minus first",
        interval: Option<(f64, f64)> as "ci_" =
            ["lower end of its 95 % interval for the same prompts (Newcombe 1998, paired)", "upper end"],
        p_value: Option<f64> = "exact two-sided sign test (McNemar) of the refusals",
        lost: Option<f64> =
            "by how much the refusals at the first are fewer at the second, as a share of them; below 0 for more",
        metric_change: Option<f64> = "change of the mean metric of all prompts, nats; to the grid's very ends",
        p_over_random: Option<f64> =
            "share of random directions of the same norm whose metric changes as much, (hits + 1) / (R + 1)",
    }
}

/// Parts of the grid.
const WHOLE: &str = "whole";
const WEAKENING: &str = "weakening";
const STRENGTHENING: &str = "strengthening";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::About;
    use crate::analyses::answered::Answer;
    use crate::analyses::routing::modulate::{Items, Measured};
    use crate::study::Study;

    /// Answers of four positive prompts at each coefficient: r refuses, a answers, u is undecided.
    fn given(answers: &[&str]) -> Vec<Given> {
        let class = |c: char| match c {
            'r' => Class::Refusal,
            'u' => Class::Undecided,
            _ => Class::Answer,
        };
        let mut found = Vec::new();
        for pair in 0..4 {
            found.extend(answers.iter().enumerate().map(|(dose, of)| {
                let class = class(of.chars().nth(pair).unwrap());
                let answer = Answer { text: String::new(), class, rule: None, stopped: true };
                Given { pair, side: 0, direction: 0, dose, answer }
            }));
        }
        found
    }

    /// The changes of the positive side.
    fn changes(x: &[f64], answers: &[&str]) -> Table {
        let study = Study::open(crate::demo::NAME).unwrap();
        let session = study.session();
        let items = Items::of_demo(&study.model);
        let side = |base: f64| {
            // The concept moves the metric by its coefficient; of two random directions one does by twice that.
            let own = x.iter().map(|x| vec![base + x; 4]).collect();
            let random = [2.0, 0.5].map(|by| vec![vec![base + by * x[0]; 4], vec![base + by * x[x.len() - 1]; 4]]);
            (vec![base; 4], own, vec![vec![0.0; 4]; x.len()], random.to_vec())
        };
        let (positive, negative) = (side(1.0), side(-1.0));
        let measured = Measured {
            base: [positive.0, negative.0],
            metric: [positive.1, negative.1],
            answer: [0, 1].map(|_| vec![vec![0.0; 4]; x.len()]),
            kl: [positive.2, negative.2],
            random: [positive.3, negative.3],
        };
        let (given, ends) = (given(answers), [0, x.len() - 1]);
        let about = About::of(&session);
        let made = Made { about: &about, items: &items, x, ends: &ends, measured: &measured, given: &given };
        made.change_table().unwrap()
    }

    #[test]
    fn changes_are_of_the_same_prompts_between_the_outermost_coefficients_with_sound_answers() {
        let found = changes(&[-2.0, -1.0, 0.0, 1.0], &["uuua", "rraa", "rrra", "rrrr"]);
        assert_eq!(found.strs("part").unwrap(), ["whole", "weakening", "strengthening"]);
        let float = |column: &str| found.floats(column).unwrap().iter().flatten().copied().collect::<Vec<_>>();
        assert_eq!((float("from"), float("to")), (vec![-1.0, 0.0, 0.0], vec![1.0, -1.0, 1.0]));
        assert_eq!(float("refusal_from"), [0.5, 0.75, 0.75]);
        assert_eq!(float("change"), [0.5, -0.25, 0.25]);
        assert!((float("lost")[1] - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(found.ints("n").unwrap(), [4, 4, 4]);
        // The metric goes to the grid's very ends: one of two random directions moves it as far, or further.
        assert_eq!(float("metric_change"), [3.0, -2.0, 1.0]);
        assert_eq!(float("p_over_random"), [2.0 / 3.0; 3]);
        assert!(float("ci_low")[1] < -0.25 && -0.25 < float("ci_high")[1]);
    }

    #[test]
    fn without_sound_answers_at_0_only_the_whole_is_told() {
        assert_eq!(changes(&[-1.0, 0.0, 1.0], &["aaaa", "uuua", "rrrr"]).strs("part").unwrap(), ["whole"]);
        assert_eq!(changes(&[-1.0, -0.5, 1.0], &["aaaa", "aaaa", "rrrr"]).strs("part").unwrap(), ["whole"]);
        assert_eq!(
            changes(&[0.0, 0.5, 1.0], &["aaaa", "aaaa", "rrrr"]).strs("part").unwrap(),
            ["whole", "strengthening"]
        );
        assert_eq!(changes(&[-1.0, 0.0, 1.0], &["uuuu", "uuuu", "uuuu"]).rows(), 0);
    }
}
