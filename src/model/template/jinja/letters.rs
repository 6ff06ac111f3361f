//! Letters: what strings are asked about theirs, and their cases.

use super::lexer::is_word;
use super::print::is_printable;

/// The answer to `isalpha` and its like; none for a method that asks nothing.
pub(super) fn asked(text: &str, method: &str) -> Option<bool> {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    Some(match method {
        "isalnum" => all(|c| is_letter(c) || is_number(c)),
        "isalpha" => all(is_letter),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(is_digit),
        "isidentifier" => all(is_word) && !text.starts_with(is_number),
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
        "isnumeric" => all(is_number),
        "isprintable" => text.chars().all(is_printable),
        "isspace" => all(super::lexer::is_space),
        "istitle" => is_title(text),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
        _ => return None,
    })
}

/// A letter: what Rust takes for alphabetic, less the marks and numbers among it.
fn is_letter(c: char) -> bool {
    c.is_alphabetic() && !c.is_numeric()
}

fn is_number(c: char) -> bool {
    c.is_numeric()
}

/// The digits of scripts, by the zero of each ten. From Unicode's category Nd.
const ZEROS: [u32; 37] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
    0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

/// The value of a decimal digit of any script.
pub(super) fn decimal(c: char) -> Option<u32> {
    let code = u32::from(c);
    ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code)).map(|zero| code - zero)
}

fn is_decimal(c: char) -> bool {
    decimal(c).is_some()
}

/// Decimals, and digits that are raised, lowered or circled.
fn is_digit(c: char) -> bool {
    is_decimal(c)
        || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨' | '⑴'..='⑼' | '⒈'..='⒐' | '⓪' | '❶'..='❾')
}

fn is_title(text: &str) -> bool {
    let (mut cased, mut any) = (false, false);
    for c in text.chars() {
        if c.is_uppercase() && cased || c.is_lowercase() && !cased {
            return false;
        }
        cased = c.is_uppercase() || c.is_lowercase();
        any |= cased;
    }
    any
}

/// A text in another case.
pub(super) fn changed(text: &str, method: &str) -> String {
    match method {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "casefold" => {
            let mut out = String::with_capacity(text.len());
            text.chars().for_each(|c| if c.is_ascii() { out.push(c.to_ascii_lowercase()) } else { out += &folded(c) });
            out
        }
        "capitalize" => capitalized(text),
        "swapcase" => {
            let mut out = String::with_capacity(text.len());
            text.chars().for_each(|c| push(c, !c.is_uppercase(), &mut out));
            out
        }
        _ => titled(text),
    }
}

/// Without case. The lower case of the upper one is Unicode's folding but for the letters named.
fn folded(c: char) -> String {
    match c {
        'ı' | 'ſ' => if c == 'ſ' { "s" } else { "ı" }.to_owned(),
        'İ' => "i\u{307}".to_owned(),
        'ẞ' => "ss".to_owned(),
        // Cherokee is folded to its older letters, the upper ones.
        '\u{13a0}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => c.to_uppercase().collect(),
        _ => c.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}

/// The first character in upper case, the rest in lower.
pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().map(title_case).unwrap_or_default();
    first + &characters.as_str().to_lowercase()
}

/// Upper case at the beginning of a word, where that differs from upper case elsewhere.
fn title_case(c: char) -> String {
    match c {
        'Ǆ'..='ǌ' | 'Ǳ'..='ǳ' => match c {
            'Ǆ' | 'ǆ' => "ǅ",
            'Ǉ' | 'ǉ' => "ǈ",
            'Ǌ' | 'ǌ' => "ǋ",
            'Ǳ' | 'ǳ' => "ǲ",
            other => return other.to_string(),
        }
        .to_owned(),
        // Georgian words begin as they go on.
        '\u{10d0}'..='\u{10ff}' => c.to_string(),
        'ß' => "Ss".to_owned(),
        'ﬁ' => "Fi".to_owned(),
        'ﬂ' => "Fl".to_owned(),
        'ﬀ' => "Ff".to_owned(),
        _ => c.to_uppercase().collect(),
    }
}

fn titled(text: &str) -> String {
    let (mut out, mut cased) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if cased || c.is_ascii() {
            push(c, !cased, &mut out);
        } else {
            out.push_str(&title_case(c));
        }
        cased = c.is_uppercase() || c.is_lowercase();
    }
    out
}

/// Writes a character in upper or in lower case.
fn push(c: char, upper: bool, out: &mut String) {
    match (c.is_ascii(), upper) {
        (true, true) => out.push(c.to_ascii_uppercase()),
        (true, false) => out.push(c.to_ascii_lowercase()),
        (false, true) => out.extend(c.to_uppercase()),
        (false, false) => out.extend(c.to_lowercase()),
    }
}
