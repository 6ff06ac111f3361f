//! What was measured, of which prompts, in words: for reports and dry runs.

use crate::measured::{MeanMetric, Measured, NamedToken, ScoredToken, Ways};
use crate::report::cells::{EMPTY, plural, signed};
use crate::report::{Block, Heading, Section, TableBlock};

/// Tokens of each side that a report lists.
const LISTED: usize = 12;

/// The report's section.
pub(super) fn section(measured: &Measured) -> Section {
    let mut section = Section::new("What was measured").paragraph(ways(measured.template));
    if let Some(first) = &measured.first_prompt {
        section = section.paragraph(format!(
            "The first prompt (`{}`, {}) as the model reads it, token by token:",
            first.id, first.field
        ));
        section = section.block(Block::Code(pieces(&first.tokens)));
    }
    if !measured.answer.is_empty() || !measured.foil.is_empty() {
        section = section.block(Block::Table(tokens(measured)));
    }
    if let Some(metric) = measured.metric {
        section = section.paragraph(mean(metric, measured.template));
    }
    for warning in &measured.warnings {
        section = section.paragraph(format!("**Note.** {warning}."));
    }
    section
}

/// How prompts became token ids, in a sentence or more.
pub(crate) fn ways(ways: Ways) -> String {
    let parts = [
        (ways.applied, "went through the model's chat template"),
        (ways.text, "were read as text, without a chat template"),
        (ways.ids, "were given as token ids"),
    ];
    let said = parts.iter().filter(|(n, _)| *n > 0).map(|(n, how)| match *n {
        1 => format!("1 prompt {}", how.replacen("were", "was", 1)),
        n => format!("{} {how}", plural(n as i64, "prompt")),
    });
    let said: Vec<String> = said.collect();
    if said.is_empty() { "No prompt was read.".to_owned() } else { format!("{}.", said.join("; ")) }
}

/// Tokens in quotation marks, so that spaces and line breaks can be seen.
pub(crate) fn pieces(tokens: &[NamedToken]) -> String {
    tokens.iter().map(|token| format!("{:?}", token.text)).collect::<Vec<_>>().join(" ")
}

fn tokens(measured: &Measured) -> TableBlock {
    let paired = measured.metric.is_some_and(|metric| metric.negative_mean.is_some());
    let sides = [("answer", &measured.answer), ("foil", &measured.foil)];
    // Tokens of items that were left out have no probability, unless none has.
    let scored = |token: &&ScoredToken| token.mean_logprob.is_some() || token.mean_logprob_negative.is_some();
    let any = sides.iter().any(|(_, tokens)| tokens.iter().any(|token| scored(&token)));
    let listed = sides.iter().flat_map(|(side, tokens)| {
        let tokens = tokens.iter().take(LISTED).filter(move |token| !any || scored(token));
        tokens.map(move |token| row(side, token, paired))
    });
    let left: usize = sides.iter().map(|(_, tokens)| tokens.len().saturating_sub(LISTED)).sum();
    let rest = if left > 0 { format!(" {left} more are in run.json.") } else { String::new() };
    let heading = |name: &str, numeric: bool| Heading { name: name.to_owned(), numeric };
    let mut header = vec![heading("side", false), heading("token", false), heading("id", true), heading("items", true)];
    match paired {
        true => header.extend([heading("log-probability, positive", true), heading("log-probability, negative", true)]),
        false => header.push(heading("log-probability", true)),
    }
    TableBlock {
        caption: format!(
            "The tokens that the metric compares, with their mean log-probability after the prompts, in nats.{rest}"
        ),
        header,
        rows: listed.collect(),
    }
}

fn row(side: &str, token: &ScoredToken, paired: bool) -> Vec<String> {
    let text = match &token.first_of {
        Some(whole) => format!("`{:?}` (the first token of {whole:?})", token.text),
        None => format!("`{:?}`", token.text),
    };
    let number = |x: Option<f64>| x.map_or_else(|| EMPTY.to_owned(), |x| signed(x, 2));
    let mut row =
        vec![side.to_owned(), text, token.id.to_string(), token.items.to_string(), number(token.mean_logprob)];
    row.extend(paired.then(|| number(token.mean_logprob_negative)));
    row
}

fn mean(metric: MeanMetric, ways: Ways) -> String {
    let items = metric.items;
    let all = (ways.applied + ways.text + ways.ids) / if metric.negative_mean.is_some() { 2 } else { 1 };
    let beforehand = match items < all {
        true => " that were looked at beforehand; the analysis below is over all",
        false => "",
    };
    match metric.negative_mean {
        Some(negative) => format!(
            "The metric, the logit difference of answer and foil, is {} after the positive prompts and {} after the negative ones \
             (in nats, mean over {}{beforehand}).",
            signed(metric.mean, 2),
            signed(negative, 2),
            plural(items as i64, "pair")
        ),
        None => format!(
            "The metric, the logit difference of answer and foil, is {} (in nats, mean over {}{beforehand}).",
            signed(metric.mean, 2),
            plural(items as i64, "prompt")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_prompts_are_said_in_the_singular_and_the_plural() {
        assert_eq!(ways(Ways { applied: 24, text: 0, ids: 0 }), "24 prompts went through the model's chat template.");
        let both = ways(Ways { applied: 0, text: 1, ids: 2 });
        assert_eq!(both, "1 prompt was read as text, without a chat template; 2 prompts were given as token ids.");
    }

    #[test]
    fn a_mean_over_some_of_the_items_is_said_to_be() {
        let ways = |applied| Ways { applied, text: 0, ids: 0 };
        let metric = MeanMetric { items: 64, mean: 0.5, negative_mean: Some(-0.5), positive_below: None };
        let said = mean(metric, ways(240));
        assert!(said.contains("mean over 64 pairs that were looked at beforehand; the"), "{said}");
        assert!(mean(metric, ways(128)).contains("mean over 64 pairs)"));
    }

    #[test]
    fn spaces_and_line_breaks_of_pieces_can_be_seen() {
        let tokens = [(1, " a"), (2, "\n"), (3, "\"")].map(|(id, text)| NamedToken { id, text: text.to_owned() });
        assert_eq!(pieces(&tokens), r#"" a" "\n" "\"""#);
    }
}
