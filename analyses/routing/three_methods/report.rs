//! The comparison's figures and words, from its tables alone.

use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::halves::{Moved, Order, Shown};
use crate::analyses::power::Power;
use crate::analyses::{AnalysisError, Figures, halves, table};
use crate::figure::{Figure, Scatter, ScatterPoint};
use crate::names::short_name;
use crate::report::cells::{self, number, plural, share, share_interval, signed};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Heading, Section};
use crate::table::Table;
use std::collections::HashMap;
use std::path::Path;

/// How many heads a report's tables list.
const LISTED: usize = 12;

/// From this effect on, nats, a head has a direct path of which later components can give something back.
const DIRECT: f64 = 0.01;

/// How many heads a figure names of each method.
const NAMED: i64 = 5;

/// The table of heads, read back.
struct Heads<'a> {
    table: &'a Table,
    model: String,
    n: i64,
    labels: Vec<String>,
}

impl<'a> Heads<'a> {
    fn of(tables: &'a [Table]) -> Result<Self, AnalysisError> {
        let table = table(tables, "heads")?;
        let labels = table.ints("layer")?.iter().zip(table.ints("head")?).map(|(l, h)| cells::head(*l, *h)).collect();
        Ok(Heads {
            table,
            model: short_name(table.strs("model")?.first().copied().unwrap_or_default()),
            n: table.ints("n")?.first().copied().unwrap_or(0),
            labels,
        })
    }

    fn float(&self, name: &str) -> Result<&'a [Option<f64>], AnalysisError> {
        Ok(self.table.floats(name)?)
    }

    /// The intervals of the shares of the gap that heads cross under interchange, by their labels; none of older tables.
    fn crossed(&self) -> Result<HashMap<&str, (f64, f64)>, AnalysisError> {
        if !self.table.has("interchange_crossed_ci_low") {
            return Ok(HashMap::new());
        }
        let (low, high) = (self.float("interchange_crossed_ci_low")?, self.float("interchange_crossed_ci_high")?);
        let ends = self.labels.iter().zip(low.iter().zip(high));
        Ok(ends.filter_map(|(label, (low, high))| Some((label.as_str(), ((*low)?, (*high)?)))).collect())
    }

    /// The number of the head that is first by a column of ranks.
    fn first_by(&self, rank: &str) -> Result<Option<usize>, AnalysisError> {
        Ok(self.table.ints(rank)?.iter().position(|r| *r == 1))
    }

    /// The effect of interchange against another number of each head; the strongest of both are named.
    fn scatter(&self, title: &str, y: (&str, &str, f64), rank: &str) -> Result<Figure, AnalysisError> {
        let (y_label, column, sign) = y;
        let (x, y) = (self.float("interchange_mean")?, self.float(column)?);
        let (by_x, by_y) = (self.table.ints("rank_interchange")?, self.table.ints(rank)?);
        let named = |i: usize| by_x[i] <= NAMED || by_y[i] <= NAMED;
        let point = |i: usize| {
            let name = named(i).then(|| self.labels[i].clone());
            Some(ScatterPoint { x: x[i]?, y: sign * y[i]?, name, series: 0 })
        };
        Ok(Figure::from(Scatter {
            title: title.to_string(),
            subtitle: format!("{}, {}, positive prompts, last position", self.model, plural(self.n, "pair")),
            x_label: "effect of interchange (nats)".to_string(),
            y_label: y_label.to_string(),
            identity: true,
            series: Vec::new(),
            named_meaning: Some(format!("the first {NAMED} by either method")),
            points: (0..self.labels.len()).filter_map(point).collect(),
        }))
    }
}

