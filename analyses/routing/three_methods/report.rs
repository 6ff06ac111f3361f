//! The comparison's figures and words, from its tables alone.

use super::agreement::{AgreementRow, Ranks};
use super::{HeadRow, Method, MissedRow};
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::halves::{Halves, Moved, Order, Shown, moved};
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::figure::{Scatter, ScatterPoint};
use crate::names::short_name;
use crate::report::cells::{self, number, plural, share, share_interval, signed};
use crate::table::rows::Column;
use std::collections::HashMap;

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
    interchange: Vec<Method>,
    ablation: Vec<Method>,
    dla: Vec<Method>,
    ranks: [Vec<i64>; 3],
}

impl<'a> Heads<'a> {
    fn of(tables: &'a [Table]) -> Result<Self, AnalysisError> {
        let table = table(tables, HeadRow::TABLE)?;
        let heads = table.column(HeadRow::layer)?.into_iter().zip(table.column(HeadRow::head)?);
        let rank = |column| table.column(column);
        Ok(Heads {
            table,
            model: short_name(table.column(HeadRow::model)?.first().copied().unwrap_or_default()),
            n: table.column(HeadRow::n)?.first().copied().unwrap_or(0),
            labels: heads.map(|(layer, head)| cells::head(layer, head)).collect(),
            interchange: table.column(HeadRow::interchange)?,
            ablation: table.column(HeadRow::ablation)?,
            dla: table.column(HeadRow::dla)?,
            ranks: [rank(HeadRow::rank_interchange)?, rank(HeadRow::rank_ablation)?, rank(HeadRow::rank_dla)?],
        })
    }

    /// What the methods say, in the order of [`METHODS`].
    fn methods(&self) -> [&[Method]; 3] {
        [&self.interchange, &self.ablation, &self.dla]
    }

    /// The number of the head that is first by a method.
    fn first_by(&self, method: usize) -> Option<usize> {
        self.ranks[method].iter().position(|rank| *rank == 1)
    }

    /// The intervals of the shares of the gap that heads cross under interchange, by their labels; none of older tables.
    fn crossed(&self) -> Result<HashMap<&str, (f64, f64)>, AnalysisError> {
        let crossed = self.table.column(HeadRow::interchange_crossed)?;
        let ends = self.labels.iter().zip(crossed);
        Ok(ends.filter_map(|(label, of)| Some((label.as_str(), of.interval?))).collect())
    }

    /// What all figures of halves share.
    fn shown(&self) -> Shown<'static> {
        let subtitle = format!("{}, {}, positive prompts, last position", self.model, plural(self.n, "pair"));
        Shown { subtitle, order: Order::Largest, ..Shown::default() }
    }

    /// The halves of the heads whose whole is largest; heads without one are left out.
    fn strongest_apart(
        &self,
        shown: Shown<'static>,
        whole: Vec<Option<f64>>,
        halves: Column<Halves>,
    ) -> Result<(Shown<'static>, Vec<Moved>), AnalysisError> {
        let size = |i: &usize| whole[*i].map_or(0.0, f64::abs);
        let mut strongest: Vec<usize> = (0..whole.len()).filter(|i| whole[*i].is_some()).collect();
        strongest.sort_by(|a, b| size(b).total_cmp(&size(a)));
        strongest.truncate(LISTED);
        let labelled = strongest.into_iter().map(|i| (i, self.labels[i].clone()));
        Ok((shown, moved(self.table.column(halves)?, whole, labelled)))
    }

    /// The effect of interchange against another method's, times a sign; the strongest of both are named.
    fn scatter(&self, title: &str, (y_label, method, sign): (&str, usize, f64)) -> Figure {
        let named = |i: usize| self.ranks[0][i] <= NAMED || self.ranks[method][i] <= NAMED;
        let point = |i: usize| {
            let name = named(i).then(|| self.labels[i].clone());
            Some(ScatterPoint {
                x: self.interchange[i].mean?,
                y: sign * self.methods()[method][i].mean?,
                name,
                series: 0,
            })
        };
        Figure::from(Scatter {
            title: title.to_string(),
            subtitle: format!("{}, {}, positive prompts, last position", self.model, plural(self.n, "pair")),
            x_label: "effect of interchange (nats)".to_string(),
            y_label: y_label.to_string(),
            identity: true,
            series: Vec::new(),
            named_meaning: Some(format!("the first {NAMED} by either method")),
            points: (0..self.labels.len()).filter_map(point).collect(),
        })
    }
}

