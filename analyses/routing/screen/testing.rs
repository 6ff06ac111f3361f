//! Tables of heads as a screen or interchange leaves them, for tests.

use crate::table::Table;

/// A head's effect in one direction, towards the other prompt.
#[derive(Clone, Copy)]
pub(in crate::analyses) enum Effect {
    /// By an exchange, with its q-value.
    Run(f64, f64),
    /// By its estimate alone.
    Estimated(f64),
}

/// A cell of a row that was run, by its direction's sign, the effect and its q-value.
type Cell<'a> = &'a dyn Fn(f64, f64, f64) -> f64;

/// The table of heads, two a layer, each with its necessity and sufficiency. Prompts stand `gap` nats apart over 20 pairs;
/// estimates are over 8.
pub(in crate::analyses) fn heads(gap: f64, effects: &[[Effect; 2]]) -> Table {
    let of = |(direction, (variant, sign)): (usize, (&'static str, f64))| {
        (0..effects.len()).map(move |head| (variant, sign, head, effects[head][direction]))
    };
    let rows: Vec<_> = [("necessity", -1.0), ("sufficiency", 1.0)].into_iter().enumerate().flat_map(of).collect();
    let run = |f: Cell| -> Vec<Option<f64>> {
        let one = |row: &(&str, f64, usize, Effect)| match row.3 {
            Effect::Run(effect, q) => Some(f(row.1, effect, q)),
            Effect::Estimated(_) => None,
        };
        rows.iter().map(one).collect()
    };
    let estimates = rows.iter().map(|row| match row.3 {
        Effect::Run(effect, _) | Effect::Estimated(effect) => row.1 * effect,
    });
    let pairs = rows.iter().map(|row| if matches!(row.3, Effect::Run(..)) { 20 } else { 8 });
    let text = |value: &'static str| rows.iter().map(move |_| value);
    let table = Table::new("heads").str("model", "", text("m")).unwrap();
    let table = table.str("site", "", text("z")).unwrap().str("position", "", text("last")).unwrap();
    let table = table.int("layer", "", rows.iter().map(|row| (row.2 / 2) as i64)).unwrap();
    let table = table.int("head", "", rows.iter().map(|row| (row.2 % 2) as i64)).unwrap();
    let table = table.str("direction", "", rows.iter().map(|row| row.0)).unwrap().int("n", "", pairs).unwrap();
    let mut table = table.float("estimate_mean", "", estimates).unwrap();
    let columns: [(&str, Cell); 5] = [
        ("positive_mean", &|_, _, _| gap / 2.0),
        ("negative_mean", &|_, _, _| -gap / 2.0),
        ("effect_mean", &|sign, effect, _| sign * effect),
        ("p_value", &|_, _, q| q),
        ("q_value", &|_, _, q| q),
    ];
    for (name, f) in columns {
        table = table.float(name, "", run(f)).unwrap();
    }
    for name in ["ci_low", "ci_high", "effect_normalized", "flip_rate", "p_max"] {
        table = table.float(name, "", rows.iter().map(|_| None)).unwrap();
    }
    table
}
