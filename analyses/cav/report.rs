//! Concept vectors in figures and text, from their tables alone.

use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::{AnalysisError, Figures, table};
use crate::figure::{BarSeries, Bars, Curve, CurvePoint, CurveRole, Curves, Estimate, Figure};
use crate::names::short_name;
use crate::report::cells::share;
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::table::Table;
use std::ops::Range;
use std::path::Path;

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let mut figures = vec![("accuracy.png".to_string(), accuracy_figure(table(tables, "cavs")?)?)];
    if let Ok(tcav) = table(tables, "tcav") {
        for method in methods(tcav)? {
            figures.push((format!("tcav-{method}.png"), tcav_figure(tcav, &method)?));
        }
    }
    Ok(figures)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let mut sections = vec![accuracy_section(table(tables, "cavs")?, dir)?];
    if let Ok(tcav) = table(tables, "tcav") {
        for method in methods(tcav)? {
            sections.push(tcav_section(tcav, &method, dir)?);
        }
    }
    Ok(sections)
}

/// The methods of a table, in its order.
fn methods(table: &Table) -> Result<Vec<String>, AnalysisError> {
    let mut found: Vec<String> = Vec::new();
    for method in table.strs("method")? {
        if !found.iter().any(|m| m == method) {
            found.push(method.to_string());
        }
    }
    Ok(found)
}

fn subtitle(table: &Table) -> Result<String, AnalysisError> {
    let (model, site) = (table.strs("model")?, table.strs("site")?);
    Ok(format!(
        "{}, {}",
        short_name(model.first().copied().unwrap_or_default()),
        site.first().copied().unwrap_or_default()
    ))
}

fn accuracy_figure(cavs: &Table) -> Result<Figure, AnalysisError> {
    let (layers, accuracy, method) = (cavs.ints("layer")?, cavs.floats("accuracy")?, cavs.strs("method")?);
    let curve = |name: String| {
        let of = (0..cavs.rows()).filter(|i| method[*i] == name);
        let points = of.map(|i| CurvePoint { x: layers[i] as f64, y: accuracy[i], interval: None }).collect();
        Curve { name, role: CurveRole::Series, points }
    };
    let position = cavs.strs("position")?.first().copied().unwrap_or_default();
    Ok(Figure::from(Curves {
        title: "Held-out accuracy of concept vectors".to_string(),
        subtitle: format!("{}, position {position}; 0.5 is chance", subtitle(cavs)?),
        x_label: "layer".to_string(),
        y_label: "balanced accuracy".to_string(),
        curves: methods(cavs)?.into_iter().map(curve).collect(),
        thresholds: Vec::new(),
        y_range: Some((0.0, 1.0)),
        interval_meaning: None,
    }))
}

/// The rows of a method, by class.
fn by_class<'a>(tcav: &'a Table, method: &str) -> Result<Vec<(&'a str, Vec<usize>)>, AnalysisError> {
    let (of, classes) = (tcav.strs("method")?, tcav.strs("class")?);
    let mut found: Vec<(&str, Vec<usize>)> = Vec::new();
    for i in (0..tcav.rows()).filter(|i| of[*i] == method) {
        match found.iter_mut().find(|(class, _)| *class == classes[i]) {
            Some((_, rows)) => rows.push(i),
            None => found.push((classes[i], vec![i])),
        }
    }
    Ok(found)
}

