//! What a run found, for the terminal: a few lines from the tables alone.
//!
//! Each file has the lines of one kind of analysis. What they say of a model stands in a column with its interval or its test, and
//! where that tells nothing, the line says so. Here is what they share: which of them is asked, and how numbers are listed.

mod attention;
mod circuits;
mod deltas;
mod effects;
mod functions;
mod importance;
mod lens;
mod neurons;
mod scale;
mod similarity;
mod steer;
mod truth;
mod values;
mod weights;

use crate::analyses::effects::{SIGNIFICANT, interval};
use crate::analyses::power::Power;
use crate::report::cells::{p_value, signed};
use crate::table::Table;
use crate::table::rows::Row;

/// Units that are listed of each direction or mode.
const LISTED: usize = 5;

/// Lines on what one kind of analysis found; none where the tables are of another.
type Told = fn(&[Table]) -> Option<Vec<String>>;

const ALL: [Told; 17] = [
    effects::effects,
    effects::attributions,
    effects::edges,
    circuits::circuits,
    effects::interactions,
    weights::changes,
    attention::heads,
    steer::doses,
    lens::layers,
    neurons::neurons,
    functions::functions,
    importance::rankings,
    truth::accuracies,
    values::changes,
    deltas::children,
    similarity::layers,
    scale::scales,
];

/// Lines on what a run's tables say; none where no table is of an analysis that has any.
pub fn findings(tables: &[Table]) -> Vec<String> {
    let told = ALL.iter().find_map(|told| told(tables)).unwrap_or_default();
    // Spaces that do not break are for pages.
    told.into_iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

/// The rows of a type, if a table is of them.
fn read<'t, R: Row<'t>>(tables: &'t [Table]) -> Option<Vec<R>> {
    R::read(tables.iter().find(|table| table.name() == R::TABLE)?).ok()
}

/// A unit as it is listed.
struct Found {
    label: String,
    size: f64,
    interval: Option<(f64, f64)>,
    p_max: Option<f64>,
    q: Option<f64>,
}

/// A line that says so where the items are too few for any of so many tests to be significant by itself, and none is; `rows` have
/// their items and q-value.
fn too_few(rows: impl Iterator<Item = (i64, Option<f64>)> + Clone, tests: usize) -> Option<String> {
    let significant = rows.clone().any(|(_, q)| q.is_some_and(|q| q < SIGNIFICANT));
    let items = rows.map(|(n, _)| n).max()?;
    let said = Power { items, item: "item", tests }.sentence();
    (!significant && !said.is_empty()).then(|| format!(" {}", said.replace("**", "")))
}

/// The strongest of some units in a unit of measure, under a heading; nothing of none.
fn listed(heading: &str, measure: &str, mut found: Vec<Found>) -> Vec<String> {
    found.sort_by(|a, b| b.size.abs().total_cmp(&a.size.abs()));
    let line = |found: &Found| {
        let (size, ends) = (signed(found.size, 3), interval(found.interval));
        let p = |p: f64| format!("family-wise p {}", p_value(Some(p)));
        let q = |q: Option<f64>| format!("q {}{}", p_value(q), unless_significant(q));
        let test = match (found.p_max, found.q) {
            // The family-wise p is the stricter. Where it is not small, the q-value decides, as in reports.
            (Some(p_max), Some(_)) if p_max >= SIGNIFICANT => format!("{}, {}", p(p_max), q(found.q)),
            (Some(p_max), _) => format!("{}{}", p(p_max), unless_significant(found.p_max)),
            (None, of) => q(of),
        };
        format!("  {:<10} {size}{measure} {ends}, {test}", found.label)
    };
    let lines: Vec<String> = found.iter().take(LISTED).map(line).collect();
    if lines.is_empty() { lines } else { std::iter::once(format!("{heading}:")).chain(lines).collect() }
}

/// What is added to a test that tells nothing from chance.
fn unless_significant(p: Option<f64>) -> &'static str {
    if p.is_some_and(|p| p >= SIGNIFICANT) { ", not significant" } else { "" }
}

/// Whether a whole interval lies above another.
fn is_above(interval: Option<(f64, f64)>, other: Option<(f64, f64)>) -> bool {
    interval.zip(other).is_some_and(|((low, _), (_, high))| low > high)
}
