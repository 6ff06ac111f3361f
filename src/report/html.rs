//! Reports as one HTML file that needs nothing else: figures inlined, no request to anywhere, light and dark,
//! readable on a phone, tables that scroll and sort.

use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::inline::{Span, spans};
use super::{Block, FigureBlock, Report, ReportError, TableBlock};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// What a browser may do with the page: show inlined images and run the page's own style and script, nothing else.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The report as HTML. Reads the figures' files.
pub fn render(report: &Report) -> Result<String, ReportError> {
    let mut body = String::new();
    for block in &report.intro {
        push_block(&mut body, block)?;
    }
    for section in &report.sections {
        push(&mut body, format_args!("<section>\n<h2>{}</h2>\n", inline(&section.heading)));
        for block in &section.blocks {
            push_block(&mut body, block)?;
        }
        body.push_str("</section>\n");
    }
    let (title, heading) = (escape(&report.title), inline(&report.title));
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{heading}</h1>\n{body}</main>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    ))
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

fn push_block(out: &mut String, block: &Block) -> Result<(), ReportError> {
    match block {
        Block::Paragraph(text) => {
            for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
                push(out, format_args!("<p>{}</p>\n", inline(paragraph.trim())));
            }
        }
        Block::Table(table) => push_table(out, table),
        Block::Figure(figure) => push_figure(out, figure)?,
        Block::KeyValues(pairs) => {
            out.push_str("<dl>\n");
            for (key, value) in pairs {
                push(out, format_args!("<dt>{}</dt><dd>{}</dd>\n", escape(key), inline(value)));
            }
            out.push_str("</dl>\n");
        }
        Block::Code(text) => {
            push(out, format_args!("<pre><code>{}</code></pre>\n", escape(text.trim_end_matches('\n'))));
        }
    }
    Ok(())
}

fn push_table(out: &mut String, table: &TableBlock) {
    out.push_str("<div class=\"scroll\" tabindex=\"0\">\n<table>\n");
    if !table.caption.is_empty() {
        push(out, format_args!("<caption>{}</caption>\n", inline(&table.caption)));
    }
    out.push_str("<thead><tr>");
    for heading in &table.header {
        let (class, name) = (class(heading.numeric), inline(&heading.name));
        push(out, format_args!("<th scope=\"col\"{class}><button type=\"button\">{name}</button></th>"));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (heading, cell) in table.cells(row) {
            push(out, format_args!("<td{}>{}</td>", class(heading.numeric), inline(cell)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

fn class(numeric: bool) -> &'static str {
    if numeric { " class=\"num\"" } else { "" }
}

fn push_figure(out: &mut String, figure: &FigureBlock) -> Result<(), ReportError> {
    let image = read_png(&figure.path)?;
    let alt = escape(&figure.alt);
    push(out, format_args!("<figure>\n<img alt=\"{alt}\" src=\"data:image/png;base64,"));
    STANDARD.encode_string(image, out);
    push(out, format_args!("\">\n<figcaption>{}</figcaption>\n</figure>\n", inline(&figure.caption)));
    Ok(())
}

fn read_png(path: &Path) -> Result<Vec<u8>, ReportError> {
    let bytes = std::fs::read(path).map_err(|source| ReportError::Figure { path: path.to_owned(), source })?;
    if !bytes.starts_with(PNG_SIGNATURE) {
        return Err(ReportError::NotPng { path: path.to_owned() });
    }
    Ok(bytes)
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
            // A null is no character of an HTML document.
            '\0' => out.push('\u{fffd}'),
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

    #[test]
    fn everything_is_escaped_wherever_it_stands() {
        let figure = figure();
        let page = render(&hostile(figure.path().to_owned())).unwrap();
        assert_eq!(page.matches("<script>").count(), 1, "only the page's own");
        assert!(!page.contains("\"q\"") && !page.contains("<b>"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;q&quot; &#39;a&#39;"));
        assert!(page.contains("<code>a|b</code> and <strong>bold &lt;b&gt;</strong>"));
    }

    #[test]
    fn a_page_asks_for_nothing_from_elsewhere() {
        let figure = figure();
        let page = render(&hostile(figure.path().to_owned())).unwrap();
        for forbidden in ["http://", "https://", "src=\"/", "href=", "@import", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains(POLICY));
    }

    #[test]
    fn figures_are_inlined_as_they_are() {
        let figure = figure();
        let page = render(&Report::new("r").section(Section::new("s").figure(figure.path(), "c", "a"))).unwrap();
        let data = page.split("base64,").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(STANDARD.decode(data).unwrap(), std::fs::read(figure.path()).unwrap());
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
        let page = render(&Report::new("r").section(Section::new("s").table("t", header, rows))).unwrap();
        assert_eq!((page.matches("<td").count(), page.matches("<th ").count()), (4, 2));
        assert!(page.contains("<td class=\"num\">1</td>"));
    }
}
