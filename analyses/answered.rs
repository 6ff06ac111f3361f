//! Generated answers and their classes.
//!
//! Which runs go on, and what becomes of the answers, is left to the analyses; the rules are [`crate::answers`]'. Every analysis
//! that classifies answers does it here.

use super::inputs::{Sources, read_input};
use crate::analyses::prelude::*;
use crate::answers::{Class, OWN, Rules};
use crate::dataset::Input;
use crate::run::{Generated, Generation, Sampling, Steps};

parameters! {
    /// How generated answers are classified
    #[serde(default)]
    pub struct ClassArgs {
        /// Classes of one's own for generated answers: a file of rules as datasets/answers.toml has them
        classes: Option<Data>, [value_name = "FILE"];
    }
}

impl ClassArgs {
    /// The rules: those of the file, which is added to the sources, or those that come with the library.
    ///
    /// # Errors
    /// If the file cannot be read or is not sound, or nothing is generated that it could classify.
    pub fn open(&self, generates: bool, sources: &mut Sources) -> Result<Rules, AnalysisError> {
        let Some(path) = &self.classes else {
            return Rules::builtin().map_err(|e| AnalysisError::Failed(e.to_string()));
        };
        if !generates {
            let (classes, generate) = (param("classes"), param("generate").is("N"));
            return Err(AnalysisError::Bad(format!("{classes}: there are no answers to classify; give {generate}")));
        }
        let (bytes, source) = read_input(path)?;
        let text = String::from_utf8(bytes)
            .map_err(|e| AnalysisError::Bad(format!("{}: is not UTF-8: {e}; save it as UTF-8", path.display())))?;
        let rules = Rules::parse(&path.display().to_string(), &text).map_err(|e| AnalysisError::Bad(e.to_string()))?;
        sources.push(source);
        Ok(rules)
    }

    /// The same for an analysis of what is refused, which has to tell refusals from answers.
    ///
    /// # Errors
    /// As [`Self::open`], and if the file has no rules for one of the two.
    pub fn open_for_refusals(&self, generates: bool, sources: &mut Sources) -> Result<Rules, AnalysisError> {
        let rules = self.open(generates, sources)?;
        let path = self.classes.as_ref().map_or(String::new(), |path| path.display().to_string());
        match [Class::Refusal, Class::Answer].into_iter().find(|class| !rules.has(*class)) {
            Some(lacking) => Err(AnalysisError::Bad(format!(
                "{path}: has no rule of the class `{lacking}`, and this analysis tells refusals from answers; add rules of both"
            ))),
            None => Ok(rules),
        }
    }
}

rows! {
    /// A generated answer in tables.
    #[derive(Copy)]
    pub struct Answered<'a> {
        class: &'a str = "refusal, evasion, answer, broken (loops and scraps), undecided, or a class of one's own",
        rule: Option<&'a str> = "the rule that decided",
        stopped: bool = "whether the answer ended by itself",
        text: &'a str = "the generated answer",
    }
}

impl<'a> From<&'a Answer> for Answered<'a> {
    fn from(answer: &'a Answer) -> Self {
        let Answer { class, rule, stopped, text } = answer;
        Answered { class: class.name(), rule: rule.as_deref(), stopped: *stopped, text }
    }
}

/// The columns of the shares of some classes.
pub fn columns_of(classes: &[Class]) -> Vec<String> {
    classes.iter().map(|class| class.column()).collect()
}

/// A generated answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub class: Class,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Whether it ended by itself.
    pub stopped: bool,
}

/// Answers to items, one each, with their classes.
///
/// # Errors
/// If the model has no tokenizer.
fn answers(
    model: &Model,
    rules: &Rules,
    items: &[Item],
    generated: &[Generated],
) -> Result<Vec<Answer>, AnalysisError> {
    let tokenizer = model.tokenizer().map_err(|e| AnalysisError::Bad(e.to_string()))?;
    let one = |(item, generated): (&Item, &Generated)| {
        let text = tokenizer.decode_generated(&generated.ids).map_err(|e| AnalysisError::Failed(e.to_string()))?;
        let verdict = rules.classify(&text, item.lang.as_deref(), &item.facts);
        Ok(Answer { text, class: verdict.class, rule: verdict.rule, stopped: generated.stopped })
    };
    items.iter().zip(generated).map(one).collect()
}

/// The share of answers of a class; none of none.
pub fn share(answers: &[&Answer], class: Class) -> Option<f64> {
    let of = answers.iter().filter(|a| a.class == class).count();
    (!answers.is_empty()).then(|| of as f64 / answers.len() as f64)
}

/// The shares of some classes.
pub fn shares(answers: &[&Answer], classes: &[Class]) -> Vec<Option<f64>> {
    classes.iter().map(|class| share(answers, *class)).collect()
}

/// The columns of a table that hold shares of classes, each with the class' name: those of the library, then one's own.
pub fn class_columns(table: &Table) -> Vec<(String, String)> {
    let known = Class::ALL.map(Class::name).into_iter().filter(|name| table.has(name));
    let own = table
        .columns()
        .filter_map(|column| Some((column.name.strip_prefix(OWN)?.to_string(), column.name.to_string())));
    known.map(|name| (name.to_string(), name.to_string())).chain(own).collect()
}

/// Continues runs of a plan greedily; see [`sampled`].
///
/// # Errors
/// As [`sampled`].
pub fn continued(
    runner: &dyn Runner,
    plan: &Plan,
    runs: Vec<Run>,
    much: (u32, Steps),
    asked: (&Rules, &[Item]),
) -> Result<(Vec<Generated>, Vec<Answer>), AnalysisError> {
    sampled(runner, plan, runs, much, Sampling::Greedy, asked)
}

/// Continues runs of a plan by up to `tokens` tokens, and classifies by rules what each came to; `asked` says what runs answer.
///
/// # Errors
/// If the runs cannot go on, or the model has no tokenizer.
pub fn sampled(
    runner: &dyn Runner,
    plan: &Plan,
    runs: Vec<Run>,
    (tokens, steps): (u32, Steps),
    sampling: Sampling,
    (rules, asked): (&Rules, &[Item]),
) -> Result<(Vec<Generated>, Vec<Answer>), AnalysisError> {
    let stop = runner.model().stop_tokens().to_vec();
    let generation = Generation { runs, max_tokens: tokens as usize, sampling, steps, stop };
    let generated = runner.generate(plan, &generation)?;
    let answers = answers(runner.model(), rules, asked, &generated)?;
    Ok((generated, answers))
}

/// One prompt of a pair as an item of its own. Spans are those of the pair: positions in its positive prompt.
pub fn item_of(pair: &Pair, prompt: &Input) -> Item {
    Item {
        line: pair.line,
        id: pair.id.clone(),
        prompt: prompt.clone(),
        label: None,
        group: pair.group.clone(),
        lang: pair.lang.clone(),
        answer: pair.answer.clone(),
        foil: pair.foil.clone(),
        facts: Vec::new(),
        spans: pair.spans.clone(),
    }
}
