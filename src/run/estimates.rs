//! Estimates of what every edge does, from one prompt to another: [`EdgeEstimate`](crate::plan::EdgeEstimate).
//!
//! A plan of its own ([`passes`]) reads what the writers add in both prompts, and the gradients of the metric at queries, keys,
//! values and MLPs. Then, a layer at a time, each reader's gradient is taken back through its own projection and norm to the stream
//! that it reads, and multiplied by what each earlier writer adds more in the donor. For [`Reader`](EdgeEstimate::Reader) the
//! layer's readers are computed with every writer exchanged: one norm and one projection a writer serve all heads, since the
//! stream that they read is the same, and three rounds of attention tell queries, keys and values apart.
//!
//! Only a layer's gradients and some writers' differences are held at once, and the estimates themselves: 4 bytes an edge.

mod passes;
mod readers;

use super::writers::Writers;
use super::{Engine, Found, Options, RunError, Size, run_program, size};
use crate::model::decoder::{Angles, Decoder};
use crate::plan::{Array, EdgeEstimate, EdgesReadout, Graph, Port, Program, Reader, Reading, Readings, Run, Writer};
use candle_core::{Result, Tensor};
use passes::{Passes, Tap};
use std::collections::{BTreeMap, HashSet};

/// Rows of exchanged streams that are computed at once.
const ROWS: usize = 2048;

/// Computes the readings of a program's readouts of edges.
pub(super) fn read(decoder: &Decoder, program: &Program, options: &Options) -> std::result::Result<Found, RunError> {
    let mut found = Found::new();
    for readouts in alike(program) {
        let first = &readouts[0];
        let passes = Passes::new(program, readouts, &embeds(decoder, program, first)?);
        let inner = passes.plan.compile(&decoder.arch)?;
        let readings = run_program(decoder, &inner, options)?;
        found.extend(Estimating::new(decoder, &inner, &passes, readings, readouts)?.all(options)?);
    }
    Ok(found)
}

/// A run's embedding, and the donor's at the positions that correspond to the run's: where none does, the run's own.
/// `[positions * d_model]` each
fn embeds(decoder: &Decoder, program: &Program, of: &EdgesReadout) -> Result<[Vec<f32>; 2]> {
    let embed = |run: Run| {
        let positions: Vec<u32> = (0..program.length(run) as u32).collect();
        crate::ops::to_vec(&decoder.embed(program.ids(run), &positions)?)
    };
    let (d, own, donor) = (decoder.arch.d_model, embed(of.run)?, embed(of.donor)?);
    let mut theirs = own.clone();
    for (row, from) in theirs.chunks_exact_mut(d).zip(&of.aligned) {
        if let Some(p) = from {
            row.copy_from_slice(&donor[p * d..(p + 1) * d]);
        }
    }
    Ok([own, theirs])
}

/// Readouts that ask for the same but for how.
fn alike<'a>(program: &'a Program) -> impl Iterator<Item = &'a [EdgesReadout<'a>]> {
    let same = |a: &EdgesReadout, b: &EdgesReadout| {
        (a.run, a.donor, &a.positions, &a.aligned) == (b.run, b.donor, &b.positions, &b.aligned) && a.metric == b.metric
    };
    program.edges.chunk_by(same)
}

/// What estimates cost.
pub(super) fn cost(program: &Program, engine: Engine) -> Size {
    let (arch, mut sum) = (program.arch, Size::default());
    let (graph, width) = (Graph::of(arch), arch.d_model);
    for readouts in alike(program) {
        let first = &readouts[0];
        let n = program.length(first.run);
        let passes = Passes::new(program, readouts, &[vec![0.0; n * width], vec![0.0; n * width]]);
        if let Ok(inner) = passes.plan.compile(arch) {
            let inner = size(&inner, engine);
            sum.include(&Size { prompts: 0, forks: 0, ..inner });
        }
        if readouts.iter().any(|r| r.by == EdgeEstimate::Reader) {
            let start = first.positions.first().map_or(0, |at| at.own);
            for layer in 0..arch.n_layers {
                sum.add(arch, layer, start, graph.before(Reader::Mlp { layer }) * (n - start));
            }
        }
    }
    sum
}

