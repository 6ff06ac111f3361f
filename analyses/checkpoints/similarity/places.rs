//! Places of a text that two models share: where a token of both ends.

use crate::dataset::Input;
use crate::dataset::encode::rendered;
use crate::model::Model;
use crate::model::tokenizer::{Tokenizer, TokenizerError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A place of a prompt's text, by the position of the token that ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// In the first model.
    pub a: usize,
    /// In the second.
    pub b: usize,
}

/// The places of a prompt at which a token of both models ends, in the order of the text.
///
/// # Errors
/// If a model has no tokenizer, or cannot read the prompt.
pub fn matched(models: [&Model; 2], input: &Input) -> Result<Vec<Matched>, Arc<TokenizerError>> {
    let [a, b] = models.map(|model| ends(model.tokenizer()?, input).map_err(Arc::new));
    let (a, b) = (a?, b?);
    Ok(a.into_iter().filter_map(|(place, a)| Some(Matched { a, b: *b.get(&place)? })).collect())
}

/// A place of what people wrote: the number of the message, and the byte of it.
type Place = (usize, usize);

/// The positions of the tokens of a prompt, by the places at which they end. The first position is left out: in most models it is a
/// sink of attention, whose activations are much larger than all others.
fn ends(tokenizer: &Tokenizer, input: &Input) -> Result<BTreeMap<Place, usize>, TokenizerError> {
    let (text, special) = match (rendered(tokenizer, input)?, input) {
        (Some(text), _) => (text, false),
        (None, Input::User { text, .. }) => (text.clone(), true),
        (None, Input::Text { text, special_tokens }) => (text.clone(), *special_tokens),
        (None, Input::Messages { .. } | Input::Ids(_)) => return Ok(BTreeMap::new()),
    };
    let tokens = tokenizer.encode_with_places(&text, special)?;
    let places = tokens.iter().map(|(_, place)| (place.start, place.end)).enumerate().skip(1);
    Ok(written(&text, &contents(input), places))
}

/// The ends of tokens, given by position and by their bytes of a whole text, as places of what people wrote in it.
fn written(
    text: &str,
    contents: &[&str],
    tokens: impl Iterator<Item = (usize, (usize, usize))> + Clone,
) -> BTreeMap<Place, usize> {
    let (mut found, mut from) = (BTreeMap::new(), 0);
    for (k, content) in contents.iter().enumerate() {
        // Templates trim messages.
        let content = content.trim();
        let Some(start) = text[from..].find(content).map(|at| from + at) else { continue };
        from = start + content.len();
        // Of tokens that are parts of one letter, all end where the letter does: the last one counts.
        let inside = tokens.clone().filter(|(_, (first, end))| first < end && (start + 1..=from).contains(end));
        found.extend(inside.map(|(position, (_, end))| ((k, end - start), position)));
    }
    found
}

/// What people wrote in a prompt, message by message.
fn contents(input: &Input) -> Vec<&str> {
    match input {
        Input::User { text, .. } | Input::Text { text, .. } => vec![text],
        Input::Messages { messages, .. } => messages.iter().map(|message| message.text().unwrap_or_default()).collect(),
        Input::Ids(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Options;
    use crate::model::template::Message;

    fn places(text: &str, contents: &[&str], tokens: &[(usize, usize)]) -> Vec<(Place, usize)> {
        written(text, contents, tokens.iter().copied().enumerate()).into_iter().collect()
    }

    #[test]
    fn tokens_are_found_in_what_people_wrote_and_not_in_what_a_template_adds() {
        // <u>Hi you</u>: the mark, "Hi", " you", the mark.
        let found = places("<u>Hi you</u>", &[" Hi you "], &[(0, 3), (3, 5), (5, 9), (9, 13)]);
        assert_eq!(found, [((0, 2), 1), ((0, 6), 2)]);
        // Two messages that are equal are found one after the other; a token beyond the end of one is none of it.
        let found = places("a a-", &["a", "a"], &[(0, 1), (1, 3), (3, 4)]);
        assert_eq!(found, [((0, 1), 0), ((1, 1), 1)]);
        assert!(places("a", &["b"], &[(0, 1)]).is_empty());
    }

    #[test]
    fn parts_of_a_letter_end_together_and_added_tokens_nowhere() {
        assert_eq!(places("ü", &["ü"], &[(0, 0), (0, 2), (0, 2)]), [((0, 2), 2)]);
    }

    #[test]
    fn one_tokenizer_matches_all_of_its_own_tokens_but_the_first() {
        let model = Model::open("demo", &Options::default()).unwrap();
        let tokens = |text: &str| model.tokenizer().unwrap().encode(text, true).unwrap().len();
        let found = matched([&model, &model], &Input::text("Tell me about bread.")).unwrap();
        assert_eq!(found.len() + 1, tokens("Tell me about bread."));
        assert!(found.iter().all(|place| place.a == place.b));
        // The user's words, among the template's marks.
        let user = matched([&model, &model], &Input::user("Tell me about bread.")).unwrap();
        assert_eq!(user.len(), found.len());
        let messages = vec![Message::user("Tell me about bread."), Message::new("assistant", "Sure, bread.")];
        let both = Input::Messages { messages, go_on: None, vars: Default::default() };
        assert!(matched([&model, &model], &both).unwrap().len() > user.len());
        assert!(matched([&model, &model], &Input::Ids(vec![1, 2, 3])).unwrap().is_empty());
    }
}