/// ` The rank correlation of the sizes is 0.43 (95 % interval [0.33, 0.52]).` of two methods.
fn correlation(agreement: &Table, first: &str, second: &str) -> Result<String, AnalysisError> {
    let (firsts, seconds) = (agreement.strs("first")?, agreement.strs("second")?);
    let at = (0..agreement.rows()).find(|i| firsts[*i] == first && seconds[*i] == second);
    let Some(at) = at else { return Ok(String::new()) };
    let value = agreement.floats("spearman_size")?[at];
    let (low, high) = (agreement.floats("spearman_size_ci_low")?[at], agreement.floats("spearman_size_ci_high")?[at]);
    let ends = cells::interval(low, high, 2);
    Ok(value.map_or(String::new(), |r| {
        format!(" The rank correlation of the sizes is {} (95 % interval {ends}).", number(r, 2))
    }))
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let heads = Heads::of(tables)?;
    let mut figures = vec![
        (
            "agreement.png".to_string(),
            heads.scatter(
                "Heads under interchange and zero ablation",
                ("effect of zero ablation (nats)", "ablation_mean", 1.0),
                "rank_ablation",
            )?,
        ),
        (
            "dla.png".to_string(),
            heads.scatter(
                "Heads under interchange and by attribution",
                ("attribution, sign turned (nats)", "dla_mean", -1.0),
                "rank_dla",
            )?,
        ),
    ];
    for (shown, rows) in apart(&heads)? {
        figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    }
    Ok(figures)
}

/// Each method: its columns, what reports call it, what it measures, and who moves answer and foil.
const METHODS: [[&str; 4]; 3] = [
    ["interchange", "interchange", "effect", "the exchange"],
    ["ablation", "ablation", "effect", "the ablation"],
    ["dla", "attribution", "attribution", "the head"],
];

