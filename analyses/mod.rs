//! The analyses: one file each, with its `mod` line and one line in the registry at the end of this file.
//!
//! An analysis is a type of parameters that implements [`Analysis`]: it makes a plan from its dataset, tables from the
//! plan's readings, and figures and a report from the tables alone. The command line, the run directory and the report
//! find it through the registry.

pub mod interchange;
pub mod summary;

use crate::dataset::DatasetError;
use crate::dataset::encode::EncodeError;
use crate::figure::Heatmap;
use crate::model::Model;
use crate::plan::Plan;
use crate::report::Section;
use crate::run::Reading;
use crate::table::{Table, TableError};
use std::path::Path;

/// A question that can be asked of a model.
pub trait Analysis: clap::Args + serde::Serialize {
    /// What the command is called.
    const NAME: &'static str;
    /// The report's title.
    const TITLE: &'static str;
    /// The dataset as it was read and tokenised, with what each readout of the plan is.
    type Items;

    /// The dataset files, with their SHA-256.
    fn datasets(items: &Self::Items) -> Vec<(String, String)>;

    /// Reads the dataset and says what to run.
    ///
    /// # Errors
    /// If the dataset is not sound or does not fit the model.
    fn plan(&self, model: &Model) -> Result<(Plan, Self::Items), AnalysisError>;

    /// Tables of the plan's readings.
    ///
    /// # Errors
    /// If a table cannot be made.
    fn tables(&self, model: &Model, items: &Self::Items, readings: &[Reading]) -> Result<Vec<Table>, AnalysisError>;

    /// Figures by file name, from the tables alone.
    ///
    /// # Errors
    /// If a table lacks what a figure shows.
    fn figures(&self, tables: &[Table]) -> Result<Vec<(String, Heatmap)>, AnalysisError>;

    /// The report's sections, from the tables alone; figures stand in `dir`.
    ///
    /// # Errors
    /// If a table lacks what a section says.
    fn sections(&self, tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError>;
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
    #[error("{0}")]
    Bad(String),
}

/// The table of a name.
///
/// # Errors
/// If there is none.
pub fn table<'a>(tables: &'a [Table], name: &str) -> Result<&'a Table, AnalysisError> {
    let found = tables.iter().find(|t| t.name() == name);
    found.ok_or_else(|| AnalysisError::Bad(format!("the table {name}.parquet is missing")))
}

/// Declares the subcommands that run the analyses.
macro_rules! registry {
    ($($module:ident :: $Params:ident),* $(,)?) => {
        /// Every analysis, as a subcommand.
        #[derive(clap::Subcommand)]
        pub enum Command {
            $(
                #[command(name = <$module::$Params as Analysis>::NAME)]
                $Params(Box<crate::cli::analysis::Args<$module::$Params>>),
            )*
        }

        impl Command {
            /// Runs the analysis that was asked for.
            ///
            /// # Errors
            /// Whatever stops it.
            pub fn run(&self) -> Result<(), crate::cli::CliError> {
                match self {
                    $(Command::$Params(args) => args.run(),)*
                }
            }
        }
    };
}

registry! {
    interchange::Interchange,
}
