//! Escapes in the strings of a template, as Python's `unicode-escape` reads them.

use std::fmt::Write;

/// The text that a string literal stands for.
///
/// # Errors
/// If an escape is cut off or names no character.
pub(super) fn unescaped(literal: &str) -> Result<String, String> {
    let mut out = String::with_capacity(literal.len());
    let mut characters = literal.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        let Some(escape) = characters.next() else { return Err("a string ends in a backslash".to_owned()) };
        match escape {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(escape),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0'..='7' => {
                let mut code = escape.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = characters.peek().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    characters.next();
                }
                out.push(char::from_u32(code).unwrap_or_default());
            }
            'x' => out.push(hexadecimal(&mut characters, 2)?),
            'u' => out.push(hexadecimal(&mut characters, 4)?),
            'U' => out.push(hexadecimal(&mut characters, 8)?),
            'N' => return Err("characters by name (`\\N{...}`) are not known here".to_owned()),
            ascii if ascii.is_ascii() => out.extend(['\\', ascii]),
            // Jinja writes what is beyond ASCII as an escape of its own before it reads escapes, so that a backslash
            // before it is one before a backslash.
            other => {
                let code = u32::from(other);
                let written = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
                written.map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(out)
}

fn hexadecimal(characters: &mut impl Iterator<Item = char>, digits: usize) -> Result<char, String> {
    let mut code = 0;
    for _ in 0..digits {
        let digit = characters.next().and_then(|c| c.to_digit(16)).ok_or("an escape in a string is cut off")?;
        code = code * 16 + digit;
    }
    char::from_u32(code).ok_or_else(|| format!("an escape in a string is no character: {code:x}"))
}
