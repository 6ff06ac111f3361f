//! Reports as Markdown (with GitHub's tables); figures by file name.

use std::borrow::Cow;
use std::fmt::Write;

use super::inline::{Span, spans};
use super::{Block, FigureBlock, Report, TableBlock};

/// The report as Markdown. Figures are expected beside it.
pub fn render(report: &Report) -> String {
    let mut out = format!("# {}\n\n", line(&report.title));
    for block in &report.intro {
        push_block(&mut out, block);
    }
    for section in &report.sections {
        push(&mut out, format_args!("## {}\n\n", line(&section.heading)));
        for block in &section.blocks {
            push_block(&mut out, block);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

fn push_block(out: &mut String, block: &Block) {
    match block {
        Block::Paragraph(text) => {
            for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
                push(out, format_args!("{}\n\n", line(paragraph)));
            }
        }
        Block::Table(table) => push_table(out, table),
        Block::Figure(figure) => push_figure(out, figure),
        Block::KeyValues(pairs) => {
            for (key, value) in pairs {
                push(out, format_args!("- **{}**: {}\n", escape(&flat(key)), inline(&flat(value))));
            }
            out.push('\n');
        }
        // The figures of patterns stand for it.
        Block::Tokens(_) => {}
        Block::Code(text) => {
            let fence = "`".repeat(longest_run(text, '`').max(2) + 1);
            push(out, format_args!("{fence}text\n{}\n{fence}\n\n", text.trim_end_matches('\n')));
        }
    }
}

fn push_table(out: &mut String, table: &TableBlock) {
    if !table.caption.is_empty() {
        push(out, format_args!("{}\n\n", line(&table.caption)));
    }
    if table.header.is_empty() {
        return;
    }
    let names: Vec<String> = table.header.iter().map(|heading| cell(&heading.name)).collect();
    push(out, format_args!("| {} |\n", names.join(" | ")));
    for heading in &table.header {
        out.push_str(if heading.numeric { "| ---: " } else { "| --- " });
    }
    out.push_str("|\n");
    for row in &table.rows {
        let cells: Vec<String> = table.cells(row).map(|(_, text)| cell(text)).collect();
        push(out, format_args!("| {} |\n", cells.join(" | ")));
    }
    out.push('\n');
}

fn push_figure(out: &mut String, figure: &FigureBlock) {
    let name = figure.path.file_name().unwrap_or(figure.path.as_os_str()).to_string_lossy();
    // In angle brackets a target may hold spaces and parentheses.
    let target = name.replace('<', "%3C").replace('>', "%3E").replace(['\n', '\r'], "");
    push(out, format_args!("![{}](<{target}>)\n\n", escape(&flat(&figure.alt))));
    if !figure.caption.is_empty() {
        push(out, format_args!("{}\n\n", line(&figure.caption)));
    }
}

/// Running text on one line, with its marks, safe at a line's start.
fn line(text: &str) -> String {
    let text = flat(text);
    let inner = inline(&text);
    let digits = inner.len() - inner.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    match inner[digits..].chars().next() {
        // A number with a point or parenthesis would start a numbered list.
        Some('.' | ')') if digits > 0 => format!("{}\\{}", &inner[..digits], &inner[digits..]),
        Some('-' | '+' | '=') if digits == 0 => format!("\\{inner}"),
        _ => inner,
    }
}

fn inline(text: &str) -> String {
    let mut out = String::new();
    for span in spans(text) {
        match span {
            Span::Text(text) => out.push_str(&escape(text)),
            Span::Code(code) => push(&mut out, format_args!("`{code}`")),
            Span::Bold(bold) => push(&mut out, format_args!("**{}**", escape(bold))),
        }
    }
    out
}

/// Text in a table: a bar would end the cell even within code.
fn cell(text: &str) -> String {
    inline(&flat(text)).replace("\\|", "|").replace('|', "\\|")
}

/// One line of it: Markdown gives line breaks a meaning that the text does not have.
fn flat(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if !text.contains(['\n', '\r']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '!' | '&' | '$') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn longest_run(text: &str, wanted: char) -> usize {
    text.split(|letter| letter != wanted).map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::hostile;
    use super::super::{Heading, Section};
    use super::*;

    #[test]
    fn a_report_becomes_headings_text_tables_and_figures() {
        let report = Report::new("Refusal").paragraph("The gate is **L1.H2**, see `run.json`.").section(
            Section::new("Interchange")
                .table(
                    "Heads",
                    vec![Heading::text("head"), Heading::number("effect")],
                    vec![vec!["L1.H2".to_owned(), "−0.5".to_owned()]],
                )
                .figure("/tmp/run/my heads.png", "Effects", "A heatmap")
                .block(Block::Code("gatelens demo".to_owned())),
        );
        let expected = "# Refusal\n\nThe gate is **L1.H2**, see `run.json`.\n\n## Interchange\n\nHeads\n\n\
            | head | effect |\n| --- | ---: |\n| L1.H2 | −0.5 |\n\n\
            ![A heatmap](<my heads.png>)\n\nEffects\n\n```text\ngatelens demo\n```\n";
        assert_eq!(render(&report), expected);
    }

    #[test]
    fn no_text_breaks_out_of_where_it_stands() {
        let text = render(&hostile("f.png".into()));
        let outside_code = text.split("`````").next().unwrap();
        let tags = |pattern: &str| outside_code.matches(pattern).count();
        assert_eq!(tags("<script"), tags("\\<script"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), 2, "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(rows.len(), 5, "{text}");
        for row in rows {
            let bars = row.replace("\\|", "").matches('|').count();
            assert_eq!(bars, 3, "{row}");
        }
        assert!(text.contains("\n\\- not a list\n"), "{text}");
        assert!(text.contains("\n\\> not a quote 1. not one\n"), "{text}");
        assert!(text.contains("`````text\n```\n"), "the fence is longer than any within: {text}");
        assert_eq!(line("1. not a list"), "1\\. not a list");
    }

    #[test]
    fn a_bar_within_code_does_not_end_a_cell() {
        assert_eq!(cell("`a|b` c|d"), "`a\\|b` c\\|d");
    }
}
