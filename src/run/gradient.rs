//! Gradients: of a metric of a run with respect to sites of it.
//!
//! Reverse mode, a layer at a time, with checkpoints. The forward pass runs on the ordinary kernels, records no graph, and
//! keeps the residual stream before each layer that gradients reach. The end of the pass ([`end`]) gives the gradient with
//! respect to the last residual stream. Then, from the last layer down, [`Decoder::layer`] runs once more from what was
//! kept, as a graph, with a variable of zeros added at each site that is wanted ([`pass`]); candle's reverse pass over that
//! one graph gives the gradients of those variables and of the layer's input. So memory holds one layer's graph, weights
//! may be streamed, and the decoder is described once.
//!
//! Where later layers read more of an earlier place than the residual stream (keys and values that layers share, RWKV-7's values
//! of layer 0, the embedding), that is kept too, and is a variable of each layer that reads it. Their gradients add up until the pass is
//! back at the layer that it comes from. Streams beside the residual stream, which every layer makes anew, are kept and go back as
//! it does.
//!
//! Runs are packed side by side as everywhere; a fork runs whole here, with its edits, next to the runs that it takes
//! from. Runs do not touch each other but by interchange, which counts as a constant, so that one reverse pass serves one
//! metric of every run: as many passes go back as the run with the most metrics has.
//!
//! candle adds gradients up on threads of its own, which wait in loops; the `gatelens` command turns them off by
//! `CANDLE_NUM_THREADS=1`, as other programs may.

mod end;
mod pass;

use super::reading::pick;
use super::{Found, Options, RunError};
use crate::model::arch::Arch;
use crate::model::decoder::{Acts, Angles, Decoder, Lent, Loans};
use crate::model::places::moved;
use crate::ops;
use crate::ops::rows::{Rows, Span};
use crate::plan::{Array, GradientReadout, Metric, Placed, Program, Reading, Run};
use crate::site::{Site, SiteKind};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use pass::Pass;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// An operation between a site and the metric that passes no gradient on.
#[derive(Debug, thiserror::Error)]
#[error(
    "the gradient at `{site}` is missing: an operation at it or after it passes none on; this is a fault of gatelens"
)]
pub struct NoGradient {
    pub site: Site,
}

/// Computes the readings of a program's gradient readouts.
pub(super) fn read(decoder: &Decoder, program: &Program, options: &Options) -> std::result::Result<Found, RunError> {
    let mut found = Found::new();
    let asked = asked(program);
    if asked.is_empty() {
        return Ok(found);
    }
    let angles = Angles::new(decoder, program.plan.prompts.iter().map(|p| p.ids.len()))?;
    for (runs, asked) in batches(program, asked, options.budget) {
        Batch::new(decoder, program, &angles, runs, asked).read(options, &mut found)?;
    }
    Ok(found)
}

/// All gradients that are wanted of one run.
pub(super) struct Asked<'a> {
    pub(super) run: Run,
    /// Each once.
    pub(super) metrics: Vec<&'a Metric>,
    gradients: Vec<Gradient<'a>>,
}

#[derive(Clone, Copy)]
struct Gradient<'a> {
    read: &'a GradientReadout<'a>,
    /// Index into [`Asked::metrics`].
    metric: usize,
}

impl Asked<'_> {
    /// The first site that is wanted: how far back gradients go.
    fn lowest(&self) -> Site {
        self.gradients.iter().map(|g| g.read.site).min().unwrap_or(SiteKind::Logits.at(0))
    }

    /// How many layers, the last ones, gradients go back through.
    pub(super) fn layers_back(&self, n_layers: usize) -> usize {
        n_layers - self.lowest().first_layer(n_layers)
    }
}

/// The gradients that a program wants, by run.
pub(super) fn asked<'a>(program: &'a Program) -> Vec<Asked<'a>> {
    let mut found: BTreeMap<Run, Asked> = BTreeMap::new();
    for read in &program.gradients {
        let run = read.run;
        let asked = found.entry(run).or_insert_with(|| Asked { run, metrics: Vec::new(), gradients: Vec::new() });
        let known = asked.metrics.iter().position(|m| *m == read.metric);
        let metric = known.unwrap_or_else(|| {
            asked.metrics.push(read.metric);
            asked.metrics.len() - 1
        });
        asked.gradients.push(Gradient { read, metric });
    }
    found.into_values().collect()
}