/// One pair of prompts, with what its passes read.
struct Estimating<'a> {
    decoder: &'a Decoder,
    passes: &'a Passes,
    readings: Readings,
    readouts: &'a [EdgesReadout<'a>],
    graph: Graph,
    all_writers: Vec<Writer>,
    /// The number of each reader's first edge.
    first_edge: BTreeMap<Reader, usize>,
    writers: Writers<'a>,
    angles: Angles,
    /// How many positions the run has, and the first at which readers read what is exchanged.
    n: usize,
    start: usize,
}

impl<'a> Estimating<'a> {
    fn new(
        decoder: &'a Decoder,
        inner: &'a Program<'a>,
        passes: &'a Passes,
        readings: Readings,
        readouts: &'a [EdgesReadout<'a>],
    ) -> Result<Self> {
        let mut writers = Writers::new(decoder, inner, HashSet::from([passes.base, passes.donor]));
        for (run, site, handle) in &passes.written {
            writers.keep(*run, *site, 0, &of_layer(decoder, site.layer, &readings[*handle])?)?;
        }
        let graph = Graph::of(&decoder.arch);
        let (mut first_edge, mut edges) = (BTreeMap::new(), 0);
        for reader in graph.readers() {
            first_edge.insert(reader, edges);
            edges += graph.before(reader);
        }
        let n = inner.length(passes.base);
        let start = readouts[0].positions.first().map_or(0, |at| at.own);
        let (all_writers, angles) = (graph.writers().collect(), Angles::new(decoder, [n])?);
        Ok(Estimating {
            decoder,
            passes,
            readings,
            readouts,
            graph,
            all_writers,
            first_edge,
            writers,
            angles,
            n,
            start,
        })
    }

    /// The estimates of each readout.
    fn all(&self, options: &Options) -> std::result::Result<Found, RunError> {
        let edges = self.graph.n_edges();
        let mut found = vec![vec![0f32; edges]; self.readouts.len()];
        self.decoder.through(0..self.decoder.arch.n_layers, |l| self.layer(l, options, &mut found))?;
        self.logits(&mut found)?;
        let reading = |values: Vec<f32>| Reading::Array(Array { shape: vec![edges], values });
        Ok(self.readouts.iter().zip(found).map(|(r, values)| (r.readout, reading(values))).collect())
    }

    /// The edges to a layer's readers.
    fn layer(&self, l: usize, options: &Options, found: &mut [Vec<f32>]) -> std::result::Result<(), RunError> {
        let readers: Vec<Reader> = self.graph.readers().filter(|reader| layer_of(*reader) == Some(l)).collect();
        let gradients = self.readouts.iter().map(|readout| self.gradients(l, readout));
        let gradients = gradients.collect::<Result<Vec<_>>>()?;
        let at_once = (ROWS / (self.n - self.start)).max(1);
        let before = self.graph.before(Reader::Mlp { layer: l });
        for from in (0..before).step_by(at_once) {
            let writers = from..before.min(from + at_once);
            let more = self.differences(&self.all_writers[writers.clone()])?;
            for ((readout, gradient), found) in self.readouts.iter().zip(&gradients).zip(found.iter_mut()) {
                let mut put = |reader: Reader, i: usize, value: f32| {
                    if from + i < self.graph.before(reader) {
                        found[self.first_edge[&reader] + from + i] = value;
                    }
                };
                match gradient {
                    Some(gradient) => self.products(&more, gradient, &readers, &mut put)?,
                    None => {
                        self.exchanged(l, &more, &mut put)?;
                        options.advance(writers.len() * (self.n - self.start))?;
                    }
                }
                debug_assert!(readout.by == EdgeEstimate::Reader || gradient.is_some());
            }
        }
        Ok(())
    }

    /// What some writers add more in the donor, 0 where no reader reads it. `[writers, positions * d_model]`, of positions from
    /// `start` on
    fn differences(&self, writers: &[Writer]) -> Result<Tensor> {
        let (d, rows) = (self.decoder.arch.d_model, self.n - self.start);
        let positions = &self.readouts[0].positions;
        let mut values = vec![0f32; writers.len() * rows * d];
        for (writer, values) in writers.iter().zip(values.chunks_exact_mut(rows * d)) {
            let found = self.writers.difference(self.passes.base, self.passes.donor, &[*writer], positions)?;
            for (at, row) in positions.iter().zip(found.chunks_exact(d)) {
                values[(at.own - self.start) * d..][..d].copy_from_slice(row);
            }
        }
        Tensor::from_vec(values, (writers.len(), rows * d), &candle_core::Device::Cpu)
    }

    /// Writers' differences times readers' gradients.
    fn products(
        &self,
        more: &Tensor,
        gradients: &Tensor,
        readers: &[Reader],
        put: &mut dyn FnMut(Reader, usize, f32),
    ) -> Result<()> {
        let products = more.matmul(&gradients.t()?)?.to_vec2::<f32>()?;
        for (i, of_writer) in products.iter().enumerate() {
            readers.iter().zip(of_writer).for_each(|(reader, value)| put(*reader, i, *value));
        }
        Ok(())
    }

    /// The gradients of the metric with respect to what a layer's readers read, for estimates of first order; none for others.
    /// `[readers, positions * d_model]`, of positions from `start` on
    fn gradients(&self, l: usize, readout: &EdgesReadout) -> Result<Option<Tensor>> {
        let taps = match readout.by {
            EdgeEstimate::Reader => return Ok(None),
            EdgeEstimate::Attribution => std::slice::from_ref(&self.passes.tap),
            EdgeEstimate::IntegratedGradients { .. } => &self.passes.path,
        };
        let mut sum: Option<Tensor> = None;
        for tap in taps {
            let of_tap = self.reader_gradients(l, tap)?;
            sum = Some(sum.map_or(Ok(of_tap.clone()), |sum| sum + &of_tap)?);
        }
        sum.map(|sum| sum / taps.len() as f64).transpose()
    }

    /// The edges to the logits.
    fn logits(&self, found: &mut [Vec<f32>]) -> std::result::Result<(), RunError> {
        let first = self.first_edge[&Reader::Logits];
        for (readout, found) in self.readouts.iter().zip(found) {
            let taps: &[Tap] = match readout.by {
                EdgeEstimate::Reader => {
                    let base = self.readings[self.passes.base_metric];
                    for (i, exact) in self.passes.to_logits.iter().enumerate() {
                        found[first + i] = (self.readings[*exact] - base) as f32;
                    }
                    continue;
                }
                EdgeEstimate::Attribution => std::slice::from_ref(&self.passes.tap),
                EdgeEstimate::IntegratedGradients { .. } => &self.passes.path,
            };
            let more = self.differences(&self.all_writers)?;
            for tap in taps {
                let gradient = self.last_rows(&self.readings[tap.last])?;
                let products = more.matmul(&gradient.reshape(((), 1))?)?.flatten_all()?.to_vec1::<f32>()?;
                for (found, product) in found[first..].iter_mut().zip(products) {
                    *found += product / taps.len() as f32;
                }
            }
        }
        Ok(())
    }

    /// The last rows of an array, from `start` on. `[positions, width]`
    fn last_rows(&self, array: &Array) -> Result<Tensor> {
        let width = array.width();
        let values = array.values[self.start * width..].to_vec();
        Tensor::from_vec(values, (self.n - self.start, width), &candle_core::Device::Cpu)
    }
}

/// The layer of a reader; none of the logits.
fn layer_of(reader: Reader) -> Option<usize> {
    match reader {
        Reader::Head { layer, .. } | Reader::Mlp { layer } => Some(layer),
        Reader::Logits => None,
    }
}

/// An array as a tensor where a layer is. `[rows, width]`
fn of_layer(decoder: &Decoder, layer: usize, array: &Array) -> Result<Tensor> {
    let shape = (array.values.len() / array.width(), array.width());
    Tensor::from_vec(array.values.clone(), shape, decoder.places.layer(layer))?.to_dtype(decoder.dtype)
}

/// The readers of a layer's port, in order.
fn heads_of(graph: &Graph, layer: usize, port: Port) -> Vec<Reader> {
    let of_port =
        |reader: &Reader| matches!(reader, Reader::Head { layer: l, port: p, .. } if (*l, *p) == (layer, port));
    graph.readers().filter(of_port).collect()
}
