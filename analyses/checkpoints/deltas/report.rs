//! Figures and text of children, from their tables.

use super::tables::{ChildRow, ClusterRow, CutRow, DEALT, DistanceRow, LABELS, MapRow, SumRow, TREE};
use crate::analyses::checkpoints::paths::short_names;
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::prelude::*;
use crate::figure::heatmap::MOST_CELLS;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Heatmap, MOST_SERIES, Scatter, ScatterPoint};
use crate::names::short_name;
use crate::report::cells::{self, number, p_value, plural, share, signed};
use crate::stats::beyond_zero;

const MAP: &str = "map.png";
const DISTANCES: &str = "distances.png";
const CUTS: &str = "cuts.png";

/// How many children a table lists, and how many have their names on the map.
const LISTED: usize = 40;
const NAMED: usize = 24;

/// How long the name of a heatmap's row is, in letters.
const LETTERS: usize = 7;

/// What the tables say of the children.
struct Read<'a> {
    children: Vec<ChildRow<'a>>,
    distances: Vec<DistanceRow<'a>>,
    clusters: Vec<ClusterRow<'a>>,
    cuts: Vec<CutRow<'a>>,
    places: Vec<MapRow<'a>>,
    sums: Vec<SumRow<'a>>,
    /// The children's names, as short as tells them apart.
    short: Vec<String>,
}

impl<'a> Read<'a> {
    fn of(tables: &'a [Table]) -> Result<Self, AnalysisError> {
        let children = ChildRow::read(table(tables, ChildRow::TABLE)?)?;
        let short = short_names(&children.iter().map(|row| row.model).collect::<Vec<_>>());
        let sums = table(tables, SumRow::TABLE).ok().map(SumRow::read).transpose()?.unwrap_or_default();
        Ok(Read {
            children,
            distances: DistanceRow::read(table(tables, DistanceRow::TABLE)?)?,
            clusters: ClusterRow::read(table(tables, ClusterRow::TABLE)?)?,
            cuts: CutRow::read(table(tables, CutRow::TABLE)?)?,
            places: MapRow::read(table(tables, MapRow::TABLE)?)?,
            sums,
            short,
        })
    }

    /// The short name of a child.
    fn short(&self, model: &str) -> &str {
        let at = self.children.iter().position(|row| row.model == model);
        at.map_or("", |at| self.short[at].as_str())
    }

    fn prompts(&self) -> i64 {
        self.children.first().map_or(0, |row| row.n)
    }

    fn parent(&self) -> String {
        short_name(self.children.first().map_or("", |row| row.parent))
    }

    fn subtitle(&self) -> String {
        let (children, prompts) = (self.children.len() as i64, plural(self.prompts(), "prompt"));
        // `plural` knows regular plurals alone.
        let children = if children == 1 { "1 child".to_string() } else { format!("{children} children") };
        format!("{children} of {}, {prompts}", self.parent())
    }

