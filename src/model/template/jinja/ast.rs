//! What a template is parsed into.

use std::sync::Arc;

/// An expression and where it begins.
#[derive(Debug)]
pub(super) struct Expr {
    /// From 1.
    pub line: usize,
    /// How many expressions are nested in it, itself counted.
    pub depth: usize,
    pub node: Node,
}

/// A value that the template writes out.
#[derive(Debug, Clone)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
}

#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    /// Start, stop and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Args),
    Filter(Box<Expr>, Named),
    Test(Box<Expr>, Named),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// Texts put together by `~`.
    Concat(Vec<Expr>),
    /// `a < b <= c`: each operator with what follows it.
    Compare(Box<Expr>, Vec<(&'static str, Expr)>),
    /// What is asked, the value if so, and the value if not.
    Condition(Box<[Expr; 2]>, Option<Box<Expr>>),
}

/// A filter or a test: its name and its arguments.
#[derive(Debug)]
pub(super) struct Named {
    pub line: usize,
    pub name: Arc<str>,
    pub args: Args,
}

/// The arguments of a call, of a filter or of a test.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    /// Behind `*`.
    pub rest: Option<Box<Expr>>,
    /// Behind `**`.
    pub named_rest: Option<Box<Expr>>,
}

/// Where a value is put.
#[derive(Debug)]
pub(super) enum Target {
    Name(Arc<str>),
    /// An attribute of a namespace.
    Attribute(Arc<str>, Arc<str>),
    Many(Vec<Target>),
}

pub(super) type Body = Vec<Stmt>;

/// A statement and where it begins.
#[derive(Debug)]
pub(super) struct Stmt {
    pub line: usize,
    pub node: StmtNode,
}

#[derive(Debug)]
pub(super) enum StmtNode {
    Text(Arc<str>),
    Print(Expr),
    For(Arc<For>),
    If(Vec<(Expr, Body)>, Body),
    Set(Target, Expr),
    /// The filters go over what the body writes.
    SetBlock(Target, Vec<Named>, Body),
    With(Vec<(Target, Expr)>, Body),
    Macro(Arc<Macro>),
    /// A call, and the body that it can call as `caller`.
    CallBlock(Expr, Arc<Macro>),
    FilterBlock(Vec<Named>, Body),
    /// A body with names of its own: `generation` and `block`.
    Scope(Body),
    Break,
    Continue,
}

/// A loop.
#[derive(Debug)]
pub(super) struct For {
    pub target: Target,
    pub over: Expr,
    pub only_if: Option<Expr>,
    pub recursive: bool,
    pub body: Body,
    pub otherwise: Body,
}

/// A macro, or the body of a call block.
#[derive(Debug)]
pub(super) struct Macro {
    pub name: Arc<str>,
    pub parameters: Vec<(Arc<str>, Option<Expr>)>,
    pub body: Body,
    pub uses_caller: bool,
    pub uses_varargs: bool,
    pub uses_kwargs: bool,
}
