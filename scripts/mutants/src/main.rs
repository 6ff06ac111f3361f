//! `gatelens-mutants ROOT DROPPED LIST FILE...` rewrites Rust files under ROOT so that each of many mutations can be switched on
//! in one build: `a < b` becomes `crate::switch::lt(17, &(a), &(b))`. LIST gets a line of JSON for each mutation; places whose key is
//! in DROPPED are left as they are.
//!
//! The mutations are those of cargo-mutants: other operators, conditions of match arms, negations, and bodies of functions.
use quote::ToTokens;
use std::collections::HashSet;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Arm, Attribute, BinOp, Block, Expr, ExprBinary, ExprUnary, ImplItemFn, ItemFn, ItemMod, ReturnType, Signature,
    Type, UnOp,
};

/// Text that goes in at a place, in place of `len` bytes.
struct Edit {
    at: usize,
    len: usize,
    text: String,
    /// Closings come first, inner before outer; openings last, outer before inner.
    order: i64,
}

struct Rewriter {
    text: String,
    file: String,
    dropped: HashSet<String>,
    next: usize,
    edits: Vec<Edit>,
    list: Vec<serde_json::Value>,
    function: String,
}

impl Rewriter {
    /// The number of the first of a place's mutations; none if it is to be left.
    fn place(&mut self, kind: &str, span: Range<usize>, to: &[String]) -> Option<usize> {
        let key = format!("{}:{}..{}:{kind}", self.file, span.start, span.end);
        if self.dropped.contains(&key) {
            return None;
        }
        let first = self.next;
        self.next += to.len();
        let line = self.text[..span.start].matches('\n').count() + 1;
        let what: String = self.text[span].split_whitespace().collect::<Vec<_>>().join(" ").chars().take(100).collect();
        for (i, to) in to.iter().enumerate() {
            self.list.push(serde_json::json!({
                "id": first + i, "place": first, "key": key, "file": self.file, "line": line, "function": self.function,
                "what": what, "to": to,
            }));
        }
        Some(first)
    }

    fn edit(&mut self, at: usize, len: usize, text: impl Into<String>, order: i64) {
        self.edits.push(Edit { at, len, text: text.into(), order });
    }

    fn open(&mut self, at: usize, text: impl Into<String>) {
        self.edit(at, 0, text, 1 + self.edits.len() as i64);
    }

    fn close(&mut self, at: usize, text: impl Into<String>) {
        self.edit(at, 0, text, self.edits.len() as i64 - i64::MAX);
    }

    fn replace(&mut self, span: Range<usize>, text: &str) {
        self.edit(span.start, span.len(), text, 0);
    }

    fn body(&mut self, signature: &Signature, block: &Block) {
        let values = match &signature.output {
            ReturnType::Default => vec!["()".to_string()],
            ReturnType::Type(_, of) => values(of),
        };
        let (name, start) = (signature.ident.span().byte_range(), block.brace_token.span.open().byte_range().end);
        for value in values.iter().filter(|_| !block.stmts.is_empty()) {
            let to = [format!("returns {value}")];
            if let Some(id) = self.place(&format!("body {value}"), name.clone(), &to) {
                self.open(start, format!(" if crate::switch::on({id}) {{ return {value}; }} "));
            }
        }
    }

    fn function(
        &mut self,
        (attributes, signature, block): (&[Attribute], &Signature, &Block),
        walk: impl FnOnce(&mut Self),
    ) {
        if signature.constness.is_some() || of_tests(attributes) {
            return;
        }
        let outer = std::mem::replace(&mut self.function, signature.ident.to_string());
        self.body(signature, block);
        walk(self);
        self.function = outer;
    }

    fn rewritten(mut self) -> (String, Vec<serde_json::Value>) {
        self.edits.sort_by_key(|edit| (edit.at, edit.order));
        let (mut out, mut at) = (String::new(), 0);
        for edit in &self.edits {
            out.push_str(&self.text[at.min(edit.at)..edit.at]);
            out.push_str(&edit.text);
            at = at.max(edit.at + edit.len);
        }
        out.push_str(&self.text[at..]);
        (out, self.list)
    }
}

