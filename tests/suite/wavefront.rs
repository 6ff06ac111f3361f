//! The wavefront gives what a whole forward pass for every run gives, for whatever plan.

mod plans;

use self::plans::{Cook, Recipe, edit, metric, recipe};
use crate::support::{FAMILIES, family_dir, open, other_families};
use candle_core::DType;
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{
    Activation, Alignment, Change, EdgeEffects, EdgeEstimate, Edit, Gradient, KlFrom, Metric, Part, Plan, Positions,
    Projection, Readable, Run, What,
};
use gatelens::run::{Array, Engine, Options, Reading, Readings, Told, run, size};
use gatelens::site::{KINDS, Site, SiteKind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rayon::ThreadPoolBuilder;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

// ---- Comparing ----------------------------------------------------------------------------------------------------

fn options(engine: Engine) -> Options<'static> {
    Options { engine, ..Options::default() }
}

fn readings(model: &Model, plan: &Plan, options: &Options) -> Result<Vec<Reading>, TestCaseError> {
    let found = run(&model.decoder, plan, options);
    found.map(Readings::into_inner).map_err(|e| TestCaseError::fail(format!("{e} in {plan:?}")))
}

fn bits(readings: &[Reading]) -> Vec<Vec<u32>> {
    readings.iter().map(|r| r.values().into_iter().map(f32::to_bits).collect()).collect()
}

/// The first reading that is off by more than `tolerance`, and as much again of its size; infinities are equal to
/// themselves.
fn difference(found: &[Reading], expected: &[Reading], tolerance: f32) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} readings, not {}", found.len(), expected.len()));
    }
    found.iter().zip(expected).enumerate().find_map(|(i, (f, e))| {
        let (fs, es) = (f.values(), e.values());
        let shapes = |r: &Reading| if let Reading::Array(Array { shape, .. }) = r { shape.clone() } else { Vec::new() };
        if shapes(f) != shapes(e) || fs.len() != es.len() {
            return Some(format!("reading {i}: {f:?}, not {e:?}"));
        }
        let near = |f: f32, e: f32| f == e || (f - e).abs() <= tolerance + tolerance * e.abs();
        let off = fs.iter().zip(&es).position(|(f, e)| !near(*f, *e));
        off.map(|at| format!("reading {i}, number {at} of {}: {}, not {}", fs.len(), fs[at], es[at]))
    })
}

