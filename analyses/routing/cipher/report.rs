//! What the tables of a cipher say: figures and text.

use super::tables::{CollapseRow, InjectionRow, NecessityRow};
use super::{CONDITIONS, FORMS};
use crate::analyses::answered::class_columns;
use crate::analyses::effects::{INTERVAL, SIGNIFICANT, interval};
use crate::analyses::halves::{Moved, Order, Shown, moved};
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::answers::Class;
use crate::figure::{BarSeries, Bars, Estimate};
use crate::names::short_name;
use crate::report::cells::{p_value, plural, share, share_interval, signed};
use crate::stats::{counted, wilson};
use crate::table::rows::Column;

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
            category_label: "run".to_string(),
            value_label: value_label.to_string(),
            categories: requests.into_iter().map(called).map(str::to_string).collect(),
            series,
            interval_meaning: Some(INTERVAL.to_string()),
            ..Bars::default()
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
            shares: true,
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
    let forms = necessity.column(NecessityRow::condition)?.into_iter();
    let forms = forms.map(|form| format!("exchanged, {}", called(form))).enumerate();
    let effects = necessity.column(NecessityRow::effect_mean)?;
    let mut rows = moved(necessity.column(NecessityRow::halves)?, effects, forms);
    // Tables of older builds have no effect of injection.
    if injection.holds(InjectionRow::effect_mean) {
        let conditions = injection.column(InjectionRow::condition)?.into_iter();
        let conditions = conditions.map(|c| called(c).to_string()).enumerate().skip(2);
        let effects = injection.column(InjectionRow::effect_mean)?;
        rows.extend(moved(injection.column(InjectionRow::halves)?, effects, conditions));
    }
    let shown = Shown {
        subtitle: subtitle(necessity)?,
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

fn estimates(values: Vec<Option<f64>>, intervals: Vec<Option<(f64, f64)>>) -> Vec<Option<Estimate>> {
    let one = |(value, interval): (Option<f64>, _)| Some(Estimate { interval, ..Estimate::new(value?) });
    values.into_iter().zip(intervals).map(one).collect()
}

/// A series for each class of answers that there is, with the Wilson intervals of its shares.
fn classes(injection: &Table) -> Result<Vec<BarSeries>, AnalysisError> {
    let refusals = injection.floats(Class::Refusal.name())?.to_vec();
    let mut found = vec![series("refusal", estimates(refusals, injection.column(InjectionRow::refusal_interval)?))];
    for (class, column) in class_columns(injection).iter().filter(|(class, _)| class != Class::Refusal.name()) {
        let (shares, answers) = (injection.floats(column)?, injection.column(InjectionRow::answers)?);
        let estimate = |(share, n): (&Option<f64>, i64)| {
            let (successes, n) = counted((*share)?, n);
            Some(Estimate { interval: wilson(successes, n).map(|i| (i.low, i.high)), ..Estimate::new((*share)?) })
        };
        if shares.iter().flatten().any(|s| *s > 0.0) {
            found.push(series(class, shares.iter().zip(answers).map(estimate).collect()));
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
    let (shares, share_ends) =
        (necessity.column(NecessityRow::share_of_gap)?, necessity.column(NecessityRow::share_of_gap_interval)?);
    let effect = |form: &str| {
        let i = conditions.iter().position(|c| *c == form)?;
        let of_gap = shares[i]
            .map_or(String::new(), |of| format!("; {} {} of the gap", share(of), share_interval(share_ends[i])));
        Some(format!("{} nats ({INTERVAL} {}{of_gap})", signed(effects[i], 3), interval(ends[i])))
    };
    let [plain, wrapped, cipher] = FORMS.map(effect);
    let wrapped = wrapped.map_or(String::new(), |wrapped| {
        format!(" With the plain request inside the cipher prompt's instructions and examples the effect is {wrapped}.")
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
        "Giving the positive request the gate ({}) of the negative one moves its logit difference, over {}, by {} in plain words \
         and by {} in cipher.{wrapped} {}{few}{}",
        first(&necessity.column(NecessityRow::gate)?),
        plural(first(&necessity.column(NecessityRow::n)?), "pair"),
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
        .column("95 % interval", Show::ShareInterval(CollapseRow::interval.name))
        .column("p of plain", Show::PValue(CollapseRow::plain_p.name))
        .column("plain in the cipher prompt (nats)", Show::Signed(CollapseRow::wrapped_effect.name, 3))
        .column("by the wrapper alone", Show::Share(CollapseRow::wrapped_collapse.name))
        .column("95 % interval", Show::ShareInterval(CollapseRow::wrapped_interval.name));
    let alt = "Bars of the effect of exchanging the gate, in plain and in cipher.";
    let caption = "Mean effect of giving the positive request the gate of the negative one: in plain words, in plain words inside the \
                   cipher prompt's instructions and examples, and in cipher.";
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
            "The effect in plain words cannot be told from 0, so that nothing could be lost.{}",
            power.sentence()
        ));
    };
    let ends = |column: Column<Option<(f64, f64)>>| {
        let ends = first(&collapse.column(column)?);
        let words = |ends| format!(" (95 % interval {})", share_interval(Some(ends)));
        Ok::<_, AnalysisError>(ends.map_or(String::new(), words))
    };
    let alone = match value(CollapseRow::wrapped_collapse)? {
        Some(alone) => format!(
            " The instructions around the request take away {} of it by themselves{}.",
            share(alone),
            ends(CollapseRow::wrapped_interval)?
        ),
        None => " How much of that the instructions around the request make by themselves is not known: the cipher is a file's."
            .to_string(),
    };
    Ok(format!("**{}** of the effect is lost in cipher{}.{alone}", share(found), ends(CollapseRow::interval)?))
}

fn injection_section(tables: &[Table], dir: &Path) -> Result<Section, AnalysisError> {
    let injection = table(tables, InjectionRow::TABLE)?;
    let at = |column: Column<Option<f64>>, condition: &str| -> Result<Option<f64>, AnalysisError> {
        let row = CONDITIONS.iter().position(|c| *c == condition);
        Ok(row.and_then(|row| injection.column(column).ok()?.get(row).copied().flatten()))
    };
    let metric = |condition| Ok::<_, AnalysisError>(signed(at(InjectionRow::metric_mean, condition)?, 2));
    let mut text = format!(
        "The positive requests have a logit difference of {} nats in plain words and {} in cipher. With the gate of the plain \
         positive run it is {} in cipher, and with that of the plain negative run (control) {}.",
        metric("plain")?,
        metric("cipher")?,
        metric("injected")?,
        metric("control")?,
    );
    text += &match (at(InjectionRow::restored_metric, "injected")?, at(InjectionRow::restored_metric, "control")?) {
        (Some(own), control) => {
            let intervals = injection.column(InjectionRow::restored_metric_interval)?;
            let ends = |run| {
                let row = CONDITIONS.iter().position(|c| *c == run);
                share_interval(row.and_then(|row| intervals.get(row).copied().flatten()))
            };
            format!(
                " Of what the metric loses in cipher, injection restores **{}** (95 % interval {}) and the control {} ({}).",
                share(own),
                ends("injected"),
                share(control),
                ends("control")
            )
        }
        _ => " The metric does not drop from plain to cipher: there is nothing to restore.".to_string(),
    };
    let classes = class_columns(injection);
    let mut listing = Listing::of(injection)
        .column("run", Show::Text(InjectionRow::condition.name))
        .column("metric (nats)", Show::Signed(InjectionRow::metric_mean.name, 2))
        .column("95 % interval", Show::Interval(InjectionRow::interval.name, 2))
        .column("metric restored", Show::Share(InjectionRow::restored_metric.name))
        .column("95 % interval", Show::ShareInterval(InjectionRow::restored_metric_interval.name));
    if generated(injection)? {
        text += &refusals(injection)?;
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

/// How many requests are refused in which run, and how many of those that the cipher loses come back, as sentences after a space.
fn refusals(injection: &Table) -> Result<String, AnalysisError> {
    let conditions = injection.column(InjectionRow::condition)?;
    let row = |condition: &str| conditions.iter().position(|c| *c == condition);
    let refusals = injection.column(InjectionRow::refusals)?;
    let count = |condition| row(condition).map_or(0, |row| refusals[row]);
    let injected_has = |column: Column<Option<f64>>| {
        let cells = injection.column(column)?;
        Ok::<_, AnalysisError>(row("injected").and_then(|row| cells[row]))
    };
    let (plain, cipher, injected, control) = (count("plain"), count("cipher"), count("injected"), count("control"));
    let n = first(&injection.column(InjectionRow::answers)?);
    let in_plain = format!(" In plain words {plain} of {} are refused.", plural(n, "request"));
    let lost = plain - cipher;
    Ok(match (cipher, injected, control) {
        _ if injected_has(InjectionRow::restored)?.is_none() => {
            format!("{in_plain} In cipher {cipher} are: none are lost, so that none can come back.")
        }
        (0, 0, 0) => format!(
            "{in_plain} In cipher none is, with or without the gate: of the {lost} that are lost **none** comes back."
        ),
        _ => format!(
            "{in_plain} In cipher {cipher} are, {injected} with the gate injected, and {control} in the control. Of the {lost} that \
             are lost **{}** come back, on balance (sign tests on the same pairs: against cipher p {}, against the control p {}).",
            injected - cipher,
            p_value(injected_has(InjectionRow::p_refusals)?),
            p_value(injected_has(InjectionRow::p_over_control)?)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::rows;

    fn injection(refusals: [i64; 4], restored: Option<f64>) -> Table {
        let row = |i: usize| InjectionRow {
            condition: CONDITIONS[i],
            answers: 80,
            shares: vec![Some(0.2), Some([0.4, 0.9, 0.0, 0.0][i])],
            refusal_interval: Some((0.1, 0.3)),
            restored: restored.filter(|_| i >= 2),
            refusals: refusals[i],
            p_refusals: Some(0.5),
            p_over_control: Some(0.7),
            ..InjectionRow::default()
        };
        let classes = [Class::Refusal, Class::Answer].map(|class| class.name().to_string());
        rows::table(InjectionRow::TABLE, &classes, (0..CONDITIONS.len()).map(row)).unwrap()
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
