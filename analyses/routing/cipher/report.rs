//! What the tables of a cipher say: figures and text.

use super::{CONDITIONS, FORMS};
use crate::analyses::answered::class_columns;
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Shown};
use crate::analyses::power::Power;
use crate::analyses::routing::ciphered::Ciphered;
use crate::analyses::{AnalysisError, Figures, halves, table};
use crate::answers::Class;
use crate::figure::{BarSeries, Bars, Estimate};
use crate::names::short_name;
use crate::report::cells::{p_value, plural, share, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::table::Table;
use std::path::Path;

/// How many groups and languages a report lists.
const LISTED: usize = 16;

fn first<'a>(table: &'a Table, column: &str) -> Result<&'a str, AnalysisError> {
    Ok(table.strs(column)?.first().copied().unwrap_or_default())
}

/// Whether answers were generated.
fn generated(injection: &Table) -> Result<bool, AnalysisError> {
    Ok(injection.ints("answers")?.iter().any(|n| *n > 0))
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let (necessity, injection) = (table(tables, "necessity")?, table(tables, "injection")?);
    let n = necessity.ints("n")?.first().copied().unwrap_or(0);
    let subtitle = format!(
        "{}, {}, gate {}",
        short_name(first(necessity, "model")?),
        plural(n, "pair"),
        first(necessity, "gate")?
    );
    let bars = |title: &str, value_label: &str, table: &Table, series| -> Result<Bars, AnalysisError> {
        Ok(Bars {
            title: title.to_string(),
            subtitle: subtitle.clone(),
            category_label: "request".to_string(),
            value_label: value_label.to_string(),
            categories: table.strs("condition")?.into_iter().map(str::to_string).collect(),
            series,
            range: None,
            reference: None,
            mark_meaning: None,
            interval_meaning: Some(INTERVAL.to_string()),
            band_meaning: None,
        })
    };
    let (effects, q) = (estimates(necessity, "effect_mean", "ci_low", "ci_high")?, necessity.floats("q_value")?);
    let marked = |(e, q): (Option<Estimate>, &Option<f64>)| e.map(|e| e.marked(q.is_some_and(|q| q < SIGNIFICANT)));
    let effects = effects.into_iter().zip(q).map(marked).collect();
    let nats = "effect on the logit difference (nats)";
    let needed = Bars {
        mark_meaning: Some(format!("q < {SIGNIFICANT}")),
        ..bars("Necessity of the gate", nats, necessity, vec![series("effect", effects)])?
    };
    let injected = if generated(injection)? {
        Bars {
            range: Some((0.0, 1.0)),
            interval_meaning: Some("95 % Wilson interval".to_string()),
            ..bars("Injecting the gate", "share of answers", injection, classes(injection)?)?
        }
    } else {
        let metric = series("metric", estimates(injection, "metric_mean", "ci_low", "ci_high")?);
        bars("Injecting the gate", "logit difference (nats)", injection, vec![metric])?
    };
    let (shown, rows) = apart(necessity, injection)?;
    let halves = shown.figure(&rows).map(|figure| (shown.file, figure));
    let figures = [("necessity.png".to_string(), needed.into()), ("injection.png".to_string(), injected.into())];
    Ok(figures.into_iter().chain(halves).collect())
}

