//! Every family gives what `transformers` gives for a tiny checkpoint of it: activations, and what the metric becomes when a
//! head is silenced or taken from another prompt.
//!
//! `GATELENS_FAMILIES` names another folder of such fixtures.

use crate::support::copies::Folder;
use crate::support::{Golden, fixtures, logits, open, other_families};
use gatelens::model::arch::Channel;
use gatelens::model::{Model, Options as Loading};
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, Run, What};
use gatelens::run::{Engine, Generation, Options, Sampling, Steps, generate, run};
use gatelens::site::{Site, SiteKind};
use std::path::{Path, PathBuf};

const ENGINES: [Engine; 2] = [Engine::Wavefront, Engine::Full];

/// The fixtures, by name.
fn folders() -> Vec<PathBuf> {
    let other = std::env::var_os("GATELENS_FAMILIES").map(PathBuf::from);
    let all = std::fs::read_dir(other.unwrap_or_else(|| fixtures().join("families"))).expect("a folder of fixtures");
    let mut all: Vec<PathBuf> = all.map(|entry| entry.expect("an entry").path()).collect();
    all.retain(|path| path.join("config.json").exists());
    if let Some(only) = std::env::var_os("GATELENS_FAMILY") {
        all.retain(|path| path.file_name() == Some(&only));
    }
    all.sort();
    all
}

fn metric() -> What {
    What::Metric(Metric::logit_difference(vec![11], vec![23]))
}

/// One family's model and its golden values.
struct Fixture {
    name: String,
    model: Model,
    golden: Golden,
}

impl Fixture {
    fn open(folder: &Path) -> Result<Fixture, String> {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
        let model =
            Model::open(folder.to_str().expect("UTF-8"), &Loading::default()).map_err(|e| format!("{name}: {e}"))?;
        Ok(Fixture { name, model, golden: Golden::at(folder) })
    }

    /// The readings of a plan over the two prompts and the two donors.
    fn read(&self, engine: Engine, ask: impl Fn(&mut Plan, Run, Run)) -> Result<Vec<Vec<f32>>, String> {
        let mut plan = Plan::default();
        for i in 0..2 {
            let prompt = plan.prompt(format!("{i}"), self.golden.ids("input_ids", i));
            let donor = plan.prompt(format!("donor {i}"), self.golden.ids("donor_ids", i));
            ask(&mut plan, prompt, donor);
        }
        let options = Options { engine, ..Options::default() };
        let readings = run(&self.model.decoder, &plan, &options).map_err(|e| format!("{}: {e}", self.name))?;
        Ok(readings.iter().map(|reading| reading.values()).collect())
    }

    /// Holds values to golden ones: within 5e-5 + 5e-5 relative, but for one number in 250, which may be off twice as much.
    fn hold(&self, what: &str, found: &[f32], expected: &[f32]) -> Result<(), String> {
        // Some fixtures hold the activations of the first prompt alone.
        let found = if found.len() == 2 * expected.len() { &found[..expected.len()] } else { found };
        if found.len() != expected.len() {
            return Err(format!("{} {what}: {} numbers for {}", self.name, found.len(), expected.len()));
        }
        let off = |(f, e): (&f32, &f32)| (f - e).abs() / (1.0 + e.abs());
        let worst =
            found.iter().zip(expected).map(off).fold(0f32, |a, b| if b.is_nan() { f32::INFINITY } else { a.max(b) });
        let over = found.iter().zip(expected).filter(|pair| off(*pair) > 5e-5).count();
        match worst > 1e-4 || over * 250 > found.len() {
            true => Err(format!("{} {what}: off by {worst:.1e}, {over} of {} numbers", self.name, found.len())),
            false => Ok(()),
        }
    }

