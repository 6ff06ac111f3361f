//! Lines over a number: dose and response, accuracy by layer, effect by layer.
//!
//! Series differ in colour, dash and marker; controls (random directions) are thin dashed lines without markers: grey ones
//! that share one entry of the legend, or one of a series each, in a tint of its colour. Intervals are shaded. Vertical lines
//! name thresholds, whose intervals stand over the plot. Fitting curves and thresholds is left to the caller.

#[cfg(test)]
mod tests;
mod thresholds;

use super::FigureError;
use super::axis::{AxisBelow, Panel, Span, drawable, drawable_interval};
use super::canvas::{Canvas, Rect};
use super::estimate::Estimate;
use super::marks::{MOST_SERIES, color, dash, draw_marker, tint};
use super::parts::{Heading, Legend, MARGIN};
use super::sign::{Sign, draw_whisker};
use super::style::{CONTROL, Color, INK, written};
use thresholds::Flags;

/// The most controls: they are not told apart, but the plot would be grey.
pub const MOST_CONTROLS: usize = 100;
/// The most thresholds: each may need a line over the plot.
pub const MOST_THRESHOLDS: usize = 8;

const PLOT_HEIGHT: i32 = 860;
const LINE_WIDTH: f32 = 6.0;
const MARKER_RADIUS: f32 = 13.0;
/// Of lines whose points stand nearer to each other than [`SPARSE`].
const SMALL_RADIUS: f32 = 8.0;
const SPARSE: f32 = 62.0;
/// Markers of a line are not nearer to each other than this, in pixels; but for those at its ends and extremes, which all have one.
const MARKER_DISTANCE: f32 = 20.0;
/// A value that others are compared to.
const REFERENCE: Sign = Sign::Line { color: INK, dash: &[18.0, 14.0], width: 4.0, marker: None };
const BAND_OPACITY: f32 = 0.18;
const CONTROL_TINT: f32 = 0.6;
const CONTROL_WIDTH: f32 = 4.0;
/// Pen down and pen up by turns, by the series that a control belongs to; the first is that of grey ones too.
const CONTROL_DASHES: [&[f32]; MOST_SERIES] = [
    &[12.0, 12.0],
    &[3.0, 11.0],
    &[26.0, 10.0],
    &[26.0, 10.0, 3.0, 10.0],
    &[12.0, 24.0],
    &[50.0, 12.0],
    &[12.0, 10.0, 3.0, 10.0],
];

/// Lines over a number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// The title, in bold.
    pub title: String,
    /// What else a reader needs, under the title. May be empty.
    pub subtitle: String,
    /// What the lines go over: `coefficient`, `layer`.
    pub x_label: String,
    /// What the values are, with their unit.
    pub y_label: String,
    /// Whether the values are shares, whose axis is in percent.
    pub shares: bool,
    /// The lines.
    pub curves: Vec<Curve>,
    /// Places to be named.
    pub thresholds: Vec<Threshold>,
    /// A value that a dashed line is drawn at, and what it is: 0.5, `chance`.
    pub reference: Option<(f64, String)>,
    /// The value axis' range, 0 to 1 for shares; it is wider only where values are beyond. By default as values need.
    pub y_range: Option<(f64, f64)>,
    /// What shading and thresholds' whiskers are: `95 % interval`.
    pub interval_meaning: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Its name; controls of one name share an entry of the legend.
    pub name: String,
    /// How it is drawn.
    pub role: CurveRole,
    /// Its points, in any order.
    pub points: Vec<CurvePoint>,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurveRole {
    /// In a colour, with dashes and markers of its own.
    Series,
    /// As a thin grey dashed line, with what it is compared to in front.
    Control,
    /// The same in a tint of the series that it is the control of, by that one's number among the series.
    ControlOf(usize),
}

/// One point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Where it is; a point that is nowhere is not drawn.
    pub x: f64,
    /// Its value; the line has a gap where it is `None` or not finite.
    pub y: Option<f64>,
    /// Both ends of its interval.
    pub interval: Option<(f64, f64)>,
}

/// A place named by a vertical line.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// Where it is; one that is nowhere is left out.
    pub x: f64,
    /// What is there: `half refuse`.
    pub label: String,
    /// Both ends of its interval, drawn over the plot as far as that goes.
    pub interval: Option<(f64, f64)>,
}