/// The halves of the exchange's effect in each form, and of what is injected.
fn apart(necessity: &Table, injection: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let forms = necessity.strs("condition")?.into_iter().map(|form| format!("exchanged, {form}")).enumerate();
    let mut rows = halves::moved(necessity, ("effect", "effect_mean"), forms)?;
    // Tables of older builds have no effect of injection.
    if injection.has("effect_mean") {
        let conditions = injection.strs("condition")?.into_iter().map(str::to_string).enumerate().skip(2);
        rows.extend(halves::moved(injection, ("effect", "effect_mean"), conditions)?);
    }
    let n = necessity.ints("n")?.first().copied().unwrap_or(0);
    let shown = Shown {
        subtitle: format!(
            "{}, {}, gate {}",
            short_name(first(necessity, "model")?),
            plural(n, "pair"),
            first(necessity, "gate")?
        ),
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

fn estimates(table: &Table, value: &str, low: &str, high: &str) -> Result<Vec<Option<Estimate>>, AnalysisError> {
    let (values, low, high) = (table.floats(value)?, table.floats(low)?, table.floats(high)?);
    let one = |i: usize| Some(Estimate { interval: low[i].zip(high[i]), ..Estimate::new(values[i]?) });
    Ok((0..table.rows()).map(one).collect())
}

/// A series for each class of answers that there is; refusals with their interval.
fn classes(injection: &Table) -> Result<Vec<BarSeries>, AnalysisError> {
    let mut found = vec![series("refusal", estimates(injection, "refusal", "refusal_low", "refusal_high")?)];
    for (class, column) in class_columns(injection).iter().filter(|(class, _)| class != Class::Refusal.name()) {
        let shares = injection.floats(column)?;
        if shares.iter().flatten().any(|s| *s > 0.0) {
            found.push(series(class, shares.iter().map(|s| s.map(Estimate::new)).collect()));
        }
    }
    Ok(found)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let (shown, rows) = apart(table(tables, "necessity")?, table(tables, "injection")?)?;
    let halves = shown.section(&rows, dir, true);
    let sections = [necessity_section(tables, dir)?, injection_section(tables, dir)?];
    Ok(sections.into_iter().chain(halves).collect())
}

fn necessity_section(tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
    let (necessity, collapse) = (table(tables, "necessity")?, table(tables, "collapse")?);
    let conditions = necessity.strs("condition")?;
    let count = |column: &str| Ok::<_, AnalysisError>(necessity.ints(column)?.first().copied().unwrap_or(0));
    let effects = necessity.floats("effect_mean")?;
    let (low, high) = (necessity.floats("ci_low")?, necessity.floats("ci_high")?);
    let effect = |form: &str| {
        let i = conditions.iter().position(|c| *c == form)?;
        Some(format!("{} nats, {INTERVAL} {}", signed(effects[i], 3), interval(low[i].zip(high[i]))))
    };
    let [plain, wrapped, cipher] = FORMS.map(effect);
    let wrapped = wrapped.map_or(String::new(), |wrapped| {
        format!(" In plain within the instructions and examples of the cipher prompt it does so by {wrapped}.")
    });
    let pairs = collapse.ints("n")?;
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
        plural(count("n")?, "pair"),
        first(necessity, "gate")?,
        plain.unwrap_or_default(),
        cipher.unwrap_or_default(),
        collapse_sentence(collapse)?,
        Ciphered::omitted(count("left_out")?, count("too_long")?),
    );
    let rows = Listing::of(collapse)
        .first(LISTED)
        .column("by", Show::Text("by"))
        .column("value", Show::Text("value"))
        .column("n", Show::Count("n"))
        .column("plain (nats)", Show::Signed("plain_effect", 3))
        .column("cipher (nats)", Show::Signed("cipher_effect", 3))
        .column("collapse", Show::Share("collapse"))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 3))
        .column("p of plain", Show::PValue("plain_p"))
        .column("wrapped (nats)", Show::Signed("wrapped_effect", 3))
        .column("by the wrapper alone", Show::Share("wrapped_collapse"))
        .column("95 % interval", Show::Interval("wrapped_ci_low", "wrapped_ci_high", 3));
    let alt = "Bars of the effect of exchanging the gate, in plain and in cipher.";
    let caption = "Mean effect of giving the positive request the gate of the negative one.";
    Ok(Section::new("Is the gate needed in cipher?")
        .paragraph(text)
        .figure(dir.join("necessity.png"), caption, alt)
        .block(Block::Table(rows.block("Collapse; empty where the plain effect is not told from 0")?)))
}

