//! Figures and text of matrices, from the tables.

use super::tables::{ALL, ChangeRow, CompositionRow, HeadRow, LayerRow, MatrixRow};
use crate::analyses::checkpoints::paths::{short_names, training};
use crate::analyses::prelude::*;
use crate::figure::{BarSeries, Bars, Curve, CurvePoint, CurveRole, Curves, Estimate, Heatmap, MOST_SERIES};
use crate::names::short_name;
use crate::report::cells::{self, number, plural, share, share_interval};

const STABLE: &str = "stable_rank.png";
const COPYING: &str = "copying.png";
const GATE: &str = "gate_norm.png";
const SHARES: &str = "changed_entries.png";
const MOVED: &str = "drift.png";

/// How many rows a table of the report lists.
const LISTED: usize = 12;

/// Measures that are shares of entries, with the words for them.
const OF_ENTRIES: [(&str, &str); 3] = [
    ("update_sparsity", "unchanged"),
    ("in_principal", "changed ones in the principal tenth"),
    ("in_small", "changed ones in the smallest tenth"),
];

/// Measures of how far matrices moved.
const OF_MATRICES: [(&str, &str); 2] =
    [("relative_change", "change of the norm"), ("spectral_drift", "spectral drift")];

/// The models of a table, in its order.
fn models<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    names.for_each(|name| {
        if !found.contains(&name) {
            found.push(name)
        }
    });
    found
}

fn changes(tables: &[Table]) -> Result<Vec<ChangeRow<'_>>, AnalysisError> {
    let found = tables.iter().find(|table| table.name() == ChangeRow::TABLE);
    Ok(found.map(ChangeRow::read).transpose()?.unwrap_or_default())
}

fn of<'r, 'a>(rows: &'r [ChangeRow<'a>], model: &str, kind: &str, measure: &str) -> Option<&'r ChangeRow<'a>> {
    rows.iter().find(|row| row.model == model && row.kind == kind && row.measure == measure)
}

/// What is drawn over the steps of training: a measure, its figure, and what its axis says.
const OVER_STEPS: [(&str, &str, &str); 5] = [
    ("update_sparsity", "steps-unchanged.png", "share of entries that are unchanged"),
    ("in_principal", "steps-principal.png", "share of the changed entries in the principal tenth"),
    ("in_small", "steps-small.png", "share of the changed entries in the smallest tenth"),
    ("spectral_drift", "steps-drift.png", "spectral drift"),
    ("angle_left_max", "steps-angle.png", "largest principal angle, left (degrees)"),
];

/// The trainings of which there are two steps or more.
fn trainings<'a>(rows: &[ChangeRow<'a>]) -> Vec<&'a str> {
    let steps = |of: &str| {
        let mut steps: Vec<f64> =
            rows.iter().filter(|row| training(row.model) == of).filter_map(|row| row.step).collect();
        steps.dedup();
        steps.len()
    };
    let mut found = models(rows.iter().filter(|row| row.step.is_some()).map(|row| training(row.model)));
    found.retain(|of| steps(of) > 1);
    found
}

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let matrices = MatrixRow::read(table(tables, MatrixRow::TABLE)?)?;
    let heads = HeadRow::read(table(tables, HeadRow::TABLE)?)?;
    let layers = LayerRow::read(table(tables, LayerRow::TABLE)?)?;
    let changes = changes(tables)?;
    let mut figures = Vec::new();
    if let Some(figure) = ranks(&matrices) {
        figures.push((STABLE.to_string(), figure));
    }
    if let Some(figure) = copying(&heads) {
        figures.push((COPYING.to_string(), figure));
    }
    if let Some(figure) = gates(&layers) {
        figures.push((GATE.to_string(), figure));
    }
    if !changes.is_empty() {
        figures.push((SHARES.to_string(), bars(&changes, &OF_ENTRIES, "Which entries changed", true)));
        figures.push((MOVED.to_string(), bars(&changes, &OF_MATRICES, "How far matrices moved", false)));
        let trainings = trainings(&changes);
        if !trainings.is_empty() {
            let over = OVER_STEPS.iter().map(|of| (of.1.to_string(), steps(&changes, &trainings, of)));
            figures.extend(over);
        }
    }
    Ok(figures)
}

