//! The knockout cascade's figures and words, from its tables alone.

use crate::analyses::components::label;
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::{AnalysisError, Figures, table};
use crate::figure::{Estimate, Figure, Forest, ForestRow, Heatmap};
use crate::names::short_name;
use crate::report::cells::{share, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::table::Table;
use std::path::Path;

/// How many components a report's table and forest plot list.
const LISTED: usize = 12;

/// How many amplifiers a sentence names.
const NAMED: usize = 8;

/// A component as the table has it.
struct Row<'a> {
    layer: i64,
    component: &'a str,
    drop: Option<f64>,
    interval: Option<(f64, f64)>,
    share_of_effect: Option<f64>,
    q: Option<f64>,
    amplifier: bool,
    is_gate: bool,
}

impl Row<'_> {
    fn label(&self) -> String {
        label(self.layer, self.component)
    }

    fn head(&self) -> Option<usize> {
        self.component.strip_prefix("head.")?.parse().ok()
    }

    fn significant(&self) -> bool {
        self.q.is_some_and(|q| q < SIGNIFICANT)
    }
}

/// The components, the one that loses or gains most first.
fn rows(components: &Table) -> Result<Vec<Row<'_>>, AnalysisError> {
    let (layers, names) = (components.ints("layer")?, components.strs("component")?);
    let float = |name: &str| components.floats(name);
    let (drops, low, high) = (float("drop_mean")?, float("ci_low")?, float("ci_high")?);
    let (shares, q) = (float("share_of_effect")?, float("q_value")?);
    let (amplifiers, gates) = (components.flags("amplifier")?, components.flags("is_gate")?);
    let row = |i: usize| Row {
        layer: layers[i],
        component: names[i],
        drop: drops[i],
        interval: low[i].zip(high[i]),
        share_of_effect: shares[i],
        q: q[i],
        amplifier: amplifiers[i],
        is_gate: gates[i],
    };
    let mut rows: Vec<Row> = (0..components.rows()).map(row).collect();
    let size = |r: &Row| r.drop.map_or(0.0, f64::abs);
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    Ok(rows)
}

/// The one row of the table of repair.
struct Repair<'a> {
    table: &'a Table,
    gate: &'a str,
    mode: &'a str,
    n: i64,
}

impl<'a> Repair<'a> {
    fn of(tables: &'a [Table]) -> Result<Self, AnalysisError> {
        let table = table(tables, "repair")?;
        let text = |name: &str| Ok::<_, AnalysisError>(table.strs(name)?.first().copied().unwrap_or_default());
        let n = table.ints("n")?.first().copied().unwrap_or(0);
        Ok(Repair { table, gate: text("gate")?, mode: text("mode")?, n })
    }

    fn mean(&self, name: &str) -> Result<Option<f64>, AnalysisError> {
        Ok(self.table.floats(&format!("{name}_mean"))?.first().copied().flatten())
    }

    /// `−12.3 [−12.5, −12.1] nats`
    fn with_interval(&self, name: &str) -> Result<String, AnalysisError> {
        let end = |which: &str| {
            Ok::<_, AnalysisError>(self.table.floats(&format!("{name}_{which}"))?.first().copied().flatten())
        };
        let ends = end("ci_low")?.zip(end("ci_high")?);
        Ok(format!("{} {} nats", signed(self.mean(name)?, 3), interval(ends)))
    }

    fn subtitle(&self) -> Result<String, AnalysisError> {
        let model = short_name(self.table.strs("model")?.first().copied().unwrap_or_default());
        let plural = if self.n == 1 { "" } else { "s" };
        Ok(format!("{model}, {} pair{plural}, {} out by {}, last position", self.n, self.gate, self.mode))
    }
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let rows = rows(table(tables, "components")?)?;
    let subtitle = Repair::of(tables)?.subtitle()?;
    let mut figures = vec![
        ("drops.png".to_string(), drops_map(&rows, &subtitle)),
        ("forest.png".to_string(), drops_forest(&rows, &subtitle)),
    ];
    figures.extend(knockouts_forest(table(tables, "knockouts")?, &subtitle)?.map(|f| ("knockouts.png".to_string(), f)));
    Ok(figures)
}

