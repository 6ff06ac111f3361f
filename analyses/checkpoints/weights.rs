//! What are a model's matrices, and what did training change of them? Norms, spectra and heads from the weights alone; and, beside
//! a parent, how many entries moved, how far the spectrum drifted, how far the principal subspaces turned, and whether the changed
//! entries are those of the principal part.
//!
//! The measures against a parent are those of "The Path Not Taken: RLVR Provably Learns Off the Principals" (Zhu et al. 2025); those
//! of heads, of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". Matrices are read one at a time from any
//! checkpoint, and never kept.

mod against;
mod composition;
mod heads;
mod matrix;
mod report;
mod summary;
mod tables;

pub use against::Against;
pub use composition::Composed;
pub use heads::OfHead;
pub use matrix::Alone;
pub(super) use matrix::effective_rank;
pub use tables::{ALL, ChangeRow, CompositionRow, HeadRow, LayerRow, MatrixRow, SpectrumRow};

use super::paths::{expand, open};
use crate::analyses::inputs::Sources;
use crate::analyses::prelude::*;
use crate::analyses::scored::Scored;
use crate::linear::spectrum::Singular;
use crate::model::weights::StoredMatrix;
use crate::plan::Reading;
use crate::study::Making;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

parameters! {
    /// Measure the matrices of a checkpoint, alone or beside its parent's
    #[serde(default)]
    pub struct Weights {
        /// Compare with this model, which training began from
        against: Option<String>, [value_name = "MODEL"];

        /// Measure these too, each against the same parent, in this order; a name may hold * (repeatable)
        children: Vec<String>, needs against, [value_name = "MODEL"];

        /// Count this many singular values and vectors as the principal ones; fewer where a tenth of a matrix's are fewer
        top: u16 = 64, in 1..=1024, [value_name = "K"];

        /// Find all singular values of matrices whose shorter side is at most this; of larger ones only the principal ones
        whole: u32 = 1024, in 1..=100_000, [value_name = "N"];

        /// Measure only tensors whose names match one of these, in which * stands for anything; several with commas
        tensors: Vec<String>, [value_delimiter = ',', value_name = "NAMES"];

        /// Measure how much of what each head writes later heads read (composition scores)
        composition: bool;
    }
}

/// Checkpoints whose matrices are matched.
pub struct Items {
    /// The models; the parent last, if there is one.
    models: Vec<Arc<Model>>,
    has_parent: bool,
    /// By model, its matrices that are measured.
    matrices: Vec<Vec<StoredMatrix>>,
}

/// A matrix alone, and against the parent's.
type OfMatrix = (Alone, Option<Against>);

/// What was found of a model.
#[derive(Default)]
pub struct OfModel {
    pub alone: Vec<Alone>,
    /// Against the parent; none of matrices that it has not.
    pub against: Vec<Option<Against>>,
    pub heads: Vec<OfHead>,
    pub composition: Vec<Composed>,
}

