//! The sites of a decoder fit together as its definition says, in every family. Together with those that are held to
//! `transformers` ([`crate::parity`]) this leaves no site that could stand under another's name.

use crate::support::{FAMILIES, Golden, assert_close, open};
use candle_core::{Device, Tensor};
use gatelens::model::Model;
use gatelens::model::arch::{Activation, Attention, Channel, Mixer, Mlp, NormKind};
use gatelens::model::weights::{AttentionWeights, LayerWeights, Linear, MlpWeights, NormWeights};
use gatelens::plan::{self, Part, Plan, Positions};
use gatelens::run::{Engine, Options, run};
use gatelens::site::{KINDS, Site, SiteKind};
use std::collections::HashMap;

/// All sites of a prompt.
struct Sites {
    model: Model,
    ids: Vec<u32>,
    values: HashMap<Site, Vec<f32>>,
}

impl Sites {
    fn of(family: &str, engine: Engine) -> Self {
        let (model, ids) = (open(family), Golden::of(family).ids("input_ids", 0));
        let arch = &model.decoder.arch;
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", ids.clone());
        let mut sites: Vec<Site> = KINDS.iter().flat_map(|(kind, _)| (0..arch.n_layers).map(|l| kind.at(l))).collect();
        sites.dedup();
        sites.retain(|site| site.check(arch).is_ok());
        for site in &sites {
            plan.read(prompt, plan::Activation { site: *site, positions: Positions::All, part: Part::All });
        }
        let found = run(&model.decoder, &plan, &Options { engine, ..Options::default() }).expect("readings");
        let values = sites.into_iter().zip(found.into_iter().map(|r| r.into_values())).collect();
        Sites { model, ids, values }
    }

    fn get(&self, kind: SiteKind, layer: usize) -> &[f32] {
        &self.values[&kind.at(layer)]
    }

    /// The rows of a site, one a position.
    fn rows(&self, kind: SiteKind, layer: usize) -> impl Iterator<Item = &[f32]> {
        let values = self.get(kind, layer);
        values.chunks_exact(values.len() / self.ids.len())
    }

    /// A site through a layer's matrix, by its bias too.
    fn through(&self, kind: SiteKind, layer: usize, linear: &Linear) -> Vec<f32> {
        let values = self.get(kind, layer).to_vec();
        let shape = (self.ids.len(), values.len() / self.ids.len());
        let x = Tensor::from_vec(values, shape, &Device::Cpu).expect("a matrix");
        linear.apply(&x).and_then(|y| y.flatten_all()).and_then(|y| y.to_vec1()).expect("a product")
    }

    /// A site through a norm; itself where the family has none there.
    fn normed(&self, kind: SiteKind, layer: usize, norm: Option<&NormWeights>) -> Vec<f32> {
        let Some(norm) = norm else { return self.get(kind, layer).to_vec() };
        let numbers = |t: &Tensor| t.to_vec1::<f32>().expect("numbers");
        let (weight, bias) = (numbers(&norm.weight), norm.bias.as_ref().map(numbers));
        let mut out = Vec::new();
        for row in self.rows(kind, layer) {
            let mean = if norm.by.kind == NormKind::Layer { mean(row.iter().copied()) } else { 0.0 };
            let centred: Vec<f64> = row.iter().map(|v| f64::from(*v) - mean).collect();
            let scale = (centred.iter().map(|v| v * v).sum::<f64>() / row.len() as f64 + norm.by.eps).sqrt();
            let added = |i: usize| bias.as_ref().map_or(0.0, |b| b[i]);
            out.extend(centred.iter().enumerate().map(|(i, v)| (v / scale) as f32 * weight[i] + added(i)));
        }
        out
    }
}

fn attention(sites: &Sites, layer: usize) -> Attention {
    match sites.model.decoder.arch.layers[layer].mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("{other:?}"),
    }
}

fn mlp(sites: &Sites, layer: usize) -> Mlp {
    match sites.model.decoder.arch.layers[layer].channel {
        Channel::Mlp(mlp) => mlp,
        other => panic!("{other:?}"),
    }
}

fn projections(w: &LayerWeights) -> &AttentionWeights {
    w.mixer.attention().expect("attention")
}

fn matrices(w: &LayerWeights) -> &MlpWeights {
    w.channel.mlp().expect("an MLP")
}

fn mean(x: impl ExactSizeIterator<Item = f32>) -> f64 {
    let n = x.len() as f64;
    x.map(f64::from).sum::<f64>() / n
}

fn sum(x: &[f32], y: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(a, b)| a + b).collect()
}

/// The error function, by its series.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn activated(x: f32, activation: Activation) -> f32 {
    let x = f64::from(x);
    (match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            x * 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        // The families of these tests have no other.
        other => panic!("{other:?}"),
    }) as f32
}

