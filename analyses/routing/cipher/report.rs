//! What the tables of a cipher say: figures and text.

use super::tables::{CollapseRow, InjectionRow, NecessityRow};
use super::{CONDITIONS, FORMS};
use crate::analyses::answered::class_columns;
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Shown, moved};
use crate::analyses::power::Power;
use crate::analyses::{AnalysisError, Figures, table};
use crate::answers::Class;
use crate::figure::{BarSeries, Bars, Estimate};
use crate::names::short_name;
use crate::report::cells::{p_value, plural, share, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::table::Table;
use crate::table::rows::{Column, Row as _};
use std::path::Path;

/// How many groups and languages a report lists.
const LISTED: usize = 16;

fn first<T: Clone + Default>(values: &[T]) -> T {
    values.first().cloned().unwrap_or_default()
}

/// Model, pairs and gate, under figures' titles.
fn subtitle(necessity: &Table) -> Result<String, AnalysisError> {
    Ok(format!(
        "{}, {}, gate {}",
        short_name(first(&necessity.column(NecessityRow::model)?)),
        plural(first(&necessity.column(NecessityRow::n)?), "pair"),
        first(&necessity.column(NecessityRow::gate)?)
    ))
}

/// Whether answers were generated.
fn generated(injection: &Table) -> Result<bool, AnalysisError> {
    Ok(injection.column(InjectionRow::answers)?.iter().any(|n| *n > 0))
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let (necessity, injection) = (table(tables, NecessityRow::TABLE)?, table(tables, InjectionRow::TABLE)?);
    let subtitle = subtitle(necessity)?;
    let bars = |title: &str, value_label: &str, requests: Vec<&str>, series| -> Result<Bars, AnalysisError> {
        Ok(Bars {
            title: title.to_string(),
            subtitle: subtitle.clone(),
            category_label: "request".to_string(),
            value_label: value_label.to_string(),
            categories: requests.into_iter().map(str::to_string).collect(),
            series,
            range: None,
            reference: None,
            mark_meaning: None,
            interval_meaning: Some(INTERVAL.to_string()),
            band_meaning: None,
        })
    };
    let (effects, q) = (
        estimates(necessity.column(NecessityRow::effect_mean)?, necessity.column(NecessityRow::interval)?),
        necessity.column(NecessityRow::q_value)?,
    );
    let marked = |(e, q): (Option<Estimate>, Option<f64>)| e.map(|e| e.marked(q.is_some_and(|q| q < SIGNIFICANT)));
    let effects = effects.into_iter().zip(q).map(marked).collect();
    let nats = "effect on the logit difference (nats)";
    let needed = Bars {
        mark_meaning: Some(format!("q < {SIGNIFICANT}")),
        ..bars(
            "Necessity of the gate",
            nats,
            necessity.column(NecessityRow::condition)?,
            vec![series("effect", effects)],
        )?
    };
    let requests = injection.column(InjectionRow::condition)?;
    let injected = if generated(injection)? {
        Bars {
            range: Some((0.0, 1.0)),
            interval_meaning: Some("95 % Wilson interval".to_string()),
            ..bars("Injecting the gate", "share of answers", requests, classes(injection)?)?
        }
    } else {
        let metric = series(
            "metric",
            estimates(injection.column(InjectionRow::metric_mean)?, injection.column(InjectionRow::interval)?),
        );
        bars("Injecting the gate", "logit difference (nats)", requests, vec![metric])?
    };
    let (shown, rows) = apart(necessity, injection)?;
    let halves = shown.figure(&rows).map(|figure| (shown.file, figure));
    let figures = [("necessity.png".to_string(), needed.into()), ("injection.png".to_string(), injected.into())];
    Ok(figures.into_iter().chain(halves).collect())
}

/// The halves of the exchange's effect in each form, and of what is injected.
fn apart(necessity: &Table, injection: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let forms =
        necessity.column(NecessityRow::condition)?.into_iter().map(|form| format!("exchanged, {form}")).enumerate();
    let effects = necessity.column(NecessityRow::effect_mean)?;
    let mut rows = moved(necessity.column(NecessityRow::halves)?, effects, forms);
    // Tables of older builds have no effect of injection.
    if injection.holds(InjectionRow::effect_mean) {
        let conditions = injection.column(InjectionRow::condition)?.into_iter().map(str::to_string).enumerate().skip(2);
        let effects = injection.column(InjectionRow::effect_mean)?;
        rows.extend(moved(injection.column(InjectionRow::halves)?, effects, conditions));
    }
    let shown = Shown {
        subtitle: subtitle(necessity)?,
        what: "effect",
        subject: "the gate's exchange",
        strongest: false,
        ..Shown::default()
    };
    Ok((shown, rows))
}

fn series(name: &str, estimates: Vec<Option<Estimate>>) -> BarSeries {
    BarSeries { name: name.to_string(), estimates, bands: Vec::new() }
}

fn estimates(values: Vec<Option<f64>>, intervals: Vec<Option<(f64, f64)>>) -> Vec<Option<Estimate>> {
    let one = |(value, interval): (Option<f64>, _)| Some(Estimate { interval, ..Estimate::new(value?) });
    values.into_iter().zip(intervals).map(one).collect()
}

/// A series for each class of answers that there is; refusals with their interval.
fn classes(injection: &Table) -> Result<Vec<BarSeries>, AnalysisError> {
    let refusals = injection.floats(Class::Refusal.name())?.to_vec();
    let mut found = vec![series("refusal", estimates(refusals, injection.column(InjectionRow::refusal_interval)?))];
    for (class, column) in class_columns(injection).iter().filter(|(class, _)| class != Class::Refusal.name()) {
        let shares = injection.floats(column)?;
        if shares.iter().flatten().any(|s| *s > 0.0) {
            found.push(series(class, shares.iter().map(|s| s.map(Estimate::new)).collect()));
        }
    }
    Ok(found)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (shown, rows) = apart(table(tables, NecessityRow::TABLE)?, table(tables, InjectionRow::TABLE)?)?;
    let halves = shown.section(&rows, dir, true);
    let sections = [necessity_section(tables, dir)?, injection_section(tables, dir)?];
    Ok(sections.into_iter().chain(halves).collect())
}

fn necessity_section(tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
    let (necessity, collapse) = (table(tables, NecessityRow::TABLE)?, table(tables, CollapseRow::TABLE)?);
    let conditions = necessity.column(NecessityRow::condition)?;
    let effects = necessity.column(NecessityRow::effect_mean)?;
    let ends = necessity.column(NecessityRow::interval)?;
    let effect = |form: &str| {
        let i = conditions.iter().position(|c| *c == form)?;
        Some(format!("{} nats, {INTERVAL} {}", signed(effects[i], 3), interval(ends[i])))
    };
    let [plain, wrapped, cipher] = FORMS.map(effect);
    let wrapped = wrapped.map_or(String::new(), |wrapped| {
        format!(" In plain within the instructions and examples of the cipher prompt it does so by {wrapped}.")
    });
    let pairs = collapse.column(CollapseRow::n)?;
    let few = pairs.iter().skip(1).filter(|n| Power { items: **n, item: "pair", tests: 1 }.is_too_small()).count();
    let few = match few {
        0 => String::new(),
        n => format!(
            " In {n} of {} groups and languages the pairs are too few to tell an effect from 0.",
            pairs.len() - 1
        ),
    };
    let text = format!(
        "Over {} the gate ({}) of the negative request moves the positive's logit difference by {} in plain and by {} in \
         cipher.{wrapped} {}{few}{}",
        plural(first(&necessity.column(NecessityRow::n)?), "pair"),
        first(&necessity.column(NecessityRow::gate)?),
        plain.unwrap_or_default(),
        cipher.unwrap_or_default(),
        collapse_sentence(collapse)?,
        first(&necessity.column(NecessityRow::omitted)?).words(),
    );
    let rows = Listing::of(collapse)
        .first(LISTED)
        .column("by", Show::Text(CollapseRow::by.name))
        .column("value", Show::Text(CollapseRow::value.name))
        .column("n", Show::Count(CollapseRow::n.name))
        .column("plain (nats)", Show::Signed(CollapseRow::plain_effect.name, 3))
        .column("cipher (nats)", Show::Signed(CollapseRow::cipher_effect.name, 3))
        .column("collapse", Show::Share(CollapseRow::collapse.name))
        .column("95 % interval", Show::Interval(CollapseRow::interval.name, 3))
        .column("p of plain", Show::PValue(CollapseRow::plain_p.name))
        .column("wrapped (nats)", Show::Signed(CollapseRow::wrapped_effect.name, 3))
        .column("by the wrapper alone", Show::Share(CollapseRow::wrapped_collapse.name))
        .column("95 % interval", Show::Interval(CollapseRow::wrapped_interval.name, 3));
    let alt = "Bars of the effect of exchanging the gate, in plain and in cipher.";
    let caption = "Mean effect of giving the positive request the gate of the negative one.";
    Ok(Section::new("Is the gate needed in cipher?")
        .paragraph(text)
        .figure(dir.join("necessity.png"), caption, alt)
        .block(Block::Table(rows.block("Collapse; empty where the plain effect is not told from 0")?)))
}

fn collapse_sentence(collapse: &Table) -> Result<String, AnalysisError> {
    let value = |column: Column<Option<f64>>| Ok::<_, AnalysisError>(first(&collapse.column(column)?));
    let Some(found) = value(CollapseRow::collapse)? else {
        // The plain effect is tested by itself.
        let power =
            Power { items: collapse.column(CollapseRow::n)?.first().copied().unwrap_or(0), item: "pair", tests: 1 };
        return Ok(format!(
            "The effect in plain cannot be told from 0, so that nothing could collapse.{}",
            power.sentence()
        ));
    };
    let ends = |column: Column<Option<(f64, f64)>>| {
        let ends = first(&collapse.column(column)?);
        let words = |(low, high): (f64, f64)| format!(" (95 % interval {} to {})", share(low), share(high));
        Ok::<_, AnalysisError>(ends.map_or(String::new(), words))
    };
    let alone = match value(CollapseRow::wrapped_collapse)? {
        Some(alone) => format!(
            " The instructions around the request take away {} by themselves{}.",
            share(alone),
            ends(CollapseRow::wrapped_interval)?
        ),
        None => " How much of that the instructions around the request make by themselves is not known: the cipher is a file's."
            .to_string(),
    };
    Ok(format!("**{}** of the effect collapse in cipher{}.{alone}", share(found), ends(CollapseRow::interval)?))
}

fn injection_section(tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
    let injection = table(tables, InjectionRow::TABLE)?;
    let at = |column: Column<Option<f64>>, condition: &str| -> Result<Option<f64>, AnalysisError> {
        let row = CONDITIONS.iter().position(|c| *c == condition);
        Ok(row.and_then(|row| injection.column(column).ok()?.get(row).copied().flatten()))
    };
    let refusals = Column::new(Class::Refusal.name());
    let metric = |condition| Ok::<_, AnalysisError>(signed(at(InjectionRow::metric_mean, condition)?, 2));
    let mut text = format!(
        "The positive requests have a logit difference of {} nats in plain and {} in cipher; {} in cipher with the gate of the \
         plain positive run, and {} with that of the plain negative run (control).",
        metric("plain")?,
        metric("cipher")?,
        metric("injected")?,
        metric("control")?,
    );
    text += &match (at(InjectionRow::restored_metric, "injected")?, at(InjectionRow::restored_metric, "control")?) {
        (Some(own), control) => format!(
            " Of what the metric loses in cipher, injection restores **{}** and the control {}.",
            share(own),
            share(control)
        ),
        _ => " The metric does not drop from plain to cipher: there is nothing to restore.".to_string(),
    };
    let classes = class_columns(injection);
    let mut listing = Listing::of(injection)
        .column("request", Show::Text(InjectionRow::condition.name))
        .column("metric (nats)", Show::Signed(InjectionRow::metric_mean.name, 2))
        .column("95 % interval", Show::Interval(InjectionRow::interval.name, 2))
        .column("metric restored", Show::Share(InjectionRow::restored_metric.name));
    if generated(injection)? {
        text += &format!(
            " Refusals: {} in plain, {} in cipher, {} injected, {} in the control",
            share(at(refusals, "plain")?),
            share(at(refusals, "cipher")?),
            share(at(refusals, "injected")?),
            share(at(refusals, "control")?),
        );
        text += &match at(InjectionRow::restored, "injected")? {
            Some(restored) => format!(
                "; of those lost in cipher injection brings back **{}** (sign tests on the same pairs: against cipher p {}, \
                 against the control p {}).",
                share(restored),
                p_value(at(InjectionRow::p_refusals, "injected")?),
                p_value(at(InjectionRow::p_over_control, "injected")?)
            ),
            None => "; none are lost in cipher, so that none can come back.".to_string(),
        };
        listing = classes.iter().fold(listing, |l, (name, column)| l.column(name.clone(), Show::Share(column)));
        listing = listing
            .column("restored", Show::Share(InjectionRow::restored.name))
            .column("p", Show::PValue(InjectionRow::p_refusals.name));
    }
    let caption = "The positive request in plain, in cipher, in cipher with the plain run's gate, and with the gate of the plain \
                   harmless request (control).";
    Ok(Section::new("Does injecting the gate restore the behaviour?")
        .paragraph(text)
        .figure(dir.join("injection.png"), caption, "Bars by request.")
        .block(Block::Table(listing.block("Injection; each pair's numbers are in items.parquet")?)))
}
