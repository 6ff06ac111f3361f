//! What a session cuts into pieces comes out as if it were whole, also after a stop.

use crate::support::cli::{Bench, listed, pair};
use crate::support::copies::{Folder, Stored};
use crate::support::{FAMILIES, Golden, family_dir, open};
use clap::Parser;
use gatelens::analyses::ablate::Ablate;
use gatelens::analyses::dla::Dla;
use gatelens::analyses::interchange::Interchange;
use gatelens::analyses::{About, Analysis};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Activation, Change, Edit, Gradient, LogProbs, Metric, Part, Plan, Positions, Run, What};
use gatelens::run::{Array, Cancel, Engine, Generated, Generation, Options, Reading, RunError, Sampling, Steps, run};
use gatelens::rundir::RunDir;
use gatelens::site::SiteKind;
use gatelens::study::counter::Counter;
use gatelens::study::parts::Parts;
use gatelens::study::session::{Limits, Session, SessionError, Wanted};
use gatelens::study::{Progress, Runner as _, Work};
use gatelens::table::Table;
use serde_json::{Map, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// No limit, but for those that a test sets.
const WHOLE: Limits = Limits { flops: f64::INFINITY, bytes: f64::INFINITY, runs: usize::MAX };

/// Limits that leave nothing together that can be parted.
const SINGLE: Limits = Limits { flops: 1.0, bytes: 1.0, runs: 1 };

fn ids(seed: u32, n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + seed * 11 + 5) % 160).collect()
}

fn metric() -> Metric {
    Metric::logit_difference(vec![11, 40], vec![23])
}

/// Pairs of prompts of unlike lengths with forks of both, of which all kinds of things are read, in no order.
fn pairs(n: u32) -> Plan {
    let mut plan = Plan::default();
    let mut read = Vec::new();
    for i in 0..n {
        let runs = [0, 1].map(|side| plan.prompt(format!("{i}, {side}"), ids(2 * i + side, 3 + (i + side) % 7)));
        for (run, donor) in [(runs[0], runs[1]), (runs[1], runs[0])] {
            let change = Change::interchange(donor);
            let part = Part::Heads(vec![i as usize % 2]);
            let edit = Edit { site: SiteKind::Z.at(1), part, positions: Positions::Last, change };
            let fork = plan.fork(run, vec![edit]);
            read.extend([run, fork].map(|run| (run, What::Metric(metric()))));
            read.push((fork, What::KlFrom(run)));
            read.push((fork, What::Attribution(metric())));
            let (site, positions, part) = (SiteKind::ResidPost.at(2), Positions::All, Part::All);
            read.push((fork, Activation { site, positions: positions.clone(), part: part.clone() }.into()));
            read.push((run, Gradient { metric: metric(), site, positions, part }.into()));
        }
    }
    // A pair's own stand in one order, however many pairs there are.
    let of_pair = read.len() / n as usize;
    for k in 0..of_pair {
        for pair in read.chunks(of_pair) {
            let (run, what) = pair[k * 7 % of_pair].clone();
            plan.read(run, what);
        }
    }
    plan
}

fn bits(readings: &[Reading]) -> Vec<Vec<u64>> {
    let of = |r: &Reading| match r {
        Reading::Number(x) => vec![x.to_bits()],
        Reading::Array(Array { values, .. }) => values.iter().map(|v| u64::from(v.to_bits())).collect(),
    };
    readings.iter().map(of).collect()
}

/// Counts the rows that a session tells of.
#[derive(Default)]
struct Rows {
    computed: AtomicU64,
    kept: AtomicU64,
    /// What is cancelled once so many were computed.
    cancels: Option<(u64, Cancel)>,
}

impl Rows {
    fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    fn seen(&self) -> u64 {
        self.computed() + self.kept.load(Ordering::Relaxed)
    }
}

impl Progress for Rows {
    fn advance(&self, done: Work) {
        assert!(done.flops > 0.0 || done.rows == 0);
        let before = self.computed.fetch_add(done.rows, Ordering::Relaxed);
        let reached = |(at, _): &&(u64, Cancel)| before + done.rows >= *at;
        self.cancels.as_ref().filter(reached).inspect(|(_, cancel)| cancel.cancel());
    }

    fn kept(&self, done: Work) {
        self.kept.fetch_add(done.rows, Ordering::Relaxed);
    }
}

/// A run directory to be resumed, and the parts in it.
struct Directory {
    bench: Bench,
}

impl Directory {
    fn new() -> Self {
        Directory { bench: Bench::new() }
    }

