//! What most programs need: `use gatelens::prelude::*`.
//!
//! [`z`] and [`at`] name a place in the model, by default at the prompt's last position; what is done there makes an edit or a
//! readout of it.
//!
//! ```
//! use gatelens::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let study = Study::open("demo")?;
//! let mut plan = Plan::default();
//! let [clean, other] = [[5, 6, 7], [5, 6, 8]].map(|ids| plan.prompt("p", ids.to_vec()));
//! let fork = plan.fork(clean, vec![z(1, 0).from(other)]);
//! let metric = plan.read(fork, Metric::logit_difference(vec![11], vec![23]));
//! let written = plan.read(fork, at(SiteKind::AttnOut, 1).everywhere().activation());
//! let readings = study.session().run(&plan)?;
//! assert!(readings[metric].is_finite());
//! assert_eq!(readings[written].shape, [3, study.model.decoder.arch.d_model]);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "report")]
pub use crate::analyses::{
    Analysis, Output, ablate::Ablate, behaviour::Behaviour, cav::Cav, circuit::Circuit, dla::Dla, edges::Edges,
    interchange::Interchange, steer::Steer,
};
pub use crate::dataset::{Data, Dataset, Input, Item, Pair, read_pairs, read_prompts};
pub use crate::model::{Model, Options as ModelOptions};
pub use crate::plan::{
    Activation, Attribution, Change, EdgeEffects, EdgeEstimate, Edit, Entropy, Gradient, KlFrom, LogProbs, Metric,
    Part, Plan, Positions, Projection, Rank, Readings, Run,
};
pub use crate::run::{Cancel, Engine, Generation, Sampling, Steps};
pub use crate::session::Session;
pub use crate::site::{Site, SiteKind};
pub use crate::study::{self, Progress, Study, Work};
#[cfg(feature = "report")]
pub use crate::study::{Origin, Place};
#[cfg(feature = "report")]
pub use crate::table::Table;

use std::sync::Arc;

/// A place in the model: a site, a part of it, and positions of a prompt.
#[derive(Clone, Debug)]
pub struct At {
    site: Site,
    part: Part,
    positions: Positions,
}

/// What a head read of the values, before the output projection, at the last position.
pub fn z(layer: usize, head: usize) -> At {
    at(SiteKind::Z, layer).heads([head])
}

/// A site of a layer as a whole, at the last position.
pub fn at(kind: SiteKind, layer: usize) -> At {
    At { site: kind.at(layer), part: Part::All, positions: Positions::Last }
}

impl At {
    /// These heads of it.
    pub fn heads(self, heads: impl IntoIterator<Item = usize>) -> At {
        At { part: Part::Heads(heads.into_iter().collect()), ..self }
    }

    /// These columns of it: neurons, dimensions of the residual stream.
    pub fn columns(self, columns: impl IntoIterator<Item = usize>) -> At {
        At { part: Part::Columns(columns.into_iter().collect()), ..self }
    }

    /// At all positions.
    pub fn everywhere(self) -> At {
        At { positions: Positions::All, ..self }
    }

    /// At these positions, from 0.
    pub fn positions(self, positions: impl IntoIterator<Item = usize>) -> At {
        At { positions: Positions::At(positions.into_iter().collect()), ..self }
    }

    /// The edit that takes another run's value here.
    pub fn from(self, donor: Run) -> Edit {
        self.edit(Change::interchange(donor))
    }

    /// The edit that sets it to zero.
    pub fn zero(self) -> Edit {
        self.edit(Change::Zero)
    }

    /// The edit that multiplies it.
    pub fn scale(self, by: f32) -> Edit {
        self.edit(Change::Scale(by))
    }

    /// The edit that adds a vector times a coefficient.
    pub fn add(self, vector: impl Into<Arc<[f32]>>, coefficient: f32) -> Edit {
        self.edit(Change::Add { vector: vector.into(), coefficient })
    }

    /// The edit that takes out what is along a direction.
    pub fn project_out(self, direction: impl Into<Arc<[f32]>>) -> Edit {
        self.edit(Change::ProjectOut(direction.into()))
    }

    /// Any edit.
    pub fn edit(self, change: Change) -> Edit {
        Edit { site: self.site, part: self.part, positions: self.positions, change }
    }

    /// The readout of its numbers. `[positions, width of the part]`
    pub fn activation(self) -> Activation {
        Activation { site: self.site, positions: self.positions, part: self.part }
    }

    /// The readout of a metric's gradient with respect to it. `[positions, width of the part]`
    pub fn gradient(self, metric: Metric) -> Gradient {
        Gradient { metric, site: self.site, positions: self.positions, part: self.part }
    }
}
