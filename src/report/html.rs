//! Reports as one HTML file that needs nothing else: figures inlined as SVG in the page's own colours, no request to anywhere,
//! light and dark, readable on a phone and on paper, tables that scroll and sort, numbers of figures shown where they are.
//! A [graph](crate::figure::graph) can be walked: `graph.js` finds its nodes and edges, with their numbers, in the figure itself.
//!
//! The page works without its script: headers become buttons only where the script runs, and the browser shows the titles of
//! a figure's parts by itself. The policy in its head lets
//! a browser run that one script and use that one style sheet, named by their SHA-256, and nothing else.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::anchors::Anchors;
use super::inline::{Span, plain, spans};
use super::{Block, FigureBlock, Report, ReportError, TableBlock, TokenView};
use crate::figure::SVG_OPENING;
use crate::markup::escape;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str =
    concat!(include_str!("sort.js"), include_str!("tips.js"), include_str!("graph.js"), include_str!("tokens.js"));

/// A report with more sections than this has a table of contents.
const SECTIONS_AT_A_GLANCE: usize = 3;

/// Words up to so many letters fit on a phone and are not broken at their hyphens.
const UNBROKEN_LETTERS: usize = 32;

/// So many letters of a row's first cells may stay in view while a table is scrolled sideways: on a phone others need room too.
const PINNED_LETTERS: usize = 18;

/// So many columns may.
const PINNED_COLUMNS: usize = 3;

/// The report as HTML. Reads the figures' files.
pub fn render(report: &Report) -> Result<String, ReportError> {
    let mut body = Body { html: String::new(), tables: 0 };
    body.push_blocks(&report.intro)?;
    let mut anchors = Anchors::default();
    let names: Vec<String> = report.sections.iter().map(|section| anchors.name(&section.heading, "section")).collect();
    for (section, name) in report.sections.iter().zip(&names) {
        push(&mut body.html, format_args!("<section id=\"{name}\">\n<h2>{}</h2>\n", inline(&section.heading)));
        body.push_blocks(&section.blocks)?;
        body.html.push_str("</section>\n");
    }
    let (title, heading, policy) = (escape(&plain(&report.title)), inline(&report.title), policy());
    let (contents, body) = (contents(report, &names), body.html);
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{heading}</h1>\n</header>\n\
         {contents}<main>\n{body}</main>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    ))
}

/// What a browser may do with the page: show its own icon, use its own style and run its own script.
fn policy() -> String {
    // The digest is of an element's content, which begins with the line break after its tag.
    let digest = |text: &str| STANDARD.encode(Sha256::digest(format!("\n{text}")));
    format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'sha256-{}'; \
         script-src 'sha256-{}'",
        digest(STYLE),
        digest(SCRIPT)
    )
}

