//! The rotations of a model, as tables.

use super::Decoder;
use crate::model::rope::Rope;
use candle_core::{Device, Result, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// Cosines and sines for every rotation of a model: the positions of each regime one after another, as many as its longest
/// prompt has.
pub struct Angles {
    /// For each device, one pair for each of [`Arch::ropes`]: `[entries, pairs]` each, f32.
    pub(super) tables: Vec<Vec<(Tensor, Tensor)>>,
    /// The entry of the first position, for each prompt length that the tables were made for.
    starts: BTreeMap<usize, usize>,
}

impl Angles {
    /// Tables for prompts of these lengths.
    ///
    /// # Errors
    /// If candle fails.
    pub fn new(decoder: &Decoder, lengths: impl IntoIterator<Item = usize>) -> Result<Self> {
        Angles::reaching(decoder, lengths, 0)
    }

    /// Tables for prompts of these lengths that go on for `more` positions, in the regime of the prompts' own lengths.
    ///
    /// # Errors
    /// If candle fails.
    pub fn reaching(decoder: &Decoder, lengths: impl IntoIterator<Item = usize>, more: usize) -> Result<Self> {
        let arch = &decoder.arch;
        let mut by_regime: BTreeMap<Vec<usize>, BTreeSet<usize>> = BTreeMap::new();
        for n in lengths {
            by_regime.entry(arch.ropes.iter().map(|r| r.regime(n)).collect()).or_default().insert(n);
        }
        let (mut starts, mut entries, mut parts) = (BTreeMap::new(), 0, Vec::new());
        for (regimes, lengths) in &by_regime {
            let positions = lengths.last().copied().unwrap_or(0) + more;
            starts.extend(lengths.iter().map(|n| (*n, entries)));
            entries += positions;
            parts.push((regimes, positions));
        }
        let table = |(i, rope): (usize, &Rope), device: &Device| {
            let (mut cos, mut sin) = (Vec::new(), Vec::new());
            for (regimes, positions) in &parts {
                let angles = rope.angles(regimes[i], *positions);
                cos.extend(angles.cos);
                sin.extend(angles.sin);
            }
            let shape = (entries, rope.pairs());
            Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
        };
        let all = |device| arch.ropes.iter().enumerate().map(|r| table(r, device)).collect::<Result<_>>();
        let tables = decoder.places.iter().map(|(device, _)| all(device)).collect::<Result<_>>()?;
        Ok(Angles { tables, starts })
    }

    /// The entry of a position of a prompt of `length` tokens, one of those that the tables were made for.
    pub fn entry(&self, length: usize, position: usize) -> u32 {
        (self.starts.get(&length).copied().unwrap_or(0) + position) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regimes_table_is_as_long_as_its_own_longest_prompt() {
        // The fixture rotates prompts of more than 64 tokens in another way.
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/phi3");
        let decoder = crate::model::Model::open(dir, &crate::model::Options::default()).expect("a sound model").decoder;
        let angles = Angles::reaching(&decoder, [10, 80, 7, 100], 2).expect("tables");
        assert_eq!(angles.tables[0][0].0.dims(), [12 + 102, decoder.arch.ropes[0].pairs()]);
        let firsts = [7, 10, 80, 100].map(|length| angles.entry(length, 3));
        assert_eq!(firsts, [3, 3, 15, 15]);
        let rows = |length: u32| angles.tables[0][0].1.get(angles.entry(length as usize, 3) as usize);
        let alone = |length: usize| Angles::new(&decoder, [length]).expect("tables").tables[0][0].1.get(3);
        for length in [7, 80] {
            let (found, expected) = (rows(length).expect("a row"), alone(length as usize).expect("a row"));
            assert_eq!(found.to_vec1::<f32>().expect("numbers"), expected.to_vec1::<f32>().expect("numbers"));
        }
    }
}