    /// Holds a site to the golden values of a name, if there are such.
    fn site(&self, engine: Engine, site: Site, name: &str) -> Result<(), String> {
        // RWKV's first layer has the norm of the embedding in it.
        let normed = name == "clean.resid_pre.0" && self.name.starts_with("rwkv");
        if !self.golden.has(name) || normed {
            return Ok(());
        }
        let what = Activation { site, positions: Positions::All, part: Part::All };
        let found = self.read(engine, |plan, prompt, _| {
            plan.read(prompt, what.clone());
        })?;
        let mut expected = self.golden.values(name);
        if self.golden.shape(name).len() == 4 && [SiteKind::ResidPre, SiteKind::ResidPost].contains(&site.kind) {
            // Of several residual streams, the sites are of the first.
            expected.truncate(expected.len() / self.golden.shape(name)[0]);
        }
        if site.kind == SiteKind::MlpOut && self.golden.has(&format!("clean.shared_out.{}", site.layer)) {
            // Golden values have what all rows go through apart.
            let shared = self.golden.values(&format!("clean.shared_out.{}", site.layer));
            expected.iter_mut().zip(shared).for_each(|(sum, shared)| *sum += shared);
        }
        let found = match site.kind {
            SiteKind::Pattern => heads_first(&found, self.golden.shape(name)),
            _ => found.concat(),
        };
        self.hold(name, &found, &expected)
    }

    /// Holds a layer's state after the last position, and what its convolution read at the last few, to golden values.
    fn states(&self, engine: Engine, layer: usize) -> Result<(), String> {
        for (kind, name) in [(SiteKind::State, "state"), (SiteKind::ConvIn, "conv_state")] {
            let (site, name) = (kind.at(layer), format!("clean.{name}.{layer}"));
            if !self.golden.has(&name) {
                continue;
            }
            let (shape, n) = (self.golden.shape(&name), self.golden.ids("input_ids", 0).len());
            let read = if kind == SiteKind::State { 1 } else { shape[2] };
            let positions = Positions::At((n - read..n).collect());
            let found = self.read(engine, |plan, prompt, _| {
                plan.read(prompt, Activation { site, positions: positions.clone(), part: Part::All });
            })?;
            // Golden values of a channel stand together.
            let wide = found[0].len() / read;
            let by_channel = |x: &Vec<f32>| -> Vec<f32> {
                (0..wide).flat_map(|c| (0..read).map(move |p| x[p * wide + c])).collect()
            };
            let mut expected = self.golden.values(&name);
            if kind == SiteKind::State && self.name.starts_with("rwkv4") {
                // Sums over the exponential of the third number, which leaves none beyond floats here.
                let whole = |x: &[f32]| [x[0] * x[2].exp(), x[1] * x[2].exp(), 0.0];
                expected = expected.chunks_exact(3).flat_map(whole).collect();
            }
            self.hold(&name, &found.iter().flat_map(by_channel).collect::<Vec<_>>(), &expected)?;
        }
        Ok(())
    }

    fn sites(&self, engine: Engine) -> Result<(), String> {
        use SiteKind::*;
        let layers = self.model.decoder.arch.n_layers;
        for l in 0..layers {
            for kind in [ResidPre, Z, AttnGate, AttnOut, Router, SharedOut, MlpOut, PleOut, ResidPost, Pattern] {
                self.site(engine, kind.at(l), &format!("clean.{}", kind.at(l)))?;
            }
            for kind in [MixZ, MixOut] {
                self.site(engine, kind.at(l).named_in(&self.model.decoder.arch), &format!("clean.{}", kind.at(l)))?;
            }
            self.states(engine, l)?;
        }
        self.site(engine, Logits.at(0), "clean.logits")
    }

