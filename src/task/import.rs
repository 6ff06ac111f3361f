//! Pairs out of CSV as the data sets of EAP-IG have them (Hanna et al. 2024, "Have Faith in Faithfulness"): a line of names, then
//! a pair a row with the texts `clean` and `corrupted` and the token ids `correct_idx` and `incorrect_idx`.

use super::candidate::Filled;
use super::fit::{Fit, Rejection};
use super::{Made, Rejected};
use crate::dataset::Pair;
use crate::model::Model;
use crate::model::tokenizer::TokenizerError;
use csv::StringRecord;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The columns that are read.
const COLUMNS: [&str; 4] = ["clean", "corrupted", "correct_idx", "incorrect_idx"];

/// Why a CSV file cannot become pairs.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The model has no tokenizer.
    #[error(transparent)]
    NoTokenizer(#[from] Arc<TokenizerError>),
    /// The tokenizer cannot read a prompt.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The file is missing, may not be read, or is no CSV.
    #[error("{}: cannot be read as CSV: {source}; expected a line of names and a pair a row", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: csv::Error,
    },
    /// The line of names lacks a column.
    #[error(
        "{}: there is no column \"{column}\"; expected {}, found {}", path.display(), COLUMNS.join(", "), listed(found)
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The columns that are there.
        found: Vec<String>,
    },
    /// A cell holds something else than it must.
    #[error("{}: line {line}: column \"{column}\": expected {expected}, found {found}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What it must hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// No row is fit for the tokenizer.
    #[error("{}: none of {rows} rows can be used with this model: {rejected}", path.display())]
    None {
        /// The file.
        path: PathBuf,
        /// How many rows there are.
        rows: usize,
        /// Why they cannot.
        rejected: Rejected,
    },
    /// There is no row.
    #[error("{}: holds no pair; expected a line of names and a pair a row", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The pairs of a CSV file for a model. A row whose prompts the tokenizer cuts into different numbers of tokens is left out.
///
/// # Errors
/// If the file cannot be read, a cell is wrong, an id is none of the model's, or no row can be used.
pub fn import(path: &Path, model: &Model) -> Result<Made, ImportError> {
    let failed = |source| ImportError::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let columns = columns(path, reader.headers().map_err(failed)?)?;
    let stem = path.file_stem().map_or("row".into(), |stem| stem.to_string_lossy());
    let mut fit = Fit::new(model)?;
    let mut made = Made { pairs: Vec::new(), candidates: 0, rejected: Rejected::default() };
    for record in reader.records() {
        let record = record.map_err(failed)?;
        made.candidates += 1;
        let row = Row { path, columns, record, vocab: model.decoder.arch.vocab };
        match row.pair(&mut fit)? {
            Ok(pair) => made.pairs.push(Pair { id: format!("{stem}-{}", made.candidates), ..pair }),
            Err(why) => made.rejected.add(why),
        }
    }
    match (made.candidates, made.pairs.is_empty()) {
        (0, _) => Err(ImportError::Empty { path: path.to_owned() }),
        (rows, true) => Err(ImportError::None { path: path.to_owned(), rows, rejected: made.rejected }),
        _ => Ok(made),
    }
}

/// Where each of [`COLUMNS`] is.
fn columns(path: &Path, names: &StringRecord) -> Result<[usize; 4], ImportError> {
    let mut found = [0; 4];
    for (at, column) in found.iter_mut().zip(COLUMNS) {
        // A byte order mark stands before the first name in files of some programs.
        let place = names.iter().position(|name| name.trim_start_matches('\u{feff}').trim() == column);
        *at = place.ok_or_else(|| {
            let found = names.iter().map(str::to_owned).collect();
            ImportError::NoColumn { path: path.to_owned(), column, found }
        })?;
    }
    Ok(found)
}

/// A row of the file.
struct Row<'p> {
    path: &'p Path,
    columns: [usize; 4],
    record: StringRecord,
    /// How many token ids the model has.
    vocab: usize,
}

impl Row<'_> {
    fn pair(&self, fit: &mut Fit<'_>) -> Result<Result<Pair, Rejection>, ImportError> {
        let prompts = [self.text(0)?, self.text(1)?];
        let (answer, foil) = (self.ids(2)?, self.ids(3)?);
        if answer.iter().any(|id| foil.contains(id)) {
            return Ok(Err(Rejection::Same));
        }
        let pair = fit.prompts(&prompts.map(|text| Filled { text, spans: Vec::new() }))?;
        Ok(pair.map(|pair| pair.answer(answer).foil(foil)))
    }

    fn cell(&self, k: usize) -> &str {
        self.record.get(self.columns[k]).unwrap_or_default()
    }

    fn text(&self, k: usize) -> Result<String, ImportError> {
        match self.cell(k) {
            "" => Err(self.wrong(k, "a text")),
            text => Ok(text.to_owned()),
        }
    }

    /// Token ids: `12`, or a list, `[12, 40]`.
    fn ids(&self, k: usize) -> Result<Vec<u32>, ImportError> {
        let cell = self.cell(k).trim();
        let list = cell.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(cell);
        let ids: Result<Vec<u32>, _> = list.split(',').map(|id| id.trim().parse()).collect();
        let ids = ids.map_err(|_| self.wrong(k, "a token id or a list of them, as in 12 or [12, 40]"))?;
        match ids.iter().all(|id| (*id as usize) < self.vocab) {
            true => Ok(ids),
            false => Err(self.wrong(k, &format!("token ids of this model, from 0 to {}", self.vocab - 1))),
        }
    }

    fn wrong(&self, k: usize, expected: &str) -> ImportError {
        let found = match self.cell(k) {
            "" => "nothing".to_owned(),
            cell => format!("{:?}", cell.chars().take(LONGEST_SHOWN).collect::<String>()),
        };
        ImportError::Cell {
            path: self.path.to_owned(),
            line: self.record.position().map_or(0, csv::Position::line),
            column: COLUMNS[k],
            expected: expected.to_owned(),
            found,
        }
    }
}

/// How much of a cell a message shows, in characters.
const LONGEST_SHOWN: usize = 60;

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
