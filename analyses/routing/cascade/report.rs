//! The knockout cascade's figures and words, from its tables alone.

use crate::analyses::components::{label_of, n_layers};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Order, Shown};
use crate::analyses::power::Power;
use crate::analyses::{AnalysisError, Figures, halves, table};
use crate::figure::{Estimate, Figure, Forest, ForestRow, Heatmap};
use crate::names::short_name;
use crate::report::cells::{plural, share, share_interval, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::table::Table;
use std::path::Path;

/// What attributions change by, for axes.
const LOSS: &str = "loss of attribution (nats; negative: gain)";

/// What the table of knockouts calls all amplifiers together.
const ALL: &str = "amplifiers";

/// How many components a report's table and forest plot list.
const LISTED: usize = 12;

/// Knock-outs in the figure.
const MOST_KNOCKOUTS: usize = 32;

/// How many amplifiers a sentence names.
const NAMED: usize = 8;

/// A component as the table has it.
struct Row<'a> {
    layer: i64,
    component: &'a str,
    n_layers: i64,
    drop: Option<f64>,
    interval: Option<(f64, f64)>,
    share_of_effect: Option<f64>,
    q: Option<f64>,
    amplifier: bool,
    is_gate: bool,
}

impl Row<'_> {
    fn label(&self) -> String {
        label_of(self.layer, self.component, self.n_layers)
    }

    fn head(&self) -> Option<usize> {
        self.component.strip_prefix("head.")?.parse().ok()
    }

    /// Whether it can change at all, and was tested: a later component's.
    fn is_later(&self) -> bool {
        self.q.is_some() && !self.is_gate
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
    let n_layers = n_layers(layers, &names);
    let row = |i: usize| Row {
        layer: layers[i],
        component: names[i],
        n_layers,
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

    fn ends(&self, name: &str) -> Result<Option<(f64, f64)>, AnalysisError> {
        let end = |which: &str| {
            Ok::<_, AnalysisError>(self.table.floats(&format!("{name}_{which}"))?.first().copied().flatten())
        };
        Ok(end("ci_low")?.zip(end("ci_high")?))
    }

    /// `−12.3 [−12.5, −12.1] nats`
    fn with_interval(&self, name: &str) -> Result<String, AnalysisError> {
        Ok(format!("{} {} nats", signed(self.mean(name)?, 3), interval(self.ends(name)?)))
    }

    /// `3.1 % of the effect, 95 % interval [−1.5, 10.7] %`: what all later heads carry, amplifiers or not.
    fn later_heads(&self) -> Result<String, AnalysisError> {
        let carried = self.table.floats("later_heads_share")?.first().copied().flatten();
        let ends = share_interval(self.ends("later_heads_share")?);
        Ok(format!("{} of the effect, 95 % interval {ends}", share(carried)))
    }

    fn subtitle(&self) -> Result<String, AnalysisError> {
        let model = short_name(self.table.strs("model")?.first().copied().unwrap_or_default());
        Ok(format!("{model}, {}, {} out by {}, last position", plural(self.n, "pair"), self.gate, self.mode))
    }
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let (rows, repair) = (rows(table(tables, "components")?)?, Repair::of(tables)?);
    let subtitle = repair.subtitle()?;
    let mut figures = vec![
        ("drops.png".to_string(), drops_map(&rows, repair.gate, &subtitle)),
        ("forest.png".to_string(), drops_forest(&rows, &subtitle)),
    ];
    let knockouts = knockouts_forest(table(tables, "knockouts")?, repair.gate, &subtitle)?;
    figures.extend(knockouts.map(|f| ("knockouts.png".to_string(), f)));
    let (shown, rows) = apart(table(tables, "knockouts")?, subtitle)?;
    figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    Ok(figures)
}

/// The halves of the knockouts' effects: the gate's, then each set of amplifiers alone.
fn apart(knockouts: &Table, subtitle: String) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let (names, with_gate) = (knockouts.strs("heads")?, knockouts.flags("with_gate")?);
    let rows = (0..knockouts.rows()).filter(|i| *i == 0 || !with_gate[*i]).take(MOST_KNOCKOUTS);
    let label = |name: &str| if name == ALL { "all amplifiers".to_string() } else { name.to_string() };
    let rows = rows.map(|i| (i, label(names[i])));
    let shown = Shown {
        title: "Knockouts: answer and foil apart".to_string(),
        subtitle,
        subject: "the knockout",
        order: Order::Own("knocked out"),
        ..Shown::default()
    };
    Ok((shown, halves::moved(knockouts, ("effect", "effect_mean"), rows)?))
}

