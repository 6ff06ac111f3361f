//! Tables of heads as a screen or interchange leaves them, for tests.

use crate::analyses::interchange::{Direction, Row};
use crate::analyses::prelude::*;

/// A head's effect in one direction, towards the other prompt.
#[derive(Clone, Copy)]
pub(in crate::analyses) enum Effect {
    /// By an exchange, with its q-value.
    Run(f64, f64),
    /// By its estimate alone.
    Estimated(f64),
}

/// The table of heads, two a layer, each with its necessity and sufficiency. Prompts stand `gap` nats apart over 20 pairs;
/// estimates are over 8.
pub(in crate::analyses) fn heads(gap: f64, effects: &[[Effect; 2]]) -> Table {
    let of_head = |direction: Direction, head: usize| {
        let sign = if direction == Direction::Necessity { -1.0 } else { 1.0 };
        let row = Row {
            model: "m",
            site: "z",
            position: "last",
            layer: (head / 2) as i64,
            head: (head % 2) as i64,
            variant: direction.name(),
            n: 8,
            ..Row::default()
        };
        match effects[head][direction as usize] {
            Effect::Estimated(effect) => Row { estimate_mean: Some(sign * effect), ..row },
            Effect::Run(effect, q) => Row {
                n: 20,
                estimate_mean: Some(sign * effect),
                positive_mean: Some(gap / 2.0),
                negative_mean: Some(-gap / 2.0),
                effect_mean: Some(sign * effect),
                p_value: Some(q),
                q_value: Some(q),
                ..row
            },
        }
    };
    let directions = [Direction::Necessity, Direction::Sufficiency];
    Row::table(directions.into_iter().flat_map(|d| (0..effects.len()).map(move |head| of_head(d, head)))).unwrap()
}