/// ` The rank correlation of the sizes is 0.43 (95 % interval [0.33, 0.52]).` of two methods.
fn correlation(agreement: &Table, first: &str, second: &str) -> Result<String, AnalysisError> {
    let firsts = agreement.column(AgreementRow::first)?.into_iter().zip(agreement.column(AgreementRow::second)?);
    let at = firsts.into_iter().position(|both| both == (first, second));
    let Some(at) = at else { return Ok(String::new()) };
    let size = agreement.column(AgreementRow::size)?[at];
    let (low, high) = size.interval.unzip();
    let ends = cells::interval(low, high, 2);
    Ok(size.correlation.map_or(String::new(), |r| {
        format!(" The rank correlation of the sizes is {} (95 % interval {ends}).", number(r, 2))
    }))
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let heads = Heads::of(tables)?;
    let mut figures = vec![
        (
            "agreement.png".to_string(),
            heads.scatter("Heads under interchange and zero ablation", ("effect of zero ablation (nats)", 1, 1.0)),
        ),
        (
            "dla.png".to_string(),
            heads.scatter("Heads under interchange and by attribution", ("attribution, sign turned (nats)", 2, -1.0)),
        ),
    ];
    for (shown, rows) in apart(&heads)? {
        figures.extend(shown.figure(&rows).map(|figure| (shown.file, figure)));
    }
    Ok(figures)
}

/// Each method: what reports call it, what it measures, and who moves answer and foil.
const METHODS: [[&str; 3]; 3] = [
    ["interchange", "effect", "the exchange"],
    ["ablation", "effect", "the ablation"],
    ["attribution", "attribution", "the head"],
];

/// The columns of each method.
const METHOD_COLUMNS: [Column<Method>; 3] = [HeadRow::interchange, HeadRow::ablation, HeadRow::dla];

/// The halves of each method's strongest heads, then of what is left of the two exchanges where later components are frozen.
fn apart(heads: &Heads) -> Result<Vec<(Shown<'static>, Vec<Moved>)>, AnalysisError> {
    let halves = [HeadRow::interchange_halves, HeadRow::ablation_halves, HeadRow::dla_halves];
    let of = |(at, (methods, halves)): (usize, (&[Method], Column<Halves>))| {
        let [name, what, subject] = METHODS[at];
        let file = if at == 0 { "halves.png".to_string() } else { format!("halves-{name}.png") };
        let title = format!("{}: answer and foil apart", cells::capitalised(name));
        let shown = Shown { file, title, what, subject, ..heads.shown() };
        let whole = methods.iter().map(|method| method.mean).collect();
        heads.strongest_apart(shown, whole, halves)
    };
    let frozen = |(at, (whole, halves)): (usize, (Column<Option<f64>>, Column<Halves>))| {
        let [name, what, subject] = METHODS[at];
        let file = format!("halves-{name}-frozen.png");
        let title = format!("{}, later components frozen: answer and foil apart", cells::capitalised(name));
        let shown = Shown { file, title, what, subject, ..heads.shown() };
        heads.strongest_apart(shown, heads.table.column(whole)?, halves)
    };
    let of_frozen = [
        (HeadRow::interchange_frozen_mean, HeadRow::interchange_frozen_halves),
        (HeadRow::ablation_frozen_mean, HeadRow::ablation_frozen_halves),
    ];
    let methods = heads.methods().into_iter().zip(halves).enumerate().map(of);
    methods.chain(of_frozen.into_iter().enumerate().map(frozen)).collect()
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let heads = Heads::of(tables)?;
    let [interchange, ablation, dla] = METHOD_COLUMNS.map(|method| method.with(Method::mean));
    let [interchange_q, ablation_q, _] = METHOD_COLUMNS.map(|method| method.with(Method::q));
    let listing = Listing::of(heads.table)
        .strongest(&interchange)
        .first(LISTED)
        .column("head", Show::Head(HeadRow::layer.name, HeadRow::head.name))
        .column("interchange (nats)", Show::Signed(&interchange, 3))
        .column("q", Show::PValue(&interchange_q))
        .column("ablation (nats)", Show::Signed(&ablation, 3))
        .column("q", Show::PValue(&ablation_q))
        .column("attribution (nats)", Show::Signed(&dla, 3))
        .column("share of all attributions", Show::Share(HeadRow::dla_share.name))
        .column("rank: interchange", Show::Count(HeadRow::rank_interchange.name))
        .column("ablation", Show::Count(HeadRow::rank_ablation.name))
        .column("attribution", Show::Count(HeadRow::rank_dla.name));
    let [size, signed] = [AgreementRow::size, AgreementRow::signed].map(|ranks| ranks.with(Ranks::interval));
    let [size_ceiling, signed_ceiling] =
        [AgreementRow::size, AgreementRow::signed].map(|ranks| ranks.with(Ranks::ceiling));
    let agreement = Listing::of(table(tables, AgreementRow::TABLE)?)
        .column("method", Show::Text(AgreementRow::first.name))
        .column("against", Show::Text(AgreementRow::second.name))
        .column("Spearman of sizes", Show::Signed(AgreementRow::size.name, 2))
        .column("95 % interval", Show::Interval(&size, 2))
        .column("ceiling", Show::Number(&size_ceiling, 2))
        .column("signed", Show::Signed(AgreementRow::signed.name, 2))
        .column("95 % interval", Show::Interval(&signed, 2))
        .column("ceiling", Show::Number(&signed_ceiling, 2))
        .column("shared of the top", Show::Count(AgreementRow::overlap.name))
        .column("by chance", Show::Number(AgreementRow::overlap_expected.name, 1))
        .column("p", Show::PValue(AgreementRow::overlap_p.name));
    let ceiling = "The ceiling is about how much agreement the noise of the means leaves room for: each method's own correlation \
                   between the halves of the pairs, not corrected for their being halves. Means over all pairs can agree more.";
    let agrees = |method| correlation(table(tables, AgreementRow::TABLE)?, "interchange", method);
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
    let mut sections = vec![main, missed_section(table(tables, MissedRow::TABLE)?, &heads)?];
    let apart = apart(&heads)?.into_iter().enumerate();
    sections.extend(apart.filter_map(|(at, (shown, rows))| shown.section(&rows, dir, at == 0)));
    sections.push(repair_section(&heads)?);
    Ok(sections)
}