/// Values that a function of this type might return instead; such as do not compile are dropped later.
fn values(of: &Type) -> Vec<String> {
    let name = of.to_token_stream().to_string().replace(' ', "");
    let within = |of: &str| syn::parse_str::<Type>(of).map_or(Vec::new(), |of| values(&of));
    let argument = |of: &str| name.strip_prefix(of).and_then(|rest| rest.strip_suffix('>')).map(str::to_string);
    let list = |values: &[&str]| values.iter().map(|value| value.to_string()).collect();
    match name.as_str() {
        "bool" => list(&["true", "false"]),
        "usize" | "u64" | "u32" | "i64" | "i32" | "u8" => list(&["0", "1"]),
        "f64" | "f32" => list(&["0.0", "1.0", "-1.0"]),
        "String" => list(&["String::new()", "\"xyzzy\".to_string()"]),
        "()" => list(&["()"]),
        _ if name.starts_with("impl") || name.starts_with('&') || name == "Self" || name == "!" => Vec::new(),
        _ => {
            if let Some(some) = argument("Option<") {
                let some = within(&some).into_iter().map(|value| format!("Some({value})"));
                return std::iter::once("None".to_string()).chain(some).collect();
            }
            if let Some(item) = argument("Vec<") {
                let one = within(&item).into_iter().take(2).map(|value| format!("vec![{value}]"));
                return std::iter::once("Vec::new()".to_string()).chain(one).collect();
            }
            if let Some(arguments) = argument("Result<") {
                let mut depth = 0;
                let comma = arguments.find(|c| {
                    depth += i32::from("<([".contains(c)) - i32::from(">)]".contains(c));
                    c == ',' && depth == 0
                });
                let ok = within(&arguments[..comma.unwrap_or(arguments.len())]);
                return ok.into_iter().map(|value| format!("Ok({value})")).collect();
            }
            list(&["Default::default()"])
        }
    }
}

fn of_tests(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .map(|a| a.to_token_stream().to_string().replace(' ', ""))
        .any(|a| a.contains("cfg(test)") || a == "#[test]")
}

/// Whether an expression is part of a chain with `let`, which no function can take.
fn has_let(e: &Expr) -> bool {
    match e {
        Expr::Let(_) => true,
        Expr::Binary(both) => has_let(&both.left) || has_let(&both.right),
        Expr::Paren(within) => has_let(&within.expr),
        _ => false,
    }
}

