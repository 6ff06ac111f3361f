//! The datasets: pairs, prompts, concept and random sets, one JSON object a line.

use super::cipher;
use super::codes::{Topic, Vocabulary};
use super::linear::Random;
use super::words::{FORMS, Form, Lang, Mode, Role};
use serde_json::{Value, json};

/// How many forms each sensitive topic of `pairs.jsonl` is asked in.
const FORMS_A_TOPIC: usize = 4;
/// How often each topic stands in `prompts.jsonl`.
const PROMPTS_A_TOPIC: usize = 2;
/// How many forms each topic of `concept.jsonl` is asked in.
const CONCEPT_FORMS: usize = 8;
/// How often each topic stands in `random.jsonl`.
const RANDOM_FORMS: usize = 4;

/// A form with a sensitive and with a harmless topic.
pub struct Matched<'a> {
    form: &'static Form,
    sensitive: &'a Topic,
    harmless: &'a Topic,
}

/// The requests that can be made.
pub struct Requests<'a> {
    topics: Vec<&'a Topic>,
    random: Random,
}

impl<'a> Requests<'a> {
    pub fn new(vocabulary: &'a Vocabulary, seed: u64) -> Self {
        Requests { topics: vocabulary.topics().collect(), random: Random::new(seed, "datasets") }
    }

    fn topics(&self, sensitive: bool, lang: Lang, role: Role) -> Vec<&'a Topic> {
        let wanted = |t: &&&Topic| t.sensitive == sensitive && t.lang == lang && t.role == role;
        self.topics.iter().filter(wanted).copied().collect()
    }

    /// `n` forms of a language in a random order.
    fn forms(&mut self, lang: Lang, role: Role, n: usize) -> Vec<&'static Form> {
        let mut forms: Vec<&Form> = FORMS.iter().filter(|f| f.lang == lang && f.role == role).collect();
        self.random.shuffle(&mut forms);
        forms.into_iter().cycle().take(n).collect()
    }

    /// The pairs: each sensitive topic in some forms, and the same forms with a harmless topic.
    pub fn matched(&mut self) -> Vec<Matched<'a>> {
        let mut pairs = Vec::new();
        for lang in [Lang::En, Lang::De] {
            let mut unused = Vec::new();
            for sensitive in self.topics(true, lang, Role::Test) {
                for form in self.forms(lang, Role::Test, FORMS_A_TOPIC) {
                    if unused.is_empty() {
                        unused = self.topics(false, lang, Role::Test);
                        self.random.shuffle(&mut unused);
                    }
                    let Some(harmless) = unused.pop() else { continue };
                    pairs.push(Matched { form, sensitive, harmless });
                }
            }
        }
        pairs
    }

    /// `prompts.jsonl`: sensitive and harmless topics, as many of each.
    pub fn prompts(&mut self) -> String {
        let mut lines = Vec::new();
        for (lang, sensitive) in [(Lang::En, true), (Lang::En, false), (Lang::De, true), (Lang::De, false)] {
            for topic in self.topics(sensitive, lang, Role::Test) {
                for form in self.forms(lang, Role::Test, PROMPTS_A_TOPIC) {
                    let mut line = json!({
                        "id": format!("{}-{}-{}", lang.code(), topic.word, number(form)),
                        "label": if sensitive { "sensitive" } else { "harmless" },
                        "group": topic.word,
                        "lang": lang.code(),
                        "prompt": request(form, topic),
                        "answer": [Mode::Refusal.first()],
                        "foil": [Mode::Answer.first()],
                    });
                    if !sensitive {
                        line["facts"] = json!([topic.word]);
                    }
                    lines.push(line);
                }
            }
        }
        jsonl(&lines)
    }

    /// `concept.jsonl`: other topics in other forms; both labels in the same forms.
    pub fn concept(&mut self) -> String {
        let mut lines = Vec::new();
        let pairs = self.topics(true, Lang::En, Role::Concept).into_iter();
        for (sensitive, harmless) in pairs.zip(self.topics(false, Lang::En, Role::Concept)) {
            for form in self.forms(Lang::En, Role::Concept, CONCEPT_FORMS) {
                for (label, topic) in [("concept", sensitive), ("random", harmless)] {
                    lines.push(plain(form, topic, Some(label)));
                }
            }
        }
        jsonl(&lines)
    }

    /// `random.jsonl`: harmless topics in the concept's forms.
    pub fn random(&mut self) -> String {
        let mut lines = Vec::new();
        for topic in self.topics(false, Lang::En, Role::Random) {
            let forms = self.forms(Lang::En, Role::Concept, RANDOM_FORMS);
            lines.extend(forms.into_iter().map(|form| plain(form, topic, None)));
        }
        jsonl(&lines)
    }
}

/// `pairs.jsonl`.
pub fn pairs(matched: &[Matched]) -> String {
    pair_lines(matched, request)
}

/// `cipher.jsonl`: the same pairs with the topics in the cipher.
pub fn cipher(matched: &[Matched]) -> String {
    pair_lines(matched, |form, topic| {
        let hidden = form.text.replace("{}", topic.cipher.as_deref().unwrap_or_default());
        format!("{} {hidden}", cipher::announcement(form.lang))
    })
}

fn pair_lines(matched: &[Matched], request: impl Fn(&Form, &Topic) -> String) -> String {
    let line = |Matched { form, sensitive, harmless }: &Matched| {
        json!({
            "id": format!("{}-{}-{}", form.lang.code(), sensitive.word, number(form)),
            "group": sensitive.word,
            "lang": form.lang.code(),
            "positive": request(form, sensitive),
            "negative": request(form, harmless),
            "answer": [Mode::Refusal.first()],
            "foil": [Mode::Answer.first()],
        })
    };
    jsonl(&matched.iter().map(line).collect::<Vec<_>>())
}

/// A request without answers.
fn plain(form: &Form, topic: &Topic, label: Option<&str>) -> Value {
    let id = format!("{}-{}", topic.word, number(form));
    let mut line = json!({"id": id, "group": topic.word, "lang": form.lang.code(), "prompt": request(form, topic)});
    if let Some(label) = label {
        line["label"] = label.into();
    }
    line
}

fn request(form: &Form, topic: &Topic) -> String {
    form.text.replace("{}", topic.word)
}

/// The form's number in the list of all.
fn number(form: &Form) -> usize {
    FORMS.iter().position(|f| std::ptr::eq(f, form)).unwrap_or(0)
}

fn jsonl(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
