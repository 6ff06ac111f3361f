//! Figures and text of layers that are alike, from their table.

use super::Taken;
use super::tables::LayerRow;
use crate::analyses::prelude::*;
use crate::figure::heatmap::MOST_CELLS;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Heatmap};
use crate::names::short_name;
use crate::report::cells::{self, number, plural};

const MAP: &str = "cka.png";
const MATCHES: &str = "matches.png";

/// What the table says.
pub struct Read<'a> {
    rows: Vec<LayerRow<'a>>,
    /// How many layers the model has, and the other.
    depths: [usize; 2],
}

impl<'a> Read<'a> {
    /// Reads the table.
    ///
    /// # Errors
    /// If it is missing, or is another analysis'.
    pub fn of(tables: &'a [Table]) -> Result<Self, AnalysisError> {
        let rows = LayerRow::read(table(tables, LayerRow::TABLE)?)?;
        let depth = |layer: fn(&LayerRow) -> i64| {
            let last = rows.iter().map(layer).max().unwrap_or(-1);
            usize::try_from(last + 1).unwrap_or(0)
        };
        Ok(Read { depths: [depth(|row| row.layer_a), depth(|row| row.layer_b)], rows })
    }

    fn first(&self) -> LayerRow<'a> {
        self.rows.first().cloned().unwrap_or_default()
    }

    /// Whether a model is compared with itself.
    pub fn is_itself(&self) -> bool {
        self.first().model == self.first().with
    }

    /// What both models are called, in short.
    pub fn names(&self) -> [String; 2] {
        [self.first().model, self.first().with].map(short_name)
    }

    /// Whether layers of one number can be compared.
    fn equally_deep(&self) -> bool {
        self.depths[0] == self.depths[1]
    }

    /// The rows of a layer of the model, one a layer of the other.
    fn of_layer(&self, a: usize) -> &[LayerRow<'a>] {
        &self.rows[a * self.depths[1]..(a + 1) * self.depths[1]]
    }

    /// The row of a layer of the model and of one of the other.
    fn at(&self, a: usize, b: usize) -> Option<&LayerRow<'a>> {
        self.of_layer(a).get(b)
    }

    /// The layer of the other that each layer of the model is most like, of those that have a value.
    fn best(&self, a: usize) -> Option<&LayerRow<'a>> {
        let there = self.of_layer(a).iter().filter(|row| row.cka.is_some());
        // Of equal ones the first.
        there.reduce(|best, row| if row.cka > best.cka { row } else { best })
    }

    /// Every layer's best match.
    pub fn matches(&self) -> Vec<&LayerRow<'a>> {
        (0..self.depths[0]).filter_map(|a| self.best(a)).collect()
    }

    /// Every layer beside that of its own number, where both are equally deep.
    fn diagonal(&self) -> Vec<&LayerRow<'a>> {
        let depth = if self.equally_deep() { self.depths[0] } else { 0 };
        (0..depth).filter_map(|layer| self.at(layer, layer)).collect()
    }

    /// Every layer of a model beside the next.
    pub fn steps(&self) -> Vec<&LayerRow<'a>> {
        (1..self.depths[0]).filter_map(|layer| self.at(layer - 1, layer)).collect()
    }

    fn rows_said(&self) -> String {
        let first = self.first();
        let places = if first.positions == Taken::Last.name() { "the last token of each" } else { "all words" };
        format!("{} of {}, {places}", plural(first.n, "row"), plural(first.prompts, "prompt"))
    }

    fn subtitle(&self) -> String {
        let [model, with] = self.names();
        let both = if self.is_itself() { model } else { format!("{model} and {with}") };
        format!("{both}, {}", self.rows_said())
    }

    /// CKA of each layer with each; none of more layers than can be drawn.
    fn map(&self) -> Option<Figure> {
        if self.rows.iter().all(|row| row.cka.is_none()) || self.depths.iter().any(|depth| *depth > MOST_CELLS) {
            return None;
        }
        let [model, with] = self.names();
        let values = (0..self.depths[0]).map(|a| self.of_layer(a).iter().map(|row| row.cka).collect());
        Some(Figure::from(Heatmap {
            title: "Which layers are alike".to_string(),
            subtitle: self.subtitle(),
            x_label: format!("layer of {with}"),
            y_label: format!("layer of {model}"),
            value_label: "debiased CKA".to_string(),
            values: values.collect(),
            missing_meaning: Some("rows do not differ".to_string()),
            limit: Some(1.0),
            from_zero: self.rows.iter().all(|row| row.cka.is_none_or(|cka| cka >= 0.0)),
            ..Heatmap::default()
        }))
    }

    /// How like its best match each layer is, and the layer of its own number.
    fn curves(&self) -> Option<Figure> {
        let [model, with] = self.names();
        let curve = |name: &str, rows: Vec<&LayerRow>| {
            let points =
                rows.iter().map(|row| CurvePoint { x: row.layer_a as f64, y: row.cka, interval: row.cka_interval });
            Curve { name: name.to_string(), role: CurveRole::Series, points: points.collect() }
        };
        let mut curves = match self.is_itself() {
            true => vec![curve("the next layer", self.steps())],
            false => vec![curve("the layer that is most alike", self.matches())],
        };
        if !self.is_itself() && self.equally_deep() {
            curves.push(curve("the layer of the same number", self.diagonal()));
        }
        let any = curves.iter().flat_map(|curve| &curve.points).any(|point| point.y.is_some());
        any.then(|| {
            Figure::from(Curves {
                title: if self.is_itself() { "How alike neighbours are" } else { "How alike the best match is" }
                    .to_string(),
                subtitle: self.subtitle(),
                x_label: format!("layer of {model}"),
                y_label: format!("debiased CKA with {with}"),
                curves,
                interval_meaning: Some("95 % jackknife interval".to_string()),
                ..Curves::default()
            })
        })
    }
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let read = Read::of(tables)?;
    let all = [(MAP, read.map()), (MATCHES, read.curves())];
    Ok(all.into_iter().filter_map(|(name, figure)| Some((name.to_string(), figure?))).collect())
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let read = Read::of(tables)?;
    let mut section = Section::new("Which layers are alike?").paragraph(format!(
        "The residual stream after every layer was compared by {}. CKA is debiased: it is 1 for the same rows, rotated and scaled, and 0 \
         on average for rows that have nothing in common.",
        read.rows_said(),
    ));
    for said in [missing(&read), said(&read)].into_iter().flatten() {
        section = section.paragraph(said);
    }
    if read.map().is_some() {
        let caption = "CKA of every layer with every layer; all measures are in layers.parquet.";
        section = section.figure(dir.join(MAP), caption, "Heatmap of CKA, layers by layers.");
    }
    if read.curves().is_some() {
        let caption = match read.is_itself() {
            true => "CKA of each layer with the next.",
            false => {
                "CKA of each layer with the layer of the other model that is most like it. The largest of many is too large by chance."
            }
        };
        section = section.figure(dir.join(MATCHES), caption, "Curves of CKA by layer.");
    }
    Ok(vec![section, listed(&read)])
}