impl<'a> Visit<'a> for Rewriter {
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !of_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    // What is constant cannot ask.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'a syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}
    fn visit_type(&mut self, _: &'a Type) {}
    fn visit_pat(&mut self, _: &'a syn::Pat) {}
    fn visit_generic_argument(&mut self, _: &'a syn::GenericArgument) {}
    fn visit_expr_repeat(&mut self, e: &'a syn::ExprRepeat) {
        self.visit_expr(&e.expr);
    }

    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        self.function((&item.attrs, &item.sig, &item.block), |own| visit::visit_item_fn(own, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        self.function((&item.attrs, &item.sig, &item.block), |own| visit::visit_impl_item_fn(own, item));
    }

    fn visit_arm(&mut self, arm: &'a Arm) {
        if let Some((_, guard)) = &arm.guard {
            let span = guard.span().byte_range();
            let to = ["always".to_string(), "never".to_string()];
            let id = if has_let(guard) { None } else { self.place("guard", span.clone(), &to) };
            id.iter().for_each(|id| self.open(span.start, format!("crate::switch::guard({id}, ")));
            self.visit_expr(guard);
            id.iter().for_each(|_| self.close(span.end, ")"));
        }
        self.visit_expr(&arm.body);
    }

    fn visit_expr_unary(&mut self, e: &'a ExprUnary) {
        let name = match e.op {
            UnOp::Not(_) => "not",
            UnOp::Neg(_) if !matches!(&*e.expr, Expr::Lit(_)) => "neg",
            _ => return visit::visit_expr_unary(self, e),
        };
        let span = e.span().byte_range();
        let Some(id) = self.place(name, span.clone(), &["left out".to_string()]) else {
            return visit::visit_expr_unary(self, e);
        };
        self.open(span.start, format!("crate::switch::{name}({id}, "));
        self.replace(e.op.span().byte_range(), "");
        self.visit_expr(&e.expr);
        self.close(span.end, ")");
    }

    fn visit_expr_binary(&mut self, e: &'a ExprBinary) {
        let (name, to): (&str, &[&str]) = match e.op {
            BinOp::Add(_) => ("add", &["-", "*"]),
            BinOp::Sub(_) => ("sub", &["+", "/"]),
            BinOp::Mul(_) => ("mul", &["+", "/"]),
            BinOp::Div(_) => ("div", &["%", "*"]),
            BinOp::Rem(_) => ("rem", &["/", "+"]),
            BinOp::Lt(_) => ("lt", &["==", ">", "<="]),
            BinOp::Gt(_) => ("gt", &["==", "<", ">="]),
            BinOp::Le(_) => ("le", &[">"]),
            BinOp::Ge(_) => ("ge", &["<"]),
            BinOp::Eq(_) => ("eq", &["!="]),
            BinOp::Ne(_) => ("ne", &["=="]),
            BinOp::And(_) => ("and", &["||"]),
            BinOp::Or(_) => ("or", &["&&"]),
            BinOp::AddAssign(_) => ("add_assign", &["-=", "*="]),
            BinOp::SubAssign(_) => ("sub_assign", &["+=", "/="]),
            BinOp::MulAssign(_) => ("mul_assign", &["+=", "/="]),
            BinOp::DivAssign(_) => ("div_assign", &["%=", "*="]),
            _ => return visit::visit_expr_binary(self, e),
        };
        let to: Vec<String> = to.iter().map(|to| format!("{} becomes {to}", e.op.to_token_stream())).collect();
        let id =
            if has_let(&e.left) || has_let(&e.right) { None } else { self.place(name, e.span().byte_range(), &to) };
        let Some(id) = id else { return visit::visit_expr_binary(self, e) };
        let (before, between, after) = match name {
            // What is on the right is computed only where it counts, whichever of both it is.
            "and" | "or" => {
                let is_and = name == "and";
                let before = format!("(match (crate::switch::on({id}) == {is_and}, ");
                (before, ") { (false, false) => false, (true, true) => true, _ => ", "})")
            }
            // The right side is computed before the left is borrowed.
            _ if name.ends_with("assign") => (format!("crate::switch::{name}({id}, &mut ("), "), ", ")"),
            "lt" | "gt" | "le" | "ge" | "eq" | "ne" => (format!("crate::switch::{name}({id}, &("), "), &(", "))"),
            _ => (format!("crate::switch::{name}({id}, "), ", ", ")"),
        };
        self.open(e.left.span().byte_range().start, before);
        self.visit_expr(&e.left);
        self.replace(e.op.span().byte_range(), between);
        self.visit_expr(&e.right);
        self.close(e.right.span().byte_range().end, after);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, dropped, list, files @ ..] = arguments.as_slice() else {
        return Err("gatelens-mutants ROOT DROPPED LIST FILE...".into());
    };
    let dropped: HashSet<String> =
        std::fs::read_to_string(dropped).unwrap_or_default().lines().map(str::to_string).collect();
    let (mut next, mut lines) = (1, String::new());
    for file in files {
        let path = format!("{root}/{file}");
        let text = std::fs::read_to_string(&path)?;
        let (edits, found, function) = Default::default();
        let mut rewriter = Rewriter {
            file: file.clone(),
            dropped: dropped.clone(),
            next,
            edits,
            list: found,
            function,
            text: text.clone(),
        };
        rewriter.visit_file(&syn::parse_file(&text)?);
        next = rewriter.next;
        let (text, found) = rewriter.rewritten();
        std::fs::write(&path, text)?;
        found.iter().for_each(|mutation| lines += &format!("{mutation}\n"));
    }
    Ok(std::fs::write(list, lines)?)
}
