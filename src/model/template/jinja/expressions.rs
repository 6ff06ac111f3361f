//! Expressions, with Jinja's precedence: `~` binds closer than `+`, filters and tests closer than any operator.

use std::sync::Arc;

use super::ast::{Args, Expr, Literal, Named, Node};
use super::error::{Res, fail_at};
use super::lexer::Kind;
use super::parse::Parser;
use super::{checks, filters};

/// Expressions within an expression, operands of a long sum counted one by one.
const DEEPEST_EXPRESSION: usize = 300;

type Parse = fn(&mut Parser) -> Res<Expr>;

impl Parser {
    /// An expression of a node whose parts are at most so deep.
    fn made(&self, line: usize, inner: usize, node: Node) -> Res<Expr> {
        if inner >= DEEPEST_EXPRESSION {
            return Err(fail_at(line, format!("an expression is nested more than {DEEPEST_EXPRESSION} levels deep")));
        }
        Ok(Expr { line, depth: inner + 1, node })
    }

    pub fn expression(&mut self) -> Res<Expr> {
        self.deeper(Self::condition_expression)
    }

    /// Expressions with commas between are a tuple. Without `conditions`, an `if` ends them.
    pub fn tuple_or_one(&mut self, conditions: bool) -> Res<Expr> {
        let line = self.line();
        let parse: Parse = if conditions { Self::expression } else { |parser| parser.deeper(Self::or) };
        let first = parse(self)?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_operator(",") && !self.tuple_ends() {
            parts.push(parse(self)?);
        }
        self.made(line, deepest(&parts), Node::Tuple(parts))
    }

    fn tuple_ends(&self) -> bool {
        matches!(self.kind(), Kind::PrintEnd | Kind::BlockEnd) || self.is_operator(")") || self.is_name("recursive")
    }

    fn condition_expression(&mut self) -> Res<Expr> {
        let line = self.line();
        let mut value = self.or()?;
        while self.take_name("if") {
            let asked = self.or()?;
            let before = std::mem::replace(&mut self.soft, true);
            let otherwise = if self.take_name("else") { Some(Box::new(self.expression()?)) } else { None };
            self.soft = before;
            let inner = value.depth.max(asked.depth).max(otherwise.as_ref().map_or(0, |e| e.depth));
            value = self.made(line, inner, Node::Condition(Box::new([asked, value]), otherwise))?;
        }
        Ok(value)
    }