/// Runs that are computed together, in the order of runs, and what is asked of them, while their memory stays under the
/// budget. A donor of several is in each of their batches.
fn batches<'a>(program: &Program, asked: Vec<Asked<'a>>, budget: usize) -> Vec<(BTreeSet<Run>, Vec<Asked<'a>>)> {
    let mut batches: Vec<(BTreeSet<Run>, Vec<Asked>)> = Vec::new();
    let mut filled = 0;
    for asked in asked {
        let runs = program.needed([asked.run], false);
        let bytes = |run: &Run| program.length(*run) * bytes_a_row(program, &asked, program.length(*run));
        let own: usize = runs.iter().map(bytes).sum();
        match batches.last_mut() {
            Some((joined, list)) if filled + own <= budget => {
                filled += runs.difference(joined).map(bytes).sum::<usize>();
                joined.extend(runs);
                list.push(asked);
            }
            _ => {
                filled = own;
                batches.push((runs, vec![asked]));
            }
        }
    }
    batches
}

/// What a row takes in memory, about: what is kept of it for every layer, and one layer's graph with its gradients.
fn bytes_a_row(program: &Program, asked: &Asked, keys: usize) -> usize {
    let arch = program.arch;
    let mut sites: HashMap<usize, HashSet<Site>> = HashMap::new();
    for g in &asked.gradients {
        sites.entry(g.read.site.layer).or_default().insert(g.read.site);
    }
    for edit in program.edits(asked.run) {
        sites.entry(edit.site.layer).or_default().insert(edit.site);
    }
    // Each is there with its variable, their sum, and the gradients of these; those that are there only if they are wanted
    // also with what they are computed from and what is computed from them.
    let copies = |s: &Site| match s.kind {
        SiteKind::Scores | SiteKind::Pattern | SiteKind::HeadOut | SiteKind::ExpertOut => 12,
        SiteKind::MlpAct if arch.layers[s.layer].channel.neurons().experts > 0 => 12,
        SiteKind::Logits => 0,
        _ => 4,
    };
    let at_sites = |sites: &HashSet<Site>| sites.iter().map(|s| copies(s) * s.width(arch, keys)).sum::<usize>();
    let widest = sites.values().map(at_sites).max().unwrap_or(0);
    let lent = arch.kept_width() - arch.stream_width();
    let kept = arch.stream_width() * asked.layers_back(arch.n_layers) + lent + arch.kept_width() * asked.metrics.len();
    4 * (kept + 16 * arch.d_model + 6 * arch.d_mlp + widest)
}

/// Runs that go forward and back together.
struct Batch<'a> {
    decoder: &'a Decoder,
    program: &'a Program<'a>,
    angles: &'a Angles,
    /// In the order of the spans.
    runs: Vec<Run>,
    rows: Rows,
    /// The span of each run.
    spans: HashMap<Run, usize>,
    asked: Vec<Asked<'a>>,
    /// The sites at which a gradient is wanted.
    tapped: HashSet<Site>,
    /// Edits that hold in each run, by site, donors' before those of their takers.
    edits: HashMap<Site, Vec<(Run, &'a Placed<'a>)>>,
}

impl<'a> Batch<'a> {
    fn new(
        decoder: &'a Decoder,
        program: &'a Program<'a>,
        angles: &'a Angles,
        runs: BTreeSet<Run>,
        asked: Vec<Asked<'a>>,
    ) -> Self {
        let runs: Vec<Run> = runs.into_iter().collect();
        let mut rows = Rows::default();
        let mut edits: HashMap<Site, Vec<_>> = HashMap::new();
        for run in &runs {
            let (from, n) = (rows.len(), program.length(*run));
            rows.spans.push(Span::new(from..from + n, 0, Vec::new()));
            rows.entries.extend((0..n).map(|p| angles.entry(n, p)));
            for edit in program.edits(*run) {
                edits.entry(edit.site).or_default().push((*run, edit));
            }
        }
        let spans = runs.iter().enumerate().map(|(i, run)| (*run, i)).collect();
        let tapped = asked.iter().flat_map(|a| &a.gradients).map(|g| g.read.site).collect();
        Batch { decoder, program, angles, runs, rows, spans, asked, tapped, edits }
    }