/// Links to the sections, where there are more than one takes in at a glance. Under a heading that ends in a name in
/// parentheses stand those that begin with the name, without it.
fn contents(report: &Report, names: &[String]) -> String {
    if report.sections.len() <= SECTIONS_AT_A_GLANCE {
        return String::new();
    }
    let mut out = "<nav aria-label=\"Contents\">\n<p>Contents</p>\n<ol>\n".to_owned();
    let (mut whole, mut within) = (None, false);
    for (index, (section, name)) in report.sections.iter().zip(names).enumerate() {
        let heading = section.heading.as_str();
        let part = whole.and_then(|whole| heading.strip_prefix(whole)?.strip_prefix(": "));
        out.push_str(match (part, within) {
            (Some(_), false) => "\n<ol>\n",
            (None, true) => "</ol>\n</li>\n",
            (None, false) if index > 0 => "</li>\n",
            _ => "",
        });
        within = part.is_some();
        push(&mut out, format_args!("<li><a href=\"#{name}\">{}</a>", inline(part.unwrap_or(heading))));
        match part {
            Some(_) => out.push_str("</li>\n"),
            None => whole = heading.rsplit_once(" (").and_then(|(_, name)| name.strip_suffix(')')),
        }
    }
    out.push_str(if within { "</ol>\n</li>\n" } else { "</li>\n" });
    out.push_str("</ol>\n</nav>\n");
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

/// What stands in the page, as far as it is written.
struct Body {
    html: String,
    tables: usize,
}

impl Body {
    fn push_blocks(&mut self, blocks: &[Block]) -> Result<(), ReportError> {
        for block in blocks {
            match block {
                Block::Paragraph(text) => {
                    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
                        push(&mut self.html, format_args!("<p>{}</p>\n", inline(paragraph.trim())));
                    }
                }
                Block::Table(table) => self.push_table(table),
                Block::Figure(figure) => push_figure(&mut self.html, figure)?,
                Block::KeyValues(pairs) => {
                    self.html.push_str("<dl>\n");
                    for (key, value) in pairs {
                        push(&mut self.html, format_args!("<dt>{}</dt><dd>{}</dd>\n", escape(key), inline(value)));
                    }
                    self.html.push_str("</dl>\n");
                }
                Block::Code(text) => {
                    let text = code(text.trim_end_matches('\n'));
                    push(&mut self.html, format_args!("<pre><code>{text}</code></pre>\n"));
                }
                Block::Tokens(view) => push_tokens(&mut self.html, view),
            }
        }
        Ok(())
    }

    fn push_table(&mut self, table: &TableBlock) {
        let out = &mut self.html;
        self.tables += 1;
        // The caption stands outside the box that scrolls, so that it stays in view.
        out.push_str("<figure class=\"table\">\n");
        let label = if table.caption.is_empty() {
            "aria-label=\"Table\"".to_owned()
        } else {
            // Sections are called by names without underscores.
            let id = format!("table_{}", self.tables);
            push(out, format_args!("<figcaption id=\"{id}\">{}</figcaption>\n", inline(&table.caption)));
            format!("aria-labelledby=\"{id}\"")
        };
        let named = first_column_names_rows(table);
        // A box that scrolls must be reachable by keyboard, and what can be reached must have a name.
        push(out, format_args!("<div class=\"scroll\" role=\"region\" {label} tabindex=\"0\">\n"));
        let pinned = pinned(table);
        push(out, format_args!("<table {label}>\n<thead><tr>"));
        for (column, heading) in table.header.iter().enumerate() {
            let (class, name) = (class(heading.numeric, column < pinned), inline(&heading.name));
            push(out, format_args!("<th scope=\"col\"{class}>{name}</th>"));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &table.rows {
            out.push_str("<tr>");
            for (column, (heading, cell)) in table.cells(row).enumerate() {
                let (cell, class) = (inline(cell), class(heading.numeric, column < pinned));
                if named && column == 0 {
                    push(out, format_args!("<th scope=\"row\"{class}>{cell}</th>"));
                } else {
                    push(out, format_args!("<td{class}>{cell}</td>"));
                }
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n</div>\n</figure>\n");
    }
}

/// Tokens with the numbers that the script shows; without it they are the text of the first prompt.
fn push_tokens(out: &mut String, view: &TokenView) {
    let Some(first) = view.prompts.first() else { return };
    // Strings and finite numbers can always be written.
    let data = serde_json::to_string(view).unwrap_or_default();
    push(out, format_args!("<figure class=\"tokens\" data-view=\"{}\">\n", escape(&data)));
    push(out, format_args!("<figcaption>{}</figcaption>\n<div class=\"text\">", inline(&view.caption)));
    for token in &first.tokens {
        push(out, format_args!("<span dir=\"auto\">{}</span>", escape(token)));
    }
    out.push_str("</div>\n</figure>\n");
}

/// Whether the first column is the rows' names: short text that is there in every row and never repeats.
fn first_column_names_rows(table: &TableBlock) -> bool {
    let mut seen = HashSet::new();
    table.header.first().is_some_and(|heading| !heading.numeric)
        && table.rows.iter().all(|row| {
            let cell = row.first().map_or("", |cell| cell.trim());
            !cell.is_empty() && cell.chars().count() <= PINNED_LETTERS && seen.insert(cell)
        })
}

/// How many columns stay in view while a table is scrolled sideways: as many as tell rows apart, if they are narrow; else those
/// of the first two that are.
fn pinned(table: &TableBlock) -> usize {
    let widest = |column: usize| {
        let cells = table.rows.iter().map(|row| row.get(column).map_or("", String::as_str));
        cells.map(|cell| plain(cell).chars().count()).max().unwrap_or(0)
    };
    // One column more is what there is to be scrolled.
    let most = PINNED_COLUMNS.min(table.header.len().saturating_sub(1));
    let narrow = |count: &usize| (0..*count).map(widest).sum::<usize>() <= PINNED_LETTERS;
    let tells_apart = |count: &usize| {
        let mut seen = HashSet::new();
        table.rows.iter().all(|row| seen.insert(row.get(..*count).unwrap_or(row)))
    };
    let enough = (1..=most).take_while(narrow).find(tells_apart);
    enough.unwrap_or_else(|| (1..=most.min(2)).take_while(narrow).last().unwrap_or(0))
}

fn class(numeric: bool, pinned: bool) -> &'static str {
    match (numeric, pinned) {
        (false, false) => "",
        (true, false) => " class=\"num\"",
        (false, true) => " class=\"pin\"",
        (true, true) => " class=\"num pin\"",
    }
}

fn push_figure(out: &mut String, figure: &FigureBlock) -> Result<(), ReportError> {
    let path = figure.path.with_extension("svg");
    let picture = read_svg(&path)?;
    let alt = escape(&figure.alt);
    push(
        out,
        format_args!("<figure>\n<div class=\"picture\"><svg role=\"img\" aria-label=\"{alt}\" {picture}</div>\n"),
    );
    if !figure.caption.is_empty() {
        push(out, format_args!("<figcaption>{}</figcaption>\n", inline(&figure.caption)));
    }
    out.push_str("</figure>\n");
    Ok(())
}

/// A figure as it stands in a page: from the attributes of its first tag on, without the name of its language.
fn read_svg(path: &Path) -> Result<String, ReportError> {
    let text = std::fs::read_to_string(path).map_err(|source| ReportError::Figure { path: path.to_owned(), source })?;
    let own = text.strip_prefix(SVG_OPENING).filter(|rest| !rest.contains("<script"));
    own.map(|rest| rest.trim_end().to_owned()).ok_or_else(|| ReportError::NotSvg { path: path.to_owned() })
}

/// Text of fixed width. Its lines are broken where they must, but not within `--seed`.
fn code(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(char::is_whitespace) {
        let word = part.trim_end_matches(char::is_whitespace);
        if word.contains('-') && word.chars().count() <= UNBROKEN_LETTERS {
            push(&mut out, format_args!("<span>{}</span>{}", escape(word), escape(&part[word.len()..])));
        } else {
            out.push_str(&escape(part));
        }
    }
    out
}

fn inline(text: &str) -> String {
    let mut out = String::new();
    for span in spans(text) {
        match span {
            Span::Text(text) => out.push_str(&escape(text)),
            Span::Code(code) => push(&mut out, format_args!("<code>{}</code>", escape(code))),
            Span::Bold(bold) => push(&mut out, format_args!("<strong>{}</strong>", escape(bold))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::hostile;
    use std::path::PathBuf;

    use super::super::{Heading, Section, TokenHead, TokenPrompt};
    use super::*;
    use crate::figure::Canvas;
    use crate::figure::canvas::Rect;
    use crate::figure::style::{BAND, CONTROL, EMPTY_GROUND, EMPTY_STRIPE, FAINT_INK, GRID, INK, PAPER, SERIES};
    use crate::figure::text::TextStyle;

    /// A figure's file; it is referred to by the name of its PNG file.
    fn figure() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let mut canvas = Canvas::new(100);
        canvas.text("<effect> & \"q\"", 10.0, 40.0, TextStyle::new(30.0, INK));
        canvas.fill(Rect { left: 5, top: 5, width: 9, height: 9 }, SERIES[0]);
        canvas.tip(Rect { left: 5, top: 5, width: 9, height: 9 }, "L0.H1: <b>\"+0.4\"</b>");
        std::fs::write(folder.path().join("heads.svg"), canvas.to_svg()).unwrap();
        let path = folder.path().join("heads.png");
        (folder, path)
    }

    fn page(section: Section) -> String {
        render(&Report::new("r").section(section)).unwrap()
    }

    #[test]
    fn everything_is_escaped_wherever_it_stands() {
        let (_folder, figure) = figure();
        let page = render(&hostile(figure)).unwrap();
        assert_eq!(page.matches("<script>").count(), 1, "only the page's own");
        assert!(!page.contains("\"q\"") && !page.contains("<b>"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;q&quot; &#39;a&#39;"));
        assert!(page.contains("<code>a|b</code> and <strong>bold &lt;b&gt;</strong>"));
    }

    #[test]
    fn a_page_asks_for_nothing_from_elsewhere() {
        let (_folder, figure) = figure();
        let hostile = hostile(figure);
        let many = Report { sections: vec![hostile.sections[0].clone(); 5], ..hostile };
        let page = render(&many).unwrap();
        for forbidden in ["http://", "https://", "src=\"/", "@import", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for link in page.split("href=\"").skip(1) {
            assert!(link.starts_with('#') || link.starts_with("data:,\""), "{link:.40}");
        }
    }

    #[test]
    fn options_of_a_command_are_not_broken_at_their_hyphens() {
        assert_eq!(code("run --seed 0\n  <-"), "run <span>--seed</span> 0\n  <span>&lt;-</span>");
        let long = "-".repeat(UNBROKEN_LETTERS + 1);
        assert_eq!(code(&long), long);
    }

    #[test]
    fn the_policy_names_the_pages_own_script_and_style_and_no_other() {
        let page = page(Section::new("s"));
        let content = |tag: &str| {
            let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once(&format!("</{tag}>")).unwrap().0.to_owned()
        };
        for (tag, directive) in [("script", "script-src"), ("style", "style-src")] {
            let digest = STANDARD.encode(Sha256::digest(content(tag)));
            assert!(page.contains(&format!("{directive} 'sha256-{digest}'")), "{tag}");
        }
        assert!(!page.contains("unsafe-inline"));
    }

    #[test]
    fn figures_are_part_of_the_page_in_its_colours_with_their_tips() {
        let (_folder, figure) = figure();
        let page = page(Section::new("s").figure(figure, "c", "what \"it\" shows"));
        assert!(
            page.contains("<svg role=\"img\" aria-label=\"what &quot;it&quot; shows\" class=\"plot\" viewBox"),
            "{page}"
        );
        assert!(page.contains("<text class=\"ink\"") && page.contains(">&lt;effect&gt; &amp; &quot;q&quot;</text>"));
        assert!(page.contains("<title>L0.H1: &lt;b&gt;&quot;+0.4&quot;&lt;/b&gt;</title>"));
        assert!(!page.contains("data:image") && page.matches("</svg>").count() == 1);
        // Every colour that a figure has by its role is one of the page's.
        for color in [INK, FAINT_INK, GRID, PAPER, BAND, CONTROL, EMPTY_GROUND, EMPTY_STRIPE] {
            assert!(STYLE.contains(&format!(".plot .{} {{", color.role().unwrap())), "{color:?}");
        }
    }

    #[test]
    fn tokens_are_text_without_the_script_and_data_with_it() {
        let head =
            TokenHead { name: "L0.H1".to_owned(), weights: vec![vec![1.0], vec![0.25, 0.75]], sizes: vec![2.0, 0.5] };
        let prompt =
            TokenPrompt { id: "a".to_owned(), tokens: vec!["<b>".to_owned(), " \"x\"".to_owned()], heads: vec![head] };
        let view = TokenView { caption: "`c`".to_owned(), prompts: vec![prompt] };
        let page = page(Section::new("s").block(Block::Tokens(view)));
        assert!(page.contains("<span dir=\"auto\">&lt;b&gt;</span><span dir=\"auto\"> &quot;x&quot;</span>"), "{page}");
        let (_, rest) = page.split_once("data-view=\"").unwrap();
        let data = rest.split_once('"').unwrap().0.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
        let data: serde_json::Value = serde_json::from_str(&data.replace("&amp;", "&")).unwrap();
        assert_eq!(data["prompts"][0]["heads"][0]["weights"], serde_json::json!([[1.0], [0.25, 0.75]]));
        assert_eq!(data["prompts"][0]["tokens"][1], " \"x\"");
        assert!(
            !self::page(Section::new("s").block(Block::Tokens(TokenView::default())))
                .contains("<figure class=\"tokens")
        );
    }

    #[test]
    fn a_missing_figure_and_one_that_is_not_ours_are_errors_that_name_the_file() {
        let report = |path: &Path| Report::new("r").section(Section::new("s").figure(path, "c", "a"));
        let message = |path: &Path| render(&report(path)).unwrap_err().to_string();
        assert!(message(Path::new("none.png")).starts_with("none.svg: a figure cannot be read"));
        let (folder, figure) = figure();
        for other in
            ["not SVG", "<svg><script>alert(1)</script></svg>", &format!("{SVG_OPENING}><script>alert(1)</script>")]
        {
            std::fs::write(folder.path().join("heads.svg"), other).unwrap();
            assert!(matches!(render(&report(&figure)), Err(ReportError::NotSvg { .. })), "{other}");
            assert!(message(&figure).contains("heads.svg"));
        }
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_header_and_numbers_their_class() {
        let header = vec![Heading::text("head"), Heading::number("effect")];
        let rows = vec![vec!["L0.H1".to_owned()], vec!["a".to_owned(), "1".to_owned(), "x".to_owned()]];
        let page = page(Section::new("s").table("t", header, rows));
        assert_eq!((page.matches("<td").count(), page.matches("<th ").count()), (2, 4));
        assert!(page.contains("<th scope=\"row\" class=\"pin\">a</th><td class=\"num\">1</td>"));
    }

    #[test]
    fn the_first_column_names_the_rows_where_it_is_short_and_does_not_repeat() {
        let names = |cells: &[&str]| {
            let rows = cells.iter().map(|cell| vec![(*cell).to_owned(), "1".to_owned()]).collect();
            page(Section::new("s").table("t", vec![Heading::text("a"), Heading::number("b")], rows))
                .contains("scope=\"row\"")
        };
        assert!(names(&["L0.H1", "L0.H2"]));
        assert!(!names(&["en", "en"]));
        assert!(!names(&["en", ""]));
        assert!(!names(&["en", "a prompt of many words"]));
    }

    #[test]
    fn the_columns_that_tell_rows_apart_stay_in_view_where_they_are_narrow() {
        let pinned = |rows: &[&[&str]]| {
            let rows: Vec<Vec<String>> =
                rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
            let header = (0..rows[0].len()).map(|column| Heading::text(format!("c{column}"))).collect();
            super::pinned(&TableBlock { caption: String::new(), header, rows })
        };
        assert_eq!(pinned(&[&["L0.H1", "1", "2"], &["L0.H2", "1", "2"]]), 1);
        assert_eq!(pinned(&[&["0", "1", "x"], &["0", "2", "x"]]), 2);
        assert_eq!(pinned(&[&["drugs", "en", "1", "x"], &["drugs", "de", "1", "x"]]), 2);
        assert_eq!(
            pinned(&[&["same", "same", "same", "x"], &["same", "same", "same", "y"]]),
            2,
            "only the last differs"
        );
        assert_eq!(pinned(&[&["group", "a prompt of many words", "x"], &["group", "and others", "y"]]), 1);
        assert_eq!(pinned(&[&["a prompt of many words", "1"], &["another prompt of many words", "2"]]), 0);
        assert_eq!(pinned(&[&["alone"], &["only"]]), 0, "there is nothing to be scrolled");
    }

    #[test]
    fn more_than_three_sections_have_contents_that_lead_to_them() {
        let report = |n: usize| (0..n).fold(Report::new("r"), |report, _| report.section(Section::new("a <b>")));
        assert!(!render(&report(3)).unwrap().contains("<nav"));
        let page = render(&report(4)).unwrap();
        for name in ["a-b", "a-b-2", "a-b-3", "a-b-4"] {
            assert!(page.contains(&format!("<li><a href=\"#{name}\">a &lt;b&gt;</a></li>")), "{name}");
            assert_eq!(page.matches(&format!("<section id=\"{name}\">")).count(), 1, "{name}");
        }
    }

    #[test]
    fn contents_say_the_name_of_a_part_once() {
        let headings =
            ["Overview", "Interchange of m (a)", "a: Necessity", "a: Intervals", "Ablation of m (b)", "b: Zero"];
        let report = headings.iter().fold(Report::new("r"), |report, heading| report.section(Section::new(*heading)));
        let page = render(&report).unwrap();
        let (_, contents) = page.split_once("<ol>\n").unwrap();
        let (contents, _) = contents.split_once("</nav>").unwrap();
        let expected = "<li><a href=\"#overview\">Overview</a></li>\n\
                        <li><a href=\"#interchange-of-m-a\">Interchange of m (a)</a>\n<ol>\n\
                        <li><a href=\"#a-necessity\">Necessity</a></li>\n\
                        <li><a href=\"#a-intervals\">Intervals</a></li>\n</ol>\n</li>\n\
                        <li><a href=\"#ablation-of-m-b\">Ablation of m (b)</a>\n<ol>\n\
                        <li><a href=\"#b-zero\">Zero</a></li>\n</ol>\n</li>\n</ol>\n";
        assert_eq!(contents, expected);
    }
}