/// Holds a site to what others make of it.
#[track_caller]
fn same(what: &str, found: &[f32], expected: &[f32]) {
    let size = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
    assert_close(what, found, expected, 2e-5 * size.max(0.05), 2e-5);
}

fn each_layer(check: impl Fn(&str, &Sites, usize, &LayerWeights)) {
    for family in FAMILIES {
        for engine in [Engine::Wavefront, Engine::Full] {
            let sites = Sites::of(family, engine);
            for l in 0..sites.model.decoder.arch.n_layers {
                let weights = sites.model.decoder.weights(l).expect("weights");
                check(&format!("{family}, {engine}, layer {l}"), &sites, l, &weights);
            }
        }
    }
}

use SiteKind::*;

#[test]
fn queries_and_keys_are_projections_of_what_attention_reads_and_are_rotated_by_their_position() {
    each_layer(|at, sites, l, w| {
        let (arch, shape, own) = (&sites.model.decoder.arch, attention(sites, l), projections(w));
        same(&format!("{at}: attn_in"), sites.get(AttnIn, l), &sites.normed(ResidPre, l, w.attn_norm.as_ref()));
        same(&format!("{at}: v"), sites.get(V, l), &sites.through(AttnIn, l, own.v.as_ref().expect("values")));
        let k = own.k.as_ref().expect("keys");
        for (kind, rotated, linear, norm) in [(Q, RotQ, &own.q, &own.q_norm), (K, RotK, k, &own.k_norm)] {
            if norm.is_none() {
                same(&format!("{at}: {kind}"), sites.get(kind, l), &sites.through(AttnIn, l, linear));
            }
            let Some(rope) = shape.rope.map(|rope| &arch.ropes[rope]) else { continue };
            let factor = rope.angles(rope.regime(sites.ids.len()), 1).cos[0];
            for (p, (x, y)) in sites.rows(kind, l).zip(sites.rows(rotated, l)).enumerate() {
                for (x, y) in x.chunks_exact(shape.heads.d_head).zip(y.chunks_exact(shape.heads.d_head)) {
                    let turned = 2 * rope.pairs();
                    same(&format!("{at}: what {rotated} leaves"), &y[turned..], &x[turned..]);
                    // Position 0 is turned by no angle, the others by some.
                    let stretched: Vec<f32> = x[..turned].iter().map(|v| v * factor).collect();
                    if p == 0 {
                        same(&format!("{at}: {rotated} at position 0"), &y[..turned], &stretched);
                    } else {
                        let norm = |x: &[f32]| [x.iter().map(|v| v * v).sum::<f32>().sqrt()];
                        same(&format!("{at}: size of {rotated}"), &norm(&y[..turned]), &norm(&stretched));
                        assert_ne!(y[..turned], stretched, "{at}: {rotated} at position {p}");
                    }
                }
            }
        }
    });
}

#[test]
fn scores_are_queries_by_keys_patterns_their_softmax_and_z_what_is_read_by_it() {
    each_layer(|at, sites, l, _| {
        let shape = attention(sites, l);
        let heads = shape.heads;
        let (n, d, window) = (sites.ids.len(), heads.d_head, heads.window);
        let (q, k) = if shape.rope.is_none() { (Q, K) } else { (RotQ, RotK) };
        let (keys, values) = (sites.rows(k, l).collect::<Vec<_>>(), sites.rows(V, l).collect::<Vec<_>>());
        let rows = sites.rows(q, l).zip(sites.rows(Scores, l)).zip(sites.rows(Pattern, l).zip(sites.rows(Z, l)));
        for (i, ((q, scores), (pattern, z))) in rows.enumerate() {
            for h in 0..heads.n_heads {
                let of_head = |x: &[f32], h: usize| x[h * d..(h + 1) * d].to_vec();
                let (q, kv) = (of_head(q, h), h / heads.group());
                let score = |j: usize| {
                    if j > i || window.is_some_and(|w| i - j >= w) {
                        return f32::NEG_INFINITY;
                    }
                    let dot: f64 = q.iter().zip(of_head(keys[j], kv)).map(|(q, k)| f64::from(q * k)).sum();
                    let score = dot * heads.scale;
                    heads.softcap.map_or(score, |cap| (score / cap).tanh() * cap) as f32
                };
                let (scores, pattern) = (&scores[h * n..(h + 1) * n], &pattern[h * n..(h + 1) * n]);
                for (j, found) in scores.iter().enumerate() {
                    let expected = score(j);
                    assert!(*found == expected || (found - expected).abs() < 1e-4, "{at}: score {i}, {j} of head {h}");
                }
                let total: f32 = scores.iter().map(|s| s.exp()).sum();
                let softmax: Vec<f32> = scores.iter().map(|s| s.exp() / total).collect();
                assert_close(&format!("{at}: pattern"), pattern, &softmax, 1e-5, 1e-5);
                let mut read = vec![0f32; d];
                for (share, value) in pattern.iter().zip(&values) {
                    read.iter_mut().zip(of_head(value, kv)).for_each(|(to, v)| *to += share * v);
                }
                same(&format!("{at}: z"), &of_head(z, h), &read);
            }
        }
    });
}

