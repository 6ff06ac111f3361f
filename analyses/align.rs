//! Which position of one prompt corresponds to which of its matched prompt.
//!
//! By token ids alone; what is taken from a position to another is left to the analyses.

/// For each position of `base` the one of `donor` that corresponds to it: the equal beginnings and ends one to one, the
/// spans that differ from first to last in proportion. Positions of a span that has no counterpart correspond to none.
///
/// ```
/// use gatelens::analyses::align::align;
/// assert_eq!(align(&[1, 2, 3, 9], &[1, 5, 9]), [Some(0), Some(1), Some(1), Some(2)]);
/// assert_eq!(align(&[1, 5, 9], &[1, 2, 3, 9]), [Some(0), Some(2), Some(3)]);
/// assert_eq!(align(&[1, 2, 9], &[1, 9]), [Some(0), None, Some(1)]);
/// ```
pub fn align(base: &[u32], donor: &[u32]) -> Vec<Option<usize>> {
    let prefix = base.iter().zip(donor).take_while(|(a, b)| a == b).count();
    let rest = base.len().min(donor.len()) - prefix;
    let ends = base.iter().rev().zip(donor.iter().rev()).take(rest);
    let suffix = ends.take_while(|(a, b)| a == b).count();
    let (wide, other) = (base.len() - prefix - suffix, donor.len() - prefix - suffix);
    let within = |i: usize| match (wide, other) {
        (_, 0) => None,
        // The last token of a word or name carries most of what was read of it.
        (1, other) => Some(other - 1),
        (wide, other) => Some((i * (other - 1) + (wide - 1) / 2) / (wide - 1)),
    };
    let position = |i: usize| match i {
        i if i < prefix => Some(i),
        i if i < prefix + wide => within(i - prefix).map(|j| prefix + j),
        i => Some(i - wide + other),
    };
    (0..base.len()).map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_one_length_correspond_position_by_position() {
        assert_eq!(align(&[1, 2, 3, 4], &[1, 7, 8, 4]), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(align(&[1, 1, 1], &[1, 1, 1]), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn spans_correspond_from_their_first_to_their_last() {
        let found = align(&[0, 1, 2, 3, 9], &[0, 4, 5, 6, 7, 8, 9]);
        assert_eq!(found, [Some(0), Some(1), Some(3), Some(5), Some(6)]);
        let found = align(&[0, 4, 5, 6, 7, 8, 9], &[0, 1, 2, 3, 9]);
        assert_eq!((found[1], found[5], found[6]), (Some(1), Some(3), Some(4)));
        assert!(found.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn a_repeated_token_is_not_counted_at_both_ends() {
        assert_eq!(align(&[1, 1], &[1, 1, 1]), [Some(0), Some(1)]);
        assert_eq!(align(&[1, 1, 1], &[1]), [Some(0), None, None]);
    }
}
