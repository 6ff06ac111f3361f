//! Generation gives what whole forward passes over the growing text give, under whatever edits.

use crate::support::copies::Folder;
use crate::support::{FAMILIES, family_dir, open, other_families, site_of};
use gatelens::model::arch::Arch;
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Activation, Change, Edit, Part, Plan, Positions, Run};
use gatelens::run::Told;
use gatelens::run::{
    Engine, Generated, Generation, Options, Sampling, Steps, generate, generation_size, run as run_plan,
};
use gatelens::site::{SiteKind, Units};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPoolBuilder;
use serde_json::json;
use statrs::distribution::{ChiSquared, ContinuousCDF};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const SAMPLED: Sampling = Sampling::Sample { temperature: 1.5, top_p: 0.95, seed: 11 };

fn generation(runs: Vec<Run>, max_tokens: usize) -> Generation {
    Generation { runs, max_tokens, sampling: Sampling::Greedy, steps: Steps::PromptOnly, stop: Vec::new() }
}

fn generated(model: &Model, plan: &Plan, generation: &Generation) -> Vec<Generated> {
    generate(&model.decoder, plan, generation, &Options::default()).expect("generated")
}

fn ids(found: &[Generated]) -> Vec<Vec<u32>> {
    found.iter().map(|g| g.ids.clone()).collect()
}

/// An edit of whole rows.
fn edit(kind: SiteKind, layer: usize, positions: Positions, change: Change) -> Edit {
    Edit { site: kind.at(layer), part: Part::All, positions, change }
}

/// Prompts of unlike lengths, of one token too.
fn prompts(plan: &mut Plan, vocab: usize) -> Vec<Run> {
    let lengths = [7, 1, 19, 12];
    let ids = |p: usize, n: usize| (0..n).map(|i| ((i * 37 + p * 11 + 5) % vocab) as u32).collect::<Vec<u32>>();
    lengths.iter().enumerate().map(|(p, n)| plan.prompt(format!("p{p}"), ids(p, *n))).collect()
}

fn logits_at(model: &Model, plan: &Plan, run: Run, positions: Positions) -> Vec<Vec<f32>> {
    let mut plan = plan.clone();
    plan.readouts.clear();
    plan.read(run, Activation { site: SiteKind::Logits.at(0), positions, part: Part::All });
    let options = Options { engine: Engine::Full, ..Options::default() };
    let found = run_plan(&model.decoder, &plan, &options).expect("readings").into_inner().remove(0).into_values();
    found.chunks(model.decoder.arch.vocab).map(<[f32]>::to_vec).collect()
}

fn highest(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a vocabulary") as u32
}

// ---- Recording ----------------------------------------------------------------------------------------------------

/// The logits that a run's tokens are chosen by.
type Recorded = Arc<Mutex<Vec<Vec<f32>>>>;

/// A fork of a run whose logits are recorded as they come.
fn recorder(plan: &mut Plan, run: Run) -> (Run, Recorded) {
    let rows = Recorded::default();
    let to = rows.clone();
    let record = Change::Map(Arc::new(move |row: &mut [f32]| to.lock().expect("a lock").push(row.to_vec())));
    (plan.fork(run, vec![edit(SiteKind::Logits, 0, Positions::Last, record)]), rows)
}

/// What runs come to under `Steps::Every`, with the logits behind each token.
fn recorded(
    model: &Model,
    plan: &Plan,
    runs: &[Run],
    max_tokens: usize,
    budget: usize,
) -> (Vec<Generated>, Vec<Vec<Vec<f32>>>) {
    let mut plan = plan.clone();
    let (forks, rows): (Vec<Run>, Vec<Recorded>) = runs.iter().map(|run| recorder(&mut plan, *run)).unzip();
    let generation = Generation { sampling: SAMPLED, steps: Steps::Every, ..generation(forks, max_tokens) };
    let options = Options { budget, ..Options::default() };
    let found = generate(&model.decoder, &plan, &generation, &options).expect("generated");
    let rows = rows.iter().map(|rows| std::mem::take(&mut *rows.lock().expect("a lock"))).collect();
    (found, rows)
}

fn bits(rows: &[Vec<Vec<f32>>]) -> Vec<Vec<u32>> {
    rows.iter().map(|run| run.concat().into_iter().map(f32::to_bits).collect()).collect()
}

