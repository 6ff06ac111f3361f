//! Concept vectors in figures and text, from their tables alone.
//!
//! Numbers are `tables`' business; nothing is computed here that is not in one.

use super::tables::{CavRow, TcavRow};
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::prelude::*;
use crate::figure::bars::MOST_BARS;
use crate::figure::{BarSeries, Bars, Curve, CurvePoint, CurveRole, Curves, Estimate, MOST_SERIES};
use crate::names::short_name;
use crate::report::cells::{plural, share, share_interval};

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let cavs = CavRow::read(table(tables, CavRow::TABLE)?)?;
    let mut figures = vec![("accuracy.png".to_string(), accuracy_figure(&cavs))];
    if let Ok(tcav) = table(tables, TcavRow::TABLE) {
        for rows in by(TcavRow::read(tcav)?, |row| row.method) {
            figures.extend(tcav_figures(&rows));
        }
    }
    Ok(figures)
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let mut sections = vec![accuracy_section(table(tables, CavRow::TABLE)?, dir)?];
    if let Ok(tcav) = table(tables, TcavRow::TABLE) {
        for rows in by(TcavRow::read(tcav)?, |row| row.method) {
            sections.push(tcav_section(tcav, &rows, dir)?);
        }
    }
    Ok(sections)
}

/// Rows that have the same name, by that name, in the order of a table; one list a name.
fn by<R>(rows: impl IntoIterator<Item = R>, name: impl Fn(&R) -> &str) -> Vec<Vec<R>> {
    let mut found: Vec<Vec<R>> = Vec::new();
    for row in rows {
        match found.iter_mut().find(|of| name(&of[0]) == name(&row)) {
            Some(of) => of.push(row),
            None => found.push(vec![row]),
        }
    }
    found
}

fn accuracy_figure(cavs: &[CavRow]) -> Figure {
    let point = |r: &CavRow| CurvePoint { x: r.layer as f64, y: r.accuracy, interval: r.accuracy_interval };
    let curve = |of: Vec<&CavRow>| {
        let name = of[0].method.to_string();
        Curve { name, role: CurveRole::Series, points: of.into_iter().map(point).collect() }
    };
    let first = cavs.first().cloned().unwrap_or_default();
    let intervals = cavs.iter().any(|r| r.accuracy_interval.is_some());
    Figure::from(Curves {
        title: "Held-out accuracy of concept vectors".to_string(),
        subtitle: format!(
            "{}, {}, position {}, {} against {} random ones",
            short_name(first.model),
            first.site,
            first.position,
            plural(first.n_concept, "example"),
            first.n_random
        ),
        x_label: "layer".to_string(),
        y_label: "balanced accuracy".to_string(),
        shares: true,
        curves: by(cavs.iter(), |row| row.method).into_iter().map(curve).collect(),
        reference: Some((0.5, "chance".to_string())),
        interval_meaning: intervals.then(|| "95 % interval over examples".to_string()),
        ..Curves::default()
    })
}

/// The largest accuracy, and which others it cannot be told from: it is the best only where no other interval reaches its own.
fn best(cavs: &[CavRow]) -> String {
    let largest = cavs.iter().filter_map(|r| r.accuracy).fold(0.0, f64::max);
    let Some(first) = cavs.iter().find(|r| r.accuracy == Some(largest)) else { return String::new() };
    let at = format!("**{}** at layer {} with {}", first.method, first.layer, share(largest));
    let Some((low, _)) = first.accuracy_interval else { return format!("The largest accuracy is that of {at}.") };
    let at = format!("{at}, 95 % interval {}", share_interval(first.accuracy_interval));
    if low <= 0.5 {
        return format!("The largest accuracy is that of {at}, which chance gives too: the concept is found nowhere.");
    }
    let reaches = |r: &&CavRow| !std::ptr::eq(*r, first) && r.accuracy_interval.is_some_and(|(_, high)| high >= low);
    let methods = by(cavs.iter(), |row| row.method);
    let alone = methods.len() == 1;
    let others = methods.into_iter().filter_map(|of| {
        let at: Vec<i64> = of.iter().copied().filter(reaches).map(|r| r.layer).collect();
        let layers = format!("{} {}", if at.len() == 1 { "layer" } else { "layers" }, ranges(&at));
        // With one method there is nothing to tell by its name.
        (!at.is_empty()).then(|| if alone { layers } else { format!("{} at {layers}", of[0].method) })
    });
    let others: Vec<String> = others.collect();
    match (others.is_empty(), cavs.len()) {
        (true, 1) => format!("It is {at}."),
        (true, _) => format!("The best is {at}: no other interval reaches that."),
        (false, _) => format!(
            "The largest accuracy is that of {at}. It cannot be told from that of others: the intervals of {} reach its own.",
            others.join("; ")
        ),
    }
}

/// Ascending numbers with those that follow each other drawn together: `0, 3–5`.
fn ranges(numbers: &[i64]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, .., last] if last - first > 1 => format!("{first}–{last}"),
        run => run.iter().map(i64::to_string).collect::<Vec<_>>().join(", "),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// One figure of a method, or several where there are more classes than can be told apart.