    /// The row of a run's position.
    fn row(&self, run: Run, position: usize) -> usize {
        self.rows.spans[self.spans[&run]].rows.start + position
    }

    fn read(&self, options: &Options, found: &mut Found) -> std::result::Result<(), RunError> {
        let n_layers = self.decoder.arch.n_layers;
        let lowest = self.asked.iter().map(Asked::lowest).min().unwrap_or(SiteKind::Logits.at(0));
        let rounds = self.asked.iter().map(|a| a.metrics.len()).max().unwrap_or(0);
        let (mut kept, loans) = self.forward(lowest.first_layer(n_layers), options)?;
        let Some(Before { stream: last, .. }) = kept.pop() else { return Ok(()) };
        let mut upstream = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let stream = end::back(self, round, &last, options.budget, found)?;
            upstream.push(Upstream { stream, lent: BTreeMap::new() });
        }
        drop(last);
        self.decoder.through((lowest.first_layer(n_layers)..n_layers).rev(), |l| {
            let Some(input) = kept.pop() else { return Ok(()) };
            self.back(l, (&input, &loans), lowest, &mut upstream, found)?;
            options.advance(self.rows.len() * (1 + rounds))?;
            Ok(())
        })
    }

    /// The plain pass: what goes into the layers from `first` on, and the last residual stream; and what else layers read.
    fn forward(&self, first: usize, options: &Options) -> Result<(Vec<Before>, Loans)> {
        let ids: Vec<u32> = self.runs.iter().flat_map(|run| self.program.ids(*run)).copied().collect();
        let positions: Vec<u32> = self.runs.iter().flat_map(|run| 0..self.program.length(*run) as u32).collect();
        let mut pass = Pass::plain(self);
        let mut acts = self.decoder.begin((&ids, &positions), self.rows.clone(), &mut pass)?;
        let mut kept = Vec::new();
        self.decoder.through(0..self.decoder.arch.n_layers, |l| {
            if l >= first {
                kept.push(Before::of(&acts)?);
            }
            self.decoder.layer(l, self.angles, &mut acts, &mut pass)?;
            pass.forget();
            options.advance(self.rows.len())?;
            Result::Ok(())
        })?;
        kept.push(Before::of(&acts)?);
        Ok((kept, acts.loans))
    }

    /// Takes the gradients with respect to a layer's result back through it, as far as any site is wanted, and reads what is
    /// wanted in it.
    fn back(
        &self,
        l: usize,
        (input, loans): (&Before, &Loans),
        lowest: Site,
        upstream: &mut [Upstream],
        found: &mut Found,
    ) -> std::result::Result<(), RunError> {
        let arch = &self.decoder.arch;
        let variable = if lowest < SiteKind::ResidPre.at(l) { Some(Var::from_tensor(&input.stream)?) } else { None };
        let mut acts = Acts::new(self.rows.clone());
        acts.put(SiteKind::ResidPre, variable.as_ref().map_or(&input.stream, Var::as_tensor).clone());
        acts.loans = loans.clone();
        let mut borrowed = Vec::new();
        for lent in borrowed_by(arch, l).into_iter().filter(|lent| lowest <= lent.site()) {
            let variable = Var::from_tensor(loans.get(lent)?)?;
            acts.loans.lend(lent, variable.as_tensor().clone());
            borrowed.push((lent, variable));
        }
        if let Some(others) = &input.others {
            let tracked = if variable.is_some() { Some(Var::from_tensor(others)?) } else { None };
            acts.loans.lend(Lent::Streams, tracked.as_ref().map_or(others, Var::as_tensor).clone());
            borrowed.extend(tracked.map(|variable| (Lent::Streams, variable)));
        }
        let mut pass = Pass::tapping(self, variable.is_some());
        self.decoder.layer(l, self.angles, &mut acts, &mut pass)?;
        let output = acts.take(SiteKind::ResidPre)?;
        let here = |g: &Gradient| g.read.site.first_layer(arch.n_layers) == l;
        for (round, upstream) in upstream.iter_mut().enumerate() {
            let grads = upstream.pulled(&output, &acts.loans, l)?;
            for (lent, variable) in &borrowed {
                upstream.add(*lent, gradient_of(&grads, lent.site(), Some(variable))?)?;
            }
            for Gradient { read, .. } in self.gradients(round).filter(here) {
                let gradient = match read.site.kind {
                    SiteKind::Embed => upstream.at_embed(gradient_of(&grads, read.site, variable.as_ref())?)?,
                    SiteKind::State => self.of_states(read, &grads, &pass)?,
                    _ => gradient_of(&grads, read.site, pass.tap(read.site, read.run))?.clone(),
                };
                found.push((read.readout, self.reading(read, &gradient)?));
            }
            if variable.is_some() {
                upstream.stream = gradient_of(&grads, SiteKind::ResidPre.at(l), variable.as_ref())?.clone();
            }
        }
        Ok(())
    }

    /// The gradients with respect to the states that a readout is of. `[positions, width]`
    fn of_states(
        &self,
        read: &GradientReadout,
        grads: &GradStore,
        pass: &Pass,
    ) -> std::result::Result<Tensor, RunError> {
        let recurrent = self.decoder.arch.layers[read.site.layer].mixer.recurrent();
        let each = read.positions.iter().map(|p| {
            let variable = pass.tap_state(read.site, (read.run, *p));
            // Where a position reads the state before it, nothing reads the last.
            let last = p + 1 == self.program.length(read.run) && recurrent.is_some_and(|of| !of.reads_state_after());
            match variable.filter(|_| last) {
                Some(variable) => Ok(variable.zeros_like()?),
                None => Ok(gradient_of(grads, read.site, variable)?.clone()),
            }
        });
        Ok(Tensor::cat(&each.collect::<std::result::Result<Vec<_>, RunError>>()?, 0)?)
    }

    /// The gradients of one round that are wanted.
    fn gradients(&self, round: usize) -> impl Iterator<Item = Gradient<'a>> {
        self.asked.iter().flat_map(|a| a.gradients.iter().copied()).filter(move |g| g.metric == round)
    }

    /// A readout's part of the gradient at its site: of the batch's rows; for scores and patterns, of its run's; for states, of its
    /// positions'.
    fn reading(&self, read: &GradientReadout, gradient: &Tensor) -> std::result::Result<Reading, RunError> {
        let first = if pass::is_opened(read.site) { 0 } else { self.row(read.run, 0) };
        let rows: Vec<u32> = match read.site.kind {
            SiteKind::State => (0..read.positions.len() as u32).collect(),
            _ => read.positions.iter().map(|p| (first + p) as u32).collect(),
        };
        let values = ops::to_vec(&gradient.index_select(&Tensor::new(rows, gradient.device())?, 0)?)?;
        let values = values.chunks_exact(gradient.dim(1)?).flat_map(|row| pick(row, &read.columns)).collect();
        let shape = vec![read.positions.len(), read.columns.iter().map(Range::len).sum()];
        Ok(Reading::Array(Array { shape, values }))
    }
}

