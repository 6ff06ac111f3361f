//! Screening: which heads gate the behaviour, of all the model has?
//!
//! Every head's interchange is estimated to first order by gradients (attribution patching; Nanda 2023). The heads with the
//! strongest estimates in either direction are run exactly, and beside them a random sample of the rest: what the estimate
//! misses among those that it put aside is thereby estimated too. A head *carries* the behaviour if both directions of
//! interchange say so (q < 0.05, towards the other prompt), so that every head that is run at all is run in both. Of the
//! carriers the strongest is the *gate*. Source: "How Alignment Routes" (2026), which screens every head with 120 pairs and
//! more.
//!
//! The strongest of many heads is in part the luckiest: over the pairs that it was picked on, its share of the gap is too
//! large. The table `held_out` picks the strongest on one half of the pairs and measures it on the other.

pub mod held_out;

use crate::analyses::effects::{SIGNIFICANT, read};
use crate::analyses::heads::{CircuitFile, Head, names};
use crate::analyses::inputs::{evenly, halves};
use crate::analyses::interchange::{self, Direction, Exchange, Interchange, PairRow, Read, Row, spread, strongest};
use crate::analyses::marks::MarkArgs;
use crate::analyses::prelude::*;
use crate::report::cells::{self, interval, number, plural, share, share_interval};
use crate::stats::{self, wilson};
use rand::seq::SliceRandom;
use std::collections::BTreeSet;

parameters! {
    /// Find the heads that gate a behaviour: estimate all, run the strongest exactly
    #[serde(default)]
    pub struct Screen {
        ..pairs: PairArgs;

        /// Run exactly this many heads with the strongest estimates of each direction
        ///
        /// A head that is chosen in either direction is run in both.
        candidates: u32 = 32, in 1.., [value_name = "N"];

        /// Also run exactly this many of the other heads, drawn at random
        sample: u32 = 32, [value_name = "N"];

        /// Make estimates from at most this many pairs
        estimate_pairs: u32 = 40, in 1.., [value_name = "N"];

        /// Name at most this many heads as the gate in circuit.json
        gates: u32 = 1, in 1.., [value_name = "K"];

        ..marks: MarkArgs;
    }
}

impl Analysis for Screen {
    const NAME: &'static str = "screen";
    const TITLE: &'static str = "Screening of heads";
    const FROM_TABLES: FromTables = FromTables { figures: Interchange::FROM_TABLES.figures, sections };
    type Items = interchange::Items;
    type Measured = (Exact, interchange::Measurements);

    fn prepare(&self, model: &Model) -> Result<Prepared<Self::Items>, AnalysisError> {
        self.interchange().prepare(model)
    }

    fn measure(&self, runner: &dyn Runner, items: &Self::Items) -> Result<Self::Measured, AnalysisError> {
        let interchange = self.interchange();
        let place = &items.places[0];
        let estimates = interchange.estimates(runner, items, place, &self.estimated(items))?;
        let exact = self.exact(&estimates.values, runner.seed());
        let chosen = if runner.is_counting() {
            // No more than each direction its own.
            let most = (2 * self.candidates as usize).saturating_add(self.sample as usize);
            spread(items.units.len(), most)
        } else {
            exact.all()
        };
        let found = interchange.exactly(runner, items, place, vec![chosen.clone(), chosen], Some(estimates))?;
        Ok((exact, found))
    }

    fn tables(
        &self,
        about: &About,
        items: &Self::Items,
        (exact, found): Self::Measured,
    ) -> Result<Output, AnalysisError> {
        let mut tables = self.interchange().all_tables(about, items, std::slice::from_ref(&found))?;
        let heads = read::<Exchange>(table(&tables, Row::TABLE)?)?;
        let (missed, circuit) = (missed_table(&heads, &exact)?, circuit(&heads));
        let gates = self.gates as usize;
        let circuit_table = circuit_table(&heads, &circuit, gates)?;
        let halves = halves(&items.pairs.dataset.items);
        let held_out = held_out::table(&heads.model, table(&tables, PairRow::TABLE)?, &halves, about.seed)?;
        let number = |h: &Carrier| (h.head.layer, h.head.head);
        let file = CircuitFile {
            model: Some(about.model.to_string()),
            gate: circuit.iter().take(gates).map(number).collect(),
            carriers: circuit.iter().map(number).collect(),
        };
        tables.extend([missed, circuit_table, held_out]);
        let mut json = serde_json::to_vec(&file).map_err(|e| AnalysisError::Failed(e.to_string()))?;
        json.push(b'\n');
        Ok(Output { tables, files: vec![("circuit.json".to_string(), json)] })
    }
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let mut sections = vec![circuit_section(tables)?];
    sections.extend((Interchange::FROM_TABLES.sections)(tables, dir)?);
    sections.push(missed_section(tables)?);
    Ok(sections)
}

