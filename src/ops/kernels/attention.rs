//! Attention of packed rows, over keys and values that are read where they lie: `kernels/attention.cu`.

use super::{Argument, Grid, Kernel, Machine, WARP, int};
use crate::ops::attention::Heads;
use crate::ops::rows::Rows;
use candle_core::{DType, Result};
use std::ops::Range;

/// The widest head that the kernel takes.
pub(in crate::ops) const WIDEST_HEAD: usize = 256;

/// Keys that are in shared memory at once, as in the kernel.
const CHUNK: usize = 32;

/// The segment is read by every row of its tile.
const EVERY_SPAN: i32 = -1;

/// Which rows each block computes, and which keys it reads.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tiles {
    /// The first row of each tile, and the end. `[tiles + 1]`
    first_row: Vec<i32>,
    /// The first segment of each tile, and the end. `[tiles + 1]`
    first_segment: Vec<i32>,
    /// Runs of key rows: first row, the position of the first, how many, and whose they are. `[segments][4]`
    segments: Vec<i32>,
    /// `[rows]`
    span: Vec<i32>,
    /// `[rows]`
    position: Vec<i32>,
}

impl Tiles {
    /// Cuts rows into tiles of `most` at most, all of one prefix.
    fn new(rows: &Rows, most: usize) -> Result<Tiles> {
        let mut tiles = Tiles::default();
        // The prefix of the tile that may take more rows, and how many it has.
        let mut open: Option<(&[Range<usize>], usize)> = None;
        for (s, span) in rows.spans.iter().enumerate() {
            for from in span.rows.clone().step_by(most) {
                let piece = from..span.rows.end.min(from + most);
                let joined = match open {
                    Some((prefix, n)) if span.start > 0 && prefix == span.prefix && n + piece.len() <= most => n,
                    _ => tiles.begin(from, &span.prefix)?,
                };
                open = Some((&span.prefix, joined + piece.len()));
                let own = span.own.start..span.own.end - (span.rows.end - piece.end);
                tiles.segment(own, span.start, int(s)?)?;
                for row in piece {
                    tiles.span.push(int(s)?);
                    tiles.position.push(int(span.first() + row - span.rows.start)?);
                }
            }
        }
        tiles.first_row.push(int(rows.len())?);
        tiles.first_segment.push(int(tiles.segments.len() / 4)?);
        Ok(tiles)
    }

    /// Begins a tile at a row; it has no rows yet.
    fn begin(&mut self, row: usize, prefix: &[Range<usize>]) -> Result<usize> {
        self.first_row.push(int(row)?);
        self.first_segment.push(int(self.segments.len() / 4)?);
        let mut position = 0;
        for rows in prefix {
            self.segment(rows.clone(), position, EVERY_SPAN)?;
            position += rows.len();
        }
        Ok(0)
    }

    fn segment(&mut self, rows: Range<usize>, position: usize, span: i32) -> Result<()> {
        self.segments.extend([int(rows.start)?, int(position)?, int(rows.len())?, span]);
        Ok(())
    }

    fn len(&self) -> usize {
        self.first_row.len() - 1
    }
}

/// `z` `[rows, n_heads * d_head]` of `q` of that shape, `k` and `v` `[key rows, n_kv_heads * d_head]`, all of one dtype.
/// The spans were held to the keys' rows.
///
/// # Errors
/// If a head is wider than [`WIDEST_HEAD`], there is more than the tables can count, or the machine fails.
pub(in crate::ops) fn attention<M: Machine>(
    machine: &M,
    dtype: DType,
    [q, k, v]: [&M::Buffer; 3],
    z: &mut M::Buffer,
    rows: &Rows,
    heads: Heads,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let Heads { n_heads, n_kv_heads, d_head, .. } = heads;
    if d_head > WIDEST_HEAD {
        candle_core::bail!("heads of {d_head} are wider than the kernel's {WIDEST_HEAD}")
    }
    let warps = (machine.threads() / WARP) as usize;
    // A warp has a query: what a tile has beyond one for each would read the keys again.
    let tiles = Tiles::new(rows, (warps / (n_heads / n_kv_heads)).max(1))?;
    let first_row = machine.ints(&tiles.first_row)?;
    let first_segment = machine.ints(&tiles.first_segment)?;
    let segments = machine.ints(&tiles.segments)?;
    let (span, position) = (machine.ints(&tiles.span)?, machine.ints(&tiles.position)?);
    let shared = 4 * (CHUNK * (d_head | 1) + warps * (d_head + CHUNK));
    let grid = Grid { x: tiles.len(), y: n_kv_heads, shared };
    let [q, k, v] = [q, k, v].map(Argument::Read);
    let [first_row, first_segment, segments, span, position] =
        [&first_row, &first_segment, &segments, &span, &position].map(Argument::Read);
    let [n_heads, n_kv_heads, d_head, window] =
        [n_heads, n_kv_heads, d_head, heads.window.unwrap_or(0)].map(|n| int(n).map(Argument::Int));
    let (scale, softcap) = (heads.scale as f32, heads.softcap.unwrap_or(0.0) as f32);
    let tables = [first_row, first_segment, segments, span, position];
    let shape = [n_heads?, n_kv_heads?, d_head?, Argument::Float(scale), Argument::Float(softcap), window?];
    let mut arguments: Vec<Argument<M::Buffer>> = Vec::from([q, k, v, Argument::Write(z)]);
    arguments.extend(tables.into_iter().chain(shape));
    machine.launch(&Kernel::of("attention", "attention", dtype), grid, &mut arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::rows::Span;

    #[test]
    fn forks_of_one_base_share_a_tile_and_its_prefix() {
        // A prompt of five rows and two forks of it from position 3.
        let prefix = vec![0..3];
        let spans = vec![
            Span::new(0..5, 0, Vec::new()),
            Span::new(5..7, 3, prefix.clone()),
            Span::new(7..9, 3, prefix.clone()),
        ];
        let rows = Rows { spans, entries: vec![0; 9] };
        let tiles = Tiles::new(&rows, 4).expect("a few rows");
        assert_eq!(tiles.first_row, [0, 4, 5, 9]);
        assert_eq!(tiles.first_segment, [0, 1, 2, 5]);
        let segments: Vec<&[i32]> = tiles.segments.chunks(4).collect();
        assert_eq!(segments[..2], [[0, 0, 4, 0], [0, 0, 5, 0]], "a row reads no key after its own tile");
        assert_eq!(segments[2..], [[0, 0, 3, EVERY_SPAN], [5, 3, 2, 1], [7, 3, 2, 2]]);
        assert_eq!(tiles.position, [0, 1, 2, 3, 4, 3, 4, 3, 4]);
        assert_eq!(tiles.span, [0, 0, 0, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn rows_of_different_prefixes_do_not_share_a_tile() {
        let spans =
            vec![Span::new(0..1, 2, vec![4..6]), Span::new(1..2, 2, vec![6..8]), Span::new(2..3, 0, Vec::new())];
        let tiles = Tiles::new(&Rows { spans, entries: vec![0; 3] }, 8).expect("a few rows");
        assert_eq!(tiles.first_row, [0, 1, 2, 3]);
    }
}
