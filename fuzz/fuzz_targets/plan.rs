//! A plan of any shape: what the checker lets through must run, to the same readings in both engines.
#![no_main]

use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, Run, What};
use gatelens::run::{Engine, Options, Reading, run, size};
use gatelens::site::{KINDS, Site};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
enum Runs {
    Prompt(u8),
    Fork(u8),
}

#[derive(Arbitrary, Debug)]
enum Parts {
    All,
    Heads(Vec<u8>),
    Columns(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum At {
    Last,
    All,
    Some(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Changes {
    Zero,
    Set(u16, f32),
    Interchange(Runs, Option<Vec<u8>>),
    Add(u16, f32, f32),
    ProjectOut(u16, f32),
    Scale(f32),
    Clamp(f32, f32),
}

#[derive(Arbitrary, Debug)]
struct Edits(u8, u8, Parts, At, Changes);

#[derive(Arbitrary, Debug)]
enum Metrics {
    Difference(Vec<u16>, Vec<u16>),
    Continuation(u8),
}

#[derive(Arbitrary, Debug)]
enum Reads {
    Metric(Metrics),
    Activation(u8, u8, At, Parts),
    KlFrom(Runs),
    Entropy,
    Attribution(Metrics),
    Projection(u8, u8, At, u16),
    Gradient(Metrics, u8, u8, At, Parts),
}

#[derive(Arbitrary, Debug)]
struct Input {
    prompts: Vec<Vec<u16>>,
    forks: Vec<(Runs, Vec<Edits>)>,
    readouts: Vec<(Runs, Reads)>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/llama");
    Model::open(dir, &ModelOptions::default()).expect("a sound model")
});

fn site(kind: u8, layer: u8) -> Site {
    KINDS[usize::from(kind) % KINDS.len()].0.at(usize::from(layer % 8))
}

fn of(run: &Runs) -> Run {
    match run {
        Runs::Prompt(p) => Run::Prompt(usize::from(*p)),
        Runs::Fork(f) => Run::Fork(usize::from(*f)),
    }
}

fn list(v: &[u8]) -> Vec<usize> {
    v.iter().map(|x| usize::from(*x)).collect()
}

fn positions(at: &At) -> Positions {
    match at {
        At::Last => Positions::Last,
        At::All => Positions::All,
        At::Some(v) => Positions::At(list(v)),
    }
}

fn part(part: &Parts) -> Part {
    match part {
        Parts::All => Part::All,
        Parts::Heads(v) => Part::Heads(list(v)),
        Parts::Columns(v) => Part::Columns(list(v)),
    }
}

fn vector(n: u16, x: f32) -> std::sync::Arc<[f32]> {
    (0..n % 600).map(|i| x * f32::from(i % 7)).collect()
}

fn metric(metric: &Metrics) -> Metric {
    let ids = |v: &[u16]| v.iter().map(|x| u32::from(*x)).collect();
    match metric {
        Metrics::Difference(answer, foil) => Metric::logit_difference(ids(answer), ids(foil)),
        Metrics::Continuation(from) => Metric::Continuation { from: usize::from(*from) },
    }
}

fn change(change: &Changes) -> Change {
    match change {
        Changes::Zero => Change::Zero,
        Changes::Set(n, x) => Change::Set(vector(*n, *x)),
        Changes::Interchange(donor, from) => {
            Change::Interchange { donor: of(donor), positions: from.as_ref().map(|v| list(v)) }
        }
        Changes::Add(n, x, c) => Change::Add { vector: vector(*n, *x), coefficient: *c },
        Changes::ProjectOut(n, x) => Change::ProjectOut(vector(*n, *x)),
        Changes::Scale(c) => Change::Scale(*c),
        Changes::Clamp(low, high) => Change::Clamp { low: *low, high: *high },
    }
}

fn what(read: &Reads) -> What {
    match read {
        Reads::Metric(m) => What::Metric(metric(m)),
        Reads::Activation(k, l, at, p) => What::Activation { site: site(*k, *l), positions: positions(at), part: part(p) },
        Reads::KlFrom(run) => What::KlFrom(of(run)),
        Reads::Entropy => What::Entropy,
        Reads::Attribution(m) => What::Attribution(metric(m)),
        Reads::Projection(k, l, at, n) => {
            What::Projection { site: site(*k, *l), positions: positions(at), direction: vector(*n, 0.1) }
        }
        Reads::Gradient(m, k, l, at, p) => {
            What::Gradient { metric: metric(m), site: site(*k, *l), positions: positions(at), part: part(p) }
        }
    }
}

fuzz_target!(|input: Input| {
    let mut plan = Plan::default();
    for (i, ids) in input.prompts.iter().take(4).enumerate() {
        plan.prompt(format!("p{i}"), ids.iter().take(12).map(|x| u32::from(*x)).collect());
    }
    for (base, edits) in input.forks.iter().take(6) {
        let one = |Edits(kind, layer, p, at, c): &Edits| Edit {
            site: site(*kind, *layer),
            part: part(p),
            positions: positions(at),
            change: change(c),
        };
        plan.fork(of(base), edits.iter().take(4).map(one).collect());
    }
    for (run, read) in input.readouts.iter().take(8) {
        plan.read(of(run), what(read));
    }
    let _ = plan.to_string();
    if plan.check(&MODEL.decoder.arch).is_err() {
        return;
    }
    let both = [Engine::Wavefront, Engine::Full].map(|engine| {
        let _ = size(&plan, &MODEL.decoder.arch, engine);
        run(&MODEL.decoder, &plan, &Options { engine, ..Options::default() })
    });
    // Activations may overflow, by numbers that the plan holds; else both give readings, and the same.
    let [Ok(a), Ok(b)] = &both else { return };
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (values(a), values(b));
        let scale = a.iter().chain(&b).fold(1f32, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
        // Huge numbers cancel in any order.
        if scale < 1e4 {
            let far = a.iter().zip(&b).find(|(a, b)| a != b && (*a - *b).abs() > 1e-2 * scale);
            assert!(a.len() == b.len() && far.is_none(), "{far:?}");
        }
    }
});

fn values(reading: &Reading) -> Vec<f32> {
    reading.values()
}
