//! Which rows are computed together on the CPU, and which keys they read.
//!
//! Spans that share the keys before their own are put together in blocks, so that those keys are multiplied once for all of
//! them. Keys that a window hides from every row are passed over. Both depend on a span's own rows and prefix alone, and sums
//! come out the same whatever is passed over: what a row reads does not depend on the others, to the last bit.

use super::Heads;
use crate::ops::rows::{Rows, Span};
use std::collections::HashMap;
use std::ops::Range;

/// Rows of scores that a task holds at least; enough that its products run at full speed, few enough for the cache.
const SCORE_ROWS: usize = 256;

/// Query rows whose scores one task computes for one KV head. All share their prefix.
pub(super) struct Block {
    /// The keys of positions before `start`, from the first that is not passed over.
    pub(super) prefix: Vec<Keys>,
    /// How many of them are kept.
    pub(super) prefix_len: usize,
    start: usize,
    pub(super) pieces: Vec<Piece>,
}

/// Consecutive query rows of one span.
pub(super) struct Piece {
    pub(super) rows: Range<usize>,
    /// The span's own keys, up to the last that the piece's last row sees.
    pub(super) own: Keys,
}

/// Consecutive rows of keys, of which the first are passed over.
pub(super) struct Keys {
    pub(super) rows: Range<usize>,
    pub(super) passed: usize,
}

impl Keys {
    /// Keys of which no query sees the first `hidden`, which are passed over.
    fn new(rows: Range<usize>, hidden: usize) -> Keys {
        let passed = hidden.min(rows.len());
        Keys { rows, passed }
    }

    /// Those that are not passed over.
    pub(super) fn kept(&self) -> Range<usize> {
        self.rows.start + self.passed..self.rows.end
    }
}

impl Piece {
    fn new(rows: Range<usize>, span: &Span, heads: Heads) -> Piece {
        let own = span.own.start..span.own.end - (span.rows.end - rows.end);
        let first = span.start + own.len() - rows.len();
        let hidden = heads.first_key(first).saturating_sub(span.start);
        Piece { rows, own: Keys::new(own, hidden) }
    }

    /// The position of a row of the piece, after those of the prefix.
    fn position(&self, row: usize) -> usize {
        self.own.rows.len() - self.rows.len() + row
    }
}

impl Block {
    /// A block of a span, without pieces. What is passed over depends on the prefix, not on the pieces that will share it.
    fn new(span: &Span, heads: Heads) -> Block {
        let (first, mut position) = (heads.first_key(span.start), 0);
        let mut prefix = Vec::new();
        for rows in &span.prefix {
            prefix.push(Keys::new(rows.clone(), first.saturating_sub(position)));
            position += rows.len();
        }
        prefix.retain(|keys| !keys.kept().is_empty());
        let prefix_len = prefix.iter().map(|keys| keys.kept().len()).sum();
        Block { prefix, prefix_len, start: span.start, pieces: Vec::new() }
    }

    /// The position of a row of a piece.
    pub(super) fn position(&self, piece: &Piece, row: usize) -> usize {
        self.start + piece.position(row)
    }

    /// The columns of scores that a row of a piece sees, in which the kept keys of the prefix are followed by its own.
    pub(super) fn seen(&self, piece: &Piece, row: usize, heads: Heads) -> Range<usize> {
        let position = self.position(piece, row);
        let column = |p: usize| match p.checked_sub(self.start) {
            Some(own) => self.prefix_len + own - piece.own.passed,
            None => self.prefix_len - (self.start - p),
        };
        column(heads.first_key(position))..column(position) + 1
    }
}

/// Cuts the spans into pieces, each by itself, and puts those of one prefix together in blocks. Depends on the rows alone, so
/// that results do not depend on the number of threads.
pub(super) fn blocks(rows: &Rows, heads: Heads) -> Vec<Block> {
    let limit = SCORE_ROWS.div_ceil(heads.group());
    // The last block of each prefix, and how many rows it has.
    let mut open: HashMap<&[Range<usize>], (usize, usize)> = HashMap::new();
    let mut blocks: Vec<Block> = Vec::new();
    for span in &rows.spans {
        for from in span.rows.clone().step_by(limit) {
            let piece = Piece::new(from..span.rows.end.min(from + limit), span, heads);
            let n = piece.rows.len();
            match open.get_mut(span.prefix.as_slice()) {
                // Without a prefix there is nothing to share: each prompt has blocks of its own.
                Some((b, filled)) if span.start > 0 && *filled + n <= limit => {
                    blocks[*b].pieces.push(piece);
                    *filled += n;
                }
                _ => {
                    open.insert(&span.prefix, (blocks.len(), n));
                    blocks.push(Block { pieces: vec![piece], ..Block::new(span, heads) });
                }
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::super::{Job, Terms};
    use super::*;

    fn heads(window: Option<usize>) -> Heads {
        Heads { n_heads: 2, n_kv_heads: 1, d_head: 8, scale: 0.3, softcap: None, window, ..Heads::default() }
    }

    /// A long prompt, forks of it (one that ends long after its prefix, one row alone several times), a fork of a fork, and the
    /// prompt's last row by itself, as in generation.
    fn rows() -> Rows {
        let spans = vec![
            Span::new(0..1500, 0, vec![]),
            Span::new(1500..2300, 700, vec![0..700]),
            Span::new(2300..2301, 1499, vec![0..1499]),
            Span::new(2301..2302, 1499, vec![0..1499]),
            Span::new(2302..2304, 1029, vec![0..1029]),
            Span::new(2304..2309, 1400, vec![0..700, 1500..2200]),
            Span { rows: 2309..2310, start: 0, prefix: vec![], own: 0..1500 },
        ];
        Rows { spans, entries: vec![0; 2310] }
    }

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn passing_over_hidden_keys_changes_no_bit() {
        let rows = rows();
        let (q, k, v) = (numbers(rows.len() * 16, 1), numbers(rows.len() * 8, 2), numbers(rows.len() * 8, 3));
        for window in [1, 5, 63, 64, 300, 512, 800, 1400, 2000] {
            let heads_of = heads(Some(window));
            let terms = Terms::default();
            let job = Job { q: &q, k: &k, v: &v, heads: heads_of, terms: &terms };
            // Blocks of attention without a window pass over nothing.
            let (some, all) = (blocks(&rows, heads_of), blocks(&rows, heads(None)));
            for (some, all) in some.iter().zip(&all) {
                let n = some.pieces.iter().map(|p| p.rows.len()).sum::<usize>() * 2 * 8;
                let bits = |z: Vec<f32>| z[..n].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                let first = &some.pieces[0].rows;
                assert_eq!(bits(job.z(some, 0)), bits(job.z(all, 0)), "window {window}, rows {first:?}");
            }
        }
    }

    #[test]
    fn a_window_bounds_the_keys_that_are_read() {
        for window in [1, 100, 512, 1000] {
            let heads = heads(Some(window));
            for block in blocks(&rows(), heads) {
                assert!(block.prefix_len < window, "window {window}: {} keys of a prefix", block.prefix_len);
                for piece in &block.pieces {
                    let kept = piece.own.kept().len();
                    assert!(kept < window + piece.rows.len(), "window {window}: {kept} keys for {:?}", piece.rows);
                }
            }
        }
    }
}
