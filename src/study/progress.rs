//! How far a run is: what a session tells whoever watches it.

/// Work that is expected or was done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Rows times layers.
    pub rows: u64,
    /// The floating-point operations that they stand for: time goes by these, as rows of one plan take more than those of another.
    pub flops: f64,
    /// Those of them that generate texts, token by token. They have a pace of their own: every step reads all weights for a row a
    /// text.
    pub of_tokens: f64,
}

/// Watches a run. Calls come from the threads that compute, once a layer and batch.
pub trait Progress: Send + Sync {
    /// The run begins to compute, of which it expects so much.
    fn begin(&self, _expected: Work) {}

    /// So much was computed: all of it tokens of texts, or nothing of it.
    fn advance(&self, _done: Work) {}

    /// So much was done by an earlier run, and is taken over.
    fn kept(&self, _done: Work) {}

    /// So much of what was expected is not needed: texts ended before they were as long as they may be.
    fn spared(&self, _not_needed: Work) {}

    /// All is computed; tables, figures and reports are left to write.
    fn end(&self) {}
}
