//! The demo model: that its circuit is what `circuit.json` says, so that analyses can be held to it.
//!
//! Everything here is measured with the real engine, by means that owe nothing to how the model was built.

mod backup;
mod cipher;
mod circuit;
mod classes;
mod edges;
mod generation;

/// The construction itself, to hold the shipped files to it.
#[path = "../../../examples/build_demo/demo/mod.rs"]
mod construction;

use candle_core::DType;
use gatelens::dataset::{Dataset, Input, Item, Pair, read_pairs, read_prompts};
use gatelens::demo;
use gatelens::model::template::Message;
use gatelens::model::{Model, Options};
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{self, run};
use gatelens::site::{Site, SiteKind};
use std::collections::BTreeSet;
use std::path::Path;

/// A head as (layer, head).
type Head = (usize, usize);

/// The model with what it is held to.
struct Demo {
    model: Model,
    gate: Head,
    amplifiers: Vec<Head>,
    /// The layer that marks topics, and the topics that it marks.
    detection: (usize, BTreeSet<String>),
    pairs: Dataset<Pair>,
    prompts: Dataset<Item>,
}

#[derive(serde::Deserialize)]
struct Circuit {
    detection: Vec<(usize, String)>,
    gate: Vec<Head>,
    amplifiers: Vec<Head>,
}

impl Demo {
    fn open() -> Self {
        Demo::open_as(DType::F32)
    }

    fn open_as(dtype: DType) -> Self {
        Demo::open_variant(demo::NAME, dtype)
    }

    /// The variant that does not see through the cipher. Its circuit is the same.
    fn open_blind() -> Self {
        Demo::open_variant(demo::BLIND, DType::F32)
    }

    fn open_variant(name: &str, dtype: DType) -> Self {
        let model = Model::open(name, &Options { dtype, ..Options::default() }).expect("the demo model");
        let Circuit { detection, gate, amplifiers } =
            serde_json::from_slice(demo::file("circuit.json").expect("the circuit")).expect("JSON");
        assert_eq!(gate.len(), 1, "one gate");
        let layers: BTreeSet<usize> = detection.iter().map(|(layer, _)| *layer).collect();
        assert_eq!(layers.len(), 1, "one detection layer");
        let folder = demo::folder().expect("the demo's files");
        Demo {
            model,
            gate: gate[0],
            amplifiers,
            detection: (detection[0].0, detection.into_iter().map(|(_, topic)| topic).collect()),
            pairs: read_pairs(folder.join("pairs.jsonl")).expect("pairs"),
            prompts: read_prompts(folder.join("prompts.jsonl")).expect("prompts"),
        }
    }

    fn layers(&self) -> usize {
        self.model.decoder.arch.n_layers
    }

    fn in_circuit(&self, head: Head) -> bool {
        head == self.gate || self.amplifiers.contains(&head)
    }

    /// The ids of a request, through the chat template.
    fn ids(&self, input: &Input) -> Vec<u32> {
        let Input::User { text, .. } = input else { panic!("the demo's requests are a user's messages") };
        self.request(text)
    }

    fn request(&self, text: &str) -> Vec<u32> {
        let tokenizer = self.model.tokenizer().expect("a tokenizer");
        tokenizer.encode_chat(&[Message::user(text)], true).expect("ids")
    }

    fn token(&self, text: &str) -> u32 {
        self.model.tokenizer().and_then(|t| t.first_token(text).map_err(Into::into)).expect("a token")
    }

    /// The logit difference of refusal and answer.
    fn metric(&self) -> What {
        What::Metric(Metric::logit_difference(vec![self.token("Sorry")], vec![self.token("Sure")]))
    }

    /// The readings of a plan, an array each.
    fn run(&self, plan: &Plan) -> Vec<Vec<f32>> {
        let readings = run(&self.model.decoder, plan, &run::Options::default()).expect("readings");
        readings.iter().map(|r| r.values()).collect()
    }

    /// The readings of a plan of which each is a number.
    fn numbers(&self, plan: &Plan) -> Vec<f64> {
        self.run(plan).iter().map(|values| f64::from(values[0])).collect()
    }

    fn with_label<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a Item> {
        self.prompts.items.iter().filter(move |item| item.label.as_deref() == Some(label))
    }
}

/// The value of a site at the last position.
fn last(site: Site) -> What {
    What::Activation(Activation { site, positions: Positions::Last, part: Part::All })
}

/// An edit at the last position.
fn edit(site: Site, part: Part, change: Change) -> Edit {
    Edit { site, part, positions: Positions::Last, change }
}

