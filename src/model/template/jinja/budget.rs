//! The bounds on what a template may do: steps, what it makes on the way, and how deep it goes.

use std::cell::Cell;

use super::error::{Error, ErrorKind, Res, fail};

/// Bytes that a template may make in all.
const MOST_MADE: usize = 256 << 20;
/// The longest text that a template may go on working with, in bytes.
const LONGEST_TEXT: usize = 4 << 20;
/// What an element of a list takes.
const ELEMENT: usize = 48;
/// Evaluations within evaluations, on the stack of [`STACK`] bytes.
const DEEPEST: usize = 3_000;
/// The stack that rendering runs on, in bytes. It is not touched before it is used.
pub(in crate::model::template) const STACK: usize = 128 << 20;
/// Bytes looked at that count as a step.
const BYTES_A_STEP: usize = 32;

/// What is left of the bounds.
pub(super) struct Budget {
    steps: Cell<usize>,
    made: Cell<usize>,
    depth: Cell<usize>,
}

impl Budget {
    pub fn new(steps: usize) -> Self {
        Self { steps: Cell::new(steps), made: Cell::new(MOST_MADE), depth: Cell::new(DEEPEST) }
    }

    /// Takes a step.
    pub fn step(&self) -> Res<()> {
        self.steps_of(1)
    }

    /// Takes the steps of looking through so many bytes.
    pub fn work(&self, bytes: usize) -> Res<()> {
        self.steps_of(1 + bytes / BYTES_A_STEP)
    }

    fn steps_of(&self, steps: usize) -> Res<()> {
        let left = self.steps.get().checked_sub(steps).ok_or(Error { line: 0, kind: ErrorKind::Endless })?;
        self.steps.set(left);
        Ok(())
    }

    /// Counts bytes that are about to be made.
    pub fn made(&self, bytes: usize) -> Res<()> {
        let left = self.made.get().checked_sub(bytes).ok_or_else(flood)?;
        self.made.set(left);
        Ok(())
    }

    /// Refuses a text that is about to be made, if it would be too long.
    pub fn reserve(&self, bytes: usize) -> Res<()> {
        if bytes > LONGEST_TEXT.min(self.made.get()) { Err(flood()) } else { Ok(()) }
    }

    /// Refuses elements that are about to be made, if they would be too many.
    pub fn reserve_items(&self, count: usize) -> Res<()> {
        if count.saturating_mul(ELEMENT) > self.made.get() { Err(flood()) } else { Ok(()) }
    }

    /// Counts a container's elements as made.
    pub fn items(&self, count: usize) -> Res<()> {
        self.made(count.saturating_add(1).saturating_mul(ELEMENT))
    }

    /// Goes one level deeper while something is evaluated.
    pub fn deeper<T>(&self, evaluate: impl FnOnce() -> Res<T>) -> Res<T> {
        let left = self.depth.get();
        if left == 0 {
            return Err(fail("the template is nested too deep, or calls itself without end"));
        }
        self.depth.set(left - 1);
        let result = evaluate();
        self.depth.set(left);
        result
    }
}

pub(super) fn flood() -> Error {
    Error { line: 0, kind: ErrorKind::Flood }
}