/// The stable rank of each kind of matrix over the layers of the first model.
fn ranks(rows: &[MatrixRow]) -> Option<Figure> {
    let model = rows.first()?.model;
    let own: Vec<&MatrixRow> = rows.iter().filter(|row| row.model == model && row.layer >= 0).collect();
    let kinds = models(own.iter().map(|row| row.kind));
    let curve = |kind: &&str| Curve {
        name: kind.to_string(),
        role: CurveRole::Series,
        points: own
            .iter()
            .filter(|row| row.kind == *kind)
            .map(|row| CurvePoint { x: row.layer as f64, y: row.stable_rank, interval: None })
            .collect(),
    };
    (!own.is_empty()).then(|| {
        Curves {
            title: "How many directions a matrix uses".to_string(),
            subtitle: short_name(model),
            x_label: "layer".to_string(),
            y_label: "stable rank".to_string(),
            curves: kinds.iter().take(MOST_SERIES).map(curve).collect(),
            ..Curves::default()
        }
        .into()
    })
}

fn copying(rows: &[HeadRow]) -> Option<Figure> {
    let model = rows.first()?.model;
    let own = rows.iter().filter(|row| row.model == model);
    let (values, marks) = Heatmap::of_heads(own.map(|row| (row.layer as usize, row.head as usize, row.copying, false)));
    let figure = Heatmap {
        title: "Which heads copy what they read".to_string(),
        subtitle: short_name(model),
        x_label: "head".to_string(),
        y_label: "layer".to_string(),
        value_label: "copying score".to_string(),
        values,
        marks,
        limit: Some(1.0),
        ..Heatmap::default()
    };
    Some(figure.into())
}

fn gates(rows: &[LayerRow]) -> Option<Figure> {
    let names = models(rows.iter().map(|row| row.model));
    let short = short_names(&names);
    let curve = |(name, short): (&&str, &String)| Curve {
        name: short.clone(),
        role: CurveRole::Series,
        points: rows
            .iter()
            .filter(|row| row.model == *name)
            .map(|row| CurvePoint { x: row.layer as f64, y: Some(row.gate_norm), interval: None })
            .collect(),
    };
    (!rows.is_empty()).then(|| {
        Curves {
            title: "How strongly queries and keys couple".to_string(),
            subtitle: if names.len() == 1 { short_name(names[0]) } else { String::new() },
            x_label: "layer".to_string(),
            y_label: "gate norm".to_string(),
            curves: names.iter().zip(&short).take(MOST_SERIES).map(curve).collect(),
            ..Curves::default()
        }
        .into()
    })
}

/// The models that bars stand side by side of: of a training that is followed over its steps, the last one.
fn latest<'a>(rows: &[ChangeRow<'a>]) -> Vec<&'a str> {
    let trainings = trainings(rows);
    let step = |name: &str| rows.iter().find(|row| row.model == name).and_then(|row| row.step);
    let mut names = models(rows.iter().map(|row| row.model));
    let all = names.clone();
    names.retain(|name| {
        let of = training(name);
        let later = |other: &&str| training(other) == of && step(other) > step(name);
        !(trainings.contains(&of) && step(name).is_some() && all.iter().any(later))
    });
    names
}

fn bars(rows: &[ChangeRow], measures: &[(&str, &str)], title: &str, shares: bool) -> Figure {
    let names = latest(rows);
    let parent = rows.first().map_or("", |row| row.parent);
    let short = short_names(&names);
    let series = |(name, short): (&&str, &String)| BarSeries {
        name: short.clone(),
        estimates: measures
            .iter()
            .map(|(measure, _)| {
                let row = of(rows, name, ALL, measure)?;
                Some(Estimate { interval: row.interval, ..Estimate::new(row.mean?) })
            })
            .collect(),
        bands: Vec::new(),
    };
    Bars {
        title: title.to_string(),
        subtitle: match names.len() > MOST_SERIES {
            true => format!("against {}; the first {MOST_SERIES} of {}", short_name(parent), names.len()),
            false => format!("against {}", short_name(parent)),
        },
        category_label: "measure".to_string(),
        value_label: if shares { "share of entries" } else { "share of the parent's norm" }.to_string(),
        shares,
        categories: measures.iter().map(|(_, words)| words.to_string()).collect(),
        series: names.iter().zip(&short).take(MOST_SERIES).map(series).collect(),
        ..Bars::default()
    }
    .into()
}