/// What every later head loses, layer by head, with a dot on amplifiers.
fn drops_map(rows: &[Row], gate: &str, subtitle: &str) -> Figure {
    let drop = |r: &Row| r.drop.filter(|_| r.is_later());
    let head = |r: &Row| Some((usize::try_from(r.layer).ok()?, r.head()?, drop(r), r.amplifier));
    let (values, marks) = Heatmap::of_heads(rows.iter().filter_map(head));
    Figure::from(Heatmap {
        title: format!("Change of later heads' attributions when {gate} is out"),
        subtitle: subtitle.to_string(),
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: LOSS.to_string(),
        values,
        mark_meaning: (!marks.is_empty()).then(amplifiers),
        marks,
        missing_meaning: Some(format!("not after {gate}")),
        limit: None,
    })
}

/// What a dot on a head says.
fn amplifiers() -> String {
    format!("amplifiers (q < {SIGNIFICANT}, in the direction of the effect)")
}

/// What is under the map of drops.
fn drops_caption(rows: &[Row], gate: &str) -> String {
    let dots = match rows.iter().any(|r| r.amplifier) {
        true => format!(" Dots mark {}.", amplifiers()),
        false => String::new(),
    };
    format!(
        "What each head after {gate} loses of its attribution, on average; all components are in components.parquet.{dots}"
    )
}

/// The components that lose or gain most.
fn drops_forest(rows: &[Row], subtitle: &str) -> Figure {
    let row = |r: &Row| {
        let marked = r.q.map(|_| r.significant());
        let estimate = |value| Estimate { value, interval: r.interval, marked };
        ForestRow { label: r.label(), estimates: vec![r.drop.map(estimate)] }
    };
    Figure::from(Forest {
        title: "Largest changes of attribution".to_string(),
        subtitle: subtitle.to_string(),
        value_label: LOSS.to_string(),
        series: vec!["loss".to_string()],
        rows: rows.iter().take(LISTED).map(row).collect(),
        mark_meaning: Some(format!("q < {SIGNIFICANT}")),
        interval_meaning: Some(INTERVAL.to_string()),
        missing_meaning: None,
    })
}