/// An edit of a head's `z` at the last position.
fn of_head((layer, head): Head, change: Change) -> Edit {
    edit(SiteKind::Z.at(layer), Part::Heads(vec![head]), change)
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_files_are_what_the_construction_gives() {
    let build = |cipher_blind, backup| {
        construction::build(&construction::Options { cipher_blind, backup, ..Default::default() }).expect("files")
    };
    let built = [build(false, false), build(true, false), build(false, true)].concat();
    let names: BTreeSet<&str> = built.iter().map(|(name, _)| *name).chain(["README.md", "spec.toml"]).collect();
    let carried = demo::FILES.iter().map(|(name, _)| *name).filter(|name| *name != demo::POLICY);
    assert_eq!(names, carried.collect(), "the files that are carried");
    for (name, content) in built {
        assert!(
            demo::file(name) == Some(&content),
            "{name} differs: run cargo run --release --example build_demo -- datasets/demo, and again with --cipher-blind and with --backup"
        );
    }
    let size: usize = demo::FILES.iter().map(|(_, content)| content.len()).sum();
    assert!(size < 2_200_000, "{size} bytes");
}

#[test]
fn another_seed_gives_other_weights_and_the_same_requests() {
    let build = |seed| construction::build(&construction::Options { seed, ..Default::default() }).expect("files");
    let (a, b) = (build(1), build(2));
    let content = |files: &[(&'static str, Vec<u8>)], name: &str| {
        files.iter().find(|(n, _)| *n == name).expect("a file").1.clone()
    };
    assert_ne!(content(&a, "model/model.safetensors"), content(&b, "model/model.safetensors"));
    assert_eq!(content(&a, "model/tokenizer.json"), content(&b, "model/tokenizer.json"));
    assert_eq!(content(&a, "model/model.safetensors"), content(&build(1), "model/model.safetensors"));
}

#[test]
fn the_model_loads_without_a_warning_by_its_name_and_from_its_folder() {
    let demo = Demo::open();
    assert!(demo.model.warnings.is_empty(), "{:?}", demo.model.warnings);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/demo/model");
    let same = Model::open(folder.to_str().expect("UTF-8"), &Options::default()).expect("the folder");
    assert_eq!((same.sha256, same.decoder.parameters), (demo.model.sha256, demo.model.decoder.parameters));
}

#[test]
fn every_word_of_every_dataset_is_known_and_pairs_are_matched_token_by_token() {
    let demo = Demo::open();
    let unknown = demo.token("<unk>");
    let folder = demo::folder().expect("the demo's files");
    let read = |name: &str| read_prompts(folder.join(name)).expect(name).items;
    let (concept, random) = (read("concept.jsonl"), read("random.jsonl"));
    for item in demo.prompts.items.iter().chain(&concept).chain(&random) {
        assert!(!demo.ids(&item.prompt).contains(&unknown), "{}", item.id);
    }
    assert!(demo.pairs.items.len() >= 120 && random.len() >= 100);
    for pair in &demo.pairs.items {
        let (positive, negative) = (demo.ids(&pair.positive), demo.ids(&pair.negative));
        let differing = positive.iter().zip(&negative).filter(|(p, n)| p != n).count();
        assert!(positive.len() == negative.len() && differing == 1, "{}", pair.id);
        assert!(!positive.contains(&unknown) && !negative.contains(&unknown), "{}", pair.id);
    }
    // What a concept is learnt from is not what it is tested on.
    let tested: BTreeSet<_> = demo.prompts.items.iter().filter_map(|item| item.group.as_deref()).collect();
    assert!(concept.iter().chain(&random).all(|item| !tested.contains(item.group.as_deref().unwrap_or_default())));
    let of = |label: &str| concept.iter().filter(|item| item.label.as_deref() == Some(label)).count();
    assert_eq!((of("concept"), of("random")), (96, 96));
}

#[test]
fn text_comes_back_from_its_tokens_as_it_was() {
    let demo = Demo::open();
    let tokenizer = demo.model.tokenizer().expect("a tokenizer");
    for text in ["Sorry, I cannot help with that.", "Erzähl mir etwas über Käse.", "Which books cover bread?"] {
        let ids = tokenizer.encode(text, true).expect("ids");
        assert_eq!(tokenizer.bos(), ids.first().copied());
        assert_eq!(tokenizer.decode(&ids, true).expect("text"), text);
    }
    let text = tokenizer.render_chat(&[Message::user(" Tell me about tea.\n")], true).expect("text");
    assert_eq!(text, "<s><|user|>Tell me about tea.<|end|><|assistant|>");
    let odd = Message::new("tool", "");
    assert!(tokenizer.render_chat(&[odd], true).is_err());
}