// ---- The text as one prompt ---------------------------------------------------------------------------------------

/// The plan in which a run's prompt has grown by `new`, and its edits stand at the positions at which they were made.
fn grown(plan: &Plan, run: Run, new: &[u32], arch: &Arch) -> Plan {
    let mut long = plan.clone();
    let root = plan.root(run);
    long.prompts[root].ids.extend(new);
    for (f, fork) in long.forks.iter_mut().enumerate() {
        let n = plan.length(Run::Fork(f));
        let keys = if plan.root(Run::Fork(f)) == root { n + new.len() } else { n };
        fork.edits = fork.edits.iter().flat_map(|e| moved(plan, e, n, keys, arch)).collect();
    }
    long
}

/// An edit of a prompt of `n` tokens as edits of the text of `keys` that it has become.
fn moved(plan: &Plan, e: &Edit, n: usize, keys: usize, arch: &Arch) -> Vec<Edit> {
    let positions: Vec<usize> = match &e.positions {
        Positions::Last => vec![n - 1],
        Positions::All => (0..n).collect(),
        Positions::At(list) => list.clone(),
    };
    let change = match &e.change {
        Change::Interchange { donor, positions: None } => {
            let last = vec![plan.length(*donor) - 1];
            let from = if e.positions == Positions::Last { last } else { positions.clone() };
            Change::Interchange { donor: *donor, positions: Some(from) }
        }
        change => change.clone(),
    };
    let part = |keys_of_edit: usize| match e.site.units(arch) {
        Units::HeadsByKeys { n: heads } => {
            let of_head = |h: usize| (0..keys_of_edit).map(move |key| h * keys + key);
            Part::Columns(match &e.part {
                Part::All => (0..heads).flat_map(of_head).collect(),
                Part::Heads(list) => list.iter().flat_map(|h| of_head(*h)).collect(),
                Part::Columns(list) => list.iter().map(|c| c / n * keys + c % n).collect(),
            })
        }
        _ => e.part.clone(),
    };
    let mut edits =
        vec![Edit { site: e.site, part: part(n), positions: Positions::At(positions), change: change.clone() }];
    let goes_on = !matches!(e.positions, Positions::At(_)) && !matches!(e.change, Change::Interchange { .. });
    let vector = matches!(e.change, Change::Set(_) | Change::Add { .. } | Change::ProjectOut(_));
    if goes_on && keys > n {
        let part = part(if vector { n } else { keys });
        edits.push(Edit { site: e.site, part, positions: Positions::At((n..keys).collect()), change });
    }
    edits
}

/// Holds what a run came to, and the logits behind it, to the whole forward pass over its text.
#[track_caller]
fn follows(model: &Model, plan: &Plan, run: Run, found: &Generated, rows: &[Vec<f32>]) {
    let (n, new) = (plan.length(run), found.ids.len());
    let text = grown(plan, run, &found.ids[..new - 1], &model.decoder.arch);
    let expected = logits_at(model, &text, run, Positions::At((n - 1..n + new - 1).collect()));
    assert_eq!(rows.len(), expected.len());
    for (step, (row, expected)) in rows.iter().zip(&expected).enumerate() {
        for (found, expected) in row.iter().zip(expected) {
            let near = (found - expected).abs() <= 2e-4 + 2e-4 * expected.abs();
            assert!(near, "{found}, not {expected}, for token {step} of {} in\n{plan:?}", plan.describe(run));
        }
    }
}

// ---- Random plans -------------------------------------------------------------------------------------------------

struct Random<'a> {
    arch: &'a Arch,
    random: ChaCha8Rng,
}

