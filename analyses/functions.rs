//! Function vectors: which heads carry a task that is shown by examples, and does what they write do the task by itself?
//!
//! A model that is shown `hot -> cold, big -> small` goes on with opposites. The heads that carry this are found by their *average
//! indirect effect* (AIE): in prompts whose examples have each other's outputs, a head's `z` at the last token is replaced by its mean
//! over prompts with right examples, and the probability of the right output is read. What the strongest heads write on average, added
//! up, is the *function vector*. Added to the residual stream of a prompt without examples it makes the model do the task, or it does
//! not: the accuracy on words that it was not made from says, beside that without it and that of as many random heads. Source: Todd
//! et al. 2024, "Function Vectors in Large Language Models".

mod evaluate;
mod report;
mod tables;
mod task;

pub use tables::{HeadRow, SummaryRow};

use super::inputs::{Unit, layer_list};
use super::scored::Scored;
use super::vectors::{of_stream, to_bytes};
use crate::analyses::prelude::*;
use crate::dataset::Input;
use crate::dataset::shown::Prompt;
use crate::model::arch::Arch;
use crate::plan::LogProbs;
use crate::run::writes_of_heads;
use crate::stats;
use evaluate::{Evaluated, evaluate};
use rand::seq::index::sample;
use std::sync::Arc;
use task::{Form, Word, Words, examples};

parameters! {
    /// Find the heads that carry a task shown by examples, and test what they write on prompts without examples
    #[serde(default)]
    pub struct Functions {
        /// Read the task from this file, JSON Lines: {"input", "output"}
        task: Data, [value_name = "FILE"];

        /// Test on the words of this file (default: half of the task's, drawn at random)
        test: Option<Data>, [value_name = "FILE"];

        /// Show this many examples in a prompt
        shots: u16 = 8, in 1..=64, [value_name = "N"];

        /// Measure heads in this many prompts
        trials: u16 = 40, in 2..=2000, [value_name = "N"];

        /// Make the vector of this many heads
        heads: u16 = 10, in 1..=1000, [value_name = "K"];

        /// Write a prompt like this, {input} being the word; the output follows after a space
        template: String = "Q: {input}\\nA:".to_string(), [value_name = "TEXT", allow_hyphen_values = true];

        /// Put this between two examples
        separator: String = "\\n\\n".to_string(), [value_name = "TEXT", allow_hyphen_values = true];

        /// Test in these sentences too, {input} being the word (repeatable; default: two)
        natural: Vec<String>, [value_name = "TEXT", allow_hyphen_values = true];

        /// Try the vector after these layers: 3, 0-5,8 (default: all)
        layers: Option<String>, [value_name = "LAYERS"];

        /// Add the vector this many times; several with commas
        coefficient: Vec<f32> => vec![1.0], [value_delimiter = ',', value_name = "C", allow_hyphen_values = true];

        /// Add the vector after this many layers in a row, not after one
        spread: u16 = 1, in 1..=1000, [value_name = "N"];

        /// Add the vector of this file to the one that is made: the function.safetensors of another task, say (repeatable)
        add: Vec<Data>, [value_name = "FILE"];

        /// Compare with this many sets of random heads
        random: u16 = 5, in 1..=100, [value_name = "R"];

        /// List this many tokens of the vector's vocabulary
        vocabulary: u16 = 10, in 1..=100, [value_name = "K"];
    }
}

/// Sentences that a word stands in by itself, where none are given.
const NATURAL: [&str; 2] = ["The word \"{input}\" means", "When I think of {input}, I think of"];

/// A task as the model reads it.
pub struct Asked {
    words: Words,
    /// The form with examples, then sentences.
    forms: Vec<Form>,
    trials: Vec<Trial>,
    /// Words that were held out, after right and after shuffled examples.
    shown: Vec<[Vec<u32>; 2]>,
    /// For each form the prompts of words that were held out, then of words for training.
    alone: Vec<Vec<Vec<u32>>>,
    /// How many words for training are looked at without examples, to choose the layer.
    chosen_by: usize,
    layers: Vec<usize>,
    units: Vec<Unit>,
    /// What is added to the vector that is made.
    more: Vec<Vec<f32>>,
}

