//! The knockout cascade's figures and words, from its tables alone.

use super::{DropRow, KnockoutRow, OverPairs, RepairRow};
use crate::analyses::components::{OfComponent, label_of, n_layers};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Shown, moved};
use crate::analyses::marks::MarkArgs;
use crate::analyses::power::Power;
use crate::analyses::{AnalysisError, Figures, table};
use crate::figure::{Estimate, Figure, Forest, ForestRow, Heatmap};
use crate::names::short_name;
use crate::report::cells::{plural, share, share_interval, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::table::Table;
use crate::table::rows::Row as _;
use std::path::Path;

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
    let knockouts = knockouts_forest(table(tables, KnockoutRow::TABLE)?, &repair.gate, &subtitle)?;
    figures.extend(knockouts.map(|f| ("knockouts.png".to_string(), f)));
    let (shown, rows) = apart(table(tables, KnockoutRow::TABLE)?, subtitle)?;
    figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    Ok(figures)
}

/// The halves of the knockouts' effects: the gate's, then each set of amplifiers alone.
fn apart(knockouts: &Table, subtitle: String) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let (names, with_gate) = (knockouts.column(KnockoutRow::heads)?, knockouts.column(KnockoutRow::with_gate)?);
    let rows = (0..knockouts.rows()).filter(|i| *i == 0 || !with_gate[*i]).take(MOST_KNOCKOUTS);
    let rows = rows.map(|i| (i, names[i].to_string()));
    let shown = Shown { subtitle, what: "effect", subject: "the knockout", strongest: false, ..Shown::default() };
    Ok((shown, moved(knockouts.column(KnockoutRow::halves)?, knockouts.column(KnockoutRow::effect_mean)?, rows)))
}

/// What every head loses, layer by head, with a dot on amplifiers of some size.
fn drops_map(rows: &[Component], gate: &str, subtitle: &str) -> Figure {
    let marked = |r: &Component| r.row.amplifier && MarkArgs::default().holds(r.row.p_max, r.row.share_of_effect);
    let head =
        |r: &Component| Some((usize::try_from(r.row.component.layer).ok()?, r.head()?, r.row.drop_mean, marked(r)));
    let (values, marks) = Heatmap::of_heads(rows.iter().filter_map(head));
    Figure::from(Heatmap {
        title: format!("Attribution that heads lose without {gate}"),
        subtitle: subtitle.to_string(),
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: "drop of the attribution (nats)".to_string(),
        values,
        mark_meaning: (!marks.is_empty()).then(dots),
        marks,
    })
}

/// What a dot on a head says.
fn dots() -> String {
    format!("amplifier, {}", MarkArgs::default().rule(true, "effect"))
}

/// The components that lose or gain most.
fn drops_forest(rows: &[Component], subtitle: &str) -> Figure {
    let row = |r: &Component| {
        let estimate = |value| Estimate { value, interval: r.row.interval, marked: r.significant() };
        ForestRow { label: r.label.clone(), estimates: vec![r.row.drop_mean.map(estimate)] }
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
fn knockouts_forest(knockouts: &Table, gate: &str, subtitle: &str) -> Result<Option<Figure>, AnalysisError> {
    let (names, with_gate) = (knockouts.column(KnockoutRow::heads)?, knockouts.column(KnockoutRow::with_gate)?);
    let (effects, ends) = (knockouts.column(KnockoutRow::effect_mean)?, knockouts.column(KnockoutRow::interval)?);
    let (beyond, beyond_ends) = (knockouts.column(KnockoutRow::beyond_gate)?, knockouts.column(KnockoutRow::beyond)?);
    let estimate = |value: Option<f64>, interval| Some(Estimate { value: value?, interval, marked: false });
    let row = |i: usize| ForestRow {
        label: names[i].to_string(),
        estimates: vec![estimate(effects[i], ends[i]), estimate(beyond[i], beyond_ends[i])],
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
            mark_meaning: None,
            interval_meaning: Some(INTERVAL.to_string()),
        })
    }))
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let components = table(tables, DropRow::TABLE)?;
    let (rows, repair) = (rows(components)?, repair(tables)?);
    let gate = &repair.gate;
    let listing = Listing::of(components)
        .strongest(DropRow::drop_mean.name)
        .first(LISTED)
        .column("layer", Show::Count(OfComponent::layer.name))
        .column("component", Show::Text(OfComponent::component.name))
        .column("clean (nats)", Show::Signed(DropRow::clean_mean.name, 3))
        .column(format!("{gate} out (nats)"), Show::Signed(DropRow::knocked_mean.name, 3))
        .column("drop (nats)", Show::Signed(DropRow::drop_mean.name, 3))
        .column("95 % interval", Show::Interval(DropRow::interval.name, 3))
        .column("of its own", Show::Share(DropRow::drop_share.name))
        .column("of the effect", Show::Share(DropRow::share_of_effect.name))
        .column("q", Show::PValue(DropRow::q_value.name))
        .column("amplifier", Show::Flag(DropRow::amplifier.name));
    let alt = format!("Layer-by-head heatmap of the attribution that each head loses when {gate} is knocked out.");
    let caption =
        format!("Mean drop of each head's attribution; all components are in components.parquet. A dot: {}.", dots());
    let main = Section::new(format!("What {gate} works through"))
        .paragraph(finding(&rows, &repair, table(tables, KnockoutRow::TABLE)?)?)
        .figure(dir.join("drops.png"), caption, alt)
        .figure(
            dir.join("forest.png"),
            "The largest changes with their intervals.",
            "Forest plot of the largest drops of attribution with 95 % intervals.",
        )
        .block(Block::Table(listing.block("The largest changes of attribution")?));
    let mut sections = vec![main];
    let (shown, moved) = apart(table(tables, KnockoutRow::TABLE)?, repair.subtitle())?;
    sections.extend(shown.section(&moved, dir, true));
    sections.extend(knockouts_section(table(tables, KnockoutRow::TABLE)?, &repair, dir)?);
    sections.push(Section::new("Self-repair").paragraph(repair_text(&rows, &repair)?));
    Ok(sections)
}

