//! Screening: which heads gate the behaviour, of all the model has?
//!
//! Every head's interchange is estimated to first order by gradients (attribution patching; Nanda 2023). The heads with the
//! strongest estimates are run exactly, and beside them a random sample of the rest: what the estimate misses among those
//! that it put aside is thereby estimated too. A head *carries* the behaviour if both directions of interchange say so (q <
//! 0.05, towards the other prompt); of the carriers the strongest is the *gate*. Source: "How Alignment Routes" (2026), which
//! screens every head with 120 pairs and more.

use super::effects::{Read, Row, SIGNIFICANT, read};
use super::gate::{CircuitFile, Head, names};
use super::inputs::PairArgs;
use super::interchange::{self, Direction, Interchange, spread, strongest};
use super::summary::Position;
use super::{Analysis, AnalysisError, Figures, Output, Plans, planned, table};
use crate::model::Model;
use crate::report::Section;
use crate::report::cells::{interval, number, share};
use crate::report::listing::{Listing, Show};
use crate::session::Session;
use crate::site::SiteKind;
use crate::stats::{self, wilson};
use crate::table::Table;
use rand::seq::SliceRandom;
use std::path::Path;

/// The heads that gate a behaviour: estimated all, the strongest and a sample of the rest run exactly
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Screen {
    #[command(flatten)]
    #[serde(flatten)]
    pub pairs: PairArgs,

    /// Heads that are run exactly for their estimates, in each direction
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub candidates: u32,

    /// Heads of the rest that are run exactly, drawn at random, in each direction
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub sample: u32,

    /// Pairs that estimates are made of, at most
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub estimate_pairs: u32,

    /// Heads that circuit.json names as the gate, at most
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub gates: u32,
}

impl Analysis for Screen {
    const NAME: &'static str = "screen";
    const ABOUT: &'static str = "The heads that gate a behaviour, by a gradient estimate and exact interchange";
    const TITLE: &'static str = "Screening of heads";
    type Items = interchange::Items;

    fn prepare(&self, model: &Model) -> Result<Self::Items, AnalysisError> {
        self.interchange().prepare(model)
    }

    fn datasets(items: &Self::Items) -> Vec<(String, String)> {
        Interchange::datasets(items)
    }

    fn plans<'a>(&'a self, _: &'a Model, items: &'a Self::Items) -> Result<Plans<'a>, AnalysisError> {
        let interchange = self.interchange();
        let some = spread(items.units.len(), (self.candidates + self.sample) as usize);
        let estimates = interchange.gradient_plan(items, &self.estimated(items));
        let exact = interchange::exact_plans(items, interchange.directions(), vec![some.clone(), some]);
        Ok(planned(std::iter::once(estimates).chain(exact)))
    }

    fn compute(&self, session: &Session, items: &Self::Items) -> Result<Output, AnalysisError> {
        let interchange = self.interchange();
        let estimates = interchange.estimates(session, items, &self.estimated(items))?;
        let candidates: Vec<Vec<usize>> =
            estimates.values.iter().map(|of| strongest(of, self.candidates as usize)).collect();
        let sampled: Vec<Vec<usize>> = interchange
            .directions()
            .iter()
            .zip(&candidates)
            .map(|(direction, candidates)| self.sampled(*direction, candidates, items.units.len(), session.seed))
            .collect();
        let chosen: Vec<Vec<usize>> = candidates
            .iter()
            .zip(&sampled)
            .map(|(a, b)| {
                let mut both = [&a[..], &b[..]].concat();
                both.sort_unstable();
                both
            })
            .collect();
        let mut tables = interchange.tables(session, items, &chosen, Some(&estimates))?;
        let heads = read(table(&tables, "heads")?, "direction")?;
        let (missed, circuit) = (missed_table(&heads, &sampled, items.units.len())?, circuit(&heads));
        let gates = self.gates as usize;
        let circuit_table = circuit_table(&heads, &circuit, gates)?;
        let number = |h: &Carrier| (h.head.layer, h.head.head);
        let file = CircuitFile {
            model: Some(session.model.name.clone()),
            gate: circuit.iter().take(gates).map(number).collect(),
            carriers: circuit.iter().map(number).collect(),
        };
        tables.extend([missed, circuit_table]);
        let mut json = serde_json::to_vec(&file).map_err(|e| AnalysisError::Failed(e.to_string()))?;
        json.push(b'\n');
        Ok(Output { tables, files: vec![("circuit.json".to_string(), json)] })
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        Interchange::figures(tables)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        let mut sections = vec![circuit_section(tables)?];
        sections.extend(Interchange::sections(tables, dir)?);
        sections.push(missed_section(tables)?);
        Ok(sections)
    }
}

impl Screen {
    /// What is run exactly: every head's `z` at the last position, in both directions.
    fn interchange(&self) -> Interchange {
        Interchange {
            pairs: self.pairs.clone(),
            position: Position::Last,
            align: false,
            direction: None,
            site: SiteKind::Z,
            estimate: None,
            exact: self.candidates,
        }
    }

