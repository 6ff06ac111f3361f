//! What a loop's body can ask of its loop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::For;
use super::error::Res;
use super::macros::Frame;
use super::ops;
use super::run::Run;
use super::value::Value;

/// A loop that runs.
pub(super) struct Loop {
    items: RefCell<Vec<Value>>,
    length: usize,
    index0: Cell<usize>,
    depth0: usize,
    changed: RefCell<Option<Vec<Value>>>,
    /// The loop itself and where it stands, for a recursive one.
    again: RefCell<Option<(Arc<For>, Rc<Frame>)>>,
}

impl Loop {
    pub fn new(items: Vec<Value>, depth0: usize, again: Option<(Arc<For>, Rc<Frame>)>) -> Self {
        let length = items.len();
        Self {
            items: RefCell::new(items),
            length,
            index0: Cell::new(0),
            depth0,
            changed: RefCell::new(None),
            again: RefCell::new(again),
        }
    }

    pub fn length(&self) -> usize {
        self.length
    }

    pub fn index0(&self) -> usize {
        self.index0.get()
    }

    pub fn depth(&self) -> usize {
        self.depth0 + 1
    }

    pub fn at(&self, index0: usize) -> Option<Value> {
        self.index0.set(index0);
        self.item(index0)
    }

    fn item(&self, index: usize) -> Option<Value> {
        self.items.borrow().get(index).cloned()
    }

    pub fn again(&self) -> Option<(Arc<For>, Rc<Frame>)> {
        self.again.borrow().clone()
    }

    /// Lets go of all that it holds, so that loops that outlive their end hold no chain of others.
    pub fn end(&self) {
        self.items.take();
        self.changed.take();
        self.again.take();
    }

    /// An attribute, if there is one of the name.
    pub fn attribute(&self, name: &str) -> Option<Value> {
        let (index0, length) = (self.index0.get(), self.length);
        let number = |number: usize| Some(Value::Int(number as i128));
        match name {
            "index0" => number(index0),
            "index" => number(index0 + 1),
            "revindex0" => number(length - index0.min(length) - 1),
            "revindex" => number(length - index0.min(length)),
            "first" => Some(Value::Bool(index0 == 0)),
            "last" => Some(Value::Bool(index0 + 1 >= length)),
            "length" => number(length),
            "depth" => number(self.depth0 + 1),
            "depth0" => number(self.depth0),
            "previtem" => {
                let before = index0.checked_sub(1).and_then(|index| self.item(index));
                Some(before.unwrap_or_else(|| Value::undefined("there is no previous item")))
            }
            "nextitem" => {
                let after = self.item(index0 + 1);
                Some(after.unwrap_or_else(|| Value::undefined("there is no next item")))
            }
            _ => None,
        }
    }

    /// Whether values differ from those of the last call.
    pub fn changed(&self, run: &Run, values: Vec<Value>) -> Res<bool> {
        if let Some(before) = &*self.changed.borrow() {
            let mut same = before.len() == values.len();
            for (a, b) in before.iter().zip(&values) {
                same = same && ops::equal(run, a, b)?;
            }
            if same {
                return Ok(false);
            }
        }
        self.changed.replace(Some(values));
        Ok(true)
    }
}
