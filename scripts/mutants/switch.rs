//! The switches that a rewritten source asks: `MUTANT=N` makes the mutation of that number; `MUTANTS_REACHED=FILE` lists the switches
//! that a process passed. Put into a copy of the library by `scripts/mutants.py`.
#![allow(missing_docs)]
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Not, Rem, RemAssign, Sub, SubAssign};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

static CHOSEN: LazyLock<usize> =
    LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
static LIST: LazyLock<Option<std::path::PathBuf>> =
    LazyLock::new(|| std::env::var_os("MUTANTS_REACHED").map(Into::into));
static PASSED: [AtomicBool; 16384] = [const { AtomicBool::new(false) }; 16384];

fn passed(id: usize) {
    if let Some(path) = &*LIST
        && !PASSED[id].load(Ordering::Relaxed)
        && !PASSED[id].swap(true, Ordering::Relaxed)
    {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{id}\n").as_bytes()));
    }
}

/// Whether this mutation is the one.
pub fn on(id: usize) -> bool {
    passed(id);
    *CHOSEN == id
}

/// Which of `n` mutations of one place it is, from 1; 0 if it is none of them.
fn which(id: usize, n: usize) -> usize {
    passed(id);
    if (id..id + n).contains(&*CHOSEN) { *CHOSEN - id + 1 } else { 0 }
}

pub fn guard(id: usize, holds: bool) -> bool {
    match which(id, 2) {
        1 => true,
        2 => false,
        _ => holds,
    }
}

pub fn not<T: Not<Output = T>>(id: usize, x: T) -> T {
    if on(id) { x } else { !x }
}

pub fn neg<T: Neg<Output = T>>(id: usize, x: T) -> T {
    if on(id) { x } else { -x }
}

macro_rules! comparison {
    ($($name:ident: $Trait:ident, $is:tt [$($to:tt)*];)*) => {
        $(
            pub fn $name<A: $Trait<B> + ?Sized, B: ?Sized>(id: usize, a: &A, b: &B) -> bool {
                let others: &[fn(&A, &B) -> bool] = &[$(|a, b| a $to b),*];
                match which(id, others.len()) {
                    0 => a $is b,
                    n => others[n - 1](a, b),
                }
            }
        )*
    };
}

comparison! {
    lt: PartialOrd, < [== > <=];
    gt: PartialOrd, > [== < >=];
    le: PartialOrd, <= [>];
    ge: PartialOrd, >= [<];
    eq: PartialEq, == [!=];
    ne: PartialEq, != [==];
}

macro_rules! arithmetic {
    ($($name:ident: $Is:ident $is:tt, $A:ident $a:tt, $B:ident $b:tt;)*) => {
        $(
            pub fn $name<X, Y, Z>(id: usize, x: X, y: Y) -> Z
            where
                X: $Is<Y, Output = Z> + $A<Y, Output = Z> + $B<Y, Output = Z>,
            {
                match which(id, 2) {
                    1 => x $a y,
                    2 => x $b y,
                    _ => x $is y,
                }
            }
        )*
    };
}

arithmetic! {
    add: Add +, Sub -, Mul *;
    sub: Sub -, Add +, Div /;
    mul: Mul *, Add +, Div /;
    div: Div /, Rem %, Mul *;
    rem: Rem %, Div /, Add +;
}

macro_rules! assignment {
    ($($name:ident: $Is:ident $is:tt, $A:ident $a:tt, $B:ident $b:tt;)*) => {
        $(
            pub fn $name<X: $Is<Y> + $A<Y> + $B<Y>, Y>(id: usize, x: &mut X, y: Y) {
                match which(id, 2) {
                    1 => *x $a y,
                    2 => *x $b y,
                    _ => *x $is y,
                }
            }
        )*
    };
}

assignment! {
    add_assign: AddAssign +=, SubAssign -=, MulAssign *=;
    sub_assign: SubAssign -=, AddAssign +=, DivAssign /=;
    mul_assign: MulAssign *=, AddAssign +=, DivAssign /=;
    div_assign: DivAssign /=, RemAssign %=, MulAssign *=;
}