    fn open(&self) -> RunDir {
        let directory = RunDir::create(&self.bench.out("run"), false, true).unwrap();
        directory.claim(&Map::new()).unwrap();
        directory
    }

    fn parts(&self) -> Vec<PathBuf> {
        let parts = self.bench.out("run.partial/.parts");
        listed(&parts).into_iter().map(|name| parts.join(name)).collect()
    }

    /// Takes away what a run that stopped had not done; returns what it had.
    fn stop_after(&self, n: usize) -> Vec<(PathBuf, std::time::SystemTime)> {
        let parts = self.parts();
        assert!(n < parts.len(), "{parts:?}");
        parts[n..].iter().for_each(|part| std::fs::remove_file(part).unwrap());
        parts[..n].iter().map(|part| (part.clone(), part.metadata().unwrap().modified().unwrap())).collect()
    }
}

#[test]
fn readings_do_not_depend_on_where_a_plan_is_cut_nor_on_a_stop() {
    for family in FAMILIES {
        let (model, plan) = (Arc::new(open(family)), pairs(9));
        for engine in [Engine::Wavefront, Engine::Full] {
            let expected = run(&model.decoder, &plan, &Options { engine, ..Options::default() }).unwrap();
            // Either limit alone, for pieces of one pair and of a few.
            let arch = &model.decoder.arch;
            let (row, few) = (2.0 * arch.layer_params() as f64, 20.0 * arch.d_model as f64 * 4.0);
            let flops = [1.0, 250.0 * row].map(|flops| Limits { flops, ..WHOLE });
            // The full engine holds one run's stream at a time.
            let bytes = [Limits { bytes: few, ..WHOLE }].into_iter().filter(|_| engine == Engine::Wavefront);
            for limits in flops.into_iter().chain(bytes) {
                let directory = Directory::new();
                let read = || {
                    let kept = directory.open();
                    let session = Session::new(&model, engine, 0).limited(limits).resumable(kept.parts());
                    bits(&session.run(&plan).unwrap())
                };
                assert!(read() == bits(&expected), "{family}, {engine}, {limits:?}");
                let parts = directory.parts().len();
                let singly = limits.flops == 1.0;
                assert!(
                    if singly { parts == 9 } else { (2..9).contains(&parts) },
                    "{family}, {limits:?}: {parts} parts"
                );
                let kept = directory.stop_after(parts / 2);
                assert!(read() == bits(&expected), "{family}, {engine}, {limits:?}, after a stop");
                assert_eq!(directory.parts().len(), parts);
                assert!(kept.iter().all(|(part, at)| part.metadata().unwrap().modified().unwrap() == *at));
            }
        }
    }
}

/// An analysis as its flags say.
#[derive(Parser)]
struct Flags<A: clap::Args> {
    #[command(flatten)]
    analysis: A,
}

fn parsed<A: clap::Args>(words: &[&str]) -> A {
    let words = std::iter::once("x").chain(words.iter().copied());
    Flags::try_parse_from(words).unwrap_or_else(|e| panic!("{e}")).analysis
}

/// Holds the tables of an analysis to themselves: in one piece, in as many as there can be, and after a stop among those.
#[track_caller]
fn holds<A: Analysis + clap::Args>(model: &Arc<Model>, words: &[&str]) {
    let analysis: A = parsed(words);
    let items = analysis.prepare(model).unwrap_or_else(|e| panic!("{e}")).items;
    let bytes = |session: Session| -> Vec<(String, Vec<u8>)> {
        let measured = analysis.measure(&session, &items).unwrap_or_else(|e| panic!("{e}"));
        let output = analysis.tables(&About::of(&session), &items, measured).unwrap_or_else(|e| panic!("{e}"));
        output.tables.iter().map(|t: &Table| (t.name().to_string(), t.to_parquet().unwrap())).collect()
    };
    let new = || Session::new(model, Engine::Wavefront, 3);
    let expected = bytes(new().limited(WHOLE));
    let directory = Directory::new();
    let cut = || {
        let kept = directory.open();
        bytes(new().limited(SINGLE).resumable(kept.parts()))
    };
    assert!(cut() == expected, "{}", A::NAME);
    let parts = directory.parts().len();
    assert!(parts >= 8, "{}: {parts} parts", A::NAME);
    for n in [0, 1, parts / 2, parts - 1] {
        directory.stop_after(n);
        assert!(cut() == expected, "{}, stopped after {n} of {parts} parts", A::NAME);
    }
}