fn tcav_figures(rows: &[TcavRow]) -> Figures {
    let classes = by(rows.iter(), |row| row.class);
    let layers = classes.first().map_or(1, Vec::len).max(1);
    let some = classes.chunks(MOST_SERIES.min(MOST_BARS / layers).max(1));
    some.enumerate().map(|(k, some)| (tcav_file(rows[0].method, k), tcav_figure(some))).collect()
}

/// The name of a method's figure number `k`.
fn tcav_file(method: &str, k: usize) -> String {
    if k == 0 { format!("tcav-{method}.png") } else { format!("tcav-{method}-{}.png", k + 1) }
}

/// The scores of some classes by a method, each class by itself.
fn tcav_figure(classes: &[Vec<&TcavRow>]) -> Figure {
    // Shares do not leave 0 to 1, whatever a standard deviation says.
    let around = |mean: Option<f64>, sd: Option<f64>| mean.zip(sd).map(|(m, s)| ((m - s).max(0.0), (m + s).min(1.0)));
    let estimate = |r: &&TcavRow| {
        let (interval, marked) = (around(r.tcav, r.tcav_sd), Some(r.significant));
        r.tcav.map(|value| Estimate { value, interval, marked })
    };
    let series = |rows: &Vec<&TcavRow>| BarSeries {
        name: rows[0].class.to_string(),
        estimates: rows.iter().map(estimate).collect(),
        bands: rows.iter().map(|r| around(r.random_mean, r.random_sd)).collect(),
    };
    let first = classes[0][0];
    Figure::from(Bars {
        title: format!("Prompts whose metric rises along the concept ({})", first.method),
        subtitle: format!("TCAV, {}, {}, {}", short_name(first.model), first.site, plural(first.runs, "run")),
        category_label: "layer".to_string(),
        value_label: "share of prompts whose metric rises".to_string(),
        shares: true,
        categories: classes[0].iter().map(|r| r.layer.to_string()).collect(),
        series: classes.iter().map(series).collect(),
        range: Some((0.0, 1.0)),
        reference: Some((0.5, "chance".to_string())),
        mark_meaning: Some(format!("q < {SIGNIFICANT}")),
        interval_meaning: Some("mean ± sd over runs, within 0 to 100 %".to_string()),
        band_meaning: Some("random against random sets, the same".to_string()),
    })
}

fn accuracy_section(cavs: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let rows = CavRow::read(cavs)?;
    let text = format!(
        "At each layer a linear classifier tells {} of the concept from {} random ones. The accuracy is on examples that it was not \
         fitted to, and both sides count half. {}",
        plural(rows.first().map_or(0, |r| r.n_concept), "example"),
        rows.first().map_or(0, |r| r.n_random),
        best(&rows),
    );
    let block = Listing::of(cavs)
        .column("layer", Show::Count(CavRow::layer.name))
        .column("method", Show::Text(CavRow::method.name))
        .column("held-out accuracy", Show::Share(CavRow::accuracy.name));
    let block = match cavs.holds(CavRow::accuracy_interval) {
        true => block.column("95 % interval", Show::ShareInterval(CavRow::accuracy_interval.name)),
        false => block,
    };
    let block = block
        .column("norm", Show::Number(CavRow::norm.name, 3))
        .column("cosine to mean difference", Show::Number(CavRow::cosine.name, 2))
        .block("Concept vectors; they are in cavs.safetensors")?;
    let alt = "Held-out accuracy of concept vectors by layer.";
    let section = Section::new("Where the concept is").paragraph(text);
    let section = section.figure(dir.join("accuracy.png"), "Balanced held-out accuracy by layer; 50 % is chance.", alt);
    Ok(section.block(Block::Table(block)))
}