/// What goes into a layer.
struct Before {
    /// The residual stream. `[rows, d_model]`
    stream: Tensor,
    /// The streams beside it, where there are such. `[rows, (streams - 1) * d_model]`
    others: Option<Tensor>,
}

impl Before {
    fn of(acts: &Acts) -> Result<Before> {
        let stream = acts.get(SiteKind::ResidPre)?.clone();
        Ok(Before { stream, others: acts.loans.get(Lent::Streams).ok().cloned() })
    }
}

/// What a layer reads beside the residual stream before it.
fn borrowed_by(arch: &Arch, l: usize) -> Vec<Lent> {
    let lender = arch.keys_of(l);
    let shared = if lender == l { Vec::new() } else { vec![Lent::Keys(lender), Lent::Values(lender)] };
    // RWKV-7 mixes the values of layer 0 into those of all others.
    let values = arch.layers[l].mixer.reads_first_values().then_some(Lent::Values(0));
    let embed = (arch.per_layer.is_some() || arch.layers[l].reads_embedding()).then_some(Lent::Embed);
    shared.into_iter().chain(embed).chain(values).collect()
}

/// The gradients with respect to what a layer gives, on the way back.
struct Upstream {
    /// The residual stream after it. `[rows, d_model]`
    stream: Tensor,
    /// What later layers read of this one or of those before it, as far as they are done.
    lent: BTreeMap<Lent, Tensor>,
}