/// The first head of each method, and where the others rank it.
fn finding(heads: &Heads) -> Result<String, AnalysisError> {
    let mut text = format!("Over {}, on the positive prompts.", plural(heads.n, "pair"));
    if let Some(i) = heads.first_by(0) {
        text += &format!(
            " Interchange names **{}** first ({} nats); ablation ranks it {}, attribution {} with {} of all attributions.",
            heads.labels[i],
            signed(heads.interchange[i].mean, 3),
            heads.ranks[1][i],
            heads.ranks[2][i],
            share(heads.table.column(HeadRow::dla_share)?[i]),
        );
    }
    if let Some(i) = heads.first_by(1) {
        text += &format!(
            " Ablation names **{}** first ({} nats), interchange ranks it {}.",
            heads.labels[i],
            signed(heads.ablation[i].mean, 3),
            heads.ranks[0][i]
        );
    }
    if let Some(i) = heads.first_by(2) {
        text += &format!(
            " Attribution names **{}** first ({} nats), interchange ranks it {}.",
            heads.labels[i],
            signed(heads.dla[i].mean, 3),
            heads.ranks[0][i]
        );
    }
    // All three methods are tested over the same pairs and heads.
    let significant = heads.methods().into_iter().flatten().any(|method| method.q.is_some_and(|q| q < SIGNIFICANT));
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
    let (by_ablation, by_dla) = (missed.column(MissedRow::ablation_misses)?, missed.column(MissedRow::dla_misses)?);
    let labels: Vec<String> = missed
        .column(MissedRow::layer)?
        .into_iter()
        .zip(missed.column(MissedRow::head)?)
        .map(|(l, h)| cells::head(l, h))
        .collect();
    let (shares, ends) = (missed.column(MissedRow::share_of_gap)?, heads.crossed()?);
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
            &by_ablation,
            "",
            [
                "because silence is not what the head holds in the negative prompts, or because later components take its part over",
                "because silence is not what heads hold in the negative prompts, or because later components take their part over",
            ]
        ),
        misses(
            &by_dla,
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
        .column("head", Show::Head(MissedRow::layer.name, MissedRow::head.name))
        .column("interchange (nats)", Show::Signed(MissedRow::interchange_mean.name, 3))
        .column("share of gap", Show::Share(MissedRow::share_of_gap.name))
        .column("ablation (nats)", Show::Signed(MissedRow::ablation_mean.name, 3))
        .column("q", Show::PValue(MissedRow::ablation_q.name))
        .column("ablation misses", Show::Flag(MissedRow::ablation_misses.name))
        .column("share of attributions", Show::Share(MissedRow::dla_share.name))
        .column("attribution misses", Show::Flag(MissedRow::dla_misses.name))
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
    let frozen = heads.table.column(HeadRow::ablation_frozen_mean)?;
    let of = |i: usize| Some((i, frozen[i].filter(|f| f.abs() >= DIRECT)?, heads.ablation[i].mean?));
    let writers: Vec<(usize, f64, f64)> = (0..frozen.len()).filter_map(of).collect();
    let given_back = writers.iter().filter(|(_, f, t)| is_given_back(*f, *t)).count();
    let furthest = writers.iter().max_by(|a, b| (a.1 - a.2).abs().total_cmp(&(b.1 - b.2).abs()));
    let halves = heads.table.column(HeadRow::ablation_frozen_halves)?;
    let named = furthest.map_or(String::new(), |(i, f, t)| {
        format!(
            " Furthest from its direct effect is {}: {} nats with later components frozen, {} in the end.{}",
            heads.labels[*i],
            signed(*f, 3),
            signed(*t, 3),
            halves[*i].sentence("With them frozen, its ablation"),
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
    let [interchange, ablation, _] = METHOD_COLUMNS.map(|method| method.with(Method::mean));
    let block = Listing::of(heads.table)
        .strongest(&interchange)
        .first(LISTED)
        .column("head", Show::Head(HeadRow::layer.name, HeadRow::head.name))
        .column("interchange (nats)", Show::Signed(&interchange, 3))
        .column("own attribution", Show::Signed(HeadRow::interchange_direct_mean.name, 3))
        .column("later frozen", Show::Signed(HeadRow::interchange_frozen_mean.name, 3))
        .column("ablation (nats)", Show::Signed(&ablation, 3))
        .column("own attribution", Show::Signed(HeadRow::ablation_direct_mean.name, 3))
        .column("later frozen", Show::Signed(HeadRow::ablation_frozen_mean.name, 3))
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
