//! A plan of any shape: what the checker lets through must run in both engines, to the same readings, or overflow.
#![no_main]

use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{
    Activation, Change, Edit, Gradient, LogProbs, Metric, Part, Plan, Positions, Projection, Run, What,
};
use gatelens::run::{Engine, Options, RunError, run, size};
use gatelens::site::{KINDS, Site, Units};
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
    AboveMean(Vec<u16>),
    Continuation(u8),
}

#[derive(Arbitrary, Debug)]
enum Reads {
    Metric(Metrics),
    Activation(u8, u8, At, Parts),
    KlFrom(Runs),
    Entropy,
    LogProbs(Vec<u32>),
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

/// Half of all vectors are as long as what they are for, which by chance hardly any would be.
fn vector(n: u16, x: f32, fitting: usize) -> std::sync::Arc<[f32]> {
    let length = if n % 2 == 0 { fitting } else { usize::from(n % 600) };
    (0..length).map(|i| x * (i % 7) as f32).collect()
}

/// Numbers that a part has in a row of a site, for a prompt of `keys` positions.
fn wide(site: Site, part: &Part, keys: usize) -> usize {
    let arch = &MODEL.decoder.arch;
    match (part, site.units(arch)) {
        (Part::All, _) => site.width(arch, keys),
        (Part::Heads(heads), Units::Heads { width, .. }) => heads.len() * width,
        (Part::Heads(heads), _) => heads.len() * keys,
        (Part::Columns(columns), _) => columns.len(),
    }
}

fn metric(metric: &Metrics) -> Metric {
    let ids = |v: &[u16]| v.iter().map(|x| u32::from(*x)).collect();
    match metric {
        Metrics::Difference(answer, foil) => Metric::logit_difference(ids(answer), ids(foil)),
        Metrics::AboveMean(tokens) => Metric::AboveMean { tokens: ids(tokens) },
        Metrics::Continuation(from) => Metric::Continuation { from: usize::from(*from) },
    }
}

fn change(change: &Changes, fitting: usize) -> Change {
    match change {
        Changes::Zero => Change::Zero,
        Changes::Set(n, x) => Change::Set(vector(*n, *x, fitting)),
        Changes::Interchange(donor, from) => {
            Change::Interchange { donor: of(donor), positions: from.as_ref().map(|v| list(v)) }
        }
        Changes::Add(n, x, c) => Change::Add { vector: vector(*n, *x, fitting), coefficient: *c },
        Changes::ProjectOut(n, x) => Change::ProjectOut(vector(*n, *x, fitting)),
        Changes::Scale(c) => Change::Scale(*c),
        Changes::Clamp(low, high) => Change::Clamp { low: *low, high: *high },
    }
}

fn what(read: &Reads, keys: usize) -> What {
    match read {
        Reads::Metric(m) => What::Metric(metric(m)),
        Reads::Activation(k, l, at, p) => {
            Activation { site: site(*k, *l), positions: positions(at), part: part(p) }.into()
        }
        Reads::KlFrom(run) => What::KlFrom(of(run)),
        Reads::Entropy => What::Entropy,
        Reads::LogProbs(tokens) => LogProbs { tokens: tokens.clone() }.into(),
        Reads::Attribution(m) => What::Attribution(metric(m)),
        Reads::Projection(k, l, at, n) => {
            let site = site(*k, *l);
            Projection { site, positions: positions(at), direction: vector(*n, 0.1, wide(site, &Part::All, keys)) }
                .into()
        }
        Reads::Gradient(m, k, l, at, p) => {
            Gradient { metric: metric(m), site: site(*k, *l), positions: positions(at), part: part(p) }.into()
        }
    }
}

/// By how much the edits may enlarge activations: the product of their largest numbers.
fn growth(plan: &Plan) -> f32 {
    let largest = |v: &[f32]| v.iter().fold(0f32, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x.abs()) });
    let of = |edit: &Edit| match &edit.change {
        Change::Set(v) => largest(v),
        Change::Add { vector, coefficient } => largest(vector) * largest(&[*coefficient]),
        Change::Scale(c) => largest(&[*c]),
        Change::Clamp { low, high } => largest(&[*low, *high]),
        _ => 1.0,
    };
    plan.forks.iter().flat_map(|fork| &fork.edits).map(|edit| of(edit).max(1.0)).product()
}

fuzz_target!(|input: Input| {
    let mut plan = Plan::default();
    for (i, ids) in input.prompts.iter().take(4).enumerate() {
        plan.prompt(format!("p{i}"), ids.iter().take(12).map(|x| u32::from(*x)).collect());
    }
    // How many positions each fork has; 0 where what it forks from is not there.
    let mut lengths: Vec<usize> = Vec::new();
    let length = |plan: &Plan, lengths: &[usize], run: Run| match run {
        Run::Prompt(p) => plan.prompts.get(p).map_or(0, |prompt| prompt.ids.len()),
        Run::Fork(f) => lengths.get(f).copied().unwrap_or(0),
    };
    for (base, edits) in input.forks.iter().take(6) {
        let keys = length(&plan, &lengths, of(base));
        lengths.push(keys);
        let one = |Edits(kind, layer, p, at, c): &Edits| {
            let (site, part) = (site(*kind, *layer), part(p));
            let change = change(c, wide(site, &part, keys));
            Edit { site, part, positions: positions(at), change }
        };
        plan.fork(of(base), edits.iter().take(4).map(one).collect());
    }
    for (run, read) in input.readouts.iter().take(8) {
        let keys = length(&plan, &lengths, of(run));
        plan.read(of(run), what(read, keys));
    }
    let _ = plan.to_string();
    let Ok(program) = plan.compile(&MODEL.decoder.arch) else { return };
    let both = [Engine::Wavefront, Engine::Full].map(|engine| {
        let _ = size(&program, engine);
        run(&MODEL.decoder, &plan, &Options { engine, ..Options::default() })
    });
    let [a, b] = match both {
        [Ok(a), Ok(b)] => [a, b],
        // Activations may overflow, by numbers that the plan holds, and then in one engine and not quite in the other.
        [Err(RunError::NotFinite { .. }), Ok(_) | Err(RunError::NotFinite { .. })] => return,
        [Ok(_), Err(RunError::NotFinite { .. })] => return,
        [a, b] => panic!("a sound plan is an error: wavefront {:?}, full {:?}: {plan:?}", a.err(), b.err()),
    };
    assert_eq!(a.len(), b.len());
    let growth = growth(&plan);
    for (a, b) in a.iter().zip(&b) {
        let (a, b) = (a.values(), b.values());
        assert_eq!(a.len(), b.len());
        let scale = a.iter().chain(&b).fold(1f32, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
        // Huge numbers cancel in any order.
        if scale < 1e4 && growth < 1e3 {
            let far = a.iter().zip(&b).find(|(a, b)| a != b && (*a - *b).abs() > 1e-2 * scale);
            assert!(far.is_none(), "{far:?}");
        }
    }
});
