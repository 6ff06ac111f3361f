//! Names and their values, macros, and the arguments of calls.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::ast::Macro;
use super::error::{Res, fail};
use super::run::Run;
use super::value::{Dict, Value};

/// Calls of macros within macros; templates in use have two or three.
const DEEPEST_CALL: usize = 64;

/// The names of a scope.
#[derive(Default)]
pub(super) struct Frame {
    pub names: RefCell<HashMap<Arc<str>, Value>>,
    parent: Option<Rc<Frame>>,
}

impl Frame {
    pub fn within(parent: &Rc<Frame>) -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), parent: Some(parent.clone()) })
    }

    pub fn get(&self, name: &str) -> Option<Value> {
        let mut frame = Some(self);
        while let Some(found) = frame {
            if let Some(value) = found.names.borrow().get(name) {
                return Some(value.clone());
            }
            frame = found.parent.as_deref();
        }
        None
    }

    pub fn set(&self, name: &Arc<str>, value: Value) {
        self.names.borrow_mut().insert(name.clone(), value);
    }
}

/// A macro where it was defined.
pub(super) struct MacroValue {
    pub of: Arc<Macro>,
    pub frame: Rc<Frame>,
}

/// What a function is called with.
#[derive(Default, Clone)]
pub(super) struct Arguments {
    pub positional: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl Arguments {
    pub fn of(positional: Vec<Value>) -> Self {
        Self { positional, named: Vec::new() }
    }

    /// The arguments by the parameters' names; `required` of them must be there.
    ///
    /// # Errors
    /// If there are too few, too many, or of other names.
    pub fn bind<const N: usize>(self, what: &str, names: [&str; N], required: usize) -> Res<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(fail(format!("`{what}` takes at most {N} arguments, {} were given", self.positional.len())));
        }
        let mut bound: [Option<Value>; N] = std::array::from_fn(|_| None);
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let place = names.iter().position(|known| **known == *name);
            let Some(place) = place.and_then(|place| bound.get_mut(place)).filter(|place| place.is_none()) else {
                return Err(fail(format!("`{what}` takes no argument `{name}` here")));
            };
            *place = Some(value);
        }
        match bound.iter().take(required).position(Option::is_none) {
            Some(missing) => Err(fail(format!("`{what}` needs the argument `{}`", names[missing]))),
            None => Ok(bound),
        }
    }

    /// The arguments of a function that takes none by name.
    ///
    /// # Errors
    /// If there are too few, too many, or some by name.
    pub fn bare<const N: usize>(self, what: &str, required: usize) -> Res<[Option<Value>; N]> {
        if let Some((name, _)) = self.named.first() {
            return Err(fail(format!("`{what}` takes no argument by name, `{name}` was given")));
        }
        if self.positional.len() < required {
            return Err(fail(format!("`{what}` needs {required} arguments, {} were given", self.positional.len())));
        }
        self.bind(what, [""; N], 0)
    }
}

impl MacroValue {
    /// What the macro writes for some arguments.
    ///
    /// # Errors
    /// If the arguments do not fit, and what the body fails with.
    pub fn call(&self, run: &Run, mut given: Arguments) -> Res<Value> {
        let depth = run.calls.get();
        if depth == DEEPEST_CALL {
            return Err(fail(format!("macros call macros more than {DEEPEST_CALL} levels deep")));
        }
        let frame = Frame::within(&self.frame);
        run.calls.set(depth + 1);
        let text = self.bound(run, &frame, &mut given).and_then(|()| run.captured(&self.of.body, &frame));
        run.calls.set(depth);
        run.text(text?)
    }

    /// Puts the arguments into the macro's scope.
    fn bound(&self, run: &Run, frame: &Rc<Frame>, given: &mut Arguments) -> Res<()> {
        let mut found_caller = false;
        let mut positional = std::mem::take(&mut given.positional).into_iter();
        for (name, default) in &self.of.parameters {
            found_caller |= &**name == "caller";
            let named = |given: &mut Arguments| {
                let place = given.named.iter().position(|(given, _)| given == name)?;
                Some(given.named.remove(place).1)
            };
            let value = match positional.next().or_else(|| named(given)) {
                Some(value) => value,
                None => match default {
                    Some(default) => run.value(default, frame)?,
                    None => Value::undefined(format!("parameter '{name}' was not provided")),
                },
            };
            frame.set(name, value);
        }
        if self.of.uses_caller && !found_caller {
            let place = given.named.iter().position(|(name, _)| &**name == "caller");
            let caller = place.map(|place| given.named.remove(place).1);
            frame.set(&Arc::from("caller"), caller.unwrap_or_else(|| Value::undefined("No caller defined")));
        }
        self.rest(run, frame, positional.collect(), std::mem::take(&mut given.named))
    }

    /// What no parameter took.
    fn rest(&self, run: &Run, frame: &Frame, more: Vec<Value>, named: Vec<(Arc<str>, Value)>) -> Res<()> {
        let name = &self.of.name;
        if self.of.uses_kwargs {
            let mut dict = Dict::default();
            for (key, value) in named {
                dict.set(Value::Text(key), value)?;
            }
            frame.set(&Arc::from("kwargs"), Value::Dict(Rc::new(dict)));
        } else if let Some((other, _)) = named.first() {
            return Err(fail(format!("macro '{name}' takes no keyword argument '{other}'")));
        }
        if self.of.uses_varargs {
            frame.set(&Arc::from("varargs"), run.tuple(more)?);
        } else if !more.is_empty() {
            let most = self.of.parameters.len();
            return Err(fail(format!("macro '{name}' takes not more than {most} argument(s)")));
        }
        Ok(())
    }
}
