//! Statements: the tags of a template and the text between them. Expressions are parsed in [`super::expressions`].

use std::sync::Arc;

use super::ast::{Body, Expr, For, Macro, Named, Node, Stmt, StmtNode, Target};
use super::error::{Error, Res, fail_at};
use super::lexer::{Kind, Token, tokens};

/// Tags within tags, and expressions within expressions.
const DEEPEST_NESTING: usize = 100;
/// Words that are values, so that nothing can be put there.
const VALUES: [&str; 6] = ["true", "false", "none", "True", "False", "None"];

/// Parses a template.
///
/// # Errors
/// With the line where it is no Jinja.
pub(super) fn parse(source: &str) -> Res<Body> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, names: Vec::new(), nested: 0, soft: false };
    let body = parser.body(&[])?;
    Ok(body)
}

pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// Every name that was read: a macro looks here for `caller`, `varargs` and `kwargs`.
    pub names: Vec<Arc<str>>,
    pub nested: usize,
    /// Whether what is parsed is asked for only under a condition, so that an unknown filter there is no error yet.
    pub soft: bool,
}

impl Parser {
    pub fn kind(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    pub fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    /// Passes a token; the end of the template is never passed.
    pub fn next(&mut self) -> Kind {
        let kind = self.kind().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }

    pub fn is_operator(&self, operator: &str) -> bool {
        matches!(self.kind(), Kind::Operator(found) if *found == operator)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self.kind(), Kind::Name(found) if found == name)
    }

