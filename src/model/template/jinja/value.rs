//! The values that a template works with: those of Python.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::Literal;
use super::error::{Error, Res, fail};
use super::looping::Loop;
use super::macros::MacroValue;

/// Containers within containers.
pub(super) const DEEPEST_VALUE: usize = 200;

#[derive(Clone)]
pub(super) enum Value {
    /// With the reason, which is the error where more is asked of it than it can do.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    Range(Range),
    /// The keys, values or entries of a dictionary.
    View(View, Rc<Dict>),
    Stream(Rc<Stream>),
    /// Its place among the namespaces of the run.
    Namespace(usize),
    Macro(Rc<MacroValue>),
    Loop(Rc<Loop>),
    Function(Function),
    Cycler(Rc<Cycler>),
    /// A text that is given from the second time on.
    Joiner(Rc<(Value, Cell<bool>)>),
    /// A value and the name of a method of its own.
    Method(Rc<(Value, Arc<str>)>),
}

/// The elements of a list or a tuple.
pub(super) struct Items {
    pub values: Vec<Value>,
    /// How deep containers are nested, itself counted.
    pub depth: usize,
    /// A tuple of `groupby`, whose two parts have names.
    pub group: bool,
}

/// What is gone when it was read once: a generator of Python's.
pub(super) struct Stream {
    pub values: RefCell<VecDeque<Value>>,
    /// What went wrong behind the values. A generator works when it is read, so that no one hears of it before.
    pub failed: RefCell<Option<Error>>,
    pub depth: usize,
}

/// Values that come up one after the other.
pub(super) struct Cycler {
    pub values: Vec<Value>,
    pub at: Cell<usize>,
    pub depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Entries,
}

/// Functions that every template can call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    Cycler,
    Dict,
    Joiner,
    Namespace,
    RaiseException,
    Range,
    StrftimeNow,
}

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "cycler" => Self::Cycler,
            "dict" => Self::Dict,
            "joiner" => Self::Joiner,
            "namespace" => Self::Namespace,
            "raise_exception" => Self::RaiseException,
            "range" => Self::Range,
            "strftime_now" => Self::StrftimeNow,
            _ => return None,
        })
    }
}

/// Whole numbers from `start` to before `stop`.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub start: i128,
    pub stop: i128,
    pub step: i128,
}

impl Range {
    pub fn len(self) -> usize {
        let (span, step) =
            if self.step > 0 { (self.stop - self.start, self.step) } else { (self.start - self.stop, -self.step) };
        usize::try_from((span + step - 1).div_euclid(step).max(0)).unwrap_or(usize::MAX)
    }

    pub fn get(self, index: usize) -> i128 {
        self.start + self.step * index as i128
    }

    pub fn values(self) -> impl DoubleEndedIterator<Item = Value> {
        (0..self.len()).map(move |index| Value::Int(self.get(index)))
    }
}

/// A dictionary, in the order in which its keys came.
#[derive(Default, Clone)]
pub(super) struct Dict {
    pub entries: Vec<(Value, Value)>,
    places: HashMap<Key, usize>,
    pub depth: usize,
}

/// A key by which it is found: numbers that are equal are one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Undefined,
    None,
    Int(i128),
    /// A number that is no whole one, by its bits.
    Float(u64),
    Text(Arc<str>),
    Tuple(Vec<Key>),
    Range(i128, i128, i128),
    Namespace(usize),
    Function(usize),
    /// What is equal to nothing but itself, by its place.
    Object(usize),
}

impl Key {
    /// # Errors
    /// For a value that Python does not hash.
    pub fn of(value: &Value) -> Res<Self> {
        Ok(match value {
            Value::Undefined(_) => Key::Undefined,
            Value::None => Key::None,
            Value::Bool(value) => Key::Int((*value).into()),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e30 => Key::Int(*value as i128),
            Value::Float(value) => Key::Float(value.to_bits()),
            Value::Text(text) => Key::Text(text.clone()),
            Value::Tuple(items) => Key::Tuple(items.values.iter().map(Key::of).collect::<Res<_>>()?),
            Value::Function(function) => Key::Function(*function as usize),
            Value::Range(range) => Key::Range(range.start, range.stop, range.step),
            Value::Namespace(place) => Key::Namespace(*place),
            Value::Macro(called) => Key::Object(Rc::as_ptr(called) as usize),
            Value::Loop(looping) => Key::Object(Rc::as_ptr(looping) as usize),
            Value::Stream(stream) => Key::Object(Rc::as_ptr(stream) as usize),
            other => return Err(fail(format!("unhashable type: '{}'", other.type_name()))),
        })
    }
}