fn check<S: Strategy>(cases: u32, seed: u8, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: Clone,
{
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    match TestRunner::new_with_rng(config, rng).run(&strategy, test) {
        Ok(()) => (),
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(e) => panic!("{e}"),
    }
}

fn agree(model: &Model, plan: &Plan) -> Result<(), TestCaseError> {
    let full = readings(model, plan, &options(Engine::Full))?;
    let wave = readings(model, plan, &options(Engine::Wavefront))?;
    match difference(&wave, &full, 1e-4) {
        None => Ok(()),
        Some(why) => Err(TestCaseError::fail(format!("{why} in\n{plan:?}"))),
    }
}

// ---- Statements ---------------------------------------------------------------------------------------------------

#[test]
fn any_plan_reads_as_by_whole_forward_passes_in_every_family() {
    for (i, family) in FAMILIES.into_iter().enumerate() {
        let model = open(family);
        let arch = &model.decoder.arch;
        check(60, i as u8, recipe(1..5, 0..8, 1..10), |recipe| agree(&model, &Cook::plan_of(&recipe, arch)));
    }
}

#[test]
fn any_plan_reads_as_by_whole_forward_passes_in_every_other_family() {
    for (i, family) in other_families().iter().enumerate() {
        let model = open(family);
        let arch = &model.decoder.arch;
        check(15, 100 + i as u8, recipe(1..4, 1..6, 1..8), |recipe| {
            agree(&model, &Cook::plan_of(&recipe, arch)).map_err(|e| TestCaseError::fail(format!("{family}: {e}")))
        });
    }
}

#[test]
fn a_fork_without_edits_of_its_own_holds_those_that_it_inherits() {
    let model = open("llama");
    let mut plan = Plan::default();
    let (clean, other) = (plan.prompt("clean", vec![3, 4, 5]), plan.prompt("other", vec![8, 9]));
    let swapped = plan.fork(clean, vec![edit(SiteKind::ResidPre.at(1), Positions::Last, Change::interchange(other))]);
    let same = plan.fork(swapped, Vec::new());
    plan.read(same, metric());
    agree(&model, &plan).expect("both engines");
}

#[test]
fn a_change_reaches_back_to_a_row_whose_pattern_was_set_to_look_ahead() {
    let model = open("llama");
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", (0..9).collect());
    let row = Positions::At(vec![2]);
    let set = Change::Set(vec![0.1; 9 * model.decoder.arch.n_heads].into());
    let ahead = plan.fork(prompt, vec![edit(SiteKind::Pattern.at(2), row.clone(), set)]);
    let changed = plan.fork(ahead, vec![edit(SiteKind::Embed.at(0), Positions::At(vec![7]), Change::Zero)]);
    for run in [ahead, changed] {
        plan.read(run, Activation { site: SiteKind::Z.at(2), positions: row.clone(), part: Part::All });
    }
    agree(&model, &plan).expect("both engines");
    let found = readings(&model, &plan, &Options::default()).expect("readings");
    assert_ne!(found[0], found[1]);
}

#[test]
fn a_change_reaches_a_row_far_beyond_the_window_whose_pattern_was_set_to_look_back() {
    // Windows of 6 in every layer.
    let model = open("mistral");
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", (0..20).collect());
    let set = Change::Set(vec![0.05; 20 * model.decoder.arch.n_heads].into());
    let back = plan.fork(prompt, vec![edit(SiteKind::Pattern.at(1), Positions::Last, set)]);
    let changed = plan.fork(back, vec![edit(SiteKind::ResidPre.at(0), Positions::At(vec![0]), Change::Zero)]);
    for run in [back, changed] {
        let (site, positions) = (SiteKind::ResidPost.at(2), Positions::Last);
        plan.read(run, Activation { site, positions, part: Part::All });
    }
    agree(&model, &plan).expect("both engines");
    let found = readings(&model, &plan, &Options::default()).expect("readings");
    assert!(difference(&found[..1], &found[1..], 1e-3).is_some(), "what comes of the change is there to be missed");
}

/// Layers 4 and 5 of six read the keys and values of layers 3 and 2.
fn sharing() -> Model {
    let model = open("families/gemma4");
    let lenders: Vec<usize> = (0..6).map(|l| model.decoder.arch.keys_of(l)).collect();
    assert_eq!(lenders, [0, 1, 2, 3, 3, 2]);
    model
}

#[test]
fn an_edit_of_keys_or_values_reaches_the_layers_that_read_them_though_no_stream_between_changes() {
    let model = sharing();
    let mut plan = Plan::default();
    let (prompt, other) = (plan.prompt("p", (0..9).collect()), plan.prompt("other", (20..29).collect()));
    let z = |layer: usize| Activation { site: SiteKind::Z.at(layer), positions: Positions::All, part: Part::All };
    let mut runs = vec![prompt];
    for (kind, lender) in [(SiteKind::V, 2), (SiteKind::K, 2), (SiteKind::RotK, 3), (SiteKind::V, 3)] {
        let change = edit(kind.at(lender), Positions::At(vec![3]), Change::interchange(other));
        let undone = edit(SiteKind::ResidPost.at(lender), Positions::All, Change::interchange(prompt));
        runs.push(plan.fork(prompt, vec![change, undone]));
    }
    // One that parts from its base later has what its base changed before.
    let late = edit(SiteKind::Z.at(4), Positions::At(vec![6]), Change::Zero);
    runs.push(plan.fork(runs[1], vec![late.clone()]));
    runs.push(plan.fork(prompt, vec![late]));
    for run in &runs {
        plan.read(*run, z(4));
        plan.read(*run, z(5));
    }
    agree(&model, &plan).expect("both engines");
    let found = readings(&model, &plan, &Options::default()).expect("readings");
    let same = |a: usize, b: usize| difference(&found[a..=a], &found[b..=b], 1e-6).is_none();
    // `z` of layer 4 where layer 3 lends, of layer 5 where layer 2 does; of the other layer not before it.
    assert!(same(2, 0) && !same(3, 1) && same(4, 0) && !same(5, 1), "layer 2 lends to layer 5");
    assert!(!same(6, 0) && !same(8, 0), "layer 3 lends to layer 4");
    assert!(!same(11, 13), "a fork of a fork has its base's keys and values");
}

#[test]
fn embeddings_of_layers_follow_the_token_and_what_enters_layer_0() {
    let model = sharing();
    let mut plan = Plan::default();
    let (prompt, other) = (plan.prompt("p", vec![5, 9, 7, 30]), plan.prompt("other", vec![5, 9, 12, 30]));
    let swapped = |kind: SiteKind| edit(kind.at(0), Positions::At(vec![2]), Change::interchange(other));
    let restored = edit(SiteKind::ResidMid.at(0), Positions::All, Change::interchange(prompt));
    let embed = plan.fork(prompt, vec![swapped(SiteKind::Embed), restored.clone()]);
    let stream = plan.fork(prompt, vec![swapped(SiteKind::ResidPre), restored.clone()]);
    let both = plan.fork(embed, vec![swapped(SiteKind::ResidMid)]);
    for run in [prompt, embed, stream, both, other] {
        let (site, positions) = (SiteKind::PleOut.at(0), Positions::At(vec![2]));
        plan.read(run, Activation { site, positions, part: Part::All });
    }
    agree(&model, &plan).expect("both engines");
    let found = readings(&model, &plan, &Options::default()).expect("readings");
    let same = |a: usize, b: usize| difference(&found[a..=a], &found[b..=b], 1e-6).is_none();
    assert!(!same(1, 0), "the embedding is projected for each layer");
    assert!(same(2, 0), "the stream before layer 0 is not");
    assert!(!same(3, 4), "the token's own part is the run's");
}

#[test]
fn an_edit_of_the_first_stream_of_several_leaves_what_the_others_held() {
    let model = open("families/gemma3n");
    let last = model.decoder.arch.n_layers - 1;
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", vec![5, 9, 7, 30]);
    let change = Change::Scale(1.5);
    let other = plan.fork(prompt, vec![edit(SiteKind::MlpDelta.at(1), Positions::At(vec![2]), change)]);
    let taken = |site: Site| edit(site, Positions::All, Change::interchange(other));
    let [pre, post] =
        [SiteKind::ResidPre.at(2), SiteKind::ResidPost.at(last)].map(|s| plan.fork(prompt, vec![taken(s)]));
    for run in [prompt, other, pre, post] {
        for site in [SiteKind::ResidPre.at(2), SiteKind::ResidPost.at(last), SiteKind::FinalNorm.at(0)] {
            plan.read(run, Activation { site, positions: Positions::At(vec![2]), part: Part::All });
        }
    }
    agree(&model, &plan).expect("both engines");
    let found = readings(&model, &plan, &Options::default()).expect("readings");
    let same = |a: usize, b: usize| difference(&found[a..=a], &found[b..=b], 1e-5).is_none();
    assert!(!same(0, 3) && same(6, 3), "the stream is taken");
    assert!(!same(7, 4) && !same(7, 1), "what comes of it is of both runs");
    assert!(same(10, 4) && !same(11, 5) && !same(11, 2), "the end reads the other streams, too");
}

#[test]
fn a_site_of_another_layers_keys_is_an_error_that_names_where_they_are_and_edges_are_refused() {
    let model = sharing();
    let refused = |plan: &Plan| run(&model.decoder, plan, &Options::default()).expect_err("a bad plan").to_string();
    for (kind, layer, nearest) in [(SiteKind::K, 5, "k.2"), (SiteKind::RotK, 4, "rot_k.3"), (SiteKind::V, 4, "v.3")] {
        let message = refused(&plan_with(|e, _| e.site = kind.at(layer)));
        assert_names(&message, &["fork 0", &kind.at(layer).to_string(), "of an earlier one", nearest]);
    }
    let message = run(&open("llama").decoder, &plan_with(|e, _| e.site = SiteKind::PleOut.at(1)), &Options::default());
    assert_names(&message.expect_err("a bad plan").to_string(), &["ple_out.1", "resid_post.1"]);
    let mut plan = Plan::default();
    let [a, b] = [3, 4].map(|id| plan.prompt("p", vec![id; 4]));
    let edges = EdgeEffects {
        metric: Metric::logit_difference(vec![11], vec![23]),
        donor: b,
        positions: Positions::All,
        alignment: Alignment::default(),
        by: EdgeEstimate::Attribution,
    };
    plan.read(a, edges);
    assert_names(&refused(&plan), &["edges", "layer 0", "an embedding of the token"]);
}

#[test]
fn logits_of_all_positions_are_those_read_one_at_a_time() {
    let model = open("gemma2");
    let mut plan = Plan::default();
    let prompts: Vec<Run> = (1..7).map(|n| plan.prompt("p", (n..3 * n).collect())).collect();
    let logits = |positions: Positions| Activation { site: SiteKind::Logits.at(0), positions, part: Part::All };
    let whole: Vec<usize> = prompts.iter().map(|run| plan.read(*run, logits(Positions::All)).readout()).collect();
    let single: Vec<Vec<usize>> = prompts
        .iter()
        .map(|run| (0..plan.length(*run)).map(|p| plan.read(*run, logits(Positions::At(vec![p]))).readout()).collect())
        .collect();
    let kl = plan.read(prompts[5], KlFrom(prompts[0])).readout();
    // Room for all rows, for some, and for none.
    let found = [usize::MAX, 2 * 4 * 160 * 7, 1]
        .map(|budget| readings(&model, &plan, &Options { budget, ..Options::default() }).expect("readings"));
    for found in &found {
        for (whole, single) in whole.iter().zip(&single) {
            let rows: Vec<f32> = single.iter().flat_map(|i| found[*i].values()).collect();
            assert_eq!(found[*whole].values(), rows);
        }
        assert!(found[kl].number().expect("a number") > 0.0);
    }
    assert_eq!(bits(&found[0]), bits(&found[1]));
    assert_eq!(bits(&found[0]), bits(&found[2]));
}

#[test]
fn an_interchange_of_a_prompt_with_itself_changes_nothing() {
    for family in FAMILIES {
        let model = open(family);
        let arch = &model.decoder.arch;
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", (20..33).collect());
        let base = plan.read(prompt, metric()).readout();
        for kind in KINDS.map(|(kind, _)| kind) {
            for site in (0..arch.n_layers).map(|l| kind.at(l)).filter(|site| site.check(arch).is_ok()) {
                for positions in [Positions::Last, Positions::All, Positions::At(vec![4, 2])] {
                    let fork = plan.fork(prompt, vec![edit(site, positions, Change::interchange(prompt))]);
                    plan.read(fork, metric());
                }
            }
        }
        let found = readings(&model, &plan, &Options::default()).expect("readings");
        for (reading, readout) in found.iter().zip(&plan.readouts) {
            let off = reading.number().unwrap_or(f64::NAN) - found[base].number().unwrap_or(f64::NAN);
            assert!(off.abs() < 1e-5, "{family} {}: {off}", plan.describe(readout.run));
        }
    }
}

/// Holds `how` to the default options, bit for bit, for plans of every family.
fn equals_the_default(how: impl Fn(&Model, &Plan) -> Result<Vec<Reading>, TestCaseError>) {
    for (i, family) in FAMILIES.into_iter().enumerate() {
        let model = open(family);
        let arch = &model.decoder.arch;
        check(15, 50 + i as u8, recipe(2..6, 0..8, 1..10), |recipe| {
            let plan = Cook::plan_of(&recipe, arch);
            let expected = readings(&model, &plan, &Options::default())?;
            prop_assert_eq!(bits(&how(&model, &plan)?), bits(&expected), "{}: {:?}", family, plan);
            Ok(())
        });
    }
}

#[test]
fn readings_do_not_depend_on_the_budget() {
    // One row at a time through an MLP; some rows, which do not divide evenly; all.
    for budget in [1, 12 * 80 * 7, usize::MAX] {
        equals_the_default(|model, plan| readings(model, plan, &Options { budget, ..Options::default() }));
    }
}

#[test]
fn readings_do_not_depend_on_the_number_of_threads() {
    for threads in [1, 2] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        equals_the_default(|model, plan| pool.install(|| readings(model, plan, &Options::default())));
    }
}