impl Screen {
    /// What is run exactly: every head's `z` at the last position, in both directions.
    fn interchange(&self) -> Interchange {
        Interchange { pairs: self.pairs.clone(), marks: self.marks, ..Interchange::default() }
    }

    /// The pairs that estimates are made of: evenly from each language and group.
    fn estimated(&self, items: &interchange::Items) -> Vec<usize> {
        evenly(&items.pairs.dataset.items, self.estimate_pairs as usize)
    }

    /// What is run exactly, by each direction's estimates of every head.
    fn exact(&self, estimates: &[Vec<Vec<f64>>], seed: u64) -> Exact {
        let units = estimates.first().map_or(0, Vec::len);
        let named: BTreeSet<usize> = estimates.iter().flat_map(|of| strongest(of, self.candidates as usize)).collect();
        let mut sampled: Vec<usize> = (0..units).filter(|u| !named.contains(u)).collect();
        let rest = sampled.len();
        sampled.shuffle(&mut stats::rng(seed, "screen.sample"));
        sampled.truncate(self.sample as usize);
        sampled.sort_unstable();
        Exact { candidates: named.into_iter().collect(), sampled, rest }
    }
}

/// The heads that are run exactly, by their numbers among all, ascending.
pub struct Exact {
    /// Those that the estimates of either direction name.
    candidates: Vec<usize>,
    /// Those that were drawn from the rest.
    sampled: Vec<usize>,
    /// How many heads the rest are.
    rest: usize,
}

impl Exact {
    fn all(&self) -> Vec<usize> {
        let mut all = [&self.candidates[..], &self.sampled[..]].concat();
        all.sort_unstable();
        all
    }
}

/// Whether an exchange significantly moves the metric towards the other prompt.
fn carries(row: &Row) -> bool {
    row.q_value.is_some_and(|q| q < SIGNIFICANT) && row.crossed().is_some_and(|s| s > 0.0)
}

/// A head that both directions say carries the behaviour.
pub(in crate::analyses) struct Carrier {
    pub(in crate::analyses) head: Head,
    /// Shares of the gap: necessity, sufficiency.
    pub(in crate::analyses) crossed: [f64; 2],
}

/// A head's row in one direction.
fn of_head<'r>(heads: &'r Read, head: Head, direction: Direction) -> Option<&'r Row<'r>> {
    let wanted = (direction.name(), head.layer as i64, head.head as i64);
    heads.rows.iter().find(|r| (r.variant, r.layer, r.head) == wanted)
}

/// The carriers, the strongest in both directions together first.
pub(in crate::analyses) fn circuit(heads: &Read) -> Vec<Carrier> {
    let mut found = Vec::new();
    for necessary in heads.rows.iter().filter(|r| r.variant == Direction::Necessity.name() && carries(r)) {
        let head = Head { layer: necessary.layer as usize, head: necessary.head as usize };
        let sufficient = of_head(heads, head, Direction::Sufficiency).filter(|r| carries(r));
        if let (Some(n), Some(s)) = (necessary.crossed(), sufficient.and_then(Row::crossed)) {
            found.push(Carrier { head, crossed: [n, s] });
        }
    }
    found.sort_by(|a, b| b.crossed.iter().sum::<f64>().total_cmp(&a.crossed.iter().sum()));
    found
}

rows! {
    /// A head that carries the behaviour in both directions.
    pub struct CircuitRow<'a> in "circuit" {
        model: &'a str = "the model, in short",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        n_layers: i64 = "the model's layers",
        n: i64 = "pairs",
        necessity: Option<f64> =
            "share of the gap between the mean metrics that the exchange crosses in the positive run",
        sufficiency: Option<f64> = "the same in the negative run",
        necessity_p: Option<f64> = "sign-flip p-value",
        necessity_q: Option<f64> = "Benjamini-Hochberg q-value over all heads",
        sufficiency_p: Option<f64> = "sign-flip p-value",
        sufficiency_q: Option<f64> = "Benjamini-Hochberg q-value over all heads",
        gate: bool = "whether circuit.json names it as the gate",
    }

    /// What the estimate misses in a direction, or in both.
    pub struct MissedRow<'a> in "missed" {
        model: &'a str = "the model, in short",
        direction: &'a str = "necessity, sufficiency, or both at once",
        candidates: i64 = "heads that were run for their estimates",
        found: i64 = "candidates that carry the behaviour so",
        rest: i64 = "heads that the estimate put aside",
        sampled: i64 = "of these, heads that were run all the same, at random",
        significant: i64 = "of these, heads that carry the behaviour",
        missed: Option<f64> =
            "heads of the rest that carry it, by the sample: those that were seen, and as large a share of the others",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the 95 % interval of that number (Wilson, for those that were not run; exact where all were)",
            "its upper end",
        ],
        recall: Option<f64> =
            "heads that carry it and were run (found and significant), as a share of found and missed",
    }
}

