//! Which item of a row stands beside which, so that few edges cross.

use super::layout::Net;

/// How often the rows are gone through, up and down by turns.
const SWEEPS: usize = 24;

/// Orders each row by where the items are that its own are linked to, up and down by turns, and keeps the order with
/// the fewest crossings.
pub(super) fn order(net: &mut Net) {
    let mut best = (crossings(net), net.rows.clone());
    for sweep in 0..SWEEPS {
        let up = sweep % 2 == 0;
        let count = net.rows.len();
        for step in 1..count {
            let (row, other) = if up { (step, step - 1) } else { (count - 1 - step, count - step) };
            order_row(net, row, other);
        }
        swap_neighbours(net);
        let now = crossings(net);
        if now < best.0 {
            best = (now, net.rows.clone());
        }
    }
    net.rows = best.1;
}

/// Orders a row by the mean place of what each item is linked to in another row beside it.
fn order_row(net: &mut Net, row: usize, other: usize) {
    let place = positions(net, other);
    let links = if other < row { &net.below } else { &net.above };
    let own = positions(net, row);
    let mean = |item: usize| {
        let linked = &links[item];
        if linked.is_empty() {
            return own[item];
        }
        linked.iter().map(|item| place[*item]).sum::<f32>() / linked.len() as f32
    };
    let mut keyed: Vec<(f32, usize)> = net.rows[row].iter().map(|item| (mean(*item), *item)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    net.rows[row] = keyed.into_iter().map(|(_, item)| item).collect();
}

/// Where the items of a row are, as shares of it.
fn positions(net: &Net, row: usize) -> Vec<f32> {
    let mut place = vec![0.0; net.items.len()];
    let count = net.rows[row].len() as f32;
    for (index, item) in net.rows[row].iter().enumerate() {
        place[*item] = (index as f32 + 0.5) / count;
    }
    place
}

/// Exchanges neighbours wherever that saves crossings, one time through all rows.
fn swap_neighbours(net: &mut Net) {
    for row in 0..net.rows.len() {
        let mut beside = Vec::new();
        for (other, links) in [(row.checked_sub(1), &net.below), (Some(row + 1), &net.above)] {
            if let Some(other) = other.filter(|other| *other < net.rows.len()) {
                beside.push((positions(net, other), links));
            }
        }
        let cost = |left: usize, right: usize| -> usize {
            let of = |(place, links): &(Vec<f32>, &Vec<Vec<usize>>)| {
                let pairs = links[left].iter().flat_map(|a| links[right].iter().map(move |b| (*a, *b)));
                pairs.filter(|(a, b)| place[*a] > place[*b]).count()
            };
            beside.iter().map(of).sum()
        };
        let mut items = net.rows[row].clone();
        for index in 1..items.len() {
            if cost(items[index], items[index - 1]) < cost(items[index - 1], items[index]) {
                items.swap(index - 1, index);
            }
        }
        net.rows[row] = items;
    }
}

/// How many pairs of links between neighbouring rows cross.
pub(super) fn crossings(net: &Net) -> usize {
    let between = |row: usize| {
        let (low, high) = (positions(net, row), positions(net, row + 1));
        let of = |item: &usize| net.above[*item].iter().map(|other| (low[*item], high[*other])).collect::<Vec<_>>();
        let links: Vec<(f32, f32)> = net.rows[row].iter().flat_map(of).collect();
        let crossed = |(index, a): (usize, &(f32, f32))| {
            links[index + 1..].iter().filter(|b| (a.0 - b.0) * (a.1 - b.1) < 0.0).count()
        };
        links.iter().enumerate().map(crossed).sum::<usize>()
    };
    (1..net.rows.len()).map(|row| between(row - 1)).sum()
}