impl Analysis for Weights {
    const NAME: &'static str = "weights";
    const TITLE: &'static str = "Matrices of a checkpoint";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    type Measured = Vec<OfModel>;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let open = |name: &String| open(name, &model.options).map(Arc::new);
        // The study's own model is opened anew: it costs nothing before its numbers are read.
        let mut children = expand(&self.children)?;
        // A pattern may match it too.
        children.retain(|child| child.trim_end_matches('/') != model.name.trim_end_matches('/'));
        let names: Vec<String> = std::iter::once(model.name.clone()).chain(children).collect();
        let models = names.iter().chain(&self.against).map(open).collect::<Result<Vec<_>, _>>()?;
        let has_parent = self.against.is_some();
        let patterns = self.patterns()?;
        let mut matrices = Vec::new();
        for model in &models {
            let mut found = model.decoder.matrices();
            found.retain(|m| patterns.is_empty() || patterns.iter().any(|p| p.matches(&m.tensor) || p.matches(&m.key)));
            if found.is_empty() {
                let why = format!("model `{}`: no matrix has such a name: {}", model.name, self.tensors.join(", "));
                return Err(AnalysisError::Bad(why));
            }
            matrices.push(found);
        }
        let mut scored = Scored::default();
        if has_parent {
            scored.note(unmatched(&models, &matrices)?);
        }
        let sources: Sources = models[1..].iter().map(|model| (model.name.clone(), model.sample.clone())).collect();
        Ok(Prepared { items: Items { models, has_parent, matrices }, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Vec<OfModel>, AnalysisError> {
        let mut found: Vec<OfModel> = items.models.iter().map(|_| OfModel::default()).collect();
        let runners: Vec<Box<dyn Runner>> = items.models.iter().map(|model| runner.beside(model)).collect();
        self.measure_matrices(&runners, items, &mut found)?;
        for ((model, runner), found) in items.models.iter().zip(&runners).zip(&mut found) {
            found.heads = heads::measure(runner.as_ref(), model)?;
            if self.composition {
                found.composition = composition::measure(runner.as_ref(), model)?;
            }
        }
        Ok(found)
    }

    fn tables(&self, about: &About, items: &Items, measured: Vec<OfModel>) -> Result<Output, AnalysisError> {
        Ok(tables::tables(self, about, items, &measured)?.into())
    }
}

/// Numbers of the matrices that are taken apart side by side.
const AT_ONCE: usize = 1 << 24;

impl Weights {
    fn patterns(&self) -> Result<Vec<glob::Pattern>, AnalysisError> {
        let bad = |name: &str, e: glob::PatternError| AnalysisError::Bad(format!("`{name}` is no pattern: {e}"));
        self.tensors.iter().map(|name| glob::Pattern::new(name).map_err(|e| bad(name, e))).collect()
    }

    /// How many of a matrix's singular values are its principal ones.
    pub fn principal(&self, rows: usize, columns: usize) -> usize {
        usize::from(self.top).min(rows.min(columns) / 10).max(1)
    }

    /// Takes every matrix of every model apart, a few at a time. The parent's are taken apart once for all children.
    fn measure_matrices(
        &self,
        runners: &[Box<dyn Runner>],
        items: &Items,
        found: &mut [OfModel],
    ) -> Result<(), AnalysisError> {
        let mut results: Vec<Vec<Option<OfMatrix>>> = items.matrices.iter().map(|own| vec![None; own.len()]).collect();
        if let Some(last) = items.has_parent.then(|| items.models.len() - 1) {
            let by_key: Vec<HashMap<&str, usize>> = items.matrices[..last].iter().map(|own| keys(own)).collect();
            let all: Vec<usize> = (0..items.matrices[last].len()).collect();
            for some in groups(&all, &items.matrices[last]) {
                let theirs = picked(&items.matrices[last], &some);
                let alone =
                    self.measured(runners[last].as_ref(), &items.models[last], &theirs, &mut Parents::none())?;
                put(&mut results[last], &some, alone);
                let mut parents = Parents::of(self, &items.models[last], &theirs);
                for c in 0..last {
                    let own: Vec<usize> =
                        theirs.iter().filter_map(|matrix| by_key[c].get(matrix.key.as_str()).copied()).collect();
                    let matrices = picked(&items.matrices[c], &own);
                    let both = self.measured(runners[c].as_ref(), &items.models[c], &matrices, &mut parents)?;
                    put(&mut results[c], &own, both);
                }
            }
        }
        for (m, (results, found)) in results.iter_mut().zip(found).enumerate() {
            // What no parent has.
            let rest: Vec<usize> = (0..results.len()).filter(|i| results[*i].is_none()).collect();
            for some in groups(&rest, &items.matrices[m]) {
                let matrices = picked(&items.matrices[m], &some);
                let alone = self.measured(runners[m].as_ref(), &items.models[m], &matrices, &mut Parents::none())?;
                put(results, &some, alone);
            }
            (found.alone, found.against) = results.drain(..).map(Option::unwrap_or_default).unzip();
        }
        Ok(())
    }

    /// Some matrices of a model, alone and against the parent's of the same names.
    fn measured(
        &self,
        runner: &dyn Runner,
        model: &Model,
        matrices: &[StoredMatrix],
        parents: &mut Parents,
    ) -> Result<Vec<OfMatrix>, AnalysisError> {
        let compared = parents.model.is_some();
        let names: Vec<&str> = matrices.iter().map(|m| m.tensor.as_str()).collect();
        let of = format!(
            "matrices 1, top {}, whole {}, against {:?}: {}",
            self.top,
            self.whole,
            parents.model.map(|parent| &parent.sample),
            names.join(" ")
        );
        let flops: f64 = matrices.iter().map(|m| self.flops(m) * if compared { 2.5 } else { 1.0 }).sum();
        let making = Making { of: &of, flops, n: 2 * matrices.len() };
        let readings = runner.make(&making, &mut || {
            parents.take_apart().map_err(|e| e.to_string())?;
            let parents: &Parents = parents;
            let each = |matrix: &StoredMatrix| -> Result<[Reading; 2], String> {
                let (alone, against) = self.of_matrix(model, matrix, parents).map_err(|e| e.to_string())?;
                Ok([alone.reading(), against.map_or(Reading::Number(0.0), Against::reading)])
            };
            let each: Vec<[Reading; 2]> = matrices.par_iter().map(each).collect::<Result<_, _>>()?;
            Ok(each.into_iter().flatten().collect())
        })?;
        if runner.is_counting() {
            return Ok(vec![OfMatrix::default(); matrices.len()]);
        }
        Ok(readings.chunks_exact(2).map(|two| (Alone::of(&two[0]), Against::of(&two[1]))).collect())
    }

    fn of_matrix(&self, model: &Model, matrix: &StoredMatrix, parents: &Parents) -> Result<OfMatrix, AnalysisError> {
        let of = |e: String| AnalysisError::Failed(format!("{}: `{}`: {e}", model.name, matrix.tensor));
        let values = read(model, matrix)?;
        let singular = self.singular(&values).map_err(|e| of(e.to_string()))?;
        let alone = Alone::new(&values, &singular, self.principal(matrix.rows, matrix.columns)).map_err(of)?;
        let Some((parent, theirs, apart)) = parents.find(&matrix.key) else { return Ok((alone, None)) };
        let child = against::Side { values: &values, singular: &singular };
        let against = Against::new(&child, &against::Parent { model: parent, matrix: theirs, singular: apart })?;
        Ok((alone, Some(against)))
    }

    fn singular(&self, values: &Tensor) -> Result<Singular, crate::linear::LinearError> {
        let (rows, columns) = values.dims2()?;
        crate::linear::spectrum::singular(values, self.principal(rows, columns), self.whole as usize)
    }

    /// About how many operations it takes to take a matrix apart.
    fn flops(&self, matrix: &StoredMatrix) -> f64 {
        let (long, short) = (matrix.rows.max(matrix.columns) as f64, matrix.rows.min(matrix.columns) as f64);
        let k = self.principal(matrix.rows, matrix.columns) as f64;
        match short <= f64::from(self.whole) {
            true => 2.0 * long * short * short + 10.0 * short * short * short,
            false => 40.0 * long * short * (k + 16.0),
        }
    }
}

/// A matrix whole. `[rows, columns]`, f32
fn read(model: &Model, matrix: &StoredMatrix) -> Result<Tensor, AnalysisError> {
    let bad = |e: String| AnalysisError::Bad(format!("{}: {e}", model.name));
    let values = model.decoder.rows_of(matrix, 0..matrix.rows).map_err(|e| bad(e.to_string()))?;
    Tensor::from_vec(values, (matrix.rows, matrix.columns), &Device::Cpu).map_err(|e| bad(e.to_string()))
}

/// Matrices by their keys.
fn keys(matrices: &[StoredMatrix]) -> HashMap<&str, usize> {
    matrices.iter().enumerate().map(|(i, matrix)| (matrix.key.as_str(), i)).collect()
}

/// Some of the matrices, by their numbers.
fn picked(matrices: &[StoredMatrix], some: &[usize]) -> Vec<StoredMatrix> {
    some.iter().map(|i| matrices[*i].clone()).collect()
}

/// Puts what was found of some matrices where they are.
fn put(results: &mut [Option<OfMatrix>], some: &[usize], found: Vec<OfMatrix>) {
    some.iter().zip(found).for_each(|(i, of)| results[*i] = Some(of));
}

/// Matrices that are taken apart side by side, by their numbers.
fn groups(some: &[usize], matrices: &[StoredMatrix]) -> Vec<Vec<usize>> {
    let (mut found, mut held): (Vec<Vec<usize>>, usize) = (Vec::new(), 0);
    for i in some {
        let size = matrices[*i].rows * matrices[*i].columns;
        match found.last_mut().filter(|_| held + size <= AT_ONCE) {
            Some(group) => group.push(*i),
            None => {
                found.push(vec![*i]);
                held = 0;
            }
        }
        held += size;
    }
    found
}

/// What names of matrices some models have alone, in words.
///
/// # Errors
/// If a child shares none with the parent, or one of another shape.
fn unmatched(models: &[Arc<Model>], matrices: &[Vec<StoredMatrix>]) -> Result<Vec<String>, AnalysisError> {
    let Some(((parent, theirs), children)) =
        models.split_last().zip(matrices.split_last()).map(|((p, c), (m, rest))| ((p, m), c.iter().zip(rest)))
    else {
        return Ok(Vec::new());
    };
    let theirs_by_key = keys(theirs);
    let mut notes = Vec::new();
    for (child, own) in children {
        let own_by_key = keys(own);
        let shared = own.iter().filter(|m| theirs_by_key.contains_key(m.key.as_str())).count();
        if shared == 0 {
            return Err(AnalysisError::Bad(format!(
                "model `{}` has no matrix of a name that `{}` has: {} and {}; give two folders or two GGUF files of one family",
                child.name, parent.name, own[0].tensor, theirs[0].tensor
            )));
        }
        let families = [&child.decoder.arch, &parent.decoder.arch].map(|arch| arch.family.name());
        if families[0] != families[1] {
            notes.push(format!(
                "{} is of the family {} and {} of {}: one was not trained from the other",
                child.name, families[0], parent.name, families[1]
            ));
        }
        for matrix in own {
            let Some(other) = theirs_by_key.get(matrix.key.as_str()).map(|i| &theirs[*i]) else { continue };
            if (matrix.rows, matrix.columns) != (other.rows, other.columns) {
                return Err(AnalysisError::Bad(format!(
                    "`{}` has {} by {} numbers in `{}` and {} by {} in `{}`; compare models of one shape, or leave the tensor \
                     out with {}",
                    matrix.tensor,
                    matrix.rows,
                    matrix.columns,
                    child.name,
                    other.rows,
                    other.columns,
                    parent.name,
                    param("tensors")
                )));
            }
        }
        let lists = [
            (&child.name, &parent.name, own.iter().filter(|m| !theirs_by_key.contains_key(m.key.as_str())).collect()),
            (&parent.name, &child.name, theirs.iter().filter(|m| !own_by_key.contains_key(m.key.as_str())).collect()),
        ];
        for (with, without, alone) in lists {
            notes.extend(said(with, without, &alone));
        }
    }
    Ok(notes)
}

fn said(with: &str, without: &str, alone: &Vec<&StoredMatrix>) -> Option<String> {
    let (first, rest) = alone.split_first()?;
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    Some(format!("`{}`{more}: {with} has it and {without} has not; it is not compared", first.tensor))
}

/// Some of the parent's matrices, taken apart when the first child needs it.
struct Parents<'a> {
    weights: Option<&'a Weights>,
    model: Option<&'a Model>,
    matrices: &'a [StoredMatrix],
    apart: Vec<Singular>,
}

impl<'a> Parents<'a> {
    fn none() -> Parents<'a> {
        Parents { weights: None, model: None, matrices: &[], apart: Vec::new() }
    }

    fn of(weights: &'a Weights, model: &'a Model, matrices: &'a [StoredMatrix]) -> Parents<'a> {
        Parents { weights: Some(weights), model: Some(model), matrices, apart: Vec::new() }
    }

    fn take_apart(&mut self) -> Result<(), AnalysisError> {
        let (Some(weights), Some(model), true) = (self.weights, self.model, self.apart.is_empty()) else {
            return Ok(());
        };
        let each = |matrix: &StoredMatrix| {
            let failed = |e: String| AnalysisError::Failed(format!("{}: `{}`: {e}", model.name, matrix.tensor));
            weights.singular(&read(model, matrix)?).map_err(|e| failed(e.to_string()))
        };
        self.apart = self.matrices.par_iter().map(each).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn find(&self, key: &str) -> Option<(&Model, &StoredMatrix, &Singular)> {
        let i = self.matrices.iter().position(|matrix| matrix.key == key)?;
        Some((self.model?, &self.matrices[i], self.apart.get(i)?))
    }
}
