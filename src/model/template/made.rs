//! The bound on what a template makes while it runs.
//!
//! The engine counts steps, and one step can double a text. So before a template is compiled, a filter that counts is written
//! behind every value in it that a step makes: the operands of `+` and `~`, products, the results of calls, filters and slices,
//! lists and dictionaries. It gives the value on as it is; where all that was made is more than [`MOST_MADE`], the template
//! ends. What it makes in one step beyond what was counted is a small multiple of that; filters for which it is not
//! (`join`, `replace`, indentation) count before they work.
//!
//! [`counted`] finds the places by the tokens alone: an operand ends where no `.`, `|`, `(` or `[` follows.

use super::engine::Raised;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Bytes that a template may make in all.
pub(super) const MOST_MADE: u64 = 256 << 20;

/// What an element of a list takes beside its own contents.
const ELEMENT: u64 = 24;

/// The longest text that a template may go on working with, in bytes.
const LONGEST_TEXT: usize = 4 << 20;

/// The filter's name in the environment, and that of its count.
pub(super) const MADE: &str = "gatelens_made";

/// Counts bytes as made.
///
/// # Errors
/// If they are too many.
pub(super) fn count(state: &State, bytes: u64) -> Result<(), Error> {
    let total = so_far(state).saturating_add(bytes);
    state.set_temp(MADE, Value::from(total));
    if total > MOST_MADE { Err(too_much()) } else { Ok(()) }
}

/// Counts a value with all that it holds.
///
/// # Errors
/// If it is too much.
pub(super) fn count_value(state: &State, value: &Value) -> Result<(), Error> {
    let room = MOST_MADE.saturating_sub(so_far(state));
    count(state, size(value, room))
}

fn so_far(state: &State) -> u64 {
    state.get_temp(MADE).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, "too much was made").with_source(Raised::Flood)
}

/// The size of a value with all that it holds, as often as it does; no further than beyond `most`.
fn size(value: &Value, most: u64) -> u64 {
    let (mut total, mut open) = (0u64, vec![value.clone()]);
    while let (Some(value), true) = (open.pop(), total <= most) {
        total += ELEMENT + value.as_str().map_or(0, |text| text.len() as u64);
        let holds = matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable);
        let Some(n) = value.len().filter(|_| holds) else { continue };
        // What cannot be looked at any more counts at once.
        if n as u64 > (most / ELEMENT).saturating_sub(open.len() as u64) {
            return most.saturating_add(1);
        }
        let Ok(keys) = value.try_iter() else { continue };
        for key in keys {
            open.extend(if value.kind() == ValueKind::Map { value.get_item(&key).ok() } else { None });
            open.push(key);
        }
    }
    total
}

/// The filter behind what was made.
pub(super) fn made(state: &State, value: Value) -> Result<Value, Error> {
    // Cut to pieces, a text takes many times its length.
    if value.as_str().is_some_and(|text| text.len() > LONGEST_TEXT) {
        return Err(too_much());
    }
    count_value(state, &value)?;
    Ok(value)
}

/// `join`, counted as it is made.
pub(super) fn join(state: &State, value: Value, joiner: Option<String>) -> Result<String, Error> {
    let joiner = joiner.unwrap_or_default();
    let mut out = String::new();
    for (i, item) in value.try_iter()?.enumerate() {
        count_value(state, &item)?;
        if i > 0 {
            count(state, joiner.len() as u64)?;
            out.push_str(&joiner);
        }
        match item.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&item.to_string()),
        }
    }
    Ok(out)
}

/// `replace`, counted before it is made.
pub(super) fn replace(state: &State, value: Value, from: String, to: String) -> Result<String, Error> {
    count_value(state, &value)?;
    let text = value.to_string();
    count_replaced(state, &text, &from, &to)?;
    Ok(text.replace(&from, &to))
}

