//! A model whose layers are on several devices gives the results of one that is on one. The devices are CPUs here: what is
//! placed where, what crosses and with which tables is that of GPUs; the copies are not.

use crate::support::cli::{Bench, gatelens, pair};
use crate::support::{FAMILIES, Golden, family_dir, open};
use candle_core::Device;
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Activation, Change, Edit, Gradient, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Generation, Options, Sampling, Steps, generate, run};
use gatelens::site::SiteKind;

fn open_on(family: &str, devices: usize, max_memory: Option<u64>) -> Model {
    let options = ModelOptions { devices: vec![Device::Cpu; devices], max_memory, ..ModelOptions::default() };
    Model::open(family_dir(family).to_str().expect("UTF-8"), &options).expect("a sound model")
}

/// Interchanges, logits, gradients and attributions.
fn plan(model: &Model, golden: &Golden) -> Plan {
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", golden.ids("input_ids", 0));
    let donor = plan.prompt("d", golden.ids("donor_ids", 0));
    let metric = Metric::logit_difference(vec![11], vec![23]);
    plan.read(prompt, Activation { site: SiteKind::Logits.at(0), positions: Positions::All, part: Part::All });
    plan.read(prompt, What::Attribution(metric.clone()));
    for (layer, head) in model.heads() {
        let (site, part) = (SiteKind::Z.at(layer), Part::Heads(vec![head]));
        let change = Change::interchange(donor);
        let fork = plan.fork(prompt, vec![Edit { site, part: part.clone(), positions: Positions::Last, change }]);
        plan.read(fork, What::Metric(metric.clone()));
        plan.read(prompt, Gradient { metric: metric.clone(), site, positions: Positions::All, part });
    }
    plan
}

#[test]
fn layers_over_several_devices_give_the_same_readings_bit_for_bit_in_every_family() {
    for family in FAMILIES {
        let (one, golden) = (open(family), Golden::of(family));
        let plan = plan(&one, &golden);
        let n_layers = one.decoder.arch.n_layers;
        for engine in [Engine::Wavefront, Engine::Full] {
            let options = Options { engine, ..Options::default() };
            let expected = run(&one.decoder, &plan, &options).expect("readings");
            // More devices than layers leave some without one.
            for (devices, max_memory) in [(2, None), (3, None), (n_layers + 3, None), (2, Some(1000))] {
                let several = open_on(family, devices, max_memory);
                assert_eq!(several.decoder.places.iter().count(), devices);
                let found = run(&several.decoder, &plan, &options).expect("readings");
                assert_eq!(found, expected, "{family} over {devices}, {engine}");
            }
        }
    }
}

#[test]
fn generation_over_several_devices_is_that_over_one() {
    for family in ["llama", "gpt2", "gemma3"] {
        let golden = Golden::of(family);
        let answers = |model: &Model| {
            let mut plan = Plan::default();
            let runs = vec![plan.prompt("p", golden.ids("input_ids", 0)), plan.prompt("d", golden.ids("donor_ids", 0))];
            let (sampling, steps) = (Sampling::Greedy, Steps::PromptOnly);
            let generation = Generation { runs, max_tokens: 12, sampling, steps, stop: Vec::new() };
            let found = generate(&model.decoder, &plan, &generation, &Options::default()).expect("generated");
            found.into_iter().map(|g| g.ids).collect::<Vec<_>>()
        };
        assert_eq!(answers(&open_on(family, 3, None)), answers(&open(family)), "{family}");
    }
}

#[test]
fn each_device_holds_consecutive_layers_and_inspect_names_them() {
    let out = gatelens(["inspect", "demo", "--devices", "cpu,cpu"]).done();
    let line = out.lines().find(|l| l.starts_with("devices")).expect("a line on the devices").to_string();
    assert!(line.contains("cpu: layers 0-") && line.matches("cpu: layers").count() == 2, "{line}");
}

#[test]
fn a_command_over_several_devices_writes_the_same_table_and_records_them() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let line = pair("p0", &golden.ids("input_ids", 0), &golden.ids("donor_ids", 0));
    let pairs = bench.dataset("pairs.jsonl", &[line]);
    let table = |devices: &str| {
        let out = bench.out(&devices.replace([',', ' '], "-"));
        let model = family_dir("llama");
        let [model, pairs, to] = [&model, &pairs, &out].map(|p| p.to_str().expect("UTF-8").to_string());
        gatelens(["interchange", &model, "--pairs", &pairs, "--out", &to, "--device", devices]).done();
        let record = std::fs::read_to_string(out.join("run.json")).expect("a record");
        let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
        (std::fs::read(out.join("pairs.parquet")).expect("a table"), record["device"].clone())
    };
    let ((one, of_one), (two, of_two)) = (table("cpu"), table("cpu, cpu"));
    assert_eq!((of_one, of_two), ("cpu".into(), "cpu,cpu".into()));
    assert!(one == two, "the tables differ");
}