impl Random<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.random.random_range(0..n)
    }

    fn numbers(&mut self, n: usize) -> Arc<[f32]> {
        (0..n).map(|_| self.random.random_range(-1f32..1.0)).collect()
    }

    fn some(&mut self, n: usize) -> Vec<usize> {
        let mut list: Vec<usize> = (0..1 + self.below(3)).map(|_| self.below(n)).collect();
        list.sort_unstable();
        list.dedup();
        list
    }

    /// Two or three prompts, forks of them and of their forks, of any edits that have a meaning for longer texts.
    fn plan(&mut self) -> (Plan, Vec<Run>) {
        let (mut plan, mut runs) = (Plan::default(), Vec::new());
        for p in 0..2 + self.below(2) {
            let n = 1 + self.below(18);
            let ids = (0..n).map(|_| self.below(self.arch.vocab) as u32).collect();
            runs.push(plan.prompt(format!("p{p}"), ids));
        }
        for _ in 0..6 {
            let base = runs[self.below(runs.len())];
            let edits = (0..1 + self.below(2)).map(|_| self.edit(&plan, &runs, base)).collect();
            runs.push(plan.fork(base, edits));
        }
        (plan, runs)
    }

    fn edit(&mut self, plan: &Plan, runs: &[Run], base: Run) -> Edit {
        let n = plan.length(base);
        let (kind, layer) = (self.below(1 << 20), self.below(1 << 20));
        let site = site_of(self.arch, kind, layer);
        let positions = match self.below(3) {
            0 => Positions::Last,
            1 => Positions::All,
            _ => Positions::At(self.some(n)),
        };
        let (part, wide) = match (self.below(3), site.units(self.arch)) {
            (0, _) => (Part::All, site.width(self.arch, n)),
            (1, Units::Heads { n: heads, width }) => {
                let list = self.some(heads);
                (Part::Heads(list.clone()), list.len() * width)
            }
            (1, Units::HeadsByKeys { n: heads }) => {
                let list = self.some(heads);
                (Part::Heads(list.clone()), list.len() * n)
            }
            _ => {
                let list = self.some(site.width(self.arch, n));
                (Part::Columns(list.clone()), list.len())
            }
        };
        let change = self.change(site.kind, wide, plan, runs, &positions, n);
        Edit { site, part, positions, change }
    }

    fn change(
        &mut self,
        kind: SiteKind,
        wide: usize,
        plan: &Plan,
        runs: &[Run],
        positions: &Positions,
        n: usize,
    ) -> Change {
        let vector = self.numbers(wide);
        match (kind, self.below(9)) {
            // What a query may not see must stay hidden, as it is from one that has not been written yet.
            (SiteKind::Scores, x) if x < 5 => Change::Scale(0.5),
            (SiteKind::Scores, _) => Change::Add { vector, coefficient: 0.7 },
            (SiteKind::Pattern, x) if x < 3 => Change::Zero,
            (SiteKind::Pattern, x) if x < 6 => Change::Scale(1.4),
            (SiteKind::Pattern, _) => Change::Set(vector),
            // All of it zero leaves a post-norm nothing but rounding to scale up.
            (SiteKind::HeadOut, 0) => Change::Scale(1.4),
            (_, 0) => Change::Zero,
            (_, 1) => Change::Set(vector),
            (_, 2) => Change::Add { vector, coefficient: 0.7 },
            (_, 3) => Change::ProjectOut(vector),
            (_, 4) => Change::Scale(-0.6),
            (_, 5) => Change::Clamp { low: -0.2, high: 0.3 },
            (_, 6) => Change::Map(Arc::new(|v: &mut [f32]| v.iter_mut().for_each(|x| *x = x.tanh() + 0.1))),
            _ => {
                let donor = runs[self.below(runs.len())];
                let wanted = match positions {
                    Positions::Last => 1,
                    Positions::All => n,
                    Positions::At(list) => list.len(),
                };
                let theirs = plan.length(donor);
                let from = (0..wanted).map(|_| self.below(theirs)).collect();
                let default = *positions == Positions::Last && self.below(2) == 0;
                Change::Interchange { donor, positions: (!default).then_some(from) }
            }
        }
    }
}

// ---- Statements ---------------------------------------------------------------------------------------------------

#[test]
fn greedy_generation_is_the_argmax_of_whole_passes_over_the_growing_text_in_every_family() {
    for family in FAMILIES {
        let model = open(family);
        let mut plan = Plan::default();
        let runs = prompts(&mut plan, model.decoder.arch.vocab);
        let found = generated(&model, &plan, &generation(runs.clone(), 8));
        for (run, found) in runs.iter().zip(&found) {
            let mut text = plan.clone();
            for id in &found.ids {
                let row = logits_at(&model, &text, *run, Positions::Last).remove(0);
                assert_eq!(*id, highest(&row), "{family}, {}", plan.describe(*run));
                text.prompts[plan.root(*run)].ids.push(*id);
            }
            assert!(found.ids.len() == 8 && !found.stopped);
        }
    }
}