/// The effect, and its amplifiers.
fn finding(rows: &[Component], repair: &RepairRow, knockouts: &Table) -> Result<String, AnalysisError> {
    // The gate's own knockout is the first.
    let moved = knockouts.column(KnockoutRow::halves)?.first().map_or(String::new(), |of| of.sentence("The knockout"));
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
        1 => format!("One later head amplifies it: {} of the effect).", names[0].trim_end_matches(')')),
        n => format!("{n} later heads amplify it: {}{rest}, each with its share of the effect.", names.join(", ")),
    };
    Ok(format!(
        "Over {}, knocking out **{}** ({}) moves the positive prompts' logit difference from {} to {} nats (negative \
         prompts: {}).{moved} {found} All later heads together, those that work against it too, carry {}.",
        plural(repair.n, "pair"),
        repair.gate,
        repair.mode,
        signed(repair.positive_mean, 3),
        signed(repair.knocked_mean, 3),
        signed(repair.negative_mean, 3),
        repair.carried(),
    ))
}

/// The amplifiers knocked out too; none where there are none.
fn knockouts_section(knockouts: &Table, repair: &RepairRow, dir: &Path) -> Result<Option<Section>, AnalysisError> {
    let (names, with_gate) = (knockouts.column(KnockoutRow::heads)?, knockouts.column(KnockoutRow::with_gate)?);
    let (alone, beyond) = (knockouts.column(KnockoutRow::alone)?, knockouts.column(KnockoutRow::beyond_gate)?);
    // Without a row of all of them there is one alone.
    let singles: Vec<usize> = (0..knockouts.rows()).filter(|i| !with_gate[*i]).collect();
    let Some(last) = singles.last().copied() else { return Ok(None) };
    let who = if names[last] == "amplifiers" { "All of them" } else { names[last] };
    let gate = &repair.gate;
    let text = format!(
        "{who} knocked out alone: {} nats; on top of {gate}: {} nats. A head that only passes the signal of {gate} on does \
         little once {gate} is out; what one still does there it carries from elsewhere.",
        signed(alone[last], 3),
        signed(beyond[last], 3),
    );
    let block = Listing::of(knockouts)
        .column("knocked out", Show::Text(KnockoutRow::heads.name))
        .column("metric (nats)", Show::Signed(KnockoutRow::metric_mean.name, 3))
        .column("effect (nats)", Show::Signed(KnockoutRow::effect_mean.name, 3))
        .column("95 % interval", Show::Interval(KnockoutRow::interval.name, 3))
        .column("q", Show::PValue(KnockoutRow::q_value.name))
        .column(format!("beyond {gate} (nats)"), Show::Signed(KnockoutRow::beyond_gate.name, 3))
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

/// Direct against total effect, and who works against it.
fn repair_text(rows: &[Component], repair: &RepairRow) -> Result<String, AnalysisError> {
    let (direct, total) = (repair.direct.mean, repair.total.mean);
    let verdict = verdict(&repair.gate, direct.unwrap_or(0.0), total.unwrap_or(0.0));
    let against: Vec<&Component> = rows
        .iter()
        .filter(|r| r.significant() && !r.row.is_gate && r.row.share_of_effect.is_some_and(|s| s < 0.0))
        .collect();
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
    Ok(format!(
        "The total effect of {} is {}; its direct effect, the change of its own attribution, is {}. {verdict} Between the two \
         stand later heads with {}, later MLPs with {}, and the final norm and the rest with {}. {against}",
        repair.gate,
        repair.total.words(),
        repair.direct.words(),
        repair.later_heads.words(),
        repair.later_mlps.words(),
        repair.rest.words(),
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