/// A point that can be drawn.
#[derive(Debug, Clone, Copy)]
struct Spot {
    x: f64,
    y: f64,
    interval: Option<(f64, f64)>,
}

/// A line in runs without gaps.
struct Runs {
    look: Look,
    runs: Vec<Vec<Spot>>,
}

/// How a line is told from others.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Look {
    /// The number of the series.
    Series(usize),
    /// Of which series, if of one.
    Control(Option<usize>),
}

impl Look {
    fn color(self) -> Color {
        match self {
            Look::Series(series) => color(series),
            Look::Control(Some(series)) => tint(color(series), CONTROL_TINT),
            Look::Control(None) => CONTROL,
        }
    }

    fn dash(self) -> &'static [f32] {
        match self {
            Look::Series(series) => dash(series),
            Look::Control(of) => CONTROL_DASHES[of.unwrap_or(0) % MOST_SERIES],
        }
    }

    fn width(self) -> f32 {
        if self.is_control() { CONTROL_WIDTH } else { LINE_WIDTH }
    }

    fn is_control(self) -> bool {
        matches!(self, Look::Control(_))
    }

    /// The line in a legend.
    fn sign(self) -> Sign {
        let marker = if let Look::Series(series) = self { Some(series) } else { None };
        Sign::Line { color: self.color(), dash: self.dash(), width: self.width(), marker }
    }
}

impl Curves {
    /// Draws the figure.
    ///
    /// # Errors
    /// Without a point that has a value, and with more lines or thresholds than can be told apart.
    pub fn draw(&self) -> Result<Canvas, FigureError> {
        let lines = self.lines();
        let (x_span, y_span) = self.check(&lines)?;
        let heading = Heading::new(&self.title, &self.subtitle);
        let legend = self.legend(&lines);
        // The flags' height is known only once the plot's width is, which does not depend on its top.
        let width = self.panel(0, y_span).plot;
        let flags = Flags::new(&self.thresholds, AxisBelow::new(x_span, width, "", false).scale, width);
        let panel = self.panel(heading.height() + flags.height(), y_span);
        let axis = AxisBelow::new(x_span, panel.plot, &self.x_label, self.is_whole());
        let legend_top = panel.plot.bottom() + axis.height() + 20;
        let mut canvas = Canvas::new((legend_top + legend.height() + MARGIN) as u32);
        heading.draw(&mut canvas);
        panel.draw_grid(&mut canvas);
        axis.draw_grid(&mut canvas, panel.plot);
        if y_span.low < 0.0 && y_span.high > 0.0 {
            panel.draw_level(&mut canvas, 0.0, 2);
        }
        if let Some(value) = self.reference.as_ref().and_then(|(value, _)| drawable(*value)) {
            let y = panel.scale.place(value);
            REFERENCE.draw_line(&mut canvas, (panel.plot.left as f32, y), (panel.plot.right() as f32, y));
        }
        draw_lines(
            &mut canvas,
            &lines,
            |x, y| (axis.scale.place(x), panel.scale.place(y)),
            |canvas| {
                flags.draw_lines(canvas, panel.plot);
            },
        );
        self.add_tips(&mut canvas, &lines, |x, y| (axis.scale.place(x), panel.scale.place(y)));
        panel.draw_axis(&mut canvas);
        axis.draw(&mut canvas, panel.plot);
        flags.draw_labels(&mut canvas, panel.plot);
        legend.draw(&mut canvas, legend_top, |canvas, place, sign| sign.draw(canvas, place));
        Ok(canvas)
    }

    fn panel(&self, top: i32, span: Span) -> Panel {
        let new = if self.shares { Panel::of_shares } else { Panel::new };
        new(top, PLOT_HEIGHT, None, span, &self.y_label)
    }

