//! A table of effects, read back: its figures, its report's table, and what it says in a sentence.

use super::{Edited, GROUPS, INTERVAL, OfSubset, Row, SIGNIFICANT};
use crate::analyses::halves::{Moved, Order, Shown};
use crate::analyses::inputs::unit_label;
use crate::analyses::interchange::Direction;
use crate::analyses::marks::Mark;
use crate::analyses::power::Power;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Estimate, Forest, ForestRow, Heatmap};
use crate::names::short_name;
use crate::report::cells::{self, p_value, plural, share, share_interval, signed};

/// What effects are measured in, for axes.
const VALUE: &str = "effect on the logit difference (nats)";

/// What stands where a unit was not run.
const ONLY_ESTIMATED: &str = "only estimated";

/// How many groups and languages a report lists.
const SUBSETS_LISTED: usize = 16;

/// How many units a report's table and forest plot list.
const LISTED: usize = 12;

/// A table of effects, read back: what figures and text need of it.
pub struct Read<'a, E: Edited> {
    pub model: String,
    pub site: String,
    pub position: String,
    /// The variants in the table's order.
    pub variants: Vec<&'a str>,
    /// What a dot in a heatmap says, for each variant.
    rules: Vec<String>,
    /// The largest effect of any variant at any place of the table: the end of all maps' scales, so that they can be compared.
    largest: Option<f64>,
    pub rows: Vec<Row<'a, E>>,
}

impl<E: Edited> Row<'_, E> {
    /// What rows are ordered by: whether there is an effect, and its size, or that of its estimate.
    fn strength(&self) -> (bool, f64) {
        (self.effect_mean.is_some(), self.effect_mean.or(self.estimate_mean).map_or(0.0, f64::abs))
    }

    /// The order of rows from the strongest on.
    fn before(&self, other: &Self) -> std::cmp::Ordering {
        let ((a, x), (b, y)) = (self.strength(), other.strength());
        b.cmp(&a).then(y.total_cmp(&x))
    }

    fn significant(&self) -> bool {
        self.q_value.is_some_and(|q| q < SIGNIFICANT)
    }

    fn dotted(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.marked)
    }

    /// How far the metric has to go to the other prompt's, on average over the items, nats; none where the row was not run or there
    /// is no way to go. An ablation has no other prompt.
    pub fn gap(&self) -> Option<f64> {
        let (from, to) = match self.variant == Direction::Sufficiency.name() {
            true => (self.negative_mean?, self.positive_mean?),
            false => (self.positive_mean?, self.negative_mean?),
        };
        Some(to - from).filter(|gap| *gap != 0.0)
    }

    /// The share of the gap between the two prompts' mean metrics that an exchange crosses: a ratio of means, not the mean of
    /// each pair's ratio, which the pairs with next to no gap rule. None where there is no other prompt, or no gap.
    pub fn crossed(&self) -> Option<f64> {
        Some(self.effect_mean? / self.gap()?).filter(|share| share.is_finite())
    }

    /// What of the gap or the base the effect is: as the table says, or, in an older one, of the gap.
    fn part(&self) -> Option<f64> {
        self.share.value.or_else(|| self.crossed())
    }
}

/// Reads a table of effects back.
///
/// # Errors
/// If it is not one.
pub fn read<E: Edited>(table: &Table) -> Result<Read<'_, E>, AnalysisError> {
    let rows = marked_rows(table)?;
    let largest = largest(&rows);
    Ok(of_rows(rows, largest))
}

/// Reads a table of effects back, each place by itself: one, or one a span.
///
/// # Errors
/// If it is not one.
pub fn read_places<E: Edited>(table: &Table) -> Result<Vec<Read<'_, E>>, AnalysisError> {
    let rows = marked_rows::<E>(table)?;
    let largest = largest(&rows);
    let same = |a: &Row<E>, b: &Row<E>| a.position == b.position;
    Ok(rows.chunk_by(same).map(|rows| of_rows(rows.to_vec(), largest)).collect())
}

fn marked_rows<E: Edited>(table: &Table) -> Result<Vec<Row<'_, E>>, AnalysisError> {
    let mut rows = Row::<E>::read(table)?;
    for row in &mut rows {
        row.mark.get_or_insert_with(|| Mark::by_q(row.q_value));
    }
    Ok(rows)
}

