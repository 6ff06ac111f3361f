//! A graph in layers: the parts of a model as nodes, and what they hand to later parts as edges, as a circuit is drawn.
//!
//! The passage goes up the page from `input` to `logits`, layers without a node left out. An edge is as thick as its effect
//! is large, has the colour of its sign, and is dashed where it is not significant. Where it enters a head, a letter says
//! whether the head reads it as query, key or value. In pages the graph can be walked ([`html`](crate::report::html)), so that
//! any [`Block::Figure`](crate::report::Block::Figure) of it brings that along.
//!
//! Crossings are few because the rows are ordered by barycentres (Sugiyama, Tagawa and Toda 1981). Which edges belong to a
//! circuit is left to the analyses.

mod layout;
mod order;
mod places;
#[cfg(test)]
mod tests;

use super::FigureError;
use super::axis::{drawable, drawable_interval};
use super::canvas::{Canvas, Part};
use super::estimate::Estimate;
use super::parts::{Heading, Legend, MARGIN};
use super::sign::Sign;
use super::style::{Color, FAINT_INK, INK, PAPER, diverging, nice_ticks, tick_labels};
use super::text::{Anchor, TextStyle};
use layout::{Fault, Layout, PORT_SIZE, label_style, port_x};

/// The most edges that are drawn: more could not be followed. Of more, the strongest are drawn.
pub const MOST_EDGES: usize = 60;

/// The width of the strongest edge, and of those that would be thinner than the eye sees.
const WIDEST: f32 = 20.0;
const THINNEST: f32 = 3.0;
/// Pen down and pen up by turns, for edges up to a width: round ends take the width of the line from the gaps.
const DASHES: [(f32, &[f32]); 3] = [(7.0, &[14.0, 18.0]), (13.0, &[20.0, 28.0]), (f32::INFINITY, &[26.0, 40.0])];
/// Shares of the scale of signs whose colours are seen on white and on black, and told apart in greyscale.
const NEGATIVE: f64 = -0.8;
const POSITIVE: f64 = 0.6;

/// Parts of a model and the edges between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The title, in bold.
    pub title: String,
    /// What else a reader needs, under the title. May be empty.
    pub subtitle: String,
    /// What an edge's number is, with its unit: `effect of the edge (nats)`.
    pub effect_label: String,
    /// What a dashed edge is: `q ≥ 0.05`.
    pub dashed_meaning: String,
    /// The parts of the model; those without an edge are left out.
    pub nodes: Vec<GraphNode>,
    /// The edges, in any order; those without a finite effect are left out.
    pub edges: Vec<GraphEdge>,
}

/// A part of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphNode {
    /// Its name: `input`, `a12.h3`, `m12`, `logits`.
    pub name: String,
    /// Its layer from 0; -1 for the input, and the number of layers for the logits.
    pub layer: i64,
}

/// What one part hands to a later one.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphEdge {
    /// The number among the nodes of the part that writes.
    pub from: usize,
    /// That of the part that reads, in a later layer or after the writer in the same one.
    pub to: usize,
    /// What a head reads it as: `q`, `k` or `v`; none for other parts.
    pub port: Option<char>,
    /// Its effect: colour and thickness.
    pub effect: f64,
    /// Both ends of the effect's interval.
    pub interval: Option<(f64, f64)>,
    /// Whether it is significant.
    pub significant: bool,
    /// Its place among all edges by strength, from 0 for the strongest.
    pub rank: usize,
}