    /// Whether the token after this one is that.
    pub fn follows(&self, kind: &Kind) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|token| token.kind == *kind)
    }

    pub fn take_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.next();
        }
        found
    }

    pub fn take_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    pub fn expect(&mut self, operator: &str) -> Res<()> {
        if self.take_operator(operator) { Ok(()) } else { Err(self.unexpected(&format!("`{operator}`"))) }
    }

    pub fn name(&mut self) -> Res<Arc<str>> {
        match self.kind() {
            Kind::Name(name) => {
                let name = Arc::from(name.as_str());
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// An error that says what stands here and what was expected.
    pub fn unexpected(&self, expected: &str) -> Error {
        let found = match self.kind() {
            Kind::Data(_) => "text".to_owned(),
            Kind::PrintBegin => "`{{`".to_owned(),
            Kind::PrintEnd => "`}}`".to_owned(),
            Kind::BlockBegin => "`{%`".to_owned(),
            Kind::BlockEnd => "`%}`".to_owned(),
            Kind::Name(name) => format!("`{name}`"),
            Kind::Text(text) => format!("the string {text:?}"),
            Kind::Int(number) => format!("`{number}`"),
            Kind::Float(number) => format!("`{number}`"),
            Kind::Operator(operator) => format!("`{operator}`"),
            Kind::End => "the end of the template".to_owned(),
        };
        fail_at(self.line(), format!("expected {expected}, found {found}"))
    }

    /// Parses one level deeper.
    pub fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        if self.nested == DEEPEST_NESTING {
            return Err(fail_at(self.line(), format!("nested more than {DEEPEST_NESTING} levels deep")));
        }
        self.nested += 1;
        let parsed = parse(self);
        self.nested -= 1;
        parsed
    }

    /// Text and tags as far as a tag of one of these names, which stays; as far as the end where there are none.
    fn body(&mut self, ends: &[&str]) -> Res<Body> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            match self.kind() {
                Kind::End if ends.is_empty() => return Ok(body),
                Kind::Data(text) => {
                    let node = StmtNode::Text(Arc::from(text.as_str()));
                    self.next();
                    body.push(Stmt { line, node });
                }
                Kind::PrintBegin => {
                    self.next();
                    let value = self.tuple_or_one(true)?;
                    if self.next() != Kind::PrintEnd {
                        self.at -= 1;
                        return Err(self.unexpected("`}}`"));
                    }
                    body.push(Stmt { line, node: StmtNode::Print(value) });
                }
                Kind::BlockBegin => {
                    self.next();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body);
                    }
                    self.deeper(|parser| parser.statement(line, &mut body))?;
                }
                _ => return Err(self.unexpected(&format!("a tag `{}`", ends.join("` or `")))),
            }
        }
    }

    /// The end of a tag, and a body as far as one of the names, which is passed and given back.
    fn block(&mut self, ends: &[&str]) -> Res<(Body, Arc<str>)> {
        self.take_operator(":");
        self.block_end()?;
        let body = self.body(ends)?;
        Ok((body, self.name()?))
    }

    /// As [`Self::block`], for the last body of a statement.
    fn last_block(&mut self, end: &str) -> Res<Body> {
        let (body, _) = self.block(&[end])?;
        self.block_end()?;
        Ok(body)
    }

    fn block_end(&mut self) -> Res<()> {
        if *self.kind() != Kind::BlockEnd {
            return Err(self.unexpected("`%}`"));
        }
        self.next();
        Ok(())
    }

    /// Parses with names of its own, where an unknown filter is an error again.
    fn scoped<T>(&mut self, soft: bool, parse: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        let before = std::mem::replace(&mut self.soft, soft);
        let parsed = parse(self);
        self.soft = before;
        parsed
    }

    fn statement(&mut self, line: usize, body: &mut Body) -> Res<()> {
        let tag = self.name()?;
        let node = match &*tag {
            "for" => StmtNode::For(Arc::new(self.scoped(false, Self::for_loop)?)),
            "if" => self.condition()?,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => {
                let name = self.target_name()?;
                StmtNode::Macro(Arc::new(self.macro_of(name, "endmacro")?))
            }
            "call" => self.call_block()?,
            "filter" => {
                let filters = self.filters(false)?;
                StmtNode::FilterBlock(filters, self.scoped(false, |parser| parser.last_block("endfilter"))?)
            }
            "generation" => StmtNode::Scope(self.scoped(false, |parser| parser.last_block("endgeneration"))?),
            "print" => return self.printed(line, body),
            "break" | "continue" => {
                self.block_end()?;
                if &*tag == "break" { StmtNode::Break } else { StmtNode::Continue }
            }
            "block" => self.named_block()?,
            "include" | "import" | "from" | "extends" | "autoescape" => {
                return Err(fail_at(line, format!("the tag `{tag}` has no place in a chat template")));
            }
            _ => return Err(fail_at(line, format!("unknown tag `{tag}`"))),
        };
        body.push(Stmt { line, node });
        Ok(())
    }

    fn printed(&mut self, line: usize, body: &mut Body) -> Res<()> {
        while *self.kind() != Kind::BlockEnd {
            body.push(Stmt { line, node: StmtNode::Print(self.expression()?) });
            if *self.kind() != Kind::BlockEnd {
                self.expect(",")?;
            }
        }
        self.block_end()
    }

    fn for_loop(&mut self) -> Res<For> {
        let target = self.target(false)?;
        if !self.take_name("in") {
            return Err(self.unexpected("`in`"));
        }
        let over = self.tuple_or_one(false)?;
        let only_if = if self.take_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.take_name("recursive");
        let (body, end) = self.block(&["endfor", "else"])?;
        let otherwise = if &*end == "else" {
            self.last_block("endfor")?
        } else {
            self.block_end()?;
            Vec::new()
        };
        Ok(For { target, over, only_if, recursive, body, otherwise })
    }

    fn condition(&mut self) -> Res<StmtNode> {
        let mut branches = Vec::new();
        loop {
            let asked = self.tuple_or_one(false)?;
            let (body, end) = self.scoped(true, |parser| parser.block(&["elif", "else", "endif"]))?;
            branches.push((asked, body));
            match &*end {
                "elif" => {}
                "else" => {
                    let otherwise = self.scoped(true, |parser| parser.last_block("endif"))?;
                    return Ok(StmtNode::If(branches, otherwise));
                }
                _ => {
                    self.block_end()?;
                    return Ok(StmtNode::If(branches, Vec::new()));
                }
            }
        }
    }

    fn set(&mut self) -> Res<StmtNode> {
        let target = self.target(true)?;
        if self.take_operator("=") {
            let value = self.tuple_or_one(true)?;
            self.block_end()?;
            return Ok(StmtNode::Set(target, value));
        }
        let filters = self.filters(true)?;
        Ok(StmtNode::SetBlock(target, filters, self.scoped(false, |parser| parser.last_block("endset"))?))
    }

    fn with(&mut self) -> Res<StmtNode> {
        let mut values = Vec::new();
        while *self.kind() != Kind::BlockEnd {
            if !values.is_empty() {
                self.expect(",")?;
            }
            let target = self.target(false)?;
            self.expect("=")?;
            values.push((target, self.expression()?));
        }
        Ok(StmtNode::With(values, self.scoped(false, |parser| parser.last_block("endwith"))?))
    }

    /// A block that no other template replaces: what stands in it.
    fn named_block(&mut self) -> Res<StmtNode> {
        let name = self.name()?;
        self.take_name("scoped");
        let (body, _) = self.scoped(false, |parser| parser.block(&["endblock"]))?;
        self.take_name(&name);
        self.block_end()?;
        Ok(StmtNode::Scope(body))
    }

    fn call_block(&mut self) -> Res<StmtNode> {
        let parameters = if self.is_operator("(") { self.parameters()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call.node, Node::Call(..)) {
            return Err(fail_at(call.line, "expected a call"));
        }
        let caller = self.macro_body(Arc::from("caller"), parameters, "endcall")?;
        Ok(StmtNode::CallBlock(call, Arc::new(caller)))
    }

    fn macro_of(&mut self, name: Arc<str>, end: &str) -> Res<Macro> {
        let parameters = self.parameters()?;
        self.macro_body(name, parameters, end)
    }

    fn macro_body(&mut self, name: Arc<str>, parameters: Vec<(Arc<str>, Option<Expr>)>, end: &str) -> Res<Macro> {
        let before = self.names.len();
        let body = self.scoped(false, |parser| parser.last_block(end))?;
        let uses = |name: &str| self.names[before..].iter().any(|read| &**read == name);
        let [uses_caller, uses_varargs, uses_kwargs] = ["caller", "varargs", "kwargs"].map(uses);
        Ok(Macro { name, parameters, body, uses_caller, uses_varargs, uses_kwargs })
    }

    fn parameters(&mut self) -> Res<Vec<(Arc<str>, Option<Expr>)>> {
        let mut parameters: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        self.expect("(")?;
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect(",")?;
            }
            let name = self.target_name()?;
            let default = if self.take_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return Err(self.unexpected("a default, as the parameter before has one"));
            }
            parameters.push((name, default));
        }
        self.next();
        Ok(parameters)
    }

    /// The filters of a block; `piped` where each stands behind a `|`, else the first does not.
    fn filters(&mut self, piped: bool) -> Res<Vec<Named>> {
        let mut filters = Vec::new();
        while self.take_operator("|") || !piped && filters.is_empty() {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn target_name(&mut self) -> Res<Arc<str>> {
        let line = self.line();
        let name = self.name()?;
        if VALUES.contains(&&*name) {
            return Err(fail_at(line, format!("nothing can be assigned to `{name}`")));
        }
        Ok(name)
    }

    /// What a value is assigned to: names with commas between, or an attribute of a namespace where it may be one.
    fn target(&mut self, attributes: bool) -> Res<Target> {
        let mut targets = vec![self.one_target(attributes)?];
        let mut many = false;
        while self.take_operator(",") {
            many = true;
            if !matches!(self.kind(), Kind::Name(name) if name != "in") && !self.is_operator("(") {
                break;
            }
            targets.push(self.one_target(attributes)?);
        }
        match targets.pop() {
            Some(only) if !many => Ok(only),
            last => {
                targets.extend(last);
                Ok(Target::Many(targets))
            }
        }
    }

    fn one_target(&mut self, attributes: bool) -> Res<Target> {
        if self.take_operator("(") {
            let target = self.deeper(|parser| parser.target(attributes))?;
            self.expect(")")?;
            return Ok(target);
        }
        let name = self.target_name()?;
        if attributes && self.take_operator(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }
}