#[test]
fn tables_do_not_depend_on_where_plans_are_cut_nor_on_a_stop() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), Arc::new(open("llama")));
    let swapped = |i: u32| {
        let [mut positive, negative] = ["input_ids", "donor_ids"].map(|name| golden.ids(name, i as usize % 2));
        positive[1] = i;
        (positive, negative)
    };
    let line = |i: u32| {
        let (positive, negative) = swapped(i);
        pair(&format!("p{i}"), &positive, &negative)
    };
    let prompt = |i: u32| {
        let (positive, _) = swapped(i);
        json!({"id": i, "prompt": {"ids": positive}, "answer": [11], "foil": [23]})
    };
    let path = |path: &Path| path.to_str().unwrap().to_string();
    let pairs = path(&bench.dataset("pairs.jsonl", &(0..8).map(line).collect::<Vec<_>>()));
    let prompts = path(&bench.dataset("prompts.jsonl", &(0..8).map(prompt).collect::<Vec<_>>()));
    holds::<Interchange>(&model, &["--pairs", &pairs, "--position", "all"]);
    holds::<Interchange>(&model, &["--pairs", &pairs, "--estimate", "gradient", "--exact", "4"]);
    holds::<Ablate>(&model, &["--prompts", &prompts, "--mode", "zero,mean"]);
    holds::<Dla>(&model, &["--prompts", &prompts]);
}

// ---- Parts, by what they are of -----------------------------------------------------------------------------------

/// A folder of parts, and a session that keeps each pair of a plan as one.
fn keeping(folder: &Path, model: &Arc<Model>, engine: Engine) -> Session {
    std::fs::create_dir_all(folder).unwrap();
    Session::new(model, engine, 0).limited(SINGLE).resumable(Parts::new(folder, ""))
}

#[test]
fn parts_that_machines_made_apart_are_gathered_in_one_folder() {
    let (bench, model, plan) = (Bench::new(), Arc::new(open("llama")), pairs(6));
    let expected = run(&model.decoder, &plan, &Options::default()).unwrap();
    // What runs that were stopped at different places have left, one of a plan that holds the pairs of the other.
    let (first, second) = (bench.path("first"), bench.path("second"));
    keeping(&first, &model, Engine::Wavefront).run(&pairs(4)).unwrap();
    keeping(&second, &model, Engine::Wavefront).run(&plan).unwrap();
    assert_eq!((listed(&first).len(), listed(&second).len()), (4, 6));
    assert!(listed(&first).iter().all(|name| listed(&second).contains(name)), "the same pieces have the same names");
    for name in listed(&second) {
        std::fs::copy(second.join(&name), first.join(&name)).unwrap();
    }
    let rows = Arc::new(Rows::default());
    let session = keeping(&first, &model, Engine::Wavefront).watched(rows.clone());
    assert!(bits(&session.run(&plan).unwrap()) == bits(&expected));
    assert_eq!((rows.computed(), listed(&first).len()), (0, 6));
}

#[test]
fn a_part_is_taken_for_no_other_engine_model_or_piece() {
    let (bench, plan) = (Bench::new(), pairs(2));
    let (folder, written) = (bench.path("parts"), Folder::of("llama").weights(|_| {}));
    let open =
        |folder: &Folder| Arc::new(Model::open(folder.path().to_str().unwrap(), &ModelOptions::default()).unwrap());
    let model = open(&written);
    keeping(&folder, &model, Engine::Wavefront).run(&plan).unwrap();
    let names = listed(&folder);
    keeping(&folder, &model, Engine::Full).run(&plan).unwrap();
    assert_eq!(listed(&folder).len(), 4);
    // Other numbers in tensors of the same shapes, in a file of the same size.
    let other = Folder::of("llama").weights(|tensors| {
        let norm = tensors.values_mut().find(|stored| stored.shape.len() == 1).unwrap();
        *norm = Stored::floats(&norm.shape.clone(), &vec![0.5; norm.shape[0]]);
    });
    let other = open(&other);
    assert_eq!(model.sha256, other.sha256);
    let found = keeping(&folder, &other, Engine::Wavefront).run(&plan).unwrap();
    assert!(bits(&found) == bits(&run(&other.decoder, &plan, &Options::default()).unwrap()));
    assert_eq!(listed(&folder).len(), 6);
    // A part under another's name is refused by it.
    std::fs::copy(folder.join(&names[0]), folder.join(&names[1])).unwrap();
    let why = keeping(&folder, &model, Engine::Wavefront).run(&plan).unwrap_err().to_string();
    assert!(why.contains(&names[1]) && why.contains("not what its name says"), "{why}");
}