    /// The kinds, each once; none where they could not be told apart.
    fn kinds(&self) -> Vec<&'a str> {
        let mut kinds: Vec<&str> = self.places.iter().filter_map(|row| row.label).collect();
        kinds.sort_unstable();
        kinds.dedup();
        // One more is of children without a kind.
        if kinds.len() < MOST_SERIES { kinds } else { Vec::new() }
    }

    /// Children on two axes, by kind; none where none has a place.
    fn map(&self) -> Option<Figure> {
        let (first, kinds) = (self.places.first()?, self.kinds());
        let without = self.places.iter().any(|row| row.label.is_none());
        let series = kinds.iter().map(|kind| (*kind).to_string());
        let series = series.chain((without && !kinds.is_empty()).then(|| "no kind".to_string())).collect();
        let point = |row: &MapRow| ScatterPoint {
            x: row.x,
            y: row.y,
            name: (self.places.len() <= NAMED).then(|| self.short(row.model).to_string()),
            series: kinds.iter().position(|kind| Some(*kind) == row.label).unwrap_or(kinds.len()),
        };
        Some(Figure::from(Scatter {
            title: "Which children are alike".to_string(),
            subtitle: self.subtitle(),
            x_label: format!("first axis ({} of the spread)", share(first.x_share)),
            y_label: format!("second axis ({} of the spread)", share(first.y_share)),
            identity: false,
            series,
            named_meaning: None,
            points: self.places.iter().map(point).collect(),
        }))
    }

    /// The cosine distance of each two children; none of one alone, and of more than can be drawn.
    fn heatmap(&self) -> Option<Figure> {
        let n = self.children.len();
        if !(2..=MOST_CELLS).contains(&n) || self.distances.iter().all(|row| row.cosine.is_none()) {
            return None;
        }
        let mut values = vec![vec![None; n]; n];
        // The pairs are in the order of the children, the first of each before the second.
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        for ((i, j), row) in pairs.zip(&self.distances) {
            values[i][j] = row.cosine;
            values[j][i] = row.cosine;
        }
        let moved = (0..n).filter(|i| self.children[*i].norm > 0.0);
        moved.for_each(|i| values[i][i] = Some(0.0));
        Some(Figure::from(Heatmap {
            title: "How far children are from each other".to_string(),
            subtitle: self.subtitle(),
            x_label: "child".to_string(),
            y_label: "child".to_string(),
            value_label: "cosine distance".to_string(),
            values,
            missing_meaning: Some("a vector is 0".to_string()),
            row_names: self.short.iter().map(|name| end_of(name)).collect(),
            column_names: self.short.iter().map(|name| end_of(name)).collect(),
            from_zero: true,
            ..Heatmap::default()
        }))
    }

    /// The mean silhouette by the number of clusters; none where there is no cut.
    fn silhouettes(&self) -> Option<Figure> {
        let of_tree = self.cuts.iter().filter(|row| row.grouping == TREE);
        let points: Vec<CurvePoint> =
            of_tree.map(|row| CurvePoint { x: row.k as f64, y: row.silhouette, interval: None }).collect();
        let reference = self.labels().and_then(|row| Some((row.silhouette?, "the labels".to_string())));
        (!points.is_empty()).then(|| {
            Figure::from(Curves {
                title: "How well clusters fit".to_string(),
                subtitle: self.subtitle(),
                x_label: "clusters".to_string(),
                y_label: "mean silhouette".to_string(),
                curves: vec![Curve { name: "average linkage".to_string(), role: CurveRole::Series, points }],
                reference,
                ..Curves::default()
            })
        })
    }

    fn labels(&self) -> Option<&CutRow<'a>> {
        self.cuts.iter().find(|row| row.grouping == LABELS)
    }
}

/// The end of a name, where the number of a checkpoint is.
fn end_of(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    match letters.len() > LETTERS {
        true => std::iter::once('…').chain(letters[letters.len() + 1 - LETTERS..].iter().copied()).collect(),
        false => name.to_string(),
    }
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let read = Read::of(tables)?;
    let all = [(MAP, read.map()), (DISTANCES, read.heatmap()), (CUTS, read.silhouettes())];
    Ok(all.into_iter().filter_map(|(name, figure)| Some((name.to_string(), figure?))).collect())
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let read = Read::of(tables)?;
    let mut sections = vec![moved(&read, table(tables, ChildRow::TABLE)?)?, alike(&read, dir)];
    sections.extend(clusters(&read, dir));
    if !read.sums.is_empty() {
        sections.push(sums(&read));
    }
    Ok(sections)
}

/// An interval of so many digits.
fn interval(ends: Option<(f64, f64)>, digits: usize) -> String {
    let (low, high) = ends.unzip();
    cells::interval(low, high, digits)
}

/// Prompts below which an interval over them holds too little.
const FEW: i64 = 10;

/// The columns of the children's table that name one.
const CHILD: usize = 0;
const NEAREST: usize = 6;

/// How long each vector is.
fn moved(read: &Read, children: &Table) -> Result<Section, AnalysisError> {
    let mut text = format!(
        "A child's vector is what it adds to the last token of a prompt: its residual stream after the last layer less that of {}, and \
         the mean over {}.",
        read.parent(),
        plural(read.prompts(), "prompt"),
    );
    let zero: Vec<&str> = read.children.iter().filter(|row| row.norm == 0.0).map(|row| read.short(row.model)).collect();
    if !zero.is_empty() {
        text += &format!(" Nothing is added, to the last bit, by {}.", zero.join(", "));
    }
    if read.prompts() < FEW {
        text += " So few prompts cannot tell how far these numbers would move with others: their intervals are narrower than they should be.";
    }
    let mut block = Listing::of(children)
        .first(LISTED)
        .column("child", Show::Text(ChildRow::model.name))
        .column("kind", Show::Text(ChildRow::label.name))
        .column("length", Show::Number(ChildRow::norm.name, 3))
        .column("of the parent's", Show::Share(ChildRow::relative.name))
        .column("agreement of prompts", Show::Number(ChildRow::agreement.name, 2))
        .column("95 % interval", Show::Interval(ChildRow::agreement_interval.name, 2))
        .column("nearest", Show::Text(ChildRow::nearest.name))
        .column("at", Show::Number(ChildRow::nearest_distance.name, 3))
        .block("The children and their vectors")?;
    for row in &mut block.rows {
        // Whole paths would fill the page; the table of data has them.
        [CHILD, NEAREST].iter().for_each(|i| row[*i] = read.short(&row[*i]).to_string());
    }
    Ok(Section::new("What does each child add?").paragraph(text).block(Block::Table(block)))
}