#[test]
fn readings_of_an_item_do_not_depend_on_the_other_items_nor_on_their_order() {
    for (i, family) in FAMILIES.into_iter().enumerate() {
        let model = open(family);
        let arch = &model.decoder.arch;
        let together = |items: &mut dyn Iterator<Item = &Recipe>| -> Result<Vec<Vec<Reading>>, TestCaseError> {
            let mut cook = Cook::new(arch);
            let ranges: Vec<Range<usize>> = items.map(|item| cook.add(item)).collect();
            let found = readings(&model, &cook.plan, &Options::default())?;
            Ok(ranges.into_iter().map(|range| found[range].to_vec()).collect())
        };
        check(10, 90 + i as u8, vec(recipe(1..3, 0..4, 1..5), 2..5), |items| {
            let forwards = together(&mut items.iter())?;
            let backwards = together(&mut items.iter().rev())?;
            for (item, (f, b)) in items.iter().zip(forwards.iter().zip(backwards.iter().rev())) {
                let alone = together(&mut std::iter::once(item))?;
                prop_assert_eq!(bits(b), bits(f), "{}: {:?}", family, items);
                prop_assert_eq!(bits(&alone[0]), bits(f), "{}: {:?}", family, items);
            }
            Ok(())
        });
    }
}

#[test]
fn a_fork_at_the_last_position_costs_one_row_a_layer_from_its_own_on() {
    for family in FAMILIES {
        let model = open(family);
        let arch = &model.decoder.arch;
        let n = 17;
        for (layer, head) in model.heads() {
            let mut plan = Plan::default();
            let prompt = plan.prompt("p", vec![1; n]);
            let alone = size(&plan.compile(arch).expect("a sound plan"), Engine::Wavefront).rows;
            assert_eq!(alone, (n * arch.n_layers) as u64);
            let edit =
                Edit { part: Part::Heads(vec![head]), ..edit(SiteKind::Z.at(layer), Positions::Last, Change::Zero) };
            let fork = plan.fork(prompt, vec![edit]);
            plan.read(fork, metric());
            let rows = size(&plan.compile(arch).expect("a sound plan"), Engine::Wavefront).rows - alone;
            assert_eq!(rows, (arch.n_layers - layer) as u64, "{family} layer {layer}");
        }
    }
}