impl Dict {
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.places.get(key).map(|place| &self.entries[*place].1)
    }

    pub fn get_text(&self, key: &str) -> Option<&Value> {
        self.get(&Key::Text(Arc::from(key)))
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.places.contains_key(key)
    }

    /// Puts a value under a key, at the place where the key was.
    ///
    /// # Errors
    /// For a key that Python does not hash, or where containers are nested too deep.
    pub fn set(&mut self, key: Value, value: Value) -> Res<()> {
        let depth = self.depth.max(1 + key.depth()).max(1 + value.depth());
        if depth > DEEPEST_VALUE {
            return Err(too_deep());
        }
        self.depth = depth;
        let hashed = Key::of(&key)?;
        match self.places.get(&hashed) {
            Some(place) => self.entries[*place].1 = value,
            None => {
                self.places.insert(hashed, self.entries.len());
                self.entries.push((key, value));
            }
        }
        Ok(())
    }
}

fn too_deep() -> Error {
    fail(format!("values are nested more than {DEEPEST_VALUE} levels deep"))
}

impl Items {
    /// # Errors
    /// Where containers are nested too deep.
    pub fn new(values: Vec<Value>) -> Res<Rc<Self>> {
        let depth = depth_of(&values)?;
        Ok(Rc::new(Self { values, depth, group: false }))
    }
}

/// How deep a container of these is nested.
///
/// # Errors
/// Where it is too deep.
pub(super) fn depth_of(values: &[Value]) -> Res<usize> {
    let depth = 1 + values.iter().map(Value::depth).max().unwrap_or(0);
    if depth > DEEPEST_VALUE { Err(too_deep()) } else { Ok(depth) }
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Self {
        Value::Text(Arc::from(text.as_ref()))
    }

    pub fn undefined(why: impl AsRef<str>) -> Self {
        Value::Undefined(Rc::from(why.as_ref()))
    }

    pub fn literal(literal: &Literal) -> Self {
        match literal {
            Literal::None => Value::None,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Float(value) => Value::Float(*value),
            Literal::Text(text) => Value::Text(text.clone()),
        }
    }

    /// A value from JSON.
    ///
    /// # Errors
    /// Where it is nested too deep.
    pub fn from_json(json: &serde_json::Value) -> Res<Self> {
        Ok(match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Value::Int(value.into()),
                (_, Some(value)) => Value::Int(value.into()),
                _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::text(text),
            serde_json::Value::Array(values) => {
                Value::List(Items::new(values.iter().map(Value::from_json).collect::<Res<_>>()?)?)
            }
            serde_json::Value::Object(object) => Value::from_object(object)?,
        })
    }

    /// A dictionary from a JSON object.
    ///
    /// # Errors
    /// Where it is nested too deep.
    pub fn from_object(object: &serde_json::Map<String, serde_json::Value>) -> Res<Self> {
        let mut dict = Dict::default();
        for (key, value) in object {
            dict.set(Value::text(key), Value::from_json(value)?)?;
        }
        Ok(Value::Dict(Rc::new(dict)))
    }

    /// How deep containers are nested in it.
    pub fn depth(&self) -> usize {
        match self {
            Value::List(items) | Value::Tuple(items) => items.depth,
            Value::Dict(dict) => dict.depth,
            Value::View(_, dict) => dict.depth + 1,
            Value::Stream(stream) => stream.depth,
            Value::Method(method) => method.0.depth() + 1,
            Value::Cycler(cycler) => cycler.depth,
            Value::Joiner(joiner) => joiner.0.depth() + 1,
            _ => 0,
        }
    }

    /// The name of Python's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "str",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(_) => "range",
            Value::View(View::Keys, _) => "dict_keys",
            Value::View(View::Values, _) => "dict_values",
            Value::View(View::Entries, _) => "dict_items",
            Value::Stream(..) => "generator",
            Value::Namespace(_) => "Namespace",
            Value::Macro(_) => "Macro",
            Value::Loop(_) => "LoopContext",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
            Value::Function(_) | Value::Method(_) => "function",
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, for which Python takes a boolean too.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(value) => Some((*value).into()),
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            other => other.as_int().map(|value| value as f64),
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(items) | Value::Tuple(items) => !items.values.is_empty(),
            Value::Dict(dict) | Value::View(_, dict) => !dict.entries.is_empty(),
            Value::Range(range) => range.len() > 0,
            Value::Loop(looping) => looping.length() > 0,
            _ => true,
        }
    }

    /// How many elements or characters it has; none where Python has no length.
    pub fn length(&self) -> Option<usize> {
        Some(match self {
            Value::Undefined(_) => 0,
            Value::Text(text) => text.chars().count(),
            Value::List(items) | Value::Tuple(items) => items.values.len(),
            Value::Dict(dict) | Value::View(_, dict) => dict.entries.len(),
            Value::Range(range) => range.len(),
            Value::Loop(looping) => looping.length(),
            _ => return None,
        })
    }

    /// The error of an operation that an undefined value does not have; nothing for another.
    ///
    /// # Errors
    /// For an undefined value.
    pub fn defined(&self) -> Res<()> {
        match self {
            Value::Undefined(why) => Err(fail(&**why)),
            _ => Ok(()),
        }
    }
}
