//! Names for the places of a report that links and labels lead to.

use std::collections::HashSet;

use super::inline::plain;

/// Longer names are cut: a heading may be a whole prompt.
const LONGEST: usize = 48;

/// The names given so far.
#[derive(Debug, Default)]
pub(super) struct Anchors(HashSet<String>);

impl Anchors {
    /// A name of ASCII letters, digits and single hyphens that says what `text` says and was not given before.
    ///
    /// A `text` without such letters is called `fallback`.
    pub(super) fn name(&mut self, text: &str, fallback: &str) -> String {
        let stem = match slug(text) {
            stem if stem.is_empty() => fallback.to_owned(),
            stem => stem,
        };
        let mut name = stem.clone();
        let mut count = 1;
        while !self.0.insert(name.clone()) {
            count += 1;
            name = format!("{stem}-{count}");
        }
        name
    }
}

fn slug(text: &str) -> String {
    let mut out = String::new();
    for letter in plain(text).chars() {
        if letter.is_ascii_alphanumeric() {
            out.push(letter.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() >= LONGEST {
            break;
        }
    }
    out.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_the_text_says_and_never_repeat() {
        let mut anchors = Anchors::default();
        let texts = ["How this was made", "how **this** was made!", "结果", "", "How this was made 2"];
        let names: Vec<String> = texts.iter().map(|text| anchors.name(text, "section")).collect();
        let expected = ["how-this-was-made", "how-this-was-made-2", "section", "section-2", "how-this-was-made-2-2"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_name_is_short_and_safe_whatever_the_text() {
        let name = Anchors::default().name(&format!("\"><script>{}", "x/".repeat(200)), "section");
        assert!(name.len() <= LONGEST && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{name}");
    }
}
