//! Columns of text, each text once.

use std::collections::HashMap;
use std::ops::Range;

/// Texts and empty cells. A table has millions of rows and few names.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    /// Each text once, in the order in which they came.
    distinct: Vec<String>,
    /// Of each cell, the index of its text.
    cells: Vec<Option<u32>>,
}

impl Texts {
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.rows(0..self.len())
    }

    /// The cells of some rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.cells[rows].iter().map(|cell| cell.and_then(|i| self.distinct.get(i as usize)).map(String::as_str))
    }
}

impl<S: AsRef<str> + Into<String>> FromIterator<Option<S>> for Texts {
    fn from_iter<I: IntoIterator<Item = Option<S>>>(values: I) -> Self {
        let mut texts = Texts::default();
        let mut known: HashMap<String, u32> = HashMap::new();
        for value in values {
            let cell = value.map(|text| match known.get(text.as_ref()) {
                Some(i) => *i,
                None => {
                    let i = texts.distinct.len() as u32;
                    let text = text.into();
                    texts.distinct.push(text.clone());
                    known.insert(text, i);
                    i
                }
            });
            texts.cells.push(cell);
        }
        texts
    }
}

impl PartialEq for Texts {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_as_they_were() {
        let cells = [Some("a"), None, Some("b"), Some("a"), Some("")];
        let texts: Texts = cells.into_iter().collect();
        assert!(texts.iter().eq(cells));
        assert_eq!(texts.distinct.len(), 3);
        let other: Texts = cells[1..].iter().copied().collect();
        assert!(texts != other);
        assert!(texts.rows(2..4).eq([Some("b"), Some("a")]));
    }
}
