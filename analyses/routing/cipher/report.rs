//! What the tables of a cipher say: figures and text.

use super::{CONDITIONS, FORMS};
use crate::analyses::answered::class_columns;
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Order, Shown};
use crate::analyses::power::Power;
use crate::analyses::routing::ciphered::Ciphered;
use crate::analyses::{AnalysisError, Figures, halves, table};
use crate::answers::Class;
use crate::figure::{BarSeries, Bars, Estimate};
use crate::names::short_name;
use crate::report::cells::{p_value, plural, share, share_interval, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::stats::{counted, wilson};
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
            category_label: "run".to_string(),
            value_label: value_label.to_string(),
            shares: false,
            categories: table.strs("condition")?.into_iter().map(called).map(str::to_string).collect(),
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
            shares: true,
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

/// What a run is called in figures.
fn called(condition: &str) -> &str {
    match condition {
        "wrapped" => "plain in the cipher prompt",
        "injected" => "cipher, gate injected",
        "control" => "cipher, control's gate injected",
        other => other,
    }
}

/// The halves of the exchange's effect in each form, and of what is injected.
fn apart(necessity: &Table, injection: &Table) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
    let forms = necessity.strs("condition")?.into_iter().map(|form| format!("exchanged, {}", called(form))).enumerate();
    let mut rows = halves::moved(necessity, ("effect", "effect_mean"), forms)?;
    // Tables of older builds have no effect of injection.
    if injection.has("effect_mean") {
        let conditions = injection.strs("condition")?.into_iter().map(|c| called(c).to_string()).enumerate().skip(2);
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
        title: "The gate in cipher: answer and foil apart".to_string(),
        subject: "the gate's exchange",
        order: Order::Own("run"),
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

/// A series for each class of answers that there is, with the Wilson intervals of its shares.
fn classes(injection: &Table) -> Result<Vec<BarSeries>, AnalysisError> {
    let mut found = vec![series("refusal", estimates(injection, "refusal", "refusal_low", "refusal_high")?)];
    for (class, column) in class_columns(injection).iter().filter(|(class, _)| class != Class::Refusal.name()) {
        let (shares, answers) = (injection.floats(column)?, injection.ints("answers")?);
        let estimate = |(share, n): (&Option<f64>, &i64)| {
            let (successes, n) = counted((*share)?, *n);
            Some(Estimate { interval: wilson(successes, n).map(|i| (i.low, i.high)), ..Estimate::new((*share)?) })
        };
        if shares.iter().flatten().any(|s| *s > 0.0) {
            found.push(series(class, shares.iter().zip(answers).map(estimate).collect()));
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
    let [shares, share_low, share_high] = shares_of_gap(necessity)?;
    let effect = |form: &str| {
        let i = conditions.iter().position(|c| *c == form)?;
        let of_gap = shares[i].map_or(String::new(), |of| {
            format!("; {} {} of the gap", share(of), share_interval(share_low[i].zip(share_high[i])))
        });
        Some(format!("{} nats ({INTERVAL} {}{of_gap})", signed(effects[i], 3), interval(low[i].zip(high[i]))))
    };
    let [plain, wrapped, cipher] = FORMS.map(effect);
    let wrapped = wrapped.map_or(String::new(), |wrapped| {
        format!(" With the plain request inside the cipher prompt's instructions and examples the effect is {wrapped}.")
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
        "Giving the positive request the gate ({}) of the negative one moves its logit difference, over {}, by {} in plain words \
         and by {} in cipher.{wrapped} {}{few}{}",
        first(necessity, "gate")?,
        plural(count("n")?, "pair"),
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
        .column("95 % interval", Show::ShareInterval("ci_low", "ci_high"))
        .column("p of plain", Show::PValue("plain_p"))
        .column("plain in the cipher prompt (nats)", Show::Signed("wrapped_effect", 3))
        .column("by the wrapper alone", Show::Share("wrapped_collapse"))
        .column("95 % interval", Show::ShareInterval("wrapped_ci_low", "wrapped_ci_high"));
    let alt = "Bars of the effect of exchanging the gate, in plain and in cipher.";
    let caption = "Mean effect of giving the positive request the gate of the negative one: in plain words, in plain words inside the \
                   cipher prompt's instructions and examples, and in cipher.";
    Ok(Section::new("Is the gate needed in cipher?")
        .paragraph(text)
        .figure(dir.join("necessity.png"), caption, alt)
        .block(Block::Table(rows.block("Collapse; empty where the plain effect is not told from 0")?)))
}

/// The shares of the gap with both ends of their intervals; empty in older tables without them.
fn shares_of_gap(necessity: &Table) -> Result<[Vec<Option<f64>>; 3], AnalysisError> {
    let column = |name: &str| match necessity.has(name) {
        true => Ok::<_, AnalysisError>(necessity.floats(name)?.to_vec()),
        false => Ok(vec![None; necessity.rows()]),
    };
    Ok([column("share_of_gap")?, column("share_of_gap_ci_low")?, column("share_of_gap_ci_high")?])
}

fn collapse_sentence(collapse: &Table) -> Result<String, AnalysisError> {
    let value = |column: &str| Ok::<_, AnalysisError>(collapse.floats(column)?.first().copied().flatten());
    let Some(found) = value("collapse")? else {
        // The plain effect is tested by itself.
        let power = Power { items: collapse.ints("n")?.first().copied().unwrap_or(0), item: "pair", tests: 1 };
        return Ok(format!(
            "The effect in plain words cannot be told from 0, so that nothing could be lost.{}",
            power.sentence()
        ));
    };
    let ends = |low: &str, high: &str| {
        let ends = value(low)?.zip(value(high)?);
        let words = |ends| format!(" (95 % interval {})", share_interval(Some(ends)));
        Ok::<_, AnalysisError>(ends.map_or(String::new(), words))
    };
    let alone = match value("wrapped_collapse")? {
        Some(alone) => format!(
            " The instructions around the request take away {} of it by themselves{}.",
            share(alone),
            ends("wrapped_ci_low", "wrapped_ci_high")?
        ),
        None => " How much of that the instructions around the request make by themselves is not known: the cipher is a file's."
            .to_string(),
    };
    Ok(format!("**{}** of the effect is lost in cipher{}.{alone}", share(found), ends("ci_low", "ci_high")?))
}

fn injection_section(tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
    let injection = table(tables, "injection")?;
    let at = |column: &str, condition: &str| -> Result<Option<f64>, AnalysisError> {
        let row = CONDITIONS.iter().position(|c| *c == condition);
        Ok(row.and_then(|row| injection.floats(column).ok()?.get(row).copied().flatten()))
    };
    let metric = |condition| Ok::<_, AnalysisError>(signed(at("metric_mean", condition)?, 2));
    let mut text = format!(
        "The positive requests have a logit difference of {} nats in plain words and {} in cipher. With the gate of the plain \
         positive run it is {} in cipher, and with that of the plain negative run (control) {}.",
        metric("plain")?,
        metric("cipher")?,
        metric("injected")?,
        metric("control")?,
    );
    text += &match (at("restored_metric", "injected")?, at("restored_metric", "control")?) {
        (Some(own), control) => {
            let ends = |run| {
                let (low, high) = (at("restored_metric_low", run)?, at("restored_metric_high", run)?);
                Ok::<_, AnalysisError>(share_interval(low.zip(high)))
            };
            format!(
                " Of what the metric loses in cipher, injection restores **{}** (95 % interval {}) and the control {} ({}).",
                share(own),
                ends("injected")?,
                share(control),
                ends("control")?
            )
        }
        _ => " The metric does not drop from plain to cipher: there is nothing to restore.".to_string(),
    };
    let classes = class_columns(injection);
    let mut listing = Listing::of(injection)
        .column("run", Show::Text("condition"))
        .column("metric (nats)", Show::Signed("metric_mean", 2))
        .column("95 % interval", Show::Interval("ci_low", "ci_high", 2))
        .column("metric restored", Show::Share("restored_metric"))
        .column("95 % interval", Show::ShareInterval("restored_metric_low", "restored_metric_high"));
    if generated(injection)? {
        text += &refusals(injection)?;
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

/// How many requests are refused in which run, and how many of those that the cipher loses come back, as sentences after a space.
fn refusals(injection: &Table) -> Result<String, AnalysisError> {
    let conditions = injection.strs("condition")?;
    let row = |condition: &str| conditions.iter().position(|c| *c == condition);
    let count = |condition| {
        Ok::<_, AnalysisError>(row(condition).map_or(0, |row| injection.ints("refusals").map_or(0, |n| n[row])))
    };
    let float = |column: &str, condition| {
        Ok::<_, AnalysisError>(
            row(condition).and_then(|row| injection.floats(column).ok()?.get(row).copied().flatten()),
        )
    };
    let (plain, cipher, injected, control) = (count("plain")?, count("cipher")?, count("injected")?, count("control")?);
    let n = injection.ints("answers")?.first().copied().unwrap_or(0);
    let in_plain = format!(" In plain words {plain} of {} are refused.", plural(n, "request"));
    let lost = plain - cipher;
    Ok(match (cipher, injected, control) {
        _ if float("restored", "injected")?.is_none() => {
            format!("{in_plain} In cipher {cipher} are: none are lost, so that none can come back.")
        }
        (0, 0, 0) => format!(
            "{in_plain} In cipher none is, with or without the gate: of the {lost} that are lost **none** comes back."
        ),
        _ => format!(
            "{in_plain} In cipher {cipher} are, {injected} with the gate injected, and {control} in the control. Of the {lost} that \
             are lost **{}** come back, on balance (sign tests on the same pairs: against cipher p {}, against the control p {}).",
            injected - cipher,
            p_value(float("p_refusals", "injected")?),
            p_value(float("p_over_control", "injected")?)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection(refusals: [i64; 4], restored: Option<f64>) -> Table {
        let table =
            Table::new("injection").str("condition", "", CONDITIONS).unwrap().int("refusals", "", refusals).unwrap();
        let table =
            table.int("answers", "", [80; 4]).unwrap().float("restored", "", [None, None, restored, restored]).unwrap();
        let table = table.float("answer", "", [0.4, 0.9, 0.0, 0.0]).unwrap().float("refusal", "", [0.2; 4]).unwrap();
        let table = table.float("refusal_low", "", [0.1; 4]).unwrap().float("refusal_high", "", [0.3; 4]).unwrap();
        table.float("p_refusals", "", [0.5; 4]).unwrap().float("p_over_control", "", [0.7; 4]).unwrap()
    }

    #[test]
    fn refusals_that_come_back_are_counted_of_those_that_were_lost() {
        let said = |refusals, restored| super::refusals(&injection(refusals, restored)).unwrap();
        let none = said([23, 0, 0, 0], Some(0.0));
        assert!(
            none.contains("23 of 80 requests") && none.contains("of the 23 that are lost **none** comes back"),
            "{none}"
        );
        assert!(!none.contains("p 0.5"), "{none}");
        let some = said([23, 3, 13, 4], Some(0.5));
        assert!(some.contains("Of the 20 that are lost **10** come back") && some.contains("p 0.700"), "{some}");
        assert!(said([3, 5, 5, 5], None).contains("none can come back"));
    }

    #[test]
    fn every_class_of_answers_has_intervals() {
        let classes = classes(&injection([23, 0, 0, 0], Some(0.0))).unwrap();
        assert_eq!(classes.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["refusal", "answer"]);
        assert!(classes.iter().flat_map(|c| &c.estimates).all(|e| e.unwrap().interval.is_some()));
    }
}