/// What every head loses, layer by head, with a dot on amplifiers.
fn drops_map(rows: &[Row], subtitle: &str) -> Figure {
    let heads: Vec<(usize, usize, &Row)> =
        rows.iter().filter_map(|r| Some((usize::try_from(r.layer).ok()?, r.head()?, r))).collect();
    let n_layers = heads.iter().map(|h| h.0 + 1).max().unwrap_or(0);
    let n_heads = heads.iter().map(|h| h.1 + 1).max().unwrap_or(0);
    let mut values = vec![vec![None; n_heads]; n_layers];
    let mut marks = vec![vec![false; n_heads]; n_layers];
    for (layer, head, row) in heads {
        values[layer][head] = row.drop;
        marks[layer][head] = row.amplifier;
    }
    let marked = marks.iter().flatten().any(|m| *m);
    Figure::from(Heatmap {
        title: "Attribution that heads lose without the gate".to_string(),
        subtitle: subtitle.to_string(),
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: "drop of the attribution (nats)".to_string(),
        values,
        marks: if marked { marks } else { Vec::new() },
        mark_meaning: marked.then(|| "amplifier".to_string()),
    })
}

/// The components that lose or gain most.
fn drops_forest(rows: &[Row], subtitle: &str) -> Figure {
    let row = |r: &Row| {
        let estimate = |value| Estimate { value, interval: r.interval, marked: r.significant() };
        ForestRow { label: r.label(), estimates: vec![r.drop.map(estimate)] }
    };
    Figure::from(Forest {
        title: "Largest changes of attribution".to_string(),
        subtitle: subtitle.to_string(),
        value_label: "drop of the attribution (nats)".to_string(),
        series: vec!["drop".to_string()],
        rows: rows.iter().take(LISTED).map(row).collect(),
        mark_meaning: Some(format!("q < {SIGNIFICANT}")),
        interval_meaning: Some(INTERVAL.to_string()),
    })
}

/// Amplifiers knocked out alone and on top of the gate; none where there are none.
fn knockouts_forest(knockouts: &Table, subtitle: &str) -> Result<Option<Figure>, AnalysisError> {
    let (names, with_gate) = (knockouts.strs("heads")?, knockouts.flags("with_gate")?);
    let float = |name: &str| knockouts.floats(name);
    let (effects, low, high) = (float("effect_mean")?, float("ci_low")?, float("ci_high")?);
    let (beyond, beyond_low, beyond_high) = (float("beyond_gate")?, float("beyond_ci_low")?, float("beyond_ci_high")?);
    let estimate = |value: Option<f64>, low: Option<f64>, high: Option<f64>| {
        Some(Estimate { value: value?, interval: low.zip(high), marked: false })
    };
    let row = |i: usize| ForestRow {
        label: names[i].to_string(),
        estimates: vec![estimate(effects[i], low[i], high[i]), estimate(beyond[i], beyond_low[i], beyond_high[i])],
    };
    let rows: Vec<ForestRow> = (0..knockouts.rows()).filter(|i| !with_gate[*i]).map(row).collect();
    Ok((!rows.is_empty()).then(|| {
        Figure::from(Forest {
            title: "Amplifiers with and without the gate".to_string(),
            subtitle: subtitle.to_string(),
            value_label: "effect on the logit difference (nats)".to_string(),
            series: vec!["knocked out alone".to_string(), "on top of the gate".to_string()],
            rows,
            mark_meaning: None,
            interval_meaning: Some(INTERVAL.to_string()),
        })
    }))
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let components = table(tables, "components")?;
    let (rows, repair) = (rows(components)?, Repair::of(tables)?);
    let listing = Listing::of(components)
        .strongest("drop_mean")
        .first(LISTED)
        .column("layer", Show::Count("layer"))
        .column("component", Show::Text("component"))
        .column("clean (nats)", Show::Signed("clean_mean", 3))
        .column("gate out (nats)", Show::Signed("knocked_mean", 3))
        .column("drop (nats)", Show::Signed("drop_mean", 3))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 3))
        .column("of its own", Show::Share("drop_share"))
        .column("of the effect", Show::Share("share_of_effect"))
        .column("q", Show::PValue("q_value"))
        .column("amplifier", Show::Flag("amplifier"));
    let alt = "Layer-by-head heatmap of the attribution that each head loses when the gate is knocked out.";
    let caption = "Mean drop of each head's attribution; all components are in components.parquet.";
    let main = Section::new("What the gate works through")
        .paragraph(finding(&rows, &repair)?)
        .figure(dir.join("drops.png"), caption, alt)
        .figure(
            dir.join("forest.png"),
            "The largest changes with their intervals.",
            "Forest plot of the largest drops of attribution with 95 % intervals.",
        )
        .block(Block::Table(listing.block("The largest changes of attribution")?));
    let mut sections = vec![main];
    sections.extend(knockouts_section(table(tables, "knockouts")?, &repair, dir)?);
    sections.push(Section::new("Self-repair").paragraph(repair_text(&rows, &repair)?));
    Ok(sections)
}

