//! The analyses: one file each, with its `mod` line and one line in the registry at the end of this file; and, in a list of
//! their own, the modules that they share. [`routing`] holds the suite of one paper.
//!
//! An analysis is a type of parameters that implements [`Analysis`]: it has plans of its dataset run, makes tables of what was
//! measured, and names what makes figures and a report from the tables alone. The command line, the run directory and the report
//! find it through the registry.

pub mod ablate;
pub mod attention;
pub mod behaviour;
pub mod cav;
pub mod checkpoints;
pub mod circuit;
pub mod dla;
pub mod edges;
pub mod functions;
pub mod importance;
pub mod interactions;
pub mod interchange;
pub mod lens;
pub mod neurons;
pub mod routing;
pub mod steer;
pub mod truth;
pub mod values;

// What several of them share, and what is made of their tables together.
pub mod align;
pub mod answered;
pub mod columns;
pub mod compare;
pub mod components;
pub mod directions;
pub mod doses;
pub mod effects;
pub mod halves;
pub mod heads;
pub mod inputs;
pub mod marks;
pub mod metric;
pub mod power;
pub mod prelude;
pub mod scored;
pub mod summary;
pub mod vectors;

use crate::dataset::DatasetError;
use crate::dataset::encode::EncodeError;
use crate::figure::Figure;
use crate::model::Model;
use crate::model::arch::Arch;
use crate::parameters::{self, ParameterError, Parameters};
use crate::report::Section;
use crate::study::{Job, Runner, session::SessionError};
use crate::table::{Table, TableError};
use checkpoints::{deltas, rank, scale, similarity, weights};
use inputs::Sources;
use routing::{cascade, cipher, cipher_contrast, commitment, modulate, screen, three_methods};
use scored::Scored;
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;

/// A question that can be asked of a model.
pub trait Analysis: Parameters {
    /// What the command is called.
    const NAME: &'static str;
    /// The report's title.
    const TITLE: &'static str;
    /// Figures and report.
    const FROM_TABLES: FromTables;
    /// The datasets as they were read and tokenised.
    type Items;
    /// What the model was found to do with them.
    type Measured;

    /// Reads the datasets and makes of them what the model takes. Whatever is wrong with them is found here, before
    /// anything is computed.
    ///
    /// # Errors
    /// If a dataset is not sound or does not fit the model.
    fn prepare(&self, model: &Model) -> Result<Prepared<Self::Items>, AnalysisError>;

    /// Runs plans and keeps what they say. There is one body for what is computed and for what is only counted: a runner that counts
    /// gives zeros ([`Runner::is_counting`]).
    ///
    /// # Errors
    /// If the parameters do not fit the items, and whatever stops the work.
    fn measure(&self, runner: &dyn Runner, items: &Self::Items) -> Result<Self::Measured, AnalysisError>;

    /// Makes tables of what was measured.
    ///
    /// # Errors
    /// If numbers are not all there.
    fn tables(&self, about: &About, items: &Self::Items, measured: Self::Measured) -> Result<Output, AnalysisError>;
}

/// What is made of an analysis' tables, from these alone. Both fail if a table lacks what is shown of it.
#[derive(Clone, Copy)]
pub struct FromTables {
    /// Figures by file name.
    pub figures: fn(&[Table]) -> Result<Figures, AnalysisError>,
    /// The report's sections; figures stand in the folder.
    pub sections: fn(&[Table], &Path) -> Result<Vec<Section>, AnalysisError>,
}

impl FromTables {
    /// A report without figures.
    pub const fn without_figures(sections: fn(&[Table], &Path) -> Result<Vec<Section>, AnalysisError>) -> Self {
        FromTables { figures: |_| Ok(Figures::new()), sections }
    }
}

/// What an analysis made of its datasets.
pub struct Prepared<I> {
    pub items: I,
    /// The files that were read.
    pub sources: Sources,
    /// What is scored of which prompts, for the record and the report.
    pub scored: Scored,
}

impl<I> Prepared<I> {
    /// Goes on with what is made of the items.
    pub fn map<J>(self, made: impl FnOnce(I) -> J) -> Prepared<J> {
        let Prepared { items, sources, scored } = self;
        Prepared { items: made(items), sources, scored }
    }
}

/// What tables say of the run as a whole.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The model, as it was named.
    pub model: &'a str,
    /// The seed of everything random.
    pub seed: u64,
    /// The model itself.
    pub loaded: &'a Model,
}

impl<'a> About<'a> {
    /// What tables say of all that this runner runs.
    pub fn of(runner: &'a dyn Runner) -> Self {
        let loaded = runner.model();
        About { model: &loaded.name, seed: runner.seed(), loaded }
    }

    /// The text of a token; `id:5` where the model has no tokenizer, or that has no such token.
    pub fn token(&self, id: u32) -> String {
        let tokenizer = self.loaded.tokenizer().ok();
        tokenizer.and_then(|t| t.token(id)).unwrap_or_else(|| format!("id:{id}"))
    }
}

/// The items of each of an analysis' plans, in order: what a plan makes is held at once, and a large dataset's is too much.
/// `of_each` is what one item adds to a plan: its forks (or edits, where a fork has many), or the rows that are read of it
/// ([`inputs::rows_read`]). Which item is in which plan changes no result but what `steer` draws at a temperature.
pub fn batches(n: usize, of_each: usize) -> impl Iterator<Item = Range<usize>> {
    let at_once = (PLANNED_AT_ONCE / of_each.max(1)).max(1);
    (0..n).step_by(at_once).map(move |from| from..n.min(from + at_once))
}