fn circuit_table(heads: &Read, circuit: &[Carrier], gates: usize) -> Result<Table, AnalysisError> {
    let n_layers = heads.rows.iter().map(|r| r.layer).max().unwrap_or(0) + 1;
    Ok(CircuitRow::table(circuit.iter().enumerate().map(|(i, carrier)| {
        let row = |direction| of_head(heads, carrier.head, direction);
        let (necessity, sufficiency) = (row(Direction::Necessity), row(Direction::Sufficiency));
        CircuitRow {
            model: &heads.model,
            layer: carrier.head.layer as i64,
            head: carrier.head.head as i64,
            n_layers,
            // The first row of all may have been estimated only, over fewer pairs.
            n: necessity.map_or(0, |r| r.n),
            necessity: Some(carrier.crossed[0]),
            sufficiency: Some(carrier.crossed[1]),
            necessity_p: necessity.and_then(|r| r.p_value),
            necessity_q: necessity.and_then(|r| r.q_value),
            sufficiency_p: sufficiency.and_then(|r| r.p_value),
            sufficiency_q: sufficiency.and_then(|r| r.q_value),
            gate: i < gates,
        }
    }))?)
}

/// How many heads carry the behaviour in a direction, or in both.
struct Carrying {
    direction: &'static str,
    /// Of the candidates.
    found: usize,
    /// Of the sample.
    significant: usize,
}

impl Exact {
    /// Each direction by itself, then both. A direction's rows are all heads, in their order.
    fn carrying(&self, heads: &Read) -> [Carrying; 3] {
        let names = [Direction::Necessity, Direction::Sufficiency].map(Direction::name);
        let [necessary, sufficient] =
            names.map(|name| heads.rows.iter().filter(|r| r.variant == name).map(carries).collect::<Vec<_>>());
        let both: Vec<bool> = necessary.iter().zip(&sufficient).map(|(a, b)| *a && *b).collect();
        let count = |carry: &[bool], of: &[usize]| of.iter().filter(|u| carry[**u]).count();
        [(names[0], &necessary), (names[1], &sufficient), ("both", &both)].map(|(direction, carry)| Carrying {
            direction,
            found: count(carry, &self.candidates),
            significant: count(carry, &self.sampled),
        })
    }

    /// How many heads of the rest carry it, by the sample: those that were seen, and of those that were not run as large a
    /// share. None where heads were put aside and none was run.
    fn missed(&self, of: &Carrying, share: impl Fn(usize, usize) -> Option<f64>) -> Option<f64> {
        let unseen = self.rest - self.sampled.len();
        let share = if unseen == 0 { 0.0 } else { share(of.significant, self.sampled.len())? };
        Some(of.significant as f64 + share * unseen as f64)
    }
}

/// What the estimate misses, judged by the sample of the heads that it put aside.
fn missed_table(heads: &Read, exact: &Exact) -> Result<Table, AnalysisError> {
    let point = |k: usize, n: usize| (n > 0).then(|| k as f64 / n as f64);
    let carrying = exact.carrying(heads);
    Ok(MissedRow::table(carrying.iter().map(|c| {
        let missed = exact.missed(c, point);
        let end = |f: fn(Interval) -> f64| exact.missed(c, |k, n| wilson(k, n).map(f));
        let all = missed.map(|missed| c.found as f64 + missed).filter(|all| *all > 0.0);
        MissedRow {
            model: &heads.model,
            direction: c.direction,
            candidates: exact.candidates.len() as i64,
            found: c.found as i64,
            rest: exact.rest as i64,
            sampled: exact.sampled.len() as i64,
            significant: c.significant as i64,
            missed,
            interval: end(|i| i.low).zip(end(|i| i.high)),
            recall: all.map(|all| (c.found + c.significant) as f64 / all),
        }
    }))?)
}

