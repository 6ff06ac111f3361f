//! A layer's readers: the way back from what they give to what they read, and what they give for other streams.

use super::passes::{LayerTap, Tap};
use super::{Estimating, heads_of, of_layer};
use crate::model::decoder::Decoder;
use crate::ops;
use crate::ops::rows::{Rows, Span};
use crate::plan::{Port, Reader};
use crate::site::SiteKind;
use candle_core::{Result, Tensor, Var};
use std::ops::Range;

/// The ports with their sites.
const PORTS: [(Port, SiteKind); 3] = [(Port::Query, SiteKind::Q), (Port::Key, SiteKind::K), (Port::Value, SiteKind::V)];

impl Estimating<'_> {
    /// The gradients with respect to what each reader of a layer reads, in the order of readers. `[readers, positions * d_model]`, of
    /// positions from `start` on, 0 where nothing is exchanged
    pub(super) fn reader_gradients(&self, l: usize, tap: &Tap) -> Result<Tensor> {
        let layer = &tap.layers[l];
        let mut found = Vec::new();
        for ((port, kind), gradient) in PORTS.into_iter().zip(layer.ports) {
            let heads = heads_of(&self.graph, l, port).len();
            let stream = of_layer(self.decoder, l, &self.readings[layer.mixer])?;
            let upstream = of_layer(self.decoder, l, &self.readings[gradient])?;
            found.push(self.exchanged_rows(&by_heads(self.decoder, l, kind, heads, &stream, &upstream)?, heads)?);
        }
        let stream = Var::from_tensor(&of_layer(self.decoder, l, &self.readings[layer.channel])?)?;
        let read_in = self.decoder.read_by_channel(l, &stream)?;
        let upstream = of_layer(self.decoder, l, &self.readings[layer.mlp_in])?;
        found.push(self.exchanged_rows(&pulled(&read_in, &upstream, &stream)?, 1)?);
        Tensor::cat(&found, 0)
    }

    /// Of readers' gradients at all positions, `[readers * positions, d_model]`, those that count.
    fn exchanged_rows(&self, gradients: &Tensor, readers: usize) -> Result<Tensor> {
        let (d, rows) = (self.decoder.arch.d_model, self.n - self.start);
        let values = ops::to_vec(gradients)?;
        let mut kept = vec![0f32; readers * rows * d];
        for (values, kept) in values.chunks_exact(self.n * d).zip(kept.chunks_exact_mut(rows * d)) {
            for at in &self.readouts[0].positions {
                kept[(at.own - self.start) * d..][..d].copy_from_slice(&values[at.own * d..][..d]);
            }
        }
        Tensor::from_vec(kept, (readers, rows * d), &candle_core::Device::Cpu)
    }

    /// The estimates of edges from some writers to a layer's readers, by computing these with the exchanged streams. `more` is what
    /// the writers add more: `[writers, positions * d_model]`, of positions from `start` on.
    pub(super) fn exchanged(&self, l: usize, more: &Tensor, put: &mut dyn FnMut(Reader, usize, f32)) -> Result<()> {
        let layer = &self.passes.tap.layers[l];
        let (writers, d, rows) = (more.dim(0)?, self.decoder.arch.d_model, self.n - self.start);
        let device = self.decoder.places.layer(l);
        let more = more.reshape((writers * rows, d))?.to_dtype(self.decoder.dtype)?.to_device(device)?;
        let streams = |own: &Tensor| ops::add(&own.narrow(0, self.start, rows)?.repeat((writers, 1))?, &more);
        let channel = of_layer(self.decoder, l, &self.readings[layer.channel])?;
        let out = ops::to_vec(&self.decoder.channel_of(l, &streams(&channel)?)?)?;
        self.weigh(&out, layer.mlp_out, &(0..d), &mut |i, value| put(Reader::Mlp { layer: l }, i, value));
        let mixer = of_layer(self.decoder, l, &self.readings[layer.mixer])?;
        self.heads_exchanged(l, layer, &mixer, &streams(&mixer)?, put)
    }

    /// The change of what a reader gives times the gradient there, over the columns that it reaches, for each writer. `given` is
    /// `[writers * positions, width]`, of positions from `start` on.
    fn weigh(
        &self,
        given: &[f32],
        [value, gradient]: [crate::plan::Handle<crate::plan::Array>; 2],
        columns: &Range<usize>,
        put: &mut dyn FnMut(usize, f32),
    ) {
        let (value, gradient) = (&self.readings[value], &self.readings[gradient]);
        let (width, rows) = (value.width(), self.n - self.start);
        let own: Vec<(&[f32], &[f32])> = value.rows().zip(gradient.rows()).skip(self.start).collect();
        for (i, of_writer) in given.chunks_exact(rows * width).enumerate() {
            let mut sum = 0f64;
            for (given, (own, gradient)) in of_writer.chunks_exact(width).zip(&own) {
                let changes = given[columns.clone()].iter().zip(&own[columns.clone()]).zip(&gradient[columns.clone()]);
                sum += f64::from(changes.map(|((given, own), gradient)| (given - own) * gradient).sum::<f32>());
            }
            put(i, sum as f32);
        }
    }

    /// The heads' readers: for each port, `z` with that port's streams exchanged. A head's query reaches that head alone, and a key
    /// or value the heads that share it, so that all heads' readers are told apart by columns; where a norm spans the heads, each
    /// head is exchanged alone.
    fn heads_exchanged(
        &self,
        l: usize,
        layer: &LayerTap,
        own: &Tensor,
        others: &Tensor,
        put: &mut dyn FnMut(Reader, usize, f32),
    ) -> Result<()> {
        let around = self.decoder.around(l, &self.angles);
        let rows = self.rows(others.dim(0)? / (self.n - self.start));
        let (own, others) = (self.decoder.read_by_mixer(l, own)?, self.decoder.read_by_mixer(l, others)?);
        self.decoder.ports(l, |shape, of| {
            let (d, read) = (shape.heads.d_head, shape.heads.d_value());
            // Of each port: the rows as they are, and with those of the writers' streams.
            let project = |kind, x: &Tensor| of.project(shape, kind, x, None);
            let plain = PORTS.map(|(_, kind)| -> Result<[Tensor; 2]> {
                let own = project(kind, &own)?;
                Ok([self.repeated(&own, &rows)?, Tensor::cat(&[&own, &project(kind, &others)?], 0)?])
            });
            let [q, k, v] = plain;
            let raw = [q?, k?, v?];
            let normed = |i: usize, x: &Tensor| of.normed(shape, PORTS[i].1, x, None);
            let kept = [normed(0, &raw[0][0])?, normed(1, &raw[1][0])?, normed(2, &raw[2][0])?];
            for (i, (port, kind)) in PORTS.into_iter().enumerate() {
                let z = |exchanged: Tensor| -> Result<Vec<f32>> {
                    let mut ports = kept.clone();
                    ports[i] = exchanged;
                    let z = of.attended(shape, &around, [&ports[0], &ports[1], &ports[2]], &rows)?;
                    ops::to_vec(&z.narrow(0, self.n, rows.len() - self.n)?)
                };
                let readers = heads_of(&self.graph, l, port);
                let reach = if port == Port::Query { read } else { read * shape.heads.group() };
                if of.norms_across(shape, kind) {
                    for (head, reader) in readers.iter().enumerate() {
                        let given = z(normed(i, &mixed(&raw[i], head * d..(head + 1) * d)?)?)?;
                        let all = 0..shape.heads.n_heads * read;
                        self.weigh(&given, layer.z, &all, &mut |w, value| put(*reader, w, value));
                    }
                    continue;
                }
                let given = z(normed(i, &raw[i][1])?)?;
                for (head, reader) in readers.iter().enumerate() {
                    let columns = head * reach..(head + 1) * reach;
                    self.weigh(&given, layer.z, &columns, &mut |w, value| put(*reader, w, value));
                }
            }
            Ok(())
        })
    }

    /// The prompt's rows, then those from `start` on for each writer, which read the prompt's before them.
    fn rows(&self, writers: usize) -> Rows {
        let each = self.n - self.start;
        let entries = |positions: Range<usize>| positions.map(|p| self.angles.entry(self.n, p));
        let mut rows = Rows { spans: vec![Span::new(0..self.n, 0, Vec::new())], entries: entries(0..self.n).collect() };
        let prefix: Vec<Range<usize>> = std::iter::once(0..self.start).filter(|r| !r.is_empty()).collect();
        for i in 0..writers {
            let from = self.n + i * each;
            rows.spans.push(Span::new(from..from + each, self.start, prefix.clone()));
            rows.entries.extend(entries(self.start..self.n));
        }
        rows
    }

    /// A prompt's rows, and those from `start` on again for every writer.
    fn repeated(&self, own: &Tensor, rows: &Rows) -> Result<Tensor> {
        let each = self.n - self.start;
        let again = own.narrow(0, self.start, each)?.repeat(((rows.len() - self.n) / each, 1))?;
        Tensor::cat(&[own, &again], 0)
    }
}

