//! How far a run is: what a session tells whoever watches it.

/// Work that was done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Rows times layers.
    pub rows: u64,
    /// The floating-point operations that they stand for: time goes by these, as rows of one plan take more than those of another.
    pub flops: f64,
}

/// Watches a run. Calls come from the threads that compute, once a layer and batch.
pub trait Progress: Send + Sync {
    /// The run begins to compute, of which it expects so much.
    fn begin(&self, _expected: Work) {}

    /// So much was computed.
    fn advance(&self, _done: Work) {}

    /// So much was done by an earlier run, and is taken over.
    fn kept(&self, _done: Work) {}

    /// All is computed; tables, figures and reports are left to write.
    fn end(&self) {}
}