/// Counts what the replacement of a text in another makes at most.
///
/// # Errors
/// If it is too much.
pub(super) fn count_replaced(state: &State, text: &str, from: &str, to: &str) -> Result<(), Error> {
    let places = (text.len() / from.len().max(1) + 1) as u64;
    count(state, (text.len() as u64).saturating_add(places.saturating_mul(to.len() as u64)))
}

/// What stands between a template's delimiters, opened by a parenthesis, bracket or brace, or as a whole.
#[derive(Default)]
struct Level {
    /// An operand that may go on.
    operand: bool,
    /// The operand follows `+` or `~`.
    after: bool,
    /// Where the operand's factors begin in what was written, and whether there is a product of them.
    factors: Option<(usize, bool)>,
    /// The operand is made by a call, a filter or a slice, or is a list or dictionary.
    made: bool,
    /// The operand is the name of a test, which takes no filter.
    test: bool,
    /// Nothing is counted here but operands of operators: the tag wants a bare call or name.
    bare: bool,
    /// Brackets behind an operand: a colon in them makes a slice.
    subscript: bool,
    sliced: bool,
}

/// Operators that bind as `*` does, or closer.
const OF_FACTORS: [&str; 5] = ["*", "/", "//", "%", "**"];

/// Words that are no operands.
const OPERATORS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];

/// Tags that want a bare call or name.
const BARE: [&str; 9] = ["macro", "call", "filter", "import", "from", "include", "extends", "block", "do"];

/// A template with the counting filters behind all that it makes.
pub(super) fn counted(source: &str) -> String {
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => Tag { text: tag, at: 2, out: &mut out }.counted("}}", false),
            Some(b'%') => {
                let length = Tag { text: tag, at: 2, out: &mut out }.counted("%}", true);
                rest = &tag[length..];
                // What stands in a raw block is no code.
                let trims = |c: char| c == '-' || c == '+' || c.is_whitespace();
                let words = tag[2..length].trim_end_matches("%}").trim_matches(trims);
                if words == "raw" {
                    let end = end_of_raw(rest);
                    out.push_str(&rest[..end]);
                    rest = &rest[end..];
                }
                continue;
            }
            _ => 1,
        };
        if !matches!(tag.as_bytes().get(1), Some(b'{')) {
            out.push_str(&tag[..length]);
        }
        rest = &tag[length..];
    }
    out.push_str(rest);
    out
}

/// Where the tag that ends a raw block begins.
fn end_of_raw(text: &str) -> usize {
    let ends = |at: &usize| {
        text[at + 2..].trim_start_matches(|c: char| c == '-' || c == '+' || c.is_whitespace()).starts_with("endraw")
    };
    text.match_indices("{%").map(|(at, _)| at).find(ends).unwrap_or(text.len())
}

/// A tag that is read.
struct Tag<'t, 'o> {
    text: &'t str,
    at: usize,
    out: &'o mut String,
}