/// The first of two with some columns of the second.
fn mixed([own, other]: &[Tensor; 2], columns: Range<usize>) -> Result<Tensor> {
    let after = own.dim(1)? - columns.end;
    let parts = [
        own.narrow(1, 0, columns.start)?,
        other.narrow(1, columns.start, columns.len())?,
        own.narrow(1, columns.end, after)?,
    ];
    Tensor::cat(&parts, 1)
}

/// The gradients with respect to the streams that a port's heads read, each its own copy of the run's: only that head's part of
/// the projection is of the copy. `[heads * positions, d_model]`
fn by_heads(
    decoder: &Decoder,
    l: usize,
    kind: SiteKind,
    heads: usize,
    stream: &Tensor,
    upstream: &Tensor,
) -> Result<Tensor> {
    let copies = Var::from_tensor(&stream.repeat((heads, 1))?)?;
    let read_in = decoder.read_by_mixer(l, &copies)?;
    decoder.ports(l, |shape, of| {
        let (n, width) = (stream.dim(0)?, upstream.dim(1)?);
        let d = width / heads;
        if !of.norms_across(shape, kind) {
            let head: Vec<usize> = (0..heads * n).map(|row| row / n).collect();
            let projected = of.project(shape, kind, &read_in, Some(&head))?;
            let upstream: Vec<Tensor> = (0..heads).map(|h| upstream.narrow(1, h * d, d)).collect::<Result<_>>()?;
            let value = of.normed(shape, kind, &projected, Some(&head))?;
            return pulled(&value, &Tensor::cat(&upstream, 0)?, &copies);
        }
        let projected = of.project(shape, kind, &read_in, None)?;
        let own = |i: usize| if i % width / d == i / (n * width) { 1f32 } else { 0.0 };
        let own: Vec<f32> = (0..heads * n * width).map(own).collect();
        let own = Tensor::from_vec(own, (heads * n, width), projected.device())?.to_dtype(projected.dtype())?;
        let as_is = projected.detach();
        let mixed = (&as_is + (&projected - &as_is)? * &own)?;
        pulled(&of.normed(shape, kind, &mixed, None)?, &upstream.repeat((heads, 1))?, &copies)
    })
}

/// The gradient with respect to a variable of what was computed from it, given that with respect to the latter.
fn pulled(output: &Tensor, upstream: &Tensor, of: &Var) -> Result<Tensor> {
    let grads = (output * upstream)?.sum_all()?.backward()?;
    // Where the output does not depend on it there is none.
    grads.get(of).cloned().map_or_else(|| of.zeros_like(), Ok)
}