    /// The ranges of both axes, once it is known that there is something to draw and not too much.
    fn check(&self, lines: &[Runs]) -> Result<(Span, Span), FigureError> {
        let title = || self.title.clone();
        let controls = lines.iter().filter(|line| line.look.is_control()).count();
        let found = [
            ("series", lines.len() - controls, MOST_SERIES),
            ("controls", controls, MOST_CONTROLS),
            ("thresholds", self.thresholds.len(), MOST_THRESHOLDS),
        ];
        if let Some((what, found, limit)) = found.into_iter().find(|(_, found, limit)| found > limit) {
            return Err(FigureError::TooMany { title: title(), what, found, limit });
        }
        let spots = || lines.iter().flat_map(|line| line.runs.iter().flatten());
        let places = spots().map(|spot| spot.x).chain(self.thresholds.iter().map(|threshold| threshold.x));
        let ends = |spot: &Spot| spot.interval.map_or([spot.y; 3], |(low, high)| [low, spot.y, high]);
        let reference = self.reference.iter().filter(|_| spots().next().is_some()).map(|(value, _)| *value);
        match (Span::of(places), Span::of(spots().flat_map(ends).chain(reference))) {
            (Some(x), Some(y)) => {
                let y = y.widened();
                Ok((x.widened().padded(0.03), y.padded(0.05).or_wanted(self.y_range, y)))
            }
            _ => Err(FigureError::Empty { title: title(), what: "points with a value" }),
        }
    }

    /// Says the numbers of points where they are; controls have none, which would cover those of the series.
    fn add_tips(&self, canvas: &mut Canvas, lines: &[Runs], place: impl Fn(f64, f64) -> (f32, f32)) {
        let series = self.curves.iter().zip(lines).filter(|(_, line)| !line.look.is_control());
        for (curve, line) in series {
            for spot in line.runs.iter().flatten() {
                let (x, y) = place(spot.x, spot.y);
                let half = MARKER_RADIUS as i32 + 4;
                let told = Estimate { interval: spot.interval, ..Estimate::new(spot.y) }.told(None, self.shares);
                let text = format!("{} at {}: {told}", curve.name, plain(spot.x));
                let (left, top) = (x.round() as i32 - half, y.round() as i32 - half);
                canvas.tip(Rect { left, top, width: 2 * half, height: 2 * half }, text);
            }
        }
    }

    /// All lines with their looks, in runs without gaps.
    fn lines(&self) -> Vec<Runs> {
        let mut series = 0;
        let look = |curve: &Curve| match curve.role {
            CurveRole::Control => Look::Control(None),
            CurveRole::ControlOf(of) => Look::Control(Some(of)),
            CurveRole::Series => {
                series += 1;
                Look::Series(series - 1)
            }
        };
        let looks: Vec<Look> = self.curves.iter().map(look).collect();
        self.curves.iter().zip(looks).map(|(curve, look)| Runs { look, runs: runs(&curve.points) }).collect()
    }

    /// Whether fractions between the places mean nothing, as between layers.
    fn is_whole(&self) -> bool {
        let places = self.curves.iter().flat_map(|curve| &curve.points).map(|point| point.x);
        let thresholds = self.thresholds.iter().map(|threshold| threshold.x);
        places.chain(thresholds).filter_map(drawable).all(|x| x == x.round())
    }

    fn legend(&self, lines: &[Runs]) -> Legend<Sign> {
        let mut entries: Vec<(Sign, String)> = Vec::new();
        for (curve, line) in self.curves.iter().zip(lines) {
            let entry = (line.look.sign(), curve.name.clone());
            if !line.look.is_control() || !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        if entries.len() == 1 && !lines.iter().any(|line| line.look.is_control()) {
            entries.clear();
        }
        let shaded = lines.iter().flat_map(|line| line.runs.iter().flatten()).any(|spot| spot.interval.is_some());
        let whiskers = self.thresholds.iter().any(|threshold| drawable_interval(threshold.interval).is_some());
        let meaning = || self.interval_meaning.iter().cloned();
        entries.extend(self.reference.iter().map(|(_, meaning)| (REFERENCE, meaning.clone())));
        entries.extend(meaning().filter(|_| shaded).map(|meaning| (Sign::Band, meaning)));
        entries.extend(meaning().filter(|_| whiskers).map(|of| (Sign::Whisker, format!("{of} of a vertical line"))));
        Legend::new(entries, Sign::width)
    }
}

/// A place along the axis, as short as it can be written.
fn plain(x: f64) -> String {
    if x == x.round() && x.abs() < 1e6 { format!("{x}").replace('-', "−") } else { written(x) }
}

/// The points in order of their places, parted where a value is missing.
fn runs(points: &[CurvePoint]) -> Vec<Vec<Spot>> {
    let mut points: Vec<&CurvePoint> = points.iter().filter(|point| drawable(point.x).is_some()).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    let spot = |point: &&CurvePoint| {
        let y = point.y.and_then(drawable)?;
        Some(Spot { x: point.x, y, interval: drawable_interval(point.interval) })
    };
    let spots: Vec<Option<Spot>> = points.iter().map(spot).collect();
    spots
        .split(Option::is_none)
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().flatten().copied().collect())
        .collect()
}

