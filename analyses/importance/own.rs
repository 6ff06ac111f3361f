//! Which tokens of a prompt are its own, and not the chat template's or the tokenizer's: these alone are masked.

use crate::dataset::Input;
use crate::dataset::encode::rendered;
use crate::model::tokenizer::Tokenizer;

/// For each token of a prompt whether it is of what somebody wrote. Special tokens are kept, and so is all that a chat template adds;
/// of ids that were given as they are, only special tokens are told apart.
pub fn own(tokenizer: Option<&Tokenizer>, input: &Input, ids: &[u32]) -> Vec<bool> {
    let Some(tokenizer) = tokenizer else { return vec![true; ids.len()] };
    let plain: Vec<bool> = ids.iter().map(|id| !tokenizer.is_special(*id) && Some(*id) != tokenizer.bos()).collect();
    let Ok(Some(text)) = rendered(tokenizer, input) else { return plain };
    let written: Vec<&str> = match input {
        Input::User { text, .. } => vec![text.as_str()],
        Input::Messages { messages, .. } => messages.iter().filter_map(|message| message.text()).collect(),
        Input::Text { .. } | Input::Ids(_) => return plain,
    };
    let mut ranges = Vec::new();
    let mut from = 0;
    for part in written.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        // A template may change what was written: what is not found is not told apart from the template.
        if let Some(at) = text[from..].find(part) {
            ranges.push(from + at..from + at + part.len());
            from += at + part.len();
        }
    }
    match tokenizer.encode_with_places(&text, false) {
        Ok(places) if places.len() == ids.len() => {
            let within = |place: &std::ops::Range<usize>| {
                place.start < place.end && ranges.iter().any(|range| place.start < range.end && place.end > range.start)
            };
            places.iter().zip(plain).map(|((_, place), plain)| plain && within(place)).collect()
        }
        _ => plain,
    }
}