#[test]
fn any_edits_hold_in_generation_as_in_whole_passes_over_the_text_in_every_family() {
    for (i, family) in FAMILIES.into_iter().enumerate() {
        let model = open(family);
        let mut random = Random { arch: &model.decoder.arch, random: ChaCha8Rng::seed_from_u64(i as u64) };
        for _ in 0..20 {
            let (plan, runs) = random.plan();
            let (found, rows) = recorded(&model, &plan, &runs, 6, usize::MAX);
            for ((run, found), rows) in runs.iter().zip(&found).zip(&rows) {
                follows(&model, &plan, *run, found, rows);
            }
        }
    }
}

#[test]
fn any_edits_hold_in_generation_as_in_whole_passes_over_the_text_in_every_other_family() {
    for (i, family) in other_families().iter().enumerate() {
        let model = open(family);
        let mut random = Random { arch: &model.decoder.arch, random: ChaCha8Rng::seed_from_u64(500 + i as u64) };
        for _ in 0..4 {
            let (plan, runs) = random.plan();
            let (found, rows) = recorded(&model, &plan, &runs, 5, usize::MAX);
            for ((run, found), rows) in runs.iter().zip(&found).zip(&rows) {
                follows(&model, &plan, *run, found, rows);
            }
        }
    }
}

#[test]
fn each_kind_of_edit_changes_what_is_generated() {
    // The others repeat one token whatever is done to them.
    for family in ["llama", "mistral"] {
        let model = open(family);
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", (30..43).collect());
        let arch = &model.decoder.arch;
        let forks: Vec<Run> = [
            (SiteKind::Z, Change::Scale(-2.0)),
            (SiteKind::ResidPre, Change::Scale(-1.0)),
            (SiteKind::MlpOut, Change::Scale(-2.0)),
            (SiteKind::K, Change::Zero),
            (SiteKind::V, Change::Scale(-2.0)),
            (SiteKind::Pattern, Change::Zero),
            (SiteKind::Scores, Change::Scale(0.0001)),
        ]
        .into_iter()
        .map(|(kind, change)| {
            let edits = (0..arch.n_layers).map(|l| edit(kind, l, Positions::All, change.clone())).collect();
            plan.fork(prompt, edits)
        })
        .collect();
        let plain = generated(&model, &plan, &generation(vec![prompt], 12));
        for steps in [Steps::PromptOnly, Steps::Every] {
            let found = generated(&model, &plan, &Generation { steps, ..generation(forks.clone(), 12) });
            let same = found.iter().filter(|found| found.ids == plain[0].ids).count();
            assert_eq!(same, 0, "{family}, {steps:?}: {found:?}");
        }
    }
}

#[test]
fn edits_of_the_prompt_alone_are_edits_at_its_positions() {
    for family in FAMILIES {
        let model = open(family);
        let mut plan = Plan::default();
        let (a, b) = (plan.prompt("a", (30..43).collect()), plan.prompt("b", (70..78).collect()));
        let mut pairs = Vec::new();
        for (kind, change) in [
            (SiteKind::Z, Change::Scale(-2.0)),
            (SiteKind::ResidPre, Change::interchange(b)),
            (SiteKind::MlpAct, Change::Zero),
            (SiteKind::V, Change::Scale(3.0)),
            (SiteKind::Logits, Change::Scale(-1.0)),
        ] {
            let last = plan.fork(a, vec![edit(kind, 2, Positions::Last, change.clone())]);
            let change = match change {
                Change::Interchange { donor, .. } => Change::Interchange { donor, positions: Some(vec![7]) },
                change => change,
            };
            pairs.push((last, plan.fork(a, vec![edit(kind, 2, Positions::At(vec![12]), change)])));
        }
        let (last, at): (Vec<Run>, Vec<Run>) = pairs.into_iter().unzip();
        let alone = generated(&model, &plan, &generation(last, 8));
        let every = generated(&model, &plan, &Generation { steps: Steps::Every, ..generation(at, 8) });
        assert_eq!(alone, every, "{family}");
    }
}