/// The gate's effect, and its amplifiers.
fn finding(rows: &[Row], repair: &Repair) -> Result<String, AnalysisError> {
    let amplifiers: Vec<&Row> = rows.iter().filter(|r| r.amplifier).collect();
    let total: f64 = amplifiers.iter().filter_map(|r| r.share_of_effect).sum();
    let named = |r: &&Row| format!("**{}** ({})", r.label(), share(r.share_of_effect));
    let names: Vec<String> = amplifiers.iter().take(NAMED).map(named).collect();
    let rest = match amplifiers.len() > names.len() {
        true => format!(" and {} more", amplifiers.len() - names.len()),
        false => String::new(),
    };
    let found = match amplifiers.len() {
        0 => "No later head loses attribution of the effect's sign beyond chance: the gate works through MLPs, or directly."
            .to_string(),
        1 => format!("One later head amplifies it: {} of the effect).", names[0].trim_end_matches(')')),
        n => format!(
            "{n} later heads amplify it: {}{rest}, each with its share of the effect, {} together.",
            names.join(", "),
            share(total)
        ),
    };
    Ok(format!(
        "Over {} pairs, knocking out **{}** ({}) moves the positive prompts' logit difference from {} to {} nats (negative \
         prompts: {}). {found}",
        repair.n,
        repair.gate,
        repair.mode,
        signed(repair.mean("positive")?, 3),
        signed(repair.mean("knocked")?, 3),
        signed(repair.mean("negative")?, 3),
    ))
}

/// The amplifiers knocked out too; none where there are none.
fn knockouts_section(knockouts: &Table, repair: &Repair, dir: &Path) -> Result<Option<Section>, AnalysisError> {
    let (names, with_gate) = (knockouts.strs("heads")?, knockouts.flags("with_gate")?);
    let (alone, beyond) = (knockouts.floats("alone")?, knockouts.floats("beyond_gate")?);
    // Without a row of all of them there is one alone.
    let singles: Vec<usize> = (0..knockouts.rows()).filter(|i| !with_gate[*i]).collect();
    let Some(last) = singles.last().copied() else { return Ok(None) };
    let who = if names[last] == "amplifiers" { "All of them" } else { names[last] };
    let text = format!(
        "{who} knocked out alone: {} nats; on top of {}: {} nats. A head that only passes the gate's signal on does little \
         once the gate is out; what one still does there it carries from elsewhere.",
        signed(alone[last], 3),
        repair.gate,
        signed(beyond[last], 3),
    );
    let block = Listing::of(knockouts)
        .column("knocked out", Show::Text("heads"))
        .column("metric (nats)", Show::Signed("metric_mean", 3))
        .column("effect (nats)", Show::Signed("effect_mean", 3))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 3))
        .column("q", Show::PValue("q_value"))
        .column("beyond the gate (nats)", Show::Signed("beyond_gate", 3))
        .block("Knockouts of the gate, of amplifiers, and of both")?;
    let alt = "Forest plot of the effects of knocking out amplifiers, alone and on top of the gate.";
    let caption = "Each amplifier's effect by itself, and on top of the gate's knockout.";
    Ok(Some(
        Section::new("Amplifiers knocked out as well")
            .paragraph(text)
            .figure(dir.join("knockouts.png"), caption, alt)
            .block(Block::Table(block)),
    ))
}

/// Direct against total effect, and who works against it.
fn repair_text(rows: &[Row], repair: &Repair) -> Result<String, AnalysisError> {
    let (direct, total) = (repair.mean("direct")?, repair.mean("total")?);
    let verdict = match direct.zip(total) {
        Some((d, t)) if d * t > 0.0 && t.abs() < d.abs() => {
            format!("Later components repair {} of the direct effect.", share(1.0 - t / d))
        }
        Some((d, t)) if t != 0.0 => {
            format!("The gate works through later components: {} of its effect is direct.", share(d / t))
        }
        _ => "Nothing changes.".to_string(),
    };
    let against: Vec<&Row> =
        rows.iter().filter(|r| r.significant() && !r.is_gate && r.share_of_effect.is_some_and(|s| s < 0.0)).collect();
    let sum: f64 = against.iter().filter_map(|r| r.drop).sum();
    let against = match against.first() {
        None => "No later component works against the knockout beyond chance.".to_string(),
        Some(first) => format!(
            "{} later components work against the knockout (q < {SIGNIFICANT}), by {} nats together, {} most; what the final \
             norm's new scale does to heads that did not change is in it.",
            against.len(),
            signed(-sum, 3),
            first.label()
        ),
    };
    Ok(format!(
        "The gate's total effect is {}; its direct effect, the change of its own attribution, is {}. {verdict} Between the two \
         stand later heads with {}, later MLPs with {}, and the final norm and the rest with {}. {against}",
        repair.with_interval("total")?,
        repair.with_interval("direct")?,
        repair.with_interval("later_heads")?,
        repair.with_interval("later_mlps")?,
        repair.with_interval("rest")?,
    ))
}
