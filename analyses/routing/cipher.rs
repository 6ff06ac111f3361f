//! Cipher: does the behaviour still need its gate when the request comes in a form that the detector cannot read?
//!
//! Each request is put in plain and in cipher ([`super::ciphered`]). *Necessity* of the gate in either form: the positive run
//! with the gate's `z` of the negative run of the same form; where the model no longer sees what it would refuse, the gate
//! carries nothing, and the effect collapses. Part of that may be the work of the instructions that teach the cipher and not of
//! the cipher: so necessity is asked of a third form too, the same instructions around the request in plain. *Injection*: the
//! ciphered request with the gate's `z` of the plain run. If refusals come back, the route behind the gate is whole, and only
//! detection was blind. The control injects the `z` of the plain harmless request instead. All exchanges are at the last
//! position. Source: "How Alignment Routes" (2026).

mod report;
mod tables;

pub use tables::{CollapseRow, GenerationRow, InjectionRow, ItemRow, NecessityRow};

use super::ciphered::{CipherArgs, Ciphered};
use super::gate::{GateArgs, interchanged};
use crate::analyses::answered::{Answer, ClassArgs, continued, item_of};
use crate::analyses::halves::{Asked, Value};
use crate::analyses::heads::Head;
use crate::analyses::prelude::*;
use crate::plan::Entropy;
use crate::run::Steps;

parameters! {
    /// Test whether the gate is needed in cipher, and whether injecting it restores refusals
    #[serde(default)]
    pub struct Cipher {
        ..pairs: PairArgs;
        ..gate: GateArgs;
        ..cipher: CipherArgs;

        /// Generate answers of this many tokens, and classify them (0: none)
        ///
        /// The swap is made in the prompt.
        generate: u32 = 0, in 0..=1_000_000, [value_name = "N"];
    }
}

/// The pairs as the model reads them, and the gate.
pub struct Items {
    ciphered: Ciphered,
    gate: Vec<Head>,
}

/// What answers are generated of, in the order of tables.
const CONDITIONS: [&str; 4] = ["plain", "cipher", "injected", "control"];

/// The forms of a request, in the order of tables. Wrapped there is none where the cipher is a file's.
const FORMS: [&str; 3] = ["plain", "wrapped", "cipher"];

/// A pair's metrics in one form, nats.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Form {
    positive: f64,
    negative: f64,
    /// Of the positive prompt with the gate of the negative.
    exchanged: f64,
    /// How far the exchange moves the answer's half.
    answer: f64,
}

impl Form {
    /// The effect of the exchange.
    fn effect(self) -> f64 {
        self.exchanged - self.positive
    }

    /// How far it moves the foil's half: the answer's less this is the effect.
    fn foil(self) -> f64 {
        self.answer - self.effect()
    }
}

/// One pair's metrics, nats.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    plain: Form,
    wrapped: Option<Form>,
    cipher: Form,
    /// Of the ciphered positive prompt with the gate of the plain positive.
    injected: f64,
    /// Of the ciphered positive prompt with the gate of the plain negative.
    control: f64,
    /// How far injection moves the answer's half, and the control.
    answers: [f64; 2],
}

impl Measured {
    /// From what is read of a pair.
    fn of(of_pair: &OfPair, readings: &Readings) -> Measured {
        // Pairs' metrics are logit differences, and have halves.
        let half = |value: Value| value.answer.unwrap_or_default();
        let form = |asked: [Asked; 3]| {
            let [positive, negative, exchanged] = asked.map(|asked| asked.of(readings));
            let answer = half(exchanged) - half(positive);
            Form { positive: positive.metric, negative: negative.metric, exchanged: exchanged.metric, answer }
        };
        let [injected, control] = of_pair.injected.map(|asked| asked.of(readings));
        let cipher = of_pair.cipher[0].of(readings);
        Measured {
            plain: form(of_pair.plain),
            wrapped: of_pair.wrapped.map(form),
            cipher: form(of_pair.cipher),
            injected: injected.metric,
            control: control.metric,
            answers: [injected, control].map(|value| half(value) - half(cipher)),
        }
    }