#[test]
fn heads_sum_to_what_attention_puts_out_and_deltas_to_the_residual_stream() {
    each_layer(|at, sites, l, w| {
        let (arch, o) = (&sites.model.decoder.arch, &projections(w).o);
        let d = arch.d_model;
        let bias = o.bias.as_ref().map(|b| b.to_vec1::<f32>().expect("a bias"));
        let mut heads = Vec::new();
        for row in sites.rows(HeadOut, l) {
            let of = |i: usize| (0..arch.n_heads).map(|h| row[h * d + i]).sum::<f32>();
            heads.extend((0..d).map(|i| of(i) + bias.as_ref().map_or(0.0, |b| b[i])));
        }
        same(&format!("{at}: attn_out of heads"), sites.get(AttnOut, l), &heads);
        same(&format!("{at}: attn_out"), sites.get(AttnOut, l), &sites.through(Z, l, o));
        for (out, delta, norm) in [(AttnOut, AttnDelta, &w.attn_post_norm), (MlpOut, MlpDelta, &w.mlp_post_norm)] {
            same(&format!("{at}: {delta}"), sites.get(delta, l), &sites.normed(out, l, norm.as_ref()));
        }
        let mid = sum(sites.get(ResidPre, l), sites.get(AttnDelta, l));
        if !arch.parallel {
            same(&format!("{at}: resid_mid"), sites.get(ResidMid, l), &mid);
        }
        same(&format!("{at}: resid_post"), sites.get(ResidPost, l), &sum(&mid, sites.get(MlpDelta, l)));
        let before = if l == 0 { sites.get(Embed, 0) } else { sites.get(ResidPost, l - 1) };
        assert_eq!(sites.get(ResidPre, l), before, "{at}");
    });
}

#[test]
fn neurons_are_the_activated_gate_times_what_it_gates() {
    each_layer(|at, sites, l, w| {
        let (arch, shape, w_mlp) = (&sites.model.decoder.arch, mlp(sites, l), matrices(w));
        let read = if arch.parallel { ResidPre } else { ResidMid };
        same(&format!("{at}: mlp_in"), sites.get(MlpIn, l), &sites.normed(read, l, w.mlp_norm.as_ref()));
        same(&format!("{at}: mlp_pre"), sites.get(MlpPre, l), &sites.through(MlpIn, l, &w_mlp.up));
        let act = |x: &f32| activated(*x, shape.activation);
        let neurons: Vec<f32> = match (shape.gated, &w_mlp.gate) {
            (true, Some(gate)) => {
                same(&format!("{at}: mlp_gate"), sites.get(MlpGate, l), &sites.through(MlpIn, l, gate));
                sites.get(MlpGate, l).iter().zip(sites.get(MlpPre, l)).map(|(gate, pre)| act(gate) * pre).collect()
            }
            _ => sites.get(MlpPre, l).iter().map(act).collect(),
        };
        same(&format!("{at}: mlp_act"), sites.get(MlpAct, l), &neurons);
        same(&format!("{at}: mlp_out"), sites.get(MlpOut, l), &sites.through(MlpAct, l, &w_mlp.down));
    });
}

#[test]
fn logits_are_the_final_norm_through_the_unembedding() {
    for family in FAMILIES {
        for engine in [Engine::Wavefront, Engine::Full] {
            let sites = Sites::of(family, engine);
            let decoder = &sites.model.decoder;
            let tokens: Vec<u32> = (0..decoder.arch.vocab as u32).collect();
            let rows: Vec<Vec<f32>> = decoder.unembedding(&tokens).and_then(|t| t.to_vec2()).expect("the unembedding");
            let logit = |normed: &[f32], row: &[f32]| {
                let dot: f64 = normed.iter().zip(row).map(|(a, b)| f64::from(a * b)).sum();
                decoder.arch.logit_softcap.map_or(dot, |cap| (dot / cap).tanh() * cap) as f32
            };
            let expected: Vec<f32> =
                sites.rows(FinalNorm, 0).flat_map(|normed| rows.iter().map(move |row| logit(normed, row))).collect();
            same(&format!("{family}, {engine}: logits"), sites.get(Logits, 0), &expected);
        }
    }
}
