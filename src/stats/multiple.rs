//! Corrections for testing many hypotheses at once.

/// q-values by Benjamini and Hochberg 1995: the smallest false discovery rate at which each test would be called.
///
/// In the order of `p`, monotone in it, within [0, 1]. A p-value that is NaN says nothing against its hypothesis: it
/// counts as 1 and stays in the family. Leave tests that were not made out with [`benjamini_hochberg_present`].
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let p: Vec<f64> = p.iter().map(|p| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) }).collect();
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut q = vec![1.0; p.len()];
    let mut smallest = 1.0_f64;
    for (rank, test) in order.iter().enumerate().rev() {
        smallest = smallest.min(p[*test] * p.len() as f64 / (rank + 1) as f64);
        q[*test] = smallest;
    }
    q
}

/// [`benjamini_hochberg`] over the tests that have a p-value; the others are not part of the family and have none.
pub fn benjamini_hochberg_present(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let present: Vec<f64> = p.iter().copied().flatten().collect();
    let mut q = benjamini_hochberg(&present).into_iter();
    p.iter().map(|p| p.and_then(|_| q.next())).collect()
}