fn collapse_sentence(collapse: &Table) -> Result<String, AnalysisError> {
    let value = |column: &str| Ok::<_, AnalysisError>(collapse.floats(column)?.first().copied().flatten());
    let Some(found) = value("collapse")? else {
        // The plain effect is tested by itself.
        let power = Power { items: collapse.ints("n")?.first().copied().unwrap_or(0), item: "pair", tests: 1 };
        return Ok(format!(
            "The effect in plain cannot be told from 0, so that nothing could collapse.{}",
            power.sentence()
        ));
    };
    let ends = |low: &str, high: &str| {
        let ends = value(low)?.zip(value(high)?);
        let words = |(low, high): (f64, f64)| format!(" (95 % interval {} to {})", share(low), share(high));
        Ok::<_, AnalysisError>(ends.map_or(String::new(), words))
    };
    let alone = match value("wrapped_collapse")? {
        Some(alone) => format!(
            " The instructions around the request take away {} by themselves{}.",
            share(alone),
            ends("wrapped_ci_low", "wrapped_ci_high")?
        ),
        None => " How much of that the instructions around the request make by themselves is not known: the cipher is a file's."
            .to_string(),
    };
    Ok(format!("**{}** of the effect collapse in cipher{}.{alone}", share(found), ends("ci_low", "ci_high")?))
}

fn injection_section(tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
    let injection = table(tables, "injection")?;
    let at = |column: &str, condition: &str| -> Result<Option<f64>, AnalysisError> {
        let row = CONDITIONS.iter().position(|c| *c == condition);
        Ok(row.and_then(|row| injection.floats(column).ok()?.get(row).copied().flatten()))
    };
    let metric = |condition| Ok::<_, AnalysisError>(signed(at("metric_mean", condition)?, 2));
    let mut text = format!(
        "The positive requests have a logit difference of {} nats in plain and {} in cipher; {} in cipher with the gate of the \
         plain positive run, and {} with that of the plain negative run (control).",
        metric("plain")?,
        metric("cipher")?,
        metric("injected")?,
        metric("control")?,
    );
    text += &match (at("restored_metric", "injected")?, at("restored_metric", "control")?) {
        (Some(own), control) => format!(
            " Of what the metric loses in cipher, injection restores **{}** and the control {}.",
            share(own),
            share(control)
        ),
        _ => " The metric does not drop from plain to cipher: there is nothing to restore.".to_string(),
    };
    let classes = class_columns(injection);
    let mut listing = Listing::of(injection)
        .column("request", Show::Text("condition"))
        .column("metric (nats)", Show::Signed("metric_mean", 2))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 2))
        .column("metric restored", Show::Share("restored_metric"));
    if generated(injection)? {
        text += &format!(
            " Refusals: {} in plain, {} in cipher, {} injected, {} in the control",
            share(at("refusal", "plain")?),
            share(at("refusal", "cipher")?),
            share(at("refusal", "injected")?),
            share(at("refusal", "control")?),
        );
        text += &match at("restored", "injected")? {
            Some(restored) => format!(
                "; of those lost in cipher injection brings back **{}** (sign tests on the same pairs: against cipher p {}, \
                 against the control p {}).",
                share(restored),
                p_value(at("p_refusals", "injected")?),
                p_value(at("p_over_control", "injected")?)
            ),
            None => "; none are lost in cipher, so that none can come back.".to_string(),
        };
        listing = classes.iter().fold(listing, |l, (name, column)| l.column(name.clone(), Show::Share(column)));
        listing = listing.column("restored", Show::Share("restored")).column("p", Show::PValue("p_refusals"));
    }
    let caption = "The positive request in plain, in cipher, in cipher with the plain run's gate, and with the gate of the plain \
                   harmless request (control).";
    Ok(Section::new("Does injecting the gate restore the behaviour?")
        .paragraph(text)
        .figure(dir.join("injection.png"), caption, "Bars by request.")
        .block(Block::Table(listing.block("Injection; each pair's numbers are in items.parquet")?)))
}