    /// The pairs that estimates are made of: spread evenly over all.
    fn estimated(&self, items: &interchange::Items) -> Vec<usize> {
        let all = items.pairs.tokens.len();
        let n = all.min(self.estimate_pairs as usize);
        (0..n).map(|k| k * all / n).collect()
    }

    /// Heads of the rest, ascending.
    fn sampled(&self, direction: Direction, candidates: &[usize], units: usize, seed: u64) -> Vec<usize> {
        let mut rest: Vec<usize> = (0..units).filter(|u| candidates.binary_search(u).is_err()).collect();
        rest.shuffle(&mut stats::rng(seed, &format!("screen.sample.{}", direction.name())));
        rest.truncate(self.sample as usize);
        rest.sort_unstable();
        rest
    }
}

/// The share of the gap that an exchange crosses; see [`Row::crossed`].
pub(super) fn crossed(row: &Row) -> Option<f64> {
    row.crossed()
}

/// Whether an exchange significantly moves the metric towards the other prompt.
fn carries(row: &Row) -> bool {
    row.q.is_some_and(|q| q < SIGNIFICANT) && crossed(row).is_some_and(|s| s > 0.0)
}

/// A head that both directions say carries the behaviour.
pub(super) struct Carrier {
    pub(super) head: Head,
    /// Shares of the gap: necessity, sufficiency.
    pub(super) crossed: [f64; 2],
}

/// The carriers, the strongest in both directions together first.
pub(super) fn circuit(heads: &Read) -> Vec<Carrier> {
    let of = |direction: Direction| heads.rows.iter().filter(move |r| r.variant == direction.name() && carries(r));
    let mut found = Vec::new();
    for necessary in of(Direction::Necessity) {
        let same = |r: &&Row| (r.layer, r.head) == (necessary.layer, necessary.head);
        let Some(sufficient) = of(Direction::Sufficiency).find(same) else { continue };
        if let (Some(n), Some(s)) = (crossed(necessary), crossed(sufficient)) {
            let head = Head { layer: necessary.layer as usize, head: necessary.head as usize };
            found.push(Carrier { head, crossed: [n, s] });
        }
    }
    found.sort_by(|a, b| b.crossed.iter().sum::<f64>().total_cmp(&a.crossed.iter().sum()));
    found
}

fn circuit_table(heads: &Read, circuit: &[Carrier], gates: usize) -> Result<Table, AnalysisError> {
    let n = heads.rows.first().map_or(0, |r| r.n);
    let layers = heads.rows.iter().map(|r| r.layer).max().unwrap_or(0) + 1;
    let q = |c: &Carrier, direction: Direction| {
        let same =
            |r: &&Row| r.variant == direction.name() && (r.layer, r.head) == (c.head.layer as i64, c.head.head as i64);
        heads.rows.iter().find(same)
    };
    let of = |f: &dyn Fn(&Row) -> Option<f64>, direction| {
        circuit.iter().map(|c| q(c, direction).and_then(f)).collect::<Vec<_>>()
    };
    Ok(Table::new("circuit")
        .str("model", "the model, in short", circuit.iter().map(|_| heads.model.as_str()))?
        .int("layer", "layer, from 0", circuit.iter().map(|c| c.head.layer as i64))?
        .int("head", "head, from 0", circuit.iter().map(|c| c.head.head as i64))?
        .int("n_layers", "the model's layers", circuit.iter().map(|_| layers))?
        .int("n", "pairs", circuit.iter().map(|_| n))?
        .float(
            "necessity",
            "share of the gap between the mean metrics that the exchange crosses in the positive run",
            circuit.iter().map(|c| c.crossed[0]),
        )?
        .float("sufficiency", "the same in the negative run", circuit.iter().map(|c| c.crossed[1]))?
        .float("necessity_p", "sign-flip p-value", of(&|r| r.p, Direction::Necessity))?
        .float("necessity_q", "Benjamini-Hochberg q-value over all heads", of(&|r| r.q, Direction::Necessity))?
        .float("sufficiency_p", "sign-flip p-value", of(&|r| r.p, Direction::Sufficiency))?
        .float("sufficiency_q", "Benjamini-Hochberg q-value over all heads", of(&|r| r.q, Direction::Sufficiency))?
        .flag("gate", "whether circuit.json names it as the gate", (0..circuit.len()).map(|i| i < gates))?)
}