impl<'t> Tag<'t, '_> {
    /// Writes the tag, which goes as far as `close`, and returns its length.
    fn counted(mut self, close: &str, statement: bool) -> usize {
        self.out.push_str(&self.text[..self.at]);
        let (mut levels, mut first) = (vec![Level::default()], statement);
        // Where the last operand ends in what was written.
        let mut end = 0;
        loop {
            let space = self.text[self.at..].len() - self.text[self.at..].trim_start().len();
            self.push(space);
            let rest = &self.text[self.at..];
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return self.at };
            if rest.is_empty() || depth == 1 && closes(rest, close) {
                self.finish(level, end, "");
                let length = rest.find(close).map_or(rest.len(), |i| i + close.len());
                self.push(length);
                return self.at;
            }
            let token = token(rest);
            if first && is_word(token) {
                first = false;
                level.bare = BARE.contains(&token);
                self.push(token.len());
                continue;
            }
            self.step(&mut levels, end, token);
            self.push(token.len());
            end = self.out.len();
        }
    }

    /// Ends the operand that a token follows, and marks the one that it begins.
    fn step(&mut self, levels: &mut Vec<Level>, end: usize, token: &str) {
        let Some(level) = levels.last_mut() else { return };
        let goes_on = matches!(token, "." | "|" | "(" | "[");
        let attribute = level.operand && self.waits_for_name();
        if level.operand && !goes_on && !attribute {
            self.finish(level, end, token);
        }
        let begins = matches!(token, "(" | "[" | "{") || is_word(token) && !OPERATORS.contains(&token);
        if !level.operand && (begins || is_literal(token)) {
            level.factors.get_or_insert((self.out.len(), false));
        }
        enter(levels, token, attribute);
    }

    /// Whether the last thing written asks for a name: that of an attribute or of a filter.
    fn waits_for_name(&self) -> bool {
        self.out.trim_end().ends_with(['.', '|'])
    }

    /// Ends a level's operand, which a token follows.
    fn finish(&mut self, level: &mut Level, end: usize, token: &str) {
        let sum = matches!(token, "+" | "~");
        let factor = OF_FACTORS.contains(&token);
        if level.operand && !level.test {
            let (start, product) = level.factors.unwrap_or((end, false));
            let mut behind = String::new();
            if level.made && !level.bare {
                behind = format!("|{MADE}");
            }
            if product && !factor {
                self.out.insert(start, '(');
                behind += &format!(")|{MADE}");
                self.out.insert_str(end + 1, &behind);
            } else {
                if behind.is_empty() && !factor && (level.after || sum) {
                    behind = format!("|{MADE}");
                }
                self.out.insert_str(end, &behind);
            }
            level.factors = Some((start, product || token == "*")).filter(|_| factor);
        }
        (level.operand, level.made, level.test) = (false, false, false);
        if !factor {
            level.after = sum;
            level.factors = None;
        }
    }

    /// Takes bytes over as they are.
    fn push(&mut self, n: usize) {
        self.out.push_str(&self.text[self.at..self.at + n]);
        self.at += n;
    }
}

/// What a token makes of the levels; `attribute` is one that `.` or `|` waits for.
fn enter(levels: &mut Vec<Level>, token: &str, attribute: bool) {
    let depth = levels.len();
    let Some(level) = levels.last_mut() else { return };
    match token {
        "(" | "[" | "{" => {
            level.made |= !level.operand && token != "(" || level.operand && token == "(";
            let subscript = level.operand && token == "[";
            level.operand = true;
            levels.push(Level { subscript, ..Level::default() });
        }
        ")" | "]" | "}" => {
            let sliced = level.sliced;
            if depth > 1 {
                levels.pop();
            }
            if let Some(level) = levels.last_mut() {
                level.operand = true;
                level.made |= sliced;
            }
        }
        ":" => level.sliced = level.subscript,
        "|" => level.made = true,
        "." => {}
        "is" => level.test = true,
        "not" if level.test => {}
        _ if OPERATORS.contains(&token) && !attribute => level.test = false,
        _ if is_word(token) || is_literal(token) => level.operand = true,
        _ => {}
    }
}

/// Whether a token is a name or a word of the language.
fn is_word(token: &str) -> bool {
    let letter = token.as_bytes()[0];
    letter.is_ascii_alphabetic() || letter == b'_' || !letter.is_ascii()
}

/// Whether a token is a number or a text.
fn is_literal(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_digit() || c == '"' || c == '\'')
}

/// Whether a tag ends here, with or without a mark that trims.
fn closes(rest: &str, close: &str) -> bool {
    rest.strip_prefix(['-', '+']).unwrap_or(rest).starts_with(close)
}