impl Graph {
    /// Draws the figure.
    ///
    /// # Errors
    /// Without an edge that has a finite effect, and if an edge names no node or does not lead to a later part.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        let edges = self.strongest()?;
        let heading = Heading::new(&self.title, &self.told_subtitle(edges.len()));
        let layout = Layout::new(&self.nodes, &edges, heading.height()).map_err(|fault| self.wrong(fault))?;
        let scale = Thickness::of(&edges);
        let legend = self.legend(&edges, scale);
        let legend_top = layout.bottom + 34;
        let mut canvas = Canvas::new((legend_top + legend.height() + MARGIN) as u32);
        heading.draw(&mut canvas);
        // The strongest are drawn last, over the others.
        for (rank, (edge, way)) in edges.iter().zip(&layout.ways).enumerate().rev() {
            let part = Part::Edge { from: edge.from, to: edge.to, rank };
            let (width, dash) = scale.line(edge);
            canvas.part(part, self.told(edge), |canvas| canvas.polyline(way, color(edge.effect), width, dash));
        }
        self.draw_nodes(&mut canvas, &layout, &edges);
        legend.draw(&mut canvas, legend_top, |canvas, place, sign| sign.draw(canvas, place));
        Ok(canvas)
    }

    /// The edges that are drawn, the strongest first.
    fn strongest(&self) -> Result<Vec<&GraphEdge>, FigureError> {
        let mut edges: Vec<&GraphEdge> = self.drawable().collect();
        edges.sort_by_key(|edge| edge.rank);
        edges.truncate(MOST_EDGES);
        if edges.is_empty() {
            return Err(FigureError::Empty { title: self.title.clone(), what: "edges with a finite effect" });
        }
        Ok(edges)
    }

    fn drawable(&self) -> impl Iterator<Item = &GraphEdge> {
        self.edges.iter().filter(|edge| drawable(edge.effect).is_some())
    }

    /// The subtitle, and how many edges there are if not all of them are drawn.
    fn told_subtitle(&self, drawn: usize) -> String {
        match self.drawable().count() {
            all if all > drawn => {
                let cut = format!("the {drawn} strongest of {all} edges");
                if self.subtitle.is_empty() { cut } else { format!("{}; {cut}", self.subtitle) }
            }
            _ => self.subtitle.clone(),
        }
    }

    fn wrong(&self, fault: Fault) -> FigureError {
        let edge = self.named(fault.from, fault.to, None);
        FigureError::Edge { title: self.title.clone(), edge, why: fault.why }
    }

    /// `a0.h1 → a5.h3 (q)`.
    fn named(&self, from: usize, to: usize, port: Option<char>) -> String {
        let name = |node: usize| self.nodes.get(node).map_or_else(|| format!("node {node}"), |node| node.name.clone());
        let port = port.map_or(String::new(), |port| format!(" ({port})"));
        format!("{} → {}{port}", name(from), name(to))
    }

    /// An edge's name and numbers: `a0.h1 → a5.h3 (q): −0.412 [−0.520, −0.301]`.
    fn told(&self, edge: &GraphEdge) -> String {
        let estimate = Estimate {
            interval: drawable_interval(edge.interval),
            ..Estimate::new(edge.effect).marked(!edge.significant)
        };
        let dashed = Some(self.dashed_meaning.as_str()).filter(|meaning| !meaning.is_empty());
        format!("{}: {}", self.named(edge.from, edge.to, edge.port), estimate.told(dashed, false))
    }

    fn draw_nodes(&self, canvas: &mut Canvas, layout: &Layout, edges: &[&GraphEdge]) {
        let style = label_style();
        let letter = TextStyle::new(PORT_SIZE, FAINT_INK).anchored(Anchor::Middle);
        for (index, (node, place)) in self.nodes.iter().zip(&layout.boxes).enumerate() {
            let Some(place) = place else { continue };
            let mut ports: Vec<char> = edges.iter().filter(|e| e.to == index).filter_map(|e| e.port).collect();
            ports.sort_unstable();
            ports.dedup();
            let center = place.center();
            let below = if ports.is_empty() { 0.0 } else { PORT_SIZE * 0.8 };
            canvas.part(Part::Node(index), node.name.clone(), |canvas| {
                canvas.fill(*place, PAPER);
                canvas.frame(*place, INK, 3);
                let y = center.1 as f32 - below / 2.0;
                canvas.text_centered(&layout.names[index], center.0 as f32, y, style.anchored(Anchor::Middle));
                for port in ports {
                    let x = port_x(*place, Some(port));
                    canvas.text(&port.to_string(), x, place.bottom() as f32 - 9.0, letter);
                }
            });
        }
    }

    /// Which colour is which sign, what is dashed, and how thick effects are.
    fn legend(&self, edges: &[&GraphEdge], scale: Thickness) -> Legend<Sign> {
        let line = |color, dash, width| Sign::Line { color, dash, width, marker: None };
        let mut entries = Vec::new();
        for (sign, name) in [(-1.0, "negative"), (1.0, "positive")] {
            if edges.iter().any(|edge| edge.effect * sign > 0.0) {
                entries.push((line(color(sign), &[], 10.0), name.to_owned()));
            }
        }
        if edges.iter().any(|edge| !edge.significant) {
            entries.push((line(FAINT_INK, DASHES[0].1, 6.0), self.dashed_meaning.clone()));
        }
        let (value, label) = scale.sample();
        entries.push((line(FAINT_INK, &[], scale.width(value)), format!("{}: {label}", self.effect_label)));
        Legend::new(entries, Sign::width)
    }
}

fn color(effect: f64) -> Color {
    diverging(if effect < 0.0 { NEGATIVE } else { POSITIVE })
}

/// How thick effects are: in proportion to the largest.
#[derive(Debug, Clone, Copy)]
struct Thickness {
    largest: f64,
}

impl Thickness {
    fn of(edges: &[&GraphEdge]) -> Thickness {
        Thickness { largest: edges.iter().map(|edge| edge.effect.abs()).fold(0.0, f64::max) }
    }

    fn width(self, effect: f64) -> f32 {
        let share = if self.largest > 0.0 { effect.abs() / self.largest } else { 0.0 };
        (WIDEST * share as f32).max(THINNEST)
    }

    /// The width and the dashes of an edge.
    fn line(self, edge: &GraphEdge) -> (f32, &'static [f32]) {
        let width = self.width(edge.effect);
        let dash = DASHES.iter().find(|(most, _)| width <= *most).map_or(&[][..], |(_, dash)| dash);
        (width, if edge.significant { &[] } else { dash })
    }

    /// A large round effect with its label: others are in proportion.
    fn sample(self) -> (f64, String) {
        let values = nice_ticks(0.0, self.largest, 5);
        let (step, last) = (values.get(1).copied().unwrap_or(1.0), values.last().copied().unwrap_or(0.0));
        (last, tick_labels(&[last], step).concat())
    }
}
