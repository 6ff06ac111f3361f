//! Names in messages and figures: the nearest valid ones to one that does not exist, and short ones of models.

use std::path::Path;

/// Names longer than this are compared by their first characters only, which bounds what a message can cost.
const LONGEST_COMPARED: usize = 128;

/// How many names a message offers.
const OFFERED: usize = 3;

/// A model's name without its folder and ending.
pub fn short_name(model: &str) -> String {
    let ending = |name: &str| {
        let without = [".gguf", ".json"].iter().find_map(|ending| name.strip_suffix(ending));
        without.unwrap_or(name).to_string()
    };
    Path::new(model).file_name().map_or(model.to_string(), |name| ending(&name.to_string_lossy()))
}

/// The few of `known` that are nearest to `found` by edit distance, nearest first.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<(usize, &str)> = known.into_iter().map(|name| (distance(found, name), name)).collect();
    ranked.sort();
    ranked.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

/// The one of `known` that a person most likely meant by `found`: at most one edit for every three characters.
pub fn meant<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (found.chars().count() / 3).max(1);
    nearest(found, known).into_iter().next().filter(|name| distance(found, name) <= allowed)
}

/// `"; the nearest names are: a, b"`, or nothing where `names` is empty: the tail of a message.
pub fn suggestion<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let list: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("; the nearest names are: {}", list.join(", "))
}

/// Levenshtein distance, whatever the case.
fn distance(a: &str, b: &str) -> usize {
    let clip = |s: &str| -> Vec<char> { s.chars().take(LONGEST_COMPARED).flat_map(char::to_lowercase).collect() };
    strsim::generic_levenshtein(&clip(a), &clip(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("Same", "same"), 0);
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        let names = ["resid_pre", "resid_post", "z"];
        assert_eq!(nearest("resid_pst", names)[0], "resid_post");
        assert_eq!(meant("RESID_POS", names), Some("resid_post"));
    }

    #[test]
    fn a_name_far_from_all_others_was_not_meant() {
        assert_eq!(meant("temperature", ["id", "layer"]), None);
        assert_eq!(meant("layer", []), None);
    }
}
