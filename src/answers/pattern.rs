//! Phrases with choices and gaps, matched word by word.
//!
//! ```text
//! i (am|'m) sorry but       one of what stands between bars; an empty one may be missing: (very|)
//! can't ... help            up to six words may stand between, or twelve letters of a script without spaces
//! 不能..提供                half as many
//! recommend*                a word of any ending
//! ```
//!
//! A phrase never goes over a sentence's end.

use super::text::{Token, tokens};

/// Gaps, the longer mark first, with what they hold at most in half words: a letter of a script without spaces is one.
const GAPS: [(&str, usize); 2] = [("...", 12), ("..", 6)];

/// How deep parentheses may stand in each other.
const DEEPEST: usize = 8;

/// A phrase, ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Word {
        text: String,
        any_ending: bool,
    },
    /// One of these.
    Choice(Vec<Vec<Piece>>),
    /// What may stand between, at most so many half words.
    Gap(usize),
}

/// What must come after the pieces of a choice.
struct Then<'a> {
    pieces: &'a [Piece],
    then: Option<&'a Then<'a>>,
}

impl Pattern {
    /// Reads a phrase as the data file has it; an error says what is wrong with it.
    pub(super) fn parse(phrase: &str) -> Result<Pattern, String> {
        let mut rest = phrase;
        let mut choices = alternatives(&mut rest, 0)?;
        let pieces = match (rest.chars().next(), choices.len()) {
            (Some(_), _) => return Err("a parenthesis is closed that was not opened".to_owned()),
            (None, 1) => choices.remove(0),
            (None, _) => return Err("holds a bar outside of parentheses".to_owned()),
        };
        if !needs_a_word(&pieces) {
            return Err("holds no word that must be there".to_owned());
        }
        if [pieces.first(), pieces.last()].iter().any(|end| matches!(end, Some(Piece::Gap(_)))) {
            return Err("begins or ends with a gap; leave that out".to_owned());
        }
        Ok(Pattern(pieces))
    }

    /// Whether the phrase begins at that token.
    pub(super) fn matches_at(&self, tokens: &[Token], at: usize) -> bool {
        let Some(first) = tokens.get(at) else { return false };
        let length = tokens[at..].iter().take_while(|token| token.sentence == first.sentence).count();
        matches(&self.0, None, &tokens[at..at + length])
    }
}

/// Reads what stands between bars, up to a closing parenthesis, which stays, or the end.
fn alternatives(rest: &mut &str, depth: usize) -> Result<Vec<Vec<Piece>>, String> {
    if depth > DEEPEST {
        return Err(format!("has parentheses more than {DEEPEST} deep"));
    }
    let mut found = vec![Vec::new()];
    loop {
        let pieces = found.last_mut().ok_or("is empty")?;
        let gap = GAPS.iter().find_map(|(mark, width)| Some((rest.strip_prefix(mark)?, *width)));
        if let Some((after, width)) = gap {
            pieces.push(Piece::Gap(width));
            *rest = after;
        } else if let Some(mut after) = rest.strip_prefix('(') {
            pieces.push(Piece::Choice(alternatives(&mut after, depth + 1)?));
            *rest = after.strip_prefix(')').ok_or("a parenthesis is not closed")?;
        } else if let Some(after) = rest.strip_prefix('|') {
            found.push(Vec::new());
            *rest = after;
        } else if rest.is_empty() || rest.starts_with(')') {
            return Ok(found);
        } else {
            let end = ["..", "(", ")", "|"].iter().filter_map(|mark| rest.find(mark)).min().unwrap_or(rest.len());
            push_words(pieces, &rest[..end])?;
            *rest = &rest[end..];
        }
    }
}