/// The first token of a text that is not empty.
fn token(text: &str) -> &str {
    let first = text.chars().next().unwrap_or(' ');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let length = if first == '"' || first == '\'' {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == first && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        end.map_or(text.len(), |(at, _)| at + 1)
    } else if first.is_ascii_digit() {
        let whole = text.find(|c: char| !word(c)).unwrap_or(text.len());
        let rest = &text[whole..];
        let fraction = rest.strip_prefix('.').filter(|r| r.starts_with(|c: char| c.is_ascii_digit()));
        whole + fraction.map_or(0, |r| 1 + r.find(|c: char| !word(c)).unwrap_or(r.len()))
    } else if word(first) {
        text.find(|c: char| !word(c)).unwrap_or(text.len())
    } else if ["**", "//", "==", "!=", "<=", ">="].iter().any(|two| text.starts_with(two)) {
        2
    } else {
        first.len_utf8()
    };
    &text[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `@` for the filter that counts.
    fn short(source: &str) -> String {
        counted(source).replace(&format!("|{MADE}"), "@")
    }

    #[test]
    fn what_is_made_is_counted_where_it_ends() {
        for (source, expected) in [
            ("{{ a }} text { {# a + b #}", "{{ a }} text { {# a + b #}"),
            ("{{ a + b }}", "{{ a@ + b@ }}"),
            ("{{a~b~ c.d[0] }}", "{{a@~b@~ c.d[0]@ }}"),
            ("{%- set x = x + x -%}", "{%- set x = x@ + x@ -%}"),
            ("{{ 'a' * 3 - 1 }}", "{{ ('a' * 3)@ - 1 }}"),
            ("{{ 1 + -a * b // c ~ d / 2 }}", "{{ 1@ + -(a * b // c)@ ~ d / 2@ }}"),
            ("{{ a is divisibleby 3 * b }}", "{{ a is divisibleby (3 * b)@ }}"),
            ("{{ (a + b) * f(c + 'x' | trim) }}", "{{ ((a@ + b@) * f(c@ + 'x' | trim@)@)@ }}"),
            ("{{ s[1:] }}{{ s[::-1] }}{{ s[0] }}{{ s['a:b'] }}", "{{ s[1:]@ }}{{ s[::-1]@ }}{{ s[0] }}{{ s['a:b'] }}"),
            ("{{ [a, b] }}{{ {'k': v + w} }}", "{{ [a, b]@ }}{{ {'k': v@ + w@}@ }}"),
            ("{{ a if b is defined else c + d }}", "{{ a if b is defined else c@ + d@ }}"),
            ("{{ a is divisibleby(3) and b is not none }}", "{{ a is divisibleby(3) and b is not none }}"),
            ("{% macro f(a, b=c + c) %}{% endmacro %}", "{% macro f(a, b=c@ + c@) %}{% endmacro %}"),
            (
                "{% call f(x) %}{% endcall %}{% filter upper %}{% endfilter %}",
                "{% call f(x) %}{% endcall %}{% filter upper %}{% endfilter %}",
            ),
            ("{% for k, v in d.items() if k != 'a' + 'b' %}", "{% for k, v in d.items()@ if k != 'a'@ + 'b'@ %}"),
            ("{% raw %}{{ a + b }}{% endraw %}{{ c + -d }}", "{% raw %}{{ a + b }}{% endraw %}{{ c@ + -d@ }}"),
            ("{{ 'it\\'s }}' + x }}", "{{ 'it\\'s }}'@ + x@ }}"),
            ("{{ a.split(' ')[-1].upper() | trim('x') }}", "{{ a.split(' ')[-1].upper() | trim('x')@ }}"),
            ("{%+ if x in y + [z] +%}", "{%+ if x in y@ + [z]@ +%}"),
            ("{{ x | join(', ') ~ y|length }}", "{{ x | join(', ')@ ~ y|length@ }}"),
            ("{{ not a.b and 1.5 + 2 }}", "{{ not a.b and 1.5@ + 2@ }}"),
        ] {
            assert_eq!(short(source), expected, "{source}");
        }
    }

    #[test]
    fn text_that_never_ends_is_left_as_it_is() {
        for source in ["{{", "{% set x = '", "{{ a + (b", "{# a", "{% raw %}{{ a", "{{ ) ] } }}", "{", "{{ 'é' + "] {
            assert!(counted(source).replace(&format!("|{MADE}"), "").starts_with(source.trim_end()), "{source}");
        }
    }
}