/// Amplifiers knocked out alone and on top of the gate; none where there are none.
fn knockouts_forest(knockouts: &Table, gate: &str, subtitle: &str) -> Result<Option<Figure>, AnalysisError> {
    let (names, with_gate) = (knockouts.strs("heads")?, knockouts.flags("with_gate")?);
    let float = |name: &str| knockouts.floats(name);
    let (effects, low, high) = (float("effect_mean")?, float("ci_low")?, float("ci_high")?);
    let (beyond, beyond_low, beyond_high) = (float("beyond_gate")?, float("beyond_ci_low")?, float("beyond_ci_high")?);
    let q = float("q_value")?;
    // What is done on top of the gate has an interval, and no test.
    let excludes_0 = |(low, high): (f64, f64)| low > 0.0 || high < 0.0;
    let estimate = |value: Option<f64>, interval: Option<(f64, f64)>, marked: Option<bool>| {
        Some(Estimate { value: value?, interval, marked })
    };
    let on_top = |i: usize| beyond_low[i].zip(beyond_high[i]);
    let row = |i: usize| ForestRow {
        label: if names[i] == ALL { "all amplifiers".to_string() } else { names[i].to_string() },
        estimates: vec![
            estimate(effects[i], low[i].zip(high[i]), q[i].map(|q| q < SIGNIFICANT)),
            estimate(beyond[i], on_top(i), on_top(i).map(excludes_0)),
        ],
    };
    // More than fit into a figure are in the table.
    let rows: Vec<ForestRow> = (0..knockouts.rows()).filter(|i| !with_gate[*i]).map(row).take(MOST_KNOCKOUTS).collect();
    Ok((!rows.is_empty()).then(|| {
        Figure::from(Forest {
            title: format!("Amplifiers with and without {gate}"),
            subtitle: subtitle.to_string(),
            value_label: "effect on the logit difference (nats)".to_string(),
            series: vec!["knocked out alone".to_string(), format!("on top of {gate}")],
            rows,
            mark_meaning: Some(format!("q < {SIGNIFICANT}; on top of {gate}: the interval excludes 0")),
            interval_meaning: Some(INTERVAL.to_string()),
            missing_meaning: None,
        })
    }))
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let components = table(tables, "components")?;
    let (rows, repair) = (rows(components)?, Repair::of(tables)?);
    let gate = repair.gate;
    let listing = Listing::of(components)
        .strongest("drop_mean")
        .first(LISTED)
        .column("layer", Show::Count("layer"))
        .column("component", Show::Text("component"))
        .column("clean (nats)", Show::Signed("clean_mean", 3))
        .column(format!("{gate} out (nats)"), Show::Signed("knocked_mean", 3))
        .column("loss (nats)", Show::Signed("drop_mean", 3))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 3))
        .column("of its own", Show::Share("drop_share"))
        .column("of the effect", Show::Share("share_of_effect"))
        .column("q", Show::PValue("q_value"))
        .column("family-wise p", Show::PValue("p_max"))
        .column("amplifier", Show::Flag("amplifier"));
    let alt =
        format!("Layer-by-head heatmap of the attribution that each later head loses when {gate} is knocked out.");
    let main = Section::new(format!("What {gate} works through"))
        .paragraph(finding(&rows, &repair, table(tables, "knockouts")?)?)
        .figure(dir.join("drops.png"), drops_caption(&rows, gate), alt)
        .figure(
            dir.join("forest.png"),
            "The largest changes with their intervals; above 0 attribution is lost, below it is gained.",
            "Forest plot of the largest changes of attribution with 95 % intervals.",
        )
        .block(Block::Table(listing.block("The largest changes of attribution")?));
    let mut sections = vec![main];
    let (shown, moved) = apart(table(tables, "knockouts")?, repair.subtitle()?)?;
    sections.extend(shown.section(&moved, dir, true));
    sections.extend(knockouts_section(table(tables, "knockouts")?, &repair, dir)?);
    sections.push(Section::new("Self-repair").paragraph(repair_text(&rows, &repair)?));
    Ok(sections)
}

/// The effect, and its amplifiers.
fn finding(rows: &[Row], repair: &Repair, knockouts: &Table) -> Result<String, AnalysisError> {
    // The gate's own knockout is the first.
    let moved = halves::read(knockouts, "effect")?.first().map_or(String::new(), |of| of.sentence("The knockout"));
    let amplifiers: Vec<&Row> = rows.iter().filter(|r| r.amplifier).collect();
    let named = |r: &&Row| format!("**{}** ({})", r.label(), share(r.share_of_effect));
    let names: Vec<String> = amplifiers.iter().take(NAMED).map(named).collect();
    let rest = match amplifiers.len() > names.len() {
        true => format!(" and {} more", amplifiers.len() - names.len()),
        false => String::new(),
    };
    let found = match amplifiers.len() {
        0 => {
            let tested = rows.iter().filter(|r| r.q.is_some()).count();
            let power = Power { items: repair.n, item: "pair", tests: tested };
            // Without power it is not known what it works through.
            let power = if rows.iter().any(Row::significant) { String::new() } else { power.sentence() };
            let through = match power.is_empty() {
                true => format!(": {} works through MLPs, or directly", repair.gate),
                false => String::new(),
            };
            format!("No later head loses attribution of the effect's sign beyond chance{through}.{power}")
        }
        1 => format!(
            "One later head loses attribution in the direction of the effect (q < {SIGNIFICANT}): {} of the effect).",
            names[0].trim_end_matches(')')
        ),
        n => format!(
            "{n} later heads lose attribution in the direction of the effect (q < {SIGNIFICANT}): {}{rest}, each with its share \
             of the effect.",
            names.join(", ")
        ),
    };
    Ok(format!(
        "Over {}, knocking out **{}** ({}) moves the positive prompts' logit difference from {} to {} nats (negative \
         prompts: {}).{moved} {found} All later heads together, those that work against it too, carry {}.",
        plural(repair.n, "pair"),
        repair.gate,
        repair.mode,
        signed(repair.mean("positive")?, 3),
        signed(repair.mean("knocked")?, 3),
        signed(repair.mean("negative")?, 3),
        repair.later_heads()?,
    ))
}