#[test]
fn functions_of_a_caller_share_no_part() {
    let (bench, model) = (Bench::new(), Arc::new(open("llama")));
    let scaled = |by: f32| {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", ids(1, 5));
        let change = Change::Map(Arc::new(move |row: &mut [f32]| row.iter_mut().for_each(|x| *x *= by)));
        let site = SiteKind::ResidPost.at(1);
        let fork = plan.fork(prompt, vec![Edit { site, part: Part::All, positions: Positions::Last, change }]);
        plan.read(fork, metric());
        plan
    };
    let folder = bench.path("parts");
    let session = keeping(&folder, &model, Engine::Wavefront);
    let [one, two] = [1.0, -3.0].map(|by| bits(&session.run(&scaled(by)).unwrap()));
    assert!(one != two);
    let again = keeping(&folder, &model, Engine::Wavefront);
    assert!(
        [1.0, -3.0].map(|by| bits(&again.run(&scaled(by)).unwrap())) == [one, two],
        "a stopped run goes on in its order"
    );
    assert_eq!(listed(&folder).len(), 2);
}

#[test]
fn a_run_that_is_cancelled_keeps_what_it_finished() {
    let (bench, model, plan, cancel) = (Bench::new(), Arc::new(open("llama")), pairs(6), Cancel::default());
    let whole = Arc::new(Rows::default());
    keeping(&bench.path("whole"), &model, Engine::Wavefront).watched(whole.clone()).run(&plan).unwrap();
    let cancels = Some((whole.computed() / 2, cancel.clone()));
    let (folder, rows) = (bench.path("parts"), Arc::new(Rows { cancels, ..Rows::default() }));
    let session = keeping(&folder, &model, Engine::Wavefront).watched(rows).cancelled_by(cancel);
    assert!(matches!(session.run(&plan), Err(SessionError::Run(RunError::Cancelled(_)))));
    assert!((1..6).contains(&listed(&folder).len()), "{:?}", listed(&folder));
    let found = keeping(&folder, &model, Engine::Wavefront).run(&plan).unwrap();
    assert!(bits(&found) == bits(&run(&model.decoder, &plan, &Options::default()).unwrap()));
}

// ---- Answers ------------------------------------------------------------------------------------------------------

fn sampled(runs: Vec<Run>) -> Generation {
    let sampling = Sampling::Sample { temperature: 2.0, top_p: 1.0, seed: 4 };
    Generation { runs, max_tokens: 8, sampling, steps: Steps::PromptOnly, stop: (0..20).collect() }
}

/// Three prompts, and a fork of the first.
fn prompts() -> (Plan, Vec<Run>) {
    let mut plan = Plan::default();
    let mut runs: Vec<Run> = [7, 1, 12].iter().map(|n| plan.prompt(format!("p{n}"), ids(*n, *n))).collect();
    let edit =
        Edit { site: SiteKind::Z.at(1), part: Part::All, positions: Positions::Last, change: Change::Scale(-2.0) };
    runs.push(plan.fork(runs[0], vec![edit]));
    for run in &runs {
        plan.read(*run, What::Metric(metric()));
    }
    (plan, runs)
}

#[test]
fn samples_do_not_depend_on_where_their_list_is_cut_nor_on_a_stop() {
    let (model, (plan, runs)) = (Arc::new(open("llama")), prompts());
    let generation = sampled(runs.repeat(5));
    let answers = |session: Session| session.generate(&plan, &generation).unwrap();
    let whole = answers(Session::new(&model, Engine::Wavefront, 0).limited(WHOLE));
    let of_one: Vec<&Generated> = whole.iter().step_by(runs.len()).collect();
    assert!((1..5).all(|k| of_one[k] != of_one[0]), "each sample is another: {of_one:?}");
    for n in [1, 3, 4, 7] {
        let directory = Directory::new();
        let cut = || {
            let kept = directory.open();
            let limits = Limits { runs: n, ..WHOLE };
            answers(Session::new(&model, Engine::Wavefront, 0).limited(limits).resumable(kept.parts()))
        };
        assert_eq!(cut(), whole, "{n} at once");
        assert_eq!(directory.parts().len(), whole.len().div_ceil(n));
        directory.stop_after(1);
        assert_eq!(cut(), whole, "{n} at once, after a stop");
    }
}

/// All that a watcher was told of, done or not needed: operations, and those of tokens.
#[derive(Default)]
struct Told(Mutex<[f64; 2]>);

impl Told {
    fn add(&self, work: Work) {
        let mut sums = self.0.lock().unwrap();
        *sums = [sums[0] + work.flops, sums[1] + work.of_tokens];
    }
}

