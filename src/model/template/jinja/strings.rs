//! The methods of strings.

use super::error::{Res, fail};
use super::lexer::{is_space, is_word};
use super::macros::Arguments;
use super::methods::bound;
use super::run::Run;
use super::value::Value;
use super::{letters, print, strformat};

/// Those that are known. `encode`, `maketrans` and `translate` have no use in a chat template.
pub(super) const METHODS: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// Calls a method of a string.
///
/// # Errors
/// What Python fails with.
pub(super) fn call(run: &Run, text: &str, name: &str, arguments: Arguments) -> Res<Value> {
    match name {
        "split" | "rsplit" => split(run, text, name, arguments),
        "splitlines" => {
            let [keep] = arguments.bind(name, ["keepends"], 0)?;
            let lines = lines(text, keep.is_some_and(|keep| keep.is_true()));
            run.list(lines.into_iter().map(|line| run.text(line.to_owned())).collect::<Res<_>>()?)
        }
        "format" => strformat::formatted(run, text, &arguments),
        "format_map" => {
            let [map] = arguments.bare(name, 1)?;
            let Some(Value::Dict(map)) = map else { return Err(fail("`format_map` takes a dictionary")) };
            let named = map.entries.iter().filter_map(|(key, value)| match key {
                Value::Text(key) => Some((key.clone(), value.clone())),
                _ => None,
            });
            strformat::formatted(run, text, &Arguments { positional: Vec::new(), named: named.collect() })
        }
        "join" => {
            let [parts] = arguments.bare(name, 1)?;
            join(run, text, &parts.unwrap_or(Value::None))
        }
        "replace" => {
            let [old, new, count] = arguments.bare(name, 2)?;
            let count = count.map_or(Ok(-1), |count| int_of(name, &count))?;
            replace(run, text, &text_of(name, old)?, &text_of(name, new)?, count)
        }
        "strip" | "lstrip" | "rstrip" => {
            let [characters] = arguments.bare(name, 0)?;
            strip(run, text, name, characters)
        }
        "startswith" | "endswith" | "count" | "find" | "rfind" | "index" | "rindex" => {
            search(run, text, name, arguments)
        }
        "partition" | "rpartition" => partition(run, text, name, arguments),
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.bare(name, 1)?;
            let part = text_of(name, part)?;
            let cut = if name == "removeprefix" { text.strip_prefix(&*part) } else { text.strip_suffix(&*part) };
            run.text(cut.unwrap_or(text).to_owned())
        }
        "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => pad(run, text, name, arguments),
        _ => {
            let [] = arguments.bare(name, 0)?;
            match letters::asked(text, name) {
                Some(answer) => Ok(Value::Bool(answer)),
                None => run.text(letters::changed(text, name)),
            }
        }
    }
}

fn text_of(what: &str, value: Option<Value>) -> Res<String> {
    let value = value.unwrap_or(Value::None);
    value
        .as_text()
        .map(str::to_owned)
        .ok_or_else(|| fail(format!("`{what}` takes a string, not {}", value.type_name())))
}

fn int_of(what: &str, value: &Value) -> Res<i128> {
    value.as_int().ok_or_else(|| fail(format!("`{what}` takes a whole number, not {}", value.type_name())))
}

/// The lines of a text, at every break that Python knows.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    const BREAKS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(BREAKS) {
        let width = rest[at..].chars().next().map_or(1, char::len_utf8);
        let end = if rest[at..].starts_with("\r\n") { at + 2 } else { at + width };
        lines.push(&rest[..if keep { end } else { at }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn split(run: &Run, text: &str, name: &str, arguments: Arguments) -> Res<Value> {
    let [separator, most] = arguments.bind(name, ["sep", "maxsplit"], 0)?;
    let most = most.map_or(Ok(-1), |most| int_of(name, &most))?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let from_end = name == "rsplit";
    let parts: Vec<&str> = match separator {
        None | Some(Value::None) => split_spaces(text, most, from_end),
        Some(separator) => {
            let separator = text_of(name, Some(separator))?;
            if separator.is_empty() {
                return Err(fail("empty separator"));
            }
            if from_end {
                let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), &*separator).collect();
                parts.reverse();
                parts
            } else {
                text.splitn(most.saturating_add(1), &*separator).collect()
            }
        }
    };
    run.budget.reserve_items(parts.len())?;
    run.list(parts.into_iter().map(|part| run.text(part.to_owned())).collect::<Res<_>>()?)
}