#[test]
fn a_pass_ends_after_the_last_layer_that_is_read_and_its_readings_are_those_of_a_whole_one() {
    for family in FAMILIES {
        let model = open(family);
        let arch = &model.decoder.arch;
        let activation = |site: Site| Activation { site, positions: Positions::All, part: Part::All };
        // A fork of each prompt, edited in layer 1 and beyond the last layer of which something is read.
        let plan = |whole: bool| {
            let mut plan = Plan::default();
            for (p, site) in [SiteKind::Embed.at(0), SiteKind::Z.at(1), SiteKind::ResidPost.at(2)].iter().enumerate() {
                let prompt = plan.prompt("p", vec![p as u32 + 3; 5 + p]);
                let edits = [1, 3].map(|l| edit(SiteKind::AttnOut.at(l), Positions::At(vec![2]), Change::Scale(2.0)));
                let fork = plan.fork(prompt, edits.to_vec());
                for run in [prompt, fork] {
                    plan.read(run, activation(*site));
                }
                if whole {
                    plan.read(fork, What::Entropy);
                }
            }
            plan
        };
        for engine in [Engine::Wavefront, Engine::Full] {
            let ran = |plan: &Plan| {
                let rows = AtomicU64::new(0);
                let progress = |more: Told| {
                    rows.fetch_add(more.computed(), Ordering::Relaxed);
                };
                let options = Options { progress: &progress, ..options(engine) };
                let found = run(&model.decoder, plan, &options).expect("readings");
                assert_eq!(
                    rows.load(Ordering::Relaxed),
                    size(&plan.compile(arch).expect("a sound plan"), engine).rows,
                    "{family}, {engine}"
                );
                (found, rows.into_inner())
            };
            let ((found, rows), (whole, _)) = (ran(&plan(false)), ran(&plan(true)));
            let of_sites: Vec<Reading> = whole.into_iter().filter(|r| r.number().is_none()).collect();
            assert_eq!(bits(&found), bits(&of_sites), "{family}, {engine}");
            // Of the forks, rows from their edit on, and from layer 1 on.
            let expected = match engine {
                Engine::Wavefront => 6 * 2 + 7 * 3 + 1 + (1 + 7 - 2),
                Engine::Full => 2 * (6 * 2 + 7 * 3),
            };
            assert_eq!(rows, expected, "{family}, {engine}");
        }
    }
}

