//! Gradients of the operations, in both of their forms, held to finite differences.

use super::attention::{Heads, attention, opened};
use super::norm::NormBy;
use super::rows::{Rows, Span};
use super::{Activation, NormKind, XIelu};
use super::{RowChange, RowEdit, edit, elementwise, norm, rope};
use candle_core::{DType, Device, Result, Tensor, Var};
use std::ops::Range;

/// Numbers between -1 and 1 that a seed decides.
fn random(shape: (usize, usize), seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(2) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    // The first few are near each other whatever the seed.
    let values: Vec<f32> = (0..shape.0 * shape.1 + 7).map(|_| next()).skip(7).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The inner product with fixed weights, in f64.
fn reduced(y: &Tensor, weights: &[f32]) -> Result<f64> {
    Ok(super::to_vec(y)?.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
}

/// Holds the gradient of a weighted sum of `f(x)` to its differences along every number of `x`.
///
/// Differences are Richardson's, `(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h`, whose error falls with the fourth power of
/// `h`: with steps of 0.02 what is left is the rounding of f32, about 1e-4 of what is compared; a wrong factor is more.
#[track_caller]
fn hold(what: &str, x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
    let var = Var::from_tensor(x)?;
    let y = f(&var)?;
    let weights = super::to_vec(&random((1, y.elem_count()), 99)?)?;
    let loss = (&y * Tensor::from_vec(weights.clone(), y.shape(), y.device())?)?.sum_all()?;
    let grads = loss.backward()?;
    let found = super::to_vec(grads.get(&var).unwrap_or_else(|| panic!("{what}: the gradient is missing")))?;
    let values = super::to_vec(x)?;
    let h = 0.02f32;
    for i in 0..values.len() {
        let at = |steps: f32| -> Result<f64> {
            let mut moved = values.clone();
            moved[i] += steps * h;
            reduced(&f(&Tensor::from_vec(moved, x.shape(), x.device())?)?, &weights)
        };
        let slope = (8.0 * (at(1.0)? - at(-1.0)?) - (at(2.0)? - at(-2.0)?)) / (12.0 * f64::from(h));
        let off = (f64::from(found[i]) - slope).abs();
        assert!(off < 3e-4 + 3e-4 * slope.abs(), "{what}: number {i} is {}, not {slope}", found[i]);
    }
    Ok(())
}

#[test]
fn activations_and_their_products() -> Result<()> {
    // Numbers on both sides of 0, none so near that a step of a ReLU's difference crosses it.
    let x = (random((3, 11), 1)? * 3.0)?;
    let x = (&x + (x.ge(0f32)?.to_dtype(DType::F32)? - 0.5)?)?;
    let y = random((3, 11), 2)?;
    let xielu = Activation::XIelu(XIelu { positive: 0.8, negative: 1.1, beta: 0.5, eps: -1e-6 });
    for f in [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::SquaredRelu,
        Activation::Sigmoid,
        xielu,
    ] {
        hold(&format!("{f:?}"), &x, |x| elementwise::activate(x, f))?;
        hold(&format!("{f:?} composed"), &x, |x| elementwise::composed(x, f))?;
        hold(&format!("gated {f:?}, by the gate"), &x, |x| elementwise::activate_gate(x, &y, f))?;
        hold(&format!("gated {f:?}, by the other"), &y, |y| elementwise::activate_gate(&x, y, f))?;
    }
    hold("soft cap", &x, |x| elementwise::softcap(x, 1.5))
}

#[test]
fn sums() -> Result<()> {
    let (x, y, bias) = (random((3, 5), 1)?, random((3, 5), 2)?, random((1, 5), 3)?.get(0)?);
    hold("sum, by the first", &x, |x| elementwise::add(x, &y))?;
    hold("sum, by the second", &y, |y| elementwise::add(&x, y))?;
    hold("sum with itself", &x, |x| elementwise::add(x, x))?;
    hold("bias", &x, |x| elementwise::add_bias(x, &bias))
}

#[test]
fn norms() -> Result<()> {
    // A weight as wide as the row, as wide as a head, and one a head.
    for (width, wide, group) in [(13, 13, 13), (24, 8, 8), (24, 24, 8)] {
        let x = random((4, width), 5)?.affine(2.0, 0.3)?;
        let (w, b) = ((random((1, wide), 6)?.get(0)? + 1.0)?, random((1, wide), 7)?.get(0)?);
        for kind in [NormKind::Rms, NormKind::Layer] {
            let by = NormBy { kind, eps: 1e-5, group };
            hold(&format!("{by:?}"), &x, |x| norm::norm(x, &w, Some(&b), by))?;
            hold(&format!("{by:?} composed"), &x, |x| norm::composed(x, &w, Some(&b), by))?;
        }
    }
    Ok(())
}

#[test]
fn rotations() -> Result<()> {
    for (d_head, half) in [(6, 3), (7, 2), (2, 1)] {
        let (x, cos, sin) = (random((4, 3 * d_head), 1)?, random((5, half), 2)?, random((5, half), 3)?);
        let entries = [4, 0, 0, 2];
        hold("rotation", &x, |x| rope::rotate(x, d_head, &cos, &sin, &entries))?;
        hold("rotation composed", &x, |x| rope::composed(x, d_head, &cos, &sin, &entries))?;
    }
    Ok(())
}

#[test]
fn products() -> Result<()> {
    for (rows, width, out) in [(1, 6, 4), (3, 9, 70), (66, 3, 5)] {
        let weight = super::Weight::new(&random((out, width), 2)?)?;
        hold("product", &random((rows, width), 1)?, |x| weight.product(x))?;
    }
    Ok(())
}

#[test]
fn edits() -> Result<()> {
    let one =
        |row: usize, columns: &[Range<usize>], change: RowChange| RowEdit { row, columns: columns.into(), change };
    let vector: std::sync::Arc<[f32]> = vec![0.5, -1.0, 2.0].into();
    // The step of the differences stays on its side of the clamps' edges.
    let x = ((random((3, 6), 4)? * 20.0)?.round()? / 10.0)?;
    let edits = [
        one(0, &[0..2], RowChange::Zero),
        one(0, &[1..4], RowChange::Add(vector.clone(), 0.7)),
        one(1, &[0..1, 4..6], RowChange::ProjectOut(vector.clone())),
        one(1, &[2..4], RowChange::Scale(-1.5)),
        one(1, &[0..6], RowChange::Clamp(-0.93, 1.07)),
        one(2, &[1..5], RowChange::Clamp(-0.55, 0.55)),
        one(2, &[0..3], RowChange::Set(vector)),
    ];
    hold("edits", &x, |x| edit(x, &edits))
}

#[test]
fn a_copied_row_is_a_constant_and_a_function_has_no_known_derivative() -> Result<()> {
    let x = Var::from_tensor(&random((3, 4), 4)?)?;
    let gradient = |change: RowChange| -> Result<Vec<Vec<f32>>> {
        let y = edit(&x, &[RowEdit { row: 1, columns: vec![0..3].into(), change }])?;
        y.sum_all()?.backward()?.get(&x).expect("a gradient").to_vec2()
    };
    assert_eq!(gradient(RowChange::CopyRow(0))?, [[1.0; 4], [0.0, 0.0, 0.0, 1.0], [1.0; 4]]);
    let mapped = gradient(RowChange::Map(std::sync::Arc::new(|_: &mut [f32]| ())))?;
    assert!(mapped[1][..3].iter().all(|g| g.is_nan()));
    assert_eq!((mapped[0][0], mapped[1][3]), (1.0, 1.0));
    Ok(())
}

/// Prompts of these lengths, one after another.
fn prompts(lengths: &[usize]) -> Rows {
    let mut at = 0;
    let mut span = |n: &usize| {
        at += n;
        Span::new(at - n..at, 0, Vec::new())
    };
    let spans: Vec<Span> = lengths.iter().map(&mut span).collect();
    Rows { spans, entries: vec![0; lengths.iter().sum()] }
}

/// Attention of every span step by step.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor, rows: &Rows, heads: Heads) -> Result<Tensor> {
    let z = |span: &Span| opened::z(&opened::pattern(&opened::scores(q, k, span, heads)?)?, v, span, heads);
    Tensor::cat(&rows.spans.iter().map(z).collect::<Result<Vec<_>>>()?, 0)
}

#[test]
fn attention_of_several_prompts() -> Result<()> {
    let rows = prompts(&[5, 1, 3]);
    for (n_heads, n_kv_heads, d_head, softcap, window) in
        [(2, 2, 3, None, None), (4, 2, 2, Some(1.5), Some(2)), (3, 1, 4, None, Some(3)), (2, 1, 3, Some(2.0), None)]
    {
        let heads = Heads { n_heads, n_kv_heads, d_head, scale: 0.7, softcap, window, ..Heads::default() };
        let input = |n: usize, seed: u64| random((9, n * d_head), seed)? * 1.5;
        let (q, k, v) = (input(n_heads, 1)?, input(n_kv_heads, 2)?, input(n_kv_heads, 3)?);
        for (form, f) in [("kernel", attention as fn(&_, &_, &_, &_, _) -> _), ("composed", composed)] {
            hold(&format!("{form} by q, {heads:?}"), &q, |q| f(q, &k, &v, &rows, heads))?;
            hold(&format!("{form} by k, {heads:?}"), &k, |k| f(&q, k, &v, &rows, heads))?;
            hold(&format!("{form} by v, {heads:?}"), &v, |v| f(&q, &k, v, &rows, heads))?;
        }
    }
    Ok(())
}

#[test]
fn attention_of_a_prompt_longer_than_a_task_holds() -> Result<()> {
    let rows = prompts(&[300, 2]);
    for window in [None, Some(150)] {
        let heads =
            Heads { n_heads: 2, n_kv_heads: 1, d_head: 8, scale: 0.4, softcap: Some(5.0), window, ..Heads::default() };
        let input = |n: usize, seed: u64| Var::from_tensor(&(random((302, n * 8), seed)? * 2.0)?);
        let (q, k, v) = (input(2, 1)?, input(1, 2)?, input(1, 3)?);
        let weights = random((302, 16), 4)?;
        let gradients = |z: Tensor| (z * &weights)?.sum_all()?.backward();
        let (fast, slow) =
            (gradients(attention(&q, &k, &v, &rows, heads)?)?, gradients(composed(&q, &k, &v, &rows, heads)?)?);
        for x in [&q, &k, &v] {
            let of = |grads: &candle_core::backprop::GradStore| grads.get(x).expect("a gradient").clone();
            let off = (of(&fast) - of(&slow))?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(off < 2e-5, "{window:?}: {off}");
        }
    }
    Ok(())
}

#[test]
fn attention_of_a_forks_rows_alone_or_over_a_cache_has_no_gradient() -> Result<()> {
    let heads =
        Heads { n_heads: 1, n_kv_heads: 1, d_head: 2, scale: 1.0, softcap: None, window: None, ..Heads::default() };
    let x = Var::from_tensor(&random((4, 2), 1)?)?;
    let fork = Span::new(3..4, 2, vec![0..2]);
    let over_a_cache = Span { rows: 3..4, start: 0, prefix: Vec::new(), own: 0..3 };
    for second in [fork, over_a_cache] {
        let rows = Rows { spans: vec![Span::new(0..3, 0, Vec::new()), second], entries: vec![0; 4] };
        let why = attention(&x, &x, &x, &rows, heads).expect_err("not whole prompts").to_string();
        assert!(why.contains("whole prompts"), "{why}");
    }
    Ok(())
}
