//! Tasks of function vectors: words in, words out, and the prompts that are made of them.

use crate::analyses::inputs::{Sources, read_input};
use crate::analyses::prelude::*;
use crate::stats::rng;
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::Value;

/// A word and what the task makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub input: String,
    pub output: String,
    /// The first token of the output, as it follows a prompt.
    pub token: u32,
}

/// Words that the vector is made from, and words that it has not seen.
pub struct Words {
    pub training: Vec<Word>,
    pub held_out: Vec<Word>,
}

/// Reads a task: JSON Lines of `{"input", "output"}`, or one JSON array of such objects.
///
/// # Errors
/// If the file is not sound, names an input twice or an output that has no token.
pub fn read(data: &Data, model: &Model) -> Result<(Vec<Word>, Sources), AnalysisError> {
    let (bytes, source) = read_input(data)?;
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", data.display()));
    let tokenizer = model.tokenizer().map_err(|e| bad(e.to_string()))?;
    let listed: Vec<(String, Value)> = if bytes.trim_ascii_start().starts_with(b"[") {
        let all: Vec<Value> = serde_json::from_slice(&bytes).map_err(|e| bad(format!("is no JSON: {e}")))?;
        all.into_iter().enumerate().map(|(n, value)| (format!("object {}", n + 1), value)).collect()
    } else {
        let lines = bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
        let line = |(n, line): (usize, &[u8])| {
            let value = serde_json::from_slice(line);
            let value = value.map_err(|e| bad(format!("line {}: is no JSON: {e}", n + 1)))?;
            Ok::<_, AnalysisError>((format!("line {}", n + 1), value))
        };
        lines.map(line).collect::<Result<_, _>>()?
    };
    let mut words: Vec<Word> = Vec::new();
    for (at, value) in listed {
        let field = |name: &str| {
            let text = value.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
            let why = format!(
                "{at}: field \"{name}\": every word needs it, as a string: {{\"input\": \"hot\", \"output\": \"cold\"}}"
            );
            text.map(str::to_string).ok_or_else(|| bad(why))
        };
        let (input, output) = (field("input")?, field("output")?);
        if words.iter().any(|word| word.input == input) {
            return Err(bad(format!("{at}: field \"input\": \"{input}\" was there before")));
        }
        let token = tokenizer.first_token(&format!(" {}", output.trim()));
        let token = token.map_err(|e| bad(format!("{at}: field \"output\": {e}")))?;
        words.push(Word { input, output: output.trim().to_string(), token });
    }
    Ok((words, vec![source]))
}

/// What prompts look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// What stands before the answer, with `{input}` in it.
    pub template: String,
    /// What stands between two examples.
    pub separator: String,
}

/// The place of a word in a template.
pub const INPUT: &str = "{input}";

impl Form {
    /// A template of the user's; `\n` in it is a line break.
    ///
    /// # Errors
    /// If no word has a place in it.
    pub fn new(template: &str, separator: &str) -> Result<Form, String> {
        let breaks = |text: &str| text.replace("\\n", "\n");
        match template.contains(INPUT) {
            true => Ok(Form { template: breaks(template), separator: breaks(separator) }),
            false => Err(format!("`{template}` has no {INPUT}, where a word is put")),
        }
    }

    /// A prompt that ends before its answer, after examples with theirs.
    pub fn prompt(&self, examples: &[(&str, &str)], input: &str) -> String {
        let mut text = String::new();
        for (input, output) in examples {
            text += &format!("{} {output}{}", self.template.replace(INPUT, input), self.separator);
        }
        text + &self.template.replace(INPUT, input)
    }
}

impl Words {
    /// Half of the words for each purpose, at random; all are for training where others are given for the test.
    pub fn split(mut words: Vec<Word>, test: Option<Vec<Word>>, seed: u64) -> Words {
        words.shuffle(&mut rng(seed, "functions.split"));
        match test {
            Some(held_out) => Words { training: words, held_out },
            None => {
                let held_out = words.split_off(words.len().div_ceil(2));
                Words { training: words, held_out }
            }
        }
    }
}

/// Examples for a word, none of which is the word itself, and the same with outputs that were dealt out anew: none has its own.
pub struct Examples<'a> {
    pub own: Vec<(&'a str, &'a str)>,
    pub shuffled: Vec<(&'a str, &'a str)>,
}

/// Draws examples for a word.
pub fn examples<'a>(training: &'a [Word], for_word: &Word, shots: usize, stream: &str, seed: u64) -> Examples<'a> {
    let mut rng = rng(seed, stream);
    let mut others: Vec<&Word> = training.iter().filter(|word| word.input != for_word.input).collect();
    others.shuffle(&mut rng);
    others.truncate(shots);
    // Dealt round by some places: no output stays where it was. Words may share an output all the same.
    let n = others.len();
    let by = if n > 1 { rng.random_range(1..n) } else { 0 };
    Examples {
        own: others.iter().map(|word| (word.input.as_str(), word.output.as_str())).collect(),
        shuffled: (0..n).map(|i| (others[i].input.as_str(), others[(i + by) % n].output.as_str())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(input: &str) -> Word {
        Word { input: input.to_string(), output: input.to_uppercase(), token: 0 }
    }

    #[test]
    fn examples_leave_the_word_out_and_no_shuffled_output_stays_where_it_was() {
        let training: Vec<Word> = ["a", "b", "c", "d", "e"].map(word).to_vec();
        for seed in 0..20 {
            let of = examples(&training, &training[2], 4, "x", seed);
            assert_eq!(of.own.len(), 4);
            assert!(of.own.iter().all(|(input, output)| *input != "c" && *output == input.to_uppercase()));
            assert!(of.shuffled.iter().all(|(input, output)| *output != input.to_uppercase()));
            let mut outputs: Vec<&str> = of.shuffled.iter().map(|(_, output)| *output).collect();
            outputs.sort_unstable();
            assert_eq!(outputs, ["A", "B", "D", "E"]);
        }
    }

    #[test]
    fn prompts_are_written_as_templates_say() {
        let form = Form::new("Q: {input}\\nA:", "\\n\\n").unwrap();
        assert_eq!(form.prompt(&[("hot", "cold")], "big"), "Q: hot\nA: cold\n\nQ: big\nA:");
        assert!(Form::new("Q: input", "\n").is_err_and(|why| why.contains("{input}")));
    }

    #[test]
    fn words_are_split_once_and_for_all() {
        let words: Vec<Word> = ["a", "b", "c", "d", "e"].map(word).to_vec();
        let split = Words::split(words.clone(), None, 3);
        assert_eq!((split.training.len(), split.held_out.len()), (3, 2));
        assert!(split.held_out.iter().all(|word| !split.training.contains(word)));
        assert_eq!(Words::split(words.clone(), Some(words[..1].to_vec()), 3).training.len(), 5);
    }
}