fn tcav_figure(tcav: &Table, method: &str) -> Result<Figure, AnalysisError> {
    let classes = by_class(tcav, method)?;
    let float = |name: &str| tcav.floats(name);
    let (scores, deviations) = (float("tcav")?, float("tcav_sd")?);
    let (random, spread) = (float("random_mean")?, float("random_sd")?);
    let (marked, layers) = (tcav.flags("significant")?, tcav.ints("layer")?);
    // Shares do not leave 0 to 1, whatever a standard deviation says.
    let around = |mean: Option<f64>, sd: Option<f64>| mean.zip(sd).map(|(m, s)| ((m - s).max(0.0), (m + s).min(1.0)));
    let estimate = |i: &usize| {
        let interval = around(scores[*i], deviations[*i]);
        scores[*i].map(|value| Estimate { value, interval, marked: marked[*i] })
    };
    let series = |(class, rows): &(&str, Vec<usize>)| BarSeries {
        name: (*class).to_string(),
        estimates: rows.iter().map(estimate).collect(),
        bands: rows.iter().map(|i| around(random[*i], spread[*i])).collect(),
    };
    let categories: Range<usize> = 0..classes.first().map_or(0, |c| c.1.len());
    Ok(Figure::from(Bars {
        title: format!("TCAV ({method})"),
        subtitle: subtitle(tcav)?,
        category_label: "layer".to_string(),
        value_label: "share of prompts whose metric rises".to_string(),
        categories: categories.map(|k| layers[classes[0].1[k]].to_string()).collect(),
        series: classes.iter().map(series).collect(),
        range: Some((0.0, 1.0)),
        reference: Some((0.5, "chance".to_string())),
        mark_meaning: Some(format!("q < {SIGNIFICANT}")),
        interval_meaning: Some("mean ± sd over runs".to_string()),
        band_meaning: Some("random against random, mean ± sd".to_string()),
    }))
}

fn accuracy_section(cavs: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let (layers, accuracy, method) = (cavs.ints("layer")?, cavs.floats("accuracy")?, cavs.strs("method")?);
    let best = (0..cavs.rows()).max_by(|a, b| accuracy[*a].unwrap_or(0.0).total_cmp(&accuracy[*b].unwrap_or(0.0)));
    let best = best.map_or(String::new(), |i| {
        format!("The best is **{}** at layer {} with {}.", method[i], layers[i], share(accuracy[i]))
    });
    let text = format!(
        "Linear classifiers between {} examples of the concept and {} random ones, layer by layer, and how often they are right \
         on examples that they were not fitted to, both sides counting half. {best}",
        cavs.ints("n_concept")?.first().copied().unwrap_or(0),
        cavs.ints("n_random")?.first().copied().unwrap_or(0),
    );
    let block = Listing::of(cavs)
        .column("layer", Show::Count("layer"))
        .column("method", Show::Text("method"))
        .column("held-out accuracy", Show::Share("accuracy"))
        .column("norm", Show::Number("norm", 3))
        .column("cosine to mean difference", Show::Number("cosine", 2))
        .block("Concept vectors; they are in cavs.safetensors")?;
    let alt = "Held-out accuracy of concept vectors by layer.";
    let section = Section::new("Where the concept is").paragraph(text);
    let section =
        section.figure(dir.join("accuracy.png"), "Balanced held-out accuracy by layer; one half is chance.", alt);
    Ok(section.block(Block::Table(block)))
}

fn tcav_section(tcav: &Table, method: &str, dir: &Path) -> Result<Section, AnalysisError> {
    let (of, significant) = (tcav.strs("method")?, tcav.flags("significant")?);
    let rows: Vec<usize> = (0..tcav.rows()).filter(|i| of[*i] == method).collect();
    let text = format!(
        "The share of each class' prompts whose metric rises along the concept: {} CAVs of disjoint parts of the concept ({} \
         examples a side) against as many of random sets. {} of {} layers and classes are significant (q < {SIGNIFICANT}).",
        tcav.ints("runs")?.first().copied().unwrap_or(0),
        tcav.ints("examples")?.first().copied().unwrap_or(0),
        rows.iter().filter(|i| significant[**i]).count(),
        rows.len(),
    );
    let block = Listing::of(tcav)
        .only("method", method)
        .column("layer", Show::Count("layer"))
        .column("class", Show::Text("class"))
        .column("TCAV", Show::Number("tcav", 2))
        .column("random", Show::Number("random_mean", 2))
        .column("p", Show::PValue("p_value"))
        .column("q", Show::PValue("q_value"))
        .block("TCAV scores")?;
    let file = dir.join(format!("tcav-{method}.png"));
    let section = Section::new(format!("TCAV ({method})")).paragraph(text);
    let section = section.figure(
        file,
        "TCAV by layer; the band is what random sets give.",
        "TCAV scores by layer with the random band.",
    );
    Ok(section.block(Block::Table(block)))
}