/// Which vectors are near to each other.
fn alike(read: &Read, dir: &Path) -> Section {
    let mut section = Section::new("Which children are alike?");
    let mut pairs: Vec<&DistanceRow> = read.distances.iter().filter(|row| row.cosine.is_some()).collect();
    pairs.sort_by(|a, b| a.cosine.unwrap_or(0.0).total_cmp(&b.cosine.unwrap_or(0.0)));
    let said = |row: &DistanceRow| {
        let by_prompt = match row.by_prompt_interval {
            Some(_) => format!(
                "; prompt by prompt {}, 95 % interval {}",
                number(row.by_prompt, 3),
                interval(row.by_prompt_interval, 3)
            ),
            None => String::new(),
        };
        format!(
            "{} and {} (cosine distance {}{by_prompt})",
            read.short(row.a),
            read.short(row.b),
            number(row.cosine, 3)
        )
    };
    let text = match pairs[..] {
        [] => "There are no two children whose vectors have an angle.".to_string(),
        [only] => format!("There are two: {}.", said(only)),
        [nearest, .., farthest] => {
            format!("Nearest to each other are {}, and farthest apart {}.", said(nearest), said(farthest))
        }
    };
    section = section
        .paragraph(format!("Distances are 1 less the cosine of two vectors: their lengths do not count. {text}"));
    if let Some(row) = read.labels() {
        section = section.paragraph(of_kinds(row));
    }
    if read.map().is_some() {
        let caption = "The children by classical scaling of the distances of their unit vectors. Only the distances mean something.";
        section = section.figure(dir.join(MAP), caption, "Scatter plot of the children on two axes.");
    }
    if read.heatmap().is_some() {
        let caption = "The cosine distance of each two children; all are in distances.parquet.";
        section = section.figure(dir.join(DISTANCES), caption, "Heatmap of distances, children by children.");
    }
    section
}

/// What the test of the labels says.
pub fn of_kinds(row: &CutRow) -> String {
    let (Some(p), Some(fit)) = (row.p_value, row.silhouette) else {
        return format!(
            "The labels cannot be tested: {} of the children have one, of {}. It takes two kinds, and two children of one of them.",
            row.n,
            plural(row.k, "kind"),
        );
    };
    let (numbers, deals) = (format!("mean silhouette {}, p {}", signed(fit, 2), sized(p)), cells::count(DEALT as i64));
    let few = match row.least_p {
        Some(least) if least > SIGNIFICANT => {
            format!(" So few children cannot say more: the p-value could not be less than {}.", number(least, 2))
        }
        _ => String::new(),
    };
    match p < SIGNIFICANT {
        true if fit > 0.0 => format!(
            "Children of one kind are nearer to each other than to the next kind, more so than if the labels were dealt out anew \
             ({numbers}, {deals} deals)."
        ),
        true => format!(
            "Children of one kind are nearer to each other than if the labels were dealt out anew, but not nearer than to the next kind \
             ({numbers}, {deals} deals)."
        ),
        false => format!(
            "Children of one kind are not nearer to each other than labels that are dealt out anew would make them ({numbers}, {deals} \
             deals).{few}"
        ),
    }
}

/// `= 0.042`, `< 0.001`.
fn sized(p: f64) -> String {
    let text = p_value(p);
    if text.starts_with('<') { text } else { format!("= {text}") }
}

