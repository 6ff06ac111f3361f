//! Values: what in the stream and in neurons makes a model speak as one to whom a value matters, by itself and when it is asked to?
//!
//! An item is a question with two replies to it: one shows a value, the other does not. The *intrinsic* value vector of a layer is the
//! mean difference of its residual stream between the two, the *prompted* one the same after a prompt that asks for the value; the prompt
//! stands before both replies. A *value neuron* writes more along a vector in the reply with the value. Neurons of both vectors are
//! shared, others belong to one of them alone. What vectors and neurons are worth, other items say: the neurons of each set are
//! silenced, and each vector is added, beside random neurons and directions, and the log-probability of the one reply is compared with
//! the other's. After Han et al. 2025, "Dual Mechanisms of Value Expression: Intrinsic vs. Prompted Values in LLMs".

mod found;
mod items;
mod read;
mod report;
mod runs;
mod tables;

pub use tables::{DoneRow, EffectRow, MeanOf};

use super::doses::Grid;
use super::inputs::layer_list;
use super::neurons::{Layer, Neuron, file_of, layers_of};
use super::vectors::{Named, to_bytes};
use crate::analyses::prelude::*;
use found::{Sets, Vectors};
use items::OfValue;
use runs::{Condition, Said};

parameters! {
    /// Find a value in the stream and in neurons, with and without a prompt that asks for it, and test both
    #[serde(default)]
    pub struct Values {
        /// Read items from this file, JSON Lines: {"value", "prompt", "question", "with", "without", "id"?, "topic"?}
        items: Data, [value_name = "FILE"];

        /// Ask of these values alone; several with commas (default: all of the file)
        value: Vec<String>, [value_delimiter = ',', value_name = "NAME"];

        /// Take at most this many neurons for each vector
        neurons: u16 = 100, in 1..=10_000, [value_name = "K"];

        /// Add the vectors after these layers: 3, 0-5,8 (default: the middle one)
        layers: Option<String>, [value_name = "LAYERS"];

        /// Add each vector times these coefficients: from:to:how-many, or a list with commas
        coefficients: Grid = Grid::even(-1.0, 1.0, 2), [allow_hyphen_values = true, value_name = "a:b:n"];

        /// Compare with this many random sets of neurons, and random directions
        controls: u16 = 5, in 1..=100, [value_name = "R"];
    }
}

/// Without and with a prompt that asks for the value, in the order of all that is kept of both.
pub const CONTEXTS: [&str; 2] = ["unprompted", "prompted"];

/// The vectors of these contexts.
pub const VECTORS: [&str; 2] = ["intrinsic", "prompted"];

/// The sets of neurons: of both vectors, and of one alone.
pub const SETS: [&str; 3] = ["shared", "only_intrinsic", "only_prompted"];

/// Values as the model reads them.
pub struct Asked {
    values: Vec<OfValue>,
    /// Layers that have neurons.
    layers: Vec<Layer>,
    /// Layers after which vectors are added.
    added: Vec<usize>,
}

/// What was found of a value.
pub struct Measured {
    vectors: Vectors,
    sets: Sets,
    conditions: Vec<Condition>,
    /// What the replies of items that were held out come to. `[contexts][items]`
    said: [Vec<Said>; 2],
}

impl Analysis for Values {
    const NAME: &'static str = "values";
    const TITLE: &'static str = "Values";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    /// One a value.
    type Measured = Vec<Measured>;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let arch = &model.decoder.arch;
        let layers = layers_of(0..arch.n_layers, arch).map_err(AnalysisError::Bad)?;
        let added = match &self.layers {
            Some(list) => layer_list(Some(list), arch.n_layers)?,
            None => vec![arch.n_layers / 2],
        };
        let read = items::read(&self.items, &self.value, model)?;
        Ok(read.map(|values| Asked { values, layers, added }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Vec<Measured>, AnalysisError> {
        items.values.iter().map(|of| self.of_value(runner, items, of)).collect()
    }

    fn tables(&self, about: &About, items: &Asked, measured: Vec<Measured>) -> Result<Output, AnalysisError> {
        let tables = tables::tables(about, items, &measured)?;
        let mut named = Vec::new();
        let mut files = Vec::new();
        for (of, found) in items.values.iter().zip(&measured) {
            named.extend(found.vectors.named(&of.name));
            files.extend(SETS.iter().zip(&found.sets.neurons).filter(|(_, neurons)| !neurons.is_empty()).map(
                |(set, neurons)| {
                    let said = format!("{}: neurons of {}, {set}, the strongest first", about.model, of.name);
                    (format!("{}.{set}.txt", of.name), file_of(neurons, &said))
                },
            ));
        }
        files.push(("vectors.safetensors".to_string(), to_bytes(&named, None)?));
        Ok(Output { tables, files })
    }
}

impl Values {
    /// All that is found of a value: vectors and neurons by the items for training, their effects by the others.
    fn of_value(&self, runner: &dyn Runner, items: &Asked, of: &OfValue) -> Result<Measured, AnalysisError> {
        let differences = read::differences(runner, items, of)?;
        let arch = &runner.model().decoder.arch;
        let vectors = Vectors::of(of, &differences, arch.n_layers, arch.d_model);
        let most = usize::from(self.neurons);
        let sets = match runner.is_counting() {
            // What is silenced costs no more than neurons of the first layers.
            true => Sets::first(&items.layers, most),
            false => Sets::of(&runner.model().decoder, items, of, &differences, &vectors, most)?,
        };
        let conditions = self.conditions(items, of, &vectors, &sets, runner.seed());
        let said = runs::said(runner, of, &conditions)?;
        Ok(Measured { vectors, sets, conditions, said })
    }

    /// All that is done to a reply: each set silenced and each vector added, and random ones after each.
    fn conditions(&self, items: &Asked, of: &OfValue, vectors: &Vectors, sets: &Sets, seed: u64) -> Vec<Condition> {
        let controls = usize::from(self.controls);
        let mut conditions = runs::silenced(&items.layers, sets, controls, (seed, &of.name));
        for layer in &items.added {
            for (v, of_layers) in vectors.vectors.iter().enumerate() {
                let grid = self.coefficients.values();
                conditions.extend(runs::added((v, *layer), &of_layers[*layer], grid, controls, seed));
            }
        }
        conditions
    }
}

impl Vectors {
    /// The vectors as a file has them: `honesty.intrinsic.resid_post.12`.
    fn named<'v>(&'v self, value: &'v str) -> impl Iterator<Item = Named> + 'v {
        VECTORS.iter().zip(&self.vectors).flat_map(move |(name, layers)| {
            layers.iter().enumerate().map(move |(layer, vector)| {
                let name = format!("{value}.{name}.{}", SiteKind::ResidPost.at(layer));
                Named { name, vector: vector.clone(), bias: None }
            })
        })
    }
}

/// The neurons of all layers, in the order in which what is read of them stands.
fn all_neurons(layers: &[Layer]) -> impl Iterator<Item = Neuron> + '_ {
    layers.iter().flat_map(|layer| layer.neurons())
}
