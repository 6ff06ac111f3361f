//! A report's tables for a paper, as LaTeX: booktabs rules, captions, labels, nothing else that a paper would fight.
//!
//! [`render`] makes one file that `\input` takes. It needs the `booktabs` package, and `longtable` where a table has
//! more rows than fit a page. Text passes through as letters, never as commands; signs that LaTeX has a command for
//! are written so, and the file's head lists the letters that only XeLaTeX and LuaLaTeX know. Figures and running
//! text are left out: a paper has its own.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::anchors::Anchors;
use super::inline::{Span, plain, spans};
use super::{Block, Heading, Report, TableBlock};

/// A table with more rows goes over several pages.
const ROWS_OF_A_PAGE: usize = 40;

/// A column of text that is wider than so many letters is broken into lines.
const WIDEST_LINE: usize = 34;

/// The width of the text in the standard classes, in points, at ten points a letter's height.
const PAGE_POINTS: f64 = 345.0;

/// How wide a letter of the usual size is on average, in points.
const LETTER_POINTS: f64 = 5.1;

/// Sizes of letters from the usual one down: the command, their share of the usual size, and the space on each side of
/// a column, in points.
const SIZES: [(&str, f64, f64); 4] = [
    ("", 1.0, 6.0),
    ("\\small", 0.9, 6.0),
    ("\\footnotesize\\setlength{\\tabcolsep}{4pt}", 0.8, 4.0),
    ("\\scriptsize\\setlength{\\tabcolsep}{3pt}", 0.7, 3.0),
];

/// What a column of broken lines has at least, as a share of the text's width.
const NARROWEST_LINES: f64 = 0.2;

/// All tables of the report as one file for `\input`, each with a label of `tab:` and its section's heading.
pub fn render(report: &Report) -> String {
    let mut anchors = Anchors::default();
    let (mut tables, mut labels, mut long) = (String::new(), Vec::new(), false);
    let intro = report.intro.iter().map(|block| (report.title.as_str(), block));
    let sections = report.sections.iter().flat_map(|section| {
        let heading = section.heading.as_str();
        section.blocks.iter().map(move |block| (heading, block))
    });
    for (heading, block) in intro.chain(sections) {
        let Block::Table(table) = block else { continue };
        // A label stands on a caption: a table without one is called as its section is.
        let caption = if table.caption.trim().is_empty() { heading } else { &table.caption };
        let label = anchors.name(heading, "table");
        let table = render_captioned(table, caption, &label);
        long |= table.contains("\\begin{longtable}");
        push(&mut tables, format_args!("\n{table}"));
        labels.push(format!("tab:{label}"));
    }
    head(&report.title, &labels, long, &tables) + &tables
}