/// How many layers say nothing.
fn missing(read: &Read) -> Option<String> {
    let silent = (0..read.depths[0]).filter(|a| read.best(*a).is_none()).count() as i64;
    (silent > 0).then(|| format!("The rows of {} do not differ, and are like no others.", plural(silent, "layer")))
}

/// `layer 3 and layer 4 (CKA 0.910, 95 % interval [0.850, 0.950])`.
pub fn pair(row: &LayerRow) -> String {
    let interval = row.cka_interval.map_or(String::new(), |_| format!(", 95 % interval {}", interval(row)));
    format!("layer {} and layer {} (CKA {}{interval})", row.layer_a, row.layer_b, number(row.cka, 3))
}

fn interval(row: &LayerRow) -> String {
    let (low, high) = row.cka_interval.unzip();
    cells::interval(low, high, 3)
}

/// The row that is least alike and the one that is most; none without any that has a value.
pub fn ends<'r, 'a>(rows: &[&'r LayerRow<'a>]) -> Option<(&'r LayerRow<'a>, &'r LayerRow<'a>)> {
    let mut there: Vec<&LayerRow> = rows.iter().copied().filter(|row| row.cka.is_some()).collect();
    there.sort_by(|a, b| a.cka.unwrap_or(0.0).total_cmp(&b.cka.unwrap_or(0.0)));
    Some((*there.first()?, *there.last()?))
}