/// The amplifiers knocked out too; none where there are none.
fn knockouts_section(knockouts: &Table, repair: &Repair, dir: &Path) -> Result<Option<Section>, AnalysisError> {
    let (names, with_gate) = (knockouts.strs("heads")?, knockouts.flags("with_gate")?);
    let (alone, beyond) = (knockouts.floats("alone")?, knockouts.floats("beyond_gate")?);
    // Without a row of all of them there is one alone.
    let singles: Vec<usize> = (0..knockouts.rows()).filter(|i| !with_gate[*i]).collect();
    let Some(last) = singles.last().copied() else { return Ok(None) };
    let gate = repair.gate;
    let who = if names[last] == ALL { "all of them" } else { names[last] };
    let (low, high) = (knockouts.floats("beyond_ci_low")?, knockouts.floats("beyond_ci_high")?);
    let ends = low[last].zip(high[last]);
    let text = format!(
        "A head that only passes the signal of {gate} on does little once {gate} is out; what it still does there it carries from \
         elsewhere. Knocking out {who} moves the logit difference by {} nats without {gate}'s knockout, and by {} nats on top \
         of it (95 % interval {}).{}",
        signed(alone[last], 3),
        signed(beyond[last], 3),
        interval(ends),
        passed_on(alone[last], ends),
    );
    let block = Listing::of(knockouts)
        .column("knocked out", Show::Text("heads"))
        .column("metric (nats)", Show::Signed("metric_mean", 3))
        .column("effect (nats)", Show::Signed("effect_mean", 3))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 3))
        .column("q", Show::PValue("q_value"))
        .column(format!("beyond {gate} (nats)"), Show::Signed("beyond_gate", 3))
        .column("95 % interval", Show::Interval("beyond_ci_low", "beyond_ci_high", 3))
        .block(&format!("Knockouts of {gate}, of amplifiers, and of both"))?;
    let alt = format!("Forest plot of the effects of knocking out amplifiers, alone and on top of {gate}.");
    let caption = format!("Each amplifier's effect by itself, and on top of the knockout of {gate}.");
    Ok(Some(
        Section::new("Amplifiers knocked out as well")
            .paragraph(text)
            .figure(dir.join("knockouts.png"), caption, alt)
            .block(Block::Table(block)),
    ))
}

/// Whether amplifiers pass the gate's signal on, by what they do alone and the interval of what they do on top of it.
fn passed_on(alone: Option<f64>, on_top: Option<(f64, f64)>) -> String {
    let Some((alone, (low, high))) = alone.zip(on_top) else { return String::new() };
    match (low <= alone && alone <= high, low <= 0.0 && high >= 0.0) {
        (true, false) => {
            " That interval holds what they do alone: it cannot be told that they pass the signal on.".to_string()
        }
        (true, true) => " That interval holds both 0 and what they do alone: neither can be told.".to_string(),
        (false, true) => " That interval holds 0, and not what they do alone: they pass the signal on.".to_string(),
        (false, false) => String::new(),
    }
}

