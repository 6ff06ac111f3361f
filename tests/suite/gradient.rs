//! Gradients are what small changes at a site do to a metric.

use crate::support::copies::Folder;
use crate::support::{FAMILIES, Golden, family_dir, open, other_families};
use candle_core::DType;
use gatelens::model::arch::{Activation as Activations, Channel, Layer, Mlp};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Activation, Change, Edit, Gradient, Metric, Part, Plan, Positions, Run, What};
use gatelens::run::{Array, Engine, Options, Reading, Told, run, size};
use gatelens::site::{KINDS, Site, SiteKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longer than the sliding windows of the fixtures.
const IDS: [u32; 9] = [17, 3, 142, 88, 9, 61, 120, 45, 77];

fn difference() -> Metric {
    Metric::logit_difference(vec![11, 40], vec![23])
}

fn metrics() -> [Metric; 2] {
    [difference(), Metric::Continuation { from: 3 }]
}

/// Numbers between -1 and 1 that a seed decides.
fn numbers(seed: usize, n: usize) -> Vec<f32> {
    let mut state = 2 * seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    // The first few are near each other whatever the seed.
    (0..n + 7).map(|_| next()).skip(7).collect()
}

fn readings_by(model: &Model, plan: &Plan, options: &Options) -> Vec<Reading> {
    run(&model.decoder, plan, options).unwrap_or_else(|e| panic!("{e}")).into_inner()
}

fn readings(model: &Model, plan: &Plan) -> Vec<Reading> {
    readings_by(model, plan, &Options::default())
}

/// Every kind of site that a model has, in these layers.
fn sites(model: &Model, layers: &[usize]) -> Vec<Site> {
    let arch = &model.decoder.arch;
    let mut sites: Vec<Site> = KINDS.iter().flat_map(|(kind, _)| layers.iter().map(|l| kind.at(*l))).collect();
    sites.dedup();
    sites.retain(|site| site.check(arch).is_ok());
    sites
}

fn gradient(metric: Metric, site: Site, positions: Positions) -> What {
    What::Gradient(Gradient { metric, site, positions, part: Part::All })
}

fn edit(site: Site, positions: Positions, change: Change) -> Edit {
    Edit { site, part: Part::All, positions, change }
}

fn inner(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

// ---- Finite differences -------------------------------------------------------------------------------------------

/// A gradient to be held to differences.
struct Case {
    run: Run,
    site: Site,
    metric: Metric,
    positions: Vec<usize>,
}

/// Holds gradients of runs that `make` adds to a plan to what the metric does when random vectors are added at their sites.
///
/// A random direction `d` is decided over all numbers of the site, each `d_i` in proportion to the site's size; the slope
/// along it is a sum of terms `g_i d_i` of either sign, as large as the root of the sum of their squares: the *scale*.
/// A formula that is wrong anywhere is off by its share of the scale. Differences are Richardson's, whose error falls with
/// the fourth power of the step; their f32 noise, about 1e-6 nats, weighs as much less as the step is longer. Steps that
/// change the metric by about 0.005 nats, but are at most 3 % of the site's size, leave under 0.3 % of the scale of the one
/// and a few times 1e-6 nats of the other. Where that would decide nothing the test fails too.
#[track_caller]
fn hold(what: &str, model: &Model, make: &dyn Fn(&mut Plan) -> Vec<Case>) {
    hold_by(1.0, what, model, make);
}

/// [`hold`] by steps that are so much shorter: where a model cuts numbers off, or chooses experts, a long one takes it over an edge.
/// Where the noise of short ones would decide, nothing is held.
#[track_caller]
fn hold_by(shorter: f64, what: &str, model: &Model, make: &dyn Fn(&mut Plan) -> Vec<Case>) {
    let mut plan = Plan::default();
    let cases = make(&mut plan);
    for case in &cases {
        let positions = Positions::At(case.positions.clone());
        plan.read(case.run, Activation { site: case.site, positions: positions.clone(), part: Part::All });
        plan.read(case.run, gradient(case.metric.clone(), case.site, positions));
    }
    let found = readings(model, &plan);
    let mut plan = Plan::default();
    make(&mut plan);
    let mut expected = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let (value, gradient) = (found[2 * i].values(), found[2 * i + 1].values());
        // Scores that are minus infinity have no size.
        let finite: Vec<f32> = value.iter().copied().filter(|v| v.is_finite()).collect();
        let size = (inner(&finite, &finite) / finite.len() as f64).sqrt() as f32;
        for seed in [2 * i, 2 * i + 1] {
            let direction: Vec<f32> = numbers(seed, value.len()).iter().map(|x| x * size).collect();
            let terms: Vec<f32> = gradient.iter().zip(&direction).map(|(g, d)| g * d).collect();
            let scale = inner(&terms, &terms).sqrt();
            let h = ((0.005 / scale).clamp(0.004, 0.03) / shorter) as f32;
            for steps in [1.0, -1.0, 2.0, -2.0] {
                let moved = direction.chunks_exact(value.len() / case.positions.len());
                let add = |(p, vector): (&usize, &[f32])| {
                    let change = Change::Add { vector: vector.into(), coefficient: steps * h };
                    edit(case.site, Positions::At(vec![*p]), change)
                };
                let fork = plan.fork(case.run, case.positions.iter().zip(moved).map(add).collect());
                plan.read(fork, What::Metric(case.metric.clone()));
            }
            expected.push((case, inner(&gradient, &direction), scale, f64::from(h)));
        }
    }
    let found = readings(model, &plan);
    for ((case, slope, scale, h), f) in expected.into_iter().zip(found.chunks_exact(4)) {
        let f: Vec<f64> = f.iter().map(|r| r.number().expect("a metric")).collect();
        let measured = (8.0 * (f[0] - f[1]) - (f[2] - f[3])) / (12.0 * h);
        let share = if shorter > 1.0 { 0.15 } else { 3e-3 };
        let tolerance = share * scale + 1.5e-6 / h;
        if shorter > 1.0 && tolerance > 0.25 * scale {
            continue;
        }
        let at = format!("{what}, {} of {:?} by {:?}", case.site, case.run, case.metric);
        assert!((slope - measured).abs() <= tolerance, "{at}: {slope}, not {measured}, within {tolerance}");
        assert!(
            tolerance < 0.05 * scale || shorter > 1.0,
            "{at}: differences of {scale} within {tolerance} decide nothing"
        );
    }
}

#[test]
fn gradients_equal_finite_differences_at_every_site_of_every_family() {
    for family in FAMILIES {
        let model = open(family);
        let sites = sites(&model, &[0, model.decoder.arch.n_layers - 1]);
        hold(family, &model, &|plan| {
            let prompt = plan.prompt("p", IDS.to_vec());
            let case = |(site, metric): (Site, Metric)| {
                // Logits are read at the last position, or at those before the continuation's.
                let positions = if site.kind == SiteKind::Logits { vec![2, 7, 8] } else { vec![4, 8] };
                Case { run: prompt, site, metric, positions }
            };
            sites.iter().flat_map(|s| metrics().map(|m| (*s, m))).map(case).collect()
        });
    }
}

#[test]
fn gradients_equal_finite_differences_at_every_site_of_every_other_family() {
    for family in other_families() {
        let model = open(&family);
        let arch = &model.decoder.arch;
        let sites = sites(&model, &(0..arch.n_layers).collect::<Vec<_>>());
        let has_edges = |layer: &Layer| {
            let clipped = layer.mixer.attention().is_some_and(|attention| attention.clip.is_some());
            let edge = |mlp: Mlp| mlp.activation == Activations::Relu || mlp.cut.is_some();
            let cut = matches!(layer.channel, Channel::Mlp(mlp) if edge(mlp));
            clipped || cut || matches!(layer.channel, Channel::Experts(_))
        };
        let shorter = if arch.layers.iter().any(has_edges) { 12.0 } else { 1.0 };
        hold_by(shorter, &family, &model, &|plan| {
            let prompt = plan.prompt("p", IDS.map(|id| (5 * id + 2) % arch.vocab as u32).to_vec());
            let case = |site: &Site| {
                let positions = if site.kind == SiteKind::Logits { vec![8] } else { vec![4, 8] };
                Case { run: prompt, site: *site, metric: difference(), positions }
            };
            sites.iter().map(case).collect()
        });
    }
}

#[test]
fn gradients_go_back_by_way_of_every_stream_of_several() {
    // Without the cuts of its gates, at whose edges differences say less.
    let folder = Folder::of("families/gemma3n").config(|c| c["activation_sparsity_pattern"] = vec![0.0; 4].into());
    let options = ModelOptions::default();
    let model = Model::open(folder.path().to_str().expect("UTF-8"), &options).expect("a model without cuts");
    let sites = sites(&model, &[0, 1, 2, 3]);
    hold("gemma3n without cuts", &model, &|plan| {
        let prompt = plan.prompt("p", IDS.map(|id| (5 * id + 2) % 64).to_vec());
        let case = |site: &Site| {
            let positions = if site.kind == SiteKind::Logits { vec![8] } else { vec![4, 8] };
            Case { run: prompt, site: *site, metric: difference(), positions }
        };
        sites.iter().map(case).collect()
    });
}

#[test]
fn the_gradient_of_half_of_a_difference_is_what_small_changes_do_to_it() {
    for family in ["llama", "gemma2", "gpt2"] {
        let model = open(family);
        let sites = sites(&model, &[model.decoder.arch.n_layers - 1]);
        hold(family, &model, &|plan| {
            let prompt = plan.prompt("p", IDS.to_vec());
            let metric = Metric::AboveMean { tokens: vec![11, 40] };
            let case = |site: &Site| Case { run: prompt, site: *site, metric: metric.clone(), positions: vec![8] };
            sites.iter().map(case).collect()
        });
    }
}

/// A fork with edits of every kind, at many sites, and what it takes from another.
fn edited(plan: &mut Plan, model: &Model) -> Run {
    let arch = &model.decoder.arch;
    let prompt = plan.prompt("p", IDS.to_vec());
    let other = plan.prompt("other", vec![5, 99, 31, 8, 150, 2, 66, 101, 14]);
    let at = |list: &[usize]| Positions::At(list.to_vec());
    let vector = |seed: usize, n: usize| -> Arc<[f32]> { numbers(seed, n).into() };
    let d = arch.d_model;
    let clamp = Change::Clamp { low: -0.02, high: 0.05 };
    let aside = edit(SiteKind::V.at(1), Positions::Last, Change::Scale(1.7));
    let donor = plan.fork(other, vec![aside]);
    let from = |donor: Run, list: &[usize]| Change::Interchange { donor, positions: Some(list.to_vec()) };
    let heads = |edit: Edit, heads: &[usize]| Edit { part: Part::Heads(heads.to_vec()), ..edit };
    let edits = vec![
        edit(SiteKind::Embed.at(0), at(&[1]), Change::Set(vector(1, d))),
        heads(edit(SiteKind::Pattern.at(1), at(&[6, 8]), Change::interchange(donor)), &[1]),
        heads(edit(SiteKind::Scores.at(2), at(&[5, 7]), Change::Scale(0.5)), &[0, 2]),
        heads(edit(SiteKind::Z.at(1), at(&[4]), Change::Zero), &[2]),
        heads(edit(SiteKind::Z.at(2), at(&[3, 8]), from(donor, &[8, 2])), &[0]),
        heads(edit(SiteKind::HeadOut.at(1), at(&[8]), Change::Scale(-0.5)), &[1]),
        // Of few neurons, so that no step of a difference takes one over an edge.
        Edit { part: Part::Columns((0..8).collect()), ..edit(SiteKind::MlpAct.at(1), at(&[5]), clamp) },
        edit(SiteKind::MlpOut.at(2), at(&[8]), Change::ProjectOut(vector(2, d))),
        edit(SiteKind::ResidPost.at(2), at(&[6]), Change::Add { vector: vector(3, d), coefficient: 0.1 }),
        edit(SiteKind::FinalNorm.at(0), at(&[3, 8]), Change::ProjectOut(vector(4, d))),
        Edit { part: Part::Columns((0..40).collect()), ..edit(SiteKind::Logits.at(0), at(&[8]), Change::Scale(0.9)) },
    ];
    plan.fork(prompt, edits)
}

#[test]
fn gradients_of_a_fork_pass_through_its_edits() {
    for family in ["llama", "gpt2", "gpt_neox", "gemma2"] {
        let model = open(family);
        hold(family, &model, &|plan| {
            let fork = edited(plan, &model);
            let sites = [
                SiteKind::Embed.at(0),
                SiteKind::Z.at(1),
                SiteKind::Pattern.at(1),
                SiteKind::HeadOut.at(1),
                SiteKind::MlpAct.at(1),
                SiteKind::ResidPre.at(2),
                SiteKind::ResidPost.at(2),
                SiteKind::FinalNorm.at(0),
                SiteKind::Logits.at(0),
            ];
            let case = |(site, metric): (Site, Metric)| Case { run: fork, site, metric, positions: vec![2, 5, 7, 8] };
            sites.into_iter().flat_map(|s| metrics().map(|m| (s, m))).map(case).collect()
        });
    }
}

/// What mixes a position with those before it beside the state reads: the convolution, or the token shift.
fn read_beside(model: &Model, layer: usize) -> Site {
    let convolution = SiteKind::ConvIn.at(layer);
    if convolution.check(&model.decoder.arch).is_ok() { convolution } else { SiteKind::AttnIn.at(layer) }
}

/// A fork with edits of states and of what is read beside them, and what it takes from another whose states are edited.
fn edited_states(plan: &mut Plan, model: &Model) -> Run {
    let arch = &model.decoder.arch;
    let prompt = plan.prompt("p", IDS.map(|id| id % arch.vocab as u32).to_vec());
    let other = plan.prompt("other", vec![5, 43, 31, 8, 50, 2, 61, 11]);
    let at = |list: &[usize]| Positions::At(list.to_vec());
    let from = |donor: Run, list: &[usize]| Change::Interchange { donor, positions: Some(list.to_vec()) };
    let part = |edit: Edit, columns: std::ops::Range<usize>| Edit { part: Part::Columns(columns.collect()), ..edit };
    let (state, read) = (|l: usize| SiteKind::State.at(l), |l: usize| read_beside(model, l));
    let wide = state(1).width(arch, 9);
    let vector: Arc<[f32]> = numbers(1, wide).into();
    let donor = plan.fork(other, vec![edit(state(1), at(&[2, 4]), Change::Scale(1.7))]);
    let edits = vec![
        part(edit(state(0), at(&[3]), Change::Zero), 0..wide / 2),
        edit(read(1), at(&[6]), from(donor, &[1])),
        part(edit(state(1), at(&[5, 7]), from(donor, &[4, 6])), wide / 4..wide),
        edit(state(1), at(&[2]), Change::ProjectOut(vector.clone())),
        edit(state(1), at(&[6]), Change::Add { vector, coefficient: 0.05 }),
        edit(state(1), Positions::Last, Change::Scale(0.8)),
    ];
    plan.fork(prompt, edits)
}

#[test]
fn gradients_of_a_fork_pass_through_its_edits_of_states() {
    for family in ["mamba", "mamba2", "qwen3_5", "recurrent_gemma", "rwkv4"] {
        let family = format!("families/{family}");
        let model = open(&family);
        hold(&family, &model, &|plan| {
            let fork = edited_states(plan, &model);
            let all =
                |l: usize| [SiteKind::ResidPre.at(l), read_beside(&model, l), SiteKind::State.at(l), SiteKind::Z.at(l)];
            let sites = [0, 1].into_iter().flat_map(all);
            let case = |(site, metric): (Site, Metric)| Case { run: fork, site, metric, positions: vec![2, 5, 7, 8] };
            sites.flat_map(|s| metrics().map(|m| (s, m))).map(case).collect()
        });
    }
}

#[test]
fn a_gradient_foretells_what_a_small_interchange_does() {
    let model = open("qwen3");
    let mut plan = Plan::default();
    let clean = plan.prompt("clean", IDS.to_vec());
    let vector: Arc<[f32]> = numbers(5, model.decoder.arch.d_model).into();
    let z = SiteKind::Z.at(1);
    let of = |edit: Edit| Edit { part: Part::Heads(vec![2]), ..edit };
    let read = |run: Run| (run, Activation { site: z, positions: Positions::All, part: Part::Heads(vec![2]) });
    let (part, positions) = (Part::Heads(vec![2]), Positions::All);
    plan.read(clean, Gradient { metric: difference(), site: z, positions, part });
    plan.read(read(clean).0, read(clean).1);
    plan.read(clean, What::Metric(difference()));
    for coefficient in [0.02, 0.01] {
        let change = Change::Add { vector: vector.clone(), coefficient };
        let near = plan.fork(clean, vec![edit(SiteKind::Embed.at(0), Positions::All, change)]);
        let swapped = plan.fork(clean, vec![of(edit(z, Positions::All, Change::interchange(near)))]);
        plan.read(near, read(near).1);
        plan.read(swapped, What::Metric(difference()));
    }
    let found = readings(&model, &plan);
    let (slopes, base) = (found[0].values(), found[1].values());
    let clean = found[2].number().expect("a metric");
    let errors: Vec<(f64, f64)> = found[3..]
        .chunks_exact(2)
        .map(|r| {
            let moved: Vec<f32> = r[0].values().iter().zip(&base).map(|(a, b)| a - b).collect();
            let effect = r[1].number().expect("a metric") - clean;
            ((inner(&slopes, &moved) - effect).abs(), effect.abs())
        })
        .collect();
    // What is left is of second order: half the step, a quarter of the error.
    assert!(errors[0].0 < 0.1 * errors[0].1, "{errors:?}");
    assert!(errors[1].0 < 0.35 * errors[0].0, "{errors:?}");
}

// ---- The same whatever goes along ---------------------------------------------------------------------------------

/// A plan of prompts of unlike lengths and forks of them, in which gradients are read of each, and other things besides.
fn mixed(model: &Model) -> Plan {
    let mut plan = Plan::default();
    let fork = edited(&mut plan, model);
    let short = plan.prompt("short", vec![4, 5]);
    let long = plan.prompt("long", (0..30).map(|i| i * 5 % 160).collect());
    let swap = edit(SiteKind::ResidMid.at(2), Positions::Last, Change::interchange(long));
    let swap = if model.decoder.arch.parallel { Edit { site: SiteKind::MlpIn.at(2), ..swap } } else { swap };
    let swapped = plan.fork(short, vec![swap]);
    for (i, run) in [long, fork, short, swapped, Run::Prompt(0)].into_iter().enumerate() {
        for (l, kind) in [(3, SiteKind::Z), (i % 3, SiteKind::MlpAct), (2, SiteKind::Pattern), (0, SiteKind::Logits)] {
            plan.read(run, gradient(difference(), kind.at(l), Positions::All));
        }
        plan.read(run, gradient(Metric::Continuation { from: 1 }, SiteKind::V.at(1), Positions::Last));
        plan.read(run, What::Metric(difference()));
    }
    plan
}

/// The first gradient that is off by more than `tolerance`, and as much again of its size.
fn apart(plan: &Plan, found: &[Reading], expected: &[Reading], tolerance: f32) -> Option<String> {
    assert_eq!((found.len(), expected.len()), (plan.readouts.len(), plan.readouts.len()));
    let gradients = plan.readouts.iter().zip(found.iter().zip(expected));
    gradients.filter(|(r, _)| matches!(r.what, What::Gradient(_))).find_map(|(readout, (f, e))| {
        let (f, e) = (f.values(), e.values());
        assert_eq!(f.len(), e.len());
        let near = |(f, e): (&f32, &f32)| (f - e).abs() <= tolerance + tolerance * e.abs();
        let at = f.iter().zip(&e).position(|pair| !near(pair))?;
        Some(format!("number {at} of {} is {}, not {}: {readout:?}", f.len(), f[at], e[at]))
    })
}

#[test]
fn gradients_do_not_depend_on_the_batch_nor_on_the_engine() {
    for family in FAMILIES {
        let model = open(family);
        let plan = mixed(&model);
        let expected = readings(&model, &plan);
        for budget in [1, 200_000, usize::MAX] {
            let found = readings_by(&model, &plan, &Options { budget, ..Options::default() });
            assert_eq!(apart(&plan, &found, &expected, 0.0), None, "{family}, {budget}");
        }
        let full = readings_by(&model, &plan, &Options { engine: Engine::Full, ..Options::default() });
        assert_eq!(apart(&plan, &full, &expected, 0.0), None, "{family}");
    }
}

#[test]
fn gradients_read_one_at_a_time_are_those_read_together() {
    for family in ["llama", "gemma3", "gpt_neox"] {
        let model = open(family);
        let plan = mixed(&model);
        let together = readings(&model, &plan);
        for (readout, expected) in plan.readouts.iter().zip(together) {
            let alone = Plan { readouts: vec![readout.clone()], ..plan.clone() };
            let found = readings_by(&model, &alone, &Options { engine: Engine::Full, ..Options::default() });
            // A run whose pattern is looked at goes through attention step by step, which rounds in its own way.
            assert_eq!(apart(&alone, &found, &[expected], 1e-6), None, "{family}");
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let model = open("gemma2");
    let plan = mixed(&model);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let (found, expected) = (pool.install(|| readings(&model, &plan)), readings(&model, &plan));
    assert_eq!(apart(&plan, &found, &expected, 0.0), None);
}

#[test]
fn streamed_weights_give_the_same_gradients_bit_for_bit_in_every_family() {
    for family in FAMILIES {
        let resident = open(family);
        let dir = family_dir(family);
        let options = ModelOptions { max_memory: Some(1000), ..ModelOptions::default() };
        let streamed = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
        assert!(streamed.decoder.streamed());
        let plan = mixed(&resident);
        // Small batches go through the layers and back several times.
        for budget in [1, usize::MAX] {
            let readings = |model: &Model| readings_by(model, &plan, &Options { budget, ..Options::default() });
            assert_eq!(apart(&plan, &readings(&streamed), &readings(&resident), 0.0), None, "{family}");
        }
    }
}

#[test]
fn a_part_of_a_gradient_is_that_part_of_the_whole() {
    let model = open("llama");
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", IDS.to_vec());
    let mut read = |site: Site, positions: Positions, part: Part| {
        plan.read(prompt, Gradient { metric: metrics()[1].clone(), site, positions, part })
    };
    let (q, logits) = (SiteKind::Q.at(1), SiteKind::Logits.at(0));
    read(q, Positions::All, Part::All);
    read(q, Positions::At(vec![7, 2]), Part::Heads(vec![3, 1]));
    read(logits, Positions::All, Part::All);
    read(logits, Positions::At(vec![7, 2]), Part::Columns(vec![159, 45]));
    let found = readings(&model, &plan);
    let shape = |i: usize| if let Reading::Array(Array { shape, .. }) = &found[i] { shape.clone() } else { Vec::new() };
    assert_eq!([shape(0), shape(1), shape(2), shape(3)], [[9, 48], [2, 24], [9, 160], [2, 2]]);
    let (q, part) = (found[0].values(), found[1].values());
    for (i, (p, h)) in [(7, 3), (7, 1), (2, 3), (2, 1)].into_iter().enumerate() {
        assert_eq!(part[i * 12..(i + 1) * 12], q[p * 48 + h * 12..p * 48 + (h + 1) * 12]);
    }
    let (logits, part) = (found[2].values(), found[3].values());
    assert_eq!(part, [7 * 160 + 159, 7 * 160 + 45, 2 * 160 + 159, 2 * 160 + 45].map(|i| logits[i]));
}

#[test]
fn a_gradient_at_the_end_stays_though_another_run_takes_from_that_row() {
    let model = open("llama");
    let n_logits = model.decoder.arch.vocab;
    let plan_of = |sites: [SiteKind; 2]| {
        let mut plan = Plan::default();
        let (prompt, other) = (plan.prompt("p", IDS.to_vec()), plan.prompt("other", vec![1, 2, 3]));
        // The first fork's logits are needed whole, and so are done after those of the prompt that it takes from.
        let scale = edit(SiteKind::Logits.at(0), Positions::Last, Change::Scale(0.5));
        let swap = |kind: SiteKind| edit(kind.at(0), Positions::Last, Change::interchange(prompt));
        let half = Edit { part: Part::Columns((n_logits / 2..n_logits).collect()), ..swap(SiteKind::Logits) };
        let wide = plan.fork(other, vec![scale, half]);
        let narrow = plan.fork(other, vec![swap(SiteKind::FinalNorm)]);
        for run in [prompt, wide, narrow] {
            for kind in sites {
                plan.read(run, gradient(difference(), kind.at(0), Positions::Last));
            }
        }
        plan
    };
    let plan = plan_of([SiteKind::FinalNorm, SiteKind::Logits]);
    let together = readings(&model, &plan);
    for (readout, together) in plan.readouts.iter().zip(&together).take(4) {
        let alone = Plan { readouts: vec![readout.clone()], ..plan.clone() };
        assert_eq!(apart(&alone, &readings(&model, &alone), std::slice::from_ref(together), 0.0), None);
        assert!(together.values().iter().any(|g| *g != 0.0), "{readout:?}");
    }
}

// ---- What is 0, what is not known, what it costs ------------------------------------------------------------------

#[test]
fn what_a_metric_does_not_depend_on_has_a_gradient_of_zeros() {
    for family in ["mistral", "gpt2"] {
        let model = open(family);
        let arch = &model.decoder.arch;
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", IDS.to_vec());
        let last = arch.n_layers - 1;
        for site in
            [SiteKind::ResidPost.at(last), SiteKind::Q.at(last), SiteKind::FinalNorm.at(0), SiteKind::Logits.at(0)]
        {
            plan.read(prompt, gradient(difference(), site, Positions::All));
        }
        plan.read(prompt, gradient(difference(), SiteKind::Scores.at(0), Positions::All));
        let found = readings(&model, &plan);
        for reading in &found[..4] {
            let values = reading.values();
            let (before, at) = values.split_at(values.len() / IDS.len() * (IDS.len() - 1));
            assert!(before.iter().all(|g| *g == 0.0) && at.iter().any(|g| *g != 0.0), "{family}");
        }
        let (scores, n) = (found[4].values(), IDS.len());
        let window = arch.layers[0].mixer.window().unwrap_or(n);
        for (i, g) in scores.iter().enumerate() {
            let (query, key) = (i / (n * arch.n_heads), i % n);
            let visible = key <= query && query - key < window;
            // The first row sees one key, whose share is 1 whatever its score.
            assert!(visible || *g == 0.0, "{family}: {query} looks at {key}");
            assert!(!visible || query < 2 || *g != 0.0, "{family}: {query} does not look at {key}");
        }
    }
}

#[test]
fn gradients_in_bf16_are_near_those_in_f32() {
    let name = family_dir("llama");
    let options = ModelOptions { dtype: DType::BF16, ..ModelOptions::default() };
    let narrow = Model::open(name.to_str().expect("UTF-8"), &options).expect("a sound model");
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", Golden::of("llama").ids("input_ids", 0));
    for site in [SiteKind::Embed.at(0), SiteKind::Z.at(1), SiteKind::MlpGate.at(2), SiteKind::FinalNorm.at(0)] {
        plan.read(prompt, gradient(difference(), site, Positions::All));
    }
    for (narrow, wide) in readings(&narrow, &plan).iter().zip(readings(&open("llama"), &plan)) {
        let (narrow, wide) = (narrow.values(), wide.values());
        let cosine = inner(&narrow, &wide) / (inner(&narrow, &narrow) * inner(&wide, &wide)).sqrt();
        assert!(cosine > 0.995, "{cosine}");
    }
}

#[test]
fn a_function_of_the_callers_between_a_site_and_the_metric_is_refused() {
    let model = open("llama");
    let with = |site: Site| {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", IDS.to_vec());
        let map = Change::Map(Arc::new(|v: &mut [f32]| v.iter_mut().for_each(|x| *x = x.tanh())));
        let fork = plan.fork(prompt, vec![edit(SiteKind::MlpOut.at(1), Positions::Last, map)]);
        plan.read(fork, gradient(difference(), site, Positions::Last));
        run(&model.decoder, &plan, &Options::default())
    };
    let message = with(SiteKind::MlpAct.at(1)).expect_err("an unknown derivative").to_string();
    for word in ["readout 0", "fork 0 of prompt `p`", "mlp_out.1", "derivative"] {
        assert!(message.contains(word), "`{message}` does not name `{word}`");
    }
    for site in [SiteKind::MlpOut.at(1), SiteKind::Z.at(2)] {
        assert!(with(site).expect("a gradient")[0].values().iter().any(|g| *g != 0.0));
    }
}

#[test]
fn a_function_of_a_later_state_is_between_a_state_and_the_metric() {
    let model = open("families/mamba2");
    let with = |edited: usize, position: usize| {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", IDS.map(|id| id % 64).to_vec());
        let map = Change::Map(Arc::new(|v: &mut [f32]| v.iter_mut().for_each(|x| *x = x.tanh())));
        let fork = plan.fork(prompt, vec![edit(SiteKind::State.at(1), Positions::At(vec![edited]), map)]);
        plan.read(fork, gradient(difference(), SiteKind::State.at(1), Positions::At(vec![position])));
        run(&model.decoder, &plan, &Options::default())
    };
    let message = with(5, 4).expect_err("an unknown derivative").to_string();
    assert!(message.contains("state.1") && message.contains("derivative"), "{message}");
    for position in [5, 8] {
        assert!(with(5, position).expect("a gradient")[0].values().iter().any(|g| *g != 0.0 && g.is_finite()));
    }
}

#[test]
fn a_bad_gradient_is_an_error_that_names_it() {
    let model = open("gpt2");
    let with = |run_of: Run, what: What| {
        let mut plan = Plan::default();
        plan.prompt("p", IDS.to_vec());
        plan.read(run_of, what);
        run(&model.decoder, &plan, &Options::default()).expect_err("a bad plan").to_string()
    };
    let (prompt, z, last) = (Run::Prompt(0), SiteKind::Z.at(0), Positions::Last);
    let cases = [
        (with(Run::Fork(0), gradient(difference(), z, last.clone())), "Fork(0)"),
        (with(prompt, gradient(difference(), SiteKind::Z.at(9), last.clone())), "z.9"),
        (with(prompt, gradient(difference(), SiteKind::RotQ.at(1), last.clone())), "q.1"),
        (with(prompt, gradient(difference(), z, Positions::At(vec![9]))), "position 9"),
        (with(prompt, gradient(difference(), z, Positions::At(Vec::new()))), "no position"),
        (with(prompt, gradient(Metric::logit_difference(vec![160], vec![1]), z, last.clone())), "160"),
        (with(prompt, gradient(Metric::Continuation { from: 9 }, z, last)), "position 9"),
    ];
    for (message, word) in cases {
        assert!(message.contains("readout 0") && message.contains(word), "`{message}` does not name `{word}`");
    }
}

#[test]
fn a_plan_of_gradients_costs_a_pass_forward_and_two_through_the_layers_behind_the_site() {
    let model = open("llama");
    let arch = &model.decoder.arch;
    let n = IDS.len() as u64;
    let rows = |sites: &[Site], metrics: &[Metric]| {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", IDS.to_vec());
        for (site, metric) in sites.iter().flat_map(|s| metrics.iter().map(move |m| (s, m))) {
            plan.read(prompt, gradient(metric.clone(), *site, Positions::Last));
        }
        let counted = AtomicU64::new(0);
        let progress = |told: Told| {
            counted.fetch_add(told.computed(), Ordering::Relaxed);
        };
        readings_by(&model, &plan, &Options { progress: &progress, ..Options::default() });
        let counts = [Engine::Wavefront, Engine::Full]
            .map(|engine| size(&plan.compile(arch).expect("a sound plan"), engine).rows);
        assert_eq!(counts, [counted.into_inner(); 2]);
        counts[0]
    };
    let one = &metrics()[..1];
    let z: Vec<Site> = (0..4).map(|l| SiteKind::Z.at(l)).collect();
    assert_eq!(rows(&[SiteKind::Logits.at(0)], one), 4 * n);
    assert_eq!(rows(&z[3..], one), (4 + 2) * n);
    assert_eq!(rows(&[SiteKind::Embed.at(0)], one), (4 + 4 * 2) * n);
    // Sites and parts of one metric share its way back; each metric has its own.
    assert_eq!(rows(&z, one), (4 + 4 * 2) * n);
    assert_eq!(rows(&z[2..], &metrics()), (4 + 2 * 3) * n);
}

#[test]
fn a_prompt_of_which_only_gradients_are_read_is_still_there_for_others() {
    let model = open("llama");
    let mut plan = Plan::default();
    let (prompt, other) = (plan.prompt("p", IDS.to_vec()), plan.prompt("other", vec![1, 2, 3]));
    plan.read(prompt, gradient(difference(), SiteKind::Z.at(1), Positions::Last));
    plan.read(other, What::KlFrom(prompt));
    let fork = plan.fork(other, vec![edit(SiteKind::Z.at(2), Positions::Last, Change::interchange(prompt))]);
    plan.read(fork, What::Metric(difference()));
    let [wave, full] = [Engine::Wavefront, Engine::Full].map(|engine| {
        let readings = readings_by(&model, &plan, &Options { engine, ..Options::default() });
        readings[1..].iter().map(|r| r.number().expect("a number")).collect::<Vec<f64>>()
    });
    assert!(wave.iter().zip(&full).all(|(a, b)| (a - b).abs() < 1e-5), "{wave:?}, {full:?}");
}