fn circuit_section(tables: &[Table]) -> Result<Section, AnalysisError> {
    let circuit = table(tables, CircuitRow::TABLE)?;
    let gate = gate_of(circuit)?;
    let text = if gate.is_empty() {
        "No head carries the behaviour in both directions: no gate was found.".to_string()
    } else {
        let held_out = held_out::sentence(tables)?;
        match circuit.rows() {
            1 => format!(
                "One head carries the behaviour in both directions of interchange and is taken as the gate: **{}**.{held_out}",
                names(&gate)
            ),
            n => format!(
                "{n} heads carry the behaviour in both directions of interchange. The strongest {} taken as the gate: **{}**.{held_out}",
                if gate.len() == 1 { "is" } else { "are" },
                names(&gate)
            ),
        }
    };
    let section = Section::new("Circuit").paragraph(text);
    if gate.is_empty() {
        return Ok(section);
    }
    let listing = Listing::of(circuit).first(12);
    let rows = listing.rows()?;
    let listed = listing
        .column("head", Show::Head(CircuitRow::layer.name, CircuitRow::head.name))
        .column("necessity", Show::Share(CircuitRow::necessity.name))
        .column("q", Show::PValue(CircuitRow::necessity_q.name))
        .column("sufficiency", Show::Share(CircuitRow::sufficiency.name))
        .column("q", Show::PValue(CircuitRow::sufficiency_q.name))
        .column("gate", Show::Flag(CircuitRow::gate.name))
        .block("Heads that carry the behaviour, as shares of the gap between the prompts")?;
    let heads = read::<Exchange>(table(tables, Row::TABLE)?)?;
    let (layers, numbers) = (circuit.column(CircuitRow::layer)?, circuit.column(CircuitRow::head)?);
    let head = |row: usize| Head { layer: layers[row] as usize, head: numbers[row] as usize };
    let listed =
        [(Direction::Necessity, 2), (Direction::Sufficiency, 5)].into_iter().fold(listed, |listed, (of, at)| {
            let ends = |row: &usize| share_interval(of_head(&heads, head(*row), of).and_then(|r| r.share.interval));
            listed.with_column(at, Heading::number("95 % interval"), rows.iter().map(ends))
        });
    Ok(section.block(Block::Table(listed)))
}

/// The heads that a table of a screen names as the gate.
///
/// # Errors
/// If the table is not one.
pub fn gate_of(circuit: &Table) -> Result<Vec<Head>, AnalysisError> {
    let (layers, heads, gates) =
        (circuit.column(CircuitRow::layer)?, circuit.column(CircuitRow::head)?, circuit.column(CircuitRow::gate)?);
    let head = |i: usize| Head { layer: layers[i] as usize, head: heads[i] as usize };
    Ok((0..circuit.rows()).filter(|i| gates[*i]).map(head).collect())
}

fn missed_section(tables: &[Table]) -> Result<Section, AnalysisError> {
    let missed = table(tables, MissedRow::TABLE)?;
    let section = Section::new("What the estimate misses");
    let rows = MissedRow::read(missed)?;
    if rows.iter().all(|row| row.rest == 0) {
        return Ok(section.paragraph("Nothing: the estimate put no head aside, and every head was run exactly."));
    }
    let of_sample = |row: &MissedRow| match (row.sampled, row.significant) {
        (0, _) => "None of them was run.".to_string(),
        (1, n) => format!(
            "1 of them, drawn at random, was run all the same; it {} the behaviour.",
            if n == 1 { "carries" } else { "does not carry" }
        ),
        (all, 0) => format!("{all} of them, drawn at random, were run all the same; none carries the behaviour."),
        (all, 1) => format!("{all} of them, drawn at random, were run all the same; 1 carries the behaviour."),
        (all, n) => format!("{all} of them, drawn at random, were run all the same; {n} carry the behaviour."),
    };
    Ok(rows.iter().fold(section, |section, row| {
        let rest = plural(row.rest, "head");
        let (low, high) = row.interval.unzip();
        let makes = match row.missed {
            None => "How many of all of them do is not known.".to_string(),
            n => format!("So about {} of the {rest} do (95 % interval {}).", number(n, 0), interval(low, high, 0)),
        };
        let of_found = match (row.found, row.recall) {
            (0, _) => "The estimate found none that does.".to_string(),
            (n, recall) => {
                let ends = recall_interval(n + row.significant, n, row.interval);
                format!("The estimate found {n}: {} of all that do were run (95 % interval {ends}).", share(recall))
            }
        };
        section.paragraph(format!(
            "{}: the estimate put {rest} aside. {} {makes} {of_found}",
            cells::capitalised(row.direction),
            of_sample(row),
        ))
    }))
}

/// The interval of the share of carriers that were run: `run` of those that the estimate found and those of the rest, of whose number
/// the interval is given. The more there are of the rest, the smaller is the share.
fn recall_interval(run: i64, found: i64, of_rest: Option<(f64, f64)>) -> String {
    let share = |rest: f64| (run as f64 / (found as f64 + rest)).min(1.0);
    share_interval(of_rest.map(|(low, high)| (share(high), share(low))))
}

#[cfg(test)]
pub(in crate::analyses) mod testing;
#[cfg(test)]
mod tests;