/// Direct against total effect, and who works against it.
fn repair_text(rows: &[Row], repair: &Repair) -> Result<String, AnalysisError> {
    let (direct, total) = (repair.mean("direct")?, repair.mean("total")?);
    let verdict = verdict(repair.gate, direct.unwrap_or(0.0), total.unwrap_or(0.0));
    let against: Vec<&Row> =
        rows.iter().filter(|r| r.significant() && !r.is_gate && r.share_of_effect.is_some_and(|s| s < 0.0)).collect();
    let sum: f64 = against.iter().filter_map(|r| r.drop).sum();
    let against = match against.first() {
        None => "No later component works against the knockout beyond chance.".to_string(),
        Some(first) => format!(
            "{} {} against the knockout (q < {SIGNIFICANT}), by {} nats{}; what the final norm's new scale does to heads that did \
             not change is in it.",
            plural(against.len() as i64, "later component"),
            if against.len() == 1 { "works" } else { "work" },
            signed(-sum, 3),
            match against.len() {
                1 => format!(": {}", first.label()),
                _ => format!(" together, {} most", first.label()),
            }
        ),
    };
    Ok(format!(
        "The total effect of {} is {}; its direct effect, the change of its own attribution, is {}. {verdict} Between the two \
         stand later heads with {}, later MLPs with {}, and the final norm and the rest with {}. {against}",
        repair.gate,
        repair.with_interval("total")?,
        repair.with_interval("direct")?,
        repair.with_interval("later_heads")?,
        repair.with_interval("later_mlps")?,
        repair.with_interval("rest")?,
    ))
}

/// How much of an effect is direct.
fn verdict(gate: &str, direct: f64, total: f64) -> String {
    if total == 0.0 {
        return "In the end nothing changes.".to_string();
    }
    match direct / total {
        of if of > 1.0 => format!("Later components repair {} of the direct effect.", share(1.0 - total / direct)),
        of if of >= 0.5 => format!("The effect is mostly direct: {} of it.", share(of)),
        of if of >= 0.0 => format!("{gate} works through later components: {} of its effect is direct.", share(of)),
        _ => format!(
            "The direct effect is of the other sign: {gate} works through later components, and against itself."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(layer: i64, q: Option<f64>, amplifier: bool) -> Row<'static> {
        Row {
            layer,
            component: "head.0",
            n_layers: 4,
            drop: Some(0.5),
            interval: None,
            share_of_effect: Some(0.001),
            q,
            amplifier,
            is_gate: layer == 1,
        }
    }

    #[test]
    fn the_map_shows_later_heads_alone_and_a_dot_on_what_the_text_calls_amplifiers() {
        let mut rows =
            vec![row(0, None, false), row(1, None, false), row(2, Some(0.2), false), row(3, Some(0.01), true)];
        let Figure::Heatmap(map) = drops_map(&rows, "L1.H0", "") else { panic!("no heatmap") };
        assert_eq!(map.values, [[None], [None], [Some(0.5)], [Some(0.5)]]);
        assert_eq!(map.marks, [[false], [false], [false], [true]]);
        assert!(drops_caption(&rows, "L1.H0").contains("Dots mark amplifiers"));
        rows.pop();
        let Figure::Heatmap(map) = drops_map(&rows, "L1.H0", "") else { panic!("no heatmap") };
        assert!(map.mark_meaning.is_none() && !drops_caption(&rows, "L1.H0").contains("Dots"));
    }

    #[test]
    fn amplifiers_are_said_to_pass_the_signal_on_only_where_the_interval_says_so() {
        let said = |ends| passed_on(Some(-0.020), Some(ends));
        assert!(said((-0.03, -0.01)).contains("cannot be told that they pass the signal on"));
        assert!(said((-0.03, 0.01)).contains("neither can be told"));
        assert!(said((-0.01, 0.01)).ends_with("they pass the signal on."));
        assert_eq!((said((-0.015, -0.01)), passed_on(None, Some((0.0, 1.0)))), (String::new(), String::new()));
    }

    #[test]
    fn what_is_said_of_an_effect_goes_by_how_much_of_it_is_direct() {
        let said = |direct, total| verdict("L1.H2", direct, total);
        assert!(said(-3.0, -2.0).starts_with("Later components repair 33.3"));
        assert!(said(2.0, 2.0).starts_with("The effect is mostly direct: 100.0"));
        assert!(said(1.0, 2.0).starts_with("The effect is mostly direct: 50.0"));
        assert!(said(0.9, 2.0).starts_with("L1.H2 works through later components: 45.0"));
        assert!(said(-0.6, 2.0).starts_with("The direct effect is of the other sign"));
        assert_eq!(said(0.3, 0.0), "In the end nothing changes.");
    }
}