fn largest<E: Edited>(rows: &[Row<E>]) -> Option<f64> {
    rows.iter().filter_map(|r| Some(r.effect_mean?.abs())).reduce(f64::max)
}

fn of_rows<E: Edited>(rows: Vec<Row<'_, E>>, largest: Option<f64>) -> Read<'_, E> {
    let mut variants: Vec<&str> = Vec::new();
    for row in &rows {
        if !variants.contains(&row.variant) {
            variants.push(row.variant);
        }
    }
    let first = rows.first().cloned().unwrap_or_default();
    Read {
        model: short_name(first.model),
        site: first.site.to_string(),
        position: first.position.to_string(),
        rules: variants.iter().map(|name| rule(&rows, name)).collect(),
        largest,
        variants,
        rows,
    }
}

/// The rule of a variant's dots.
fn rule<E: Edited>(rows: &[Row<E>], variant: &str) -> String {
    let mark = rows.iter().find(|r| r.variant == variant).and_then(|r| r.mark.as_ref());
    mark.map_or(String::new(), Mark::rule)
}

/// An interval in nats as a cell.
pub fn interval(interval: Option<(f64, f64)>) -> String {
    cells::interval(interval.map(|i| i.0), interval.map(|i| i.1), 3)
}

impl<'a, E: Edited> Read<'a, E> {
    /// A variant's rows, the strongest first.
    pub fn strongest(&self, variant: &str) -> Vec<&Row<'a, E>> {
        let mut rows: Vec<&Row<E>> = self.rows.iter().filter(|r| r.variant == variant).collect();
        rows.sort_by(|a, b| a.before(b));
        rows
    }

    /// What a unit is called.
    pub fn label(&self, row: &Row<E>) -> String {
        unit_label(&self.site, row.layer, row.head)
    }

    fn by_head(&self) -> bool {
        self.rows.iter().any(|r| r.head >= 0)
    }

    /// What the site is in words, with the name by which commands know it: `head outputs (z)`.
    pub fn site_words(&self) -> String {
        let words = match self.site.as_str() {
            "z" => "head outputs",
            "q" | "rot_q" => "queries",
            "k" | "rot_k" => "keys",
            "v" => "values",
            "pattern" => "attention patterns",
            "attn_out" => "attention outputs",
            "mlp_out" => "MLP outputs",
            "state" => "recurrent states",
            "resid_pre" | "resid_mid" | "resid_post" => "the residual stream",
            other => return other.to_string(),
        };
        format!("{words} ({})", self.site)
    }

    /// What is in a subtitle: model, items, position.
    fn subtitle(&self, what: &str, items: &str) -> String {
        let n = self.rows.iter().map(|r| r.n).max().unwrap_or(0);
        format!("{}, {}, {what}, {}", self.model, plural(n, items), self.place())
    }

    /// Where the edits are: `last position`.
    pub fn place(&self) -> String {
        match self.position.as_str() {
            "last" => "last position".to_string(),
            "all" => "all positions".to_string(),
            other if self.span().is_some() => format!("span {other}"),
            other => format!("position {other}"),
        }
    }

    /// The span that the edits are at, where they are at one.
    fn span(&self) -> Option<&str> {
        Some(self.position.as_str()).filter(|name| !name.is_empty() && name.parse::<Position>().is_err())
    }

    /// What is called `name`, where the edits are at a span: `name at S2`.
    pub fn at_place(&self, name: &str) -> String {
        self.span().map_or(name.to_string(), |span| format!("{name} at {span}"))
    }

    /// The file of a figure; of a span with its name: `forest-S2.png`.
    pub fn file(&self, stem: &str) -> String {
        self.span().map_or(format!("{stem}.png"), |span| format!("{stem}-{span}.png"))
    }

    /// Over how many items effects and estimates are; estimates may be over fewer.
    pub fn items(&self) -> (i64, i64) {
        let of = |run: bool| self.rows.iter().filter(|r| r.effect_mean.is_some() == run).map(|r| r.n).max();
        let exact = of(true).unwrap_or(0);
        (exact, of(false).unwrap_or(exact))
    }

    /// What shares are of, in words.
    fn whole() -> &'static str {
        if E::SHARE_OF == "base" { "clean logit difference" } else { E::SHARE_OF }
    }

    /// The effects of one variant: layer by head, or by layer for whole sites.
    pub fn map(&self, title: &str, what: &str, items: &str, variant: &str) -> Figure {
        let rows: Vec<&Row<E>> = self.rows.iter().filter(|r| r.variant == variant).collect();
        let subtitle = self.subtitle(what, items);
        if !self.by_head() {
            let point = |y: Option<f64>, r: &Row<E>, interval| CurvePoint { x: r.layer as f64, y, interval };
            let exact = rows.iter().map(|r| point(r.effect_mean, r, r.interval)).collect();
            let mut curves = vec![Curve { name: self.site.clone(), role: CurveRole::Series, points: exact }];
            if rows.iter().any(|r| r.estimate_mean.is_some()) {
                let points = rows.iter().map(|r| point(r.estimate_mean, r, None)).collect();
                let name = "estimate, to first order".to_string();
                curves.push(Curve { name, role: CurveRole::Series, points });
            }
            return Figure::from(Curves {
                title: title.to_string(),
                subtitle,
                x_label: "layer".to_string(),
                y_label: VALUE.to_string(),
                curves,
                interval_meaning: Some(INTERVAL.to_string()),
                ..Curves::default()
            });
        }
        let cell = |r: &&Row<E>| (r.layer as usize, r.head as usize, r.effect_mean, r.dotted());
        let (values, marks) = Heatmap::of_heads(rows.iter().map(cell));
        let mark_meaning = (!marks.is_empty()).then(|| self.rule(variant).to_string());
        Figure::from(Heatmap {
            title: title.to_string(),
            subtitle,
            x_label: if matches!(self.site.as_str(), "k" | "v" | "rot_k") { "KV head" } else { "head" }.to_string(),
            y_label: "layer".to_string(),
            value_label: VALUE.to_string(),
            values,
            marks,
            mark_meaning,
            missing_meaning: Some(ONLY_ESTIMATED.to_string()),
            limit: self.largest,
            ..Heatmap::default()
        })
    }

    /// What a dot says of a unit under a variant.
    fn rule(&self, variant: &str) -> &str {
        self.variants.iter().position(|v| *v == variant).map_or("", |at| &self.rules[at])
    }

    /// What is under the figure of a variant's effects.
    pub fn caption(&self, variant: &str) -> String {
        let of = || self.rows.iter().filter(|r| r.variant == variant);
        let dots = match self.by_head() && of().any(|r| r.dotted()) {
            true => format!(" Dots mark {}.", self.rule(variant)),
            false => String::new(),
        };
        let missing = match self.by_head() && of().any(|r| r.effect_mean.is_none()) {
            true => " Heads that were only estimated are hatched.",
            false => "",
        };
        format!("Mean effects; all are in heads.parquet.{missing}{dots}")
    }

    /// The strongest units of each variant that were run, with their halves. `subject` is the edit, and `named` what it is called
    /// under a variant.
    fn shown<'s>(&self, subject: &'s str, named: impl Fn(&str) -> String, items: &str) -> Vec<(Shown<'s>, Vec<Moved>)> {
        let of = |(at, variant): (usize, &&str)| {
            let shown = Shown {
                file: self.file(&if at == 0 { "halves".to_string() } else { format!("halves-{variant}") }),
                title: format!("{}: answer and foil apart", self.at_place(&named(variant))),
                subtitle: format!("{}, {}, {}", self.model, plural(self.items().0, items), self.place()),
                what: "effect",
                subject,
                order: Order::Largest,
                ..Shown::default()
            };
            let run = self.strongest(variant).into_iter().filter(|r| r.effect_mean.is_some()).take(LISTED);
            (shown, run.map(|r| Moved { label: self.label(r), whole: r.effect_mean, halves: r.halves }).collect())
        };
        self.variants.iter().enumerate().map(of).collect()
    }

    /// The halves of each variant's strongest units as figures; none of a table without halves.
    pub fn halves_figures(&self, subject: &str, named: impl Fn(&str) -> String, items: &str) -> Figures {
        let figure = |(shown, rows): (Shown, Vec<Moved>)| Some((shown.file.clone(), shown.figure(&rows)?));
        self.shown(subject, named, items).into_iter().filter_map(figure).collect()
    }

    /// The same as a report's sections, in numbers and words.
    pub fn halves_sections(
        &self,
        subject: &str,
        named: impl Fn(&str) -> String,
        items: &str,
        dir: &Path,
    ) -> Vec<Section> {
        let shown = self.shown(subject, named, items).into_iter().enumerate();
        shown.filter_map(|(at, (shown, rows))| shown.section(&rows, dir, at == 0)).collect()
    }

    /// What is under the forest plot; `variant` is what a variant is called.
    pub fn forest_caption(&self, variant: &str) -> String {
        let (each, of) = match self.variants.len() {
            1 => (LISTED, String::new()),
            n => (LISTED.div_ceil(n), format!(" of each {variant}")),
        };
        format!("The {each} strongest{of} with their intervals, by layer as in the maps: the last one is on top.")
    }

    /// The strongest units of any variant with their intervals in each; as in maps the first layer is at the bottom.
    pub fn forest(&self, title: &str, items: &str) -> Figure {
        let mut units: Vec<(i64, i64)> = Vec::new();
        let each = LISTED.div_ceil(self.variants.len().max(1));
        for variant in &self.variants {
            let strongest = self.strongest(variant).into_iter().filter(|r| r.effect_mean.is_some()).take(each);
            units.extend(strongest.map(|r| (r.layer, r.head)));
        }
        units.sort_unstable_by(|a, b| b.cmp(a));
        units.dedup();
        let estimate = |unit: &(i64, i64), variant: &str| {
            let row = self.rows.iter().find(|r| (r.layer, r.head) == *unit && r.variant == variant)?;
            Some(Estimate { value: row.effect_mean?, interval: row.interval, marked: Some(row.significant()) })
        };
        let row = |unit: &(i64, i64)| ForestRow {
            label: unit_label(&self.site, unit.0, unit.1),
            estimates: self.variants.iter().map(|v| estimate(unit, v)).collect(),
        };
        Figure::from(Forest {
            title: title.to_string(),
            subtitle: self.subtitle("strongest units", items),
            value_label: VALUE.to_string(),
            series: self.variants.iter().map(|v| (*v).to_string()).collect(),
            rows: units.iter().map(row).collect(),
            mark_meaning: Some(format!("q < {SIGNIFICANT}")),
            interval_meaning: Some(INTERVAL.to_string()),
            missing_meaning: Some(ONLY_ESTIMATED.to_string()),
        })
    }

    /// A variant's strongest units as a report's table.
    pub fn listed(&self, section: Section, variant: &str) -> Section {
        let estimated = self.rows.iter().any(|r| r.estimate_mean.is_some());
        let share_of = format!("share of the {}", Self::whole());
        let numbers = ["effect (nats)", "95 % interval", &share_of, "95 % interval", "flip rate", "p", "q"];
        let mut header = vec![Heading::text("unit")];
        header.extend(numbers.map(Heading::number));
        // There is none where some were only estimated.
        let family_wise = self.rows.iter().any(|r| r.variant == variant && r.p_max.is_some());
        header.extend(family_wise.then(|| Heading::number("family-wise p")));
        let (exact, of_estimates) = self.items();
        if estimated {
            let fewer = if of_estimates < exact { format!(", over {of_estimates}") } else { String::new() };
            header.push(Heading::number(format!("estimate (nats{fewer})")));
        }
        let cells = |r: &Row<E>| {
            let mut cells = vec![
                self.label(r),
                signed(r.effect_mean, 3),
                interval(r.interval),
                share(r.part()),
                share_interval(r.share.interval),
                share(r.flip_rate),
                p_value(r.p_value),
                p_value(r.q_value),
            ];
            cells.extend(family_wise.then(|| p_value(r.p_max)));
            if estimated {
                cells.push(signed(r.estimate_mean, 3));
            }
            cells
        };
        let rows: Vec<Vec<String>> = self.strongest(variant).into_iter().take(LISTED).map(cells).collect();
        let how_many = match rows.len() {
            1 => "The strongest".to_string(),
            n => format!("The {n} strongest"),
        };
        let caption = format!("{how_many} by the size of the effect ({variant}); all are in heads.parquet");
        section.table(caption, header, rows)
    }

    /// Sentences on the strongest unit of a variant, on what its edit, the `subject`, moves, and on how many are significant; `item` is
    /// what effects are over, a pair or a prompt.
    pub fn finding(&self, variant: &str, subject: &str, item: &str) -> String {
        let rows = self.strongest(variant);
        let Some(first) = rows.first() else { return "Nothing was measured.".to_string() };
        let significant = rows.iter().filter(|r| r.significant()).count();
        let power = Power { items: first.n, item, tests: rows.len() };
        let power = if significant == 0 { power.sentence() } else { String::new() };
        let run = rows.iter().filter(|r| r.effect_mean.is_some()).count();
        let ends = first.share.interval.map_or(String::new(), |i| format!(" {}", share_interval(Some(i))));
        let of_gap = first.part().map_or(String::new(), |s| format!(", {} of the {}{ends}", share(s), Self::whole()));
        let estimated = match run < rows.len() {
            true => format!(" ({run} of them {} run, the others estimated)", if run == 1 { "was" } else { "were" }),
            false => String::new(),
        };
        let of_all = match significant {
            0 => format!("None of {}{estimated} has", rows.len()),
            1 => format!("1 of {}{estimated} has", rows.len()),
            n => format!("{n} of {}{estimated} have", rows.len()),
        };
        format!(
            "The strongest is **{}**: {} nats, 95 % interval {}{of_gap} (q {}).{} {of_all} q < {SIGNIFICANT}.{power}",
            self.label(first),
            signed(first.effect_mean, 3),
            interval(first.interval),
            p_value(first.q_value),
            first.halves.sentence(subject),
        )
    }
}