/// The halves of each method's strongest heads.
fn apart(heads: &Heads) -> Result<Vec<(Shown<'static>, Vec<Moved>)>, AnalysisError> {
    let of = |(at, [column, name, what, subject]): (usize, [&'static str; 4])| {
        let whole = format!("{column}_mean");
        let strongest = Listing::of(heads.table).strongest(&whole).first(LISTED).rows()?;
        let labelled = strongest.into_iter().map(|i| (i, heads.labels[i].clone()));
        let shown = Shown {
            file: if at == 0 { "halves.png".to_string() } else { format!("halves-{name}.png") },
            title: format!("{}: answer and foil apart", cells::capitalised(name)),
            subtitle: format!("{}, {}, positive prompts, last position", heads.model, plural(heads.n, "pair")),
            what,
            subject,
            order: Order::Largest,
            ..Shown::default()
        };
        Ok::<_, AnalysisError>((shown, halves::moved(heads.table, (column, &whole), labelled)?))
    };
    METHODS.into_iter().enumerate().map(of).collect()
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let heads = Heads::of(tables)?;
    let listing = Listing::of(heads.table)
        .strongest("interchange_mean")
        .first(LISTED)
        .column("head", Show::Head("layer", "head"))
        .column("interchange (nats)", Show::Signed("interchange_mean", 3))
        .column("q", Show::PValue("interchange_q"))
        .column("ablation (nats)", Show::Signed("ablation_mean", 3))
        .column("q", Show::PValue("ablation_q"))
        .column("attribution (nats)", Show::Signed("dla_mean", 3))
        .column("share of all attributions", Show::Share("dla_share"))
        .column("rank: interchange", Show::Count("rank_interchange"))
        .column("ablation", Show::Count("rank_ablation"))
        .column("attribution", Show::Count("rank_dla"));
    let agreement = Listing::of(table(tables, "agreement")?)
        .column("method", Show::Text("first"))
        .column("against", Show::Text("second"))
        .column("Spearman of sizes", Show::Signed("spearman_size", 2))
        .column("95 % interval", Show::Interval("spearman_size_ci_low", "spearman_size_ci_high", 2))
        .column("ceiling", Show::Number("spearman_size_ceiling", 2))
        .column("signed", Show::Signed("spearman_signed", 2))
        .column("95 % interval", Show::Interval("spearman_signed_ci_low", "spearman_signed_ci_high", 2))
        .column("ceiling", Show::Number("spearman_signed_ceiling", 2))
        .column("shared of the top", Show::Count("overlap"))
        .column("by chance", Show::Number("overlap_expected", 1))
        .column("p", Show::PValue("overlap_p"));
    let ceiling = "The ceiling is about how much agreement the noise of the means leaves room for: each method's own correlation \
                   between the halves of the pairs, not corrected for their being halves. Means over all pairs can agree more.";
    let agrees = |method| correlation(table(tables, "agreement")?, "interchange", method);
    let main = Section::new("Which heads each method names")
        .paragraph(finding(&heads)?)
        .block(Block::Table(listing.block("The strongest by interchange, under each method")?))
        .block(Block::Table(agreement.block("Agreement of the methods over all heads")?))
        .paragraph(ceiling)
        .figure(
            dir.join("agreement.png"),
            format!("Each head's effect under interchange and under zero ablation.{}", agrees("ablation")?),
            "Scatter plot of effects of interchange and ablation.",
        )
        .figure(
            dir.join("dla.png"),
            format!(
                "Each head's effect under interchange, and its attribution with the sign turned: what silencing it takes away \
                 directly.{}",
                agrees("attribution")?
            ),
            "Scatter plot of effects of interchange and attributions.",
        );
    let mut sections = vec![main, missed_section(table(tables, "missed")?, &heads)?];
    let apart = apart(&heads)?.into_iter().enumerate();
    sections.extend(apart.filter_map(|(at, (shown, rows))| shown.section(&rows, dir, at == 0)));
    sections.push(repair_section(&heads)?);
    Ok(sections)
}

/// The first head of each method, and where the others rank it.
fn finding(heads: &Heads) -> Result<String, AnalysisError> {
    let ranks = ["rank_interchange", "rank_ablation", "rank_dla"];
    let rank = |name: &str, i: usize| Ok::<_, AnalysisError>(heads.table.ints(name)?[i]);
    let mut text = format!("Over {}, on the positive prompts.", plural(heads.n, "pair"));
    if let Some(i) = heads.first_by(ranks[0])? {
        text += &format!(
            " Interchange names **{}** first ({} nats); ablation ranks it {}, attribution {} with {} of all attributions.",
            heads.labels[i],
            signed(heads.float("interchange_mean")?[i], 3),
            rank(ranks[1], i)?,
            rank(ranks[2], i)?,
            share(heads.float("dla_share")?[i]),
        );
    }
    if let Some(i) = heads.first_by(ranks[1])? {
        text += &format!(
            " Ablation names **{}** first ({} nats), interchange ranks it {}.",
            heads.labels[i],
            signed(heads.float("ablation_mean")?[i], 3),
            rank(ranks[0], i)?
        );
    }
    if let Some(i) = heads.first_by(ranks[2])? {
        text += &format!(
            " Attribution names **{}** first ({} nats), interchange ranks it {}.",
            heads.labels[i],
            signed(heads.float("dla_mean")?[i], 3),
            rank(ranks[0], i)?
        );
    }
    // All three methods are tested over the same pairs and heads.
    let tested = ["interchange_q", "ablation_q", "dla_q"].map(|q| heads.float(q));
    let mut significant = false;
    for q in tested {
        significant |= q?.iter().flatten().any(|q| *q < SIGNIFICANT);
    }
    if !significant {
        text += &Power { items: heads.n, item: "pair", tests: heads.labels.len() }.sentence();
    }
    Ok(text)
}

fn nothing_missed() -> String {
    format!(
        "Interchange finds no head whose change moves the metric towards the negative prompts (q < {SIGNIFICANT}): there is nothing \
         for the others to miss."
    )
}

/// What interchange finds and the others do not.
fn missed_section(missed: &Table, heads: &Heads) -> Result<Section, AnalysisError> {
    let section = Section::new("What ablation and attribution miss");
    let found = missed.rows();
    if found == 0 {
        return Ok(section.paragraph(nothing_missed()));
    }
    let (by_ablation, by_dla) = (missed.flags("ablation_misses")?, missed.flags("dla_misses")?);
    let labels: Vec<String> =
        missed.ints("layer")?.iter().zip(missed.ints("head")?).map(|(l, h)| cells::head(*l, *h)).collect();
    let (shares, ends) = (missed.floats("share_of_gap")?, heads.crossed()?);
    let ends = |i: usize| share_interval(ends.get(labels[i].as_str()).copied());
    let misses = |flags: &[bool], how: &str, [one, more]: [&str; 2]| {
        let (n, first) = (flags.iter().filter(|f| **f).count(), (0..flags.len()).find(|i| flags[*i]));
        first.map_or("misses none".to_string(), |i| {
            let strongest = format!("{} ({} {} of the gap)", labels[i], share(shares[i]), ends(i));
            let strongest = if n == 1 { strongest } else { format!("the strongest of them {strongest}") };
            format!("misses {n}{how}, {strongest}. That can be {}", if n == 1 { one } else { more })
        })
    };
    let text = format!(
        "Interchange finds {} whose change moves the metric towards the negative prompts (q < {SIGNIFICANT}). Ablation {}. \
         Attribution {}.",
        plural(found as i64, "head"),
        misses(
            by_ablation,
            "",
            [
                "because silence is not what the head holds in the negative prompts, or because later components take its part over",
                "because silence is not what heads hold in the negative prompts, or because later components take their part over",
            ]
        ),
        misses(
            by_dla,
            &format!(
                ", which {} not among its first {found}",
                if by_dla.iter().filter(|m| **m).count() == 1 { "is" } else { "are" }
            ),
            [
                "because the head writes what later heads read, and not what the logits read",
                "because they write what later heads read, and not what the logits read",
            ]
        ),
    );
    let block = Listing::of(missed)
        .first(LISTED)
        .column("head", Show::Head("layer", "head"))
        .column("interchange (nats)", Show::Signed("interchange_mean", 3))
        .column("share of gap", Show::Share("share_of_gap"))
        .column("ablation (nats)", Show::Signed("ablation_mean", 3))
        .column("q", Show::PValue("ablation_q"))
        .column("ablation misses", Show::Flag("ablation_misses"))
        .column("share of attributions", Show::Share("dla_share"))
        .column("attribution misses", Show::Flag("dla_misses"))
        .block("Heads that interchange finds, the strongest first")?
        .with_column(3, Heading::number("95 % interval"), (0..found).map(ends));
    Ok(section.paragraph(text).block(Block::Table(block)))
}

/// Whether later components give a part of a direct effect back: what is left of it in the end has its sign and is smaller. One of
/// the other sign is more than given back, by something else than repair.
fn is_given_back(direct: f64, total: f64) -> bool {
    direct * total >= 0.0 && total.abs() < direct.abs()
}

/// Total effects against those with later components frozen.
fn repair_section(heads: &Heads) -> Result<Section, AnalysisError> {
    let (totals, frozen) = (heads.float("ablation_mean")?, heads.float("ablation_frozen_mean")?);
    let of = |i: usize| Some((i, frozen[i].filter(|f| f.abs() >= DIRECT)?, totals[i]?));
    let writers: Vec<(usize, f64, f64)> = (0..totals.len()).filter_map(of).collect();
    let given_back = writers.iter().filter(|(_, f, t)| is_given_back(*f, *t)).count();
    let furthest = writers.iter().max_by(|a, b| (a.1 - a.2).abs().total_cmp(&(b.1 - b.2).abs()));
    let named = furthest.map_or(String::new(), |(i, f, t)| {
        format!(
            " Furthest from its direct effect is {}: {} nats with later components frozen, {} in the end.",
            heads.labels[*i],
            signed(*f, 3),
            signed(*t, 3)
        )
    });
    let found = match writers.len() {
        0 => format!(
            "No head that was run this way moves the metric by {DIRECT} nats or more on the direct path: there is nothing to repair."
        ),
        n => format!(
            "{} {} the metric by {DIRECT} nats or more on the direct path. Of {given_back} of them the total effect has the same \
             sign and is smaller: later components give a part back.{named}",
            plural(n as i64, "head"),
            if n == 1 { "moves" } else { "move" },
        ),
    };
    let text = format!(
        "The strongest heads by interchange and by attribution were silenced once more, with every later component frozen at its \
         clean value. What the total effect has beyond that comes from later components. {found}"
    );
    let block = Listing::of(heads.table)
        .strongest("interchange_mean")
        .first(LISTED)
        .column("head", Show::Head("layer", "head"))
        .column("interchange (nats)", Show::Signed("interchange_mean", 3))
        .column("own attribution", Show::Signed("interchange_direct_mean", 3))
        .column("later frozen", Show::Signed("interchange_frozen_mean", 3))
        .column("ablation (nats)", Show::Signed("ablation_mean", 3))
        .column("own attribution", Show::Signed("ablation_direct_mean", 3))
        .column("later frozen", Show::Signed("ablation_frozen_mean", 3))
        .block(
            "Total effects, the change of the head's own attribution, and the effect with later components frozen",
        )?;
    Ok(Section::new("Self-repair").paragraph(text).block(Block::Table(block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_gets_smaller_and_keeps_its_sign_is_given_back() {
        assert!(is_given_back(0.024, 0.01) && is_given_back(-0.2, 0.0));
        assert!(!is_given_back(0.024, -0.235) && !is_given_back(-0.1, -0.2) && !is_given_back(0.1, -0.05));
    }
}