/// Which clusters average linkage finds; nothing where there is no cut.
fn clusters(read: &Read, dir: &Path) -> Option<Section> {
    let of_tree = read.cuts.iter().filter(|row| row.grouping == TREE);
    let best = of_tree
        .max_by(|a, b| a.silhouette.unwrap_or(-1.0).total_cmp(&b.silhouette.unwrap_or(-1.0)).then(b.k.cmp(&a.k)))?;
    let text = format!(
        "Average linkage joins the two clusters whose children are nearest on average, until one is left. Of its cuts, that into {} fits \
         best: the mean silhouette is {}. It was chosen for that, so that its fit is not tested.",
        plural(best.k, "cluster"),
        signed(best.silhouette, 2),
    );
    let header =
        vec![Heading::number("cluster"), Heading::text("child"), Heading::text("kind"), Heading::number("silhouette")];
    let mut members: Vec<&ClusterRow> = read.clusters.iter().filter(|row| row.k == best.k).collect();
    members.sort_by_key(|row| row.cluster);
    let rows = members.iter().map(|row| {
        let (child, kind) = (read.short(row.model).to_string(), row.label.unwrap_or(cells::EMPTY).to_string());
        vec![row.cluster.to_string(), child, kind, signed(row.silhouette, 2)]
    });
    let caption = "The mean silhouette of the children by the number of clusters: 1 where clusters are far apart, 0 where they touch.";
    let section = Section::new("Clusters").paragraph(text).figure(dir.join(CUTS), caption, "Mean silhouette by cut.");
    Some(section.table(format!("The cut into {}", plural(best.k, "cluster")), header, rows.collect()))
}

/// What the sums say.
fn sums(read: &Read) -> Section {
    let mut section = Section::new("Sums").paragraph(
        "If training on two things adds what training on each adds, the vector of a child that was trained on both is the sum of two \
         others'. The gain is the cosine with the sum less the larger of the cosines with one alone.",
    );
    for row in &read.sums {
        let [a, b, whole] = [row.a, row.b, row.whole].map(|model| read.short(model));
        let told = match (row.gain_interval, beyond_zero(row.gain_interval, 0.0)) {
            (_, Some(true)) => format!("is nearer to the sum of {a} and {b} than to either alone"),
            (_, Some(false)) => format!("is nearer to one of {a} and {b} than to their sum"),
            (Some(_), None) => {
                format!("cannot be said to be nearer to the sum of {a} and {b}, or to one of them alone")
            }
            (None, None) => format!("was compared with the sum of {a} and {b} at too few prompts to say more"),
        };
        section = section.paragraph(format!(
            "{whole} {told}: the gain is {}, 95 % interval {}, over {}.",
            signed(row.gain, 3),
            interval(row.gain_interval, 3),
            plural(row.n, "prompt"),
        ));
    }
    let header = vec![
        Heading::text("sum"),
        Heading::number("cosine with the sum"),
        Heading::number("with the first"),
        Heading::number("with the second"),
        Heading::number("relative error"),
        Heading::number("gain"),
        Heading::number("95 % interval"),
    ];
    let cells = read.sums.iter().map(|row| {
        vec![
            format!("{} + {} = {}", read.short(row.a), read.short(row.b), read.short(row.whole)),
            number(row.cosine, 3),
            number(row.cosine_a, 3),
            number(row.cosine_b, 3),
            number(row.relative_error, 3),
            signed(row.gain, 3),
            interval(row.gain_interval, 3),
        ]
    });
    section.table("Sums of vectors", header, cells.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_said_to_be_apart_only_where_the_test_says_so() {
        let row = |silhouette: f64, p: f64, least: f64| CutRow {
            grouping: LABELS,
            k: 2,
            n: 8,
            silhouette: Some(silhouette),
            p_value: Some(p),
            least_p: Some(least),
        };
        assert!(
            of_kinds(&row(0.5, 0.001, 0.001))
                .starts_with("Children of one kind are nearer to each other than to the next")
        );
        assert!(of_kinds(&row(-0.1, 0.01, 0.001)).contains("but not nearer than to the next kind"));
        let not = of_kinds(&row(0.1, 0.4, 0.33));
        assert!(not.contains("are not nearer") && not.contains("could not be less than 0.33"), "{not}");
        assert!(!of_kinds(&row(0.1, 0.4, 0.01)).contains("could not be"));
        let untested = CutRow { k: 1, n: 3, grouping: LABELS, ..CutRow::default() };
        assert!(of_kinds(&untested).contains("3 of the children have one, of 1 kind."), "{}", of_kinds(&untested));
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!((end_of("demo"), end_of("checkpoint-500")), ("demo".to_string(), "…nt-500".to_string()));
    }
}