#[test]
fn a_longrope_run_keeps_the_rotation_of_its_prompts_length() {
    let prompt: Vec<u32> = (0..62).map(|i| (i * 53 + 7) % 160).collect();
    let open_at = |folder: &Folder| {
        Model::open(folder.path().to_str().expect("UTF-8"), &ModelOptions::default()).expect("a sound model")
    };
    let phi = open("phi3");
    // The same model with the short prompts' rotation at every length.
    let short = Folder::of("phi3").config(|map| {
        let rope = &mut map["rope_parameters"];
        rope["long_factor"] = rope["short_factor"].clone();
    });
    let short = open_at(&short);
    let mut plan = Plan::default();
    let run = plan.prompt("p", prompt);
    let (found, rows) = recorded(&phi, &plan, &[run], 12, usize::MAX);
    follows(&short, &plan, run, &found[0], &rows[0]);
    let text = grown(&plan, run, &found[0].ids[..11], &phi.decoder.arch);
    let anew = logits_at(&phi, &text, run, Positions::Last).remove(0);
    let off = anew.iter().zip(&rows[0][11]).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(off > 1e-3, "the two rotations can be told apart: {off}");
}

#[test]
fn results_depend_neither_on_batches_nor_on_the_order_of_runs_nor_on_threads_to_the_last_bit() {
    for (i, family) in FAMILIES.into_iter().enumerate() {
        let model = open(family);
        let mut random = Random { arch: &model.decoder.arch, random: ChaCha8Rng::seed_from_u64(100 + i as u64) };
        for _ in 0..4 {
            let (plan, runs) = random.plan();
            let (found, rows) = recorded(&model, &plan, &runs, 6, usize::MAX);
            for budget in [1, 40_000] {
                let (batched, batched_rows) = recorded(&model, &plan, &runs, 6, budget);
                assert_eq!(found, batched, "{family}, budget {budget}");
                assert!(bits(&rows) == bits(&batched_rows), "{family}, budget {budget}: {plan:?}");
            }
            let pool = ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
            let (alone, alone_rows) = pool.install(|| recorded(&model, &plan, &runs, 6, usize::MAX));
            assert!(found == alone && bits(&rows) == bits(&alone_rows), "{family}, one thread");
        }
    }
}

#[test]
fn a_run_is_sampled_by_the_seed_its_number_and_how_often_it_is_listed() {
    let model = open("qwen3");
    let mut plan = Plan::default();
    let runs = prompts(&mut plan, 160);
    let sampled = |runs: Vec<Run>, seed: u64| {
        let sampling = Sampling::Sample { temperature: 3.0, top_p: 1.0, seed };
        ids(&generated(&model, &plan, &Generation { sampling, ..generation(runs, 10) }))
    };
    let listed: Vec<Run> = runs.iter().flat_map(|run| [*run; 3]).collect();
    let found = sampled(listed.clone(), 1);
    assert_eq!(found, sampled(listed.clone(), 1));
    let mut backwards = sampled(listed.iter().rev().copied().collect(), 1);
    backwards.reverse();
    for (forward, backward) in found.chunks(3).zip(backwards.chunks(3)) {
        assert_eq!(forward, [backward[2].clone(), backward[1].clone(), backward[0].clone()]);
    }
    assert_eq!(sampled(vec![runs[2]], 1)[0], found[6]);
    let different: std::collections::BTreeSet<&Vec<u32>> = found.iter().collect();
    assert_eq!(different.len(), found.len(), "samples differ from each other");
    assert!(sampled(listed, 2).iter().zip(&found).all(|(a, b)| a != b), "another seed, other samples");
}