/// What the estimate misses, judged by the sample of the heads that it put aside.
fn missed_table(heads: &Read, sampled: &[Vec<usize>], units: usize) -> Result<Table, AnalysisError> {
    struct Found {
        direction: &'static str,
        exact: usize,
        found: usize,
        rest: usize,
        sampled: usize,
        significant: usize,
    }
    let one = |(direction, sampled): (Direction, &Vec<usize>)| {
        // A direction's rows are all units, in their order.
        let rows: Vec<&Row> = heads.rows.iter().filter(|r| r.variant == direction.name()).collect();
        let exact = rows.iter().filter(|r| r.effect.is_some()).count();
        let is_sampled = |u: &usize| sampled.binary_search(u).is_ok();
        let significant = |of: bool| (0..rows.len()).filter(|u| is_sampled(u) == of && carries(rows[*u])).count();
        Found {
            direction: direction.name(),
            exact,
            found: significant(false),
            rest: units - (exact - sampled.len()),
            sampled: sampled.len(),
            significant: significant(true),
        }
    };
    let rows: Vec<Found> = [Direction::Necessity, Direction::Sufficiency].into_iter().zip(sampled).map(one).collect();
    let missed = |f: &Found| (f.sampled > 0).then(|| f.rest as f64 * f.significant as f64 / f.sampled as f64);
    let ends = |f: &Found| match f.sampled == f.rest {
        true => Some((f.significant as f64, f.significant as f64)),
        false => wilson(f.significant, f.sampled).map(|i| (i.low * f.rest as f64, i.high * f.rest as f64)),
    };
    Ok(Table::new("missed")
        .str("model", "the model, in short", rows.iter().map(|_| heads.model.as_str()))?
        .str("direction", "necessity or sufficiency", rows.iter().map(|f| f.direction))?
        .int(
            "candidates",
            "heads that were run for their estimates",
            rows.iter().map(|f| (f.exact - f.sampled) as i64),
        )?
        .int("found", "candidates that carry the behaviour in this direction", rows.iter().map(|f| f.found as i64))?
        .int("rest", "heads that the estimate put aside", rows.iter().map(|f| f.rest as i64))?
        .int("sampled", "of these, heads that were run all the same, at random", rows.iter().map(|f| f.sampled as i64))?
        .int("significant", "of these, heads that carry the behaviour", rows.iter().map(|f| f.significant as i64))?
        .float("missed", "heads of the rest that carry it, by the sample", rows.iter().map(missed))?
        .float(
            "ci_low",
            "lower end of the 95 % interval of that number (Wilson; exact where all were run)",
            rows.iter().map(|f| ends(f).map(|e| e.0)),
        )?
        .float("ci_high", "its upper end", rows.iter().map(|f| ends(f).map(|e| e.1)))?
        .float(
            "recall",
            "found, as a share of found and missed",
            rows.iter().map(|f| {
                let all = f.found as f64 + missed(f)?;
                (all > 0.0).then(|| f.found as f64 / all)
            }),
        )?)
}

fn circuit_section(tables: &[Table]) -> Result<Section, AnalysisError> {
    let circuit = table(tables, "circuit")?;
    let gate = gate_of(circuit)?;
    let text = if gate.is_empty() {
        "No head carries the behaviour in both directions: no gate was found.".to_string()
    } else {
        format!(
            "{} heads carry the behaviour in both directions of interchange. The strongest is taken as the gate: **{}**.",
            circuit.rows(),
            names(&gate)
        )
    };
    let listed = Listing::of(circuit)
        .first(12)
        .column("head", Show::Head("layer", "head"))
        .column("necessity", Show::Share("necessity"))
        .column("q", Show::PValue("necessity_q"))
        .column("sufficiency", Show::Share("sufficiency"))
        .column("q", Show::PValue("sufficiency_q"))
        .column("gate", Show::Flag("gate"))
        .block("Heads that carry the behaviour, as shares of the gap between the prompts")?;
    Ok(Section::new("Circuit").paragraph(text).block(crate::report::Block::Table(listed)))
}

/// The heads that a table of a screen names as the gate.
///
/// # Errors
/// If the table is not one.
pub fn gate_of(circuit: &Table) -> Result<Vec<Head>, AnalysisError> {
    let (layers, heads, gates) = (circuit.ints("layer")?, circuit.ints("head")?, circuit.flags("gate")?);
    let head = |i: usize| Head { layer: layers[i] as usize, head: heads[i] as usize };
    Ok((0..circuit.rows()).filter(|i| gates[*i]).map(head).collect())
}

fn missed_section(tables: &[Table]) -> Result<Section, AnalysisError> {
    let missed = table(tables, "missed")?;
    let mut section = Section::new("What the estimate misses");
    let (directions, found, sampled) = (missed.strs("direction")?, missed.ints("found")?, missed.ints("sampled")?);
    let (significant, rest) = (missed.ints("significant")?, missed.ints("rest")?);
    let (number_missed, low, high) = (missed.floats("missed")?, missed.floats("ci_low")?, missed.floats("ci_high")?);
    let recall = missed.floats("recall")?;
    for i in 0..missed.rows() {
        section = section.paragraph(format!(
            "{}: of {} heads that the estimate put aside {} were run all the same, drawn at random; {} of them {} the \
             behaviour. That makes {} of the rest (95 % interval {}), beside {} that were found: the estimate finds {}.",
            directions[i],
            rest[i],
            sampled[i],
            significant[i],
            if significant[i] == 1 { "carries" } else { "carry" },
            number(number_missed[i], 1),
            interval(low[i], high[i], 1),
            found[i],
            share(recall[i]),
        ));
    }
    Ok(section)
}