/// The words between spaces; what is left after `most` splits stays whole.
fn split_spaces(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    if from_end {
        while parts.len() < most
            && let Some((at, space)) = rest.char_indices().rev().find(|(_, c)| is_space(*c))
        {
            parts.push(&rest[at + space.len_utf8()..]);
            rest = rest[..at].trim_end_matches(is_space);
        }
    } else {
        while parts.len() < most
            && let Some(at) = rest.find(is_space)
        {
            parts.push(&rest[..at]);
            rest = rest[at..].trim_start_matches(is_space);
        }
    }
    if !rest.is_empty() {
        // The end that no split looked at keeps its spaces.
        let kept = match (parts.len() == most, from_end) {
            (false, _) => rest,
            (true, true) => &text[..rest.as_ptr() as usize - text.as_ptr() as usize + rest.len()],
            (true, false) => &text[rest.as_ptr() as usize - text.as_ptr() as usize..],
        };
        parts.push(kept);
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// Texts, one between each two; anything but a text among them is an error.
fn join(run: &Run, between: &str, parts: &Value) -> Res<Value> {
    let mut out = String::new();
    for (index, part) in run.iterated(parts)?.iter().enumerate() {
        let part = part.as_text();
        let part = part.ok_or_else(|| fail(format!("item {index} of what is joined is no string")))?;
        if index > 0 {
            out.push_str(between);
        }
        run.budget.reserve(out.len() + between.len() + part.len())?;
        out.push_str(part);
    }
    run.text(out)
}

/// A text in place of another, so often; a negative count is every time.
///
/// # Errors
/// If the result is too long.
pub(super) fn replace(run: &Run, text: &str, old: &str, new: &str, count: i128) -> Res<Value> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let places = if old.is_empty() { text.len() + 1 } else { text.matches(old).count() }.min(count);
    run.budget.reserve(text.len().saturating_add(places.saturating_mul(new.len())))?;
    run.text(text.replacen(old, new, count))
}

/// A text without spaces, or some characters, at its ends.
///
/// # Errors
/// If the characters are no text.
pub(super) fn strip(run: &Run, text: &str, name: &str, characters: Option<Value>) -> Res<Value> {
    let set = match characters {
        None | Some(Value::None) => None,
        Some(characters) => Some(text_of(name, Some(characters))?),
    };
    let taken = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
    let mut kept = text;
    if name != "rstrip" {
        kept = kept.trim_start_matches(taken);
    }
    if name != "lstrip" {
        kept = kept.trim_end_matches(taken);
    }
    run.text(kept.to_owned())
}

fn search(run: &Run, text: &str, name: &str, arguments: Arguments) -> Res<Value> {
    let [wanted, start, stop] = arguments.bare(name, 1)?;
    let length = text.chars().count();
    let (start, stop) = (bound(start, 0, length)?, bound(stop, length, length)?);
    // Beyond the end there is nothing, not even nothing.
    let within = (start <= length && start <= stop).then(|| {
        let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
        &text[byte(start)..byte(stop)]
    });
    let wanted = wanted.unwrap_or(Value::None);
    if name == "startswith" || name == "endswith" {
        let holds = |part: &str| {
            within.is_some_and(|text| if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) })
        };
        let options = match &wanted {
            Value::Tuple(items) => items.values.clone(),
            other => vec![other.clone()],
        };
        let mut found = false;
        for option in options {
            found |= holds(&text_of(name, Some(option))?);
        }
        return Ok(Value::Bool(found));
    }
    let wanted = text_of(name, Some(wanted))?;
    if name == "count" {
        let times =
            |text: &str| if wanted.is_empty() { text.chars().count() + 1 } else { text.matches(&*wanted).count() };
        return Ok(Value::Int(within.map_or(0, times) as i128));
    }
    run.budget.work(text.len())?;
    let place = |text: &str| if name.starts_with('r') { text.rfind(&*wanted) } else { text.find(&*wanted) };
    let found = within.and_then(|text| place(text).map(|at| start + text[..at].chars().count()));
    match found {
        Some(at) => Ok(Value::Int(at as i128)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(fail("substring not found")),
    }
}

fn partition(run: &Run, text: &str, name: &str, arguments: Arguments) -> Res<Value> {
    let [separator] = arguments.bare(name, 1)?;
    let separator = text_of(name, separator)?;
    if separator.is_empty() {
        return Err(fail("empty separator"));
    }
    let parts = if name == "partition" { text.split_once(&*separator) } else { text.rsplit_once(&*separator) };
    let parts = match parts {
        Some((before, after)) => [before, &separator, after],
        None if name == "partition" => [text, "", ""],
        None => ["", "", text],
    };
    run.tuple(parts.into_iter().map(|part| run.text(part.to_owned())).collect::<Res<_>>()?)
}

/// A text made as wide as is asked for.
fn pad(run: &Run, text: &str, name: &str, arguments: Arguments) -> Res<Value> {
    if name == "expandtabs" {
        let [size] = arguments.bind(name, ["tabsize"], 0)?;
        return expand_tabs(run, text, size.map_or(Ok(8), |size| int_of(name, &size))?);
    }
    let [width, fill] = arguments.bare(name, 1)?;
    let width = int_of(name, &width.unwrap_or(Value::None))?;
    let fill = fill.map_or(Ok(" ".to_owned()), |fill| text_of(name, Some(fill)))?;
    let (Some(fill), None) = (fill.chars().next(), fill.chars().nth(1)) else {
        return Err(fail("what a string is filled with is one character"));
    };
    let length = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    run.budget.reserve(text.len().saturating_add(missing.saturating_mul(fill.len_utf8())))?;
    if name == "zfill" {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
        return run.text(format!("{sign}{}{digits}", "0".repeat(missing)));
    }
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // CPython puts the odd space to the left where the width is odd.
        _ => missing / 2 + (missing & (length + missing) & 1),
    };
    let fills = |count: usize| fill.to_string().repeat(count);
    run.text(format!("{}{text}{}", fills(left), fills(missing - left)))
}

fn expand_tabs(run: &Run, text: &str, size: i128) -> Res<Value> {
    let size = usize::try_from(size).unwrap_or(0);
    let (mut out, mut column) = (String::new(), 0);
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                run.budget.reserve(out.len().saturating_add(spaces))?;
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            _ => {
                column = if matches!(character, '\n' | '\r') { 0 } else { column + 1 };
                out.push(character);
            }
        }
    }
    run.text(out)
}

/// How many words a text has: runs of letters, digits and underscores.
pub(super) fn count_words(text: &str) -> usize {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count()
}

/// `str(value)` as a text that was made.
///
/// # Errors
/// If it is too long.
pub(super) fn soft_text(run: &Run, value: &Value) -> Res<String> {
    let text = print::text_of(run, value)?;
    run.budget.work(text.len())?;
    Ok(text)
}