/// The section on groups and languages: for each, the strongest unit; none where items were not split.
///
/// # Errors
/// If the table is not one of effects.
pub fn subset_section<E: Edited>(tables: &[Table]) -> Result<Option<Section>, AnalysisError> {
    let Ok(groups) = table(tables, GROUPS) else { return Ok(None) };
    let read = read::<E>(groups)?;
    let by_span = read.rows.iter().any(|r| r.position != read.position);
    let mut header = vec![Heading::text("by"), Heading::text("value"), Heading::text(E::VARIANT.0)];
    header.extend(by_span.then(|| Heading::text("span")));
    header.extend([
        Heading::number("n"),
        Heading::text("strongest"),
        Heading::number("effect (nats)"),
        Heading::number("95 % interval"),
        Heading::number(format!("share of the {}", Read::<E>::whole())),
        Heading::number("95 % interval"),
        Heading::number("q"),
    ]);
    let place = |r: &Row<E>| by_span.then(|| r.position.to_string());
    let same = |a: &Row<E>, b: &Row<E>| (&a.subset, a.variant, a.position) == (&b.subset, b.variant, b.position);
    let best = |rows: &[Row<E>]| {
        let first = rows.iter().min_by(|a, b| a.before(b))?;
        let OfSubset { by, value } = first.subset.as_ref()?;
        let mut cells = vec![by.to_string(), value.to_string(), first.variant.to_string()];
        cells.extend(place(first));
        cells.extend([
            first.n.to_string(),
            read.label(first),
            signed(first.effect_mean, 3),
            interval(first.interval),
            share(first.part()),
            share_interval(first.share.interval),
            p_value(first.q_value),
        ]);
        Some(cells)
    };
    let mut rows: Vec<Vec<String>> = read.rows.chunk_by(same).filter_map(best).collect();
    let n = rows.len();
    rows.truncate(SUBSETS_LISTED);
    let rest = if n > rows.len() { format!(" The first {} of {n} are listed.", rows.len()) } else { String::new() };
    let too_small = |rows: &&[Row<E>]| {
        let power = Power { items: rows.first().map_or(0, |r| r.n), item: "item", tests: rows.len() };
        power.is_too_small() && !rows.iter().any(Row::significant)
    };
    let few = match read.rows.chunk_by(same).filter(too_small).count() {
        0 => String::new(),
        few => format!(
            " In {} the items are too few for any unit by itself to have q < {SIGNIFICANT}.",
            if few == n { "all rows".to_string() } else { format!("{few} of {n} rows") }
        ),
    };
    let section = Section::new("Groups and languages").paragraph(format!(
        "The table has each group and language by itself, with statistics over its own items. Every unit of each is in \
         groups.parquet.{rest}{few}"
    ));
    Ok(Some(section.table("The strongest unit of each", header, rows)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::effects::tests::measured;
    use crate::analyses::effects::{Measured, Shared, effects_tables};
    use crate::analyses::inputs::Unit;
    use crate::analyses::interchange::Exchange;
    use crate::analyses::marks::MarkArgs;
    use crate::analyses::summary::Swap;
    use crate::site::SiteKind;

    fn table_of(rows: &dyn Fn() -> Vec<Measured>) -> Table {
        let shared = Shared { model: "m", seed: 0, positive: Some("necessity"), marks: MarkArgs::default() };
        effects_tables::<Exchange>(&shared, std::iter::empty(), |_| rows()).unwrap().remove(0)
    }

    #[test]
    fn the_share_of_the_gap_is_the_ratio_of_means_whatever_a_pair_without_much_of_a_gap_says() {
        let swap = |base, other, patched| Swap { base, other: Some(other), patched, answer: None };
        // Gaps of 4 and 0.01; the pairs' own ratios are 0.25 and -50, the means' 0.25 / 2.005.
        let swaps = |sign: f64| vec![swap(sign * 2.0, sign * -2.0, sign), swap(0.0, sign * -0.01, sign * 0.5)];
        let table = table_of(&|| {
            let of = |variant, sign| Measured { swaps: swaps(sign), ..measured(0, variant, &[], &[]) };
            vec![of("necessity", 1.0), of("sufficiency", -1.0)]
        });
        let heads = read::<Exchange>(&table).unwrap();
        for row in &heads.rows {
            assert!((row.crossed().unwrap() - 0.25 / 2.005).abs() < 1e-12);
            assert!(
                heads.finding(row.variant, "It", "pair").contains(", 12.5\u{a0}% of the gap"),
                "{}",
                heads.finding(row.variant, "It", "pair")
            );
        }
        assert!(table.floats("effect_normalized").unwrap().iter().all(|n| n.unwrap() < -24.0));
    }

    #[test]
    fn what_too_few_items_can_show_is_said_as_a_number() {
        let effects: Vec<f64> = (0..12).map(|i| if i < 6 { 0.1 } else { -0.1 }).collect();
        let table = table_of(&|| (0..270).map(|head| measured(head, "necessity", &effects, &[])).collect());
        let finding = read::<Exchange>(&table).unwrap().finding("necessity", "It", "pair");
        let expected = "None of 270 has q < 0.05. **12 pairs are too few to tell**: no p-value can be under 1/2048";
        assert!(finding.contains(expected), "{finding}");
    }

    #[test]
    fn what_was_run_and_what_was_only_estimated_is_told() {
        let table = table_of(&|| {
            let of = |head, effects: &[f64]| measured(head, "necessity", effects, &[3.0, 3.0, 3.0]);
            vec![of(0, &[1.0, 2.0, 1.5]), of(1, &[])]
        });
        let heads = read::<Exchange>(&table).unwrap();
        let finding = heads.finding("necessity", "It", "pair");
        assert!(finding.contains("(1 of them was run, the others estimated)"), "{finding}");
        let all = table_of(&|| vec![measured(0, "necessity", &[1.0, 2.0, 1.5], &[])]);
        let finding = read::<Exchange>(&all).unwrap().finding("necessity", "It", "pair");
        assert!(!finding.contains("estimated"), "{finding}");
    }

    #[test]
    fn a_place_is_a_word_a_position_or_a_span() {
        let table = table_of(&|| vec![measured(0, "necessity", &[1.0, 2.0], &[])]);
        let mut heads = read::<Exchange>(&table).unwrap();
        let mut place = |position: &str| {
            heads.position = position.into();
            heads.place()
        };
        let words = ["last", "all", "-2", "S2"].map(&mut place);
        assert_eq!(words, ["last position", "all positions", "position -2", "span S2"]);
    }

    #[test]
    fn whole_sites_that_were_only_estimated_are_a_curve_of_their_own() {
        let site = |layer, effects: &[f64]| Measured {
            unit: Unit { site: SiteKind::ResidPre.at(layer), head: None },
            ..measured(0, "necessity", effects, &[3.0, 3.0])
        };
        let table = table_of(&|| vec![site(0, &[1.0, 1.0]), site(1, &[])]);
        let heads = read::<Exchange>(&table).unwrap();
        let Figure::Curves(curves) = heads.map("title", "what", "pair", "necessity") else { panic!("no curves") };
        let points = |k: usize| curves.curves[k].points.iter().map(|p| p.y).collect::<Vec<_>>();
        assert_eq!((points(0), points(1)), (vec![Some(1.0), None], vec![Some(3.0), Some(3.0)]));
    }
}
