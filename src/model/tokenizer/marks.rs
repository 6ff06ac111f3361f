//! Marks in a text that look like tokens: `<|im_start|>`, `<start_of_turn>`, `[INST]`.

use std::collections::HashSet;

/// The longest mark, in bytes.
const LONGEST: usize = 64;

/// The marks of a text, each where it first stands, once.
pub(super) fn marks(text: &str) -> Vec<&str> {
    let mut seen = HashSet::new();
    let found = text.match_indices(['<', '[']).filter_map(|(at, opening)| {
        // Not further than the longest mark: a text may be a megabyte of brackets.
        let rest = &text[at..text.floor_char_boundary(at + LONGEST)];
        if opening == "<" { piped(rest).or_else(|| tag(rest)) } else { bracketed(rest) }
    });
    found.filter(|mark| seen.insert(*mark)).collect()
}

/// Whether a mark has bars, which no text of people has: `<|x|>`.
pub(super) fn is_piped(mark: &str) -> bool {
    piped(mark).is_some()
}

/// `<|x|>`, with the bars of ASCII or the wide ones of DeepSeek.
fn piped(text: &str) -> Option<&str> {
    ['|', '\u{ff5c}'].into_iter().find_map(|bar| {
        let inner = text.strip_prefix('<')?.strip_prefix(bar)?;
        let close = format!("{bar}>");
        let end = inner.find(&close).filter(|end| *end > 0)?;
        let sound = !inner[..end].contains(|c: char| c.is_whitespace() || c == '<' || c == '>');
        sound.then(|| &text[..1 + bar.len_utf8() + end + close.len()])
    })
}

/// `<x>` or `</x>` of a name.
fn tag(text: &str) -> Option<&str> {
    enclosed(text, '<', '>', |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':'))
}

/// `[X]` or `[/X]` of capitals.
fn bracketed(text: &str) -> Option<&str> {
    enclosed(text, '[', ']', |c| c.is_ascii_uppercase() || c == '_').filter(|mark| mark.len() > 3)
}

fn enclosed(text: &str, open: char, close: char, may: impl Fn(char) -> bool) -> Option<&str> {
    let inner = text.strip_prefix(open)?;
    let name = inner.strip_prefix('/').unwrap_or(inner);
    let end = name.find(|c: char| !may(c)).filter(|end| *end > 0)?;
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let whole = text.len() - name.len() + end + 1;
    (begins && name[end..].starts_with(close)).then(|| &text[..whole])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_once_each() {
        let text = "<|im_start|>user\n<think>[INST] a < b, c > d [/INST]<|im_start|></think> [a] [X] x[0] <\u{ff5c}User\u{ff5c}>";
        let expected = ["<|im_start|>", "<think>", "[INST]", "[/INST]", "</think>", "<\u{ff5c}User\u{ff5c}>"];
        assert_eq!(marks(text), expected);
    }

    #[test]
    fn what_only_begins_like_a_mark_is_none() {
        for text in ["<|", "<|a b|>", "<||>", "<a b>", "<>", "</>", "[]", "[INST", "<1>", "a <- b", "if x <y and z> w"]
        {
            assert_eq!(marks(text), [""; 0], "{text}");
        }
        assert!(is_piped("<|x|>") && !is_piped("<x>"));
    }
}