/// A word after right examples, and after shuffled ones.
struct Trial {
    word: usize,
    right: Vec<u32>,
    shuffled: Vec<u32>,
}

/// What was found.
pub struct Measured {
    /// For each head, one a trial.
    aie: Vec<Vec<f64>>,
    /// The probability of the right output after shuffled examples, one a trial.
    base: Vec<f64>,
    /// The numbers of the heads that the vector is made of, the strongest first.
    chosen: Vec<usize>,
    vector: Vec<f32>,
    evaluated: Evaluated,
}

impl Analysis for Functions {
    const NAME: &'static str = "functions";
    const TITLE: &'static str = "Function vector";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let arch = &model.decoder.arch;
        let (words, mut sources) = task::read(&self.task, model)?;
        let test = self.test.as_ref().map(|data| task::read(data, model)).transpose()?;
        let test = test.map(|(words, more)| {
            sources.extend(more);
            words
        });
        let words = Words::split(words, test, SPLIT);
        let (shots, path) = (usize::from(self.shots), self.task.display());
        if words.training.len() <= shots || words.held_out.len() < 2 {
            let why = format!(
                "leaves {} words to make the vector from and {} to test it: {shots} examples need {} and 2; add words, or show fewer \
                 examples with {}",
                words.training.len(),
                words.held_out.len(),
                shots + 1,
                param("shots"),
            );
            return Err(AnalysisError::Bad(format!("{path}: {why}")));
        }
        if let Some(c) = self.coefficient.iter().find(|c| !c.is_finite() || **c == 0.0) {
            return Err(AnalysisError::Bad(format!("{}: {c} times a vector is nothing to add", param("coefficient"))));
        }
        let mut forms = vec![self.form(&self.template, "template")?];
        match self.natural.as_slice() {
            [] => forms.extend(NATURAL.iter().filter_map(|sentence| Form::new(sentence, &self.separator).ok())),
            given => {
                for sentence in given {
                    forms.push(self.form(sentence, "natural")?);
                }
            }
        }
        let units = Unit::all(SiteKind::Z, arch)?;
        let units: Vec<Unit> = units.into_iter().filter(|unit| unit.head.is_some()).collect();
        if units.len() <= usize::from(self.heads) {
            let why = format!("the model has {} heads: fewer must be chosen, so that others are left", units.len());
            return Err(AnalysisError::Bad(format!("{}: {why}", param("heads"))));
        }
        let mut more = Vec::new();
        for data in &self.add {
            let given = of_stream(data, None, arch)?;
            sources.push(given.source);
            more.push(given.named.vector);
        }
        let layers = layer_list(self.layers.as_deref(), arch.n_layers)?;
        let mut asked = Asked {
            chosen_by: words.training.len().min(words.held_out.len()).min(MOST),
            words,
            forms,
            trials: Vec::new(),
            shown: Vec::new(),
            alone: Vec::new(),
            layers,
            units,
            more,
        };
        let first = self.prompts(model, &mut asked)?;
        let all = asked.trials.iter().zip(std::iter::repeat(&first));
        let all =
            all.enumerate().map(|(t, (trial, input))| (format!("trial {}", t + 1), trial, input)).collect::<Vec<_>>();
        let shown = all.iter().map(|(id, trial, input)| Prompt { input, ids: &trial.right, id, field: "examples" });
        let scored = Scored::of_prompts(model, self.task.path(), shown);
        Ok(Prepared { items: asked, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let means = self.means(runner, items)?;
        let (base, aie) = self.effects(runner, items, &means)?;
        let mut order: Vec<usize> = (0..items.units.len()).collect();
        let strength: Vec<f64> = aie.iter().map(|of| mean(of).unwrap_or(0.0)).collect();
        if !runner.is_counting() {
            order.sort_by(|a, b| strength[*b].total_cmp(&strength[*a]).then(a.cmp(b)));
        }
        let (chosen, others) = order.split_at(usize::from(self.heads));
        let writes = self.writes(runner, items, &means)?;
        let sum = |heads: &[usize]| -> Vec<f32> {
            let mut sum = vec![0f64; runner.model().decoder.arch.d_model];
            for head in heads {
                sum.iter_mut().zip(&writes[*head]).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            sum.into_iter().map(|x| x as f32).collect()
        };
        let mut vector = sum(chosen);
        for more in &items.more {
            vector.iter_mut().zip(more).for_each(|(x, more)| *x += more);
        }
        let mut vectors = vec![Arc::from(vector.clone())];
        for k in 0..usize::from(self.random) {
            let mut rng = stats::rng(runner.seed(), &format!("functions.random.{k}"));
            let n = chosen.len().min(others.len());
            let drawn: Vec<usize> = sample(&mut rng, others.len(), n).iter().map(|i| others[i]).collect();
            vectors.push(Arc::from(sum(&drawn)));
        }
        let evaluated = evaluate(runner, items, self, &vectors)?;
        Ok(Measured { aie, base, chosen: chosen.to_vec(), vector, evaluated })
    }

    fn tables(&self, about: &About, items: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        let tables = tables::tables(self, about, items, &measured)?;
        let named = super::vectors::Named { name: "function".to_string(), vector: measured.vector, bias: None };
        let file = to_bytes(&[named], Some(Position::Last))?;
        Ok(Output { tables, files: vec![("function.safetensors".to_string(), file)] })
    }
}

/// Words that the layer is chosen by are not more than this.
const MOST: usize = 64;

/// Words are split alike whatever the study's seed: what was held out once stays so.
const SPLIT: u64 = 0;

impl Functions {
    fn form(&self, template: &str, of: &'static str) -> Result<Form, AnalysisError> {
        Form::new(template, &self.separator).map_err(|why| AnalysisError::Bad(format!("{}: {why}", param(of))))
    }

    /// All prompts, as the model reads them; and the first, as it is written.
    fn prompts(&self, model: &Model, asked: &mut Asked) -> Result<Input, AnalysisError> {
        let (path, arch) = (self.task.display(), &model.decoder.arch);
        let tokenizer = model.tokenizer().map_err(|e| AnalysisError::Bad(format!("{path}: {e}")))?;
        let ids = |text: String| {
            let ids = tokenizer.encode(&text, true).map_err(|e| AnalysisError::Bad(format!("{path}: {e}")))?;
            match ids.len() {
                n if n > arch.n_ctx => {
                    let why =
                        format!("a prompt has {n} tokens, the model's context {}: show fewer examples", arch.n_ctx);
                    Err(AnalysisError::Bad(format!("{}: {why}", param("shots"))))
                }
                _ => Ok(ids),
            }
        };
        let (shots, words, with_examples) = (usize::from(self.shots), &asked.words, &asked.forms[0]);
        let both = |word: &Word, stream: String| -> Result<[Vec<u32>; 2], AnalysisError> {
            let of = examples(&words.training, word, shots, &stream, SPLIT);
            Ok([
                ids(with_examples.prompt(&of.own, &word.input))?,
                ids(with_examples.prompt(&of.shuffled, &word.input))?,
            ])
        };
        for t in 0..usize::from(self.trials) {
            let word = t % words.training.len();
            let [right, shuffled] = both(&words.training[word], format!("functions.trial.{t}"))?;
            asked.trials.push(Trial { word, right, shuffled });
        }
        for (i, word) in words.held_out.iter().enumerate() {
            asked.shown.push(both(word, format!("functions.shown.{i}"))?);
        }
        for form in &asked.forms {
            let each = words.held_out.iter().chain(&words.training[..asked.chosen_by]);
            asked.alone.push(each.map(|word| ids(form.prompt(&[], &word.input))).collect::<Result<_, _>>()?);
        }
        let first = &words.training[0];
        let of = examples(&words.training, first, shots, "functions.trial.0", SPLIT);
        Ok(Input::text(with_examples.prompt(&of.own, &first.input)))
    }

    /// The mean `z` of every layer with heads at the last token after right examples, and the mean `attn_out`.
    fn means(&self, runner: &dyn Runner, items: &Asked) -> Result<Vec<Means>, AnalysisError> {
        let mut layers: Vec<usize> = items.units.iter().map(|unit| unit.site.layer).collect();
        layers.dedup();
        let mut means: Vec<Means> = layers.iter().map(|layer| Means { layer: *layer, ..Means::default() }).collect();
        let arch = &runner.model().decoder.arch;
        let wide = layers.len() * (2 * arch.d_model).div_ceil(1024);
        for some in batches(items.trials.len(), wide) {
            let mut plan = Plan::default();
            let mut asked: Vec<(usize, Handle<Array>, Handle<Array>)> = Vec::new();
            for t in some {
                let run = plan.prompt(format!("trial {t}"), items.trials[t].right.clone());
                for (l, layer) in layers.iter().enumerate() {
                    let mut read = |kind: SiteKind| {
                        let site = kind.at(*layer);
                        plan.read(run, Activation { site, positions: Positions::Last, part: Part::All })
                    };
                    asked.push((l, read(SiteKind::Z), read(SiteKind::AttnOut)));
                }
            }
            let readings = runner.run(&plan)?;
            for (l, z, out) in asked {
                means[l].z.add(&readings[z].values);
                means[l].out.add(&readings[out].values);
            }
        }
        Ok(means)
    }

    /// The probability of the right output after shuffled examples, and how much each head's mean adds to it.
    fn effects(
        &self,
        runner: &dyn Runner,
        items: &Asked,
        means: &[Means],
    ) -> Result<(Vec<f64>, Vec<Vec<f64>>), AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let values: Vec<Arc<[f32]>> = items.units.iter().map(|unit| Arc::from(of_head(arch, means, *unit))).collect();
        let (mut base, mut aie) = (Vec::new(), vec![Vec::new(); items.units.len()]);
        for some in batches(items.trials.len(), items.units.len()) {
            let mut plan = Plan::default();
            let mut asked = Vec::new();
            for t in some {
                let trial = &items.trials[t];
                let run = plan.prompt(format!("trial {t}, shuffled"), trial.shuffled.clone());
                let of = || LogProbs { tokens: vec![items.words.training[trial.word].token] };
                let clean = plan.read(run, of());
                let forks: Vec<Handle<Array>> = items
                    .units
                    .iter()
                    .zip(&values)
                    .map(|(unit, value)| {
                        let change = Change::Set(value.clone());
                        let edit = Edit { site: unit.site, part: unit.part(), positions: Positions::Last, change };
                        let fork = plan.fork(run, vec![edit]);
                        plan.read(fork, of())
                    })
                    .collect();
                asked.push((clean, forks));
            }
            let readings = runner.run(&plan)?;
            let p = |handle: Handle<Array>| f64::from(readings[handle].values[0]).exp();
            for (clean, forks) in asked {
                base.push(p(clean));
                aie.iter_mut().zip(forks).for_each(|(of, fork)| of.push(p(fork) - p(clean)));
            }
        }
        Ok((base, aie))
    }

    /// What each head adds to the residual stream by its mean `z`.
    fn writes(&self, runner: &dyn Runner, items: &Asked, means: &[Means]) -> Result<Vec<Vec<f32>>, AnalysisError> {
        let decoder = &runner.model().decoder;
        if runner.is_counting() {
            return Ok(vec![vec![0.0; decoder.arch.d_model]; items.units.len()]);
        }
        let mut found = Vec::with_capacity(items.units.len());
        for of in means {
            let writes = writes_of_heads(decoder, of.layer, &of.z.mean(), &of.out.mean());
            let writes = writes.map_err(|e| AnalysisError::Failed(e.to_string()))?;
            let heads = items.units.iter().filter(|unit| unit.site.layer == of.layer).count();
            found.extend(writes.into_iter().take(heads));
        }
        Ok(found)
    }
}

/// Means of a layer over prompts with right examples.
#[derive(Default)]
struct Means {
    layer: usize,
    z: super::summary::RowMean,
    out: super::summary::RowMean,
}

/// The mean `z` of one head.
fn of_head(arch: &Arch, means: &[Means], unit: Unit) -> Vec<f32> {
    let z = means.iter().find(|of| of.layer == unit.site.layer).map(|of| of.z.mean()).unwrap_or_default();
    let heads = arch.layers.get(unit.site.layer).map_or(1, |layer| layer.heads().max(1));
    let (width, head) = (z.len() / heads, unit.head.unwrap_or(0));
    z[head * width..(head + 1) * width].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Options as ModelOptions;
    use crate::run::{Engine, Options, run};
    use crate::study::Study;
    use candle_core::{DType, Device};
    use std::sync::Arc;

    const WORDS: [&str; 12] = [
        "bread",
        "rivers",
        "mountains",
        "cheese",
        "music",
        "gardens",
        "trees",
        "birds",
        "books",
        "soup",
        "boats",
        "tea",
    ];

    /// A task of the demo's own words: each word's output is the next.
    fn task(model: &Model) -> Vec<u8> {
        let tokenizer = model.tokenizer().unwrap();
        let known: Vec<&str> = WORDS.into_iter().filter(|word| tokenizer.encode(word, false).is_ok()).collect();
        let line =
            |i: usize| format!("{{\"input\": \"{}\", \"output\": \"{}\"}}\n", known[i], known[(i + 1) % known.len()]);
        (0..known.len()).map(line).collect::<String>().into_bytes()
    }

    /// The logits after the last token by the reference engine.
    fn logits(model: &Model, ids: &[u32], edits: Vec<Edit>) -> Vec<f64> {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", ids.to_vec());
        let fork = plan.fork(prompt, edits);
        let read = Activation { site: SiteKind::Logits.at(0), positions: Positions::Last, part: Part::All };
        let handle = plan.read(fork, read);
        let readings = run(&model.decoder, &plan, &Options { engine: Engine::Full, ..Options::default() }).unwrap();
        readings[handle].values.iter().map(|x| f64::from(*x)).collect()
    }

    fn probability(logits: &[f64], token: u32) -> f64 {
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        logits[token as usize].exp() / total
    }

    /// Everything by its definition: means over prompts, the output projection's own numbers, probabilities from whole logits.
    #[test]
    fn heads_vector_and_accuracy_are_those_of_their_definitions() {
        let model = Arc::new(Model::open("demo", &ModelOptions::default()).unwrap());
        let analysis = Functions {
            task: Data::in_memory("task.jsonl", task(&model)),
            shots: 2,
            trials: 4,
            heads: 3,
            random: 2,
            coefficient: vec![1.0, 3.0],
            ..Functions::default()
        };
        let items = analysis.prepare(&model).unwrap().items;
        let measured = analysis.measure(&Study::of(model.clone()).session(), &items).unwrap();
        let arch = &model.decoder.arch;
        let d = arch.layers[0].mixer.heads().unwrap().d_value();
        // The mean z of each layer.
        let z = |ids: &[u32], layer: usize| -> Vec<f64> {
            let mut plan = Plan::default();
            let prompt = plan.prompt("p", ids.to_vec());
            let read = Activation { site: SiteKind::Z.at(layer), positions: Positions::Last, part: Part::All };
            let handle = plan.read(prompt, read);
            let readings = run(&model.decoder, &plan, &Options::default()).unwrap();
            readings[handle].values.iter().map(|x| f64::from(*x)).collect()
        };
        let mean_z = |layer: usize| -> Vec<f64> {
            let all: Vec<Vec<f64>> = items.trials.iter().map(|trial| z(&trial.right, layer)).collect();
            (0..all[0].len()).map(|i| all.iter().map(|z| z[i]).sum::<f64>() / all.len() as f64).collect()
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/demo/model/model.safetensors");
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let mut vector = vec![0f64; arch.d_model];
        for head in &measured.chosen {
            let unit = items.units[*head];
            let (layer, h) = (unit.site.layer, unit.head.unwrap());
            let o = tensors[&format!("model.layers.{layer}.self_attn.o_proj.weight")].to_dtype(DType::F32).unwrap();
            let (o, z) = (o.to_vec2::<f32>().unwrap(), mean_z(layer));
            for (x, row) in vector.iter_mut().zip(&o) {
                *x += (0..d).map(|k| f64::from(row[h * d + k]) * z[h * d + k]).sum::<f64>();
            }
        }
        assert!(vector.iter().any(|x| x.abs() > 0.01), "something is written");
        for (found, expected) in measured.vector.iter().zip(&vector) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} and {expected}");
        }
        // The strongest head's effect in each trial.
        let head = measured.chosen[0];
        let unit = items.units[head];
        let value: Vec<f32> =
            mean_z(unit.site.layer)[unit.head.unwrap() * d..][..d].iter().map(|x| *x as f32).collect();
        for (t, trial) in items.trials.iter().enumerate() {
            let token = items.words.training[trial.word].token;
            let edit = Edit {
                site: unit.site,
                part: unit.part(),
                positions: Positions::Last,
                change: Change::Set(Arc::from(value.clone())),
            };
            let base = probability(&logits(&model, &trial.shuffled, vec![]), token);
            let with = probability(&logits(&model, &trial.shuffled, vec![edit]), token);
            assert!((measured.base[t] - base).abs() < 1e-5 && (measured.aie[head][t] - (with - base)).abs() < 1e-5);
        }
        let strength = |head: usize| mean(&measured.aie[head]).unwrap();
        let least = strength(*measured.chosen.last().unwrap());
        assert!((0..items.units.len()).all(|h| measured.chosen.contains(&h) || strength(h) <= least));
        // A word that was held out, with the vector three times after layer 5.
        let evaluated = &measured.evaluated;
        let condition = evaluated.conditions.iter().position(|c| c.layer == 5 && c.coefficient == 3.0).unwrap();
        for (i, word) in items.words.held_out.iter().enumerate() {
            let change = Change::Add { vector: Arc::from(measured.vector.clone()), coefficient: 3.0 };
            let site = SiteKind::ResidPost.at(5);
            let edit = Edit { site, part: Part::All, positions: Positions::Last, change };
            let logits = logits(&model, &items.alone[0][i], vec![edit]);
            let rank = 1 + logits.iter().filter(|x| **x > logits[word.token as usize]).count();
            let said = evaluated.alone[0][i][condition + 1];
            assert_eq!(said.rank, rank as f64);
            assert!((said.logprob - probability(&logits, word.token).ln()).abs() < 1e-4);
        }
        let (random, said) = &evaluated.random[0];
        assert_eq!((random.len(), said.len(), said[0].len()), (2 * 8, items.words.held_out.len(), 2 * 8));
    }