impl Progress for Told {
    fn advance(&self, done: Work) {
        assert!(done.of_tokens == 0.0 || done.of_tokens == done.flops, "{done:?}");
        self.add(done);
    }

    fn kept(&self, done: Work) {
        self.add(done);
    }

    fn spared(&self, not_needed: Work) {
        assert!(not_needed.of_tokens > 0.0, "{not_needed:?}");
        self.add(not_needed);
    }
}

#[test]
fn what_is_expected_of_texts_is_done_or_spared_also_by_a_run_that_takes_them_over() {
    let (model, (plan, runs), directory) = (Arc::new(open("llama")), prompts(), Directory::new());
    let generation = sampled(runs);
    let counter = Counter::new(&model, vec![Engine::Wavefront], 0);
    counter.generate(&plan, &generation).unwrap();
    let expected = counter.counted().work();
    assert!(expected.of_tokens > 0.0 && expected.of_tokens < expected.flops);
    for again in [false, true] {
        let (told, kept) = (Arc::new(Told::default()), directory.open());
        let session = Session::new(&model, Engine::Wavefront, 0).limited(WHOLE).resumable(kept.parts());
        let answers = session.watched(told.clone()).generate(&plan, &generation).unwrap();
        assert!(answers.iter().any(|answer| answer.stopped), "some text ends early");
        let told = *told.0.lock().unwrap();
        for (told, expected) in told.into_iter().zip([expected.flops, expected.of_tokens]) {
            // What a fork shares with its prompt is counted for a prompt that is longer, and each goes on by itself.
            assert!((told / expected - 1.0).abs() < 0.05, "again {again}: {told} and {expected}");
        }
    }
}

#[test]
fn what_is_counted_is_what_was_run_whether_weights_are_streamed_or_parts_were_kept() {
    let dir = family_dir("llama");
    let options = ModelOptions { max_memory: Some(1000), ..ModelOptions::default() };
    let streamed = Arc::new(Model::open(dir.to_str().unwrap(), &options).unwrap());
    assert!(streamed.decoder.streamed());
    let (plan, runs) = prompts();
    let directory = Directory::new();
    let totals = [&Arc::new(open("llama")), &streamed, &streamed].map(|model| {
        let rows = Arc::new(Rows::default());
        let kept = directory.open();
        let session = Session::new(model, Engine::Wavefront, 0).watched(rows.clone());
        let session = if model.decoder.streamed() { session.resumable(kept.parts()) } else { session };
        session.run(&plan).unwrap();
        let found = session.generate(&plan, &sampled(runs.repeat(100))).unwrap();
        assert!(found.iter().any(|g| g.stopped) && found.iter().any(|g| !g.stopped));
        let total = session.total();
        assert_eq!(total.rows, rows.seen());
        // The plan's own, though its runs went on too.
        assert_eq!((total.prompts, total.forks), (3, 1));
        total
    });
    assert_eq!(totals[0], totals[1]);
    assert_eq!(totals[0], totals[2]);
    assert!(!directory.parts().is_empty());
}

#[test]
fn scores_are_read_where_a_prompt_goes_through_all_layers_anyway() {
    let (model, rows) = (Arc::new(open("llama")), Arc::new(Rows::default()));
    let wanted = Wanted::from([(ids(1, 5), vec![11, 23])]);
    let session = Session::new(&model, Engine::Wavefront, 0).watched(rows.clone()).scoring(wanted, |_| {});
    let reads = |whats: &[What]| {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", ids(1, 5));
        whats.iter().for_each(|what| {
            plan.read(prompt, what.clone());
        });
        plan
    };
    let site = SiteKind::ResidPost.at(0);
    let first_layer = What::Activation(Activation { site, positions: Positions::Last, part: Part::All });
    session.run(&reads(std::slice::from_ref(&first_layer))).unwrap();
    assert!(session.scores().is_empty());
    assert_eq!((session.total().rows, rows.seen()), (5, 5));
    session.run(&reads(&[first_layer, What::Metric(metric())])).unwrap();
    let expected =
        run(&model.decoder, &reads(&[LogProbs { tokens: vec![11, 23] }.into()]), &Options::default()).unwrap();
    let expected: Vec<f64> = expected[0].values().into_iter().map(f64::from).collect();
    assert_eq!(session.scores()[&ids(1, 5)], expected);
    let all = 5 + 5 * model.decoder.arch.n_layers as u64;
    assert_eq!((session.total().rows, rows.seen()), (all, all));
}