/// How the file is used, as comments.
fn head(title: &str, labels: &[String], long: bool, tables: &str) -> String {
    let title = plain(title).split_whitespace().collect::<Vec<_>>().join(" ");
    let title: String = title.chars().filter(|letter| !letter.is_control()).collect();
    let mut out = format!("% The tables of the report \"{title}\", by gatelens.\n%\n");
    if labels.is_empty() {
        return out + "% The report has no tables.\n";
    }
    out.push_str("% In the preamble:        \\usepackage{booktabs}\n");
    if long {
        out.push_str("%                         \\usepackage{longtable} % tables of several pages; one column only\n");
    }
    out.push_str("%                         \\usepackage[T1]{fontenc} % with pdfLaTeX\n");
    out.push_str("% Where the tables stand: \\input{tables}\n% To refer to one:\n");
    for label in labels {
        push(&mut out, format_args!("%   \\ref{{{label}}}\n"));
    }
    let foreign: BTreeSet<char> = tables.chars().filter(|letter| beyond_pdflatex(*letter)).collect();
    if !foreign.is_empty() {
        let shown: String = foreign.iter().take(60).collect();
        push(&mut out, format_args!("% pdfLaTeX does not know these letters: {shown}\n"));
        out.push_str("% Use XeLaTeX or LuaLaTeX with a font that has them (packages fontspec; xeCJK or luatexja for\n");
        out.push_str("% Chinese, Japanese, Korean). A font that lacks them leaves them out and says so in the log.\n");
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

/// One table, whose label is `tab:` and `label`.
fn render_captioned(table: &TableBlock, caption: &str, label: &str) -> String {
    if table.header.is_empty() {
        return String::new();
    }
    let layout = Layout::of(table);
    let (columns, caption) = (layout.columns.concat(), inline(caption));
    let names: Vec<String> = table.header.iter().map(|heading| inline(&heading.name)).collect();
    let names = format!("{} \\tabularnewline\n", names.join(" & "));
    let mut rows = String::new();
    for row in &table.rows {
        let cells: Vec<String> = table
            .cells(row)
            .zip(&layout.columns)
            .map(|((_, cell), column)| if column.starts_with('p') { ragged(cell) } else { inline(cell) })
            .collect();
        push(&mut rows, format_args!("    {} \\tabularnewline\n", cells.join(" & ")));
    }
    let size = layout.size;
    if table.rows.len() <= ROWS_OF_A_PAGE {
        return format!(
            "\\begin{{table}}[htbp]\n  \\centering{size}\n  \\caption{{{caption}}}\n  \\label{{tab:{label}}}\n  \
             \\begin{{tabular}}{{{columns}}}\n    \\toprule\n    {names}    \\midrule\n{rows}    \\bottomrule\n  \
             \\end{{tabular}}\n\\end{{table}}\n"
        );
    }
    let count = table.header.len();
    format!(
        "\\begingroup{size}\n  \\begin{{longtable}}{{{columns}}}\n    \\caption{{{caption}}}\\label{{tab:{label}}}\
         \\tabularnewline\n    \\toprule\n    {names}    \\midrule\n    \\endfirsthead\n    \\toprule\n    {names}    \
         \\midrule\n    \\endhead\n    \\midrule\n    \\multicolumn{{{count}}}{{r}}{{continued on the next page}} \
         \\tabularnewline\n    \\endfoot\n    \\bottomrule\n    \\endlastfoot\n{rows}  \\end{{longtable}}\n\\endgroup\n"
    )
}

/// How a table fits the page.
struct Layout {
    /// `l`, `r` or `p{...}` for every column.
    columns: Vec<String>,
    /// A command that makes its letters smaller, or nothing.
    size: &'static str,
}

impl Layout {
    fn of(table: &TableBlock) -> Layout {
        let mut widths: Vec<usize> = table.header.iter().map(|heading| letters(&heading.name)).collect();
        for row in &table.rows {
            for (width, (_, cell)) in widths.iter_mut().zip(table.cells(row)) {
                *width = (*width).max(letters(cell));
            }
        }
        let broken: Vec<bool> =
            widths.iter().zip(&table.header).map(|(width, heading)| !heading.numeric && *width > WIDEST_LINE).collect();
        let narrow: usize = widths.iter().zip(&broken).filter(|(_, broken)| !**broken).map(|(width, _)| width).sum();
        let lines = broken.iter().filter(|broken| **broken).count() as f64;
        // What is left for the columns of broken lines, as a share of the text's width.
        let left = |(_, scale, gap): (&str, f64, f64)| {
            1.0 - (narrow as f64 * LETTER_POINTS * scale + 2.0 * gap * widths.len() as f64) / PAGE_POINTS
        };
        let fits = |size: &&(&str, f64, f64)| left(**size) >= lines * NARROWEST_LINES;
        let size = *SIZES.iter().find(fits).unwrap_or(&SIZES[SIZES.len() - 1]);
        let share = (left(size) / lines.max(1.0)).max(NARROWEST_LINES);
        let column = |(heading, broken): (&Heading, &bool)| match (broken, heading.numeric) {
            (true, _) => format!("p{{{share:.2}\\linewidth}}"),
            (false, true) => "r".to_owned(),
            (false, false) => "l".to_owned(),
        };
        Layout { columns: table.header.iter().zip(&broken).map(column).collect(), size: size.0 }
    }
}

/// How wide a text is, in letters: those of East Asia are as wide as two.
fn letters(text: &str) -> usize {
    let wide = |letter: char| matches!(letter, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ff60}' | '\u{20000}'..='\u{3fffd}');
    plain(text).chars().map(|letter| 1 + usize::from(wide(letter))).sum()
}

/// A cell of broken lines: even spaces, and the row's end is `\tabularnewline`, which `\raggedright` leaves alone.
fn ragged(cell: &str) -> String {
    format!("\\raggedright {}", inline(cell))
}

fn inline(text: &str) -> String {
    // A blank line would end the table.
    let breaks = |letter: char| letter != '\u{a0}' && letter != '\u{202f}' && letter.is_whitespace();
    let words: Vec<&str> = text.split(breaks).filter(|word| !word.is_empty()).collect();
    let mut out = String::new();
    for span in spans(&words.join(" ")) {
        match span {
            Span::Text(text) => push_escaped(&mut out, text),
            Span::Code(code) => push_command(&mut out, "texttt", code),
            Span::Bold(bold) => push_command(&mut out, "textbf", bold),
        }
    }
    out
}

fn push_command(out: &mut String, command: &str, text: &str) {
    push(out, format_args!("\\{command}{{"));
    push_escaped(out, text);
    out.push('}');
}

fn push_escaped(out: &mut String, text: &str) {
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match sign(letter) {
            Some(command) => out.push_str(command),
            None if dropped(letter) => continue,
            None => out.push(letter),
        }
        // Two of them would become one other sign.
        if matches!(letter, '-' | '\'' | ',') && letters.peek() == Some(&letter) {
            out.push_str("{}");
        }
    }
}

/// What stands for a letter that LaTeX reads as something else, or that pdfLaTeX has no letter for.
fn sign(letter: char) -> Option<&'static str> {
    Some(match letter {
        '\\' => "\\textbackslash{}",
        '{' => "\\{",
        '}' => "\\}",
        '#' => "\\#",
        '$' => "\\$",
        '%' => "\\%",
        '&' => "\\&",
        '_' => "\\_",
        '^' => "\\textasciicircum{}",
        '~' => "\\textasciitilde{}",
        '`' => "\\textasciigrave{}",
        '"' => "\\symbol{34}",
        '<' => "\\textless{}",
        '>' => "\\textgreater{}",
        '|' => "\\textbar{}",
        // After a row's end these two would be its options.
        '[' => "{[}",
        ']' => "{]}",
        '*' => "{*}",
        '\u{a0}' => "~",
        '\u{202f}' => "\\,",
        '−' => "$-$",
        '–' => "--",
        '—' => "---",
        '‘' => "\\textquoteleft{}",
        '’' => "\\textquoteright{}",
        '“' => "\\textquotedblleft{}",
        '”' => "\\textquotedblright{}",
        '…' => "\\ldots{}",
        '•' => "\\textbullet{}",
        '€' => "\\texteuro{}",
        '×' => "$\\times$",
        '±' => "$\\pm$",
        '·' => "$\\cdot$",
        '°' => "$^\\circ$",
        'µ' | 'μ' => "$\\mu$",
        'Δ' => "$\\Delta$",
        '→' => "$\\rightarrow$",
        '←' => "$\\leftarrow$",
        '≤' => "$\\leq$",
        '≥' => "$\\geq$",
        '≈' => "$\\approx$",
        '≠' => "$\\neq$",
        '∞' => "$\\infty$",
        _ => return None,
    })
}