#[test]
fn sampled_tokens_come_as_often_as_they_are_probable() {
    let model = open("llama");
    let mut plan = Plan::default();
    let run = plan.prompt("p", vec![3, 50, 9]);
    let (n, temperature) = (4000, 1.3);
    let sampling = Sampling::Sample { temperature, top_p: 1.0, seed: 5 };
    let found = generated(&model, &plan, &Generation { sampling, ..generation(vec![run; n], 1) });
    let logits = logits_at(&model, &plan, run, Positions::Last).remove(0);
    let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let count = |id: usize| found.iter().filter(|g| g.ids[0] as usize == id).count() as f64;
    let each = weights.iter().enumerate().map(|(id, w)| (count(id), n as f64 * w / total));
    // Rare tokens are one class together.
    let (rare, mut classes): (Vec<_>, Vec<_>) = each.partition(|(_, expected)| *expected < 5.0);
    classes.push(rare.iter().fold((0.0, 0.0), |a, b: &(f64, f64)| (a.0 + b.0, a.1 + b.1)));
    let statistic: f64 = classes.iter().map(|(count, expected)| (count - expected).powi(2) / expected).sum();
    let p = ChiSquared::new((classes.len() - 1) as f64).expect("a distribution").sf(statistic);
    assert!(classes.len() > 20 && p > 1e-3, "{} classes, p {p}", classes.len());
}

#[test]
fn a_stop_token_ends_its_run_and_the_others_go_on() {
    let model = open("gemma3");
    let mut plan = Plan::default();
    let runs = prompts(&mut plan, 160);
    let whole = Generation { sampling: SAMPLED, ..generation(runs, 10) };
    let free = generated(&model, &plan, &whole);
    let stop = vec![free[0].ids[4], free[2].ids[7]];
    let found = generated(&model, &plan, &Generation { stop: stop.clone(), ..whole });
    for (found, free) in found.iter().zip(&free) {
        let end = free.ids.iter().position(|id| stop.contains(id));
        assert_eq!(found.ids, free.ids[..end.unwrap_or(10)]);
        assert_eq!(found.stopped, end.is_some());
    }
    assert!(found[0].stopped && found.iter().any(|g| !g.stopped), "{found:?}");
}

#[test]
fn a_run_of_which_all_is_generated_at_once_stops_before_its_first_token() {
    let model = open("llama");
    let mut plan = Plan::default();
    let run = plan.prompt("p", vec![1, 2]);
    let one = generated(&model, &plan, &generation(vec![run], 1));
    assert_eq!(one[0].ids.len(), 1);
    let stop = one[0].ids.clone();
    let found = generated(&model, &plan, &Generation { stop, ..generation(vec![run], 9) });
    assert_eq!(found, [Generated { ids: Vec::new(), stopped: true }]);
    assert_eq!(generated(&model, &plan, &generation(Vec::new(), 9)), []);
}

#[test]
fn streamed_weights_generate_the_same() {
    for family in ["gpt2", "gemma2", "phi3"] {
        let options = ModelOptions { max_memory: Some(1000), ..ModelOptions::default() };
        let dir = family_dir(family);
        let streamed = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
        assert!(streamed.decoder.streamed());
        let model = open(family);
        let mut random = Random { arch: &model.decoder.arch, random: ChaCha8Rng::seed_from_u64(9) };
        let (plan, runs) = random.plan();
        let (a, b) = [&model, &streamed].map(|m| recorded(m, &plan, &runs, 5, usize::MAX)).into();
        assert!(a.0 == b.0 && bits(&a.1) == bits(&b.1), "{family}");
    }
}

#[test]
fn the_size_of_a_generation_is_what_it_computed() {
    for (i, family) in FAMILIES.into_iter().enumerate() {
        let model = open(family);
        let arch = &model.decoder.arch;
        let (plan, runs) = Random { arch, random: ChaCha8Rng::seed_from_u64(200 + i as u64) }.plan();
        for budget in [1, 100_000, usize::MAX] {
            let (counted, tokens, spared) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
            let progress = |told: Told| {
                counted.fetch_add(told.computed(), Ordering::Relaxed);
                match told {
                    Told::Rows(_) => 0,
                    Told::Tokens(rows) => tokens.fetch_add(rows, Ordering::Relaxed),
                    Told::Spared(rows) => spared.fetch_add(rows, Ordering::Relaxed),
                };
            };
            let options = Options { budget, progress: &progress, ..Options::default() };
            // Every other token ends a run.
            let stop = (0..160).step_by(2).collect();
            let generation = Generation { sampling: SAMPLED, stop, ..generation(runs.clone(), 7) };
            let found = generate(&model.decoder, &plan, &generation, &options).expect("generated");
            let program = plan.compile(arch).expect("a sound plan");
            let size = generation_size(&program, &generation, &found, budget).expect("a sound plan");
            assert_eq!(counted.load(Ordering::Relaxed), size.rows, "{family}, budget {budget}");
            let (tokens, spared) = (tokens.into_inner(), spared.into_inner());
            assert!(tokens > 0 && spared > 0, "{family}: {tokens} and {spared}");
            assert_eq!(tokens + spared, (runs.len() * 6 * arch.n_layers) as u64, "{family}, budget {budget}");
        }
    }
}