    fn or(&mut self) -> Res<Expr> {
        let mut left = self.and()?;
        while self.take_name("or") {
            let right = self.and()?;
            let (line, inner) = (left.line, left.depth.max(right.depth));
            left = self.made(line, inner, Node::Or(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Res<Expr> {
        let mut left = self.not()?;
        while self.take_name("and") {
            let right = self.not()?;
            let (line, inner) = (left.line, left.depth.max(right.depth));
            left = self.made(line, inner, Node::And(Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Res<Expr> {
        let line = self.line();
        if !self.take_name("not") {
            return self.compare();
        }
        let inner = self.deeper(Self::not)?;
        self.made(line, inner.depth, Node::Not(Box::new(inner)))
    }

    fn compare(&mut self) -> Res<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        let in_follows = Kind::Name("in".to_owned());
        loop {
            let operator = match self.kind() {
                Kind::Operator(op @ ("==" | "!=" | "<" | "<=" | ">" | ">=")) => *op,
                Kind::Name(name) if name == "in" => "in",
                Kind::Name(name) if name == "not" && self.follows(&in_follows) => {
                    self.next();
                    "not in"
                }
                _ => break,
            };
            self.next();
            rest.push((operator, self.sum()?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let inner = rest.iter().map(|(_, e)| e.depth).fold(first.depth, usize::max);
        self.made(first.line, inner, Node::Compare(Box::new(first), rest))
    }

    /// Operands with operators between that bind alike, from left to right.
    fn chain(&mut self, operators: &[&'static str], operand: Parse) -> Res<Expr> {
        let mut left = operand(self)?;
        while let Some(operator) = operators.iter().find(|operator| self.is_operator(operator)) {
            self.next();
            let right = operand(self)?;
            let (line, inner) = (left.line, left.depth.max(right.depth));
            left = self.made(line, inner, Node::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Res<Expr> {
        self.chain(&["+", "-"], Self::concat)
    }

    fn concat(&mut self) -> Res<Expr> {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let line = first.line;
        let mut parts = vec![first];
        while self.take_operator("~") {
            parts.push(self.product()?);
        }
        self.made(line, deepest(&parts), Node::Concat(parts))
    }

    fn product(&mut self) -> Res<Expr> {
        self.chain(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Res<Expr> {
        self.chain(&["**"], |parser| parser.unary(true))
    }

    fn unary(&mut self, filtered: bool) -> Res<Expr> {
        let line = self.line();
        let mut value = if self.take_operator("-") {
            let inner = self.deeper(|parser| parser.unary(false))?;
            self.made(line, inner.depth, Node::Negative(Box::new(inner)))?
        } else if self.take_operator("+") {
            let inner = self.deeper(|parser| parser.unary(false))?;
            self.made(line, inner.depth, Node::Positive(Box::new(inner)))?
        } else {
            self.primary()?
        };
        value = self.postfix(value)?;
        if filtered { self.filtered(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Res<Expr> {
        let line = self.line();
        let node = match self.kind().clone() {
            Kind::Name(name) => {
                self.next();
                self.word(&name)
            }
            Kind::Text(mut text) => {
                self.next();
                while let Kind::Text(more) = self.kind() {
                    text.push_str(more);
                    self.next();
                }
                Node::Literal(Literal::Text(Arc::from(text)))
            }
            Kind::Int(number) => {
                self.next();
                Node::Literal(Literal::Int(number))
            }
            Kind::Float(number) => {
                self.next();
                Node::Literal(Literal::Float(number))
            }
            Kind::Operator("(") => {
                self.next();
                if self.take_operator(")") {
                    return self.made(line, 0, Node::Tuple(Vec::new()));
                }
                let inner = self.tuple_or_one(true)?;
                self.expect(")")?;
                return Ok(inner);
            }
            Kind::Operator("[") => return self.list(line),
            Kind::Operator("{") => return self.dict(line),
            _ => return Err(self.unexpected("an expression")),
        };
        self.made(line, 0, node)
    }

    fn word(&mut self, name: &str) -> Node {
        match name {
            "true" | "True" => Node::Literal(Literal::Bool(true)),
            "false" | "False" => Node::Literal(Literal::Bool(false)),
            "none" | "None" => Node::Literal(Literal::None),
            _ => {
                let name: Arc<str> = Arc::from(name);
                self.names.push(name.clone());
                Node::Name(name)
            }
        }
    }

    fn list(&mut self, line: usize) -> Res<Expr> {
        self.next();
        let mut items = Vec::new();
        while !self.is_operator("]") {
            items.push(self.expression()?);
            if !self.is_operator("]") {
                self.expect(",")?;
            }
        }
        self.next();
        self.made(line, deepest(&items), Node::List(items))
    }

    fn dict(&mut self, line: usize) -> Res<Expr> {
        self.next();
        let (mut entries, mut inner) = (Vec::new(), 0);
        while !self.is_operator("}") {
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            inner = inner.max(key.depth).max(value.depth);
            entries.push((key, value));
            if !self.is_operator("}") {
                self.expect(",")?;
            }
        }
        self.next();
        self.made(line, inner, Node::Dict(entries))
    }

    fn postfix(&mut self, mut value: Expr) -> Res<Expr> {
        loop {
            let line = self.line();
            value = match self.kind() {
                Kind::Operator(".") => self.attribute(value)?,
                Kind::Operator("[") => self.subscript(value)?,
                Kind::Operator("(") => self.call(line, value)?,
                _ => return Ok(value),
            };
        }
    }

    fn filtered(&mut self, mut value: Expr) -> Res<Expr> {
        loop {
            let line = self.line();
            if self.take_operator("|") {
                let filter = self.filter()?;
                let inner = value.depth.max(depth_of(&filter.args));
                value = self.made(line, inner, Node::Filter(Box::new(value), filter))?;
            } else if self.take_name("is") {
                value = self.test(line, value)?;
            } else if self.is_operator("(") {
                value = self.call(line, value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn call(&mut self, line: usize, value: Expr) -> Res<Expr> {
        let args = self.arguments()?;
        let inner = value.depth.max(depth_of(&args));
        self.made(line, inner, Node::Call(Box::new(value), args))
    }

    fn attribute(&mut self, value: Expr) -> Res<Expr> {
        let line = self.line();
        self.next();
        let inner = value.depth;
        if let Kind::Int(number) = *self.kind() {
            self.next();
            let index = self.made(line, 0, Node::Literal(Literal::Int(number)))?;
            return self.made(line, inner, Node::Item(Box::new(value), Box::new(index)));
        }
        let name = self.name()?;
        self.made(line, inner, Node::Attribute(Box::new(value), name))
    }

    fn subscript(&mut self, value: Expr) -> Res<Expr> {
        let line = self.line();
        self.next();
        let start = if self.is_operator(":") { None } else { Some(self.expression()?) };
        if !self.is_operator(":") {
            return self.item(line, value, start);
        }
        let mut parts = [start, None, None];
        for part in &mut parts[1..] {
            if !self.take_operator(":") {
                break;
            }
            if !self.is_operator("]") && !self.is_operator(":") {
                *part = Some(self.expression()?);
            }
        }
        self.expect("]")?;
        let inner = parts.iter().flatten().map(|e| e.depth).fold(value.depth, usize::max);
        self.made(line, inner, Node::Slice(Box::new(value), Box::new(parts)))
    }

    /// An item by its key, which is a tuple where there are commas.
    fn item(&mut self, line: usize, value: Expr, first: Option<Expr>) -> Res<Expr> {
        let Some(first) = first else { return Err(self.unexpected("an expression")) };
        let mut keys = vec![first];
        while self.take_operator(",") {
            keys.push(self.expression()?);
        }
        self.expect("]")?;
        let key = match keys.pop() {
            Some(only) if keys.is_empty() => only,
            last => {
                keys.extend(last);
                self.made(line, deepest(&keys), Node::Tuple(keys))?
            }
        };
        let inner = value.depth.max(key.depth);
        self.made(line, inner, Node::Item(Box::new(value), Box::new(key)))
    }

    pub fn arguments(&mut self) -> Res<Args> {
        let line = self.line();
        self.expect("(")?;
        let mut args = Args::default();
        while !self.is_operator(")") {
            if self.take_operator("*") {
                let sole = args.rest.is_none() && args.named_rest.is_none();
                args.rest = Some(Box::new(self.expression()?)).filter(|_| sole);
                if !sole {
                    return Err(fail_at(line, "the arguments are out of order"));
                }
            } else if self.take_operator("**") {
                args.named_rest = Some(Box::new(self.expression()?));
            } else if matches!(self.kind(), Kind::Name(_)) && self.follows(&Kind::Operator("=")) {
                let name = self.name()?;
                self.next();
                args.named.push((name, self.expression()?));
            } else if args.rest.is_some() || args.named_rest.is_some() || !args.named.is_empty() {
                return Err(fail_at(line, "a positional argument follows a named one"));
            } else {
                args.positional.push(self.expression()?);
            }
            if !self.is_operator(")") {
                self.expect(",")?;
            }
        }
        self.next();
        Ok(args)
    }

    /// A filter's name and arguments. One that is not known is an error here, unless it may never be asked for.
    pub fn filter(&mut self) -> Res<Named> {
        let line = self.line();
        let name = self.dotted()?;
        if !self.soft && !filters::is_known(&name) {
            return Err(fail_at(line, format!("there is no filter `{name}`")));
        }
        let args = if self.is_operator("(") { self.arguments()? } else { Args::default() };
        Ok(Named { line, name, args })
    }

    fn dotted(&mut self) -> Res<Arc<str>> {
        let mut name = self.name()?.to_string();
        while self.take_operator(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(Arc::from(name))
    }

    fn test(&mut self, line: usize, value: Expr) -> Res<Expr> {
        let negated = self.take_name("not");
        let name = self.dotted()?;
        if !self.soft && !checks::is_known(&name) {
            return Err(fail_at(line, format!("there is no test `{name}`")));
        }
        let mut args = Args::default();
        if self.is_operator("(") {
            args = self.arguments()?;
        } else if self.operand_follows() {
            if self.is_name("is") {
                return Err(fail_at(line, "tests cannot be chained with `is`"));
            }
            let operand = self.primary()?;
            args.positional.push(self.postfix(operand)?);
        }
        let inner = value.depth.max(depth_of(&args));
        let test = self.made(line, inner, Node::Test(Box::new(value), Named { line, name, args }))?;
        if !negated {
            return Ok(test);
        }
        self.made(line, test.depth, Node::Not(Box::new(test)))
    }

    /// Whether an argument of a test stands here without parentheses.
    fn operand_follows(&self) -> bool {
        match self.kind() {
            Kind::Name(name) => !["else", "or", "and"].contains(&name.as_str()),
            Kind::Text(_) | Kind::Int(_) | Kind::Float(_) => true,
            _ => self.is_operator("[") || self.is_operator("{"),
        }
    }
}

fn deepest(parts: &[Expr]) -> usize {
    parts.iter().map(|part| part.depth).max().unwrap_or(0)
}

fn depth_of(args: &Args) -> usize {
    let named = args.named.iter().map(|(_, value)| value.depth);
    let rest = [&args.rest, &args.named_rest].into_iter().flatten().map(|value| value.depth);
    args.positional.iter().map(|value| value.depth).chain(named).chain(rest).max().unwrap_or(0)
}
