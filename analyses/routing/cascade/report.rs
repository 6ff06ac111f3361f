//! The knockout cascade's figures and words, from its tables alone.

use super::{DropRow, KnockoutRow, OverPairs, RepairRow};
use crate::analyses::components::{OfComponent, label_of, n_layers};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Order, Shown, Way};
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::figure::{Estimate, Forest, ForestRow, Heatmap};
use crate::names::short_name;
use crate::report::cells::{plural, share, share_interval, signed};
use crate::stats::beyond_zero;

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

/// A component as the table has it, with what it is called.
struct Component<'a> {
    row: DropRow<'a>,
    label: String,
}

impl Component<'_> {
    fn head(&self) -> Option<usize> {
        self.row.component.component.strip_prefix("head.")?.parse().ok()
    }

    /// Whether it can change at all, and was tested: a later component's.
    fn is_later(&self) -> bool {
        self.row.q_value.is_some() && !self.row.is_gate
    }

    fn significant(&self) -> bool {
        self.row.q_value.is_some_and(|q| q < SIGNIFICANT)
    }
}

/// The components, the one that loses or gains most first.
fn rows(components: &Table) -> Result<Vec<Component<'_>>, AnalysisError> {
    let mut rows = DropRow::read(components)?;
    let n_layers = n_layers(rows.iter().map(|r| r.component));
    let size = |r: &DropRow| r.drop_mean.map_or(0.0, f64::abs);
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let label = |row: &DropRow| label_of(row.component.layer, row.component.component, n_layers);
    Ok(rows.into_iter().map(|row| Component { label: label(&row), row }).collect())
}

/// The one row of the table of repair.
fn repair(tables: &[Table]) -> Result<RepairRow<'_>, AnalysisError> {
    Ok(RepairRow::read(table(tables, RepairRow::TABLE)?)?.into_iter().next().unwrap_or_default())
}

impl RepairRow<'_> {
    /// `3.1 % of the effect, 95 % interval [−1.5, 10.7] %`: what all later heads carry, amplifiers or not.
    fn carried(&self) -> String {
        let ends = share_interval(self.later_heads_share_interval);
        format!("{} of the effect, 95 % interval {ends}", share(self.later_heads_share))
    }

    fn subtitle(&self) -> String {
        let model = short_name(self.model);
        format!("{model}, {}, {} out by {}, last position", plural(self.n, "pair"), self.gate, self.mode)
    }
}

impl OverPairs {
    /// `−12.3 [−12.5, −12.1] nats`
    fn words(&self) -> String {
        format!("{} {} nats", signed(self.mean, 3), interval(self.interval))
    }
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let (rows, repair) = (rows(table(tables, DropRow::TABLE)?)?, repair(tables)?);
    let subtitle = repair.subtitle();
    let mut figures = vec![
        ("drops.png".to_string(), drops_map(&rows, &repair.gate, &subtitle)),
        ("forest.png".to_string(), drops_forest(&rows, &subtitle)),
    ];
    let knockouts = KnockoutRow::read(table(tables, KnockoutRow::TABLE)?)?;
    let forest = knockouts_forest(&knockouts, &repair.gate, &subtitle);
    figures.extend(forest.map(|f| ("knockouts.png".to_string(), f)));
    let shown = [apart(&knockouts, subtitle.clone()), lost_apart(&rows, &repair.gate, subtitle)];
    figures
        .extend(shown.into_iter().filter_map(|(shown, rows)| shown.figure(&rows).map(|figure| (shown.file, figure))));
    Ok(figures)
}

/// The halves of the largest changes of attribution.
fn lost_apart(rows: &[Component], gate: &str, subtitle: String) -> (Shown<'static>, Vec<Moved>) {
    let moved = |r: &Component| Moved { label: r.label.clone(), whole: r.row.drop_mean, halves: r.row.halves };
    let shown = Shown {
        file: "halves-drops.png".to_string(),
        title: format!("What is lost when {gate} is out: answer and foil apart"),
        subtitle,
        what: "loss",
        subject: "with it in place, the component",
        way: Way::Comparison,
        order: Order::Largest,
    };
    (shown, rows.iter().take(LISTED).map(moved).collect())
}

