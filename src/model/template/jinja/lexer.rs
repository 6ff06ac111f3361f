//! A template's source, cut into tokens as Jinja cuts it with `trim_blocks` and `lstrip_blocks`.

use super::error::{Error, Res, fail_at};
use super::escapes;

/// A token and the line where it stands, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside of tags.
    Data(String),
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Text(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Operators, the longer ones first.
const OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",",
];

/// What Python takes for a space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// What Python takes for a letter of a name.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The tokens of a source.
///
/// # Errors
/// If a tag does not end, or holds what is no token.
pub(super) fn tokens(source: &str) -> Res<Vec<Token>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    // Jinja drops one line break at the end.
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, line_starting: true, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.root()?;
    }
    lexer.push(Kind::End);
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    /// Whether what was read last ended a line.
    line_starting: bool,
    tokens: Vec<Token>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { line: self.line, kind });
    }

    fn advance(&mut self, bytes: usize) -> &'s str {
        let passed = &self.rest()[..bytes];
        self.line += passed.matches('\n').count();
        self.at += bytes;
        passed
    }

    fn advance_spaces(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start_matches(is_space).len());
    }

    fn error(&self, why: impl Into<String>) -> Error {
        fail_at(self.line, why)
    }

    /// Text as far as the next tag, and the tag.
    fn root(&mut self) -> Res<()> {
        let rest = self.rest();
        let opens = |at: &usize| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
        let Some(start) = rest.match_indices('{').map(|(at, _)| at).find(opens) else {
            let text = self.advance(rest.len()).to_owned();
            self.push(Kind::Data(text));
            return Ok(());
        };
        let sign = rest[start + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
        let printed = rest.as_bytes()[start + 1] == b'{';
        self.data(start, sign, !printed);
        let opener = rest.as_bytes()[start + 1];
        self.advance(2 + usize::from(sign.is_some()));
        self.line_starting = false;
        match opener {
            b'#' => self.comment(),
            b'{' => self.tag(Kind::PrintBegin, Kind::PrintEnd),
            _ if self.raw_begins() => self.raw(),
            _ => self.tag(Kind::BlockBegin, Kind::BlockEnd),
        }
    }

    /// Text of a length before a tag, without the spaces that the tag's sign takes.
    fn data(&mut self, length: usize, sign: Option<char>, strips_line: bool) {
        let line = self.line;
        let text = self.advance(length);
        let kept = match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if strips_line => {
                let begin = text.rfind('\n').map_or(0, |at| at + 1);
                let blank = text[begin..].chars().all(is_space);
                if (begin > 0 || self.line_starting) && blank { &text[..begin] } else { text }
            }
            _ => text,
        };
        if !kept.is_empty() {
            self.tokens.push(Token { line, kind: Kind::Data(kept.to_owned()) });
        }
    }

    /// Passes the end of a tag that is no print, with what it takes from behind it.
    fn end(&mut self, close: &str) -> bool {
        let rest = self.rest();
        let Some(after) = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix(close) else { return false };
        self.advance(rest.len() - after.len());
        self.line_starting = false;
        if rest.starts_with('-') {
            let before = self.at;
            self.advance_spaces();
            self.line_starting = self.source[before..self.at].ends_with('\n');
        } else if !rest.starts_with('+') && after.starts_with('\n') {
            self.advance(1);
            self.line_starting = true;
        }
        true
    }

    fn comment(&mut self) -> Res<()> {
        let Some(end) = self.rest().find("#}") else { return Err(self.error("a comment does not end")) };
        let signed = self.rest()[..end].ends_with(['-', '+']);
        self.advance(end - usize::from(signed));
        self.end("#}");
        Ok(())
    }

    /// Whether a raw block begins; passes its tag.
    fn raw_begins(&mut self) -> bool {
        let rest = self.rest();
        let Some(after) = rest.trim_start_matches(is_space).strip_prefix("raw") else { return false };
        let after = after.trim_start_matches(is_space);
        let (ends, strips) = match after.strip_prefix("-%}") {
            Some(text) => (Some(text), true),
            None => (after.strip_prefix("%}"), false),
        };
        let Some(text) = ends else { return false };
        self.advance(rest.len() - text.len());
        if strips {
            self.advance_spaces();
        }
        true
    }

    /// What stands in a raw block, which is no code.
    fn raw(&mut self) -> Res<()> {
        let rest = self.rest();
        let before = |start: usize| {
            let inner = rest[start + 2..].strip_prefix(['-', '+']).unwrap_or(&rest[start + 2..]);
            let after = inner.trim_start_matches(is_space).strip_prefix("endraw")?.trim_start_matches(is_space);
            let ends = after.strip_prefix(['-', '+']).unwrap_or(after).starts_with("%}");
            ends.then_some((start, rest.len() - after.len()))
        };
        let Some((start, end)) = rest.match_indices("{%").find_map(|(start, _)| before(start)) else {
            return Err(self.error("a raw block does not end"));
        };
        let sign = rest[start + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
        self.data(start, sign, true);
        self.advance(end - start);
        self.end("%}");
        Ok(())
    }

    /// A tag's tokens, its delimiters among them.
    fn tag(&mut self, begin: Kind, end: Kind) -> Res<()> {
        let (first, close) = (self.line, if end == Kind::PrintEnd { "}}" } else { "%}" });
        self.push(begin);
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            self.advance_spaces();
            let rest = self.rest();
            if rest.is_empty() {
                return Err(fail_at(first, "a tag does not end"));
            }
            let line = self.line;
            if open.is_empty() && self.closes(close) {
                self.tokens.push(Token { line, kind: end });
                return Ok(());
            }
            let kind = self.token()?;
            if let Kind::Operator(operator) = kind {
                self.balance(&mut open, operator)?;
            }
            self.tokens.push(Token { line, kind });
        }
    }

    /// Passes the end of a tag, if it stands here.
    fn closes(&mut self, close: &str) -> bool {
        if close == "%}" {
            return self.end(close);
        }
        let rest = self.rest();
        let Some(after) = rest.strip_prefix('-').unwrap_or(rest).strip_prefix(close) else { return false };
        self.advance(rest.len() - after.len());
        self.line_starting = false;
        if rest.starts_with('-') {
            let before = self.at;
            self.advance_spaces();
            self.line_starting = self.source[before..self.at].ends_with('\n');
        }
        true
    }

    fn balance(&self, open: &mut Vec<&'static str>, operator: &'static str) -> Res<()> {
        match operator {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" if open.pop() != Some(operator) => {
                return Err(self.error(format!("unexpected `{operator}`")));
            }
            _ => {}
        }
        Ok(())
    }

    fn token(&mut self) -> Res<Kind> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_ascii_digit() {
            return self.number();
        }
        if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            return Ok(Kind::Name(self.advance(length).to_owned()));
        }
        if first == '"' || first == '\'' {
            return self.text(first);
        }
        match OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            Some(operator) => {
                self.advance(operator.len());
                Ok(Kind::Operator(operator))
            }
            None => Err(self.error(format!("unexpected character {first:?}"))),
        }
    }

    fn text(&mut self, quote: char) -> Res<Kind> {
        let mut escaped = false;
        let end = self.rest().char_indices().skip(1).find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else { return Err(self.error("a string does not end")) };
        let line = self.line;
        let inner = &self.advance(end + 1)[1..end];
        escapes::unescaped(inner).map(Kind::Text).map_err(|why| fail_at(line, why))
    }

    fn number(&mut self) -> Res<Kind> {
        let rest = self.rest();
        let after_dot = self.source[..self.at].ends_with('.');
        let length = if after_dot { None } else { float_length(rest) };
        if let Some(length) = length {
            let digits = self.advance(length).replace('_', "");
            return digits.parse().map(Kind::Float).map_err(|_| self.error("a number is malformed"));
        }
        let (length, radix, skipped) = int_length(rest);
        let digits = self.advance(length)[skipped..].replace('_', "");
        i128::from_str_radix(&digits, radix).map(Kind::Int).map_err(|_| self.error("a number is too large"))
    }
}

