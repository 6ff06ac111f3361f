//! Running a template: its statements, from the first to the last.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Body, For, Macro, Named, Stmt, StmtNode, Target};
use super::budget::{Budget, flood};
use super::error::{ErrorKind, Res, at, fail};
use super::looping::Loop;
use super::macros::{Arguments, Frame, MacroValue};
use super::print;
use super::value::{Dict, Items, Stream, Value, View, depth_of};
use crate::model::template::Day;

/// A run of a template.
pub(super) struct Run {
    pub budget: Budget,
    /// The variables that the template was given.
    pub given: Dict,
    pub namespaces: RefCell<Vec<Dict>>,
    /// Calls of macros within macros.
    pub calls: Cell<usize>,
    pub day: Day,
    /// Scopes that macros see. Macros and scopes hold each other, so the scopes are emptied in the end.
    seen: RefCell<Vec<Rc<Frame>>>,
    longest: usize,
}

/// How a statement ends.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl Run {
    /// A run with an allowance of steps and of bytes written.
    pub fn new(given: Dict, day: Day, steps: usize, longest: usize) -> Self {
        Self {
            budget: Budget::new(steps),
            given,
            namespaces: RefCell::default(),
            calls: Cell::new(0),
            day,
            seen: RefCell::default(),
            longest,
        }
    }

    /// What a template writes.
    ///
    /// # Errors
    /// What it fails with.
    pub fn whole(&self, body: &Body) -> Res<String> {
        let written = self.captured(body, &Rc::default());
        for frame in self.seen.take() {
            frame.names.take();
        }
        written
    }

    /// What a body writes.
    ///
    /// # Errors
    /// What it fails with, and a `break` outside of a loop.
    pub fn captured(&self, body: &Body, frame: &Rc<Frame>) -> Res<String> {
        let mut out = String::new();
        match self.body(body, frame, &mut out)? {
            Flow::Next => Ok(out),
            _ => Err(fail("`break` or `continue` outside of a loop")),
        }
    }

    fn body(&self, body: &Body, frame: &Rc<Frame>, out: &mut String) -> Res<Flow> {
        for statement in body {
            let flow = at(statement.line, self.budget.deeper(|| self.statement(statement, frame, out)))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&self, statement: &Stmt, frame: &Rc<Frame>, out: &mut String) -> Res<Flow> {
        self.budget.step()?;
        match &statement.node {
            StmtNode::Text(text) => self.write(out, text)?,
            StmtNode::Print(value) => match self.value(value, frame)? {
                Value::Text(text) => self.write(out, &text)?,
                value => self.write(out, &print::text_of(self, &value)?)?,
            },
            StmtNode::For(looping) => {
                let over = self.value(&looping.over, frame)?;
                return self.for_loop(looping, &over, 0, frame, out);
            }
            StmtNode::If(branches, otherwise) => {
                for (asked, body) in branches {
                    if self.value(asked, frame)?.is_true() {
                        return self.body(body, frame, out);
                    }
                }
                return self.body(otherwise, frame, out);
            }
            StmtNode::Set(target, value) => self.assign(target, self.value(value, frame)?, frame)?,
            StmtNode::SetBlock(target, filters, body) => {
                let value = self.filtered(filters, body, frame)?;
                self.assign(target, value, frame)?;
            }
            StmtNode::FilterBlock(filters, body) => {
                let value = self.filtered(filters, body, frame)?;
                self.write(out, &print::text_of(self, &value)?)?;
            }
            StmtNode::With(values, body) => {
                let inner = Frame::within(frame);
                for (target, value) in values {
                    self.assign(target, self.value(value, frame)?, &inner)?;
                }
                return self.body(body, &inner, out);
            }
            StmtNode::Macro(of) => frame.set(&of.name, self.macro_value(of, frame)),
            StmtNode::CallBlock(call, caller) => {
                let caller = self.macro_value(caller, frame);
                let written = self.called(call, Some(caller), frame)?;
                self.write(out, &print::text_of(self, &written)?)?;
            }
            StmtNode::Scope(body) => return self.body(body, &Frame::within(frame), out),
            StmtNode::Break => return Ok(Flow::Break),
            StmtNode::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn write(&self, out: &mut String, text: &str) -> Res<()> {
        if out.len() + text.len() > self.longest {
            return Err(flood());
        }
        self.budget.work(text.len())?;
        out.push_str(text);
        Ok(())
    }

    fn macro_value(&self, of: &Arc<Macro>, frame: &Rc<Frame>) -> Value {
        self.seen.borrow_mut().push(frame.clone());
        Value::Macro(Rc::new(MacroValue { of: of.clone(), frame: frame.clone() }))
    }

    /// What a block writes, through its filters.
    fn filtered(&self, filters: &[Named], body: &Body, frame: &Rc<Frame>) -> Res<Value> {
        let mut value = self.text(self.captured(body, &Frame::within(frame))?)?;
        for filter in filters {
            value = self.filter(filter, value, frame)?;
        }
        Ok(value)
    }

    /// Runs a loop over a value.
    fn for_loop(
        &self,
        looping: &Arc<For>,
        over: &Value,
        depth0: usize,
        frame: &Rc<Frame>,
        out: &mut String,
    ) -> Res<Flow> {
        let mut items = self.iterated(over)?;
        if let Some(only_if) = &looping.only_if {
            let mut kept = Vec::new();
            for item in items {
                let inner = Frame::within(frame);
                self.assign(&looping.target, item.clone(), &inner)?;
                if self.value(only_if, &inner)?.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.body(&looping.otherwise, &Frame::within(frame), out);
        }
        let again = looping.recursive.then(|| (looping.clone(), frame.clone()));
        let state = Rc::new(Loop::new(items, depth0, again));
        let result = self.iterations(looping, &state, frame, out);
        state.end();
        result.map(|()| Flow::Next)
    }

    fn iterations(&self, looping: &For, state: &Rc<Loop>, frame: &Rc<Frame>, out: &mut String) -> Res<()> {
        let name = Arc::from("loop");
        for index0 in 0..state.length() {
            self.budget.step()?;
            let Some(item) = state.at(index0) else { break };
            let inner = Frame::within(frame);
            inner.set(&name, Value::Loop(state.clone()));
            self.assign(&looping.target, item, &inner)?;
            if self.body(&looping.body, &inner, out)? == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// A recursive loop, called with what is nested in an item.
    ///
    /// # Errors
    /// If the loop is not recursive, and what it fails with.
    pub fn loop_again(&self, state: &Loop, over: &Value) -> Res<Value> {
        let Some((looping, frame)) = state.again() else {
            return Err(fail("a loop that is called must be marked `recursive`"));
        };
        let mut out = String::new();
        self.for_loop(&looping, over, state.depth(), &frame, &mut out)?;
        self.text(out)
    }

    fn assign(&self, target: &Target, value: Value, frame: &Rc<Frame>) -> Res<()> {
        match target {
            Target::Name(name) => frame.set(name, value),
            Target::Attribute(name, attribute) => {
                let Some(Value::Namespace(place)) = self.named(name, frame) else {
                    return Err(fail(format!("`{name}` is no namespace, so that it has no attributes to set")));
                };
                check_name(attribute)?;
                if let Some(dict) = self.namespaces.borrow_mut().get_mut(place) {
                    dict.set(Value::Text(attribute.clone()), value)?;
                }
            }
            Target::Many(targets) => {
                let values = self.iterated(&value)?;
                if values.len() != targets.len() {
                    let (found, wanted) = (values.len(), targets.len());
                    return Err(fail(format!("{found} values cannot be assigned to {wanted} names")));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, frame)?;
                }
            }
        }
        Ok(())
    }

    /// A new namespace.
    ///
    /// # Errors
    /// If an attribute begins with an underscore, which is not allowed.
    pub fn namespace(&self, attributes: Dict) -> Res<Value> {
        for (name, _) in &attributes.entries {
            check_name(name.as_text().unwrap_or_default())?;
        }
        self.budget.items(attributes.entries.len())?;
        let mut namespaces = self.namespaces.borrow_mut();
        namespaces.push(attributes);
        Ok(Value::Namespace(namespaces.len() - 1))
    }

    /// A text that was made.
    ///
    /// # Errors
    /// If that is too much.
    pub fn text(&self, text: String) -> Res<Value> {
        self.budget.reserve(text.len())?;
        self.budget.made(text.len())?;
        Ok(Value::Text(Arc::from(text)))
    }

    /// A list that was made.
    ///
    /// # Errors
    /// If that is too much.
    pub fn list(&self, values: Vec<Value>) -> Res<Value> {
        self.budget.items(values.len())?;
        Ok(Value::List(Items::new(values)?))
    }

    /// A tuple that was made.
    ///
    /// # Errors
    /// If that is too much.
    pub fn tuple(&self, values: Vec<Value>) -> Res<Value> {
        self.budget.items(values.len())?;
        Ok(Value::Tuple(Items::new(values)?))
    }

    /// A generator that was made.
    ///
    /// # Errors
    /// If that is too much.
    pub fn stream(&self, values: Vec<Value>) -> Res<Value> {
        self.lazy(|made| {
            *made = values;
            Ok(())
        })
    }

    /// A generator whose values are made by `make`. What fails there is an error when they are read.
    ///
    /// # Errors
    /// If that is too much.
    pub fn lazy(&self, make: impl FnOnce(&mut Vec<Value>) -> Res<()>) -> Res<Value> {
        let mut values = Vec::new();
        let failed = match make(&mut values) {
            Ok(()) => None,
            Err(error) if matches!(error.kind, ErrorKind::Failed(_)) => Some(error),
            Err(error) => return Err(error),
        };
        self.budget.items(values.len())?;
        let depth = depth_of(&values)?;
        let stream = Stream { values: RefCell::new(values.into()), failed: RefCell::new(failed), depth };
        Ok(Value::Stream(Rc::new(stream)))
    }

    /// The elements of a value, over which Python can loop.
    ///
    /// # Errors
    /// For a value of another kind, or if there are too many.
    pub fn iterated(&self, value: &Value) -> Res<Vec<Value>> {
        if let Some(length) = value.length() {
            self.budget.items(length)?;
            self.budget.work(length)?;
        }
        Ok(match value {
            Value::Undefined(_) => Vec::new(),
            Value::Text(text) => text.chars().map(|character| Value::text(character.to_string())).collect(),
            Value::List(items) | Value::Tuple(items) => items.values.clone(),
            Value::Dict(dict) => self.viewed(View::Keys, dict)?,
            Value::View(view, dict) => self.viewed(*view, dict)?,
            Value::Range(range) => range.values().collect(),
            Value::Stream(stream) => {
                if let Some(error) = stream.failed.take() {
                    return Err(error);
                }
                stream.values.take().into()
            }
            other => return Err(fail(format!("'{}' object is not iterable", other.type_name()))),
        })
    }

    /// The keys, values or entries of a dictionary.
    ///
    /// # Errors
    /// If that is too much.
    pub fn viewed(&self, view: View, dict: &Dict) -> Res<Vec<Value>> {
        let part = |(key, value): &(Value, Value)| match view {
            View::Keys => Ok(key.clone()),
            View::Values => Ok(value.clone()),
            View::Entries => self.tuple(vec![key.clone(), value.clone()]),
        };
        dict.entries.iter().map(part).collect()
    }

    /// Calls what a value is, if it can be called.
    ///
    /// # Errors
    /// If it cannot, and what it fails with.
    pub fn call(&self, callee: &Value, arguments: Arguments) -> Res<Value> {
        self.budget.step()?;
        match callee {
            Value::Macro(called) => self.budget.deeper(|| called.call(self, arguments)),
            Value::Function(function) => super::functions::call(self, *function, arguments),
            Value::Method(method) => super::methods::call(self, &method.0, &method.1, arguments),
            Value::Loop(state) => {
                let [over] = arguments.bind("loop", ["iterable"], 1)?;
                self.budget.deeper(|| self.loop_again(state, &over.unwrap_or(Value::None)))
            }
            Value::Joiner(joiner) => {
                let [] = arguments.bind("joiner", [], 0)?;
                Ok(if joiner.1.replace(true) { joiner.0.clone() } else { Value::text("") })
            }
            other => {
                other.defined()?;
                Err(fail(format!("'{}' object is not callable", other.type_name())))
            }
        }
    }
}

/// Attributes of namespaces do not begin with an underscore.
fn check_name(name: &str) -> Res<()> {
    if name.starts_with('_') {
        return Err(fail(format!("a namespace has no attribute `{name}`, as it begins with an underscore")));
    }
    Ok(())
}