fn steps(rows: &[ChangeRow], trainings: &[&str], (measure, _, label): &(&str, &str, &str)) -> Figure {
    let parent = rows.first().map_or("", |row| row.parent);
    let names = short_names(trainings);
    let curve = |(of, name): (&&str, &String)| Curve {
        name: if name.is_empty() { "this training".to_string() } else { name.clone() },
        role: CurveRole::Series,
        points: rows
            .iter()
            .filter(|row| training(row.model) == *of && row.kind == ALL && row.measure == *measure)
            .filter_map(|row| Some(CurvePoint { x: row.step?, y: row.mean, interval: row.interval }))
            .collect(),
    };
    Curves {
        title: "What training changed, step by step".to_string(),
        subtitle: format!("against {}", short_name(parent)),
        x_label: "training step".to_string(),
        y_label: label.to_string(),
        shares: OF_ENTRIES.iter().any(|(of_entries, _)| of_entries == measure),
        reference: measure.starts_with("in_").then(|| (0.1, "a tenth of all".to_string())),
        curves: trainings.iter().zip(&names).take(MOST_SERIES).map(curve).collect(),
        ..Curves::default()
    }
    .into()
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let matrices = MatrixRow::read(table(tables, MatrixRow::TABLE)?)?;
    let heads = table(tables, HeadRow::TABLE)?;
    let changes = changes(tables)?;
    let mut sections = Vec::new();
    if !changes.is_empty() {
        sections.push(changed(&changes, dir));
        sections.push(by_kind(&changes));
    }
    sections.push(alone(&matrices, table(tables, MatrixRow::TABLE)?, dir)?);
    if heads.rows() > 0 {
        sections.push(of_heads(heads, dir)?);
    }
    if let Some(composition) = tables.iter().find(|table| table.name() == CompositionRow::TABLE) {
        sections.push(composed(composition)?);
    }
    Ok(sections)
}

/// What a share of changed entries says beside their share of all entries, which is a tenth.
fn beside_a_tenth(row: Option<&ChangeRow>, what: &str) -> Option<String> {
    let row = row?;
    let (low, high) = row.interval?;
    let words = match (low > 0.1, high < 0.1) {
        (true, _) => "more than a tenth",
        (_, true) => "less than a tenth",
        _ => "about a tenth",
    };
    Some(format!(
        "{} of the changed entries lie in {what} ({}), {words}.",
        share(row.mean),
        share_interval(row.interval)
    ))
}

fn changed(rows: &[ChangeRow], dir: &Path) -> Section {
    let mut section = Section::new("What did training change?").paragraph(
        "An entry counts as unchanged where both checkpoints hold the same number once it is rounded to bf16. The **principal tenth** are \
         the largest entries of what the parent's principal singular vectors make; the **smallest tenth**, the parent's smallest entries. \
         Means and 95 % intervals are over the matrices of all layers, each counting the same. Matrices of one checkpoint are no \
         independent sample: the intervals say how alike they are, not what another training would give. A small update changes small \
         entries first, wherever it points: in bf16 a small number has near neighbours.",
    );
    let names = models(rows.iter().map(|row| row.model));
    for (name, short) in names.iter().zip(short_names(&names)) {
        let all = |measure: &str| of(rows, name, ALL, measure);
        let mut said = Vec::new();
        if let Some(row) = all("update_sparsity") {
            said.push(format!(
                "{short}, {}: {} of the entries are unchanged ({}).",
                plural_matrices(row.n),
                share(row.mean),
                share_interval(row.interval)
            ));
        }
        said.extend(beside_a_tenth(all("in_principal"), "the principal tenth"));
        said.extend(beside_a_tenth(all("in_small"), "the smallest tenth"));
        section = section.paragraph(said.join(" "));
    }
    let caption = "The share of entries that are unchanged, and where the changed ones lie.";
    section = section.figure(dir.join(SHARES), caption, "Bars of shares of entries with intervals, by checkpoint.");
    let caption = "How far matrices and their singular values moved.";
    section = section.figure(dir.join(MOVED), caption, "Bars of relative change and spectral drift, by checkpoint.");
    if !trainings(rows).is_empty() {
        for (_, file, label) in OVER_STEPS {
            let caption = format!("{} over the steps of training.", cells::capitalised(label));
            section = section.figure(dir.join(file), caption, format!("Curves over training steps: {label}."));
        }
    }
    section
}

fn plural_matrices(n: i64) -> String {
    if n == 1 { "1 matrix".to_string() } else { format!("{} matrices", cells::count(n)) }
}

