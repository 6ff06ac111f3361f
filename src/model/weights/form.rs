//! The forms in which the parts of a layer are written down: what a family calls them, where they are stored, the weights
//! themselves. A mixer's or channel's struct of parts is one struct in all three, and [`Translate`] takes it from one to the next.

use super::layout::{LinearSpec, NormSpec};
use super::{Linear, NormWeights};
use crate::model::channel::{MlpWeights, RoutedExperts};
use crate::model::checkpoint::Stored;
use candle_core::Tensor;
use std::sync::Arc;

/// A form of a layer's parts.
pub trait Form {
    /// A matrix with its bias.
    type Matrix;
    type Norm;
    /// Any other numbers.
    type Numbers;
    /// The experts of a layer that rows choose from.
    type Experts;
}

/// The weights.
pub struct Loaded;

impl Form for Loaded {
    type Matrix = Linear;
    type Norm = NormWeights;
    type Numbers = Tensor;
    type Experts = RoutedExperts;
}

/// Where they are stored.
pub(in crate::model) struct Located;

impl Form for Located {
    type Matrix = LinearSpec;
    type Norm = NormSpec;
    type Numbers = Stored;
    type Experts = Arc<Vec<MlpWeights<Located>>>;
}

/// What a family calls them.
pub(crate) struct Named;

impl Form for Named {
    type Matrix = &'static str;
    type Norm = &'static str;
    type Numbers = &'static str;
    type Experts = ();
}

/// Takes parts from one form to another.
pub(in crate::model) trait Translate<F: Form, G: Form> {
    type Error;

    fn matrix(&self, part: &F::Matrix) -> Result<G::Matrix, Self::Error>;
    fn norm(&self, part: &F::Norm) -> Result<G::Norm, Self::Error>;
    fn numbers(&self, part: &F::Numbers) -> Result<G::Numbers, Self::Error>;
    fn experts(&self, part: &F::Experts) -> Result<G::Experts, Self::Error>;

    fn matrix_if(&self, part: &Option<F::Matrix>) -> Result<Option<G::Matrix>, Self::Error> {
        part.as_ref().map(|part| self.matrix(part)).transpose()
    }

    fn norm_if(&self, part: &Option<F::Norm>) -> Result<Option<G::Norm>, Self::Error> {
        part.as_ref().map(|part| self.norm(part)).transpose()
    }

    fn numbers_if(&self, part: &Option<F::Numbers>) -> Result<Option<G::Numbers>, Self::Error> {
        part.as_ref().map(|part| self.numbers(part)).transpose()
    }
}

/// Nothing but the fact that a part is there.
pub(in crate::model) struct There;

impl Form for There {
    type Matrix = ();
    type Norm = ();
    type Numbers = ();
    type Experts = ();
}

/// The same weights once more: they share their numbers.
pub(in crate::model) struct Same;

impl Translate<Loaded, Loaded> for Same {
    type Error = candle_core::Error;

    fn matrix(&self, part: &Linear) -> candle_core::Result<Linear> {
        Ok(part.clone())
    }

    fn norm(&self, part: &NormWeights) -> candle_core::Result<NormWeights> {
        Ok(part.clone())
    }

    fn numbers(&self, part: &Tensor) -> candle_core::Result<Tensor> {
        Ok(part.clone())
    }

    fn experts(&self, part: &RoutedExperts) -> candle_core::Result<RoutedExperts> {
        Ok(part.clone())
    }
}
