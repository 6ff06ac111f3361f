//! Where the nodes of a graph stand, and the way of each edge between them.
//!
//! A row is a layer, or a part of one: where a part of a layer reads another of the same layer, it stands over it, and a
//! layer that is wider than the column has several rows. An edge that passes a row has a place of its own in it, so that
//! none goes behind a node.

use super::super::canvas::{Rect, WIDTH};
use super::super::parts::MARGIN;
use super::super::style::{INK, TICK_SIZE};
use super::super::text::TextStyle;
use super::order::order;
use super::places::{Room, places};
use super::{GraphEdge, GraphNode};

/// The letters that say what a head reads an edge as.
pub(super) const PORT_SIZE: f32 = 38.0;
/// Names are not wider than this.
const NAME_WIDTH: f32 = 300.0;
/// From a name to the sides of its box.
const PADDING: f32 = 16.0;
const NODE_GAP: f32 = 22.0;
/// What nodes may take of a row; the rest is for the edges that pass it.
const NODE_SHARE: f32 = 0.7;
/// What an edge that passes a row takes there, where there is room.
const PASSAGE: f32 = 30.0;
/// What lies between two rows, however many there are, and what all of it adds up to.
const GAPS: (f32, f32) = (44.0, 130.0);
const ALL_GAPS: f32 = 2000.0;
/// In how many lines the bend of an edge between two rows is drawn.
const STEPS: usize = 12;

/// An edge that cannot be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub from: usize,
    pub to: usize,
    pub why: &'static str,
}

/// The places of all parts of the picture.
#[derive(Debug)]
pub(super) struct Layout {
    /// The names of the nodes as they are shown.
    pub names: Vec<String>,
    /// The box of each node; none of one without an edge.
    pub boxes: Vec<Option<Rect>>,
    /// The way of each edge, from the upper side of one box to the lower side of another.
    pub ways: Vec<Vec<(f32, f32)>>,
    /// The row of pixels under the lowest box.
    pub bottom: i32,
}

/// What stands in rows.
pub(super) struct Net {
    /// Nodes, and edges where they pass a row.
    pub items: Vec<Item>,
    /// Items from left to right, from the lowest row up.
    pub rows: Vec<Vec<usize>>,
    /// What each item is linked to in the row below.
    pub below: Vec<Vec<usize>>,
    /// And in the row above.
    pub above: Vec<Vec<usize>>,
}

pub(super) struct Item {
    /// The node; none where an edge passes.
    pub node: Option<usize>,
    /// Pixels from side to side.
    pub width: f32,
}

/// How the names of nodes are written.
pub(super) fn label_style() -> TextStyle {
    TextStyle::new(TICK_SIZE, INK)
}

/// Where an edge enters a box: queries at the left, keys in the middle, values at the right.
pub(super) fn port_x(place: Rect, port: Option<char>) -> f32 {
    let side = match port {
        Some('q') => -0.32,
        Some('v') => 0.32,
        _ => 0.0,
    };
    place.left as f32 + place.width as f32 * (0.5 + side)
}

