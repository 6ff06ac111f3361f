//! Text as it stands in SVG and in HTML, in elements and in attributes.

/// Text with what has a meaning in markup written otherwise. Line breaks and tabs stay; other control characters, which generated text
/// may hold and a document may not, become replacement characters.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            // The last two are no characters of XML.
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_written_otherwise_and_what_may_not_stand_there_is_replaced() {
        assert_eq!(escape("<a b=\"c\" d='e'>&"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
        assert_eq!(escape("a\0b\u{1b}[0m\u{85}\r\n\tc\u{ffff}"), "a\u{fffd}b\u{fffd}[0m\u{fffd}\u{fffd}\n\tc\u{fffd}");
    }
}