    /// The metric with one head of one layer changed, or, where heads are not told apart, all that a mixer gives, for the layers
    /// that `with` names.
    fn heads(&self, engine: Engine, name: &str, with: &str, silenced: bool) -> Result<(), String> {
        if !self.golden.has(name) {
            return Ok(());
        }
        let shape = self.golden.shape(name);
        let (layers, heads) = (shape[1], shape.get(2).copied().unwrap_or(1));
        let recurrent = with == "mix_layers";
        let with: Vec<usize> = self.golden.values(with).into_iter().map(|l| l as usize).collect();
        let found = self.read(engine, |plan, prompt, donor| {
            for layer in &with {
                for head in 0..heads {
                    let (kind, part) = match (shape.len(), recurrent) {
                        (3, true) => (SiteKind::MixZ, Part::Heads(vec![head])),
                        (3, false) => (SiteKind::Z, Part::Heads(vec![head])),
                        _ => (SiteKind::MixOut, Part::All),
                    };
                    let site = kind.at(*layer).named_in(&self.model.decoder.arch);
                    let (positions, change) = match silenced {
                        true => (Positions::All, Change::Zero),
                        false => (Positions::Last, Change::interchange(donor)),
                    };
                    let edit = Edit { site, part, positions, change };
                    let fork = plan.fork(prompt, vec![edit]);
                    plan.read(fork, metric());
                }
            }
        })?;
        let all = self.golden.values(name);
        let expected: Vec<f32> = (0..2)
            .flat_map(|p| with.iter().flat_map(move |l| (0..heads).map(move |h| (p * layers + l) * heads + h)))
            .map(|i| all[i])
            .collect();
        let worst = found.iter().map(|f| f[0]).zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        if worst > 2e-4 { Err(format!("{} {name}: off by {worst:.1e}", self.name)) } else { Ok(()) }
    }

    fn check(&self) -> Result<(), String> {
        for engine in ENGINES {
            self.sites(engine)?;
            for (kind, with) in [("", "attn_layers"), ("mix_", "mix_layers"), ("mix_head_", "mix_layers")] {
                self.heads(engine, &format!("{kind}zero_ablation"), with, true)?;
                self.heads(engine, &format!("{kind}interchange_last"), with, false)?;
            }
        }
        Ok(())
    }
}

/// Patterns from `[prompt][position, head, key]` to `[prompt, head, position, key]`.
fn heads_first(x: &[Vec<f32>], shape: &[usize]) -> Vec<f32> {
    let [_, heads, n, keys] = shape.try_into().expect("four dimensions");
    let line = |prompt: &Vec<f32>, h: usize, i: usize| prompt[(i * heads + h) * keys..][..keys].to_vec();
    x.iter().flat_map(|p| (0..heads).flat_map(move |h| (0..n).flat_map(move |i| line(p, h, i)))).collect()
}

#[test]
fn every_family_gives_what_transformers_gives() {
    let (mut wrong, mut right) = (Vec::new(), Vec::new());
    for folder in folders() {
        let check = || Fixture::open(&folder).and_then(|fixture| fixture.check().map(|()| fixture.name.clone()));
        let name = || folder.display().to_string();
        match std::panic::catch_unwind(check).unwrap_or_else(|_| Err(format!("{}: a panic", name()))) {
            Ok(name) => right.push(name),
            Err(why) => wrong.push(why),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}\n{} right: {}",
        wrong.len(),
        wrong.join("\n"),
        right.len(),
        right.join(" ")
    );
}

/// A prompt, one that ends alike, and the first with the other's memory: each layer's state, and what convolutions and token shifts
/// still read, after what is not alike. A run with the state alone comes last.
fn remembering(model: &Model) -> (Plan, [Run; 4]) {
    let (own, other, end) = ([9, 31, 4, 50, 22], [17, 3, 12, 60, 9, 61, 45], [33, 8, 27, 5]);
    let (mut plan, n, theirs) = (Plan::default(), own.len(), other.len());
    let prompt = plan.prompt("a prompt", [own.as_slice(), &end].concat());
    let donor = plan.prompt("a donor", [other.as_slice(), &end].concat());
    let take = |site: Site, back: usize| {
        let change = Change::Interchange { donor, positions: Some((theirs - back..theirs).collect()) };
        Edit { site, part: Part::All, positions: Positions::At((n - back..n).collect()), change }
    };
    let layers = 0..model.decoder.arch.n_layers;
    let states: Vec<Edit> = layers.clone().map(|l| take(SiteKind::State.at(l), 1)).collect();
    // Convolutions read four positions, token shifts two.
    let shifted = model.decoder.arch.layers.iter().any(|layer| matches!(layer.channel, Channel::Shifted(_)));
    let read = layers.flat_map(|l| match shifted {
        true => vec![take(SiteKind::AttnIn.at(l), 1), take(SiteKind::MlpIn.at(l), 1)],
        false => vec![take(SiteKind::ConvIn.at(l), 3)],
    });
    let whole = plan.fork(prompt, states.iter().cloned().chain(read).collect());
    let alone = plan.fork(prompt, states);
    (plan, [prompt, donor, whole, alone])
}