/// The halves of the knockouts' effects: the gate's, then each set of amplifiers alone.
fn apart(knockouts: &[KnockoutRow], subtitle: String) -> (Shown<'static>, Vec<Moved>) {
    let rows = knockouts.iter().enumerate().filter(|(i, of)| *i == 0 || !of.with_gate).take(MOST_KNOCKOUTS);
    let rows = rows.map(|(_, of)| Moved { label: of.label(), whole: of.effect_mean, halves: of.halves });
    let shown = Shown {
        title: "Knockouts: answer and foil apart".to_string(),
        subtitle,
        subject: "the knockout",
        order: Order::Own("knocked out"),
        ..Shown::default()
    };
    (shown, rows.collect())
}

impl KnockoutRow<'_> {
    fn label(&self) -> String {
        if self.heads == ALL { "all amplifiers".to_string() } else { self.heads.to_string() }
    }
}

/// What every later head loses, layer by head, with a dot on amplifiers. Layers that the gate cannot reach would be a blank half.
fn drops_map(rows: &[Component], gate: &str, subtitle: &str) -> Figure {
    let drop = |r: &Component| r.row.drop_mean.filter(|_| r.is_later());
    let head =
        |r: &Component| Some((usize::try_from(r.row.component.layer).ok()?, r.head()?, drop(r), r.row.amplifier));
    let (values, marks) = Heatmap::of_heads(rows.iter().filter_map(head));
    let first_row = values.iter().position(|layer| layer.iter().any(Option::is_some)).unwrap_or(0);
    Figure::from(Heatmap {
        title: format!("Change of later heads' attributions when {gate} is out"),
        subtitle: subtitle.to_string(),
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: LOSS.to_string(),
        mark_meaning: (!marks.is_empty()).then(amplifiers),
        values: values[first_row..].to_vec(),
        marks: marks.get(first_row..).unwrap_or_default().to_vec(),
        first_row,
        missing_meaning: Some(format!("not after {gate}")),
        ..Heatmap::default()
    })
}

/// What a dot on a head says.
fn amplifiers() -> String {
    format!("amplifiers (q < {SIGNIFICANT}, in the direction of the effect)")
}

/// What is under the map of drops.
fn drops_caption(rows: &[Component], gate: &str) -> String {
    let dots = match rows.iter().any(|r| r.row.amplifier) {
        true => format!(" Dots mark {}.", amplifiers()),
        false => String::new(),
    };
    format!(
        "What each head after {gate} loses of its attribution, on average; all components are in components.parquet.{dots}"
    )
}