    /// The metric under each of [`CONDITIONS`].
    fn conditions(&self) -> [f64; 4] {
        [self.plain.positive, self.cipher.positive, self.injected, self.control]
    }

    /// Each of [`FORMS`].
    fn forms(&self) -> [Option<Form>; 3] {
        [Some(self.plain), self.wrapped, Some(self.cipher)]
    }
}

impl Analysis for Cipher {
    const NAME: &'static str = "cipher";
    const TITLE: &'static str = "Cipher";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    type Measured = Found;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let (gate, of_gate) = self.gate.read(model)?;
        let mut prepared = Ciphered::read(&self.pairs, &self.cipher, model, self.generate as usize)?;
        prepared.sources.extend(of_gate);
        Ok(prepared.map(|ciphered| Items { ciphered, gate }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Found, AnalysisError> {
        let measured = measured(runner, items, some(items))?;
        Ok(Found { measured, answers: self.answers(runner, items, some(items))? })
    }

    fn tables(&self, about: &About, items: &Items, found: Found) -> Result<Output, AnalysisError> {
        let Found { measured, answers } = found;
        let made = tables::Made { model: about.model, seed: about.seed, items, measured: &measured };
        Ok(made.tables(&answers)?.into())
    }
}

/// The pairs that are planned at once.
fn some(items: &Items) -> impl Iterator<Item = Range<usize>> {
    batches(items.ciphered.n(), FORMS.len() + 2)
}

/// What is read of a pair: in every form, both prompts and the positive with the gate of the negative.
struct OfPair {
    plain: [Asked; 3],
    wrapped: Option<[Asked; 3]>,
    cipher: [Asked; 3],
    /// The ciphered positive prompt with the gate injected from the plain positive; and from the plain negative, the control.
    injected: [Asked; 2],
}

/// Each of some pairs' metrics.
fn metrics_plan(items: &Items, pairs: Range<usize>) -> (Plan, Vec<OfPair>) {
    let mut plan = Plan::default();
    let of_pair = |i: usize| {
        let (ciphered, plan) = (&items.ciphered, &mut plan);
        let metric = &ciphered.plain.tokens[i].metric;
        let plain = ciphered.plain.add(plan, i);
        let wrapped = ciphered.add_wrapped(plan, i);
        let cipher = ciphered.add_cipher(plan, i);
        let mut form = |[positive, negative]: [Run; 2]| {
            let exchanged = plan.fork(positive, interchanged(&items.gate, negative));
            [positive, negative, exchanged].map(|run| Value::ask(plan, run, metric))
        };
        let (of_plain, of_wrapped, of_cipher) = (form(plain), wrapped.map(&mut form), form(cipher));
        let injected = plain.map(|donor| {
            let fork = plan.fork(cipher[0], interchanged(&items.gate, donor));
            Value::ask(plan, fork, metric)
        });
        OfPair { plain: of_plain, wrapped: of_wrapped, cipher: of_cipher, injected }
    };
    let asked = pairs.map(of_pair).collect();
    (plan, asked)
}

/// What was found of the pairs.
pub struct Found {
    measured: Vec<Measured>,
    answers: Vec<Answer>,
}

/// Runs so many pairs at a time.
fn measured(
    runner: &dyn Runner,
    items: &Items,
    pairs: impl Iterator<Item = Range<usize>>,
) -> Result<Vec<Measured>, AnalysisError> {
    let mut measured = Vec::with_capacity(items.ciphered.n());
    for some in pairs {
        let (plan, asked) = metrics_plan(items, some);
        let readings = runner.run(&plan)?;
        measured.extend(asked.iter().map(|of_pair| Measured::of(of_pair, &readings)));
    }
    Ok(measured)
}

/// What generates, and the runs that go on: for each of some pairs one for each of [`CONDITIONS`].
fn generation_plan(items: &Items, pairs: Range<usize>) -> (Plan, Vec<Run>) {
    let (mut plan, mut runs) = (Plan::default(), Vec::new());
    for i in pairs {
        let ciphered = &items.ciphered;
        let plain = ciphered.plain.add(&mut plan, i);
        let name = format!("{} positive in cipher", ciphered.plain.dataset.items[i].id);
        let cipher = plan.prompt(name, ciphered.cipher[i][0].clone());
        let injected = plain.map(|donor| plan.fork(cipher, interchanged(&items.gate, donor)));
        runs.extend([plain[0], cipher, injected[0], injected[1]]);
    }
    for run in &runs {
        plan.read(*run, Entropy);
    }
    (plan, runs)
}

impl Cipher {
    /// Generated answers with their classes: for each pair one for each of [`CONDITIONS`]; none where none were asked for.
    fn answers(
        &self,
        runner: &dyn Runner,
        items: &Items,
        pairs: impl Iterator<Item = Range<usize>>,
    ) -> Result<Vec<Answer>, AnalysisError> {
        let (mut answers, rules) = (Vec::new(), ClassArgs::default().open(false, &mut Vec::new())?);
        for some in pairs.take_while(|_| self.generate > 0) {
            let (plan, runs) = generation_plan(items, some.clone());
            let item = |pair: &Pair| std::iter::repeat_n(item_of(pair, &pair.positive), CONDITIONS.len());
            let asked: Vec<Item> = items.ciphered.plain.dataset.items[some].iter().flat_map(item).collect();
            answers.extend(continued(runner, &plan, runs, (self.generate, Steps::PromptOnly), (&rules, &asked))?.1);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::inputs::PairFile;
    use crate::plan::{Metric, Reading};
    use crate::study::Study;

    #[test]
    fn metrics_do_not_depend_on_which_pairs_are_planned_at_once() {
        let study = Study::open(crate::demo::NAME).unwrap();
        let file = PairFile { max_pairs: Some(5), ..PairFile::from("demo:pairs.jsonl") };
        let cipher = Cipher {
            pairs: PairArgs { file, ..PairArgs::default() },
            gate: GateArgs { gate: vec!["L3.H5".parse().unwrap()], circuit: None },
            generate: 2,
            ..Cipher::default()
        };
        let items = cipher.prepare(&study.model).unwrap().items;
        let session = study.session();
        let of = |pairs: Vec<Range<usize>>| {
            let measured = measured(&session, &items, pairs.clone().into_iter()).unwrap();
            (measured, cipher.answers(&session, &items, pairs.into_iter()).unwrap())
        };
        let whole = of(vec![0..5]);
        assert_eq!((whole.0.len(), whole.1.len()), (5, 20));
        assert!(whole == of(vec![0..2, 2..3, 3..5]));
    }

    #[test]
    fn a_pairs_metrics_are_read_with_and_without_a_wrapped_form() {
        // The answer's half is twice the metric.
        let of = |metrics: &[f64]| {
            let (mut plan, mut found, metric) =
                (Plan::default(), Vec::new(), Metric::logit_difference(vec![1], vec![2]));
            let run = plan.prompt("p", vec![1]);
            let mut values = metrics.iter().map(|x| {
                found.extend([Reading::Number(*x), Reading::Number(2.0 * x)]);
                Value::ask(&mut plan, run, &metric)
            });
            let mut next = || values.next().unwrap();
            let plain = [next(), next(), next()];
            let wrapped = (metrics.len() > 8).then(|| [next(), next(), next()]);
            let (cipher, injected) = ([next(), next(), next()], [next(), next()]);
            drop(values);
            Measured::of(&OfPair { plain, wrapped, cipher, injected }, &Readings::new(found))
        };
        let form = |positive: f64| Form { positive, negative: positive + 1.0, exchanged: positive + 2.0, answer: 4.0 };
        let found = of(&[1.0, 2.0, 3.0, 7.0, 8.0, 9.0, 4.0, 5.0, 6.0, 10.0, 11.0]);
        assert_eq!((found.forms(), found.injected), ([1.0, 7.0, 4.0].map(|p| Some(form(p))), 10.0));
        assert_eq!(found.answers, [12.0, 14.0], "against the request in cipher");
        let found = of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0, 11.0]);
        assert_eq!((found.wrapped, found.cipher, found.control), (None, form(4.0), 11.0));
        assert_eq!((found.cipher.effect(), found.cipher.foil()), (2.0, 2.0));
    }
}
