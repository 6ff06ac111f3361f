//! Reports as one HTML file that needs nothing else: figures inlined, no request to anywhere, light and dark,
//! readable on a phone and on paper, tables that scroll and sort.
//!
//! The page works without its script: headers become buttons only where the script runs. The policy in its head lets
//! a browser run that one script and use that one style sheet, named by their SHA-256, and nothing else.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::anchors::Anchors;
use super::inline::{Span, plain, spans};
use super::{Block, FigureBlock, Report, ReportError, TableBlock};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A report with more sections than this has a table of contents.
const SECTIONS_AT_A_GLANCE: usize = 3;

/// Words up to so many letters fit on a phone and are not broken at their hyphens.
const UNBROKEN_LETTERS: usize = 32;

/// First cells up to this many letters may stay in view while a table is scrolled sideways.
const PINNED_LETTERS: usize = 18;

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

/// What a browser may do with the page: show inlined images, use its own style and run its own script.
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

/// Links to the sections, where there are more than one takes in at a glance.
fn contents(report: &Report, names: &[String]) -> String {
    if report.sections.len() <= SECTIONS_AT_A_GLANCE {
        return String::new();
    }
    let mut out = "<nav aria-label=\"Contents\">\n<p>Contents</p>\n<ol>\n".to_owned();
    for (section, name) in report.sections.iter().zip(names) {
        push(&mut out, format_args!("<li><a href=\"#{name}\">{}</a></li>\n", inline(&section.heading)));
    }
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
        push(out, format_args!("<table {label}{}>\n<thead><tr>", if named { " class=\"names\"" } else { "" }));
        for heading in &table.header {
            let (class, name) = (class(heading.numeric), inline(&heading.name));
            push(out, format_args!("<th scope=\"col\"{class}>{name}</th>"));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &table.rows {
            out.push_str("<tr>");
            for (column, (heading, cell)) in table.cells(row).enumerate() {
                let cell = inline(cell);
                if named && column == 0 {
                    push(out, format_args!("<th scope=\"row\">{cell}</th>"));
                } else {
                    push(out, format_args!("<td{}>{cell}</td>", class(heading.numeric)));
                }
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n</div>\n</figure>\n");
    }
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

fn class(numeric: bool) -> &'static str {
    if numeric { " class=\"num\"" } else { "" }
}

fn push_figure(out: &mut String, figure: &FigureBlock) -> Result<(), ReportError> {
    let image = read_png(&figure.path)?;
    let (alt, size) = (escape(&figure.alt), size_attributes(&image));
    push(out, format_args!("<figure>\n<div class=\"paper\"><img alt=\"{alt}\"{size} src=\"data:image/png;base64,"));
    STANDARD.encode_string(image, out);
    out.push_str("\"></div>\n");
    if !figure.caption.is_empty() {
        push(out, format_args!("<figcaption>{}</figcaption>\n", inline(&figure.caption)));
    }
    out.push_str("</figure>\n");
    Ok(())
}

fn read_png(path: &Path) -> Result<Vec<u8>, ReportError> {
    let bytes = std::fs::read(path).map_err(|source| ReportError::Figure { path: path.to_owned(), source })?;
    if !bytes.starts_with(PNG_SIGNATURE) {
        return Err(ReportError::NotPng { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Width and height as the PNG's first chunk has them, so that the page keeps the figure's place free.
fn size_attributes(png: &[u8]) -> String {
    let number = |at: usize| png.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    match (png.get(12..16), number(16), number(20)) {
        (Some(b"IHDR"), Some(width), Some(height)) => format!(" width=\"{width}\" height=\"{height}\""),
        _ => String::new(),
    }
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

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            // Generated text may hold control characters; an HTML document may not.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::hostile;
    use super::super::{Heading, Section};
    use super::*;

    fn figure() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [PNG_SIGNATURE, b"rest"].concat()).unwrap();
        file
    }

    fn page(section: Section) -> String {
        render(&Report::new("r").section(section)).unwrap()
    }

    #[test]
    fn everything_is_escaped_wherever_it_stands() {
        let figure = figure();
        let page = render(&hostile(figure.path().to_owned())).unwrap();
        assert_eq!(page.matches("<script>").count(), 1, "only the page's own");
        assert!(!page.contains("\"q\"") && !page.contains("<b>"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;q&quot; &#39;a&#39;"));
        assert!(page.contains("<code>a|b</code> and <strong>bold &lt;b&gt;</strong>"));
        assert_eq!(escape("a\0b\u{1b}[0m\u{85}\r\n\tc"), "a\u{fffd}b\u{fffd}[0m\u{fffd}\u{fffd}\n\tc");
    }

    #[test]
    fn a_page_asks_for_nothing_from_elsewhere() {
        let figure = figure();
        let hostile = hostile(figure.path().to_owned());
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
    fn figures_are_inlined_as_they_are() {
        let figure = figure();
        let page = page(Section::new("s").figure(figure.path(), "c", "a"));
        let data = page.split("base64,").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(STANDARD.decode(data).unwrap(), std::fs::read(figure.path()).unwrap());
    }

    #[test]
    fn a_figures_place_is_kept_free_by_its_size() {
        let header = [PNG_SIGNATURE, &[0, 0, 0, 13], b"IHDR", &[0, 0, 6, 164], &[0, 0, 7, 130]].concat();
        assert_eq!(size_attributes(&header), " width=\"1700\" height=\"1922\"");
        assert_eq!(size_attributes(&header[..20]), "");
    }

    #[test]
    fn a_missing_figure_and_one_that_is_not_png_are_errors_that_name_the_file() {
        let report = |path: &Path| Report::new("r").section(Section::new("s").figure(path, "c", "a"));
        let message = render(&report(Path::new("none.png"))).unwrap_err().to_string();
        assert!(message.starts_with("none.png: a figure cannot be read"), "{message}");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(render(&report(file.path())), Err(ReportError::NotPng { .. })));
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_header_and_numbers_their_class() {
        let header = vec![Heading::text("head"), Heading::number("effect")];
        let rows = vec![vec!["L0.H1".to_owned()], vec!["a".to_owned(), "1".to_owned(), "x".to_owned()]];
        let page = page(Section::new("s").table("t", header, rows));
        assert_eq!((page.matches("<td").count(), page.matches("<th ").count()), (2, 4));
        assert!(page.contains("<th scope=\"row\">a</th><td class=\"num\">1</td>"));
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
    fn more_than_three_sections_have_contents_that_lead_to_them() {
        let report = |n: usize| (0..n).fold(Report::new("r"), |report, _| report.section(Section::new("a <b>")));
        assert!(!render(&report(3)).unwrap().contains("<nav"));
        let page = render(&report(4)).unwrap();
        for name in ["a-b", "a-b-2", "a-b-3", "a-b-4"] {
            assert!(page.contains(&format!("<li><a href=\"#{name}\">a &lt;b&gt;</a></li>")), "{name}");
            assert_eq!(page.matches(&format!("<section id=\"{name}\">")).count(), 1, "{name}");
        }
    }
}
