//! Where the items of ordered rows stand across the picture, so that edges are straight.

use super::layout::Net;

/// How often the rows are gone through, up and down by turns.
const SWEEPS: usize = 12;
/// How much more a straight passage counts than a straight way to a node.
const PASSAGE_WEIGHT: f32 = 4.0;

/// What items may take, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub left: f32,
    pub right: f32,
    /// What stays free beside a node.
    pub gap: f32,
}

/// The middle of each item: as near as their order allows to the middles of what they are linked to.
pub(super) fn places(net: &Net, room: Room) -> Vec<f32> {
    let mut place = vec![(room.left + room.right) / 2.0; net.items.len()];
    for row in 0..net.rows.len() {
        put(net, room, row, &mut place, |_| (room.left + room.right) / 2.0);
    }
    for sweep in 0..SWEEPS {
        let up = sweep % 2 == 0;
        for step in 0..net.rows.len() {
            let row = if up { step } else { net.rows.len() - 1 - step };
            let before = place.clone();
            put(net, room, row, &mut place, |item| {
                let both = if sweep + 2 < SWEEPS { [up, !up] } else { [true, true] };
                wanted(net, &before, item, both)
            });
        }
    }
    place
}

/// The mean of where an item's links are, `[below, above]` as asked; where it is, if it has none there.
fn wanted(net: &Net, place: &[f32], item: usize, [below, above]: [bool; 2]) -> f32 {
    let below = net.below[item].iter().filter(|_| below);
    let linked = below.chain(net.above[item].iter().filter(|_| above));
    let passes = |item: usize| net.items[item].node.is_none();
    let (sum, weight) = linked.fold((0.0, 0.0), |(sum, weight), other| {
        let own = if passes(item) && passes(*other) { PASSAGE_WEIGHT } else { 1.0 };
        (sum + own * place[*other], weight + own)
    });
    if weight > 0.0 { sum / weight } else { place[item] }
}

/// Puts the items of a row as near to where they are wanted as their order and widths allow.
fn put(net: &Net, room: Room, row: usize, place: &mut [f32], wanted: impl Fn(usize) -> f32) {
    let items = &net.rows[row];
    let gap = |item: usize| if net.items[item].node.is_some() { room.gap / 2.0 } else { 0.0 };
    let half = |item: usize| net.items[item].width / 2.0;
    let apart: Vec<f32> =
        items.windows(2).map(|pair| half(pair[0]) + gap(pair[0]) + gap(pair[1]) + half(pair[1])).collect();
    let (Some(first), Some(last)) = (items.first(), items.last()) else { return };
    let within = (room.left + half(*first), room.right - half(*last));
    let wanted: Vec<f32> = items.iter().map(|item| wanted(*item)).collect();
    for (item, x) in items.iter().zip(spaced(&wanted, &apart, within)) {
        place[*item] = x;
    }
}

/// The places nearest to the wanted ones, by least squares, that are in order, as far `apart` as asked (the first from the
/// second, and so on) and within two ends: isotonic regression by pooling neighbours.
fn spaced(wanted: &[f32], apart: &[f32], (low, high): (f32, f32)) -> Vec<f32> {
    // With the distances taken out, the places only have to rise.
    let mut shifts = vec![0.0];
    for distance in apart {
        shifts.push(shifts.last().copied().unwrap_or(0.0) + distance);
    }
    let mut pools: Vec<(f32, usize)> = Vec::new();
    for (wanted, shift) in wanted.iter().zip(&shifts) {
        let mut pool = (wanted - shift, 1);
        while let Some((mean, count)) = pools.pop_if(|last| last.0 > pool.0) {
            let all = count + pool.1;
            pool = ((mean * count as f32 + pool.0 * pool.1 as f32) / all as f32, all);
        }
        pools.push(pool);
    }
    let high = high - shifts.last().copied().unwrap_or(0.0);
    let risen = pools.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean.min(high).max(low), count));
    risen.zip(shifts).map(|(place, shift)| place + shift).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_wanted_ones_where_there_is_room_and_else_as_near_as_can_be() {
        assert_eq!(spaced(&[10.0, 50.0], &[20.0], (0.0, 100.0)), [10.0, 50.0]);
        assert_eq!(spaced(&[50.0, 50.0, 50.0], &[20.0, 20.0], (0.0, 100.0)), [30.0, 50.0, 70.0]);
        assert_eq!(spaced(&[60.0, 20.0], &[20.0], (0.0, 100.0)), [30.0, 50.0]);
        assert_eq!(spaced(&[90.0, 95.0], &[20.0], (0.0, 100.0)), [80.0, 100.0]);
        assert_eq!(spaced(&[-9.0, 50.0], &[20.0], (0.0, 100.0)), [0.0, 50.0]);
    }
}