fn tcav_section(tcav: &Table, rows: &[TcavRow], dir: &Path) -> Result<Section, AnalysisError> {
    let first = &rows[0];
    let untested = match rows.iter().filter(|r| r.p_value.is_none()).count() {
        0 => String::new(),
        n => format!(
            " {n} were not tested: no run differs from another of its kind, so that there is no error to compare with."
        ),
    };
    let dependent = match first.whole_groups {
        true => "",
        false => {
            " **The runs are not independent**: there are too few groups of examples to deal them out whole, so that examples of \
             one group are in several runs, and p-values are too small."
        }
    };
    let text = format!(
        "TCAV is the share of a class's prompts whose metric rises along the concept. {} CAVs of disjoint parts of the concept ({} \
         examples a side) are compared with as many of random sets. {} of {} layers and classes are significant (q < \
         {SIGNIFICANT}).{untested}{dependent}",
        first.runs,
        first.examples,
        rows.iter().filter(|r| r.significant).count(),
        rows.len(),
    );
    let block = Listing::of(tcav)
        .only(TcavRow::method.name, first.method)
        .column("layer", Show::Count(TcavRow::layer.name))
        .column("class", Show::Text(TcavRow::class.name))
        .column("TCAV", Show::Share(TcavRow::tcav.name))
        .column("random", Show::Share(TcavRow::random_mean.name))
        .column("p", Show::PValue(TcavRow::p_value.name))
        .column("q", Show::PValue(TcavRow::q_value.name))
        .block("TCAV scores")?;
    let (caption, alt) = (
        "TCAV by layer; grey: the mean ± sd of random against random sets.",
        "TCAV scores by layer with the random band.",
    );
    let figures = (0..tcav_figures(rows).len()).map(|k| dir.join(tcav_file(first.method, k)));
    let section = Section::new(format!("TCAV ({})", first.method)).paragraph(text);
    let section = figures.fold(section, |section, file| section.figure(file, caption, alt));
    Ok(section.block(Block::Table(block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cavs(accuracy: &[(i64, &'static str, f64)]) -> Table {
        let row = |(layer, method, accuracy): &(i64, &'static str, f64)| CavRow {
            model: "m",
            layer: *layer,
            site: "resid_post",
            position: "last".into(),
            method,
            n_concept: 20,
            n_random: 20,
            accuracy: Some(*accuracy),
            accuracy_interval: Some((accuracy - 0.05, (accuracy + 0.05).min(1.0))),
            norm: Some(1.0),
            cosine: Some(1.0),
            strength: None,
        };
        CavRow::table(accuracy.iter().map(row)).unwrap()
    }

    fn tcav(classes: usize, layers: i64, whole_groups: bool) -> Table {
        let names: Vec<String> = (0..classes).map(|c| format!("class {c}")).collect();
        let row = |class, layer| TcavRow {
            model: "m",
            layer,
            class,
            tcav: Some(0.9),
            tcav_sd: Some(0.1),
            random_mean: Some(0.5),
            random_sd: Some(0.2),
            runs: 10,
            p_value: Some(0.5),
            q_value: Some(0.5),
            method: "ridge",
            site: "resid_post",
            examples: 4,
            whole_groups,
            ..TcavRow::default()
        };
        TcavRow::table(names.iter().flat_map(|class| (0..layers).map(move |layer| row(class, layer)))).unwrap()
    }

    fn words(tables: &[Table]) -> String {
        format!("{:?}", sections(tables, Path::new("run")).unwrap())
    }

    #[test]
    fn an_accuracy_is_the_best_only_where_no_other_interval_reaches_its_own() {
        let said = |rows: &[(i64, &'static str, f64)]| words(&[cavs(rows)]);
        let text = said(&[(0, "ridge", 0.5), (1, "ridge", 0.9), (2, "ridge", 0.7)]);
        assert!(text.contains("The best is **ridge** at layer 1 with 90.0"), "{text}");
        assert!(text.contains("95 % interval [85.0") && text.contains("no other interval reaches"), "{text}");
        // Equal ones, and ones within the intervals; of several that are as good the first is named.
        let tied = [
            (0, "ridge", 0.5),
            (0, "svm", 0.6),
            (1, "ridge", 1.0),
            (1, "svm", 0.93),
            (2, "ridge", 1.0),
            (3, "ridge", 0.92),
        ];
        let text = said(&[&tied[..], &[(4, "ridge", 0.91), (5, "ridge", 0.80)]].concat());
        assert!(!text.contains("best is") && text.contains("that of **ridge** at layer 1 with 100.0"), "{text}");
        assert!(text.contains("the intervals of ridge at layers 2–4; svm at layer 1 reach its own."), "{text}");
        let text = said(&[(0, "ridge", 0.5), (1, "ridge", 0.9), (2, "ridge", 0.88)]);
        assert!(text.contains("the intervals of layer 2 reach its own"), "{text}");
        let text = said(&[(0, "ridge", 0.52), (1, "ridge", 0.54)]);
        assert!(text.contains("which chance gives too"), "{text}");
        assert_eq!((ranges(&[0, 3, 4, 5, 8, 9]), ranges(&[2])), ("0, 3–5, 8, 9".to_string(), "2".to_string()));
    }

    #[test]
    fn more_classes_than_one_figure_shows_are_drawn_in_several() {
        let accuracy = cavs(&[(0, "ridge", 1.0)]);
        for (classes, layers, files) in [(7, 20, 1), (8, 2, 2), (8, 30, 2), (6, 30, 2), (7, 24, 2)] {
            let tables = [accuracy.clone(), tcav(classes, layers, true)];
            let figures = figures(&tables).unwrap();
            assert_eq!(figures.len(), 1 + files, "{classes} classes of {layers} layers");
            for (name, figure) in &figures {
                figure.draw().unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(words(&tables).contains(name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn runs_that_share_groups_are_said_to() {
        let text = |whole| words(&[cavs(&[(0, "ridge", 1.0)]), tcav(2, 3, whole)]);
        assert!(text(false).contains("The runs are not independent") && !text(true).contains("not independent"));
    }
}