/// The components that lose or gain most.
fn drops_forest(rows: &[Component], subtitle: &str) -> Figure {
    let row = |r: &Component| {
        let marked = r.row.q_value.map(|_| r.significant());
        let estimate = |value| Estimate { value, interval: r.row.interval, marked };
        ForestRow { label: r.label.clone(), estimates: vec![r.row.drop_mean.map(estimate)] }
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
fn knockouts_forest(knockouts: &[KnockoutRow], gate: &str, subtitle: &str) -> Option<Figure> {
    // What is done on top of the gate has an interval, and no test.
    let estimate = |value: Option<f64>, interval: Option<(f64, f64)>, marked: Option<bool>| {
        Some(Estimate { value: value?, interval, marked })
    };
    let row = |of: &KnockoutRow| ForestRow {
        label: of.label(),
        estimates: vec![
            estimate(of.effect_mean, of.interval, of.q_value.map(|q| q < SIGNIFICANT)),
            estimate(of.beyond_gate, of.beyond, of.beyond.map(|ends| beyond_zero(Some(ends), 0.0).is_some())),
        ],
    };
    // More than fit into a figure are in the table.
    let rows: Vec<ForestRow> = knockouts.iter().filter(|of| !of.with_gate).map(row).take(MOST_KNOCKOUTS).collect();
    (!rows.is_empty()).then(|| {
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
    })
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (components, knockouts) = (table(tables, DropRow::TABLE)?, table(tables, KnockoutRow::TABLE)?);
    let (rows, repair) = (rows(components)?, repair(tables)?);
    let of_knockouts = KnockoutRow::read(knockouts)?;
    let gate = &repair.gate;
    let listing = Listing::of(components)
        .strongest(DropRow::drop_mean.name)
        .first(LISTED)
        .column("layer", Show::Count(OfComponent::layer.name))
        .column("component", Show::Text(OfComponent::component.name))
        .column("clean (nats)", Show::Signed(DropRow::clean_mean.name, 3))
        .column(format!("{gate} out (nats)"), Show::Signed(DropRow::knocked_mean.name, 3))
        .column("loss (nats)", Show::Signed(DropRow::drop_mean.name, 3))
        .column("95 % interval", Show::Interval(DropRow::interval.name, 3))
        .column("of its own", Show::Share(DropRow::drop_share.name))
        .column("of the effect", Show::Share(DropRow::share_of_effect.name))
        .column("q", Show::PValue(DropRow::q_value.name))
        .column("family-wise p", Show::PValue(DropRow::p_max.name))
        .column("amplifier", Show::Flag(DropRow::amplifier.name));
    let alt =
        format!("Layer-by-head heatmap of the attribution that each later head loses when {gate} is knocked out.");
    let main = Section::new(format!("What {gate} works through"))
        .paragraph(finding(&rows, &repair, &of_knockouts))
        .figure(dir.join("drops.png"), drops_caption(&rows, gate), alt)
        .figure(
            dir.join("forest.png"),
            "The largest changes with their intervals; above 0 attribution is lost, below it is gained.",
            "Forest plot of the largest changes of attribution with 95 % intervals.",
        )
        .block(Block::Table(listing.block("The largest changes of attribution")?));
    let mut sections = vec![main];
    let (shown, moved) = apart(&of_knockouts, repair.subtitle());
    sections.extend(shown.section(&moved, dir, true));
    let (shown, moved) = lost_apart(&rows, gate, repair.subtitle());
    sections.extend(shown.section(&moved, dir, false));
    sections.extend(knockouts_section(knockouts, &of_knockouts, &repair, dir)?);
    sections.push(Section::new("Self-repair").paragraph(repair_text(&rows, &repair)));
    Ok(sections)
}

/// The effect, and its amplifiers.
fn finding(rows: &[Component], repair: &RepairRow, knockouts: &[KnockoutRow]) -> String {
    // The gate's own knockout is the first.
    let moved = knockouts.first().map_or(String::new(), |of| of.halves.sentence("The knockout"));
    let amplifiers: Vec<&Component> = rows.iter().filter(|r| r.row.amplifier).collect();
    let named = |r: &&Component| format!("**{}** ({})", r.label, share(r.row.share_of_effect));
    let names: Vec<String> = amplifiers.iter().take(NAMED).map(named).collect();
    let rest = match amplifiers.len() > names.len() {
        true => format!(" and {} more", amplifiers.len() - names.len()),
        false => String::new(),
    };
    let found = match amplifiers.len() {
        0 => {
            let tested = rows.iter().filter(|r| r.row.q_value.is_some()).count();
            let power = Power { items: repair.n, item: "pair", tests: tested };
            // Without power it is not known what it works through.
            let power = if rows.iter().any(Component::significant) { String::new() } else { power.sentence() };
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
    format!(
        "Over {}, knocking out **{}** ({}) moves the positive prompts' logit difference from {} to {} nats (negative \
         prompts: {}).{moved} {found} All later heads together, those that work against it too, carry {}.",
        plural(repair.n, "pair"),
        repair.gate,
        repair.mode,
        signed(repair.positive_mean, 3),
        signed(repair.knocked_mean, 3),
        signed(repair.negative_mean, 3),
        repair.carried(),
    )
}

/// The amplifiers knocked out too; none where there are none.
fn knockouts_section(
    table: &Table,
    knockouts: &[KnockoutRow],
    repair: &RepairRow,
    dir: &Path,
) -> Result<Option<Section>, AnalysisError> {
    // Without a row of all of them there is one alone.
    let Some(last) = knockouts.iter().rfind(|of| !of.with_gate) else { return Ok(None) };
    let gate = &repair.gate;
    let who = if last.heads == ALL { "all of them" } else { last.heads };
    let text = format!(
        "A head that only passes the signal of {gate} on does little once {gate} is out; what it still does there it carries from \
         elsewhere. Knocking out {who} moves the logit difference by {} nats without {gate}'s knockout, and by {} nats on top \
         of it (95 % interval {}).{}",
        signed(last.alone, 3),
        signed(last.beyond_gate, 3),
        interval(last.beyond),
        passed_on(last.alone, last.beyond),
    );
    let block = Listing::of(table)
        .column("knocked out", Show::Text(KnockoutRow::heads.name))
        .column("metric (nats)", Show::Signed(KnockoutRow::metric_mean.name, 3))
        .column("effect (nats)", Show::Signed(KnockoutRow::effect_mean.name, 3))
        .column("95 % interval", Show::Interval(KnockoutRow::interval.name, 3))
        .column("q", Show::PValue(KnockoutRow::q_value.name))
        .column(format!("beyond {gate} (nats)"), Show::Signed(KnockoutRow::beyond_gate.name, 3))
        .column("95 % interval", Show::Interval(KnockoutRow::beyond.name, 3))
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
fn repair_text(rows: &[Component], repair: &RepairRow) -> String {
    let (direct, total) = (repair.direct.mean, repair.total.mean);
    let verdict = verdict(&repair.gate, direct.unwrap_or(0.0), total.unwrap_or(0.0));
    let against: Vec<&Component> = rows
        .iter()
        .filter(|r| r.significant() && !r.row.is_gate && r.row.share_of_effect.is_some_and(|s| s < 0.0))
        .collect();
    let directly = repair.direct_halves.sentence("Directly, the knockout");
    let sum: f64 = against.iter().filter_map(|r| r.row.drop_mean).sum();
    let against = match against.first() {
        None => "No later component works against the knockout beyond chance.".to_string(),
        Some(first) => format!(
            "{} {} against the knockout (q < {SIGNIFICANT}), by {} nats{}; what the final norm's new scale does to heads that did \
             not change is in it.",
            plural(against.len() as i64, "later component"),
            if against.len() == 1 { "works" } else { "work" },
            signed(-sum, 3),
            match against.len() {
                1 => format!(": {}", first.label),
                _ => format!(" together, {} most", first.label),
            }
        ),
    };
    format!(
        "The total effect of {} is {}; its direct effect, the change of its own attribution, is {}.{directly} {verdict} Between the \
         two stand later heads with {}, later MLPs with {}, and the final norm and the rest with {}. {against}",
        repair.gate,
        repair.total.words(),
        repair.direct.words(),
        repair.later_heads.words(),
        repair.later_mlps.words(),
        repair.rest.words(),
    )
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

    fn row(layer: i64, q_value: Option<f64>, amplifier: bool) -> Component<'static> {
        let component = OfComponent { layer, component: "head.0" };
        let row = DropRow {
            component,
            drop_mean: Some(0.5),
            share_of_effect: Some(0.001),
            q_value,
            amplifier,
            is_gate: layer == 1,
            ..DropRow::default()
        };
        Component { row, label: label_of(layer, component.component, 4) }
    }

    #[test]
    fn the_map_shows_later_heads_alone_and_a_dot_on_what_the_text_calls_amplifiers() {
        let mut rows =
            vec![row(0, None, false), row(1, None, false), row(2, Some(0.2), false), row(3, Some(0.01), true)];
        let Figure::Heatmap(map) = drops_map(&rows, "L1.H0", "") else { panic!("no heatmap") };
        assert_eq!(
            (map.values, map.first_row),
            (vec![vec![Some(0.5)], vec![Some(0.5)]], 2),
            "from the first layer after it"
        );
        assert_eq!(map.marks, [[false], [true]]);
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