    #[test]
    fn a_task_that_is_too_small_or_unsound_is_refused_with_what_would_mend_it() {
        let model = Model::open("demo", &ModelOptions::default()).unwrap();
        let refused = |text: &str, change: fn(&mut Functions)| {
            let mut analysis = Functions {
                task: Data::in_memory("t.jsonl", text.as_bytes().to_vec()),
                shots: 2,
                ..Functions::default()
            };
            change(&mut analysis);
            analysis.prepare(&model).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let text = String::from_utf8(task(&model)).unwrap();
        for (text, change, said) in [
            ("{\"input\": \"a\"}\n", (|_| ()) as fn(&mut Functions), "line 1: field \"output\""),
            (
                "{\"input\": \"tea\", \"output\": \"bread\"}\n{\"input\": \"tea\", \"output\": \"soup\"}",
                |_| (),
                "line 2: field \"input\": \"tea\" was there before",
            ),
            ("[{\"input\": \"tea\"}]", |_| (), "object 1: field \"output\""),
            (
                "{\"input\": \"tea\", \"output\": \"bread\"}\n",
                |_| (),
                "leaves 1 words to make the vector from and 0 to test it",
            ),
            (text.as_str(), |f| f.template = "Q:".to_string(), "`template`: `Q:` has no {input}"),
            (text.as_str(), |f| f.coefficient = vec![0.0], "`coefficient`: 0 times a vector"),
            (text.as_str(), |f| f.heads = 64, "`heads`: the model has 64 heads"),
            (text.as_str(), |f| f.layers = Some("9".to_string()), "no layer or range of layers"),
        ] {
            let found = refused(text, change);
            assert!(found.contains(said), "{found}");
        }
    }
}