/// Forks or rows that are planned at once: 65,536 rows of 1,024 numbers are 256 MiB.
const PLANNED_AT_ONCE: usize = 1 << 16;

/// How many forks of so many rows each may run at once, so that what their rows take at their widest, inside an MLP, stays small.
pub(crate) fn forks_at_once(arch: &Arch, rows: usize) -> usize {
    (WIDEST / (3 * 4 * arch.d_mlp) / rows.max(1)).max(16)
}

/// What the rows of the forks of one prompt that run at once may take inside an MLP, in bytes.
const WIDEST: usize = 192 << 20;

/// Figures with their file names.
pub type Figures = Vec<(String, Figure)>;

/// What an analysis leaves.
#[derive(Default)]
pub struct Output {
    pub tables: Vec<Table>,
    /// Other files by name: vectors, say.
    pub files: Vec<(String, Vec<u8>)>,
}

impl From<Vec<Table>> for Output {
    fn from(tables: Vec<Table>) -> Self {
        Output { tables, files: Vec::new() }
    }
}

impl From<Table> for Output {
    fn from(table: Table) -> Self {
        vec![table].into()
    }
}

/// What stops an analysis.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Parameters or a file of the user's do not fit.
    #[error("{0}")]
    Bad(String),
    /// What came before leaves nothing to ask: no gate was found, say.
    #[error("{0}")]
    NotAskable(String),
    /// The work itself failed.
    #[error("{0}")]
    Failed(String),
}

impl AnalysisError {
    /// Whether the command or an input file is wrong, rather than the work having failed.
    pub fn of_input(&self) -> bool {
        match self {
            AnalysisError::Dataset(_)
            | AnalysisError::Encode(_)
            | AnalysisError::Parameter(_)
            | AnalysisError::Bad(_)
            | AnalysisError::NotAskable(_) => true,
            AnalysisError::Session(SessionError::Run(e)) => e.of_input(),
            AnalysisError::Table(_) | AnalysisError::Session(_) | AnalysisError::Failed(_) => false,
        }
    }
}

/// The table of this name.
///
/// # Errors
/// If there is none.
pub fn table<'a>(tables: &'a [Table], name: &str) -> Result<&'a Table, AnalysisError> {
    let found = tables.iter().find(|t| t.name() == name);
    found.ok_or_else(|| AnalysisError::Bad(format!("the table {name}.parquet is missing")))
}

/// Declares the subcommands that run analyses, and what a report needs of each.
#[macro_export]
macro_rules! registry {
    ($($module:ident :: $Params:ident),* $(,)?) => {
        $crate::subcommands! { $($module :: $Params),* }

        /// What can be made of the tables of each analysis.
        pub const WRITERS: &[$crate::analyses::Writer] = &[
            $($crate::analyses::Writer::of::<$module::$Params>()),*
        ];
    };
}

/// Makes a study of recorded parameters.
pub type JobOf = fn(&Map<String, Value>) -> Result<Box<dyn Job>, ParameterError>;

/// What makes a study of an analysis' recorded parameters, and figures and report of its tables.
pub struct Writer {
    pub name: &'static str,
    pub title: &'static str,
    pub job: JobOf,
    pub from_tables: FromTables,
}

impl Writer {
    /// What makes a study, figures and a report of this analysis.
    pub const fn of<A: Analysis>() -> Self {
        Writer { name: A::NAME, title: A::TITLE, job: job::<A>, from_tables: A::FROM_TABLES }
    }

    /// The writer of the analysis of this name.
    pub fn named(name: &str) -> Option<&'static Writer> {
        WRITERS.iter().find(|writer| writer.name == name)
    }
}

fn job<A: Analysis>(parameters: &Map<String, Value>) -> Result<Box<dyn Job>, ParameterError> {
    let parameters: A = parameters::read(parameters)?;
    parameters.check()?;
    Ok(Box::new(parameters))
}

registry! {
    behaviour::Behaviour,
    interchange::Interchange,
    screen::Screen,
    ablate::Ablate,
    dla::Dla,
    lens::Lens,
    attention::Attention,
    neurons::Neurons,
    functions::Functions,
    importance::Importance,
    truth::Truth,
    values::Values,
    weights::Weights,
    deltas::Deltas,
    similarity::Similarity,
    rank::Rank,
    scale::Scale,
    edges::Edges,
    circuit::Circuit,
    interactions::Interactions,
    three_methods::ThreeMethods,
    cascade::Cascade,
    commitment::Commitment,
    modulate::Modulate,
    cipher::Cipher,
    cipher_contrast::CipherContrast,
    cav::Cav,
    steer::Steer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_item_once_in_order_and_one_at_least() {
        let all = |n, of_each| batches(n, of_each).map(|r| (r.start, r.end)).collect::<Vec<_>>();
        assert_eq!(all(10, PLANNED_AT_ONCE / 4), [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(all(2, 2 * PLANNED_AT_ONCE), [(0, 1), (1, 2)]);
        assert_eq!(all(3, 0), [(0, 3)]);
        assert!(all(0, 1).is_empty());
    }
}
