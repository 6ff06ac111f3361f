//! Readings: the values of a plan's readouts.

use super::Handle;
use std::ops::{Deref, Index};

/// Numbers in rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Array {
    /// Its rows: of an array of one axis, the whole.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width())
    }

    /// How long its rows are; 1 at least.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1).max(1)
    }
}

/// The value of one readout.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Number(f64),
    Array(Array),
}

impl Reading {
    /// The number, if the readout was one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Reading::Number(x) => Some(*x),
            Reading::Array(_) => None,
        }
    }

    /// An array's rows; none of a number.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let array = if let Reading::Array(array) = self { Some(array) } else { None };
        array.into_iter().flat_map(Array::rows)
    }

    /// [`Reading::values`], taken out.
    pub fn into_values(self) -> Vec<f32> {
        match self {
            Reading::Number(x) => vec![x as f32],
            Reading::Array(array) => array.values,
        }
    }

    /// The values: an array's, or the number alone.
    pub fn values(&self) -> Vec<f32> {
        self.clone().into_values()
    }
}

/// All readings of a plan, one for each of its readouts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings(Vec<Reading>);

impl Readings {
    pub(crate) fn new(readings: Vec<Reading>) -> Self {
        Readings(readings)
    }

    /// They by themselves, in the order of the readouts.
    pub fn into_inner(self) -> Vec<Reading> {
        self.0
    }
}

impl Deref for Readings {
    type Target = [Reading];

    fn deref(&self) -> &[Reading] {
        &self.0
    }
}

impl IntoIterator for Readings {
    type Item = Reading;
    type IntoIter = std::vec::IntoIter<Reading>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// # Panics
/// If the handle is another plan's.
impl Index<Handle<Reading>> for Readings {
    type Output = Reading;

    fn index(&self, handle: Handle<Reading>) -> &Reading {
        &self.0[handle.readout()]
    }
}

/// # Panics
/// If the handle is another plan's.
impl Index<Handle<f64>> for Readings {
    type Output = f64;

    fn index(&self, handle: Handle<f64>) -> &f64 {
        match &self.0[handle.readout()] {
            Reading::Number(number) => number,
            Reading::Array(_) => panic!("{handle:?} is no number: the handle is another plan's"),
        }
    }
}

/// # Panics
/// If the handle is another plan's.
impl Index<Handle<Array>> for Readings {
    type Output = Array;

    fn index(&self, handle: Handle<Array>) -> &Array {
        match &self.0[handle.readout()] {
            Reading::Array(array) => array,
            Reading::Number(_) => panic!("{handle:?} is no array: the handle is another plan's"),
        }
    }
}

/// By the readout's number.
///
/// # Panics
/// If the plan has no such readout.
impl Index<usize> for Readings {
    type Output = Reading;

    fn index(&self, readout: usize) -> &Reading {
        &self.0[readout]
    }
}

impl<'a> IntoIterator for &'a Readings {
    type Item = &'a Reading;
    type IntoIter = std::slice::Iter<'a, Reading>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