/// Draws bands, then controls, then what `between` draws, then the series.
fn draw_lines(
    canvas: &mut Canvas,
    lines: &[Runs],
    place: impl Fn(f64, f64) -> (f32, f32),
    between: impl FnOnce(&mut Canvas),
) {
    for line in lines {
        draw_band(canvas, line, &place);
    }
    let (controls, series): (Vec<&Runs>, Vec<&Runs>) = lines.iter().partition(|line| line.look.is_control());
    for line in controls {
        draw_line(canvas, line, &place);
        for alone in line.runs.iter().filter(|run| run.len() == 1) {
            canvas.disc(place(alone[0].x, alone[0].y), CONTROL_WIDTH * 1.5, line.look.color());
        }
    }
    between(canvas);
    for line in &series {
        draw_line(canvas, line, &place);
    }
    for (index, line) in series.iter().enumerate() {
        draw_markers(canvas, line, index, &place);
    }
}

fn draw_line(canvas: &mut Canvas, line: &Runs, place: impl Fn(f64, f64) -> (f32, f32)) {
    for run in &line.runs {
        let points: Vec<(f32, f32)> = run.iter().map(|spot| place(spot.x, spot.y)).collect();
        canvas.polyline(&points, line.look.color(), line.look.width(), line.look.dash());
    }
}

/// Draws the markers of a line: one at each point, smaller where points are dense.
fn draw_markers(canvas: &mut Canvas, line: &Runs, series: usize, place: impl Fn(f64, f64) -> (f32, f32)) {
    for run in &line.runs {
        let points: Vec<(f32, f32)> = run.iter().map(|spot| place(spot.x, spot.y)).collect();
        let dense = points.windows(2).any(|pair| pair[1].0 - pair[0].0 < SPARSE);
        for center in marked(&points) {
            draw_marker(canvas, series, center, if dense { SMALL_RADIUS } else { MARKER_RADIUS }, true);
        }
    }
}

/// The points of a run that get a marker: all that are far enough from the marker before, and always both ends, the highest
/// and the lowest.
fn marked(points: &[(f32, f32)]) -> Vec<(f32, f32)> {
    let by_height = |a: &&(f32, f32), b: &&(f32, f32)| a.1.total_cmp(&b.1);
    let (high, low) = (points.iter().min_by(by_height), points.iter().max_by(by_height));
    let always = [points.first(), points.last(), high, low];
    let mut marked: Vec<(f32, f32)> = Vec::new();
    for point in points {
        let far = marked.last().is_none_or(|last| point.0 - last.0 >= MARKER_DISTANCE);
        if far || always.contains(&Some(point)) {
            marked.push(*point);
        }
    }
    marked
}

/// Shades the intervals along a line; of a point without neighbours the interval is a line.
fn draw_band(canvas: &mut Canvas, line: &Runs, place: impl Fn(f64, f64) -> (f32, f32)) {
    let (color, opacity) = (line.look.color(), if line.look.is_control() { 0.3 } else { BAND_OPACITY });
    for run in &line.runs {
        for part in run.split(|spot| spot.interval.is_none()) {
            let ends = part.iter().filter_map(|spot| spot.interval.map(|(low, high)| (spot.x, low, high)));
            let edges: Vec<_> = ends.map(|(x, low, high)| (place(x, high), place(x, low))).collect();
            if let [(upper, lower)] = edges[..] {
                draw_whisker(canvas, upper, lower, color, 4.0);
                continue;
            }
            let band: Vec<(f32, f32, f32)> = edges.iter().map(|(upper, lower)| (upper.0, upper.1, lower.1)).collect();
            canvas.band(&band, color, opacity);
            for pick in [|edge: &(f32, f32, f32)| (edge.0, edge.1), |edge: &(f32, f32, f32)| (edge.0, edge.2)] {
                canvas.polyline(&band.iter().map(pick).collect::<Vec<_>>(), tint(color, 0.5), 2.0, &[]);
            }
        }
    }
}