/// Letters that no paper can print: control characters, marks of width zero, marks that turn the direction of text.
fn dropped(letter: char) -> bool {
    let invisible = matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    letter.is_control() || invisible || letter == '\u{feff}'
}

/// Whether pdfLaTeX has no letter for it: it knows Latin scripts.
fn beyond_pdflatex(letter: char) -> bool {
    letter > '\u{17f}'
}

#[cfg(test)]
mod tests {
    use super::super::tests::hostile;
    use super::super::{Heading, Section};
    use super::*;

    fn table(caption: &str, header: Vec<Heading>, rows: &[&[&str]]) -> TableBlock {
        let rows = rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        TableBlock { caption: caption.to_owned(), header, rows }
    }

    fn render_table(table: &TableBlock, label: &str) -> String {
        render_captioned(table, &table.caption, label)
    }

    fn heads(rows: &[&[&str]]) -> TableBlock {
        table("Heads & effects", vec![Heading::text("head"), Heading::number("effect")], rows)
    }

    /// Everything that TeX would run: backslashes with what follows, and letters with a meaning.
    fn commands(tex: &str) -> BTreeSet<String> {
        let letters: Vec<char> =
            tex.lines().filter(|line| !line.starts_with('%')).collect::<String>().chars().collect();
        let mut found = BTreeSet::new();
        let mut at = 0;
        while at < letters.len() {
            let mut end = at + 1;
            if letters[at] == '\\' {
                while end < letters.len() && letters[end].is_ascii_alphabetic() {
                    end += 1;
                }
                end = end.max(at + 2);
                found.insert(letters[at..end].iter().collect());
            } else if "#%^_".contains(letters[at]) {
                found.insert(letters[at].to_string());
            }
            at = end;
        }
        found
    }

    fn depth(tex: &str) -> i64 {
        let tex = tex.replace("\\{", "").replace("\\}", "");
        tex.chars().fold(0, |depth, letter| depth + i64::from(letter == '{') - i64::from(letter == '}'))
    }

