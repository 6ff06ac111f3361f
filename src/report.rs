//! Reports: a small document of headings, paragraphs, tables and figures, and its renderers.
//!
//! ```text
//! let report = Report::new("Refusal in the demo model")
//!     .section(Section::new("Interchange").paragraph("The gate is **L1.H2**.").figure("heads.png", "Effects", "..."));
//! std::fs::write("report.md", markdown::render(&report))?;
//! std::fs::write("report.html", html::render(&report)?)?;
//! std::fs::write("tables.tex", latex::render(&report))?;
//! ```
//!
//! Paragraphs, captions and cells know `` `code` `` and `**bold**`; everything else in them is shown as it is
//! written, whatever it is: prompts and generated text are someone else's. What a report says is left to the analyses.

mod anchors;
pub mod cells;
pub mod html;
mod inline;
pub mod latex;
pub mod listing;
pub mod markdown;

use std::path::PathBuf;

use thiserror::Error;

/// A document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// The title.
    pub title: String,
    /// What stands before the first section.
    pub intro: Vec<Block>,
    /// The sections, in order.
    pub sections: Vec<Section>,
}

/// A heading and what stands under it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// What stands under it.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// Running text, with `` `code` `` and `**bold**`.
    Paragraph(String),
    /// A table.
    Table(TableBlock),
    /// A PNG file, beside which the same figure stands as SVG, with a caption.
    Figure(FigureBlock),
    /// Names with their values: parameters, sizes, times.
    KeyValues(Vec<(String, String)>),
    /// Text of fixed width, shown as it is: a command, a prompt.
    Code(String),
    /// Prompts whose tokens show where heads look: in HTML alone, where a reader can point at them.
    Tokens(TokenView),
}

/// Prompts with what heads give from token to token.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct TokenView {
    /// What is shown.
    #[serde(skip)]
    pub caption: String,
    /// At least one; all have the same heads.
    pub prompts: Vec<TokenPrompt>,
}

/// The tokens of a prompt.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct TokenPrompt {
    pub id: String,
    /// Their texts, spaces included.
    pub tokens: Vec<String>,
    pub heads: Vec<TokenHead>,
}

/// What a head gives.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct TokenHead {
    pub name: String,
    /// For each token its weights on the tokens up to itself.
    pub weights: Vec<Vec<f32>>,
    /// How large what the head moves from each token is, for a weight of 1.
    pub sizes: Vec<f32>,
}

/// A table of text cells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableBlock {
    /// What the table shows.
    pub caption: String,
    /// The columns.
    pub header: Vec<Heading>,
    /// The rows; a short one is filled with empty cells, what a long one has too many is left out.
    pub rows: Vec<Vec<String>>,
}

impl TableBlock {
    /// The table with another column before its column number `at`, from 0.
    #[must_use]
    pub fn with_column(mut self, at: usize, heading: Heading, cells: impl IntoIterator<Item = String>) -> TableBlock {
        self.header.insert(at.min(self.header.len()), heading);
        self.rows.iter_mut().zip(cells).for_each(|(row, cell)| row.insert(at.min(row.len()), cell));
        self
    }
}

/// The head of a table's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// The column's name.
    pub name: String,
    /// Numbers stand at the right and are sorted by value.
    pub numeric: bool,
}

/// A figure in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FigureBlock {
    /// The PNG file. Markdown refers to it by its name alone: it stands beside the report. HTML has the SVG file in it that
    /// stands beside this one, with the ending `svg`.
    pub path: PathBuf,
    /// What the figure shows.
    pub caption: String,
    /// What a reader who cannot see it must know.
    pub alt: String,
}

/// Why a report cannot be rendered.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A figure's file cannot be read.
    #[error("{}: a figure cannot be read: {source}; make the figures before the report", path.display())]
    Figure {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A figure's file is not one that [`crate::figure`] makes.
    #[error("{}: expected an SVG file as gatelens draws it, found something else; make the figures again", path.display())]
    NotSvg {
        /// The file.
        path: PathBuf,
    },
}

impl Heading {
    /// A column of text.
    pub fn text(name: impl Into<String>) -> Heading {
        Heading { name: name.into(), numeric: false }
    }

    /// A column of numbers.
    pub fn number(name: impl Into<String>) -> Heading {
        Heading { name: name.into(), numeric: true }
    }
}

impl TableBlock {
    /// The cells of a row, as many as there are columns, each with its column's heading.
    fn cells<'a>(&'a self, row: &'a [String]) -> impl Iterator<Item = (&'a Heading, &'a str)> {
        let cell = |column: usize| row.get(column).map_or("", String::as_str);
        self.header.iter().enumerate().map(move |(column, heading)| (heading, cell(column)))
    }
}

impl Report {
    /// A report without content.
    pub fn new(title: impl Into<String>) -> Report {
        Report { title: title.into(), ..Report::default() }
    }

    /// Adds a paragraph to the introduction.
    pub fn paragraph(mut self, text: impl Into<String>) -> Report {
        self.intro.push(Block::Paragraph(text.into()));
        self
    }

    /// Adds a section.
    pub fn section(mut self, section: Section) -> Report {
        self.sections.push(section);
        self
    }
}

impl Section {
    /// A section without content.
    pub fn new(heading: impl Into<String>) -> Section {
        Section { heading: heading.into(), blocks: Vec::new() }
    }

    /// Adds any block.
    pub fn block(mut self, block: Block) -> Section {
        self.blocks.push(block);
        self
    }

    /// Adds a paragraph.
    pub fn paragraph(self, text: impl Into<String>) -> Section {
        self.block(Block::Paragraph(text.into()))
    }

    /// Adds a figure.
    pub fn figure(self, path: impl Into<PathBuf>, caption: impl Into<String>, alt: impl Into<String>) -> Section {
        self.block(Block::Figure(FigureBlock { path: path.into(), caption: caption.into(), alt: alt.into() }))
    }

    /// Adds a table.
    pub fn table(self, caption: impl Into<String>, header: Vec<Heading>, rows: Vec<Vec<String>>) -> Section {
        self.block(Block::Table(TableBlock { caption: caption.into(), header, rows }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report whose every string tries to break out of where it stands.
    pub(super) fn hostile(figure: PathBuf) -> Report {
        let evil =
            "<script>alert(1)</script> & \"q\" 'a' | # *x* _y_ [l](u) \\ ** \\input{x} $y$ %~^ }{ \u{202e}\u{1b}";
        let header = vec![Heading::text(evil), Heading::number("effect")];
        let rows = vec![
            vec![format!("{evil}\nsecond line"), "−1.5".to_owned()],
            vec!["short".to_owned()],
            vec!["a".to_owned(), "2".to_owned(), "too many".to_owned()],
        ];
        Report::new(evil).paragraph("See `a|b` and **bold <b>**.").section(
            Section::new(evil)
                .paragraph(format!("# not a heading {evil}"))
                .paragraph("- not a list\n\n> not a quote\n1. not one")
                .table(evil, header, rows)
                .figure(figure, evil, evil)
                .block(Block::KeyValues(vec![(evil.to_owned(), "`x`".to_owned())]))
                .block(Block::Code(format!("```\n{evil}\n````"))),
        )
    }
}