impl Layout {
    /// Finds the places, from `top` down.
    ///
    /// # Errors
    /// If an edge names no node, or does not lead to a later part.
    pub fn new(nodes: &[GraphNode], edges: &[&GraphEdge], top: i32) -> Result<Layout, Fault> {
        let names = shortened(nodes);
        let widths: Vec<f32> = names.iter().map(|name| label_style().width(name) + 2.0 * PADDING).collect();
        let (mut net, chains) = net(rows(nodes, edges, &widths)?, edges, &widths);
        order(&mut net);
        let room = Room { left: MARGIN as f32 + 4.0, right: (WIDTH as i32 - MARGIN) as f32 - 4.0, gap: NODE_GAP };
        let across = places(&net, room);
        let levels = levels(&net, edges, top);
        let bottom = levels.first().map_or(top, |level| level.1);
        let mut boxes = vec![None; nodes.len()];
        for (row, level) in net.rows.iter().zip(&levels) {
            for item in row {
                if let Item { node: Some(node), width } = net.items[*item] {
                    let (left, width) = ((across[*item] - width / 2.0).round() as i32, width as i32);
                    boxes[node] = Some(Rect { left, top: level.0, width, height: level.1 - level.0 });
                }
            }
        }
        let row_of = rows_of(&net);
        let way = |(edge, chain): (&&GraphEdge, &Vec<usize>)| {
            let end = boxes[edge.to].map_or(0.0, |place| port_x(place, edge.port));
            let last = chain.len() - 1;
            let x = |index: usize| if index == last { end } else { across[chain[index]] };
            let stops = chain.iter().enumerate().map(|(index, item)| (x(index), levels[row_of[*item]]));
            way(&stops.collect::<Vec<_>>())
        };
        let ways = edges.iter().zip(&chains).map(way).collect();
        Ok(Layout { names, boxes, ways, bottom })
    }
}

fn shortened(nodes: &[GraphNode]) -> Vec<String> {
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    label_style().shorten_all(&names, NAME_WIDTH)
}

/// The nodes that have an edge in rows, from the lowest up.
fn rows(nodes: &[GraphNode], edges: &[&GraphEdge], widths: &[f32]) -> Result<Vec<Vec<usize>>, Fault> {
    let height = heights(nodes, edges)?;
    let mut used: Vec<usize> = edges.iter().flat_map(|edge| [edge.from, edge.to]).collect();
    let key = |node: &usize| (nodes[*node].layer, height[*node]);
    used.sort_by_key(|node| (key(node), *node));
    used.dedup();
    let most = (WIDTH as i32 - 2 * MARGIN) as f32 * NODE_SHARE;
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for level in used.chunk_by(|a, b| key(a) == key(b)) {
        let whole: f32 = level.iter().map(|node| widths[*node] + NODE_GAP).sum();
        // As many in each, rather than a full one and a rest.
        let parts = (whole / most).ceil().max(1.0) as usize;
        rows.extend(level.chunks(level.len().div_ceil(parts)).map(<[usize]>::to_vec));
    }
    Ok(rows)
}

/// How far up in its layer each node stands: over all that it reads there.
fn heights(nodes: &[GraphNode], edges: &[&GraphEdge]) -> Result<Vec<usize>, Fault> {
    let mut height = vec![0; nodes.len()];
    for edge in edges {
        let fault = |why| Fault { from: edge.from, to: edge.to, why };
        let (Some(from), Some(to)) = (nodes.get(edge.from), nodes.get(edge.to)) else {
            return Err(fault("names a node that is not there"));
        };
        if from.layer > to.layer {
            return Err(fault("leads to an earlier layer"));
        }
    }
    let within: Vec<_> = edges.iter().filter(|edge| nodes[edge.from].layer == nodes[edge.to].layer).collect();
    // The longest way has an edge less than there are nodes: what still rises after so many rounds goes in circles.
    for _ in 0..=nodes.len() {
        let rising = within.iter().filter(|edge| height[edge.to] <= height[edge.from]);
        let rising: Vec<_> = rising.map(|edge| (edge.from, edge.to)).collect();
        if rising.is_empty() {
            return Ok(height);
        }
        for (from, to) in rising {
            height[to] = height[to].max(height[from] + 1);
        }
    }
    let circle = within.iter().find(|edge| height[edge.to] <= height[edge.from]);
    let (from, to) = circle.map_or((0, 0), |edge| (edge.from, edge.to));
    Err(Fault { from, to, why: "leads back to its own start" })
}

