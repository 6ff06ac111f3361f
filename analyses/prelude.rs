//! What most analyses need: `use gatelens::analyses::prelude::*`, in this crate `use crate::analyses::prelude::*`.

pub use super::inputs::{MeasuredArgs, MeasuredPrompts, PairArgs, Pairs, PromptArgs, Prompts};
pub use super::summary::{Position, mean};
pub use super::{About, Analysis, AnalysisError, Figures, FromTables, Output, Prepared, batches, table};
pub use crate::dataset::{Data, Dataset, Item, Pair};
pub use crate::figure::Figure;
pub use crate::model::Model;
pub use crate::parameters::{Parameters, param};
pub use crate::plan::{Activation, Array, Change, Edit, Handle, Metric, Part, Plan, Positions, Readings, Run};
pub use crate::report::listing::{Listing, Show};
pub use crate::report::{Block, Heading, Section};
pub use crate::site::{Site, SiteKind};
pub use crate::stats::{Bootstrap, Interval};
pub use crate::study::Runner;
pub use crate::table::Table;
pub use crate::table::rows::Row as _;
pub use crate::{parameters, rows};
pub use std::ops::Range;
pub use std::path::Path;