#[test]
fn a_text_may_fill_the_context_and_no_more() {
    for family in ["gpt2", "llama"] {
        let model = open(family);
        let mut plan = Plan::default();
        let run = plan.prompt("long", vec![7; 120]);
        assert_eq!(generated(&model, &plan, &generation(vec![run], 8))[0].ids.len(), 8);
        let message = refused(&model, &plan, &generation(vec![run], 9));
        assert_names(&message, &["max_tokens", "`long`", "120", "128", "ask for 8"]);
    }
}

#[track_caller]
fn refused(model: &Model, plan: &Plan, generation: &Generation) -> String {
    generate(&model.decoder, plan, generation, &Options::default()).expect_err("a bad generation").to_string()
}

#[track_caller]
fn assert_names(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{message}` does not name `{word}`");
    }
}

#[test]
fn a_bad_generation_is_an_error_that_names_the_field() {
    let model = open("llama");
    let mut plan = Plan::default();
    let run = plan.prompt("p", vec![1, 2, 3]);
    let good = || generation(vec![run], 4);
    let sampled = |temperature: f64, top_p: f64| {
        let sampling = Sampling::Sample { temperature, top_p, seed: 0 };
        refused(&model, &plan, &Generation { sampling, ..good() })
    };
    assert_names(&refused(&model, &plan, &generation(vec![run, Run::Fork(2)], 4)), &["runs", "Fork(2)", "number 1"]);
    assert_names(&refused(&model, &plan, &generation(vec![run], 0)), &["max_tokens", "0"]);
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_names(&sampled(temperature, 1.0), &["temperature", &temperature.to_string()]);
    }
    for top_p in [0.0, 1.1, f64::NAN] {
        assert_names(&sampled(1.0, top_p), &["top_p", &top_p.to_string()]);
    }
    let stop = vec![3, 160];
    assert_names(&refused(&model, &plan, &Generation { stop, ..good() }), &["stop", "160", "159"]);
    plan.fork(run, vec![edit(SiteKind::Z, 9, Positions::Last, Change::Zero)]);
    assert_names(&refused(&model, &plan, &good()), &["fork 0", "z.9"]);
}

#[test]
fn a_logit_that_is_not_finite_is_an_error_that_names_the_run() {
    let model = open("llama");
    let mut plan = Plan::default();
    let run = plan.prompt("p", vec![1, 2, 3]);
    let count = AtomicU64::new(0);
    let late = Change::Map(Arc::new(move |row: &mut [f32]| {
        if count.fetch_add(1, Ordering::Relaxed) == 2 {
            row[5] = f32::NAN;
        }
    }));
    let fork = plan.fork(run, vec![edit(SiteKind::ResidPost, 1, Positions::Last, late)]);
    let message = refused(&model, &plan, &Generation { steps: Steps::Every, ..generation(vec![fork], 5) });
    assert_names(&message, &["fork 0 of prompt `p`", "2 new tokens", "NaN"]);
}

#[test]
fn stop_tokens_are_those_that_the_folder_names() {
    assert_eq!(open("llama").stop_tokens(), [2]);
    let folder = Folder::of("llama").key("eos_token_id", json!([2, 9]));
    folder.write("generation_config.json", json!({ "eos_token_id": 17 }).to_string());
    let model = Model::open(folder.path().to_str().expect("UTF-8"), &ModelOptions::default()).expect("a model");
    assert_eq!(model.stop_tokens(), [2, 9, 17]);
    folder.write("generation_config.json", json!({ "eos_token_id": "no" }).to_string());
    let model = Model::open(folder.path().to_str().expect("UTF-8"), &ModelOptions::default()).expect("a model");
    assert_eq!(model.stop_tokens(), [2, 9]);
    assert_names(&model.warnings.join("\n"), &["generation_config.json", "eos_token_id"]);
}