/// The rows with the places where edges pass them, and the items that each edge goes through.
fn net(rows: Vec<Vec<usize>>, edges: &[&GraphEdge], widths: &[f32]) -> (Net, Vec<Vec<usize>>) {
    let mut net = Net { items: Vec::new(), rows: Vec::new(), below: Vec::new(), above: Vec::new() };
    let mut item_of = vec![(0, 0); widths.len()];
    for (index, row) in rows.iter().enumerate() {
        net.rows.push(Vec::new());
        for node in row {
            item_of[*node] = (net.add(index, Item { node: Some(*node), width: widths[*node] }), index);
        }
    }
    let mut chains = Vec::new();
    for edge in edges {
        let ((from, low), (to, high)) = (item_of[edge.from], item_of[edge.to]);
        let passages = (low + 1..high).map(|row| net.add(row, Item { node: None, width: PASSAGE }));
        let passages: Vec<usize> = passages.collect();
        let chain: Vec<usize> = std::iter::once(from).chain(passages).chain([to]).collect();
        for pair in chain.windows(2) {
            net.above[pair[0]].push(pair[1]);
            net.below[pair[1]].push(pair[0]);
        }
        chains.push(chain);
    }
    net.narrow();
    (net, chains)
}

impl Net {
    fn add(&mut self, row: usize, item: Item) -> usize {
        self.items.push(item);
        self.below.push(Vec::new());
        self.above.push(Vec::new());
        self.rows[row].push(self.items.len() - 1);
        self.items.len() - 1
    }

    /// Makes the passages of a row as narrow as it takes for all to find room.
    fn narrow(&mut self) {
        for row in &self.rows {
            let nodes: f32 = row
                .iter()
                .filter(|item| self.items[**item].node.is_some())
                .map(|item| self.items[*item].width + NODE_GAP)
                .sum();
            let passages = row.iter().filter(|item| self.items[**item].node.is_none()).count().max(1);
            let free = (WIDTH as i32 - 2 * MARGIN) as f32 - 8.0 - nodes - NODE_GAP;
            let width = (free / passages as f32).min(PASSAGE);
            for item in row {
                if self.items[*item].node.is_none() {
                    self.items[*item].width = width;
                }
            }
        }
    }
}

fn rows_of(net: &Net) -> Vec<usize> {
    let mut row_of = vec![0; net.items.len()];
    for (index, row) in net.rows.iter().enumerate() {
        row.iter().for_each(|item| row_of[*item] = index);
    }
    row_of
}

/// The top and the bottom of each row, the lowest row first.
fn levels(net: &Net, edges: &[&GraphEdge], top: i32) -> Vec<(i32, i32)> {
    let has_ports = |row: &Vec<usize>| {
        let nodes: Vec<usize> = row.iter().filter_map(|item| net.items[*item].node).collect();
        edges.iter().any(|edge| edge.port.is_some() && nodes.contains(&edge.to))
    };
    let gap = (ALL_GAPS / net.rows.len().max(1) as f32).clamp(GAPS.0, GAPS.1) as i32;
    let mut y = top + 6;
    let mut levels: Vec<(i32, i32)> = Vec::new();
    for row in net.rows.iter().rev() {
        let height = TICK_SIZE * 1.35 + if has_ports(row) { PORT_SIZE * 0.8 } else { 0.0 };
        levels.push((y, y + height as i32));
        y += height as i32 + gap;
    }
    levels.reverse();
    levels
}

/// The way through stops, each a place along a row and the row's top and bottom: straight through rows, in a bend between.
fn way(stops: &[(f32, (i32, i32))]) -> Vec<(f32, f32)> {
    let mut points = Vec::new();
    for pair in stops.windows(2) {
        let ((from, (low, _)), (to, (_, high))) = (pair[0], pair[1]);
        let (low, high) = (low as f32, high as f32);
        // Both ends are upright, so that the way goes on without a corner.
        let steps = if (from - to).abs() < 2.0 { 1 } else { STEPS };
        let bend = (0..=steps).map(|step| {
            let t = step as f32 / steps as f32;
            let turned = t * t * (3.0 - 2.0 * t);
            (from + (to - from) * turned, low + (high - low) * t)
        });
        points.extend(bend);
    }
    points
}
