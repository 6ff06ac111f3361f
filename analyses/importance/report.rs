//! Figures and text of rankings, from their tables.

use super::METHODS;
use super::tables::{CurveRow, SummaryRow, TokenRow};
use crate::analyses::effects::{INTERVAL, SIGNIFICANT};
use crate::analyses::lens::visible;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Heatmap};
use crate::names::short_name;
use crate::report::cells::{self, p_value, plural, signed};

/// How many prompts have a figure of their own, and of how many tokens.
const FIGURES: usize = 3;
const TOKENS: usize = 40;

const KINDS: [(&str, &str, &str); 2] = [
    ("deletion", "Masked from the most important on", "share of the tokens that are masked"),
    ("insertion", "Put back from the most important on", "share of the tokens that are there"),
];

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let curves = CurveRow::read(table(tables, CurveRow::TABLE)?)?;
    let tokens = TokenRow::read(table(tables, TokenRow::TABLE)?)?;
    let first = curves.first().cloned().unwrap_or_default();
    let model = short_name(first.model);
    let mut figures: Figures = Vec::new();
    for (kind, title, x_label) in KINDS {
        let curve = |ranking: &str| {
            let of = curves.iter().filter(|row| row.ranking == ranking && row.kind == kind);
            let points = of.map(|row| CurvePoint { x: row.share, y: row.metric_mean, interval: row.interval });
            Curve { name: ranking.to_string(), role: CurveRole::Series, points: points.collect() }
        };
        let figure = Curves {
            title: title.to_string(),
            subtitle: format!("{model}, {}", plural(first.n, "prompt")),
            x_label: x_label.to_string(),
            y_label: "logit difference (nats)".to_string(),
            curves: METHODS.into_iter().chain(["random"]).map(curve).collect(),
            interval_meaning: Some(INTERVAL.to_string()),
            ..Curves::default()
        };
        figures.push((format!("{kind}.png"), Figure::from(figure)));
    }
    for (i, rows) in first_prompts(&tokens).into_iter().enumerate() {
        figures.push((file(i), Figure::from(of_prompt(&model, &rows))));
    }
    Ok(figures)
}

fn file(i: usize) -> String {
    format!("prompt-{}.png", i + 1)
}

/// The rows of the first prompts.
fn first_prompts<'a, 'r>(rows: &'r [TokenRow<'a>]) -> Vec<Vec<&'r TokenRow<'a>>> {
    let chunks = rows.chunk_by(|a, b| a.item.id == b.item.id).take(FIGURES);
    chunks.map(|rows| rows.iter().filter(|row| row.own).take(TOKENS).collect()).collect()
}

fn score(row: &TokenRow, method: usize) -> Option<f64> {
    [row.attention, row.vatp, row.occlusion, row.rise][method]
}

/// The four rankings of a prompt's tokens, each as a share of its largest.
fn of_prompt(model: &str, rows: &[&TokenRow]) -> Heatmap {
    let scores = |method: usize| -> Vec<Option<f64>> {
        let all: Vec<Option<f64>> = rows.iter().map(|row| score(row, method)).collect();
        let most = all.iter().flatten().fold(0f64, |most, x| most.max(x.abs()));
        all.into_iter().map(|x| x.filter(|_| most > 0.0).map(|x| x / most)).collect()
    };
    let of: Vec<Vec<Option<f64>>> = (0..METHODS.len()).map(scores).collect();
    // The first row of a heatmap is at the bottom, the first token is at the top.
    let rows_down = || (0..rows.len()).rev();
    Heatmap {
        title: "What the answer depends on".to_string(),
        subtitle: format!("{model}, prompt {}", rows.first().map_or("", |row| row.item.id)),
        x_label: "ranking".to_string(),
        y_label: "token of the prompt".to_string(),
        value_label: "share of the largest".to_string(),
        values: rows_down().map(|t| of.iter().map(|scores| scores[t]).collect()).collect(),
        limit: Some(1.0),
        row_names: rows_down().map(|t| visible(&rows[t].token).chars().take(14).collect()).collect(),
        column_names: METHODS.map(str::to_string).to_vec(),
        ..Heatmap::default()
    }
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let summary = SummaryRow::read(table(tables, SummaryRow::TABLE)?)?;
    let tokens = TokenRow::read(table(tables, TokenRow::TABLE)?)?;
    Ok(vec![rankings(&summary, dir), prompts(&tokens, dir)])
}

fn rankings(rows: &[SummaryRow], dir: &Path) -> Section {
    let n = rows.first().map_or(0, |row| row.n);
    let better: Vec<&SummaryRow> = rows
        .iter()
        .filter(|row| row.q_value.is_some_and(|q| q < SIGNIFICANT) && row.over_random.is_some_and(|x| x > 0.0))
        .collect();
    let mut text = format!(
        "Tokens of {} were masked from the most important on (deletion), and put back in that order (insertion). A good ranking lets the \
         logit difference fall fast and rise fast: its score is the mean height of the second curve less that of the first.",
        plural(n, "prompt"),
    );
    let best = better.iter().max_by(|a, b| a.over_random.unwrap_or(0.0).total_cmp(&b.over_random.unwrap_or(0.0)));
    text += &match best {
        Some(best) => {
            let (low, high) = best.over_random_interval.unzip();
            let names: Vec<&str> = better.iter().map(|row| row.ranking).collect();
            format!(
                " Better than random rankings beyond chance (q < {SIGNIFICANT}): {}. The best is {}, by {} nats, 95 % interval {}.",
                names.join(", "),
                best.ranking,
                signed(best.over_random, 3),
                cells::interval(low, high, 3),
            )
        }
        None if n < 2 => " One prompt is too few to tell anything from chance.".to_string(),
        None => " None of them is better than random rankings beyond chance.".to_string(),
    };
    let header = vec![
        Heading::text("ranking"),
        Heading::number("deletion (nats)"),
        Heading::number("insertion (nats)"),
        Heading::number("score (nats)"),
        Heading::number("over random (nats)"),
        Heading::number("95 % interval"),
        Heading::number("q"),
    ];
    let cells = rows.iter().map(|row| {
        let (low, high) = row.over_random_interval.unzip();
        vec![
            row.ranking.to_string(),
            signed(row.deletion, 3),
            signed(row.insertion, 3),
            signed(row.score, 3),
            signed(row.over_random, 3),
            cells::interval(low, high, 3),
            p_value(row.q_value),
        ]
    });
    let mut section = Section::new("Which ranking is better?").paragraph(text);
    for (kind, title, _) in KINDS {
        section =
            section.figure(dir.join(format!("{kind}.png")), format!("{title}."), "Curves of the logit difference.");
    }
    section.table("The rankings", header, cells.collect())
}

fn prompts(rows: &[TokenRow], dir: &Path) -> Section {
    let mut section = Section::new("Token by token").paragraph(
        "The tokens of the first prompts by each ranking, each a share of the ranking's largest. Attention and VATP say what is looked \
         at; occlusion and RISE what the answer does without it, which may be more (blue: the answer is likelier without). \
         tokens.parquet has all.",
    );
    for (i, rows) in first_prompts(rows).into_iter().enumerate() {
        let id = rows.first().map_or("", |row| row.item.id);
        let caption = format!("The tokens of the prompt {id}.");
        section = section.figure(dir.join(file(i)), caption, "Heatmap of rankings by tokens.");
    }
    section
}
