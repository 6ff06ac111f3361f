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

/// Texts while cells are added.
#[derive(Debug, Default)]
pub struct TextsBuilder {
    texts: Texts,
    known: HashMap<String, u32>,
}

impl TextsBuilder {
    pub(super) fn push(&mut self, cell: Option<&str>) {
        let cell = cell.map(|text| match self.known.get(text) {
            Some(i) => *i,
            None => {
                let i = self.texts.distinct.len() as u32;
                self.texts.distinct.push(text.to_owned());
                self.known.insert(text.to_owned(), i);
                i
            }
        });
        self.texts.cells.push(cell);
    }

    /// Whether any cell has a text.
    pub(super) fn any(&self) -> bool {
        !self.known.is_empty()
    }
}

impl From<TextsBuilder> for Texts {
    fn from(builder: TextsBuilder) -> Texts {
        builder.texts
    }
}

impl<S: AsRef<str>> FromIterator<Option<S>> for Texts {
    fn from_iter<I: IntoIterator<Item = Option<S>>>(values: I) -> Self {
        let mut texts = TextsBuilder::default();
        values.into_iter().for_each(|value| texts.push(value.as_ref().map(S::as_ref)));
        texts.into()
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
