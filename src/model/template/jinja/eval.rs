//! The values of expressions.

use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Args, Expr, Named, Node};
use super::error::{Res, at, fail};
use super::macros::{Arguments, Frame};
use super::run::Run;
use super::value::{Dict, Function, Key, Value};
use super::{checks, filters, methods, ops, print};

impl Run {
    /// The value of an expression.
    ///
    /// # Errors
    /// What Python fails with, and what exceeds the bounds.
    pub fn value(&self, expression: &Expr, frame: &Rc<Frame>) -> Res<Value> {
        at(expression.line, self.budget.deeper(|| self.value_of(&expression.node, frame)))
    }

    fn value_of(&self, node: &Node, frame: &Rc<Frame>) -> Res<Value> {
        self.budget.step()?;
        match node {
            Node::Literal(literal) => Ok(Value::literal(literal)),
            Node::Name(name) => {
                Ok(self.named(name, frame).unwrap_or_else(|| Value::undefined(format!("'{name}' is undefined"))))
            }
            Node::List(items) => self.list(self.values(items, frame)?),
            Node::Tuple(items) => self.tuple(self.values(items, frame)?),
            Node::Dict(entries) => self.dict(entries, frame),
            Node::Attribute(of, name) => methods::attribute(self, &self.value(of, frame)?, name),
            Node::Item(of, key) => methods::item(self, &self.value(of, frame)?, &self.value(key, frame)?),
            Node::Slice(of, bounds) => self.slice(of, bounds, frame),
            Node::Call(..) => self.call_of(node, None, frame),
            Node::Filter(of, filter) => self.filter(filter, self.value(of, frame)?, frame),
            Node::Test(of, test) => {
                let value = self.value(of, frame)?;
                let arguments = self.arguments(&test.args, frame)?;
                Ok(Value::Bool(at(test.line, checks::holds(self, &test.name, &value, arguments))?))
            }
            Node::Not(of) => Ok(Value::Bool(!self.value(of, frame)?.is_true())),
            Node::And(left, right) => {
                let left = self.value(left, frame)?;
                if left.is_true() { self.value(right, frame) } else { Ok(left) }
            }
            Node::Or(left, right) => {
                let left = self.value(left, frame)?;
                if left.is_true() { Ok(left) } else { self.value(right, frame) }
            }
            Node::Negative(of) => ops::negative(&self.value(of, frame)?, true),
            Node::Positive(of) => ops::negative(&self.value(of, frame)?, false),
            Node::Binary(operator, left, right) => {
                ops::binary(self, operator, &self.value(left, frame)?, &self.value(right, frame)?)
            }
            Node::Concat(parts) => self.concat(parts, frame),
            Node::Compare(first, rest) => self.compare(first, rest, frame),
            Node::Condition(parts, otherwise) => {
                if self.value(&parts[0], frame)?.is_true() {
                    return self.value(&parts[1], frame);
                }
                match otherwise {
                    Some(otherwise) => self.value(otherwise, frame),
                    None => Ok(Value::undefined("the condition does not hold, and nothing was given for that")),
                }
            }
        }
    }

    /// What a name stands for.
    pub fn named(&self, name: &str, frame: &Frame) -> Option<Value> {
        let found = frame.get(name).or_else(|| self.given.get_text(name).cloned());
        found.or_else(|| Function::named(name).map(Value::Function))
    }

    fn values(&self, expressions: &[Expr], frame: &Rc<Frame>) -> Res<Vec<Value>> {
        expressions.iter().map(|expression| self.value(expression, frame)).collect()
    }

    fn dict(&self, entries: &[(Expr, Expr)], frame: &Rc<Frame>) -> Res<Value> {
        let mut dict = Dict::default();
        for (key, value) in entries {
            dict.set(self.value(key, frame)?, self.value(value, frame)?)?;
        }
        self.budget.items(2 * dict.entries.len())?;
        Ok(Value::Dict(Rc::new(dict)))
    }

    fn slice(&self, of: &Expr, bounds: &[Option<Expr>; 3], frame: &Rc<Frame>) -> Res<Value> {
        let value = self.value(of, frame)?;
        let mut found = [Value::None, Value::None, Value::None];
        for (found, bound) in found.iter_mut().zip(bounds) {
            if let Some(bound) = bound {
                *found = self.value(bound, frame)?;
            }
        }
        ops::slice(self, &value, found)
    }

    fn concat(&self, parts: &[Expr], frame: &Rc<Frame>) -> Res<Value> {
        let mut text = String::new();
        for part in parts {
            match self.value(part, frame)? {
                Value::Text(more) => text.push_str(&more),
                other => text.push_str(&print::text_of(self, &other)?),
            }
            self.budget.reserve(text.len())?;
        }
        self.text(text)
    }

    fn compare(&self, first: &Expr, rest: &[(&'static str, Expr)], frame: &Rc<Frame>) -> Res<Value> {
        let mut left = self.value(first, frame)?;
        for (operator, right) in rest {
            let right = self.value(right, frame)?;
            if !ops::compare(self, operator, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// What a call gives; `caller` is the body of a call block.
    ///
    /// # Errors
    /// What the call fails with.
    pub fn called(&self, call: &Expr, caller: Option<Value>, frame: &Rc<Frame>) -> Res<Value> {
        at(call.line, self.budget.deeper(|| self.call_of(&call.node, caller, frame)))
    }

    fn call_of(&self, node: &Node, caller: Option<Value>, frame: &Rc<Frame>) -> Res<Value> {
        let Node::Call(callee, args) = node else { return Err(fail("expected a call")) };
        let callee = self.value(callee, frame)?;
        let mut arguments = self.arguments(args, frame)?;
        arguments.named.extend(caller.map(|caller| (Arc::from("caller"), caller)));
        self.call(&callee, arguments)
    }

    /// A value through a filter.
    ///
    /// # Errors
    /// What the filter fails with.
    pub fn filter(&self, filter: &Named, value: Value, frame: &Rc<Frame>) -> Res<Value> {
        let arguments = self.arguments(&filter.args, frame)?;
        at(filter.line, filters::apply(self, &filter.name, value, arguments))
    }

    fn arguments(&self, args: &Args, frame: &Rc<Frame>) -> Res<Arguments> {
        let mut arguments = Arguments::of(self.values(&args.positional, frame)?);
        for (name, value) in &args.named {
            add(&mut arguments, name.clone(), self.value(value, frame)?)?;
        }
        if let Some(rest) = &args.rest {
            let rest = self.value(rest, frame)?;
            arguments.positional.extend(self.iterated(&rest)?);
        }
        if let Some(rest) = &args.named_rest {
            match self.value(rest, frame)? {
                Value::Dict(dict) => {
                    for (key, value) in &dict.entries {
                        let Value::Text(key) = key else { return Err(fail("the names of arguments are strings")) };
                        add(&mut arguments, key.clone(), value.clone())?;
                    }
                }
                other => return Err(fail(format!("'{}' behind ** is no dictionary", other.type_name()))),
            }
        }
        Ok(arguments)
    }

    /// The entry of a dictionary, if it has one.
    ///
    /// # Errors
    /// For a key that Python does not hash.
    pub fn entry(&self, dict: &Dict, key: &Value) -> Res<Option<Value>> {
        Ok(dict.get(&Key::of(key)?).cloned())
    }
}

fn add(arguments: &mut Arguments, name: Arc<str>, value: Value) -> Res<()> {
    if arguments.named.iter().any(|(given, _)| *given == name) {
        return Err(fail(format!("the argument `{name}` is given twice")));
    }
    arguments.named.push((name, value));
    Ok(())
}