/// Reads words as an answer would have them, with their stars.
fn push_words(pieces: &mut Vec<Piece>, text: &str) -> Result<(), String> {
    if let Some(mark) = text.chars().find(|letter| "[]{}?+\\".contains(*letter)) {
        return Err(format!("holds a `{mark}` where only words, `*`, `...`, `|` and parentheses may stand"));
    }
    for part in text.split_whitespace() {
        let (stem, any_ending) = part.strip_suffix('*').map_or((part, false), |stem| (stem, true));
        if stem.contains('*') || stem.is_empty() {
            return Err(format!("`{part}`: a star stands at a word's end"));
        }
        let words = tokens(stem);
        if words.is_empty() {
            return Err(format!("`{part}` has no letters"));
        }
        let last = words.len() - 1;
        let piece = |(at, word): (usize, Token)| Piece::Word { text: word.text, any_ending: any_ending && at == last };
        pieces.extend(words.into_iter().enumerate().map(piece));
    }
    Ok(())
}

fn needs_a_word(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| match piece {
        Piece::Word { .. } => true,
        Piece::Choice(choices) => choices.iter().all(|pieces| needs_a_word(pieces)),
        Piece::Gap(_) => false,
    })
}

fn matches(pieces: &[Piece], then: Option<&Then<'_>>, tokens: &[Token]) -> bool {
    match pieces.split_first() {
        None => then.is_none_or(|after| matches(after.pieces, after.then, tokens)),
        Some((Piece::Word { text, any_ending }, pieces)) => tokens.split_first().is_some_and(|(token, tokens)| {
            let same = if *any_ending { token.text.starts_with(text) } else { token.text == *text };
            same && matches(pieces, then, tokens)
        }),
        Some((Piece::Choice(choices), pieces)) => {
            let after = Then { pieces, then };
            choices.iter().any(|choice| matches(choice, Some(&after), tokens))
        }
        Some((Piece::Gap(widest), pieces)) => {
            let mut width = 0;
            for at in 0..=tokens.len() {
                if matches(pieces, then, &tokens[at..]) {
                    return true;
                }
                width += tokens.get(at).map_or(0, Token::half_words);
                if width > *widest {
                    break;
                }
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(phrase: &str, text: &str) -> bool {
        let tokens = tokens(text);
        (0..tokens.len()).any(|at| Pattern::parse(phrase).unwrap().matches_at(&tokens, at))
    }

    #[test]
    fn choices_gaps_and_endings() {
        assert!(matches("i (am|m) (very|) sorry", "Oh, I'm sorry"));
        assert!(matches("i (am|m) (very|) sorry", "I am very sorry"));
        assert!(!matches("i (am|m) (very|) sorry", "I am so sorry"));
        assert!(matches("can't ... help*", "We can’t at this moment be of any helpfulness"));
        assert!(matches("can t ... help", "can t a b c d e f help"));
        assert!(!matches("can t ... help", "can t a b c d e f g help"));
        assert!(matches("can t .. help", "can t a b c help") && !matches("can t .. help", "can t a b c d help"));
        assert!(matches("我...(无法|不能)...帮助", "我作为人工智能助手无法为您提供这方面的帮助"));
        assert!(!matches("help", "helpful"));
        assert!(matches("(tell me (more|why)|what) now", "tell me why now") && matches("(a (b|c|)|d) e", "a e"));
    }

    #[test]
    fn a_phrase_ends_with_its_sentence() {
        assert!(!matches("i can t ... help", "I can't. Can you help?"));
        assert!(matches("i can t ... help", "I can't, no, help"));
    }

    #[test]
    fn a_phrase_that_says_nothing_or_is_malformed_is_refused_with_the_reason() {
        for (phrase, reason) in [
            ("", "no word"),
            ("(a|)", "no word"),
            ("(a|b", "not closed"),
            ("a|b", "bar"),
            ("a)", "not opened"),
            ("((((((((((a))))))))))", "deep"),
            ("a[b]", "`[`"),
            ("a b* *", "star"),
            ("a*b", "star"),
            ("a — b", "no letters"),
            ("... a", "gap"),
            ("a ...", "gap"),
            ("a ..", "gap"),
        ] {
            let message = Pattern::parse(phrase).unwrap_err();
            assert!(message.contains(reason), "{phrase}: {message}");
        }
    }
}