    #[test]
    fn a_table_has_booktabs_rules_a_caption_and_a_label() {
        let tex = render_table(&heads(&[&["L1.H2", "−0.5"], &["L0.H1"]]), "heads");
        let expected = "\\begin{table}[htbp]\n  \\centering\n  \\caption{Heads \\& effects}\n  \\label{tab:heads}\n  \
            \\begin{tabular}{lr}\n    \\toprule\n    head & effect \\tabularnewline\n    \\midrule\n    \
            L1.H2 & $-$0.5 \\tabularnewline\n    L0.H1 &  \\tabularnewline\n    \\bottomrule\n  \
            \\end{tabular}\n\\end{table}\n";
        assert_eq!(tex, expected);
    }

    #[test]
    fn text_is_letters_and_never_commands() {
        let own = render(&Report::new("r").section(Section::new("s").block(Block::Table(heads(&[&["a", "1"]])))));
        let written = ["\\&", "\\#", "\\$", "\\%", "\\_", "\\{", "\\}", "\\symbol", "\\raggedright", "\\linewidth"]
            .map(str::to_owned);
        let signs =
            ["backslash", "asciicircum", "asciitilde", "less", "greater", "bar"].map(|name| format!("\\text{name}"));
        let allowed: BTreeSet<String> = commands(&own).into_iter().chain(written).chain(signs).collect();
        let tex = render(&hostile("f.png".into()));
        let found = commands(&tex);
        assert!(found.is_subset(&allowed), "{:?}", found.difference(&allowed));
        assert_eq!(depth(&tex), 0, "{tex}");
        let rows: Vec<&str> = tex.lines().filter(|line| line.ends_with("\\tabularnewline")).collect();
        assert_eq!(rows.len(), 4, "{tex}");
        for row in rows {
            assert_eq!(row.replace("\\&", "").matches('&').count(), 1, "{row}");
        }
    }

    #[test]
    fn signs_that_would_join_or_be_read_as_options_do_neither() {
        assert_eq!(
            inline("--- '' [0.1,\u{a0}0.2] 5\u{a0}% \"q\""),
            "-{}-{}- '{}' {[}0.1,~0.2{]} 5~\\% \\symbol{34}q\\symbol{34}"
        );
        assert_eq!(inline("a\n\nb\u{202e}\0c\u{feff}"), "a bc");
        assert_eq!(inline("`a_b` **c**"), "\\texttt{a\\_b} \\textbf{c}");
    }

    #[test]
    fn many_rows_go_over_pages_under_the_same_head() {
        let rows = vec![["a", "1"].as_slice(); ROWS_OF_A_PAGE + 1];
        let tex = render_table(&heads(&rows), "long");
        assert_eq!(tex.matches("head & effect").count(), 2);
        assert!(tex.contains("\\begin{longtable}{lr}") && !tex.contains("\\begin{table}"));
        assert!(render_table(&heads(&rows[1..]), "short").contains("\\begin{tabular}{lr}"));
    }

    #[test]
    fn long_text_is_broken_into_lines_and_many_columns_get_smaller_letters() {
        let long = "word ".repeat(20);
        let tex = render_table(&heads(&[&[&long, "1"]]), "t");
        assert!(tex.contains("{p{0.84\\linewidth}r}") && tex.contains("\\raggedright word word"), "{tex}");
        let columns = |n: usize| (0..n).map(|n| Heading::number(format!("col {n}"))).collect();
        let tex = |n: usize| render_table(&table("t", columns(n), &[]), "t");
        assert!(tex(9).contains("\\centering\n") && tex(10).contains("\\centering\\footnotesize"));
        assert!(tex(30).contains("\\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}\n"));
        assert_eq!(letters("ab面包"), 6);
    }

    #[test]
    fn a_report_becomes_one_file_whose_head_says_how_to_use_it() {
        let long = heads(&vec![["a", "1"].as_slice(); 60]);
        let nameless = TableBlock { caption: String::new(), ..heads(&[&["面包", "1"]]) };
        let report = Report::new("A\n\\end{x}").section(
            Section::new("Necessity")
                .block(Block::Table(heads(&[&["a", "1"]])))
                .block(Block::Table(long))
                .block(Block::Table(nameless)),
        );
        let tex = render(&report);
        let (head, body) = tex.split_once("\n\n").unwrap();
        assert!(head.lines().all(|line| line.starts_with('%')), "{head}");
        for said in ["longtable", "\\ref{tab:necessity}", "\\ref{tab:necessity-3}", "包面"] {
            assert!(head.contains(said), "{said}: {head}");
        }
        assert!(body.contains("\\caption{Necessity}\n  \\label{tab:necessity-3}"), "{body}");
        assert!(render(&Report::new("r")).ends_with("% The report has no tables.\n"));
    }

    #[test]
    fn a_table_without_columns_is_left_out() {
        assert_eq!(render_table(&TableBlock::default(), "t"), "");
    }
}
