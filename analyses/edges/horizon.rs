//! Estimates with a horizon: an edge is run exactly through some layers, and what is left to first order.
//!
//! The change of the residual stream after these layers is multiplied by the metric's derivative there, at the base. Where they go
//! past the last layer the metric itself is read, and the estimate is exact.

use super::Taken;
use crate::analyses::prelude::*;
use crate::plan::{Gradient, Projection, Reader};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Taken<'_> {
    /// The estimates of all edges, the exact part going through `layers` layers of which the reader's is the first.
    pub(super) fn horizon(&self, runner: &dyn Runner, layers: usize) -> Result<Vec<f32>, AnalysisError> {
        let n_layers = runner.model().decoder.arch.n_layers;
        let last = |reader: Reader| match reader {
            Reader::Logits => n_layers,
            Reader::Head { layer, .. } | Reader::Mlp { layer } => layer + layers - 1,
        };
        // A pass goes on as far as anything is read: edges that end at one layer are run together.
        let mut ending: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (edge, of) in self.items.edges.iter().enumerate() {
            ending.entry(last(of.reader).min(n_layers)).or_default().push(edge);
        }
        let gradients = self.gradients(runner, ending.keys().copied().filter(|layer| *layer < n_layers))?;
        let mut found = vec![0f32; self.items.edges.len()];
        for (layer, edges) in ending {
            let effects = match gradients.get(&layer) {
                Some(gradient) => self.to_stream(runner, layer, gradient, &edges)?,
                None => {
                    let run = self.run(runner, &edges)?;
                    run.patched.iter().map(|patched| patched.metric - run.base.metric).collect()
                }
            };
            edges.iter().zip(effects).for_each(|(edge, effect)| found[*edge] = effect as f32);
        }
        Ok(found)
    }

    /// The metric's derivative with respect to the base's residual stream after some layers, all rows of each in one.
    fn gradients(
        &self,
        runner: &dyn Runner,
        layers: impl Iterator<Item = usize>,
    ) -> Result<BTreeMap<usize, Arc<[f32]>>, AnalysisError> {
        let (mut plan, base, _) = self.plan();
        let of = |site| Gradient { metric: self.metric(), site, positions: Positions::All, part: Part::All };
        let asked: Vec<(usize, Handle<Array>)> =
            layers.map(|layer| (layer, plan.read(base, of(SiteKind::ResidPost.at(layer))))).collect();
        if asked.is_empty() {
            return Ok(BTreeMap::new());
        }
        let readings = runner.run(&plan)?;
        Ok(asked.into_iter().map(|(layer, gradient)| (layer, readings[gradient].values.as_slice().into())).collect())
    }

    /// The change of the residual stream after a layer with each edge taken, times the metric's derivative there.
    fn to_stream(
        &self,
        runner: &dyn Runner,
        layer: usize,
        gradient: &Arc<[f32]>,
        edges: &[usize],
    ) -> Result<Vec<f64>, AnalysisError> {
        let (site, positions) = (SiteKind::ResidPost.at(layer), Positions::All);
        let along = || Projection { site, positions: positions.clone(), direction: gradient.clone() };
        let mut found = Vec::with_capacity(edges.len());
        for part in edges.chunks(self.at_once(runner)) {
            let (mut plan, base, donor) = self.plan();
            let clean = plan.read(base, along());
            let mut taken: Vec<Handle<Array>> = Vec::with_capacity(part.len());
            for edge in part {
                let run = self.exchange(&mut plan, (base, donor), *edge);
                taken.push(plan.read(run, along()));
            }
            let readings = runner.run(&plan)?;
            let sum = |handle: Handle<Array>| readings[handle].values.iter().map(|x| f64::from(*x)).sum::<f64>();
            let clean = sum(clean);
            found.extend(taken.into_iter().map(|handle| sum(handle) - clean));
        }
        Ok(found)
    }
}