#[test]
fn a_run_that_takes_anothers_states_remembers_what_the_other_read() {
    for name in ["mamba", "falcon_mamba", "mamba2", "rwkv4", "rwkv7"] {
        let model = open(&format!("families/{name}"));
        let (mut plan, runs) = remembering(&model);
        for run in runs {
            let positions = if run == runs[1] { 7..11 } else { 5..9 };
            let positions = Positions::At(positions.collect());
            plan.read(run, Activation { site: SiteKind::Logits.at(0), positions, part: Part::All });
        }
        for engine in ENGINES {
            let readings = run(&model.decoder, &plan, &Options { engine, ..Options::default() }).expect("readings");
            let found: Vec<Vec<f32>> = readings.iter().map(|reading| reading.values()).collect();
            let off = |a: usize| found[a].iter().zip(&found[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off(2) < 1e-5, "{name} {engine}: off by {}", off(2));
            assert!(off(0) > 1e-2 && off(3) > 1e-4, "{name} {engine}: {} and {} decide nothing", off(0), off(3));
        }
        let (plan, [prompt, donor, whole, _]) = remembering(&model);
        let generation = Generation {
            runs: vec![prompt, donor, whole],
            max_tokens: 12,
            sampling: Sampling::Greedy,
            steps: Steps::PromptOnly,
            stop: Vec::new(),
        };
        let found = generate(&model.decoder, &plan, &generation, &Options::default()).expect("tokens");
        assert_eq!(found[2].ids, found[1].ids, "{name}");
        assert_ne!(found[2].ids, found[0].ids, "{name}");
    }
}

#[test]
fn what_is_read_at_an_edited_state_goes_by_it_but_in_rwkv4_where_the_next_position_does() {
    for (name, here) in [("rwkv7", true), ("rwkv4", false)] {
        let model = open(&format!("families/{name}"));
        let mut plan = Plan::default();
        let prompt = plan.prompt("a prompt", vec![9, 31, 4, 50, 22, 33]);
        let silenced = |at: usize| {
            let site = SiteKind::State.at(0);
            Edit { site, part: Part::All, positions: Positions::At(vec![at]), change: Change::Zero }
        };
        let runs = [prompt, plan.fork(prompt, vec![silenced(3)])];
        for run in runs {
            plan.read(run, Activation { site: SiteKind::Z.at(0), positions: Positions::All, part: Part::All });
        }
        for engine in ENGINES {
            let readings = run(&model.decoder, &plan, &Options { engine, ..Options::default() }).expect("readings");
            let [whole, edited] = [0, 1].map(|i| readings[i].values());
            let wide = whole.len() / 6;
            let differs = |p: usize| {
                let at = p * wide..(p + 1) * wide;
                whole[at.clone()].iter().zip(&edited[at]).any(|(a, b)| (a - b).abs() > 1e-4)
            };
            assert_eq!([2, 3, 4].map(differs), [false, here, true], "{name} {engine}");
        }
    }
}

#[test]
fn every_family_is_tested_described_and_counted() {
    use gatelens::model::families::FAMILIES;
    use std::collections::BTreeMap;

    let root = fixtures().join("../..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("a document");
    let (readme, list) = (read("README.md"), read("docs/families.md"));
    let mut kinds: BTreeMap<&str, [bool; 3]> = BTreeMap::new();
    let small = other_families().into_iter();
    for name in small.chain(crate::support::FAMILIES.iter().map(|name| (*name).to_string())) {
        let arch = open(&name).decoder.arch;
        let of = kinds.entry(arch.family.name()).or_default();
        for layer in &arch.layers {
            of[0] |= matches!(layer.channel, Channel::Experts(_));
            of[1] |= layer.mixer.attention().is_some_and(|attention| attention.gated);
            of[2] |= layer.mixer.recurrent().is_some();
        }
    }
    let all: Vec<&str> = FAMILIES.iter().map(|family| family.name()).collect();
    for name in &all {
        assert!(kinds.contains_key(name), "{name} has no fixture");
        assert!(list.contains(&format!("`{name}`")), "{name} is not in docs/families.md");
    }
    let [experts, gated, recurrent] = [0, 1, 2].map(|i| kinds.values().filter(|kind| kind[i]).count());
    let sentence = format!(
        "{} families of decoders, {experts} of them with several experts, {gated} with gated attention and {recurrent} with recurrent layers",
        all.len()
    );
    let plain = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plain.contains(&sentence), "the README does not say: {sentence}");
}

#[test]
fn what_edges_cannot_tell_apart_is_refused_by_name() {
    use gatelens::plan::Graph;
    for (family, why) in [
        ("deepseek_v32", "layer 0 chooses the keys that it sees by an indexer"),
        ("diffllama", "layer 0 has heads that are differences of two patterns"),
        ("opt_350m", "is normed itself in every layer"),
        ("minimax", "goes on from what each part reads"),
        ("gemma3n", "is one of several"),
        ("mamba2", "layer 0 has a recurrent mixer"),
    ] {
        let refused = Graph::there(&open(&format!("families/{family}")).decoder.arch).expect_err(family);
        assert!(refused.contains(why), "{family}: {refused}");
    }
}

#[test]
fn mpts_mlps_are_as_wide_as_transformers_has_them_or_as_their_tensors_are() {
    const FAMILY: &str = "families/mpt";
    let prompts = [0, 1].map(|i| Golden::of(FAMILY).ids("input_ids", i));
    let load = |folder: &Folder| Model::open(folder.path().to_str().expect("UTF-8"), &Loading::default());
    let says = |ratio: u64| Folder::of(FAMILY).key("expansion_ratio", ratio.into());
    // Numbers of two bytes: the last neurons write nothing, or are not there.
    let [d_model, all, some] = [48, 192, 144];
    let silenced = |folder: Folder| {
        folder.weights(|tensors| {
            let down = tensors.iter_mut().filter(|(name, _)| name.ends_with("ffn.down_proj.weight"));
            down.for_each(|(_, down)| down.data.chunks_mut(2 * all).for_each(|row| row[2 * some..].fill(0)));
        })
    };
    let cut = |folder: Folder| {
        folder.weights(|tensors| {
            for (name, tensor) in tensors.iter_mut() {
                if name.ends_with("ffn.up_proj.weight") {
                    tensor.shape[0] = some;
                    tensor.data.truncate(2 * some * d_model);
                } else if name.ends_with("ffn.down_proj.weight") {
                    tensor.shape[1] = some;
                    tensor.data = tensor.data.chunks(2 * all).flat_map(|row| row[..2 * some].to_vec()).collect();
                }
            }
        })
    };
    let usual = load(&says(3)).expect("a model");
    assert_eq!(logits(&usual, &prompts), logits(&open(FAMILY), &prompts), "transformers does not read the key");
    let narrow = load(&cut(says(3))).expect("a model");
    assert_eq!(narrow.decoder.arch.d_mlp, some);
    assert!(narrow.warnings.iter().any(|said| said.contains("144 wide")), "{:?}", narrow.warnings);
    let expected = logits(&load(&silenced(says(4))).expect("a model"), &prompts);
    crate::support::assert_close(FAMILY, &logits(&narrow, &prompts), &expected, 1e-5, 1e-5);
    let refused = load(&cut(says(2))).err().expect("neither width").to_string();
    assert!(refused.contains("ffn.up_proj.weight") && refused.contains("[144, 48]"), "{refused}");
}