/// Which layers match.
fn said(read: &Read) -> Option<String> {
    let [model, with] = read.names();
    let known = || read.rows.iter().any(|row| row.cka.is_some());
    if known() && read.rows.iter().all(|row| row.cka_interval.is_none()) {
        return Some("There are too few prompts to tell how far these numbers would move with others.".to_string());
    }
    if read.is_itself() {
        let (least, most) = ends(&read.steps())?;
        return Some(format!(
            "The model is compared with itself. Of neighbours, {} are least alike: there the stream changes most. Most alike are {}.",
            pair(least),
            pair(most),
        ));
    }
    let matches = read.matches();
    let (least, most) = ends(&matches)?;
    let mut text = format!(
        "Each layer of {model} has a best match in {with}. Of these pairs, {} are least alike, and {} most.",
        pair(least),
        pair(most),
    );
    if let Some((least, most)) = ends(&read.diagonal()) {
        let own = matches.iter().filter(|row| row.layer_a == row.layer_b).count();
        text += &format!(
            " It is the layer of the same number for {own} of {}. Of layers of one number, {} are least alike, and {} most.",
            matches.len(),
            pair(least),
            pair(most),
        );
    }
    Some(text)
}

/// The best match of each layer, or, of a model with itself, the next layer.
fn listed(read: &Read) -> Section {
    let (rows, caption) = match read.is_itself() {
        true => (read.steps(), "Each layer and the next"),
        false => (read.matches(), "Each layer and the one of the other model that is most like it by CKA"),
    };
    let header = vec![
        Heading::number("layer"),
        Heading::number("other layer"),
        Heading::number("CKA"),
        Heading::number("95 % interval"),
        Heading::number("CKA, biased"),
        Heading::number("Procrustes distance"),
        Heading::number("RSA"),
    ];
    let cells = rows.iter().map(|row| {
        vec![
            row.layer_a.to_string(),
            row.layer_b.to_string(),
            number(row.cka, 3),
            interval(row),
            number(row.cka_biased, 3),
            number(row.procrustes, 3),
            number(row.rsa, 3),
        ]
    });
    Section::new("Layer by layer")
        .paragraph(
            "Three measures see different things. CKA and the Procrustes distance do not see rotations; CKA counts directions by their \
             squared spread, so that a few of large spread decide it, and the Procrustes distance by their spread. RSA asks whether pairs \
             of rows are ordered alike.",
        )
        .table(caption, header, cells.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two models of these depths, alike as a function of the layers says.
    fn rows(with: &'static str, depths: [i64; 2], cka: impl Fn(i64, i64) -> Option<f64>) -> Vec<Table> {
        let pairs = (0..depths[0]).flat_map(|a| (0..depths[1]).map(move |b| (a, b)));
        let row = |(layer_a, layer_b)| LayerRow {
            model: "m",
            with,
            layer_a,
            layer_b,
            positions: "last",
            n: 8,
            prompts: 8,
            cka: cka(layer_a, layer_b),
            cka_interval: cka(layer_a, layer_b).map(|cka| (cka - 0.05, cka + 0.05)),
            ..LayerRow::default()
        };
        vec![LayerRow::table(pairs.map(row)).unwrap()]
    }

    fn near(a: i64, b: i64) -> Option<f64> {
        Some(1.0 - 0.1 * (a - b).abs() as f64)
    }

    #[test]
    fn the_best_match_is_named_with_how_often_it_is_the_same_layer() {
        let tables = rows("o", [4, 4], |a, b| near(a, if b == 3 { 1 } else { b }));
        let text = said(&Read::of(&tables).unwrap()).unwrap();
        assert!(
            text.contains("for 3 of 4") && text.contains("layer 3 and layer 2 (CKA 0.900, 95 % interval"),
            "{text}"
        );
        assert_eq!(figures(&tables).unwrap().len(), 2);
    }

    #[test]
    fn layers_of_one_number_are_compared_only_where_both_are_equally_deep() {
        let tables = rows("o", [2, 5], near);
        let read = Read::of(&tables).unwrap();
        assert_eq!((read.depths, read.diagonal().len()), ([2, 5], 0));
        assert!(!said(&read).unwrap().contains("of one number"));
    }

    #[test]
    fn a_model_with_itself_is_told_by_its_neighbours() {
        let tables = rows("m", [3, 3], |a, b| near(2 * a, 2 * b).filter(|_| a != 0 && b != 0));
        let read = Read::of(&tables).unwrap();
        assert!(said(&read).unwrap().contains("layer 1 and layer 2 (CKA 0.800, 95 % interval"));
        assert_eq!(missing(&read).unwrap(), "The rows of 1 layer do not differ, and are like no others.");
        let silent = rows("m", [3, 3], |_, _| None);
        assert!(figures(&silent).unwrap().is_empty() && said(&Read::of(&silent).unwrap()).is_none());
        assert_eq!(sections(&silent, Path::new("")).unwrap().len(), 2);
    }
}