fn by_kind(rows: &[ChangeRow]) -> Section {
    let header = vec![
        Heading::text("model"),
        Heading::text("matrices"),
        Heading::number("unchanged"),
        Heading::number("relative change"),
        Heading::number("spectral drift"),
        Heading::number("left angle"),
        Heading::number("right angle"),
        Heading::number("in principal tenth"),
        Heading::number("in smallest tenth"),
    ];
    let mut cells = Vec::new();
    let names = models(rows.iter().map(|row| row.model));
    for (name, short) in names.iter().zip(short_names(&names)) {
        for kind in models(rows.iter().filter(|row| row.model == *name).map(|row| row.kind)) {
            let mean = |measure: &str| of(rows, name, kind, measure).and_then(|row| row.mean);
            cells.push(vec![
                short.clone(),
                if kind == ALL { "all in layers".to_string() } else { format!("`{kind}`") },
                share(mean("update_sparsity")),
                number(mean("relative_change"), 5),
                number(mean("spectral_drift"), 6),
                number(mean("angle_left_max"), 2),
                number(mean("angle_right_max"), 2),
                share(mean("in_principal")),
                share(mean("in_small")),
            ]);
        }
    }
    Section::new("Which matrices?").table(
        "Means over layers; angles are the largest principal ones, in degrees",
        header,
        cells,
    )
}

fn alone(rows: &[MatrixRow], data: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let models = models(rows.iter().map(|row| row.model));
    let partly = rows.iter().filter(|row| row.effective_rank.is_none()).count();
    let mut text = format!(
        "{} of {} were measured. The **stable rank** says how many singular values as large as the largest would hold all the energy; the \
         **effective rank**, over how many the singular values are spread.",
        cells::capitalised(&plural_matrices(rows.len() as i64)),
        plural(models.len() as i64, "model"),
    );
    if partly > 0 {
        text.push_str(&format!(
            " Of {} only the principal singular values were looked for: the effective rank is left out there, and `residual` says how near \
             they came.",
            plural_matrices(partly as i64)
        ));
    }
    let listing = Listing::of(data)
        .first(LISTED)
        .column("model", Show::Text("model"))
        .column("tensor", Show::Text("tensor"))
        .column("norm", Show::Number("norm", 2))
        .column("spectral norm", Show::Number("spectral_norm", 2))
        .column("stable rank", Show::Number("stable_rank", 1))
        .column("effective rank", Show::Number("effective_rank", 1))
        .column("energy in the top", Show::Share("top_energy"));
    let mut section = Section::new("What are the matrices?").paragraph(text);
    if rows.iter().any(|row| row.layer >= 0) {
        let caption = format!("The stable rank of each kind of matrix, by layer, in {}.", short_name(models[0]));
        section = section.figure(dir.join(STABLE), caption, "Curves of stable rank over layers, one a kind of matrix.");
    }
    Ok(section.block(Block::Table(listing.block("Matrices, in the order of the layers")?)))
}

fn of_heads(data: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let text = "The **copying score** is near 1 where a head raises the tokens that it reads and near -1 where it lowers them, as far as its \
                weights alone say: norms, other layers and where it looks are left out. The **gate norm** is the size of a layer's query-key \
                products.";
    let listing = Listing::of(data)
        .strongest("copying")
        .first(LISTED)
        .column("head", Show::Head("layer", "head"))
        .column("model", Show::Text("model"))
        .column("copying", Show::Signed("copying", 2))
        .column("norm of OV", Show::Number("ov_norm", 2))
        .column("effective rank of OV", Show::Number("ov_effective_rank", 1))
        .column("norm of QK", Show::Number("qk_norm", 2))
        .column("effective rank of QK", Show::Number("qk_effective_rank", 1));
    Ok(Section::new("What are the heads?")
        .paragraph(text)
        .figure(dir.join(COPYING), "The copying score of every head.", "Heatmap of copying scores by layer and head.")
        .figure(dir.join(GATE), "The gate norm of every layer.", "Curve of gate norms over layers.")
        .block(Block::Table(listing.block("The heads whose copying score is largest in size")?)))
}

fn composed(data: &Table) -> Result<Section, AnalysisError> {
    let listing = Listing::of(data)
        .strongest("score")
        .first(LISTED)
        .column("reader", Show::Head("reader_layer", "reader_head"))
        .column("reads for", Show::Text("part"))
        .column("writer", Show::Head("writer_layer", "writer_head"))
        .column("score", Show::Number("score", 3))
        .column("random matrices", Show::Number("chance", 3));
    let text = "A composition score says how much of what one head writes a later head's matrices take up, from the weights alone. It \
                says nothing of whether the two are used together: exchange edges for that (`gatelens edges`).";
    Ok(Section::new("Which heads could work together?")
        .paragraph(text)
        .block(Block::Table(listing.block("The largest composition scores")?)))
}
