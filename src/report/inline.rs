//! The two marks that text in reports knows: `` `code` `` and `**bold**`.

/// A stretch of text of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span<'a> {
    /// Shown as it is.
    Text(&'a str),
    /// Of fixed width.
    Code(&'a str),
    /// Bold.
    Bold(&'a str),
}

/// Splits text into spans. A mark that is not closed, or holds nothing, is text.
pub(super) fn spans(text: &str) -> Vec<Span<'_>> {
    let mut spans = Vec::new();
    let (mut rest, mut plain_end) = (text, 0);
    while plain_end < rest.len() {
        let marked = marked_at(&rest[plain_end..]);
        let Some((span, length)) = marked else {
            plain_end += rest[plain_end..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if plain_end > 0 {
            spans.push(Span::Text(&rest[..plain_end]));
        }
        spans.push(span);
        rest = &rest[plain_end + length..];
        plain_end = 0;
    }
    if !rest.is_empty() {
        spans.push(Span::Text(rest));
    }
    spans
}

/// The marked span that starts here, with its length in bytes, marks included.
fn marked_at(text: &str) -> Option<(Span<'_>, usize)> {
    let within = |mark: &str| {
        let inner = text.strip_prefix(mark)?;
        let end = inner.find(mark)?;
        let inner = &inner[..end];
        let kept = !inner.trim().is_empty() && inner.trim().len() == inner.len() && !inner.contains('\n');
        kept.then_some((inner, inner.len() + 2 * mark.len()))
    };
    within("`")
        .map(|(inner, length)| (Span::Code(inner), length))
        .or_else(|| within("**").map(|(inner, length)| (Span::Bold(inner), length)))
}

/// The text without its marks, for places that show none: a page's title, a label.
pub(super) fn plain(text: &str) -> String {
    let inner = |span: &Span<'_>| match span {
        Span::Text(inner) | Span::Code(inner) | Span::Bold(inner) => (*inner).to_owned(),
    };
    spans(text).iter().map(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_bold_are_found_between_text() {
        assert_eq!(
            spans("é `a**b` and **c** d"),
            [Span::Text("é "), Span::Code("a**b"), Span::Text(" and "), Span::Bold("c"), Span::Text(" d")]
        );
    }

    #[test]
    fn marks_that_are_open_or_hold_nothing_are_text() {
        for text in ["a ` b", "**", "****", "2 ** 3 ** 4", "``", "`\n`"] {
            assert!(spans(text).iter().all(|span| matches!(span, Span::Text(_))), "{text}: {:?}", spans(text));
        }
        assert!(spans("").is_empty());
    }

    #[test]
    fn plain_text_keeps_what_the_marks_hold() {
        assert_eq!(plain("`a` and **b** c*"), "a and b c*");
    }
}