impl Upstream {
    /// The gradients of everything that a layer's results were computed from.
    fn pulled(&mut self, output: &Tensor, loans: &Loans, l: usize) -> Result<GradStore> {
        let mut sum = (output * &self.stream)?.sum_all()?;
        for lent in [Lent::Keys(l), Lent::Values(l), Lent::Streams] {
            if let Some(upstream) = self.lent.remove(&lent) {
                let value = loans.get(lent)?;
                let part = (value * moved(&upstream, value.device())?)?.sum_all()?;
                sum = (sum + moved(&part, output.device())?)?;
            }
        }
        sum.backward()
    }

    /// Adds what one layer has of a gradient.
    fn add(&mut self, lent: Lent, more: &Tensor) -> Result<()> {
        let sum = match self.lent.get(&lent) {
            Some(sum) => ops::add(sum, more)?,
            None => more.clone(),
        };
        self.lent.insert(lent, sum);
        Ok(())
    }

    /// The gradient at the embedding, of which `stream` is what came by way of layer 0's residual stream.
    fn at_embed(&self, stream: &Tensor) -> Result<Tensor> {
        self.lent.get(&Lent::Embed).map_or_else(|| Ok(stream.clone()), |more| ops::add(stream, more))
    }
}

/// The gradients of everything that `output` was computed from, given that with respect to `output`.
fn pull(output: &Tensor, upstream: &Tensor) -> Result<GradStore> {
    (output * upstream)?.sum_all()?.backward()
}

/// The gradient with respect to a variable. candle's reverse pass leaves out what it does not reach and reports nothing: a
/// gradient that is not there is an error here, never zeros.
fn gradient_of<'g>(
    grads: &'g GradStore,
    site: Site,
    variable: Option<&Var>,
) -> std::result::Result<&'g Tensor, NoGradient> {
    variable.and_then(|v| grads.get(v)).ok_or(NoGradient { site })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::model::decoder::Hook;
    use crate::plan::Plan;
    use candle_core::{DType, Device};

    #[test]
    fn a_variable_that_the_reverse_pass_did_not_reach_is_an_error_that_names_its_site() -> Result<()> {
        let [reached, cut] = [(); 2].map(|()| Var::ones(3, DType::F32, &Device::Cpu));
        let (reached, cut) = (reached?, cut?);
        // A value that left the graph, as every result of an operation without a gradient has.
        let grads = pull(&(reached.as_tensor() + cut.detach())?, &Tensor::ones(3, DType::F32, &Device::Cpu)?)?;
        assert!(gradient_of(&grads, SiteKind::Z.at(3), Some(&reached)).is_ok());
        for variable in [Some(&cut), None] {
            let error = gradient_of(&grads, SiteKind::Z.at(3), variable).expect_err("a gradient of nothing");
            assert!(error.to_string().contains("z.3"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn a_value_that_lost_its_graph_within_a_layer_stops_the_pass_at_its_site() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama");
        let model = Model::open(dir, &crate::model::Options::default()).expect("a sound model");
        let mut plan = Plan::default();
        let run = plan.prompt("p", vec![1, 2, 3]);
        let angles = Angles::new(&model.decoder, [3]).expect("angles");
        let program = plan.compile(&model.decoder.arch).expect("a sound plan");
        let batch = Batch::new(&model.decoder, &program, &angles, BTreeSet::from([run]), Vec::new());
        let at_q = |tracked: bool| {
            let mut acts = Acts::new(batch.rows.clone());
            acts.put(SiteKind::Q, Tensor::ones((3, 48), DType::F32, &Device::Cpu)?);
            Pass::tapping(&batch, tracked).at(SiteKind::Q.at(2), &mut acts)
        };
        assert!(at_q(false).is_ok());
        let error = at_q(true).expect_err("a broken graph");
        assert!(error.to_string().contains("q.2"), "{error}");
    }
}
