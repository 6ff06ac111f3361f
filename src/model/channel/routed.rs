//! The experts of a layer that rows choose from. Where layers stay in memory, they were read with the layer. Where they do not, each is
//! read when rows have chosen it, once while the layer is in memory, for all runs. A pass whose rows choose nearly all experts of a layer
//! would wait for as good as the whole of the next one, too: then those of the next one are read ahead with the rest of it.

use super::mlp::MlpWeights;
use crate::model::store::Layers;
use candle_core::Result;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

/// Experts, in memory or still in the checkpoint. Clones share them.
#[derive(Clone)]
pub struct RoutedExperts {
    experts: Arc<Layers<MlpWeights>>,
    /// Of a layer that does not stay in memory.
    demand: Option<Arc<Demand>>,
}

/// Which of a layer's experts rows have chosen.
struct Demand {
    n: usize,
    chosen: Mutex<BTreeSet<usize>>,
    /// Whether they are nearly all: three quarters, so that what is read ahead in vain is a quarter at most where the next layer's rows
    /// choose as many.
    wide: Arc<AtomicBool>,
}

impl RoutedExperts {
    pub(in crate::model) fn new(experts: Layers<MlpWeights>) -> Self {
        RoutedExperts { experts: Arc::new(experts), demand: None }
    }

    /// The same `n` experts, of which `wide` will say whether rows have chosen nearly all.
    pub(in crate::model) fn told(self, n: usize, wide: &Arc<AtomicBool>) -> Self {
        let demand = Demand { n, chosen: Mutex::default(), wide: wide.clone() };
        RoutedExperts { demand: Some(Arc::new(demand)), ..self }
    }

    /// Begins to read these, where they are not in memory: the first can be computed with while the others are read.
    pub(super) fn ask(&self, experts: impl IntoIterator<Item = usize> + Clone) {
        if let Some(demand) = &self.demand {
            demand.note(experts.clone());
        }
        self.experts.ask(experts);
    }

    /// An expert, read if it is not in memory.
    ///
    /// # Errors
    /// If there is no such expert, or it cannot be read.
    pub fn get(&self, expert: usize) -> Result<Arc<MlpWeights>> {
        Ok(self.experts.get(expert)?)
    }
}

impl Demand {
    fn note(&self, experts: impl IntoIterator<Item = usize>) {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.extend(experts);
        self.wide.store(4 * chosen.len() >= 3 * self.n, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::WeightsError;

    #[test]
    fn a_layer_is_wide_once_rows_have_chosen_three_quarters_of_its_experts() {
        let wide = Arc::new(AtomicBool::new(true));
        let none = |_: usize, _| Err(WeightsError::NoLayer { layer: 0 });
        let experts = RoutedExperts::new(Layers::new(8, true, none)).told(8, &wide);
        for (asked, is_wide) in [(vec![0, 1, 2], false), (vec![0, 1, 2, 3, 4], false), (vec![7], true), (vec![0], true)]
        {
            experts.clone().ask(asked);
            assert_eq!(wide.load(Relaxed), is_wide);
        }
    }
}