/// A plan of prompts of three and four tokens and a fork of the first with an edit, and a metric.
fn plan_with(change: impl FnOnce(&mut Edit, Run)) -> Plan {
    let mut plan = Plan::default();
    let (prompt, other) = (plan.prompt("short", vec![1, 2, 3]), plan.prompt("long", vec![1, 2, 3, 4]));
    let mut edit = edit(SiteKind::Z.at(0), Positions::Last, Change::Zero);
    change(&mut edit, other);
    let fork = plan.fork(prompt, vec![edit]);
    plan.read(fork, metric());
    plan
}

/// The message with which both engines refuse a plan.
#[track_caller]
fn refused(plan: &Plan) -> String {
    let model = open("llama");
    let [full, wave] = [Engine::Full, Engine::Wavefront]
        .map(|engine| run(&model.decoder, plan, &options(engine)).expect_err("a bad plan").to_string());
    assert_eq!(full, wave);
    full
}

#[track_caller]
fn assert_names(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{message}` does not name `{word}`");
    }
}

#[test]
fn a_bad_edit_is_an_error_that_names_the_fork_and_what_is_out_of_range() {
    let fork = "fork 0 of prompt `short`";
    let message = |change: &dyn Fn(&mut Edit, Run)| refused(&plan_with(change));
    assert_names(&message(&|e, _| e.site = SiteKind::Z.at(4)), &[fork, "z.4", "4 layers"]);
    assert_names(&message(&|e, _| e.part = Part::Heads(vec![1, 4])), &[fork, "z.0", "head 4"]);
    assert_names(&message(&|e, _| e.part = Part::Columns(vec![48])), &[fork, "z.0", "column 48"]);
    assert_names(&message(&|e, _| e.positions = Positions::At(vec![0, 3])), &[fork, "z.0", "position 3"]);
    assert_names(&message(&|e, _| e.positions = Positions::At(Vec::new())), &[fork, "z.0", "no position"]);
    assert_names(&message(&|e, _| e.change = Change::Set(vec![0.0; 47].into())), &[fork, "z.0", "47", "48"]);
    assert_names(&message(&|e, _| e.change = Change::ProjectOut(vec![0.0; 3].into())), &[fork, "z.0", "3", "48"]);
    assert_names(&message(&|e, _| e.change = Change::interchange(Run::Fork(0))), &["fork 0", "donor"]);
    assert_names(&message(&|e, _| e.change = Change::interchange(Run::Fork(3))), &["fork 0", "donor", "fork 3"]);
    assert_names(&message(&|e, _| e.change = Change::interchange(Run::Prompt(2))), &["fork 0", "donor", "prompt 2"]);
    let whole = |e: &mut Edit, other: Run| {
        e.positions = Positions::All;
        e.change = Change::interchange(other);
    };
    assert_names(&message(&whole), &[fork, "z.0", "3 tokens", "`long`", "4"]);
    let uneven = |e: &mut Edit, donor: Run| e.change = Change::Interchange { donor, positions: Some(vec![0, 1]) };
    assert_names(&message(&uneven), &[fork, "z.0", "1 positions", "2"]);
    let beyond = |e: &mut Edit, donor: Run| e.change = Change::Interchange { donor, positions: Some(vec![4]) };
    assert_names(&message(&beyond), &[fork, "z.0", "`long`", "position 4"]);
    let clamp = |low: f32, high: f32| message(&|e, _| e.change = Change::Clamp { low, high });
    assert_names(&clamp(0.5, 0.25), &[fork, "z.0", "0.5..0.25"]);
    assert_names(&clamp(f32::NAN, 1.0), &[fork, "z.0", "NaN..1"]);
    let pattern = |e: &mut Edit, donor: Run| {
        e.site = SiteKind::Pattern.at(0);
        e.change = Change::interchange(donor);
    };
    assert_names(&message(&pattern), &[fork, "pattern.0", "`long`", "4 positions"]);
}

#[test]
fn a_site_without_heads_and_a_site_that_the_family_has_not_are_errors_that_name_them() {
    let heads = |e: &mut Edit, _: Run| {
        e.site = SiteKind::MlpAct.at(1);
        e.part = Part::Heads(vec![0]);
    };
    assert_names(&refused(&plan_with(heads)), &["fork 0", "mlp_act.1", "heads"]);
    let model = open("gpt2");
    let plan = plan_with(|e, _| e.site = SiteKind::RotQ.at(1));
    let message = run(&model.decoder, &plan, &Options::default()).expect_err("a bad plan").to_string();
    assert_names(&message, &["fork 0", "rot_q.1", "q.1"]);
}

#[test]
fn a_bad_prompt_is_an_error_that_names_it() {
    let with = |ids: Vec<u32>| {
        let mut plan = Plan::default();
        plan.prompt("fine", vec![1]);
        plan.prompt("bad", ids);
        refused(&plan)
    };
    assert_names(&with(vec![5, 160]), &["`bad`", "token id 160", "position 1", "159"]);
    assert_names(&with(Vec::new()), &["`bad`", "no tokens"]);
    assert_names(&with(vec![1; 129]), &["`bad`", "129 tokens", "128"]);
}

#[test]
fn a_bad_readout_is_an_error_that_names_it() {
    fn with(run: Run, what: impl Readable) -> String {
        let mut plan = plan_with(|_, _| ());
        plan.read(run, what);
        refused(&plan)
    }
    let prompt = Run::Prompt(0);
    let activation = |site: Site, positions: Positions, part: Part| Activation { site, positions, part };
    let z = |l: usize| SiteKind::Z.at(l);
    assert_names(&with(Run::Fork(7), metric()), &["readout 1", "Fork(7)"]);
    assert_names(&with(prompt, activation(z(9), Positions::Last, Part::All)), &["readout 1", "z.9"]);
    assert_names(&with(prompt, activation(z(0), Positions::Last, Part::Heads(vec![5]))), &["readout 1", "head 5"]);
    assert_names(&with(prompt, activation(z(0), Positions::At(vec![3]), Part::All)), &["readout 1", "position 3"]);
    assert_names(&with(prompt, What::Metric(Metric::logit_difference(vec![1], vec![160]))), &["readout 1", "160"]);
    assert_names(&with(prompt, What::Metric(Metric::logit_difference(vec![1], vec![]))), &["readout 1", "foil"]);
    assert_names(&with(prompt, What::Metric(Metric::Continuation { from: 0 })), &["readout 1", "position 0"]);
    assert_names(&with(prompt, What::Metric(Metric::Continuation { from: 3 })), &["readout 1", "position 3"]);
    assert_names(&with(prompt, What::KlFrom(Run::Fork(1))), &["readout 1", "Fork(1)"]);
    let direction = Projection { site: z(0), positions: Positions::Last, direction: vec![1.0; 5].into() };
    assert_names(&with(prompt, direction), &["readout 1 of prompt `short`", "5 numbers", "48"]);
    for part in [Part::Heads(Vec::new()), Part::Columns(Vec::new())] {
        let nothing = activation(z(0), Positions::Last, part.clone());
        assert_names(&with(Run::Fork(0), nothing), &["readout 1 of fork 0 of prompt `short`", "reads nothing"]);
        let metric = Metric::logit_difference(vec![1], vec![2]);
        let nothing = Gradient { metric, site: z(0), positions: Positions::Last, part };
        assert_names(&with(prompt, nothing), &["readout 1 of prompt `short`", "reads nothing"]);
    }
    let (site, direction) = (SiteKind::Scores.at(0), vec![1.0; 12].into());
    let scores = Projection { site, positions: Positions::Last, direction };
    assert_names(&with(prompt, scores), &["readout 1 of prompt `short`", "minus infinity", "pattern.0"]);
}

#[test]
fn a_reading_that_is_not_finite_is_an_error_that_names_what_would_help() {
    let huge = |e: &mut Edit, _: Run| e.change = Change::Add { vector: vec![1e30; 48].into(), coefficient: 1e30 };
    let message = |dtype: DType| {
        let dir = family_dir("llama");
        let options = ModelOptions { dtype, ..ModelOptions::default() };
        let model = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
        run(&model.decoder, &plan_with(huge), &Options::default()).expect_err("no number").to_string()
    };
    let wide = message(DType::F32);
    assert_names(&wide, &["readout 0 of fork 0 of prompt `short`", "f32 already", "edit"]);
    assert!(!wide.contains("dtype = "), "{wide}");
    assert_names(&message(DType::BF16), &["readout 0", "dtype = f32"]);
}