/// The length of digits with single underscores between.
fn digits(text: &str, digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let joined = *byte == b'_' && at > 0 && bytes.get(at + 1).is_some_and(|next| digit(*next));
        if !digit(*byte) && !joined {
            break;
        }
        at += 1;
    }
    at
}

/// The length of a number with a fraction or an exponent that begins a text.
fn float_length(text: &str) -> Option<usize> {
    let decimal = |text: &str| digits(text, |b| b.is_ascii_digit());
    let whole = decimal(text);
    let fraction = text[whole..].strip_prefix('.').map_or(0, decimal);
    let behind = whole + if fraction > 0 { 1 + fraction } else { 0 };
    let exponent = text[behind..].strip_prefix(['e', 'E']).map_or(0, |rest| {
        let sign = usize::from(rest.starts_with(['+', '-']));
        match decimal(&rest[sign..]) {
            0 => 0,
            length => 1 + sign + length,
        }
    });
    (fraction > 0 || exponent > 0).then_some(behind + exponent)
}

/// The length of a whole number that begins a text, its base, and the length of the mark of the base.
fn int_length(text: &str) -> (usize, u32, usize) {
    let marked = text.as_bytes().get(1).map(u8::to_ascii_lowercase).filter(|_| text.starts_with('0'));
    for (mark, radix) in [(b'x', 16), (b'o', 8), (b'b', 2)] {
        let behind = if marked == Some(mark) { &text[2..] } else { "" };
        let joint = usize::from(behind.starts_with('_'));
        let length = digits(&behind[joint..], |b| (b as char).is_digit(radix));
        if length > 0 {
            return (2 + joint + length, radix, 2);
        }
    }
    // A zero stands alone: `012` is no number of Python's.
    let length = if text.starts_with('0') { digits(text, |b| b == b'0') } else { digits(text, |b| b.is_ascii_digit()) };
    (length, 10, 0)
}
